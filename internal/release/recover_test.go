package release

import (
	"errors"
	"strings"
	"testing"
	"time"

	"helm.sh/helm/v4/pkg/release/common"
	releasev1 "helm.sh/helm/v4/pkg/release/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// ours marks a record as one of this program.
func ours(t *testing.T, c *fakeCluster, revision int) *releasev1.Release {
	t.Helper()
	found, err := c.memory.Get("sh.helm.release.v1.eu.v" + string(rune('0'+revision)))
	if err != nil {
		t.Fatal(err)
	}
	r, err := asRelease(found)
	if err != nil {
		t.Fatal(err)
	}
	r.Labels = map[string]string{runLabel: "killed." + string(rune('0'+revision))}
	return r
}

func TestRecover(t *testing.T) {
	first := &State{Revision: 1}
	tests := []struct {
		name   string
		before []common.Status
		to     *State
		want   []string
	}{
		{"nothing was begun", nil, nil, nil},
		{"no record was written", []common.Status{"deployed"}, first, []string{"deployed"}},
		{"first install", []common.Status{"pending-install"}, nil, nil},
		{"first install that failed", []common.Status{"failed"}, nil, nil},
		{"first install that was done", []common.Status{"deployed"}, nil, nil},
		{"first install that was being uninstalled", []common.Status{"uninstalling"}, nil, nil},
		{"upgrade", []common.Status{"deployed", "pending-upgrade"}, first, []string{"superseded", "pending-upgrade", "deployed"}},
		{"upgrade that failed", []common.Status{"deployed", "failed"}, first, []string{"superseded", "failed", "deployed"}},
		{"upgrade that was done", []common.Status{"superseded", "deployed"}, first, []string{"superseded", "superseded", "deployed"}},
		{"upgrade between the two records", []common.Status{"superseded", "pending-upgrade"}, first, []string{"superseded", "pending-upgrade", "deployed"}},
		{"way back", []common.Status{"superseded", "deployed", "pending-rollback"}, first, []string{"superseded", "superseded", "pending-rollback", "deployed"}},
		{"removal", []common.Status{"superseded", "uninstalling"}, first, []string{"superseded", "uninstalling", "deployed"}},
		{"removal that was done", []common.Status{"superseded", "uninstalled"}, first, []string{"superseded", "uninstalled", "deployed"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newFake(t)
			for i, status := range tt.before {
				put(t, c, i+1, status)
				r := ours(t, c, i+1)
				if status == common.StatusUninstalled || status == common.StatusUninstalling {
					r.Info.Deleted = time.Now()
				}
			}
			for range 2 {
				if err := c.Recover(t.Context(), "eu", "shop", tt.to); err != nil {
					t.Fatal(err)
				}
				expectStatuses(t, c, tt.want...)
			}
			if h := c.leases.holder(); h != "" {
				t.Errorf("the lease was not given back: %s", h)
			}
		})
	}
}

// What somebody else has installed since is not taken back.
func TestRecoverIsOvertaken(t *testing.T) {
	for _, to := range []*State{nil, {Revision: 1}} {
		c := newFake(t)
		put(t, c, 1, common.StatusSuperseded)
		put(t, c, 2, common.StatusDeployed)
		ours(t, c, 2).Labels[runLabel] = "killed.1" // Helm has copied it
		var oe *OvertakenError
		if err := c.Recover(t.Context(), "eu", "shop", to); !errors.As(err, &oe) || oe.Newest != 2 {
			t.Errorf("got %v", err)
		}
		expectStatuses(t, c, "superseded", "deployed")
	}
	var ne *NoRevisionError
	if err := newFake(t).Recover(t.Context(), "eu", "shop", &State{Revision: 1}); !errors.As(err, &ne) {
		t.Errorf("got %v", err)
	}
}

// A hook is stopped because it runs, whether the record knows that or not, and one from before the revision is not.
func TestRecoverStopsHooks(t *testing.T) {
	began := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name    string
		created time.Time
		phase   releasev1.HookPhase
		want    bool
	}{
		{"not recorded", began.Add(time.Second), "", true},
		{"recorded as done before", began, releasev1.HookPhaseSucceeded, true},
		{"of an earlier revision", began.Add(-time.Second), "", false},
		{"recorded as running", began.Add(-time.Second), releasev1.HookPhaseRunning, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newFake(t)
			put(t, c, 1, common.StatusDeployed)
			put(t, c, 2, common.StatusPendingUpgrade)
			r := ours(t, c, 2)
			hook := &releasev1.Hook{
				Name: "eu-migrate", Kind: "Job", Events: []releasev1.HookEvent{releasev1.HookPreUpgrade},
				Manifest: "apiVersion: batch/v1\nkind: Job\nmetadata: {name: eu-migrate}\n",
			}
			if tt.phase != "" {
				hook.LastRun = releasev1.HookExecution{StartedAt: began.Add(-time.Hour), Phase: tt.phase}
			}
			r.Hooks = []*releasev1.Hook{hook}
			c.api["/api/v1/namespaces/shop/secrets/sh.helm.release.v1.eu.v2"] = `{"metadata":{"creationTimestamp":"` + began.Format(time.RFC3339) + `"}}`
			job := object("Job", "eu-migrate", nil)
			job.SetCreationTimestamp(metav1.NewTime(tt.created))
			c.kube.live = []*unstructured.Unstructured{job}
			if err := c.Recover(t.Context(), "eu", "shop", &State{Revision: 1}); err != nil {
				t.Fatal(err)
			}
			if got := c.has("delete Job/eu-migrate"); got != tt.want {
				t.Errorf("stopped: %v, want %v", got, tt.want)
			}
			expectStatuses(t, c, "superseded", "pending-upgrade", "deployed")
		})
	}
}

