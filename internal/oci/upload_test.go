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
	"testing"
	"testing/synctest"

	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/manifest"
)

const mib = 1 << 20

// target is a registry that takes blobs, without a network: in a bubble of synctest, waiting costs
// nothing.
type target struct {
	// fault may spoil request n (from 1) of a method: what it returns is answered, after so many
	// bytes of the body were kept in the session. A nil answer with a nil error is none.
	fault func(method string, n int, r *http.Request) (keep int64, resp *http.Response, err error)
	// least is OCI-Chunk-Min-Length; silent says that the registry does not tell what it has.
	least  string
	silent bool

	mu       sync.Mutex
	sessions map[string][]byte
	blobs    map[string][]byte
	count    map[string]int
	log      []string
	taken    int64
}

func newTarget() *target {
	return &target{sessions: map[string][]byte{}, blobs: map[string][]byte{}, count: map[string]int{}}
}

func (s *target) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Path == "/v2/" {
		return finished(r, status(http.StatusOK)), nil
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.count[r.Method]++
	n := s.count[r.Method]
	line := r.Method
	if cr := r.Header.Get("Content-Range"); cr != "" {
		line += " " + cr
	}
	s.log = append(s.log, line)
	s.mu.Unlock()
	if s.fault != nil {
		keep, resp, err := s.fault(r.Method, n, r)
		if resp != nil || err != nil {
			if keep > 0 {
				body, _ := io.ReadAll(io.LimitReader(r.Body, keep))
				s.keep(r, body)
			}
			if r.Body != nil {
				_ = r.Body.Close()
			}
			if err != nil {
				return nil, err
			}
			return finished(r, resp), nil
		}
	}
	return finished(r, s.answer(r)), nil
}

func finished(r *http.Request, resp *http.Response) *http.Response {
	resp.Request = r
	if resp.Body == nil {
		resp.Body = http.NoBody
	}
	return resp
}

func (s *target) keep(r *http.Request, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := r.URL.Path
	s.sessions[id] = append(s.sessions[id], body...)
	s.taken += int64(len(body))
}

func (s *target) answer(r *http.Request) *http.Response {
	id := r.URL.Path
	s.mu.Lock()
	session, known := s.sessions[id]
	s.mu.Unlock()
	progress := func(code int) *http.Response {
		resp := status(code)
		s.mu.Lock()
		defer s.mu.Unlock()
		resp.Header.Set("Location", id+"?state="+strconv.Itoa(len(s.sessions[id])))
		resp.Header.Set("Range", fmt.Sprintf("0-%d", max(0, len(s.sessions[id])-1)))
		return resp
	}
	switch r.Method {
	case http.MethodPost:
		s.mu.Lock()
		id = fmt.Sprintf("/v2/a/b/blobs/uploads/%d", len(s.sessions))
		s.sessions[id] = nil
		s.mu.Unlock()
		resp := progress(http.StatusAccepted)
		if s.least != "" {
			resp.Header.Set("OCI-Chunk-Min-Length", s.least)
		}
		return resp
	case http.MethodHead:
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.blobs[id[strings.LastIndex(id, "/")+1:]] == nil {
			return status(http.StatusNotFound)
		}
		return status(http.StatusOK)
	}
	if !known || s.silent && r.Method == http.MethodGet {
		return status(http.StatusNotFound)
	}
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
	}
	switch r.Method {
	case http.MethodDelete:
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.sessions, id)
		return status(http.StatusNoContent)
	case http.MethodGet:
		return progress(http.StatusNoContent)
	case http.MethodPatch:
		if r.URL.Query().Get("state") != strconv.Itoa(len(session)) {
			return status(http.StatusRequestedRangeNotSatisfiable)
		}
		if cr := r.Header.Get("Content-Range"); cr != "" && cr != fmt.Sprintf("%d-%d", len(session), len(session)+len(body)-1) {
			return status(http.StatusRequestedRangeNotSatisfiable)
		}
		s.keep(r, body)
		return progress(http.StatusAccepted)
	}
	s.keep(r, body)
	s.mu.Lock()
	defer s.mu.Unlock()
	content := s.sessions[id]
	delete(s.sessions, id)
	s.sessions[id+"-gone"] = nil // so that no name comes twice
	digest := manifest.Digest(content)
	if digest != r.URL.Query().Get("digest") {
		return refusing(http.StatusBadRequest, "DIGEST_INVALID", "provided digest did not match uploaded content", `""`)
	}
	s.blobs[digest] = content
	return status(http.StatusCreated)
}

func refusing(code int, errorCode, message, detail string) *http.Response {
	resp := status(code)
	resp.Body = io.NopCloser(strings.NewReader(fmt.Sprintf(`{"errors":[{"code":%q,"message":%q,"detail":%s}]}`, errorCode, message, detail)))
	return resp
}

