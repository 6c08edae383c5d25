package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/sealift/sealift/internal/sigstore"
	"github.com/sealift/sealift/internal/trust"
	"github.com/sealift/sealift/manifest"
)

// ErrNoPolicy is returned where nobody was named who may sign.
var ErrNoPolicy = errors.New("nothing says whom to trust: there is no key, and no policy of the site")

// UnsignedError says that a bundle has no signature at all.
type UnsignedError struct {
	Path string
	// Detached is why a signature beside the bundle could not be read, if there is one.
	Detached error
}

// Error names the bundle.
func (e *UnsignedError) Error() string {
	if e.Detached != nil {
		return fmt.Sprintf("bundle %q is not signed, and the signature beside it cannot be read: %v", e.Path, e.Detached)
	}
	return fmt.Sprintf("bundle %q is not signed", e.Path)
}

// Unwrap returns the error of reading the signature beside the bundle.
func (e *UnsignedError) Unwrap() error { return e.Detached }

// UntrustedError says that a bundle's signatures are not those that the policy demands.
type UntrustedError struct {
	Path string
	// Signatures is how many there are.
	Signatures int
	// Keys are the fingerprints of the keys that were named; none where a policy says who may
	// sign.
	Keys []string
	// Demand is what the policy demands in vain (*trust.RuleError, *trust.GroupError), nil where
	// no signature at all is by anybody whom it knows.
	Demand error
	// Reasons says of signatures, and of roots that came with them, why they do not count.
	Reasons []error
}

// Error names the bundle and counts what was tried.
func (e *UntrustedError) Error() string {
	if e.Demand != nil {
		return fmt.Sprintf("bundle %q: %v", e.Path, e.Demand)
	}
	who := "a signer whom the site's policy knows"
	if len(e.Keys) > 0 {
		who = "the trusted key"
	}
	s := fmt.Sprintf("bundle %q: none of its signatures (%d) holds for %s", e.Path, e.Signatures, who)
	for _, k := range e.Keys {
		s += " sha256:" + k
	}
	if len(e.Keys) == 0 {
		for _, r := range e.Reasons[:min(len(e.Reasons), maxReasons)] {
			s += "; " + r.Error()
		}
	}
	return s
}

// maxReasons bounds how many reasons are told.
const maxReasons = 4

// Unwrap returns the demand and the reasons.
func (e *UntrustedError) Unwrap() []error {
	if e.Demand != nil {
		return append([]error{e.Demand}, e.Reasons...)
	}
	return e.Reasons
}

// Policy says who may sign, and what else is demanded. The zero value trusts nobody.
type Policy struct {
	// Keys, one of which must have signed: the short form for sites that have no policy.
	Keys []sigstore.PublicKey
	// Revoked is what the site refuses where Keys count.
	Revoked trust.Revoked
	// Site is the site's policy. Where there is one, Keys do not count.
	Site *trust.Policy
	// Pinned are the roots that the site knows, by vendor, in the order of their versions.
	Pinned map[string][]*trust.SignedRoot
	// More are root documents that came with other bundles of the same run: all are judged by the
	// newest roots at hand.
	More [][]byte
	// Unsigned accepts bundles that nobody is proven to have made. What they hold is proven
	// against their manifest all the same.
	Unsigned bool
	// Freshness judges the age of bundles; where it is nil it does not count.
	Freshness *trust.Freshness
}

// none reports whether p trusts nobody.
func (p *Policy) none() bool { return len(p.Keys) == 0 && p.Site == nil && !p.Unsigned }

// trusts is the policy that decides.
func (p *Policy) trusts() *trust.Policy {
	if p.Site != nil {
		return p.Site
	}
	policy := trust.KeyPolicy(p.Keys)
	policy.Revoked = p.Revoked
	return policy
}

// Evidence is what was proven about a bundle's origin, and by which rules it is accepted.
type Evidence struct {
	// Manifest is the digest of the signed bytes: the identity of the bundle.
	Manifest string `json:"manifest"`
	// Unsigned says that nobody is proven to have made it.
	Unsigned bool `json:"unsigned,omitempty"`
	// Signed are the signatures that hold, by signers whom the policy knows.
	Signed []trust.Signed `json:"signed"`
	// Ignored counts the other signatures: by others, or unreadable.
	Ignored int `json:"ignored"`
	// Policy is the digest of the site's policy, Rule the only rule that is for the bundle, Groups
	// who of them has signed. They are empty where a key was named.
	Policy string              `json:"policy,omitempty"`
	Rule   string              `json:"rule,omitempty"`
	Groups []trust.Signatories `json:"groups,omitempty"`
	// Roots are the vendors' root documents by which it was judged.
	Roots []RootEvidence `json:"roots,omitempty"`
	// Accepted says that the site has accepted this very bundle before.
	Accepted bool `json:"accepted,omitempty"`
	// Overridden are the reasons for which it would have been refused, had it not been allowed.
	Overridden []string `json:"overridden,omitempty"`
	Warnings   []string `json:"warnings,omitempty"`
}

// RootEvidence is a vendor's root.
type RootEvidence struct {
	Name    string `json:"name"`
	Version int    `json:"version"`
	Digest  string `json:"digest"`
	// New says that it came with the bundle, and was proven by the one that the site has.
	New bool `json:"new,omitempty"`
}

// judged is what the policy says of one bundle.
type judged struct {
	evidence Evidence
	manifest *manifest.Manifest
	decision *trust.Decision
	chains   map[string][]*trust.SignedRoot
	stale    []*trust.StaleError
	// policy and freshness are what it was judged by.
	policy    *trust.Policy
	freshness *trust.Freshness
}

