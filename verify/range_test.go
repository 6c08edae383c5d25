package verify_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// ranges opens the blobs of a bundle that was written.
func ranges(t *testing.T, p *packed) *verify.Ranges {
	t.Helper()
	b := openBundle(t, p)
	r, err := verify.NewRanges(b)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func openBundle(t *testing.T, p *packed) *verify.Bundle {
	t.Helper()
	found, err := verify.Find([]string{p.path})
	if err != nil {
		t.Fatal(err)
	}
	b, err := verify.Open(t.Context(), found[0], vendor(t).policy)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func noise(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.NewPCG(seed, 1)
	for i := range b {
		b[i] = byte(r.Uint64())
	}
	return b
}

func get(r *verify.Ranges, digest string, offset, n int64) ([]byte, error) {
	content, err := r.Range(context.Background(), digest, offset, n)
	if err != nil {
		return nil, err
	}
	defer content.Close()
	return io.ReadAll(content)
}

// copied is get through WriteTo.
func copied(r *verify.Ranges, digest string, offset, n int64) ([]byte, error) {
	content, err := r.Range(context.Background(), digest, offset, n)
	if err != nil {
		return nil, err
	}
	defer content.Close()
	var b bytes.Buffer
	_, err = io.Copy(&b, content)
	return b.Bytes(), err
}

const (
	block = 128 << 10
	frame = 1 << 20
)

// places are those around which something begins or ends.
func places(size int64) []int64 {
	var all []int64
	for _, at := range []int64{0, 511, block, 2*block - 1, frame, frame + block, 2 * frame, size / 2, size} {
		for _, p := range []int64{at - 1, at, at + 1} {
			if p >= 0 && p <= size {
				all = append(all, p)
			}
		}
	}
	return all
}

func TestRanges(t *testing.T) {
	sizes := []int{0, 1, 511, 512, block - 1, block, block + 1, frame - 1, frame, frame + 1, frame + block, 2*frame + 3*block + 700}
	for _, volume := range []int64{0, 1 << 20} {
		t.Run(fmt.Sprint("volumes of ", volume), func(t *testing.T) {
			p := newPacked()
			for i, n := range sizes {
				p.add(noise(n, uint64(i)))
			}
			p.encode(bytes.Repeat(noise(3000, 99), 800))
			p.encode([]byte("short"))
			p.write(t, volume, vendor(t).signer)
			r := ranges(t, p)
			for i, blob := range p.m.Blobs {
				want := p.blobs[i]
				all := places(blob.Size)
				for _, from := range all {
					for _, to := range all {
						if to < from {
							continue
						}
						if got, err := get(r, blob.Digest, from, to-from); err != nil || !bytes.Equal(got, want[from:to]) {
							t.Fatalf("bytes %d to %d of %d (%s): %d bytes, %v", from, to, blob.Size, blob.Encoding, len(got), err)
						}
						if got, err := copied(r, blob.Digest, from, to-from); err != nil || !bytes.Equal(got, want[from:to]) {
							t.Fatalf("copying bytes %d to %d of %d (%s): %d bytes, %v", from, to, blob.Size, blob.Encoding, len(got), err)
						}
					}
				}
				for _, bad := range [][2]int64{{-1, 1}, {0, -1}, {0, blob.Size + 1}, {blob.Size + 1, 0}, {1, 1<<63 - 1}} {
					if _, err := r.Range(t.Context(), blob.Digest, bad[0], bad[1]); err == nil {
						t.Fatalf("bytes %d and %d more of %d", bad[0], bad[1], blob.Size)
					}
				}
			}
			if _, err := r.Range(t.Context(), manifest.Digest([]byte("other")), 0, 0); err == nil {
				t.Fatal("a blob of another bundle")
			}
		})
	}
}

// TestRangesAtTheSameTime reads one bundle from many sides: nobody may get the bytes of another.
func TestRangesAtTheSameTime(t *testing.T) {
	p := newPacked(noise(3*frame+77, 1), noise(2*frame, 2), noise(700, 3))
	p.encode(bytes.Repeat(noise(999, 4), 2000))
	p.write(t, 0, vendor(t).signer)
	r := ranges(t, p)
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			g := rand.New(rand.NewPCG(uint64(i), 7))
			for range 20 {
				k := g.IntN(len(p.blobs))
				want := p.blobs[k]
				from := g.IntN(len(want))
				n := g.IntN(len(want) - from + 1)
				got, err := copied(r, p.m.Blobs[k].Digest, int64(from), int64(n))
				if err != nil || !bytes.Equal(got, want[from:from+n]) {
					t.Errorf("bytes %d to %d of blob %d: %v", from, from+n, k, err)
				}
			}
		})
	}
	all.Wait()
}

