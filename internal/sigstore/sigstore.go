// Package sigstore signs bytes and verifies signatures over bytes, with cosign keys and
// sigstore bundles (protobuf-specs v0.3, application/vnd.dev.sigstore.bundle.v0.3+json), the
// files that cosign sign-blob writes and cosign verify-blob reads.
//
// It never prints, never opens a file and never dials: keys and signatures come and go as
// bytes. It is the only package that imports sigstore's libraries.
package sigstore

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"runtime/debug"

	"github.com/sigstore/cosign/v2/pkg/cosign"
	cbundle "github.com/sigstore/cosign/v2/pkg/cosign/bundle"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	sgbundle "github.com/sigstore/sigstore-go/pkg/bundle"
	sgroot "github.com/sigstore/sigstore-go/pkg/root"
	sgverify "github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	sopts "github.com/sigstore/sigstore/pkg/signature/options"
	"google.golang.org/protobuf/encoding/protojson"
)

// MaxSignatureBytes bounds a sigstore bundle that is looked at.
const MaxSignatureBytes = 60 << 10

// MaxKeyBytes bounds a key file that is looked at.
const MaxKeyBytes = 64 << 10

// Errors that callers tell apart.
var (
	// ErrPassword: the private key could not be decrypted with the password.
	ErrPassword = errors.New("wrong password for the private key")
	// ErrKey: the bytes are no key of a kind that is known.
	ErrKey = errors.New("not a usable key")
	// ErrSignature: the signature does not hold for these bytes and this key.
	ErrSignature = errors.New("signature does not hold")
	// ErrMalformed: the bytes are no sigstore bundle with a signature over a message.
	ErrMalformed = errors.New("not a usable sigstore bundle")
)

// GenerateKeyPair makes an ECDSA P-256 key pair. The private key is encrypted with password,
// in cosign's form ("ENCRYPTED SIGSTORE PRIVATE KEY"); both are PEM.
func GenerateKeyPair(password []byte) (private, public []byte, err error) {
	k, err := cosign.GenerateKeyPair(func(bool) ([]byte, error) { return password, nil })
	if err != nil {
		return nil, nil, fmt.Errorf("generating a key pair: %w", err)
	}
	return k.PrivateBytes, k.PublicBytes, nil
}

// Signer signs with one private key.
type Signer struct {
	sv  signature.SignerVerifier
	key PublicKey
}

// LoadSigner decrypts a private key in cosign's form. Errors wrap ErrKey or ErrPassword.
func LoadSigner(private, password []byte) (*Signer, error) {
	block, _ := pem.Decode(private)
	if block == nil {
		return nil, fmt.Errorf("reading private key: no PEM block: %w", ErrKey)
	}
	if block.Type != cosign.SigstorePrivateKeyPemType && block.Type != cosign.CosignPrivateKeyPemType {
		return nil, fmt.Errorf("reading private key: PEM block of type %q, want %q: %w", block.Type, cosign.SigstorePrivateKeyPemType, ErrKey)
	}
	// Deriving the key from the password (scrypt) takes 64 MiB, once, and that is the most that
	// packing ever takes. Left to the collector they would stay, on top of what starting left
	// behind, and its next goal would be twice as much.
	debug.FreeOSMemory()
	sv, err := cosign.LoadPrivateKey(private, password, &[]signature.LoadOption{})
	debug.FreeOSMemory()
	if err != nil {
		// The library tells a wrong password from a malformed key only by text.
		return nil, fmt.Errorf("decrypting private key: %w (%w)", ErrPassword, err)
	}
	pub, err := sv.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("reading private key: %w: %w", ErrKey, err)
	}
	key, err := newPublicKey(pub)
	if err != nil {
		return nil, err
	}
	if ec, ok := pub.(*ecdsa.PublicKey); ok && ec.Curve != elliptic.P256() {
		// Tools disagree about the digest that goes with the other curves.
		return nil, fmt.Errorf("reading private key: ECDSA on curve %s, only P-256 is supported: %w", ec.Params().Name, ErrKey)
	}
	return &Signer{sv, key}, nil
}

// PublicKey is the key that verifies what s signs.
func (s *Signer) PublicKey() PublicKey { return s.key }

// Sign returns a sigstore bundle over message.
func (s *Signer) Sign(message []byte) ([]byte, error) { return s.SignReader(bytes.NewReader(message)) }

