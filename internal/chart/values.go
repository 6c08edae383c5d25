package chart

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
	"helm.sh/helm/v4/pkg/chart/common/util"
	chartv2 "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
)

// MaxValues bounds one values file.
const MaxValues = 8 << 20

// ValuesFile is a values file and the name that errors call it by.
type ValuesFile struct {
	Name string
	Data []byte
}

// MergeValues merges values files in Helm's order: mappings merge, anything
// else is replaced by what comes later, null included. An error is a
// *[ValuesError] that names the file.
func MergeValues(files []ValuesFile) (map[string]any, error) {
	merged := map[string]any{}
	for _, f := range files {
		if len(f.Data) > MaxValues {
			return nil, &ValuesError{Name: f.Name, Err: fmt.Errorf("the file has more than %d bytes", MaxValues)}
		}
		var values map[string]any
		err := protect(func() (err error) {
			values, err = loader.LoadValues(bytes.NewReader(f.Data))
			return err
		})
		if err != nil {
			return nil, &ValuesError{Name: f.Name, Err: err}
		}
		merged = loader.MergeMaps(merged, values)
	}
	return merged, nil
}

// OverlayValues returns values with others on top of them, in Helm's way: mappings merge, anything else is
// replaced. It changes neither, and the result shares nothing with them.
func OverlayValues(values, others map[string]any) map[string]any {
	return loader.MergeMaps(CopyValues(values), CopyValues(others))
}

// CheckValues checks values against the values.schema.json files of the chart
// and of its enabled sub-charts, as Helm does before it renders. A violation is
// a *[SchemaError].
//
// Helm follows references to http, https and file addresses while it does so.
// This does not: a remote schema counts as one that allows everything, as Helm
// itself treats a urn it cannot resolve, and its address is returned, sorted,
// so that the caller can say what was not checked. A chart whose schema points
// to a remote site thus installs where no network is.
func (c *Chart) CheckValues(values map[string]any) (unchecked []string, err error) {
	ch, err := c.HelmChart()
	if err != nil {
		return nil, err
	}
	var coalesced map[string]any
	err = protect(func() (err error) {
		if err = chartutil.ProcessDependencies(ch, values); err != nil {
			return err
		}
		coalesced, err = util.CoalesceValues(ch, values)
		return err
	})
	if err != nil {
		return nil, &RenderError{Chart: c.Name, Err: err}
	}
	var remote remoteSchemas
	err = checkSchemas(ch, coalesced, ch.Name(), nil, &remote)
	slices.Sort(remote.addresses)
	return slices.Compact(remote.addresses), err
}

// checkSchemas checks values, to which the keys in at lead from the top chart's values on.
func checkSchemas(ch *chartv2.Chart, values map[string]any, name string, at []string, remote *remoteSchemas) error {
	if ch.Schema != nil {
		var problems error
		err := protect(func() (err error) {
			problems, err = checkSchema(ch.Schema, values, remote)
			return err
		})
		if err = errors.Join(problems, err); err != nil {
			return &SchemaError{Chart: name, Problems: schemaProblems(err), Places: schemaPlaces(err, at), Err: err}
		}
	}
	for _, sub := range ch.Dependencies() {
		raw, ok := values[sub.Name()]
		if !ok || raw == nil {
			continue
		}
		subValues, ok := raw.(map[string]any)
		if !ok {
			err := fmt.Errorf("the values of a sub-chart must be a mapping, not %T", raw)
			return &SchemaError{Chart: name + "/" + sub.Name(), Problems: []string{err.Error()}, Places: [][]string{append(slices.Clone(at), sub.Name())}, Err: err}
		}
		if err := checkSchemas(sub, subValues, name+"/"+sub.Name(), append(slices.Clone(at), sub.Name()), remote); err != nil {
			return err
		}
	}
	return nil
}

// schemaAddress is the base address that Helm gives a schema; relative
// references resolve against it, to files that cannot be there.
const schemaAddress = "file:///values.schema.json"

