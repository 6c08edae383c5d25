package release

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/kube"
	"helm.sh/helm/v4/pkg/release/common"
	releasev1 "helm.sh/helm/v4/pkg/release/v1"
	"helm.sh/helm/v4/pkg/storage/driver"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Revert takes back what Apply did: to the revision that was deployed before, or
// by uninstalling. It changes nothing that this Operation did not make: if the
// newest revision is another's, it refuses with an *[OvertakenError]. If the
// record of a first install was deleted meanwhile, it is put back, so that what
// it lists can be uninstalled. Otherwise Revert is like [Cluster.Revert]; it may
// be repeated until it succeeds.
//
// If the lease was lost, it is taken again first, with the errors of
// [Cluster.Begin].
func (o *Operation) Revert(ctx context.Context) error {
	if err := ctx.Err(); err != nil || !o.begun {
		return err
	}
	if err := o.lease.retake(ctx); err != nil {
		return err
	}
	ctx, cancel := o.lease.bind(ctx)
	defer cancel()
	s, err := o.open(ctx)
	if err != nil {
		return err
	}
	h, err := s.history(o.release.Name)
	if err != nil {
		return err
	}
	if h.last() == nil && o.made != nil && o.previous == nil {
		if h, err = s.restore(o.made); err != nil {
			return err
		}
	}
	if last := h.last(); last != nil && !s.records.owns(last) {
		return o.overtaken(s, h)
	}
	if err := s.revert(ctx, o.cluster, o.release.Name, o.release.Namespace, h, o.previous, h.removedBefore()); err != nil {
		return err
	}
	s.prune(ctx, o.cluster, o.release, o.previous)
	o.begun = false
	return nil
}

// overtaken says why a history whose newest revision is not this operation's is
// not changed. There is no reason if it turns out that the operation made none.
func (o *Operation) overtaken(s *session, h history) error {
	e := &OvertakenError{Release: o.release.Name, Namespace: o.release.Namespace, Newest: h.last().Version}
	for _, r := range h {
		if s.records.owns(r) {
			e.Revision = r.Version
		}
	}
	if e.Revision == 0 && o.made != nil {
		e.Revision = o.made.Version
	}
	if e.Revision == 0 {
		return nil
	}
	return e
}

// restore puts a record back that was deleted.
func (s *session) restore(made *releasev1.Release) (history, error) {
	r, info := *made, *made.Info
	r.Info = &info
	r.SetStatus(common.StatusFailed, "the record was deleted while the release was being installed")
	err := s.cfg.Releases.Create(&r)
	if errors.Is(err, driver.ErrReleaseExists) {
		err = &OvertakenError{Release: r.Name, Namespace: r.Namespace, Revision: r.Version, Newest: r.Version}
	}
	return history{&r}, err
}

// Revert takes a release back to a revision that it had, or, if to is nil,
// uninstalls it and drops its history once its objects are gone. It is for
// releases that were left behind; what an [Operation] did is taken back by that.
// It may be repeated until it succeeds, and does nothing where nothing is left to
// do. Hooks of the newest revision that are still running are stopped first, so
// that they do not go on changing what is being put back.
//
// A way back to a revision forces conflicts of server-side apply. An uninstall
// runs the hooks for deletion; if it fails with them, it is tried without, since
// a hook that cannot run must not keep a failed install in the cluster. Objects
// with the annotation that [chart.KeepData] sets stay, and so do the objects of
// crds/ and the namespace. The next Apply finds and takes over what stayed.
//
// A release that was uninstalled with [Cluster.Remove] comes back that way, too.
//
// It takes the lease of the release, with the errors of [Cluster.Begin]. Others
// are a *[NoRevisionError], and a *[FailedError], which wraps an
// *[OvertakenError] where somebody else changed the release at the same time.
func (c *Cluster) Revert(ctx context.Context, name, namespace string, to *State) error {
	return c.change(ctx, name, namespace, to, func(ctx context.Context, s *session, h history) error {
		return s.revert(ctx, c, name, namespace, h, to, false)
	})
}

