package sigstore_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/sigstore/cosign/v2/pkg/cosign"
	cbundle "github.com/sigstore/cosign/v2/pkg/cosign/bundle"
	"github.com/sigstore/cosign/v2/pkg/oci/static"
	sgbundle "github.com/sigstore/sigstore-go/pkg/bundle"
	sgroot "github.com/sigstore/sigstore-go/pkg/root"
	sgverify "github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/sealift/sealift/internal/sigstore"
	"github.com/sealift/sealift/internal/sigstore/sigtest"
)

var (
	image   = "sha256:" + strings.Repeat("ab", 32)
	another = "sha256:" + strings.Repeat("cd", 32)
)

func is(wantIssuer, wantSubject string) func(string, string) bool {
	return func(i, s string) bool { return i == wantIssuer && s == wantSubject }
}

func TestVerifyImage(t *testing.T) {
	ctx := context.Background()
	v := sigtest.New(t)
	all := root(t, v, sigtest.RootOptions{TSA: true, Log: true})
	foreign := root(t, sigtest.New(t), sigtest.RootOptions{TSA: true, Log: true})
	ec, ecKey := sigtest.NewKey(t)
	ed, edKey := sigtest.NewEd25519Key(t)
	_, stranger := sigtest.NewKey(t)
	key := func(k sigstore.PublicKey) sigstore.SignedBy { return sigstore.SignedBy{Key: &k, Root: all} }
	ci := sigstore.SignedBy{Match: is(issuer, subject), Root: all}
	simple := func(l ...sigstore.SimpleSignature) sigstore.ImageSignatures {
		return sigstore.ImageSignatures{Simple: l}
	}
	bundles := func(b ...[]byte) sigstore.ImageSignatures { return sigstore.ImageSignatures{Bundles: b} }
	rich := sigtest.Options{Log: true, TSA: true}
	with := func(l sigstore.SimpleSignature, annotation, value string) sigstore.SimpleSignature {
		l.Annotations = maps.Clone(l.Annotations)
		l.Annotations[annotation] = value
		return l
	}
	both := func(s, b sigstore.ImageSignatures) sigstore.ImageSignatures {
		return sigstore.ImageSignatures{Simple: s.Simple, Bundles: b.Bundles}
	}
	for _, c := range []struct {
		name  string
		found sigstore.ImageSignatures
		by    sigstore.SignedBy
		want  error
		form  string
		times string
	}{
		{"layer, key", simple(v.SimpleSignatureWithKey(t, ec, image, sigtest.Options{})), key(ecKey), nil, "simple", ""},
		{"layer, key, no root", simple(v.SimpleSignatureWithKey(t, ec, image, rich)), sigstore.SignedBy{Key: &ecKey}, nil, "simple", ""},
		{"layer, key, times", simple(v.SimpleSignatureWithKey(t, ec, image, rich)), key(ecKey), nil, "simple", "transparency-log signed-timestamp"},
		{"layer, Ed25519", simple(v.SimpleSignatureWithKey(t, ed, image, sigtest.Options{})), key(edKey), nil, "simple", ""},
		{"layer, identity, log", simple(v.SimpleSignature(t, issuer, subject, image, sigtest.Options{Log: true})), ci, nil, "simple", "transparency-log"},
		{"layer, identity, timestamp", simple(v.SimpleSignature(t, issuer, subject, image, sigtest.Options{TSA: true})), ci, nil, "simple", "signed-timestamp"},
		{"bundle, key", bundles(v.ImageBundleWithKey(t, ec, image, sigtest.Options{})), key(ecKey), nil, "bundle", ""},
		{"bundle, Ed25519", bundles(v.ImageBundleWithKey(t, ed, image, sigtest.Options{})), key(edKey), nil, "bundle", ""},
		{"bundle, key, times", bundles(v.ImageBundleWithKey(t, ec, image, rich)), key(ecKey), nil, "bundle", "transparency-log signed-timestamp"},
		{"bundle, identity", bundles(v.ImageBundle(t, issuer, subject, image, rich)), ci, nil, "bundle", "transparency-log signed-timestamp"},
		{"second of each", both(
			simple(v.SimpleSignatureWithKey(t, ed, image, sigtest.Options{}), v.SimpleSignatureWithKey(t, ec, image, sigtest.Options{})),
			bundles([]byte("x"), v.Attestation(t, issuer, subject, "https://slsa.dev/provenance/v1", image, rich)),
		), key(ecKey), nil, "simple", ""},
		{"layer, key, annotations that mean nothing", simple(with(with(with(v.SimpleSignatureWithKey(t, ec, image, sigtest.Options{}),
			static.BundleAnnotationKey, "{"), static.RFC3161TimestampAnnotationKey, "{}"), static.CertificateAnnotationKey, "x")), key(ecKey), nil, "simple", ""},

		{"nothing", sigstore.ImageSignatures{}, ci, sigstore.ErrImageUnsigned, "", ""},
		{"layer of another image", simple(v.SimpleSignatureWithKey(t, ec, another, rich)), key(ecKey), sigstore.ErrSignature, "", ""},
		{"layer of another image, identity", simple(v.SimpleSignature(t, issuer, subject, another, rich)), ci, sigstore.ErrSignature, "", ""},
		{"bundle of another image", bundles(v.ImageBundleWithKey(t, ec, another, rich)), key(ecKey), sigstore.ErrSignature, "", ""},
		{"bundle of another image, identity", bundles(v.ImageBundle(t, issuer, subject, another, rich)), ci, sigstore.ErrSignature, "", ""},
		{"layer, wrong key", simple(v.SimpleSignatureWithKey(t, ec, image, rich)), key(stranger), sigstore.ErrSignature, "", ""},
		{"bundle, wrong key", bundles(v.ImageBundleWithKey(t, ec, image, rich)), key(stranger), sigstore.ErrSignature, "", ""},
		{"layer, wrong identity", simple(v.SimpleSignature(t, issuer, "evil@example.com", image, rich)), ci, sigstore.ErrIdentity, "", ""},
		{"bundle, wrong identity", bundles(v.ImageBundle(t, "https://evil.example", subject, image, rich)), ci, sigstore.ErrIdentity, "", ""},
		{"layer, foreign root", simple(v.SimpleSignature(t, issuer, subject, image, rich)), sigstore.SignedBy{Match: ci.Match, Root: foreign}, sigstore.ErrIdentity, "", ""},
		{"bundle, foreign root", bundles(v.ImageBundle(t, issuer, subject, image, rich)), sigstore.SignedBy{Match: ci.Match, Root: foreign}, sigstore.ErrIdentity, "", ""},
		{"layer, no time", simple(v.SimpleSignature(t, issuer, subject, image, sigtest.Options{})), ci, sigstore.ErrNoProvenTime, "", ""},
		{"bundle, no time", bundles(v.ImageBundle(t, issuer, subject, image, sigtest.Options{})), ci, sigstore.ErrNoProvenTime, "", ""},
		{"attestation, key", bundles(v.AttestationWithKey(t, ec, "https://slsa.dev/provenance/v1", image, rich)), key(ecKey), sigstore.ErrSignature, "", ""},
		{"attestation, identity", bundles(v.Attestation(t, issuer, subject, "https://spdx.dev/Document", image, rich)), ci, sigstore.ErrSignature, "", ""},
		{"no certificate, identity", both(simple(v.SimpleSignatureWithKey(t, ec, image, rich)), bundles(v.ImageBundleWithKey(t, ec, image, rich))), ci, sigstore.ErrIdentity, "", ""},
		{"identity, but a key", both(simple(v.SimpleSignature(t, issuer, subject, image, rich)), bundles(v.ImageBundle(t, issuer, subject, image, rich))), key(ecKey), sigstore.ErrSignature, "", ""},
		{"no signature in the layer", simple(sigstore.SimpleSignature{Payload: []byte("{}")}), key(ecKey), sigstore.ErrMalformed, "", ""},
		{"payload changed", simple(func() sigstore.SimpleSignature {
			l := v.SimpleSignatureWithKey(t, ec, another, rich)
			l.Payload = []byte(strings.ReplaceAll(string(l.Payload), another, image))
			return l
		}()), key(ecKey), sigstore.ErrSignature, "", ""},
		{"too many", sigstore.ImageSignatures{Bundles: make([][]byte, sigstore.MaxImageSignatures+1)}, key(ecKey), sigstore.ErrSignature, "", ""},
		{"giant", bundles(make([]byte, sigstore.MaxImageSignatureBytes+1)), key(ecKey), sigstore.ErrMalformed, "", ""},
		{"nobody asked for", simple(v.SimpleSignatureWithKey(t, ec, image, rich)), sigstore.SignedBy{}, sigstore.ErrKey, "", ""},
		{"both asked for", simple(v.SimpleSignatureWithKey(t, ec, image, rich)), sigstore.SignedBy{Key: &ecKey, Match: ci.Match, Root: all}, sigstore.ErrKey, "", ""},
		{"identity without a root", simple(v.SimpleSignatureWithKey(t, ec, image, rich)), sigstore.SignedBy{Match: ci.Match}, sigstore.ErrTrustedRoot, "", ""},
	} {
		p, err := c.found.Verify(ctx, image, c.by)
		if !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
			continue
		}
		if err != nil {
			continue
		}
		if p.Form != c.form || kinds(p.Times) != c.times {
			t.Errorf("%s: form %q, times %q, want %q and %q", c.name, p.Form, kinds(p.Times), c.form, c.times)
		}
		if c.by.Key != nil && (p.Key != c.by.Key.Fingerprint || p.Issuer+p.Subject != "") || c.by.Key == nil && (p.Key != "" || p.Issuer != issuer || p.Subject != subject) {
			t.Errorf("%s: signed by %q, %q of %q", c.name, p.Key, p.Subject, p.Issuer)
		}
		if _, err := c.found.Verify(ctx, another, c.by); !errors.Is(err, sigstore.ErrSignature) {
			t.Errorf("%s, asked about another image: %v", c.name, err)
		}
	}
	if _, err := simple(v.SimpleSignatureWithKey(t, ec, "", rich)).Verify(ctx, "", key(ecKey)); !errors.Is(err, sigstore.ErrSignature) {
		t.Errorf("no digest: %v", err)
	}
}