// SignReader is Sign for a message of any size, which is read to its end. With an Ed25519 key,
// which signs the message itself and not its digest, all of it is held in memory.
func (s *Signer) SignReader(message io.Reader) ([]byte, error) {
	h := sha256.New()
	var whole bytes.Buffer
	var to io.Writer = h
	_, pure := s.key.key.(ed25519.PublicKey)
	if pure {
		to = io.MultiWriter(h, &whole)
	}
	if _, err := io.Copy(to, message); err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	digest := h.Sum(nil)
	var sig []byte
	var err error
	if pure {
		sig, err = s.sv.SignMessage(&whole)
	} else {
		sig, err = s.sv.SignMessage(nil, sopts.WithDigest(digest), sopts.WithCryptoSignerOpts(crypto.SHA256))
	}
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	fingerprint, err := hex.DecodeString(s.key.Fingerprint)
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	b, err := cbundle.MakeProtobufBundle(base64.StdEncoding.EncodeToString(fingerprint), nil, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	b.Content = &protobundle.Bundle_MessageSignature{MessageSignature: &protocommon.MessageSignature{
		MessageDigest: &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256, Digest: digest},
		Signature:     sig,
	}}
	raw, err := protojson.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	// protojson puts in white space at random, on purpose.
	var out bytes.Buffer
	if err := json.Compact(&out, raw); err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	return out.Bytes(), nil
}

// PublicKey verifies signatures.
type PublicKey struct {
	key crypto.PublicKey
	// Fingerprint is the lower-case hex SHA-256 digest of the key's PKIX DER form.
	Fingerprint string
	// PEM is the key in its PKIX PEM form.
	PEM []byte
}

// ParsePublicKey reads a PKIX public key in PEM. Errors wrap ErrKey.
func ParsePublicKey(text []byte) (PublicKey, error) {
	if len(text) > MaxKeyBytes {
		return PublicKey{}, fmt.Errorf("reading public key: more than %d bytes: %w", MaxKeyBytes, ErrKey)
	}
	if block, _ := pem.Decode(text); block == nil {
		return PublicKey{}, fmt.Errorf("reading public key: no PEM block: %w", ErrKey)
	} else if block.Type != "PUBLIC KEY" {
		return PublicKey{}, fmt.Errorf("reading public key: PEM block of type %q, want %q: %w", block.Type, "PUBLIC KEY", ErrKey)
	}
	pub, err := cryptoutils.UnmarshalPEMToPublicKey(text)
	if err != nil {
		return PublicKey{}, fmt.Errorf("reading public key: %w: %w", ErrKey, err)
	}
	return newPublicKey(pub)
}

func newPublicKey(pub crypto.PublicKey) (PublicKey, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return PublicKey{}, fmt.Errorf("reading public key: %w: %w", ErrKey, err)
	}
	sum := sha256.Sum256(der)
	return PublicKey{
		key: pub, Fingerprint: hex.EncodeToString(sum[:]),
		PEM: pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}),
	}, nil
}

// Verify checks that sigBundle, a sigstore bundle, holds a signature by k over message. Errors
// wrap ErrMalformed (not a sigstore bundle over a message) or ErrSignature.
func (k PublicKey) Verify(ctx context.Context, message, sigBundle []byte) error {
	if k.key == nil {
		return fmt.Errorf("verifying signature: no public key: %w", ErrKey)
	}
	if len(sigBundle) > MaxSignatureBytes {
		return fmt.Errorf("verifying signature: sigstore bundle of %d bytes, at most %d are allowed: %w", len(sigBundle), MaxSignatureBytes, ErrMalformed)
	}
	verifier, err := signature.LoadDefaultVerifier(k.key)
	if err != nil {
		return fmt.Errorf("verifying signature: %w: %w", ErrKey, err)
	}
	var b sgbundle.Bundle
	if err := b.UnmarshalJSON(sigBundle); err != nil {
		return fmt.Errorf("verifying signature: %w: %w", ErrMalformed, err)
	}
	if b.GetMessageSignature() == nil {
		return fmt.Errorf("verifying signature: holds no signature over a message: %w", ErrMalformed)
	}
	// Nothing of this may leave the machine: no transparency log, no time from outside, the
	// trusted material is empty and the key stands for itself.
	co := &cosign.CheckOpts{
		SigVerifier: verifier, TrustedMaterial: &sgroot.BaseTrustedMaterial{},
		IgnoreTlog: true, Offline: true, NewBundleFormat: true,
	}
	if _, err := cosign.VerifyNewBundle(ctx, co, sgverify.WithArtifact(bytes.NewReader(message)), &b); err != nil {
		return fmt.Errorf("verifying signature: %w: %w", ErrSignature, err)
	}
	return nil
}
