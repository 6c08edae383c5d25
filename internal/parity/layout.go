package parity

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/cespare/xxhash/v2"
)

const (
	magic   = "SLPARITY"
	version = 1
	// pageSize is that of the header and of the pages of the index: one sector of a device
	// that dies takes one page.
	pageSize = 4096
	// pageRecords is how many bytes of records are in a page; its checksum follows.
	pageRecords = pageSize - sumSize
	sumSize     = 8
)

// Meta is what a parity file says about its bundle.
type Meta struct {
	// Identity is the SHA-256 of the bundle's manifest.
	Identity [32]byte
	// Hole is the range of the bundle that parity does not cover and that counts as zeros: the
	// signature slots, which signing again rewrites.
	Hole Range
	// HoleContent is what the hole held when the parity was made.
	HoleContent []byte
}

func (m Meta) check(g Geometry) error {
	h := m.Hole
	if h.Size < 0 || h.Size > MaxHole || h.Offset < 0 || h.Offset > g.size-h.Size {
		return fmt.Errorf("hole of %d bytes at %d in a file of %d: %w", h.Size, h.Offset, g.size, ErrLimit)
	}
	return nil
}

// header is the first and the last page of a parity file. Where everything else lies follows
// from it.
type header struct {
	geo           Geometry
	meta          Meta // without HoleContent
	files, number int  // this is file number of files, counted from 1
	first, rows   int  // the rows that it holds
}

func newHeader(g Geometry, meta Meta, files, number int) *header {
	meta.HoleContent = nil
	first, end := (number-1)*g.rows/files, number*g.rows/files
	return &header{g, meta, files, number, first, end - first}
}

func (h *header) encode() []byte {
	p := make([]byte, 0, pageSize)
	u32 := func(v int) { p = binary.LittleEndian.AppendUint32(p, uint32(v)) }
	u64 := func(v int64) { p = binary.LittleEndian.AppendUint64(p, uint64(v)) }
	p = append(p, magic...)
	u32(version)
	u32(int(h.geo.block))
	u64(h.geo.size)
	u64(h.geo.Stripes())
	u32(h.geo.DataRows())
	u32(h.geo.rows)
	u32(h.files)
	u32(h.number)
	u32(h.first)
	u32(h.rows)
	u64(h.meta.Hole.Offset)
	u64(h.meta.Hole.Size)
	p = append(p, h.meta.Identity[:]...)
	p = p[:pageRecords]
	return binary.LittleEndian.AppendUint64(p, xxhash.Sum64(p))
}

// parseHeader reads a page that should be a header of a parity file with blocks of this size.
// There is one valid encoding: the page has to be what encode makes of it.
func parseHeader(p []byte, block int64) (*header, error) {
	if string(p[:len(magic)]) != magic || xxhash.Sum64(p[:pageRecords]) != binary.LittleEndian.Uint64(p[pageRecords:]) {
		return nil, ErrNotParity
	}
	u32 := func(at int) int { return int(min(binary.LittleEndian.Uint32(p[at:]), 1<<30)) }
	u64 := func(at int) int64 { return int64(min(binary.LittleEndian.Uint64(p[at:]), 1<<62)) }
	if v := binary.LittleEndian.Uint32(p[8:]); v != version {
		return nil, &VersionError{v}
	}
	g, err := newGeometry(u64(16), block)
	if err != nil {
		return nil, err
	}
	if g, err = g.withRows(int64(u32(36))); err != nil {
		return nil, err
	}
	meta := Meta{Hole: Range{u64(56), u64(64)}}
	copy(meta.Identity[:], p[72:])
	if err := meta.check(g); err != nil {
		return nil, err
	}
	files, number := u32(40), u32(44)
	if files < 1 || files > g.rows || number < 1 || number > files {
		return nil, fmt.Errorf("file %d of %d with %d rows of parity: %w", number, files, g.rows, ErrLimit)
	}
	h := newHeader(g, meta, files, number)
	if !bytes.Equal(h.encode(), p) {
		return nil, fmt.Errorf("header of a parity file contradicts itself: %w", ErrLimit)
	}
	return h, nil
}

// The records are the hole's content, the checksums of all blocks of data and those of the
// blocks of parity in this file. Every part begins at a multiple of the size of a checksum,
// so none of them lies in two pages.
func (h *header) dataSum(block int64) int64 {
	return divUp(h.meta.Hole.Size, sumSize)*sumSize + block*sumSize
}

func (h *header) paritySum(row int, stripe int64) int64 {
	return h.dataSum(h.geo.Blocks()) + (int64(row-h.first)*h.geo.Stripes()+stripe)*sumSize
}

func (h *header) recordsSize() int64 { return h.paritySum(h.first+h.rows, 0) }
func (h *header) pages() int64       { return divUp(h.recordsSize(), pageRecords) }

// The file is: header, pages, blocks of parity, pages, header.
func (h *header) blockOffset(row int, stripe int64) int64 {
	return pageSize*(1+h.pages()) + (int64(row-h.first)*h.geo.Stripes()+stripe)*h.geo.block
}

func (h *header) pageOffset(second bool, page int64) int64 {
	if second {
		return h.blockOffset(h.first+h.rows, 0) + pageSize*page
	}
	return pageSize * (1 + page)
}

func (h *header) fileSize() int64 { return h.pageOffset(true, h.pages()) + pageSize }

// pageSum is the checksum of the records in a page. It covers the header's checksum and the
// page's number, so that a page in the wrong place or in the wrong file is not taken for one
// that belongs there.
func pageSum(headerSum uint64, page int64, records []byte) uint64 {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], headerSum)
	binary.LittleEndian.PutUint64(b[8:], uint64(page))
	var d xxhash.Digest
	d.Reset()
	// Writing to a Digest never fails.
	_, _ = d.Write(b[:])
	_, _ = d.Write(records)
	return d.Sum64()
}
