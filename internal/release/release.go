package release

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"helm.sh/helm/v4/pkg/action"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	"helm.sh/helm/v4/pkg/kube"
	helmrelease "helm.sh/helm/v4/pkg/release"
	"helm.sh/helm/v4/pkg/release/common"
	releasev1 "helm.sh/helm/v4/pkg/release/v1"
	"helm.sh/helm/v4/pkg/storage/driver"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sealift/sealift/internal/chart"
)

// State is a revision of a release.
type State struct {
	Revision int    `json:"revision"`
	Status   string `json:"status"`  // Helm's: "deployed", "superseded"
	Chart    string `json:"chart"`   // name
	Version  string `json:"version"` // of the chart
}

// Release is what to install.
type Release struct {
	Name, Namespace string
	Chart           *chart.Chart
	// Values are complete: what an earlier revision was given is not reused.
	Values map[string]any
	// PostRender changes the rendered documents, hooks and tests included, in
	// one call. It is not called for the objects of crds/, which Helm never
	// deletes either. nil: no change.
	PostRender func([]byte) ([]byte, error)
	// Timeout bounds each wait; 0: that of the Cluster.
	Timeout time.Duration
	// Adopt takes over what somebody else has installed: a release of this name, and objects that belong
	// to no release, or to another one. Without it they are a *[ForeignError]. Objects that were adopted
	// are the release's from then on: what takes the release away takes them along, and what they were
	// before a first install is not kept.
	Adopt bool
	// TakeOver takes fields over that somebody else has set since. Without it they are a
	// *[FieldConflictError].
	TakeOver bool
	// Run marks the revisions that are made, see [Newest]: letters, digits and dashes, at most 48. "": it is made up.
	Run string
	// Keep are the revisions that must not be dropped, however old they are.
	Keep []int
	// After is the newest revision that there must be, of whatever status, 0 for none; another one is an *[OvertakenError], and
	// nothing is begun. nil: any.
	After *int
}

// Result is what Apply did. It is empty if nothing was begun.
type Result struct {
	Action string // ActionInstall or ActionUpgrade
	// Revision is the one that was made; 0 if that is not known.
	Revision int
	// Previous is the revision to go back to; nil if there is none.
	Previous *State
	// Kept are the objects that the revision does not have any more and that stay, because they hold data,
	// each as "KIND/NAME".
	Kept []string
}

// Current returns the revision of a release that a way back would go to: the
// newest that is deployed, and where none is (after a failed rollback), the
// newest that was. It is nil if there is no such revision: the release is not
// installed, or its first install failed. If an operation on the release is
// under way or was killed, the error is a *[PendingError].
func (c *Cluster) Current(ctx context.Context, name, namespace string) (*State, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s, err := c.open(ctx, namespace)
	if err != nil {
		return nil, err
	}
	h, err := s.history(name)
	if err != nil {
		return nil, err
	}
	if err := h.pending(name, namespace); err != nil {
		err.Holder = s.leaseHolder(ctx, name, namespace)
		return nil, err
	}
	return h.back(), nil
}

// history is the revisions of a release, oldest first.
type history []*releasev1.Release

func (s *session) history(name string) (history, error) {
	if err := chartutil.ValidateReleaseName(name); err != nil {
		return nil, fmt.Errorf("reading the history of release %q: %w", name, err)
	}
	found, err := s.cfg.Releases.History(name)
	if errors.Is(err, driver.ErrReleaseNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the history of release %q: %w", name, forbid(err))
	}
	var h history
	for _, f := range found {
		r, err := asRelease(f)
		if err != nil {
			return nil, err
		}
		h = append(h, r)
	}
	sort.Slice(h, func(i, j int) bool { return h[i].Version < h[j].Version })
	return h, nil
}

