//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The references of the vendor's images, as a chart names them.
const (
	shopImage    = "docker.io/library/shop:1.0.0" // for two platforms, which both travel; signed
	sparseImage  = "docker.io/demo/app:2.0.0"     // of two platforms only this machine's travels; signed
	migrateImage = "quay.io/jobs/migrate:1.0.0"   // no index, but an image of docker's own types
	pauseImage   = vendorRegistry + "/pause:3.10" // of the nodes themselves
)

// chartVersion has a plus sign, which a tag cannot have.
const chartVersion = "1.0.0+7"

// nodeAddress is the node's address in the site, which nobody takes for loopback.
const nodeAddress = "10.99.0.1"

const clientsSpec = `apiVersion: sealift/v1
kind: Bundle
name: shop
version: 1.0.0
platforms: [linux/amd64, linux/arm64]
images:
  - ref: ` + pauseImage + `
  - ref: ` + shopImage + `
  - {ref: "` + sparseImage + `", platforms: [linux/%[1]s]}
  - {ref: "` + migrateImage + `", platforms: [linux/%[1]s]}
charts:
  - path: ./chart
    release: demo
    namespace: demo
`

const clientsValues = "image: " + shopImage + "\nmigrateImage: " + migrateImage + "\nreplicas: 1\nneverReady: false\nmigrateFails: false\n"

// The user who may write to the stores that have users.
const (
	user     = "jane"
	password = "correct horse battery"
)

// clients is a site whose images come from `sealift serve`, and the clients that people use there.
type clients struct {
	journey
	// shop, sparse and migrate are the digests behind those references, children those of shop's images by
	// architecture.
	shop, sparse, migrate string
	children              map[string]string
	// bundle and store are served, the bundle at the first two of the addresses.
	bundle, key, store string
	servers            []*server
}

// server is a `sealift serve` in the site.
type server struct {
	name, address string
	// prefix is below the address where the bundle was seeded to, with a slash before it.
	prefix string
	// ca is the file with what is to be trusted, empty where the server speaks plain HTTP; it is alone in certDir,
	// too.
	ca, certDir string
	// login says that nothing is given to those without a user.
	login bool

	cmd         *exec.Cmd
	accessLog   string
	out, errOut lockedBuffer
	ended       chan struct{}
}

// TestClients pulls with the clients that people have from everything that `sealift serve` serves, and
// pushes where that can be.
func TestClients(t *testing.T) {
	sealiftBinary(t)
	requireSite(t)
	program(t, "skopeo") // the vendor needs it as well
	dir := t.TempDir()
	vendorDir, siteDir := filepath.Join(dir, "vendor"), filepath.Join(dir, "site")
	for _, d := range []string{vendorDir, siteDir} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := startSite(t, siteDir)
	c := &clients{
		journey: journey{vendor: side{netns: s.name + "-vendor", dir: vendorDir}, site: s, images: map[string]string{}},
		bundle:  filepath.Join(siteDir, "shop-1.0.0.tar.zst"), key: filepath.Join(siteDir, "cosign.pub"), store: filepath.Join(siteDir, "store"),
		children: map[string]string{},
	}
	stopRegistry := c.startVendorRegistry(t)
	for _, step := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"vendor pushes images", c.pushImages},
		{"vendor names them", c.nameImages},
		{"vendor signs", c.signUpstream},
		{"vendor packs", c.packBundle},
		{"vendor goes", func(*testing.T) { stopRegistry() }},
		{"serve", func(step *testing.T) { c.serve(step, t.Context()) }},
	} {
		if !t.Run(step.name, step.run) {
			t.Fatal("the steps that follow need this one")
		}
	}
	for _, srv := range c.servers {
		t.Run(srv.name, func(t *testing.T) {
			t.Run("skopeo", func(t *testing.T) { c.pullWithSkopeo(t, srv) })
			t.Run("podman", func(t *testing.T) { c.pullWithPodman(t, srv) })
			t.Run("containerd", func(t *testing.T) { c.pullWithContainerd(t, srv) })
			t.Run("helm", func(t *testing.T) { c.pullWithHelm(t, srv) })
			t.Run("cosign", func(t *testing.T) { c.verifyWithCosign(t, srv) })
			t.Run("original names", func(t *testing.T) { c.originalNames(t, srv) })
			t.Run("push", func(t *testing.T) { c.push(t, srv) })
		})
	}
	t.Run("pods by original names", c.pods)
	t.Run("servers end well", c.endServers)
	t.Run("nothing tried to leave", c.nothingLeft)
}

