// Package ocitest gives tests registries in this process, of both kinds that there are, and
// artifacts about images as signing tools make them.
package ocitest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	ggcr "github.com/google/go-containerregistry/pkg/registry"

	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/registry"
	"github.com/sealift/sealift/manifest"
)

// Media types that the artifacts here have.
const (
	MediaTypeIndex         = "application/vnd.oci.image.index.v1+json"
	MediaTypeManifest      = "application/vnd.oci.image.manifest.v1+json"
	MediaTypeConfig        = "application/vnd.oci.image.config.v1+json"
	MediaTypeEmpty         = "application/vnd.oci.empty.v1+json"
	MediaTypeLayer         = "application/vnd.oci.image.layer.v1.tar+gzip"
	MediaTypeSimpleSigning = "application/vnd.dev.cosign.simplesigning.v1+json"
	MediaTypeBundle        = "application/vnd.dev.sigstore.bundle.v0.3+json"
)

// Registry is a registry whose requests are counted, and whose answers can be replaced.
type Registry struct {
	// Addr is host:port.
	Addr string

	mu        sync.Mutex
	log       []string
	intercept func(http.ResponseWriter, *http.Request) bool
}

// Kinds of registries.
const (
	// WithoutAPI is CNCF distribution, which has no Referrers API.
	WithoutAPI = "without referrers API"
	// WithAPI is go-containerregistry's, which has it and does not send the header OCI-Subject.
	WithAPI = "with referrers API"
)

// Kinds lists them.
var Kinds = []string{WithoutAPI, WithAPI}

// New starts a registry of a kind, for as long as the test runs.
func New(t testing.TB, kind string) *Registry {
	t.Helper()
	var next http.Handler
	if kind == WithAPI {
		next = ggcr.New(ggcr.WithReferrersSupport(true), ggcr.Logger(log.New(io.Discard, "", 0)))
	} else {
		app, err := registry.New(context.Background(), registry.Options{Store: t.TempDir(), SparseIndexes: true})
		if err != nil {
			t.Fatal(err)
		}
		next = app.Handler()
	}
	r := &Registry{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		r.log = append(r.log, req.Method+" "+req.URL.RequestURI())
		intercept := r.intercept
		r.mu.Unlock()
		if intercept == nil || !intercept(w, req) {
			next.ServeHTTP(w, req)
		}
	}))
	t.Cleanup(s.Close)
	r.Addr = strings.TrimPrefix(s.URL, "http://")
	return r
}

// Intercept lets f answer requests: those for which it returns true. Nil ends that.
func (r *Registry) Intercept(f func(http.ResponseWriter, *http.Request) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.intercept = f
}

// Requests gives back all requests since the last call, as METHOD URI.
func (r *Registry) Requests() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.log
	r.log = nil
	return l
}

// Writes counts those of some requests that write.
func Writes(requests []string) int {
	n := 0
	for _, r := range requests {
		if !strings.HasPrefix(r, "GET ") && !strings.HasPrefix(r, "HEAD ") {
			n++
		}
	}
	return n
}

// Client returns a client for any registry of this package.
func Client() *oci.Client {
	return oci.NewClient(oci.Options{Side: "test registry", Transport: oci.NewTransport(nil)})
}

// Open opens a repository for reading and writing.
func (r *Registry) Open(t testing.TB, path string) *oci.Repository {
	t.Helper()
	repo, err := Client().Repository(context.Background(), r.Addr, path, true)
	if err != nil {
		t.Fatal(err)
	}
	return repo
}

// Layer is a layer of an artifact.
type Layer struct {
	MediaType   string
	Content     []byte
	Annotations map[string]string
}

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Platform    *platform         `json:"platform,omitempty"`
}

type platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
}

func describe(mediaType string, content []byte) descriptor {
	return descriptor{MediaType: mediaType, Digest: manifest.Digest(content), Size: int64(len(content))}
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// PutBlob stores a blob.
func PutBlob(t testing.TB, repo *oci.Repository, content []byte) {
	t.Helper()
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }
	d := manifest.Descriptor{Digest: manifest.Digest(content), Size: int64(len(content))}
	if _, err := repo.PutBlob(context.Background(), d, "", open, func(int64) {}); err != nil {
		t.Fatal(err)
	}
}

// PutManifest stores a manifest under a tag, or under its digest where that is empty, and returns
// the digest.
func PutManifest(t testing.TB, repo *oci.Repository, tag, mediaType string, raw []byte) string {
	t.Helper()
	c := Content(mediaType, raw)
	if tag == "" {
		tag = c.Digest
	}
	if err := repo.PutManifest(context.Background(), tag, c); err != nil {
		t.Fatal(err)
	}
	return c.Digest
}

// Content is a manifest with its descriptor.
func Content(mediaType string, raw []byte) *oci.Content {
	return &oci.Content{Descriptor: manifest.Descriptor{Digest: manifest.Digest(raw), MediaType: mediaType, Size: int64(len(raw))}, Raw: raw}
}

