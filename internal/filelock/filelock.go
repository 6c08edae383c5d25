// Package filelock keeps processes apart by advisory locks on open files and directories (flock). The
// kernel gives a lock back when the file is closed, or its process ends, however it ends. Outside Unix
// there are none: there everybody gets a lock at once.
package filelock

import (
	"context"
	"errors"
	"os"
	"time"
)

var (
	// ErrHeld says that somebody else holds a lock on the file.
	ErrHeld = errors.New("locked by another process")
	// ErrUnsupported says that the file system has no locks.
	ErrUnsupported = errors.New("the file system has no locks")
)

// poll is how often Wait tries.
const poll = 20 * time.Millisecond

// Wait calls try, which is Try or TryShared, until the lock is not held by somebody else, or ctx ends:
// then it returns the cause of that. Other errors are those of try.
func Wait(ctx context.Context, f *os.File, try func(*os.File) error) error {
	for {
		if err := try(f); !errors.Is(err, ErrHeld) {
			return err
		}
		t := time.NewTimer(poll)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		}
	}
}
