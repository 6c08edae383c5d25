package registry_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/registry"
	"github.com/sealift/sealift/manifest"
)

// front serves a new store behind o.
func front(t *testing.T, o registry.FrontOptions) string {
	t.Helper()
	s, err := registry.New(t.Context(), registry.Options{Store: t.TempDir(), SparseIndexes: true})
	if err != nil {
		t.Fatal(err)
	}
	return "http://" + serveFront(t, s.Handler(), o)
}

// serveFront serves a handler behind o, on an address that it returns, with the server that is used.
func serveFront(t *testing.T, h http.Handler, o registry.FrontOptions) string {
	t.Helper()
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	f, err := registry.NewFront(h, o)
	if err != nil {
		t.Fatal(err)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Serve(ctx, l) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// usersFile makes one with users whose passwords are their names and "-password".
func usersFile(t *testing.T, names ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "users")
	for _, name := range names {
		if _, err := registry.AddUser(path, name, name+"-password"); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func openUsers(t *testing.T, path string) *registry.Users {
	t.Helper()
	users, err := registry.OpenUsers(path)
	if err != nil {
		t.Fatal(err)
	}
	return users
}

func basic(name, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(name+":"+password))
}

func TestWhoMayEnter(t *testing.T) {
	users := openUsers(t, usersFile(t, "jane", "joe"))
	jane := basic("jane", "jane-password")
	for _, c := range []struct {
		name      string
		anonymous bool
		auth      string
		// Statuses of reading /v2/, reading a blob that is not there, writing, metrics.
		base, read, write, metrics int
	}{
		{"nobody", false, "", 401, 401, 401, 401},
		{"jane", false, jane, 200, 404, 202, 200},
		{"wrong password", false, basic("jane", "joe-password"), 401, 401, 401, 401},
		{"no such user", false, basic("jim", "jim-password"), 401, 401, 401, 401},
		{"empty", false, basic("", ""), 401, 401, 401, 401},
		{"empty password", false, basic("jane", ""), 401, 401, 401, 401},
		{"long password", false, basic("jane", strings.Repeat("x", 100)), 401, 401, 401, 401},
		{"a token of nobody's", false, "Bearer e30.AAAA", 401, 401, 401, 401},
		{"half a header", false, "Basic", 401, 401, 401, 401},
		{"anonymous", true, "", 401, 404, 401, 401},
		{"anonymous with empty credentials", true, basic("", ""), 401, 404, 401, 401},
		{"jane where anyone may read", true, jane, 200, 404, 202, 200},
		{"wrong where anyone may read", true, basic("jane", "wrong"), 401, 401, 401, 401},
	} {
		t.Run(c.name, func(t *testing.T) {
			base := front(t, registry.FrontOptions{Users: users, AnonymousPull: c.anonymous, Metrics: registry.NewMetrics(nil), ShowMetrics: true})
			var headers []string
			if c.auth != "" {
				headers = []string{"Authorization", c.auth}
			}
			for _, r := range []struct {
				method, path string
				want         int
			}{
				{http.MethodGet, "/v2/", c.base},
				{http.MethodGet, "/v2/a/b/blobs/" + digestOf(nil), c.read},
				{http.MethodPost, "/v2/a/b/blobs/uploads/", c.write},
				{http.MethodGet, "/metrics", c.metrics},
				{http.MethodGet, "/healthz", 200},
				{http.MethodPut, "/healthz", 405},
			} {
				resp, raw := request(t, r.method, base+r.path, nil, headers...)
				if resp.StatusCode != r.want {
					t.Errorf("%s %s: status %d, want %d: %s", r.method, r.path, resp.StatusCode, r.want, raw)
				}
				if resp.StatusCode == http.StatusUnauthorized {
					want := "Basic "
					if c.anonymous {
						want = "Bearer "
					}
					if how := resp.Header.Get("WWW-Authenticate"); !strings.HasPrefix(how, want) {
						t.Errorf("%s %s: challenge %q", r.method, r.path, how)
					}
				}
			}
		})
	}
}

// TestClientsAndUsers has clients find their way that are others' and ours.
func TestClientsAndUsers(t *testing.T) {
	users := openUsers(t, usersFile(t, "jane"))
	img, err := random.Image(5_000, 3)
	if err != nil {
		t.Fatal(err)
	}
	want, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	jane := remote.WithAuth(&authn.Basic{Username: "jane", Password: "jane-password"})
	for _, anonymous := range []bool{false, true} {
		t.Run(fmt.Sprintf("anonymous pull %v", anonymous), func(t *testing.T) {
			host := strings.TrimPrefix(front(t, registry.FrontOptions{Users: users, AnonymousPull: anonymous}), "http://")
			ref := reference(t, host, "a/b:1")
			var refused *transport.Error
			if err := remote.Write(ref, img); !errors.As(err, &refused) || refused.StatusCode != http.StatusUnauthorized {
				t.Fatalf("writing without credentials: %v", err)
			}
			if err := remote.Write(ref, img, jane); err != nil {
				t.Fatal(err)
			}
			if d, err := remote.Head(ref, jane); err != nil || d.Digest != want {
				t.Fatalf("reading with credentials: %v, %v", d, err)
			}
			d, err := remote.Head(ref)
			if anonymous && (err != nil || d.Digest != want) || !anonymous && !errors.As(err, &refused) {
				t.Fatalf("reading without credentials: %v, %v", d, err)
			}
			for name, keychain := range map[string]authn.Keychain{"nobody": nil, "jane": janes{}} {
				client := oci.NewClient(oci.Options{Side: "registry", Keychain: keychain, PlainHTTP: []string{host}, Transport: oci.NewTransport(nil)})
				repo, err := client.Repository(t.Context(), host, "a/b", false)
				if err == nil {
					var got string
					if got, err = repo.ManifestDigest(t.Context(), "1"); err == nil && got != want.String() {
						t.Errorf("our client as %s: digest %q", name, got)
					}
				}
				if may := anonymous || name == "jane"; (err == nil) != may {
					t.Errorf("our client reading as %s: %v", name, err)
				}
				if repo, err = client.Repository(t.Context(), host, "a/b", true); err == nil {
					content := bytesOf(1000, 8)
					_, err = repo.PutBlob(t.Context(), manifest.Descriptor{MediaType: "application/octet-stream", Digest: digestOf(content), Size: 1000}, "",
						func(offset int64) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content[offset:])), nil }, func(int64) {})
				}
				if (err == nil) != (name == "jane") {
					t.Errorf("our client writing as %s: %v", name, err)
				}
			}
		})
	}
}

