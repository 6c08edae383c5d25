package install

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sealift/sealift/internal/site"
	"github.com/sealift/sealift/internal/trust"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// AcceptOptions say what Accept records.
type AcceptOptions struct {
	Dir *site.Dir
	// Now is the local clock.
	Now time.Time
	// How is what was done with the bundles ("seed", "install"), Target where.
	How, Target string
	// Reason is the operator's, for what would have been refused otherwise; Weakened are the
	// flags that made it possible to use the bundles at all.
	Reason   string
	Weakened []string
}

// Between tries to record while another process does.
const (
	recordTries = 100
	recordPause = 100 * time.Millisecond
)

// MeanwhileError says that what a site trusts has changed since a bundle was judged.
type MeanwhileError struct{ Path, What string }

// Error names the bundle.
func (e *MeanwhileError) Error() string {
	return fmt.Sprintf("bundle %q was judged by what this site trusted before: %s", e.Path, e.What)
}

// errRehearsed ends an update that is not to be made.
var errRehearsed = errors.New("rehearsed")

// Prepared is called before anything is done with bundles that are going to be accepted. It checks
// that Accept will accept them, each after the other, and that the record can be written; and it
// writes to the journal why bundles are used that would have been refused, since what is done may
// be interrupted. Errors: *trust.StaleError, *MeanwhileError, or those of site.Dir.Update.
func Prepared(ctx context.Context, bundles []*verify.Bundle, o AcceptOptions) error {
	_, err := record(ctx, o, func(tx *site.Tx) error {
		if err := acceptAll(ctx, tx, bundles, o); err != nil {
			return err
		}
		return errRehearsed
	})
	if !errors.Is(err, errRehearsed) {
		return err
	}
	return Overridden(ctx, bundles, o)
}

// Rehearse checks the same as Prepared and writes nothing at all, for plans.
func Rehearse(ctx context.Context, bundles []*verify.Bundle, o AcceptOptions) error {
	if o.Dir == nil {
		return nil
	}
	r, err := o.Dir.Read(ctx)
	if err != nil {
		return err
	}
	return acceptAll(ctx, &site.Tx{Record: r}, bundles, o)
}

// Accept records that bundles are in use at the site, so that older ones are refused from now on:
// their versions, the roots that came with them, and the times that are known to have passed. It
// is called after all else has been done, and judges once more, since others may have accepted
// something meanwhile. It returns the end of the journal, which can be kept elsewhere. Errors as
// those of Prepared.
func Accept(ctx context.Context, bundles []*verify.Bundle, o AcceptOptions) (site.Head, error) {
	return record(ctx, o, func(tx *site.Tx) error { return acceptAll(ctx, tx, bundles, o) })
}

// Begun records that bundles were judged here and that something of them is in a cluster, but not all: what is to be promoted, or goes
// on later. The roots that came with them are pinned, and the bundles are known from now on, so that they may be gone on with after
// their end; no version is raised. It returns the end of the journal. Errors are *MeanwhileError and those of site.Dir.Update.
func Begun(ctx context.Context, bundles []*verify.Bundle, o AcceptOptions) (site.Head, error) {
	return record(ctx, o, func(tx *site.Tx) error {
		for _, b := range bundles {
			for name, chain := range b.Roots() {
				if err := checkChain(tx.Record, name, chain, o); err != nil {
					return &MeanwhileError{b.Path(), err.Error()}
				}
				PinRoots(tx, name, chain, "")
			}
			tx.Record.Remember(acceptedOf(b, o))
		}
		return nil
	})
}

// acceptedOf is a bundle as a record has it.
func acceptedOf(b *verify.Bundle, o AcceptOptions) site.Accepted {
	m, e := b.Manifest(), b.Evidence()
	return site.Accepted{
		Name: m.Name, Channel: m.Channel, Version: m.Version, Digest: e.Manifest, Created: m.Created,
		At: o.Now.UTC().Truncate(time.Second).Format(time.RFC3339), Root: rootOf(e),
	}
}

