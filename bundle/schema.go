package bundle

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
)

// Schema returns the JSON schema of specs (draft 7, which the YAML support of editors reads best),
// made from the types that specs are read into. What it accepts may still be refused: it knows
// nothing of ranges, references and what has to fit together. docs/sealift.schema.json is this.
func Schema() ([]byte, error) {
	root, err := schemaOf(reflect.TypeFor[Spec]())
	if err != nil {
		return nil, err
	}
	root["$schema"] = "http://json-schema.org/draft-07/schema#"
	root["title"] = "sealift.yaml"
	root["description"] = "What a bundle holds: https://github.com/sealift/sealift/blob/main/docs/spec.md"
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(root); err != nil {
		return nil, fmt.Errorf("encoding the schema of specs: %w", err)
	}
	return out.Bytes(), nil
}

type schema map[string]any

func schemaOf(t reflect.Type) (schema, error) {
	// One demand, or a list of them.
	if t == reflect.TypeFor[SignerSpecs]() {
		one, err := schemaOf(t.Elem())
		if err != nil {
			return nil, err
		}
		return schema{"oneOf": []any{one, schema{"type": "array", "items": one}}}, nil
	}
	switch t.Kind() {
	case reflect.Pointer:
		return schemaOf(t.Elem())
	case reflect.String:
		return schema{"type": "string"}, nil
	case reflect.Int:
		return schema{"type": "integer"}, nil
	case reflect.Bool:
		return schema{"type": "boolean"}, nil
	case reflect.Slice:
		items, err := schemaOf(t.Elem())
		if err != nil {
			return nil, err
		}
		return schema{"type": "array", "items": items}, nil
	case reflect.Struct:
		return objectSchema(t)
	default:
		return nil, fmt.Errorf("the schema of specs has no words for the type %s", t)
	}
}

func objectSchema(t reflect.Type) (schema, error) {
	properties := schema{}
	for i := range t.NumField() {
		key := t.Field(i).Tag.Get("yaml")
		if key == "" {
			continue
		}
		p, err := schemaOf(t.Field(i).Type)
		if err != nil {
			return nil, err
		}
		name := schemaName(t, key)
		text, ok := descriptions[name]
		if !ok {
			return nil, fmt.Errorf("the schema of specs has no description of %s", name)
		}
		p["description"] = text
		for k, v := range keyRules()[name] {
			if k == "items" {
				items, ok := p["items"].(schema)
				rules, isRules := v.(schema)
				if !ok || !isRules {
					return nil, fmt.Errorf("the schema of specs has rules for the items of %s, which is no list", name)
				}
				for k, v := range rules {
					items[k] = v
				}
				continue
			}
			p[k] = v
		}
		properties[key] = p
	}
	s := schema{"type": "object", "additionalProperties": false, "properties": properties}
	for k, v := range typeRules()[t.Name()] {
		s[k] = v
	}
	return s, nil
}

// schemaName is how the tables name a key: that of the type without Spec, and the key.
func schemaName(t reflect.Type, key string) string {
	return strings.TrimSuffix(t.Name(), "Spec") + "." + key
}
