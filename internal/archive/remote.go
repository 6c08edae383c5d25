package archive

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"sync"

	"github.com/sealift/sealift/manifest"
)

// Parts are what a bundle file is made of, but for the content of its entries: the file follows
// from both. In a bundle that lies elsewhere nothing of it is proven.
type Parts struct {
	// Manifest is the content of sealift.json.
	Manifest []byte
	// Head is where the manifest puts the slots, 0 where it leaves that open.
	Head int64
	// Slots are both signature slots with what is around them, SlotsSize bytes, as they lie in the
	// file.
	Slots []byte
	// Checks is the content of the check table: 4 bytes for each listed frame.
	Checks []byte
	// Entries are those after the slots, in order.
	Entries []manifest.Entry
}

// Fetch gives the content of an entry from offset on. What it gives is not believed. It may be
// called by several goroutines at a time.
type Fetch func(ctx context.Context, e manifest.Entry, offset int64) io.ReadCloser

// Remote is a bundle that lies in no file of this machine, but in parts.
type Remote struct {
	Parts
	// FileName is what its file would be called; it only tells which signatures in other places
	// are for it.
	FileName string
	// Detached are the sigstore bundles beside it.
	Detached []Signature
	Fetch    Fetch
	// Context ends all reading through Open.
	Context context.Context //nolint:containedctx // a Source has nowhere else to get it from
}

// MaxChecks bounds the check table of a bundle in parts, which is kept in memory: that of a file
// of 16 TiB.
const MaxChecks = 64 << 20

// RemoteError says that a bundle lies in no file of this machine, which is wanted.
type RemoteError struct{ Name string }

// Error names the bundle.
func (e *RemoteError) Error() string {
	return fmt.Sprintf("bundle %q is in a registry, and this wants a file", e.Name)
}

// layout is where everything lies in the file that the parts make. Its errors wrap ErrLimit.
func (p *Parts) layout() (*Layout, error) {
	l, err := NewLayout(int64(len(p.Manifest)), p.Head, p.Entries)
	if err != nil {
		return nil, err
	}
	if int64(len(p.Slots)) != slotsSize {
		return nil, fmt.Errorf("signature slots of %d bytes, want %d: %w", len(p.Slots), slotsSize, ErrLimit)
	}
	if int64(len(p.Checks)) != 4*int64(l.frames) {
		return nil, fmt.Errorf("check table of %d bytes, want %d: %w", len(p.Checks), 4*int64(l.frames), ErrLimit)
	}
	return l, nil
}

// ChecksSize is the size of the check table's content, in bytes.
func (l *Layout) ChecksSize() int64 { return 4 * int64(l.frames) }

// Parts takes the file apart. Everything but the content of the entries is read and compared with
// what the manifest makes of it; of the check table only what does not depend on that content.
// Errors: *DamageError, *SizeError, *VolumesError, *ReadError.
func (r *Reader) Parts() (*Parts, error) {
	if err := r.Fit(); err != nil {
		return nil, err
	}
	l := r.layout
	table := make([]byte, l.checkSize())
	if err := readFull(r.src, table, l.checkOffset(), "check table"); err != nil {
		return nil, err
	}
	checks := table[skippableHeader:]
	sums := make([]uint32, l.frames)
	for i := range sums {
		sums[i] = binary.LittleEndian.Uint32(checks[4*i:])
	}
	if at, ok := l.sumsFit(r.head.Manifest, sums); !ok {
		return nil, damageAt(r.src, l.checkOffset()+skippableHeader+4*int64(at), "check table", errDiffers)
	}
	if err := r.skeleton(sums); err != nil {
		return nil, err
	}
	p := &Parts{Manifest: r.head.Manifest, Slots: slices.Clone(r.head.slots), Checks: checks, Entries: l.entries}
	if l.gap != -(entrySize(l.manifestSize)+skippableHeader)&(alignment-1) {
		p.Head = l.slots
	}
	return p, nil
}

// sumsFit compares those of the checksums that follow from the manifest; at is the first that is
// another one.
func (l *Layout) sumsFit(raw []byte, sums []uint32) (at int, ok bool) {
	var known []uint32
	frameManifest(raw, func(s uint32) { known = append(known, s) })
	known = append(known, 0, 0)
	for i, s := range known {
		if sums[i] != s {
			return i, false
		}
	}
	for i, e := range l.entries {
		if j := l.frameIndex[i]; sums[j] != checksum(tarHeader(e.Name, e.Size, typeRegular)) {
			return j, false
		}
	}
	last := l.frames - 1
	return last, sums[last] == checksum(make([]byte, 2*tarBlock))
}

