package kustomize_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/sealift/sealift/internal/kustomize"
)

// unpack writes the files of an archive, and makes sure that neither git nor anything else is found.
func unpack(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := txtar.Write(txtar.Parse([]byte(text)), dir); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	t.Setenv("TMPDIR", t.TempDir())
	// Whoever goes to the web gets nowhere.
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	return dir
}

const overlay = `
-- base/kustomization.yaml --
resources: [deployment.yaml]
configMapGenerator:
- name: settings
  literals: [home=https://example.com/]
  files: [a.txt=settings.txt]
-- base/settings.txt --
see https://example.com
-- base/deployment.yaml --
apiVersion: apps/v1
kind: Deployment
metadata:
  name: shop
  annotations: {home: "https://example.com"}
spec:
  template:
    spec:
      containers:
      - {name: shop, image: nginx}
-- component/kustomization.yaml --
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
patches:
- target: {kind: Deployment}
  patch: |
    - {op: add, path: /spec/replicas, value: 3}
-- overlay/kustomization.yaml --
namespace: prod
namePrefix: my-
resources: [../base]
components: [../component]
images: [{name: nginx, newName: registry.example.com/nginx, newTag: "1.27"}]
transformers:
- labels.yaml
- |
  apiVersion: builtin
  kind: AnnotationsTransformer
  metadata: {name: annotations}
  annotations: {see: "https://example.com/why"}
  fieldSpecs: [{path: metadata/annotations, create: true}]
-- overlay/labels.yaml --
apiVersion: builtin
kind: LabelTransformer
metadata: {name: labels}
labels: {team: a}
fieldSpecs: [{path: metadata/labels, create: true}]
`

func TestBuild(t *testing.T) {
	dir := unpack(t, overlay)
	docs, err := kustomize.Build(filepath.Join(dir, "overlay"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"name: my-shop\n", "namespace: prod\n", "image: registry.example.com/nginx:1.27\n", "replicas: 3\n", "team: a\n", "name: my-settings-", "see: https://example.com/why"} {
		if !strings.Contains(string(docs), want) {
			t.Errorf("no %q in\n%s", want, docs)
		}
	}
	again, err := kustomize.Build(filepath.Join(dir, "overlay"))
	if err != nil || string(again) != string(docs) {
		t.Errorf("for a second time: %v", err)
	}
}

func TestIsKustomization(t *testing.T) {
	dir := unpack(t, overlay)
	if !kustomize.IsKustomization(filepath.Join(dir, "base")) || kustomize.IsKustomization(dir) || kustomize.IsKustomization(filepath.Join(dir, "none")) {
		t.Error("a kustomization is a directory with a kustomization.yaml")
	}
}

// TestBuildGoesNowhere: whatever would be fetched is refused by its address, and nothing is left.
func TestBuildGoesNowhere(t *testing.T) {
	for _, lines := range []string{
		"resources: [https://example.com/a.yaml]",
		"resources: [HTTP://example.com/a.yaml]",
		"resources: ['https://github.com/a/b//c?ref=v1']",
		"resources: [github.com/a/b]",
		"resources: [GitHub.com/a/b/c]",
		"resources: ['github.com:a/b']",
		"resources: [git@example.com:a/b.git]",
		"resources: ['git::https://example.com/a/b']",
		"resources: [ssh://git@example.com/a/b]",
		"resources: [file:///srv/a.git]",
		"resources: [me@example.com/a/b]",
		"bases: [github.com/a/b]",
		"components: [github.com/a/b]",
		"crds: [https://example.com/a.yaml]",
		"configurations: [https://example.com/a.yaml]",
		"openapi: {path: 'https://example.com/a.json'}",
		"patches: [{path: 'https://example.com/a.yaml'}]",
		"patchesStrategicMerge: [https://example.com/a.yaml]",
		"patchesJson6902: [{path: 'https://example.com/a.yaml', target: {kind: Pod, name: a, version: v1}}]",
		"replacements: [{path: 'https://example.com/a.yaml'}]",
		"configMapGenerator: [{name: a, files: ['https://example.com/a']}]",
		"configMapGenerator: [{name: a, files: ['a=https://example.com/a']}]",
		"configMapGenerator: [{name: a, envs: ['https://example.com/a']}]",
		"configMapGenerator: [{name: a, env: 'https://example.com/a'}]",
		"secretGenerator: [{name: a, files: ['https://example.com/a']}]",
		"generators: [https://example.com/a.yaml]",
		"transformers: [github.com/a/b]",
		"validators: [https://example.com/a.yaml]",
		"generators: ['{apiVersion: builtin, kind: ConfigMapGenerator, metadata: {name: a}, files: [\"a=https://example.com/a\"]}']",
		"transformers: ['{apiVersion: builtin, kind: PatchTransformer, metadata: {name: a}, path: \"https://example.com/a\"}']",
		"transformers: [remote.yaml]",
		"resources: [nested]",
	} {
		dir := unpack(t, "-- kustomization.yaml --\n"+lines+"\n-- nested/kustomization.yml --\nresources: [github.com/a/b]\n-- github.com/a/b/kustomization.yaml --\nnamePrefix: a\n"+
			"-- remote.yaml --\napiVersion: builtin\nkind: PatchTransformer\nmetadata: {name: x}\npath: http://example.com/x\n")
		docs, err := kustomize.Build(dir)
		var remote *kustomize.RemoteError
		var build *kustomize.BuildError
		if !errors.As(err, &remote) || !errors.As(err, &build) || docs != nil {
			t.Errorf("%s: %v", lines, err)
		}
		if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
			t.Errorf("%s: left behind: %v, %v", lines, left, err)
		}
	}
}

