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
	"strings"
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
	// MaxFrontBytes bounds the YAML of the object of a front.
	MaxFrontBytes = 64 << 10
	// MaxNotesBytes bounds release notes, MaxJobBytes the YAML of a health check.
	MaxNotesBytes = 1 << 20
	MaxJobBytes   = 1 << 20
	// MaxProvenanceBytes bounds the provenance file of a chart.
	MaxProvenanceBytes = 1 << 20
	// MaxFiles, MaxParameters, MaxIgnored and MaxReasons bound what their names say; reasons are those of one image.
	MaxFiles      = 32768
	MaxParameters = 256
	MaxIgnored    = 4096
	MaxReasons    = 4096
	// MaxTextBytes bounds a text that people are shown, MaxFileNameBytes the name of a File and
	// MaxFileNamePart each part of it between slashes.
	MaxTextBytes     = 1024
	MaxFileNameBytes = 1024
	MaxFileNamePart  = 255
	// MaxPathKeys bounds the keys in the path of a value.
	MaxPathKeys = 32
	// MaxRegistryValues and MaxChecks are those of one chart, MaxCheckSeconds what one check may take.
	MaxRegistryValues = 256
	MaxChecks         = 64
	MaxCheckSeconds   = 24 * 60 * 60
	// MaxRangeBytes bounds a range of versions, MaxRequired each list of Requires.
	MaxRangeBytes = 256
	MaxRequired   = 64
	// MaxEnum and MaxParameterValues are those of one parameter, MaxPatternBytes bounds its pattern.
	MaxEnum            = 256
	MaxParameterValues = 256
	MaxPatternBytes    = 1024
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
	// Artifacts are what registries hold beside images: models, WASM modules, policies, SBOMs.
	Artifacts []Image `json:"artifacts,omitempty"`
	// Ignored are images that the content names and that the vendor left out.
	Ignored []IgnoredImage `json:"ignored,omitempty"`
	// Charts are in the order in which they are installed.
	Charts []Chart `json:"charts"`
	// Files are what else the site needs.
	Files []File `json:"files,omitempty"`
	// Notes are the release notes, in Markdown.
	Notes *Descriptor `json:"notes,omitempty"`
	// Requires is what the cluster must offer, and what must have been installed before.
	Requires *Requires `json:"requires,omitempty"`
	// Parameters are what the site may, or must, say.
	Parameters []Parameter `json:"parameters,omitempty"`
	Blobs      []Blob      `json:"blobs"`
	Entries    []Entry     `json:"entries"`
}

// Descriptor names content by digest, with its media type and size, as in the OCI image spec.
type Descriptor struct {
	Digest    string `json:"digest"`
	MediaType string `json:"mediaType"`
	Size      int64  `json:"size"`
}

