package parity

import (
	"context"
	"errors"
	"io"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

const (
	// workingSet bounds the buffers that blocks are worked on in.
	workingSet = 20 << 20
	minSlice   = 64 << 10
	// readers is how many reads are under way at a time.
	readers = 4
	// scanSize is how much is read at a time where blocks are read in their order.
	scanSize = 1 << 20
)

// sliceSize is how much of each of n blocks can be worked on at a time, with fixed bytes of
// other buffers beside it: as much as the working set allows, since every slice is a seek.
func sliceSize(block int64, n int, fixed int64) int64 {
	slice := block
	for slice > minSlice && int64(n)*slice+fixed > workingSet {
		slice /= 2
	}
	return slice
}

// carve makes n buffers of this size.
func carve(n int, size int64) [][]byte {
	all := make([]byte, int64(n)*size)
	bufs := make([][]byte, n)
	for i := range bufs {
		bufs[i] = all[int64(i)*size : int64(i+1)*size : int64(i+1)*size]
	}
	return bufs
}

// each calls f for 0 to n-1, by several goroutines.
func each(ctx context.Context, n int, f func(i int) error) error {
	var next atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range min(n, readers) {
		g.Go(func() error {
			for {
				i := int(next.Add(1) - 1)
				if i >= n {
					return nil
				}
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := f(i); err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}

// readFull fills p from r. The end of r is io.ErrUnexpectedEOF, all of p read no error.
func readFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// readData fills p with what counts of block i of the data from its byte at on: zeros in the
// hole and after the end of the file. It returns the offset that it read from.
func readData(src io.ReaderAt, g Geometry, hole Range, i, at int64, p []byte) (int64, error) {
	off := i*g.block + at
	n := max(0, min(int64(len(p)), g.size-off))
	if n > 0 {
		if err := readFull(src, p[:n], off); err != nil {
			return off, err
		}
	}
	clear(p[n:])
	hole.clear(p, off)
	return off, nil
}

// clear sets to zero what of p, which begins at off, lies in the range.
func (r Range) clear(p []byte, off int64) {
	from, to := max(r.Offset-off, 0), min(r.End()-off, int64(len(p)))
	if from < to {
		clear(p[from:to])
	}
}

// scan reads what lies in the range of r, in units, and calls f with each, filled up with
// zeros, or with nil where it cannot be read. done is called with the bytes that it is through
// with. buf has to hold one unit.
func scan(ctx context.Context, r io.ReaderAt, at Range, unit int64, buf []byte, f func(i int64, p []byte), done func(int64)) error {
	buf = buf[:int64(len(buf))/unit*unit]
	for off := int64(0); off < at.Size; off += int64(len(buf)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := buf[:min(int64(len(buf)), at.Size-off)]
		good, _ := r.ReadAt(p, at.Offset+off)
		clear(buf[len(p):])
		for from := int64(0); from < int64(len(p)); from += unit {
			one, content := buf[from:from+unit], p[from:min(from+unit, int64(len(p)))]
			// An error is of one place: the units behind it may be readable.
			if from+int64(len(content)) > int64(good) {
				if err := ctx.Err(); err != nil {
					return err
				}
				if readFull(r, content, at.Offset+off+from) != nil {
					one = nil
				}
			}
			f((off+from)/unit, one)
		}
		done(int64(len(p)))
	}
	return nil
}
