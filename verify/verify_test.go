package verify_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/progress"
	"github.com/sealift/sealift/internal/sigstore"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

type keys struct {
	signer *sigstore.Signer
	policy verify.Policy
}

func newKeys(t *testing.T) keys {
	t.Helper()
	private, public, err := sigstore.GenerateKeyPair(nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := sigstore.LoadSigner(private, nil)
	if err != nil {
		t.Fatal(err)
	}
	k, err := sigstore.ParsePublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return keys{s, verify.Policy{Keys: []sigstore.PublicKey{k}}}
}

// bundle writes a bundle with one blob and returns its path and the blob's digest.
func bundle(t *testing.T, version string, sign ...*sigstore.Signer) (path, digest string, raw []byte) {
	t.Helper()
	blob := bytes.Repeat([]byte("payload "), 300000)
	m := &manifest.Manifest{
		MediaType: manifest.MediaType, Format: 1, Name: "t", Version: version, Channel: "stable",
		Created: "2026-01-02T03:04:05Z", Platforms: []string{"linux/amd64"},
		Blobs: []manifest.Blob{{Digest: manifest.Digest(blob), Size: int64(len(blob)), MediaType: "text/plain", Encoding: manifest.EncodingStored}},
	}
	if err := manifest.Arrange(m); err != nil {
		t.Fatal(err)
	}
	raw, err := manifest.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	idx, err := manifest.OCIIndex(m)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "b.tar.zst")
	write(t, path, raw, m.Entries, [][]byte{manifest.OCILayout(), idx, blob}, sign...)
	return path, manifest.Digest(blob), raw
}

// write makes a bundle file of any manifest bytes.
func write(t *testing.T, path string, raw []byte, entries []manifest.Entry, contents [][]byte, sign ...*sigstore.Signer) {
	t.Helper()
	l, err := archive.NewLayout(int64(len(raw)), 0, entries)
	if err != nil {
		t.Fatal(err)
	}
	w, err := archive.Create(path, raw, l)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range contents {
		if err := w.WriteEntry(context.Background(), i, bytes.NewReader(c), func(int64) {}); err != nil {
			t.Fatal(err)
		}
	}
	var sigs [][]byte
	for _, s := range sign {
		sig, err := s.Sign(raw)
		if err != nil {
			t.Fatal(err)
		}
		sigs = append(sigs, sig)
	}
	if err := w.Commit(sigs); err != nil {
		t.Fatal(err)
	}
}

func TestOpenAndCheck(t *testing.T) {
	k, stranger := newKeys(t), newKeys(t)
	path, digest, raw := bundle(t, "1.0.0", stranger.signer, k.signer)
	b, err := verify.Open(context.Background(), path, k.policy)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if e := b.Evidence(); e.Manifest != manifest.Digest(raw) || e.Key != k.policy.Keys[0].Fingerprint || e.Ignored != 1 || e.Detached {
		t.Fatalf("evidence %+v", e)
	}
	if err := b.Check(context.Background(), progress.Discard); err != nil {
		t.Fatal(err)
	}
	r, err := b.Blob(digest)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(r)
	if err != nil || manifest.Digest(content) != digest {
		t.Fatalf("%d bytes, %v", len(content), err)
	}
	if _, err := b.ReadBlob(digest, 100); err == nil {
		t.Fatal("the limit was not kept")
	}
	for _, wrong := range []string{"sha256:../../x", manifest.Digest(nil), ""} {
		if _, err := b.Blob(wrong); err == nil {
			t.Errorf("blob %q was opened", wrong)
		}
	}
}

func TestZeroPolicyRefuses(t *testing.T) {
	path, _, _ := bundle(t, "1.0.0", newKeys(t).signer)
	if _, err := verify.Open(context.Background(), path, verify.Policy{}); !errors.Is(err, verify.ErrNoPolicy) {
		t.Fatal(err)
	}
	// A policy whose key is the zero value has no key either.
	var untrusted *verify.UntrustedError
	if _, err := verify.Open(context.Background(), path, verify.Policy{Keys: make([]sigstore.PublicKey, 1)}); !errors.As(err, &untrusted) {
		t.Fatal(err)
	}
}

