package oci

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/sealift/sealift/manifest"
)

// Options say how a Client talks.
type Options struct {
	// Side is the role of the registries, for errors: "source registry".
	Side string
	// Keychain finds credentials; nil means none.
	Keychain authn.Keychain
	// Transport carries the requests. Required: which proxies and dialers are right depends
	// on the side of the gap.
	Transport http.RoundTripper
	// PlainHTTP lists hosts (with port, if any) that are spoken to without TLS. Loopback
	// addresses always are.
	PlainHTTP []string
	UserAgent string
	// Mirrors says where registries are read instead: host to HOST[:PORT][/PREFIX], as
	// ParseMirror returns them. Nothing is ever pushed to a mirror.
	Mirrors map[string]string
	// PerHost is how many small requests (for manifests, configs, lists) are under way at a time
	// to one host; 0 for 48. The bodies of blobs do not count.
	PerHost int
	// Waiting, if set, is told when a host wants to be left alone for a while, and is. It is
	// called by several goroutines at a time.
	Waiting func(host string, d time.Duration)
}

// Client talks to registries.
type Client struct {
	o     Options
	plain map[string]bool
	hosts *hosts
	// base is what all repositories send their requests through.
	base http.RoundTripper

	mu    sync.Mutex
	repos map[string]*repoEntry
}

type repoEntry struct {
	once sync.Once
	repo *Repository
	err  error
}

// NewClient returns a client; nothing is dialled yet.
func NewClient(o Options) *Client {
	c := &Client{o: o, plain: o.plainHosts(), hosts: newHosts(o), repos: map[string]*repoEntry{}}
	polite := &politeTransport{o.Transport, c.hosts}
	c.base = transport.NewUserAgent(&challenges{inner: guard{polite, c.plain}, answers: map[string]*answer{}}, o.UserAgent)
	return c
}

func (o *Options) plainHosts() map[string]bool {
	plain := map[string]bool{}
	for _, h := range o.PlainHTTP {
		plain[h] = true
	}
	return plain
}

// TransportOption changes what NewTransport returns.
type TransportOption func(*http.Transport)

// WithDialer makes dial open every connection of the transport: to registries, to the token
// servers and storage that they send to, and to a proxy. address is "host:port", before any
// name is resolved; what dial refuses is not looked up either.
func WithDialer(dial func(ctx context.Context, network, address string) (net.Conn, error)) TransportOption {
	return func(t *http.Transport) { t.DialContext = dial }
}

