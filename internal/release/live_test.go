package release

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

// objectServer answers for single objects, by paths, and says what an apply that changes nothing would make of them.
type objectServer struct {
	objects map[string]string
	refuse  map[string]string // bodies of refusals by "METHOD PATH"
	mu      sync.Mutex
	applied []string
}

func (s *objectServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if body, no := s.refuse[r.Method+" "+r.URL.Path]; no {
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, body)
		return
	}
	object, there := s.objects[r.URL.Path]
	switch {
	case !there:
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`)
	case r.Method == http.MethodGet:
		_, _ = io.WriteString(w, object)
	case r.Method == http.MethodPatch && r.URL.Query().Get("dryRun") == "All" && r.URL.Query().Get("fieldManager") == "helm" && r.URL.Query().Get("force") == "true":
		raw, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.applied = append(s.applied, string(raw))
		s.mu.Unlock()
		_, _ = w.Write(raw)
	default:
		panic(fmt.Sprintf("unexpected %s %s", r.Method, r.URL))
	}
}

// liveCluster is a Cluster that asks server, and knows Deployments and namespaces.
func liveCluster(t *testing.T, server http.Handler) *Cluster {
	t.Helper()
	srv := httptest.NewServer(server)
	t.Cleanup(srv.Close)
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}, meta.RESTScopeNamespace)
	mapper.Add(schema.GroupVersionKind{Version: "v1", Kind: "Namespace"}, meta.RESTScopeRoot)
	c := &Cluster{server: srv.URL, log: slog.New(slog.DiscardHandler)}
	c.open = func(ctx context.Context, _ string) (*session, error) {
		objects, err := dynamic.NewForConfig(&rest.Config{Host: srv.URL, Transport: &gate{next: http.DefaultTransport, ctx: ctx}})
		return &session{dynamic: objects, mapper: mapper}, err
	}
	return c
}

const liveDocs = `apiVersion: apps/v1
kind: Deployment
metadata: {name: there, labels: {mine: "yes"}}
spec: {replicas: 3}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: new}
---
apiVersion: example.com/v1
kind: Widget
metadata: {name: w}
---
apiVersion: v1
kind: Namespace
metadata: {name: ns}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: hidden}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: fixed}
---
apiVersion: batch/v1
kind: Job
metadata: {name: hook, annotations: {helm.sh/hook: pre-install}}
`

func TestLive(t *testing.T) {
	const at = "/apis/apps/v1/namespaces/shop/deployments/"
	there := `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"there","namespace":"shop","uid":"u","resourceVersion":"7","generation":2,
		"managedFields":[{}],"annotations":{"helm.sh/resource-policy":"keep","kubectl.kubernetes.io/last-applied-configuration":"x"}},"spec":{"replicas":2},"status":{"replicas":1}}`
	s := &objectServer{
		objects: map[string]string{at + "there": there, at + "fixed": `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"fixed"}}`, "/api/v1/namespaces/ns": `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"ns"}}`},
		refuse: map[string]string{
			"GET " + at + "hidden": `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403}`,
			"PATCH " + at + "fixed": `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Invalid","code":422,"message":"s3cret","details":{"causes":[
				{"reason":"FieldValueInvalid","message":"Invalid value: s3cret","field":"spec.selector"}]}}`,
		},
	}
	c := liveCluster(t, s)
	list, err := c.Live(t.Context(), []byte(liveDocs), LiveOptions{Release: "eu", Namespace: "shop", Apply: true})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range list {
		got = append(got, fmt.Sprintf("%s live=%v applied=%v kept=%v pods=%d %s", l.Object, l.Live != nil, l.Applied != nil, l.Kept, l.Pods, l.Why))
	}
	want := []string{
		"Deployment/shop/there live=true applied=true kept=true pods=2 ",
		"Deployment/shop/new live=false applied=false kept=false pods=0 ",
		"Widget/shop/w live=false applied=false kept=false pods=0 the cluster does not know its kind yet",
		"Namespace/ns live=true applied=true kept=false pods=0 ",
		"Deployment/shop/hidden live=false applied=false kept=false pods=0 the cluster does not let us ask",
		"Deployment/shop/fixed live=true applied=false kept=false pods=1 the cluster would refuse it, because of spec.selector",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if text := string(list[0].Live); text != `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"annotations":{"helm.sh/resource-policy":"keep"},"name":"there","namespace":"shop"},"spec":{"replicas":2}}` {
		t.Errorf("the object is compared as %s", text)
	}
	if text := string(list[0].Applied); !strings.Contains(text, `"app.kubernetes.io/managed-by":"Helm"`) || !strings.Contains(text, `"mine":"yes"`) || !strings.Contains(text, `"meta.helm.sh/release-name":"eu"`) {
		t.Errorf("applied is %s: it is not marked as Helm marks it", text)
	}
	// Nothing is marked where nothing owns it, and nothing is applied where that was not asked.
	s.applied = nil
	list, err = c.Live(t.Context(), []byte(liveDocs), LiveOptions{Namespace: "shop"})
	if err != nil || len(s.applied) > 0 || strings.Contains(string(list[0].Wanted), "Helm") {
		t.Errorf("applied %q, wanted %s, %v", s.applied, list[0].Wanted, err)
	}
	var object map[string]any
	if json.Unmarshal(list[0].Wanted, &object) != nil {
		t.Errorf("%s is no JSON", list[0].Wanted)
	}
}

func TestLiveUnreachable(t *testing.T) {
	c := liveCluster(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if hijacker, ok := w.(http.Hijacker); ok {
			if conn, _, err := hijacker.Hijack(); err == nil {
				_ = conn.Close()
			}
		}
	}))
	var e *UnreachableError
	if _, err := c.Live(t.Context(), []byte(liveDocs), LiveOptions{Namespace: "shop"}); !errors.As(err, &e) {
		t.Errorf("got %v, want an *UnreachableError", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Live(ctx, []byte(liveDocs), LiveOptions{Namespace: "shop"}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that it was cancelled", err)
	}
}

// What is deployed from the same chart and values is the same; numbers come back from records with another type.
func TestSame(t *testing.T) {
	f := newFake(t)
	r := shop(t)
	same := func(r Release) bool {
		t.Helper()
		is, err := f.Same(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		return is
	}
	if n, err := f.LastRevision(t.Context(), r.Name, r.Namespace); n != 0 || err != nil || same(r) {
		t.Errorf("before it is installed: revision %d, %v", n, err)
	}
	if _, err := f.Apply(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if n, err := f.LastRevision(t.Context(), r.Name, r.Namespace); n != 1 || err != nil || !same(r) {
		t.Errorf("installed: revision %d, %v, same %v", n, err, same(r))
	}
	r.Values = map[string]any{"replicas": int64(2)}
	if !same(r) {
		t.Error("another type of number is another value")
	}
	r.Values = map[string]any{"replicas": 3}
	if same(r) {
		t.Error("another number is the same value")
	}
}

func TestProgram(t *testing.T) {
	dir := t.TempDir()
	ran := filepath.Join(dir, "ran")
	for user, want := range map[string]string{
		"{}": "",
		"{exec: {apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, command: /bin/touch, args: [" + ran + "]}}": "ops /bin/touch",
	} {
		path := filepath.Join(dir, "kubeconfig")
		config := "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: c, user: ops}}]\n" +
			"clusters: [{name: c, cluster: {server: \"https://127.0.0.1:1\"}}]\nusers: [{name: ops, user: " + user + "}]\n"
		if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := Connect(ClusterOptions{Kubeconfig: path})
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if p := c.Program(); p != nil {
			got = p.User + " " + p.Program
		}
		if got != want {
			t.Errorf("user %s: got %q, want %q", user, got, want)
		}
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("the program was run")
	}
}
