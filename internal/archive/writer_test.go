package archive_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/iotest"

	"golang.org/x/sync/errgroup"

	"github.com/sealift/sealift/internal/archive"
)

// TestOrderOfWritingDoesNotMatter writes the same entries in several orders, at the same time,
// and in volumes: the bytes are the same.
func TestOrderOfWritingDoesNotMatter(t *testing.T) {
	p := packOf(t, blobsOfAllSizes()...)
	p.signatures = [][]byte{[]byte("sig")}
	want := p.write(t).file(t)
	for _, volume := range []int64{0, archive.MinVolume, archive.MinVolume + 4321, 1 << 30} {
		for name, fill := range map[string]func(*testing.T, *pack, *archive.Writer){
			"in order": func(t *testing.T, p *pack, w *archive.Writer) { p.fill(t, w, p.all()...) },
			"backwards": func(t *testing.T, p *pack, w *archive.Writer) {
				n := p.all()
				slices.Reverse(n)
				p.fill(t, w, n...)
			},
			"shuffled, in one go": func(t *testing.T, p *pack, w *archive.Writer) {
				var g errgroup.Group
				n := p.all()
				rand.New(rand.NewPCG(1, 2)).Shuffle(len(n), func(i, j int) { n[i], n[j] = n[j], n[i] })
				for _, i := range n {
					g.Go(func() error {
						e := w.Entry(i)
						defer e.Close()
						// Pieces of odd sizes.
						return e.Fill(context.Background(), iotest.HalfReader(bytes.NewReader(p.blobs[i])), ignore)
					})
				}
				if err := g.Wait(); err != nil {
					t.Fatal(err)
				}
			},
		} {
			t.Run(fmt.Sprintf("%d/%s", volume, name), func(t *testing.T) {
				q := p.to(filepath.Join(t.TempDir(), "b.tar.zst"), volume)
				w := q.begin(t)
				fill(t, q, w)
				paths := w.Paths()
				q.finish(t, w)
				if !bytes.Equal(q.file(t), want) {
					t.Fatal("the bytes differ")
				}
				var left string
				for _, path := range paths {
					left += filepath.Base(path) + " "
				}
				if got := names(t, filepath.Dir(q.path)); got != left {
					t.Fatalf("the directory holds %q, want %q", got, left)
				}
			})
		}
	}
}

// TestVolumesArePlainCuts: all volumes but the last have the size that was asked for, also where
// the last one is full, or holds next to nothing, and frames go across their borders.
func TestVolumesArePlainCuts(t *testing.T) {
	p := packOf(t, random(1, 100), random(2, 2<<20), nil, random(3, 500))
	want := p.one(t)
	half := int64(len(want) / 2)
	if len(want)%2 != 0 {
		t.Fatal("this bundle cannot be halved")
	}
	for v, count := range map[int64]int{half: 2, half - 1: 3, half + 1: 2, half - 20000: 3} {
		t.Run(fmt.Sprint(v-half), func(t *testing.T) {
			p := p.to(filepath.Join(t.TempDir(), "b"), v).write(t)
			if n := len(volumesOf(t, p)); n != count {
				t.Fatalf("%d volumes, want %d", n, count)
			}
			for i := range int64(count) {
				piece := want[i*v : min(int64(len(want)), (i+1)*v)]
				if got := read(t, archive.VolumeName(p.path, int(i)+1)); !bytes.Equal(got, piece) {
					t.Errorf("volume %d of %d has %d bytes, want %d, or others", i+1, count, len(got), len(piece))
				}
			}
			src := openVolumes(t, p)
			if err := verifySource(src, p.layout(t)); err != nil {
				t.Fatal(err)
			}
			for i, b := range p.blobs {
				r, err := reader(src, p.layout(t))
				if err != nil {
					t.Fatal(err)
				}
				if got, err := content(r, blob(b).Name); err != nil || !bytes.Equal(got, b) {
					t.Errorf("blob %d: %d bytes, %v; want %d", i, len(got), err, len(b))
				}
			}
		})
	}
}

// openVolumes opens all volumes of a pack that are there.
func openVolumes(t testing.TB, p *pack) archive.Source {
	t.Helper()
	src, err := archive.OpenVolumes(p.path, volumesOf(t, p))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = src.Close() })
	return src
}

