package publish

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/sealift/sealift/internal/oci/ocitest"
	"github.com/sealift/sealift/internal/progress"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// anArtifact has all that there can be.
func anArtifact() *artifact {
	d := func(mediaType, text string) manifest.Descriptor {
		return manifest.Descriptor{Digest: manifest.Digest([]byte(text)), MediaType: mediaType, Size: int64(len(text))}
	}
	return &artifact{
		fileName: "shop-1.0.0.tar.zst", version: "1.0.0", created: "2026-01-02T03:04:05Z", head: 65536,
		manifest: d(manifest.MediaType, "manifest"), slots: d(mediaTypeSlots, "slots"), checks: d(mediaTypeChecks, "checks"),
		detached: []manifest.Descriptor{d(mediaTypeDetached, "one"), d(mediaTypeDetached, "two")},
		entries: []manifest.Entry{
			manifest.EntryFor(manifest.EntryOCILayout, manifest.OCILayout()), manifest.EntryFor("blobs/sha256/"+strings.Repeat("a", 64)+".zst", []byte("zstd")),
		},
	}
}

// reread is a as it is read from its documents.
func reread(a *artifact, most int) (*artifact, int, error) {
	top, parts, err := a.encode(most)
	if err != nil {
		return nil, 0, err
	}
	d, err := parseDocument(top.Raw)
	if err != nil {
		return nil, 0, err
	}
	if _, err := d.partsOf(); err != nil {
		return nil, 0, err
	}
	layers := d.Layers
	for _, p := range parts {
		part, err := parseDocument(p.Raw)
		if err != nil {
			return nil, 0, err
		}
		layers = append(layers, part.Layers...)
	}
	again, err := parse(d, layers)
	return again, len(parts), err
}

func TestArtifact(t *testing.T) {
	a := anArtifact()
	for most, parts := range map[int]int{100: 0, 7: 0, 6: 2, 1: 7} {
		again, n, err := reread(a, most)
		if err != nil || n != parts || !reflect.DeepEqual(a, again) {
			t.Errorf("%d layers in a manifest: %d parts, %+v, %v", most, n, again, err)
		}
	}
}

