package oci

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// maxAuthConfig bounds a file of credentials, in bytes. Real ones have some kilobytes.
const maxAuthConfig = 4 << 20

// HelperError says that the credentials of a registry are kept by a program, which may
// not be run.
type HelperError struct {
	Registry string // or "registry/repository", where that is what the file names
	Helper   string // the program, "docker-credential-pass"
	File     string // what names it
}

// Error names the registry, the program, and the file.
func (e *HelperError) Error() string {
	return fmt.Sprintf("the credentials of %q are kept by the program %q, as %q says, and no program may be run", e.Registry, e.Helper, e.File)
}

// HelperFailedError says that the program which keeps the credentials of a registry has not given
// them. What it wrote is not told: it may be the credentials.
type HelperFailedError struct {
	Registry string // or "registry/repository", where that is what the file names
	Helper   string // the program, "docker-credential-pass"
	File     string // what names it
}

// Error names the registry, the program, and the file.
func (e *HelperFailedError) Error() string {
	return fmt.Sprintf("the program %q, which keeps the credentials of %q as %q says, failed", e.Helper, e.Registry, e.File)
}

// AuthFileError says that credentials cannot be read.
type AuthFileError struct {
	File string // a path, or the name of an environment variable
	Err  error
}

// Error names the file.
func (e *AuthFileError) Error() string {
	return fmt.Sprintf("reading registry credentials from %q: %v", e.File, e.Err)
}

// Unwrap returns the cause.
func (e *AuthFileError) Unwrap() error { return e.Err }

// Keychain finds the credentials of registries where Docker and Podman keep them:
// $DOCKER_AUTH_CONFIG; config.json in $DOCKER_CONFIG or ~/.docker; else
// $REGISTRY_AUTH_FILE; else containers/auth.json in $XDG_RUNTIME_DIR, $XDG_CONFIG_HOME or
// ~/.config. It is [authn.DefaultKeychain], which runs the credential helpers that these
// files name. One that fails is a *[HelperFailedError].
//
// With noExec nothing can be run: the same places are read here, by code that knows no
// programs, and a registry whose credentials a helper keeps is a *[HelperError], even if
// it would let in anybody. What is in $DOCKER_AUTH_CONFIG needs no helper. A file that
// cannot be read is an *[AuthFileError].
func Keychain(noExec bool) authn.Keychain {
	if !noExec {
		return runningKeychain{}
	}
	return inlineKeychain{}
}

// runningKeychain is that of the library, but for the words of its errors: they quote all that a
// helper wrote, and parts of files.
type runningKeychain struct{}

// Resolve implements authn.Keychain.
func (k runningKeychain) Resolve(target authn.Resource) (authn.Authenticator, error) {
	return k.ResolveContext(context.Background(), target)
}

// ResolveContext implements authn.ContextKeychain.
func (runningKeychain) ResolveContext(ctx context.Context, target authn.Resource) (authn.Authenticator, error) {
	found, err := authn.Resolve(ctx, authn.DefaultKeychain, target)
	if err == nil {
		return found, nil
	}
	// Who is to blame is known from the same files.
	_, err = inlineKeychain{}.Resolve(target)
	var helper *HelperError
	switch {
	case errors.As(err, &helper):
		return nil, &HelperFailedError{helper.Registry, helper.Helper, helper.File}
	case err != nil:
		return nil, err
	}
	return nil, &AuthFileError{authFilePath(), errors.New("docker's library cannot make anything of it")}
}

// inlineKeychain finds the credentials that are written down.
type inlineKeychain struct{}

// authFile is what counts of Docker's config.json and Podman's auth.json.
type authFile struct {
	Auths       map[string]authEntry `json:"auths"`
	CredsStore  string               `json:"credsStore"`
	CredHelpers map[string]string    `json:"credHelpers"`
}

