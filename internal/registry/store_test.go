package registry_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/sealift/sealift/internal/registry"
)

// openServer opens a store and serves it, until the test or close ends it.
func openServer(t testing.TB, o registry.Options) (base string, end func()) {
	t.Helper()
	s, err := registry.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(s.Handler())
	end = sync.OnceFunc(func() {
		h.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(end)
	return h.URL, end
}

// request sends one and returns the answer, read.
func request(t testing.TB, method, where string, body io.Reader, headers ...string) (*answered, []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, where, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return &answered{resp.StatusCode, resp.Header, resp.ContentLength, resp.Request}, raw
}

// answered is an answer whose body has been read.
type answered struct {
	StatusCode    int
	Header        http.Header
	ContentLength int64
	Request       *http.Request
}

// wantStatus ends the test where an answer has another status.
func wantStatus(t testing.TB, resp *answered, raw []byte, want int) {
	t.Helper()
	if resp.StatusCode != want {
		t.Fatalf("%s %s: status %d, want %d: %s", resp.Request.Method, resp.Request.URL.Path, resp.StatusCode, want, raw)
	}
}

// location is where the answer leads, at the server at base.
func location(t testing.TB, resp *answered, base string) string {
	t.Helper()
	to, err := url.Parse(resp.Header.Get("Location"))
	if err != nil || to.Path == "" {
		t.Fatalf("location %q: %v", resp.Header.Get("Location"), err)
	}
	return base + to.RequestURI()
}

func digestOf(raw []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(raw)) }

// bytesOf makes content that does not repeat.
func bytesOf(n int, seed uint64) []byte {
	raw := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = r.Read(raw)
	return raw
}

// TestUploadGoesOnAfterARestart: what clients were given before counts after it, the content is proven
// again from what the disk has, and a disk that has something else is found out.
func TestUploadGoesOnAfterARestart(t *testing.T) {
	for _, spoiled := range []bool{false, true} {
		t.Run(fmt.Sprintf("spoiled %v", spoiled), func(t *testing.T) {
			store := t.TempDir()
			content := bytesOf(100_000, 1)
			base, end := openServer(t, registry.Options{Store: store})
			resp, raw := request(t, http.MethodPost, base+"/v2/a/b/blobs/uploads/", nil)
			wantStatus(t, resp, raw, http.StatusAccepted)
			resp, raw = request(t, http.MethodPatch, location(t, resp, base), bytes.NewReader(content[:60_000]))
			wantStatus(t, resp, raw, http.StatusAccepted)
			end()
			if spoiled {
				files, err := filepath.Glob(filepath.Join(store, "docker/registry/v2/repositories/a/b/_uploads/*/data"))
				if err != nil || len(files) != 1 {
					t.Fatalf("uploads %v, %v", files, err)
				}
				spoil(t, files[0], 30_000)
			}
			base, _ = openServer(t, registry.Options{Store: store})
			where := location(t, resp, base)
			resp, raw = request(t, http.MethodGet, where, nil)
			wantStatus(t, resp, raw, http.StatusNoContent)
			if got := resp.Header.Get("Range"); got != "0-59999" {
				t.Fatalf("range %q", got)
			}
			resp, raw = request(t, http.MethodPatch, where, bytes.NewReader(content[60_000:]))
			wantStatus(t, resp, raw, http.StatusAccepted)
			resp, raw = request(t, http.MethodPut, location(t, resp, base)+"&digest="+digestOf(content), nil)
			if spoiled {
				wantStatus(t, resp, raw, http.StatusBadRequest)
				if !bytes.Contains(raw, []byte("DIGEST_INVALID")) {
					t.Fatalf("answer %s", raw)
				}
				return
			}
			wantStatus(t, resp, raw, http.StatusCreated)
			resp, raw = request(t, http.MethodGet, base+"/v2/a/b/blobs/"+digestOf(content), nil)
			wantStatus(t, resp, raw, http.StatusOK)
			if !bytes.Equal(raw, content) {
				t.Fatal("other content came back")
			}
		})
	}
}

func spoil(t testing.TB, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

func TestBlobsAreServedAsDistributionDoes(t *testing.T) {
	base, _ := openServer(t, registry.Options{Store: t.TempDir()})
	content := bytesOf(50_000, 2)
	resp, raw := request(t, http.MethodPost, base+"/v2/a/b/blobs/uploads/", nil)
	wantStatus(t, resp, raw, http.StatusAccepted)
	resp, raw = request(t, http.MethodPut, location(t, resp, base)+"&digest="+digestOf(content), bytes.NewReader(content))
	wantStatus(t, resp, raw, http.StatusCreated)
	blob := "/v2/a/b/blobs/" + digestOf(content)
	for _, c := range []struct {
		method, path string
		headers      []string
		status       int
		body         []byte
	}{
		{http.MethodGet, blob, nil, http.StatusOK, content},
		{http.MethodHead, blob, nil, http.StatusOK, nil},
		{http.MethodGet, blob, []string{"Range", "bytes=100-199"}, http.StatusPartialContent, content[100:200]},
		{http.MethodGet, blob, []string{"Range", "bytes=49990-"}, http.StatusPartialContent, content[49_990:]},
		{http.MethodGet, blob, []string{"If-None-Match", `"` + digestOf(content) + `"`}, http.StatusNotModified, nil},
		{http.MethodGet, blob, []string{"Range", "bytes=50000-"}, http.StatusRequestedRangeNotSatisfiable, []byte("invalid range: failed to overlap\n")},
	} {
		resp, raw := request(t, c.method, base+c.path, nil, c.headers...)
		wantStatus(t, resp, raw, c.status)
		if string(raw) != string(c.body) {
			t.Errorf("%s %v: %d bytes, want %d", c.method, c.headers, len(raw), len(c.body))
		}
		if c.status == http.StatusOK && (resp.ContentLength != int64(len(content)) || resp.Header.Get("Docker-Content-Digest") != digestOf(content)) {
			t.Errorf("%s: %d bytes announced, header %v", c.method, resp.ContentLength, resp.Header)
		}
	}
	for _, path := range []string{"/v2/a/c/blobs/" + digestOf(content), "/v2/a/b/blobs/" + digestOf(nil)} {
		resp, raw := request(t, http.MethodGet, base+path, nil)
		wantStatus(t, resp, raw, http.StatusNotFound)
		if !bytes.Contains(raw, []byte("BLOB_UNKNOWN")) {
			t.Errorf("%s: %s", path, raw)
		}
	}
	for _, path := range []string{"/v2/a/../../../etc/blobs/" + digestOf(content), "/v2/a/b/blobs/sha256:..", "/v2/a%2F..%2Fb/blobs/" + digestOf(content)} {
		if resp, _ := request(t, http.MethodGet, base+path, nil); resp.StatusCode < 300 {
			t.Errorf("%s: status %d", path, resp.StatusCode)
		}
	}
}

// throughStore sends requests for all hosts to a store, without a connection.
func throughStore(t testing.TB, s *registry.Store) []remote.Option {
	t.Helper()
	return []remote.Option{remote.WithTransport(s.Transport()), remote.WithContext(t.Context())}
}

// TestSeedWhileServed writes to a store directly while another opens it as a server that is pulled
// from and pushed to: each sees at once what the other has.
func TestSeedWhileServed(t *testing.T) {
	dir := t.TempDir()
	base, _ := openServer(t, registry.Options{Store: dir, SparseIndexes: true})
	host := strings.TrimPrefix(base, "http://")
	store, err := registry.OpenStore(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}()
	through := throughStore(t, store)
	shared, err := random.Layer(300_000, "application/vnd.oci.image.layer.v1.tar")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			// Each writes by one way what it then reads by the other, and all write the same layer.
			writeHost, write, readHost, read := "sealift.invalid", through, host, []remote.Option(nil)
			if i%2 == 1 {
				writeHost, write, readHost, read = readHost, read, writeHost, write
			}
			for j := range 3 {
				img := imageWith(t, shared, uint64(i*10+j))
				to := reference(t, writeHost, fmt.Sprintf("r%d:%d", i%3, i*10+j))
				if err := remote.Write(to, img, write...); err != nil {
					t.Errorf("writing %s: %v", to, err)
					return
				}
				from := reference(t, readHost, fmt.Sprintf("r%d:%d", i%3, i*10+j))
				got, err := remote.Image(from, read...)
				if err != nil {
					t.Errorf("reading %s: %v", from, err)
					return
				}
				if err := readImage(got); err != nil {
					t.Errorf("reading %s: %v", from, err)
				}
			}
		})
	}
	all.Wait()
	tags, err := remote.List(repository(t, host, "r0"))
	if err != nil || len(tags) != 9 {
		t.Fatalf("tags %v, %v", tags, err)
	}
	var busy *registry.BusyError
	if _, err := registry.Prune(t.Context(), dir, registry.PruneOptions{Now: time.Now()}); !errors.As(err, &busy) || busy.Pruning {
		t.Fatalf("pruning what is served: %v", err)
	}
}

