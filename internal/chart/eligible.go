package chart

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Colours are two releases of one chart that run side by side in a namespace, of which a front, an object that no chart
// has, leads to one, or to both for a while.
type Colours struct {
	// Release is what the vendor calls it; One and Two are the names that Helm has the two under.
	Release, One, Two string
	Namespace         string
	// FrontKind ("Service" or "HTTPRoute") and FrontName say what leads to them.
	FrontKind, FrontName string
	// Service is the name of the chart's Service to which the front leads, with * for the name of the release; empty for
	// the only one that there is.
	Service string
	// Shares says that users are shared out by the number of pods.
	Shares bool
	// MigrationsSafe says that what hooks and Jobs change can be gone back over.
	MigrationsSafe bool
}

// Obstacle is why a release cannot stand beside another one of the same chart.
type Obstacle struct {
	// Object is "KIND/NAME"; empty for the whole.
	Object string `json:"object,omitempty"`
	Reason string `json:"reason"`
}

// String is "OBJECT: REASON".
func (o Obstacle) String() string {
	if o.Object == "" {
		return o.Reason
	}
	return o.Object + ": " + o.Reason
}

// NotEligibleError says that a release cannot be rolled out beside its former version.
type NotEligibleError struct {
	// Release is "NAMESPACE/NAME".
	Release   string
	Obstacles []Obstacle
}

// Error lists the obstacles.
func (e *NotEligibleError) Error() string {
	s := fmt.Sprintf("release %s cannot stand beside its former version:", e.Release)
	if len(e.Obstacles) == 1 {
		return s + " " + e.Obstacles[0].String()
	}
	for _, o := range e.Obstacles {
		s += "\n  " + o.String()
	}
	return s
}

// maxObstacles bounds what is said of one release: who has that many reads no further.
const maxObstacles = 50

// Eligible compares what a chart renders to under the names One and Two, with the same values, hooks and tests among it. It
// returns what keeps the two from standing side by side, in the order of the documents, at most 50, and what the front
// leads to; nil where there are obstacles.
//
// It is as good as a look at objects can be: that both use one database, one queue, or one object of a store
// elsewhere, cannot be seen. Errors are *[ManifestError].
func (c Colours) Eligible(one, two []byte) (behind *Behind, obstacles []Obstacle, err error) {
	first, err := clientObjects(one)
	if err != nil {
		return nil, nil, err
	}
	second, err := clientObjects(two)
	if err != nil {
		return nil, nil, err
	}
	e := &eligibility{Colours: c, claims: map[string]bool{}}
	e.shared(first, second)
	for _, o := range second {
		e.mounts(o, func(_, key string) { e.claims[key] = true })
	}
	for _, o := range first {
		e.object(o)
	}
	behind = e.service(first, second)
	if len(e.found) > 0 {
		return nil, e.found, nil
	}
	return behind, nil, nil
}

// Behind is what is behind a front.
type Behind struct {
	// Service is the name of the Service of a release, with * for that of the release.
	Service string
	// One and Two are the labels by which the pods of the two releases are found; Common those of both.
	One, Two, Common map[string]string
}

// Workloads lists the objects in a namespace, as "KIND/NAME", whose pods have the labels; releaseNamespace is that of objects which
// name none. Errors are *[ManifestError].
func Workloads(docs []byte, releaseNamespace, namespace string, labels map[string]string) ([]string, error) {
	objects, err := clientObjects(docs)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, o := range selected(objects, labels) {
		if cmp.Or(o.GetNamespace(), releaseNamespace) == namespace {
			names = append(names, printable(o.GetKind()+"/"+o.GetName()))
		}
	}
	return names, nil
}

// eligibility is one run of Eligible.
type eligibility struct {
	Colours
	// claims are the claims and paths of hosts that pods of the second release write to.
	claims map[string]bool
	found  []Obstacle
}

func (e *eligibility) report(o *unstructured.Unstructured, format string, args ...any) {
	obstacle := Obstacle{Reason: printable(fmt.Sprintf(format, args...))}
	if o != nil {
		obstacle.Object = printable(o.GetKind() + "/" + cmp.Or(o.GetName(), o.GetGenerateName()))
	}
	if len(e.found) < maxObstacles && !slices.Contains(e.found, obstacle) {
		e.found = append(e.found, obstacle)
	}
}

