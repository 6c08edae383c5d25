package install

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sealift/sealift/internal/ledger"
	"github.com/sealift/sealift/internal/site"
	"github.com/sealift/sealift/manifest"
)

// What was accepted in a cluster is in the states of its bundles, for all who install there; what is in the state directory
// of a machine is its copy of that, and what the machine has accepted without a cluster. The higher of the two counts.
//
// A state is not signed: whoever may write to the Secret can say anything. So what is heard can only have a machine refuse more,
// never accept more: it raises versions, is not taken for a bundle that was judged here, and does not let a vendor's root that this
// machine knows already reset it. What was raised for no reason 'sealift trust forget --cluster' lowers again.

// maxHeard bounds what a record takes over from clusters: where it has so many names and channels, no new ones come in.
const maxHeard = 4096

// UnfitStateError says that a state has something that no record can hold: it was left out, and all else taken over.
type UnfitStateError struct {
	Bundle string
	Err    error
}

// Error names the bundle.
func (e *UnfitStateError) Error() string {
	return fmt.Sprintf("taking over what the cluster has accepted of bundle %q: %v", e.Bundle, e.Err)
}

// Unwrap returns the cause.
func (e *UnfitStateError) Unwrap() error { return e.Err }

// CatchUp raises what a machine has recorded to what the state of a bundle says was accepted in the cluster, and writes to the
// journal where it did; where nothing changes nothing is written. The times of the cluster are believed as others are, see
// site.Record.RaiseFloor. bundle is the name under which the state was read. Errors are those of site.Dir.Update, or an
// *UnfitStateError, after which all that is fit has been taken over.
func CatchUp(ctx context.Context, dir *site.Dir, bundle string, s *ledger.State, now time.Time) error {
	if s == nil {
		return nil
	}
	if s.Name != bundle {
		return &UnfitStateError{bundle, fmt.Errorf("it is the state of %q", s.Name)}
	}
	have, err := dir.Read(ctx)
	if err != nil {
		return err
	}
	c := &catchUp{now: now}
	unfit := c.raise(copied(have), s)
	if !c.changed {
		return unfit
	}
	_, err = record(ctx, AcceptOptions{Dir: dir, Now: now}, func(tx *site.Tx) error {
		c := &catchUp{now: now, log: tx.Log}
		unfit = c.raise(tx.Record, s)
		return nil
	})
	if err != nil {
		return err
	}
	return unfit
}

// Overlaid is record as it would be after CatchUp with each of the states; record stays as it is. It is for those who judge and
// must write nothing. The record is there also where an error, of joined *UnfitStateError, says what was left out.
func Overlaid(record *site.Record, states []*ledger.State, now time.Time) (*site.Record, error) {
	r, c := copied(record), &catchUp{now: now}
	var unfit error
	for _, s := range states {
		unfit = errors.Join(unfit, c.raise(r, s))
	}
	return r, unfit
}

// copied is a record of which what is accepted can be changed.
func copied(r *site.Record) *site.Record {
	c := *r
	c.Accepted, c.Known = slices.Clone(r.Accepted), slices.Clone(r.Known)
	return &c
}

// catchUp is the taking over of states into a record.
type catchUp struct {
	now time.Time
	// log gets what is taken over; nil where nothing is written.
	log     func(site.Event)
	changed bool
}

