package trust_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sealift/sealift/internal/sigstore"
	"github.com/sealift/sealift/internal/sigstore/sigtest"
	"github.com/sealift/sealift/internal/trust"
	"github.com/sealift/sealift/manifest"
)

var (
	rootBorn = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	rootEnds = time.Date(2028, 1, 1, 0, 0, 0, 0, time.UTC)
)

// rootSigner is a key pair.
type rootSigner struct {
	key crypto.Signer
	pub sigstore.PublicKey
}

func newRootSigner(t testing.TB) rootSigner {
	key, pub := sigtest.NewKey(t)
	return rootSigner{key, pub}
}

func rootPublic(signers ...rootSigner) []sigstore.PublicKey {
	keys := []sigstore.PublicKey{}
	for _, s := range signers {
		keys = append(keys, s.pub)
	}
	return keys
}

// vendor is somebody with three root keys, of which two are needed, and a release key.
type vendor struct {
	a, b, c, release rootSigner
	first            *trust.Root
}

func newVendor(t testing.TB) *vendor {
	t.Helper()
	v := &vendor{a: newRootSigner(t), b: newRootSigner(t), c: newRootSigner(t), release: newRootSigner(t)}
	v.c.key, v.c.pub = sigtest.NewEd25519Key(t)
	var err error
	v.first, err = trust.NewRoot(trust.RootChange{
		Name: "acme", Expires: rootEnds, RootKeys: rootPublic(v.a, v.b, v.c), ReleaseKeys: rootPublic(v.release),
		RevokeDigests: []string{rootDigest('1')}, RevokeVersions: []trust.RevokedVersions{{Name: "shop", Versions: []string{"1.0.0", "1.1.0+b2"}}},
	}, rootBorn)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func rootDigest(c byte) string { return "sha256:" + strings.Repeat(string(c), 64) }

// signRoot encodes r, signs it, and reads the file.
func signRoot(t testing.TB, r *trust.Root, by ...rootSigner) *trust.SignedRoot {
	t.Helper()
	raw, err := trust.EncodeRoot(r)
	if err != nil {
		t.Fatal(err)
	}
	var signatures [][]byte
	for _, s := range by {
		signatures = append(signatures, rootSignature(t, s, raw))
	}
	file, err := trust.SealRoot(raw, signatures)
	if err != nil {
		t.Fatal(err)
	}
	s, err := trust.ParseRootFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(s.Raw, raw) || !bytes.Equal(s.File, file) || s.Digest != manifest.Digest(raw) || len(s.Signatures) != len(by) {
		t.Fatalf("read %d signatures, digest %s", len(s.Signatures), s.Digest)
	}
	return s
}

func rootSignature(t testing.TB, s rootSigner, raw []byte) []byte {
	t.Helper()
	return (&sigtest.Virtual{}).SignBlobWithKey(t, s.key, raw, sigtest.Options{})
}

func nextRoot(t testing.TB, prev *trust.Root, c trust.RootChange) *trust.Root {
	t.Helper()
	r, err := trust.NextRoot(prev, c, rootBorn.AddDate(0, 1, 0))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// rootCopy is r without anything in common with it.
func rootCopy(t testing.TB, r *trust.Root) *trust.Root {
	t.Helper()
	raw, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	c := &trust.Root{}
	if err := json.Unmarshal(raw, c); err != nil {
		t.Fatal(err)
	}
	return c
}

// checkRootError checks that err is a *RootError that wraps want and says text.
func checkRootError(t *testing.T, err, want error, text string) {
	t.Helper()
	var e *trust.RootError
	if !errors.As(err, &e) || !errors.Is(err, want) || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want %v with %q", err, want, text)
	}
}

func TestRootOfOneVendor(t *testing.T) {
	ctx := context.Background()
	v := newVendor(t)
	if v.first.Root.Threshold != 2 || v.first.Release.Threshold != 1 || len(v.first.Keys) != 4 {
		t.Fatalf("thresholds %d and %d, %d keys", v.first.Root.Threshold, v.first.Release.Threshold, len(v.first.Keys))
	}
	// One ECDSA key and the Ed25519 key.
	one := signRoot(t, v.first, v.a, v.c)
	if err := one.CheckSelf(ctx); err != nil {
		t.Fatal(err)
	}
	if got, err := one.RootSigners(ctx, nil); err != nil || !slices.Equal(got, sortedIDs(v.a, v.c)) {
		t.Fatalf("signed by %v: %v", got, err)
	}
	if one.FileName() != "1.root.json" {
		t.Fatal(one.FileName())
	}
	if keys := one.ReleaseKeys(); len(keys) != 1 || keys[0].Fingerprint != v.release.pub.Fingerprint {
		t.Fatalf("release keys %v", keys)
	}
	if one.Trusted() != nil || len(one.ReleaseIdentities()) != 0 {
		t.Fatal("a trusted root or identities out of nowhere")
	}
	// Everything changes at once: a root key, the release key, thresholds.
	d, release := newRootSigner(t), newRootSigner(t)
	second := nextRoot(t, v.first, trust.RootChange{
		RootKeys: rootPublic(v.b, v.c, d), RootThreshold: 3, ReleaseKeys: rootPublic(release), Expires: rootEnds.AddDate(1, 0, 0),
		Reset: []string{"shop"}, RevokeVersions: []trust.RevokedVersions{{Name: "shop", Versions: []string{"2.4.1"}}, {Name: "shop", Channel: "beta", Versions: []string{"9.0.0"}}},
		RevokeDigests: []string{rootDigest('0')},
	})
	two := signRoot(t, second, v.b, d, v.c)
	if err := trust.Step(ctx, one, two); err != nil {
		t.Fatal(err)
	}
	if len(second.Keys) != 4 || second.Version != 2 || !slices.Equal(second.Revoked.Digests, []string{rootDigest('0'), rootDigest('1')}) {
		t.Fatalf("%+v", second)
	}
	third := nextRoot(t, second, trust.RootChange{})
	if len(third.Reset) != 0 || third.Expires != second.Expires {
		t.Fatalf("reset %v, expires %s", third.Reset, third.Expires)
	}
	chain := []*trust.SignedRoot{one, two, signRoot(t, third)}
	for _, c := range []struct {
		since  int
		bundle string
		want   bool
	}{{0, "shop", true}, {1, "shop", true}, {2, "shop", false}, {3, "shop", false}, {1, "shop2", false}, {1, "", false}} {
		if got := trust.ResetSince(chain, c.since, c.bundle); got != c.want {
			t.Errorf("reset of %q since %d: %v", c.bundle, c.since, got)
		}
	}
	for _, c := range []struct {
		name, channel, version, digest string
		want                           bool
	}{
		{"shop", "stable", "2.4.1", rootDigest('a'), true},
		{"shop", "stable", "2.4.1+again", rootDigest('a'), true},
		{"shop", "stable", "1.1.0+b2", rootDigest('a'), true},
		{"shop", "stable", "1.1.0+b3", rootDigest('a'), false},
		{"shop", "stable", "1.1.0", rootDigest('a'), false},
		{"shop", "beta", "2.4.1", rootDigest('a'), false},
		{"shop", "beta", "9.0.0", rootDigest('a'), true},
		{"shop-b", "stable", "2.4.1", rootDigest('a'), false},
		{"other", "beta", "3.0.0", rootDigest('1'), true},
		{"shop", "stable", "2.4.2", rootDigest('a'), false},
	} {
		if reason, got := third.IsRevoked(c.name, c.channel, c.version, c.digest); got != c.want || (reason != "") != got {
			t.Errorf("%s %s %s %.9s…: revoked %v (%s)", c.name, c.channel, c.version, c.digest, got, reason)
		}
	}
}

func sortedIDs(signers ...rootSigner) []string {
	var ids []string
	for _, s := range signers {
		ids = append(ids, s.pub.Fingerprint)
	}
	slices.Sort(ids)
	return ids
}

func TestRootIdentities(t *testing.T) {
	v := newVendor(t)
	authority := sigtest.New(t)
	ci := trust.RootIdentity{Issuer: "https://ci.example", Subject: "https://ci.example/acme/*"}
	r := nextRoot(t, v.first, trust.RootChange{
		ReleaseKeys: []sigstore.PublicKey{}, ReleaseThreshold: 3, TrustedRoot: authority.TrustedRoot(t, sigtest.RootOptions{TSA: true}),
		Identities: []trust.RootIdentity{ci, {Issuer: "https://a.example", SubjectRegExp: "a|b"}},
	})
	s := signRoot(t, r)
	if ids := s.ReleaseIdentities(); len(ids) != 2 || !ids[1].Matches("https://ci.example", "https://ci.example/acme/shop") || s.Trusted() == nil || len(s.ReleaseKeys()) != 0 {
		t.Fatalf("identities %v, trusted root %v", s.ReleaseIdentities(), s.Trusted())
	}
	// Without the last identity the trusted root goes too, and a reset is allowed for it.
	back := nextRoot(t, r, trust.RootChange{ReleaseKeys: rootPublic(v.release), ReleaseThreshold: 1, Identities: []trust.RootIdentity{}, Reset: []string{"shop"}})
	if len(back.TrustedRoot) != 0 || len(back.Release.Identities) != 0 {
		t.Fatalf("%+v", back)
	}
	for _, c := range []struct {
		name   string
		change trust.RootChange
		text   string
	}{
		{"threshold out of reach of literals", trust.RootChange{Identities: []trust.RootIdentity{{Issuer: "https://a.example", Subject: "b"}}, ReleaseThreshold: 2}, "release threshold 2, of 1 signers"},
		{"two forms", trust.RootChange{Identities: []trust.RootIdentity{{Issuer: "a", IssuerRegExp: "a", Subject: "b"}}}, "exactly one of issuer"},
		{"no subject", trust.RootChange{Identities: []trust.RootIdentity{{Issuer: "a"}}}, "exactly one of subject"},
		{"bad pattern", trust.RootChange{Identities: []trust.RootIdentity{{Issuer: "a", SubjectRegExp: "("}}}, "not a usable pattern"},
		{"group closed", trust.RootChange{Identities: []trust.RootIdentity{{Issuer: "a", SubjectRegExp: "a)|(b"}}}, "not a usable pattern"},
		{"twice", trust.RootChange{Identities: []trust.RootIdentity{ci, ci}}, "twice"},
		{"hidden text", trust.RootChange{Identities: []trust.RootIdentity{{Issuer: "a", Subject: "b\u202ec"}}}, "cannot be shown"},
		{"no trusted root", trust.RootChange{TrustedRoot: []byte("{}")}, "not a usable trusted root"},
		{"too many", trust.RootChange{Identities: manyIdentities(17)}, "at most 16"},
	} {
		if c.change.ReleaseThreshold == 0 {
			c.change.ReleaseThreshold = 1
		}
		_, err := trust.NextRoot(r, c.change, rootBorn)
		t.Run(c.name, func(t *testing.T) { checkRootError(t, err, trust.ErrRootForm, c.text) })
	}
	_, err := trust.NextRoot(v.first, trust.RootChange{TrustedRoot: r.TrustedRoot}, rootBorn)
	checkRootError(t, err, trust.ErrRootForm, "no identities that it is for")
}

func manyIdentities(n int) []trust.RootIdentity {
	var ids []trust.RootIdentity
	for i := range n {
		ids = append(ids, trust.RootIdentity{Issuer: "a", Subject: fmt.Sprint("s", i)})
	}
	return ids
}

// TestRootStepAttacks has one line for each way to get a root accepted that must not be.
func TestRootStepAttacks(t *testing.T) {
	ctx := context.Background()
	v := newVendor(t)
	one := signRoot(t, v.first, v.a, v.b)
	d, e := newRootSigner(t), newRootSigner(t)
	plain := nextRoot(t, v.first, trust.RootChange{})
	moved := nextRoot(t, v.first, trust.RootChange{RootKeys: rootPublic(v.a, d, e)})
	changed := func(r *trust.Root, f func(r *trust.Root)) *trust.Root {
		r = rootCopy(t, r)
		f(r)
		return r
	}
	two := signRoot(t, plain, v.a, v.b)
	for _, c := range []struct {
		name    string
		current *trust.SignedRoot
		next    *trust.SignedRoot
		want    error
		text    string
	}{
		{"unsigned", one, signRoot(t, plain), trust.ErrRootSignatures, "signed by 0 of the 3 keys of root 1, at least 2"},
		{"below the threshold", one, signRoot(t, plain, v.a), trust.ErrRootSignatures, "signed by 1 of the 3 keys of root 1, at least 2"},
		{"one key counted twice", one, signRoot(t, plain, v.a, v.a, v.a), trust.ErrRootSignatures, "signed by 1 of the 3 keys of root 1, at least 2"},
		{"an Ed25519 key counted twice", one, signRoot(t, plain, v.c, v.c), trust.ErrRootSignatures, "signed by 1 of the 3 keys of root 1, at least 2"},
		{"the release key helps", one, signRoot(t, plain, v.a, v.release), trust.ErrRootSignatures, "signed by 1 of the 3 keys of root 1, at least 2"},
		{"too few old signatures", one, signRoot(t, moved, v.a, d, e), trust.ErrRootSignatures, "signed by 1 of the 3 keys of root 1, at least 2"},
		{"too few new signatures", one, signRoot(t, moved, v.a, v.b), trust.ErrRootSignatures, "signed by 1 of the 3 keys of root 2, at least 2"},
		{"only its own keys", one, signRoot(t, changed(moved, func(*trust.Root) {}), d, e), trust.ErrRootSignatures, "signed by 0 of the 3 keys of root 1"},
		{"new threshold not reached", one, signRoot(t, changed(plain, func(r *trust.Root) { r.Root.Threshold = 3 }), v.a, v.b), trust.ErrRootSignatures, "signed by 2 of the 3 keys of root 2, at least 3"},
		{"it lowers the threshold for itself", one, signRoot(t, changed(plain, func(r *trust.Root) { r.Root.Threshold = 1 }), v.a), trust.ErrRootSignatures, "signed by 1 of the 3 keys of root 1, at least 2"},
		{"signatures of another root", one, withSignatures(t, plain, one.Signatures), trust.ErrRootSignatures, "signed by 0 of the 3 keys of root 1"},
		{"step of two", one, signRoot(t, nextRoot(t, plain, trust.RootChange{}), v.a, v.b), trust.ErrRootGap, "follows version 1"},
		{"back", two, one, trust.ErrRootBack, "version 2 is known already"},
		{"the same again", two, two, trust.ErrRootBack, "version 2 is known already"},
		{"another name", one, signRoot(t, changed(plain, func(r *trust.Root) { r.Name = "acne" }), v.a, v.b), trust.ErrRootForm, `follows a root of "acme"`},
		{"revoked digest removed", one, signRoot(t, changed(plain, func(r *trust.Root) { r.Revoked.Digests = nil }), v.a, v.b), trust.ErrRootForm, "does not revoke digest"},
		{"revoked version removed", one, signRoot(t, changed(plain, func(r *trust.Root) { r.Revoked.Versions[0].Versions = []string{"1.0.0"} }), v.a, v.b), trust.ErrRootForm, "does not revoke version 1.1.0+b2"},
		{"revoked versions removed", one, signRoot(t, changed(plain, func(r *trust.Root) { r.Revoked.Versions = nil }), v.a, v.b), trust.ErrRootForm, "does not revoke version 1.0.0"},
		{"revoked version of another channel", one, signRoot(t, changed(plain, func(r *trust.Root) { r.Revoked.Versions[0].Channel = "beta" }), v.a, v.b), trust.ErrRootForm, "does not revoke version 1.0.0"},
		{"reset without a key removed", one, signRoot(t, changed(plain, func(r *trust.Root) { r.Reset = []string{"shop"} }), v.a, v.b), trust.ErrRootForm, "without removing a release key"},
		{"reset with a key added", one, signRoot(t, changed(nextRoot(t, v.first, trust.RootChange{ReleaseKeys: rootPublic(v.release, d)}), func(r *trust.Root) { r.Reset = []string{"shop"} }), v.a, v.b), trust.ErrRootForm, "without removing a release key"},
		{"a root of nobody", &trust.SignedRoot{Root: trust.Root{Name: "acme", Version: 1}}, two, trust.ErrRootSignatures, "signed by 0 of the 0 keys of root 1"},
	} {
		t.Run(c.name, func(t *testing.T) { checkRootError(t, trust.Step(ctx, c.current, c.next), c.want, c.text) })
	}
	// What the attacks change is all that is wrong with them.
	for _, next := range []*trust.SignedRoot{two, signRoot(t, moved, v.a, d, v.b), signRoot(t, plain, v.release, d, v.a, v.a, v.b)} {
		if err := trust.Step(ctx, one, next); err != nil {
			t.Error(err)
		}
	}
	rubbish := withSignatures(t, plain, append([][]byte{[]byte("rubbish"), []byte(`{"mediaType":""}`)}, two.Signatures...))
	if err := trust.Step(ctx, one, rubbish); err != nil {
		t.Errorf("beside rubbish: %v", err)
	}
	checkRootError(t, signRoot(t, v.first, v.a).CheckSelf(ctx), trust.ErrRootSignatures, "signed by 1 of the 3 keys of root 1, at least 2")
	checkRootError(t, (&trust.SignedRoot{}).CheckSelf(ctx), trust.ErrRootSignatures, "")
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	if err := trust.Step(stopped, one, two); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func withSignatures(t *testing.T, r *trust.Root, signatures [][]byte) *trust.SignedRoot {
	t.Helper()
	raw, err := trust.EncodeRoot(r)
	if err != nil {
		t.Fatal(err)
	}
	file, err := trust.SealRoot(raw, signatures)
	if err != nil {
		t.Fatal(err)
	}
	s, err := trust.ParseRootFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRootWalk(t *testing.T) {
	ctx := context.Background()
	v := newVendor(t)
	one := signRoot(t, v.first, v.a, v.b)
	// Root 2 expires early; nobody minds, since root 4 does not.
	r2 := nextRoot(t, v.first, trust.RootChange{Expires: rootBorn.AddDate(0, 2, 0)})
	r3 := nextRoot(t, r2, trust.RootChange{Expires: rootEnds, ReleaseKeys: rootPublic(newRootSigner(t)), Reset: []string{"shop"}})
	r4 := nextRoot(t, r3, trust.RootChange{})
	two, three, four := signRoot(t, r2, v.a, v.b), signRoot(t, r3, v.b, v.c), signRoot(t, r4, v.a, v.c)
	stranger := newVendor(t)
	stranger.first.Name = "zebra"
	foreign := signRoot(t, stranger.first, stranger.a, stranger.b)
	stranger.first.Name = "acme"
	forged := rootCopy(t, stranger.first)
	forged.Version = 2
	forgery := signRoot(t, forged, stranger.a, stranger.b)
	rival := rootCopy(t, r3)
	rival.Expires = "2031-01-01T00:00:00Z"
	rivalOne := rootCopy(t, v.first)
	rivalOne.Expires = "2031-01-01T00:00:00Z"

	versions := func(chain []*trust.SignedRoot) (v []int) {
		for _, s := range chain {
			v = append(v, s.Root.Version)
		}
		return v
	}
	for _, c := range []struct {
		name   string
		pinned *trust.SignedRoot
		have   []*trust.SignedRoot
		want   []int
		unused []error
		equal  int // the version that there are two of
	}{
		{name: "nothing at hand", pinned: one, want: []int{1}},
		{name: "in any order", pinned: one, have: []*trust.SignedRoot{four, foreign, one, three, two, two, four}, want: []int{1, 2, 3, 4}},
		{name: "from the middle", pinned: three, have: []*trust.SignedRoot{one, two, three, four}, want: []int{3, 4}},
		{name: "back", pinned: four, have: []*trust.SignedRoot{one, two, three}, want: []int{4}},
		{name: "a gap", pinned: one, have: []*trust.SignedRoot{three, four}, want: []int{1}, unused: []error{trust.ErrRootGap, trust.ErrRootGap}},
		{name: "a gap later", pinned: one, have: []*trust.SignedRoot{two, four}, want: []int{1, 2}, unused: []error{trust.ErrRootGap}},
		{name: "a forgery", pinned: one, have: []*trust.SignedRoot{forgery}, want: []int{1}, unused: []error{trust.ErrRootSignatures}},
		{name: "a forgery beside the real one", pinned: one, have: []*trust.SignedRoot{forgery, two, three}, want: []int{1, 2, 3}, unused: []error{trust.ErrRootSignatures}},
		{name: "a forged first one", pinned: one, have: []*trust.SignedRoot{signRoot(t, stranger.first, stranger.a, stranger.b), two}, want: []int{1, 2}, unused: []error{trust.ErrRootSignatures}},
		{name: "with fewer signatures as well", pinned: one, have: []*trust.SignedRoot{signRoot(t, r2, v.a), two, signRoot(t, r2)}, want: []int{1, 2}},
		{name: "only with fewer signatures", pinned: one, have: []*trust.SignedRoot{signRoot(t, r2, v.a), signRoot(t, r2)}, want: []int{1}, unused: []error{trust.ErrRootSignatures}},
		{name: "two of one version", pinned: one, have: []*trust.SignedRoot{two, three, four, signRoot(t, rival, v.a, v.b)}, want: []int{1, 2}, equal: 3},
		{name: "two of one version, one of them unproven", pinned: one, have: []*trust.SignedRoot{signRoot(t, rival, v.a), two, three}, want: []int{1, 2, 3}, unused: []error{trust.ErrRootSignatures}},
		{name: "two of the pinned version", pinned: one, have: []*trust.SignedRoot{signRoot(t, rivalOne, v.a, v.c)}, want: []int{1}, equal: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			chain, unused, err := trust.Walk(ctx, c.pinned, c.have)
			var e *trust.EquivocationError
			if errors.As(err, &e) != (c.equal != 0) || e != nil && (e.Version != c.equal || e.Name != "acme" || e.Digests[0] == e.Digests[1] || !strings.Contains(err.Error(), e.Digests[1])) {
				t.Fatalf("%v, want two of version %d", err, c.equal)
			}
			if c.equal == 0 && err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(versions(chain), c.want) {
				t.Fatalf("came over %v, want %v", versions(chain), c.want)
			}
			if len(unused) != len(c.unused) {
				t.Fatalf("unused: %v, want %v", unused, c.unused)
			}
			for i, err := range unused {
				checkRootError(t, err, c.unused[i], "")
			}
		})
	}
	if !trust.ResetSince([]*trust.SignedRoot{one, two, three}, 1, "shop") {
		t.Error("no reset on the way")
	}
	now := rootBorn.AddDate(1, 0, 0)
	var expired *trust.RootExpiredError
	if err := two.CheckExpiry(now); !errors.As(err, &expired) || expired.Version != 2 || expired.Name != "acme" || expired.Expires != rootBorn.AddDate(0, 2, 0) || !strings.Contains(err.Error(), "2026-03-02T03:04:05Z") {
		t.Errorf("expired last: %v", err)
	}
	if err := four.CheckExpiry(now); err != nil {
		t.Errorf("expired in the middle only: %v", err)
	}
	if err := four.CheckExpiry(rootEnds.Add(-time.Nanosecond)); err != nil {
		t.Error(err)
	}
	if err := four.CheckExpiry(rootEnds); !errors.As(err, &expired) {
		t.Errorf("at the very moment: %v", err)
	}
	if err := (&trust.SignedRoot{}).CheckExpiry(now); !errors.As(err, &expired) {
		t.Errorf("the zero root: %v", err)
	}
	if _, _, err := trust.Walk(ctx, one, slices.Repeat([]*trust.SignedRoot{one}, 1025)); err == nil {
		t.Error("1025 roots at hand")
	}
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	for _, have := range []*trust.SignedRoot{two, signRoot(t, rivalOne, v.a, v.c)} {
		if _, _, err := trust.Walk(stopped, one, []*trust.SignedRoot{have}); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	}
}

func TestRootWalkIsBounded(t *testing.T) {
	ctx := context.Background()
	a, release := newRootSigner(t), newRootSigner(t)
	r, err := trust.NewRoot(trust.RootChange{Name: "acme", Expires: rootEnds, RootKeys: rootPublic(a), ReleaseKeys: rootPublic(release)}, rootBorn)
	if err != nil {
		t.Fatal(err)
	}
	all := []*trust.SignedRoot{signRoot(t, r, a)}
	for range 257 {
		r = nextRoot(t, r, trust.RootChange{})
		all = append(all, signRoot(t, r, a))
	}
	chain, unused, err := trust.Walk(ctx, all[0], all)
	if err != nil || len(chain) != 257 || chain[256].Root.Version != 257 || len(unused) != 1 {
		t.Fatalf("%d roots, unused %v: %v", len(chain), unused, err)
	}
	checkRootError(t, unused[0], trust.ErrRootSteps, "256 steps led to version 257")
	if chain, unused, err = trust.Walk(ctx, chain[256], all); err != nil || len(chain) != 2 || len(unused) != 0 {
		t.Fatalf("%d roots, unused %v: %v", len(chain), unused, err)
	}
}

// sealAnything is a root file around bytes that need not be a root.
func sealAnything(raw string) string {
	return `{"mediaType":"` + trust.SignedRootMediaType + `","root":"` + base64.StdEncoding.EncodeToString([]byte(raw)) + `","signatures":[]}`
}

// TestRootFileHasOneReading changes the bytes of a root, and of a root file, in ways that decoders of
// JSON forgive.
func TestRootFileHasOneReading(t *testing.T) {
	v := newVendor(t)
	s := signRoot(t, v.first, v.a, v.b)
	raw, file := string(s.Raw), string(s.File)
	m, err := manifest.Encode(&manifest.Manifest{MediaType: manifest.MediaType, Format: manifest.Format, Name: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	edit := func(s, old, now string) string {
		t.Helper()
		if strings.Count(s, old) != 1 {
			t.Fatalf("%q is not once in %s", old, s)
		}
		return strings.Replace(s, old, now, 1)
	}
	const other = "is not in its canonical form"
	for _, c := range []struct{ name, file, text string }{
		{"empty", "", "does not begin"},
		{"no JSON", "x", "does not begin"},
		{"a manifest", string(m), "does not begin"},
		{"a manifest in a root file", sealAnything(string(m)), "does not begin"},
		{"a root without its file", raw, "does not begin"},
		{"a root file in a root file", sealAnything(file), "does not begin"},
		{"a newer root", sealAnything(edit(raw, "root.v1+json", "root.v2+json")), "does not begin"},
		{"mediaType in another case", sealAnything(edit(raw, `"mediaType"`, `"mediatype"`)), "does not begin"},
		{"mediaType later", sealAnything(edit(raw, `{"mediaType":"`+trust.RootMediaType+`","name":"acme"`, `{"name":"acme","mediaType":"`+trust.RootMediaType+`"`)), "does not begin"},
		{"mediaType again", sealAnything(edit(raw, `,"name"`, `,"mediaType":"x","name"`)), other},
		{"a duplicate key", sealAnything(edit(raw, `"version":1,`, `"version":9,"version":1,`)), other},
		{"a duplicate key at the end", sealAnything(edit(raw, `]}]}}`, `]}]},"version":1}`)), other},
		{"a key in another case", sealAnything(edit(raw, `"expires"`, `"Expires"`)), other},
		{"a second key in another case", sealAnything(edit(raw, `"expires":`, `"EXPIRES":"2099-01-01T00:00:00Z","expires":`)), other},
		{"K for k", sealAnything(edit(raw, `"keys":[{`, `"`+"\u212a"+`eys":[{`)), other},
		{"an unknown key", sealAnything(edit(raw, `"version":1,`, `"version":1,"more":1,`)), "unknown field"},
		{"a null list", sealAnything(edit(raw, `"identities":[]`, `"identities":null`)), other},
		{"a list left out", sealAnything(edit(raw, `,"identities":[]`, ``)), other},
		{"another number", sealAnything(edit(raw, `"version":1,`, `"version":1e0,`)), "reading"},
		{"an escape", sealAnything(edit(raw, `"acme"`, `"\u0061cme"`)), other},
		{"not UTF-8", sealAnything(edit(raw, `"acme"`, "\"acm\xff\"")), other},
		{"white space", sealAnything(edit(raw, `"version":1,`, `"version": 1,`)), other},
		{"a line end", sealAnything(raw + "\n"), other},
		{"a trailing document", sealAnything(raw + raw), "something follows"},
		{"cut", sealAnything(raw[:len(raw)-1]), "unexpected EOF"},
		{"too long", sealAnything(edit(raw, `"acme"`, `"`+strings.Repeat("a", trust.MaxRootBytes)+`"`)), "at most 20480"},
		{"file: a duplicate key", edit(file, `"signatures":`, `"root":"","signatures":`), other},
		{"file: a key in another case", edit(file, `"root":`, `"Root":`), other},
		{"file: an unknown key", edit(file, `"signatures":`, `"more":1,"signatures":`), "unknown field"},
		{"file: no list of signatures", sealAnything(raw)[:len(sealAnything(raw))-len(`"signatures":[]}`)-1] + "}", other},
		{"file: null signatures", edit(sealAnything(raw), `[]`, `null`), other},
		{"file: an empty signature", edit(sealAnything(raw), `[]`, `[""]`), "an empty signature"},
		{"file: 33 signatures", edit(sealAnything(raw), `[]`, `["YQ=="`+strings.Repeat(`,"YQ=="`, 32)+`]`), "at most 32"},
		{"file: base64 in lines", edit(file, `","signatures"`, `\n","signatures"`), other},
		{"file: base64 with loose ends", edit(sealAnything(raw), `[]`, `["YR=="]`), other},
		{"file: a line end", file + "\n", other},
		{"file: a trailing document", file + file, "something follows"},
		{"file: too long", edit(sealAnything(raw), `[]`, `["`+strings.Repeat("YWFh", trust.MaxRootFileBytes/4)+`"]`), "at most 32768"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := trust.ParseRootFile([]byte(c.file))
			checkRootError(t, err, trust.ErrRootForm, c.text)
		})
	}
	for _, text := range []string{raw, file} {
		if _, err := manifest.Parse([]byte(text)); !errors.Is(err, manifest.ErrUnknownFormat) {
			t.Errorf("as a manifest: %v", err)
		}
		if _, err := trust.ParsePolicy("trust.yaml", []byte(text)); err == nil {
			t.Error("as a policy: accepted")
		}
	}
	// A signature over a manifest is none over a root, by whomever.
	if _, err := trust.SealRoot(m, [][]byte{rootSignature(t, v.a, m)}); !errors.Is(err, trust.ErrRootForm) {
		t.Errorf("sealing a manifest: %v", err)
	}
	if _, err := trust.ParseRootFile([]byte(sealAnything(raw))); err != nil {
		t.Errorf("without any change: %v", err)
	}
}

// TestRootRules breaks each rule for a root by itself.
func TestRootRules(t *testing.T) {
	v := newVendor(t)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rootKeyOf := func(pub sigstore.PublicKey) trust.RootKey {
		block, _ := pem.Decode(pub.PEM)
		return trust.RootKey{ID: pub.Fingerprint, Key: block.Bytes}
	}
	der, err := x509.MarshalPKIXPublicKey(p384.Public())
	if err != nil {
		t.Fatal(err)
	}
	big, err := sigstore.ParsePublicKey(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	if err != nil {
		t.Fatal(err)
	}
	replaceRelease := func(r *trust.Root, k trust.RootKey) {
		r.Keys = slices.DeleteFunc(r.Keys, func(k trust.RootKey) bool { return k.ID == r.Release.Keys[0] })
		r.Keys = append(r.Keys, k)
		slices.SortFunc(r.Keys, func(a, b trust.RootKey) int { return strings.Compare(a.ID, b.ID) })
		r.Release.Keys[0] = k.ID
	}
	numbers := func(n int, format string) []string {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf(format, i))
		}
		return list
	}
	for _, c := range []struct {
		name string
		edit func(r *trust.Root)
		text string
	}{
		{"media type", func(r *trust.Root) { r.MediaType = manifest.MediaType }, "does not begin"},
		{"no name", func(r *trust.Root) { r.Name = "" }, `name ""`},
		{"name of two labels", func(r *trust.Root) { r.Name = "a.b" }, "lower-case letters"},
		{"look-alike name", func(r *trust.Root) { r.Name = "\u212ay" }, "lower-case letters"},
		{"version 0", func(r *trust.Root) { r.Version = 0 }, "version 0"},
		{"version below 0", func(r *trust.Root) { r.Version = -1 }, "version -1"},
		{"giant version", func(r *trust.Root) { r.Version = 1<<30 + 1 }, "is not from 1"},
		{"created", func(r *trust.Root) { r.Created = "yesterday" }, "created"},
		{"no expiry", func(r *trust.Root) { r.Expires = "" }, "expires"},
		{"expiry with an offset", func(r *trust.Root) { r.Expires = "2028-01-01T00:00:00+01:00" }, "expires"},
		{"expired when created", func(r *trust.Root) { r.Expires = r.Created }, "is not after it was created"},
		{"keys not in order", func(r *trust.Root) { slices.Reverse(r.Keys) }, "not in order"},
		{"key twice", func(r *trust.Root) { r.Keys = append(r.Keys[:1:1], r.Keys...) }, "or twice"},
		{"no key", func(r *trust.Root) { r.Keys[0].Key = nil }, "not a usable key"},
		{"another key under its ID", func(r *trust.Root) { r.Keys[0].Key = r.Keys[1].Key }, "its fingerprint is"},
		{"more after the key", func(r *trust.Root) { r.Keys[0].Key = append(slices.Clone(r.Keys[0].Key), 0) }, "key"},
		{"ID in capitals", func(r *trust.Root) { r.Keys[0].ID = strings.ToUpper(r.Keys[0].ID) }, "key"},
		{"P-384", func(r *trust.Root) { replaceRelease(r, rootKeyOf(big)) }, "neither Ed25519 nor ECDSA on P-256"},
		{"key of no role", func(r *trust.Root) { r.Root.Keys = r.Root.Keys[1:] }, "is in no role"},
		{"key of two roles", func(r *trust.Root) {
			r.Keys = slices.DeleteFunc(r.Keys, func(k trust.RootKey) bool { return k.ID == r.Release.Keys[0] })
			r.Release.Keys = r.Root.Keys[:1]
		}, "both a root key and a release key"},
		{"role with an unknown key", func(r *trust.Root) { r.Root.Keys[0] = strings.Repeat("0", 64) }, "is not among the keys"},
		{"role with a key twice", func(r *trust.Root) { r.Root.Keys = append(r.Root.Keys[:1:1], r.Root.Keys...) }, "or twice"},
		{"root threshold 0", func(r *trust.Root) { r.Root.Threshold = 0 }, "root threshold 0"},
		{"root threshold below 0", func(r *trust.Root) { r.Root.Threshold = -1 }, "root threshold -1"},
		{"root threshold out of reach", func(r *trust.Root) { r.Root.Threshold = 4 }, "root threshold 4, of 3 keys"},
		{"no root keys", func(r *trust.Root) { r.Root.Keys, r.Root.Threshold = nil, 0 }, "root threshold 0, of 0 keys"},
		{"release threshold 0", func(r *trust.Root) { r.Release.Threshold = 0 }, "release threshold 0"},
		{"release threshold out of reach", func(r *trust.Root) { r.Release.Threshold = 2 }, "release threshold 2, of 1 signers"},
		{"no release signers", func(r *trust.Root) { r.Release.Keys = nil }, "no release key and no identity"},
		{"reset in a first root", func(r *trust.Root) { r.Reset = []string{"shop"} }, "nothing to reset"},
		{"reset of no name", func(r *trust.Root) { r.Version, r.Reset = 2, []string{"*"} }, "reset: name"},
		{"reset not in order", func(r *trust.Root) { r.Version, r.Reset = 2, []string{"b", "a"} }, "not in order"},
		{"too many resets", func(r *trust.Root) { r.Version, r.Reset = 2, numbers(257, "a%03d") }, "at most 256"},
		{"revoked digest in capitals", func(r *trust.Root) { r.Revoked.Digests = []string{"sha256:" + strings.Repeat("A", 64)} }, "revoked digests"},
		{"revoked digest twice", func(r *trust.Root) { r.Revoked.Digests = []string{rootDigest('1'), rootDigest('1')} }, "or twice"},
		{"revoked version of no name", func(r *trust.Root) { r.Revoked.Versions[0].Name = "" }, "revoked versions"},
		{"revoked version of no channel", func(r *trust.Root) { r.Revoked.Versions[0].Channel = "" }, "malformed channel"},
		{"no revoked versions", func(r *trust.Root) { r.Revoked.Versions[0].Versions = nil }, "none"},
		{"malformed revoked version", func(r *trust.Root) { r.Revoked.Versions[0].Versions = []string{"v1"} }, "not a semantic version"},
		{"revoked versions of one name apart", func(r *trust.Root) { r.Revoked.Versions = append(r.Revoked.Versions, r.Revoked.Versions[0]) }, "not in order, or twice"},
		{"too many revoked versions", func(r *trust.Root) { r.Revoked.Versions[0].Versions = numbers(257, "1.1.%d") }, "at most 256"},
		{"too many revoked digests", func(r *trust.Root) { r.Revoked.Digests = numbers(257, "sha256:%064d") }, "at most 256"},
		{"too long", func(r *trust.Root) {
			r.Revoked.Digests = numbers(256, "sha256:%064d")
			r.Revoked.Versions[0].Versions = numbers(256, "1.0.0-%064d")
		}, "at most 20480"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := rootCopy(t, v.first)
			c.edit(r)
			_, err := trust.EncodeRoot(r)
			checkRootError(t, err, trust.ErrRootForm, c.text)
		})
	}
	if _, err := trust.EncodeRoot(v.first); err != nil {
		t.Errorf("without any change: %v", err)
	}
	if _, err := trust.EncodeRoot(&trust.Root{}); !errors.Is(err, trust.ErrRootForm) {
		t.Errorf("the zero root: %v", err)
	}
}

func TestRootChangesAreChecked(t *testing.T) {
	v := newVendor(t)
	all := rootPublic(v.a, v.b)
	for _, c := range []struct {
		name   string
		change trust.RootChange
		text   string
	}{
		{"nothing", trust.RootChange{}, `name ""`},
		{"no expiry", trust.RootChange{Name: "acme", RootKeys: all, ReleaseKeys: rootPublic(v.release)}, "expires"},
		{"no root keys", trust.RootChange{Name: "acme", Expires: rootEnds, ReleaseKeys: rootPublic(v.release)}, "root threshold 1, of 0 keys"},
		{"no release keys", trust.RootChange{Name: "acme", Expires: rootEnds, RootKeys: all}, "no release key"},
		{"one key twice", trust.RootChange{Name: "acme", Expires: rootEnds, RootKeys: rootPublic(v.a, v.a), ReleaseKeys: rootPublic(v.release)}, "twice"},
		{"no key at all", trust.RootChange{Name: "acme", Expires: rootEnds, RootKeys: []sigstore.PublicKey{{}}, ReleaseKeys: rootPublic(v.release)}, "not a usable key"},
		{"reset", trust.RootChange{Name: "acme", Expires: rootEnds, RootKeys: all, ReleaseKeys: rootPublic(v.release), Reset: []string{"shop"}}, "nothing to reset"},
	} {
		_, err := trust.NewRoot(c.change, rootBorn)
		t.Run(c.name, func(t *testing.T) { checkRootError(t, err, trust.ErrRootForm, c.text) })
	}
	for _, c := range []struct {
		name   string
		change trust.RootChange
		at     time.Time
		text   string
	}{
		{"another name", trust.RootChange{Name: "zebra"}, rootBorn, `follows a root of "acme"`},
		{"reset without a key removed", trust.RootChange{Reset: []string{"shop"}}, rootBorn, "without removing a release key"},
		{"fewer keys than the threshold", trust.RootChange{RootKeys: rootPublic(v.a)}, rootBorn, "root threshold 2, of 1 keys"},
		{"after it expires", trust.RootChange{}, rootEnds, "is not after it was created"},
	} {
		_, err := trust.NextRoot(v.first, c.change, c.at)
		t.Run(c.name, func(t *testing.T) { checkRootError(t, err, trust.ErrRootForm, c.text) })
	}
	// The root before stays as it was.
	before, err := trust.EncodeRoot(v.first)
	if err != nil {
		t.Fatal(err)
	}
	nextRoot(t, v.first, trust.RootChange{
		RootKeys: rootPublic(v.c, v.b), ReleaseKeys: rootPublic(newRootSigner(t)), RevokeDigests: []string{rootDigest('0')},
		RevokeVersions: []trust.RevokedVersions{{Name: "shop", Versions: []string{"0.9.0"}}},
	})
	if after, err := trust.EncodeRoot(v.first); err != nil || !bytes.Equal(before, after) {
		t.Errorf("changed: %s: %v", after, err)
	}
}

func TestRootAddSignature(t *testing.T) {
	ctx := context.Background()
	v := newVendor(t)
	// A signer of the package itself this time, as the command line has it.
	private, public, err := sigstore.GenerateKeyPair([]byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	real, err := sigstore.LoadSigner(private, []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	pub, err := sigstore.ParsePublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	second := nextRoot(t, v.first, trust.RootChange{RootKeys: []sigstore.PublicKey{pub, v.a.pub}})
	s := signRoot(t, second)
	file := s.File
	add := func(sig []byte, want int) {
		t.Helper()
		before := file
		if file, err = trust.AddSignature(file, sig); err != nil {
			t.Fatal(err)
		}
		if s, err = trust.ParseRootFile(file); err != nil || len(s.Signatures) != want {
			t.Fatalf("%d signatures, want %d: %v", len(s.Signatures), want, err)
		}
		if old, err := trust.ParseRootFile(before); err != nil || !bytes.Equal(old.Raw, s.Raw) {
			t.Fatalf("another root: %v", err)
		}
	}
	sig, err := real.Sign(s.Raw)
	if err != nil {
		t.Fatal(err)
	}
	add(sig, 1)
	add(sig, 1)
	if sig, err = real.Sign(s.Raw); err != nil {
		t.Fatal(err)
	}
	add(sig, 1)
	add(rootSignature(t, v.a, s.Raw), 2)
	// b is not in this root any more, and has to sign for the one before.
	add(rootSignature(t, v.b, s.Raw), 3)
	one := signRoot(t, v.first, v.a, v.b)
	if err := trust.Step(ctx, one, s); err != nil {
		t.Fatal(err)
	}
	if got, err := s.RootSigners(ctx, one); err != nil || len(got) != 3 || !slices.Contains(got, v.b.pub.Fingerprint) {
		t.Fatalf("signed by %v: %v", got, err)
	}
	for _, c := range []struct {
		name string
		sig  []byte
	}{
		{"nothing", nil},
		{"rubbish", []byte("rubbish")},
		{"a certificate's", sigtest.New(t).SignBlob(t, "https://ci.example", "me", s.Raw, sigtest.Options{TSA: true})},
	} {
		_, err := trust.AddSignature(file, c.sig)
		t.Run(c.name, func(t *testing.T) { checkRootError(t, err, sigstore.ErrMalformed, "adding a signature") })
	}
	for len(s.Signatures) < trust.MaxRootSignatures && len(file) < trust.MaxRootFileBytes-1024 {
		add(rootSignature(t, newRootSigner(t), s.Raw), len(s.Signatures)+1)
	}
	if _, err := trust.AddSignature(file, rootSignature(t, newRootSigner(t), s.Raw)); err == nil {
		t.Errorf("signature %d in %d bytes", len(s.Signatures)+1, len(file))
	}
	if _, err := trust.AddSignature([]byte("{}"), sig); !errors.Is(err, trust.ErrRootForm) {
		t.Errorf("to no root: %v", err)
	}
}

// FuzzParseRootFile checks that a file that is read is the only way to write what was read.
func FuzzParseRootFile(f *testing.F) {
	v := newVendor(f)
	s := signRoot(f, v.first, v.a, v.c)
	next := nextRoot(f, v.first, trust.RootChange{
		ReleaseKeys: []sigstore.PublicKey{}, Identities: []trust.RootIdentity{{Issuer: "https://ci.example", Subject: "https://ci.example/*"}},
		TrustedRoot: sigtest.New(f).TrustedRoot(f, sigtest.RootOptions{TSA: true}), Reset: []string{"shop"},
	})
	// The fuzzer sees the root itself, since it would not find its way through base64.
	for _, raw := range [][]byte{s.Raw, signRoot(f, next, v.a, v.b).Raw, []byte("{}"), nil} {
		f.Add(raw, s.Signatures[0])
		f.Add(raw, []byte("x"))
	}
	f.Add(s.File, []byte{})
	f.Fuzz(func(t *testing.T, raw, sig []byte) {
		file, err := json.Marshal(struct {
			MediaType  string   `json:"mediaType"`
			Root       []byte   `json:"root"`
			Signatures [][]byte `json:"signatures"`
		}{trust.SignedRootMediaType, raw, [][]byte{sig}})
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range [][]byte{file, raw} {
			s, err := trust.ParseRootFile(file)
			if err != nil {
				if !errors.Is(err, trust.ErrRootForm) {
					t.Fatalf("%v is no ErrRootForm", err)
				}
				continue
			}
			again, err := trust.EncodeRoot(&s.Root)
			if err != nil || !bytes.Equal(again, s.Raw) {
				t.Fatalf("encoded again: %q, want %q: %v", again, s.Raw, err)
			}
			if sealed, err := trust.SealRoot(s.Raw, s.Signatures); err != nil || !bytes.Equal(sealed, file) {
				t.Fatalf("sealed again: %q, want %q: %v", sealed, file, err)
			}
			ctx := context.Background()
			if err := s.CheckSelf(ctx); err != nil && !errors.Is(err, trust.ErrRootSignatures) {
				t.Fatal(err)
			}
			if _, err := trust.NextRoot(&s.Root, trust.RootChange{}, rootBorn); err != nil && !errors.Is(err, trust.ErrRootForm) {
				t.Fatal(err)
			}
			if _, err := trust.AddSignature(file, sig); err != nil && !errors.Is(err, sigstore.ErrMalformed) && !errors.Is(err, trust.ErrRootForm) {
				t.Fatal(err)
			}
		}
	})
}
