package archive

import (
	"bytes"
	"context"
	"errors"
	"io"
)

// Walker reads a whole file once, in order, and compares every byte with what the manifest makes
// of it. It works on streams. The bytes of entries can be taken on the way.
type Walker struct {
	r    *Reader
	sums []uint32
	next int
	cur  *entryReader
	buf  []byte
	done func(int64)
	// told is the offset in the file up to which done was told.
	told int64
}

// Walk begins a walk; done is called with the number of bytes of the file that were passed. The
// head, which has been read already, is read again and compared where that is possible.
func (r *Reader) Walk(done func(int64)) (*Walker, error) {
	w := &Walker{r: r, sums: make([]uint32, 0, r.layout.frames), done: done}
	if err := r.checkHead(w.sum); err != nil {
		return nil, err
	}
	w.sums = append(w.sums, 0, 0)
	w.tell(r.layout.slots + slotsSize)
	return w, nil
}

func (w *Walker) sum(s uint32) { w.sums = append(w.sums, s) }

func (w *Walker) tell(at int64) {
	w.done(at - w.told)
	w.told = at
}

// Next ends the entry that is under way, reading what was not taken of it, and returns the index
// of the next one with its content, which is proven as that of Reader.Open is; io.EOF after the
// last one.
func (w *Walker) Next(ctx context.Context) (int, io.Reader, error) {
	if err := w.finishEntry(ctx); err != nil {
		return 0, nil, err
	}
	if w.next == len(w.r.layout.entries) {
		return 0, nil, io.EOF
	}
	s := w.r.scan(w.next)
	s.sums, s.buf = w.sum, w.buf
	w.cur = &entryReader{entryScanner: s}
	w.next++
	return w.next - 1, w.cur, nil
}

func (w *Walker) finishEntry(ctx context.Context) error {
	if w.cur == nil {
		return nil
	}
	for w.cur.err == nil {
		if err := ctx.Err(); err != nil {
			return err
		}
		w.cur.piece, w.cur.err = w.cur.next()
		w.tell(w.cur.at)
	}
	if err := w.cur.err; !errors.Is(err, io.EOF) {
		return err
	}
	w.tell(w.cur.at)
	w.buf, w.cur = w.cur.buf, nil
	return nil
}

// Finish walks to the end of the file.
func (w *Walker) Finish(ctx context.Context) error {
	for {
		if _, _, err := w.Next(ctx); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
	}
	if err := w.r.checkTail(w.sums); err != nil {
		return err
	}
	w.tell(w.r.layout.size)
	return nil
}

// Verify walks over the whole file; done is called with the number of bytes passed. It returns
// the first difference, as *DamageError or *SizeError, or *ReadError.
func (r *Reader) Verify(ctx context.Context, done func(int64)) error {
	w, err := r.Walk(done)
	if err != nil {
		return err
	}
	return w.Finish(ctx)
}

// checkHead compares the head with what was read of it before, the slots with all that is in
// them. The active one was decoded then, the inactive one is the business of Head.Warnings. The
// head of a stream has passed.
func (r *Reader) checkHead(sum func(uint32)) error {
	want := frameManifest(r.head.Manifest, sum)
	want = append(want, skippable(magicGap, r.layout.gap)...)
	want = append(want, make([]byte, r.layout.gap)...)
	want = append(want, r.head.slots...)
	if _, passed := r.src.(*streamSource); passed {
		return nil
	}
	return r.compare(want, 0, "head")
}

func (r *Reader) checkTail(sums []uint32) error {
	end := make([]byte, 2*tarBlock)
	if err := r.compare(appendFrame(nil, end), r.layout.end, "end frame"); err != nil {
		return err
	}
	sums = append(sums, checksum(end))
	if err := r.compare(r.layout.checkTable(sums), r.layout.checkOffset(), "check table"); err != nil {
		return err
	}
	if err := r.compare(r.layout.seekTable(), r.layout.checkOffset()+r.layout.checkSize(), "seek table"); err != nil {
		return err
	}
	var one [1]byte
	n, err := r.src.ReadAt(one[:], r.layout.size)
	if _, stream := r.src.(*streamSource); stream && n != 0 {
		return wrongByte(r.src, r.layout.size, "end", "the stream goes on after the end of the bundle")
	}
	if n != 0 {
		return &SizeError{r.layout.size + 1, r.layout.size}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return &ReadError{r.layout.size, "end", nil, err}
	}
	return nil
}

func (r *Reader) compare(want []byte, at int64, part string) error {
	return compareAt(r.src, want, at, part)
}

// compareAt compares the bytes at an offset of src with what they must be.
func compareAt(src Source, want []byte, at int64, part string) error {
	got := make([]byte, len(want))
	if err := readFull(src, got, at, part); err != nil {
		return err
	}
	if bytes.Equal(got, want) {
		return nil
	}
	for i := range got {
		if got[i] != want[i] {
			return wrongByte(src, at+int64(i), part, errDiffers)
		}
	}
	return nil
}

// skeleton compares everything but the entries' content with what the manifest makes of it, so
// that a file which was just written is seen to be whole without reading it all. sums are the
// checksums of all listed frames.
func (r *Reader) skeleton(sums []uint32) error {
	if err := r.checkHead(func(uint32) {}); err != nil {
		return err
	}
	for i := range r.layout.entries {
		if err := r.scan(i).header(); err != nil {
			return err
		}
	}
	return r.checkTail(sums[:len(sums)-1])
}
