package publish

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/sigstore"
	"github.com/sealift/sealift/manifest"
)

// Words of the form, version 1 (docs/publish.md).
const (
	// ArtifactType marks a bundle: a manifest, or an index of parts.
	ArtifactType = "application/vnd.sealift.bundle.v1"
	// partType marks the manifests below an index.
	partType = "application/vnd.sealift.bundle.part.v1"

	mediaTypeSlots    = "application/vnd.sealift.slots.v1"
	mediaTypeChecks   = "application/vnd.sealift.checks.v1"
	mediaTypeEntry    = "application/vnd.sealift.entry.v1"
	mediaTypeDetached = "application/vnd.dev.sigstore.bundle.v0.3+json"

	mediaTypeManifest = "application/vnd.oci.image.manifest.v1+json"
	mediaTypeIndex    = "application/vnd.oci.image.index.v1+json"
	mediaTypeEmpty    = "application/vnd.oci.empty.v1+json"

	annotationTitle   = "org.opencontainers.image.title"
	annotationVersion = "org.opencontainers.image.version"
	annotationCreated = "org.opencontainers.image.created"
	// annotationHead is the member head of the bundle's manifest.
	annotationHead = "dev.sealift.head"

	// titleSlots is what tools call the slots that write layers to files: without skippable frames
	// they are a tar of the signatures.
	titleSlots = "signatures.tar.zst"
)

// emptyConfig is the configuration of artifacts that have none (OCI image spec 1.1).
const emptyConfig = "{}"

const (
	// maxLayers is how many layers one manifest names: less than registries are known to take (ECR
	// 4,200), in 1.2 MB of the 4 MiB that they have to take.
	maxLayers = 4000
	// maxParts bounds the parts of a bundle; those of 65,536 entries are 17.
	maxParts = 64
	// maxDetached is how many signatures beside a bundle travel: as many as are read.
	maxDetached = 64
	// mostLayers is how many layers a bundle has, in all parts together, at most: its manifest, its
	// slots, its check table, signatures and entries.
	mostLayers = 3 + maxDetached + manifest.MaxEntries
	maxSlots   = archive.SlotsSize
	schema     = 2
)

// FormError says that what a registry has is marked as a bundle, and is none.
type FormError struct {
	// Reference is where it is.
	Reference string
	Err       error
}

// Error names the place.
func (e *FormError) Error() string {
	return fmt.Sprintf("%s is marked as a bundle, and is none: %v", e.Reference, e.Err)
}

// Unwrap returns what is wrong.
func (e *FormError) Unwrap() error { return e.Err }

// NotBundleError says that a reference leads to something else than a bundle.
type NotBundleError struct {
	Reference string
	// Type is what it says that it is: an artifact type, or else a media type.
	Type string
}

// Error names what it is.
func (e *NotBundleError) Error() string {
	return fmt.Sprintf("%s is not a bundle, but a %q", e.Reference, e.Type)
}

// descriptor is that of the OCI image spec, as far as it is used here.
type descriptor struct {
	MediaType    string            `json:"mediaType"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Digest       string            `json:"digest"`
	Size         int64             `json:"size"`
	Annotations  map[string]string `json:"annotations,omitempty"`
}

// document is an image manifest or an index.
type document struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	ArtifactType  string            `json:"artifactType"`
	Config        *descriptor       `json:"config,omitempty"`
	Layers        []descriptor      `json:"layers,omitempty"`
	Manifests     []descriptor      `json:"manifests,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

// artifact is a bundle as a registry has it.
type artifact struct {
	// fileName, version and created are for people; head is that of the bundle's manifest.
	fileName, version, created string
	head                       int64
	manifest, slots, checks    manifest.Descriptor
	detached                   []manifest.Descriptor
	entries                    []manifest.Entry
}

func layer(d manifest.Descriptor, title string) descriptor {
	l := descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
	if title != "" {
		l.Annotations = map[string]string{annotationTitle: title}
	}
	return l
}

// layers are all that the bundle is made of, in their order.
func (a *artifact) layers() []descriptor {
	all := []descriptor{layer(a.manifest, manifest.EntryManifest), layer(a.slots, titleSlots), layer(a.checks, "")}
	for i, d := range a.detached {
		all = append(all, layer(d, archive.DetachedName(manifest.EntryManifest, i+1)))
	}
	for _, e := range a.entries {
		all = append(all, layer(manifest.Descriptor{MediaType: mediaTypeEntry, Digest: "sha256:" + e.SHA256, Size: e.Size}, e.Name))
	}
	return all
}

// encode returns the document that the tag leads to, and those below it: none where all layers go
// into one manifest, which has at most most of them. The same bundle gives the same bytes.
func (a *artifact) encode(most int) (top *oci.Content, parts []*oci.Content, err error) {
	annotations := map[string]string{annotationTitle: a.fileName, annotationVersion: a.version, annotationCreated: a.created}
	if a.head != 0 {
		annotations[annotationHead] = strconv.FormatInt(a.head, 10)
	}
	config := layer(manifest.Descriptor{MediaType: mediaTypeEmpty, Digest: manifest.Digest([]byte(emptyConfig)), Size: int64(len(emptyConfig))}, "")
	all := a.layers()
	if len(all) <= most {
		top, err = content(&document{MediaType: mediaTypeManifest, ArtifactType: ArtifactType, Config: &config, Layers: all, Annotations: annotations})
		return top, nil, err
	}
	index := &document{MediaType: mediaTypeIndex, ArtifactType: ArtifactType, Annotations: annotations}
	for len(all) > 0 {
		n := min(most, len(all))
		part, err := content(&document{MediaType: mediaTypeManifest, ArtifactType: partType, Config: &config, Layers: all[:n]})
		if err != nil {
			return nil, nil, err
		}
		all = all[n:]
		parts = append(parts, part)
		d := layer(part.Descriptor, "")
		d.ArtifactType = partType
		index.Manifests = append(index.Manifests, d)
	}
	top, err = content(index)
	return top, parts, err
}

func content(d *document) (*oci.Content, error) {
	d.SchemaVersion = schema
	raw, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("describing the bundle to the registry: %w", err)
	}
	return &oci.Content{Descriptor: manifest.Descriptor{Digest: manifest.Digest(raw), MediaType: d.MediaType, Size: int64(len(raw))}, Raw: raw}, nil
}

