package registry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/registry"
	"github.com/sealift/sealift/internal/sigstore"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// vendor signs the bundles of these tests: a private key takes its time.
var vendor = sync.OnceValues(func() (*sigstore.Signer, error) {
	private, _, err := sigstore.GenerateKeyPair(nil)
	if err != nil {
		return nil, err
	}
	return sigstore.LoadSigner(private, nil)
})

const (
	typeImage  = "application/vnd.oci.image.manifest.v1+json"
	typeIndex  = "application/vnd.oci.image.index.v1+json"
	typeConfig = "application/vnd.oci.image.config.v1+json"
	typeLayer  = "application/vnd.oci.image.layer.v1.tar+gzip"
	typePlain  = "application/vnd.oci.image.layer.v1.tar"
	typeChart  = "application/vnd.cncf.helm.config.v1+json"
)

// maker makes bundles of what tests need.
type maker struct {
	t     testing.TB
	m     *manifest.Manifest
	blobs [][]byte
	path  string
}

func newMaker(t testing.TB, name string) *maker {
	return &maker{t: t, m: &manifest.Manifest{
		MediaType: manifest.MediaType, Format: manifest.Format, Name: name, Version: "1.0.0", Channel: "stable",
		Created: "2026-01-02T03:04:05Z", Platforms: []string{"linux/amd64"},
	}}
}

