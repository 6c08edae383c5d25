package archive_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/sealift/sealift/internal/archive"
)

// copyTo copies a bundle and proves the copy, and returns it as a pack.
func (p *pack) copyTo(t *testing.T, src archive.Source, volume int64) *pack {
	t.Helper()
	q := p.to(filepath.Join(t.TempDir(), "copy"), volume)
	c, err := archive.NewCopy(q.path, volume, q.layout(t), 0)
	if err != nil {
		t.Fatal(err)
	}
	var copied, proven int64
	if err := c.Copy(context.Background(), src, func(n int64) { copied += n }); err != nil {
		t.Fatal(err)
	}
	if err := c.Prove(context.Background(), q.raw, func(n int64) { proven += n }); err != nil {
		t.Fatal(err)
	}
	if size := q.layout(t).Size(); copied != size || proven != size {
		t.Errorf("told of %d and %d bytes of %d", copied, proven, size)
	}
	if err := c.Publish(); err != nil {
		t.Fatal(err)
	}
	return q
}

// TestCopy cuts a file into volumes, those into others, and joins them again.
func TestCopy(t *testing.T) {
	p := packOf(t, random(1, 3<<20), random(2, 1000))
	p.signatures = [][]byte{[]byte("sig")}
	file := p.write(t).file(t)
	cut := p.copyTo(t, source(file), archive.MinVolume)
	if !bytes.Equal(cut.file(t), file) || len(volumesOf(t, cut)) != 4 {
		t.Error("the volumes are not the file")
	}
	other := p.copyTo(t, openVolumes(t, cut), archive.MinVolume+77)
	if !bytes.Equal(other.file(t), file) {
		t.Error("the other volumes are not the file")
	}
	if one := p.copyTo(t, openVolumes(t, other), 0); !bytes.Equal(one.file(t), file) {
		t.Error("what was joined is not the file")
	}
}

// TestCopyIsProven: a source that gives other bytes than those of its manifest, or not all.
func TestCopyIsProven(t *testing.T) {
	p := packOf(t, random(1, 2<<20))
	file := p.write(t).file(t)
	flipped := bytes.Clone(file)
	flipped[1<<20] ^= 1
	for name, src := range map[string][]byte{"damaged": flipped, "cut": file[:len(file)-1]} {
		q := p.to(filepath.Join(t.TempDir(), "copy"), archive.MinVolume)
		c, err := archive.NewCopy(q.path, q.volume, q.layout(t), 0)
		if err != nil {
			t.Fatal(err)
		}
		err = c.Copy(context.Background(), source(src), ignore)
		if err == nil {
			err = c.Prove(context.Background(), q.raw, ignore)
		}
		var d *archive.DamageError
		if !errors.As(err, &d) {
			t.Errorf("%s: %v, want *DamageError", name, err)
		}
		if err := c.Discard(); err != nil || names(t, filepath.Dir(q.path)) != "" {
			t.Errorf("%s: left over: %q, %v", name, names(t, filepath.Dir(q.path)), err)
		}
	}
}

// TestCopyDisturbsNobody: neither a writer that lives nor what one has left to go on with.
func TestCopyDisturbsNobody(t *testing.T) {
	for _, volume := range []int64{0, archive.MinVolume} {
		t.Run(fmt.Sprint(volume), func(t *testing.T) {
			p := packOf(t, random(1, 3<<20))
			p.volume = volume
			w := p.begin(t)
			p.stopAt(t, w, 0, 2<<20)
			if _, err := archive.NewCopy(p.path, volume, p.layout(t), 0); !errors.Is(err, archive.ErrBusy) {
				t.Errorf("a writer lives: %v", err)
			}
			stop(t, w)
			if _, err := archive.NewCopy(p.path, volume, p.layout(t), 0); !errors.Is(err, archive.ErrBusy) {
				t.Errorf("a writer was killed: %v", err)
			}
			w = p.resume(t)
			if found := p.goOn(t, w); found[0] != 2<<20 {
				t.Errorf("%d bytes are left", found[0])
			}
			p.finish(t, w)
		})
	}
}

// TestTidy removes what a writer left that was killed after its bundle had got its name, and
// nothing of an unfinished one.
func TestTidy(t *testing.T) {
	p := packOf(t, random(1, 100))
	w := p.begin(t)
	stop(t, w)
	if err := archive.Tidy(p.path); err != nil {
		t.Fatal(err)
	}
	if j, err := archive.ReadJournal(p.path); j == nil || err != nil {
		t.Fatalf("the journal of an unfinished one: %v, %v", j, err)
	}
	p.write(t)
	save(t, p.path+journalName, []byte("{}"))
	if err := archive.Tidy(p.path); err != nil || names(t, filepath.Dir(p.path)) != "b.tar.zst " {
		t.Fatalf("left over: %q, %v", names(t, filepath.Dir(p.path)), err)
	}
}
