package archive

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"

	"github.com/sealift/sealift/manifest"
)

// blockBuffer holds the largest block with all that may stand around it: the header of a frame
// before it, the frame's checksum after it.
const blockBuffer = frameHeader + blockHeader + blockContent + frameTrailer

// blockBuffers are shared by all that is read at the same time, so that it takes no more memory
// than it needs.
var blockBuffers = sync.Pool{New: func() any { return new([blockBuffer]byte) }}

// Range returns n bytes of the entry called name, from offset on. It may be used at the same time
// as others, and holds at most 256 KiB until it is closed.
//
// Every frame that the bytes lie in is compared with its framing and its checksum. That finds what
// a medium has lost, but not what somebody has changed who made the checksums anew. Only of the
// whole entry can be said that it has its digest: where all of it is read, and proof is not nil,
// that is compared as well, and that nobody has written to the file since the proof was begun. Of what is compared the last piece (at most 128 KiB) is given out only
// after that: a reader that gets io.EOF has got what was checked. Errors of reading are
// *DamageError and *ReadError.
func (r *Reader) Range(name string, offset, n int64, proof *Proof) (io.ReadCloser, error) {
	i, ok := r.index[name]
	if !ok {
		return nil, fmt.Errorf("opening entry %q: not in the manifest", name)
	}
	e := r.layout.entries[i]
	if offset < 0 || n < 0 || offset > e.Size || n > e.Size-offset {
		return nil, fmt.Errorf("opening entry %q: bytes %d to %d of %d", name, offset, offset+n, e.Size)
	}
	if n != e.Size {
		proof = nil
	}
	return &rangeReader{blockScanner: &blockScanner{
		reader: r, src: r.src, entry: e, from: offset, to: offset + n, padded: e.Size + padding(e.Size),
		at: offset / FrameContent * FrameContent, file: r.layout.offsets[i], proof: proof,
	}}, nil
}

// Proof is the comparison of one entry with its digest, for all who read the entry while the file
// stays the same. Each block is hashed once, by whoever comes to it first, so that many who read the
// same do not hash it many times, and nobody waits for another.
type Proof struct {
	stamp Stamp
	mu    sync.Mutex
	sha   hash.Hash
	// at is how much has been hashed.
	at atomic.Int64
	// got is the digest, once all of it has.
	got     string
	spoiled atomic.Bool
}

// NewProof begins one while the file is in the state that stamp tells.
func NewProof(stamp Stamp) *Proof { return &Proof{stamp: stamp, sha: sha256.New()} }

// Holds reports whether the proof can be gone on with while the file is in the state that stamp tells:
// it was not changed, and nobody has met damage.
func (p *Proof) Holds(stamp Stamp) bool {
	return stamp != 0 && p.stamp == stamp && !p.spoiled.Load()
}

// add hashes what is at offset at of the entry unless somebody else has.
func (p *Proof) add(at int64, content []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.at.Load() == at && p.got == "" {
		p.sha.Write(content)
		p.at.Add(int64(len(content)))
	}
}

// sum is the digest of all that was added.
func (p *Proof) sum() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.got == "" {
		p.got, p.sha = hex.EncodeToString(p.sha.Sum(nil)), nil
	}
	return p.got
}

// Size is that of the entry called name, in bytes, if there is one.
func (r *Reader) Size(name string) (int64, bool) {
	i, ok := r.index[name]
	if !ok {
		return 0, false
	}
	return r.layout.entries[i].Size, true
}

// Stamp tells states of a file apart: another one means that it was written to. 0 tells nothing.
type Stamp uint64

// Stamp returns that of the file, or of all volumes together; 0 for what is no file.
func (r *Reader) Stamp() (Stamp, error) {
	var files []*os.File
	switch src := r.src.(type) {
	case *bytesSource:
		if f, ok := src.ReaderAt.(*os.File); ok {
			files = append(files, f)
		}
	case *volumeSource:
		for _, v := range src.files {
			if v.file != nil {
				files = append(files, v.file)
			}
		}
	}
	var b []byte
	for _, f := range files {
		info, err := f.Stat()
		if err != nil {
			return 0, fmt.Errorf("looking at a bundle: %w", err)
		}
		b = binary.LittleEndian.AppendUint64(b, uint64(info.Size()))
		b = binary.LittleEndian.AppendUint64(b, uint64(info.ModTime().UnixNano()))
	}
	if len(files) == 0 {
		return 0, nil
	}
	return Stamp(xxhash.Sum64(b) | 1), nil
}

// blockScanner walks over the blocks of one entry, from the beginning of the frame that the first
// wanted byte lies in to the end of the one that the last lies in.
type blockScanner struct {
	reader *Reader
	src    Source
	entry  manifest.Entry
	// from and to are what is wanted of the entry, at is where its next block begins.
	from, to, at int64
	padded       int64
	// file is the offset in the file of the entry.
	file  int64
	begun bool
	sum   xxhash.Digest
	// proof is nil where nothing is to be proven.
	proof *Proof
	// Of two buffers one is read into while the other is being hashed; or it is, at the end, what is
	// given out next. bufs[now] is what is given out.
	bufs [2]*[blockBuffer]byte
	// hashing tells, for each of them, when its content has been hashed; nil where that is not under way.
	hashing [2]chan struct{}
	now     int
}

// next returns the next wanted piece, or io.EOF. After an error nobody goes on with what has been
// hashed: what was read before it may have been wrong already.
func (s *blockScanner) next() ([]byte, error) {
	wanted, err := s.wanted()
	if err != nil && !errors.Is(err, io.EOF) && s.proof != nil {
		s.proof.spoiled.Store(true)
	}
	return wanted, err
}