// descriptor is how OCI documents name content.
type descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       string            `json:"digest"`
	Size         int64             `json:"size"`
	Platform     map[string]string `json:"platform,omitempty"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
}

func describe(mediaType string, raw []byte) descriptor {
	return descriptor{MediaType: mediaType, Digest: manifest.Digest(raw), Size: int64(len(raw))}
}

func (d descriptor) plain() manifest.Descriptor {
	return manifest.Descriptor{Digest: d.Digest, MediaType: d.MediaType, Size: d.Size}
}

// blob adds content, once.
func (k *maker) blob(mediaType string, raw []byte) descriptor {
	d := describe(mediaType, raw)
	for _, b := range k.m.Blobs {
		if b.Digest == d.Digest {
			return d
		}
	}
	encoding := manifest.EncodingStored
	if mediaType == typePlain {
		encoding = manifest.EncodingZstd
	}
	k.m.Blobs = append(k.m.Blobs, manifest.Blob{Digest: d.Digest, Size: d.Size, MediaType: mediaType, Encoding: encoding})
	k.blobs = append(k.blobs, raw)
	return d
}

func (k *maker) document(mediaType string, v any) (descriptor, []byte) {
	raw := encode(k.t, v)
	return k.blob(mediaType, raw), raw
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// oneImage adds the parts of an image for one architecture.
func (k *maker) oneImage(architecture string, layers ...descriptor) (descriptor, []byte) {
	config, _ := k.document(typeConfig, map[string]any{"architecture": architecture, "os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": []string{}}})
	d, raw := k.document(typeImage, map[string]any{"schemaVersion": 2, "mediaType": typeImage, "config": config, "layers": layers})
	d.Platform = map[string]string{"os": "linux", "architecture": architecture}
	return d, raw
}

// image adds an image under a name.
func (k *maker) image(source string, layers ...descriptor) *manifest.Image {
	d, _ := k.oneImage("amd64", layers...)
	return k.named(source, d)
}

func (k *maker) named(source string, d descriptor) *manifest.Image {
	k.m.Images = append(k.m.Images, manifest.Image{
		Source: source, Digest: d.Digest, MediaType: d.MediaType, Size: d.Size, Platforms: k.m.Platforms,
		Reasons: []manifest.Reason{{Kind: manifest.ReasonSpec}},
	})
	return &k.m.Images[len(k.m.Images)-1]
}

// sparse adds an index of which amd64 travels and arm64 does not, and returns the digest of that.
func (k *maker) sparse(source string, layers ...descriptor) (img *manifest.Image, absent string) {
	d, _ := k.oneImage("amd64", layers...)
	other := newMaker(k.t, "other")
	o, _ := other.oneImage("arm64")
	list := func(all ...descriptor) map[string]any {
		return map[string]any{"schemaVersion": 2, "mediaType": typeIndex, "manifests": all}
	}
	original, _ := k.document(typeIndex, list(d, o))
	derived, _ := k.document(typeIndex, list(d))
	img = k.named(source, original)
	plain := derived.plain()
	img.Derived = &plain
	img.Children = []manifest.Child{{Digest: d.Digest, MediaType: d.MediaType, Size: d.Size, Platform: "linux/amd64"}}
	return img, o.Digest
}

// attach adds a referrer of an image that is found by its subject.
func (k *maker) attach(img *manifest.Image, artifactType, text string) descriptor {
	payload := k.blob("text/plain", []byte(text))
	empty := k.blob("application/vnd.oci.empty.v1+json", []byte("{}"))
	note := map[string]string{"org.example.text": text}
	d, _ := k.document(typeImage, map[string]any{
		"schemaVersion": 2, "mediaType": typeImage, "artifactType": artifactType, "config": empty, "layers": []descriptor{payload},
		"subject":     descriptor{MediaType: img.MediaType, Digest: img.Digest, Size: img.Size},
		"annotations": note,
	})
	img.Referrers = append(img.Referrers, manifest.Referrer{Digest: d.Digest, MediaType: d.MediaType, Size: d.Size, Subject: img.Digest, ArtifactType: artifactType})
	d.ArtifactType, d.Annotations = artifactType, note
	return d
}

// cosign adds something under one of cosign's tags.
func (k *maker) cosign(img *manifest.Image, ending, text string) descriptor {
	layer := k.blob("application/vnd.dev.cosign.simplesigning.v1+json", []byte(text))
	layer.Annotations = map[string]string{"dev.cosignproject.cosign/signature": text}
	config, _ := k.document(typeConfig, map[string]any{"architecture": "", "os": "", "rootfs": map[string]any{"type": "layers", "diff_ids": []string{layer.Digest}}})
	d, _ := k.document(typeImage, map[string]any{"schemaVersion": 2, "mediaType": typeImage, "config": config, "layers": []descriptor{layer}})
	img.Referrers = append(img.Referrers, manifest.Referrer{
		Digest: d.Digest, MediaType: d.MediaType, Size: d.Size, Subject: img.Digest, Tag: manifest.ReferrerTag(img.Digest, ending),
	})
	return d
}

func (k *maker) chart(name, version, source string) descriptor {
	config, _ := k.document(typeChart, map[string]any{"name": name, "version": version})
	layer := k.blob("application/vnd.cncf.helm.chart.content.v1.tar+gzip", []byte("the chart "+name+" "+version))
	d, _ := k.document(typeImage, map[string]any{"schemaVersion": 2, "config": config, "layers": []descriptor{layer}})
	k.m.Charts = append(k.m.Charts, manifest.Chart{
		Name: name, Version: version, Source: source, Manifest: d.plain(), Archive: layer.plain(), Release: strings.ToLower(name), Namespace: fmt.Sprintf("ns%d", len(k.m.Charts)),
	})
	return d
}

// write packs and signs it, in volumes if they have a size, and returns its path.
func (k *maker) write(volume int64) string {
	k.t.Helper()
	ctx := context.Background()
	signer, err := vendor()
	if err != nil {
		k.t.Fatal(err)
	}
	dir := k.t.TempDir()
	k.path = filepath.Join(dir, k.m.Name+"-"+k.m.Version+".tar.zst")
	encoded := map[string]manifest.Entry{}
	contents := map[string][]byte{}
	for i, b := range k.m.Blobs {
		contents[b.Digest] = k.blobs[i]
		if b.Encoding == manifest.EncodingZstd {
			encoded[b.Digest], contents[b.Digest] = zstdEntry(k.t, b, k.blobs[i])
		}
	}
	index, err := manifest.OCIIndex(k.m)
	if err != nil {
		k.t.Fatal(err)
	}
	if err := manifest.Arrange(k.m, encoded); err != nil {
		k.t.Fatal(err)
	}
	raw, err := manifest.Encode(k.m)
	if err != nil {
		k.t.Fatal(err)
	}
	all := [][]byte{manifest.OCILayout(), index}
	for _, b := range k.m.Blobs {
		all = append(all, contents[b.Digest])
	}
	layout, err := archive.NewLayout(int64(len(raw)), 0, k.m.Entries)
	if err != nil {
		k.t.Fatal(err)
	}
	w, err := archive.NewWriter(archive.Plan{
		Path: k.path, Volume: volume, Entries: k.m.Entries, Head: layout.Head(), Size: layout.Size(), Journal: archive.NewJournal(volume, raw),
	})
	if err != nil {
		k.t.Fatal(err)
	}
	for i, c := range all {
		if err := w.Entry(i).Fill(ctx, bytes.NewReader(c), func(int64) {}); err != nil {
			k.t.Fatal(err)
		}
	}
	signature, err := signer.Sign(raw)
	if err != nil {
		k.t.Fatal(err)
	}
	if err := w.Seal(ctx, archive.SealOptions{Manifest: raw, Layout: layout, Signatures: [][]byte{signature}, Done: func(int64) {}}); err != nil {
		k.t.Fatal(err)
	}
	if err := w.Publish(); err != nil {
		k.t.Fatal(err)
	}
	return k.path
}

// zstdEntry is what the entry of an encoded blob holds, read back from a bundle with nothing else.
func zstdEntry(t testing.TB, b manifest.Blob, raw []byte) (manifest.Entry, []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "encoded")
	w, err := archive.NewWriter(archive.Plan{Path: path, Head: 8192, Size: 1<<20 + archive.EncodedBound(b.Size) + 8192 + archive.SlotsSize})
	if err != nil {
		t.Fatal(err)
	}
	e, err := w.Encode(context.Background(), b, bytes.NewReader(raw), func(int64) {})
	if err != nil {
		t.Fatal(err)
	}
	layout, err := archive.NewLayout(2, 8192, []manifest.Entry{e})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Seal(context.Background(), archive.SealOptions{Manifest: []byte("{}"), Layout: layout, Done: func(int64) {}}); err != nil {
		t.Fatal(err)
	}
	if err := w.Publish(); err != nil {
		t.Fatal(err)
	}
	src, err := archive.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	head, err := archive.ReadHead(src)
	if err != nil {
		t.Fatal(err)
	}
	r, err := archive.NewReader(src, head, layout)
	if err != nil {
		t.Fatal(err)
	}
	content, err := r.Open(e.Name)
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	var buf bytes.Buffer
	if _, err := buf.ReadFrom(content); err != nil {
		t.Fatal(err)
	}
	return e, buf.Bytes()
}

func openBundle(t testing.TB, path string) *verify.Bundle {
	t.Helper()
	signer, err := vendor()
	if err != nil {
		t.Fatal(err)
	}
	found, err := verify.Find([]string{path})
	if err != nil {
		t.Fatal(err)
	}
	b, err := verify.Open(context.Background(), found[0], verify.Policy{Keys: []sigstore.PublicKey{signer.PublicKey()}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// inPlace serves bundles and returns the address, and what serves them.
func inPlace(t testing.TB, o registry.BundlesOptions, paths ...string) (string, *registry.Bundles) {
	t.Helper()
	var all []*verify.Bundle
	for _, p := range paths {
		all = append(all, openBundle(t, p))
	}
	s, err := registry.NewBundles(all, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://"), s
}

// response is what is looked at of an answer beside its body.
type response struct {
	Status        string
	StatusCode    int
	Header        http.Header
	ContentLength int64
}

// ask makes one request; headers are pairs. The error is that of reading the body.
func ask(t testing.TB, method, url string, headers ...string) (response, []byte, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer resp.Body.Close()
	var body bytes.Buffer
	_, err = body.ReadFrom(resp.Body)
	return response{resp.Status, resp.StatusCode, resp.Header, resp.ContentLength}, body.Bytes(), err
}

// noise is content that cannot be compressed.
func noise(n int, seed uint64) []byte {
	b := make([]byte, n)
	g := rand.NewPCG(seed, 2)
	for i := range b {
		b[i] = byte(g.Uint64())
	}
	return b
}