func asRelease(rel helmrelease.Releaser) (*releasev1.Release, error) {
	switch r := rel.(type) {
	case *releasev1.Release:
		if r != nil && r.Info != nil {
			return r, nil
		}
	case releasev1.Release:
		if r.Info != nil {
			return &r, nil
		}
	}
	return nil, fmt.Errorf("unexpected release record of type %T", rel)
}

// last is the newest revision, or nil.
func (h history) last() *releasev1.Release {
	if len(h) == 0 {
		return nil
	}
	return h[len(h)-1]
}

func (h history) back() *State {
	for _, status := range []common.Status{common.StatusDeployed, common.StatusSuperseded} {
		for _, r := range slices.Backward(h) {
			if !r.Info.Deleted.IsZero() {
				break // it was uninstalled, and what was before is gone
			}
			if r.Info.Status == status {
				return stateOf(r)
			}
		}
	}
	return nil
}

func (h history) pending(name, namespace string) *PendingError {
	last := h.last()
	if last == nil || (!last.Info.Status.IsPending() && last.Info.Status != common.StatusUninstalling) {
		return nil
	}
	e := &PendingError{Release: name, Namespace: namespace, Status: last.Info.Status.String(), Revision: last.Version}
	if last.Info.Status != common.StatusUninstalling {
		e.Back = h.back()
	}
	return e
}

func stateOf(r *releasev1.Release) *State {
	s := &State{Revision: r.Version, Status: r.Info.Status.String()}
	if r.Chart != nil && r.Chart.Metadata != nil {
		s.Chart, s.Version = r.Chart.Metadata.Name, r.Chart.Metadata.Version
	}
	return s
}

// postRenderer adapts a function to Helm.
type postRenderer func([]byte) ([]byte, error)

func (f postRenderer) Run(in *bytes.Buffer) (*bytes.Buffer, error) {
	out, err := f(in.Bytes())
	if err != nil {
		return nil, err
	}
	return bytes.NewBuffer(out), nil
}

// Operation is the exclusive right to change a release, from [Cluster.Begin] to
// End, and what was done with it. It must not be used by two at the same time.
type Operation struct {
	cluster *Cluster
	release Release
	run     string // see records
	lease   *lease

	begun    bool // something may have to go back
	previous *State
	made     *releasev1.Release // by Apply; nil: not known
}

// Begin takes the lease of a release, see the package documentation; before that
// it creates the namespace if that is missing. It may take a minute, to find out
// that somebody who held the lease is dead. Every Operation must be ended.
//
// Errors are those of [chart.Chart.CheckValues], a *[BusyError] and a
// *[LeaseError]; nothing but the namespace was changed then.
func (c *Cluster) Begin(ctx context.Context, r Release) (*Operation, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if r.Chart == nil {
		return nil, fmt.Errorf("installing release %q: no chart is given", r.Name)
	}
	if err := chartutil.ValidateReleaseName(r.Name); err != nil {
		return nil, fmt.Errorf("installing release %q: %w", r.Name, err)
	}
	unchecked, err := r.Chart.CheckValues(r.Values)
	if err != nil {
		return nil, err
	}
	for _, address := range unchecked {
		c.log.InfoContext(ctx, "values are not checked against a remote schema", "release", r.Name, "schema", address)
	}
	if r.Timeout <= 0 {
		r.Timeout = c.timeout
	}
	s, err := c.open(ctx, r.Namespace)
	if err != nil {
		return nil, err
	}
	if err := s.ensureNamespace(ctx, r.Namespace); err != nil {
		return nil, err
	}
	o := &Operation{cluster: c, release: r}
	if o.run, o.lease, err = c.hold(ctx, r.Name, r.Namespace); err != nil {
		return nil, err
	}
	if r.Run != "" {
		o.run = r.Run
	}
	return o, nil
}

// hold takes the lease of a release for a new run.
func (c *Cluster) hold(ctx context.Context, name, namespace string) (run string, l *lease, err error) {
	run = newRun()
	if l, err = c.newLease(ctx, name, namespace, run); err != nil {
		return "", nil, err
	}
	return run, l, l.take(ctx)
}

