package oci_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/manifest"
)

// trip answers requests, or fails.
type trip func(*http.Request) (*http.Response, error)

func (f trip) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	resp, err := f(r)
	if err != nil {
		return nil, err
	}
	return finished(r, resp), nil
}

// hang never answers.
func hang(r *http.Request) error {
	<-r.Context().Done()
	return r.Context().Err()
}

var errRefused = &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}

func repository(ctx context.Context, t *testing.T, o oci.Options) *oci.Repository {
	t.Helper()
	o.Side = "target registry"
	repo, err := oci.NewClient(o).Repository(ctx, "127.0.0.1:5000", "a/b", true)
	if err != nil {
		t.Fatal(err)
	}
	return repo
}

// TestHostThatGoesAway is waited for when it has been there before in this run, and told to be gone
// once.
func TestHostThatGoesAway(t *testing.T) {
	for name, c := range map[string]struct {
		away   time.Duration
		budget oci.Budget
		ok     bool
		within time.Duration
	}{
		"restarted":            {3 * time.Minute, oci.Budget{}, true, 4 * time.Minute},
		"gone":                 {time.Hour, oci.Budget{}, false, 5*time.Minute + time.Second},
		"gone, less patience":  {time.Hour, oci.Budget{Patience: 20 * time.Second}, false, 21 * time.Second},
		"gone for a short one": {15 * time.Second, oci.Budget{Patience: 20 * time.Second, LongestWait: time.Second}, true, 20 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				s := newTarget()
				var mu sync.Mutex
				told, tries, gone := 0, 0, false
				repo := repository(t.Context(), t, oci.Options{
					Budget: c.budget,
					Away: func(host string, err error) {
						mu.Lock()
						defer mu.Unlock()
						if told++; host != "127.0.0.1:5000" || !errors.Is(err, syscall.ECONNREFUSED) {
							t.Errorf("told %s, %v", host, err)
						}
					},
					Transport: trip(func(r *http.Request) (*http.Response, error) {
						mu.Lock()
						here := time.Since(begun) >= c.away || !gone
						if !here {
							tries++
						}
						mu.Unlock()
						if !here {
							return nil, errRefused
						}
						return s.RoundTrip(r)
					}),
				})
				mu.Lock()
				gone = true
				mu.Unlock()
				var all sync.WaitGroup
				for i := range 8 {
					all.Go(func() {
						err := put(t.Context(), t, repo, fmt.Append(nil, "blob ", i))
						var gaveUp *oci.GaveUpError
						if c.ok && err != nil || !c.ok && (!errors.As(err, &gaveUp) || gaveUp.Silent == 0 || !errors.Is(err, syscall.ECONNREFUSED)) {
							t.Error(err)
						}
					})
				}
				all.Wait()
				if took := time.Since(begun); took > c.within {
					t.Errorf("it took %v, want %v at most", took, c.within)
				}
				if told != 1 {
					t.Errorf("it was told %d times", told)
				}
				if tries > 8*40 {
					t.Errorf("%d tries", tries)
				}
			})
		})
	}
	// One that was never there is told at once.
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		tries := 0
		c := oci.NewClient(oci.Options{Side: "target registry", Transport: trip(func(*http.Request) (*http.Response, error) {
			tries++
			return nil, errRefused
		})})
		_, err := c.Repository(t.Context(), "registry.example", "a/b", true)
		var gaveUp *oci.GaveUpError
		if !errors.Is(err, syscall.ECONNREFUSED) || errors.As(err, &gaveUp) || time.Since(begun) > 0 {
			t.Errorf("%v after %v and %d tries", err, time.Since(begun), tries)
		}
	})
}