// janes are the credentials of jane, for any registry.
type janes struct{}

func (janes) Resolve(authn.Resource) (authn.Authenticator, error) {
	return &authn.Basic{Username: "jane", Password: "jane-password"}, nil
}

func TestUsersCountAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "users")
	users, err := registry.WatchUsers(path)
	if err != nil {
		t.Fatal(err)
	}
	base := front(t, registry.FrontOptions{Users: users})
	status := func(auth ...string) int {
		t.Helper()
		resp, _ := request(t, http.MethodGet, base+"/v2/", nil, auth...)
		return resp.StatusCode
	}
	jane := []string{"Authorization", basic("jane", "one")}
	steps := []struct {
		what string
		do   func() error
		// Statuses without credentials, and with jane's.
		nobody, jane int
	}{
		{"no file", func() error { return nil }, 200, 200},
		{"the first user", func() error { _, err := registry.AddUser(path, "joe", "joe"); return err }, 401, 401},
		{"jane", func() error { _, err := registry.AddUser(path, "jane", "one"); return err }, 401, 200},
		{"another password", func() error { _, err := registry.AddUser(path, "jane", "two"); return err }, 401, 401},
		{"the first again", func() error { _, err := registry.AddUser(path, "jane", "one"); return err }, 401, 200},
		{"a broken file", func() error { return os.WriteFile(path, []byte("jane:one\n"), 0o600) }, 401, 503},
		{"repaired", func() error { return errors.Join(os.Remove(path), again(path)) }, 401, 200},
		{"no jane", func() error { return registry.RemoveUser(path, "jane") }, 401, 401},
		{"no file any more", func() error { return os.Remove(path) }, 401, 503},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			t.Fatalf("%s: %v", s.what, err)
		}
		if got := status(); got != s.nobody {
			t.Errorf("%s: without credentials status %d, want %d", s.what, got, s.nobody)
		}
		for range 2 {
			if got := status(jane...); got != s.jane {
				t.Errorf("%s: jane: status %d, want %d", s.what, got, s.jane)
			}
		}
	}
}

