package oci_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/oci/ocitest"
	"github.com/sealift/sealift/manifest"
)

// web is a server without a network: what answers requests, in a bubble of synctest.
type web func(*http.Request) *http.Response

func (f web) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	resp := f(r)
	resp.Request = r
	if resp.Body == nil {
		resp.Body = http.NoBody
	}
	if resp.Header == nil {
		resp.Header = http.Header{}
	}
	return resp, nil
}

const refusal = `{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}`

// refuse is the answer of a host that has had too much.
func refuse(code int, header ...string) *http.Response {
	resp := status(code)
	for i := 0; i < len(header); i += 2 {
		resp.Header.Set(header[i], header[i+1])
	}
	resp.Body = io.NopCloser(strings.NewReader(refusal))
	return resp
}

func answerManifest(text string) *http.Response {
	resp := status(http.StatusOK)
	resp.Header.Set("Docker-Content-Digest", manifest.Digest([]byte(text)))
	resp.Body = io.NopCloser(strings.NewReader(text))
	return resp
}

const someManifest = `{"schemaVersion":2}`

// told collects what Options.Waiting says.
type told struct {
	mu   sync.Mutex
	list []string
}

func (l *told) waiting(host string, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, fmt.Sprint(host, " ", d))
}

func (l *told) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.list, ", ")
}

func openWeb(t *testing.T, w web, waiting func(string, time.Duration)) *oci.Repository {
	t.Helper()
	c := oci.NewClient(oci.Options{Side: "test registry", Transport: w, Waiting: waiting})
	repo, err := c.Repository(t.Context(), "127.0.0.1:5000", "a/b", false)
	if err != nil {
		t.Fatal(err)
	}
	return repo
}

// TestRetryAfter: a host that says how long to wait is waited for just so long, for every kind of
// small request and for blobs.
func TestRetryAfter(t *testing.T) {
	const date = "Sat, 21 Nov 2026 09:00:00 GMT"
	for name, c := range map[string]struct {
		code   int
		header []string
		wait   time.Duration
		told   string
	}{
		"seconds":        {429, []string{"Retry-After", "100"}, 100 * time.Second, "127.0.0.1:5000 1m40s"},
		"a date":         {429, []string{"Retry-After", "Sat, 21 Nov 2026 09:02:00 GMT", "Date", date}, 2 * time.Minute, "127.0.0.1:5000 2m0s"},
		"unavailable":    {503, []string{"Retry-After", "240"}, 4 * time.Minute, "127.0.0.1:5000 4m0s"},
		"a date gone by": {429, []string{"Retry-After", "Sat, 21 Nov 2026 08:00:00 GMT", "Date", date}, time.Second, "127.0.0.1:5000 1s"},
		"none at all":    {429, nil, time.Second, ""},
		"no clock":       {429, []string{"Retry-After", "Sat, 21 Nov 2026 09:02:00 GMT"}, time.Second, ""},
		"no number":      {429, []string{"Retry-After", "soon"}, time.Second, ""},
		"negative":       {429, []string{"Retry-After", "-5"}, time.Second, ""},
	} {
		t.Run(name, func(t *testing.T) {
			for what, do := range map[string]func(context.Context, *oci.Repository) error{
				"manifest": func(ctx context.Context, r *oci.Repository) error { _, err := r.Manifest(ctx, "1"); return err },
				"digest":   func(ctx context.Context, r *oci.Repository) error { _, err := r.ManifestDigest(ctx, "1"); return err },
				"tags":     func(ctx context.Context, r *oci.Repository) error { _, err := r.Tags(ctx); return err },
				"blob": func(ctx context.Context, r *oci.Repository) error {
					_, err := io.ReadAll(r.Blob(ctx, manifest.Descriptor{Digest: d1, Size: int64(len(someManifest))}, 0))
					return err
				},
			} {
				synctest.Test(t, func(t *testing.T) {
					var said told
					refused := false
					repo := openWeb(t, func(r *http.Request) *http.Response {
						if r.URL.Path != "/v2/" && !refused {
							refused = true
							return refuse(c.code, c.header...)
						}
						return answerManifest(someManifest)
					}, said.waiting)
					begun := time.Now()
					if err := do(t.Context(), repo); err != nil {
						t.Fatalf("%s: %v", what, err)
					}
					if waited := time.Since(begun); waited < c.wait || waited > c.wait+time.Second {
						t.Errorf("%s: waited %v, want %v", what, waited, c.wait)
					}
					if said.String() != c.told {
						t.Errorf("%s: told %q, want %q", what, said.String(), c.told)
					}
				})
			}
		})
	}
}

