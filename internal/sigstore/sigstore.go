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
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
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
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	sopts "github.com/sigstore/sigstore/pkg/signature/options"
	"github.com/youmark/pkcs8"
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

// ErrEncryption says that the private key is encrypted in a way that nothing here decrypts. It
// wraps ErrKey.
var ErrEncryption = fmt.Errorf("unknown encryption: %w", ErrKey)

// Signer signs with one private key.
type Signer struct {
	sv   signature.SignerVerifier
	key  PublicKey
	opts []signature.SignOption
	// foreign: the key is somebody else's program's, which is not believed.
	foreign bool
}

// PEM types of private keys beside cosign's.
const (
	pemPKCS8     = "PRIVATE KEY"
	pemEncrypted = "ENCRYPTED PRIVATE KEY"
	pemEC        = "EC PRIVATE KEY"
	pemRSA       = "RSA PRIVATE KEY"
)

// privateBlock is the PEM block with the private key: the first that is not about the curve,
// which openssl ecparam writes before it.
func privateBlock(private []byte) *pem.Block {
	for {
		block, rest := pem.Decode(private)
		if block == nil || block.Type != "EC PARAMETERS" {
			return block
		}
		private = rest
	}
}

// NeedsPassword says whether LoadSigner decrypts this private key with a password.
func NeedsPassword(private []byte) bool {
	if len(private) > MaxKeyBytes {
		return false
	}
	block := privateBlock(private)
	return block != nil && (block.Type == cosign.SigstorePrivateKeyPemType || block.Type == cosign.CosignPrivateKeyPemType || block.Type == pemEncrypted)
}

// LoadSigner reads a private key in PEM: one of cosign's, which the password decrypts, PKCS#8,
// encrypted with the password or plain, or the older plain forms of ECDSA and RSA keys. It must
// be ECDSA P-256, Ed25519, or RSA of 2048, 3072 or 4096 bits. Errors wrap ErrKey, ErrEncryption
// or ErrPassword.
func LoadSigner(private, password []byte) (*Signer, error) {
	if len(private) > MaxKeyBytes {
		return nil, fmt.Errorf("reading private key: more than %d bytes: %w", MaxKeyBytes, ErrKey)
	}
	block := privateBlock(private)
	if block == nil {
		return nil, fmt.Errorf("reading private key: no PEM block: %w", ErrKey)
	}
	if block.Headers["DEK-Info"] != "" {
		return nil, fmt.Errorf("reading private key: PEM block of type %q is encrypted as OpenSSL did before PKCS#8, write it anew with %q: %w", block.Type, "openssl pkcs8 -topk8", ErrEncryption)
	}
	var sv signature.SignerVerifier
	var err error
	switch block.Type {
	case cosign.SigstorePrivateKeyPemType, cosign.CosignPrivateKeyPemType:
		sv, err = decryptCosign(block, password)
	case pemEncrypted:
		sv, err = decryptPKCS8(block.Bytes, password)
	case pemPKCS8:
		sv, err = plainSigner(x509.ParsePKCS8PrivateKey(block.Bytes))
	case pemEC:
		sv, err = plainSigner(x509.ParseECPrivateKey(block.Bytes))
	case pemRSA:
		sv, err = plainSigner(x509.ParsePKCS1PrivateKey(block.Bytes))
	default:
		return nil, fmt.Errorf("reading private key: PEM block of type %q, want %q, %q, %q, %q or %q: %w",
			block.Type, cosign.SigstorePrivateKeyPemType, pemPKCS8, pemEncrypted, pemEC, pemRSA, ErrKey)
	}
	if err != nil {
		return nil, err
	}
	pub, err := sv.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("reading private key: %w: %w", ErrKey, err)
	}
	if err := signable(pub); err != nil {
		return nil, fmt.Errorf("reading private key: %w", err)
	}
	key, err := newPublicKey(pub)
	if err != nil {
		return nil, err
	}
	return &Signer{sv: sv, key: key}, nil
}

func decryptCosign(block *pem.Block, password []byte) (signature.SignerVerifier, error) {
	// Deriving the key from the password (scrypt) takes 64 MiB, once, and that is the most that
	// packing ever takes. Left to the collector they would stay, on top of what starting left
	// behind, and its next goal would be twice as much.
	debug.FreeOSMemory()
	var sv signature.SignerVerifier
	err := guarded(func() (err error) {
		sv, err = cosign.LoadPrivateKey(pem.EncodeToMemory(block), password, &[]signature.LoadOption{})
		return err
	})
	debug.FreeOSMemory()
	if err != nil {
		return nil, undecrypted(err)
	}
	return sv, nil
}

