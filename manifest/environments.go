package manifest

import (
	"errors"
	"fmt"
	"slices"
)

const (
	// MaxEnvironments bounds the environments of one chart.
	MaxEnvironments = 32
	// MaxEnvironmentName bounds the name of one, in bytes.
	MaxEnvironmentName = 32
)

// Environment is a set of values that the vendor put in for a kind of site, such as "staging". A site
// chooses one by its name, for all charts that have it.
type Environment struct {
	Name string `json:"name"`
	// Values are used on top of those of the chart, later ones winning.
	Values []ValuesFile `json:"values"`
}

// Environment returns the environment of a name; nil where the chart has none of it.
func (c *Chart) Environment(name string) *Environment {
	for i := range c.Environments {
		if c.Environments[i].Name == name {
			return &c.Environments[i]
		}
	}
	return nil
}

// Environments are the names of the environments that any chart has, sorted.
func (m *Manifest) Environments() []string {
	var names []string
	for i := range m.Charts {
		for j := range m.Charts[i].Environments {
			names = append(names, m.Charts[i].Environments[j].Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// CheckEnvironmentName reports whether s may name an environment.
func CheckEnvironmentName(s string) error {
	if len(s) > MaxEnvironmentName || CheckName(s) != nil {
		return fmt.Errorf("environment %q is not made of lower-case letters, digits and dashes (at most %d)", s, MaxEnvironmentName)
	}
	return nil
}

func (c *Chart) validateEnvironments(blobs map[string]*Blob) error {
	if len(c.Environments) > MaxEnvironments {
		return fmt.Errorf("%d environments, at most %d are allowed", len(c.Environments), MaxEnvironments)
	}
	if c.Plain && len(c.Environments) > 0 {
		return errors.New("environments of plain objects, which have no values")
	}
	seen := map[string]bool{}
	for i := range c.Environments {
		e := &c.Environments[i]
		if err := CheckEnvironmentName(e.Name); err != nil {
			return err
		}
		if seen[e.Name] {
			return fmt.Errorf("environment %q twice", e.Name)
		}
		seen[e.Name] = true
		if err := validateValues(e.Values, blobs); err != nil {
			return fmt.Errorf("environment %q: %w", e.Name, err)
		}
	}
	return nil
}

func validateValues(files []ValuesFile, blobs map[string]*Blob) error {
	for _, v := range files {
		if v.Name == "" || len(v.Name) > 255 || !plain(v.Name) {
			return fmt.Errorf("values file name %q", v.Name)
		}
		if err := carried(blobs, Descriptor{v.Digest, MediaTypeValues, v.Size}, MaxValuesBytes); err != nil {
			return fmt.Errorf("values %q: %w", v.Name, err)
		}
	}
	return nil
}

func normalEnvironments(list []Environment) []Environment {
	n := slices.Clone(list)
	for i := range n {
		n[i].Values = orEmpty(n[i].Values)
	}
	return n
}

func sameEnvironment(a, b Environment) bool {
	return a.Name == b.Name && slices.Equal(a.Values, b.Values)
}
