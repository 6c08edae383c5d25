//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const (
	vendorRegistry = "127.0.0.1:5555" // exists on the vendor's side only
	siteRegistry   = "127.0.0.1:5000" // exists on the site's side only
)

// A side is one of the two places: a directory, and a network namespace in which its commands run.
type side struct {
	netns string
	dir   string
}

// command makes a command of this side. It gets nothing of the caller's environment but PATH.
func (s side) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--net=/run/netns/" + s.netns, "--", program}, args...)...)
	cmd.Dir = s.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "SEALIFT_STATE=" + filepath.Join(s.dir, "state"), "SEALIFT_CONFIG=" + filepath.Join(s.dir, "config.yaml"), "COSIGN_PASSWORD=correct horse"}
	return cmd
}

// output runs a command of this side, which must succeed, and returns what it printed.
func (s side) output(t *testing.T, program string, args ...string) string {
	t.Helper()
	return output(t, s.command(t.Context(), program, args...))
}

// result is what became of a sealift command.
type result struct {
	stdout, stderr string
	code           int
}

// sealift runs the product on this side; it must end with the given exit code.
func (s side) sealift(t *testing.T, want int, args ...string) result {
	t.Helper()
	r, err := s.run(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	if r.code != want {
		t.Fatalf("exit code %d, want %d\n--- stdout\n%s\n--- stderr\n%s", r.code, want, r.stdout, r.stderr)
	}
	return r
}

// run runs the product on this side, to any exit code. It does not end the test, so that it can be
// called from any goroutine.
func (s side) run(t *testing.T, args ...string) (result, error) {
	t.Helper()
	start := time.Now()
	cmd := s.command(t.Context(), sealiftBinary(t), args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		return result{}, err
	}
	r := result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
	t.Logf("sealift %s: exit code %d after %.1fs", strings.Join(args, " "), r.code, time.Since(start).Seconds())
	return r, nil
}

// sealiftBinary is the path of the product that is tested: $SEALIFT_BIN, or where make puts it.
func sealiftBinary(t *testing.T) string {
	t.Helper()
	path := os.Getenv("SEALIFT_BIN")
	if path == "" {
		path = "../../bin/sealift"
	}
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("no product to test: %v; run `make build`, or set SEALIFT_BIN", err)
	}
	return path
}

// site is the isolated side: a registry, and a cluster that pulls from it.
type site struct {
	side
	name       string
	state      string // the directory that site.sh describes
	kubectlBin string
}

// startSite starts a site that goes when the test ends, however it ends. It skips the test where no
// site can run.
func startSite(t *testing.T, dir string) site {
	t.Helper()
	requireSite(t)
	name := fmt.Sprintf("sealift-e2e-%d", os.Getpid())
	s := site{
		side:       side{netns: name, dir: dir},
		name:       name,
		state:      "/run/sealift-e2e/" + name,
		kubectlBin: filepath.Join(clusterBin(t), "kubectl"),
	}
	start := time.Now()
	output(t, exec.CommandContext(t.Context(), "./site.sh", "up", name, fmt.Sprint(os.Getpid())))
	t.Logf("the site is up after %.1fs", time.Since(start).Seconds())
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if t.Failed() {
			s.logDiagnosis(ctx, t)
		}
		if out, err := exec.CommandContext(ctx, "./site.sh", "down", name).CombinedOutput(); err != nil {
			t.Errorf("stopping the site: %v\n%s", err, out)
		}
	})
	return s
}

// requireSite skips the test where no site can run, or fails it where one ought to.
func requireSite(t *testing.T) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "./site.sh", "check").CombinedOutput()
	if err == nil {
		return
	}
	reason := strings.TrimSpace(string(out))
	exit := new(exec.ExitError)
	switch {
	case !errors.As(err, &exit):
		t.Fatal(err)
	case exit.ExitCode() == 3:
		t.Skipf("NOTHING IS TESTED HERE: %s", reason)
	case os.Getenv("CI") != "":
		t.Fatalf("no site can run here, and CI is set: %s", reason)
	}
	t.Skipf("no site can run here: %s", reason)
}

// clusterBin is the directory where prepare.sh leaves the programs of Kubernetes.
func clusterBin(t *testing.T) string {
	t.Helper()
	gomod, err := os.ReadFile("cluster/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`k8s\.io/kubernetes (v[0-9.]+)`).FindSubmatch(gomod)
	if version == nil {
		t.Fatal("cluster/go.mod requires no k8s.io/kubernetes")
	}
	cache := os.Getenv("SEALIFT_E2E_CACHE")
	if cache == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		cache = filepath.Join(user, "sealift-e2e")
	}
	return filepath.Join(cache, string(version[1]))
}

// logDiagnosis logs what helps to understand a failure.
func (s site) logDiagnosis(ctx context.Context, t *testing.T) {
	t.Helper()
	for _, args := range [][]string{
		{"get", "pods,jobs,deployments,persistentvolumeclaims,leases", "-A", "-o", "wide"},
		{"get", "events", "-A", "--sort-by=.lastTimestamp"},
	} {
		out, err := s.kubectlCommand(ctx, args...).CombinedOutput()
		t.Logf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	logs, _ := filepath.Glob(s.state + "/log/*.log")
	for _, path := range logs {
		out, err := exec.CommandContext(ctx, "tail", "-n", "15", path).CombinedOutput()
		t.Logf("end of %s: %v\n%s", path, err, out)
	}
}

// inside makes a command that runs in all namespaces of the site, not just its network.
func (s site) inside(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "./site.sh", append([]string{"exec", s.name}, args...)...)
}

func (s site) kubeconfig() string { return s.state + "/admin.kubeconfig" }

func (s site) kubectlCommand(ctx context.Context, args ...string) *exec.Cmd {
	return s.command(ctx, s.kubectlBin, append([]string{"--kubeconfig", s.kubeconfig()}, args...)...)
}

func (s site) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	return output(t, s.kubectlCommand(t.Context(), args...))
}

// get reads an object, or a list of objects, of the cluster.
func (s site) get(t *testing.T, into any, args ...string) {
	t.Helper()
	out := s.kubectl(t, append([]string{"get", "-o", "json"}, args...)...)
	if err := json.Unmarshal([]byte(out), into); err != nil {
		t.Fatalf("kubectl get %s: %v", strings.Join(args, " "), err)
	}
}

// output runs a command, which must succeed, and returns what it printed.
func output(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s%s", cmd, err, stdout.String(), stderr.String())
	}
	return stdout.String()
}

// waitFor polls a condition until it holds. The condition says what is still missing, or "".
func waitFor(t *testing.T, limit time.Duration, condition func() string) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		missing := condition()
		if missing == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %v: %s", limit, missing)
		}
		time.Sleep(100 * time.Millisecond)
	}
}