// find is where in the file content lies.
func find(t *testing.T, path string, content []byte) int64 {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(raw, content)
	if at < 0 {
		t.Fatal("not in the file")
	}
	return int64(at)
}

func change(t *testing.T, path string, at int64, b ...byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestRangesOfDamage flips bytes everywhere around a blob. What is read there never ends well, and
// what is read beside it is not disturbed.
func TestRangesOfDamage(t *testing.T) {
	content := noise(2*frame+block+100, 5)
	p := newPacked(content)
	p.write(t, 0, vendor(t).signer)
	r := ranges(t, p)
	digest := p.m.Blobs[0].Digest
	start := find(t, p.path, content[:block])
	second := find(t, p.path, content[frame:frame+block])
	for name, at := range map[string]int64{
		"content": start + 5, "last byte of a block": start + block - 1, "block header": start + block, "frame header": start - 13,
		"end of the first frame's checksum": second - 14, "name of the entry": start - 13 - 529 + 13 + 5, "second frame": second + 50,
	} {
		raw, err := os.ReadFile(p.path)
		if err != nil {
			t.Fatal(err)
		}
		change(t, p.path, at, raw[at]^0x10)
		got, err := copied(r, digest, 0, int64(len(content)))
		var damage *archive.DamageError
		if !errors.As(err, &damage) || int64(len(got)) >= int64(len(content)) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		// The third frame is whole, but for what stands before all of them.
		got, err = get(r, digest, 2*frame+10, 1000)
		if name != "name of the entry" && (err != nil || !bytes.Equal(got, content[2*frame+10:][:1000])) {
			t.Errorf("%s: the third frame: %v", name, err)
		}
		// A part of a frame is given out only if all of the frame is whole.
		if name == "content" || name == "last byte of a block" || name == "block header" {
			if got, err = get(r, digest, 3*block, 100); err == nil || len(got) > 0 {
				t.Errorf("%s: a part of the same frame: %d bytes, %v", name, len(got), err)
			}
			if got, err = get(r, digest, 0, 5); err == nil || len(got) > 0 {
				t.Errorf("%s: the beginning of the same frame: %d bytes, %v", name, len(got), err)
			}
		}
		change(t, p.path, at, raw[at])
	}
	if got, err := get(r, digest, 0, int64(len(content))); err != nil || !bytes.Equal(got, content) {
		t.Fatal(err)
	}
}

// TestRangesOfForgery changes content together with the checksum of its frame, which only the digest
// can tell: before the first time that the blob is read, and between two times.
func TestRangesOfForgery(t *testing.T) {
	content := noise(frame+block, 6)
	p := newPacked(content)
	p.write(t, 0, vendor(t).signer)
	r := ranges(t, p)
	digest := p.m.Blobs[0].Digest
	start := find(t, p.path, content[:block])
	forge := func(b byte) {
		other := bytes.Clone(content)
		other[7] = b
		sum := uint32(xxhash.Sum64(other[:frame]))
		change(t, p.path, start+7, b)
		change(t, p.path, start+frame+7*3, byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24))
	}
	whole := int64(len(content))
	forge(content[7] ^ 1)
	if got, err := get(r, digest, 0, whole); err == nil || int64(len(got)) == whole {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	forge(content[7])
	for range 2 { // the second time without the digest
		if got, err := copied(r, digest, 0, whole); err != nil || !bytes.Equal(got, content) {
			t.Fatal(err)
		}
	}
	forge(content[7] ^ 1)
	if got, err := copied(r, digest, 0, whole); err == nil || int64(len(got)) == whole {
		t.Fatalf("after it was proven: %d bytes, %v", len(got), err)
	}
}

// TestRangesReadTogether has several readers of one blob, of which each goes its own way. What one has
// hashed the others rely on, and must not where it cannot be relied on.
func TestRangesReadTogether(t *testing.T) {
	content := noise(3*frame, 9)
	whole := int64(len(content))
	setUp := func(t *testing.T) (p *packed, r *verify.Ranges, half func() io.ReadCloser, rest func(io.Reader) error) {
		p = newPacked(content)
		p.write(t, 0, vendor(t).signer)
		r = ranges(t, p)
		half = func() io.ReadCloser {
			c, err := r.Range(t.Context(), p.m.Blobs[0].Digest, 0, whole)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.CopyN(io.Discard, c, whole/2); err != nil {
				t.Fatal(err)
			}
			return c
		}
		rest = func(c io.Reader) error {
			n, err := io.Copy(io.Discard, c)
			if (err == nil) != (n == whole-whole/2) {
				t.Fatalf("%d bytes, %v", n, err)
			}
			return err
		}
		return p, r, half, rest
	}
	t.Run("the first one leaves", func(t *testing.T) {
		p, r, half, _ := setUp(t)
		half().Close()
		if got, err := copied(r, p.m.Blobs[0].Digest, 0, whole); err != nil || !bytes.Equal(got, content) {
			t.Fatal(err)
		}
	})
	t.Run("one overtakes", func(t *testing.T) {
		_, _, half, rest := setUp(t)
		a, b := half(), half()
		defer a.Close()
		defer b.Close()
		if err := errors.Join(rest(b), rest(a)); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("forged after others have proven it", func(t *testing.T) {
		p, _, half, rest := setUp(t)
		a, b := half(), half()
		defer a.Close()
		defer b.Close()
		if err := rest(b); err != nil {
			t.Fatal(err)
		}
		last := bytes.Clone(content[2*frame:])
		last[0] ^= 1
		start := find(t, p.path, content[2*frame:2*frame+block])
		sum := uint32(xxhash.Sum64(last))
		change(t, p.path, start, last[0])
		change(t, p.path, start+frame+7*3, byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24))
		if rest(a) == nil {
			t.Fatal("what was forged was given out")
		}
	})
	t.Run("one meets damage that passes", func(t *testing.T) {
		p, r, half, rest := setUp(t)
		a, b := half(), half()
		defer a.Close()
		defer b.Close()
		start := find(t, p.path, content[2*frame:2*frame+block])
		change(t, p.path, start, content[2*frame]^1)
		if rest(a) == nil {
			t.Fatal("damage was given out")
		}
		change(t, p.path, start, content[2*frame])
		if rest(b) == nil {
			t.Fatal("what was hashed with damage proves something")
		}
		if got, err := copied(r, p.m.Blobs[0].Digest, 0, whole); err != nil || !bytes.Equal(got, content) {
			t.Fatal(err)
		}
	})
}

func TestRangesOfAFileThatIsGone(t *testing.T) {
	p := newPacked(noise(frame, 8))
	p.write(t, 0, vendor(t).signer)
	b := openBundle(t, p)
	r, err := verify.NewRanges(b)
	if err != nil {
		t.Fatal(err)
	}
	digest := p.m.Blobs[0].Digest
	if err := os.Truncate(p.path, 300_000); err != nil {
		t.Fatal(err)
	}
	var damage *archive.DamageError
	if _, err := get(r, digest, 0, frame); !errors.As(err, &damage) {
		t.Fatalf("cut short: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	var content *verify.ContentError
	if _, err := get(r, digest, 0, frame); !errors.As(err, &content) {
		t.Fatalf("closed: %v", err)
	}
}

func TestRangesOfAStream(t *testing.T) {
	p := newPacked([]byte("x"))
	p.write(t, 0, vendor(t).signer)
	f, err := os.Open(filepath.Clean(p.path))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := verify.OpenStream(t.Context(), "a pipe", f, vendor(t).policy)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verify.NewRanges(b); !errors.Is(err, archive.ErrStream) {
		t.Fatal(err)
	}
}

// TestSkippingEndsWithItsContext: what lies before a part of an encoded blob is not decoded for
// somebody who has gone.
func TestSkippingEndsWithItsContext(t *testing.T) {
	p := newPacked()
	p.encode(bytes.Repeat(noise(3000, 99), 800))
	p.write(t, 0, vendor(t).signer)
	r := ranges(t, p)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	blob := p.m.Blobs[len(p.m.Blobs)-1]
	if _, err := r.Range(ctx, blob.Digest, blob.Size-1, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want the end of the context", err)
	}
	if got, err := get(r, blob.Digest, blob.Size-1, 1); err != nil || len(got) != 1 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