func again(path string) error {
	_, err := registry.AddUser(path, "jane", "one")
	return err
}

func TestTokens(t *testing.T) {
	path := usersFile(t, "jane", "joe")
	var late atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(late.Load())) }
	o := registry.FrontOptions{Users: openUsers(t, path), AnonymousPull: true, Now: now, TokenKey: bytesOf(32, 1)}
	base := front(t, o)
	token := func(auth ...string) (int, string) {
		t.Helper()
		resp, raw := request(t, http.MethodGet, base+"/token?service=sealift&scope=repository:a/b:pull,push", nil, auth...)
		var answer struct {
			Token string `json:"token"`
		}
		if resp.StatusCode == http.StatusOK {
			if err := json.Unmarshal(raw, &answer); err != nil || answer.Token == "" {
				t.Fatalf("token %s: %v", raw, err)
			}
		}
		return resp.StatusCode, answer.Token
	}
	use := func(base, method, token string) int {
		t.Helper()
		resp, _ := request(t, method, base+"/v2/a/b/blobs/uploads/", nil, "Authorization", "Bearer "+token)
		return resp.StatusCode
	}
	if status, _ := token("Authorization", basic("jane", "wrong")); status != http.StatusUnauthorized {
		t.Errorf("a token for a wrong password: status %d", status)
	}
	_, nobody := token()
	_, jane := token("Authorization", basic("jane", "jane-password"))
	_, joe := token("Authorization", basic("joe", "joe-password"))
	if got := use(base, http.MethodPost, nobody); got != http.StatusUnauthorized {
		t.Errorf("writing with nobody's token: status %d", got)
	}
	if resp, _ := request(t, http.MethodGet, base+"/v2/", nil, "Authorization", "Bearer "+nobody); resp.StatusCode != http.StatusOK {
		t.Errorf("looking with nobody's token: status %d", resp.StatusCode)
	}
	if resp, _ := request(t, http.MethodGet, base+"/metrics", nil, "Authorization", "Bearer "+nobody); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("metrics with nobody's token: status %d", resp.StatusCode)
	}
	if got := use(base, http.MethodPost, jane); got != http.StatusAccepted {
		t.Errorf("writing with jane's token: status %d", got)
	}
	// Another process that serves the same store knows it too; one that serves another does not, and one
	// that lets nobody read without credentials lets nobody's token do nothing.
	if got := use(front(t, o), http.MethodPost, jane); got != http.StatusAccepted {
		t.Errorf("elsewhere: status %d", got)
	}
	other := o
	other.TokenKey = nil
	if got := use(front(t, other), http.MethodPost, jane); got != http.StatusUnauthorized {
		t.Errorf("at another store: status %d", got)
	}
	other = o
	other.AnonymousPull = false
	if resp, _ := request(t, http.MethodGet, front(t, other)+"/v2/", nil, "Authorization", "Bearer "+nobody); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("nobody's token where all need credentials: status %d", resp.StatusCode)
	}
	_, signature, _ := strings.Cut(jane, ".")
	forged := base64.RawURLEncoding.EncodeToString([]byte(`{"u":"joe","e":99999999999}`)) + "." + signature
	if got := use(base, http.MethodPost, forged); got != http.StatusUnauthorized {
		t.Errorf("a forged token: status %d", got)
	}
	if _, err := registry.AddUser(path, "jane", "other"); err != nil {
		t.Fatal(err)
	}
	if got := use(base, http.MethodPost, jane); got != http.StatusUnauthorized {
		t.Errorf("after the password was changed: status %d", got)
	}
	late.Store(int64(10 * time.Minute))
	if got := use(base, http.MethodPost, joe); got != http.StatusUnauthorized {
		t.Errorf("after its time: status %d", got)
	}
}