// raise takes over what a state says. What is unfit is left out.
func (c *catchUp) raise(r *site.Record, s *ledger.State) error {
	var unfit error
	leave := func(err error) {
		if unfit == nil {
			unfit = &UnfitStateError{s.Name, err}
		}
	}
	for _, theirs := range s.Accepted {
		a := site.Accepted{Name: s.Name, Channel: theirs.Channel, Version: theirs.Version, Digest: theirs.Digest, Created: theirs.Created, At: theirs.At}
		if theirs.Root != "" {
			a.Root = &site.RootRef{Name: theirs.Root, Version: theirs.RootVersion}
		}
		if err := a.Check(); err != nil {
			leave(err)
			continue
		}
		have, was := r.Find(a.Name, a.Channel), ""
		switch {
		case have == nil && len(r.Accepted) >= maxHeard:
			leave(fmt.Errorf("the record of this machine has %d names and channels, and takes over no more", len(r.Accepted)))
			continue
		case have != nil && manifest.CompareVersions(a.Version, have.Version) <= 0:
			// Another content of the version that was accepted here stays an alarm.
			continue
		case have != nil:
			was = have.Version
		}
		a.Root = knownRoot(r, a.Root)
		r.Hear(a)
		c.note(a, was, "accepted")
	}
	if floor, err := time.Parse(time.RFC3339, s.ClockFloor); err == nil && floor.After(r.Floor()) && floor.Sub(c.now) <= site.MaxAhead {
		r.RaiseFloor(floor)
		c.changed = true
	}
	return unfit
}

// knownRoot is the root under which something that was heard of counts: at least in the version that this machine has, so that a reset
// which it knows of already does not end it.
func knownRoot(r *site.Record, root *site.RootRef) *site.RootRef {
	if root == nil {
		return nil
	}
	for _, p := range r.Roots {
		if p.Name == root.Name {
			return &site.RootRef{Name: p.Name, Version: max(root.Version, p.Chain[len(p.Chain)-1].Version)}
		}
	}
	return root
}

func (c *catchUp) note(a site.Accepted, was, what string) {
	c.changed = true
	if c.log == nil {
		return
	}
	detail := map[string]string{"from": "the cluster", "what": what}
	if was != "" {
		detail["was"] = was
	}
	c.log(site.Event{Kind: site.KindCatchUp, Bundle: a.Name, Channel: a.Channel, Version: a.Version, Digest: a.Digest, Detail: detail})
}

// newer reports whether the second of two accepted bundles of a name and channel counts: the one with the higher version, of equal
// ones the one that was accepted later, as an operator allowed then.
func newer(haveVersion, haveDigest, haveAt, version, digest, at string) bool {
	if haveDigest == digest {
		return false
	}
	if c := manifest.CompareVersions(version, haveVersion); c != 0 {
		return c > 0
	}
	return at > haveAt
}

// receiptsOf are the receipts of what was installed, oldest first.
func receiptsOf(s *ledger.State) []*ledger.Receipt {
	var all []*ledger.Receipt
	for i := range s.History {
		if s.History[i].Outcome == ledger.OutcomeDone {
			all = append(all, &s.History[i])
		}
	}
	if s.Installed != nil {
		all = append(all, s.Installed)
	}
	return all
}

// raiseAccepted puts what an install has accepted into the state of its bundle, when it succeeds: see acceptedBy. What is there and
// counts more stays. floor is a time that has certainly passed; an empty one, and one that is no time, raises nothing.
func raiseAccepted(s *ledger.State, a ledger.Accepted, floor string) {
	if t, err := time.Parse(time.RFC3339, floor); err == nil {
		// One that no clock can have shown yet was somebody's mistake, and would keep all others out for ever.
		if have, err := time.Parse(time.RFC3339, s.ClockFloor); err != nil || t.After(have) || have.Sub(t) > 2*site.MaxAhead {
			s.ClockFloor = stamp(t)
		}
	}
	if a.Version == "" {
		return
	}
	i := slices.IndexFunc(s.Accepted, func(have ledger.Accepted) bool { return have.Channel == a.Channel })
	if i < 0 {
		s.Accepted = append(s.Accepted, a)
		return
	}
	have := &s.Accepted[i]
	// What is installed once more was accepted under the root of today.
	if a.Replaces || have.Digest == a.Digest || newer(have.Version, have.Digest, have.At, a.Version, a.Digest, a.At) {
		*have = a
	}
}

