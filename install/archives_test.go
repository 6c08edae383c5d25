package install

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/progress"
	"github.com/sealift/sealift/internal/registry"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// imagesBundle packs an index "app" for three platforms of which two travel, an image "tool" for one,
// the same image under another tag and without one, and an artifact; it returns their host.
func imagesBundle(t *testing.T) (*verify.Bundle, string) {
	t.Helper()
	app, err := registry.New(t.Context(), registry.Options{Store: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(app.Handler())
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	ref := func(text string) name.Reference {
		r, err := name.ParseReference(host + "/" + text)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var adds []mutate.IndexAddendum
	for _, arch := range []string{"amd64", "arm64", "s390x"} {
		adds = append(adds, mutate.IndexAddendum{Add: platformImage(t, arch, "app"), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	must(remote.WriteIndex(ref("shop/app:1"), mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), adds...)))
	tool := platformImage(t, "amd64", "tool")
	must(remote.Write(ref("shop/tool:1.3"), tool))
	must(remote.Write(ref("shop/tool:latest"), tool))
	d, err := tool.Digest()
	must(err)
	model, err := mutate.AppendLayers(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), "application/vnd.example.model"),
		static.NewLayer([]byte("weights"), "application/vnd.example.weights"))
	must(err)
	must(remote.Write(ref("shop/model:1"), model))
	return packed(t, strings.ReplaceAll(`platforms: [linux/amd64, linux/arm64]
images:
  - {ref: "HOST/shop/app:1"}
  - {ref: "HOST/shop/tool:1.3", platforms: [linux/amd64]}
  - {ref: "HOST/shop/tool:latest", platforms: [linux/amd64]}
  - {ref: "HOST/shop/tool@`+d.String()+`", platforms: [linux/amd64]}
artifacts:
  - {ref: "HOST/shop/model:1"}
`, "HOST", host)), host
}

// platformImage has a layer that is not compressed, which bundles carry encoded, and one of its own.
func platformImage(t *testing.T, arch, seed string) v1.Image {
	t.Helper()
	img, err := mutate.AppendLayers(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON),
		static.NewLayer(bytes.Repeat([]byte("base "), 300_000), types.OCIUncompressedLayer),
		static.NewLayer([]byte("\x1f\x8b"+seed+arch), types.OCILayer))
	if err != nil {
		t.Fatal(err)
	}
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c.OS, c.Architecture = "linux", arch
	if img, err = mutate.ConfigFile(img, c); err != nil {
		t.Fatal(err)
	}
	return img
}

func archiveOf(t *testing.T, b *verify.Bundle, o ArchiveOptions) ([]byte, *Archived) {
	t.Helper()
	o.Progress = progress.Discard
	var out bytes.Buffer
	res, err := Archive(t.Context(), b, &out, o)
	if err != nil {
		t.Fatal(err)
	}
	if int64(out.Len()) != res.Bytes {
		t.Errorf("%d bytes, and it says %d", out.Len(), res.Bytes)
	}
	return out.Bytes(), res
}

// entriesOf are the files of an archive, of which each has to be there once, and blobs to be what they
// are called.
func entriesOf(t *testing.T, raw []byte) []string {
	t.Helper()
	var all []string
	r := tar.NewReader(bytes.NewReader(raw))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, r); err != nil {
			t.Fatal(err)
		}
		if want, ok := strings.CutPrefix(h.Name, manifest.BlobPrefix); ok && hex.EncodeToString(sum.Sum(nil)) != want {
			t.Errorf("%s holds %x", h.Name, sum.Sum(nil))
		}
		if slices.Contains(all, h.Name) {
			t.Errorf("%s is there twice", h.Name)
		}
		if h.ModTime.Unix() != 0 || h.Mode != 0o644 || h.Uid != 0 || h.Uname != "" {
			t.Errorf("%s: %+v", h.Name, h)
		}
		all = append(all, h.Name)
	}
}

