package trust

import (
	"bytes"
	"cmp"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/sealift/sealift/internal/sigstore"
	"github.com/sealift/sealift/manifest"
)

// check checks every rule that one root obeys beyond its syntax, and reads its keys, identities and
// trusted root on the way.
func (s *SignedRoot) check() error {
	r := &s.Root
	if r.MediaType != RootMediaType {
		return fmt.Errorf("mediaType %q, want %q", r.MediaType, RootMediaType)
	}
	if err := manifest.CheckName(r.Name); err != nil {
		return err
	}
	if r.Version < 1 || r.Version > maxRootVersion {
		return fmt.Errorf("version %d is not from 1 to %d", r.Version, maxRootVersion)
	}
	if err := manifest.CheckTime(r.Created); err != nil {
		return fmt.Errorf("created: %w", err)
	}
	if err := manifest.CheckTime(r.Expires); err != nil {
		return fmt.Errorf("expires: %w", err)
	}
	if !r.created().Before(r.expires()) {
		return fmt.Errorf("expires %s, which is not after it was created, %s", r.Expires, r.Created)
	}
	if err := s.readKeys(); err != nil {
		return err
	}
	if err := s.readIdentities(); err != nil {
		return err
	}
	if err := s.checkRoles(); err != nil {
		return err
	}
	if err := inOrder("reset", r.Reset, maxRootList, manifest.CheckName); err != nil {
		return err
	}
	if r.Version == 1 && len(r.Reset) > 0 {
		return errors.New("reset: a first root has nothing to reset")
	}
	return r.Revoked.check()
}

func (r *Root) created() time.Time { return timeOf(r.Created) }

func (r *Root) expires() time.Time { return timeOf(r.Expires) }

// timeOf reads a time that has been checked.
func timeOf(text string) time.Time {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}
	}
	return t
}

func (s *SignedRoot) readKeys() error {
	r := &s.Root
	if len(r.Keys) > 2*maxRoleKeys {
		return fmt.Errorf("%d keys, at most %d are allowed", len(r.Keys), 2*maxRoleKeys)
	}
	s.keys = make(map[string]sigstore.PublicKey, len(r.Keys))
	for i := range r.Keys {
		k := &r.Keys[i]
		if i > 0 && r.Keys[i-1].ID >= k.ID {
			return fmt.Errorf("keys: %q after %q: not in order, or twice", k.ID, r.Keys[i-1].ID)
		}
		// The fingerprint is over the key's one spelling: another one of the same key would have
		// another digest, and be counted as another key.
		sum := sha256.Sum256(k.Key)
		key, err := k.PublicKey()
		if err != nil {
			return fmt.Errorf("key %q: %w", k.ID, err)
		}
		if k.ID != hex.EncodeToString(sum[:]) || key.Fingerprint != k.ID {
			return fmt.Errorf("key %q: its fingerprint is %s", k.ID, key.Fingerprint)
		}
		if err := checkKeyKind(k.Key); err != nil {
			return fmt.Errorf("key %q: %w", k.ID, err)
		}
		s.keys[k.ID] = key
	}
	return nil
}

func checkKeyKind(der []byte) error {
	pub, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return err
	}
	switch k := pub.(type) {
	case ed25519.PublicKey:
		return nil
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			return nil
		}
	}
	return errors.New("is neither Ed25519 nor ECDSA on P-256")
}

