package oci_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/manifest"
)

// source is a registry of one blob, without a network: in a bubble of synctest, in which the
// clock runs as fast as nobody has anything to do, waiting costs nothing.
type source struct {
	blob []byte
	// answer may answer request n (from 1) for the blob from offset from on, instead of it.
	answer func(n int, from int64) *http.Response

	mu     sync.Mutex
	ranges []string
	served int64
}

func (s *source) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	resp := s.respond(r)
	resp.Request = r
	if resp.Body == nil {
		resp.Body = http.NoBody
	}
	return resp, nil
}

func (s *source) respond(r *http.Request) *http.Response {
	if !strings.Contains(r.URL.Path, "/blobs/") {
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}}
	}
	s.mu.Lock()
	s.ranges = append(s.ranges, r.Header.Get("Range"))
	n := len(s.ranges)
	s.mu.Unlock()
	var from int64
	_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
	if s.answer != nil {
		if resp := s.answer(n, from); resp != nil {
			return resp
		}
	}
	return s.part(from, int64(len(s.blob)), nil)
}

// part is the answer that gives the bytes up to to and then breaks off with an error, or ends.
func (s *source) part(from, to int64, broken error) *http.Response {
	resp := &http.Response{StatusCode: http.StatusOK, Header: http.Header{}}
	if from > 0 {
		resp.StatusCode = http.StatusPartialContent
		resp.Header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(s.blob)-1, len(s.blob)))
	}
	resp.Body = s.body(from, to, broken)
	return resp
}

func (s *source) body(from, to int64, broken error) io.ReadCloser {
	return &body{s: s, r: bytes.NewReader(s.blob[from:max(from, to)]), err: broken}
}

func status(code int) *http.Response {
	return &http.Response{StatusCode: code, Status: strconv.Itoa(code), Header: http.Header{}}
}

// body counts what is read of it.
type body struct {
	s   *source
	r   *bytes.Reader
	err error
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.s.mu.Lock()
	b.s.served += int64(n)
	b.s.mu.Unlock()
	if errors.Is(err, io.EOF) && b.err != nil {
		err = b.err
	}
	return n, err
}

func (*body) Close() error { return nil }

// open opens the blob of s from offset on.
func (s *source) open(ctx context.Context, t *testing.T, size, offset int64) io.ReadCloser {
	t.Helper()
	c := oci.NewClient(oci.Options{Side: "test registry", Transport: s})
	repo, err := c.Repository(ctx, "127.0.0.1:5000", "a/b", false)
	if err != nil {
		t.Fatal(err)
	}
	r := repo.Blob(ctx, manifest.Descriptor{Digest: d1, Size: size}, offset)
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// bytesOf are n bytes of which none is like its neighbours.
func bytesOf(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return b
}

// TestBlobGoesOn: a connection that breaks is gone on with where it broke, so that nothing is
// fetched twice.
func TestBlobGoesOn(t *testing.T) {
	blob := bytesOf(500000)
	for name, c := range map[string]struct {
		offset int64
		cuts   []int64 // where connections break
		broken error
		ranges string
	}{
		"whole":            {0, nil, nil, "[]"},
		"one cut":          {0, []int64{100000}, io.ErrUnexpectedEOF, "[ bytes=100000-]"},
		"body ends early":  {0, []int64{100000}, nil, "[ bytes=100000-]"},
		"at the start":     {0, []int64{0, 0}, io.ErrUnexpectedEOF, "[  ]"},
		"after a byte":     {0, []int64{1, 2}, io.ErrUnexpectedEOF, "[ bytes=1- bytes=2-]"},
		"before the last":  {0, []int64{499999}, io.ErrUnexpectedEOF, "[ bytes=499999-]"},
		"after the last":   {0, []int64{500000}, io.ErrUnexpectedEOF, "[]"},
		"from an offset":   {300000, nil, nil, "[bytes=300000-]"},
		"from there, cut":  {300000, []int64{300001, 400000}, io.ErrUnexpectedEOF, "[bytes=300000- bytes=300001- bytes=400000-]"},
		"from its end":     {500000, nil, nil, "[]"},
		"many large parts": {0, []int64{70000, 140000, 210000, 280000, 350000, 420000, 490000}, io.ErrUnexpectedEOF, "[ bytes=70000- bytes=140000- bytes=210000- bytes=280000- bytes=350000- bytes=420000- bytes=490000-]"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &source{blob: blob}
				s.answer = func(n int, from int64) *http.Response {
					if n <= len(c.cuts) {
						return s.part(from, c.cuts[n-1], c.broken)
					}
					return nil
				}
				got, err := io.ReadAll(s.open(t.Context(), t, int64(len(blob)), c.offset))
				if err != nil || !bytes.Equal(got, blob[c.offset:]) {
					t.Fatalf("%d bytes, %v", len(got), err)
				}
				if want := int64(len(blob)) - c.offset; s.served != want {
					t.Errorf("%d bytes were fetched, want %d", s.served, want)
				}
				if got := fmt.Sprint(s.ranges); got != c.ranges {
					t.Errorf("asked for %s, want %s", got, c.ranges)
				}
			})
		})
	}
}

