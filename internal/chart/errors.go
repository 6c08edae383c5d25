package chart

import (
	"fmt"
	"strings"
)

// LoadError says that a chart could not be read: it is not there, not a chart,
// damaged, or larger than the limits allow.
type LoadError struct {
	Path string // as given to Load, or the address; empty for Parse
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

// AmbiguousError says that a location does not name exactly one place.
type AmbiguousError struct {
	// Named are the fields that are set: "path", "oci", "repo", "chart".
	Named []string
}

func (e *AmbiguousError) Error() string {
	if len(e.Named) == 0 {
		return "looking for a chart: no place is named; want one of path, oci, and repo with chart"
	}
	return fmt.Sprintf("looking for a chart: got %s; want exactly one of path, oci, and repo with chart", strings.Join(e.Named, ", "))
}

// RangeError says that something is not a version, or not a range of versions.
type RangeError struct {
	Range string
	Err   error
}

func (e *RangeError) Error() string {
	return fmt.Sprintf("reading version range %q: %v", e.Range, e.Err)
}

func (e *RangeError) Unwrap() error { return e.Err }

// VersionError says that a chart does not have the version that is wanted.
type VersionError struct {
	Chart string
	// Want is a version or a range; empty for any release.
	Want string
	// Have are the versions that are there, newest first, at most ten.
	Have []string
}

func (e *VersionError) Error() string {
	want := fmt.Sprintf("version %q", e.Want)
	if e.Want == "" {
		want = "a released version"
	}
	if len(e.Have) == 0 {
		return fmt.Sprintf("chart %q: want %s, got none at all: no chart of that name, or no version of it", e.Chart, want)
	}
	return fmt.Sprintf("chart %q: want %s, got %s", e.Chart, want, strings.Join(e.Have, ", "))
}

// PinError says that a chart is not the one that was pinned: whoever publishes it has replaced it,
// or a file of the directory has changed.
type PinError struct {
	Chart string
	// Digests of the archive, "sha256:…".
	Got, Want string
}

func (e *PinError) Error() string {
	return fmt.Sprintf("chart %q is not the one that is locked: got %s, want %s", e.Chart, e.Got, e.Want)
}

// ProvenanceError says that a chart's provenance is demanded and cannot be proven.
type ProvenanceError struct {
	Chart string
	Err   error
}

func (e *ProvenanceError) Error() string {
	return fmt.Sprintf("checking the provenance of chart %q: %v", e.Chart, e.Err)
}

func (e *ProvenanceError) Unwrap() error { return e.Err }

// RepositoryError says that a chart repository did not give what it was asked for.
type RepositoryError struct {
	// Address without user, password and query.
	Address string
	// Doing is what was being done: "fetching the index".
	Doing string
	// Status of HTTP; 0 where it did not come to that, or is not what is wrong.
	Status int
	Err    error
}

func (e *RepositoryError) Error() string {
	return fmt.Sprintf("%s from chart repository %q: %v", e.Doing, e.Address, e.Err)
}

func (e *RepositoryError) Unwrap() error { return e.Err }

// DependencyError says which dependency of a chart could not be brought.
type DependencyError struct {
	Chart string // whose Chart.yaml it is
	Name  string // of the dependency; empty where all are meant
	Err   error
}

func (e *DependencyError) Error() string {
	if e.Name == "" {
		return fmt.Sprintf("dependencies of chart %q: %v", e.Chart, e.Err)
	}
	return fmt.Sprintf("dependency %q of chart %q: %v", e.Name, e.Chart, e.Err)
}

func (e *DependencyError) Unwrap() error { return e.Err }

// LibraryError says that a chart is a library chart: it has definitions for the templates of other
// charts and cannot be installed itself.
type LibraryError struct{ Chart string }

func (e *LibraryError) Error() string {
	return fmt.Sprintf("chart %q is a library chart, which cannot be installed; name a chart that uses it", e.Chart)
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
	// Places are the keys that lead to the values which are wrong, from the values of the whole
	// chart on, as far as the schema's validator tells.
	Places [][]string
	Err    error
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
