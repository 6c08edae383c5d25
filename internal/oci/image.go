package oci

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/sealift/sealift/manifest"
)

// MaxConfigBytes bounds an image config that is read into memory.
const MaxConfigBytes = 4 << 20

// maxChildren bounds how many image manifests an index, and layers an image, may name.
const maxChildren = 4096

// ErrUnsupported is wrapped for documents of kinds that do not travel, such as image
// manifests of schema 1.
var ErrUnsupported = errors.New("unsupported media type")

// UnknownPlatform is how attestations inside an index are marked.
const UnknownPlatform = "unknown/unknown"

func declaredMediaType(raw []byte) string {
	var d struct {
		MediaType string `json:"mediaType"`
	}
	if json.Unmarshal(raw, &d) != nil {
		return ""
	}
	return d.MediaType
}

// IsIndex reports whether the media type is that of an index.
func IsIndex(mediaType string) bool { return types.MediaType(mediaType).IsIndex() }

// IsImage reports whether the media type is that of an image manifest.
func IsImage(mediaType string) bool { return types.MediaType(mediaType).IsImage() }

// IsUncompressed reports whether the media type is that of a layer which is a plain tar.
func IsUncompressed(mediaType string) bool {
	return slices.Contains([]types.MediaType{
		types.OCIUncompressedLayer, types.OCIUncompressedRestrictedLayer, types.DockerUncompressedLayer,
	}, types.MediaType(mediaType))
}

// Image is an image manifest taken apart.
type Image struct {
	Config manifest.Descriptor
	Layers []manifest.Descriptor
}

// ParseImage reads an image manifest.
func ParseImage(raw []byte) (*Image, error) {
	m, err := v1.ParseManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("parsing image manifest: %w", err)
	}
	if m.SchemaVersion != 2 {
		return nil, fmt.Errorf("parsing image manifest: schema version %d: %w", m.SchemaVersion, ErrUnsupported)
	}
	if len(m.Layers) > maxChildren {
		return nil, fmt.Errorf("parsing image manifest: %d layers, at most %d are allowed", len(m.Layers), maxChildren)
	}
	img := &Image{}
	if img.Config, err = descriptor(m.Config); err != nil {
		return nil, fmt.Errorf("parsing image manifest: config: %w", err)
	}
	for i, l := range m.Layers {
		d, err := descriptor(l)
		if err != nil {
			return nil, fmt.Errorf("parsing image manifest: layer %d: %w", i, err)
		}
		img.Layers = append(img.Layers, d)
	}
	return img, nil
}

func descriptor(d v1.Descriptor) (manifest.Descriptor, error) {
	m := manifest.Descriptor{Digest: d.Digest.String(), MediaType: string(d.MediaType), Size: d.Size}
	if err := manifest.CheckDigest(m.Digest); err != nil {
		return m, err
	}
	if m.Size < 0 || m.Size > manifest.MaxEntryBytes {
		return m, fmt.Errorf("size %d", m.Size)
	}
	return m, nil
}

// Child is an image manifest named by an index.
type Child struct {
	manifest.Descriptor
	// Platform is os/arch[/variant]; UnknownPlatform for attestations.
	Platform string
	// Of is the digest of the sibling that an attestation is about.
	Of string
}

// ParseIndex reads an index whose children are image manifests.
func ParseIndex(raw []byte) ([]Child, error) {
	idx, err := v1.ParseIndexManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("parsing index: %w", err)
	}
	if len(idx.Manifests) > maxChildren {
		return nil, fmt.Errorf("parsing index: %d children, at most %d are allowed", len(idx.Manifests), maxChildren)
	}
	var children []Child
	for i, m := range idx.Manifests {
		d, err := descriptor(m)
		if err != nil {
			return nil, fmt.Errorf("parsing index: child %d: %w", i, err)
		}
		if !m.MediaType.IsImage() {
			return nil, fmt.Errorf("parsing index: child %s is a %s: %w", d.Digest, m.MediaType, ErrUnsupported)
		}
		if d.Size > manifest.MaxOCIManifestBytes {
			return nil, fmt.Errorf("parsing index: child %s: %w", d.Digest, &TooLargeError{manifest.MaxOCIManifestBytes})
		}
		c := Child{Descriptor: d, Platform: UnknownPlatform}
		if m.Platform != nil {
			c.Platform = Platform(m.Platform.OS, m.Platform.Architecture, m.Platform.Variant)
		}
		if m.Annotations["vnd.docker.reference.type"] == "attestation-manifest" {
			c.Of = m.Annotations["vnd.docker.reference.digest"]
		}
		children = append(children, c)
	}
	return children, nil
}

