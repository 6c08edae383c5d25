package install

import (
	"errors"
	"fmt"
	"slices"

	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/manifest"
)

// ParameterError says that what the site says, or does not say, is not what a bundle asks for.
type ParameterError struct {
	Name string
	// Known are the parameters of the bundle, where Name is none of them.
	Known []string
	Err   error
}

// Error names the parameter.
func (e *ParameterError) Error() string { return fmt.Sprintf("parameter %q: %v", e.Name, e.Err) }

// Unwrap returns the cause.
func (e *ParameterError) Unwrap() error { return e.Err }

// Reasons for a *ParameterError.
var (
	errUnsaid      = errors.New("it is required, and this site says nothing")
	errNoParameter = errors.New("the bundle has no such parameter")
)

// Site is what a site says about the releases of a bundle.
type Site struct {
	// Target is where the images are; the zero value where they have the vendor's names.
	Target Target
	// Parameters are values by the names of parameters.
	Parameters map[string]string
}

// parameters returns the text of every parameter of m that has a value: what the site says or else
// the vendor's default. Errors are *ParameterError.
func (s Site) parameters(m *manifest.Manifest) (map[string]string, error) {
	texts := map[string]string{}
	var known []string
	for i := range m.Parameters {
		known = append(known, m.Parameters[i].Name)
	}
	for name := range s.Parameters {
		if !slices.Contains(known, name) {
			return nil, &ParameterError{Name: name, Known: known, Err: errNoParameter}
		}
	}
	for i := range m.Parameters {
		p := &m.Parameters[i]
		text, said := s.Parameters[p.Name]
		switch {
		case said:
			if err := p.Check(text); err != nil {
				return nil, &ParameterError{Name: p.Name, Err: err}
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
}

// Say lists the parameters of m that have a value, for people. Errors are *ParameterError.
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
		_, said := s.Parameters[p.Name]
		v := Said{Name: p.Name, Value: text, Secret: p.Secret, Default: !said}
		if p.Secret {
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

// apply sets what the site says in the values of a release.
func (s Site) apply(values map[string]any, mc *manifest.Chart, m *manifest.Manifest, texts map[string]string) error {
	if s.Target.Registry != "" {
		if err := setRegistry(values, mc, s.Target.Registry, s.Target.Prefix); err != nil {
			return err
		}
	}
	for i := range m.Parameters {
		p := &m.Parameters[i]
		text, ok := texts[p.Name]
		if !ok {
			continue
		}
		v, err := p.Value(text)
		if err != nil {
			return &ParameterError{Name: p.Name, Err: err}
		}
		for _, to := range p.Values {
			if to.Release != mc.Key() {
				continue
			}
			if err := chart.SetValue(values, to.Path, v); err != nil {
				return &ParameterError{Name: p.Name, Err: err}
			}
		}
	}
	return nil
}
