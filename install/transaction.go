package install

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sealift/sealift/internal/ledger"
	"github.com/sealift/sealift/internal/progress"
	"github.com/sealift/sealift/internal/release"
)

// Change is what a transaction brings about.
type Change struct {
	// Receipt has all that is known before it is begun: bundle, signers, parameters, images, the operator's words. What
	// the transaction itself finds out (ID, action, times, releases, checks) is filled in by it.
	Receipt ledger.Receipt
	// Releases of the bundle, and what the plan says of each.
	Releases []*Release
	Plan     *Plan
	// Said is what the site said, for the next upgrade; nil for nothing.
	Said []byte
	// Options hold until the end, also for those who go on with it.
	Options ledger.Options
}

// TransactOptions say how a transaction is done.
type TransactOptions struct {
	Cluster *release.Cluster
	Ledger  *release.Ledger
	// Now is the clock, By is USER@HOST.
	Now func() time.Time
	By  string
	// Timeout bounds each wait; Lease is how long a killed installer keeps others out, 0 for the default.
	Timeout, Lease time.Duration
	// Parallel bounds the releases that are changed at the same time; 0 for the default.
	Parallel int
	// Rounds is up to which round fronts are switched that wait to be promoted: 0 stops before the first one, AllRounds at none.
	Rounds int
	// Until is a release, as NAME or NAMESPACE/NAME, after which it stops; empty for none.
	Until string
	// AcceptNoReturn passes points of no return that Resume meets and that were not accepted at the beginning.
	AcceptNoReturn bool
	// OverNoReturn goes back by revisions although something has no way back, and over what somebody else has changed since: what
	// is in databases may not fit what is installed then. It is for Revert.
	OverNoReturn bool
	// Hide takes what is secret out of a text that is recorded; nil where nothing is.
	Hide     func(text string) string
	Progress progress.Reporter
}

// Transact installs or upgrades a bundle. The receipt says what became of it; where it ends at a hold point, or with something
// staged, the state says so (see ledger.State.Condition) and the receipt is nil. Errors are *FailedError once something was
// changed, *InterruptedError where another transaction is open, *release.BusyError where one is at work. Others, with nothing
// changed, are *PreflightError with a *NoReturnError, *ClaimedError or *UntilError.
func Transact(ctx context.Context, c Change, o TransactOptions) (*ledger.Receipt, error) {
	return newEngine(c.Receipt.Bundle, c.Releases, o).transact(ctx, c)
}

// Resume goes on with the open transaction of a bundle, whose releases are given; they are not needed for one that goes back,
// that rolls back or uninstalls, or of which only fronts are left to be switched. One that was going back goes on doing so: then the outcome of the receipt is "changed back".
// Errors are those of Transact, *NothingOpenError and *OtherBundleError.
func Resume(ctx context.Context, bundle string, releases []*Release, o TransactOptions) (*ledger.Receipt, error) {
	return newEngine(bundle, releases, o).resume(ctx, manifestOf(releases))
}

// Revert takes back all that the open transaction of a bundle has changed. Errors are *FailedError, *NothingOpenError,
// *release.BusyError, and a *PreflightError with a *NoReturnError.
func Revert(ctx context.Context, bundle string, o TransactOptions) (*ledger.Receipt, error) {
	return newEngine(bundle, nil, o).revert(ctx)
}

func (e *engine) transact(ctx context.Context, c Change) (*ledger.Receipt, error) {
	if err := noReturn(c); err != nil {
		return nil, err
	}
	if _, err := findUntil(e.o.Until, keysOf(c.Releases)); err != nil {
		return nil, err
	}
	if err := e.refuseOpen(ctx); err != nil {
		return nil, err
	}
	if err := e.refuseClaimed(ctx, c.Releases); err != nil {
		return nil, err
	}
	end, err := e.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	if err := acceptedMeanwhile(e.state, &c.Receipt); err != nil {
		return nil, err
	}
	t, values, err := e.planInstall(ctx, c)
	if err != nil {
		return nil, early(err)
	}
	if err := e.start(ctx, t, values, c.Releases); err != nil {
		return nil, early(err)
	}
	return e.run(ctx)
}

