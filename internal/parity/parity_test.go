package parity

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/cespare/xxhash/v2"
)

// small is the size of blocks in most tests: what depends on it is the same, but sooner done.
const small = 1 << 10

// mem is a file in memory. It does not grow.
type mem []byte

func (m mem) ReadAt(p []byte, off int64) (int, error) { return bytes.NewReader(m).ReadAt(p, off) }

func (m mem) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > int64(len(m)) {
		return 0, fmt.Errorf("writing %d bytes at %d to a file of %d", len(p), off, len(m))
	}
	return copy(m[off:], p), nil
}

// holey is content of which ranges cannot be read.
type holey struct {
	mem
	lost []Range
}

var errMedium = errors.New("input/output error")

func (h holey) ReadAt(p []byte, off int64) (int, error) {
	end := off + int64(len(p))
	for _, r := range h.lost {
		if r.Offset < end && r.End() > off {
			end = max(r.Offset, off)
		}
	}
	n, err := h.mem.ReadAt(p[:end-off], off)
	if n < len(p) && err == nil {
		err = errMedium
	}
	return n, err
}

func random(seed uint64, n int64) mem {
	b := make(mem, n+8)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := int64(0); i < n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], r.Uint64())
	}
	return b[:n]
}

func nothing(int64) {}

// total checks that what done is told comes to size.
func total(t *testing.T, size int64) func(int64) {
	t.Helper()
	var got int64
	t.Cleanup(func() {
		if got != size {
			t.Errorf("done was told %d bytes, want %d", got, size)
		}
	})
	return func(n int64) { got += n }
}

