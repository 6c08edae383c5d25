package oci_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/oci/ocitest"
	"github.com/sealift/sealift/manifest"
)

func openLocal(t *testing.T, path string) *oci.Local {
	t.Helper()
	l, err := oci.OpenLocal(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// sameContent proves that all that a manifest names is there, as it is in want.
func sameContent(t *testing.T, want, got oci.Source, digest string) {
	t.Helper()
	ctx := t.Context()
	w, err := want.Manifest(ctx, digest)
	if err != nil {
		t.Fatal(err)
	}
	g, err := got.Manifest(ctx, digest)
	if err != nil || g.Descriptor != w.Descriptor || !bytes.Equal(g.Raw, w.Raw) {
		t.Fatalf("%+v, %v; want %+v", g, err, w.Descriptor)
	}
	if oci.IsIndex(w.MediaType) {
		children, err := oci.ParseIndex(w.Raw)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range children {
			sameContent(t, want, got, c.Digest)
		}
		return
	}
	sameBlobs(t, got, w.Raw)
}

// sameBlobs proves all blobs of an image, each in whole and from its middle.
func sameBlobs(t *testing.T, s oci.Source, raw []byte) {
	t.Helper()
	ctx := t.Context()
	img, err := oci.ParseImage(raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range append(img.Layers, img.Config) {
		whole, err := io.ReadAll(s.Blob(ctx, d, 0))
		if err != nil || manifest.Digest(whole) != d.Digest || int64(len(whole)) != d.Size {
			t.Fatalf("%+v: %d bytes, %v", d, len(whole), err)
		}
		if rest, err := io.ReadAll(s.Blob(ctx, d, d.Size/2)); err != nil || !bytes.Equal(rest, whole[d.Size/2:]) {
			t.Fatalf("%+v from its middle: %d bytes, %v", d, len(rest), err)
		}
		if small, err := s.ReadBlob(ctx, d, 1<<20); err != nil || !bytes.Equal(small, whole) {
			t.Fatalf("%+v: %d bytes, %v", d, len(small), err)
		}
	}
}

// TestLayout: an image of several platforms with all that is about it, from a directory and from a
// tar of it.
func TestLayout(t *testing.T) {
	reg := ocitest.New(t, ocitest.WithAPI)
	repo := reg.Open(t, "team/app")
	index, children := ocitest.Index(t, repo, "1", "app", "amd64", "arm64")
	sbom := ocitest.Attach(t, repo, index, "application/spdx+json", ocitest.SBOM("x"))
	other := ocitest.Attach(t, repo, children[0], "application/x", ocitest.SBOM("y"))
	signature := ocitest.Tag(t, repo, index, ".sig", ocitest.SBOM("z"))
	list := ocitest.PutManifest(t, repo, "list", ocitest.MediaTypeIndex, []byte(`{"schemaVersion":2,"mediaType":"`+ocitest.MediaTypeIndex+`","manifests":[
		{"mediaType":"`+ocitest.MediaTypeManifest+`","digest":"`+sbom+`","size":1,"artifactType":"application/spdx+json"},
		{"mediaType":"`+ocitest.MediaTypeManifest+`","digest":"`+other+`","size":1}]}`))
	dir := ocitest.Layout(t, repo,
		ocitest.Named(index, "registry.example/team/app:1"), ocitest.Root{Digest: sbom}, ocitest.Root{Digest: other},
		ocitest.Named(signature, "team/app:"+manifest.ReferrerTag(index, ".sig")),
		ocitest.Named(list, oci.ReferrersTag(children[1])))
	for _, path := range []string{dir, ocitest.Tar(t, dir)} {
		ctx := t.Context()
		l := openLocal(t, path)
		d, err := l.Find("registry.example/team/app:1")
		if err != nil || d.Digest != index || d.MediaType != ocitest.MediaTypeIndex {
			t.Fatalf("%+v, %v", d, err)
		}
		sameContent(t, repo, l, index)
		for identifier, want := range map[string]string{
			"1": index, "registry.example/team/app:1": index, index: index, children[1]: children[1], "2": "", d1: "",
			manifest.ReferrerTag(index, ".sig"): signature, oci.ReferrersTag(children[1]): list,
		} {
			got, err := l.ManifestDigest(ctx, identifier)
			if err != nil || got != want {
				t.Errorf("%s has digest %q, want %q, %v", identifier, got, want, err)
			}
			c, err := l.Manifest(ctx, identifier)
			if want == "" && !oci.IsNotFound(err) || want != "" && (err != nil || c.Digest != want) {
				t.Errorf("%s: %v", identifier, err)
			}
		}
		for subject, want := range map[string][]string{index: {sbom}, children[0]: {other}, children[1]: {sbom, other}, d1: nil} {
			got, viaAPI, err := l.Referrers(ctx, subject)
			var digests []string
			for _, g := range got {
				digests = append(digests, g.Digest)
			}
			slices.Sort(want)
			if err != nil || viaAPI || !slices.Equal(digests, want) {
				t.Errorf("referrers of %s: %v, %v, want %v", subject, digests, err, want)
			}
		}
		got, _, err := l.Referrers(ctx, index)
		if err != nil || got[0].ArtifactType != "application/spdx+json" || got[0].Annotations["org.opencontainers.image.created"] == "" {
			t.Errorf("%+v, %v", got, err)
		}
		if got, err := l.Find("anything.example/else:7"); err != nil || got.Digest != index {
			t.Errorf("the only image there is: %v, %v", got, err)
		}
	}
}

// TestCosignSave: what "cosign save" has about its one image is found under cosign's tags.
func TestCosignSave(t *testing.T) {
	repo := ocitest.New(t, ocitest.WithoutAPI).Open(t, "a/b")
	image := ocitest.Image(t, repo, "1", "amd64", "x")
	signatures := ocitest.Tag(t, repo, image, ".sig", ocitest.SBOM("z"))
	l := openLocal(t, ocitest.Layout(t, repo,
		ocitest.Root{Digest: signatures, Annotations: map[string]string{"kind": "dev.cosignproject.cosign/sigs"}},
		ocitest.Root{Digest: image, Annotations: map[string]string{"kind": "dev.cosignproject.cosign/image"}}))
	if d, err := l.Find("registry.example/a/b:1"); err != nil || d.Digest != image {
		t.Fatalf("%+v, %v", d, err)
	}
	if got, err := l.ManifestDigest(t.Context(), manifest.ReferrerTag(image, ".sig")); err != nil || got != signatures {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestFind(t *testing.T) {
	repo := ocitest.New(t, ocitest.WithoutAPI).Open(t, "a/b")
	x, y := ocitest.Image(t, repo, "x", "amd64", "x"), ocitest.Image(t, repo, "y", "amd64", "y")
	containerd := func(digest, name, tag string) ocitest.Root {
		return ocitest.Root{Digest: digest, Annotations: map[string]string{
			"io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag,
		}}
	}
	for name, c := range map[string]struct {
		roots []ocitest.Root
		want  map[string]string
		have  string
	}{
		"names": {[]ocitest.Root{ocitest.Named(x, "nginx:1"), ocitest.Named(y, "quay.io/a/b:1")}, map[string]string{
			"nginx:1": x, "docker.io/library/nginx:1": x, "quay.io/a/b:1": y, "quay.io/a/b@" + y: y, "quay.io/a/b:9@" + x: x,
			"quay.io/a/b": "", "nginx:2": "", "quay.io/a/nginx:1": "", "quay.io/a/b@" + d1: "",
		}, "docker.io/library/nginx:1 quay.io/a/b:1"},
		"tags": {[]ocitest.Root{ocitest.Named(x, "1"), ocitest.Named(y, "latest")}, map[string]string{
			"nginx:1": x, "quay.io/a/b:1": x, "nginx": y, "nginx:3": "",
		}, "1 latest"},
		"containerd's": {[]ocitest.Root{containerd(x, "docker.io/library/nginx:1", "1"), containerd(y, "docker.io/library/redis:7", "7")}, map[string]string{
			"nginx:1": x, "redis:7": y, "mysql:7": "", // its tag is that of another image, which has a name
		}, "docker.io/library/nginx:1 docker.io/library/redis:7"},
		"without names": {[]ocitest.Root{{Digest: x}, {Digest: y}}, map[string]string{"nginx:1": "", "nginx@" + x: x}, ""},
		"one twice":     {[]ocitest.Root{ocitest.Named(x, "1"), ocitest.Named(x, "2")}, map[string]string{"nginx:1": x, "nginx:3": x}, ""},
		"a tag twice":   {[]ocitest.Root{ocitest.Named(x, "1"), ocitest.Named(y, "1")}, map[string]string{"nginx:1": ""}, "1@" + min(x, y) + " 1@" + max(x, y)},
		"only one":      {[]ocitest.Root{{Digest: x}}, map[string]string{"nginx:1": x, "nginx@" + y: ""}, ""},
		"none":          {nil, map[string]string{"nginx:1": ""}, ""},
	} {
		l := openLocal(t, ocitest.Layout(t, repo, c.roots...))
		for reference, want := range c.want {
			d, err := l.Find(reference)
			var ambiguous *oci.AmbiguousError
			switch {
			case want == "" && !errors.As(err, &ambiguous):
				t.Errorf("%s: %s is %q, %v; want an *AmbiguousError", name, reference, d.Digest, err)
			case want == "" && c.have != "" && strings.Join(ambiguous.Have, " ") != c.have:
				t.Errorf("%s: it has %q, want %q", name, ambiguous.Have, c.have)
			case want == "":
			case err != nil || d.Digest != want || d.Size == 0 || d.MediaType != ocitest.MediaTypeManifest:
				t.Errorf("%s: %s is %+v, %v; want %s", name, reference, d, err, want)
			}
		}
	}
	l := openLocal(t, ocitest.Layout(t, repo, ocitest.Named(x, "quay.io/a:1"), ocitest.Named(y, "quay.io/b:1")))
	var ambiguous *oci.AmbiguousError
	if _, err := l.Manifest(t.Context(), "1"); !errors.As(err, &ambiguous) {
		t.Errorf("a tag of two images: %v", err)
	}
	var wrong *oci.ReferenceError
	if _, err := l.Find("not a reference"); !errors.As(err, &wrong) {
		t.Error(err)
	}
}

// plain is a layer that is a tar of one file.
func plain(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "file", Mode: 0o644, Size: int64(len(text))}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zipped(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestDockerArchive: the config stays what it is, layers are those of the config, and the manifest
// is always the same.
func TestDockerArchive(t *testing.T) {
	one, two := plain(t, "one"), plain(t, strings.Repeat("two", 5000))
	saved := []ocitest.Saved{
		ocitest.SavedImage(t, "amd64", []string{"nginx:1", "quay.io/a/nginx:1"}, one, two, one),
		ocitest.SavedImage(t, "arm64", nil, two),
		ocitest.SavedImage(t, "amd64", []string{"scratch.example/empty:1"}),
	}
	path := ocitest.DockerArchive(t, saved...)
	l := openLocal(t, path)
	d, err := l.Find("docker.io/library/nginx:1")
	if err != nil {
		t.Fatal(err)
	}
	c, err := l.Manifest(t.Context(), "quay.io/a/nginx:1")
	if err != nil || c.Descriptor != d || manifest.Digest(c.Raw) != d.Digest {
		t.Fatalf("%+v, %v", c, err)
	}
	img, err := oci.ParseImage(c.Raw)
	if err != nil || img.Config.Digest != manifest.Digest(saved[0].Config) || len(img.Layers) != 3 {
		t.Fatalf("%+v, %v", img, err)
	}
	for i, content := range saved[0].Layers {
		if got := img.Layers[i]; got.Digest != manifest.Digest(content) || got.Size != int64(len(content)) || !oci.IsUncompressed(got.MediaType) {
			t.Errorf("layer %d: %+v", i, got)
		}
	}
	sameBlobs(t, l, c.Raw)
	if whole, err := io.ReadAll(l.Blob(t.Context(), d, 0)); err != nil || !bytes.Equal(whole, c.Raw) {
		t.Errorf("the manifest as a blob: %q, %v", whole, err)
	}
	// This is what such an image is, for good.
	const known = "sha256:274e8bd78590301ede7c21319ad8de55879e43811c21632a490b60f6ebfb2a8d"
	fixed := openLocal(t, ocitest.DockerArchive(t, ocitest.Saved{
		Config: []byte(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["` + manifest.Digest([]byte("layer")) + `"]}}`),
		Layers: [][]byte{[]byte("layer")},
	}))
	if d, err := fixed.Find("any:1"); err != nil || d.Digest != known {
		t.Errorf("%+v, %v", d, err)
	}
	var ambiguous *oci.AmbiguousError
	if _, err := l.Find("other:1"); !errors.As(err, &ambiguous) || len(ambiguous.Have) != 4 {
		t.Errorf("%v", err)
	}
}

// TestDockerArchiveOfOthers: crane and kaniko save compressed layers, of which the config has no digest.
func TestDockerArchiveOfOthers(t *testing.T) {
	one := plain(t, "one")
	small := zipped(t, one)
	saved := ocitest.SavedImage(t, "amd64", []string{"a.example/b:1"}, one, one)
	saved.Layers = [][]byte{small, small}
	l := openLocal(t, ocitest.DockerArchive(t, saved))
	c, err := l.Manifest(t.Context(), "1")
	if err != nil {
		t.Fatal(err)
	}
	img, err := oci.ParseImage(c.Raw)
	if err != nil || img.Layers[1].Digest != manifest.Digest(small) || oci.IsUncompressed(img.Layers[1].MediaType) {
		t.Fatalf("%+v, %v", img, err)
	}
	sameBlobs(t, l, c.Raw)
	saved.Layers[1] = []byte("\x28\xb5\x2f\xfd and so on")
	if _, err := oci.OpenLocal(ocitest.DockerArchive(t, saved)); !errors.Is(err, oci.ErrUnsupported) {
		t.Errorf("%v", err)
	}
	saved.Layers = saved.Layers[:1]
	var local *oci.LocalError
	if _, err := oci.OpenLocal(ocitest.DockerArchive(t, saved)); !errors.As(err, &local) {
		t.Errorf("fewer layers than the config has: %v", err)
	}
}

// TestDocker25: what is both a layout and an old archive is the first, unless that lacks something.
func TestDocker25(t *testing.T) {
	ctx := t.Context()
	repo := ocitest.New(t, ocitest.WithoutAPI).Open(t, "a/b")
	image := ocitest.Image(t, repo, "1", "amd64", "x")
	index, children := ocitest.Index(t, repo, "2", "y", "amd64", "arm64")
	asSaved := func(dir, image string) {
		c, err := repo.Manifest(ctx, image)
		if err != nil {
			t.Fatal(err)
		}
		img, err := oci.ParseImage(c.Raw)
		if err != nil {
			t.Fatal(err)
		}
		file := func(digest string) string { return "blobs/" + strings.Replace(digest, ":", "/", 1) }
		raw, err := json.Marshal([]any{map[string]any{"Config": file(img.Config.Digest), "RepoTags": []string{"a/b:1"}, "Layers": []string{file(img.Layers[0].Digest)}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "manifest.json"), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	remove := func(dir, digest string) {
		if err := os.Remove(filepath.Join(dir, "blobs", "sha256", strings.TrimPrefix(digest, "sha256:"))); err != nil {
			t.Fatal(err)
		}
	}
	find := func(dir string) string {
		d, err := openLocal(t, ocitest.Tar(t, dir)).Find("docker.io/a/b:1")
		if err != nil {
			t.Fatal(err)
		}
		return d.Digest
	}
	dir := ocitest.Layout(t, repo, ocitest.Named(image, "1"))
	asSaved(dir, image)
	if got := find(dir); got != image {
		t.Errorf("complete: got %s, want %s", got, image)
	}
	remove(dir, image)
	if got := find(dir); got == image {
		t.Error("without its manifest it still is a layout")
	}
	// Docker saves one platform of many, and the index of all.
	dir = ocitest.Layout(t, repo, ocitest.Named(index, "1"))
	asSaved(dir, children[0])
	remove(dir, children[1])
	if got := find(dir); got != index {
		t.Errorf("one platform of two: got %s, want %s", got, index)
	}
	remove(dir, children[0])
	if got := find(dir); got == index {
		t.Error("without any platform it still is a layout")
	}
}

// TestLocalContentIsProven: what is read into memory is what its digest says, or an error.
func TestLocalContentIsProven(t *testing.T) {
	ctx := t.Context()
	repo := ocitest.New(t, ocitest.WithoutAPI).Open(t, "a/b")
	image := ocitest.Image(t, repo, "1", "amd64", "x")
	c, err := repo.Manifest(ctx, image)
	if err != nil {
		t.Fatal(err)
	}
	img, err := oci.ParseImage(c.Raw)
	if err != nil {
		t.Fatal(err)
	}
	dir := ocitest.Layout(t, repo, ocitest.Named(image, "1"))
	change := func(digest string, f func([]byte) []byte) {
		path := filepath.Join(dir, "blobs", "sha256", strings.TrimPrefix(digest, "sha256:"))
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, f(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	flip := func(b []byte) []byte { b[len(b)/2] ^= 1; return b }
	change(image, flip)
	change(img.Config.Digest, flip)
	change(img.Layers[0].Digest, func(b []byte) []byte { return b[:3] })
	for _, path := range []string{dir, ocitest.Tar(t, dir)} {
		l := openLocal(t, path)
		var wrong *oci.DigestError
		if _, err := l.Manifest(ctx, "1"); !errors.As(err, &wrong) || wrong.Want != image {
			t.Errorf("%v, want a *DigestError", err)
		}
		if _, err := l.Find("a/b:1"); !errors.As(err, &wrong) {
			t.Errorf("%v, want a *DigestError", err)
		}
		if _, err := l.ReadBlob(ctx, img.Config, 1<<20); !errors.As(err, &wrong) {
			t.Errorf("%v, want a *DigestError", err)
		}
		var large *oci.TooLargeError
		if _, err := l.ReadBlob(ctx, img.Config, 5); !errors.As(err, &large) {
			t.Errorf("%v, want a *TooLargeError", err)
		}
		r := l.Blob(ctx, img.Layers[0], 0)
		var local *oci.LocalError
		if got, err := io.ReadAll(r); !errors.Is(err, io.ErrUnexpectedEOF) || !errors.As(err, &local) || len(got) != 3 {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if _, err := r.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("the error does not stay: %v", err)
		}
		for _, digest := range []string{d1, "sha256:../../index.json", "../../index.json", ""} {
			if _, err := io.ReadAll(l.Blob(ctx, manifest.Descriptor{Digest: digest, Size: 1}, 0)); err == nil {
				t.Errorf("%q was read", digest)
			}
			if _, err := l.ReadBlob(ctx, manifest.Descriptor{Digest: digest, Size: 1}, 10); err == nil {
				t.Errorf("%q was read", digest)
			}
		}
		done, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := io.ReadAll(l.Blob(done, img.Config, 0)); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		r = l.Blob(ctx, img.Config, 0)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(r); err == nil {
			t.Error("a blob was read of what is closed")
		}
	}
}

func writeTar(t *testing.T, headers ...tar.Header) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		content := h.Uname // of no other use here
		h.Uname, h.Mode, h.Size = "", 0o644, int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "x.tar")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestLinks: they are followed inside, and lead nowhere else.
func TestLinks(t *testing.T) {
	layer := "not really a tar"
	config := `{"rootfs":{"diff_ids":["` + manifest.Digest([]byte(layer)) + `"]}}`
	saved := func(name string) tar.Header {
		return tar.Header{Name: "./manifest.json", Uname: `[{"Config":"c.json","Layers":["` + name + `"]}]`}
	}
	file := func(name, content string) tar.Header { return tar.Header{Name: name, Uname: content} }
	link := func(name, to string) tar.Header {
		return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}
	}
	long := strings.Repeat("long/", 60) + "layer.tar"
	for name, c := range map[string]struct {
		headers []tar.Header
		ok      bool
	}{
		"a file":         {[]tar.Header{file("./a/layer.tar", layer), saved("a/layer.tar")}, true},
		"a long name":    {[]tar.Header{file(long, layer), saved(long)}, true},
		"twice":          {[]tar.Header{file("a", "old"), file("a", layer), saved("a")}, true},
		"a symlink":      {[]tar.Header{link("b/layer.tar", "../a/layer.tar"), file("a/layer.tar", layer), saved("b/layer.tar")}, true},
		"a hard link":    {[]tar.Header{file("a/layer.tar", layer), {Name: "b/layer.tar", Typeflag: tar.TypeLink, Linkname: "a/layer.tar"}, saved("b/layer.tar")}, true},
		"to nothing":     {[]tar.Header{link("b/layer.tar", "../a/layer.tar"), saved("b/layer.tar")}, false},
		"a circle":       {[]tar.Header{link("a", "b"), link("b", "a"), saved("a")}, false},
		"out":            {[]tar.Header{link("a", "../../../../../../etc/passwd"), saved("a")}, false},
		"absolute":       {[]tar.Header{link("a", "/etc/passwd"), saved("a")}, false},
		"a name outside": {[]tar.Header{file("../a", layer), saved("../a")}, false},
		"overwritten":    {[]tar.Header{file("a", layer), link("a", "/etc/passwd"), saved("a")}, false},
		"a directory":    {[]tar.Header{{Name: "a", Typeflag: tar.TypeDir}, saved("a")}, false},
	} {
		path := writeTar(t, append(c.headers, file("c.json", config))...)
		l, err := oci.OpenLocal(path)
		if !c.ok {
			if !errors.Is(err, oci.ErrAbsent) && err == nil {
				t.Errorf("%s: it was opened", name)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, err := io.ReadAll(l.Blob(t.Context(), manifest.Descriptor{Digest: manifest.Digest([]byte(layer)), Size: int64(len(layer))}, 0))
		if err != nil || string(got) != layer {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	// In a directory as well.
	dir, secret := t.TempDir(), filepath.Join(t.TempDir(), "secret")
	for path, content := range map[string]string{
		secret: layer, filepath.Join(dir, "c.json"): config, filepath.Join(dir, "manifest.json"): saved("a").Uname, filepath.Join(dir, "b"): layer,
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(secret, filepath.Join(dir, "a")); err != nil {
		t.Skip("no links here:", err)
	}
	if _, err := oci.OpenLocal(dir); err == nil {
		t.Error("a link led out of the directory")
	}
	if err := errors.Join(os.Remove(filepath.Join(dir, "a")), os.Symlink("b", filepath.Join(dir, "a"))); err != nil {
		t.Fatal(err)
	}
	openLocal(t, dir)
}

func TestNotImages(t *testing.T) {
	write := func(content []byte) string {
		path := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	archive, err := os.ReadFile(ocitest.DockerArchive(t, ocitest.SavedImage(t, "amd64", nil, plain(t, "x"))))
	if err != nil {
		t.Fatal(err)
	}
	for format, begin := range map[string][]byte{
		"gzip": zipped(t, archive), "zstd": []byte("\x28\xb5\x2f\xfd..."), "xz": []byte("\xfd7zXZ\x00..."), "bzip2": []byte("BZh9..."),
	} {
		var compressed *oci.CompressedError
		if _, err := oci.OpenLocal(write(begin)); !errors.As(err, &compressed) || compressed.Format != format {
			t.Errorf("%s: %v", format, err)
		}
	}
	saved := func(text string) string { return writeTar(t, tar.Header{Name: "manifest.json", Uname: text}) }
	layout := func(version, index string) string {
		return writeTar(t, tar.Header{Name: "oci-layout", Uname: version}, tar.Header{Name: "index.json", Uname: index})
	}
	const v1 = `{"imageLayoutVersion":"1.0.0"}`
	for name, path := range map[string]string{
		"nothing":               filepath.Join(t.TempDir(), "x"),
		"an empty file":         write(nil),
		"an empty directory":    t.TempDir(),
		"text":                  write([]byte(strings.Repeat("words ", 1000))),
		"a tar of other things": writeTar(t, tar.Header{Name: "x"}),
		"a cut tar":             write(archive[:len(archive)-2000]),
		"no JSON":               saved("x"),
		"no config":             saved(`[{}]`),
		"a config outside":      saved(`[{"Config":"../../../etc/passwd"}]`),
		"itself as the config":  saved(`[{"Config":"manifest.json"}]`),
		"without a version":     layout("{}", `{"manifests":[]}`),
		"of another version":    layout(`{"imageLayoutVersion":"2.0.0"}`, `{"manifests":[]}`),
		"no index":              layout(v1, "[]"),
		"no digest":             layout(v1, `{"manifests":[{"digest":"sha256:1"}]}`),
		"a giant manifest":      layout(v1, `{"manifests":[{"digest":"`+d1+`","size":99999999999}]}`),
		"a giant index":         layout(v1, `{"manifests":[]}`+strings.Repeat(" ", 5<<20)),
	} {
		var local *oci.LocalError
		if _, err := oci.OpenLocal(path); !errors.As(err, &local) {
			t.Errorf("%s: %v, want a *LocalError", name, err)
		}
	}
	// The rest of a layout can be used where something is missing.
	l := openLocal(t, layout(v1, `{"manifests":[{"digest":"`+d1+`","size":1,"annotations":{"org.opencontainers.image.ref.name":"1"}}]}`))
	if _, err := l.Manifest(t.Context(), "1"); !oci.IsNotFound(err) {
		t.Errorf("%v", err)
	}
}

// TestToolsSave: what skopeo writes, as each kind of file that there is.
func TestToolsSave(t *testing.T) {
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("skopeo is not installed")
	}
	reg := ocitest.New(t, ocitest.WithoutAPI)
	// A real image: skopeo looks into its layers.
	layer := zipped(t, plain(t, "content"))
	repo := reg.Open(t, "team/app")
	config := []byte(`{"os":"linux","architecture":"amd64","config":{"Cmd":["/x"]},"rootfs":{"type":"layers","diff_ids":["` + manifest.Digest(plain(t, "content")) + `"]}}`)
	ocitest.PutBlob(t, repo, layer)
	ocitest.PutBlob(t, repo, config)
	image := ocitest.PutManifest(t, repo, "1", ocitest.MediaTypeManifest, []byte(`{"schemaVersion":2,"mediaType":"`+ocitest.MediaTypeManifest+`",`+
		`"config":{"mediaType":"`+ocitest.MediaTypeConfig+`","digest":"`+manifest.Digest(config)+`","size":`+jsonOf(t, len(config))+`},`+
		`"layers":[{"mediaType":"`+ocitest.MediaTypeLayer+`","digest":"`+manifest.Digest(layer)+`","size":`+jsonOf(t, len(layer))+`}]}`))
	index := ocitest.PutManifest(t, repo, "all", ocitest.MediaTypeIndex, []byte(`{"schemaVersion":2,"mediaType":"`+ocitest.MediaTypeIndex+`","manifests":[{"mediaType":"`+
		ocitest.MediaTypeManifest+`","digest":"`+image+`","size":`+jsonOf(t, size(t, repo, image))+`,"platform":{"os":"linux","architecture":"amd64"}}]}`))
	dir := t.TempDir()
	run := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), skopeo, append([]string{"--insecure-policy", "--tmpdir", t.TempDir(), "copy", "--src-tls-verify=false"}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("skopeo %v: %v\n%s", args, err, out)
		}
	}
	from := "docker://" + reg.Addr + "/team/app:"
	run(from+"1", "oci-archive:"+dir+"/a.tar:registry.example/team/app:1")
	run(from+"1", "oci:"+dir+"/layout:1")
	run("--all", from+"all", "oci:"+dir+"/layout:all")
	run(from+"1", "docker-archive:"+dir+"/d.tar:registry.example/team/app:1")
	for path, want := range map[string]map[string]string{
		"a.tar":  {"registry.example/team/app:1": image},
		"layout": {"registry.example/team/app:1": image, "registry.example/team/app:all": index},
	} {
		l := openLocal(t, filepath.Join(dir, path))
		for _, reference := range slices.Sorted(maps.Keys(want)) {
			d, err := l.Find(reference)
			if err != nil || d.Digest != want[reference] {
				t.Fatalf("%s: %s is %+v, %v; want %s", path, reference, d, err, want[reference])
			}
			sameContent(t, repo, l, d.Digest)
		}
	}
	l := openLocal(t, filepath.Join(dir, "d.tar"))
	d, err := l.Find("registry.example/team/app:1")
	if err != nil {
		t.Fatal(err)
	}
	c, err := l.Manifest(t.Context(), d.Digest)
	if err != nil {
		t.Fatal(err)
	}
	img, err := oci.ParseImage(c.Raw)
	if err != nil || len(img.Layers) != 1 || img.Layers[0].Digest != manifest.Digest(plain(t, "content")) {
		t.Fatalf("%+v, %v", img, err)
	}
	sameBlobs(t, l, c.Raw)
	// The manifest that was made for it is one that others take.
	moved := reg.Open(t, "moved")
	for _, d := range append(img.Layers, img.Config) {
		blob, err := l.ReadBlob(t.Context(), d, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		ocitest.PutBlob(t, moved, blob)
	}
	ocitest.PutManifest(t, moved, "1", c.MediaType, c.Raw)
	run("docker://"+reg.Addr+"/moved:1", "oci-archive:"+dir+"/moved.tar:1")
}

// TestPodmanSaves: what podman writes, and buildah before it.
func TestPodmanSaves(t *testing.T) {
	dir := t.TempDir()
	run := func(tool string, args ...string) error {
		path, err := exec.LookPath(tool)
		if err != nil {
			return err
		}
		store := []string{"--root", filepath.Join(dir, "store"), "--runroot", filepath.Join(dir, "run"), "--storage-driver", "vfs"}
		if out, err := exec.CommandContext(t.Context(), path, append(store, args...)...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s %v: %w\n%s", tool, args, err, out)
		}
		return nil
	}
	for name, text := range map[string]string{"Dockerfile": "FROM scratch\nCOPY file /file\n", "file": "content"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := run("buildah", "bud", "--isolation", "chroot", "-t", "localhost/app:1", dir); err != nil {
		t.Skip("nothing can be built here:", err)
	}
	if err := run("podman", "images"); err != nil {
		t.Skip("podman does not run here:", err)
	}
	configs := map[string]bool{}
	for _, format := range []string{"oci-archive", "docker-archive"} {
		file := filepath.Join(dir, format)
		if err := run("podman", "save", "--format", format, "-o", file, "localhost/app:1"); err != nil {
			t.Fatal(err)
		}
		l := openLocal(t, file)
		d, err := l.Find("localhost/app:1")
		if err != nil {
			t.Fatal(err)
		}
		c, err := l.Manifest(t.Context(), d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		img, err := oci.ParseImage(c.Raw)
		if err != nil || len(img.Layers) != 1 {
			t.Fatalf("%s: %+v, %v", format, img, err)
		}
		sameBlobs(t, l, c.Raw)
		configs[img.Config.Digest] = true
	}
	if len(configs) != 1 {
		t.Errorf("the image has another ID in each archive: %v", configs)
	}
}

// TestLibrarySaves: what crane and ko write, which are go-containerregistry.
func TestLibrarySaves(t *testing.T) {
	img, err := random.Image(1000, 3)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	tag, err := name.NewTag("quay.io/a/b:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := tarball.WriteToFile(filepath.Join(dir, "saved.tar"), tag, img); err != nil {
		t.Fatal(err)
	}
	written, err := layout.Write(filepath.Join(dir, "layout"), empty.Index)
	if err == nil {
		err = written.AppendImage(img)
	}
	if err != nil {
		t.Fatal(err)
	}
	for path, exact := range map[string]bool{"saved.tar": false, "layout": true} {
		l := openLocal(t, filepath.Join(dir, path))
		d, err := l.Find("quay.io/a/b:1")
		if err != nil || exact && d.Digest != digest.String() {
			t.Fatalf("%s: %+v, %v", path, d, err)
		}
		c, err := l.Manifest(t.Context(), d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		if parsed, err := oci.ParseImage(c.Raw); err != nil || parsed.Config.Digest != config.String() || len(parsed.Layers) != 3 {
			t.Errorf("%s: %+v, %v", path, parsed, err)
		}
		sameBlobs(t, l, c.Raw)
	}
}

func jsonOf(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func size(t *testing.T, repo *oci.Repository, digest string) int64 {
	t.Helper()
	c, err := repo.Manifest(t.Context(), digest)
	if err != nil {
		t.Fatal(err)
	}
	return c.Size
}

// FuzzOpenLocal feeds foreign bytes to what reads archives: whatever they are, it ends, and what it
// gives as content is proven.
func FuzzOpenLocal(f *testing.F) {
	seed := func(path string) {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	seed(ocitest.DockerArchive(f, ocitest.SavedImage(f, "amd64", []string{"a:1"}, []byte("x"), []byte("x"), []byte("\x1f\x8b")), ocitest.SavedImage(f, "arm64", nil)))
	repo := ocitest.New(f, ocitest.WithAPI).Open(f, "a/b")
	index, _ := ocitest.Index(f, repo, "1", "x", "amd64", "arm64")
	seed(ocitest.Tar(f, ocitest.Layout(f, repo, ocitest.Named(index, "1"), ocitest.Root{Digest: ocitest.Attach(f, repo, index, "x/y")})))
	f.Add([]byte("\x1f\x8b"))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := oci.OpenLocal(path)
		if err != nil {
			return
		}
		defer l.Close()
		ctx := t.Context()
		d, err := l.Find("a:1")
		if err != nil {
			return
		}
		if _, _, err := l.Referrers(ctx, d.Digest); err != nil {
			return
		}
		c, err := l.Manifest(ctx, d.Digest)
		if err != nil || manifest.Digest(c.Raw) != d.Digest {
			t.Fatalf("%+v was found, and read as %+v, %v", d, c, err)
		}
		img, err := oci.ParseImage(c.Raw)
		if err != nil {
			return
		}
		for _, d := range append(img.Layers, img.Config) {
			if raw, err := l.ReadBlob(ctx, d, 1<<20); err == nil && manifest.Digest(raw) != d.Digest {
				t.Fatalf("%+v was read as something else", d)
			}
		}
	})
}