// OpenSummed is Open that also compares the frames with the check table, so that what passes is
// as sound as a whole file that was verified.
func (r *Reader) OpenSummed(name string, checks []byte) (io.ReadCloser, error) {
	i, ok := r.index[name]
	if !ok {
		return nil, fmt.Errorf("opening entry %q: not in the manifest", name)
	}
	s := &summedReader{entryReader: &entryReader{entryScanner: r.scan(i)}, frame: -1}
	next := r.layout.frameIndex[i]
	s.sums = func(sum uint32) {
		if s.frame < 0 && binary.LittleEndian.Uint32(checks[4*next:]) != sum {
			s.frame = next
		}
		next++
	}
	return s, nil
}

// summedReader fails at its end where a frame was not as the check table says.
type summedReader struct {
	*entryReader
	// frame is the first one whose checksum is another, negative for none.
	frame int
}

func (s *summedReader) Read(p []byte) (int, error) {
	n, err := s.entryReader.Read(p)
	return n, s.judge(err)
}

// WriteTo spares io.Copy a buffer and a copy.
func (s *summedReader) WriteTo(w io.Writer) (int64, error) {
	n, err := s.entryReader.WriteTo(w)
	if err == nil && s.frame >= 0 {
		err = s.judge(io.EOF)
	}
	return n, err
}

func (s *summedReader) judge(err error) error {
	if errors.Is(err, io.EOF) && s.frame >= 0 {
		return damageAt(s.src, s.at, s.entry.Name, "the check table has another checksum for one of its frames")
	}
	return err
}

// Open returns a source over the file that the parts make: everything is computed but the content
// of the entries, which is fetched when it is read. Reading an entry from front to back fetches it
// once. The source may be used by several goroutines. What is wrong with the parts is a
// *DamageError, or wraps ErrLimit; errors of reading content are those of Fetch.
func (r *Remote) Open() (Source, error) {
	l, err := r.layout()
	if err != nil {
		return nil, err
	}
	s := &remoteSource{parts: &r.Parts, layout: l, fetch: func(e manifest.Entry, offset int64) io.ReadCloser {
		return r.Fetch(r.Context, e, offset)
	}}
	s.head = frameManifest(r.Manifest, func(uint32) {})
	s.head = append(s.head, skippable(magicGap, l.gap)...)
	s.tail = sync.OnceValue(func() []byte {
		t := appendFrame(nil, make([]byte, 2*tarBlock))
		t = append(t, skippable(magicCheck, l.checkSize()-skippableHeader)...)
		t = append(t, r.Checks...)
		return append(t, l.seekTable()...)
	})
	return s, nil
}

// maxIdle is how many bodies are kept open between two reads: as many as there may be readers that
// take turns.
const maxIdle = 32

// remoteSource computes a bundle file from its parts.
type remoteSource struct {
	parts  *Parts
	layout *Layout
	fetch  func(e manifest.Entry, offset int64) io.ReadCloser
	// head is what lies before the zeros of the gap, tail what follows the entries.
	head []byte
	tail func() []byte

	mu sync.Mutex
	// idle are the bodies that nobody reads just now, the one that was used last at the end.
	idle   []*remoteBody
	closed bool
}

// remoteBody is the content of an entry, read up to at.
type remoteBody struct {
	io.ReadCloser
	entry int
	at    int64
}

func (s *remoteSource) Fit(n int64) error {
	if s.layout.size != n {
		return &SizeError{s.layout.size, n}
	}
	return nil
}

func (s *remoteSource) Place(int64) *Place { return nil }

// Close closes the bodies that are open. One that is being read is closed when that is over.
func (s *remoteSource) Close() error {
	s.mu.Lock()
	idle := s.idle
	s.idle, s.closed = nil, true
	s.mu.Unlock()
	for _, b := range idle {
		_ = b.Close() // it was only read
	}
	return nil
}

// ReadAt implements io.ReaderAt.
func (s *remoteSource) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("reading byte %d of a bundle", off)
	}
	l, done := s.layout, 0
	for done < len(p) {
		at := off + int64(done)
		rest := p[done:]
		switch begin := int64(len(s.head)); {
		case at < begin:
			done += copy(rest, s.head[at:])
		case at < l.slots:
			n := min(int64(len(rest)), l.slots-at)
			clear(rest[:n])
			done += int(n)
		case at < l.slots+slotsSize:
			done += copy(rest, s.parts.Slots[at-l.slots:])
		case at < l.end:
			n, err := s.readEntry(rest, at)
			done += n
			if err != nil {
				return done, err
			}
		case at < l.size:
			done += copy(rest, s.tail()[at-l.end:])
		default:
			return done, io.EOF
		}
	}
	return done, nil
}

