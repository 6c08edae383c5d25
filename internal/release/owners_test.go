package release

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/release/common"
	releasev1 "helm.sh/helm/v4/pkg/release/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestForeignRelease(t *testing.T) {
	c := newFake(t)
	put(t, c, 1, common.StatusDeployed)
	var fe *ForeignError
	res, err := c.Apply(t.Context(), shop(t))
	if !errors.As(err, &fe) || fe.Object != "release" || res.Action != "" || len(c.kube.calls) > 0 {
		t.Errorf("got %+v, %v, %q", res, err, c.kube.calls)
	}
	expectStatuses(t, c, "deployed")
	r := shop(t)
	r.Adopt = true
	mustApply(t, c, r)
	// From now on it is ours.
	mustApply(t, c, shop(t))
	expectStatuses(t, c, "superseded", "superseded", "deployed")
}

func TestOwnerOf(t *testing.T) {
	own := map[string]any{nameAnnotation: "eu", namespaceAnnotation: "shop"}
	tests := []struct {
		name     string
		metadata map[string]any
		own      bool
		owner    string
	}{
		{"ours", map[string]any{"labels": map[string]any{managedByLabel: "Helm"}, "annotations": own}, true, `release "eu" in namespace "shop"`},
		{"label is missing", map[string]any{"annotations": own}, false, `release "eu" in namespace "shop"`},
		{"other release", map[string]any{"labels": map[string]any{managedByLabel: "Helm"}, "annotations": map[string]any{
			nameAnnotation: "us\x1b", namespaceAnnotation: "shop",
		}}, false, `release "us\x1b" in namespace "shop"`},
		{"other program", map[string]any{"labels": map[string]any{managedByLabel: "argo"}}, false, "argo"},
		{"by hand", map[string]any{"managedFields": []any{
			map[string]any{"manager": "kubelet", "subresource": "status"}, map[string]any{"manager": "kubectl-create"},
		}}, false, "kubectl-create"},
		{"nothing", map[string]any{}, false, "nobody that it names"},
	}
	for _, tt := range tests {
		if owner, got := ownerOf(object("Service", "x", map[string]any{"metadata": tt.metadata}), "eu", "shop"); got != tt.own || owner != tt.owner {
			t.Errorf("%s: got %q, %v", tt.name, owner, got)
		}
	}
}

func TestConflictsIn(t *testing.T) {
	err := apierrors.NewApplyConflict([]metav1.StatusCause{
		{Type: metav1.CauseTypeFieldManagerConflict, Message: `conflict with "kubectl-edit" using apps/v1`, Field: ".spec.replicas"},
		{Type: metav1.CauseTypeFieldManagerConflict, Message: `conflict with "helm" using apps/v1`, Field: ".spec.paused"},
		{Type: metav1.CauseTypeFieldValueInvalid, Message: "x", Field: ".spec.x"},
		{Type: metav1.CauseTypeFieldManagerConflict, Message: "without quotes\n", Field: ".spec.y"},
	}, "conflicts")
	fields, managers := conflictsIn(errors.Join(errors.New("x"), err))
	if strings.Join(fields, " ") != ".spec.replicas .spec.y" || strings.Join(managers, ",") != "kubectl-edit,without quotes" {
		t.Errorf("got %q, %q", fields, managers)
	}
	var fc *FieldConflictError
	if err := withConflicts(Release{Name: "eu"}, err); !errors.As(err, &fc) || !strings.Contains(fc.Error(), `.spec.replicas by "kubectl-edit"`) {
		t.Errorf("got %v", err)
	}
	if err := withConflicts(Release{}, errNotReady); errors.As(err, &fc) {
		t.Errorf("got %v", err)
	}
}

