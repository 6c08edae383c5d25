package verify_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
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
	k, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func generate() (keys, error) {
	private, public, err := sigstore.GenerateKeyPair(nil)
	if err != nil {
		return keys{}, err
	}
	s, err := sigstore.LoadSigner(private, nil)
	if err != nil {
		return keys{}, err
	}
	k, err := sigstore.ParsePublicKey(public)
	return keys{s, verify.Policy{Keys: []sigstore.PublicKey{k}}}, err
}

// vendorKeys takes its time once, since the file of a private key does.
var vendorKeys = sync.OnceValues(generate)

// vendor is the one that is to be trusted.
func vendor(t *testing.T) keys {
	t.Helper()
	k, err := vendorKeys()
	if err != nil {
		t.Fatal(err)
	}
	return k
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
	if err := manifest.Arrange(m, nil); err != nil {
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
	writeVolumes(t, path, 0, raw, entries, contents, sign...)
}

// writeVolumes is write in volumes of this size.
func writeVolumes(t *testing.T, path string, volume int64, raw []byte, entries []manifest.Entry, contents [][]byte, sign ...*sigstore.Signer) {
	t.Helper()
	l, err := archive.NewLayout(int64(len(raw)), 0, entries)
	if err != nil {
		t.Fatal(err)
	}
	w, err := archive.NewWriter(archive.Plan{
		Path: path, Volume: volume, Entries: entries, Head: l.Head(), Size: l.Size(), Journal: archive.NewJournal(volume, raw),
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range contents {
		if err := w.Entry(i).Fill(context.Background(), bytes.NewReader(c), func(int64) {}); err != nil {
			t.Fatal(err)
		}
	}
	finish(t, w, raw, l, sign...)
}

// finish seals a bundle and gives it its name.
func finish(t *testing.T, w *archive.Writer, raw []byte, l *archive.Layout, sign ...*sigstore.Signer) {
	t.Helper()
	o := archive.SealOptions{Manifest: raw, Layout: l, Done: func(int64) {}}
	for _, s := range sign {
		sig, err := s.Sign(raw)
		if err != nil {
			t.Fatal(err)
		}
		o.Signatures = append(o.Signatures, sig)
	}
	if err := w.Seal(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	if err := w.Publish(); err != nil {
		t.Fatal(err)
	}
}

// open finds the one bundle at path and opens it.
func open(path string, policy verify.Policy) (*verify.Bundle, error) {
	found, err := verify.Find([]string{path})
	if err != nil {
		return nil, err
	}
	return verify.Open(context.Background(), found[0], policy)
}

func TestOpenAndCheck(t *testing.T) {
	k, stranger := vendor(t), newKeys(t)
	path, digest, raw := bundle(t, "1.0.0", stranger.signer, k.signer)
	b, err := open(path, k.policy)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if e := b.Evidence(); e.Manifest != manifest.Digest(raw) || len(e.Signed) != 1 || e.Signed[0].Key != k.policy.Keys[0].Fingerprint || e.Ignored != 1 || e.Signed[0].Detached {
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
	path, _, _ := bundle(t, "1.0.0", vendor(t).signer)
	if _, err := open(path, verify.Policy{}); !errors.Is(err, verify.ErrNoPolicy) {
		t.Fatal(err)
	}
	// A policy whose key is the zero value has no key either.
	var untrusted *verify.UntrustedError
	if _, err := open(path, verify.Policy{Keys: make([]sigstore.PublicKey, 1)}); !errors.As(err, &untrusted) {
		t.Fatal(err)
	}
}

func TestSignatureOfAnotherManifest(t *testing.T) {
	k := vendor(t)
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
	if _, err := open(one, k.policy); !errors.As(err, &untrusted) {
		t.Fatalf("%v, want *UntrustedError", err)
	}
}

func TestDetachedSignature(t *testing.T) {
	k := vendor(t)
	path, _, raw := bundle(t, "1.0.0")
	var unsigned *verify.UnsignedError
	if _, err := open(path, k.policy); !errors.As(err, &unsigned) {
		t.Fatalf("%v, want *UnsignedError", err)
	}
	sig, err := k.signer.Sign(raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+verify.DetachedSuffix, sig, 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := open(path, k.policy)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if !b.Evidence().Signed[0].Detached {
		t.Fatal("evidence does not say that the signature is detached")
	}
}

// TestSignedButNotCanonical: the vendor's key signed bytes that a reader could take in more
// than one way. They are refused although the signature holds.
func TestSignedButNotCanonical(t *testing.T) {
	k := vendor(t)
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
			if _, err := open(path, k.policy); !errors.As(err, &content) {
				t.Fatalf("%v, want *ContentError", err)
			}
		})
	}
}

// TestPayloadOfAnotherVersion puts the payload of one bundle behind the manifest of another.
func TestPayloadOfAnotherVersion(t *testing.T) {
	k := vendor(t)
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
	b, err := open(path, k.policy)
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
	k := vendor(t)
	path, _, _ := bundle(t, "1.0.0", k.signer)
	if err := mkfifo(path + verify.DetachedSuffix); err != nil {
		t.Skipf("no pipes here: %v", err)
	}
	b, err := open(path, k.policy)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := open(path+verify.DetachedSuffix, k.policy); !errors.Is(err, archive.ErrNotBundle) {
		t.Fatal(err)
	}
}

func TestCheckEndsWithItsContext(t *testing.T) {
	k := vendor(t)
	path, _, _ := bundle(t, "1.0.0", k.signer)
	b, err := open(path, k.policy)
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