// WithRootCAs makes the transport trust the certificate authorities in a PEM file, beside those of
// the system. What is no certificate in there is an error.
func WithRootCAs(pemBytes []byte) (TransportOption, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("reading the system's certificate authorities: %w", err)
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
	return func(t *http.Transport) {
		if t.TLSClientConfig == nil {
			t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		t.TLSClientConfig.RootCAs = pool
	}, nil
}

// NewTransport returns a transport for registries. proxy decides which proxy a request takes;
// nil for none, as on the isolated side.
func NewTransport(proxy func(*http.Request) (*url.URL, error), options ...TransportOption) *http.Transport {
	t := &http.Transport{
		Proxy:                 proxy,
		DialContext:           (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		ForceAttemptHTTP2:     true,
		MaxIdleConns:          100,
		MaxIdleConnsPerHost:   32,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   15 * time.Second,
		ExpectContinueTimeout: time.Second,
		// A registry may hash a large upload before it answers.
		ResponseHeaderTimeout: 10 * time.Minute,
		ReadBufferSize:        64 << 10,
		WriteBufferSize:       64 << 10,
	}
	for _, o := range options {
		o(t)
	}
	return t
}

// guard lets plain HTTP through only to loopback and to the hosts that were named. The
// library falls back to it for private addresses.
type guard struct {
	inner http.RoundTripper
	plain map[string]bool
}

func (g guard) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme == "http" && !g.plain[r.URL.Host] && !isLoopback(r.URL.Hostname()) {
		if r.Body != nil {
			_ = r.Body.Close() // the contract of RoundTripper; nothing was read from it
		}
		return nil, &PlainHTTPError{r.URL.Host}
	}
	return g.inner.RoundTrip(r)
}

func isLoopback(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// Repository is one repository of a registry, with the session to talk to it.
type Repository struct {
	client *Client
	http   *http.Client
	// name is where it is spoken to: the mirror, where there is one.
	name name.Repository
	host *host
	// at is the host as it is named in errors; mirrored the registry whose mirror that is, or empty.
	at, mirrored string
	// Registry and Path are as the caller gave them.
	Registry, Path string
	// noReferrersAPI is set once the registry has shown that it has none.
	noReferrersAPI atomic.Bool
}

// Repository opens registry/path for pulling or, where push is set, for pulling and pushing.
// It asks the registry how it wants to be authenticated. For pulling, the mirror of the registry
// is taken where there is one. Errors are *Error.
func (c *Client) Repository(ctx context.Context, registry, path string, push bool) (*Repository, error) {
	key := fmt.Sprintf("%s/%s %t", registry, path, push)
	c.mu.Lock()
	e := c.repos[key]
	if e == nil {
		e = &repoEntry{}
		c.repos[key] = e
	}
	c.mu.Unlock()
	e.once.Do(func() {
		e.repo, e.err = c.open(ctx, registry, path, push)
		if e.err != nil {
			// A failure is not kept: it may have been the caller's context.
			c.mu.Lock()
			delete(c.repos, key)
			c.mu.Unlock()
		}
	})
	return e.repo, e.err
}

func (c *Client) open(ctx context.Context, registry, path string, push bool) (*Repository, error) {
	at, below, mirrored := registry, path, ""
	if mirror := c.o.Mirrors[canonicalHost(registry)]; mirror != "" && !push {
		var prefix string
		at, prefix, _ = strings.Cut(mirror, "/")
		below, mirrored = strings.TrimPrefix(prefix+"/"+path, "/"), registry
	}
	fail := func(doing string, err error) error {
		return &Error{Side: c.o.Side, Registry: at, For: mirrored, Doing: doing, Err: err}
	}
	var opts []name.Option
	if c.plain[at] {
		opts = append(opts, name.Insecure)
	}
	doing := "connecting for " + path
	repo, err := name.NewRepository(at+"/"+below, opts...)
	if err == nil && repo.RegistryStr() != at && at != dockerHub {
		// The library takes a host without dot and port for a part of the path, on Docker Hub.
		err = fmt.Errorf("%q cannot be told from a repository; add the port", at)
	}
	if err != nil {
		return nil, fail(doing, err)
	}
	auth := authn.Anonymous
	if c.o.Keychain != nil {
		if auth, err = authn.Resolve(ctx, c.o.Keychain, repo); err != nil {
			return nil, fail("finding credentials", err)
		}
	}
	scope := transport.PullScope
	if push {
		scope = transport.PushScope
	}
	host := c.hosts.of(repo.RegistryStr())
	var rt http.RoundTripper
	err = host.small(ctx, func(ctx context.Context) (err error) {
		rt, err = transport.NewWithContext(ctx, repo.Registry, auth, c.base, []string{repo.Scope(scope)})
		return err
	})
	if err != nil {
		return nil, fail(doing, err)
	}
	return &Repository{
		client: c, http: &http.Client{Transport: rt}, name: repo, host: host, at: at, mirrored: mirrored,
		Registry: registry, Path: path,
	}, nil
}

func (r *Repository) fail(doing, what string, err error) error {
	// The library's words repeat the whole address of an upload, with the session's state in it.
	var u *url.Error
	if errors.As(err, &u) {
		cause := u.Err
		if errors.Is(cause, io.EOF) {
			// For who reads a blob the end of a connection is not the end of the blob.
			cause = fmt.Errorf("the connection was closed without an answer: %w", io.ErrUnexpectedEOF)
		}
		short := fmt.Errorf("%s: %w", strings.ToLower(u.Op), cause)
		// Why nobody waited for another try must not be lost with the address.
		for _, done := range []error{context.Canceled, context.DeadlineExceeded} {
			if errors.Is(err, done) && !errors.Is(short, done) {
				short = fmt.Errorf("%w after %w", done, short)
			}
		}
		err = short
	}
	return &Error{
		Side: r.client.o.Side, Registry: r.at, For: r.mirrored,
		Doing: fmt.Sprintf("%s %s of %s", doing, what, r.Path), Err: err,
	}
}

func (r *Repository) url(format string, a ...any) string {
	u := url.URL{Scheme: r.name.Scheme(), Host: r.name.RegistryStr(), Path: "/v2/" + r.name.RepositoryStr() + "/" + fmt.Sprintf(format, a...)}
	return u.String()
}

// accepted are the media types that manifests may have.
var accepted = strings.Join([]string{
	string(types.OCIImageIndex), string(types.DockerManifestList),
	string(types.OCIManifestSchema1), string(types.DockerManifestSchema2),
}, ",")

// do sends a request that has no body.
func (r *Repository) do(ctx context.Context, method, target string, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, target, nil)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	return r.http.Do(req)
}

// Content is a manifest or index: its descriptor and its bytes.
type Content struct {
	manifest.Descriptor
	Raw []byte
}

// Manifest reads a manifest or index by tag or digest. Its digest is computed; where
// identifier is a digest, it is compared. Errors are *Error.
func (r *Repository) Manifest(ctx context.Context, identifier string) (*Content, error) {
	var c *Content
	err := r.host.small(ctx, func(ctx context.Context) error {
		resp, err := r.do(ctx, http.MethodGet, r.url("manifests/%s", identifier), http.Header{"Accept": {accepted}})
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if err := transport.CheckError(resp, http.StatusOK); err != nil {
			return err
		}
		raw, err := readLimited(resp.Body, manifest.MaxOCIManifestBytes)
		if err != nil {
			return err
		}
		c = &Content{Descriptor: manifest.Descriptor{
			Digest: manifest.Digest(raw), Size: int64(len(raw)), MediaType: mediaType(resp, raw),
		}, Raw: raw}
		if strings.HasPrefix(identifier, "sha256:") && c.Digest != identifier {
			return &DigestError{c.Digest, identifier}
		}
		return nil
	})
	if err != nil {
		return nil, r.fail("reading", "manifest "+identifier, err)
	}
	return c, nil
}

// mediaType is the one in the document, since that is what the digest covers; else the
// registry's word for it.
func mediaType(resp *http.Response, raw []byte) string {
	if m := declaredMediaType(raw); m != "" {
		return m
	}
	m, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	return strings.TrimSpace(m)
}

func readLimited(r io.Reader, limit int64) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(raw)) > limit {
		return nil, &TooLargeError{limit}
	}
	return raw, nil
}

