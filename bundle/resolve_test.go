package bundle_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/sealift/sealift/bundle"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/oci/ocitest"
	"github.com/sealift/sealift/internal/progress"
)

func randomImage(t *testing.T, platform string) v1.Image {
	t.Helper()
	img, err := random.Image(1000, 2)
	if err != nil {
		t.Fatal(err)
	}
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c = c.DeepCopy()
	p, err := v1.ParsePlatform(platform)
	if err != nil {
		t.Fatal(err)
	}
	c.OS, c.Architecture = p.OS, p.Architecture
	if img, err = mutate.ConfigFile(img, c); err != nil {
		t.Fatal(err)
	}
	return img
}

func randomIndex(t *testing.T, platforms ...string) v1.ImageIndex {
	t.Helper()
	idx := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, s := range platforms {
		p, err := v1.ParsePlatform(s)
		if err != nil {
			t.Fatal(err)
		}
		idx = mutate.AppendManifests(idx, mutate.IndexAddendum{Add: randomImage(t, s), Descriptor: v1.Descriptor{Platform: p}})
	}
	return idx
}

func tag(t *testing.T, ref string) name.Reference {
	t.Helper()
	r, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func push(t *testing.T, ref string, img v1.Image) string {
	t.Helper()
	if err := remote.Write(tag(t, ref), img); err != nil {
		t.Fatal(err)
	}
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d.String()
}

func writeIndex(t *testing.T, ref string, idx v1.ImageIndex) {
	t.Helper()
	if err := remote.WriteIndex(tag(t, ref), idx); err != nil {
		t.Fatal(err)
	}
}

// specOf loads a spec with the images that lines give as "- ref: …".
func specOf(t *testing.T, head string, items ...string) *bundle.Spec {
	t.Helper()
	text := "apiVersion: sealift/v1\nkind: Bundle\nname: t\nversion: 1.0.0\n" + head + "images:\n  " + strings.Join(items, "\n  ") + "\n"
	path := filepath.Join(t.TempDir(), "sealift.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := bundle.LoadSpec(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func resolveWith(t *testing.T, s *bundle.Spec, o bundle.Options) (*bundle.Resolved, error) {
	t.Helper()
	if o.Client == nil {
		o.Client = ocitest.Client()
	}
	o.Created, o.Progress = "2026-01-02T03:04:05Z", progress.Discard
	r, err := bundle.Resolve(t.Context(), s, o)
	if r != nil {
		t.Cleanup(func() { _ = r.Close() })
	}
	return r, err
}

// TestPinnedAndHere: what the lock pins and what lies in a layout on this machine is not asked for:
// the registry sees no request at all, not even one for its credentials.
func TestPinnedAndHere(t *testing.T) {
	reg := ocitest.New(t, ocitest.WithoutAPI)
	ref := reg.Addr + "/a/b:1"
	idx := randomIndex(t, "linux/amd64", "linux/arm64")
	writeIndex(t, ref, idx)
	s := specOf(t, "platforms: [linux/arm64]\n", "- ref: "+ref)
	first, err := resolveWith(t, s, bundle.Options{})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	l, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.AppendIndex(idx); err != nil {
		t.Fatal(err)
	}
	local, err := oci.OpenLocal(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = local.Close() }()
	reg.Requests() // what was asked so far
	second, err := resolveWith(t, s, bundle.Options{Lock: first.Lock, Local: []*oci.Local{local}})
	if err != nil {
		t.Fatal(err)
	}
	if asked := reg.Requests(); len(asked) > 0 {
		t.Errorf("the registry was asked, want not at all: %v", asked)
	}
	if stale := first.Lock.Stale(second.Lock); len(stale) > 0 {
		t.Errorf("the lock is stale: %v", stale)
	}
	if got, want := second.Manifest.Images[0].Digest, first.Manifest.Images[0].Digest; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	// Packed from the layout it is the same bundle.
	var digests []string
	for _, r := range []*bundle.Resolved{first, second} {
		res, err := r.Pack(t.Context(), bundle.PackOptions{Output: t.TempDir(), Progress: progress.Discard})
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, res.Digest)
	}
	if digests[0] != digests[1] {
		t.Errorf("two bundles from one lock: %v", digests)
	}
}

// TestLockKeepsPinned: a tag that moves on does not move what is locked, and one that is pinned in
// the spec as well is told.
func TestLockKeepsPinned(t *testing.T) {
	reg := ocitest.New(t, ocitest.WithAPI)
	ref := reg.Addr + "/a/b:1"
	old := push(t, ref, randomImage(t, "linux/amd64"))
	s := specOf(t, "", "- ref: "+ref)
	first, err := resolveWith(t, s, bundle.Options{})
	if err != nil {
		t.Fatal(err)
	}
	now := push(t, ref, randomImage(t, "linux/amd64"))
	locked, err := resolveWith(t, s, bundle.Options{Lock: first.Lock})
	if err != nil {
		t.Fatal(err)
	}
	if got := locked.Manifest.Images[0].Digest; got != old || len(locked.Warnings) != 0 {
		t.Errorf("got %s and %v, want %s and no warning", got, locked.Warnings, old)
	}
	free, err := resolveWith(t, s, bundle.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := free.Manifest.Images[0].Digest; got != now {
		t.Errorf("got %s, want %s", got, now)
	}
	both, err := resolveWith(t, specOf(t, "", "- ref: "+ref+"@"+old), bundle.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(both.Warnings) != 1 || !strings.Contains(both.Warnings[0], now) {
		t.Errorf("got warnings %v, want one that names %s", both.Warnings, now)
	}
}

// TestPlatforms: all of them, one that is missing, and an index that stays what it is.
func TestPlatforms(t *testing.T) {
	reg := ocitest.New(t, ocitest.WithAPI)
	ref := reg.Addr + "/a/b:1"
	idx := randomIndex(t, "linux/amd64", "linux/arm64", "linux/s390x")
	writeIndex(t, ref, idx)
	want, err := idx.Digest()
	if err != nil {
		t.Fatal(err)
	}
	all, err := resolveWith(t, specOf(t, "platforms: [all]\n", "- ref: "+ref), bundle.Options{})
	if err != nil {
		t.Fatal(err)
	}
	img := all.Manifest.Images[0]
	if len(img.Children) != 3 || img.Derived != nil || img.Digest != want.String() {
		t.Errorf("got %d children, derived %v, digest %s", len(img.Children), img.Derived, img.Digest)
	}
	if got := all.Manifest.Platforms; !slices.Equal(got, []string{"linux/amd64", "linux/arm64", "linux/s390x"}) {
		t.Errorf("got the platforms %v", got)
	}
	some, err := resolveWith(t, specOf(t, "platforms: [linux/arm64]\n", "- ref: "+ref), bundle.Options{})
	if err != nil {
		t.Fatal(err)
	}
	img = some.Manifest.Images[0]
	if len(img.Children) != 1 || img.Derived == nil || img.Digest != want.String() {
		t.Errorf("got %d children, derived %v, digest %s", len(img.Children), img.Derived, img.Digest)
	}
	_, err = resolveWith(t, specOf(t, "platforms: [linux/riscv64]\n", "- ref: "+ref), bundle.Options{})
	var missing *oci.MissingPlatformError
	if !errors.As(err, &missing) || missing.Want != "linux/riscv64" || len(missing.Have) != 3 {
		t.Errorf("got %v, want a platform that is missing", err)
	}
}

// TestTargetNames: two images that a site could not tell apart by their names.
func TestTargetNames(t *testing.T) {
	one, two := ocitest.New(t, ocitest.WithAPI), ocitest.New(t, ocitest.WithAPI)
	push(t, one.Addr+"/a/b:1", randomImage(t, "linux/amd64"))
	img := randomImage(t, "linux/amd64")
	push(t, two.Addr+"/a/b:1", img)
	s := specOf(t, "", "- ref: "+one.Addr+"/a/b:1", "- ref: "+two.Addr+"/a/b:1")
	_, err := resolveWith(t, s, bundle.Options{})
	var names *bundle.TargetNameError
	if !errors.As(err, &names) || names.Name != "a/b:1" {
		t.Fatalf("got %v, want a *TargetNameError", err)
	}
	// The very same image from two registries is no question.
	push(t, one.Addr+"/a/b:1", img)
	if _, err := resolveWith(t, s, bundle.Options{}); err != nil {
		t.Error(err)
	}
}

// TestManyImages: images are resolved side by side, with so many requests at a time as one registry
// gets, and not more.
func TestManyImages(t *testing.T) {
	reg := ocitest.New(t, ocitest.WithAPI)
	img := randomImage(t, "linux/amd64")
	var items []string
	for i := range 60 {
		ref := reg.Addr + "/a/" + string(rune('a'+i%26)) + string(rune('a'+i/26)) + ":1"
		push(t, ref, img)
		items = append(items, "- ref: "+ref)
	}
	const perHost = 12
	var running, most atomic.Int64
	gate := make(chan struct{})
	var open atomic.Bool
	transport := roundTripper(func(r *http.Request) (*http.Response, error) {
		n := running.Add(1)
		defer running.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		if n == perHost && open.CompareAndSwap(false, true) {
			close(gate) // as many as may be are under way
		}
		if !open.Load() && strings.Contains(r.URL.Path, "/manifests/") {
			select {
			case <-gate:
			case <-time.After(time.Minute): // the test fails then, by the number
			}
		}
		return http.DefaultTransport.RoundTrip(r)
	})
	client := oci.NewClient(oci.Options{Side: "source registry", Transport: transport, PerHost: perHost})
	r, err := resolveWith(t, specOf(t, "", items...), bundle.Options{Client: client})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Manifest.Images) != 60 {
		t.Errorf("got %d images, want 60", len(r.Manifest.Images))
	}
	if got := most.Load(); got != perHost {
		t.Errorf("%d requests at a time, want %d", got, perHost)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
