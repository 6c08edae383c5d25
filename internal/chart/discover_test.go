package chart

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// manyWays are documents that name images otherwise than by their place.
var manyWays = []string{
	`apiVersion: apps/v1
kind: Deployment
metadata:
  name: shop
  annotations: {example.com/tool: quay.io/shop/tool:1.0}
spec:
  template:
    spec:
      containers:
        - name: web
          image: registry.example/web:1.0
          args: ["--sidecar-image=quay.io/shop/sidecar:1.0", --init-image, 'quay.io/shop/init:1.0'] # why
          command:
            - sh
            - -c
            - |
              run quay.io/shop/one:1.0 quay.io/shop/one:1.0
              run "quay.io/shop/two:1.0"
          env:
            - {name: RELATED_IMAGE_DB, value: quay.io/shop/db:1.0}
            - name: LIST
              value: "a=quay.io/shop/a:1,\tb=quay.io/shop/b:1"
`,
	`apiVersion: example.com/v1
kind: Shop
metadata: {name: shop}
spec:
  image: quay.io/shop/web:1.0
  debugImage: quay.io/shop/debug:1.0
  parts: {image: {registry: quay.io, repository: shop/parts, tag: "1.0"}}
  disk: docker://quay.io/shop/disk:1.0
  valuesContent: |
    image: quay.io/shop/inner:1.0 # why
    a: &a {image: quay.io/shop/alias:1.0}
    b: *a
---
apiVersion: v1
kind: ConfigMap
metadata: {name: shop}
data: {image: quay.io/shop/left:1.0}
---
apiVersion: v1
kind: Secret
metadata: {name: shop}
stringData: {image: quay.io/shop/left:1.0}
`,
}

func TestRewriteFinds(t *testing.T) {
	want := strings.NewReplacer("quay.io/", "mirror.example/", "registry.example/", "mirror.example/")
	for _, docs := range manyWays {
		out, err := RewriteImages([]byte(docs), func(f Find) (string, error) { return want.Replace(f.Reference), nil })
		if err != nil {
			t.Fatal(err)
		}
		expected := want.Replace(docs)
		expected = strings.ReplaceAll(expected, "mirror.example/shop/left", "quay.io/shop/left")
		expected = strings.ReplaceAll(expected, "registry: quay.io,", `registry: "mirror.example",`)
		if string(out) != expected {
			t.Errorf("got\n%s\nwant\n%s", out, expected)
		}
	}
}

// What f leaves alone stays, and f decides for each place.
func TestRewriteLeavesAlone(t *testing.T) {
	for _, docs := range manyWays {
		var asked []Way
		out, err := RewriteImages([]byte(docs), func(f Find) (string, error) {
			asked = append(asked, f.Way)
			return f.Reference, nil
		})
		if err != nil || string(out) != docs {
			t.Errorf("%v\n%s", err, out)
		}
		if slices.Contains(asked, WayConfig) || len(asked) < 5 {
			t.Errorf("asked for %q", asked)
		}
	}
}

func TestRewriteParts(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0a", 32)
	tests := []struct{ name, spec, to, want string }{
		{"registry apart", "{registry: quay.io, repository: a/b, tag: v1}", "mirror.example:5000/x/a/b:v1", `{registry: "mirror.example:5000", repository: x/a/b, tag: v1}`},
		{"registry inside", "{repository: quay.io/a/b, tag: v1}", "mirror.example/a/b:v1@" + digest, "{repository: mirror.example/a/b, tag: v1}"},
		{"digest", "{repository: quay.io/a/b, tag: v1, digest: ''}", "mirror.example/a/b@" + digest, "{repository: quay.io/a/b, tag: v1, digest: ''}"},
		{"digest set", "{repository: quay.io/a/b, digest: '" + digest + "'}", "mirror.example/a/b@" + strings.ReplaceAll(digest, "0a", "0b"), "{repository: mirror.example/a/b, digest: '" + strings.ReplaceAll(digest, "0a", "0b") + "'}"},
		{"no tag in the result", "{repository: quay.io/a/b, tag: v1}", "mirror.example/a/b@" + digest, "{repository: quay.io/a/b, tag: v1}"},
		{"number", "{repository: quay.io/a/b, tag: 1.50}", "mirror.example/a/b:1.50", "{repository: mirror.example/a/b, tag: 1.50}"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			docs := "apiVersion: example.com/v1\nkind: Shop\nspec:\n  image: "
			called := 0
			out, err := RewriteImages([]byte(docs+tt.spec+"\n"), func(Find) (string, error) { called++; return tt.to, nil })
			if err != nil || string(out) != docs+tt.want+"\n" || called != 1 {
				t.Errorf("%v, called %d times, got\n%s", err, called, out)
			}
		})
	}
}

