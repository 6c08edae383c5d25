package trust

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sealift/sealift/internal/sigstore"
	"github.com/sealift/sealift/internal/strictyaml"
	"github.com/sealift/sealift/manifest"
)

const (
	// PolicyMediaType is the value of the first key of every policy, which is looked at before
	// anything else, so that no other document can pass for a policy.
	PolicyMediaType = "application/vnd.sealift.policy.v1+yaml"
	// MaxPolicyBytes bounds a policy.
	MaxPolicyBytes = 1 << 20

	maxRules     = 256
	maxSigners   = 256
	maxGroups    = 16
	maxThreshold = 32
)

// PolicyError lists all that is wrong with a policy.
type PolicyError struct {
	Path     string
	Problems []strictyaml.Problem
}

// Error has a line "path:line: text" for each problem.
func (e *PolicyError) Error() string { return strictyaml.Format(e.Path, e.Problems) }

// Policy is what a site demands of bundles. The zero Policy matches no bundle.
type Policy struct {
	// Digest of the bytes that the policy was read from.
	Digest string
	// Root is what certificates, logs and timestamps are proven with; nil where there is none.
	Root *sigstore.TrustedRoot
	// AllowKey allows operators to name a key, or another policy, instead of this one;
	// AllowUnsigned to use bundles without any proof of who made them.
	AllowKey, AllowUnsigned bool
	// Revoked is what the site itself refuses.
	Revoked Revoked

	signers map[string]signer
	rules   []*Rule
	// any is the rule for bundles of every name, where keys stand for a policy.
	any *Rule
}

// signer is who may sign, under the name that the policy has for it: a key or an identity.
type signer struct {
	key      *sigstore.PublicKey
	identity *sigstore.Identity
}

// Rule is what a policy demands of the bundles that it is for.
type Rule struct {
	Name   string
	Groups []Group
	// Log and Timestamp say that a signature counts only with a proven entry in a transparency
	// log, or a proven timestamp.
	Log, Timestamp bool
	// Oldest is the least version, MaximumAge how long after its creation a bundle is accepted
	// for the first time; empty and 0 for any.
	Oldest     string
	MaximumAge time.Duration
	Limits     Limits

	bundles    []sigstore.Pattern
	registries []sigstore.Pattern
	// channels that bundles may be of; none for all. Each has versions of its own, so that an old
	// bundle of another channel would not be seen to be old.
	channels []string
}

// Group is some signers, of whom at least Threshold different ones have to have signed.
type Group struct {
	Name      string
	Threshold int
	// Root names the vendor whose current root says who the signers are, and how many of them
	// are needed; Threshold is not used then.
	Root    string
	Signers []string
}

// Limits bound what the objects of a bundle may be. The zero value bounds nothing.
type Limits struct {
	// Namespaces and Kinds list what is allowed; empty for all.
	Namespaces, Kinds []string
	// ClusterScoped is false where objects outside of namespaces are refused.
	ClusterScoped *bool
	// NamespacedKinds are custom kinds (GROUP/KIND) of which the site knows that they live in
	// namespaces; all others are refused where ClusterScoped is false.
	NamespacedKinds []string
	// PodSecurity is the Pod Security Standard that all pods have to meet; empty for none.
	PodSecurity string
}

// Empty reports whether l bounds nothing.
func (l Limits) Empty() bool {
	return len(l.Namespaces)+len(l.Kinds) == 0 && l.ClusterScoped == nil && l.PodSecurity == ""
}

// policyFile is a policy as it is written.
type policyFile struct {
	MediaType   string                `yaml:"mediaType"`
	TrustedRoot string                `yaml:"trustedRoot"`
	Signers     map[string]signerFile `yaml:"signers"`
	Rules       []ruleFile            `yaml:"rules"`
	Revoked     revokedFile           `yaml:"revoked"`
	Allow       allowFile             `yaml:"allow"`
}

type signerFile struct {
	Key           string `yaml:"key"`
	Issuer        string `yaml:"issuer"`
	IssuerRegExp  string `yaml:"issuerRegExp"`
	Subject       string `yaml:"subject"`
	SubjectRegExp string `yaml:"subjectRegExp"`
}

type ruleFile struct {
	Name            string      `yaml:"name"`
	Bundles         []string    `yaml:"bundles"`
	Groups          []groupFile `yaml:"groups"`
	TransparencyLog string      `yaml:"transparencyLog"`
	SignedTimestamp string      `yaml:"signedTimestamp"`
	OldestVersion   string      `yaml:"oldestVersion"`
	MaximumAge      string      `yaml:"maximumAge"`
	Registries      []string    `yaml:"registries"`
	Channels        []string    `yaml:"channels"`
	Limits          limitsFile  `yaml:"limits"`
}

