package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/sealift/sealift/internal/cli"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/oci/faultproxy"
	"github.com/sealift/sealift/internal/oci/ocitest"
	"github.com/sealift/sealift/internal/registry"
	"github.com/sealift/sealift/manifest"
)

// faultPatience is how long one command of these tests may take, on a machine that does many other
// things: what takes longer does not end.
const faultPatience = 90 * time.Second

// faultBudget is what is borne of registries: as much as by default, in a shorter time.
var faultBudget = oci.Budget{
	Wait: 20 * time.Millisecond, LongestWait: 300 * time.Millisecond, Patience: 4 * time.Second, Answer: 2 * time.Second, Stall: time.Second,
}

// faultVendor is the registry's name in the spec: whatever is really read is its mirror, so that
// bundles do not depend on that.
const faultVendor = "registry.vendor.example"

// faultStage is a vendor's registry, what is packed from it, and what a site has after it was seeded
// with that; all without faults.
type faultStage struct {
	spec, key, bundle string // paths
	vendor            http.Handler
	// packed is the bundle as it is without a signature, packedBytes what the registry has sent for it.
	packed      []byte
	packedBytes int64
	// seeded is what the site has, seededBytes what was sent there, in so many requests.
	seeded         content
	seededBytes    int64
	seededRequests int
}

func newFaultStage(t *testing.T) *faultStage {
	t.Helper()
	dir := t.TempDir()
	s := &faultStage{
		vendor: newStore(t, t.TempDir()), spec: filepath.Join(dir, "sealift.yaml"),
		key: filepath.Join(dir, "cosign.pub"), bundle: filepath.Join(dir, "signed", "shop-1.0.0.tar.zst"),
	}
	plain := faultproxy.Start(t, s.vendor)
	for path, img := range map[string]v1.Image{
		"shop/tool": faultTool(t),
		"shop/big":  faultImage(t, "linux/amd64", "big", 3_000_000),
	} {
		if err := remote.Write(reference(t, plain.Addr+"/"+path+":1"), img); err != nil {
			t.Fatal(err)
		}
	}
	var children []mutate.IndexAddendum
	for _, platform := range []string{"linux/amd64", "linux/arm64"} {
		p, err := v1.ParsePlatform(platform)
		if err != nil {
			t.Fatal(err)
		}
		children = append(children, mutate.IndexAddendum{Add: faultImage(t, platform, "app", 400_000, 600_000), Descriptor: v1.Descriptor{Platform: p}})
	}
	index := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), children...)
	if err := remote.WriteIndex(reference(t, plain.Addr+"/shop/app:1"), index); err != nil {
		t.Fatal(err)
	}
	attachSBOM(t, plain.Addr, "of the vendor")
	write(t, s.spec, fmt.Appendf(nil, `apiVersion: sealift/v1
kind: Bundle
name: shop
version: 1.0.0
images:
  - ref: %[1]s/shop/app:1
    platforms: [linux/amd64, linux/arm64]
  - ref: %[1]s/shop/tool:1
  - ref: %[1]s/shop/big:1
`, faultVendor))

	plain.Restart()
	if code, stderr := s.pack(t, dir, plain.Addr); code != 0 {
		t.Fatalf("packing: exit code %d: %s", code, stderr)
	}
	s.packedBytes = plain.Stats().Down
	var err error
	if s.packed, err = os.ReadFile(filepath.Join(dir, "shop-1.0.0.tar.zst")); err != nil {
		t.Fatal(err)
	}
	prefix := strings.TrimSuffix(s.key, ".pub")
	for _, args := range [][]string{
		{"keygen", "--output-prefix", prefix},
		{"pack", "-f", s.spec, "-o", filepath.Dir(s.bundle), "--key", prefix + ".key", "--mirror", faultVendor + "=" + plain.Addr, "--progress", "none"},
	} {
		if code, stderr := runFaulty(t.Context(), t, dir, nil, args...); code != 0 {
			t.Fatalf("%v: exit code %d: %s", args, code, stderr)
		}
	}
	site := newFaultSite(t)
	through := faultproxy.Start(t, site)
	if code, stderr := s.seed(t, t.TempDir(), through.Addr, nil); code != 0 {
		t.Fatalf("seeding: exit code %d: %s", code, stderr)
	}
	s.seededBytes, s.seededRequests = through.Stats().Up, through.Stats().Requests
	s.seeded = contentOf(t, site)
	if s.seeded.tags["shop/tool:1"] == "" || s.packedBytes < 5_000_000 || s.seededBytes < 5_000_000 {
		t.Fatalf("without faults %d bytes are packed, %d seeded, and there is %v", s.packedBytes, s.seededBytes, s.seeded)
	}
	return s
}