func geometry(t testing.TB, size, block int64, rows int) Geometry {
	t.Helper()
	g, err := newGeometry(size, block)
	if err == nil {
		g, err = g.withRows(int64(rows))
	}
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func meta(src mem, hole Range) Meta {
	return Meta{Identity: sha256.Sum256([]byte("a manifest")), Hole: hole, HoleContent: slices.Clone(src[hole.Offset:hole.End()])}
}

func encode(t testing.TB, src mem, g Geometry, m Meta, most int64) []mem {
	t.Helper()
	var files []mem
	var out []File
	for i, size := range g.Files(m.Hole.Size, most) {
		// What was there before does not matter.
		files = append(files, random(uint64(i), size))
		out = append(out, files[i])
	}
	if err := Encode(context.Background(), src, g, m, out, most, nothing); err != nil {
		t.Fatal(err)
	}
	return files
}

func inputs(files []mem) []Input {
	var in []Input
	for _, f := range files {
		in = append(in, Input{f, int64(len(f))})
	}
	return in
}

func openAll(t testing.TB, files []mem, block int64) *Set {
	t.Helper()
	s, unusable, err := open(inputs(files), nil, block)
	if err = errors.Join(append(unusable, err)...); err != nil {
		t.Fatal(err)
	}
	return s
}

func check(t *testing.T, s *Set, src io.ReaderAt) *Report {
	t.Helper()
	r, err := s.Check(context.Background(), src, total(t, s.CheckSize()))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// repair restores into a copy of damaged and returns it.
func repair(t *testing.T, s *Set, src io.ReaderAt, r *Report, damaged mem) mem {
	t.Helper()
	got := slices.Clone(damaged)
	var size, restored int64
	for _, d := range r.Damaged {
		size += d.Size
	}
	err := s.Repair(context.Background(), src, r, func(p []byte, off int64) error {
		restored += int64(len(p))
		_, err := got.WriteAt(p, off)
		return err
	}, total(t, size))
	if err != nil {
		t.Fatal(err)
	}
	if restored != r.Restored {
		t.Errorf("restored %d bytes, report says %d", restored, r.Restored)
	}
	return got
}

// same compares all but the hole.
func same(t *testing.T, got, want mem, hole Range) {
	t.Helper()
	got, want = slices.Clone(got), slices.Clone(want)
	hole.clear(got, 0)
	hole.clear(want, 0)
	if !bytes.Equal(got, want) {
		t.Error("what came out of the repair is not what was there before")
	}
}

func TestGeometry(t *testing.T) {
	const b = BlockSize
	for _, c := range []struct {
		size    int64
		p       float64
		blocks  int64
		data    int
		stripes int64
		rows    int
	}{
		{1, 0.1, 1, 1, 1, 1},
		{b, 0.1, 1, 1, 1, 1},
		{b + 1, 0.1, 2, 2, 1, 1},
		{b, 255, 1, 1, 1, 255},
		{10 * b, 0.1, 10, 10, 1, 1},
		{100 * b, 0.07, 100, 100, 1, 7},
		{127 * b, 0.1, 127, 127, 1, 13},
		{128 * b, 0.1, 128, 128, 1, 13},
		{128*b + 1, 0.1, 129, 128, 2, 13},
		{129 * b, 1, 129, 128, 2, 128},
		{30e9, 0.1, 114441, 128, 895, 13},
		{30e9, 1e-9, 114441, 128, 895, 1},
		{MaxSize, 0.25, 1 << 28, 128, 1 << 21, 32},
	} {
		g, err := Percent(c.size, c.p)
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		if g.Size() != c.size || g.Blocks() != c.blocks || g.DataRows() != c.data || g.Stripes() != c.stripes || g.Rows() != c.rows {
			t.Errorf("%+v: got %+v: %d blocks, %d rows of data, %d stripes", c, g, g.Blocks(), g.DataRows(), g.Stripes())
		}
	}
	for _, c := range []struct {
		size, volume int64
		count, rows  int
	}{
		{30e9, 4.7e9, 1, 22},
		{30e9, 4.7e9, 2, 42},
		{30e9, 4.7e9, 7, 128},
		{1, 4.7e9, 1, 1},
		{128 * b, b, 1, 2},
		{128 * b, 2 * b, 3, 9},     // 3 times 2 blocks and one, since cuts need not be aligned
		{1280 * b, 10*b - 1, 3, 6}, // 11 blocks each: 2 of a stripe
		{MaxSize, 1 << 20, 1 << 30, 128},
	} {
		if g, err := Volumes(c.size, c.volume, c.count); err != nil || g.Rows() != c.rows {
			t.Errorf("%+v: got %d rows, %v", c, g.Rows(), err)
		}
	}
}

func TestGeometryErrors(t *testing.T) {
	for _, c := range []struct {
		size      int64
		p         float64
		rows, max int
	}{
		{30e9, 0, 0, 128}, {30e9, -1, 0, 128}, {30e9, 1.001, 129, 128}, {1, 256, 256, 255}, {30e9, 1e300, 1<<31 - 1, 128},
	} {
		_, err := Percent(c.size, c.p)
		var re *RowsError
		if !errors.As(err, &re) || re.Rows != c.rows || re.Max != c.max {
			t.Errorf("%+v: got %v", c, err)
		}
	}
	for _, size := range []int64{0, -1, MaxSize + 1} {
		if _, err := Percent(size, 0.1); !errors.Is(err, ErrLimit) {
			t.Errorf("%d bytes: got %v", size, err)
		}
		if _, err := Volumes(size, 1<<20, 1); !errors.Is(err, ErrLimit) {
			t.Errorf("%d bytes: got %v", size, err)
		}
	}
	for _, count := range []int{0, -1} {
		if _, err := Volumes(1e9, 1e6, count); !errors.Is(err, ErrLimit) {
			t.Errorf("%d volumes: got %v", count, err)
		}
	}
	if _, err := Volumes(1e9, 0, 1); !errors.Is(err, ErrLimit) {
		t.Errorf("volumes of 0 bytes: got %v", err)
	}
}

func TestFiles(t *testing.T) {
	g := geometry(t, 1000*small, small, 13)
	one := g.Files(100, 0)
	if len(one) != 1 {
		t.Fatalf("got %d files without a limit", len(one))
	}
	for most := int64(1); most < one[0]+10; most += 777 {
		sizes := g.Files(100, most)
		if slices.Max(sizes) > most && len(sizes) < g.Rows() {
			t.Errorf("at most %d bytes: got %d", most, sizes)
		}
		rows := 0
		for _, h := range g.headers(Meta{}, most) {
			if h.first != rows || h.rows < 1 {
				t.Errorf("at most %d bytes: file %d has %d rows from %d on, want them from %d on", most, h.number, h.rows, h.first, rows)
			}
			rows += h.rows
		}
		if rows != g.Rows() {
			t.Errorf("at most %d bytes: %d rows", most, rows)
		}
	}
	if got := g.Files(100, one[0]); !slices.Equal(got, one) {
		t.Errorf("what just fits: got %d, want %d", got, one)
	}
	// The largest that there can be.
	g = geometry(t, MaxSize, BlockSize, 128)
	if got := g.Files(MaxHole, 0); len(got) != 1 || got[0] < MaxSize || got[0] > MaxSize+MaxSize/1000 {
		t.Errorf("largest parity file: got %d", got)
	}
}

// gfMul is the product in the field of docs/parity.md, bit by bit.
func gfMul(a, b byte) byte {
	var p byte
	for ; b != 0; b >>= 1 {
		if b&1 != 0 {
			p ^= a
		}
		carry := a & 0x80
		a <<= 1
		if carry != 0 {
			a ^= 0x1D
		}
	}
	return p
}

var gfInverse = func() (inverse [256]byte) {
	for a := range 256 {
		for b := range 256 {
			if gfMul(byte(a), byte(b)) == 1 {
				inverse[a] = byte(b)
			}
		}
	}
	return inverse
}()

// coefficient is c(r,j) of docs/parity.md.
func coefficient(k, r, j int) byte {
	c := byte(1)
	for i := range k {
		if i != j {
			c = gfMul(c, gfMul(byte(k+r)^byte(i), gfInverse[byte(j)^byte(i)]))
		}
	}
	return c
}

// reference makes a parity file after docs/parity.md, with nothing of what Encode uses.
func reference(src mem, b int64, m, files, number int, meta Meta) mem {
	n := (int64(len(src)) + b - 1) / b
	k := min(n, 128)
	stripes := (n + k - 1) / k
	data := make(mem, k*stripes*b)
	copy(data, src)
	clear(data[meta.Hole.Offset:meta.Hole.End()])
	first, end := (number-1)*m/files, number*m/files

	var parity mem
	for r := first; r < end; r++ {
		row := make(mem, stripes*b)
		for j := range int(k) {
			c := coefficient(int(k), r, j)
			var times [256]byte
			for v := range times {
				times[v] = gfMul(c, byte(v))
			}
			for x := range row {
				row[x] ^= times[data[int64(j)*stripes*b+int64(x)]]
			}
		}
		parity = append(parity, row...)
	}

	le := binary.LittleEndian
	head := []byte("SLPARITY")
	head = le.AppendUint32(head, 1)
	head = le.AppendUint32(head, uint32(b))
	head = le.AppendUint64(head, uint64(len(src)))
	head = le.AppendUint64(head, uint64(stripes))
	for _, v := range []int{int(k), m, files, number, first, end - first} {
		head = le.AppendUint32(head, uint32(v))
	}
	head = le.AppendUint64(head, uint64(meta.Hole.Offset))
	head = le.AppendUint64(head, uint64(meta.Hole.Size))
	head = append(head, meta.Identity[:]...)
	head = append(head, make([]byte, 4088-len(head))...)
	headSum := le.AppendUint64(nil, xxhash.Sum64(head))
	head = append(head, headSum...)

	records := slices.Clone(meta.HoleContent)
	for len(records)%8 != 0 {
		records = append(records, 0)
	}
	for i := range n {
		records = le.AppendUint64(records, xxhash.Sum64(data[i*b:(i+1)*b]))
	}
	for i := int64(0); i < int64(len(parity)); i += b {
		records = le.AppendUint64(records, xxhash.Sum64(parity[i:i+b]))
	}
	for len(records)%4088 != 0 {
		records = append(records, 0)
	}
	var pages []byte
	for i := 0; i*4088 < len(records); i++ {
		p := records[i*4088 : (i+1)*4088]
		pages = append(pages, p...)
		pages = le.AppendUint64(pages, xxhash.Sum64(slices.Concat(headSum, le.AppendUint64(nil, uint64(i)), p)))
	}
	return slices.Concat(head, pages, parity, pages, head)
}

func TestEncodeIsAsDescribed(t *testing.T) {
	for _, c := range []struct {
		size int64
		rows int
		hole Range
		most int64
	}{
		{1, 1, Range{}, 0},
		{small, 3, Range{5, 10}, 0},
		{small + 1, 2, Range{0, small + 1}, 0},
		{127*small - 3, 4, Range{3000, 5000}, 50000},
		{128 * small, 1, Range{}, 0},
		{128*small + 1, 5, Range{127 * small, small + 1}, 1},
		{1100*small + 5, 7, Range{4096, 4100}, 60000}, // more than one batch of checksums is below
		{33000 * 64, 3, Range{77, 1234}, 0},
	} {
		block := int64(small)
		if c.size == 33000*64 {
			block = 64
		}
		g := geometry(t, c.size, block, c.rows)
		src := random(7, c.size)
		m := meta(src, c.hole)
		files := encode(t, src, g, m, c.most)
		for i, f := range files {
			if want := reference(src, block, c.rows, len(files), i+1, m); !bytes.Equal(f, want) {
				t.Errorf("%+v: file %d is not what docs/parity.md says", c, i+1)
			}
		}
	}
}

// TestGolden freezes version 1, with blocks of the size that files have.
func TestGolden(t *testing.T) {
	const size = 3*BlockSize + 1000
	src := random(1, size)
	g, err := Percent(size, 0.5)
	if err != nil {
		t.Fatal(err)
	}
	m := meta(src, Range{4096, 131122})
	files := encode(t, src, g, m, 0)
	if len(files) != 1 {
		t.Fatalf("got %d files", len(files))
	}
	const want = "646ef3497cb3fa5289f9614396e0049b968965fc9be80f4066fac45677f1292c"
	if sum := sha256.Sum256(files[0]); hex.EncodeToString(sum[:]) != want {
		t.Errorf("version 1 is frozen: got a file with SHA-256 %x, want %s", sum, want)
	}
	if len(files[0]) != 802816 {
		t.Errorf("got %d bytes", len(files[0]))
	}
	if !bytes.Equal(files[0], reference(src, BlockSize, 2, 1, 1, m)) {
		t.Error("the file is not what docs/parity.md says")
	}
	s, unusable, err := Open(inputs(files), &m.Identity)
	if err = errors.Join(append(unusable, err)...); err != nil {
		t.Fatal(err)
	}
	if s.Geometry() != g || s.Identity() != m.Identity || s.Hole() != m.Hole || !bytes.Equal(s.HoleContent(), m.HoleContent) || s.Rows() != 2 {
		t.Errorf("got %+v", s)
	}
}

func TestRowsDoNotDependOnHowManyThereAre(t *testing.T) {
	src := random(1, 300*small)
	few, many := geometry(t, 300*small, small, 2), geometry(t, 300*small, small, 60)
	m := meta(src, Range{100, 200})
	a, b := encode(t, src, few, m, 0)[0], encode(t, src, many, m, 0)[0]
	ha, hb := newHeader(few, m, 1, 1), newHeader(many, m, 1, 1)
	size := 2 * few.Stripes() * small
	if !bytes.Equal(a[ha.blockOffset(0, 0):][:size], b[hb.blockOffset(0, 0):][:size]) {
		t.Error("the first rows are others where there are more")
	}
	// So both are used together.
	s := openAll(t, []mem{a, b}, small)
	if s.Rows() != 60 || s.Geometry() != many {
		t.Errorf("got %d rows, %+v", s.Rows(), s.Geometry())
	}
}

// TestContiguousLoss is what the code is for: whatever is lost in a row can be restored up to
// m·S blocks, wherever it begins, and not a block more.
func TestContiguousLoss(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 1))
	for _, blocks := range []int64{1, 2, 5, 127, 128, 129, 255, 256, 257, 390, 1000} {
		for range 8 {
			size := blocks*small - rnd.Int64N(small)
			k := int(min(blocks, 128))
			g := geometry(t, size, small, 1+rnd.IntN(min(k, 256-k, 50)))
			var hole Range
			if blocks > 4 {
				hole = Range{rnd.Int64N(2 * small), rnd.Int64N(2 * small)}
			}
			src := random(rnd.Uint64(), size)
			files := encode(t, src, g, meta(src, hole), rnd.Int64N(size*2))
			s := openAll(t, files, small)
			most := int64(g.Rows()) * g.Stripes()
			for _, n := range []int64{most, most + 1} {
				if n = min(n, blocks); n < 1 {
					continue
				}
				first := rnd.Int64N(blocks - n + 1)
				at := Range{first * small, min(n*small, size-first*small)}
				damaged := slices.Clone(src)
				var from io.ReaderAt = damaged
				if rnd.IntN(2) == 0 {
					from = holey{damaged, []Range{at}}
				} else {
					for i := at.Offset; i < at.End(); i += small / 2 {
						damaged[i] ^= 1
					}
				}
				// Not what the hole holds, as far as that can be read.
				copy(damaged[hole.Offset:hole.End()], random(9, hole.Size))
				var skipped int64
				if _, broken := from.(holey); !broken {
					for i := first; i < first+n; i++ {
						if c := g.clip(i); hole.Offset <= c.Offset && c.Offset+c.Size/2 < hole.End() {
							skipped++
						}
					}
				}
				r := check(t, s, from)
				if skipped == 0 && !slices.Equal(r.Damaged, []Range{at}) {
					t.Errorf("%+v, lost %v: found %v", g, at, r.Damaged)
				}
				if n <= most {
					if len(r.Lost) > 0 {
						t.Errorf("%+v, lost %v: said to be beyond repair: %v", g, at, r.Lost)
					}
					same(t, repair(t, s, from, r, damaged), src, hole)
					if len(r.Lost) > 0 || skipped == 0 && r.Restored != at.Size {
						t.Errorf("%+v, lost %v: report %+v", g, at, r)
					}
					continue
				}
				if skipped > 0 {
					continue
				}
				// One stripe has lost a block too many.
				lost := newBits(blocks)
				for i := first; i < first+n; i += g.Stripes() {
					lost.set(i)
				}
				want := g.ranges(lost)
				if !slices.Equal(r.Lost, want) {
					t.Errorf("%+v, lost %v: beyond repair: got %v, want %v", g, at, r.Lost, want)
				}
				got := repair(t, s, from, r, damaged)
				if !slices.Equal(r.Lost, want) {
					t.Errorf("%+v, lost %v: beyond repair afterwards: got %v, want %v", g, at, r.Lost, want)
				}
				for _, l := range want {
					copy(got[l.Offset:l.End()], src[l.Offset:l.End()])
				}
				same(t, got, src, hole)
			}
		}
	}
}

