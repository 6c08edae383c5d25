//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// askVariable holds a URL where the test binary was started to ask for it, in a network namespace, until its standard input ends.
const askVariable = "SEALIFT_E2E_ASK"

// ask asks for a URL all the time, with a connection for each request, and prints a line for each answer.
func ask(url string) {
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // until it ends
		stop()
	}()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	for tick := time.NewTicker(20 * time.Millisecond); ctx.Err() == nil; <-tick.C {
		fmt.Println(answerOf(ctx, &client, url))
	}
}

func answerOf(ctx context.Context, client *http.Client, url string) string {
	req, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodGet, url, nil)
	if err != nil {
		return "FAILED: " + err.Error()
	}
	resp, err := client.Do(req)
	if err != nil {
		return "FAILED: " + err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1000))
	if err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Sprintf("FAILED: %s %v %q", resp.Status, err, body)
	}
	return strings.TrimSpace(string(body))
}

// A client of a front asks it all the time.
type client struct {
	mu      sync.Mutex
	answers map[string]int // by version
	failed  []string
	all     int
	end     func()
}

// asks starts a client of a front, which asks through a proxy of the API server.
func (l *life) asks(t *testing.T, namespace, front, port string) *client {
	t.Helper()
	proxy := l.site.kubectlCommand(t.Context(), "proxy", "--port", port)
	if err := proxy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = proxy.Process.Kill() // it has no other end
		_ = proxy.Wait()         // was killed, so this says nothing
	})
	waitFor(t, 30*time.Second, func() string {
		if out, err := l.site.fetchCommand(t.Context(), "http://127.0.0.1:"+port+"/readyz").CombinedOutput(); err != nil {
			return "the proxy does not answer: " + string(out)
		}
		return ""
	})
	cmd := l.site.fetchCommand(t.Context(), "")
	cmd.Env = []string{fmt.Sprintf("%s=http://127.0.0.1:%s/api/v1/namespaces/%s/services/%s:http/proxy/", askVariable, port, namespace, front)}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &client{answers: map[string]int{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			c.mu.Lock()
			c.all++
			if fields := strings.Fields(lines.Text()); len(fields) > 1 && fields[0] == "version" {
				c.answers[fields[1]]++
			} else {
				c.failed = append(c.failed, lines.Text())
			}
			c.mu.Unlock()
		}
	}()
	c.end = sync.OnceFunc(func() {
		_ = in.Close() // what it says is seen by what the client does
		<-done
		if err := cmd.Wait(); err != nil {
			t.Errorf("the client: %v", err)
		}
	})
	t.Cleanup(c.end)
	return c
}

// versions are the answers of the next n requests, by version.
func (c *client) versions(t *testing.T, n int) map[string]int {
	t.Helper()
	c.mu.Lock()
	from := c.all
	clear(c.answers)
	c.mu.Unlock()
	var seen map[string]int
	waitFor(t, 60*time.Second, func() string {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.all < from+n {
			return fmt.Sprintf("%d answers", c.all-from)
		}
		seen = map[string]int{}
		for version, n := range c.answers {
			seen[version] = n
		}
		return ""
	})
	return seen
}

// only checks that the client gets answers of these versions, and of all of them.
func (c *client) only(t *testing.T, want ...string) {
	t.Helper()
	seen := c.versions(t, 50)
	for _, version := range want {
		if seen[version] == 0 {
			t.Errorf("no answer of version %s: %v", version, seen)
		}
	}
	if len(seen) != len(want) {
		t.Errorf("the client gets %v, want %v", seen, want)
	}
}

// unfailing ends a client, of which no request may have failed.
func (c *client) unfailing(t *testing.T) {
	t.Helper()
	c.end()
	t.Logf("%d requests, %d of which failed", c.all, len(c.failed))
	if len(c.failed) > 0 {
		t.Errorf("%d of %d requests failed, the first one: %s", len(c.failed), c.all, c.failed[0])
	}
}

// colours packs a bundle of the chart testdata/charts/colours, called as its namespace.
func (l *life) colours(t *testing.T, name, version, values, rollout string) string {
	t.Helper()
	spec := l.spec(t, name, version, chart{release: "shop", values: values, more: "rollback: safe\nrollout: " + rollout})
	return l.packedSpec(t, name, version, strings.Replace(spec, "path: ./service\n", "path: ./colours\n", 1))
}

