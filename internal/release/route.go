package release

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/sealift/sealift/manifest"
)

const (
	// routesAPI is where the Gateway API has HTTPRoutes (https://gateway-api.sigs.k8s.io).
	routesAPI = "gateway.networking.k8s.io/v1"
	// maxRules bounds the rules of a route and the backends of one; the API has 16 of each.
	maxRules = 64
)

// httpRoute is an HTTPRoute of a cluster.
type httpRoute struct {
	object map[string]any
	meta   metav1.ObjectMeta
}

func routePath(namespace, name string) string {
	path := "/apis/" + routesAPI + "/namespaces/" + namespace + "/httproutes"
	if name != "" {
		path += "/" + name
	}
	return path
}

// readRoute reads a route; nil where it is not there.
func (s *session) readRoute(ctx context.Context, namespace, name string) (*httpRoute, error) {
	raw, err := s.clientset.CoreV1().RESTClient().Get().AbsPath(routePath(namespace, name)).DoRaw(ctx)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err == nil {
		var r *httpRoute
		if r, err = parseRoute(raw); err == nil {
			return r, nil
		}
	}
	return nil, fmt.Errorf("reading HTTPRoute %q in namespace %q: %w", name, namespace, err)
}

// parseRoute reads one route, as JSON or YAML.
func parseRoute(raw []byte) (*httpRoute, error) {
	r := &httpRoute{}
	if err := yaml.Unmarshal(raw, &r.object); err != nil {
		return nil, err
	}
	u := unstructured.Unstructured{Object: r.object}
	if r.object == nil || u.GetKind() != FrontHTTPRoute {
		return nil, fmt.Errorf("it is a %q, want an HTTPRoute", u.GetKind())
	}
	r.meta = metav1.ObjectMeta{
		UID: u.GetUID(), ResourceVersion: u.GetResourceVersion(), Labels: u.GetLabels(), Annotations: u.GetAnnotations(),
	}
	if len(r.rules()) > maxRules {
		return nil, fmt.Errorf("it has %d rules, at most %d are possible", len(r.rules()), maxRules)
	}
	return r, nil
}

// rules are those of the route, which may be changed.
func (r *httpRoute) rules() []map[string]any {
	spec, _ := r.object["spec"].(map[string]any)
	return mappings(spec["rules"])
}

