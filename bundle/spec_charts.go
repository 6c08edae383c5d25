package bundle

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/manifest"
)

// charts checks where charts come from and how they are installed.
func (c *completion) charts() {
	for i := range c.Charts {
		ch := &c.Charts[i]
		c.chartSource(ch, i)
		if ch.Release != "" {
			c.at(manifest.CheckRelease(ch.Release), "charts", i, "release")
		}
		if ch.Namespace != "" {
			c.at(manifest.CheckNamespace(ch.Namespace), "charts", i, "namespace")
		}
		if ch.Verify != nil && ch.Verify.Keyring == "" {
			c.at(fmt.Errorf("charts[%d].verify has no keyring", i), "charts", i, "verify")
		}
		c.apiVersions(ch.APIVersions, "charts", i, "apiVersions")
		if len(ch.RegistryValues) > manifest.MaxRegistryValues {
			c.at(fmt.Errorf("%d registryValues, at most %d are allowed", len(ch.RegistryValues), manifest.MaxRegistryValues), "charts", i, "registryValues")
		}
		c.environments(ch.Environments, i)
		paths := map[string]int{}
		for j := range ch.RegistryValues {
			c.registryValue(&ch.RegistryValues[j], paths, i, j)
		}
		c.at(checkRollout(ch.Rollout), "charts", i, "rollout")
		c.install(ch.DependsOn, ch.Rollback, ch.Checks, "charts", i)
	}
	if len(c.Charts)+len(c.Manifests) > manifest.MaxCharts {
		c.at(fmt.Errorf("%d charts and manifests, at most %d are allowed", len(c.Charts)+len(c.Manifests), manifest.MaxCharts), "charts")
	}
}

// chartSource checks that there is exactly one.
func (c *completion) chartSource(ch *ChartSpec, i int) {
	var sources []string
	for _, s := range []struct{ key, value string }{{"path", ch.Path}, {"oci", ch.OCI}, {"repo", ch.Repo}} {
		if s.value != "" {
			sources = append(sources, s.key)
		}
	}
	switch {
	case len(sources) > 1:
		c.at(fmt.Errorf("charts[%d] has more than one source (%s); one of path, oci, and repo with chart is wanted", i, strings.Join(sources, ", ")), "charts", i)
	case ch.Chart != "" && ch.Repo == "":
		c.at(fmt.Errorf("charts[%d]: chart %q is the name of a chart in a repo, and no repo is named", i, ch.Chart), "charts", i, "chart")
	case len(sources) == 0:
		c.at(fmt.Errorf("charts[%d] has no source; one of path, oci, and repo with chart is wanted", i), "charts", i)
	case ch.Repo != "" && ch.Chart == "":
		c.at(fmt.Errorf("charts[%d] has a repo and no chart: the name of the chart there", i), "charts", i, "repo")
	}
	if ch.Version != "" {
		c.at(chart.CheckRange(ch.Version), "charts", i, "version")
	}
	if ch.OCI != "" {
		c.at(checkChartAddress(ch.OCI, ch.Version), "charts", i, "oci")
	}
	if ch.Repo != "" {
		c.at(checkRepo(ch.Repo), "charts", i, "repo")
	}
}

// ociScheme begins the addresses of charts in registries.
const ociScheme = "oci://"

func checkChartAddress(address, version string) error {
	text, ok := strings.CutPrefix(address, ociScheme)
	if !ok {
		return fmt.Errorf("oci %q does not begin with %s", address, ociScheme)
	}
	ref, err := oci.ParseReference(text)
	var r *oci.ReferenceError
	if errors.As(err, &r) && r.Proposal != "" {
		return fmt.Errorf("oci %q names no registry; write %q if that is what you mean", address, ociScheme+strings.TrimSuffix(r.Proposal, ":latest"))
	}
	if err != nil {
		return fmt.Errorf("oci %q: %w", address, err)
	}
	// A chart has no tag "latest" that was not written.
	if tagged := ref.Tag != "" && strings.Contains(text[strings.LastIndexByte(text, '/'):], ":"+ref.Tag); tagged && version != "" {
		return fmt.Errorf("oci %q names the tag %q, and version says %q: leave one of them out", address, ref.Tag, version)
	}
	return nil
}

