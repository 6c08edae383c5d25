package release

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	helmrelease "helm.sh/helm/v4/pkg/release"
	"helm.sh/helm/v4/pkg/release/common"
	releasev1 "helm.sh/helm/v4/pkg/release/v1"
	"helm.sh/helm/v4/pkg/storage/driver"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// faulty is a store whose operations a test can replace. Like a cluster, and
// unlike the memory driver, it keeps copies.
type faulty struct {
	driver.Driver
	create func(key string, r helmrelease.Releaser) error
	get    func(key string) error
	query  func()
}

func (f *faulty) Create(key string, r helmrelease.Releaser) error {
	if f.create != nil {
		return f.create(key, r)
	}
	return f.Driver.Create(key, copyOf(r))
}

func (f *faulty) Update(key string, r helmrelease.Releaser) error {
	return f.Driver.Update(key, copyOf(r))
}

func (f *faulty) Get(key string) (helmrelease.Releaser, error) {
	if f.get != nil {
		if err := f.get(key); err != nil {
			return nil, err
		}
	}
	r, err := f.Driver.Get(key)
	return copyOf(r), err
}

func (f *faulty) Query(labels map[string]string) ([]helmrelease.Releaser, error) {
	if f.query != nil {
		f.query()
	}
	found, err := f.Driver.Query(labels)
	found = slices.Clone(found)
	for i := range found {
		found[i] = copyOf(found[i])
	}
	return found, err
}

func newFaulty(t *testing.T) (*fakeCluster, *faulty) {
	t.Helper()
	c := newFake(t)
	f := &faulty{Driver: c.memory}
	c.store = f
	return c, f
}

// expectBusy checks that an Apply lost, and that it and its Revert did nothing.
func expectBusy(t *testing.T, c *fakeCluster, o *Operation, res Result, err error) {
	t.Helper()
	var be *BusyError
	if !errors.As(err, &be) || be.Release != "eu" || be.Namespace != "shop" || !reflect.DeepEqual(res, Result{}) {
		t.Errorf("got %+v, %v", res, err)
	}
	if err := o.Revert(t.Context()); err != nil {
		t.Errorf("taking nothing back: %v", err)
	}
	if c.has("update") || c.has("delete") || c.has("create Job") {
		t.Errorf("something was done: %q", c.kube.calls)
	}
}

// Who does not get to create the record of a revision has begun nothing, and
// takes nothing back.
func TestRecordIsLost(t *testing.T) {
	for _, action := range []string{ActionInstall, ActionUpgrade} {
		t.Run(action, func(t *testing.T) {
			c, f := newFaulty(t)
			before := []string{}
			if action == ActionUpgrade {
				mustApply(t, c, shop(t))
				before = []string{"deployed"}
			}
			c.kube.calls = nil
			f.create = func(string, helmrelease.Releaser) error {
				put(t, c, len(before)+1, common.StatusPendingInstall)
				return driver.ErrReleaseExists
			}
			o := c.begin(t, shop(t))
			res, err := o.Apply(t.Context())
			expectBusy(t, c, o, res, err)
			expectStatuses(t, c, append(before, "pending-install")...)
		})
	}
}

// A revision that appears after Apply looked, and before Helm does, is not
// upgraded over: it is not what the plan was made for.
func TestHistoryChangesMeanwhile(t *testing.T) {
	for _, existing := range []int{0, 1} {
		c, f := newFaulty(t)
		before := []string{}
		if existing > 0 {
			mustApply(t, c, shop(t))
			before = []string{"deployed"}
		}
		c.kube.calls = nil
		o := c.begin(t, shop(t))
		looks := 0
		f.query = func() {
			if looks++; looks == 2 {
				put(t, c, existing+1, common.StatusDeployed)
			}
		}
		res, err := o.Apply(t.Context())
		f.query = nil
		expectBusy(t, c, o, res, err)
		expectStatuses(t, c, append(before, "deployed")...)
	}
}

