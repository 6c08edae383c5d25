package bundle

import (
	"fmt"

	"github.com/sealift/sealift/manifest"
)

// requirements are those of the spec as a manifest has them, nil where there are none.
func (s *Spec) requirements() *manifest.Requires {
	r := s.Requires
	if r == nil || r.Kubernetes+r.UpgradeFrom+r.Nodes.CPU+r.Nodes.Memory == "" &&
		len(r.Nodes.Architectures)+len(r.StorageClasses)+len(r.APIGroups) == 0 {
		return nil
	}
	return &manifest.Requires{
		Kubernetes: r.Kubernetes, UpgradeFrom: r.UpgradeFrom, CPU: r.Nodes.CPU, Memory: r.Nodes.Memory,
		Architectures: r.Nodes.Architectures, StorageClasses: r.StorageClasses, APIGroups: r.APIGroups,
	}
}

// ParameterError says that a parameter of a spec cannot be used.
type ParameterError struct {
	Name string
	// Line of the spec, 0 where it is not known.
	Line int
	Err  error
}

// Error names the parameter and its line in the spec.
func (e *ParameterError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("parameter %q: %v", e.Name, e.Err)
	}
	return fmt.Sprintf("parameter %q (line %d of the spec): %v", e.Name, e.Line, e.Err)
}

// Unwrap returns the cause.
func (e *ParameterError) Unwrap() error { return e.Err }

// parameters are those of the spec as a manifest has them. resolve finds the release that a name
// means, as "NAMESPACE/RELEASE"; an empty one means the release of the only chart.
// Errors are *ParameterError.
func (s *Spec) parameters(resolve func(release string) (string, error)) ([]manifest.Parameter, error) {
	var list []manifest.Parameter
	taken := map[manifest.ParameterValue]string{}
	for i := range s.Parameters {
		p := &s.Parameters[i]
		mp := manifest.Parameter{
			Name: p.Name, Description: p.Description, Type: p.Type, Default: p.Default, Required: p.Required,
			Secret: p.Secret, Pattern: p.Pattern, Enum: p.Enum,
		}
		for _, v := range p.Values {
			release, err := resolve(v.Release)
			if err != nil {
				return nil, &ParameterError{p.Name, p.line, err}
			}
			value := manifest.ParameterValue{Release: release, Path: v.Path}
			// The spec may have called the release by two names.
			if first, twice := taken[value]; twice {
				return nil, &ParameterError{p.Name, p.line, fmt.Errorf("value %q of release %q is set by parameter %q already", v.Path, release, first)}
			}
			taken[value] = p.Name
			mp.Values = append(mp.Values, value)
		}
		list = append(list, mp)
	}
	return list, nil
}

// rollout is r as a manifest has it, nil for in place.
func rollout(r *RolloutSpec) *manifest.Rollout {
	if r == nil {
		return nil
	}
	return &manifest.Rollout{Strategy: r.Strategy, Front: manifest.Front{Kind: r.Front.Kind, Name: r.Front.Name, Service: r.Front.Service}, Steps: r.Steps}
}

// registryValues are list as a manifest has it.
func registryValues(list []RegistryValueSpec) []manifest.RegistryValue {
	var out []manifest.RegistryValue
	for _, v := range list {
		out = append(out, manifest.RegistryValue{Path: v.Path, Gets: v.Gets})
	}
	return out
}

// check is c as a manifest has it, without the blob of its job.
func (c *CheckSpec) check() manifest.Check {
	// What seconds cannot read was refused when the spec was read.
	seconds, err := c.seconds()
	if err != nil {
		seconds = 0
	}
	mc := manifest.Check{Name: c.Name, Seconds: seconds}
	if h := c.HTTP; h != nil {
		mc.HTTP = &manifest.CheckHTTP{Service: h.Service, Port: h.Port, Path: h.Path, Status: h.Status, TLS: h.TLS}
	}
	if t := c.TCP; t != nil {
		mc.TCP = &manifest.CheckTCP{Service: t.Service, Port: t.Port}
	}
	return mc
}
