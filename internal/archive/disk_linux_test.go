package archive_test

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/sealift/sealift/internal/archive"
)

// smallDisk mounts a disk of so many bytes.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%d", size), "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("no small disk here: %v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("umount", "-l", dir).Run() })
	return dir
}

// TestFullDisk: that there is too little room is told before anything is written, with how much
// is needed, and nothing is left behind.
func TestFullDisk(t *testing.T) {
	dir := smallDisk(t, 4<<20)
	for _, volume := range []int64{0, archive.MinVolume} {
		for name, c := range map[string]struct {
			blob   int
			beside int64
			fits   bool
		}{
			"too large":           {5 << 20, 0, false},
			"fits":                {2 << 20, 0, true},
			"fits with the rest":  {2 << 20, 1 << 20, true},
			"not beside the rest": {2 << 20, 2 << 20, false},
		} {
			t.Run(fmt.Sprint(name, volume), func(t *testing.T) {
				p := packOf(t, random(1, c.blob)).to(filepath.Join(dir, "b"), volume)
				plan := p.plan(t)
				plan.Beside = c.beside
				w, err := archive.NewWriter(plan)
				if c.fits {
					if err != nil {
						t.Fatal(err)
					}
					if err := w.Discard(); err != nil {
						t.Fatal(err)
					}
				} else {
					var full *archive.DiskSpaceError
					if !errors.As(err, &full) || !errors.Is(err, syscall.ENOSPC) {
						t.Fatalf("%v, want *DiskSpaceError", err)
					}
					if full.Dir != dir || full.Need != plan.Size+c.beside || full.Free > 4<<20 || full.Free < 3<<20 {
						t.Errorf("%+v; %d bytes are needed", full, plan.Size+c.beside)
					}
				}
				if left := names(t, dir); left != "" {
					t.Errorf("left over: %q", left)
				}
			})
		}
	}
}

// TestResumeOnAFullDisk: what is there already takes no room a second time, and is kept where
// there is none for the rest.
func TestResumeOnAFullDisk(t *testing.T) {
	dir := smallDisk(t, 4<<20)
	p := packOf(t, random(1, 3<<20)).to(filepath.Join(dir, "b"), 0)
	w := p.begin(t)
	p.stopAt(t, w, 0, 2<<20)
	stop(t, w)
	plan := p.plan(t)
	plan.Resume, plan.Beside = true, 2<<20
	var full *archive.DiskSpaceError
	if _, err := archive.NewWriter(plan); !errors.As(err, &full) {
		t.Fatalf("%v, want *DiskSpaceError", err)
	}
	w = p.resume(t)
	if found := p.goOn(t, w); found[0] != 2<<20 {
		t.Errorf("%d bytes were found", found[0])
	}
	p.finish(t, w)
	if err := verify(p.file(t), p.layout(t)); err != nil {
		t.Error(err)
	}
}

// TestReadOnlyMedium: the errno comes through.
func TestReadOnlyMedium(t *testing.T) {
	dir := smallDisk(t, 4<<20)
	p := packOf(t, random(1, 100)).to(filepath.Join(dir, "b.tar.zst"), 0).write(t)
	if out, err := exec.Command("mount", "-o", "remount,ro", dir).CombinedOutput(); err != nil {
		t.Skipf("%v: %s", err, out)
	}
	if err := archive.Resign(context.Background(), p.files(t), to(archive.SlotContent{})); !errors.Is(err, syscall.EROFS) {
		t.Errorf("%v, want EROFS", err)
	}
}
