package trust_test

import (
	"context"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sealift/sealift/internal/sigstore"
	"github.com/sealift/sealift/internal/sigstore/sigtest"
	"github.com/sealift/sealift/internal/trust"
)

const (
	ciIssuer  = "https://ci.example"
	ciSubject = "https://git.example/acme/release"
)

var signedMessage = []byte(`{"mediaType":"application/vnd.sealift.manifest.v1+json"}`)

// material names signatures s1, s2, ….
func material(bodies ...[]byte) []trust.Material {
	var all []trust.Material
	for i, b := range bodies {
		all = append(all, trust.Material{Name: fmt.Sprintf("s%d", i+1), Body: b})
	}
	return all
}

func prove(t testing.TB, p *trust.Policy, roots trust.Roots, bodies ...[]byte) *trust.Proven {
	t.Helper()
	proven, err := p.Prove(context.Background(), roots, signedMessage, material(bodies...))
	if err != nil {
		t.Fatal(err)
	}
	return proven
}

// signersOf says who has signed for each group: "group=signer,signer".
func signersOf(d *trust.Decision) string {
	var parts []string
	for _, g := range d.Groups {
		parts = append(parts, g.Group+"="+strings.Join(g.Signers, ","))
	}
	return strings.Join(parts, " ")
}

// world is a virtual sigstore, two keys with their halves, and policies about them.
type world struct {
	v              *sigtest.Virtual
	vendor, office rootSigner
}

func newWorld(t testing.TB) *world {
	w := &world{v: sigtest.New(t), vendor: newRootSigner(t), office: newRootSigner(t)}
	w.office.key, w.office.pub = sigtest.NewEd25519Key(t)
	return w
}

// policy fills in @vendor@, @office@ and @root@.
func (w *world) policy(t testing.TB, text string) *trust.Policy {
	t.Helper()
	return mustPolicy(t, strings.NewReplacer(
		"@vendor@", strconv.Quote(string(w.vendor.pub.PEM)), "@office@", strconv.Quote(string(w.office.pub.PEM)), "@root@", "'"+allAuthorities(t, w.v)+"'",
	).Replace(text))
}

func (w *world) sign(t testing.TB, key crypto.Signer, o sigtest.Options) []byte {
	t.Helper()
	return w.v.SignBlobWithKey(t, key, signedMessage, o)
}

func (w *world) keyless(t testing.TB, issuer, subject string, o sigtest.Options) []byte {
	t.Helper()
	return w.v.SignBlob(t, issuer, subject, signedMessage, o)
}

const twoPersons = `mediaType: application/vnd.sealift.policy.v1+yaml
signers:
  vendor: {key: @vendor@}
  office: {key: @office@}
rules:
  - name: shop
    bundles: [shop]
    groups:
      - {name: vendor, threshold: 1, signers: [vendor]}
      - {name: office, threshold: 1, signers: [office]}
`