func TestRemove(t *testing.T) {
	c := newFake(t)
	mustApply(t, c, shop(t))
	mustApply(t, c, shop(t))
	if err := c.DropHistory(t.Context(), "eu", "shop"); err == nil {
		t.Error("the history of an installed release was dropped")
	}
	c.api["/apis/apiextensions.k8s.io/v1/customresourcedefinitions/orders.shop.example"] = `{"apiVersion":"apiextensions.k8s.io/v1",
	"kind":"CustomResourceDefinition","metadata":{"name":"orders.shop.example"}}`
	for range 2 {
		kept, err := c.Remove(t.Context(), "eu", "shop")
		if err != nil || strings.Join(kept, " ") != "CustomResourceDefinition/orders.shop.example" {
			t.Errorf("got %q, %v", kept, err)
		}
		expectStatuses(t, c, "superseded", "uninstalled")
	}
	if s := current(t, c); s != nil {
		t.Errorf("got %+v", s)
	}
	if err := c.Revert(t.Context(), "eu", "shop", &State{Revision: 1}); err != nil {
		t.Fatal(err)
	}
	expectStatuses(t, c, "superseded", "uninstalled", "deployed")

	// An install over it that fails leaves the history of before.
	if _, err := c.Remove(t.Context(), "eu", "shop"); err != nil {
		t.Fatal(err)
	}
	c.kube.wait = func() error { return errNotReady }
	o := c.begin(t, shop(t))
	if res, err := o.Apply(t.Context()); err == nil || res.Action != ActionInstall {
		t.Fatalf("got %+v, %v", res, err)
	}
	c.kube.wait = nil
	if err := o.Revert(t.Context()); err != nil {
		t.Fatal(err)
	}
	o.End(t.Context())
	if s := current(t, c); s != nil || len(statuses(t, c)) != 4 {
		t.Errorf("got %+v, %q", s, statuses(t, c))
	}
	for range 2 {
		if err := c.DropHistory(t.Context(), "eu", "shop"); err != nil {
			t.Error(err)
		}
		expectStatuses(t, c)
	}
	if kept, err := c.Remove(t.Context(), "eu", "shop"); err != nil || len(kept) > 0 {
		t.Errorf("got %q, %v", kept, err)
	}
}

// The digest says whether the objects are the same, and nothing of what Secrets hold.
func TestRecorded(t *testing.T) {
	c := newFake(t)
	digest := func(revision int, manifest, hook string) string {
		put(t, c, revision, common.StatusSuperseded)
		r := ours(t, c, revision)
		r.Manifest, r.Hooks = manifest, []*releasev1.Hook{{Path: "h.yaml", Manifest: hook}}
		got, err := c.Recorded(t.Context(), "eu", "shop", revision)
		if err != nil || got == nil || got.Revision != revision || string(got.Docs) != manifest || !strings.Contains(string(got.Hooks), hook) {
			t.Fatalf("got %+v, %v", got, err)
		}
		return got.Objects
	}
	secret := "apiVersion: v1\nkind: Secret\nmetadata: {name: x}\nstringData: {key: %}\n"
	a := digest(1, strings.ReplaceAll(secret, "%", "one"), "kind: Job\n")
	if b := digest(2, strings.ReplaceAll(secret, "%", "two"), "kind: Job\n"); a != b || !strings.HasPrefix(a, "sha256:") {
		t.Errorf("got %s and %s", a, b)
	}
	if b := digest(3, strings.ReplaceAll(strings.ReplaceAll(secret, "%", "one"), "name: x", "name: y"), "kind: Job\n"); a == b {
		t.Error("other objects have the same digest")
	}
	if b := digest(4, strings.ReplaceAll(secret, "%", "one"), "kind: Pod\n"); a == b {
		t.Error("other hooks have the same digest")
	}
	if got, err := c.Recorded(t.Context(), "eu", "shop", 0); err != nil || got == nil || got.Revision != 4 {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := c.Recorded(t.Context(), "eu", "shop", 9); err != nil || got != nil {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := newFake(t).Recorded(t.Context(), "eu", "shop", 0); err != nil || got != nil {
		t.Errorf("got %+v, %v", got, err)
	}
}
