package site

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/sealift/sealift/manifest"
)

// RecordType is the first member of every record.
const RecordType = "application/vnd.sealift.record.v1+json"

const (
	// MaxRecord bounds a record, in bytes.
	MaxRecord = 8 << 20
	// MaxKnown is how many accepted manifests a record remembers beyond the latest ones.
	MaxKnown = 4096
	// MaxAhead is how far after the local clock a time may be to raise the clock floor.
	MaxAhead = 24 * time.Hour
)

// Head names the end of a journal: everything before it is determined by it.
type Head struct {
	// Seq is the number of the last entry, 0 where there is none.
	Seq int64 `json:"seq"`
	// Digest is that of the last entry's line without its newline, "" where there is none.
	Digest string `json:"digest"`
}

// Record is what a site knows.
type Record struct {
	MediaType string `json:"mediaType"`
	// Journal is the end of the journal that belongs to this record, JournalSize its length in
	// bytes, and Replaces the digest of the record before this one ("" for the first). All
	// three, and MediaType, are set by Dir.Update.
	Journal     Head   `json:"journal"`
	JournalSize int64  `json:"journalSize"`
	Replaces    string `json:"replaces"`
	// Policy is the digest of the pinned policy, "" where none is.
	Policy string `json:"policy"`
	// Roots are the root documents that the site has walked up to, one chain for each name.
	Roots []PinnedRoot `json:"roots"`
	// ClockFloor is a time that has certainly passed (RFC 3339 in UTC), "" where none is known.
	ClockFloor string `json:"clockFloor"`
	// Accepted is what was accepted for each name and channel, at most one each.
	Accepted []Accepted `json:"accepted"`
	// Known is every manifest that was accepted, by its digest, those accepted longest ago first
	// and at most MaxKnown of them, so that what is installed once more is recognised.
	Known []Accepted `json:"known"`
}

// PinnedRoot is a chain of root documents.
type PinnedRoot struct {
	// Name is made of letters, digits, dots, dashes and underscores, at most 128.
	Name string `json:"name"`
	// Chain ascends in steps of one and is never empty; its last is the one in force.
	Chain []RootVersion `json:"chain"`
}

// RootVersion is a root document.
type RootVersion struct {
	Version int    `json:"version"`
	Digest  string `json:"digest"`
}

// RootRef names the root document under which something was accepted.
type RootRef struct {
	Name    string `json:"name"`
	Version int    `json:"version"`
}

// Accepted is a bundle that a site has accepted.
type Accepted struct {
	Name    string `json:"name"`
	Channel string `json:"channel"`
	Version string `json:"version"`
	// Digest is that of the manifest.
	Digest string `json:"digest"`
	// Created is what the manifest says, At when it was accepted by the local clock, both RFC
	// 3339 in UTC.
	Created string `json:"created"`
	At      string `json:"at"`
	// Root is nil where no root document was in force.
	Root *RootRef `json:"root,omitempty"`
	// Heard says that this machine has not judged it, but was told by a cluster: nothing older is used, and it is not known
	// to have been accepted, since whoever may write there could have said so.
	Heard bool `json:"heard,omitempty"`
}

const recordPrefix = `{"mediaType":"` + RecordType + `","journal":`

// Find returns what was accepted for a name and channel, nil where nothing was.
func (r *Record) Find(name, channel string) *Accepted {
	return find(r.Accepted, func(a Accepted) bool { return a.Name == name && a.Channel == channel })
}

// KnownDigest returns what is known of the accepted manifest with this digest, nil where it was
// never accepted or is long forgotten.
func (r *Record) KnownDigest(digest string) *Accepted {
	if a := find(r.Known, func(a Accepted) bool { return a.Digest == digest }); a != nil {
		return a
	}
	return find(r.Accepted, func(a Accepted) bool { return a.Digest == digest && !a.Heard })
}

func find(list []Accepted, is func(Accepted) bool) *Accepted {
	if i := slices.IndexFunc(list, is); i >= 0 {
		return &list[i]
	}
	return nil
}

// Accept makes a what is accepted for its name and channel, whatever was before, and remembers
// it. Whether it may is the caller's to decide.
func (r *Record) Accept(a Accepted) {
	r.set(a)
	r.Remember(a)
}

