package chart

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	keepKey   = "helm.sh/resource-policy"
	keepValue = "keep"
)

// KeepData puts the annotation "helm.sh/resource-policy: keep" on all objects
// that hold data or whose deletion takes data along: claims, volumes,
// namespaces and custom resource definitions. Without it, a Helm rollback
// deletes the claims that the newer revision added, and an uninstall deletes
// the definitions that a chart has among its templates, with all their objects.
//
// It changes nothing else, and nothing at all when called again. It does not
// help objects that are hooks: Helm deletes those by their hook policy.
//
// Errors are *[ManifestError].
func KeepData(docs []byte) ([]byte, error) {
	s, err := parseStream(docs)
	if err != nil {
		return nil, err
	}
	lines := newLineIndex(docs)
	for i, doc := range s.docs {
		err := doc.objects(func(object *yaml.Node) error {
			if !holdsData(object) {
				return nil
			}
			if err := doc.keep(lines, object); err != nil {
				return &ManifestError{Document: i + 1, Line: object.Line, Err: fmt.Errorf("annotating %s: %w", objectName(object), err)}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return s.text()
}

func holdsData(object *yaml.Node) bool {
	apiVersion := text(field(object, "apiVersion"))
	switch text(field(object, "kind")) {
	case "CustomResourceDefinition":
		return strings.HasPrefix(apiVersion, "apiextensions.k8s.io/")
	case "PersistentVolumeClaim", "PersistentVolume", "Namespace":
		return apiVersion == "v1"
	}
	return false
}

func (d *document) keep(lines *lineIndex, object *yaml.Node) error {
	meta := field(object, "metadata")
	if meta == nil || isNull(meta) {
		return nil // has no name: Kubernetes refuses it
	}
	if meta.Kind != yaml.MappingNode {
		return fmt.Errorf("metadata is not a mapping")
	}
	annotations := field(meta, "annotations")
	switch {
	case annotations == nil:
		value := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Content: []*yaml.Node{str(keepKey), str(keepValue)}}
		d.insert(lines, meta, "annotations", value)
	case isNull(annotations):
		d.fillNull(lines, meta, annotations)
	case annotations.Kind != yaml.MappingNode:
		return fmt.Errorf("metadata.annotations is not a mapping")
	default:
		d.setAnnotation(lines, annotations)
	}
	return nil
}

func str(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s} }

func (d *document) setAnnotation(lines *lineIndex, annotations *yaml.Node) {
	found := false
	for i := 0; i+1 < len(annotations.Content); i += 2 {
		if annotations.Content[i].Value != keepKey {
			continue
		}
		found = true
		value := annotations.Content[i+1]
		if value.Kind == yaml.ScalarNode && value.Value == keepValue {
			continue
		}
		if value.Kind == yaml.ScalarNode && value.ShortTag() == "!!str" {
			d.setScalar(lines, value, keepValue)
			continue
		}
		annotations.Content[i+1] = str(keepValue)
		d.changed, d.reencode = true, true
	}
	if !found {
		d.insert(lines, annotations, keepKey, str(keepValue))
	}
}

// fillNull gives "annotations:" without a value its value, on the same line.
func (d *document) fillNull(lines *lineIndex, meta, annotations *yaml.Node) {
	d.changed = true
	for i := 0; i+1 < len(meta.Content); i += 2 {
		if meta.Content[i+1] != annotations {
			continue
		}
		_, end, ok := lines.scalarSpan(meta.Content[i])
		if d.resolved || !ok || end >= len(lines.src) || lines.src[end] != ':' || annotations.Value != "" {
			d.reencode = true
		} else {
			d.edits = append(d.edits, edit{start: end + 1, end: end + 1, text: " {" + keepKey + ": " + keepValue + "}"})
		}
	}
	*annotations = yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Content: []*yaml.Node{str(keepKey), str(keepValue)}}
}

// insert puts a key in front of the keys of a mapping.
func (d *document) insert(lines *lineIndex, mapping *yaml.Node, key string, value *yaml.Node) {
	d.changed = true
	if e, ok := insertion(lines, mapping, key, value); ok && !d.resolved {
		d.edits = append(d.edits, e)
	} else {
		d.reencode = true
	}
	mapping.Content = append([]*yaml.Node{str(key), value}, mapping.Content...)
}

func insertion(lines *lineIndex, mapping *yaml.Node, key string, value *yaml.Node) (edit, bool) {
	if mapping.Style&yaml.FlowStyle != 0 {
		at, ok := lines.offset(mapping.Line, mapping.Column)
		if !ok || at >= len(lines.src) || lines.src[at] != '{' {
			return edit{}, false
		}
		text := key + ": " + flowText(value)
		if len(mapping.Content) > 0 {
			text += ", "
		}
		return edit{start: at + 1, end: at + 1, text: text}, true
	}
	if len(mapping.Content) == 0 {
		return edit{}, false
	}
	first := mapping.Content[0]
	at, ok := lines.offset(first.Line, first.Column)
	if !ok {
		return edit{}, false
	}
	indent := string(lines.src[lines.start(first.Line):at])
	if strings.Trim(indent, " ") != "" {
		return edit{}, false
	}
	lineEnd := "\n"
	if bytes.HasSuffix(lines.src[:lines.start(first.Line)], []byte("\r\n")) {
		lineEnd = "\r\n"
	}
	return edit{start: at, end: at, text: key + ": " + flowText(value) + lineEnd + indent}, true
}

// flowText writes a value that is inserted, of lists, mappings, and texts that need no quotes, in one line.
func flowText(value *yaml.Node) string {
	var parts []string
	switch value.Kind { //nolint:exhaustive // others do not come here
	case yaml.MappingNode:
		for i := 0; i+1 < len(value.Content); i += 2 {
			parts = append(parts, value.Content[i].Value+": "+flowText(value.Content[i+1]))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case yaml.SequenceNode:
		for _, item := range value.Content {
			parts = append(parts, flowText(item))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	if isWord(value.Value) {
		return value.Value
	}
	return scalarText(value.Value, yaml.DoubleQuotedStyle)
}

// isWord says that s is a text to every YAML version without quotes: letters and dashes that are no word for
// true, false or null.
func isWord(s string) bool {
	if s == "" || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz-") != "" || strings.HasPrefix(s, "-") {
		return false
	}
	return !slices.Contains([]string{"y", "n", "yes", "no", "on", "off", "true", "false", "null"}, s)
}
