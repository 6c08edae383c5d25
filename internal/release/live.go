package release

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"

	"golang.org/x/sync/errgroup"
	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/release/common"
	releasev1 "helm.sh/helm/v4/pkg/release/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/sealift/sealift/internal/chart"
)

const (
	// maxCompared bounds the objects of a release that are compared with the cluster.
	maxCompared = 5000
	// maxLiveObject bounds what is compared of one object, in bytes of JSON. Kubernetes takes about half of it.
	maxLiveObject = 4 << 20
)

// LiveObject is an object of a release as the cluster has it, and as it would have it after an apply. What the cluster
// itself keeps beside the object is left out (status, resourceVersion and the like).
type LiveObject struct {
	// Object is "KIND/NAMESPACE/NAME", or "KIND/NAME" for what is in no namespace.
	Object string
	Kind   string
	// Live is what is there, as JSON; nil where nothing is, or Why says that it may not be known.
	Live []byte
	// Applied is what would be there, as JSON; nil where that could not be found out, see Why, or was not asked.
	Applied []byte
	// Why says why something is not known.
	Why string
	// Wanted is what was to be applied, as JSON.
	Wanted []byte
	// Kept says that what is there has the annotation by which Helm leaves it behind.
	Kept bool
	// Pods is how many pods a workload is to have now.
	Pods int
}

// LiveOptions say what is compared.
type LiveOptions struct {
	// Release and Namespace own the objects; an empty Release owns nothing, as for the definitions of crds/.
	Release, Namespace string
	// Apply has the cluster say what the objects would become, by an apply that changes nothing.
	Apply bool
}

// Live looks at objects of rendered documents in the cluster, hooks left out. Errors are *[chart.ManifestError] and
// *[UnreachableError]; what the cluster refuses about one object is said there.
func (c *Cluster) Live(ctx context.Context, docs []byte, o LiveOptions) ([]LiveObject, error) {
	objects, err := chart.ClientObjects(docs)
	if err != nil {
		return nil, err
	}
	s, err := c.open(ctx, o.Namespace)
	if err != nil {
		return nil, err
	}
	var list []LiveObject
	var trees []*unstructured.Unstructured
	for _, u := range objects {
		if _, hook := u.GetAnnotations()[hookAnnotation]; hook {
			continue
		}
		list, trees = append(list, LiveObject{Kind: clean(u.GetKind())}), append(trees, u)
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(asking)
	for i := range list {
		g.Go(func() error {
			if i >= maxCompared {
				list[i].name(trees[i], o.Namespace)
				list[i].Why = fmt.Sprintf("it is not compared: there are more than %d objects", maxCompared)
				return nil
			}
			return c.look(gctx, s, &list[i], trees[i], o)
		})
	}
	if err := g.Wait(); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, err
	}
	return list, nil
}

func (l *LiveObject) name(u *unstructured.Unstructured, namespace string) {
	name := u.GetName()
	if name == "" {
		name = u.GetGenerateName()
	}
	if namespace != "" {
		name = namespace + "/" + name
	}
	l.Object = clean(u.GetKind() + "/" + name)
}

// look fills in what the cluster says about one object.
func (c *Cluster) look(ctx context.Context, s *session, l *LiveObject, u *unstructured.Unstructured, o LiveOptions) error {
	namespace := u.GetNamespace()
	if namespace == "" {
		namespace = o.Namespace
	}
	l.name(u, namespace)
	if o.Release != "" {
		own(u, o.Release, o.Namespace)
	}
	var err error
	if l.Wanted, err = json.Marshal(u.Object); err != nil {
		return fmt.Errorf("encoding %s: %w", l.Object, err)
	}
	mapping, err := s.mapper.RESTMapping(u.GroupVersionKind().GroupKind(), u.GroupVersionKind().Version)
	switch {
	case meta.IsNoMatchError(err):
		l.Why = "the cluster does not know its kind yet"
		return nil
	case err != nil:
		return c.refused(l, err)
	case u.GetName() == "":
		return nil // gets a name when it is created
	}
	var objects dynamic.ResourceInterface = s.dynamic.Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		objects = s.dynamic.Resource(mapping.Resource).Namespace(namespace)
	} else {
		l.name(u, "")
	}
	live, err := objects.Get(ctx, u.GetName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return c.refused(l, err)
	}
	l.Kept = live.GetAnnotations()["helm.sh/resource-policy"] == "keep"
	l.Pods = pods(live)
	if l.Live, err = essence(live); err != nil || l.Live == nil {
		l.Why = fmt.Sprintf("it is not compared: it has more than %d bytes", maxLiveObject)
		return err
	}
	if !o.Apply {
		return nil
	}
	force := true
	applied, err := objects.Patch(ctx, u.GetName(), types.ApplyPatchType, l.Wanted, metav1.PatchOptions{
		DryRun: []string{metav1.DryRunAll}, FieldManager: fieldManager, Force: &force,
	})
	if err != nil {
		return c.refused(l, err)
	}
	l.Applied, err = essence(applied)
	return err
}

