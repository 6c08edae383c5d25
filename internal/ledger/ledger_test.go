package ledger_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/sealift/sealift/internal/ledger"
)

// full is a state in which something is open.
func full() *ledger.State {
	receipt := ledger.Receipt{
		ID: "20260504-030201-ab", Action: ledger.ActionUpgrade, Bundle: "shop", Version: "2.0.0",
		Releases: []ledger.Release{{Namespace: "shop", Name: "web", Revision: 2}},
	}
	before := receipt
	before.ID, before.Action, before.Outcome, before.Version = "20260401-030201-cd", ledger.ActionInstall, ledger.OutcomeDone, "1.0.0"
	return &ledger.State{
		MediaType: ledger.MediaType, Name: "shop", Serial: 7, Installed: &before, History: []ledger.Receipt{}, Accepted: []ledger.Accepted{},
		Values: []string{"20260401-030201-cd"},
		Open: &ledger.Transaction{
			ID: receipt.ID, Action: receipt.Action, Phase: ledger.PhaseForward, Receipt: receipt,
			Steps: []ledger.Step{
				{Kind: ledger.StepBackup, Status: ledger.StepDone, Namespace: "shop", Release: "web"},
				{Kind: ledger.StepRelease, Status: ledger.StepBegun, Namespace: "shop", Release: "web", From: 1, Seen: 1, After: []int{0}, NoReturn: []string{"why"}},
			},
		},
	}
}

func TestEncode(t *testing.T) {
	s := full()
	raw, err := ledger.Encode(s)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ledger.Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(s, again) {
		t.Errorf("got %+v, want %+v", again, s)
	}
	if p := again.Open.PassedNoReturn(); p == nil || p.Kind != ledger.StepRelease {
		t.Errorf("the point of no return that was passed is %+v", p)
	}
}

// TestDecodeRefuses: what no Sealift of this version has written.
func TestDecodeRefuses(t *testing.T) {
	raw, err := ledger.Encode(full())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string][2]string{
		"another type":      {ledger.MediaType, "application/vnd.sealift.state.v2+json"},
		"unknown member":    {`"serial":7`, `"serial":7,"mood":"good"`},
		"unknown phase":     {`"phase":"forward"`, `"phase":"sideways"`},
		"unknown kind":      {`"kind":"backup"`, `"kind":"dance"`},
		"unknown status":    {`"status":"begun"`, `"status":"undecided"`},
		"unknown action":    {`"action":"install"`, `"action":"admire"`},
		"unknown outcome":   {`"outcome":"done"`, `"outcome":"splendid"`},
		"a step after it":   {`"after":[0]`, `"after":[1]`},
		"before the first":  {`"after":[0]`, `"after":[-1]`},
		"negative revision": {`"from":1`, `"from":-1`},
		"another bundle":    {`"name":"shop","serial"`, `"name":"mail","serial"`},
		"no name":           {`"name":"shop","serial"`, `"name":"../x","serial"`},
		"bad ID of values":  {`"values":["20260401-030201-cd"]`, `"values":["a/b"]`},
		"not installed":     {`"outcome":"done"`, `"outcome":"changed back"`},
		"trailing document": {`"serial":7`, `"serial":7`},
	} {
		t.Run(name, func(t *testing.T) {
			text := string(raw)
			if !strings.Contains(text, c[0]) {
				t.Fatalf("%s is not in %s", c[0], text)
			}
			text = strings.Replace(text, c[0], c[1], 1)
			if name == "trailing document" {
				text += "{}"
			}
			if s, err := ledger.Decode([]byte(text)); !errors.As(err, new(*ledger.StateError)) {
				t.Errorf("got %v, %v", s, err)
			}
		})
	}
	if _, err := ledger.Decode(make([]byte, ledger.MaxBytes+1)); !errors.As(err, new(*ledger.StateError)) {
		t.Errorf("too many bytes: got %v", err)
	}
}

func TestTooLarge(t *testing.T) {
	s := full()
	s.Installed.Reason = strings.Repeat("x", ledger.MaxBytes)
	var large *ledger.TooLargeError
	if _, err := ledger.Encode(s); !errors.As(err, &large) || large.Size <= large.Limit || large.Bundle != "shop" {
		t.Errorf("got %v", err)
	}
}

func TestCondition(t *testing.T) {
	for want, s := range map[string]*ledger.State{
		ledger.ConditionNothing:     {},
		ledger.ConditionInstalled:   {Installed: &ledger.Receipt{}},
		ledger.ConditionInterrupted: {Open: &ledger.Transaction{Phase: ledger.PhaseBack}},
		ledger.ConditionPaused:      {Open: &ledger.Transaction{Phase: ledger.PhasePaused}},
		ledger.ConditionStaged:      {Open: &ledger.Transaction{Phase: ledger.PhaseStaged}},
		ledger.ConditionHeld:        {Open: &ledger.Transaction{Phase: ledger.PhaseHeld}},
	} {
		if got := s.Condition(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// FuzzDecode: whatever is in the Secret, it is refused, or can be written back.
func FuzzDecode(f *testing.F) {
	raw, err := ledger.Encode(full())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"mediaType":"` + ledger.MediaType + `","name":"a","serial":0,"history":null,"accepted":null,"values":null}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := ledger.Decode(raw)
		if err != nil {
			return
		}
		again, err := ledger.Encode(s)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		if _, err := ledger.Decode(again); err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		s.Condition()
	})
}

// TestDecodeBounds: little text must not become much memory.
func TestDecodeBounds(t *testing.T) {
	for _, entry := range []string{"{}", "null"} {
		raw := `{"mediaType":"` + ledger.MediaType + `","name":"shop","history":[` + strings.Repeat(entry+",", 1_000_000) + entry + `]}`
		var not *ledger.StateError
		if _, err := ledger.Decode([]byte(raw)); !errors.As(err, &not) || !strings.Contains(err.Error(), "objects") {
			t.Errorf("%s: got %v", entry, err)
		}
	}
	// What is in texts does not count.
	if err := ledger.CheckObjects([]byte(`["` + strings.Repeat(`{\"n`, 1_000_000) + `"]`)); err != nil {
		t.Error(err)
	}
}