type groupFile struct {
	Name      string   `yaml:"name"`
	Threshold int      `yaml:"threshold"`
	Signers   []string `yaml:"signers"`
	Root      string   `yaml:"root"`
}

type limitsFile struct {
	Namespaces    []string `yaml:"namespaces"`
	Kinds         []string `yaml:"kinds"`
	ClusterScoped *bool    `yaml:"clusterScoped"`

	NamespacedKinds []string `yaml:"namespacedKinds"`
	PodSecurity     string   `yaml:"podSecurity"`
}

type revokedFile struct {
	Digests  []string              `yaml:"digests"`
	Versions []revokedVersionsFile `yaml:"versions"`
}

type revokedVersionsFile struct {
	Name     string   `yaml:"name"`
	Channel  string   `yaml:"channel"`
	Versions []string `yaml:"versions"`
}

type allowFile struct {
	Key      bool `yaml:"key"`
	Unsigned bool `yaml:"unsigned"`
}

// policyReader collects the problems of one policy.
type policyReader struct {
	file     policyFile
	doc      *strictyaml.Document
	policy   *Policy
	problems []strictyaml.Problem
}

func (r *policyReader) problem(line int, format string, a ...any) {
	r.problems = append(r.problems, strictyaml.Problem{Line: line, Text: fmt.Errorf(format, a...).Error()})
}

// ParsePolicy reads a policy; path is for errors, which are *PolicyError. What is empty, or
// contradicts itself, is an error.
func ParsePolicy(path string, raw []byte) (*Policy, error) {
	r := &policyReader{policy: &Policy{Digest: manifest.Digest(raw), signers: map[string]signer{}}}
	wrong := &PolicyError{path, []strictyaml.Problem{{Line: 1, Text: "the first key is not mediaType: " + PolicyMediaType}}}
	if key, value := strictyaml.First(raw, MaxPolicyBytes); key != "" && (key != "mediaType" || value != PolicyMediaType) {
		return nil, wrong
	}
	var problems []strictyaml.Problem
	if r.doc, problems = strictyaml.Decode(raw, MaxPolicyBytes, &r.file); len(problems) > 0 {
		return nil, &PolicyError{path, problems}
	}
	if r.doc.FirstKey() != "mediaType" || r.file.MediaType != PolicyMediaType {
		return nil, wrong
	}
	// "registries: []" would allow all registries to one reader, and none to another.
	if problems := r.doc.Empties(); len(problems) > 0 {
		return nil, &PolicyError{path, problems}
	}
	r.readSigners()
	r.readRules()
	r.readRevoked()
	r.policy.AllowKey, r.policy.AllowUnsigned = r.file.Allow.Key, r.file.Allow.Unsigned
	if len(r.problems) > 0 {
		return nil, &PolicyError{path, r.problems}
	}
	return r.policy, nil
}

func (r *policyReader) readSigners() {
	line := r.doc.Line("signers")
	if len(r.file.Signers) > maxSigners {
		r.problem(line, "%d signers, at most %d are allowed", len(r.file.Signers), maxSigners)
		return
	}
	if text := r.file.TrustedRoot; text != "" {
		var err error
		if r.policy.Root, err = sigstore.ParseTrustedRoot([]byte(text)); err != nil {
			r.problem(r.doc.Line("trustedRoot"), "trustedRoot: %w", err)
		}
	}
	same := map[string]string{}
	names := make([]string, 0, len(r.file.Signers))
	for name := range r.file.Signers {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := manifest.CheckName(name); err != nil {
			r.problem(line, "signers: %w", err)
			continue
		}
		s, id, err := parseSigner(r.file.Signers[name])
		if err != nil {
			r.problem(line, "signer %q: %w", name, err)
			continue
		}
		// Two names for one signer would count it twice.
		if other := same[id]; other != "" {
			r.problem(line, "signers %q and %q are the same one", other, name)
		}
		same[id] = name
		if s.identity != nil && r.file.TrustedRoot == "" {
			r.problem(line, "signer %q is an identity, which cannot be proven without a trustedRoot", name)
		}
		if s.identity != nil && r.policy.Root != nil && !r.policy.Root.Certifies() {
			r.problem(line, "signer %q is an identity, and the trustedRoot names no authority that certifies any", name)
		}
		r.policy.signers[name] = s
	}
}