// Image is one image reference and what travels for it; or an artifact that is no image.
type Image struct {
	// Source is the fully qualified reference under which the image was asked for.
	Source string `json:"source"`
	// ArtifactType says what an artifact is; images have none (OCI image spec 1.1, "artifacts").
	ArtifactType string `json:"artifactType,omitempty"`
	// Digest, MediaType and Size describe what the reference resolves to: an image manifest
	// or an index.
	Digest    string `json:"digest"`
	MediaType string `json:"mediaType"`
	Size      int64  `json:"size"`
	// Platforms that travel, as "os/arch[/variant]". Artifacts have none.
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

// Probable is the confidence of what only may be an image. Without a word it is certain.
const Probable = "probable"

// Reason says why an image is in a bundle: where it is named, in which way, and how sure that is.
type Reason struct {
	Kind string `json:"kind"`
	// Chart, Object and Path say where a chart names the image. Where no object does, Path is that
	// within a file of the chart, and Object is the file.
	Chart  string `json:"chart,omitempty"`
	Object string `json:"object,omitempty"`
	Path   string `json:"path,omitempty"`
	// Way is how the place names an image, such as "container" or "argument"; see
	// docs/image-discovery.md. Empty for the spec.
	Way string `json:"way,omitempty"`
	// Confidence is Probable, or empty for certain.
	Confidence string `json:"confidence,omitempty"`
	// Variant is the values file under renderWith that makes the chart use it, where the
	// vendor's own values do not.
	Variant string `json:"variant,omitempty"`
	// Pattern is what in the spec included it, where it is only probable.
	Pattern string `json:"pattern,omitempty"`
}

// IgnoredImage is an image that the content names and that does not travel, because the spec says so.
type IgnoredImage struct {
	// Reference is fully qualified, as the Source of an Image.
	Reference string `json:"reference"`
	// Pattern is what in the spec left it out, Why its author's words about that.
	Pattern string   `json:"pattern"`
	Why     string   `json:"why,omitempty"`
	Reasons []Reason `json:"reasons"`
}

// Chart is a Helm chart and the release that an install makes of it.
type Chart struct {
	Name       string `json:"name"`
	Version    string `json:"version"`
	AppVersion string `json:"appVersion,omitempty"`
	// Source is where a chart came from that was not a file: "oci://REGISTRY/REPOSITORY:TAG" or
	// "https://REPOSITORY NAME".
	Source string `json:"source,omitempty"`
	// Plain says that it was made of plain Kubernetes objects when the bundle was packed.
	Plain bool `json:"plain,omitempty"`
	// Manifest is the OCI artifact manifest around the archive: that of the registry that the
	// chart came from, else as Helm pushes it.
	Manifest Descriptor `json:"manifest"`
	// Archive is the chart's .tgz.
	Archive Descriptor `json:"archive"`
	// Provenance is the chart's provenance file, where there is one, and SignedBy the fingerprint
	// of the OpenPGP key that it was proven with, in upper-case hex, where that was demanded.
	Provenance *Descriptor `json:"provenance,omitempty"`
	SignedBy   string      `json:"signedBy,omitempty"`
	// Referrers are the signatures and other artifacts about Manifest.
	Referrers []Referrer `json:"referrers,omitempty"`
	Release   string     `json:"release"`
	Namespace string     `json:"namespace"`
	// DependsOn are releases of the bundle, as "NAMESPACE/RELEASE", that stand before this one.
	DependsOn []string `json:"dependsOn,omitempty"`
	// Values are the vendor's values files, later ones winning.
	Values []ValuesFile `json:"values"`
	// Environments are values for kinds of sites, of which a site may choose one.
	Environments []Environment `json:"environments,omitempty"`
	// RegistryValues are values that receive the site's registry.
	RegistryValues []RegistryValue `json:"registryValues,omitempty"`
	// Rollback is RollbackSafe, RollbackManual or RollbackForbidden; empty where the vendor said
	// nothing.
	Rollback string `json:"rollback,omitempty"`
	// Rollout is how a new version replaces the old one; nil for in place.
	Rollout *Rollout `json:"rollout,omitempty"`
	// Checks decide, besides the readiness of its objects, whether the release works.
	Checks []Check `json:"checks,omitempty"`
}

// Whether a release may go back to an earlier version.
const (
	// RollbackSafe: its hooks and migrations can be undone, or need not be.
	RollbackSafe = "safe"
	// RollbackManual: somebody has to do something first, which the notes tell.
	RollbackManual = "manual"
	// RollbackForbidden: there is no way back.
	RollbackForbidden = "forbidden"
)

// What a RegistryValue receives, for the registry "HOST[:PORT]/PREFIX".
const (
	// RegistryWhole is HOST[:PORT][/PREFIX].
	RegistryWhole = "registry"
	// RegistryHost is HOST[:PORT].
	RegistryHost = "host"
	// RegistryPrefix is PREFIX, which may be empty.
	RegistryPrefix = "prefix"
)

// RegistryValue is a value of a chart that receives the site's registry, for charts that make
// references from parts.
type RegistryValue struct {
	// Path of the value, as "global.imageRegistry": see CheckValuePath.
	Path string `json:"path"`
	// Gets is RegistryWhole, RegistryHost or RegistryPrefix.
	Gets string `json:"gets"`
}

// Value is what v receives for the registry host, below which images are at prefix; that may be empty.
func (v RegistryValue) Value(host, prefix string) string {
	switch v.Gets {
	case RegistryHost:
		return host
	case RegistryPrefix:
		return prefix
	}
	return strings.TrimSuffix(host+"/"+prefix, "/")
}

// Strategies of a Rollout.
const (
	RolloutBlueGreen = "blueGreen"
	RolloutCanary    = "canary"
)

// MaxShareByPods is the largest share, in percent, of a canary whose front is a Service: it is made of pods, and needs
// three times those of the old version at 75.
const MaxShareByPods = 75

// Rollout is how a new version of a release takes over.
type Rollout struct {
	Strategy string `json:"strategy"`
	// Front is the object that leads to the release, and that Sealift switches.
	Front Front `json:"front"`
	// Steps are the shares of a canary, in percent, rising, each below 100.
	Steps []int `json:"steps,omitempty"`
}

// Colours are the names under which Helm has a release with a Rollout, in turn.
func Colours(release string) (blue, green string) { return release + "-blue", release + "-green" }

// Kinds of a Front.
const (
	FrontService   = "Service"
	FrontHTTPRoute = "HTTPRoute"
)

// Front is a Service or an HTTPRoute in the namespace of the release.
type Front struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	// Service is the name of the chart's Service to which it leads, in which * stands for the name that Helm has the
	// release under. Empty for the only one that the chart has; packing fills it in.
	Service string `json:"service,omitempty"`
	// Object is a blob with the YAML of one HTTPRoute, from which the front is made where a site has none; nil for
	// one that the site makes itself.
	Object *Descriptor `json:"object,omitempty"`
}