func TestForbidden(t *testing.T) {
	said := func(resource schema.GroupResource, name, message string) error {
		e := apierrors.NewForbidden(resource, name, errors.New(message))
		return errors.Join(errors.New("x"), e)
	}
	tests := []struct {
		err  error
		want ForbiddenError
	}{
		{
			said(schema.GroupResource{Group: "apps", Resource: "deployments"}, "", `User "u" cannot list resource "deployments" in API group "apps" in the namespace "shop"`),
			ForbiddenError{Verb: "list", Resource: "deployments.apps", Namespace: "shop"},
		},
		{
			said(schema.GroupResource{Resource: "services"}, "web", `User "u" cannot get resource "services/proxy" in API group "" in the namespace "shop"`),
			ForbiddenError{Verb: "get", Resource: "services/proxy", Namespace: "shop"},
		},
		{
			said(schema.GroupResource{Resource: "nodes"}, "", `User "u" cannot list resource "nodes" in API group "" at the cluster scope`),
			ForbiddenError{Verb: "list", Resource: "nodes"},
		},
		{said(schema.GroupResource{Group: "apps", Resource: "deployments"}, "", "exceeded quota"), ForbiddenError{Resource: "deployments.apps"}},
	}
	for _, tt := range tests {
		got := Forbidden(tt.err)
		if got == nil || got.Verb != tt.want.Verb || got.Resource != tt.want.Resource || got.Namespace != tt.want.Namespace || !IsForbidden(got) {
			t.Errorf("%v: got %+v", tt.err, got)
		}
	}
	if Forbidden(errNotReady) != nil || Forbidden(nil) != nil || forbid(nil) != nil {
		t.Error("other errors count as forbidden")
	}
	if e := (&ForbiddenError{Verb: "get", Resource: "secrets"}); !IsForbidden(e) || Forbidden(e) != e || e.Error() == "" {
		t.Errorf("got %v", e)
	}
}

func FuzzForbidden(f *testing.F) {
	f.Add(`nodes is forbidden: User "u" cannot list resource "nodes/x" in API group "" in the namespace "a"`, `conflict with "x\"`)
	f.Add(`cannot cannot resource / namespace`, `"`)
	f.Fuzz(func(t *testing.T, message, conflict string) {
		e := Forbidden(&apierrors.StatusError{ErrStatus: metav1.Status{
			Reason: metav1.StatusReasonForbidden, Code: http.StatusForbidden, Message: message, Details: &metav1.StatusDetails{Kind: "nodes"},
		}})
		for _, s := range []string{e.Verb, e.Resource, e.Namespace, managerOf(conflict)} {
			if s != clean(s) {
				t.Errorf("%q is not clean", s)
			}
		}
	})
}

func TestSurplus(t *testing.T) {
	var h history
	for i := range 15 {
		h = append(h, &releasev1.Release{Version: i + 1, Info: &releasev1.Info{Status: common.StatusSuperseded}})
	}
	h[2].Info.Status = common.StatusDeployed
	tests := []struct {
		keep     []int
		previous *State
		want     []int
	}{
		{nil, nil, []int{1, 2, 4, 5, 6}},
		{[]int{1, 2}, nil, []int{4, 5, 6}},
		{[]int{1, 2, 15}, &State{Revision: 4}, []int{5, 6}},
		{[]int{1, 2, 4, 5, 6}, nil, nil},
	}
	for _, tt := range tests {
		got := h.surplus(tt.keep, tt.previous)
		if len(got) != len(tt.want) {
			t.Errorf("%v: got %v", tt.keep, got)
			continue
		}
		for i := range got {
			if got[i] != tt.want[i] {
				t.Errorf("%v: got %v, want %v", tt.keep, got, tt.want)
			}
		}
	}
}

func TestKeepRevisions(t *testing.T) {
	c := newFake(t)
	r := shop(t)
	r.Keep = []int{1, 2}
	for range maxHistory + 4 {
		mustApply(t, c, r)
	}
	if n := len(statuses(t, c)); n != maxHistory+2 {
		t.Errorf("%d revisions", n)
	}
	for revision, want := range map[int]bool{1: true, 2: true, 3: false} {
		if got, err := c.Recorded(t.Context(), "eu", "shop", revision); err != nil || (got != nil) != want {
			t.Errorf("revision %d: got %v, %v", revision, got, err)
		}
	}
}
