package release

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// frontAPI is the part of an API server, and of its controllers, that fronts need: Deployments have pods, all ready at once, and
// Services have their endpoints.
type frontAPI struct {
	mu      sync.Mutex
	objects map[string]map[string]any // by their paths
	version int
	// refuse says with which status a request is refused, 0 where it is not.
	refuse func(method, path string) int
	// ready says how many of the pods of a Deployment are ready; nil for all.
	ready func(deployment string, replicas int) int
	// writes are the requests that changed something.
	writes []string
}

func newFrontAPI(t *testing.T, objects string) (*frontAPI, *Cluster) {
	t.Helper()
	api := &frontAPI{objects: map[string]map[string]any{}}
	for text := range strings.SplitSeq(objects, "---\n") {
		var o map[string]any
		if err := yaml.Unmarshal([]byte(text), &o); err != nil {
			t.Fatal(err)
		}
		api.put(o)
	}
	api.control()
	srv := httptest.NewServer(api)
	t.Cleanup(srv.Close)
	c := &Cluster{server: srv.URL, log: slog.New(slog.DiscardHandler), timeout: 300 * time.Millisecond}
	c.open = func(ctx context.Context, _ string) (*session, error) {
		clientset, err := kubernetes.NewForConfig(&rest.Config{
			Host: srv.URL, Transport: &gate{next: http.DefaultTransport, ctx: ctx}, QPS: 1000, Burst: 1000,
			ContentConfig: rest.ContentConfig{ContentType: "application/json"},
		})
		return &session{clientset: clientset}, err
	}
	return api, c
}

var frontPaths = map[string]string{
	"Service": "/api/v1/namespaces/shop/services", "Pod": "/api/v1/namespaces/shop/pods", "Deployment": "/apis/apps/v1/namespaces/shop/deployments",
	"EndpointSlice": "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices", "HTTPRoute": "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes",
	"HorizontalPodAutoscaler": "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers",
}

func (a *frontAPI) put(o map[string]any) {
	meta := o["metadata"].(map[string]any)
	a.version++
	meta["resourceVersion"], meta["namespace"] = fmt.Sprint(a.version), "shop"
	path := frontPaths[o["kind"].(string)] + "/" + meta["name"].(string)
	if meta["uid"] == nil {
		meta["uid"] = fmt.Sprintf("uid-%d", a.version)
	}
	a.objects[path] = o
}

// fieldAt returns what a path of keys leads to.
func fieldAt(o any, keys ...string) any {
	for _, k := range keys {
		m, _ := o.(map[string]any)
		o = m[k]
	}
	return o
}

func textsAt(v any) labels.Set {
	set := labels.Set{}
	m, _ := v.(map[string]any)
	for k, x := range m {
		set[k] = fmt.Sprint(x)
	}
	return set
}

// control does what controllers do.
func (a *frontAPI) control() {
	for _, path := range slices.Collect(maps.Keys(a.objects)) {
		if o := a.objects[path]; o["kind"] == "EndpointSlice" || o["kind"] == "Pod" && fieldAt(o, "metadata", "labels", "stray") == nil {
			delete(a.objects, path)
		}
	}
	address := 1
	for _, path := range slices.Sorted(maps.Keys(a.objects)) {
		o := a.objects[path]
		if o["kind"] != "Deployment" {
			continue
		}
		name, _ := fieldAt(o, "metadata", "name").(string)
		n, _ := wholeNumber(fieldAt(o, "spec", "replicas"))
		ready := n
		if a.ready != nil {
			ready = a.ready(name, n)
		}
		o["status"] = map[string]any{"replicas": n, "availableReplicas": ready}
		for i := range n {
			condition := "True"
			if i >= ready {
				condition = "False"
			}
			a.put(map[string]any{
				"kind": "Pod", "apiVersion": "v1",
				"metadata": map[string]any{"name": fmt.Sprintf("%s-%d", name, i), "labels": fieldAt(o, "spec", "template", "metadata", "labels")},
				"status":   map[string]any{"podIP": fmt.Sprintf("10.0.0.%d", address), "conditions": []any{map[string]any{"type": "Ready", "status": condition}}},
			})
			address++
		}
	}
	for _, path := range slices.Sorted(maps.Keys(a.objects)) {
		service := a.objects[path]
		if service["kind"] != "Service" {
			continue
		}
		name, _ := fieldAt(service, "metadata", "name").(string)
		selector := labels.SelectorFromSet(textsAt(fieldAt(service, "spec", "selector")))
		var endpoints []any
		for _, pod := range a.objects {
			if pod["kind"] != "Pod" || !selector.Matches(textsAt(fieldAt(pod, "metadata", "labels"))) {
				continue
			}
			conditions, _ := fieldAt(pod, "status", "conditions").([]any)
			ready := len(conditions) > 0 && fieldAt(conditions[0], "status") == "True"
			endpoints = append(endpoints, map[string]any{"addresses": []any{fieldAt(pod, "status", "podIP")}, "conditions": map[string]any{"ready": ready}})
		}
		a.put(map[string]any{
			"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": "IPv4", "endpoints": endpoints,
			"metadata": map[string]any{"name": name + "-x", "labels": map[string]any{"kubernetes.io/service-name": name}},
		})
	}
}

