package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/spf13/cobra"

	"github.com/sealift/sealift/internal/oci"
)

// accessFlags say how registries are spoken to: with which credentials and certificates, and where
// without TLS.
type accessFlags struct {
	plainHTTP, hosts              []string
	caFile, clientCert, clientKey string
	username, passwordFile        string
	passwordStdin                 bool
}

// add adds the flags.
func (f *accessFlags) add(c *cobra.Command) {
	fs := c.Flags()
	fs.StringSliceVar(&f.plainHTTP, "plain-http", nil, "registry host[:port] to speak to without TLS (repeatable)")
	fs.StringSliceVar(&f.hosts, "allow-host", nil, "HOST[:PORT] that the registry may send us to, as for tokens or storage; nothing else is ever connected to, no other port of the registry either (repeatable)")
	fs.StringVar(&f.caFile, "ca-file", "", "certificates, in PEM, of authorities that are trusted besides those of the system")
	fs.StringVar(&f.clientCert, "client-cert", "", "certificate, in PEM, to show to the registry")
	fs.StringVar(&f.clientKey, "client-key", "", "key of --client-cert, in PEM")
	fs.StringVar(&f.username, "username", "", "user at the registry (default: what docker and podman know)")
	fs.BoolVar(&f.passwordStdin, "password-stdin", false, "read the password of --username from standard input")
	fs.StringVar(&f.passwordFile, "password-file", "", "file with the password of --username (or set SEALIFT_PASSWORD)")
	onlyFlag(fs, "allow-host")
}

// accessHelp is for commands that have these flags.
const accessHelp = `Credentials for the registry are those of --username, or else what docker and podman have
stored ('docker login', 'podman login'). Certificates are also taken from where these two look
for them, certs.d/HOST:PORT in /etc/containers, /etc/docker or ~/.config/containers. Hosts on
loopback addresses are spoken to without TLS.`

// client returns a client for the registry at host ("HOST[:PORT]"), which errors call side ("target
// registry"). It connects to that host and to those of --allow-host, without a proxy.
func (f *accessFlags) client(a *app, cmd *cobra.Command, side, host string) (*oci.Client, error) {
	keychain, err := f.keychain(a, cmd, host)
	if err != nil {
		return nil, err
	}
	options := []oci.TransportOption{oci.WithDialer(a.dialer(host, f.hosts, f.plainHTTP))}
	more, err := certificates(cmd, f.caFile, f.clientCert, f.clientKey)
	if err != nil {
		return nil, err
	}
	c := oci.NewClient(oci.Options{
		Side: side, Keychain: keychain, PlainHTTP: f.plainHTTP,
		PrivateTokenServers: true, // the dialer decides
		// No proxy: nothing here goes beyond the site.
		Transport: a.discreet(oci.HostCertificates(oci.NewTransport(nil, append(options, more...)...), a.certificateDirs())),
		UserAgent: a.userAgent(), Budget: a.env.Budget, Waiting: a.tellWait, Away: a.tellAway,
	})
	// A bundle in the same registry is read with the same credentials.
	a.reading.clients[host] = c
	return c, nil
}

// quiet is for how long it is not said again that a registry wants to be left alone, unless that is
// for longer.
const quiet = 30 * time.Second

// tellWait says that a registry wants to be left alone for a while.
func (a *app) tellWait(host string, d time.Duration) {
	now := a.env.Now()
	a.waits.mu.Lock()
	until, told := a.waits.until[host]
	if told && now.Add(d).Before(until) {
		a.waits.mu.Unlock()
		return
	}
	if a.waits.until == nil {
		a.waits.until = map[string]time.Time{}
	}
	a.waits.until[host] = now.Add(max(d, quiet))
	a.waits.mu.Unlock()
	fmt.Fprintf(a.env.Stderr, "%s asks to wait: going on in %s\n", printable(host), d.Round(time.Second))
}

