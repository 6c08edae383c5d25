package install

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sealift/sealift/internal/ledger"
	"github.com/sealift/sealift/internal/release"
	"github.com/sealift/sealift/manifest"
)

func plannedWith(c Change, noReturn map[string]string) Change {
	c.Plan = &Plan{}
	for _, r := range c.Releases {
		p := ReleasePlan{Release: r.Name, Namespace: r.Namespace, Action: release.ActionUpgrade}
		if why := noReturn[r.Name]; why != "" {
			p.NoReturn = []string{why}
		}
		c.Plan.Releases = append(c.Plan.Releases, p)
	}
	return c
}

// TestOrderReleases: names say what waits for what; where nothing is named, the vendor's order does.
func TestOrderReleases(t *testing.T) {
	plain := func(name string, dependsOn ...string) *Release {
		r := testRelease(name, "1.0.0", dependsOn...)
		r.Spec.Plain = true
		return r
	}
	chart := func(name string, dependsOn ...string) *Release { return testRelease(name, "1.0.0", dependsOn...) }
	for name, c := range map[string]struct {
		releases []*Release
		final    []string
		want     string // order, each with those it comes after
	}{
		"nothing is named":        {releases: []*Release{chart("a"), chart("b"), chart("c")}, want: "a() b(a) c(a b)"},
		"two depend on one":       {releases: []*Release{chart("a"), chart("b", "shop/a"), chart("c", "shop/a")}, want: "a() b(a) c(a)"},
		"plain objects are first": {releases: []*Release{plain("p"), chart("a"), chart("b", "shop/a")}, want: "p() a(p) b(p a)"},
		"plain after a chart":     {releases: []*Release{chart("a"), plain("p", "shop/a"), chart("b", "shop/a")}, want: "a() p(a) b(a)"},
		"no way back is late":     {releases: []*Release{chart("a"), chart("b", "shop/a"), chart("c", "shop/a")}, final: []string{"b"}, want: "a() c(a) b(a c)"},
		"no way back, but waited": {releases: []*Release{chart("a"), chart("b", "shop/a"), chart("c", "shop/b")}, final: []string{"a"}, want: "a() b(a) c(b)"},
		"two of them, in their order": {
			releases: []*Release{chart("a"), chart("b", "shop/a"), chart("c", "shop/a"), chart("d", "shop/a")}, final: []string{"b", "c"}, want: "a() d(a) b(a d) c(a b d)",
		},
	} {
		t.Run(name, func(t *testing.T) {
			noReturn := map[string][]string{}
			for _, f := range c.final {
				noReturn["shop/"+f] = []string{"because"}
			}
			order, after := orderReleases(c.releases, noReturn)
			var got []string
			for _, i := range order {
				var waits []string
				for _, j := range after[i] {
					waits = append(waits, c.releases[j].Name)
				}
				got = append(got, c.releases[i].Name+"("+strings.Join(waits, " ")+")")
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("got %s, want %s", s, c.want)
			}
		})
	}
}

// TestParallel: releases that wait for nothing of each other are changed at the same time, not more than may be; when one fails, the
// others are stopped and waited for before anything goes back.
func TestParallel(t *testing.T) {
	w := installed(t)
	c := version("2.0.0")
	p := w.process(0)
	p.fail["install shop/web"] = errors.New("it broke")
	_, err := p.engine(c, TransactOptions{Parallel: 4}).transact(t.Context(), c)
	var failed *FailedError
	if !errors.As(err, &failed) || failed.Revert != nil || failed.Held != "" || failed.Release != "web" {
		t.Fatalf("got %v", err)
	}
	if len(failed.Diagnosis) == 0 || !strings.Contains(err.Error(), "ImagePullBackOff") {
		t.Errorf("the error does not say what is wrong: %v", err)
	}
	w.isVersion(t, "1.0.0")
	if !slices.Equal(w.ran, []string{"backup db", "restore db"}) {
		t.Errorf("the jobs that ran are %v", w.ran)
	}
	s := w.read(t)
	if last := s.History[len(s.History)-1]; last.Outcome != ledger.OutcomeBack || last.Failure != "it broke" || last.Version != "2.0.0" {
		t.Errorf("the last receipt is %+v", last)
	}
	if p.most > 4 {
		t.Errorf("%d things were done at once", p.most)
	}
}

// TestCancelled: Ctrl-C takes back, too.
func TestCancelled(t *testing.T) {
	w := installed(t)
	c := version("2.0.0")
	p := w.process(0)
	ctx, cancel := context.WithCancel(t.Context())
	p.meanwhile = func(what string) {
		if what == "install shop/api" {
			cancel()
		}
	}
	_, err := p.engine(c, TransactOptions{}).transact(ctx, c)
	var failed *FailedError
	if !errors.As(err, &failed) || !errors.Is(err, context.Canceled) || len(failed.Back) == 0 {
		t.Fatalf("got %v", err)
	}
	w.isVersion(t, "1.0.0")
}

