package archive_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/manifest"
)

// encodedBlob is the blob of these bytes, as one that is to be encoded.
func encodedBlob(b []byte) manifest.Blob {
	return manifest.Blob{Digest: manifest.Digest(b), Size: int64(len(b)), MediaType: "application/vnd.oci.image.layer.v1.tar", Encoding: manifest.EncodingZstd}
}

// text is n bytes that can be compressed well, but not to nothing.
func text(n int) []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "line %d of a layer that nobody has compressed: %x\n", i, i*i*7919)
	}
	return b.Bytes()[:n]
}

// layers are blobs of every kind that may have to be encoded.
func layers() [][]byte {
	mixed := append(text(1<<20), random(3, 1<<20)...)
	return [][]byte{nil, []byte("x"), text(5 << 20), random(2, 2<<20+1), make([]byte, 3<<20), mixed}
}

// encodedPack is a pack of stored blobs with encoded ones after them.
type encodedPack struct {
	*pack
	layers [][]byte
	// encoded are the entries that hold the layers.
	encoded []manifest.Entry
}

func (p *encodedPack) plan(t testing.TB) archive.Plan {
	t.Helper()
	plan := p.pack.plan(t)
	plan.Head = archive.HeadFor(int64(len(p.raw)) + 1000)
	for _, b := range p.layers {
		plan.Size += archive.EncodedBound(int64(len(b))) * 11 / 10
	}
	plan.Size += plan.Head
	return plan
}

// encode writes the layers from this number on.
func (p *encodedPack) encode(t testing.TB, w *archive.Writer, from int) {
	t.Helper()
	p.encoded = p.encoded[:from]
	for _, b := range p.layers[from:] {
		var told int64
		e, err := w.Encode(context.Background(), encodedBlob(b), bytes.NewReader(b), func(n int64) { told += n })
		if err != nil || told != int64(len(b)) {
			t.Fatalf("told of %d of %d bytes, %v", told, len(b), err)
		}
		if e.Size < 1 || e.Size > archive.EncodedBound(int64(len(b))) {
			t.Fatalf("%d bytes became %d, at most %d were announced", len(b), e.Size, archive.EncodedBound(int64(len(b))))
		}
		p.encoded = append(p.encoded, e)
	}
}