// TestRetryAfterWhenConnecting: the first request of all is refused, and that for a token.
func TestRetryAfterWhenConnecting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pings, tokens int
		repo := openWeb(t, func(r *http.Request) *http.Response {
			switch {
			case r.URL.Host == "auth.example":
				if tokens++; tokens == 1 {
					return refuse(429, "Retry-After", "90")
				}
				return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(`{"token":"x"}`))}
			case r.URL.Path == "/v2/":
				if pings++; pings == 1 {
					return refuse(503, "Retry-After", "60")
				}
				resp := status(http.StatusUnauthorized)
				resp.Header.Set("WWW-Authenticate", `Bearer realm="https://auth.example/token",service="x"`)
				return resp
			case r.Header.Get("Authorization") != "Bearer x":
				return status(http.StatusForbidden)
			}
			return answerManifest(someManifest)
		}, nil)
		if _, err := repo.Manifest(t.Context(), "1"); err != nil || pings != 2 || tokens != 2 {
			t.Fatalf("%d pings, %d tokens, %v", pings, tokens, err)
		}
	})
}

// TestRetryAfterOnUpload: each step of an upload waits as well, and what was sent is sent again.
func TestRetryAfterOnUpload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := map[string]int{}
		repo := openWeb(t, func(r *http.Request) *http.Response {
			if r.URL.Path == "/v2/" {
				return status(http.StatusOK)
			}
			seen[r.Method]++
			if r.Body != nil {
				if b, err := io.ReadAll(r.Body); err != nil || string(b) != "content" {
					t.Errorf("%s %q, %v", r.Method, b, err)
				}
			}
			switch {
			case seen[r.Method] == 1:
				return refuse(503, "Retry-After", "20")
			case r.Method == http.MethodPost:
				resp := status(http.StatusAccepted)
				resp.Header.Set("Location", "/v2/a/b/blobs/uploads/1")
				return resp
			}
			return status(http.StatusCreated)
		}, nil)
		sent := int64(0)
		begun := time.Now()
		if _, err := repo.PutBlob(t.Context(), manifest.Descriptor{Digest: d1, Size: 7}, "", oci.FromBytes([]byte("content")), func(n int64) { sent += n }); err != nil || sent != 7 {
			t.Errorf("%d bytes were sent, %v", sent, err)
		}
		if waited := time.Since(begun); waited < 40*time.Second || seen[http.MethodPut] != 2 {
			t.Errorf("waited %v, %v", waited, seen)
		}
	})
}

// TestRetryAfterTooLong: what is asked for beyond all measure is told at once, in the words of the
// registry; what never ends is told after a while.
func TestRetryAfterTooLong(t *testing.T) {
	for name, c := range map[string]struct {
		seconds        string
		atLeast, below time.Duration
	}{
		"an hour":  {"3600", 0, time.Second},
		"for good": {"60", 14 * time.Minute, 16 * time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			repo := openWeb(t, func(r *http.Request) *http.Response {
				if r.URL.Path == "/v2/" {
					return status(http.StatusOK)
				}
				return refuse(429, "Retry-After", c.seconds)
			}, nil)
			begun := time.Now()
			_, err := repo.Manifest(t.Context(), "1")
			var busy *oci.BusyError
			var e *oci.Error
			if !errors.As(err, &busy) || !errors.As(err, &e) || busy.Host != "127.0.0.1:5000" || !strings.Contains(err.Error(), "You have reached your pull rate limit.") {
				t.Errorf("%s: %v", name, err)
			}
			if waited := time.Since(begun); waited < c.atLeast || waited > c.below {
				t.Errorf("%s: waited %v", name, waited)
			}
		})
	}
	// Without Retry-After, the words are there as well.
	synctest.Test(t, func(t *testing.T) {
		n := 0
		repo := openWeb(t, func(r *http.Request) *http.Response {
			if r.URL.Path == "/v2/" {
				return status(http.StatusOK)
			}
			n++
			return refuse(429)
		}, nil)
		if _, err := repo.Manifest(t.Context(), "1"); err == nil || !strings.Contains(err.Error(), "You have reached your pull rate limit.") || n != 9 {
			t.Errorf("%d requests, %v", n, err)
		}
	})
}

