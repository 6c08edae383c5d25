package verify_test

import (
	"context"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/sealift/sealift/internal/sigstore"
	"github.com/sealift/sealift/internal/sigstore/sigtest"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// signedImage is an image with one artifact about it, of which raw is the manifest, and the blobs.
func signedImage(key sigstore.PublicKey, tag, about string, raw []byte, blobs ...[]byte) (*manifest.Image, verify.ReadBlob) {
	block, _ := pem.Decode(key.PEM)
	content := map[string][]byte{manifest.Digest(raw): raw}
	for _, b := range blobs {
		content[manifest.Digest(b)] = b
	}
	img := &manifest.Image{
		Source: "registry.example/a:1", Digest: imageDigest,
		Referrers: []manifest.Referrer{{Digest: manifest.Digest(raw), MediaType: imageType, Size: int64(len(raw)), Subject: about, Tag: tag}},
		SignedBy:  []manifest.ImageSigner{{Key: base64.StdEncoding.EncodeToString(block.Bytes)}},
	}
	return img, func(digest string, limit int64) ([]byte, error) {
		b, ok := content[digest]
		if !ok || int64(len(b)) > limit {
			return nil, errNoBlob
		}
		return b, nil
	}
}

var (
	imageDigest = "sha256:" + strings.Repeat("1", 64)
	otherDigest = "sha256:" + strings.Repeat("2", 64)
	errNoBlob   = errors.New("no such blob")
)

func layerOf(mediaType, annotations string, content []byte) []byte {
	return fmt.Appendf(nil, `{"schemaVersion":2,"layers":[{"mediaType":%q,"digest":%q,"size":%d,"annotations":%s}]}`, mediaType, manifest.Digest(content), len(content), annotations)
}

// TestCheckImage: where a signature lies does not make it one, and what is too large is none.
func TestCheckImage(t *testing.T) {
	v := sigtest.New(t)
	key, public := sigtest.NewKey(t)
	const bundleType = "application/vnd.dev.sigstore.bundle.v0.3+json"
	good := v.ImageBundleWithKey(t, key, imageDigest, sigtest.Options{})
	wrong := v.ImageBundleWithKey(t, key, otherDigest, sigtest.Options{})
	for name, c := range map[string]struct {
		tag, about string
		raw        []byte
		blob       []byte
		ok         bool
	}{
		"bundle":                  {"", imageDigest, layerOf(bundleType, "{}", good), good, true},
		"bundle under the tag":    {manifest.ReferrerTag(imageDigest, ".sig"), imageDigest, layerOf(bundleType, "{}", good), good, true},
		"of another image":        {"", imageDigest, layerOf(bundleType, "{}", wrong), wrong, false},
		"about another":           {"", otherDigest, layerOf(bundleType, "{}", good), good, false},
		"under an SBOM's tag":     {manifest.ReferrerTag(imageDigest, ".sbom"), imageDigest, layerOf(bundleType, "{}", good), good, false},
		"of another type":         {"", imageDigest, layerOf("application/json", "{}", good), good, false},
		"as if it were the other": {"", imageDigest, layerOf("application/vnd.dev.cosign.simplesigning.v1+json", "{}", good), good, false},
		"rubbish":                 {"", imageDigest, []byte("rubbish"), good, false},
		"too large": {"", imageDigest, []byte(strings.Replace(string(layerOf(bundleType, "{}", good)), fmt.Sprintf(`"size":%d`, len(good)),
			`"size":99999999`, 1)), good, false},
	} {
		img, read := signedImage(public, c.tag, c.about, c.raw, c.blob)
		check, err := verify.CheckImage(t.Context(), img, read)
		var refused *verify.ImageSignatureError
		if c.ok && (err != nil || len(check.Signers) != 1 || check.Signers[0].Fingerprint != public.Fingerprint) || !c.ok && !errors.As(err, &refused) {
			t.Errorf("%s: %+v, %v", name, check, err)
		}
	}
	// What cannot be read is not told as a signature that does not hold.
	img, read := signedImage(public, "", imageDigest, layerOf(bundleType, "{}", good))
	if _, err := verify.CheckImage(t.Context(), img, read); !errors.Is(err, errNoBlob) {
		t.Errorf("%v, want the error of reading", err)
	}
	// So many that nobody means it.
	many := []byte(`{"layers":[` + strings.TrimSuffix(strings.Repeat(`{"mediaType":"`+bundleType+`","digest":"`+manifest.Digest(good)+`","size":1},`, 300), ",") + `]}`)
	img, read = signedImage(public, "", imageDigest, many, good)
	var refused *verify.ImageSignatureError
	if _, err := verify.CheckImage(t.Context(), img, read); !errors.As(err, &refused) {
		t.Errorf("%v, want *ImageSignatureError", err)
	}
}

// FuzzCheckImage: no artifact makes it panic, and none that the key has not signed counts.
func FuzzCheckImage(f *testing.F) {
	_, public := sigtest.NewKey(f)
	f.Add([]byte(`{"layers":[{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json","annotations":{"dev.cosignproject.cosign/signature":"AAAA"}}]}`), []byte("{}"))
	f.Add([]byte(`{"layers":[{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json"}]}`), []byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json"}`))
	f.Fuzz(func(t *testing.T, raw, blob []byte) {
		img, _ := signedImage(public, "", imageDigest, raw)
		read := func(digest string, _ int64) ([]byte, error) {
			if digest == img.Referrers[0].Digest {
				return raw, nil
			}
			return blob, nil
		}
		if c, err := verify.CheckImage(context.Background(), img, read); err == nil {
			t.Fatalf("accepted %q %q: %+v", raw, blob, c)
		}
	})
}
