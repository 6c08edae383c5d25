package sigstore_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/sealift/sealift/internal/sigstore"
)

func TestIsKMS(t *testing.T) {
	for ref, want := range map[string]bool{
		"awskms:///alias/x": true, "pkcs11://slot": true, "a://": true,
		"key.pem": false, "": false, "://x": false, "AWSKMS://x": false, "a-b://x": false, "../a://x": false, "dir/a://x": false, "a:/x": false,
	} {
		if got := sigstore.IsKMS(ref); got != want {
			t.Errorf("%q: %v", ref, got)
		}
	}
}

// buildPlugin puts the test's key management service on PATH, and nothing else.
func buildPlugin(t *testing.T) {
	t.Helper()
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("no go command to build the plugin with")
	}
	bin := t.TempDir()
	cmd := exec.CommandContext(t.Context(), goTool, "build", "-o", filepath.Join(bin, "sigstore-kms-sealifttest"), "./testdata/kms")
	cmd.Dir = filepath.Join("..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building the plugin: %v\n%s", err, out)
	}
	t.Setenv("PATH", bin)
}

func keyDir(t *testing.T, key crypto.PrivateKey) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestKMS(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program")
	}
	ctx := context.Background()
	buildPlugin(t)
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
	for name, key := range map[string]crypto.PrivateKey{"P-256": p256, "Ed25519": ed} {
		ref := "sealifttest://" + keyDir(t, key)
		s, err := sigstore.LoadKMSSigner(ctx, ref)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		public, err := sigstore.KMSPublicKey(ctx, ref)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if public.Fingerprint != s.PublicKey().Fingerprint {
			t.Errorf("%s: fingerprints %s and %s", name, public.Fingerprint, s.PublicKey().Fingerprint)
		}
		sig, err := s.Sign(message)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := public.Verify(ctx, message, sig); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := public.Verify(ctx, []byte("another"), sig); !errors.Is(err, sigstore.ErrSignature) {
			t.Errorf("%s, another message: %v", name, err)
		}
		liar, err := sigstore.LoadKMSSigner(ctx, ref+"?wrong")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := liar.Sign(message); !errors.Is(err, sigstore.ErrSignature) {
			t.Errorf("%s, a plugin that signs something else: %v", name, err)
		}
	}

	for _, c := range []struct {
		name string
		stop bool
		ref  string
		want error
	}{
		{"no plugin", false, "sealiftnone://x", sigstore.ErrNoPlugin},
		{"no reference", false, "key.pem", sigstore.ErrKey},
		{"curve that is not supported", false, "sealifttest://" + keyDir(t, p384), sigstore.ErrKey},
		{"no such key", false, "sealifttest://" + t.TempDir(), nil},
		{"stopped", true, "sealifttest://" + keyDir(t, p256), context.Canceled},
	} {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		if c.stop {
			cancel()
		}
		_, err := sigstore.LoadKMSSigner(ctx, c.ref)
		var k *sigstore.KMSError
		if !errors.As(err, &k) || k.Ref != c.ref || (c.want != nil && !errors.Is(err, c.want)) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}
