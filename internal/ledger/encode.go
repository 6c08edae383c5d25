package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/sealift/sealift/manifest"
)

// Bounds of what is in a state.
const (
	maxReleases = 4096
	maxAccepted = 256
	maxValues   = 4 * MaxHistory
	maxText     = 1 << 20 // what vendors and clusters said, all of it
	maxObjects  = 250_000
)

// TooLargeError says that a state does not fit where it is kept.
type TooLargeError struct {
	Bundle      string
	Size, Limit int // bytes
}

// Error names both sizes.
func (e *TooLargeError) Error() string {
	return fmt.Sprintf("the state of bundle %q has %d bytes, and at most %d can be kept", e.Bundle, e.Size, e.Limit)
}

// StateError says that what was read is not a state that this version of Sealift understands.
type StateError struct{ Err error }

// Error gives the reason.
func (e *StateError) Error() string { return "this is not a state of a bundle: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *StateError) Unwrap() error { return e.Err }

// Encode returns a state as JSON, the same bytes for the same state. Errors are *[TooLargeError], and *[StateError] for a
// state that Decode would refuse.
func Encode(s *State) ([]byte, error) {
	c := *s
	c.MediaType = MediaType
	// Lists are never null.
	c.History, c.Accepted, c.Values = nonNil(c.History), nonNil(c.Accepted), nonNil(c.Values)
	if err := c.check(); err != nil {
		return nil, &StateError{err}
	}
	raw, err := json.Marshal(&c)
	if err != nil {
		return nil, err
	}
	if len(raw) > MaxBytes {
		return nil, &TooLargeError{Bundle: s.Name, Size: len(raw), Limit: MaxBytes}
	}
	return raw, nil
}

func nonNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// Decode reads what Encode wrote. What it does not know it refuses: a state of a newer Sealift must not be written back
// with something missing. Errors are *[StateError].
func Decode(raw []byte) (*State, error) {
	if len(raw) > MaxBytes {
		return nil, &StateError{fmt.Errorf("it has %d bytes, and at most %d are read", len(raw), MaxBytes)}
	}
	if err := CheckObjects(raw); err != nil {
		return nil, &StateError{err}
	}
	// The type goes first, so that a state of another format is called that.
	var head struct {
		MediaType string `json:"mediaType"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return nil, &StateError{err}
	}
	if head.MediaType != MediaType {
		return nil, &StateError{fmt.Errorf("its mediaType is %q, and this version of Sealift reads %q", head.MediaType, MediaType)}
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	s := &State{}
	if err := d.Decode(s); err != nil {
		return nil, &StateError{err}
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, &StateError{errors.New("something follows it")}
	}
	if err := s.check(); err != nil {
		return nil, &StateError{err}
	}
	s.History, s.Accepted, s.Values = nonNil(s.History), nonNil(s.Accepted), nonNil(s.Values)
	return s, nil
}

// CheckObjects refuses JSON with very many objects and nulls, before it is decoded: in memory, an entry of a list takes hundreds of times
// as much as the "{}," that could stand for it.
func CheckObjects(raw []byte) error {
	n, text := 0, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case text && c == '\\':
			i++
		case c == '"':
			text = !text
		case !text && (c == '{' || c == 'n'):
			n++
		}
	}
	if n > maxObjects {
		return fmt.Errorf("it has %d objects, and at most %d are read", n, maxObjects)
	}
	return nil
}

// check finds what no Sealift has written.
func (s *State) check() error {
	if err := manifest.CheckName(s.Name); err != nil {
		return err
	}
	switch {
	case s.Serial < 0:
		return fmt.Errorf("serial is %d", s.Serial)
	case len(s.History) > MaxHistory:
		return fmt.Errorf("it has %d receipts, and at most %d are kept", len(s.History), MaxHistory)
	case len(s.Accepted) > maxAccepted:
		return fmt.Errorf("it has %d accepted versions, and at most %d are kept", len(s.Accepted), maxAccepted)
	case len(s.Values) > maxValues:
		return fmt.Errorf("it names %d documents of values, and at most %d are kept", len(s.Values), maxValues)
	}
	for _, id := range s.Values {
		if err := CheckID(id); err != nil {
			return fmt.Errorf("values: %w", err)
		}
	}
	for i := range s.History {
		if err := s.History[i].check(s.Name); err != nil {
			return fmt.Errorf("history[%d]: %w", i, err)
		}
		if s.History[i].Outcome == "" {
			return fmt.Errorf("history[%d]: it has no outcome", i)
		}
	}
	if s.Installed != nil {
		if err := s.Installed.check(s.Name); err != nil {
			return fmt.Errorf("installed: %w", err)
		}
		if s.Installed.Outcome != OutcomeDone || s.Installed.Action == ActionUninstall {
			return fmt.Errorf("installed: action %q with outcome %q installs nothing", s.Installed.Action, s.Installed.Outcome)
		}
	}
	if s.Open != nil {
		if err := s.Open.check(s.Name); err != nil {
			return fmt.Errorf("open: %w", err)
		}
	}
	return nil
}

// CheckID reports whether id is that of a transaction, or of a document of values.
func CheckID(id string) error {
	if id == "" || len(id) > 64 {
		return fmt.Errorf("ID %q is empty or too long", id)
	}
	for _, c := range id {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return fmt.Errorf("ID %q is not made of lower-case letters, digits and dashes", id)
		}
	}
	return nil
}

func oneOf(what, got string, known ...string) error {
	if !slices.Contains(known, got) {
		return fmt.Errorf("%s %q is none of %q", what, got, known)
	}
	return nil
}

func (r *Receipt) check(bundle string) error {
	if err := CheckID(r.ID); err != nil {
		return err
	}
	if err := oneOf("action", r.Action, ActionInstall, ActionUpgrade, ActionRollback, ActionUninstall); err != nil {
		return err
	}
	if err := oneOf("outcome", r.Outcome, "", OutcomeDone, OutcomeBack); err != nil {
		return err
	}
	if r.Bundle != bundle {
		return fmt.Errorf("it is of bundle %q, want %q", r.Bundle, bundle)
	}
	if err := manifest.CheckVersion(r.Version); err != nil {
		return err
	}
	if r.Values != "" {
		if err := CheckID(r.Values); err != nil {
			return fmt.Errorf("values: %w", err)
		}
	}
	if len(r.Releases) > maxReleases {
		return fmt.Errorf("it has %d releases, and at most %d are possible", len(r.Releases), maxReleases)
	}
	for i := range r.Releases {
		x := &r.Releases[i]
		if x.Namespace == "" || x.Name == "" {
			return fmt.Errorf("releases[%d]: it has no name or no namespace", i)
		}
		if x.Revision < 0 {
			return fmt.Errorf("release %s: revision is %d", x.Key(), x.Revision)
		}
	}
	return nil
}

func (t *Transaction) check(bundle string) error {
	if err := CheckID(t.ID); err != nil {
		return err
	}
	if err := oneOf("action", t.Action, ActionInstall, ActionUpgrade, ActionRollback, ActionUninstall); err != nil {
		return err
	}
	if err := oneOf("phase", t.Phase, PhaseForward, PhaseBack, PhasePaused, PhaseStaged, PhaseHeld); err != nil {
		return err
	}
	if err := t.Receipt.check(bundle); err != nil {
		return fmt.Errorf("receipt: %w", err)
	}
	switch {
	case t.Receipt.ID != t.ID || t.Receipt.Action != t.Action:
		return fmt.Errorf("receipt: it is that of %s %q, want %s %q", t.Receipt.Action, t.Receipt.ID, t.Action, t.ID)
	case t.Receipt.Outcome != "":
		return fmt.Errorf("receipt: it has the outcome %q before the end", t.Receipt.Outcome)
	case len(t.Steps) > MaxSteps:
		return fmt.Errorf("it has %d steps, and at most %d are possible", len(t.Steps), MaxSteps)
	case t.Options.TimeoutSeconds < 0:
		return fmt.Errorf("timeoutSeconds is %d", t.Options.TimeoutSeconds)
	case len(t.Failure) > maxText:
		return fmt.Errorf("its failure has %d bytes", len(t.Failure))
	}
	for i := range t.Steps {
		if err := t.Steps[i].check(i); err != nil {
			return fmt.Errorf("steps[%d]: %w", i, err)
		}
	}
	return nil
}

func (s *Step) check(at int) error {
	if err := oneOf("kind", s.Kind, StepCRDs, StepBackup, StepRelease, StepTest, StepCheck, StepRemove, StepFront); err != nil {
		return err
	}
	if err := oneOf("status", s.Status, StepPlanned, StepBegun, StepDone, StepFailed, StepReverting, StepReverted); err != nil {
		return err
	}
	if s.Namespace == "" || s.Release == "" {
		return errors.New("it has no release or no namespace")
	}
	if s.From < 0 || s.To < 0 || s.Seen < 0 {
		return fmt.Errorf("a revision is negative: from %d, to %d, seen %d", s.From, s.To, s.Seen)
	}
	for _, i := range s.After {
		// So that there is no circle, and the reverse of the list is a way back.
		if i < 0 || i >= at {
			return fmt.Errorf("it comes after step %d, which does not stand before it", i)
		}
	}
	return nil
}
