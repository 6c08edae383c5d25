package chart

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

// Levels of the Pod Security Standards, for Limits.PodSecurity.
const (
	PodSecurityPrivileged = string(api.LevelPrivileged) // everything is allowed
	PodSecurityBaseline   = string(api.LevelBaseline)
	PodSecurityRestricted = string(api.LevelRestricted)
)

// Rules of a Violation, named after the fields of [Limits].
const (
	RuleNamespaces    = "namespaces"
	RuleKinds         = "kinds"
	RuleClusterScoped = "clusterScoped"
	RulePodSecurity   = "podSecurity"
)

// maxViolations bounds what Check returns: who has that many reads no further.
const maxViolations = 1000

// Limits are what a site allows the objects of a bundle to be; the zero value
// allows everything.
type Limits struct {
	// Namespaces are the allowed namespaces, literals or patterns of the matcher
	// that Check is given. Empty: all.
	Namespaces []string
	// Kinds are the allowed kinds: "Deployment", of any group, or "apps/Deployment",
	// "core/Pod". Empty: all.
	Kinds []string
	// ClusterScoped is false where cluster-scoped objects are refused. nil: they are
	// allowed.
	ClusterScoped *bool
	// NamespacedKinds are custom kinds, "monitoring.coreos.com/ServiceMonitor", of which
	// the site knows that they are namespaced. It counts only where ClusterScoped is
	// false: custom kinds whose scope is not known are refused there. A bundle cannot
	// say it itself: a cluster clears metadata.namespace of a cluster-scoped object.
	NamespacedKinds []string
	// PodSecurity is the level of the Pod Security Standards that all pods must keep, in
	// the version of the library that is linked. Empty: PodSecurityPrivileged.
	PodSecurity string
}

// Violation is one object that breaks one limit.
type Violation struct {
	Object string // "Deployment/shop"; "" if it is the release itself
	Rule   string // RuleNamespaces, …
	Detail string // what is not allowed, in words
}

// LimitsError says that limits cannot be meant as they are.
type LimitsError struct {
	Rule  string // the field, as in Violation
	Value string
	Want  string // what would do
}

func (e *LimitsError) Error() string {
	return fmt.Sprintf("reading the limit %s: got %q, want %s", e.Rule, e.Value, e.Want)
}

// Validate looks for limits that cannot be meant. The error is a *[LimitsError].
func (l Limits) Validate() error {
	for _, n := range l.Namespaces {
		if n == "" {
			return &LimitsError{RuleNamespaces, n, "the name of a namespace or a pattern"}
		}
	}
	for _, k := range l.Kinds {
		group, kind, cut := strings.Cut(k, "/")
		if !cut {
			group, kind = "core", k
		}
		if group == "" || kind == "" || strings.ContainsAny(kind, "/*") || strings.Contains(group, "*") {
			return &LimitsError{RuleKinds, k, `"KIND" or "GROUP/KIND"`}
		}
	}
	for _, k := range l.NamespacedKinds {
		group, kind, _ := strings.Cut(k, "/")
		if group == "" || kind == "" || strings.ContainsAny(k, "*") || strings.Contains(kind, "/") {
			return &LimitsError{"namespacedKinds", k, `"GROUP/KIND"`}
		}
		if _, known := builtinScopes[groupKind(k)]; known {
			return &LimitsError{"namespacedKinds", k, "a custom kind"}
		}
	}
	if l.PodSecurity != "" {
		if _, err := api.ParseLevel(l.PodSecurity); err != nil {
			return &LimitsError{RulePodSecurity, l.PodSecurity, `"privileged", "baseline" or "restricted"`}
		}
	}
	return nil
}

// Check compares rendered documents (see [Chart.Render]: hooks, tests and the
// objects of crds/ are among them) with the limits and says what breaks them, in
// the order of the documents, at most 1000 times. match says whether a name
// matches a pattern of Namespaces; nil compares.
//
// The documents are read as a cluster's client reads them (which splits and reads
// YAML otherwise than FindImages does), lists are taken apart. An object without a
// namespace is in releaseNamespace (empty: "default"), which has to be allowed even
// if nothing is in it but the record of the release. A Namespace is held against
// Namespaces by its own name.
//
// Pods are looked for everywhere in an object, but not in CustomResourceDefinitions:
// in all workloads, and in custom resources. A pod is what has a list of containers,
// init containers or ephemeral containers; what only asks for a namespace of the host
// or for a hostPath volume is held against "baseline". What an operator makes of a
// custom resource that says none of that cannot be seen here.
//
// Errors are *[LimitsError] and *[ManifestError].
func (l Limits) Check(docs []byte, releaseNamespace string, match func(pattern, name string) bool) ([]Violation, error) {
	if err := l.Validate(); err != nil {
		return nil, err
	}
	if releaseNamespace == "" {
		releaseNamespace = "default"
	}
	if match == nil {
		match = func(pattern, name string) bool { return pattern == name }
	}
	objects, err := clientObjects(docs)
	if err != nil {
		return nil, err
	}
	c := limitCheck{limits: l, releaseNamespace: releaseNamespace, match: match}
	if c.checks, err = policy.NewEvaluator(policy.DefaultChecks(), nil); err != nil {
		return nil, &ManifestError{Err: err} // cannot happen: the checks are the library's own
	}
	c.collectScopes(objects)
	for _, o := range objects {
		c.object(o)
	}
	if !c.releaseReported && !c.namespaceAllowed(releaseNamespace) {
		c.report("", RuleNamespaces, fmt.Sprintf("the release is in namespace %q", releaseNamespace))
	}
	return c.found, nil
}

