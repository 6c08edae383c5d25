package sigstore_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"testing"

	"github.com/sigstore/cosign/v2/pkg/cosign"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/youmark/pkcs8"

	"github.com/sealift/sealift/internal/sigstore"
)

func TestLoadSignerForms(t *testing.T) {
	ctx := context.Background()
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r2048, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, der []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	plain := func(key crypto.PrivateKey) []byte {
		t.Helper()
		der, err := x509.MarshalPKCS8PrivateKey(key)
		return block("PRIVATE KEY", der, err)
	}
	secret := []byte("secret")
	encrypted := func(key crypto.PrivateKey) []byte {
		t.Helper()
		der, err := pkcs8.MarshalPrivateKey(key, secret, &pkcs8.Opts{
			Cipher:  pkcs8.AES256CBC,
			KDFOpts: pkcs8.PBKDF2Opts{SaltSize: 16, IterationCount: 10000, HMACHash: crypto.SHA256},
		})
		return block("ENCRYPTED PRIVATE KEY", der, err)
	}
	edDetails, err := signature.GetAlgorithmDetails(protocommon.PublicKeyDetails_PKIX_ED25519)
	if err != nil {
		t.Fatal(err)
	}
	cosignEd, err := cosign.GenerateKeyPairWithAlgorithm(&edDetails, func(bool) ([]byte, error) { return secret, nil })
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(p256)
	if err != nil {
		t.Fatal(err)
	}
	old := func(kind string, der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der, Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"}})
	}
	for _, c := range []struct {
		name     string
		private  []byte
		password []byte
		needs    bool
		want     error
	}{
		{"PKCS#8 P-256", plain(p256), nil, false, nil},
		{"PKCS#8 Ed25519", plain(ed), nil, false, nil},
		{"PKCS#8 RSA", plain(r2048), nil, false, nil},
		{"SEC1", block("EC PRIVATE KEY", sec1, nil), nil, false, nil},
		{"SEC1 after its curve", append(block("EC PARAMETERS", []byte{6, 8, 42, 134, 72, 206, 61, 3, 1, 7}, nil), block("EC PRIVATE KEY", sec1, nil)...), nil, false, nil},
		{"PKCS#1", block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(r2048), nil), nil, false, nil},
		{"encrypted PKCS#8 P-256", encrypted(p256), secret, true, nil},
		{"encrypted PKCS#8 Ed25519", encrypted(ed), secret, true, nil},
		{"cosign Ed25519", cosignEd.PrivateBytes, secret, true, nil},

		{"encrypted PKCS#8, wrong password", encrypted(p256), []byte("guess"), true, sigstore.ErrPassword},
		{"encrypted PKCS#8, no password", encrypted(p256), nil, true, sigstore.ErrPassword},
		{"cosign Ed25519, wrong password", cosignEd.PrivateBytes, []byte("guess"), true, sigstore.ErrPassword},
		{"encrypted PKCS#8, broken", block("ENCRYPTED PRIVATE KEY", []byte{48, 0}, nil), secret, true, sigstore.ErrKey},
		{"encrypted as OpenSSL once did", old("EC PRIVATE KEY", sec1), secret, false, sigstore.ErrEncryption},
		{"other curve", plain(p384), nil, false, sigstore.ErrKey},
		{"public key", block("PUBLIC KEY", []byte{48, 0}, nil), nil, false, sigstore.ErrKey},
		{"broken PKCS#8", block("PRIVATE KEY", []byte{48, 0}, nil), nil, false, sigstore.ErrKey},
		{"curve without a key", block("EC PARAMETERS", []byte{5, 0}, nil), nil, false, sigstore.ErrKey},
		{"nothing", nil, nil, false, sigstore.ErrKey},
		{"giant", make([]byte, sigstore.MaxKeyBytes+1), nil, false, sigstore.ErrKey},
	} {
		if got := sigstore.NeedsPassword(c.private); got != c.needs {
			t.Errorf("%s: needs a password: %v", c.name, got)
		}
		s, err := sigstore.LoadSigner(c.private, c.password)
		if !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if err != nil {
			continue
		}
		sig, err := s.Sign(message)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		key, err := sigstore.ParsePublicKey(s.PublicKey().PEM)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if err := key.Verify(ctx, message, sig); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if err := key.Verify(ctx, []byte("another"), sig); !errors.Is(err, sigstore.ErrSignature) {
			t.Errorf("%s, another message: %v", c.name, err)
		}
	}
}

// cosign signs the digest with an Ed25519 key where there is a log, and the message where there is none.
func TestVerifyEd25519Prehashed(t *testing.T) {
	ctx := context.Background()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	key, err := sigstore.ParsePublicKey(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha512.Sum512(message)
	sig, err := private.Sign(nil, sum[:], &ed25519.Options{Hash: crypto.SHA512})
	if err != nil {
		t.Fatal(err)
	}
	raw := fmt.Appendf(nil, `{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"publicKey":{}},`+
		`"messageSignature":{"messageDigest":{"algorithm":"SHA2_512","digest":"%s"},"signature":"%s"}}`,
		base64.StdEncoding.EncodeToString(sum[:]), base64.StdEncoding.EncodeToString(sig))
	if err := key.Verify(ctx, message, raw); err != nil {
		t.Error(err)
	}
	if err := key.Verify(ctx, []byte("another"), raw); !errors.Is(err, sigstore.ErrSignature) {
		t.Errorf("another message: %v", err)
	}
}