// standing is which object of a cluster one is.
type standing struct {
	schema.GroupKind
	namespace, name string
}

func (c Colours) place(o *unstructured.Unstructured) standing {
	p := standing{o.GroupVersionKind().GroupKind(), cmp.Or(o.GetNamespace(), c.Namespace), o.GetName()}
	if builtinScopes[p.GroupKind] == scopeCluster {
		p.namespace = ""
	}
	return p
}

// shared finds objects that both releases would have.
func (e *eligibility) shared(first, second []*unstructured.Unstructured) {
	there := map[standing]bool{}
	for _, o := range second {
		there[e.place(o)] = true
	}
	for _, o := range first {
		switch p := e.place(o); {
		case builtinScopes[p.GroupKind] == scopeCluster: // reported as such
		case p.name != "" && there[p]:
			e.report(o, "both versions would have it under this name; its name has to come from that of the release")
		}
	}
}

// object finds what one object is in the way of.
func (e *eligibility) object(o *unstructured.Unstructured) {
	p := e.place(o)
	hook := o.GetAnnotations()["helm.sh/hook"]
	isTest := strings.Contains(hook, "test")
	switch {
	case strings.HasSuffix(p.Kind, "WebhookConfiguration") && builtinScopes[p.GroupKind] == scopeCluster:
		e.report(o, "the webhooks of both versions would be asked about everything")
	case builtinScopes[p.GroupKind] == scopeCluster:
		e.report(o, "it is in no namespace, and counts for both versions; put it into a release of its own")
	case p.Kind == "StatefulSet":
		e.report(o, "each version would have data of its own")
	case p.Kind == "PersistentVolumeClaim":
		e.report(o, "it holds data, which the other version would not have")
	case (p.Kind == "Job" || p.Kind == "Pod") && !isTest && !e.MigrationsSafe:
		what := "a " + p.Kind
		if hook != "" {
			what = "a hook (" + hook + ")"
		}
		e.report(o, "%s that may change what the old version uses, while users are on it; rollback: safe says that it does not", what)
	case e.Shares && (p.Kind == "HorizontalPodAutoscaler" || p.Kind == "ScaledObject"):
		e.report(o, "it decides about the number of pods, by which a canary behind a Service is shared out; an HTTPRoute needs no such number")
	case p.Group == "networking.k8s.io" && p.Kind == "Ingress", p.Group == "gateway.networking.k8s.io" && strings.HasSuffix(p.Kind, "Route"):
		if p.Kind != e.FrontKind || p.name != e.FrontName {
			e.report(o, "it would lead users past the front; one that the site has, and that leads to the front, does not")
		}
	case p.Group == "" && p.Kind == "Service":
		e.ports(o)
	}
	if p.Kind == e.FrontKind && p.name == e.FrontName && p.namespace == e.Namespace {
		e.report(o, "it has the name of the front, which belongs to no release")
	}
	e.mounts(o, func(what, key string) {
		if e.claims[key] {
			e.report(o, "pods of both versions would write to %s", what)
		}
	})
	podSpecs(o.Object, nil, "", func(spec, _ map[string]any, _ string, _ bool) {
		if spec["hostNetwork"] == true {
			e.report(o, "its pods use the network of the node, in which ports can be taken only once")
		}
		eachContainer(spec, func(container map[string]any) {
			for _, port := range mappings(container["ports"]) {
				if n := number(port["hostPort"]); n > 0 {
					e.report(o, "its pods take port %d of the node", n)
				}
			}
		})
	})
}

