package trust_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sealift/sealift/internal/sigstore/sigtest"
	"github.com/sealift/sealift/internal/trust"
	"github.com/sealift/sealift/manifest"
)

func TestDescribe(t *testing.T) {
	w := newWorld(t)
	p := w.policy(t, `mediaType: application/vnd.sealift.policy.v1+yaml
trustedRoot: @root@
signers:
  vendor: {key: @vendor@}
  ci: {issuer: "https://ci.example", subjectRegExp: "https://git\\.example/.*"}
rules:
  - name: shop
    bundles: [shop, shop-*]
    groups: [{name: build, threshold: 2, signers: [vendor, ci]}, {root: acme}]
    transparencyLog: required
    signedTimestamp: required
    oldestVersion: 2.4.0
    maximumAge: 90d
    registries: [registry.example, "*.example/shop"]
    channels: [stable, beta]
    limits: {namespaces: [shop, shop-*], kinds: [Service], clusterScoped: false, namespacedKinds: [a.example/B], podSecurity: baseline}
  - name: tools
    bundles: [tools]
    maximumAge: 36h
    limits: {clusterScoped: true}
    groups: [{threshold: 1, signers: [vendor]}]
revoked: {digests: [`+rootDigest('0')+`], versions: [{name: shop, versions: [2.4.1, 2.4.2]}]}
allow: {key: true, unsigned: true}
`)
	got, err := json.MarshalIndent(p.Describe(), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	const revoked = `"not among the 2 digests and names that the policy revokes"`
	want := `{
 "digest": "` + p.Digest + `",
 "rules": [
  {
   "name": "shop",
   "bundles": [
    "shop",
    "shop-*"
   ],
   "groups": [
    {
     "name": "build",
     "threshold": 2,
     "signers": [
      "vendor: key sha256:` + w.vendor.pub.Fingerprint + `",
      "ci: identity https://git\\.example/.* by https://ci.example"
     ]
    },
    {
     "name": "group-2",
     "root": "acme"
    }
   ],
   "demands": [
    "channels stable, beta",
    "each signature is in a transparency log",
    "each signature has a signed timestamp",
    "version 2.4.0 or newer",
    "at most 90 days old when it is accepted for the first time",
    "images only from registry.example, *.example/shop",
    "only namespaces shop, shop-*",
    "only kinds Service",
    "no objects outside of namespaces",
    "of the custom kinds, only a.example/B count as within namespaces",
    "all pods meet the Pod Security Standard baseline",
    ` + revoked + `
   ]
  },
  {
   "name": "tools",
   "bundles": [
    "tools"
   ],
   "groups": [
    {
     "name": "group-1",
     "threshold": 1,
     "signers": [
      "vendor: key sha256:` + w.vendor.pub.Fingerprint + `"
     ]
    }
   ],
   "demands": [
    "at most 36h0m0s old when it is accepted for the first time",
    ` + revoked + `
   ]
  }
 ],
 "allows": [
  "--key and --policy instead of this policy",
  "--insecure-skip-signature"
 ]
}`
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if d := (&trust.Policy{}).Describe(); len(d.Rules) != 0 || d.Rules == nil || d.Allows != nil {
		t.Errorf("zero policy: %+v", d)
	}
}

// TestSimplePolicy: what 'sealift trust init' makes of flags reads as what was meant.
func TestSimplePolicy(t *testing.T) {
	_, pub := sigtest.NewKey(t)
	for name, c := range map[string]struct {
		simple trust.SimplePolicy
		groups int
	}{
		"key":   {trust.SimplePolicy{Bundles: []string{"shop", "shop-*", "*"}, Key: &pub}, 1},
		"roots": {trust.SimplePolicy{Bundles: []string{"shop"}, Roots: []string{"acme", "bolt"}}, 2},
		"both":  {trust.SimplePolicy{Bundles: []string{"shop"}, Key: &pub, Roots: []string{"acme"}}, 2},
	} {
		raw, err := c.simple.Encode()
		if err != nil {
			t.Fatal(err)
		}
		p, err := trust.ParsePolicy(name, raw)
		if err != nil {
			t.Fatalf("%v\n%s", err, raw)
		}
		r := p.Rules()
		if len(r) != 1 || !slices.Equal(r[0].Bundles(), c.simple.Bundles) || len(r[0].Groups) != c.groups || !slices.Equal(p.Roots(), c.simple.Roots) || p.AllowKey || p.AllowUnsigned {
			t.Errorf("%s: %+v\n%s", name, p, raw)
		}
	}
	for name, s := range map[string]trust.SimplePolicy{
		"nothing": {}, "no bundles": {Key: &pub}, "nobody": {Bundles: []string{"shop"}},
		"no name": {Bundles: []string{"shop: [a]\nallow: {unsigned: true}"}, Key: &pub}, "root twice": {Bundles: []string{"shop"}, Roots: []string{"acme", "acme"}},
	} {
		raw, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if p, err := trust.ParsePolicy(name, raw); err == nil {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

var yamlBlock = regexp.MustCompile("(?s)\n```yaml\n(.*?)\n```\n")

// TestPoliciesOfTheDocumentation: each policy in docs/trust.md is one, and the pieces that stand
// there alone go into rules.
func TestPoliciesOfTheDocumentation(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "..", "docs", "trust.md"))
	if err != nil {
		t.Fatal(err)
	}
	// In the documentation the place of a trusted root is taken by a line that says what goes there.
	const place = "  THE CONTENT OF trusted_root.json, IN ONE LINE"
	root := "  " + strings.Join(strings.Fields(allAuthorities(t, sigtest.New(t))), "")
	policies := 0
	for _, m := range yamlBlock.FindAllStringSubmatch(string(raw), -1) {
		text := strings.ReplaceAll(m[1], place, root) + "\n"
		if !strings.HasPrefix(text, "mediaType: ") {
			t.Errorf("a block is no whole policy:\n%s", text)
			continue
		}
		policies++
		p, err := trust.ParsePolicy("docs/trust.md", []byte(text))
		if err != nil {
			t.Errorf("%v\n%s", err, text)
			continue
		}
		for _, r := range p.Rules() {
			for _, pattern := range r.Bundles() {
				if manifest.CheckName(strings.ReplaceAll(pattern, "*", "x")) != nil {
					t.Errorf("bundles %q", pattern)
				}
			}
		}
	}
	if policies < 5 {
		t.Errorf("%d policies", policies)
	}
	// Every key of a policy is explained.
	for _, key := range []string{
		"mediaType", "trustedRoot", "signers", "key", "issuer", "issuerRegExp", "subject", "subjectRegExp", "rules", "name", "bundles", "groups", "threshold",
		"root", "transparencyLog", "signedTimestamp", "oldestVersion", "maximumAge", "registries", "channels", "limits", "namespaces", "kinds", "clusterScoped",
		"namespacedKinds", "podSecurity", "revoked", "digests", "versions", "allow", "unsigned",
	} {
		if !regexp.MustCompile("(?m)^\\| [^|]*`" + key + "`").Match(raw) {
			t.Errorf("no row of a table is about %s", key)
		}
	}
}
