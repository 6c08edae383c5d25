package release

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func kubeconfig(t testing.TB, server string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config")
	err := os.WriteFile(path, []byte(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "`+server+`", insecure-skip-tls-verify: true}}]
users: [{name: u, user: {token: secret}}]
contexts: [{name: x, context: {cluster: c, user: u, namespace: other}}]
current-context: x
`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestConnectErrors(t *testing.T) {
	if _, err := Connect(ClusterOptions{}); !errors.Is(err, ErrNoKubeconfig) {
		t.Errorf("got %v", err)
	}
	good := kubeconfig(t, "https://cluster.invalid")
	empty := filepath.Join(t.TempDir(), "empty")
	broken := filepath.Join(t.TempDir(), "broken")
	if err := errors.Join(os.WriteFile(empty, nil, 0o600), os.WriteFile(broken, []byte("a: ["), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, o := range []ClusterOptions{{Kubeconfig: "/does/not/exist"}, {Kubeconfig: good, Context: "y"}, {Kubeconfig: empty}, {Kubeconfig: broken}} {
		var ke *KubeconfigError
		if _, err := Connect(o); !errors.As(err, &ke) || ke.Path != o.Kubeconfig {
			t.Errorf("%+v: got %v", o, err)
		}
	}
	for _, o := range []ClusterOptions{{Kubeconfig: good}, {Kubeconfig: good, Context: "x"}, {Kubeconfig: empty + string(filepath.ListSeparator) + good}} {
		if _, err := Connect(o); err != nil {
			t.Errorf("%+v: got %v", o, err)
		}
	}
}

// A session writes to no file and asks nothing but the cluster.
func TestVersion(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("KUBECONFIG", "/does/not/exist")
	var agent, token string
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		agent, token = r.UserAgent(), r.Header.Get("Authorization")
		w.Header().Set("Content-Type", "application/json")
		w.Header().Add("Warning", `299 - "old \u001b[31mapi"`)
		_, _ = io.WriteString(w, `{"major":"1","minor":"34","gitVersion":"v1.34.2"}`)
	}))
	defer srv.Close()
	var logged bytes.Buffer
	c, err := Connect(ClusterOptions{Kubeconfig: kubeconfig(t, srv.URL), Log: slog.New(slog.NewTextHandler(&logged, nil))})
	if err != nil {
		t.Fatal(err)
	}
	v, err := c.Version(t.Context())
	if err != nil || v != "v1.34.2" || agent != userAgent || token != "Bearer secret" {
		t.Errorf("got %q, %v, agent %q, token %q", v, err, agent, token)
	}
	if entries, err := os.ReadDir(home); err != nil || len(entries) > 0 {
		t.Errorf("home has %v, %v", entries, err)
	}
	if !strings.Contains(logged.String(), "old") {
		t.Errorf("logged %q", &logged)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var ue *UnreachableError
	if _, err := c.Version(ctx); !errors.As(err, &ue) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	srv.Close()
	if _, err := c.Version(t.Context()); !errors.As(err, &ue) || ue.Server == "" {
		t.Errorf("got %v", err)
	}
}

func TestSessionNamespace(t *testing.T) {
	c, err := Connect(ClusterOptions{Kubeconfig: kubeconfig(t, "https://cluster.invalid")})
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.open(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	g, ok := s.cfg.RESTClientGetter.(*getter)
	if !ok {
		t.Fatal("not our getter")
	}
	if ns, _, err := g.ToRawKubeConfigLoader().Namespace(); err != nil || ns != "shop" {
		t.Errorf("objects without a namespace go to %q (%v)", ns, err)
	}
}

// After a cancellation: reading ends at once, writing that is under way is
// waited for, and only release records are still written.
func TestGate(t *testing.T) {
	arrived, release := make(chan string, 1), make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // or the server does not notice that the client is gone
		if strings.HasPrefix(r.URL.Path, "/slow") {
			arrived <- r.Method
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}
		_, _ = io.WriteString(w, "done")
	}))
	defer srv.Close()
	do := func(ctx context.Context, method, path string) error {
		req, err := http.NewRequestWithContext(context.Background(), method, srv.URL+path, strings.NewReader("x"))
		if err != nil {
			return err
		}
		resp, err := (&gate{next: http.DefaultTransport, ctx: ctx}).RoundTrip(req)
		if err != nil {
			return err
		}
		_, err = io.ReadAll(resp.Body)
		return errors.Join(err, resp.Body.Close())
	}
	for _, method := range []string{http.MethodGet, http.MethodPatch} {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- do(ctx, method, "/slow?watch=true") }()
		<-arrived
		cancel()
		if method == http.MethodPatch {
			release <- struct{}{}
		}
		if err := <-done; (err == nil) != (method == http.MethodPatch) {
			t.Errorf("%s: got %v", method, err)
		}
		for _, m := range []string{http.MethodGet, http.MethodPatch, http.MethodPost, http.MethodDelete} {
			if err := do(ctx, m, "/apis/apps/v1/namespaces/shop/deployments/eu"); !errors.Is(err, context.Canceled) {
				t.Errorf("%s after the cancellation: got %v", m, err)
			}
		}
		if err := do(ctx, http.MethodGet, "/api/v1/namespaces/shop/secrets?labelSelector=name%3Deu%2Cowner%3Dhelm"); err != nil {
			t.Errorf("reading the history: %v", err)
		}
		if err := do(ctx, http.MethodGet, "/api/v1/namespaces/shop/secrets"); !errors.Is(err, context.Canceled) {
			t.Errorf("reading secrets: %v", err)
		}
		if err := do(ctx, http.MethodPut, "/api/v1/namespaces/shop/secrets/sh.helm.release.v1.eu.v2"); err != nil {
			t.Errorf("recording the failure: %v", err)
		}
	}
}

func TestDiagnose(t *testing.T) {
	c := newFake(t)
	put(t, c, 1, "failed")
	h, err := c.memory.Get("sh.helm.release.v1.eu.v1")
	if err != nil {
		t.Fatal(err)
	}
	r, err := asRelease(h)
	if err != nil {
		t.Fatal(err)
	}
	r.Manifest = "kind: Job\nmetadata: {name: eu-load}\n---\nkind: Pod\nmetadata: {name: eu-tool}\n"
	load := object("Job", "eu-load", nil)
	load.SetUID("job")
	c.kube.live = []*unstructured.Unstructured{load, object("Pod", "eu-tool", nil)}
	c.api["/api/v1/namespaces/shop/secrets/sh.helm.release.v1.eu.v1"] = `{"metadata":{"creationTimestamp":"2026-01-01T00:00:00Z"}}`
	c.api["/apis/apps/v1/namespaces/shop/replicasets"] = `{"kind":"ReplicaSetList","apiVersion":"apps/v1","items":[
	{"metadata":{"name":"eu-set","uid":"set","ownerReferences":[{"uid":"job"}]}}]}`
	c.api["/api/v1/namespaces/shop/pods"] = `{"kind":"PodList","apiVersion":"v1","items":[
	{"metadata":{"name":"eu-load-x1","uid":"x1","labels":{"job-name":"eu-load"}},"status":{"phase":"Pending","containerStatuses":[{"name":"web","state":{"waiting":{"reason":"ImagePullBackOff","message":"Back-off \u001b[31m pulling\n image"}}}]}},
	{"metadata":{"name":"eu-tool"},"status":{"phase":"Pending","conditions":[{"type":"PodScheduled","status":"False","reason":"Unschedulable","message":"0/1 nodes"}]}},
	{"metadata":{"name":"owned","uid":"owned","ownerReferences":[{"uid":"set"}]},"status":{"phase":"Pending"}},
	{"metadata":{"name":"crashed","namespace":"shop","ownerReferences":[{"uid":"set"}]},"status":{"phase":"Running","containerStatuses":[{"name":"web","restartCount":2,"state":{"waiting":{"reason":"CrashLoopBackOff"}}}]}},
	{"metadata":{"name":"eu-load-going","labels":{"job-name":"eu-load"},"deletionTimestamp":"2026-01-03T00:00:00Z"},"status":{"phase":"Running"}},
	{"metadata":{"name":"ready","labels":{"job-name":"eu-load"}},"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}},
	{"metadata":{"name":"foreign"},"status":{"phase":"Pending"}}]}`
	event := func(kind, name, uid, reason, created, last string) string {
		return `{"metadata":{"name":"e","creationTimestamp":"` + created + `"},"type":"Warning","reason":"` + reason + `","message":"m","lastTimestamp":"` + last +
			`","involvedObject":{"kind":"` + kind + `","name":"` + name + `","uid":"` + uid + `"}}`
	}
	const before, early, late = "2025-12-31T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"
	c.api["/api/v1/namespaces/shop/pods/crashed/log"] = strings.Repeat("earlier\n", 20) + "cannot \x1b[31mopen\tthe database\n"
	c.api["/api/v1/namespaces/shop/events"] = `{"kind":"EventList","apiVersion":"v1","items":[` + strings.Join([]string{
		event("Pod", "eu-tool", "", "Early", early, early),
		event("Pod", "eu-load-x1", "x1", "Late", late, late),
		event("ReplicaSet", "eu-set", "set", "NodeClockIsBehind", early, before),
		event("Pod", "owned", "owned", "Repeated", before, early),
		event("Pod", "eu-tool", "", "BeforeThisOperation", before, before),
		event("Pod", "eu-load-x1", "x0", "OfAnEarlierOne", late, late),
		event("Pod", "eu-load-x0", "x0", "Gone", late, late),
		event("Pod", "eu-load-going", "", "Going", late, late),
		event("Pod", "foreign", "", "Foreign", late, late),
	}, ",") + `]}`
	got, err := c.Diagnose(t.Context(), "shop", "eu")
	want := []string{
		"Pod/eu-load-x1 container web: ImagePullBackOff: Back-off [31m pulling image",
		"Pod/eu-tool: Unschedulable: 0/1 nodes",
		"Pod/owned: not ready: phase Pending",
		"Pod/crashed container web: CrashLoopBackOff",
		"    earlier", "    earlier", "    earlier", "    earlier", "    earlier", "    earlier", "    earlier", "    earlier", "    earlier",
		"    cannot [31mopen the database",
		"event Pod/eu-load-x1: Late: m",
		"event Pod/eu-tool: Early: m",
		"event Pod/owned: Repeated: m",
		"event ReplicaSet/eu-set: NodeClockIsBehind: m",
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v", got, err)
	}
	if s := clean(strings.Repeat("é ", 1000)); len([]rune(s)) != maxLine {
		t.Errorf("%d characters", len([]rune(s)))
	}
}

