package release

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"helm.sh/helm/v4/pkg/kube"
	releasev1 "helm.sh/helm/v4/pkg/release/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/resource"
)

// What Helm writes on the objects of a release.
const (
	managedByLabel      = "app.kubernetes.io/managed-by"
	managedByHelm       = "Helm"
	nameAnnotation      = "meta.helm.sh/release-name"
	namespaceAnnotation = "meta.helm.sh/release-namespace"
)

// CheckOwners looks whether objects with the names of those in docs (rendered documents, hooks among them) are there that
// do not belong to the release, and changes nothing. An error is a *[ForeignError] for the first of them.
func (c *Cluster) CheckOwners(ctx context.Context, name, namespace string, docs []byte) error {
	s, err := c.open(ctx, namespace)
	if err != nil {
		return err
	}
	resources, err := s.cfg.KubeClient.Build(strings.NewReader(string(docs)), false)
	if err != nil {
		return fmt.Errorf("reading the objects of release %q: %w", name, err)
	}
	for _, info := range resources {
		if isHook(info.Object) {
			continue // Helm replaces them whosoever they are
		}
		live, err := lookAt(ctx, info)
		if err != nil {
			return err
		}
		if live == nil {
			continue
		}
		if owner, own := ownerOf(live, name, namespace); !own {
			return &ForeignError{Release: name, Namespace: namespace, Object: objectOf(info), Owner: owner}
		}
	}
	return nil
}

func isHook(o runtime.Object) bool {
	m, err := meta.Accessor(o)
	return err == nil && m.GetAnnotations()[releasev1.HookAnnotation] != ""
}

// checkLive compares the objects of a revision with those that are there, before its record is created and anything is changed:
// whose they are, and whether others have set their fields since. last is the revision before, or nil.
func (s *session) checkLive(ctx context.Context, r Release, last, next *releasev1.Release) error {
	if r.Adopt && r.TakeOver {
		return nil
	}
	resources, err := s.cfg.KubeClient.Build(strings.NewReader(next.Manifest), false)
	if err != nil {
		return err
	}
	var had kube.ResourceList
	if last != nil {
		// What cannot be read of the former revision counts as new.
		had, _ = s.cfg.KubeClient.Build(strings.NewReader(last.Manifest), false)
	}
	e := &FieldConflictError{Release: r.Name, Namespace: r.Namespace}
	for _, info := range resources {
		live, err := lookAt(ctx, info)
		if err != nil {
			return err
		}
		if live == nil {
			continue
		}
		owner, own := ownerOf(live, r.Name, r.Namespace)
		// Who took the marks off an object of the release did not take the object away.
		if !own && had.Contains(info) && live.GetAnnotations()[nameAnnotation] == "" {
			own = true
		}
		if !own && !r.Adopt {
			return &ForeignError{Release: r.Name, Namespace: r.Namespace, Object: objectOf(info), Owner: owner}
		}
		if r.TakeOver || !appliedByServer(next) {
			continue
		}
		if conflict := tryApply(info, r); conflict != nil {
			e.Conflicts = append(e.Conflicts, *conflict)
		}
	}
	if len(e.Conflicts) > 0 {
		return e
	}
	return nil
}

// lookAt reads an object as it is in the cluster; nil where there is none.
func lookAt(ctx context.Context, info *resource.Info) (*unstructured.Unstructured, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if info.Client == nil || info.Name == "" {
		return nil, nil // does not stand for an object of a cluster, or gets its name from it
	}
	now := *info // reading changes it
	err := now.Get()
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", objectOf(info), forbid(err))
	}
	return asUnstructured(now.Object)
}

// objectOf names an object as "KIND/NAME".
func objectOf(info *resource.Info) string {
	return clean(info.Mapping.GroupVersionKind.Kind + "/" + info.Name)
}

// ownerOf says whether an object is one of a release, and whose it is.
func ownerOf(live *unstructured.Unstructured, name, namespace string) (owner string, own bool) {
	annotations := live.GetAnnotations()
	if of := annotations[nameAnnotation]; of != "" {
		own = live.GetLabels()[managedByLabel] == managedByHelm && of == name && annotations[namespaceAnnotation] == namespace
		return clean(fmt.Sprintf("release %q in namespace %q", of, annotations[namespaceAnnotation])), own
	}
	if by := live.GetLabels()[managedByLabel]; by != "" && by != managedByHelm {
		return clean(by), false
	}
	for _, f := range live.GetManagedFields() {
		if f.Subresource == "" {
			return clean(f.Manager), false
		}
	}
	return "nobody that it names", false
}