func (p *encodedPack) layout(t testing.TB) *archive.Layout {
	t.Helper()
	entries := append(slices.Clone(p.pack.layout(t).Entries()), p.encoded...)
	l, err := archive.NewLayout(int64(len(p.raw)), p.plan(t).Head, entries)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (p *encodedPack) finish(t testing.TB, w *archive.Writer) {
	t.Helper()
	l := p.layout(t)
	if err := w.Seal(context.Background(), archive.SealOptions{Manifest: p.raw, Layout: l, Signatures: p.signatures, ReadBack: true, Done: ignore}); err != nil {
		t.Fatal(err)
	}
	if err := w.Publish(); err != nil {
		t.Fatal(err)
	}
}

func (p *encodedPack) write(t testing.TB) *encodedPack {
	t.Helper()
	w := newWriter(t, p.plan(t))
	p.fill(t, w, p.all()...)
	p.encode(t, w, 0)
	p.finish(t, w)
	return p
}

// TestEncode: blobs of every kind come back, from a file and from volumes, which are the same
// bytes whenever they are written.
func TestEncode(t *testing.T) {
	p := &encodedPack{pack: packOf(t, random(1, 100), random(2, 1<<20)), layers: layers()}
	p.write(t)
	file := read(t, p.path)
	if err := verify(file, p.layout(t)); err != nil {
		t.Fatal(err)
	}
	r, err := reader(source(file), p.layout(t))
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range p.layers {
		if got, err := decoded(r, encodedBlob(b)); err != nil || !bytes.Equal(got, b) {
			t.Errorf("layer %d: %d bytes, %v; want %d", i, len(got), err, len(b))
		}
	}
	again := &encodedPack{pack: p.to(filepath.Join(t.TempDir(), "b"), archive.MinVolume), layers: p.layers}
	again.write(t)
	if !bytes.Equal(joined(t, again.path), file) {
		t.Error("a second time and in volumes it is other bytes")
	}
}

// joined are the bytes of all volumes that are there.
func joined(t testing.TB, path string) []byte {
	t.Helper()
	var b []byte
	for n := 1; exists(archive.VolumeName(path, n)); n++ {
		b = append(b, read(t, archive.VolumeName(path, n))...)
	}
	return b
}

func decoded(r *archive.Reader, b manifest.Blob) ([]byte, error) {
	e, err := r.Open(manifest.BlobEntryName(b))
	if err != nil {
		return nil, err
	}
	d, err := archive.NewDecoder(b, e)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return io.ReadAll(d)
}

// TestEncodedWithoutUs: what is in the entries, the tools of others can read.
func TestEncodedWithoutUs(t *testing.T) {
	for _, tool := range []string{"zstd", "tar", "unzstd"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	p := &encodedPack{pack: packOf(t, random(1, 100)), layers: layers()}
	p.write(t)
	dir := filepath.Dir(p.path)
	cmd := exec.Command("sh", "-c", `zstd -dcq b.tar.zst | tar x && unzstd -q --rm blobs/sha256/*.zst`)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for i, b := range p.layers {
		path := filepath.Join(dir, strings.TrimSuffix(manifest.BlobEntryName(encodedBlob(b)), manifest.ZstdSuffix))
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, b) {
			t.Errorf("layer %d: %d bytes, %v; want %d", i, len(got), err, len(b))
		}
	}
}

// TestEncodedSizes: entries that end at, just before and just behind the end of a frame or block.
func TestEncodedSizes(t *testing.T) {
	for _, want := range []int64{1 << 17, 1<<17 + 1, 1<<20 - 512, 1<<20 - 1, 1 << 20, 1<<20 + 1, 1<<20 + 512} {
		n := want
		for range 5 { // what cannot be compressed takes a few bytes more
			p := &encodedPack{pack: packOf(t), layers: [][]byte{random(4, int(n)), []byte("what follows")}}
			w := newWriter(t, p.plan(t))
			p.encode(t, w, 0)
			n += want - p.encoded[0].Size
			if p.encoded[0].Size != want {
				if err := w.Discard(); err != nil {
					t.Fatal(err)
				}
				continue
			}
			p.finish(t, w) // it is read back
			r, err := reader(source(read(t, p.path)), p.layout(t))
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range p.layers {
				if got, err := decoded(r, encodedBlob(b)); err != nil || !bytes.Equal(got, b) {
					t.Errorf("entry of %d bytes: %d bytes, %v; want %d", want, len(got), err, len(b))
				}
			}
			n = -1
			break
		}
		if n != -1 {
			t.Errorf("no blob was found whose entry has %d bytes", want)
		}
	}
}

// TestEncodeRefusesWrongContent: after a failure, the same place is written again.
func TestEncodeRefusesWrongContent(t *testing.T) {
	body := text(300000)
	p := &encodedPack{pack: packOf(t), layers: [][]byte{body}}
	w := newWriter(t, p.plan(t))
	ctx, other := context.Background(), bytes.Clone(body)
	other[7] ^= 1
	var c *archive.ContentError
	for name, wrong := range map[string][]byte{"other": other, "shorter": body[:299999], "longer": append(bytes.Clone(body), 1), "none": nil} {
		if _, err := w.Encode(ctx, encodedBlob(body), bytes.NewReader(wrong), ignore); !errors.As(err, &c) {
			t.Errorf("%s: %v, want *ContentError", name, err)
		}
	}
	if _, err := w.Encode(ctx, encodedBlob(nil), bytes.NewReader([]byte{1}), ignore); !errors.As(err, &c) {
		t.Errorf("a byte for none: %v", err)
	}
	broken := errors.New("broken")
	if _, err := w.Encode(ctx, encodedBlob(body), io.MultiReader(bytes.NewReader(body[:100]), iotest.ErrReader(broken)), ignore); !errors.Is(err, broken) {
		t.Errorf("a source that breaks off: %v", err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := w.Encode(cancelled, encodedBlob(body), neverEnding('x'), ignore); !errors.Is(err, context.Canceled) {
		t.Errorf("the context has ended: %v", err)
	}
	p.encode(t, w, 0)
	p.finish(t, w)
	// The failures have left nothing.
	fresh := &encodedPack{pack: p.to(filepath.Join(t.TempDir(), "b"), 0), layers: p.layers}
	if !bytes.Equal(read(t, fresh.write(t).path), read(t, p.path)) {
		t.Error("the bytes are others than without the failures")
	}
}

// TestDeterministicEncoding: pieces of what sizes the bytes come in makes no difference.
func TestDeterministicEncoding(t *testing.T) {
	body := append(text(1<<20), random(1, 1<<19)...)
	var first manifest.Entry
	for name, r := range map[string]io.Reader{
		"whole": bytes.NewReader(body), "halves": iotest.HalfReader(bytes.NewReader(body)),
		"end with data": iotest.DataErrReader(bytes.NewReader(body)),
		"odd pieces":    &oddReader{r: bytes.NewReader(body)},
	} {
		p := &encodedPack{pack: packOf(t), layers: [][]byte{body}}
		w := newWriter(t, p.plan(t))
		e, err := w.Encode(context.Background(), encodedBlob(body), r, ignore)
		if err != nil {
			t.Fatal(err)
		}
		if first.Name == "" {
			first = e
		}
		if e != first {
			t.Errorf("%s: %+v, before %+v", name, e, first)
		}
		if err := w.Discard(); err != nil {
			t.Error(err)
		}
	}
}

// oddReader gives pieces of many sizes.
type oddReader struct {
	r io.Reader
	n int
}

func (r *oddReader) Read(p []byte) (int, error) {
	r.n = r.n*7%4096 + 1
	return r.r.Read(p[:min(len(p), r.n)])
}

// compress is what another encoder may make of b.
func compress(t testing.TB, b []byte, o ...zstd.EOption) []byte {
	t.Helper()
	e, err := zstd.NewWriter(nil, o...)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = e.Close() }()
	return e.EncodeAll(b, nil)
}

// stream is compress for what does not announce its size, with the window that blobs have.
func stream(t testing.TB, r io.Reader) []byte {
	t.Helper()
	var b bytes.Buffer
	e, err := zstd.NewWriter(&b, zstd.WithWindowSize(1<<20))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(e, r); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func decode(b manifest.Blob, encoded []byte) ([]byte, error) {
	d, err := archive.NewDecoder(b, io.NopCloser(bytes.NewReader(encoded)))
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return io.ReadAll(d)
}

// TestDecoderRefuses what is not exactly the blob. None of the last piece is given out.
func TestDecoderRefuses(t *testing.T) {
	body := append(text(200000), random(1, 100000)...)
	b := encodedBlob(body)
	good := stream(t, bytes.NewReader(body))
	if got, err := decode(b, good); err != nil || !bytes.Equal(got, body) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	other := bytes.Clone(body)
	other[0] ^= 1
	flipped := bytes.Clone(good)
	flipped[len(flipped)-2] ^= 1 // in the checksum
	small := b
	small.Size = 1000
	large := b
	large.Size++
	for name, c := range map[string]struct {
		blob    manifest.Blob
		encoded []byte
	}{
		"nothing":             {b, nil},
		"garbage":             {b, random(9, 5000)},
		"the blob itself":     {b, body},
		"cut":                 {b, good[:len(good)/2]},
		"cut by a byte":       {b, good[:len(good)-1]},
		"wrong checksum":      {b, flipped},
		"another content":     {b, stream(t, bytes.NewReader(other))},
		"less content":        {b, stream(t, bytes.NewReader(body[:len(body)-1]))},
		"more content":        {b, stream(t, bytes.NewReader(append(bytes.Clone(body), 0)))},
		"a second frame":      {b, append(bytes.Clone(good), stream(t, strings.NewReader("more"))...)},
		"garbage after it":    {b, append(bytes.Clone(good), "garbage"...)},
		"announced too small": {small, good},
		"announced too large": {large, good},
		"garbage for none":    {encodedBlob(nil), []byte("garbage")},
		"something for none":  {encodedBlob(nil), stream(t, strings.NewReader("x"))},
		"a window of 2 MiB":   {b, windowOf(good, 2<<20)},
		"a window of 1 GiB":   {b, windowOf(good, 1<<30)},
		"a dictionary":        {b, compress(t, body, zstd.WithEncoderDictRaw(7, text(1000)))},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := decode(c.blob, c.encoded)
			if err == nil {
				t.Fatalf("%d bytes were taken for the blob", len(got))
			}
			if int64(len(got)) >= c.blob.Size && c.blob.Size > 0 {
				t.Fatalf("all of %d bytes were given out", len(got))
			}
		})
	}
	// Those whose content is at fault say so.
	var content *archive.ContentError
	for _, wrong := range [][]byte{stream(t, bytes.NewReader(other)), good[:len(good)/2], stream(t, neverEnding('x').limit(1<<20))} {
		if _, err := decode(b, wrong); !errors.As(err, &content) {
			t.Errorf("%v, want *ContentError", err)
		}
	}
	// Errors of the source are its own.
	broken := &archive.DamageError{What: "broken"}
	d, err := archive.NewDecoder(b, io.NopCloser(io.MultiReader(bytes.NewReader(good[:1000]), iotest.ErrReader(broken))))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var damage *archive.DamageError
	if _, err := io.ReadAll(d); !errors.As(err, &damage) || damage != broken {
		t.Errorf("%v, want the error of the source", err)
	}
}

func (b neverEnding) limit(n int64) io.Reader { return io.LimitReader(b, n) }

// windowOf is a frame that announces another window.
func windowOf(frame []byte, size int) []byte {
	f := bytes.Clone(frame)
	if f[4]&0x20 != 0 {
		panic("a single segment has no window of its own")
	}
	log := 0
	for 1<<(log+10) < size {
		log++
	}
	f[5] = byte(log << 3)
	return f
}

// TestDecoderTakesNoMemory: a small entry that would become gigabytes, or announces them, costs
// little and ends early.
func TestDecoderTakesNoMemory(t *testing.T) {
	bomb := stream(t, neverEnding(0).limit(256<<20))
	if len(bomb) > 1<<20 {
		t.Fatalf("the bomb has %d bytes", len(bomb))
	}
	// One segment of 1 GiB: magic, descriptor with 4 bytes of size, the size, one empty block.
	single := []byte{0x28, 0xB5, 0x2F, 0xFD, 0xA0, 0, 0, 0, 0x40, 1, 0, 0}
	for name, encoded := range map[string][]byte{"bomb": bomb, "single segment": single} {
		t.Run(name, func(t *testing.T) {
			b := encodedBlob(make([]byte, 1<<20))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if _, err := decode(b, encoded); err == nil {
				t.Error("decoded")
			}
			runtime.ReadMemStats(&after)
			// Everything that was ever allocated, with the result, which grows by doubling.
			if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 {
				t.Errorf("%d bytes were allocated", n)
			}
		})
	}
}

// FuzzDecoder feeds foreign bytes to the decompressor: what it gives as complete is the blob.
func FuzzDecoder(f *testing.F) {
	body := text(3000)
	f.Add(stream(f, bytes.NewReader(body)))
	f.Add(compress(f, body))
	f.Add(compress(f, body, zstd.WithEncoderLevel(zstd.SpeedBestCompression))[:100])
	f.Add([]byte{0x28, 0xB5, 0x2F, 0xFD, 0xA0, 0, 0, 0, 0x40, 1, 0, 0})
	f.Fuzz(func(t *testing.T, encoded []byte) {
		got, err := decode(encodedBlob(body), encoded)
		if err == nil && !bytes.Equal(got, body) {
			t.Fatalf("%d bytes were given out as the blob", len(got))
		}
		if len(got) > len(body) {
			t.Fatalf("%d bytes were given out of a blob of %d", len(got), len(body))
		}
	})
}
