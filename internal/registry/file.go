package registry

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// temporary marks files that were never finished; a store is pruned of them.
const temporary = ".tmp"

// replaceFile writes a file in one piece: whoever reads path finds the old content or the new. The
// file belongs to whom the old one did, or else to the owner of the directory.
func replaceFile(path string, content []byte, mode fs.FileMode) error {
	made, err := writeBeside(path, content, mode)
	if err != nil {
		return err
	}
	if err := os.Rename(made, path); err != nil {
		return errors.Join(err, os.Remove(made))
	}
	return syncDir(filepath.Dir(path))
}

// createFile writes a file in one piece where there is none; else it leaves the one that is there.
func createFile(path string, content []byte, mode fs.FileMode) error {
	made, err := writeBeside(path, content, mode)
	if err != nil {
		return err
	}
	err = os.Link(made, path)
	switch {
	case err == nil:
		return errors.Join(os.Remove(made), syncDir(filepath.Dir(path)))
	case errors.Is(err, fs.ErrExist):
		return os.Remove(made)
	}
	// A file system without links.
	if err := os.Rename(made, path); err != nil {
		return errors.Join(err, os.Remove(made))
	}
	return syncDir(filepath.Dir(path))
}

// writeBeside writes what is to become path, down to the disk.
func writeBeside(path string, content []byte, mode fs.FileMode) (made string, err error) {
	dir := filepath.Dir(path)
	owner, err := os.Stat(path)
	if err != nil {
		if owner, err = os.Stat(dir); err != nil {
			return "", fmt.Errorf("writing %q: %w", path, err)
		}
	}
	made = path + "." + rand.Text() + temporary
	f, err := os.OpenFile(made, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return "", fmt.Errorf("writing %q: %w", path, err)
	}
	_, err = f.Write(content)
	if err := errors.Join(err, likeFile(f, owner), f.Sync(), f.Close()); err != nil {
		return "", errors.Join(fmt.Errorf("writing %q: %w", path, err), os.Remove(made))
	}
	return made, nil
}

// makeDirs makes a directory and those above it that are not there. Each belongs to the owner of the
// one that it is in.
func makeDirs(dir string) error {
	err := os.Mkdir(dir, 0o755)
	parent := filepath.Dir(dir)
	if errors.Is(err, fs.ErrNotExist) && parent != dir {
		if err := makeDirs(parent); err != nil {
			return err
		}
		err = os.Mkdir(dir, 0o755)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil // what is no directory shows when it is used
	}
	if err != nil {
		return err
	}
	owner, err := os.Stat(parent)
	if err != nil {
		return err
	}
	return like(dir, owner)
}

// syncDir sends the names in a directory to the disk.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if isInvalid(err) {
		err = nil
	}
	return errors.Join(err, d.Close())
}
