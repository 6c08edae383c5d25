package registry_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sealift/sealift/internal/registry"
)

// TestUsersGone: the loss of the file of users lets nobody in after a restart either.
func TestUsersGone(t *testing.T) {
	state := registry.StateDir(t.TempDir())
	path := filepath.Join(state, "users")
	marker := filepath.Join(state, "closed")
	if _, err := registry.AddUser(path, "jane", "x"); err != nil {
		t.Fatal(err)
	}
	// A file that was put there by other means counts too.
	if err := os.Remove(marker); err != nil {
		t.Fatal(err)
	}
	if _, err := registry.WatchUsers(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	var gone *registry.UsersGoneError
	if _, err := registry.WatchUsers(path); !errors.As(err, &gone) || gone.Marker != marker {
		t.Fatalf("without the file: %v", err)
	}
	if err := os.Remove(marker); err != nil {
		t.Fatal(err)
	}
	if users, err := registry.WatchUsers(path); err != nil || !users.Open() {
		t.Errorf("without the marker: %v", err)
	}
}

// TestBodyThatNeverComes: a request that is refused does not hold its connection.
func TestBodyThatNeverComes(t *testing.T) {
	for _, auth := range []bool{true, false} {
		o := registry.FrontOptions{}
		if auth {
			o.Users = openUsers(t, usersFile(t, "jane"))
		} else {
			// Time runs out in a second for those who must be waited for.
			o.Now = func() time.Time { return time.Now().Add(time.Second - 5*time.Minute) }
		}
		where := serveFront(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), o)
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", where)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, "POST /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(c)
		if err, ok := errors.AsType[net.Error](err); ok && err.Timeout() {
			t.Errorf("refused %t: the connection is held; answered %q", auth, got)
		}
		if auth && !strings.HasPrefix(string(got), "HTTP/1.1 401") {
			t.Errorf("answered %q", got)
		}
		_ = c.Close() // it was given up
	}
}

// TestLargeManifests: what would take much more memory than it has bytes is refused.
func TestLargeManifests(t *testing.T) {
	base, _ := openServer(t, registry.Options{Store: t.TempDir(), SparseIndexes: true})
	many := strings.Repeat("{},", 10_000) + "{}"
	for what, body := range map[string]string{
		"elements": `{"schemaVersion":2,"manifests":[` + many + `]}`,
		"numbers":  `{"x":1e999,"schemaVersion":2,"manifests":[` + many + `]}`,
		"nested":   `{"schemaVersion":2,"manifests":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}`,
		"bytes":    `{"schemaVersion":2,"x":"` + strings.Repeat("x", 4<<20) + `"}`,
	} {
		resp, raw := request(t, http.MethodPut, base+"/v2/a/manifests/1", strings.NewReader(body), "Content-Type", mediaIndex)
		want := http.StatusBadRequest
		if what == "bytes" {
			want = http.StatusRequestEntityTooLarge
		}
		wantStatus(t, resp, raw, want)
		if !strings.Contains(string(raw), "MANIFEST_INVALID") {
			t.Errorf("%s: answered %s", what, raw)
		}
	}
	// As many as may be.
	children := make([]string, 5000)
	for i := range children {
		children[i] = fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":1}`, mediaImage, digestOf(fmt.Append(nil, i)))
	}
	resp, raw := request(t, http.MethodPut, base+"/v2/a/manifests/1", strings.NewReader(fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, mediaIndex, strings.Join(children, ","))), "Content-Type", mediaIndex)
	wantStatus(t, resp, raw, http.StatusCreated)
}

// TestNamesThatCannotBe: they are the client's mistake.
func TestNamesThatCannotBe(t *testing.T) {
	base, _ := openServer(t, registry.Options{Store: t.TempDir()})
	for _, c := range []struct{ method, path string }{
		{http.MethodPost, "/v2/" + strings.Repeat("a", 256) + "/blobs/uploads/"},
		{http.MethodGet, "/v2/" + strings.Repeat("a/", 150) + "a/tags/list"},
		{http.MethodGet, "/v2/_catalog?last=a%00b"},
	} {
		resp, raw := request(t, c.method, base+c.path, nil)
		wantStatus(t, resp, raw, http.StatusBadRequest)
		if !strings.Contains(string(raw), "NAME_INVALID") {
			t.Errorf("%s: answered %s", c.path, raw)
		}
	}
}

// TestMetricsAreRead: nothing but GET and HEAD.
func TestMetricsAreRead(t *testing.T) {
	base := front(t, registry.FrontOptions{Metrics: registry.NewMetrics(nil), ShowMetrics: true})
	resp, raw := request(t, http.MethodPost, base+"/metrics", nil)
	wantStatus(t, resp, raw, http.StatusMethodNotAllowed)
	resp, raw = request(t, http.MethodGet, base+"/metrics", nil)
	wantStatus(t, resp, raw, http.StatusOK)
}

// TestLongPathsInTheLog: whoever asks for them cannot fill the disk with them.
func TestLongPathsInTheLog(t *testing.T) {
	var log strings.Builder
	f, err := registry.NewFront(http.NotFoundHandler(), registry.FrontOptions{Now: time.Now, AccessLog: &log})
	if err != nil {
		t.Fatal(err)
	}
	f.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/"+strings.Repeat("x", 50_000), nil))
	if n := strings.Count(log.String(), "x"); n < 500 || n > 600 {
		t.Errorf("%d bytes are logged", n)
	}
}
