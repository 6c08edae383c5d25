package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"sync"

	"github.com/sealift/sealift/manifest"
)

// Plan says what a Writer is to write.
type Plan struct {
	// Path of the file, or of its volumes without their numbers.
	Path string
	// Volume is the size of volumes in bytes, 0 for one file.
	Volume int64
	// Entries whose sizes are known, in their order. Encoded ones come after them, one by one.
	Entries []manifest.Entry
	// Head is where the signature slots begin.
	Head int64
	// Size is the most that the whole file can take, and Beside what else will be written next
	// to it, in bytes.
	Size, Beside int64
	// Journal is kept beside the unfinished file, so that the next run can tell whether it is
	// the same pack.
	Journal Journal
	// Resume keeps what an earlier run of the same plan left.
	Resume bool
}

// Writer writes one bundle file, or its volumes, under partial names. Entries may be written in
// any order and at the same time. Seal makes the file whole, Publish gives it its final name.
type Writer struct {
	out  *output
	plan Plan
	// offsets of the entries; sums of their frames, nil until an entry is proven.
	offsets []int64
	entries []manifest.Entry
	sums    [][]uint32
	// tail is where the next encoded entry goes.
	tail    int64
	buffers sync.Pool
}

// NewWriter opens the files of a plan and reserves their space at once, so that a disk that is
// too small is known before the first byte moves (*DiskSpaceError, or an error that wraps
// syscall.ENOSPC). ErrBusy if another writer has them.
func NewWriter(p Plan) (_ *Writer, err error) {
	w := &Writer{plan: p, entries: slices.Clone(p.Entries), sums: make([][]uint32, len(p.Entries))}
	w.tail = p.Head + slotsSize
	for _, e := range p.Entries {
		w.offsets = append(w.offsets, w.tail)
		w.tail += entrySize(e.Size)
	}
	if err := checkVolume(p.Volume, p.Head, p.Size); err != nil {
		return nil, err
	}
	if w.out, err = openOutput(p.Path, p.Volume, p.Size, p.Resume); err != nil {
		return nil, err
	}
	if p.Resume {
		// What an earlier run fetched is worth more than its space.
		if err := w.out.reserve(p.Size, p.Beside); err != nil {
			return nil, errors.Join(err, w.Close())
		}
		return w, nil
	}
	// Without a journal nothing of what is there counts, and with one there is nothing yet.
	err = removeJournal(p.Path)
	if err == nil {
		err = w.out.clear()
	}
	if err == nil {
		err = w.out.reserve(p.Size, p.Beside)
	}
	if err == nil {
		err = p.Journal.write(p.Path)
	}
	if err != nil {
		return nil, errors.Join(err, w.Discard())
	}
	return w, nil
}

// EntryWriter writes one entry. What it has taken survives a source that breaks off: Fill may be
// called again with what follows.
type EntryWriter struct {
	w     *Writer
	i     int
	entry manifest.Entry
	at    int64 // of the frame that is being filled
	taken int64 // bytes of content that were taken
	hash  hash.Hash
	sums  []uint32
	// frame is the one being filled, with fill bytes of content in it.
	frame *[]byte
	fill  int64
}

// Entry begins, or begins anew, to write entry i.
func (w *Writer) Entry(i int) *EntryWriter {
	e := &EntryWriter{w: w, i: i, entry: w.entries[i]}
	e.Reset()
	return e
}

// Reset begins anew.
func (e *EntryWriter) Reset() {
	e.at = e.w.offsets[e.i] + frameSize(tarBlock)
	e.taken, e.fill, e.hash, e.sums = 0, 0, sha256.New(), nil
	e.sums = append(e.sums, checksum(tarHeader(e.entry.Name, e.entry.Size, typeRegular)))
}

// Taken is how many bytes of content have been taken: where the source has to go on.
func (e *EntryWriter) Taken() int64 { return e.taken }

// content is how many bytes of content the frame holds that begins with byte off of the entry.
func (e *EntryWriter) content(off int64) int64 { return min(FrameContent, e.entry.Size-off) }

// Recover takes over what an earlier run wrote of the entry, as far as its frames are sound, and
// reports whether that is all of it. It is proven as a whole when it is complete.
func (e *EntryWriter) Recover(ctx context.Context) (complete bool, err error) {
	src := &bytesSource{ReaderAt: e.w.out}
	s := &entryScanner{src: src, entry: e.entry, at: e.w.offsets[e.i], rest: e.entry.Size + padding(e.entry.Size), left: e.entry.Size, hash: e.hash}
	e.sums = nil
	s.sums = func(sum uint32) { e.sums = append(e.sums, sum) }
	for {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		content, err := s.frame()
		if errors.Is(err, io.EOF) {
			break
		}
		// Whatever is wrong with it, it is fetched again from here.
		if err != nil {
			if !s.begun {
				e.Reset()
			}
			return false, nil
		}
		e.at = s.at
		e.taken += int64(len(content))
	}
	if complete = s.prove() == nil; complete {
		e.w.sums[e.i] = e.sums
	} else {
		e.Reset()
	}
	return complete, nil
}