// TestFaultsThatNeverEnd end all the same, with their cause.
func TestFaultsThatNeverEnd(t *testing.T) {
	answer := func(code int, header ...string) trip {
		return func(*http.Request) (*http.Response, error) { return refuse(code, header...), nil }
	}
	for name, c := range map[string]struct {
		fault trip
		cause string
		most  time.Duration
	}{
		"500":             {answer(500), "answered with 500 Internal Server Error: TOOMANYREQUESTS: You have", 2 * time.Minute},
		"503":             {answer(503), "answered with 503 Service Unavailable", 2 * time.Minute},
		"503, wait":       {answer(503, "Retry-After", "2"), "answered with 503 Service Unavailable", 16 * time.Minute},
		"429":             {answer(429), "answered with 429 Too Many Requests", 2 * time.Minute},
		"429, wait":       {answer(429, "Retry-After", "1"), "127.0.0.1:5000 wants to be left alone for 1s: ", 16 * time.Minute},
		"reset":           {func(*http.Request) (*http.Response, error) { return nil, errReset }, ": connection reset by peer", 2 * time.Minute},
		"closed":          {func(*http.Request) (*http.Response, error) { return nil, io.EOF }, ": the connection was closed without an answer: unexpected EOF", 2 * time.Minute},
		"no answer":       {func(r *http.Request) (*http.Response, error) { return nil, hang(r) }, ": no answer for 1m0s", 7 * time.Minute},
		"nobody there":    {func(*http.Request) (*http.Response, error) { return nil, errRefused }, "127.0.0.1:5000 having given nothing for 5m0s: ", 6 * time.Minute},
		"cut request":     {func(r *http.Request) (*http.Response, error) { return nil, cutRequest(r) }, ": broken pipe", 2 * time.Minute},
		"stalled request": {func(r *http.Request) (*http.Response, error) { _ = cutRequest(r); return nil, hang(r) }, ": no answer for 1m0s", 8 * time.Minute},
	} {
		for what, do := range map[string]func(context.Context, *oci.Repository) error{
			"manifest": func(ctx context.Context, r *oci.Repository) error { _, err := r.Manifest(ctx, "1"); return err },
			"blob": func(ctx context.Context, r *oci.Repository) error {
				_, err := io.ReadAll(r.Blob(ctx, manifest.Descriptor{Digest: d1, Size: 1000}, 0))
				return err
			},
			"small upload":  func(ctx context.Context, r *oci.Repository) error { return put(ctx, t, r, small) },
			"large upload":  func(ctx context.Context, r *oci.Repository) error { return put(ctx, t, r, large) },
			"manifest sent": func(ctx context.Context, r *oci.Repository) error { return r.PutManifest(ctx, "1", content()) },
		} {
			t.Run(name+", "+what, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					repo := repository(t.Context(), t, oci.Options{Transport: trip(func(r *http.Request) (*http.Response, error) {
						if r.URL.Path == "/v2/" {
							return status(200), nil
						}
						return c.fault(r)
					})})
					begun := time.Now()
					err := do(t.Context(), repo)
					var e *oci.Error
					if !errors.As(err, &e) || !strings.Contains(err.Error(), c.cause) || !strings.HasPrefix(err.Error(), "target registry 127.0.0.1:5000: ") {
						t.Errorf("%v, want %q", err, c.cause)
					}
					if strings.Count(err.Error(), "gave up") > 1 || strings.Count(err.Error(), "target registry") > 1 {
						t.Errorf("it says things twice: %v", err)
					}
					if took := time.Since(begun); took > c.most {
						t.Errorf("it took %v, want %v at most", took, c.most)
					}
				})
			})
		}
	}
}

func cutRequest(r *http.Request) error {
	if r.Body != nil {
		_, _ = io.CopyN(io.Discard, r.Body, 500)
	}
	return &net.OpError{Op: "write", Net: "tcp", Err: syscall.EPIPE}
}

func content() *oci.Content {
	return &oci.Content{Descriptor: manifest.Descriptor{Digest: manifest.Digest([]byte(someManifest)), MediaType: "x/y", Size: int64(len(someManifest))}, Raw: []byte(someManifest)}
}

// TestSomeFaultsAreBorne, as many as one for each request that succeeds; when nearly all fail, it
// ends.
func TestSomeFaultsAreBorne(t *testing.T) {
	for each, ok := range map[int]bool{0: true, 1: true, 3: true, 8: false} {
		synctest.Test(t, func(t *testing.T) {
			failed := map[string]int{}
			n := 0
			repo := repository(t.Context(), t, oci.Options{Transport: trip(func(r *http.Request) (*http.Response, error) {
				if n++; r.URL.Path == "/v2/" {
					return status(200), nil
				}
				if failed[r.URL.Path]++; failed[r.URL.Path] <= each {
					return status(500), nil
				}
				return answerManifest(someManifest), nil
			})})
			var err error
			for i := 0; i < 1000 && err == nil; i++ {
				_, err = repo.Manifest(t.Context(), fmt.Sprint("tag", i))
			}
			var gaveUp *oci.GaveUpError
			if ok && err != nil || !ok && (!errors.As(err, &gaveUp) || gaveUp.Failed < 100) {
				t.Errorf("%d for each: %v after %d requests", each, err, n)
			}
			if !ok && n > 400 {
				t.Errorf("%d requests before it ended", n)
			}
		})
	}
}