// TestAnyVolumes loses volumes that do not lie together, with cuts that are not aligned.
func TestAnyVolumes(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 1))
	for range 30 {
		size := 1 + rnd.Int64N(700*small)
		volume := 1 + rnd.Int64N(size)
		volume = max(volume, size/50+1)
		count := 1 + rnd.IntN(4)
		g, err := volumes(size, small, volume, count)
		if err != nil {
			t.Fatal(err)
		}
		src := random(rnd.Uint64(), size)
		s := openAll(t, encode(t, src, g, meta(src, Range{}), volume), small)
		from := holey{mem: src}
		for _, v := range rnd.Perm(int(divUp(size, volume)))[:min(int64(count), divUp(size, volume))] {
			at := int64(v) * volume
			from.lost = append(from.lost, Range{at, min(volume, size-at)})
		}
		r := check(t, s, from)
		got := repair(t, s, from, r, make(mem, size))
		if len(r.Lost) > 0 {
			t.Fatalf("%+v, volumes of %d lost at %v: beyond repair: %v", g, volume, from.lost, r.Lost)
		}
		for _, l := range from.lost {
			if !bytes.Equal(got[l.Offset:l.End()], src[l.Offset:l.End()]) {
				t.Errorf("%+v: %v came out wrong", g, l)
			}
		}
	}
}