// tellAway says that a registry that was there before is gone, and is waited for.
func (a *app) tellAway(host string, err error) {
	fmt.Fprintf(a.env.Stderr, "%s cannot be reached any more, and is waited for: %s\n", printable(host), printable(a.hide(err.Error())))
}

// waits are until when hosts are not told of again.
type waits struct {
	mu    sync.Mutex
	until map[string]time.Time
}

// maxCertificateBytes bounds files of certificates and keys.
const maxCertificateBytes = 4 << 20

// certificates reads those that flags name.
func certificates(cmd *cobra.Command, ca, cert, key string) ([]oci.TransportOption, error) {
	usage := func(err error) error { return &usageError{err, cmd.CommandPath()} }
	var options []oci.TransportOption
	if ca != "" {
		pem, err := readBounded("--ca-file", ca, maxCertificateBytes)
		if err != nil {
			return nil, err
		}
		roots, err := oci.WithRootCAs(pem)
		if err != nil {
			return nil, usage(fmt.Errorf("--ca-file %q: %w", ca, err))
		}
		options = append(options, roots)
	}
	if (cert == "") != (key == "") {
		return nil, usage(errors.New("--client-cert and --client-key go together"))
	}
	if cert != "" {
		c, err := readBounded("--client-cert", cert, maxCertificateBytes)
		if err != nil {
			return nil, err
		}
		k, err := readBounded("--client-key", key, maxCertificateBytes)
		if err != nil {
			return nil, err
		}
		pair, err := oci.WithClientCertificate(c, k)
		if err != nil {
			return nil, usage(fmt.Errorf("--client-cert %q with --client-key %q: %w", cert, key, err))
		}
		options = append(options, pair)
	}
	return options, nil
}

// certificateDirs are where docker and podman look for the certificates of registries, the user's
// own first.
func (a *app) certificateDirs() []string {
	var dirs []string
	if home := a.env.getenv("HOME"); filepath.IsAbs(home) {
		dirs = append(dirs, filepath.Join(home, ".config", "containers", "certs.d"))
	}
	return append(dirs, "/etc/containers/certs.d", "/etc/docker/certs.d")
}

// registryPassword holds the password of --username: no flag does, since others see command lines.
const registryPassword = "SEALIFT_PASSWORD"

// maxPasswordBytes bounds a password; tokens of clouds have some thousand bytes.
const maxPasswordBytes = 64 << 10

// keychain finds the credentials: those of the flags are for the registry at host and nobody else.
func (f *accessFlags) keychain(a *app, cmd *cobra.Command, host string) (authn.Keychain, error) {
	stored := a.keychain()
	usage := func(text string) error { return &usageError{errors.New(text), cmd.CommandPath()} }
	if f.username == "" {
		if f.passwordStdin || f.passwordFile != "" {
			return nil, usage("a password is given, but no --username")
		}
		return stored, nil
	}
	password := a.env.getenv(registryPassword)
	switch {
	case f.passwordStdin && f.passwordFile != "":
		return nil, usage("--password-stdin and --password-file exclude each other")
	case f.passwordStdin:
		if slices.Contains(cmd.Flags().Args(), standardInput) {
			return nil, usage("standard input cannot give both the password and the bundle: use --password-file")
		}
		raw, err := io.ReadAll(io.LimitReader(newInterruptible(cmd.Context(), a.env.Stdin), maxPasswordBytes))
		if err != nil {
			return nil, interrupted(cmd.Context(), fmt.Errorf("reading the password: %w", err))
		}
		password = string(raw)
	case f.passwordFile != "":
		raw, err := readBounded("--password-file", f.passwordFile, maxPasswordBytes)
		if err != nil {
			return nil, err
		}
		password = string(raw)
	}
	password = strings.TrimSuffix(strings.TrimSuffix(password, "\n"), "\r")
	if password == "" {
		return nil, usage("--username needs a password: --password-stdin, --password-file or " + registryPassword)
	}
	a.secrets.add(password)
	return &namedUser{host, authn.AuthConfig{Username: f.username, Password: password}, stored}, nil
}

