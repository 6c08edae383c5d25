package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/sealift/sealift/manifest"
)

// progressed is how many bytes a connection must have brought, at least, for the ones that broke
// before it to be forgotten.
const progressed = 64 << 10

// blobReader reads a blob over as many connections as it takes.
type blobReader struct {
	repo *Repository
	ctx  context.Context //nolint:containedctx // a reader has nowhere else to get it from
	d    manifest.Descriptor
	body io.ReadCloser
	at   int64
	// begun is where the connection began that is open, or was open last.
	begun int64
	back  backoff
	err   error
}

// Blob returns the bytes of a blob from offset on. A connection that breaks is made again and
// goes on where the last one ended, by Range (RFC 9110, section 14) where the registry can;
// where it cannot, what was read already is passed over. The bytes are not proven. Errors of
// reading are *Error; the reader ends where ctx does.
func (r *Repository) Blob(ctx context.Context, d manifest.Descriptor, offset int64) io.ReadCloser {
	return &blobReader{repo: r, ctx: ctx, d: d, at: offset, back: newBackoff()}
}

func (b *blobReader) Read(p []byte) (int, error) {
	for b.err == nil {
		if b.body == nil {
			if b.at == b.d.Size {
				return 0, io.EOF
			}
			body, err := b.connect()
			if err != nil {
				b.broken(err)
				continue
			}
			b.body, b.begun = body, b.at
		}
		n, err := b.body.Read(p)
		b.at += int64(n)
		switch {
		case n > 0:
			// What else there is to say, the next call says.
			return n, nil
		case errors.Is(err, io.EOF) && b.at >= b.d.Size:
			return 0, io.EOF
		case errors.Is(err, io.EOF):
			err = fmt.Errorf("the body ended after %d of %d bytes: %w", b.at, b.d.Size, io.ErrUnexpectedEOF)
		}
		if err != nil {
			b.broken(err)
		}
	}
	return 0, b.err
}

// connect asks for what is still missing, as one of the host's small requests until the answer
// begins.
func (b *blobReader) connect() (io.ReadCloser, error) {
	leave, err := b.repo.host.enter(b.ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	return b.repo.openBlob(b.ctx, b.d, b.at)
}

// broken closes a connection and waits for the next try, if there is to be one.
func (b *blobReader) broken(err error) {
	if b.body != nil {
		_ = b.body.Close() // it is of no use any more
		b.body = nil
		if b.at-b.begun >= progressed {
			b.back.done()
			b.back = newBackoff()
		}
	}
	if err = b.back.wait(b.ctx, err); err != nil {
		b.err = b.repo.fail("reading", "blob "+b.d.Digest, err)
	}
}

func (b *blobReader) Close() error {
	b.back.done()
	b.err = errors.New("read of a closed blob")
	if b.body == nil {
		return nil
	}
	body := b.body
	b.body = nil
	return body.Close()
}

// openBlob asks for a blob from offset on.
func (r *Repository) openBlob(ctx context.Context, d manifest.Descriptor, offset int64) (io.ReadCloser, error) {
	header := http.Header{"Accept-Encoding": {"identity"}}
	if offset > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	resp, err := r.do(ctx, http.MethodGet, r.url("blobs/%s", d.Digest), header)
	if err != nil {
		return nil, err
	}
	if err := transport.CheckError(resp, http.StatusOK, http.StatusPartialContent); err != nil {
		return nil, errors.Join(err, resp.Body.Close())
	}
	if resp.StatusCode == http.StatusPartialContent {
		var from, to int64
		if n, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-%d/", &from, &to); n != 2 || err != nil || from != offset {
			err := fmt.Errorf("asked for the bytes from %d on and got %q", offset, resp.Header.Get("Content-Range"))
			return nil, errors.Join(permanentError{err}, resp.Body.Close())
		}
		return resp.Body, nil
	}
	if _, err := io.CopyN(io.Discard, resp.Body, offset); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, errors.Join(err, resp.Body.Close())
	}
	return resp.Body, nil
}
