package install

import (
	"maps"
	"testing"
)

// What goes on with a transaction later calls images as it was begun.
func TestTargetWords(t *testing.T) {
	rule, err := ParseRule("docker.io/library/*=base/*")
	if err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]Target{
		"host":    {Registry: "registry.example:5000"},
		"prefix":  {Registry: "registry.example", Prefix: "a/b"},
		"flatten": {Registry: "registry.example", Prefix: "a", Names: Names{Mapping: MappingFlatten}},
		"rules":   {Registry: "registry.example", Names: Names{Rules: []Rule{rule}}},
		"none":    {},
	} {
		t.Run(name, func(t *testing.T) {
			words := target.Words()
			got, err := ReadTarget(words)
			if err != nil {
				t.Fatal(err)
			}
			if got.String() != target.String() || !got.Names.Equal(target.Names) || !maps.Equal(got.Words(), words) && target.Registry != "" {
				t.Errorf("got %v, want %v", got, target)
			}
		})
	}
	for _, words := range []map[string]string{
		{"registry": "no host"},
		{"registry": "registry.example", "mapping": "other"},
		{"registry": "registry.example", "map": "no list"},
		{"registry": "registry.example", "map": `["no rule"]`},
	} {
		if got, err := ReadTarget(words); err == nil {
			t.Errorf("%v gave %v, want an error", words, got)
		}
	}
}
