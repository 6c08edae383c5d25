package verify

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/sealift/sealift/internal/progress"
	"github.com/sealift/sealift/internal/sigstore"
	"github.com/sealift/sealift/manifest"
)

// Media types of the layers that hold signatures of images: a payload of simple signing, with the
// signature in the layer's annotations, and a sigstore bundle of any version.
const (
	mediaTypeSimpleSigning  = "application/vnd.dev.cosign.simplesigning.v1+json"
	mediaTypeSigstoreBundle = "application/vnd.dev.sigstore.bundle"
)

// signatureTag ends the tag under which cosign stores the signatures of an image.
const signatureTag = ".sig"

// ImageSignatureError says that an image is not signed by whom its manifest says.
type ImageSignatureError struct {
	Source, Digest string
	Err            error
}

// Error names the image.
func (e *ImageSignatureError) Error() string {
	return fmt.Sprintf("image %q is not signed as it has to be: %v", e.Source, e.Err)
}

// Unwrap returns the cause.
func (e *ImageSignatureError) Unwrap() error { return e.Err }

// errChildren is why an image is refused of which only parts are signed.
var errChildren = errors.New("only images inside the index are signed, not the index itself")

// ImageSigner is somebody who has to have signed an image, and how that was proven.
type ImageSigner struct {
	manifest.ImageSigner
	// Fingerprint of the key that signed; Signer and SignerIssuer are who did so without one.
	Fingerprint  string `json:"fingerprint,omitempty"`
	Signer       string `json:"signer,omitempty"`
	SignerIssuer string `json:"signerIssuer,omitempty"`
	// Times at which the signature existed, as authorities of the trusted root say.
	Times []sigstore.ProvenTime `json:"times,omitempty"`
	// Form is sigstore.FormSimple or sigstore.FormBundle.
	Form string `json:"form"`
}

// ImageCheck is what was proven about an image.
type ImageCheck struct {
	Source string `json:"source"`
	Digest string `json:"digest"`
	// Signers is empty where no signature is demanded: then nothing is proven but the digest.
	Signers []ImageSigner `json:"signers"`
	// Referrers is how many signatures, attestations and the like travel with the image.
	Referrers int `json:"referrers"`
	// Dropped says that the vendor left them behind.
	Dropped bool `json:"dropped,omitempty"`
}

// ReadBlob gives the proven bytes of a blob, which are at most limit.
type ReadBlob func(digest string, limit int64) ([]byte, error)

// CheckImage proves that those have signed an image who have to: img.SignedBy, each for the digest
// that its reference resolves to, with signatures that travel with it. Errors are
// *ImageSignatureError, or those of read.
func CheckImage(ctx context.Context, img *manifest.Image, read ReadBlob) (*ImageCheck, error) {
	c := &ImageCheck{Source: img.Source, Digest: img.Digest, Signers: []ImageSigner{}, Referrers: len(img.Referrers), Dropped: img.ReferrersDropped}
	if len(img.SignedBy) == 0 {
		return c, nil
	}
	found, err := signatures(img, read)
	if err != nil {
		return nil, err
	}
	for _, s := range img.SignedBy {
		var root []byte
		if s.TrustedRoot != nil {
			if root, err = read(s.TrustedRoot.Digest, manifest.MaxTrustedRootBytes); err != nil {
				return nil, err
			}
		}
		by, err := signedBy(s, root)
		if err != nil {
			return nil, &ImageSignatureError{img.Source, img.Digest, err}
		}
		proof, err := found.Verify(ctx, img.Digest, by)
		if errors.Is(err, sigstore.ErrImageUnsigned) && childrenSigned(img) {
			err = fmt.Errorf("%w: %w", err, errChildren)
		}
		if err != nil {
			return nil, &ImageSignatureError{img.Source, img.Digest, fmt.Errorf("%s: %w", DescribeSigner(s), err)}
		}
		c.Signers = append(c.Signers, ImageSigner{s, proof.Key, proof.Subject, proof.Issuer, proof.Times, proof.Form})
	}
	return c, nil
}

// CheckImages proves once more, out of the bundle, that the images and artifacts are signed by whom they had to
// be when it was packed. A stream is read ahead as far as the last signature; who wants to know
// whether all of it is sound calls Each afterwards, not Check. Errors are *ImageSignatureError for
// the first image that fails, those of Check, or ErrPreload.
func (b *Bundle) CheckImages(ctx context.Context, report progress.Reporter) ([]ImageCheck, error) {
	if err := b.preloadSignatures(ctx, report); err != nil {
		return nil, err
	}
	all := b.manifest.AllImages()
	task := report.Start("checking the signatures of images", int64(len(all)), progress.Items)
	defer task.Done()
	checks := make([]ImageCheck, 0, len(all))
	for _, img := range all {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		c, err := CheckImage(ctx, img, b.ReadBlob)
		if err != nil {
			return nil, err
		}
		checks = append(checks, *c)
		task.Add(1)
	}
	return checks, nil
}

