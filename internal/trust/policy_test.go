package trust_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sealift/sealift/internal/sigstore"
	"github.com/sealift/sealift/internal/sigstore/sigtest"
	"github.com/sealift/sealift/internal/trust"
	"github.com/sealift/sealift/manifest"
)

// Three public keys, of which nobody has the other halves.
const (
	keyOne = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEcCfkbLee7kjBCpRyxMUs8VL0KEpZ\nXWDmQsuTeG1z+Q0XrgaKcFMRHVOqWBI+t7lN+c7eC1SMoQxe9sHL3srnPA==\n-----END PUBLIC KEY-----\n"
	keyTwo = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE8UF1TeIOhBybNxQnAMevFZhfLk/o\nvjFMMtxS8O92/cITCagOHbKw7gNrYYkRDQoGPCtsvbhHDpwczsH1rDdEuA==\n-----END PUBLIC KEY-----\n"
	keyTri = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE6rZUo/nVtG74/IMW1mWHbVIn3IrX\nBNLzjbCjKwozGvFGl3qrcBmt5YRJaS1ZOU7U7QIG6cll+y5e5T3pxynfgA==\n-----END PUBLIC KEY-----\n"
)

// policyBase is a policy that is good; tests change what stands in it.
const policyBase = `mediaType: application/vnd.sealift.policy.v1+yaml
signers:
  vendor: {key: @1@}
  office: {key: @2@}
rules:
  - name: shop
    bundles: [shop]
    groups:
      - {name: vendor, threshold: 1, signers: [vendor]}
      - {name: office, threshold: 1, signers: [office]}
`

// policyKeyless is a good one with an identity.
const policyKeyless = `mediaType: application/vnd.sealift.policy.v1+yaml
trustedRoot: @root@
signers:
  ci: {issuer: "https://ci.example", subject: "https://git.example/acme/*"}
rules:
  - name: shop
    bundles: [shop]
    groups: [{threshold: 1, signers: [ci]}]
`

// fillPolicy puts keys, and a trusted root, into a policy, each in one line.
func fillPolicy(text, trustedRoot string) string {
	return strings.NewReplacer(
		"@1@", strconv.Quote(keyOne), "@2@", strconv.Quote(keyTwo), "@3@", strconv.Quote(keyTri), "@root@", "'"+trustedRoot+"'",
	).Replace(text)
}

// edit replaces parts of a policy, each of which is there exactly once.
func edit(t testing.TB, text string, pairs ...string) string {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if n := strings.Count(text, pairs[i]); n != 1 {
			t.Fatalf("%q is there %d times", pairs[i], n)
		}
		text = strings.Replace(text, pairs[i], pairs[i+1], 1)
	}
	return text
}

// rootGroups are n groups of as many roots.
func rootGroups(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "      - {root: vendor-%d}\n", i)
	}
	return b.String()
}

