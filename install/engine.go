package install

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sealift/sealift/internal/ledger"
	"github.com/sealift/sealift/internal/progress"
	"github.com/sealift/sealift/internal/release"
)

const (
	// defaultParallel is how many releases are changed at the same time.
	defaultParallel = 4
	// noteTime bounds a write of the state, with all its repetitions.
	noteTime = time.Minute
	// diagnoseTime bounds the look at what is wrong with a release.
	diagnoseTime = 15 * time.Second
)

// clusterDoor is what the engine asks of a cluster; *release.Cluster but for Install. Tests put fakes here that fail, or die, at
// any point.
type clusterDoor interface {
	Current(ctx context.Context, name, namespace string) (*release.State, error)
	Newest(ctx context.Context, name, namespace string) (*release.Newest, error)
	// Install is a whole release.Operation: the Result says whether something was begun.
	Install(ctx context.Context, r release.Release) (release.Result, error)
	Settle(ctx context.Context, name, namespace string) error
	Recover(ctx context.Context, name, namespace string, to *release.State) error
	// Revert is Recover also over what another program has made since.
	Revert(ctx context.Context, name, namespace string, to *release.State) error
	CheckOwners(ctx context.Context, name, namespace string, docs []byte) error
	Remove(ctx context.Context, name, namespace string) (kept []string, err error)
	Keeps(ctx context.Context, name, namespace string) ([]string, error)
	Recorded(ctx context.Context, name, namespace string, revision int) (*release.Recorded, error)
	ProtectData(ctx context.Context, name, namespace string) (kept []string, err error)
	ApplyCRDs(ctx context.Context, namespace, secret string, docs []byte) (changed []string, err error)
	RestoreCRDs(ctx context.Context, namespace, secret string) error
	DropWas(ctx context.Context, namespace, secret string) error
	RunJobs(ctx context.Context, namespace string, docs []byte, run string, timeout time.Duration) error
	RunTests(ctx context.Context, name, namespace string, timeout time.Duration) error
	CheckHTTP(ctx context.Context, namespace string, check release.HTTPCheck, timeout time.Duration) error
	CheckTCP(ctx context.Context, namespace, service string, port int, timeout time.Duration) error
	Diagnose(ctx context.Context, namespace, name string) ([]string, error)
	UID(ctx context.Context) (string, error)
}

// holding is *release.Hold.
type holding interface {
	Bind(ctx context.Context) (context.Context, context.CancelFunc)
	Retake(ctx context.Context) error
	End(ctx context.Context)
}

// ledgerDoor is *release.Ledger.
type ledgerDoor interface {
	Namespace() string
	Bundles(ctx context.Context) ([]string, error)
	Read(ctx context.Context, bundle string) (*ledger.State, string, error)
	Write(ctx context.Context, s *ledger.State, version string) (string, error)
	ReadValues(ctx context.Context, bundle, id string) ([]byte, error)
	WriteValues(ctx context.Context, bundle, id string, content []byte) error
	DropValues(ctx context.Context, bundle string, keep []string) error
	Hold(ctx context.Context, bundle string, duration time.Duration) (holding, error)
	Watch(ctx context.Context, bundle string) (holder string, alive bool, err error)
}

type realCluster struct{ *release.Cluster }

func (c realCluster) Install(ctx context.Context, r release.Release) (release.Result, error) {
	op, err := c.Begin(ctx, r)
	if err != nil {
		return release.Result{}, err
	}
	defer op.End(ctx)
	return op.Apply(ctx)
}

type realLedger struct{ *release.Ledger }

func (l realLedger) Hold(ctx context.Context, bundle string, duration time.Duration) (holding, error) {
	return l.Ledger.Hold(ctx, bundle, duration)
}

