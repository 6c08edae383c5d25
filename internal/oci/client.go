package oci

import (
	"bytes"
	"context"
	"crypto/tls"
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
	// PrivateTokenServers says that a registry may send us for tokens to private and link-local
	// addresses that are not its own. It is for a Transport that decides itself whom it connects to
	// (WithDialer): else a registry could have any host of this network asked.
	PrivateTokenServers bool
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
	// Uploads is how many blobs are on their way to one host at a time; 0 for 16. Both numbers are
	// the most: there are fewer while a host says that it is asked too much.
	Uploads int
	// Budget says how much is borne of a host.
	Budget Budget
	// Waiting, if set, is told when a host wants to be left alone for a while, and is. It is
	// called by several goroutines at a time.
	Waiting func(host string, d time.Duration)
	// Away, if set, is told once when a host that has answered before cannot be reached any more and
	// is waited for. It is called as Waiting is.
	Away func(host string, err error)
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
	tokens := newTokenServers(guard{polite, c.plain}, o.PrivateTokenServers)
	c.base = transport.NewUserAgent(rewinding{&challenges{inner: tokens, answers: map[string]*answer{}}}, o.UserAgent)
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
	return func(t *http.Transport) {
		t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := dial(ctx, network, address)
			if err != nil && ctx.Err() == nil && !isNet(err) {
				err = permanentError{err} // dial's own word, and not the network's
			}
			return c, err
		}
	}
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
	allowed := g.plain[r.URL.Host] || IsLoopback(r.URL.Hostname())
	if r.URL.Scheme == "http" && !allowed {
		if r.Body != nil {
			_ = r.Body.Close() // the contract of RoundTripper; nothing was read from it
		}
		return nil, &PlainHTTPError{r.URL.Host}
	}
	resp, err := g.inner.RoundTrip(r)
	var record tls.RecordHeaderError
	if errors.As(err, &record) && string(record.RecordHeader[:]) == "HTTP/" {
		// As http.Client says it, which does not look into what we wrap.
		err = http.ErrSchemeMismatch
		if !allowed {
			// It will not speak TLS the next time either. Where it may do without, that is tried next.
			err = permanentError{err}
		}
	}
	return resp, err
}

// IsLoopback reports whether a host, without a port, is this machine, which is spoken to without TLS.
func IsLoopback(host string) bool {
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
	// mounts are the blobs that the registry says it has mounted, with the path that they are from.
	mounts sync.Map
	// auth is who we are there, mounters the sessions for mounting, by the path that is mounted from.
	auth     authn.Authenticator
	mu       sync.Mutex
	mounters map[string]*mounter
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
		return ofToken(err)
	})
	if err != nil {
		return nil, fail(doing, err)
	}
	return &Repository{
		client: c, http: &http.Client{Transport: rt}, name: repo, host: host, at: at, mirrored: mirrored, auth: auth, mounters: map[string]*mounter{},
		Registry: registry, Path: path,
	}, nil
}

func (r *Repository) fail(doing, what string, err error) error {
	doing = fmt.Sprintf("%s %s of %s", doing, what, r.Path)
	if there := r.name.RepositoryStr(); r.mirrored != "" && there != r.Path {
		doing += ", there " + there
	}
	return &Error{Side: r.client.o.Side, Registry: r.at, For: r.mirrored, Doing: doing, Err: err}
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
	return doWith(ctx, r.http, method, target, header)
}

func doWith(ctx context.Context, with *http.Client, method, target string, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, target, nil)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	return sendWith(with, req)
}

func (r *Repository) send(req *http.Request) (*http.Response, error) { return sendWith(r.http, req) }

func sendWith(with *http.Client, req *http.Request) (*http.Response, error) {
	resp, err := with.Do(req)
	if err != nil {
		return nil, wire(err)
	}
	return resp, nil
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
	err := r.host.retry(ctx, r.host.smalls, func() (err error) {
		c, err = r.readManifest(ctx, identifier)
		return err
	})
	if err != nil {
		return nil, r.fail("reading", "manifest "+identifier, err)
	}
	return c, nil
}