// lines collects what is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestAccessLogAndMetrics(t *testing.T) {
	var log, faults lines
	o := registry.FrontOptions{
		Users: openUsers(t, usersFile(t, "jane")), AccessLog: registry.NewAccessLog(&log), ShowMetrics: true,
		Metrics: registry.NewMetrics(func() (int64, int64, bool) { return 123, 456, true }), Log: slog.New(slog.NewTextHandler(&faults, nil)),
	}
	base := front(t, o)
	jane := []string{"Authorization", basic("jane", "jane-password"), "User-Agent", "tester/1\t2"}
	resp, raw := request(t, http.MethodPost, base+"/v2/a/b/blobs/uploads/", nil, jane...)
	wantStatus(t, resp, raw, http.StatusAccepted)
	content := bytesOf(1000, 7)
	resp, raw = request(t, http.MethodPut, location(t, resp, base)+"&digest="+digestOf(content), bytes.NewReader(content), jane...)
	wantStatus(t, resp, raw, http.StatusCreated)
	resp, raw = request(t, http.MethodGet, base+"/v2/a/b/blobs/"+digestOf(content), nil, jane...)
	wantStatus(t, resp, raw, http.StatusOK)
	resp, raw = request(t, http.MethodGet, base+"/v2/a/b/manifests/none?secret=query", nil, jane...)
	wantStatus(t, resp, raw, http.StatusNotFound)
	resp, raw = request(t, http.MethodGet, base+"/v2/", nil, "Authorization", basic("s3cret-by-mistake", "other-s3cret"))
	wantStatus(t, resp, raw, http.StatusUnauthorized)
	resp, raw = request(t, http.MethodGet, base+"/metrics", nil, jane...)
	wantStatus(t, resp, raw, http.StatusOK)
	for _, want := range []string{
		`sealift_registry_requests_total{class="upload",code="201",method="PUT"} 1`, `sealift_registry_received_bytes_total{class="upload",method="PUT"} 1000`,
		`sealift_registry_sent_bytes_total{class="blob",method="GET"} 1000`, `sealift_registry_requests_total{class="manifest",code="404",method="GET"} 1`,
		"sealift_registry_in_flight_requests 1", "sealift_registry_failed_logins_total 1", "sealift_registry_store_free_bytes 123", "sealift_registry_store_total_bytes 456",
	} {
		if !strings.Contains(string(raw), want+"\n") {
			t.Errorf("metrics lack %s", want)
		}
	}
	text := log.String()
	for _, secret := range []string{"s3cret", "jane-password", "query", "_state", basic("jane", "jane-password")} {
		if strings.Contains(text, secret) {
			t.Errorf("the access log has %q in it:\n%s", secret, text)
		}
	}
	type line struct {
		Time, Remote, User, Method, Path, Agent, Error string
		Status                                         int
		Received, Bytes                                int64
		Duration                                       float64
	}
	var got []line
	for l := range strings.Lines(text) {
		var one line
		if err := json.Unmarshal([]byte(l), &one); err != nil {
			t.Fatalf("line %q: %v", l, err)
		}
		if _, err := time.Parse(time.RFC3339, one.Time); err != nil || one.Duration < 0 {
			t.Errorf("line %q: %v", l, err)
		}
		one.Time, one.Duration = "", 0
		got = append(got, one)
	}
	if len(got) < 5 {
		t.Fatalf("log:\n%s", text)
	}
	for i, want := range map[int]line{
		2: {Remote: "127.0.0.1", User: "jane", Method: "GET", Path: "/v2/a/b/blobs/" + digestOf(content), Agent: "tester/1\t2", Status: 200, Bytes: 1000},
		4: {Remote: "127.0.0.1", Method: "GET", Path: "/v2/", Agent: "Go-http-client/1.1", Status: 401, Bytes: got[4].Bytes, Error: "UNAUTHORIZED user or password is wrong"},
	} {
		if got[i] != want {
			t.Errorf("line %d: %+v, want %+v", i, got[i], want)
		}
	}
	if s := faults.String(); s != "" {
		t.Errorf("logged: %s", s)
	}
}