// engine carries out one transaction. All that is written to the state goes through change, one after the other.
type engine struct {
	// published is state, for those who do not hold mu.
	published atomic.Pointer[ledger.State]

	bundle  string
	cluster clusterDoor
	ledger  ledgerDoor
	o       TransactOptions
	// releases are those of the bundle, by their keys; empty where a transaction needs none.
	releases map[string]*Release
	// parts renders a release; tests have none to render.
	parts func(ctx context.Context, r *Release) (rendered, error)
	// front takes a StepFront, or takes it back; it may set what the front has become in the step.
	front func(ctx context.Context, s *ledger.Step, back bool) error
	hold  holding
	// given is what could not be taken back and was given up, for people.
	given []string

	mu sync.Mutex // guards what follows
	// state is what is in the cluster, at version, as far as this process knows; tried what it was about to write.
	state, tried *ledger.State
	version      string
	// broken is why nothing is written any more.
	broken error
	task   progress.Task
}

func newEngine(bundle string, releases []*Release, o TransactOptions) *engine {
	if o.Progress == nil {
		o.Progress = progress.Discard
	}
	if o.Timeout <= 0 {
		o.Timeout = release.DefaultTimeout
	}
	if o.Parallel <= 0 {
		o.Parallel = defaultParallel
	}
	e := &engine{
		bundle: bundle, cluster: realCluster{o.Cluster}, ledger: realLedger{o.Ledger}, o: o,
		releases: map[string]*Release{}, task: progress.Discard.Start("", 0, progress.Items),
	}
	for _, r := range releases {
		e.releases[r.Namespace+"/"+r.Name] = r
	}
	e.parts = func(ctx context.Context, r *Release) (rendered, error) { return partsOf(ctx, o.Cluster, r) }
	e.front = func(ctx context.Context, s *ledger.Step, back bool) error {
		if back {
			return frontBackStep(ctx, o.Cluster, s)
		}
		return switchFront(ctx, o.Cluster, s)
	}
	return e
}

// partsOf renders a release as it would reach the cluster.
func partsOf(ctx context.Context, c *release.Cluster, r *Release) (rendered, error) {
	version, err := c.Version(ctx)
	if err != nil {
		return rendered{}, err
	}
	apis, err := c.APIVersions(ctx)
	if err != nil {
		return rendered{}, err
	}
	now, err := c.Newest(ctx, r.As, r.Namespace)
	if err != nil {
		return rendered{}, err
	}
	parts, err := r.render(ctx, version, apis, now != nil)
	if err != nil && now != nil {
		// As in a plan: charts that look at what is installed may refuse to be rendered without it.
		parts, err = r.render(ctx, version, apis, false)
	}
	return parts, err
}

// newID is the ID of a transaction: when it began, for people, and never the same twice.
func newID(now time.Time) string {
	b := make([]byte, 6)
	_, _ = rand.Read(b) // never fails
	return now.UTC().Format("20060102-150405-") + hex.EncodeToString(b)
}

// NoReturnError says that there is no way back over what a transaction would do, or has done.
type NoReturnError struct {
	// Reasons, each with its release: "NAMESPACE/RELEASE: why".
	Reasons []string
	// Passed says that it has happened; else it would.
	Passed bool
}

// Error lists the reasons.
func (e *NoReturnError) Error() string {
	text := "there is no way back after this"
	if e.Passed {
		text = "there is no way back any more"
	}
	for _, r := range e.Reasons {
		text += "\n  " + r
	}
	return text
}

// InterruptedError says that a transaction of the bundle has not ended, and that nobody is at work on it.
type InterruptedError struct {
	Bundle string
	// Version is the one that was to be there, Action what was to be done.
	Version, Action string
	// Condition is that of the state, Phase that of the transaction, At the step where it stands, for people.
	Condition, Phase, At string
	// Holder is who held the lease last, or ""; Failure why it went back, or was held.
	Holder, Failure string
}

// Error says where it stands.
func (e *InterruptedError) Error() string {
	s := fmt.Sprintf("the %s of bundle %q to version %s is %s", e.Action, e.Bundle, e.Version, e.Condition)
	if e.At != "" {
		s += " at " + e.At
	}
	if e.Failure != "" {
		s += ": " + e.Failure
	}
	return s
}

// NothingOpenError says that no transaction of the bundle is open.
type NothingOpenError struct{ Bundle string }

