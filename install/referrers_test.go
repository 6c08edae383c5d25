package install

import (
	"context"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sealift/sealift/bundle"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/oci/ocitest"
	"github.com/sealift/sealift/internal/progress"
	"github.com/sealift/sealift/internal/sigstore"
	"github.com/sealift/sealift/internal/sigstore/sigtest"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// bundleKeys signs the bundles of this file: a private key takes its time.
var bundleKeys = sync.OnceValues(func() (*sigstore.Signer, error) {
	private, _, err := sigstore.GenerateKeyPair(nil)
	if err != nil {
		return nil, err
	}
	return sigstore.LoadSigner(private, nil)
})

func policy(t *testing.T) verify.Policy {
	t.Helper()
	signer, err := bundleKeys()
	if err != nil {
		t.Fatal(err)
	}
	return verify.Policy{Keys: []sigstore.PublicKey{signer.PublicKey()}}
}

// packSpec packs what a spec in dir with these lines names, and returns the file's path. change
// may change what was resolved.
func packSpec(t *testing.T, dir, lines string, change func(*manifest.Manifest)) string {
	t.Helper()
	signer, err := bundleKeys()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "sealift.yaml")
	if err := os.WriteFile(path, []byte("apiVersion: sealift/v1\nkind: Bundle\nname: shop\nversion: 1.0.0\n"+lines), 0o600); err != nil {
		t.Fatal(err)
	}
	spec, err := bundle.LoadSpec(path)
	if err != nil {
		t.Fatal(err)
	}
	resolved, err := bundle.Resolve(t.Context(), spec, bundle.Options{Client: ocitest.Client(), Created: "2026-01-02T03:04:05Z", Progress: progress.Discard})
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(resolved.Manifest)
	}
	res, err := resolved.Pack(t.Context(), bundle.PackOptions{Output: dir, Overwrite: true, Sign: signer.Sign, Signed: signer.PublicKey().Verify, Progress: progress.Discard})
	if err != nil {
		t.Fatal(err)
	}
	return res.Path
}

