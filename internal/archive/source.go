package archive

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// Source is where the bytes of a bundle file come from: the file, its volumes, or a stream.
type Source interface {
	io.ReaderAt
	// Fit checks that there are n bytes, which is what the manifest makes the file. Errors:
	// *SizeError, *VolumesError. Reading goes on to work where it can.
	Fit(n int64) error
	// Place is the volume that the byte at off lies in, nil where there are no volumes.
	Place(off int64) *Place
	Close() error
}

// Place is a place in one of several volumes.
type Place struct {
	// Number of the volume, from 1; Count of all volumes, 0 where it is not known yet.
	Number, Count int
	Path          string
	// Offset in the volume, in bytes.
	Offset int64
}

// errNotRegular is returned for directories, pipes and devices.
var errNotRegular = errors.New("not a regular file")

// OpenRegular opens a regular file for reading. It looks before it opens, since opening a pipe
// waits for somebody to write into it, and once more afterwards.
func OpenRegular(path string) (*os.File, os.FileInfo, error) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = &os.PathError{Op: "open", Path: path, Err: errNotRegular}
	}
	if err != nil {
		return nil, nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	if info, err = f.Stat(); err == nil && !info.Mode().IsRegular() {
		err = &os.PathError{Op: "open", Path: path, Err: errNotRegular}
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, info, nil
}

// bytesSource is a source of known size.
type bytesSource struct {
	io.ReaderAt
	size  int64
	close func() error
}

// NewSource returns a source over size bytes of r. Closing it does nothing.
func NewSource(r io.ReaderAt, size int64) Source {
	return &bytesSource{r, size, func() error { return nil }}
}

// OpenFile returns a source over the file at path. ErrNotBundle where that is no regular file.
func OpenFile(path string) (Source, error) {
	f, info, err := OpenRegular(path)
	if errors.Is(err, errNotRegular) {
		return nil, fmt.Errorf("%w: %w", ErrNotBundle, err)
	}
	if err != nil {
		return nil, err
	}
	return &bytesSource{f, info.Size(), f.Close}, nil
}

func (s *bytesSource) Fit(n int64) error {
	if s.size != n {
		return &SizeError{s.size, n}
	}
	return nil
}

func (s *bytesSource) Place(int64) *Place { return nil }
func (s *bytesSource) Close() error       { return s.close() }

// ErrStream is returned where bytes of a stream are asked for that have passed, or are still to
// come.
var ErrStream = errors.New("a stream is read in one pass, from front to back")

// streamSource gives the bytes of a pipe, in their order.
type streamSource struct {
	r  io.Reader
	at int64
}

// NewStream returns a source over a stream. Its bytes can be read once, in order. It closes
// nothing.
func NewStream(r io.Reader) Source { return &streamSource{r: r} }

func (s *streamSource) ReadAt(p []byte, off int64) (int, error) {
	if off != s.at {
		return 0, fmt.Errorf("reading byte %d of a stream that is at %d: %w", off, s.at, ErrStream)
	}
	n, err := io.ReadFull(s.r, p)
	s.at += int64(n)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

// Fit cannot know: that nothing follows is seen at the end.
func (s *streamSource) Fit(int64) error    { return nil }
func (s *streamSource) Place(int64) *Place { return nil }
func (s *streamSource) Close() error       { return nil }
