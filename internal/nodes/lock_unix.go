//go:build unix

package nodes

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// tryLock takes a lock alone, or returns errLocked.
func tryLock(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EWOULDBLOCK):
			return errLocked
		case errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOLCK), errors.Is(err, unix.EBADF):
			return nil // a file system without locks, or, as NFS, without those of directories
		}
		return err
	}
}
