package oci_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/manifest"
)

// jane has a password everywhere.
type jane struct{}

func (jane) Resolve(authn.Resource) (authn.Authenticator, error) {
	return authn.FromConfig(authn.AuthConfig{Username: "jane", Password: "s3cret"}), nil
}

// guarded is a registry that wants a token from elsewhere, "t" for each scope that was asked for.
func guarded(t *testing.T, next http.Handler, tokens string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.Header.Get("Authorization"), "Bearer t") {
			next.ServeHTTP(w, r)
			return
		}
		if r.Header.Get("Authorization") != "" && r.Header.Get("Authorization") != "Bearer " {
			t.Errorf("the registry was sent %q", r.Header.Get("Authorization"))
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="site"`, tokens))
		w.WriteHeader(http.StatusUnauthorized)
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// TestPrivateTokenServer: a token server on another private address than the registry.
func TestPrivateTokenServer(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("%s %s arrived elsewhere, with %q", r.Method, r.URL, r.Header)
	}))
	defer elsewhere.Close()
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if user != "jane" || password != "s3cret" || r.Header.Get("Referer") != "" || r.URL.Query().Get("service") != "site" || r.URL.Query().Get("scope") != "repository:a/b:push,pull" {
			t.Errorf("got %s with %q", r.URL, r.Header)
		}
		asked.Add(1)
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "token?"+r.URL.RawQuery, http.StatusTemporaryRedirect)
		case "/away":
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		case "/none":
			fmt.Fprint(w, `{"refresh_token":"hush"}`)
		case "/text":
			fmt.Fprint(w, "hush")
		case "/token":
			if r.URL.Query().Get("x") != "y" {
				t.Errorf("the query of the realm is lost: %s", r.URL)
			}
			fmt.Fprint(w, `{"token":"t"}`)
		}
	}))
	defer server.Close()
	store := distribution(t, t.TempDir())
	for _, tt := range []struct {
		realm string
		times int32
		ok    bool
	}{{"/token?x=y", 1, true}, {"/moved?x=y", 2, true}, {"/away", 1, false}, {"/none", 1, false}, {"/text", 1, false}} {
		asked.Store(0)
		host := guarded(t, store, server.URL+tt.realm)
		o := oci.Options{Keychain: jane{}, PrivateTokenServers: true, Budget: quick}
		repo, err := client(o).Repository(t.Context(), host, "a/b", true)
		if (err == nil) != tt.ok || asked.Load() != tt.times {
			t.Errorf("%s: got %v after %d requests", tt.realm, err, asked.Load())
		}
		if tt.ok && err == nil {
			if _, err := repo.HasBlob(t.Context(), d1); err != nil {
				t.Error(err)
			}
		}
		var none *oci.TokenError
		if err != nil && (strings.Contains(err.Error(), "hush") || strings.Contains(err.Error(), "scope=") ||
			errors.As(err, &none) == (tt.realm == "/away") || !strings.Contains(err.Error(), strings.TrimPrefix(server.URL, "http://"))) {
			t.Errorf("%s: got %v", tt.realm, err)
		}
		// Who connects to anything asks none.
		o.PrivateTokenServers = false
		asked.Store(0)
		if _, err := client(o).Repository(t.Context(), host, "a/b", true); err == nil || asked.Load() != 0 {
			t.Errorf("%s: got %v after %d requests", tt.realm, err, asked.Load())
		}
	}
}

// TestMountWithTokens: a token for mounting is also for where the blob is; where there is none, the
// blob is sent.
func TestMountWithTokens(t *testing.T) {
	raw := []byte("a blob")
	d := manifest.Descriptor{Digest: manifest.Digest(raw), Size: int64(len(raw))}
	store := distribution(t, t.TempDir())
	var (
		mu    sync.Mutex
		asked []string
	)
	refusing := false
	var host string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			scopes := strings.Join(r.URL.Query()["scope"], " ")
			mu.Lock()
			asked = append(asked, scopes)
			mu.Unlock()
			if refusing && strings.Contains(scopes, "repository:from/a:pull") {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			fmt.Fprintf(w, `{"token":%q}`, scopes)
			return
		}
		scopes, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer repository")
		if !ok {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="site"`, host))
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if !strings.Contains(scopes, "repository:from/a:pull") {
			r.URL.RawQuery = strings.ReplaceAll(r.URL.RawQuery, "mount=", "x=")
		}
		store.ServeHTTP(w, r)
	}))
	defer s.Close()
	host = strings.TrimPrefix(s.URL, "http://")
	put := func(c *oci.Client, path, from string) bool {
		t.Helper()
		repo, err := c.Repository(t.Context(), host, path, true)
		if err != nil {
			t.Fatal(err)
		}
		mounted, err := repo.PutBlob(t.Context(), d, from, oci.FromBytes(raw), func(int64) {})
		if err != nil {
			t.Fatal(err)
		}
		return mounted
	}
	c := client(oci.Options{Keychain: jane{}, Budget: quick})
	put(c, "from/a", "")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if !put(c, "to/b", "from/a") {
				t.Error("it was not mounted")
			}
		})
	}
	all.Wait()
	refusing = true
	for range 2 {
		if put(c, "to/c", "from/a") {
			t.Error("it was mounted without a token")
		}
	}
	want := []string{
		"repository:from/a:push,pull",
		"repository:to/b:push,pull", "repository:to/b:push,pull repository:from/a:pull",
		"repository:to/c:push,pull", "repository:to/c:push,pull repository:from/a:pull",
	}
	if !slices.Equal(asked, want) {
		t.Errorf("got tokens for %q, want %q", asked, want)
	}
}