func (a *frontAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	answer := func(code int, v any) {
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(v)
	}
	status := func(code int, reason string) {
		answer(code, map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code})
	}
	path := r.URL.Path
	if a.refuse != nil {
		if code := a.refuse(r.Method, path); code != 0 {
			status(code, http.StatusText(code))
			return
		}
	}
	body, _ := io.ReadAll(r.Body)
	o := a.objects[path]
	if r.Method != http.MethodGet {
		a.writes = append(a.writes, r.Method+" "+path)
	}
	switch list := slices.Contains(slices.Collect(maps.Values(frontPaths)), path); {
	case r.Method == http.MethodGet && list:
		selector, _ := labels.Parse(r.URL.Query().Get("labelSelector"))
		items := []any{}
		for _, p := range slices.Sorted(maps.Keys(a.objects)) {
			if strings.HasPrefix(p, path+"/") && selector.Matches(textsAt(fieldAt(a.objects[p], "metadata", "labels"))) {
				items = append(items, a.objects[p])
			}
		}
		answer(http.StatusOK, map[string]any{"items": items})
	case r.Method == http.MethodPost && list, r.Method == http.MethodPatch && o == nil && r.Header.Get("Content-Type") == "application/apply-patch+yaml":
		var made map[string]any
		_ = json.Unmarshal(body, &made)
		a.put(made)
		a.control()
		answer(http.StatusCreated, made)
	case o == nil:
		status(http.StatusNotFound, "NotFound")
	case r.Method == http.MethodGet:
		answer(http.StatusOK, o)
	case r.Method == http.MethodDelete:
		delete(a.objects, path)
		a.control()
		answer(http.StatusOK, map[string]any{"kind": "Status", "status": "Success"})
	case r.Header.Get("Content-Type") == "application/json-patch+json":
		var ops []struct {
			Op, Path string
			Value    any
		}
		_ = json.Unmarshal(body, &ops)
		for _, op := range ops {
			keys := strings.Split(strings.TrimPrefix(op.Path, "/"), "/")
			parent, _ := fieldAt(o, keys[:len(keys)-1]...).(map[string]any)
			last := keys[len(keys)-1]
			if op.Op == "test" && parent[last] != op.Value {
				status(http.StatusUnprocessableEntity, "Invalid")
				return
			}
			parent[last] = op.Value
		}
		a.put(o)
		answer(http.StatusOK, o)
	default: // an apply patch or a merge patch: the ones here are merged alike
		var patch map[string]any
		_ = json.Unmarshal(body, &patch)
		mergePatch(o, patch)
		if m := fieldAt(o, "metadata").(map[string]any); r.Header.Get("Content-Type") == "application/merge-patch+json" {
			m["managedFields"] = []any{map[string]any{"manager": "helm"}, map[string]any{"manager": r.URL.Query().Get("fieldManager")}}
		}
		a.put(o)
		a.control()
		answer(http.StatusOK, o)
	}
}

// mergePatch merges a patch, but for selectors, which are one value.
func mergePatch(o, patch map[string]any) {
	for k, v := range patch {
		if sub, ok := v.(map[string]any); ok && k != "selector" {
			there, _ := o[k].(map[string]any)
			if there == nil {
				there = map[string]any{}
			}
			mergePatch(there, sub)
			o[k] = there
			continue
		}
		if v == nil {
			delete(o, k)
			continue
		}
		o[k] = v
	}
}