func TestDiscoverHosts(t *testing.T) {
	docs := []byte("apiVersion: example.com/v1\nkind: Shop\nmetadata: {name: s}\nspec: {a: 'registry.internal:5000/x:1', b: 123456789012.dkr.ecr.eu-west-1.amazonaws.com/x:1, c: s3.amazonaws.com/x:1, d: eu.gcr.io/x/y:1, e: europe-docker.pkg.dev/p/r/i:1, f: notgcr.io/x:1}\n")
	find := func(hosts map[string]bool) (all []string) {
		finds, err := Discover(docs, hosts)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range finds {
			all = append(all, f.Path)
		}
		return all
	}
	if got, want := find(nil), []string{"spec.b", "spec.d", "spec.e"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	hosts := map[string]bool{"registry.internal:5000": true}
	if got, want := find(hosts), []string{"spec.a", "spec.b", "spec.d", "spec.e"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A place counts once, and as certain where it is both.
func TestDiscoverOnce(t *testing.T) {
	docs := "apiVersion: example.com/v1\nkind: Shop\nmetadata: {name: s}\nspec: {values: {image: quay.io/a:1}}\n"
	finds, err := Discover([]byte(docs+"---\n"+docs), nil)
	if err != nil || len(finds) != 1 || !finds[0].Probable {
		t.Errorf("%v, got %v", err, finds)
	}
	certain := "apiVersion: example.com/v1\nkind: Shop\nmetadata: {name: s}\nspec: {list: [quay.io/a:1, {image: quay.io/b:1}]}\n"
	probable := strings.ReplaceAll(certain, "apiVersion: example.com/v1", "apiVersion: v1")
	finds, err = Discover([]byte(probable+"---\n"+certain), nil)
	if err != nil || len(finds) != 2 || !finds[0].Probable || finds[1].Probable || finds[1].Way != WayImageKey {
		t.Errorf("%v, got %v", err, finds)
	}
}

// Documents inside of texts have bounds; beyond them the words count.
func TestDiscoverBounds(t *testing.T) {
	bomb := "a0: &a0 [image, image, image, image, image, image, image, image, image, image]\n"
	for i := 1; i < 10; i++ {
		bomb += fmt.Sprintf("a%d: &a%d [%s]\n", i, i, strings.Repeat(fmt.Sprintf("*a%d,", i-1), 10))
	}
	deep := "image: " + strings.Repeat("[", 3000) + strings.Repeat("]", 3000) + "\n"
	large := strings.Repeat("image: a\n", maxInner/9+1)
	nested := "image: quay.io/a/b:1\n"
	for range 10 {
		nested = "x: image\ny: |\n" + indented(nested, "  ")
	}
	for name, text := range map[string]string{"bomb": bomb, "deep": deep, "large": large, "nested": nested} {
		t.Run(name, func(t *testing.T) {
			text += "# quay.io/shop/last:1\n"
			docs := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata:\n  text: |\n" + indented(text, "    ")
			finds, err := Discover([]byte(docs), nil)
			if err != nil {
				t.Fatal(err)
			}
			last := "quay.io/shop/last:1"
			if name == "nested" {
				last = "quay.io/a/b:1" // the comment is read as YAML and is none of its content
			}
			if !slices.ContainsFunc(finds, func(f Find) bool { return f.Reference == last }) {
				t.Errorf("got %v", finds)
			}
		})
	}
	var me *ManifestError
	if _, err := Discover([]byte("a: b: c"), nil); !errors.As(err, &me) {
		t.Errorf("got %v", err)
	}
}

func indented(text, by string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(by + line)
	}
	return b.String()
}

// A word with the name of an image before it, and others.
func TestWords(t *testing.T) {
	tests := map[string][]string{
		"quay.io/a/b:1":                              {"quay.io/a/b:1"},
		"see quay.io/a/b:1, quay.io/a/c:2.":          {"quay.io/a/b:1", "quay.io/a/c:2"},
		"image: busybox:1.36":                        {"busybox:1.36"},
		`"image":"busybox:1.36"`:                     {"busybox:1.36"},
		"run --image busybox:1.36":                   {"busybox:1.36"},
		"image busybox:1.36":                         nil,
		"name: busybox:1.36":                         nil,
		"docker://quay.io/a:1":                       {"quay.io/a:1"},
		"https://quay.io/a:1":                        nil,
		"oci://quay.io/a:1":                          nil,
		"//quay.io/a:1":                              nil,
		"/quay.io/a:1":                               nil,
		"$quay.io/a:1":                               nil,
		"${quay.io/a:1}":                             nil,
		"quay.io/a:1$X":                              nil,
		"quay.io/a:${X}":                             nil,
		"quay.io/a:1-{{ .x }}":                       nil,
		"{{ .x }}quay.io/a:1":                        nil,
		"quay.io/a:1?x=y":                            nil,
		"quay.io/A:1":                                nil,
		"quay.io/a":                                  nil,
		"quay.io/a@sha256:00":                        nil,
		"me@quay.io/a:1":                             nil,
		"quay.io/a:1@md5:" + strings.Repeat("0", 32): nil,
		"(quay.io/a:1)":                              {"quay.io/a:1"},
		"[quay.io/a:1]":                              {"quay.io/a:1"},
		"quay.io/a.tar:1":                            {"quay.io/a.tar:1"},
		"quay.io/a:1.tar":                            nil,
	}
	for text, want := range tests {
		docs := fmt.Sprintf("apiVersion: example.com/v1\nkind: Shop\nspec: {text: %q}\n", text)
		finds, err := Discover([]byte(docs), nil)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range finds {
			got = append(got, f.Reference)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestUnusedValuesAreNotChanged(t *testing.T) {
	c := mustLoad(t, waysDir+"/disabled-feature")
	given := map[string]any{"metrics": map[string]any{"image": map[string]any{"tag": "v9"}}, "backup": nil}
	unused, err := c.UnusedImages(given, func(r string) bool { return r == "registry.example/web:v2.0.0" })
	if err != nil {
		t.Fatal(err)
	}
	want := []Unused{
		{Reference: "registry.example/job:1.5", Path: "jobImage", Switch: []string{"jobs"}},
		{Reference: "registry.example/exporter:v9", Path: "metrics.image", Switch: []string{"metrics.enabled"}},
	}
	if !reflect.DeepEqual(unused, want) {
		t.Errorf("got %v, want %v", unused, want)
	}
	if !reflect.DeepEqual(given, map[string]any{"metrics": map[string]any{"image": map[string]any{"tag": "v9"}}, "backup": nil}) {
		t.Errorf("the values became %v", given)
	}
}

// Images are found beside and below other images.
func TestUnusedInValues(t *testing.T) {
	c := small(t, map[string]string{"values.yaml": `
image: quay.io/a/b:1
tag: 1.50
sidecar:
  image: shop/sidecar
  tag: "2"
  reloader: {image: {repository: shop/reloader, digest: 0a0a}, list: [{image: {name: x, tag: v1}}]}
  name: not-me
git: {repository: https://example.com/x, tag: v1}
logo: {image: logo.png}
medusa: {image: {repository: k8ssandra, name: medusa, tag: v1}}
`})
	unused, err := c.UnusedImages(nil, func(string) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	want := []Unused{
		{Reference: "quay.io/a/b:1", Path: "image"},
		{Reference: "k8ssandra/medusa:v1", Path: "medusa.image"},
		{Reference: "shop/sidecar:2", Path: "sidecar.image"},
		{Reference: "x:v1", Path: "sidecar.reloader.list[0].image"},
	}
	if !reflect.DeepEqual(unused, want) {
		t.Errorf("got %+v, want %+v", unused, want)
	}
}

// manyObjects is a stream as a large chart renders: 300 objects, a third of them with pods, large
// ConfigMaps, and custom resources.
func manyObjects() []byte {
	var b strings.Builder
	config := strings.Repeat("- job: scrape\n  image: quay.io/shop/job:1.0\n  target: [a, b, c]\n  text: some words of text\n", 100)
	for i := range 100 {
		fmt.Fprintf(&b, "---\n%s---\n%s", manyWays[0], manyWays[1])
		fmt.Fprintf(&b, "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c%d}\ndata:\n  config.yaml: |\n%s", i, indented(config, "    "))
	}
	return []byte(b.String())
}

func BenchmarkDiscover(b *testing.B) {
	docs := manyObjects()
	b.SetBytes(int64(len(docs)))
	for b.Loop() {
		if _, err := Discover(docs, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzDiscover(f *testing.F) {
	for _, docs := range manyWays {
		f.Add(docs, "quay.io")
	}
	f.Add("apiVersion: v1\nkind: ConfigMap\ndata:\n  a: |\n    image: a:1\n    ---\n    - &x {repository: a, tag: 1}\n    - *x\n", "")
	f.Add("apiVersion: v1\nkind: Secret\ndata: {a: aW1hZ2U6IGE6MQo=}\n", "a.b")
	f.Add("apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nspec: {default: quay.io/a:1}\n", "")
	f.Fuzz(func(t *testing.T, text, host string) {
		finds, err := Discover([]byte(text), map[string]bool{host: true})
		if err != nil {
			return
		}
		uses, err := FindImages([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		seen := map[Find]bool{}
		for _, find := range finds {
			if find.Reference == "" || find.Way == "" || seen[find] {
				t.Fatalf("got %v of %q", find, text)
			}
			seen[find] = true
			if find.Way == WayContainer || find.Way == WayVolume {
				continue
			}
			if _, ok := parseImage(find.Reference); !ok {
				t.Fatalf("%q is no reference, in %q", find.Reference, text)
			}
		}
		for _, use := range uses {
			if !seen[use] {
				t.Fatalf("%v is not discovered in %q", use, text)
			}
		}
	})
}

// Known fields are set with a tag only; parts that are settings of their own are set one by one.
func TestRewriteSettings(t *testing.T) {
	tests := []struct{ name, docs, want string }{
		{
			"known field", "apiVersion: sparkoperator.k8s.io/v1beta2\nkind: SparkApplication\nspec: {image: 'spark:3.5', driver: {image: spark}, executor: {image: quay.io/s/e}}\n",
			"apiVersion: sparkoperator.k8s.io/v1beta2\nkind: SparkApplication\nspec: {image: 'mirror.example/spark:3.5', driver: {image: spark}, executor: {image: quay.io/s/e}}\n",
		},
		{
			"variables", "kind: Pod\nspec: {containers: [{env: [{name: A_IMAGE_TAG, value: '1'}, {name: A_IMAGE, value: \"quay.io/a/b\"}, {name: B_IMAGE, value: a/b}, {name: B_TAG, value: '1'}]}]}\n",
			"kind: Pod\nspec: {containers: [{env: [{name: A_IMAGE_TAG, value: '1'}, {name: A_IMAGE, value: \"mirror.example/a/b\"}, {name: B_IMAGE, value: a/b}, {name: B_TAG, value: '1'}]}]}\n",
		},
		{
			"registry apart", "apiVersion: example.com/v1\nkind: Shop\nspec: {imageRegistry: quay.io, imageRepository: a/b, imageTag: v1}\n",
			"apiVersion: example.com/v1\nkind: Shop\nspec: {imageRegistry: \"mirror.example\", imageRepository: a/b, imageTag: v1}\n",
		},
		{"arguments stay", "kind: Pod\nspec: {containers: [{args: [--a-image=quay.io/a/b, --a-image-tag=v1]}]}\n", ""},
		{"ConfigMap stays", "apiVersion: v1\nkind: ConfigMap\ndata: {X_IMAGE: 'quay.io/a/b:1', aImage: quay.io/a/c, aImageTag: v1}\n", ""},
		{"hub stays", "apiVersion: example.com/v1\nkind: Shop\nspec: {hub: quay.io/istio, tag: v1, proxy: {image: proxyv2}}\n", ""},
		{"injected and compared stay", "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nspec: {description: 'quay.io/a/b:1', containers: [{image: auto}, {image: 'quay.io/*'}]}\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, err := RewriteImages([]byte(tt.docs), func(f Find) (string, error) {
				return "mirror.example/" + strings.TrimPrefix(f.Reference, "quay.io/"), nil
			})
			want := tt.want
			if want == "" {
				want = tt.docs
			}
			if err != nil || string(out) != want {
				t.Errorf("%v, got\n%s\nwant\n%s", err, out, want)
			}
		})
	}
}

// Settings that belong together do so by their names.
func TestSiblings(t *testing.T) {
	tests := map[string][]string{
		"{aImage: q.io/a, aImageTag: '1'}":                                      {"q.io/a:1"},
		"{aImage: q.io/a, aVersion: v1}":                                        {"q.io/a:v1"},
		"{a_image: q.io/a, a-tag: v1}":                                          {"q.io/a:v1"},
		"{a.image.repository: org/a, a.image.tag: v1}":                          {"org/a:v1"},
		"{imageRegistry: q.io, imageRepository: org/a, imageTag: v1}":           {"q.io/org/a:v1"},
		"{imageRepository: q.io/a, tag: 1.50}":                                  {"q.io/a:1.50"},
		"{aRepository: org/a, aTag: v1}":                                        {"org/a:v1"},
		"{aRepository: org/a, aVersion: v1}":                                    nil,
		"{aRepository: 'https://x.io/a', aTag: v1}":                             nil,
		"{aImage: 'q.io/a:2', aTag: v1}":                                        {"q.io/a:2"},
		"{aImage: '', aTag: v1}":                                                nil,
		"{list: [{aImage: q.io/a, aTag: v1}]}":                                  {"q.io/a:v1"},
		"{controllerImage: q.io/c, linkerdVersion: v2}":                         {"q.io/c:v2"},
		"{hub: q.io/i, tag: '1', a: {image: b}}":                                {"q.io/i/b:1"},
		"{hub: q.io/i, tag: '1', a: {tag: '2', image: b}}":                      {"q.io/i/b:2"},
		"{hub: q.io/i, tag: 1-debug, a: {variant: debug, image: b}}":            {"q.io/i/b:1-debug"},
		"{image: {repository: org, name: a, tag: v1}}":                          {"org/a:v1"},
		"{image: {registry: q.io, repository: org/a, name: a, tag: v1}}":        {"q.io/org/a:v1"},
		"{image: {repository: q.io/a, version: v1}}":                            {"q.io/a:v1"},
		"{image: {repository: q.io/a, sha: '" + strings.Repeat("0", 64) + "'}}": {"q.io/a@sha256:" + strings.Repeat("0", 64)},
	}
	for spec, want := range tests {
		finds, err := Discover([]byte("apiVersion: example.com/v1\nkind: Shop\nspec: "+spec+"\n"), nil)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range finds {
			got = append(got, f.Reference)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %q, want %q", spec, got, want)
		}
	}
}
