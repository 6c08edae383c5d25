package release

import (
	"testing"

	"helm.sh/helm/v4/pkg/release/common"
	releasev1 "helm.sh/helm/v4/pkg/release/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// TestRightsOver: what a release has now, and may have no more, has to be deleted, and made again on the way back; but for data.
func TestRightsOver(t *testing.T) {
	f := newFake(t)
	rel := &releasev1.Release{Name: "web", Namespace: "shop", Version: 1, Info: &releasev1.Info{Status: common.StatusDeployed}, Manifest: `apiVersion: v1
kind: ConfigMap
metadata: {name: old, namespace: other}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
---
apiVersion: gone.example/v1
kind: Gone
metadata: {name: gone}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: old}
`}
	if err := f.memory.Create("sh.helm.release.v1.web.v1", rel); err != nil {
		t.Fatal(err)
	}
	i := &Inspection{cluster: f.Cluster, kinds: map[schema.GroupVersionKind]metav1.APIResource{
		{Version: "v1", Kind: "ConfigMap"}:                                       {Name: "configmaps", Namespaced: true},
		{Version: "v1", Kind: "PersistentVolumeClaim"}:                           {Name: "persistentvolumeclaims", Namespaced: true},
		{Group: "rbac.authorization.k8s.io", Version: "v1", Kind: "ClusterRole"}: {Name: "clusterroles"},
	}}
	deletes := map[string]bool{}
	for _, r := range i.RightsOver(t.Context(), "shop", "web") {
		if r.Verb == "delete" {
			deletes[r.Namespace+"/"+r.Resource] = true
		}
	}
	if len(deletes) != 2 || !deletes["other/configmaps"] || !deletes["/clusterroles"] {
		t.Errorf("got %v", deletes)
	}
	if got := i.RightsOver(t.Context(), "shop", "none"); len(got) != 0 {
		t.Errorf("of a release that is not there: %v", got)
	}
}