// TestLostLease: who has lost the lease begins nothing more. Where nobody else took it, all goes back; where somebody did, nothing is
// touched.
func TestLostLease(t *testing.T) {
	for name, taken := range map[string]error{"taken again": nil, "taken by somebody": &release.BusyError{Bundle: "shop"}} {
		t.Run(name, func(t *testing.T) {
			w := installed(t)
			c := version("2.0.0")
			p := w.process(0)
			p.retaken = taken
			lost := false
			var after []string
			p.meanwhile = func(what string) {
				if lost {
					after = append(after, what)
				} else if what == "install shop/api" {
					close(p.lost)
					lost = true
				}
			}
			_, err := p.engine(c, TransactOptions{Parallel: 1}).transact(t.Context(), c)
			var failed *FailedError
			var lease *release.LeaseError
			if !errors.As(err, &failed) || !errors.As(err, &lease) {
				t.Fatalf("got %v", err)
			}
			if taken == nil {
				w.isVersion(t, "1.0.0")
				return
			}
			if failed.Held == "" {
				t.Errorf("it does not say that nothing more was changed: %v", err)
			}
			if slices.ContainsFunc(after, func(what string) bool { return what == "write" || strings.HasPrefix(what, "recover") }) {
				t.Errorf("after the loss there was %v", after)
			}
			if s := w.read(t); s.Condition() != ledger.ConditionInterrupted {
				t.Errorf("the state says %q", s.Condition())
			}
		})
	}
}

// TestConflict: where somebody else has written the state, nothing more is done.
func TestConflict(t *testing.T) {
	w := installed(t)
	c := version("2.0.0")
	p := w.process(0)
	var after []string
	changed := false
	p.meanwhile = func(what string) {
		switch {
		case changed:
			after = append(after, what)
		case what == "install shop/api":
			changed = true
			w.mu.Lock()
			s, err := ledger.Decode(w.state)
			if err != nil {
				panic(err)
			}
			s.Open.Failure = "somebody was here"
			w.state, err = ledger.Encode(s)
			if err != nil {
				panic(err)
			}
			w.version++
			w.mu.Unlock()
		}
	}
	_, err := p.engine(c, TransactOptions{Parallel: 1}).transact(t.Context(), c)
	var failed *FailedError
	if !errors.As(err, &failed) || !errors.As(err, new(*release.ConflictError)) || failed.Held == "" {
		t.Fatalf("got %v", err)
	}
	if slices.ContainsFunc(after, func(what string) bool { return what != "install shop/api" }) {
		t.Errorf("after the conflict there was %v", after)
	}
}

// TestUntil: it stops after a release and its checks, gives the lease back, and goes on later, or back.
func TestUntil(t *testing.T) {
	c := version("2.0.0")
	paused := func(t *testing.T) *world {
		w := installed(t)
		r, err := w.process(0).engine(c, TransactOptions{Until: "db"}).transact(t.Context(), c)
		if err != nil || r != nil {
			t.Fatalf("got %v, %v", r, err)
		}
		if got := fmt.Sprint(w.live("shop/db"), w.live("shop/api")); got != "2.0.0 1.0.0" && got != "2.0.01.0.0" {
			t.Fatalf("db and api are %q", got)
		}
		if s := w.read(t); s.Condition() != ledger.ConditionPaused || w.holder != nil {
			t.Fatalf("the state says %q, and %v holds the lease", s.Condition(), w.holder)
		}
		return w
	}
	t.Run("on", func(t *testing.T) {
		w := paused(t)
		_, err := w.process(0).engine(c, TransactOptions{}).transact(t.Context(), c)
		var interrupted *InterruptedError
		if !errors.As(err, &interrupted) || interrupted.Condition != ledger.ConditionPaused || interrupted.At == "" {
			t.Errorf("another install says %v", err)
		}
		other := version("3.0.0")
		_, err = w.process(0).engine(other, TransactOptions{}).resume(t.Context(), other.Receipt.Manifest)
		if !errors.As(err, new(*OtherBundleError)) {
			t.Errorf("resume with another bundle says %v", err)
		}
		if r, err := w.process(0).engine(c, TransactOptions{}).resume(t.Context(), c.Receipt.Manifest); err != nil || r.Outcome != ledger.OutcomeDone {
			t.Fatalf("got %v, %v", r, err)
		}
		w.isVersion(t, "2.0.0")
	})
	t.Run("back", func(t *testing.T) {
		w := paused(t)
		if r, err := w.process(0).engine(Change{}, TransactOptions{}).revert(t.Context()); err != nil || r.Outcome != ledger.OutcomeBack {
			t.Fatalf("got %v, %v", r, err)
		}
		w.isVersion(t, "1.0.0")
	})
	t.Run("unknown", func(t *testing.T) {
		w := installed(t)
		before := w.version
		_, err := w.process(0).engine(c, TransactOptions{Until: "nothing"}).transact(t.Context(), c)
		if !errors.As(err, new(*UntilError)) || !errors.As(err, new(*PreflightError)) || w.version != before {
			t.Errorf("got %v", err)
		}
	})
}

