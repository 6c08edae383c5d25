package release

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sync/errgroup"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/sealift/sealift/internal/chart"
)

// maxRights bounds how many rights are asked for one by one.
const maxRights = 20_000

// Right is something that an account has to be allowed to do.
type Right struct {
	Verb string
	// Group is empty for the core group; Resource may have a sub-resource, "pods/log".
	Group, Resource string
	// Namespace is empty for what is asked of the whole cluster, Name for all objects.
	Namespace, Name string
	// URL stands for all of these where the right is to an address that is no resource.
	URL string
	// Why says what it is needed for, in a few words.
	Why string
	// Optional says that an install works without, but says less, or has less known before.
	Optional bool
	// Else are rights that all together stand for this one.
	Else []Right
}

// String is as "patch deployments.apps in namespace \"shop\"".
func (r Right) String() string {
	if r.URL != "" {
		return clean(r.Verb + " " + r.URL)
	}
	what := r.Resource
	if r.Group != "" {
		resource, sub, is := strings.Cut(r.Resource, "/")
		what = resource + "." + r.Group
		if is {
			what += "/" + sub
		}
	}
	if r.Name != "" {
		what += fmt.Sprintf(" %q", r.Name)
	}
	if r.Namespace != "" {
		what += fmt.Sprintf(" in namespace %q", r.Namespace)
	}
	return clean(r.Verb + " " + what)
}

// key is what makes rights the same.
func (r *Right) key() string {
	return strings.Join([]string{r.Verb, r.Group, r.Resource, r.Namespace, r.Name, r.URL}, "\x00")
}

// Rights are several verbs of one resource.
func Rights(group, resource, namespace, why string, verbs ...string) []Right {
	rights := make([]Right, 0, len(verbs))
	for _, v := range verbs {
		rights = append(rights, Right{Verb: v, Group: group, Resource: resource, Namespace: namespace, Why: why})
	}
	return rights
}

// waited are the kinds whose pods Helm lists, to see whether they are ready, and whether it lists replica sets besides.
var waited = map[string]bool{"Deployment": true, "StatefulSet": false, "ReplicaSet": false}

// Rights are those that installing the objects needs, and a way back: Helm reads, applies (patch, and create where the object is not
// there), watches and deletes them. This is what was seen at an API server, of Helm 4. Tests are left out unless they are to be run.
func (i *Inspection) Rights(ctx context.Context, tests bool) []Right {
	var rights []Right
	for _, o := range i.Objects {
		if o.resource == "" || o.Role == RoleTest && !tests {
			continue
		}
		why := "for objects of release " + o.Release
		if o.Role == RoleDefinition {
			// Helm and this program read and apply definitions, and delete none.
			rights = append(rights, Rights(o.Kind.Group, o.resource, "", "for definitions of release "+o.Release, "get", "list", "watch", "create", "patch")...)
			continue
		}
		verbs := []string{"get", "list", "watch", "create", "patch", "delete"}
		if o.holdsData() {
			verbs = verbs[:5]
		}
		rights = append(rights, Rights(o.Kind.Group, o.resource, o.Namespace, why, verbs...)...)
		if sets, ok := waited[o.Kind.Kind]; ok && o.Kind.Group == "apps" {
			ready := "to see when workloads of release " + o.Release + " are ready"
			rights = append(rights, Rights("", "pods", o.Namespace, ready, "list")...)
			if sets {
				rights = append(rights, Rights("apps", "replicasets", o.Namespace, ready, "list")...)
			}
		}
		rights = append(rights, i.grants(ctx, o)...)
	}
	return rights
}

// RightsOver are those over the objects that a release has now, by its newest revision: what it has no more in its next version is
// deleted, or, where it is dropped, all of it, and a way back makes it again. What cannot be read of it gives none.
func (i *Inspection) RightsOver(ctx context.Context, namespace, release string) []Right {
	s, err := i.cluster.open(ctx, namespace)
	if err != nil {
		return nil
	}
	h, err := s.history(release)
	if err != nil || h.last() == nil {
		return nil
	}
	objects, err := chart.ClientObjects([]byte(h.last().Manifest))
	if err != nil {
		return nil
	}
	var rights []Right
	for _, u := range objects {
		o := Object{Kind: u.GroupVersionKind()}
		r, served := i.kinds[o.Kind]
		if !served || o.holdsData() {
			continue
		}
		if r.Namespaced {
			o.Namespace = cmp.Or(u.GetNamespace(), namespace)
		}
		rights = append(rights, Rights(o.Kind.Group, r.Name, o.Namespace, "for what release "+namespace+"/"+release+" has now", "get", "list", "watch", "create", "patch", "delete")...)
	}
	return rights
}

