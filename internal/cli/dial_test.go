package cli_test

import (
	"bytes"
	"context"
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
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/sealift/sealift/internal/cli"
)

// dialed is an environment in which every connection of the isolated side is written down, and
// leads to the one server that there is.
type dialed struct {
	mu        sync.Mutex
	addresses []string
	to        string
}

func (d *dialed) dial(ctx context.Context, network, address string) (net.Conn, error) {
	d.mu.Lock()
	d.addresses = append(d.addresses, address)
	d.mu.Unlock()
	return (&net.Dialer{}).DialContext(ctx, network, d.to)
}

// hosts are the addresses that were dialed, each once. A connection that nobody waited for may still
// be on its way.
func (d *dialed) hosts() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := slices.Clone(d.addresses)
	slices.Sort(all)
	return slices.Compact(all)
}

// run runs one command line in dir.
func (d *dialed) run(t *testing.T, dir string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return runIn(t, dir, d.dial, args...)
}

// runIn runs one command line, whose record is in dir, with a dialer.
func runIn(t *testing.T, dir string, dial func(context.Context, string, string) (net.Conn, error), args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	env := cli.Env{
		Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Now: time.Now, Dial: dial,
		LookupEnv: func(key string) (string, bool) {
			v, ok := map[string]string{"COSIGN_PASSWORD": "", "SEALIFT_STATE": filepath.Join(dir, "state"), "SEALIFT_CONFIG": filepath.Join(dir, "config.yaml")}[key]
			return v, ok
		},
	}
	code = cli.Run(t.Context(), args, env)
	return code, out.String(), errs.String()
}

// TestSeedDialsOnlyTheRegistry: names that are made up lead nowhere, so that whatever is looked up
// or dialed but the registry fails.
func TestSeedDialsOnlyTheRegistry(t *testing.T) {
	site := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer site.Close()
	dir := t.TempDir()
	d := &dialed{to: site.Listener.Addr().String()}
	bundle := packOne(t, dir)
	key := filepath.Join(dir, "cosign.pub")
	for _, args := range [][]string{
		{"verify", "--key", key, bundle},
		{"inspect", bundle},
		{"seed", "--key", key, "--registry", "registry.site.invalid:5000/apps", "--plain-http", "registry.site.invalid:5000", bundle},
	} {
		if code, _, stderr := d.run(t, dir, args...); code != 0 {
			t.Fatalf("%v: exit code %d: %s", args, code, stderr)
		}
		if args[0] != "seed" && len(d.hosts()) > 0 {
			t.Fatalf("%v dials %v", args, d.hosts())
		}
	}
	if got := d.hosts(); len(got) != 1 || got[0] != "registry.site.invalid:5000" {
		t.Fatalf("dialed %v", got)
	}
}

