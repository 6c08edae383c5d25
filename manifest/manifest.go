// Package manifest says what is in a bundle: the types of the signed manifest, its one
// canonical encoding, and the rules a manifest must obey.
//
// A manifest is the first entry of a bundle file (sealift.json) and the only thing that is
// signed. Everything else in the file is determined by it, or checked against a digest in it,
// before it is used. docs/format.md describes the file and this document byte by byte.
//
// The package is pure: no files, no network, no clock, no goroutines.
package manifest

import (
	"crypto/sha256"
	"encoding/hex"
)

// Fixed words of format 1.
const (
	// MediaType is the first member of every manifest. It is looked at before anything else,
	// so that no other signed document can pass for a manifest.
	MediaType = "application/vnd.sealift.manifest.v1+json"
	// Format is the only format that this version reads and writes.
	Format = 1
	// EncodingStored says that a blob's entry holds the blob's own bytes.
	EncodingStored = "stored"
	// EncodingZstd says that a blob's entry holds the blob's bytes compressed with zstd. It is
	// for layers that are not compressed themselves.
	EncodingZstd = "zstd"
	// DefaultChannel is the release channel of a spec that names none.
	DefaultChannel = "stable"
)

// Limits on what a reader accepts, in the units that their names say.
const (
	MaxManifestBytes = 16 << 20
	MaxEntries       = 65536
	MaxEntryBytes    = 1 << 40
	MaxImages        = 16384
	MaxCharts        = 1024
	// MaxReferrers bounds the referrers of one image, MaxSigners its signers.
	MaxReferrers = 1024
	MaxSigners   = 16
	MaxHead      = 32 << 20
	// MaxOCIManifestBytes bounds an image manifest, an index or an artifact manifest. The
	// distribution spec asks registries to take at least 4 MiB.
	MaxOCIManifestBytes = 4 << 20
	// MaxArchiveBytes bounds a chart archive.
	MaxArchiveBytes = 64 << 20
	// MaxValuesBytes bounds one values file.
	MaxValuesBytes = 1 << 20
	// MaxTrustedRootBytes bounds a sigstore trusted root.
	MaxTrustedRootBytes = 1 << 20
)

// Manifest is the signed list of what a bundle holds.
type Manifest struct {
	MediaType string `json:"mediaType"`
	Format    int    `json:"format"`
	// Head is the offset of the signature slots where the writer wanted them elsewhere than at
	// the first possible place: 0, or a multiple of 4096, at most MaxHead.
	Head    int64  `json:"head,omitempty"`
	Name    string `json:"name"`
	Version string `json:"version"`
	Channel string `json:"channel"`
	Created string `json:"created"`
	// Expires is when sites stop to accept the bundle for the first time; empty for never.
	Expires   string   `json:"expires,omitempty"`
	Platforms []string `json:"platforms"`
	Images    []Image  `json:"images"`
	Charts    []Chart  `json:"charts"`
	Blobs     []Blob   `json:"blobs"`
	Entries   []Entry  `json:"entries"`
}

// Descriptor names content by digest, with its media type and size, as in the OCI image spec.
type Descriptor struct {
	Digest    string `json:"digest"`
	MediaType string `json:"mediaType"`
	Size      int64  `json:"size"`
}

// Image is one image reference and what travels for it.
type Image struct {
	// Source is the fully qualified reference under which the image was asked for.
	Source string `json:"source"`
	// Digest, MediaType and Size describe what the reference resolves to: an image manifest
	// or an index.
	Digest    string `json:"digest"`
	MediaType string `json:"mediaType"`
	Size      int64  `json:"size"`
	// Platforms that travel, as "os/arch[/variant]".
	Platforms []string `json:"platforms"`
	// Derived is the index of only those children that travel, where some do not.
	Derived *Descriptor `json:"derived,omitempty"`
	// Children are the image manifests of an index that travel, in the index's order.
	Children []Child `json:"children,omitempty"`
	// Referrers are the signatures, attestations, SBOMs and other artifacts that travel with the
	// image, those about its children and about other referrers included.
	Referrers []Referrer `json:"referrers,omitempty"`
	// ReferrersDropped says that the spec left them behind.
	ReferrersDropped bool `json:"referrersDropped,omitempty"`
	// SignedBy says whose signatures of the image were demanded, and proven, when it was packed.
	SignedBy []ImageSigner `json:"signedBy,omitempty"`
	Reasons  []Reason      `json:"reasons"`
}

