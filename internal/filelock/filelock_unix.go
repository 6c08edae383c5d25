//go:build unix

package filelock

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Try takes a lock on f for this process alone. Errors: ErrHeld, ErrUnsupported, or that of the system.
func Try(f *os.File) error { return flock(f, unix.LOCK_EX|unix.LOCK_NB) }

// TryShared takes a lock on f together with others who do so. Errors as those of Try.
func TryShared(f *os.File) error { return flock(f, unix.LOCK_SH|unix.LOCK_NB) }

// Take is Try; it waits for others.
func Take(f *os.File) error { return flock(f, unix.LOCK_EX) }

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EWOULDBLOCK):
			return ErrHeld
		case errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOLCK):
			return ErrUnsupported
		}
		return err
	}
}