// newRun is a name that is never the same twice.
func newRun() string {
	id := make([]byte, 8)
	_, _ = rand.Read(id) // never fails
	return hex.EncodeToString(id)
}

// End gives the right back. It does so, too, after ctx has ended.
func (o *Operation) End(ctx context.Context) { o.lease.giveBack(ctx) }

// Apply installs the release, or upgrades it if it is installed, and waits until
// it is ready. When Apply returns, nothing of it is running any more, whatever
// became of ctx.
//
// It takes nothing back. If it fails, the Result says what was begun, for
// Revert. Errors are a *[PendingError], a *[BusyError], a *[ForeignError] and a
// *[FieldConflictError], with which nothing was begun, and a *[FailedError]. It
// can be called once.
//
// The objects of crds/ are none of its business, see [Cluster.ApplyCRDs]. Objects
// that hold data, and that the new revision does not have any more, stay. Old
// revisions are dropped when all is done, but those to be kept.
func (o *Operation) Apply(ctx context.Context) (Result, error) {
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	ctx, cancel := o.lease.bind(ctx)
	defer cancel()
	r := o.release
	s, err := o.open(ctx)
	if err != nil {
		return Result{}, err
	}
	h, err := s.history(r.Name)
	if err != nil {
		return Result{}, err
	}
	if err := h.pending(r.Name, r.Namespace); err != nil {
		return Result{}, err
	}
	s.records.watch(h)
	last := h.last()
	if r.After != nil && s.records.newest != *r.After {
		return Result{}, &OvertakenError{Release: r.Name, Namespace: r.Namespace, Revision: *r.After, Newest: s.records.newest}
	}
	if !r.Adopt && h.foreign() {
		return Result{}, &ForeignError{Release: r.Name, Namespace: r.Namespace, Object: "release", Owner: "somebody who installed it with Helm"}
	}
	s.records.check = func(next *releasev1.Release) error { return s.checkLive(ctx, r, last, next) }
	result := Result{Action: ActionUpgrade, Previous: h.back()}
	if last == nil || last.Info.Status == common.StatusUninstalled {
		result.Action, result.Previous = ActionInstall, nil
	}

	var rel helmrelease.Releaser
	if result.Action == ActionInstall {
		rel, err = s.install(ctx, r, last != nil)
	} else {
		rel, err = s.upgrade(ctx, r, last)
		// That it could not be let go is told by who meets it: an upgrade that sets the number again.
		if e := s.held.drop(context.WithoutCancel(ctx)); e != nil {
			o.cluster.log.WarnContext(ctx, "the upgrade has left an owner of replicas behind", "release", r.Name, "error", e)
		}
	}
	result.Kept = s.kube.kept
	var unknown error
	if result.Revision, unknown = s.records.made(); result.Revision == 0 && unknown == nil {
		return Result{}, s.notBegun(ctx, r, result.Action, err)
	}
	o.begun, o.previous = true, result.Previous
	if unknown == nil {
		o.made = s.records.tried
	}

	done, relErr := asRelease(rel)
	if err == nil {
		err = relErr
	}
	if err == nil {
		err = s.confirm(done)
	}
	if err != nil {
		return result, s.failed(ctx, FailedError{
			Action: result.Action, Release: r.Name, Namespace: r.Namespace,
			Revision: result.Revision, Hook: failedHook(done, result.Action), Err: withConflicts(r, err),
		})
	}
	s.prune(ctx, o.cluster, r, result.Previous)
	return result, nil
}

// prune drops the oldest revisions of a release. That it cannot is no reason to call the release failed.
func (s *session) prune(ctx context.Context, c *Cluster, r Release, previous *State) {
	h, err := s.history(r.Name)
	if err == nil {
		for _, old := range h.surplus(r.Keep, previous) {
			if _, err = s.cfg.Releases.Delete(r.Name, old); err != nil {
				break
			}
		}
	}
	if err != nil {
		c.log.WarnContext(ctx, "old revisions were not dropped", "release", r.Name, "namespace", r.Namespace, "error", err)
	}
}

