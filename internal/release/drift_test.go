package release

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"helm.sh/helm/v4/pkg/kube"
	"helm.sh/helm/v4/pkg/release/common"
	releasev1 "helm.sh/helm/v4/pkg/release/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/cli-runtime/pkg/resource"
	"k8s.io/client-go/rest"
)

// liveAPI is the part of an API server that an examination asks beside what fakeCluster answers: objects by their paths, and what
// applying to them would give.
type liveAPI struct {
	mu      sync.Mutex
	objects map[string]map[string]any
	// refuse is the status of an answer; 0: it is not refused.
	refuse func(method, path string) int
	// applied are the bodies of dry runs; others are counted as changes.
	applied []map[string]any
	changes []string
}

func (l *liveAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if l.refuse != nil {
		if code := l.refuse(r.Method, r.URL.Path); code != 0 {
			refuse(w, code, map[int]metav1.StatusReason{http.StatusForbidden: metav1.StatusReasonForbidden, http.StatusInternalServerError: metav1.StatusReasonInternalError}[code])
			return
		}
	}
	object := l.objects[r.URL.Path]
	switch {
	case r.Method == http.MethodGet && object == nil:
		refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound)
		return
	case r.Method == http.MethodPatch && r.URL.Query().Get("dryRun") == "All" && r.URL.Query().Get("force") == "true" && r.URL.Query().Get("fieldManager") == "helm":
		raw, _ := io.ReadAll(r.Body)
		var apply map[string]any
		_ = json.Unmarshal(raw, &apply)
		l.applied = append(l.applied, apply)
		object = merged(object, apply)
	case r.Method != http.MethodGet:
		l.changes = append(l.changes, r.Method+" "+r.URL.String())
	}
	_ = json.NewEncoder(w).Encode(object)
}

// merged is what applying gives where lists are replaced: the fields of live that apply does not name stay.
func merged(live, apply map[string]any) map[string]any {
	out := map[string]any{}
	for k, v := range live {
		out[k] = v
	}
	for k, v := range apply {
		a, isMap := v.(map[string]any)
		b, both := out[k].(map[string]any)
		if isMap && both {
			v = merged(b, a)
		}
		out[k] = v
	}
	return out
}

// examineFake is a cluster with one release of these documents at revision 1, over an API that knows its objects by
// "/NAMESPACE/KIND/NAME".
func examineFake(t *testing.T, docs string) (*fakeCluster, *liveAPI) {
	t.Helper()
	f := newFake(t)
	api := &liveAPI{objects: map[string]map[string]any{}}
	srv := httptest.NewServer(api)
	t.Cleanup(srv.Close)
	f.kube.build = func(r io.Reader) (kube.ResourceList, error) {
		var list kube.ResourceList
		dec := yaml.NewDecoder(r)
		for {
			var m map[string]any
			if err := dec.Decode(&m); errors.Is(err, io.EOF) {
				return list, nil
			} else if err != nil {
				return nil, err
			}
			// As the client library has them: numbers of YAML are no numbers of objects.
			raw, err := json.Marshal(m)
			if err != nil {
				return nil, err
			}
			u := &unstructured.Unstructured{}
			if err := u.UnmarshalJSON(raw); err != nil {
				return nil, err
			}
			gvk := u.GroupVersionKind()
			if gvk.Kind == "Unknown" {
				return nil, &meta.NoKindMatchError{GroupKind: gvk.GroupKind(), SearchedVersions: []string{gvk.Version}}
			}
			client, err := rest.UnversionedRESTClientFor(&rest.Config{Host: srv.URL, ContentConfig: rest.ContentConfig{
				NegotiatedSerializer: resource.UnstructuredPlusDefaultContentConfig().NegotiatedSerializer, ContentType: "application/json",
			}})
			if err != nil {
				return nil, err
			}
			list = append(list, &resource.Info{
				Client: client, Namespace: "shop", Name: u.GetName(), Object: u,
				Mapping: &meta.RESTMapping{Resource: schema.GroupVersionResource{Version: "v1", Resource: strings.ToLower(gvk.Kind)}, GroupVersionKind: gvk, Scope: meta.RESTScopeNamespace},
			})
		}
	}
	rel := &releasev1.Release{Name: "web", Namespace: "shop", Version: 1, Manifest: docs, Info: &releasev1.Info{Status: common.StatusDeployed}}
	if err := f.memory.Create("sh.helm.release.v1.web.v1", rel); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"pods", "replicasets", "jobs", "horizontalpodautoscalers"} {
		path := map[string]string{"pods": "/api/v1", "replicasets": "/apis/apps/v1", "jobs": "/apis/batch/v1", "horizontalpodautoscalers": "/apis/autoscaling/v2"}[kind]
		f.api[path+"/namespaces/shop/"+kind] = `{"items":[]}`
	}
	return f, api
}

