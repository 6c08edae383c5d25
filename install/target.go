package install

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// Target is the place in a registry that a bundle is seeded to.
type Target struct {
	// Registry is a host, or host:port.
	Registry string
	// Prefix is put before the path of every repository; it may be empty.
	Prefix string
	// Names say what comes after it.
	Names Names
}

// TargetError says that a text names no place in a registry.
type TargetError struct{ Text string }

// Error quotes the text.
func (e *TargetError) Error() string {
	text := e.Text
	// What stands before an @ would be a password.
	if i := strings.LastIndex(text, "@"); i >= 0 {
		text = "…" + text[i:]
	}
	return fmt.Sprintf("registry %q is not written as HOST[:PORT][/PREFIX], with a dot or a port in the host", text)
}

var (
	hostPattern = regexp.MustCompile(`\A(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?\z`)
	pathPattern = regexp.MustCompile(`\A[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*\z`)
)

// ParseTarget reads HOST[:PORT][/PREFIX]. Errors are *TargetError.
func ParseTarget(text string) (Target, error) {
	host, prefix, slash := strings.Cut(text, "/")
	prefix = strings.TrimSuffix(prefix, "/")
	// Without a dot or a port a container runtime takes the first part for a user of Docker Hub.
	isHost := strings.ContainsAny(host, ".:") || host == "localhost"
	if !isHost || !hostPattern.MatchString(host) || slash && prefix != "" && !pathPattern.MatchString(prefix) {
		return Target{}, &TargetError{text}
	}
	return Target{Registry: strings.ToLower(host), Prefix: prefix}, nil
}

// String returns the target as it was written.
func (t Target) String() string { return strings.TrimSuffix(t.Registry+"/"+t.Prefix, "/") }

func (t Target) path(path string) string {
	return strings.Trim(t.Prefix+"/"+path, "/")
}

// IndexMode says what is seeded for an index of which only some children travel.
type IndexMode string

// Index modes. The empty one tries the original and gives up, with *SparseIndexError, where
// the registry refuses it.
const (
	// IndexOriginal is the vendor's index as it is, naming children that are not there.
	IndexOriginal IndexMode = "original"
	// IndexDerived is an index of only those children that travel, made by the vendor and
	// covered by the bundle's signature. Upstream signatures of the original do not hold for it.
	IndexDerived IndexMode = "derived"
	// IndexPlatform is the image manifest of the only platform that travels.
	IndexPlatform IndexMode = "platform"
)

// indexModes lists what can be chosen.
var indexModes = []IndexMode{IndexOriginal, IndexDerived, IndexPlatform}

// ParseIndexMode reads an index mode; the empty text is the empty mode.
func ParseIndexMode(text string) (IndexMode, error) {
	if m := IndexMode(text); text == "" || slices.Contains(indexModes, m) {
		return m, nil
	}
	return "", fmt.Errorf("index mode %q is none of original, derived, platform", text)
}

// SparseIndexError says that a registry refused an index because not all of its children are
// there.
type SparseIndexError struct {
	Source string
	Err    error
}

// Error names the image.
func (e *SparseIndexError) Error() string {
	return fmt.Sprintf("the registry refuses the index of %q, of which only some platforms travel: %v", e.Source, e.Err)
}

// Unwrap returns the registry's answer.
func (e *SparseIndexError) Unwrap() error { return e.Err }

// PlatformsError says that IndexPlatform cannot be used for an image.
type PlatformsError struct {
	Source    string
	Platforms []string
}

// Error lists the platforms.
func (e *PlatformsError) Error() string {
	return fmt.Sprintf("%q travels for more than one platform (%s)", e.Source, strings.Join(e.Platforms, ", "))
}

// CollisionError says that two images would get the same name in the target registry.
type CollisionError struct{ Target, First, Second string }

// Error names all three.
func (e *CollisionError) Error() string {
	return fmt.Sprintf("%q and %q would both become %q, with different contents", e.First, e.Second, e.Target)
}

