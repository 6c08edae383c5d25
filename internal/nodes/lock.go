package nodes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// How long others are waited for that write into a directory, who take a moment, and how often it is
// tried again.
const (
	lockWait = 30 * time.Second
	lockPoll = 20 * time.Millisecond
)

// errLocked says that somebody else has a lock.
var errLocked = errors.New("locked by another process")

// BusyError says that somebody else has been writing into a directory for so long that nobody waits
// any more.
type BusyError struct{ Dir string }

// Error names the directory.
func (e *BusyError) Error() string {
	return fmt.Sprintf("writing into %q: another sealift writes there", e.Dir)
}

// lock keeps all others away who install into the directory dir, which is root, until what it returns
// is closed. The lock is on the directory itself: no file is left in there, which a runtime might read.
func lock(ctx context.Context, root *os.Root, dir string) (*os.File, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, lockWait, &BusyError{dir})
	defer cancel()
	held, err := root.Open(".")
	if err != nil {
		return nil, fmt.Errorf("opening the directory of the files: %w", err)
	}
	for {
		err := tryLock(held)
		if err == nil {
			return held, nil
		}
		if !errors.Is(err, errLocked) {
			return nil, errors.Join(fmt.Errorf("locking %q: %w", dir, err), held.Close())
		}
		poll := time.NewTimer(lockPoll)
		select {
		case <-poll.C:
		case <-ctx.Done():
			poll.Stop()
			return nil, errors.Join(context.Cause(ctx), held.Close())
		}
	}
}