// TestPointOfNoReturn: without a word it is refused; after it nothing goes back by itself, and the way on is resume.
func TestPointOfNoReturn(t *testing.T) {
	c := plannedWith(version("2.0.0"), map[string]string{"web": "its migration cannot be undone"})
	w := installed(t)
	before := w.version
	_, err := w.process(0).engine(c, TransactOptions{}).transact(t.Context(), c)
	if !errors.As(err, new(*NoReturnError)) || !errors.As(err, new(*PreflightError)) || w.version != before {
		t.Fatalf("got %v", err)
	}
	c.Options.AcceptNoReturn = true

	t.Run("before it", func(t *testing.T) {
		w := installed(t)
		p := w.process(0)
		p.fail["install shop/cache"] = errors.New("it broke")
		if _, err := p.engine(c, TransactOptions{}).transact(t.Context(), c); err == nil {
			t.Fatal("it did not fail")
		}
		// It comes last, so that all the others may still go back.
		w.isVersion(t, "1.0.0")
	})
	held := func(t *testing.T) *world {
		w := installed(t)
		p := w.process(0)
		p.fail["install shop/web"] = errors.New("it broke")
		_, err := p.engine(c, TransactOptions{}).transact(t.Context(), c)
		var failed *FailedError
		if !errors.As(err, &failed) || failed.Held == "" || failed.Revert != nil || len(failed.Back) > 0 {
			t.Fatalf("got %v", err)
		}
		if s := w.read(t); s.Condition() != ledger.ConditionHeld || w.live("shop/db") != "2.0.0" {
			t.Fatalf("the state says %q", s.Condition())
		}
		return w
	}
	t.Run("on", func(t *testing.T) {
		w := held(t)
		if _, err := w.process(0).engine(c, TransactOptions{}).resume(t.Context(), c.Receipt.Manifest); err != nil {
			t.Fatal(err)
		}
		w.isVersion(t, "2.0.0")
		for _, r := range w.releases["shop/web"] {
			if r.back > 0 {
				t.Errorf("web went back to revision %d on its way on", r.back)
			}
		}
	})
	t.Run("killed on the way on", func(t *testing.T) {
		for kill := 1; ; kill++ {
			w := held(t)
			p := w.process(kill)
			_, err := p.engine(c, TransactOptions{Parallel: 1}).resume(t.Context(), c.Receipt.Manifest)
			if p.dead && w.read(t).Open != nil {
				if _, err := w.process(0).engine(Change{}, TransactOptions{}).revert(t.Context()); !errors.As(err, new(*NoReturnError)) {
					t.Fatalf("killed at %d: revert says %v", kill, err)
				}
				_, err = w.process(0).engine(c, TransactOptions{}).resume(t.Context(), c.Receipt.Manifest)
			}
			if err != nil && !p.dead {
				t.Fatalf("killed at %d: %v", kill, err)
			}
			if w.read(t).Open != nil || w.live("shop/web") != "2.0.0" {
				t.Fatalf("killed at %d: web is %q", kill, w.live("shop/web"))
			}
			if !p.dead {
				return
			}
		}
	})
	t.Run("back", func(t *testing.T) {
		w := held(t)
		_, err := w.process(0).engine(Change{}, TransactOptions{}).revert(t.Context())
		var no *NoReturnError
		if !errors.As(err, &no) || !no.Passed || len(no.Reasons) != 1 {
			t.Errorf("revert says %v", err)
		}
		if _, err := w.process(0).engine(Change{}, TransactOptions{OverNoReturn: true}).revert(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.isVersion(t, "1.0.0")
	})
}

// TestWayBackFails: then it is held, the rest goes back all the same, and revert tries again.
func TestWayBackFails(t *testing.T) {
	w := installed(t)
	c := version("2.0.0")
	p := w.process(0)
	p.fail["tests shop/web"] = errors.New("it broke")
	p.fail["recover shop/api"] = errors.New("it is stuck")
	_, err := p.engine(c, TransactOptions{Parallel: 1}).transact(t.Context(), c)
	var failed *FailedError
	if !errors.As(err, &failed) || failed.Revert == nil || w.live("shop/db") != "1.0.0" || w.live("shop/api") != "2.0.0" {
		t.Fatalf("got %v", err)
	}
	if s := w.read(t); s.Condition() != ledger.ConditionHeld || !s.Open.GoingBack() {
		t.Errorf("the state says %q", s.Condition())
	}
	delete(p.fail, "recover shop/api")
	r, err := p.engine(c, TransactOptions{}).resume(t.Context(), c.Receipt.Manifest)
	if err != nil || r.Outcome != ledger.OutcomeBack {
		t.Fatalf("resume says %v, %v", r, err)
	}
	w.isVersion(t, "1.0.0")
}

// TestOvertaken: what somebody else has changed meanwhile is not taken back.
func TestOvertaken(t *testing.T) {
	w := installed(t)
	c := version("2.0.0")
	if _, err := w.process(0).engine(c, TransactOptions{Until: "api"}).transact(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	p := w.process(0)
	p.add("shop/api", "deployed", "", "by hand", 0)
	_, err := p.engine(Change{}, TransactOptions{}).revert(t.Context())
	if !errors.As(err, new(*release.OvertakenError)) || w.live("shop/api") != "by hand" || w.live("shop/db") != "1.0.0" {
		t.Errorf("got %v, api is %q", err, w.live("shop/api"))
	}
}

// TestRefusedFromTheStart: with nothing touched.
func TestRefusedFromTheStart(t *testing.T) {
	c := version("2.0.0")
	t.Run("claimed", func(t *testing.T) {
		w := newWorld()
		w.other = &ledger.State{Name: "mail", Installed: &ledger.Receipt{Releases: []ledger.Release{{Namespace: "shop", Name: "web"}}}}
		_, err := w.process(0).engine(c, TransactOptions{}).transact(t.Context(), c)
		var claimed *ClaimedError
		if !errors.As(err, &claimed) || claimed.Other != "mail" || claimed.Release != "shop/web" || w.state != nil {
			t.Errorf("got %v", err)
		}
	})
	t.Run("at work", func(t *testing.T) {
		w := installed(t)
		if _, err := w.process(0).engine(c, TransactOptions{Until: "db"}).transact(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		w.holder = w.process(0)
		if _, err := w.process(0).engine(c, TransactOptions{}).transact(t.Context(), c); !errors.As(err, new(*release.BusyError)) {
			t.Errorf("install says %v", err)
		}
		if _, err := w.process(0).engine(Change{}, TransactOptions{}).revert(t.Context()); !errors.As(err, new(*release.BusyError)) {
			t.Errorf("revert says %v", err)
		}
	})
	t.Run("pending", func(t *testing.T) {
		w := installed(t)
		p := w.process(0)
		p.add("shop/web", "pending-upgrade", "", "by hand", 0)
		before := w.version
		if _, err := p.engine(c, TransactOptions{}).transact(t.Context(), c); !errors.As(err, new(*release.PendingError)) || w.version != before {
			t.Errorf("got %v", err)
		}
	})
}

// TestDropped: what a version has no more is left, and known, unless it is to be removed.
func TestDropped(t *testing.T) {
	w := installed(t)
	c := version("2.0.0")
	c.Options.RemoveDropped = false
	if _, err := w.process(0).engine(c, TransactOptions{}).transact(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	worker := findRelease(w.read(t).Installed.Releases, "shop/worker")
	if worker == nil || !worker.Left || w.live("shop/worker") != "1.0.0" {
		t.Errorf("the receipt says %+v", worker)
	}
}

// TestLeft: a release that does not change is left alone.
func TestLeft(t *testing.T) {
	w := installed(t)
	c := plannedWith(version("2.0.0"), nil)
	for i := range c.Plan.Releases {
		if c.Plan.Releases[i].Release == "api" {
			c.Plan.Releases[i].Action = ActionLeave
		}
	}
	if _, err := w.process(0).engine(c, TransactOptions{}).transact(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	api := findRelease(w.read(t).Installed.Releases, "shop/api")
	if w.live("shop/api") != "1.0.0" || api.Revision != 1 || api.Objects != "digest of 1.0.0" {
		t.Errorf("api is %q, and the receipt says %+v", w.live("shop/api"), api)
	}
}

// TestRollbackRefused: each reason, with nothing touched.
func TestRollbackRefused(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(w *world, s *ledger.State)
		o     RollbackOptions
		is    any
	}{
		"unknown version": {o: RollbackOptions{Version: "0.9.0"}, is: new(*NoVersionError)},
		"revoked":         {o: RollbackOptions{Revoked: func(string) string { return "a flaw" }}, is: new(*RevokedError)},
		"forbidden": {spoil: func(_ *world, s *ledger.State) {
			s.Installed.Releases[0].Rollback = manifest.RollbackForbidden
		}, is: new(*NoRollbackError)},
		"by hand": {spoil: func(_ *world, s *ledger.State) {
			s.Installed.Releases[0].Rollback = manifest.RollbackManual
		}, is: new(*NoRollbackError)},
		"another cluster": {spoil: func(_ *world, s *ledger.State) { s.History[0].Cluster = "another" }, is: new(*OtherClusterError)},
		"revision is gone": {spoil: func(w *world, _ *ledger.State) {
			w.releases["shop/web"] = w.releases["shop/web"][1:]
		}, is: new(*LostRevisionError)},
		"revision was replaced": {spoil: func(w *world, _ *ledger.State) {
			w.releases["shop/web"][0].content = "other"
		}, is: new(*LostRevisionError)},
	} {
		t.Run(name, func(t *testing.T) {
			w := at(t, "2.0.0")
			if c.spoil != nil {
				s := w.read(t)
				c.spoil(w, s)
				var err error
				if w.state, err = ledger.Encode(s); err != nil {
					t.Fatal(err)
				}
			}
			before := w.version
			_, err := w.process(0).engine(Change{}, TransactOptions{}).rollback(t.Context(), c.o)
			if !errors.As(err, c.is) || !errors.As(err, new(*PreflightError)) {
				t.Errorf("got %v", err)
			}
			if w.version != before {
				t.Error("the state was changed")
			}
		})
	}
}

// TestRollbackReceipt: it is that of the version gone back to, and a dry run gives it without changing anything; what was uninstalled
// can be brought back.
func TestRollbackReceipt(t *testing.T) {
	w := at(t, "2.0.0")
	w.newer = true
	before := w.version
	r, err := w.process(0).engine(Change{}, TransactOptions{}).rollback(t.Context(), RollbackOptions{DryRun: true})
	if err != nil || r.Version != "1.0.0" || w.version != before {
		t.Fatalf("the dry run says %+v, %v", r, err)
	}
	if r, err = rollbackOf(t.Context(), w.process(0)); err != nil {
		t.Fatal(err)
	}
	if r.Action != ledger.ActionRollback || r.Replaces != "2.0.0" || r.Version != "1.0.0" || r.Outcome != ledger.OutcomeDone {
		t.Errorf("the receipt says %+v", r)
	}
	w.isVersion(t, "1.0.0")
	if r, err = uninstallOf(t.Context(), w.process(0)); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(r.Kept, "shop: PersistentVolumeClaim/data") || !slices.Contains(r.Kept, "Namespace/shop") {
		t.Errorf("kept is %v", r.Kept)
	}
	w.isVersion(t, "")
	if _, err := w.process(0).engine(Change{}, TransactOptions{}).rollback(t.Context(), RollbackOptions{Version: "2.0.0"}); err != nil {
		t.Fatal(err)
	}
	w.isVersion(t, "2.0.0")
}

// TestHistoryIsBounded: failed attempts give way before what can be gone back to.
func TestHistoryIsBounded(t *testing.T) {
	s := &ledger.State{}
	remember(s, ledger.Receipt{ID: "done", Outcome: ledger.OutcomeDone})
	for i := range 3 * ledger.MaxHistory {
		remember(s, ledger.Receipt{ID: fmt.Sprint(i), Outcome: ledger.OutcomeBack})
	}
	if len(s.History) != ledger.MaxHistory || s.History[0].ID != "done" {
		t.Errorf("%d receipts, the first of which is %q", len(s.History), s.History[0].ID)
	}
}

// TestNothingSecretInTheState: neither what the site said nor what an error holds.
func TestNothingSecretInTheState(t *testing.T) {
	w := installed(t)
	c := version("2.0.0")
	c.Said = []byte("password: hunter2")
	p := w.process(0)
	p.fail["install shop/web"] = errors.New("invalid value hunter2")
	hide := func(text string) string { return strings.ReplaceAll(text, "hunter2", "***") }
	if _, err := p.engine(c, TransactOptions{Hide: hide}).transact(t.Context(), c); err == nil {
		t.Fatal("it did not fail")
	}
	if strings.Contains(string(w.state), "hunter2") || !strings.Contains(string(w.state), "invalid value ***") {
		t.Error("the state holds the secret, or not the error")
	}
}

// TestBackIsRecorded: after a way back the receipt names the revisions that Helm has now, so that nobody takes them for somebody
// else's, and the next transaction and the next way back find them.
func TestBackIsRecorded(t *testing.T) {
	w := installed(t)
	c := version("2.0.0")
	for range 2 {
		p := w.process(0)
		p.fail["install shop/web"] = errors.New("it broke")
		if _, err := p.engine(c, TransactOptions{Parallel: 1}).transact(t.Context(), c); err == nil {
			t.Fatal("it did not fail")
		}
		w.isVersion(t, "1.0.0")
	}
	if r := findRelease(w.read(t).Installed.Releases, "shop/db"); r.Revision != 5 {
		t.Errorf("db is recorded at revision %d", r.Revision)
	}
	w.newer = true
	if _, err := w.process(0).engine(c, TransactOptions{}).transact(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if _, err := rollbackOf(t.Context(), w.process(0)); err != nil {
		t.Fatal(err)
	}
	w.isVersion(t, "1.0.0")
	s := w.read(t)
	if r := findRelease(s.History[len(s.History)-2].Releases, "shop/db"); r.Revision != 5 {
		t.Errorf("the receipt of the version gone back to names revision %d of db", r.Revision)
	}
}

// TestBackOverForeign: what somebody else had changed before a transaction is there again after it, and still known as changed.
func TestBackOverForeign(t *testing.T) {
	w := installed(t)
	c := version("2.0.0")
	p := w.process(0)
	p.add("shop/api", "deployed", "", "by hand", 0)
	p.deploy("shop/api")
	p.fail["install shop/web"] = errors.New("it broke")
	if _, err := p.engine(c, TransactOptions{Parallel: 1}).transact(t.Context(), c); err == nil {
		t.Fatal("it did not fail")
	}
	if r := findRelease(w.read(t).Installed.Releases, "shop/api"); r.Revision != 1 || w.live("shop/api") != "by hand" {
		t.Errorf("api is %q, recorded at revision %d", w.live("shop/api"), r.Revision)
	}
}

// TestWayBackKeepsOrder: what is needed for going back is not taken away while the rest has not gone back.
func TestWayBackKeepsOrder(t *testing.T) {
	w := installed(t)
	c := version("2.0.0")
	p := w.process(0)
	p.fail["install shop/web"] = errors.New("it broke")
	p.fail["recover shop/db"] = errors.New("it is stuck")
	_, err := p.engine(c, TransactOptions{Parallel: 1}).transact(t.Context(), c)
	var failed *FailedError
	if !errors.As(err, &failed) || failed.Revert == nil {
		t.Fatalf("got %v", err)
	}
	if slices.Contains(w.ran, "restore db") || w.definitions != "crd 2.0.0" {
		t.Errorf("under the new version of db the backup was restored, or its definitions went: %v, %q", w.ran, w.definitions)
	}
	if _, err := w.process(0).engine(Change{}, TransactOptions{}).revert(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.isVersion(t, "1.0.0")
	if !slices.Equal(w.ran, []string{"backup db", "restore db"}) {
		t.Errorf("the jobs that ran are %v", w.ran)
	}
}

// TestRestoreWhereBegun: a backup is restored where what it was made for has been begun, also where that was put back since; and
// only there.
func TestRestoreWhereBegun(t *testing.T) {
	c := version("2.0.0")
	seen := map[bool]bool{}
	for kill := 1; ; kill++ {
		w := installed(t)
		p := w.process(kill)
		_, _ = p.engine(c, TransactOptions{Parallel: 1, Until: "db"}).transact(t.Context(), c)
		if !p.dead {
			break
		}
		if w.read(t).Open == nil || !slices.Contains(w.ran, "backup db") {
			continue
		}
		begun := len(w.releases["shop/db"]) > 1
		// Its resume is killed as soon as the release was put back.
		again := w.process(0)
		again.meanwhile = func(what string) {
			if what == "recover shop/db" && len(w.releases["shop/db"]) > 2 {
				w.mu.Lock()
				if last := again.last("shop/db"); last.status == "deployed" {
					again.killAt = again.points + 2 // after it was recorded
				}
				w.mu.Unlock()
			}
		}
		if last := again.last("shop/db"); last.status != "deployed" {
			_, _ = again.engine(c, TransactOptions{Parallel: 1, Until: "db"}).resume(t.Context(), c.Receipt.Manifest)
		}
		if _, err := w.process(0).engine(Change{}, TransactOptions{}).revert(t.Context()); err != nil {
			t.Fatalf("killed at %d: %v", kill, err)
		}
		w.isVersion(t, "1.0.0")
		if slices.Contains(w.ran, "restore db") != begun {
			t.Fatalf("killed at %d: db was begun: %v, and the jobs that ran are %v", kill, begun, w.ran)
		}
		seen[begun] = true
	}
	if !seen[true] || !seen[false] {
		t.Errorf("seen are only %v", seen)
	}
}

// TestOvertakenForGood: what somebody else has made does not block a transaction for ever: it ends when he has taken it back, and
// over it where the operator says so; also where he has deleted the release.
func TestOvertakenForGood(t *testing.T) {
	c := version("2.0.0")
	paused := func(t *testing.T) (*world, *process) {
		w := installed(t)
		if _, err := w.process(0).engine(c, TransactOptions{Until: "api"}).transact(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		return w, w.process(0)
	}
	t.Run("taken back by hand", func(t *testing.T) {
		w, p := paused(t)
		p.add("shop/api", "pending-rollback", "", "1.0.0", 1)
		p.deploy("shop/api")
		if _, err := p.engine(Change{}, TransactOptions{}).revert(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.isVersion(t, "1.0.0")
	})
	t.Run("over it", func(t *testing.T) {
		w, p := paused(t)
		p.add("shop/api", "pending-upgrade", "", "by hand", 0)
		p.deploy("shop/api")
		if _, err := p.engine(Change{}, TransactOptions{}).revert(t.Context()); !errors.As(err, new(*release.OvertakenError)) {
			t.Fatalf("got %v", err)
		}
		if _, err := p.engine(Change{}, TransactOptions{OverNoReturn: true}).revert(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.isVersion(t, "1.0.0")
	})
	t.Run("deleted", func(t *testing.T) {
		w, p := paused(t)
		delete(w.releases, "shop/api")
		if _, err := p.engine(Change{}, TransactOptions{}).revert(t.Context()); err == nil {
			t.Fatal("it was reverted")
		}
		r, err := p.engine(Change{}, TransactOptions{OverNoReturn: true}).revert(t.Context())
		if err != nil || r.Outcome != ledger.OutcomeBack || w.read(t).Open != nil {
			t.Fatalf("got %v", err)
		}
		if !slices.ContainsFunc(r.Kept, func(s string) bool { return strings.Contains(s, "shop/api is left as it is") }) {
			t.Errorf("the receipt does not tell what was given up: %v", r.Kept)
		}
		// The next install brings it.
		if _, err := p.engine(c, TransactOptions{}).transact(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		w.isVersion(t, "2.0.0")
	})
	t.Run("restore that always fails", func(t *testing.T) {
		w, p := paused(t)
		p.fail["jobs restore db"] = &release.JobError{Job: "restore", Reason: "BackoffLimitExceeded"}
		// Whoever goes over a point of no return has the Jobs run all the same; they are given up when they fail again.
		if _, err := p.engine(Change{}, TransactOptions{OverNoReturn: true}).revert(t.Context()); err == nil {
			t.Fatal("it was reverted")
		}
		if r, err := p.engine(Change{}, TransactOptions{OverNoReturn: true}).revert(t.Context()); err != nil || len(r.Kept) == 0 {
			t.Fatalf("got %+v, %v", r, err)
		}
		w.isVersion(t, "1.0.0")
	})
	t.Run("definitions that stay", func(t *testing.T) {
		w, p := paused(t)
		p.fail["restore definitions"] = &release.CRDError{Name: "x", Kept: true, Err: errors.New("objects are stored in it")}
		if _, err := p.engine(Change{}, TransactOptions{}).revert(t.Context()); err == nil {
			t.Fatal("it was reverted")
		}
		if _, err := p.engine(Change{}, TransactOptions{OverNoReturn: true}).revert(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.newer = true
		w.isVersion(t, "1.0.0")
	})
}

// TestStillDone: what was done before a hold point, and is not what was made any more, is not called installed: it is done again
// where it is gone, and refused where somebody else has made something of it.
func TestStillDone(t *testing.T) {
	c := version("2.0.0")
	for name, do := range map[string]struct {
		meanwhile func(w *world, p *process)
		refused   bool
	}{
		"gone":        {meanwhile: func(w *world, _ *process) { delete(w.releases, "shop/db") }},
		"uninstalled": {meanwhile: func(_ *world, p *process) { p.last("shop/db").status = "uninstalled" }},
		"changed": {refused: true, meanwhile: func(_ *world, p *process) {
			p.add("shop/db", "pending-upgrade", "", "by hand", 0)
			p.deploy("shop/db")
		}},
		"changed and taken back": {meanwhile: func(_ *world, p *process) {
			p.add("shop/db", "superseded", "", "by hand", 0)
			p.add("shop/db", "pending-rollback", "", "2.0.0", 2)
			p.deploy("shop/db")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := installed(t)
			if _, err := w.process(0).engine(c, TransactOptions{Until: "db"}).transact(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			p := w.process(0)
			do.meanwhile(w, p)
			before := w.version
			r, err := p.engine(c, TransactOptions{}).resume(t.Context(), c.Receipt.Manifest)
			if do.refused {
				if !errors.As(err, new(*release.OvertakenError)) || !errors.As(err, new(*PreflightError)) || w.version != before {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil || len(r.Checks) != 5 {
				t.Fatalf("got %+v, %v", r, err)
			}
			w.isVersion(t, "2.0.0")
		})
	}
}

// TestAdoptHasNoWayBack: a way back would delete what was taken over from somebody, so that it needs a word, and is not gone by itself.
func TestAdoptHasNoWayBack(t *testing.T) {
	c := version("2.0.0")
	c.Options.Adopt = true
	w := newWorld()
	p := w.process(0)
	p.fail["owners shop/web"] = &release.ForeignError{Release: "web", Namespace: "shop", Object: "ConfigMap/precious", Owner: "kubectl"}
	_, err := p.engine(c, TransactOptions{}).transact(t.Context(), c)
	if !errors.As(err, new(*NoReturnError)) || !errors.As(err, new(*PreflightError)) || w.state != nil {
		t.Fatalf("got %v", err)
	}
	c.Options.AcceptNoReturn = true
	p.fail["tests shop/web"] = errors.New("it broke")
	_, err = p.engine(c, TransactOptions{}).transact(t.Context(), c)
	var failed *FailedError
	if !errors.As(err, &failed) || failed.Held == "" || w.live("shop/web") != "2.0.0" {
		t.Fatalf("got %v", err)
	}
	if _, err := p.engine(Change{}, TransactOptions{}).revert(t.Context()); !errors.As(err, new(*NoReturnError)) {
		t.Errorf("revert says %v", err)
	}
	delete(p.fail, "tests shop/web")
	r, err := p.engine(c, TransactOptions{}).resume(t.Context(), c.Receipt.Manifest)
	if err != nil || !slices.ContainsFunc(r.NoReturn, func(s string) bool { return strings.Contains(s, "ConfigMap/precious") }) {
		t.Errorf("got %+v, %v", r, err)
	}
}

// TestSinceThePlan: a release that is not what was planned upon is not touched, nor called installed.
func TestSinceThePlan(t *testing.T) {
	w := installed(t)
	c := plannedWith(version("2.0.0"), nil)
	for i := range c.Plan.Releases {
		c.Plan.Releases[i].From = &release.State{Revision: 1}
		if c.Plan.Releases[i].Release == "cache" {
			c.Plan.Releases[i].From, c.Plan.Releases[i].Action = nil, release.ActionInstall
		}
		if c.Plan.Releases[i].Release == "api" {
			c.Plan.Releases[i].Action = ActionLeave
		}
	}
	gone := w.clone()
	delete(gone.releases, "shop/api")
	changed := w.clone()
	p := changed.process(0)
	p.add("shop/web", "pending-upgrade", "", "by hand", 0)
	p.deploy("shop/web")
	for name, w := range map[string]*world{"gone": gone, "changed": changed} {
		before := w.version
		_, err := w.process(0).engine(c, TransactOptions{}).transact(t.Context(), c)
		if !errors.As(err, new(*release.OvertakenError)) || !errors.As(err, new(*PreflightError)) || w.version != before {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := w.process(0).engine(c, TransactOptions{}).transact(t.Context(), c); err != nil {
		t.Error(err)
	}
}

// TestClaims: a former version behind a front belongs to its bundle, too; and of two bundles that are begun at the same time one
// gives way, with nothing begun.
func TestClaims(t *testing.T) {
	other := &ledger.State{Name: "mail", Installed: &ledger.Receipt{Releases: []ledger.Release{{
		Namespace: "shop", Name: "w", As: "w-green", Front: &ledger.Front{To: "w-green", Spare: "web"},
	}}}}
	c := version("2.0.0")
	w := newWorld()
	w.other = other
	if _, err := w.process(0).engine(c, TransactOptions{}).transact(t.Context(), c); !errors.As(err, new(*ClaimedError)) {
		t.Errorf("got %v", err)
	}
	w = newWorld()
	p := w.process(0)
	p.meanwhile = func(what string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if what == "values" {
			w.other = other
		}
	}
	_, err := p.engine(c, TransactOptions{}).transact(t.Context(), c)
	if !errors.As(err, new(*ClaimedError)) || !errors.As(err, new(*PreflightError)) || len(w.releases) > 0 {
		t.Errorf("got %v, and there is %v", err, w.releases)
	}
	if s := w.read(t); s.Open != nil || len(s.Values) > 0 {
		t.Errorf("left is %+v", s)
	}
}

// TestFullState: where the state has no room for more, what has been begun ends all the same.
func TestFullState(t *testing.T) {
	for _, fail := range []string{"", "tests shop/web"} {
		w := newWorld()
		c := version("2.0.0")
		for i := range 10 {
			c.Receipt.Images = append(c.Receipt.Images, ledger.Image{Source: fmt.Sprint(i), Referrers: []ledger.Referrer{{Digest: strings.Repeat("d", 64)}}})
		}
		p := w.process(0)
		if fail != "" {
			p.fail[fail] = errors.New(strings.Repeat("it broke ", 200))
		}
		p.meanwhile = func(what string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if what == "values" && w.limit == 0 && w.state == nil {
				w.limit = 1 << 20
			} else if what == "write" && w.limit == 1<<20 {
				w.limit = len(w.state) // the first one that was written
			}
		}
		_, err := p.engine(c, TransactOptions{Parallel: 1}).transact(t.Context(), c)
		if (err != nil) != (fail != "") || w.read(t).Open != nil {
			t.Errorf("got %v", err)
		}
		if failed := (*FailedError)(nil); errors.As(err, &failed) && failed.Revert != nil {
			t.Errorf("the way back failed: %v", failed.Revert)
		}
	}
}

// TestRememberedTimeout: who goes on gives waits the time that they had.
func TestRememberedTimeout(t *testing.T) {
	w := installed(t)
	c := version("2.0.0")
	c.Options.TimeoutSeconds = 3600
	if _, err := w.process(0).engine(c, TransactOptions{Until: "db"}).transact(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	e := w.process(0).engine(c, TransactOptions{})
	end, err := e.enter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	if e.o.Timeout != time.Hour {
		t.Errorf("the timeout is %v", e.o.Timeout)
	}
}
