package publish

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/oci/ocitest"
	"github.com/sealift/sealift/internal/progress"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// packed is a bundle that a test makes.
type packed struct {
	path       string
	volume     int64
	m          *manifest.Manifest
	contents   [][]byte
	signatures [][]byte
	detached   [][]byte
}

func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 7))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// pack is a signed bundle of these blobs in a directory of its own.
func pack(t *testing.T, blobs ...[]byte) *packed {
	t.Helper()
	p := &packed{path: filepath.Join(t.TempDir(), "shop-1.0.0.tar.zst"), signatures: [][]byte{[]byte("a signature")}, m: &manifest.Manifest{
		MediaType: manifest.MediaType, Format: 1, Name: "shop", Version: "1.0.0+a", Channel: "stable",
		Created: "2026-01-02T03:04:05Z", Platforms: []string{"linux/amd64"},
	}}
	for _, b := range blobs {
		p.add(b, "application/octet-stream")
	}
	return p
}

func (p *packed) add(b []byte, mediaType string) manifest.Blob {
	blob := manifest.Blob{Digest: manifest.Digest(b), Size: int64(len(b)), MediaType: mediaType, Encoding: manifest.EncodingStored}
	p.m.Blobs, p.contents = append(p.m.Blobs, blob), append(p.contents, b)
	return blob
}

// encode adds a blob that is carried compressed.
func (p *packed) encode(b []byte) {
	p.m.Blobs = append(p.m.Blobs, manifest.Blob{Digest: manifest.Digest(b), Size: int64(len(b)), MediaType: "application/vnd.oci.image.layer.v1.tar", Encoding: manifest.EncodingZstd})
	p.contents = append(p.contents, b)
	p.m.Head = 1 << 16
}

