//go:build unix

package filelock_test

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/sealift/sealift/internal/filelock"
)

func TestLocks(t *testing.T) {
	dir := t.TempDir()
	open := func() *os.File {
		f, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() }) // some are closed by then
		return f
	}
	one, two, three := open(), open(), open()
	if err := errors.Join(filelock.TryShared(one), filelock.TryShared(two)); err != nil {
		t.Fatal(err)
	}
	if err := filelock.Try(three); !errors.Is(err, filelock.ErrHeld) {
		t.Fatalf("%v, want ErrHeld", err)
	}
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(enough)
	if err := filelock.Wait(ctx, three, filelock.Try); !errors.Is(err, enough) {
		t.Fatalf("%v, want the cause of the end", err)
	}
	if err := errors.Join(one.Close(), two.Close()); err != nil {
		t.Fatal(err)
	}
	if err := filelock.Wait(t.Context(), three, filelock.Try); err != nil {
		t.Fatal(err)
	}
	if err := filelock.TryShared(open()); !errors.Is(err, filelock.ErrHeld) {
		t.Fatalf("%v, want ErrHeld", err)
	}
}
