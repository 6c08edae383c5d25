package release

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	releasev1 "helm.sh/helm/v4/pkg/release/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sealift/sealift/internal/chart"
)

// maxAutoscalers bounds the autoscalers of one namespace that are listed.
const maxAutoscalers = 10_000

// Autoscaled lists the workloads of a namespace whose number of replicas a HorizontalPodAutoscaler sets, keyed by "KIND/NAME" ("Deployment/shop").
//
// It is for the post-renderer and for the preflight: spec.replicas of such a workload, and of one for which the rendered documents
// themselves hold an autoscaler, is left out of what is applied. Otherwise server-side apply meets the autoscaler's value as a conflict, or, where it is
// forced, sets the number back at each upgrade and at each way back. Where Helm was its only owner, an upgrade keeps the number
// that there is, see heldReplicas.
//
// The error is a *[ForbiddenError] where they may not be listed.
func (c *Cluster) Autoscaled(ctx context.Context, namespace string) (map[string]bool, error) {
	s, err := c.open(ctx, namespace)
	if err != nil {
		return nil, err
	}
	found := map[string]bool{}
	o := metav1.ListOptions{Limit: maxListed}
	for seen := 0; ; {
		list, err := s.clientset.AutoscalingV2().HorizontalPodAutoscalers(namespace).List(ctx, o)
		if err != nil {
			return nil, fmt.Errorf("listing the autoscalers of namespace %q: %w", namespace, forbid(err))
		}
		for i := range list.Items {
			to := list.Items[i].Spec.ScaleTargetRef
			found[to.Kind+"/"+to.Name] = true
		}
		seen += len(list.Items)
		if o.Continue = list.Continue; o.Continue == "" || seen >= maxAutoscalers {
			return found, nil
		}
	}
}

// replicaManager holds numbers of replicas for the moment in which Helm lets go of them.
const replicaManager = "sealift-replicas"

// scalable are the kinds whose number of replicas an autoscaler may set.
var scalable = map[string]schema.GroupVersionResource{
	"Deployment":  {Group: "apps", Version: "v1", Resource: "deployments"},
	"StatefulSet": {Group: "apps", Version: "v1", Resource: "statefulsets"},
	"ReplicaSet":  {Group: "apps", Version: "v1", Resource: "replicasets"},
}

// heldReplicas are workloads whose number of replicas is held.
type heldReplicas struct {
	session *session
	objects []*unstructured.Unstructured
}

// keepScaled sees that a way back to a revision leaves the number of replicas alone where an autoscaler decides on it now, whatever that
// revision says: it was made before there was one. The caller drops what is held.
func (s *session) keepScaled(ctx context.Context, c *Cluster, to *releasev1.Release) (*heldReplicas, error) {
	held := &heldReplicas{session: s}
	if !appliedByServer(to) {
		return held, nil
	}
	scaled, err := c.Autoscaled(ctx, to.Namespace)
	if err != nil && !IsForbidden(err) {
		// Nothing keeps a way back from being tried.
		c.log.WarnContext(ctx, "it is not known what autoscalers scale, so the way back sets the number of replicas", "namespace", to.Namespace, "error", err)
	}
	docs, err := chart.LeaveOutReplicas([]byte(to.Manifest), to.Namespace, func(kind, namespace, name string) bool {
		return namespace == to.Namespace && scaled[kind+"/"+name]
	})
	if err != nil {
		return nil, err
	}
	s.kube.scaled = func(namespace, kind, name string) bool { return namespace == to.Namespace && scaled[kind+"/"+name] }
	return held, held.hold(ctx, docs, to.Namespace)
}

// hold sees that workloads of which the documents say no number of replicas keep the one that they have. With server-side apply a
// field that its only owner says no more goes back to its default, which is 1 (Kubernetes, "Server-Side Apply: transferring
// ownership"): whatever an autoscaler wants, pods would go until it has acted. So the number gets another owner first, the same
// one; drop lets that go after the upgrade.
func (h *heldReplicas) hold(ctx context.Context, docs []byte, namespace string) error {
	objects, err := chart.ClientObjects(docs)
	if err != nil {
		return err
	}
	for _, o := range objects {
		resource, ok := scalable[o.GetKind()]
		if _, said, _ := unstructured.NestedFieldNoCopy(o.Object, "spec", "replicas"); !ok || said || o.GroupVersionKind().Group != resource.Group || o.GetName() == "" {
			continue
		}
		in := cmp.Or(o.GetNamespace(), namespace)
		client := h.session.dynamic.Resource(resource).Namespace(in)
		now, err := client.Get(ctx, o.GetName(), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("reading %s %q in namespace %q: %w", o.GetKind(), o.GetName(), in, forbid(err))
		}
		n, said, err := unstructured.NestedInt64(now.Object, "spec", "replicas")
		if err != nil || !said {
			continue
		}
		only := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"replicas": n}}}
		only.SetAPIVersion(now.GetAPIVersion())
		only.SetKind(now.GetKind())
		only.SetName(now.GetName())
		only.SetNamespace(in)
		switch now, err = client.Apply(ctx, now.GetName(), only, metav1.ApplyOptions{FieldManager: replicaManager}); {
		case apierrors.IsConflict(err):
			// It was scaled meanwhile, and has an owner who keeps it.
		case err != nil:
			return fmt.Errorf("keeping the number of replicas of %s %q in namespace %q: %w", o.GetKind(), o.GetName(), in, forbid(err))
		default:
			h.objects = append(h.objects, now)
		}
	}
	return nil
}

// drop lets go of what hold has held: the numbers stay, and nobody owns them but who else did.
func (h *heldReplicas) drop(ctx context.Context) error {
	if h == nil {
		return nil // it did not come so far
	}
	var errs []error
	for _, o := range h.objects {
		client := h.session.dynamic.Resource(scalable[o.GetKind()]).Namespace(o.GetNamespace())
		for try := 1; ; try++ {
			now, err := client.Get(ctx, o.GetName(), metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				break
			}
			var raw []byte
			if err == nil {
				owners := slices.DeleteFunc(now.GetManagedFields(), func(m metav1.ManagedFieldsEntry) bool { return m.Manager == replicaManager })
				raw, err = json.Marshal([]map[string]any{
					{"op": "test", "path": "/metadata/resourceVersion", "value": now.GetResourceVersion()},
					{"op": "replace", "path": "/metadata/managedFields", "value": owners},
				})
			}
			if err == nil {
				_, err = client.Patch(ctx, o.GetName(), types.JSONPatchType, raw, metav1.PatchOptions{FieldManager: replicaManager})
			}
			if err == nil {
				break
			}
			// The controller writes the status at the same time.
			if try == disownTries || !apierrors.IsConflict(err) && !apierrors.IsInvalid(err) {
				errs = append(errs, fmt.Errorf("letting go of the number of replicas of %s %q in namespace %q: %w", o.GetKind(), o.GetName(), o.GetNamespace(), err))
				break
			}
		}
	}
	return errors.Join(errs...)
}
