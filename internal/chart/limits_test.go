package chart

import (
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
)

// breaks lists what breaks the limits, as "Object rule".
func breaks(t *testing.T, l Limits, docs string) []string {
	t.Helper()
	found, err := l.Check([]byte(docs), "shop", nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, v := range found {
		got = append(got, v.Object+" "+v.Rule)
	}
	return got
}

const (
	deployment = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec: {template: {spec: {containers: [{name: c, image: a}]}}}
`
	hostile = `containers: [{name: c, image: a, securityContext: {privileged: true}}]`
	decent  = `securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
containers: [{name: c, image: a, securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}]`
)

func indent(s string, by int) string {
	return strings.ReplaceAll(s, "\n", "\n"+strings.Repeat(" ", by))
}

func TestLimits(t *testing.T) {
	no, yes := false, true
	cluster := Limits{ClusterScoped: &no}
	shop := Limits{Namespaces: []string{"shop"}}
	crd := "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: x}\nspec: {group: g.io, names: {kind: %s}, scope: %s}\n---\n"
	tests := []struct {
		name   string
		limits Limits
		docs   string
		want   []string
	}{
		{"the zero value allows everything", Limits{}, "kind: ClusterRole\nmetadata: {name: r, namespace: x}\n---\nkind: Pod\nspec: {" + hostile + "}\n", nil},

		{"kind of any group", Limits{Kinds: []string{"Deployment"}}, deployment, nil},
		{"kind of a group", Limits{Kinds: []string{"apps/Deployment"}}, deployment, nil},
		{"kind of another group", Limits{Kinds: []string{"extensions/Deployment"}}, deployment, []string{"Deployment/web kinds"}},
		{"kind of the core", Limits{Kinds: []string{"core/Service"}}, "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n---\napiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: b}\n", []string{"Service/b kinds"}},
		{"other case", Limits{Kinds: []string{"deployment"}}, deployment, []string{"Deployment/web kinds"}},
		{"the last of two kinds counts for nobody", Limits{Kinds: []string{"ConfigMap"}}, "apiVersion: v1\nkind: ConfigMap\nKind: Secret\nmetadata: {generateName: a-}\n", nil},

		{"namespace of the release", shop, deployment, nil},
		{"no namespace, and the release is elsewhere", Limits{Namespaces: []string{"other"}}, deployment, []string{"Deployment/web namespaces"}},
		{"nothing is there, and the release is elsewhere", Limits{Namespaces: []string{"other"}}, "", []string{" namespaces"}},
		{"another namespace", shop, "apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: kube-system}\n", []string{"Secret/s namespaces"}},
		{"a namespace itself", shop, "apiVersion: v1\nkind: Namespace\nmetadata: {name: kube-system}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n", []string{"Namespace/kube-system namespaces"}},
		{"cluster-scoped objects are in none", shop, "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: r, namespace: x}\n", nil},
		{"a kind of the bundle in another namespace", shop, fmt.Sprintf(crd, "A", "Cluster") + "apiVersion: g.io/v1\nkind: A\nmetadata: {name: a, namespace: x}\n", []string{"A/a namespaces"}},

		{"cluster-scoped allowed", Limits{ClusterScoped: &yes}, "apiVersion: v1\nkind: Node\nmetadata: {name: nn}\n", nil},
		{"cluster-scoped", cluster, "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: r}\n---\n" + deployment, []string{"ClusterRole/r clusterScoped"}},
		{"a namespace does not make it namespaced", cluster, "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: r, namespace: shop}\n", []string{"ClusterRole/r clusterScoped"}},
		{"nor a custom kind of unknown scope", cluster, "apiVersion: cert-manager.io/v1\nkind: ClusterIssuer\nmetadata: {name: i, namespace: shop}\n", []string{"ClusterIssuer/i clusterScoped"}},
		{"unless the site knows", Limits{ClusterScoped: &no, NamespacedKinds: []string{"cert-manager.io/Issuer"}}, "apiVersion: cert-manager.io/v1\nkind: Issuer\nmetadata: {name: i}\n", nil},
		{"kinds of the bundle", cluster, fmt.Sprintf(crd, "A", "Cluster") + fmt.Sprintf(crd, "B", "Namespaced") + "apiVersion: g.io/v1\nkind: A\nmetadata: {name: a}\n---\napiVersion: g.io/v1\nkind: B\nmetadata: {name: b}\n", []string{"CustomResourceDefinition/x clusterScoped", "CustomResourceDefinition/x clusterScoped", "A/a clusterScoped"}},
		{"kinds of the bundle do not change kubernetes", cluster, strings.ReplaceAll(fmt.Sprintf(crd, "ClusterRole", "Namespaced"), "g.io", "rbac.authorization.k8s.io") + "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: r}\n", []string{"CustomResourceDefinition/x clusterScoped", "ClusterRole/r clusterScoped"}},

		{"list", cluster, "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Node, metadata: {name: nn}}\n- {apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Node, metadata: {name: o}}]}\n", []string{"Node/nn clusterScoped", "Node/o clusterScoped"}},
		{"list of one kind", cluster, "apiVersion: v1\nkind: NodeList\nitems: [{metadata: {name: nn}}]\n", []string{"Node/nn clusterScoped"}},
		{"items without a list's name", cluster, "apiVersion: v1\nkind: ConfigMap\nitems: [{apiVersion: v1, kind: Node, metadata: {name: nn}}]\n", []string{"Node/nn clusterScoped"}},
		{"json", cluster, `{"apiVersion":"v1","kind":"Node","metadata":{"name":"nn"}}`, []string{"Node/nn clusterScoped"}},
		{"merge key and alias", cluster, "x: &a {kind: Node}\n<<: *a\napiVersion: v1\nmetadata: {name: nn}\n", []string{"Node/nn clusterScoped"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := breaks(t, tt.limits, tt.docs); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestLimitsOfPods(t *testing.T) {
	workload := func(kind, at, pod string) string {
		return "kind: " + kind + "\nmetadata: {name: w}\n" + fmt.Sprintf(at, indent("\n"+pod, 12)) + "\n"
	}
	places := map[string]string{
		"Pod":                   "spec:%s",
		"PodTemplate":           "template:\n  spec:%s",
		"Deployment":            "spec:\n  template:\n    spec:%s",
		"StatefulSet":           "spec:\n  template:\n    spec:%s",
		"DaemonSet":             "spec:\n  template:\n    spec:%s",
		"ReplicaSet":            "spec:\n  template:\n    spec:%s",
		"ReplicationController": "spec:\n  template:\n    spec:%s",
		"Job":                   "metadata: {name: w, annotations: {helm.sh/hook: test}}\nspec:\n  template:\n    spec:%s",
		"CronJob":               "spec:\n  jobTemplate:\n    spec:\n      template:\n        spec:%s",
		"Database":              "spec:\n  nodes:\n  - pods:\n      spec:%s",
	}
	for kind, at := range places {
		for _, tt := range []struct {
			level, pod string
			bad        bool
		}{
			{PodSecurityPrivileged, hostile, false},
			{PodSecurityBaseline, hostile, true},
			{PodSecurityBaseline, "containers: [{name: c}]", false},
			{PodSecurityRestricted, "containers: [{name: c}]", true},
			{PodSecurityRestricted, decent, false},
			{PodSecurityRestricted, decent + "\nhostPID: true", true},
			{PodSecurityBaseline, "hostNetwork: yes\ncontainers: [{name: c}]", true}, // YAML 1.1
			{PodSecurityBaseline, "hostNetwork: 1\ncontainers: [{name: c}]", true},   // cannot be judged
			{PodSecurityBaseline, "hostPID: true\nHostPID: false\ncontainers: [{name: c}]", true},
			{PodSecurityBaseline, "initContainers: [{name: c, securityContext: {capabilities: {add: [SYS_ADMIN]}}}]", true},
			{PodSecurityBaseline, "ephemeralContainers: [{name: c, securityContext: {privileged: true}}]", true},
			{PodSecurityBaseline, "hostIPC: true", true},
			{PodSecurityRestricted, "volumes: [{name: v, hostPath: {path: /}}]", true},
			{PodSecurityRestricted, "volumes: [{name: v, emptyDir: {}}]", false},
			{PodSecurityRestricted, "containers: text", false},
		} {
			docs := workload(kind, at, tt.pod)
			got := breaks(t, Limits{PodSecurity: tt.level}, docs)
			if (len(got) > 0) != tt.bad {
				t.Errorf("%s: got %q, want bad: %t\n%s", tt.level, got, tt.bad, docs)
			}
			for _, v := range got {
				if v != kind+"/w podSecurity" {
					t.Errorf("got %q", v)
				}
			}
		}
	}
}

// AppArmor can still be switched off by an annotation.
func TestLimitsReadAnnotationsOfPods(t *testing.T) {
	docs := `kind: Job
metadata: {name: j}
spec:
  template:
    metadata: {annotations: {container.apparmor.security.beta.kubernetes.io/c: unconfined}}
    spec: {containers: [{name: c}]}
`
	found, err := Limits{PodSecurity: PodSecurityBaseline}.Check([]byte(docs), "", nil)
	if err != nil || len(found) != 1 || !strings.Contains(found[0].Detail, "AppArmor") || !strings.Contains(found[0].Detail, "spec.template.spec") {
		t.Errorf("got %+v, %v", found, err)
	}
}

func TestLimitsDetail(t *testing.T) {
	docs := "kind: Pod\nmetadata: {name: \"a\\e[31m\"}\nspec: {containers: [{name: \"c\\n\", securityContext: {privileged: true}}]}\n"
	found, err := Limits{PodSecurity: PodSecurityBaseline}.Check([]byte(docs), "", nil)
	want := []Violation{{"Pod/a?[31m", RulePodSecurity, `the pod at spec is not "baseline": privileged (container "c?" must not set securityContext.privileged=true)`}}
	if err != nil || !reflect.DeepEqual(found, want) {
		t.Errorf("got %+v, %v", found, err)
	}
}

func TestLimitsAskTheMatcher(t *testing.T) {
	l := Limits{Namespaces: []string{"shop-*"}}
	match := func(pattern, name string) bool {
		ok, err := filepath.Match(pattern, name)
		return ok && err == nil
	}
	found, err := l.Check([]byte(deployment), "shop-eu", match)
	if err != nil || found != nil {
		t.Errorf("got %+v, %v", found, err)
	}
	if found, err = l.Check([]byte(deployment), "shop-eu", nil); err != nil || len(found) != 1 {
		t.Errorf("without a matcher: got %+v, %v", found, err)
	}
}

func TestLimitsThatCannotBeMeant(t *testing.T) {
	for _, l := range []Limits{
		{Namespaces: []string{""}},
		{Kinds: []string{""}},
		{Kinds: []string{"/Pod"}},
		{Kinds: []string{"apps/"}},
		{Kinds: []string{"apps/v1/Deployment"}},
		{Kinds: []string{"*"}},
		{Kinds: []string{"apps/*"}},
		{NamespacedKinds: []string{"Issuer"}},
		{NamespacedKinds: []string{"rbac.authorization.k8s.io/ClusterRole"}},
		{PodSecurity: "Restricted"},
	} {
		var le *LimitsError
		if _, err := l.Check(nil, "", nil); !errors.As(err, &le) {
			t.Errorf("%+v: got %v, want *LimitsError", l, err)
		}
	}
	if err := (Limits{Kinds: []string{"Pod", "core/Pod", "apps/Deployment"}, PodSecurity: "restricted"}).Validate(); err != nil {
		t.Error(err)
	}
}

// What the client would read otherwise than it looks is refused.
func TestLimitsRefuseDocuments(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	nested := strings.Repeat("{apiVersion: v1, kind: List, items: [", 40) + strings.Repeat("]}", 40)
	for name, docs := range map[string]string{
		"no kind":                       "apiVersion: v1\nmetadata: {name: a}\n",
		"an item without a kind":        "kind: List\nitems: [{metadata: {name: a}}]\n",
		"an item that is no object":     "kind: List\nitems: [text]\n",
		"items that are none":           "kind: List\nitems: {a: b}\n",
		"a separator with more":         deployment + "---x: y\nkind: ConfigMap\n",
		"two documents in one":          "kind: ConfigMap\nmetadata: {name: a}\n...\nkind: ClusterRole\n",
		"two json objects":              `{"kind":"ConfigMap"}{"kind":"ClusterRole"}`,
		"two json objects on two lines": "{\"kind\":\"ConfigMap\"}\n{\"kind\":\"ClusterRole\"}\n",
		"not utf-8":                     "kind: \xff\n",
		"too large":                     strings.Repeat("# x\n", MaxManifests/4+1),
		"aliases of a long text":        "kind: A\na: &a " + long + "\nb: [" + strings.Repeat("*a, ", 64) + "]\n",
		"a deep list":                   nested,
	} {
		var me *ManifestError
		if found, err := (Limits{}).Check([]byte(docs), "", nil); !errors.As(err, &me) {
			t.Errorf("%s: got %+v, %v, want *ManifestError", name, found, err)
		} else if len(err.Error()) > 500 {
			t.Errorf("%s: the error has %d bytes", name, len(err.Error()))
		}
	}
}

func TestLimitsAreBounded(t *testing.T) {
	docs := strings.Repeat("---\napiVersion: v1\nkind: Node\n", maxViolations+1)
	found, err := Limits{Kinds: []string{"Pod"}}.Check([]byte(docs), "", nil)
	if err != nil || len(found) != maxViolations {
		t.Errorf("got %d, %v", len(found), err)
	}
}

// The objects of crds/, hooks and tests are among what Render gives.
func TestLimitsOfAChart(t *testing.T) {
	c, err := Load(shopDir)
	if err != nil {
		t.Fatal(err)
	}
	docs, err := c.Render(t.Context(), RenderOptions{Namespace: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	uses, err := FindImages(docs)
	if err != nil {
		t.Fatal(err)
	}
	no := false
	found, err := Limits{ClusterScoped: &no, PodSecurity: PodSecurityRestricted}.Check(docs, "shop", nil)
	if err != nil {
		t.Fatal(err)
	}
	var crd bool
	pods := map[string]bool{}
	for _, v := range found {
		crd = crd || v.Rule == RuleClusterScoped && strings.HasPrefix(v.Object, "CustomResourceDefinition/")
		pods[v.Object] = pods[v.Object] || v.Rule == RulePodSecurity
	}
	if !crd {
		t.Errorf("the objects of crds/ are missing: %+v", found)
	}
	for _, u := range uses {
		if !pods[u.Object] {
			t.Errorf("%s has an image and no pod: %+v", u.Object, found)
		}
	}
}

// The scopes are those of the client library, and no kind of it is missing.
func TestBuiltinScopes(t *testing.T) {
	groups := map[string][]string{} // kind: groups
	for gvk := range scheme.Scheme.AllKnownTypes() {
		groups[gvk.Kind] = append(groups[gvk.Kind], gvk.Group)
	}
	checked := 0
	set := reflect.TypeFor[kubernetes.Interface]()
	for i := range set.NumMethod() {
		typed := set.Method(i).Type.Out(0)
		parts := strings.Split(typed.PkgPath(), "/")
		if typed.Kind() != reflect.Interface || len(parts) < 2 || !strings.Contains(typed.PkgPath(), "/typed/") {
			continue
		}
		dir := parts[len(parts)-2]
		for j := range typed.NumMethod() {
			m := typed.Method(j)
			kind, ok := strings.CutSuffix(m.Type.Out(0).Name(), "Interface")
			if m.Name == "RESTClient" || !ok {
				continue
			}
			want := scopeCluster
			if m.Type.NumIn() == 1 {
				want = scopeNamespaced
			}
			for _, group := range groups[kind] {
				if first, _, _ := strings.Cut(group, "."); first != dir &&
					(dir != "core" || group != "") && (dir != "apiserverinternal" || first != "internal") {
					continue
				}
				gk := schema.GroupKind{Group: group, Kind: kind}
				if gk.Kind == "Eviction" || gk.Kind == "Scale" {
					continue // no objects, but requests about others
				}
				checked++
				if got := builtinScopes[gk]; got != want {
					t.Errorf("%s: got %d, want %d", kindName(gk), got, want)
				}
			}
		}
	}
	if checked < 80 {
		t.Errorf("only %d kinds were found in the client library", checked)
	}
}

func FuzzLimits(f *testing.F) {
	f.Add([]byte(deployment))
	f.Add([]byte("kind: List\nitems: [{kind: Pod, spec: {containers: [{name: a, securityContext: {privileged: yes}}]}}]\n---\n{\"kind\":\"Node\"}"))
	f.Add([]byte("kind: Pod\nmetadata: 1\nspec: {hostPID: true, containers: [{ports: [{hostPort: 1.5}]}]}"))
	no := false
	l := Limits{Namespaces: []string{"a"}, Kinds: []string{"Pod"}, ClusterScoped: &no, PodSecurity: PodSecurityRestricted}
	f.Fuzz(func(t *testing.T, docs []byte) {
		found, err := l.Check(docs, "a", nil)
		if err != nil && found != nil {
			t.Errorf("got both %v and %v", found, err)
		}
		again, _ := l.Check(docs, "a", nil)
		if !reflect.DeepEqual(found, again) {
			t.Errorf("got %v, then %v", found, again)
		}
	})
}