// Recover takes back what an install has left behind that was killed: to the revision that was recorded before it
// began, or, if to is nil, to nothing, by uninstalling. Whatever the install had come to, and whatever was tried since: where
// it had begun nothing, nothing is done. It is like [Cluster.Revert] otherwise, and may be repeated.
//
// Hooks of the interrupted revision are ended first. Whether one is running is seen by the Jobs and Pods that are there,
// not by what was recorded last. Objects that are being deleted are waited for.
//
// Where the release had been removed before with [Cluster.Remove], its history stays. A revision that is deployed and
// that another program has made is an *[OvertakenError], and nothing is changed.
func (c *Cluster) Recover(ctx context.Context, name, namespace string, to *State) error {
	return c.change(ctx, name, namespace, to, func(ctx context.Context, s *session, h history) error {
		if last := h.last(); last != nil && last.Info.Status == common.StatusDeployed && !marked(last) {
			known := 0
			if to != nil {
				known = to.Revision
			}
			if last.Version != known && (to == nil || last.Info.RollbackRevision != known) {
				return &OvertakenError{Release: name, Namespace: namespace, Revision: known, Newest: last.Version}
			}
		}
		return s.revert(ctx, c, name, namespace, h, to, h.removedBefore())
	})
}

// change calls f with the history of a release, which is to be brought to a revision, or removed for nil, holding its lease. Where
// there is no history, nothing is done, or there is a *[NoRevisionError].
func (c *Cluster) change(
	ctx context.Context, name, namespace string, to *State, f func(context.Context, *session, history) error,
) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s, err := c.open(ctx, namespace)
	if err != nil {
		return err
	}
	h, err := s.history(name)
	if err != nil || (len(h) == 0 && to == nil) {
		return err
	}
	if len(h) == 0 {
		// Before a lease is taken: its namespace may be gone, too.
		return &NoRevisionError{Release: name, Namespace: namespace, Revision: to.Revision}
	}
	run, l, err := c.hold(ctx, name, namespace)
	if err != nil {
		return err
	}
	defer l.giveBack(ctx)
	ctx, cancel := l.bind(ctx)
	defer cancel()
	if s, err = c.open(ctx, namespace); err != nil {
		return err
	}
	s.records.run = run
	if h, err = s.history(name); err != nil {
		return err
	}
	return f(ctx, s, h)
}

// removedBefore says that the release had been uninstalled, and its history kept, before the newest revision was made.
func (h history) removedBefore() bool {
	return slices.ContainsFunc(h, func(r *releasev1.Release) bool { return r != h.last() && !r.Info.Deleted.IsZero() })
}

// revert changes the release with this history, whose lease is held. Uninstalling drops the history, unless it is to be kept.
func (s *session) revert(ctx context.Context, c *Cluster, name, namespace string, h history, to *State, keepHistory bool) error {
	s.records.watch(h)
	last := h.last()
	e := FailedError{Action: ActionUninstall, Release: name, Namespace: namespace}
	if to == nil {
		if last == nil {
			return nil
		}
		e.Revision = last.Version
		if e.Err = s.stopHooks(ctx, c, last); e.Err == nil {
			e.Err = s.uninstall(ctx, c, name)
		}
		if e.Err == nil && !keepHistory {
			e.Err = s.dropHistory(name)
		}
	} else {
		i := slices.IndexFunc(h, func(r *releasev1.Release) bool { return r.Version == to.Revision })
		if i < 0 {
			return &NoRevisionError{Release: name, Namespace: namespace, Revision: to.Revision}
		}
		if last.Info.Status == common.StatusDeployed && (last.Version == to.Revision || last.Info.RollbackRevision == to.Revision) {
			return nil
		}
		e.Action = ActionRollback
		if e.Err = s.stopHooks(ctx, c, last); e.Err == nil {
			e.Err = s.settle(ctx, c, last)
		}
		if e.Err == nil {
			e.Err = s.rollback(ctx, c, h[i])
		}
		if errors.Is(e.Err, driver.ErrReleaseExists) {
			e.Err = &OvertakenError{Release: name, Namespace: namespace, Revision: last.Version, Newest: last.Version + 1}
		}
		if e.Err != nil {
			e.Revision, e.Hook = s.closeRollback(name, last)
		}
	}
	if e.Err != nil {
		return s.failed(ctx, e)
	}
	return nil
}

