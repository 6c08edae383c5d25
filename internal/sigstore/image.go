package sigstore

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/sigstore/cosign/v2/pkg/cosign"
	cbundle "github.com/sigstore/cosign/v2/pkg/cosign/bundle"
	"github.com/sigstore/cosign/v2/pkg/oci/static"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	sgbundle "github.com/sigstore/sigstore-go/pkg/bundle"
	sgverify "github.com/sigstore/sigstore-go/pkg/verify"
)

// MaxImageSignatureBytes bounds one signature of an image that is looked at: a sigstore bundle,
// or a payload with its annotations.
const MaxImageSignatureBytes = 1 << 20

// MaxImageSignatures bounds the signatures that are looked at for one image.
const MaxImageSignatures = 256

// ErrImageUnsigned says that nothing at all has been found that could be a signature of the image.
var ErrImageUnsigned = errors.New("image is not signed")

// signPredicate is the type of a statement that signs an image. A statement of any other type
// (how it was built, what is in it) says something about the image, and not that it is released.
const signPredicate = "https://sigstore.dev/cosign/sign/v1"

// Forms in which signatures of images are stored.
const (
	// FormSimple is a layer of the manifest under the tag sha256-….sig (simple signing).
	FormSimple = "simple"
	// FormBundle is a sigstore bundle that refers to the image.
	FormBundle = "bundle"
)

// SimpleSignature is one layer of a manifest under the tag sha256-….sig
// (https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md).
type SimpleSignature struct {
	Payload     []byte
	Annotations map[string]string
}

// ImageSignatures is everything that was found about one subject, an image or an index. Of all
// of it, nothing is proven.
type ImageSignatures struct {
	Simple []SimpleSignature
	// Bundles are the referrers of a type application/vnd.dev.sigstore.bundle….
	Bundles [][]byte
}

// SignedBy says who must have signed: the holder of a key, or one for whom Match says yes. With
// Match there must be a Root; with a Key it is only for the times.
type SignedBy struct {
	Key *PublicKey
	// Match is told what a certificate claims, and says whether that is who must have signed.
	Match func(issuer, subject string) bool
	Root  *TrustedRoot
}

// ImageProof is who signed an image, and what else is proven about it.
type ImageProof struct {
	// Key is the fingerprint of the key; Issuer and Subject are who signed without one.
	Key, Issuer, Subject string
	Times                []ProvenTime
	Logs                 []string
	// Form is FormSimple or FormBundle.
	Form string
}

var sha256Digest = regexp.MustCompile(`\Asha256:[0-9a-f]{64}\z`)

// Verify finds a signature of the subject with this digest (sha256:…) that is by whom it must be.
// One is enough; what else was found does not matter. Errors wrap ErrImageUnsigned or
// ErrSignature, and with the latter what was wrong with each.
func (s ImageSignatures) Verify(ctx context.Context, digest string, by SignedBy) (*ImageProof, error) {
	proof, err := s.verify(ctx, digest, by)
	if err != nil {
		return nil, fmt.Errorf("verifying signatures of image %q: %w", digest, err)
	}
	return proof, nil
}

func (s ImageSignatures) verify(ctx context.Context, digest string, by SignedBy) (*ImageProof, error) {
	if !sha256Digest.MatchString(digest) {
		return nil, fmt.Errorf("want sha256 and 64 hex digits: %w", ErrSignature)
	}
	switch {
	case (by.Key == nil) == (by.Match == nil):
		return nil, fmt.Errorf("want either a key or an identity: %w", ErrKey)
	case by.Match != nil && by.Root == nil:
		return nil, fmt.Errorf("an identity needs one: %w", ErrTrustedRoot)
	}
	found := len(s.Simple) + len(s.Bundles)
	if found == 0 {
		return nil, ErrImageUnsigned
	}
	var reasons []error
	for i, b := range s.Bundles {
		if len(reasons) == MaxImageSignatures {
			break
		}
		proof, err := verifyImageBundle(ctx, b, digest, by)
		if err == nil {
			return proof, nil
		}
		reasons = append(reasons, fmt.Errorf("sigstore bundle %d: %w", i+1, err))
	}
	for i, l := range s.Simple {
		if len(reasons) == MaxImageSignatures {
			break
		}
		proof, err := l.verify(ctx, digest, by)
		if err == nil {
			return proof, nil
		}
		reasons = append(reasons, fmt.Errorf("signature layer %d: %w", i+1, err))
	}
	if found > len(reasons) {
		reasons = append(reasons, fmt.Errorf("%d more were not looked at", found-len(reasons)))
	}
	return nil, fmt.Errorf("%w: %w", ErrSignature, errors.Join(reasons...))
}