// volumesOf are the volumes of a pack that are there.
func volumesOf(t testing.TB, p *pack) map[int]string {
	t.Helper()
	paths := map[int]string{}
	for i := range archive.MaxVolumes {
		if path := archive.VolumeName(p.path, i+1); exists(path) {
			paths[i+1] = path
		}
	}
	return paths
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// TestVolumeSizes: volumes that would be too many, or too small for what must lie in the first.
func TestVolumeSizes(t *testing.T) {
	p := packOf(t, random(1, 100))
	plan := p.plan(t)
	var many *archive.TooManyVolumesError
	plan.Volume, plan.Size = archive.MinVolume, archive.MinVolume*archive.MaxVolumes+1
	if _, err := archive.NewWriter(plan); !errors.As(err, &many) || many.Size != plan.Size || many.Volume != plan.Volume {
		t.Errorf("a volume too many: %v", err)
	}
	p.head, p.volume = 2<<20, archive.MinVolume
	if _, err := archive.NewWriter(p.plan(t)); err == nil {
		t.Error("the signature slots lie in the third volume")
	}
	if left := names(t, filepath.Dir(p.path)); left != "" {
		t.Errorf("left over: %q", left)
	}
}

func TestWrongContentIsRefused(t *testing.T) {
	body := random(1, 2000)
	p := packOf(t, body)
	w := p.begin(t)
	other := bytes.Clone(body)
	other[7] ^= 1
	e := w.Entry(0)
	for _, wrong := range [][]byte{other, body[:1999], append(bytes.Clone(body), 1), nil} {
		var c *archive.ContentError
		if err := e.Fill(context.Background(), bytes.NewReader(wrong), ignore); !errors.As(err, &c) {
			t.Fatalf("%d wrong bytes: %v", len(wrong), err)
		}
		if w.Done() != 0 {
			t.Fatalf("%d bytes are done", w.Done())
		}
		e.Reset()
	}
	// The same place can be written again after a failure.
	if err := e.Fill(context.Background(), bytes.NewReader(body), ignore); err != nil {
		t.Fatal(err)
	}
	if w.Done() != 2000 {
		t.Fatalf("%d bytes are done", w.Done())
	}
	p.finish(t, w)
	if err := verify(p.file(t), p.layout(t)); err != nil {
		t.Fatal(err)
	}
}

// TestFillGoesOn: a source that breaks off is gone on with where it broke off, wherever that is,
// also where the buffer was given back meanwhile.
func TestFillGoesOn(t *testing.T) {
	body := random(1, 2<<20+70000)
	p := packOf(t, body)
	w := p.begin(t)
	e := w.Entry(0)
	broken := errors.New("broken")
	var told int64
	for _, at := range []int{1, 1000, 131072, 131073, 1<<20 - 1, 1 << 20, 1<<20 + 1, 2 << 20, len(body) - 1, len(body)} {
		r := io.MultiReader(bytes.NewReader(body[e.Taken():at]), iotest.ErrReader(broken))
		if err := e.Fill(context.Background(), r, func(n int64) { told += n }); !errors.Is(err, broken) || e.Taken() != int64(at) {
			t.Fatalf("broken at byte %d: %d were taken, %v", at, e.Taken(), err)
		}
		e.Close()
		// Somebody else uses the buffer that was given back.
		other := w.Entry(0)
		_ = other.Fill(context.Background(), io.LimitReader(neverEnding('x'), 999), ignore)
		other.Close()
	}
	if err := e.Fill(context.Background(), bytes.NewReader(nil), ignore); err != nil || told != int64(len(body)) {
		t.Fatalf("told of %d bytes, %v", told, err)
	}
	p.readBack = true
	p.finish(t, w)
}

type neverEnding byte

func (b neverEnding) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(b)
	}
	return len(p), nil
}

