package archive

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/sealift/sealift/manifest"
)

// encodingWindow bounds what reading an encoded blob takes of memory, with many at a time.
const encodingWindow = 1 << 20

// newEncoder returns the one encoder of blobs. Its output depends on nothing but its input and
// the pinned version of the library.
func newEncoder(w io.Writer) (*zstd.Encoder, error) {
	return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(encodingWindow), zstd.WithEncoderCRC(true), zstd.WithLowerEncoderMem(true),
		zstd.WithZeroFrames(true))
}

// EncodedBound is the most that size bytes may take once they are encoded: what cannot be
// compressed is stored in blocks with a header each.
func EncodedBound(size int64) int64 { return size + size>>8 + 1<<10 }

// decoder gives the bytes of an encoded blob, and proves them: the last piece is given out only
// when the whole has the blob's size and digest.
//
// The decompressor sees bytes before their digest is known to be right. What it may take is
// bounded, and what it gives is not believed.
type decoder struct {
	blob    manifest.Blob
	encoded io.ReadCloser
	zstd    *zstd.Decoder
	hash    hash.Hash
	left    int64
	buf     []byte
	piece   []byte
	err     error
}

const decodedPiece = 64 << 10

// NewDecoder returns the bytes of the blob that encoded is the content of the entry of. Errors
// of reading are those of encoded, *ContentError, or those of the zstd library.
func NewDecoder(b manifest.Blob, encoded io.ReadCloser) (io.ReadCloser, error) {
	z, err := zstd.NewReader(encoded, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(encodingWindow))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("decoding blob %s: %w", b.Digest, err), encoded.Close())
	}
	return &decoder{blob: b, encoded: encoded, zstd: z, hash: sha256.New(), left: b.Size, buf: make([]byte, decodedPiece)}, nil
}

// next reads the next piece and, after the last one, proves the whole.
func (d *decoder) next() ([]byte, error) {
	if d.left > 0 {
		n, err := io.ReadFull(d.zstd, d.buf[:min(int64(len(d.buf)), d.left)])
		d.left -= int64(n)
		if err != nil {
			return nil, d.broken(err, d.blob.Size-d.left)
		}
		d.hash.Write(d.buf[:n])
		if d.left > 0 {
			return d.buf[:n], nil
		}
		return d.buf[:n], d.prove()
	}
	if d.blob.Size == 0 {
		if err := d.prove(); err != nil {
			return nil, err
		}
	}
	return nil, io.EOF
}

// prove checks that nothing follows, in the blob or in the entry, and the digest.
func (d *decoder) prove() error {
	var more [1]byte
	n, err := io.ReadFull(d.zstd, more[:])
	if n > 0 {
		return &ContentError{d.name(), fmt.Sprintf("more than %d bytes", d.blob.Size), fmt.Sprintf("%d bytes", d.blob.Size)}
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return &ContentError{d.name(), "an end in the middle of a zstd frame", fmt.Sprintf("%d bytes and no more", d.blob.Size)}
	}
	if !errors.Is(err, io.EOF) {
		return d.broken(err, d.blob.Size)
	}
	if got := "sha256:" + hex.EncodeToString(d.hash.Sum(nil)); got != d.blob.Digest {
		return &ContentError{d.name(), got, d.blob.Digest}
	}
	return nil
}

func (d *decoder) name() string { return manifest.BlobEntryName(d.blob) }

// broken tells a source that cannot be read from content that is no zstd, or too little of it.
func (d *decoder) broken(err error, at int64) error {
	var damage *DamageError
	if errors.As(err, &damage) {
		return err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &ContentError{d.name(), fmt.Sprintf("%d bytes", at), fmt.Sprintf("%d bytes", d.blob.Size)}
	}
	return fmt.Errorf("decoding %s: %w", d.name(), err)
}

func (d *decoder) Read(p []byte) (int, error) {
	for len(d.piece) == 0 {
		if d.err != nil {
			return 0, d.err
		}
		d.piece, d.err = d.next()
		if d.err != nil && !errors.Is(d.err, io.EOF) {
			d.piece = nil
		}
	}
	n := copy(p, d.piece)
	d.piece = d.piece[n:]
	return n, nil
}

func (d *decoder) Close() error {
	d.err, d.piece = errors.New("read of a closed blob"), nil
	d.zstd.Close()
	return d.encoded.Close()
}
