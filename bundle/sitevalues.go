package bundle

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/manifest"
)

// ParameterSchemaError says that a chart refuses what the site would set.
type ParameterSchemaError struct {
	// Parameter is empty for a value that receives the registry, and where only the defaults of
	// several parameters together are refused.
	Parameter string
	// Release is "NAMESPACE/RELEASE", Path that of the value.
	Release, Path string
	// Value is what was tried.
	Value string
	Err   error
}

// Error names the parameter, the value and the chart's complaint.
func (e *ParameterSchemaError) Error() string {
	switch {
	case e.Path == "":
		return fmt.Sprintf("the defaults of all parameters together do not suit release %q: %v", e.Release, e.Err)
	case e.Parameter == "":
		return fmt.Sprintf("registryValues: %q at %q does not suit release %q: %v", e.Value, e.Path, e.Release, e.Err)
	}
	return fmt.Sprintf("parameter %q: %q at %q does not suit release %q: %v", e.Parameter, e.Value, e.Path, e.Release, e.Err)
}

// Unwrap returns the cause.
func (e *ParameterSchemaError) Unwrap() error { return e.Err }

// What a site's registry is when a chart is tried with one.
const (
	// RFC 2606 keeps the name free, so that no image comes from there.
	sampleHost   = "registry.example.invalid:5000"
	samplePrefix = "prefix"
)

// maxTried bounds how many values of a parameter's enum are tried.
const maxTried = 64

// trial is a value that a site may set.
type trial struct {
	// parameter is empty for the registry.
	parameter string
	// paths are all that get the value.
	paths []string
	value any
	// always says that it is there wherever the others are: a default, or the registry.
	always bool
}

// checkSiteValues sets what a site may set in the vendor's values of a release ("NAMESPACE/RELEASE"),
// and checks them with the schemas of the chart: the registry and the defaults of parameters, and
// each value that a parameter may have, if they are listed. Warnings tell of paths that the chart
// does not have. Errors are *ParameterSchemaError; *chart.SchemaError where the vendor's own values
// are refused; and *ParameterError where a value cannot be set.
func checkSiteValues(c *chart.Chart, vendor map[string]any, params []manifest.Parameter, release string, rv []manifest.RegistryValue) (warnings []string, err error) {
	if warnings, err = unknownPaths(c, vendor, params, release, rv); err != nil {
		return nil, err
	}
	trials, err := siteTrials(params, release, rv)
	if err != nil || len(trials) == 0 {
		return warnings, err
	}
	if _, err := c.CheckValues(chart.CopyValues(vendor)); err != nil {
		return warnings, err
	}
	var all []trial
	for _, t := range trials {
		if t.always {
			all = append(all, t)
		}
	}
	if err := try(c, vendor, release, all); err != nil {
		// Which one is it?
		for _, t := range all {
			if err := try(c, vendor, release, []trial{t}); err != nil {
				return warnings, err
			}
		}
		return warnings, err
	}
	for _, t := range trials {
		if t.always {
			continue
		}
		err := try(c, vendor, release, t.but(all))
		var schema *chart.SchemaError
		if errors.As(err, &schema) && !t.blamed(schema) {
			// Something else is wanted with this choice, which the site may say.
			warnings = append(warnings, fmt.Sprintf("with parameter %s=%v alone the schema of chart %q refuses the values: %s", t.parameter, t.value, c.Name, strings.Join(schema.Problems, "; ")))
			continue
		}
		if err != nil {
			return warnings, err
		}
	}
	return warnings, nil
}