// checkSchema returns what is wrong with the values, or an error where the
// schema cannot be used.
func checkSchema(schemaJSON []byte, values map[string]any, remote *remoteSchemas) (problems, err error) {
	schema, err := jsonschema.UnmarshalJSON(bytes.NewReader(schemaJSON))
	if err != nil {
		return nil, fmt.Errorf("values.schema.json is not JSON: %w", err)
	}
	before := len(remote.addresses)
	cutRemote(schema, remote)
	compiler := jsonschema.NewCompiler()
	compiler.UseLoader(remote)
	if err := compiler.AddResource(schemaAddress, schema); err != nil {
		return nil, err
	}
	validator, err := compiler.Compile(schemaAddress)
	if err != nil {
		if len(remote.addresses) > before {
			// What is left after cutting the remote parts out does not hold
			// together, for example a pointer into a remote document that is
			// named relative to the schema's own remote $id.
			return nil, nil
		}
		return nil, err
	}
	// Through JSON, because the validator knows JSON types only, while a caller
	// may hold whole numbers as int.
	raw, err := json.Marshal(values)
	if err != nil {
		return nil, fmt.Errorf("encoding values as JSON: %w", err)
	}
	plain, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("encoding values as JSON: %w", err)
	}
	return validator.Validate(plain), nil
}

// remoteSchemas stands in for Helm's loaders of http, https, file and urn
// references. It loads nothing.
type remoteSchemas struct{ addresses []string }

// Load implements jsonschema.URLLoader.
func (r *remoteSchemas) Load(address string) (any, error) {
	if !isRemote(address) {
		return nil, fmt.Errorf("the schema refers to %q, which is not in the chart", address)
	}
	r.addresses = append(r.addresses, address)
	return true, nil
}

func isRemote(address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	switch u.Scheme {
	case "http", "https":
		return u.Host != "json-schema.org" // compiled into the validator
	case "urn":
		return true
	}
	return false
}

// cutRemote removes references to remote documents. Loading them as "true" is
// not enough where they point into the document.
func cutRemote(v any, remote *remoteSchemas) {
	switch v := v.(type) {
	case map[string]any:
		if ref, ok := v["$ref"].(string); ok && isRemote(ref) {
			delete(v, "$ref")
			remote.addresses = append(remote.addresses, ref)
		}
		for key, child := range v {
			switch key {
			case "const", "default", "enum", "examples": // data, not schemas
			default:
				cutRemote(child, remote)
			}
		}
	case []any:
		for _, child := range v {
			cutRemote(child, remote)
		}
	}
}

// schemaPlaces are the places that the validator blames, each once, without those around them.
func schemaPlaces(err error, at []string) [][]string {
	var places [][]string
	var walk func(*jsonschema.ValidationError)
	walk = func(v *jsonschema.ValidationError) {
		for _, cause := range v.Causes {
			walk(cause)
		}
		place := append(slices.Clone(at), v.InstanceLocation...)
		if len(v.Causes) == 0 && !slices.ContainsFunc(places, func(p []string) bool { return slices.Equal(p, place) }) {
			places = append(places, place)
		}
	}
	var v *jsonschema.ValidationError
	if errors.As(err, &v) {
		walk(v)
	}
	return places
}

// LineOf returns the line of a values file on which the value begins that the keys lead to, 0 where
// the file does not have it. Positions in lists are keys in decimal digits.
func LineOf(file []byte, keys []string) int {
	var doc yaml.Node
	if protect(func() error { return yaml.Unmarshal(file, &doc) }) != nil || len(doc.Content) == 0 {
		return 0
	}
	n := doc.Content[0]
	for _, key := range keys {
		if n.Kind == yaml.AliasNode {
			n = n.Alias
		}
		switch n.Kind {
		case yaml.MappingNode:
			n = field(n, key)
		case yaml.SequenceNode:
			i, err := strconv.Atoi(key)
			if err != nil || i < 0 || i >= len(n.Content) {
				return 0
			}
			n = n.Content[i]
		default:
			n = nil
		}
		if n == nil {
			return 0
		}
	}
	return n.Line
}

// schemaProblems makes lines out of the validator's report.
func schemaProblems(err error) []string {
	var lines []string
	for line := range strings.Lines(err.Error()) {
		line = strings.TrimPrefix(strings.TrimSpace(line), "- ")
		if line == "" || strings.HasPrefix(line, "jsonschema validation failed with") {
			continue
		}
		lines = append(lines, line)
	}
	return lines
}
