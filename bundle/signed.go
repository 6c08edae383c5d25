package bundle

import (
	"context"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/sigstore"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// What becomes of the signatures, attestations, SBOMs and other artifacts about an image.
const (
	CarryReferrers = "carry"
	DropReferrers  = "drop"
)

// SignerSpec demands a signature: by a key, or by an identity that a trusted root proves.
type SignerSpec struct {
	// Key is the path of a public key in PEM, TrustedRoot that of a trusted_root.json; relative
	// to the spec.
	Key           string `yaml:"key"`
	Issuer        string `yaml:"issuer"`
	IssuerRegExp  string `yaml:"issuerRegExp"`
	Subject       string `yaml:"subject"`
	SubjectRegExp string `yaml:"subjectRegExp"`
	TrustedRoot   string `yaml:"trustedRoot"`
}

// VerifySpec demands a signature of all images whose repository matches.
type VerifySpec struct {
	// Match is registry/repository, without tag and digest; a * stays within a segment.
	Match         string `yaml:"match"`
	Key           string `yaml:"key"`
	Issuer        string `yaml:"issuer"`
	IssuerRegExp  string `yaml:"issuerRegExp"`
	Subject       string `yaml:"subject"`
	SubjectRegExp string `yaml:"subjectRegExp"`
	TrustedRoot   string `yaml:"trustedRoot"`

	line int
}

// SignerSpecs is one demand, or a list of them, all of which have to be met.
type SignerSpecs []SignerSpec

// signerKeys are the keys of a SignerSpec.
var signerKeys = []string{"key", "issuer", "issuerRegExp", "subject", "subjectRegExp", "trustedRoot"}

// UnmarshalYAML takes a mapping for a list of one.
func (s *SignerSpecs) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.MappingNode {
		return n.Decode((*[]SignerSpec)(s))
	}
	for i := 0; i < len(n.Content); i += 2 {
		if k := n.Content[i]; !slices.Contains(signerKeys, k.Value) {
			return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: unknown key %q; known here: %s", k.Line, k.Value, strings.Join(signerKeys, ", "))}}
		}
	}
	var one SignerSpec
	if err := n.Decode(&one); err != nil {
		return err
	}
	*s = SignerSpecs{one}
	return nil
}

// repositorySeparators end a segment of a pattern for repositories.
const repositorySeparators = "/:@"

func (v *VerifySpec) signer() SignerSpec {
	return SignerSpec{v.Key, v.Issuer, v.IssuerRegExp, v.Subject, v.SubjectRegExp, v.TrustedRoot}
}

func (v *VerifySpec) check() error {
	if _, err := sigstore.Glob(v.Match, repositorySeparators); err != nil {
		return fmt.Errorf("match: %w", err)
	}
	if strings.Contains(v.Match, "@") || strings.Contains(v.Match[strings.LastIndexByte(v.Match, '/')+1:], ":") {
		return fmt.Errorf("match %q names a tag or digest; it is compared with registry/repository", v.Match)
	}
	s := v.signer()
	return s.check()
}

func (s *SignerSpec) check() error {
	identity := s.Issuer+s.IssuerRegExp+s.Subject+s.SubjectRegExp != ""
	switch {
	case (s.Key != "") == identity:
		return errors.New("verify wants either a key, or issuer, subject and trustedRoot")
	case s.Key != "" && s.TrustedRoot != "":
		return errors.New("verify: a key needs no trustedRoot")
	case s.Key != "":
		return nil
	}
	if _, err := sigstore.ParseIdentity(s.Issuer, s.IssuerRegExp, s.Subject, s.SubjectRegExp); err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if s.TrustedRoot == "" {
		return errors.New("verify: an identity is proven with a trustedRoot, and none is named")
	}
	return nil
}

func checkReferrers(s string) error {
	if s != "" && s != CarryReferrers && s != DropReferrers {
		return fmt.Errorf("referrers %q is none of %s, %s", s, CarryReferrers, DropReferrers)
	}
	return nil
}

