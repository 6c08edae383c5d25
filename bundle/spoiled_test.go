package bundle_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/sealift/sealift/bundle"
	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/oci/ocitest"
	"github.com/sealift/sealift/internal/progress"
)

// spoiling changes a byte in the first bodies of blobs.
type spoiling struct{ io.ReadCloser }

func (s spoiling) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if n > 0 {
		p[0] ^= 1
	}
	return n, err
}

// counter is a progress.Reporter that adds up.
type counter struct {
	mu          sync.Mutex
	total, done int64
}

func (c *counter) Start(_ string, total int64, unit progress.Unit) progress.Task {
	if unit != progress.Bytes {
		return progress.Discard.Start("", 0, unit)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total += total
	return c
}

func (c *counter) Add(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done += n
}

func (*counter) Note(string) {}
func (*counter) Done()       {}

// TestSpoiledBlobsAreFetchedAgain, a few times: a proxy may have cut or changed what it passed on.
// The bundle is the same as if nothing had happened.
func TestSpoiledBlobsAreFetchedAgain(t *testing.T) {
	reg := ocitest.New(t, ocitest.WithoutAPI)
	ref := reg.Addr + "/a/b:1"
	push(t, ref, randomImage(t, "linux/amd64"))
	packed := func(times int) (string, int, error) {
		spoiled := 0
		on := false
		client := oci.NewClient(oci.Options{Side: "source registry", PerHost: 1, Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			resp, err := http.DefaultTransport.RoundTrip(r)
			if on && err == nil && strings.Contains(r.URL.Path, "/blobs/") && spoiled < times {
				spoiled++
				resp.Body = spoiling{resp.Body}
			}
			return resp, err
		})})
		r, err := resolveWith(t, specOf(t, "", "- ref: "+ref), bundle.Options{Client: client})
		if err != nil {
			t.Fatal(err)
		}
		on = true
		var done counter
		res, err := r.Pack(t.Context(), bundle.PackOptions{Output: t.TempDir(), Jobs: 1, Progress: &done})
		if err != nil {
			return "", spoiled, err
		}
		if done.total != done.done {
			t.Errorf("progress was told to be %d of %d", done.done, done.total)
		}
		return res.Digest, spoiled, nil
	}
	want, _, err := packed(0)
	if err != nil {
		t.Fatal(err)
	}
	for _, times := range []int{1, 2} {
		if got, spoiled, err := packed(times); err != nil || got != want || spoiled != times {
			t.Errorf("%d spoiled: got %s, want %s; %v", spoiled, got, want, err)
		}
	}
	_, spoiled, err := packed(99)
	var wrong *archive.ContentError
	if !errors.As(err, &wrong) || spoiled != 3 {
		t.Errorf("%v after %d", err, spoiled)
	}
}
