package sigtest

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/digitorus/timestamp"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/sealift/sealift/internal/sigstore"
)

// SignPredicate is the type of the statement by which cosign signs an image.
const SignPredicate = "https://sigstore.dev/cosign/sign/v1"

// Options says what a signature comes with.
type Options struct {
	// TSA adds a signed timestamp.
	TSA bool
	// Log adds a log entry: with the log's promise, which tells the time, and with the proof of
	// inclusion.
	Log bool
	// NoPromise leaves the promise out of the log entry, so that it proves no time; NoProof
	// leaves the proof of inclusion out, which only the old form of bundles allows.
	NoPromise, NoProof bool
	// SCT lets the certificate carry the signature of the log of certificates.
	SCT bool
	// At is when the certificate is issued and the signature logged and stamped: Epoch, if it
	// is zero.
	At time.Time
	// StampAt is when the timestamp authority stamps it: with the log, if it is zero.
	StampAt time.Time
	// Old makes the bundle in its form 0.1 (X.509 chain) instead of 0.3.
	Old bool
}

func (o Options) at() time.Time {
	if o.At.IsZero() {
		return Epoch
	}
	return o.At
}

// logged is when the log takes the signature in: a minute after the certificate was issued.
func (o Options) logged() time.Time { return o.at().Add(time.Minute) }

func (o Options) stamped() time.Time {
	if o.StampAt.IsZero() {
		return o.logged()
	}
	return o.StampAt
}

// signer is who signs: with a certificate, or, if that is nil, with a key that stands for itself.
type signer struct {
	key  crypto.Signer
	cert *x509.Certificate
}

func (v *Virtual) keyless(t testing.TB, issuer, subject string, o Options) signer {
	t.Helper()
	cert, key := v.certificate(t, issuer, subject, o.at(), o.SCT)
	return signer{key, cert}
}

// NewKey makes an ECDSA P-256 key pair.
func NewKey(t testing.TB) (crypto.Signer, sigstore.PublicKey) {
	t.Helper()
	k := newKey(t)
	return k, Public(t, k)
}

// NewEd25519Key makes an Ed25519 key pair.
func NewEd25519Key(t testing.TB) (crypto.Signer, sigstore.PublicKey) {
	t.Helper()
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k, Public(t, k)
}

// Public is the public half of key.
func Public(t testing.TB, key crypto.Signer) sigstore.PublicKey {
	t.Helper()
	p, err := sigstore.ParsePublicKey(publicPEM(t, key))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func publicPEM(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pkix256(t, key.Public())})
}

// SignBlob is what cosign sign-blob writes, without a key of one's own: a sigstore bundle over
// message by subject, as issuer has named it.
func (v *Virtual) SignBlob(t testing.TB, issuer, subject string, message []byte, o Options) []byte {
	t.Helper()
	return v.blob(t, v.keyless(t, issuer, subject, o), message, o)
}

// SignBlobWithKey is what cosign sign-blob --key writes.
func (v *Virtual) SignBlobWithKey(t testing.TB, key crypto.Signer, message []byte, o Options) []byte {
	t.Helper()
	return v.blob(t, signer{key: key}, message, o)
}

// ImageBundle is what cosign sign --new-bundle-format attaches to an image: a statement about
// digest (sha256:…) in a sigstore bundle.
func (v *Virtual) ImageBundle(t testing.TB, issuer, subject, digest string, o Options) []byte {
	t.Helper()
	return v.statement(t, v.keyless(t, issuer, subject, o), SignPredicate, digest, o)
}

// ImageBundleWithKey is ImageBundle with a key.
func (v *Virtual) ImageBundleWithKey(t testing.TB, key crypto.Signer, digest string, o Options) []byte {
	t.Helper()
	return v.statement(t, signer{key: key}, SignPredicate, digest, o)
}

// Attestation is a statement of any type about digest: evidence, but no signature of the image.
func (v *Virtual) Attestation(t testing.TB, issuer, subject, predicateType, digest string, o Options) []byte {
	t.Helper()
	return v.statement(t, v.keyless(t, issuer, subject, o), predicateType, digest, o)
}

// AttestationWithKey is Attestation with a key.
func (v *Virtual) AttestationWithKey(t testing.TB, key crypto.Signer, predicateType, digest string, o Options) []byte {
	t.Helper()
	return v.statement(t, signer{key: key}, predicateType, digest, o)
}

// SimpleSignature is what cosign sign stores under the tag sha256-….sig: the payload and the
// annotations of one layer.
func (v *Virtual) SimpleSignature(t testing.TB, issuer, subject, digest string, o Options) sigstore.SimpleSignature {
	t.Helper()
	return v.simple(t, v.keyless(t, issuer, subject, o), digest, o)
}

