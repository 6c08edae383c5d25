package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// ArchiveFile is Archive to a file, which gets its name when all of it is written and durable; until
// then it is called PATH.partial, and after an error that is gone. Nothing that is there is replaced.
// Errors as those of Archive, *PlaceError, and ErrExtracting.
func ArchiveFile(ctx context.Context, b *verify.Bundle, path string, o ArchiveOptions) (_ *Archived, err error) {
	free := func() error {
		if _, err := os.Lstat(path); err == nil {
			return &PlaceError{path, "there already"}
		} else if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("extracting to %q: %w", path, err)
		}
		return nil
	}
	if err := free(); err != nil {
		return nil, err
	}
	partial := path + partialSuffix
	f, held, err := openPartial(partial)
	if err != nil {
		return nil, err
	}
	closed := false
	defer func() {
		if err != nil {
			if gone := os.Remove(partial); !errors.Is(gone, fs.ErrNotExist) {
				err = errors.Join(err, gone)
			}
		}
		if !closed {
			err = errors.Join(err, f.Close())
		}
	}()
	res, err := Archive(ctx, b, f, o)
	if err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		return nil, fmt.Errorf("extracting to %q: %w", path, err)
	}
	if !held {
		// Where there are no locks an open file may not be renamed. Where there are, it has to stay
		// locked until then, or another one takes it for left behind.
		closed = true
		if err := f.Close(); err != nil {
			return nil, fmt.Errorf("extracting to %q: %w", path, err)
		}
	}
	if err := free(); err != nil {
		return nil, err
	}
	if err := os.Rename(partial, path); err != nil {
		return nil, fmt.Errorf("extracting to %q: %w", path, err)
	}
	dir, err := os.OpenRoot(filepath.Dir(path))
	if err == nil {
		err = errors.Join(syncDir(dir, "."), dir.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("extracting to %q: %w", path, err)
	}
	return res, nil
}

// openPartial makes the file that an archive is written to, or takes over the one that a killed extract
// has left: that begins as ours do, and nobody holds it locked. held is false where there are no locks.
func openPartial(path string) (_ *os.File, held bool, err error) {
	doing := func(err error) error { return fmt.Errorf("extracting to %q: %w", path, err) }
	f, err := os.OpenFile(filepath.Clean(path), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	fresh := err == nil
	if errors.Is(err, fs.ErrExist) {
		f, err = openLeft(path)
	}
	if err != nil {
		var there *PlaceError
		if errors.As(err, &there) {
			return nil, false, err
		}
		return nil, false, doing(err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	held, err = lockFile(f)
	if err != nil {
		return nil, false, doing(err)
	}
	if !held && !fresh {
		return nil, false, &PlaceError{path, "there, left by another extract or being written by one"}
	}
	// The one that had the lock until now may have renamed or removed it.
	locked, err := f.Stat()
	if err != nil {
		return nil, false, doing(err)
	}
	there, err := os.Lstat(path)
	if err != nil || !os.SameFile(locked, there) {
		return nil, false, &PlaceError{path, "not what it was: somebody has moved it"}
	}
	if err := f.Truncate(0); err != nil {
		return nil, false, doing(err)
	}
	return f, held, nil
}

// openLeft opens what is there under the name of a partial archive.
func openLeft(path string) (_ *os.File, err error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &PlaceError{path, "there and no regular file"}
	}
	f, err := os.OpenFile(filepath.Clean(path), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if err := wasOurs(f); err != nil {
		return nil, err
	}
	opened, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !os.SameFile(info, opened) {
		return nil, &PlaceError{path, "not what it was: somebody has moved it"}
	}
	return f, nil
}

// wasOurs checks that a file begins as an archive of ours does, as far as it goes.
func wasOurs(f *os.File) error {
	var begin bytes.Buffer
	layout := manifest.OCILayout()
	if err := newArchiveWriter(&begin).add(manifest.EntryOCILayout, int64(len(layout)), bytes.NewReader(layout)); err != nil {
		return err
	}
	head := make([]byte, begin.Len())
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if !bytes.HasPrefix(begin.Bytes(), head[:n]) {
		return &PlaceError{f.Name(), "there and was not made by an extract"}
	}
	return nil
}
