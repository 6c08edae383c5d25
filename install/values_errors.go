package install

import (
	"errors"
	"fmt"
	"strings"
)

// ParameterError says that what the site says, or does not say, is not what a bundle asks for.
type ParameterError struct {
	Name string
	// Known are the parameters of the bundle, where Name is none of them.
	Known []string
	// Kept says that it was said for an earlier version, and not now.
	Kept bool
	Err  error
}

// Error names the parameter.
func (e *ParameterError) Error() string {
	if e.Kept {
		return fmt.Sprintf("parameter %q, as it was said for an earlier version: %v", e.Name, e.Err)
	}
	return fmt.Sprintf("parameter %q: %v", e.Name, e.Err)
}

// Unwrap returns the cause.
func (e *ParameterError) Unwrap() error { return e.Err }

// Reasons for a *ParameterError.
var (
	errUnsaid      = errors.New("it is required, and this site says nothing")
	errNoParameter = errors.New("the bundle has no such parameter")
)

// EnvironmentError says that a bundle has no values for the environment that the site has chosen.
type EnvironmentError struct {
	Name string
	// Known are those that the bundle has values for.
	Known []string
	// Kept says that it was chosen for an earlier version.
	Kept bool
}

// Error lists those that are known.
func (e *EnvironmentError) Error() string {
	known := "it has none at all"
	if len(e.Known) > 0 {
		known = "it has " + strings.Join(e.Known, ", ")
	}
	was := ""
	if e.Kept {
		was = ", which was chosen for an earlier version"
	}
	return fmt.Sprintf("the bundle has no environment %q%s: %s", e.Name, was, known)
}

// NoReleaseError says that the site has values for a release that is not in the bundle.
type NoReleaseError struct {
	// Name is what was written: "RELEASE" or "NAMESPACE/RELEASE"; empty where it was left out.
	Name string
	// Known are those of the bundle that it might be, as "NAMESPACE/RELEASE".
	Known []string
}

// Error lists those that are known.
func (e *NoReleaseError) Error() string {
	known := "it has none at all"
	if len(e.Known) > 0 {
		known = "it has " + strings.Join(e.Known, ", ")
	}
	if e.Name == "" {
		return "the values do not say for which release of the bundle they are: " + known
	}
	return fmt.Sprintf("values for release %q, which is not exactly one release of the bundle: %s", e.Name, known)
}

// SiteValuesError says that a chart does not take what the site's own values say.
type SiteValuesError struct {
	// Release is "NAMESPACE/RELEASE".
	Release string
	// Places are the values that are wrong and where they were said, as "site.yaml:3 (web.port)".
	Places []string
	Err    error
}

// Error names places and release.
func (e *SiteValuesError) Error() string {
	at := ""
	if len(e.Places) > 0 {
		at = " (" + strings.Join(e.Places, ", ") + ")"
	}
	return fmt.Sprintf("values of release %s%s: %v", e.Release, at, e.Err)
}

// Unwrap returns the cause.
func (e *SiteValuesError) Unwrap() error { return e.Err }

// UnreadError says that the value of a parameter is in a Secret of the cluster, and no cluster was asked.
type UnreadError struct {
	Parameter string
	Key       SecretKey
}

// Error names parameter and Secret.
func (e *UnreadError) Error() string {
	return fmt.Sprintf("parameter %q comes from Secret %s, and no cluster is named to read it from", e.Parameter, e.Key)
}

// SecretError says that a Secret of the cluster does not give the value of a parameter.
type SecretError struct {
	Parameter string
	Key       SecretKey
	Err       error
}

// Error names parameter and Secret.
func (e *SecretError) Error() string {
	return fmt.Sprintf("parameter %q from Secret %s: %v", e.Parameter, e.Key, e.Err)
}

// Unwrap returns the cause.
func (e *SecretError) Unwrap() error { return e.Err }

// KeptError says that what a site has said before cannot be kept, or read.
type KeptError struct{ Err error }

// Error is that of the cause.
func (e *KeptError) Error() string {
	return "what the site says, as kept for the next upgrade: " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *KeptError) Unwrap() error { return e.Err }
