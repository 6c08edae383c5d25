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
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/kube"
	kubefake "helm.sh/helm/v4/pkg/kube/fake"
	"helm.sh/helm/v4/pkg/storage"
	"helm.sh/helm/v4/pkg/storage/driver"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/resource"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/sealift/sealift/internal/chart"
)

// fakeKube stands in for the cluster: it does nothing, writes down what it was
// asked to do, and fails where a test tells it to.
type fakeKube struct {
	// build is what Build does instead, where it is set.
	build func(io.Reader) (kube.ResourceList, error)
	*kubefake.PrintingKubeClient
	mu    sync.Mutex
	calls []string
	// wait, hook and gone decide how a wait for a release, for a hook or for a
	// deletion ends; live is
	// what is there when somebody looks.
	wait, hook, gone func() error
	live             []*unstructured.Unstructured
}

func (f *fakeKube) note(call string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, call)
}

// Build knows Jobs, Pods and CRDs, and leaves everything else out: Helm would
// look up objects of a release in a real cluster.
func (f *fakeKube) Build(r io.Reader, _ bool) (kube.ResourceList, error) {
	if f.build != nil {
		return f.build(r)
	}
	var list kube.ResourceList
	dec := yaml.NewDecoder(r)
	for {
		var m map[string]any
		if err := dec.Decode(&m); errors.Is(err, io.EOF) {
			return list, nil
		} else if err != nil {
			return nil, err
		}
		u := &unstructured.Unstructured{Object: m}
		switch u.GetKind() {
		case "Job", "Pod", "CustomResourceDefinition":
			list = append(list, &resource.Info{
				Name: u.GetName(), Object: u, Mapping: &meta.RESTMapping{GroupVersionKind: u.GroupVersionKind()},
			})
		case "":
		default:
			return nil, nil
		}
	}
}

func (f *fakeKube) each(verb string, list kube.ResourceList) {
	for _, info := range list {
		f.note(verb + " " + info.Mapping.GroupVersionKind.Kind + "/" + info.Name)
	}
}

func (f *fakeKube) Create(list kube.ResourceList, _ ...kube.ClientCreateOption) (*kube.Result, error) {
	f.each("create", list)
	return &kube.Result{Created: list}, nil
}

func (f *fakeKube) Update(_, target kube.ResourceList, _ ...kube.ClientUpdateOption) (*kube.Result, error) {
	f.note("update")
	return &kube.Result{Updated: target}, nil
}

func (f *fakeKube) Delete(list kube.ResourceList, _ metav1.DeletionPropagation) (*kube.Result, []error) {
	f.each("delete", list)
	return &kube.Result{Deleted: list}, nil
}

func (f *fakeKube) Get(kube.ResourceList, bool) (map[string][]runtime.Object, error) {
	out := map[string][]runtime.Object{}
	for _, u := range f.live {
		out[u.GetKind()] = append(out[u.GetKind()], u)
	}
	return out, nil
}

func (f *fakeKube) GetWaiter(s kube.WaitStrategy) (kube.Waiter, error) {
	return f.GetWaiterWithOptions(s)
}

func (f *fakeKube) GetWaiterWithOptions(s kube.WaitStrategy, o ...kube.WaitOption) (kube.Waiter, error) {
	if s != kube.StatusWatcherStrategy || len(o) == 0 {
		f.note("wait without watching or without a context")
	}
	return fakeWaiter{f}, nil
}

type fakeWaiter struct{ f *fakeKube }

func call(f func() error) error {
	if f == nil {
		return nil
	}
	return f()
}

func (w fakeWaiter) Wait(kube.ResourceList, time.Duration) error { return call(w.f.wait) }

func (w fakeWaiter) WaitWithJobs(kube.ResourceList, time.Duration) error { return call(w.f.wait) }

func (w fakeWaiter) WaitForDelete(kube.ResourceList, time.Duration) error { return call(w.f.gone) }

func (w fakeWaiter) WatchUntilReady(kube.ResourceList, time.Duration) error { return call(w.f.hook) }

// fakeCluster is a Cluster over a fakeKube, Helm's memory driver, and a small
// API server for what does not go through Helm.
type fakeCluster struct {
	*Cluster
	kube   *fakeKube
	memory *driver.Memory
	store  driver.Driver // what sessions use; tests may wrap memory
	leases *fakeLeases
	mu     sync.Mutex
	api    map[string]string
	posts  []string
	// deleted are the paths of what was deleted there.
	deleted []string
}

func newFake(t testing.TB) *fakeCluster {
	t.Helper()
	f := &fakeCluster{
		kube:   &fakeKube{PrintingKubeClient: &kubefake.PrintingKubeClient{Out: io.Discard, LogOutput: io.Discard}},
		memory: driver.NewMemory(),
		leases: &fakeLeases{},
		api:    map[string]string{},
	}
	f.memory.SetNamespace("shop")
	f.store = f.memory
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	f.Cluster = &Cluster{
		server: srv.URL, log: slog.New(slog.DiscardHandler), timeout: time.Minute,
		lease: leaseTimes{
			duration: time.Minute, grace: time.Minute, renewal: 50 * time.Millisecond, attempt: 10 * time.Second, poll: 5 * time.Millisecond,
		},
	}
	f.open = func(ctx context.Context, _ string) (*session, error) {
		config := &rest.Config{
			Host: srv.URL, Transport: &gate{next: http.DefaultTransport, ctx: ctx}, QPS: 1000, Burst: 1000,
			ContentConfig: rest.ContentConfig{ContentType: "application/json"},
		}
		clientset, err := kubernetes.NewForConfig(config)
		if err != nil {
			return nil, err
		}
		objects, err := dynamic.NewForConfig(config)
		if err != nil {
			return nil, err
		}
		cfg := action.NewConfiguration(action.ConfigurationSetLogger(slog.DiscardHandler))
		cfg.Capabilities = &common.Capabilities{
			KubeVersion: common.KubeVersion{Version: "v1.34.0", Major: "1", Minor: "34"}, APIVersions: common.DefaultVersionSet,
		}
		stored := &records{Driver: f.store}
		cfg.Releases = storage.Init(stored)
		cfg.Releases.SetLogger(slog.DiscardHandler)
		wrapped := &client{Interface: f.kube, ctx: ctx}
		cfg.KubeClient = wrapped
		return &session{cfg: cfg, kube: wrapped, records: stored, clientset: clientset, dynamic: objects, http: httpClient(config.Transport)}, nil
	}
	return f
}

