package archive_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/manifest"
)

// pack is a bundle that a test writes. Its manifest is any bytes, since the archive does not
// read it.
type pack struct {
	path  string
	raw   []byte
	blobs [][]byte
	// entries that hold the blobs, where they have other names than blobs have.
	entries    []manifest.Entry
	head       int64
	volume     int64
	signatures [][]byte
	trust      []archive.Trust
	readBack   bool
}

// packOf is a pack to a directory of its own.
func packOf(t testing.TB, blobs ...[]byte) *pack {
	t.Helper()
	return &pack{path: filepath.Join(t.TempDir(), "b.tar.zst"), raw: []byte(`{"hello":"world"}`), blobs: blobs}
}

// to is the same pack to another place, in volumes of this size.
func (p *pack) to(path string, volume int64) *pack {
	q := *p
	q.path, q.volume = path, volume
	return &q
}

func blob(b []byte) manifest.Entry {
	sum := sha256.Sum256(b)
	h := hex.EncodeToString(sum[:])
	return manifest.Entry{Name: manifest.BlobPrefix + h, Size: int64(len(b)), SHA256: h}
}

func (p *pack) layout(t testing.TB) *archive.Layout {
	t.Helper()
	entries := p.entries
	for _, b := range p.blobs[len(entries):] {
		entries = append(entries, blob(b))
	}
	l, err := archive.NewLayout(int64(len(p.raw)), p.head, entries)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (p *pack) plan(t testing.TB) archive.Plan {
	t.Helper()
	l := p.layout(t)
	return archive.Plan{
		Path: p.path, Volume: p.volume, Entries: l.Entries(), Head: l.Head(), Size: l.Size(),
		Journal: archive.NewJournal(p.volume, p.raw),
	}
}

func newWriter(t testing.TB, p archive.Plan) *archive.Writer {
	t.Helper()
	w, err := archive.NewWriter(p)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (p *pack) begin(t testing.TB) *archive.Writer {
	t.Helper()
	return newWriter(t, p.plan(t))
}

// resume goes on with what a Writer left.
func (p *pack) resume(t testing.TB) *archive.Writer {
	t.Helper()
	plan := p.plan(t)
	plan.Resume = true
	return newWriter(t, plan)
}

func ignore(int64) {}

// fill writes the entries with these numbers, in this order.
func (p *pack) fill(t testing.TB, w *archive.Writer, numbers ...int) {
	t.Helper()
	for _, i := range numbers {
		e := w.Entry(i)
		if err := e.Fill(context.Background(), bytes.NewReader(p.blobs[i]), ignore); err != nil {
			t.Fatal(err)
		}
		e.Close()
	}
}

// all are the numbers of all entries, in their order.
func (p *pack) all() []int {
	n := make([]int, len(p.blobs))
	for i := range n {
		n[i] = i
	}
	return n
}

func (p *pack) sealing(t testing.TB) archive.SealOptions {
	t.Helper()
	return archive.SealOptions{Manifest: p.raw, Layout: p.layout(t), Signatures: p.signatures, Trust: p.trust, ReadBack: p.readBack, Done: ignore}
}

func (p *pack) finish(t testing.TB, w *archive.Writer) {
	t.Helper()
	if err := w.Seal(context.Background(), p.sealing(t)); err != nil {
		t.Fatal(err)
	}
	if err := w.Publish(); err != nil {
		t.Fatal(err)
	}
}

// write writes all of it.
func (p *pack) write(t testing.TB) *pack {
	t.Helper()
	w := p.begin(t)
	p.fill(t, w, p.all()...)
	p.finish(t, w)
	return p
}

// file is the bytes of the file, or of all volumes after each other.
func (p *pack) file(t testing.TB) []byte {
	t.Helper()
	if p.volume == 0 {
		return read(t, p.path)
	}
	var b []byte
	for i := range p.count(t) {
		b = append(b, read(t, archive.VolumeName(p.path, i+1))...)
	}
	return b
}

// count is the number of volumes.
func (p *pack) count(t testing.TB) int {
	t.Helper()
	return int((p.layout(t).Size() + p.volume - 1) / p.volume)
}

// one is the same bundle as one file.
func (p *pack) one(t testing.TB) []byte {
	t.Helper()
	return p.to(filepath.Join(t.TempDir(), "one"), 0).write(t).file(t)
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func save(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// names are those of what lies in a directory, with a space after each.
func names(t testing.TB, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var s strings.Builder
	for _, e := range entries {
		s.WriteString(e.Name() + " ")
	}
	return s.String()
}

func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func source(file []byte) archive.Source {
	return archive.NewSource(bytes.NewReader(file), int64(len(file)))
}

// reader reads a bundle whose layout is known.
func reader(src archive.Source, l *archive.Layout) (*archive.Reader, error) {
	h, err := archive.ReadHead(src)
	if err != nil {
		return nil, err
	}
	return archive.NewReader(src, h, l)
}

func verifySource(src archive.Source, l *archive.Layout) error {
	_, err := look(src, l)
	return err
}

// look verifies a bundle and returns what its readers are warned of.
func look(src archive.Source, l *archive.Layout) (warnings []string, err error) {
	h, err := archive.ReadHead(src)
	if err != nil {
		return nil, err
	}
	r, err := archive.NewReader(src, h, l)
	if err != nil {
		return nil, err
	}
	if err := r.Fit(); err != nil {
		return nil, err
	}
	return h.Warnings(), r.Verify(context.Background(), ignore)
}

// noticed reports whether a change of byte at is told as it must be: as a warning where it lies in
// the frame of the inactive slot, here B, and as an error everywhere else.
func noticed(src archive.Source, l *archive.Layout, at int) bool {
	warnings, err := look(src, l)
	if from := int(l.Head()) + slotB; from <= at && at < from+slotFrame {
		return err == nil && len(warnings) == 1
	}
	return err != nil
}

// Where the frames of the slots lie after S1, by docs/format.md, and how long they are.
const (
	slotFrame = 65553
	slotA     = 8
	slotB     = slotA + slotFrame + 8
)

func verify(file []byte, l *archive.Layout) error { return verifySource(source(file), l) }

// content reads a whole entry.
func content(r *archive.Reader, name string) ([]byte, error) {
	e, err := r.Open(name)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	return io.ReadAll(e)
}
