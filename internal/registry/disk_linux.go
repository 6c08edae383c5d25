package registry

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// startWriting tells the disk to begin with a part of a file. It is a wish.
func startWriting(f *os.File, offset, size int64) {
	_ = unix.SyncFileRange(int(f.Fd()), offset, size, unix.SYNC_FILE_RANGE_WRITE)
}

// syncData sends the content of a file to the disk.
func syncData(f *os.File) error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Space is how many bytes this user may still write to the file system of dir, and how large it is.
func Space(dir string) (free, total int64, ok bool) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil || s.Bsize <= 0 || s.Blocks == 0 {
		return 0, 0, false
	}
	const most = 1 << 62
	if s.Blocks > most/uint64(s.Bsize) {
		return most, most, true
	}
	return int64(s.Bavail) * s.Bsize, int64(s.Blocks) * s.Bsize, true
}

// isNotDirectory reports that what should be a directory on a path is a file: then nothing is there.
func isNotDirectory(err error) bool { return errors.Is(err, unix.ENOTDIR) }
