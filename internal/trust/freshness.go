package trust

import (
	"fmt"
	"slices"
	"time"

	"github.com/sealift/sealift/internal/site"
	"github.com/sealift/sealift/manifest"
)

// Kinds of StaleError.
const (
	// Older: the site has accepted a newer version.
	Older = "older"
	// Changed: the site has accepted the same version with another content.
	Changed = "changed"
	// Expired: the bundle, or the vendor's root, is past its end.
	Expired = "expired"
	// TooOld: the bundle is older than the rule allows, by its version or its age.
	TooOld = "too-old"
	// IsRevoked: the vendor, or the site, has taken it back.
	IsRevoked = "revoked"
)

// StaleError says that a bundle is signed as it should be, but is not the one to be used now.
type StaleError struct {
	Kind   string
	Bundle string
	Text   string
}

// Error names the bundle and the reason.
func (e *StaleError) Error() string { return fmt.Sprintf("bundle %s: %s", e.Bundle, e.Text) }

// Freshness is what a bundle's age is judged by.
type Freshness struct {
	// Record is what the site has accepted; nil where it keeps no record, and only what the bundle
	// and the policy say counts.
	Record *site.Record
	// Now is the local clock.
	Now time.Time
	// Proven are times at which the bundle's signatures are proven to have been there: it cannot be
	// earlier than that.
	Proven []time.Time
	// AllowDowngrade accepts older versions, and another content of an accepted one; AllowExpired
	// what is past its end or too old.
	AllowDowngrade, AllowExpired bool
}

// Verdict is what was found about the age of a bundle that may be used.
type Verdict struct {
	// Accepted says that the site has accepted this very bundle before.
	Accepted bool
	// Overridden are the reasons for which it would have been refused.
	Overridden []*StaleError
	Warnings   []string
}

// clockSlack is how far clocks may be apart before it is worth a word.
const clockSlack = 24 * time.Hour

// now is the local clock, but never before what the site knows to have passed.
func (f *Freshness) now() (now time.Time, warning string) {
	now = f.Now
	known := slices.Clone(f.Proven)
	if f.Record != nil {
		known = append(known, f.Record.Floor())
	}
	for _, t := range known {
		if t.After(now) {
			now = t
		}
	}
	if now.Sub(f.Now) > clockSlack {
		warning = fmt.Sprintf("the clock of this machine says %s, but it is known to be later than %s, and that counts", stamp(f.Now), stamp(now))
	}
	return now, warning
}

func stamp(t time.Time) string { return t.UTC().Truncate(time.Second).Format(time.RFC3339) }

// Judge decides whether the bundle whose manifest m has a digest is fresh enough. chains are the
// roots that the site knows, by vendor, in the order of their versions. Errors are *StaleError.
func (d *Decision) Judge(p *Policy, chains map[string][]*SignedRoot, m *manifest.Manifest, digest string, f Freshness) (*Verdict, error) {
	j := &judgement{f: f, m: m, verdict: &Verdict{}, name: m.Name + " " + m.Version}
	var warning string
	if j.now, warning = f.now(); warning != "" {
		j.warn(warning)
	}
	if f.Record != nil {
		j.verdict.Accepted = f.Record.KnownDigest(digest) != nil
	}
	if err := j.revoked(p, d, chains, digest); err != nil {
		return nil, err
	}
	for _, err := range []error{j.version(d, chains, digest), j.age(d), j.roots(d, chains)} {
		if err != nil {
			return nil, err
		}
	}
	return j.verdict, nil
}

// judgement is one judgement under way.
type judgement struct {
	f       Freshness
	m       *manifest.Manifest
	name    string
	now     time.Time
	verdict *Verdict
}

func (j *judgement) warn(text string) { j.verdict.Warnings = append(j.verdict.Warnings, text) }

func (j *judgement) stale(kind, format string, a ...any) *StaleError {
	return &StaleError{kind, j.name, fmt.Sprintf(format, a...)}
}

// unless returns err where it was not allowed, and remembers it where it was.
func (j *judgement) unless(allowed bool, err *StaleError) error {
	if !allowed {
		return err
	}
	j.verdict.Overridden = append(j.verdict.Overridden, err)
	return nil
}

// revoked is never allowed: who takes a bundle back has a reason.
func (j *judgement) revoked(p *Policy, d *Decision, chains map[string][]*SignedRoot, digest string) error {
	if what, yes := p.Revoked.Find(j.m.Name, j.m.Channel, j.m.Version, digest); yes {
		return j.stale(IsRevoked, "%s is revoked by the site's policy", what)
	}
	// By the groups of the rule, not by who has signed: what a vendor has taken back is not good
	// where signatures do not count, either.
	for i := range d.Rule.Groups {
		g := &d.Rule.Groups[i]
		chain := chains[g.Root]
		if g.Root == "" || len(chain) == 0 {
			continue
		}
		last := &chain[len(chain)-1].Root
		if reason, yes := last.IsRevoked(j.m.Name, j.m.Channel, j.m.Version, digest); yes {
			return j.stale(IsRevoked, "%s", reason)
		}
	}
	return nil
}

