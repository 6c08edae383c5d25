package manifest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

var (
	// fingerprintPattern is that of an OpenPGP key of version 4 (160 bits) or later (256 bits).
	fingerprintPattern = lazily(`\A(?:[0-9A-F]{40}|[0-9A-F]{64})\z`)
	// checkPathPattern is of what can stand in the first line of a request.
	checkPathPattern = lazily(`\A/[!-~]*\z`)
)

func (m *Manifest) validateCharts(blobs map[string]*Blob) error {
	releases := map[string]bool{}
	archives := map[string]string{}
	for i := range m.Charts {
		c := &m.Charts[i]
		if err := c.validate(blobs); err != nil {
			return fmt.Errorf("chart %q: %w", c.Name, err)
		}
		key := c.Key()
		if releases[key] {
			return fmt.Errorf("release %q twice", key)
		}
		// Only what stands before counts, so that the order is one in which everything can be installed.
		for j, on := range c.DependsOn {
			if !releases[on] {
				return fmt.Errorf("release %q depends on %q, which does not stand before it", key, on)
			}
			if slices.Contains(c.DependsOn[:j], on) {
				return fmt.Errorf("release %q depends on %q twice", key, on)
			}
		}
		releases[key] = true
		name := c.Name + ":" + c.Version
		if other, twice := archives[name]; twice && other != c.Manifest.Digest {
			return fmt.Errorf("two different charts are both called %q", name)
		}
		archives[name] = c.Manifest.Digest
	}
	return nil
}

// Key is how other parts of the manifest name the release: "NAMESPACE/RELEASE".
func (c *Chart) Key() string { return c.Namespace + "/" + c.Release }

func (c *Chart) validate(blobs map[string]*Blob) error {
	if !chartPattern().MatchString(c.Name) || !chartVersionPattern().MatchString(c.Version) {
		return fmt.Errorf("malformed name or version %q", c.Version)
	}
	if !plain(c.AppVersion) {
		return fmt.Errorf("appVersion %q holds characters that cannot be shown, or is too long", c.AppVersion)
	}
	if err := errors.Join(CheckRelease(c.Release), CheckNamespace(c.Namespace)); err != nil {
		return err
	}
	if err := carried(blobs, c.Manifest, MaxOCIManifestBytes); err != nil {
		return err
	}
	if err := carried(blobs, c.Archive, MaxArchiveBytes); err != nil {
		return err
	}
	if err := c.validateOrigin(blobs); err != nil {
		return err
	}
	if err := validateValues(c.Values, blobs); err != nil {
		return err
	}
	if err := c.validateEnvironments(blobs); err != nil {
		return err
	}
	if err := c.validateRegistryValues(); err != nil {
		return err
	}
	switch c.Rollback {
	case "", RollbackSafe, RollbackManual, RollbackForbidden:
	default:
		return fmt.Errorf("rollback %q is none of %q, %q and %q", c.Rollback, RollbackSafe, RollbackManual, RollbackForbidden)
	}
	if err := c.Rollout.validate(blobs); err != nil {
		return fmt.Errorf("rollout: %w", err)
	}
	return c.validateChecks(blobs)
}

// validateOrigin checks where the chart came from, and what was proven about it.
func (c *Chart) validateOrigin(blobs map[string]*Blob) error {
	if err := checkChartSource(c.Source); err != nil {
		return err
	}
	if c.Plain && (c.Source != "" || c.Provenance != nil || len(c.Referrers) > 0) {
		return errors.New("a source, a provenance file or referrers of what was made when the bundle was packed")
	}
	if c.Provenance != nil {
		if err := carriedAs(MediaTypeProvenance, blobs, *c.Provenance, MaxProvenanceBytes); err != nil {
			return fmt.Errorf("provenance file: %w", err)
		}
	}
	if c.SignedBy != "" && (c.Provenance == nil || !fingerprintPattern().MatchString(c.SignedBy)) {
		return fmt.Errorf("signed by %q: not the fingerprint of the key of a provenance file", c.SignedBy)
	}
	return validateReferrers(c.Referrers, map[string]bool{c.Manifest.Digest: true}, blobs)
}

// checkChartSource reports whether s says where a chart came from, without a user or a password.
func checkChartSource(s string) error {
	if s == "" {
		return nil
	}
	scheme, rest, _ := strings.Cut(s, "://")
	host, _, _ := strings.Cut(rest, "/")
	if !plain(s) || host == "" || strings.Contains(host, "@") || !slices.Contains([]string{"oci", "https", "http"}, scheme) {
		return fmt.Errorf("source %q is not the address of a registry or of a chart repository", s)
	}
	return nil
}

func (c *Chart) validateRegistryValues() error {
	if len(c.RegistryValues) > MaxRegistryValues {
		return fmt.Errorf("%d registry values, at most %d are allowed", len(c.RegistryValues), MaxRegistryValues)
	}
	for _, v := range c.RegistryValues {
		if err := CheckValuePath(v.Path); err != nil {
			return fmt.Errorf("registry value: %w", err)
		}
		switch v.Gets {
		case RegistryWhole, RegistryHost, RegistryPrefix:
		default:
			return fmt.Errorf("registry value %q gets %q, which is none of %q, %q and %q", v.Path, v.Gets, RegistryWhole, RegistryHost, RegistryPrefix)
		}
	}
	return nil
}

