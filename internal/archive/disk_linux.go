package archive

import (
	"errors"
	"os"
	"syscall"

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

// freeSpace is how many bytes this user may still write to the file system of dir.
func freeSpace(dir string) (int64, bool) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil || s.Bsize <= 0 || s.Blocks == 0 {
		return 0, false
	}
	if s.Bavail > uint64(MaxFile)*2/uint64(s.Bsize) {
		return MaxFile * 2, true
	}
	return int64(s.Bavail) * s.Bsize, true
}

// allocated is how much of the disk a file takes.
func allocated(info os.FileInfo) int64 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return s.Blocks * 512
	}
	return 0
}

// syncData sends the content of a file to the disk.
func syncData(f *os.File) error {
	return ignoringEINTR(func() error { return unix.Fdatasync(int(f.Fd())) })
}

func ignoringEINTR(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// dropCache lets what is read of f next come from the disk. It is a wish: where the kernel does
// not fulfil it, the bytes come from memory.
func dropCache(f *os.File) { _ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) }