const deployment = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: app, image: "site/app:1", env: [{name: PASSWORD, value: recorded-secret}], resources: {limits: {memory: 1Gi, cpu: 500m}}}
`

// liveDeployment is it as a cluster has it.
func liveDeployment(change func(spec, container map[string]any)) map[string]any {
	container := map[string]any{
		"name": "app", "image": "site/app:1", "terminationMessagePath": "/dev/termination-log",
		"env":       []any{map[string]any{"name": "PASSWORD", "value": "recorded-secret"}},
		"resources": map[string]any{"limits": map[string]any{"memory": "1024Mi", "cpu": "0.5"}},
	}
	spec := map[string]any{
		"replicas": int64(2), "progressDeadlineSeconds": int64(600), "selector": map[string]any{"matchLabels": map[string]any{"app": "web"}},
		"template": map[string]any{"metadata": map[string]any{"labels": map[string]any{"app": "web"}}, "spec": map[string]any{"containers": []any{container}, "dnsPolicy": "ClusterFirst"}},
	}
	if change != nil {
		change(spec, container)
	}
	return map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment",
		"metadata": map[string]any{
			"name": "web", "namespace": "shop", "generation": int64(1), "uid": "u1", "labels": map[string]any{"app.kubernetes.io/managed-by": "Helm"},
			"annotations": map[string]any{"meta.helm.sh/release-name": "web", "meta.helm.sh/release-namespace": "shop", "deployment.kubernetes.io/revision": "1"},
			"managedFields": []any{
				map[string]any{"manager": "helm", "operation": "Apply", "fieldsV1": map[string]any{"f:spec": map[string]any{"f:template": map[string]any{"f:spec": map[string]any{"f:containers": map[string]any{`k:{"name":"app"}`: map[string]any{"f:env": map[string]any{}}}}}}}},
				map[string]any{"manager": "kubectl-set", "operation": "Update", "fieldsV1": map[string]any{"f:spec": map[string]any{"f:template": map[string]any{"f:spec": map[string]any{"f:containers": map[string]any{`k:{"name":"app"}`: map[string]any{"f:image": map[string]any{}}}}}}}},
				map[string]any{"manager": "kubectl\x1b[31m", "operation": "Update", "subresource": "scale", "fieldsV1": map[string]any{"f:spec": map[string]any{"f:replicas": map[string]any{}}}},
			},
		},
		"spec":   spec,
		"status": map[string]any{"observedGeneration": int64(1), "replicas": int64(2), "updatedReplicas": int64(2), "readyReplicas": int64(2), "availableReplicas": int64(2), "conditions": []any{map[string]any{"type": "Available", "status": "True"}, map[string]any{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}}},
	}
}

const deploymentPath = "/namespaces/shop/deployment/web"

func examine(t *testing.T, f *fakeCluster) *Examined {
	t.Helper()
	e, err := f.Examine(t.Context(), "shop", "web", 1)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestDriftByRecordedFields: without the right to patch, what is recorded is compared with what is there: the defaults of the cluster, other
// spellings of a quantity and foreign additions are no drift, all else is.
func TestDriftByRecordedFields(t *testing.T) {
	for name, c := range map[string]struct {
		change func(spec, container map[string]any)
		want   []DriftField
	}{
		"as it was":   {nil, nil},
		"an addition": {func(_, container map[string]any) { container["stdin"] = true }, nil},
		"replicas":    {func(spec, _ map[string]any) { spec["replicas"] = int64(5) }, []DriftField{{Path: "spec.replicas", Recorded: "2", Live: "5", Managers: []string{"kubectl[31m (scale)"}}}},
		"image": {func(_, container map[string]any) { container["image"] = "evil/app:1" }, []DriftField{
			{Path: "spec.template.spec.containers[name=app].image", Recorded: "site/app:1", Live: "evil/app:1", Managers: []string{"kubectl-set"}},
		}},
		"a secret in the environment": {func(_, container map[string]any) {
			container["env"] = []any{map[string]any{"name": "PASSWORD", "value": "live-secret"}}
		}, []DriftField{
			{Path: "spec.template.spec.containers[name=app].env[name=PASSWORD].value", Managers: []string{"helm"}},
		}},
		"a limit": {func(_, container map[string]any) {
			container["resources"] = map[string]any{"limits": map[string]any{"memory": "2Gi", "cpu": "500m"}}
		}, []DriftField{
			{Path: "spec.template.spec.containers[name=app].resources.limits.memory", Recorded: "1Gi", Live: "2Gi"},
		}},
		"a field that is gone": {func(_, container map[string]any) { delete(container, "resources") }, []DriftField{{Path: "spec.template.spec.containers[name=app].resources"}}},
		"a container more": {func(spec, container map[string]any) {
			spec["template"].(map[string]any)["spec"].(map[string]any)["containers"] = []any{container, map[string]any{"name": "sidecar"}}
		}, nil},
	} {
		f, api := examineFake(t, deployment)
		api.refuse = func(method, _ string) int {
			if method == http.MethodPatch {
				return http.StatusForbidden
			}
			return 0
		}
		api.objects[deploymentPath] = liveDeployment(c.change)
		e := examine(t, f)
		var got []DriftField
		for _, d := range e.Drift {
			got = append(got, d.Fields...)
		}
		if !reflect.DeepEqual(got, c.want) || e.Healthy() != (c.want == nil) {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
		if len(e.Unread) != 1 || !strings.Contains(e.Unread[0], "right to patch") {
			t.Errorf("%s: not known is %q", name, e.Unread)
		}
		if raw, _ := json.Marshal(e); strings.Contains(string(raw), "-secret") {
			t.Errorf("%s: a secret is shown: %s", name, raw)
		}
		if len(api.changes) > 0 {
			t.Errorf("%s: something was changed: %v", name, api.changes)
		}
	}
}

// TestDriftByDryRun: what applying would change is drift; the dry run has what Helm puts on objects.
func TestDriftByDryRun(t *testing.T) {
	f, api := examineFake(t, deployment)
	api.objects[deploymentPath] = liveDeployment(func(spec, _ map[string]any) { spec["replicas"] = int64(5) })
	// The lists of this API are replaced as a whole: what it would answer has to be what is there.
	containers := api.objects[deploymentPath]["spec"].(map[string]any)["template"].(map[string]any)["spec"].(map[string]any)
	containers["containers"] = []any{map[string]any{"name": "app", "image": "site/app:1", "env": []any{map[string]any{"name": "PASSWORD", "value": "recorded-secret"}}, "resources": map[string]any{"limits": map[string]any{"memory": "1Gi", "cpu": "500m"}}}}
	e := examine(t, f)
	want := []Drift{{Object: "Deployment/shop/web", Fields: []DriftField{{Path: "spec.replicas", Recorded: "2", Live: "5", Managers: []string{"kubectl[31m (scale)"}}}}}
	if !reflect.DeepEqual(e.Drift, want) || len(e.Unread) != 0 || e.Objects != 1 {
		t.Errorf("got %+v, want %+v; not known: %q", e.Drift, want, e.Unread)
	}
	if len(api.applied) != 1 || len(api.changes) != 0 {
		t.Fatalf("%d dry runs, changes %v", len(api.applied), api.changes)
	}
	applied := unstructured.Unstructured{Object: api.applied[0]}
	if applied.GetAnnotations()["meta.helm.sh/release-name"] != "web" || applied.GetLabels()["app.kubernetes.io/managed-by"] != "Helm" || applied.GetNamespace() != "shop" {
		t.Errorf("applied was %+v", applied.Object["metadata"])
	}
	// An autoscaler decides how many replicas there are.
	status := api.objects[deploymentPath]["status"].(map[string]any)
	for _, key := range []string{"replicas", "updatedReplicas", "readyReplicas", "availableReplicas"} {
		status[key] = int64(5)
	}
	f.api["/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers"] = `{"items":[{"spec":{"scaleTargetRef":{"kind":"Deployment","name":"web"}}}]}`
	if e := examine(t, f); len(e.Drift) != 0 || !e.Healthy() {
		t.Errorf("an autoscaler's replicas are drift: %+v, unhealthy %+v", e.Drift, e.Unhealthy)
	}
}

// TestWhatIsMissing: objects that are gone, and those of a kind that the cluster does not know any more.
func TestWhatIsMissing(t *testing.T) {
	f, api := examineFake(t, deployment+"---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: gone}\n---\napiVersion: example.com/v1\nkind: Unknown\nmetadata: {name: custom, namespace: other}\n")
	api.objects[deploymentPath] = liveDeployment(func(_, container map[string]any) { container["resources"] = nil })
	api.refuse = func(method, _ string) int {
		if method == http.MethodPatch {
			return http.StatusInternalServerError
		}
		return 0
	}
	e := examine(t, f)
	var missing []string
	for _, d := range e.Drift {
		if d.Missing {
			missing = append(missing, d.Object)
		}
	}
	if want := []string{"ConfigMap/shop/gone", "Unknown/other/custom"}; !reflect.DeepEqual(missing, want) {
		t.Errorf("missing are %v, want %v", missing, want)
	}
}

// TestSecretsAreNotShown: neither what a Secret holds now nor what it held is in what is found.
func TestSecretsAreNotShown(t *testing.T) {
	f, api := examineFake(t, "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: recorded-secret, same: same}\ntype: Opaque\n")
	api.objects["/namespaces/shop/secret/s"] = map[string]any{
		"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": "s", "namespace": "shop"}, "type": "other-type",
		"data": map[string]any{"password": "bGl2ZS1zZWNyZXQ=", "same": "c2FtZQ=="},
	}
	api.refuse = func(method, _ string) int {
		if method == http.MethodPatch {
			return http.StatusForbidden
		}
		return 0
	}
	e := examine(t, f)
	want := []Drift{{Object: "Secret/shop/s", Fields: []DriftField{{Path: "data.password"}, {Path: "type"}}}}
	if !reflect.DeepEqual(e.Drift, want) {
		t.Errorf("got %+v, want %+v", e.Drift, want)
	}
}

// TestWhatRuns: images by the digests that nodes report, init containers too; pods that have ended run no more.
func TestWhatRuns(t *testing.T) {
	f, api := examineFake(t, deployment)
	api.objects[deploymentPath] = liveDeployment(nil)
	api.refuse = func(method, _ string) int {
		if method == http.MethodPatch {
			return http.StatusForbidden
		}
		return 0
	}
	a, b := "sha256:"+strings.Repeat("a", 64), "sha256:"+strings.Repeat("b", 64)
	pod := func(name, phase, ready, id, owner string) string {
		return fmt.Sprintf(`{"metadata":{"name":%q,"namespace":"shop","uid":%q,"ownerReferences":[{"kind":"ReplicaSet","name":"web-1","uid":%q}]},
			"spec":{"initContainers":[{"name":"init","image":"site/init:1"}],"containers":[{"name":"app","image":"site/app:1"}]},
			"status":{"phase":%q,"conditions":[{"type":"Ready","status":%q}],
			"initContainerStatuses":[{"name":"init","image":"x","imageID":"docker-pullable://site/init@%s","state":{"terminated":{"exitCode":0}}}],
			"containerStatuses":[{"name":"app","image":"x","imageID":%q,"restartCount":3,"state":{"waiting":{"reason":"CrashLoopBackOff","message":"back\u001b[31m off"}}}]}}`, name, name, owner, phase, ready, b, id)
	}
	f.api["/apis/apps/v1/namespaces/shop/replicasets"] = `{"items":[{"metadata":{"name":"web-1","uid":"rs","ownerReferences":[{"kind":"Deployment","name":"web","uid":"u1"}]}}]}`
	f.api["/api/v1/namespaces/shop/pods"] = `{"items":[` + strings.Join([]string{
		pod("web-1-a", "Running", "True", "site/app@"+a, "rs"), pod("web-1-b", "Running", "False", a, "rs"), pod("web-1-c", "Failed", "False", "site/app@"+b, "rs"),
		pod("other", "Running", "False", "site/app@"+b, "stranger"), pod("web-1-d", "Pending", "True", "", "rs"),
	}, ",") + `]}`
	e := examine(t, f)
	want := []Running{
		{Reference: "site/app:1", ID: a, Containers: 2, Pods: []string{"shop/web-1-a", "shop/web-1-b"}},
		{Reference: "site/init:1", ID: b, Containers: 3, Pods: []string{"shop/web-1-a", "shop/web-1-b", "shop/web-1-d"}},
	}
	if !reflect.DeepEqual(e.Images, want) || e.Pods != 3 || e.Restarts != 9 {
		t.Errorf("got %+v, %d pods, %d restarts, want %+v", e.Images, e.Pods, e.Restarts, want)
	}
	if wantBad := []Unhealthy{{"Pod/shop/web-1-b", "NotReady", "container app: CrashLoopBackOff: back[31m off"}}; !reflect.DeepEqual(e.Unhealthy, wantBad) || e.Healthy() {
		t.Errorf("unhealthy are %+v, want %+v", e.Unhealthy, wantBad)
	}
	// Without the rights to list, it is said.
	delete(f.api, "/api/v1/namespaces/shop/pods")
	if e := examine(t, f); !slices.ContainsFunc(e.Unread, func(s string) bool { return strings.HasPrefix(s, "the pods of namespace shop") }) {
		t.Errorf("not known is %q", e.Unread)
	}
}

// TestUnhealthyObjects: kstatus judges what is there.
func TestUnhealthyObjects(t *testing.T) {
	f, api := examineFake(t, deployment)
	live := liveDeployment(nil)
	live["status"] = map[string]any{"observedGeneration": int64(1), "replicas": int64(2), "updatedReplicas": int64(2), "readyReplicas": int64(1), "availableReplicas": int64(1)}
	api.objects[deploymentPath] = live
	e := examine(t, f)
	if len(e.Unhealthy) != 1 || e.Unhealthy[0].Object != "Deployment/shop/web" || e.Unhealthy[0].Status != "InProgress" {
		t.Errorf("unhealthy are %+v", e.Unhealthy)
	}
}

// TestExamineWhatIsNotThere: a release, a revision, a cluster.
func TestExamineWhatIsNotThere(t *testing.T) {
	f, _ := examineFake(t, deployment)
	e, err := f.Examine(t.Context(), "shop", "nobody", 1)
	if err != nil || e.Newest != 0 || e.Healthy() {
		t.Errorf("no release: %+v, %v", e, err)
	}
	e, err = f.Examine(t.Context(), "shop", "web", 9)
	if err != nil || e.Newest != 1 || e.Compared || len(e.Unread) != 1 {
		t.Errorf("no revision: %+v, %v", e, err)
	}
	// The server of the objects is gone in the middle.
	f.kube.build = func(io.Reader) (kube.ResourceList, error) {
		_, err := http.Get("http://127.0.0.1:1/") //nolint:bodyclose // it fails, as is wanted
		return nil, err
	}
	var gone *UnreachableError
	if _, err := f.Examine(t.Context(), "shop", "web", 1); !errors.As(err, &gone) {
		t.Errorf("a cluster that is gone: %v", err)
	}
}

// TestHolding reads who works on a bundle, without waiting.
func TestHolding(t *testing.T) {
	f := newFake(t)
	l := f.Ledger("sealift")
	h, err := l.Holding(t.Context(), "shop")
	if err != nil || h.Holder != "" {
		t.Errorf("nobody: %+v, %v", h, err)
	}
	hold, err := l.Hold(t.Context(), "shop", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer hold.End(t.Context())
	if h, err = l.Holding(t.Context(), "shop"); err != nil || h.Holder == "" || h.Duration != time.Minute || time.Since(h.Renewed) > time.Minute {
		t.Errorf("got %+v, %v", h, err)
	}
}

func FuzzImageDigest(f *testing.F) {
	for _, s := range []string{"", "docker-pullable://a@sha256:" + strings.Repeat("a", 64), "sha256:" + strings.Repeat("0", 64), "a@sha256:short", strings.Repeat("sha256:", 100)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d := imageDigest(s); d != "" && (!strings.HasSuffix(s, d) || len(d) != 71) {
			t.Errorf("%q has the digest %q", s, d)
		}
	})
}
