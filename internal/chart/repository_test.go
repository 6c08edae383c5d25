package chart

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// archiveOf makes the .tgz of a chart.
func archiveOf(t testing.TB, name, version string, more map[string]string) []byte {
	t.Helper()
	files := map[string]string{"Chart.yaml": fmt.Sprintf("apiVersion: v2\nname: %s\nversion: %s\n", name, version)}
	for k, v := range more {
		if k == "Chart.yaml" {
			v = files[k] + v
		}
		files[k] = v
	}
	return mustLoad(t, writeChart(t, files)).Archive
}

// testRepository is a chart repository behind TLS and a password.
type testRepository struct {
	*httptest.Server
	user string

	mu     sync.Mutex
	files  map[string][]byte
	answer map[string]http.HandlerFunc
	asked  []string
}

func newTestRepository(t testing.TB) *testRepository {
	t.Helper()
	r := &testRepository{user: "vendor", files: map[string][]byte{}, answer: map[string]http.HandlerFunc{}}
	r.Server = httptest.NewUnstartedServer(r)
	r.Config.ErrorLog = log.New(io.Discard, "", 0)
	r.StartTLS()
	t.Cleanup(r.Close)
	return r
}

func (r *testRepository) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.asked = append(r.asked, req.URL.RequestURI())
	data, ok := r.files[req.URL.Path]
	answer := r.answer[req.URL.Path]
	r.mu.Unlock()
	if user, password, _ := req.BasicAuth(); user != r.user || password != "secret" {
		http.Error(w, "who are you", http.StatusUnauthorized)
		return
	}
	switch {
	case answer != nil:
		answer(w, req)
	case !ok:
		http.NotFound(w, req)
	default:
		_, _ = w.Write(data)
	}
}

func (r *testRepository) requests() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.asked
	r.asked = nil
	return l
}

// put adds a chart to the index, at some addresses.
func (r *testRepository) put(name, version, digest string, urls ...string) {
	const path = "/charts/index.yaml"
	if len(r.files[path]) == 0 {
		r.files[path] = []byte("apiVersion: v1\ngenerated: \"2026-01-01T00:00:00Z\"\nsomething: new\nentries:\n")
	}
	// One list for each name, flow style, so that it can be appended to.
	index := string(r.files[path])
	for i, u := range urls {
		urls[i] = strconv.Quote(u)
	}
	entry := fmt.Sprintf("{name: %s, version: %q, apiVersion: v2, digest: %q, urls: [%s]}", name, version, digest, strings.Join(urls, ", "))
	if before, after, ok := strings.Cut(index, "  "+name+": ["); ok {
		index = before + "  " + name + ": [" + entry + ", " + after
	} else {
		index += "  " + name + ": [" + entry + "]\n"
	}
	r.files[path] = []byte(index)
}

// publish puts a chart's archive into the repository, and into the index.
func (r *testRepository) publish(archive []byte, name, version string) {
	file := name + "-" + version + ".tgz"
	r.files["/charts/"+file] = archive
	r.put(name, version, strings.TrimPrefix(digestOf(archive), "sha256:"), file)
}

type basicAuth struct {
	user, password string
	next           http.RoundTripper
}

func (b basicAuth) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.SetBasicAuth(b.user, b.password)
	return b.next.RoundTrip(r)
}

func (r *testRepository) fetcher() *Fetcher {
	client := r.Client()
	client.Transport = basicAuth{"vendor", "secret", client.Transport}
	return &Fetcher{HTTP: client}
}