// A user whose credentials come from a program.
func execKubeconfig(t testing.TB, server, user string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config")
	err := os.WriteFile(path, []byte(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "`+server+`", insecure-skip-tls-verify: true}}]
users: [{name: good, user: {token: secret}}, {name: u, user: {`+user+`}}]
contexts: [{name: x, context: {cluster: c, user: u}}, {name: plain, context: {cluster: c, user: good}}]
current-context: x
`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestNoExec(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"major":"1","minor":"34","gitVersion":"v1.34.2"}`)
	}))
	defer srv.Close()
	dir := t.TempDir()
	program, mark := filepath.Join(dir, "login"), filepath.Join(dir, "ran")
	script := "#!/bin/sh\n: > '" + mark + "'\n" +
		`echo '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"t"}}'` + "\n"
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	exec := "exec: {apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, command: " + program + "}"
	for _, tt := range []struct{ name, user, program string }{
		{"exec plugin", exec, program},
		{"exec plugin beside a token", "token: secret, " + exec, program},
		{"auth-provider with a program", "auth-provider: {name: gcp, config: {cmd-path: " + program + "}}", program},
		{"auth-provider", "auth-provider: {name: oidc}", "oidc"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := execKubeconfig(t, srv.URL, tt.user)
			var ee *ExecError
			var ke *KubeconfigError
			_, err := Connect(ClusterOptions{Kubeconfig: path, NoExec: true})
			if !errors.As(err, &ee) || ee.User != "u" || ee.Program != tt.program || !errors.As(err, &ke) || ke.Path != path {
				t.Errorf("got %v", err)
			}
			// Another context of the same file names no program.
			c, err := Connect(ClusterOptions{Kubeconfig: path, Context: "plain", NoExec: true})
			if err != nil {
				t.Fatal(err)
			}
			if v, err := c.Version(t.Context()); err != nil || v != "v1.34.2" {
				t.Errorf("got %q, %v", v, err)
			}
			if _, err := os.Stat(mark); !os.IsNotExist(err) {
				t.Errorf("the program was run (%v)", err)
			}
		})
	}
	c, err := Connect(ClusterOptions{Kubeconfig: execKubeconfig(t, srv.URL, exec)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Version(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(mark); err != nil {
		t.Errorf("the program was not run where it is allowed: %v", err)
	}
}

// Every connection goes through the dialer that is handed in, names unresolved, and what it
// refuses is not reached. The environment names no proxy.
func TestDial(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"major":"1","minor":"34","gitVersion":"v1.34.2"}`)
	}))
	defer srv.Close()
	t.Setenv("HTTPS_PROXY", "http://proxy.invalid:3128")
	var asked []string
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		asked = append(asked, address)
		if address != "cluster.invalid:6443" {
			return nil, errors.New("not allowed")
		}
		return (&net.Dialer{}).DialContext(ctx, network, srv.Listener.Addr().String())
	}
	c, err := Connect(ClusterOptions{Kubeconfig: kubeconfig(t, "https://cluster.invalid:6443"), Dial: dial})
	if err != nil {
		t.Fatal(err)
	}
	if v, err := c.Version(t.Context()); err != nil || v != "v1.34.2" {
		t.Errorf("got %q, %v", v, err)
	}
	if c, err = Connect(ClusterOptions{Kubeconfig: kubeconfig(t, "https://other.invalid"), Dial: dial}); err != nil {
		t.Fatal(err)
	}
	var ue *UnreachableError
	if _, err := c.Version(t.Context()); !errors.As(err, &ue) {
		t.Errorf("got %v", err)
	}
	if want := []string{"cluster.invalid:6443", "other.invalid:443"}; !slices.Equal(asked, want) {
		t.Errorf("%q were dialled, want %q", asked, want)
	}
}
