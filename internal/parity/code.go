package parity

import (
	"slices"

	"github.com/klauspost/reedsolomon"
)

// The code: the bytes at one place in the k blocks of data of a stripe are the values at 0 to
// k-1 of a polynomial of a degree below k over the field of 2^8 elements, and its value at k+r
// is the byte in row r of the parity. Any k values determine the polynomial and so the others.

// The field's elements but 0 are the powers of 2 modulo x^8+x^4+x^3+x^2+1.
var powers, logs = func() (powers [255]byte, logs [256]int) {
	v := 1
	for i := range powers {
		powers[i], logs[v] = byte(v), i
		if v <<= 1; v > 255 {
			v ^= 0x11D
		}
	}
	return powers, logs
}()

// interpolate makes the matrix that turns the values of a polynomial at the points from into
// those at the points to, by Lagrange. No point is in both. Differences are sums in this field.
func interpolate(from, to []byte) [][]byte {
	below := make([]int, len(from))
	for i, x := range from {
		for _, other := range from {
			if other != x {
				below[i] += logs[x^other]
			}
		}
	}
	matrix := carve(len(to), int64(len(from)))
	for j, y := range to {
		above := 0
		for _, x := range from {
			above += logs[y^x]
		}
		for i, x := range from {
			log := (above - logs[y^x] - below[i]) % len(powers)
			matrix[j][i] = powers[(log+len(powers))%len(powers)]
		}
	}
	return matrix
}

// newCode multiplies blocks by a matrix.
func newCode(matrix [][]byte) (reedsolomon.Encoder, error) {
	return reedsolomon.New(len(matrix[0]), len(matrix), reedsolomon.WithCustomMatrix(matrix), reedsolomon.WithInversionCache(false))
}

// points is count points from first on.
func points(first, count int) []byte {
	p := make([]byte, count)
	for i := range p {
		p[i] = byte(first + i)
	}
	return p
}

// parityCode makes parity from data.
func parityCode(g Geometry) (reedsolomon.Encoder, error) {
	return newCode(interpolate(points(0, g.DataRows()), points(g.DataRows(), g.rows)))
}

// decoder makes lost shards of data from the others and from parity in their place.
type decoder struct {
	lost, from []byte
	codes      []reedsolomon.Encoder // each for as many of the lost shards as are restored at a time
}

// prepare makes the codes. Neighbouring stripes mostly have lost the same and need it once.
func (d *decoder) prepare(g Geometry, lost []int, rows []source, targets int) error {
	k := g.DataRows()
	gone, from := make([]byte, len(lost)), points(0, k)
	for i, j := range lost {
		gone[i], from[j] = byte(j), byte(k+rows[i].row)
	}
	if d.codes != nil && slices.Equal(d.lost, gone) && slices.Equal(d.from, from) {
		return nil
	}
	d.codes = nil
	for some := range slices.Chunk(interpolate(from, gone), targets) {
		code, err := newCode(some)
		if err != nil {
			return err
		}
		d.codes = append(d.codes, code)
	}
	d.lost, d.from = gone, from
	return nil
}