func TestFetchFromRepository(t *testing.T) {
	r := newTestRepository(t)
	archives := map[string][]byte{}
	for _, v := range []string{"1.0.0", "1.2.0", "1.10.0", "2.0.0-rc.1", "1.2.0+vendor.2"} {
		archives[v] = archiveOf(t, "shop", v, nil)
		r.publish(archives[v], "shop", v)
	}
	f := r.fetcher()
	for _, tt := range []struct{ ask, want string }{
		{"", "1.10.0"}, {"1.0.0", "1.0.0"}, {"~1.2", "1.2.0+vendor.2"}, {"1.2.0", "1.2.0"}, {"<1.2", "1.0.0"}, {">=2-0", "2.0.0-rc.1"},
	} {
		got, err := f.Fetch(t.Context(), Location{Repo: r.URL + "/charts/", Name: "shop", Version: tt.ask})
		if err != nil {
			t.Errorf("%q: %v", tt.ask, err)
			continue
		}
		if got.Version != tt.want || !bytes.Equal(got.Archive, archives[tt.want]) || got.Source != r.URL+"/charts/ shop" || got.OCI != nil || got.Provenance != nil || got.SignedBy != "" {
			t.Errorf("%q: got %s from %q", tt.ask, got.Version, got.Source)
		}
	}
	n := 0
	for _, q := range r.requests() {
		if strings.HasSuffix(q, "index.yaml") {
			n++
		}
	}
	if n != 1 {
		t.Errorf("the index was read %d times", n)
	}

	pinned := Location{Repo: r.URL + "/charts", Name: "shop", Version: "1.2.0", Pinned: digestOf(archives["1.2.0"])}
	if _, err := f.Fetch(t.Context(), pinned); err != nil {
		t.Error(err)
	}
	pinned.Pinned = digestOf([]byte("other"))
	var pe *PinError
	if _, err := f.Fetch(t.Context(), pinned); !errors.As(err, &pe) || pe.Chart != "shop" || pe.Got != digestOf(archives["1.2.0"]) || pe.Want != pinned.Pinned {
		t.Errorf("got %v", err)
	}

	var ve *VersionError
	_, err := f.Fetch(t.Context(), Location{Repo: r.URL + "/charts", Name: "shop", Version: "^7"})
	if !errors.As(err, &ve) || ve.Chart != "shop" || ve.Want != "^7" || !slices.Equal(ve.Have, []string{"2.0.0-rc.1", "1.10.0", "1.2.0+vendor.2", "1.2.0", "1.0.0"}) {
		t.Errorf("got %v", err)
	}
	_, err = f.Fetch(t.Context(), Location{Repo: r.URL + "/charts", Name: "nothing"})
	if !errors.As(err, &ve) || ve.Chart != "nothing" || len(ve.Have) != 0 {
		t.Errorf("got %v", err)
	}
	var re *RangeError
	if _, err = f.Fetch(t.Context(), Location{Repo: r.URL + "/charts", Name: "shop", Version: "newest"}); !errors.As(err, &re) {
		t.Errorf("got %v", err)
	}
}

// Two goroutines that need one index read it once; who is cancelled does not spoil it for the others.
func TestIndexIsShared(t *testing.T) {
	r := newTestRepository(t)
	r.publish(archiveOf(t, "shop", "1.0.0", nil), "shop", "1.0.0")
	f := r.fetcher()
	l := Location{Repo: r.URL + "/charts", Name: "shop"}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Fetch(cancelled, l); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := f.Fetch(t.Context(), l); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	n := 0
	for _, q := range r.requests() {
		if strings.HasSuffix(q, "index.yaml") {
			n++
		}
	}
	if n != 1 {
		t.Errorf("the index was read %d times", n)
	}
}