// TestEndlessSourceIsLeft: one byte more than announced is all that is taken of it.
func TestEndlessSourceIsLeft(t *testing.T) {
	p := packOf(t, random(1, 2000))
	w := p.begin(t)
	defer func() { _ = w.Discard() }()
	var c *archive.ContentError
	if err := w.Entry(0).Fill(context.Background(), neverEnding('x'), ignore); !errors.As(err, &c) {
		t.Fatal(err)
	}
	// One that gives nothing, and does not say why.
	if err := w.Entry(0).Fill(context.Background(), silent{}, ignore); !errors.Is(err, io.ErrNoProgress) {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := w.Entry(0).Fill(ctx, neverEnding('x'), ignore); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

type silent struct{}

func (silent) Read([]byte) (int, error) { return 0, nil }

// TestFailedWriterLeavesNothing: neither a second writer nor a failure harms what was there.
func TestFailedWriterLeavesNothing(t *testing.T) {
	for _, volume := range []int64{0, archive.MinVolume} {
		t.Run(fmt.Sprint(volume), func(t *testing.T) {
			p := packOf(t, random(1, 3<<20))
			p.volume = volume
			p.signatures = [][]byte{[]byte("sig")}
			p.write(t)
			before, was := p.file(t), names(t, filepath.Dir(p.path))
			w := p.begin(t)
			if _, err := archive.NewWriter(p.plan(t)); !errors.Is(err, archive.ErrBusy) {
				t.Fatalf("a second writer: %v", err)
			}
			if err := w.Seal(context.Background(), p.sealing(t)); err == nil {
				t.Fatal("sealed without its entry")
			}
			if err := w.Discard(); err != nil {
				t.Fatal(err)
			}
			if now := names(t, filepath.Dir(p.path)); now != was {
				t.Fatalf("there were %q, now there are %q", was, now)
			}
			if !bytes.Equal(p.file(t), before) {
				t.Fatal("what was there before has changed")
			}
		})
	}
}

// partials are the bytes of all partial files, after each other.
func (p *pack) partials(t testing.TB) []byte {
	t.Helper()
	if p.volume == 0 {
		return read(t, p.path+archive.PartialSuffix)
	}
	var b []byte
	for i := range p.count(t) {
		b = append(b, read(t, archive.VolumeName(p.path, i+1)+archive.PartialSuffix)...)
	}
	return b
}

// TestFailedSealLeavesNoSignature: whatever is wrong is found before the signature is written,
// which is the last thing that is.
func TestFailedSealLeavesNoSignature(t *testing.T) {
	sig := []byte("the signature of the vendor")
	for name, spoil := range map[string]func(t *testing.T, p *pack, o *archive.SealOptions){
		"damaged content": func(t *testing.T, p *pack, o *archive.SealOptions) {
			o.ReadBack = true
			overwrite(t, p.path+archive.PartialSuffix, p.layout(t).Head()+archive.SlotsSize+1000)
		},
		"damaged header": func(t *testing.T, p *pack, _ *archive.SealOptions) {
			overwrite(t, p.path+archive.PartialSuffix, p.layout(t).Head()+archive.SlotsSize+40)
		},
		"another manifest": func(_ *testing.T, _ *pack, o *archive.SealOptions) { o.Manifest = append(o.Manifest, ' ') },
		"another layout": func(t *testing.T, p *pack, o *archive.SealOptions) {
			q := *p
			q.blobs = [][]byte{random(2, 3000)}
			o.Layout = q.layout(t)
		},
		"another place for the slots": func(t *testing.T, p *pack, o *archive.SealOptions) {
			q := *p
			q.head = 8192
			o.Layout = q.layout(t)
		},
		"too many signatures": func(_ *testing.T, _ *pack, o *archive.SealOptions) {
			o.Signatures = append(o.Signatures, random(1, 64000))
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := packOf(t, random(1, 3000))
			p.signatures = [][]byte{sig}
			w := p.begin(t)
			p.fill(t, w, 0)
			o := p.sealing(t)
			spoil(t, p, &o)
			if err := w.Seal(context.Background(), o); err == nil {
				t.Fatal("sealed")
			}
			if bytes.Contains(p.partials(t), sig) {
				t.Fatal("the signature was written")
			}
			if err := w.Discard(); err != nil || names(t, filepath.Dir(p.path)) != "" {
				t.Fatalf("left over: %q, %v", names(t, filepath.Dir(p.path)), err)
			}
		})
	}
	t.Run("the context ends", func(t *testing.T) {
		p := packOf(t, random(1, 3<<20))
		p.signatures = [][]byte{sig}
		w := p.begin(t)
		p.fill(t, w, 0)
		o := p.sealing(t)
		ctx, cancel := context.WithCancel(context.Background())
		o.ReadBack, o.Done = true, func(int64) { cancel() }
		if err := w.Seal(ctx, o); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if bytes.Contains(p.partials(t), sig) {
			t.Fatal("the signature was written")
		}
		// And yet nothing is lost: the next one goes on.
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		w = p.resume(t)
		if complete, err := w.Entry(0).Recover(context.Background()); !complete || err != nil {
			t.Fatal(err)
		}
		p.finish(t, w)
	})
}

// overwrite changes one byte of a file.
func overwrite(t testing.TB, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	_, err = f.ReadAt(b[:], at)
	b[0] ^= 1
	_, e := f.WriteAt(b[:], at)
	if err := errors.Join(err, e, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestSealIsReadBack: until it is published, a sealed file has all but its name.
func TestSealIsReadBack(t *testing.T) {
	for _, volume := range []int64{0, archive.MinVolume} {
		p := packOf(t, random(1, 3<<20))
		p.volume, p.signatures = volume, [][]byte{[]byte("sig")}
		w := p.begin(t)
		p.fill(t, w, 0)
		o := p.sealing(t)
		var passed int64
		o.ReadBack, o.Done = true, func(n int64) { passed += n }
		if err := w.Seal(context.Background(), o); err != nil {
			t.Fatal(err)
		}
		if passed != p.layout(t).Size() {
			t.Errorf("%d of %d bytes were read back", passed, p.layout(t).Size())
		}
		if exists(p.path) || exists(archive.VolumeName(p.path, 1)) {
			t.Error("it has its name already")
		}
		sealed := make([]byte, p.layout(t).Size())
		if _, err := w.Source().ReadAt(sealed, 0); err != nil {
			t.Fatal(err)
		}
		paths := w.Paths()
		if err := w.Publish(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(sealed, p.file(t)) {
			t.Error("what was sealed is not what was published")
		}
		for _, path := range paths {
			if !exists(path) {
				t.Errorf("%s is not there", path)
			}
		}
	}
}

// TestNameThatIsTaken: what cannot get its name is kept, and gets it when it can.
func TestNameThatIsTaken(t *testing.T) {
	for _, volume := range []int64{0, archive.MinVolume} {
		p := packOf(t, random(1, 3<<20))
		p.volume = volume
		taken := p.path
		if volume > 0 {
			taken = archive.VolumeName(p.path, 2)
		}
		w := p.begin(t)
		p.fill(t, w, 0)
		if err := w.Seal(context.Background(), p.sealing(t)); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(taken, "full"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := w.Publish(); err == nil {
			t.Fatal("it got the name of a directory")
		}
		if err := os.RemoveAll(taken); err != nil {
			t.Fatal(err)
		}
		w = p.resume(t)
		if found := p.goOn(t, w); found[0] != 3<<20 {
			t.Errorf("%d bytes were kept", found[0])
		}
		p.finish(t, w)
		if err := verify(p.file(t), p.layout(t)); err != nil {
			t.Error(err)
		}
	}
}

// TestTheSameSignatureTwice is one signature.
func TestTheSameSignatureTwice(t *testing.T) {
	p := packOf(t)
	p.signatures = [][]byte{[]byte("sig"), []byte("sig")}
	h, err := archive.ReadHead(source(p.write(t).file(t)))
	if err != nil || len(h.Signatures) != 1 {
		t.Fatalf("%d signatures, %v", len(h.Signatures), err)
	}
}

func TestSlotTakesWhatFits(t *testing.T) {
	for n, fits := range map[int]bool{64512 - 512: true, 64512 - 511: false} {
		p := packOf(t)
		p.signatures = [][]byte{random(9, n)}
		w := p.begin(t)
		err := w.Seal(context.Background(), p.sealing(t))
		if (err == nil) != fits || !fits && !errors.Is(err, archive.ErrSlotFull) {
			t.Errorf("a signature of %d bytes: %v", n, err)
		}
		if err := w.Discard(); err != nil {
			t.Error(err)
		}
	}
}

// TestReplacing: a bundle in volumes in the place of one that had more of them.
func TestReplacing(t *testing.T) {
	old := packOf(t, random(1, 6<<20))
	old.volume = archive.MinVolume
	old.write(t)
	p := packOf(t, random(2, 2<<20)).to(old.path, archive.MinVolume)
	p.write(t)
	if n := len(volumesOf(t, p)); n != p.count(t) {
		t.Fatalf("%d volumes, want %d", n, p.count(t))
	}
	if err := verify(p.file(t), p.layout(t)); err != nil {
		t.Fatal(err)
	}
}

// TestLinksAreNotFollowed: a link in the place of a partial file must not lead the writer to
// another file.
func TestLinksAreNotFollowed(t *testing.T) {
	victim := filepath.Join(t.TempDir(), "victim")
	save(t, victim, []byte("precious"))
	for name, link := range map[string]func(p *pack) string{
		"file": func(p *pack) string { return p.path + archive.PartialSuffix },
		"first volume": func(p *pack) string {
			p.volume = archive.MinVolume
			return archive.VolumeName(p.path, 1) + archive.PartialSuffix
		},
		"third volume": func(p *pack) string {
			p.volume = archive.MinVolume
			return archive.VolumeName(p.path, 3) + archive.PartialSuffix
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := packOf(t, random(1, 3<<20))
			path := link(p)
			if err := os.Symlink(victim, path); err != nil {
				t.Skipf("no links here: %v", err)
			}
			if w, err := archive.NewWriter(p.plan(t)); err == nil {
				_ = w.Discard()
				t.Error("a link was followed")
			}
			if string(read(t, victim)) != "precious" {
				t.Errorf("the file behind the link holds %q", read(t, victim))
			}
			if left := names(t, filepath.Dir(p.path)); left != filepath.Base(path)+" " {
				t.Errorf("left over: %q", left)
			}
		})
	}
}
