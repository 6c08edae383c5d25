package bundle

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/manifest"
)

var (
	kubernetesPattern   = lazily(`\Av?1\.(0|[1-9][0-9]{0,2})(?:\.(0|[1-9][0-9]{0,2}))?\z`)
	groupVersionPattern = lazily(`\Av[0-9]+(?:(?:alpha|beta)[0-9]+)?\z`)
	kindPattern         = lazily(`\A[A-Z][A-Za-z0-9]{0,62}\z`)
	architecturePattern = lazily(`\A[a-z0-9_]{1,32}\z`)
)

// kubernetes checks for which clusters charts are rendered, and spells the versions out.
func (c *completion) kubernetes() {
	seen := map[string]int{}
	for i, v := range c.Kubernetes.Versions {
		m := kubernetesPattern().FindStringSubmatch(v)
		if m == nil {
			c.at(fmt.Errorf("kubernetes: version %q is not written as 1.34 or v1.34.2", v), "kubernetes", "versions", i)
			continue
		}
		patch := m[2]
		if patch == "" {
			patch = "0"
		}
		c.Kubernetes.Versions[i] = "v1." + m[1] + "." + patch
		c.twice(seen, c.Kubernetes.Versions[i], fmt.Sprintf("kubernetes version %q", v), "kubernetes", "versions", i)
	}
	c.apiVersions(c.Kubernetes.APIVersions, "kubernetes", "apiVersions")
}

// apiVersions checks a list of "VERSION", "GROUP/VERSION" and either with "/KIND".
func (c *completion) apiVersions(list []string, where ...any) {
	seen := map[string]int{}
	for i, v := range list {
		path := append(slices.Clone(where), i)
		parts := strings.Split(v, "/")
		ok := false
		switch len(parts) {
		case 1:
			ok = groupVersionPattern().MatchString(v)
		case 2:
			ok = isSubdomain(parts[0]) && groupVersionPattern().MatchString(parts[1]) ||
				groupVersionPattern().MatchString(parts[0]) && kindPattern().MatchString(parts[1])
		case 3:
			ok = isSubdomain(parts[0]) && groupVersionPattern().MatchString(parts[1]) && kindPattern().MatchString(parts[2])
		}
		if !ok {
			c.at(fmt.Errorf("apiVersions: %q is not written as monitoring.coreos.com/v1 or monitoring.coreos.com/v1/ServiceMonitor", v), path...)
			continue
		}
		c.twice(seen, v, fmt.Sprintf("apiVersions %q", v), path...)
	}
}

// requires checks what the site must have.
func (c *completion) requires() {
	r := c.Requires
	if r == nil {
		return
	}
	if r.Kubernetes != "" {
		c.at(prefixed("requires: kubernetes", chart.CheckRange(r.Kubernetes)), "requires", "kubernetes")
	}
	if r.UpgradeFrom != "" {
		c.at(prefixed("requires: upgradeFrom", chart.CheckRange(r.UpgradeFrom)), "requires", "upgradeFrom")
	}
	for _, q := range []struct{ key, value string }{{"cpu", r.Nodes.CPU}, {"memory", r.Nodes.Memory}} {
		if q.value != "" {
			c.at(prefixed("requires: nodes: "+q.key, manifest.CheckQuantity(q.value)), "requires", "nodes", q.key)
		}
	}
	seen := map[string]int{}
	for i, a := range r.Nodes.Architectures {
		path := []any{"requires", "nodes", "architectures", i}
		if !architecturePattern().MatchString(a) {
			c.at(fmt.Errorf("requires: nodes: architecture %q is not written as amd64 or arm64", a), path...)
			continue
		}
		c.twice(seen, a, fmt.Sprintf("architecture %q", a), path...)
	}
	seen = map[string]int{}
	for i, s := range r.StorageClasses {
		path := []any{"requires", "storageClasses", i}
		if err := checkObjectName(s); s != "*" && err != nil {
			c.at(fmt.Errorf("requires: storageClasses: %w; %q stands for a default one", err, "*"), path...)
			continue
		}
		c.twice(seen, s, fmt.Sprintf("storage class %q", s), path...)
	}
	seen = map[string]int{}
	for i, g := range r.APIGroups {
		path := []any{"requires", "apiGroups", i}
		if err := manifest.CheckAPIGroup(g); err != nil {
			c.at(fmt.Errorf("requires: apiGroups: %w", err), path...)
			continue
		}
		c.twice(seen, g, fmt.Sprintf("API group %q", g), path...)
	}
	for key, n := range map[string]int{"architectures": len(r.Nodes.Architectures), "storageClasses": len(r.StorageClasses), "apiGroups": len(r.APIGroups)} {
		if n > manifest.MaxRequired {
			c.at(fmt.Errorf("requires: %d %s, at most %d are allowed", n, key, manifest.MaxRequired), "requires")
		}
	}
}