func TestTwoPersons(t *testing.T) {
	w := newWorld(t)
	p := w.policy(t, twoPersons)
	stranger := newRootSigner(t)
	vendor, office, other := w.sign(t, w.vendor.key, sigtest.Options{}), w.sign(t, w.office.key, sigtest.Options{}), w.sign(t, stranger.key, sigtest.Options{})
	elsewhere := w.v.SignBlobWithKey(t, w.office.key, []byte("another message"), sigtest.Options{})
	vendorID, officeID := "key sha256:"+w.vendor.pub.Fingerprint, "key sha256:"+w.office.pub.Fingerprint
	needs := func(group, got string, n int) string {
		return fmt.Sprintf("group %q of rule \"shop\": 1 signers are wanted, got %d%s", group, n, got)
	}
	for name, c := range map[string]struct {
		bodies  [][]byte
		want    string
		ignored int
	}{
		"both":                     {[][]byte{vendor, office}, "", 0},
		"both, the other way":      {[][]byte{office, vendor}, "", 0},
		"among others":             {[][]byte{other, []byte("{}"), vendor, nil, elsewhere, office, []byte("\x00\xff")}, "", 5},
		"twice":                    {[][]byte{vendor, vendor, office, office}, "", 0},
		"none":                     {nil, needs("vendor", "", 0) + "\n" + needs("office", "", 0), 0},
		"strangers":                {[][]byte{other, other}, needs("vendor", "", 0) + "\n" + needs("office", "", 0), 2},
		"the vendor alone":         {[][]byte{vendor}, needs("office", "", 0), 0},
		"the vendor twice":         {[][]byte{vendor, vendor}, needs("office", "", 0), 0},
		"the vendor twice, anew":   {[][]byte{vendor, w.sign(t, w.vendor.key, sigtest.Options{})}, needs("office", "", 0), 0},
		"the office alone":         {[][]byte{office}, needs("vendor", "", 0), 0},
		"the office for something": {[][]byte{vendor, elsewhere}, needs("office", "", 0), 1},
	} {
		t.Run(name, func(t *testing.T) {
			proven := prove(t, p, nil, c.bodies...)
			if len(proven.Reasons) != c.ignored || len(proven.Signed) != len(c.bodies)-c.ignored {
				t.Errorf("%d hold, and %d do not: %v", len(proven.Signed), len(proven.Reasons), proven.Reasons)
			}
			d, err := p.Decide("shop", nil, proven)
			if c.want != "" {
				var e *trust.GroupError
				if !errors.As(err, &e) || d != nil || err.Error() != c.want {
					t.Errorf("got %v and %v, want %q", d, err, c.want)
				}
				return
			}
			if err != nil || d.Rule.Name != "shop" || signersOf(d) != "vendor="+vendorID+" office="+officeID {
				t.Errorf("got %v, %v", d, err)
			}
			var e *trust.RuleError
			if _, err := p.Decide("shop-evil", nil, proven); !errors.As(err, &e) {
				t.Errorf("another bundle: %v", err)
			}
		})
	}
}

