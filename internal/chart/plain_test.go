package chart

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
)

const plainObjects = `# what operators look at
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: dashboards
data:
  a: "{{ .Values.not }} {{ template }} \u00e4"
  b: |
    ---
    {{- if }}
  c: yes
---
# nothing
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Service, metadata: {name: web}}
- apiVersion: v1
  kind: Service
  metadata: &m {name: db}
- {apiVersion: v1, kind: Secret, metadata: *m}
---
{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "as.example.com"}, "spec": {"group": "example.com", "names": {"kind": "A"}}}
`

func TestFromObjects(t *testing.T) {
	c, err := FromObjects("crds", "1.2.3", []byte(plainObjects))
	if err != nil {
		t.Fatal(err)
	}
	if c.Name != "crds" || c.Version != "1.2.3" {
		t.Errorf("%s %s", c.Name, c.Version)
	}
	again, err := FromObjects("crds", "1.2.3", []byte(plainObjects))
	if err != nil || !bytes.Equal(c.Archive, again.Archive) {
		t.Errorf("other bytes for the second time, %v", err)
	}
	rendered, err := c.Render(context.Background(), RenderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want, err := parseStream([]byte(plainObjects))
	if err != nil {
		t.Fatal(err)
	}
	// Helm sorts what it renders by kind.
	got, err := parseStream(rendered)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.objects()) != 3 {
		t.Fatalf("%d objects\n%s", len(got.objects()), rendered)
	}
	for _, w := range want.objects() {
		found := false
		for _, g := range got.objects() {
			found = found || equal(w, g)
		}
		if !found {
			t.Errorf("not rendered: %s\n%s", textAt(w, "kind"), rendered)
		}
	}
}

// TestFromManyObjects: more than Helm reads from one file.
func TestFromManyObjects(t *testing.T) {
	var docs strings.Builder
	for i := range 12 {
		fmt.Fprintf(&docs, "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a%d}\ndata: {a: %q}\n", i, strings.Repeat("x", 700<<10))
	}
	c, err := FromObjects("many", "1.0.0", []byte(docs.String()))
	if err != nil {
		t.Fatal(err)
	}
	rendered, err := c.Render(context.Background(), RenderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := CheckObjects(rendered); n != 12 || err != nil {
		t.Errorf("%d objects, %v", n, err)
	}
}

func TestObjectsRefused(t *testing.T) {
	const a = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\n"
	for docs, want := range map[string]string{
		"":                     "there are no objects",
		"---\n# a\n---\n":      "there are no objects",
		a + "kind: Pod\n":      "object 2 (line 5): it has no apiVersion",
		a + "apiVersion: v1\n": "object 2 (line 5): it has no kind",
		a + "\n\napiVersion: v1\nkind: Pod\nmetadata: {generateName: a}\n": "object 2 (line 7): Pod has no name",
		a + "apiVersion: v1\nkind: Pod\nmetadata: text\n":                  "object 2 (line 5): Pod has no name",
		a + "- a\n":  "object 2 (line 5): the document is not an object",
		a + "a: [\n": "object 2:",
		a + "apiVersion: v1\nkind: List\nitems: {}\n":                "object 2 (line 5): its items are no list",
		a + "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n": "object 2 (line 5): items[0] (line 8): it has no kind",
		a + "apiVersion: v1\nkind: List\nitems: [a]\n":               "items[0] (line 7) is not an object",
		"\xff":                                 "UTF-8",
		strings.Repeat("# ", MaxManifests/2+1): "more than",
		plainObjects + "---\napiVersion: example.com/v1\nkind: A\nmetadata: {name: one}\n": `A "one" needs the CustomResourceDefinition "as.example.com"`,
		"apiVersion: v1\nkind: A\nmetadata: {name: a}\nspec: &s {a: *s}\n":                 "object 1",
	} {
		_, err := FromObjects("a", "1.0.0", []byte(docs))
		var bad *ObjectsError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.200q: %v, want %s", docs, err, want)
		}
	}
	if _, err := FromObjects("not/a/name", "1.0.0", []byte(plainObjects)); err == nil {
		t.Error("a chart with a path for a name")
	}
}

// FuzzFromObjects: what is taken renders to what it is.
func FuzzFromObjects(f *testing.F) {
	f.Add([]byte(plainObjects))
	f.Add([]byte("apiVersion: v1\nkind: A\nmetadata: {name: a}\nb: &b {}\nc: {<<: *b}\n...\n%YAML 1.1\n---\n{}\n"))
	f.Add([]byte("apiVersion: v1\nkind: A\nmetadata: {name: '---'}\nb: \"\\n---\\n\"\n"))
	f.Add([]byte("apiVersion: v1\nkind: A\nmetadata: {name: a}\nx: |2\n\n   a\n  b\ny: !!binary YQ==\nz: 010\n"))
	f.Fuzz(func(t *testing.T, docs []byte) {
		c, err := FromObjects("a", "1.0.0", docs)
		if err != nil {
			var bad *ObjectsError
			if !errors.As(err, &bad) {
				t.Fatal(err)
			}
			return
		}
		again, err := FromObjects("a", "1.0.0", docs)
		if err != nil || !bytes.Equal(c.Archive, again.Archive) {
			t.Fatalf("other bytes, %v", err)
		}
	})
}
