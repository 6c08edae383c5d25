package verify_test

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/sigstore"
	"github.com/sealift/sealift/manifest"
)

// image is what some tests take for an image manifest: nothing here looks into it.
var image = []byte(`{"schemaVersion":2}`)

const imageType = "application/vnd.oci.image.manifest.v1+json"

// packed is a bundle of any blobs, of which some are encoded.
type packed struct {
	m     *manifest.Manifest
	blobs [][]byte
	path  string
	raw   []byte
}

// newPacked is a bundle of these blobs. Where image is among them, it is one of an image.
func newPacked(blobs ...[]byte) *packed {
	p := &packed{m: &manifest.Manifest{
		MediaType: manifest.MediaType, Format: 1, Name: "t", Version: "1.0.0", Channel: "stable",
		Created: "2026-01-02T03:04:05Z", Platforms: []string{"linux/amd64"},
	}}
	for _, b := range blobs {
		p.add(b)
	}
	return p
}

func (p *packed) add(b []byte) {
	blob := manifest.Blob{Digest: manifest.Digest(b), Size: int64(len(b)), MediaType: "text/plain", Encoding: manifest.EncodingStored}
	if bytes.Equal(b, image) {
		blob.MediaType = imageType
		p.m.Images = append(p.m.Images, manifest.Image{
			Source: "registry.example.com/a/b:1", Digest: blob.Digest, MediaType: imageType, Size: blob.Size,
			Platforms: p.m.Platforms, Reasons: []manifest.Reason{{Kind: manifest.ReasonSpec}},
		})
	}
	p.m.Blobs = append(p.m.Blobs, blob)
	p.blobs = append(p.blobs, b)
}

// encode adds an encoded blob.
func (p *packed) encode(b []byte) {
	p.m.Blobs = append(p.m.Blobs, manifest.Blob{Digest: manifest.Digest(b), Size: int64(len(b)), MediaType: "text/plain", Encoding: manifest.EncodingZstd})
	p.blobs = append(p.blobs, b)
}

// encoded is what the entry of an encoded blob holds: read back from a bundle that holds nothing
// else.
func encoded(t *testing.T, b []byte) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "b")
	w, err := archive.NewWriter(archive.Plan{Path: path, Head: 8192, Size: 1<<20 + archive.EncodedBound(int64(len(b))) + 8192 + archive.SlotsSize})
	if err != nil {
		t.Fatal(err)
	}
	blob := manifest.Blob{Digest: manifest.Digest(b), Size: int64(len(b)), Encoding: manifest.EncodingZstd}
	e, err := w.Encode(context.Background(), blob, bytes.NewReader(b), func(int64) {})
	if err != nil {
		t.Fatal(err)
	}
	l, err := archive.NewLayout(2, 8192, []manifest.Entry{e})
	if err != nil {
		t.Fatal(err)
	}
	finish(t, w, []byte("{}"), l)
	src, err := archive.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = src.Close() }()
	h, err := archive.ReadHead(src)
	if err != nil {
		t.Fatal(err)
	}
	r, err := archive.NewReader(src, h, l)
	if err != nil {
		t.Fatal(err)
	}
	content, err := r.Open(e.Name)
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	var raw bytes.Buffer
	if _, err := raw.ReadFrom(content); err != nil {
		t.Fatal(err)
	}
	return raw.Bytes()
}

// contents are the bytes of all entries. Instead of what an encoded blob has to be, swap may
// give the bytes that the entry holds.
func (p *packed) contents(t *testing.T, swap map[string][]byte) [][]byte {
	t.Helper()
	entries := map[string]manifest.Entry{}
	var contents [][]byte
	for i, b := range p.m.Blobs {
		c := p.blobs[i]
		if b.Encoding != manifest.EncodingStored {
			if c = swap[b.Digest]; c == nil {
				c = encoded(t, p.blobs[i])
			}
			entries[b.Digest] = manifest.EntryFor(manifest.BlobEntryName(b), c)
		}
		contents = append(contents, c)
	}
	idx, err := manifest.OCIIndex(p.m)
	if err != nil {
		t.Fatal(err)
	}
	if err := manifest.Arrange(p.m, entries); err != nil {
		t.Fatal(err)
	}
	return append([][]byte{manifest.OCILayout(), idx}, contents...)
}

// write writes it, in volumes if they have a size.
func (p *packed) write(t *testing.T, volume int64, sign ...*sigstore.Signer) {
	t.Helper()
	p.writeSwapped(t, volume, nil, sign...)
}

func (p *packed) writeSwapped(t *testing.T, volume int64, swap map[string][]byte, sign ...*sigstore.Signer) {
	t.Helper()
	contents := p.contents(t, swap)
	raw, err := manifest.Encode(p.m)
	if err != nil {
		t.Fatal(err)
	}
	p.raw, p.path = raw, filepath.Join(t.TempDir(), "b.tar.zst")
	writeVolumes(t, p.path, volume, raw, p.m.Entries, contents, sign...)
}
