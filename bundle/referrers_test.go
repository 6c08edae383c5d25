package bundle_test

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sealift/sealift/bundle"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/oci/ocitest"
	"github.com/sealift/sealift/internal/progress"
	"github.com/sealift/sealift/internal/sigstore"
	"github.com/sealift/sealift/internal/sigstore/sigtest"
	"github.com/sealift/sealift/manifest"
)

// resolve loads a spec with these lines after its head and resolves it.
func resolve(t *testing.T, dir, lines string) (*bundle.Resolved, error) {
	t.Helper()
	return resolveBy(t, dir, lines, ocitest.Client())
}

func resolveBy(t *testing.T, dir, lines string, client *oci.Client) (*bundle.Resolved, error) {
	t.Helper()
	path := filepath.Join(dir, "sealift.yaml")
	write(t, path, "apiVersion: sealift/v1\nkind: Bundle\nname: shop\nversion: 1.0.0\n"+lines)
	s, err := bundle.LoadSpec(path)
	if err != nil {
		t.Fatal(err)
	}
	return bundle.Resolve(context.Background(), s, bundle.Options{Client: client, Created: "2026-01-02T03:04:05Z", Progress: progress.Discard})
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func simple(s sigstore.SimpleSignature) ocitest.Layer {
	return ocitest.Layer{MediaType: ocitest.MediaTypeSimpleSigning, Content: s.Payload, Annotations: s.Annotations}
}

func bundled(raw []byte) ocitest.Layer {
	return ocitest.Layer{MediaType: ocitest.MediaTypeBundle, Content: raw}
}

// signed is everything about an index, in all forms, two steps deep.
func signed(t *testing.T, repo *oci.Repository) (index string, children []string) {
	t.Helper()
	index, children = ocitest.Index(t, repo, "1", "app", "amd64", "arm64")
	for _, d := range append([]string{index}, children...) {
		ocitest.Tag(t, repo, d, ".sig", ocitest.Layer{MediaType: ocitest.MediaTypeSimpleSigning, Content: []byte("payload of " + d), Annotations: map[string]string{"a": "b"}})
		ocitest.Attach(t, repo, d, ocitest.MediaTypeBundle, bundled([]byte("bundle of "+d)))
		ocitest.Attach(t, repo, d, "application/x", ocitest.SBOM("another of "+d))
	}
	sbom := ocitest.Tag(t, repo, index, ".sbom", ocitest.SBOM("sbom"))
	ocitest.Tag(t, repo, sbom, ".sig", ocitest.Layer{MediaType: ocitest.MediaTypeSimpleSigning, Content: []byte("payload of the SBOM")})
	ocitest.Attach(t, repo, sbom, ocitest.MediaTypeBundle, bundled([]byte("bundle of the SBOM")))
	ocitest.Tag(t, repo, children[0], ".att", ocitest.Layer{MediaType: "application/vnd.dsse.envelope.v1+json", Content: []byte("attestation")})
	return index, children
}

// TestReferrersTravel: everything about what travels, and about that, whatever the registry can and
// in whichever order it answers; nothing about what stays behind.
func TestReferrersTravel(t *testing.T) {
	var first []manifest.Referrer
	for _, kind := range ocitest.Kinds {
		r := ocitest.New(t, kind)
		index, children := signed(t, r.Open(t, "shop/app"))
		res, err := resolve(t, t.TempDir(), "images: [{ref: "+r.Addr+"/shop/app:1}]\n")
		if err != nil {
			t.Fatal(err)
		}
		img := res.Manifest.Images[0]
		about := map[string]int{}
		for _, ref := range img.Referrers {
			about[ref.Subject]++
		}
		sbom := ""
		for _, ref := range img.Referrers {
			if strings.HasSuffix(ref.Tag, ".sbom") {
				sbom = ref.Digest
			}
		}
		if len(img.Referrers) != 10 || about[index] != 4 || about[children[0]] != 4 || about[children[1]] != 0 || about[sbom] != 2 {
			t.Errorf("%s: %d: %v", kind, len(img.Referrers), about)
		}
		if err := manifest.Arrange(res.Manifest, nil); err != nil {
			t.Fatal(err)
		}
		if err := res.Manifest.Validate(); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		if first == nil {
			first = img.Referrers
		} else if !slices.Equal(first, img.Referrers) {
			t.Errorf("%s: %v, want %v", kind, img.Referrers, first)
		}
		// Who reads a stream keeps what comes before the last manifest: no SBOM does.
		last, payload := 0, len(res.Manifest.Blobs)
		for i, b := range res.Manifest.Blobs {
			switch b.MediaType {
			case ocitest.MediaTypeManifest, ocitest.MediaTypeIndex:
				last = i
			case ocitest.MediaTypeSimpleSigning, ocitest.MediaTypeBundle, "text/spdx+json":
				payload = min(payload, i)
			}
			if b.MediaType == ocitest.MediaTypeLayer && i != len(res.Manifest.Blobs)-1 {
				t.Errorf("%s: a layer at %d of %d blobs", kind, i, len(res.Manifest.Blobs))
			}
		}
		if payload < last {
			t.Errorf("%s: payload of a referrer at %d, the last manifest at %d", kind, payload, last)
		}
		res, err = resolve(t, t.TempDir(), "referrers: drop\nimages: [{ref: "+r.Addr+"/shop/app:1}]\n")
		if err != nil {
			t.Fatal(err)
		}
		if img := res.Manifest.Images[0]; len(img.Referrers) != 0 || !img.ReferrersDropped {
			t.Errorf("%s: %+v", kind, img)
		}
		res, err = resolve(t, t.TempDir(), "referrers: drop\nimages: [{ref: "+r.Addr+"/shop/app:1, referrers: carry}]\n")
		if err != nil || len(res.Manifest.Images[0].Referrers) != 10 {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// TestOrderOfAnswers: a list in another order, or that names things twice, changes not a byte.
func TestOrderOfAnswers(t *testing.T) {
	r := ocitest.New(t, ocitest.WithAPI)
	repo := r.Open(t, "shop/app")
	index, _ := signed(t, repo)
	ref := "images: [{ref: " + r.Addr + "/shop/app:1}]\n"
	var results [][]byte
	pack := func(jobs int) {
		t.Helper()
		dir := t.TempDir()
		res, err := resolve(t, dir, ref)
		if err != nil {
			t.Fatal(err)
		}
		packed, err := res.Pack(t.Context(), bundle.PackOptions{Output: dir, Jobs: jobs, Progress: progress.Discard})
		if err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(packed.Path)
		if err != nil {
			t.Fatal(err)
		}
		results = append(results, raw)
	}
	pack(1)
	list, _, err := repo.Referrers(context.Background(), index)
	if err != nil || len(list) != 2 {
		t.Fatalf("%v, %v", list, err)
	}
	slices.Reverse(list)
	r.Intercept(func(w http.ResponseWriter, req *http.Request) bool {
		if !strings.HasSuffix(req.URL.Path, "/referrers/"+index) {
			return false
		}
		var items []string
		for _, l := range append(list, list...) {
			items = append(items, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,"artifactType":"any/thing"}`, l.MediaType, l.Digest, l.Size))
		}
		fmt.Fprintf(w, `{"schemaVersion":2,"manifests":[%s]}`, strings.Join(items, ","))
		return true
	})
	pack(8)
	if !bytes.Equal(results[0], results[1]) {
		t.Error("the two bundles differ")
	}
}

// TestCostOfNone: an image about which there is nothing costs a bounded number of small requests.
func TestCostOfNone(t *testing.T) {
	for kind, want := range map[string]int{
		// Four tags, and the API once.
		ocitest.WithoutAPI: 5,
		ocitest.WithAPI:    4,
	} {
		r := ocitest.New(t, kind)
		ocitest.Image(t, r.Open(t, "a"), "1", "amd64", "app")
		requests := map[bool]int{}
		for _, drop := range []bool{true, false} {
			r.Requests()
			lines := "images: [{ref: " + r.Addr + "/a:1}]\n"
			if drop {
				lines = "referrers: drop\n" + lines
			}
			if _, err := resolve(t, t.TempDir(), lines); err != nil {
				t.Fatal(err)
			}
			requests[drop] = len(r.Requests())
		}
		if got := requests[false] - requests[true]; got != want {
			t.Errorf("%s: %d requests more, want %d", kind, got, want)
		}
	}
}

// TestReferrersThatCannotBeCarried fail the pack, and say what they are.
func TestReferrersThatCannotBeCarried(t *testing.T) {
	attach := func(raw func(t *testing.T, repo *oci.Repository, subject string) (mediaType string, content []byte)) func(*testing.T, *ocitest.Registry, *oci.Repository, string) {
		return func(t *testing.T, _ *ocitest.Registry, repo *oci.Repository, subject string) {
			t.Helper()
			mediaType, content := raw(t, repo, subject)
			digest := ocitest.PutManifest(t, repo, "", mediaType, content)
			list := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, ocitest.MediaTypeIndex, mediaType, digest, len(content))
			ocitest.PutManifest(t, repo, oci.ReferrersTag(subject), ocitest.MediaTypeIndex, list)
		}
	}
	for name, c := range map[string]struct {
		make func(t *testing.T, r *ocitest.Registry, repo *oci.Repository, subject string)
		want error
	}{
		"an index": {attach(func(_ *testing.T, _ *oci.Repository, subject string) (string, []byte) {
			return ocitest.MediaTypeIndex, fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[],"subject":{"mediaType":"a/b","digest":%q,"size":1}}`, ocitest.MediaTypeIndex, subject)
		}), oci.ErrUnsupported},
		"about something else": {attach(func(t *testing.T, repo *oci.Repository, _ string) (string, []byte) {
			return ocitest.MediaTypeManifest, ocitest.Artifact(t, repo, ocitest.Image(t, repo, "", "amd64", "other"), "application/x")
		}), bundle.ErrReferrerSubject},
		"about nothing": {attach(func(t *testing.T, repo *oci.Repository, _ string) (string, []byte) {
			return ocitest.MediaTypeManifest, ocitest.Artifact(t, repo, "", "application/x")
		}), bundle.ErrReferrerSubject},
		"the tag is something else": {func(t *testing.T, _ *ocitest.Registry, repo *oci.Repository, subject string) {
			ocitest.Image(t, repo, oci.ReferrersTag(subject), "amd64", "other")
		}, oci.ErrUnsupported},
		"a signature that is an index": {func(t *testing.T, _ *ocitest.Registry, repo *oci.Repository, subject string) {
			ocitest.Index(t, repo, manifest.ReferrerTag(subject, ".sig"), "other", "amd64")
		}, oci.ErrUnsupported},
		"listed and gone": {func(t *testing.T, _ *ocitest.Registry, repo *oci.Repository, subject string) {
			list := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":"sha256:%s","size":9}]}`, ocitest.MediaTypeIndex, ocitest.MediaTypeManifest, strings.Repeat("1", 64))
			ocitest.PutManifest(t, repo, oci.ReferrersTag(subject), ocitest.MediaTypeIndex, list)
		}, nil},
		"too deep": {func(t *testing.T, _ *ocitest.Registry, repo *oci.Repository, subject string) {
			for i := range 5 {
				subject = ocitest.Attach(t, repo, subject, "application/x", ocitest.SBOM(fmt.Sprint(i)))
			}
		}, bundle.ErrReferrerLimit},
		"too many": {func(t *testing.T, r *ocitest.Registry, _ *oci.Repository, _ string) {
			var items []string
			for i := range manifest.MaxReferrers + 1 {
				items = append(items, fmt.Sprintf(`{"mediaType":%q,"digest":"sha256:%064x","size":9}`, ocitest.MediaTypeManifest, i))
			}
			r.Intercept(func(w http.ResponseWriter, req *http.Request) bool {
				if !strings.Contains(req.URL.Path, "/referrers/") {
					return false
				}
				fmt.Fprintf(w, `{"schemaVersion":2,"manifests":[%s]}`, strings.Join(items, ","))
				return true
			})
		}, bundle.ErrReferrerLimit},
		"a tag that is not let out": {func(_ *testing.T, r *ocitest.Registry, _ *oci.Repository, _ string) {
			r.Intercept(func(w http.ResponseWriter, req *http.Request) bool {
				if strings.HasSuffix(req.URL.Path, ".att") {
					w.WriteHeader(http.StatusForbidden)
					return true
				}
				return false
			})
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := ocitest.New(t, ocitest.WithoutAPI)
			repo := r.Open(t, "a")
			subject := ocitest.Image(t, repo, "1", "amd64", "app")
			c.make(t, r, repo, subject)
			_, err := resolve(t, t.TempDir(), "images: [{ref: "+r.Addr+"/a:1}]\n")
			var refused *bundle.ReferrerError
			if !errors.As(err, &refused) || refused.Reference != r.Addr+"/a:1" || c.want != nil && !errors.Is(err, c.want) {
				t.Fatalf("%v, want *ReferrerError and %v", err, c.want)
			}
			if _, err := resolve(t, t.TempDir(), "images: [{ref: "+r.Addr+"/a:1, referrers: drop}]\n"); err != nil {
				t.Errorf("dropped: %v", err)
			}
		})
	}
}

// TestCircles: tags can lead in circles, digests cannot.
func TestCircles(t *testing.T) {
	r := ocitest.New(t, ocitest.WithoutAPI)
	repo := r.Open(t, "a")
	a, b := ocitest.Image(t, repo, "1", "amd64", "a"), ocitest.Image(t, repo, "2", "amd64", "b")
	ocitest.Image(t, repo, manifest.ReferrerTag(a, ".sig"), "amd64", "b")
	ocitest.Image(t, repo, manifest.ReferrerTag(b, ".sig"), "amd64", "a")
	ocitest.Image(t, repo, manifest.ReferrerTag(a, ".att"), "amd64", "a")
	res, err := resolve(t, t.TempDir(), "images: [{ref: "+r.Addr+"/a:1}]\n")
	if err != nil {
		t.Fatal(err)
	}
	if n := len(res.Manifest.Images[0].Referrers); n != 3 {
		t.Errorf("%d referrers, want 3", n)
	}
	if err := manifest.Arrange(res.Manifest, nil); err != nil {
		t.Fatal(err)
	}
	if err := res.Manifest.Validate(); err != nil {
		t.Error(err)
	}
}

const (
	issuer  = "https://issuer.example"
	subject = "https://git.example/shop/app/.ci/release.yml@refs/tags/v1"
)

// TestDemands: an image passes if it is signed, itself, by all who have to.
func TestDemands(t *testing.T) {
	v, stranger := sigtest.New(t), sigtest.New(t)
	key, public := sigtest.NewKey(t)
	_, other := sigtest.NewKey(t)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "vendor.pub"), string(public.PEM))
	write(t, filepath.Join(dir, "other.pub"), string(other.PEM))
	write(t, filepath.Join(dir, "root.json"), string(v.TrustedRoot(t, sigtest.RootOptions{TSA: true})))
	write(t, filepath.Join(dir, "stranger.json"), string(stranger.TrustedRoot(t, sigtest.RootOptions{TSA: true})))
	stamped := sigtest.Options{TSA: true}
	keyless := "{issuer: " + issuer + ", subject: 'https://git.example/shop/*/.ci/release.yml@refs/tags/*', trustedRoot: root.json}"
	type about func(t *testing.T, repo *oci.Repository, index, child string)
	tagged := func(of func(t *testing.T, index, child string) sigstore.SimpleSignature) about {
		return func(t *testing.T, repo *oci.Repository, index, child string) {
			ocitest.Tag(t, repo, index, ".sig", simple(of(t, index, child)))
		}
	}
	byKey := tagged(func(t *testing.T, index, _ string) sigstore.SimpleSignature {
		return v.SimpleSignatureWithKey(t, key, index, sigtest.Options{})
	})
	byIdentity := func(t *testing.T, repo *oci.Repository, index, _ string) {
		ocitest.Attach(t, repo, index, ocitest.MediaTypeBundle, bundled(v.ImageBundle(t, issuer, subject, index, stamped)))
	}
	for name, c := range map[string]struct {
		about  []about
		verify string
		// signers is how many of them are recorded, 0 where the image is refused.
		signers int
		text    string
	}{
		"not signed":     {nil, "{key: vendor.pub}", 0, "image is not signed"},
		"by key":         {[]about{byKey}, "{key: vendor.pub}", 1, ""},
		"by another key": {[]about{byKey}, "{key: other.pub}", 0, "signature does not hold"},
		"bundle by key": {[]about{func(t *testing.T, repo *oci.Repository, index, _ string) {
			ocitest.Attach(t, repo, index, ocitest.MediaTypeBundle, bundled(v.ImageBundleWithKey(t, key, index, sigtest.Options{})))
		}}, "{key: vendor.pub}", 1, ""},
		"keyless": {[]about{byIdentity}, keyless, 1, ""},
		"keyless by tag": {[]about{tagged(func(t *testing.T, index, _ string) sigstore.SimpleSignature {
			return v.SimpleSignature(t, issuer, subject, index, stamped)
		})}, keyless, 1, ""},
		"another subject": {[]about{byIdentity}, "{issuer: " + issuer + ", subject: 'https://git.example/*', trustedRoot: root.json}", 0, "identity"},
		"a foreign root":  {[]about{byIdentity}, strings.Replace(keyless, "root.json", "stranger.json", 1), 0, "not trusted"},
		"without a time": {[]about{func(t *testing.T, repo *oci.Repository, index, _ string) {
			ocitest.Attach(t, repo, index, ocitest.MediaTypeBundle, bundled(v.ImageBundle(t, issuer, subject, index, sigtest.Options{})))
		}}, keyless, 0, "no proven time"},
		"both":       {[]about{byKey, byIdentity}, "[{key: vendor.pub}, " + keyless + "]", 2, ""},
		"one of two": {[]about{byKey}, "[{key: vendor.pub}, " + keyless + "]", 0, "made with a key"},
		"only a child": {[]about{func(t *testing.T, repo *oci.Repository, _, child string) {
			ocitest.Tag(t, repo, child, ".sig", simple(v.SimpleSignatureWithKey(t, key, child, sigtest.Options{})))
		}}, "{key: vendor.pub}", 0, "only images inside the index are signed"},
		"of something else": {[]about{tagged(func(t *testing.T, _, child string) sigstore.SimpleSignature {
			return v.SimpleSignatureWithKey(t, key, child, sigtest.Options{})
		})}, "{key: vendor.pub}", 0, "signature does not hold"},
		"an attestation": {[]about{func(t *testing.T, repo *oci.Repository, index, _ string) {
			ocitest.Attach(t, repo, index, ocitest.MediaTypeBundle, bundled(v.AttestationWithKey(t, key, "https://slsa.dev/provenance/v1", index, sigtest.Options{})))
		}}, "{key: vendor.pub}", 0, "signature does not hold"},
		"in the wrong place": {[]about{func(t *testing.T, repo *oci.Repository, index, _ string) {
			ocitest.Tag(t, repo, index, ".sbom", simple(v.SimpleSignatureWithKey(t, key, index, sigtest.Options{})))
		}}, "{key: vendor.pub}", 0, "image is not signed"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, kind := range ocitest.Kinds {
				r := ocitest.New(t, kind)
				repo := r.Open(t, "shop/app")
				index, children := ocitest.Index(t, repo, "1", "app", "amd64", "arm64")
				for _, f := range c.about {
					f(t, repo, index, children[0])
				}
				res, err := resolve(t, dir, "images: [{ref: "+r.Addr+"/shop/app:1, verify: "+c.verify+"}]\n")
				var refused *bundle.UnsignedImageError
				switch {
				case c.signers == 0:
					if !errors.As(err, &refused) || !strings.Contains(err.Error(), c.text) {
						t.Errorf("%s: %v, want *UnsignedImageError with %q", kind, err, c.text)
					}
				case err != nil:
					t.Errorf("%s: %v", kind, err)
				case len(res.Manifest.Images[0].SignedBy) != c.signers:
					t.Errorf("%s: %+v", kind, res.Manifest.Images[0].SignedBy)
				default:
					if err := manifest.Arrange(res.Manifest, nil); err != nil {
						t.Fatal(err)
					}
					if err := res.Manifest.Validate(); err != nil {
						t.Errorf("%s: %v", kind, err)
					}
				}
			}
		})
	}
}