// limitCheck is one run of Check.
type limitCheck struct {
	limits           Limits
	releaseNamespace string
	match            func(pattern, name string) bool
	checks           policy.Evaluator
	scopes           map[schema.GroupKind]scope // what CRDs among the documents say

	found           []Violation
	releaseReported bool // that the namespace of the release is not allowed
}

func (c *limitCheck) report(object, rule, detail string) {
	if len(c.found) < maxViolations {
		c.found = append(c.found, Violation{Object: printable(object), Rule: rule, Detail: printable(detail)})
	}
}

// printable makes one line of what may hold anything.
func printable(s string) string {
	const limit = 500
	s = strings.Map(func(r rune) rune {
		if !isPrintable(string(r)) {
			return '?'
		}
		return r
	}, s)
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + "…"
	}
	return s
}

func (c *limitCheck) object(o *unstructured.Unstructured) {
	gk := o.GroupVersionKind().GroupKind()
	name := o.GetName()
	if name == "" {
		name = o.GetGenerateName()
	}
	name = gk.Kind + "/" + name

	if !c.limits.allowsKind(gk) {
		c.report(name, RuleKinds, fmt.Sprintf("kind %q is not allowed", kindName(gk)))
	}
	c.namespace(name, gk, o)
	if c.limits.ClusterScoped != nil && !*c.limits.ClusterScoped {
		switch c.scopeOf(gk) {
		case scopeCluster:
			c.report(name, RuleClusterScoped, fmt.Sprintf("kind %q is cluster-scoped", kindName(gk)))
		case scopeUnknown:
			c.report(name, RuleClusterScoped, fmt.Sprintf("kind %q may be cluster-scoped: nothing here says what it is", kindName(gk)))
		case scopeNamespaced:
		}
	}
	if level := c.limits.PodSecurity; level != "" && level != PodSecurityPrivileged && gk != crdKind {
		c.pods(name, api.Level(level), o)
	}
}

// namespace checks the namespace that an object is in, or is.
func (c *limitCheck) namespace(name string, gk schema.GroupKind, o *unstructured.Unstructured) {
	in := o.GetNamespace()
	switch {
	case gk == namespaceKind:
		if !c.namespaceAllowed(o.GetName()) {
			c.report(name, RuleNamespaces, fmt.Sprintf("namespace %q is not allowed", o.GetName()))
		}
		return
	case builtinScopes[gk] == scopeCluster, in == "" && c.scopes[gk] == scopeCluster:
		return
	case in == "":
		in = c.releaseNamespace
	}
	if !c.namespaceAllowed(in) {
		c.releaseReported = c.releaseReported || in == c.releaseNamespace
		c.report(name, RuleNamespaces, fmt.Sprintf("namespace %q is not allowed", in))
	}
}

func (c *limitCheck) namespaceAllowed(namespace string) bool {
	for _, pattern := range c.limits.Namespaces {
		if pattern == namespace || c.match(pattern, namespace) {
			return true
		}
	}
	return len(c.limits.Namespaces) == 0
}

// allowsKind compares a kind with Kinds.
func (l Limits) allowsKind(gk schema.GroupKind) bool {
	for _, k := range l.Kinds {
		if k == gk.Kind || groupKind(k) == gk && strings.Contains(k, "/") {
			return true
		}
	}
	return len(l.Kinds) == 0
}

// groupKind reads "GROUP/KIND"; the group of Pods, which has no name, is "core".
func groupKind(s string) schema.GroupKind {
	group, kind, _ := strings.Cut(s, "/")
	if group == "core" {
		group = ""
	}
	return schema.GroupKind{Group: group, Kind: kind}
}

// kindName is the reverse of groupKind.
func kindName(gk schema.GroupKind) string {
	if gk.Group == "" {
		return "core/" + gk.Kind
	}
	return gk.Group + "/" + gk.Kind
}
