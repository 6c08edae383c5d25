package trust

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sealift/sealift/internal/sigstore"
	"github.com/sealift/sealift/manifest"
)

// Checking foreign signatures with all keys is bounded, so that a slot full of them costs little: in
// tries, and in bytes that go through a hash. Signatures that name a key which is known come first
// and are not counted.
const (
	maxTries = 2048
	maxWork  = 1 << 30
)

// Material is a signature that lies in a bundle or beside it: foreign bytes.
type Material struct {
	Name     string
	Body     []byte
	Detached bool
}

// Signed is one signature that holds, and who made it: a key, or an identity.
type Signed struct {
	// Key is the fingerprint of the public key: hex SHA-256 of its PKIX DER form.
	Key     string `json:"key,omitempty"`
	Issuer  string `json:"issuer,omitempty"`
	Subject string `json:"subject,omitempty"`
	// Signature is the name of the signature, Detached whether it lay beside the bundle.
	Signature string `json:"signature"`
	Detached  bool   `json:"detached"`
	// Times are the times at which the signature is proven to have existed; where there are none,
	// nothing but the signer's word says when it was made.
	Times []sigstore.ProvenTime `json:"times,omitempty"`
	// Logs are the transparency logs that are proven to hold the signature.
	Logs []string `json:"logs,omitempty"`

	// root is the vendor whose trusted root an identity was proven with; empty for the policy's.
	root string
}

// Signer is who signed, in a form that is equal exactly for the same signer.
func (s *Signed) Signer() string {
	if s.Key != "" {
		return "key sha256:" + s.Key
	}
	return s.Subject + " by " + s.Issuer
}

// stamped reports whether an authority has signed when the signature was there.
func (s *Signed) stamped() bool {
	return slices.ContainsFunc(s.Times, func(t sigstore.ProvenTime) bool { return t.Kind == sigstore.SignedTimestamp })
}

// Proven are the signatures over one message that hold.
type Proven struct {
	Signed []Signed
	// Reasons says of all others why they do not count.
	Reasons []error
}

// Roots are the vendors' current roots, by name.
type Roots map[string]*SignedRoot

// KeyPolicy is the policy of a site that has none, but for keys one of which must have signed. It
// is for bundles of any name.
func KeyPolicy(keys []sigstore.PublicKey) *Policy {
	p := &Policy{signers: map[string]signer{}}
	rule := &Rule{Groups: []Group{{Threshold: 1}}}
	for i := range keys {
		name := keys[i].Fingerprint
		p.signers[name] = signer{key: &keys[i]}
		rule.Groups[0].Signers = append(rule.Groups[0].Signers, name)
	}
	p.rules = []*Rule{rule}
	p.any = rule
	return p
}

// candidate is who might have signed.
type candidate struct {
	identity *sigstore.Identity
	trusted  *sigstore.TrustedRoot
	root     string
}

// known lists all keys and identities that any rule names.
func (p *Policy) known(roots Roots) (keys []sigstore.PublicKey, identities []candidate) {
	seen := map[string]bool{}
	add := func(k sigstore.PublicKey) {
		if !seen[k.Fingerprint] {
			seen[k.Fingerprint] = true
			keys = append(keys, k)
		}
	}
	names := make([]string, 0, len(p.signers))
	for name := range p.signers {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if s := p.signers[name]; s.key != nil {
			add(*s.key)
		} else if s.identity != nil {
			identities = append(identities, candidate{s.identity, p.Root, ""})
		}
	}
	for _, name := range p.Roots() {
		root := roots[name]
		if root == nil {
			continue
		}
		for _, k := range root.ReleaseKeys() {
			add(k)
		}
		for _, id := range root.ReleaseIdentities() {
			trusted := root.Trusted()
			if trusted == nil {
				trusted = p.Root
			}
			identities = append(identities, candidate{&id, trusted, name})
		}
	}
	return keys, identities
}

// proving is one run of Prove.
type proving struct {
	policy     *Policy
	message    *sigstore.Message
	size       int // of the message, in bytes
	keys       []sigstore.PublicKey
	identities []candidate
	roots      Roots
	tries      int
	result     *Proven
}

