package trust

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/sealift/sealift/internal/sigstore"
	"github.com/sealift/sealift/manifest"
)

// Description is what a policy means, for people.
type Description struct {
	Digest string            `json:"digest"`
	Rules  []RuleDescription `json:"rules"`
	// Allows are the weaknesses that the policy allows.
	Allows []string `json:"allows,omitempty"`
}

// RuleDescription is what a rule means.
type RuleDescription struct {
	Name    string             `json:"name"`
	Bundles []string           `json:"bundles"`
	Groups  []GroupDescription `json:"groups"`
	Demands []string           `json:"demands,omitempty"`
}

// GroupDescription is who may sign for a group.
type GroupDescription struct {
	Name      string   `json:"name"`
	Threshold int      `json:"threshold,omitempty"`
	Root      string   `json:"root,omitempty"`
	Signers   []string `json:"signers,omitempty"`
}

// Describe says what p means.
func (p *Policy) Describe() Description {
	d := Description{Digest: p.Digest, Rules: []RuleDescription{}}
	for _, r := range p.rules {
		rule := RuleDescription{Name: r.Name, Bundles: r.Bundles(), Demands: r.demands()}
		for _, g := range r.Groups {
			group := GroupDescription{Name: g.Name, Threshold: g.Threshold, Root: g.Root}
			for _, name := range g.Signers {
				group.Signers = append(group.Signers, name+": "+p.signers[name].String())
			}
			rule.Groups = append(rule.Groups, group)
		}
		d.Rules = append(d.Rules, rule)
	}
	if n := len(p.Revoked.Digests) + len(p.Revoked.Versions); n > 0 {
		for i := range d.Rules {
			d.Rules[i].Demands = append(d.Rules[i].Demands, fmt.Sprintf("not among the %d digests and names that the policy revokes", n))
		}
	}
	if p.AllowKey {
		d.Allows = append(d.Allows, "--key and --policy instead of this policy")
	}
	if p.AllowUnsigned {
		d.Allows = append(d.Allows, "--insecure-skip-signature")
	}
	return d
}

// String is the signer for people.
func (s signer) String() string {
	if s.key != nil {
		return "key sha256:" + s.key.Fingerprint
	}
	if s.identity != nil {
		return "identity " + s.identity.String()
	}
	return "nobody"
}

// demands are what r wants beyond signatures.
func (r *Rule) demands() []string {
	var all []string
	add := func(ok bool, format string, a ...any) {
		if ok {
			all = append(all, fmt.Sprintf(format, a...))
		}
	}
	add(len(r.channels) != 1 || r.channels[0] != manifest.DefaultChannel, "channels %s", strings.Join(r.channels, ", "))
	add(r.Log, "each signature is in a transparency log")
	add(r.Timestamp, "each signature has a signed timestamp")
	add(r.Oldest != "", "version %s or newer", r.Oldest)
	add(r.MaximumAge > 0, "at most %s old when it is accepted for the first time", ageText(r.MaximumAge))
	add(len(r.registries) > 0, "images only from %s", strings.Join(r.Registries(), ", "))
	add(len(r.Limits.Namespaces) > 0, "only namespaces %s", strings.Join(r.Limits.Namespaces, ", "))
	add(len(r.Limits.Kinds) > 0, "only kinds %s", strings.Join(r.Limits.Kinds, ", "))
	add(r.Limits.ClusterScoped != nil && !*r.Limits.ClusterScoped, "no objects outside of namespaces")
	add(len(r.Limits.NamespacedKinds) > 0, "of the custom kinds, only %s count as within namespaces", strings.Join(r.Limits.NamespacedKinds, ", "))
	add(r.Limits.PodSecurity != "", "all pods meet the Pod Security Standard %s", r.Limits.PodSecurity)
	return all
}

// ageText is an age in days, or as Go writes it where it is not of whole days.
func ageText(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d == day:
		return "1 day"
	case d%day == 0:
		return fmt.Sprintf("%d days", d/day)
	}
	return d.String()
}

// SimplePolicy is the policy of a site with one vendor.
type SimplePolicy struct {
	// Bundles are the names of those that the vendor may sign.
	Bundles []string
	// Key that has to have signed, or Roots by which the release role of each has to have.
	Key   *sigstore.PublicKey
	Roots []string
}

// Encode writes the policy.
func (s SimplePolicy) Encode() ([]byte, error) {
	type group struct {
		Name      string   `yaml:"name"`
		Root      string   `yaml:"root,omitempty"`
		Threshold int      `yaml:"threshold,omitempty"`
		Signers   []string `yaml:"signers,omitempty"`
	}
	type rule struct {
		Name    string   `yaml:"name"`
		Bundles []string `yaml:"bundles"`
		Groups  []group  `yaml:"groups"`
	}
	type key struct {
		Key string `yaml:"key"`
	}
	doc := struct {
		MediaType string         `yaml:"mediaType"`
		Signers   map[string]key `yaml:"signers,omitempty"`
		Rules     []rule         `yaml:"rules"`
	}{MediaType: PolicyMediaType}
	var groups []group
	if s.Key != nil {
		doc.Signers = map[string]key{"vendor": {string(s.Key.PEM)}}
		groups = append(groups, group{Name: "vendor", Threshold: 1, Signers: []string{"vendor"}})
	}
	for _, r := range s.Roots {
		groups = append(groups, group{Name: r, Root: r})
	}
	doc.Rules = []rule{{"vendor", s.Bundles, groups}}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(doc); err != nil {
		return nil, fmt.Errorf("writing a policy: %w", err)
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("writing a policy: %w", err)
	}
	return b.Bytes(), nil
}