// acceptAll accepts bundles, of one name the older ones first, however they were named.
func acceptAll(ctx context.Context, tx *site.Tx, bundles []*verify.Bundle, o AcceptOptions) error {
	for _, b := range bundles {
		if judged := b.Judged(); judged != nil && judged.Policy != tx.Record.Policy {
			return &MeanwhileError{b.Path(), "its policy has changed"}
		}
		for name, chain := range b.Roots() {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := checkChain(tx.Record, name, chain, o); err != nil {
				return &MeanwhileError{b.Path(), err.Error()}
			}
		}
	}
	sorted := slices.Clone(bundles)
	slices.SortStableFunc(sorted, func(x, y *verify.Bundle) int {
		return manifest.CompareVersions(x.Manifest().Version, y.Manifest().Version)
	})
	for _, b := range sorted {
		stale, err := b.Judge(tx.Record)
		if err != nil {
			return fmt.Errorf("refusing %q: %w", b.Path(), err)
		}
		for name, chain := range b.Roots() {
			PinRoots(tx, name, chain, "")
		}
		accept(tx, b, stale, o)
	}
	return nil
}

// checkChain checks that what the site has pinned under a name is a part of the chain by which a
// bundle was judged: others may have gone further meanwhile, or another way.
func checkChain(r *site.Record, name string, chain []*trust.SignedRoot, o AcceptOptions) error {
	i := slices.IndexFunc(r.Roots, func(p site.PinnedRoot) bool { return p.Name == name })
	if i < 0 {
		return fmt.Errorf("root %q is pinned no more", name)
	}
	for _, v := range r.Roots[i].Chain {
		at := slices.IndexFunc(chain, func(s *trust.SignedRoot) bool { return s.Root.Version == v.Version })
		if at < 0 {
			return fmt.Errorf("root %q has come to version %d", name, v.Version)
		}
		if manifest.Digest(chain[at].File) == v.Digest {
			continue
		}
		// The same root may have come with other signatures.
		raw, err := o.Dir.Document(v.Digest, trust.MaxRootFileBytes)
		if err != nil {
			return err
		}
		if other, err := trust.ParseRootFile(raw); err != nil || other.Digest != chain[at].Digest {
			return fmt.Errorf("version %d of root %q is another one", v.Version, name)
		}
	}
	return nil
}

func record(ctx context.Context, o AcceptOptions, change func(*site.Tx) error) (site.Head, error) {
	for try := 1; ; try++ {
		head, err := o.Dir.Update(ctx, o.Now, change)
		var busy *site.BusyError
		if err == nil || !errors.As(err, &busy) || try == recordTries {
			return head, err
		}
		pause := time.NewTimer(recordPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return site.Head{}, ctx.Err()
		}
	}
}

// PinRoots adds the roots of a chain that are newer than those that are pinned under a name. The
// chain begins with one that is.
func PinRoots(tx *site.Tx, name string, chain []*trust.SignedRoot, reason string) {
	for i := range tx.Record.Roots {
		pinned := &tx.Record.Roots[i]
		if pinned.Name != name {
			continue
		}
		for _, root := range chain {
			if root.Root.Version != pinned.Chain[len(pinned.Chain)-1].Version+1 {
				continue
			}
			pinned.Chain = append(pinned.Chain, site.RootVersion{Version: root.Root.Version, Digest: tx.Put(root.File)})
			tx.Log(site.Event{
				Kind: site.KindRootUpdate, Digest: root.Digest, Reason: reason,
				Detail: map[string]string{"root": name, "version": strconv.Itoa(root.Root.Version)},
			})
		}
	}
}

// Overridden records that bundles were used which would have been refused, and raises nothing. Errors
// are those of site.Dir.Update.
func Overridden(ctx context.Context, bundles []*verify.Bundle, o AcceptOptions) error {
	_, err := record(ctx, o, func(tx *site.Tx) error {
		for _, b := range bundles {
			overridden(tx, b, o)
		}
		return nil
	})
	return err
}

