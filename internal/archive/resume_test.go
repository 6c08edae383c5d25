package archive_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/manifest"
)

var errKilled = errors.New("killed")

// stopAt writes an entry as far as byte at, as a writer that was killed there.
func (p *pack) stopAt(t testing.TB, w *archive.Writer, i, at int) {
	t.Helper()
	e := w.Entry(i)
	r := io.MultiReader(bytes.NewReader(p.blobs[i][:at]), iotest.ErrReader(errKilled))
	if err := e.Fill(context.Background(), r, ignore); !errors.Is(err, errKilled) {
		t.Fatal(err)
	}
}

// goOn recovers every entry, fetches what is missing, and returns how many bytes of each were
// taken over.
func (p *pack) goOn(t testing.TB, w *archive.Writer) []int64 {
	t.Helper()
	var found []int64
	for i, b := range p.blobs {
		e := w.Entry(i)
		complete, err := e.Recover(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if complete != (e.Taken() == int64(len(b))) && len(b) > 0 {
			t.Fatalf("entry %d: %d of %d bytes are there; complete: %t", i, e.Taken(), len(b), complete)
		}
		found = append(found, e.Taken())
		if !complete {
			if err := e.Fill(context.Background(), bytes.NewReader(b[e.Taken():]), ignore); err != nil {
				t.Fatal(err)
			}
		}
		e.Close()
	}
	return found
}

func stop(t testing.TB, w *archive.Writer) {
	t.Helper()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestResume kills writers in many places. What they had proven is taken over, of the rest what
// lies in whole frames, and the result is what it would have been.
func TestResume(t *testing.T) {
	const mib = 1 << 20
	blobs := [][]byte{random(1, 100), random(2, 3*mib+5), nil, random(3, mib), random(4, 2*mib+mib/2)}
	for _, volume := range []int64{0, mib} {
		p := packOf(t, blobs...)
		p.signatures = [][]byte{[]byte("sig")}
		want := p.one(t)
		for _, at := range []struct {
			written []int // entries that were complete
			entry   int   // that was under way
			byte    int
			found   int64 // of it
		}{
			{nil, 0, 0, 0},
			{nil, 0, 99, 0},
			{nil, 0, 100, 100}, // all is there, but its end was not seen
			{[]int{0}, 1, 0, 0},
			{[]int{0}, 1, mib - 1, 0},
			{[]int{0}, 1, mib, mib},
			{[]int{0, 2, 3}, 1, 2*mib + 7, 2 * mib},
			{[]int{0, 2, 3}, 1, 3*mib + 4, 3 * mib},
			{[]int{4, 3}, 1, 3*mib + 5, 3*mib + 5},
			{[]int{0, 1, 2, 3}, 4, 2*mib + 1, 2 * mib},
			{[]int{0, 1, 2, 4}, 3, mib, mib},
		} {
			t.Run(fmt.Sprint(volume, at), func(t *testing.T) {
				p := p.to(filepath.Join(t.TempDir(), "b"), volume)
				w := p.begin(t)
				p.fill(t, w, at.written...)
				p.stopAt(t, w, at.entry, at.byte)
				stop(t, w)
				w = p.resume(t)
				found := p.goOn(t, w)
				for i, n := range found {
					switch {
					case slices.Contains(at.written, i) && n != int64(len(blobs[i])):
						t.Errorf("entry %d was complete, %d bytes of it were found", i, n)
					case i == at.entry && n != at.found:
						t.Errorf("%d bytes of the entry under way were found, want %d", n, at.found)
					case !slices.Contains(at.written, i) && i != at.entry && n != 0:
						t.Errorf("%d bytes of entry %d were found", n, i)
					}
				}
				p.finish(t, w)
				if !bytes.Equal(p.file(t), want) {
					t.Error("the bytes are others than without the interruption")
				}
				if j, err := archive.ReadJournal(p.path); j != nil || err != nil {
					t.Errorf("a journal is left: %v", err)
				}
			})
		}
	}
}

// TestResumeAgainAndAgain: a writer that is killed after every few bytes still gets to its end.
func TestResumeAgainAndAgain(t *testing.T) {
	p := packOf(t, random(1, 2<<20+1000), random(2, 1<<20+1))
	p.volume = archive.MinVolume
	want := p.one(t)
	stop(t, p.begin(t))
	for range 6 {
		w := p.resume(t)
		for i := range p.blobs {
			e := w.Entry(i)
			if complete, err := e.Recover(context.Background()); err != nil || complete {
				continue
			}
			next := min(e.Taken()+1<<20+3, int64(len(p.blobs[i])))
			_ = e.Fill(context.Background(), io.MultiReader(bytes.NewReader(p.blobs[i][e.Taken():next]), iotest.ErrReader(errKilled)), ignore)
			break
		}
		stop(t, w)
	}
	w := p.resume(t)
	if found := p.goOn(t, w); found[0] != int64(len(p.blobs[0])) || found[1] != int64(len(p.blobs[1])) {
		t.Fatalf("%v bytes were found", found)
	}
	p.finish(t, w)
	if !bytes.Equal(p.file(t), want) {
		t.Error("the bytes are others")
	}
}

// TestNothingWrongIsTakenOver: an unfinished file is foreign bytes too.
func TestNothingWrongIsTakenOver(t *testing.T) {
	const frame = 1<<20 + 38
	p := packOf(t, random(1, 3<<20), random(2, 3<<20))
	want := p.one(t)
	at := int(p.layout(t).Head()) + archive.SlotsSize
	entry := 529 + 3*frame
	whole := p.partialOf(t)
	part := func(i int) []byte { return bytes.Clone(whole[at+i*entry : at+(i+1)*entry]) }
	for name, c := range map[string]struct {
		spoil func(b []byte) []byte
		found [2]int64
	}{
		"nothing":     {func(b []byte) []byte { return b }, [2]int64{3 << 20, 3 << 20}},
		"zeros":       {func(b []byte) []byte { return make([]byte, len(b)) }, [2]int64{}},
		"garbage":     {func(b []byte) []byte { return random(7, len(b)) }, [2]int64{}},
		"empty":       {func([]byte) []byte { return nil }, [2]int64{}},
		"cut":         {func(b []byte) []byte { return b[:at+529+frame+9] }, [2]int64{1 << 20, 0}},
		"tar header":  {func(b []byte) []byte { b[at+30] ^= 1; return b }, [2]int64{0, 3 << 20}},
		"first frame": {func(b []byte) []byte { b[at+529+1000] ^= 1; return b }, [2]int64{0, 3 << 20}},
		"last frame":  {func(b []byte) []byte { b[at+2*entry-1] ^= 1; return b }, [2]int64{3 << 20, 2 << 20}},
		"a hole in the middle": {func(b []byte) []byte {
			clear(b[at+529+frame+4096 : at+529+frame+8192])
			return b
		}, [2]int64{1 << 20, 3 << 20}},
		"frames exchanged": {func(b []byte) []byte {
			first := bytes.Clone(b[at+529 : at+529+frame])
			copy(b[at+529:], b[at+529+frame:at+529+2*frame])
			copy(b[at+529+frame:], first)
			return b
		}, [2]int64{0, 3 << 20}},
		"another content in sound frames": {func(b []byte) []byte {
			copy(b[at+529:], part(1)[529:])
			return b
		}, [2]int64{0, 3 << 20}},
		"entries exchanged": {func(b []byte) []byte {
			first := part(0)
			copy(b[at:], part(1))
			copy(b[at+entry:], first)
			return b
		}, [2]int64{}},
	} {
		t.Run(name, func(t *testing.T) {
			p := p.to(filepath.Join(t.TempDir(), "b"), 0)
			save(t, p.path+archive.PartialSuffix, c.spoil(bytes.Clone(whole)))
			w := p.resume(t)
			if found := p.goOn(t, w); [2]int64(found) != c.found {
				t.Errorf("%d bytes were taken over, want %d", found, c.found)
			}
			p.finish(t, w)
			if !bytes.Equal(p.file(t), want) {
				t.Error("the bytes are others than without the interruption")
			}
		})
	}
}

// partialOf is the unfinished file of a writer that was killed before it sealed it.
func (p *pack) partialOf(t testing.TB) []byte {
	t.Helper()
	q := p.to(filepath.Join(t.TempDir(), "b"), 0)
	w := q.begin(t)
	q.fill(t, w, q.all()...)
	stop(t, w)
	return q.partials(t)
}

// TestSoundPrefixOfAnotherBlob: frames that are sound, but of another blob, show when the whole
// is there. Then it is written anew.
func TestSoundPrefixOfAnotherBlob(t *testing.T) {
	old, now := packOf(t, random(1, 2<<20)), packOf(t, random(2, 2<<20))
	w := old.begin(t)
	old.stopAt(t, w, 0, 1<<20+5)
	stop(t, w)
	now.path = old.path
	// The header, which would give it away, is that of the new one.
	w = now.resume(t)
	now.stopAt(t, w, 0, 0)
	stop(t, w)
	w = now.resume(t)
	e := w.Entry(0)
	if complete, err := e.Recover(context.Background()); complete || err != nil || e.Taken() != 1<<20 {
		t.Fatalf("%d bytes, %v", e.Taken(), err)
	}
	var c *archive.ContentError
	if err := e.Fill(context.Background(), bytes.NewReader(now.blobs[0][1<<20:]), ignore); !errors.As(err, &c) {
		t.Fatalf("%v, want *ContentError", err)
	}
	e.Reset()
	if err := e.Fill(context.Background(), bytes.NewReader(now.blobs[0]), ignore); err != nil {
		t.Fatal(err)
	}
	now.finish(t, w)
	if !bytes.Equal(now.file(t), now.one(t)) {
		t.Error("the bytes are others")
	}
}

// TestAnotherPlanTakesNothing: what is not asked to be gone on with is gone.
func TestAnotherPlanTakesNothing(t *testing.T) {
	p := packOf(t, random(1, 2000))
	w := p.begin(t)
	p.fill(t, w, 0)
	stop(t, w)
	w = p.begin(t)
	if complete, err := w.Entry(0).Recover(context.Background()); complete || err != nil {
		t.Fatalf("complete: %t, %v", complete, err)
	}
	if err := w.Discard(); err != nil {
		t.Fatal(err)
	}
}

// TestRecoverEndsWithItsContext, and loses nothing by it.
func TestRecoverEndsWithItsContext(t *testing.T) {
	p := packOf(t, random(1, 2<<20))
	w := p.begin(t)
	p.fill(t, w, 0)
	stop(t, w)
	w = p.resume(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if complete, err := w.Entry(0).Recover(ctx); complete || !errors.Is(err, context.Canceled) {
		t.Fatalf("complete: %t, %v", complete, err)
	}
	p.goOn(t, w)
	p.finish(t, w)
}

// TestOneWriterAtATime: neither a new one nor one that wants to go on disturbs one that lives.
func TestOneWriterAtATime(t *testing.T) {
	p := packOf(t, random(1, 2000))
	w := p.begin(t)
	for _, resume := range []bool{false, true} {
		plan := p.plan(t)
		plan.Resume = resume
		if _, err := archive.NewWriter(plan); !errors.Is(err, archive.ErrBusy) {
			t.Fatalf("resume: %t: %v", resume, err)
		}
	}
	p.fill(t, w, 0)
	p.finish(t, w)
	if err := verify(p.file(t), p.layout(t)); err != nil {
		t.Fatal(err)
	}
}

// TestDiscard leaves nothing, also of what an earlier run had left.
func TestDiscard(t *testing.T) {
	for _, volume := range []int64{0, archive.MinVolume} {
		p := packOf(t, random(1, 3<<20))
		p.volume = volume
		w := p.begin(t)
		p.stopAt(t, w, 0, 2<<20)
		stop(t, w)
		if left := names(t, filepath.Dir(p.path)); left == "" {
			t.Fatal("nothing was left to go on with")
		}
		if err := p.resume(t).Discard(); err != nil {
			t.Fatal(err)
		}
		if left := names(t, filepath.Dir(p.path)); left != "" {
			t.Errorf("left over: %q", left)
		}
	}
}

// TestKilledWhilePublishing: volumes that have their final names already are taken back. A
// writer can be killed before each of the renames, the last of which is that of the first volume.
func TestKilledWhilePublishing(t *testing.T) {
	p := packOf(t, random(1, 3<<20+500), random(2, 100))
	p.volume, p.signatures = archive.MinVolume, [][]byte{[]byte("sig")}
	want := p.one(t)
	for named := range p.count(t) {
		t.Run(fmt.Sprint(named), func(t *testing.T) {
			p := p.to(filepath.Join(t.TempDir(), "b"), p.volume)
			w := p.begin(t)
			p.fill(t, w, p.all()...)
			if err := w.Seal(context.Background(), p.sealing(t)); err != nil {
				t.Fatal(err)
			}
			stop(t, w)
			for i := range named {
				name := archive.VolumeName(p.path, p.count(t)-i)
				if err := os.Rename(name+archive.PartialSuffix, name); err != nil {
					t.Fatal(err)
				}
			}
			// What is there is no bundle.
			if _, err := archive.OpenVolumes(p.path, volumesOf(t, p)); err == nil {
				t.Fatal("a bundle without its first volume was opened")
			}
			w = p.resume(t)
			if found := p.goOn(t, w); found[0] != 3<<20+500 || found[1] != 100 {
				t.Errorf("%v bytes were found", found)
			}
			p.finish(t, w)
			if !bytes.Equal(p.file(t), want) {
				t.Error("the bytes are others")
			}
		})
	}
}

// TestVolumesOfAnotherBundleStay: where there is a first volume, the others are its own, not
// leftovers.
func TestVolumesOfAnotherBundleStay(t *testing.T) {
	there := packOf(t, random(1, 3<<20))
	there.volume = archive.MinVolume
	there.write(t)
	p := packOf(t, random(2, 3<<20)).to(there.path, there.volume)
	stop(t, p.begin(t))
	w := p.resume(t)
	if found := p.goOn(t, w); found[0] != 0 {
		t.Errorf("%d bytes of another bundle were taken over", found[0])
	}
	if err := verify(there.file(t), there.layout(t)); err != nil {
		t.Errorf("what was there: %v", err)
	}
	p.finish(t, w)
	if err := verify(p.file(t), p.layout(t)); err != nil {
		t.Error(err)
	}
}

// recoverEncoded takes over what can be taken over, encodes the rest, and returns how many were
// taken over.
func (p *encodedPack) recoverEncoded(t testing.TB, w *archive.Writer) (found int) {
	t.Helper()
	p.encoded = nil
	for _, b := range p.layers {
		e, ok, err := w.RecoverEncoded(context.Background(), encodedBlob(b))
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		p.encoded = append(p.encoded, e)
		found++
	}
	p.encode(t, w, found)
	return found
}

// TestResumeEncoded: encoded blobs are taken over where they are complete, sound, and in their
// place.
func TestResumeEncoded(t *testing.T) {
	p := &encodedPack{pack: packOf(t, random(1, 5000)), layers: [][]byte{text(3 << 20), random(2, 2<<20), nil, text(100)}}
	want := read(t, p.write(t).path)
	ends := make([]int64, 0, len(p.encoded)) // of the entries in the file
	at := p.plan(t).Head + archive.SlotsSize + 529 + 5120 + 17
	starts := []int64{}
	for _, e := range p.encoded {
		starts = append(starts, at)
		at += size(e.Size)
		ends = append(ends, at)
	}
	for name, c := range map[string]struct {
		spoil func(b []byte)
		found int
	}{
		"all":              {func([]byte) {}, 4},
		"none":             {func(b []byte) { clear(b[starts[0]:]) }, 0},
		"one":              {func(b []byte) { clear(b[ends[0]:]) }, 1},
		"two and a part":   {func(b []byte) { clear(b[ends[1]+600:]) }, 2},
		"a header only":    {func(b []byte) { clear(b[starts[0]+529:]) }, 0},
		"a damaged header": {func(b []byte) { b[starts[1]+40] ^= 1 }, 1},
		"a damaged frame":  {func(b []byte) { b[ends[1]-9] ^= 1 }, 1},
		"garbage":          {func(b []byte) { copy(b[starts[1]:], random(5, 100000)) }, 1},
		"another in its place": {func(b []byte) {
			copy(b[starts[1]:], b[starts[0]:ends[0]])
		}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			p := &encodedPack{pack: p.to(filepath.Join(t.TempDir(), "b"), 0), layers: p.layers}
			partial := bytes.Clone(want)
			c.spoil(partial)
			save(t, p.path+archive.PartialSuffix, partial)
			plan := p.plan(t)
			plan.Resume = true
			w := newWriter(t, plan)
			p.goOn(t, w)
			if found := p.recoverEncoded(t, w); found != c.found {
				t.Errorf("%d were taken over, want %d", found, c.found)
			}
			p.finish(t, w)
			if !bytes.Equal(read(t, p.path), want) {
				t.Error("the bytes are others than without the interruption")
			}
		})
	}
	t.Run("context", func(t *testing.T) {
		p := &encodedPack{pack: p.to(filepath.Join(t.TempDir(), "b"), 0), layers: p.layers}
		save(t, p.path+archive.PartialSuffix, want)
		plan := p.plan(t)
		plan.Resume = true
		w := newWriter(t, plan)
		defer func() { _ = w.Discard() }()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, ok, err := w.RecoverEncoded(ctx, encodedBlob(p.layers[0])); ok || !errors.Is(err, context.Canceled) {
			t.Errorf("%t, %v", ok, err)
		}
	})
}

// size is what an entry of n bytes takes in the file, by docs/format.md.
func size(n int64) int64 {
	r := func(n int64) int64 { return 14 + n + 3*((n+131071)/131072) }
	p := (n + 511) &^ 511
	s := 529 + p>>20*r(1<<20)
	if p%(1<<20) > 0 {
		s += r(p % (1 << 20))
	}
	return s
}

// TestResumeEncodedInVolumes: killed while it encoded, in the middle of a volume.
func TestResumeEncodedInVolumes(t *testing.T) {
	p := &encodedPack{pack: packOf(t, random(1, 5000)), layers: [][]byte{random(2, 3<<20), random(3, 3<<20)}}
	p.volume = archive.MinVolume
	want := read(t, (&encodedPack{pack: p.to(filepath.Join(t.TempDir(), "b"), 0), layers: p.layers}).write(t).path)
	w := newWriter(t, p.plan(t))
	p.fill(t, w, 0)
	if _, err := w.Encode(context.Background(), encodedBlob(p.layers[0]), bytes.NewReader(p.layers[0]), ignore); err != nil {
		t.Fatal(err)
	}
	broken := io.MultiReader(bytes.NewReader(p.layers[1][:2<<20]), iotest.ErrReader(errKilled))
	if _, err := w.Encode(context.Background(), encodedBlob(p.layers[1]), broken, ignore); !errors.Is(err, errKilled) {
		t.Fatal(err)
	}
	stop(t, w)
	plan := p.plan(t)
	plan.Resume = true
	w = newWriter(t, plan)
	p.goOn(t, w)
	if found := p.recoverEncoded(t, w); found != 1 {
		t.Errorf("%d were taken over, want 1", found)
	}
	p.finish(t, w)
	if !bytes.Equal(joined(t, p.path), want) {
		t.Error("the bytes are others than without the interruption")
	}
}

// TestEncodedOfAnotherBlob: the name in the header must not be believed.
func TestEncodedOfAnotherBlob(t *testing.T) {
	layer := text(5000)
	p := &encodedPack{pack: packOf(t), layers: [][]byte{layer}}
	w := newWriter(t, p.plan(t))
	p.encode(t, w, 0)
	stop(t, w)
	plan := p.plan(t)
	plan.Resume = true
	w = newWriter(t, plan)
	defer func() { _ = w.Discard() }()
	for name, b := range map[string]manifest.Blob{
		"another": encodedBlob(text(5001)),
		"stored":  {Digest: manifest.Digest(layer), Size: 5000, Encoding: manifest.EncodingStored},
		"larger":  {Digest: manifest.Digest(layer), Size: 5001, Encoding: manifest.EncodingZstd},
		"smaller": {Digest: manifest.Digest(layer), Size: 0, Encoding: manifest.EncodingZstd},
	} {
		if _, ok, err := w.RecoverEncoded(context.Background(), b); ok || err != nil {
			t.Errorf("%s: taken over: %t, %v", name, ok, err)
		}
	}
	if _, ok, err := w.RecoverEncoded(context.Background(), encodedBlob(layer)); !ok || err != nil {
		t.Errorf("taken over: %t, %v", ok, err)
	}
}