func open(t *testing.T, path string) *verify.Bundle {
	t.Helper()
	files, err := verify.Find([]string{path})
	if err != nil {
		t.Fatal(err)
	}
	b, err := verify.Open(t.Context(), files[0], policy(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func openStream(t *testing.T, path string) *verify.Bundle {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	b, err := verify.OpenStream(t.Context(), "a pipe", f, policy(t))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// prepare compares a bundle with a registry.
func prepare(t *testing.T, b *verify.Bundle, registry *ocitest.Registry, prefix string, mode IndexMode) *Seeding {
	t.Helper()
	s, err := Prepare(t.Context(), []*verify.Bundle{b}, SeedOptions{
		Client: ocitest.Client(), Target: Target{Registry: registry.Addr, Prefix: prefix}, Index: mode, Progress: progress.Discard,
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func seed(t *testing.T, b *verify.Bundle, registry *ocitest.Registry, prefix string, mode IndexMode) *SeedResult {
	t.Helper()
	res, err := prepare(t, b, registry, prefix, mode).Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func actions(r *SeedResult) map[string]int {
	n := map[string]int{}
	for _, ref := range r.Referrers {
		n[ref.Action]++
	}
	return n
}

// vendor is a source registry with an index that is signed in both forms, by key, as are its images;
// it has an SBOM, which is signed too.
type vendor struct {
	*ocitest.Registry
	dir, index string
	children   []string
	key        crypto.Signer
	sigstore   *sigtest.Virtual
}

func simple(s sigstore.SimpleSignature) ocitest.Layer {
	return ocitest.Layer{MediaType: ocitest.MediaTypeSimpleSigning, Content: s.Payload, Annotations: s.Annotations}
}

func newVendor(t *testing.T, kind string) *vendor {
	t.Helper()
	v := &vendor{Registry: ocitest.New(t, kind), dir: t.TempDir(), sigstore: sigtest.New(t)}
	key, public := sigtest.NewKey(t)
	v.key = key
	if err := os.WriteFile(filepath.Join(v.dir, "vendor.pub"), public.PEM, 0o600); err != nil {
		t.Fatal(err)
	}
	repo := v.Open(t, "shop/app")
	v.index, v.children = ocitest.Index(t, repo, "1", "app", "amd64", "arm64")
	sign := func(digest string) {
		ocitest.Tag(t, repo, digest, ".sig", simple(v.sigstore.SimpleSignatureWithKey(t, key, digest, sigtest.Options{})))
		ocitest.Attach(t, repo, digest, ocitest.MediaTypeBundle, ocitest.Layer{
			MediaType: ocitest.MediaTypeBundle, Content: v.sigstore.ImageBundleWithKey(t, key, digest, sigtest.Options{}),
		})
	}
	sign(v.index)
	sign(v.children[0])
	sign(ocitest.Attach(t, repo, v.index, "text/spdx+json", ocitest.SBOM("sbom")))
	return v
}

// spec demands a signature by the vendor's key.
func (v *vendor) spec() string {
	return "images: [{ref: " + v.Addr + "/shop/app:1, verify: {key: vendor.pub}}]\n"
}

// found is what cosign would find in a repository about an image.
func found(t *testing.T, repo *oci.Repository, digest string) sigstore.ImageSignatures {
	t.Helper()
	var all sigstore.ImageSignatures
	add := func(c *oci.Content) {
		var doc struct {
			Layers []struct {
				manifest.Descriptor
				Annotations map[string]string `json:"annotations"`
			} `json:"layers"`
		}
		if err := json.Unmarshal(c.Raw, &doc); err != nil {
			t.Fatal(err)
		}
		for _, l := range doc.Layers {
			raw, err := repo.ReadBlob(t.Context(), l.Descriptor, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			switch l.MediaType {
			case ocitest.MediaTypeSimpleSigning:
				all.Simple = append(all.Simple, sigstore.SimpleSignature{Payload: raw, Annotations: l.Annotations})
			case ocitest.MediaTypeBundle:
				all.Bundles = append(all.Bundles, raw)
			}
		}
	}
	list, _, err := repo.Referrers(t.Context(), digest)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range list {
		c, err := repo.Manifest(t.Context(), l.Digest)
		if err != nil {
			t.Fatal(err)
		}
		add(c)
	}
	if c, err := repo.Manifest(t.Context(), manifest.ReferrerTag(digest, ".sig")); err == nil {
		add(c)
	} else if !oci.IsNotFound(err) {
		t.Fatal(err)
	}
	return all
}

// signedBy reports whether both forms, each by itself, hold for a key.
func signedBy(t *testing.T, s sigstore.ImageSignatures, digest string, key crypto.Signer) (simple, bundles bool) {
	t.Helper()
	public := sigtest.Public(t, key)
	_, err := sigstore.ImageSignatures{Simple: s.Simple}.Verify(t.Context(), digest, sigstore.SignedBy{Key: &public})
	_, err2 := sigstore.ImageSignatures{Bundles: s.Bundles}.Verify(t.Context(), digest, sigstore.SignedBy{Key: &public})
	return err == nil, err2 == nil
}

// TestReferrersArrive: from each kind of registry to each, from a file and from a stream, everything
// arrives as it was, is found as it was, and is not sent a second time.
func TestReferrersArrive(t *testing.T) {
	for _, from := range ocitest.Kinds {
		v := newVendor(t, from)
		path := packSpec(t, v.dir, v.spec(), nil)
		for _, to := range ocitest.Kinds {
			for _, stream := range []bool{false, true} {
				name := from + " to " + to
				opened := open(t, path)
				if stream {
					name, opened = name+" as a stream", openStream(t, path)
				}
				t.Run(name, func(t *testing.T) {
					site := ocitest.New(t, to)
					mode := IndexOriginal
					if to == ocitest.WithAPI {
						mode = IndexDerived // it takes no sparse index
					}
					s := prepare(t, opened, site, "mirror", mode)
					preview := s.Preview()
					if ocitest.Writes(site.Requests()) != 0 || actions(preview)[ActionSeed] != 7 || len(preview.Referrers) != 7 {
						t.Fatalf("preview: %+v", preview.Referrers)
					}
					res, err := s.Run(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					if actions(res)[ActionSeeded] != 7 || res.UploadedManifests != preview.UploadedManifests || res.UploadedBlobs != preview.UploadedBlobs || len(res.TagMoves) != 0 {
						t.Errorf("seeded %+v, the preview was %+v", res, preview)
					}
					there := site.Open(t, "mirror/shop/app")
					for _, r := range opened.Manifest().Images[0].Referrers {
						id := r.Digest
						if r.Tag != "" {
							id = r.Tag
						}
						if got, err := there.ManifestDigest(t.Context(), id); err != nil || got != r.Digest {
							t.Errorf("%s is %q, %v", id, got, err)
						}
					}
					for _, d := range []string{v.index, v.children[0]} {
						if tagged, bundled := signedBy(t, found(t, there, d), d, v.key); !tagged || !bundled {
							t.Errorf("%s: by tag %t, by referrer %t", d, tagged, bundled)
						}
					}
					site.Requests()
					again := seed(t, open(t, path), site, "mirror", mode)
					requests := site.Requests()
					if ocitest.Writes(requests) != 0 || actions(again)[ActionPresent] != 7 || again.UploadedManifests+again.UploadedBlobs != 0 {
						t.Errorf("seeded again: %+v, %v", again, requests)
					}
					if len(requests) > 30 {
						t.Errorf("%d requests to see that all is there: %v", len(requests), requests)
					}
				})
			}
		}
	}
}

// TestSignaturesOfTheSite stay, and those that travel come beside them, without --move-tags.
func TestSignaturesOfTheSite(t *testing.T) {
	v := newVendor(t, ocitest.WithoutAPI)
	path := packSpec(t, v.dir, v.spec(), nil)
	for _, kind := range ocitest.Kinds {
		for _, stream := range []bool{false, true} {
			site := ocitest.New(t, kind)
			repo := site.Open(t, "shop/app")
			own, _ := sigtest.NewKey(t)
			ocitest.Tag(t, repo, v.index, ".sig", simple(v.sigstore.SimpleSignatureWithKey(t, own, v.index, sigtest.Options{})))
			ocitest.Attach(t, repo, v.index, ocitest.MediaTypeBundle, ocitest.Layer{
				MediaType: ocitest.MediaTypeBundle, Content: v.sigstore.ImageBundleWithKey(t, own, v.index, sigtest.Options{}),
			})
			b := open(t, path)
			if stream {
				b = openStream(t, path)
			}
			s := prepare(t, b, site, "", IndexDerived)
			if p := s.Preview(); actions(p)[ActionMerge] != 1 || len(p.TagMoves) != 0 {
				t.Errorf("%s: preview %+v", kind, p)
			}
			res, err := s.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if n := actions(res); n[ActionMerged] != 1 || n[ActionSeeded] != 6 {
				t.Errorf("%s: %v", kind, n)
			}
			all := found(t, repo, v.index)
			for who, key := range map[string]crypto.Signer{"vendor": v.key, "site": own} {
				if tagged, bundled := signedBy(t, all, v.index, key); !tagged || !bundled {
					t.Errorf("%s, stream %t: of the %s: by tag %t, by referrer %t", kind, stream, who, tagged, bundled)
				}
			}
			c, err := repo.Manifest(t.Context(), manifest.ReferrerTag(v.index, ".sig"))
			if err != nil {
				t.Fatal(err)
			}
			at := slices.IndexFunc(res.Referrers, func(r SeededReferrer) bool { return r.Action == ActionMerged })
			if at < 0 || res.Referrers[at].Stored != c.Digest {
				t.Errorf("%s: %+v, the tag is %s", kind, res.Referrers, c.Digest)
			}
			img, err := oci.ParseImage(c.Raw)
			if err != nil {
				t.Fatal(err)
			}
			config, err := repo.ReadBlob(t.Context(), img.Config, oci.MaxConfigBytes)
			if err != nil || strings.Count(string(config), "sha256:") != len(img.Layers) || len(img.Layers) != 2 {
				t.Errorf("%s: config %s of %d layers, %v", kind, config, len(img.Layers), err)
			}
			site.Requests()
			if again := seed(t, open(t, path), site, "", IndexDerived); actions(again)[ActionPresent] != 7 || ocitest.Writes(site.Requests()) != 0 {
				t.Errorf("%s: again %+v", kind, again.Referrers)
			}
		}
	}
}

// TestSBOMOfTheSite stays alone under its tag, where cosign looks for exactly one.
func TestSBOMOfTheSite(t *testing.T) {
	v := newVendor(t, ocitest.WithoutAPI)
	ours := ocitest.Tag(t, v.Open(t, "shop/app"), v.index, ".sbom", ocitest.SBOM("of the vendor"))
	path := packSpec(t, v.dir, v.spec(), nil)
	site := ocitest.New(t, ocitest.WithoutAPI)
	repo := site.Open(t, "shop/app")
	theirs := ocitest.Tag(t, repo, v.index, ".sbom", ocitest.SBOM("of the site"))
	for i, want := range []int{1, 0} {
		s := prepare(t, open(t, path), site, "", IndexOriginal)
		if p := s.Preview(); actions(p)[ActionKept] != 1 || (p.UploadedManifests > 0) != (want == 1) {
			t.Errorf("preview %d: %+v", i, p)
		}
		site.Requests()
		res, err := s.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if actions(res)[ActionKept] != 1 || (ocitest.Writes(site.Requests()) > 0) != (want == 1) {
			t.Errorf("seed %d: %+v", i, res)
		}
		if at, err := repo.ManifestDigest(t.Context(), manifest.ReferrerTag(v.index, ".sbom")); err != nil || at != theirs {
			t.Errorf("the tag is %s, %v, want %s", at, err, theirs)
		}
		if at, err := repo.ManifestDigest(t.Context(), ours); err != nil || at != ours {
			t.Errorf("the vendor's SBOM is not there: %v", err)
		}
	}
}

// TestLostList: a list of referrers that somebody has overwritten is put right again.
func TestLostList(t *testing.T) {
	v := newVendor(t, ocitest.WithoutAPI)
	path := packSpec(t, v.dir, v.spec(), nil)
	site := ocitest.New(t, ocitest.WithoutAPI)
	seed(t, open(t, path), site, "", IndexOriginal)
	repo := site.Open(t, "shop/app")
	ocitest.PutManifest(t, repo, oci.ReferrersTag(v.index), ocitest.MediaTypeIndex, []byte(`{"schemaVersion":2,"mediaType":"`+ocitest.MediaTypeIndex+`","manifests":[]}`))
	if res := seed(t, open(t, path), site, "", IndexOriginal); actions(res)[ActionSeeded] != 2 || actions(res)[ActionPresent] != 5 {
		t.Errorf("%v", actions(res))
	}
	if _, bundled := signedBy(t, found(t, repo, v.index), v.index, v.key); !bundled {
		t.Error("the signature is not found")
	}
}

// TestSignaturesOfAnIndexThatIsNotThere: what stands for a sparse index is not what was signed.
func TestSignaturesOfAnIndexThatIsNotThere(t *testing.T) {
	v := newVendor(t, ocitest.WithoutAPI)
	path := packSpec(t, v.dir, v.spec(), nil)
	for mode, want := range map[IndexMode]int{IndexOriginal: 0, IndexDerived: 3, IndexPlatform: 3} {
		site := ocitest.New(t, ocitest.WithoutAPI)
		s := prepare(t, open(t, path), site, "", mode)
		for _, res := range []*SeedResult{s.Preview(), seed(t, open(t, path), site, "", mode)} {
			n := 0
			for _, r := range res.Referrers {
				if r.Unverifiable {
					n++
				}
				if r.Unverifiable != (want > 0 && r.Subject == v.index) {
					t.Errorf("%s: %+v", mode, r)
				}
			}
			if n != want || (want > 0) != (len(res.Unverifiable) == 1) || want > 0 && (res.Unverifiable[0].Signed != v.index || res.Unverifiable[0].Referrers != want) {
				t.Errorf("%s: %d, %+v", mode, n, res.Unverifiable)
			}
		}
		// Those of the image inside hold all the same.
		repo := site.Open(t, "shop/app")
		if tagged, bundled := signedBy(t, found(t, repo, v.children[0]), v.children[0], v.key); !tagged || !bundled {
			t.Errorf("%s: by tag %t, by referrer %t", mode, tagged, bundled)
		}
	}
}

// TestTagThatIsNoSignature is left alone, and told.
func TestTagThatIsNoSignature(t *testing.T) {
	v := newVendor(t, ocitest.WithoutAPI)
	path := packSpec(t, v.dir, v.spec(), nil)
	site := ocitest.New(t, ocitest.WithoutAPI)
	ocitest.Index(t, site.Open(t, "shop/app"), manifest.ReferrerTag(v.index, ".sig"), "other", "amd64")
	_, err := Prepare(t.Context(), []*verify.Bundle{open(t, path)}, SeedOptions{Client: ocitest.Client(), Target: Target{Registry: site.Addr, Prefix: ""}, Progress: progress.Discard})
	var refused *MergeError
	if !errors.As(err, &refused) || !strings.HasSuffix(refused.Reference, ".sig") {
		t.Fatalf("%v, want *MergeError", err)
	}
}

// TestContendedTag: where others never stop to write the tag, that is told; nothing hangs.
func TestContendedTag(t *testing.T) {
	v := newVendor(t, ocitest.WithoutAPI)
	path := packSpec(t, v.dir, v.spec(), nil)
	site := ocitest.New(t, ocitest.WithoutAPI)
	repo := site.Open(t, "shop/app")
	tag := manifest.ReferrerTag(v.index, ".sig")
	own, _ := sigtest.NewKey(t)
	theirs := ocitest.Signatures(t, repo, simple(v.sigstore.SimpleSignatureWithKey(t, own, v.index, sigtest.Options{})))
	s := prepare(t, open(t, path), site, "", IndexOriginal)
	var busy sync.Mutex
	site.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodHead && strings.HasSuffix(r.URL.Path, tag) && busy.TryLock() {
			ocitest.PutManifest(t, repo, tag, ocitest.MediaTypeManifest, theirs)
			busy.Unlock()
		}
		return false
	})
	_, err := s.Run(t.Context())
	var refused *MergeError
	if !errors.As(err, &refused) {
		t.Fatalf("%v, want *MergeError", err)
	}
}

// TestOneListForImagesThatShare: what two images have in common is sent and told once.
func TestOneListForImagesThatShare(t *testing.T) {
	v := newVendor(t, ocitest.WithoutAPI)
	repo := v.Open(t, "shop/app")
	c, err := repo.Manifest(t.Context(), "1")
	if err != nil {
		t.Fatal(err)
	}
	ocitest.PutManifest(t, repo, "2", c.MediaType, c.Raw)
	path := packSpec(t, v.dir, "images: [{ref: "+v.Addr+"/shop/app:1}, {ref: "+v.Addr+"/shop/app:2}]\n", nil)
	site := ocitest.New(t, ocitest.WithoutAPI)
	if res := seed(t, open(t, path), site, "", IndexOriginal); len(res.Referrers) != 7 || len(res.Images) != 2 {
		t.Errorf("%d referrers of %d images", len(res.Referrers), len(res.Images))
	}
}

// TestCheckImages proves again, on the isolated side, what was proven when the bundle was packed;
// and it does not believe that this was done.
func TestCheckImages(t *testing.T) {
	v := newVendor(t, ocitest.WithoutAPI)
	root := v.sigstore.TrustedRoot(t, sigtest.RootOptions{Log: true})
	if err := os.WriteFile(filepath.Join(v.dir, "root.json"), root, 0o600); err != nil {
		t.Fatal(err)
	}
	repo := v.Open(t, "shop/app")
	ocitest.Attach(t, repo, v.index, ocitest.MediaTypeBundle, ocitest.Layer{
		MediaType: ocitest.MediaTypeBundle, Content: v.sigstore.ImageBundle(t, "https://issuer.example", "ci@shop.example", v.index, sigtest.Options{Log: true}),
	})
	ocitest.Image(t, v.Open(t, "free"), "1", "amd64", "free")
	spec := "images:\n  - {ref: " + v.Addr + "/free:1, referrers: drop}\n  - ref: " + v.Addr + "/shop/app:1\n    verify:\n" +
		"      - {key: vendor.pub}\n      - {issuer: https://issuer.example, subject: '*@shop.example', trustedRoot: root.json}\n"
	path := packSpec(t, v.dir, spec, nil)
	for _, b := range []*verify.Bundle{open(t, path), openStream(t, path)} {
		checks, err := b.CheckImages(t.Context(), progress.Discard)
		if err != nil || len(checks) != 2 {
			t.Fatalf("%+v, %v", checks, err)
		}
		free, app := checks[0], checks[1]
		if len(free.Signers) != 0 || !free.Dropped || app.Dropped || app.Referrers != 8 || len(app.Signers) != 2 {
			t.Errorf("%+v", checks)
		}
		if s := app.Signers[0]; s.Fingerprint != sigtest.Public(t, v.key).Fingerprint {
			t.Errorf("%+v", s)
		}
		if s := app.Signers[1]; s.Signer != "ci@shop.example" || s.SignerIssuer != "https://issuer.example" || len(s.Times) != 1 {
			t.Errorf("%+v", s)
		}
		if b.IsStream() {
			if err := b.Each(t.Context(), progress.Discard, func(context.Context, manifest.Blob, io.Reader) error { return nil }); err != nil {
				t.Errorf("the rest of the stream: %v", err)
			}
		}
	}
	_, stranger := sigtest.NewKey(t)
	block, _ := pem.Decode(stranger.PEM)
	key := manifest.ImageSigner{Key: base64.StdEncoding.EncodeToString(block.Bytes)}
	for name, change := range map[string]func(*manifest.Image){
		"another key":        func(i *manifest.Image) { i.SignedBy = append(i.SignedBy, key) },
		"a key that is none": func(i *manifest.Image) { i.SignedBy[0].Key = "aaaa" },
		"another subject":    func(i *manifest.Image) { i.SignedBy[1].Subject = "other@shop.example" },
		"without the signatures": func(i *manifest.Image) {
			i.Referrers = slices.DeleteFunc(i.Referrers, func(r manifest.Referrer) bool { return r.Subject == i.Digest })
			i.Referrers = slices.DeleteFunc(i.Referrers, func(r manifest.Referrer) bool { return r.Subject != i.Children[0].Digest })
		},
	} {
		path := packSpec(t, t.TempDir(), strings.NewReplacer("vendor.pub", v.dir+"/vendor.pub", "root.json", v.dir+"/root.json").Replace(spec), func(m *manifest.Manifest) { change(&m.Images[1]) })
		_, err := open(t, path).CheckImages(t.Context(), progress.Discard)
		var refused *verify.ImageSignatureError
		if !errors.As(err, &refused) || refused.Digest != v.index {
			t.Errorf("%s: %v, want *ImageSignatureError", name, err)
		}
	}
}
