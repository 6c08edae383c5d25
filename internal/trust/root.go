package trust

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/sealift/sealift/internal/sigstore"
	"github.com/sealift/sealift/manifest"
)

const (
	// RootMediaType is the first member of every root document, and is compared before the
	// document is decoded, so that no other signed document can pass for a root.
	RootMediaType = "application/vnd.sealift.root.v1+json"
	// SignedRootMediaType is the first member of every root file: a root and its signatures.
	SignedRootMediaType = "application/vnd.sealift.signed-root.v1+json"
	// MaxRootFileBytes bounds a root file, so that two of them always fit into a signature slot.
	MaxRootFileBytes = 32 << 10
	// MaxRootBytes bounds a root document. In base64 it leaves 5 KiB of a root file for signatures.
	MaxRootBytes = 20 << 10
	// MaxRootSignatures bounds the signatures of a root.
	MaxRootSignatures = 32

	maxRoleKeys       = 16
	maxRootIdentities = 16
	maxRootList       = 256
	maxRootVersion    = 1 << 30
)

// Errors that a *RootError wraps.
var (
	// ErrRootForm: the bytes are no root, or one that breaks a rule.
	ErrRootForm = errors.New("not a usable root")
	// ErrRootSignatures: fewer keys of a role have signed than its threshold demands.
	ErrRootSignatures = errors.New("not signed by enough keys")
	// ErrRootGap: the root is more than one version ahead of the one that it has to follow.
	ErrRootGap = errors.New("a version is missing in between")
	// ErrRootBack: the root is not newer than the one that it has to follow.
	ErrRootBack = errors.New("the root does not go forward")
	// ErrRootSteps: the root is more steps ahead than are taken at once.
	ErrRootSteps = errors.New("too many steps at once")
)

// RootError says what is wrong with a root. Name and Version are what the root says about itself,
// and may be missing.
type RootError struct {
	Name    string
	Version int
	Err     error
}

// Error names the root.
func (e *RootError) Error() string {
	if e.Name == "" {
		return "root: " + e.Err.Error()
	}
	return fmt.Sprintf("root %d of %q: %v", e.Version, e.Name, e.Err)
}

// Unwrap returns what is wrong.
func (e *RootError) Unwrap() error { return e.Err }

// RootExpiredError says that the newest root at hand is too old to be believed.
type RootExpiredError struct {
	Name    string
	Version int
	Expires time.Time
}

// Error says since when.
func (e *RootExpiredError) Error() string {
	return fmt.Sprintf("root %d of %q has expired on %s, and no newer one is at hand", e.Version, e.Name, e.Expires.Format(time.RFC3339))
}

// EquivocationError says that a vendor's keys have signed two different roots of one version, so
// that not all sites see the same. Somebody has the keys who should not.
type EquivocationError struct {
	Name    string
	Version int
	// Digests of the two documents.
	Digests [2]string
}

// Error names both documents.
func (e *EquivocationError) Error() string {
	return fmt.Sprintf("there are two different roots %d of %q, and both are signed by enough keys: %s and %s", e.Version, e.Name, e.Digests[0], e.Digests[1])
}

// Root says which keys stand for a vendor, until when, and how many of them are needed: those that
// sign roots, which are kept offline, and those that sign bundles. Roots follow each other as those
// of TUF do (specification 1.0, section 5.3), by Step.
type Root struct {
	MediaType string `json:"mediaType"`
	// Name of the vendor: a DNS label.
	Name string `json:"name"`
	// Version counts from 1, by one.
	Version int    `json:"version"`
	Created string `json:"created"`
	// Expires is when sites stop to believe this root, unless they have a newer one.
	Expires string `json:"expires"`
	// Keys are those of all roles, ordered by ID.
	Keys    []RootKey   `json:"keys"`
	Root    Role        `json:"root"`
	Release ReleaseRole `json:"release"`
	// TrustedRoot is the sigstore trusted root that the identities are proven with.
	TrustedRoot []byte `json:"trustedRoot,omitempty"`
	// Reset names the bundles whose accepted version sites forget with this version of the root.
	Reset   []string `json:"reset,omitempty"`
	Revoked Revoked  `json:"revoked"`
}