func TestAccessLogIsReopened(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	l, err := registry.OpenAccessLog(path)
	if err != nil {
		t.Fatal(err)
	}
	write := func(s string) {
		t.Helper()
		if _, err := io.WriteString(l, s); err != nil {
			t.Fatal(err)
		}
	}
	write("one\n")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	write("two\n")
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	write("three\n")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{path + ".1": "one\ntwo\n", path: "three\n"} {
		if got, err := os.ReadFile(name); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestHandlersThatFail(t *testing.T) {
	var log, faults lines
	addr := serveFront(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/late" {
			_, _ = io.WriteString(w, "a beginning")
		}
		panic("with a reason")
	}), registry.FrontOptions{AccessLog: &log, Log: slog.New(slog.NewTextHandler(&faults, nil))})
	for _, path := range []string{"/v2/early", "/v2/late"} {
		resp, err := http.Get("http://" + addr + path)
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		if err == nil {
			t.Errorf("%s: the client takes the answer for whole", path)
		}
	}
	if got := log.String(); strings.Count(got, "the answer was broken off") != 2 {
		t.Errorf("access log: %s", got)
	}
	if got := faults.String(); strings.Count(got, "with a reason") != 2 {
		t.Errorf("log: %s", got)
	}
}

func TestFrontIsReadOnly(t *testing.T) {
	base := front(t, registry.FrontOptions{ReadOnly: true})
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		resp, raw := request(t, method, base+"/v2/a/b/blobs/uploads/", nil)
		wantStatus(t, resp, raw, http.StatusMethodNotAllowed)
	}
}

// TestGracefulEnd lets a request end that has begun.
func TestGracefulEnd(t *testing.T) {
	begun, end := make(chan struct{}), make(chan struct{})
	f, err := registry.NewFront(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(begun)
		<-end
		_, _ = io.WriteString(w, "whole")
	}), registry.FrontOptions{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- f.Serve(ctx, l) }()
	got := make(chan string, 1)
	go func() {
		resp, err := http.Get("http://" + l.Addr().String() + "/v2/")
		if err != nil {
			got <- err.Error()
			return
		}
		defer resp.Body.Close()
		raw, _ := io.ReadAll(resp.Body)
		got <- string(raw)
	}()
	<-begun
	cancel()
	for {
		// New connections are refused before the running request is to end.
		if c, err := net.Dial("tcp", l.Addr().String()); err != nil {
			break
		} else {
			c.Close()
		}
	}
	close(end)
	if s := <-got; s != "whole" {
		t.Errorf("the running request got %q", s)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestSelfSigned(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	now := func() time.Time { return at }
	open := func(names ...string) *registry.SelfSigned {
		t.Helper()
		s, err := registry.SelfSign(dir, names, now)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	shown := func(s *registry.SelfSigned) *x509.Certificate {
		t.Helper()
		c, err := s.TLS().GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		return c.Leaf
	}
	first := open("reg.example", "10.0.0.1")
	authority, err := os.ReadFile(first.CAPath())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		t.Fatal("no certificate of the authority")
	}
	check := func(s *registry.SelfSigned, names ...string) {
		t.Helper()
		for _, name := range names {
			if _, err := shown(s).Verify(x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: at}); err != nil {
				t.Errorf("%s at %s: %v", name, at, err)
			}
		}
	}
	check(first, "reg.example", "10.0.0.1")
	again := open("10.0.0.1", "reg.example")
	if !bytes.Equal(shown(again).Raw, shown(first).Raw) || again.Fingerprint() != first.Fingerprint() {
		t.Error("a restart made another certificate")
	}
	more := open("reg.example", "10.0.0.1", "other.example")
	check(more, "reg.example", "10.0.0.1", "other.example")
	// A year on, without a restart, and after it.
	before := shown(more).Raw
	for range 10 {
		at = at.Add(200 * 24 * time.Hour)
		check(more, "reg.example", "other.example")
		check(open("reg.example"), "reg.example")
	}
	if bytes.Equal(before, shown(more).Raw) {
		t.Error("the certificate was never renewed")
	}
	if more.Fingerprint() != first.Fingerprint() {
		t.Error("the authority was made anew")
	}
	for name, want := range map[string]os.FileMode{"ca.key": 0o600, "server.pem": 0o600, "ca.crt": 0o644} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm() &^ 0o022; got != want&^0o022 {
			t.Errorf("%s has mode %o, want %o", name, got, want)
		}
	}
	at = at.Add(30 * 365 * 24 * time.Hour)
	var bad *registry.CertificateError
	if _, err := registry.SelfSign(dir, []string{"reg.example"}, now); !errors.As(err, &bad) {
		t.Errorf("after the authority's end: %v", err)
	}
}

