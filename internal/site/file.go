package site

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sealift/sealift/internal/filelock"
)

// lock takes a file, or directory, for this process alone, or returns filelock.ErrHeld. Where the file
// system has no locks it does without.
func lock(f *os.File) error {
	if err := filelock.Try(f); !errors.Is(err, filelock.ErrUnsupported) {
		return err
	}
	return nil
}

var errNotRegular = errors.New("not a regular file")

// open opens a regular file that is not reached by a symbolic link: no file of ours is one.
func open(path string, flag int) (*os.File, int64, error) {
	f, err := os.OpenFile(path, flag|carefully, 0o644)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: path, Err: errNotRegular}
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

// closing closes a file at the end of a function that returns *err, which stays as it is where
// there is nothing to add.
func closing(f *os.File, err *error) {
	if e := f.Close(); e != nil {
		*err = errors.Join(*err, e)
	}
}

// read returns the content of a file, or the first limit+1 bytes of one that has more than
// limit.
func read(path string, limit int64) (_ []byte, err error) {
	f, _, err := open(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer closing(f, &err)
	return io.ReadAll(io.LimitReader(f, limit+1))
}

// makeDir makes a directory and those above it that are not there, on the disk when it returns.
func makeDir(path string) error {
	err := os.Mkdir(path, 0o755)
	if parent := filepath.Dir(path); errors.Is(err, fs.ErrNotExist) && parent != path {
		if err := makeDir(parent); err != nil {
			return err
		}
		err = os.Mkdir(path, 0o755)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil // what is no directory shows when it is used
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) (err error) {
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrPermission) {
		return nil // a directory that may be written to, but not read
	}
	if err != nil {
		return err
	}
	defer closing(d, &err)
	if err := d.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !isInvalid(err) {
		return err
	}
	return nil
}

// remove removes a file that need not be there.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// A step is what is done to the disk; tests stop it, or let it fail, before each one.
type step string

// do does a step.
func (d *Dir) do(what step, f func() error) error {
	if d.before != nil {
		if err := d.before(what); err != nil {
			return err
		}
	}
	return f()
}

// write writes a new file, on the disk when it returns; what has its name goes.
func (d *Dir) write(path string, raw []byte) (err error) {
	what := step(filepath.Base(path))
	if err := d.do("remove old "+what, func() error { return remove(path) }); err != nil {
		return err
	}
	var f *os.File
	if err := d.do("create "+what, func() (err error) {
		f, _, err = open(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
		return err
	}); err != nil {
		return err
	}
	defer closing(f, &err)
	if err := d.do("write "+what, func() error { _, err := f.Write(raw); return err }); err != nil {
		return err
	}
	return d.do("sync "+what, f.Sync)
}

// store puts a document in its place, all of it or nothing; the directory is still to be synced.
func (d *Dir) store(digest string, content []byte) error {
	path := d.document(digest)
	if old, err := read(path, MaxDocument); err == nil && digestOf(old) == digest {
		return nil
	}
	temporary := filepath.Join(filepath.Dir(path), "new")
	err := d.write(temporary, content)
	if err == nil {
		err = d.do("rename document", func() error { return os.Rename(temporary, path) })
	}
	if err != nil {
		return fmt.Errorf("keeping document %s: %w", digest, errors.Join(err, remove(temporary)))
	}
	return nil
}