// TestHintsAreOnlyHints: what a signature says about its key decides nothing.
func TestHintsAreOnlyHints(t *testing.T) {
	w := newWorld(t)
	p := w.policy(t, twoPersons)
	lie := func(body []byte, hint string) []byte {
		var b map[string]any
		if err := json.Unmarshal(body, &b); err != nil {
			t.Fatal(err)
		}
		m, ok := b["verificationMaterial"].(map[string]any)
		if !ok {
			t.Fatal("no verificationMaterial")
		}
		if m["publicKey"] == nil {
			t.Fatal("no publicKey")
		}
		m["publicKey"] = map[string]any{"hint": hint}
		raw, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	office := base64.StdEncoding.EncodeToString(mustHex(t, w.office.pub.Fingerprint))
	vendor := w.sign(t, w.vendor.key, sigtest.Options{})
	for _, hint := range []string{office, "", "x", strings.Repeat("A", 4096)} {
		proven := prove(t, p, nil, lie(vendor, hint), lie(w.sign(t, newRootSigner(t).key, sigtest.Options{}), office))
		if len(proven.Signed) != 1 || proven.Signed[0].Key != w.vendor.pub.Fingerprint || len(proven.Reasons) != 1 {
			t.Errorf("hint %.20q: %+v", hint, proven)
		}
		if _, err := p.Decide("shop", nil, proven); err == nil {
			t.Errorf("hint %.20q: the vendor stands for the office", hint)
		}
	}
}

func mustHex(t testing.TB, text string) []byte {
	t.Helper()
	var raw []byte
	if _, err := fmt.Sscanf(text, "%x", &raw); err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestTriesAreBounded: a slot full of foreign signatures costs a bounded number of tries, and those
// that tell the truth about their key are found before.
func TestTriesAreBounded(t *testing.T) {
	w := newWorld(t)
	var b strings.Builder
	b.WriteString("mediaType: application/vnd.sealift.policy.v1+yaml\nsigners:\n  vendor: {key: @vendor@}\n")
	names := []string{"vendor"}
	for i := range 200 {
		_, pub := sigtest.NewKey(t)
		name := fmt.Sprintf("k%d", i)
		fmt.Fprintf(&b, "  %s: {key: %s}\n", name, strconv.Quote(string(pub.PEM)))
		names = append(names, name)
	}
	fmt.Fprintf(&b, "rules: [{name: shop, bundles: [shop], groups: [{threshold: 1, signers: [%s]}]}]\n", strings.Join(names, ", "))
	p := w.policy(t, b.String())
	foreign := w.sign(t, newRootSigner(t).key, sigtest.Options{})
	vendor := w.sign(t, w.vendor.key, sigtest.Options{})
	signatures := [][]byte{vendor}
	for range 12 {
		signatures = append(signatures, foreign)
	}
	proven := prove(t, p, nil, append(signatures, vendor)...)
	if len(proven.Signed) != 2 || len(proven.Reasons) != 12 {
		t.Fatalf("%d hold, %d do not", len(proven.Signed), len(proven.Reasons))
	}
	if got := proven.Reasons[11].Error(); !strings.HasSuffix(got, ": not looked at any more, after 2049 tries") {
		t.Errorf("got %q", got)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := p.Prove(ctx, nil, signedMessage, material(vendor)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that of the context", err)
	}
}

// TestIdentities: who has signed is whom the certificate names, and patterns of a policy say no more
// than they seem to.
func TestIdentities(t *testing.T) {
	w := newWorld(t)
	stamped := sigtest.Options{TSA: true}
	for _, c := range []struct {
		signer, issuer, subject string
		want                    bool
	}{
		{`issuer: "https://ci.example", subject: "https://git.example/acme/release"`, ciIssuer, ciSubject, true},
		{`issuer: "https://ci.example", subject: "https://git.example/acme/release"`, "https://ci.example.evil", ciSubject, false},
		{`issuer: "https://ci.example", subject: "https://git.example/acme/release"`, ciIssuer, ciSubject + "/", false},
		{`issuer: "https://ci.example", subject: "https://git.example/acme/release"`, ciIssuer, "https://git.example/acme/Release", false},
		{`issuer: "https://ci.example", subject: "https://git.example/acme/*"`, ciIssuer, ciSubject, true},
		{`issuer: "https://ci.example", subject: "https://git.example/acme/*"`, ciIssuer, ciSubject + "/evil", false},
		{`issuer: "https://ci.example", subject: "https://git.example/acme/*"`, ciIssuer, "https://git.example/acme-evil/release", false},
		{`issuer: "https://ci.example", subject: "https://git.example/acme/*"`, ciIssuer, "https://git.example.evil/acme/release", false},
		{`issuer: "https://ci.example", subject: "https://git.example/acme/*"`, ciIssuer, "https://git.example/acme/?release", false},
		{`issuer: "https://*", subject: "https://git.example/acme/release"`, "https://ci.example/evil", ciSubject, false},
		{`issuer: "https://ci.example", subjectRegExp: "https://git\\.example/acme/(release|hotfix)"`, ciIssuer, ciSubject, true},
		{`issuer: "https://ci.example", subjectRegExp: "https://git\\.example/acme/release|https://git\\.example/acme/hotfix"`, ciIssuer, ciSubject + "-evil", false},
		{`issuer: "https://ci.example", subjectRegExp: "https://git\\.example/acme/release|https://git\\.example/acme/hotfix"`, ciIssuer, "https://evil.example/https://git.example/acme/hotfix", false},
		{`issuer: "https://ci.example", subjectRegExp: "git\\.example"`, ciIssuer, ciSubject, false},
		{`issuer: "https://ci.example", subjectRegExp: "(?m)^https://git\\.example/acme/release$"`, ciIssuer, ciSubject, true},
		{`issuer: "https://kim.example", subject: "kim@vendor.example"`, "https://\u212aim.example", "kim@vendor.example", false},
		{`issuerRegExp: "https://kim\\.example", subject: "kim@vendor.example"`, "https://\u212aim.example", "kim@vendor.example", false},
		{`issuer: "https://ci.example", subject: "*@vendor.example"`, ciIssuer, "kim@vendor.example", true},
		{`issuer: "https://ci.example", subject: "*@vendor.example"`, ciIssuer, "kim@evil.example@vendor.example", false},
		{`issuer: "https://ci.example", subject: "*@vendor.example"`, ciIssuer, "kim@vendor.example.evil", false},
	} {
		p := w.policy(t, `mediaType: application/vnd.sealift.policy.v1+yaml
trustedRoot: @root@
signers: {ci: {`+c.signer+`}}
rules: [{name: shop, bundles: [shop], groups: [{name: ci, threshold: 1, signers: [ci]}]}]
`)
		proven := prove(t, p, nil, w.keyless(t, c.issuer, c.subject, stamped))
		d, err := p.Decide("shop", nil, proven)
		if (err == nil) != c.want {
			t.Errorf("{%s}, %s of %s: got %v, want %v", c.signer, c.subject, c.issuer, err, c.want)
		}
		if err == nil && signersOf(d) != "ci="+c.subject+" by "+c.issuer {
			t.Errorf("got %s", signersOf(d))
		}
	}
}

// TestProofsOfTime: certificates need a time that is proven, keys do not, and a rule may demand a
// log or a timestamp of both.
func TestProofsOfTime(t *testing.T) {
	w, evil := newWorld(t), sigtest.New(t)
	text := `mediaType: application/vnd.sealift.policy.v1+yaml
trustedRoot: @root@
signers:
  vendor: {key: @vendor@}
  ci: {issuer: "https://ci.example", subject: "https://git.example/acme/*"}
rules:
  - name: shop
    bundles: [shop]
    groups: [{name: vendor, threshold: 1, signers: [vendor, ci]}]
`
	plain := w.policy(t, text)
	log, stamp := w.policy(t, text+"    transparencyLog: required\n"), w.policy(t, text+"    signedTimestamp: required\n")
	both := w.policy(t, text+"    transparencyLog: required\n    signedTimestamp: required\n")
	late := sigtest.Options{TSA: true, StampAt: sigtest.Epoch.Add(time.Hour)}
	for name, c := range map[string]struct {
		body                    []byte
		plain, log, stamp, both bool
	}{
		"key":                           {w.sign(t, w.vendor.key, sigtest.Options{}), true, false, false, false},
		"key, stamped":                  {w.sign(t, w.vendor.key, sigtest.Options{TSA: true}), true, false, true, false},
		"key, logged":                   {w.sign(t, w.vendor.key, sigtest.Options{Log: true}), true, true, false, false},
		"key, both":                     {w.sign(t, w.vendor.key, sigtest.Options{Log: true, TSA: true}), true, true, true, true},
		"key, logged, without a time":   {w.sign(t, w.vendor.key, sigtest.Options{Log: true, NoPromise: true}), true, true, false, false},
		"key, foreign authorities":      {evil.SignBlobWithKey(t, w.vendor.key, signedMessage, sigtest.Options{Log: true, TSA: true}), true, false, false, false},
		"identity":                      {w.keyless(t, ciIssuer, ciSubject, sigtest.Options{}), false, false, false, false},
		"identity, stamped":             {w.keyless(t, ciIssuer, ciSubject, sigtest.Options{TSA: true}), true, false, true, false},
		"identity, logged":              {w.keyless(t, ciIssuer, ciSubject, sigtest.Options{Log: true}), true, true, false, false},
		"identity, both":                {w.keyless(t, ciIssuer, ciSubject, sigtest.Options{Log: true, TSA: true}), true, true, true, true},
		"identity, stamped too late":    {w.keyless(t, ciIssuer, ciSubject, late), false, false, false, false},
		"identity, foreign authorities": {evil.SignBlob(t, ciIssuer, ciSubject, signedMessage, sigtest.Options{Log: true, TSA: true}), false, false, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			for demand, ok := range map[string]bool{"plain": c.plain, "log": c.log, "stamp": c.stamp, "both": c.both} {
				p := map[string]*trust.Policy{"plain": plain, "log": log, "stamp": stamp, "both": both}[demand]
				proven := prove(t, p, nil, c.body)
				_, err := p.Decide("shop", nil, proven)
				if (err == nil) != ok {
					t.Errorf("%s: got %v, want %v", demand, err, ok)
				}
				var e *trust.GroupError
				if err != nil && (!errors.As(err, &e) || len(e.Unproven) != len(proven.Signed)) {
					t.Errorf("%s: got %v, for %d signatures that hold", demand, err, len(proven.Signed))
				}
			}
		})
	}
	t.Run("one of two by the same", func(t *testing.T) {
		proven := prove(t, log, nil, w.sign(t, w.vendor.key, sigtest.Options{}), w.sign(t, w.vendor.key, sigtest.Options{Log: true}))
		if d, err := log.Decide("shop", nil, proven); err != nil || len(d.Groups[0].Signers) != 1 {
			t.Errorf("got %v, %v", d, err)
		}
		_, err := stamp.Decide("shop", nil, proven)
		want := `group "vendor" of rule "shop": 1 signers are wanted, got 0; without the proof of time that the rule demands: key sha256:` + w.vendor.pub.Fingerprint
		if fmt.Sprint(err) != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	})
}

// TestRootGroups: the group of a root is whom the vendor's current root names, by its own trusted
// root where it has one.
func TestRootGroups(t *testing.T) {
	w, own := newWorld(t), sigtest.New(t)
	a, b, r1, r2 := newRootSigner(t), newRootSigner(t), newRootSigner(t), newRootSigner(t)
	root := func(name string, c trust.RootChange) *trust.SignedRoot {
		c.Name, c.Expires, c.RootKeys = name, rootEnds, rootPublic(a, b)
		r, err := trust.NewRoot(c, rootBorn)
		if err != nil {
			t.Fatal(err)
		}
		return signRoot(t, r, a, b)
	}
	identity := []trust.RootIdentity{{Issuer: ciIssuer, Subject: "https://git.example/acme/*"}}
	const head = "mediaType: application/vnd.sealift.policy.v1+yaml\n"
	const rules = "rules: [{name: shop, bundles: [shop], groups: [{name: acme, root: acme}, {name: other, threshold: 1, signers: [x]}]}]\n"
	stamped := sigtest.Options{TSA: true}
	ci, ownCI := w.keyless(t, ciIssuer, ciSubject, stamped), own.SignBlob(t, ciIssuer, ciSubject, signedMessage, stamped)

	t.Run("threshold of the root", func(t *testing.T) {
		p := mustPolicy(t, head+"rules: [{name: shop, bundles: [shop], groups: [{name: acme, root: acme}]}]\n")
		roots := trust.Roots{"acme": root("acme", trust.RootChange{ReleaseKeys: rootPublic(r1, r2), ReleaseThreshold: 2})}
		one, two := w.sign(t, r1.key, sigtest.Options{}), w.sign(t, r2.key, sigtest.Options{})
		byRoot := w.sign(t, a.key, sigtest.Options{})
		d, err := p.Decide("shop", roots, prove(t, p, roots, one, two))
		if err != nil || d.Groups[0].Root != "acme" || d.Groups[0].RootVersion != 1 || d.Groups[0].Threshold != 2 || len(d.Groups[0].Signers) != 2 {
			t.Errorf("got %+v, %v", d, err)
		}
		for _, bodies := range [][][]byte{{one}, {one, one}, {one, byRoot}, {byRoot}} {
			var e *trust.GroupError
			if d, err := p.Decide("shop", roots, prove(t, p, roots, bodies...)); !errors.As(err, &e) || e.Want != 2 {
				t.Errorf("got %+v, %v", d, err)
			}
		}
		// Without the root nobody is known, and it is said why.
		for _, none := range []trust.Roots{nil, {}, {"acme": nil}, {"other": roots["acme"]}} {
			_, err := p.Decide("shop", none, prove(t, p, none, one, two))
			if got, want := fmt.Sprint(err), `group "acme" of rule "shop": the site has no root "acme"`; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	})
	t.Run("trusted root of the root", func(t *testing.T) {
		roots := trust.Roots{"acme": root("acme", trust.RootChange{Identities: identity, TrustedRoot: own.TrustedRoot(t, sigtest.RootOptions{TSA: true})})}
		p := w.policy(t, head+"trustedRoot: @root@\nsigners: {x: {issuer: \"https://ci.example\", subject: \"https://git.example/acme/*\"}}\n"+rules)
		// Each is proven with the one trusted root, and counts for the one group.
		for name, c := range map[string]struct {
			bodies [][]byte
			want   string
		}{
			"by the vendor's": {[][]byte{ownCI}, `group "other" of rule "shop": 1 signers are wanted, got 0`},
			"by the site's":   {[][]byte{ci}, `group "acme" of rule "shop": 1 signers are wanted, got 0`},
			// The same person by both is one person.
			"by both": {[][]byte{ci, ownCI}, `group "other" of rule "shop": 1 signers are wanted, got 0`},
		} {
			if _, err := p.Decide("shop", roots, prove(t, p, roots, c.bodies...)); fmt.Sprint(err) != c.want {
				t.Errorf("%s: got %v, want %s", name, err, c.want)
			}
		}
		hotfix := w.keyless(t, ciIssuer, "https://git.example/acme/hotfix", stamped)
		if d, err := p.Decide("shop", roots, prove(t, p, roots, ownCI, hotfix)); err != nil || signersOf(d) != "acme="+ciSubject+" by "+ciIssuer+" other=https://git.example/acme/hotfix by "+ciIssuer {
			t.Errorf("got %v, %v", d, err)
		}
	})
	t.Run("trusted root of the root is the vendor's alone", func(t *testing.T) {
		roots := trust.Roots{"acme": root("acme", trust.RootChange{Identities: identity, TrustedRoot: own.TrustedRoot(t, sigtest.RootOptions{TSA: true})})}
		p := w.policy(t, head+`trustedRoot: @root@
signers: {x: {issuer: "https://ci.example", subject: "https://git.example/acme/*"}}
rules:
  - {name: shop, bundles: [shop], groups: [{root: acme}]}
  - {name: tools, bundles: [tools], groups: [{threshold: 1, signers: [x]}]}
`)
		for _, c := range []struct {
			bundle string
			body   []byte
			want   bool
		}{{"shop", ownCI, true}, {"shop", ci, false}, {"tools", ownCI, false}, {"tools", ci, true}} {
			if _, err := p.Decide(c.bundle, roots, prove(t, p, roots, c.body)); (err == nil) != c.want {
				t.Errorf("%s: got %v, want %v", c.bundle, err, c.want)
			}
		}
	})
	t.Run("trusted root of the site", func(t *testing.T) {
		roots := trust.Roots{"acme": root("acme", trust.RootChange{Identities: identity})}
		p := w.policy(t, head+"trustedRoot: @root@\nrules: [{name: shop, bundles: [shop], groups: [{name: acme, root: acme}]}]\n")
		if _, err := p.Decide("shop", roots, prove(t, p, roots, ci)); err != nil {
			t.Error(err)
		}
		if _, err := p.Decide("shop", roots, prove(t, p, roots, ownCI)); err == nil {
			t.Error("proven with a trusted root that nobody has named")
		}
		bare := mustPolicy(t, head+"rules: [{name: shop, bundles: [shop], groups: [{name: acme, root: acme}]}]\n")
		if _, err := bare.Decide("shop", roots, prove(t, bare, roots, ci)); err == nil {
			t.Error("proven with no trusted root at all")
		}
	})
	t.Run("two vendors", func(t *testing.T) {
		p := mustPolicy(t, head+"rules: [{name: shop, bundles: [shop], groups: [{root: acme}, {root: bolt}]}]\n")
		// Both of them have the same key, and the same identity: that is one signer.
		shared := trust.RootChange{ReleaseKeys: rootPublic(r1), Identities: identity, TrustedRoot: own.TrustedRoot(t, sigtest.RootOptions{TSA: true})}
		roots := trust.Roots{"acme": root("acme", shared), "bolt": root("bolt", shared)}
		key := w.sign(t, r1.key, sigtest.Options{})
		if d, err := p.Decide("shop", roots, prove(t, p, roots, key, key)); err == nil {
			t.Errorf("one key stands for two vendors: %s", signersOf(d))
		}
		if d, err := p.Decide("shop", roots, prove(t, p, roots, ownCI)); err == nil {
			t.Errorf("one identity stands for two vendors: %s", signersOf(d))
		}
		if _, err := p.Decide("shop", roots, prove(t, p, roots, ownCI, key)); err != nil {
			t.Error(err)
		}
	})
}

// TestNobodyIsTrustedByNothing: what was not read from a policy accepts nothing.
func TestNobodyIsTrustedByNothing(t *testing.T) {
	w := newWorld(t)
	key := w.sign(t, w.vendor.key, sigtest.Options{})
	everybody := &trust.Proven{Signed: []trust.Signed{{Key: w.vendor.pub.Fingerprint}, {}, {Issuer: ciIssuer, Subject: ciSubject}}}
	for name, p := range map[string]*trust.Policy{"zero policy": {}, "no keys": trust.KeyPolicy(nil), "zero key": trust.KeyPolicy(make([]sigstore.PublicKey, 1))} {
		if proven := prove(t, p, nil, key); len(proven.Signed) > 0 || len(proven.Reasons) != 1 {
			t.Errorf("%s: %+v", name, proven)
		}
		for _, bundle := range []string{"", "shop", "*"} {
			if d, err := p.Decide(bundle, nil, &trust.Proven{}); err == nil {
				t.Errorf("%s: %+v", name, d)
			}
			if d, err := p.Decide(bundle, nil, everybody); err == nil {
				t.Errorf("%s: %+v", name, d)
			}
		}
	}
	if d, err := (&trust.Policy{}).DecideUnsigned("shop"); err == nil {
		t.Errorf("zero policy: %+v", d)
	}
	// A rule, a group and a root without a threshold demand everybody, not nobody.
	p := w.policy(t, twoPersons)
	p.Rules()[0].Groups = nil
	if d, err := p.Decide("shop", nil, everybody); err == nil {
		t.Errorf("rule without groups: %+v", d)
	}
	p.Rules()[0].Groups = make([]trust.Group, 1)
	if d, err := p.Decide("shop", nil, everybody); err == nil {
		t.Errorf("zero group: %+v", d)
	}
	p.Rules()[0].Groups = []trust.Group{{Name: "acme", Root: "acme"}}
	if d, err := p.Decide("shop", trust.Roots{"acme": {}}, everybody); err == nil {
		t.Errorf("zero root: %+v", d)
	}
	if got := trust.MatchName("", ""); got {
		t.Error("nothing matches nothing")
	}
}

func TestKeyPolicy(t *testing.T) {
	w := newWorld(t)
	p := trust.KeyPolicy([]sigstore.PublicKey{w.vendor.pub, w.office.pub})
	for _, key := range []rootSigner{w.vendor, w.office} {
		d, err := p.Decide("any-name", nil, prove(t, p, nil, w.sign(t, key.key, sigtest.Options{})))
		if err != nil || signersOf(d) != "=key sha256:"+key.pub.Fingerprint {
			t.Errorf("got %v, %v", d, err)
		}
	}
	if _, err := p.Decide("any-name", nil, prove(t, p, nil, w.sign(t, newRootSigner(t).key, sigtest.Options{}))); err == nil {
		t.Error("anybody counts")
	}
	if proven := prove(t, p, nil, w.keyless(t, ciIssuer, ciSubject, sigtest.Options{TSA: true})); len(proven.Signed) > 0 {
		t.Errorf("got %+v", proven)
	}
}

// TestOneSignerIsOne compares with trying all ways: each signer stands for one group at most, and
// whatever can be complete in that way is.
func TestOneSignerIsOne(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	root := allAuthorities(t, sigtest.New(t))
	complete := 0
	for range 400 {
		groups, people := 1+rng.IntN(3), 1+rng.IntN(5)
		may, want := make([]int, groups), make([]int, groups)
		var signers, lines strings.Builder
		for g := range groups {
			may[g], want[g] = 1+rng.IntN(1<<people-1), 1+rng.IntN(2)
			var names []string
			for i := range people {
				if may[g]&(1<<i) != 0 {
					names = append(names, string(rune('a'+i)))
				}
			}
			// The x keeps patterns of two groups from being the same text.
			fmt.Fprintf(&signers, "  g%d: {issuer: i, subjectRegExp: \"%s|x%d\"}\n", g, strings.Join(names, "|"), g)
			fmt.Fprintf(&lines, "      - {threshold: %d, signers: [g%d]}\n", want[g], g)
		}
		p := mustPolicy(t, "mediaType: application/vnd.sealift.policy.v1+yaml\ntrustedRoot: '"+root+"'\nsigners:\n"+signers.String()+
			"rules:\n  - name: shop\n    bundles: [shop]\n    groups:\n"+lines.String())
		present := rng.IntN(1 << people)
		proven := &trust.Proven{}
		for _, i := range rng.Perm(people) {
			if present&(1<<i) != 0 {
				s := trust.Signed{Issuer: "i", Subject: string(rune('a' + i))}
				proven.Signed = append(proven.Signed, s, s)
			}
		}
		d, err := p.Decide("shop", nil, proven)
		if (err == nil) != possible(may, want, present, 0) {
			t.Fatalf("groups %b want %v, present %b: got %v", may, want, present, err)
		}
		if err != nil {
			continue
		}
		complete++
		var seen []string
		for g, s := range d.Groups {
			if len(s.Signers) != want[g] {
				t.Errorf("group %d: got %v, want %d", g, s.Signers, want[g])
			}
			for _, id := range s.Signers {
				if slices.Contains(seen, id) || may[g]&(1<<(id[0]-'a')) == 0 {
					t.Errorf("group %d: %s counts", g, id)
				}
				seen = append(seen, id)
			}
		}
	}
	if complete < 50 || complete > 350 {
		t.Errorf("%d of 400 are complete: not much is compared", complete)
	}
}

// possible reports whether the groups from g on can be complete with these people.
func possible(may, want []int, people, g int) bool {
	if g == len(may) {
		return true
	}
	for chosen := range 1 << 5 {
		if chosen&^(may[g]&people) == 0 && bits.OnesCount(uint(chosen)) == want[g] && possible(may, want, people&^chosen, g+1) {
			return true
		}
	}
	return false
}

func TestSignedNamesItsSigner(t *testing.T) {
	w := newWorld(t)
	p := w.policy(t, twoPersons)
	proven, err := p.Prove(context.Background(), nil, signedMessage, []trust.Material{{Name: "shop.sigstore.json", Body: w.sign(t, w.vendor.key, sigtest.Options{}), Detached: true}})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(proven.Signed)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(raw), fmt.Sprintf(`[{"key":%q,"signature":"shop.sigstore.json","detached":true}]`, w.vendor.pub.Fingerprint); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