func TestArchiveAddresses(t *testing.T) {
	r := newTestRepository(t)
	archive := archiveOf(t, "shop", "1.0.0", nil)
	r.files["/elsewhere/deep/shop.tgz"] = archive
	r.files["/charts/sub/shop.tgz"] = archive
	for _, tt := range []struct {
		name, repo string
		urls       []string
		last       string
	}{
		{"relative", "/charts", []string{"sub/shop.tgz"}, "/charts/sub/shop.tgz"},
		{"relative with query", "/charts?token=t", []string{"sub/shop.tgz"}, "/charts/sub/shop.tgz?token=t"},
		{"from the root", "/charts", []string{"/elsewhere/deep/shop.tgz"}, "/elsewhere/deep/shop.tgz"},
		{"upwards", "/charts/", []string{"../elsewhere/deep/shop.tgz"}, "/elsewhere/deep/shop.tgz"},
		{"absolute", "/charts", []string{r.URL + "/elsewhere/deep/shop.tgz?a=b"}, "/elsewhere/deep/shop.tgz?a=b"},
		{"the second works", "/charts", []string{"gone.tgz", "ftp://a/b", "sub/shop.tgz"}, "/charts/sub/shop.tgz"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			delete(r.files, "/charts/index.yaml")
			r.put("shop", "1.0.0", strings.ToUpper(strings.TrimPrefix(digestOf(archive), "sha256:")), tt.urls...)
			r.requests()
			got, err := r.fetcher().Fetch(t.Context(), Location{Repo: r.URL + tt.repo, Name: "shop"})
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Archive, archive) || strings.Contains(got.Source, "token") {
				t.Errorf("got %d bytes from %q", len(got.Archive), got.Source)
			}
			asked := r.requests()
			// The last but one: the provenance file is looked for after it.
			if q := asked[len(asked)-2]; q != tt.last {
				t.Errorf("asked for %q", asked)
			}
		})
	}
}

// A server that says of a .tgz that it is a compressed .tar must not make us keep the .tar.
func TestArchiveIsNotDecompressed(t *testing.T) {
	r := newTestRepository(t)
	archive := archiveOf(t, "shop", "1.0.0", nil)
	r.publish(archive, "shop", "1.0.0")
	r.answer["/charts/shop-1.0.0.tgz"] = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(archive)
	}
	got, err := r.fetcher().Fetch(t.Context(), Location{Repo: r.URL + "/charts", Name: "shop"})
	if err != nil || !bytes.Equal(got.Archive, archive) {
		t.Errorf("got %v", err)
	}
}

// TestArchiveThatBreaksOff is asked for again, so often and no more.
func TestArchiveThatBreaksOff(t *testing.T) {
	for _, breaks := range []int{2, 3} {
		r := newTestRepository(t)
		archive := archiveOf(t, "shop", "1.0.0", nil)
		r.publish(archive, "shop", "1.0.0")
		n := 0
		r.answer["/charts/shop-1.0.0.tgz"] = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(len(archive)))
			if n++; n <= breaks {
				_, _ = w.Write(archive[:len(archive)/2])
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}
			_, _ = w.Write(archive)
		}
		got, err := r.fetcher().Fetch(t.Context(), Location{Repo: r.URL + "/charts", Name: "shop"})
		if breaks < bodyTries && (err != nil || !bytes.Equal(got.Archive, archive)) {
			t.Errorf("after %d breaks: %v", breaks, err)
		}
		if breaks >= bodyTries && (!errors.Is(err, io.ErrUnexpectedEOF) || n != bodyTries) {
			t.Errorf("after %d breaks and %d tries: %v", breaks, n, err)
		}
	}
}