type authEntry struct {
	Username      string `json:"username"`
	Password      string `json:"password"`
	Auth          string `json:"auth"` // base64 of username:password; the two above then do not count
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

// Resolve implements authn.Keychain.
func (inlineKeychain) Resolve(target authn.Resource) (authn.Authenticator, error) {
	path := authFilePath()
	if path == "" {
		return authn.Anonymous, nil
	}
	file, err := readAuthFile(path)
	if err != nil {
		return nil, err
	}
	env, err := readAuthVariable()
	if err != nil {
		return nil, err
	}
	registry := authKey(target.RegistryStr())
	// An entry for the repository goes before one for its registry.
	keys := []string{authKey(target.String()), registry}
	for _, key := range keys {
		if e, ok := env.Auths[key]; ok {
			return e.authenticator(), nil
		}
	}
	for _, key := range keys {
		helper, named := file.CredHelpers[key]
		if opted, ok := file.CredHelpers[registry]; !named && (!ok || opted != "") {
			helper = file.CredsStore // an empty helper of the registry keeps it out
		}
		if helper != "" {
			return nil, &HelperError{Registry: target.RegistryStr(), Helper: "docker-credential-" + helper, File: path}
		}
		if e := file.find(key); e != (authEntry{}) {
			return e.authenticator(), nil
		}
	}
	return authn.Anonymous, nil
}

// authKey is the name that a registry has in the files: its own, but for Docker Hub.
func authKey(s string) string {
	if s == name.DefaultRegistry || s == "docker.io" {
		return authn.DefaultAuthKey
	}
	return s
}

// find returns the entry of a key. Old files have addresses for keys; of several the first
// by name is taken.
func (f authFile) find(key string) authEntry {
	if e, ok := f.Auths[key]; ok {
		return e
	}
	var hits []string
	for k := range f.Auths {
		if hostOf(k) == key {
			hits = append(hits, k)
		}
	}
	if len(hits) == 0 {
		return authEntry{}
	}
	return f.Auths[slices.Min(hits)]
}

// hostOf is the host, with its port, of what may be an address.
func hostOf(s string) string {
	if strings.Contains(s, "://") {
		if u, err := url.Parse(s); err == nil && u.Hostname() != "" {
			if u.Port() == "" {
				return u.Hostname()
			}
			return net.JoinHostPort(u.Hostname(), u.Port())
		}
		_, s, _ = strings.Cut(s, "://")
	}
	host, _, _ := strings.Cut(s, "/")
	return host
}

func (e authEntry) authenticator() authn.Authenticator {
	return authn.FromConfig(authn.AuthConfig{
		Username: e.Username, Password: e.Password,
		IdentityToken: e.IdentityToken, RegistryToken: e.RegistryToken,
	})
}

// authFilePath is the file that counts, where authn.DefaultKeychain looks and in its
// order; "" if there is none.
func authFilePath() string {
	home, err := os.UserHomeDir()
	if err != nil {
		home = ""
	}
	inHome := func(path ...string) string {
		if home == "" {
			return ""
		}
		return filepath.Join(append([]string{home}, path...)...)
	}
	docker := inHome(".docker", "config.json")
	found := isFile(docker)
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		// It stands for the directory in the home even where nothing is in it.
		docker = filepath.Join(dir, "config.json")
		found = found || isFile(docker)
	}
	if found {
		return docker
	}
	config := os.Getenv("XDG_CONFIG_HOME")
	if config == "" {
		config = inHome(".config")
	}
	podman := []string{os.Getenv("REGISTRY_AUTH_FILE")}
	for _, dir := range []string{os.Getenv("XDG_RUNTIME_DIR"), config} {
		if dir != "" {
			podman = append(podman, filepath.Join(dir, "containers", "auth.json"))
		}
	}
	if i := slices.IndexFunc(podman, isFile); i >= 0 {
		return podman[i]
	}
	return ""
}

func isFile(path string) bool {
	if path == "" {
		return false
	}
	info, err := os.Stat(path)
	return err == nil && !info.IsDir()
}

// readAuthFile reads a file of credentials; one that is not there is empty.
func readAuthFile(path string) (authFile, error) {
	raw, err := readBounded(path)
	if errors.Is(err, fs.ErrNotExist) {
		return authFile{}, nil
	}
	if err != nil {
		return authFile{}, &AuthFileError{path, err}
	}
	f, err := parseAuthFile(raw)
	if err != nil {
		return authFile{}, &AuthFileError{path, err}
	}
	return f, nil
}

// readAuthVariable reads what Docker takes from the environment. Other than Docker it
// does not pass over a variable that it cannot read.
func readAuthVariable() (authFile, error) {
	const variable = "DOCKER_AUTH_CONFIG"
	f, err := parseAuthFile([]byte(os.Getenv(variable)))
	if err != nil {
		return authFile{}, &AuthFileError{variable, err}
	}
	for key, e := range f.Auths {
		if e.Username == "" {
			return authFile{}, &AuthFileError{variable, fmt.Errorf("there is no field auth of %q", key)}
		}
	}
	return f, nil
}

func readBounded(path string) (raw []byte, err error) {
	f, err := os.Open(filepath.Clean(path))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	raw, err = io.ReadAll(io.LimitReader(f, maxAuthConfig+1))
	if err == nil && len(raw) > maxAuthConfig {
		err = &TooLargeError{maxAuthConfig}
	}
	return raw, err
}

// parseAuthFile reads the JSON and the encoded credentials in it. An empty file is one.
// Errors never hold a part of the text: it is secret.
func parseAuthFile(raw []byte) (authFile, error) {
	var f authFile
	if len(strings.TrimSpace(string(raw))) == 0 {
		return f, nil
	}
	if err := json.Unmarshal(raw, &f); err != nil {
		return authFile{}, fmt.Errorf("it is not JSON of the form that docker and podman write: %w", hideText(err))
	}
	for key, e := range f.Auths {
		if e.Auth == "" {
			continue
		}
		pair, err := base64.StdEncoding.DecodeString(e.Auth)
		if err != nil {
			return authFile{}, fmt.Errorf("the field auth of %q is not base64", key)
		}
		user, password, ok := strings.Cut(string(pair), ":")
		if !ok || user == "" {
			return authFile{}, fmt.Errorf("the field auth of %q is not a user and a password", key)
		}
		e.Auth, e.Username, e.Password = "", user, strings.Trim(password, "\x00")
		f.Auths[key] = e
	}
	return f, nil
}

// hideText keeps of an error of the JSON library only where it is: its words quote text.
func hideText(err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Errorf("at byte %d", syntax.Offset)
	case errors.As(err, &kind):
		return fmt.Errorf("a wrong type at byte %d", kind.Offset)
	}
	return errors.New("unreadable")
}
