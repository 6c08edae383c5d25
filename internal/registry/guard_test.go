//go:build unix

package registry_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sealift/sealift/internal/registry"
)

// TestOneWriterPerUpload: who has begun to write to an upload cannot change the blob that another has
// made of it.
func TestOneWriterPerUpload(t *testing.T) {
	store := t.TempDir()
	base, _ := openServer(t, registry.Options{Store: store})
	resp, raw := request(t, http.MethodPost, base+"/v2/a/blobs/uploads/", nil)
	wantStatus(t, resp, raw, http.StatusAccepted)
	where := location(t, resp, base)
	body, late := io.Pipe()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, where, body)
	if err != nil {
		t.Fatal(err)
	}
	type answer struct {
		status int
		err    error
	}
	answers := make(chan answer, 1)
	go func() {
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			answers <- answer{err: err}
			return
		}
		answers <- answer{resp.StatusCode, resp.Body.Close()}
	}()
	// It is under way when its file is open in this process.
	waitOpen(t, store)
	content := "the good content"
	d := digestOf([]byte(content))
	resp, raw = request(t, http.MethodPut, where+"&digest="+d, strings.NewReader(content))
	wantStatus(t, resp, raw, http.StatusCreated)
	if _, err := io.WriteString(late, "evil"); err != nil {
		t.Fatal(err)
	}
	_ = late.Close() // a pipe's never fails
	if got := <-answers; got.err != nil || got.status != http.StatusConflict {
		t.Errorf("answered %d, %v", got.status, got.err)
	}
	hex := strings.TrimPrefix(d, "sha256:")
	got, err := os.ReadFile(filepath.Join(store, "docker/registry/v2/blobs/sha256", hex[:2], hex, "data"))
	if err != nil || string(got) != content {
		t.Errorf("the blob is %q, %v", got, err)
	}
}

// waitOpen waits until an upload below a directory is open in this process.
func waitOpen(t *testing.T, dir string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip("no /proc")
		}
		for _, fd := range fds {
			if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, dir) && strings.HasSuffix(to, "/data") {
				return
			}
		}
	}
	t.Fatal("the upload was never opened")
}

// TestLinksInAStore: what links in a store lead to is neither given away nor removed.
func TestLinksInAStore(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	store := t.TempDir()
	state := registry.StateDir(store)
	if err := errors.Join(os.Mkdir(state, 0o755), os.Symlink(secret, filepath.Join(state, "lock"))); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(store, 54321, 54321); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := registry.OpenStore(t.Context(), store); err == nil {
		t.Error("a lock was taken that is a link")
	}
	info, err := os.Stat(secret)
	if err != nil {
		t.Fatal(err)
	}
	if s, ok := info.Sys().(*syscall.Stat_t); !ok || int(s.Uid) != os.Geteuid() {
		t.Errorf("the file was given to %d", s.Uid)
	}

	store = t.TempDir()
	other := filepath.Join(filepath.Dir(secret), "dir")
	manifests := filepath.Join(store, "docker/registry/v2/repositories/evil/_manifests")
	if err := errors.Join(os.Mkdir(other, 0o755), os.MkdirAll(manifests, 0o755), os.Symlink(filepath.Dir(secret), filepath.Join(manifests, "tags"))); err != nil {
		t.Fatal(err)
	}
	var link *registry.SymlinkError
	if _, err := registry.Prune(t.Context(), store, registry.PruneOptions{Now: time.Now()}); !errors.As(err, &link) {
		t.Errorf("pruned through a link: %v", err)
	}
	if _, err := os.Stat(other); err != nil {
		t.Error(err)
	}
}

// TestPruneWithoutRepositories: blobs stay where the repositories are not to be seen.
func TestPruneWithoutRepositories(t *testing.T) {
	store := t.TempDir()
	base, end := openServer(t, registry.Options{Store: store})
	(&pusher{t, base}).blob("a", mediaTar, "content")
	end()
	root := filepath.Join(store, "docker/registry/v2")
	away := filepath.Join(t.TempDir(), "repositories")
	if err := os.Rename(filepath.Join(root, "repositories"), away); err != nil {
		t.Fatal(err)
	}
	var none *registry.NoRepositoriesError
	if _, err := registry.Prune(t.Context(), store, registry.PruneOptions{Now: time.Now()}); !errors.As(err, &none) {
		t.Errorf("without repositories: %v", err)
	}
	if err := os.Symlink(away, filepath.Join(root, "repositories")); err != nil {
		t.Fatal(err)
	}
	var link *registry.SymlinkError
	if _, err := registry.Prune(t.Context(), store, registry.PruneOptions{Now: time.Now()}); !errors.As(err, &link) {
		t.Errorf("with a link: %v", err)
	}
}

// answering does something when an answer begins.
type answering struct {
	*httptest.ResponseRecorder
	then func()
}

// WriteHeader is where it does.
func (a *answering) WriteHeader(status int) {
	a.ResponseRecorder.WriteHeader(status)
	a.then()
}

// TestNextRequestForAnUpload: it may come as soon as the answer to the one before is there.
func TestNextRequestForAnUpload(t *testing.T) {
	s, err := registry.New(t.Context(), registry.Options{Store: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	var statuses []int
	send := func(method, where string, then func(where string)) {
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(&answering{w, func() {
			statuses = append(statuses, w.Code)
			then(w.Header().Get("Location"))
		}}, httptest.NewRequestWithContext(t.Context(), method, where, strings.NewReader("x")))
	}
	send(http.MethodPost, "/v2/a/blobs/uploads/", func(where string) {
		send(http.MethodPatch, where, func(where string) {
			send(http.MethodPut, where+"&digest="+digestOf([]byte("xx")), func(string) {})
		})
	})
	if !slices.Equal(statuses, []int{http.StatusAccepted, http.StatusAccepted, http.StatusCreated}) {
		t.Errorf("answered %v", statuses)
	}
}