// program finds a program, or skips the test where it is not installed; where CI is set, that fails.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	for _, built := range []struct{ name, gomod, module string }{
		{"cosign", "../interop/cosign/go.mod", "github.com/sigstore/cosign/v2"},
		{"helm", "../../go.mod", "helm.sh/helm/v4"},
	} {
		if built.name != name {
			continue
		}
		content, err := os.ReadFile(built.gomod)
		if err != nil {
			t.Fatal(err)
		}
		version := regexp.MustCompile(regexp.QuoteMeta(built.module) + ` (v[0-9.]+)`).FindSubmatch(content)
		if version == nil {
			t.Fatalf("%s requires no %s", built.gomod, built.module)
		}
		path := filepath.Join(filepath.Dir(clusterBin(t)), name+"-"+string(version[1]), name)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is missing, and CI is set", name)
	}
	t.Skipf("%s is missing; run internal/e2e/prepare.sh", name)
	return ""
}

// nameImages gives two of the vendor's images the names under which they are known. Skopeo writes the index as it
// likes, after which it can copy it without changing it.
func (c *clients) nameImages(t *testing.T) {
	for _, args := range [][]string{
		{"--all", "docker://" + vendorRegistry + "/demo/app:1.0.0", "docker://" + vendorRegistry + "/library/shop:1.0.0"},
		{"--format=v2s2", "docker://" + vendorRegistry + "/demo/migrate:1.0.0", "docker://" + vendorRegistry + "/jobs/migrate:1.0.0"},
	} {
		c.vendor.output(t, "skopeo", append([]string{"--insecure-policy", "copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false"}, args...)...)
	}
	raw := c.vendor.fetch(t, "http://"+vendorRegistry+"/v2/library/shop/manifests/1.0.0")
	c.shop = digestOf(raw)
	var index struct {
		Manifests []struct {
			Digest   string
			Platform struct{ Architecture string }
		}
	}
	if err := json.Unmarshal([]byte(raw), &index); err != nil {
		t.Fatal(err)
	}
	for _, child := range index.Manifests {
		c.children[child.Platform.Architecture] = child.Digest
	}
	if len(c.children) != 2 {
		t.Fatalf("%s is for %v, want two platforms", shopImage, c.children)
	}
	c.sparse = digestOf(c.vendor.fetch(t, "http://"+vendorRegistry+"/v2/demo/app/manifests/2.0.0"))
	c.migrate = digestOf(c.vendor.output(t, "skopeo", "inspect", "--raw", "--tls-verify=false", "docker://"+vendorRegistry+"/jobs/migrate:1.0.0"))
}

func digestOf(raw string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(raw))) }