// overridden logs all for which a bundle would have been refused.
func overridden(tx *site.Tx, b *verify.Bundle, o AcceptOptions) {
	m := b.Manifest()
	event := func(kind, text string) {
		tx.Log(site.Event{
			Kind: kind, Bundle: m.Name, Channel: m.Channel, Version: m.Version, Digest: b.Evidence().Manifest, Reason: o.Reason,
			Detail: map[string]string{"how": o.How, "what": text},
		})
	}
	for _, flag := range o.Weakened {
		event(site.KindWeakened, flag)
	}
	for _, s := range b.Stale() {
		kind := site.KindExpired
		if s.Kind == trust.Older || s.Kind == trust.Changed {
			kind = site.KindDowngrade
		}
		event(kind, s.Text)
	}
}

func accept(tx *site.Tx, b *verify.Bundle, stale []*trust.StaleError, o AcceptOptions) {
	m, e := b.Manifest(), b.Evidence()
	changed := slices.ContainsFunc(stale, func(s *trust.StaleError) bool { return s.Kind == trust.Changed })
	a := acceptedOf(b, o)
	// An older version that was allowed once stays known, but does not become what is accepted:
	// what the site has seen does not go back.
	have := tx.Record.Find(m.Name, m.Channel)
	switch {
	case e.Unsigned:
		// Whoever made it must not decide what the site refuses from now on.
		tx.Record.Remember(a)
	case have == nil || changed || manifest.CompareVersions(m.Version, have.Version) > 0, have.Digest == a.Digest && have.Version == a.Version, resets(b, have):
		tx.Record.Accept(a)
	default:
		tx.Record.Remember(a)
	}
	detail := map[string]string{"how": o.How, "target": o.Target}
	if e.Rule != "" {
		detail["rule"], detail["policy"] = e.Rule, e.Policy
	}
	var signers []string
	times := []time.Time{}
	if created, err := time.Parse(time.RFC3339, m.Created); err == nil {
		times = append(times, created)
	}
	for i := range e.Signed {
		signers = append(signers, e.Signed[i].Signer())
		for _, t := range e.Signed[i].Times {
			times = append(times, t.At)
		}
	}
	detail["signers"] = shortened(strings.Join(signers, "; "))
	tx.Record.RaiseFloor(o.Now, times...)
	tx.Log(site.Event{
		Kind: site.KindAccept, Bundle: m.Name, Channel: m.Channel, Version: m.Version, Digest: e.Manifest, Reason: o.Reason, Detail: detail,
	})
}

// maxDetail bounds a text in the journal, in bytes: a line of it has a limit, too.
const maxDetail = 8 << 10

func shortened(text string) string {
	if len(text) > maxDetail {
		return text[:maxDetail] + " …"
	}
	return text
}

// rootOf is the root under which the bundle was accepted.
func rootOf(e verify.Evidence) *site.RootRef {
	for _, g := range e.Groups {
		if g.Root != "" {
			return &site.RootRef{Name: g.Root, Version: g.RootVersion}
		}
	}
	return nil
}

// resets reports whether a root that came after what the site has accepted resets it.
func resets(b *verify.Bundle, have *site.Accepted) bool {
	return have.Root != nil && trust.ResetSince(b.Roots()[have.Root.Name], have.Root.Version, have.Name)
}

// PinnedRoots reads the roots that the site has pinned, by name, and proves them against the
// record. Errors are those of site.Dir.Document, or about a root that cannot be read.
func PinnedRoots(d *site.Dir, r *site.Record) (map[string][]*trust.SignedRoot, error) {
	all := map[string][]*trust.SignedRoot{}
	for _, pinned := range r.Roots {
		for _, v := range pinned.Chain {
			raw, err := d.Document(v.Digest, trust.MaxRootFileBytes)
			if err != nil {
				return nil, err
			}
			root, err := trust.ParseRootFile(raw)
			if err != nil {
				return nil, fmt.Errorf("reading version %d of the pinned root %q: %w", v.Version, pinned.Name, err)
			}
			all[pinned.Name] = append(all[pinned.Name], root)
		}
	}
	return all, nil
}
