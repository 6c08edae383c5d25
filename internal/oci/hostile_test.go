package oci_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/manifest"
)

// TestUploadThatIsNeverTaken: a registry that says each time that it has got one byte more is not sent
// the blob without end.
func TestUploadThatIsNeverTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTarget()
		taken, out := int64(mib), int64(0)
		s.fault = func(method string, _ int, r *http.Request) (int64, *http.Response, error) {
			if method != http.MethodPatch && method != http.MethodPut {
				return 0, nil, nil
			}
			n, _ := io.Copy(io.Discard, r.Body)
			out += n
			if method == http.MethodPut {
				return 0, status(http.StatusBadRequest), nil
			}
			resp := status(http.StatusAccepted)
			taken++
			resp.Header.Set("Range", fmt.Sprintf("0-%d", taken))
			return 0, resp, nil
		}
		err := put(t.Context(), t, s.open(t, oci.Options{}), large)
		if err == nil || out > 8*int64(len(large)) {
			t.Errorf("%v after %d bytes were sent", err, out)
		}
	})
}

// TestUploadTakenInPart: the first time that a registry takes less than it was sent, that is believed.
func TestUploadTakenInPart(t *testing.T) {
	for times := 1; times <= 2; times++ {
		synctest.Test(t, func(t *testing.T) {
			s := newTarget()
			s.fault = func(method string, n int, r *http.Request) (int64, *http.Response, error) {
				if method != http.MethodPatch || n > times {
					return 0, nil, nil
				}
				body, _ := io.ReadAll(r.Body)
				s.keep(r, body[:mib])
				resp := status(http.StatusAccepted)
				resp.Header.Set("Range", fmt.Sprintf("0-%d", n*mib-1))
				resp.Header.Set("Location", fmt.Sprintf("%s?state=%d", r.URL.Path, n*mib))
				return 0, resp, nil
			}
			if err := put(t.Context(), t, s.open(t, oci.Options{}), large); err != nil {
				t.Errorf("%d times: %v", times, err)
			}
			if posts := s.count[http.MethodPost]; posts != times {
				t.Errorf("%d times: %d uploads were begun", times, posts)
			}
		})
	}
}

// TestBlobFromItsBeginning: a registry that knows no Range and breaks off a little later each time is
// not read for the square of the blob.
func TestBlobFromItsBeginning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{blob: bytesOf(30 * mib)}
		s.answer = func(n int, _ int64) *http.Response {
			to := min(n*70_000, len(s.blob))
			return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: s.body(0, int64(to), io.ErrUnexpectedEOF)}
		}
		_, err := io.Copy(io.Discard, s.open(t.Context(), t, int64(len(s.blob)), 0))
		var registry *oci.Error
		if most := int64(5*len(s.blob) + 16*mib); !errors.As(err, &registry) || s.served > most {
			t.Errorf("%v after %d bytes", err, s.served)
		}
	})
}

// errNotNamed is a dialer's own.
var errNotNamed = errors.New("a host that was not named")

// TestRefusedByTheDialer: that the dialer lets nothing through to a host is not told as its absence, and
// not waited out.
func TestRefusedByTheDialer(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		away int64
	}{
		"dialer":  {&net.OpError{Op: "dial", Net: "tcp", Err: errNotNamed}, 0},
		"network": {errRefused, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			var away atomic.Int64
			n := 0
			repo := repository(t.Context(), t, oci.Options{
				Away: func(string, error) { away.Add(1) },
				Transport: trip(func(r *http.Request) (*http.Response, error) {
					if r.URL.Path == "/v2/" {
						return status(200), nil
					}
					n++
					return nil, c.err
				}),
			})
			_, err := repo.Manifest(t.Context(), "1")
			if err == nil || away.Load() != c.away || c.away == 0 && n > 1 {
				t.Errorf("%s: %v, told %d times, %d tries", name, err, away.Load(), n)
			}
		})
	}
}

// TestSlowLink: what comes slowly, and comes, may take longer than an answer.
func TestSlowLink(t *testing.T) {
	for what, read := range map[string]func(context.Context, *oci.Repository, string) ([]byte, error){
		"blob": func(ctx context.Context, r *oci.Repository, text string) ([]byte, error) {
			return r.ReadBlob(ctx, manifest.Descriptor{Digest: manifest.Digest([]byte(text)), Size: int64(len(text))}, int64(len(text)))
		},
		"manifest": func(ctx context.Context, r *oci.Repository, _ string) ([]byte, error) {
			c, err := r.Manifest(ctx, "1")
			if err != nil {
				return nil, err
			}
			return c.Raw, nil
		},
	} {
		for stalls := range 2 {
			synctest.Test(t, func(t *testing.T) {
				text := `{"x":"` + strings.Repeat("x", 131<<10) + `"}`
				n := 0
				repo := repository(t.Context(), t, oci.Options{Transport: trip(func(r *http.Request) (*http.Response, error) {
					if r.URL.Path == "/v2/" {
						return status(200), nil
					}
					resp := status(200)
					resp.Body = io.NopCloser(&slowly{r: bytes.NewReader([]byte(text)), done: r.Context().Done(), stalls: n < stalls})
					n++
					return resp, nil
				})})
				begun := time.Now()
				raw, err := read(t.Context(), repo, text)
				if took := time.Since(begun); err != nil || string(raw) != text || n != 1+stalls || took < 75*time.Second {
					t.Errorf("%s, %d stalls: %d bytes, %v after %v and %d requests", what, stalls, len(raw), err, took, n)
				}
			})
		}
	}
}

// slowly gives 1,700 bytes per second, or one byte and then none.
type slowly struct {
	r      io.Reader
	done   <-chan struct{}
	stalls bool
	begun  bool
}

func (s *slowly) Read(p []byte) (int, error) {
	if s.stalls && s.begun {
		<-s.done
		return 0, context.Canceled
	}
	s.begun = true
	if s.stalls {
		return s.r.Read(p[:1])
	}
	select {
	case <-time.After(time.Second):
	case <-s.done:
		return 0, context.Canceled
	}
	return s.r.Read(p[:min(len(p), 1700)])
}
