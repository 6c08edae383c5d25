package chart

import (
	"go.yaml.in/yaml/v3"
)

// Hidden is what stands in place of a secret in what people are shown.
const Hidden = "(hidden)"

// HideSecrets replaces all that the objects of kind Secret hold by [Hidden], for what people are
// shown. Errors are *[ManifestError].
func HideSecrets(docs []byte) ([]byte, error) {
	s, err := parseStream(docs)
	if err != nil {
		return nil, err
	}
	lines := newLineIndex(docs)
	for _, doc := range s.docs {
		err := doc.objects(func(object *yaml.Node) error {
			if text(field(object, "kind")) != "Secret" || text(field(object, "apiVersion")) != "v1" {
				return nil
			}
			for _, key := range []string{"data", "stringData"} {
				doc.hide(lines, field(object, key))
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return s.text()
}

// hide replaces the values of a mapping.
func (d *document) hide(lines *lineIndex, n *yaml.Node) {
	if n == nil || n.Kind != yaml.MappingNode {
		return
	}
	for i := 1; i < len(n.Content); i += 2 {
		if n.Content[i].Kind == yaml.ScalarNode {
			d.setScalar(lines, n.Content[i], Hidden)
			continue
		}
		n.Content[i] = str(Hidden)
		d.changed, d.reencode = true, true
	}
}
