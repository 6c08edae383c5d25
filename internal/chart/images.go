package chart

import (
	"errors"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// ImageUse is one place where an object names an image.
type ImageUse = Find

// FindImages lists the images that rendered documents use by their place, in the
// order of the documents. An image is
//
//   - image of an item of a list named containers, initContainers or
//     ephemeralContainers, anywhere in an object, and thus of pods, of all that
//     embeds pod templates, and of custom resources that do;
//   - image.reference of an item of a list named volumes (image volumes).
//
// Objects of kind List are walked item by item, aliases and merge keys are
// resolved. Empty and missing images are no images, and neither are those of
// custom resources that somebody fills in later ("$(params.image)"). For images
// that charts put anywhere else (arguments, environment, ConfigMaps, fields of
// custom resources) see [Discover].
//
// Errors are *[ManifestError].
func FindImages(docs []byte) ([]ImageUse, error) {
	s, err := parseStream(docs)
	if err != nil {
		return nil, err
	}
	var uses []ImageUse
	scan := newScan(nil)
	scan.placesOnly = true
	for _, doc := range s.docs {
		err := doc.images(scan, func(h hit) error {
			uses = append(uses, h.Find)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return uses, nil
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

// isText says that n is a string.
func isText(n *yaml.Node) bool {
	return n != nil && n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str"
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

// join appends a key to a path; keys that would not read back are quoted.
func join(path, key string) string {
	if strings.ContainsAny(key, ".[]\" :") || key == "" {
		return path + "[" + strconv.Quote(key) + "]"
	}
	if path == "" || strings.HasSuffix(path, ":") {
		return path + key
	}
	return path + "." + key
}

// joinIndex appends the index of an item to the path of a list.
func joinIndex(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }
