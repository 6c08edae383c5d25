package archive_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/iotest"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/manifest"
)

// onlyRead hides everything about a reader but that it can be read.
type onlyRead struct{ io.Reader }

func pipe(file []byte) archive.Source { return archive.NewStream(onlyRead{bytes.NewReader(file)}) }

// TestStream: a bundle that comes through a pipe is read in one pass, and all of it is proven.
func TestStream(t *testing.T) {
	p := packOf(t, blobsOfAllSizes()...)
	p.signatures = [][]byte{[]byte("sig")}
	file, l := p.write(t).file(t), p.layout(t)
	for name, r := range map[string]io.Reader{
		"as it comes": onlyRead{bytes.NewReader(file)}, "in halves": iotest.HalfReader(bytes.NewReader(file)),
		"end with the last bytes": iotest.DataErrReader(bytes.NewReader(file)), "odd pieces": &oddReader{r: bytes.NewReader(file)},
	} {
		t.Run(name, func(t *testing.T) {
			if err := verifySource(archive.NewStream(r), l); err != nil {
				t.Fatal(err)
			}
		})
	}
	t.Run("taking the content", func(t *testing.T) {
		r, err := reader(pipe(file), l)
		if err != nil {
			t.Fatal(err)
		}
		var passed int64
		w, err := r.Walk(func(n int64) { passed += n })
		if err != nil {
			t.Fatal(err)
		}
		for i := range p.blobs {
			n, content, err := w.Next(context.Background())
			if err != nil || n != i {
				t.Fatalf("entry %d, want %d: %v", n, i, err)
			}
			// All of some, none of others, a part of the rest.
			switch i % 3 {
			case 0:
				if got, err := io.ReadAll(content); err != nil || !bytes.Equal(got, p.blobs[i]) {
					t.Fatalf("entry %d: %d bytes, %v", i, len(got), err)
				}
			case 1:
				got := make([]byte, len(p.blobs[i])/2)
				if _, err := io.ReadFull(content, got); err != nil || !bytes.Equal(got, p.blobs[i][:len(got)]) {
					t.Fatalf("entry %d: %v", i, err)
				}
			}
		}
		if _, _, err := w.Next(context.Background()); !errors.Is(err, io.EOF) {
			t.Fatalf("after the last entry: %v", err)
		}
		if err := w.Finish(context.Background()); err != nil {
			t.Fatal(err)
		}
		if passed != l.Size() {
			t.Errorf("told of %d bytes of %d", passed, l.Size())
		}
	})
}

