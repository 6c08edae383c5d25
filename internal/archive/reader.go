package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/sealift/sealift/manifest"
)

// Head is what lies before the payload, read once into memory. Nothing in it is proven.
type Head struct {
	// Manifest is the content of sealift.json, the bytes that are signed.
	Manifest []byte
	// Signatures are those of the active slot.
	Signatures []Signature
	gap        int64
	slots      []byte
}

// ReadHead reads the manifest's bytes and the signature slots of a file of size bytes. It
// believes nothing but their framing. Errors: ErrNotBundle, *DamageError, or what reading gave.
func ReadHead(src io.ReaderAt, size int64) (*Head, error) {
	first := frameSize(tarBlock)
	if size < first {
		return nil, ErrNotBundle
	}
	buf := make([]byte, first)
	if err := readFull(src, buf, 0, manifest.EntryManifest); err != nil {
		return nil, err
	}
	header, _, bad := openFrame(buf, tarBlock)
	if bad >= 0 {
		return nil, ErrNotBundle
	}
	name, n, kind, ok := parseTarHeader(header)
	if !ok || name != manifest.EntryManifest || kind != typeRegular {
		return nil, ErrNotBundle
	}
	if n == 0 || n > manifest.MaxManifestBytes {
		return nil, fmt.Errorf("manifest of %d bytes, 1 to %d are allowed: %w", n, int64(manifest.MaxManifestBytes), ErrLimit)
	}
	h := &Head{Manifest: make([]byte, 0, min(n, FrameContent))}
	at, rest := first, n+padding(n)
	for rest > 0 {
		c := min(rest, FrameContent)
		frame := make([]byte, frameSize(c))
		if err := readFull(src, frame, at, manifest.EntryManifest); err != nil {
			return nil, err
		}
		content, _, bad := openFrame(frame, int(c))
		if bad >= 0 {
			return nil, &DamageError{at + int64(bad), manifest.EntryManifest, "frame"}
		}
		h.Manifest = append(h.Manifest, content...)
		at += frameSize(c)
		rest -= c
	}
	if !allZero(h.Manifest[n:]) {
		return nil, &DamageError{at, manifest.EntryManifest, "padding is not zero"}
	}
	h.Manifest = h.Manifest[:n:n]
	if err := h.readGap(src, at); err != nil {
		return nil, err
	}
	if err := h.readSlots(src, at+skippableHeader+h.gap); err != nil {
		return nil, err
	}
	return h, nil
}

func (h *Head) readGap(src io.ReaderAt, at int64) error {
	var b [skippableHeader]byte
	if err := readFull(src, b[:], at, "gap"); err != nil {
		return err
	}
	h.gap = int64(binary.LittleEndian.Uint32(b[4:]))
	if binary.LittleEndian.Uint32(b[:]) != magicGap || h.gap > manifest.MaxHead {
		return &DamageError{at, "gap", "header"}
	}
	zeros := make([]byte, h.gap)
	if err := readFull(src, zeros, at+skippableHeader, "gap"); err != nil {
		return err
	}
	if !allZero(zeros) {
		return &DamageError{at, "gap", "is not zero"}
	}
	return nil
}

func (h *Head) readSlots(src io.ReaderAt, at int64) error {
	h.slots = make([]byte, slotsSize)
	if err := readFull(src, h.slots, at, "signature slots"); err != nil {
		return err
	}
	active, err := activeSlot(h.slots)
	if err != nil {
		return &DamageError{at, "signature slots", err.Error()}
	}
	content, err := slotAt(h.slots, active)
	if err != nil {
		return &DamageError{at, "signature slots", err.Error()}
	}
	h.Signatures, err = decodeSlot(content)
	if err != nil {
		return &DamageError{at, "signature slots", err.Error()}
	}
	return nil
}

// activeSlot returns 0 for slot A, 1 for slot B.
func activeSlot(s []byte) (int, error) {
	second := skippableHeader + int(frameSize(slotContent))
	if !bytes.Equal(s[second:second+skippableHeader], skippable(magicSlot2, frameSize(slotContent))) {
		return 0, errors.New("second header")
	}
	switch {
	case bytes.Equal(s[:skippableHeader], skippable(magicSlot1, 0)):
		return 0, nil
	case bytes.Equal(s[:skippableHeader], skippable(magicSlot1, s1B)):
		return 1, nil
	}
	return 0, errors.New("first header")
}