// TestBuildRunsNothing: neither Helm, nor functions, nor plugins.
func TestBuildRunsNothing(t *testing.T) {
	for _, lines := range []string{
		"helmCharts: [{name: a, repo: 'https://example.com'}]",
		"helmCharts: [{name: a}]",
		"helmChartInflationGenerator: [{chartName: a}]",
		"helmGlobals: {chartHome: charts}",
		"generators: ['{apiVersion: builtin, kind: HelmChartInflationGenerator, metadata: {name: a}, name: a}']",
		"generators: ['{apiVersion: example.com/v1, kind: Run, metadata: {name: a}}']",
		"transformers: ['{apiVersion: v1, kind: Fn, metadata: {name: a, annotations: {config.kubernetes.io/function: \"container: {image: a}\"}}}']",
		"transformers: ['{apiVersion: v1, kind: Fn, metadata: {name: a, annotations: {config.kubernetes.io/function: \"exec: {path: ./run}\"}}}']",
		"validators: [plugins]",
	} {
		dir := unpack(t, "-- kustomization.yaml --\n"+lines+"\n-- plugins/kustomization.yaml --\nnamePrefix: a\n-- run --\n#!/bin/sh\n-- charts/a/Chart.yaml --\nname: a\n")
		_, err := kustomize.Build(dir)
		var plugin *kustomize.PluginError
		if !errors.As(err, &plugin) {
			t.Errorf("%s: %v", lines, err)
		}
	}
}

func TestBuildRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"no kustomization":  "-- a.yaml --\n",
		"not a mapping":     "-- kustomization.yaml --\n- a\n",
		"an unknown key":    "-- kustomization.yaml --\ncolour: red\n",
		"nothing there":     "-- kustomization.yaml --\nresources: [nowhere.yaml]\n",
		"two of them":       "-- kustomization.yaml --\nnamePrefix: a\n-- kustomization.yml --\nnamePrefix: b\n",
		"a file elsewhere":  "-- kustomization.yaml --\nconfigMapGenerator: [{name: a, files: [../../../../../../../../etc/hostname]}]\n",
		"itself":            "-- kustomization.yaml --\nresources: [.]\n",
		"broken resources":  "-- kustomization.yaml --\nresources: [a.yaml]\n-- a.yaml --\na: [\n",
		"too large":         "-- kustomization.yaml --\nresources: [a.yaml]\n-- a.yaml --\n" + strings.Repeat("# "+strings.Repeat("x", 1021)+"\n", kustomize.MaxFile/1024+1),
		"broken patch":      "-- kustomization.yaml --\nresources: [a.yaml]\npatches: [{patch: '[', target: {kind: Pod}}]\n-- a.yaml --\napiVersion: v1\nkind: Pod\nmetadata: {name: a}\n",
		"not a kustomizing": "-- kustomization.yaml --\n\x00\n",
	} {
		docs, err := kustomize.Build(unpack(t, text))
		var build *kustomize.BuildError
		if !errors.As(err, &build) || docs != nil {
			t.Errorf("%s: %v, %q", name, err, docs)
		}
	}
}

// FuzzBuild: no kustomization makes it panic, and none leads away from here: unpack has no git, and
// a proxy that is not there.
func FuzzBuild(f *testing.F) {
	for _, s := range []string{"resources: [a.yaml]", "patches: [{patch: 'a: b', target: {kind: Pod}}]", "configMapGenerator: [{name: a, literals: [b=c]}]", "vars: [{name: a}]", "resources: [./github.com/a]"} {
		f.Add(s, "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n")
	}
	f.Fuzz(func(t *testing.T, kustomization, object string) {
		dir := t.TempDir()
		t.Setenv("PATH", dir)
		t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
		t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
		for name, text := range map[string]string{"kustomization.yaml": kustomization, "a.yaml": object} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		_, err := kustomize.Build(dir)
		var build *kustomize.BuildError
		if err != nil && !errors.As(err, &build) {
			t.Fatal(err)
		}
	})
}