// TestWhatIsNotTriedAgain: what does not pass by itself.
func TestWhatIsNotTriedAgain(t *testing.T) {
	for code, want := range map[int]int{400: 3, 401: 1, 403: 1, 404: 1, 405: 1, 409: 1, 413: 1, 418: 1, 500: 9, 507: 3} {
		for what, do := range map[string]func(context.Context, *oci.Repository) error{
			"manifest": func(ctx context.Context, r *oci.Repository) error { _, err := r.Manifest(ctx, "1"); return err },
			"sent":     func(ctx context.Context, r *oci.Repository) error { return r.PutManifest(ctx, "1", content()) },
			"upload":   func(ctx context.Context, r *oci.Repository) error { return put(ctx, t, r, small) },
		} {
			synctest.Test(t, func(t *testing.T) {
				n := 0
				repo := repository(t.Context(), t, oci.Options{Transport: trip(func(r *http.Request) (*http.Response, error) {
					if r.URL.Path == "/v2/" {
						return status(200), nil
					}
					n++
					return status(code), nil
				})})
				want := want
				if code == 400 && what != "sent" {
					want = 1 // only what we sent may have been spoiled
				}
				if err := do(t.Context(), repo); err == nil || n != want {
					t.Errorf("%s: %d came %d times, want %d; %v", what, code, n, want, err)
				}
			})
		}
	}
}

// TestSpoiledAnswers are asked for again, a few times.
func TestSpoiledAnswers(t *testing.T) {
	text := `{"tags":["a"],"manifests":[]}`
	digest := manifest.Digest([]byte(text))
	for what, do := range map[string]func(context.Context, *oci.Repository) error{
		"manifest": func(ctx context.Context, r *oci.Repository) error { _, err := r.Manifest(ctx, digest); return err },
		"by tag":   func(ctx context.Context, r *oci.Repository) error { _, err := r.Manifest(ctx, "1"); return err },
		"blob": func(ctx context.Context, r *oci.Repository) error {
			_, err := r.ReadBlob(ctx, manifest.Descriptor{Digest: digest, Size: int64(len(text))}, 1000)
			return err
		},
		"tags":      func(ctx context.Context, r *oci.Repository) error { _, err := r.Tags(ctx); return err },
		"referrers": func(ctx context.Context, r *oci.Repository) error { _, _, err := r.Referrers(ctx, digest); return err },
	} {
		for spoiled, ok := range map[int]bool{1: true, 2: true, 99: false} {
			synctest.Test(t, func(t *testing.T) {
				n := 0
				repo := repository(t.Context(), t, oci.Options{Transport: trip(func(r *http.Request) (*http.Response, error) {
					if r.URL.Path == "/v2/" {
						return status(200), nil
					}
					n++
					resp := status(200)
					body := text
					if n <= spoiled {
						body = strings.Replace(text, `["a"]`, `{"a"]`+strings.Repeat(" ", n), 1)
						body = strings.Replace(body, `[]`, `["`, 1)
					}
					resp.Header.Set("Docker-Content-Digest", digest)
					resp.Header.Set("Content-Type", "application/vnd.oci.image.index.v1+json")
					resp.Body = io.NopCloser(strings.NewReader(body))
					return resp, nil
				})})
				begun := time.Now()
				err := do(t.Context(), repo)
				if (err == nil) != ok || n > 6 || time.Since(begun) > 5*time.Second {
					t.Errorf("%s, spoiled %d times: %d requests in %v, %v", what, spoiled, n, time.Since(begun), err)
				}
				var wrong *oci.DigestError
				if (what == "manifest" || what == "blob") && !ok && !errors.As(err, &wrong) {
					t.Errorf("%s: %v, want *DigestError", what, err)
				}
			})
		}
	}
	// What a registry calls by a digest that it does not know is taken as it is.
	synctest.Test(t, func(t *testing.T) {
		n := 0
		repo := repository(t.Context(), t, oci.Options{Transport: trip(func(r *http.Request) (*http.Response, error) {
			switch {
			case r.URL.Path == "/v2/":
				return status(200), nil
			case strings.HasSuffix(r.URL.Path, d1):
				return status(404), nil
			}
			n++
			resp := answerManifest(text)
			resp.Header.Set("Docker-Content-Digest", d1)
			return resp, nil
		})})
		if c, err := repo.Manifest(t.Context(), "1"); err != nil || c.Digest != digest || n != 1 {
			t.Errorf("%+v, %v after %d requests", c, err, n)
		}
	})
}