func mappings(list any) []map[string]any {
	items, _ := list.([]any)
	var out []map[string]any
	for _, item := range items {
		if m, ok := item.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}

// weights are those of the Services that the route leads to.
func (r *httpRoute) weights() map[string]int {
	weights := map[string]int{}
	for _, rule := range r.rules() {
		for _, b := range mappings(rule["backendRefs"]) {
			name, _ := b["name"].(string)
			weight := 1
			if n, ok := wholeNumber(b["weight"]); ok {
				weight = n
			}
			weights[name] += weight
		}
	}
	return weights
}

// wholeNumber is a number as decoders have it.
func wholeNumber(v any) (int, bool) {
	switch n := v.(type) {
	case float64:
		return int(n), true
	case int64:
		return int(n), true
	}
	return 0, false
}

// is reports whether a backend is a Service of one of the releases: of those that are known, or of any whose name
// could be made by the pattern from one of the colours of the release, or is the pattern itself.
func (f *Front) is(backend map[string]any) bool {
	name, _ := backend["name"].(string)
	if kind, ok := backend["kind"].(string); ok && kind != "Service" {
		return false
	}
	if in, ok := backend["namespace"].(string); ok && in != f.Namespace {
		return false
	}
	if name == f.Service {
		return true
	}
	blue, green := manifest.Colours(f.Release)
	return slices.ContainsFunc([]string{f.To, f.Also, f.Release, blue, green}, func(release string) bool {
		return release != "" && name == f.of(release)
	})
}

// ours are the rules that lead to the release, or to nothing yet.
func (r *httpRoute) ours(f *Front) []map[string]any {
	var list []map[string]any
	for _, rule := range r.rules() {
		backends := mappings(rule["backendRefs"])
		mine := len(backends) == 0
		for _, filter := range mappings(rule["filters"]) {
			if filter["type"] == "RequestRedirect" {
				mine = false
			}
		}
		for _, b := range backends {
			mine = mine || f.is(b)
		}
		if mine {
			list = append(list, rule)
		}
	}
	return list
}

// lead sets the backends of the rules that lead to the release. port is that of the Services, for rules that name none.
func (r *httpRoute) lead(f *Front, port int) error {
	rules := r.ours(f)
	if len(rules) == 0 {
		return &FrontMissingError{Kind: f.Kind, Namespace: f.Namespace, Name: f.Name, There: true}
	}
	for _, rule := range rules {
		others := []any{}
		var like map[string]any
		for _, b := range mappings(rule["backendRefs"]) {
			switch {
			case !f.is(b):
				others = append(others, b)
			case like == nil:
				like = b
			}
		}
		list := []any{}
		for _, to := range []struct {
			release string
			weight  int
		}{{f.To, 100 - f.Share}, {f.Also, f.Share}} {
			if to.release == "" {
				continue
			}
			b := map[string]any{"group": "", "kind": "Service"}
			for key, value := range like {
				b[key] = value // its port, and filters
			}
			if b["port"] == nil {
				if port == 0 {
					return fmt.Errorf("service %q has several ports, and the rule does not say which one: a backend of it in the route has to", f.of(to.release))
				}
				b["port"] = port
			}
			b["name"], b["weight"] = f.of(to.release), to.weight
			list = append(list, b)
		}
		if list = append(list, others...); len(list) > maxRules {
			return errors.New("a rule has too many backends")
		}
		rule["backendRefs"] = list
	}
	return nil
}

// leadRoute makes a route lead where f says. The Services it leads to have endpoints before.
func (s *session) leadRoute(ctx context.Context, f, was *Front, there *FrontState, timeout time.Duration) error {
	port := 0
	for _, release := range []string{f.To, f.Also} {
		if release == "" {
			continue
		}
		if _, err := s.awaitEndpoints(ctx, f.Namespace, f.of(release), 0, timeout); err != nil {
			return err
		}
		svc, err := s.clientset.CoreV1().Services(f.Namespace).Get(ctx, f.of(release), metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("reading the service of release %q: %w", release, err)
		}
		if len(svc.Spec.Ports) == 1 {
			port = int(svc.Spec.Ports[0].Port)
		}
	}
	route := &httpRoute{}
	switch {
	case there != nil:
		route = there.route
	case len(f.Object) == 0:
		return &FrontMissingError{Kind: f.Kind, Namespace: f.Namespace, Name: f.Name}
	default:
		var err error
		if route, err = parseRoute(f.Object); err != nil {
			return fmt.Errorf("reading the vendor's object: %w", err)
		}
	}
	known := *f
	if was != nil && was.To != f.To && was.To != f.Also {
		// Where it leads now may have another name than the two colours: that of a release which was installed in place.
		known.Release = was.To
	}
	route.rename(&known, f)
	if err := route.lead(f, port); err != nil {
		return err
	}
	if there == nil {
		return s.makeRoute(ctx, f, route)
	}
	return s.patchRoute(ctx, f, route)
}

// rename has backends that only known finds be found by f, too.
func (r *httpRoute) rename(known, f *Front) {
	for _, rule := range r.rules() {
		for _, b := range mappings(rule["backendRefs"]) {
			if known.is(b) && !f.is(b) {
				b["name"] = f.Service
			}
		}
	}
}

// writeRoute takes what Sealift put into a route of the site out of it.
func (s *session) writeRoute(ctx context.Context, f *Front, route *httpRoute) error {
	if len(route.ours(f)) == 0 {
		return nil
	}
	if err := route.lead(f, 0); err != nil {
		return err
	}
	return s.patchRoute(ctx, f, route)
}

// patchRoute replaces the rules, if nothing of the route has changed since it was read.
func (s *session) patchRoute(ctx context.Context, f *Front, route *httpRoute) error {
	spec, _ := route.object["spec"].(map[string]any)
	raw, err := json.Marshal([]map[string]any{
		{"op": "test", "path": "/metadata/resourceVersion", "value": route.meta.ResourceVersion},
		{"op": "replace", "path": "/spec/rules", "value": spec["rules"]},
	})
	if err != nil {
		return err
	}
	return s.clientset.CoreV1().RESTClient().Patch(types.JSONPatchType).AbsPath(routePath(f.Namespace, f.Name)).
		Param("fieldManager", FrontManager).Body(raw).Do(ctx).Error()
}

// makeRoute creates a route of ours.
func (s *session) makeRoute(ctx context.Context, f *Front, route *httpRoute) error {
	u := unstructured.Unstructured{Object: route.object}
	u.SetAPIVersion(routesAPI)
	u.SetName(f.Name)
	u.SetNamespace(f.Namespace)
	set := u.GetLabels()
	if set == nil {
		set = map[string]string{}
	}
	set[FrontLabel] = f.Release
	u.SetLabels(set)
	raw, err := json.Marshal(u.Object)
	if err != nil {
		return err
	}
	err = s.clientset.CoreV1().RESTClient().Post().AbsPath(routePath(f.Namespace, "")).Param("fieldManager", FrontManager).
		SetHeader("Content-Type", "application/json").Body(raw).Do(ctx).Error()
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("the cluster does not serve %s: %w", routesAPI, err)
	}
	return err
}

func (s *session) deleteRoute(ctx context.Context, namespace, name string, o metav1.DeleteOptions) error {
	raw, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return s.clientset.CoreV1().RESTClient().Delete().AbsPath(routePath(namespace, name)).
		SetHeader("Content-Type", "application/json").Body(raw).Do(ctx).Error()
}