// TestTLS pulls and pushes through HTTP/2 and HTTP/1.1, with a certificate that is replaced meanwhile.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	own, err := registry.SelfSign(filepath.Join(dir, "tls"), []string{"127.0.0.1"}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	cert, key := split(t, filepath.Join(dir, "tls", "server.pem"), dir)
	files, err := registry.CertificateFiles(cert, key, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	authority, err := os.ReadFile(own.CAPath())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	s, err := registry.New(t.Context(), registry.Options{Store: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for name, config := range map[string]*tls.Config{"own": own.TLS(), "files": files} {
		for _, http2 := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, HTTP/2 %v", name, http2), func(t *testing.T) {
				host := serveFront(t, s.Handler(), registry.FrontOptions{TLS: config})
				tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: http2}
				defer tr.CloseIdleConnections()
				img, err := random.Image(3<<20, 2)
				if err != nil {
					t.Fatal(err)
				}
				ref := reference(t, host, "a/b:1")
				if err := remote.Write(ref, img, remote.WithTransport(tr)); err != nil {
					t.Fatal(err)
				}
				got, err := remote.Image(ref, remote.WithTransport(tr))
				if err != nil {
					t.Fatal(err)
				}
				layers, err := got.Layers()
				if err != nil {
					t.Fatal(err)
				}
				for _, l := range layers {
					r, err := l.Compressed()
					if err != nil {
						t.Fatal(err)
					}
					if _, err := io.Copy(io.Discard, r); err != nil {
						t.Error(err)
					}
					r.Close()
				}
			})
		}
	}
	before, err := files.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	// What cannot be used leaves the one before.
	if err := os.WriteFile(cert, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := files.GetCertificate(nil); err != nil || c != before {
		t.Errorf("a broken certificate is used: %v", err)
	}
	if _, err := registry.SelfSign(filepath.Join(dir, "other"), []string{"127.0.0.1"}, time.Now); err != nil {
		t.Fatal(err)
	}
	split(t, filepath.Join(dir, "other", "server.pem"), dir)
	if c, err := files.GetCertificate(nil); err != nil || c == before {
		t.Errorf("the new certificate is not used: %v", err)
	}
}

// split writes the certificate and the key in a file into two.
func split(t *testing.T, path, dir string) (cert, key string) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	i := bytes.Index(raw, []byte("-----BEGIN PRIVATE KEY"))
	if i < 0 {
		t.Fatalf("%s has no key", path)
	}
	cert, key = filepath.Join(dir, "a.crt"), filepath.Join(dir, "a.key")
	if err := errors.Join(os.WriteFile(cert, raw[:i], 0o600), os.WriteFile(key, raw[i:], 0o600)); err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func TestLongHeads(t *testing.T) {
	base := front(t, registry.FrontOptions{})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/v2/", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Long", strings.Repeat("x", 1<<20))
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return // it may also be cut off while it writes
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Fatalf("status %d", resp.StatusCode)
	}
}

// TestCopiesBySystem is for what is served from files: the way from file to connection stays
// open through the front.
func TestCopiesBySystem(t *testing.T) {
	f, err := registry.NewFront(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok := w.(io.ReaderFrom); !ok {
			t.Error("the way is closed")
		}
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader("content"))
	}), registry.FrontOptions{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	f.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/v2/", nil))
	if rec.Body.String() != "content" {
		t.Fatalf("body %q", rec.Body)
	}
}
