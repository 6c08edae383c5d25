package parity

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cespare/xxhash/v2"
)

// Input is a parity file to use.
type Input struct {
	io.ReaderAt
	Size int64
}

// Set is the parity files of one bundle, or those of them that are left.
type Set struct {
	geo   Geometry
	meta  Meta
	files []*input
	rows  [][]*input // the files that hold each row
	given int        // how many files Open was given
}

// input is a usable parity file.
type input struct {
	*header
	Input
	sum   uint64 // of the header
	index int    // among the files that Open was given
}

// Open reads the headers of parity files, which may come in any order and may be any of those
// that were made. want is the identity of the bundle, or nil where it is not known. The second
// result has an error for each file that cannot be used, and nil for the others; damage behind
// a header is not looked for. Open fails with ErrNone where no file can be used, and, where
// want is nil, with ErrMixed where they are of several bundles.
//
// A header is not signed: size and identity are to be compared with the bundle's manifest as
// soon as that is there.
func Open(files []Input, want *[32]byte) (*Set, []error, error) {
	return open(files, want, BlockSize)
}

func open(files []Input, want *[32]byte, block int64) (*Set, []error, error) {
	s := &Set{given: len(files)}
	unusable := make([]error, len(files))
	for i, f := range files {
		in, err := openFile(f, i, block)
		if err == nil && want != nil && in.meta.Identity != *want {
			err = &ForeignError{in.meta.Identity, *want}
		}
		if err != nil {
			unusable[i] = err
			continue
		}
		s.files = append(s.files, in)
	}
	if len(s.files) == 0 {
		return nil, unusable, ErrNone
	}
	// Rows do not depend on how many there are, nor do they on how they are divided into
	// files: parity that was made several times is used together.
	first := s.files[0]
	s.geo, s.meta = first.geo, first.meta
	for _, f := range s.files {
		if f.meta.Identity != s.meta.Identity {
			return nil, unusable, fmt.Errorf("%w: sha256:%x and sha256:%x", ErrMixed, s.meta.Identity, f.meta.Identity)
		}
		if f.geo.size != s.geo.size || f.meta.Hole != s.meta.Hole {
			return nil, unusable, fmt.Errorf("%w: files of one identity, but of %d and %d bytes with holes at %v and %v",
				ErrMixed, s.geo.size, f.geo.size, s.meta.Hole, f.meta.Hole)
		}
		s.geo.rows = max(s.geo.rows, f.geo.rows)
	}
	s.rows = make([][]*input, s.geo.rows)
	for _, f := range s.files {
		for r := f.first; r < f.first+f.rows; r++ {
			s.rows[r] = append(s.rows[r], f)
		}
	}
	for _, f := range s.files {
		if s.meta.HoleContent = f.holeContent(); s.meta.HoleContent != nil {
			break
		}
	}
	return s, unusable, nil
}

func openFile(f Input, index int, block int64) (*input, error) {
	p := make([]byte, pageSize)
	at := func(off int64) (*input, error) {
		if err := readFull(f, p, off); err != nil {
			return nil, fmt.Errorf("reading the header of a parity file: %w", err)
		}
		h, err := parseHeader(p, block)
		if err != nil {
			return nil, err
		}
		return &input{h, f, binary.LittleEndian.Uint64(p[pageRecords:]), index}, nil
	}
	if f.Size < pageSize {
		return nil, ErrNotParity
	}
	in, err := at(0)
	if err == nil {
		return in, nil
	}
	in, last := at(f.Size - pageSize)
	if last != nil {
		// A version that is not known says more than that the other page is no header.
		if errors.Is(err, ErrNotParity) {
			return nil, last
		}
		return nil, err
	}
	// From the end, everything is found only where nothing is missing.
	if in.fileSize() != f.Size {
		return nil, fmt.Errorf("parity file without its beginning: got %d bytes, want %d: %w", f.Size, in.fileSize(), ErrNotParity)
	}
	return in, nil
}

// Geometry is how the bundle is divided and how much parity was made.
func (s *Set) Geometry() Geometry { return s.geo }

// Identity is the SHA-256 of the bundle's manifest.
func (s *Set) Identity() [32]byte { return s.meta.Identity }

// Hole is the range of the bundle that parity does not cover.
func (s *Set) Hole() Range { return s.meta.Hole }

// HoleContent is what the hole held when the parity was made, or nil where no file has that
// undamaged.
func (s *Set) HoleContent() []byte { return s.meta.HoleContent }

// Rows is how many of the rows of parity that were made are in the usable files.
func (s *Set) Rows() int {
	n := 0
	for _, files := range s.rows {
		if len(files) > 0 {
			n++
		}
	}
	return n
}

// holeContent reads the content of the hole, nil where it is damaged in both copies.
func (f *input) holeContent() []byte {
	content := make([]byte, 0, f.meta.Hole.Size+pageRecords)
	p := make([]byte, pageSize)
	for page := int64(0); int64(len(content)) < f.meta.Hole.Size; page++ {
		if !f.readPage(page, p) {
			return nil
		}
		content = append(content, p[:pageRecords]...)
	}
	return content[:f.meta.Hole.Size]
}

// readPage reads a page of the index into p from a copy that is undamaged.
func (f *input) readPage(page int64, p []byte) bool {
	for _, second := range []bool{false, true} {
		if readFull(f, p, f.pageOffset(second, page)) == nil && f.goodPage(page, p) {
			return true
		}
	}
	return false
}

func (f *input) goodPage(page int64, p []byte) bool {
	return pageSum(f.sum, page, p[:pageRecords]) == binary.LittleEndian.Uint64(p[pageRecords:])
}

// sums reads checksums of blocks, and keeps a page: the next one is likely to be in it.
type sums struct {
	files []*input // that have the same records there, the one to try first in front
	page  int64
	state int // of the page: 0 not read, 1 good, -1 damaged in all copies
	buf   [pageSize]byte
}

// at is the checksum at this place in the records, false where it is damaged in all copies.
func (c *sums) at(off int64) (uint64, bool) {
	page, in := off/pageRecords, off%pageRecords
	if c.state == 0 || c.page != page {
		c.page, c.state = page, -1
		for i, f := range c.files {
			if f.readPage(page, c.buf[:]) {
				c.files[0], c.files[i] = c.files[i], c.files[0]
				c.state = 1
				break
			}
		}
	}
	if c.state < 0 {
		return 0, false
	}
	return binary.LittleEndian.Uint64(c.buf[in:]), true
}

// isSum reports whether p has the checksum at this place in the records.
func (c *sums) isSum(off int64, sum uint64) bool {
	want, ok := c.at(off)
	return ok && sum == want
}

// isGood reports whether p, nil where it could not be read, is the block with the checksum at
// this place in the records.
func (c *sums) isGood(off int64, p []byte) bool {
	return p != nil && c.isSum(off, xxhash.Sum64(p))
}