// surplus are the revisions to drop, oldest first, so that besides those to be kept maxHistory stay.
func (h history) surplus(keep []int, previous *State) []int {
	var old []int
	others := 0
	for i, r := range h {
		if slices.Contains(keep, r.Version) {
			continue
		}
		others++
		needed := i == len(h)-1 || r.Info.Status == common.StatusDeployed || (previous != nil && previous.Revision == r.Version)
		if !needed {
			old = append(old, r.Version)
		}
	}
	return old[:min(len(old), max(0, others-maxHistory))]
}

// foreign says that somebody else installed the release: no record bears a mark of ours.
func (h history) foreign() bool {
	last := h.last()
	return last != nil && last.Info.Status != common.StatusUninstalled &&
		!slices.ContainsFunc(h, func(r *releasev1.Release) bool { return r.Labels[runLabel] != "" })
}

func (o *Operation) open(ctx context.Context) (*session, error) {
	s, err := o.cluster.open(ctx, o.release.Namespace)
	if err != nil {
		return nil, err
	}
	s.records.run = o.run
	return s, nil
}

// notBegun is the error of an Apply that did not come to create a record. Who
// creates the record of a revision has the right to it: the other was quicker.
func (s *session) notBegun(ctx context.Context, r Release, action string, err error) error {
	var overtaken *OvertakenError
	if errors.Is(err, driver.ErrReleaseExists) || errors.As(err, &overtaken) {
		return &BusyError{Release: r.Name, Namespace: r.Namespace}
	}
	var foreign *ForeignError
	if errors.As(err, &foreign) {
		return foreign
	}
	var conflict *FieldConflictError
	if errors.As(err, &conflict) {
		return conflict
	}
	if err == nil {
		err = errors.New("it has no record")
	}
	return s.failed(ctx, FailedError{Action: action, Release: r.Name, Namespace: r.Namespace, Err: err})
}

func (s *session) install(ctx context.Context, r Release, replace bool) (helmrelease.Releaser, error) {
	ch, err := r.Chart.HelmChart()
	if err != nil {
		return nil, err
	}
	a := action.NewInstall(s.cfg)
	a.ReleaseName = r.Name
	a.Namespace = r.Namespace
	a.Replace = replace
	a.SkipCRDs = true
	a.TakeOwnership = true // checkLive has seen to whose the objects are
	a.ForceConflicts = r.TakeOver
	a.SkipSchemaValidation = true // done by Apply, without Helm's network access
	a.WaitStrategy = kube.StatusWatcherStrategy
	a.WaitOptions = waitOptions(ctx)
	a.Timeout = r.Timeout
	a.PostRenderStrategy = action.PostRenderStrategyCombined
	if r.PostRender != nil {
		a.PostRenderer = postRenderer(r.PostRender)
	}
	// Helm's own handling of the context would leave its work running.
	return a.RunWithContext(context.WithoutCancel(ctx), ch, r.Values)
}

func (s *session) upgrade(ctx context.Context, r Release, last *releasev1.Release) (helmrelease.Releaser, error) {
	ch, err := r.Chart.HelmChart()
	if err != nil {
		return nil, err
	}
	a := action.NewUpgrade(s.cfg)
	a.Install = true
	a.Namespace = r.Namespace
	a.ResetValues = true
	a.SkipCRDs = true
	a.TakeOwnership = true // as above
	// There are conflicts with server-side apply only, and forcing them is an error otherwise.
	a.ForceConflicts = r.TakeOver && appliedByServer(last)
	a.SkipSchemaValidation = true
	a.WaitStrategy = kube.StatusWatcherStrategy
	a.WaitOptions = waitOptions(ctx)
	a.Timeout = r.Timeout
	a.PostRenderStrategy = action.PostRenderStrategyCombined
	s.held = &heldReplicas{session: s}
	a.PostRenderer = postRenderer(func(docs []byte) ([]byte, error) {
		if r.PostRender != nil {
			var err error
			if docs, err = r.PostRender(docs); err != nil {
				return nil, err
			}
		}
		return docs, s.held.hold(ctx, docs, r.Namespace)
	})
	return a.RunWithContext(context.WithoutCancel(ctx), r.Name, ch, r.Values)
}

