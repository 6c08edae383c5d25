package install

import (
	"strings"
	"testing"

	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/manifest"
)

// TestPlaces: by which names an image is found at the site, and that the vendor's names come first
// where the bundle has images of this very registry.
func TestPlaces(t *testing.T) {
	digest := func(c string) string { return "sha256:" + strings.Repeat(c, 64) }
	m := &manifest.Manifest{
		Images: []manifest.Image{
			{Source: "site.example/p/shop/app:1", Digest: digest("a")},
			{Source: "vendor.example/shop/app:1", Digest: digest("b")},
			{Source: "docker.io/library/nginx:1", Digest: digest("c")},
			// By tag and by digest, and the same.
			{Source: "vendor.example/shop/twice:1", Digest: digest("f")},
			{Source: "vendor.example/shop/twice@" + digest("f"), Digest: digest("f")},
		},
		Ignored: []manifest.IgnoredImage{{Reference: "vendor.example/shop/demo:1"}},
	}
	target := Target{Registry: "site.example", Prefix: "p"}
	seeded := []SeededImage{
		{Source: "site.example/p/shop/app:1", Target: "site.example/p/p/shop/app:1@" + digest("a"), Digest: digest("a")},
		{Source: "vendor.example/shop/app:1", Target: "site.example/p/shop/app:1@" + digest("b"), Digest: digest("b")},
		{Source: "docker.io/library/nginx:1", Target: "site.example/p/library/nginx:1@" + digest("d"), Digest: digest("d")},
	}
	for _, name := range []string{"shop/twice:1", "shop/twice@" + digest("f")} {
		repository, _, _ := strings.Cut(name, "@")
		seeded = append(seeded, SeededImage{Source: "vendor.example/" + name, Target: "site.example/p/" + repository + "@" + digest("f"), Digest: digest("f")})
	}
	p := newPlaces(m, seeded, target)
	for from, want := range map[string]string{
		"site.example/p/shop/app:1":                     seeded[0].Target,
		"site.example/p/shop/app:1@" + digest("b"):      seeded[1].Target,
		"vendor.example/shop/app:1":                     seeded[1].Target,
		"site.example/p/library/nginx:1":                seeded[2].Target,
		"site.example/p/nginx:1":                        seeded[2].Target,
		"site.example/p/nginx:1@" + digest("c"):         seeded[2].Target, // the index that another one stands for
		"site.example/p/nginx@" + digest("d"):           seeded[2].Target,
		"site.example/p/shop/demo:1":                    "vendor.example/shop/demo:1",
		"vendor.example/shop/demo:1":                    "vendor.example/shop/demo:1",
		"site.example/p/shop/twice@" + digest("f"):      seeded[3].Target,
		"site.example/p/other:1":                        "",
		"site.example/p/library/nginx:1@" + digest("e"): "",
	} {
		ref, err := oci.Normalize(from)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := p.find(ref); got != want || ok != (want != "") {
			t.Errorf("%s: got %q, want %q", from, got, want)
		}
	}
}