func reference(t testing.TB, host, rest string) name.Reference {
	t.Helper()
	ref, err := name.ParseReference(host+"/"+rest, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func repository(t testing.TB, host, rest string) name.Repository {
	t.Helper()
	repo, err := name.NewRepository(host+"/"+rest, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	return repo
}

func imageWith(t testing.TB, layer v1.Layer, seed uint64) v1.Image {
	t.Helper()
	img, err := appendLayers(layer, bytesOf(2_000, seed))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// TestStoreTransport has our own kinds of clients and a large blob go through.
func TestStoreTransport(t *testing.T) {
	store, err := registry.OpenStore(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	client := &http.Client{Transport: store.Transport()}
	content := bytesOf(20<<20, 3)
	do := func(method, where string, body io.Reader) (*answered, []byte, error) {
		r, err := http.NewRequestWithContext(t.Context(), method, where, body)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(r)
		if err != nil {
			return nil, nil, err
		}
		defer resp.Body.Close()
		raw, err := io.ReadAll(resp.Body)
		return &answered{resp.StatusCode, resp.Header, resp.ContentLength, resp.Request}, raw, err
	}
	for _, base := range []string{"http://one.invalid", "https://two.invalid:5000"} {
		resp, raw, err := do(http.MethodPost, base+"/v2/a/b/blobs/uploads/", nil)
		if err != nil {
			t.Fatal(err)
		}
		wantStatus(t, resp, raw, http.StatusAccepted)
		if !strings.HasPrefix(resp.Header.Get("Location"), base+"/v2/a/b/blobs/uploads/") {
			t.Fatalf("location %q", resp.Header.Get("Location"))
		}
		// A body whose length is not announced.
		resp, raw, err = do(http.MethodPatch, resp.Header.Get("Location"), io.MultiReader(bytes.NewReader(content)))
		if err != nil {
			t.Fatal(err)
		}
		wantStatus(t, resp, raw, http.StatusAccepted)
		resp, raw, err = do(http.MethodPut, resp.Header.Get("Location")+"&digest="+digestOf(content), nil)
		if err != nil {
			t.Fatal(err)
		}
		wantStatus(t, resp, raw, http.StatusCreated)
		resp, raw, err = do(http.MethodGet, base+"/v2/a/b/blobs/"+digestOf(content), nil)
		if err != nil || !bytes.Equal(raw, content) || resp.ContentLength != int64(len(content)) {
			t.Fatalf("%d of %d bytes, %v", len(raw), resp.ContentLength, err)
		}
		resp, raw, err = do(http.MethodHead, base+"/v2/a/b/blobs/"+digestOf(content), nil)
		if err != nil || len(raw) != 0 || resp.ContentLength != int64(len(content)) {
			t.Fatalf("HEAD: %d bytes, %d announced, %v", len(raw), resp.ContentLength, err)
		}
	}
}

// TestFullDisk: the client is told, in words, and what could not be finished does not keep the disk
// full.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system takes root")
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("mount: %v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("umount", "-l", dir).Run() })
	s, err := registry.New(t.Context(), registry.Options{Store: dir})
	if err != nil {
		t.Fatal(err)
	}
	f, err := registry.NewFront(s.Handler(), registry.FrontOptions{Now: time.Now, Health: s.Health})
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(f)
	t.Cleanup(func() {
		h.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	base := h.URL
	resp, raw := request(t, http.MethodPost, base+"/v2/a/b/blobs/uploads/", nil)
	wantStatus(t, resp, raw, http.StatusAccepted)
	upload := location(t, resp, base)
	big := bytesOf(30<<20, 4)
	resp, raw = request(t, http.MethodPatch, upload, bytes.NewReader(big))
	wantStatus(t, resp, raw, http.StatusInsufficientStorage)
	if !bytes.Contains(raw, []byte("no space left on device")) {
		t.Fatalf("answer %s", raw)
	}
	// A smaller one finds room.
	small := bytesOf(1<<20, 5)
	resp, raw = request(t, http.MethodPost, base+"/v2/a/b/blobs/uploads/", nil)
	wantStatus(t, resp, raw, http.StatusAccepted)
	resp, raw = request(t, http.MethodPut, location(t, resp, base)+"&digest="+digestOf(small), bytes.NewReader(small))
	wantStatus(t, resp, raw, http.StatusCreated)
	resp, raw = request(t, http.MethodGet, base+"/healthz", nil)
	wantStatus(t, resp, raw, http.StatusOK)
	// Now by somebody else.
	if err := os.WriteFile(filepath.Join(dir, "other"), make([]byte, 16<<20), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	// What was found a moment ago counts for a while, for a front.
	other, err := registry.NewFront(s.Handler(), registry.FrontOptions{Now: time.Now, Health: s.Health})
	if err != nil {
		t.Fatal(err)
	}
	second := httptest.NewServer(other)
	defer second.Close()
	resp, raw = request(t, http.MethodGet, second.URL+"/healthz", nil)
	wantStatus(t, resp, raw, http.StatusServiceUnavailable)
	resp, raw = request(t, http.MethodPut, base+"/v2/a/b/manifests/1", strings.NewReader(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`), "Content-Type", "application/vnd.oci.image.index.v1+json")
	wantStatus(t, resp, raw, http.StatusInsufficientStorage)
	// What is there can be read.
	resp, raw = request(t, http.MethodGet, base+"/v2/a/b/blobs/"+digestOf(small), nil)
	wantStatus(t, resp, raw, http.StatusOK)
}

// TestLongReadsAndWritesKeepTheirConnection is for the deadlines, which begin anew with each piece.
func TestLongReadsAndWritesKeepTheirConnection(t *testing.T) {
	var now atomic.Int64
	now.Store(time.Now().UnixNano())
	// The clock runs an hour with each look at it; the connection's own clock does not.
	clock := func() time.Time { return time.Unix(0, now.Add(int64(time.Hour))) }
	content := bytesOf(40<<20, 6)
	f, err := registry.NewFront(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil || n != int64(len(content)) {
			t.Errorf("received %d bytes, %v", n, err)
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}), registry.FrontOptions{Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(f)
	defer h.Close()
	for range 3 {
		resp, raw := request(t, http.MethodPost, h.URL+"/v2/", bytes.NewReader(content))
		wantStatus(t, resp, raw, http.StatusOK)
		if !bytes.Equal(raw, content) {
			t.Fatal("other content came back")
		}
	}
}

func TestReadOnlyStoreIsNotTouched(t *testing.T) {
	store := t.TempDir()
	base, end := openServer(t, registry.Options{Store: store, ReadOnly: true})
	resp, raw := request(t, http.MethodPost, base+"/v2/a/b/blobs/uploads/", nil)
	wantStatus(t, resp, raw, http.StatusMethodNotAllowed)
	end()
	left, err := os.ReadDir(store)
	if err != nil || len(left) != 0 {
		t.Fatalf("files %v, %v", left, err)
	}
}

func TestOpeningWaitsForOneThatPrunes(t *testing.T) {
	store := t.TempDir()
	_, end := openServer(t, registry.Options{Store: store})
	end()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	release := holdToPrune(t, store)
	if _, err := registry.OpenStore(ctx, store); !errors.Is(err, context.Canceled) {
		t.Fatalf("opening what is pruned: %v", err)
	}
	opened := make(chan error, 1)
	go func() {
		s, err := registry.OpenStore(t.Context(), store)
		if err == nil {
			err = s.Close()
		}
		opened <- err
	}()
	release()
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
}
