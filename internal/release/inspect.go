package release

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"

	"github.com/sealift/sealift/internal/chart"
)

const (
	// inspectTimeout bounds each request of an inspection: whoever waits for longer has no chance in an install either.
	inspectTimeout = 20 * time.Second
	// asking is how many requests of an inspection are under way at the same time.
	asking = 8
)

// Intended is what is to be done with one release.
type Intended struct {
	// Release is the name that Helm has it under.
	Release, Namespace string
	// Docs are the objects of templates, hooks and tests; Definitions those of crds/; Jobs those that are run beside the release,
	// before it or on the way back.
	Docs, Definitions, Jobs []byte
	// Upgrade says that a revision is there that it replaces.
	Upgrade bool
}

// Roles of an Object.
const (
	// RoleObject is what stays in the cluster as a part of the release.
	RoleObject = "object"
	// RoleHook is run by Helm at some moment, RoleTest by 'helm test', RoleJob by this program.
	RoleHook = "hook"
	RoleTest = "test"
	RoleJob  = "job"
	// RoleDefinition is a definition of crds/.
	RoleDefinition = "definition"
)

// Object is an object that an install touches.
type Object struct {
	// Release is that which it belongs to, "NAMESPACE/NAME".
	Release string
	Role    string
	Kind    schema.GroupVersionKind
	// Namespace is empty for what is in none.
	Namespace, Name string
	// Served says that the cluster knows the kind; Defined that it does not, and the same bundle defines it.
	Served, Defined bool
	// Unknown says that it is not known whether it is served: who answers for its group does not answer.
	Unknown bool
	// resource is the name of the kind in addresses; empty where neither the cluster nor the bundle knows it.
	resource   string
	namespaced bool
	tree       *unstructured.Unstructured
	intended   *Intended
	// events are the hook's.
	events []string
}

// String is "KIND/NAMESPACE/NAME", or "KIND/NAME" for what is in no namespace.
func (o *Object) String() string {
	name := o.Name
	if name == "" {
		name = o.tree.GetGenerateName() + "*"
	}
	if o.Namespace != "" {
		name = o.Namespace + "/" + name
	}
	return clean(o.Kind.Kind + "/" + name)
}

// Inspection looks at a cluster with an install in mind. It changes nothing.
type Inspection struct {
	cluster *Cluster
	session *session
	Objects []*Object

	// kinds are those that the cluster serves.
	kinds map[schema.GroupVersionKind]metav1.APIResource

	mu         sync.Mutex
	namespaces map[string]namespaceState
	// silent are the groups of which nobody answers what they serve.
	silent []string
}

// namespaceState is what is known of a namespace; neither there nor missing where it may not be looked at.
type namespaceState struct {
	there  *corev1.Namespace
	absent bool
	err    error
}

// Inspect reads what the cluster serves and the namespaces of what is intended, and others. Errors are *[UnreachableError],
// *[chart.ManifestError].
func (c *Cluster) Inspect(ctx context.Context, intended []Intended, others ...string) (*Inspection, error) {
	s, err := c.open(ctx, "default")
	if err != nil {
		return nil, err
	}
	i := &Inspection{cluster: c, session: s, namespaces: map[string]namespaceState{}}
	kinds, silent, err := served(s)
	if err != nil {
		return nil, &UnreachableError{Server: c.server, Err: err}
	}
	i.kinds = kinds
	for _, g := range silent {
		i.silent = append(i.silent, clean(g))
	}
	for n := range intended {
		if err := i.read(&intended[n]); err != nil {
			return nil, err
		}
	}
	defined := i.defined()
	for _, o := range i.Objects {
		r, ok := kinds[o.Kind]
		o.Served = ok
		if !ok {
			r, o.Defined = defined[o.Kind]
			o.Unknown = !o.Defined && slices.Contains(silent, o.Kind.GroupVersion().String())
		}
		o.resource, o.namespaced = r.Name, r.Namespaced
		if r.Name != "" && !r.Namespaced {
			o.Namespace = ""
		}
	}
	return i, i.lookAtNamespaces(ctx, others)
}

