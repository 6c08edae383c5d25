package install

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sealift/sealift/internal/ledger"
	"github.com/sealift/sealift/internal/site"
	"github.com/sealift/sealift/internal/trust"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// entriesOfJournal are the events of a state directory.
func entriesOfJournal(t *testing.T, dir *site.Dir) []site.Entry {
	t.Helper()
	var all []site.Entry
	if _, err := dir.Journal(t.Context(), func(e site.Entry) error { all = append(all, e); return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

// judged opens a bundle as a machine with a record does.
func judged(t *testing.T, path string, f trust.Freshness) (*verify.Bundle, error) {
	t.Helper()
	files, err := verify.Find([]string{path})
	if err != nil {
		t.Fatal(err)
	}
	p := policy(t)
	f.Now = noon
	p.Freshness = &f
	b, err := verify.Open(t.Context(), files[0], p)
	if err == nil {
		t.Cleanup(func() { _ = b.Close() })
	}
	return b, err
}

// TestTwoMachines: two machines of a site that install in one cluster share what was accepted there.
func TestTwoMachines(t *testing.T) {
	old, current := smallBundle(t, "1.0.0"), smallBundle(t, "2.0.0")
	a, b := site.Open(filepath.Join(t.TempDir(), "a")), site.Open(filepath.Join(t.TempDir(), "b"))
	state := &ledger.State{Name: "shop"}

	// Machine B has the older one, machine A installs the newer one.
	install := func(dir *site.Dir, path string, f trust.Freshness) error {
		if err := CatchUp(t.Context(), dir, "shop", state, noon); err != nil {
			t.Fatal(err)
		}
		var err error
		if f.Record, err = dir.Read(t.Context()); err != nil {
			t.Fatal(err)
		}
		bundle, err := judged(t, path, f)
		if err != nil {
			return err
		}
		o := AcceptOptions{Dir: dir, Now: noon, How: "install"}
		r := NewReceipt(ReceiptInput{Bundle: bundle, Accept: o})
		if err := acceptedMeanwhile(state, &r); err != nil {
			return err
		}
		r.ID, r.Action, r.Outcome, r.Ended = "id-"+r.Version[:1], ledger.ActionInstall, ledger.OutcomeDone, stamp(noon)
		accepted, floor := acceptedBy(&r, noon)
		raiseAccepted(state, accepted, floor)
		if state.Installed != nil {
			state.History = append(state.History, *state.Installed)
		}
		state.Installed = &r
		_, err = Accept(t.Context(), []*verify.Bundle{bundle}, o)
		return err
	}
	if err := install(b, old, trust.Freshness{}); err != nil {
		t.Fatal(err)
	}
	if err := install(a, current, trust.Freshness{}); err != nil {
		t.Fatal(err)
	}
	var stale *trust.StaleError
	if err := install(b, old, trust.Freshness{}); !errors.As(err, &stale) || stale.Kind != trust.Older {
		t.Fatalf("machine B installs what A has superseded: %v", err)
	}
	record, err := b.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := record.Find("shop", "stable"); got == nil || got.Version != "2.0.0" {
		t.Errorf("machine B has accepted %+v, want 2.0.0", got)
	}
	caught := 0
	for _, e := range entriesOfJournal(t, b) {
		if e.Kind == site.KindCatchUp && e.Version == "2.0.0" && e.Detail["was"] == "1.0.0" {
			caught++
		}
	}
	if caught != 1 {
		t.Errorf("the journal of B has %d entries about it, want 1", caught)
	}

	// Nothing is new: nothing is written.
	before := entriesOfJournal(t, b)
	if err := CatchUp(t.Context(), b, "shop", state, noon.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if after := entriesOfJournal(t, b); len(after) != len(before) {
		t.Errorf("it was written again: %d entries, there were %d", len(after), len(before))
	}
	empty := site.Open(filepath.Join(t.TempDir(), "none"))
	if err := CatchUp(t.Context(), empty, "shop", &ledger.State{Name: "shop"}, noon); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(empty.Path()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a directory was made for nothing: %v", err)
	}

	// Judged before the other has installed: refused under the lease.
	r := NewReceipt(ReceiptInput{Bundle: mustJudge(t, old)})
	var meanwhile *MeanwhileError
	if err := acceptedMeanwhile(state, &r); !errors.As(err, &meanwhile) {
		t.Errorf("got %v, want a MeanwhileError", err)
	}

	// What an operator allows does not lower what was accepted.
	if err := install(b, old, trust.Freshness{AllowDowngrade: true}); err != nil {
		t.Fatal(err)
	}
	if state.Installed.Version != "1.0.0" || state.Installed.Accept != ledger.AcceptOlder || state.Accepted[0].Version != "2.0.0" {
		t.Errorf("installed %s (%q), accepted %s", state.Installed.Version, state.Installed.Accept, state.Accepted[0].Version)
	}
	if len(state.Installed.Overrides) != 1 || !strings.Contains(state.Installed.Overrides[0], "2.0.0") {
		t.Errorf("overrides are %q", state.Installed.Overrides)
	}
}

func smallBundle(t *testing.T, version string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "one"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "one", "Chart.yaml"), []byte("apiVersion: v2\nname: one\nversion: 0.1.0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return packSpec(t, dir, "charts:\n  - {path: one}\n", func(m *manifest.Manifest) { m.Version = version })
}

func mustJudge(t *testing.T, path string) *verify.Bundle {
	t.Helper()
	b, err := judged(t, path, trust.Freshness{})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func accepted(channel, version, digest string, at time.Time) ledger.Accepted {
	return ledger.Accepted{Channel: channel, Version: version, Digest: "sha256:" + strings.Repeat(digest, 64), Created: "2026-01-01T00:00:00Z", At: stamp(at)}
}

// TestHigherCounts: of what a machine and the cluster have accepted the higher version counts, of two contents of one version that
// of the machine: the cluster's may be anybody's.
func TestHigherCounts(t *testing.T) {
	at := func(a ledger.Accepted) site.Accepted {
		return site.Accepted{Name: "shop", Channel: a.Channel, Version: a.Version, Digest: a.Digest, Created: a.Created, At: a.At}
	}
	for name, c := range map[string]struct {
		have, theirs, want ledger.Accepted
	}{
		"newer":              {accepted("stable", "1.9.0", "a", noon), accepted("stable", "1.10.0", "b", noon.Add(-time.Hour)), accepted("stable", "1.10.0", "b", noon.Add(-time.Hour))},
		"older":              {accepted("stable", "2.0.0", "a", noon), accepted("stable", "1.10.0", "b", noon.Add(time.Hour)), accepted("stable", "2.0.0", "a", noon)},
		"the same":           {accepted("stable", "2.0.0", "a", noon), accepted("stable", "2.0.0", "a", noon.Add(time.Hour)), accepted("stable", "2.0.0", "a", noon)},
		"another, later":     {accepted("stable", "2.0.0", "a", noon), accepted("stable", "2.0.0", "b", noon.Add(time.Hour)), accepted("stable", "2.0.0", "a", noon)},
		"another, earlier":   {accepted("stable", "2.0.0", "a", noon), accepted("stable", "2.0.0", "b", noon.Add(-time.Hour)), accepted("stable", "2.0.0", "a", noon)},
		"of another channel": {accepted("beta", "3.0.0", "a", noon), accepted("stable", "2.0.0", "b", noon), accepted("stable", "2.0.0", "b", noon)},
	} {
		record := &site.Record{}
		record.Accept(at(c.have))
		got, err := Overlaid(record, []*ledger.State{{Name: "shop", Accepted: []ledger.Accepted{c.theirs}}}, noon)
		if err != nil {
			t.Fatal(err)
		}
		want := at(c.want)
		want.Heard = c.want == c.theirs && c.want != c.have
		if a := got.Find("shop", c.want.Channel); a == nil || *a != want {
			t.Errorf("%s: got %+v, want %+v", name, a, c.want)
		}
		if a := record.Find("shop", c.have.Channel); *a != at(c.have) || len(record.Accepted) != 1 || len(record.Known) != 1 {
			t.Errorf("%s: the record itself has changed: %+v", name, record)
		}
	}
}

// TestForeignStates: a state is what somebody has put into the cluster.
func TestForeignStates(t *testing.T) {
	dir := site.Open(filepath.Join(t.TempDir(), "state"))
	for name, s := range map[string]*ledger.State{
		"version": {Name: "shop", Accepted: []ledger.Accepted{accepted("stable", "../1", "a", noon)}},
		"digest":  {Name: "shop", Accepted: []ledger.Accepted{accepted("stable", "1.0.0", "x", noon)}},
		"channel": {Name: "shop", Accepted: []ledger.Accepted{accepted("STABLE", "1.0.0", "a", noon)}},
		"name":    {Name: "other", Accepted: []ledger.Accepted{accepted("stable", "1.0.0", "a", noon)}},
	} {
		if err := CatchUp(t.Context(), dir, "shop", s, noon); err == nil {
			t.Errorf("%s: it was taken", name)
		}
	}
	if _, err := os.Stat(dir.Path()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was written: %v", err)
	}
}

// TestClockOfTheCluster: the floor rises by what others have seen, as long as it is not far ahead of the clock here.
func TestClockOfTheCluster(t *testing.T) {
	for floor, want := range map[string]string{
		stamp(noon.Add(23 * time.Hour)): stamp(noon.Add(23 * time.Hour)),
		stamp(noon.Add(25 * time.Hour)): "",
		"yesterday":                     "",
	} {
		r, err := Overlaid(&site.Record{}, []*ledger.State{{Name: "shop", ClockFloor: floor}}, noon)
		if err != nil || r.ClockFloor != want {
			t.Errorf("floor %s: got %q (%v), want %q", floor, r.ClockFloor, err, want)
		}
	}
	s := &ledger.State{Name: "shop", ClockFloor: stamp(noon)}
	raiseAccepted(s, ledger.Accepted{}, stamp(noon.Add(-time.Hour)))
	raiseAccepted(s, ledger.Accepted{}, "never")
	if s.ClockFloor != stamp(noon) || len(s.Accepted) != 0 {
		t.Errorf("the floor went back to %s, accepted %v", s.ClockFloor, s.Accepted)
	}
	raiseAccepted(s, ledger.Accepted{}, stamp(noon.Add(time.Minute)))
	if s.ClockFloor != stamp(noon.Add(time.Minute)) {
		t.Errorf("the floor is %s", s.ClockFloor)
	}
}

// TestWhatAnInstallAccepts: an install raises, lowers or leaves what the cluster has accepted, as the site's record does.
func TestWhatAnInstallAccepts(t *testing.T) {
	for name, c := range map[string]struct {
		receipt ledger.Receipt
		want    string
	}{
		"newer":     {ledger.Receipt{Version: "3.0.0"}, "3.0.0"},
		"older":     {ledger.Receipt{Version: "1.0.0", Accept: ledger.AcceptOlder}, "2.0.0"},
		"a reset":   {ledger.Receipt{Version: "1.0.0", Accept: ledger.AcceptReplace}, "1.0.0"},
		"unsigned":  {ledger.Receipt{Version: "3.0.0", Accept: ledger.AcceptNothing}, "2.0.0"},
		"rollback":  {ledger.Receipt{Version: "3.0.0", Action: ledger.ActionRollback}, "2.0.0"},
		"uninstall": {ledger.Receipt{Version: "3.0.0", Action: ledger.ActionUninstall}, "2.0.0"},
	} {
		s := &ledger.State{Name: "shop", Accepted: []ledger.Accepted{accepted("stable", "2.0.0", "a", noon)}}
		c.receipt.Channel, c.receipt.Manifest, c.receipt.Created = "stable", "sha256:"+strings.Repeat("b", 64), "2026-02-01T00:00:00Z"
		c.receipt.Signers = []ledger.Signer{{Who: "x", Times: []string{stamp(noon.Add(time.Hour)) + " signed-timestamp"}}}
		a, floor := acceptedBy(&c.receipt, noon)
		raiseAccepted(s, a, floor)
		if len(s.Accepted) != 1 || s.Accepted[0].Version != c.want {
			t.Errorf("%s: accepted %+v, want %s", name, s.Accepted, c.want)
		}
		if s.ClockFloor != stamp(noon.Add(time.Hour)) {
			t.Errorf("%s: the floor is %s, want the proven time", name, s.ClockFloor)
		}
	}
}

// TestKeepReceipt: the receipt is kept, and bound to the journal.
func TestKeepReceipt(t *testing.T) {
	dir := site.Open(filepath.Join(t.TempDir(), "state"))
	r := fullReceipt()
	head, err := KeepReceipt(t.Context(), dir, r, noon)
	if err != nil {
		t.Fatal(err)
	}
	entries := entriesOfJournal(t, dir)
	if len(entries) != 1 || entries[0].Seq != head.Seq || entries[0].Kind != site.KindReceipt || entries[0].Detail["id"] != r.ID {
		t.Fatalf("the journal has %+v", entries)
	}
	raw, err := dir.Document(entries[0].Digest, site.MaxDocument)
	if err != nil {
		t.Fatal(err)
	}
	if kept, err := DecodeReceipt(raw); err != nil || kept.ID != r.ID {
		t.Errorf("kept %+v: %v", kept, err)
	}
	// One that is too large is named in the journal all the same.
	r.Failure = strings.Repeat("x", site.MaxDocument)
	if _, err := KeepReceipt(t.Context(), dir, r, noon); err != nil {
		t.Fatal(err)
	}
	if last := entriesOfJournal(t, dir)[1]; last.Detail["kept"] == "" {
		t.Errorf("the journal says %+v", last)
	}
}