// TestBlobWithoutRange: where the registry gives all of it again, what was read is passed over.
func TestBlobWithoutRange(t *testing.T) {
	for _, offset := range []int64{0, 200000} {
		synctest.Test(t, func(t *testing.T) {
			s := &source{blob: bytesOf(500000)}
			s.answer = func(n int, _ int64) *http.Response {
				to := []int64{100000, 300000, 100, 500000}[n-1]
				return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: s.body(0, to, io.ErrUnexpectedEOF)}
			}
			got, err := io.ReadAll(s.open(t.Context(), t, 500000, offset))
			if err != nil || !bytes.Equal(got, s.blob[offset:]) || len(s.ranges) != 4 {
				t.Fatalf("%d bytes, %v, %d requests", len(got), err, len(s.ranges))
			}
		})
	}
}

// TestBlobComesBack: a registry that is overloaded for a while.
func TestBlobComesBack(t *testing.T) {
	for _, code := range []int{429, 500, 502, 503, 504, 408} {
		synctest.Test(t, func(t *testing.T) {
			s := &source{blob: bytesOf(500000)}
			s.answer = func(n int, from int64) *http.Response {
				switch n {
				case 3:
					return s.part(from, 200000, io.ErrUnexpectedEOF)
				case 7:
					return nil
				}
				return status(code)
			}
			begun := time.Now()
			got, err := io.ReadAll(s.open(t.Context(), t, 500000, 0))
			if err != nil || !bytes.Equal(got, s.blob) || s.served != 500000 {
				t.Fatalf("%d: %d bytes, %d were fetched, %v", code, len(got), s.served, err)
			}
			if waited := time.Since(begun); waited < time.Second || waited > 20*time.Second {
				t.Errorf("waited %v", waited)
			}
		})
	}
}

// TestBlobGivesUp: at once where trying again does not help, and in the end where it brings
// nothing.
func TestBlobGivesUp(t *testing.T) {
	blob := bytesOf(500000)
	type answer func(s *source, n int, from int64) *http.Response
	ranges := map[string]answer{}
	for _, header := range []string{"bytes 999-499999/500000", "bytes 1001-499999/500000", "bytes 0-499999/500000", "", "bytes -1000-499999/500000", "items 1000-499999/500000"} {
		ranges[header] = func(s *source, _ int, from int64) *http.Response {
			if from == 0 {
				return s.part(0, 1000, io.ErrUnexpectedEOF)
			}
			resp := s.part(from, int64(len(blob)), nil)
			resp.Header.Set("Content-Range", header)
			return resp
		}
	}
	var always [600]answer
	for code := range always {
		always[code] = func(*source, int, int64) *http.Response { return status(code) }
	}
	for name, c := range map[string]struct {
		answer   answer
		requests int
		got      int
	}{
		"not there":            {always[404], 1, 0},
		"not allowed":          {always[403], 1, 0},
		"no such range":        {always[416], 1, 0},
		"another range":        {ranges["bytes 999-499999/500000"], 2, 1000},
		"a later range":        {ranges["bytes 1001-499999/500000"], 2, 1000},
		"the first range":      {ranges["bytes 0-499999/500000"], 2, 1000},
		"no range":             {ranges[""], 2, 1000},
		"a negative range":     {ranges["bytes -1000-499999/500000"], 2, 1000},
		"a range in other":     {ranges["items 1000-499999/500000"], 2, 1000},
		"overloaded for good":  {always[503], 9, 0},
		"cut at the same byte": {func(s *source, _ int, from int64) *http.Response { return s.part(from, 1000, io.ErrUnexpectedEOF) }, 9, 1000},
		"without range, cut at the same byte": {func(s *source, _ int, _ int64) *http.Response {
			return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: s.body(0, 400000, io.ErrUnexpectedEOF)}
		}, 10, 400000},
		"a little each time": {func(s *source, _ int, from int64) *http.Response { return s.part(from, from+10, io.ErrUnexpectedEOF) }, 9, 90},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &source{blob: blob}
				s.answer = func(n int, from int64) *http.Response { return c.answer(s, n, from) }
				r := s.open(t.Context(), t, int64(len(blob)), 0)
				got, err := io.ReadAll(r)
				var e *oci.Error
				if !errors.As(err, &e) || e.Registry != "127.0.0.1:5000" || !bytes.Equal(got, blob[:c.got]) {
					t.Errorf("%d bytes, want %d; %v", len(got), c.got, err)
				}
				if n := len(s.ranges); n > c.requests || n < c.requests-1 {
					t.Errorf("%d requests, want %d", n, c.requests)
				}
				// The error stays.
				before := len(s.ranges)
				if n, again := r.Read(make([]byte, 1)); n != 0 || !errors.Is(again, err) || len(s.ranges) != before {
					t.Errorf("after the error: %d bytes, %v", n, again)
				}
			})
		})
	}
}