// parseDocument reads a manifest or an index. What it is, its caller looks at.
func parseDocument(raw []byte) (*document, error) {
	var d document
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, fmt.Errorf("parsing it: %w", err)
	}
	if d.SchemaVersion != schema {
		return nil, fmt.Errorf("schema version %d, want %d", d.SchemaVersion, schema)
	}
	return &d, nil
}

// kind is what the document says that it is.
func (d *document) kind() string {
	switch {
	case d.ArtifactType != "":
		return d.ArtifactType
	case d.Config != nil && d.Config.MediaType != "" && d.MediaType == mediaTypeManifest:
		return d.Config.MediaType
	}
	return d.MediaType
}

// partsOf lists the manifests below an index, none for a manifest that has all layers itself.
func (d *document) partsOf() ([]manifest.Descriptor, error) {
	switch {
	case d.MediaType == mediaTypeManifest && len(d.Manifests) == 0:
		return nil, nil
	case d.MediaType != mediaTypeIndex:
		return nil, fmt.Errorf("it is a %q", d.MediaType)
	case len(d.Manifests) == 0 || len(d.Manifests) > maxParts || len(d.Layers) > 0:
		return nil, fmt.Errorf("%d parts and %d layers, 1 to %d parts are allowed", len(d.Manifests), len(d.Layers), maxParts)
	}
	var parts []manifest.Descriptor
	for i, m := range d.Manifests {
		p, err := m.check(mediaTypeManifest, manifest.MaxOCIManifestBytes)
		if err != nil {
			return nil, fmt.Errorf("part %d: %w", i+1, err)
		}
		if slices.Contains(parts, p) {
			return nil, fmt.Errorf("part %d: %s is named twice", i+1, p.Digest)
		}
		parts = append(parts, p)
	}
	return parts, nil
}

// check checks a descriptor, which has to be of this media type and no larger than limit.
func (d *descriptor) check(mediaType string, limit int64) (manifest.Descriptor, error) {
	out := manifest.Descriptor{Digest: d.Digest, MediaType: d.MediaType, Size: d.Size}
	if d.MediaType != mediaType {
		return out, fmt.Errorf("media type %q, want %q", d.MediaType, mediaType)
	}
	if err := manifest.CheckDigest(d.Digest); err != nil {
		return out, err
	}
	if d.Size < 0 || d.Size > limit {
		return out, fmt.Errorf("%d bytes, at most %d are allowed", d.Size, limit)
	}
	return out, nil
}

// parse reads a bundle from the document that the tag leads to and the layers of all parts.
func parse(top *document, layers []descriptor) (*artifact, error) {
	a := &artifact{fileName: top.Annotations[annotationTitle], version: top.Annotations[annotationVersion], created: top.Annotations[annotationCreated]}
	if text := top.Annotations[annotationHead]; text != "" {
		var err error
		if a.head, err = strconv.ParseInt(text, 10, 64); err != nil || strconv.FormatInt(a.head, 10) != text || a.head <= 0 {
			return nil, fmt.Errorf("annotation %s: %q is not a size", annotationHead, text)
		}
	}
	next := func(what, mediaType string, limit int64) (d manifest.Descriptor, err error) {
		if len(layers) == 0 {
			return d, fmt.Errorf("there is no layer with %s", what)
		}
		if d, err = layers[0].check(mediaType, limit); err != nil {
			return d, fmt.Errorf("layer with %s: %w", what, err)
		}
		layers = layers[1:]
		return d, nil
	}
	var err error
	if a.manifest, err = next("the manifest", manifest.MediaType, manifest.MaxManifestBytes); err != nil {
		return nil, err
	}
	if a.slots, err = next("the signature slots", mediaTypeSlots, maxSlots); err != nil {
		return nil, err
	}
	if a.checks, err = next("the check table", mediaTypeChecks, archive.MaxChecks); err != nil {
		return nil, err
	}
	for len(layers) > 0 && layers[0].MediaType == mediaTypeDetached {
		d, err := next("a signature", mediaTypeDetached, sigstore.MaxSignatureBytes)
		if err != nil {
			return nil, err
		}
		if a.detached = append(a.detached, d); len(a.detached) > maxDetached {
			return nil, fmt.Errorf("more than %d signatures beside the bundle", maxDetached)
		}
	}
	if len(layers) > manifest.MaxEntries {
		return nil, fmt.Errorf("%d entries, at most %d are allowed", len(layers), manifest.MaxEntries)
	}
	for i := range layers {
		d, err := layers[i].check(mediaTypeEntry, manifest.MaxEntryBytes)
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", i+1, err)
		}
		a.entries = append(a.entries, manifest.Entry{Name: layers[i].Annotations[annotationTitle], Size: d.Size, SHA256: d.Digest[len("sha256:"):]})
	}
	return a, nil
}