func (s *target) open(t *testing.T, o oci.Options) *oci.Repository {
	t.Helper()
	o.Side, o.Transport = "target registry", s
	repo, err := oci.NewClient(o).Repository(t.Context(), "127.0.0.1:5000", "a/b", true)
	if err != nil {
		t.Fatal(err)
	}
	return repo
}

func describeBlob(content []byte) manifest.Descriptor {
	return manifest.Descriptor{Digest: manifest.Digest(content), Size: int64(len(content))}
}

// put uploads a blob and looks at what was told about it on the way.
func put(ctx context.Context, t *testing.T, repo *oci.Repository, content []byte) error {
	t.Helper()
	sent := int64(0)
	_, err := repo.PutBlob(ctx, describeBlob(content), "", oci.FromBytes(content), func(n int64) { sent += n })
	if err == nil && sent != int64(len(content)) {
		t.Errorf("it was told that %d bytes had been sent, want %d", sent, len(content))
	}
	return err
}

var (
	errReset = errors.New("connection reset by peer")
	small    = bytesOf(1000)
	large    = bytesOf(4*mib + 5)
)

// outcome is what is answered to request n of a method, as target.fault has it.
type outcome func(n int) (int64, *http.Response, error)

type fault = func(method string, n int, r *http.Request) (int64, *http.Response, error)

// once makes the first requests of a method go wrong.
func once(method string, times int, f outcome) fault {
	return func(m string, n int, _ *http.Request) (int64, *http.Response, error) {
		if m != method || n > times {
			return 0, nil, nil
		}
		return f(n)
	}
}

