package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/sealift/sealift/manifest"
)

// Files of an OCI image layout (OCI image spec 1.1, "image layout").
const (
	layoutFile = "oci-layout"
	indexFile  = "index.json"
)

// Annotations that name the images of a layout: the specification's, which is a reference or only
// a tag, and containerd's.
const (
	annotationRefName   = "org.opencontainers.image.ref.name"
	annotationImageName = "io.containerd.image.name"
)

// annotationKind is how "cosign save" marks what is about the image of a layout, cosignEndings are
// the marks with the endings of the tags that the same has in registries.
const annotationKind = "kind"

var cosignEndings = map[string]string{
	"dev.cosignproject.cosign/sigs": ".sig",
	"dev.cosignproject.cosign/atts": ".att",
}

// maxLayoutFile bounds the file oci-layout, in bytes.
const maxLayoutFile = 4 << 10

func (l *Local) loadLayout() error {
	raw, err := readFile(l.files, layoutFile, maxLayoutFile)
	if err != nil {
		return err
	}
	var doc struct {
		Version string `json:"imageLayoutVersion"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return fmt.Errorf("parsing %s: %w", layoutFile, err)
	}
	if !strings.HasPrefix(doc.Version, "1.") {
		return fmt.Errorf("image layout version %q: %w", doc.Version, ErrUnsupported)
	}
	if raw, err = readFile(l.files, indexFile, manifest.MaxOCIManifestBytes); err != nil {
		return err
	}
	list, err := parseList(raw, indexFile)
	if err != nil {
		return err
	}
	for _, d := range list {
		if cosignEndings[d.Annotations[annotationKind]] == "" {
			l.addListed(d)
		}
	}
	// "cosign save" writes one image and what is about it.
	if len(l.images) != 1 {
		return nil
	}
	for _, d := range list {
		if ending := cosignEndings[d.Annotations[annotationKind]]; ending != "" {
			l.tags[manifest.ReferrerTag(l.images[0].Digest, ending)] = d
		}
	}
	return nil
}

// addListed takes in a manifest of the layout's index: an image, or what is about one.
func (l *Local) addListed(d Listed) {
	refName := d.Annotations[annotationRefName]
	if tag := tagOf(refName); madeFromDigest(tag) {
		l.tags[tag] = d
		return
	}
	// What cannot be read is told when it is asked for.
	if raw, err := l.read(d.Digest, manifest.MaxOCIManifestBytes); err == nil {
		var doc struct {
			ArtifactType string            `json:"artifactType"`
			Annotations  map[string]string `json:"annotations"`
			Subject      *struct {
				Digest string `json:"digest"`
			} `json:"subject"`
		}
		if json.Unmarshal(raw, &doc) == nil && doc.Subject != nil && manifest.CheckDigest(doc.Subject.Digest) == nil {
			about := doc.Subject.Digest
			l.referrers[about] = append(l.referrers[about], Listed{d.Descriptor, ArtifactType(raw), doc.Annotations})
			return
		}
	}
	img := localImage{Listed: d}
	img.name(d.Annotations[annotationImageName])
	img.name(refName)
	l.images = append(l.images, img)
}

// tagOf is the tag of a name, which is a reference or a tag.
func tagOf(name string) string {
	return name[strings.LastIndexAny(name, ":/")+1:]
}

// madeFromDigest reports whether a tag is made from the digest of what it is about, by cosign or in
// place of the Referrers API.
func madeFromDigest(tag string) bool {
	tag, _, _ = strings.Cut(tag, ".")
	algorithm, hex, ok := strings.Cut(tag, "-")
	return ok && algorithm == "sha256" && manifest.CheckDigest(algorithm+":"+hex) == nil
}

// complete reports whether all that the layout names is here, but for the platforms that an index
// does without, if it has any at all.
func (l *Local) complete() bool {
	for _, img := range l.images {
		if !l.hasAll(img.Digest, true) {
			return false
		}
	}
	return len(l.images) > 0
}

func (l *Local) hasAll(digest string, deeper bool) bool {
	c, err := l.manifest(digest)
	if err != nil {
		return false
	}
	if !IsIndex(c.MediaType) {
		img, err := ParseImage(c.Raw)
		if err != nil {
			return false
		}
		for _, d := range append(img.Layers, img.Config) {
			if size, ok := l.blobSize(d.Digest); !ok || size != d.Size {
				return false
			}
		}
		return true
	}
	children, err := ParseIndex(c.Raw)
	if err != nil || !deeper {
		return false
	}
	for _, child := range children {
		if child.Platform != UnknownPlatform && l.hasAll(child.Digest, false) {
			return true
		}
	}
	return false
}

// readFile reads a small file.
func readFile(f files, name string, limit int64) (raw []byte, err error) {
	r, err := f.open(name, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return readLimited(r, limit)
}
