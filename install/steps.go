package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/sealift/sealift/internal/ledger"
	"github.com/sealift/sealift/internal/release"
)

// errNoRelease says that a step is about a release that was not given.
var errNoRelease = errors.New("the bundle has no such release")

// planInstall makes the transaction that installs or upgrades a bundle, and what has to be kept beside the state for it, by ID. It
// changes nothing.
func (e *engine) planInstall(ctx context.Context, c Change) (*ledger.Transaction, map[string][]byte, error) {
	t, err := e.newTransaction(ctx, c.Receipt)
	if err != nil {
		return nil, nil, err
	}
	t.Options = c.Options
	t.Action = ledger.ActionInstall
	var installed []ledger.Release
	if e.state != nil && e.state.Installed != nil {
		t.Action, t.Receipt.Replaces = ledger.ActionUpgrade, e.state.Installed.Version
		installed = e.state.Installed.Releases
	}
	t.Receipt.Action = t.Action
	values := map[string][]byte{}
	if c.Said != nil {
		t.Receipt.Values = t.ID
		values[t.ID] = c.Said
	}
	noReturn := map[string][]string{}
	plans := map[string]*ReleasePlan{}
	if c.Plan != nil {
		for i := range c.Plan.Releases {
			p := &c.Plan.Releases[i]
			noReturn[p.Key()], plans[p.Key()] = p.NoReturn, p
		}
	}
	left := func(r *Release) bool {
		p := plans[r.Namespace+"/"+r.Name]
		return p != nil && !p.Changed()
	}
	since := func(r *Release, s *ledger.Step) error {
		p := plans[s.Key()]
		switch {
		case p == nil:
			return nil
		case p.From != nil && p.From.Revision != s.From, p.From == nil && p.Action == release.ActionInstall && s.From > 0, left(r) && s.From == 0:
			e := &release.OvertakenError{Release: s.Helm(), Namespace: s.Namespace, Newest: s.Seen}
			if p.From != nil {
				e.Revision = p.From.Revision
			}
			return &PreflightError{fmt.Errorf("since it was planned: %w", e)}
		}
		return nil
	}
	parts := make([]rendered, len(c.Releases))
	var all []int // the steps with definitions: everything else comes after these
	var adopted []string
	for i, r := range c.Releases {
		if left(r) {
			continue
		}
		if parts[i], err = e.parts(ctx, r); err != nil {
			return nil, nil, &PreflightError{fmt.Errorf("release %s/%s: %w", r.Namespace, r.Name, err)}
		}
		if c.Options.Adopt {
			why, err := e.adopted(ctx, r, parts[i].docs)
			if err != nil {
				return nil, nil, err
			}
			if why != "" {
				key := r.Namespace + "/" + r.Name
				noReturn[key] = append(slices.Clone(noReturn[key]), why)
				adopted = append(adopted, key+": "+why)
			}
		}
		if len(parts[i].crds) > 0 {
			s := stepOf(r, ledger.StepCRDs)
			s.NoReturn = storageReasons(plans[s.Key()], parts[i].crds)
			s.Was = fmt.Sprintf("sealift.%s.was-%s-%d", e.bundle, t.ID, len(t.Steps))
			s.After = slices.Clone(all)
			all = append(all, len(t.Steps))
			t.Steps = append(t.Steps, s)
		}
	}
	if len(adopted) > 0 && !c.Options.AcceptNoReturn {
		return nil, nil, &PreflightError{&NoReturnError{Reasons: adopted}}
	}
	t.Receipt.NoReturn = append(slices.Clone(t.Receipt.NoReturn), adopted...)
	order, after := orderReleases(c.Releases, noReturn)
	last := make([][]int, len(c.Releases)) // the steps after which a release is done
	t.Receipt.Releases = make([]ledger.Release, len(c.Releases))
	for _, i := range order {
		r := c.Releases[i]
		t.Receipt.Releases[i] = ledger.Release{
			Namespace: r.Namespace, Name: r.Name, As: asOf(r), Chart: r.Chart.Name, Version: r.Chart.Version, Rollback: r.Spec.Rollback,
			Front: frontAfter(r, e.state),
		}
		before := slices.Clone(all)
		for _, a := range after[i] {
			before = append(before, last[a]...)
		}
		slices.Sort(before)
		before = slices.Compact(before)
		add := func(s ledger.Step) int {
			s.After = before
			t.Steps = append(t.Steps, s)
			before = []int{len(t.Steps) - 1}
			return len(t.Steps) - 1
		}
		s := stepOf(r, ledger.StepRelease)
		if err := e.lookUp(ctx, &s); err != nil {
			return nil, nil, err
		}
		if err := since(r, &s); err != nil {
			return nil, nil, err
		}
		if left(r) {
			last[i] = before
			t.Receipt.Releases[i].Revision = s.From
			t.Receipt.Releases[i].Objects = e.digest(ctx, &s, s.From)
			continue
		}
		s.NoReturn = noReturn[s.Key()]
		if s.From > 0 && len(parts[i].backup) > 0 {
			at := add(stepOf(r, ledger.StepBackup))
			if len(parts[i].restore) > 0 {
				values[restoreID(t.ID, at)] = parts[i].restore
			}
		}
		last[i] = []int{add(s)}
		if c.Options.Test {
			last[i] = []int{add(stepOf(r, ledger.StepTest))}
		}
		for k := range r.Spec.Checks {
			s := stepOf(r, ledger.StepCheck)
			s.Name = r.Spec.Checks[k].Name
			last[i] = []int{add(s)}
		}
	}
	if err := e.addSteps(ctx, t, frontSteps(c.Releases, e.state)); err != nil {
		return nil, nil, err
	}
	if err := e.planDropped(ctx, t, installed, c); err != nil {
		return nil, nil, err
	}
	if len(t.Steps) > ledger.MaxSteps {
		return nil, nil, &PreflightError{fmt.Errorf("the install has %d steps, and at most %d are possible", len(t.Steps), ledger.MaxSteps)}
	}
	return t, values, nil
}

