//go:build e2e

package e2e

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// points is at how many writes of the ledger an installer is killed.
const points = 10

// revertedKills kill an installer, with SIGKILL, after its first, second, … tenth write to the ledger: each time it is taken back.
func (l *life) revertedKills(t *testing.T) {
	const name = "reverted"
	old, file := l.killed(t, name, 0), l.killed(t, name, 1)
	l.install(t, exitDone, old)
	l.serves(t, name, 0)
	for i := 1; i <= points; i++ {
		l.killedAfter(t, name, file, i)
		l.open(t, name)
		l.change(t, exitDone, "revert", name)
		l.serves(t, name, 0)
	}
	l.install(t, exitDone, file)
	l.serves(t, name, 1)
	l.idle(t, name)
}

// resumedKills are the same, and each time it is gone on with.
func (l *life) resumedKills(t *testing.T) {
	const name = "resumed"
	l.install(t, exitDone, l.killed(t, name, 0))
	for i := 1; i <= points; i++ {
		file := l.killed(t, name, i)
		l.killedAfter(t, name, file, i)
		l.open(t, name)
		l.site.sealift(t, exitDone, "resume", file, "--key", "cosign.pub", "--kubeconfig", l.site.kubeconfig(), "--lease", "5s", "--timeout", "60s", "--progress", "none")
		l.serves(t, name, i)
	}
	l.idle(t, name)
}

// killed packs version i of what is killed.
func (l *life) killed(t *testing.T, name string, i int) string {
	t.Helper()
	values := fmt.Sprintf("greeting: version %d\n", i)
	if i%2 == 1 {
		values += newer
	}
	// With these checks the tenth write is that the last release is begun, which takes longer than it takes to be told of it.
	return l.packed(t, name, fmt.Sprintf("%d.0.0", i),
		chart{release: "db", values: values, more: "checks: [{name: port, tcp: {service: db, port: 80}, timeout: 30s}]"},
		chart{release: "api", values: values, more: "dependsOn: [db]\nchecks: [{name: port, tcp: {service: api, port: 80}, timeout: 30s}]"},
		chart{release: "web", values: values, more: "dependsOn: [api]\nchecks: [{name: answers, http: {service: web, port: 80, path: /}, timeout: 30s}]"})
}

// killedAfter installs a bundle, and kills that after n writes to the ledger.
func (l *life) killedAfter(t *testing.T, name, file string, n int) {
	t.Helper()
	writes, stop := l.writes(t, name)
	defer stop()
	cmd := l.site.command(t.Context(), sealiftBinary(t), l.with("install", file)...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for i := range n {
		select {
		case <-writes:
		case err := <-ended:
			t.Fatalf("it ended after %d writes (%v), and was to be killed after %d\n%s", i, err, n, &out)
		case <-time.After(time.Minute):
			t.Fatalf("%d writes in a minute, and it was to be killed after %d\n%s", i, n, &out)
		}
	}
	_ = cmd.Process.Kill() // it may have ended
	<-ended
	if code := cmd.ProcessState.ExitCode(); code != -1 {
		t.Fatalf("it ended with %d before it was killed, after %d writes\n%s", code, n, &out)
	}
}

// writes tells of each write to the ledger of a bundle that installs in the cluster from now on.
func (l *life) writes(t *testing.T, name string) (_ <-chan struct{}, stop func()) {
	t.Helper()
	cmd := l.site.kubectlCommand(t.Context(), "get", "secret", "sealift."+name, "-n", "sealift", "--watch", "-o", "json")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = func() {
		_ = cmd.Process.Kill() // may have ended
		_ = cmd.Wait()         // was killed, so this says nothing
	}
	d := json.NewDecoder(out)
	next := func() error {
		var secret struct{ Kind string }
		return d.Decode(&secret)
	}
	// The first one is what there is already.
	if err := next(); err != nil {
		stop()
		t.Fatalf("watching the ledger of %s: %v", name, err)
	}
	writes := make(chan struct{}, 1000)
	go func() {
		for {
			if err := next(); err != nil {
				if !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "closed") {
					fmt.Println("watching the ledger:", err)
				}
				return
			}
			writes <- struct{}{}
		}
	}()
	return writes, stop
}

// open checks that the cluster knows that an install is under way, or was killed.
func (l *life) open(t *testing.T, name string) {
	t.Helper()
	r := l.site.sealift(t, exitHeld, l.at("status", name)...)
	if !strings.Contains(r.stdout, "open") {
		t.Errorf("status names nothing that is open:\n%s", r.stdout)
	}
}

// serves checks that all releases are at version i, by what the cluster records and by what the pods have.
func (l *life) serves(t *testing.T, name string, i int) {
	t.Helper()
	r := l.site.sealift(t, exitDone, l.at("status", name)...)
	if want := fmt.Sprintf("%s %d.0.0: installed", name, i); !strings.Contains(r.stdout, want) {
		t.Errorf("status does not say %q:\n%s", want, r.stdout)
	}
	for _, release := range []string{"db", "api", "web"} {
		if got, want := l.field(t, name, "deployment/"+release, `.spec.template.spec.containers[0].env[1].value`), fmt.Sprintf("version %d", i); got != want {
			t.Errorf("release %s has %q, want %q", release, got, want)
		}
		if status := l.statusOf(t, name, release); status != "deployed" {
			t.Errorf("release %s: its last revision is %s, want deployed", release, status)
		}
	}
}

// idle checks that nobody keeps others out of the releases. A lease that the dead have left stays until the next one who needs it.
func (l *life) idle(t *testing.T, namespace string) {
	t.Helper()
	if out := l.site.kubectl(t, "get", "leases", "-n", namespace, "-o", "name"); out != "" {
		t.Errorf("not given back: %s", out)
	}
}

// statusOf is what Helm's record says of the newest revision of a release.
func (l *life) statusOf(t *testing.T, namespace, release string) string {
	t.Helper()
	var secrets struct {
		Items []struct {
			Metadata struct{ Labels map[string]string }
			Data     map[string]string
		}
	}
	l.site.get(t, &secrets, "secrets", "-n", namespace, "-l", "owner=helm,name="+release)
	status, newest := "none", 0
	for _, s := range secrets.Items {
		var n int
		if _, err := fmt.Sscan(s.Metadata.Labels["version"], &n); err != nil {
			t.Fatal(err)
		}
		if _, err := base64.StdEncoding.DecodeString(s.Data["release"]); err != nil {
			t.Errorf("the record of revision %d of %s cannot be read: %v", n, release, err)
		}
		if n > newest {
			newest, status = n, s.Metadata.Labels["status"]
		}
	}
	return status
}