// holdsData says that an object is never deleted, see chart.KeepData.
func (o *Object) holdsData() bool {
	switch o.Kind.Kind {
	case "PersistentVolumeClaim", "PersistentVolume", "Namespace":
		return o.Kind.Group == ""
	case "CustomResourceDefinition":
		return o.Kind.Group == "apiextensions.k8s.io"
	}
	return false
}

// grants are the rights that an object gives to others: nobody may give what he has not got (Kubernetes, "Privilege escalation
// prevention").
func (i *Inspection) grants(ctx context.Context, o *Object) []Right {
	if o.Kind.Group != rbacv1.GroupName {
		return nil
	}
	switch o.Kind.Kind {
	case "Role", "ClusterRole":
		role, ok := into[rbacv1.ClusterRole](o.tree.Object)
		if !ok || role.AggregationRule != nil {
			return nil
		}
		return ofRules(role.Rules, o.Namespace, fmt.Sprintf("because %s gives it", o),
			Right{Verb: "escalate", Group: rbacv1.GroupName, Resource: o.resource, Namespace: o.Namespace, Name: o.Name})
	case "RoleBinding", "ClusterRoleBinding":
		binding, ok := into[rbacv1.ClusterRoleBinding](o.tree.Object)
		if !ok {
			return nil
		}
		return i.bound(ctx, o, binding.RoleRef)
	}
	return nil
}

// bound are the rights for a binding to a role.
func (i *Inspection) bound(ctx context.Context, o *Object, ref rbacv1.RoleRef) []Right {
	why := fmt.Sprintf("because %s gives it", o)
	resource, from := "clusterroles", ""
	if ref.Kind == "Role" {
		resource, from = "roles", o.Namespace
	}
	bind := Right{Verb: "bind", Group: rbacv1.GroupName, Resource: resource, Namespace: o.Namespace, Name: ref.Name, Why: fmt.Sprintf("because %s binds it", o)}
	for _, other := range i.Objects {
		if other.Kind.Group == rbacv1.GroupName && other.Kind.Kind == ref.Kind && other.Name == ref.Name && other.Namespace == from {
			role, ok := into[rbacv1.ClusterRole](other.tree.Object)
			if !ok || role.AggregationRule != nil {
				return []Right{bind}
			}
			return ofRules(role.Rules, o.Namespace, why, bind)
		}
	}
	// What the role is made of now may be held, too.
	ctx, cancel := context.WithTimeout(ctx, inspectTimeout)
	defer cancel()
	var rules []rbacv1.PolicyRule
	if from != "" {
		if role, err := i.session.clientset.RbacV1().Roles(from).Get(ctx, ref.Name, metav1.GetOptions{}); err == nil {
			rules = role.Rules
		}
	} else if role, err := i.session.clientset.RbacV1().ClusterRoles().Get(ctx, ref.Name, metav1.GetOptions{}); err == nil {
		rules = role.Rules
	}
	bind.Else = ofRules(rules, o.Namespace, why)
	return []Right{bind}
}

// ofRules are the rights that rules give.
func ofRules(rules []rbacv1.PolicyRule, namespace, why string, or ...Right) []Right {
	var rights []Right
	for _, rule := range rules {
		for _, verb := range rule.Verbs {
			for _, url := range rule.NonResourceURLs {
				rights = append(rights, Right{Verb: verb, URL: url, Why: why, Else: or})
			}
			for _, group := range rule.APIGroups {
				for _, resource := range rule.Resources {
					names := rule.ResourceNames
					if len(names) == 0 {
						names = []string{""}
					}
					for _, name := range names {
						rights = append(rights, Right{Verb: verb, Group: group, Resource: resource, Namespace: namespace, Name: name, Why: why, Else: or})
						if len(rights) > maxRights {
							return rights
						}
					}
				}
			}
		}
	}
	return rights
}

// MergeRights lists each right once, in the order of namespaces and resources. What is needed once is not optional.
func MergeRights(rights []Right) []Right {
	at := map[string]int{}
	merged := []Right{}
	for _, r := range rights {
		n, there := at[r.key()]
		if !there {
			at[r.key()] = len(merged)
			merged = append(merged, r)
			continue
		}
		if m := &merged[n]; m.Optional && !r.Optional {
			m.Optional, m.Why = false, r.Why
		}
		if len(r.Else) == 0 {
			merged[n].Else = nil // needed for something that nothing else stands for
		}
	}
	slices.SortStableFunc(merged, func(a, b Right) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Group, b.Group), cmp.Compare(a.Resource, b.Resource), cmp.Compare(a.Name, b.Name), cmp.Compare(a.URL, b.URL))
	})
	return merged
}