func TestRepositoryErrors(t *testing.T) {
	archive := archiveOf(t, "shop", "1.0.0", nil)
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", code) }
	}
	const index, file = "/charts/index.yaml", "/charts/shop-1.0.0.tgz"
	tests := []struct {
		name   string
		set    func(r *testRepository)
		status int
		want   string
	}{
		{"no index", func(r *testRepository) { delete(r.files, index) }, 404, "got status 404"},
		{"denied", func(r *testRepository) { r.user = "somebody else" }, 401, "got status 401"},
		{"broken server", func(r *testRepository) { r.answer[index] = status(500) }, 500, "got status 500"},
		{"a page instead of the index", func(r *testRepository) {
			r.files[index] = []byte("<!DOCTYPE html>\n<html><body>Welcome</body></html>\n")
		}, 0, "no index.yaml"},
		{"an index without apiVersion", func(r *testRepository) { r.files[index] = []byte("entries: {}\n") }, 0, "no apiVersion"},
		{"an empty index", func(r *testRepository) { r.files[index] = []byte{} }, 0, "no apiVersion"},
		{"entries that are no lists", func(r *testRepository) { r.files[index] = []byte("apiVersion: v1\nentries: {shop: 3}\n") }, 0, "no index.yaml"},
		{"an index that says that it is huge", func(r *testRepository) {
			r.answer[index] = func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", fmt.Sprint(MaxIndex+1)) }
		}, 0, "more than 67108864 bytes"},
		{"an index that does not end", func(r *testRepository) {
			r.answer[index] = func(w http.ResponseWriter, _ *http.Request) {
				line := bytes.Repeat([]byte("# nothing\n"), 100_000)
				for {
					if _, err := w.Write(line); err != nil {
						return
					}
				}
			}
		}, 0, "more than 67108864 bytes"},
		{"no archive", func(r *testRepository) { delete(r.files, file) }, 404, "got status 404"},
		{"an archive that says that it is huge", func(r *testRepository) {
			r.answer[file] = func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", fmt.Sprint(MaxArchive+1))
			}
		}, 0, "more than 67108864 bytes"},
		{"a cut connection", func(r *testRepository) {
			r.answer[file] = func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", fmt.Sprint(len(archive)))
				_, _ = w.Write(archive[:100])
			}
		}, 0, "after 100 bytes"},
		{"a truncated archive", func(r *testRepository) {
			r.files[file] = archive[:len(archive)/2]
		}, 0, "reading chart archive"},
		{"another archive", func(r *testRepository) {
			r.files[file] = archiveOf(t, "shop", "1.0.0", map[string]string{"values.yaml": "a: 1\n"})
		}, 0, "not the one of the index: got sha256:"},
		{"another version in the archive", func(r *testRepository) {
			delete(r.files, index)
			r.put("shop", "1.0.1", "", "shop-1.0.0.tgz")
		}, 0, `got chart "shop" 1.0.0, want "shop" 1.0.1`},
		{"another name in the archive", func(r *testRepository) {
			r.files[file] = archiveOf(t, "ship", "1.0.0", nil)
			delete(r.files, index)
			r.put("shop", "1.0.0", "", "shop-1.0.0.tgz")
		}, 0, `got chart "ship" 1.0.0`},
		{"another name in the index", func(r *testRepository) {
			r.files[index] = bytes.Replace(r.files[index], []byte("{name: shop"), []byte("{name: ship"), 1)
		}, 0, `chart "ship" under the name "shop"`},
		{"a digest that is none", func(r *testRepository) {
			delete(r.files, index)
			r.put("shop", "1.0.0", "md5:123", "shop-1.0.0.tgz")
		}, 0, "not the one of the index"},
		{"an address with another scheme", func(r *testRepository) {
			delete(r.files, index)
			r.put("shop", "1.0.0", "", "ftp://example.com/shop.tgz")
		}, 0, `scheme "ftp"`},
		{"an address that is none", func(r *testRepository) {
			delete(r.files, index)
			r.put("shop", "1.0.0", "", "https://[::1")
		}, 0, "an address that is none"},
		{"broken provenance storage", func(r *testRepository) { r.answer[file+".prov"] = status(502) }, 502, "fetching the provenance"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newTestRepository(t)
			r.publish(archive, "shop", "1.0.0")
			tt.set(r)
			address := strings.Replace(r.URL, "https://", "https://eve:hunter2@", 1) + "/charts?token=hunter3"
			_, err := r.fetcher().Fetch(t.Context(), Location{Repo: address, Name: "shop"})
			var re *RepositoryError
			if !errors.As(err, &re) || re.Status != tt.status || !strings.Contains(err.Error(), tt.want) || !strings.Contains(re.Address, "127.0.0.1") && tt.want != `scheme "ftp"` {
				t.Errorf("got %v (%+v)", err, re)
			}
			if err != nil && (strings.Contains(err.Error(), "hunter") || strings.Contains(err.Error(), "eve")) {
				t.Errorf("the error tells a secret: %v", err)
			}
		})
	}
	for _, address := range []string{"oci://example.com/charts", "ftp://example.com", "charts", "https://", "https://a b:hunter2@[::"} {
		var re *RepositoryError
		if _, err := (&Fetcher{}).Fetch(t.Context(), Location{Repo: address, Name: "shop"}); !errors.As(err, &re) || strings.Contains(err.Error(), "hunter") {
			t.Errorf("%q: got %v", address, err)
		}
	}
	t.Run("no connection", func(t *testing.T) {
		r := newTestRepository(t)
		f := r.fetcher()
		r.Close()
		var re *RepositoryError
		_, err := f.Fetch(t.Context(), Location{Repo: strings.Replace(r.URL, "//", "//eve:hunter2@", 1), Name: "shop"})
		if !errors.As(err, &re) || re.Status != 0 || strings.Contains(err.Error(), "eve") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("unknown authority", func(t *testing.T) {
		r := newTestRepository(t)
		var re *RepositoryError
		_, err := (&Fetcher{HTTP: &http.Client{Transport: &http.Transport{}}}).Fetch(t.Context(), Location{Repo: r.URL, Name: "shop"})
		if !errors.As(err, &re) || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("got %v", err)
		}
	})
}