// Image stores an image for one platform, linux/ARCHITECTURE, under a tag (empty for none) and
// returns its digest. The same seed gives the same bytes.
func Image(t testing.TB, repo *oci.Repository, tag, architecture, seed string) string {
	t.Helper()
	layer := []byte("a layer of " + seed + " for " + architecture)
	config := marshal(t, map[string]any{
		"os": "linux", "architecture": architecture, "rootfs": map[string]any{"type": "layers", "diff_ids": []string{manifest.Digest(layer)}},
	})
	PutBlob(t, repo, layer)
	PutBlob(t, repo, config)
	return PutManifest(t, repo, tag, MediaTypeManifest, marshal(t, map[string]any{
		"schemaVersion": 2, "mediaType": MediaTypeManifest, "config": describe(MediaTypeConfig, config),
		"layers": []descriptor{describe(MediaTypeLayer, layer)},
	}))
}

// Index stores an index of images for linux and these architectures and returns its digest and
// those of the images.
func Index(t testing.TB, repo *oci.Repository, tag, seed string, architectures ...string) (digest string, children []string) {
	t.Helper()
	var list []descriptor
	for _, a := range architectures {
		child := Image(t, repo, "", a, seed)
		c, err := repo.Manifest(context.Background(), child)
		if err != nil {
			t.Fatal(err)
		}
		d := describe(MediaTypeManifest, c.Raw)
		d.Platform = &platform{"linux", a}
		list, children = append(list, d), append(children, child)
	}
	return PutManifest(t, repo, tag, MediaTypeIndex, marshal(t, map[string]any{
		"schemaVersion": 2, "mediaType": MediaTypeIndex, "manifests": list,
	})), children
}

// Artifact is the manifest of an artifact about a subject, as new tools make it; its blobs are
// stored, it is not.
func Artifact(t testing.TB, repo *oci.Repository, subject, artifactType string, layers ...Layer) []byte {
	t.Helper()
	PutBlob(t, repo, []byte("{}"))
	doc := map[string]any{
		"schemaVersion": 2, "mediaType": MediaTypeManifest, "artifactType": artifactType,
		"config": describe(MediaTypeEmpty, []byte("{}")), "layers": putLayers(t, repo, layers),
		"annotations": map[string]string{"org.opencontainers.image.created": "2026-01-02T03:04:05Z"},
	}
	if subject != "" {
		doc["subject"] = descriptor{MediaType: MediaTypeManifest, Digest: subject, Size: 1}
	}
	return marshal(t, doc)
}

// Attach stores an artifact about a subject, so that it is listed, and returns its digest.
func Attach(t testing.TB, repo *oci.Repository, subject, artifactType string, layers ...Layer) string {
	t.Helper()
	c := Content(MediaTypeManifest, Artifact(t, repo, subject, artifactType, layers...))
	if err := repo.PutReferrer(context.Background(), c); err != nil {
		t.Fatal(err)
	}
	return c.Digest
}

// Signatures is what cosign stores under a tag: an image with a signature in each layer. Its blobs
// are stored, it is not.
func Signatures(t testing.TB, repo *oci.Repository, layers ...Layer) []byte {
	t.Helper()
	ids, history := []string{}, []any{}
	for _, l := range layers {
		ids = append(ids, manifest.Digest(l.Content))
		history = append(history, map[string]string{"created": "0001-01-01T00:00:00Z"})
	}
	config := marshal(t, map[string]any{
		"architecture": "", "os": "", "config": map[string]any{}, "history": history,
		"rootfs": map[string]any{"type": "layers", "diff_ids": ids},
	})
	PutBlob(t, repo, config)
	return marshal(t, map[string]any{
		"schemaVersion": 2, "mediaType": MediaTypeManifest, "config": describe(MediaTypeConfig, config), "layers": putLayers(t, repo, layers),
	})
}

func putLayers(t testing.TB, repo *oci.Repository, layers []Layer) []descriptor {
	t.Helper()
	list := []descriptor{}
	for _, l := range layers {
		PutBlob(t, repo, l.Content)
		d := describe(l.MediaType, l.Content)
		d.Annotations = l.Annotations
		list = append(list, d)
	}
	return list
}

// Tag stores what cosign stores under a tag made from the digest of its subject, and returns its
// digest.
func Tag(t testing.TB, repo *oci.Repository, subject, ending string, layers ...Layer) string {
	t.Helper()
	return PutManifest(t, repo, manifest.ReferrerTag(subject, ending), MediaTypeManifest, Signatures(t, repo, layers...))
}

// SBOM is a layer that is no signature.
func SBOM(text string) Layer {
	return Layer{MediaType: "text/spdx+json", Content: fmt.Appendf(nil, `{"sbom":%q}`, text)}
}