// ports finds ways to a Service from outside of the cluster, which there can be one of.
func (e *eligibility) ports(o *unstructured.Unstructured) {
	spec, _ := o.Object["spec"].(map[string]any)
	for _, port := range mappings(spec["ports"]) {
		if n := number(port["nodePort"]); n > 0 {
			e.report(o, "it takes port %d of the nodes", n)
			return
		}
	}
	if ip, _ := spec["loadBalancerIP"].(string); ip != "" {
		e.report(o, "it takes the address %s", ip)
		return
	}
	if list, _ := spec["externalIPs"].([]any); len(list) > 0 {
		e.report(o, "it takes addresses from outside of the cluster")
		return
	}
	switch kind, _ := spec["type"].(string); kind {
	case "NodePort", "LoadBalancer":
		e.report(o, "it is of type %s, which would lead users past the front", kind)
	}
}

// mounts calls f for each claim, and each path of the host, that pods of the object write to.
func (e *eligibility) mounts(o *unstructured.Unstructured, f func(what, key string)) {
	podSpecs(o.Object, nil, "", func(spec, _ map[string]any, _ string, _ bool) {
		for _, v := range mappings(spec["volumes"]) {
			name, _ := v["name"].(string)
			if !written(spec, name) {
				continue
			}
			if claim, ok := v["persistentVolumeClaim"].(map[string]any); ok && claim["readOnly"] != true {
				text, _ := claim["claimName"].(string)
				f("claim "+text, "claim/"+e.place(o).namespace+"/"+text)
			}
			if host, ok := v["hostPath"].(map[string]any); ok {
				text, _ := host["path"].(string)
				f(text+" of the node", "host/"+text)
			}
		}
	})
}

// written reports whether a container mounts a volume other than to read it.
func written(spec map[string]any, volume string) bool {
	found := false
	eachContainer(spec, func(container map[string]any) {
		for _, m := range mappings(container["volumeMounts"]) {
			if m["name"] == volume && m["readOnly"] != true {
				found = true
			}
		}
	})
	return found
}

func eachContainer(spec map[string]any, f func(container map[string]any)) {
	for _, list := range []string{"initContainers", "containers"} {
		for _, c := range mappings(spec[list]) {
			f(c)
		}
	}
}

// mappings are the mappings in a list.
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

// number is an integer as documents have it, 0 for anything else.
func number(v any) int64 {
	switch n := v.(type) {
	case int64:
		return n
	case float64:
		return int64(n)
	}
	return 0
}

// candidate is a Service that a front could lead to.
type candidate struct {
	name     string
	selector map[string]string
	ports    any
}

// candidates are the Services in the namespace that have a selector and an address.
func (e *eligibility) candidates(objects []*unstructured.Unstructured) []candidate {
	var list []candidate
	for _, o := range objects {
		p := e.place(o)
		headless, _, _ := unstructured.NestedString(o.Object, "spec", "clusterIP")
		external, _, _ := unstructured.NestedString(o.Object, "spec", "type")
		if p.GroupKind != (schema.GroupKind{Kind: "Service"}) || p.namespace != e.Namespace || headless == "None" || external == "ExternalName" {
			continue
		}
		selector, _, err := unstructured.NestedStringMap(o.Object, "spec", "selector")
		if err != nil {
			selector = nil
		}
		ports, _, _ := unstructured.NestedFieldNoCopy(o.Object, "spec", "ports")
		list = append(list, candidate{p.name, selector, ports})
	}
	return list
}

func (e *eligibility) pick(objects []*unstructured.Unstructured, release string) *candidate {
	list := e.candidates(objects)
	names := make([]string, len(list))
	for i, c := range list {
		names[i] = c.name
	}
	if e.Service == "" {
		switch len(list) {
		case 1:
			return &list[0]
		case 0:
			e.report(nil, "the chart has no Service with an address of its own to which front %q could lead", e.FrontName)
		default:
			e.report(nil, "the chart has %d Services (%s) to which front %q could lead: rollout.front.service has to say which one, with * for the name of the release", len(list), strings.Join(names, ", "), e.FrontName)
		}
		return nil
	}
	want := strings.Replace(e.Service, "*", release, 1)
	if i := slices.Index(names, want); i >= 0 {
		return &list[i]
	}
	e.report(nil, "the chart has no Service %q (%q) with an address of its own under the name %q; it has %s", want, e.Service, release, cmp.Or(strings.Join(names, ", "), "none"))
	return nil
}