// noReturn refuses what has no way back, unless that was accepted.
func noReturn(c Change) error {
	if c.Options.AcceptNoReturn || c.Plan == nil {
		return nil
	}
	e := &NoReturnError{}
	for i := range c.Plan.Releases {
		p := &c.Plan.Releases[i]
		for _, why := range p.NoReturn {
			e.Reasons = append(e.Reasons, p.Namespace+"/"+p.Release+": "+why)
		}
	}
	if len(e.Reasons) > 0 {
		return &PreflightError{e}
	}
	return nil
}

func keysOf(releases []*Release) []string {
	var keys []string
	for _, r := range releases {
		keys = append(keys, r.Namespace+"/"+r.Name)
	}
	return keys
}

// findUntil finds the release to stop after, by its name or key; "" for an empty name.
func findUntil(name string, keys []string) (string, error) {
	if name == "" {
		return "", nil
	}
	var found []string
	for _, k := range keys {
		if k == name || strings.HasSuffix(k, "/"+name) {
			found = append(found, k)
		}
	}
	if len(found) != 1 {
		return "", &PreflightError{&UntilError{Name: name, Known: keys}}
	}
	return found[0], nil
}

// refuseOpen refuses where a transaction of the bundle is open, telling whether somebody is at work on it.
func (e *engine) refuseOpen(ctx context.Context) error {
	s, _, err := e.ledger.Read(ctx, e.bundle)
	if err != nil {
		return early(err)
	}
	if s == nil || s.Open == nil {
		return nil
	}
	holder, alive, err := e.ledger.Watch(ctx, e.bundle)
	if err != nil {
		return early(err)
	}
	if alive {
		return &release.BusyError{Bundle: e.bundle, Namespace: e.ledger.Namespace(), Holder: holder}
	}
	return interrupted(s, holder)
}

// refuseClaimed refuses releases that belong to another bundle of this cluster.
func (e *engine) refuseClaimed(ctx context.Context, releases []*Release) error {
	bundles, err := e.ledger.Bundles(ctx)
	if err != nil {
		return early(err)
	}
	mine := map[string]bool{}
	for _, r := range releases {
		mine[r.Namespace+"/"+r.As] = true
	}
	for _, name := range bundles {
		if name == e.bundle {
			continue
		}
		s, _, err := e.ledger.Read(ctx, name)
		if err != nil {
			return early(err)
		}
		for key := range claims(s) {
			if mine[key] {
				return &PreflightError{&ClaimedError{Release: key, Other: name}}
			}
		}
	}
	return nil
}

// claims are the releases that belong to a bundle, as "NAMESPACE/NAME" by Helm's names.
func claims(s *ledger.State) map[string]bool {
	all := map[string]bool{}
	add := func(r *ledger.Receipt) {
		for i := range r.Releases {
			x := &r.Releases[i]
			all[x.Namespace+"/"+x.Helm()] = true
			if x.Front != nil && x.Front.Spare != "" {
				all[x.Namespace+"/"+x.Front.Spare] = true
			}
		}
	}
	if s == nil {
		return all
	}
	if s.Installed != nil {
		add(s.Installed)
	}
	if s.Open != nil {
		add(&s.Open.Receipt)
		for i := range s.Open.Steps {
			all[s.Open.Steps[i].Namespace+"/"+s.Open.Steps[i].Helm()] = true
		}
	}
	return all
}

// start writes a transaction into the state, and what is kept beside it before, by ID. claimed are the releases that must belong to
// no other bundle.
func (e *engine) start(ctx context.Context, t *ledger.Transaction, values map[string][]byte, claimed []*Release) error {
	if e.state == nil {
		e.state = &ledger.State{Name: e.bundle}
	}
	if e.state.Open != nil {
		return interrupted(e.state, "")
	}
	// What an install left that was killed before it wrote its transaction.
	if err := e.ledger.DropValues(ctx, e.bundle, e.state.Values); err != nil {
		return err
	}
	ids := slices.Sorted(maps.Keys(values))
	for _, id := range ids {
		if err := e.ledger.WriteValues(ctx, e.bundle, id, values[id]); err != nil {
			return err
		}
	}
	err := e.change(ctx, func(s *ledger.State) {
		s.Open = t
		s.Values = append(s.Values, ids...)
	})
	if err != nil || len(claimed) == 0 {
		return err
	}
	// Two bundles may have been begun at the same time: of those who write first and look then, one at least sees the other.
	if err := e.refuseClaimed(ctx, claimed); err != nil {
		undone := e.change(ctx, func(s *ledger.State) {
			s.Open = nil
			s.Values = usedValues(s)
		})
		if undone != nil {
			return errors.Join(err, undone)
		}
		return err
	}
	return nil
}

