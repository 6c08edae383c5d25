//go:build unix

package site

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// carefully refuses to open a symbolic link, and does not wait for the other end of a pipe.
const carefully = unix.O_NOFOLLOW | unix.O_NONBLOCK

// lock takes the file for this process; the kernel gives it back when the process ends,
// however it ends.
func lock(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		return errLocked
	case errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOLCK):
		return nil // a file system without locks
	}
	return err
}

// isInvalid reports that a file system cannot sync directories.
func isInvalid(err error) bool { return errors.Is(err, unix.EINVAL) }
