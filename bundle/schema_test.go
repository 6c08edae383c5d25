package bundle

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

const schemaFile = "../docs/sealift.schema.json"

func compiledSchema(t testing.TB) *jsonschema.Schema {
	t.Helper()
	raw, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("sealift.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("sealift.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// asEditor reads a spec as editors do: by the core schema of YAML 1.2, in which dates are texts.
func asEditor(t testing.TB, raw []byte) any {
	t.Helper()
	var n yaml.Node
	if err := yaml.Unmarshal(raw, &n); err != nil {
		t.Fatal(err)
	}
	var convert func(n *yaml.Node) any
	convert = func(n *yaml.Node) any {
		switch n.Kind {
		case yaml.DocumentNode:
			return convert(n.Content[0])
		case yaml.MappingNode:
			m := map[string]any{}
			for i := 0; i+1 < len(n.Content); i += 2 {
				m[n.Content[i].Value] = convert(n.Content[i+1])
			}
			return m
		case yaml.SequenceNode:
			l := []any{}
			for _, c := range n.Content {
				l = append(l, convert(c))
			}
			return l
		default:
		}
		if n.Tag == "!!timestamp" {
			return n.Value
		}
		var v any
		if err := n.Decode(&v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	return convert(&n)
}

// TestSchemaIsCommitted: run with SEALIFT_UPDATE=1 to write it.
func TestSchemaIsCommitted(t *testing.T) {
	want, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv("SEALIFT_UPDATE") != "" {
		if err := os.WriteFile(schemaFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what the types of specs make it: run this test with SEALIFT_UPDATE=1", schemaFile)
	}
}

// TestSchemaTables: no table says anything about a key that there is not. (That every key has a
// description, Schema itself demands.)
func TestSchemaTables(t *testing.T) {
	keys, types := map[string]bool{}, map[string]bool{}
	var walk func(t reflect.Type)
	walk = func(t reflect.Type) {
		switch t.Kind() {
		case reflect.Pointer, reflect.Slice:
			walk(t.Elem())
		case reflect.Struct:
			types[t.Name()] = true
			for i := range t.NumField() {
				if key := t.Field(i).Tag.Get("yaml"); key != "" {
					keys[schemaName(t, key)] = true
					walk(t.Field(i).Type)
				}
			}
		default:
		}
	}
	walk(reflect.TypeFor[Spec]())
	for name, text := range descriptions {
		if !keys[name] || text == "" {
			t.Errorf("description of %s: %q", name, text)
		}
	}
	for name := range keyRules() {
		if !keys[name] {
			t.Errorf("rule for %s, which is no key", name)
		}
	}
	for name := range typeRules() {
		if !types[name] {
			t.Errorf("rule for %s, which is no type", name)
		}
	}
}

// TestSchemaTakesWhatTheParserTakes: an editor never underlines what can be packed.
func TestSchemaTakesWhatTheParserTakes(t *testing.T) {
	s := compiledSchema(t)
	if err := s.Validate(asEditor(t, fmt.Appendf(nil, SampleSpec, "shop"))); err != nil {
		t.Errorf("the sample: %v", err)
	}
	specs := map[string][]byte{"the whole": []byte(wholeSpec)}
	page, err := os.ReadFile("../docs/spec.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := 0
	for i, m := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(page, -1) {
		text := m[1]
		if !bytes.HasPrefix(text, []byte("apiVersion:")) {
			// A part: it is one of a whole spec.
			text = append([]byte("apiVersion: sealift/v1\nkind: Bundle\nname: shop\nversion: 1.0.0\n"), text...)
		}
		examples++
		name := fmt.Sprintf("example %d of docs/spec.md", i+1)
		specs[name] = text
		if _, problems := parseSpec(text); len(problems) > 0 && problems[0].Text != "names no images, artifacts, charts, manifests or files: there is nothing to pack" {
			t.Errorf("%s: %v", name, problems)
		}
	}
	if examples < 5 {
		t.Errorf("%d examples in docs/spec.md", examples)
	}
	scripts, err := filepath.Glob("../testdata/script/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	inScripts := 0
	variable := regexp.MustCompile(`\$\{?[A-Z_]+\}?`)
	for _, path := range scripts {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range archive.Files {
			if bytes.Contains(f.Data, []byte("\nkind: Bundle\n")) && strings.HasSuffix(f.Name, ".yaml") {
				inScripts++
				specs[filepath.Base(path)+": "+f.Name] = variable.ReplaceAll(f.Data, []byte("registry.example.com:5000"))
			}
		}
	}
	if inScripts < 20 {
		t.Errorf("%d specs in testdata/script", inScripts)
	}
	for name, text := range specs {
		if _, problems := parseSpec(text); len(problems) > 0 {
			continue
		}
		if err := s.Validate(asEditor(t, text)); err != nil {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
	}
}

// TestSchemaRefuses: what an editor can know.
func TestSchemaRefuses(t *testing.T) {
	s := compiledSchema(t)
	for _, lines := range []string{
		"kind: Bundle", "colour: red", "platforms: linux/amd64", "platforms: [amd64]", "platforms: [linux/amd64, linux/amd64]",
		"images: [{ref: nginx}]", "images: [{}]", "images: [{ref: r.example.com/a:1, match: r.example.com/a}]", "images: [{match: nginx}]",
		"images: [{ref: r.example.com/a:1, verify: {}}]", "images: [{ref: r.example.com/a:1, verify: [{key: k, trustedRoot: r}]}]",
		"ignoreImages: [r.example.com/a]", "artifacts: [{oci: x}]",
		"charts: [{}]", "charts: [{path: a, oci: 'oci://r.example.com/a'}]", "charts: [{repo: 'https://r.example.com'}]", "charts: [{oci: r.example.com/a}]",
		"charts: [{repo: 'https://user:secret@r.example.com', chart: a}]", "charts: [{path: a, rollback: maybe}]",
		"charts: [{path: a, rollout: {strategy: blueGreen}}]", "charts: [{path: a, checks: [{name: a}]}]",
		"charts: [{path: a, checks: [{name: a, tcp: {service: a, port: 0}}]}]", "charts: [{path: a, dependsOn: [a/b/c]}]",
		"kubernetes: {versions: [latest]}", "parameters: [{name: a}]", "parameters: [{name: a, type: list, values: [{path: a}]}]",
		"referrers: no", "files: [a]", "manifests: [{name: a}]",
	} {
		head := "apiVersion: sealift/v1\nkind: Bundle\nname: a\nversion: 1.0.0\n"
		if lines == "kind: Bundle" {
			head = ""
		}
		if err := s.Validate(asEditor(t, []byte(head+lines+"\n"))); err == nil {
			t.Errorf("the schema takes %s", lines)
		}
	}
}