// served asks which kinds there are. silent are the versions of groups of which nobody answers that.
func served(s *session) (kinds map[schema.GroupVersionKind]metav1.APIResource, silent []string, err error) {
	_, lists, err := s.clientset.Discovery().ServerGroupsAndResources()
	var failed *discovery.ErrGroupDiscoveryFailed
	if errors.As(err, &failed) {
		for gv := range failed.Groups {
			silent = append(silent, gv.String())
		}
		slices.Sort(silent)
	} else if err != nil {
		return nil, nil, err
	}
	kinds = map[schema.GroupVersionKind]metav1.APIResource{}
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			continue // nothing can be of a version without a name
		}
		for _, r := range list.APIResources {
			if !strings.Contains(r.Name, "/") {
				kinds[gv.WithKind(r.Kind)] = r
			}
		}
	}
	return kinds, silent, nil
}

// read adds the objects of a release.
func (i *Inspection) read(in *Intended) error {
	for _, part := range []struct {
		docs []byte
		role string
	}{{in.Definitions, RoleDefinition}, {in.Jobs, RoleJob}, {in.Docs, RoleObject}} {
		objects, err := chart.ClientObjects(part.docs)
		if err != nil {
			return fmt.Errorf("release %s/%s: %w", in.Namespace, in.Release, err)
		}
		for _, u := range objects {
			o := &Object{
				Release: in.Namespace + "/" + in.Release, Role: part.role, Kind: u.GroupVersionKind(), Namespace: u.GetNamespace(), Name: u.GetName(),
				tree: u, intended: in,
			}
			if o.Namespace == "" {
				o.Namespace = in.Namespace
			}
			if part.role == RoleObject {
				o.hook()
			}
			i.Objects = append(i.Objects, o)
		}
	}
	return nil
}

// hookAnnotation is Helm's.
const hookAnnotation = "helm.sh/hook"

// hook finds out whether an object is a hook.
func (o *Object) hook() {
	text, ok := o.tree.GetAnnotations()[hookAnnotation]
	if !ok {
		return
	}
	o.Role = RoleTest
	for e := range strings.SplitSeq(text, ",") {
		e = strings.TrimSpace(e)
		o.events = append(o.events, e)
		if e != "test" && e != "test-success" && e != "test-failure" {
			o.Role = RoleHook
		}
	}
}

// defined lists the kinds that definitions among the objects define.
func (i *Inspection) defined() map[schema.GroupVersionKind]metav1.APIResource {
	kinds := map[schema.GroupVersionKind]metav1.APIResource{}
	for _, o := range i.Objects {
		if o.Kind.Group != "apiextensions.k8s.io" || o.Kind.Kind != "CustomResourceDefinition" {
			continue
		}
		at := func(path ...string) string {
			text, _, _ := unstructured.NestedString(o.tree.Object, path...)
			return text
		}
		r := metav1.APIResource{Name: at("spec", "names", "plural"), Namespaced: at("spec", "scope") == "Namespaced"}
		versions, _, _ := unstructured.NestedSlice(o.tree.Object, "spec", "versions")
		for _, v := range versions {
			version, _ := v.(map[string]any)
			name, _, _ := unstructured.NestedString(version, "name")
			if on, _, _ := unstructured.NestedBool(version, "served"); on && r.Name != "" {
				kinds[schema.GroupVersionKind{Group: at("spec", "group"), Version: name, Kind: at("spec", "names", "kind")}] = r
			}
		}
	}
	return kinds
}

// lookAtNamespaces reads the namespaces that objects are in, and others.
func (i *Inspection) lookAtNamespaces(ctx context.Context, others []string) error {
	names := map[string]bool{}
	for _, name := range others {
		names[name] = true
	}
	for _, o := range i.Objects {
		names[o.Namespace], names[o.intended.Namespace] = true, true
	}
	delete(names, "")
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(asking)
	for name := range names {
		g.Go(func() error {
			i.look(ctx, name)
			return ctx.Err()
		})
	}
	return g.Wait()
}

