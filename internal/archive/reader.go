package archive

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/sealift/sealift/manifest"
)

// Reader gives the entries of a file whose manifest has been proven.
type Reader struct {
	src    Source
	head   *Head
	layout *Layout
	index  map[string]int
}

// NewReader returns a Reader over the file that begins with head. The caller has proven
// head.Manifest and computed layout from it. Errors: *DamageError.
func NewReader(src Source, head *Head, layout *Layout) (*Reader, error) {
	if int64(len(head.Manifest)) != layout.manifestSize {
		return nil, damageAt(src, 0, manifest.EntryManifest, "layout of another manifest")
	}
	if head.gap != layout.gap {
		return nil, damageAt(src, entrySize(layout.manifestSize), "gap", fmt.Sprintf("%d bytes, the manifest makes it %d", head.gap, layout.gap))
	}
	r := &Reader{src: src, head: head, layout: layout, index: make(map[string]int, len(layout.entries))}
	for i, e := range layout.entries {
		r.index[e.Name] = i
	}
	return r, nil
}

// Fit checks that the file, or the volumes together, have the size that the manifest makes it.
// Errors: *SizeError, *VolumesError.
func (r *Reader) Fit() error {
	if v, ok := r.src.(*volumeSource); ok {
		return v.fitLayout(r.layout)
	}
	return r.src.Fit(r.layout.size)
}

// Layout is where everything lies in the file.
func (r *Reader) Layout() *Layout { return r.layout }

// Open returns the bytes of the entry called name. They are compared with their framing while
// they are read, and the last piece (at most 1 MiB) is given out only when the whole has the
// digest that the manifest names: a reader that gets io.EOF has got proven bytes. It may be
// used at the same time as others.
func (r *Reader) Open(name string) (io.ReadCloser, error) {
	i, ok := r.index[name]
	if !ok {
		return nil, fmt.Errorf("opening entry %q: not in the manifest", name)
	}
	return &entryReader{entryScanner: r.scan(i)}, nil
}

// entryScanner walks over the frames of one entry.
type entryScanner struct {
	src   Source
	entry manifest.Entry
	at    int64 // file offset of the next frame
	rest  int64 // padded bytes to come
	left  int64 // bytes of content to come
	hash  hash.Hash
	begun bool
	buf   []byte
	// sums is told the checksum of each frame.
	sums func(uint32)
}

func (r *Reader) scan(i int) *entryScanner {
	e := r.layout.entries[i]
	return &entryScanner{
		src: r.src, entry: e, at: r.layout.offsets[i],
		rest: e.Size + padding(e.Size), left: e.Size, hash: sha256.New(), sums: func(uint32) {},
	}
}

// next returns the content of the next frame without padding, or io.EOF. The last one is
// returned only if the digest is right.
func (s *entryScanner) next() ([]byte, error) {
	content, err := s.frame()
	if err == nil && s.left == 0 && len(content) > 0 {
		err = s.prove()
	}
	if err != nil {
		return nil, err
	}
	return content, nil
}

// frame returns the content of the next frame without padding and hashes it, or io.EOF after the
// last one. An empty entry is proven here, since it has no content to withhold.
func (s *entryScanner) frame() ([]byte, error) {
	if !s.begun {
		if err := s.header(); err != nil {
			return nil, err
		}
		if s.left == 0 {
			if err := s.prove(); err != nil {
				return nil, err
			}
		}
	}
	if s.rest == 0 {
		return nil, io.EOF
	}
	start := s.at
	content, sum, err := s.raw(min(s.rest, FrameContent))
	if err != nil {
		return nil, err
	}
	n := min(s.left, int64(len(content)))
	if !allZero(content[n:]) {
		return nil, damageAt(s.src, start, s.entry.Name, errPadding)
	}
	s.pass(int64(len(content)))
	s.sums(sum)
	s.hash.Write(content[:n])
	return content[:n], nil
}

// header reads the frame of the tar header.
func (s *entryScanner) header() error {
	header := tarHeader(s.entry.Name, s.entry.Size, typeRegular)
	sum := checksum(header)
	if err := compareAt(s.src, appendSummed(nil, header, sum), s.at, s.entry.Name); err != nil {
		return err
	}
	s.begun = true
	s.at += frameSize(tarBlock)
	s.sums(sum)
	return nil
}

// pass steps over a frame of n bytes of padded content.
func (s *entryScanner) pass(n int64) {
	s.at += frameSize(n)
	s.rest -= n
	s.left -= min(s.left, n)
}

func (s *entryScanner) prove() error {
	if got := hex.EncodeToString(s.hash.Sum(nil)); got != s.entry.SHA256 {
		return damageAt(s.src, s.at, s.entry.Name, fmt.Sprintf("content has digest sha256:%s, want sha256:%s", got, s.entry.SHA256))
	}
	return nil
}

// raw reads the frame of n bytes of content that is next, and does not step over it.
func (s *entryScanner) raw(n int64) ([]byte, uint32, error) {
	size := frameSize(n)
	if int64(cap(s.buf)) < size {
		s.buf = make([]byte, size)
	}
	buf := s.buf[:size]
	if err := readFull(s.src, buf, s.at, s.entry.Name); err != nil {
		return nil, 0, err
	}
	content, sum, bad := openFrame(buf, int(n))
	if bad >= 0 {
		d := damageAt(s.src, s.at+int64(bad), s.entry.Name, errFraming)
		// What the checksum does not fit to may be wrong anywhere.
		d.exact = int64(bad) < size-frameTrailer
		return nil, 0, d
	}
	return content, sum, nil
}

// entryReader turns an entryScanner into a reader.
type entryReader struct {
	*entryScanner
	piece []byte
	err   error
}

func (r *entryReader) Read(p []byte) (int, error) {
	for len(r.piece) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		r.piece, r.err = r.next()
	}
	n := copy(p, r.piece)
	r.piece = r.piece[n:]
	return n, nil
}

// WriteTo spares io.Copy a buffer and a copy.
func (r *entryReader) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for {
		if len(r.piece) > 0 {
			n, err := w.Write(r.piece)
			total += int64(n)
			r.piece = r.piece[n:]
			if err != nil {
				return total, err
			}
			continue
		}
		if r.err == nil {
			r.piece, r.err = r.next()
		}
		if len(r.piece) == 0 && r.err != nil {
			if errors.Is(r.err, io.EOF) {
				return total, nil
			}
			return total, r.err
		}
	}
}

func (r *entryReader) Close() error {
	r.err, r.piece = errors.New("read of a closed entry"), nil
	return nil
}

// readFull reads exactly len(p) bytes at off; a file that ends earlier is damaged.
func readFull(src Source, p []byte, off int64, part string) error {
	n, err := src.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if errors.Is(err, io.EOF) || err == nil {
		return wrongByte(src, off+int64(n), part, errEnds)
	}
	return &ReadError{off + int64(n), part, src.Place(off + int64(n)), err}
}

var zeros [tarBlock]byte

func allZero(b []byte) bool {
	for len(b) > len(zeros) {
		if !bytes.Equal(b[:len(zeros)], zeros[:]) {
			return false
		}
		b = b[len(zeros):]
	}
	return bytes.Equal(b, zeros[:len(b)])
}