// TestDemandsByPattern: every pattern that matches counts, and one that matches nothing is an error.
func TestDemandsByPattern(t *testing.T) {
	key, public := sigtest.NewKey(t)
	_, second := sigtest.NewKey(t)
	v := sigtest.New(t)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "vendor.pub"), string(public.PEM))
	write(t, filepath.Join(dir, "second.pub"), string(second.PEM))
	write(t, filepath.Join(dir, "broken.pub"), "rubbish")
	write(t, filepath.Join(dir, "private.pub"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")})))
	r := ocitest.New(t, ocitest.WithoutAPI)
	for _, path := range []string{"shop/app", "shop/deep/app", "other"} {
		repo := r.Open(t, path)
		d := ocitest.Image(t, repo, "1", "amd64", path)
		if path == "shop/app" {
			ocitest.Tag(t, repo, d, ".sig", simple(v.SimpleSignatureWithKey(t, key, d, sigtest.Options{})))
		}
	}
	images := "images: [{ref: " + r.Addr + "/shop/app:1}, {ref: " + r.Addr + "/shop/deep/app:1}, {ref: " + r.Addr + "/other:1}]\n"
	demand := func(match, key string) string { return "  - {match: '" + match + "', key: " + key + "}\n" }
	var (
		unsigned  *bundle.UnsignedImageError
		unmatched *bundle.UnmatchedError
		file      *bundle.SignerFileError
		dropped   *bundle.DroppedSignaturesError
	)
	for name, c := range map[string]struct {
		lines string
		as    any
	}{
		"one":                  {images + "verify:\n" + demand(r.Addr+"/shop/*", "vendor.pub"), nil},
		"the same twice":       {images + "verify:\n" + demand(r.Addr+"/shop/*", "vendor.pub") + demand(r.Addr+"/*/app", "./vendor.pub"), nil},
		"all have to hold":     {images + "verify:\n" + demand(r.Addr+"/shop/*", "vendor.pub") + demand(r.Addr+"/*/app", "second.pub"), &unsigned},
		"a segment more":       {images + "verify:\n" + demand(r.Addr+"/shop/*/*", "vendor.pub"), &unsigned},
		"matches nothing":      {images + "verify:\n" + demand(r.Addr+"/shpo/*", "vendor.pub"), &unmatched},
		"not a key":            {images + "verify:\n" + demand(r.Addr+"/shop/*", "broken.pub"), &file},
		"a private key":        {images + "verify:\n" + demand(r.Addr+"/shop/*", "private.pub"), &file},
		"no such file":         {images + "verify:\n" + demand(r.Addr+"/shop/*", "nothing.pub"), &file},
		"dropped and demanded": {images + "referrers: drop\nverify:\n" + demand(r.Addr+"/shop/*", "vendor.pub"), &dropped},
	} {
		t.Run(name, func(t *testing.T) {
			// Counted where they are sent: what another case had under way may arrive late.
			var sent atomic.Int64
			client := oci.NewClient(oci.Options{Side: "source registry", Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
				sent.Add(1)
				return http.DefaultTransport.RoundTrip(r)
			})})
			_, err := resolveBy(t, dir, c.lines, client)
			if (err == nil) != (c.as == nil) || err != nil && !errors.As(err, c.as) {
				t.Fatalf("%v, want %T", err, c.as)
			}
			if n := sent.Load(); err != nil && c.as != any(&unsigned) && n > 0 {
				t.Errorf("%d requests before it was told", n)
			}
		})
	}
}