func mustPolicy(t testing.TB, text string) *trust.Policy {
	t.Helper()
	p, err := trust.ParsePolicy("policy.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// allAuthorities is a trusted root with every kind of authority.
func allAuthorities(t testing.TB, v *sigtest.Virtual) string {
	t.Helper()
	return string(v.TrustedRoot(t, sigtest.RootOptions{TSA: true, Log: true}))
}

func TestPolicySaysWhatItMeans(t *testing.T) {
	v := sigtest.New(t)
	text := fillPolicy(`mediaType: application/vnd.sealift.policy.v1+yaml
trustedRoot: @root@
signers:
  vendor: {key: @1@}
  office: {key: @2@}
  ci: {issuerRegExp: "https://ci\\.example", subject: "https://git.example/acme/*"}
rules:
  - name: shop
    bundles: [shop, shop-*]
    groups:
      - {name: build, threshold: 2, signers: [vendor, ci]}
      - {threshold: 1, signers: [office]}
      - {root: acme}
    transparencyLog: required
    signedTimestamp: required
    oldestVersion: 2.4.0
    maximumAge: 90d
    registries: [registry.example, "*.example:5000/shop"]
    limits:
      namespaces: [shop, shop-*]
      kinds: [Deployment, apps/StatefulSet]
      clusterScoped: false
      namespacedKinds: [monitoring.coreos.com/ServiceMonitor]
      podSecurity: restricted
  - name: tools
    bundles: [tools]
    maximumAge: 36h
    groups: [{threshold: 1, signers: [vendor]}]
revoked:
  digests: [sha256:`+strings.Repeat("0", 64)+`]
  versions:
    - {name: shop, versions: [2.4.1]}
    - {name: shop, channel: beta, versions: [3.0.0-rc.1]}
allow: {key: true, unsigned: true}
`, allAuthorities(t, v))
	p := mustPolicy(t, text)
	if p.Digest != manifest.Digest([]byte(text)) || p.Root == nil || !p.AllowKey || !p.AllowUnsigned {
		t.Errorf("digest %s, root %v, allowed %v %v", p.Digest, p.Root, p.AllowKey, p.AllowUnsigned)
	}
	want := trust.Revoked{
		Digests: []string{rootDigest('0')},
		Versions: []trust.RevokedVersions{
			{Name: "shop", Channel: "stable", Versions: []string{"2.4.1"}}, {Name: "shop", Channel: "beta", Versions: []string{"3.0.0-rc.1"}},
		},
	}
	if !reflect.DeepEqual(p.Revoked, want) {
		t.Errorf("revoked: got %v, want %v", p.Revoked, want)
	}
	if got := p.Roots(); !slices.Equal(got, []string{"acme"}) {
		t.Errorf("roots: %v", got)
	}
	r := p.Rules()[0]
	if !slices.Equal(r.Bundles(), []string{"shop", "shop-*"}) || !slices.Equal(r.Registries(), []string{"registry.example", "*.example:5000/shop"}) {
		t.Errorf("bundles %v, registries %v", r.Bundles(), r.Registries())
	}
	groups := []trust.Group{
		{Name: "build", Threshold: 2, Signers: []string{"vendor", "ci"}}, {Name: "group-2", Threshold: 1, Signers: []string{"office"}}, {Name: "group-3", Root: "acme"},
	}
	if !reflect.DeepEqual(r.Groups, groups) || !r.Log || !r.Timestamp || r.Oldest != "2.4.0" || r.MaximumAge != 90*24*time.Hour {
		t.Errorf("rule: %+v", r)
	}
	no := false
	limits := trust.Limits{
		Namespaces: []string{"shop", "shop-*"}, Kinds: []string{"Deployment", "apps/StatefulSet"}, ClusterScoped: &no,
		NamespacedKinds: []string{"monitoring.coreos.com/ServiceMonitor"}, PodSecurity: "restricted",
	}
	if !reflect.DeepEqual(r.Limits, limits) || r.Limits.Empty() {
		t.Errorf("limits: %+v", r.Limits)
	}
	tools := p.Rules()[1]
	if tools.MaximumAge != 36*time.Hour || tools.Log || tools.Timestamp || tools.Oldest != "" || !tools.Limits.Empty() || len(tools.Registries()) > 0 {
		t.Errorf("rule: %+v", tools)
	}
}

// TestPolicyErrors: whatever is empty, contradicts itself, or could be read in two ways is refused,
// with its line.
func TestPolicyErrors(t *testing.T) {
	v := sigtest.New(t)
	root := allAuthorities(t, v)
	noLog, noStamps := string(v.TrustedRoot(t, sigtest.RootOptions{TSA: true})), string(v.TrustedRoot(t, sigtest.RootOptions{Log: true}))
	nobody := `{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`
	base := func(pairs ...string) string { return edit(t, policyBase, pairs...) }
	keyless := func(pairs ...string) string { return edit(t, policyKeyless, pairs...) }
	media := "mediaType: application/vnd.sealift.policy.v1+yaml\n"
	rest := strings.TrimPrefix(policyBase, media)
	group := "{name: vendor, threshold: 1, signers: [vendor]}"
	from := func(mark string) string {
		_, rest, _ := strings.Cut(policyBase, mark)
		return mark + rest
	}
	rule := func(line string) string { return base("    groups:\n", "    "+line+"\n    groups:\n") }
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "p: is empty"},
		{"only a comment", "# nothing\n", "p: is empty"},
		{"null", "---\n", "p:2: the document is not a mapping of keys to values"},
		{"a list", "- mediaType: x\n", "p:1: the document is not a mapping of keys to values"},
		{"a text", "policy\n", "p:1: the document is not a mapping of keys to values"},
		{"no YAML", "{", "p:1: did not find expected node content"},
		{"only the media type", media, "p:1: has no rules: no bundle could be accepted"},
		{"no media type", rest, "p:1: the first key is not mediaType: application/vnd.sealift.policy.v1+yaml"},
		{"media type not first", rest + media, "p:1: the first key is not mediaType: application/vnd.sealift.policy.v1+yaml"},
		{"another media type", base("policy.v1", "policy.v2"), "p:1: the first key is not mediaType: application/vnd.sealift.policy.v1+yaml"},
		{"a root", `{"mediaType":"application/vnd.sealift.signed-root.v1+json","root":"","signatures":[]}`, "p:1: the first key is not mediaType: application/vnd.sealift.policy.v1+yaml"},
		{"two documents", policyBase + "---\n" + policyBase, "p:11: holds more than one document"},
		{"control character", base("name: shop", "name: \"sh\x00op\""), "p: control characters are not allowed"},
		{"escaped control character", base("name: shop", `name: "sh\0op"`), "p:6: rules[0]: name \"sh\\x00op\" is not made of lower-case letters, digits and dashes (at most 63, no dash at either end)"},
		{"escape sequence", base("name: shop", `name: "\e[2Jshop"`), "p:6: rules[0]: name \"\\x1b[2Jshop\" is not made of lower-case letters, digits and dashes (at most 63, no dash at either end)"},
		{"not UTF-8", base("name: shop", "name: \"\xff\""), "p: invalid leading UTF-8 octet"},

		{"unknown key", policyBase + "allowed: {key: true}\n", `p:11: unknown key "allowed" (did you mean allow?); known here: mediaType, trustedRoot, signers, rules, revoked, allow`},
		{"other case", base("bundles:", "Bundles:"), `p:7: unknown key "rules[0].Bundles" (did you mean bundles?); known here: name, bundles, groups, transparencyLog, signedTimestamp, oldestVersion, maximumAge, registries, channels, limits`},
		{"look-alike key", base("bundles:", "bund\u04cfes:"), "p:7: unknown key \"rules[0].bund\\u04cfes\" (did you mean bundles?); known here: name, bundles, groups, transparencyLog, signedTimestamp, oldestVersion, maximumAge, registries, channels, limits"},
		{"key twice", policyBase + "signers: {other: {key: @3@}}\n", `p:11: "signers" stands here for the second time, first on line 2`},
		{"signer twice", base("  office: {key: @2@}", "  vendor: {key: @2@}"), `p:4: "signers.vendor" stands here for the second time, first on line 3`},
		{"key twice in a signer", base("vendor: {key: @1@}", "vendor: {key: @1@, key: @3@}"), `p:3: "signers.vendor.key" stands here for the second time, first on line 3`},
		{"anchor", base("bundles: [shop]", "bundles: &b [shop]"), "p:7: rules[0].bundles has the anchor &b; aliases are not read, leave it out"},
		{"alias", base("bundles: [shop]", "bundles: *b"), "p: unknown anchor 'b' referenced"},
		{"anchor and alias", base("vendor: {key: @1@}", "vendor: {key: &k @1@}", "office: {key: @2@}", "office: {key: *k}"), "p:3: signers.vendor.key has the anchor &k; aliases are not read, leave it out\np:4: signers.office.key is an alias; write it out"},
		{"merge key", base("vendor: {key: @1@}", "<<: {vendor: {key: @1@}}"), "p:3: signers merges another mapping (<<); write it out"},
		{"merged list", base("vendor: {key: @1@}", "<<: [{vendor: {key: @1@}}]"), "p:3: signers merges another mapping (<<); write it out"},
		{"binary", base("name: shop", "name: !!binary c2hvcA=="), "p:6: rules[0].name has the tag !!binary; leave that out"},
		{"tag", base("threshold: 1, signers: [vendor]", "threshold: !!int \"1\", signers: [vendor]"), `p:9: rules[0].groups[0].threshold has the tag !!int; leave that out`},
		{"list as a key", base("  vendor: {key", "  ? [a, b]\n  : {key: x}\n  vendor: {key"), "p:3: a key in signers is no text"},

		{"threshold as text", base(group, `{name: vendor, threshold: "1", signers: [vendor]}`), `p:9: rules[0].groups[0].threshold: "1" is not a whole number in plain digits`},
		{"threshold 1.0", base(group, "{name: vendor, threshold: 1.0, signers: [vendor]}"), `p:9: rules[0].groups[0].threshold: "1.0" is not a whole number in plain digits`},
		{"threshold 1.9", base(group, "{name: vendor, threshold: 1.9, signers: [vendor]}"), `p:9: rules[0].groups[0].threshold: "1.9" is not a whole number in plain digits`},
		{"threshold 0x1", base(group, "{name: vendor, threshold: 0x1, signers: [vendor]}"), `p:9: rules[0].groups[0].threshold: "0x1" is not a whole number in plain digits`},
		{"threshold 01", base(group, "{name: vendor, threshold: 01, signers: [vendor]}"), `p:9: rules[0].groups[0].threshold: "01" is not a whole number in plain digits`},
		{"threshold 0o1", base(group, "{name: vendor, threshold: 0o1, signers: [vendor]}"), `p:9: rules[0].groups[0].threshold: "0o1" is not a whole number in plain digits`},
		{"threshold 0b1", base(group, "{name: vendor, threshold: 0b1, signers: [vendor]}"), `p:9: rules[0].groups[0].threshold: "0b1" is not a whole number in plain digits`},
		{"threshold +1", base(group, "{name: vendor, threshold: +1, signers: [vendor]}"), `p:9: rules[0].groups[0].threshold: "+1" is not a whole number in plain digits`},
		{"threshold 1e0", base(group, "{name: vendor, threshold: 1e0, signers: [vendor]}"), `p:9: rules[0].groups[0].threshold: "1e0" is not a whole number in plain digits`},
		{"threshold 1_0", base(group, "{name: vendor, threshold: 1_0, signers: [vendor]}"), `p:9: rules[0].groups[0].threshold: "1_0" is not a whole number in plain digits`},
		{"threshold null", base(group, "{name: vendor, threshold: ~, signers: [vendor]}"), "p:9: rules[0].groups[0].threshold is empty; leave it out, or say what is meant"},
		{"threshold true", base(group, "{name: vendor, threshold: true, signers: [vendor]}"), `p:9: rules[0].groups[0].threshold: "true" is not a whole number in plain digits`},
		{"threshold 0", base(group, "{name: vendor, threshold: 0, signers: [vendor]}"), `p:6: rule "shop": group "vendor": threshold 0 is not from 1 to 32`},
		{"threshold -1", base(group, "{name: vendor, threshold: -1, signers: [vendor]}"), `p:6: rule "shop": group "vendor": threshold -1 is not from 1 to 32`},
		{"threshold 33", base(group, "{name: vendor, threshold: 33, signers: [vendor]}"), `p:6: rule "shop": group "vendor": threshold 33 is not from 1 to 32`},
		{"threshold 2 of 1", base(group, "{name: vendor, threshold: 2, signers: [vendor]}"), `p:6: rule "shop": group "vendor": threshold 2, of 1 signers`},
		{"giant threshold", base(group, "{name: vendor, threshold: 18446744073709551617, signers: [vendor]}"), `p:9: rules[0].groups[0].threshold: "18446744073709551617" is not a whole number in plain digits`},
		{"no threshold", base(group, "{name: vendor, signers: [vendor]}"), `p:6: rule "shop": group "vendor": threshold 0 is not from 1 to 32`},
		{"allow: yes", policyBase + "allow: {key: yes}\n", `p:11: allow.key: "yes" is neither true nor false`},
		{"allow: \"true\"", policyBase + "allow: {key: \"true\"}\n", `p:11: allow.key: "true" is neither true nor false`},
		{"allow: True", policyBase + "allow: {key: True}\n", `p:11: allow.key: "True" is neither true nor false`},
		{"allow: 1", policyBase + "allow: {unsigned: 1}\n", `p:11: allow.unsigned: "1" is neither true nor false`},
		{"allow: on", policyBase + "allow: {unsigned: on}\n", `p:11: allow.unsigned: "on" is neither true nor false`},
		{"clusterScoped: no", rule("limits: {clusterScoped: no}"), `p:8: rules[0].limits.clusterScoped: "no" is neither true nor false`},
		{"text for a list", rule("registries: registry.example"), "p:8: rules[0].registries is not a list"},
		{"list for a text", rule("oldestVersion: [1.0.0]"), "p:8: rules[0].oldestVersion is not a text"},

		{"empty registries", rule("registries: []"), "p:8: rules[0].registries is empty; leave it out, or say what is meant"},
		{"registries without a value", rule("registries:"), "p:8: rules[0].registries is empty; leave it out, or say what is meant"},
		{"registries of nothing", rule("registries: [~]"), "p:8: rules[0].registries[0] is empty; leave it out, or say what is meant"},
		{"empty limits", rule("limits: {}"), "p:8: rules[0].limits is empty; leave it out, or say what is meant"},
		{"empty namespaces", rule("limits: {namespaces: []}"), "p:8: rules[0].limits.namespaces is empty; leave it out, or say what is meant"},
		{"empty kinds", rule("limits: {kinds: []}"), "p:8: rules[0].limits.kinds is empty; leave it out, or say what is meant"},
		{"empty age", rule(`maximumAge: ""`), "p:8: rules[0].maximumAge is empty; leave it out, or say what is meant"},
		{"empty revocations", policyBase + "revoked: {digests: [], versions: []}\n", "p:11: revoked.digests is empty; leave it out, or say what is meant\np:11: revoked.versions is empty; leave it out, or say what is meant"},
		{"no signers", base("signers: [vendor]", "signers: []"), "p:9: rules[0].groups[0].signers is empty; leave it out, or say what is meant"},

		{"no rules", base(from("rules:"), ""), "p:1: has no rules: no bundle could be accepted"},
		{"empty rules", base(from("rules:"), "rules: []\n"), "p:5: rules is empty; leave it out, or say what is meant"},
		{"rule without a name", base("name: shop\n    bundles", "bundles"), `p:6: rules[0]: name "" is not made of lower-case letters, digits and dashes (at most 63, no dash at either end)`},
		{"rule twice", policyBase + "  - {name: shop, bundles: [tools], groups: [{threshold: 1, signers: [vendor]}]}\n", `p:11: rule "shop": stands twice`},
		{"rule without bundles", base("    bundles: [shop]\n", ""), `p:6: rule "shop": is for no bundles: name them under bundles`},
		{"rule without groups", base(from("    groups:"), ""), "p:6: rule \"shop\": 0 groups, 1 to 16 are wanted\np:3: signer \"office\" is in no group\np:3: signer \"vendor\" is in no group"},
		{"bundle in two rules", policyBase + "  - {name: other, bundles: [shop], groups: [{threshold: 1, signers: [vendor]}]}\n", `p:11: rule "other": bundle "shop" is that of rule "shop" already, and exactly one rule must match`},
		{"bundle twice in a rule", base("[shop]", "[shop, shop]"), `p:6: rule "shop": bundle "shop" is that of rule "shop" already, and exactly one rule must match`},
		{"capital letter", base("[shop]", "[Shop]"), `p:6: rule "shop": bundles: no name is like "Shop": they are made of lower-case letters, digits and dashes`},
		{"Kelvin sign", base("[shop]", "[\u212a8s]"), "p:6: rule \"shop\": bundles: no name is like \"\\u212a8s\": they are made of lower-case letters, digits and dashes"},
		{"Cyrillic letter in a pattern", base("[shop]", "[\"sh\u043ep-*\"]"), "p:6: rule \"shop\": bundles: no name is like \"sh\\u043ep-*\": they are made of lower-case letters, digits and dashes"},
		{"two stars", base("[shop]", "[\"shop**\"]"), `p:6: rule "shop": bundles: "shop**": ** is unknown, a * stays within its segment: not a usable pattern`},
		{"dash at the end", base("[shop]", "[\"shop-\"]"), `p:6: rule "shop": bundles: no name is like "shop-": they are made of lower-case letters, digits and dashes`},
		{"blank in a pattern", base("[shop]", "[\"shop *\"]"), `p:6: rule "shop": bundles: no name is like "shop *": they are made of lower-case letters, digits and dashes`},
		{"too many groups", base("      - "+group, rootGroups(16)+"      - "+group), `p:6: rule "shop": 18 groups, 1 to 16 are wanted`},

		{"unknown signer", base("signers: [office]", "signers: [office, nobody]"), `p:6: rule "shop": group "office": signer "nobody" is not among the signers`},
		{"signer in two groups", base("signers: [office]", "signers: [office, vendor]"), `p:6: rule "shop": signer "vendor" is in the groups "vendor" and "office": one signature would count for both`},
		{"signer twice in a group", base("signers: [vendor]", "signers: [vendor, vendor]"), `p:6: rule "shop": signer "vendor" is in the groups "vendor" and "vendor": one signature would count for both`},
		{"signers in no group", base("  office: {key: @2@}", "  z: {key: @2@}\n  b: {key: @3@}", "\n      - {name: office, threshold: 1, signers: [office]}", ""), "p:3: signer \"b\" is in no group\np:3: signer \"z\" is in no group"},
		{"group twice", base("name: office,", "name: vendor,"), `p:6: rule "shop": group "vendor" stands twice`},
		{"group with a bad name", base("name: office,", "name: Office,"), `p:6: rule "shop": groups: name "Office" is not made of lower-case letters, digits and dashes (at most 63, no dash at either end)`},
		{"root and signers", base(group, "{name: vendor, root: acme, signers: [vendor]}"), "p:6: rule \"shop\": group \"vendor\": root \"acme\" says who the signers are, and how many are needed: neither signers nor threshold beside it\np:3: signer \"vendor\" is in no group"},
		{"root and threshold", base(group, "{name: vendor, root: acme, threshold: 1}"), "p:6: rule \"shop\": group \"vendor\": root \"acme\" says who the signers are, and how many are needed: neither signers nor threshold beside it\np:3: signer \"vendor\" is in no group"},
		{"root with a bad name", base("      - {name: office", "      - {root: ../acme}\n      - {name: office"), `p:6: rule "shop": group "group-2": root: name "../acme" is not made of lower-case letters, digits and dashes (at most 63, no dash at either end)`},
		{"root twice", base("      - {name: office", "      - {root: acme}\n      - {root: acme}\n      - {name: office"), `p:6: rule "shop": root "acme" is in the groups "group-2" and "group-3"`},

		{"one key under two names", base("office: {key: @2@}", "office: {key: @1@}"), `p:3: signers "office" and "vendor" are the same one`},
		{"signer of nothing", base("office: {key: @2@}", "office: {}"), "p:4: signers.office is empty; leave it out, or say what is meant"},
		{"signer with a bad name", base("  office: {key: @2@}", "  Office: {key: @2@}"), "p:3: signers: name \"Office\" is not made of lower-case letters, digits and dashes (at most 63, no dash at either end)\np:6: rule \"shop\": group \"office\": signer \"office\" is not among the signers"},
		{"no key", base("{key: @2@}", "{key: office.pub}"), `p:3: signer "office": reading public key: no PEM block: not a usable key`},
		{"key and identity", base("{key: @2@}", `{key: @2@, subject: "a@b.example"}`), `p:3: signer "office": is both a key and an identity`},
		{"identity without a trusted root", base("{key: @2@}", `{issuer: "https://ci.example", subject: "a@b.example"}`), `p:3: signer "office" is an identity, which cannot be proven without a trustedRoot`},
		{"bad trusted root", keyless("@root@", "'{}'"), "p:2: trustedRoot: reading trusted root: not a usable trusted root: unsupported TrustedRoot media type: "},
		{"trusted root that certifies nobody", keyless("@root@", "'"+nobody+"'"), `p:4: signer "ci" is an identity, and the trustedRoot names no authority that certifies any`},
		{"no issuer", keyless(`issuer: "https://ci.example", `, ""), `p:4: signer "ci": is neither a key (PEM) nor an identity: issuer: exactly one of issuer and issuerRegExp is wanted: not a usable pattern`},
		{"two subjects", keyless(`}`+"\nrules", `, subjectRegExp: ".*"}`+"\nrules"), `p:4: signer "ci": is neither a key (PEM) nor an identity: subject: exactly one of subject and subjectRegExp is wanted: not a usable pattern`},
		{"bad regular expression", keyless(`subject: "https://git.example/acme/*"`, `subjectRegExp: "("`), "p:4: signer \"ci\": is neither a key (PEM) nor an identity: subject: \"(\": not a usable pattern: error parsing regexp: missing closing ): `(`"},
		{"regular expression out of its anchors", keyless(`subject: "https://git.example/acme/*"`, `subjectRegExp: "a)|(?:b"`), "p:4: signer \"ci\": is neither a key (PEM) nor an identity: subject: \"a)|(?:b\": not a usable pattern: error parsing regexp: unexpected ): `a)|(?:b`"},
		{"one identity under two names", keyless("rules:", "  again: {issuer: \"https://ci.example\", subject: \"https://git.example/acme/*\"}\nrules:", "signers: [ci]", "signers: [ci, again]"), `p:4: signers "again" and "ci" are the same one`},

		{"log without a trusted root", rule("transparencyLog: required"), `p:6: rule "shop": transparencyLog cannot be proven without a trustedRoot`},
		{"timestamp without a trusted root", rule("signedTimestamp: required"), `p:6: rule "shop": signedTimestamp cannot be proven without a trustedRoot`},
		{"log that the trusted root has not", keyless("@root@", "'"+noLog+"'", "    groups", "    transparencyLog: required\n    groups"), `p:6: rule "shop": transparencyLog cannot be proven: the trustedRoot names no authority for it`},
		{"timestamp that the trusted root has not", keyless("@root@", "'"+noStamps+"'", "    groups", "    signedTimestamp: required\n    groups"), `p:6: rule "shop": signedTimestamp cannot be proven: the trustedRoot names no authority for it`},
		{"log: optional", keyless("    groups", "    transparencyLog: optional\n    groups"), `p:6: rule "shop": transparencyLog: "optional" is not required, and nothing else is known`},
		{"log: true", keyless("    groups", "    transparencyLog: true\n    groups"), `p:6: rule "shop": transparencyLog: "true" is not required, and nothing else is known`},

		{"channel", rule("channels: [Beta]"), `p:6: rule "shop": channels: name "Beta" is not made of lower-case letters, digits and dashes (at most 63, no dash at either end)`},
		{"pattern of channels", rule("channels: [\"*\"]"), `p:6: rule "shop": channels: name "*" is not made of lower-case letters, digits and dashes (at most 63, no dash at either end)`},
		{"no channel", rule("channels: []"), `p:8: rules[0].channels is empty; leave it out, or say what is meant`},
		{"version", rule("oldestVersion: v1.0"), `p:6: rule "shop": oldestVersion: version "v1.0" is not a semantic version such as 1.2.3 or 1.2.3-rc.1`},
		{"version as a number", rule("oldestVersion: 1.10"), `p:6: rule "shop": oldestVersion: version "1.10" is not a semantic version such as 1.2.3 or 1.2.3-rc.1`},
		{"age", rule("maximumAge: 90"), `p:6: rule "shop": maximumAge: "90" is not a positive number of days such as 90d`},
		{"negative age", rule("maximumAge: -1d"), `p:6: rule "shop": maximumAge: "-1d" is not a positive number of days such as 90d`},
		{"no age", rule("maximumAge: 0d"), `p:6: rule "shop": maximumAge: "0d" is not a positive number of days such as 90d`},
		{"giant age", rule("maximumAge: 99999999999d"), `p:6: rule "shop": maximumAge: "99999999999d" is not a positive number of days such as 90d`},
		{"scheme", rule(`registries: ["https://registry.example"]`), `p:6: rule "shop": registries: "https://registry.example" is not written as HOST[:PORT][/PATH], without a scheme or a tag`},
		{"tagged registry", rule(`registries: ["registry.example/shop:1"]`), `p:6: rule "shop": registries: "registry.example/shop:1" is not written as HOST[:PORT][/PATH], without a scheme or a tag`},
		{"slash at the end", rule(`registries: ["registry.example/"]`), `p:6: rule "shop": registries: "registry.example/" is not written as HOST[:PORT][/PATH], without a scheme or a tag`},
		{"slash at the beginning", rule(`registries: ["/registry.example"]`), `p:6: rule "shop": registries: "/registry.example" is not written as HOST[:PORT][/PATH], without a scheme or a tag`},
		{"at sign", rule(`registries: ["registry.example@evil.example"]`), `p:6: rule "shop": registries: "registry.example@evil.example" is not written as HOST[:PORT][/PATH], without a scheme or a tag`},
		{"look-alike registry", rule("registries: [\"regi\u0455try.example\"]"), "p:6: rule \"shop\": registries: \"regi\\u0455try.example\" is not written as HOST[:PORT][/PATH], without a scheme or a tag"},
		{"any path", rule(`registries: ["registry.example/**"]`), `p:6: rule "shop": registries: "registry.example/**": ** is unknown, a * stays within its segment: not a usable pattern`},
		{"pod security", rule("limits: {podSecurity: Restricted}"), `p:6: rule "shop": limits: podSecurity "Restricted" is none of privileged, baseline, restricted`},
		{"namespace", rule("limits: {namespaces: [Shop]}"), `p:6: rule "shop": limits: namespaces: no name is like "Shop": they are made of lower-case letters, digits and dashes`},
		{"kind", rule("limits: {kinds: [apps/v1/Deployment, \"*\"]}"), "p:6: rule \"shop\": limits: kind \"apps/v1/Deployment\" is not KIND or GROUP/KIND\np:6: rule \"shop\": limits: kind \"*\" is not KIND or GROUP/KIND"},
		{"namespaced kinds", rule("limits: {namespacedKinds: [a.example/B]}"), `p:6: rule "shop": limits: namespacedKinds mean something only beside clusterScoped: false`},

		{"revoked digest", policyBase + "revoked: {digests: [\"SHA256:00\"]}\n", `p:11: revoked: digest "SHA256:00" is not sha256: and 64 lower-case hex digits`},
		{"revoked name", policyBase + "revoked: {versions: [{name: \"shop*\", versions: [1.0.0]}]}\n", `p:11: revoked: name "shop*" is not made of lower-case letters, digits and dashes (at most 63, no dash at either end)`},
		{"revoked version", policyBase + "revoked: {versions: [{name: shop, versions: [\"1.*\"]}]}\n", `p:11: revoked: version "1.*" is not a semantic version such as 1.2.3 or 1.2.3-rc.1`},
		{"revoked channel", policyBase + "revoked: {versions: [{name: shop, channel: Stable, versions: [1.0.0]}]}\n", `p:11: revoked: malformed channel "Stable" of "shop"`},
		{"no revoked version", policyBase + "revoked: {versions: [{name: shop}]}\n", `p:11: revoked: no versions of "shop"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := trust.ParsePolicy("p", []byte(fillPolicy(c.text, root)))
			var e *trust.PolicyError
			if !errors.As(err, &e) || p != nil {
				t.Fatalf("got %v and %v, want a *PolicyError and no policy", p, err)
			}
			if err.Error() != c.want {
				t.Errorf("CASE %q\ngot  %q\nwant %q", c.name, err.Error(), c.want)
			}
		})
	}
}

func TestPolicyIsBounded(t *testing.T) {
	signers := func(n int) string {
		var b strings.Builder
		b.WriteString("mediaType: application/vnd.sealift.policy.v1+yaml\ntrustedRoot: @root@\nsigners:\n")
		names := make([]string, 0, n)
		for i := range n {
			fmt.Fprintf(&b, "  s%d: {issuer: i, subject: s%d}\n", i, i)
			names = append(names, fmt.Sprintf("s%d", i))
		}
		fmt.Fprintf(&b, "rules: [{name: a, bundles: [a], groups: [{threshold: 1, signers: [%s]}]}]\n", strings.Join(names, ", "))
		return b.String()
	}
	rules := func(n int) string {
		b := strings.Builder{}
		b.WriteString("mediaType: application/vnd.sealift.policy.v1+yaml\nsigners: {vendor: {key: @1@}}\nrules:\n")
		for i := range n {
			fmt.Fprintf(&b, "  - {name: r%d, bundles: [b%d], groups: [{threshold: 1, signers: [vendor]}]}\n", i, i)
		}
		return b.String()
	}
	padded := func(n int) string { return policyBase + "#" + strings.Repeat("x", n) }
	filled := len(fillPolicy(padded(0), ""))
	for name, c := range map[string]struct{ text, want string }{
		"as many signers as may be": {signers(256), ""},
		"too many signers":          {signers(257), "p:4: 257 signers, at most 256 are allowed"},
		"as many rules as may be":   {rules(256), ""},
		"too many rules":            {rules(257), "p:4: 257 rules, at most 256 are allowed"},
		"as many groups as may be":  {edit(t, policyBase, "      - {name: vendor", rootGroups(14)+"      - {name: vendor"), ""},
		"as large as may be":        {padded(trust.MaxPolicyBytes - filled), ""},
		"too large":                 {padded(trust.MaxPolicyBytes - filled + 1), "p: more than 1048576 bytes"},
		"nested deeply":             {policyBase + "allow: " + strings.Repeat("[", 9000), "p:11: did not find expected node content"},
		"nested more deeply":        {policyBase + "allow: " + strings.Repeat("[", 20000), "p:11: exceeded max depth of 10000"},
		"lists in lists":            {policyBase + "allow: " + strings.Repeat("[", 9000) + strings.Repeat("]", 9000), "p:11: allow is not a mapping of keys to values"},
		"long pattern":              {edit(t, policyBase, "[shop]", "["+strings.Repeat("s", 1025)+"]"), `p:6: rule "shop": bundles: 1025 bytes, at most 1024 are allowed: not a usable pattern`},
	} {
		t.Run(name, func(t *testing.T) {
			root := ""
			if strings.Contains(c.text, "@root@") {
				root = allAuthorities(t, sigtest.New(t))
			}
			_, err := trust.ParsePolicy("p", []byte(fillPolicy(c.text, root)))
			if got := fmt.Sprint(err); (err == nil) != (c.want == "") || err != nil && !strings.HasPrefix(got, c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// TestPolicyTrustedRootOfTheVendor: what a rule demands may be proven with a trusted root that the
// vendor's root carries, so that the site needs none of its own.
func TestPolicyTrustedRootOfTheVendor(t *testing.T) {
	mustPolicy(t, `mediaType: application/vnd.sealift.policy.v1+yaml
rules: [{name: a, bundles: [a], groups: [{root: acme}], signedTimestamp: required}]
`)
}

// TestMatchName: a star stays between dashes, and never stands for nothing.
func TestMatchName(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"shop", "shop", true},
		{"shop", "shop-evil", false},
		{"shop", "evil-shop", false},
		{"shop", "SHOP", false},
		{"shop", "shop\n", false},
		{"shop", "shop\x00", false},
		{"shop", "", false},
		{"shop*", "shop2", true},
		{"shop*", "shop", false},
		{"shop*", "shop-evil", false},
		{"shop*", "shop2-evil", false},
		{"shop-*", "shop-web", true},
		{"shop-*", "shop-", false},
		{"shop-*", "shop", false},
		{"shop-*", "shop-web-evil", false},
		{"shop-*-*", "shop-web-eu", true},
		{"shop-*-*", "shop--eu", false},
		{"*", "shop", true},
		{"*", "shop-web", false},
		{"*", "", false},
		{"*-*", "shop-web", true},
		{"s*p", "shop", true},
		{"s*p", "sp", false},
		{"s*p", "sho-p", false},
		{"shop*", "shop\n2", false},
		{"shop*", "shop2\n", false},
		{"k8s", "\u212a8s", false},
		{"k*", "\u212a8s", false},
		{"shop", "sh\u043ep", false},
		{"s.op", "shop", false},
		{"(shop|web)", "shop", false},
		{"", "", false},
		{"", "shop", false},
		{"**", "shop", false},
	} {
		if got := trust.MatchName(c.pattern, c.name); got != c.want {
			t.Errorf("%q, %q: got %v, want %v", c.pattern, c.name, got, c.want)
		}
	}
}

// TestPolicyRuleForABundle: exactly one rule has to be for a bundle.
func TestPolicyRuleForABundle(t *testing.T) {
	p := mustPolicy(t, fillPolicy(edit(t, policyBase, "[shop]", "[shop, shop-*]")+
		"  - {name: web, bundles: [shop-web, \"*-web\"], groups: [{threshold: 1, signers: [vendor]}]}\n", ""))
	for name, want := range map[string][]string{
		"shop": {"shop"}, "shop-api": {"shop"}, "tools-web": {"web"}, "shop-web": {"shop", "web"},
		"shops": nil, "shop-api-evil": nil, "Shop": nil, "": nil, "sh\u043ep": nil, "shop\n": nil,
	} {
		rule, err := p.Rule(name)
		if len(want) == 1 {
			if err != nil || rule.Name != want[0] {
				t.Errorf("%q: got %v, %v, want rule %q", name, rule, err, want[0])
			}
			continue
		}
		var e *trust.RuleError
		if !errors.As(err, &e) || rule != nil || e.Bundle != name || !slices.Equal(e.Rules, want) {
			t.Errorf("%q: got %v, %v, want a *RuleError with %v", name, rule, err, want)
		}
	}
	_, err := p.Rule("shop-web")
	if got, want := fmt.Sprint(err), `2 rules of the site's policy are for bundle "shop-web", and exactly one must be: shop, web`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	_, err = p.Rule("evil")
	if got, want := fmt.Sprint(err), `no rule of the site's policy is for bundle "evil"`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestPolicyRegistries: a pattern stands for a registry, or for a path in one with all below it.
func TestPolicyRegistries(t *testing.T) {
	const tail = ":1@sha256:0000000000000000000000000000000000000000000000000000000000000000"
	for pattern, images := range map[string]map[string]bool{
		"registry.example": {
			"registry.example/x": true, "registry.example/x/y": true, "registry.example:443/x": false,
			"registry.example.evil/x": false, "evil/registry.example/x": false, "registry.example-evil/x": false, "a.registry.example/x": false,
			"evilregistry.example/x": false, "registryxexample/x": false, "Registry.example/x": false, "registry.example2/x": false,
		},
		"registry.example:5000": {
			"registry.example:5000/x": true, "registry.example/x": false, "registry.example:50001/x": false, "registry.example:500/x": false,
		},
		"registry.example:*": {"registry.example:5000/x": true, "registry.example/x": false},
		"registry.example/*": {
			"registry.example/x": true, "registry.example/x/y": true, "registry.example.evil/x": false, "evil/registry.example/x": false,
		},
		"registry.example/shop": {
			"registry.example/shop": true, "registry.example/shop/app": true, "registry.example/shop-evil": false, "registry.example/shop-evil/app": false,
			"registry.example/evil/shop": false, "registry.example/shop.evil": false, "registry.example:5000/shop": false,
		},
		// A dash is nothing special here, as it is in names of bundles.
		"registry.example/shop*": {
			"registry.example/shop-evil/app": true, "registry.example/shop2": true, "registry.example/shop": false, "registry.example/evil/shop2": false,
		},
		"registry.example/*/app": {"registry.example/shop/app/x": true, "registry.example/a/b/app": false, "registry.example/app": false},
		"*.example": {
			"registry.example/x": true, "a.registry.example/x": false, "registry.example.evil/x": false, "evil/registry.example/x": false,
			".example/x": false, "registry.example:5000/x": false,
		},
		"*": {"registry/x": true, "registry.example/x": false},
	} {
		p := mustPolicy(t, fillPolicy(edit(t, policyBase, "    groups:", "    registries: ["+strconv.Quote(pattern)+"]\n    groups:"), ""))
		for image, want := range images {
			for _, source := range []string{image, image + ":registry.example", image + tail} {
				err := p.Rules()[0].CheckContent(&manifest.Manifest{Channel: "stable", Images: []manifest.Image{{Source: source}}})
				var e *trust.ViolationError
				if (err == nil) != want || err != nil && !errors.As(err, &e) {
					t.Errorf("%q, %q: got %v, want %v", pattern, source, err, want)
				}
			}
		}
	}
}

// TestPolicyChannels: a rule is for the bundles of one channel, unless it names others.
func TestPolicyChannels(t *testing.T) {
	for line, want := range map[string]map[string]bool{
		"": {"stable": true, "beta": false, "": false, "Stable": false},
		"    channels: [beta, edge]\n    groups:": {"stable": false, "beta": true, "edge": true, "beta-2": false},
	} {
		text := policyBase
		if line != "" {
			text = edit(t, text, "    groups:", line)
		}
		rule := mustPolicy(t, fillPolicy(text, "")).Rules()[0]
		for channel, ok := range want {
			err := rule.CheckContent(&manifest.Manifest{Channel: channel})
			var e *trust.ViolationError
			if (err == nil) != ok || err != nil && !errors.As(err, &e) {
				t.Errorf("%q: channel %q: got %v, want %v", line, channel, err, ok)
			}
		}
	}
	_, pub := sigtest.NewKey(t)
	any, err := trust.KeyPolicy([]sigstore.PublicKey{pub}).DecideUnsigned("shop")
	if err != nil {
		t.Fatal(err)
	}
	if err := any.Rule.CheckContent(&manifest.Manifest{Channel: "beta"}); err != nil {
		t.Errorf("a key alone says nothing of channels: %v", err)
	}
}

func TestPolicyViolations(t *testing.T) {
	p := mustPolicy(t, fillPolicy(edit(t, policyBase, "    groups:", "    registries: [registry.example]\n    limits: {namespaces: [shop, \"shop-*\"]}\n    groups:"), ""))
	rule := p.Rules()[0]
	m := &manifest.Manifest{
		Channel: "stable",
		Images:  []manifest.Image{{Source: "registry.example/a:1"}, {Source: "evil.example/a:1"}},
		Charts:  []manifest.Chart{{Release: "a", Namespace: "shop"}, {Release: "b", Namespace: "shop-eu"}, {Release: "c", Namespace: "kube-system"}, {Release: "d"}},
	}
	got := fmt.Sprint(rule.CheckContent(m))
	want := `rule "shop" of the site's policy does not allow what is in the bundle: image "evil.example/a:1" is from none of the registries registry.example; release "c" goes to namespace "kube-system"; release "d" goes to namespace ""`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for range 100 {
		m.Images = append(m.Images, manifest.Image{Source: "evil.example/a:1"})
	}
	if got := fmt.Sprint(rule.CheckContent(m)); !strings.HasSuffix(got, "; and 83 more") || strings.Count(got, ";") != 20 {
		t.Errorf("got %v", got)
	}
	if err := rule.CheckContent(&manifest.Manifest{Channel: "stable"}); err != nil {
		t.Error(err)
	}
}

// FuzzParsePolicy: whatever is read as a policy demands somebody's signature of every bundle, and
// what is not is refused with an error that names the file.
func FuzzParsePolicy(f *testing.F) {
	v := sigtest.New(f)
	root := allAuthorities(f, v)
	f.Add([]byte(fillPolicy(policyBase, "")))
	f.Add([]byte(fillPolicy(policyKeyless, root)))
	f.Add([]byte(fillPolicy(policyBase+"revoked: {versions: [{name: shop, versions: [1.0.0]}]}\nallow: {key: true}\n", "")))
	f.Add([]byte("mediaType: application/vnd.sealift.policy.v1+yaml\nrules: [{name: a, bundles: [\"a-*\"], groups: [{root: acme}], maximumAge: 1h, registries: [a.example/*], limits: {clusterScoped: false, podSecurity: baseline}}]\n"))
	f.Add([]byte("a: &a [*a]\n<<: *a\n"))
	f.Add([]byte("? {a: b}\n: !!binary x\n--- \n..."))
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := trust.ParsePolicy("p", raw)
		if err != nil {
			var e *trust.PolicyError
			if p != nil || !errors.As(err, &e) || len(e.Problems) == 0 || !strings.HasPrefix(err.Error(), "p:") {
				t.Fatalf("got %v and %v", p, err)
			}
			return
		}
		if len(p.Rules()) == 0 {
			t.Fatal("no rules")
		}
		for _, r := range p.Rules() {
			if len(r.Bundles()) == 0 || len(r.Groups) == 0 {
				t.Fatalf("%+v", r)
			}
			for _, g := range r.Groups {
				if g.Root == "" && (g.Threshold < 1 || len(g.Signers) == 0) {
					t.Fatalf("%+v", g)
				}
			}
			for _, name := range r.Bundles() {
				if d, err := p.Decide(strings.ReplaceAll(name, "*", "x"), nil, &trust.Proven{}); err == nil {
					t.Fatalf("nobody has signed %q, and that is enough: %+v", name, d)
				}
			}
		}
		if d := p.Describe(); len(d.Rules) != len(p.Rules()) {
			t.Fatalf("%d rules are described", len(d.Rules))
		}
	})
}

// FuzzMatchName compares with a matcher that works on segments: one of a name is matched by one of
// a pattern, a star by one character or more.
func FuzzMatchName(f *testing.F) {
	for _, s := range [][2]string{{"shop", "shop"}, {"shop-*", "shop-web"}, {"s*p*", "shopx"}, {"*-*", "a--b"}, {"\\Q*", "\\Qa"}, {"[^-]*", "[^-]a"}, {"*", "\xff"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if _, err := sigstore.Glob(pattern, "-"); err != nil || len(pattern)+len(name) > 100 {
			return
		}
		got, want := trust.MatchName(pattern, name), matchSegments(pattern, name)
		if got != want {
			t.Errorf("%q, %q: got %v, want %v", pattern, name, got, want)
		}
		if got && strings.Count(pattern, "-") != strings.Count(name, "-") {
			t.Errorf("%q, %q: a star went over a dash", pattern, name)
		}
	})
}

func matchSegments(pattern, name string) bool {
	if !strings.Contains(pattern, "*") {
		return pattern == name && name != ""
	}
	patterns, names := strings.Split(pattern, "-"), strings.Split(name, "-")
	if len(patterns) != len(names) {
		return false
	}
	for i := range patterns {
		if !matchStars([]rune(patterns[i]), []rune(names[i])) {
			return false
		}
	}
	return true
}

func matchStars(pattern, s []rune) bool {
	switch {
	case len(pattern) == 0:
		return len(s) == 0
	case len(s) == 0:
		return false
	case pattern[0] != '*':
		return pattern[0] == s[0] && matchStars(pattern[1:], s[1:])
	case s[0] < 0x20 || s[0] == 0x7f:
		return false
	}
	return matchStars(pattern[1:], s[1:]) || matchStars(pattern, s[1:])
}