// TestHopelessConnections: what cannot become better is told after one try.
func TestHopelessConnections(t *testing.T) {
	nothing := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	plain := httptest.NewServer(nothing)
	defer plain.Close()
	mutual := httptest.NewUnstartedServer(nothing)
	mutual.Config.ErrorLog = log.New(io.Discard, "", 0)
	mutual.TLS = &tls.Config{MinVersion: tls.VersionTLS12, ClientAuth: tls.RequireAndVerifyClientCert}
	mutual.StartTLS()
	defer mutual.Close()
	for name, s := range map[string]*httptest.Server{"no TLS": plain, "client certificates": mutual} {
		var dialled atomic.Int32
		tr := oci.NewTransport(nil, oci.WithDialer(func(ctx context.Context, network, _ string) (net.Conn, error) {
			dialled.Add(1)
			return (&net.Dialer{}).DialContext(ctx, network, s.Listener.Addr().String())
		}))
		if s == mutual {
			tr.TLSClientConfig = s.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
			tr.TLSClientConfig.ServerName = "example.com" // a name of httptest's certificate
		}
		_, err := oci.NewClient(oci.Options{Side: "test registry", Transport: tr, Budget: quick}).Repository(t.Context(), "registry.example:5000", "a/b", true)
		var op *net.OpError
		if !errors.Is(err, http.ErrSchemeMismatch) && (!errors.As(err, &op) || op.Op != "remote error") || dialled.Load() != 1 {
			t.Errorf("%s: got %v after %d connections", name, err, dialled.Load())
		}
	}
}

// TestCertificatesOfOthers: a directory that may not be read is passed over.
func TestCertificatesOfOthers(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may read everything")
	}
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer s.Close()
	base := s.Client().Transport.(*http.Transport)
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, s.Listener.Addr().String()), 0); err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := oci.HostCertificates(base, []string{dir}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}

// TestHelperFails: what a helper wrote is not told.
func TestHelperFails(t *testing.T) {
	home, _ := authHome(t, map[string]string{"docker/config.json": `{"credHelpers":{"registry.example":"broken"}}`}, map[string]string{"DOCKER_CONFIG": "~/docker"})
	for _, end := range []string{"exit 1", "exit 0"} {
		script := "#!/bin/sh\necho 's3cret, {\"Secret\":\"s3cret\"'\n" + end + "\n"
		if err := os.WriteFile(filepath.Join(home, "bin", "docker-credential-broken"), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		var failed *oci.HelperFailedError
		_, err := resolve(t, oci.Keychain(false), "registry.example/a")
		if !errors.As(err, &failed) || failed.Helper != "docker-credential-broken" || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: got %v", end, err)
		}
	}
}