// What the virtual sigstore makes is what cosign makes: cosign's own functions take it.
func TestCosignAccepts(t *testing.T) {
	ctx := context.Background()
	v := sigtest.New(t)
	tr, err := sgroot.NewTrustedRootFromJSON(v.TrustedRoot(t, sigtest.RootOptions{TSA: true, Log: true, CT: true}))
	if err != nil {
		t.Fatal(err)
	}
	ec, ecKey := sigtest.NewKey(t)
	pub, err := cryptoutils.UnmarshalPEMToPublicKey(ecKey.PEM)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := signature.LoadDefaultVerifier(pub)
	if err != nil {
		t.Fatal(err)
	}
	h, err := v1.NewHash(image)
	if err != nil {
		t.Fatal(err)
	}
	sum, err := hex.DecodeString(h.Hex)
	if err != nil {
		t.Fatal(err)
	}
	rich := sigtest.Options{Log: true, TSA: true, SCT: true}
	ids := []cosign.Identity{{Issuer: issuer, Subject: subject}}

	for name, l := range map[string]sigstore.SimpleSignature{
		"key":      v.SimpleSignatureWithKey(t, ec, image, rich),
		"identity": v.SimpleSignature(t, issuer, subject, image, rich),
	} {
		opts := []static.Option{static.WithAnnotations(maps.Clone(l.Annotations))}
		var rekor cbundle.RekorBundle
		if err := json.Unmarshal([]byte(l.Annotations[static.BundleAnnotationKey]), &rekor); err != nil {
			t.Fatal(err)
		}
		var stamp cbundle.RFC3161Timestamp
		if err := json.Unmarshal([]byte(l.Annotations[static.RFC3161TimestampAnnotationKey]), &stamp); err != nil {
			t.Fatal(err)
		}
		opts = append(opts, static.WithBundle(&rekor), static.WithRFC3161Timestamp(&stamp))
		co := &cosign.CheckOpts{TrustedMaterial: tr, Offline: true, UseSignedTimestamps: true, ClaimVerifier: cosign.SimpleClaimVerifier}
		if name == "key" {
			co.SigVerifier = verifier
		} else {
			co.Identities = ids
			opts = append(opts, static.WithCertChain([]byte(l.Annotations[static.CertificateAnnotationKey]), []byte(l.Annotations[static.ChainAnnotationKey])))
		}
		sig, err := static.NewSignature(l.Payload, l.Annotations[static.SignatureAnnotationKey], opts...)
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := cosign.VerifyImageSignature(ctx, sig, h, co); err != nil || !ok {
			t.Errorf("layer, %s: %v %v", name, ok, err)
		}
	}
	for name, c := range map[string]struct {
		raw []byte
		co  cosign.CheckOpts
		of  sgverify.ArtifactPolicyOption
	}{
		"image, key":      {v.ImageBundleWithKey(t, ec, image, rich), cosign.CheckOpts{SigVerifier: verifier}, sgverify.WithArtifactDigest("sha256", sum)},
		"image, identity": {v.ImageBundle(t, issuer, subject, image, rich), cosign.CheckOpts{Identities: ids}, sgverify.WithArtifactDigest("sha256", sum)},
		"blob, identity":  {v.SignBlob(t, issuer, subject, message, rich), cosign.CheckOpts{Identities: ids}, sgverify.WithArtifact(strings.NewReader(string(message)))},
	} {
		var b sgbundle.Bundle
		if err := b.UnmarshalJSON(c.raw); err != nil {
			t.Fatal(err)
		}
		c.co.TrustedMaterial, c.co.Offline, c.co.NewBundleFormat, c.co.UseSignedTimestamps = tr, true, true, true
		if _, err := cosign.VerifyNewBundle(ctx, &c.co, c.of, &b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
