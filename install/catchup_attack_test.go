package install

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sealift/sealift/internal/ledger"
	"github.com/sealift/sealift/internal/site"
	"github.com/sealift/sealift/internal/trust"
)

// TestStateOfAnAttacker: who may write to the Secret of a state can have a machine refuse more, and nothing else.
func TestStateOfAnAttacker(t *testing.T) {
	old := smallBundle(t, "1.0.0")
	b := mustJudge(t, old)
	digest, m := b.Evidence().Manifest, b.Manifest()
	mine := site.Accepted{Name: "shop", Channel: m.Channel, Version: "2.0.0", Digest: "sha256:" + strings.Repeat("a", 64), Created: "2026-01-01T00:00:00Z", At: stamp(noon)}
	// The old bundle, under a version that is newer than all.
	forged := ledger.Accepted{Channel: m.Channel, Version: "3.0.0", Digest: digest, Created: m.Created, At: stamp(noon)}
	receipt := ledger.Receipt{
		ID: "x", Action: ledger.ActionInstall, Outcome: ledger.OutcomeDone, Bundle: "shop", Version: m.Version, Channel: m.Channel, Manifest: digest,
		Created: m.Created, Ended: stamp(noon),
	}
	state := &ledger.State{Name: "shop", Accepted: []ledger.Accepted{forged}, Installed: &receipt}
	for name, have := range map[string]*site.Record{"a machine with a record": {Accepted: []site.Accepted{mine}}, "a new one": {}} {
		record, err := Overlaid(have, []*ledger.State{state}, noon)
		if err != nil {
			t.Fatal(err)
		}
		var stale *trust.StaleError
		if _, err := judged(t, old, trust.Freshness{Record: record}); !errors.As(err, &stale) || stale.Kind != trust.Older {
			t.Errorf("%s: the old bundle was judged %v", name, err)
		}
		// Nor is it taken for one that was judged here, which may be used after its end.
		if record.KnownDigest(digest) != nil {
			t.Errorf("%s: the bundle is known", name)
		}
		if !record.Find("shop", m.Channel).Heard {
			t.Errorf("%s: it does not say that it was only heard of", name)
		}
	}
	// Another content of the version that was accepted here stays an alarm, whenever somebody says that it was accepted.
	same := forged
	same.Version, same.At = mine.Version, stamp(noon.Add(time.Hour))
	record, err := Overlaid(&site.Record{Accepted: []site.Accepted{mine}}, []*ledger.State{{Name: "shop", Accepted: []ledger.Accepted{same}}}, noon)
	if err != nil || record.Find("shop", m.Channel).Digest != mine.Digest {
		t.Errorf("got %+v: %v", record.Accepted, err)
	}
	// A root whose reset is known here ends nothing that is heard of today.
	rooted := forged
	rooted.Root, rooted.RootVersion = "acme", 1
	roots := []site.PinnedRoot{{Name: "acme", Chain: []site.RootVersion{{Version: 3, Digest: mine.Digest}}}}
	record, err = Overlaid(&site.Record{Roots: roots}, []*ledger.State{{Name: "shop", Accepted: []ledger.Accepted{rooted}}}, noon)
	if err != nil || record.Accepted[0].Root.Version != 3 {
		t.Errorf("got %+v: %v", record.Accepted, err)
	}
}

// TestUnfitStates: what cannot be taken over keeps nothing else out, and no machine from working.
func TestUnfitStates(t *testing.T) {
	dir := site.Open(filepath.Join(t.TempDir(), "state"))
	s := &ledger.State{Name: "shop", Accepted: []ledger.Accepted{accepted("stable", "../1", "a", noon), accepted("beta", "2.0.0", "b", noon)}}
	var unfit *UnfitStateError
	if err := CatchUp(t.Context(), dir, "shop", s, noon); !errors.As(err, &unfit) || unfit.Bundle != "shop" {
		t.Errorf("got %v", err)
	}
	record, err := dir.Read(t.Context())
	if err != nil || len(record.Accepted) != 1 || record.Accepted[0].Channel != "beta" || !record.Accepted[0].Heard {
		t.Fatalf("recorded is %+v: %v", record, err)
	}
	// A record does not grow without an end.
	full := &site.Record{}
	var states []*ledger.State
	for i := range maxHeard + 10 {
		states = append(states, &ledger.State{Name: fmt.Sprintf("shop-%d", i), Accepted: []ledger.Accepted{accepted("stable", "1.0.0", "a", noon)}})
	}
	full, err = Overlaid(full, states, noon)
	if !errors.As(err, &unfit) || len(full.Accepted) != maxHeard || len(full.Known) != 0 {
		t.Errorf("%d accepted, %d known: %v", len(full.Accepted), len(full.Known), err)
	}
}

// TestForgetAccepted: a version that nobody has made, and a time that has not come, go again.
func TestForgetAccepted(t *testing.T) {
	s := &ledger.State{Name: "shop", Accepted: []ledger.Accepted{accepted("stable", "999.0.0", "a", noon), accepted("beta", "1.0.0", "b", noon)}, ClockFloor: "2099-01-01T00:00:00Z"}
	if !ForgetAccepted(s, "stable", noon) || len(s.Accepted) != 1 || s.Accepted[0].Channel != "beta" || s.ClockFloor != "" {
		t.Errorf("left is %+v, floor %q", s.Accepted, s.ClockFloor)
	}
	s.ClockFloor = stamp(noon)
	if ForgetAccepted(s, "stable", noon) || s.ClockFloor != stamp(noon) {
		t.Errorf("something was changed: %+v", s)
	}
	// The next install sets a floor right that is out of reach.
	s.ClockFloor = "2099-01-01T00:00:00Z"
	raiseAccepted(s, ledger.Accepted{}, stamp(noon))
	if s.ClockFloor != stamp(noon) {
		t.Errorf("the floor is %s", s.ClockFloor)
	}
}