// Hear makes a what counts as accepted for its name and channel, as a cluster says, without making it known: see Accepted.Heard.
func (r *Record) Hear(a Accepted) {
	a.Heard = true
	r.set(a)
}

func (r *Record) set(a Accepted) {
	if old := r.Find(a.Name, a.Channel); old != nil {
		*old = a
	} else {
		r.Accepted = append(r.Accepted, a)
	}
}

// Remember makes a known, as the one accepted last, without making it what is accepted for its
// name and channel. Where MaxKnown are known already, the one accepted longest ago is forgotten.
func (r *Record) Remember(a Accepted) {
	r.Known = slices.DeleteFunc(r.Known, func(k Accepted) bool { return k.Digest == a.Digest })
	r.Known = append(r.Known, a)
	if n := len(r.Known) - MaxKnown; n > 0 {
		r.Known = slices.Delete(r.Known, 0, n)
	}
}

// Floor returns the clock floor, the zero time where there is none.
func (r *Record) Floor() time.Time {
	t, err := time.Parse(time.RFC3339, r.ClockFloor)
	if err != nil {
		return time.Time{}
	}
	return t.UTC()
}

// RaiseFloor raises the clock floor to the latest of now, the local clock, and those of times
// that are at most MaxAhead after it. It never lowers it: a time that somebody merely asserts,
// far in the future, must not make a site refuse everything from then on.
func (r *Record) RaiseFloor(now time.Time, times ...time.Time) {
	floor := r.Floor()
	for _, t := range append([]time.Time{now}, times...) {
		if t.After(floor) && t.Sub(now) <= MaxAhead && checkTime(formatTime(t)) == nil {
			floor = t.UTC().Truncate(time.Second)
		}
	}
	if floor.After(r.Floor()) {
		r.ClockFloor = formatTime(floor)
	}
}

// says is the digest of what the record says, whatever journal it belongs to.
func (r *Record) says() (string, error) {
	n := *r
	n.Journal, n.JournalSize, n.Replaces = Head{}, 0, ""
	raw, err := marshalRecord(&n)
	if err != nil {
		return "", err
	}
	return digestOf(raw), nil
}

// encodeRecord returns the canonical bytes of a valid record.
func encodeRecord(r *Record) ([]byte, error) {
	if err := r.validate(); err != nil {
		return nil, err
	}
	raw, err := marshalRecord(r)
	if err != nil {
		return nil, err
	}
	if len(raw) > MaxRecord {
		return nil, fmt.Errorf("%d bytes, at most %d are allowed", len(raw), MaxRecord)
	}
	return raw, nil
}

// marshalRecord writes empty lists for nil ones, so that there is one encoding of "none".
func marshalRecord(r *Record) ([]byte, error) {
	n := *r
	n.Roots = slices.Clone(n.Roots)
	for i := range n.Roots {
		n.Roots[i].Chain = orEmpty(n.Roots[i].Chain)
	}
	n.Roots, n.Accepted, n.Known = orEmpty(n.Roots), orEmpty(n.Accepted), orEmpty(n.Known)
	return marshal(&n)
}

func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// The fewest bytes that a record spends on each object and each comma: in memory, an Accepted
// takes many times as much as the "{}," that could stand for it.
const minObject, minComma = 48, 24

func parseRecord(raw []byte) (*Record, error) {
	if len(raw) > MaxRecord {
		return nil, fmt.Errorf("it has more than %d bytes", MaxRecord)
	}
	if objects, commas := bytes.Count(raw, []byte("{")), bytes.Count(raw, []byte(",")); objects > len(raw)/minObject+8 || commas > len(raw)/minComma+16 {
		return nil, fmt.Errorf("it has %d objects and %d commas in %d bytes", objects, commas, len(raw))
	}
	r := &Record{}
	if err := unmarshal(raw, recordPrefix, r, func() ([]byte, error) { return marshalRecord(r) }); err != nil {
		return nil, err
	}
	if err := r.validate(); err != nil {
		return nil, err
	}
	return r, nil
}

