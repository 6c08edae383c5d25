package parity

import (
	"fmt"
	"math"
)

const (
	// BlockSize is b: the unit of damage and of repair.
	BlockSize = 256 << 10
	// MaxSize bounds the size of a bundle file, in bytes.
	MaxSize = 1 << 46
	// MaxHole bounds the size of the hole, in bytes.
	MaxHole = 1 << 20

	maxData   = 128
	maxShards = 256
)

// Range is a range of bytes in the bundle file.
type Range struct{ Offset, Size int64 }

// End is the offset of the first byte after the range.
func (r Range) End() int64 { return r.Offset + r.Size }

// Geometry is how a bundle file is divided into blocks and stripes and how much parity there
// is. It follows from the size of the file and the number of rows alone.
type Geometry struct {
	size  int64
	rows  int
	block int64 // BlockSize, but in tests
}

// Percent is the geometry for parity that is a part p of the bundle's size: 0.1 for 10 %. It
// fails with *RowsError where that is not possible.
func Percent(size int64, p float64) (Geometry, error) { return percent(size, BlockSize, p) }

func percent(size, block int64, p float64) (Geometry, error) {
	g, err := newGeometry(size, block)
	if err != nil {
		return Geometry{}, err
	}
	// 0.07 is a little more than 7 %: 100 rows of data shall not get 8 rows for it.
	rows := math.Ceil(float64(g.DataRows())*p - 1e-9)
	if math.IsNaN(rows) {
		rows = 0
	}
	return g.withRows(int64(max(0, min(rows, math.MaxInt32))))
}

// Volumes is the geometry for parity that restores any count volumes of volumeSize bytes,
// wherever they lie. It never makes more rows than restore the whole file.
func Volumes(size, volumeSize int64, count int) (Geometry, error) {
	return volumes(size, BlockSize, volumeSize, count)
}

func volumes(size, block, volumeSize int64, count int) (Geometry, error) {
	g, err := newGeometry(size, block)
	if err != nil {
		return Geometry{}, err
	}
	if volumeSize < 1 || count < 1 {
		return Geometry{}, fmt.Errorf("parity for %d volumes of %d bytes: %w", count, volumeSize, ErrLimit)
	}
	volumeSize = min(volumeSize, size)
	n := min(int64(count), divUp(size, volumeSize)) // there are no more
	together := divUp(n*volumeSize, g.Stripes()*block) + 1
	// Volumes that do not lie together each have a block at either end that is lost in part, and
	// one of q blocks takes up to q/S, rounded up, from a stripe: with more than one volume that
	// can be more.
	apart := n * divUp(divUp(volumeSize-1, block)+1, g.Stripes())
	return g.withRows(min(max(together, apart), int64(g.DataRows())))
}

func newGeometry(size, block int64) (Geometry, error) {
	if size < 1 || size > MaxSize {
		return Geometry{}, fmt.Errorf("parity for a file of %d bytes, 1 to %d are allowed: %w", size, int64(MaxSize), ErrLimit)
	}
	return Geometry{size: size, block: block}, nil
}

func (g Geometry) withRows(rows int64) (Geometry, error) {
	if most := maxShards - g.DataRows(); rows < 1 || rows > int64(most) {
		return Geometry{}, &RowsError{int(min(rows, math.MaxInt32)), most, g.DataRows()}
	}
	g.rows = int(rows)
	return g, nil
}

// Size is N, the size of the bundle file in bytes.
func (g Geometry) Size() int64 { return g.size }

// Blocks is n, the number of blocks of data.
func (g Geometry) Blocks() int64 { return divUp(g.size, g.block) }

// DataRows is k, the number of blocks of data in a stripe.
func (g Geometry) DataRows() int { return int(min(g.Blocks(), maxData)) }

// Stripes is S, the number of stripes, and of blocks in a row.
func (g Geometry) Stripes() int64 { return divUp(g.Blocks(), int64(g.DataRows())) }

// Rows is m, the number of blocks of parity in a stripe.
func (g Geometry) Rows() int { return g.rows }

// MaxLoss is how many bytes in a row may be lost anywhere and can be restored.
func (g Geometry) MaxLoss() int64 {
	return min((int64(g.rows)*g.Stripes()-1)*g.block+1, g.size)
}

// Files is the sizes of the parity files where the hole has holeSize bytes and no file shall
// be larger than most bytes (0: there is one file). A file that holds a single row may be larger.
func (g Geometry) Files(holeSize, most int64) []int64 {
	sizes := make([]int64, 0, 1)
	for _, h := range g.headers(Meta{Hole: Range{Size: holeSize}}, most) {
		sizes = append(sizes, h.fileSize())
	}
	return sizes
}

// headers divides the rows evenly among as few files as most allows: the loss of a file then
// costs as little as can be.
func (g Geometry) headers(meta Meta, most int64) []*header {
	files := 1
	for most > 0 && files < g.rows {
		h := newHeader(g, meta, files, 1)
		h.rows = int(divUp(int64(g.rows), int64(files))) // the largest
		if h.fileSize() <= most {
			break
		}
		files++
	}
	hs := make([]*header, files)
	for i := range hs {
		hs[i] = newHeader(g, meta, files, i+1)
	}
	return hs
}

// member is the number of the data block that is shard j of stripe s. Those from Blocks() on
// are beyond the end of the file.
func (g Geometry) member(s int64, j int) int64 { return int64(j)*g.Stripes() + s }

// clip is the range of bytes of data block i.
func (g Geometry) clip(i int64) Range {
	return Range{i * g.block, min(g.block, g.size-i*g.block)}
}

// divUp is a/b, rounded up. The sum a+b must not overflow.
func divUp(a, b int64) int64 { return (a + b - 1) / b }
