package install

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/sealift/sealift/bundle"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/progress"
	"github.com/sealift/sealift/internal/registry"
	"github.com/sealift/sealift/internal/sigstore"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// chartBundle packs a bundle of two charts with values of some size, and opens it.
func chartBundle(t *testing.T) *verify.Bundle {
	t.Helper()
	return packed(t, "charts:\n  - {path: one, values: [values.yaml]}\n  - {path: two}\n")
}

// packed packs and opens a bundle of what spec names.
func packed(t *testing.T, spec string) *verify.Bundle {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"sealift.yaml":   "apiVersion: sealift/v1\nkind: Bundle\nname: b\nversion: 1.0.0\n" + spec,
		"values.yaml":    "text: " + strings.Repeat("x", 900000) + "\n",
		"one/Chart.yaml": "apiVersion: v2\nname: one\nversion: 0.1.0\n",
		"two/Chart.yaml": "apiVersion: v2\nname: two\nversion: 0.1.0\n",
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	private, public, err := sigstore.GenerateKeyPair(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := sigstore.LoadSigner(private, nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := sigstore.ParsePublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := bundle.LoadSpec(filepath.Join(dir, "sealift.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	client := oci.NewClient(oci.Options{Side: "source registry", Transport: oci.NewTransport(nil)})
	resolved, err := bundle.Resolve(t.Context(), loaded, bundle.Options{Client: client, Created: "2026-01-02T03:04:05Z", Progress: progress.Discard})
	if err != nil {
		t.Fatal(err)
	}
	res, err := resolved.Pack(t.Context(), bundle.PackOptions{Output: dir, Sign: signer.Sign, Progress: progress.Discard})
	if err != nil {
		t.Fatal(err)
	}
	files, err := verify.Find([]string{res.Path})
	if err != nil {
		t.Fatal(err)
	}
	b, err := verify.Open(t.Context(), files[0], verify.Policy{Keys: []sigstore.PublicKey{key}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// hook is a progress.Reporter that calls a function when so many bytes have been copied.
type hook struct {
	progress.Task
	after int64
	do    func()
	once  sync.Once
	mu    sync.Mutex
	done  int64
}

func (h *hook) Start(string, int64, progress.Unit) progress.Task {
	h.Task = progress.Discard.Start("", 0, progress.Bytes)
	return h
}

func (h *hook) Add(n int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.done += n; h.done >= h.after {
		h.once.Do(h.do)
	}
}

// checkExtracted compares a directory with what b holds: that, and nothing else.
func checkExtracted(t *testing.T, dir string, b *verify.Bundle) {
	t.Helper()
	want := map[string]string{} // digests by name
	m := b.Manifest()
	for _, blob := range m.Blobs {
		want[manifest.BlobPrefix+blob.Digest[len("sha256:"):]] = blob.Digest
	}
	for i := range m.Charts {
		want["charts/"+m.Charts[i].Name+"-"+m.Charts[i].Version+".tgz"] = m.Charts[i].Archive.Digest
	}
	for _, e := range m.Entries[:2] {
		want[e.Name] = "sha256:" + e.SHA256
	}
	want[manifest.EntryManifest] = b.Evidence().Manifest
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name != "." && name != "blobs" && name != "charts" && name != filepath.Join("blobs", "sha256") {
				t.Errorf("there is a directory %q", name)
			}
			return nil
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if got := manifest.Digest(raw); got != want[filepath.ToSlash(name)] || info.Mode()&^0o644 != 0 {
			t.Errorf("%s: %s, mode %s, want %q", name, got, info.Mode(), want[filepath.ToSlash(name)])
		}
		delete(want, filepath.ToSlash(name))
		return nil
	})
	if err != nil || len(want) > 0 {
		t.Errorf("%v, missing %v", err, want)
	}
}

// names lists a directory.
func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return strings.Join(all, " ")
}

// TestExtractStops: wherever it is stopped, nothing is left; and the next one succeeds.
func TestExtractStops(t *testing.T) {
	b := chartBundle(t)
	for _, there := range []bool{false, true} {
		for _, after := range []int64{0, 1, 500_000, 900_000} {
			parent := t.TempDir()
			dir, left := filepath.Join(parent, "out"), ""
			if there {
				left = "out"
				if err := os.Mkdir(dir, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			if after == 0 {
				cancel()
			}
			_, err := Extract(ctx, b, ExtractOptions{Dir: dir, Progress: &hook{after: after, do: cancel}})
			if !errors.Is(err, context.Canceled) || err.Error() != context.Canceled.Error() {
				t.Fatalf("there %t, after %d: %v", there, after, err)
			}
			if got := names(t, parent); got != left {
				t.Fatalf("there %t, after %d: %q is left", there, after, got)
			}
			if there && names(t, dir) != "" {
				t.Fatalf("after %d: %q is left", after, names(t, dir))
			}
			if _, err := Extract(t.Context(), b, ExtractOptions{Dir: dir, Progress: progress.Discard}); err != nil {
				t.Fatal(err)
			}
			checkExtracted(t, dir, b)
			if got := names(t, parent); got != "out" {
				t.Fatalf("%q", got)
			}
		}
	}
}

// TestExtractIntoLeftovers: what lies under the partial name, and what becomes of it.
func TestExtractIntoLeftovers(t *testing.T) {
	b := chartBundle(t)
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	file := func(path string) error { return os.WriteFile(path, []byte("x"), 0o600) }
	for title, c := range map[string]struct {
		// make puts something at partial, beside a directory called other.
		make func(partial, other string)
		ok   bool
		kept string // what lies at partial afterwards
	}{
		"nothing":            {func(string, string) {}, true, ""},
		"an empty directory": {func(p, _ string) { must(os.Mkdir(p, 0o755)) }, true, ""},
		"of a killed extract": {func(p, other string) {
			must(os.MkdirAll(p+"/blobs/sha256", 0o755), file(p+"/"+marker), file(p+"/blobs/sha256/junk"), file(p+"/index.json"), os.Symlink(other, p+"/charts"))
		}, true, ""},
		"somebody's directory": {func(p, _ string) { must(os.Mkdir(p, 0o755), file(p+"/mine")) }, false, "mine"},
		"a marker that is a link": {func(p, other string) {
			must(os.Mkdir(p, 0o755), os.Symlink(other+"/precious", p+"/"+marker))
		}, false, marker},
		"a link to a directory": {func(p, other string) { must(os.Symlink(other, p)) }, false, "precious"},
	} {
		t.Run(title, func(t *testing.T) {
			for _, there := range []bool{false, true} {
				parent, other := t.TempDir(), t.TempDir()
				must(file(other + "/precious"))
				dir := filepath.Join(parent, "out")
				partial := dir + partialSuffix
				if there {
					must(os.Mkdir(dir, 0o755))
					partial = filepath.Join(dir, partialSuffix)
				}
				c.make(partial, other)
				_, err := Extract(t.Context(), b, ExtractOptions{Dir: dir, Progress: progress.Discard})
				if got := names(t, other); got != "precious" {
					t.Fatalf("there %t: the other directory holds %q", there, got)
				}
				if c.ok {
					must(err)
					checkExtracted(t, dir, b)
					if got := names(t, parent); got != "out" {
						t.Fatalf("there %t: %q", there, got)
					}
					continue
				}
				if err == nil {
					t.Fatalf("there %t: no error", there)
				}
				if got := names(t, partial); got != c.kept {
					t.Fatalf("there %t: %v, and %q is left of %q", there, err, got, c.kept)
				}
			}
		})
	}
}

// TestExtractsAtTheSameTime: one of them succeeds, the others leave it alone.
func TestExtractsAtTheSameTime(t *testing.T) {
	b := chartBundle(t)
	for _, there := range []bool{false, true} {
		dir := filepath.Join(t.TempDir(), "out")
		if there {
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		errs := make([]error, 8)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() {
				_, errs[i] = Extract(t.Context(), b, ExtractOptions{Dir: dir, Progress: progress.Discard})
			})
		}
		wg.Wait()
		good := 0
		for _, err := range errs {
			var place *PlaceError
			switch {
			case err == nil:
				good++
			case errors.Is(err, ErrExtracting), errors.As(err, &place):
			default:
				t.Error(err)
			}
		}
		if good != 1 {
			t.Errorf("there %t: %d succeeded: %v", there, good, errs)
		}
		checkExtracted(t, dir, b)
	}
}

// TestExtractDecodes: a blob comes out as it was, whatever its encoding in the file.
func TestExtractDecodes(t *testing.T) {
	app, err := registry.New(t.Context(), registry.Options{Store: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(app.Handler())
	defer server.Close()
	source := strings.TrimPrefix(server.URL, "http://") + "/plain:1"
	ref, err := name.ParseReference(source)
	if err != nil {
		t.Fatal(err)
	}
	layer := static.NewLayer(bytes.Repeat([]byte("sealift "), 500_000), types.OCIUncompressedLayer)
	img, err := mutate.AppendLayers(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON), layer)
	if err != nil {
		t.Fatal(err)
	}
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c.OS, c.Architecture = "linux", "amd64"
	if img, err = mutate.ConfigFile(img, c); err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}
	b := packed(t, "images: [{ref: \""+source+"\"}]\n")
	if !slices.ContainsFunc(b.Manifest().Blobs, func(b manifest.Blob) bool { return b.Encoding == manifest.EncodingZstd }) {
		t.Fatal("no blob is encoded")
	}
	dir := filepath.Join(t.TempDir(), "out")
	if _, err := Extract(t.Context(), b, ExtractOptions{Dir: dir, Progress: progress.Discard}); err != nil {
		t.Fatal(err)
	}
	checkExtracted(t, dir, b)
}

// TestExtractIsOvertaken: something comes to be where the result was to go.
func TestExtractIsOvertaken(t *testing.T) {
	b := chartBundle(t)
	for name, there := range map[string]bool{"a new directory": false, "one that was empty": true} {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			dir := filepath.Join(parent, "out")
			if there {
				if err := os.Mkdir(dir, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			put := func() {
				if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "index.json"), []byte("mine"), 0o600)); err != nil {
					t.Error(err)
				}
			}
			_, err := Extract(t.Context(), b, ExtractOptions{Dir: dir, Progress: &hook{after: 1, do: put}})
			var place *PlaceError
			if !errors.As(err, &place) || place.Path != dir {
				t.Fatalf("%v, want *PlaceError", err)
			}
			if names(t, parent) != "out" || names(t, dir) != "index.json" {
				t.Fatalf("%q, %q", names(t, parent), names(t, dir))
			}
			if raw, err := os.ReadFile(filepath.Join(dir, "index.json")); err != nil || !bytes.Equal(raw, []byte("mine")) {
				t.Fatalf("%q, %v", raw, err)
			}
		})
	}
}

func TestChartCopies(t *testing.T) {
	chart := func(name, version, d string) manifest.Chart {
		return manifest.Chart{Name: name, Version: version, Archive: manifest.Descriptor{Digest: digest(d), Size: 1}}
	}
	long := strings.Repeat("l", 250)
	copies, skipped := chartCopies([]manifest.Chart{
		chart("shop", "1.0.0", "1"), chart("shop", "1.0.0", "1"), // two releases
		chart("shop", "1.1.0", "2"),
		chart("a", "1-2", "3"), chart("a-1", "2", "4"), // one name
		chart("Case", "1", "5"), chart("case", "1", "6"),
		chart(long, "1.0.0", "7"),
	})
	var got []string
	for _, c := range copies {
		got = append(got, c.Path)
	}
	if want := "charts/shop-1.0.0.tgz charts/shop-1.1.0.tgz"; strings.Join(got, " ") != want {
		t.Errorf("copies %q, want %q", got, want)
	}
	got = nil
	for _, c := range skipped {
		got = append(got, c.Name)
		if c.Path != "" {
			t.Errorf("%s: path %q", c.Name, c.Path)
		}
	}
	if want := "a a-1 Case case " + long; strings.Join(got, " ") != want {
		t.Errorf("skipped %q, want %q", got, want)
	}
}
