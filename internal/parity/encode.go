package parity

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/reedsolomon"
)

// File is a parity file that is being made. It is read as well: checksums come up in another
// order than they are stored in, and there may be too many to keep them in memory.
type File interface {
	io.ReaderAt
	io.WriterAt
}

// sumBatch is how many stripes' checksums are collected before they are written.
const sumBatch = 256

// Encode makes the parity of the bundle src into files, one for each size that
// g.Files(meta.Hole.Size, most) lists. They begin empty, or at least with nothing that matters:
// every byte of them is written, the headers last. The same bundle gives the same bytes. done
// is called with the number of bytes of the bundle that have been worked on; together they are
// its size. src and files are used by several goroutines at a time.
func Encode(ctx context.Context, src io.ReaderAt, g Geometry, meta Meta, files []File, most int64, done func(int64)) error {
	if g.rows < 1 {
		return errors.New("making parity: the geometry was not made by Percent or Volumes")
	}
	if err := meta.check(g); err != nil {
		return fmt.Errorf("making parity: %w", err)
	}
	if int64(len(meta.HoleContent)) != meta.Hole.Size {
		return fmt.Errorf("making parity: hole of %d bytes with %d bytes of content", meta.Hole.Size, len(meta.HoleContent))
	}
	hs := g.headers(meta, most)
	if len(files) != len(hs) {
		return fmt.Errorf("making parity: got %d files, want %d", len(files), len(hs))
	}
	e, err := newEncoder(src, g, meta.Hole, hs, files)
	if err != nil {
		return fmt.Errorf("making parity: %w", err)
	}
	for s := range g.Stripes() {
		if err := e.stripe(ctx, s, done); err != nil {
			return err
		}
	}
	for _, out := range e.outs {
		if err := out.finish(ctx, meta.HoleContent); err != nil {
			return fmt.Errorf("writing parity file %d: %w", out.number, err)
		}
	}
	return nil
}

type encoder struct {
	src  io.ReaderAt
	geo  Geometry
	hole Range
	outs []*output
	rows []*output // of each row of parity

	code    reedsolomon.Encoder
	slice   int64
	buffers [][]byte // of each shard
	zeros   []byte
	shards  [][]byte // what is coded: buffers, or zeros beyond the end
	digests []xxhash.Digest
	sums    [][]byte // of each shard, for the stripes of the batch
}

func newEncoder(src io.ReaderAt, g Geometry, hole Range, hs []*header, files []File) (*encoder, error) {
	total := g.DataRows() + g.rows
	code, err := parityCode(g)
	if err != nil {
		return nil, err
	}
	slice := sliceSize(g.block, total, 0)
	e := &encoder{
		src: src, geo: g, hole: hole, code: code, slice: slice,
		buffers: carve(total, slice), zeros: make([]byte, slice), shards: make([][]byte, total),
		digests: make([]xxhash.Digest, total), sums: carve(total, sumSize*min(sumBatch, g.Stripes())),
	}
	for i, h := range hs {
		out := &output{header: h, file: files[i]}
		e.outs = append(e.outs, out)
		for range h.rows {
			e.rows = append(e.rows, out)
		}
	}
	return e, nil
}

func (e *encoder) stripe(ctx context.Context, s int64, done func(int64)) error {
	k := e.geo.DataRows()
	for i := range e.digests {
		e.digests[i].Reset()
	}
	for at := int64(0); at < e.geo.block; at += e.slice {
		if err := each(ctx, k, func(j int) error { return e.read(j, e.geo.member(s, j), at) }); err != nil {
			return err
		}
		copy(e.shards[k:], e.buffers[k:])
		if err := e.code.Encode(e.shards); err != nil {
			return fmt.Errorf("making parity: %w", err)
		}
		if err := each(ctx, e.geo.rows, func(r int) error { return e.write(r, s, at) }); err != nil {
			return err
		}
	}
	batch := s % sumBatch
	for i := range e.digests {
		binary.LittleEndian.PutUint64(e.sums[i][sumSize*batch:], e.digests[i].Sum64())
	}
	if batch == sumBatch-1 || s == e.geo.Stripes()-1 {
		if err := e.flush(s-batch, batch+1); err != nil {
			return err
		}
	}
	for j := range k {
		if i := e.geo.member(s, j); i < e.geo.Blocks() {
			done(e.geo.clip(i).Size)
		}
	}
	return nil
}

