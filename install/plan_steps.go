package install

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sealift/sealift/internal/ledger"
)

// steps are what an install will do, in the order in which it is begun: definitions first, then the releases, each after those
// that it depends on, and last what goes. releases are those of p.
func (p *Plan) steps(releases []*Release, test bool) []PlannedStep {
	s := &stepper{steps: []PlannedStep{}}
	var definitions []int
	for i := range p.Releases {
		r := &p.Releases[i]
		if !r.Changed() || len(r.parts.crds) == 0 {
			continue
		}
		do := "apply the definitions of its chart"
		if p.Cluster != "" {
			do += fmt.Sprintf(", of which %d change", len(r.Definitions))
		}
		definitions = append(definitions, s.add(PlannedStep{
			Kind: ledger.StepCRDs, Release: r.Key(), After: slices.Clone(definitions), Do: do, Back: "apply the former definitions; new ones stay",
			NoReturn: storageReasons(r, r.parts.crds),
		}))
	}
	noReturn := map[string][]string{}
	for i := range p.Releases {
		noReturn[p.Releases[i].Key()] = p.Releases[i].NoReturn
	}
	order, after := orderReleases(releases, noReturn)
	last := make([][]int, len(p.Releases)) // steps after which a release is done
	for _, i := range order {
		before := slices.Clone(definitions)
		for _, a := range after[i] {
			before = append(before, last[a]...)
		}
		last[i] = before
		if p.Releases[i].Changed() {
			last[i] = []int{s.release(&p.Releases[i], before, test)}
		}
	}
	for i := range p.Releases {
		if r := &p.Releases[i]; r.Changed() {
			s.front(r)
		}
	}
	for i := range slices.Backward(p.Dropped) {
		if d := &p.Dropped[i]; d.Action == ActionRemove {
			s.add(PlannedStep{
				Kind: ledger.StepRemove, Release: d.Namespace + "/" + d.Release, After: s.all(),
				Do:   fmt.Sprintf("uninstall %s %s; what holds data stays", d.Chart, d.Version),
				Back: fmt.Sprintf("install revision %d again (%s %s)", d.Revision, d.Chart, d.Version),
			})
		}
	}
	return s.steps
}

type stepper struct{ steps []PlannedStep }

func (s *stepper) add(step PlannedStep) int {
	if step.After == nil {
		step.After = []int{}
	}
	if step.NoReturn == nil {
		step.NoReturn = []string{}
	}
	slices.Sort(step.After)
	step.After = slices.Compact(step.After)
	s.steps = append(s.steps, step)
	return len(s.steps) - 1
}

// all are the steps that there are.
func (s *stepper) all() []int {
	list := make([]int, len(s.steps))
	for i := range list {
		list[i] = i
	}
	return list
}

// front adds the step that leads a front to a release that stands beside the one before.
func (s *stepper) front(r *ReleasePlan) {
	if r.spec == nil || r.spec.Rollout == nil || r.As == "" {
		return
	}
	front := r.spec.Rollout.Front.Kind + "/" + r.spec.Rollout.Front.Name
	s.add(PlannedStep{
		Kind: ledger.StepFront, Release: r.Key(), After: s.all(),
		Do:   fmt.Sprintf("lead %s to it, with 'sealift promote'", front),
		Back: fmt.Sprintf("lead %s to what it leads to now, with 'sealift abort'", front),
	})
}

// release adds the steps of one release, and returns the last of them.
func (s *stepper) release(r *ReleasePlan, after []int, test bool) int {
	next := func(step PlannedStep) {
		step.Release, step.After = r.Key(), after
		after = []int{s.add(step)}
	}
	if len(r.Backup) > 0 {
		step := PlannedStep{Kind: ledger.StepBackup, Do: "run " + strings.Join(r.Backup, ", ")}
		if len(r.Restore) > 0 {
			step.Back = "run " + strings.Join(r.Restore, ", ")
		}
		next(step)
	}
	step := PlannedStep{
		Kind: ledger.StepRelease, Do: fmt.Sprintf("%s %s %s", r.Action, r.Chart, r.Version), NoReturn: r.NoReturn, Hold: true,
		Back: "uninstall; claims, volumes, namespaces and definitions stay",
	}
	switch {
	case r.From != nil:
		step.Do += fmt.Sprintf(" over revision %d (%s %s)", r.From.Revision, r.From.Chart, r.From.Version)
		step.Back = fmt.Sprintf("to revision %d (%s %s)", r.From.Revision, r.From.Chart, r.From.Version)
	case r.Action == ActionEither:
		step.Back = "to the revision that is installed now, or uninstall; data stays"
	}
	if len(r.Hooks) > 0 {
		step.Do += ", with " + strings.Join(r.Hooks, ", ")
	}
	next(step)
	if test {
		next(PlannedStep{Kind: ledger.StepTest, Do: "run the tests of the chart"})
	}
	if r.spec != nil {
		for i := range r.spec.Checks {
			next(PlannedStep{Kind: ledger.StepCheck, Do: fmt.Sprintf("check %q", r.spec.Checks[i].Name)})
		}
	}
	return after[0]
}

// NoReturnFrom is the index of the first step after which nothing goes back; -1 for none.
func (p *Plan) NoReturnFrom() int {
	return slices.IndexFunc(p.Steps, func(s PlannedStep) bool { return len(s.NoReturn) > 0 })
}