// expiry is a date, of which the end in UTC is meant, or a time, as a manifest has it.
func expiry(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	t, err := time.Parse(time.DateOnly, s)
	if err == nil {
		t = t.Add(24*time.Hour - time.Second)
	} else if t, err = time.Parse(time.RFC3339, s); err != nil {
		return "", fmt.Errorf("expires %q is neither a date such as 2027-12-31 nor a time such as 2027-12-31T12:00:00Z", s)
	}
	text := t.UTC().Truncate(time.Second).Format(time.RFC3339)
	if err := manifest.CheckTime(text); err != nil {
		return "", fmt.Errorf("expires: %w", err)
	}
	return text, nil
}

// SignerFileError says that a key or a trusted root that a spec names cannot be used.
type SignerFileError struct {
	// What is "public key" or "trusted root".
	What, Path string
	Err        error
}

// Error names the file.
func (e *SignerFileError) Error() string { return fmt.Sprintf("%s %q: %v", e.What, e.Path, e.Err) }

// Unwrap returns the cause.
func (e *SignerFileError) Unwrap() error { return e.Err }

// UnmatchedError says that a demand for signatures is about none of the images: it would protect
// nothing, as one with a typing error does.
type UnmatchedError struct {
	Match string
	Line  int
}

// Error quotes the pattern.
func (e *UnmatchedError) Error() string {
	return fmt.Sprintf("verify (line %d of the spec): %q matches none of the images", e.Line, e.Match)
}

// DroppedSignaturesError says that signatures of an image are demanded and left behind.
type DroppedSignaturesError struct{ Reference string }

// Error names the image.
func (e *DroppedSignaturesError) Error() string {
	return fmt.Sprintf("image %q: a signature is demanded, and referrers: %s would leave it behind", e.Reference, DropReferrers)
}

// UnsignedImageError says that an image is not signed by whom the spec demands.
type UnsignedImageError struct {
	Reference string
	Err       error
}

// Error names the image.
func (e *UnsignedImageError) Error() string {
	return fmt.Sprintf("image %q is not signed as the spec demands: %v", e.Reference, e.Err)
}

// Unwrap returns the cause.
func (e *UnsignedImageError) Unwrap() error { return e.Err }

// imageSigner is a demand with its files read.
type imageSigner struct {
	manifest.ImageSigner
	// root is the content of the trusted root.
	root []byte
}

// demands puts together what is demanded of the images, before any registry is asked.
func (s *Spec) demands(want, artifacts map[string]*wanted) error {
	drop := s.Referrers == DropReferrers
	for _, all := range []map[string]*wanted{want, artifacts} {
		for _, w := range all {
			w.drop = drop
		}
	}
	for i := range s.Images {
		img := &s.Images[i]
		if img.Ref == "" {
			continue
		}
		if err := s.demandOf(want, img.Ref, img.Referrers, img.Verify); err != nil {
			return err
		}
	}
	for i := range s.Artifacts {
		a := &s.Artifacts[i]
		if err := s.demandOf(artifacts, a.Ref, a.Referrers, a.Verify); err != nil {
			return err
		}
	}
	for i := range s.Verify {
		v := &s.Verify[i]
		pattern, err := sigstore.Glob(v.Match, repositorySeparators)
		if err != nil {
			return fmt.Errorf("match: %w", err)
		}
		signer, err := s.signer(v.signer())
		if err != nil {
			return err
		}
		matched := false
		for _, all := range []map[string]*wanted{want, artifacts} {
			for _, w := range all {
				if pattern.Matches(w.ref.Registry + "/" + w.ref.Repository) {
					matched = true
					w.demand(signer)
				}
			}
		}
		if !matched {
			return &UnmatchedError{v.Match, v.line}
		}
	}
	for _, all := range []map[string]*wanted{want, artifacts} {
		for _, w := range all {
			if len(w.signers) > 0 && w.drop {
				return &DroppedSignaturesError{w.ref.String()}
			}
		}
	}
	return nil
}