// A record that was created although the answer was an error is found by its
// mark, and taken back.
func TestAnswerIsLost(t *testing.T) {
	c, f := newFaulty(t)
	timeout := errors.New("context deadline exceeded")
	f.create = func(key string, r helmrelease.Releaser) error {
		return errors.Join(timeout, f.Driver.Create(key, copyOf(r)))
	}
	o := c.begin(t, shop(t))
	res, err := o.Apply(t.Context())
	var fe *FailedError
	if !errors.As(err, &fe) || !errors.Is(err, timeout) || res.Action != ActionInstall || res.Revision != 1 {
		t.Fatalf("got %+v, %v", res, err)
	}
	expectStatuses(t, c, "pending-install")
	if err := o.Revert(t.Context()); err != nil {
		t.Error(err)
	}
	expectStatuses(t, c)

	// It cannot be found out, and turns out not to be there.
	f.create = func(string, helmrelease.Releaser) error { return timeout }
	f.get = func(string) error { return timeout }
	o.End(t.Context())
	o = c.begin(t, shop(t))
	if res, err = o.Apply(t.Context()); !errors.Is(err, timeout) || res.Action != ActionInstall || res.Revision != 0 {
		t.Errorf("got %+v, %v", res, err)
	}
	put(t, c, 1, common.StatusDeployed) // somebody else's
	if err := o.Revert(t.Context()); err != nil {
		t.Error(err)
	}
	expectStatuses(t, c, "deployed")

	// It is certain that it is not there.
	f.get = nil
	o.End(t.Context())
	adopted := shop(t)
	adopted.Adopt = true
	o = c.begin(t, adopted)
	if res, err = o.Apply(t.Context()); !errors.As(err, &fe) || !reflect.DeepEqual(res, Result{}) {
		t.Errorf("got %+v, %v", res, err)
	}
}

func TestRevertOfApply(t *testing.T) {
	c, _ := newFaulty(t)
	mustApply(t, c, shop(t))
	c.kube.wait = func() error { return errNotReady }
	o := c.begin(t, shop(t))
	if _, err := o.Apply(t.Context()); err == nil {
		t.Fatal("no error")
	}
	// The way back fails, and is repeated over the revision that it made itself.
	var fe *FailedError
	if err := o.Revert(t.Context()); !errors.As(err, &fe) || fe.Revision != 3 {
		t.Errorf("got %v", err)
	}
	c.kube.wait = nil
	for range 2 {
		if err := o.Revert(t.Context()); err != nil {
			t.Error(err)
		}
		expectStatuses(t, c, "superseded", "failed", "failed", "deployed")
	}
}

// Nothing goes back over a revision of somebody else, also if Helm copied our
// mark to it.
func TestRevertIsOvertaken(t *testing.T) {
	c, f := newFaulty(t)
	mustApply(t, c, shop(t))
	o := c.begin(t, shop(t))
	res, err := o.Apply(t.Context())
	if err != nil || res.Revision != 2 {
		t.Fatal(res, err)
	}
	other := *o.made
	other.Version = 3
	if err := f.Driver.Create("sh.helm.release.v1.eu.v3", &other); err != nil {
		t.Fatal(err)
	}
	c.kube.calls = nil
	var oe *OvertakenError
	if err := o.Revert(t.Context()); !errors.As(err, &oe) || oe.Revision != 2 || oe.Newest != 3 {
		t.Errorf("got %v", err)
	}
	if len(c.kube.calls) > 0 {
		t.Errorf("something was done: %q", c.kube.calls)
	}
	expectStatuses(t, c, "superseded", "deployed", "deployed")
}