// Platform joins the parts of a platform.
func Platform(os, arch, variant string) string {
	p := os + "/" + arch
	if variant != "" {
		p += "/" + variant
	}
	return p
}

// ConfigPlatform reads the platform from an image config.
func ConfigPlatform(raw []byte) (string, error) {
	var c struct {
		OS           string `json:"os"`
		Architecture string `json:"architecture"`
		Variant      string `json:"variant"`
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return "", fmt.Errorf("parsing image config: %w", err)
	}
	return Platform(c.OS, c.Architecture, c.Variant), nil
}

// Matches reports whether an image made for have is one for want. A variant that want does
// not name is not looked at; for arm64 "v8" is the same as none. All are for AllPlatforms.
func Matches(have, want string) bool {
	if want == AllPlatforms {
		return true
	}
	if strings.HasPrefix(want, "linux/arm64") || strings.HasPrefix(have, "linux/arm64") {
		have, want = strings.TrimSuffix(have, "/v8"), strings.TrimSuffix(want, "/v8")
	}
	return have == want || strings.HasPrefix(have, want+"/") && strings.Count(want, "/") == 1
}

// MissingPlatformError says that an image is not made for a platform that was asked for.
type MissingPlatformError struct {
	Reference string
	Want      string
	Have      []string
}

// Error lists what there is.
func (e *MissingPlatformError) Error() string {
	if len(e.Have) == 0 {
		return fmt.Sprintf("image %q is not made for %s: none of its parts names a platform", e.Reference, e.Want)
	}
	return fmt.Sprintf("image %q is not made for %s, but for %s", e.Reference, e.Want, strings.Join(e.Have, ", "))
}

// AllPlatforms stands, alone, for every platform that an image is made for.
const AllPlatforms = "all"

// Select returns the children for the wanted platforms, in the index's order, with the
// attestations about them, and the platforms found. AllPlatforms selects all children, those
// included that name no platform. A platform without a child is a *MissingPlatformError.
func Select(reference string, children []Child, want []string) (selected []Child, platforms []string, err error) {
	chosen := map[string]bool{}
	var have []string
	for _, c := range children {
		if c.Platform != UnknownPlatform && !slices.Contains(have, c.Platform) {
			have = append(have, c.Platform)
		}
	}
	every := len(want) == 1 && want[0] == AllPlatforms
	for _, w := range want {
		found := false
		for _, c := range children {
			if c.Platform != UnknownPlatform && Matches(c.Platform, w) {
				chosen[c.Digest], found = true, true
			}
		}
		if !found {
			return nil, nil, &MissingPlatformError{reference, w, have}
		}
	}
	seen := map[string]bool{}
	for _, c := range children {
		about := c.Platform == UnknownPlatform && (every || chosen[c.Of])
		if !chosen[c.Digest] && !about {
			continue
		}
		// Some indexes name one image manifest for several variants.
		if !seen[c.Digest] {
			seen[c.Digest] = true
			selected = append(selected, c)
		}
		if !about && !slices.Contains(platforms, c.Platform) {
			platforms = append(platforms, c.Platform)
		}
	}
	return selected, platforms, nil
}

// DeriveIndex returns the index raw with only the children whose digests keep names. All
// else stays as it is, member by member.
func DeriveIndex(raw []byte, keep func(digest string) bool) (*Content, error) {
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, fmt.Errorf("deriving index: %w", err)
	}
	var all, some []json.RawMessage
	if err := json.Unmarshal(doc["manifests"], &all); err != nil {
		return nil, fmt.Errorf("deriving index: %w", err)
	}
	for _, m := range all {
		var d struct {
			Digest string `json:"digest"`
		}
		if err := json.Unmarshal(m, &d); err != nil {
			return nil, fmt.Errorf("deriving index: %w", err)
		}
		if keep(d.Digest) {
			some = append(some, m)
		}
	}
	list, err := json.Marshal(some)
	if err != nil {
		return nil, fmt.Errorf("deriving index: %w", err)
	}
	doc["manifests"] = list
	out, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("deriving index: %w", err)
	}
	mt := declaredMediaType(raw)
	if mt == "" {
		mt = string(types.OCIImageIndex)
	}
	return &Content{Descriptor: manifest.Descriptor{Digest: manifest.Digest(out), MediaType: mt, Size: int64(len(out))}, Raw: out}, nil
}
