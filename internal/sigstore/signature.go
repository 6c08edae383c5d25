package sigstore

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/sigstore/cosign/v2/pkg/cosign"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	sgbundle "github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
	sgroot "github.com/sigstore/sigstore-go/pkg/root"
	sgtlog "github.com/sigstore/sigstore-go/pkg/tlog"
	sgverify "github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	sopts "github.com/sigstore/sigstore/pkg/signature/options"
)

// Errors that callers of VerifyIdentity tell apart.
var (
	// ErrIdentity: the signature is not by this issuer and subject, or whoever certified them
	// is not trusted.
	ErrIdentity = errors.New("identity is not the expected one or not trusted")
	// ErrNoProvenTime: nothing that the trusted root can verify says when the signature was
	// made. A certificate is good for minutes, so that without a time it proves nothing.
	ErrNoProvenTime = errors.New("no proven time within the certificate's validity")
)

// Kinds of proven times.
const (
	// TransparencyLog: a log has signed that it took the signature in at this time.
	TransparencyLog = "transparency-log"
	// SignedTimestamp: a timestamp authority has signed that the signature existed (RFC 3161).
	SignedTimestamp = "signed-timestamp"
)

// ProvenTime is a time at which a signature existed, as an authority of the trusted root says.
type ProvenTime struct {
	At time.Time `json:"at"`
	// Kind is TransparencyLog or SignedTimestamp.
	Kind string `json:"kind"`
	// Authority is the URL by which the trusted root knows the authority; it may be empty.
	Authority string `json:"authority,omitempty"`
}

// Proof is what is proven beyond that a signature holds.
type Proof struct {
	// Times are in order, one per authority at most.
	Times []ProvenTime
	// Logs are the transparency logs of the trusted root that hold the signature, by URL (by
	// the key's identifier in hex, if the trusted root gives none). A log that proves the
	// inclusion alone is here and not among the times: logs of the second generation tell none.
	Logs []string
}

// maxMaterial bounds the log entries and the timestamps of one bundle.
const maxMaterial = 16

// Signature is a sigstore bundle over a message. Nothing about it is proven but that it can be
// read. It does not change and may be used by several at once.
type Signature struct {
	bundle  *sgbundle.Bundle
	entries []*sgtlog.Entry
	stamps  [][]byte
	// What the certificate claims; certified says that there is one.
	issuer, subject string
	certified       bool
}

// ParseSignature reads a sigstore bundle over a message (protobuf-specs Bundle v0.1 to v0.3 in
// JSON). Errors wrap ErrMalformed.
func ParseSignature(raw []byte) (*Signature, error) {
	s, err := parseBundle(raw, MaxSignatureBytes)
	if err != nil {
		return nil, fmt.Errorf("reading signature: %w", err)
	}
	if s.bundle.GetMessageSignature() == nil {
		return nil, fmt.Errorf("reading signature: the sigstore bundle holds no signature over a message: %w", ErrMalformed)
	}
	return s, nil
}

// parseBundle reads a bundle with any content. Errors wrap ErrMalformed.
func parseBundle(raw []byte, limit int) (*Signature, error) {
	if len(raw) > limit {
		return nil, fmt.Errorf("sigstore bundle of %d bytes, at most %d are allowed: %w", len(raw), limit, ErrMalformed)
	}
	b := new(sgbundle.Bundle)
	if err := guarded(func() error { return b.UnmarshalJSON(raw) }); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return newSignature(b)
}

