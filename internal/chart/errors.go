package chart

import (
	"fmt"
	"strings"
)

// LoadError says that a chart could not be read: it is not there, not a chart,
// damaged, or larger than the limits allow.
type LoadError struct {
	Path string // as given to Load; empty for Parse
	Err  error
}

func (e *LoadError) Error() string {
	if e.Path == "" {
		return fmt.Sprintf("reading chart archive: %v", e.Err)
	}
	return fmt.Sprintf("reading chart %q: %v", e.Path, e.Err)
}

func (e *LoadError) Unwrap() error { return e.Err }

// MissingDependenciesError says that Chart.yaml lists dependencies that are not
// in charts/. Such a chart cannot be installed without a network.
type MissingDependenciesError struct {
	Chart   string
	Missing []string // names as in Chart.yaml, in that order
}

func (e *MissingDependenciesError) Error() string {
	return fmt.Sprintf("chart %q lists dependencies that are missing from its charts directory: %s",
		e.Chart, strings.Join(e.Missing, ", "))
}

// ValuesError says that a values file is not YAML, or not a YAML mapping.
type ValuesError struct {
	Name string
	Err  error
}

func (e *ValuesError) Error() string { return fmt.Sprintf("reading values file %q: %v", e.Name, e.Err) }

func (e *ValuesError) Unwrap() error { return e.Err }

// SchemaError says that values do not satisfy the values.schema.json of a chart
// or of one of its sub-charts, or that the schema itself is unusable.
type SchemaError struct {
	Chart    string   // the chart whose schema it is; sub-charts as "shop/db"
	Problems []string // one line each: where in the values, and what is wrong
	Err      error
}

func (e *SchemaError) Error() string {
	return fmt.Sprintf("checking values against the schema of chart %q: %s", e.Chart, strings.Join(e.Problems, "; "))
}

func (e *SchemaError) Unwrap() error { return e.Err }

// KubeVersionError says that a chart excludes the Kubernetes version it is
// rendered for.
type KubeVersionError struct {
	Chart      string
	Constraint string // kubeVersion of Chart.yaml
	Version    string
}

func (e *KubeVersionError) Error() string {
	return fmt.Sprintf("chart %q needs kubernetes %s, not %s", e.Chart, e.Constraint, e.Version)
}

// RenderError says that the templates of a chart did not render. Err is Helm's
// own message.
type RenderError struct {
	Chart    string
	Template string // "shop/templates/deploy.yaml", empty where Helm does not say
	Err      error
}

func (e *RenderError) Error() string {
	// Helm spreads its messages over several lines.
	message := strings.Join(strings.Fields(e.Err.Error()), " ")
	if e.Template == "" {
		return fmt.Sprintf("rendering chart %q: %s", e.Chart, message)
	}
	return fmt.Sprintf("rendering chart %q, template %q: %s", e.Chart, e.Template, message)
}

func (e *RenderError) Unwrap() error { return e.Err }

// ManifestError says that a stream of rendered YAML documents cannot be used.
type ManifestError struct {
	Document int // 1 for the first; 0 where the stream as a whole is meant
	Line     int // 0 where unknown
	Err      error
}

func (e *ManifestError) Error() string {
	switch {
	case e.Document > 0 && e.Line > 0:
		return fmt.Sprintf("reading rendered document %d (line %d): %v", e.Document, e.Line, e.Err)
	case e.Document > 0:
		return fmt.Sprintf("reading rendered document %d: %v", e.Document, e.Err)
	default:
		return fmt.Sprintf("reading rendered documents: %v", e.Err)
	}
}

func (e *ManifestError) Unwrap() error { return e.Err }
