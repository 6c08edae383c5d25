package chart

import (
	"cmp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// LeaveOutReplicas leaves spec.replicas out of the objects whose number an autoscaler decides on: those that
// owned knows, and those to which a HorizontalPodAutoscaler, or a ScaledObject of KEDA, in the documents
// themselves leads. namespace is that of objects that name none. Else every upgrade would
// set the number back. Errors are *[ManifestError].
func LeaveOutReplicas(docs []byte, namespace string, owned func(kind, namespace, name string) bool) ([]byte, error) {
	s, err := parseStream(docs)
	if err != nil {
		return nil, err
	}
	targets := map[[3]string]bool{}
	for _, doc := range s.docs {
		err := doc.objects(func(object *yaml.Node) error {
			if kind, name, is := scaleTarget(object); is {
				targets[[3]string{kind, namespaceOf(object, namespace), name}] = true
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	lines := newLineIndex(docs)
	for _, doc := range s.docs {
		err := doc.objects(func(object *yaml.Node) error {
			kind, name := text(field(object, "kind")), text(field(field(object, "metadata"), "name"))
			in := namespaceOf(object, namespace)
			spec := field(object, "spec")
			if field(spec, "replicas") == nil || kind == "ScaledObject" {
				return nil
			}
			if targets[[3]string{kind, in, name}] || owned != nil && owned(kind, in, name) {
				doc.remove(lines, spec, "replicas")
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return s.text()
}

func namespaceOf(object *yaml.Node, namespace string) string {
	return cmp.Or(text(field(field(object, "metadata"), "namespace")), namespace)
}

// scaleTarget is what an autoscaler scales.
func scaleTarget(object *yaml.Node) (kind, name string, is bool) {
	group, _, _ := strings.Cut(text(field(object, "apiVersion")), "/")
	ref := field(field(object, "spec"), "scaleTargetRef")
	name = text(field(ref, "name"))
	switch group + "/" + text(field(object, "kind")) {
	case "autoscaling/HorizontalPodAutoscaler":
		kind = text(field(ref, "kind"))
	case "keda.sh/ScaledObject":
		kind = cmp.Or(text(field(ref, "kind")), "Deployment")
	}
	return kind, name, kind != "" && name != ""
}

// remove takes a key with a value in one line out of a mapping.
func (d *document) remove(lines *lineIndex, mapping *yaml.Node, key string) {
	d.changed = true
	var content []*yaml.Node
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		k, value := mapping.Content[i], mapping.Content[i+1]
		if k.Value != key {
			content = append(content, k, value)
			continue
		}
		if e, ok := removal(lines, mapping, k, value); ok && !d.resolved {
			d.edits = append(d.edits, e)
		} else {
			d.reencode = true
		}
	}
	mapping.Content = content
}

// removal is the edit that removes the line of a key, where it has one of its own, and is not alone.
func removal(lines *lineIndex, mapping, key, value *yaml.Node) (edit, bool) {
	if mapping.Style&yaml.FlowStyle != 0 || len(mapping.Content) < 4 || key.Line != value.Line || key.Line >= len(lines.starts) {
		return edit{}, false
	}
	at, ok := lines.offset(key.Line, key.Column)
	_, end, there := lines.scalarSpan(value)
	start, next := lines.start(key.Line), lines.start(key.Line+1)
	if !ok || !there || end > next || strings.Trim(string(lines.src[start:at]), " ") != "" {
		return edit{}, false
	}
	rest := strings.TrimSpace(string(lines.src[end:next]))
	if rest != "" && !strings.HasPrefix(rest, "#") {
		return edit{}, false
	}
	return edit{start: start, end: next}, true
}
