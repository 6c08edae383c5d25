package install

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/internal/ledger"
	"github.com/sealift/sealift/internal/release"
	"github.com/sealift/sealift/manifest"
)

// FrontChangedError says that a new version wants to be led to otherwise than the installed one, which would cut off those
// who use the old front.
type FrontChangedError struct {
	Release  string // "NAMESPACE/NAME"
	Was, Now string // "KIND/NAME", and the Service behind it where that is what differs
}

// Error names both.
func (e *FrontChangedError) Error() string {
	return fmt.Sprintf("release %s is reached by %s, and the new version is made to be reached by %s", e.Release, e.Was, e.Now)
}

// NotStagedError says that nothing waits to be promoted, or to be aborted.
type NotStagedError struct {
	Bundle string
	// Condition is how the bundle stands, see ledger.State.Condition.
	Condition string
}

// Error says how it stands.
func (e *NotStagedError) Error() string {
	return fmt.Sprintf("no version of bundle %q waits to be promoted: it is in state %q", e.Bundle, e.Condition)
}

// installedRelease is what a state knows of a release, by its key; nil for nothing.
func installedRelease(state *ledger.State, key string) *ledger.Release {
	if state == nil || state.Installed == nil {
		return nil
	}
	return findRelease(state.Installed.Releases, key)
}

func findRelease(list []ledger.Release, key string) *ledger.Release {
	for i := range list {
		if list[i].Key() == key {
			return &list[i]
		}
	}
	return nil
}

// ChooseColours decides under which names Helm gets the releases. One that is rolled out beside its former version gets the
// name that is not in use, of the two that there are (see manifest.Colours): the one that users are not led to. Those of a
// transaction that is open keep the names that they have in it.
func ChooseColours(releases []*Release, state *ledger.State) error {
	for _, r := range releases {
		r.As = r.Name
		key := r.Namespace + "/" + r.Name
		if state != nil && state.Open != nil {
			if open := findRelease(state.Open.Receipt.Releases, key); open != nil {
				r.As = open.Helm()
				continue
			}
			if i := slices.IndexFunc(state.Open.Steps, func(s ledger.Step) bool { return s.Key() == key && s.Kind == ledger.StepRelease }); i >= 0 {
				r.As = state.Open.Steps[i].Helm()
				continue
			}
		}
		old := installedRelease(state, key)
		if r.Spec == nil || r.Spec.Rollout == nil {
			// A vendor who gives the rollout up leaves users where they are.
			if old != nil {
				r.As = old.Helm()
			}
			continue
		}
		blue, green := manifest.Colours(r.Name)
		r.As = blue
		if old != nil && old.Helm() == blue {
			r.As = green
		}
		if old == nil || old.Front == nil {
			continue
		}
		was, now := old.Front, r.Spec.Rollout.Front
		if was.Kind != now.Kind || was.Name != now.Name {
			return &PreflightError{&FrontChangedError{key, was.Kind + "/" + was.Name, now.Kind + "/" + now.Name}}
		}
	}
	return nil
}

