// Package oci moves OCI content between registries and bundles: references, one client for
// both directions, and the shape of image manifests and indexes.
//
// It speaks the OCI distribution spec 1.1 and verifies the digest of all it reads into memory.
// Blobs that are streamed are verified by whoever writes them down.
package oci

import (
	"fmt"
	"strings"

	"github.com/distribution/reference"
)

// Reference names an image or artifact in a registry.
type Reference struct {
	// Registry is a host, or host:port.
	Registry string
	// Repository is the path below it.
	Repository string
	// Tag and Digest are empty where the reference has none.
	Tag    string
	Digest string
}

// String returns the reference as registry/repository[:tag][@digest].
func (r Reference) String() string {
	s := r.Registry + "/" + r.Repository
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest
	}
	return s
}

// Identifier is what a registry is asked for: the digest, or else the tag.
func (r Reference) Identifier() string {
	if r.Digest != "" {
		return r.Digest
	}
	return r.Tag
}

// Repositories are the names that the repository goes by: Docker Hub has images whose names have one
// part only below "library/", which people and charts leave out.
func (r Reference) Repositories() []string {
	if short, ok := strings.CutPrefix(r.Repository, "library/"); ok && r.Registry == "docker.io" {
		return []string{r.Repository, short}
	}
	return []string{r.Repository}
}

// ReferenceError says why a text is no usable reference.
type ReferenceError struct {
	Text string
	Err  error
	// Proposal is what was probably meant, or empty.
	Proposal string
}

// Error quotes the text.
func (e *ReferenceError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("image reference %q names no registry", e.Text)
	}
	return fmt.Sprintf("image reference %q: %v", e.Text, e.Err)
}

// Unwrap returns the cause, if there is one beyond a missing registry.
func (e *ReferenceError) Unwrap() error { return e.Err }

// Normalize reads a reference as Kubernetes does: without a registry it is Docker Hub's, and
// without tag and digest its tag is "latest". Errors are *ReferenceError.
func Normalize(text string) (Reference, error) {
	named, err := reference.ParseNormalizedNamed(text)
	if err != nil {
		return Reference{}, &ReferenceError{Text: text, Err: err}
	}
	named = reference.TagNameOnly(named)
	r := Reference{Registry: reference.Domain(named), Repository: reference.Path(named)}
	if t, ok := named.(reference.Tagged); ok {
		r.Tag = t.Tag()
	}
	if d, ok := named.(reference.Digested); ok {
		if d.Digest().Algorithm() != "sha256" {
			return Reference{}, &ReferenceError{Text: text, Err: fmt.Errorf("digest algorithm %q, only sha256 is supported", d.Digest().Algorithm())}
		}
		r.Digest = d.Digest().String()
	}
	return r, nil
}

// ParseReference is Normalize for references that people write down for good: those without
// a registry are refused, with the full name as proposal.
func ParseReference(text string) (Reference, error) {
	r, err := Normalize(text)
	if err != nil {
		return Reference{}, err
	}
	if !strings.HasPrefix(text, r.Registry+"/") {
		return Reference{}, &ReferenceError{Text: text, Proposal: r.String()}
	}
	return r, nil
}