// TestSharedGate: a host that has refused one request is not asked by the others either, nor by
// those of other repositories, until its time has passed; other hosts are. It is told once.
func TestSharedGate(t *testing.T) {
	for _, header := range [][]string{{"Retry-After", "30"}, nil} {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			var until time.Time
			early, n := 0, 0
			var said told
			c := oci.NewClient(oci.Options{Side: "test registry", Waiting: said.waiting, Transport: web(func(r *http.Request) *http.Response {
				mu.Lock()
				defer mu.Unlock()
				if r.URL.Path == "/v2/" {
					return status(http.StatusOK)
				}
				if r.URL.Host == "127.0.0.1:5001" {
					return answerManifest(someManifest)
				}
				if n++; n == 1 {
					until = time.Now().Add(time.Second)
					if header != nil {
						until = time.Now().Add(30 * time.Second)
					}
					return refuse(429, header...)
				}
				if time.Now().Before(until) {
					early++
				}
				return answerManifest(someManifest)
			})})
			read := func(host string, i int) {
				repo, err := c.Repository(t.Context(), host, fmt.Sprint("a/b", i), false)
				if err == nil {
					_, err = repo.Manifest(t.Context(), "1")
				}
				if err != nil {
					t.Error(err)
				}
			}
			var all sync.WaitGroup
			for i := range 100 {
				all.Go(func() {
					// The first one meets the refusal, the others come while its time runs.
					time.Sleep(time.Duration(i) * 10 * time.Millisecond)
					read("127.0.0.1:5000", i)
				})
			}
			all.Go(func() {
				time.Sleep(10 * time.Millisecond)
				begun := time.Now()
				read("127.0.0.1:5001", 0)
				if time.Since(begun) > 0 {
					t.Error("another host was waited for")
				}
			})
			all.Wait()
			if early != 0 || n != 101 {
				t.Errorf("%d of %d requests came too early", early, n)
			}
			if want := map[bool]string{true: "127.0.0.1:5000 30s"}[header != nil]; said.String() != want {
				t.Errorf("told %q, want %q", said.String(), want)
			}
		})
	}
}

// TestWaitingEnds where the context does.
func TestWaitingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		repo := openWeb(t, func(r *http.Request) *http.Response {
			if r.URL.Path == "/v2/" {
				return status(http.StatusOK)
			}
			return refuse(429, "Retry-After", "200")
		}, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		begun := time.Now()
		if _, err := repo.Manifest(ctx, "1"); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != 10*time.Second {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
	})
}

// TestManyImages: requests go side by side, but only so many to one host, and each registry is
// asked once how to log in.
func TestManyImages(t *testing.T) {
	for perHost, want := range map[int]int32{0: 48, 5: 5} {
		var now, most, pings atomic.Int32
		reg := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v2/" {
				pings.Add(1)
				return
			}
			n := now.Add(1)
			defer now.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			time.Sleep(50 * time.Millisecond)
			_, _ = io.WriteString(w, someManifest)
		}))
		host := strings.TrimPrefix(reg.URL, "http://")
		c := client(oci.Options{PerHost: perHost})
		var all sync.WaitGroup
		for i := range 200 {
			all.Go(func() {
				repo, err := c.Repository(t.Context(), host, fmt.Sprint("a/b", i), false)
				if err == nil {
					_, err = repo.Manifest(t.Context(), "1")
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		reg.Close()
		if most.Load() != want {
			t.Errorf("at most %d requests at a time, want %d", most.Load(), want)
		}
		if pings.Load() != 1 {
			t.Errorf("it was asked %d times how to log in", pings.Load())
		}
	}
}

// TestStreamsHoldNoSlot: blobs that are being read leave room for small requests.
func TestStreamsHoldNoSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{blob: bytesOf(1000)}
		c := oci.NewClient(oci.Options{Side: "test registry", Transport: s, PerHost: 1})
		repo, err := c.Repository(t.Context(), "127.0.0.1:5000", "a/b", false)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			r := repo.Blob(t.Context(), manifest.Descriptor{Digest: d1, Size: 1000}, 0)
			defer r.Close()
			if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := repo.Manifest(ctx, "1"); errors.Is(err, context.DeadlineExceeded) {
			t.Fatal("a small request waits for a blob")
		}
	})
}

