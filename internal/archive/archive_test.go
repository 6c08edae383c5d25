package archive_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/manifest"
)

// content is a set of entries with their bytes.
type content map[string][]byte

func blob(b []byte) (manifest.Entry, []byte) {
	sum := sha256.Sum256(b)
	h := hex.EncodeToString(sum[:])
	return manifest.Entry{Name: manifest.BlobPrefix + h, Size: int64(len(b)), SHA256: h}, b
}

func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// write makes a bundle file; its manifest is any bytes, since the archive does not read it.
func write(t testing.TB, path string, raw []byte, order func([]int), signatures [][]byte, blobs ...[]byte) (*archive.Layout, content) {
	t.Helper()
	c := content{}
	var entries []manifest.Entry
	for _, b := range blobs {
		e, body := blob(b)
		entries = append(entries, e)
		c[e.Name] = body
	}
	l, err := archive.NewLayout(int64(len(raw)), 0, entries)
	if err != nil {
		t.Fatal(err)
	}
	w, err := archive.Create(path, raw, l)
	if err != nil {
		t.Fatal(err)
	}
	idx := make([]int, len(entries))
	for i := range idx {
		idx[i] = i
	}
	if order != nil {
		order(idx)
	}
	for _, i := range idx {
		if err := w.WriteEntry(context.Background(), i, bytes.NewReader(c[entries[i].Name]), func(int64) {}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(signatures); err != nil {
		t.Fatal(err)
	}
	return l, c
}

func verify(file []byte, l *archive.Layout) error {
	src := bytes.NewReader(file)
	h, err := archive.ReadHead(src, int64(len(file)))
	if err != nil {
		return err
	}
	r, err := archive.NewReader(src, int64(len(file)), h, l)
	if err != nil {
		return err
	}
	return r.Verify(context.Background(), func(int64) {})
}

var sizes = []int{0, 1, 511, 512, 513, 131071, 131072, 131073, 1<<20 - 1, 1 << 20, 1<<20 + 1, 3<<20 + 700}

func blobsOfAllSizes() [][]byte {
	var blobs [][]byte
	for i, n := range sizes {
		blobs = append(blobs, random(uint64(i), n))
	}
	return blobs
}

func TestWriteAndRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b")
	raw := []byte(`{"hello":"world"}`)
	l, want := write(t, path, raw, nil, [][]byte{[]byte("signature one"), []byte("signature two")}, blobsOfAllSizes()...)
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(file)) != l.Size() {
		t.Fatalf("file has %d bytes, layout says %d", len(file), l.Size())
	}
	if err := verify(file, l); err != nil {
		t.Fatal(err)
	}
	src := bytes.NewReader(file)
	h, err := archive.ReadHead(src, int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(h.Manifest, raw) || len(h.Signatures) != 2 {
		t.Fatalf("head: %q, %d signatures", h.Manifest, len(h.Signatures))
	}
	r, err := archive.NewReader(src, int64(len(file)), h, l)
	if err != nil {
		t.Fatal(err)
	}
	for name, body := range want {
		e, err := r.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(e)
		if err != nil || !bytes.Equal(got, body) {
			t.Fatalf("%s: %d bytes, %v; want %d bytes", name, len(got), err, len(body))
		}
	}
	if _, err := r.Open("blobs/sha256/nothing"); err == nil {
		t.Fatal("an unknown entry could be opened")
	}
}

func TestOrderOfWritingDoesNotMatter(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a"), []byte("{}"), nil, nil, blobsOfAllSizes()...)
	write(t, filepath.Join(dir, "b"), []byte("{}"), slices.Reverse[[]int], nil, blobsOfAllSizes()...)
	a, _ := os.ReadFile(filepath.Join(dir, "a"))
	b, _ := os.ReadFile(filepath.Join(dir, "b"))
	if len(a) == 0 || !bytes.Equal(a, b) {
		t.Fatal("files differ")
	}
}

func TestKlauspostDecodes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b")
	write(t, path, []byte("{}"), nil, nil, blobsOfAllSizes()...)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, err := zstd.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := io.Copy(io.Discard, d); err != nil {
		t.Fatal(err)
	}
}

