package cli_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/sealift/sealift/internal/oci/ocitest"
)

// TestSeedingWhatIsThere: a registry that has all images is asked for each of them and its two tags,
// and for no layer. SEALIFT_TEST_IMAGES=500 measures what that takes with 500 images of 10 layers.
func TestSeedingWhatIsThere(t *testing.T) {
	images, layersEach := 20, 10
	if n, err := strconv.Atoi(os.Getenv("SEALIFT_TEST_IMAGES")); err == nil {
		images = n
	}
	vendor, site := ocitest.New(t, ocitest.WithoutAPI), ocitest.New(t, ocitest.WithoutAPI)
	dir := t.TempDir()
	spec := "apiVersion: sealift/v1\nkind: Bundle\nname: shop\nversion: 1.0.0\nimages:\n"
	for i := range images {
		var layers []v1.Layer
		for l := range layersEach {
			layers = append(layers, static.NewLayer(bytesOf(fmt.Sprint(i, "-", l), 500), types.OCILayer))
		}
		img, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), layers...)
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.ConfigFile(img, &v1.ConfigFile{OS: "linux", Architecture: "amd64"}); err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprintf("%s/shop/app%d:1", vendor.Addr, i)
		ref, err := name.ParseReference(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(ref, img); err != nil {
			t.Fatal(err)
		}
		spec += "  - ref: " + text + "\n"
	}
	path := filepath.Join(dir, "sealift.yaml")
	if err := os.WriteFile(path, []byte(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) {
		t.Helper()
		start := time.Now()
		if code, _, stderr := runIn(t, dir, nil, args...); code != 0 {
			t.Fatalf("%v: exit code %d: %s", args, code, stderr)
		}
		t.Logf("%s: %v", args[0], time.Since(start))
	}
	bundle := filepath.Join(dir, "shop-1.0.0.tar.zst")
	run("pack", "-f", path, "-o", bundle, "--unsigned", "--progress", "none")
	seed := []string{"seed", bundle, "--registry", site.Addr, "--insecure-skip-signature", "--reason", "a test", "--progress", "none"}
	run(seed...)
	site.Requests()
	run(seed...)
	requests := site.Requests()
	for _, r := range requests {
		if !strings.HasPrefix(r, "HEAD ") && r != "GET /v2/" || strings.Contains(r, "/blobs/") {
			t.Errorf("%s was asked for", r)
		}
	}
	if most := 3*images + 1; len(requests) > most {
		t.Errorf("%d requests for %d images, want %d at most", len(requests), images, most)
	}
}
