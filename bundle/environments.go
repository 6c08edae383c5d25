package bundle

import (
	"errors"
	"fmt"
	"slices"

	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/manifest"
)

// EnvironmentSpec is a set of values for a kind of site, such as "staging", of which a site may choose one.
type EnvironmentSpec struct {
	Name string `yaml:"name"`
	// Values are files that travel and are used on top of those of the chart.
	Values []string `yaml:"values"`
}

// packedEnvironment is an environment of a release with its files.
type packedEnvironment struct {
	name   string
	values []chart.ValuesFile
}

// environments checks those of the i-th chart.
func (c *completion) environments(list []EnvironmentSpec, i int) {
	if len(list) > manifest.MaxEnvironments {
		c.at(fmt.Errorf("%d environments, at most %d are allowed", len(list), manifest.MaxEnvironments), "charts", i, "environments")
	}
	names := map[string]int{}
	for j := range list {
		e := &list[j]
		if e.Name == "" {
			c.at(errors.New("an environment has no name"), "charts", i, "environments", j)
			continue
		}
		if err := manifest.CheckEnvironmentName(e.Name); err != nil {
			c.at(err, "charts", i, "environments", j, "name")
			continue
		}
		c.twice(names, e.Name, fmt.Sprintf("environment %q", e.Name), "charts", i, "environments", j, "name")
		if len(e.Values) == 0 {
			c.at(fmt.Errorf("environment %q has no values", e.Name), "charts", i, "environments", j)
		}
	}
}

// addEnvironments reads the values of the environments of a release.
func (g *gathered) addEnvironments(p *packedRelease, list []EnvironmentSpec) error {
	for _, e := range list {
		packed := packedEnvironment{name: e.Name}
		for _, path := range e.Values {
			v, err := readValues(g.spec.file(path), path)
			if err != nil {
				return err
			}
			packed.values = append(packed.values, v)
		}
		p.environments = append(p.environments, packed)
	}
	return nil
}

// lockEnvironments pins the files of the environments of a chart.
func (g *gathered) lockEnvironments(p *packedRelease, list []EnvironmentSpec) {
	for i, e := range list {
		for j, name := range e.Values {
			g.lockFile(name, p.environments[i].values[j].Data)
		}
	}
}

// inEnvironments are the ways to render the release with each of its environments; with is the one without.
func (p *packedRelease) inEnvironments(with *rendering) []*rendering {
	var list []*rendering
	for _, e := range p.environments {
		r := *with
		r.files = slices.Concat(p.values, e.values)
		r.variant = "environment " + e.name
		list = append(list, &r)
	}
	return list
}
