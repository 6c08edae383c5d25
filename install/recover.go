package install

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sealift/sealift/internal/ledger"
	"github.com/sealift/sealift/internal/progress"
	"github.com/sealift/sealift/internal/release"
	"github.com/sealift/sealift/manifest"
)

// manifestOf is the digest of the manifest of the bundle that releases are of; "" for no releases.
func manifestOf(releases []*Release) string {
	if len(releases) == 0 || releases[0].bundle == nil {
		return ""
	}
	return releases[0].bundle.Evidence().Manifest
}

// enter takes the lease of a bundle whose transaction is open. end gives it back; it is nil with an error.
func (e *engine) enter(ctx context.Context) (end func(), err error) {
	// Who has nothing to do here does not wait for a lease.
	s, _, err := e.ledger.Read(ctx, e.bundle)
	if err != nil {
		return nil, early(err)
	}
	if s == nil || s.Open == nil {
		return nil, &NothingOpenError{e.bundle}
	}
	if end, err = e.begin(ctx); err != nil {
		return nil, err
	}
	if e.state == nil || e.state.Open == nil {
		end()
		return nil, &NothingOpenError{e.bundle}
	}
	// What was given time when it was begun needs it on, too, and on its way back.
	e.o.Timeout = max(e.o.Timeout, time.Duration(e.open().Options.TimeoutSeconds)*time.Second)
	return end, nil
}

func (e *engine) resume(ctx context.Context, manifest string) (*ledger.Receipt, error) {
	end, err := e.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	t := e.open()
	if t.GoingBack() {
		return e.goBack(ctx, t.Failure)
	}
	until, err := findUntil(e.o.Until, e.stepKeys())
	if err != nil {
		return nil, err
	}
	if err := e.mayGoOn(manifest, until); err != nil {
		return nil, &PreflightError{err}
	}
	if err := e.stillDone(ctx); err != nil {
		return nil, err
	}
	if e.o.AcceptNoReturn && !t.Options.AcceptNoReturn {
		if err := e.change(ctx, func(s *ledger.State) { s.Open.Options.AcceptNoReturn = true }); err != nil {
			return nil, err
		}
	}
	return e.run(ctx)
}