// root is one image or chart on its way to a repository.
type root struct {
	bundle *verify.Bundle
	source string
	path   string
	// tag is empty for references that have only a digest.
	tag string
	// owned is the tag that only this bundle version has, so that no retention rule of the
	// site takes the image away from under it.
	owned string
	// top is what tags point to; children are the image manifests below it.
	top      manifest.Descriptor
	children []manifest.Descriptor
	// sparse is set where top names children that do not travel.
	sparse bool
	index  IndexMode
	// original is the digest that the reference had at its source; top may be something else.
	original  string
	referrers []manifest.Referrer
}

// reference is what a pod would use: name:tag@digest.
func (r *root) reference(t Target) string {
	s := t.Registry + "/" + r.path
	if r.tag != "" {
		s += ":" + r.tag
	}
	return s + "@" + r.top.Digest
}

// allRoots maps everything in the bundles to its place.
func allRoots(bundles []*verify.Bundle, o SeedOptions) ([]*root, error) {
	var all []*root
	taken := map[string]*root{}
	for _, b := range bundles {
		some, err := roots(b.Manifest(), o.Target, o.Index, taken)
		if err != nil {
			return nil, err
		}
		for _, r := range some {
			r.bundle = b
		}
		all = append(all, some...)
	}
	return all, nil
}

// roots maps everything in m to its place below t. taken holds what has been mapped already, by
// its name there.
func roots(m *manifest.Manifest, t Target, mode IndexMode, taken map[string]*root) ([]*root, error) {
	var all []*root
	add := func(r *root) error {
		if r.tag != "" {
			key := r.path + ":" + r.tag
			if first := taken[key]; first != nil && first.top.Digest != r.top.Digest {
				return &CollisionError{t.Registry + "/" + key, first.source, r.source}
			}
			taken[key] = r
		}
		r.owned = ownedTag(m, r.top.Digest)
		all = append(all, r)
		return nil
	}
	for _, img := range m.AllImages() {
		ref, err := oci.Normalize(img.Source)
		if err != nil {
			return nil, err
		}
		path, tag, err := t.place(ref.Registry, ref.Repository, ref.Tag)
		if err != nil {
			return nil, err
		}
		r := &root{
			source: img.Source, path: path, tag: tag,
			top:      manifest.Descriptor{Digest: img.Digest, MediaType: img.MediaType, Size: img.Size},
			original: img.Digest, referrers: img.Referrers,
		}
		for _, c := range img.Children {
			r.children = append(r.children, manifest.Descriptor{Digest: c.Digest, MediaType: c.MediaType, Size: c.Size})
		}
		if img.Derived != nil {
			if err := r.choose(img, mode); err != nil {
				return nil, err
			}
		}
		if err := add(r); err != nil {
			return nil, err
		}
	}
	for i := range m.Charts {
		c := &m.Charts[i]
		name := "charts/" + strings.ToLower(c.Name)
		path, tag, err := t.place("", name, strings.ReplaceAll(c.Version, "+", "_"))
		if err != nil {
			return nil, err
		}
		if err := add(&root{
			source: name + ":" + c.Version, path: path, tag: tag, top: c.Manifest, original: c.Manifest.Digest, referrers: c.Referrers,
		}); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// choose decides what stands for a sparse index.
func (r *root) choose(img *manifest.Image, mode IndexMode) error {
	r.index = mode
	switch mode {
	case "", IndexOriginal:
		r.sparse = true
	case IndexDerived:
		r.top = *img.Derived
	case IndexPlatform:
		if len(img.Platforms) != 1 {
			return &PlatformsError{img.Source, img.Platforms}
		}
		for _, c := range img.Children {
			if oci.Matches(c.Platform, img.Platforms[0]) {
				r.top = manifest.Descriptor{Digest: c.Digest, MediaType: c.MediaType, Size: c.Size}
				r.children = nil
				return nil
			}
		}
		return errors.New("no child for the platform that travels")
	}
	return nil
}

// ownedLimit is where the part of an owned tag before the digest is cut.
const ownedLimit = 110

// ownedTag is the tag sealift.NAME.VERSION.HEX, cut to what a tag may be. See parseOwned.
func ownedTag(m *manifest.Manifest, digest string) string {
	tag := "sealift." + m.Name + "." + strings.ReplaceAll(m.Version, "+", "_")
	// 128 characters are allowed; the digest keeps what is cut apart.
	if len(tag) > ownedLimit {
		tag = tag[:ownedLimit]
	}
	return tag + "." + digest[len("sha256:"):][:16]
}