// Prove checks signatures over message with everybody whom the policy and the roots know. Nothing
// of the message is looked into.
func (p *Policy) Prove(ctx context.Context, roots Roots, message []byte, signatures []Material) (*Proven, error) {
	keys, identities := p.known(roots)
	v := &proving{policy: p, message: sigstore.NewMessage(message), size: len(message), keys: keys, identities: identities, roots: roots, result: &Proven{}}
	type later struct {
		Material
		signature *sigstore.Signature
	}
	var rest []later
	for _, m := range signatures {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s, err := sigstore.ParseSignature(m.Body)
		if err != nil {
			v.refuse(m, err)
			continue
		}
		if _, _, certified := s.Claims(); certified {
			v.proveIdentity(ctx, m, s)
			continue
		}
		// What the signature says about its key only decides which key is tried first.
		hinted := slices.IndexFunc(keys, func(k sigstore.PublicKey) bool { return k.Fingerprint == s.Fingerprint() })
		if hinted < 0 || v.proveKey(ctx, m, s, keys[hinted]) != nil {
			rest = append(rest, later{m, s})
		}
	}
	for _, l := range rest {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		v.tryAll(ctx, l.Material, l.signature)
	}
	return v.result, nil
}

// errStranger is why a signature does not count that nobody known can have made.
var errStranger = errors.New("by none of the signers that are known here")

func (v *proving) refuse(m Material, err error) {
	v.result.Reasons = append(v.result.Reasons, fmt.Errorf("%s: %w", m.Name, err))
}

func (v *proving) accept(m Material, s Signed) {
	s.Signature, s.Detached = m.Name, m.Detached
	v.result.Signed = append(v.result.Signed, s)
}

// tryAll tries all keys with a signature that does not say whose it is, or lies about that.
func (v *proving) tryAll(ctx context.Context, m Material, s *sigstore.Signature) {
	reason := errStranger
	if f := s.Fingerprint(); f != "" {
		reason = fmt.Errorf("says that it is by key sha256:%s: %w", f, errStranger)
	}
	for _, k := range v.keys {
		v.tries++
		if v.tries > maxTries || v.tries*v.size > maxWork {
			v.refuse(m, fmt.Errorf("not looked at any more, after %d tries", v.tries-1))
			return
		}
		err := v.proveKey(ctx, m, s, k)
		if err == nil {
			return
		}
		// Why it does not hold is of interest for the key that it says it is by.
		if k.Fingerprint == s.Fingerprint() {
			reason = err
		}
	}
	v.refuse(m, reason)
}

// proveKey checks one signature with one key. What proves when it was made is proven with the site's
// trusted root and with those of the vendors whose key it is, each for itself.
func (v *proving) proveKey(ctx context.Context, m Material, s *sigstore.Signature, k sigstore.PublicKey) error {
	proof, err := s.VerifyKeyOver(ctx, v.message, k, v.policy.Root)
	if err != nil {
		return err
	}
	v.accept(m, Signed{Key: k.Fingerprint, Times: proof.Times, Logs: proof.Logs})
	for _, name := range v.policy.Roots() {
		root := v.roots[name]
		if root == nil || root.Trusted() == nil || !slices.ContainsFunc(root.ReleaseKeys(), func(r sigstore.PublicKey) bool { return r.Fingerprint == k.Fingerprint }) {
			continue
		}
		more, err := s.VerifyKeyOver(ctx, v.message, k, root.Trusted())
		if err == nil && len(more.Times)+len(more.Logs) > 0 {
			v.accept(m, Signed{Key: k.Fingerprint, Times: more.Times, Logs: more.Logs, root: name})
		}
	}
	return nil
}

// proveIdentity proves a certificate with each trusted root for which somebody like its owner may
// sign: what is proven with one vendor's root counts for that vendor only.
func (v *proving) proveIdentity(ctx context.Context, m Material, s *sigstore.Signature) {
	issuer, subject, _ := s.Claims()
	reason := fmt.Errorf("%s by %s: %w", subject, issuer, errStranger)
	tried := map[string]bool{}
	found := false
	for _, c := range v.identities {
		if tried[c.root] || !c.identity.Matches(issuer, subject) {
			continue
		}
		tried[c.root] = true
		proof, err := s.VerifyIdentityOver(ctx, v.message, issuer, subject, c.trusted)
		if err != nil {
			reason = err
			continue
		}
		found = true
		v.accept(m, Signed{Issuer: issuer, Subject: subject, Times: proof.Times, Logs: proof.Logs, root: c.root})
	}
	if !found {
		v.refuse(m, reason)
	}
}