// storageReasons are the points of no return that lie in the definitions of a chart, and not in the release itself.
func storageReasons(p *ReleasePlan, crds []byte) []string {
	if p == nil {
		return nil
	}
	var reasons []string
	for i := range p.Definitions {
		d := &p.Definitions[i]
		if d.StorageWas != "" && d.StorageWas != d.Storage && slices.Contains(d.Added, d.Storage) && bytes.Contains(crds, []byte(d.Name)) {
			reasons = append(reasons, fmt.Sprintf("objects of %s are kept in version %q from then on", d.Name, d.Storage))
		}
	}
	return reasons
}

// adopted is why there is no way back for a release that takes over objects which are not its own: what takes the release, or its
// new revision, away takes them along. It is empty where it takes over none.
func (e *engine) adopted(ctx context.Context, r *Release, docs []byte) (string, error) {
	err := e.cluster.CheckOwners(ctx, r.As, r.Namespace, docs)
	var foreign *release.ForeignError
	if errors.As(err, &foreign) {
		return fmt.Sprintf("it takes over %s of %s: a way back would delete what it has taken over", foreign.Object, foreign.Owner), nil
	}
	return "", err
}

// newTransaction is one without steps.
func (e *engine) newTransaction(ctx context.Context, r ledger.Receipt) (*ledger.Transaction, error) {
	now := e.o.Now()
	uid, err := e.cluster.UID(ctx)
	if err != nil && !isForbidden(err) {
		return nil, err
	}
	if uid != "" {
		r.Cluster = uid
	}
	r.ID, r.Begun, r.Ended, r.Outcome, r.Failure = newID(now), stamp(now), "", "", ""
	if r.By == "" {
		r.By = e.o.By
	}
	r.Checks, r.Kept = []ledger.Checked{}, []string{}
	return &ledger.Transaction{ID: r.ID, Phase: ledger.PhaseForward, Receipt: r, Options: ledger.Options{TimeoutSeconds: int(e.o.Timeout.Seconds())}}, nil
}

func isForbidden(err error) bool {
	var f *release.ForbiddenError
	return errors.As(err, &f) || release.IsForbidden(err)
}

// restoreID names the restore Jobs of a backup step among the values beside the state.
func restoreID(transaction string, step int) string {
	return fmt.Sprintf("%s-restore-%d", transaction, step)
}

func asOf(r *Release) string {
	if r.As == r.Name {
		return ""
	}
	return r.As
}

func stepOf(r *Release, kind string) ledger.Step {
	return ledger.Step{Kind: kind, Status: ledger.StepPlanned, Namespace: r.Namespace, Release: r.Name, As: asOf(r)}
}

// lookUp records what there is before a step.
func (e *engine) lookUp(ctx context.Context, s *ledger.Step) error {
	now, err := e.cluster.Current(ctx, s.Helm(), s.Namespace)
	if err != nil {
		return err
	}
	if now != nil {
		s.From = now.Revision
	}
	newest, err := e.cluster.Newest(ctx, s.Helm(), s.Namespace)
	if err != nil {
		return err
	}
	if newest != nil {
		s.Seen = newest.Revision
	}
	return nil
}

