package oci_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	ggcr "github.com/google/go-containerregistry/pkg/registry"

	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/oci/ocitest"
	"github.com/sealift/sealift/internal/registry"
)

// quick are budgets for tests that wait for real.
var quick = oci.Budget{Wait: time.Millisecond, LongestWait: 20 * time.Millisecond, Patience: 20 * time.Second}

// front is a server before a registry, which counts what it is sent.
type front struct {
	host string

	mu    sync.Mutex
	log   []string
	taken int64
}

// distribution is CNCF distribution over a store.
func distribution(t *testing.T, store string) http.Handler {
	t.Helper()
	s, err := registry.New(context.Background(), registry.Options{Store: store})
	if err != nil {
		t.Fatal(err)
	}
	return s.Handler()
}

// behind puts a registry behind spoil, which is called with each request and the number (from 1) that
// it is of its method; it calls next, or does not.
func behind(t *testing.T, next http.Handler, spoil func(next http.Handler, w http.ResponseWriter, r *http.Request, n int)) *front {
	t.Helper()
	f := &front{}
	count := map[string]int{}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		count[r.Method]++
		n := count[r.Method]
		f.log = append(f.log, strings.TrimSpace(r.Method+" "+r.Header.Get("Content-Range")))
		f.mu.Unlock()
		r.Body = &counting{r.Body, f}
		spoil(next, w, r, n)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Start()
	t.Cleanup(s.Close)
	f.host = strings.TrimPrefix(s.URL, "http://")
	return f
}

func (f *front) requests() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.log, ", ")
}

type counting struct {
	io.ReadCloser
	f *front
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.f.mu.Lock()
	c.f.taken += int64(n)
	c.f.mu.Unlock()
	return n, err
}

// cut is a body that breaks off.
func cut(r *http.Request, after int64) {
	r.Body = io.NopCloser(io.MultiReader(io.LimitReader(r.Body, after), broken{}))
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// noise are bytes that nothing compresses.
func noise(n int) []byte {
	p := make([]byte, n)
	c := rand.NewChaCha8([32]byte{1})
	_, _ = c.Read(p)
	return p
}

func (f *front) open(t *testing.T, o oci.Options) *oci.Repository {
	t.Helper()
	o.Budget = quick
	repo, err := client(o).Repository(t.Context(), f.host, "a/b", true)
	if err != nil {
		t.Fatal(err)
	}
	return repo
}

// stored proves that the repository has a blob.
func stored(t *testing.T, repo *oci.Repository, content []byte) {
	t.Helper()
	got, err := repo.ReadBlob(t.Context(), describeBlob(content), 1<<30)
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes are there, %v", len(got), err)
	}
}