// pack packs what is in the registry at addr into dir, without a signature.
func (s *faultStage) pack(t *testing.T, dir, addr string) (code int, stderr string) {
	t.Helper()
	return runFaulty(t.Context(), t, dir, nil, "pack", "-f", s.spec, "-o", dir, "--unsigned", "--mirror", faultVendor+"="+addr, "--progress", "none")
}

// seed seeds the registry at addr, as a site whose record is in dir.
func (s *faultStage) seed(t *testing.T, dir, addr string, dial func(context.Context, string, string) (net.Conn, error)) (code int, stderr string) {
	t.Helper()
	return runFaulty(t.Context(), t, dir, dial, "seed", "--key", s.key, "--registry", addr, s.bundle, "--progress", "none")
}

// runFaulty runs one command line, which must end.
func runFaulty(ctx context.Context, t *testing.T, dir string, dial func(context.Context, string, string) (net.Conn, error), args ...string) (code int, stderr string) {
	t.Helper()
	var out, errs lockedBuffer
	env := cli.Env{
		Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Now: time.Now, Dial: dial, Budget: faultBudget,
		LookupEnv: func(key string) (string, bool) {
			v, ok := map[string]string{
				"COSIGN_PASSWORD": "", "SEALIFT_STATE": filepath.Join(dir, "state"), "HOME": dir, "SOURCE_DATE_EPOCH": "1767323045",
			}[key]
			return v, ok
		},
	}
	ctx, cancel := context.WithTimeout(ctx, faultPatience)
	defer cancel()
	code = cli.Run(ctx, args, env)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		t.Errorf("%v: it has not ended by itself within %v: %s", args, faultPatience, errs.String())
	}
	return code, errs.String()
}

// lockedBuffer is for those who write from several goroutines, as standard error is.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// faultImage makes an image whose first layer all of them share; sizes are those of the others.
func faultImage(t *testing.T, platform, seed string, sizes ...int) v1.Image {
	t.Helper()
	layers := []v1.Layer{static.NewLayer(bytesOf("base", 300_000), types.OCILayer)}
	for i, size := range sizes {
		layers = append(layers, static.NewLayer(bytesOf(fmt.Sprint(seed, platform, i), size), types.OCILayer))
	}
	img, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), layers...)
	if err != nil {
		t.Fatal(err)
	}
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c.OS, c.Architecture, _ = strings.Cut(platform, "/")
	img, err = mutate.ConfigFile(mutate.ConfigMediaType(img, types.OCIConfigJSON), c)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// faultTool is the image shop/tool, which has a layer that is not compressed.