func (r *Rollout) validate(blobs map[string]*Blob) error {
	if r == nil {
		return nil
	}
	if r.Strategy != RolloutBlueGreen && r.Strategy != RolloutCanary {
		return fmt.Errorf("strategy %q is neither %q nor %q", r.Strategy, RolloutBlueGreen, RolloutCanary)
	}
	switch r.Front.Kind {
	case FrontService:
		if err := checkService(r.Front.Name); err != nil {
			return err
		}
	case FrontHTTPRoute:
		if err := checkSubdomain(r.Front.Name); err != nil {
			return fmt.Errorf("HTTPRoute: %w", err)
		}
	default:
		return fmt.Errorf("front of kind %q, want %q or %q", r.Front.Kind, FrontService, FrontHTTPRoute)
	}
	if err := r.Front.validateService(blobs); err != nil {
		return err
	}
	if len(r.Steps) > 0 && r.Strategy != RolloutCanary {
		return fmt.Errorf("steps of a %q: only a %q has them", r.Strategy, RolloutCanary)
	}
	last := 0
	for _, s := range r.Steps {
		if s <= last || s > 99 {
			return fmt.Errorf("step of %d percent after %d: steps rise, from 1 to 99", s, last)
		}
		last = s
	}
	if r.Front.Kind == FrontService && last > MaxShareByPods {
		return fmt.Errorf("step of %d percent of the pods behind a Service: at most %d are possible", last, MaxShareByPods)
	}
	return nil
}

// validateService checks to what a front leads, and from what it is made.
func (f *Front) validateService(blobs map[string]*Blob) error {
	if f.Service != "" {
		if err := CheckFrontService(f.Service); err != nil {
			return err
		}
	}
	if f.Object == nil {
		return nil
	}
	if f.Kind != FrontHTTPRoute {
		return fmt.Errorf("object of a front that is a %s: only a %s has one", f.Kind, FrontHTTPRoute)
	}
	if err := carriedAs(MediaTypeObjects, blobs, *f.Object, MaxFrontBytes); err != nil {
		return fmt.Errorf("object of the front: %w", err)
	}
	return nil
}

// CheckFrontService reports whether s names the Service of a release that has more than one name: with one * for it.
func CheckFrontService(s string) error {
	if strings.Count(s, "*") != 1 || !dnsPattern().MatchString(strings.Replace(s, "*", "x", 1)) {
		return fmt.Errorf("service %q of a front is not a name with one * for that of the release", s)
	}
	return nil
}

// checkService reports whether s can name a Service.
func checkService(s string) error {
	if !dnsPattern().MatchString(s) {
		return fmt.Errorf("service %q is not made of lower-case letters, digits and dashes (at most 63)", s)
	}
	return nil
}

// checkSubdomain reports whether s can name most objects of Kubernetes (RFC 1123 subdomain).
func checkSubdomain(s string) error {
	if len(s) > 253 || !subdomainPattern().MatchString(s) {
		return fmt.Errorf("name %q is not made of lower-case letters, digits, dashes and dots (at most 253)", s)
	}
	return nil
}

func (c *Chart) validateChecks(blobs map[string]*Blob) error {
	if len(c.Checks) > MaxChecks {
		return fmt.Errorf("%d checks, at most %d are allowed", len(c.Checks), MaxChecks)
	}
	seen := map[string]bool{}
	for i := range c.Checks {
		k := &c.Checks[i]
		if err := k.validate(blobs); err != nil {
			return fmt.Errorf("check %q: %w", k.Name, err)
		}
		if seen[k.Name] {
			return fmt.Errorf("check %q twice", k.Name)
		}
		seen[k.Name] = true
	}
	return nil
}

func (k *Check) validate(blobs map[string]*Blob) error {
	if err := CheckName(k.Name); err != nil {
		return err
	}
	if k.Seconds < 0 || k.Seconds > MaxCheckSeconds {
		return fmt.Errorf("%d seconds are not from 0 to %d", k.Seconds, MaxCheckSeconds)
	}
	kinds := 0
	if k.HTTP != nil {
		kinds++
		if err := k.HTTP.validate(); err != nil {
			return err
		}
	}
	if k.TCP != nil {
		kinds++
		if err := errors.Join(checkService(k.TCP.Service), checkPort(k.TCP.Port)); err != nil {
			return err
		}
	}
	if k.Job != nil {
		kinds++
		if err := carriedAs(MediaTypeObjects, blobs, *k.Job, MaxJobBytes); err != nil {
			return fmt.Errorf("job: %w", err)
		}
	}
	if kinds != 1 {
		return errors.New("is not exactly one of http, tcp and job")
	}
	return nil
}

func (h *CheckHTTP) validate() error {
	if err := errors.Join(checkService(h.Service), checkPort(h.Port)); err != nil {
		return err
	}
	if len(h.Path) > MaxTextBytes || !checkPathPattern().MatchString(h.Path) {
		return fmt.Errorf("path %q does not begin with a slash, or holds what must be escaped, or is too long", h.Path)
	}
	if h.Status != 0 && (h.Status < 100 || h.Status > 599) {
		return fmt.Errorf("status %d is not from 100 to 599", h.Status)
	}
	return nil
}

func checkPort(port int) error {
	if port < 1 || port > 65535 {
		return fmt.Errorf("port %d is not from 1 to 65535", port)
	}
	return nil
}
