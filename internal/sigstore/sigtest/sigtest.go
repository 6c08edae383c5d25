// Package sigtest makes signatures for tests: a sigstore of its own (certificate authority,
// timestamp authority, transparency log, certificate transparency log) that exists in memory
// only, and the material that cosign writes with the public one, over blobs and over images.
//
// Nothing here is for use outside tests, and nothing depends on the time of day: certificates
// are issued, logged and stamped at the time that the test names.
package sigtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	prototrust "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Epoch is when everything is signed unless a test says otherwise. Certificates live for ten
// minutes, so that those of Epoch have expired long ago.
var Epoch = time.Date(2025, 3, 4, 5, 6, 7, 0, time.UTC)

// Names by which the authorities of every Virtual are known.
const (
	// LogURL is the transparency log.
	LogURL = "https://rekor.sigtest.example"
	// TSAURL is the timestamp authority.
	TSAURL = "https://tsa.sigtest.example"

	caURL = "https://fulcio.sigtest.example"
	ctURL = "https://ct.sigtest.example"
	// logOrigin is how the log calls itself in checkpoints: host name and number of the tree.
	logOrigin = "rekor.sigtest.example - 4711"
)

// The authorities are good for a century, certificates of signers for as long as Fulcio's.
var (
	begin    = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	end      = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	leafLife = 10 * time.Minute
)

// Virtual is one sigstore. Two of them trust nothing of each other.
type Virtual struct {
	root, intermediate *x509.Certificate
	intermediateKey    *ecdsa.PrivateKey
	tsaRoot, tsa       *x509.Certificate
	tsaKey             *ecdsa.PrivateKey
	logKey, ctKey      *ecdsa.PrivateKey
}

// New makes a sigstore with keys of its own.
func New(t testing.TB) *Virtual {
	t.Helper()
	v := &Virtual{intermediateKey: newKey(t), tsaKey: newKey(t), logKey: newKey(t), ctKey: newKey(t)}
	rootKey, tsaRootKey := newKey(t), newKey(t)
	authority := func(name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name, Organization: []string{"sigtest"}},
			NotBefore: begin, NotAfter: end, KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
		}
	}
	r := authority("root")
	v.root = certify(t, r, r, rootKey.Public(), rootKey)
	i := authority("intermediate")
	i.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
	v.intermediate = certify(t, i, v.root, v.intermediateKey.Public(), rootKey)
	tr := authority("timestamp root")
	v.tsaRoot = certify(t, tr, tr, tsaRootKey.Public(), tsaRootKey)
	// RFC 3161, section 2.3: the purpose is critical.
	purpose, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}})
	if err != nil {
		t.Fatal(err)
	}
	v.tsa = certify(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "timestamps", Organization: []string{"sigtest"}},
		NotBefore: begin, NotAfter: end, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: purpose}},
	}, v.tsaRoot, v.tsaKey.Public(), tsaRootKey)
	return v
}

// RootOptions says which authorities a trusted root names beside the certificate authority.
type RootOptions struct {
	// TSA, Log and CT are the timestamp authority, the transparency log, and the log of
	// certificates.
	TSA, Log, CT bool
}