func parseSigner(f signerFile) (signer, string, error) {
	if f.Key != "" {
		if f.Issuer+f.IssuerRegExp+f.Subject+f.SubjectRegExp != "" {
			return signer{}, "", errors.New("is both a key and an identity")
		}
		k, err := sigstore.ParsePublicKey([]byte(f.Key))
		if err != nil {
			return signer{}, "", err
		}
		return signer{key: &k}, "key " + k.Fingerprint, nil
	}
	id, err := sigstore.ParseIdentity(f.Issuer, f.IssuerRegExp, f.Subject, f.SubjectRegExp)
	if err != nil {
		return signer{}, "", fmt.Errorf("is neither a key (PEM) nor an identity: %w", err)
	}
	return signer{identity: &id}, fmt.Sprintf("%q %q %q %q", f.Issuer, f.IssuerRegExp, f.Subject, f.SubjectRegExp), nil
}

func (r *policyReader) readRules() {
	switch n := len(r.file.Rules); {
	case n == 0:
		r.problem(r.doc.Line("rules"), "has no rules: no bundle could be accepted")
		return
	case n > maxRules:
		r.problem(r.doc.Line("rules"), "%d rules, at most %d are allowed", n, maxRules)
		return
	}
	lines := make([]int, len(r.file.Rules))
	r.doc.Lines("rules", func(i, line int) { lines[i] = line })
	names, used := map[string]bool{}, map[string]bool{}
	literals := map[string]string{}
	for i := range r.file.Rules {
		f := &r.file.Rules[i]
		bad := func(format string, a ...any) {
			r.problem(lines[i], "rule %q: %w", f.Name, fmt.Errorf(format, a...))
		}
		rule := &Rule{Name: f.Name}
		if err := manifest.CheckName(f.Name); err != nil {
			r.problem(lines[i], "rules[%d]: %w", i, err)
		}
		if names[f.Name] {
			bad("stands twice")
		}
		names[f.Name] = true
		readBundles(rule, f, literals, bad)
		r.readGroups(rule, f, used, bad)
		r.readDemands(rule, f, bad)
		r.policy.rules = append(r.policy.rules, rule)
	}
	for _, name := range slices.Sorted(maps.Keys(r.policy.signers)) {
		if !used[name] {
			r.problem(r.doc.Line("signers"), "signer %q is in no group", name)
		}
	}
}

// bundleSeparators end a segment of a bundle's name: "shop*" is not for "shop-evil".
const bundleSeparators = "-"

// MatchName reports whether a pattern for names of bundles or namespaces, in which a * stays
// between dashes, matches name.
func MatchName(pattern, name string) bool {
	p, err := sigstore.Glob(pattern, bundleSeparators)
	return err == nil && p.Matches(name)
}

// checkNames reports whether a pattern could match any name: one with a capital letter, or one that
// only looks like a letter, would say less than its author believes.
func checkNames(pattern string) error {
	if manifest.CheckName(strings.ReplaceAll(pattern, "*", "x")) != nil {
		return fmt.Errorf("no name is like %+q: they are made of lower-case letters, digits and dashes", pattern)
	}
	return nil
}

func readBundles(rule *Rule, f *ruleFile, literals map[string]string, bad func(string, ...any)) {
	if len(f.Bundles) == 0 {
		bad("is for no bundles: name them under bundles")
	}
	for _, text := range f.Bundles {
		p, err := sigstore.Glob(text, bundleSeparators)
		if err != nil {
			bad("bundles: %w", err)
			continue
		}
		if err := checkNames(text); err != nil {
			bad("bundles: %w", err)
		}
		if p.Literal() {
			if other, twice := literals[text]; twice {
				bad("bundle %q is that of rule %q already, and exactly one rule must match", text, other)
			}
			literals[text] = f.Name
		}
		rule.bundles = append(rule.bundles, p)
	}
}

func (r *policyReader) readGroups(rule *Rule, f *ruleFile, used map[string]bool, bad func(string, ...any)) {
	if len(f.Groups) == 0 || len(f.Groups) > maxGroups {
		bad("%d groups, 1 to %d are wanted", len(f.Groups), maxGroups)
	}
	in, names := map[string]string{}, map[string]bool{}
	for i := range f.Groups {
		g := &f.Groups[i]
		group := Group{cmp.Or(g.Name, "group-"+strconv.Itoa(i+1)), g.Threshold, g.Root, g.Signers}
		if err := manifest.CheckName(group.Name); err != nil {
			bad("groups: %w", err)
		}
		if names[group.Name] {
			bad("group %q stands twice", group.Name)
		}
		names[group.Name] = true
		rule.Groups = append(rule.Groups, group)
		if g.Root != "" {
			readRootGroup(g, group.Name, in, bad)
			continue
		}
		r.readSignersOf(g, group.Name, in, used, bad)
	}
}

