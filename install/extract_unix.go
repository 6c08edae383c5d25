//go:build unix

package install

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sealift/sealift/internal/filelock"
)

// lockFile takes the file for this process; the kernel gives it back when the process ends,
// however it ends. It reports false on a file system without locks.
func lockFile(f *os.File) (bool, error) {
	err := filelock.Try(f)
	switch {
	case errors.Is(err, filelock.ErrHeld):
		return false, ErrExtracting
	case errors.Is(err, filelock.ErrUnsupported):
		return false, nil
	}
	return err == nil, err
}

// cannotSync reports that a file system cannot sync directories.
func cannotSync(err error) bool { return errors.Is(err, unix.EINVAL) }

// ownedByUs reports whether this process's user owns a file.
func ownedByUs(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid()
}
