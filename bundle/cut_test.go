package bundle

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/sealift/sealift/internal/archive"
)

// TestCopyDetached: all signatures beside a bundle come to the new place, and none of those that
// are there already is written over.
func TestCopyDetached(t *testing.T) {
	root := t.TempDir()
	for path, content := range map[string]string{
		"a/b.tar.zst.001": "", "c/b.tar.zst.002": "",
		"a/b.tar.zst.sigstore.json": "one", "a/b.tar.zst.3.sigstore.json": "two", "c/b.tar.zst.sigstore.json": "three",
		"d/other": "",
	} {
		full := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		to   string
		made map[string]string
	}{
		{"d/new.tar.zst", map[string]string{"d/new.tar.zst.sigstore.json": "one", "d/new.tar.zst.2.sigstore.json": "two", "d/new.tar.zst.3.sigstore.json": "three"}},
		{"a/new.tar.zst", map[string]string{"a/new.tar.zst.sigstore.json": "one", "a/new.tar.zst.2.sigstore.json": "two", "a/new.tar.zst.3.sigstore.json": "three"}},
		{"a/b.tar.zst", map[string]string{"a/b.tar.zst.2.sigstore.json": "three"}},
	} {
		found, err := archive.Find([]string{filepath.Join(root, "a/b.tar.zst.001"), filepath.Join(root, "c")})
		if err != nil || len(found) != 1 || len(found[0].Detached) != 3 {
			t.Fatalf("%v, %v", found, err)
		}
		made, err := copyDetached(found[0], filepath.Join(root, c.to))
		if err != nil || len(made) != len(c.made) {
			t.Fatalf("%s: %q, %v", c.to, made, err)
		}
		for path, want := range c.made {
			full := filepath.Join(root, path)
			got, err := os.ReadFile(full)
			if err != nil || string(got) != want || !slices.Contains(made, full) {
				t.Errorf("%s: %q, %v, want %q", path, got, err, want)
			}
		}
	}
}