// run carries the open transaction out, forward, and back where it fails.
func (e *engine) run(ctx context.Context) (*ledger.Receipt, error) {
	until := ""
	var err error
	if until, err = findUntil(e.o.Until, e.stepKeys()); err != nil {
		return nil, err
	}
	e.task = e.o.Progress.Start(e.title(), int64(len(e.open().Steps)), progress.Items)
	failed := e.forward(ctx, until)
	e.task.Done()
	if failed != nil {
		return nil, e.fail(ctx, failed)
	}
	switch todo := e.rest(); {
	case len(todo) == 0:
		return e.succeed(ctx)
	case until == "" || nextRound(e.open()) == e.open().Steps[todo[0]].Round && e.open().Steps[todo[0]].Round > 0:
		// All that is left are fronts that wait to be switched.
		return nil, e.change(ctx, func(s *ledger.State) { s.Open.Phase = ledger.PhaseStaged })
	default:
		return nil, e.change(ctx, func(s *ledger.State) { s.Open.Phase = ledger.PhasePaused })
	}
}

func (e *engine) title() string {
	switch e.open().Action {
	case ledger.ActionRollback:
		return "rolling back releases"
	case ledger.ActionUninstall:
		return "uninstalling releases"
	}
	return "installing releases"
}

func (e *engine) stepKeys() []string {
	var keys []string
	for i := range e.open().Steps {
		if k := e.open().Steps[i].Key(); !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	return keys
}

// rest are the steps that are not done, by their indexes.
func (e *engine) rest() []int {
	var todo []int
	for i := range e.open().Steps {
		if e.open().Steps[i].Status != ledger.StepDone {
			todo = append(todo, i)
		}
	}
	return todo
}

// stepError is what a step failed with.
type stepError struct {
	step ledger.Step
	err  error
}

func (e *stepError) Error() string { return e.err.Error() }
func (e *stepError) Unwrap() error { return e.err }

// forward takes the steps that are not done, as far as until, or a front that waits, permits. The error is a *stepError where a
// step failed. When it returns, none is being taken any more.
func (e *engine) forward(ctx context.Context, until string) error {
	work, cancel := e.hold.Bind(ctx)
	defer cancel()
	if e.open().Phase != ledger.PhaseForward {
		if err := e.change(work, func(s *ledger.State) { s.Open.Phase, s.Open.Failure = ledger.PhaseForward, "" }); err != nil {
			return err
		}
	}
	todo := e.wanted(until)
	for _, i := range todo {
		if err := e.findOut(work, i); err != nil {
			return &stepError{e.step(i), err}
		}
	}
	todo = e.wanted(until) // some turned out to be done
	work, stop := context.WithCancel(work)
	defer stop()
	type end struct {
		step int
		err  error
	}
	ends := make(chan end)
	running := map[int]bool{}
	begun := map[int]bool{}
	var first error
	for {
		for _, i := range todo {
			if first != nil || work.Err() != nil || len(running) >= e.o.Parallel {
				break
			}
			if begun[i] || !e.ready(i) {
				continue
			}
			begun[i], running[i] = true, true
			go func() { ends <- end{i, e.take(work, i)} }()
		}
		if len(running) == 0 {
			break
		}
		one := <-ends
		delete(running, one.step)
		if one.err != nil && first == nil {
			first = &stepError{e.step(one.step), one.err}
			// The others are not waited for any longer than it takes them to stop.
			stop()
		}
	}
	if first == nil && len(begun) < len(todo) && work.Err() != nil {
		return context.Cause(work)
	}
	return first
}

// wanted are the steps that are to be taken now: not done, not behind until, and no fronts that wait, nor what comes after these.
func (e *engine) wanted(until string) []int {
	steps := e.open().Steps
	keep := make([]bool, len(steps))
	for i := len(steps) - 1; i >= 0; i-- {
		keep[i] = keep[i] || until == "" || steps[i].Key() == until
		if keep[i] {
			for _, a := range steps[i].After {
				keep[a] = true
			}
		}
	}
	var todo []int
	for i := range steps {
		waits := waitsForPromotion(&steps[i]) && steps[i].Round > e.o.Rounds || slices.ContainsFunc(steps[i].After, func(a int) bool { return !keep[a] && steps[a].Status != ledger.StepDone })
		if waits {
			keep[i] = false
		}
		if keep[i] && steps[i].Status != ledger.StepDone {
			todo = append(todo, i)
		}
	}
	return todo
}

// ready says that all that a step comes after is done.
func (e *engine) ready(i int) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	steps := e.state.Open.Steps
	return !slices.ContainsFunc(steps[i].After, func(a int) bool { return steps[a].Status != ledger.StepDone })
}

