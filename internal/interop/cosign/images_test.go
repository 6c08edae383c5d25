package main

import (
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// newImageSite is a site in which cosign does not look for a trusted root where it takes none: it
// lets that be if it is told about any log's key, of which it then makes no use.
func newImageSite(t *testing.T) *site {
	t.Helper()
	s := newSite(t)
	s.env = append(s.env, "SIGSTORE_REKOR_PUBLIC_KEY="+s.path("trusted_root.json"))
	return s
}

// startRegistry starts a registry with or without a Referrers API and returns its address.
func startRegistry(t *testing.T, api bool) string {
	t.Helper()
	r := httptest.NewServer(registry.New(registry.WithReferrersSupport(api), registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(r.Close)
	return strings.TrimPrefix(r.URL, "http://")
}

// makeIndex is an index of random images for two platforms.
func makeIndex(t *testing.T) v1.ImageIndex {
	t.Helper()
	var adds []mutate.IndexAddendum
	for _, arch := range []string{"amd64", "arm64"} {
		img, err := random.Image(3000, 2)
		if err != nil {
			t.Fatal(err)
		}
		cfg, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		cfg = cfg.DeepCopy()
		cfg.OS, cfg.Architecture = "linux", arch
		if img, err = mutate.ConfigFile(img, cfg); err != nil {
			t.Fatal(err)
		}
		adds = append(adds, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	return mutate.AppendManifests(empty.Index, adds...)
}

func pushIndex(t *testing.T, ref string, idx v1.ImageIndex) (digest string) {
	t.Helper()
	tag, err := name.NewTag(ref, name.StrictValidation)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(tag, idx); err != nil {
		t.Fatal(err)
	}
	h, err := idx.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return h.String()
}

// form is one way in which cosign stores signatures.
type form struct {
	name         string
	sign, verify []string
}

var forms = []form{
	{"tag", nil, nil},
	{"referrer", []string{"--new-bundle-format"}, []string{"--new-bundle-format", "--trusted-root", "trusted_root.json"}},
}

func (s *site) signImage(f form, key, ref string) {
	s.t.Helper()
	s.runCosign(append(append([]string{"sign", "--key", key, "--tlog-upload=false", "--yes", "--recursive"}, f.sign...), ref)...)
}

func (s *site) verifyImage(f form, key, ref string) (string, bool) {
	s.t.Helper()
	return s.cosign(append(append([]string{"verify", "--key", key, "--insecure-ignore-tlog=true", "--private-infrastructure"}, f.verify...), ref)...)
}

// TestImageSignaturesArrive: what cosign has signed in one registry it verifies in another, to
// which only a bundle was carried, and refuses for another key; what the site had signed holds on.
func TestImageSignaturesArrive(t *testing.T) {
	for _, f := range forms {
		for _, api := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, API %t", f.name, api), func(t *testing.T) {
				s := newImageSite(t)
				s.keys("cosign", "vendor")
				s.keys("cosign", "own")
				s.keys("sealift", "bundle")
				source, target := startRegistry(t, api), startRegistry(t, !api)
				idx := makeIndex(t)
				digest := pushIndex(t, source+"/shop/app:1", idx)
				spec := "apiVersion: sealift/v1\nkind: Bundle\nname: signed\nversion: 1.0.0\nplatforms: [linux/amd64, linux/arm64]\n" +
					"images:\n  - {ref: " + source + "/shop/app:1, verify: {key: %s.pub}}\n"
				s.write("sealift.yaml", fmt.Appendf(nil, spec, "vendor"))
				if err := os.Mkdir(s.path("refused"), 0o755); err != nil {
					t.Fatal(err)
				}
				if _, out, code := s.exec(s.sealift, nil, "pack", "-o", "refused", "--unsigned"); code == 0 {
					t.Fatalf("an image that is not signed was packed:\n%s", out)
				}
				s.signImage(f, "vendor.key", source+"/shop/app@"+digest)
				bundle := s.pack("out", "bundle.key")
				s.write("sealift.yaml", fmt.Appendf(nil, spec, "own"))
				if _, out, code := s.exec(s.sealift, nil, "pack", "-o", "refused", "--unsigned"); code == 0 {
					t.Fatalf("an image that another has signed was packed:\n%s", out)
				}

				// The site has the image already and has signed it itself.
				pushIndex(t, target+"/shop/app:1", idx)
				s.signImage(f, "own.key", target+"/shop/app@"+digest)
				s.runSealift(0, "seed", bundle, "--registry", target, "--key", "bundle.pub")
				m, err := idx.IndexManifest()
				if err != nil {
					t.Fatal(err)
				}
				for _, d := range []string{digest, m.Manifests[0].Digest.String(), m.Manifests[1].Digest.String()} {
					for _, key := range []string{"vendor.pub", "own.pub"} {
						if out, ok := s.verifyImage(f, key, target+"/shop/app@"+d); !ok {
							t.Errorf("cosign refuses %s for %s:\n%s", d, key, out)
						}
					}
					if out, ok := s.verifyImage(f, "bundle.pub", target+"/shop/app@"+d); ok {
						t.Errorf("cosign accepts %s for another key:\n%s", d, out)
					}
				}
				// To a place where there is nothing.
				s.runSealift(0, "seed", bundle, "--registry", target+"/fresh", "--key", "bundle.pub")
				if out, ok := s.verifyImage(f, "vendor.pub", target+"/fresh/shop/app:1"); !ok {
					t.Errorf("cosign refuses the image in a fresh place:\n%s", out)
				}
				if out, ok := s.verifyImage(f, "own.pub", target+"/fresh/shop/app:1"); ok {
					t.Errorf("cosign accepts a signature that never was there:\n%s", out)
				}
			})
		}
	}
}

// TestAttestationsArrive: attestations in both forms, and what "cosign attach sbom" has attached.
func TestAttestationsArrive(t *testing.T) {
	for _, f := range forms {
		t.Run(f.name, func(t *testing.T) {
			s := newImageSite(t)
			s.keys("cosign", "vendor")
			s.keys("sealift", "bundle")
			source, target := startRegistry(t, false), startRegistry(t, true)
			digest := pushIndex(t, source+"/shop/app:1", makeIndex(t))
			s.write("sealift.yaml", []byte("apiVersion: sealift/v1\nkind: Bundle\nname: signed\nversion: 1.0.0\nplatforms: [linux/amd64, linux/arm64]\n"+
				"images:\n  - {ref: "+source+"/shop/app:1}\n"))
			s.write("predicate.json", []byte(`{"built":"here"}`))
			s.write("sbom.json", []byte(`{"spdxVersion":"SPDX-2.3"}`))
			ref := "/shop/app@" + digest
			s.runCosign(append(append([]string{"attest", "--key", "vendor.key", "--tlog-upload=false", "--yes", "--type", "custom", "--predicate", "predicate.json"}, f.sign...), source+ref)...)
			s.runCosign("attach", "sbom", "--sbom", "sbom.json", source+ref)
			s.runSealift(0, "seed", s.pack("out", "bundle.key"), "--registry", target, "--key", "bundle.pub")
			out, ok := s.cosign(append(append([]string{"verify-attestation", "--key", "vendor.pub", "--insecure-ignore-tlog=true", "--private-infrastructure", "--type", "custom"}, f.verify...), target+ref)...)
			if !ok {
				t.Errorf("cosign refuses the attestation:\n%s", out)
			}
			s.runCosign("download", "sbom", "--output-file", "downloaded.json", target+ref)
			if got := string(s.read("downloaded.json")); got != string(s.read("sbom.json")) {
				t.Errorf("the SBOM became %q", got)
			}
		})
	}
}