// checkLoaded reads an archive as we read those of others, and compares: every name leads to its
// digest, and all that is below it is there.
func checkLoaded(t *testing.T, raw []byte, res *Archived) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.tar")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := oci.OpenLocal(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, i := range res.Images {
		d, err := l.Find(i.Name)
		if err != nil || d.Digest != i.Digest {
			t.Errorf("%s: %s, %v, want %s", i.Name, d.Digest, err, i.Digest)
			continue
		}
		checkTree(t, l, d.Digest)
	}
}

func checkTree(t *testing.T, l *oci.Local, digest string) {
	t.Helper()
	c, err := l.Manifest(t.Context(), digest)
	if err != nil {
		t.Fatal(err)
	}
	if oci.IsIndex(c.MediaType) {
		children, err := oci.ParseIndex(c.Raw)
		if err != nil {
			t.Fatal(err)
		}
		for _, child := range children {
			if child.Platform != "linux/s390x" {
				checkTree(t, l, child.Digest)
			}
		}
		return
	}
	img, err := oci.ParseImage(c.Raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range append(img.Layers, img.Config) {
		if !l.Has(d.Digest) {
			t.Errorf("%s is not there", d.Digest)
		}
	}
}

func TestArchiveOfALayout(t *testing.T) {
	b, host := imagesBundle(t)
	raw, res := archiveOf(t, b, ArchiveOptions{Format: ArchiveOCI})
	checkLoaded(t, raw, res)
	entries := entriesOf(t, raw)
	if want := []string{"oci-layout", "index.json"}; !slices.Equal(entries[:2], want) || len(entries) != 2+res.Blobs {
		t.Errorf("%d blobs, %q", res.Blobs, entries)
	}
	byName := map[string]ArchivedImage{}
	for _, i := range res.Images {
		byName[strings.TrimPrefix(i.Name, host+"/")] = i
	}
	for _, img := range b.Manifest().Images {
		short := strings.TrimPrefix(img.Source, host+"/")
		if i := byName[short]; i.Digest != img.Digest || i.Untagged != strings.Contains(short, "@") {
			t.Errorf("%s: %+v, want %s", short, i, img.Digest)
		}
	}
	if len(byName) != 4 {
		t.Errorf("%v", byName)
	}
	if again, _ := archiveOf(t, b, ArchiveOptions{Format: ArchiveOCI}); !bytes.Equal(again, raw) {
		t.Error("twice the same is not the same")
	}

	// Only one platform: that of an index takes its name.
	raw, res = archiveOf(t, b, ArchiveOptions{Format: ArchiveOCI, Platform: "linux/arm64", Images: []string{host + "/shop/app:1"}})
	checkLoaded(t, raw, res)
	if i := res.Images[0]; len(res.Images) != 1 || i.Platform != "linux/arm64" || i.Digest == b.Manifest().Images[0].Digest || res.Blobs != 4 {
		t.Errorf("%+v", res)
	}

	// Artifacts come when they are named.
	raw, res = archiveOf(t, b, ArchiveOptions{Format: ArchiveOCI, Images: []string{host + "/shop/model:1"}})
	checkLoaded(t, raw, res)
}

func TestArchiveForDocker(t *testing.T) {
	b, host := imagesBundle(t)
	raw, res := archiveOf(t, b, ArchiveOptions{Format: ArchiveDocker, Machine: "linux/arm64"})
	checkLoaded(t, raw, res)
	if want := []string{"oci-layout", "index.json", "manifest.json"}; !slices.Equal(entriesOf(t, raw)[:3], want) {
		t.Errorf("%q", entriesOf(t, raw)[:3])
	}
	for _, i := range res.Images {
		want := "linux/amd64"
		if i.Source == host+"/shop/app:1" {
			want = "linux/arm64"
		}
		if i.Platform != want {
			t.Errorf("%s for %q, want %q", i.Source, i.Platform, want)
		}
	}

	// Docker's list alone, as dockers before 25 look at it.
	l, err := oci.OpenLocal(without(t, raw, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, tag := range []string{"/shop/app:1", "/shop/tool:1.3", "/shop/tool:latest"} {
		d, err := l.Find(host + tag)
		if err != nil {
			t.Fatal(err)
		}
		saved, err := l.Manifest(t.Context(), d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		got, err := oci.ParseImage(saved.Raw)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range res.Images {
			if i.Name != host+tag {
				continue
			}
			original, err := b.ReadBlob(i.Digest, manifest.MaxOCIManifestBytes)
			if err != nil {
				t.Fatal(err)
			}
			want, err := oci.ParseImage(original)
			if err != nil {
				t.Fatal(err)
			}
			if got.Config.Digest != want.Config.Digest || len(got.Layers) != 2 || got.Layers[1].Digest != want.Layers[1].Digest || got.Layers[0].Size != want.Layers[0].Size {
				t.Errorf("%s: %+v, want %+v", tag, got, want)
			}
		}
	}
}

// without writes an archive without one of its files.
func without(t *testing.T, raw []byte, name string) string {
	t.Helper()
	var out bytes.Buffer
	r, w := tar.NewReader(bytes.NewReader(raw)), tar.NewWriter(&out)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil && h.Name != name {
			if err = w.WriteHeader(h); err == nil {
				_, err = io.Copy(w, r)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "b.tar")
	if err := errors.Join(w.Close(), os.WriteFile(path, out.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWhatCannotBeArchived(t *testing.T) {
	b, host := imagesBundle(t)
	archive := func(o ArchiveOptions) error {
		o.Progress = progress.Discard
		_, err := Archive(t.Context(), b, io.Discard, o)
		return err
	}
	var missing *NoPlatformError
	if err := archive(ArchiveOptions{Format: ArchiveDocker, Machine: "linux/riscv64"}); !errors.As(err, &missing) || len(missing.Have) != 2 || missing.Want != "linux/riscv64" {
		t.Error(err)
	}
	for _, f := range []ArchiveFormat{ArchiveOCI, ArchiveDocker} {
		// What did not travel, and what an image without an index is not for.
		if err := archive(ArchiveOptions{Format: f, Platform: "linux/s390x"}); !errors.As(err, &missing) || missing.Source != host+"/shop/app:1" {
			t.Error(err)
		}
		if err := archive(ArchiveOptions{Format: f, Platform: "linux/arm64", Images: []string{host + "/shop/tool:1.3"}}); !errors.As(err, &missing) {
			t.Error(err)
		}
	}
	var artifact *NotRunnableError
	if err := archive(ArchiveOptions{Format: ArchiveDocker, Images: []string{host + "/shop/model:1"}}); !errors.As(err, &artifact) {
		t.Error(err)
	}
	var none *NoImageError
	for _, text := range []string{host + "/shop/app:2", host + "/shop/app", "app:1", host + "/shop/app:1@" + digest("0")} {
		if err := archive(ArchiveOptions{Format: ArchiveOCI, Images: []string{text}}); !errors.As(err, &none) || none.Reference != text || len(none.Have) != 5 {
			t.Errorf("%s: %v", text, err)
		}
	}
	var bad *oci.ReferenceError
	if err := archive(ArchiveOptions{Format: ArchiveOCI, Images: []string{"A//b"}}); !errors.As(err, &bad) {
		t.Error(err)
	}
	// By its digest an image is found, whether its source has it or a tag.
	for _, text := range []string{"/shop/app@" + b.Manifest().Images[0].Digest, "/shop/app:1@" + b.Manifest().Images[0].Digest} {
		if err := archive(ArchiveOptions{Format: ArchiveOCI, Images: []string{host + text}}); err != nil {
			t.Error(err)
		}
	}
}

// TestArchiveOfAStream: the bytes are those of the archive of a file.
func TestArchiveOfAStream(t *testing.T) {
	b, _ := imagesBundle(t)
	for _, f := range []ArchiveFormat{ArchiveOCI, ArchiveDocker} {
		o := ArchiveOptions{Format: f, Machine: "linux/amd64"}
		want, _ := archiveOf(t, b, o)
		file, err := os.Open(b.Path())
		if err != nil {
			t.Fatal(err)
		}
		s, err := verify.OpenStream(t.Context(), verify.StreamName, file, verify.Policy{Unsigned: true})
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := archiveOf(t, s, o); !bytes.Equal(got, want) {
			t.Errorf("%s: the stream gives another archive", f)
		}
		if err := errors.Join(s.Close(), file.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestArchiveFile(t *testing.T) {
	b, _ := imagesBundle(t)
	o := ArchiveOptions{Format: ArchiveOCI, Progress: progress.Discard}
	want, _ := archiveOf(t, b, o)
	check := func(path string) {
		t.Helper()
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%v, %d bytes, want %d", err, len(got), len(want))
		}
		if got := names(t, filepath.Dir(path)); got != filepath.Base(path) {
			t.Errorf("%q", got)
		}
	}
	for title, left := range map[string][]byte{
		"nothing": nil, "what a killed one has left": want[:3000], "less than a header of that": want[:100], "an empty file": {},
	} {
		t.Run(title, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a.tar")
			if left != nil {
				if err := os.WriteFile(path+partialSuffix, append(left, bytes.Repeat([]byte("x"), 2*len(want))...)[:len(left)], 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := ArchiveFile(t.Context(), b, path, o); err != nil {
				t.Fatal(err)
			}
			check(path)
			var place *PlaceError
			if _, err := ArchiveFile(t.Context(), b, path, o); !errors.As(err, &place) || place.Path != path {
				t.Error(err)
			}
			check(path)
		})
	}
	for title, put := range map[string]func(string) error{
		"somebody's file": func(p string) error { return os.WriteFile(p, []byte("mine"), 0o600) },
		"a link":          func(p string) error { return os.Symlink("elsewhere", p) },
		"a directory":     func(p string) error { return os.Mkdir(p, 0o755) },
	} {
		t.Run(title, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a.tar")
			if err := put(path + partialSuffix); err != nil {
				t.Fatal(err)
			}
			var place *PlaceError
			if _, err := ArchiveFile(t.Context(), b, path, o); !errors.As(err, &place) {
				t.Error(err)
			}
			if got := names(t, filepath.Dir(path)); got != "a.tar"+partialSuffix {
				t.Errorf("%q", got)
			}
		})
	}
}

// TestArchiveFileStops: wherever it is stopped, nothing is left.
func TestArchiveFileStops(t *testing.T) {
	b, _ := imagesBundle(t)
	for _, after := range []int64{0, 1, 1_000_000} {
		ctx, cancel := context.WithCancel(t.Context())
		if after == 0 {
			cancel()
		}
		dir := t.TempDir()
		_, err := ArchiveFile(ctx, b, filepath.Join(dir, "a.tar"), ArchiveOptions{Format: ArchiveOCI, Progress: &hook{after: after, do: cancel}})
		if !errors.Is(err, context.Canceled) || names(t, dir) != "" {
			t.Errorf("after %d: %v, %q is left", after, err, names(t, dir))
		}
		cancel()
	}
}

// TestArchivesAtTheSameTime: one of them succeeds, or one after the other finds the place taken.
func TestArchivesAtTheSameTime(t *testing.T) {
	b, _ := imagesBundle(t)
	path := filepath.Join(t.TempDir(), "a.tar")
	errs := make(chan error)
	for range 4 {
		go func() {
			_, err := ArchiveFile(t.Context(), b, path, ArchiveOptions{Format: ArchiveOCI, Progress: progress.Discard})
			errs <- err
		}()
	}
	good := 0
	for range 4 {
		err := <-errs
		var place *PlaceError
		switch {
		case err == nil:
			good++
		case errors.Is(err, ErrExtracting), errors.As(err, &place):
		default:
			t.Error(err)
		}
	}
	if good != 1 || names(t, filepath.Dir(path)) != "a.tar" {
		t.Errorf("%d succeeded, %q is there", good, names(t, filepath.Dir(path)))
	}
}