// TestChallengeIsAskedAgain where the one who asked has gone, or the answer was not the last word.
func TestChallengeIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		c := oci.NewClient(oci.Options{Side: "test registry", Transport: web(func(r *http.Request) *http.Response {
			if r.URL.Path != "/v2/" {
				return answerManifest(someManifest)
			}
			switch n++; n {
			case 1:
				<-r.Context().Done()
				return status(http.StatusBadGateway)
			case 2:
				return status(http.StatusBadGateway)
			}
			return status(http.StatusOK)
		})})
		gone, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for i := range 10 {
			all.Go(func() {
				ctx := t.Context()
				if i == 0 {
					ctx = gone
				} else {
					time.Sleep(time.Second)
				}
				_, err := c.Repository(ctx, "registry.example", fmt.Sprint("a/b", i), false)
				if (err != nil) != (i == 0) {
					t.Errorf("repository %d: %v", i, err)
				}
			})
		}
		time.Sleep(2 * time.Second)
		cancel()
		all.Wait()
		if n != 3 {
			t.Errorf("asked %d times, want 3", n)
		}
	})
}

func TestParseMirror(t *testing.T) {
	for text, want := range map[string]string{
		"docker.io=mirror.example":               "docker.io mirror.example",
		"index.docker.io=mirror.example:5000":    "docker.io mirror.example:5000",
		"quay.io=mirror.example/quay/cache/":     "quay.io mirror.example/quay/cache",
		"127.0.0.1:5000=localhost:5001":          "127.0.0.1:5000 localhost:5001",
		"quay.io=docker.io/cache":                "quay.io docker.io/cache",
		"docker.io":                              "",
		"docker.io=":                             "",
		"=mirror.example":                        "",
		"docker.io=https://mirror.example":       "",
		"https://docker.io=mirror.example":       "",
		"docker.io/library=mirror.example":       "",
		"docker.io=mirror":                       "",
		"hub=mirror.example":                     "",
		"docker.io=mirror.example//":             "",
		"docker.io=mirror.example/a:1":           "",
		"docker.io=mirror.example/A":             "",
		"docker.io=mirror.example/a b":           "",
		"docker.io=mirror.example/../x":          "",
		"docker.io=mirror.example=other.example": "",
		"docker.io=user:pass@mirror.example/x":   "",
	} {
		host, mirror, err := oci.ParseMirror(text)
		var wrong *oci.MirrorError
		switch {
		case want == "" && !errors.As(err, &wrong):
			t.Errorf("%s: %q %q, %v; want a *MirrorError", text, host, mirror, err)
		case want != "" && (err != nil || host+" "+mirror != want):
			t.Errorf("%s: %q %q, %v; want %q", text, host, mirror, err, want)
		}
	}
}