// newSignature looks at all of a bundle that verifying will look at.
func newSignature(b *sgbundle.Bundle) (*Signature, error) {
	s := &Signature{bundle: b}
	err := guarded(func() (err error) {
		if s.entries, err = b.TlogEntries(); err != nil {
			return err
		}
		if s.stamps, err = b.Timestamps(); err != nil {
			return err
		}
		if len(s.entries) > maxMaterial || len(s.stamps) > maxMaterial {
			return fmt.Errorf("%d log entries and %d timestamps, at most %d of each are allowed", len(s.entries), len(s.stamps), maxMaterial)
		}
		if _, err = b.SignatureContent(); err != nil {
			return err
		}
		content, err := b.VerificationContent()
		if err != nil {
			return err
		}
		if cert := content.Certificate(); cert != nil {
			s.certified = true
			// A certificate that names nobody is no reason not to read the bundle.
			if summary, err := certificate.SummarizeCertificate(cert); err == nil {
				s.issuer, s.subject = summary.Issuer, summary.SubjectAlternativeName
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return s, nil
}

// errGaveUp: a library has panicked.
var errGaveUp = errors.New("sigstore's libraries gave up")

// guarded runs f. The libraries are given bytes from outside, and some of their parts panic
// where others return an error.
func guarded(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errGaveUp, r)
		}
	}()
	return f()
}

// Claims is who signed as the signature's own certificate says: unproven, to choose by which
// rule to judge it. ok is false for a signature by a key, and for a certificate without an
// issuer or a subject.
func (s *Signature) Claims() (issuer, subject string, ok bool) {
	if !s.certified || s.issuer == "" || s.subject == "" {
		return "", "", false
	}
	return s.issuer, s.subject, true
}

// Fingerprint is the fingerprint of the key that signed, as the signature itself says (the form
// of PublicKey.Fingerprint); "" if it says none. It proves nothing: use it to decide which key
// to try first.
func (s *Signature) Fingerprint() string {
	raw, err := base64.StdEncoding.DecodeString(s.bundle.GetVerificationMaterial().GetPublicKey().GetHint())
	if err != nil || len(raw) != sha256.Size {
		return ""
	}
	return hex.EncodeToString(raw)
}

// VerifyKey checks that s is a signature by key over message. The key stands for itself: a time
// is not needed, and log entries and timestamps that tr, which may be nil, cannot verify are as
// if they were not there. Errors wrap ErrSignature, or ErrKey for a key that cannot be used.
func (s *Signature) VerifyKey(ctx context.Context, message []byte, key PublicKey, tr *TrustedRoot) (*Proof, error) {
	return s.VerifyKeyOver(ctx, NewMessage(message), key, tr)
}

// Message is a message whose digest is taken once, however many signatures over it are verified. It
// is not for several goroutines at once.
type Message struct{ artifact *artifact }

// NewMessage returns a message, which must not be changed.
func NewMessage(message []byte) *Message { return &Message{artifactOf(message)} }

// VerifyKeyOver is VerifyKey for a message over which more than one signature is verified.
func (s *Signature) VerifyKeyOver(ctx context.Context, message *Message, key PublicKey, tr *TrustedRoot) (*Proof, error) {
	proof, _, err := s.verifyKey(ctx, message.artifact, key, tr)
	if err != nil {
		return nil, fmt.Errorf("verifying signature: %w", err)
	}
	return proof, nil
}

func (s *Signature) verifyKey(ctx context.Context, a *artifact, key PublicKey, tr *TrustedRoot) (*Proof, *sgverify.VerificationResult, error) {
	if key.key == nil {
		return nil, nil, fmt.Errorf("no public key: %w", ErrKey)
	}
	if s.certified {
		return nil, nil, fmt.Errorf("made with a certificate, not with a key: %w", ErrSignature)
	}
	verifiers, err := key.verifiers()
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	var failed error
	for _, v := range verifiers {
		policy, err := a.policy(key.key, s.isStatement())
		if err != nil {
			return nil, nil, fmt.Errorf("%w: %w", ErrSignature, err)
		}
		// Nothing of this may leave the machine: no transparency log, no time from outside, the
		// trusted material is empty.
		co := &cosign.CheckOpts{
			SigVerifier: v, TrustedMaterial: &sgroot.BaseTrustedMaterial{},
			IgnoreTlog: true, Offline: true, NewBundleFormat: true,
		}
		var result *sgverify.VerificationResult
		err = guarded(func() (err error) {
			result, err = cosign.VerifyNewBundle(ctx, co, policy, &view{Bundle: s.bundle})
			return err
		})
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		proof := &Proof{}
		if tr != nil {
			_, proof, _ = s.prove(keyedMaterial{tr.root, sgroot.NewExpiringKey(v, time.Time{}, time.Time{})}, nil)
		}
		return proof, result, nil
	}
	return nil, nil, fmt.Errorf("%w: %w", ErrSignature, failed)
}

// VerifyIdentity checks that s is a signature over message with a certificate that tr's
// authority has issued to subject, as issuer has named it, at a time that tr's log or timestamp
// authority proves to be within the certificate's validity. Issuer and subject are compared
// exactly. Where tr names logs of certificates, one of them must have signed the certificate.
// Nothing depends on the time of day, and nothing is asked of anybody.
//
// Log entries and timestamps of authorities that tr does not name are as if they were not
// there. Errors wrap ErrIdentity, ErrNoProvenTime, ErrSignature or ErrTrustedRoot (none given).
func (s *Signature) VerifyIdentity(ctx context.Context, message []byte, issuer, subject string, tr *TrustedRoot) (*Proof, error) {
	return s.VerifyIdentityOver(ctx, NewMessage(message), issuer, subject, tr)
}

// VerifyIdentityOver is VerifyIdentity for a message over which more than one signature is verified.
func (s *Signature) VerifyIdentityOver(ctx context.Context, message *Message, issuer, subject string, tr *TrustedRoot) (*Proof, error) {
	proof, _, err := s.verifyIdentity(ctx, message.artifact, issuer, subject, tr)
	if err != nil {
		return nil, fmt.Errorf("verifying signature: %w", err)
	}
	return proof, nil
}

func (s *Signature) verifyIdentity(ctx context.Context, a *artifact, issuer, subject string, tr *TrustedRoot) (*Proof, *sgverify.VerificationResult, error) {
	// The libraries take an empty name for any name.
	if issuer == "" || subject == "" {
		return nil, nil, fmt.Errorf("issuer %q and subject %q must both be given: %w", issuer, subject, ErrIdentity)
	}
	if tr == nil {
		return nil, nil, fmt.Errorf("an identity needs one: %w", ErrTrustedRoot)
	}
	gotIssuer, gotSubject, ok := s.Claims()
	if !ok {
		return nil, nil, fmt.Errorf("made with a key, or with a certificate that names nobody: %w", ErrIdentity)
	}
	if gotIssuer != issuer || gotSubject != subject {
		return nil, nil, fmt.Errorf("signed by %q of %q, want %q of %q: %w", gotSubject, gotIssuer, subject, issuer, ErrIdentity)
	}
	if err := s.holds(a, tr.root); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	cert, err := s.leaf()
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	// Whether the authority is trusted at all comes before the times: without this, a wrong
	// trusted root would be told as a missing time.
	chains, err := s.chains(cert, cert.NotBefore, tr)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate of %q: %w: %w", subject, ErrIdentity, err)
	}
	proven, proof, reasons := s.prove(tr.root, cert)
	if len(proof.Times) == 0 {
		return nil, nil, fmt.Errorf("certificate of %q: %w: %w", subject, ErrNoProvenTime, errors.Join(reasons...))
	}
	for _, t := range proof.Times {
		if chains, err = s.chains(cert, t.At, tr); err != nil {
			return nil, nil, fmt.Errorf("certificate of %q at %s: %w: %w", subject, t.At.UTC().Format(time.RFC3339), ErrIdentity, err)
		}
	}
	logged := len(tr.root.CTLogs()) > 0
	if logged {
		if err := guarded(func() error { return sgverify.VerifySignedCertificateTimestamp(chains, 1, tr.root) }); err != nil {
			return nil, nil, fmt.Errorf("certificate of %q in the log of certificates: %w: %w", subject, ErrIdentity, err)
		}
	}
	// All of it once more, as cosign does it: what it would refuse is never accepted here. It is
	// told to demand exactly what the proof says.
	policy, err := a.policy(cert.PublicKey, s.isStatement())
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	co := &cosign.CheckOpts{
		TrustedMaterial: tr.root, Identities: []cosign.Identity{{Issuer: issuer, Subject: subject}},
		IgnoreSCT: !logged, IgnoreTlog: len(proven.entries) == 0, UseSignedTimestamps: len(proven.stamps) > 0,
		Offline: true, NewBundleFormat: true,
	}
	var result *sgverify.VerificationResult
	if err := guarded(func() (err error) {
		result, err = cosign.VerifyNewBundle(ctx, co, policy, proven)
		return err
	}); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	return proof, result, nil
}

