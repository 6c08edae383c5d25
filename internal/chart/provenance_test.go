package chart

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	helmprovenance "helm.sh/helm/v4/pkg/provenance"

	"github.com/sealift/sealift/internal/oci/ocitest"
)

var (
	signedAt = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	at       = func(t time.Time) func() time.Time { return func() time.Time { return t } }
)

// newKey makes a key that is good for a year.
func newKey(t testing.TB) *openpgp.Entity {
	t.Helper()
	return newKeyOf(t, nil)
}

// newKeyOf makes one of some random bytes, nil for true ones.
func newKeyOf(t testing.TB, random io.Reader) *openpgp.Entity {
	t.Helper()
	e, err := openpgp.NewEntity("Vendor", "", "vendor@example.com", &packet.Config{Rand: random, Algorithm: packet.PubKeyAlgoEdDSA, Time: at(signedAt), KeyLifetimeSecs: 365 * 24 * 3600})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func fingerprint(e *openpgp.Entity) string { return fmt.Sprintf("%X", e.PrimaryKey.Fingerprint) }

func armored(t testing.TB, keys ...*openpgp.Entity) []byte {
	t.Helper()
	var buf bytes.Buffer
	for _, k := range keys {
		w, err := armor.Encode(&buf, openpgp.PublicKeyType, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(k.Serialize(w), w.Close()); err != nil {
			t.Fatal(err)
		}
		buf.WriteString("\n")
	}
	return buf.Bytes()
}

func binary(t testing.TB, keys ...*openpgp.Entity) []byte {
	t.Helper()
	var buf bytes.Buffer
	for _, k := range keys {
		if err := k.Serialize(&buf); err != nil {
			t.Fatal(err)
		}
	}
	return buf.Bytes()
}

func clearSign(t testing.TB, key *openpgp.Entity, text string, hash crypto.Hash) []byte {
	t.Helper()
	var buf bytes.Buffer
	plain := packet.BoolPointer(false) // the same each time
	w, err := clearsign.Encode(&buf, key.PrivateKey, &packet.Config{DefaultHash: hash, Time: at(signedAt), NonDeterministicSignaturesViaNotation: plain})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// proofText is what helm package --sign signs.
func proofText(name, version, file string, archive []byte) string {
	return fmt.Sprintf("apiVersion: v2\nname: %s\nversion: %s\n\n...\nfiles:\n  %s: %s\n", name, version, file, digestOf(archive))
}

func TestProvenance(t *testing.T) {
	key, other := newKey(t), newKey(t)
	archive := archiveOf(t, "shop", "1.0.0+b", nil)
	good := proofText("shop", "1.0.0+b", "shop-1.0.0+b.tgz", archive)
	signed := clearSign(t, key, good, crypto.SHA512)

	revoked := newKey(t)
	revokedProof := clearSign(t, revoked, good, crypto.SHA512)
	if err := revoked.RevokeKey(packet.KeyCompromised, "stolen", &packet.Config{Time: at(signedAt)}); err != nil {
		t.Fatal(err)
	}
	var private bytes.Buffer
	if err := newKey(t).SerializePrivate(&private, nil); err != nil {
		t.Fatal(err)
	}

	tests := []struct {
		name    string
		keyring []byte
		proof   []byte
		now     time.Time
		want    string // in the error; empty for none
	}{
		{"armored", armored(t, key), signed, signedAt, ""},
		{"binary", binary(t, key), signed, signedAt, ""},
		{"several armored", armored(t, other, key), signed, signedAt, ""},
		{"several binary", binary(t, other, key), signed, signedAt, ""},
		{"crlf", armored(t, key), bytes.ReplaceAll(signed, []byte("\n"), []byte("\r\n")), signedAt, ""},
		{"the name of the file that came", armored(t, key), clearSign(t, key, proofText("shop", "1.0.0+b", "renamed.tgz", archive), crypto.SHA256), signedAt, ""},
		{"foreign key", armored(t, other), signed, signedAt, "signature made by unknown entity"},
		{"expired key", armored(t, key), signed, signedAt.AddDate(2, 0, 0), "expired"},
		{"key of the future", armored(t, key), signed, signedAt.AddDate(-1, 0, 0), "expired"},
		{"revoked key", armored(t, revoked), revokedProof, signedAt, "revoked"},
		{"weak hash", armored(t, key), weaken(t, key, good), signedAt, "SHA-1"},
		{"tampered digest", armored(t, key), bytes.Replace(signed, []byte("sha256:"), []byte("sha256:0"), 1), signedAt, "signature"},
		{"tampered version", armored(t, key), bytes.Replace(signed, []byte("version: 1"), []byte("version: 2"), 1), signedAt, "signature"},
		{"another archive", armored(t, key), clearSign(t, key, proofText("shop", "1.0.0+b", "shop-1.0.0+b.tgz", nil), crypto.SHA512), signedAt, "about another archive"},
		{"another chart", armored(t, key), clearSign(t, key, proofText("ship", "1.0.0+b", "shop-1.0.0+b.tgz", archive), crypto.SHA512), signedAt, `about chart "ship"`},
		{"another version", armored(t, key), clearSign(t, key, proofText("shop", "1.0.0", "shop-1.0.0+b.tgz", archive), crypto.SHA512), signedAt, `1.0.0, want`},
		{"another file", armored(t, key), clearSign(t, key, proofText("shop", "1.0.0+b", "ship.tgz", archive), crypto.SHA512), signedAt, `no digest of "shop-1.0.0+b.tgz"`},
		{"no digests", armored(t, key), clearSign(t, key, "name: shop\nversion: 1.0.0+b\n", crypto.SHA512), signedAt, "has no digests"},
		{"no yaml", armored(t, key), clearSign(t, key, "[\n...\n{", crypto.SHA512), signedAt, "reading the provenance file"},
		{"not signed", armored(t, key), []byte(good), signedAt, "not a clear-signed"},
		{"empty", armored(t, key), []byte{}, signedAt, "not a clear-signed"},
		{"too large", armored(t, key), append(signed, make([]byte, MaxProvenance)...), signedAt, "more than 1048576 bytes"},
		{"empty keyring", []byte{}, signed, signedAt, "no key in it"},
		{"keyring of something", []byte("something"), signed, signedAt, "reading the keyring"},
		{"damaged armor", armored(t, key)[:200], signed, signedAt, "reading the keyring"},
		{"keybox", append([]byte("\x00\x00\x00\x20\x01\x01\x00\x02KBXf"), make([]byte, 20)...), signed, signedAt, "gpg --export"},
		{"private keyring", private.Bytes(), signed, signedAt, "is a private one"},
		{"huge keyring", make([]byte, MaxKeyring+1), signed, signedAt, "more than 8388608 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "renamed.tgz")
			if err := errors.Join(os.WriteFile(path, archive, 0o600), os.WriteFile(path+".prov", tt.proof, 0o600)); err != nil {
				t.Fatal(err)
			}
			got, err := (&Fetcher{Now: at(tt.now)}).Fetch(t.Context(), Location{Path: path, Keyring: tt.keyring})
			if tt.want == "" {
				if err != nil || got.SignedBy != fingerprint(key) || !bytes.Equal(got.Provenance, tt.proof) {
					t.Errorf("got %+v %v", got, err)
				}
				return
			}
			var pe *ProvenanceError
			if !errors.As(err, &pe) || pe.Chart != "shop" || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// weaken signs with SHA-1, which the library no longer does in clear-signed messages by itself.
func weaken(t testing.TB, key *openpgp.Entity, text string) []byte {
	t.Helper()
	strong := clearSign(t, key, text, crypto.SHA512)
	block, _ := clearsign.Decode(strong)
	sig := &packet.Signature{
		Version: 4, SigType: packet.SigTypeText, PubKeyAlgo: key.PrimaryKey.PubKeyAlgo, Hash: crypto.SHA1,
		CreationTime: signedAt, IssuerKeyId: &key.PrimaryKey.KeyId,
	}
	h := crypto.SHA1.New()
	h.Write(block.Bytes)
	if err := sig.Sign(h, key.PrivateKey, &packet.Config{Time: at(signedAt), NonDeterministicSignaturesViaNotation: packet.BoolPointer(false)}); err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	text, _, _ = strings.Cut(string(strong), "-----BEGIN PGP SIGNATURE")
	buf.WriteString(text)
	w, err := armor.Encode(&buf, "PGP SIGNATURE", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(sig.Serialize(w), w.Close()); err != nil {
		t.Fatal(err)
	}
	return append(buf.Bytes(), '\n')
}

// What helm package --sign makes is what this checks.
func TestProvenanceOfHelm(t *testing.T) {
	key, err := openpgp.NewEntity("Vendor", "", "vendor@example.com", nil)
	if err != nil {
		t.Fatal(err)
	}
	archive := archiveOf(t, "shop", "1.0.0", nil)
	text, err := (&helmprovenance.Signatory{Entity: key}).ClearSign(archive, "shop-1.0.0.tgz", []byte("apiVersion: v2\nname: shop\nversion: 1.0.0\n"))
	if err != nil {
		t.Fatal(err)
	}
	proof := []byte(text)

	r := newTestRepository(t)
	r.publish(archive, "shop", "1.0.0")
	r.files["/charts/shop-1.0.0.tgz.prov"] = proof
	reg := ocitest.New(t, ocitest.WithoutAPI)
	push(t, reg.Addr, "team", archive, proof)
	bare := ocitest.New(t, ocitest.WithAPI)
	push(t, bare.Addr, "team", archive, nil)
	f := r.fetcher()
	f.OCI = registryOCI{ocitest.Client()}
	keyring := armored(t, key)
	for _, l := range []Location{{Repo: r.URL + "/charts", Name: "shop"}, {OCI: "oci://" + reg.Addr + "/team/shop"}} {
		got, err := f.Fetch(t.Context(), l)
		if err != nil || !bytes.Equal(got.Provenance, proof) || got.SignedBy != "" {
			t.Errorf("%+v without keyring: got %+v %v", l, got, err)
		}
		l.Keyring = keyring
		if got, err = f.Fetch(t.Context(), l); err != nil || !bytes.Equal(got.Provenance, proof) || got.SignedBy != fingerprint(key) {
			t.Errorf("%+v: got %+v %v", l, got, err)
		}
	}

	var pe *ProvenanceError
	if _, err := f.Fetch(t.Context(), Location{OCI: "oci://" + bare.Addr + "/team/shop", Keyring: keyring}); !errors.As(err, &pe) {
		t.Errorf("got %v", err)
	}
	delete(r.files, "/charts/shop-1.0.0.tgz.prov")
	var re *RepositoryError
	if _, err := f.Fetch(t.Context(), Location{Repo: r.URL + "/charts", Name: "shop", Keyring: keyring}); !errors.As(err, &pe) || !errors.As(err, &re) || re.Status != 404 {
		t.Errorf("got %v", err)
	}
	tgz := filepath.Join(t.TempDir(), "shop.tgz")
	if err := os.WriteFile(tgz, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Fetch(t.Context(), Location{Path: tgz, Keyring: keyring}); !errors.As(err, &pe) {
		t.Errorf("got %v", err)
	}
	if got, err := f.Fetch(t.Context(), Location{Path: tgz}); err != nil || got.Provenance != nil {
		t.Errorf("got %v", err)
	}
	if _, err := f.Fetch(t.Context(), Location{Path: shopDir, Keyring: keyring}); !errors.As(err, &pe) || !strings.Contains(err.Error(), "a directory has none") {
		t.Errorf("got %v", err)
	}
}

func FuzzProvenance(f *testing.F) {
	// All processes of a run must have the same key, or each finds what the others cannot see.
	key := newKeyOf(f, rand.New(rand.NewSource(1)))
	keyring := armored(f, key)
	archive := archiveOf(f, "shop", "1.0.0", nil)
	good := clearSign(f, key, proofText("shop", "1.0.0", "shop-1.0.0.tgz", archive), crypto.SHA512)
	f.Add(good, keyring)
	f.Add(good, binary(f, key))
	f.Add([]byte(clearSigned+"\nHash: SHA512\n\na\n...\nb\n-----BEGIN PGP SIGNATURE-----\n\n-----END PGP SIGNATURE-----\n"), []byte("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n"))
	fetcher := &Fetcher{Now: at(signedAt)}
	c, err := Parse(archive)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, proof, foreign []byte) {
		if len(proof) > 64<<10 || len(foreign) > 64<<10 {
			return
		}
		if _, err := parseProvenance(proof); err == nil && !bytes.Contains(proof, []byte("...")) {
			t.Fatal("read without digests")
		}
		by, err := fetcher.checkProvenance(&Fetched{Chart: c, Provenance: proof}, foreign)
		var pe *ProvenanceError
		if err != nil && !errors.As(err, &pe) || (err == nil) != (by != "") {
			t.Fatalf("got %q %v", by, err)
		}
		// Whatever becomes of the file: it is not proven by the right key, unless what was signed is there.
		if by, err = fetcher.checkProvenance(&Fetched{Chart: c, Provenance: proof}, keyring); err == nil &&
			(by != fingerprint(key) || !bytes.Contains(proof, []byte(strings.TrimPrefix(digestOf(archive), "sha256:")))) {
			t.Fatalf("proven: %q", proof)
		}
	})
}
