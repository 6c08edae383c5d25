package registry

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	// realm is what browsers show to those who are asked for a password.
	realm = "sealift"
	// tokenPath is where tokens are to be had. The distribution specification leaves the place free.
	tokenPath = "/token"
	// tokenTime is how long a token is good.
	tokenTime = 5 * time.Minute
	// maxToken bounds a token, in bytes.
	maxToken = 1 << 10
)

// gate lets in who may: with the users' own credentials (HTTP basic authentication), and where those
// without credentials may read, also with tokens, the way of docs.docker.com/registry/spec/auth/token:
// only by it do clients that know credentials bring them to a registry which lets them read without.
type gate struct {
	o   FrontOptions
	key []byte
}

func newGate(o FrontOptions) (*gate, error) {
	g := &gate{o, o.TokenKey}
	if len(g.key) == 0 {
		g.key = make([]byte, 32)
		if _, err := rand.Read(g.key); err != nil {
			return nil, fmt.Errorf("making a key for tokens: %w", err)
		}
	}
	return g, nil
}

// admit returns who sends the request, "" for one without credentials; ok is false where it has been
// refused.
func (g *gate) admit(w http.ResponseWriter, r *http.Request) (user string, ok bool) {
	if g.o.Users.Open() {
		return "", true
	}
	name, password, basic := r.BasicAuth()
	token, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	switch {
	case basic && name+password != "":
		return name, g.login(w, r, name, password)
	case bearer:
		if name, ok = g.redeem(token); !ok {
			g.challenge(w, r, "the token is not, or no longer, good")
			return "", false
		}
		if name != "" {
			return name, true
		}
	case r.URL.Path == "/v2/":
		// Here clients find out how to bring their credentials.
		g.challenge(w, r, "authentication required")
		return "", false
	}
	if !g.o.AnonymousPull || !slices.Contains(reading, r.Method) || !strings.HasPrefix(r.URL.Path, "/v2/") {
		g.challenge(w, r, "authentication required")
		return "", false
	}
	return "", true
}

// login checks credentials and answers where they are not right.
func (g *gate) login(w http.ResponseWriter, r *http.Request, name, password string) bool {
	right, err := g.o.Users.verify(r.Context(), name, password)
	switch {
	case errors.Is(err, errCrowded):
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusTooManyRequests, "TOOMANYREQUESTS", err.Error())
		return false
	case err != nil:
		if errors.Is(err, context.Canceled) {
			refuse(w, http.StatusRequestTimeout, "UNKNOWN", "the client has not waited")
			return false
		}
		g.o.Log.WarnContext(r.Context(), "nobody can be let in", slog.Any("error", err))
		refuse(w, http.StatusServiceUnavailable, "UNAVAILABLE", "the registry cannot read its users")
		return false
	case !right:
		g.o.Metrics.failedLogin()
		g.challenge(w, r, "user or password is wrong")
		return false
	}
	return true
}

// challenge asks for credentials.
func (g *gate) challenge(w http.ResponseWriter, r *http.Request, why string) {
	how := fmt.Sprintf("Basic realm=%q", realm)
	if g.o.AnonymousPull && r.URL.Path != tokenPath {
		how = fmt.Sprintf("Bearer realm=%q,service=%q", origin(r)+tokenPath, realm)
		if repository := repositoryOf(r.URL.Path); repository != "" {
			action := "pull"
			if !slices.Contains(reading, r.Method) {
				action = "pull,push"
			}
			how += fmt.Sprintf(",scope=%q", "repository:"+repository+":"+action)
		}
	}
	w.Header().Set("WWW-Authenticate", how)
	refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", why)
}

// origin is where the client sees this registry.
func origin(r *http.Request) string {
	scheme := "http"
	if r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https") {
		scheme = "https"
	}
	return scheme + "://" + r.Host
}

// repositoryOf is the repository in a path of the distribution specification, or "".
func repositoryOf(path string) string {
	rest, ok := strings.CutPrefix(path, "/v2/")
	if !ok {
		return ""
	}
	for _, part := range []string{"/blobs/", "/manifests/", "/tags/", "/referrers/"} {
		if i := strings.Index(rest, part); i > 0 && !strings.ContainsAny(rest[:i], `",: `) {
			return rest[:i]
		}
	}
	return ""
}

// claim is what a token says.
type claim struct {
	// User is empty for one who may only read.
	User string `json:"u,omitempty"`
	// Until is when it ends, in seconds since 1970.
	Until int64 `json:"e"`
}

// serveToken gives tokens: with credentials for their user, without for reading.
func (g *gate) serveToken(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		// Clients that ask by POST first then ask by GET.
		w.Header().Set("Allow", "GET")
		refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "tokens are asked for with GET")
		return
	}
	name, password, basic := r.BasicAuth()
	if !basic || name+password == "" {
		name = ""
	} else if !g.login(w, r, name, password) {
		return
	}
	now := g.o.Now()
	token, err := g.issue(name, now)
	if err != nil {
		g.challenge(w, r, "there is no such user any more")
		return
	}
	raw, err := json.Marshal(map[string]any{
		"token": token, "access_token": token, "expires_in": int(tokenTime.Seconds()), "issued_at": now.UTC().Format(time.RFC3339),
	})
	if err != nil {
		raw = nil // cannot happen: texts and numbers always marshal
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(raw)
}

func (g *gate) issue(name string, now time.Time) (string, error) {
	hash := ""
	if name != "" {
		var ok bool
		var err error
		if hash, ok, err = g.o.Users.hash(name); err != nil || !ok {
			return "", errors.Join(err, &UserError{Name: name, Reason: "there is no such user", Unknown: true})
		}
	}
	raw, err := json.Marshal(claim{name, now.Add(tokenTime).Unix()})
	if err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(raw) + "." + base64.RawURLEncoding.EncodeToString(g.sign(raw, hash)), nil
}

// redeem returns whose a token is. With the user's password, tokens end too.
func (g *gate) redeem(token string) (name string, ok bool) {
	if len(token) > maxToken {
		return "", false
	}
	said, signature, _ := strings.Cut(token, ".")
	raw, err := base64.RawURLEncoding.DecodeString(said)
	if err != nil {
		return "", false
	}
	mac, err := base64.RawURLEncoding.DecodeString(signature)
	if err != nil {
		return "", false
	}
	var c claim
	if json.Unmarshal(raw, &c) != nil {
		return "", false
	}
	hash := ""
	if c.User != "" {
		if hash, ok, err = g.o.Users.hash(c.User); err != nil || !ok {
			return "", false
		}
	}
	if !hmac.Equal(mac, g.sign(raw, hash)) || g.o.Now().Unix() >= c.Until {
		return "", false
	}
	return c.User, true
}

func (g *gate) sign(raw []byte, hash string) []byte {
	mac := hmac.New(sha256.New, g.key)
	mac.Write([]byte("sealift token\n" + hash + "\n"))
	mac.Write(raw)
	return mac.Sum(nil)
}
