package chart

import (
	"bufio"
	"bytes"
	"crypto"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"go.yaml.in/yaml/v3"
)

// Bounds, in bytes.
const (
	// MaxProvenance bounds a provenance file: Chart.yaml, a digest and a signature.
	MaxProvenance = 1 << 20
	// MaxKeyring bounds a keyring.
	MaxKeyring = 8 << 20
)

// provenanceMode says what to do about a provenance file.
type provenanceMode int

const (
	noProvenance     provenanceMode = iota // not even look
	takeProvenance                         // take it along, if there is one
	demandProvenance                       // it must be there
)

const clearSigned = "-----BEGIN PGP SIGNED MESSAGE-----"

func isClearSigned(data []byte) bool { return bytes.Contains(data, []byte(clearSigned)) }

// readProvenance reads the file, nil if there is none.
func readProvenance(path string) (data []byte, err error) {
	file, err := os.Open(filepath.Clean(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	data, err = io.ReadAll(io.LimitReader(file, MaxProvenance+1))
	if err == nil && len(data) > MaxProvenance {
		err = fmt.Errorf("%q has more than %d bytes", path, MaxProvenance)
	}
	return data, err
}

// checkProvenance proves that a key of the keyring signed a provenance file
// (https://helm.sh/docs/topics/provenance/) about this chart, and returns its fingerprint.
func (f *Fetcher) checkProvenance(got *Fetched, keyring []byte) (signedBy string, err error) {
	err = protect(func() (err error) {
		if got.Provenance == nil {
			return errors.New("there is no provenance file")
		}
		ring, err := readKeyring(keyring)
		if err != nil {
			return err
		}
		message, signer, err := checkSignature(got.Provenance, ring, f.Now)
		if err != nil {
			return err
		}
		signedBy = strings.ToUpper(hex.EncodeToString(signer.PrimaryKey.Fingerprint))
		return message.check(got)
	})
	if err != nil {
		return "", &ProvenanceError{Chart: got.Name, Err: err}
	}
	return signedBy, nil
}

// provenanceMessage is what a provenance file says: Chart.yaml, and the digests of files.
type provenanceMessage struct {
	name, version string
	files         map[string]string
}

// checkSignature returns the message of a clear-signed file, and who signed it.
func checkSignature(data []byte, ring openpgp.EntityList, now func() time.Time) (*provenanceMessage, *openpgp.Entity, error) {
	if len(data) > MaxProvenance {
		return nil, nil, fmt.Errorf("the provenance file has more than %d bytes", MaxProvenance)
	}
	block, _ := clearsign.Decode(data)
	if block == nil {
		return nil, nil, errors.New("the provenance file is not a clear-signed OpenPGP message")
	}
	signature, signer, err := openpgp.VerifyDetachedSignature(ring, bytes.NewReader(block.Bytes), block.ArmoredSignature.Body, &packet.Config{Time: now})
	if err != nil {
		return nil, nil, fmt.Errorf("the signature of the provenance file: %w", err)
	}
	// Of the older ones, somebody can make two messages with one signature.
	strong := []crypto.Hash{crypto.SHA224, crypto.SHA256, crypto.SHA384, crypto.SHA512, crypto.SHA3_256, crypto.SHA3_512}
	if !slices.Contains(strong, signature.Hash) {
		return nil, nil, fmt.Errorf("the signature of the provenance file is made with %s, which is too weak", signature.Hash)
	}
	message, err := parseProvenance(block.Plaintext)
	return message, signer, err
}

// parseProvenance reads the text that is signed: two YAML documents, with "..." between, because the usual
// "---" means something in OpenPGP.
func parseProvenance(text []byte) (*provenanceMessage, error) {
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	head, tail, ok := bytes.Cut(text, []byte("\n...\n"))
	if !ok {
		return nil, errors.New("the provenance file has no digests")
	}
	tail, _, _ = bytes.Cut(tail, []byte("\n...\n"))
	var chart struct {
		Name    string `yaml:"name"`
		Version string `yaml:"version"`
	}
	var sums struct {
		Files map[string]string `yaml:"files"`
	}
	if err := errors.Join(yaml.Unmarshal(head, &chart), yaml.Unmarshal(tail, &sums)); err != nil {
		return nil, fmt.Errorf("reading the provenance file: %w", err)
	}
	return &provenanceMessage{chart.Name, chart.Version, sums.Files}, nil
}

// check compares the message with the chart. The name of the file is that from where it came, or the one
// that Helm gives it.
func (m *provenanceMessage) check(got *Fetched) error {
	if m.name != got.Name || m.version != got.Version {
		return fmt.Errorf("the provenance file is about chart %q %s, want %q %s", m.name, m.version, got.Name, got.Version)
	}
	usual := got.Name + "-" + got.Version + ".tgz"
	for _, name := range []string{got.file, usual} {
		want, ok := m.files[name]
		if !ok {
			continue
		}
		if digest := digestOf(got.Archive); digest != want {
			return fmt.Errorf("the provenance file is about another archive: got %s, want %s", digest, want)
		}
		return nil
	}
	return fmt.Errorf("the provenance file has no digest of %q", usual)
}

// readKeyring reads public keys, either binary or armored, of the latter any number of blocks.
func readKeyring(data []byte) (openpgp.EntityList, error) {
	const doing = "reading the keyring"
	if len(data) > MaxKeyring {
		return nil, fmt.Errorf("%s: it has more than %d bytes", doing, MaxKeyring)
	}
	if len(data) >= 12 && string(data[8:12]) == "KBXf" {
		return nil, fmt.Errorf("%s: it is a keybox of GnuPG; write the keys with gpg --export", doing)
	}
	var ring openpgp.EntityList
	if !bytes.Contains(data, []byte("-----BEGIN PGP")) {
		keys, err := openpgp.ReadKeyRing(bytes.NewReader(data))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", doing, err)
		}
		ring = keys
	} else {
		// The decoder reads ahead; with a buffer of ours the next block finds what it has read.
		r := bufio.NewReader(bytes.NewReader(data))
		for {
			block, err := armor.Decode(r)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", doing, err)
			}
			keys, err := openpgp.ReadKeyRing(block.Body)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", doing, err)
			}
			ring = append(ring, keys...)
		}
	}
	if len(ring) == 0 {
		return nil, fmt.Errorf("%s: there is no key in it", doing)
	}
	for _, e := range ring {
		if e.PrivateKey != nil {
			return nil, fmt.Errorf("%s: key %X is a private one; write the public ones with gpg --export", doing, e.PrimaryKey.Fingerprint)
		}
	}
	return ring, nil
}