func waitOptions(ctx context.Context) []kube.WaitOption {
	return []kube.WaitOption{kube.WithWaitContext(ctx), kube.WithStatusComputeWorkers(statusWorkers)}
}

func appliedByServer(r *releasev1.Release) bool {
	return r.ApplyMethod == string(releasev1.ApplyMethodServerSideApply)
}

// ensureNamespace creates the namespace if it is missing. Helm's own way
// applies a namespace that is there too, which labels it and needs the right to
// change it. Who may not read namespaces is taken to have been given one.
func (s *session) ensureNamespace(ctx context.Context, name string) error {
	namespaces := s.clientset.CoreV1().Namespaces()
	_, err := namespaces.Get(ctx, name, metav1.GetOptions{})
	if err == nil || apierrors.IsForbidden(err) {
		return nil
	}
	if apierrors.IsNotFound(err) {
		_, err = namespaces.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}},
			metav1.CreateOptions{FieldManager: fieldManager})
	}
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("creating namespace %q: %w", name, forbid(err))
	}
	return nil
}

// confirm makes sure that the record says "deployed": an install that could not
// write that counts as a success to Helm, and as interrupted the next time. A
// record that is gone, or another's, is not written: somebody uninstalled what
// was being installed.
func (s *session) confirm(r *releasev1.Release) error {
	overtaken := &OvertakenError{Release: r.Name, Namespace: r.Namespace, Revision: r.Version}
	found, err := s.cfg.Releases.Get(r.Name, r.Version)
	if errors.Is(err, driver.ErrReleaseNotFound) {
		return overtaken
	}
	var stored *releasev1.Release
	if err == nil {
		stored, err = asRelease(found)
	}
	switch {
	case err != nil:
		return fmt.Errorf("checking that revision %d is recorded: %w", r.Version, err)
	case !s.records.owns(stored):
		overtaken.Newest = stored.Version
		return overtaken
	case stored.Info.Status == common.StatusDeployed:
		return nil
	}
	if err := s.cfg.Releases.Update(r); err != nil {
		return fmt.Errorf("recording that revision %d is deployed: %w", r.Version, err)
	}
	return nil
}

// failed completes an error with what the client noted.
func (s *session) failed(ctx context.Context, e FailedError) error {
	if e.Hook == "" {
		e.Objects = s.kube.notReady
	}
	if err := context.Cause(ctx); err != nil && !errors.Is(e.Err, err) {
		e.Err = fmt.Errorf("%w: %w", err, e.Err)
	}
	return &e
}

// failedHook finds the hook that an action stopped at: the one that ran last
// and did not succeed.
func failedHook(r *releasev1.Release, action string) string {
	if r == nil {
		return ""
	}
	var at *releasev1.Hook
	for _, h := range r.Hooks {
		unfinished := h.LastRun.Phase != "" && h.LastRun.Phase != releasev1.HookPhaseSucceeded
		if unfinished && !h.LastRun.StartedAt.IsZero() && (at == nil || h.LastRun.StartedAt.After(at.LastRun.StartedAt)) {
			at = h
		}
	}
	if at == nil {
		return ""
	}
	name := at.Kind + "/" + at.Name
	for _, e := range at.Events {
		if strings.HasSuffix(e.String(), "-"+action) {
			return e.String() + " " + name
		}
	}
	return name
}