func (s *SignedRoot) readIdentities() error {
	r := &s.Root
	if len(r.Release.Identities) > maxRootIdentities {
		return fmt.Errorf("%d identities, at most %d are allowed", len(r.Release.Identities), maxRootIdentities)
	}
	s.identities = make([]sigstore.Identity, 0, len(r.Release.Identities))
	for i, id := range r.Release.Identities {
		if i > 0 && compareIdentities(r.Release.Identities[i-1], id) >= 0 {
			return fmt.Errorf("identity %q: not in order, or twice", id.Subject+id.SubjectRegExp)
		}
		for _, text := range []string{id.Issuer, id.IssuerRegExp, id.Subject, id.SubjectRegExp} {
			if strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0 {
				return fmt.Errorf("identity %q holds characters that cannot be shown", text)
			}
		}
		identity, err := id.Identity()
		if err != nil {
			return fmt.Errorf("identity %d: %w", i, err)
		}
		s.identities = append(s.identities, identity)
	}
	if len(r.TrustedRoot) == 0 {
		return nil
	}
	if len(s.identities) == 0 {
		return errors.New("a trusted root, and no identities that it is for")
	}
	var err error
	if s.trusted, err = sigstore.ParseTrustedRoot(r.TrustedRoot); err != nil {
		return err
	}
	if !s.trusted.Certifies() {
		return errors.New("the trusted root names no authority that certifies identities")
	}
	return nil
}

func compareIdentities(a, b RootIdentity) int {
	return cmp.Or(cmp.Compare(a.Issuer, b.Issuer), cmp.Compare(a.IssuerRegExp, b.IssuerRegExp),
		cmp.Compare(a.Subject, b.Subject), cmp.Compare(a.SubjectRegExp, b.SubjectRegExp))
}

func (s *SignedRoot) checkRoles() error {
	r := &s.Root
	known := func(id string) error {
		if _, ok := s.keys[id]; !ok {
			return fmt.Errorf("key %q is not among the keys", id)
		}
		return nil
	}
	if err := inOrder("root keys", r.Root.Keys, maxRoleKeys, known); err != nil {
		return err
	}
	if err := inOrder("release keys", r.Release.Keys, maxRoleKeys, known); err != nil {
		return err
	}
	if r.Root.Threshold < 1 || r.Root.Threshold > len(r.Root.Keys) {
		return fmt.Errorf("root threshold %d, of %d keys", r.Root.Threshold, len(r.Root.Keys))
	}
	signers := len(r.Release.Keys) + len(s.identities)
	if signers == 0 {
		return errors.New("no release key and no identity")
	}
	// A pattern may stand for any number of signers.
	bounded := !slices.ContainsFunc(s.identities, func(id sigstore.Identity) bool { return !id.Issuer.Literal() || !id.Subject.Literal() })
	if r.Release.Threshold < 1 || r.Release.Threshold > maxThreshold || bounded && r.Release.Threshold > signers {
		return fmt.Errorf("release threshold %d, of %d signers", r.Release.Threshold, signers)
	}
	for i := range r.Keys {
		id := r.Keys[i].ID
		_, root := slices.BinarySearch(r.Root.Keys, id)
		_, release := slices.BinarySearch(r.Release.Keys, id)
		if !root && !release {
			return fmt.Errorf("key %q is in no role", id)
		}
		// Root keys are the way back from the theft of a release key, which signs every day.
		if root && release {
			return fmt.Errorf("key %q is both a root key and a release key", id)
		}
	}
	return nil
}

func (r *Revoked) check() error {
	if err := inOrder("revoked digests", r.Digests, maxRootList, manifest.CheckDigest); err != nil {
		return err
	}
	if len(r.Versions) > maxRootList {
		return fmt.Errorf("revoked versions: %d names and channels, at most %d are allowed", len(r.Versions), maxRootList)
	}
	for i, v := range r.Versions {
		if err := manifest.CheckName(v.Name); err != nil {
			return fmt.Errorf("revoked versions: %w", err)
		}
		// A channel is written as a name is.
		if manifest.CheckName(v.Channel) != nil {
			return fmt.Errorf("revoked versions of %q: malformed channel %q", v.Name, v.Channel)
		}
		if i > 0 && compareRevoked(r.Versions[i-1], v) >= 0 {
			return fmt.Errorf("revoked versions of %q in channel %q: not in order, or twice", v.Name, v.Channel)
		}
		if len(v.Versions) == 0 {
			return fmt.Errorf("revoked versions of %q: none", v.Name)
		}
		if err := inOrder("revoked versions", v.Versions, maxRootList, manifest.CheckVersion); err != nil {
			return err
		}
	}
	return nil
}