// read gets a slice of block i of the data, shard j of the stripe.
func (e *encoder) read(j int, i, at int64) error {
	if i >= e.geo.Blocks() {
		e.shards[j] = e.zeros
		return nil
	}
	p := e.buffers[j]
	if off, err := readData(e.src, e.geo, e.hole, i, at, p); err != nil {
		return fmt.Errorf("making parity: reading byte %d: %w", off, err)
	}
	_, _ = e.digests[j].Write(p)
	e.shards[j] = p
	return nil
}

func (e *encoder) write(row int, s, at int64) error {
	i, out := e.geo.DataRows()+row, e.rows[row]
	_, _ = e.digests[i].Write(e.shards[i])
	if _, err := out.file.WriteAt(e.shards[i], out.blockOffset(row, s)+at); err != nil {
		return fmt.Errorf("writing parity file %d: %w", out.number, err)
	}
	return nil
}

// flush writes the checksums of count stripes from s on to where they will be, in the first
// copy of the index.
func (e *encoder) flush(s, count int64) error {
	for _, out := range e.outs {
		for j := range e.geo.DataRows() {
			first := e.geo.member(s, j)
			n := min(count, e.geo.Blocks()-first)
			if n <= 0 {
				break
			}
			if err := out.writeRecords(out.dataSum(first), e.sums[j][:sumSize*n]); err != nil {
				return err
			}
		}
		for r := range out.rows {
			row := out.first + r
			if err := out.writeRecords(out.paritySum(row, s), e.sums[e.geo.DataRows()+row][:sumSize*count]); err != nil {
				return err
			}
		}
	}
	return nil
}

// output is a parity file that is being made.
type output struct {
	*header
	file File
}

// writeRecords writes records into the pages of the first copy of the index.
func (o *output) writeRecords(at int64, p []byte) error {
	for len(p) > 0 {
		page, in := at/pageRecords, at%pageRecords
		n := min(int64(len(p)), pageRecords-in)
		if _, err := o.file.WriteAt(p[:n], o.pageOffset(false, page)+in); err != nil {
			return fmt.Errorf("writing parity file %d: %w", o.number, err)
		}
		at, p = at+n, p[n:]
	}
	return nil
}

// finish completes the index, the records of which are in place but for the hole's content,
// and writes it twice.
func (o *output) finish(ctx context.Context, hole []byte) error {
	head := o.encode()
	sum := binary.LittleEndian.Uint64(head[pageRecords:])
	if err := o.writeRecords(0, hole); err != nil {
		return err
	}
	if err := o.writeRecords(o.meta.Hole.Size, make([]byte, o.dataSum(0)-o.meta.Hole.Size)); err != nil {
		return err
	}
	if err := o.writeRecords(o.recordsSize(), make([]byte, o.pages()*pageRecords-o.recordsSize())); err != nil {
		return err
	}
	const some = 64
	buf := make([]byte, some*pageSize)
	for page := int64(0); page < o.pages(); page += some {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := buf[:pageSize*min(some, o.pages()-page)]
		// The last checksum is not there yet.
		if err := readFull(o.file, p[:len(p)-sumSize], o.pageOffset(false, page)); err != nil {
			return err
		}
		for i := int64(0); i*pageSize < int64(len(p)); i++ {
			one := p[i*pageSize : (i+1)*pageSize]
			binary.LittleEndian.PutUint64(one[pageRecords:], pageSum(sum, page+i, one[:pageRecords]))
		}
		for _, second := range []bool{false, true} {
			if _, err := o.file.WriteAt(p, o.pageOffset(second, page)); err != nil {
				return err
			}
		}
	}
	for _, at := range []int64{o.fileSize() - pageSize, 0} {
		if _, err := o.file.WriteAt(head, at); err != nil {
			return err
		}
	}
	return nil
}