// TestUploadGoesOn: what breaks off is gone on with where the registry says, and what cannot be is
// begun anew; in both cases no more than what was lost is sent again.
func TestUploadGoesOn(t *testing.T) {
	kept := func(keep int64) outcome {
		return func(int) (int64, *http.Response, error) { return keep, nil, errReset }
	}
	refused := func(keep int64, code int, header ...string) outcome {
		return func(int) (int64, *http.Response, error) {
			resp := status(code)
			for i := 0; i < len(header); i += 2 {
				resp.Header.Set(header[i], header[i+1])
			}
			return keep, resp, nil
		}
	}
	for name, c := range map[string]struct {
		content []byte
		least   string
		silent  bool
		fault   fault
		log     string
		taken   int64 // beyond the size of the content
	}{
		"small": {content: small, log: "POST PUT"},
		"large": {content: large, log: "POST PATCH PUT"},
		"small, reset": {
			content: small, fault: once("PUT", 1, kept(10)),
			log: "POST PUT HEAD GET PUT 10-999",
		},
		"reset after some": {
			content: large, fault: once("PATCH", 1, kept(mib)),
			log: "POST PATCH GET PATCH 1048576-4194308 PUT",
		},
		"500 after some": {
			content: large, fault: once("PATCH", 1, refused(mib, 500)),
			log: "POST PATCH GET PATCH 1048576-4194308 PUT",
		},
		"429 at once": {
			content: large, fault: once("PATCH", 1, refused(0, 429, "Retry-After", "7")),
			log: "POST PATCH GET PATCH PUT",
		},
		"429 at once, it cannot say": {
			content: large, silent: true, fault: once("PATCH", 1, refused(0, 429)),
			log: "POST PATCH GET PATCH PUT",
		},
		"500 and some, it cannot say": {
			content: large, silent: true, fault: once("PATCH", 1, refused(100, 500)),
			log: "POST PATCH GET PATCH GET POST PATCH PUT", taken: 100,
		},
		"small, 500 and some, it cannot say": {
			content: small, silent: true, fault: once("PUT", 1, refused(100, 500)),
			log: "POST PUT HEAD GET PUT POST PUT", taken: 1100,
		},
		"again and again": {
			content: large, fault: once("PATCH", 12, kept(200000)),
			log: "POST PATCH GET PATCH 200000-4194308 GET PATCH 400000-4194308 GET PATCH 600000-4194308 GET PATCH 800000-4194308" +
				" GET PATCH 1000000-4194308 GET PATCH 1200000-4194308 GET PATCH 1400000-4194308 GET PATCH 1600000-4194308" +
				" GET PATCH 1800000-4194308 GET PATCH 2000000-4194308 GET PATCH 2200000-4194308 GET PATCH 2400000-4194308 PUT",
		},
		"answer lost after all of it": {
			content: large, fault: once("PATCH", 1, kept(4*mib+5)),
			log: "POST PATCH GET PUT",
		},
		"it cannot say": {
			content: large, silent: true, fault: once("PATCH", 1, kept(mib)),
			log: "POST PATCH GET POST PATCH PUT", taken: mib,
		},
		"it has less than it said": {
			content: large, fault: once("GET", 1, func(int) (int64, *http.Response, error) {
				resp := status(http.StatusNoContent)
				resp.Header.Set("Range", "0-2000000")
				return 0, resp, nil
			}), log: "POST PATCH GET PATCH 2000001-4194308 GET PATCH 1048576-4194308 PUT",
		},
		"it says more than was sent": {
			content: large, fault: once("GET", 1, func(int) (int64, *http.Response, error) {
				resp := status(http.StatusNoContent)
				resp.Header.Set("Range", "0-4000000")
				return 0, resp, nil
			}), log: "POST PATCH GET POST PATCH PUT", taken: mib,
		},
		"answer to the end lost, not done": {
			content: large, fault: once("PUT", 1, kept(0)),
			log: "POST PATCH PUT HEAD GET PUT",
		},
		"refused for the moment at the end": {
			content: large, fault: once("PUT", 2, refused(0, 503, "Retry-After", "3")),
			log: "POST PATCH PUT GET PUT GET PUT",
		},
		"session forgotten": {
			content: large, fault: once("PATCH", 1, refused(0, 404)),
			log: "POST PATCH POST PATCH PUT",
		},
		"no PATCH": {
			content: large, fault: once("PATCH", 99, refused(0, 405)),
			log: "POST PATCH POST PUT",
		},
		"PATCH never works": {
			content: large, fault: once("PATCH", 99, refused(0, 400)),
			log: "POST PATCH POST PATCH POST PATCH POST PUT",
		},
		"too large": {
			content: large, fault: func(m string, _ int, r *http.Request) (int64, *http.Response, error) {
				if m == http.MethodPatch && r.ContentLength > 2*mib {
					return 0, status(413), nil
				}
				return 0, nil, nil
			},
			log: "POST PATCH POST PATCH 0-4194303 POST PATCH 0-1048575 PATCH 1048576-2097151 PATCH 2097152-3145727 PATCH 3145728-4194303 PATCH 4194304-4194308 PUT",
		},
		"too large, with a least size": {
			content: large, least: "1500000", fault: func(m string, n int, _ *http.Request) (int64, *http.Response, error) {
				if m == http.MethodPatch && n == 1 {
					return 0, status(413), nil
				}
				return 0, nil, nil
			},
			log: "POST PATCH POST PATCH 0-4194303 PATCH 4194304-4194308 PUT",
		},
		"proxy that breaks large requests and keeps nothing": {
			content: large, fault: func(m string, _ int, r *http.Request) (int64, *http.Response, error) {
				if m == http.MethodPatch && r.ContentLength > 4*mib {
					return 0, nil, errReset
				}
				return 0, nil, nil
			},
			log: "POST PATCH GET PATCH GET PATCH GET PATCH 0-4194303 PATCH 4194304-4194308 PUT",
		},
		"less was taken than answered": {
			content: large, fault: once("PATCH", 1, func(int) (int64, *http.Response, error) {
				resp := status(http.StatusAccepted)
				resp.Header.Set("Location", "/v2/a/b/blobs/uploads/0?state=0")
				resp.Header.Set("Range", "0-0")
				return 0, resp, nil
			}), log: "POST PATCH GET PATCH PUT",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newTarget()
				s.least, s.silent, s.fault = c.least, c.silent, c.fault
				if name == "it has less than it said" || name == "it says more than was sent" {
					s.fault = func(m string, n int, r *http.Request) (int64, *http.Response, error) {
						if m == http.MethodPatch && n == 1 {
							// More has gone out than has arrived.
							_, _ = io.CopyN(io.Discard, &peek{s: s, r: r, keep: mib}, 3*mib)
							return 0, nil, errReset
						}
						return c.fault(m, n, r)
					}
				}
				if err := put(t.Context(), t, s.open(t, oci.Options{}), c.content); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(s.blobs[manifest.Digest(c.content)], c.content) {
					t.Error("it is not there")
				}
				if got := strings.Join(s.log, " "); got != c.log {
					t.Errorf("got  %s\nwant %s", got, c.log)
				}
				if extra := s.taken - int64(len(c.content)); extra != c.taken {
					t.Errorf("%d bytes too many were taken, want %d", extra, c.taken)
				}
			})
		})
	}
}

// peek reads the body of a request and keeps only the beginning of it.
type peek struct {
	s    *target
	r    *http.Request
	keep int64
}

func (p *peek) Read(b []byte) (int, error) {
	n, err := p.r.Body.Read(b)
	k := min(int64(n), p.keep)
	p.s.keep(p.r, b[:k])
	p.keep -= k
	return n, err
}