// readEntry reads what p has room for of the entry that the byte at off lies in.
func (s *remoteSource) readEntry(p []byte, off int64) (int, error) {
	l := s.layout
	i := sort.Search(len(l.offsets), func(i int) bool { return l.offsets[i] > off }) - 1
	e := l.entries[i]
	rel := off - l.offsets[i]
	if rel < frameSize(tarBlock) {
		return copy(p, appendFrame(nil, tarHeader(e.Name, e.Size, typeRegular))[rel:]), nil
	}
	w := &remoteRead{source: s, entry: i}
	n, err := w.read(p, rel-frameSize(tarBlock))
	w.end(err == nil)
	return n, err
}

// remoteRead is one read of the frames of an entry's content.
type remoteRead struct {
	source *remoteSource
	entry  int
	body   *remoteBody
}

// read reads what p has room for, from byte off of the frames on.
func (w *remoteRead) read(p []byte, off int64) (int, error) {
	e := w.source.layout.entries[w.entry]
	padded, full := e.Size+padding(e.Size), frameSize(FrameContent)
	done := 0
	for done < len(p) {
		frame := off / full
		content := min(FrameContent, padded-frame*FrameContent)
		if content <= 0 || off-frame*full >= frameSize(content) {
			break
		}
		n, err := w.readFrame(p[done:], frame, content, off-frame*full)
		done += n
		off += int64(n)
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// readFrame reads what p has room for of the frame with this number, which holds n bytes, from its
// byte off on.
func (w *remoteRead) readFrame(p []byte, frame, n, off int64) (int, error) {
	s := w.source
	done := 0
	// take copies of a piece of framing that begins at byte at of the frame what is wanted of it.
	take := func(piece []byte, at int64) {
		if from := off + int64(done) - at; done < len(p) && from < int64(len(piece)) {
			done += copy(p[done:], piece[from:])
		}
	}
	at := int64(frameHeader)
	take(binary.LittleEndian.AppendUint32(bytes.Clone(frameStart), uint32(n)), 0)
	for begin := int64(0); begin < n && done < len(p); begin += blockContent {
		c := min(n-begin, blockContent)
		var header [blockHeader]byte
		appendBlockHeader(header[:0], int(c), begin+c == n)
		take(header[:], at)
		at += blockHeader
		if skip := off + int64(done) - at; skip < c && done < len(p) {
			piece := p[done:min(int64(len(p)), int64(done)+c-skip)]
			m, err := w.content(piece, frame*FrameContent+begin+skip)
			done += m
			if err != nil {
				return done, err
			}
		}
		at += c
	}
	sum := s.layout.frameIndex[w.entry] + 1 + int(frame)
	take(s.parts.Checks[4*sum:4*sum+frameTrailer], at)
	return done, nil
}

// content reads content from byte at of the entry on, and the zeros after it.
func (w *remoteRead) content(p []byte, at int64) (int, error) {
	s := w.source
	e := s.layout.entries[w.entry]
	n := max(0, min(int64(len(p)), e.Size-at))
	if n > 0 {
		if w.body == nil {
			w.body = s.take(w.entry, at)
		}
		if w.body == nil {
			w.body = &remoteBody{s.fetch(e, at), w.entry, at}
		}
		m, err := io.ReadFull(w.body, p[:n])
		w.body.at += int64(m)
		if err != nil {
			// For who reads the file its end is elsewhere.
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return m, err
		}
	}
	clear(p[n:])
	return len(p), nil
}

// end gives back the body, which goes on where it is unless something was wrong with it.
func (w *remoteRead) end(good bool) {
	b := w.body
	switch {
	case b == nil:
	case !good || b.at == w.source.layout.entries[b.entry].Size:
		_ = b.Close() // it was only read
	default:
		w.source.put(b)
	}
}

// take takes the body that goes on with byte at of an entry, nil where there is none.
func (s *remoteSource) take(entry int, at int64) *remoteBody {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.idle, func(b *remoteBody) bool { return b.entry == entry && b.at == at })
	if i < 0 {
		return nil
	}
	b := s.idle[i]
	s.idle = slices.Delete(s.idle, i, i+1)
	return b
}

// put keeps a body for the next read, in place of the one that was not read for the longest time.
func (s *remoteSource) put(b *remoteBody) {
	s.mu.Lock()
	out := b
	if !s.closed {
		out = nil
		if len(s.idle) == maxIdle {
			out = s.idle[0]
			s.idle = slices.Delete(s.idle, 0, 1)
		}
		s.idle = append(s.idle, b)
	}
	s.mu.Unlock()
	if out != nil {
		_ = out.Close() // it was only read
	}
}

// SameSlots reports whether the signature slots of two files are the same, to the byte.
func (h *Head) SameSlots(o *Head) bool { return bytes.Equal(h.slots, o.slots) }