// ManifestDigest asks which digest a tag, or digest, has: "" where there is none.
func (r *Repository) ManifestDigest(ctx context.Context, identifier string) (string, error) {
	var digest string
	var unnamed bool
	byDigest := manifest.CheckDigest(identifier) == nil
	err := r.host.small(ctx, func(ctx context.Context) error {
		// Tags of other kinds of content are not free either.
		resp, err := r.do(ctx, http.MethodHead, r.url("manifests/%s", identifier), http.Header{"Accept": {accepted + ", */*;q=0.1"}})
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		// Some registries answer 403 for what is not there. For a digest that only costs an
		// upload, which tells the truth; a tag must not look free that is not.
		if resp.StatusCode == http.StatusNotFound || byDigest && resp.StatusCode == http.StatusForbidden {
			return nil
		}
		if err := transport.CheckError(resp, http.StatusOK); err != nil {
			return err
		}
		digest = resp.Header.Get("Docker-Content-Digest")
		if byDigest {
			if digest != "" && digest != identifier {
				return &DigestError{digest, identifier}
			}
			digest = identifier
		}
		unnamed = digest == ""
		return nil
	})
	if err != nil {
		return "", r.fail("looking for", "manifest "+identifier, err)
	}
	if unnamed { // the header is only a SHOULD of the spec
		c, err := r.Manifest(ctx, identifier)
		if err != nil {
			return "", err
		}
		return c.Digest, nil
	}
	if digest == "" {
		return "", nil
	}
	if err := manifest.CheckDigest(digest); err != nil {
		return "", r.fail("looking for", "manifest "+identifier, err)
	}
	return digest, nil
}