// TestBlocksOfRealSize takes blocks in several slices and, with the second number of rows,
// restores more of a stripe than at one time.
func TestBlocksOfRealSize(t *testing.T) {
	const size = 129*BlockSize + 5
	src := random(1, size)
	for _, rows := range []int{13, 40} {
		g := geometry(t, size, BlockSize, rows)
		hole := Range{BlockSize - 1000, 131122}
		s := openAll(t, encode(t, src, g, meta(src, hole), 0), BlockSize)
		damaged := slices.Clone(src)
		clear(damaged[g.block*7+3:][:g.MaxLoss()])
		r := check(t, s, damaged)
		same(t, repair(t, s, damaged, r, damaged), src, hole)
		if want := []Range{{7 * BlockSize, 2 * int64(rows) * BlockSize}}; !slices.Equal(r.Damaged, want) || len(r.Lost) > 0 {
			t.Errorf("%d rows: got %+v, want %v", rows, r, want)
		}
	}
}

func TestMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	const size = 128*BlockSize + 1
	src := random(1, size)
	g := geometry(t, size, BlockSize, 128)
	file := make(mem, g.Files(0, 0)[0])
	measure := func(what string, f func() error) {
		t.Helper()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := f()
		runtime.ReadMemStats(&after)
		if err != nil {
			t.Fatal(err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 24<<20 {
			t.Errorf("%s took %d bytes of memory", what, n)
		}
	}
	measure("encoding", func() error {
		return Encode(context.Background(), src, g, Meta{}, []File{file}, 0, nothing)
	})
	from := holey{src, []Range{{0, size}}}
	s := openAll(t, []mem{file}, BlockSize)
	var r *Report
	measure("checking", func() (err error) {
		r, err = s.Check(context.Background(), from, nothing)
		return err
	})
	measure("repairing", func() error {
		return s.Repair(context.Background(), from, r, func([]byte, int64) error { return nil }, nothing)
	})
	if r.Restored != size {
		t.Errorf("restored %d bytes of %d", r.Restored, size)
	}
}

// setup is a bundle with its parity in three files.
func setup(t testing.TB) (src mem, g Geometry, hole Range, files []mem) {
	t.Helper()
	const size = 1000*small - 100 // a table of two pages and more
	src = random(1, size)
	g = geometry(t, size, small, 12)
	hole = Range{2000, 3000}
	m := meta(src, hole)
	files = encode(t, src, g, m, g.Files(hole.Size, 0)[0]/2)
	if len(files) != 3 {
		t.Fatalf("got %d files", len(files))
	}
	return src, g, hole, files
}

func TestDeterminism(t *testing.T) {
	_, _, _, a := setup(t)
	_, _, _, b := setup(t)
	if !reflect.DeepEqual(a, b) {
		t.Error("the same bundle has other parity the second time")
	}
}

func TestUndamaged(t *testing.T) {
	src, _, _, files := setup(t)
	s := openAll(t, files, small)
	r := check(t, s, src)
	repair(t, s, src, r, src)
	if len(r.Damaged) > 0 || len(r.Lost) > 0 || r.Restored != 0 || !slices.Equal(r.Files, make([]FileReport, 3)) {
		t.Errorf("got %+v", r)
	}
}

func TestHoleMayChange(t *testing.T) {
	src, g, hole, files := setup(t)
	s := openAll(t, files, small)
	signed := slices.Clone(src)
	copy(signed[hole.Offset:hole.End()], random(99, hole.Size))
	if r := check(t, s, signed); len(r.Damaged) > 0 {
		t.Errorf("another signature counts as damage: %v", r.Damaged)
	}
	// The other hole makes no other parity either, but for its copy.
	again := encode(t, signed, g, meta(signed, hole), 0)
	if r := check(t, openAll(t, again, small), src); len(r.Damaged) > 0 {
		t.Errorf("got damage: %v", r.Damaged)
	}
	// A lost beginning: zeros in the hole, to be filled from the copy.
	from := holey{signed, []Range{{0, 10000}}}
	r := check(t, s, from)
	got := repair(t, s, from, r, make(mem, len(src)))
	if !bytes.Equal(got[hole.Offset:hole.End()], make([]byte, hole.Size)) {
		t.Error("the hole was not restored as zeros")
	}
	copy(got[hole.Offset:], s.HoleContent())
	if !bytes.Equal(got[:10000], src[:10000]) {
		t.Error("with the copy of the hole, the beginning is not what it was")
	}
}

func TestLostParityFile(t *testing.T) {
	src, g, _, files := setup(t)
	slices.Reverse(files)
	s := openAll(t, append(files[1:], files[1]), small) // in any order, one of them twice
	if s.Rows() != 8 {
		t.Fatalf("got %d rows", s.Rows())
	}
	from := holey{src, []Range{{100 * small, 8 * g.Stripes() * small}}}
	r := check(t, s, from)
	same(t, repair(t, s, from, r, make(mem, len(src)))[100*small:], restoredOnly(src, r.Damaged)[100*small:], Range{})
	if len(r.Lost) > 0 || r.Restored != 8*g.Stripes()*small {
		t.Errorf("got %+v", r)
	}
	from.lost[0].Size++
	if r := check(t, s, from); len(r.Lost) != 9 {
		t.Errorf("got %v beyond repair", r.Lost)
	}
}

// restoredOnly is src where it was damaged, zeros elsewhere.
func restoredOnly(src mem, damaged []Range) mem {
	m := make(mem, len(src))
	for _, d := range damaged {
		copy(m[d.Offset:d.End()], src[d.Offset:d.End()])
	}
	return m
}

func TestForeignFiles(t *testing.T) {
	src, g, hole, files := setup(t)
	other := meta(src, hole)
	other.Identity[0]++
	foreign := encode(t, src, g, other, 0)
	in := inputs(append(files, foreign[0], mem("short"), make(mem, 100000), src))
	in = append(in, Input{holey{files[0], []Range{{0, 1 << 40}}}, int64(len(files[0]))})
	newer := slices.Clone(files[0])
	newer[8] = 2
	binary.LittleEndian.PutUint64(newer[pageRecords:], xxhash.Sum64(newer[:pageRecords]))
	clear(newer[len(newer)-pageSize:])
	in = append(in, Input{newer, int64(len(newer))})

	want := sha256.Sum256([]byte("a manifest"))
	s, unusable, err := open(in, &want, small)
	if err != nil {
		t.Fatal(err)
	}
	if s.Rows() != 12 || len(unusable) != len(in) {
		t.Errorf("got %d rows, %v", s.Rows(), unusable)
	}
	var fe *ForeignError
	if !errors.As(unusable[3], &fe) || fe.Got != other.Identity || fe.Want != want {
		t.Errorf("file of another bundle: got %v", unusable[3])
	}
	for i, e := range unusable {
		switch i {
		case 0, 1, 2:
			if e != nil {
				t.Errorf("file %d: got %v", i, e)
			}
		case 4, 5, 6:
			if !errors.Is(e, ErrNotParity) {
				t.Errorf("file %d: got %v", i, e)
			}
		case 7:
			if !errors.Is(e, errMedium) {
				t.Errorf("file %d: got %v", i, e)
			}
		case 8:
			var ve *VersionError
			if !errors.As(e, &ve) || ve.Version != 2 {
				t.Errorf("file %d: got %v", i, e)
			}
		}
	}
	if _, _, err := open(in, nil, small); !errors.Is(err, ErrMixed) {
		t.Errorf("files of two bundles: got %v", err)
	}
	if _, _, err := open(in[4:], nil, small); !errors.Is(err, ErrNone) {
		t.Errorf("no usable file: got %v", err)
	}
	if _, _, err := open(nil, nil, small); !errors.Is(err, ErrNone) {
		t.Errorf("no file: got %v", err)
	}
	// Of the same identity, but another size: one of them lies.
	g.size--
	liar := encode(t, src[:g.size], g, meta(src, hole), 0)
	if _, _, err := open(inputs(append(files, liar[0])), &want, small); !errors.Is(err, ErrMixed) {
		t.Errorf("files of two sizes: got %v", err)
	}
}

func TestDamagedParityFile(t *testing.T) {
	src, g, hole, files := setup(t)
	h := newHeader(g, meta(src, hole), 3, 2)
	first, second := h.pageOffset(false, 0), h.pageOffset(true, 0)
	size := h.fileSize()
	for name, c := range map[string]struct {
		at   []int64 // damaged bytes
		cut  int64
		want FileReport
	}{
		"first header":             {at: []int64{50}, want: FileReport{0, 1}},
		"last header":              {at: []int64{size - 50}, want: FileReport{0, 1}},
		"first index":              {at: []int64{first + 5, first + pageSize + 5, first + 2*pageSize + 5}, want: FileReport{0, 3}},
		"second index":             {at: []int64{second + 5, second + pageSize + 4095}, want: FileReport{0, 2}},
		"a page of each":           {at: []int64{0, first + 4090, second + pageSize + 1}, want: FileReport{0, 3}},
		"header and half a table":  {at: []int64{size - 1, first, second + pageSize, second + 2*pageSize}, want: FileReport{0, 4}},
		"a block":                  {at: []int64{h.blockOffset(5, 1)}, want: FileReport{1, 0}},
		"all checksums of parity":  {at: []int64{first + 2*pageSize, second + 2*pageSize}, want: FileReport{4 * g.Stripes(), 2}},
		"the end missing":          {cut: size - second, want: FileReport{0, 4}},
		"the end and more missing": {cut: size - h.blockOffset(6, 2) - 7, want: FileReport{2*g.Stripes() - 2, 4}},
		"too long":                 {cut: -100, want: FileReport{}},
	} {
		t.Run(name, func(t *testing.T) {
			if h.pages() != 3 {
				t.Fatalf("index of %d pages", h.pages())
			}
			bad := slices.Clone(files[1])
			for _, at := range c.at {
				bad[at] ^= 4
			}
			if c.cut < 0 {
				bad = append(bad, make([]byte, -c.cut)...)
			} else {
				bad = bad[:size-c.cut]
			}
			s := openAll(t, []mem{bad, files[2]}, small)
			from := holey{src, []Range{{33333, 4*g.Stripes()*small - small}}}
			r := check(t, s, from)
			if want := []FileReport{c.want, {}}; !slices.Equal(r.Files, want) {
				t.Errorf("got %+v, want %+v", r.Files, want)
			}
			if !bytes.Equal(s.HoleContent(), src[hole.Offset:hole.End()]) {
				t.Error("the hole's content was not found")
			}
			got := repair(t, s, from, r, make(mem, len(src)))
			if len(r.Lost) > 0 || !bytes.Equal(got, restoredOnly(src, r.Damaged)) {
				t.Errorf("not restored: %v", r.Lost)
			}
		})
	}
}

// TestDamagedTables loses a page of the table in all copies: what is in it can neither be
// recognised nor restored, the others can.
func TestDamagedTables(t *testing.T) {
	src, g, hole, files := setup(t)
	for i, f := range files {
		h := newHeader(g, meta(src, hole), 3, i+1)
		f[h.pageOffset(false, 1)+9] ^= 1
		f[h.pageOffset(true, 1)+3000] ^= 1
	}
	s := openAll(t, files, small)
	from := holey{src, []Range{{900 * small, small}}}
	r := check(t, s, from)
	// The hole takes 375 of the 511 records of the first page.
	unknown := Range{136 * small, 511 * small}
	if want := []Range{unknown, from.lost[0]}; !slices.Equal(r.Damaged, want) || !slices.Equal(r.Lost, want) {
		// 511 blocks in a row take 64 of each stripe, with 12 rows of parity.
		t.Errorf("got damage %v, lost %v, want %v", r.Damaged, r.Lost, want)
	}
	// In one of the files a copy is left.
	files[2][newHeader(g, meta(src, hole), 3, 3).pageOffset(true, 1)+3000] ^= 1
	s = openAll(t, files, small)
	r = check(t, s, from)
	if !slices.Equal(r.Damaged, from.lost) || len(r.Lost) > 0 {
		t.Errorf("got damage %v, lost %v", r.Damaged, r.Lost)
	}
	// Without the content of the hole there is none, and no other content either.
	for i, f := range files {
		h := newHeader(g, meta(src, hole), 3, i+1)
		f[h.pageOffset(false, 0)] ^= 1
		f[h.pageOffset(true, 0)] ^= 1
	}
	if c := openAll(t, files, small).HoleContent(); c != nil {
		t.Errorf("got %d bytes of a damaged copy of the hole", len(c))
	}
}

// TestUnknownBlocks loses a page of the table where the parity would suffice for all of it.
func TestUnknownBlocks(t *testing.T) {
	const block = 64
	src := random(1, 66000*block)
	g := geometry(t, 66000*block, block, 3)
	file := encode(t, src, g, meta(src, Range{}), 0)[0]
	h := newHeader(g, Meta{}, 1, 1)
	file[h.pageOffset(false, 7)] ^= 1
	file[h.pageOffset(true, 7)] ^= 1
	unknown, gone := Range{7 * 511 * block, 511 * block}, Range{60000 * block, 1000 * block}
	s := openAll(t, []mem{file}, block)
	from := holey{src, []Range{gone}}
	r := check(t, s, from)
	got := repair(t, s, from, r, make(mem, len(src)))
	if !slices.Equal(r.Damaged, []Range{unknown, gone}) || !slices.Equal(r.Lost, []Range{unknown}) {
		t.Errorf("got damage %v, lost %v", r.Damaged, r.Lost)
	}
	if !bytes.Equal(got, restoredOnly(src, []Range{gone})) {
		t.Error("what could be recognised was not restored")
	}
}

func TestPageInWrongPlace(t *testing.T) {
	src, g, hole, files := setup(t)
	h := newHeader(g, meta(src, hole), 3, 1)
	from, to := h.pageOffset(false, 1), h.pageOffset(false, 2)
	copy(files[0][to:to+pageSize], files[0][from:])
	copy(files[0][h.pageOffset(true, 1):][:pageSize], files[1][from:])
	s := openAll(t, files[:1], small)
	if r := check(t, s, src); !slices.Equal(r.Files, []FileReport{{0, 2}}) || len(r.Damaged) > 0 {
		t.Errorf("got %+v", r)
	}
}

func TestDamageInLastBlock(t *testing.T) {
	src, g, hole, files := setup(t)
	s := openAll(t, files, small)
	last := Range{999 * small, small - 100}
	for name, from := range map[string]io.ReaderAt{
		"cut short by a byte": src[:len(src)-1],
		"cut short by more":   src[:len(src)-900],
		"unreadable":          holey{src, []Range{{g.size - 5, 5}}},
		"changed":             append(slices.Clone(src[:g.size-1]), src[g.size-1]^1),
	} {
		r := check(t, s, from)
		if !slices.Equal(r.Damaged, []Range{last}) || len(r.Lost) > 0 {
			t.Errorf("%s: got %+v", name, r)
		}
		same(t, repair(t, s, from, r, append(slices.Clone(src[:last.Offset]), make(mem, last.Size)...)), src, hole)
	}
	// What lies behind the end is not looked at.
	if r := check(t, s, append(slices.Clone(src), 1)); len(r.Damaged) > 0 {
		t.Errorf("got %+v", r)
	}
}

// fickle reads a range otherwise, or not at all, from the second time on.
type fickle struct {
	mem
	at   Range
	err  error
	once *sync.Once
	seen *bool
}

func newFickle(m mem, at Range, err error) fickle {
	return fickle{m, at, err, new(sync.Once), new(bool)}
}

func (f fickle) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.mem.ReadAt(p, off)
	if off+int64(n) <= f.at.Offset || off >= f.at.End() {
		return n, err
	}
	first := false
	f.once.Do(func() { first = true })
	if first {
		return n, err
	}
	if f.err != nil {
		return 0, f.err
	}
	p[max(f.at.Offset-off, 0)] ^= 1
	return n, err
}