// TestUploadToRealRegistries, of both kinds, with one thing after the other going wrong.
func TestUploadToRealRegistries(t *testing.T) {
	content := noise(12*mib + 345)
	size := int64(len(content))
	abort := func() { panic(http.ErrAbortHandler) }
	for name, c := range map[string]struct {
		spoil func(next http.Handler, w http.ResponseWriter, r *http.Request, n int)
		// extra is how many bytes may be sent more than once, to CNCF distribution and to the other.
		extra, extraOther int64
	}{
		"nothing": {func(next http.Handler, w http.ResponseWriter, r *http.Request, _ int) { next.ServeHTTP(w, r) }, 0, 0},
		"cut three times": {func(next http.Handler, w http.ResponseWriter, r *http.Request, n int) {
			if r.Method == http.MethodPatch && n <= 3 {
				cut(r, 3*mib)
				next.ServeHTTP(httptest.NewRecorder(), r)
				abort()
			}
			next.ServeHTTP(w, r)
		}, 0, 9 * mib},
		"answer to the content lost": {func(next http.Handler, w http.ResponseWriter, r *http.Request, n int) {
			if r.Method == http.MethodPatch && n == 1 {
				next.ServeHTTP(httptest.NewRecorder(), r)
				abort()
			}
			next.ServeHTTP(w, r)
		}, 0, size},
		"answer to the end lost": {func(next http.Handler, w http.ResponseWriter, r *http.Request, n int) {
			if r.Method == http.MethodPut && n == 1 {
				next.ServeHTTP(httptest.NewRecorder(), r)
				abort()
			}
			next.ServeHTTP(w, r)
		}, 0, 0},
		"500 half-way": {func(next http.Handler, w http.ResponseWriter, r *http.Request, n int) {
			if r.Method == http.MethodPatch && n == 1 {
				cut(r, 6*mib)
			}
			next.ServeHTTP(w, r)
		}, 0, 6 * mib},
		"first try of everything": {func(next http.Handler, w http.ResponseWriter, r *http.Request, n int) {
			if n == 1 && r.URL.Path != "/v2/" {
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			next.ServeHTTP(w, r)
		}, 4 * mib, 4*mib + size},
		"spoiled": {func(next http.Handler, w http.ResponseWriter, r *http.Request, n int) {
			if r.Method == http.MethodPatch && n == 1 {
				r.Body = io.NopCloser(io.MultiReader(io.LimitReader(r.Body, 10), bytes.NewReader([]byte{0}), &drop{r.Body, 1}))
			}
			next.ServeHTTP(w, r)
		}, size, size},
		"too large for a proxy": {func(next http.Handler, w http.ResponseWriter, r *http.Request, _ int) {
			if r.ContentLength > 5*mib {
				_, _ = io.CopyN(io.Discard, r.Body, 1000)
				http.Error(w, "<html><head><title>413 Request Entity Too Large</title></head></html>", http.StatusRequestEntityTooLarge)
				return
			}
			next.ServeHTTP(w, r)
		}, 1000, 1000},
	} {
		for kind, next := range map[string]http.Handler{
			ocitest.WithoutAPI: distribution(t, t.TempDir()), ocitest.WithAPI: ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0))),
		} {
			t.Run(name+", "+kind, func(t *testing.T) {
				f := behind(t, next, c.spoil)
				repo := f.open(t, oci.Options{})
				if err := put(t.Context(), t, repo, content); err != nil {
					t.Fatalf("%v\n%s", err, f.requests())
				}
				extra := c.extra
				if kind == ocitest.WithAPI {
					extra = c.extraOther
				}
				if f.taken > size+extra {
					t.Errorf("%d bytes were taken, want %d at most: %s", f.taken, size+extra, f.requests())
				}
				stored(t, repo, content)
			})
		}
	}
	t.Run("spoiled for good", func(t *testing.T) {
		f := behind(t, distribution(t, t.TempDir()), func(next http.Handler, w http.ResponseWriter, r *http.Request, _ int) {
			if r.ContentLength > 0 {
				r.Body = io.NopCloser(io.MultiReader(io.LimitReader(r.Body, 10), bytes.NewReader([]byte{0}), &drop{r.Body, 1}))
			}
			next.ServeHTTP(w, r)
		})
		err := put(t.Context(), t, f.open(t, oci.Options{}), content)
		if err == nil || !strings.Contains(err.Error(), "DIGEST_INVALID") || f.taken > 4*size {
			t.Errorf("%d bytes were taken, %v", f.taken, err)
		}
	})
}

// drop leaves out the next byte of what it reads.
type drop struct {
	r io.Reader
	n int64
}

func (d *drop) Read(p []byte) (int, error) {
	if d.n > 0 {
		if _, err := io.CopyN(io.Discard, d.r, d.n); err != nil {
			return 0, err
		}
		d.n = 0
	}
	return d.r.Read(p)
}

// TestRegistryRestarts while blobs are on their way to it: they go on where they were.
func TestRegistryRestarts(t *testing.T) {
	store := t.TempDir()
	content := noise(24 * mib)
	var taken atomic.Int64
	var first *http.Server
	stop := make(chan struct{})
	var once sync.Once
	serve := func(l net.Listener, next http.Handler) *http.Server {
		s := &http.Server{ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Body = &meter{r.Body, func(n int) {
				if taken.Add(int64(n)) > 8*mib {
					once.Do(func() { close(stop) })
				}
			}}
			next.ServeHTTP(w, r)
		})}
		go func() { _ = s.Serve(l) }()
		return s
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := l.Addr().String()
	first = serve(l, distribution(t, store))
	told := make(chan string, 10)
	repo, err := client(oci.Options{Budget: quick, Away: func(host string, err error) { told <- fmt.Sprint(host, err) }}).Repository(t.Context(), host, "a/b", true)
	if err != nil {
		t.Fatal(err)
	}
	restarted := make(chan error, 1)
	go func() {
		<-stop
		err := first.Close()
		<-told // it has been missed
		l, lerr := net.Listen("tcp", host)
		if err = errors.Join(err, lerr); err == nil {
			second := serve(l, distribution(t, store))
			t.Cleanup(func() { _ = second.Close() })
		}
		restarted <- err
	}()
	if err := put(t.Context(), t, repo, content); err != nil {
		t.Fatal(err)
	}
	if err := <-restarted; err != nil {
		t.Fatal(err)
	}
	stored(t, repo, content)
	// What was lost is what was under way.
	if extra := taken.Load() - int64(len(content)); extra > 8*mib {
		t.Errorf("%d bytes were sent twice", extra)
	}
}