// version compares with what the site has accepted, and with the least version of the rule.
func (j *judgement) version(d *Decision, chains map[string][]*SignedRoot, digest string) error {
	if oldest := d.Rule.Oldest; oldest != "" && manifest.CompareVersions(j.m.Version, oldest) < 0 {
		// The site has written down what it wants: changing that is the way, not a flag.
		return j.stale(TooOld, "version %s is older than %s, the oldest that rule %q allows", j.m.Version, oldest, d.Rule.Name)
	}
	if j.f.Record == nil {
		return nil
	}
	have := j.f.Record.Find(j.m.Name, j.m.Channel)
	if have == nil {
		j.otherChannel()
		return nil
	}
	// Of what was only heard of, a version and a digest need not belong together.
	if have.Digest == digest && have.Version == j.m.Version {
		return nil
	}
	if have.Root != nil && ResetSince(chains[have.Root.Name], have.Root.Version, j.m.Name) && signedUnder(d, have.Root.Name) {
		j.warn(fmt.Sprintf("the root %q has reset what this site accepted of %s: version %s counts no more", have.Root.Name, j.m.Name, have.Version))
		return nil
	}
	switch c := manifest.CompareVersions(j.m.Version, have.Version); {
	case c < 0:
		return j.unless(j.f.AllowDowngrade, j.stale(Older, "this site has accepted version %s on %s, which is newer", have.Version, have.At))
	case c == 0 && j.m.Version == have.Version:
		return j.unless(j.f.AllowDowngrade, j.stale(Changed, "ALARM: this site has accepted version %s with another content: got %s, had %s", have.Version, digest, have.Digest))
	case c == 0:
		return j.unless(j.f.AllowDowngrade, j.stale(Older, "this site has accepted version %s, and neither of the two is the newer one", have.Version))
	}
	return nil
}

// otherChannel says that a bundle is the first of its channel at a site that follows another one,
// where no rule says which channels are meant.
func (j *judgement) otherChannel() {
	for i := range j.f.Record.Accepted {
		if a := &j.f.Record.Accepted[i]; a.Name == j.m.Name {
			j.warn(fmt.Sprintf("this site follows the channel %q of %s, at version %s; what comes by the channel %q is not compared with that", a.Channel, a.Name, a.Version, j.m.Channel))
		}
	}
}

// signedUnder reports whether a root says who signed.
func signedUnder(d *Decision, root string) bool {
	return slices.ContainsFunc(d.Groups, func(s Signatories) bool { return s.Root == root })
}

// age blocks only what the site accepts for the first time: what it has accepted must be there for
// a reinstall.
func (j *judgement) age(d *Decision) error {
	created, err := time.Parse(time.RFC3339, j.m.Created)
	if err == nil && created.Sub(j.now) > clockSlack {
		j.warn(fmt.Sprintf("it says that it was made on %s, which has not come yet by the clock of this machine", j.m.Created))
	}
	first := !j.verdict.Accepted
	if ends, err := time.Parse(time.RFC3339, j.m.Expires); j.m.Expires != "" && (err != nil || !j.now.Before(ends)) {
		stale := j.stale(Expired, "expired on %s", j.m.Expires)
		if first {
			if err := j.unless(j.f.AllowExpired, stale); err != nil {
				return err
			}
		} else {
			j.warn(stale.Text + "; this site has accepted it before")
		}
	}
	if limit := d.Rule.MaximumAge; limit > 0 && (err != nil || j.now.Sub(created) > limit) && first {
		return j.unless(j.f.AllowExpired, j.stale(TooOld, "made on %s, which is longer ago than the %s that rule %q allows", j.m.Created, ageText(limit), d.Rule.Name))
	}
	return nil
}

// roots looks at the last root of each vendor: those before it may have expired.
func (j *judgement) roots(d *Decision, chains map[string][]*SignedRoot) error {
	for _, g := range d.Groups {
		chain := chains[g.Root]
		if g.Root == "" || len(chain) == 0 {
			continue
		}
		err := chain[len(chain)-1].CheckExpiry(j.now)
		if err == nil {
			continue
		}
		if j.verdict.Accepted {
			j.warn(err.Error())
			continue
		}
		if err := j.unless(j.f.AllowExpired, j.stale(Expired, "%v", err)); err != nil {
			return err
		}
	}
	return nil
}