var rootName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\A[a-zA-Z0-9][a-zA-Z0-9._-]{0,127}\z`) })

func (r *Record) validate() error {
	if r.MediaType != RecordType {
		return fmt.Errorf("mediaType %q, want %q", r.MediaType, RecordType)
	}
	if err := r.Journal.validate(); err != nil {
		return err
	}
	if r.JournalSize < 0 || (r.JournalSize == 0) != (r.Journal.Seq == 0) {
		return fmt.Errorf("journal of %d entries in %d bytes", r.Journal.Seq, r.JournalSize)
	}
	for _, digest := range []string{r.Replaces, r.Policy} {
		if digest != "" {
			if err := manifest.CheckDigest(digest); err != nil {
				return err
			}
		}
	}
	if r.ClockFloor != "" {
		if err := checkTime(r.ClockFloor); err != nil {
			return fmt.Errorf("clock floor %w", err)
		}
	}
	roots := map[string]bool{}
	for _, root := range r.Roots {
		if err := root.validate(); err != nil {
			return err
		}
		if roots[root.Name] {
			return fmt.Errorf("root %q twice", root.Name)
		}
		roots[root.Name] = true
	}
	type place struct{ name, channel string }
	places := map[place]bool{}
	for _, a := range r.Accepted {
		if err := a.validate(); err != nil {
			return err
		}
		if places[place{a.Name, a.Channel}] {
			return fmt.Errorf("accepted %q of channel %q twice", a.Name, a.Channel)
		}
		places[place{a.Name, a.Channel}] = true
	}
	if len(r.Known) > MaxKnown {
		return fmt.Errorf("%d known manifests, at most %d are allowed", len(r.Known), MaxKnown)
	}
	known := map[string]bool{}
	for _, a := range r.Known {
		if err := a.validate(); err != nil {
			return err
		}
		if known[a.Digest] {
			return fmt.Errorf("known manifest %s twice", a.Digest)
		}
		if a.Heard {
			return fmt.Errorf("known manifest %s was only heard of", a.Digest)
		}
		known[a.Digest] = true
	}
	return nil
}

func (h Head) validate() error {
	if h.Seq == 0 && h.Digest == "" {
		return nil
	}
	if h.Seq < 1 {
		return fmt.Errorf("journal entry %d with digest %q", h.Seq, h.Digest)
	}
	return manifest.CheckDigest(h.Digest)
}

func (p PinnedRoot) validate() error {
	if !rootName().MatchString(p.Name) {
		return fmt.Errorf("root name %q is not made of letters, digits, dots, dashes and underscores (at most 128)", p.Name)
	}
	if len(p.Chain) == 0 {
		return fmt.Errorf("root %q has no versions", p.Name)
	}
	for i, v := range p.Chain {
		if v.Version < 1 || i > 0 && v.Version != p.Chain[i-1].Version+1 {
			return fmt.Errorf("root %q: version %d is not one more than the one before", p.Name, v.Version)
		}
		if err := manifest.CheckDigest(v.Digest); err != nil {
			return fmt.Errorf("root %q version %d: %w", p.Name, v.Version, err)
		}
	}
	return nil
}

// Check reports whether a is what a record may hold.
func (a Accepted) Check() error { return a.validate() }

func (a Accepted) validate() error {
	if err := errors.Join(manifest.CheckName(a.Name), manifest.CheckVersion(a.Version), manifest.CheckDigest(a.Digest)); err != nil {
		return fmt.Errorf("accepted %q: %w", a.Name, err)
	}
	if manifest.CheckName(a.Channel) != nil {
		return fmt.Errorf("accepted %q: channel %q is not made of lower-case letters, digits and dashes", a.Name, a.Channel)
	}
	if err := checkTime(a.Created); err != nil {
		return fmt.Errorf("accepted %q: created %w", a.Name, err)
	}
	if err := checkTime(a.At); err != nil {
		return fmt.Errorf("accepted %q: accepted at %w", a.Name, err)
	}
	if a.Root != nil && (a.Root.Version < 1 || !rootName().MatchString(a.Root.Name)) {
		return fmt.Errorf("accepted %q: root %q version %d is none", a.Name, a.Root.Name, a.Root.Version)
	}
	return nil
}
