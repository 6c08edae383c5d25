package archive_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/manifest"
)

// warehouse gives the content of entries and writes down what was asked of it.
type warehouse struct {
	blobs map[string][]byte

	mu      sync.Mutex
	fetched int
	open    int
	fail    error
}

func (w *warehouse) fetch(ctx context.Context, e manifest.Entry, offset int64) io.ReadCloser {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fetched++
	w.open++
	return &wares{Reader: bytes.NewReader(w.blobs[e.SHA256][offset:]), of: w, ended: ctx.Err}
}

// counts are how often something was fetched since the last call, and how many bodies are open.
func (w *warehouse) counts() (fetched, open int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fetched, w.fetched = w.fetched, 0
	return fetched, w.open
}

// wares are a body that gives little at a time, as the network does.
type wares struct {
	*bytes.Reader
	of     *warehouse
	ended  func() error
	closed bool
}

func (b *wares) Read(p []byte) (int, error) {
	b.of.mu.Lock()
	fail := b.of.fail
	b.of.mu.Unlock()
	if fail != nil {
		return 0, fail
	}
	if err := b.ended(); err != nil {
		return 0, err
	}
	return b.Reader.Read(p[:min(len(p), 50_000)])
}

func (b *wares) Close() error {
	b.of.mu.Lock()
	defer b.of.mu.Unlock()
	if !b.closed {
		b.of.open--
	}
	b.closed = true
	return nil
}

// inParts is a bundle that was taken apart.
func inParts(t *testing.T, p *pack) (file []byte, r *archive.Remote, w *warehouse) {
	t.Helper()
	file = p.write(t).file(t)
	whole, err := reader(source(file), p.layout(t))
	if err != nil {
		t.Fatal(err)
	}
	parts, err := whole.Parts()
	if err != nil {
		t.Fatal(err)
	}
	w = &warehouse{blobs: map[string][]byte{}}
	for _, b := range p.blobs {
		w.blobs[blob(b).SHA256] = b
	}
	return file, &archive.Remote{Parts: *parts, Fetch: w.fetch, Context: context.Background()}, w
}

func openRemote(t *testing.T, r *archive.Remote) archive.Source {
	t.Helper()
	src, err := r.Open()
	if err != nil {
		t.Fatal(err)
	}
	return src
}

// TestRemoteIsTheFile: wherever a bundle in parts is read, it is the file that it was taken from.
func TestRemoteIsTheFile(t *testing.T) {
	for name, change := range map[string]func(*pack){
		"signed": func(p *pack) { p.signatures = [][]byte{[]byte("a signature")} },
		"unsigned, the slots at a place of their own": func(p *pack) { p.head = 1 << 20 },
		"the second slot active": func(p *pack) {
			p.write(t)
			resign(t, p.path, "one")
			resign(t, p.path, "two")
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := packOf(t, blobsOfAllSizes()...)
			change(p)
			file, r, w := inParts(t, p)
			src := openRemote(t, r)
			if err := src.Fit(int64(len(file))); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(io.NewSectionReader(src, 0, int64(len(file)))); err != nil || !bytes.Equal(got, file) {
				t.Fatalf("%d bytes, %v; want the %d of the file", len(got), err, len(file))
			}
			random := rand.New(rand.NewPCG(1, 2))
			for range 2000 {
				from := random.IntN(len(file) + 1)
				want := file[from:]
				if n := random.IntN(3000); n < len(want) {
					want = want[:n]
				}
				got := make([]byte, len(want))
				if n, err := src.ReadAt(got, int64(from)); n != len(want) || err != nil || !bytes.Equal(got, want) {
					t.Fatalf("%d bytes from %d on: %d, %v", len(want), from, n, err)
				}
			}
			if n, err := src.ReadAt(make([]byte, 10), int64(len(file))-4); n != 4 || !errors.Is(err, io.EOF) {
				t.Fatalf("across the end: %d, %v", n, err)
			}
			if _, err := src.ReadAt(make([]byte, 1), -1); err == nil {
				t.Fatal("before the beginning: no error")
			}
			if err := verifySource(src, p.layout(t)); err != nil {
				t.Fatal(err)
			}
			if err := src.Close(); err != nil {
				t.Fatal(err)
			}
			if _, open := w.counts(); open != 0 {
				t.Fatalf("%d bodies are open after Close", open)
			}
		})
	}
}

