package release

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"helm.sh/helm/v4/pkg/release/common"
	releasev1 "helm.sh/helm/v4/pkg/release/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/resource"
)

// Remove uninstalls a release and keeps its history, so that [Cluster.Revert] can bring a revision back. It returns what
// stays in the cluster, each as "KIND/NAME", also where the release was removed before: claims (those of StatefulSets, too),
// volumes, custom resource definitions and namespaces, whether annotated to be kept or not, and what else is annotated so. The
// claims of StatefulSets that ask for their deletion are kept, too.
//
// Hooks for deletion are run, and left out if they fail. It may be repeated until it succeeds. It takes the lease of the
// release, with the errors of [Cluster.Begin]; others are *[FailedError].
func (c *Cluster) Remove(ctx context.Context, name, namespace string) (kept []string, err error) {
	err = c.change(ctx, name, namespace, nil, func(ctx context.Context, s *session, h history) error {
		last := h.last()
		if last == nil {
			return nil
		}
		if err := s.retainClaims(ctx, last); err != nil {
			return err
		}
		if err := s.revert(ctx, c, name, namespace, h, nil, true); err != nil {
			return err
		}
		var err error
		kept, err = s.stays(ctx, last)
		return err
	})
	return kept, err
}

// DropHistory drops the history of a release that was removed; after that there is no way back to it. A release that is
// installed is an error.
func (c *Cluster) DropHistory(ctx context.Context, name, namespace string) error {
	return c.change(ctx, name, namespace, nil, func(_ context.Context, s *session, h history) error {
		last := h.last()
		if last == nil {
			return nil
		}
		if last.Info.Status != common.StatusUninstalled {
			return fmt.Errorf("dropping the history of release %q in namespace %q: revision %d is %s", name, namespace, last.Version, last.Info.Status)
		}
		return s.dropHistory(name)
	})
}

// ProtectData puts the annotation "helm.sh/resource-policy: keep" on the live objects of a release that hold data (claims,
// volumes, namespaces, custom resource definitions) and have it not: a release that plain Helm installed has them without, and
// Helm deletes them when a newer revision drops them. It also keeps the claims of StatefulSets that ask for their deletion. It
// returns those that it changed, each as "KIND/NAME". Where nothing is deployed, nothing is done.
func (c *Cluster) ProtectData(ctx context.Context, name, namespace string) (kept []string, err error) {
	s, err := c.open(ctx, namespace)
	if err != nil {
		return nil, err
	}
	h, err := s.history(name)
	if err != nil {
		return nil, err
	}
	back := h.back()
	if back == nil {
		return nil, nil
	}
	r := h.at(back.Revision)
	resources, err := s.cfg.KubeClient.Build(strings.NewReader(r.Manifest), false)
	if err != nil {
		return nil, fmt.Errorf("reading the objects of release %q: %w", name, err)
	}
	for _, info := range resources {
		if !holdsData(info) {
			continue
		}
		live, err := lookAt(ctx, info)
		if err != nil {
			return kept, err
		}
		if live == nil || live.GetAnnotations()[keepAnnotation] == keepPolicy {
			continue
		}
		patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, keepAnnotation, keepPolicy)
		_, err = resource.NewHelper(info.Client, info.Mapping).WithFieldManager(userAgent).
			Patch(info.Namespace, info.Name, types.MergePatchType, []byte(patch), nil)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return kept, fmt.Errorf("annotating %s, so that it is kept: %w", objectOf(info), forbid(err))
		}
		kept = append(kept, objectOf(info))
	}
	return kept, s.retainClaims(ctx, r)
}

// What Helm calls objects that it does not delete.
const (
	keepAnnotation = "helm.sh/resource-policy"
	keepPolicy     = "keep"
)

// at is the record of a revision, or nil.
func (h history) at(revision int) *releasev1.Release {
	if i := slices.IndexFunc(h, func(r *releasev1.Release) bool { return r.Version == revision }); i >= 0 {
		return h[i]
	}
	return nil
}

// retainClaims sees that the claims of the StatefulSets of a revision survive them.
func (s *session) retainClaims(ctx context.Context, r *releasev1.Release) error {
	resources, err := s.cfg.KubeClient.Build(strings.NewReader(r.Manifest), false)
	if err != nil {
		return fmt.Errorf("reading the objects of release %q: %w", r.Name, err)
	}
	for _, info := range resources {
		if kind := info.Mapping.GroupVersionKind; kind.Group != "apps" || kind.Kind != "StatefulSet" {
			continue
		}
		sets := s.clientset.AppsV1().StatefulSets(info.Namespace)
		set, err := sets.Get(ctx, info.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("reading %s: %w", objectOf(info), forbid(err))
		}
		policy := set.Spec.PersistentVolumeClaimRetentionPolicy
		if policy == nil || policy.WhenDeleted != appsv1.DeletePersistentVolumeClaimRetentionPolicyType {
			continue
		}
		patch := fmt.Sprintf(`{"spec":{"persistentVolumeClaimRetentionPolicy":{"whenDeleted":%q}}}`, appsv1.RetainPersistentVolumeClaimRetentionPolicyType)
		if _, err := sets.Patch(ctx, info.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: fieldManager}); err != nil {
			return fmt.Errorf("keeping the claims of %s: %w", objectOf(info), forbid(err))
		}
		// Until the controller has taken its claim on them back, they would go with the set.
		if err := s.released(ctx, set); err != nil {
			return fmt.Errorf("keeping the claims of %s: %w", objectOf(info), err)
		}
	}
	return nil
}

