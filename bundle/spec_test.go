package bundle

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
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
	f.Add([]byte("apiVersion: sealift/v1\nkind: Bundle\nname: a\nversion: 1.0.0\nexpires: 2027-12-31\nverify: [{match: r.example.com/*, key: k}]\nimages: [{ref: r.example.com/a:1, verify: {key: k}, referrers: drop}]\n"))
	f.Add([]byte("images: &x\n- ref: 1\ncharts: *x\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, problems := parseSpec(b)
		if len(problems) == 0 && (s == nil || s.Name == "" || len(s.Platforms) == 0 || len(s.Images)+len(s.Charts) == 0) {
			t.Fatalf("accepted %q as %+v", b, s)
		}
	})
}

// TestDemandsOfASpec: what cannot be meant is told with its line, before any file is read.
func TestDemandsOfASpec(t *testing.T) {
	head := "apiVersion: sealift/v1\nkind: Bundle\nname: a\nversion: 1.0.0\n"
	image := "images: [{ref: r.example.com/a:1%s}]\n"
	for lines, want := range map[string]string{
		fmt.Sprintf(image, ", verify: {key: k}"):                                                 "",
		fmt.Sprintf(image, ", verify: [{key: k}, {key: l}]"):                                     "",
		fmt.Sprintf(image, ", verify: {issuer: i, subject: s, trustedRoot: t}"):                  "",
		fmt.Sprintf(image, ", verify: {issuerRegExp: i, subjectRegExp: s, trustedRoot: t}"):      "",
		fmt.Sprintf(image, ", verify: {kye: k}"):                                                 `unknown key "kye"`,
		fmt.Sprintf(image, ", verify: [{kye: k}]"):                                               `unknown key "images[0].verify[0].kye"`,
		fmt.Sprintf(image, ", verify: {key: k, key: l}"):                                         "already defined",
		fmt.Sprintf(image, ", verify: k"):                                                        "cannot unmarshal",
		fmt.Sprintf(image, ", verify: {}"):                                                       "either a key, or issuer",
		fmt.Sprintf(image, ", verify: [{key: k, issuer: i}]"):                                    "either a key, or issuer",
		fmt.Sprintf(image, ", verify: {key: k, trustedRoot: t}"):                                 "a key needs no trustedRoot",
		fmt.Sprintf(image, ", verify: {issuer: i, trustedRoot: t}"):                              "subject: exactly one of",
		fmt.Sprintf(image, ", verify: {issuer: i, issuerRegExp: i, subject: s, trustedRoot: t}"): "issuer: exactly one of",
		fmt.Sprintf(image, ", verify: {issuer: i, subject: 's**', trustedRoot: t}"):              "stays within its segment",
		fmt.Sprintf(image, ", verify: {issuer: i, subjectRegExp: '(', trustedRoot: t}"):          "not a usable pattern",
		fmt.Sprintf(image, ", verify: {issuer: i, subject: s}"):                                  "none is named",
		fmt.Sprintf(image, ", referrers: maybe"):                                                 `referrers "maybe" is none of carry, drop`,
		fmt.Sprintf(image, "") + "referrers: no\n":                                               "is none of carry, drop",
		fmt.Sprintf(image, "") + "verify: [{match: 'r.example.com/*', key: k}]\n":                "",
		fmt.Sprintf(image, "") + "verify: [{match: 'r.example.com:5000/*', key: k}]\n":           "",
		fmt.Sprintf(image, "") + "verify: [{match: 'r.example.com/a:1', key: k}]\n":              "names a tag or digest",
		fmt.Sprintf(image, "") + "verify: [{match: 'r.example.com/a@sha256:*', key: k}]\n":       "names a tag or digest",
		fmt.Sprintf(image, "") + "verify: [{key: k}]\n":                                          "match: empty",
		fmt.Sprintf(image, "") + "expires: 2027-12-31\n":                                         "",
		fmt.Sprintf(image, "") + "expires: 2027-12-31T12:00:00+02:00\n":                          "",
		fmt.Sprintf(image, "") + "expires: 31.12.2027\n":                                         "is neither a date",
		fmt.Sprintf(image, "") + "expires: 1969-12-31\n":                                         "expires",
	} {
		_, problems := parseSpec([]byte(head + lines))
		switch {
		case want == "" && len(problems) > 0:
			t.Errorf("%s: %v", lines, problems)
		case want != "" && (len(problems) != 1 || !strings.Contains(problems[0].Text, want) || problems[0].Line < 5):
			t.Errorf("%s: %v, want %q", lines, problems, want)
		}
	}
}

func TestExpiry(t *testing.T) {
	for text, want := range map[string]string{
		"":                          "",
		"2027-12-31":                "2027-12-31T23:59:59Z",
		"2027-12-31T12:00:00+02:00": "2027-12-31T10:00:00Z",
		"2027-12-31T12:00:00.9Z":    "2027-12-31T12:00:00Z",
	} {
		if got, err := expiry(text); err != nil || got != want {
			t.Errorf("%q: %q, %v, want %q", text, got, err, want)
		}
	}
}