// tryApply applies an object without changing anything, as Helm will, and returns the fields that others have set. Other
// errors are not its business: they come again.
func tryApply(info *resource.Info, r Release) *FieldConflict {
	u, err := asUnstructured(info.Object.DeepCopyObject())
	if err != nil {
		return nil
	}
	u = u.DeepCopy()
	u.SetLabels(with(u.GetLabels(), managedByLabel, managedByHelm))
	u.SetAnnotations(with(with(u.GetAnnotations(), nameAnnotation, r.Name), namespaceAnnotation, r.Namespace))
	data, err := runtime.Encode(unstructured.UnstructuredJSONScheme, u)
	if err != nil {
		return nil
	}
	force := false
	_, err = resource.NewHelper(info.Client, info.Mapping).DryRun(true).WithFieldManager(fieldManager).
		Patch(info.Namespace, info.Name, types.ApplyPatchType, data, &metav1.PatchOptions{Force: &force})
	fields, managers := conflictsIn(err)
	if len(fields) == 0 {
		return nil
	}
	return &FieldConflict{Object: objectOf(info), Fields: fields, Managers: managers}
}

func with(m map[string]string, key, value string) map[string]string {
	m = maps.Clone(m)
	if m == nil {
		m = map[string]string{}
	}
	m[key] = value
	return m
}

// maxConflicts bounds the fields that a conflict names of one object.
const maxConflicts = 50

// conflictsIn lists what a server-side apply would have taken from others. Helm's own former fields are none: it takes them
// over by itself when a release of Helm 3 is upgraded.
func conflictsIn(err error) (fields, managers []string) {
	var status apierrors.APIStatus
	if !apierrors.IsConflict(err) || !errors.As(err, &status) || status.Status().Details == nil {
		return nil, nil
	}
	for _, cause := range status.Status().Details.Causes {
		manager := managerOf(cause.Message)
		if cause.Type != metav1.CauseTypeFieldManagerConflict || manager == fieldManager || len(fields) == maxConflicts {
			continue
		}
		fields, managers = append(fields, clean(cause.Field)), append(managers, manager)
	}
	return fields, managers
}

// managerOf finds the name of the manager, which the cluster tells in words only: conflict with "NAME" using apps/v1.
func managerOf(message string) string {
	if _, rest, ok := strings.Cut(message, `"`); ok {
		if quoted, err := strconv.QuotedPrefix(`"` + rest); err == nil {
			if name, err := strconv.Unquote(quoted); err == nil {
				return clean(name)
			}
		}
	}
	return clean(message)
}

// withConflicts adds what the cluster says of conflicts to an error of Helm: those that came up since checkLive.
func withConflicts(r Release, err error) error {
	fields, managers := conflictsIn(err)
	if len(fields) == 0 {
		return err
	}
	return errors.Join(err, &FieldConflictError{
		Release: r.Name, Namespace: r.Namespace, Conflicts: []FieldConflict{{Object: "an object", Fields: fields, Managers: managers}},
	})
}

// holdsData says whether an object is of a kind that is never deleted by us: it holds data, or its deletion takes data along.
func holdsData(info *resource.Info) bool {
	kind := info.Mapping.GroupVersionKind
	switch kind.Group {
	case "":
		return slices.Contains([]string{"PersistentVolumeClaim", "PersistentVolume", "Namespace"}, kind.Kind)
	case "apiextensions.k8s.io":
		return kind.Kind == "CustomResourceDefinition"
	}
	return false
}

// withoutData leaves out of what Helm may delete what holds data, whether annotated or not, and notes it. What is in target is
// not deleted.
func (c *client) withoutData(from, target kube.ResourceList) kube.ResourceList {
	return from.Filter(func(info *resource.Info) bool {
		if !holdsData(info) || target.Contains(info) {
			return true
		}
		if live, err := lookAt(c.ctx, info); err != nil || live != nil {
			c.kept = append(c.kept, objectOf(info))
		}
		return false
	})
}