// readManifest is one try of Manifest.
func (r *Repository) readManifest(ctx context.Context, identifier string) (*Content, error) {
	c, named, err := r.getManifest(ctx, identifier)
	if err != nil {
		return nil, err
	}
	byDigest := strings.HasPrefix(identifier, "sha256:")
	if byDigest {
		named = identifier
	}
	if says := manifest.CheckDigest(named) == nil; !says || c.Digest == named {
		return c, nil
	}
	if !byDigest {
		// Either it was spoiled on its way, or the registry names digests of its own.
		proven, _, err := r.getManifest(ctx, named)
		if IsNotFound(err) {
			proven, named, err = c, c.Digest, nil
		}
		if err != nil || proven.Digest == named {
			return proven, err
		}
	}
	return nil, &DigestError{c.Digest, named}
}

// getManifest returns also the digest that the registry says it is.
func (r *Repository) getManifest(ctx context.Context, identifier string) (c *Content, named string, err error) {
	resp, err := r.watched(ctx, r.host.budget.Answer, func(ctx context.Context) (*http.Response, error) {
		resp, err := r.do(ctx, http.MethodGet, r.url("manifests/%s", identifier), http.Header{"Accept": {accepted}})
		if err != nil {
			return nil, err
		}
		if err := check(resp, http.StatusOK); err != nil {
			return nil, errors.Join(err, resp.Body.Close())
		}
		return resp, nil
	})
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	raw, err := readLimited(resp.Body, manifest.MaxOCIManifestBytes)
	if err != nil {
		return nil, "", err
	}
	return &Content{Descriptor: manifest.Descriptor{
		Digest: manifest.Digest(raw), Size: int64(len(raw)), MediaType: mediaType(resp, raw),
	}, Raw: raw}, resp.Header.Get("Docker-Content-Digest"), nil
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
		return nil, &wireError{err: err}
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
		if err := check(resp, http.StatusOK); err != nil {
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
	err := r.host.retry(ctx, r.host.smalls, func() error {
		body, _, err := r.openBlob(ctx, d, 0)
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
	found, err := r.hasBlob(ctx, digest)
	if err != nil {
		return false, r.fail("looking for", "blob "+digest, err)
	}
	return found, nil
}

func (r *Repository) hasBlob(ctx context.Context, digest string) (found bool, err error) {
	err = r.host.small(ctx, func(ctx context.Context) error {
		resp, err := r.do(ctx, http.MethodHead, r.url("blobs/%s", digest), nil)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusForbidden {
			return nil // see ManifestDigest
		}
		if err := check(resp, http.StatusOK); err != nil {
			return err
		}
		found = true
		return nil
	})
	return found, err
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
		resp, err := r.send(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		err = check(resp, http.StatusCreated, http.StatusOK, http.StatusAccepted)
		if statusOf(err) == http.StatusBadRequest {
			// What the caller has proven may have been spoiled on its way.
			return garbledError{err}
		}
		if err != nil {
			return err
		}
		if got := resp.Header.Get("Docker-Content-Digest"); got != "" && got != c.Digest {
			return &DigestError{got, c.Digest}
		}
		subject = resp.Header.Get("OCI-Subject")
		return nil
	})
	if err != nil {
		return "", r.fail("storing", "manifest "+identifier, r.unmounted(err))
	}
	return subject, nil
}

// unmounted says of a manifest that was refused for a blob which the registry has mounted that this
// is why.
func (r *Repository) unmounted(err error) error {
	var t *transport.Error
	if !IsMissingContent(err) || !errors.As(err, &t) {
		return err
	}
	details := ""
	for _, d := range t.Errors {
		details += fmt.Sprintln(d.Message, d.Detail)
	}
	r.mounts.Range(func(digest, from any) bool {
		missing := strings.Contains(details, fmt.Sprint(digest))
		if missing {
			err = &MountError{Digest: fmt.Sprint(digest), From: fmt.Sprint(from), Err: err}
		}
		return !missing
	})
	return err
}