func prefixed(what string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// parameters checks what the site may say.
func (c *completion) parameters() {
	names, values := map[string]int{}, map[string]int{}
	for i := range c.Parameters {
		p := &c.Parameters[i]
		if err := manifest.CheckParameterName(p.Name); err != nil {
			c.at(err, "parameters", i, "name")
		} else {
			c.twice(names, p.Name, fmt.Sprintf("parameter %q", p.Name), "parameters", i, "name")
		}
		if p.Type == "" {
			p.Type = manifest.ParameterString
		}
		add := func(key string, err error) {
			c.at(prefixed(fmt.Sprintf("parameter %q", p.Name), err), "parameters", i, key)
		}
		p.check(add)
		if len(p.Values) == 0 {
			add("values", errors.New("no values: it would go nowhere"))
		}
		for j, v := range p.Values {
			where := []any{"parameters", i, "values", j}
			if v.Release == "" && len(c.Charts) != 1 {
				c.at(fmt.Errorf("parameter %q: values[%d] names no release, and there are %d charts", p.Name, j, len(c.Charts)), where...)
			} else if v.Release != "" {
				c.at(prefixed(fmt.Sprintf("parameter %q", p.Name), checkReleaseName(v.Release)), append(where, "release")...)
			}
			if err := manifest.CheckValuePath(v.Path); err != nil {
				c.at(prefixed(fmt.Sprintf("parameter %q", p.Name), err), append(where, "path")...)
				continue
			}
			what := fmt.Sprintf("value %q", v.Path)
			if v.Release != "" {
				what += fmt.Sprintf(" of release %q", v.Release)
			}
			c.twice(values, v.Release+" "+v.Path, what, append(where, "path")...)
		}
	}
	if len(c.Parameters) > manifest.MaxParameters {
		c.at(fmt.Errorf("%d parameters, at most %d are allowed", len(c.Parameters), manifest.MaxParameters), "parameters")
	}
}

// check compares what a parameter says about its value with itself. add takes the key that is wrong.
func (p *ParameterSpec) check(add func(key string, err error)) {
	types := []string{manifest.ParameterString, manifest.ParameterInteger, manifest.ParameterNumber, manifest.ParameterBoolean}
	if !slices.Contains(types, p.Type) {
		add("type", oneOf("type", p.Type, types...))
		return
	}
	if strings.ContainsFunc(p.Description, func(r rune) bool { return r < 0x20 && r != '\n' || r == 0x7f }) || len(p.Description) > 1024 {
		add("description", errors.New("the description holds control characters, or has more than 1024 bytes"))
	}
	if p.Default != nil && p.Required {
		add("required", errors.New("it has a default, so that the site need not say anything; leave one of them out"))
	}
	if p.Default != nil && p.Secret {
		add("default", errors.New("a secret has no default: everybody who has the bundle could read it"))
	}
	if len(p.Enum) > manifest.MaxEnum || len(p.Values) > manifest.MaxParameterValues {
		add("enum", fmt.Errorf("%d allowed values, received by %d values of charts: at most %d, %d", len(p.Enum), len(p.Values), manifest.MaxEnum, manifest.MaxParameterValues))
	}
	if err := p.checkPattern(); err != nil {
		add("pattern", err)
		return
	}
	anything := manifest.Parameter{Name: p.Name, Type: p.Type, Secret: p.Secret, Pattern: p.Pattern}
	for i, v := range p.Enum {
		if slices.Contains(p.Enum[:i], v) {
			add("enum", fmt.Errorf("enum has %q twice", v))
		}
		add("enum", prefixed("enum", anything.Check(v)))
	}
	if p.Default != nil {
		listed := anything
		listed.Enum = p.Enum
		add("default", prefixed("default", listed.Check(*p.Default)))
	}
}

// checkPattern reports whether the pattern is one that a manifest can have.
func (p *ParameterSpec) checkPattern() error {
	if p.Pattern == "" {
		return nil
	}
	if p.Type != manifest.ParameterString {
		return fmt.Errorf("a pattern is for the type %s, not for %s", manifest.ParameterString, p.Type)
	}
	if _, err := regexp.Compile(p.Pattern); err != nil {
		return fmt.Errorf("pattern: %w", err)
	}
	// With an empty alternative it matches the empty text, unless it cannot be used at all.
	with := manifest.Parameter{Type: manifest.ParameterString, Pattern: p.Pattern + "|"}
	if with.Check("") != nil {
		return fmt.Errorf("pattern %q repeats too much, holds what cannot be shown, or has more than %d bytes", p.Pattern, manifest.MaxPatternBytes-1)
	}
	return nil
}