// What is not there may be answered in many ways.
func TestNoProvenanceInRepository(t *testing.T) {
	r := newTestRepository(t)
	r.publish(archiveOf(t, "shop", "1.0.0", nil), "shop", "1.0.0")
	for name, answer := range map[string]http.HandlerFunc{
		"not found": http.NotFound,
		"forbidden": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) },
		"a page":    func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>not found</html>") },
	} {
		r.answer["/charts/shop-1.0.0.tgz.prov"] = answer
		got, err := r.fetcher().Fetch(t.Context(), Location{Repo: r.URL + "/charts", Name: "shop"})
		if err != nil || got.Provenance != nil {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func FuzzRepositoryIndex(f *testing.F) {
	f.Add([]byte("apiVersion: v1\nentries:\n  shop:\n  - {name: shop, version: 1.0.0, urls: [a.tgz], digest: abc}\n  - {name: shop, version: 1, urls: [\"https://x/y\"]}\n  -\n"))
	f.Add([]byte(`{"apiVersion":"v1","entries":{"shop":[{"name":"shop","version":"1.0.0","urls":["../a"]},null]}}`))
	f.Add([]byte("<html><body>no</body></html>"))
	f.Add([]byte("a: &a [*a]\nentries: *a\n"))
	f.Add([]byte("entries: {shop: [{<<: {name: x}}]}\napiVersion: 1"))
	repository, err := parseRepository("https://user:pass@example.com/charts?x=y")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 64<<10 {
			return
		}
		index, err := parseIndex(data)
		if err != nil {
			return
		}
		for name := range index.Entries {
			for _, ask := range []string{"", "1.0.0", ">=1"} {
				s, err := newSelector(ask)
				if err != nil {
					t.Fatal(err)
				}
				entry, err := index.find(name, s)
				if err != nil {
					continue
				}
				if !s.matches(entry.Version) || entry.Name != name {
					t.Fatalf("%q of %q: chose %+v", ask, name, entry)
				}
				for _, raw := range entry.URLs {
					u, err := resolveArchive(repository, raw)
					if err == nil && (u.Host == "" || u.Scheme != "https" && u.Scheme != "http" && u.Scheme != "oci") {
						t.Fatalf("%q became %q", raw, u)
					}
				}
			}
		}
	})
}