// TestEveryBitFlipIsFound flips each bit of a small bundle, one at a time. Under the race
// detector, which makes it ten times slower and adds nothing, it takes one bit in a few.
func TestEveryBitFlipIsFound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b")
	l, _ := write(t, path, []byte(`{"m":1}`), nil, [][]byte{[]byte("a signature")}, random(1, 700), nil, random(2, 10))
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(file, l); err != nil {
		t.Fatal(err)
	}
	defer debug.SetGCPercent(debug.SetGCPercent(1000))
	workers := runtime.GOMAXPROCS(0)
	var g errgroup.Group
	for w := range workers {
		mine := bytes.Clone(file)
		g.Go(func() error {
			for n := w * flipStep; n < 8*len(mine); n += workers * flipStep {
				mine[n/8] ^= 1 << (n % 8)
				if verify(mine, l) == nil {
					return fmt.Errorf("bit %d of byte %d flipped: not found", n%8, n/8)
				}
				mine[n/8] ^= 1 << (n % 8)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

func TestTruncationAndTrailingBytesAreFound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b")
	l, _ := write(t, path, []byte(`{"m":1}`), nil, nil, random(1, 700))
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(file); n += 1 + flipStep/97 {
		if verify(file[:n], l) == nil {
			t.Fatalf("cut to %d bytes: not found", n)
		}
	}
	var size *archive.SizeError
	if err := verify(append(file, 0), l); !errors.As(err, &size) || size.Got != l.Size()+1 {
		t.Fatalf("one byte more: %v", err)
	}
}

func TestWrongContentIsRefused(t *testing.T) {
	dir := t.TempDir()
	e, body := blob(random(1, 2000))
	l, err := archive.NewLayout(2, 0, []manifest.Entry{e})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "b")
	w, err := archive.Create(path, []byte("{}"), l)
	if err != nil {
		t.Fatal(err)
	}
	other := bytes.Clone(body)
	other[7] ^= 1
	for _, wrong := range [][]byte{other, body[:1999], append(bytes.Clone(body), 1), nil} {
		var c *archive.ContentError
		if err := w.WriteEntry(context.Background(), 0, bytes.NewReader(wrong), func(int64) {}); !errors.As(err, &c) {
			t.Fatalf("%d wrong bytes: %v", len(wrong), err)
		}
	}
	// The same place can be written again after a failure.
	if err := w.WriteEntry(context.Background(), 0, bytes.NewReader(body), func(int64) {}); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(nil); err != nil {
		t.Fatal(err)
	}
	file, _ := os.ReadFile(path)
	if err := verify(file, l); err != nil {
		t.Fatal(err)
	}
}

func TestFailedWriterLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "b")
	if err := os.WriteFile(path, []byte("the old one"), 0o600); err != nil {
		t.Fatal(err)
	}
	e, _ := blob(random(1, 2000))
	l, err := archive.NewLayout(2, 0, []manifest.Entry{e})
	if err != nil {
		t.Fatal(err)
	}
	w, err := archive.Create(path, []byte("{}"), l)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := archive.Create(path, []byte("{}"), l); !errors.Is(err, archive.ErrBusy) {
		t.Fatalf("a second writer: %v", err)
	}
	if err := w.Commit(nil); err == nil {
		t.Fatal("committed without its entry")
	}
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 1 {
		t.Fatalf("left over: %v, %v", names, err)
	}
	if b, _ := os.ReadFile(path); string(b) != "the old one" {
		t.Fatalf("the old file now holds %q", b)
	}
}

// TestLinksAreNotFollowed: a link in the place of the partial file must not lead the writer to
// another file.
func TestLinksAreNotFollowed(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "b")
	if err := os.Symlink(victim, path+archive.PartialSuffix); err != nil {
		t.Skipf("no links here: %v", err)
	}
	l, err := archive.NewLayout(2, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := archive.Create(path, []byte("{}"), l); err == nil {
		t.Error("a link was followed")
	}
	if b, _ := os.ReadFile(victim); string(b) != "precious" {
		t.Errorf("the file behind the link holds %q", b)
	}
}