func checkRepo(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil:
		// The library's words would repeat the address, and what secrets are in it.
		return errors.New("repo is not an address such as https://charts.example.com/stable")
	case u.User != nil:
		return fmt.Errorf("repo %q names a user: credentials do not belong into a spec", u.Redacted())
	case u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		return fmt.Errorf("repo %q is not an address such as https://charts.example.com/stable", address)
	case u.Fragment != "":
		return fmt.Errorf("repo %q has a fragment (#)", address)
	}
	return nil
}

func (c *completion) registryValue(v *RegistryValueSpec, paths map[string]int, i, j int) {
	where := []any{"charts", i, "registryValues", j}
	if v.Gets == "" {
		v.Gets = manifest.RegistryWhole
	}
	c.at(oneOf("gets", v.Gets, manifest.RegistryWhole, manifest.RegistryHost, manifest.RegistryPrefix), append(where, "gets")...)
	if err := manifest.CheckValuePath(v.Path); err != nil {
		c.at(prefixed("registryValues", err), append(where, "path")...)
		return
	}
	c.twice(paths, v.Path, fmt.Sprintf("registryValues path %q", v.Path), append(where, "path")...)
}

func oneOf(key, value string, allowed ...string) error {
	if !slices.Contains(allowed, value) {
		return fmt.Errorf("%s %q is none of %s", key, value, strings.Join(allowed, ", "))
	}
	return nil
}

// install checks what charts and plain objects have in common.
func (c *completion) install(dependsOn []string, rollback string, checks []CheckSpec, list string, i int) {
	seen := map[string]int{}
	for j, d := range dependsOn {
		if err := checkReleaseName(d); err != nil {
			c.at(fmt.Errorf("dependsOn: %w", err), list, i, "dependsOn", j)
			continue
		}
		c.twice(seen, d, fmt.Sprintf("dependsOn %q", d), list, i, "dependsOn", j)
	}
	if rollback != "" {
		c.at(oneOf("rollback", rollback, manifest.RollbackSafe, manifest.RollbackManual, manifest.RollbackForbidden), list, i, "rollback")
	}
	if len(checks) > manifest.MaxChecks {
		c.at(fmt.Errorf("%d checks, at most %d are allowed", len(checks), manifest.MaxChecks), list, i, "checks")
	}
	names := map[string]int{}
	for j := range checks {
		c.at(checks[j].validate(), list, i, "checks", j)
		if checks[j].Name != "" {
			c.twice(names, checks[j].Name, fmt.Sprintf("check %q", checks[j].Name), list, i, "checks", j, "name")
		}
	}
}

// checkReleaseName reports whether s is "RELEASE" or "NAMESPACE/RELEASE".
func checkReleaseName(s string) error {
	namespace, release, both := strings.Cut(s, "/")
	if !both {
		return manifest.CheckRelease(s)
	}
	return errors.Join(manifest.CheckNamespace(namespace), manifest.CheckRelease(release))
}

// releases finds releases that are there twice, as far as the spec alone says it: others are called
// after their charts.
func (c *completion) releases() {
	seen := map[string]int{}
	for i := range c.Manifests {
		if m := &c.Manifests[i]; m.Name != "" {
			c.twice(seen, m.Namespace+"/"+m.Name, fmt.Sprintf("release %q", m.Namespace+"/"+m.Name), "manifests", i)
		}
	}
	for i := range c.Charts {
		ch := &c.Charts[i]
		if ch.Release == "" {
			continue
		}
		name := ch.Namespace + "/" + ch.Release
		if ch.Namespace == "" {
			name = ch.Release + name
		}
		c.twice(seen, name, fmt.Sprintf("release %q", name), "charts", i)
	}
}