// take takes one step: it is recorded before and after.
func (e *engine) take(ctx context.Context, i int) error {
	was := e.step(i)
	if err := e.lookBefore(ctx, &was); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	err := e.changeStep(ctx, i, func(_ *ledger.Transaction, s *ledger.Step) {
		if s.Status == ledger.StepFailed || s.Status == ledger.StepReverting || s.Status == ledger.StepReverted {
			s.Tries++
		}
		s.Status = ledger.StepBegun
	})
	if err != nil {
		return err
	}
	d, err := e.do(ctx, i)
	if err != nil {
		status := ledger.StepFailed
		if d.untouched && was.Status == ledger.StepPlanned {
			status = ledger.StepPlanned
		}
		noted := e.changeStep(ctx, i, func(t *ledger.Transaction, s *ledger.Step) {
			s.Status = status
			d.made(t, s)
		})
		if noted != nil {
			return errors.Join(err, noted)
		}
		return err
	}
	err = e.changeStep(ctx, i, func(t *ledger.Transaction, s *ledger.Step) {
		s.Status = ledger.StepDone
		d.note(t, s)
	})
	if err == nil {
		e.task.Add(1)
		e.task.Note(describe(&was))
	}
	return err
}

// done is what a step did.
type done struct {
	// untouched says that it failed before anything was begun.
	untouched bool
	// revision was made, of which objects is the digest.
	revision int
	objects  string
	kept     []string
	checked  string
	// front is what a front has become.
	front *ledger.Front
}

// made notes the revision that was made; a rollback says from the beginning to which one it goes.
func (d done) made(t *ledger.Transaction, s *ledger.Step) {
	if t.Action != ledger.ActionRollback && d.revision > 0 {
		s.To = d.revision
	}
}

// note puts what a step did into its transaction.
func (d done) note(t *ledger.Transaction, s *ledger.Step) {
	d.made(t, s)
	if d.objects != "" {
		s.Objects = d.objects
	}
	r := &t.Receipt
	if d.front != nil {
		s.FrontTo = d.front
	}
	for i := range r.Releases {
		if x := &r.Releases[i]; d.revision > 0 && x.Namespace == s.Namespace && x.Helm() == s.Helm() {
			x.Revision, x.Objects = d.revision, d.objects
		}
	}
	for _, k := range d.kept {
		if !slices.Contains(r.Kept, k) {
			r.Kept = append(r.Kept, k)
		}
	}
	if d.checked != "" {
		r.Checks = append(r.Checks, ledger.Checked{Release: s.Key(), Name: d.checked, Result: "passed"})
	}
}

// succeed ends the transaction: what it was to bring about is what is installed.
func (e *engine) succeed(ctx context.Context) (*ledger.Receipt, error) {
	var r ledger.Receipt
	drop := e.wasSecrets()
	err := e.change(ctx, func(s *ledger.State) {
		now := e.o.Now()
		r = s.Open.Receipt
		r.Outcome, r.Ended = ledger.OutcomeDone, stamp(now)
		s.Open = nil
		if s.Installed != nil {
			remember(s, *s.Installed)
		}
		s.Installed = &r
		if r.Action == ledger.ActionUninstall {
			s.Installed = nil
			remember(s, r)
		}
		raise(s, &r, now)
		s.Values = usedValues(s)
	})
	if err != nil {
		return nil, &FailedError{Doing: "ending the transaction of", Release: e.bundle, Err: err, Held: "all was done, but could not be recorded"}
	}
	e.tidy(ctx, drop)
	return &r, nil
}

// raise puts what was accepted into the state.
func raise(s *ledger.State, r *ledger.Receipt, now time.Time) {
	a, floor := acceptedBy(r, now)
	raiseAccepted(s, a, floor)
}

