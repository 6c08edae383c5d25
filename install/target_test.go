package install

import (
	"errors"
	"strings"
	"testing"

	"github.com/sealift/sealift/manifest"
)

func TestParseTarget(t *testing.T) {
	for text, want := range map[string]Target{
		"registry.site.example:5000":        {Registry: "registry.site.example:5000"},
		"registry.site.example/mirror/shop": {Registry: "registry.site.example", Prefix: "mirror/shop"},
		"127.0.0.1:5000/":                   {Registry: "127.0.0.1:5000"},
		"[::1]:5000/a":                      {Registry: "[::1]:5000", Prefix: "a"},
	} {
		if got, err := ParseTarget(text); err != nil || got.Registry != want.Registry || got.Prefix != want.Prefix {
			t.Errorf("ParseTarget(%q) = %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "/a", "harbor/library", "harbor", "https://x", "x y", "host/Upper", "host/a//b", "host/../a", "host:port", "-host", "user@host", "host/a:tag"} {
		var bad *TargetError
		if _, err := ParseTarget(text); !errors.As(err, &bad) {
			t.Errorf("ParseTarget(%q): %v, want *TargetError", text, err)
		}
	}
}

func digest(c string) string { return "sha256:" + strings.Repeat(c, 64) }

func image(source, d string) manifest.Image {
	return manifest.Image{Source: source, Digest: digest(d), Platforms: []string{"linux/amd64"}}
}

func TestNamesAtTheSite(t *testing.T) {
	m := &manifest.Manifest{
		Name: "shop", Version: "1.0.0+build.7",
		Images: []manifest.Image{
			image("docker.io/library/nginx:1.27", "1"),
			image("registry.example.com:5000/shop/app@"+digest("2"), "2"),
			image("quay.io/shop/app:1", "3"),
		},
		Charts: []manifest.Chart{{Name: "Shop", Version: "1.2.3+x", Manifest: manifest.Descriptor{Digest: digest("4")}}},
	}
	all, err := roots(m, Target{Registry: "site:5000", Prefix: "mirror"}, "", map[string]*root{})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"site:5000/mirror/library/nginx:1.27@" + digest("1"),
		"site:5000/mirror/shop/app@" + digest("2"),
		"site:5000/mirror/shop/app:1@" + digest("3"),
		"site:5000/mirror/charts/shop:1.2.3_x@" + digest("4"),
	}
	owned := map[string]bool{}
	for i, r := range all {
		if got := r.reference(Target{Registry: "site:5000", Prefix: "mirror"}); got != want[i] {
			t.Errorf("%q, want %q", got, want[i])
		}
		if owned[r.owned] || len(r.owned) > 128 || !strings.HasPrefix(r.owned, "sealift.shop.1.0.0_build.7.") {
			t.Errorf("owned tag %q", r.owned)
		}
		owned[r.owned] = true
	}
}

func TestCollisionsAreRefused(t *testing.T) {
	m := &manifest.Manifest{Name: "shop", Version: "1.0.0", Images: []manifest.Image{
		image("one.example.com/shop/app:1", "1"), image("two.example.com/shop/app:1", "2"),
	}}
	var collision *CollisionError
	if _, err := roots(m, Target{Registry: "site.example"}, "", map[string]*root{}); !errors.As(err, &collision) || collision.Target != "site.example/shop/app:1" {
		t.Fatal(err)
	}
	// The same content under one name is no collision.
	m.Images[1].Digest = m.Images[0].Digest
	if _, err := roots(m, Target{Registry: "site.example"}, "", map[string]*root{}); err != nil {
		t.Fatal(err)
	}
}

func TestWhatStandsForASparseIndex(t *testing.T) {
	sparse := func(platforms ...string) *manifest.Manifest {
		img := image("registry.example.com/shop/app:1", "1")
		img.Platforms = platforms
		img.Derived = &manifest.Descriptor{Digest: digest("2")}
		for i, p := range platforms {
			img.Children = append(img.Children, manifest.Child{Digest: digest(string(rune('3' + i))), Platform: p})
		}
		return &manifest.Manifest{Name: "shop", Version: "1.0.0", Images: []manifest.Image{img}}
	}
	for _, c := range []struct {
		mode     IndexMode
		top      string
		children int
		sparse   bool
	}{{"", "1", 1, true}, {IndexOriginal, "1", 1, true}, {IndexDerived, "2", 1, false}, {IndexPlatform, "3", 0, false}} {
		all, err := roots(sparse("linux/amd64"), Target{Registry: "site.example"}, c.mode, map[string]*root{})
		if err != nil {
			t.Fatal(err)
		}
		r := all[0]
		if r.top.Digest != digest(c.top) || len(r.children) != c.children || r.sparse != c.sparse {
			t.Errorf("mode %q: top %s, %d children, sparse %t", c.mode, r.top.Digest, len(r.children), r.sparse)
		}
	}
	var platforms *PlatformsError
	if _, err := roots(sparse("linux/amd64", "linux/arm64"), Target{Registry: "site.example"}, IndexPlatform, map[string]*root{}); !errors.As(err, &platforms) {
		t.Fatal(err)
	}
}

func TestOwnedTagIsATag(t *testing.T) {
	m := &manifest.Manifest{Name: strings.Repeat("n", 63), Version: "1.0.0-" + strings.Repeat("9", 100)}
	if tag := ownedTag(m, digest("1")); len(tag) > 128 || !strings.HasSuffix(tag, "."+strings.Repeat("1", 16)) {
		t.Fatalf("%q of %d characters", tag, len(tag))
	}
}
