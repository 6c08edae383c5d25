package chart

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func mirror(use ImageUse) (string, error) { return "mirror.example/" + use.Reference, nil }

func paths(t *testing.T, docs string) []string {
	t.Helper()
	uses, err := FindImages([]byte(docs))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, u := range uses {
		got = append(got, u.Object+" "+u.Path+" "+u.Reference)
	}
	return got
}

func TestFindImages(t *testing.T) {
	tests := []struct {
		name, docs string
		want       []string
	}{
		{"nothing", "", nil},
		{"only comments", "# a\n---\n# b\n---\n", nil},
		{
			"pod", "kind: Pod\nmetadata: {name: p}\nspec:\n  containers: [{image: a}]\n  initContainers: [{image: b}]\n  ephemeralContainers: [{image: c}]\n",
			[]string{"Pod/p spec.containers[0].image a", "Pod/p spec.initContainers[0].image b", "Pod/p spec.ephemeralContainers[0].image c"},
		},
		{
			"cron job", "kind: CronJob\nmetadata: {name: c}\nspec: {jobTemplate: {spec: {template: {spec: {containers: [{name: x, image: a}, {image: b}]}}}}}\n",
			[]string{"CronJob/c spec.jobTemplate.spec.template.spec.containers[0].image a", "CronJob/c spec.jobTemplate.spec.template.spec.containers[1].image b"},
		},
		{
			"image volume", "kind: Pod\nmetadata: {generateName: p-}\nspec:\n  volumes:\n  - name: x\n    image: {reference: a/b:1, pullPolicy: Always}\n  - emptyDir: {}\n",
			[]string{"Pod/p- spec.volumes[0].image.reference a/b:1"},
		},
		{
			"custom resource", "kind: Db\nmetadata: {name: d}\nspec:\n  pods:\n  - template: {containers: [{image: a}]}\n  image: not-found\n  x.y: {containers: [{image: b}]}\n",
			[]string{"Db/d spec.pods[0].template.containers[0].image a", `Db/d spec["x.y"].containers[0].image b`},
		},
		{
			"list", "kind: List\nitems:\n- kind: Pod\n  metadata: {name: p}\n  spec: {containers: [{image: a}]}\n- null\n- kind: List\n  items: [{kind: Pod, metadata: {name: q}, spec: {containers: [{image: b}]}}]\n",
			[]string{"Pod/p spec.containers[0].image a", "Pod/q spec.containers[0].image b"},
		},
		{"no references", "spec:\n  containers:\n  - image:\n  - image: ''\n  - image: 1.5\n  - image: {repository: x}\n  - text\n  - name: x\n  volumes: [a, {image: text}, {image: {reference: null}}]\n", nil},
		{"a schema is no container", "kind: CustomResourceDefinition\nspec:\n  containers:\n    type: array\n    items: {image: {type: string}}\n", nil},
		{
			"alias", "x: &c {image: a}\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [*c, {<<: *c, name: b}, {<<: *c, image: z}]}\n",
			[]string{"Pod/p spec.containers[0].image a", "Pod/p spec.containers[1].image a", "Pod/p spec.containers[2].image z"},
		},
		{"block scalar", "kind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n  - image: >-\n      a/b:1\n    args: [x]\n", []string{"Pod/p spec.containers[0].image a/b:1"}},
		{
			"separator in a block scalar", "kind: Pod\nmetadata: {name: p}\ndata: |\n  ---\n  containers: [{image: no}]\nspec:\n  containers: [{image: a}]\n",
			[]string{"Pod/p spec.containers[0].image a"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := paths(t, tt.docs); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %q\nwant %q", got, tt.want)
			}
		})
	}
}

