package bundle

import (
	"errors"
	"strings"
	"testing"

	"github.com/sealift/sealift/internal/oci"
)

func TestPattern(t *testing.T) {
	digest := "sha256:" + strings.Repeat("a", 64)
	for _, c := range []struct {
		pattern, reference string
		want               bool
	}{
		{"r.example.com/a/b", "r.example.com/a/b:1", true},
		{"r.example.com/a/b", "r.example.com/a/b@" + digest, true},
		{"r.example.com/a/b", "r.example.com/a/bc:1", false},
		{"r.example.com/a/b", "r.example.com/a/b/c:1", false},
		{"r.example.com/a/b", "rxexample.com/a/b:1", false},
		{"r.example.com/a/b:1", "r.example.com/a/b:1", true},
		{"r.example.com/a/b:1", "r.example.com/a/b:1@" + digest, true},
		{"r.example.com/a/b:1", "r.example.com/a/b:10", false},
		{"r.example.com/a/b:1.*", "r.example.com/a/b:1.2", true},
		{"r.example.com/a/b:1.*", "r.example.com/a/b:1.", false},
		{"r.example.com/a/b:*", "r.example.com/a/b@" + digest, false},
		{"r.example.com/a/b@*", "r.example.com/a/b:1@" + digest, true},
		{"r.example.com/a/b@*", "r.example.com/a/b:1", false},
		{"r.example.com/a/b@" + digest, "r.example.com/a/b@" + digest, true},
		{"r.example.com/a/b@sha256:aa*", "r.example.com/a/b@" + digest, true},
		{"r.example.com/a/b@sha256:ab*", "r.example.com/a/b@" + digest, false},
		{"r.example.com/*", "r.example.com/a:1", true},
		{"r.example.com/*", "r.example.com/a/b:1", false},
		{"r.example.com/**", "r.example.com/a/b/c:1", true},
		{"r.example.com/**", "r.example.com:5000/a:1", false},
		{"r.example.com/a/**/c", "r.example.com/a/b/b/c:1", true},
		{"r.example.com/a/**/c", "r.example.com/a/c:1", false},
		{"r.example.com/**-debug:1", "r.example.com/a/b-debug:1", true},
		{"r.example.com:5000/*", "r.example.com:5000/a:1", true},
		{"*.example.com/*", "r.example.com/a:1", true},
		{"*.example.com/*", "example.com/a:1", false},
		{"*/*", "localhost/a:1", true},
		{"*/*", "localhost:5000/a:1", false},
		{"localhost/a", "localhost/a:1", true},
		{"*:5000/**", "localhost:5000/a/b:1", true},
		{"docker.io/library/nginx", "nginx", true},
		{"docker.io/**", "nginx", true},
		{"docker.io/bitnami/*:*", "bitnami/redis", true},
	} {
		p, err := ParsePattern(c.pattern)
		if err != nil {
			t.Error(err)
			continue
		}
		r, err := oci.Normalize(c.reference)
		if err != nil {
			t.Fatal(err)
		}
		if p.Matches(r) != c.want || p.String() != c.pattern {
			t.Errorf("%q and %q: %v, %q", c.pattern, c.reference, !c.want, p)
		}
	}
}

func TestPatternRefused(t *testing.T) {
	for text, want := range map[string]string{
		"":                                     "0 bytes",
		strings.Repeat("a", 513):               "513 bytes",
		"nginx":                                `names no registry; write "docker.io/library/nginx"`,
		"nginx:1.*":                            `names no registry; write "docker.io/library/nginx:1.*"`,
		"bitnami/*":                            `names no registry; write "docker.io/bitnami/*"`,
		"**":                                   `names no registry; write "docker.io/library/**"`,
		"docker.io/nginx":                      `would match nothing; write "docker.io/library/nginx"`,
		"docker.io/nginx:1":                    `would match nothing; write "docker.io/library/nginx:1"`,
		"index.docker.io/library/nginx":        `would match nothing; write "docker.io/library/nginx"`,
		"https://r.example.com/a":              "cannot match",
		"r.example.com/":                       "names no registry",
		"r.example.com//a":                     "cannot match a repository",
		"r.example.com/A":                      "cannot match a repository",
		"r.example.com/a/":                     "cannot match a repository",
		"r.example.com/***":                    "*** is unknown",
		"**.example.com/a":                     "** is for segments of the repository",
		"r.example.com/a:1:2":                  "cannot match a repository",
		"r.example.com/a:":                     "cannot match a tag",
		"r.example.com/a:**":                   "cannot match a tag",
		"r.example.com/a@":                     "cannot match a digest",
		"r.example.com/a@md5:*":                "cannot match a digest",
		"r.example.com/a@sha256:**":            "cannot match a digest",
		"r.example.com/a@sha256:A":             "cannot match a digest",
		"r.example.com/a b":                    "cannot match a repository",
		"r.example.com:port/a":                 "cannot match a registry",
		"UPPER/case":                           "names no registry",
		"r.example.com/a\n":                    "cannot match a repository",
		"r.example.com/[ab]":                   "cannot match a repository",
		"-r.example.com/a":                     "cannot match a registry",
		"docker.io/nginx@sha256:" + "0123456*": `write "docker.io/library/nginx@sha256:0123456*"`,
	} {
		_, err := ParsePattern(text)
		var bad *PatternError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
			continue
		}
		if bad.Proposal != "" {
			if _, err := ParsePattern(bad.Proposal); err != nil {
				t.Errorf("%q: the proposal is refused: %v", text, err)
			}
		}
	}
}

// FuzzPattern: a pattern without stars matches the reference that it is, and one that is accepted
// is made of what its text says.
func FuzzPattern(f *testing.F) {
	for _, s := range []string{
		"nginx", "r.example.com/a/b:1", "r.example.com:5000/**/c@sha256:*", "*/*", "docker.io/nginx", "r.example.com/***", "@:/", "a.b/c@*", "localhost/a:*",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePattern(text)
		if err != nil {
			var bad *PatternError
			if !errors.As(err, &bad) {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		if p.String() != text {
			t.Fatalf("%q became %q", text, p)
		}
		r, err := oci.ParseReference(text)
		if err == nil && !strings.Contains(text, "*") && !p.Matches(r) {
			t.Fatalf("%q does not match itself, %v", text, r)
		}
		if p.Matches(oci.Reference{Registry: "r\nexample.com", Repository: "a:b", Tag: "1"}) && !strings.HasPrefix(text, "*") {
			t.Fatalf("%q matches what is no reference", text)
		}
	})
}