// judge checks the signatures, and only then looks into the manifest.
func (o *opened) judge(ctx context.Context, p Policy) (*judged, error) {
	j := &judged{evidence: Evidence{Manifest: manifest.Digest(o.head.Manifest), Signed: []trust.Signed{}, Warnings: o.head.Warnings()}}
	policy := p.trusts()
	roots, unused, err := j.walk(ctx, policy, p.Pinned, p.More, o)
	if err != nil {
		return nil, err
	}
	proven := &trust.Proven{}
	if p.Unsigned {
		j.evidence.Unsigned, j.evidence.Ignored = true, len(o.signatures)
	} else if proven, err = o.proven(ctx, p, policy, roots, unused); err != nil {
		return nil, err
	}
	j.evidence.Signed = append(j.evidence.Signed, proven.Signed...)
	if j.manifest, err = manifest.Parse(o.head.Manifest); err != nil {
		return nil, &ContentError{o.path, err}
	}
	if err := j.decide(p, policy, roots, proven, append(unused, proven.Reasons...), o); err != nil {
		return nil, err
	}
	if err := j.decision.Rule.CheckContent(j.manifest); err != nil {
		return nil, fmt.Errorf("bundle %q: %w", o.path, err)
	}
	if p.Freshness == nil {
		return j, nil
	}
	freshness := *p.Freshness
	j.policy, j.freshness = policy, &freshness
	for i := range proven.Signed {
		for _, t := range proven.Signed[i].Times {
			freshness.Proven = append(freshness.Proven, t.At)
		}
	}
	verdict, err := j.decision.Judge(policy, j.chains, j.manifest, j.evidence.Manifest, freshness)
	if err != nil {
		return nil, fmt.Errorf("refusing %q: %w", o.path, err)
	}
	j.stale = verdict.Overridden
	j.evidence.Accepted = verdict.Accepted
	j.evidence.Warnings = append(j.evidence.Warnings, verdict.Warnings...)
	for _, s := range verdict.Overridden {
		j.evidence.Overridden = append(j.evidence.Overridden, s.Text)
	}
	return j, nil
}

// walk goes from the roots that the site knows over those that came with the bundle.
func (j *judged) walk(ctx context.Context, policy *trust.Policy, pinned map[string][]*trust.SignedRoot, more [][]byte, o *opened) (trust.Roots, []error, error) {
	names := policy.Roots()
	if len(names) == 0 {
		return nil, nil, nil
	}
	var have []*trust.SignedRoot
	var unused []error
	for _, t := range o.head.Trust {
		root, err := trust.ParseRootFile(t.Body)
		if err != nil {
			unused = append(unused, fmt.Errorf("root %d in the bundle: %w", t.Number, err))
			continue
		}
		have = append(have, root)
	}
	for _, body := range more {
		if root, err := trust.ParseRootFile(body); err == nil {
			have = append(have, root)
		}
	}
	roots := trust.Roots{}
	j.chains = map[string][]*trust.SignedRoot{}
	for _, name := range names {
		chain := pinned[name]
		if len(chain) == 0 {
			continue
		}
		known := len(chain)
		walked, left, err := trust.Walk(ctx, chain[known-1], have)
		if err != nil {
			return nil, nil, fmt.Errorf("bundle %q: %w", o.path, err)
		}
		unused = append(unused, left...)
		chain = append(slices.Clone(chain), walked[1:]...)
		last := chain[len(chain)-1]
		j.chains[name], roots[name] = chain, last
		j.evidence.Roots = append(j.evidence.Roots, RootEvidence{name, last.Root.Version, last.Digest, len(chain) > known})
	}
	for _, err := range unused {
		j.evidence.Warnings = append(j.evidence.Warnings, "a root document in the bundle does not count: "+err.Error())
	}
	return roots, unused, nil
}

// proven returns the signatures that hold; at least one does.
func (o *opened) proven(ctx context.Context, p Policy, policy *trust.Policy, roots trust.Roots, unused []error) (*trust.Proven, error) {
	if len(o.signatures) == 0 {
		return nil, &UnsignedError{o.path, o.unreadable}
	}
	proven, err := policy.Prove(ctx, roots, o.head.Manifest, o.signatures)
	if err != nil {
		return nil, err
	}
	if len(proven.Signed) > 0 {
		return proven, nil
	}
	e := &UntrustedError{Path: o.path, Signatures: len(o.signatures), Reasons: append(unused, proven.Reasons...)}
	if p.Site == nil {
		for _, k := range p.Keys {
			e.Keys = append(e.Keys, k.Fingerprint)
		}
	}
	return nil, e
}

// decide finds the rule for the bundle, and whether all who have to have signed it.
func (j *judged) decide(p Policy, policy *trust.Policy, roots trust.Roots, proven *trust.Proven, reasons []error, o *opened) error {
	var err error
	if p.Unsigned {
		j.decision, err = policy.DecideUnsigned(j.manifest.Name)
	} else {
		j.decision, err = policy.Decide(j.manifest.Name, roots, proven)
	}
	if err != nil {
		return &UntrustedError{Path: o.path, Signatures: len(o.signatures), Demand: err, Reasons: reasons}
	}
	if !p.Unsigned {
		j.evidence.Ignored = len(o.signatures) - countSignatures(proven.Signed)
		if o.unreadable != nil {
			j.evidence.Ignored++
		}
	}
	if p.Site != nil {
		j.evidence.Policy, j.evidence.Rule, j.evidence.Groups = p.Site.Digest, j.decision.Rule.Name, j.decision.Groups
	}
	return nil
}

// countSignatures counts those that hold; one may hold for two vendors' roots.
func countSignatures(signed []trust.Signed) int {
	names := map[string]bool{}
	for i := range signed {
		names[signed[i].Signature] = true
	}
	return len(names)
}