// verifyImageBundle verifies a statement that signs the image, or a signature over the bytes of
// its manifest.
func verifyImageBundle(ctx context.Context, raw []byte, digest string, by SignedBy) (*ImageProof, error) {
	s, err := parseBundle(raw, MaxImageSignatureBytes)
	if err != nil {
		return nil, err
	}
	sum, err := hex.DecodeString(digest[len("sha256:"):])
	if err != nil {
		return nil, fmt.Errorf("digest %q: %w", digest, ErrSignature)
	}
	proof, result, err := s.verifyImage(ctx, &artifact{digest: sum}, by, FormBundle)
	if err != nil {
		return nil, err
	}
	if s.isStatement() {
		if got := result.Statement.GetPredicateType(); got != signPredicate {
			return nil, fmt.Errorf("statement of type %q, only %q signs an image: %w", got, signPredicate, ErrSignature)
		}
	}
	return proof, nil
}

// verifyImage verifies s by the key, or by whom its certificate names if that is the one.
func (s *Signature) verifyImage(ctx context.Context, a *artifact, by SignedBy, form string) (*ImageProof, *sgverify.VerificationResult, error) {
	if by.Key != nil {
		p, result, err := s.verifyKey(ctx, a, *by.Key, by.Root)
		if err != nil {
			return nil, nil, err
		}
		return &ImageProof{Key: by.Key.Fingerprint, Times: p.Times, Logs: p.Logs, Form: form}, result, nil
	}
	issuer, subject, ok := s.Claims()
	if !ok {
		return nil, nil, fmt.Errorf("made with a key, or with a certificate that names nobody: %w", ErrIdentity)
	}
	if !by.Match(issuer, subject) {
		return nil, nil, fmt.Errorf("signed by %q of %q: %w", subject, issuer, ErrIdentity)
	}
	p, result, err := s.verifyIdentity(ctx, a, issuer, subject, by.Root)
	if err != nil {
		return nil, nil, err
	}
	return &ImageProof{Issuer: issuer, Subject: subject, Times: p.Times, Logs: p.Logs, Form: form}, result, nil
}

// verify verifies a layer as what it is: a signature over its payload, which names the image.
// cosign's own function for it (VerifyImageSignature) takes any certificate where no identity is
// given and the time of day where there is no other, prints, and panics on a foreign timestamp;
// so the layer is brought into the form of a bundle and judged as those are.
func (l SimpleSignature) verify(ctx context.Context, digest string, by SignedBy) (*ImageProof, error) {
	s, err := l.signature(by.Key != nil)
	if err != nil {
		return nil, err
	}
	proof, _, err := s.verifyImage(ctx, artifactOf(l.Payload), by, FormSimple)
	if err != nil {
		return nil, err
	}
	// Only now is the payload looked into.
	h, err := v1.NewHash(digest)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	layer, err := static.NewSignature(l.Payload, "")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	if err := cosign.SimpleClaimVerifier(layer, h, nil); err != nil {
		return nil, fmt.Errorf("payload: %w: %w", ErrSignature, err)
	}
	return proof, nil
}