func faultTool(t *testing.T) v1.Image {
	t.Helper()
	img, err := mutate.AppendLayers(faultImage(t, "linux/amd64", "tool", 500_000, 20_000, 700_000),
		static.NewLayer(plainLayer("tool")[:1_500_000], types.OCIUncompressedLayer))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func reference(t *testing.T, text string) name.Reference {
	t.Helper()
	ref, err := name.ParseReference(text)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// newStore opens the embedded registry.
func newStore(t *testing.T, dir string) http.Handler {
	t.Helper()
	app, err := registry.New(context.Background(), registry.Options{Store: dir, SparseIndexes: true})
	if err != nil {
		t.Fatal(err)
	}
	return app.Handler()
}

// newFaultSite is a registry that has an SBOM of its own for an image of the bundle, so that seeding
// has something to merge with.
func newFaultSite(t *testing.T) http.Handler {
	t.Helper()
	site := newStore(t, t.TempDir())
	server := httptest.NewServer(site)
	defer server.Close()
	attachSBOM(t, server.Listener.Addr().String(), "of the site")
	return site
}

// attachSBOM attaches one to the image shop/tool.
func attachSBOM(t *testing.T, addr, text string) {
	t.Helper()
	digest, err := faultTool(t).Digest()
	if err != nil {
		t.Fatal(err)
	}
	repo, err := ocitest.Client().Repository(t.Context(), addr, "shop/tool", true)
	if err != nil {
		t.Fatal(err)
	}
	layer := ocitest.SBOM(text)
	layer.Content = append(layer.Content, bytesOf(text, 20_000)...)
	ocitest.Attach(t, repo, digest.String(), "text/spdx+json", layer)
}

// content is what can be pulled from a registry: the digest of each tag, as REPOSITORY:TAG, and the size
// of each manifest and blob that the tags lead to, as REPOSITORY@DIGEST.
type content struct {
	tags             map[string]string
	manifests, blobs map[string]int64
}

// contentOf pulls all of that and compares it with its digests. A tag that is listed leads to something.
func contentOf(t *testing.T, site http.Handler) content {
	t.Helper()
	all, dangling := walkThrough(t, site)
	if len(dangling) > 0 {
		t.Fatalf("these tags are listed and lead nowhere: %v", dangling)
	}
	return all
}

// walkThrough is contentOf; it returns the tags that lead nowhere.
func walkThrough(t *testing.T, site http.Handler) (all content, dangling []string) {
	t.Helper()
	w := &walk{t, site, content{map[string]string{}, map[string]int64{}, map[string]int64{}}}
	var catalog struct {
		Repositories []string `json:"repositories"`
	}
	w.get("/v2/_catalog?n=1000", &catalog)
	for _, repo := range catalog.Repositories {
		var list struct {
			Tags []string `json:"tags"`
		}
		if w.get("/v2/"+repo+"/tags/list", &list) == nil {
			continue // there are blobs, and no manifest as yet
		}
		for _, tag := range list.Tags {
			raw := w.get("/v2/"+repo+"/manifests/"+tag, nil)
			if raw == nil {
				dangling = append(dangling, repo+":"+tag)
				continue
			}
			w.all.tags[repo+":"+tag] = manifest.Digest(raw)
			w.manifest(repo, manifest.Digest(raw))
		}
	}
	return w.all, dangling
}

// walk is a walk through a registry.
type walk struct {
	t    *testing.T
	site http.Handler
	all  content
}

// get gets a document, and parses it into v if that is not nil. It is nil where a repository or a tag
// is not known.
func (w *walk) get(path string, v any) []byte {
	w.t.Helper()
	got := pull(w.site, http.MethodGet, path)
	if got.Code == http.StatusNotFound && !strings.Contains(path, "/sha256:") {
		return nil
	}
	if got.Code != http.StatusOK {
		w.t.Fatalf("%s: %d %s", path, got.Code, got.Body)
	}
	if v != nil {
		if err := json.Unmarshal(got.Body.Bytes(), v); err != nil {
			w.t.Fatalf("%s: %v", path, err)
		}
	}
	return got.Body.Bytes()
}

// pull sends one request.
func pull(site http.Handler, method, path string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	r.Header.Set("Accept", ocitest.MediaTypeIndex+","+ocitest.MediaTypeManifest)
	got := httptest.NewRecorder()
	site.ServeHTTP(got, r)
	return got
}

// digested gets a document that a digest names, into one of the maps. It reports whether that is the
// first time.
func (w *walk) digested(sizes map[string]int64, kind, repo, digest string, v any) bool {
	w.t.Helper()
	if _, ok := sizes[repo+"@"+digest]; ok {
		return false
	}
	raw := w.get("/v2/"+repo+"/"+kind+"/"+digest, v)
	if got := manifest.Digest(raw); got != digest {
		w.t.Fatalf("%s of %s: got %s, want %s", kind, repo, got, digest)
	}
	sizes[repo+"@"+digest] = int64(len(raw))
	return true
}

// manifest walks through a manifest or an index and all that it names.
func (w *walk) manifest(repo, digest string) {
	w.t.Helper()
	type named struct {
		Digest string `json:"digest"`
	}
	var doc struct {
		Manifests, Layers []named
		Config            named
	}
	if !w.digested(w.all.manifests, "manifests", repo, digest, &doc) {
		return
	}
	for _, m := range doc.Manifests {
		w.manifest(repo, m.Digest)
	}
	for _, b := range append(doc.Layers, doc.Config) {
		if b.Digest != "" {
			w.digested(w.all.blobs, "blobs", repo, b.Digest, nil)
		}
	}
}

// missing is how many bytes of blobs must still be sent for the site to have what is wanted: what one
// of its repositories has is mounted into the others.
func (c content) missing(site http.Handler) int64 {
	has, sizes := map[string]bool{}, map[string]int64{}
	for name, size := range c.blobs {
		repo, digest, _ := strings.Cut(name, "@")
		sizes[digest] = size
		has[digest] = has[digest] || pull(site, http.MethodHead, "/v2/"+repo+"/blobs/"+digest).Code == http.StatusOK
	}
	var n int64
	for digest, size := range sizes {
		if !has[digest] {
			n += size
		}
	}
	return n
}
