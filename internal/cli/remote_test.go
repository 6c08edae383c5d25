package cli_test

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/sealift/sealift/internal/cli"
)

// TestRemoteDialsOnlyItsRegistry: a command that reads a bundle in a registry connects to that one,
// and to those that it is about, and to nothing else.
func TestRemoteDialsOnlyItsRegistry(t *testing.T) {
	site := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer site.Close()
	dir := t.TempDir()
	bundle, key := packOne(t, dir), filepath.Join(dir, "cosign.pub")
	const portal, target = "portal.site.invalid:5000", "registry.site.invalid:5001"
	at := "oci://" + portal + "/bundles/t:1"
	for _, c := range []struct {
		want string
		args []string
	}{
		{portal, []string{"push", bundle, at, "--plain-http", portal}},
		{portal, []string{"verify", at, "--key", key, "--plain-http", portal}},
		{portal, []string{"inspect", at, "--plain-http", portal}},
		{portal, []string{"pull", at, "-o", filepath.Join(dir, "back"), "--plain-http", portal}},
		{portal + " " + target, []string{"seed", at, "--key", key, "--registry", target + "/apps", "--plain-http", portal + "," + target}},
		{portal + " " + target, []string{"push", at, "oci://" + target + "/bundles/t", "--plain-http", portal, "--plain-http", target}},
	} {
		d := &dialed{to: site.Listener.Addr().String()}
		if code, _, stderr := d.run(t, dir, c.args...); code != 0 {
			t.Fatalf("%v: exit code %d: %s", c.args, code, stderr)
		}
		if got := strings.Join(d.hosts(), " "); got != c.want {
			t.Errorf("%v: dialed %q, want %q", c.args, got, c.want)
		}
	}
}

// TestRemoteCredentials: those of --username are for the registry that a command is about, and not for
// the one that its bundle is in, unless that is the same.
func TestRemoteCredentials(t *testing.T) {
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	const open, closed = "open.site.invalid:5000", "closed.site.invalid:5000"
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, asked := r.BasicAuth()
		switch {
		case r.Host == open && asked:
			http.Error(w, "somebody's secret came here", http.StatusTeapot)
		case r.Host == closed && (user != "jane" || password != "s3cret"):
			w.Header().Set("WWW-Authenticate", `Basic realm="site"`)
			w.WriteHeader(http.StatusUnauthorized)
		default:
			inner.ServeHTTP(w, r)
		}
	}))
	defer site.Close()
	dir := t.TempDir()
	bundle, key := packOne(t, dir), filepath.Join(dir, "cosign.pub")
	password := filepath.Join(dir, "password")
	write(t, password, []byte("s3cret\n"))
	access := []string{"--plain-http", open, "--plain-http", closed, "--username", "jane", "--password-file", password}
	d := &dialed{to: site.Listener.Addr().String()}
	for _, args := range [][]string{
		{"push", bundle, "oci://" + open + "/bundles/t:1", "--plain-http", open},
		append([]string{"push", bundle, "oci://" + closed + "/bundles/t:1"}, access...),
		append([]string{"push", "oci://" + open + "/bundles/t:1", "oci://" + closed + "/bundles/t:2"}, access...),
		append([]string{"push", "oci://" + closed + "/bundles/t:1", "oci://" + closed + "/other/t:1"}, access...),
		append([]string{"verify", "oci://" + closed + "/bundles/t:1", "--key", key}, access...),
		append([]string{"seed", "oci://" + open + "/bundles/t:1", "--key", key, "--registry", closed}, access...),
	} {
		if code, _, stderr := d.run(t, dir, args...); code != 0 {
			t.Errorf("%v: exit code %d: %s", args, code, stderr)
		}
	}
	code, _, stderr := d.run(t, dir, "verify", "oci://"+closed+"/bundles/t:1", "--key", key, "--plain-http", closed)
	if code != cli.ExitRegistry || !strings.Contains(stderr, "hint: give --username") {
		t.Errorf("without credentials: exit code %d: %s", code, stderr)
	}
}

// TestRemoteGoesNowhereElse: a registry that sends its clients to other hosts is not followed there.
func TestRemoteGoesNowhereElse(t *testing.T) {
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/manifests/") {
			http.Redirect(w, r, fmt.Sprintf("http://storage.elsewhere.invalid:5000%s", r.URL.Path), http.StatusTemporaryRedirect)
		}
	}))
	defer site.Close()
	dir := t.TempDir()
	d := &dialed{to: site.Listener.Addr().String()}
	const portal = "portal.site.invalid:5000"
	code, _, stderr := d.run(t, dir, "inspect", "oci://"+portal+"/b:1", "--plain-http", portal, "--plain-http", "storage.elsewhere.invalid:5000")
	if code != cli.ExitRegistry || !strings.Contains(stderr, `sends us to "storage.elsewhere.invalid"`) || !strings.Contains(stderr, "--allow-host storage.elsewhere.invalid") {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	if got := d.hosts(); len(got) != 1 || got[0] != portal {
		t.Fatalf("dialed %v", d.hosts())
	}
}