// CheckCertificate checks no more than that s is a signature over message by the key in its own
// certificate, whoever that is: a check before s is put beside the message, not one of trust.
// Errors wrap ErrSignature, or ErrIdentity if s was made with a key.
func (s *Signature) CheckCertificate(message []byte) error {
	if !s.certified {
		return fmt.Errorf("verifying signature: made with a key, not with a certificate: %w", ErrIdentity)
	}
	if err := s.holds(artifactOf(message), &sgroot.BaseTrustedMaterial{}); err != nil {
		return fmt.Errorf("verifying signature: %w: %w", ErrSignature, err)
	}
	return nil
}

// isStatement says whether s is over a statement about an artifact, not over the artifact.
func (s *Signature) isStatement() bool {
	_, ok := s.bundle.GetContent().(*protobundle.Bundle_DsseEnvelope)
	return ok
}

// leaf is the certificate of s, for the caller to keep.
func (s *Signature) leaf() (*x509.Certificate, error) {
	content, err := s.bundle.VerificationContent()
	if err != nil {
		return nil, err
	}
	cert := content.Certificate()
	if cert == nil {
		return nil, errors.New("no certificate")
	}
	// Go does not know the names of the form otherName that Fulcio issues; SummarizeCertificate
	// does, and has read it.
	cert.UnhandledCriticalExtensions = slices.DeleteFunc(cert.UnhandledCriticalExtensions, func(id asn1.ObjectIdentifier) bool {
		return id.Equal(cryptoutils.SANOID)
	})
	return cert, nil
}