// Error names the bundle.
func (e *NothingOpenError) Error() string {
	return fmt.Sprintf("no install of bundle %q is open in this cluster", e.Bundle)
}

// ClaimedError says that a release belongs to another bundle.
type ClaimedError struct {
	// Release is "NAMESPACE/NAME", by Helm's name, Other the bundle that has it.
	Release, Other string
}

// Error names both.
func (e *ClaimedError) Error() string {
	return fmt.Sprintf("release %s belongs to bundle %q in this cluster", e.Release, e.Other)
}

// UntilError says that a release to stop at is none of the transaction.
type UntilError struct {
	Name  string
	Known []string
}

// Error lists what there is.
func (e *UntilError) Error() string {
	return fmt.Sprintf("release %q to stop after is none, or several, of %q", e.Name, e.Known)
}

// OtherBundleError says that a transaction was begun with another bundle than the one that it is to go on with.
type OtherBundleError struct {
	Bundle string
	// Version and Manifest are those of the transaction.
	Version, Manifest string
}

// Error says which bundle is wanted.
func (e *OtherBundleError) Error() string {
	return fmt.Sprintf("the open install of bundle %q is that of version %s with manifest %s: it goes on with that bundle only", e.Bundle, e.Version, e.Manifest)
}

// interrupted describes the open transaction of a state.
func interrupted(s *ledger.State, holder string) *InterruptedError {
	t := s.Open
	e := &InterruptedError{
		Bundle: s.Name, Version: t.Receipt.Version, Action: t.Action, Condition: s.Condition(), Phase: t.Phase, Holder: holder, Failure: t.Failure,
	}
	for i := range t.Steps {
		if st := &t.Steps[i]; st.Status != ledger.StepDone && st.Status != ledger.StepReverted {
			e.At = fmt.Sprintf("step %d of %d (%s)", i+1, len(t.Steps), describe(st))
			break
		}
	}
	return e
}

// describe says in a few words what a step does.
func describe(s *ledger.Step) string {
	what := map[string]string{
		ledger.StepCRDs: "definitions of", ledger.StepBackup: "backup of", ledger.StepRelease: "release", ledger.StepTest: "tests of",
		ledger.StepCheck: "check", ledger.StepRemove: "removal of", ledger.StepFront: "front of",
	}[s.Kind]
	if s.Name != "" {
		what += fmt.Sprintf(" %q of", s.Name)
	}
	return what + " " + s.Key()
}

// begin takes the lease of the bundle and reads its state. end gives the lease back; it is nil with an error.
func (e *engine) begin(ctx context.Context) (end func(), err error) {
	if e.hold, err = e.ledger.Hold(ctx, e.bundle, e.o.Lease); err != nil {
		return nil, early(err)
	}
	end = func() { e.hold.End(ctx) }
	if e.state, e.version, err = e.ledger.Read(ctx, e.bundle); err != nil {
		end()
		return nil, early(err)
	}
	e.published.Store(e.state)
	return end, nil
}

// early marks an error of the time before the first change.
func early(err error) error {
	var is *PreflightError
	var forbidden *release.ForbiddenError
	var lease *release.LeaseError
	switch {
	case errors.As(err, &is):
		return err
	case errors.As(err, &forbidden), release.IsForbidden(err), errors.As(err, &lease) && lease.Forbidden:
		return &PreflightError{err}
	}
	return err
}

// known is the state, for all goroutines: what is published is never changed, see change.
func (e *engine) known() *ledger.State {
	if s := e.published.Load(); s != nil {
		return s
	}
	return e.state
}

// open is the transaction.
func (e *engine) open() *ledger.Transaction { return e.known().Open }

// cloned is a copy of a state of which all can be changed that a transaction changes.
func cloned(s *ledger.State) *ledger.State {
	c := *s
	c.History = slices.Clone(s.History)
	c.Accepted = slices.Clone(s.Accepted)
	c.Values = slices.Clone(s.Values)
	if s.Installed != nil {
		r := *s.Installed
		r.Releases = slices.Clone(r.Releases)
		c.Installed = &r
	}
	if s.Open != nil {
		t := *s.Open
		t.Steps = slices.Clone(t.Steps)
		r := &t.Receipt
		r.Releases, r.Checks, r.Kept, r.Images = slices.Clone(r.Releases), slices.Clone(r.Checks), slices.Clone(r.Kept), slices.Clone(r.Images)
		c.Open = &t
	}
	return &c
}