// colour is a version of a release, with four replicas.
func colour(name string) string {
	return strings.ReplaceAll(`kind: Deployment
apiVersion: apps/v1
metadata: {name: NAME, annotations: {meta.helm.sh/release-name: NAME}}
spec: {replicas: 4, template: {metadata: {labels: {app: web, instance: NAME}}}}
---
kind: Service
apiVersion: v1
metadata: {name: NAME-web, annotations: {meta.helm.sh/release-name: NAME}}
spec: {selector: {app: web, instance: NAME}, ports: [{name: http, port: 80, targetPort: http, nodePort: 30000}]}
`, "NAME", name)
}

func webFront(to string) Front {
	return Front{Namespace: "shop", Kind: FrontService, Name: "web", Release: "web", Service: "*-web", To: to}
}

func (a *frontAPI) selector(t *testing.T) map[string]string {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	o := a.objects[frontPaths["Service"]+"/web"]
	if o == nil {
		t.Fatal("there is no front")
	}
	return textsAt(fieldAt(o, "spec", "selector"))
}

func (a *frontAPI) deployment(name string) map[string]any {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.objects[frontPaths["Deployment"]+"/"+name]
}

func replicasOf(t *testing.T, o map[string]any) int {
	t.Helper()
	n, ok := wholeNumber(fieldAt(o, "spec", "replicas"))
	if !ok {
		t.Fatalf("replicas %v", fieldAt(o, "spec", "replicas"))
	}
	return n
}

func TestFrontServiceIsSwitched(t *testing.T) {
	ctx := context.Background()
	api, c := newFrontAPI(t, colour("web-blue")+"---\n"+colour("web-green"))
	blue, green := webFront("web-blue"), webFront("web-green")
	shared, err := c.ApplyFront(ctx, blue, nil)
	if err != nil || shared.New != 4 {
		t.Fatalf("ApplyFront: %v, %v", shared, err)
	}
	o := api.objects[frontPaths["Service"]+"/web"]
	ports, _ := json.Marshal(fieldAt(o, "spec", "ports"))
	if got := string(ports); got != `[{"name":"http","port":80,"protocol":"TCP","targetPort":"http"}]` {
		t.Errorf("ports %s", got)
	}
	if fieldAt(o, "metadata", "labels", FrontLabel) != "web" {
		t.Errorf("labels %v", fieldAt(o, "metadata", "labels"))
	}
	api.writes = nil
	for range 2 { // it may be repeated
		if _, err := c.ApplyFront(ctx, green, &blue); err != nil {
			t.Fatal(err)
		}
		if got := api.selector(t); !maps.Equal(got, map[string]string{"app": "web", "instance": "web-green"}) {
			t.Errorf("selector %v", got)
		}
	}
	if want := []string{"PATCH " + frontPaths["Service"] + "/web", "PATCH " + frontPaths["Service"] + "/web"}; !slices.Equal(api.writes, want) {
		t.Errorf("a switch is not one request: %q", api.writes)
	}
	if err := c.DeleteFront(ctx, green); err != nil {
		t.Fatal(err)
	}
	if there, err := c.ReadFront(ctx, "shop", FrontService, "web"); err != nil || there != nil {
		t.Errorf("after its removal: %v, %v", there, err)
	}
	if err := c.DeleteFront(ctx, green); err != nil {
		t.Errorf("removing it again: %v", err)
	}
}

func TestFrontSharesByReplicas(t *testing.T) {
	ctx := context.Background()
	api, c := newFrontAPI(t, colour("web-blue")+"---\n"+colour("web-green"))
	blue, green := webFront("web-blue"), webFront("web-green")
	if _, err := c.ApplyFront(ctx, blue, nil); err != nil {
		t.Fatal(err)
	}
	was := blue
	for _, step := range []struct{ share, pods, percent int }{{10, 1, 20}, {50, 4, 50}, {75, 12, 75}} {
		f := blue
		f.Also, f.Share = "web-green", step.share
		shared, err := c.ApplyFront(ctx, f, &was)
		if err != nil || shared != (Shared{4, step.pods}) || shared.Percent() != step.percent {
			t.Fatalf("%d %%: %v (%d %%), %v; want %d pods, %d %%", step.share, shared, shared.Percent(), err, step.pods, step.percent)
		}
		d := api.deployment("web-green")
		if replicasOf(t, d) != step.pods || fieldAt(d, "metadata", "annotations", replicasNote) != "4" {
			t.Errorf("deployment %v", d)
		}
		if owners, _ := fieldAt(d, "metadata", "managedFields").([]any); len(owners) != 1 {
			t.Errorf("owners of the deployment: %v", owners)
		}
		if got := api.selector(t); !maps.Equal(got, map[string]string{"app": "web"}) {
			t.Errorf("selector %v", got)
		}
		was = f
	}
	if _, err := c.ApplyFront(ctx, green, &was); err != nil {
		t.Fatal(err)
	}
	if d := api.deployment("web-green"); replicasOf(t, d) != 4 || fieldAt(d, "metadata", "annotations", replicasNote) != nil {
		t.Errorf("after the canary: %v", d)
	}
	// And the way back from a share.
	if _, err := c.ApplyFront(ctx, was, &green); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ApplyFront(ctx, blue, &was); err != nil {
		t.Fatal(err)
	}
	if d := api.deployment("web-green"); replicasOf(t, d) != 4 || api.selector(t)["instance"] != "web-blue" {
		t.Errorf("back: %v, %v", d, api.selector(t))
	}
}