// The other appears after Revert looked.
func TestRevertIsOvertakenMeanwhile(t *testing.T) {
	for _, what := range []string{ActionRollback, ActionUninstall} {
		for _, look := range []int{2, 3} {
			c, f := newFaulty(t)
			want := []string{"deployed", "deployed"}
			if what == ActionRollback {
				mustApply(t, c, shop(t))
				want = []string{"superseded", "deployed", "deployed"}
			}
			o := c.begin(t, shop(t))
			res, err := o.Apply(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			looks := 0
			f.query = func() {
				if looks++; looks == look {
					put(t, c, res.Revision+1, common.StatusDeployed)
				}
			}
			c.kube.calls = nil
			var oe *OvertakenError
			if err := o.Revert(t.Context()); !errors.As(err, &oe) || oe.Newest != res.Revision+1 {
				t.Errorf("%s: got %v", what, err)
			}
			f.query = nil
			if c.has("update") || c.has("delete") {
				t.Errorf("%s: something was done: %q", what, c.kube.calls)
			}
			expectStatuses(t, c, want...)
		}
	}
	// The other creates the revision that the way back was to create.
	c, f := newFaulty(t)
	mustApply(t, c, shop(t))
	o := c.begin(t, shop(t))
	if _, err := o.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.create = func(string, helmrelease.Releaser) error {
		put(t, c, 3, common.StatusPendingUpgrade)
		return driver.ErrReleaseExists
	}
	var oe *OvertakenError
	if err := o.Revert(t.Context()); !errors.As(err, &oe) || oe.Revision != 2 || oe.Newest != 3 {
		t.Errorf("got %v", err)
	}
	expectStatuses(t, c, "superseded", "deployed", "pending-upgrade")
}

// Somebody uninstalls what is being installed. It does not count as installed,
// and what was made after that does not stay.
func TestRecordIsDeleted(t *testing.T) {
	c, f := newFaulty(t)
	waits := 0
	c.kube.wait = func() error {
		if waits++; waits == 1 {
			_, err := f.Delete("sh.helm.release.v1.eu.v1")
			return err
		}
		return nil
	}
	o := c.begin(t, shop(t))
	_, err := o.Apply(t.Context())
	var oe *OvertakenError
	if !errors.As(err, &oe) || oe.Revision != 1 || oe.Newest != 0 {
		t.Fatalf("got %v", err)
	}
	expectStatuses(t, c)
	uninstalled := false
	c.kube.gone = func() error { uninstalled = true; return nil }
	if err := o.Revert(t.Context()); err != nil || !uninstalled {
		t.Errorf("got %v, uninstalled: %v", err, uninstalled)
	}
	expectStatuses(t, c)

	// And somebody installs it anew: that one stays.
	waits = 0
	o.End(t.Context())
	o = c.begin(t, shop(t))
	if _, err := o.Apply(t.Context()); !errors.As(err, &oe) {
		t.Fatalf("got %v", err)
	}
	put(t, c, 1, common.StatusDeployed)
	if err := o.Revert(t.Context()); !errors.As(err, &oe) || oe.Revision != 1 || oe.Newest != 1 {
		t.Errorf("got %v", err)
	}
	expectStatuses(t, c, "deployed")
}

// The record of an install is another's by the time that it is confirmed.
func TestRecordIsReplaced(t *testing.T) {
	c, f := newFaulty(t)
	waits := 0
	c.kube.wait = func() error {
		if waits++; waits == 1 {
			_, err := f.Delete("sh.helm.release.v1.eu.v1")
			put(t, c, 1, common.StatusPendingInstall)
			// Helm writes its record over the other's, as it would in a cluster.
			return err
		}
		return nil
	}
	f.get = func(string) error {
		r, err := f.Driver.Get("sh.helm.release.v1.eu.v1")
		if stored, asErr := asRelease(r); err == nil && asErr == nil {
			stored.Labels = nil
		}
		return nil
	}
	o := c.begin(t, shop(t))
	var oe *OvertakenError
	if _, err := o.Apply(t.Context()); !errors.As(err, &oe) || oe.Revision != 1 || oe.Newest != 1 {
		t.Errorf("got %v", err)
	}
	if err := o.Revert(t.Context()); !errors.As(err, &oe) {
		t.Errorf("got %v", err)
	}
}

// Two whole installs at once: one wins, the other does nothing.
func TestTwoAtOnce(t *testing.T) {
	c, _ := newFaulty(t)
	for round, want := range [][]string{{"deployed"}, {"superseded", "deployed"}} {
		c.kube.wait = func() error { time.Sleep(200 * time.Millisecond); return nil }
		errs := make([]error, 2)
		var wg sync.WaitGroup
		for i := range errs {
			r := shop(t)
			wg.Go(func() { _, errs[i] = c.Apply(t.Context(), r) })
		}
		wg.Wait()
		var be *BusyError
		lost := errors.Join(errs...)
		if (errs[0] == nil) == (errs[1] == nil) || !errors.As(lost, &be) {
			t.Errorf("round %d: got %v", round, errs)
		}
		expectStatuses(t, c, want...)
		if h := c.leases.holder(); h != "" {
			t.Errorf("the lease was not given back: %s", h)
		}
	}
}

// The same where the leases do not help: the records alone decide, and what the
// loser takes back is nothing.
func TestTwoAtOnceWithoutLease(t *testing.T) {
	for range 20 {
		c, _ := newFaulty(t)
		c.lease.renewal = time.Hour
		for round, want := range [][]string{{"deployed"}, {"superseded", "deployed"}} {
			errs, ops := make([]error, 2), make([]*Operation, 2)
			for i := range ops {
				c.leases.put(nil)
				ops[i] = c.begin(t, shop(t))
			}
			var wg sync.WaitGroup
			for i, o := range ops {
				wg.Go(func() {
					if _, errs[i] = o.Apply(t.Context()); errs[i] != nil {
						errs[i] = errors.Join(errs[i], o.Revert(t.Context()))
					}
				})
			}
			wg.Wait()
			var be *BusyError
			var pe *PendingError
			lost := errors.Join(errs...)
			if (errs[0] == nil) == (errs[1] == nil) || (!errors.As(lost, &be) && !errors.As(lost, &pe)) {
				// One after the other is no conflict.
				if lost == nil && len(statuses(t, c)) == len(want)+1 {
					break
				}
				t.Fatalf("round %d: got %v", round, errs)
			}
			expectStatuses(t, c, want...)
		}
	}
}

// held is a lease of somebody else, renewed at second n.
func held(n int) *coordinationv1.Lease {
	holder, seconds := "other/1/x", int32(1)
	renewed := metav1.NewMicroTime(time.Unix(int64(n), 0))
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: "sealift-eu", Namespace: "shop", UID: "other"},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &holder, RenewTime: &renewed, LeaseDurationSeconds: &seconds},
	}
}