func TestSecondReadDiffers(t *testing.T) {
	src, g, hole, files := setup(t)
	h := newHeader(g, meta(src, hole), 3, 1)
	gone := Range{40 * small, small} // shard 5 of stripe 0
	damaged := slices.Clone(src)
	clear(damaged[gone.Offset:gone.End()])
	for _, err := range []error{nil, errMedium} {
		// Another block of the stripe; everything is read in one go the first time.
		liar := Range{400 * small, small}
		from := newFickle(damaged, liar, err)
		s := openAll(t, files, small)
		r := check(t, s, from)
		if !slices.Equal(r.Damaged, []Range{gone}) {
			t.Fatalf("got %v", r.Damaged)
		}
		bad := slices.Clone(damaged)
		clear(bad[liar.Offset:liar.End()])
		same(t, repair(t, s, from, r, bad), src, hole)
		if want := []Range{gone, liar}; !slices.Equal(r.Damaged, want) || len(r.Lost) > 0 {
			t.Errorf("got %+v, want damage %v", r, want)
		}

		// With one row of parity there is not enough for both.
		one := encode(t, src, geometry(t, g.size, small, 1), meta(src, hole), 0)
		s = openAll(t, one, small)
		from = newFickle(damaged, liar, err)
		r = check(t, s, from)
		repair(t, s, from, r, damaged)
		if want := []Range{gone, liar}; !slices.Equal(r.Lost, want) || r.Restored != 0 {
			t.Errorf("got %+v, want lost %v", r, want)
		}

		// A block of parity.
		parity := newFickle(files[0], Range{h.blockOffset(0, 0), small}, err)
		in := inputs(files)
		in[0].ReaderAt = parity
		s, _, oerr := open(in, nil, small)
		if oerr != nil {
			t.Fatal(oerr)
		}
		r = check(t, s, damaged)
		same(t, repair(t, s, damaged, r, damaged), src, hole)
		if want := []FileReport{{1, 0}, {}, {}}; !slices.Equal(r.Files, want) || len(r.Lost) > 0 {
			t.Errorf("got %+v, want %v", r, want)
		}
	}
}