// slotAt returns the content of slot 0 or 1, without changing s.
func slotAt(s []byte, i int) ([]byte, error) {
	start := skippableHeader + i*int(skippableHeader+frameSize(slotContent))
	frame := s[start : start+int(frameSize(slotContent))]
	// A slot is one block, so its content lies in one piece and nothing has to be moved.
	content := frame[frameHeader+blockHeader : len(frame)-frameTrailer]
	begin := binary.LittleEndian.AppendUint32(bytes.Clone(frameStart), slotContent)
	begin = appendBlockHeader(begin, slotContent, true)
	if !bytes.HasPrefix(frame, begin) || binary.LittleEndian.Uint32(frame[len(frame)-frameTrailer:]) != checksum(content) {
		return nil, fmt.Errorf("frame of slot %c", 'A'+i)
	}
	return content, nil
}

// Reader gives the entries of a file whose manifest has been proven.
type Reader struct {
	src    io.ReaderAt
	head   *Head
	layout *Layout
	index  map[string]int
}

// NewReader returns a Reader over the file of size bytes that begins with head. The caller has
// proven head.Manifest and computed layout from it. Errors: *SizeError, *DamageError.
func NewReader(src io.ReaderAt, size int64, head *Head, layout *Layout) (*Reader, error) {
	if int64(len(head.Manifest)) != layout.manifestSize {
		return nil, &DamageError{0, manifest.EntryManifest, "layout of another manifest"}
	}
	if head.gap != layout.gap {
		return nil, &DamageError{entrySize(layout.manifestSize), "gap", fmt.Sprintf("%d bytes, the manifest makes it %d", head.gap, layout.gap)}
	}
	if size != layout.size {
		return nil, &SizeError{size, layout.size}
	}
	r := &Reader{src: src, head: head, layout: layout, index: make(map[string]int, len(layout.entries))}
	for i, e := range layout.entries {
		r.index[e.Name] = i
	}
	return r, nil
}

// Open returns the bytes of the entry called name. They are compared with their framing while
// they are read, and the last piece (at most 1 MiB) is given out only when the whole has the
// digest that the manifest names: a reader that gets io.EOF has got proven bytes. It may be
// used at the same time as others.
func (r *Reader) Open(name string) (io.ReadCloser, error) {
	i, ok := r.index[name]
	if !ok {
		return nil, fmt.Errorf("opening entry %q: not in the manifest", name)
	}
	return &entryReader{entryScanner: r.scan(i)}, nil
}

// entryScanner walks over the frames of one entry.
type entryScanner struct {
	src   io.ReaderAt
	entry manifest.Entry
	at    int64 // file offset of the next frame
	rest  int64 // padded bytes to come
	left  int64 // bytes of content to come
	hash  hash.Hash
	begun bool
	buf   []byte
	sums  func(uint32)
}

func (r *Reader) scan(i int) *entryScanner {
	e := r.layout.entries[i]
	return &entryScanner{
		src: r.src, entry: e, at: r.layout.offsets[i],
		rest: e.Size + padding(e.Size), left: e.Size, hash: sha256.New(), sums: func(uint32) {},
	}
}

// next returns the content of the next frame without padding, or io.EOF. The last one is
// returned only if the digest is right.
func (s *entryScanner) next() ([]byte, error) {
	if !s.begun {
		s.begun = true
		content, err := s.frame(tarBlock)
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(content, tarHeader(s.entry.Name, s.entry.Size, typeRegular)) {
			return nil, &DamageError{s.at - frameSize(tarBlock), s.entry.Name, "tar header"}
		}
		if s.left == 0 {
			if err := s.prove(); err != nil {
				return nil, err
			}
		}
	}
	if s.rest == 0 {
		return nil, io.EOF
	}
	start := s.at
	content, err := s.frame(min(s.rest, FrameContent))
	if err != nil {
		return nil, err
	}
	s.rest -= int64(len(content))
	n := min(s.left, int64(len(content)))
	if !allZero(content[n:]) {
		return nil, &DamageError{start, s.entry.Name, "padding is not zero"}
	}
	content = content[:n]
	s.left -= n
	s.hash.Write(content)
	if s.left == 0 {
		if err := s.prove(); err != nil {
			return nil, err
		}
	}
	return content, nil
}

func (s *entryScanner) prove() error {
	if got := hex.EncodeToString(s.hash.Sum(nil)); got != s.entry.SHA256 {
		return &DamageError{s.at, s.entry.Name, fmt.Sprintf("content has digest sha256:%s, want sha256:%s", got, s.entry.SHA256)}
	}
	return nil
}