// ReadBlob reads a small blob into memory and checks its digest and size.
func (r *Repository) ReadBlob(ctx context.Context, d manifest.Descriptor, limit int64) ([]byte, error) {
	var raw []byte
	err := r.host.small(ctx, func(ctx context.Context) error {
		body, err := r.openBlob(ctx, d, 0)
		if err != nil {
			return err
		}
		defer body.Close()
		if raw, err = readLimited(body, limit); err != nil {
			return err
		}
		if int64(len(raw)) < d.Size {
			return io.ErrUnexpectedEOF
		}
		if got := manifest.Digest(raw); got != d.Digest {
			return &DigestError{got, d.Digest}
		}
		return nil
	})
	if err != nil {
		return nil, r.fail("reading", "blob "+d.Digest, err)
	}
	return raw, nil
}

// HasBlob reports whether the repository has the blob.
func (r *Repository) HasBlob(ctx context.Context, digest string) (bool, error) {
	found := false
	err := r.host.small(ctx, func(ctx context.Context) error {
		resp, err := r.do(ctx, http.MethodHead, r.url("blobs/%s", digest), nil)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusForbidden {
			return nil // see ManifestDigest
		}
		if err := transport.CheckError(resp, http.StatusOK); err != nil {
			return err
		}
		found = true
		return nil
	})
	if err != nil {
		return false, r.fail("looking for", "blob "+digest, err)
	}
	return found, nil
}

// PutBlob uploads a blob, or mounts it from the repository from (same registry; empty for
// none). open gives the blob's bytes from the start and is called again for each try; sent is
// told how many more bytes have gone out, or fewer where a try begins anew. It reports whether
// the blob was mounted, so that nothing was sent.
func (r *Repository) PutBlob(ctx context.Context, d manifest.Descriptor, from string, open func() (io.ReadCloser, error), sent func(int64)) (mounted bool, err error) {
	u := &upload{open: open, sent: sent}
	var last error
	err = retry(ctx, func() (err error) {
		defer func() {
			if u.failure() == nil {
				last = err
			}
		}()
		location, ok, err := r.startUpload(ctx, d, from)
		if err != nil || ok {
			mounted = ok
			return err
		}
		err = r.finishUpload(ctx, location, d, u)
		if broken := u.failure(); broken != nil {
			return permanentError{broken}
		}
		return err
	})
	switch broken := u.failure(); {
	case broken != nil && last != nil:
		// The source could not be read once more, after the registry had made that necessary.
		return false, errors.Join(r.fail("uploading", "blob "+d.Digest, last), broken)
	case broken != nil:
		return false, broken
	case err != nil:
		return false, r.fail("uploading", "blob "+d.Digest, err)
	}
	return mounted, nil
}

