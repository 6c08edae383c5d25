package manifest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// Names of the entries that are not blobs.
const (
	// EntryManifest is the manifest itself. It lies at a fixed place and is not listed.
	EntryManifest  = "sealift.json"
	EntryOCILayout = "oci-layout"
	EntryIndex     = "index.json"
	// BlobPrefix is followed by 64 hex digits.
	BlobPrefix = "blobs/sha256/"
)

// Annotations that index.json carries.
const (
	annotationRefName = "org.opencontainers.image.ref.name"
	// AnnotationDerivedFrom marks a derived index with the digest of the original one.
	AnnotationDerivedFrom = "dev.sealift.derived-from"
	// AnnotationSubject marks a referrer that has no tag with the digest of what it is about.
	AnnotationSubject = "dev.sealift.subject"
)

// OCILayout is the content of the entry oci-layout (OCI image-layout 1.0.0).
func OCILayout() []byte { return []byte(`{"imageLayoutVersion":"1.0.0"}`) }

type indexDescriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations"`
}

type index struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	Manifests     []indexDescriptor `json:"manifests"`
}

// OCIIndex returns the content of the entry index.json, which makes the tar an OCI image
// layout: every image and artifact by its source reference, derived indexes, what is about them, and
// charts as charts/NAME:VERSION. It is a pure function of m, so that nothing in a bundle says twice,
// and possibly otherwise, what the manifest says.
func OCIIndex(m *Manifest) ([]byte, error) {
	idx := index{SchemaVersion: 2, MediaType: "application/vnd.oci.image.index.v1+json", Manifests: []indexDescriptor{}}
	for _, images := range [][]Image{m.Images, m.Artifacts} {
		for i := range images {
			idx.Manifests = append(idx.Manifests, images[i].indexed()...)
		}
	}
	idx.Manifests = append(idx.Manifests, referrers(m)...)
	for i := range m.Charts {
		c := &m.Charts[i]
		idx.Manifests = append(idx.Manifests, indexDescriptor{
			MediaType: c.Manifest.MediaType, Digest: c.Manifest.Digest, Size: c.Manifest.Size,
			Annotations: map[string]string{annotationRefName: chartRepository + c.Name + ":" + c.Version},
		})
	}
	raw, err := marshal(idx)
	if err != nil {
		return nil, fmt.Errorf("encoding index.json: %w", err)
	}
	return raw, nil
}

// indexed is what index.json has of an image itself.
func (img *Image) indexed() []indexDescriptor {
	list := []indexDescriptor{{
		MediaType: img.MediaType, Digest: img.Digest, Size: img.Size,
		Annotations: map[string]string{annotationRefName: img.Source},
	}}
	if d := img.Derived; d != nil {
		list = append(list, indexDescriptor{
			MediaType: d.MediaType, Digest: d.Digest, Size: d.Size,
			Annotations: map[string]string{AnnotationDerivedFrom: img.Digest},
		})
	}
	return list
}

// chartRepository begins the names of charts in index.json.
const chartRepository = "charts/"

// referrers lists what is about images, artifacts and charts, each once, by its tag or by its subject.
func referrers(m *Manifest) []indexDescriptor {
	var all []indexDescriptor
	seen := map[string]bool{}
	add := func(repository string, referrers []Referrer) {
		for _, r := range referrers {
			d := indexDescriptor{MediaType: r.MediaType, Digest: r.Digest, Size: r.Size, Annotations: map[string]string{AnnotationSubject: r.Subject}}
			if r.Tag != "" {
				d.Annotations = map[string]string{annotationRefName: repository + ":" + r.Tag}
			}
			key := r.Digest + " " + d.Annotations[annotationRefName] + " " + d.Annotations[AnnotationSubject]
			if !seen[key] {
				seen[key] = true
				all = append(all, d)
			}
		}
	}
	for _, images := range [][]Image{m.Images, m.Artifacts} {
		for i := range images {
			repository, _, _ := SplitSource(images[i].Source)
			add(repository, images[i].Referrers)
		}
	}
	for i := range m.Charts {
		add(chartRepository+m.Charts[i].Name, m.Charts[i].Referrers)
	}
	return all
}

// EntryFor returns the entry that holds content under name.
func EntryFor(name string, content []byte) Entry {
	sum := sha256.Sum256(content)
	return Entry{Name: name, Size: int64(len(content)), SHA256: hex.EncodeToString(sum[:])}
}

// ZstdSuffix ends the name of an entry that holds a blob compressed with zstd: unzstd takes it
// off again, and what it leaves is the blob under its own name.
const ZstdSuffix = ".zst"

// BlobEntryName is the name of the entry that holds b.
func BlobEntryName(b Blob) string {
	name := BlobPrefix + b.Digest[len("sha256:"):]
	if b.Encoding == EncodingZstd {
		name += ZstdSuffix
	}
	return name
}

// Arrange sets m.Entries from the rest of m: oci-layout, index.json, then the blobs in the
// order of m.Blobs. What the entries of encoded blobs hold does not follow from m: encoded
// names it by the digests of the blobs.
func Arrange(m *Manifest, encoded map[string]Entry) error {
	idx, err := OCIIndex(m)
	if err != nil {
		return err
	}
	m.Entries = []Entry{EntryFor(EntryOCILayout, OCILayout()), EntryFor(EntryIndex, idx)}
	for _, b := range m.Blobs {
		e := Entry{Name: BlobEntryName(b), Size: b.Size, SHA256: b.Digest[len("sha256:"):]}
		if b.Encoding != EncodingStored {
			e.Size, e.SHA256 = encoded[b.Digest].Size, encoded[b.Digest].SHA256
		}
		m.Entries = append(m.Entries, e)
	}
	return nil
}