// released waits until no claim of a StatefulSet is owned by it any more.
func (s *session) released(ctx context.Context, set *appsv1.StatefulSet) error {
	return poll(ctx, releasedWait, func() (bool, error) {
		claims, err := s.claimsOf(ctx, set.Namespace, set.Name, templatesOf(set))
		if err != nil {
			return false, err
		}
		for _, claim := range claims {
			if slices.ContainsFunc(claim.OwnerReferences, func(o metav1.OwnerReference) bool { return o.UID == set.UID }) {
				return false, nil
			}
		}
		return true, nil
	})
}

// releasedWait bounds the wait for the controller of StatefulSets, which acts at once where it runs.
const releasedWait = time.Minute

func templatesOf(set *appsv1.StatefulSet) []string {
	var names []string
	for i := range set.Spec.VolumeClaimTemplates {
		names = append(names, set.Spec.VolumeClaimTemplates[i].Name)
	}
	return names
}

// claimsOf lists the claims that the controller made for a StatefulSet: TEMPLATE-SET-NUMBER.
func (s *session) claimsOf(ctx context.Context, namespace, set string, templates []string) ([]corev1.PersistentVolumeClaim, error) {
	if len(templates) == 0 {
		return nil, nil
	}
	var claims []corev1.PersistentVolumeClaim
	o := metav1.ListOptions{Limit: maxListed}
	for {
		list, err := s.clientset.CoreV1().PersistentVolumeClaims(namespace).List(ctx, o)
		if err != nil {
			return nil, fmt.Errorf("listing the claims of namespace %q: %w", namespace, forbid(err))
		}
		for i := range list.Items {
			name := list.Items[i].Name
			if slices.ContainsFunc(templates, func(t string) bool {
				number, ok := strings.CutPrefix(name, t+"-"+set+"-")
				return ok && number != "" && strings.Trim(number, "0123456789") == ""
			}) {
				claims = append(claims, list.Items[i])
			}
		}
		if o.Continue = list.Continue; o.Continue == "" || len(claims) >= maxClaims {
			return claims, nil
		}
	}
}

// maxClaims bounds the claims of one StatefulSet that are listed.
const maxClaims = 10_000

// stays lists what is left in the cluster of a revision that was uninstalled.
func (s *session) stays(ctx context.Context, r *releasev1.Release) ([]string, error) {
	var kept []string
	add := func(line string) {
		if !slices.Contains(kept, line) {
			kept = append(kept, line)
		}
	}
	resources, err := s.cfg.KubeClient.Build(strings.NewReader(r.Manifest), false)
	if err != nil {
		return nil, fmt.Errorf("reading the objects of release %q: %w", r.Name, err)
	}
	for _, info := range resources {
		if kind := info.Mapping.GroupVersionKind; kind.Group == "apps" && kind.Kind == "StatefulSet" {
			u, err := asUnstructured(info.Object)
			if err != nil {
				return kept, err
			}
			var set appsv1.StatefulSet
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &set); err != nil {
				return kept, fmt.Errorf("reading %s: %w", objectOf(info), err)
			}
			claims, err := s.claimsOf(ctx, info.Namespace, info.Name, templatesOf(&set))
			if err != nil {
				return kept, err
			}
			for i := range claims {
				add("PersistentVolumeClaim/" + clean(claims[i].Name))
			}
		}
		live, err := lookAt(ctx, info)
		if err != nil {
			return kept, err
		}
		if live != nil && live.GetDeletionTimestamp() == nil {
			add(objectOf(info))
		}
	}
	if r.Chart != nil {
		for _, crd := range r.Chart.CRDObjects() {
			definitions, err := readObjects(crd.File.Data)
			if err != nil {
				continue // nothing was applied of it
			}
			for _, d := range definitions {
				_, err := s.dynamic.Resource(crdResource).Get(ctx, d.GetName(), metav1.GetOptions{})
				if err == nil {
					add(clean(d.GetKind() + "/" + d.GetName()))
				} else if !apierrors.IsNotFound(err) {
					return kept, fmt.Errorf("reading %s: %w", clean(d.GetKind()+"/"+d.GetName()), forbid(err))
				}
			}
		}
	}
	slices.Sort(kept)
	return kept, nil
}