type meter struct {
	io.ReadCloser
	read func(int)
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.ReadCloser.Read(p)
	m.read(n)
	return n, err
}

// TestTokensThatExpire in the middle of everything: a request that is answered 401 is sent again, all
// of it, with the next token; what can be read only once is as well.
func TestTokensThatExpire(t *testing.T) {
	next := distribution(t, t.TempDir())
	for uses := 1; uses <= 4; uses++ {
		var mu sync.Mutex
		left, token, tokens := 0, 0, 0
		f := behind(t, next, func(next http.Handler, w http.ResponseWriter, r *http.Request, _ int) {
			mu.Lock()
			defer mu.Unlock()
			if r.URL.Path == "/token" {
				tokens++
				token, left = token+1, uses
				fmt.Fprintf(w, `{"token":"t%d"}`, token)
				return
			}
			if r.Header.Get("Authorization") != fmt.Sprint("Bearer t", token) || left == 0 {
				if r.Method == http.MethodPatch || r.Method == http.MethodPut {
					_, _ = io.CopyN(io.Discard, r.Body, 300000)
				}
				w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="x"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			left--
			next.ServeHTTP(w, r)
		})
		repo := f.open(t, oci.Options{Keychain: authn.NewMultiKeychain()})
		for i := range 5 {
			content := noise(3*mib + i)
			if err := put(t.Context(), t, repo, content); err != nil {
				t.Fatalf("%d uses: %v\n%s", uses, err, f.requests())
			}
			// More may be under way than what the test's registry looks at before it refuses.
			stream := noise((3+i*i)*mib + 100 + i)
			_, err := repo.PutBlob(t.Context(), describeBlob(stream), "", oci.FromStream(bytes.NewReader(stream), int64(len(stream)), 16*mib), func(int64) {})
			if err != nil {
				t.Fatalf("%d uses, stream: %v\n%s", uses, err, f.requests())
			}
			if err := put(t.Context(), t, repo, []byte(fmt.Sprint("small", i))); err != nil {
				t.Fatal(err)
			}
			stored(t, repo, content)
			stored(t, repo, stream)
		}
		if tokens < 10/uses {
			t.Errorf("%d tokens", tokens)
		}
	}
}

// TestUploadNeedsNoMemory: what is sent is not kept.
func TestUploadNeedsNoMemory(t *testing.T) {
	f := behind(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		switch r.Method {
		case http.MethodPost, http.MethodPatch:
			w.Header().Set("Location", "/v2/a/b/blobs/uploads/1")
			w.WriteHeader(http.StatusAccepted)
		case http.MethodPut:
			w.WriteHeader(http.StatusCreated)
		}
	}), func(next http.Handler, w http.ResponseWriter, r *http.Request, _ int) { next.ServeHTTP(w, r) })
	repo := f.open(t, oci.Options{})
	const size = 256 * mib
	d := describeBlob(nil)
	d.Size = size
	result := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			open := func(offset int64) (io.ReadCloser, error) {
				return io.NopCloser(io.LimitReader(neverEnding('x'), size-offset)), nil
			}
			if _, err := repo.PutBlob(context.Background(), d, "", open, func(int64) {}); err != nil {
				b.Fatal(err)
			}
		}
	})
	if got := result.AllocedBytesPerOp(); got > 8*mib {
		t.Errorf("%d bytes of memory for a blob of %d", got, size)
	}
}
