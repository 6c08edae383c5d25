package sigstore_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/sealift/sealift/internal/sigstore"
)

func TestIdentityMatches(t *testing.T) {
	const issuer = "https://token.example"
	for _, c := range []struct {
		glob, re string
		yes, no  []string
	}{
		{
			glob: "release@example.com", yes: []string{"release@example.com"},
			no: []string{"Release@example.com", "release@example.com.evil", "xrelease@example.com", "release@example\uff0ecom", ""},
		},
		{
			glob: "*@example.com", yes: []string{"a@example.com", "a.b@example.com"},
			no: []string{"@example.com", "a@b@example.com", "https://evil/@example.com", "a@example.com\n", "a\nb@example.com"},
		},
		{
			glob: "https://git.example/acme/shop/release.yml@refs/tags/*", yes: []string{"https://git.example/acme/shop/release.yml@refs/tags/v1.2.3-rc.1"},
			no: []string{
				"https://git.example/acme/shop/release.yml@refs/tags/", "https://git.example/acme/shop/release.yml@refs/tags/a/b",
				"https://git.example/acme/shop-evil/release.yml@refs/tags/v1", "https://git.example/acme/shop/release.yml@refs/heads/main",
			},
		},
		{
			glob: "https://git.example/*/shop", yes: []string{"https://git.example/acme/shop"},
			no: []string{"https://git.example/acme/evil/shop", "https://git.example/a@b/shop", "https://git.example/?x=/shop"},
		},
		{glob: "a.c", yes: []string{"a.c"}, no: []string{"abc"}},
		{re: `good|better`, yes: []string{"good", "better"}, no: []string{"good-evil", "evil-better", "goodbetter", "good\n"}},
		{re: `^good$`, yes: []string{"good"}, no: []string{"good\n", "xgood"}},
		{re: `(?m)^good$`, yes: []string{"good"}, no: []string{"evil\ngood", "good\nevil"}},
	} {
		id, err := sigstore.ParseIdentity(issuer, "", c.glob, c.re)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range c.yes {
			if !id.Matches(issuer, s) {
				t.Errorf("%s%s does not match %q", c.glob, c.re, s)
			}
			if id.Matches(issuer+"/", s) || id.Matches("", s) {
				t.Errorf("%s%s matches %q by another issuer", c.glob, c.re, s)
			}
		}
		for _, s := range c.no {
			if id.Matches(issuer, s) {
				t.Errorf("%s%s matches %q", c.glob, c.re, s)
			}
		}
	}
	if (sigstore.Identity{}).Matches("", "") || (sigstore.Identity{}).Matches("a", "b") {
		t.Error("the zero identity matches")
	}
}

func TestParseIdentityRefuses(t *testing.T) {
	for _, c := range [][4]string{
		{},
		{"i", "", "", ""},
		{"", "", "s", ""},
		{"i", "i", "s", ""},
		{"i", "", "s", "s"},
		{"i", "", "**", ""},
		{"i", "", "", "a)|(b"},
		{"i", "", "", "("},
		{"i", "", "", "((a{100}){100}){10}"},
		{"i", "", "", strings.Repeat("a{1000}", 100)},
		{"i", "", strings.Repeat("x", 2000), ""},
	} {
		if _, err := sigstore.ParseIdentity(c[0], c[1], c[2], c[3]); !errors.Is(err, sigstore.ErrPattern) {
			t.Errorf("%q: %v", c, err)
		}
	}
}
