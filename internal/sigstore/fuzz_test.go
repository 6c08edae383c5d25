package sigstore_test

import (
	"context"
	"errors"
	"testing"

	"github.com/sealift/sealift/internal/sigstore"
	"github.com/sealift/sealift/internal/sigstore/sigtest"
)

// The keys are new in each process, so a target is given the key and the trusted root that go
// with the signature: only then is all of the way through the libraries tried.

func given(t *testing.T, public, trusted []byte) (sigstore.PublicKey, *sigstore.TrustedRoot) {
	t.Helper()
	key, err := sigstore.ParsePublicKey(public)
	if err != nil {
		t.Skip()
	}
	r, err := sigstore.ParseTrustedRoot(trusted)
	if err != nil {
		t.Skip()
	}
	return key, r
}

// Whatever the bytes are, verifying them ends with an error of a known kind.
func FuzzParseSignature(f *testing.F) {
	v := sigtest.New(f)
	private, key := sigtest.NewKey(f)
	trusted := v.TrustedRoot(f, sigtest.RootOptions{TSA: true, Log: true})
	for _, o := range []sigtest.Options{{}, {Log: true, TSA: true}, {Log: true, Old: true, NoProof: true}, {Log: true, NoPromise: true}, {SCT: true, TSA: true}} {
		f.Add(v.SignBlobWithKey(f, private, message, o), key.PEM, trusted)
		f.Add(v.SignBlob(f, issuer, subject, message, o), key.PEM, trusted)
		f.Add(v.ImageBundle(f, issuer, subject, image, o), key.PEM, trusted)
	}
	f.Fuzz(func(t *testing.T, raw, public, trusted []byte) {
		key, r := given(t, public, trusted)
		ctx := context.Background()
		by := sigstore.SignedBy{Key: &key, Root: r}
		if _, err := (sigstore.ImageSignatures{Bundles: [][]byte{raw}}).Verify(ctx, another, by); !errors.Is(err, sigstore.ErrSignature) {
			t.Fatalf("of another image: %v", err)
		}
		s, err := sigstore.ParseSignature(raw)
		if err != nil {
			if !errors.Is(err, sigstore.ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		_ = s.Fingerprint()
		i, sub, ok := s.Claims()
		if ok == (i == "" || sub == "") {
			t.Fatalf("claims %q %q %v", i, sub, ok)
		}
		if _, err := s.VerifyKey(ctx, []byte("never signed"), key, r); !errors.Is(err, sigstore.ErrSignature) && !errors.Is(err, sigstore.ErrKey) {
			t.Fatalf("by key: %v", err)
		}
		_, _ = s.VerifyKey(ctx, message, key, r)
		if p, err := s.VerifyIdentity(ctx, message, i, sub, r); err == nil && len(p.Times) == 0 {
			t.Fatal("an identity without a proven time")
		}
		_ = s.CheckCertificate(message)
	})
}

func FuzzSimpleSignature(f *testing.F) {
	v := sigtest.New(f)
	private, key := sigtest.NewKey(f)
	trusted := v.TrustedRoot(f, sigtest.RootOptions{TSA: true, Log: true})
	for _, l := range []sigstore.SimpleSignature{
		v.SimpleSignatureWithKey(f, private, image, sigtest.Options{Log: true, TSA: true}),
		v.SimpleSignature(f, issuer, subject, image, sigtest.Options{Log: true, TSA: true}),
	} {
		f.Add(l.Payload, l.Annotations["dev.cosignproject.cosign/signature"], l.Annotations["dev.sigstore.cosign/certificate"],
			l.Annotations["dev.sigstore.cosign/bundle"], l.Annotations["dev.sigstore.cosign/rfc3161timestamp"], key.PEM, trusted)
	}
	f.Fuzz(func(t *testing.T, payload []byte, sig, cert, bundle, stamp string, public, trusted []byte) {
		key, r := given(t, public, trusted)
		found := sigstore.ImageSignatures{Simple: []sigstore.SimpleSignature{{Payload: payload, Annotations: map[string]string{
			"dev.cosignproject.cosign/signature": sig, "dev.sigstore.cosign/certificate": cert,
			"dev.sigstore.cosign/bundle": bundle, "dev.sigstore.cosign/rfc3161timestamp": stamp,
		}}}}
		for _, by := range []sigstore.SignedBy{{Key: &key, Root: r}, {Match: func(string, string) bool { return true }, Root: r}} {
			if _, err := found.Verify(context.Background(), another, by); !errors.Is(err, sigstore.ErrSignature) {
				t.Fatalf("of another image: %v", err)
			}
			_, _ = found.Verify(context.Background(), image, by)
		}
	})
}

func FuzzParseTrustedRoot(f *testing.F) {
	v := sigtest.New(f)
	sig := v.SignBlob(f, issuer, subject, message, sigtest.Options{Log: true, TSA: true, SCT: true})
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`), sig)
	f.Add(v.TrustedRoot(f, sigtest.RootOptions{TSA: true, Log: true, CT: true}), sig)
	f.Fuzz(func(t *testing.T, raw, sig []byte) {
		r, err := sigstore.ParseTrustedRoot(raw)
		if err != nil {
			if !errors.Is(err, sigstore.ErrTrustedRoot) {
				t.Fatal(err)
			}
			return
		}
		_, _ = r.Certifies(), r.Proves(sigstore.TransparencyLog)
		if s, err := sigstore.ParseSignature(sig); err == nil {
			_, _ = s.VerifyIdentity(context.Background(), message, issuer, subject, r)
		}
	})
}