// demandOf puts together what the spec says about one image or artifact.
func (s *Spec) demandOf(among map[string]*wanted, text, referrers string, verify SignerSpecs) error {
	ref, err := oci.ParseReference(text)
	if err != nil {
		return err
	}
	w := among[ref.String()]
	if referrers != "" {
		w.drop = referrers == DropReferrers
	}
	for _, demand := range verify {
		signer, err := s.signer(demand)
		if err != nil {
			return err
		}
		w.demand(signer)
	}
	return nil
}

// demand adds a demand that was not made yet.
func (w *wanted) demand(signer *imageSigner) {
	same := func(o *imageSigner) bool { return sameSigner(o.ImageSigner, signer.ImageSigner) }
	if !slices.ContainsFunc(w.signers, same) {
		w.signers = append(w.signers, signer)
	}
}

func sameSigner(a, b manifest.ImageSigner) bool {
	if a.TrustedRoot != nil && b.TrustedRoot != nil && *a.TrustedRoot != *b.TrustedRoot {
		return false
	}
	a.TrustedRoot, b.TrustedRoot = nil, nil
	return a == b
}

// signer reads the files that a demand names.
func (s *Spec) signer(d SignerSpec) (*imageSigner, error) {
	if d.Key != "" {
		raw, err := s.readSigner("public key", d.Key, sigstore.MaxKeyBytes)
		if err != nil {
			return nil, err
		}
		key, err := sigstore.ParsePublicKey(raw)
		if err != nil {
			return nil, &SignerFileError{"public key", d.Key, err}
		}
		block, _ := pem.Decode(key.PEM)
		return &imageSigner{ImageSigner: manifest.ImageSigner{Key: base64.StdEncoding.EncodeToString(block.Bytes)}}, nil
	}
	raw, err := s.readSigner("trusted root", d.TrustedRoot, manifest.MaxTrustedRootBytes)
	if err != nil {
		return nil, err
	}
	root, err := sigstore.ParseTrustedRoot(raw)
	if err == nil && !root.Certifies() {
		err = fmt.Errorf("names no authority that certifies identities: %w", sigstore.ErrTrustedRoot)
	}
	if err != nil {
		return nil, &SignerFileError{"trusted root", d.TrustedRoot, err}
	}
	return &imageSigner{manifest.ImageSigner{
		Issuer: d.Issuer, IssuerRegExp: d.IssuerRegExp, Subject: d.Subject, SubjectRegExp: d.SubjectRegExp,
		TrustedRoot: &manifest.Descriptor{Digest: manifest.Digest(raw), MediaType: manifest.MediaTypeTrustedRoot, Size: int64(len(raw))},
	}, raw}, nil
}

func (s *Spec) readSigner(what, path string, limit int64) ([]byte, error) {
	raw, err := readBounded(s.file(path), limit)
	if err != nil {
		return nil, &SignerFileError{what, path, err}
	}
	return raw, nil
}

// prove checks the signatures that are demanded, with the very code by which a site checks them
// again, and lets what is needed for that travel.
func (img *image) prove(ctx context.Context, w *wanted) error {
	for _, s := range w.signers {
		img.SignedBy = append(img.SignedBy, s.ImageSigner)
		if d := s.TrustedRoot; d != nil {
			img.meta = append(img.meta, stored(*d))
			img.raw[d.Digest] = s.root
		}
	}
	sizes := map[string]manifest.Blob{}
	for _, b := range slices.Concat(img.meta, img.attached) {
		sizes[b.Digest] = b
	}
	_, err := verify.CheckImage(ctx, &img.Image, func(digest string, limit int64) ([]byte, error) {
		if raw, ok := img.raw[digest]; ok {
			return raw, nil
		}
		raw, err := img.repo.ReadBlob(ctx, descriptorOf(sizes[digest]), limit)
		if err == nil {
			img.raw[digest] = raw
		}
		return raw, err
	})
	var refused *verify.ImageSignatureError
	if errors.As(err, &refused) {
		return &UnsignedImageError{w.ref.String(), refused.Err}
	}
	return err
}
