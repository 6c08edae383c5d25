package archive_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/manifest"
)

var sizes = []int{0, 1, 511, 512, 513, 131071, 131072, 131073, 1<<20 - 1, 1 << 20, 1<<20 + 1, 3<<20 + 700}

func blobsOfAllSizes() [][]byte {
	var blobs [][]byte
	for i, n := range sizes {
		blobs = append(blobs, random(uint64(i), n))
	}
	return blobs
}

func TestWriteAndRead(t *testing.T) {
	p := packOf(t, blobsOfAllSizes()...)
	p.signatures = [][]byte{[]byte("signature one"), []byte("signature two")}
	file, l := p.write(t).file(t), p.layout(t)
	if int64(len(file)) != l.Size() {
		t.Fatalf("file has %d bytes, layout says %d", len(file), l.Size())
	}
	if err := verify(file, l); err != nil {
		t.Fatal(err)
	}
	h, err := archive.ReadHead(source(file))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(h.Manifest, p.raw) || len(h.Signatures) != 2 {
		t.Fatalf("head: %q, %d signatures", h.Manifest, len(h.Signatures))
	}
	r, err := archive.NewReader(source(file), h, l)
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range p.blobs {
		name := blob(body).Name
		if got, err := content(r, name); err != nil || !bytes.Equal(got, body) {
			t.Fatalf("%s: %d bytes, %v; want %d bytes", name, len(got), err, len(body))
		}
		// The way that io.Copy takes.
		e, err := r.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if n, err := io.Copy(&b, e); err != nil || n != int64(len(body)) || !bytes.Equal(b.Bytes(), body) {
			t.Fatalf("%s: %d bytes copied, %v; want %d bytes", name, n, err, len(body))
		}
		e.Close()
		if _, err := e.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			t.Fatalf("a closed entry was read: %v", err)
		}
	}
	if _, err := r.Open("blobs/sha256/nothing"); err == nil {
		t.Fatal("an unknown entry could be opened")
	}
}

func TestKlauspostDecodes(t *testing.T) {
	f, err := os.Open(packOf(t, blobsOfAllSizes()...).write(t).path)
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

// TestEveryBitFlipIsFound flips each bit of a small bundle, one at a time. In the inactive slot,
// which nothing depends on, it is found by a warning, everywhere else by an error. Under the race
// detector, which makes it ten times slower and adds nothing, it takes one bit in a few.
func TestEveryBitFlipIsFound(t *testing.T) {
	p := packOf(t, random(1, 700), nil, random(2, 10))
	p.raw, p.signatures = []byte(`{"m":1}`), [][]byte{[]byte("a signature")}
	file, l := p.write(t).file(t), p.layout(t)
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
				if !noticed(source(mine), l, n/8) {
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
	p := packOf(t, random(1, 700))
	file, l := p.write(t).file(t), p.layout(t)
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

func TestHeadPlacesTheSlots(t *testing.T) {
	p := packOf(t, random(3, 100))
	p.head = 1 << 20
	if err := verify(p.write(t).file(t), p.layout(t)); err != nil {
		t.Fatal(err)
	}
	if at := p.layout(t).Head(); at != p.head {
		t.Fatalf("the slots lie at %d, want %d", at, p.head)
	}
	for _, head := range []int64{1, 4095, 4097, 64 << 20, -4096} {
		if _, err := archive.NewLayout(2, head, nil); !errors.Is(err, archive.ErrLimit) {
			t.Errorf("head %d: %v", head, err)
		}
	}
}

// TestLimits: sizes that no format 1 file has are refused before anything is computed from them.
func TestLimits(t *testing.T) {
	e := blob([]byte("x"))
	sized := func(n int64) []manifest.Entry { return []manifest.Entry{{Name: e.Name, Size: n, SHA256: e.SHA256}} }
	huge := make([]manifest.Entry, 65)
	for i := range huge {
		huge[i] = sized(manifest.MaxEntryBytes)[0]
	}
	for name, c := range map[string]struct {
		manifest int64
		entries  []manifest.Entry
	}{
		"no manifest":        {0, nil},
		"negative manifest":  {-1, nil},
		"giant manifest":     {manifest.MaxManifestBytes + 1, nil},
		"negative entry":     {2, sized(-1)},
		"giant entry":        {2, sized(manifest.MaxEntryBytes + 1)},
		"overflowing entry":  {2, sized(1<<63 - 1)},
		"giant file":         {2, huge},
		"too many entries":   {2, make([]manifest.Entry, manifest.MaxEntries+1)},
		"path traversal":     {2, []manifest.Entry{{Name: "../../etc/passwd", Size: 1}}},
		"name of no blob":    {2, []manifest.Entry{{Name: "blobs/sha256/x", Size: 1}}},
		"another extension":  {2, []manifest.Entry{{Name: e.Name + ".gz", Size: 1}}},
		"two extensions":     {2, []manifest.Entry{{Name: e.Name + ".zst.zst", Size: 1}}},
		"the manifest again": {2, []manifest.Entry{{Name: manifest.EntryManifest, Size: 1}}},
	} {
		if _, err := archive.NewLayout(c.manifest, 0, c.entries); !errors.Is(err, archive.ErrLimit) {
			t.Errorf("%s: %v, want ErrLimit", name, err)
		}
	}
	if _, err := archive.NewLayout(2, 0, sized(manifest.MaxEntryBytes)); err != nil {
		t.Errorf("the largest entry: %v", err)
	}
}

// TestTarReadersAgree unpacks a bundle with every tar that is on this machine.
func TestTarReadersAgree(t *testing.T) {
	p := packOf(t, blobsOfAllSizes()...)
	p.signatures = [][]byte{[]byte("sig")}
	p.write(t)
	if _, err := exec.LookPath("zstd"); err != nil {
		t.Skip("zstd is not installed")
	}
	plain := filepath.Join(t.TempDir(), "b.tar")
	if out, err := exec.Command("zstd", "-q", "-d", p.path, "-o", plain).CombinedOutput(); err != nil {
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
			want := map[string][]byte{
				manifest.EntryManifest: p.raw, archive.SignatureName([]byte("sig")): []byte("sig"),
			}
			for _, body := range p.blobs {
				want[blob(body).Name] = body
			}
			for name, body := range want {
				got, err := os.ReadFile(filepath.Join(out, name))
				if err != nil || !bytes.Equal(got, body) {
					t.Errorf("%s: %d bytes, %v; want %d", name, len(got), err, len(body))
				}
			}
		})
	}
}
