package sigstore_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/sealift/sealift/internal/sigstore"
)

func TestSignAndVerify(t *testing.T) {
	ctx := context.Background()
	private, public, err := sigstore.GenerateKeyPair([]byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	_, stranger, err := sigstore.GenerateKeyPair([]byte(""))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sigstore.LoadSigner(private, []byte("guess")); !errors.Is(err, sigstore.ErrPassword) {
		t.Fatalf("wrong password: %v", err)
	}
	if _, err := sigstore.LoadSigner(public, []byte("secret")); !errors.Is(err, sigstore.ErrKey) {
		t.Fatalf("a public key as the private one: %v", err)
	}
	if _, err := sigstore.ParsePublicKey(private); !errors.Is(err, sigstore.ErrKey) {
		t.Fatalf("a private key as the public one: %v", err)
	}
	s, err := sigstore.LoadSigner(private, []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := sigstore.ParsePublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	if key.Fingerprint != s.PublicKey().Fingerprint {
		t.Fatalf("fingerprints %s and %s", key.Fingerprint, s.PublicKey().Fingerprint)
	}
	other, err := sigstore.ParsePublicKey(stranger)
	if err != nil {
		t.Fatal(err)
	}
	message := []byte(`{"a":"message"}`)
	sig, err := s.Sign(message)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		key     sigstore.PublicKey
		message []byte
		sig     []byte
		want    error
	}{
		{"right", key, message, sig, nil},
		{"wrong key", other, message, sig, sigstore.ErrSignature},
		{"no key", sigstore.PublicKey{}, message, sig, sigstore.ErrKey},
		{"other message", key, []byte(`{"a":"Message"}`), sig, sigstore.ErrSignature},
		{"empty message", key, nil, sig, sigstore.ErrSignature},
		{"no signature", key, message, nil, sigstore.ErrMalformed},
		{"not JSON", key, message, []byte("x"), sigstore.ErrMalformed},
		{"giant", key, message, bytes.Repeat([]byte(" "), sigstore.MaxSignatureBytes+1), sigstore.ErrMalformed},
		{"cut", key, message, sig[:len(sig)-2], sigstore.ErrMalformed},
	} {
		if err := c.key.Verify(ctx, c.message, c.sig); !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}
