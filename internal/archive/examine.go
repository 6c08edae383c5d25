package archive

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"sort"
)

// condition is what an examination has found out about one volume.
type condition struct {
	// sound counts the frames in this volume, or at its borders, that are what they must be; bad
	// those that are not and lie in this volume alone; other those of the bad ones that are sound
	// in themselves and thus of another bundle.
	sound, bad, other int
	// at is the offset in the volume of the first bad one, and why it is bad.
	at  int64
	err error
}

// crossing is a bad run of bytes that lies in several volumes.
type crossing struct {
	from, to int64
	err      error
}

// examination collects what is wrong with a file in volumes, all of it.
type examination struct {
	r    *Reader
	vols *volumeSource
	// sums of the listed frames; those that are not what they must be are in lost.
	sums []uint32
	lost map[int]bool
	// table is the content of the check table, alien that of one that is whole and of another
	// bundle; at most one of them is there.
	table, alien []byte
	// conditions of the volumes, by number from 0.
	conditions []condition
	crossings  []crossing
}

// good says that the frame in these bytes is what it must be.
func (x *examination) good(from, to int64) {
	for i := from / x.vols.size; i <= (to-1)/x.vols.size; i++ {
		x.conditions[i].sound++
	}
}

// damage says that these bytes are not what they must be.
func (x *examination) damage(from, to int64, err error) {
	// Where the very byte is known, it is the volume that it lies in.
	var d *DamageError
	var r *ReadError
	switch {
	case errors.As(err, &d) && d.exact && from <= d.Offset && d.Offset < to:
		from, to = d.Offset, d.Offset+1
	case errors.As(err, &r) && from <= r.Offset && r.Offset < to:
		from, to = r.Offset, r.Offset+1
	}
	i := from / x.vols.size
	if i != (to-1)/x.vols.size {
		x.crossings = append(x.crossings, crossing{from, to, err})
		return
	}
	c := &x.conditions[i]
	if at := from - i*x.vols.size; c.bad == 0 || at < c.at {
		c.at, c.err = at, err
	}
	c.bad++
}

// Examine is Verify that goes on after the first difference where the file is in volumes, so
// that everything is found in one reading. It returns a *VolumesError that names those which are
// missing, of the wrong size, damaged, foreign or in each other's places, and says that the
// others are good. Other files are verified.
func (r *Reader) Examine(ctx context.Context, done func(int64)) error {
	fit := r.Fit()
	vols, ok := r.src.(*volumeSource)
	var problems *VolumesError
	if fit != nil && (!ok || !errors.As(fit, &problems)) {
		return fit
	}
	if !ok {
		return r.Verify(ctx, done)
	}
	x := &examination{
		r: r, vols: vols, sums: make([]uint32, 0, r.layout.frames), lost: map[int]bool{},
		conditions: make([]condition, vols.count()),
	}
	x.head()
	done(r.layout.slots + slotsSize)
	for i := range r.layout.entries {
		if err := x.entry(ctx, i, done); err != nil {
			return err
		}
	}
	x.tail()
	done(r.layout.size - r.layout.end)
	return x.judge(problems)
}

// head examines what lies before the entries, and looks whether there is a check table that is
// of this bundle: it names the manifest's frames as well, which are proven.
func (x *examination) head() {
	l := x.r.layout
	if err := x.r.checkHead(func(s uint32) { x.sums = append(x.sums, s) }); err != nil {
		x.damage(0, l.slots+slotsSize, err)
	} else {
		x.good(0, l.slots+slotsSize)
	}
	table := make([]byte, l.checkSize())
	if readFull(x.r.src, table, l.checkOffset(), "check table") == nil {
		// Header and end of the table are the same in all bundles of this layout.
		const begin = skippableHeader + 4
		ours := l.checkTable(append(x.sums, checksum(make([]byte, 2*tarBlock))))
		end := len(ours) - 4
		switch {
		case bytes.HasPrefix(table, ours[:end]):
			x.table = table[skippableHeader:]
		case bytes.HasPrefix(table, ours[:begin]) && bytes.HasSuffix(table, ours[end:]):
			x.alien = table[skippableHeader:]
		}
	}
	x.sums = append(x.sums, 0, 0)
}

