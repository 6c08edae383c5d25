package oci

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// files are those of a directory or an archive, by their names with slashes.
type files interface {
	// size is that of a regular file; ok says that there is one.
	size(name string) (size int64, ok bool)
	// open returns the bytes of a regular file from offset on; ErrAbsent where there is none.
	open(name string, offset int64) (io.ReadCloser, error)
	Close() error
}

func openFiles(name string) (files, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		root, err := os.OpenRoot(name)
		if err != nil {
			return nil, err
		}
		return dirFiles{root}, nil
	}
	if !info.Mode().IsRegular() { // nothing that is read only once, or never ends
		return nil, errors.New("it is neither a file nor a directory")
	}
	f, err := os.Open(filepath.Clean(name))
	if err != nil {
		return nil, err
	}
	t, err := readTar(f, name)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return t, nil
}

// dirFiles are the files of a directory. Links do not lead out of it.
type dirFiles struct{ root *os.Root }

func (d dirFiles) stat(name string) (fs.FileInfo, error) {
	info, err := d.root.Stat(filepath.FromSlash(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%q: %w", name, ErrAbsent)
	}
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%q is no regular file", name)
	}
	return info, nil
}

func (d dirFiles) size(name string) (int64, bool) {
	info, err := d.stat(name)
	if err != nil {
		return 0, false
	}
	return info.Size(), true
}

func (d dirFiles) open(name string, offset int64) (io.ReadCloser, error) {
	// Opening something else, a pipe for example, may wait for ever.
	if _, err := d.stat(name); err != nil {
		return nil, err
	}
	f, err := d.root.Open(filepath.FromSlash(name))
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (d dirFiles) Close() error { return d.root.Close() }

// Bounds on archives. Those of docker have three files for each layer.
const (
	maxTarEntries = 65536
	maxTarName    = 4096
	maxTarLinks   = 16
)

// tarFiles are the files of an archive that is not compressed.
type tarFiles struct {
	f       *os.File
	entries map[string]tarEntry
}

// tarEntry is where a file's bytes are, or else the file that it is a link to.
type tarEntry struct {
	offset, size int64
	link         string
}

// readTar reads through an archive, from header to header. As for who unpacks it, the last one of
// several files with one name counts.
func readTar(f *os.File, name string) (*tarFiles, error) {
	magic := make([]byte, magicBytes)
	n, err := io.ReadFull(f, magic)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	if format := compressionOf(magic[:n]); format != "" {
		return nil, &CompressedError{name, format}
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	t := &tarFiles{f, map[string]tarEntry{}}
	r := tar.NewReader(f)
	for count := 0; ; count++ {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return t, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading it as a tar: after %d entries: %w", count, err)
		}
		if count == maxTarEntries {
			return nil, fmt.Errorf("it has more than %d entries", maxTarEntries)
		}
		if len(h.Name) > maxTarName || len(h.Linkname) > maxTarName {
			return nil, fmt.Errorf("entry %d has a name of more than %d bytes", count, maxTarName)
		}
		// The reader of the library does not read ahead: it stands where the bytes begin.
		offset, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		t.add(h, offset)
	}
}

// add takes in an entry, unless its name leads out of the archive or it has no bytes of its own.
func (t *tarFiles) add(h *tar.Header, offset int64) {
	name, ok := inside(h.Name)
	if !ok {
		return
	}
	delete(t.entries, name)
	switch h.Typeflag {
	case tar.TypeReg:
		for key := range h.PAXRecords {
			if strings.HasPrefix(key, "GNU.sparse.") {
				return // its bytes are not in one piece
			}
		}
		t.entries[name] = tarEntry{offset: offset, size: h.Size}
	case tar.TypeLink:
		if to, ok := inside(h.Linkname); ok {
			t.entries[name] = tarEntry{link: to}
		}
	case tar.TypeSymlink:
		if to, ok := inside(path.Dir(name) + "/" + h.Linkname); ok && !path.IsAbs(h.Linkname) {
			t.entries[name] = tarEntry{link: to}
		}
	}
}

// inside is the plain form of a name; ok says that it does not lead out.
func inside(name string) (plain string, ok bool) {
	plain = path.Clean(name)
	return plain, plain != "." && plain != ".." && !strings.HasPrefix(plain, "../") && !path.IsAbs(plain)
}

func (t *tarFiles) find(name string) (tarEntry, error) {
	plain := path.Clean(name)
	for range maxTarLinks {
		e, ok := t.entries[plain]
		if !ok {
			return tarEntry{}, fmt.Errorf("%q: %w", name, ErrAbsent)
		}
		if e.link == "" {
			return e, nil
		}
		plain = e.link
	}
	return tarEntry{}, fmt.Errorf("%q is a link that leads to more than %d others", name, maxTarLinks)
}

func (t *tarFiles) size(name string) (int64, bool) {
	e, err := t.find(name)
	return e.size, err == nil
}

func (t *tarFiles) open(name string, offset int64) (io.ReadCloser, error) {
	e, err := t.find(name)
	if err != nil {
		return nil, err
	}
	offset = min(offset, e.size)
	return io.NopCloser(io.NewSectionReader(t.f, e.offset+offset, e.size-offset)), nil
}

func (t *tarFiles) Close() error { return t.f.Close() }

// formatGzip is the compression of most layers.
const formatGzip = "gzip"

// magics are how compressed files begin, magicBytes the most that takes.
var magics = []struct{ format, begin string }{
	{formatGzip, "\x1f\x8b"},
	{"zstd", "\x28\xb5\x2f\xfd"},
	{"xz", "\xfd7zXZ\x00"},
	{"bzip2", "BZh"},
}

const magicBytes = 6

// compressionOf names what bytes are compressed with that begin like this, "" for nothing known.
func compressionOf(begin []byte) string {
	for _, m := range magics {
		if bytes.HasPrefix(begin, []byte(m.begin)) {
			return m.format
		}
	}
	return ""
}