func TestManifestErrors(t *testing.T) {
	bomb := "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
	for i := 1; i < 10; i++ {
		bomb += fmt.Sprintf("a%d: &a%d [%s]\n", i, i, strings.Repeat(fmt.Sprintf("*a%d,", i-1), 10))
	}
	tests := map[string]string{
		"a list":         "a: 1\n---\n- a\n",
		"a scalar":       "a: 1\n---\ntext\n",
		"not yaml":       "a: 1\n---\na: b: c\n",
		"alias bomb":     "x: 1\n---\n" + bomb,
		"own alias":      "x: 1\n---\na: &a [*a]\n",
		"own merge":      "x: 1\n---\na: &a {<<: *a}\n",
		"unknown alias":  "x: 1\n---\na: *b\n",
		"bad merge":      "x: 1\n---\na: {<<: 1}\n",
		"too deep":       "x: 1\n---\na: " + strings.Repeat("[", 2000) + strings.Repeat("]", 2000),
		"list of text":   "x: 1\n---\nkind: List\nitems: [a]\n",
		"control chars":  "x: 1\n---\na: \x01\n",
		"tab for indent": "x: 1\n---\na:\n\tb: c\n",
	}
	for name, docs := range tests {
		t.Run(name, func(t *testing.T) {
			for _, f := range []func() error{
				func() error { _, err := FindImages([]byte(docs)); return err },
				func() error { _, err := RewriteImages([]byte(docs), mirror); return err },
			} {
				var me *ManifestError
				if err := f(); !errors.As(err, &me) || (me.Document != 2 && name != "list of text" && name != "control chars") {
					t.Errorf("got %v", err)
				}
			}
		})
	}
	for _, docs := range [][]byte{[]byte("a: \xff\n"), make([]byte, MaxManifests+1)} {
		var me *ManifestError
		if _, err := FindImages(docs); !errors.As(err, &me) {
			t.Errorf("got %v", err)
		}
	}
}

// Only the bytes of the references change.
func TestRewriteKeepsTheText(t *testing.T) {
	tests := []struct{ name, docs, want string }{
		{"styles and comments", `# Source: shop/templates/a.yaml
apiVersion:   apps/v1   # odd spacing
kind: Deployment
metadata: {name: "shop", labels: {on: yes, n: 012, big: 123456789012345678901234567890}}
spec:
    template:
          spec:
            containers:
            - image: 'a/b:1'     # why
              name:    x
              env: [{name: A, value: "é\u00e9"}]
            -   image: "a/c:2"
            - {image: plain:1.0, name: y}
            - image: a/d:4@sha256:00
              args:
                - |
                  ---
                  image: a/b:1
            - image: >-
                a/e:5

              name: z
---
# nothing
---
kind: Pod
spec: {containers: [{"image":a/f:6}]}
`, `# Source: shop/templates/a.yaml
apiVersion:   apps/v1   # odd spacing
kind: Deployment
metadata: {name: "shop", labels: {on: yes, n: 012, big: 123456789012345678901234567890}}
spec:
    template:
          spec:
            containers:
            - image: 'mirror.example/a/b:1'     # why
              name:    x
              env: [{name: A, value: "é\u00e9"}]
            -   image: "mirror.example/a/c:2"
            - {image: mirror.example/plain:1.0, name: y}
            - image: mirror.example/a/d:4@sha256:00
              args:
                - |
                  ---
                  image: a/b:1
            - image: "mirror.example/a/e:5"

              name: z
---
# nothing
---
kind: Pod
spec: {containers: [{"image":mirror.example/a/f:6}]}
`},
		{"crlf", "kind: Pod\r\nspec:\r\n  containers:\r\n  - image: a/b:1\r\n    name: x\r\n", "kind: Pod\r\nspec:\r\n  containers:\r\n  - image: mirror.example/a/b:1\r\n    name: x\r\n"},
		{"byte order mark", "\ufeffspec: {containers: [{image: a/b}]}\n", "\ufeffspec: {containers: [{image: mirror.example/a/b}]}\n"},
		{"tag and unused anchor", "spec: {containers: [{image: !!str a/b}, {image: &x a/c}]}\n", "spec: {containers: [{image: !!str mirror.example/a/b}, {image: &x mirror.example/a/c}]}\n"},
		{"wide characters", "a: 日本\u2028spec: x\n---\nspec: {é: 語, containers: [{image: a/b}]}\n", "a: 日本\u2028spec: x\n---\nspec: {é: 語, containers: [{image: mirror.example/a/b}]}\n"},
		{"the same key twice", "spec: {containers: [{image: a/b, image: a/c}]}\n", "spec: {containers: [{image: mirror.example/a/b, image: mirror.example/a/c}]}\n"},
		{"document end", "spec: {containers: [{image: a/b}]}\n...\n---\na: b\n", "spec: {containers: [{image: mirror.example/a/b}]}\n...\n---\na: b\n"},
		{"no end of line", "spec: {containers: [{image: a/b}]}", "spec: {containers: [{image: mirror.example/a/b}]}"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := RewriteImages([]byte(tt.docs), mirror)
			if err != nil || string(got) != tt.want {
				t.Errorf("%v, got\n%s\nwant\n%s", err, got, tt.want)
			}
			same, err := RewriteImages([]byte(tt.docs), func(u ImageUse) (string, error) { return u.Reference, nil })
			if err != nil || string(same) != tt.docs {
				t.Errorf("identity: %v, got\n%s", err, same)
			}
		})
	}
}

