//go:build unix

package site

import (
	"errors"

	"golang.org/x/sys/unix"
)

// carefully refuses to open a symbolic link, and does not wait for the other end of a pipe.
const carefully = unix.O_NOFOLLOW | unix.O_NONBLOCK

// isInvalid reports that a file system cannot sync directories.
func isInvalid(err error) bool { return errors.Is(err, unix.EINVAL) }
