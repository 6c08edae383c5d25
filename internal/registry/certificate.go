package registry

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

const (
	// authorityTime is how long a certificate authority of the registry's own is good. Every node has
	// to be given the next one by hand.
	authorityTime = 20 * 365 * 24 * time.Hour
	// certificateTime is how long its certificates are good. They are renewed when a third is left.
	certificateTime = 397 * 24 * time.Hour
	// clockSlack is how far the clocks of nodes may be behind.
	clockSlack = 24 * time.Hour
	// maxCertificate bounds files of certificates and keys, in bytes.
	maxCertificate = 1 << 20
)

// ownTLS are settings for either kind of certificate.
func ownTLS(get func(*tls.ClientHelloInfo) (*tls.Certificate, error)) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: get}
}

// CertificateError says that a certificate or a key cannot be used.
type CertificateError struct {
	Path string
	Err  error
}

// Error names the file.
func (e *CertificateError) Error() string { return fmt.Sprintf("certificate %q: %v", e.Path, e.Err) }

// Unwrap returns what is wrong.
func (e *CertificateError) Unwrap() error { return e.Err }

// fileCertificate is a certificate that somebody else renews.
type fileCertificate struct {
	cert, key string
	log       *slog.Logger

	mu    sync.Mutex
	infos [2]fs.FileInfo
	now   *tls.Certificate
}

// CertificateFiles returns a configuration with the certificate (with those between it and its
// authority) and the key in two PEM files. They are read again when they change; what is wrong with
// them then is logged, and the ones before stay.
func CertificateFiles(cert, key string, log *slog.Logger) (*tls.Config, error) {
	c := &fileCertificate{cert: cert, key: key, log: log}
	if _, err := c.get(nil); err != nil {
		return nil, err
	}
	return ownTLS(c.get), nil
}

func (c *fileCertificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.changed() {
		return c.now, nil
	}
	next, err := c.load()
	if err == nil {
		c.now = next
		return next, nil
	}
	if c.now == nil {
		return nil, err
	}
	c.log.Warn("the certificate has changed and cannot be used; the one before stays", slog.Any("error", err))
	return c.now, nil
}

// changed reports whether the files are others than the last time.
func (c *fileCertificate) changed() bool {
	changed := false
	for i, path := range []string{c.cert, c.key} {
		info, err := os.Stat(path)
		if err != nil {
			changed = changed || c.infos[i] != nil || c.now == nil
			c.infos[i] = nil
			continue
		}
		old := c.infos[i]
		if old == nil || !os.SameFile(old, info) || old.Size() != info.Size() || !old.ModTime().Equal(info.ModTime()) {
			changed = true
		}
		c.infos[i] = info
	}
	return changed
}

func (c *fileCertificate) load() (*tls.Certificate, error) {
	cert, err := readSmall(c.cert)
	if err != nil {
		return nil, err
	}
	key, err := readSmall(c.key)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, &CertificateError{c.cert, err}
	}
	return &pair, nil
}

func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	raw, err := io.ReadAll(io.LimitReader(f, maxCertificate+1))
	if err == nil && len(raw) > maxCertificate {
		err = &CertificateError{path, fmt.Errorf("more than %d bytes", maxCertificate)}
	}
	return raw, err
}

// SelfSigned is a certificate of an authority of the registry's own.
type SelfSigned struct {
	dir   string
	names []string
	now   func() time.Time
	// authority signs; what nodes trust is its certificate.
	authority *tls.Certificate

	mu   sync.Mutex
	leaf *tls.Certificate
}

// SelfSign returns the authority that is kept in dir, with a certificate for names, which are names of
// hosts and addresses. Either is made if there is none, and the certificate is made anew, while it is
// in use too, well before it ends, or for other names. Keys are for their owner alone.
func SelfSign(dir string, names []string, now func() time.Time) (*SelfSigned, error) {
	s := &SelfSigned{dir: dir, names: slices.Sorted(slices.Values(names)), now: now}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("making a certificate authority: %w", err)
	}
	if err := s.openAuthority(); err != nil {
		return nil, err
	}
	if _, err := s.certificate(nil); err != nil {
		return nil, err
	}
	return s, nil
}

// TLS returns a configuration with the certificate.
func (s *SelfSigned) TLS() *tls.Config { return ownTLS(s.certificate) }

// CAPath is the file of the authority's certificate, which is what nodes must trust.
func (s *SelfSigned) CAPath() string { return filepath.Join(s.dir, "ca.crt") }

// Fingerprint is the SHA-256 digest of the authority's certificate, in hexadecimal.
func (s *SelfSigned) Fingerprint() string {
	sum := sha256.Sum256(s.authority.Leaf.Raw)
	return hex.EncodeToString(sum[:])
}

// NotAfter is when the authority ends.
func (s *SelfSigned) NotAfter() time.Time { return s.authority.Leaf.NotAfter }