// stillDone makes sure that releases which count as done are what this transaction has made, since a day may have passed: one
// that is gone is to be done again, one that somebody else has changed is refused, or else it would be called installed.
func (e *engine) stillDone(ctx context.Context) error {
	for i := range e.open().Steps {
		s := e.step(i)
		at := slices.IndexFunc(e.open().Receipt.Releases, func(r ledger.Release) bool { return r.Namespace == s.Namespace && r.Helm() == s.Helm() })
		if s.Kind != ledger.StepRelease || s.Status != ledger.StepDone || at < 0 {
			continue
		}
		n, err := e.cluster.Newest(ctx, s.Helm(), s.Namespace)
		if err != nil {
			return err
		}
		made := e.open().Receipt.Releases[at].Revision
		switch {
		case n != nil && n.Status == statusDeployed && n.Revision == made:
			continue
		case n != nil && n.Status == statusDeployed && n.Back == made:
			// Whoever has changed it has taken that back.
			err = e.change(ctx, func(st *ledger.State) { st.Open.Receipt.Releases[at].Revision = n.Revision })
		case n == nil && e.open().Action != ledger.ActionRollback, n != nil && n.Status == statusUninstalled:
			err = e.change(ctx, func(st *ledger.State) { again(st.Open, i, revisionOf(n)) })
		default:
			s.Seen = made
			return &PreflightError{overtaken(&s, n)}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// again makes the step of a release that is gone one that is to be taken, and so its tests and checks.
func again(t *ledger.Transaction, i, seen int) {
	s := &t.Steps[i]
	s.Status, s.Seen = ledger.StepPlanned, seen
	s.Tries++ // it was begun once
	if t.Action != ledger.ActionRollback {
		s.To = 0
	}
	for k := i + 1; k < len(t.Steps); k++ {
		o := &t.Steps[k]
		if o.Key() == s.Key() && (o.Kind == ledger.StepTest || o.Kind == ledger.StepCheck) {
			o.Status = ledger.StepPlanned
			o.Tries++ // its Jobs are run anew
			t.Receipt.Checks = slices.DeleteFunc(t.Receipt.Checks, func(c ledger.Checked) bool { return c.Release == s.Key() })
		}
	}
}

// mayGoOn finds what stands against going on: another bundle than the one it was begun with, where the bundle is needed, and points
// of no return that were not accepted.
func (e *engine) mayGoOn(manifest, until string) error {
	t := e.open()
	other := &OtherBundleError{Bundle: e.bundle, Version: t.Receipt.Version, Manifest: t.Receipt.Manifest}
	if manifest != "" && manifest != t.Receipt.Manifest {
		return other
	}
	no := &NoReturnError{}
	for _, i := range e.wanted(until) {
		s := &t.Steps[i]
		for _, why := range s.NoReturn {
			no.Reasons = append(no.Reasons, s.Key()+": "+why)
		}
		if manifest == "" && s.Needs(t.Action) {
			return other
		}
	}
	if len(no.Reasons) > 0 && !t.Options.AcceptNoReturn && !e.o.AcceptNoReturn {
		return no
	}
	return nil
}

func (e *engine) revert(ctx context.Context) (*ledger.Receipt, error) {
	end, err := e.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	t := e.open()
	if t.PassedNoReturn() != nil && !e.o.OverNoReturn {
		no := &NoReturnError{Passed: true}
		for i := range t.Steps {
			if s := &t.Steps[i]; s.Status != ledger.StepPlanned && s.Status != ledger.StepReverted {
				for _, why := range s.NoReturn {
					no.Reasons = append(no.Reasons, s.Key()+": "+why)
				}
			}
		}
		return nil, &PreflightError{no}
	}
	failure := t.Failure
	if failure == "" {
		failure = "it was taken back by " + e.o.By
	}
	return e.goBack(ctx, failure)
}

// goBack is back for those who asked for it.
func (e *engine) goBack(ctx context.Context, failure string) (*ledger.Receipt, error) {
	f := &FailedError{Doing: "taking back the transaction of", Release: e.bundle}
	r, err := e.back(ctx, failure, f)
	if err != nil {
		f.Err, f.Revert = errors.New(failure), err
		return nil, f
	}
	return r, nil
}

// findOut looks in the cluster for what became of a step that may have been begun, and brings it to where it can be taken (again), or
// records that it is done.
func (e *engine) findOut(ctx context.Context, i int) error {
	s := e.step(i)
	if s.Status == ledger.StepPlanned {
		return nil
	}
	if s.Kind != ledger.StepRelease && s.Kind != ledger.StepRemove {
		return nil // may be taken again
	}
	n, err := e.cluster.Newest(ctx, s.Helm(), s.Namespace)
	if err != nil {
		return err
	}
	id := e.open().ID
	switch {
	case s.Status == ledger.StepReverting || s.Status == ledger.StepReverted:
		// An earlier look was interrupted.
		return e.restart(ctx, i)
	case s.Kind == ledger.StepRemove || e.open().Action == ledger.ActionRollback:
		// To do it again changes nothing where it is done, and else goes on.
		return nil
	case revisionOf(n) == s.Seen:
		return nil // nothing was made
	case n == nil || n.Run != id:
		return overtaken(&s, n)
	case n.Status == statusDeployed:
		d := done{revision: n.Revision, objects: e.digest(ctx, &s, n.Revision)}
		return e.changeStep(ctx, i, func(t *ledger.Transaction, s *ledger.Step) {
			s.Status = ledger.StepDone
			d.note(t, s)
		})
	case len(s.NoReturn) > 0:
		// It must not go back, not even for going on.
		if n.Pending {
			if err := e.cluster.Settle(ctx, s.Helm(), s.Namespace); err != nil {
				return err
			}
		}
		return e.seen(ctx, i)
	}
	return e.restart(ctx, i)
}

// statusDeployed and statusUninstalled are Helm's.
const (
	statusDeployed    = "deployed"
	statusUninstalled = "uninstalled"
)

// restart takes a release back to where it was before a step, which is then as planned.
func (e *engine) restart(ctx context.Context, i int) error {
	s := e.step(i)
	if s.Status != ledger.StepReverting {
		if err := e.changeStep(ctx, i, func(_ *ledger.Transaction, s *ledger.Step) { s.Status = ledger.StepReverting }); err != nil {
			return err
		}
	}
	if err := e.putBack(ctx, &s); err != nil {
		return err
	}
	return e.isBack(ctx, i, func(t *ledger.Transaction, s *ledger.Step) {
		s.Status = ledger.StepPlanned
		s.Tries++ // it was begun once: see restore
		if t.Action != ledger.ActionRollback {
			s.To = 0
		}
	})
}

// isBack records that a release is where it was before a step. A way back makes a new revision: what is installed has that one
// from now on, with the objects that were recorded.
func (e *engine) isBack(ctx context.Context, i int, f func(t *ledger.Transaction, s *ledger.Step)) error {
	s := e.step(i)
	n, err := e.cluster.Newest(ctx, s.Helm(), s.Namespace)
	if err != nil {
		return err
	}
	var now *release.Recorded
	if n != nil && n.Status == statusDeployed && s.From > 0 {
		if now, err = e.cluster.Recorded(ctx, s.Helm(), s.Namespace, n.Revision); err != nil {
			return err
		}
	}
	return e.change(ctx, func(st *ledger.State) {
		s := &st.Open.Steps[i]
		if now != nil && st.Installed != nil {
			for k := range st.Installed.Releases {
				x := &st.Installed.Releases[k]
				// What somebody else had changed before stays known as changed.
				was := x.Namespace == s.Namespace && x.Helm() == s.Helm() && (x.Revision == s.From || x.Revision == s.Seen)
				if was && (x.Objects == "" || x.Objects == now.Objects) {
					x.Revision = now.Revision
				}
			}
		}
		s.Seen = revisionOf(n)
		f(st.Open, s)
	})
}

// seen records that what is there now is no surprise.
func (e *engine) seen(ctx context.Context, i int) error {
	s := e.step(i)
	n, err := e.cluster.Newest(ctx, s.Helm(), s.Namespace)
	if err != nil || revisionOf(n) == s.Seen {
		return err
	}
	return e.changeStep(ctx, i, func(_ *ledger.Transaction, s *ledger.Step) { s.Seen = revisionOf(n) })
}

func revisionOf(n *release.Newest) int {
	if n == nil {
		return 0
	}
	return n.Revision
}

func overtaken(s *ledger.Step, n *release.Newest) error {
	return &release.OvertakenError{Release: s.Helm(), Namespace: s.Namespace, Revision: s.Seen, Newest: revisionOf(n)}
}

// lookBefore refuses to begin where somebody else has changed a release since it was planned.
func (e *engine) lookBefore(ctx context.Context, s *ledger.Step) error {
	if s.Kind != ledger.StepRelease && s.Kind != ledger.StepRemove {
		return nil
	}
	n, err := e.cluster.Newest(ctx, s.Helm(), s.Namespace)
	if err != nil {
		return err
	}
	if revisionOf(n) == s.Seen {
		return nil
	}
	if e.open().Action == ledger.ActionRollback && s.Status != ledger.StepPlanned && n != nil && n.Back == s.To {
		return nil // it was made by an earlier attempt
	}
	return overtaken(s, n)
}

// do does what a step is for.
func (e *engine) do(ctx context.Context, i int) (done, error) {
	s := e.step(i)
	switch s.Kind {
	case ledger.StepRemove:
		return e.remove(ctx, &s)
	case ledger.StepFront:
		err := e.front(ctx, &s, false)
		return done{front: s.FrontTo}, err
	case ledger.StepTest:
		return done{checked: "tests of the chart"}, e.cluster.RunTests(ctx, s.Helm(), s.Namespace, e.o.Timeout)
	case ledger.StepRelease:
		if e.open().Action == ledger.ActionRollback {
			return e.rollBack(ctx, &s)
		}
	}
	r := e.releases[s.Key()]
	if r == nil {
		return done{untouched: true}, fmt.Errorf("%s: %w", s.Key(), errNoRelease)
	}
	switch s.Kind {
	case ledger.StepCheck:
		return done{checked: s.Name}, e.check(ctx, &s, r, i)
	case ledger.StepRelease:
		return e.install(ctx, &s, r)
	}
	parts, err := e.parts(ctx, r)
	if err != nil {
		return done{untouched: true}, err
	}
	if s.Kind == ledger.StepCRDs {
		_, err = e.cluster.ApplyCRDs(ctx, e.ledger.Namespace(), s.Was, parts.crds)
		return done{}, err
	}
	return done{}, e.cluster.RunJobs(ctx, s.Namespace, parts.backup, e.runOf(i), e.o.Timeout)
}

// runOf names the run of the Jobs of a step: the same after a kill, so that they are waited for, and another one after they failed.
func (e *engine) runOf(i int) string {
	s, id := e.step(i), e.open().ID
	return fmt.Sprintf("%s-%d-%d", id[strings.LastIndexByte(id, '-')+1:], i, s.Tries)
}

func (e *engine) install(ctx context.Context, s *ledger.Step, r *Release) (done, error) {
	if s.From > 0 {
		if _, err := e.cluster.ProtectData(ctx, s.Helm(), s.Namespace); err != nil {
			return done{untouched: true}, err
		}
	}
	o := e.open().Options
	result, err := e.cluster.Install(ctx, release.Release{
		Name: s.Helm(), Namespace: s.Namespace, Chart: r.Chart, Values: r.Values, PostRender: r.PostRender, Timeout: e.o.Timeout,
		Adopt: o.Adopt, TakeOver: o.TakeOver, Run: e.open().ID, Keep: e.keepOf(s), After: &s.Seen,
	})
	d := done{untouched: result.Action == "", revision: result.Revision, kept: inRelease(s, result.Kept)}
	if err == nil {
		d.objects = e.digest(ctx, s, d.revision)
	}
	return d, err
}

// keepOf are the revisions of a release that receipts name, so that there is a way back to them.
func (e *engine) keepOf(s *ledger.Step) []int {
	e.mu.Lock()
	defer e.mu.Unlock()
	var keep []int
	for _, r := range receiptsOf(e.state) {
		for i := range r.Releases {
			if x := &r.Releases[i]; x.Namespace == s.Namespace && x.Helm() == s.Helm() && x.Revision > 0 && !slices.Contains(keep, x.Revision) {
				keep = append(keep, x.Revision)
			}
		}
	}
	if s.From > 0 && !slices.Contains(keep, s.From) {
		keep = append(keep, s.From)
	}
	return keep
}

// digest is that of what is recorded of a revision; "" where it cannot be known.
func (e *engine) digest(ctx context.Context, s *ledger.Step, revision int) string {
	r, err := e.cluster.Recorded(ctx, s.Helm(), s.Namespace, revision)
	if err != nil || r == nil {
		return ""
	}
	return r.Objects
}

// inRelease says where objects are that stay.
func inRelease(s *ledger.Step, objects []string) []string {
	var all []string
	for _, o := range objects {
		all = append(all, s.Namespace+": "+o)
	}
	return all
}

func (e *engine) rollBack(ctx context.Context, s *ledger.Step) (done, error) {
	if s.From > 0 {
		if _, err := e.cluster.ProtectData(ctx, s.Helm(), s.Namespace); err != nil {
			return done{untouched: true}, err
		}
	}
	if err := e.cluster.Recover(ctx, s.Helm(), s.Namespace, &release.State{Revision: s.To}); err != nil {
		return done{}, err
	}
	n, err := e.cluster.Newest(ctx, s.Helm(), s.Namespace)
	if err != nil {
		return done{}, err
	}
	return done{revision: revisionOf(n), objects: e.digest(ctx, s, revisionOf(n))}, nil
}

func (e *engine) remove(ctx context.Context, s *ledger.Step) (done, error) {
	if s.Seen == 0 {
		return done{}, nil
	}
	var d done
	if s.From > 0 {
		kept, err := e.cluster.ProtectData(ctx, s.Helm(), s.Namespace)
		if err != nil {
			return done{untouched: true}, err
		}
		d.kept = inRelease(s, kept)
	}
	kept, err := e.cluster.Remove(ctx, s.Helm(), s.Namespace)
	d.kept = append(d.kept, inRelease(s, kept)...)
	return d, err
}

// check runs one of the vendor's checks.
func (e *engine) check(ctx context.Context, s *ledger.Step, r *Release, i int) error {
	at := slices.IndexFunc(r.Spec.Checks, func(c manifest.Check) bool { return c.Name == s.Name })
	if at < 0 {
		return fmt.Errorf("%s has no check %q: %w", s.Key(), s.Name, errNoRelease)
	}
	c := &r.Spec.Checks[at]
	timeout := e.o.Timeout
	if c.Seconds > 0 {
		timeout = time.Duration(c.Seconds) * time.Second
	}
	switch {
	case c.HTTP != nil:
		h := release.HTTPCheck{Service: c.HTTP.Service, Port: c.HTTP.Port, Path: c.HTTP.Path, Status: c.HTTP.Status, TLS: c.HTTP.TLS}
		return e.cluster.CheckHTTP(ctx, s.Namespace, h, timeout)
	case c.TCP != nil:
		return e.cluster.CheckTCP(ctx, s.Namespace, c.TCP.Service, c.TCP.Port, timeout)
	}
	raw, err := r.bundle.ReadBlob(c.Job.Digest, manifest.MaxJobBytes)
	if err != nil {
		return err
	}
	docs, err := r.rewrite(raw)
	if err != nil {
		return err
	}
	return e.cluster.RunJobs(ctx, s.Namespace, docs, e.runOf(i), timeout)
}

// back takes all back that was, or may have been, begun, in reverse order, and ends the transaction. f gets what went back. With an
// error it is held: something could not be taken back.
func (e *engine) back(ctx context.Context, failure string, f *FailedError) (*ledger.Receipt, error) {
	held, cancel := e.hold.Bind(ctx)
	defer cancel()
	err := e.change(held, func(s *ledger.State) { s.Open.Phase, s.Open.Failure = ledger.PhaseBack, failure })
	if err != nil {
		return nil, err
	}
	e.task = e.o.Progress.Start("changing back", int64(len(e.open().Steps)), progress.Items)
	defer e.task.Done()
	var failed error
	for i := len(e.open().Steps) - 1; i >= 0; i-- {
		if err := held.Err(); err != nil {
			// What is left is taken back by the next one who asks for it.
			return nil, errors.Join(failed, context.Cause(held))
		}
		if e.waits(i) {
			continue // for the next one who asks for it
		}
		what, err := e.takeBack(held, i)
		if err != nil {
			s := e.step(i)
			failed = errors.Join(failed, fmt.Errorf("%s: %w", describe(&s), err))
			continue
		}
		if what != "" {
			f.Back = append(f.Back, what)
			e.task.Note(what)
		}
		e.task.Add(1)
	}
	if failed != nil {
		err := e.change(held, func(s *ledger.State) { s.Open.Phase, s.Open.Failure = ledger.PhaseHeld, e.short(failed) })
		return nil, errors.Join(failed, err)
	}
	var r ledger.Receipt
	drop := e.wasSecrets()
	err = e.change(held, func(s *ledger.State) {
		r = s.Open.Receipt
		r.Outcome, r.Failure, r.Ended = ledger.OutcomeBack, failure, stamp(e.o.Now())
		r.Kept = append(r.Kept, e.given...)
		// What was said for what failed is not said for the next.
		r.Values = ""
		s.Open = nil
		remember(s, r)
		s.Values = usedValues(s)
	})
	if err != nil {
		return nil, err
	}
	e.tidy(held, drop)
	return &r, nil
}

// waits says that a step must not be taken back, because a later one could not be that needs what it did: a backup is not
// restored under a version that is still there, users are led back before what they are led to goes, and definitions go back
// last of all.
func (e *engine) waits(i int) bool {
	steps := e.open().Steps
	for k := i + 1; k < len(steps); k++ {
		gone := steps[k].Status == ledger.StepPlanned || steps[k].Status == ledger.StepReverted
		if !gone && (steps[i].Kind == ledger.StepCRDs || steps[k].Key() == steps[i].Key()) {
			return true
		}
	}
	return false
}

// takeBack takes one step back, and says in a few words what that was; "" where nothing was to do.
func (e *engine) takeBack(ctx context.Context, i int) (string, error) {
	s := e.step(i)
	if s.Status == ledger.StepPlanned || s.Status == ledger.StepReverted {
		return "", nil
	}
	touched, err := e.touched(ctx, &s)
	if err != nil {
		return "", err
	}
	if !touched && s.Kind == ledger.StepRelease {
		// As if it had never been begun: what was backed up for it need not be restored.
		return "", e.changeStep(ctx, i, func(_ *ledger.Transaction, s *ledger.Step) { s.Status = ledger.StepPlanned })
	}
	what := ""
	if touched {
		if s.Status != ledger.StepReverting {
			if err := e.changeStep(ctx, i, func(_ *ledger.Transaction, s *ledger.Step) { s.Status = ledger.StepReverting }); err != nil {
				return "", err
			}
		}
		ctx, cancel := context.WithTimeout(ctx, e.o.Timeout+revertGrace)
		defer cancel()
		if what, err = e.undo(ctx, i); err != nil && e.o.OverNoReturn {
			if what, err = givenUp(&s, err); err == nil {
				e.given = append(e.given, e.short(errors.New(what)))
			}
		}
		if err != nil {
			return "", errors.Join(err, e.changeStep(ctx, i, func(_ *ledger.Transaction, s *ledger.Step) { s.Tries++ }))
		}
	}
	reverted := func(_ *ledger.Transaction, s *ledger.Step) { s.Status = ledger.StepReverted }
	if s.Kind == ledger.StepRelease || s.Kind == ledger.StepRemove {
		return what, e.isBack(ctx, i, reverted)
	}
	return what, e.changeStep(ctx, i, reverted)
}

// givenUp is what becomes of a step that cannot be taken back, whatever is tried, where the operator wants to go back all the same:
// who has deleted a release by hand, or has objects in a version that its former definition has not, would have no way at all.
func givenUp(s *ledger.Step, err error) (string, error) {
	var gone *release.NoRevisionError
	var crd *release.CRDError
	switch {
	case errors.As(err, &gone):
		return fmt.Sprintf("%s is left as it is: %v", s.Key(), gone), nil
	case s.Kind == ledger.StepCRDs && errors.As(err, &crd) && crd.Kept:
		return fmt.Sprintf("definitions of %s are left as they are: %v", s.Key(), crd), nil
	case s.Kind == ledger.StepBackup && (s.Tries > 0 || release.NamespaceGone(err)):
		// It has failed before, and is given up now only.
		return fmt.Sprintf("the backup of %s was not restored: %v", s.Key(), err), nil
	case s.Kind == ledger.StepFront && release.NamespaceGone(err):
		return fmt.Sprintf("the front of %s is gone: %v", s.Key(), err), nil
	}
	return "", err
}

// touched says whether there is something to take back of a step that may have been begun. It refuses to take back what somebody
// else has made.
func (e *engine) touched(ctx context.Context, s *ledger.Step) (bool, error) {
	switch {
	case s.Kind == ledger.StepTest || s.Kind == ledger.StepCheck:
		return false, nil
	case s.Kind != ledger.StepRelease || s.Status == ledger.StepReverting:
		return true, nil
	}
	n, err := e.cluster.Newest(ctx, s.Helm(), s.Namespace)
	switch {
	case err != nil:
		return false, err
	case revisionOf(n) == s.Seen:
		return false, nil
	case e.open().Action == ledger.ActionRollback && n != nil && n.Back == s.To:
		return true, nil
	case n != nil && s.From > 0 && n.Status == statusDeployed && n.Back == s.From:
		return true, nil // somebody has taken it back, and it is only to be recorded
	case (n == nil || n.Run != e.open().ID) && !e.o.OverNoReturn:
		return false, overtaken(s, n)
	}
	return true, nil
}

// undo takes back what a step did.
func (e *engine) undo(ctx context.Context, i int) (string, error) {
	s := e.step(i)
	switch s.Kind {
	case ledger.StepCRDs:
		return "definitions of " + s.Key(), e.cluster.RestoreCRDs(ctx, e.ledger.Namespace(), s.Was)
	case ledger.StepBackup:
		return e.restore(ctx, &s, i)
	case ledger.StepFront:
		return "front of " + s.Key(), e.front(ctx, &s, true)
	case ledger.StepRemove:
		if s.From == 0 {
			return "", nil
		}
	}
	if err := e.putBack(ctx, &s); err != nil {
		return "", err
	}
	if s.From > 0 {
		return fmt.Sprintf("%s to revision %d", s.Key(), s.From), nil
	}
	return s.Key() + " (uninstalled; data is kept)", nil
}

// putBack brings a release to where it was before a step.
func (e *engine) putBack(ctx context.Context, s *ledger.Step) error {
	switch {
	case s.From > 0:
		if _, err := e.cluster.ProtectData(ctx, s.Helm(), s.Namespace); err != nil {
			return err
		}
		return e.recoverTo(ctx, s, &release.State{Revision: s.From})
	case s.Seen > 0:
		// It was not there, but had been: its history is the way back to that.
		if err := e.cluster.Settle(ctx, s.Helm(), s.Namespace); err != nil {
			return err
		}
		_, err := e.cluster.Remove(ctx, s.Helm(), s.Namespace)
		return err
	}
	return e.recoverTo(ctx, s, nil)
}

func (e *engine) recoverTo(ctx context.Context, s *ledger.Step, to *release.State) error {
	if e.o.OverNoReturn {
		return e.cluster.Revert(ctx, s.Helm(), s.Namespace, to)
	}
	return e.cluster.Recover(ctx, s.Helm(), s.Namespace, to)
}

// restore runs the restore Jobs of a backup, where what it was for was begun.
func (e *engine) restore(ctx context.Context, s *ledger.Step, i int) (string, error) {
	begun := false
	for k := range e.open().Steps {
		o := &e.open().Steps[k]
		begun = begun || (o.Kind == ledger.StepRelease && o.Key() == s.Key() && (o.Status != ledger.StepPlanned || o.Tries > 0))
	}
	if !begun {
		return "", nil
	}
	docs, err := e.ledger.ReadValues(ctx, e.bundle, restoreID(e.open().ID, i))
	if err != nil || docs == nil {
		return "", err
	}
	return "backup of " + s.Key(), e.cluster.RunJobs(ctx, s.Namespace, docs, e.runOf(i)+"r", e.o.Timeout)
}

// revertGrace is added to the timeout of a way back, for what is not waiting, and for taking the lease of a release again where it
// was lost.
const revertGrace = 2 * time.Minute
