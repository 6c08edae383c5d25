package site_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sealift/sealift/internal/site"
)

const chosen = `# ours
apiVersion: sealift/v1
kind: SiteConfig
registry: registry.site:5000/a
registries:
  # the one in the cellar
  - registry: registry.site:5000/a
    mapping: flatten # one level
    caFile: /etc/ca.pem
`

func TestNamesAreKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "etc", "config.yaml")
	c, err := site.ReadConfig(path)
	if err != nil || c.For("x") != nil {
		t.Fatalf("no file: %+v, %v", c, err)
	}
	want := site.RegistryConfig{Registry: "registry.site:5000/b", Mapping: "single", Map: []string{"a.b/**=**", "c.d/*=*"}, Index: "derived"}
	if err := site.KeepNames(t.Context(), path, want); err != nil {
		t.Fatal(err)
	}
	c, err = site.ReadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.For(want.Registry); got == nil || got.Mapping != "single" || len(got.Map) != 2 || got.Index != "derived" {
		t.Fatalf("%+v", got)
	}

	// It is decided: other names are not written over it.
	var other *site.OtherNamesError
	for _, changed := range []site.RegistryConfig{{Registry: want.Registry, Mapping: "keep"}, {Registry: want.Registry, Mapping: "single", Map: want.Map[:1], Index: "derived"}, {Registry: want.Registry, Mapping: "single", Map: want.Map, Index: "platform"}} {
		if err := site.KeepNames(t.Context(), path, changed); !errors.As(err, &other) {
			t.Errorf("%+v: %v, want *OtherNamesError", changed, err)
		}
	}
	// Many at once: none is lost.
	var all sync.WaitGroup
	for i := range 12 {
		all.Go(func() {
			if err := site.KeepNames(t.Context(), path, site.RegistryConfig{Registry: fmt.Sprintf("r%d.site:5000", i), Mapping: "keep"}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if c, err = site.ReadConfig(path); err != nil || len(c.Registries) != 13 {
		t.Fatalf("%d registries, %v", len(c.Registries), err)
	}

	// What people wrote stays, rights and comments and all.
	if err := os.WriteFile(path, []byte(chosen), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(filepath.Dir(path), "link.yaml")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if err := site.KeepNames(t.Context(), link, want); err != nil {
		t.Fatal(err)
	}
	if err := site.KeepNames(t.Context(), link, site.RegistryConfig{Registry: "registry.site:5000/a", Mapping: "flatten", Index: "platform"}); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"# ours", "# the one in the cellar", "mapping: flatten # one level", "caFile: /etc/ca.pem", "index: platform", "index: derived"} {
		if !strings.Contains(string(raw), line) {
			t.Errorf("%q is gone from\n%s", line, raw)
		}
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 2 {
		t.Errorf("%v, %v", files, err)
	}
}

func TestConfigurationsThatAreRefused(t *testing.T) {
	dir := t.TempDir()
	for text, why := range map[string]string{
		"": "is empty",
		"apiVersion: sealift/v2\nkind: SiteConfig\n":                                                        ":1: apiVersion",
		"apiVersion: sealift/v1\nkind: Bundle\n":                                                            ":2: kind",
		"apiVersion: sealift/v1\nkind: SiteConfig\nregistries:\n  - mapping: keep\n":                        "registry is missing",
		"apiVersion: sealift/v1\nkind: SiteConfig\nregistries:\n  - registry: a.b\n  - registry: a.b\n":     "stands twice",
		"apiVersion: sealift/v1\nkind: SiteConfig\nregistries:\n  - registry: a.b\n    clientCert: x.pem\n": "only one of clientCert",
		"apiVersion: sealift/v1\nkind: SiteConfig\nregistries:\n  - registry: a.b/c/\n":                     "without a / at its end",
		"apiVersion: sealift/v1\nkind: SiteConfig\nregistries:\n  - registry: https://a.b\n":                "is not written as",
		"apiVersion: sealift/v1\nkind: SiteConfig\nregistry: A.b\n":                                         "in lower case",
		"apiVersion: sealift/v1\nkind: SiteConfig\nregistries:\n  - registry: a.b\n    mapping: flat\n":     "none of keep",
		"apiVersion: sealift/v1\nkind: SiteConfig\nregistries:\n  - registry: a.b\n    index: best\n":       "none of original",
		"apiVersion: sealift/v1\nkind: SiteConfig\nstate: /x\n":                                             ":3: unknown key",
	} {
		path := filepath.Join(dir, "config.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var bad *site.ConfigError
		if _, err := site.ReadConfig(path); !errors.As(err, &bad) || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %v, want %q", text, err, why)
		}
		// What cannot be read is not written over.
		if err := site.KeepNames(t.Context(), path, site.RegistryConfig{Registry: "a.b", Index: "derived"}); text != "" && err == nil {
			t.Errorf("%q was written over", text)
		}
	}
}

func TestWhereTheConfigurationIs(t *testing.T) {
	env := func(kv ...string) func(string) string {
		return func(key string) string {
			for i := 0; i < len(kv); i += 2 {
				if kv[i] == key {
					return kv[i+1]
				}
			}
			return ""
		}
	}
	there, nowhere := func(string) bool { return true }, func(string) bool { return false }
	for _, c := range []struct {
		env    func(string) string
		uid    int
		exists func(string) bool
		want   string
	}{
		{env("HOME", "/h"), 0, nowhere, "/etc/sealift/config.yaml"},
		{env("HOME", "/h"), 7, there, "/etc/sealift/config.yaml"},
		{env("HOME", "/h"), 7, nowhere, "/h/.config/sealift/config.yaml"},
		{env("HOME", "/h", "XDG_CONFIG_HOME", "/x"), 7, nowhere, "/x/sealift/config.yaml"},
		{env(), 7, nowhere, ""},
	} {
		if got := site.DefaultConfig(c.env, c.uid, c.exists); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