// access is what is known about the rights of the account.
type access struct {
	session *session
	rules   map[string][]authorizationv1.ResourceRule // by namespace
	mu      sync.Mutex
	asked   map[string]bool
}

// Lacks finds out which of the rights the account has not got: first all rules of each namespace are asked for, then, one by one, what
// they do not show. An error says that some of it could not be found out; what is returned beside it is lacking for sure.
func (c *Cluster) Lacks(ctx context.Context, rights []Right) ([]Right, error) {
	s, err := c.open(ctx, "default")
	if err != nil {
		return nil, err
	}
	if len(rights) > maxRights {
		return nil, fmt.Errorf("asking for rights: got %d of them, want at most %d", len(rights), maxRights)
	}
	a := &access{session: s, rules: map[string][]authorizationv1.ResourceRule{}, asked: map[string]bool{}}
	a.readRules(ctx, rights)
	lacking, failed := make([]bool, len(rights)), make([]error, len(rights))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(asking)
	for n, r := range rights {
		g.Go(func() error {
			ok, err := a.has(gctx, r)
			lacking[n], failed[n] = !ok && err == nil, err
			// Where the cluster is gone, there is no use in asking on.
			if err != nil && !isAnswer(err) {
				return err
			}
			return nil
		})
	}
	err = g.Wait()
	var list []Right
	for n, r := range rights {
		if lacking[n] {
			list = append(list, r)
		}
		err = cmp.Or(err, failed[n])
	}
	return list, err
}

// isAnswer reports whether an error was said by the API server, so that it is there.
func isAnswer(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status) && !apierrors.IsTimeout(err) && !apierrors.IsServerTimeout(err)
}

// readRules asks for the rules of each namespace. What does not work is asked one by one later.
func (a *access) readRules(ctx context.Context, rights []Right) {
	names := map[string]bool{}
	for _, r := range rights {
		names[r.Namespace] = true
	}
	delete(names, "")
	var g errgroup.Group
	g.SetLimit(asking)
	for name := range names {
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, inspectTimeout)
			defer cancel()
			review := &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: name}}
			got, err := a.session.clientset.AuthorizationV1().SelfSubjectRulesReviews().Create(ctx, review, metav1.CreateOptions{})
			if err == nil {
				a.mu.Lock()
				a.rules[name] = got.Status.ResourceRules
				a.mu.Unlock()
			}
			return nil
		})
	}
	_ = g.Wait() // none of them fails
}

