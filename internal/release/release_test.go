package release

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	helmrelease "helm.sh/helm/v4/pkg/release"
	"helm.sh/helm/v4/pkg/release/common"
	releasev1 "helm.sh/helm/v4/pkg/release/v1"
	"helm.sh/helm/v4/pkg/storage/driver"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/sealift/sealift/internal/chart"
)

var errNotReady = errors.New("resource Deployment/shop/eu not ready. status: InProgress\ncontext deadline exceeded")

func mustApply(t *testing.T, c *fakeCluster, r Release) Result {
	t.Helper()
	res, err := c.Apply(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func current(t *testing.T, c *fakeCluster) *State {
	t.Helper()
	s, err := c.Current(t.Context(), "eu", "shop")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// statuses are those of all revisions, oldest first.
func statuses(t *testing.T, c *fakeCluster) []string {
	t.Helper()
	s, err := c.open(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	h, err := s.history("eu")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, r := range h {
		out = append(out, r.Info.Status.String())
	}
	return out
}

func expectStatuses(t *testing.T, c *fakeCluster, want ...string) {
	t.Helper()
	if got := statuses(t, c); !slices.Equal(got, want) {
		t.Errorf("revisions are %q, want %q", got, want)
	}
}

func TestInstallUpgradeRevert(t *testing.T) {
	c := newFake(t)
	if s := current(t, c); s != nil {
		t.Fatalf("got %+v", s)
	}
	r := shop(t)
	var rendered string
	r.PostRender = func(in []byte) ([]byte, error) {
		rendered = string(in)
		return bytes.ReplaceAll(in, []byte("registry.example/"), []byte("mirror.example/")), nil
	}
	if got := mustApply(t, c, r); !reflect.DeepEqual(got, Result{Action: ActionInstall, Revision: 1}) {
		t.Errorf("got %+v", got)
	}
	first := &State{Revision: 1, Status: "deployed", Chart: "shop", Version: "1.2.3"}
	if s := current(t, c); !reflect.DeepEqual(s, first) {
		t.Errorf("got %+v", s)
	}
	for _, kind := range []string{"Deployment", "Job", "Pod", "StatefulSet", "PersistentVolumeClaim"} {
		if !strings.Contains(rendered, "kind: "+kind+"\n") {
			t.Errorf("the post-renderer did not see the %s", kind)
		}
	}
	if !slices.Equal(c.posts, []string{"/api/v1/namespaces"}) {
		t.Errorf("posts %q", c.posts)
	}
	if !c.has("create Job/eu-migrate") || c.has("create CustomResourceDefinition") {
		t.Errorf("got %q", c.kube.calls)
	}

	if got := mustApply(t, c, r); !reflect.DeepEqual(got, Result{Action: ActionUpgrade, Revision: 2, Previous: first}) {
		t.Errorf("got %+v", got)
	}
	expectStatuses(t, c, "superseded", "deployed")
	if err := c.Revert(t.Context(), "eu", "shop", first); err != nil {
		t.Fatal(err)
	}
	expectStatuses(t, c, "superseded", "superseded", "deployed")
	if err := c.Revert(t.Context(), "eu", "shop", first); err != nil {
		t.Fatal(err)
	}
	expectStatuses(t, c, "superseded", "superseded", "deployed")

	var ne *NoRevisionError
	if err := c.Revert(t.Context(), "eu", "shop", &State{Revision: 9}); !errors.As(err, &ne) || ne.Revision != 9 {
		t.Errorf("got %v", err)
	}
	for range 2 {
		if err := c.Revert(t.Context(), "eu", "shop", nil); err != nil {
			t.Fatal(err)
		}
		expectStatuses(t, c)
	}
	if c.has("wait without") {
		t.Error("a wait does not watch, or cannot be cancelled")
	}
}

// The stored values and documents are those that were given, each time.
func TestValuesAreNotReused(t *testing.T) {
	c := newFake(t)
	r := shop(t)
	mustApply(t, c, r)
	r.Values = nil
	mustApply(t, c, r)
	rel, err := c.memory.Get("sh.helm.release.v1.eu.v2")
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := asRelease(rel); len(got.Config) != 0 || !strings.Contains(got.Manifest, "replicas: 1") {
		t.Errorf("values %v", got.Config)
	}
}

func TestUpgradeNotReady(t *testing.T) {
	c := newFake(t)
	r := shop(t)
	mustApply(t, c, r)
	c.kube.wait = func() error { return errNotReady }
	c.kube.live = []*unstructured.Unstructured{
		object("Deployment", "eu", map[string]any{"apiVersion": "apps/v1", "spec": map[string]any{"replicas": int64(1)}}),
		object("ConfigMap", "x", nil),
	}
	res, err := c.Apply(t.Context(), r)
	var fe *FailedError
	if !errors.As(err, &fe) || !errors.Is(err, errNotReady) {
		t.Fatalf("got %v", err)
	}
	if fe.Action != ActionUpgrade || fe.Revision != 2 || fe.Hook != "" || len(fe.Objects) != 1 || !strings.HasPrefix(fe.Objects[0], "Deployment/eu: ") {
		t.Errorf("got %+v", fe)
	}
	if strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), `upgrading release "eu" in namespace "shop": not ready: Deployment/eu: `) {
		t.Errorf("got %v", err)
	}
	if res.Action != ActionUpgrade || res.Revision != 2 || res.Previous == nil || res.Previous.Revision != 1 {
		t.Errorf("got %+v", res)
	}
	expectStatuses(t, c, "deployed", "failed")
	if s := current(t, c); s == nil || s.Revision != 1 {
		t.Errorf("got %+v", s)
	}
	// A way back that fails can be repeated.
	err = c.Revert(t.Context(), "eu", "shop", res.Previous)
	if !errors.As(err, &fe) || fe.Action != ActionRollback || fe.Revision != 3 || len(fe.Objects) != 1 {
		t.Errorf("got %v, %+v", err, fe)
	}
	expectStatuses(t, c, "deployed", "failed", "failed")
	c.kube.wait = nil
	if err := c.Revert(t.Context(), "eu", "shop", res.Previous); err != nil {
		t.Fatal(err)
	}
	expectStatuses(t, c, "superseded", "failed", "failed", "deployed")
	if got := mustApply(t, c, r); got.Revision != 5 || got.Previous.Revision != 4 {
		t.Errorf("got %+v", got)
	}
}

func TestInstallHookFails(t *testing.T) {
	c := newFake(t)
	r := shop(t)
	boom := errors.New("job eu-migrate failed: BackoffLimitExceeded")
	c.kube.hook = func() error { return boom }
	res, err := c.Apply(t.Context(), r)
	var fe *FailedError
	if !errors.As(err, &fe) || !errors.Is(err, boom) || fe.Hook != "pre-install Job/eu-migrate" || fe.Revision != 1 || res.Previous != nil {
		t.Fatalf("got %+v, %v", res, err)
	}
	expectStatuses(t, c, "failed")
	if s := current(t, c); s != nil {
		t.Errorf("got %+v", s)
	}
	// The hook is still running: it must not go on while things are put back.
	c.kube.hook = nil
	c.kube.calls = nil
	c.kube.live = []*unstructured.Unstructured{object("Job", "eu-migrate", nil)}
	if err := c.Revert(t.Context(), "eu", "shop", res.Previous); err != nil {
		t.Fatal(err)
	}
	if !c.has("delete Job/eu-migrate") {
		t.Errorf("the hook was not stopped: %q", c.kube.calls)
	}
	expectStatuses(t, c)
	if got := mustApply(t, c, r); got.Action != ActionInstall || got.Revision != 1 {
		t.Errorf("got %+v", got)
	}
}

func TestEndedHooksAreKept(t *testing.T) {
	for _, live := range []*unstructured.Unstructured{
		object("Job", "eu-migrate", map[string]any{"status": map[string]any{"conditions": []any{map[string]any{"type": "Failed", "status": "True"}}}}),
		object("Pod", "eu-migrate", map[string]any{"status": map[string]any{"phase": "Failed"}}),
	} {
		c := newFake(t)
		c.kube.hook = func() error { return errNotReady }
		if _, err := c.Apply(t.Context(), shop(t)); err == nil {
			t.Fatal("no error")
		}
		c.kube.calls, c.kube.live = nil, []*unstructured.Unstructured{live}
		if err := c.Revert(t.Context(), "eu", "shop", nil); err != nil || c.has("delete") {
			t.Errorf("%v, %q", err, c.kube.calls)
		}
	}
}

// An install over a failed one that was not taken back is an upgrade to Helm.
func TestApplyAfterFailedInstall(t *testing.T) {
	c := newFake(t)
	r := shop(t)
	c.kube.wait = func() error {
		if !c.has("create Job") {
			return nil // the wait for the CRDs
		}
		return errNotReady
	}
	if _, err := c.Apply(t.Context(), r); err == nil {
		t.Fatal("no error")
	}
	c.kube.wait = nil
	if got := mustApply(t, c, r); got.Action != ActionUpgrade || got.Revision != 2 || got.Previous != nil {
		t.Errorf("got %+v", got)
	}
	expectStatuses(t, c, "superseded", "deployed")
}

func put(t *testing.T, c *fakeCluster, revision int, status common.Status) {
	t.Helper()
	rel := &releasev1.Release{
		Name: "eu", Namespace: "shop", Version: revision, Info: &releasev1.Info{Status: status},
		Manifest: "kind: ConfigMap\nmetadata: {name: x}\n", ApplyMethod: "ssa",
	}
	if err := c.memory.Create("sh.helm.release.v1.eu.v"+string(rune('0'+revision)), rel); err != nil {
		t.Fatal(err)
	}
}

func TestPending(t *testing.T) {
	tests := []struct {
		status  common.Status
		back    bool
		onlyOne bool
	}{
		{common.StatusPendingInstall, false, true},
		{common.StatusPendingUpgrade, true, false},
		{common.StatusPendingRollback, true, false},
		{common.StatusUninstalling, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.status.String(), func(t *testing.T) {
			c := newFake(t)
			if !tt.onlyOne {
				put(t, c, 1, common.StatusDeployed)
			}
			put(t, c, 2, tt.status)
			c.api["/api/v1/namespaces/shop"] = `{}`
			_, err := c.Current(t.Context(), "eu", "shop")
			var pe *PendingError
			if !errors.As(err, &pe) || pe.Status != tt.status.String() || pe.Revision != 2 || (pe.Back != nil) != tt.back {
				t.Fatalf("got %v, %+v", err, pe)
			}
			if _, err := c.Apply(t.Context(), shop(t)); !errors.As(err, &pe) {
				t.Errorf("got %v", err)
			}
			if len(c.kube.calls)+len(c.posts) > 0 {
				t.Errorf("something was done: %q", c.kube.calls)
			}
			if err := c.Revert(t.Context(), "eu", "shop", pe.Back); err != nil {
				t.Fatal(err)
			}
			if s := current(t, c); (s != nil) != tt.back || (s != nil && s.Revision != 3) {
				t.Errorf("got %+v", s)
			}
		})
	}
}

func TestCurrentAfterFailedRollback(t *testing.T) {
	c := newFake(t)
	put(t, c, 1, common.StatusSuperseded)
	put(t, c, 2, common.StatusSuperseded)
	put(t, c, 3, common.StatusFailed)
	if s := current(t, c); s == nil || s.Revision != 2 || s.Status != "superseded" {
		t.Errorf("got %+v", s)
	}
	c = newFake(t)
	put(t, c, 1, common.StatusUninstalled)
	if s := current(t, c); s != nil {
		t.Errorf("got %+v", s)
	}
	if got := mustApply(t, c, shop(t)); got.Action != ActionInstall || got.Revision != 2 || got.Previous != nil {
		t.Errorf("got %+v", got)
	}
}

// When Apply returns after a cancellation, its work is over, and the record
// says that it failed.
func TestCancel(t *testing.T) {
	for _, where := range []string{"hook", "wait"} {
		t.Run(where, func(t *testing.T) {
			c := newFake(t)
			r := shop(t)
			mustApply(t, c, r)
			ctx, cancel := context.WithCancel(t.Context())
			stop := func() error { cancel(); return ctx.Err() }
			if where == "hook" {
				c.kube.hook = stop
			} else {
				c.kube.wait = stop
			}
			c.kube.calls = nil
			res, err := c.Apply(ctx, r)
			var fe *FailedError
			if !errors.As(err, &fe) || !errors.Is(err, context.Canceled) || res.Previous == nil || res.Revision != 2 {
				t.Fatalf("got %+v, %v", res, err)
			}
			expectStatuses(t, c, "deployed", "failed")
			if c.has("update") != (where == "wait") {
				t.Errorf("calls %q", c.kube.calls)
			}
			c.kube.hook, c.kube.wait = nil, nil
			if err := c.Revert(t.Context(), "eu", "shop", res.Previous); err != nil {
				t.Fatal(err)
			}
			expectStatuses(t, c, "superseded", "failed", "deployed")
		})
	}
	t.Run("before", func(t *testing.T) {
		c := newFake(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.Apply(ctx, shop(t)); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if len(c.kube.calls) > 0 || len(statuses(t, c)) > 0 {
			t.Errorf("something was done: %q", c.kube.calls)
		}
	})
}

func TestRollbackHookFails(t *testing.T) {
	c := newFake(t)
	r := shop(t)
	dir := t.TempDir()
	hook := "apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: undo\n  annotations: {helm.sh/hook: 'pre-rollback,pre-delete'}\n"
	for name, data := range map[string]string{"Chart.yaml": "apiVersion: v2\nname: x\nversion: 1.0.0\n", "templates/j.yaml": hook} {
		p := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(data), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if r.Chart, err = chart.Load(dir); err != nil {
		t.Fatal(err)
	}
	mustApply(t, c, r)
	res := mustApply(t, c, r)
	c.kube.hook = func() error { return errNotReady }
	var fe *FailedError
	err = c.Revert(t.Context(), "eu", "shop", res.Previous)
	if !errors.As(err, &fe) || fe.Hook != "pre-rollback Job/undo" || fe.Revision != 3 {
		t.Errorf("got %v, %+v", err, fe)
	}
	expectStatuses(t, c, "superseded", "deployed", "failed")
	// The same hook must not keep the release from being uninstalled.
	if err := c.Revert(t.Context(), "eu", "shop", nil); err != nil {
		t.Error(err)
	}
	expectStatuses(t, c)
}

// While objects are still there, the release is, and Revert can be repeated.
func TestUninstallNotGone(t *testing.T) {
	c := newFake(t)
	mustApply(t, c, shop(t))
	mustApply(t, c, shop(t))
	still := errors.New("resource Deployment/shop/eu still exists")
	c.kube.gone = func() error { return still }
	for range 2 {
		var fe *FailedError
		if err := c.Revert(t.Context(), "eu", "shop", nil); !errors.As(err, &fe) || !errors.Is(err, still) || fe.Action != ActionUninstall {
			t.Errorf("got %v", err)
		}
		expectStatuses(t, c, "superseded", "uninstalling")
	}
	c.kube.gone = nil
	if err := c.Revert(t.Context(), "eu", "shop", nil); err != nil {
		t.Error(err)
	}
	expectStatuses(t, c)
}

func TestTooLarge(t *testing.T) {
	noise := make([]byte, 900_000) // 1.2 MB encoded
	if _, err := rand.Read(noise); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	err := errors.Join(os.WriteFile(filepath.Join(dir, "Chart.yaml"), []byte("apiVersion: v2\nname: x\nversion: 1.0.0\n"), 0o600),
		os.WriteFile(filepath.Join(dir, "noise"), noise, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	c := newFake(t)
	r := shop(t)
	if r.Chart, err = chart.Load(dir); err != nil {
		t.Fatal(err)
	}
	res, err := c.Apply(t.Context(), r)
	var te *TooLargeError
	if !errors.As(err, &te) || te.Size <= te.Limit || res.Revision != 0 {
		t.Errorf("got %+v, %v", res, err)
	}
	expectStatuses(t, c)
	if err := c.Revert(t.Context(), "eu", "shop", nil); err != nil {
		t.Error(err)
	}
}

func TestApplyRefuses(t *testing.T) {
	c := newFake(t)
	r := shop(t)
	r.Values = map[string]any{"replicas": "two"}
	var se *chart.SchemaError
	if _, err := c.Apply(t.Context(), r); !errors.As(err, &se) {
		t.Errorf("got %v", err)
	}
	r = shop(t)
	boom := errors.New("boom")
	r.PostRender = func([]byte) ([]byte, error) { return nil, boom }
	var fe *FailedError
	if res, err := c.Apply(t.Context(), r); !errors.Is(err, boom) || !errors.As(err, &fe) || res.Revision != 0 {
		t.Errorf("got %+v, %v", res, err)
	}
	if _, err := c.Apply(t.Context(), Release{Name: "eu"}); err == nil {
		t.Error("a release without a chart is accepted")
	}
	r.Name = "No_Name"
	if _, err := c.Apply(t.Context(), r); err == nil {
		t.Error("a bad name is accepted")
	}
	expectStatuses(t, c)
}

// forgetful loses the write that says "deployed", as a cluster that went away.
type forgetful struct {
	driver.Driver
	times int
}

func (f *forgetful) Update(key string, rls helmrelease.Releaser) error {
	if r, err := asRelease(rls); err == nil && r.Info.Status == common.StatusDeployed && f.times > 0 {
		f.times--
		return errors.New("connection refused")
	}
	// The memory driver keeps the pointer, a cluster does not.
	return f.Driver.Update(key, copyOf(rls))
}

func (f *forgetful) Create(key string, rls helmrelease.Releaser) error {
	return f.Driver.Create(key, copyOf(rls))
}

func copyOf(rls helmrelease.Releaser) helmrelease.Releaser {
	r, err := asRelease(rls)
	if err != nil {
		return rls
	}
	c, info := *r, *r.Info
	c.Info = &info
	return &c
}

func TestLostRecord(t *testing.T) {
	c := newFake(t)
	c.store = &forgetful{Driver: c.memory, times: 1}
	mustApply(t, c, shop(t))
	expectStatuses(t, c, "deployed")

	c = newFake(t)
	c.store = &forgetful{Driver: c.memory, times: 2}
	var fe *FailedError
	if _, err := c.Apply(t.Context(), shop(t)); !errors.As(err, &fe) || fe.Revision != 1 {
		t.Errorf("got %v", err)
	}
	expectStatuses(t, c, "pending-install")
}

func TestHistoryIsBounded(t *testing.T) {
	c := newFake(t)
	r := shop(t)
	for range maxHistory + 3 {
		mustApply(t, c, r)
	}
	if n := len(statuses(t, c)); n != maxHistory {
		t.Errorf("%d revisions", n)
	}
}
