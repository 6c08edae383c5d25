package oci_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sealift/sealift/internal/oci"
)

// crowd is a host that takes only so many requests at a time, each for a second, and refuses others.
type crowd struct {
	room    int
	code    int // of refusals, with header
	header  []string
	next    http.RoundTripper
	counted func(*http.Request) bool

	mu                       sync.Mutex
	now, most, refused, came int
}

func (c *crowd) RoundTrip(r *http.Request) (*http.Response, error) {
	if !c.counted(r) {
		return c.next.RoundTrip(r)
	}
	c.mu.Lock()
	c.came++
	c.now++
	full := c.now > c.room
	if full {
		c.refused++
	} else {
		c.most = max(c.most, c.now)
	}
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.now--
		c.mu.Unlock()
	}()
	if full {
		if r.Body != nil {
			_ = r.Body.Close()
		}
		return finished(r, refuse(c.code, c.header...)), nil
	}
	time.Sleep(time.Second)
	return c.next.RoundTrip(r)
}

// TestFewerAtATime where a host says that there are too many: the requests find the number that it
// can take, and hardly any is refused from then on.
func TestFewerAtATime(t *testing.T) {
	for code, header := range map[int][]string{429: nil, 503: {"Retry-After", "2"}} {
		for what, do := range map[string]func(context.Context, *oci.Repository, int) error{
			"manifests": func(ctx context.Context, r *oci.Repository, i int) error {
				_, err := r.ManifestDigest(ctx, fmt.Sprint("tag", i))
				return err
			},
			"uploads": func(ctx context.Context, r *oci.Repository, i int) error {
				return put(ctx, t, r, fmt.Append(nil, "blob ", i))
			},
		} {
			for _, room := range []int{1, 3, 7} {
				t.Run(fmt.Sprint(code, ", ", what, ", ", room), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						s := newTarget()
						c := &crowd{room: room, code: code, header: header, next: s, counted: func(r *http.Request) bool { return r.Method == http.MethodPut }}
						if what == "manifests" {
							c.next = web(func(*http.Request) *http.Response { return answerManifest(someManifest) })
							c.counted = func(r *http.Request) bool { return r.URL.Path != "/v2/" }
						}
						repo := repository(t.Context(), t, oci.Options{Transport: c, Uploads: 32, PerHost: 32})
						begun := time.Now()
						var all sync.WaitGroup
						for i := range 300 {
							all.Go(func() {
								if err := do(t.Context(), repo, i); err != nil {
									t.Error(err)
								}
							})
						}
						all.Wait()
						// 32, and then one each time that the number of those let through has grown too far.
						if most := 32 + 300/room; c.refused > most || c.most > room {
							t.Errorf("%d of %d were refused, want %d at most; %d at a time", c.refused, c.came, most, c.most)
						}
						if took, most := time.Since(begun), time.Duration(2*300/room+300)*time.Second; took > most {
							t.Errorf("it took %v, want %v at most", took, most)
						}
					})
				})
			}
		}
	}
}

// TestUploadsAtATime: no more than Options.Uploads, whatever the callers do.
func TestUploadsAtATime(t *testing.T) {
	for uploads, want := range map[int]int{0: 16, 2: 2} {
		synctest.Test(t, func(t *testing.T) {
			s := newTarget()
			c := &crowd{room: 1000, next: s, counted: func(r *http.Request) bool { return r.Method == http.MethodPut }}
			repo := repository(t.Context(), t, oci.Options{Transport: c, Uploads: uploads})
			var all sync.WaitGroup
			for i := range 40 {
				all.Go(func() {
					if err := put(t.Context(), t, repo, fmt.Append(nil, "blob ", i)); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			if c.most != want {
				t.Errorf("%d at a time, want %d", c.most, want)
			}
		})
	}
}

// TestQueueLetsGo: who does not wait any longer takes no place, and those behind him are served.
func TestQueueLetsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		repo := repository(t.Context(), t, oci.Options{PerHost: 1, Transport: trip(func(r *http.Request) (*http.Response, error) {
			if r.URL.Path != "/v2/" {
				<-free
			}
			return answerManifest(someManifest), nil
		})})
		var all sync.WaitGroup
		for i := range 30 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			gone := i%3 == 1
			if gone {
				cancel()
			}
			all.Go(func() {
				_, err := repo.Manifest(ctx, "1")
				if gone && !errors.Is(err, context.Canceled) || !gone && err != nil {
					t.Errorf("request %d: %v", i, err)
				}
			})
			synctest.Wait()
		}
		close(free)
		all.Wait()
	})
}

// TestUploadEndsWithItsContext: in the queue, while it is sent, and while it waits.
func TestUploadEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTarget()
		repo := s.open(t, oci.Options{Uploads: 1})
		s.fault = func(m string, _ int, r *http.Request) (int64, *http.Response, error) {
			if m != http.MethodPatch {
				return 0, nil, nil
			}
			_, _ = io.CopyN(io.Discard, r.Body, 1000)
			return 0, nil, hang(r)
		}
		var all sync.WaitGroup
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			all.Go(func() {
				begun := time.Now()
				var e *oci.Error
				err := put(ctx, t, repo, large)
				if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &e) || time.Since(begun) != 10*time.Second {
					t.Errorf("%v after %v", err, time.Since(begun))
				}
			})
		}
		all.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
		defer cancel()
		s.fault = func(string, int, *http.Request) (int64, *http.Response, error) { return 0, nil, errReset }
		if err := put(ctx, t, repo, large); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errReset) {
			t.Error(err)
		}
	})
}