// acceptedBy is what an install that succeeded means for what is accepted, and the latest time that is known to have passed then. The
// version is empty where nothing is accepted: nobody is proven to have made the bundle.
func acceptedBy(r *ledger.Receipt, now time.Time) (a ledger.Accepted, floor string) {
	known := &site.Record{}
	times := []time.Time{}
	add := func(text string) {
		if t, err := time.Parse(time.RFC3339, text); err == nil {
			times = append(times, t)
		}
	}
	add(r.Created)
	for _, s := range r.Signers {
		for _, t := range s.Times {
			add(provenAt(t))
		}
	}
	known.RaiseFloor(now, times...)
	if r.Accept == ledger.AcceptNothing || r.Action == ledger.ActionUninstall || r.Action == ledger.ActionRollback {
		return ledger.Accepted{}, known.ClockFloor
	}
	a = ledger.Accepted{
		Channel: r.Channel, Version: r.Version, Digest: r.Manifest, Created: r.Created, At: stamp(now),
		Replaces: r.Accept == ledger.AcceptReplace,
	}
	if len(r.Roots) > 0 {
		a.Root, a.RootVersion = r.Roots[0].Name, r.Roots[0].Version
	}
	return a, known.ClockFloor
}

// ForgetAccepted takes out of a state what was accepted of its bundle by a channel, and a clock floor that is further ahead of now than
// a machine would believe. It reports whether anything was there.
func ForgetAccepted(s *ledger.State, channel string, now time.Time) bool {
	before := len(s.Accepted)
	s.Accepted = slices.DeleteFunc(s.Accepted, func(a ledger.Accepted) bool { return a.Channel == channel })
	changed := len(s.Accepted) != before
	if t, err := time.Parse(time.RFC3339, s.ClockFloor); s.ClockFloor != "" && (err != nil || t.Sub(now) > site.MaxAhead) {
		s.ClockFloor, changed = "", true
	}
	return changed
}

// acceptedMeanwhile refuses to go on with an install whose bundle was judged before somebody else installed a newer one. It is asked
// while the lease of the bundle is held. Who was allowed to install an older version knew about newer ones. Errors are *MeanwhileError.
func acceptedMeanwhile(s *ledger.State, r *ledger.Receipt) error {
	if s == nil || r.Accept != ledger.AcceptRaise {
		return nil
	}
	for _, have := range s.Accepted {
		if have.Channel == r.Channel && have.Digest != r.Manifest && !newer(have.Version, have.Digest, have.At, r.Version, r.Manifest, "9999") {
			return &MeanwhileError{r.Bundle, fmt.Sprintf("version %s was accepted on %s in this cluster", have.Version, have.At)}
		}
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Truncate(time.Second).Format(time.RFC3339) }

// KeepReceipt keeps a receipt in the state directory of the machine, as the statement that EncodeReceipt makes of it, and binds it to the
// journal. One that is larger than a document may be is named there only. It returns the end of the journal. Errors are those of
// EncodeReceipt and of site.Dir.Update.
func KeepReceipt(ctx context.Context, dir *site.Dir, r *ledger.Receipt, now time.Time) (site.Head, error) {
	if r == nil {
		return site.Head{}, errors.New("keeping a receipt: there is none")
	}
	raw, err := EncodeReceipt(r)
	if err != nil {
		return site.Head{}, err
	}
	return record(ctx, AcceptOptions{Dir: dir, Now: now}, func(tx *site.Tx) error {
		detail := map[string]string{"id": r.ID, "action": r.Action, "outcome": r.Outcome, "cluster": r.Cluster}
		if len(raw) <= site.MaxDocument {
			tx.Put(raw)
		} else {
			detail["kept"] = "no: it is too large"
		}
		tx.Log(site.Event{
			Kind: site.KindReceipt, Bundle: r.Bundle, Channel: r.Channel, Version: r.Version, Digest: manifest.Digest(raw), Detail: detail,
		})
		return nil
	})
}