func (s *session) rollback(ctx context.Context, c *Cluster, to *releasev1.Release) error {
	a := action.NewRollback(s.cfg)
	a.Version = to.Version
	// Conflicts exist with server-side apply only, and forcing them is an
	// error with the other kind, which releases of Helm 3 have.
	a.ForceConflicts = appliedByServer(to)
	a.WaitStrategy = kube.StatusWatcherStrategy
	a.WaitOptions = waitOptions(ctx)
	a.Timeout = c.timeout
	held, err := s.keepScaled(ctx, c, to)
	if err != nil {
		return err
	}
	err = a.Run(to.Name)
	if e := held.drop(context.WithoutCancel(ctx)); e != nil {
		c.log.WarnContext(ctx, "the way back has left an owner of replicas behind", "release", to.Name, "error", e)
	}
	return err
}

// closeRollback finds out what a failed rollback left behind, if it made a
// revision at all. Helm leaves it pending when a hook failed, as if it were
// still going on.
func (s *session) closeRollback(name string, before *releasev1.Release) (revision int, hook string) {
	h, err := s.history(name)
	if err != nil || h.last() == nil || h.last().Version == before.Version || !s.records.owns(h.last()) {
		return 0, ""
	}
	last := h.last()
	if last.Info.Status == common.StatusPendingRollback {
		// Only here do the hooks tell: they are those of the revision that it
		// went to, with the times of their old runs.
		hook = failedHook(last, ActionRollback)
		last.SetStatus(common.StatusFailed, "the rollback failed")
		if err := s.cfg.Releases.Update(last); err != nil {
			return last.Version, hook // still pending: PendingError will say so
		}
	}
	return last.Version, hook
}

// settle waits until the objects are gone of which an uninstall that was begun has ordered the deletion: who applies them
// while they go loses them.
func (s *session) settle(ctx context.Context, c *Cluster, r *releasev1.Release) error {
	if r.Info.Deleted.IsZero() {
		return nil
	}
	resources, err := s.cfg.KubeClient.Build(strings.NewReader(r.Manifest), false)
	if err != nil {
		return err
	}
	var going kube.ResourceList
	for _, info := range resources {
		live, err := lookAt(ctx, info)
		if err != nil {
			return err
		}
		if live != nil && live.GetDeletionTimestamp() != nil {
			going.Append(info)
		}
	}
	return s.kube.gone(going, c.timeout)
}

// uninstall deletes a release, but not its history: Helm by itself drops that
// although objects are still there, and then nothing could wait for them any more.
func (s *session) uninstall(ctx context.Context, c *Cluster, name string) error {
	a := action.NewUninstall(s.cfg)
	a.KeepHistory = true
	// The pods go before what owns them, so that waiting for the objects is
	// waiting for the pods.
	a.DeletionPropagation = "foreground"
	a.WaitStrategy = kube.StatusWatcherStrategy
	a.WaitOptions = waitOptions(ctx)
	a.Timeout = c.timeout
	err := s.runUninstall(a, name)
	if err != nil && ctx.Err() == nil && s.deleteHookFailed(name) {
		c.log.WarnContext(ctx, "uninstalling failed and is tried again without hooks", "release", name, "error", err)
		a.DisableHooks = true
		err = s.runUninstall(a, name)
	}
	return err
}

func (s *session) dropHistory(name string) error {
	h, err := s.history(name)
	for _, r := range h { // the newest last: until then it can be repeated
		if err == nil {
			_, err = s.cfg.Releases.Delete(name, r.Version)
		}
	}
	return err
}

