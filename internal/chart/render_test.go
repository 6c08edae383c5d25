package chart

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestRenderShop(t *testing.T) {
	c := mustLoad(t, shopDir)
	docs, err := c.Render(t.Context(), RenderOptions{Release: "eu", Namespace: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	uses, err := FindImages(docs)
	if err != nil {
		t.Fatal(err)
	}
	want := []ImageUse{
		{Reference: "registry.example/shop/tools:1.0", Way: WayContainer, Object: "Deployment/eu", Path: "spec.template.spec.initContainers[0].image"},
		{Reference: "registry.example/shop/web:2.4.0", Way: WayContainer, Object: "Deployment/eu", Path: "spec.template.spec.containers[0].image"},
		{Reference: "registry.example/cache:7", Way: WayContainer, Object: "StatefulSet/eu-cache", Path: "spec.template.spec.containers[0].image"},
		{Reference: "registry.example/shop/migrate:2.4.0", Way: WayContainer, Object: "Job/eu-migrate", Path: "spec.template.spec.containers[0].image"},
		{Reference: "registry.example/shop/tools:1.0", Way: WayContainer, Object: "Pod/eu-test", Path: "spec.containers[0].image"},
	}
	slices.SortFunc(uses, func(a, b ImageUse) int { return strings.Compare(a.Object+a.Path, b.Object+b.Path) })
	slices.SortFunc(want, func(a, b ImageUse) int { return strings.Compare(a.Object+a.Path, b.Object+b.Path) })
	if !reflect.DeepEqual(uses, want) {
		t.Errorf("got %v\nwant %v", uses, want)
	}
	if !bytes.Contains(docs, []byte("name: orders.shop.example")) {
		t.Error("the objects of crds/ are missing")
	}
	if bytes.Contains(docs, []byte("is open")) {
		t.Error("the notes are among the objects")
	}
	for range 5 {
		again, err := mustLoad(t, shopDir).Render(t.Context(), RenderOptions{Release: "eu", Namespace: "shop"})
		if err != nil || !bytes.Equal(again, docs) {
			t.Fatalf("another render differs (%v)", err)
		}
	}
}

func TestRenderOptions(t *testing.T) {
	c := small(t, map[string]string{
		"values.yaml": "who: chart\nkeep: 1\n",
		"templates/c.yaml": `apiVersion: v1
kind: ConfigMap
metadata: {name: "{{ .Release.Name }}", namespace: "{{ .Release.Namespace }}"}
data:
  version: "{{ .Capabilities.KubeVersion }}"
  monitoring: "{{ .Capabilities.APIVersions.Has "monitoring.coreos.com/v1" }}"
  apps: "{{ .Capabilities.APIVersions.Has "apps/v1" }}"
  upgrade: "{{ .Release.IsUpgrade }}"
  who: "{{ .Values.who }}{{ .Values.keep }}"
  lookup: "{{ lookup "v1" "Secret" "x" "y" | len }}"
  dns: "{{ getHostByName "sealift.invalid" }}"
`,
	})
	values := map[string]any{"who": "user"}
	docs, err := c.Render(t.Context(), RenderOptions{
		Release: "r", Namespace: "n", Values: values, KubeVersion: "v1.30.2+k3s1",
		APIVersions: []string{"monitoring.coreos.com/v1"}, IsUpgrade: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`name: "r", namespace: "n"`, `version: "v1.30.2"`, `monitoring: "true"`, `apps: "true"`, `upgrade: "true"`, `who: "user1"`, `lookup: "0"`, `dns: ""`,
	} {
		if !strings.Contains(string(docs), want) {
			t.Errorf("%s is missing in\n%s", want, docs)
		}
	}
	if !reflect.DeepEqual(values, map[string]any{"who": "user"}) {
		t.Errorf("the caller's values were changed: %v", values)
	}
	if docs, err = c.Render(t.Context(), RenderOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`name: "small", namespace: "default"`, DefaultKubeVersion, `monitoring: "false"`, `upgrade: "false"`} {
		if !strings.Contains(string(docs), want) {
			t.Errorf("%s is missing in\n%s", want, docs)
		}
	}
}

func TestRenderErrors(t *testing.T) {
	tests := []struct {
		name, template string
		wantTemplate   string
		want           string
	}{
		{"fail", `{{ fail "the password is missing" }}`, "small/templates/x.yaml", "the password is missing"},
		{"required", `a: {{ required "give a host" .Values.host }}`, "small/templates/x.yaml", "give a host"},
		{"syntax", `{{ if }}`, "small/templates/x.yaml", "missing value for if"},
		{"not yaml", "a: b: c", "small/templates/x.yaml", "mapping values are not allowed"},
		{"nil pointer", `{{ .Values.a.b.c }}`, "small/templates/x.yaml", "nil pointer"},
		{"endless include", `{{ define "x" }}{{ include "x" . }}{{ end }}{{ include "x" . }}`, "small/templates/x.yaml", "nested"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := small(t, map[string]string{"templates/x.yaml": tt.template})
			_, err := c.Render(t.Context(), RenderOptions{})
			var re *RenderError
			if !errors.As(err, &re) || re.Template != tt.wantTemplate || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v (%+v)", err, re)
			}
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := small(t, map[string]string{}).Render(ctx, RenderOptions{}); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("kubernetes version", func(t *testing.T) {
		c := small(t, map[string]string{"Chart.yaml": chartYAML + "kubeVersion: '>=1.30.0'\n"})
		_, err := c.Render(t.Context(), RenderOptions{KubeVersion: "v1.29.4"})
		var ve *KubeVersionError
		if !errors.As(err, &ve) || ve.Constraint != ">=1.30.0" || ve.Version != "v1.29.4" {
			t.Errorf("got %v", err)
		}
		// The suffix that a distribution adds is not a pre-release.
		if _, err := c.Render(t.Context(), RenderOptions{KubeVersion: "v1.30.0-gke.100"}); err != nil {
			t.Error(err)
		}
		if _, err := c.Render(t.Context(), RenderOptions{KubeVersion: "new"}); err == nil {
			t.Error("a version that is none is accepted")
		}
	})
}

func TestMergeValues(t *testing.T) {
	got, err := MergeValues([]ValuesFile{
		{"a", []byte("x: {a: 1, b: [1, 2]}\nwhy: 1\nz: {k: v}\n")},
		{"empty", nil},
		{"b", []byte("x: {b: [3], c: true}\nwhy: null\n---\nz: 5\n")},
	})
	want := map[string]any{"x": map[string]any{"a": float64(1), "b": []any{float64(3)}, "c": true}, "why": nil, "z": float64(5)}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, data := range []string{"a: [", "- a\n", "text", "a: &a [*a]"} {
		_, err := MergeValues([]ValuesFile{{"good.yaml", []byte("a: 1")}, {"site.yaml", []byte(data)}})
		var ve *ValuesError
		if !errors.As(err, &ve) || ve.Name != "site.yaml" {
			t.Errorf("%q: got %v", data, err)
		}
	}
}

func TestCheckValues(t *testing.T) {
	c := mustLoad(t, shopDir)
	_, err := c.Render(t.Context(), RenderOptions{Values: map[string]any{"replicas": "three", "image": ""}})
	var se *SchemaError
	if !errors.As(err, &se) || se.Chart != "shop" || len(se.Problems) != 2 {
		t.Fatalf("got %v", err)
	}
	if !strings.Contains(err.Error(), "/replicas") || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
	// Whole numbers come as int from Go, as float64 from YAML.
	if _, err := c.CheckValues(map[string]any{"replicas": 3}); err != nil {
		t.Error(err)
	}

	sub := small(t, map[string]string{
		"charts/dep/Chart.yaml":         "apiVersion: v2\nname: dep\nversion: 1.0.0\n",
		"charts/dep/values.schema.json": `{"properties": {"n": {"type": "integer"}}}`,
	})
	if _, err := sub.CheckValues(map[string]any{"dep": map[string]any{"n": "x"}}); !errors.As(err, &se) || se.Chart != "small/dep" {
		t.Errorf("got %v", err)
	}
}

// Nothing goes out for a schema, and a remote schema is not held against the
// values.
func TestRemoteSchemas(t *testing.T) {
	asked := 0
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	defer srv.Close()
	tests := []struct {
		name, schema string
		want         []string // "URL" stands for the server
		fails        bool
	}{
		{"ref", `{"$ref": "URL/a.json"}`, []string{"URL/a.json"}, false},
		{"ref into", `{"properties": {"a": {"$ref": "URL/a.json#/definitions/x"}}}`, []string{"URL/a.json#/definitions/x"}, false},
		{"relative to a remote id", `{"$id": "URL/v.json", "properties": {"a": {"$ref": "b.json#/x"}}}`, []string{"URL/b.json"}, false},
		{"meta schema", `{"$schema": "URL/meta", "properties": {"a": {"type": "string"}}}`, []string{"URL/meta"}, true},
		{"urn", `{"$ref": "urn:example:x"}`, []string{"urn:example:x"}, false},
		{"known meta schema", `{"$schema": "http://json-schema.org/draft-07/schema#", "properties": {"a": {"type": "string"}}}`, nil, true},
		{"the rest still counts", `{"allOf": [{"$ref": "URL/a.json"}], "properties": {"a": {"type": "string"}}}`, []string{"URL/a.json"}, true},
		{"file", `{"$ref": "file:///etc/passwd"}`, nil, true},
		{"relative", `{"$ref": "other.json"}`, nil, true},
		{"not json", `{`, nil, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := small(t, map[string]string{"values.schema.json": strings.ReplaceAll(tt.schema, "URL", srv.URL)})
			unchecked, err := c.CheckValues(map[string]any{"a": 1})
			for i := range unchecked {
				unchecked[i] = strings.ReplaceAll(unchecked[i], srv.URL, "URL")
			}
			var se *SchemaError
			if (err != nil) != tt.fails || (err != nil && !errors.As(err, &se)) || !slices.Equal(unchecked, tt.want) {
				t.Errorf("got %q, %v", unchecked, err)
			}
		})
	}
	if asked != 0 {
		t.Errorf("%d requests went out", asked)
	}
}

func BenchmarkRender(b *testing.B) {
	c := mustLoad(b, shopDir)
	for b.Loop() {
		if _, err := c.Render(b.Context(), RenderOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}
