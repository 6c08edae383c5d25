package bundle

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/internal/kustomize"
)

// tree writes files below a new directory.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func object(name string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + "}\n"
}

func TestReadObjects(t *testing.T) {
	dir := tree(t, map[string]string{
		"one.yaml":                 object("one"),
		"all/b.yml":                "\ufeff" + object("b") + "---\n" + object("c"),
		"all/a/x.yaml":             strings.TrimSuffix(object("a"), "\n"),
		"all/z.json":               `{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "z"}}`,
		"all/README.md":            "{{",
		"all/.git/x.yaml":          "a: [",
		"all/.hidden.yaml":         "a: [",
		"built/kustomization.yaml": "resources: [x.yaml]\nnamePrefix: my-\n",
		"built/x.yaml":             object("x"),
		"built/not-named.yaml":     "a: [",
	})
	for path, names := range map[string][]string{
		"one.yaml": {"one"}, "all": {"a", "b", "c", "z"}, "built": {"my-x"},
	} {
		docs, err := readObjects(filepath.Join(dir, path))
		if err != nil {
			t.Error(err)
			continue
		}
		n, err := chart.CheckObjects(docs)
		if err != nil || n != len(names) {
			t.Errorf("%s: %d objects, %v\n%s", path, n, err, docs)
		}
		at := 0
		for _, name := range names {
			i := strings.Index(string(docs)[at:], name)
			if i < 0 {
				t.Errorf("%s: no %q behind byte %d of\n%s", path, name, at, docs)
				break
			}
			at += i
		}
	}
}

func TestReadObjectsRefused(t *testing.T) {
	dir := tree(t, map[string]string{
		"a.txt":                       object("a"),
		"empty.yaml":                  "# nothing\n",
		"dir/README.md":               "",
		"wrong/sub/x.yaml":            object("x") + "---\nkind: Pod\n",
		"nested/k/kustomization.yaml": "namePrefix: a\n",
		"remote/kustomization.yaml":   "resources: [github.com/a/b]\n",
		"large/a.yaml":                object("a") + strings.Repeat("# "+strings.Repeat("x", 1021)+"\n", chart.MaxManifests/2/1024),
		"large/b.yaml":                object("b") + strings.Repeat("# "+strings.Repeat("x", 1021)+"\n", chart.MaxManifests/2/1024),
	})
	for path, want := range map[string]string{
		"nowhere":    "no such file",
		"a.txt":      "is neither a directory nor a file .yaml, .yml or .json",
		"empty.yaml": "there are no objects",
		"dir":        "there are no objects",
		"wrong":      filepath.Join("wrong", "sub", "x.yaml") + `": object 2 (line 5): it has no apiVersion`,
		"nested":     "name it by itself",
		"remote":     "github.com/a/b",
		"large":      "more than",
	} {
		_, err := readObjects(filepath.Join(dir, path))
		var bad *ManifestsError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
		var remote *kustomize.RemoteError
		if path == "remote" && !errors.As(err, &remote) {
			t.Errorf("%v wraps no *kustomize.RemoteError", err)
		}
	}
}
