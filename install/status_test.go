package install

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sealift/sealift/internal/ledger"
	"github.com/sealift/sealift/internal/release"
	"github.com/sealift/sealift/internal/site"
)

// seen is a cluster as somebody may find it: by "NAMESPACE/NAME@REVISION" what there is.
type seen struct {
	releases map[string]*release.Examined
	holding  release.Holding
	err      error
}

func (s *seen) Examine(_ context.Context, namespace, name string, revision int) (*release.Examined, error) {
	if s.err != nil {
		return nil, s.err
	}
	if e := s.releases[namespace+"/"+name+"@"+string(rune('0'+revision))]; e != nil {
		return e, nil
	}
	return &release.Examined{}, nil
}

func (s *seen) Holding(context.Context, string) (*release.Holding, error) { return &s.holding, s.err }

func healthy(revision int, images ...release.Running) *release.Examined {
	return &release.Examined{Newest: revision, Status: "deployed", Compared: true, Objects: 3, Pods: 1, Images: images}
}

func running(ref, digest string) release.Running {
	return release.Running{Reference: ref, ID: digest, Containers: 1, Pods: []string{"shop/web-1"}}
}

func statusNow(t *testing.T, s *ledger.State, in *seen, record *site.Record) *Status {
	t.Helper()
	st, err := MakeStatus(t.Context(), s, StatusInput{Cluster: in, Ledger: in, Record: record, Now: noon})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func installedState() *ledger.State { return &ledger.State{Name: "shop", Installed: fullReceipt()} }

// TestStatusOfWhatIsInstalled: all that can be wrong with what is installed makes it unhealthy, and is said.
func TestStatusOfWhatIsInstalled(t *testing.T) {
	digest := func(d string) release.Running { return running("registry.example/prod/shop/web:2.0.0", hex64(d)) }
	for name, c := range map[string]struct {
		seen    *release.Examined
		healthy bool
		says    string
	}{
		"all is well":             {healthy(7, digest("7")), true, ""},
		"the image of a platform": {healthy(7, digest("8")), true, ""},
		"a loaded image":          {healthy(7, digest("9")), true, ""},
		"another image":           {healthy(7, digest("f")), false, "none of the bundle's"},
		"a sidecar of the site":   {healthy(7, digest("7"), running("mesh.example/proxy:1", hex64("f"))), true, "mesh.example/proxy:1 is not of this bundle"},
		"gone":                    {&release.Examined{}, false, "release shop/web is not there"},
		"changed by somebody":     {healthy(8), false, "at revision 8, installed was revision 7"},
		"failed":                  {&release.Examined{Newest: 7, Status: "failed"}, false, "is failed"},
		"an object is missing":    {&release.Examined{Newest: 7, Status: "deployed", Drift: []release.Drift{{Object: "Service/shop/web", Missing: true}}}, false, "Service/shop/web is missing"},
		"a field": {
			&release.Examined{Newest: 7, Status: "deployed", Drift: []release.Drift{{Object: "Deployment/shop/web", Fields: []release.DriftField{{Path: "spec.replicas", Recorded: "2", Live: "0", Managers: []string{"kubectl"}}}, More: 3}}}, false,
			"spec.replicas is 0, installed was 2 (set by kubectl)",
		},
		"not ready":   {&release.Examined{Newest: 7, Status: "deployed", Unhealthy: []release.Unhealthy{{Object: "Pod/shop/web-1", Status: "NotReady", Reason: "ImagePullBackOff"}}}, false, "ImagePullBackOff"},
		"not allowed": {&release.Examined{Unread: []string{"what Helm has recorded of the release: the account may not read it"}}, false, "the account may not read it"},
	} {
		st := statusNow(t, installedState(), &seen{releases: map[string]*release.Examined{"shop/web-green@7": c.seen}}, nil)
		if st.Healthy != c.healthy || st.Condition != ledger.ConditionInstalled {
			t.Errorf("%s: healthy %v, condition %q", name, st.Healthy, st.Condition)
		}
		lines := strings.Join(st.Lines(), "\n")
		if c.says == "" && lines != "" || !strings.Contains(lines, c.says) {
			t.Errorf("%s: it says %q, want %q", name, lines, c.says)
		}
		err := JudgeStatus([]*Status{st}, false, "sealift")
		var unhealthy *UnhealthyError
		if c.healthy != (err == nil) || err != nil && !errors.As(err, &unhealthy) {
			t.Errorf("%s: judged %v", name, err)
		}
		if st.Back != "sealift rollback 1.0.0" || st.On != "" {
			t.Errorf("%s: on %q, back %q", name, st.On, st.Back)
		}
	}
}

// TestStatusOfConditions: each state of a bundle has its name, its ways and its judgement.
func TestStatusOfConditions(t *testing.T) {
	open := func(action, phase string, noReturn ...string) *ledger.Transaction {
		return &ledger.Transaction{ID: "t", Action: action, Phase: phase, Receipt: *fullReceipt(), Steps: []ledger.Step{
			{Kind: ledger.StepBackup, Status: ledger.StepDone, Namespace: "shop", Release: "web"},
			{Kind: ledger.StepRelease, Status: ledger.StepBegun, Namespace: "shop", Release: "web", As: "web-green", From: 7, To: 8, NoReturn: noReturn},
			{Kind: ledger.StepCheck, Status: ledger.StepPlanned, Namespace: "shop", Release: "web", Name: "http"},
		}}
	}
	dead := release.Holding{Holder: "host/1/a", Renewed: noon.Add(-time.Hour), Duration: time.Minute}
	alive := release.Holding{Holder: "host/1/a", Renewed: noon.Add(-10 * time.Second), Duration: time.Minute}
	for name, c := range map[string]struct {
		open     *ledger.Transaction
		holding  release.Holding
		cond     string
		on, back string
		working  bool
	}{
		"interrupted":      {open(ledger.ActionUpgrade, ledger.PhaseForward), dead, ledger.ConditionInterrupted, "sealift resume BUNDLE", "sealift revert shop", false},
		"nobody holds it":  {open(ledger.ActionUpgrade, ledger.PhaseForward), release.Holding{}, ledger.ConditionInterrupted, "sealift resume BUNDLE", "sealift revert shop", false},
		"at work":          {open(ledger.ActionUpgrade, ledger.PhaseForward), alive, ledger.ConditionInterrupted, "", "", true},
		"no way back":      {open(ledger.ActionUpgrade, ledger.PhaseForward, "migrates"), dead, ledger.ConditionInterrupted, "sealift resume BUNDLE", "", false},
		"going back":       {open(ledger.ActionUpgrade, ledger.PhaseBack), dead, ledger.ConditionInterrupted, "", "sealift revert shop", false},
		"paused":           {open(ledger.ActionUpgrade, ledger.PhasePaused), release.Holding{}, ledger.ConditionPaused, "sealift resume BUNDLE", "sealift revert shop", false},
		"staged":           {open(ledger.ActionUpgrade, ledger.PhaseStaged), release.Holding{}, ledger.ConditionStaged, "sealift promote shop", "sealift abort shop", false},
		"held":             {open(ledger.ActionUpgrade, ledger.PhaseHeld, "migrates"), release.Holding{}, ledger.ConditionHeld, "sealift resume BUNDLE", "", false},
		"uninstall killed": {open(ledger.ActionUninstall, ledger.PhaseForward), dead, ledger.ConditionInterrupted, "sealift uninstall shop", "sealift revert shop", false},
	} {
		s := installedState()
		s.Open = c.open
		st := statusNow(t, s, &seen{holding: c.holding, releases: map[string]*release.Examined{"shop/web-green@8": healthy(8)}}, nil)
		if st.Condition != c.cond || st.On != c.on || st.Back != c.back || st.Open.Working != c.working || st.Healthy {
			t.Errorf("%s: condition %q, on %q, back %q, working %v, healthy %v", name, st.Condition, st.On, st.Back, st.Open.Working, st.Healthy)
		}
		if st.Open.Done != 1 || st.Open.Steps != 3 || st.Open.At != "release shop/web: begun" {
			t.Errorf("%s: %d of %d steps, at %q", name, st.Open.Done, st.Open.Steps, st.Open.At)
		}
		// What was begun is looked at as it was to become.
		if len(st.Releases) != 1 || st.Releases[0].Revision != 8 {
			t.Errorf("%s: releases are %+v", name, st.Releases)
		}
		var unfinished *UnfinishedError
		if err := JudgeStatus([]*Status{st}, false, "sealift"); !errors.As(err, &unfinished) || !strings.Contains(err.Error(), c.cond) {
			t.Errorf("%s: judged %v", name, err)
		}
	}
}

// TestNothingIsInstalled: a bundle that was uninstalled counts where it was asked for.
func TestNothingIsInstalled(t *testing.T) {
	gone := statusNow(t, &ledger.State{Name: "gone"}, &seen{}, nil)
	well := &Status{Bundle: "shop", Condition: ledger.ConditionInstalled, Healthy: true}
	var none *NotInstalledError
	if err := JudgeStatus([]*Status{gone, well}, false, "sealift"); err != nil {
		t.Errorf("got %v", err)
	}
	for name, err := range map[string]error{
		"asked for":      JudgeStatus([]*Status{gone}, true, "sealift"),
		"only gone ones": JudgeStatus([]*Status{gone}, false, "sealift"),
		"nothing at all": JudgeStatus(nil, false, "sealift"),
	} {
		if !errors.As(err, &none) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestAgeInStatus: who keeps a bundle past its end, or has a newer one, is told.
func TestAgeInStatus(t *testing.T) {
	for name, c := range map[string]struct {
		expires  string
		accepted []ledger.Accepted
		record   *site.Record
		want     string
	}{
		"fresh":                {"2026-03-31T12:00:01Z", nil, nil, ""},
		"soon":                 {"2026-03-31T11:59:59Z", nil, nil, "it expires on 2026-03-31T11:59:59Z, in 29 days"},
		"past":                 {"2026-03-01T12:00:00Z", nil, nil, "it has expired"},
		"newer here":           {"", nil, &site.Record{Accepted: []site.Accepted{{Name: "shop", Channel: "stable", Version: "2.1.0"}}}, "accepted version 2.1.0"},
		"other channel":        {"", nil, &site.Record{Accepted: []site.Accepted{{Name: "shop", Channel: "beta", Version: "3.0.0"}}}, ""},
		"newer in the cluster": {"", []ledger.Accepted{{Channel: "stable", Version: "2.2.0"}}, &site.Record{Accepted: []site.Accepted{{Name: "shop", Channel: "stable", Version: "2.1.0"}}}, "accepted version 2.2.0"},
	} {
		s := installedState()
		s.Installed.Expires, s.Accepted = c.expires, c.accepted
		st := statusNow(t, s, &seen{releases: map[string]*release.Examined{"shop/web-green@7": healthy(7)}}, c.record)
		if got := strings.Join(st.Warnings, "\n"); c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: warned %q, want %q", name, got, c.want)
		}
		if st.Installed.AgeDays != 28 || !st.Healthy {
			t.Errorf("%s: %d days old, healthy %v", name, st.Installed.AgeDays, st.Healthy)
		}
	}
}

// TestUnreachableWhileLooking: that the cluster does not answer is an error, not a finding.
func TestUnreachableWhileLooking(t *testing.T) {
	gone := &release.UnreachableError{Server: "x", Err: errors.New("refused")}
	_, err := MakeStatus(t.Context(), installedState(), StatusInput{Cluster: &seen{err: gone}, Ledger: &seen{}, Now: noon})
	if !errors.Is(err, error(gone)) {
		t.Errorf("got %v", err)
	}
}

// TestExpectedReleases: in the middle of a change each release is looked at as far as the change has come.
func TestExpectedReleases(t *testing.T) {
	step := func(kind, status, name string, to int) ledger.Step {
		return ledger.Step{Kind: kind, Status: status, Namespace: "n", Release: name, To: to}
	}
	rel := func(name string, revision int) ledger.Release {
		return ledger.Release{Namespace: "n", Name: name, Chart: "c", Version: "1", Revision: revision}
	}
	s := &ledger.State{
		Installed: &ledger.Receipt{Releases: []ledger.Release{rel("a", 1), rel("b", 1), rel("c", 1), rel("d", 1)}},
		Open: &ledger.Transaction{
			Receipt: ledger.Receipt{Releases: []ledger.Release{{Namespace: "n", Name: "a", Chart: "c", Version: "2"}, {Namespace: "n", Name: "e", Chart: "new", Version: "1"}}},
			Steps: []ledger.Step{
				step(ledger.StepRelease, ledger.StepDone, "a", 2), step(ledger.StepRelease, ledger.StepReverted, "b", 2), step(ledger.StepRelease, ledger.StepPlanned, "c", 2),
				step(ledger.StepRelease, ledger.StepDone, "e", 1), step(ledger.StepRemove, ledger.StepDone, "d", 0),
			},
		},
	}
	a, e := rel("a", 2), rel("e", 1)
	a.Version, e.Chart = "2", "new"
	if got, want := expectedReleases(s), []ledger.Release{a, rel("b", 1), rel("c", 1), e}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if s.Installed.Releases[0].Revision != 1 {
		t.Error("the receipt was changed")
	}
}