func decryptPKCS8(der, password []byte) (signature.SignerVerifier, error) {
	// Before the password is judged, so that only what it can be blamed for is blamed on it.
	var outer struct {
		Scheme struct {
			ID     asn1.ObjectIdentifier
			Params asn1.RawValue `asn1:"optional"`
		}
		Data []byte
	}
	if rest, err := asn1.Unmarshal(der, &outer); err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("reading private key: no PKCS#8: %w", ErrKey)
	}
	if !outer.Scheme.ID.Equal(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}) {
		return nil, fmt.Errorf("reading private key: encrypted by scheme %s, want PBES2, which %q writes: %w", outer.Scheme.ID, "openssl pkcs8 -topk8 -v2 aes-256-cbc", ErrEncryption)
	}
	var key crypto.PrivateKey
	if err := guarded(func() (err error) {
		key, err = pkcs8.ParsePKCS8PrivateKey(der, password)
		return err
	}); err != nil {
		return nil, undecrypted(err)
	}
	return plainSigner(key, nil)
}

// undecrypted is err of a library that should have decrypted a key. They tell a wrong password
// from a malformed key only by text; but they panic where the FIPS 140-3 mode of this program
// does not allow what the key's encryption needs.
func undecrypted(err error) error {
	if errors.Is(err, errGaveUp) {
		return fmt.Errorf("decrypting private key: %w (%w)", ErrEncryption, err)
	}
	return fmt.Errorf("decrypting private key: %w (%w)", ErrPassword, err)
}

// plainSigner takes what a parser returned. Ed25519 signs the message here, not its digest.
func plainSigner[K crypto.PrivateKey](key K, err error) (signature.SignerVerifier, error) {
	if err != nil {
		return nil, fmt.Errorf("reading private key: %w: %w", ErrKey, err)
	}
	sv, err := signature.LoadDefaultSignerVerifier(key)
	if err != nil {
		return nil, fmt.Errorf("reading private key: %w: %w", ErrKey, err)
	}
	return sv, nil
}

// signable refuses keys with which nothing is signed here.
func signable(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			// Tools disagree about the digest that goes with the other curves.
			return fmt.Errorf("ECDSA on curve %s, only P-256 is supported: %w", k.Params().Name, ErrKey)
		}
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits != 2048 && bits != 3072 && bits != 4096 {
			return fmt.Errorf("RSA of %d bits, only 2048, 3072 and 4096 are supported: %w", bits, ErrKey)
		}
	case ed25519.PublicKey:
	default:
		return fmt.Errorf("key of type %T, only ECDSA P-256, Ed25519 and RSA are supported: %w", pub, ErrKey)
	}
	return nil
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
	err := guarded(func() (err error) {
		if pure {
			sig, err = s.sv.SignMessage(bytes.NewReader(whole.Bytes()), s.opts...)
		} else {
			sig, err = s.sv.SignMessage(nil, append(s.opts[:len(s.opts):len(s.opts)], sopts.WithDigest(digest), sopts.WithCryptoSignerOpts(crypto.SHA256))...)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	if s.foreign {
		if err := s.check(sig, digest, whole.Bytes()); err != nil {
			return nil, fmt.Errorf("signing: what the key's program returned: %w: %w", ErrSignature, err)
		}
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

// check verifies a signature that somebody else made for s.
func (s *Signer) check(sig, digest, whole []byte) error {
	v, err := signature.LoadDefaultVerifier(s.key.key)
	if err != nil {
		return err
	}
	if _, pure := s.key.key.(ed25519.PublicKey); pure {
		return v.VerifySignature(bytes.NewReader(sig), bytes.NewReader(whole))
	}
	return v.VerifySignature(bytes.NewReader(sig), nil, sopts.WithDigest(digest))
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
	if !usable(pub) {
		return PublicKey{}, fmt.Errorf("reading public key: neither ECDSA on P-256, P-384 or P-521, nor Ed25519, nor RSA of 2048 to 4096 bits: %w", ErrKey)
	}
	return newPublicKey(pub)
}

// usable reports whether signatures by a key can hold at all: else a bundle would be blamed for it.
func usable(pub crypto.PublicKey) bool {
	switch k := pub.(type) {
	case ed25519.PublicKey:
		return true
	case *ecdsa.PublicKey:
		return k.Curve == elliptic.P256() || k.Curve == elliptic.P384() || k.Curve == elliptic.P521()
	case *rsa.PublicKey:
		return k.N.BitLen() >= 2048 && k.N.BitLen() <= 4096
	}
	return false
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
	s, err := ParseSignature(sigBundle)
	if err != nil {
		return err
	}
	_, err = s.VerifyKey(ctx, message, k, nil)
	return err
}