// service finds the Service of the chart that the front leads to, and sees that its selector tells the two apart.
func (e *eligibility) service(first, second []*unstructured.Unstructured) *Behind {
	one, two := e.pick(first, e.One), e.pick(second, e.Two)
	if one == nil || two == nil {
		return nil
	}
	at := &unstructured.Unstructured{Object: map[string]any{"kind": "Service", "metadata": map[string]any{"name": one.name}}}
	pattern := e.Service
	if pattern == "" {
		if strings.Count(one.name, e.One) != 1 || strings.Replace(one.name, e.One, e.Two, 1) != two.name {
			e.report(at, "its name is not made of that of the release: under %q it is %q", e.Two, two.name)
			return nil
		}
		pattern = strings.Replace(one.name, e.One, "*", 1)
	}
	if !equality.Semantic.DeepEqual(one.ports, two.ports) {
		e.report(at, "its ports differ from one release to the other")
	}
	switch {
	case len(one.selector) == 0:
		e.report(at, "it selects no pods")
		return nil
	case maps.Equal(one.selector, two.selector):
		e.report(at, "its selector does not tell the versions apart; a label with the name of the release (app.kubernetes.io/instance) does")
		return nil
	}
	for _, s := range []struct {
		from  *candidate
		own   []*unstructured.Unstructured
		other []*unstructured.Unstructured
	}{{one, first, second}, {two, second, first}} {
		if len(selected(s.own, s.from.selector)) == 0 {
			e.report(at, "it selects no pods of the chart's workloads")
			return nil
		}
		for _, o := range selected(s.other, s.from.selector) {
			e.report(o, "the pods of the other version would be found by Service %q", s.from.name)
		}
	}
	if e.Shares {
		e.shares(at, one, two, first)
	}
	return &Behind{Service: pattern, One: one.selector, Two: two.selector, Common: CommonLabels(one.selector, two.selector)}
}

// shares sees that users can be shared out by the number of pods.
func (e *eligibility) shares(at *unstructured.Unstructured, one, two *candidate, objects []*unstructured.Unstructured) {
	common := CommonLabels(one.selector, two.selector)
	if len(common) == 0 {
		e.report(at, "the selectors of the two versions have nothing in common that a front could select both by")
		return
	}
	behind := selected(objects, one.selector)
	for _, o := range behind {
		if o.GetKind() != "Deployment" {
			e.report(o, "a canary behind a Service is shared out by the replicas of a Deployment")
		}
	}
	if len(behind) > 1 {
		e.report(at, "%d workloads are behind it; a canary behind a Service is shared out by the replicas of one", len(behind))
	}
	for _, o := range selected(objects, common) {
		if !slices.Contains(behind, o) {
			e.report(o, "its pods have all the labels (%s) by which the front would select both versions", describeLabels(common))
		}
	}
}

// CommonLabels are those that are the same in both.
func CommonLabels(one, two map[string]string) map[string]string {
	common := map[string]string{}
	for key, value := range one {
		if other, ok := two[key]; ok && other == value {
			common[key] = value
		}
	}
	return common
}

func describeLabels(labels map[string]string) string {
	var list []string
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		list = append(list, key+"="+labels[key])
	}
	return strings.Join(list, ",")
}

// selected are the objects, tests aside, whose pods a selector finds.
func selected(objects []*unstructured.Unstructured, selector map[string]string) []*unstructured.Unstructured {
	var list []*unstructured.Unstructured
	for _, o := range objects {
		if o.GetAnnotations()["helm.sh/hook"] != "" {
			continue
		}
		labels := o.GetLabels()
		if o.GetKind() != "Pod" {
			labels, _, _ = unstructured.NestedStringMap(o.Object, "spec", "template", "metadata", "labels")
		}
		if len(labels) > 0 && contains(labels, selector) {
			list = append(list, o)
		}
	}
	return list
}

// contains reports whether labels have all that a selector demands.
func contains(labels, selector map[string]string) bool {
	for key, value := range selector {
		if got, ok := labels[key]; !ok || got != value {
			return false
		}
	}
	return true
}
