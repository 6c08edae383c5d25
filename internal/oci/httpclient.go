package oci

import (
	"io"
	"net/http"

	"github.com/google/go-containerregistry/pkg/authn"
)

// NewHTTPClient returns a client for files on web servers, such as chart repositories. It shares
// the manners of a Client: plain HTTP only where it was asked for, so many requests at a time per
// host, GET and HEAD tried again after failures that pass, hosts left alone that want to be (in
// the end that is a *BusyError, as the cause of an *url.Error). Credentials are those that o.Keychain has for
// the host, sent as basic authentication, to the host that was asked and to none that it redirects
// to. Mirrors do not apply.
func NewHTTPClient(o Options) *http.Client {
	h := newHosts(o)
	return &http.Client{Transport: &webTransport{
		inner: guard{&politeTransport{o.Transport, h}, o.plainHosts()}, hosts: h, keychain: o.Keychain, userAgent: o.UserAgent,
	}}
}

// webTransport is the transport of NewHTTPClient.
type webTransport struct {
	inner     http.RoundTripper
	hosts     *hosts
	keychain  authn.Keychain
	userAgent string
}

func (t *webTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	out := r.Clone(r.Context())
	if t.userAgent != "" {
		out.Header.Set("User-Agent", t.userAgent)
	}
	if err := t.authenticate(out); err != nil {
		if r.Body != nil && r.Body != http.NoBody {
			_ = r.Body.Close() // the contract of RoundTripper; nothing was read from it
		}
		return nil, err
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead || r.Body != nil && r.Body != http.NoBody {
		return t.send(out)
	}
	b := t.hosts.of(r.URL.Host).backoff()
	defer b.done()
	for {
		resp, err := t.send(out)
		var cause error
		switch {
		case err != nil:
			cause = &wireError{err: err}
		case temporaryStatus(resp.StatusCode):
			cause = temporaryError{resp.StatusCode}
		default:
			return resp, nil
		}
		// An answer is kept open over the wait: the last one is the caller's.
		gaveUp := b.wait(r.Context(), cause)
		switch {
		case gaveUp != nil && resp != nil:
			return resp, nil
		case gaveUp != nil:
			return nil, gaveUp
		case resp != nil:
			_, _ = io.CopyN(io.Discard, resp.Body, maxRefusal) // for the connection to be of use again
			_ = resp.Body.Close()
		}
	}
}

func (t *webTransport) send(r *http.Request) (*http.Response, error) {
	h := t.hosts.of(r.URL.Host)
	slot, err := h.smalls.enter(r.Context())
	if err != nil {
		return nil, err
	}
	resp, err := t.inner.RoundTrip(r)
	cause := err
	if err == nil && temporaryStatus(resp.StatusCode) {
		cause = temporaryError{resp.StatusCode}
	}
	slot.leave(cause)
	if cause == nil {
		h.health.well()
	}
	return resp, err
}

// authenticate adds the credentials for the host that the caller asked, unless the caller has.
func (t *webTransport) authenticate(r *http.Request) error {
	if t.keychain == nil || r.Header.Get("Authorization") != "" || redirectedAway(r) {
		return nil
	}
	auth, err := authn.Resolve(r.Context(), t.keychain, webHost(r.URL.Host))
	if err != nil {
		return err
	}
	c, err := authn.Authorization(r.Context(), auth)
	if err != nil {
		return err
	}
	switch {
	case c.Username != "" && c.Password != "":
		r.SetBasicAuth(c.Username, c.Password)
	case c.Auth != "":
		r.Header.Set("Authorization", "Basic "+c.Auth)
	}
	return nil
}

// redirectedAway reports whether another host had a word in what r asks for.
func redirectedAway(r *http.Request) bool {
	for via := r.Response; via != nil && via.Request != nil; via = via.Request.Response {
		if u := via.Request.URL; u.Host != r.URL.Host || u.Scheme != r.URL.Scheme {
			return true
		}
	}
	return false
}

// webHost is the name under which a keychain has the credentials of a host.
type webHost string

func (h webHost) String() string      { return string(h) }
func (h webHost) RegistryStr() string { return string(h) }

var _ authn.Resource = webHost("")

// temporaryError is an answer that may be another in a moment.
type temporaryError struct{ status int }

func (e temporaryError) Error() string { return http.StatusText(e.status) }