func (s *session) runUninstall(a *action.Uninstall, name string) error {
	h, err := s.history(name)
	if err != nil {
		return err
	}
	if h.last() != nil && h.last().Info.Status == common.StatusUninstalled {
		return nil // only its history is left
	}
	s.kube.deleteErrs = nil
	if _, err = a.Run(name); err == nil {
		return nil
	}
	err = errors.Join(err, errors.Join(s.kube.deleteErrs...))
	// Helm says "uninstalled" even if objects are still there.
	if h, historyErr := s.history(name); historyErr == nil && h.last() != nil && h.last().Info.Status == common.StatusUninstalled {
		last := h.last()
		last.SetStatus(common.StatusUninstalling, "objects are still being deleted")
		err = errors.Join(err, s.cfg.Releases.Update(last))
	}
	return err
}

// deleteHookFailed says that an uninstall stopped at one of its hooks.
func (s *session) deleteHookFailed(name string) bool {
	h, err := s.history(name)
	if err != nil || h.last() == nil {
		return false
	}
	return slices.ContainsFunc(h.last().Hooks, func(hook *releasev1.Hook) bool {
		deletes := slices.Contains(hook.Events, releasev1.HookPreDelete) || slices.Contains(hook.Events, releasev1.HookPostDelete)
		return deletes && !hook.LastRun.StartedAt.IsZero() && hook.LastRun.Phase != releasev1.HookPhaseSucceeded
	})
}

// stopHooks deletes the Jobs and Pods of hooks that are still running. Helm
// leaves them: a hook that timed out, or was waiting for its image, would run
// on, or start, next to the revision that was put back. Those that ended are
// left, because their logs say why.
//
// What the record says of a hook may be older than what became of it: that it
// runs is seen by objects that were made after the record.
func (s *session) stopHooks(ctx context.Context, c *Cluster, r *releasev1.Release) error {
	if r.Info.Status == common.StatusDeployed || r.Info.Status == common.StatusUninstalled {
		return nil
	}
	began := s.began(ctx, r)
	for _, h := range r.Hooks {
		if h.Kind != "Job" && h.Kind != "Pod" {
			continue
		}
		since := began
		if !h.LastRun.StartedAt.IsZero() && h.LastRun.Phase != releasev1.HookPhaseSucceeded {
			since = time.Time{} // whenever it was made
		}
		if err := s.stopHook(ctx, c, h, since); err != nil {
			return fmt.Errorf("stopping hook %s/%s: %w", h.Kind, h.Name, err)
		}
	}
	return nil
}

// stopHook deletes the objects of a hook that were made since a time and are still running.
func (s *session) stopHook(ctx context.Context, c *Cluster, h *releasev1.Hook, since time.Time) error {
	resources, err := s.cfg.KubeClient.Build(bytes.NewBufferString(h.Manifest), false)
	if err != nil {
		return err
	}
	live, err := s.cfg.KubeClient.Get(resources, false)
	if err != nil {
		return err
	}
	running := false
	for _, objects := range live {
		for _, o := range objects {
			if u, err := asUnstructured(o); err == nil && !ended(u) && !u.GetCreationTimestamp().Time.Before(since) {
				running = true
			}
		}
	}
	if !running {
		return nil
	}
	c.log.InfoContext(ctx, "stopping a hook that is still running", "kind", h.Kind, "name", h.Name)
	if _, errs := s.cfg.KubeClient.Delete(resources, metav1.DeletePropagationForeground); len(errs) > 0 {
		return errors.Join(errs...)
	}
	w, err := s.kube.GetWaiterWithOptions(kube.StatusWatcherStrategy, waitOptions(ctx)...)
	if err != nil {
		return err
	}
	return w.WaitForDelete(resources, c.timeout)
}

// ended says that a Job or a Pod will do no more.
func ended(u *unstructured.Unstructured) bool {
	if u.GetKind() == "Pod" {
		phase, _, _ := unstructured.NestedString(u.Object, "status", "phase")
		return phase == "Succeeded" || phase == "Failed"
	}
	conditions, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
	return slices.ContainsFunc(conditions, func(c any) bool {
		m, _ := c.(map[string]any)
		return (m["type"] == "Complete" || m["type"] == "Failed") && m["status"] == "True"
	})
}
