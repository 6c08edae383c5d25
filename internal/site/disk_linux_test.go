package site

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// TestFullDisk fills a real disk: what fails changes nothing, and once there is room it goes on.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("no small disk here: %v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("umount", "-l", dir).Run() })
	ballast := filepath.Join(dir, "ballast")
	// However much room there is, in pages: for nothing, a document, the record, some of the journal.
	for free := range 8 {
		d := Open(filepath.Join(dir, fmt.Sprint(free)))
		mustUpdate(t, d, accept(0))
		before := readRecord(t, d)
		full := os.WriteFile(ballast, make([]byte, 1<<20), 0o600)
		if !errors.Is(full, syscall.ENOSPC) {
			t.Fatalf("%v, want ENOSPC", full)
		}
		info, err := os.Stat(ballast)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(ballast, max(0, info.Size()-int64(4096*free))); err != nil {
			t.Fatal(err)
		}
		failed := false
		for n := 1; n < 100 && !failed; n++ {
			before = readRecord(t, d)
			if _, err := d.Update(t.Context(), noon, accept(n)); errors.Is(err, syscall.ENOSPC) {
				failed = true
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if after := readRecord(t, d); !failed || after.Journal != before.Journal {
			t.Errorf("%d pages: failed is %v, head %v, before %v", free, failed, after.Journal, before.Journal)
		}
		journal(t, d)
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		mustUpdate(t, d, accept(100))
		journal(t, d)
		if err := os.RemoveAll(d.Path()); err != nil {
			t.Fatal(err)
		}
	}
}