// RootKey is a public key: Ed25519, or ECDSA on P-256.
type RootKey struct {
	// ID is the key's fingerprint: the lower-case hex SHA-256 digest of Key.
	ID string `json:"id"`
	// Key is the PKIX DER form.
	Key []byte `json:"key"`
}

// PublicKey reads the key. Errors wrap sigstore.ErrKey.
func (k *RootKey) PublicKey() (sigstore.PublicKey, error) {
	return sigstore.ParsePublicKey(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: k.Key}))
}

// Role is some keys, of which at least Threshold different ones have to sign.
type Role struct {
	Threshold int `json:"threshold"`
	// Keys are IDs, in order.
	Keys []string `json:"keys"`
}

// ReleaseRole is who signs bundles: keys, and identities with certificates.
type ReleaseRole struct {
	Threshold  int            `json:"threshold"`
	Keys       []string       `json:"keys"`
	Identities []RootIdentity `json:"identities"`
}

// RootIdentity is an identity with exactly one form of issuer and one of subject, as in a policy.
type RootIdentity struct {
	Issuer        string `json:"issuer,omitempty"`
	IssuerRegExp  string `json:"issuerRegExp,omitempty"`
	Subject       string `json:"subject,omitempty"`
	SubjectRegExp string `json:"subjectRegExp,omitempty"`
}

// Identity reads the patterns. Errors wrap sigstore.ErrPattern.
func (i RootIdentity) Identity() (sigstore.Identity, error) {
	return sigstore.ParseIdentity(i.Issuer, i.IssuerRegExp, i.Subject, i.SubjectRegExp)
}

// Revoked is what must not be used, whoever has signed it.
type Revoked struct {
	// Digests are those of manifests, in order.
	Digests []string `json:"digests"`
	// Versions are ordered by name and channel.
	Versions []RevokedVersions `json:"versions"`
}

// RevokedVersions are versions of the bundles of one name and channel, in the order of their bytes.
type RevokedVersions struct {
	Name     string   `json:"name"`
	Channel  string   `json:"channel"`
	Versions []string `json:"versions"`
}

// Find says what of a bundle is revoked: its digest, or its version. A revoked version without build
// metadata stands for all builds of it.
func (r *Revoked) Find(name, channel, version, digest string) (what string, revoked bool) {
	if slices.Contains(r.Digests, digest) {
		return "digest " + digest, true
	}
	plain, _, _ := strings.Cut(version, "+")
	for _, v := range r.Versions {
		if v.Name == name && v.Channel == channel && (slices.Contains(v.Versions, version) || slices.Contains(v.Versions, plain)) {
			return fmt.Sprintf("version %s of %q in channel %q", version, name, channel), true
		}
	}
	return "", false
}

// IsRevoked reports whether r revokes a bundle, by the digest of its manifest or by its version, and
// says which.
func (r *Root) IsRevoked(name, channel, version, digest string) (reason string, revoked bool) {
	what, revoked := r.Revoked.Find(name, channel, version, digest)
	if !revoked {
		return "", false
	}
	return fmt.Sprintf("%s is revoked by root %d of %q", what, r.Version, r.Name), true
}

// SignedRoot is a root with its signatures, which ParseRootFile has read. What it says is not proven
// by that: the first root of a site is believed for its digest, which people compare by another way
// than it came, and each other one because Step has succeeded from one that is believed.
type SignedRoot struct {
	Root Root
	// Raw are the bytes of the root, which are signed, and Digest is their sha256 digest.
	Raw    []byte
	Digest string
	// Signatures are sigstore bundles, of anybody.
	Signatures [][]byte
	// File is the root file.
	File []byte

	keys       map[string]sigstore.PublicKey
	identities []sigstore.Identity
	trusted    *sigstore.TrustedRoot
}

// rootFile is the form of N.root.json.
type rootFile struct {
	MediaType  string   `json:"mediaType"`
	Root       []byte   `json:"root"`
	Signatures [][]byte `json:"signatures"`
}

// ParseRootFile reads a root file: of at most MaxRootFileBytes, canonical inside and out, and by all
// the rules for one root. No signature is looked at: which keys have to have made them stands in the
// root before it and, for the first one, in itself. Errors are *RootError and wrap ErrRootForm.
func ParseRootFile(raw []byte) (*SignedRoot, error) {
	s, err := parseRootFile(raw)
	if err != nil {
		return nil, &RootError{Err: fmt.Errorf("reading: %w: %w", ErrRootForm, err)}
	}
	return s, nil
}