// TestSeedGoesNowhereElse: a registry that sends its clients to other hosts, or to other services of
// its own host, is not followed there, unless that is named.
func TestSeedGoesNowhereElse(t *testing.T) {
	const host = "registry.site.invalid:5000"
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	var tokens string
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			fmt.Fprint(w, `{"token":"t"}`)
			return
		}
		if r.Header.Get("Authorization") == "" {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="site"`, tokens))
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	defer site.Close()
	dir := t.TempDir()
	bundle := packOne(t, dir)
	for _, c := range []struct {
		tokens, named string
		allow         []string
	}{
		{"tokens.elsewhere.invalid:5000", "tokens.elsewhere.invalid", []string{"tokens.elsewhere.invalid", "tokens.elsewhere.invalid:5000"}},
		{"registry.site.invalid:5001", "registry.site.invalid:5001", []string{"registry.site.invalid", "registry.site.invalid:5001"}},
		{"registry.site.invalid", "registry.site.invalid:80", []string{"registry.site.invalid", "registry.site.invalid:80"}},
	} {
		tokens = c.tokens
		d := &dialed{to: site.Listener.Addr().String()}
		args := []string{
			"seed", "--key", filepath.Join(dir, "cosign.pub"), "--registry", host, bundle,
			"--plain-http", host, "--plain-http", tokens,
		}
		for _, allow := range []string{"", "other.invalid", c.named + "1"} {
			args := args
			if allow != "" {
				args = append(args, "--allow-host", allow)
			}
			code, _, stderr := d.run(t, dir, args...)
			if code != cli.ExitRegistry || !strings.Contains(stderr, fmt.Sprintf("sends us to %q", c.named)) || !strings.Contains(stderr, "--allow-host "+c.named+"\n") {
				t.Fatalf("%s: exit code %d: %s", tokens, code, stderr)
			}
			if strings.Contains(stderr, "is waited for") {
				t.Errorf("%s: %s", tokens, stderr)
			}
		}
		if got := d.hosts(); len(got) != 1 || got[0] != host {
			t.Fatalf("%s: dialed %v", tokens, got)
		}
		for _, allow := range c.allow {
			if code, _, stderr := d.run(t, dir, append(args, "--allow-host", allow)...); code != 0 {
				t.Fatalf("%s, --allow-host %s: exit code %d: %s", tokens, allow, code, stderr)
			}
		}
	}
}

// TestInstallDialsOnlyRegistryAndCluster: install reaches for the two that were named and for nobody
// else. What it does with a cluster that answers, without a way to anywhere else, internal/e2e shows.
func TestInstallDialsOnlyRegistryAndCluster(t *testing.T) {
	const registryAddress, clusterAddress = "registry.site.invalid:5000", "cluster.site.invalid:6443"
	site := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer site.Close()
	dir := t.TempDir()
	packOne(t, dir)
	image := serveImages(t) + "/shop/app:1"
	for name, content := range map[string]string{
		"chart/Chart.yaml":         "apiVersion: v2\nname: app\nversion: 1.0.0\n",
		"chart/templates/pod.yaml": "apiVersion: v1\nkind: Pod\nmetadata: {name: app}\nspec: {containers: [{name: app, image: \"" + image + "\"}]}\n",
		"sealift.yaml":             "apiVersion: sealift/v1\nkind: Bundle\nname: charted\nversion: 1.0.0\ncharts: [{path: chart}]\n",
		"kubeconfig": "apiVersion: v1\nkind: Config\ncurrent-context: site\nclusters: [{name: site, cluster: {server: \"https://" + clusterAddress + "\"}}]\n" +
			"contexts: [{name: site, context: {cluster: site, user: operator}}]\nusers: [{name: operator, user: {token: x}}]\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, path, []byte(content))
	}
	d := &dialed{to: site.Listener.Addr().String()}
	if code, _, stderr := d.run(t, dir, "pack", "-f", filepath.Join(dir, "sealift.yaml"), "-o", dir, "--key", filepath.Join(dir, "cosign.key")); code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	refusing := func(ctx context.Context, network, address string) (net.Conn, error) {
		if address == registryAddress {
			return d.dial(ctx, network, address)
		}
		d.mu.Lock()
		d.addresses = append(d.addresses, address)
		d.mu.Unlock()
		return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
	}
	for _, c := range []struct {
		args []string
		code int
		want []string
	}{
		// The cluster comes first: what it knows decides how the bundle is judged.
		{[]string{"--kubeconfig", filepath.Join(dir, "kubeconfig")}, cli.ExitCluster, []string{clusterAddress}},
		{[]string{"--dry-run"}, cli.ExitOK, []string{registryAddress}},
	} {
		d.mu.Lock()
		d.addresses = nil
		d.mu.Unlock()
		code, _, stderr := runIn(t, dir, refusing, append([]string{
			"install", filepath.Join(dir, "charted-1.0.0.tar.zst"), "--key", filepath.Join(dir, "cosign.pub"),
			"--registry", registryAddress, "--plain-http", registryAddress,
		}, c.args...)...)
		if code != c.code {
			t.Errorf("%v: exit code %d: %s", c.args, code, stderr)
		}
		if got := d.hosts(); !slices.Equal(got, c.want) {
			t.Errorf("%v: dialed %v, want %v", c.args, got, c.want)
		}
	}
}

// packOne packs a bundle of one image into dir, with a key of its own.
func packOne(t *testing.T, dir string) string {
	t.Helper()
	spec := writeSpec(t, dir, serveImages(t))
	d := &dialed{}
	prefix := filepath.Join(dir, "cosign")
	for _, args := range [][]string{
		{"keygen", "--output-prefix", prefix},
		{"pack", "-f", spec, "-o", dir, "--key", prefix + ".key"},
	} {
		if code, _, stderr := d.run(t, dir, args...); code != 0 {
			t.Fatalf("%v: exit code %d: %s", args, code, stderr)
		}
	}
	return filepath.Join(dir, "shop-1.0.0.tar.zst")
}

// writeSpec writes a spec of one image of a registry.
func writeSpec(t *testing.T, dir, host string) string {
	t.Helper()
	spec := filepath.Join(dir, "sealift.yaml")
	write(t, spec, fmt.Appendf(nil, "apiVersion: sealift/v1\nkind: Bundle\nname: shop\nversion: 1.0.0\nimages: [{ref: %s/shop/app:1}]\n", host))
	return spec
}

// serveImages starts a vendor's registry with the image shop/app:1.
func serveImages(t *testing.T) string {
	t.Helper()
	vendor := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(vendor.Close)
	host := vendor.Listener.Addr().String()
	ref, err := name.ParseReference(host + "/shop/app:1")
	if err != nil {
		t.Fatal(err)
	}
	image, err := random.Image(1000, 2)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config.OS, config.Architecture = "linux", "amd64"
	if image, err = mutate.ConfigFile(image, config); err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, image); err != nil {
		t.Fatal(err)
	}
	return host
}