func TestFrontIsNotSwitchedTo(t *testing.T) {
	ctx := context.Background()
	share := webFront("web-blue")
	share.Also, share.Share = "web-green", 50
	for name, c := range map[string]struct {
		front   Front
		objects string
		ready   func(string, int) int
		want    any
	}{
		"nothing that is ready": {webFront("web-green"), "", func(d string, n int) int {
			if d == "web-green" {
				return 0
			}
			return n
		}, new(*NoEndpointsError)},
		"a share that is not ready": {share, "", func(d string, n int) int {
			if d == "web-green" {
				return 1
			}
			return n
		}, new(*NoEndpointsError)},
		"strangers": {share, "---\nkind: Pod\napiVersion: v1\nmetadata: {name: stray, labels: {app: web, stray: \"1\"}}\n", nil, new(*ForeignPodsError)},
	} {
		t.Run(name, func(t *testing.T) {
			api, cluster := newFrontAPI(t, colour("web-blue")+"---\n"+colour("web-green")+c.objects)
			if _, err := cluster.ApplyFront(ctx, webFront("web-blue"), nil); err != nil {
				t.Fatal(err)
			}
			api.mu.Lock()
			api.ready = c.ready
			api.control()
			api.mu.Unlock()
			if _, err := cluster.ApplyFront(ctx, c.front, nil); !errors.As(err, c.want) {
				t.Errorf("ApplyFront: %v, want %T", err, c.want)
			}
			if got := api.selector(t); got["instance"] != "web-blue" {
				t.Errorf("the front leads to %v", got)
			}
		})
	}
	api, cluster := newFrontAPI(t, colour("web-blue")+"---\n"+colour("web-green")+`---
kind: HorizontalPodAutoscaler
apiVersion: autoscaling/v2
metadata: {name: a}
spec: {scaleTargetRef: {kind: Deployment, name: web-green}}
`)
	if _, err := cluster.ApplyFront(ctx, share, nil); err == nil || !strings.Contains(err.Error(), "autoscaler") || len(api.writes) > 0 {
		t.Errorf("beside an autoscaler: %v, %q", err, api.writes)
	}
}

func TestFrontTaken(t *testing.T) {
	ctx := context.Background()
	for name, c := range map[string]struct{ metadata, by string }{
		"by somebody":      {"{name: web}", ""},
		"by Helm":          {"{name: web, annotations: {meta.helm.sh/release-name: other}}", `release "other" of Helm`},
		"by another front": {"{name: web, labels: {sealift/front: other}}", `the front of release "other"`},
	} {
		t.Run(name, func(t *testing.T) {
			api, cluster := newFrontAPI(t, colour("web-blue")+"---\nkind: Service\napiVersion: v1\nmetadata: "+c.metadata+"\nspec: {selector: {a: b}}\n")
			var taken *FrontTakenError
			if err := cluster.CheckFront(ctx, webFront("web-blue")); !errors.As(err, &taken) || taken.By != c.by {
				t.Errorf("CheckFront: %v", err)
			}
			if _, err := cluster.ApplyFront(ctx, webFront("web-blue"), nil); !errors.As(err, &taken) {
				t.Errorf("ApplyFront: %v", err)
			}
			if err := cluster.DeleteFront(ctx, webFront("web-blue")); err != nil {
				t.Errorf("DeleteFront: %v", err)
			}
			if len(api.writes) > 0 {
				t.Errorf("it was touched: %q", api.writes)
			}
		})
	}
}