// unknownPaths tells of paths that the values of a chart do not have: typing errors, most likely.
func unknownPaths(c *chart.Chart, vendor map[string]any, params []manifest.Parameter, release string, rv []manifest.RegistryValue) ([]string, error) {
	who := map[string]string{}
	var paths []string
	for _, v := range rv {
		who[v.Path] = "registryValues"
		paths = append(paths, v.Path)
	}
	for i := range params {
		for _, v := range params[i].Values {
			if v.Release == release {
				who[v.Path] = fmt.Sprintf("parameter %q", params[i].Name)
				paths = append(paths, v.Path)
			}
		}
	}
	if len(paths) == 0 {
		return nil, nil
	}
	unknown, err := c.UnknownValues(paths, vendor)
	if err != nil {
		return nil, err
	}
	var warnings []string
	for _, path := range unknown {
		warnings = append(warnings, fmt.Sprintf("%s sets %q of release %q, and the values of chart %q have no such key", who[path], path, release, c.Name))
	}
	return warnings, nil
}

// siteTrials lists what is tried with a release. What has neither default nor enum can be anything.
func siteTrials(params []manifest.Parameter, release string, rv []manifest.RegistryValue) ([]trial, error) {
	var trials []trial
	for _, v := range rv {
		trials = append(trials, trial{paths: []string{v.Path}, value: v.Value(sampleHost, samplePrefix), always: true})
	}
	for i := range params {
		p := &params[i]
		texts := slices.Clone(p.Enum[:min(len(p.Enum), maxTried)])
		if p.Type == manifest.ParameterBoolean && len(texts) == 0 {
			texts = []string{"true", "false"}
		}
		if p.Default != nil {
			texts = slices.DeleteFunc(texts, func(t string) bool { return t == *p.Default })
			texts = append([]string{*p.Default}, texts...)
		}
		for j, text := range texts {
			value, err := p.Value(text)
			if err != nil {
				return nil, &ParameterError{Name: p.Name, Err: err}
			}
			t := trial{parameter: p.Name, value: value, always: j == 0 && p.Default != nil}
			for _, v := range p.Values {
				if v.Release == release {
					t.paths = append(t.paths, v.Path)
				}
			}
			if len(t.paths) > 0 {
				trials = append(trials, t)
			}
		}
	}
	return trials, nil
}

// but returns trials with t in place of what else its parameter is.
func (t trial) but(trials []trial) []trial {
	others := slices.DeleteFunc(slices.Clone(trials), func(o trial) bool { return o.parameter == t.parameter })
	return append(others, t)
}

// set sets all values of t.
func (t trial) set(values map[string]any) error {
	for _, path := range t.paths {
		if err := chart.SetValue(values, path, t.value); err != nil {
			return err
		}
	}
	return nil
}

// try checks the vendor's values with all of trials. If there is one only, or something cannot be
// set, the last one is to blame.
func try(c *chart.Chart, vendor map[string]any, release string, trials []trial) error {
	values := chart.CopyValues(vendor)
	for _, t := range trials {
		if err := t.set(values); err != nil {
			return t.refused(release, err)
		}
	}
	_, err := c.CheckValues(values)
	var schema *chart.SchemaError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &schema):
		return err
	case len(trials) > 0 && (len(trials) == 1 || !trials[len(trials)-1].always):
		return trials[len(trials)-1].refused(release, &schemaProblems{schema})
	}
	return &ParameterSchemaError{Release: release, Err: err}
}

// schemaProblems is a schema's refusal in few words.
type schemaProblems struct{ err *chart.SchemaError }

// Error lists what is wrong.
func (e *schemaProblems) Error() string { return strings.Join(e.err.Problems, "; ") }

// Unwrap returns the whole of it.
func (e *schemaProblems) Unwrap() error { return e.err }

// blamed reports whether a schema refuses one of the values of t.
func (t trial) blamed(schema *chart.SchemaError) bool {
	return slices.ContainsFunc(t.paths, func(path string) bool {
		keys := manifest.SplitValuePath(path)
		return slices.ContainsFunc(schema.Places, func(place []string) bool { return slices.Equal(place, keys) })
	})
}

func (t trial) refused(release string, err error) error {
	return &ParameterSchemaError{Parameter: t.parameter, Release: release, Path: t.paths[0], Value: fmt.Sprint(t.value), Err: err}
}