func TestSignatureOfAnotherManifest(t *testing.T) {
	k := newKeys(t)
	one, _, _ := bundle(t, "1.0.0")
	_, _, raw := bundle(t, "1.0.1", k.signer)
	sig, err := k.signer.Sign(raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(one+verify.DetachedSuffix, sig, 0o600); err != nil {
		t.Fatal(err)
	}
	var untrusted *verify.UntrustedError
	if _, err := verify.Open(context.Background(), one, k.policy); !errors.As(err, &untrusted) {
		t.Fatalf("%v, want *UntrustedError", err)
	}
}

func TestDetachedSignature(t *testing.T) {
	k := newKeys(t)
	path, _, raw := bundle(t, "1.0.0")
	var unsigned *verify.UnsignedError
	if _, err := verify.Open(context.Background(), path, k.policy); !errors.As(err, &unsigned) {
		t.Fatalf("%v, want *UnsignedError", err)
	}
	sig, err := k.signer.Sign(raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+verify.DetachedSuffix, sig, 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := verify.Open(context.Background(), path, k.policy)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if !b.Evidence().Detached {
		t.Fatal("evidence does not say that the signature is detached")
	}
}

// TestSignedButNotCanonical: the vendor's key signed bytes that a reader could take in more
// than one way. They are refused although the signature holds.
func TestSignedButNotCanonical(t *testing.T) {
	k := newKeys(t)
	_, _, raw := bundle(t, "1.0.0")
	for name, bad := range map[string][]byte{
		"trailing newline": append(bytes.Clone(raw), '\n'),
		"duplicate key":    bytes.Replace(raw, []byte(`"name":"t"`), []byte(`"name":"x","name":"t"`), 1),
		"not a manifest":   []byte(`{"mediaType":"application/vnd.sealift.receipt.v1+json"}`),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "b")
			write(t, path, bad, nil, nil, k.signer)
			var content *verify.ContentError
			if _, err := verify.Open(context.Background(), path, k.policy); !errors.As(err, &content) {
				t.Fatalf("%v, want *ContentError", err)
			}
		})
	}
}

// TestPayloadOfAnotherVersion puts the payload of one bundle behind the manifest of another.
func TestPayloadOfAnotherVersion(t *testing.T) {
	k := newKeys(t)
	path, digest, _ := bundle(t, "1.0.0", k.signer)
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// The blob's first frame, framed correctly, with other content of the same size.
	at := bytes.Index(file, []byte("payload "))
	other := append(bytes.Clone(file[:at]), bytes.ReplaceAll(file[at:], []byte("payload"), []byte("PAYLOAD"))...)
	if err := os.WriteFile(path, other, 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := verify.Open(context.Background(), path, k.policy)
	if err == nil {
		defer b.Close()
		err = b.Check(context.Background(), progress.Discard)
	}
	var damage *archive.DamageError
	if !errors.As(err, &damage) {
		t.Fatalf("%v, want *DamageError", err)
	}
	if b != nil {
		r, err := b.Blob(digest)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); !errors.As(err, &damage) {
			t.Fatalf("the blob was read: %v", err)
		}
	}
}

func TestPipesAreNotWaitedFor(t *testing.T) {
	k := newKeys(t)
	path, _, _ := bundle(t, "1.0.0", k.signer)
	if err := mkfifo(path + verify.DetachedSuffix); err != nil {
		t.Skipf("no pipes here: %v", err)
	}
	b, err := verify.Open(context.Background(), path, k.policy)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := verify.Open(context.Background(), path+verify.DetachedSuffix, k.policy); !errors.Is(err, archive.ErrNotBundle) {
		t.Fatal(err)
	}
}

func TestCheckEndsWithItsContext(t *testing.T) {
	k := newKeys(t)
	path, _, _ := bundle(t, "1.0.0", k.signer)
	b, err := verify.Open(context.Background(), path, k.policy)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := b.Check(ctx, progress.Discard); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}
