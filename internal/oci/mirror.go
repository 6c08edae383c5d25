package oci

import (
	"errors"
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
)

// dockerHub is the name of Docker Hub in references.
const dockerHub = "docker.io"

// canonicalHost is the name that a registry has in references.
func canonicalHost(host string) string {
	if host == name.DefaultRegistry {
		return dockerHub
	}
	return host
}

// MirrorError says why a text names no mirror.
type MirrorError struct {
	Text string
	Err  error
}

// Error quotes the text.
func (e *MirrorError) Error() string { return fmt.Sprintf("mirror %q: %v", e.Text, e.Err) }

// Unwrap returns the cause.
func (e *MirrorError) Unwrap() error { return e.Err }

// ParseMirror reads "HOST[:PORT]=HOST[:PORT][/PREFIX]": the registry that references name, and
// where it is read instead. They are a key and a value of Options.Mirrors. Errors are *MirrorError.
func ParseMirror(text string) (host, mirror string, err error) {
	host, mirror, ok := strings.Cut(text, "=")
	switch {
	case !ok:
		return "", "", &MirrorError{text, errors.New("want REGISTRY=HOST[:PORT][/PREFIX]")}
	case strings.Contains(text, "://"):
		return "", "", &MirrorError{text, errors.New("hosts are given without https:// or http://")}
	case strings.Contains(host, "/"):
		return "", "", &MirrorError{text, fmt.Errorf("%q is no registry; one stands for all its repositories", host)}
	}
	if err := checkHost(host); err != nil {
		return "", "", &MirrorError{text, err}
	}
	mirror = strings.TrimSuffix(mirror, "/")
	at, prefix, below := strings.Cut(mirror, "/")
	if err := checkHost(at); err != nil {
		return "", "", &MirrorError{text, err}
	}
	if _, err := Normalize(mirror + "/x"); below && err != nil {
		return "", "", &MirrorError{text, fmt.Errorf("%q is no path of repositories", prefix)}
	}
	return canonicalHost(host), mirror, nil
}

// checkHost proves that the host of a reference is one, also for those who would take it for a part
// of a path.
func checkHost(host string) error {
	repo, err := name.NewRepository(host+"/x/y", name.StrictValidation)
	ref, wrong := Normalize(host + "/x/y")
	if err != nil || wrong != nil || repo.RegistryStr() != host && host != dockerHub || ref.Registry != canonicalHost(host) {
		return fmt.Errorf("%q is no host; without a dot in it, it needs a port", host)
	}
	return nil
}
