package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

var twoDecisions = Edit{
	Include: []Decision{{Match: "r.example.com/in:1"}},
	Ignore:  []Decision{{Match: "*/out/**", Why: `never "on": # it's off`}},
}

const editHead = "apiVersion: sealift/v1\nkind: Bundle\nname: a\nversion: 1.0.0\n"

func TestEditSpec(t *testing.T) {
	ignored := "ignoreImages:\n  - match: \"*/out/**\"\n    why: \"never \\\"on\\\": # it's off\"\n"
	for name, c := range map[string]struct{ old, want string }{
		"missing keys": {
			"files: [{path: a}]\n",
			"files: [{path: a}]\n\nimages:\n  - match: r.example.com/in:1\n\n" + ignored,
		},
		"no line end": {
			"files: [{path: a}]",
			"files: [{path: a}]\n\nimages:\n  - match: r.example.com/in:1\n\n" + ignored,
		},
		"empty lists": {
			"images: []  # none yet\n#  - ref: x\nignoreImages: [ ]\nfiles: [{path: a}]\n",
			"images: # none yet\n  - match: r.example.com/in:1\n#  - ref: x\nignoreImages:\n" + strings.TrimPrefix(ignored, "ignoreImages:\n") + "files: [{path: a}]\n",
		},
		"nulls": {
			"images:\nignoreImages: ~\nfiles: [{path: a}]\n",
			"images:\n  - match: r.example.com/in:1\n" + ignored + "files: [{path: a}]\n",
		},
		"null with a comment": {
			"images: # later\nignoreImages: null # later\nfiles: [{path: a}]\n",
			"images: # later\n  - match: r.example.com/in:1\nignoreImages: # later\n" + strings.TrimPrefix(ignored, "ignoreImages:\n") + "files: [{path: a}]\n",
		},
		"block lists": {
			"images:\n  # the tool\n  - ref: r.example.com/tool:1   # pinned\n    platforms:\n      - linux/amd64\n      # the last of it\n  # not his\n\n# about files\nignoreImages:\n- match: r.example.com/b\n\nfiles:\n  - path: a\n",
			"images:\n  # the tool\n  - ref: r.example.com/tool:1   # pinned\n    platforms:\n      - linux/amd64\n      # the last of it\n  - match: r.example.com/in:1\n  # not his\n\n# about files\nignoreImages:\n- match: r.example.com/b\n- match: \"*/out/**\"\n  why: \"never \\\"on\\\": # it's off\"\n\nfiles:\n  - path: a\n",
		},
		"a list at the end": {
			"files: [{path: a}]\nignoreImages: [{match: r.example.com/b}, ]\nimages:\n    - ref: r.example.com/tool:1",
			"files: [{path: a}]\nignoreImages: [{match: r.example.com/b}, {\"match\": \"*/out/**\", \"why\": \"never \\\"on\\\": # it's off\"} ]\nimages:\n    - ref: r.example.com/tool:1\n    - match: r.example.com/in:1\n",
		},
		"lists in brackets": {
			"images: [{ref: r.example.com/tool:1, verify: [{key: \"]\"}]}\n  # one more ]\n  , {ref: 'r.example.com/b'}\n]\nignoreImages: [{match: r.example.com/b}] # why\n",
			"images: [{ref: r.example.com/tool:1, verify: [{key: \"]\"}]}\n  # one more ]\n  , {ref: 'r.example.com/b'}, {\"match\": \"r.example.com/in:1\"}\n]\nignoreImages: [{match: r.example.com/b}, {\"match\": \"*/out/**\", \"why\": \"never \\\"on\\\": # it's off\"}] # why\n",
		},
		"a text that keeps its line ends": {
			"files: [{path: a}]\nparameters: []\nignoreImages:\n  - match: r.example.com/b\n    why: |+\n      because\n\nimages: []\n",
			"files: [{path: a}]\nparameters: []\nignoreImages:\n  - match: \"*/out/**\"\n    why: \"never \\\"on\\\": # it's off\"\n  - match: r.example.com/b\n    why: |+\n      because\n\nimages:\n  - match: r.example.com/in:1\n",
		},
		"an end marker": {
			"files: [{path: a}]\n...\n",
			"files: [{path: a}]\n\nimages:\n  - match: r.example.com/in:1\n\n" + ignored + "...\n",
		},
	} {
		for _, eol := range []string{"\n", "\r\n"} {
			in := strings.ReplaceAll(editHead+c.old, "\n", eol)
			want := strings.ReplaceAll(editHead+c.want, "\n", eol)
			got, err := editSpec([]byte(in), twoDecisions)
			if err != nil || string(got) != want {
				t.Errorf("%s %q: %v\ngot\n%s\nwant\n%s", name, eol, err, got, want)
				continue
			}
			again, err := editSpec(got, twoDecisions)
			if err != nil || !bytes.Equal(again, got) {
				t.Errorf("%s, for a second time: %v\n%s", name, err, again)
			}
		}
	}
}

func TestEditSpecAsJSON(t *testing.T) {
	in := `{"apiVersion": "sealift/v1", "kind": "Bundle", "name": "a", "version": "1.0.0", "images": [], "files": [{"path": "{a}"}]}`
	want := `{"apiVersion": "sealift/v1", "kind": "Bundle", "name": "a", "version": "1.0.0", "images": [{"match": "r.example.com/in:1"}], "files": [{"path": "{a}"}], ` +
		`"ignoreImages": [{"match": "*/out/**", "why": "never \"on\": # it's off"}]}`
	got, err := editSpec([]byte(in), twoDecisions)
	if err != nil || string(got) != want {
		t.Fatalf("%v\ngot  %s\nwant %s", err, got, want)
	}
}