// entry examines one entry, frame by frame.
func (x *examination) entry(ctx context.Context, i int, done func(int64)) error {
	s := x.r.scan(i)
	s.sums = func(sum uint32) { x.sums = append(x.sums, sum) }
	whole := true
	lose := func(size int64, err error) {
		whole = false
		x.lost[len(x.sums)] = true
		x.sums = append(x.sums, 0)
		x.damage(s.at, s.at+size, err)
	}
	for s.rest > 0 || !s.begun {
		if err := ctx.Err(); err != nil {
			return err
		}
		before := s.at
		if !s.begun {
			if err := s.header(); err != nil {
				lose(frameSize(tarBlock), err)
				s.begun = true
				s.at += frameSize(tarBlock)
			}
		} else if _, err := s.frame(); err != nil {
			n := min(s.rest, FrameContent)
			lose(frameSize(n), err)
			s.pass(n)
		}
		done(s.at - before)
	}
	var err error
	if whole {
		err = s.prove()
	}
	x.settle(i, whole && err == nil, whole, err)
	return nil
}

// settle says of the frames of entry i which are what they must be: all of them where its digest
// is right. Else a frame may be sound and yet of another bundle. What its checksum should be is
// in the check table; where that does not tell which frame makes the digest wrong, none of them
// is to be believed.
func (x *examination) settle(i int, proven, whole bool, err error) {
	l := x.r.layout
	first, n := l.frameIndex[i], entryFrames(l.entries[i].Size)
	sum := func(table []byte, j int) uint32 { return binary.LittleEndian.Uint32(table[4*(first+j):]) }
	exchanged := func(j int) bool {
		switch {
		case proven:
			return false
		case x.table != nil:
			return sum(x.table, j) != x.sums[first+j]
		case x.alien != nil:
			// What has our name in the other bundle too, has our content.
			e := l.entries[i]
			return sum(x.alien, 0) != checksum(tarHeader(e.Name, e.Size, typeRegular)) && sum(x.alien, j) == x.sums[first+j]
		}
		return false
	}
	told := false
	for j := range n {
		told = told || exchanged(j) && !x.lost[first+j]
	}
	if whole && !proven && !told {
		for j := range n {
			x.lost[first+j] = true
		}
		x.damage(l.offsets[i], l.offsets[i]+entrySize(l.entries[i].Size), err)
		return
	}
	at, padded := l.offsets[i], l.entries[i].Size+padding(l.entries[i].Size)
	for j := range n {
		size := frameSize(tarBlock)
		if j > 0 {
			size = frameSize(min(FrameContent, padded-int64(j-1)*FrameContent))
		}
		switch {
		case x.lost[first+j]:
		case exchanged(j):
			x.lost[first+j] = true
			x.damage(at, at+size, err)
			x.foreign(at, at+size)
		default:
			x.good(at, at+size)
		}
		at += size
	}
}

// foreign says that these bytes are those of another bundle.
func (x *examination) foreign(from, to int64) {
	if i := from / x.vols.size; i == (to-1)/x.vols.size {
		x.conditions[i].other++
	}
}

// tail examines what follows the entries. What the table says of frames that are lost cannot be
// compared.
func (x *examination) tail() {
	l := x.r.layout
	end := make([]byte, 2*tarBlock)
	if err := x.r.compare(appendFrame(nil, end), l.end, "end frame"); err != nil {
		x.damage(l.end, l.checkOffset(), err)
	} else {
		x.good(l.end, l.checkOffset())
	}
	x.checkTable(l.checkTable(append(x.sums, checksum(end))))
	seek := l.checkOffset() + l.checkSize()
	if err := x.r.compare(l.seekTable(), seek, "seek table"); err != nil {
		x.damage(seek, l.size, err)
	} else {
		x.good(seek, l.size)
	}
}

// checkTable compares the check table with what it must be, as far as that is known.
func (x *examination) checkTable(want []byte) {
	at := x.r.layout.checkOffset()
	got := make([]byte, len(want))
	if err := readFull(x.r.src, got, at, "check table"); err != nil {
		x.damage(at, at+int64(len(got)), err)
		return
	}
	for i := range x.lost {
		at := skippableHeader + 4*i
		copy(want[at:at+4], got[at:at+4])
	}
	for i := range got {
		if got[i] == want[i] {
			continue
		}
		off := at + int64(i)
		x.damage(off, off+1, damageAt(x.r.src, off, "check table", errDiffers))
		if x.alien != nil {
			x.foreign(off, off+1)
		}
		return
	}
	x.good(at, at+int64(len(got)))
}

