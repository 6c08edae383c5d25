package oci_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/manifest"
)

// TestUploadStalls: a registry that takes nothing any more, or next to nothing, is left and asked
// again; the time that the source takes does not count.
func TestUploadStalls(t *testing.T) {
	read := func(r *http.Request, n int64, every time.Duration) error {
		for r.Context().Err() == nil {
			if _, err := io.CopyN(io.Discard, r.Body, n); err != nil {
				return err
			}
			time.Sleep(every)
		}
		return r.Context().Err()
	}
	for name, c := range map[string]struct {
		fault  fault
		source time.Duration // for each read
		stalls bool
		most   time.Duration
	}{
		"takes nothing": {func(m string, n int, r *http.Request) (int64, *http.Response, error) {
			if m != http.MethodPatch || n > 1 {
				return 0, nil, nil
			}
			_, _ = io.CopyN(io.Discard, r.Body, 1000)
			return 0, nil, hang(r)
		}, 0, true, 40 * time.Second},
		"takes little": {func(m string, n int, r *http.Request) (int64, *http.Response, error) {
			if m != http.MethodPatch || n > 1 {
				return 0, nil, nil
			}
			return 0, nil, read(r, 10, time.Second)
		}, 0, true, 40 * time.Second},
		"takes it slowly": {func(m string, n int, r *http.Request) (int64, *http.Response, error) {
			if m != http.MethodPatch || n > 1 {
				return 0, nil, nil
			}
			r.Body = io.NopCloser(&trickle{r.Context(), r.Body, 10000, time.Second})
			return 0, nil, nil
		}, 0, false, 10 * time.Minute},
		"slow source": {nil, time.Minute, false, 3 * time.Hour},
		"answers late": {func(m string, _ int, _ *http.Request) (int64, *http.Response, error) {
			if m == http.MethodPut {
				time.Sleep(50 * time.Second)
			}
			return 0, nil, nil
		}, 0, false, 3 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newTarget()
				s.fault = c.fault
				repo := s.open(t, oci.Options{})
				open := func(offset int64) (io.ReadCloser, error) {
					return io.NopCloser(&slow{bytes.NewReader(large[offset:]), c.source}), nil
				}
				begun := time.Now()
				if _, err := repo.PutBlob(t.Context(), describeBlob(large), "", open, func(int64) {}); err != nil {
					t.Fatal(err)
				}
				if n := s.count[http.MethodPatch]; (n == 1) == c.stalls {
					t.Errorf("%d requests: %v", n, s.log)
				}
				if took := time.Since(begun); took > c.most {
					t.Errorf("it took %v, want %v at most", took, c.most)
				}
			})
		})
	}
	t.Run("for good", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newTarget()
			s.fault = func(m string, _ int, r *http.Request) (int64, *http.Response, error) {
				if m != http.MethodPatch {
					return 0, nil, nil
				}
				return 0, nil, hang(r)
			}
			begun := time.Now()
			err := put(t.Context(), t, s.open(t, oci.Options{Budget: oci.Budget{Tries: 4}}), large)
			var stall *oci.StallError
			var gaveUp *oci.GaveUpError
			if !errors.As(err, &stall) || !errors.As(err, &gaveUp) || gaveUp.Tries != 4 || !strings.HasSuffix(err.Error(), ": no byte for 30s") {
				t.Errorf("%v, want *StallError", err)
			}
			if took := time.Since(begun); took > 3*time.Minute {
				t.Errorf("it took %v", took)
			}
		})
	})
}

// slow takes its time for each read.
type slow struct {
	r io.Reader
	d time.Duration
}

func (s *slow) Read(p []byte) (int, error) {
	time.Sleep(s.d)
	return s.r.Read(p)
}

// TestBlobStalls: the same for what is read; the time that the reader takes does not count.
func TestBlobStalls(t *testing.T) {
	blob := bytesOf(300000)
	for name, c := range map[string]struct {
		body     func(r *http.Request) io.Reader
		reader   time.Duration
		requests int
		most     time.Duration
	}{
		"gives nothing": {func(r *http.Request) io.Reader {
			return io.MultiReader(bytes.NewReader(blob[:100000]), hanging{r.Context()})
		}, 0, 2, 40 * time.Second},
		"gives little": {func(r *http.Request) io.Reader {
			return &trickle{r.Context(), bytes.NewReader(blob), 5, time.Second}
		}, 0, 2, 40 * time.Second},
		"gives it slowly": {func(r *http.Request) io.Reader {
			return &trickle{r.Context(), bytes.NewReader(blob), 1000, time.Second}
		}, 0, 1, 6 * time.Minute},
		"is read slowly": {func(*http.Request) io.Reader { return bytes.NewReader(blob) }, 10 * time.Minute, 1, 24 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &source{blob: blob}
				n := 0
				repo := repository(t.Context(), t, oci.Options{Transport: trip(func(r *http.Request) (*http.Response, error) {
					if r.URL.Path == "/v2/" {
						return status(200), nil
					}
					if n++; n == 1 {
						resp := status(200)
						resp.Body = io.NopCloser(c.body(r))
						return resp, nil
					}
					return s.respond(r), nil
				})})
				begun := time.Now()
				body := repo.Blob(t.Context(), manifest.Descriptor{Digest: d1, Size: int64(len(blob))}, 0)
				defer body.Close()
				var got []byte
				p := make([]byte, 32<<10)
				for {
					k, err := body.Read(p)
					got = append(got, p[:k]...)
					if errors.Is(err, io.EOF) {
						break
					}
					if err != nil {
						t.Fatal(err)
					}
					time.Sleep(c.reader)
				}
				if !bytes.Equal(got, blob) || n != c.requests {
					t.Errorf("%d bytes, %d requests, want %d", len(got), n, c.requests)
				}
				if took := time.Since(begun); took > c.most {
					t.Errorf("it took %v, want %v at most", took, c.most)
				}
			})
		})
	}
}

// hanging is a body of which nothing comes.
type hanging struct{ ctx context.Context } //nolint:containedctx // a body has nowhere else to get it from

func (h hanging) Read([]byte) (int, error) {
	<-h.ctx.Done()
	return 0, h.ctx.Err()
}

// trickle gives n bytes at a time.
type trickle struct {
	ctx context.Context //nolint:containedctx // as above
	r   io.Reader
	n   int
	d   time.Duration
}

func (s *trickle) Read(p []byte) (int, error) {
	select {
	case <-time.After(s.d):
	case <-s.ctx.Done():
		return 0, s.ctx.Err()
	}
	return s.r.Read(p[:min(len(p), s.n)])
}

// TestNoAnswer: a registry that takes requests and says nothing, for a while.
func TestNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		repo := repository(t.Context(), t, oci.Options{Transport: trip(func(r *http.Request) (*http.Response, error) {
			if r.URL.Path == "/v2/" {
				return status(200), nil
			}
			if n++; n < 3 {
				return nil, hang(r)
			}
			return answerManifest(someManifest), nil
		})})
		begun := time.Now()
		if _, err := repo.Manifest(t.Context(), "1"); err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took < 2*time.Minute || took > 2*time.Minute+2*time.Second {
			t.Errorf("it took %v", took)
		}
		// The end of the context is no stall.
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		n = 0
		var stall *oci.StallError
		if _, err := repo.Manifest(ctx, "1"); !errors.Is(err, context.DeadlineExceeded) || errors.As(err, &stall) {
			t.Errorf("%v", err)
		}
	})
}