func (s *entryScanner) frame(n int64) ([]byte, error) {
	size := frameSize(n)
	if int64(cap(s.buf)) < size {
		s.buf = make([]byte, size)
	}
	buf := s.buf[:size]
	if err := readFull(s.src, buf, s.at, s.entry.Name); err != nil {
		return nil, err
	}
	content, sum, bad := openFrame(buf, int(n))
	if bad >= 0 {
		return nil, &DamageError{s.at + int64(bad), s.entry.Name, "frame"}
	}
	s.at += size
	s.sums(sum)
	return content, nil
}

// entryReader turns an entryScanner into a reader.
type entryReader struct {
	*entryScanner
	piece []byte
	err   error
}

func (r *entryReader) Read(p []byte) (int, error) {
	for len(r.piece) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		r.piece, r.err = r.next()
	}
	n := copy(p, r.piece)
	r.piece = r.piece[n:]
	return n, nil
}

// WriteTo spares io.Copy a buffer and a copy.
func (r *entryReader) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for {
		if len(r.piece) > 0 {
			n, err := w.Write(r.piece)
			total += int64(n)
			r.piece = r.piece[n:]
			if err != nil {
				return total, err
			}
			continue
		}
		if r.err == nil {
			r.piece, r.err = r.next()
		}
		if len(r.piece) == 0 && r.err != nil {
			if errors.Is(r.err, io.EOF) {
				return total, nil
			}
			return total, r.err
		}
	}
}

func (r *entryReader) Close() error {
	r.err, r.piece = errors.New("read of a closed entry"), nil
	return nil
}

// Verify reads the whole file once, in order, and compares every byte with what the manifest
// makes of it; done is called with the number of bytes passed. It returns the first
// difference as *DamageError or *SizeError.
func (r *Reader) Verify(ctx context.Context, done func(int64)) error {
	sums := make([]uint32, 0, r.layout.frames)
	collect := func(s uint32) { sums = append(sums, s) }
	if err := r.verifyHead(collect); err != nil {
		return err
	}
	sums = append(sums, 0, 0)
	done(r.layout.slots + slotsSize)
	var buf []byte
	for i := range r.layout.entries {
		s := r.scan(i)
		s.sums, s.buf = collect, buf
		for {
			if err := ctx.Err(); err != nil {
				return err
			}
			before := s.at
			_, err := s.next()
			done(s.at - before)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
		}
		buf = s.buf
	}
	return r.verifyTail(sums, done)
}

func (r *Reader) verifyHead(sum func(uint32)) error {
	want := appendEntry(nil, manifest.EntryManifest, r.head.Manifest, sum)
	want = append(want, skippable(magicGap, r.layout.gap)...)
	want = append(want, make([]byte, r.layout.gap)...)
	want = append(want, r.head.slots...)
	if err := r.compare(want, 0, "head"); err != nil {
		return err
	}
	// The active slot was decoded when the head was read.
	active, err := activeSlot(r.head.slots)
	if err == nil {
		var content []byte
		if content, err = slotAt(r.head.slots, 1-active); err == nil {
			_, err = decodeSlot(content)
		}
	}
	if err != nil {
		return &DamageError{r.layout.slots, "signature slots", err.Error()}
	}
	return nil
}

func (r *Reader) verifyTail(sums []uint32, done func(int64)) error {
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
	if n, _ := r.src.ReadAt(one[:], r.layout.size); n != 0 {
		return &SizeError{r.layout.size + 1, r.layout.size}
	}
	done(r.layout.size - r.layout.end)
	return nil
}

func (r *Reader) compare(want []byte, at int64, part string) error {
	got := make([]byte, len(want))
	if err := readFull(r.src, got, at, part); err != nil {
		return err
	}
	if bytes.Equal(got, want) {
		return nil
	}
	for i := range got {
		if got[i] != want[i] {
			return &DamageError{at + int64(i), part, "differs from what the manifest makes it"}
		}
	}
	return nil
}

// readFull reads exactly len(p) bytes at off; a file that ends earlier is damaged.
func readFull(src io.ReaderAt, p []byte, off int64, part string) error {
	n, err := src.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if errors.Is(err, io.EOF) || err == nil {
		return &DamageError{off + int64(n), part, "the file ends here"}
	}
	return fmt.Errorf("reading %s at byte %d: %w", part, off, err)
}

var zeros [tarBlock]byte

func allZero(b []byte) bool {
	for len(b) > len(zeros) {
		if !bytes.Equal(b[:len(zeros)], zeros[:]) {
			return false
		}
		b = b[len(zeros):]
	}
	return bytes.Equal(b, zeros[:len(b)])
}