// packBundle packs what the vendor has, and carries it over to the site.
func (c *clients) packBundle(t *testing.T) {
	if err := os.CopyFS(filepath.Join(c.vendor.dir, "chart"), os.DirFS("../../testdata/demo/chart")); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"chart/Chart.yaml": "apiVersion: v2\nname: demo\nversion: " + chartVersion + "\n", "chart/values.yaml": clientsValues, "sealift.yaml": fmt.Sprintf(clientsSpec, runtime.GOARCH)} {
		if err := os.WriteFile(filepath.Join(c.vendor.dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c.vendor.sealift(t, exitDone, "keygen", "--output-prefix", "cosign")
	c.vendor.sealift(t, exitDone, "pack", "-o", ".", "--key", "cosign.key", "--mirror", "docker.io="+vendorRegistry, "--mirror", "quay.io="+vendorRegistry)
	for _, path := range []string{c.bundle, c.key} {
		output(t, exec.CommandContext(t.Context(), "cp", filepath.Join(c.vendor.dir, filepath.Base(path)), path))
	}
}

// serve starts all servers: of the bundle and of a store into which it is seeded, each with TLS and without.
// They run until ctx ends.
func (c *clients) serve(t *testing.T, ctx context.Context) {
	users, secret := filepath.Join(c.site.dir, "users"), filepath.Join(c.site.dir, "password")
	if err := os.WriteFile(secret, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	add := c.site.command(t.Context(), sealiftBinary(t), "serve", "user", "add", user, "--users", users, "--password-stdin")
	add.Stdin = strings.NewReader(password + "\n")
	output(t, add)

	bundleCA, storeCA := filepath.Join(c.site.dir, "state/serve/tls/ca.crt"), filepath.Join(c.store, "sealift/tls/ca.crt")
	start := func(s *server, args ...string) *server {
		s.accessLog = filepath.Join(c.site.dir, "access-"+s.address)
		s.start(t, c.site.command(ctx, sealiftBinary(t), append([]string{"serve", "--listen", s.address, "--access-log", s.accessLog}, args...)...))
		c.servers = append(c.servers, s)
		if s.ca != "" {
			// For clients that take all that is in a directory, and beside ca lies its key.
			s.certDir = filepath.Join(c.site.dir, "certs", s.address)
			output(t, exec.CommandContext(t.Context(), "install", "-D", "-m", "644", s.ca, filepath.Join(s.certDir, "ca.crt")))
		}
		return s
	}
	start(&server{name: "bundle", address: "127.0.0.1:5001"}, c.bundle, "--key", c.key)
	start(&server{name: "bundle with TLS", address: nodeAddress + ":5002", ca: bundleCA}, c.bundle, "--key", c.key, "--self-signed")
	plain := start(&server{name: "store", address: "127.0.0.1:5003"}, "--store", c.store)
	c.site.sealift(t, exitDone, "seed", c.bundle, "--key", c.key, "--registry", plain.address)
	closed := start(&server{name: "store with TLS and users", address: nodeAddress + ":5004", ca: storeCA, login: true, prefix: "/again"}, "--store", c.store, "--self-signed", "--users", users)
	r := c.site.sealift(t, exitDone, "seed", c.bundle, "--key", c.key, "--registry", closed.address+closed.prefix,
		"--ca-file", storeCA, "--username", user, "--password-file", secret)
	if !strings.Contains(r.stdout, closed.address) {
		t.Errorf("seeded with a password: %s", r.stdout)
	}
	start(&server{name: "store with TLS that all may read", address: nodeAddress + ":5005", ca: storeCA}, "--store", c.store, "--self-signed", "--users", users, "--anonymous-pull")
}

// start starts the server, and waits until it serves.
func (s *server) start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	s.cmd, s.ended = cmd, make(chan struct{})
	cmd.Stdout, cmd.Stderr = &s.out, &s.errOut
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait() // the exit code is in its state
		close(s.ended)
	}()
	waitFor(t, 20*time.Second, func() string {
		select {
		case <-s.ended:
			t.Fatalf("%s has ended: %s%s", s.name, &s.out, &s.errOut)
		default:
		}
		if !strings.Contains(s.out.String(), "serving ") {
			return s.name + " does not serve: " + s.errOut.String()
		}
		return ""
	})
}

// endServers ends all servers, which have nothing to complain of.
func (c *clients) endServers(t *testing.T) {
	for _, s := range c.servers {
		if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		select {
		case <-s.ended:
		case <-time.After(15 * time.Second):
			_ = s.cmd.Process.Kill()
			t.Errorf("%s does not end", s.name)
			continue
		}
		if code := s.cmd.ProcessState.ExitCode(); code != 0 || strings.Contains(s.errOut.String(), "DAMAGED") {
			t.Errorf("%s: exit code %d\n%s", s.name, code, &s.errOut)
		}
		requests, err := os.ReadFile(s.accessLog)
		if err != nil {
			t.Error(err)
		}
		for line := range strings.Lines(string(requests)) {
			if strings.Contains(line, `"status":5`) {
				t.Errorf("%s: %s", s.name, line)
			}
		}
	}
}

// nothingLeft shows that nothing in the site asked for a name or tried to reach an address that it has no route
// to, and that it would have been seen.
func (c *clients) nothingLeft(t *testing.T) {
	tries := func() int {
		counters := snmpCounters(t, c.site.output(t, "cat", "/proc/net/snmp"))
		return counters["Ip.OutNoRoutes"] + counters["Udp.OutDatagrams"]
	}
	if n := tries(); n != 0 {
		t.Errorf("packets without a route and datagrams, as DNS would send: got %d, want 0", n)
	}
	empty := filepath.Join(c.site.dir, "empty.conf")
	if err := os.WriteFile(empty, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	before := tries()
	out, err := c.try(t, "skopeo", "--registries-conf", empty, "inspect", "--no-tags", "docker://"+shopImage)
	if err == nil || tries() == before {
		t.Errorf("without the configuration of the mirrors: %v, %s; nothing was seen of it outside", err, out)
	}
}

// try runs a command in the site to any end, and returns all that it printed.
func (c *clients) try(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	cmd := c.site.command(t.Context(), name, args...)
	out, err := cmd.CombinedOutput()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), err
}

// refused runs a command that must fail with a message that has all of these, and none of what a client says
// that has asked another host.
func (c *clients) refused(t *testing.T, cmd *exec.Cmd, want ...string) {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if exit := new(exec.ExitError); !errors.As(err, &exit) {
		t.Errorf("%s: %v, want it to fail\n%s", cmd, err, out)
		return
	}
	for _, w := range want {
		if !bytes.Contains(out, []byte(w)) {
			t.Errorf("%s: the message has no %q:\n%s", cmd, w, out)
		}
	}
	for _, w := range []string{"lookup ", "dial tcp", "registry-1.docker.io", "network is unreachable"} {
		if bytes.Contains(out, []byte(w)) {
			t.Errorf("%s: it asked somebody else (%q):\n%s", cmd, w, out)
		}
	}
}

// lockedBuffer is written by a process and read meanwhile.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// other is the architecture that this machine does not have.
func (c *clients) other() string {
	for arch := range c.children {
		if arch != runtime.GOARCH {
			return arch
		}
	}
	panic("an image for one platform")
}

// inStore says whether a server has a store behind it.
func (s *server) inStore() bool { return slices.Contains(s.cmd.Args, "--store") }