// SimpleSignatureWithKey is SimpleSignature with a key.
func (v *Virtual) SimpleSignatureWithKey(t testing.TB, key crypto.Signer, digest string, o Options) sigstore.SimpleSignature {
	t.Helper()
	return v.simple(t, signer{key: key}, digest, o)
}

func (v *Virtual) blob(t testing.TB, s signer, message []byte, o Options) []byte {
	t.Helper()
	sig := sign(t, s.key, message)
	sum := sha256.Sum256(message)
	b := v.envelope(t, s, sig, rekordBody(t, s, sum[:], sig), o)
	b.Content = &protobundle.Bundle_MessageSignature{MessageSignature: &protocommon.MessageSignature{
		MessageDigest: &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256, Digest: sum[:]}, Signature: sig,
	}}
	return marshal(t, b)
}

const intoto = "application/vnd.in-toto+json"

func (v *Virtual) statement(t testing.TB, s signer, predicateType, digest string, o Options) []byte {
	t.Helper()
	algorithm, value := cut(t, digest)
	payload := canonical(t, map[string]any{
		"_type": "https://in-toto.io/Statement/v1", "predicateType": predicateType, "predicate": map[string]any{},
		"subject": []any{map[string]any{"digest": map[string]any{algorithm: value}}},
	})
	// https://github.com/secure-systems-lab/dsse/blob/master/protocol.md: what is signed.
	sig := sign(t, s.key, fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(intoto), intoto, len(payload), payload))
	b := v.envelope(t, s, sig, dsseBody(t, s, payload, sig), o)
	b.Content = &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
		Payload: payload, PayloadType: intoto, Signatures: []*protodsse.Signature{{Sig: sig}},
	}}
	return marshal(t, b)
}

func (v *Virtual) simple(t testing.TB, s signer, digest string, o Options) sigstore.SimpleSignature {
	t.Helper()
	payload := canonical(t, map[string]any{
		"critical": map[string]any{
			"identity": map[string]any{"docker-reference": "registry.example/app"},
			"image":    map[string]any{"docker-manifest-digest": digest},
			"type":     "cosign container image signature",
		},
		"optional": nil,
	})
	sig := sign(t, s.key, payload)
	a := map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(sig)}
	if s.cert != nil {
		a["dev.sigstore.cosign/certificate"] = string(certPEM(s.cert))
		a["dev.sigstore.cosign/chain"] = string(certPEM(v.intermediate)) + string(certPEM(v.root))
	}
	if o.Log {
		sum := sha256.Sum256(payload)
		e := v.logEntry(t, rekordBody(t, s, sum[:], sig), o)
		a["dev.sigstore.cosign/bundle"] = string(canonical(t, map[string]any{
			"SignedEntryTimestamp": e.GetInclusionPromise().GetSignedEntryTimestamp(),
			"Payload": map[string]any{
				"body": base64.StdEncoding.EncodeToString(e.CanonicalizedBody), "integratedTime": e.IntegratedTime,
				"logIndex": e.LogIndex, "logID": hex.EncodeToString(e.LogId.KeyId),
			},
		}))
	}
	if o.TSA {
		a["dev.sigstore.cosign/rfc3161timestamp"] = string(canonical(t, map[string]any{"SignedRFC3161Timestamp": v.stamp(t, sig, o.stamped())}))
	}
	return sigstore.SimpleSignature{Payload: payload, Annotations: a}
}

// envelope is a bundle without its content.
func (v *Virtual) envelope(t testing.TB, s signer, sig []byte, logged body, o Options) *protobundle.Bundle {
	t.Helper()
	m := &protobundle.VerificationMaterial{}
	b := &protobundle.Bundle{MediaType: "application/vnd.dev.sigstore.bundle.v0.3+json", VerificationMaterial: m}
	if o.Old {
		b.MediaType = "application/vnd.dev.sigstore.bundle+json;version=0.1"
	}
	switch {
	case s.cert == nil:
		sum := sha256.Sum256(pkix256(t, s.key.Public()))
		m.Content = &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{Hint: base64.StdEncoding.EncodeToString(sum[:])}}
	case o.Old:
		m.Content = &protobundle.VerificationMaterial_X509CertificateChain{X509CertificateChain: &protocommon.X509CertificateChain{
			Certificates: []*protocommon.X509Certificate{{RawBytes: s.cert.Raw}, {RawBytes: v.intermediate.Raw}},
		}}
	default:
		m.Content = &protobundle.VerificationMaterial_Certificate{Certificate: &protocommon.X509Certificate{RawBytes: s.cert.Raw}}
	}
	if o.Log {
		m.TlogEntries = []*protorekor.TransparencyLogEntry{v.logEntry(t, logged, o)}
	}
	if o.TSA {
		m.TimestampVerificationData = &protobundle.TimestampVerificationData{Rfc3161Timestamps: []*protocommon.RFC3161SignedTimestamp{
			{SignedTimestamp: v.stamp(t, sig, o.stamped())},
		}}
	}
	return b
}