// Decision is how a bundle meets the policy.
type Decision struct {
	Rule *Rule
	// Groups are those of the rule, with who signed for each.
	Groups []Signatories
}

// Signatories are those who signed for a group.
type Signatories struct {
	Group     string `json:"group"`
	Threshold int    `json:"threshold"`
	// Root and RootVersion name the root document that says who the group is.
	Root        string   `json:"root,omitempty"`
	RootVersion int      `json:"rootVersion,omitempty"`
	Signers     []string `json:"signers"`
}

// GroupError says that too few of a group have signed.
type GroupError struct {
	Rule, Group string
	Got         []string
	Want        int
	// Unproven are those of the group whose signatures lack the log entry or timestamp that the
	// rule demands.
	Unproven []string
	// Root is set where the group is that of a root which the site does not have.
	Root string
}

// Error counts the signers.
func (e *GroupError) Error() string {
	where := fmt.Sprintf("group %q of rule %q", e.Group, e.Rule)
	if e.Root != "" {
		return fmt.Sprintf("%s: the site has no root %q", where, e.Root)
	}
	s := fmt.Sprintf("%s: %d signers are wanted, got %d", where, e.Want, len(e.Got))
	if len(e.Got) > 0 {
		s += " (" + strings.Join(e.Got, ", ") + ")"
	}
	if len(e.Unproven) > 0 {
		s += "; without the proof of time that the rule demands: " + strings.Join(e.Unproven, ", ")
	}
	return s
}

