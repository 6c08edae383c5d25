package release

import (
	"errors"
	"fmt"
	"net/http"
	"testing"

	"helm.sh/helm/v4/pkg/release/common"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// A release that was deleted with its namespace, in which there are no leases then, is no reason to wait for one: that it has no
// revision is what is to be said.
func TestReleaseIsGone(t *testing.T) {
	c := newFake(t)
	c.leases.setRefuse(func(string) (int, metav1.StatusReason) { return http.StatusNotFound, metav1.StatusReasonNotFound })
	to := &State{Revision: 1}
	for name, err := range map[string]error{"recover": c.Recover(t.Context(), "eu", "shop", to), "revert": c.Revert(t.Context(), "eu", "shop", to)} {
		var ne *NoRevisionError
		if !errors.As(err, &ne) || ne.Revision != 1 {
			t.Errorf("%s: got %v", name, err)
		}
	}
	_, removed := c.Remove(t.Context(), "eu", "shop")
	if err := errors.Join(removed, c.Settle(t.Context(), "eu", "shop"), c.Recover(t.Context(), "eu", "shop", nil)); err != nil {
		t.Error(err)
	}
	gone := fmt.Errorf("creating: %w", apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, "shop"))
	if !NamespaceGone(gone) || NamespaceGone(apierrors.NewNotFound(schema.GroupResource{Resource: "jobs"}, "shop")) || NamespaceGone(nil) {
		t.Error("what says that a namespace is gone is not told from other errors")
	}
}

// What is to come after a revision does not come after another one.
func TestApplyAfter(t *testing.T) {
	c := newFake(t)
	put(t, c, 1, common.StatusSuperseded)
	put(t, c, 2, common.StatusDeployed)
	ours(t, c, 2)
	r := shop(t)
	for _, after := range []int{0, 1, 3} {
		r.After = &after
		var oe *OvertakenError
		if res, err := c.Apply(t.Context(), r); !errors.As(err, &oe) || oe.Newest != 2 || res.Action != "" {
			t.Errorf("after %d: got %+v, %v", after, res, err)
		}
	}
	expectStatuses(t, c, "superseded", "deployed")
	after := 2
	r.After = &after
	if res, err := c.Apply(t.Context(), r); err != nil || res.Revision != 3 {
		t.Errorf("got %+v, %v", res, err)
	}
}

// A version in which objects may be stored since keeps the definition from going back, and the error says so.
func TestNewlyStored(t *testing.T) {
	former := orders("", nil, "v1")
	if err := errors.Join(newlyStored(nil, former), newlyStored(orders("", []any{"v1"}, "v1", "v2"), former)); err != nil {
		t.Error(err)
	}
	var ce *CRDError
	if err := newlyStored(orders("other", []any{"v1", "v2"}, "v1", "v2"), former); !errors.As(err, &ce) || !ce.Kept || ce.Owner != "ns/other" {
		t.Errorf("got %v", err)
	}
}