// TestBlobIsLonger: more than was announced is given to whoever proves it, not cut away.
func TestBlobIsLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{blob: bytesOf(1000)}
		if got, err := io.ReadAll(s.open(t.Context(), t, 900, 0)); err != nil || len(got) != 1000 {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if got, err := io.ReadAll(s.open(t.Context(), t, 0, 0)); err != nil || len(got) != 0 {
			t.Errorf("an empty one: %d bytes, %v", len(got), err)
		}
	})
}

// TestBlobEndsWithItsContext: while it is read, and while it waits.
func TestBlobEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{blob: bytesOf(1000)}
		s.answer = func(n int, from int64) *http.Response { return s.part(from, 10, io.ErrUnexpectedEOF) }
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		begun := time.Now()
		got, err := io.ReadAll(s.open(ctx, t, 1000, 0))
		var e *oci.Error
		if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &e) || len(got) != 10 {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if waited := time.Since(begun); waited > 50*time.Millisecond {
			t.Errorf("waited %v", waited)
		}
		if n := len(s.ranges); n != 1 {
			t.Errorf("%d requests", n)
		}
		ctx, cancel = context.WithCancel(t.Context())
		r := s.open(ctx, t, 1000, 0)
		cancel()
		if _, err := io.ReadAll(r); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestClosedBlobIsNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{blob: bytesOf(1000)}
		r := s.open(t.Context(), t, 1000, 0)
		if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if n, err := r.Read(make([]byte, 10)); n != 0 || err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%d bytes, %v", n, err)
		}
	})
}

// TestBlobOfARealRegistry, over a connection that breaks once: it knows ranges.
func TestBlobOfARealRegistry(t *testing.T) {
	ctx := context.Background()
	var faults atomic.Int32
	var ranges sync.Map
	var whole []byte
	host := server(t, func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/blobs/sha256") || r.Method != http.MethodGet {
			return false
		}
		ranges.Store(r.Header.Get("Range"), true)
		if faults.Add(-1) < 0 {
			return false
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(whole)))
		_, _ = w.Write(whole[:10000])
		// Without this the connection breaks before the answer begins, and the HTTP library
		// asks again by itself.
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	layer := push(t, host+"/a/b:1")
	repo, err := client(oci.Options{}).Repository(ctx, host, "a/b", false)
	if err != nil {
		t.Fatal(err)
	}
	whole, err = io.ReadAll(repo.Blob(ctx, layer, 0))
	if err != nil || manifest.Digest(whole) != layer.Digest {
		t.Fatalf("%d bytes, %v", len(whole), err)
	}
	if got, err := io.ReadAll(repo.Blob(ctx, layer, 40000)); err != nil || !bytes.Equal(got, whole[40000:]) {
		t.Fatalf("%d bytes from an offset, %v", len(got), err)
	}
	faults.Store(1)
	if got, err := io.ReadAll(repo.Blob(ctx, layer, 0)); err != nil || !bytes.Equal(got, whole) {
		t.Fatalf("%d bytes over a broken connection, %v", len(got), err)
	}
	for _, want := range []string{"", "bytes=40000-", "bytes=10000-"} {
		if _, ok := ranges.Load(want); !ok {
			t.Errorf("range %q was not asked for", want)
		}
	}
}
