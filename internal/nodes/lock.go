package nodes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/sealift/sealift/internal/filelock"
)

// lockWait is how long others are waited for that write into a directory, who take a moment.
const lockWait = 30 * time.Second

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
	err = filelock.Wait(ctx, held, filelock.Try)
	// NFS has locks of files, and none of directories.
	if err == nil || errors.Is(err, filelock.ErrUnsupported) || errors.Is(err, syscall.EBADF) {
		return held, nil
	}
	if ctx.Err() == nil {
		err = fmt.Errorf("locking %q: %w", dir, err)
	}
	return nil, errors.Join(err, held.Close())
}