// CheckRollouts finds out whether the releases that are rolled out beside their former version can be: by rendering them under
// both names, and, where cluster is not nil, by looking at their fronts. It has to be called after ChooseColours, and before
// a transaction is begun. Errors are *PreflightError, in which are *chart.NotEligibleError, *release.FrontTakenError,
// *release.FrontMissingError, *release.ForeignPodsError, *FrontChangedError and *MissingAPIError, and those of the cluster.
func CheckRollouts(ctx context.Context, releases []*Release, state *ledger.State, cluster *release.Cluster) error {
	if !slices.ContainsFunc(releases, func(r *Release) bool { return r.Spec != nil && r.Spec.Rollout != nil }) {
		return nil
	}
	version := ""
	var apis []string
	if cluster != nil {
		var err error
		if version, err = cluster.Version(ctx); err != nil {
			return err
		}
		if apis, err = cluster.APIVersions(ctx); err != nil {
			return err
		}
	}
	for _, r := range releases {
		if r.Spec == nil || r.Spec.Rollout == nil {
			continue
		}
		if err := r.checkRollout(ctx, state, version, apis); err != nil {
			return err
		}
		if cluster == nil {
			continue
		}
		if r.front.Kind == manifest.FrontHTTPRoute && !slices.Contains(apis, gatewayAPI) {
			return &PreflightError{&MissingAPIError{[]string{gatewayAPI}}}
		}
		err := cluster.CheckFront(ctx, frontOf(r.Namespace, r.Name, r.front))
		if err == nil && r.behind != nil {
			err = cluster.CheckShares(ctx, r.Namespace, *r.behind)
		}
		var taken *release.FrontTakenError
		var missing *release.FrontMissingError
		var foreign *release.ForeignPodsError
		if errors.As(err, &taken) || errors.As(err, &missing) || errors.As(err, &foreign) || release.IsForbidden(err) {
			return &PreflightError{fmt.Errorf("release %s/%s: %w", r.Namespace, r.Name, err)}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// AllRounds as TransactOptions.Rounds leads users to the new version as soon as all checks have passed.
const AllRounds = ledger.MaxSteps

// gatewayAPI is what a cluster serves whose gateways take an HTTPRoute.
const gatewayAPI = "gateway.networking.k8s.io/v1"

// checkRollout compares what the chart renders to under the new name with what it renders to under the one that is in use.
func (r *Release) checkRollout(ctx context.Context, state *ledger.State, version string, apis []string) error {
	key := r.Namespace + "/" + r.Name
	rollout := r.Spec.Rollout
	blue, green := manifest.Colours(r.Name)
	other := blue
	if r.As == blue {
		other = green
	}
	old := installedRelease(state, key)
	if old != nil && old.Helm() != r.As {
		other = old.Helm()
	}
	shares := rollout.Strategy == manifest.RolloutCanary && rollout.Front.Kind == manifest.FrontService
	colours := chart.Colours{
		Release: r.Name, One: other, Two: r.As, Namespace: r.Namespace, FrontKind: rollout.Front.Kind, FrontName: rollout.Front.Name,
		Service: rollout.Front.Service, Shares: shares, MigrationsSafe: r.Spec.Rollback == manifest.RollbackSafe,
	}
	var docs [2][]byte
	for i, name := range []string{colours.One, colours.Two} {
		var err error
		docs[i], err = r.Chart.Render(ctx, chart.RenderOptions{
			Release: name, Namespace: r.Namespace, Values: r.Values, KubeVersion: version, APIVersions: apis,
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return &PreflightError{fmt.Errorf("release %s under the name %q: %w", key, name, err)}
		}
	}
	behind, obstacles, err := colours.Eligible(docs[0], docs[1])
	if err != nil {
		return &PreflightError{fmt.Errorf("release %s: %w", key, err)}
	}
	if len(obstacles) > 0 {
		return &PreflightError{&chart.NotEligibleError{Release: key, Obstacles: obstacles}}
	}
	service := behind.Service
	if old != nil && old.Front != nil && rollout.Strategy == manifest.RolloutCanary && old.Front.Service != service {
		// One front leads to both for a while, and knows one pattern.
		return &PreflightError{&FrontChangedError{key, "service " + old.Front.Service, "service " + service}}
	}
	r.front = &ledger.Front{Kind: rollout.Front.Kind, Name: rollout.Front.Name, Strategy: rollout.Strategy, Service: service, To: r.As}
	r.behind = nil
	if shares {
		r.behind = behind
	}
	if o := rollout.Front.Object; o != nil && r.bundle != nil {
		raw, err := r.bundle.ReadBlob(o.Digest, manifest.MaxFrontBytes)
		if err != nil {
			return err
		}
		r.front.Object = string(raw)
	}
	return nil
}

// frontOf is a front of the ledger as package release has it.
func frontOf(namespace, name string, f *ledger.Front) release.Front {
	return release.Front{
		Namespace: namespace, Kind: f.Kind, Name: f.Name, Release: name, Service: f.Service,
		To: f.To, Also: f.Also, Share: f.Share, Object: []byte(f.Object),
	}
}

// frontAfter is what a receipt says of the front of a release once all is done: nil for one that has none. state is what was
// known before.
func frontAfter(r *Release, state *ledger.State) *ledger.Front {
	old := installedRelease(state, r.Namespace+"/"+r.Name)
	if r.front == nil {
		if old == nil {
			return nil
		}
		return old.Front
	}
	f := *r.front
	f.Object = ""
	if old != nil && old.Helm() != r.As {
		f.Spare = old.Helm()
	}
	return &f
}

// frontSteps are the steps that lead users to the releases, the last ones of a transaction. A front that nobody can use yet
// waits for nobody. Those that are in use are switched in rounds: all that have a share for a canary go one share on
// in each round, and in the last one all fronts lead to the new version.
func frontSteps(releases []*Release, state *ledger.State) []ledger.Step {
	var first, last []ledger.Step
	rounds := 0
	type canary struct {
		release  *Release
		was      *ledger.Front
		switches []ledger.Front
	}
	var waiting []canary
	for _, r := range releases {
		to := frontAfter(r, state)
		if to == nil || r.front == nil {
			continue
		}
		old := installedRelease(state, r.Namespace+"/"+r.Name)
		if old == nil || old.Front == nil {
			to.Object = r.front.Object
			first = append(first, frontStep(r.Namespace, r.Name, r.As, nil, to, 0))
			continue
		}
		if old.Helm() == r.As {
			continue // it is where users are already
		}
		c := canary{release: r, was: old.Front}
		if to.Strategy == manifest.RolloutCanary {
			for _, share := range r.Spec.Rollout.Steps {
				c.switches = append(c.switches, ledger.Front{
					Kind: to.Kind, Name: to.Name, Strategy: to.Strategy, Service: to.Service, To: old.Helm(), Also: r.As, Share: share, Spare: old.Front.Spare,
				})
			}
		}
		c.switches = append(c.switches, *to)
		waiting = append(waiting, c)
		rounds = max(rounds, len(c.switches))
		blue, green := manifest.Colours(r.Name)
		if spare := old.Front.Spare; spare != "" && spare != blue && spare != green {
			// That of a release which was installed in place once has no place any more.
			last = append(last, ledger.Step{Kind: ledger.StepRemove, Status: ledger.StepPlanned, Namespace: r.Namespace, Release: r.Name, As: spare})
		}
	}
	steps := first
	for round := 1; round <= rounds; round++ {
		for i := range waiting {
			c := &waiting[i]
			n := round - 1 - (rounds - len(c.switches)) // all end together
			if n < 0 {
				continue
			}
			was := c.was
			if n > 0 {
				was = &c.switches[n-1]
			}
			steps = append(steps, frontStep(c.release.Namespace, c.release.Name, c.release.As, was, &c.switches[n], round))
		}
	}
	return append(steps, last...)
}

func frontStep(namespace, name, as string, was, to *ledger.Front, round int) ledger.Step {
	s := ledger.Step{Kind: ledger.StepFront, Status: ledger.StepPlanned, Namespace: namespace, Release: name, As: as, Round: round}
	if was != nil {
		f := *was
		s.FrontWas = &f
	}
	if to != nil {
		f := *to
		s.FrontTo = &f
	}
	return s
}

// waitsForPromotion reports whether a step is one that is not taken before somebody says so.
func waitsForPromotion(s *ledger.Step) bool {
	return s.Kind == ledger.StepFront && s.Round > 0 && s.Status == ledger.StepPlanned
}

// nextRound is the round of fronts that is switched next; 0 where none waits.
func nextRound(t *ledger.Transaction) int {
	for i := range t.Steps {
		if s := &t.Steps[i]; waitsForPromotion(s) {
			return s.Round
		}
	}
	return 0
}

// lastRound is the round in which users are led to the new version for good; 0 where nothing is to be promoted.
func lastRound(t *ledger.Transaction) int {
	last := 0
	for i := range t.Steps {
		last = max(last, t.Steps[i].Round)
	}
	return last
}

// switchFront takes a StepFront, and notes in its FrontTo of how many pods a share is made. It may be repeated.
func switchFront(ctx context.Context, cluster *release.Cluster, step *ledger.Step) error {
	shared, err := leadFront(ctx, cluster, step, step.FrontWas, step.FrontTo)
	if err == nil && step.FrontTo != nil && step.FrontTo.Kind == manifest.FrontService && step.FrontTo.Also != "" {
		to := *step.FrontTo // others may be reading it
		to.OldPods, to.NewPods = shared.Old, shared.New
		step.FrontTo = &to
	}
	return err
}

// frontBackStep takes a StepFront back. It may be repeated, also where the step was not taken, or not all of it.
func frontBackStep(ctx context.Context, cluster *release.Cluster, step *ledger.Step) error {
	_, err := leadFront(ctx, cluster, step, step.FrontTo, step.FrontWas)
	return err
}

// leadFront makes a front what it is to be; nil is none.
func leadFront(ctx context.Context, cluster *release.Cluster, step *ledger.Step, was, to *ledger.Front) (release.Shared, error) {
	switch {
	case to == nil && was == nil:
		return release.Shared{}, nil
	case to == nil:
		return release.Shared{}, cluster.DeleteFront(ctx, frontOf(step.Namespace, step.Release, was))
	}
	var from *release.Front
	if was != nil {
		f := frontOf(step.Namespace, step.Release, was)
		from = &f
	}
	return cluster.ApplyFront(ctx, frontOf(step.Namespace, step.Release, to), from)
}

// frontBack is how the front of a release is led back to what a version had that was installed before: the step that does it,
// after that version's revision is there again, nil where nothing is to be switched, and the front as it is then.
func frontBack(now, back *ledger.Release) (*ledger.Front, *ledger.Step) {
	if now.Front == nil && back.Front == nil {
		return nil, nil
	}
	var to ledger.Front
	switch {
	case back.Front != nil:
		to = *back.Front
	default:
		// It was installed in place then. Whoever uses the front by now goes on doing so.
		to = *now.Front
		to.To = back.Helm()
	}
	to.Also, to.Share, to.OldPods, to.NewPods, to.Object = "", 0, 0, 0, ""
	if now.Front != nil && now.Front.To == to.To {
		kept := *now.Front
		return &kept, nil
	}
	to.Spare = now.Helm()
	step := frontStep(back.Namespace, back.Name, back.Helm(), now.Front, &to, 0)
	return &to, &step
}

// frontRemoval are the steps that remove the front of a release, and the former version behind it, with the release; before the
// release itself goes.
func frontRemoval(r *ledger.Release) []ledger.Step {
	if r.Front == nil {
		return nil
	}
	steps := []ledger.Step{frontStep(r.Namespace, r.Name, r.As, r.Front, nil, 0)}
	if spare := r.Front.Spare; spare != "" {
		steps = append(steps, ledger.Step{Kind: ledger.StepRemove, Status: ledger.StepPlanned, Namespace: r.Namespace, Release: r.Name, As: spare})
	}
	return steps
}

// Staging is what waits to be promoted.
type Staging struct {
	Bundle  string `json:"bundle"`
	Version string `json:"version"`
	// Round of Rounds is the next one that 'promote' does.
	Round  int           `json:"round"`
	Rounds int           `json:"rounds"`
	Fronts []StagedFront `json:"fronts"`
}

// StagedFront is where a front leads, and where it would.
type StagedFront struct {
	Namespace string `json:"namespace"`
	Release   string `json:"release"`
	Kind      string `json:"kind"`
	Name      string `json:"name"`
	// Now is where it leads, Next where it would after the next round; nil where it does not change in it.
	Now  *ledger.Front `json:"now"`
	Next *ledger.Front `json:"next,omitempty"`
}

// StagingOf says what of a state waits to be promoted; nil for nothing.
func StagingOf(state *ledger.State) *Staging {
	if state == nil || state.Open == nil || nextRound(state.Open) == 0 {
		return nil
	}
	t := state.Open
	s := &Staging{Bundle: state.Name, Version: t.Receipt.Version, Round: nextRound(t), Rounds: lastRound(t), Fronts: []StagedFront{}}
	at := map[string]int{}
	for i := range t.Steps {
		step := &t.Steps[i]
		if step.Kind != ledger.StepFront || step.Round == 0 || step.FrontTo == nil {
			continue
		}
		n, there := at[step.Key()]
		if !there {
			n = len(s.Fronts)
			at[step.Key()] = n
			s.Fronts = append(s.Fronts, StagedFront{Namespace: step.Namespace, Release: step.Release, Kind: step.FrontTo.Kind, Name: step.FrontTo.Name, Now: step.FrontWas})
		}
		switch {
		case step.Status == ledger.StepDone:
			s.Fronts[n].Now = step.FrontTo
		case step.Round == s.Round:
			s.Fronts[n].Next = step.FrontTo
		}
	}
	return s
}

// Promote leads the fronts of what is staged to it: at once, or for a canary to its next share; with all, to it for good. All
// fronts of a round are switched one after the other, each in one request. It returns the receipt where that was the last
// round, else nil. Errors are *NotStagedError, and those of Resume.
func Promote(ctx context.Context, bundle string, all bool, o TransactOptions) (*ledger.Receipt, error) {
	state, _, err := o.Ledger.Read(ctx, bundle)
	if err != nil {
		return nil, err
	}
	if state == nil || state.Condition() != ledger.ConditionStaged || nextRound(state.Open) == 0 {
		return nil, notStaged(bundle, state)
	}
	o.Rounds = nextRound(state.Open)
	if all {
		o.Rounds = lastRound(state.Open)
	}
	return Resume(ctx, bundle, nil, o)
}

func notStaged(bundle string, state *ledger.State) error {
	e := &NotStagedError{Bundle: bundle, Condition: ledger.ConditionNothing}
	if state != nil {
		e.Condition = state.Condition()
	}
	return e
}

// Abort takes back all that the open transaction of a bundle, whose new version waits to be promoted, has changed: users are
// led to the old version first. Errors are *NotStagedError, and those of Revert.
func Abort(ctx context.Context, bundle string, o TransactOptions) (*ledger.Receipt, error) {
	state, _, err := o.Ledger.Read(ctx, bundle)
	if err != nil {
		return nil, err
	}
	// One that was killed while users were led on can be given up in the same way.
	if state == nil || state.Open == nil || lastRound(state.Open) == 0 {
		return nil, notStaged(bundle, state)
	}
	return Revert(ctx, bundle, o)
}

// Retire uninstalls the former versions that fronts could be led back to, and returns their names as "NAMESPACE/NAME". What
// holds data stays. It may be repeated. Errors are *InterruptedError where a transaction is open.
func Retire(ctx context.Context, bundle string, o TransactOptions) (retired []string, err error) {
	hold, err := o.Ledger.Hold(ctx, bundle, o.Lease)
	if err != nil {
		return nil, err
	}
	defer hold.End(ctx)
	ctx, cancel := hold.Bind(ctx)
	defer cancel()
	state, version, err := o.Ledger.Read(ctx, bundle)
	if err != nil {
		return nil, err
	}
	if state == nil || state.Installed == nil || state.Open != nil {
		return nil, notStaged(bundle, state)
	}
	for i := range state.Installed.Releases {
		r := &state.Installed.Releases[i]
		if r.Front == nil || r.Front.Spare == "" {
			continue
		}
		if err := o.Cluster.Revert(ctx, r.Front.Spare, r.Namespace, nil); err != nil {
			return retired, fmt.Errorf("uninstalling %s/%s: %w", r.Namespace, r.Front.Spare, err)
		}
		// It is recorded when it is gone: one that was killed in between is repeated.
		spare := r.Front.Spare
		r.Front.Spare = ""
		if version, err = o.Ledger.Write(ctx, state, version); err != nil {
			return retired, err
		}
		retired = append(retired, r.Namespace+"/"+spare)
	}
	return retired, nil
}