// refused notes what the cluster says against one object; that it does not answer at all is an error.
func (c *Cluster) refused(l *LiveObject, err error) error {
	var status apierrors.APIStatus
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case !errors.As(err, &status):
		return &UnreachableError{Server: c.server, Err: err}
	case apierrors.IsForbidden(err):
		l.Why = "the cluster does not let us ask"
	case apierrors.IsInvalid(err):
		// The message may repeat values; the fields are enough.
		l.Why = "the cluster would refuse it"
		if d := status.Status().Details; d != nil && len(d.Causes) > 0 {
			var fields []string
			for _, cause := range d.Causes[:min(len(d.Causes), 5)] {
				fields = append(fields, clean(cause.Field))
			}
			l.Why += ", because of " + strings.Join(fields, ", ")
		}
	default:
		l.Why = "the cluster says " + clean(string(apierrors.ReasonForError(err)))
	}
	return nil
}

// own marks an object as one of a release, as Helm does.
func own(u *unstructured.Unstructured, release, namespace string) {
	labels, annotations := maps.Clone(u.GetLabels()), maps.Clone(u.GetAnnotations())
	if labels == nil {
		labels = map[string]string{}
	}
	if annotations == nil {
		annotations = map[string]string{}
	}
	labels["app.kubernetes.io/managed-by"] = "Helm"
	annotations["meta.helm.sh/release-name"], annotations["meta.helm.sh/release-namespace"] = release, namespace
	u.SetLabels(labels)
	u.SetAnnotations(annotations)
}

// pods is how many pods a workload has, or is to have.
func pods(u *unstructured.Unstructured) int {
	path := []string{"spec", "replicas"}
	switch u.GetKind() {
	case "Deployment", "StatefulSet", "ReplicaSet", "ReplicationController":
	case "DaemonSet":
		path = []string{"status", "desiredNumberScheduled"}
	default:
		return 0
	}
	n, found, err := unstructured.NestedInt64(u.Object, path...)
	if err != nil || n < 0 || n > 1<<20 {
		return 0
	}
	if !found && u.GetKind() != "DaemonSet" {
		return 1
	}
	return int(n)
}

// essence is an object without what the cluster keeps beside it; nil where it is too large.
func essence(u *unstructured.Unstructured) ([]byte, error) {
	u = u.DeepCopy()
	for _, field := range []string{"managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"} {
		unstructured.RemoveNestedField(u.Object, "metadata", field)
	}
	unstructured.RemoveNestedField(u.Object, "metadata", "annotations", "kubectl.kubernetes.io/last-applied-configuration")
	unstructured.RemoveNestedField(u.Object, "status")
	raw, err := json.Marshal(u.Object)
	if err != nil {
		return nil, fmt.Errorf("encoding %s %q: %w", clean(u.GetKind()), clean(u.GetName()), err)
	}
	if len(raw) > maxLiveObject {
		return nil, nil
	}
	return raw, nil
}

// Lookup lets templates look objects of the cluster up, for [chart.RenderOptions]: by reading only.
func (c *Cluster) Lookup(ctx context.Context, namespace string) (action.RESTClientGetter, error) {
	s, err := c.open(ctx, namespace)
	if err != nil {
		return nil, err
	}
	return s.cfg.RESTClientGetter, nil
}

// Same reports whether the newest revision of a release is deployed and was made by this chart, called so and of this version,
// from the same values.
func (c *Cluster) Same(ctx context.Context, r Release) (bool, error) {
	s, err := c.open(ctx, r.Namespace)
	if err != nil {
		return false, err
	}
	h, err := s.history(r.Name)
	if err != nil {
		return false, err
	}
	last := h.last()
	if last == nil || last.Info.Status != common.StatusDeployed || !sameChart(last, r.Chart) {
		return false, nil
	}
	// Values came back from JSON; those of a chart may have other types of numbers.
	was, err := json.Marshal(last.Config)
	if err != nil {
		return false, fmt.Errorf("encoding the values of revision %d of release %q: %w", last.Version, r.Name, err)
	}
	is, err := json.Marshal(r.Values)
	if err != nil {
		return false, fmt.Errorf("encoding the values of release %q: %w", r.Name, err)
	}
	if len(last.Config) == 0 && len(r.Values) == 0 {
		return true, nil
	}
	return bytes.Equal(was, is), nil
}

func sameChart(r *releasev1.Release, c *chart.Chart) bool {
	return r.Chart != nil && r.Chart.Metadata != nil && c != nil && r.Chart.Metadata.Name == c.Name && r.Chart.Metadata.Version == c.Version
}

// LastRevision is the number of the newest revision of a release, whatever became of it; 0 for none.
func (c *Cluster) LastRevision(ctx context.Context, name, namespace string) (int, error) {
	s, err := c.open(ctx, namespace)
	if err != nil {
		return 0, err
	}
	h, err := s.history(name)
	if err != nil {
		return 0, err
	}
	if last := h.last(); last != nil {
		return last.Version, nil
	}
	return 0, nil
}

// ForeignProgram is a program that the kubeconfig has run for its credentials.
type ForeignProgram struct {
	// User is as the kubeconfig calls it, Program the command; for an auth-provider without one, the provider.
	User, Program string
}

// Program is what is run for the credentials of the kubeconfig; nil for nothing. It does not run it.
func (c *Cluster) Program() *ForeignProgram { return c.program }

// programOf finds out what client-go would run.
func programOf(config *rest.Config, raw *clientcmdapi.Config) *ForeignProgram {
	at, ok := raw.Contexts[raw.CurrentContext]
	if !ok {
		return nil
	}
	var e *ExecError
	if errors.As(checkNoExec(config, at.AuthInfo), &e) {
		return &ForeignProgram{User: clean(e.User), Program: clean(e.Program)}
	}
	return nil
}
