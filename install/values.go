package install

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/manifest"
)

// Site is what a site says about the releases of a bundle.
type Site struct {
	// Target is where the images are; the zero value where they have the vendor's names.
	Target Target
	// Parameters are values by the names of parameters.
	Parameters map[string]string
	// Secrets are parameters whose values are in Secrets of the cluster, see [Site.ReadSecrets].
	Secrets map[string]SecretKey
	// Environment chooses the vendor's values for it; empty for none.
	Environment string
	// Values are the site's own values files by "NAMESPACE/RELEASE", later ones winning.
	Values map[string][]chart.ValuesFile
	// Set are single values by "NAMESPACE/RELEASE", which win over those of files; later ones win.
	Set map[string][]SetValue
	// Rendering is how objects are changed before they reach the cluster.
	Rendering Rendering
	// kept is what was said for an earlier version, see [Site.Over].
	kept kept
	// read are the values of Secrets.
	read map[string]string
}

// SetValue is a single value of a release.
type SetValue struct {
	// Path of the value, see manifest.CheckValuePath.
	Path string
	// Value is nil, a bool, an int64, a float64, a string, or a list or mapping of such.
	Value any
}

// text is what the site says about a parameter: now, or else for an earlier version.
func (s Site) text(name string) (text string, said, before bool) {
	if text, said = s.read[name]; said {
		_, now := s.Secrets[name]
		return text, true, !now
	}
	if text, said = s.Parameters[name]; said {
		return text, true, false
	}
	text, said = s.kept.parameters[name]
	return text, said, said
}

// parameters returns the text of every parameter of m that has a value: what the site says or else
// the vendor's default. Errors are *ParameterError and *UnreadError.
func (s Site) parameters(m *manifest.Manifest) (map[string]string, error) {
	texts := map[string]string{}
	var known []string
	for i := range m.Parameters {
		known = append(known, m.Parameters[i].Name)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Parameters)) {
		if !slices.Contains(known, name) {
			return nil, &ParameterError{Name: name, Known: known, Err: errNoParameter}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Secrets)) {
		if !slices.Contains(known, name) {
			return nil, &ParameterError{Name: name, Known: known, Err: errNoParameter}
		}
	}
	for i := range m.Parameters {
		p := m.Parameters[i]
		text, said, before := s.text(p.Name)
		key, is := s.secretKey(p.Name)
		if is && !said {
			return nil, &UnreadError{p.Name, key}
		}
		// Errors do not show what comes from a Secret.
		p.Secret = p.Secret || is
		switch {
		case said:
			if err := p.Check(text); err != nil {
				return nil, &ParameterError{Name: p.Name, Kept: before, Err: err}
			}
			texts[p.Name] = text
		case p.Default != nil:
			texts[p.Name] = *p.Default
		case p.Required:
			return nil, &ParameterError{Name: p.Name, Err: errUnsaid}
		}
	}
	return texts, nil
}

// Said is a parameter and the value that counts.
type Said struct {
	Name string `json:"name"`
	// Value is empty for secrets.
	Value  string `json:"value,omitempty"`
	Secret bool   `json:"secret,omitempty"`
	// Default says that it is the vendor's, since the site says nothing.
	Default bool `json:"default,omitempty"`
	// Kept says that it was said for an earlier version.
	Kept bool `json:"kept,omitempty"`
	// From is the Secret of the cluster that it comes from, "NAMESPACE/NAME:KEY"; empty for none.
	From string `json:"from,omitempty"`
}

// Say lists the parameters of m that have a value, for people. What comes from a Secret is shown no
// more than what is secret. Errors are *ParameterError and *UnreadError.
func (s Site) Say(m *manifest.Manifest) ([]Said, error) {
	texts, err := s.parameters(m)
	if err != nil {
		return nil, err
	}
	list := []Said{}
	for i := range m.Parameters {
		p := &m.Parameters[i]
		text, there := texts[p.Name]
		if !there {
			continue
		}
		_, said, before := s.text(p.Name)
		v := Said{Name: p.Name, Value: text, Secret: p.Secret, Default: !said, Kept: before}
		if key, is := s.secretKey(p.Name); is {
			v.From, v.Secret = key.String(), true
		}
		if v.Secret {
			v.Value = ""
		}
		list = append(list, v)
	}
	return list, nil
}

// setRegistry tells a chart in which registry the images are.
func setRegistry(values map[string]any, mc *manifest.Chart, host, prefix string) error {
	for _, rv := range mc.RegistryValues {
		if err := chart.SetValue(values, rv.Path, rv.Value(host, prefix)); err != nil {
			return err
		}
	}
	return nil
}

// ReleaseKey finds the release of m that a site calls "RELEASE" or "NAMESPACE/RELEASE", or, with the empty
// name, the only one that has values. Errors are *NoReleaseError.
func ReleaseKey(m *manifest.Manifest, name string) (string, error) {
	var known, found []string
	for i := range m.Charts {
		c := &m.Charts[i]
		if c.Plain {
			continue // has no values
		}
		known = append(known, c.Key())
		if name == "" || name == c.Release || name == c.Key() {
			found = append(found, c.Key())
		}
	}
	if len(found) != 1 {
		return "", &NoReleaseError{name, known}
	}
	return found[0], nil
}

// checkReleases reports whether m has all releases that the site has values for. Errors are *NoReleaseError.
func (s Site) checkReleases(m *manifest.Manifest) error {
	for _, key := range slices.Sorted(maps.Keys(s.releases())) {
		if found, err := ReleaseKey(m, key); err != nil {
			return err
		} else if found != key {
			return &NoReleaseError{Name: key, Known: []string{found}}
		}
	}
	return nil
}