// TestScatteredDamage takes another pattern in every stripe.
func TestScatteredDamage(t *testing.T) {
	src, g, hole, files := setup(t)
	rnd := rand.New(rand.NewPCG(4, 1))
	damaged := slices.Clone(src)
	for s := range g.Stripes() {
		for _, j := range rnd.Perm(125)[:12] {
			i := g.member(s, j)*small + 50
			if i < hole.Offset-small || i > hole.End() {
				damaged[i] ^= byte(1 + rnd.IntN(255))
			}
		}
	}
	s := openAll(t, files, small)
	r := check(t, s, damaged)
	// In place: what is restored is read again.
	if err := s.Repair(context.Background(), damaged, r, func(p []byte, off int64) error {
		_, err := damaged.WriteAt(p, off)
		return err
	}, nothing); err != nil {
		t.Fatal(err)
	}
	if len(r.Lost) > 0 || len(r.Damaged) < 20 {
		t.Errorf("got %+v", r)
	}
	hole.clear(src, 0)
	hole.clear(damaged, 0)
	if !bytes.Equal(src, damaged) {
		t.Error("not restored")
	}
}

func TestErrors(t *testing.T) {
	src, g, hole, files := setup(t)
	m := meta(src, hole)
	out := []File{make(mem, g.Files(hole.Size, 0)[0])}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Encode(ctx, src, g, m, out, 0, nothing); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v", err)
	}
	ctx, cancel = context.WithCancel(context.Background())
	if err := Encode(ctx, src, g, m, out, 0, func(int64) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled on the way: got %v", err)
	}
	if err := Encode(context.Background(), holey{src, []Range{{5000, 1}}}, g, m, out, 0, nothing); !errors.Is(err, errMedium) {
		t.Errorf("unreadable: got %v", err)
	}
	if err := Encode(context.Background(), src[:1000], g, m, out, 0, nothing); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut short: got %v", err)
	}
	for name, f := range map[string]func() error{
		"no geometry":   func() error { return Encode(context.Background(), src, Geometry{}, m, out, 0, nothing) },
		"too few files": func() error { return Encode(context.Background(), src, g, m, out, 1, nothing) },
		"hole without content": func() error {
			return Encode(context.Background(), src, g, Meta{Hole: hole}, out, 0, nothing)
		},
		"full disk": func() error {
			return Encode(context.Background(), src, g, m, []File{make(mem, 100000)}, 0, nothing)
		},
	} {
		if f() == nil {
			t.Errorf("%s: no error", name)
		}
	}
	for _, h := range []Range{{-1, 5}, {0, -1}, {g.size, 1}, {1, g.size}, {0, MaxHole + 1}, {1 << 62, 1}} {
		if err := Encode(context.Background(), src, g, Meta{Hole: h}, out, 0, nothing); !errors.Is(err, ErrLimit) {
			t.Errorf("hole %v: got %v", h, err)
		}
	}

	s := openAll(t, files, small)
	if _, err := s.Check(ctx, src, nothing); !errors.Is(err, context.Canceled) {
		t.Errorf("check cancelled: got %v", err)
	}
	from := holey{src, []Range{{5000, 5000}}}
	r := check(t, s, from)
	full := errors.New("disk full")
	err := s.Repair(context.Background(), from, r, func([]byte, int64) error { return full }, nothing)
	if !errors.Is(err, full) {
		t.Errorf("restore fails: got %v", err)
	}
	if err := s.Repair(ctx, from, r, func([]byte, int64) error { return nil }, nothing); !errors.Is(err, context.Canceled) {
		t.Errorf("repair cancelled: got %v", err)
	}
	if err := openAll(t, files, small).Repair(context.Background(), from, r, nil, nothing); err == nil {
		t.Error("report of another set: no error")
	}
	for _, e := range []error{&RowsError{0, 128, 128}, &VersionError{3}, &ForeignError{}} {
		if e.Error() == "" {
			t.Errorf("%T says nothing", e)
		}
	}
}

