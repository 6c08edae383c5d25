package cli_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sealift/sealift/internal/registry"
)

// cmdSecure starts a registry with a certificate of its own authority, NAME-ca.pem:
//
//	secure NAME [mtls] [token] [leaky]
//
// With mtls it lets in who shows the certificate NAME-client.pem (NAME-client.key); with token it
// wants a token for each repository and action, which jane gets for s3cret, and mounts only for who may
// pull where that is from; a leaky one has nothing,
// refuses all, and repeats in its answers the credentials that it was sent, as its token server does.
func cmdSecure(ts *testscript.TestScript, _ bool, args []string) {
	name, how := args[0], args[1:]
	app, err := registry.New(context.Background(), registry.Options{Store: ts.MkAbs("store-" + name), SparseIndexes: true})
	ts.Check(err)
	next := app.Handler()
	if slices.Contains(how, "token") {
		next = &tokens{next: next, given: map[string]string{}}
	}
	if slices.Contains(how, "leaky") {
		next = http.HandlerFunc(leak)
		if slices.Contains(how, "token") {
			next = http.HandlerFunc(leakForm)
		}
	}
	authority := newAuthority(ts)
	server := &site{next: next, hung: ts.MkAbs("hung"), closing: make(chan struct{})}
	config := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{authority.issue(ts, "registry")}}
	if slices.Contains(how, "mtls") {
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, authority.pool()
	}
	server.serve(ts, func(h http.Handler) *httptest.Server {
		s := httptest.NewUnstartedServer(h)
		s.TLS, s.Config.ErrorLog = config, log.New(io.Discard, "", 0)
		s.StartTLS()
		return s
	})
	authority.write(ts, ts.MkAbs(name+"-ca.pem"))
	writePair(ts, authority.issue(ts, "site"), ts.MkAbs(name+"-client.pem"), ts.MkAbs(name+"-client.key"))
	ts.Setenv(name, strings.TrimPrefix(server.server.URL, "https://"))
}

func leak(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") == "" {
		w.Header().Set("WWW-Authenticate", `Basic realm="site"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if r.Method == http.MethodHead { // its answer has no words
		w.WriteHeader(http.StatusNotFound)
		return
	}
	_, password, _ := r.BasicAuth()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusForbidden)
	fmt.Fprintf(w, `{"errors":[{"code":"DENIED","message":"not with %s, which is %s"}]}`, r.Header.Get("Authorization"), password)
}

// leakForm is a leaky registry with a token server.
func leakForm(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/token" {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="https://%s/token",service="site"`, r.Host))
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	form, err := io.ReadAll(r.Body)
	if err != nil {
		return // whoever asked has gone
	}
	w.WriteHeader(http.StatusForbidden)
	fmt.Fprintf(w, "not with the form %s", form)
}

// tokens is the token authentication of the distribution spec: each token is for one scope.
type tokens struct {
	next http.Handler

	mu    sync.Mutex
	given map[string]string
}

func (t *tokens) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/token" {
		t.give(w, r)
		return
	}
	path, action := "", "pull"
	if rest, ok := strings.CutPrefix(r.URL.Path, "/v2/"); ok {
		for _, part := range []string{"/manifests/", "/blobs/", "/tags/", "/referrers/"} {
			if i := strings.LastIndex(rest, part); i > 0 {
				path = rest[:i]
			}
		}
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		action = "push"
	}
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	t.mu.Lock()
	scope, known := t.given[token]
	t.mu.Unlock()
	if known && (path == "" || covers(scope, path, action)) {
		// As real ones do, it does not say that it was not let into where a blob is mounted from.
		if q := r.URL.Query(); q.Has("from") && !covers(scope, q.Get("from"), "pull") {
			r.URL.RawQuery = ""
		}
		t.next.ServeHTTP(w, r)
		return
	}
	w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="https://%s/token",service="site",scope="repository:%s:%s"`, r.Host, path, action))
	w.WriteHeader(http.StatusUnauthorized)
}

// covers reports whether one of some scopes is for this action.
func covers(scopes, path, action string) bool {
	for scope := range strings.FieldsSeq(scopes) {
		if actions, ok := strings.CutPrefix(scope, "repository:"+path+":"); ok && slices.Contains(strings.Split(actions, ","), action) {
			return true
		}
	}
	return false
}

func (t *tokens) give(w http.ResponseWriter, r *http.Request) {
	user, password, _ := r.BasicAuth()
	if user != "jane" || password != "s3cret" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	token := rand.Text()
	t.mu.Lock()
	t.given[token] = strings.Join(r.URL.Query()["scope"], " ")
	t.mu.Unlock()
	fmt.Fprintf(w, `{"token":%q}`, token)
}

// authority is a certificate authority.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(ts *testscript.TestScript) *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "site authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	ts.Check(err)
	cert, err := x509.ParseCertificate(der)
	ts.Check(err)
	return &authority{key, cert}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// issue makes a certificate for servers on loopback, and for clients.
func (a *authority) issue(ts *testscript.TestScript, name string) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	ts.Check(err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) write(ts *testscript.TestScript, path string) {
	ts.Check(os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}), 0o600))
}

func writePair(ts *testscript.TestScript, pair tls.Certificate, cert, key string) {
	ts.Check(os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}), 0o600))
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	ts.Check(err)
	ts.Check(os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
}
