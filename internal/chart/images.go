package chart

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// ImageUse is one place where an object names an image.
type ImageUse struct {
	Reference string // as written, without surrounding white space
	Object    string // "Deployment/shop"
	Path      string // "spec.template.spec.containers[0].image"
}

// FindImages lists the images that rendered documents use, in the order of the
// documents. An image is
//
//   - image of an item of a list named containers, initContainers or
//     ephemeralContainers, anywhere in an object, and thus of pods, of all that
//     embeds pod templates, and of custom resources that do;
//   - image.reference of an item of a list named volumes (image volumes).
//
// Objects of kind List are walked item by item, aliases and merge keys are
// resolved. Empty and missing images are no images. Images that charts put
// anywhere else (arguments, environment, ConfigMaps, fields of custom
// resources) are not found.
//
// Errors are *[ManifestError].
func FindImages(docs []byte) ([]ImageUse, error) {
	s, err := parseStream(docs)
	if err != nil {
		return nil, err
	}
	var uses []ImageUse
	for _, doc := range s.docs {
		err := doc.images(func(use ImageUse, _ *yaml.Node) error {
			uses = append(uses, use)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return uses, nil
}

// RewriteImages replaces every image that [FindImages] finds by what f returns
// for it, and stops at the first error of f. Where nothing changes, the same
// bytes come back; otherwise the bytes around the rewritten references stay as
// they are (comments, quotes, numbers and all), but for documents with aliases,
// which are written anew with the aliases resolved.
//
// Errors are *[ManifestError], and those of f with the place added.
func RewriteImages(docs []byte, f func(use ImageUse) (string, error)) ([]byte, error) {
	s, err := parseStream(docs)
	if err != nil {
		return nil, err
	}
	lines := newLineIndex(docs)
	for _, doc := range s.docs {
		err := doc.images(func(use ImageUse, node *yaml.Node) error {
			to, err := f(use)
			if err != nil {
				return fmt.Errorf("rewriting image %q of %s: %w", use.Reference, use.Object, err)
			}
			if to == use.Reference {
				return nil
			}
			if to == "" || strings.ContainsFunc(to, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
				return fmt.Errorf("rewriting image %q of %s: the result %q is not a reference", use.Reference, use.Object, to)
			}
			doc.setScalar(lines, node, to)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return s.text()
}

// images calls f for every image of the document, with the scalar that holds it.
func (d *document) images(f func(ImageUse, *yaml.Node) error) error {
	return d.objects(func(object *yaml.Node) error {
		w := imageWalker{object: objectName(object), f: f}
		return w.walk(object, "")
	})
}

// objects calls f for the object of the document, or for the items if it is a
// list of objects.
func (d *document) objects(f func(*yaml.Node) error) error {
	if d.tree == nil {
		return nil
	}
	return eachObject(d.tree, f)
}

func eachObject(n *yaml.Node, f func(*yaml.Node) error) error {
	items := field(n, "items")
	if !strings.HasSuffix(text(field(n, "kind")), "List") || items == nil || items.Kind != yaml.SequenceNode {
		return f(n)
	}
	for _, item := range items.Content {
		if item.Kind != yaml.MappingNode {
			if isNull(item) {
				continue
			}
			return &ManifestError{Line: item.Line, Err: errors.New("an item of a List is not an object")}
		}
		if err := eachObject(item, f); err != nil {
			return err
		}
	}
	return nil
}

// field returns the value of a key of a mapping, or nil. Of a key that is there
// twice the last counts, as for the JSON that Kubernetes makes of it.
func field(n *yaml.Node, key string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := len(n.Content) - 2; i >= 0; i -= 2 {
		if k := n.Content[i]; k.Kind == yaml.ScalarNode && k.Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// text returns the value of a scalar, or "".
func text(n *yaml.Node) string {
	if n == nil || n.Kind != yaml.ScalarNode {
		return ""
	}
	return n.Value
}

// objectName is "Kind/name"; either may be empty in documents that Kubernetes
// would refuse.
func objectName(n *yaml.Node) string {
	meta := field(n, "metadata")
	name := text(field(meta, "name"))
	if name == "" {
		name = text(field(meta, "generateName"))
	}
	return text(field(n, "kind")) + "/" + name
}

// imageWalker is the one walker behind FindImages and RewriteImages.
type imageWalker struct {
	object string
	f      func(ImageUse, *yaml.Node) error
}

func (w *imageWalker) walk(n *yaml.Node, path string) error {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			at := join(path, key.Value)
			if value.Kind == yaml.SequenceNode {
				if err := w.list(key.Value, value, at); err != nil {
					return err
				}
			}
			if err := w.walk(value, at); err != nil {
				return err
			}
		}
	case yaml.SequenceNode:
		for i, item := range n.Content {
			if err := w.walk(item, path+"["+strconv.Itoa(i)+"]"); err != nil {
				return err
			}
		}
	default: // scalars hold nothing, and aliases were resolved before
	}
	return nil
}

// list handles a list by its name.
func (w *imageWalker) list(name string, list *yaml.Node, path string) error {
	for i, item := range list.Content {
		at := path + "[" + strconv.Itoa(i) + "]"
		switch name {
		case "containers", "initContainers", "ephemeralContainers":
			if err := w.scalars(item, "image", at); err != nil {
				return err
			}
		case "volumes":
			if err := w.scalars(field(item, "image"), "reference", join(at, "image")); err != nil {
				return err
			}
		}
	}
	return nil
}

// scalars reports the string at key of a mapping; if the key is there twice,
// both times, since what survives is up to the reader.
func (w *imageWalker) scalars(n *yaml.Node, key, path string) error {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode || k.Value != key || v.Kind != yaml.ScalarNode || v.ShortTag() != "!!str" {
			continue
		}
		reference := strings.TrimSpace(v.Value)
		if reference == "" {
			continue
		}
		if err := w.f(ImageUse{Reference: reference, Object: w.object, Path: join(path, key)}, v); err != nil {
			return err
		}
	}
	return nil
}

// join appends a key to a path; keys that would not read back are quoted.
func join(path, key string) string {
	if strings.ContainsAny(key, ".[]\" ") || key == "" {
		return path + "[" + strconv.Quote(key) + "]"
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// setScalar changes a string in the tree and plans the change of the text.
func (d *document) setScalar(lines *lineIndex, n *yaml.Node, to string) {
	d.changed = true
	start, end, ok := lines.scalarSpan(n)
	if d.resolved || !ok {
		d.reencode = true
	} else {
		d.edits = append(d.edits, edit{start: start, end: end, text: scalarText(to, n.Style)})
	}
	n.Value = to
	n.Tag = "!!str"
	n.Style &^= yaml.LiteralStyle | yaml.FoldedStyle
}

// scalarText writes a reference as YAML, quoted as before.
func scalarText(s string, style yaml.Style) string {
	switch {
	case style&yaml.SingleQuotedStyle != 0 && isPrintable(s):
		return "'" + strings.ReplaceAll(s, "'", "''") + "'"
	case style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0 && isPlain(s):
		return s
	}
	// A JSON string is a double-quoted scalar.
	quoted, err := json.Marshal(s)
	if err != nil {
		return strconv.Quote(s) // cannot happen: strings always marshal
	}
	return string(quoted)
}

func isPrintable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// isPlain says that s can stand without quotes and is a string to every YAML
// version: it has a slash, and nothing but what references are made of.
func isPlain(s string) bool {
	if !strings.Contains(s, "/") || strings.HasSuffix(s, ":") {
		return false
	}
	for i, r := range s {
		alnum := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !alnum && (i == 0 || !strings.ContainsRune("._-/:@", r)) {
			return false
		}
	}
	return true
}