// An alias is rewritten where it is an image, and nowhere else.
func TestRewriteAliases(t *testing.T) {
	docs := `# head
a: plain  # stays
---
kind: Pod
metadata: {name: p}
common: &common
  image: &img a/b:1
  yes: no
env: *img
spec:
  containers:
  - *common
  - <<: *common
    name: second
  - <<: [{image: a/c:2}, *common]
---
b:   plain
`
	out, err := RewriteImages([]byte(docs), mirror)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(out, []byte("# head\na: plain  # stays\n---\n")) || !bytes.HasSuffix(out, []byte("---\nb:   plain\n")) {
		t.Errorf("other documents changed:\n%s", out)
	}
	dec := yaml.NewDecoder(bytes.NewReader(out))
	var pod map[string]any
	for range 2 {
		pod = nil
		if err := dec.Decode(&pod); err != nil {
			t.Fatal(err)
		}
	}
	if pod["env"] != "a/b:1" || !reflect.DeepEqual(pod["common"], map[string]any{"image": "a/b:1", "yes": "no"}) {
		t.Errorf("what is no image changed: %v", pod)
	}
	want := []string{
		"Pod/p spec.containers[0].image mirror.example/a/b:1", "Pod/p spec.containers[1].image mirror.example/a/b:1",
		"Pod/p spec.containers[2].image mirror.example/a/c:2",
	}
	if got := paths(t, string(out)); !reflect.DeepEqual(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestRewriteErrors(t *testing.T) {
	docs := []byte("kind: Pod\nmetadata: {name: p}\nspec: {containers: [{image: a}]}\n")
	boom := errors.New("boom")
	_, err := RewriteImages(docs, func(ImageUse) (string, error) { return "", boom })
	if !errors.Is(err, boom) || !strings.Contains(err.Error(), "Pod/p") {
		t.Errorf("got %v", err)
	}
	for _, to := range []string{"", "a b", "a\nb: c", "a\x00"} {
		if _, err := RewriteImages(docs, func(ImageUse) (string, error) { return to, nil }); err == nil {
			t.Errorf("%q is accepted", to)
		}
	}
	// Whatever it looks like, it stays a string.
	for _, to := range []string{"yes", "1.0", "12:30", "null", "~", "-", "#x", "a#b", "{x}", "&a", "*a", "0x1f", "'", `"`, `\`, "é", "a:"} {
		for _, docs := range []string{"spec: {containers: [{image: a/b}]}", "spec: {containers: [{image: 'a'}]}", `spec: {containers: [{image: "a"}]}`, "spec:\n  containers:\n  - image: |\n      a\n"} {
			out, err := RewriteImages([]byte(docs), func(ImageUse) (string, error) { return to, nil })
			if err != nil {
				t.Errorf("%q: %v", to, err)
				continue
			}
			uses, err := FindImages(out)
			if err != nil || len(uses) != 1 || uses[0].Reference != to {
				t.Errorf("%q became %v (%v) in %s", to, uses, err, out)
			}
		}
	}
}

func TestKeepData(t *testing.T) {
	tests := []struct{ name, docs, want string }{
		{
			"block", "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata:\n  name: a # x\nspec: {n: 012}\n",
			"apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata:\n  annotations: {helm.sh/resource-policy: keep}\n  name: a # x\nspec: {n: 012}\n",
		},
		{
			"annotations", "apiVersion: v1\nkind: Namespace\nmetadata:\n  annotations:\n    # why\n    a: b\n  name: a\n",
			"apiVersion: v1\nkind: Namespace\nmetadata:\n  annotations:\n    # why\n    helm.sh/resource-policy: keep\n    a: b\n  name: a\n",
		},
		{
			"flow", "apiVersion: v1\nkind: PersistentVolume\nmetadata: {name: a}\n",
			"apiVersion: v1\nkind: PersistentVolume\nmetadata: {annotations: {helm.sh/resource-policy: keep}, name: a}\n",
		},
		{
			"flow annotations", "apiVersion: v1\nkind: PersistentVolume\nmetadata: {name: a, annotations: {}}\n",
			"apiVersion: v1\nkind: PersistentVolume\nmetadata: {name: a, annotations: {helm.sh/resource-policy: keep}}\n",
		},
		{
			"empty annotations", "apiVersion: v1\nkind: Namespace\nmetadata:\n  annotations:\n  name: a\n",
			"apiVersion: v1\nkind: Namespace\nmetadata:\n  annotations: {helm.sh/resource-policy: keep}\n  name: a\n",
		},
		{
			"another policy", "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata:\n  name: a\n  annotations:\n    \"helm.sh/resource-policy\": \"delete\"\n",
			"apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata:\n  name: a\n  annotations:\n    \"helm.sh/resource-policy\": \"keep\"\n",
		},
		{
			"list and crlf", "kind: List\r\nitems:\r\n- apiVersion: v1\r\n  kind: Namespace\r\n  metadata:\r\n    name: a\r\n- kind: Pod\r\n",
			"kind: List\r\nitems:\r\n- apiVersion: v1\r\n  kind: Namespace\r\n  metadata:\r\n    annotations: {helm.sh/resource-policy: keep}\r\n    name: a\r\n- kind: Pod\r\n",
		},
		{
			"others", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\napiVersion: example.com/v1\nkind: Namespace\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Namespace\n",
			"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\napiVersion: example.com/v1\nkind: Namespace\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Namespace\n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := KeepData([]byte(tt.docs))
			if err != nil || string(got) != tt.want {
				t.Fatalf("%v, got\n%s\nwant\n%s", err, got, tt.want)
			}
			again, err := KeepData(got)
			if err != nil || !bytes.Equal(again, got) {
				t.Errorf("the second time: %v\n%s", err, again)
			}
		})
	}
	for _, docs := range []string{
		"apiVersion: v1\nkind: Namespace\nmetadata:\n  annotations: ~\n  name: a\n",
		"apiVersion: v1\nkind: Namespace\nmetadata: &m\n  annotations: {a: &k b}\n  name: *k\n",
		"{apiVersion: v1, kind: Namespace, metadata: {annotations: {helm.sh/resource-policy: 1}}}",
		"apiVersion: v1\nkind: Namespace\nmetadata: !!map\n  ? name\n  : a\n",
	} {
		got, err := KeepData([]byte(docs))
		if err != nil || !strings.Contains(string(got), "helm.sh/resource-policy: keep") {
			t.Errorf("%v:\n%s", err, got)
		}
		again, err := KeepData(got)
		if err != nil || !bytes.Equal(again, got) {
			t.Errorf("the second time: %v\n%s", err, again)
		}
	}
	var me *ManifestError
	if _, err := KeepData([]byte("apiVersion: v1\nkind: Namespace\nmetadata: {annotations: text}\n")); !errors.As(err, &me) {
		t.Errorf("got %v", err)
	}
}

// Decoding, as Kubernetes sees a stream.
func decodeAll(docs []byte) ([]any, error) {
	s, err := parseStream(docs)
	if err != nil {
		return nil, err
	}
	var all []any
	for _, o := range s.objects() {
		var v any
		if err := o.Decode(&v); err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

func FuzzRewriteImages(f *testing.F) {
	docs, err := mustLoad(f, shopDir).Render(f.Context(), RenderOptions{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(docs))
	f.Add("x: &c {image: a}\nkind: Pod\nspec: {containers: [*c, {<<: *c, name: b}]}\n")
	f.Add("spec:\n  containers:\n  - image: >-\n      a/b:1\n    args: |\n      ---\n---\n# c\n---\r\nkind: List\r\nitems: []\r\n")
	f.Add("spec: {containers: [{image: 'a''b'}, {image: \"a\\\"b\"}, {image: !!str &x a\n b}], volumes: [{image: {reference: *x}}]}")
	f.Add("apiVersion: v1\nkind: Namespace\nmetadata:\n  annotations:\n  name: a\n")
	for _, docs := range manyWays {
		f.Add(docs)
	}
	f.Add("spec:\n  containers:\n  - image: |2\n      a\n\n  - ? image\n    : b\n...\n%YAML 1.1\n---\na: b")
	f.Fuzz(func(t *testing.T, text string) {
		docs := []byte(text)
		uses, err := FindImages(docs)
		if err != nil {
			return
		}
		same, err := RewriteImages(docs, func(u ImageUse) (string, error) { return u.Reference, nil })
		if err != nil || !bytes.Equal(same, docs) {
			t.Fatalf("identity: %v\n%q\n%q", err, docs, same)
		}
		// What is seen while rewriting is seen again, renamed, in the result.
		to := func(u Find) string {
			h := fnv.New64a()
			h.Write([]byte(u.Reference))
			tag := "1"
			for _, word := range []string{"mage", "MAGE", "repository"} { // what makes a text worth reading as a document
				if strings.Contains(u.Reference, word) {
					tag += word
				}
			}
			return fmt.Sprintf("mirror.example/%x:%s", h.Sum64(), tag)
		}
		var seen, placed []Find
		out, err := RewriteImages(docs, func(u Find) (string, error) {
			if u.Way == WayContainer || u.Way == WayVolume {
				placed = append(placed, u)
			}
			if u.Way == WayParts {
				return u.Reference, nil
			}
			u2 := u
			u2.Reference = to(u)
			seen = append(seen, u2)
			return u2.Reference, nil
		})
		if err != nil {
			t.Fatalf("rewriting: %v\n%q", err, docs)
		}
		if !slices.Equal(placed, uses) {
			t.Fatalf("rewriting sees %v, finding saw %v", placed, uses)
		}
		var again []Find
		_, err = RewriteImages(out, func(u Find) (string, error) {
			if u.Way != WayParts {
				again = append(again, u)
			}
			return u.Reference, nil
		})
		if err != nil || len(again) != len(seen) {
			t.Fatalf("finding again: %v\n%q\n%q\n%v\n%v", err, docs, out, seen, again)
		}
		for i, u := range seen {
			if again[i].Reference != u.Reference || again[i].Way != u.Way || again[i].Path != u.Path {
				t.Fatalf("got %v, want %v\n%q\n%q", again[i], u, docs, out)
			}
		}
		kept, err := KeepData(docs)
		if err != nil {
			return
		}
		if twice, err := KeepData(kept); err != nil || !bytes.Equal(twice, kept) {
			t.Fatalf("keeping twice: %v\n%q\n%q", err, kept, twice)
		}
		before, err := decodeAll(docs)
		if err != nil {
			return // duplicate keys and the like
		}
		after, err := decodeAll(kept)
		if err != nil || len(before) != len(after) {
			t.Fatalf("keeping: %v\n%q\n%q", err, docs, kept)
		}
	})
}