func TestLeaseIsHeld(t *testing.T) {
	signs := map[string]func(*fakeLeases){
		"renewed":    func(l *fakeLeases) { l.put(held(2)) },
		"given back": func(l *fakeLeases) { l.put(nil) },
	}
	for name, sign := range signs {
		t.Run(name, func(t *testing.T) {
			c := newFake(t)
			c.leases.put(held(1))
			timer := time.AfterFunc(50*time.Millisecond, func() { sign(c.leases) })
			defer timer.Stop()
			_, err := c.Begin(t.Context(), shop(t))
			var be *BusyError
			if !errors.As(err, &be) || be.Holder != "other/1/x" || !strings.Contains(err.Error(), "another install") {
				t.Errorf("got %v", err)
			}
			expectStatuses(t, c)
		})
	}
	t.Run("interrupted", func(t *testing.T) {
		c := newFake(t)
		c.leases.put(held(1))
		ctx, cancel := context.WithCancel(t.Context())
		timer := time.AfterFunc(50*time.Millisecond, cancel)
		defer timer.Stop()
		if _, err := c.Begin(ctx, shop(t)); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if h := c.leases.holder(); h != "other/1/x" {
			t.Errorf("%s holds it", h)
		}
	})
	t.Run("pending", func(t *testing.T) {
		c := newFake(t)
		put(t, c, 1, common.StatusPendingInstall)
		c.leases.put(held(1))
		var pe *PendingError
		_, err := c.Current(t.Context(), "eu", "shop")
		if !errors.As(err, &pe) || pe.Holder != "other/1/x" || !strings.Contains(err.Error(), "another install") {
			t.Errorf("got %v", err)
		}
	})
}

// The clocks do not matter: neither that of the holder, whatever it says, nor
// how old the lease seems to be.
func TestHolderIsDead(t *testing.T) {
	for _, at := range []int{1, 1 << 32} {
		c := newFake(t)
		c.lease.duration = 300 * time.Millisecond
		c.leases.put(held(at))
		start := time.Now()
		o := c.begin(t, shop(t))
		if d := time.Since(start); d < time.Second { // what the holder said
			t.Errorf("taken after %v", d)
		}
		if _, err := o.Apply(t.Context()); err != nil {
			t.Error(err)
		}
		o.End(t.Context())
		if h := c.leases.holder(); h != "" {
			t.Errorf("%s holds it", h)
		}
	}
}

func TestLeaseIsForbidden(t *testing.T) {
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		c := newFake(t)
		c.leases.setRefuse(func(m string) (int, metav1.StatusReason) {
			if m == method {
				return http.StatusForbidden, metav1.StatusReasonForbidden
			}
			return 0, ""
		})
		_, err := c.Begin(t.Context(), shop(t))
		var le *LeaseError
		if !errors.As(err, &le) || !le.Forbidden || le.Lost || le.Lease != "sealift-eu" || le.Namespace != "shop" {
			t.Errorf("got %v", err)
		}
		expectStatuses(t, c)
	}
}