// TestDamagedStream: wherever it is damaged, cut, or goes on after its end.
func TestDamagedStream(t *testing.T) {
	p := packOf(t, random(1, 700), nil, random(2, 10))
	file, l := p.write(t).file(t), p.layout(t)
	for at := 0; at < len(file); at += 293 {
		bad := bytes.Clone(file)
		bad[at] ^= 4
		if !noticed(pipe(bad), l, at) {
			t.Errorf("a bit of byte %d flipped: not found", at)
		}
		if verifySource(pipe(file[:at]), l) == nil {
			t.Errorf("cut to %d bytes: not found", at)
		}
	}
	for name, more := range map[string][]byte{"a byte more": {0}, "twice": file} {
		var d *archive.DamageError
		if err := verifySource(pipe(append(bytes.Clone(file), more...)), l); !errors.As(err, &d) || d.Offset != l.Size() {
			t.Errorf("%s: %v", name, err)
		}
	}
	broken := errors.New("broken")
	for _, at := range []int{0, 100, 5000, len(file) - 2000, len(file)} {
		err := verifySource(archive.NewStream(io.MultiReader(bytes.NewReader(file[:at]), iotest.ErrReader(broken))), l)
		if !errors.Is(err, broken) {
			t.Errorf("breaks at byte %d: %v", at, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	r, err := reader(pipe(file), l)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Verify(ctx, ignore); !errors.Is(err, context.Canceled) {
		t.Errorf("the context has ended: %v", err)
	}
}

// TestStreamIsReadOnce: what has passed, or is still to come, is not there.
func TestStreamIsReadOnce(t *testing.T) {
	p := packOf(t, random(1, 3<<20), random(2, 100))
	file, l := p.write(t).file(t), p.layout(t)
	src := pipe(file)
	r, err := reader(src, l)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := archive.ReadHead(src); !errors.Is(err, archive.ErrStream) {
		t.Errorf("the head a second time: %v", err)
	}
	if _, err := content(r, blob(p.blobs[1]).Name); !errors.Is(err, archive.ErrStream) {
		t.Errorf("the second entry before the first: %v", err)
	}
	if got, err := content(r, blob(p.blobs[0]).Name); err != nil || !bytes.Equal(got, p.blobs[0]) {
		t.Errorf("the first entry: %d bytes, %v", len(got), err)
	}
	if _, err := content(r, blob(p.blobs[0]).Name); !errors.Is(err, archive.ErrStream) {
		t.Errorf("the first entry again: %v", err)
	}
	if err := r.Verify(context.Background(), ignore); !errors.Is(err, archive.ErrStream) {
		t.Errorf("what is left of it: %v", err)
	}
}

// TestEndlessHead: a stream that announces the largest manifest and never ends is left at the end
// of that, and one that announces more at once.
func TestEndlessHead(t *testing.T) {
	for _, name := range []string{"", "\x00", manifest.EntryManifest} {
		r := &counting{r: io.MultiReader(bytes.NewReader([]byte(name)), neverEnding(0))}
		if _, err := archive.ReadHead(archive.NewStream(r)); !errors.Is(err, archive.ErrNotBundle) || r.n > 1<<20 {
			t.Errorf("%q: %v after %d bytes", name, err, r.n)
		}
	}
	// A giant manifest: the header of one that is as large as can be, and then zeros.
	p := packOf(t)
	p.raw = bytes.Repeat([]byte(" "), 3<<20)
	file := p.write(t).file(t)
	r := &counting{r: io.MultiReader(bytes.NewReader(file[:2<<20]), neverEnding(0))}
	var damage *archive.DamageError
	if _, err := archive.ReadHead(archive.NewStream(r)); !errors.As(err, &damage) || r.n > 3<<20 {
		t.Errorf("%v after %d bytes", err, r.n)
	}
}

type counting struct {
	r io.Reader
	n int64
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// FuzzOpen feeds foreign bytes to everything that reads a file before it is proven, and a stream.
func FuzzOpen(f *testing.F) {
	p := packOf(f, []byte("x"))
	p.raw, p.signatures = []byte("{}"), [][]byte{[]byte("sig")}
	file := p.write(f).file(f)
	f.Add(file[:5000], int64(1))
	f.Add(file, int64(1))
	other := bytes.Clone(file)
	copy(other[4096+4:], []byte{0x19, 0, 1, 0}) // slot B is active, and what slot A holds a warning
	f.Add(other, int64(1))
	f.Add(append(bytes.Clone(file), file...), int64(0))
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		h, err := archive.ReadHead(source(b))
		s, streamed := archive.ReadHead(pipe(b))
		if (err == nil) != (streamed == nil) {
			t.Fatalf("a file gives %v, a stream %v", err, streamed)
		}
		if err != nil {
			return
		}
		if !bytes.Equal(h.Manifest, s.Manifest) || fmt.Sprint(h.Slot(), h.Warnings()) != fmt.Sprint(s.Slot(), s.Warnings()) {
			t.Fatal("file and stream have other heads")
		}
		entries := []manifest.Entry{blob([]byte("x"))}
		entries[0].Size = size
		l, err := archive.NewLayout(int64(len(h.Manifest)), 0, entries)
		if err != nil {
			return
		}
		err = verify(b, l)
		if streamed := verifySource(pipe(b), l); (err == nil) != (streamed == nil) {
			t.Fatalf("a file gives %v, a stream %v", err, streamed)
		}
		if err == nil && int64(len(b)) != l.Size() {
			t.Fatalf("%d bytes were taken for %d", len(b), l.Size())
		}
		if r, err := archive.NewReader(source(b), h, l); err == nil {
			got, err := content(r, entries[0].Name)
			if err == nil && string(got) != "x" {
				t.Fatalf("%q was given out as the content", got)
			}
		}
	})
}