func (p *packed) write(t *testing.T) *packed {
	t.Helper()
	encoded := map[string]manifest.Entry{}
	contents := slices.Clone(p.contents)
	for i, b := range p.m.Blobs {
		if b.Encoding == manifest.EncodingZstd {
			z, err := zstd.NewWriter(nil, zstd.WithWindowSize(1<<20))
			if err != nil {
				t.Fatal(err)
			}
			contents[i] = z.EncodeAll(contents[i], nil)
			encoded[b.Digest] = manifest.EntryFor(manifest.BlobEntryName(b), contents[i])
		}
	}
	if err := manifest.Arrange(p.m, encoded); err != nil {
		t.Fatal(err)
	}
	raw, err := manifest.Encode(p.m)
	if err != nil {
		t.Fatal(err)
	}
	index, err := manifest.OCIIndex(p.m)
	if err != nil {
		t.Fatal(err)
	}
	l, err := archive.NewLayout(int64(len(raw)), p.m.Head, p.m.Entries)
	if err != nil {
		t.Fatal(err)
	}
	w, err := archive.NewWriter(archive.Plan{Path: p.path, Volume: p.volume, Entries: p.m.Entries, Head: l.Head(), Size: l.Size(), Journal: archive.NewJournal(p.volume, raw)})
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range append([][]byte{manifest.OCILayout(), index}, contents...) {
		if err := w.Entry(i).Fill(context.Background(), bytes.NewReader(c), func(int64) {}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Seal(context.Background(), archive.SealOptions{Manifest: raw, Layout: l, Signatures: p.signatures, Done: func(int64) {}}); err != nil {
		t.Fatal(err)
	}
	if err := w.Publish(); err != nil {
		t.Fatal(err)
	}
	for i, body := range p.detached {
		save(t, archive.DetachedName(p.path, i+1), body)
	}
	return p
}

// sign adds a signature later.
func (p *packed) sign(t *testing.T, body string) {
	t.Helper()
	err := archive.Resign(context.Background(), p.files(t), func(h *archive.Head) (*archive.SlotContent, error) {
		c := h.Slot()
		c.Signatures = append(c.Signatures, []byte(body))
		return c, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (p *packed) files(t *testing.T) *archive.Files {
	t.Helper()
	return find(t, p.path)
}

func find(t *testing.T, path string) *archive.Files {
	t.Helper()
	found, err := archive.Find([]string{path})
	if err != nil || len(found) != 1 {
		t.Fatalf("%d bundles, %v", len(found), err)
	}
	return found[0]
}

func save(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// joined is the bytes of the file at path, or of its volumes.
func joined(t *testing.T, path string) []byte {
	t.Helper()
	var all []byte
	for _, name := range find(t, path).Paths() {
		all = append(all, read(t, name)...)
	}
	return all
}

// quick does not wait long for a registry that fails.
func client() *oci.Client { return ocitest.Client() }

func reference(r *ocitest.Registry, tag string) oci.Reference {
	return oci.Reference{Registry: r.Addr, Repository: "bundles/shop", Tag: tag}
}

func push(t *testing.T, p *packed, ref oci.Reference, o PushOptions) *Pushed {
	t.Helper()
	res, err := tryPush(t, p, ref, o)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func tryPush(t *testing.T, p *packed, ref oci.Reference, o PushOptions) (*Pushed, error) {
	t.Helper()
	o.Client, o.Progress = client(), progress.Discard
	return Push(context.Background(), p.files(t), ref, o)
}

func openRemote(t *testing.T, ref oci.Reference) *archive.Files {
	t.Helper()
	f, err := Open(context.Background(), client(), ref)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func pull(t *testing.T, ref oci.Reference, o PullOptions) *Pulled {
	t.Helper()
	res, err := tryPull(t, ref, o)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func tryPull(t *testing.T, ref oci.Reference, o PullOptions) (*Pulled, error) {
	t.Helper()
	o.Progress = progress.Discard
	return Pull(context.Background(), openRemote(t, ref), o)
}

// variants are bundles of every kind.
func variants(t *testing.T) map[string]*packed {
	t.Helper()
	sizes := func(t *testing.T) *packed {
		return pack(t, []byte{}, random(1, 1), random(2, 600), random(3, 1<<20), random(4, 3<<20+77))
	}
	encoded := sizes(t)
	encoded.encode(bytes.Repeat([]byte("plain "), 400_000))
	signed := sizes(t)
	signed.detached = [][]byte{[]byte("beside it"), []byte("beside it, too")}
	volumes := sizes(t)
	volumes.volume = 1 << 20
	return map[string]*packed{"one file": sizes(t), "compressed inside": encoded, "signatures beside": signed, "volumes": volumes}
}

// TestRoundTrip: what was pushed is read in the registry as the file that it was, and comes back as
// that file, however many manifests name its layers.
func TestRoundTrip(t *testing.T) {
	for name, p := range variants(t) {
		for _, layers := range []int{0, 3} {
			t.Run(name, func(t *testing.T) {
				if _, err := os.Stat(filepath.Dir(p.path) + "/written"); err != nil {
					p.write(t)
					save(t, filepath.Dir(p.path)+"/written", nil)
				}
				r := ocitest.New(t, ocitest.WithoutAPI)
				file, ref := joined(t, p.path), reference(r, "")
				res := push(t, p, ref, PushOptions{layers: layers})
				if ref.Tag = "1.0.0_a"; res.Reference != ref.String() || res.Signatures != 1+len(p.detached) {
					t.Fatalf("%+v", res)
				}
				f := openRemote(t, ref)
				src, err := f.Open()
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(io.NewSectionReader(src, 0, int64(len(file))))
				if err != nil || !bytes.Equal(got, file) || src.Fit(int64(len(file))) != nil || src.Close() != nil {
					t.Fatalf("read in the registry: %d bytes of %d, %v", len(got), len(file), err)
				}
				b, err := verify.Open(context.Background(), f, verify.Policy{Unsigned: true})
				if err != nil {
					t.Fatal(err)
				}
				if err := errors.Join(b.Check(context.Background(), progress.Discard), b.Close()); err != nil {
					t.Fatal(err)
				}
				for _, volume := range []int64{0, 1 << 20} {
					dir := t.TempDir()
					pulled := pull(t, ref, PullOptions{Output: dir, Volume: volume})
					if pulled.Path != filepath.Join(dir, "shop-1.0.0+a.tar.zst") || pulled.Digest != res.Digest || pulled.Size != int64(len(file)) {
						t.Fatalf("%+v", pulled)
					}
					if !bytes.Equal(joined(t, pulled.Path), file) {
						t.Fatalf("volumes of %d: another file came back", volume)
					}
					found := find(t, pulled.Path)
					if (found.File == "") != (volume > 0) || len(found.Detached) != len(p.detached) {
						t.Fatalf("%+v", found)
					}
					for i, path := range found.Detached {
						if !bytes.Equal(read(t, path), p.detached[i]) {
							t.Fatalf("signature %d is another one", i+1)
						}
					}
					// Once more: it is there.
					if again := pull(t, ref, PullOptions{Output: dir, Volume: volume}); !again.Present {
						t.Fatalf("%+v", again)
					}
				}
			})
		}
	}
}

// TestPushAgain: nothing is sent twice, and what was signed later shares everything but the slots.
func TestPushAgain(t *testing.T) {
	for _, kind := range ocitest.Kinds {
		t.Run(kind, func(t *testing.T) {
			r := ocitest.New(t, kind)
			p, ref := pack(t, random(1, 5000), random(2, 2<<20)).write(t), reference(r, "1")
			first := push(t, p, ref, PushOptions{})
			if first.UploadedBlobs != 8 || first.ExistingBlobs != 0 || first.Present {
				t.Fatalf("%+v", first) // manifest, slots, checks, configuration, oci-layout, index.json, two blobs
			}
			r.Requests()
			if again := push(t, p, ref, PushOptions{}); !again.Present || again.Artifact != first.Artifact {
				t.Fatalf("%+v", again)
			}
			if n := ocitest.Writes(r.Requests()); n != 0 {
				t.Fatalf("%d requests that write", n)
			}
			p.sign(t, "another signature")
			var move *TagMoveError
			if _, err := tryPush(t, p, ref, PushOptions{}); !errors.As(err, &move) || move.From != first.Artifact {
				t.Fatalf("a tag that would be moved: %v", err)
			}
			if n := ocitest.Writes(r.Requests()); n != 0 {
				t.Fatalf("%d requests that write", n)
			}
			second := push(t, p, ref, PushOptions{MoveTags: true})
			if second.UploadedBlobs != 1 || second.ExistingBlobs != 7 || second.Digest != first.Digest || second.Artifact == first.Artifact || second.Moved != first.Artifact {
				t.Fatalf("%+v", second)
			}
			// What the tag led to before is there by its digest.
			ref.Tag, ref.Digest = "", first.Artifact
			if f := openRemote(t, ref); !strings.HasSuffix(f.Name, "@"+first.Artifact) {
				t.Fatal(f.Name)
			}
		})
	}
}

// TestPushRefuses: what nobody has signed, and what is not in one piece.
func TestPushRefuses(t *testing.T) {
	r := ocitest.New(t, ocitest.WithoutAPI)
	p := pack(t, random(1, 5000))
	p.signatures = nil
	p.write(t)
	var unsigned *verify.UnsignedError
	if _, err := tryPush(t, p, reference(r, "1"), PushOptions{}); !errors.As(err, &unsigned) {
		t.Fatalf("unsigned: %v", err)
	}
	push(t, p, reference(r, "1"), PushOptions{Unsigned: true})
	// A signature beside it suffices.
	save(t, archive.DetachedName(p.path, 1), []byte("a signature"))
	push(t, p, reference(r, "2"), PushOptions{})
	file := read(t, p.path)
	at := bytes.Index(file, p.contents[0][:100])
	for name, change := range map[string]func([]byte) []byte{
		"a byte less":    func(b []byte) []byte { return b[:len(b)-1] },
		"the seek table": func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
		"no bundle":      func([]byte) []byte { return []byte("nothing") },
		"payload":        func(b []byte) []byte { b[at] ^= 1; return b },
	} {
		save(t, p.path, change(bytes.Clone(file)))
		ref := reference(r, "3")
		ref.Repository = "other/" + strings.ReplaceAll(name, " ", "-")
		var content *verify.ContentError
		if _, err := tryPush(t, p, ref, PushOptions{}); !errors.As(err, &content) || content.Path != p.path {
			t.Errorf("%s: %v", name, err)
		}
		if d, err := r.Open(t, ref.Repository).ManifestDigest(context.Background(), "3"); d != "" || err != nil {
			t.Errorf("%s: a tag leads to it: %q, %v", name, d, err)
		}
	}
}

// image is a bundle with an image that lies in a repository of r already.
func image(t *testing.T, r *ocitest.Registry) *packed {
	t.Helper()
	repo := r.Open(t, "shop/app")
	digest := ocitest.Image(t, repo, "1", "amd64", "seed")
	c, err := repo.Manifest(context.Background(), digest)
	if err != nil {
		t.Fatal(err)
	}
	img, err := oci.ParseImage(c.Raw)
	if err != nil {
		t.Fatal(err)
	}
	p := pack(t)
	p.add(c.Raw, c.MediaType)
	for _, d := range append(img.Layers, img.Config) {
		raw, err := repo.ReadBlob(context.Background(), d, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		p.add(raw, d.MediaType)
	}
	p.m.Images = []manifest.Image{{
		Source: r.Addr + "/shop/app:1", Digest: digest, MediaType: c.MediaType, Size: c.Size, Platforms: p.m.Platforms,
		Reasons: []manifest.Reason{{Kind: manifest.ReasonSpec}},
	}}
	return p
}

// TestPushMounts: what images have in the registry is not sent once more.
func TestPushMounts(t *testing.T) {
	r := ocitest.New(t, ocitest.WithoutAPI)
	p := image(t, r).write(t)
	res := push(t, p, reference(r, "1"), PushOptions{})
	if res.MountedBlobs != 2 || res.UploadedBlobs != 7 { // layer and configuration of the image
		t.Fatalf("%+v", res)
	}
	// Where they were seeded to, beside the bundle or above it.
	p.m.Images[0].Source = "registry.example.com/app:1"
	p.path += ".1.zst"
	p.write(t)
	ref := reference(r, "1")
	for _, path := range []string{"shop/bundles", "shop/bundles/of/the/vendor"} {
		ref.Repository = path
		if res := push(t, p, ref, PushOptions{}); res.MountedBlobs != 2 {
			t.Fatalf("%s: %+v", path, res)
		}
	}
	p.m.Images[0].Source = "registry.example.com/shop/app:1"
	p.path += ".3.zst"
	p.write(t)
	ref.Repository = "bundle"
	if res := push(t, p, ref, PushOptions{}); res.MountedBlobs != 2 {
		t.Fatalf("%+v", res)
	}
	// From a repository that is named, where the images come from elsewhere.
	p.m.Images[0].Source = "registry.example.com/elsewhere/app:1"
	p.path += ".2.zst"
	p.write(t)
	ref.Repository = "bundles/other"
	if res := push(t, p, ref, PushOptions{}); res.MountedBlobs != 0 {
		t.Fatalf("%+v", res)
	}
	ref.Repository = "bundles/third"
	if res := push(t, p, ref, PushOptions{MountFrom: []string{"nothing/there", "shop/app", "bundles/third"}}); res.MountedBlobs != 2 {
		t.Fatalf("%+v", res)
	}
	if res := push(t, p, ref, PushOptions{MountFrom: []string{"bundles/other"}}); !res.Present {
		t.Fatalf("%+v", res)
	}
	ref.Repository = "bundles/fourth"
	if res := push(t, p, ref, PushOptions{MountFrom: []string{"bundles/other"}}); res.UploadedBlobs != 0 {
		t.Fatalf("%+v", res)
	}
}

// deny answers what matches with 403, which nobody asks again after.
func deny(match func(*http.Request) bool) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !match(r) {
			return false
		}
		w.WriteHeader(http.StatusForbidden)
		return true
	}
}

// TestInterruptedPush: a push that was stopped goes on with what is missing.
func TestInterruptedPush(t *testing.T) {
	r := ocitest.New(t, ocitest.WithoutAPI)
	p, ref := pack(t, random(1, 5000), random(2, 2<<20)).write(t), reference(r, "1")
	var puts atomic.Int32
	r.Intercept(deny(func(r *http.Request) bool {
		return r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/blobs/") && puts.Add(1) > 5
	}))
	var failed *oci.Error
	if _, err := tryPush(t, p, ref, PushOptions{Jobs: 1}); !errors.As(err, &failed) {
		t.Fatalf("a registry that refuses: %v", err)
	}
	r.Intercept(deny(func(r *http.Request) bool {
		return r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/")
	}))
	if _, err := tryPush(t, p, ref, PushOptions{}); !errors.As(err, &failed) {
		t.Fatalf("a registry that refuses: %v", err)
	}
	r.Intercept(nil)
	if res := push(t, p, ref, PushOptions{}); res.UploadedBlobs != 0 || res.ExistingBlobs != 8 || res.Present {
		t.Fatalf("%+v", res)
	}
}

// TestInterruptedPull: what a pull that was stopped has brought is not fetched again, and what was
// spoiled meanwhile is.
func TestInterruptedPull(t *testing.T) {
	for _, volume := range []int64{0, 1 << 20} {
		for _, spoil := range []bool{false, true} {
			r := ocitest.New(t, ocitest.WithoutAPI)
			big, small := random(1, 3<<20), random(2, 2<<20)
			p, ref := pack(t, big, small).write(t), reference(r, "1")
			push(t, p, ref, PushOptions{})
			dir := t.TempDir()
			o := PullOptions{Output: dir, Volume: volume, Jobs: 1}
			last := manifest.Digest(small)
			r.Intercept(deny(func(r *http.Request) bool { return r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, last) }))
			var partial *PartialError
			var refused *oci.Error
			if _, err := tryPull(t, ref, o); !errors.As(err, &partial) || !errors.As(err, &refused) || partial.Done != int64(30+len(big)+len(index(t, p))) {
				t.Fatalf("stopped: %v, %+v", err, partial)
			}
			path := filepath.Join(dir, "shop-1.0.0+a.tar.zst")
			if _, err := archive.Find([]string{path}); err == nil {
				t.Fatal("a file that is not whole has its name")
			}
			if spoil {
				name := path + ".partial"
				if volume > 0 {
					name = archive.VolumeName(path, 2) + ".partial"
				}
				b := read(t, name)
				b[len(b)/3] ^= 1
				save(t, name, b)
			}
			// Another bundle is not put in its place without a word.
			var other *OtherError
			q := pack(t, random(5, 100)).write(t)
			otherRef := reference(r, "2")
			push(t, q, otherRef, PushOptions{})
			if _, err := tryPull(t, otherRef, o); !errors.As(err, &other) {
				t.Fatalf("another bundle: %v", err)
			}
			r.Intercept(nil)
			r.Requests()
			res := pull(t, ref, o)
			fetched := slices.ContainsFunc(r.Requests(), func(s string) bool { return strings.HasSuffix(s, manifest.Digest(big)) })
			if res.Resumed == 0 || fetched != spoil {
				t.Fatalf("%+v; the first blob was fetched: %t", res, fetched)
			}
			if !bytes.Equal(joined(t, path), read(t, p.path)) {
				t.Fatal("another file came back")
			}
			for _, e := range must(os.ReadDir(dir)) {
				if strings.Contains(e.Name(), "partial") {
					t.Fatalf("%s is left", e.Name())
				}
			}
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func index(t *testing.T, p *packed) []byte {
	t.Helper()
	return must(manifest.OCIIndex(p.m))
}

// TestPullKeepsWhatIsThere: nothing is replaced without a word; with one, all of it is.
func TestPullKeepsWhatIsThere(t *testing.T) {
	r := ocitest.New(t, ocitest.WithoutAPI)
	p := pack(t, random(1, 3<<20))
	p.detached = [][]byte{[]byte("beside it")}
	ref := reference(r, "1")
	push(t, p.write(t), ref, PushOptions{})
	dir := t.TempDir()
	path := filepath.Join(dir, "b.tar.zst")
	for name, there := range map[string]string{
		"a file": path, "a first volume": path + ".001", "a later volume": path + ".003", "a signature": path + ".sigstore.json",
	} {
		save(t, there, []byte("mine"))
		var exists *ThereError
		if _, err := tryPull(t, ref, PullOptions{Output: path, Volume: 1 << 20}); !errors.As(err, &exists) || exists.Path != there {
			t.Errorf("%s: %v", name, err)
		}
		if string(read(t, there)) != "mine" {
			t.Errorf("%s was changed", name)
		}
		must(0, os.Remove(there))
	}
	// Volumes of something else, its parity and its signature go where it is replaced.
	for _, name := range []string{".001", ".002", ".par001", ".sigstore.json"} {
		save(t, path+name, []byte("mine"))
	}
	pull(t, ref, PullOptions{Output: path, Overwrite: true, Restart: true})
	var names []string
	for _, e := range must(os.ReadDir(dir)) {
		names = append(names, e.Name())
	}
	if strings.Join(names, " ") != "b.tar.zst b.tar.zst.sigstore.json" || string(read(t, path+".sigstore.json")) != "beside it" {
		t.Fatal(names)
	}
	pull(t, ref, PullOptions{Output: path, Overwrite: true, Volume: 1 << 20})
	if f := find(t, path); f.File != "" || len(f.Volumes) != 4 {
		t.Fatalf("%+v", f)
	}
	// A file that is not the very same is something else.
	p.path = path
	q := filepath.Join(t.TempDir(), "q.tar.zst")
	pull(t, ref, PullOptions{Output: q})
	b := read(t, q)
	b[len(b)/2] ^= 1
	save(t, q, b)
	var exists *ThereError
	if _, err := tryPull(t, ref, PullOptions{Output: q}); !errors.As(err, &exists) {
		t.Fatalf("a damaged copy: %v", err)
	}
	if _, err := Pull(context.Background(), find(t, q), PullOptions{}); err == nil {
		t.Fatal("a file was pulled")
	}
}

// changed answers requests for one blob with its bytes, one of them another one.
func changed(digest string, content []byte) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, digest) {
			return false
		}
		b := bytes.Clone(content)
		b[len(b)/2] ^= 1
		_, _ = w.Write(b)
		return true
	}
}

// TestChangedContent: a registry that gives other bytes than those of a digest is found out, layer by
// layer, and what it gives never becomes a file.
func TestChangedContent(t *testing.T) {
	r := ocitest.New(t, ocitest.WithoutAPI)
	p := pack(t, random(1, 5000), random(2, 2<<20))
	p.encode(bytes.Repeat([]byte("plain "), 100_000))
	p.detached = [][]byte{[]byte("beside it")}
	ref := reference(r, "1")
	push(t, p.write(t), ref, PushOptions{layers: 4})
	repo := r.Open(t, ref.Repository)
	top := must(repo.Manifest(context.Background(), "1"))
	ref.Digest = top.Digest
	all := map[string][]byte{top.Digest: top.Raw}
	for _, part := range must(parseDocument(top.Raw)).Manifests {
		c := must(repo.Manifest(context.Background(), part.Digest))
		all[c.Digest] = c.Raw
		for _, l := range must(parseDocument(c.Raw)).Layers {
			all[l.Digest] = must(repo.ReadBlob(context.Background(), manifest.Descriptor{Digest: l.Digest, Size: l.Size}, 1<<30))
		}
	}
	if len(all) != 1+3+9 {
		t.Fatalf("%d manifests and layers", len(all))
	}
	for digest, content := range all {
		r.Intercept(changed(digest, content))
		var wrong *verify.ContentError
		f, err := Open(context.Background(), client(), ref)
		if err == nil {
			err = check(f)
			if err == nil {
				t.Errorf("%s: not found", digest)
			}
			dir := t.TempDir()
			if _, err := Pull(context.Background(), f, PullOptions{Output: dir, Progress: progress.Discard}); !errors.As(err, &wrong) {
				t.Errorf("%s: pulled: %v", digest, err)
			}
			for _, e := range must(os.ReadDir(dir)) {
				if !strings.Contains(e.Name(), ".partial") {
					t.Errorf("%s: %s was written", digest, e.Name())
				}
			}
		}
		var registry *oci.Error
		if !errors.As(err, &wrong) || errors.As(wrong.Err, &registry) {
			t.Errorf("%s: %v", digest, err)
		}
		r.Intercept(nil)
	}
	if err := check(openRemote(t, ref)); err != nil {
		t.Fatal(err)
	}
}

// check reads all of a bundle, whoever has signed it.
func check(f *archive.Files) error {
	b, err := verify.Open(context.Background(), f, verify.Policy{Unsigned: true})
	if err != nil {
		return err
	}
	return errors.Join(b.Check(context.Background(), progress.Discard), b.Close())
}

// TestRegistryIsGone: a registry that does not answer is told from content that is wrong.
func TestRegistryIsGone(t *testing.T) {
	r := ocitest.New(t, ocitest.WithoutAPI)
	big := random(2, 2<<20)
	p, ref := pack(t, big).write(t), reference(r, "1")
	push(t, p, ref, PushOptions{})
	f := openRemote(t, ref)
	r.Intercept(deny(func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, manifest.Digest(big)) }))
	var content *verify.ContentError
	var registry *oci.Error
	if err := check(f); !errors.As(err, &content) || !errors.As(content.Err, &registry) {
		t.Fatalf("%v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Pull(ctx, f, PullOptions{Output: t.TempDir(), Progress: progress.Discard}); !errors.Is(err, context.Canceled) {
		t.Fatalf("stopped: %v", err)
	}
	if _, err := Push(ctx, p.files(t), ref, PushOptions{Client: client(), Progress: progress.Discard}); !errors.Is(err, context.Canceled) {
		t.Fatalf("stopped: %v", err)
	}
	if _, err := Open(ctx, client(), ref); !errors.Is(err, context.Canceled) {
		t.Fatalf("stopped: %v", err)
	}
}

// TestPushFromARegistry: from one registry to another, nothing lies between.
func TestPushFromARegistry(t *testing.T) {
	one, two := ocitest.New(t, ocitest.WithoutAPI), ocitest.New(t, ocitest.WithAPI)
	p := pack(t, random(1, 5000), random(2, 3<<20))
	p.detached = [][]byte{[]byte("beside it")}
	first := push(t, p.write(t), reference(one, "1"), PushOptions{})
	c := client()
	f, err := Open(context.Background(), c, reference(one, "1"))
	if err != nil {
		t.Fatal(err)
	}
	second, err := Push(context.Background(), f, reference(two, "1"), PushOptions{Client: c, Progress: progress.Discard})
	if err != nil || second.Artifact != first.Artifact {
		t.Fatalf("%+v, %v", second, err)
	}
}

// serving answers requests for a manifest.
func serving(digest, mediaType string, raw []byte) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, digest) {
			return false
		}
		w.Header().Set("Content-Type", mediaType)
		_, _ = w.Write(raw)
		return true
	}
}