// TestArtifactForm: the form is frozen, to the byte. docs/publish.md shows it for a bundle that is
// frozen, too.
func TestArtifactForm(t *testing.T) {
	r := ocitest.New(t, ocitest.WithoutAPI)
	for name, layers := range map[string]int{"whole": 0, "parts": 4} {
		_, err := Push(context.Background(), find(t, "../../testdata/bundles/golden-1.0.0.tar.zst"), reference(r, name), PushOptions{
			Client: client(), Progress: progress.Discard, layers: layers,
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	page := string(read(t, "../../docs/publish.md"))
	for _, tag := range []string{"whole", "parts"} {
		c := must(r.Open(t, "bundles/shop").Manifest(context.Background(), tag))
		if !strings.Contains(page, "\n"+string(c.Raw)+"\n") || !strings.Contains(page, c.Digest) {
			t.Errorf("docs/publish.md does not show this:\n%s\n%s", c.Digest, c.Raw)
		}
	}
}

// TestManyEntries: a bundle of as many entries as there can be fits into manifests that registries
// take.
func TestManyEntries(t *testing.T) {
	a := anArtifact()
	a.entries = nil
	for i := range manifest.MaxEntries {
		content := fmt.Appendf(nil, "%d", i)
		e := manifest.EntryFor("", content)
		e.Name, e.Size = manifest.BlobPrefix+e.SHA256+manifest.ZstdSuffix, manifest.MaxEntryBytes
		a.entries = append(a.entries, e)
	}
	top, parts, err := a.encode(maxLayers)
	if err != nil || len(parts) > maxParts {
		t.Fatalf("%d parts, %v", len(parts), err)
	}
	for _, c := range append(parts, top) {
		if c.Size > manifest.MaxOCIManifestBytes/2 {
			t.Fatalf("a manifest of %d bytes", c.Size)
		}
	}
	if again, _, err := reread(a, maxLayers); err != nil || !reflect.DeepEqual(a, again) {
		t.Fatal(err)
	}
	a.entries = append(a.entries, a.entries[0])
	if _, _, err := reread(a, maxLayers); err == nil {
		t.Fatal("one entry too many: no error")
	}
}

// TestMalformed: what is marked as a bundle and is none is refused, whatever is wrong with it.
func TestMalformed(t *testing.T) {
	r := ocitest.New(t, ocitest.WithoutAPI)
	p, ref := pack(t, random(1, 100)).write(t), reference(r, "1")
	push(t, p, ref, PushOptions{})
	repo := r.Open(t, ref.Repository)
	good := must(repo.Manifest(context.Background(), "1"))
	for name, change := range map[string]func(d *document){
		"no layers":             func(d *document) { d.Layers = nil },
		"no entries":            func(d *document) { d.Layers = d.Layers[:3] },
		"an entry less":         func(d *document) { d.Layers = d.Layers[:len(d.Layers)-1] },
		"no check table":        func(d *document) { d.Layers = append(d.Layers[:2], d.Layers[3:]...) },
		"another order":         func(d *document) { d.Layers[0], d.Layers[1] = d.Layers[1], d.Layers[0] },
		"another media type":    func(d *document) { d.Layers[4].MediaType = "application/octet-stream" },
		"a name of no entry":    func(d *document) { d.Layers[4].Annotations[annotationTitle] = "../../etc/passwd" },
		"no name":               func(d *document) { d.Layers[4].Annotations = nil },
		"a negative size":       func(d *document) { d.Layers[4].Size = -1 },
		"a giant":               func(d *document) { d.Layers[4].Size = 1 << 50 },
		"giants":                func(d *document) { d.Layers[3].Size, d.Layers[4].Size = 1<<40, 1<<40 },
		"a giant check table":   func(d *document) { d.Layers[2].Size = 1 << 40 },
		"another digest":        func(d *document) { d.Layers[4].Digest = "sha512:" + strings.Repeat("a", 128) },
		"no place for slots":    func(d *document) { d.Annotations[annotationHead] = "many" },
		"another place":         func(d *document) { d.Annotations[annotationHead] = "1048576" },
		"a place of two kinds":  func(d *document) { d.Annotations[annotationHead] = "0065536" },
		"slots of another size": func(d *document) { d.Layers[1] = d.Layers[0]; d.Layers[1].MediaType = mediaTypeSlots },
		"parts without end":     func(d *document) { d.MediaType = mediaTypeIndex },
	} {
		d := must(parseDocument(bytes.Clone(good.Raw)))
		change(d)
		raw := must(json.Marshal(d))
		ref := ref
		ref.Digest = manifest.Digest(raw)
		// Registries refuse some of them; a bad one would not.
		r.Intercept(serving(ref.Digest, d.MediaType, raw))
		f, err := Open(context.Background(), client(), ref)
		if err == nil {
			err = check(f)
		}
		var content *verify.ContentError
		if !errors.As(err, &content) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOtherThings: what is no bundle is said to be what it is.
func TestOtherThings(t *testing.T) {
	r := ocitest.New(t, ocitest.WithoutAPI)
	repo := r.Open(t, "bundles/shop")
	image := ocitest.Image(t, repo, "image", "amd64", "x")
	ocitest.Index(t, repo, "index", "y", "amd64", "arm64")
	ocitest.PutManifest(t, repo, "artifact", ocitest.MediaTypeManifest, ocitest.Artifact(t, repo, "", "application/vnd.sealift.bundle.v2"))
	for tag, kind := range map[string]string{
		"image": ocitest.MediaTypeConfig, "index": ocitest.MediaTypeIndex, "artifact": "application/vnd.sealift.bundle.v2", "@" + image: ocitest.MediaTypeConfig,
	} {
		ref := reference(r, tag)
		if digest, ok := strings.CutPrefix(tag, "@"); ok {
			ref.Tag, ref.Digest = "", digest
		}
		var other *NotBundleError
		if _, err := Open(context.Background(), client(), ref); !errors.As(err, &other) || other.Type != kind {
			t.Errorf("%s: %v", tag, err)
		}
	}
	var none *NoTagError
	if _, err := Open(context.Background(), client(), reference(r, "")); !errors.As(err, &none) {
		t.Errorf("no tag: %v", err)
	}
	// The part of a bundle is none.
	p := pack(t, random(1, 100)).write(t)
	push(t, p, reference(r, "parts"), PushOptions{layers: 3})
	top := must(repo.Manifest(context.Background(), "parts"))
	ref := reference(r, "")
	ref.Digest = must(parseDocument(top.Raw)).Manifests[0].Digest
	var other *NotBundleError
	if _, err := Open(context.Background(), client(), ref); !errors.As(err, &other) || other.Type != partType {
		t.Errorf("a part: %v", err)
	}
}

func TestParseReference(t *testing.T) {
	digest := "sha256:" + strings.Repeat("a", 64)
	for text, want := range map[string]string{
		"oci://registry.example/a/b:1":                       "registry.example/a/b:1",
		"oci://registry.example:5000/a":                      "registry.example:5000/a",
		"oci://localhost/a:latest":                           "localhost/a:latest",
		"oci://registry.example/latest":                      "registry.example/latest",
		"oci://registry.example/a@" + digest:                 "registry.example/a@" + digest,
		"oci://registry.example/a:1@" + digest:               "registry.example/a:1@" + digest,
		"oci://[::1]:5000/a/b:1.0.0_x":                       "[::1]:5000/a/b:1.0.0_x",
		"registry.example/a:1":                               "",
		"oci://a:1":                                          "",
		"oci://a/b:1":                                        "",
		"oci://":                                             "",
		"oci://registry.example/A:1":                         "",
		"oci://registry.example/a:1\n":                       "",
		"oci://registry.example/a:":                          "",
		"oci://registry.example/../a:1":                      "",
		"oci://https://registry.example/a:1":                 "",
		"oci://registry.example/a@md5:00":                    "",
		"oci://jane:secret@registry.example/a:1":             "",
		"OCI://registry.example/a:1":                         "",
		"oci://registry.example/a:1@sha256:abc":              "",
		"oci://registry.example/" + strings.Repeat("a", 300): "",
	} {
		ref, err := ParseReference(text)
		var wrong *ReferenceError
		switch {
		case want == "" && !errors.As(err, &wrong):
			t.Errorf("%q: %v, %v", text, ref, err)
		case want != "" && (err != nil || ref.String() != want):
			t.Errorf("%q: %q, %v; want %q", text, ref, err, want)
		}
	}
}

// FuzzParse: whatever a registry gives for a bundle, it is read in one way or refused.
func FuzzParse(f *testing.F) {
	a := anArtifact()
	for _, most := range []int{100, 3} {
		top, parts, err := a.encode(most)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(top.Raw)
		for _, p := range parts {
			f.Add(p.Raw)
		}
	}
	f.Add([]byte(`{"schemaVersion":2,"layers":null,"annotations":{"dev.sealift.head":"-1"}}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, err := parseDocument(raw)
		if err != nil {
			return
		}
		if parts, err := d.partsOf(); err == nil && len(parts) > maxParts {
			t.Fatalf("%d parts", len(parts))
		}
		_ = d.kind()
		a, err := parse(d, d.Layers)
		if err != nil {
			return
		}
		again, _, err := reread(a, maxLayers)
		if err != nil || !reflect.DeepEqual(a, again) {
			t.Fatalf("%+v\nis read again as %+v, %v", a, again, err)
		}
	})
}