func checkRollout(r *RolloutSpec) error {
	if r == nil {
		return nil
	}
	if err := oneOf("rollout: strategy", r.Strategy, manifest.RolloutBlueGreen, manifest.RolloutCanary); err != nil {
		return err
	}
	if err := oneOf("rollout: front: kind", r.Front.Kind, manifest.FrontService, manifest.FrontHTTPRoute); err != nil {
		return err
	}
	if r.Front.Kind == manifest.FrontService && manifest.CheckName(r.Front.Name) != nil {
		return fmt.Errorf("rollout: front: service %q is not made of lower-case letters, digits and dashes (at most 63)", r.Front.Name)
	}
	if err := checkObjectName(r.Front.Name); err != nil {
		return fmt.Errorf("rollout: front: %w", err)
	}
	if r.Front.Service != "" {
		if err := manifest.CheckFrontService(r.Front.Service); err != nil {
			return fmt.Errorf("rollout: %w", err)
		}
	}
	if r.Front.Object != "" && r.Front.Kind != manifest.FrontHTTPRoute {
		return fmt.Errorf("rollout: front: object is for a front of kind %s", manifest.FrontHTTPRoute)
	}
	if canary := r.Strategy == manifest.RolloutCanary; canary != (len(r.Steps) > 0) {
		return fmt.Errorf("rollout: %s has %d steps; %s has at least one, and %s none", r.Strategy, len(r.Steps), manifest.RolloutCanary, manifest.RolloutBlueGreen)
	}
	last := 0
	for _, step := range r.Steps {
		if step <= last || step >= 100 {
			return fmt.Errorf("rollout: steps %v do not rise from at least 1 to at most 99", r.Steps)
		}
		last = step
	}
	if r.Front.Kind == manifest.FrontService && last > manifest.MaxShareByPods {
		return fmt.Errorf("rollout: step %d: behind a Service the share is made of pods, of at most %d percent", last, manifest.MaxShareByPods)
	}
	return nil
}

// checkObjectName reports whether s names an object: a DNS subdomain (RFC 1123).
func checkObjectName(s string) error {
	if len(s) > 253 || !isSubdomain(s) {
		return fmt.Errorf("name %q is not made of lower-case letters, digits, dashes and dots (at most 253)", s)
	}
	return nil
}

func isSubdomain(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if manifest.CheckName(label) != nil {
			return false
		}
	}
	return true
}

func (c *CheckSpec) validate() error {
	if c.Name == "" {
		return errors.New("a check has no name")
	}
	if err := manifest.CheckName(c.Name); err != nil {
		return fmt.Errorf("check: %w", err)
	}
	kinds := 0
	for _, there := range []bool{c.HTTP != nil, c.TCP != nil, c.Job != ""} {
		if there {
			kinds++
		}
	}
	if kinds != 1 {
		return fmt.Errorf("check %q has %d of http, tcp and job; exactly one is wanted", c.Name, kinds)
	}
	if _, err := c.seconds(); err != nil {
		return fmt.Errorf("check %q: %w", c.Name, err)
	}
	if c.TCP != nil {
		if err := checkTarget(c.TCP.Service, c.TCP.Port); err != nil {
			return fmt.Errorf("check %q: tcp: %w", c.Name, err)
		}
	}
	if c.HTTP != nil {
		if err := c.HTTP.validate(); err != nil {
			return fmt.Errorf("check %q: http: %w", c.Name, err)
		}
	}
	return nil
}

// requestPattern is of what can stand in the first line of a request.
var requestPattern = lazily(`\A/[!-"$-~]*\z`)

func (h *CheckHTTPSpec) validate() error {
	if err := checkTarget(h.Service, h.Port); err != nil {
		return err
	}
	if h.Path == "" {
		h.Path = "/"
	}
	if !requestPattern().MatchString(h.Path) || len(h.Path) > manifest.MaxTextBytes {
		return fmt.Errorf("path %q is not a path such as /healthz, with or without a query", h.Path)
	}
	if h.Status != 0 && (h.Status < 100 || h.Status > 599) {
		return fmt.Errorf("status %d is not from 100 to 599", h.Status)
	}
	return nil
}

func checkTarget(service string, port int) error {
	if manifest.CheckName(service) != nil {
		return fmt.Errorf("service %q is not made of lower-case letters, digits and dashes (at most 63)", service)
	}
	if port < 1 || port > 65535 {
		return fmt.Errorf("port %d is not from 1 to 65535", port)
	}
	return nil
}

// seconds is the time-out, 0 for none.
func (c *CheckSpec) seconds() (int, error) {
	if c.Timeout == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(c.Timeout)
	if err != nil || d%time.Second != 0 || d < time.Second || d > manifest.MaxCheckSeconds*time.Second {
		return 0, fmt.Errorf("timeout %q is not a duration in whole seconds such as 90s or 2m30s (at most 24h)", c.Timeout)
	}
	return int(d / time.Second), nil
}