// copyColours gives the vendor the chart, once.
func (l *life) copyColours(t *testing.T) {
	t.Helper()
	to := filepath.Join(l.vendor.dir, "colours")
	if _, err := os.Stat(to); err == nil {
		return
	}
	if err := os.CopyFS(to, os.DirFS("../../testdata/charts/colours")); err != nil {
		t.Fatal(err)
	}
}

// blueGreen leads users to a new version, back, and gives one up, while a client asks all the time.
func (l *life) blueGreen(t *testing.T) {
	const name = "colours"
	const rollout = "{strategy: blueGreen, front: {kind: Service, name: door}}"
	l.copyColours(t)
	l.install(t, exitDone, l.colours(t, name, "1.0.0", "", rollout))
	l.status(t, exitDone, name)
	c := l.asks(t, name, "door", "8101")
	c.only(t, "1.0.0")

	two := l.colours(t, name, "2.0.0", newer, rollout)
	says(t, l.install(t, exitDone, two).stdout, "sealift promote colours", "sealift abort colours")
	c.only(t, "1.0.0")
	says(t, l.status(t, exitHeld, name), "staged", "sealift promote colours", "sealift abort colours")
	l.install(t, exitRefused, two)
	l.change(t, exitDone, "promote", name)
	c.only(t, "2.0.0")
	l.status(t, exitDone, name)

	l.change(t, exitDone, "rollback", "--bundle", name)
	c.only(t, "1.0.0")
	l.status(t, exitDone, name)

	l.install(t, exitDone, two)
	c.only(t, "1.0.0")
	l.change(t, exitDone, "abort", name)
	c.only(t, "1.0.0")
	l.status(t, exitDone, name)

	l.install(t, exitChangedBack, l.colours(t, name, "2.1.0", newer+"neverReady: true\n", rollout), "--timeout", "8s", "--promote")
	c.only(t, "1.0.0")
	l.install(t, exitDone, l.colours(t, name, "3.0.0", newer, rollout), "--promote")
	c.only(t, "2.0.0")
	l.change(t, exitDone, "promote", name, "--retire")
	c.only(t, "2.0.0")
	c.unfailing(t)
	if out := l.site.kubectl(t, "get", "deployments", "-n", name, "-o", "name"); strings.Count(out, "\n") != 1 {
		t.Errorf("after --retire there are\n%s", out)
	}

	// What cannot stand beside its former version is refused, by the vendor's pack, and at the site with the site's values.
	l.write(t, "host.spec.yaml", strings.Replace(l.spec(t, "host", "1.0.0", chart{release: "shop", values: "pod: {hostNetwork: true}", more: "rollout: " + rollout}), "./service", "./colours", 1))
	says(t, l.vendor.sealift(t, 1, "pack", "-f", "host.spec.yaml", "-o", "host.tar.zst", "--key", "cosign.key").stderr, "Deployment/shop-", "the network of the node")
	r := l.install(t, exitRefused, l.colours(t, name, "4.0.0", newer, rollout), "--set-value", "pod.hostNetwork=true")
	says(t, r.stderr, "Deployment/shop-", "the network of the node")
	l.status(t, exitDone, name)
}

// canary leads a share of users to a new version, by numbers of pods.
func (l *life) canary(t *testing.T) {
	const name = "canary"
	const rollout = "{strategy: canary, steps: [10, 50], front: {kind: Service, name: door}}"
	l.copyColours(t)
	l.install(t, exitDone, l.colours(t, name, "1.0.0", "", rollout))
	c := l.asks(t, name, "door", "8102")
	l.install(t, exitDone, l.colours(t, name, "2.0.0", newer, rollout))
	c.only(t, "1.0.0")
	says(t, l.change(t, exitDone, "promote", name).stdout, "33 %: 1 pod of 3 (10 % was wanted)")
	c.only(t, "1.0.0", "2.0.0")
	says(t, l.change(t, exitDone, "promote", name).stdout, "50 %: 2 pods of 4 (50 % was wanted)")
	c.only(t, "1.0.0", "2.0.0")
	l.change(t, exitDone, "abort", name)
	c.only(t, "1.0.0")
	l.install(t, exitDone, l.colours(t, name, "3.0.0", newer, rollout))
	l.change(t, exitDone, "promote", name, "--all")
	c.only(t, "2.0.0")
	l.status(t, exitDone, name)
	c.unfailing(t)
}
