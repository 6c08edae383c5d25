package release

import (
	"testing"

	"helm.sh/helm/v4/pkg/kube"
	releasev1 "helm.sh/helm/v4/pkg/release/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/cli-runtime/pkg/resource"
)

// TestWayBackLeavesReplicas goes back to a revision of before there was an autoscaler: its number of replicas is not applied.
func TestWayBackLeavesReplicas(t *testing.T) {
	f := newFake(t)
	f.api["/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers"] = `{"kind":"HorizontalPodAutoscalerList","apiVersion":"autoscaling/v2","items":[
		{"metadata":{"name":"any"},"spec":{"scaleTargetRef":{"apiVersion":"apps/v1","kind":"Deployment","name":"web"}}}]}`
	s, err := f.open(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	manifest := "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {replicas: 1}\n"
	held, err := s.keepScaled(t.Context(), f.Cluster, &releasev1.Release{Name: "eu", Namespace: "shop", Manifest: manifest, ApplyMethod: "ssa"})
	if err != nil || len(held.objects) != 0 {
		t.Fatalf("%v, %d held, want none: it is not there", err, len(held.objects))
	}
	var target kube.ResourceList
	for _, name := range []string{"web", "api"} {
		o := object("Deployment", name, map[string]any{"apiVersion": "apps/v1", "spec": map[string]any{"replicas": int64(1)}})
		target = append(target, &resource.Info{Name: name, Namespace: "shop", Object: o, Mapping: &meta.RESTMapping{GroupVersionKind: o.GroupVersionKind()}})
	}
	if _, err := s.kube.Update(nil, target); err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{false, true} {
		if _, said, _ := unstructured.NestedFieldNoCopy(target[i].Object.(*unstructured.Unstructured).Object, "spec", "replicas"); said != want {
			t.Errorf("%s: replicas are said: %t, want %t", target[i].Name, said, want)
		}
	}
}
