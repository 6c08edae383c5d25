package release

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	rulesReview  = "POST /apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
	accessReview = "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
)

// allow answers questions about rights: rules those for all rules of a namespace, may those for one right.
func (f *fakeAPI) allow(rules []authorizationv1.ResourceRule, may func(a *authorizationv1.ResourceAttributes) bool) {
	f.on(rulesReview, func(w http.ResponseWriter, _ *http.Request, _ []byte) {
		_ = json.NewEncoder(w).Encode(authorizationv1.SelfSubjectRulesReview{Status: authorizationv1.SubjectRulesReviewStatus{ResourceRules: rules}})
	})
	f.on(accessReview, func(w http.ResponseWriter, _ *http.Request, body []byte) {
		var r authorizationv1.SelfSubjectAccessReview
		if !decode(w, body, &r) {
			return
		}
		r.Status.Allowed = r.Spec.ResourceAttributes != nil && may(r.Spec.ResourceAttributes)
		_ = json.NewEncoder(w).Encode(r)
	})
}

func TestLacks(t *testing.T) {
	f, c := newAPI(t)
	f.allow([]authorizationv1.ResourceRule{
		{Verbs: []string{"get", "list"}, APIGroups: []string{"*"}, Resources: []string{"secrets", "*/log"}},
		{Verbs: []string{"*"}, APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{"one"}},
	}, func(a *authorizationv1.ResourceAttributes) bool {
		return a.Resource == "nodes" || a.Resource == "roles" && a.Verb == "escalate"
	})
	held := Right{Verb: "delete", Resource: "pods", Namespace: "shop", Else: []Right{{Verb: "escalate", Group: "rbac.authorization.k8s.io", Resource: "roles", Namespace: "shop"}}}
	notHeld := Right{Verb: "delete", Resource: "pods", Namespace: "shop", Name: "x", Else: []Right{held.Else[0], {Verb: "bind", Resource: "roles", Namespace: "shop"}}}
	rights := []Right{
		{Verb: "get", Resource: "secrets", Namespace: "shop"},
		{Verb: "get", Resource: "pods/log", Namespace: "shop"},
		{Verb: "delete", Resource: "configmaps", Namespace: "shop", Name: "one"},
		{Verb: "list", Resource: "nodes"},
		held,
		{Verb: "delete", Resource: "configmaps", Namespace: "shop"},
		{Verb: "create", Resource: "secrets", Namespace: "shop"},
		{Verb: "get", Resource: "secrets"}, // what a namespace's rules say does not hold for all
		notHeld,
	}
	lacking, err := c.Lacks(t.Context(), rights)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range lacking {
		got = append(got, r.String())
	}
	want := []string{`delete configmaps in namespace "shop"`, `create secrets in namespace "shop"`, `get secrets`, `delete pods "x" in namespace "shop"`}
	if strings.Join(got, "; ") != strings.Join(want, "; ") {
		t.Errorf("lacking: got %q, want %q", got, want)
	}
	if n := f.count(rulesReview); n != 1 {
		t.Errorf("the rules were asked for %d times, want once", n)
	}
}

func TestLacksNotKnown(t *testing.T) {
	f, c := newAPI(t)
	f.refuse(accessReview, http.StatusInternalServerError, metav1.StatusReasonInternalError)
	lacking, err := c.Lacks(t.Context(), []Right{{Verb: "get", Resource: "secrets", Namespace: "shop"}})
	if err == nil || len(lacking) > 0 {
		t.Errorf("got %v and %v, want an error and nothing that lacks", lacking, err)
	}
}

func TestRights(t *testing.T) {
	f, c := newAPI(t)
	f.say("GET /apis", `{"kind":"APIGroupList","groups":[`+
		`{"name":"apps","versions":[{"groupVersion":"apps/v1","version":"v1"}],"preferredVersion":{"groupVersion":"apps/v1","version":"v1"}},`+
		`{"name":"rbac.authorization.k8s.io","versions":[{"groupVersion":"rbac.authorization.k8s.io/v1","version":"v1"}],"preferredVersion":{"groupVersion":"rbac.authorization.k8s.io/v1","version":"v1"}}]}`)
	f.say("GET /apis/rbac.authorization.k8s.io/v1", kinds("rbac.authorization.k8s.io/v1", "roles Role +", "rolebindings RoleBinding +", "clusterroles ClusterRole"))
	i := inspect(t, c, Intended{Docs: []byte(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader}
rules: [{apiGroups: [""], resources: [endpoints], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: viewer}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
`)})
	rights := MergeRights(i.Rights(t.Context(), false))
	raw, err := PrintRBAC(rights, Account{"ServiceAccount", "sealift", "sealift"}, "sealift-shop", []string{"new"})
	if err != nil {
		t.Fatal(err)
	}
	const want = `apiVersion: v1
kind: Namespace
metadata:
  name: new
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: sealift
  namespace: sealift
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: sealift-shop
  namespace: shop
rules:
  - apiGroups: [""]
    resources: [endpoints]
    verbs: [get]
  - apiGroups: [""]
    resources: [persistentvolumeclaims]
    verbs: [create, get, list, patch, watch]
  - apiGroups: [""]
    resources: [pods]
    verbs: [list]
  - apiGroups: [apps]
    resources: [deployments]
    verbs: [create, delete, get, list, patch, watch]
  - apiGroups: [apps]
    resources: [replicasets]
    verbs: [list]
  - apiGroups: [rbac.authorization.k8s.io]
    resources: [clusterroles]
    resourceNames: [view]
    verbs: [bind]
  - apiGroups: [rbac.authorization.k8s.io]
    resources: [rolebindings, roles]
    verbs: [create, delete, get, list, patch, watch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: sealift-shop
  namespace: shop
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: sealift-shop
subjects:
  - kind: ServiceAccount
    name: sealift
    namespace: sealift
`
	if string(raw) != want {
		t.Errorf("got:\n%s\nwant:\n%s", raw, want)
	}
}

func TestParseAccount(t *testing.T) {
	for text, want := range map[string]Account{
		"ServiceAccount/a/b": {"ServiceAccount", "a", "b"}, "User/jane@x/y": {Kind: "User", Name: "jane@x/y"}, "Group/ops": {Kind: "Group", Name: "ops"},
	} {
		if got, err := ParseAccount(text); err != nil || got != want {
			t.Errorf("%q: got %v and %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "jane", "ServiceAccount/a", "ServiceAccount/a/b/c", "ServiceAccount//b", "User/", "Robot/x"} {
		if got, err := ParseAccount(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
}