// preloadSignatures reads a stream as far as the last blob that CheckImages looks at.
func (b *Bundle) preloadSignatures(ctx context.Context, report progress.Reporter) error {
	if b.stream == nil {
		return nil
	}
	if err := b.Preload(ctx, report); err != nil {
		return err
	}
	needed := map[string]bool{}
	for _, img := range b.manifest.AllImages() {
		for _, s := range img.SignedBy {
			if s.TrustedRoot != nil {
				needed[s.TrustedRoot.Digest] = true
			}
		}
		err := eachSignature(img, b.ReadBlob, func(l signatureLayer) error {
			if _, carried := b.blobs[l.Digest]; carried {
				needed[l.Digest] = true
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return b.preload(ctx, report, needed)
}

// DescribeSigner names whom s demands.
func DescribeSigner(s manifest.ImageSigner) string {
	if s.Key != "" {
		if key, err := publicKey(s.Key); err == nil {
			return "key sha256:" + key.Fingerprint
		}
		return "a key that cannot be read"
	}
	return fmt.Sprintf("%s by %s", s.Subject+s.SubjectRegExp, s.Issuer+s.IssuerRegExp)
}

func publicKey(der string) (*sigstore.PublicKey, error) {
	raw, err := base64.StdEncoding.Strict().DecodeString(der)
	if err != nil {
		return nil, fmt.Errorf("key: %w: %w", sigstore.ErrKey, err)
	}
	key, err := sigstore.ParsePublicKey(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: raw}))
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	return &key, nil
}

// signedBy is s, with the content of its trusted root, as package sigstore has it.
func signedBy(s manifest.ImageSigner, rawRoot []byte) (sigstore.SignedBy, error) {
	if s.Key != "" {
		key, err := publicKey(s.Key)
		return sigstore.SignedBy{Key: key}, err
	}
	id, err := sigstore.ParseIdentity(s.Issuer, s.IssuerRegExp, s.Subject, s.SubjectRegExp)
	if err != nil {
		return sigstore.SignedBy{}, err
	}
	if s.TrustedRoot == nil {
		return sigstore.SignedBy{}, fmt.Errorf("%s: an identity needs one: %w", id, sigstore.ErrTrustedRoot)
	}
	root, err := sigstore.ParseTrustedRoot(rawRoot)
	return sigstore.SignedBy{Match: id.Matches, Root: root}, err
}

// signatureLayer is a layer that may hold a signature.
type signatureLayer struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations"`
}

// eachSignature calls found for the layers with signatures of the very image, its index where it
// has one, not of what is inside. What a tag leads to is no more than a claim: whether a signature
// is about the image, the signed bytes say.
func eachSignature(img *manifest.Image, read ReadBlob, found func(signatureLayer) error) error {
	if len(img.SignedBy) == 0 {
		return nil
	}
	for _, r := range img.Referrers {
		if r.Subject != img.Digest || r.Tag != "" && !strings.HasSuffix(r.Tag, signatureTag) {
			continue
		}
		raw, err := read(r.Digest, manifest.MaxOCIManifestBytes)
		if err != nil {
			return err
		}
		var doc struct {
			Layers []signatureLayer `json:"layers"`
		}
		if err := json.Unmarshal(raw, &doc); err != nil {
			return &ImageSignatureError{img.Source, img.Digest, fmt.Errorf("parsing referrer %s: %w", r.Digest, err)}
		}
		for _, l := range doc.Layers {
			isSignature := l.MediaType == mediaTypeSimpleSigning || strings.HasPrefix(l.MediaType, mediaTypeSigstoreBundle)
			// One that is too large cannot count, and takes nothing from the others.
			if !isSignature || l.Size > sigstore.MaxImageSignatureBytes {
				continue
			}
			if err := found(l); err != nil {
				return err
			}
		}
	}
	return nil
}

// signatures reads all signatures of the image that travel with it.
func signatures(img *manifest.Image, read ReadBlob) (sigstore.ImageSignatures, error) {
	var all sigstore.ImageSignatures
	err := eachSignature(img, read, func(l signatureLayer) error {
		if len(all.Simple)+len(all.Bundles) >= sigstore.MaxImageSignatures {
			return &ImageSignatureError{img.Source, img.Digest, fmt.Errorf("more than %d signatures", sigstore.MaxImageSignatures)}
		}
		raw, err := read(l.Digest, sigstore.MaxImageSignatureBytes)
		if err != nil {
			return err
		}
		if l.MediaType == mediaTypeSimpleSigning {
			all.Simple = append(all.Simple, sigstore.SimpleSignature{Payload: raw, Annotations: l.Annotations})
		} else {
			all.Bundles = append(all.Bundles, raw)
		}
		return nil
	})
	return all, err
}

// childrenSigned reports whether there is something like a signature of an image inside the index.
func childrenSigned(img *manifest.Image) bool {
	for _, r := range img.Referrers {
		if r.Subject != img.Digest && (strings.HasSuffix(r.Tag, signatureTag) || strings.HasPrefix(r.ArtifactType, mediaTypeSigstoreBundle)) {
			return true
		}
	}
	return false
}