// openAuthority reads the authority, or makes it.
func (s *SelfSigned) openAuthority() error {
	path := filepath.Join(s.dir, "ca.key")
	for {
		pair, err := readPair(path)
		if err == nil {
			if !pair.Leaf.IsCA {
				return &CertificateError{path, errors.New("not that of an authority")}
			}
			if !s.now().Before(pair.Leaf.NotAfter) {
				return &CertificateError{path, fmt.Errorf("the authority has ended on %s; remove it for a new one, which all nodes then have to trust", pair.Leaf.NotAfter.Format(time.DateOnly))}
			}
			s.authority = pair
			return s.publish(pair)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		raw, err := s.makeAuthority()
		if err != nil {
			return fmt.Errorf("making a certificate authority: %w", err)
		}
		// Whoever comes second reads what the first has written.
		if err := createFile(path, raw, 0o600); err != nil {
			return fmt.Errorf("making a certificate authority: %w", err)
		}
	}
}

// publish writes the authority's certificate where everyone may read it.
func (s *SelfSigned) publish(pair *tls.Certificate) error {
	public := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Leaf.Raw})
	if is, err := readSmall(s.CAPath()); err == nil && bytes.Equal(is, public) {
		return nil
	}
	return replaceFile(s.CAPath(), public, 0o644)
}

func (s *SelfSigned) makeAuthority() ([]byte, error) {
	now := s.now()
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	return makePair(&x509.Certificate{
		SerialNumber: serial,
		// Two of these on one node are told apart by their names.
		Subject:   pkix.Name{CommonName: "sealift registry " + serial.Text(16)[:8], Organization: []string{"sealift"}},
		NotBefore: now.Add(-clockSlack), NotAfter: now.Add(authorityTime),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}, nil)
}

// certificate returns the one of the server, renewed if need be.
func (s *SelfSigned) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leaf != nil && s.good(s.leaf) {
		return s.leaf, nil
	}
	path := filepath.Join(s.dir, "server.pem")
	// Another process may have renewed it.
	if pair, err := readPair(path); err == nil && s.good(pair) {
		s.leaf = pair
		return pair, nil
	}
	pair, raw, err := s.makeCertificate()
	if err != nil {
		return nil, fmt.Errorf("making a certificate: %w", err)
	}
	if err := replaceFile(path, raw, 0o600); err != nil && s.leaf == nil {
		return nil, fmt.Errorf("making a certificate: %w", err)
	}
	// While it runs, a full disk is no reason to turn clients away.
	s.leaf = pair
	return pair, nil
}

// good reports whether a certificate is the authority's, for all names, and has time left.
func (s *SelfSigned) good(pair *tls.Certificate) bool {
	c := pair.Leaf
	now := s.now()
	if now.Before(c.NotBefore) || !now.Before(c.NotAfter.Add(-certificateTime/3)) || c.CheckSignatureFrom(s.authority.Leaf) != nil {
		// One that lasts as long as the authority cannot be renewed for longer.
		if c.NotAfter.Before(s.authority.Leaf.NotAfter) || now.Before(c.NotBefore) || c.CheckSignatureFrom(s.authority.Leaf) != nil {
			return false
		}
	}
	for _, name := range s.names {
		if c.VerifyHostname(name) != nil {
			return false
		}
	}
	return true
}

func (s *SelfSigned) makeCertificate() (*tls.Certificate, []byte, error) {
	now := s.now()
	serial, err := newSerial()
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "sealift registry"},
		NotBefore: now.Add(-clockSlack), NotAfter: now.Add(certificateTime),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	if end := s.authority.Leaf.NotAfter; template.NotAfter.After(end) {
		template.NotAfter = end
	}
	for _, name := range s.names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	raw, err := makePair(template, s.authority)
	if err != nil {
		return nil, nil, err
	}
	pair, err := parsePair(raw)
	return pair, raw, err
}

func newSerial() (*big.Int, error) {
	// 127 bits, never 0: RFC 5280 wants it positive, and some clients want it to be random.
	limit := new(big.Int).Lsh(big.NewInt(1), 126)
	n, err := rand.Int(rand.Reader, limit)
	if err != nil {
		return nil, err
	}
	return n.Add(n, limit), nil
}

// makePair makes a key and a certificate for it, signed by by, or by itself; both in PEM.
func makePair(template *x509.Certificate, by *tls.Certificate) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	parent, signer := template, any(key)
	if by != nil {
		parent, signer = by.Leaf, by.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})...), nil
}

func readPair(path string) (*tls.Certificate, error) {
	raw, err := readSmall(path)
	if err != nil {
		return nil, err
	}
	pair, err := parsePair(raw)
	if err != nil {
		return nil, &CertificateError{path, err}
	}
	return pair, nil
}

func parsePair(raw []byte) (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair(raw, raw)
	if err != nil {
		return nil, err
	}
	if pair.Leaf == nil {
		if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return nil, err
		}
	}
	return &pair, nil
}
