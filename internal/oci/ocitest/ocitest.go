// Package ocitest gives tests registries in this process, of both kinds that there are, and
// artifacts about images as signing tools make them.
package ocitest

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
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
	d := manifest.Descriptor{Digest: manifest.Digest(content), Size: int64(len(content))}
	if _, err := repo.PutBlob(context.Background(), d, "", oci.FromBytes(content), func(int64) {}); err != nil {
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

// Layout writes an OCI image layout into a new directory: what the repository has under these
// digests, each with the annotations that it is to have in index.json, and all that they name. It
// returns the directory.
func Layout(t testing.TB, repo *oci.Repository, roots ...Root) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, content []byte) {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list := []descriptor{}
	for _, root := range roots {
		d := copyContent(t, repo, root.Digest, write)
		d.Annotations = root.Annotations
		list = append(list, d)
	}
	write("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	write("index.json", marshal(t, map[string]any{"schemaVersion": 2, "mediaType": MediaTypeIndex, "manifests": list}))
	return dir
}

// Root is an image of a layout, as its index.json lists it.
type Root struct {
	Digest      string
	Annotations map[string]string
}

// Named is an image with a name, which is a reference or a tag (annotation
// org.opencontainers.image.ref.name).
func Named(digest, name string) Root {
	return Root{digest, map[string]string{"org.opencontainers.image.ref.name": name}}
}

func blobName(digest string) string { return "blobs/" + strings.Replace(digest, ":", "/", 1) }

// copyContent writes a manifest and all that it names.
func copyContent(t testing.TB, repo *oci.Repository, digest string, write func(name string, content []byte)) descriptor {
	t.Helper()
	ctx := context.Background()
	c, err := repo.Manifest(ctx, digest)
	if err != nil {
		t.Fatal(err)
	}
	write(blobName(digest), c.Raw)
	if oci.IsIndex(c.MediaType) {
		children, err := oci.ParseIndex(c.Raw)
		if err != nil {
			t.Fatal(err)
		}
		for _, child := range children {
			copyContent(t, repo, child.Digest, write)
		}
		return describe(c.MediaType, c.Raw)
	}
	img, err := oci.ParseImage(c.Raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range append(img.Layers, img.Config) {
		content, err := repo.ReadBlob(ctx, d, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		write(blobName(d.Digest), content)
	}
	return describe(c.MediaType, c.Raw)
}

// Saved is an image of an archive as "docker save" makes them.
type Saved struct {
	Config []byte
	Tags   []string
	Layers [][]byte
}

// SavedImage is an image for linux/ARCHITECTURE with these layers, which are plain tars or what the
// caller likes.
func SavedImage(t testing.TB, architecture string, tags []string, layers ...[]byte) Saved {
	t.Helper()
	ids := []string{}
	for _, l := range layers {
		ids = append(ids, manifest.Digest(l))
	}
	return Saved{Tags: tags, Layers: layers, Config: marshal(t, map[string]any{
		"os": "linux", "architecture": architecture, "docker_version": "19.03.5",
		"rootfs": map[string]any{"type": "layers", "diff_ids": ids},
	})}
}

// DockerArchive writes an archive of images in a new directory, in the form that docker had before
// version 25: a layer that was there already is a link. It returns the file.
func DockerArchive(t testing.TB, images ...Saved) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	put := func(h *tar.Header, content []byte) {
		h.Mode, h.Size = 0o644, int64(len(content))
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	list := []any{}
	there := map[string]string{}
	for i, img := range images {
		config := strings.TrimPrefix(manifest.Digest(img.Config), "sha256:") + ".json"
		put(&tar.Header{Name: config}, img.Config)
		names := []string{}
		for j, l := range img.Layers {
			name := fmt.Sprintf("%d-%d/layer.tar", i, j)
			names = append(names, name)
			if first := there[string(l)]; first != "" {
				put(&tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: "../" + first}, nil)
				continue
			}
			there[string(l)] = name
			put(&tar.Header{Name: name}, l)
		}
		list = append(list, map[string]any{"Config": config, "RepoTags": img.Tags, "Layers": names})
	}
	put(&tar.Header{Name: "manifest.json"}, marshal(t, list))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "saved.tar")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// Tar writes the files of a directory to an archive in another one and returns the file.
func Tar(t testing.TB, dir string) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "layout.tar")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
