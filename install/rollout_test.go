package install

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/internal/ledger"
	"github.com/sealift/sealift/manifest"
)

// rolledOut is a release of the chart for rollouts.
func rolledOut(t *testing.T, name string, steps ...int) *Release {
	t.Helper()
	c, err := chart.Load("../testdata/charts/colours")
	if err != nil {
		t.Fatal(err)
	}
	r := &Release{
		Name: name, Namespace: "shop", As: name, Chart: c, Values: map[string]any{},
		Spec: &manifest.Chart{Release: name, Namespace: "shop", Rollout: &manifest.Rollout{
			Strategy: manifest.RolloutBlueGreen, Front: manifest.Front{Kind: manifest.FrontService, Name: name + "-front"}, Steps: steps,
		}},
	}
	if len(steps) > 0 {
		r.Spec.Rollout.Strategy = manifest.RolloutCanary
	}
	return r
}

// installedAs is a state in which releases of the namespace shop are installed, each under a Helm name; "" for its own.
func installedAs(names map[string]string) *ledger.State {
	s := &ledger.State{Name: "b", Installed: &ledger.Receipt{Version: "1.0.0"}}
	for name, as := range names {
		r := ledger.Release{Namespace: "shop", Name: name, As: as}
		if as != "" {
			r.Front = &ledger.Front{Kind: manifest.FrontService, Name: name + "-front", Service: "*", To: as, Strategy: manifest.RolloutBlueGreen}
		}
		s.Installed.Releases = append(s.Installed.Releases, r)
	}
	return s
}

func TestChooseColours(t *testing.T) {
	inPlace := func() *Release {
		r := rolledOut(t, "web")
		r.Spec.Rollout = nil
		return r
	}
	open := installedAs(map[string]string{"web": "web-green"})
	open.Open = &ledger.Transaction{Steps: []ledger.Step{{Kind: ledger.StepRelease, Namespace: "shop", Release: "web", As: "web-blue"}}}
	planned := installedAs(map[string]string{"web": "web-blue"})
	planned.Open = &ledger.Transaction{Receipt: ledger.Receipt{Releases: []ledger.Release{{Namespace: "shop", Name: "web", As: "web-blue"}}}}
	for name, c := range map[string]struct {
		release *Release
		state   *ledger.State
		want    string
	}{
		"first":                   {rolledOut(t, "web"), nil, "web-blue"},
		"first of a known bundle": {rolledOut(t, "web"), &ledger.State{}, "web-blue"},
		"second":                  {rolledOut(t, "web"), installedAs(map[string]string{"web": "web-blue"}), "web-green"},
		"third":                   {rolledOut(t, "web"), installedAs(map[string]string{"web": "web-green"}), "web-blue"},
		"installed in place":      {rolledOut(t, "web"), installedAs(map[string]string{"web": ""}), "web-blue"},
		"in place":                {inPlace(), installedAs(map[string]string{"web": ""}), "web"},
		"in place first":          {inPlace(), nil, "web"},
		"given up":                {inPlace(), installedAs(map[string]string{"web": "web-green"}), "web-green"},
		"open":                    {rolledOut(t, "web"), open, "web-blue"},
		"open, by its receipt":    {rolledOut(t, "web"), planned, "web-blue"},
	} {
		if err := ChooseColours([]*Release{c.release}, c.state); err != nil || c.release.As != c.want {
			t.Errorf("%s: %q, %v; want %q", name, c.release.As, err, c.want)
		}
	}
	r := rolledOut(t, "web")
	r.Spec.Rollout.Front.Name = "other"
	var changed *FrontChangedError
	var preflight *PreflightError
	if err := ChooseColours([]*Release{r}, installedAs(map[string]string{"web": "web-blue"})); !errors.As(err, &changed) || !errors.As(err, &preflight) {
		t.Errorf("with another front: %v", err)
	}
}

func TestCheckRollouts(t *testing.T) {
	ctx := context.Background()
	r := rolledOut(t, "web")
	for _, state := range []*ledger.State{nil, installedAs(map[string]string{"web": ""}), installedAs(map[string]string{"web": "web-blue"})} {
		if err := ChooseColours([]*Release{r}, state); err != nil {
			t.Fatal(err)
		}
		if err := CheckRollouts(ctx, []*Release{r}, state, nil); err != nil {
			t.Fatal(err)
		}
		if r.front == nil || r.front.Service != "*" || r.front.To != r.As {
			t.Errorf("front %+v", r.front)
		}
	}
	// What a site says may be what two versions cannot both have.
	r.Values["name"] = "fixed"
	var eligible *chart.NotEligibleError
	var preflight *PreflightError
	if err := CheckRollouts(ctx, []*Release{r}, nil, nil); !errors.As(err, &eligible) || !errors.As(err, &preflight) || eligible.Obstacles[0].Object != "Service/fixed" {
		t.Errorf("with a fixed name: %v", err)
	}
}