// Referrer is an artifact about an image: an OCI manifest with a subject (OCI distribution spec
// 1.1, "referrers"), or one under a tag that cosign makes from the digest of the image.
type Referrer struct {
	Digest    string `json:"digest"`
	MediaType string `json:"mediaType"`
	Size      int64  `json:"size"`
	// Subject is the digest of what it is about: the image, a child, or another referrer.
	Subject string `json:"subject"`
	// ArtifactType is what it says it is, where it says it.
	ArtifactType string `json:"artifactType,omitempty"`
	// Tag is sha256-HEX.sig, .att or .sbom where it is found by its tag.
	Tag string `json:"tag,omitempty"`
}

// ImageSigner is who has to have signed an image: a key, or an identity and the trusted root that
// it is proven with. The patterns are those of a trust policy.
type ImageSigner struct {
	// Key is the PKIX DER form of the public key in base64.
	Key           string `json:"key,omitempty"`
	Issuer        string `json:"issuer,omitempty"`
	IssuerRegExp  string `json:"issuerRegExp,omitempty"`
	Subject       string `json:"subject,omitempty"`
	SubjectRegExp string `json:"subjectRegExp,omitempty"`
	// TrustedRoot is the blob with sigstore's trusted root.
	TrustedRoot *Descriptor `json:"trustedRoot,omitempty"`
}

// Child is an image manifest inside an index.
type Child struct {
	Digest    string `json:"digest"`
	MediaType string `json:"mediaType"`
	Size      int64  `json:"size"`
	Platform  string `json:"platform"`
}

// Kinds of reasons for an image to be in a bundle.
const (
	ReasonSpec  = "spec"
	ReasonChart = "chart"
)

// Reason says why an image is in a bundle.
type Reason struct {
	Kind string `json:"kind"`
	// Chart, Object and Path say where a chart names the image.
	Chart  string `json:"chart,omitempty"`
	Object string `json:"object,omitempty"`
	Path   string `json:"path,omitempty"`
}

// Chart is a Helm chart and the release that an install makes of it.
type Chart struct {
	Name       string `json:"name"`
	Version    string `json:"version"`
	AppVersion string `json:"appVersion,omitempty"`
	// Manifest is the OCI artifact manifest around the archive, as Helm pushes it.
	Manifest Descriptor `json:"manifest"`
	// Archive is the chart's .tgz.
	Archive   Descriptor `json:"archive"`
	Release   string     `json:"release"`
	Namespace string     `json:"namespace"`
	// Values are the vendor's values files, later ones winning.
	Values []ValuesFile `json:"values"`
}

// ValuesFile is a values file, carried as a blob.
type ValuesFile struct {
	Name   string `json:"name"`
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
}

// Blob is content that the bundle carries.
type Blob struct {
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
	MediaType string `json:"mediaType"`
	// Encoding says how the blob's entry holds it.
	Encoding string `json:"encoding"`
}

// Entry is a file inside the bundle's tar, after sealift.json and the signature slots.
type Entry struct {
	Name string `json:"name"`
	Size int64  `json:"size"`
	// SHA256 is the lower-case hex digest of the entry's bytes.
	SHA256 string `json:"sha256"`
}

// Digest is the identity of the bundle whose sealift.json is raw: independent of signatures.
func Digest(raw []byte) string {
	sum := sha256.Sum256(raw)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Media types of the blobs that Sealift itself makes.
const (
	MediaTypeValues      = "application/vnd.sealift.values.v1+yaml"
	MediaTypeTrustedRoot = "application/vnd.dev.sigstore.trustedroot+json"
)
