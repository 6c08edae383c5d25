package oci

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// maxCertificate bounds a file with certificates or a key, in bytes.
const maxCertificate = 4 << 20

// WithRootCAs makes the transport trust the certificate authorities in a PEM file, beside those of
// the system. What is no certificate in there is an error.
func WithRootCAs(pemBytes []byte) (TransportOption, error) { return withAuthorities(nil, pemBytes) }

// withAuthorities adds to those in pool, nil for those of the system.
func withAuthorities(pool *x509.CertPool, pemBytes []byte) (TransportOption, error) {
	if pool == nil {
		var err error
		if pool, err = x509.SystemCertPool(); err != nil {
			return nil, fmt.Errorf("reading the system's certificate authorities: %w", err)
		}
	}
	n := 0
	for rest := pemBytes; ; n++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("reading certificate authorities: block %d is a %q, want a CERTIFICATE", n+1, block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("reading certificate authorities: block %d: %w", n+1, err)
		}
		pool.AddCert(cert)
	}
	if n == 0 {
		return nil, errors.New("reading certificate authorities: there is no certificate in PEM form")
	}
	return func(t *http.Transport) { tlsConfig(t).RootCAs = pool }, nil
}

// WithClientCertificate makes the transport show a certificate to servers that ask for one. Both are
// in PEM. The key must not be encrypted.
func WithClientCertificate(cert, key []byte) (TransportOption, error) {
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("reading client certificate: %w", err)
	}
	return func(t *http.Transport) {
		c := tlsConfig(t)
		c.Certificates = append(c.Certificates, pair)
	}, nil
}

// tlsConfig is the configuration of t, which is made if need be.
func tlsConfig(t *http.Transport) *tls.Config {
	if t.TLSClientConfig == nil {
		t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return t.TLSClientConfig
}

// CertificateError says that certificates which were put there for a registry cannot be used.
type CertificateError struct {
	Path string
	Err  error
}

// Error names the file or directory.
func (e *CertificateError) Error() string {
	return fmt.Sprintf("reading certificates from %q: %v", e.Path, e.Err)
}

// Unwrap returns the cause.
func (e *CertificateError) Unwrap() error { return e.Err }

// HostCertificates returns a transport that speaks to each host with the certificates that are for it
// below dirs, as Docker and Podman read them (docker-registry certificates, containers-certs.d(5)):
// DIR/HOST[:PORT]/*.crt are authorities, *.cert with *.key what it shows of itself. Of several
// directories with something for a host the first counts; one that may not be read is passed over. Where there is nothing for a host, base
// carries its requests as it is. Errors of RoundTrip may be *CertificateError.
func HostCertificates(base *http.Transport, dirs []string) http.RoundTripper {
	return &hostCertificates{base: base, dirs: dirs, hosts: map[string]*hostTransport{}}
}

type hostCertificates struct {
	base *http.Transport
	dirs []string

	mu    sync.Mutex
	hosts map[string]*hostTransport
}

type hostTransport struct {
	transport *http.Transport
	err       error
}

func (h *hostCertificates) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" {
		return h.base.RoundTrip(r)
	}
	t := h.of(r.URL.Host)
	if t.err != nil {
		if r.Body != nil {
			_ = r.Body.Close() // the contract of RoundTripper; nothing was read from it
		}
		return nil, t.err
	}
	return t.transport.RoundTrip(r)
}

// CloseIdleConnections closes those of all hosts.
func (h *hostCertificates) CloseIdleConnections() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.base.CloseIdleConnections()
	for _, t := range h.hosts {
		if t.transport != nil {
			t.transport.CloseIdleConnections()
		}
	}
}

func (h *hostCertificates) of(host string) *hostTransport {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.hosts[host]
	if t == nil {
		t = &hostTransport{}
		t.transport, t.err = h.open(host)
		h.hosts[host] = t
	}
	return t
}

// open makes the transport for a host.
func (h *hostCertificates) open(host string) (*http.Transport, error) {
	// A host never leads out of the directories.
	if host == "" || strings.ContainsAny(host, `/\`) || strings.HasPrefix(host, ".") {
		return h.base, nil
	}
	for _, dir := range h.dirs {
		dir = filepath.Join(dir, host)
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue // what is for other users says nothing to this one, as docker and podman see it
		}
		if err != nil {
			return nil, &CertificateError{dir, err}
		}
		t := h.base.Clone()
		used, err := addCertificates(t, dir, entries)
		if err != nil {
			return nil, err
		}
		if used {
			return t, nil
		}
	}
	return h.base, nil
}

// addCertificates gives t what a directory holds, and reports whether that was anything.
func addCertificates(t *http.Transport, dir string, entries []fs.DirEntry) (used bool, err error) {
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	for _, name := range names {
		path := filepath.Join(dir, name)
		var option TransportOption
		switch filepath.Ext(name) {
		case ".crt":
			option, err = authoritiesOf(t, path)
		case ".cert":
			key := strings.TrimSuffix(name, ".cert") + ".key"
			if !slices.Contains(names, key) {
				return false, &CertificateError{path, fmt.Errorf("its key %q is missing", key)}
			}
			option, err = pairOf(path, filepath.Join(dir, key))
		default:
			continue
		}
		if err != nil {
			return false, &CertificateError{path, err}
		}
		option(t)
		used = true
	}
	return used, nil
}

// authoritiesOf adds the authorities in a file to those that t trusts already.
func authoritiesOf(t *http.Transport, path string) (TransportOption, error) {
	raw, err := readCertificate(path)
	if err != nil {
		return nil, err
	}
	var pool *x509.CertPool
	if c := t.TLSClientConfig; c != nil && c.RootCAs != nil {
		pool = c.RootCAs.Clone()
	}
	return withAuthorities(pool, raw)
}

func pairOf(cert, key string) (TransportOption, error) {
	c, err := readCertificate(cert)
	if err != nil {
		return nil, err
	}
	k, err := readCertificate(key)
	if err != nil {
		return nil, err
	}
	return WithClientCertificate(c, k)
}

func readCertificate(path string) (raw []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return readLimited(f, maxCertificate)
}