func TestSlotTakesWhatFits(t *testing.T) {
	l, err := archive.NewLayout(2, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	for n, fits := range map[int]bool{64512 - 512: true, 64512 - 511: false} {
		w, err := archive.Create(filepath.Join(t.TempDir(), "b"), []byte("{}"), l)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Commit([][]byte{random(9, n)}); (err == nil) != fits || !fits && !errors.Is(err, archive.ErrSlotFull) {
			t.Errorf("a signature of %d bytes: %v", n, err)
		}
	}
}

func TestHeadPlacesTheSlots(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b")
	e, body := blob(random(3, 100))
	l, err := archive.NewLayout(2, 1<<20, []manifest.Entry{e})
	if err != nil {
		t.Fatal(err)
	}
	w, err := archive.Create(path, []byte("{}"), l)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.WriteEntry(context.Background(), 0, bytes.NewReader(body), func(int64) {}); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(nil); err != nil {
		t.Fatal(err)
	}
	file, _ := os.ReadFile(path)
	if err := verify(file, l); err != nil {
		t.Fatal(err)
	}
	for _, head := range []int64{1, 4095, 4097, 64 << 20, -4096} {
		if _, err := archive.NewLayout(2, head, nil); !errors.Is(err, archive.ErrLimit) {
			t.Errorf("head %d: %v", head, err)
		}
	}
}

// TestTarReadersAgree unpacks a bundle with every tar that is on this machine.
func TestTarReadersAgree(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "b.tar.zst")
	_, want := write(t, path, []byte(`{"m":1}`), nil, [][]byte{[]byte("sig")}, blobsOfAllSizes()...)
	if _, err := exec.LookPath("zstd"); err != nil {
		t.Skip("zstd is not installed")
	}
	plain := filepath.Join(dir, "b.tar")
	if out, err := exec.Command("zstd", "-q", "-d", path, "-o", plain).CombinedOutput(); err != nil {
		t.Fatalf("zstd: %v: %s", err, out)
	}
	for _, tool := range [][]string{{"tar", "-xf"}, {"bsdtar", "-xf"}, {"busybox", "tar", "-xf"}} {
		t.Run(tool[0], func(t *testing.T) {
			if _, err := exec.LookPath(tool[0]); err != nil {
				t.Skipf("%s is not installed", tool[0])
			}
			out := t.TempDir()
			cmd := exec.Command(tool[0], append(tool[1:], plain)...)
			cmd.Dir = out
			if msg, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, msg)
			}
			for name, body := range want {
				got, err := os.ReadFile(filepath.Join(out, name))
				if err != nil || !bytes.Equal(got, body) {
					t.Errorf("%s: %d bytes, %v; want %d", name, len(got), err, len(body))
				}
			}
			if got, err := os.ReadFile(filepath.Join(out, archive.SignatureName([]byte("sig")))); err != nil || string(got) != "sig" {
				t.Errorf("signature: %q, %v", got, err)
			}
			if got, err := os.ReadFile(filepath.Join(out, manifest.EntryManifest)); err != nil || string(got) != `{"m":1}` {
				t.Errorf("manifest: %q, %v", got, err)
			}
		})
	}
}

// FuzzOpen feeds foreign bytes to everything that reads a file before it is proven.
func FuzzOpen(f *testing.F) {
	path := filepath.Join(f.TempDir(), "b")
	write(f, path, []byte("{}"), nil, [][]byte{[]byte("sig")}, []byte("x"))
	file, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(file[:5000])
	f.Add(file)
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := archive.ReadHead(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		l, err := archive.NewLayout(int64(len(h.Manifest)), 0, nil)
		if err != nil {
			t.Fatalf("a head was read whose layout is impossible: %v", err)
		}
		if r, err := archive.NewReader(bytes.NewReader(b), int64(len(b)), h, l); err == nil {
			_ = r.Verify(context.Background(), func(int64) {})
		}
	})
}