// namedUser has credentials for one registry, and what is stored for others.
type namedUser struct {
	host   string
	config authn.AuthConfig
	stored authn.Keychain
}

// Resolve implements authn.Keychain.
func (k *namedUser) Resolve(target authn.Resource) (authn.Authenticator, error) {
	if target.RegistryStr() == k.host {
		return authn.FromConfig(k.config), nil
	}
	return k.stored.Resolve(target)
}

// keychain finds what docker and podman have stored; what it finds is hidden in all that is printed.
func (a *app) keychain() authn.Keychain { return &discreetKeychain{a, oci.Keychain(a.noExec)} }

type discreetKeychain struct {
	app  *app
	next authn.Keychain
}

// Resolve implements authn.Keychain.
func (k *discreetKeychain) Resolve(target authn.Resource) (authn.Authenticator, error) {
	return k.ResolveContext(context.Background(), target)
}

// ResolveContext implements authn.ContextKeychain.
func (k *discreetKeychain) ResolveContext(ctx context.Context, target authn.Resource) (authn.Authenticator, error) {
	found, err := authn.Resolve(ctx, k.next, target)
	if err != nil || found == authn.Anonymous {
		return found, err
	}
	c, err := authn.Authorization(ctx, found)
	if err != nil {
		return nil, err
	}
	k.app.secrets.add(c.Password, c.Auth, c.IdentityToken, c.RegistryToken)
	return found, nil
}

// discreet is next; what goes out as credentials is hidden in all that is printed. Registries and
// proxies repeat in their answers what they were sent.
func (a *app) discreet(next http.RoundTripper) http.RoundTripper { return &discreetTransport{a, next} }

type discreetTransport struct {
	app  *app
	next http.RoundTripper
}

func (t *discreetTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if _, credentials, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok {
		_, password, _ := r.BasicAuth()
		t.app.secrets.addSent(credentials, password)
	}
	t.form(r)
	return t.next.RoundTrip(r)
}

// maxForm bounds what is read of a form, in bytes. Ours have one token in them.
const maxForm = 256 << 10

// form finds the credentials in a request for a token that is a form (RFC 6749, sections 4.3.2 and
// 6). A token server may have given us the token in it, which no keychain knows.
func (t *discreetTransport) form(r *http.Request) {
	if r.Method != http.MethodPost || r.GetBody == nil || r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" {
		return
	}
	body, err := r.GetBody()
	if err != nil {
		return // what cannot be read is not sent either
	}
	raw, err := io.ReadAll(io.LimitReader(body, maxForm))
	if err = errors.Join(err, body.Close()); err != nil {
		return
	}
	for field := range strings.SplitSeq(string(raw), "&") {
		name, escaped, _ := strings.Cut(field, "=")
		if name != "refresh_token" && name != "password" {
			continue
		}
		if secret, err := url.QueryUnescape(escaped); err == nil {
			t.app.secrets.addSent(secret)
		}
	}
}

// maxTokens bounds how many of the credentials that went out are looked for, the newest: tokens come
// anew every few minutes, for each repository.
const maxTokens = 256

// secrets are what is never printed.
type secrets struct {
	mu sync.Mutex
	// named were given by the user, sent went out to registries.
	named, sent []string
}

// add has texts hidden for good.
func (s *secrets) add(texts ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, text := range texts {
		if text != "" && !slices.Contains(s.named, text) { // each repository has its credentials looked up
			s.named = append(s.named, text)
		}
	}
}

// addSent has texts hidden until there are many newer ones.
func (s *secrets) addSent(texts ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, text := range texts {
		if text == "" || slices.Contains(s.sent, text) {
			continue
		}
		if len(s.sent) == maxTokens {
			s.sent = slices.Delete(s.sent, 0, 1)
		}
		s.sent = append(s.sent, text)
	}
}

func (s *secrets) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Concat(s.named, s.sent)
}