// change changes the state, in the cluster and then here. After a failure nothing is written any more, until regain. It is not cut
// off by the end of ctx, only by that of the lease.
func (e *engine) change(ctx context.Context, f func(s *ledger.State)) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.broken != nil {
		return e.broken
	}
	held, cancel := e.hold.Bind(context.WithoutCancel(ctx))
	defer cancel()
	held, stop := context.WithTimeout(held, noteTime)
	defer stop()
	if held.Err() != nil {
		e.broken = context.Cause(held)
		return e.broken
	}
	next := cloned(e.state)
	f(next)
	for {
		e.tried = cloned(next)
		version, err := e.ledger.Write(held, next, e.version)
		var large *ledger.TooLargeError
		if errors.As(err, &large) && len(next.History) > 0 {
			// The oldest receipts give way to what happens now.
			next.History = next.History[1:]
			continue
		}
		if errors.As(err, &large) && e.state.Open != nil && shrink(next) {
			// What has been begun must be able to end: who cannot write goes neither on nor back.
			continue
		}
		if errors.As(err, &large) {
			return err
		}
		if err != nil {
			e.broken = fmt.Errorf("recording what is done: %w", err)
			return e.broken
		}
		e.state, e.version = next, version
		e.published.Store(next)
		return nil
	}
}

// What a receipt keeps where the state has no room for more.
const (
	keptWhenFull    = 50
	failureWhenFull = 200 // bytes
)

// shrink takes out of a state what is only told of the open transaction, a little at a time, and says whether there was something.
func shrink(s *ledger.State) bool {
	if s.Open == nil {
		return false
	}
	r := &s.Open.Receipt
	for i := range r.Images {
		if len(r.Images[i].Referrers) > 0 {
			for k := range r.Images {
				r.Images[k].Referrers = nil
			}
			return true
		}
	}
	if n := len(r.Kept) - keptWhenFull; n > 1 {
		r.Kept = append(r.Kept[:keptWhenFull:keptWhenFull], fmt.Sprintf("and %d more", n))
		return true
	}
	if len(s.Open.Failure) > 2*failureWhenFull {
		s.Open.Failure = strings.ToValidUTF8(s.Open.Failure[:failureWhenFull], "") + " …"
		return true
	}
	return false
}

// changeStep changes one step.
func (e *engine) changeStep(ctx context.Context, i int, f func(t *ledger.Transaction, s *ledger.Step)) error {
	return e.change(ctx, func(s *ledger.State) { f(s.Open, &s.Open.Steps[i]) })
}

// step is a copy of one.
func (e *engine) step(i int) ledger.Step {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.state.Open.Steps[i]
}

// regain makes sure that the lease is held and that the state is the one that this process knows, also after a write whose outcome
// is not known. Errors are those of release.Ledger.Hold and Read, and *release.ConflictError where somebody else was at work.
func (e *engine) regain(ctx context.Context) error {
	if err := e.hold.Retake(ctx); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	now, version, err := e.ledger.Read(ctx, e.bundle)
	if err != nil {
		return err
	}
	if now == nil || !same(now, e.state) && !same(now, e.tried) {
		return &release.ConflictError{Bundle: e.bundle}
	}
	e.state, e.version, e.broken = now, version, nil
	e.published.Store(now)
	return nil
}

// same says that two states are the same but for their serials: one of them may not have been written yet.
func same(a, b *ledger.State) bool {
	if a == nil || b == nil {
		return a == b
	}
	x, y := *a, *b
	x.Serial, y.Serial = 0, 0
	rawX, errX := ledger.Encode(&x)
	rawY, errY := ledger.Encode(&y)
	return errX == nil && errY == nil && bytes.Equal(rawX, rawY)
}