// A lease that is lost stops the work, and is taken again before the way back.
func TestLeaseIsLost(t *testing.T) {
	unavailable := func(string) (int, metav1.StatusReason) {
		return http.StatusInternalServerError, metav1.StatusReasonInternalError
	}
	tests := []struct {
		name       string
		lose, mend func(*fakeLeases)
		busy       bool // at the way back
	}{
		{"taken", func(l *fakeLeases) { l.put(held(1)) }, func(l *fakeLeases) {
			time.AfterFunc(50*time.Millisecond, func() { l.put(held(2)) })
		}, true},
		{"deleted", func(l *fakeLeases) { l.put(nil) }, func(*fakeLeases) {}, false},
		{"not renewed", func(l *fakeLeases) { l.setRefuse(unavailable) }, func(l *fakeLeases) { l.setRefuse(nil) }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, _ := newFaulty(t)
			mustApply(t, c, shop(t))
			c.lease.grace = 500 * time.Millisecond
			o := c.begin(t, shop(t))
			ended := make(chan struct{})
			c.kube.wait = func() error {
				tt.lose(c.leases)
				<-ended // the real waits end with the context
				return context.Canceled
			}
			lost := o.lease.keeper.lost
			go func() { <-lost; time.Sleep(20 * time.Millisecond); close(ended) }()
			res, err := o.Apply(t.Context())
			var le *LeaseError
			if !errors.As(err, &le) || !le.Lost || res.Revision != 2 {
				t.Fatalf("got %+v, %v", res, err)
			}
			expectStatuses(t, c, "deployed", "failed")
			c.kube.wait = nil
			tt.mend(c.leases)
			err = o.Revert(t.Context())
			if tt.busy {
				var be *BusyError
				if !errors.As(err, &be) {
					t.Errorf("got %v", err)
				}
				expectStatuses(t, c, "deployed", "failed")
				return
			}
			if err != nil {
				t.Error(err)
			}
			expectStatuses(t, c, "superseded", "failed", "deployed")
		})
	}
}

// Whoever watches a lease waits longer than its holder goes on without it.
func TestLeaseTimes(t *testing.T) {
	for _, d := range []time.Duration{0, time.Second, MinLease, 7 * time.Second, time.Minute, time.Hour} {
		l := leaseTimesOf(d)
		if l.grace+l.attempt >= l.duration || l.renewal+l.attempt >= l.grace || l.poll <= 0 || l.duration < MinLease || l.duration < d {
			t.Errorf("%v: got %+v", d, l)
		}
	}
	if l := leaseTimesOf(0); l.duration != DefaultLease || l.grace != 45*time.Second || l.renewal != 10*time.Second || l.attempt != 5*time.Second {
		t.Errorf("got %+v", l)
	}
}

// A renewal whose answer was lost is not somebody else's.
func TestRenewalWithoutAnswer(t *testing.T) {
	c := newFake(t)
	o := c.begin(t, shop(t))
	o.lease.keeper.stop()
	<-o.lease.keeper.ended
	c.leases.mu.Lock()
	l := c.leases.lease.DeepCopy()
	c.leases.mu.Unlock()
	c.leases.put(l)
	if gone, err := o.lease.renew(t.Context()); gone || err != nil {
		t.Errorf("gone: %v, %v", gone, err)
	}
}

// The lease is renewed and given back although the context ended.
func TestLeaseAfterCancellation(t *testing.T) {
	c := newFake(t)
	ctx, cancel := context.WithCancel(t.Context())
	o, err := c.Begin(ctx, shop(t))
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	c.leases.mu.Lock()
	before := c.leases.version
	c.leases.mu.Unlock()
	deadline := time.Now().Add(10 * time.Second)
	for renewed := false; !renewed; time.Sleep(10 * time.Millisecond) {
		c.leases.mu.Lock()
		renewed = c.leases.version > before
		c.leases.mu.Unlock()
		if time.Now().After(deadline) {
			t.Fatal("it is not renewed")
		}
	}
	o.End(ctx)
	if h := c.leases.holder(); h != "" {
		t.Errorf("%s holds it", h)
	}
}

// Marks are not mistaken: those of another run, and one that Helm copied.
func TestOwns(t *testing.T) {
	d := &records{run: "a"}
	for mark, want := range map[string]bool{"a.2": true, "a.1": false, "b.2": false, "": false} {
		if got := d.owns(&releasev1.Release{Version: 2, Labels: map[string]string{runLabel: mark}}); got != want {
			t.Errorf("%q: got %v", mark, got)
		}
	}
	if (&records{}).owns(&releasev1.Release{Version: 2, Labels: map[string]string{runLabel: ".2"}}) {
		t.Error("who writes nothing owns nothing")
	}
}
