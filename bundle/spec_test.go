package bundle

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

func TestSampleSpecIsReadAsItIs(t *testing.T) {
	_, problems := parseSpec(fmt.Appendf(nil, SampleSpec, "shop"))
	if len(problems) != 1 || problems[0].Text != "names neither images nor charts: there is nothing to pack" {
		t.Fatalf("%v", problems)
	}
}

func TestDefaults(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.yaml")
	text := "apiVersion: sealift/v1\nkind: Bundle\nname: a\nversion: 1.0.0\ncharts: [{path: ./c}]\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := LoadSpec(path)
	if err != nil {
		t.Fatal(err)
	}
	if s.Channel != "stable" || len(s.Platforms) != 1 || s.Platforms[0] != DefaultPlatform {
		t.Fatalf("%+v", s)
	}
	if got := s.file("./c"); got != filepath.Join(filepath.Dir(path), "c") {
		t.Fatalf("a path leads to %q", got)
	}
}

func TestSpecTooLarge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.yaml")
	if err := os.WriteFile(path, make([]byte, MaxSpecBytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	var bad *SpecError
	if _, err := LoadSpec(path); !errors.As(err, &bad) {
		t.Fatal(err)
	}
}

// FuzzSpec: no text makes the parser panic, and what it accepts has what Resolve relies on.
func FuzzSpec(f *testing.F) {
	f.Add(fmt.Appendf(nil, SampleSpec, "shop"))
	f.Add([]byte("apiVersion: sealift/v1\nkind: Bundle\nname: a\nversion: 1.0.0\nimages: [{ref: r.example.com/a:1}]\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("images: &x\n- ref: 1\ncharts: *x\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, problems := parseSpec(b)
		if len(problems) == 0 && (s == nil || s.Name == "" || len(s.Platforms) == 0 || len(s.Images)+len(s.Charts) == 0) {
			t.Fatalf("accepted %q as %+v", b, s)
		}
	})
}