// TestMirror: it is read from there, with what the mirror asks for, and said so; it is not written.
func TestMirror(t *testing.T) {
	ctx := t.Context()
	mirror := ocitest.New(t, ocitest.WithoutAPI)
	image := ocitest.Image(t, mirror.Open(t, "cache/hub/library/nginx"), "1", "amd64", "x")
	mirror.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if user, password, ok := r.BasicAuth(); ok && user == "jane" && password == "s3cret-pass" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	host, at, err := oci.ParseMirror("docker.io=" + mirror.Addr + "/cache/hub")
	if err != nil {
		t.Fatal(err)
	}
	c := client(oci.Options{Mirrors: map[string]string{host: at}, Keychain: keychain{mirror.Addr, "s3cret-pass"}})
	for _, registry := range []string{"docker.io", "index.docker.io"} {
		repo, err := c.Repository(ctx, registry, "library/nginx", false)
		if err != nil {
			t.Fatal(err)
		}
		got, err := repo.Manifest(ctx, "1")
		if err != nil || got.Digest != image || repo.Registry != registry || repo.Path != "library/nginx" {
			t.Fatalf("%+v, %v", got, err)
		}
		_, err = repo.Manifest(ctx, "2")
		var e *oci.Error
		if !errors.As(err, &e) || e.Registry != mirror.Addr || e.For != registry ||
			!strings.HasPrefix(err.Error(), "test registry "+mirror.Addr+" (for "+registry+"): reading manifest 2 of library/nginx, there cache/hub/library/nginx: ") {
			t.Errorf("%v", err)
		}
	}
	var asked []string
	c = oci.NewClient(oci.Options{Side: "test registry", Mirrors: map[string]string{"quay.io": "mirror.example"}, Transport: web(func(r *http.Request) *http.Response {
		asked = append(asked, r.URL.Host)
		return status(http.StatusNotFound)
	})})
	if _, err := c.Repository(ctx, "quay.io", "a/b", true); err == nil || strings.Join(asked, " ") != "quay.io" {
		t.Errorf("for writing, %v were asked: %v", asked, err)
	}
}

func TestTags(t *testing.T) {
	ctx := t.Context()
	for _, kind := range ocitest.Kinds {
		reg := ocitest.New(t, kind)
		repo := reg.Open(t, "a/b")
		for _, tag := range []string{"2", "1", "latest"} {
			ocitest.Image(t, repo, tag, "amd64", "x")
		}
		if tags, err := repo.Tags(ctx); err != nil || strings.Join(tags, " ") != "1 2 latest" {
			t.Errorf("%s: %v, %v", kind, tags, err)
		}
		if _, err := reg.Open(t, "not/there").Tags(ctx); !oci.IsNotFound(err) {
			t.Errorf("%s: %v", kind, err)
		}
	}
	for name, c := range map[string]struct {
		link func(page int) string
		tags func(page int) string
		want string // empty for an error
	}{
		"pages": {
			func(page int) string { return []string{`</v2/a/b/tags/list?last=x>; rel="next"`, ""}[page-1] },
			func(page int) string { return []string{`["b","a"]`, `["c","b","not a tag","-x"]`}[page-1] }, "a b c",
		},
		"null":            {func(int) string { return "" }, func(int) string { return "null" }, " "},
		"another host":    {func(int) string { return `<https://evil.example/v2/>; rel="next"` }, func(int) string { return `["a"]` }, ""},
		"for ever":        {func(int) string { return `</v2/a/b/tags/list>; rel="next"` }, func(int) string { return `[]` }, ""},
		"too many":        {func(int) string { return "" }, func(int) string { return "[" + strings.Repeat(`"a",`, 100001) + `"a"]` }, ""},
		"not even a list": {func(int) string { return "" }, func(int) string { return `{}` }, ""},
	} {
		page := 0
		repo := openWeb(t, func(r *http.Request) *http.Response {
			if r.URL.Path == "/v2/" {
				return status(http.StatusOK)
			}
			page++
			resp := status(http.StatusOK)
			if link := c.link(page); link != "" {
				resp.Header.Set("Link", link)
			}
			resp.Body = io.NopCloser(strings.NewReader(`{"name":"a/b","tags":` + c.tags(page) + `}`))
			return resp
		}, nil)
		tags, err := repo.Tags(ctx)
		var e *oci.Error
		if c.want == "" && !errors.As(err, &e) || c.want != "" && (err != nil || strings.Join(tags, " ") != strings.TrimSpace(c.want)) {
			t.Errorf("%s: %d tags, %v", name, len(tags), err)
		}
	}
}

