package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/sealift/sealift/manifest"
)

// progressed is how many bytes a connection must have brought, at least, for the ones that broke
// before it to be forgotten.
const progressed = 64 << 10

// signOfLife is how many bytes of a payload say that its host does well.
const signOfLife = 1 << 20

// What of a blob came once more, and was passed over, may be passedEach times the blob and
// passedSpare bytes in all: who knows no Range and breaks off early each time would have us read the
// square of it.
const (
	passedEach  = 4
	passedSpare = 16 << 20
)

// blobReader reads a blob over as many connections as it takes.
type blobReader struct {
	repo *Repository
	ctx  context.Context //nolint:containedctx // a reader has nowhere else to get it from
	d    manifest.Descriptor
	body io.ReadCloser
	at   int64
	// begun is where the connection began that is open, or was open last; told is up to where the host
	// has been said to do well.
	begun, told int64
	// passed is how much came once more.
	passed int64
	back   backoff
	err    error
}

// Blob returns the bytes of a blob from offset on. A connection that breaks is made again and
// goes on where the last one ended, by Range (RFC 9110, section 14) where the registry can;
// where it cannot, what was read already is passed over. So does one that stalls. The bytes are not proven. Errors of
// reading are *Error; the reader ends where ctx does.
func (r *Repository) Blob(ctx context.Context, d manifest.Descriptor, offset int64) io.ReadCloser {
	return &blobReader{repo: r, ctx: ctx, d: d, at: offset, told: offset, back: r.host.backoff()}
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
			if b.at-b.told >= signOfLife {
				b.told = b.at
				b.repo.host.health.well()
			}
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
	slot, err := b.repo.host.smalls.enter(b.ctx)
	if err != nil {
		return nil, err
	}
	body, err := b.open()
	slot.leave(err)
	return body, err
}

func (b *blobReader) open() (io.ReadCloser, error) {
	body, skip, err := b.repo.openBlob(b.ctx, b.d, b.at)
	if err != nil || skip == 0 {
		return body, err
	}
	if b.passed+skip > passedEach*b.d.Size+passedSpare {
		err := fmt.Errorf("the registry begins anew each time the connection breaks: %d bytes came in vain, for a blob of %d", b.passed, b.d.Size)
		return nil, errors.Join(permanentError{err}, body.Close())
	}
	n, err := io.CopyN(io.Discard, body, skip)
	b.passed += n
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, errors.Join(err, body.Close())
	}
	return body, nil
}

// broken closes a connection and waits for the next try, if there is to be one.
func (b *blobReader) broken(err error) {
	if b.body != nil {
		_ = b.body.Close() // it is of no use any more
		b.body = nil
		if b.at-b.begun >= progressed {
			b.back.progressed()
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

// openBlob asks for a blob from offset on. skip is how much of the body comes before that.
func (r *Repository) openBlob(ctx context.Context, d manifest.Descriptor, offset int64) (body io.ReadCloser, skip int64, err error) {
	resp, err := r.watched(ctx, r.host.budget.answerTo(d.Size-offset), func(ctx context.Context) (*http.Response, error) {
		return r.getBlob(ctx, d, offset)
	})
	if err != nil {
		return nil, 0, err
	}
	if resp.StatusCode != http.StatusPartialContent {
		skip = offset
	}
	return resp.Body, skip, nil
}

// watched asks for something of which neither the answer, for which is waited so long, nor the body
// that follows may stall. The body as a whole may take as long as it takes.
func (r *Repository) watched(ctx context.Context, wait time.Duration, ask func(context.Context) (*http.Response, error)) (*http.Response, error) {
	attempt, cancel := context.WithCancelCause(ctx)
	late := time.AfterFunc(wait, func() { cancel(&StallError{For: wait, Answer: true}) })
	resp, err := ask(attempt)
	late.Stop()
	if err != nil {
		err = causeOf(ctx, attempt, err)
		cancel(nil)
		return nil, err
	}
	resp.Body = &watchedBody{resp.Body, watchOver(r.host.budget.Stall, cancel), ctx, attempt, cancel}
	return resp, nil
}

// getBlob returns the answer to the question for a blob from offset on: all of it, or that part.
func (r *Repository) getBlob(ctx context.Context, d manifest.Descriptor, offset int64) (*http.Response, error) {
	header := http.Header{"Accept-Encoding": {"identity"}}
	if offset > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	resp, err := r.do(ctx, http.MethodGet, r.url("blobs/%s", d.Digest), header)
	if err != nil {
		return nil, err
	}
	if err := check(resp, http.StatusOK, http.StatusPartialContent); err != nil {
		return nil, errors.Join(err, resp.Body.Close())
	}
	if resp.StatusCode == http.StatusPartialContent {
		var from, to int64
		if n, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-%d/", &from, &to); n != 2 || err != nil || from != offset {
			err := fmt.Errorf("asked for the bytes from %d on and got %q", offset, resp.Header.Get("Content-Range"))
			return nil, errors.Join(permanentError{err}, resp.Body.Close())
		}
	}
	return resp, nil
}