// checked are releases for which CheckRollouts has succeeded.
func checked(t *testing.T, state *ledger.State, releases ...*Release) []*Release {
	t.Helper()
	if err := errors.Join(ChooseColours(releases, state), CheckRollouts(context.Background(), releases, state, nil)); err != nil {
		t.Fatal(err)
	}
	return releases
}

func TestFrontSteps(t *testing.T) {
	state := installedAs(map[string]string{"web": "web-blue", "api": "api-green", "old": ""})
	findRelease(state.Installed.Releases, "shop/web").Front.Spare = "web" // installed in place once
	releases := checked(t, state, rolledOut(t, "web"), rolledOut(t, "api", 10, 50), rolledOut(t, "one"), rolledOut(t, "old"))
	type line struct {
		release, was, to, also string
		share, round           int
		kind                   string
	}
	var got []line
	steps := frontSteps(releases, state)
	for i := range steps {
		s := &steps[i]
		l := line{release: s.Release, round: s.Round, kind: s.Kind}
		if s.FrontWas != nil {
			l.was = s.FrontWas.To
		}
		if s.FrontTo != nil {
			l.to, l.also, l.share = s.FrontTo.To, s.FrontTo.Also, s.FrontTo.Share
		}
		if s.Kind == ledger.StepRemove {
			l.to = s.As
		}
		got = append(got, l)
	}
	want := []line{
		{"one", "", "one-blue", "", 0, 0, "front"},
		{"old", "", "old-blue", "", 0, 0, "front"},
		{"api", "api-green", "api-green", "api-blue", 10, 1, "front"},
		{"api", "api-green", "api-green", "api-blue", 50, 2, "front"},
		{"web", "web-blue", "web-green", "", 0, 3, "front"},
		{"api", "api-green", "api-blue", "", 0, 3, "front"},
		{"web", "", "web", "", 0, 0, "remove"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("steps\n%v, want\n%v", got, want)
	}
	for _, r := range releases {
		f := frontAfter(r, state)
		old := installedRelease(state, "shop/"+r.Name)
		if f.To != r.As || f.Also != "" || f.Object != "" || old != nil && f.Spare != old.Helm() {
			t.Errorf("front of %s afterwards: %+v", r.Name, f)
		}
	}
}

func TestRounds(t *testing.T) {
	state := installedAs(map[string]string{"api": "api-green"})
	state.Open = &ledger.Transaction{Phase: ledger.PhaseStaged, Receipt: ledger.Receipt{Version: "2.0.0"}}
	state.Open.Steps = frontSteps(checked(t, state, rolledOut(t, "api", 10, 50)), installedAs(map[string]string{"api": "api-green"}))
	for i, want := range []struct {
		round int
		now   string
		share int
	}{{1, "", 10}, {2, "api-blue", 50}, {3, "api-blue", 0}} {
		s := StagingOf(state)
		if s == nil || s.Round != want.round || s.Rounds != 3 || len(s.Fronts) != 1 || s.Fronts[0].Now.Also != want.now || s.Fronts[0].Next.Share != want.share {
			t.Fatalf("after %d: %+v", i, s)
		}
		state.Open.Steps[i].Status = ledger.StepDone
	}
	if s := StagingOf(state); s != nil || nextRound(state.Open) != 0 {
		t.Errorf("after all: %+v", s)
	}
}

func TestFrontBack(t *testing.T) {
	at := func(as, to string) *ledger.Release {
		r := installedAs(map[string]string{"web": as}).Installed.Releases[0]
		if to != "" {
			r.Front.To = to
		}
		return &r
	}
	for name, c := range map[string]struct {
		now, back *ledger.Release
		to, spare string
		step      bool
	}{
		"to the spare":    {at("web-green", ""), at("web-blue", ""), "web-blue", "web-green", true},
		"the same colour": {at("web-green", ""), at("web-green", ""), "web-green", "", false},
		"in place":        {at("web-green", ""), at("", ""), "web", "web-green", true},
	} {
		front, step := frontBack(c.now, c.back)
		if front == nil || front.To != c.to || front.Spare != c.spare || (step != nil) != c.step {
			t.Errorf("%s: %+v, %+v", name, front, step)
		}
		if step != nil && (step.FrontWas.To != c.now.Helm() || step.FrontTo.To != c.to || step.Round != 0) {
			t.Errorf("%s: step %+v", name, step)
		}
	}
	if front, step := frontBack(at("", ""), at("", "")); front != nil || step != nil {
		t.Errorf("without a front: %+v, %+v", front, step)
	}
	r := at("web-green", "")
	r.Front.Spare = "web-blue"
	if steps := frontRemoval(r); len(steps) != 2 || steps[0].FrontTo != nil || steps[0].FrontWas.To != "web-green" || steps[1].Helm() != "web-blue" {
		t.Errorf("removal: %+v", steps)
	}
}
