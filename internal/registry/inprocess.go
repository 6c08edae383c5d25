package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
)

// inProcess answers requests by a handler of this process, as a client sees a server: bodies stream
// both ways, the answer may come before the body has been read, and whichever side ends first ends
// the other.
type inProcess struct{ handler http.Handler }

// RoundTrip implements http.RoundTripper.
func (t inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL == nil || r.URL.Host == "" {
		closeBody(r)
		return nil, errors.New("answering a request in this process: it names no host")
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	body := &sentBody{left: r.ContentLength}
	if r.Body == nil || r.Body == http.NoBody {
		body.left = 0
	} else {
		body.r = r.Body
		if r.ContentLength == 0 {
			body.left = -1 // as http.Client reads it
		}
	}
	pr, pw := io.Pipe()
	a := &localAnswer{header: http.Header{}, pipe: pw, left: -1, request: r, reader: pr, cancel: cancel, came: make(chan struct{})}
	// Whatever waits for the client, or for its body, lets go when the request ends.
	stop := context.AfterFunc(ctx, func() {
		err := context.Cause(ctx)
		pr.CloseWithError(err)
		pw.CloseWithError(err)
		body.end(err)
	})
	go func() {
		err := t.run(a, served(ctx, r, body))
		// The client may yet have to see the end of the answer.
		stop()
		a.finish(err)
		body.end(errOver)
		cancel(errOver)
	}()
	select {
	case <-a.came:
	case <-r.Context().Done():
	}
	if r.Context().Err() != nil {
		// A handler that was interrupted may have answered something.
		return nil, context.Cause(r.Context())
	}
	if err := body.failure(); err != nil {
		// The handler could not know better than that the client has broken off.
		cancel(err)
		return nil, err
	}
	if a.failed != nil {
		return nil, a.failed
	}
	return a.response, nil
}

// errOver is what is read of the body of a request after the answer has ended.
var errOver = errors.New("the request has been answered")

func closeBody(r *http.Request) {
	if r.Body != nil {
		_ = r.Body.Close()
	}
}

// run calls the handler; what it panics with is its error.
func (t inProcess) run(w http.ResponseWriter, r *http.Request) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("answering %s %s in this process: %v", r.Method, r.URL.Path, p)
		}
	}()
	t.handler.ServeHTTP(w, r)
	return nil
}

// served is the request as a server would have read it.
func served(ctx context.Context, r *http.Request, body *sentBody) *http.Request {
	in := r.Clone(ctx)
	in.URL = &url.URL{Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}
	in.RequestURI = r.URL.RequestURI()
	in.Proto, in.ProtoMajor, in.ProtoMinor = "HTTP/1.1", 1, 1
	in.RemoteAddr = "in-process"
	if in.Host == "" {
		in.Host = r.URL.Host
	}
	if r.URL.Scheme == "https" {
		in.TLS = &tls.ConnectionState{} // so that the addresses in answers are such
	}
	if in.Header == nil {
		in.Header = http.Header{}
	}
	in.Body, in.GetBody, in.ContentLength = body, nil, body.left
	switch {
	case body.r == nil:
		in.Body = http.NoBody
	case body.left >= 0:
		in.Header.Set("Content-Length", strconv.FormatInt(body.left, 10))
	}
	return in
}

// sentBody is the body of a request, as the handler reads it.
type sentBody struct {
	mu sync.Mutex
	r  io.ReadCloser
	// left is how much is still to come, -1 where that is not known.
	left   int64
	ended  error
	err    error
	closed bool
}

// Read reads no more than was announced, and finds it an error if it is less.
func (b *sentBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	r, left, ended := b.r, b.left, b.ended
	b.mu.Unlock()
	switch {
	case ended != nil:
		return 0, ended
	case r == nil, left == 0:
		return 0, io.EOF
	case left > 0 && int64(len(p)) > left:
		p = p[:left]
	}
	n, err := r.Read(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left > 0 {
		b.left -= int64(n)
		if b.left == 0 {
			// The rest, which nobody announced, is nobody's.
			err = io.EOF
		} else if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
	}
	if err != nil && err != io.EOF && b.ended == nil && b.err == nil {
		b.err = err
	}
	return n, err
}

// Close is the handler's; the client's body is closed when the request has ended.
func (b *sentBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended == nil {
		b.ended = http.ErrBodyReadAfterClose
	}
	return nil
}

// end closes the client's body, which must let go of a read that waits.
func (b *sentBody) end(err error) {
	b.mu.Lock()
	if b.ended == nil {
		b.ended = err
	}
	r, closed := b.r, b.closed
	b.closed = true
	b.mu.Unlock()
	if r != nil && !closed {
		_ = r.Close()
	}
}

// failure is what went wrong with the client's body.
func (b *sentBody) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

// localAnswer is what the handler writes.
type localAnswer struct {
	header  http.Header
	pipe    *io.PipeWriter
	reader  *io.PipeReader
	request *http.Request
	cancel  context.CancelCauseFunc

	// left is how much is still announced, -1 where nothing was.
	left     int64
	bodiless bool
	begun    bool
	// came is closed when response or failed is there.
	came     chan struct{}
	response *http.Response
	failed   error
}

// Header implements http.ResponseWriter.
func (a *localAnswer) Header() http.Header { return a.header }

// WriteHeader lets the client go on.
func (a *localAnswer) WriteHeader(status int) {
	if a.begun || status < http.StatusOK {
		return
	}
	a.begun = true
	a.bodiless = a.request.Method == http.MethodHead || status == http.StatusNoContent || status == http.StatusNotModified
	announced := int64(-1)
	if n, err := strconv.ParseInt(a.header.Get("Content-Length"), 10, 64); err == nil && n >= 0 {
		announced = n
	}
	if !a.bodiless {
		a.left = announced
	} else if a.request.Method != http.MethodHead {
		announced = 0
	}
	a.response = &http.Response{
		Status: fmt.Sprintf("%d %s", status, http.StatusText(status)), StatusCode: status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: a.header.Clone(), ContentLength: announced, Request: a.request,
		Body: &localBody{a.reader, a.cancel},
	}
	close(a.came)
}

// Write hands p to the client, and waits until it has been read.
func (a *localAnswer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	if a.bodiless {
		return len(p), nil
	}
	if a.left >= 0 && int64(len(p)) > a.left {
		n, err := a.pipe.Write(p[:a.left])
		a.left -= int64(n)
		if err == nil {
			err = http.ErrContentLength
		}
		return n, err
	}
	n, err := a.pipe.Write(p)
	if a.left >= 0 {
		a.left -= int64(n)
	}
	return n, err
}

// Flush does nothing: nothing is buffered.
func (a *localAnswer) Flush() { a.WriteHeader(http.StatusOK) }

// finish ends the answer after the handler has returned.
func (a *localAnswer) finish(err error) {
	if err != nil && !a.begun {
		a.begun, a.failed = true, err
		close(a.came)
	}
	a.WriteHeader(http.StatusOK)
	if err == nil && a.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	a.pipe.CloseWithError(err) // nil is the end
}

// localBody is the body of an answer, as the client reads it.
type localBody struct {
	*io.PipeReader
	cancel context.CancelCauseFunc
}

// errEnough is the cause where a client wants no more of an answer.
var errEnough = fmt.Errorf("the client wants no more: %w", context.Canceled)

// Close ends the request.
func (b *localBody) Close() error {
	b.cancel(errEnough)
	return b.PipeReader.Close()
}
