package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/manifest"
)

// Ranges gives any part of the blobs of a bundle, again and again, to those who hand them on to
// receivers that compare digests themselves, as registries' clients do.
//
// All of a blob is proven as Bundle.Blob proves it, but once only as long as the file stays as it was
// (its size and the time of its last change); who reads it again, or at the same time, gets it by the
// checksums of its frames. They find what a medium loses. Of a part of a blob only these are checked,
// since nothing less than all of it has a digest.
//
// It may be used by several goroutines, and holds no more of a blob than 256 KiB at a time (and
// of one that is encoded what decoding takes).
type Ranges struct {
	bundle *Bundle
	mu     sync.Mutex
	proofs map[string]*archive.Proof
	// skipping holds those who decode what nobody wants to have.
	skipping chan struct{}
}

// NewRanges returns the blobs of a bundle. It is an error for a stream: archive.ErrStream.
func NewRanges(b *Bundle) (*Ranges, error) {
	if b.stream != nil {
		return nil, &ContentError{b.path, archive.ErrStream}
	}
	return &Ranges{bundle: b, proofs: map[string]*archive.Proof{}, skipping: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)-1))}, nil
}

// Bundle is what the blobs are of.
func (r *Ranges) Bundle() *Bundle { return r.bundle }

// Stat says what is known about a blob, without reading it.
func (r *Ranges) Stat(digest string) (manifest.Blob, bool) {
	blob, ok := r.bundle.blobs[digest]
	return blob, ok
}

// Range returns n bytes of a blob from offset on. The last piece is given out only after all has
// been checked, or proven, as the type says. What is encoded is decoded from its beginning, so that
// a part of it takes as long as all that stands before it, or until ctx ends. Reading errors are *ContentError.
func (r *Ranges) Range(ctx context.Context, digest string, offset, n int64) (io.ReadCloser, error) {
	blob, ok := r.Stat(digest)
	if !ok {
		return nil, fmt.Errorf("reading blob %q: not in the bundle", digest)
	}
	if offset < 0 || n < 0 || offset > blob.Size || n > blob.Size-offset {
		return nil, fmt.Errorf("reading blob %q: bytes %d to %d of %d", digest, offset, offset+n, blob.Size)
	}
	if blob.Encoding != manifest.EncodingStored {
		return r.decoded(ctx, blob, offset, n)
	}
	proof, err := r.proof(digest)
	if err != nil {
		return nil, err
	}
	content, err := r.bundle.reader.Range(manifest.BlobEntryName(blob), offset, n, proof)
	if err != nil {
		return nil, err
	}
	return &rangeReader{content, r.bundle.path}, nil
}

// proof is the one that is being made, or was made, since the file was last changed.
func (r *Ranges) proof(digest string) (*archive.Proof, error) {
	stamp, err := r.bundle.reader.Stamp()
	if err != nil {
		return nil, &ContentError{r.bundle.path, err}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.proofs[digest]
	if p == nil || !p.Holds(stamp) {
		p = archive.NewProof(stamp)
		r.proofs[digest] = p
	}
	return p, nil
}

// decoded is Range of an encoded blob. Decoding proves all that it reads to the end of.
func (r *Ranges) decoded(ctx context.Context, blob manifest.Blob, offset, n int64) (io.ReadCloser, error) {
	name := manifest.BlobEntryName(blob)
	stored, ok := r.bundle.reader.Size(name)
	if !ok {
		return nil, fmt.Errorf("reading blob %q: not in the bundle", blob.Digest)
	}
	// What the entry holds is proven by what comes out of it.
	content, err := r.bundle.reader.Range(name, 0, stored, nil)
	if err != nil {
		return nil, err
	}
	read, err := r.bundle.decoded(blob, content)
	if err != nil {
		return nil, err
	}
	if err := r.skip(ctx, read, offset); err != nil {
		return nil, errors.Join(err, read.Close())
	}
	if offset+n == blob.Size {
		return read, nil
	}
	return &partReader{io.LimitReader(read, n), read}, nil
}

// skipPiece is how much is passed over before somebody looks whether it is still wanted, in bytes.
const skipPiece = 4 << 20

// skip passes over n bytes of what is decoded. That takes time for each of them: so many at a time do
// it as leave a processor for others, and it ends with ctx.
func (r *Ranges) skip(ctx context.Context, from io.Reader, n int64) error {
	if n == 0 {
		return nil
	}
	select {
	case r.skipping <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-r.skipping }()
	for n > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		done, err := io.CopyN(io.Discard, from, min(n, skipPiece))
		if n -= done; err != nil {
			return err
		}
	}
	return nil
}

// partReader is a part of what it closes.
type partReader struct {
	io.Reader
	io.Closer
}

// rangeReader names the bundle in the errors of reading.
type rangeReader struct {
	io.ReadCloser
	path string
}

func (r *rangeReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = &ContentError{r.path, err}
	}
	return n, err
}

// WriteTo spares io.Copy a buffer and a copy. Errors of w come back as they are.
func (r *rangeReader) WriteTo(w io.Writer) (int64, error) {
	out := &errorWriter{w: w}
	n, err := io.Copy(out, r.ReadCloser)
	if err != nil && out.err == nil {
		err = &ContentError{r.path, err}
	}
	return n, err
}

// errorWriter keeps the error of writing apart from those of reading.
type errorWriter struct {
	w   io.Writer
	err error
}

func (w *errorWriter) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	w.err = err
	return n, err
}
