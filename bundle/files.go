package bundle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/sealift/sealift/manifest"
)

// FileSpecError says which file of a spec cannot travel.
type FileSpecError struct {
	Path string
	// Line of the spec; 0 where no line is to blame.
	Line int
	Err  error
}

// Error names the file and its line in the spec.
func (e *FileSpecError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("file %q: %v", e.Path, e.Err)
	}
	return fmt.Sprintf("file %q (line %d of the spec): %v", e.Path, e.Line, e.Err)
}

// Unwrap returns the cause.
func (e *FileSpecError) Unwrap() error { return e.Err }

// errNotRegular is for what is in a directory and is neither a file nor a directory. Links are not
// followed: where they lead to may be different, or missing, tomorrow.
var errNotRegular = errors.New("neither a regular file nor a directory")

// readBounded reads a regular file of at most limit bytes. Opening a pipe would wait for somebody who
// writes.
func readBounded(path string, limit int64) (_ []byte, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("is no regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(raw)) > limit {
		return nil, fmt.Errorf("more than %d bytes", limit)
	}
	return raw, nil
}

// listedFile is a file that is to travel.
type listedFile struct {
	// path on this machine, name in the bundle, below relative to the path that the spec names.
	path, name, below string
	executable        bool
}

// listFiles lists the file at root, or all files below it, in the order of their names.
func listFiles(root, name string) ([]listedFile, error) {
	info, err := os.Stat(root)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		if !info.Mode().IsRegular() {
			return nil, errNotRegular
		}
		return []listedFile{{path: root, name: name, executable: info.Mode()&0o111 != 0}}, nil
	}
	var list []listedFile
	err = filepath.WalkDir(root, func(p string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%q is %w", p, errNotRegular)
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		list = append(list, listedFile{path: p, name: path.Join(name, rel), below: rel, executable: info.Mode()&0o111 != 0})
		if len(list) > manifest.MaxFiles {
			return fmt.Errorf("more than %d files", manifest.MaxFiles)
		}
		return nil
	})
	if err == nil && len(list) == 0 {
		err = errors.New("the directory holds no files")
	}
	return list, err
}

// digestFile reads a file once to learn its digest.
func digestFile(ctx context.Context, path string) (d manifest.Descriptor, err error) {
	f, err := os.Open(path)
	if err != nil {
		return d, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := sha256.New()
	n, err := io.Copy(h, &interruptible{ctx, f})
	if err != nil {
		return d, err
	}
	return manifest.Descriptor{Digest: "sha256:" + hex.EncodeToString(h.Sum(nil)), MediaType: manifest.MediaTypeFile, Size: n}, nil
}

// interruptible ends reading when the context ends.
type interruptible struct {
	ctx context.Context //nolint:containedctx // a reader has nowhere else to get it from
	r   io.Reader
}

func (i *interruptible) Read(p []byte) (int, error) {
	if err := i.ctx.Err(); err != nil {
		return 0, err
	}
	return i.r.Read(p)
}

// openFile reads a file of the spec from offset on. That it is still the one whose digest is in the
// manifest is proven by whoever writes it down.
func openFile(name string, offset int64) (io.ReadCloser, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