// body is what a log entry holds, of one of rekor's kinds.
type body struct {
	kind string
	raw  []byte
}

func rekordBody(t testing.TB, s signer, digest, sig []byte) body {
	t.Helper()
	return logBody(t, "hashedrekord", map[string]any{
		"data":      map[string]any{"hash": sha(digest)},
		"signature": map[string]any{"content": sig, "publicKey": map[string]any{"content": verifierPEM(t, s)}},
	})
}

func dsseBody(t testing.TB, s signer, payload, sig []byte) body {
	t.Helper()
	p, e := sha256.Sum256(payload), sha256.Sum256(append([]byte("envelope of "), payload...))
	return logBody(t, "dsse", map[string]any{
		"payloadHash": sha(p[:]), "envelopeHash": sha(e[:]),
		"signatures": []any{map[string]any{"signature": sig, "verifier": verifierPEM(t, s)}},
	})
}

func sha(digest []byte) map[string]any {
	return map[string]any{"algorithm": "sha256", "value": hex.EncodeToString(digest)}
}

func logBody(t testing.TB, kind string, spec map[string]any) body {
	t.Helper()
	return body{kind, canonical(t, map[string]any{"apiVersion": "0.0.1", "kind": kind, "spec": spec})}
}

// verifierPEM is by what the log says a signature can be verified.
func verifierPEM(t testing.TB, s signer) []byte {
	t.Helper()
	if s.cert != nil {
		return certPEM(s.cert)
	}
	return publicPEM(t, s.key)
}

// logEntry is the only leaf of a tree of the log.
func (v *Virtual) logEntry(t testing.TB, b body, o Options) *protorekor.TransparencyLogEntry {
	t.Helper()
	id := logID(t, v.logKey)
	e := &protorekor.TransparencyLogEntry{
		LogIndex: 0, LogId: &protocommon.LogId{KeyId: id}, IntegratedTime: o.logged().Unix(),
		KindVersion: &protorekor.KindVersion{Kind: b.kind, Version: "0.0.1"}, CanonicalizedBody: b.raw,
	}
	if !o.NoPromise {
		e.InclusionPromise = &protorekor.InclusionPromise{SignedEntryTimestamp: sign(t, v.logKey, canonical(t, map[string]any{
			"body": base64.StdEncoding.EncodeToString(b.raw), "integratedTime": e.IntegratedTime,
			"logID": hex.EncodeToString(id), "logIndex": e.LogIndex,
		}))}
	}
	if !o.NoProof {
		root := sha256.Sum256(append([]byte{0}, b.raw...)) // RFC 6962, section 2.1
		e.InclusionProof = &protorekor.InclusionProof{
			LogIndex: 0, TreeSize: 1, RootHash: root[:],
			Checkpoint: &protorekor.Checkpoint{Envelope: v.checkpoint(t, root[:])},
		}
	}
	return e
}

// checkpoint is a signed note (https://pkg.go.dev/golang.org/x/mod/sumdb/note) of the tree's head.
func (v *Virtual) checkpoint(t testing.TB, root []byte) string {
	t.Helper()
	text := fmt.Sprintf("%s\n1\n%s\n", logOrigin, base64.StdEncoding.EncodeToString(root))
	key := binary.BigEndian.Uint32(logID(t, v.logKey))
	signed := append(binary.BigEndian.AppendUint32(nil, key), sign(t, v.logKey, []byte(text))...)
	return fmt.Sprintf("%s\n\u2014 rekor.sigtest.example %s\n", text, base64.StdEncoding.EncodeToString(signed))
}

// stamp is the answer of the timestamp authority about sig (RFC 3161).
func (v *Virtual) stamp(t testing.TB, sig []byte, at time.Time) []byte {
	t.Helper()
	sum := sha256.Sum256(sig)
	raw, err := (&timestamp.Timestamp{
		HashAlgorithm: crypto.SHA256, HashedMessage: sum[:], Time: at, Policy: []int{1, 3, 6, 1, 4, 1, 57264, 2},
	}).CreateResponseWithOpts(v.tsa, v.tsaKey, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func certPEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// canonical is JSON as the log writes it: keys in order and no white space.
func canonical(t testing.TB, v any) []byte {
	t.Helper()
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSpace(out.Bytes())
}

func cut(t testing.TB, digest string) (algorithm, value string) {
	t.Helper()
	algorithm, value, ok := strings.Cut(digest, ":")
	if !ok {
		t.Fatalf("digest %q, want algorithm:hex", digest)
	}
	return algorithm, value
}

func marshal(t testing.TB, b *protobundle.Bundle) []byte {
	t.Helper()
	raw, err := protojson.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := json.Compact(&out, raw); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