func (s *blockScanner) wanted() ([]byte, error) {
	if err := s.begin(); err != nil {
		return nil, err
	}
	for s.at < s.to {
		start := s.at
		if s.hashing[s.now] != nil {
			s.now = 1 - s.now
		}
		content, err := s.block(s.now)
		if err != nil {
			return nil, err
		}
		end := min(s.at, s.entry.Size)
		if end <= s.from {
			continue
		}
		given := content[max(0, s.from-start) : min(end, s.to)-start]
		if end >= s.to {
			if err := s.settle(); err != nil {
				return nil, err
			}
		}
		return given, nil
	}
	return nil, io.EOF
}

// begin checks the header of the entry. An empty entry is proven here.
func (s *blockScanner) begin() error {
	if s.begun {
		return nil
	}
	header := tarHeader(s.entry.Name, s.entry.Size, typeRegular)
	if err := compareAt(s.src, appendFrame(nil, header), s.file, s.entry.Name); err != nil {
		return err
	}
	s.begun = true
	if s.entry.Size == 0 {
		return s.prove()
	}
	return nil
}

// settle reads on to the end of the frame, whose checksum tells whether it is whole, and leaves alone
// the buffer with the last piece.
func (s *blockScanner) settle() error {
	for s.at%FrameContent != 0 && s.at < s.padded {
		if _, err := s.block(1 - s.now); err != nil {
			return err
		}
	}
	return s.prove()
}

const (
	errSpoiled = "damage was met when it was read at the same time"
	errChanged = "the file was changed while it was read"
)

func (s *blockScanner) prove() error {
	s.hashed()
	if s.proof == nil {
		return nil
	}
	damage := func(what string) error { return damageAt(s.src, s.file, s.entry.Name, what) }
	if s.proof.spoiled.Load() {
		return damage(errSpoiled)
	}
	if got := s.proof.sum(); got != s.entry.SHA256 {
		return damage(fmt.Sprintf("content has digest sha256:%s, want sha256:%s", got, s.entry.SHA256))
	}
	// What others have hashed is what was read here only if nobody has written to it since.
	stamp, err := s.reader.Stamp()
	if err == nil && stamp != s.proof.stamp {
		err = damage(errChanged)
	}
	return err
}

// hashed waits until what has been read has been hashed.
func (s *blockScanner) hashed() {
	for i := range s.hashing {
		if s.hashing[i] != nil {
			<-s.hashing[i]
			s.hashing[i] = nil
		}
	}
}

// buffer returns one of the two, of which nothing is needed any more.
func (s *blockScanner) buffer(i int) *[blockBuffer]byte {
	if s.hashing[i] != nil {
		<-s.hashing[i]
		s.hashing[i] = nil
	}
	if s.bufs[i] == nil {
		s.bufs[i], _ = blockBuffers.Get().(*[blockBuffer]byte)
	}
	return s.bufs[i]
}

// block reads the next block into one of the buffers, steps over it, and returns its content with the
// padding, which is checked.
func (s *blockScanner) block(i int) ([]byte, error) {
	buf := s.buffer(i)
	frame := s.at / FrameContent * FrameContent
	size := min(FrameContent, s.padded-frame) // of the frame's content
	in := s.at - frame
	n := min(blockContent, size-in)
	last := in+n == size

	// What must stand before the content of this block.
	var front [frameHeader + blockHeader]byte
	want := front[:0]
	off := s.file + frameSize(tarBlock) + frame/FrameContent*frameSize(FrameContent)
	if in == 0 {
		want = binary.LittleEndian.AppendUint32(append(want, frameStart...), uint32(size))
		s.sum.Reset()
	} else {
		off += frameHeader + in + blockHeader*(in/blockContent)
	}
	want = appendBlockHeader(want, int(n), last)
	raw := buf[:int64(len(want))+n]
	if last {
		raw = buf[:len(raw)+frameTrailer]
	}
	if err := readFull(s.src, raw, off, s.entry.Name); err != nil {
		return nil, err
	}
	if !bytes.Equal(raw[:len(want)], want) {
		return nil, wrongByte(s.src, off, s.entry.Name, errFraming)
	}
	content := raw[len(want):][:n]
	inside := content[:min(n, s.entry.Size-s.at)]
	s.hash(i, inside)
	_, _ = s.sum.Write(content) // never fails
	if last && binary.LittleEndian.Uint32(raw[len(raw)-frameTrailer:]) != uint32(s.sum.Sum64()) {
		return nil, damageAt(s.src, off, s.entry.Name, errFraming)
	}
	if !allZero(content[len(inside):]) {
		return nil, damageAt(s.src, off, s.entry.Name, errPadding)
	}
	s.at += n
	return content, nil
}

// hash begins to hash what is in one of the buffers, beside the checksum and the sending.
func (s *blockScanner) hash(i int, content []byte) {
	at := s.at
	if s.proof == nil || s.proof.at.Load() > at {
		return
	}
	s.hashed() // one after the other
	done := make(chan struct{})
	s.hashing[i] = done
	go func() {
		defer close(done)
		s.proof.add(at, content)
	}()
}

// rangeReader turns a blockScanner into a reader.
type rangeReader struct {
	*blockScanner
	piece []byte
	err   error
}

func (r *rangeReader) Read(p []byte) (int, error) {
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
func (r *rangeReader) WriteTo(w io.Writer) (int64, error) {
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

var errClosed = errors.New("read of a closed entry")

// Close gives the buffers back.
func (r *rangeReader) Close() error {
	r.hashed()
	for i, b := range r.bufs {
		if b != nil {
			blockBuffers.Put(b)
			r.bufs[i] = nil
		}
	}
	r.piece, r.err = nil, errClosed
	return nil
}