// signature is l in the form of a sigstore bundle of version 0.1, which like l has a log's
// promise without its proof. With a key, a certificate that is there too means nothing.
func (l SimpleSignature) signature(byKey bool) (*Signature, error) {
	size := len(l.Payload)
	for k, v := range l.Annotations {
		size += len(k) + len(v)
	}
	if size > MaxImageSignatureBytes {
		return nil, fmt.Errorf("%d bytes, at most %d are allowed: %w", size, MaxImageSignatureBytes, ErrMalformed)
	}
	sig, err := base64.StdEncoding.DecodeString(l.Annotations[static.SignatureAnnotationKey])
	if err != nil || len(sig) == 0 {
		return nil, fmt.Errorf("annotation %q holds no signature: %w", static.SignatureAnnotationKey, ErrMalformed)
	}
	sum := sha256.Sum256(l.Payload)
	m := &protobundle.VerificationMaterial{
		Content: &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{}},
	}
	if cert := l.Annotations[static.CertificateAnnotationKey]; cert != "" && !byKey {
		block, _ := pem.Decode([]byte(cert))
		if block == nil || block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("annotation %q holds no certificate: %w", static.CertificateAnnotationKey, ErrMalformed)
		}
		m.Content = &protobundle.VerificationMaterial_Certificate{Certificate: &protocommon.X509Certificate{RawBytes: block.Bytes}}
	}
	if stamp := l.Annotations[static.RFC3161TimestampAnnotationKey]; stamp != "" {
		var t cbundle.RFC3161Timestamp
		if err := json.Unmarshal([]byte(stamp), &t); err == nil && len(t.SignedRFC3161Timestamp) > 0 {
			m.TimestampVerificationData = &protobundle.TimestampVerificationData{
				Rfc3161Timestamps: []*protocommon.RFC3161SignedTimestamp{{SignedTimestamp: t.SignedRFC3161Timestamp}},
			}
		}
	}
	if entry := logEntry(l.Annotations[static.BundleAnnotationKey]); entry != nil {
		m.TlogEntries = []*protorekor.TransparencyLogEntry{entry}
	}
	b := &protobundle.Bundle{
		MediaType:            "application/vnd.dev.sigstore.bundle+json;version=0.1",
		VerificationMaterial: m,
		Content: &protobundle.Bundle_MessageSignature{MessageSignature: &protocommon.MessageSignature{
			MessageDigest: &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256, Digest: sum[:]}, Signature: sig,
		}},
	}
	s, err := bundled(b)
	if err != nil && m.TlogEntries != nil {
		// A log entry of a kind that is not known proves nothing, and takes nothing away.
		m.TlogEntries = nil
		s, err = bundled(b)
	}
	return s, err
}

func bundled(raw *protobundle.Bundle) (*Signature, error) {
	var b *sgbundle.Bundle
	if err := guarded(func() (err error) {
		b, err = sgbundle.NewBundle(raw)
		return err
	}); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return newSignature(b)
}

// logEntry reads the annotation in which cosign keeps what the log has answered; nil if it
// cannot be read.
func logEntry(annotation string) *protorekor.TransparencyLogEntry {
	var answer struct {
		SignedEntryTimestamp []byte
		Payload              struct {
			Body           []byte `json:"body"`
			IntegratedTime int64  `json:"integratedTime"`
			LogIndex       int64  `json:"logIndex"`
			LogID          string `json:"logID"`
		}
	}
	if annotation == "" || json.Unmarshal([]byte(annotation), &answer) != nil {
		return nil
	}
	var kind struct {
		Kind       string `json:"kind"`
		APIVersion string `json:"apiVersion"`
	}
	id, err := hex.DecodeString(answer.Payload.LogID)
	if err != nil || json.Unmarshal(answer.Payload.Body, &kind) != nil {
		return nil
	}
	return &protorekor.TransparencyLogEntry{
		LogIndex: answer.Payload.LogIndex, LogId: &protocommon.LogId{KeyId: id},
		KindVersion:       &protorekor.KindVersion{Kind: kind.Kind, Version: kind.APIVersion},
		IntegratedTime:    answer.Payload.IntegratedTime,
		InclusionPromise:  &protorekor.InclusionPromise{SignedEntryTimestamp: answer.SignedEntryTimestamp},
		CanonicalizedBody: answer.Payload.Body,
	}
}
