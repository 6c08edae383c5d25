package parity

import (
	"bytes"
	"context"
	"io"
	"slices"
)

// Report is what is damaged and what of it can be restored.
type Report struct {
	// Damaged is what of the bundle cannot be read or is not what it was: whole blocks, clipped
	// to the file, in ascending order, those that touch as one.
	Damaged []Range
	// Lost is what of Damaged is beyond repair: after Check what the parity that is left does
	// not suffice for, after Repair also what came out wrong.
	Lost []Range
	// Restored is how many bytes Repair has restored.
	Restored int64
	// Files says for each of the files that Open was given what of it is damaged.
	Files []FileReport

	set    *Set
	bad    bits // of the blocks of data
	lost   bits
	parity map[*input]bits // which of the blocks of parity in a file are damaged
}

// FileReport is the damage of a parity file.
type FileReport struct {
	// Blocks is the number of blocks of parity that are damaged or missing.
	Blocks int64
	// Pages is the number of damaged pages of the index, in both copies. As long as the other
	// copy of a page is good nothing is lost.
	Pages int64
}

// CheckSize is the number of bytes that Check reads: the bundle and the usable parity files.
func (s *Set) CheckSize() int64 {
	n := s.geo.size
	for _, f := range s.files {
		n += f.fileSize()
	}
	return n
}

// Check reads the bundle and the parity files in the order of their bytes and finds what is
// damaged. What src cannot read is damaged, whatever the error; the hole is not compared. done
// is called with the number of bytes that have been checked, CheckSize() together.
func (s *Set) Check(ctx context.Context, src io.ReaderAt, done func(int64)) (*Report, error) {
	blocks := s.geo.Blocks()
	r := &Report{Files: make([]FileReport, s.given), set: s, bad: newBits(blocks), lost: newBits(blocks), parity: map[*input]bits{}}
	buf := make([]byte, max(scanSize, s.geo.block))
	table := &sums{files: slices.Clone(s.files)}
	err := scan(ctx, src, Range{0, s.geo.size}, s.geo.block, buf, func(i int64, p []byte) {
		if p != nil {
			s.meta.Hole.clear(p, i*s.geo.block)
		}
		at := s.files[0].dataSum(i)
		if table.isGood(at, p) {
			return
		}
		r.bad.set(i)
		// What nobody could recognise cannot be restored either.
		if _, ok := table.at(at); !ok {
			r.lost.set(i)
		}
	}, done)
	if err != nil {
		return nil, err
	}
	for _, f := range s.files {
		if err := r.checkFile(ctx, f, buf, done); err != nil {
			return nil, err
		}
	}
	for t := range s.geo.Stripes() {
		if lost := r.lostShards(t, nil); len(lost) > 0 && r.goodRows(t, len(lost)) == nil {
			r.lose(t, lost)
		}
	}
	r.summarize()
	return r, nil
}

// checkFile finds the damage in a parity file.
func (r *Report) checkFile(ctx context.Context, f *input, buf []byte, done func(int64)) error {
	count := int64(f.rows) * f.geo.Stripes()
	bad, report := newBits(count), &r.Files[f.index]
	r.parity[f] = bad
	table := &sums{files: []*input{f}}
	head := f.encode()
	header := func(_ int64, p []byte) {
		if !bytes.Equal(p, head) {
			report.Pages++
		}
	}
	page := func(i int64, p []byte) {
		if p == nil || !f.goodPage(i, p) {
			report.Pages++
		}
	}
	block := func(i int64, p []byte) {
		if !table.isGood(f.paritySum(f.first, i), p) {
			bad.set(i)
			report.Blocks++
		}
	}
	for _, part := range []struct {
		at   Range
		unit int64
		f    func(int64, []byte)
	}{
		{Range{0, pageSize}, pageSize, header},
		{Range{f.pageOffset(false, 0), f.pages() * pageSize}, pageSize, page},
		{Range{f.blockOffset(f.first, 0), count * f.geo.block}, f.geo.block, block},
		{Range{f.pageOffset(true, 0), f.pages() * pageSize}, pageSize, page},
		{Range{f.fileSize() - pageSize, pageSize}, pageSize, header},
	} {
		if err := scan(ctx, f, part.at, part.unit, buf, part.f, done); err != nil {
			return err
		}
	}
	return nil
}

// lostShards appends the damaged shards of data of stripe t to shards.
func (r *Report) lostShards(t int64, shards []int) []int {
	g := r.set.geo
	for j := range g.DataRows() {
		i := g.member(t, j)
		if i >= g.Blocks() {
			break
		}
		if r.bad.has(i) {
			shards = append(shards, j)
		}
	}
	return shards
}

// source is where a block of parity is.
type source struct {
	file *input
	row  int
}

// goodRows is n undamaged blocks of parity of stripe t, nil if there are fewer.
func (r *Report) goodRows(t int64, n int) []source {
	var good []source
	for row, files := range r.set.rows {
		for _, f := range files {
			if len(good) < n && !r.parity[f].has(f.block(row, t)) {
				good = append(good, source{f, row})
				break
			}
		}
	}
	if len(good) < n {
		return nil
	}
	return good
}

// block is the number of a block of parity in the file.
func (h *header) block(row int, stripe int64) int64 {
	return int64(row-h.first)*h.geo.Stripes() + stripe
}

func (r *Report) lose(t int64, shards []int) {
	for _, j := range shards {
		r.lost.set(r.set.geo.member(t, j))
	}
}

func (r *Report) summarize() {
	r.Damaged, r.Lost = r.set.geo.ranges(r.bad), r.set.geo.ranges(r.lost)
}

// ranges is the bytes of the blocks of data in b.
func (g Geometry) ranges(b bits) []Range {
	var rs []Range
	for i := range g.Blocks() {
		if !b.has(i) {
			continue
		}
		c := g.clip(i)
		if n := len(rs); n > 0 && rs[n-1].End() == c.Offset {
			rs[n-1].Size += c.Size
		} else {
			rs = append(rs, c)
		}
	}
	return rs
}

// bits is a set of blocks.
type bits []uint64

func newBits(n int64) bits      { return make(bits, divUp(n, 64)) }
func (b bits) set(i int64)      { b[i/64] |= 1 << (i % 64) }
func (b bits) has(i int64) bool { return b[i/64]&(1<<(i%64)) != 0 }
