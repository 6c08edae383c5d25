package chart

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const shopDir = "../../testdata/charts/shop"

func mustLoad(t testing.TB, path string) *Chart {
	t.Helper()
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// writeChart writes a chart directory; names with a slash at the end are
// not needed.
func writeChart(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		p := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const chartYAML = "apiVersion: v2\nname: small\nversion: 0.1.0\n"

func small(t testing.TB, files map[string]string) *Chart {
	t.Helper()
	if files["Chart.yaml"] == "" {
		files["Chart.yaml"] = chartYAML
	}
	return mustLoad(t, writeChart(t, files))
}

func TestLoadDirectory(t *testing.T) {
	c := mustLoad(t, shopDir)
	if c.Name != "shop" || c.Version != "1.2.3" || c.AppVersion != "2.4.0" {
		t.Errorf("got %s %s %s", c.Name, c.Version, c.AppVersion)
	}
	if !bytes.Contains(c.Config, []byte(`"name":"shop"`)) || !bytes.Contains(c.Config, []byte(`"apiVersion":"v2"`)) {
		t.Errorf("config %s", c.Config)
	}
}

// The digest of a packaged directory is part of a lock file: it must not change
// with the machine, the time, the Go version or ours. If this fails, locks that
// vendors have committed no longer hold.
func TestPackIsStable(t *testing.T) {
	files := map[string]string{"Chart.yaml": chartYAML, "values.yaml": "a: 1\n", "templates/x.yaml": strings.Repeat("# text\n", 1000), "README.md": "hello"}
	dir := writeChart(t, files)
	if err := os.Chtimes(filepath.Join(dir, "values.yaml"), time.Unix(1e9, 0), time.Unix(1e9, 0)); err != nil {
		t.Fatal(err)
	}
	got := sha256.Sum256(mustLoad(t, dir).Archive)
	const want = "f815e56e43a729319a6e41aadf2a99f2df6b45b57130a732d1a0eea4ab755b80"
	if hex.EncodeToString(got[:]) != want {
		t.Errorf("digest %x, want %s", got, want)
	}
}

func TestPackContents(t *testing.T) {
	dir := writeChart(t, map[string]string{
		"Chart.yaml":              chartYAML + "# comments travel\n",
		"values.yaml":             "a: 1\n",
		".helmignore":             "*.bak\nci/\n",
		"old.bak":                 "x",
		"ci/values.yaml":          "x",
		"charts/dep/Chart.yaml":   "apiVersion: v2\nname: dep\nversion: 1.0.0\n",
		"charts/dep/values.yaml":  "b: 2\n",
		"templates/configmap.yml": "a: b\n",
	})
	zr, err := gzip.NewReader(bytes.NewReader(mustLoad(t, dir).Archive))
	if err != nil {
		t.Fatal(err)
	}
	if !zr.ModTime.IsZero() || zr.Name != "" {
		t.Errorf("gzip header has time %v, name %q", zr.ModTime, zr.Name)
	}
	var names []string
	tr := tar.NewReader(zr)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Mode != 0o644 || h.ModTime.Unix() != 0 || h.Uid != 0 || h.Uname != "" {
			t.Errorf("%s: mode %o, time %v, owner %d %q", h.Name, h.Mode, h.ModTime, h.Uid, h.Uname)
		}
		names = append(names, h.Name)
		if data, _ := io.ReadAll(tr); h.Name == "small/Chart.yaml" && !strings.Contains(string(data), "comments travel") {
			t.Errorf("Chart.yaml was rewritten: %s", data)
		}
	}
	want := []string{
		"small/.helmignore", "small/Chart.yaml", "small/charts/dep/Chart.yaml", "small/charts/dep/values.yaml",
		"small/templates/configmap.yml", "small/values.yaml",
	}
	if !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
}

func TestLoadArchiveKeepsBytes(t *testing.T) {
	c := mustLoad(t, shopDir)
	path := filepath.Join(t.TempDir(), "shop.tgz")
	if err := os.WriteFile(path, c.Archive, 0o600); err != nil {
		t.Fatal(err)
	}
	again := mustLoad(t, path)
	if !bytes.Equal(again.Archive, c.Archive) || !bytes.Equal(again.Config, c.Config) {
		t.Error("loading a .tgz changed it")
	}
}

func TestLoadErrors(t *testing.T) {
	tests := map[string]map[string]string{
		"no Chart.yaml":      {"values.yaml": "a: 1"},
		"broken Chart.yaml":  {"Chart.yaml": "a: [\n"},
		"no version":         {"Chart.yaml": "apiVersion: v2\nname: x\n"},
		"name with a path":   {"Chart.yaml": "apiVersion: v2\nname: ../x\nversion: 1.0.0\n"},
		"broken values":      {"Chart.yaml": chartYAML, "values.yaml": "a: [\n"},
		"a broken sub-chart": {"Chart.yaml": chartYAML, "charts/x.tgz": "no"},
	}
	for name, files := range tests {
		t.Run(name, func(t *testing.T) {
			dir := writeChart(t, files)
			_, err := Load(dir)
			var le *LoadError
			if !errors.As(err, &le) || le.Path != dir {
				t.Errorf("got %v", err)
			}
		})
	}
	for _, path := range []string{"/does/not/exist", writeChart(t, map[string]string{"x.tgz": "not gzip"}) + "/x.tgz", "/dev/null"} {
		var le *LoadError
		if _, err := Load(path); !errors.As(err, &le) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v", path, err)
		}
	}
	if _, err := Load("/does/not/exist"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if _, err := Parse(make([]byte, MaxArchive+1)); err == nil {
		t.Error("an archive over the limit is accepted")
	}
}

func TestMissingDependencies(t *testing.T) {
	_, err := Load(writeChart(t, map[string]string{
		"Chart.yaml": chartYAML + "dependencies:\n- {name: here, version: 1.x}\n- {name: db, version: 1.x}\n- {name: mq, version: 2.x}\n" +
			"- {name: db, alias: db2, version: 1.x}\n",
		"charts/here/Chart.yaml": "apiVersion: v2\nname: here\nversion: 1.0.0\n",
	}))
	var me *MissingDependenciesError
	if !errors.As(err, &me) || me.Chart != "small" || !slices.Equal(me.Missing, []string{"db", "mq"}) {
		t.Errorf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(mustLoad(f, shopDir).Archive)
	f.Add([]byte("\x1f\x8b"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse(data)
		if err == nil && (c.Name == "" || c.Version == "" || len(c.Config) == 0) {
			t.Errorf("accepted an incomplete chart: %+v", c)
		}
	})
}
