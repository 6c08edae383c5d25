package oci

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

const (
	// maxTokenAnswer bounds the answer of a token server, in bytes.
	maxTokenAnswer = 64 << 10
	// maxPlaces bounds how many token servers on private addresses there are.
	maxPlaces = 1000
)

// TokenError says that a token server gave no token, although it did not refuse one. What it said
// instead is not told: there may be secrets in it.
type TokenError struct {
	// Host is the token server, as host[:port].
	Host string
	// Why is what is wrong with the answer.
	Why string
}

// Error names the token server.
func (e *TokenError) Error() string { return fmt.Sprintf("the token server %s %s", e.Host, e.Why) }

// tokenServers looks after requests for tokens (the "token authentication specification" of
// distribution). The library makes an error of the whole answer where there is no token in it; and it
// asks no token server on a private address, unless that is the registry itself.
//
// Where such servers may be asked, because the transport decides itself whom it connects to, the
// library is shown a place at the registry instead of the real one. The names of these places hold a
// secret, so that no registry can send us there. What is sent to one goes to the real one and nowhere
// else.
type tokenServers struct {
	inner   http.RoundTripper
	private bool
	secret  string

	mu sync.Mutex
	// asked are hashes of the addresses of all token servers, places are the real ones of those on
	// private addresses, and names the places by address.
	asked  map[[sha256.Size]byte]bool
	places []*url.URL
	names  map[string]int
}

func newTokenServers(inner http.RoundTripper, private bool) *tokenServers {
	return &tokenServers{inner: inner, private: private, secret: "/" + rand.Text() + "/", asked: map[[sha256.Size]byte]bool{}, names: map[string]int{}}
}

// RoundTrip implements http.RoundTripper.
func (t *tokenServers) RoundTrip(r *http.Request) (*http.Response, error) {
	server := t.placeOf(r.URL)
	if server == nil {
		return t.ask(r)
	}
	moved := r.WithContext(r.Context())
	moved.URL, moved.Host, moved.Header = server, server.Host, r.Header.Clone()
	moved.Header.Del("Referer") // it is one of our names
	resp, err := t.ask(moved)
	if err == nil && resp.StatusCode/100 == 3 && resp.Header.Get("Location") != "" {
		err = t.follow(r.URL.Host, server, resp)
		if err != nil {
			err = errors.Join(err, resp.Body.Close())
		}
	}
	if err != nil {
		return nil, &wireError{"asking the token server " + server.Host, err}
	}
	return resp, nil
}

// follow gives a place to where a token server sends on, which it may within itself: credentials
// are for it alone.
func (t *tokenServers) follow(registry string, server *url.URL, resp *http.Response) error {
	to, err := server.Parse(resp.Header.Get("Location"))
	if err == nil && to.Host == server.Host && to.Scheme == server.Scheme {
		if place := t.place(registry, to); place != "" {
			resp.Header.Set("Location", place)
			return nil
		}
	}
	return permanentError{errors.New("it sends us elsewhere")}
}

// ask sends a request, and looks at the answer as far as it is about tokens.
func (t *tokenServers) ask(r *http.Request) (*http.Response, error) {
	resp, err := t.inner.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	switch {
	case resp.StatusCode == http.StatusUnauthorized:
		t.note(r.URL.Host, resp.Header)
	case resp.StatusCode == http.StatusOK && t.isAsked(r):
		if err := checkToken(r.URL.Host, resp); err != nil {
			return nil, &wireError{err: err}
		}
	}
	return resp, nil
}

// checkToken makes sure that there is a token in an answer.
func checkToken(host string, resp *http.Response) error {
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxTokenAnswer+1))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	var answer struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
	}
	why := ""
	switch {
	case len(raw) > maxTokenAnswer:
		why = fmt.Sprintf("answered with more than %d bytes", maxTokenAnswer)
	case json.Unmarshal(raw, &answer) != nil:
		why = "answered with something else than a token"
	case answer.Token == "" && answer.AccessToken == "":
		why = "answered without a token"
	}
	if why != "" {
		return permanentError{&TokenError{host, why}}
	}
	resp.Body = io.NopCloser(bytes.NewReader(raw))
	return nil
}

// realms finds the addresses of token servers in challenges (RFC 6750, section 3).
var realms = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(?i)\brealm="[^"]*"`) })

// note remembers the token servers that a registry names, and gives those on private addresses a
// place.
func (t *tokenServers) note(registry string, h http.Header) {
	values := h.Values("WWW-Authenticate")
	for i, value := range values {
		values[i] = realms().ReplaceAllStringFunc(value, func(param string) string {
			_, quoted, _ := strings.Cut(param, "=")
			realm, err := url.Parse(strings.Trim(quoted, `"`))
			if err != nil || realm.Host == "" || realm.User != nil {
				return param
			}
			t.mu.Lock()
			t.asked[hashOf(realm)] = true
			t.mu.Unlock()
			if !t.private || realm.Host == registry || !isPrivate(realm.Hostname()) {
				return param
			}
			if place := t.place(registry, realm); place != "" {
				return `realm="` + place + `"`
			}
			return param
		})
	}
}

func hashOf(u *url.URL) [sha256.Size]byte { return sha256.Sum256([]byte(u.Host + u.EscapedPath())) }

func isPrivate(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && (ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast())
}

// place names the place at a registry that stands for a token server, empty where there are too many.
// It keeps the scheme, which the library looks at, and the query, to which it adds.
func (t *tokenServers) place(registry string, server *url.URL) string {
	bare := *server
	bare.RawQuery, bare.Fragment = "", ""
	t.mu.Lock()
	defer t.mu.Unlock()
	n, known := t.names[bare.String()]
	if !known {
		if n = len(t.places); n == maxPlaces {
			return ""
		}
		t.places = append(t.places, &bare)
		t.names[bare.String()] = n
		t.asked[hashOf(&bare)] = true
	}
	u := url.URL{Scheme: server.Scheme, Host: registry, Path: t.secret + strconv.Itoa(n), RawQuery: server.RawQuery}
	return u.String()
}

// placeOf returns the real address of a place, nil for any other address.
func (t *tokenServers) placeOf(u *url.URL) *url.URL {
	text, ok := strings.CutPrefix(u.Path, t.secret)
	if !ok {
		return nil
	}
	n, err := strconv.Atoi(text)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil || n < 0 || n >= len(t.places) {
		return nil
	}
	server := *t.places[n]
	server.RawQuery = u.RawQuery
	return &server
}

// isAsked reports whether a request is for a token, directly or as it was sent on.
func (t *tokenServers) isAsked(r *http.Request) bool {
	for r.Response != nil && r.Response.Request != nil {
		r = r.Response.Request
	}
	form := r.Method == http.MethodPost && r.Header.Get("Content-Type") == "application/x-www-form-urlencoded"
	if !form && !r.URL.Query().Has("service") {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.asked[hashOf(r.URL)]
}

// ofToken returns the error of a request for a token where there is one in err: what the library puts
// around it names places that do not exist.
func ofToken(err error) error {
	var w *wireError
	if errors.As(err, &w) {
		return w
	}
	return err
}