func readRootGroup(g *groupFile, name string, in map[string]string, bad func(string, ...any)) {
	if len(g.Signers) > 0 || g.Threshold != 0 {
		bad("group %q: root %q says who the signers are, and how many are needed: neither signers nor threshold beside it", name, g.Root)
	}
	if err := manifest.CheckName(g.Root); err != nil {
		bad("group %q: root: %w", name, err)
	}
	if other := in["root "+g.Root]; other != "" {
		bad("root %q is in the groups %q and %q", g.Root, other, name)
	}
	in["root "+g.Root] = name
}

func (r *policyReader) readSignersOf(g *groupFile, name string, in map[string]string, used map[string]bool, bad func(string, ...any)) {
	bounded := true
	for _, s := range g.Signers {
		if _, ok := r.file.Signers[s]; !ok {
			bad("group %q: signer %q is not among the signers", name, s)
		}
		if other := in[s]; other != "" {
			bad("signer %q is in the groups %q and %q: one signature would count for both", s, other, name)
		}
		in[s], used[s] = name, true
		if id := r.policy.signers[s].identity; id != nil && (!id.Issuer.Literal() || !id.Subject.Literal()) {
			bounded = false
		}
	}
	switch {
	case len(g.Signers) == 0:
		bad("group %q has no signers", name)
	case g.Threshold < 1 || g.Threshold > maxThreshold:
		bad("group %q: threshold %d is not from 1 to %d", name, g.Threshold, maxThreshold)
	case bounded && g.Threshold > len(g.Signers):
		bad("group %q: threshold %d, of %d signers", name, g.Threshold, len(g.Signers))
	}
}

// podSecurity are the Pod Security Standards of Kubernetes.
var podSecurity = []string{"", "privileged", "baseline", "restricted"}

// registrySeparators end a segment of a repository's name.
const registrySeparators = "/:@."

// registryPattern is what patterns of registries and of what is in them are made of: a host, maybe
// with a port, and the beginning of a repository's name. A scheme or a tag would never match.
var registryPattern = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`\A[a-zA-Z0-9.*-]+(?::[0-9*]+)?(?:/[a-z0-9._*-]+)*\z`)
})

func (r *policyReader) readDemands(rule *Rule, f *ruleFile, bad func(string, ...any)) {
	byRoot := slices.ContainsFunc(rule.Groups, func(g Group) bool { return g.Root != "" })
	demand := func(key, value, kind string) bool {
		if value != "" && value != "required" {
			bad("%s: %q is not required, and nothing else is known", key, value)
		}
		// A vendor's root may carry a trusted root of its own.
		if value != "" && r.file.TrustedRoot == "" && !byRoot {
			bad("%s cannot be proven without a trustedRoot", key)
		}
		if value != "" && r.policy.Root != nil && !byRoot && !r.policy.Root.Proves(kind) {
			bad("%s cannot be proven: the trustedRoot names no authority for it", key)
		}
		return value != ""
	}
	rule.Log = demand("transparencyLog", f.TransparencyLog, sigstore.TransparencyLog)
	rule.Timestamp = demand("signedTimestamp", f.SignedTimestamp, sigstore.SignedTimestamp)
	if rule.Oldest = f.OldestVersion; rule.Oldest != "" {
		if err := manifest.CheckVersion(rule.Oldest); err != nil {
			bad("oldestVersion: %w", err)
		}
	}
	if f.MaximumAge != "" {
		var err error
		if rule.MaximumAge, err = parseAge(f.MaximumAge); err != nil {
			bad("maximumAge: %w", err)
		}
	}
	for _, text := range f.Registries {
		p, err := sigstore.Glob(text, registrySeparators)
		if err != nil {
			bad("registries: %w", err)
			continue
		}
		if !registryPattern().MatchString(text) {
			bad("registries: %+q is not written as HOST[:PORT][/PATH], without a scheme or a tag", text)
		}
		rule.registries = append(rule.registries, p)
	}
	rule.channels = f.Channels
	if len(rule.channels) == 0 {
		rule.channels = []string{manifest.DefaultChannel}
	}
	for _, channel := range rule.channels {
		if err := manifest.CheckName(channel); err != nil {
			bad("channels: %w", err)
		}
	}
	if !slices.Contains(podSecurity, f.Limits.PodSecurity) {
		bad("limits: podSecurity %q is none of privileged, baseline, restricted", f.Limits.PodSecurity)
	}
	for _, text := range f.Limits.Namespaces {
		if _, err := sigstore.Glob(text, bundleSeparators); err != nil {
			bad("limits: namespaces: %w", err)
		} else if err := checkNames(text); err != nil {
			bad("limits: namespaces: %w", err)
		}
	}
	for _, kind := range append(slices.Clone(f.Limits.Kinds), f.Limits.NamespacedKinds...) {
		if strings.HasPrefix(kind, "/") || strings.HasSuffix(kind, "/") || strings.Count(kind, "/") > 1 || strings.ContainsAny(kind, "* ") || kind == "" {
			bad("limits: kind %q is not KIND or GROUP/KIND", kind)
		}
	}
	if len(f.Limits.NamespacedKinds) > 0 && (f.Limits.ClusterScoped == nil || *f.Limits.ClusterScoped) {
		bad("limits: namespacedKinds mean something only beside clusterScoped: false")
	}
	rule.Limits = Limits{f.Limits.Namespaces, f.Limits.Kinds, f.Limits.ClusterScoped, f.Limits.NamespacedKinds, f.Limits.PodSecurity}
}