// remember puts a receipt into the history. Where that is full, the oldest attempt that came to nothing gives way, else the oldest.
func remember(s *ledger.State, r ledger.Receipt) {
	s.History = append(s.History, r)
	for len(s.History) > ledger.MaxHistory {
		i := max(0, slices.IndexFunc(s.History, func(r ledger.Receipt) bool { return r.Outcome == ledger.OutcomeBack }))
		s.History = slices.Delete(s.History, i, i+1)
	}
}

// usedValues are the IDs of documents that a receipt still refers to.
func usedValues(s *ledger.State) []string {
	var used []string
	add := func(id string) {
		if id != "" && !slices.Contains(used, id) {
			used = append(used, id)
		}
	}
	if s.Installed != nil {
		add(s.Installed.Values)
	}
	for i := range s.History {
		add(s.History[i].Values)
	}
	return used
}

// wasSecrets are the Secrets that keep former definitions for the way back.
func (e *engine) wasSecrets() []string {
	var names []string
	for i := range e.open().Steps {
		if w := e.open().Steps[i].Was; w != "" {
			names = append(names, w)
		}
	}
	return names
}

// tidy deletes what is kept beside the state and of use no more. What it cannot delete does no harm: the next one tries again, or
// it stays.
func (e *engine) tidy(ctx context.Context, secrets []string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), noteTime)
	defer cancel()
	_ = e.ledger.DropValues(ctx, e.bundle, e.state.Values)
	for _, name := range secrets {
		_ = e.cluster.DropWas(ctx, e.ledger.Namespace(), name)
	}
}

// fail takes back what was done, where that may be, and says what became of it.
func (e *engine) fail(ctx context.Context, cause error) error {
	f := &FailedError{Err: cause}
	var at *stepError
	if errors.As(cause, &at) {
		f.Err, f.Release, f.Namespace, f.Doing = at.err, at.step.Release, at.step.Namespace, e.doing(&at.step)
		f.Diagnosis = e.diagnose(ctx, &at.step)
	} else {
		f.Doing, f.Release = "going on with the transaction of", e.bundle
	}
	ctx = context.WithoutCancel(ctx)
	if err := e.regain(ctx); err != nil {
		f.Held = fmt.Sprintf("nothing more was changed, since the state in the cluster could not be kept (%v): it is interrupted", err)
		return f
	}
	if s := e.open().PassedNoReturn(); s != nil {
		f.Held = fmt.Sprintf("%s has no way back: %s", s.Key(), strings.Join(s.NoReturn, "; "))
		err := e.change(ctx, func(st *ledger.State) { st.Open.Phase, st.Open.Failure = ledger.PhaseHeld, e.short(f.Err) })
		if err != nil {
			f.Held += fmt.Sprintf("; and that it is held could not be recorded: %v", err)
		}
		return f
	}
	_, err := e.back(ctx, e.short(f.Err), f)
	switch {
	case err != nil:
		f.Revert = err
	case len(f.Back) == 0 && at == nil:
		// Nothing had been begun.
		return cause
	}
	return f
}

// diagnose says what is wrong with the release of a step, as far as can be known.
func (e *engine) diagnose(ctx context.Context, s *ledger.Step) []string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), diagnoseTime)
	defer cancel()
	// It is the best that can be had, not what the error depends on.
	lines, _ := e.cluster.Diagnose(ctx, s.Namespace, s.Helm())
	return lines
}

// doing is what a step was doing, for errors.
func (e *engine) doing(s *ledger.Step) string {
	switch s.Kind {
	case ledger.StepCRDs:
		return "applying the definitions of"
	case ledger.StepBackup:
		return "backing up"
	case ledger.StepTest:
		return "testing"
	case ledger.StepCheck:
		return fmt.Sprintf("check %q of", s.Name)
	case ledger.StepRemove:
		return "removing"
	case ledger.StepFront:
		return "switching the front of"
	}
	if e.open().Action == ledger.ActionRollback {
		return "rolling back"
	}
	return "installing"
}

// maxFailure bounds what is recorded of an error, in bytes.
const maxFailure = 2000

// short is an error in a few lines, for the state, without what is secret.
func (e *engine) short(err error) string {
	s := strings.ToValidUTF8(err.Error(), "?")
	if e.o.Hide != nil {
		s = e.o.Hide(s)
	}
	if len(s) > maxFailure {
		s = strings.ToValidUTF8(s[:maxFailure], "") + " …"
	}
	return s
}