func (f *fakeCluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if strings.Contains(r.URL.Path, "/leases") {
		f.leases.ServeHTTP(w, r)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Method == http.MethodPost {
		f.posts = append(f.posts, r.URL.Path)
		object, _ := io.ReadAll(r.Body)
		var o struct{ Metadata metav1.ObjectMeta }
		_ = json.Unmarshal(object, &o)
		path := r.URL.Path + "/" + o.Metadata.Name
		if _, ok := f.api[path]; ok {
			refuse(w, http.StatusConflict, metav1.StatusReasonAlreadyExists)
			return
		}
		f.api[path] = string(object)
		_, _ = w.Write(object)
		return
	}
	if r.Method == http.MethodDelete {
		f.deleted = append(f.deleted, r.URL.Path)
		delete(f.api, r.URL.Path)
		_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Success"}`)
		return
	}
	answer, ok := f.api[r.URL.Path]
	if !ok {
		refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound)
		return
	}
	_, _ = io.WriteString(w, answer)
}

func refuse(w http.ResponseWriter, code int, reason metav1.StatusReason) {
	w.WriteHeader(code)
	_, _ = fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":%q,"code":%d}`, reason, code)
}

// fakeLeases is the part of an API server that keeps leases.
type fakeLeases struct {
	mu      sync.Mutex
	lease   *coordinationv1.Lease
	version int
	refuse  func(method string) (code int, reason metav1.StatusReason) // 0: it does not
}

// put has somebody else write the lease; nil deletes it.
func (f *fakeLeases) put(l *coordinationv1.Lease) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.write(l)
}

func (f *fakeLeases) write(l *coordinationv1.Lease) {
	f.version++
	if l != nil {
		l.ResourceVersion = strconv.Itoa(f.version)
		if l.UID == "" {
			l.UID = types.UID("uid-" + l.ResourceVersion)
		}
	}
	f.lease = l
}

func (f *fakeLeases) holder() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lease == nil {
		return ""
	}
	return holderOf(f.lease)
}

func (f *fakeLeases) setRefuse(refuse func(method string) (int, metav1.StatusReason)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refuse = refuse
}

func (f *fakeLeases) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuse != nil {
		if code, reason := f.refuse(r.Method); code != 0 {
			refuse(w, code, reason)
			return
		}
	}
	if f.lease == nil && r.Method != http.MethodPost {
		refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound)
		return
	}
	switch r.Method {
	case http.MethodDelete:
		var o metav1.DeleteOptions
		_ = json.Unmarshal(body, &o)
		if *o.Preconditions.UID != f.lease.UID || *o.Preconditions.ResourceVersion != f.lease.ResourceVersion {
			refuse(w, http.StatusConflict, metav1.StatusReasonConflict)
			return
		}
		f.write(nil)
		_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Success"}`)
		return
	case http.MethodPost, http.MethodPut:
		l := &coordinationv1.Lease{}
		_ = json.Unmarshal(body, l)
		if r.Method == http.MethodPost && f.lease != nil {
			refuse(w, http.StatusConflict, metav1.StatusReasonAlreadyExists)
			return
		}
		if r.Method == http.MethodPut && l.ResourceVersion != f.lease.ResourceVersion {
			refuse(w, http.StatusConflict, metav1.StatusReasonConflict)
			return
		}
		f.write(l)
	}
	_ = json.NewEncoder(w).Encode(f.lease)
}

// begin begins an operation that ends with the test.
func (f *fakeCluster) begin(t testing.TB, r Release) *Operation {
	t.Helper()
	o, err := f.Begin(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.End(context.Background()) })
	return o
}

// Apply is a whole operation.
func (f *fakeCluster) Apply(ctx context.Context, r Release) (Result, error) {
	o, err := f.Begin(ctx, r)
	if err != nil {
		return Result{}, err
	}
	defer o.End(ctx)
	return o.Apply(ctx)
}

// has says whether the cluster was asked for something.
func (f *fakeCluster) has(call string) bool {
	f.kube.mu.Lock()
	defer f.kube.mu.Unlock()
	for _, c := range f.kube.calls {
		if strings.HasPrefix(c, call) {
			return true
		}
	}
	return false
}

func shop(t testing.TB) Release {
	t.Helper()
	c, err := chart.Load("../../testdata/charts/shop")
	if err != nil {
		t.Fatal(err)
	}
	return Release{Name: "eu", Namespace: "shop", Chart: c, Values: map[string]any{"replicas": 2}}
}

func object(kind, name string, fields map[string]any) *unstructured.Unstructured {
	m := map[string]any{"apiVersion": "v1", "kind": kind, "metadata": map[string]any{"name": name, "namespace": "shop"}}
	for k, v := range fields {
		m[k] = v
	}
	return &unstructured.Unstructured{Object: m}
}