// Check is one health check; exactly one of HTTP, TCP and Job is set.
type Check struct {
	Name string     `json:"name"`
	HTTP *CheckHTTP `json:"http,omitempty"`
	TCP  *CheckTCP  `json:"tcp,omitempty"`
	// Job is a blob with the YAML of one Job, which has to succeed.
	Job *Descriptor `json:"job,omitempty"`
	// Seconds is how long it may take until it succeeds; 0 for the command's own time-out.
	Seconds int `json:"seconds,omitempty"`
}

// CheckHTTP asks a Service of the release's namespace.
type CheckHTTP struct {
	Service string `json:"service"`
	Port    int    `json:"port"`
	Path    string `json:"path"`
	// Status that is expected; 0 for any from 200 to 299.
	Status int  `json:"status,omitempty"`
	TLS    bool `json:"tls,omitempty"`
}

// CheckTCP connects to a Service of the release's namespace.
type CheckTCP struct {
	Service string `json:"service"`
	Port    int    `json:"port"`
}

// File is a file that travels.
type File struct {
	// Name is a relative path with slashes, without . and .. elements: see CheckFileName.
	Name   string `json:"name"`
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
	// Executable says that it is a program.
	Executable bool `json:"executable,omitempty"`
}

// Requires is what a bundle needs at the site. Ranges are those of Helm, as ">=1.30 <1.36".
type Requires struct {
	// Kubernetes is a range of versions.
	Kubernetes string `json:"kubernetes,omitempty"`
	// UpgradeFrom is the range of versions of this bundle that it can replace. A first install is
	// always possible.
	UpgradeFrom string `json:"upgradeFrom,omitempty"`
	// CPU and Memory are what all nodes together must offer, as Kubernetes quantities.
	CPU    string `json:"cpu,omitempty"`
	Memory string `json:"memory,omitempty"`
	// Architectures: nodes of at least one of them must be there.
	Architectures []string `json:"architectures,omitempty"`
	// StorageClasses must be there. "*" stands for a default one.
	StorageClasses []string `json:"storageClasses,omitempty"`
	// APIGroups must be served, as "GROUP", "GROUP/VERSION" or "GROUP/VERSION/KIND".
	APIGroups []string `json:"apiGroups,omitempty"`
}

// Types of parameters.
const (
	ParameterString  = "string"
	ParameterInteger = "integer"
	ParameterNumber  = "number"
	ParameterBoolean = "boolean"
)

// Parameter is something that a site says when it installs.
type Parameter struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	// Type is ParameterString, ParameterInteger, ParameterNumber or ParameterBoolean.
	Type string `json:"type"`
	// Default is the text of the value where the site says nothing; nil for none.
	Default  *string `json:"default,omitempty"`
	Required bool    `json:"required,omitempty"`
	// Secret values are never shown, nor written down.
	Secret bool `json:"secret,omitempty"`
	// Pattern is a regular expression (RE2) for the whole text of a string.
	Pattern string `json:"pattern,omitempty"`
	// Enum lists what is allowed; empty for anything.
	Enum []string `json:"enum,omitempty"`
	// Values are the chart values that receive it.
	Values []ParameterValue `json:"values"`
}

// ParameterValue is a value of a release that receives a parameter.
type ParameterValue struct {
	// Release is "NAMESPACE/RELEASE".
	Release string `json:"release"`
	// Path of the value, as "ingress.host": see CheckValuePath.
	Path string `json:"path"`
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

// AllImages are the images and the artifacts, in this order.
func (m *Manifest) AllImages() []*Image {
	all := make([]*Image, 0, len(m.Images)+len(m.Artifacts))
	for i := range m.Images {
		all = append(all, &m.Images[i])
	}
	for i := range m.Artifacts {
		all = append(all, &m.Artifacts[i])
	}
	return all
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
	// MediaTypeProvenance is what Helm calls a chart's provenance file in registries.
	MediaTypeProvenance = "application/vnd.cncf.helm.chart.provenance.v1.prov"
	// MediaTypeFile is that of files, whatever they hold.
	MediaTypeFile  = "application/vnd.sealift.file.v1"
	MediaTypeNotes = "text/markdown"
	// MediaTypeObjects is that of Kubernetes objects as YAML.
	MediaTypeObjects = "application/vnd.sealift.objects.v1+yaml"
)