// parseAge reads a number of days ("90d"), or a duration as Go writes it.
func parseAge(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if days, ok := strings.CutSuffix(text, "d"); ok {
		var n int
		if n, err = strconv.Atoi(days); err == nil && n <= 36500 {
			d = time.Duration(n) * 24 * time.Hour
		}
	}
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%q is not a positive number of days such as 90d", text)
	}
	return d, nil
}

func (r *policyReader) readRevoked() {
	line := r.doc.Line("revoked")
	for _, d := range r.file.Revoked.Digests {
		if err := manifest.CheckDigest(d); err != nil {
			r.problem(line, "revoked: %w", err)
		}
	}
	r.policy.Revoked.Digests = r.file.Revoked.Digests
	for _, v := range r.file.Revoked.Versions {
		if err := manifest.CheckName(v.Name); err != nil {
			r.problem(line, "revoked: %w", err)
		}
		for _, version := range v.Versions {
			if err := manifest.CheckVersion(version); err != nil {
				r.problem(line, "revoked: %w", err)
			}
		}
		// A misspelt channel would revoke nothing. It is written as a name is.
		if v.Channel != "" && manifest.CheckName(v.Channel) != nil {
			r.problem(line, "revoked: malformed channel %q of %q", v.Channel, v.Name)
		}
		if len(v.Versions) == 0 {
			r.problem(line, "revoked: no versions of %q", v.Name)
		}
		r.policy.Revoked.Versions = append(r.policy.Revoked.Versions, RevokedVersions{
			Name: v.Name, Channel: cmp.Or(v.Channel, manifest.DefaultChannel), Versions: v.Versions,
		})
	}
}

// Rules are the rules, in the policy's order.
func (p *Policy) Rules() []*Rule { return p.rules }

// Roots are the names of the roots that groups refer to.
func (p *Policy) Roots() []string {
	var names []string
	for _, r := range p.rules {
		for _, g := range r.Groups {
			if g.Root != "" && !slices.Contains(names, g.Root) {
				names = append(names, g.Root)
			}
		}
	}
	return names
}

// RuleError says that not exactly one rule of the policy is for a bundle.
type RuleError struct {
	Bundle string
	// Rules that match: none, or several.
	Rules []string
}

// Error names the rules.
func (e *RuleError) Error() string {
	if len(e.Rules) == 0 {
		return fmt.Sprintf("no rule of the site's policy is for bundle %q", e.Bundle)
	}
	return fmt.Sprintf("%d rules of the site's policy are for bundle %q, and exactly one must be: %s", len(e.Rules), e.Bundle, strings.Join(e.Rules, ", "))
}

// Rule returns the only rule for the bundles of a name. Errors are *RuleError.
func (p *Policy) Rule(name string) (*Rule, error) {
	var found []*Rule
	e := &RuleError{Bundle: name}
	for _, r := range p.rules {
		if slices.ContainsFunc(r.bundles, func(b sigstore.Pattern) bool { return b.Matches(name) }) {
			found = append(found, r)
			e.Rules = append(e.Rules, r.Name)
		}
	}
	if len(found) != 1 {
		return nil, e
	}
	return found[0], nil
}

// Bundles are the patterns of the names that r is for.
func (r *Rule) Bundles() []string { return texts(r.bundles) }

// Registries are the patterns of the places that images may come from; none for any.
func (r *Rule) Registries() []string { return texts(r.registries) }

func texts(patterns []sigstore.Pattern) []string {
	s := make([]string, 0, len(patterns))
	for _, p := range patterns {
		s = append(s, p.String())
	}
	return s
}
