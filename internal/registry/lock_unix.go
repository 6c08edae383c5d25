//go:build unix

package registry

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// plainly opens no symbolic link, and waits for no pipe.
const plainly = unix.O_NOFOLLOW | unix.O_NONBLOCK

// like gives the directory that the superuser has just made at path to the owner of the store: one who seeds a store as
// root must not lock out the service that serves it.
func like(path string, owner fs.FileInfo) error {
	uid, gid, ok := give(owner)
	if !ok {
		return nil
	}
	dir, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	return errors.Join(dir.Chown(uid, gid), dir.Close())
}

// likeFile is like for an open file.
func likeFile(f *os.File, owner fs.FileInfo) error {
	if uid, gid, ok := give(owner); ok {
		return f.Chown(uid, gid)
	}
	return nil
}

// give returns to whom to give, where there is anything to do.
func give(owner fs.FileInfo) (uid, gid int, ok bool) {
	s, known := owner.Sys().(*syscall.Stat_t)
	if !known || os.Geteuid() != 0 || s.Uid == 0 {
		return 0, 0, false
	}
	return int(s.Uid), int(s.Gid), true
}

// isInvalid reports that a file system cannot sync directories.
func isInvalid(err error) bool { return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) }