// vendorValues are the values that the vendor has for a release, with those of the environment that the site
// has chosen.
func (s Site) vendorValues(mc *manifest.Chart, read func(manifest.ValuesFile) ([]byte, error)) (map[string]any, error) {
	list := mc.Values
	if e := mc.Environment(s.Chosen()); e != nil {
		list = append(slices.Clone(list), e.Values...)
	}
	var files []chart.ValuesFile
	for _, v := range list {
		raw, err := read(v)
		if err != nil {
			return nil, err
		}
		files = append(files, chart.ValuesFile{Name: v.Name, Data: raw})
	}
	return chart.MergeValues(files)
}

// checkEnvironment reports whether m has the environment that the site has chosen. Errors are *EnvironmentError.
func (s Site) checkEnvironment(m *manifest.Manifest) error {
	name := s.Chosen()
	if known := m.Environments(); name != "" && !slices.Contains(known, name) {
		return &EnvironmentError{Name: name, Known: known, Kept: s.Environment == ""}
	}
	return nil
}

// overlay is what the site itself says about the values of a release ("NAMESPACE/RELEASE"), now and before.
// Errors are *chart.ValuesError and *SiteValuesError.
func (s Site) overlay(release string) (map[string]any, error) {
	values, err := s.files(release)
	if err != nil {
		return nil, err
	}
	return values, s.set(values, release)
}

// files is overlay without single values.
func (s Site) files(release string) (map[string]any, error) {
	values, err := chart.MergeValues(s.Values[release])
	if err != nil {
		return nil, err
	}
	return chart.OverlayValues(s.kept.values[release], values), nil
}

// set sets the single values of a release. Errors are *SiteValuesError.
func (s Site) set(values map[string]any, release string) error {
	for _, v := range s.Set[release] {
		if err := chart.SetValue(values, v.Path, v.Value); err != nil {
			return &SiteValuesError{Release: release, Err: err}
		}
	}
	return nil
}

// unknown says which of the single values of a release its chart does not have: typing errors, most likely.
func (s Site) unknown(c *chart.Chart, release string, vendor map[string]any) ([]string, error) {
	var paths []string
	for _, v := range s.Set[release] {
		paths = append(paths, v.Path)
	}
	unknown, err := c.UnknownValues(paths, vendor)
	for i, path := range unknown {
		unknown[i] = fmt.Sprintf("--set-value sets %s of release %s, and the values of chart %s have no such key", path, release, c.Name)
	}
	return unknown, err
}

// apply returns the values of a release as the vendor has them with what the site says: the registry, its
// own values, and parameters. The later ones win. Warnings say what does not count.
func (s Site) apply(vendor map[string]any, mc *manifest.Chart, m *manifest.Manifest, texts map[string]string) (values map[string]any, warnings []string, err error) {
	values = vendor
	if s.Target.Registry != "" && !s.Rendering.NoRewrite {
		if err := setRegistry(values, mc, s.Target.Registry, s.Target.Prefix); err != nil {
			return nil, nil, err
		}
	}
	own, err := s.overlay(mc.Key())
	if err != nil {
		return nil, nil, err
	}
	files, err := s.files(mc.Key())
	if err != nil {
		return nil, nil, err
	}
	values = chart.OverlayValues(values, files)
	// On top of all of them, so that nothing of the vendor's is replaced that cannot be meant.
	if err := s.set(values, mc.Key()); err != nil {
		return nil, nil, err
	}
	for i := range m.Parameters {
		p := &m.Parameters[i]
		text, ok := texts[p.Name]
		if !ok {
			continue
		}
		v, err := p.Value(text)
		if err != nil {
			return nil, nil, &ParameterError{Name: p.Name, Err: err}
		}
		for _, to := range p.Values {
			if to.Release != mc.Key() {
				continue
			}
			if chart.HasValue(own, to.Path) {
				warnings = append(warnings, fmt.Sprintf("release %s: value %s is that of parameter %s, which counts more than the site's own values: say it with --set", mc.Key(), to.Path, p.Name))
			}
			if err := chart.SetValue(values, to.Path, v); err != nil {
				return nil, nil, &ParameterError{Name: p.Name, Err: err}
			}
		}
	}
	return values, warnings, nil
}

// checkValues has the chart check values of which some are the site's own. Errors are *PreflightError with a
// *SiteValuesError; what else is wrong is told when the chart is rendered.
func (s Site) checkValues(c *chart.Chart, release string, values map[string]any) error {
	if !s.releases()[release] {
		return nil
	}
	var schema *chart.SchemaError
	if _, err := c.CheckValues(chart.CopyValues(values)); !errors.As(err, &schema) {
		return nil
	}
	e := &SiteValuesError{Release: release, Err: schema}
	for _, place := range schema.Places {
		if where := s.where(release, place); where != "" {
			e.Places = append(e.Places, where)
		}
	}
	slices.Sort(e.Places)
	e.Places = slices.Compact(e.Places)
	return &PreflightError{e}
}

// where says where the site has said a value; "" where it has not.
func (s Site) where(release string, keys []string) string {
	path := manifest.JoinValuePath(keys)
	for _, v := range slices.Backward(s.Set[release]) {
		if v.Path == path || strings.HasPrefix(path, v.Path+".") || strings.HasPrefix(v.Path, path+".") {
			return "--set-value " + v.Path
		}
	}
	for _, f := range slices.Backward(s.Values[release]) {
		if n := chart.LineOf(f.Data, keys); n > 0 {
			return fmt.Sprintf("%s:%d (%s)", f.Name, n, path)
		}
	}
	if len(keys) > 0 && chart.HasValue(s.kept.values[release], path) {
		return path + ", as it was said for an earlier version"
	}
	return ""
}
