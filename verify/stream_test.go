package verify_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/progress"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// streamed is a signed bundle with an image in the middle of its blobs, and an encoded one, as
// the bytes of its file.
func streamed(t *testing.T) (k keys, p *packed, file []byte) {
	t.Helper()
	k = vendor(t)
	p = newPacked([]byte("first"), image, bytes.Repeat([]byte("payload "), 300000), nil)
	p.encode(bytes.Repeat([]byte("a layer that is not compressed "), 100000))
	p.write(t, 0, k.signer)
	file, err := os.ReadFile(p.path)
	if err != nil {
		t.Fatal(err)
	}
	return k, p, file
}

func openStream(file []byte, k keys) (*verify.Bundle, error) {
	return verify.OpenStream(context.Background(), "pipe", struct{ io.Reader }{bytes.NewReader(file)}, k.policy)
}

func mustStream(t *testing.T, file []byte, k keys) *verify.Bundle {
	t.Helper()
	b, err := openStream(file, k)
	if err != nil {
		t.Fatal(err)
	}
	if !b.IsStream() {
		t.Fatal("it says that it is no stream")
	}
	return b
}

func TestStream(t *testing.T) {
	k, p, file := streamed(t)
	ctx := context.Background()
	t.Run("check", func(t *testing.T) {
		b := mustStream(t, file, k)
		if err := b.Check(ctx, progress.Discard); err != nil {
			t.Fatal(err)
		}
		if err := b.Check(ctx, progress.Discard); !errors.Is(err, archive.ErrStream) {
			t.Errorf("a second time: %v", err)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Run("inspect", func(t *testing.T) {
		u, _, err := verify.InspectStream(ctx, "pipe", bytes.NewReader(file), verify.Policy{})
		if err != nil || u.Digest != manifest.Digest(p.raw) || u.Size != int64(len(file)) || u.Signatures != 1 {
			t.Fatalf("%+v, %v", u, err)
		}
	})
	for _, preload := range []bool{false, true} {
		t.Run("each", func(t *testing.T) {
			b := mustStream(t, file, k)
			if preload {
				for range 2 { // the second one has nothing to do
					if err := b.Preload(ctx, progress.Discard); err != nil {
						t.Fatal(err)
					}
				}
				// What has passed is there, as often as it is wanted, and nothing else.
				for range 2 {
					if raw, err := b.ReadBlob(manifest.Digest(image), 1000); err != nil || !bytes.Equal(raw, image) {
						t.Fatalf("%q, %v", raw, err)
					}
				}
			}
			if _, err := b.ReadBlob(p.m.Blobs[2].Digest, 1<<30); !errors.Is(err, archive.ErrStream) {
				t.Errorf("a blob that is still to come: %v", err)
			}
			var got [][]byte
			if err := b.Each(ctx, progress.Discard, func(_ context.Context, blob manifest.Blob, content io.Reader) error {
				raw, err := io.ReadAll(content)
				if manifest.Digest(raw) != blob.Digest {
					t.Errorf("%d bytes are given out as %s", len(raw), blob.Digest)
				}
				got = append(got, raw)
				return err
			}); err != nil {
				t.Fatal(err)
			}
			if len(got) != len(p.blobs) {
				t.Fatalf("%d blobs, want %d", len(got), len(p.blobs))
			}
			for i := range got {
				if !bytes.Equal(got[i], p.blobs[i]) {
					t.Errorf("blob %d has %d bytes, want %d", i, len(got[i]), len(p.blobs[i]))
				}
			}
			if err := b.Each(ctx, progress.Discard, nil); !errors.Is(err, verify.ErrStreamUsed) {
				t.Errorf("a second time: %v", err)
			}
		})
	}
}

// TestStreamIsProvenToItsEnd, also where nobody wants what is in it.
func TestStreamIsProvenToItsEnd(t *testing.T) {
	k, _, file := streamed(t)
	ctx := context.Background()
	visits := map[string]verify.Visit{
		"reading nothing": func(context.Context, manifest.Blob, io.Reader) error { return nil },
		"reading a byte": func(_ context.Context, _ manifest.Blob, r io.Reader) error {
			_, err := io.CopyN(io.Discard, r, 1)
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		},
		"reading all": func(_ context.Context, blob manifest.Blob, r io.Reader) error {
			n, err := io.Copy(io.Discard, r)
			if err == nil && n != blob.Size {
				t.Errorf("%d bytes of %d are given out as complete", n, blob.Size)
			}
			return err
		},
	}
	bad := map[string][]byte{"a byte more": append(bytes.Clone(file), 0), "cut by a byte": file[:len(file)-1], "cut in two": file[:len(file)/2]}
	for name, at := range map[string]int{"head": 5000, "payload": len(file) / 2, "tables": len(file) - 100, "the last byte": len(file) - 1} {
		b := bytes.Clone(file)
		b[at] ^= 2
		bad["a bit in the "+name] = b
	}
	for name, file := range bad {
		b, err := openStream(file, k)
		if err != nil {
			var content *verify.ContentError
			if !errors.As(err, &content) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		var content *verify.ContentError
		if err := b.Check(ctx, progress.Discard); !errors.As(err, &content) {
			t.Errorf("%s: %v, want *ContentError", name, err)
		}
		for how, visit := range visits {
			b := mustStream(t, file, k)
			if err := b.Each(ctx, progress.Discard, visit); !errors.As(err, &content) {
				t.Errorf("%s, %s: %v, want *ContentError", name, how, err)
			}
		}
	}
}

// TestVisitEndsAStream: the error of a visit is given back as it is.
func TestVisitEndsAStream(t *testing.T) {
	k, p, file := streamed(t)
	mine := errors.New("mine")
	n := 0
	err := mustStream(t, file, k).Each(context.Background(), progress.Discard, func(context.Context, manifest.Blob, io.Reader) error {
		n++
		return mine
	})
	if !errors.Is(err, mine) || n != 1 {
		t.Errorf("%v after %d visits", err, n)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n = 0
	err = mustStream(t, file, k).Each(ctx, progress.Discard, func(context.Context, manifest.Blob, io.Reader) error {
		n++
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) || n != 1 {
		t.Errorf("the context ended in the first visit: %v after %d of %d", err, n, len(p.blobs))
	}
	if err := mustStream(t, file, k).Preload(ctx, progress.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("loading: %v", err)
	}
}

// TestContentIsTakenBack: who goes on reading after its visit has returned, as an HTTP transport
// may, gets an error, and nothing of what follows.
func TestContentIsTakenBack(t *testing.T) {
	k, _, file := streamed(t)
	var wg sync.WaitGroup
	var kept []io.Reader
	if err := mustStream(t, file, k).Each(context.Background(), progress.Discard, func(_ context.Context, blob manifest.Blob, r io.Reader) error {
		kept = append(kept, r)
		begun := make(chan struct{})
		wg.Go(func() {
			var n int64
			buf := make([]byte, 1000)
			for i := 0; ; i++ {
				got, err := r.Read(buf)
				n += int64(got)
				if i == 0 {
					close(begun)
				}
				if err != nil {
					break
				}
			}
			if n > blob.Size {
				t.Errorf("%d bytes were read of a blob of %d", n, blob.Size)
			}
		})
		<-begun
		return nil
	}); err != nil {
		t.Error(err)
	}
	wg.Wait()
	for _, r := range kept {
		if n, err := r.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%d bytes after all, %v", n, err)
		}
	}
}

// TestStreamsAreNotBelieved any more than files are.
func TestStreamsAreNotBelieved(t *testing.T) {
	k, p, file := streamed(t)
	ctx := context.Background()
	if _, err := verify.OpenStream(ctx, "pipe", bytes.NewReader(file), verify.Policy{}); !errors.Is(err, verify.ErrNoPolicy) {
		t.Errorf("no policy: %v", err)
	}
	var untrusted *verify.UntrustedError
	if _, err := openStream(file, newKeys(t)); !errors.As(err, &untrusted) {
		t.Errorf("another key: %v", err)
	}
	unsigned := *p
	unsigned.write(t, 0)
	raw, err := os.ReadFile(unsigned.path)
	if err != nil {
		t.Fatal(err)
	}
	var none *verify.UnsignedError
	if _, err := openStream(raw, k); !errors.As(err, &none) {
		t.Errorf("not signed: %v", err)
	}
	if _, err := verify.OpenStream(ctx, "pipe", strings.NewReader("#!/bin/sh"), k.policy); !errors.Is(err, archive.ErrNotBundle) {
		t.Errorf("not a bundle: %v", err)
	}
	if _, err := verify.OpenStream(ctx, "pipe", strings.NewReader(""), k.policy); !errors.Is(err, archive.ErrNotBundle) {
		t.Errorf("nothing: %v", err)
	}
}

// TestPreloadIsBounded: what lies before the last image manifest may be too much for a stream.
func TestPreloadIsBounded(t *testing.T) {
	k := vendor(t)
	p := newPacked(make([]byte, 1<<20))
	p.encode(make([]byte, 65<<20))
	p.add(image)
	p.write(t, 0, k.signer)
	file, err := os.ReadFile(p.path)
	if err != nil {
		t.Fatal(err)
	}
	if err := mustStream(t, file, k).Preload(context.Background(), progress.Discard); !errors.Is(err, verify.ErrPreload) {
		t.Fatal(err)
	}
	// It is a good bundle all the same.
	if err := mustStream(t, file, k).Check(context.Background(), progress.Discard); err != nil {
		t.Fatal(err)
	}
}