func (r *Repository) startUpload(ctx context.Context, d manifest.Descriptor, from string) (location string, mounted bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	target := r.url("blobs/uploads/")
	mounting := from != "" && from != r.Path
	if mounting {
		target += "?" + url.Values{"mount": {d.Digest}, "from": {from}}.Encode()
	}
	resp, err := r.do(ctx, http.MethodPost, target, nil)
	if err != nil {
		return "", false, err
	}
	defer resp.Body.Close()
	if err := transport.CheckError(resp, http.StatusAccepted, http.StatusCreated); err != nil {
		if mounting && !temporary(err) {
			// A mount only saves work: some registries answer it with 403, 404 or 405.
			return r.startUpload(ctx, d, "")
		}
		return "", false, err
	}
	if mounting && resp.StatusCode == http.StatusCreated {
		return "", true, nil
	}
	location = resp.Header.Get("Location")
	u, err := resp.Request.URL.Parse(location)
	if err != nil || location == "" {
		return "", false, permanentError{errors.New("the registry named no usable place for the upload")}
	}
	q := u.Query()
	q.Set("digest", d.Digest)
	u.RawQuery = q.Encode()
	return u.String(), false, nil
}

// upload is one blob on its way, over all tries.
type upload struct {
	open func() (io.ReadCloser, error)
	sent func(int64)

	mu      sync.Mutex
	body    *uploadBody // the newest one; only its bytes count
	counted int64
	err     error // why the source could not be read
}

// failure is why the source could not be read, if so.
func (u *upload) failure() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.err
}

// begin returns a body that starts anew.
func (u *upload) begin() *uploadBody {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.sent(-u.counted)
	u.counted, u.body = 0, &uploadBody{upload: u}
	return u.body
}

// uploadBody is the body of one try. The transport may close it while it is still being read,
// and read it after the request has ended.
type uploadBody struct {
	upload *upload
	r      io.ReadCloser
	closed bool
}

func (b *uploadBody) Read(p []byte) (int, error) {
	u := b.upload
	u.mu.Lock()
	defer u.mu.Unlock()
	if b.closed || u.body != b {
		return 0, http.ErrBodyReadAfterClose
	}
	if b.r == nil && u.err == nil {
		b.r, u.err = u.open()
	}
	if u.err != nil {
		return 0, u.err
	}
	n, err := b.r.Read(p)
	u.counted += int64(n)
	u.sent(int64(n))
	if err != nil && !errors.Is(err, io.EOF) {
		u.err = err
	}
	return n, err
}

// Close closes the source of this try.
func (b *uploadBody) Close() error {
	b.upload.mu.Lock()
	defer b.upload.mu.Unlock()
	b.closed = true
	if b.r == nil {
		return nil
	}
	r := b.r
	b.r = nil
	return r.Close()
}

func (r *Repository) finishUpload(ctx context.Context, location string, d manifest.Descriptor, u *upload) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, location, nil)
	if err != nil {
		return err
	}
	if d.Size > 0 {
		req.Body, req.ContentLength = u.begin(), d.Size
		req.GetBody = func() (io.ReadCloser, error) { return u.begin(), nil }
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := r.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return transport.CheckError(resp, http.StatusCreated, http.StatusNoContent)
}

// PutManifest stores a manifest or index under a tag or its digest. The caller has proven raw
// against digest; the registry's answer is compared with it.
func (r *Repository) PutManifest(ctx context.Context, identifier string, c *Content) error {
	_, err := r.putManifest(ctx, identifier, c)
	return err
}

// putManifest is PutManifest; it returns the subject that the registry recognised.
func (r *Repository) putManifest(ctx context.Context, identifier string, c *Content) (subject string, err error) {
	err = r.host.small(ctx, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPut, r.url("manifests/%s", identifier), bytes.NewReader(c.Raw))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", c.MediaType)
		resp, err := r.http.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if err := transport.CheckError(resp, http.StatusCreated, http.StatusOK, http.StatusAccepted); err != nil {
			return err
		}
		if got := resp.Header.Get("Docker-Content-Digest"); got != "" && got != c.Digest {
			return &DigestError{got, c.Digest}
		}
		subject = resp.Header.Get("OCI-Subject")
		return nil
	})
	if err != nil {
		return "", r.fail("storing", "manifest "+identifier, err)
	}
	return subject, nil
}