func parseRootFile(raw []byte) (*SignedRoot, error) {
	var f rootFile
	if err := decodeCanonical(raw, SignedRootMediaType, MaxRootFileBytes, &f, func() any {
		return rootFile{f.MediaType, nonNil(f.Root), nonNil(f.Signatures)}
	}); err != nil {
		return nil, fmt.Errorf("root file: %w", err)
	}
	if len(f.Signatures) > MaxRootSignatures {
		return nil, fmt.Errorf("%d signatures, at most %d are allowed", len(f.Signatures), MaxRootSignatures)
	}
	if slices.ContainsFunc(f.Signatures, func(s []byte) bool { return len(s) == 0 }) {
		return nil, errors.New("an empty signature")
	}
	s := &SignedRoot{Raw: f.Root, Digest: manifest.Digest(f.Root), Signatures: f.Signatures, File: bytes.Clone(raw)}
	if err := decodeCanonical(f.Root, RootMediaType, MaxRootBytes, &s.Root, func() any { return s.Root.normal() }); err != nil {
		return nil, err
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	return s, nil
}

// decodeCanonical decodes raw into v, which normal returns with empty lists for nil ones. Whatever
// has more than one spelling in JSON is refused: that is not what encoding it again gives.
func decodeCanonical(raw []byte, mediaType string, limit int, v any, normal func() any) error {
	if len(raw) > limit {
		return fmt.Errorf("%d bytes, at most %d are allowed", len(raw), limit)
	}
	if prefix := `{"mediaType":"` + mediaType + `",`; !bytes.HasPrefix(raw, []byte(prefix)) {
		return fmt.Errorf("does not begin with %s", prefix)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the document")
	}
	again, err := encodeCanonical(normal())
	if err != nil {
		return err
	}
	if !bytes.Equal(raw, again) {
		return errors.New("is not in its canonical form")
	}
	return nil
}

func encodeCanonical(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

func nonNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// normal returns r with empty lists for nil ones, so that there is one encoding of "none".
func (r *Root) normal() *Root {
	n := *r
	n.Keys = append([]RootKey{}, n.Keys...)
	for i := range n.Keys {
		n.Keys[i].Key = nonNil(n.Keys[i].Key)
	}
	n.Root.Keys = nonNil(n.Root.Keys)
	n.Release.Keys, n.Release.Identities = nonNil(n.Release.Keys), nonNil(n.Release.Identities)
	n.Revoked.Digests = nonNil(n.Revoked.Digests)
	n.Revoked.Versions = append([]RevokedVersions{}, n.Revoked.Versions...)
	for i := range n.Revoked.Versions {
		n.Revoked.Versions[i].Versions = nonNil(n.Revoked.Versions[i].Versions)
	}
	return &n
}

// ReleaseKeys are the keys that sign bundles.
func (s *SignedRoot) ReleaseKeys() []sigstore.PublicKey {
	keys := make([]sigstore.PublicKey, 0, len(s.Root.Release.Keys))
	for _, id := range s.Root.Release.Keys {
		keys = append(keys, s.keys[id])
	}
	return keys
}

// ReleaseIdentities are the identities that sign bundles.
func (s *SignedRoot) ReleaseIdentities() []sigstore.Identity { return slices.Clone(s.identities) }

// Trusted is the trusted root that the identities are proven with; nil where the root carries none.
func (s *SignedRoot) Trusted() *sigstore.TrustedRoot { return s.trusted }

// FileName is how the root file is called: N.root.json.
func (s *SignedRoot) FileName() string { return fmt.Sprintf("%d.root.json", s.Root.Version) }

// RootSigners are the fingerprints of those keys of the root role, and of the root role of prev,
// which may be nil, that have signed s, in order.
func (s *SignedRoot) RootSigners(ctx context.Context, prev *SignedRoot) ([]string, error) {
	candidates := []*SignedRoot{s}
	if prev != nil {
		candidates = append(candidates, prev)
	}
	signed, err := s.signedBy(ctx, candidates...)
	if err != nil {
		return nil, err
	}
	ids := make([]string, 0, len(signed))
	for id := range signed {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids, nil
}