// TrustedRoot is trusted_root.json of v.
func (v *Virtual) TrustedRoot(t testing.TB, o RootOptions) []byte {
	t.Helper()
	always := &protocommon.TimeRange{Start: timestamppb.New(begin), End: timestamppb.New(end)}
	chain := func(certs ...*x509.Certificate) *protocommon.X509CertificateChain {
		c := &protocommon.X509CertificateChain{}
		for _, cert := range certs {
			c.Certificates = append(c.Certificates, &protocommon.X509Certificate{RawBytes: cert.Raw})
		}
		return c
	}
	log := func(url string, key *ecdsa.PrivateKey) *prototrust.TransparencyLogInstance {
		der := pkix256(t, key.Public())
		return &prototrust.TransparencyLogInstance{
			BaseUrl: url, HashAlgorithm: protocommon.HashAlgorithm_SHA2_256,
			PublicKey: &protocommon.PublicKey{RawBytes: der, KeyDetails: protocommon.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256, ValidFor: always},
			LogId:     &protocommon.LogId{KeyId: logID(t, key)},
		}
	}
	tr := &prototrust.TrustedRoot{
		MediaType: "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
		CertificateAuthorities: []*prototrust.CertificateAuthority{{
			Subject: &protocommon.DistinguishedName{CommonName: "intermediate", Organization: "sigtest"},
			Uri:     caURL, CertChain: chain(v.intermediate, v.root), ValidFor: always,
		}},
	}
	if o.TSA {
		tr.TimestampAuthorities = []*prototrust.CertificateAuthority{{
			Subject: &protocommon.DistinguishedName{CommonName: "timestamps", Organization: "sigtest"},
			Uri:     TSAURL, CertChain: chain(v.tsa, v.tsaRoot), ValidFor: always,
		}}
	}
	if o.Log {
		tr.Tlogs = []*prototrust.TransparencyLogInstance{log(LogURL, v.logKey)}
	}
	if o.CT {
		tr.Ctlogs = []*prototrust.TransparencyLogInstance{log(ctURL, v.ctKey)}
	}
	raw, err := protojson.Marshal(tr)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// certificate issues what Fulcio would issue to subject, as issuer has named it, with a
// signature of the log of certificates if sct says so.
func (v *Virtual) certificate(t testing.TB, issuer, subject string, at time.Time, sct bool) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key := newKey(t)
	utf8, err := asn1.MarshalWithParams(issuer, "utf8")
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(3), NotBefore: at, NotAfter: at.Add(leafLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		// https://github.com/sigstore/fulcio/blob/main/docs/oid-info.md: the issuer, old and new.
		ExtraExtensions: []pkix.Extension{
			{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}, Value: []byte(issuer)},
			{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}, Value: utf8},
		},
	}
	if strings.Contains(subject, "://") {
		u, err := url.Parse(subject)
		if err != nil {
			t.Fatal(err)
		}
		c.URIs = []*url.URL{u}
	} else {
		c.EmailAddresses = []string{subject}
	}
	cert := certify(t, c, v.intermediate, key.Public(), v.intermediateKey)
	if !sct {
		return cert, key
	}
	c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{
		Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, Value: v.sct(t, cert, at),
	})
	return certify(t, c, v.intermediate, key.Public(), v.intermediateKey), key
}

// sct is the value of the extension that embeds the log's signature over cert (RFC 6962,
// sections 3.2 and 3.3).
func (v *Virtual) sct(t testing.TB, cert *x509.Certificate, at time.Time) []byte {
	t.Helper()
	milli := binary.BigEndian.AppendUint64(nil, uint64(at.UnixMilli()))
	issuer := sha256.Sum256(v.intermediate.RawSubjectPublicKeyInfo)
	tbs := cert.RawTBSCertificate
	signed := append([]byte{0, 0}, milli...) // version 1, certificate_timestamp
	signed = append(signed, 0, 1)            // precert_entry
	signed = append(signed, issuer[:]...)
	signed = append(signed, byte(len(tbs)>>16), byte(len(tbs)>>8), byte(len(tbs)))
	signed = append(signed, tbs...)
	signed = append(signed, 0, 0) // no extensions
	sig := sign(t, v.ctKey, signed)

	one := append([]byte{0}, logID(t, v.ctKey)...)
	one = append(one, milli...)
	one = append(one, 0, 0, 4, 3) // no extensions, SHA-256, ECDSA
	one = binary.BigEndian.AppendUint16(one, uint16(len(sig)))
	one = append(one, sig...)
	list := binary.BigEndian.AppendUint16(nil, uint16(len(one)+2))
	list = binary.BigEndian.AppendUint16(list, uint16(len(one)))
	list = append(list, one...)
	value, err := asn1.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func certify(t testing.TB, template, parent *x509.Certificate, key crypto.PublicKey, by crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, by)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func pkix256(t testing.TB, key crypto.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// logID names a log by its key (RFC 6962, section 3.2).
func logID(t testing.TB, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	sum := sha256.Sum256(pkix256(t, key.Public()))
	return sum[:]
}

// sign signs a message: ECDSA over its SHA-256 digest, or Ed25519 over itself.
func sign(t testing.TB, key crypto.Signer, message []byte) []byte {
	t.Helper()
	input, opts := message, crypto.SignerOpts(crypto.Hash(0))
	if _, ec := key.(*ecdsa.PrivateKey); ec {
		sum := sha256.Sum256(message)
		input, opts = sum[:], crypto.SHA256
	}
	sig, err := key.Sign(rand.Reader, input, opts)
	if err != nil {
		t.Fatal(err)
	}
	return sig
}