// hostile is a file of any size with a page at either end.
type hostile struct {
	head, tail []byte
	size       int64
}

func (h hostile) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= h.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), h.size-off))
	clear(p[:n])
	if off < int64(len(h.head)) {
		copy(p[:n], h.head[off:])
	}
	if at := h.size - int64(len(h.tail)) - off; at >= 0 && at < int64(n) {
		copy(p[at:n], h.tail)
	} else if at < 0 && -at < int64(len(h.tail)) {
		copy(p[:n], h.tail[-at:])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// FuzzOpen takes headers, with the right checksum, from anybody.
func FuzzOpen(f *testing.F) {
	src := random(1, 300*small)
	for _, c := range []struct {
		size int64
		rows int
	}{{1, 1}, {300 * small, 3}, {MaxSize, 128}, {129 * BlockSize, 2}} {
		g := geometry(f, c.size, BlockSize, c.rows)
		h := newHeader(g, meta(src, Range{0, min(c.size, 1000)}), 1, 1)
		f.Add(h.encode()[:104], []byte{}, h.fileSize())
		f.Add([]byte{}, h.encode()[:104], h.fileSize())
		f.Add(h.encode()[:104], h.encode()[:104], int64(pageSize))
	}
	f.Fuzz(func(t *testing.T, head, tail []byte, size int64) {
		page := func(b []byte) []byte {
			p := make([]byte, pageRecords)
			copy(p, b)
			return binary.LittleEndian.AppendUint64(p, xxhash.Sum64(p))
		}
		file := hostile{page(head), page(tail), size}
		s, _, err := Open([]Input{{file, size}, {file, size}}, nil)
		if err != nil {
			return
		}
		if g := s.Geometry(); g.Rows() < 1 || g.DataRows()+g.Rows() > maxShards || g.Size() > MaxSize || g.Size() < 1 || int64(len(s.HoleContent())) > MaxHole {
			t.Errorf("accepted %+v", g)
		}
		if s.CheckSize() > 8<<20 || s.CheckSize() <= 0 {
			return
		}
		r, err := s.Check(context.Background(), src, nothing)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Repair(context.Background(), src, r, func([]byte, int64) error { return nil }, nothing); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzRepair damages everything in any way: what is restored is right, and what is not is said.
func FuzzRepair(f *testing.F) {
	src, _, hole, files := setup(f)
	f.Add([]byte{0, 0, 0, 0, 0})
	f.Add([]byte{0, 200, 1, 0, 9, 1, 0, 0, 1, 1, 2, 10, 200, 3, 255, 3, 50, 0, 0, 200})
	f.Fuzz(func(t *testing.T, damage []byte) {
		all := []mem{slices.Clone(src), slices.Clone(files[0]), slices.Clone(files[1]), slices.Clone(files[2])}
		for ; len(damage) >= 5; damage = damage[5:] {
			m := all[damage[0]%4]
			at := int(damage[1])<<16 | int(damage[2])<<8 | int(damage[3])
			for i := range 1 + 16*int(damage[4]) {
				m[(at+i)%len(m)] ^= damage[4] | 1
			}
		}
		s, _, err := open(inputs(all[1:]), nil, small)
		if err != nil {
			return
		}
		r := check(t, s, all[0])
		lost := slices.Clone(r.Lost)
		got := repair(t, s, all[0], r, all[0])
		if !slices.Equal(lost, r.Lost) {
			t.Errorf("announced %v, lost %v", lost, r.Lost)
		}
		for _, l := range r.Lost {
			copy(got[l.Offset:l.End()], src[l.Offset:l.End()])
		}
		same(t, got, src, hole)
	})
}

// temp is a file in the page cache.
func temp(b *testing.B, name string, size int64) *os.File {
	b.Helper()
	f, err := os.Create(filepath.Join(b.TempDir(), name))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		b.Fatal(err)
	}
	return f
}

const benchSize, benchVolume = 512 << 20, 64 << 20

func benchSetup(b *testing.B) (src *os.File, g Geometry, parity *os.File) {
	b.Helper()
	src = temp(b, "bundle", benchSize)
	content := random(1, 1<<20)
	for off := int64(0); off < benchSize; off += int64(len(content)) {
		content[0]++
		if _, err := src.WriteAt(content, off); err != nil {
			b.Fatal(err)
		}
	}
	g, err := Volumes(benchSize, benchVolume, 1)
	if err != nil {
		b.Fatal(err)
	}
	return src, g, temp(b, "parity", g.Files(0, 0)[0])
}

func BenchmarkEncode(b *testing.B) {
	src, g, parity := benchSetup(b)
	b.SetBytes(benchSize)
	for b.Loop() {
		if err := Encode(context.Background(), src, g, Meta{}, []File{parity}, 0, nothing); err != nil {
			b.Fatal(err)
		}
	}
}

// without reads a file that has lost a volume.
type without struct {
	*os.File
	lost Range
}

func (w without) ReadAt(p []byte, off int64) (int, error) {
	if off < w.lost.End() && off+int64(len(p)) > w.lost.Offset {
		return 0, errMedium
	}
	return w.File.ReadAt(p, off)
}

func benchRepair(b *testing.B, work func(*Set, io.ReaderAt, *Report) error) {
	b.Helper()
	src, g, parity := benchSetup(b)
	ctx := context.Background()
	if err := Encode(ctx, src, g, Meta{}, []File{parity}, 0, nothing); err != nil {
		b.Fatal(err)
	}
	s, _, err := Open([]Input{{parity, g.Files(0, 0)[0]}}, nil)
	if err != nil {
		b.Fatal(err)
	}
	from := without{src, Range{3 * benchVolume, benchVolume}}
	r, err := s.Check(ctx, from, nothing)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(benchSize)
	for b.Loop() {
		if err := work(s, from, r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	benchRepair(b, func(s *Set, src io.ReaderAt, _ *Report) error {
		_, err := s.Check(context.Background(), src, nothing)
		return err
	})
}

// BenchmarkRepair restores a lost volume, without the check before it.
func BenchmarkRepair(b *testing.B) {
	out := temp(b, "restored", benchSize)
	benchRepair(b, func(s *Set, src io.ReaderAt, r *Report) error {
		return s.Repair(context.Background(), src, r, func(p []byte, off int64) error {
			_, err := out.WriteAt(p, off)
			return err
		}, nothing)
	})
}