// chains are the ways from cert to an authority of tr that were good at a time.
func (s *Signature) chains(cert *x509.Certificate, at time.Time, tr *TrustedRoot) (chains [][]*x509.Certificate, err error) {
	err = guarded(func() (err error) {
		chains, err = sgverify.VerifyLeafCertificate(at, cert, tr.root)
		return err
	})
	return chains, err
}

// holds checks the signature by the key in the certificate of s, and nothing else.
func (s *Signature) holds(a *artifact, tm sgroot.TrustedMaterial) error {
	return guarded(func() error {
		content, err := s.bundle.VerificationContent()
		if err != nil {
			return err
		}
		sig, err := s.bundle.SignatureContent()
		if err != nil {
			return err
		}
		if a.byDigest(content.Certificate().PublicKey, s.isStatement()) {
			return sgverify.VerifySignatureWithArtifactDigests(sig, content, tm, []sgverify.ArtifactDigest{{Algorithm: "sha256", Digest: a.sum()}})
		}
		if a.message == nil {
			return errDigestOnly
		}
		return sgverify.VerifySignatureWithArtifacts(sig, content, tm, []io.Reader{bytes.NewReader(a.message)})
	})
}

// prove finds the log entries and timestamps of s that tm can verify, each by itself, so that
// one that nobody here can judge takes nothing from the others. With a certificate, times
// outside its validity do not count.
func (s *Signature) prove(tm sgroot.TrustedMaterial, cert *x509.Certificate) (proven *view, proof *Proof, reasons []error) {
	proven, proof = &view{Bundle: s.bundle}, &Proof{}
	add := func(at time.Time, kind, authority string) {
		proof.Times = append(proof.Times, ProvenTime{At: at, Kind: kind, Authority: authority})
	}
	logs := map[string]bool{}
	for _, e := range s.entries {
		if logs[e.LogKeyID()] {
			continue
		}
		var times []sgroot.Timestamp
		if err := guarded(func() (err error) {
			times, err = sgverify.VerifyTlogEntry(&view{Bundle: s.bundle, entries: []*sgtlog.Entry{e}}, tm, 1, true)
			return err
		}); err != nil {
			reasons = append(reasons, fmt.Errorf("log entry: %w", err))
			continue
		}
		id := hex.EncodeToString([]byte(e.LogKeyID()))
		if log := tm.RekorLogs()[id]; log != nil && log.BaseURL != "" {
			id = log.BaseURL
		}
		logs[e.LogKeyID()] = true
		proven.entries = append(proven.entries, e)
		proof.Logs = append(proof.Logs, id)
		for _, t := range times {
			add(t.Time, TransparencyLog, id)
		}
	}
	authorities := map[string]bool{}
	for _, raw := range s.stamps {
		var times []*sgroot.Timestamp
		if err := guarded(func() error {
			got, failed, err := sgverify.VerifySignedTimestamp(&view{Bundle: s.bundle, stamps: [][]byte{raw}}, tm)
			times = got
			return errors.Join(append(failed, err)...)
		}); err != nil {
			reasons = append(reasons, fmt.Errorf("timestamp: %w", err))
			continue
		}
		for _, t := range times {
			if cert != nil && (t.Time.Before(cert.NotBefore) || t.Time.After(cert.NotAfter)) {
				reasons = append(reasons, fmt.Errorf("timestamp of %s, the certificate was good from %s to %s",
					t.Time.UTC().Format(time.RFC3339), cert.NotBefore.UTC().Format(time.RFC3339), cert.NotAfter.UTC().Format(time.RFC3339)))
				continue
			}
			if authorities[t.URI] {
				continue
			}
			authorities[t.URI] = true
			proven.stamps = append(proven.stamps, raw)
			add(t.Time, SignedTimestamp, t.URI)
		}
	}
	slices.SortStableFunc(proof.Times, func(a, b ProvenTime) int { return a.At.Compare(b.At) })
	if len(s.entries)+len(s.stamps) == 0 {
		reasons = append(reasons, errors.New("neither a log entry nor a signed timestamp"))
	} else if len(proof.Times) == 0 && len(reasons) == 0 {
		reasons = append(reasons, errors.New("a log entry that tells no time, and no signed timestamp"))
	}
	return proven, proof, reasons
}