// resign adds a signature to the file at path.
func resign(t *testing.T, path, body string) {
	t.Helper()
	err := archive.Resign(context.Background(), &archive.Files{Name: path, File: path}, func(h *archive.Head) (*archive.SlotContent, error) {
		c := h.Slot()
		c.Signatures = append(c.Signatures, []byte(body))
		return c, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestRemoteFetchesOnce: reading an entry from front to back asks for it once, whoever else reads
// at the same time.
func TestRemoteFetchesOnce(t *testing.T) {
	p := packOf(t, blobsOfAllSizes()...)
	_, r, w := inParts(t, p)
	src := openRemote(t, r)
	rd, err := reader(src, p.layout(t))
	if err != nil {
		t.Fatal(err)
	}
	if fetched, open := w.counts(); fetched+open != 0 {
		t.Fatalf("the head fetches %d entries, %d are open", fetched, open)
	}
	var g errgroup.Group
	for _, b := range p.blobs {
		g.Go(func() error {
			got, err := content(rd, blob(b).Name)
			if err == nil && !bytes.Equal(got, b) {
				err = fmt.Errorf("%d bytes of %d are not those of the blob", len(got), len(b))
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if fetched, open := w.counts(); fetched != len(p.blobs)-1 || open != 0 { // one of them is empty
		t.Fatalf("%d entries were fetched, want %d; %d are open", fetched, len(p.blobs)-1, open)
	}
}

// TestRemoteKeepsFewBodies: who begins to read everywhere does not leave connections open
// everywhere.
func TestRemoteKeepsFewBodies(t *testing.T) {
	p := packOf(t, random(1, 5<<20))
	_, r, w := inParts(t, p)
	src := openRemote(t, r)
	at := p.layout(t).Head() + archive.SlotsSize + 1000
	for i := range int64(300) {
		if _, err := src.ReadAt(make([]byte, 10), at+1000*i); err != nil {
			t.Fatal(err)
		}
	}
	if fetched, open := w.counts(); fetched != 300 || open != 32 {
		t.Fatalf("%d fetched, %d are open", fetched, open)
	}
	if err := src.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := src.ReadAt(make([]byte, 10), at); err != nil {
		t.Fatal(err)
	}
	if _, open := w.counts(); open != 0 {
		t.Fatalf("%d are open after Close", open)
	}
}

// TestRemoteTellsDamageFromAbsence: content that is another one is damage; content that does not
// come is an error of reading, with its cause, and may come the next time.
func TestRemoteTellsDamageFromAbsence(t *testing.T) {
	one := random(1, 3<<20)
	p := packOf(t, random(2, 100), one)
	_, r, w := inParts(t, p)
	src := openRemote(t, r)
	gone := errors.New("the network is gone")
	w.fail = gone
	var unread *archive.ReadError
	if err := verifySource(src, p.layout(t)); !errors.As(err, &unread) || !errors.Is(err, gone) {
		t.Fatalf("no network: %v", err)
	}
	w.fail = nil
	if err := verifySource(src, p.layout(t)); err != nil {
		t.Fatalf("the network is there again: %v", err)
	}
	w.blobs[blob(one).SHA256] = one[:len(one)-1]
	if err := verifySource(src, p.layout(t)); !errors.As(err, &unread) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("a body that ends early: %v", err)
	}
	other := bytes.Clone(one)
	other[2<<20] ^= 1
	w.blobs[blob(one).SHA256] = other
	var damage *archive.DamageError
	if err := verifySource(src, p.layout(t)); !errors.As(err, &damage) || damage.Entry != blob(one).Name {
		t.Fatalf("another body: %v", err)
	}
}

// TestRemoteOfWrongParts: parts that are not those of the manifest make a file that is damaged, or
// none at all.
func TestRemoteOfWrongParts(t *testing.T) {
	p := packOf(t, random(1, 2<<20), random(2, 100))
	l := p.layout(t)
	t.Run("found when it is read", func(t *testing.T) {
		for name, change := range map[string]func(*archive.Remote){
			"checks":           func(r *archive.Remote) { r.Checks[len(r.Checks)-8] ^= 1 },
			"slots":            func(r *archive.Remote) { r.Slots[100] ^= 1 },
			"an entry less":    func(r *archive.Remote) { r.Entries = r.Entries[:1]; r.Checks = r.Checks[:len(r.Checks)-8] },
			"another place":    func(r *archive.Remote) { r.Head = 1 << 20 },
			"another size":     func(r *archive.Remote) { r.Entries[0].Size-- },
			"exchanged":        func(r *archive.Remote) { r.Entries[0], r.Entries[1] = r.Entries[1], r.Entries[0] },
			"another manifest": func(r *archive.Remote) { r.Manifest[0] ^= 1 },
		} {
			_, r, _ := inParts(t, p.to(t.TempDir()+"/b", 0))
			r.Manifest, r.Entries = bytes.Clone(r.Manifest), append([]manifest.Entry{}, r.Entries...)
			change(r)
			src := openRemote(t, r)
			h, err := archive.ReadHead(src)
			if err == nil && !bytes.Equal(h.Manifest, p.raw) {
				continue // what is not signed is not believed
			}
			if err == nil {
				err = verifySource(src, l)
			}
			var damage *archive.DamageError
			var size *archive.SizeError
			if !errors.As(err, &damage) && !errors.As(err, &size) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
	t.Run("refused", func(t *testing.T) {
		for name, change := range map[string]func(*archive.Remote){
			"no manifest":        func(r *archive.Remote) { r.Manifest = nil },
			"too little slots":   func(r *archive.Remote) { r.Slots = r.Slots[1:] },
			"too many checks":    func(r *archive.Remote) { r.Checks = append(r.Checks, 0) },
			"no entry's name":    func(r *archive.Remote) { r.Entries[0].Name = "../x" },
			"a place before all": func(r *archive.Remote) { r.Head = 512 },
		} {
			_, r, _ := inParts(t, p.to(t.TempDir()+"/b", 0))
			r.Entries = append([]manifest.Entry{}, r.Entries...)
			change(r)
			if _, err := r.Open(); !errors.Is(err, archive.ErrLimit) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// TestPartsOfADamagedFile: what is taken apart was compared with the manifest before.
func TestPartsOfADamagedFile(t *testing.T) {
	p := packOf(t, random(1, 2<<20), random(2, 100))
	file, l := p.write(t).file(t), p.layout(t)
	checks := len(file) - int(l.ChecksSize()*3) - 8 - 9 // the seek table is twice as large
	for name, at := range map[string]int{
		"gap": int(l.Head()) - 1, "slots": int(l.Head()) + 1, "header of an entry": int(l.Head()) + archive.SlotsSize + 100,
		"checksum of the manifest": checks, "checksum of the end": checks + int(l.ChecksSize()) - 1, "seek table": len(file) - 1,
	} {
		bad := bytes.Clone(file)
		bad[at] ^= 1
		r, err := reader(source(bad), l)
		if err == nil {
			_, err = r.Parts()
		}
		var damage *archive.DamageError
		if !errors.As(err, &damage) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A checksum of content is compared when that is read.
	bad := bytes.Clone(file)
	bad[checks+4*5] ^= 1
	r, err := reader(source(bad), l)
	if err != nil {
		t.Fatal(err)
	}
	parts, err := r.Parts()
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range p.blobs {
		for way, read := range map[string]func(io.Reader) (int64, error){
			"Read":    func(r io.Reader) (int64, error) { return io.Copy(io.Discard, struct{ io.Reader }{r}) },
			"WriteTo": func(r io.Reader) (int64, error) { return io.Copy(io.Discard, r) },
		} {
			e, err := r.OpenSummed(blob(b).Name, parts.Checks)
			if err != nil {
				t.Fatal(err)
			}
			_, err = read(e)
			var damage *archive.DamageError
			if errors.As(err, &damage) != (i == 0) || i > 0 && err != nil {
				t.Errorf("entry %d by %s: %v", i, way, err)
			}
		}
	}
	if _, err := r.OpenSummed("blobs/sha256/nothing", parts.Checks); err == nil {
		t.Error("an unknown entry could be opened")
	}
}

// TestSealWithSlots: a file gets the very slots that it had, in whatever state they are.
func TestSealWithSlots(t *testing.T) {
	for _, volume := range []int64{0, 1 << 20} {
		p := packOf(t, random(1, 3<<20)).write(t)
		resign(t, p.path, "one") // slot B is active now
		file := p.file(t)
		slots := file[p.layout(t).Head():][:archive.SlotsSize]
		again := p.to(t.TempDir()+"/b.tar.zst", volume)
		w := again.begin(t)
		again.fill(t, w, again.all()...)
		o := again.sealing(t)
		o.Slots = slots
		if err := w.Seal(context.Background(), o); err != nil {
			t.Fatal(err)
		}
		if err := w.Publish(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again.file(t), file) {
			t.Fatalf("volumes of %d: another file", volume)
		}
	}
	p := packOf(t, random(1, 10))
	for name, slots := range map[string][]byte{"none": {}, "no slots": make([]byte, archive.SlotsSize)} {
		w := p.to(t.TempDir()+"/b", 0).begin(t)
		p.fill(t, w, 0)
		o := p.sealing(t)
		o.Slots = slots
		if err := w.Seal(context.Background(), o); err == nil {
			t.Errorf("%s: no error", name)
		}
		if err := w.Discard(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFindElsewhere: a bundle elsewhere is found beside files, and signatures in files are its own
// by its file's name.
func TestFindElsewhere(t *testing.T) {
	dir := t.TempDir()
	save(t, dir+"/shop-1.0.0.tar.zst.sigstore.json", []byte("a signature"))
	far := &archive.Files{Name: "oci://r/shop:1", Remote: &archive.Remote{FileName: "shop-1.0.0.tar.zst"}}
	elsewhere := func(path string) (*archive.Files, error) {
		if path == far.Name {
			one := *far
			return &one, nil
		}
		return nil, nil
	}
	found, err := archive.FindWith([]string{far.Name, dir, far.Name}, elsewhere)
	if err != nil || len(found) != 1 || len(found[0].Detached) != 1 {
		t.Fatalf("%+v, %v", found, err)
	}
	if _, err := found[0].NextDetached(); !isRemote(err) {
		t.Fatalf("a name beside it: %v", err)
	}
	if err := archive.Resign(context.Background(), found[0], nil); !isRemote(err) {
		t.Fatalf("signing it: %v", err)
	}
	far.Remote.FileName = "other"
	if _, err := archive.FindWith([]string{far.Name, dir + "/shop-1.0.0.tar.zst.sigstore.json"}, elsewhere); !errors.Is(err, archive.ErrNotBundle) {
		t.Fatalf("a signature for nobody: %v", err)
	}
	broken := errors.New("broken")
	if _, err := archive.FindWith([]string{"x"}, func(string) (*archive.Files, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Fatalf("an error elsewhere: %v", err)
	}
}

func isRemote(err error) bool {
	var remote *archive.RemoteError
	return errors.As(err, &remote)
}