func TestEditSpecFile(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "s.yaml"), filepath.Join(dir, "link.yaml")
	if err := os.WriteFile(path, []byte(editHead+"files: [{path: a}]\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("s.yaml", link); err != nil {
		t.Fatal(err)
	}
	if err := EditSpec(link, Edit{Ignore: []Decision{{Match: "r.example.com/a"}, {Match: "r.example.com/a"}}}); err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(link)
	if err != nil || info.Mode().IsRegular() {
		t.Errorf("the link became %v, %v", info.Mode(), err)
	}
	first, err := os.Stat(path)
	if err != nil || runtime.GOOS != "windows" && first.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", first.Mode(), err)
	}
	s, err := LoadSpec(path)
	if err != nil || len(s.IgnoreImages) != 1 {
		t.Fatalf("%+v, %v", s, err)
	}
	// What is there already is not written again.
	if err := EditSpec(path, Edit{Ignore: []Decision{{Match: "r.example.com/a", Why: "another reason"}}}); err != nil {
		t.Fatal(err)
	}
	second, err := os.Stat(path)
	if err != nil || !os.SameFile(first, second) {
		t.Errorf("the file was written again, %v", err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var pattern *PatternError
	if err := EditSpec(path, Edit{Include: []Decision{{Match: "nginx"}}}); !errors.As(err, &pattern) {
		t.Error(err)
	}
	// Both in and out.
	var bad *SpecError
	if err := EditSpec(path, Edit{Include: []Decision{{Match: "r.example.com/a"}}}); !errors.As(err, &bad) || bad.Path != path {
		t.Error(err)
	}
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("a refused change was written: %s, %v", after, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	if err := EditSpec(filepath.Join(dir, "none.yaml"), Edit{}); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// TestEditSpecRefused: what cannot be changed is shown, and not written.
func TestEditSpecRefused(t *testing.T) {
	for _, old := range []string{
		"images: [ # a comment\n]\nfiles: [{path: a}]\n",
		"\"images\": &x []\nfiles: [{path: a}]\n",
	} {
		_, err := editSpec([]byte(editHead+old), Edit{Include: []Decision{{Match: "r.example.com/in"}}})
		var cannot *EditError
		if !errors.As(err, &cannot) || !strings.Contains(err.Error(), "images:\n  - match: r.example.com/in\n") {
			t.Errorf("%s: %v", old, err)
		}
	}
}

// FuzzEditSpec: what was a spec still is one, and says what it said and what was added.
func FuzzEditSpec(f *testing.F) {
	f.Add([]byte(wholeSpec), "r.example.com/a", "*/b/**:1", "why")
	f.Add(fmt.Appendf(nil, SampleSpec+"files: [{path: a}]\n", "shop"), "r.example.com/a", "*/b", "")
	f.Add([]byte(editHead+"images: [{ref: r.example.com/a:1}]\nignoreImages: [\n{match: r.example.com/c},]\n"), "r.example.com/a", "*/b", "x\ty\x00")
	f.Add([]byte(editHead+"  \nimages:\n-   match: r.example.com/a\n    why: |\n     x\n# c\n"), "r.example.com/d", "*/b", "ü")
	f.Add([]byte(`{"apiVersion": "sealift/v1", "kind": "Bundle", "name": "a", "version": "1.0.0", "files": [{"path": "a"}]}`), "r.example.com/a", "*/b", "\u2028")
	f.Fuzz(func(t *testing.T, raw []byte, include, ignore, why string) {
		for _, s := range []string{include, ignore} {
			if _, err := ParsePattern(s); err != nil {
				return
			}
		}
		old, problems := parseSpec(raw)
		if len(problems) > 0 {
			return
		}
		e := Edit{Include: []Decision{{Match: include}}, Ignore: []Decision{{ignore, why}}}
		edited, err := editSpec(raw, e)
		if err != nil {
			var cannot *EditError
			var bad *SpecError
			if !errors.As(err, &cannot) && !errors.As(err, &bad) {
				t.Fatal(err)
			}
			return
		}
		s, problems := parseSpec(edited)
		if len(problems) > 0 {
			t.Fatalf("%v\n%s", problems, edited)
		}
		if !slices.ContainsFunc(s.Images, func(i ImageSpec) bool { return i.Match == include }) ||
			!slices.ContainsFunc(s.IgnoreImages, func(i IgnoreSpec) bool { return i.Match == ignore }) {
			t.Fatalf("%q or %q is missing:\n%s", include, ignore, edited)
		}
		// But for the lists, nothing is different.
		for _, x := range []*Spec{old, s} {
			x.Images, x.IgnoreImages = nil, nil
		}
		if a, b := withoutLines(old), withoutLines(s); a != b {
			t.Fatalf("it was\n%s\nand is\n%s\n%s", a, b, edited)
		}
		if again, err := editSpec(edited, e); err != nil || !bytes.Equal(again, edited) {
			t.Fatalf("for a second time: %v\n%s", err, again)
		}
	})
}

// withoutLines is what a spec says, wherever it stands.
func withoutLines(s *Spec) string {
	raw, err := yaml.Marshal(s)
	if err != nil {
		return err.Error()
	}
	return string(raw)
}