// planDropped adds the removal of releases that the new version has no more, or says in the receipt that they are left.
func (e *engine) planDropped(ctx context.Context, t *ledger.Transaction, installed []ledger.Release, c Change) error {
	keys := keysOf(c.Releases)
	for i := range slices.Backward(installed) {
		r := installed[i]
		if slices.Contains(keys, r.Key()) {
			continue
		}
		if !c.Options.RemoveDropped {
			r.Left = true
			t.Receipt.Releases = append(t.Receipt.Releases, r)
			continue
		}
		if err := e.addSteps(ctx, t, append(frontRemoval(&r), removal(&r))); err != nil {
			return err
		}
	}
	return nil
}

// addSteps adds steps, each after all that there is before it.
func (e *engine) addSteps(ctx context.Context, t *ledger.Transaction, steps []ledger.Step) error {
	for i := range steps {
		s := steps[i]
		if s.Kind == ledger.StepRemove || s.Kind == ledger.StepRelease {
			if err := e.lookUp(ctx, &s); err != nil {
				return err
			}
		}
		s.After = afterAll(t)
		t.Steps = append(t.Steps, s)
	}
	return nil
}

// removal is the step that removes a release.
func removal(r *ledger.Release) ledger.Step {
	return ledger.Step{Kind: ledger.StepRemove, Status: ledger.StepPlanned, Namespace: r.Namespace, Release: r.Name, As: r.As}
}

// afterAll are the steps that no other one comes after: who comes after these comes after all.
func afterAll(t *ledger.Transaction) []int {
	last := make([]bool, len(t.Steps))
	for i := range t.Steps {
		last[i] = true
		for _, a := range t.Steps[i].After {
			last[a] = false
		}
	}
	var ends []int
	for i, is := range last {
		if is {
			ends = append(ends, i)
		}
	}
	return ends
}

// orderReleases returns an order in which releases may be begun, and for each, by its position, those it comes after.
//
// A release that names what it depends on comes after these; one that names nothing comes after all that the vendor has before
// it, since that order is all that he said. Plain objects come before charts, as far as they do not depend on one. What has no way
// back comes as late as that permits.
func orderReleases(releases []*Release, noReturn map[string][]string) (order []int, after [][]int) {
	n := len(releases)
	at := map[string]int{}
	for i, r := range releases {
		at[r.Namespace+"/"+r.Name] = i
	}
	g := make(graph, n)
	for i, r := range releases {
		g[i] = map[int]bool{}
		if len(r.Spec.DependsOn) == 0 {
			for j := range i {
				g[i][j] = true
			}
			continue
		}
		for _, key := range r.Spec.DependsOn {
			// A manifest names only what stands before.
			if j, ok := at[key]; ok && j < i {
				g[i][j] = true
			}
		}
	}
	chart := func(i int) bool { return !releases[i].Spec.Plain }
	for j, r := range releases {
		if !r.Spec.Plain || g.some(j, chart) {
			continue
		}
		for i := j + 1; i < n; i++ {
			if chart(i) {
				g[i][j] = true
			}
		}
	}
	final := func(i int) bool { return len(noReturn[releases[i].Namespace+"/"+releases[i].Name]) > 0 }
	for i := range releases {
		if !final(i) {
			continue
		}
		for j := range releases {
			if j != i && (!final(j) || j < i) && !g.reaches(j, i) {
				g[i][j] = true
			}
		}
	}
	begun := make([]bool, n)
	for len(order) < n {
		for i := range releases {
			if !begun[i] && !g.waits(i, begun) {
				begun[i] = true
				order = append(order, i)
				break
			}
		}
	}
	after = make([][]int, n)
	for i := range g {
		for j := range n {
			if g[i][j] {
				after[i] = append(after[i], j)
			}
		}
	}
	return order, after
}

// graph says for each what it comes after. It has no circles.
type graph []map[int]bool

// reaches says that i comes after j, or after one that does.
func (g graph) reaches(i, j int) bool {
	return g.some(i, func(k int) bool { return k == j })
}

// some says that i comes after one that is so, or after one that does.
func (g graph) some(i int, is func(int) bool) bool {
	seen := make([]bool, len(g))
	var look func(int) bool
	look = func(i int) bool {
		for j := range g[i] {
			if seen[j] {
				continue
			}
			seen[j] = true
			if is(j) || look(j) {
				return true
			}
		}
		return false
	}
	return look(i)
}

func (g graph) waits(i int, begun []bool) bool {
	for j := range g[i] {
		if !begun[j] {
			return true
		}
	}
	return false
}