func compareRevoked(a, b RevokedVersions) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Channel, b.Channel))
}

// inOrder checks each of list, that they rise, and how many they are.
func inOrder(what string, list []string, limit int, check func(string) error) error {
	if len(list) > limit {
		return fmt.Errorf("%s: %d, at most %d are allowed", what, len(list), limit)
	}
	for i, text := range list {
		if err := check(text); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if i > 0 && list[i-1] >= text {
			return fmt.Errorf("%s: %q after %q: not in order, or twice", what, text, list[i-1])
		}
	}
	return nil
}

// checkSuccessor checks the rules for what may change from current to next, but for signatures.
func checkSuccessor(current, next *Root) error {
	if next.Name != current.Name {
		return fmt.Errorf("follows a root of %q: %w", current.Name, ErrRootForm)
	}
	switch {
	case next.Version <= current.Version:
		return fmt.Errorf("version %d is known already: %w", current.Version, ErrRootBack)
	case next.Version != current.Version+1:
		return fmt.Errorf("follows version %d: %w", current.Version, ErrRootGap)
	}
	if err := checkRevocations(&current.Revoked, &next.Revoked); err != nil {
		return err
	}
	if len(next.Reset) > 0 && !removesRelease(current, next) {
		return fmt.Errorf("resets accepted versions without removing a release key or identity: %w", ErrRootForm)
	}
	return nil
}

// checkRevocations checks that whatever old revokes is revoked by now as well.
func checkRevocations(old, now *Revoked) error {
	for _, d := range old.Digests {
		if !slices.Contains(now.Digests, d) {
			return fmt.Errorf("does not revoke digest %s any more: %w", d, ErrRootForm)
		}
	}
	for _, o := range old.Versions {
		i := slices.IndexFunc(now.Versions, func(v RevokedVersions) bool { return compareRevoked(v, o) == 0 })
		for _, version := range o.Versions {
			if i < 0 || !slices.Contains(now.Versions[i].Versions, version) {
				return fmt.Errorf("does not revoke version %s of %q in channel %q any more: %w", version, o.Name, o.Channel, ErrRootForm)
			}
		}
	}
	return nil
}

// removesRelease reports whether somebody who signs bundles by current does not by next.
func removesRelease(current, next *Root) bool {
	return slices.ContainsFunc(current.Release.Keys, func(id string) bool { return !slices.Contains(next.Release.Keys, id) }) ||
		slices.ContainsFunc(current.Release.Identities, func(id RootIdentity) bool { return !slices.Contains(next.Release.Identities, id) })
}

// EncodeRoot returns the canonical bytes of r, which are what is signed, if r obeys all rules.
// Errors are *RootError and wrap ErrRootForm.
func EncodeRoot(r *Root) ([]byte, error) {
	fail := func(err error) ([]byte, error) {
		return nil, &RootError{r.Name, r.Version, fmt.Errorf("encoding: %w: %w", ErrRootForm, err)}
	}
	raw, err := encodeCanonical(r.normal())
	if err != nil {
		return fail(err)
	}
	// What reading would refuse must not be written: invalid UTF-8, say, does not come back.
	var s SignedRoot
	if err := decodeCanonical(raw, RootMediaType, MaxRootBytes, &s.Root, func() any { return s.Root.normal() }); err != nil {
		return fail(err)
	}
	if err := s.check(); err != nil {
		return fail(err)
	}
	return raw, nil
}

// SealRoot puts the bytes of a root and signatures over them, which are not looked at, into a root
// file. Errors are *RootError and wrap ErrRootForm.
func SealRoot(raw []byte, signatures [][]byte) ([]byte, error) {
	file, err := encodeCanonical(rootFile{SignedRootMediaType, nonNil(bytes.Clone(raw)), nonNil(signatures)})
	if err != nil {
		return nil, &RootError{Err: fmt.Errorf("encoding: %w: %w", ErrRootForm, err)}
	}
	if _, err := ParseRootFile(file); err != nil {
		return nil, err
	}
	return file, nil
}
