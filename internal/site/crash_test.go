package site

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// The environment of a copy of this program that is to kill itself: the directory, and the
// number of the step (from 0) before which it does.
const killDir, killStep = "SITE_TEST_DIR", "SITE_TEST_STEP"

func TestMain(m *testing.M) {
	if dir := os.Getenv(killDir); dir != "" {
		n, err := strconv.Atoi(os.Getenv(killStep))
		d := Open(dir)
		d.before = func(step) error {
			if n--; n < 0 {
				self, err := os.FindProcess(os.Getpid())
				if err := errors.Join(err, self.Kill()); err != nil {
					return err
				}
				select {} // until the kernel has done it
			}
			return nil
		}
		if err == nil {
			_, err = d.Update(context.Background(), noon, accept(2))
		}
		fmt.Println("alive:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// beginnings are what a directory may hold when an update begins.
func beginnings(t *testing.T) map[string]map[string]string {
	t.Helper()
	d := Open(t.TempDir())
	mustUpdate(t, d, accept(1))
	one := files(t, d.Path())
	mustUpdate(t, d, accept(3))
	three := files(t, d.Path())
	stopped := maps.Clone(one)
	stopped[pendingName], stopped[journalName] = three[recordName], three[journalName][:len(three[journalName])-5]
	first := map[string]string{pendingName: one[recordName], journalName: one[journalName]}
	return map[string]map[string]string{"nothing": {}, "a record": one, "an interrupted update": stopped, "an interrupted first update": first}
}

// settled checks that a directory is as it was before an update or as it is after it, and that
// the next update works. It returns whether the update has happened.
func settled(t *testing.T, dir string, from map[string]string) bool {
	t.Helper()
	before, after, d := Open(filepath.Join(t.TempDir(), "b")), Open(filepath.Join(t.TempDir(), "a")), Open(dir)
	restore(t, before.Path(), from)
	restore(t, after.Path(), from)
	mustUpdate(t, after, accept(2))
	r, head := readRecord(t, d), Head{}
	old, changed := readRecord(t, before), readRecord(t, after)
	var happened bool
	switch {
	case reflect.DeepEqual(r, old):
	case reflect.DeepEqual(r, changed):
		happened = true
		if raw, err := d.Document(r.Policy, MaxDocument); err != nil || string(raw) != "policy 2" {
			t.Errorf("document: %q, %v", raw, err)
		}
	default:
		t.Fatalf("record is %+v\nold    %+v\nnew    %+v", r, old, changed)
	}
	if _, head = journal(t, d); head != r.Journal {
		t.Errorf("journal ends at %v, want %v", head, r.Journal)
	}
	next := mustUpdate(t, d, accept(4))
	if next.Seq != head.Seq+2 {
		t.Errorf("next head %v after %v", next, head)
	}
	journal(t, d)
	for name := range files(t, dir) {
		if filepath.Ext(name) == ".new" {
			t.Errorf("left behind: %s", name)
		}
	}
	return happened
}

// TestKilled kills a process before each of its steps, as kill -9 does.
func TestKilled(t *testing.T) {
	for name, from := range beginnings(t) {
		t.Run(name, func(t *testing.T) {
			all := steps(t, from, accept(2))
			for n, what := range all {
				dir := filepath.Join(t.TempDir(), "s")
				restore(t, dir, from)
				cmd := exec.Command(os.Args[0])
				cmd.Env = append(os.Environ(), killDir+"="+dir, fmt.Sprint(killStep, "=", n))
				if out, err := cmd.CombinedOutput(); err == nil || strings.Contains(string(out), "alive") {
					t.Fatalf("before %q: not killed: %v: %s", what, err, out)
				}
				// The rename is the one step that counts; one step follows it.
				if happened := settled(t, dir, from); happened != (n > len(all)-2) {
					t.Errorf("killed before %q (%d of %d): happened is %v", what, n, len(all), happened)
				}
			}
		})
	}
}

// TestFailed lets each step fail: once, and with all that come after it, as on a disk that is
// full or gone.
func TestFailed(t *testing.T) {
	for name, from := range beginnings(t) {
		t.Run(name, func(t *testing.T) {
			all := steps(t, from, accept(2))
			for n, what := range all {
				for _, forever := range []bool{false, true} {
					d, i := Open(filepath.Join(t.TempDir(), "s")), -1
					restore(t, d.Path(), from)
					d.before = func(step) error {
						if i++; i == n || forever && i > n {
							return syscall.ENOSPC
						}
						return nil
					}
					if _, err := d.Update(t.Context(), noon, accept(2)); !errors.Is(err, syscall.ENOSPC) {
						t.Errorf("%q failed: %v", what, err)
					}
					// What could clean up behind itself has done so.
					if left := files(t, d.Path()); !forever && n > 2 {
						if _, ok := left[pendingName]; ok || int64(len(left[journalName])) != readRecord(t, d).JournalSize {
							t.Errorf("%q failed: left %d bytes of journal, pending record %v", what, len(left[journalName]), ok)
						}
					}
					if happened := settled(t, d.Path(), from); happened != (n > len(all)-2) {
						t.Errorf("%q failed (%d of %d): happened is %v", what, n, len(all), happened)
					}
				}
			}
		})
	}
}

// TestLostAnswer: a rename that worked and is said to have failed is not taken back.
func TestLostAnswer(t *testing.T) {
	d := Open(t.TempDir())
	d.before = func(s step) error {
		if s != "rename record" {
			return nil
		}
		return errors.Join(errors.New("no answer"), os.Rename(d.file(pendingName), d.file(recordName)))
	}
	mustUpdate(t, d, accept(1))
	if all, _ := journal(t, d); len(all) != 2 {
		t.Errorf("%v", all)
	}
}

// TestTornJournal: a loss of power may leave any part of what was being appended, also as zeros.
func TestTornJournal(t *testing.T) {
	for name, from := range map[string]int{"first update": 0, "second update": 1} {
		t.Run(name, func(t *testing.T) {
			d := Open(t.TempDir())
			if from > 0 {
				mustUpdate(t, d, accept(1))
			}
			before := files(t, d.Path())
			mustUpdate(t, d, accept(2))
			after := files(t, d.Path())
			d = Open(filepath.Join(t.TempDir(), "s"))
			for n := len(before[journalName]); n <= len(after[journalName]); n++ {
				for _, zeros := range []bool{false, true} {
					if zeros && n%7 != 0 {
						continue
					}
					torn := maps.Clone(before)
					torn[pendingName], torn[journalName] = after[recordName], after[journalName][:n]
					if zeros {
						torn[journalName] = before[journalName] + strings.Repeat("\x00", n-len(before[journalName]))
					}
					restore(t, d.Path(), torn)
					if r := readRecord(t, d); r.Journal.Seq != int64(2*from) {
						t.Fatalf("%d bytes: %+v", n, r)
					}
					if all, _ := journal(t, d); len(all) != 2*from {
						t.Fatalf("%d bytes: %v", n, all)
					}
					if got := files(t, d.Path()); !maps.Equal(got, torn) {
						t.Fatalf("%d bytes: reading has changed the directory", n)
					}
					if n%97 == 0 || n == len(after[journalName]) {
						mustUpdate(t, d, accept(2))
						if got := files(t, d.Path()); got[journalName] != after[journalName] || got[recordName] != after[recordName] {
							t.Fatalf("%d bytes: not as if nothing had happened", n)
						}
					}
				}
			}
		})
	}
}

// TestTornPending: a new record that was cut short counts for nothing.
func TestTornPending(t *testing.T) {
	d := Open(t.TempDir())
	mustUpdate(t, d, accept(1))
	from := files(t, d.Path())
	for _, raw := range []string{"", from[recordName][:50], from[recordName]} {
		torn := maps.Clone(from)
		torn[pendingName] = raw
		restore(t, d.Path(), torn)
		if settled(t, d.Path(), torn) {
			t.Errorf("%q counts", raw)
		}
	}
}