// Fill takes content from r until the entry is full and r is at its end; then the entry is
// proven and done. *ContentError where r gives another size or digest than the manifest says.
// Other errors are those of reading or writing; after one of r's, Fill may be called with a
// reader that goes on from Taken. written is told how many bytes were taken.
func (e *EntryWriter) Fill(ctx context.Context, r io.Reader, written func(int64)) error {
	if e.taken == e.fill {
		if err := e.w.writeHeader(e.entry, e.w.offsets[e.i]); err != nil {
			return err
		}
	}
	for e.taken < e.entry.Size {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := e.read(r)
		written(n)
		if errors.Is(err, io.EOF) {
			return &ContentError{e.entry.Name, fmt.Sprintf("%d bytes", e.taken), fmt.Sprintf("%d bytes", e.entry.Size)}
		}
		if err != nil {
			return err
		}
		if e.fill == e.content(e.taken-e.fill) {
			if err := e.put(); err != nil {
				return err
			}
		}
	}
	if err := atEOF(r, e.entry); err != nil {
		return err
	}
	if got := hex.EncodeToString(e.hash.Sum(nil)); got != e.entry.SHA256 {
		return &ContentError{e.entry.Name, "sha256:" + got, "sha256:" + e.entry.SHA256}
	}
	e.w.sums[e.i] = e.sums
	return nil
}

// read reads a piece of content straight to its place in the frame.
func (e *EntryWriter) read(r io.Reader) (int64, error) {
	if e.frame == nil {
		e.frame = e.w.buffer(frameSize(min(FrameContent, e.entry.Size+padding(e.entry.Size))))
	}
	block := e.fill / blockContent
	at := frameHeader + blockHeader*(block+1) + e.fill
	room := min((block+1)*blockContent, e.content(e.taken-e.fill)) - e.fill
	piece := (*e.frame)[at : at+room]
	for range maxEmptyReads {
		n, err := r.Read(piece)
		e.hash.Write(piece[:n])
		e.fill += int64(n)
		e.taken += int64(n)
		if n > 0 && (err == nil || errors.Is(err, io.EOF)) {
			return int64(n), nil
		}
		if err != nil {
			return int64(n), err
		}
	}
	return 0, io.ErrNoProgress
}

// maxEmptyReads bounds how often a reader may give nothing without saying why.
const maxEmptyReads = 100

// put closes the frame that is full and writes it.
func (e *EntryWriter) put() error {
	n := e.fill + padding(e.fill)
	frame := (*e.frame)[:frameSize(n)]
	sum := closeFrame(frame, int(n), int(e.fill))
	if _, err := e.w.out.WriteAt(frame, e.at); err != nil {
		return fmt.Errorf("writing %s: %w", e.entry.Name, err)
	}
	e.sums = append(e.sums, sum)
	e.at += int64(len(frame))
	e.fill = 0
	return nil
}

// Close gives back the buffer, unless it holds what a source brought before it broke off. The
// EntryWriter may be used again.
func (e *EntryWriter) Close() {
	if e.frame != nil && e.fill == 0 {
		e.w.buffers.Put(e.frame)
		e.frame = nil
	}
}

func (w *Writer) buffer(size int64) *[]byte {
	if b, ok := w.buffers.Get().(*[]byte); ok && int64(len(*b)) >= size {
		return b
	}
	b := make([]byte, size)
	return &b
}

func (w *Writer) writeHeader(e manifest.Entry, at int64) error {
	if _, err := w.out.WriteAt(appendFrame(nil, tarHeader(e.Name, e.Size, typeRegular)), at); err != nil {
		return fmt.Errorf("writing %s: %w", e.Name, err)
	}
	return nil
}