// judge says for each volume what the damage means.
func (x *examination) judge(known *VolumesError) error {
	e := &VolumesError{Count: len(x.conditions), Checked: true}
	if known != nil {
		e.Problems = append(e.Problems, known.Problems...)
	}
	named := func(i int) bool {
		return slices.ContainsFunc(e.Problems, func(p VolumeProblem) bool { return p.Number == i+1 })
	}
	x.blame(func(i int) bool { return x.conditions[i].bad > 0 || named(i) })
	for i := range x.conditions {
		c := &x.conditions[i]
		if c.bad == 0 || named(i) {
			continue
		}
		p := VolumeProblem{Number: i + 1, Path: x.vols.files[i].path, Kind: VolumeDamaged, Offset: c.at}
		var unread *ReadError
		switch {
		case errors.As(c.err, &unread):
			p.Kind = VolumeUnreadable
		case c.other > 0 || c.sound == 0 && x.looksLikeBundle(i):
			p.Kind, p.Offset = VolumeForeign, 0
			if p.Is = x.really(i); p.Is > 0 {
				p.Kind = VolumeSwapped
			}
		}
		e.Problems = append(e.Problems, p)
	}
	if len(e.Problems) == 0 {
		return nil
	}
	slices.SortFunc(e.Problems, func(a, b VolumeProblem) int { return a.Number - b.Number })
	return e
}

// blame finds the volumes that bad runs at borders are the fault of. Where one of those that a
// run lies in is known to be bad, the others are not blamed. Then the volume is that has bad runs
// at both of its borders. Of what is left, any of them may be the one.
func (x *examination) blame(bad func(i int) bool) {
	left := make([]crossing, 0, len(x.crossings))
	span := func(c crossing) (first, last int) {
		return int(c.from / x.vols.size), int((c.to - 1) / x.vols.size)
	}
	explained := func(c crossing) bool {
		first, last := span(c)
		for i := first; i <= last; i++ {
			if bad(i) {
				return true
			}
		}
		return false
	}
	charge := func(i int, c crossing) {
		d := &x.conditions[i]
		d.bad++
		d.at, d.err = max(0, c.from-int64(i)*x.vols.size), c.err
	}
	for _, c := range x.crossings {
		if !explained(c) {
			left = append(left, c)
		}
	}
	for i, c := range left {
		if i == 0 || explained(c) || explained(left[i-1]) {
			continue
		}
		_, before := span(left[i-1])
		if first, _ := span(c); first == before {
			charge(first, crossing{from: c.from - x.vols.size, err: left[i-1].err})
		}
	}
	for _, c := range left {
		if explained(c) {
			continue
		}
		first, last := span(c)
		for i := first; i <= last; i++ {
			charge(i, c)
			x.conditions[i].sound++ // by this alone it cannot be told from a foreign one
		}
	}
}

// looksLikeBundle reports whether the file in the place of volume i (from 0) has frames of a
// bundle, wherever in it: then it is not damaged, but another one.
func (x *examination) looksLikeBundle(i int) bool {
	b := make([]byte, min(want(i, x.vols.size, x.vols.total), 2*FrameContent))
	n, _ := x.vols.files[i].file.ReadAt(b, 0)
	return bytes.Contains(b[:n], frameStart)
}

// really finds out which volume the file in the place of volume i (from 0) is: its number, or 0.
func (x *examination) really(i int) int {
	if x.table == nil {
		return 0
	}
	frame := make([]byte, frameSize(FrameContent))
	for j := range x.conditions {
		from := int64(j) * x.vols.size
		at, n, index, ok := x.r.layout.frameWithin(from, min(from+x.vols.size, x.vols.total))
		if j == i || !ok {
			continue
		}
		frame := frame[:frameSize(n)]
		if got, _ := x.vols.files[i].file.ReadAt(frame, at-from); got < len(frame) {
			continue
		}
		if _, sum, bad := openFrame(frame, int(n)); bad < 0 && sum == binary.LittleEndian.Uint32(x.table[4*index:]) {
			return j + 1
		}
	}
	return 0
}

// frameWithin finds a frame of content that lies wholly between two offsets: its offset, how much
// content it has, and its index among the listed frames. Full frames are preferred, since small
// ones may be the same in many bundles.
func (l *Layout) frameWithin(from, to int64) (at, content int64, index int, ok bool) {
	first := sort.Search(len(l.entries), func(i int) bool { return l.offsets[i]+entrySize(l.entries[i].Size) > from })
	for i := first; i < len(l.entries) && l.offsets[i] < to; i++ {
		e := l.entries[i]
		p, off := e.Size+padding(e.Size), l.offsets[i]+frameSize(tarBlock)
		// Frames before from are stepped over at once.
		skip := max(0, (from-off+frameSize(FrameContent)-1)/frameSize(FrameContent))
		for j := skip; j*FrameContent < p; j++ {
			n := min(FrameContent, p-j*FrameContent)
			start := off + j*frameSize(FrameContent)
			if start+frameSize(n) > to {
				break
			}
			if !ok || n > content {
				at, content, index, ok = start, n, l.frameIndex[i]+1+int(j), true
			}
			if n == FrameContent {
				return at, content, index, ok
			}
		}
	}
	return at, content, index, ok
}