// look reads a namespace.
func (i *Inspection) look(ctx context.Context, name string) {
	var n namespaceState
	ctx, cancel := context.WithTimeout(ctx, inspectTimeout)
	defer cancel()
	there, err := i.session.clientset.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
	switch {
	case err == nil:
		n.there = there
	case apierrors.IsNotFound(err):
		n.absent = true
	default:
		n.err = err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.namespaces[name] = n
}

// Made reports whether the bundle has the namespace among its objects.
func (i *Inspection) Made(name string) bool {
	return slices.ContainsFunc(i.Objects, func(o *Object) bool {
		return o.Kind == schema.GroupVersionKind{Version: "v1", Kind: "Namespace"} && o.Name == name
	})
}

// Absent lists the namespaces that are not there yet, sorted; going those that are being deleted; hidden those that may not be looked
// at.
func (i *Inspection) Absent() (absent, going, hidden []string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(i.namespaces)) {
		switch n := i.namespaces[name]; {
		case n.absent:
			absent = append(absent, name)
		case n.there == nil:
			hidden = append(hidden, name)
		case n.there.DeletionTimestamp != nil:
			going = append(going, name)
		}
	}
	return absent, going, hidden
}

// Silent lists the API groups of which nobody answers what they serve.
func (i *Inspection) Silent() []string { return i.silent }

// has reports whether the namespace of an object is known to be there.
func (i *Inspection) has(o *Object) bool {
	if o.Namespace == "" {
		return true
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return !i.namespaces[o.Namespace].absent
}

// into reads a part of an object as a type of Kubernetes; false where it is none.
func into[T any](tree map[string]any, path ...string) (v T, ok bool) {
	part := any(tree)
	if len(path) > 0 {
		var err error
		if part, ok, err = unstructured.NestedFieldNoCopy(tree, path...); !ok || err != nil {
			return v, false
		}
	}
	m, ok := part.(map[string]any)
	if !ok {
		return v, false
	}
	return v, runtime.DefaultUnstructuredConverter.FromUnstructured(m, &v) == nil
}

// Pulse is how the API server answers.
type Pulse struct {
	Server string
	// Took is how long it needed for a small answer.
	Took time.Duration
	// Ahead is by how much its clock is ahead of this machine's, which is known to a second; zero where it does not say.
	Ahead time.Duration
}

// Pulse asks the API server for something small. Errors are *[UnreachableError]; *[CredentialsError] where it refuses who we are.
func (c *Cluster) Pulse(ctx context.Context) (Pulse, error) {
	p := Pulse{Server: c.server}
	s, err := c.open(ctx, "default")
	if err != nil {
		return p, err
	}
	client, ok := s.clientset.Discovery().RESTClient().(*rest.RESTClient)
	if !ok || client.Client == nil {
		return p, &UnreachableError{Server: c.server, Err: errors.New("there is no connection")}
	}
	ctx, cancel := context.WithTimeout(ctx, inspectTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, client.Get().AbsPath("/version").URL().String(), nil)
	if err != nil {
		return p, err
	}
	begun := time.Now()
	resp, err := client.Client.Do(req)
	if err != nil {
		return p, &UnreachableError{Server: c.server, Err: err}
	}
	defer resp.Body.Close()
	p.Took = time.Since(begun)
	switch {
	case resp.StatusCode == http.StatusUnauthorized:
		return p, &CredentialsError{Server: c.server, Expired: c.expired(time.Now())}
	case resp.StatusCode >= http.StatusInternalServerError:
		return p, &UnreachableError{Server: c.server, Err: fmt.Errorf("it answers %q", clean(resp.Status))}
	}
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		// It was written somewhere between the question and the answer, and has whole seconds.
		now := begun.Add(p.Took / 2)
		if off := date.Add(500 * time.Millisecond).Sub(now); off.Abs() > p.Took/2+time.Second {
			p.Ahead = off.Truncate(time.Second)
		}
	}
	return p, nil
}