func (a *access) has(ctx context.Context, r Right) (bool, error) {
	ok, err := a.allowed(ctx, r)
	if ok || err != nil || len(r.Else) == 0 {
		return ok, err
	}
	for _, e := range r.Else {
		if ok, err := a.allowed(ctx, e); !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

func (a *access) allowed(ctx context.Context, r Right) (bool, error) {
	if slices.ContainsFunc(a.rules[r.Namespace], func(rule authorizationv1.ResourceRule) bool { return covers(rule, r) }) {
		return true, nil
	}
	a.mu.Lock()
	ok, known := a.asked[r.key()]
	a.mu.Unlock()
	if known {
		return ok, nil
	}
	review := &authorizationv1.SelfSubjectAccessReview{}
	if r.URL != "" {
		review.Spec.NonResourceAttributes = &authorizationv1.NonResourceAttributes{Path: r.URL, Verb: r.Verb}
	} else {
		resource, sub, _ := strings.Cut(r.Resource, "/")
		review.Spec.ResourceAttributes = &authorizationv1.ResourceAttributes{
			Namespace: r.Namespace, Verb: r.Verb, Group: r.Group, Version: "*", Resource: resource, Subresource: sub, Name: r.Name,
		}
	}
	ctx, cancel := context.WithTimeout(ctx, inspectTimeout)
	defer cancel()
	got, err := a.session.clientset.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
	if err != nil {
		return false, fmt.Errorf("asking whether this account may %s: %w", r, err)
	}
	a.mu.Lock()
	a.asked[r.key()] = got.Status.Allowed
	a.mu.Unlock()
	return got.Status.Allowed, nil
}

// covers reports whether a rule of a namespace gives a right in it.
func covers(rule authorizationv1.ResourceRule, r Right) bool {
	if r.URL != "" || r.Namespace == "" {
		return false
	}
	in := func(list []string, texts ...string) bool {
		return slices.ContainsFunc(list, func(s string) bool { return s == "*" || slices.Contains(texts, s) })
	}
	resources := []string{r.Resource}
	if _, sub, is := strings.Cut(r.Resource, "/"); is {
		resources = append(resources, "*/"+sub)
	}
	return in(rule.Verbs, r.Verb) && in(rule.APIGroups, r.Group) && in(rule.Resources, resources...) &&
		(len(rule.ResourceNames) == 0 || r.Name != "" && slices.Contains(rule.ResourceNames, r.Name))
}

// Account is who gets rights.
type Account struct {
	// Kind is "ServiceAccount", "User" or "Group".
	Kind string
	// Namespace is that of a ServiceAccount, else empty.
	Namespace, Name string
}

// ParseAccount reads "ServiceAccount/NAMESPACE/NAME", "User/NAME" or "Group/NAME".
func ParseAccount(text string) (Account, error) {
	kind, rest, _ := strings.Cut(text, "/")
	switch {
	case kind == rbacv1.ServiceAccountKind:
		namespace, name, ok := strings.Cut(rest, "/")
		if ok && namespace != "" && name != "" && !strings.Contains(name, "/") {
			return Account{kind, namespace, name}, nil
		}
	case (kind == rbacv1.UserKind || kind == rbacv1.GroupKind) && rest != "":
		return Account{Kind: kind, Name: rest}, nil
	}
	return Account{}, fmt.Errorf("account %q is not written as ServiceAccount/NAMESPACE/NAME, User/NAME or Group/NAME", text)
}

// What RBAC is printed as. The types of the API print much that means nothing.
type (
	printedMeta struct {
		Name      string `yaml:"name"`
		Namespace string `yaml:"namespace,omitempty"`
	}
	printedRule struct {
		APIGroups     []string `yaml:"apiGroups,flow,omitempty"`
		Resources     []string `yaml:"resources,flow,omitempty"`
		ResourceNames []string `yaml:"resourceNames,flow,omitempty"`
		URLs          []string `yaml:"nonResourceURLs,flow,omitempty"`
		Verbs         []string `yaml:"verbs,flow"`
	}
	printedSubject struct {
		Kind      string `yaml:"kind"`
		APIGroup  string `yaml:"apiGroup,omitempty"`
		Name      string `yaml:"name"`
		Namespace string `yaml:"namespace,omitempty"`
	}
	printedRef struct {
		APIGroup string `yaml:"apiGroup"`
		Kind     string `yaml:"kind"`
		Name     string `yaml:"name"`
	}
	printedObject struct {
		APIVersion string           `yaml:"apiVersion"`
		Kind       string           `yaml:"kind"`
		Metadata   printedMeta      `yaml:"metadata"`
		Rules      []printedRule    `yaml:"rules,omitempty"`
		RoleRef    *printedRef      `yaml:"roleRef,omitempty"`
		Subjects   []printedSubject `yaml:"subjects,omitempty"`
	}
)

// PrintRBAC writes, as YAML, the namespaces that are missing, the account where it is a ServiceAccount, and the least roles that give it
// the rights, with their bindings: a Role in each namespace, a ClusterRole for what is in none. All are called name.
func PrintRBAC(rights []Right, account Account, name string, missing []string) ([]byte, error) {
	const version = rbacv1.GroupName + "/v1"
	var objects []printedObject
	for _, n := range missing {
		objects = append(objects, printedObject{APIVersion: "v1", Kind: "Namespace", Metadata: printedMeta{Name: n}})
	}
	if account.Kind == rbacv1.ServiceAccountKind {
		objects = append(objects, printedObject{APIVersion: "v1", Kind: account.Kind, Metadata: printedMeta{account.Name, account.Namespace}})
	}
	subject := printedSubject{Kind: account.Kind, Name: account.Name, Namespace: account.Namespace}
	if account.Kind != rbacv1.ServiceAccountKind {
		subject.APIGroup = rbacv1.GroupName
	}
	by := map[string][]Right{}
	for _, r := range rights {
		by[r.Namespace] = append(by[r.Namespace], r)
	}
	for _, namespace := range slices.Sorted(maps.Keys(by)) {
		role, binding := "Role", "RoleBinding"
		if namespace == "" {
			role, binding = "ClusterRole", "ClusterRoleBinding"
		}
		meta := printedMeta{name, namespace}
		objects = append(objects,
			printedObject{APIVersion: version, Kind: role, Metadata: meta, Rules: rulesOf(by[namespace])},
			printedObject{APIVersion: version, Kind: binding, Metadata: meta, RoleRef: &printedRef{rbacv1.GroupName, role, name}, Subjects: []printedSubject{subject}})
	}
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	for _, o := range objects {
		if err := enc.Encode(o); err != nil {
			return nil, fmt.Errorf("writing %s %q: %w", o.Kind, o.Metadata.Name, err)
		}
	}
	return out.Bytes(), enc.Close()
}

// rulesOf makes few rules of many rights: what has the same verbs, names and group stands together.
func rulesOf(rights []Right) []printedRule {
	type place struct{ group, resource, name, url string }
	verbs := map[place][]string{}
	for _, r := range rights {
		p := place{r.Group, r.Resource, r.Name, r.URL}
		if !slices.Contains(verbs[p], r.Verb) {
			verbs[p] = append(verbs[p], r.Verb)
		}
	}
	places := slices.SortedFunc(maps.Keys(verbs), func(a, b place) int {
		return cmp.Or(cmp.Compare(a.group, b.group), cmp.Compare(a.resource, b.resource), cmp.Compare(a.name, b.name), cmp.Compare(a.url, b.url))
	})
	var rules []printedRule
	// First names of one resource are put together, then resources of one group.
	for _, p := range places {
		list := slices.Sorted(slices.Values(verbs[p]))
		r := printedRule{Verbs: list}
		if p.url != "" {
			r.URLs = []string{p.url}
		} else {
			r.APIGroups, r.Resources = []string{p.group}, []string{p.resource}
		}
		if p.name != "" {
			r.ResourceNames = []string{p.name}
		}
		if n := len(rules) - 1; n >= 0 && slices.Equal(rules[n].Verbs, r.Verbs) && slices.Equal(rules[n].APIGroups, r.APIGroups) {
			last := &rules[n]
			switch {
			case p.url != "" && len(last.URLs) > 0:
				last.URLs = append(last.URLs, p.url)
				continue
			case p.url == "" && slices.Equal(last.Resources, r.Resources) && len(last.ResourceNames) > 0 && p.name != "":
				last.ResourceNames = append(last.ResourceNames, p.name)
				continue
			case p.url == "" && len(last.ResourceNames) == 0 && p.name == "" && len(last.URLs) == 0:
				last.Resources = append(last.Resources, p.resource)
				continue
			}
		}
		rules = append(rules, r)
	}
	return rules
}

// CredentialsError says that the cluster does not take the credentials of the kubeconfig.
type CredentialsError struct {
	Server string
	// Expired is when they have expired, as they say themselves; zero where they do not.
	Expired time.Time
}

func (e *CredentialsError) Error() string {
	text := fmt.Sprintf("the cluster at %q refuses the credentials of the kubeconfig", e.Server)
	if !e.Expired.IsZero() {
		text += ", which expired at " + e.Expired.UTC().Format(time.RFC3339)
	}
	return text
}

// Credential is something in a kubeconfig that expires.
type Credential struct {
	// What is "client certificate" or "token".
	What    string
	Expires time.Time
}

// Credentials lists what in the kubeconfig says when it expires.
func (c *Cluster) Credentials() []Credential { return c.credentials }

// expired is when the first of the credentials expired; zero where none has.
func (c *Cluster) expired(now time.Time) time.Time {
	for _, k := range c.credentials {
		if k.Expires.Before(now) {
			return k.Expires
		}
	}
	return time.Time{}
}

// maxCredential bounds the file of a certificate or a token, in bytes.
const maxCredential = 1 << 20

// credentials reads when those of a kubeconfig expire. What cannot be read, or does not say, is left out: whether it is good is the
// cluster's to say.
func credentials(config *rest.Config) []Credential {
	content := func(data []byte, path string) []byte {
		if len(data) > 0 || path == "" {
			return data
		}
		if info, err := os.Stat(path); err != nil || info.Size() > maxCredential {
			return nil
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return nil
		}
		return raw
	}
	var list []Credential
	if block, _ := pem.Decode(content(config.CertData, config.CertFile)); block != nil {
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
			list = append(list, Credential{"client certificate", cert.NotAfter})
		}
	}
	if at := tokenExpiry(string(content([]byte(config.BearerToken), config.BearerTokenFile))); !at.IsZero() {
		list = append(list, Credential{"token", at})
	}
	return list
}

// tokenExpiry is the time that a JSON web token names (RFC 7519, "exp"); zero for other tokens.
func tokenExpiry(token string) time.Time {
	parts := strings.Split(strings.TrimSpace(token), ".")
	if len(parts) != 3 || len(token) > maxCredential {
		return time.Time{}
	}
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return time.Time{}
	}
	var claims struct {
		Exp float64 `json:"exp"`
	}
	if err := json.Unmarshal(raw, &claims); err != nil || claims.Exp <= 0 || claims.Exp > 1<<40 {
		return time.Time{}
	}
	return time.Unix(int64(claims.Exp), 0)
}
