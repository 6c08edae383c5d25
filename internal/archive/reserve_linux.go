package archive

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// reserve allocates size bytes. Nothing is written: where the file system cannot allocate
// ahead, the size is set and a full disk shows later.
func reserve(f *os.File, size int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), 0, 0, size)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL):
			return f.Truncate(size)
		}
		return err
	}
}
