package chart

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"go.yaml.in/yaml/v3"
)

// ParseValue reads one value as YAML 1.2 has it: null, true and false, numbers, texts, and lists and mappings in one line
// or in several. The empty text is the empty text. What values files still know from YAML 1.1, such as "yes", is text.
func ParseValue(text string) (any, error) {
	if len(text) > MaxValues {
		return nil, fmt.Errorf("the value has more than %d bytes", MaxValues)
	}
	if strings.TrimSpace(text) == "" {
		return text, nil
	}
	var doc yaml.Node
	dec := yaml.NewDecoder(strings.NewReader(text))
	if err := protect(func() error { return dec.Decode(&doc) }); err != nil || len(doc.Content) != 1 {
		return nil, errors.New("the value is not YAML: quote it if it is a text")
	}
	var more yaml.Node
	if err := protect(func() error { return dec.Decode(&more) }); !errors.Is(err, io.EOF) {
		return nil, errors.New("the value is more than one document")
	}
	return plainValue(doc.Content[0], 0)
}

func plainValue(n *yaml.Node, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("the value is nested deeper than %d levels", maxDepth)
	}
	switch n.Kind { //nolint:exhaustive // all else is refused below
	case yaml.MappingNode:
		m := make(map[string]any, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			if _, twice := m[key.Value]; twice || key.Kind != yaml.ScalarNode || key.Tag == "!!merge" {
				return nil, fmt.Errorf("the value has the key %q twice, or one that is no text", key.Value)
			}
			v, err := plainValue(n.Content[i+1], depth+1)
			if err != nil {
				return nil, err
			}
			m[key.Value] = v
		}
		return m, nil
	case yaml.SequenceNode:
		list := make([]any, 0, len(n.Content))
		for _, item := range n.Content {
			v, err := plainValue(item, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, nil
	case yaml.ScalarNode:
		return plainScalar(n)
	}
	return nil, errors.New("the value refers to another one")
}

func plainScalar(n *yaml.Node) (any, error) {
	switch n.ShortTag() {
	case "!!null":
		return nil, nil
	case "!!bool":
		var v bool
		err := n.Decode(&v)
		return v, err
	case "!!int":
		var v int64
		err := n.Decode(&v)
		return v, err
	case "!!float":
		var v float64
		if err := n.Decode(&v); err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, fmt.Errorf("%q is no number that a chart can have", n.Value)
		}
		return v, nil
	}
	return n.Value, nil
}