const siteRoute = `kind: HTTPRoute
apiVersion: gateway.networking.k8s.io/v1
metadata: {name: web}
spec:
  hostnames: [shop.example.com]
  rules:
    - matches: [{path: {type: PathPrefix, value: /}}]
    - filters: [{type: RequestRedirect, requestRedirect: {scheme: https}}]
    - backendRefs: [{name: images, port: 80}]
`

func TestFrontRouteOfTheSite(t *testing.T) {
	ctx := context.Background()
	api, c := newFrontAPI(t, colour("web-blue")+"---\n"+colour("web-green")+"---\n"+siteRoute)
	blue := webFront("web-blue")
	blue.Kind = FrontHTTPRoute
	if err := c.CheckFront(ctx, blue); err != nil {
		t.Fatal(err)
	}
	canary, green := blue, blue
	canary.Also, canary.Share, green.To = "web-green", 5, "web-green"
	var was *Front
	for _, step := range []struct {
		to   Front
		want map[string]int
	}{
		{blue, map[string]int{"web-blue-web": 100, "images": 1}},
		{canary, map[string]int{"web-blue-web": 95, "web-green-web": 5, "images": 1}},
		{green, map[string]int{"web-green-web": 100, "images": 1}},
		{blue, map[string]int{"web-blue-web": 100, "images": 1}},
	} {
		if _, err := c.ApplyFront(ctx, step.to, was); err != nil {
			t.Fatal(err)
		}
		there, err := c.ReadFront(ctx, "shop", FrontHTTPRoute, "web")
		if err != nil || !maps.Equal(there.Weights, step.want) || there.Release != "" {
			t.Fatalf("front %+v, %v; want %v", there, err, step.want)
		}
		was = &step.to
	}
	if err := c.DeleteFront(ctx, blue); err != nil {
		t.Fatal(err)
	}
	there, err := c.ReadFront(ctx, "shop", FrontHTTPRoute, "web")
	if err != nil || there == nil || !maps.Equal(there.Weights, map[string]int{"images": 1}) {
		t.Errorf("the route of the site after the removal: %+v, %v", there, err)
	}
	if got := fieldAt(api.objects[frontPaths["HTTPRoute"]+"/web"], "spec", "hostnames"); fmt.Sprint(got) != "[shop.example.com]" {
		t.Errorf("hostnames %v", got)
	}
}

func TestFrontRouteOfTheVendor(t *testing.T) {
	ctx := context.Background()
	_, c := newFrontAPI(t, colour("web-blue"))
	blue := webFront("web-blue")
	blue.Kind = FrontHTTPRoute
	var missing *FrontMissingError
	if err := c.CheckFront(ctx, blue); !errors.As(err, &missing) || missing.There {
		t.Errorf("without a route: %v", err)
	}
	blue.Object = []byte(strings.ReplaceAll(siteRoute, "{name: images, port: 80}", "{name: '*-web', port: 8443}"))
	if _, err := c.ApplyFront(ctx, blue, nil); err != nil {
		t.Fatal(err)
	}
	there, err := c.ReadFront(ctx, "shop", FrontHTTPRoute, "web")
	if err != nil || there.Release != "web" || !maps.Equal(there.Weights, map[string]int{"web-blue-web": 200}) {
		t.Fatalf("front %+v, %v", there, err)
	}
	if port, _ := wholeNumber(mappings(there.route.rules()[2]["backendRefs"])[0]["port"]); port != 8443 {
		t.Errorf("port %d", port)
	}
	if err := c.DeleteFront(ctx, blue); err != nil {
		t.Fatal(err)
	}
	if there, err := c.ReadFront(ctx, "shop", FrontHTTPRoute, "web"); err != nil || there != nil {
		t.Errorf("after its removal: %v, %v", there, err)
	}
}

// FuzzParseRoute: a route of somebody else is refused or led.
func FuzzParseRoute(f *testing.F) {
	f.Add([]byte(siteRoute))
	f.Add([]byte("kind: HTTPRoute\nspec: {rules: [3, {backendRefs: [x, {name: 3, weight: a}]}]}"))
	f.Add([]byte("kind: HTTPRoute\nmetadata: 3\nspec: []"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := parseRoute(raw)
		if err != nil {
			return
		}
		front := webFront("web-blue")
		if err := r.lead(&front, 80); err != nil {
			return
		}
		if r.weights()["web-blue-web"] == 0 {
			t.Errorf("it leads to %v", r.weights())
		}
	})
}
