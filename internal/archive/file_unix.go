//go:build unix

package archive

import (
	"errors"

	"golang.org/x/sys/unix"
)

// noFollow refuses to open a symbolic link.
const noFollow = unix.O_NOFOLLOW

// isInvalid reports that a file system cannot sync directories.
func isInvalid(err error) bool { return errors.Is(err, unix.EINVAL) }
