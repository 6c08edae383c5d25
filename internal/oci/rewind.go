package oci

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
)

// ErrPassed is wrapped where a source cannot go back as far as an upload would have to.
var ErrPassed = errors.New("its bytes have passed and cannot be sent again")

// FromStart makes a source of PutBlob of one that can only be opened at its start: what lies before
// the offset is read and dropped.
func FromStart(open func() (io.ReadCloser, error)) func(offset int64) (io.ReadCloser, error) {
	return func(offset int64) (io.ReadCloser, error) {
		r, err := open()
		if err != nil || offset == 0 {
			return r, err
		}
		if n, err := io.CopyN(io.Discard, r, offset); err != nil {
			if errors.Is(err, io.EOF) {
				err = fmt.Errorf("it ended after %d bytes, before byte %d: %w", n, offset, io.ErrUnexpectedEOF)
			}
			return nil, errors.Join(err, r.Close())
		}
		return r, nil
	}
}

// FromBytes makes a source of PutBlob of bytes in memory.
func FromBytes(raw []byte) func(offset int64) (io.ReadCloser, error) {
	return func(offset int64) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(raw[min(offset, int64(len(raw))):])), nil
	}
}

// FromStream makes a source of PutBlob of a stream of size bytes, which can be read only once: the
// last bytes that were read of it, window at most, are kept in memory, and an upload can go on from
// any of them. ErrPassed is wrapped where it would have to go back further. One reader is in use at
// a time: opening another ends the one before. The stream is not closed.
func FromStream(stream io.Reader, size, window int64) func(offset int64) (io.ReadCloser, error) {
	t := &tail{stream: stream, most: max(0, min(size, window))}
	return t.open
}

// tail is the end of what was read of a stream.
type tail struct {
	stream io.Reader
	most   int64

	mu sync.Mutex
	// kept is a ring: byte n of the stream is at n % most. It is made when there is something to keep.
	kept []byte
	// at is how much was read of the stream.
	at     int64
	reader *tailReader
}

func (t *tail) open(offset int64) (io.ReadCloser, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if offset > t.at {
		return nil, fmt.Errorf("going on at byte %d of a stream of which %d were read: %w", offset, t.at, ErrPassed)
	}
	if back := t.at - offset; back > t.most {
		return nil, fmt.Errorf("going back by %d bytes, with %d kept in memory: %w", back, t.most, ErrPassed)
	}
	t.reader = &tailReader{t, offset}
	return t.reader, nil
}

type tailReader struct {
	t  *tail
	at int64
}

func (r *tailReader) Read(p []byte) (int, error) {
	t := r.t
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.reader != r {
		return 0, http.ErrBodyReadAfterClose
	}
	if r.at < t.at {
		from := r.at % t.most
		n := copy(p, t.kept[from:min(t.most, from+t.at-r.at)])
		r.at += int64(n)
		return n, nil
	}
	n, err := t.stream.Read(p)
	t.keep(p[:n])
	r.at = t.at
	return n, err
}

// keep puts what was read into the ring.
func (t *tail) keep(p []byte) {
	if t.kept == nil && len(p) > 0 {
		t.kept = make([]byte, t.most)
	}
	t.at += int64(len(p))
	if drop := int64(len(p)) - t.most; drop > 0 {
		p = p[drop:]
	}
	for len(p) > 0 {
		n := copy(t.kept[(t.at-int64(len(p)))%t.most:], p)
		p = p[n:]
	}
}

func (r *tailReader) Close() error {
	r.t.mu.Lock()
	defer r.t.mu.Unlock()
	if r.t.reader == r {
		r.t.reader = nil
	}
	return nil
}

// rewinding gives each request whose body can be had again a fresh one. The library's transport for
// tokens sends a request a second time, as it is, when the first was answered 401; its body has been
// read by then.
type rewinding struct{ inner http.RoundTripper }

func (t rewinding) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.GetBody == nil || r.Body == nil || r.Body == http.NoBody {
		return t.inner.RoundTrip(r)
	}
	_ = r.Body.Close() // whatever was read of it, the whole is sent
	body, err := r.GetBody()
	if err != nil {
		return nil, err
	}
	again := r.WithContext(r.Context())
	again.Body = body
	return t.inner.RoundTrip(again)
}