// Decide finds the rule for bundles called name and counts who signed. Errors: *RuleError, or a
// *GroupError for each group that is not complete.
func (p *Policy) Decide(name string, roots Roots, proven *Proven) (*Decision, error) {
	rule := p.any
	if rule == nil {
		var err error
		if rule, err = p.Rule(name); err != nil {
			return nil, err
		}
	}
	d := &Decision{Rule: rule}
	var errs []error
	var open []*filling
	for i := range rule.Groups {
		f := p.fill(rule, &rule.Groups[i], roots, proven)
		open = append(open, f)
	}
	// A rule without groups is none that ParsePolicy has read: nobody has signed for it.
	if len(open) == 0 {
		return nil, &GroupError{Rule: rule.Name, Want: 1}
	}
	assign(open)
	for _, f := range open {
		s := Signatories{Group: f.group.Name, Threshold: f.want, Root: f.group.Root, Signers: slices.Clone(f.chosen)}
		if f.root != nil {
			s.RootVersion = f.root.Root.Version
		}
		slices.Sort(s.Signers)
		// Nor is a group complete that demands nobody.
		switch want := max(f.want, 1); {
		case f.root == nil && f.group.Root != "":
			errs = append(errs, &GroupError{Rule: rule.Name, Group: f.group.Name, Root: f.group.Root})
		case len(f.chosen) < want:
			errs = append(errs, &GroupError{Rule: rule.Name, Group: f.group.Name, Got: s.Signers, Want: want, Unproven: f.unproven})
		}
		d.Groups = append(d.Groups, s)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return d, nil
}

// DecideUnsigned finds the rule for bundles called name, whoever made them. Errors are *RuleError.
func (p *Policy) DecideUnsigned(name string) (*Decision, error) {
	if p.any != nil {
		return &Decision{Rule: p.any}, nil
	}
	rule, err := p.Rule(name)
	if err != nil {
		return nil, err
	}
	return &Decision{Rule: rule}, nil
}

// filling is a group that signers are found for.
type filling struct {
	group *Group
	root  *SignedRoot
	want  int
	// able are the different signers of the group whose signatures count.
	able, chosen, unproven []string
}

func (p *Policy) fill(rule *Rule, g *Group, roots Roots, proven *Proven) *filling {
	f := &filling{group: g, want: g.Threshold}
	if g.Root != "" {
		f.root = roots[g.Root]
		if f.root == nil {
			return f
		}
		f.want = f.root.Root.Release.Threshold
	}
	for i := range proven.Signed {
		s := &proven.Signed[i]
		if !p.belongs(s, g, f.root) {
			continue
		}
		id := s.Signer()
		if rule.Log && len(s.Logs) == 0 || rule.Timestamp && !s.stamped() {
			if !slices.Contains(f.unproven, id) {
				f.unproven = append(f.unproven, id)
			}
			continue
		}
		if !slices.Contains(f.able, id) {
			f.able = append(f.able, id)
		}
	}
	f.unproven = slices.DeleteFunc(f.unproven, func(id string) bool { return slices.Contains(f.able, id) })
	return f
}

// belongs reports whether who made s is of the group g.
func (p *Policy) belongs(s *Signed, g *Group, root *SignedRoot) bool {
	if root != nil {
		if s.Key != "" {
			return (s.root == "" || s.root == g.Root) && slices.ContainsFunc(root.ReleaseKeys(), func(k sigstore.PublicKey) bool { return k.Fingerprint == s.Key })
		}
		return s.root == g.Root && slices.ContainsFunc(root.ReleaseIdentities(), func(id sigstore.Identity) bool { return id.Matches(s.Issuer, s.Subject) })
	}
	return slices.ContainsFunc(g.Signers, func(name string) bool {
		known := p.signers[name]
		if s.Key != "" {
			return known.key != nil && s.root == "" && known.key.Fingerprint == s.Key
		}
		return known.identity != nil && s.root == "" && known.identity.Matches(s.Issuer, s.Subject)
	})
}

// assign gives each signer to one group at most, so that as many places as possible are taken: one
// person is never two, even where patterns of two groups match both.
func assign(groups []*filling) {
	type place struct{ group, n int }
	taken := map[string]place{}
	holder := map[place]string{}
	var put func(p place, seen map[string]bool) bool
	put = func(p place, seen map[string]bool) bool {
		for _, id := range groups[p.group].able {
			if seen[id] {
				continue
			}
			seen[id] = true
			if at, ok := taken[id]; ok && !put(at, seen) {
				continue
			}
			taken[id], holder[p] = p, id
			return true
		}
		return false
	}
	for g, f := range groups {
		for n := range f.want {
			if !put(place{g, n}, map[string]bool{}) {
				break
			}
		}
	}
	for p, id := range holder {
		if taken[id] == p {
			groups[p.group].chosen = append(groups[p.group].chosen, id)
		}
	}
}

// ViolationError says that a bundle is signed as it should be, but holds what the rule for it does
// not allow.
type ViolationError struct {
	Rule       string
	Violations []string
}

// Error lists the violations.
func (e *ViolationError) Error() string {
	list := e.Violations
	if n := len(list); n > maxViolations {
		list = append(slices.Clone(list[:maxViolations]), fmt.Sprintf("and %d more", n-maxViolations))
	}
	return fmt.Sprintf("rule %q of the site's policy does not allow what is in the bundle: %s", e.Rule, strings.Join(list, "; "))
}

// maxViolations bounds how many violations are listed.
const maxViolations = 20

// CheckContent compares what a manifest says about a bundle with the rule: where its images come
// from, and the namespaces of its releases. Errors are *ViolationError.
func (r *Rule) CheckContent(m *manifest.Manifest) error {
	e := &ViolationError{Rule: r.Name}
	if len(r.channels) > 0 && !slices.Contains(r.channels, m.Channel) {
		e.Violations = append(e.Violations, fmt.Sprintf("it is of the channel %q, and not of %s", m.Channel, strings.Join(r.channels, ", ")))
	}
	for _, img := range m.AllImages() {
		repository, _, _ := manifest.SplitSource(img.Source)
		if !r.allowsOrigin(repository) {
			e.Violations = append(e.Violations, fmt.Sprintf("image %q is from none of the registries %s", img.Source, strings.Join(r.Registries(), ", ")))
		}
	}
	for i := range m.Charts {
		c := &m.Charts[i]
		if len(r.Limits.Namespaces) > 0 && !slices.ContainsFunc(r.Limits.Namespaces, func(p string) bool { return MatchName(p, c.Namespace) }) {
			e.Violations = append(e.Violations, fmt.Sprintf("release %q goes to namespace %q", c.Release, c.Namespace))
		}
	}
	if len(e.Violations) > 0 {
		return e
	}
	return nil
}

// allowsOrigin reports whether images may come from a repository: its registry, or a path that it
// begins with, is among those of the rule.
func (r *Rule) allowsOrigin(repository string) bool {
	if len(r.registries) == 0 {
		return true
	}
	for at := range len(repository) + 1 {
		if at < len(repository) && repository[at] != '/' {
			continue
		}
		if slices.ContainsFunc(r.registries, func(p sigstore.Pattern) bool { return p.Matches(repository[:at]) }) {
			return true
		}
	}
	return false
}