// view is a bundle with only these of its log entries and timestamps.
type view struct {
	*sgbundle.Bundle
	entries []*sgtlog.Entry
	stamps  [][]byte
}

var _ sgverify.SignedEntity = (*view)(nil)

// TlogEntries hides those of the bundle.
func (v *view) TlogEntries() ([]*sgtlog.Entry, error) { return v.entries, nil }

// Timestamps hides those of the bundle.
func (v *view) Timestamps() ([][]byte, error) { return v.stamps, nil }

// keyedMaterial is trusted material with one key, which is taken for the one that any bundle means.
type keyedMaterial struct {
	sgroot.TrustedMaterial
	key *sgroot.ExpiringKey
}

// PublicKeyVerifier is the key, whatever the hint.
func (k keyedMaterial) PublicKeyVerifier(string) (sgroot.TimeConstrainedVerifier, error) {
	return k.key, nil
}

// artifact is what was signed: a message, or something of which only the digest is at hand.
type artifact struct {
	message []byte
	digest  []byte // SHA-256; sum fills it in
}

var errDigestOnly = errors.New("a signature by a key of this kind needs all of what was signed, not its digest")

func artifactOf(message []byte) *artifact {
	if message == nil {
		message = []byte{}
	}
	return &artifact{message: message}
}

// sum is the digest, taken once and only where it is needed.
func (a *artifact) sum() []byte {
	if a.digest == nil {
		sum := sha256.Sum256(a.message)
		a.digest = sum[:]
	}
	return a.digest
}

// byDigest says whether the digest is enough to verify by key: a statement names the artifact by
// it, and P-256 and RSA sign it. Ed25519 signs the message, and the larger curves other digests.
func (a *artifact) byDigest(key crypto.PublicKey, statement bool) bool {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		return statement || k.Curve == elliptic.P256()
	case *rsa.PublicKey:
		return true
	}
	return statement
}

// policy tells the libraries what was signed.
func (a *artifact) policy(key crypto.PublicKey, statement bool) (sgverify.ArtifactPolicyOption, error) {
	if a.byDigest(key, statement) {
		return sgverify.WithArtifactDigest("sha256", a.sum()), nil
	}
	if a.message == nil {
		return nil, errDigestOnly
	}
	return sgverify.WithArtifact(bytes.NewReader(a.message)), nil
}

// verifiers are the ways in which k may have signed. For Ed25519 there are two, of which each
// refuses what the other made (RFC 8032, section 5.1): cosign signs digests where there is a
// log, and messages where there is none.
func (k PublicKey) verifiers() ([]signature.Verifier, error) {
	v, err := signature.LoadDefaultVerifier(k.key)
	if err != nil {
		return nil, err
	}
	all := []signature.Verifier{v}
	if _, ok := k.key.(ed25519.PublicKey); ok {
		ph, err := signature.LoadDefaultVerifier(k.key, sopts.WithED25519ph())
		if err != nil {
			return nil, err
		}
		all = append(all, ph)
	}
	return all, nil
}