// TestHTTPClient: the manners of NewHTTPClient.
func TestHTTPClient(t *testing.T) {
	get := func(t *testing.T, c *http.Client, url string) (string, error) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(req)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(resp.StatusCode, " ", string(b)), nil
	}
	ok := func(text string) *http.Response {
		return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(text))}
	}
	t.Run("tries again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := 0
			var said told
			c := oci.NewHTTPClient(oci.Options{UserAgent: "sealift/1", Waiting: said.waiting, Transport: web(func(r *http.Request) *http.Response {
				if r.UserAgent() != "sealift/1" {
					t.Errorf("user agent %q", r.UserAgent())
				}
				switch n++; n {
				case 1:
					return refuse(429, "Retry-After", "100")
				case 2:
					return status(500)
				case 3:
					return status(429)
				}
				return ok("index")
			})})
			begun := time.Now()
			if got, err := get(t, c, "https://charts.example/index.yaml"); err != nil || got != "200 index" || n != 4 {
				t.Errorf("%q, %v", got, err)
			}
			if waited := time.Since(begun); waited < 100*time.Second || waited > 110*time.Second || said.String() != "charts.example 1m40s" {
				t.Errorf("waited %v, told %q", waited, said.String())
			}
		})
	})
	t.Run("gives up", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			for code, want := range map[int]int{404: 1, 401: 1, 503: 9, 429: 9} {
				n := 0
				c := oci.NewHTTPClient(oci.Options{Transport: web(func(*http.Request) *http.Response { n++; return refuse(code) })})
				if got, err := get(t, c, "https://charts.example/index.yaml"); err != nil || got != fmt.Sprint(code, " ", refusal) || n != want {
					t.Errorf("%q after %d requests, want %d, %v", got, n, want, err)
				}
			}
			c := oci.NewHTTPClient(oci.Options{Transport: web(func(*http.Request) *http.Response { return refuse(429, "Retry-After", "9999") })})
			var busy *oci.BusyError
			if _, err := get(t, c, "https://charts.example/index.yaml"); !errors.As(err, &busy) {
				t.Error(err)
			}
		})
	})
	t.Run("plain HTTP", func(t *testing.T) {
		transport := web(func(*http.Request) *http.Response { return ok("") })
		var plain *oci.PlainHTTPError
		if _, err := get(t, oci.NewHTTPClient(oci.Options{Transport: transport}), "http://10.0.0.1/x"); !errors.As(err, &plain) {
			t.Error(err)
		}
		for url, o := range map[string]oci.Options{
			"http://10.0.0.1:80/x":  {Transport: transport, PlainHTTP: []string{"10.0.0.1:80"}},
			"http://127.0.0.1:80/x": {Transport: transport},
		} {
			if _, err := get(t, oci.NewHTTPClient(o), url); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("credentials", func(t *testing.T) {
		var seen []string
		redirect := map[string]string{"a.example/there": "https://b.example/x", "b.example/back": "https://a.example/x", "a.example/here": "/x"}
		c := oci.NewHTTPClient(oci.Options{Keychain: everywhere{}, Transport: web(func(r *http.Request) *http.Response {
			user, password, _ := r.BasicAuth()
			seen = append(seen, r.URL.Host+r.URL.Path+" "+user+password)
			if to := redirect[r.URL.Host+r.URL.Path]; to != "" {
				resp := status(http.StatusFound)
				resp.Header.Set("Location", to)
				return resp
			}
			return ok("")
		})})
		for url, want := range map[string]string{
			"https://a.example/x":     "a.example/x janea.example",
			"https://a.example/there": "a.example/there janea.example, b.example/x ",
			"https://a.example/here":  "a.example/here janea.example, a.example/x janea.example",
			"https://b.example/back":  "b.example/back janeb.example, a.example/x ",
		} {
			seen = nil
			if _, err := get(t, c, url); err != nil || strings.Join(seen, ", ") != want {
				t.Errorf("%s: saw %q, want %q, %v", url, seen, want, err)
			}
		}
	})
	t.Run("broken connections", func(t *testing.T) {
		var n atomic.Int32
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if n.Add(1) <= 2 {
				panic(http.ErrAbortHandler)
			}
			_, _ = io.WriteString(w, "index")
		}))
		defer s.Close()
		if got, err := get(t, oci.NewHTTPClient(oci.Options{Transport: oci.NewTransport(nil)}), s.URL); err != nil || got != "200 index" {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// everywhere is a keychain with other credentials for each host.
type everywhere struct{}

func (everywhere) Resolve(r authn.Resource) (authn.Authenticator, error) {
	return &authn.Basic{Username: "jane", Password: r.RegistryStr()}, nil
}