// atEOF reports content beyond the announced size.
func atEOF(r io.Reader, e manifest.Entry) error {
	var one [1]byte
	n, err := io.ReadFull(r, one[:])
	if n > 0 {
		return &ContentError{e.Name, fmt.Sprintf("more than %d bytes", e.Size), fmt.Sprintf("%d bytes", e.Size)}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// Done reports how many bytes of content are written and proven.
func (w *Writer) Done() int64 {
	var n int64
	for i, sums := range w.sums {
		if sums != nil {
			n += w.entries[i].Size
		}
	}
	return n
}

// Encode reads the blob b from r, proves it, and writes it encoded after all other entries. It
// returns the entry that holds it. After an error it may be called again with the whole blob.
func (w *Writer) Encode(ctx context.Context, b manifest.Blob, r io.Reader, read func(int64)) (manifest.Entry, error) {
	name := manifest.BlobEntryName(b)
	sink := &encodedSink{w: w, name: name, at: w.tail + frameSize(tarBlock), hash: sha256.New(), buf: make([]byte, 0, FrameContent)}
	z, err := newEncoder(sink)
	if err != nil {
		return manifest.Entry{}, fmt.Errorf("encoding %s: %w", name, err)
	}
	h := sha256.New()
	piece := make([]byte, blockContent)
	for left := b.Size; left > 0; {
		if err := ctx.Err(); err != nil {
			return manifest.Entry{}, errors.Join(err, z.Close())
		}
		n, err := r.Read(piece[:min(left, int64(len(piece)))])
		h.Write(piece[:n])
		left -= int64(n)
		read(int64(n))
		if _, e := z.Write(piece[:n]); e != nil {
			return manifest.Entry{}, errors.Join(fmt.Errorf("encoding %s: %w", name, e), z.Close())
		}
		if errors.Is(err, io.EOF) && left > 0 {
			err = &ContentError{name, fmt.Sprintf("%d bytes", b.Size-left), fmt.Sprintf("%d bytes", b.Size)}
		}
		if err != nil && left > 0 {
			return manifest.Entry{}, errors.Join(err, z.Close())
		}
	}
	if err := z.Close(); err != nil {
		return manifest.Entry{}, fmt.Errorf("encoding %s: %w", name, err)
	}
	if err := atEOF(r, manifest.Entry{Name: name, Size: b.Size}); err != nil {
		return manifest.Entry{}, err
	}
	if got := "sha256:" + hex.EncodeToString(h.Sum(nil)); got != b.Digest {
		return manifest.Entry{}, &ContentError{name, got, b.Digest}
	}
	if err := sink.finish(); err != nil {
		return manifest.Entry{}, err
	}
	e := manifest.Entry{Name: name, Size: sink.size, SHA256: hex.EncodeToString(sink.hash.Sum(nil))}
	// The header goes last: it says that the whole entry is there.
	if err := w.writeHeader(e, w.tail); err != nil {
		return manifest.Entry{}, err
	}
	w.append(e, append([]uint32{checksum(tarHeader(e.Name, e.Size, typeRegular))}, sink.sums...))
	return e, nil
}

func (w *Writer) append(e manifest.Entry, sums []uint32) {
	w.entries = append(w.entries, e)
	w.offsets = append(w.offsets, w.tail)
	w.sums = append(w.sums, sums)
	w.tail += entrySize(e.Size)
}

// RecoverEncoded takes over the encoded blob b, if an earlier run wrote all of it where the next
// one belongs. It is encoded once more, so that what is taken over is what this program would
// have written, and nothing that another version or another writer chose.
func (w *Writer) RecoverEncoded(ctx context.Context, b manifest.Blob) (_ manifest.Entry, ok bool, err error) {
	src := &bytesSource{ReaderAt: w.out}
	head := &entryScanner{src: src, at: w.tail}
	content, _, e := head.raw(tarBlock)
	if e != nil {
		return manifest.Entry{}, false, nil
	}
	name, size, kind, valid := parseTarHeader(content)
	if !valid || name != manifest.BlobEntryName(b) || kind != typeRegular || size < 1 || size > EncodedBound(b.Size) {
		return manifest.Entry{}, false, nil
	}
	var sums []uint32
	s := &entryScanner{src: src, entry: manifest.Entry{Name: name, Size: size}, at: w.tail, rest: size + padding(size), left: size, hash: sha256.New()}
	s.sums = func(sum uint32) { sums = append(sums, sum) }
	d, e := NewDecoder(b, io.NopCloser(&unproven{s: s, ctx: ctx}))
	if e != nil {
		return manifest.Entry{}, false, nil
	}
	defer d.Close()
	again := sha256.New()
	z, err := newEncoder(again)
	if err != nil {
		return manifest.Entry{}, false, fmt.Errorf("encoding %s: %w", name, err)
	}
	_, e = io.Copy(z, d)
	if e := errors.Join(e, z.Close()); e != nil || s.rest != 0 {
		return manifest.Entry{}, false, ctx.Err()
	}
	entry := manifest.Entry{Name: name, Size: size, SHA256: hex.EncodeToString(s.hash.Sum(nil))}
	if entry.SHA256 != hex.EncodeToString(again.Sum(nil)) {
		return manifest.Entry{}, false, nil
	}
	w.append(entry, sums)
	return entry, true, nil
}

// unproven reads the frames of an entry whose digest is not known yet.
type unproven struct {
	s     *entryScanner
	ctx   context.Context //nolint:containedctx // a reader has nowhere else to get it from
	piece []byte
}

func (u *unproven) Read(p []byte) (int, error) {
	for len(u.piece) == 0 {
		if err := u.ctx.Err(); err != nil {
			return 0, err
		}
		if !u.s.begun {
			if err := u.s.header(); err != nil {
				return 0, err
			}
		}
		content, err := u.s.frame()
		if err != nil {
			return 0, err
		}
		u.piece = content
	}
	n := copy(p, u.piece)
	u.piece = u.piece[n:]
	return n, nil
}

// encodedSink cuts what the encoder gives into frames and writes them.
type encodedSink struct {
	w    *Writer
	name string
	at   int64
	size int64
	hash hash.Hash
	sums []uint32
	buf  []byte
	out  []byte
}

func (s *encodedSink) Write(p []byte) (int, error) {
	s.hash.Write(p)
	s.size += int64(len(p))
	for rest := p; len(rest) > 0; {
		n := min(len(rest), FrameContent-len(s.buf))
		s.buf = append(s.buf, rest[:n]...)
		rest = rest[n:]
		if len(s.buf) == FrameContent {
			if err := s.put(); err != nil {
				return 0, err
			}
		}
	}
	return len(p), nil
}

func (s *encodedSink) put() error {
	sum := checksum(s.buf)
	s.out = appendSummed(s.out[:0], s.buf, sum)
	if _, err := s.w.out.WriteAt(s.out, s.at); err != nil {
		return fmt.Errorf("writing %s: %w", s.name, err)
	}
	s.sums = append(s.sums, sum)
	s.at += int64(len(s.out))
	s.buf = s.buf[:0]
	return nil
}

func (s *encodedSink) finish() error {
	if len(s.buf) == 0 {
		return nil
	}
	s.buf = append(s.buf, make([]byte, padding(int64(len(s.buf))))...)
	return s.put()
}

// SealOptions say how a file is made whole.
type SealOptions struct {
	// Manifest is the canonical bytes of the manifest, Layout what follows from it.
	Manifest []byte
	Layout   *Layout
	// Signatures are sigstore bundles, none for an unsigned file. Trust are the trust entries
	// beside them; FitTrust chooses those that have room.
	Signatures [][]byte
	Trust      []Trust
	// Slots are both slots with what is around them, as they are to lie in the file, in place of
	// Signatures and Trust; nil where the file is new.
	Slots []byte
	// ReadBack proves every byte by reading it from the disk again; done is told how many have
	// been read.
	ReadBack bool
	Done     func(int64)
}

// Seal writes what is still missing (manifest, tables and, last, the signatures, so that a file
// that is not complete never holds a valid one), makes all of it durable, and proves it: sizes
// and structure by reading them back, the content too with ReadBack.
func (w *Writer) Seal(ctx context.Context, o SealOptions) error {
	if err := w.seal(ctx, o); err != nil {
		return fmt.Errorf("finishing %q: %w", w.plan.Path, err)
	}
	return nil
}

func (w *Writer) seal(ctx context.Context, o SealOptions) error {
	l := o.Layout
	if int64(len(o.Manifest)) != l.manifestSize || l.slots != w.plan.Head || len(l.entries) != len(w.entries) {
		return errors.New("the layout is not that of the plan")
	}
	var sums []uint32
	head := frameManifest(o.Manifest, func(s uint32) { sums = append(sums, s) })
	head = append(head, skippable(magicGap, l.gap)...)
	head = append(head, make([]byte, l.gap)...)
	head = append(head, blankSlots()...)
	sums = append(sums, 0, 0)
	for i, s := range w.sums {
		if s == nil || w.entries[i] != l.entries[i] || w.offsets[i] != l.offsets[i] {
			return fmt.Errorf("entry %s was not written", l.entries[i].Name)
		}
		sums = append(sums, s...)
	}
	end := make([]byte, 2*tarBlock)
	sums = append(sums, checksum(end))
	tail := appendFrame(nil, end)
	tail = append(tail, l.checkTable(sums)...)
	tail = append(tail, l.seekTable()...)
	signed, err := o.slots()
	if err != nil {
		return err
	}
	if _, err := w.out.WriteAt(tail, l.end); err != nil {
		return err
	}
	if _, err := w.out.WriteAt(head, 0); err != nil {
		return err
	}
	if err := w.out.cut(l.size); err != nil {
		return err
	}
	if err := w.out.durable(); err != nil {
		return err
	}
	if err := w.readBack(ctx, o, sums); err != nil {
		return err
	}
	if err := w.sign(o, signed); err != nil {
		// What fails here is no bundle that anybody has vouched for.
		_, e := w.out.WriteAt(blankSlots(), l.slots)
		return errors.Join(err, e)
	}
	return nil
}

// slots are those that the file is to have in the end.
func (o *SealOptions) slots() ([]byte, error) {
	if o.Slots != nil {
		if len(o.Slots) != slotsSize {
			return nil, fmt.Errorf("signature slots of %d bytes, want %d: %w", len(o.Slots), slotsSize, ErrLimit)
		}
		_, _, _, err := readActive(o.Slots)
		return o.Slots, err
	}
	slot, err := encodeSlot(SlotContent{o.Signatures, o.Trust})
	if err != nil {
		return nil, err
	}
	return slots(0, [2][]byte{slot, blankSlot()}), nil
}

func blankSlots() []byte { return slots(0, [2][]byte{blankSlot(), blankSlot()}) }

// sign writes the slots with the signatures and checks that they can be read.
func (w *Writer) sign(o SealOptions, signed []byte) (err error) {
	if _, err := w.out.WriteAt(signed, o.Layout.slots); err != nil {
		return err
	}
	if err := w.out.durable(); err != nil {
		return err
	}
	r, src, err := w.reopen(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	if !bytes.Equal(r.head.slots, signed) {
		return &WrittenError{w.plan.Path, errOtherSlots}
	}
	return nil
}

var errOtherSlots = errors.New("the signature slots that can be read are not those that were written")

// readBack opens the unsigned file anew, by its names, and compares it with what it must be.
func (w *Writer) readBack(ctx context.Context, o SealOptions, sums []uint32) (err error) {
	defer func() {
		if err != nil && ctx.Err() == nil {
			err = &WrittenError{w.plan.Path, err}
		}
	}()
	r, src, err := w.reopen(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	if err := r.Fit(); err != nil {
		return err
	}
	if !bytes.Equal(r.head.slots, blankSlots()) {
		return errOtherSlots
	}
	if !o.ReadBack {
		return r.skeleton(sums)
	}
	for _, f := range w.out.files {
		dropCache(f)
	}
	return r.Verify(ctx, o.Done)
}

func (w *Writer) reopen(o SealOptions) (_ *Reader, _ Source, err error) {
	src, err := openParts(w.plan.Path, w.out.paths(), w.plan.Volume > 0)
	if err != nil {
		return nil, nil, err
	}
	head, err := ReadHead(src)
	if err == nil && !bytes.Equal(head.Manifest, o.Manifest) {
		err = damageAt(src, 0, manifest.EntryManifest, "differs from what was written")
	}
	var r *Reader
	if err == nil {
		r, err = NewReader(src, head, o.Layout)
	}
	if err != nil {
		return nil, nil, errors.Join(err, src.Close())
	}
	return r, src, nil
}

// openParts opens the files that a bundle is made of, under whatever names.
func openParts(name string, paths []string, volumes bool) (Source, error) {
	if !volumes {
		return OpenFile(paths[0])
	}
	numbered := map[int]string{}
	for i, p := range paths {
		numbered[i+1] = p
	}
	return OpenVolumes(name, numbered)
}

// Source gives the bytes of a sealed file, which has no final name yet.
func (w *Writer) Source() io.ReaderAt { return w.out }

// Publish gives a sealed file, or its volumes, the final names, and removes the journal. The
// Writer is used up.
func (w *Writer) Publish() error {
	if err := w.out.publish(); err != nil {
		return errors.Join(fmt.Errorf("finishing %q: %w", w.plan.Path, err), w.Close())
	}
	// All is in place: what still goes wrong is no reason to call the bundle bad.
	_ = removeJournal(w.plan.Path)
	_ = w.out.close()
	return nil
}

// Paths are the final names of the files.
func (w *Writer) Paths() []string { return w.out.finals() }

// Close gives up the files and leaves them for a later run.
func (w *Writer) Close() error { return w.out.close() }

// Discard removes the files.
func (w *Writer) Discard() error {
	if w.out == nil {
		return nil
	}
	return errors.Join(removeJournal(w.plan.Path), w.out.remove(), w.out.close())
}
