package oci_test

import (
	"context"
	"encoding/base64"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/manifest"
)

// authHome gives the test a home and a search path of its own, in which the helper
// docker-credential-spy leaves a file when it is run.
func authHome(t *testing.T, files map[string]string, env map[string]string) (home string, ran func() bool) {
	t.Helper()
	home = t.TempDir()
	for _, v := range []string{"DOCKER_CONFIG", "DOCKER_AUTH_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"} {
		t.Setenv(v, "")
	}
	t.Setenv("HOME", home)
	for k, v := range env {
		t.Setenv(k, strings.ReplaceAll(v, "~", home))
	}
	mark := filepath.Join(home, "ran")
	helper := "#!/bin/sh\n: > '" + mark + "'\necho '{\"ServerURL\":\"x\",\"Username\":\"spy\",\"Secret\":\"s\"}'\n"
	bin := filepath.Join(home, "bin")
	if err := errors.Join(os.Mkdir(bin, 0o755), os.WriteFile(filepath.Join(bin, "docker-credential-spy"), []byte(helper), 0o755)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin)
	for path, content := range files {
		path = filepath.Join(home, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return home, func() bool {
		_, err := os.Stat(mark)
		return err == nil
	}
}

func auth(user, password string) string {
	return `{"auth":"` + base64.StdEncoding.EncodeToString([]byte(user+":"+password)) + `"}`
}

func auths(pairs ...string) string {
	var entries []string
	for i := 0; i < len(pairs); i += 2 {
		entries = append(entries, `"`+pairs[i]+`":`+pairs[i+1])
	}
	return `{"auths":{` + strings.Join(entries, ",") + `}}`
}

func resolve(t *testing.T, k authn.Keychain, image string) (authn.AuthConfig, error) {
	t.Helper()
	repo, err := name.NewRepository(image)
	if err != nil {
		t.Fatal(err)
	}
	a, err := authn.Resolve(t.Context(), k, repo)
	if err != nil {
		return authn.AuthConfig{}, err
	}
	c, err := authn.Authorization(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	return *c, nil
}

// Where no helper is named, both keychains find the same.
func TestKeychainFindsWhatIsWrittenDown(t *testing.T) {
	const image = "registry.example:5000/team/app"
	reg, other := auth("u", "p"), auth("other", "o")
	docker := map[string]string{"DOCKER_CONFIG": "~/docker"}
	tests := []struct {
		name  string
		image string
		files map[string]string
		env   map[string]string
		user  string
	}{
		{"nothing", image, nil, nil, ""},
		{"docker", image, map[string]string{"docker/config.json": auths("registry.example:5000", reg)}, docker, "u"},
		{"another port", image, map[string]string{"docker/config.json": auths("registry.example", reg)}, docker, ""},
		{"the repository goes first", image, map[string]string{"docker/config.json": auths("registry.example:5000", other, image, reg)}, docker, "u"},
		{"an address", image, map[string]string{"docker/config.json": auths("https://registry.example:5000/v2/", reg)}, docker, "u"},
		{"docker hub", "alpine", map[string]string{"docker/config.json": auths("https://index.docker.io/v1/", reg)}, docker, "u"},
		{"user and password", image, map[string]string{"docker/config.json": auths("registry.example:5000", `{"username":"u","password":"p"}`)}, docker, "u"},
		{"identity token", image, map[string]string{"docker/config.json": auths("registry.example:5000", `{"identitytoken":"t"}`)}, docker, "<token>"},
		{"registry token", image, map[string]string{"docker/config.json": auths("registry.example:5000", `{"registrytoken":"t"}`)}, docker, "<bearer>"},
		{"empty file", image, map[string]string{"docker/config.json": ""}, docker, ""},
		{"docker goes before podman", image, map[string]string{"docker/config.json": "{}", "auth.json": auths("registry.example:5000", reg)}, map[string]string{"DOCKER_CONFIG": "~/docker", "REGISTRY_AUTH_FILE": "~/auth.json"}, ""},
		{"the named directory goes before the home", image, map[string]string{".docker/config.json": auths("registry.example:5000", reg)}, docker, ""},
		{"file of podman", image, map[string]string{"auth.json": auths("registry.example:5000", reg)}, map[string]string{"REGISTRY_AUTH_FILE": "~/auth.json"}, "u"},
		{"podman, runtime", image, map[string]string{"run/containers/auth.json": auths("registry.example:5000", reg), ".config/containers/auth.json": auths("registry.example:5000", other)}, map[string]string{"XDG_RUNTIME_DIR": "~/run"}, "u"},
		{"podman, configuration", image, map[string]string{"cfg/containers/auth.json": auths("registry.example:5000", reg)}, map[string]string{"XDG_CONFIG_HOME": "~/cfg", "XDG_RUNTIME_DIR": "~/run"}, "u"},
		{"podman, home", image, map[string]string{".config/containers/auth.json": auths("registry.example:5000", reg)}, nil, "u"},
		{"variable", image, map[string]string{"docker/config.json": auths("registry.example:5000", other)}, map[string]string{"DOCKER_CONFIG": "~/docker", "DOCKER_AUTH_CONFIG": auths("registry.example:5000", reg)}, "u"},
		{"helper of another registry", image, map[string]string{"docker/config.json": `{"credHelpers":{"x.example":"spy"},` + auths("registry.example:5000", reg)[1:]}, docker, "u"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, ran := authHome(t, tt.files, tt.env)
			got, err := resolve(t, oci.Keychain(true), tt.image)
			if err != nil {
				t.Fatal(err)
			}
			user := got.Username
			switch {
			case got.RegistryToken != "":
				user = "<bearer>"
			case got.IdentityToken != "":
				user = "<token>"
			}
			if user != tt.user {
				t.Errorf("got %q, want %q", user, tt.user)
			}
			want, err := resolve(t, oci.Keychain(false), tt.image)
			if err != nil || got != want {
				t.Errorf("got %+v, and with programs %+v, %v", got, want, err)
			}
			if ran() {
				t.Error("a program was run")
			}
		})
	}
}

// The file in the home is read by another test: the library looks for it only once.
func TestKeychainOfTheHome(t *testing.T) {
	authHome(t, map[string]string{".docker/config.json": auths("registry.example", auth("u", "p"))}, nil)
	if got, err := resolve(t, oci.Keychain(true), "registry.example/app"); err != nil || got.Username != "u" || got.Password != "p" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestKeychainRunsNothing(t *testing.T) {
	const image = "registry.example/team/app"
	docker := map[string]string{"DOCKER_CONFIG": "~/docker"}
	inline := auths("registry.example", auth("u", "p"))[1:]
	tests := []struct {
		name    string
		content string
		refused bool // else what is written down counts
	}{
		{"for the registry", `{"credHelpers":{"registry.example":"spy"}}`, true},
		{"for the repository", `{"credHelpers":{"registry.example/team/app":"spy"},` + inline, true},
		{"for all", `{"credsStore":"spy"}`, true},
		{"for all, with a stale entry", `{"credsStore":"spy",` + inline, true},
		{"for all, in other case", `{"CREDSSTORE":"spy"}`, true},
		{"for all but this", `{"credsStore":"spy","credHelpers":{"registry.example":""},` + inline, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			home, ran := authHome(t, map[string]string{"docker/config.json": tt.content}, docker)
			got, err := resolve(t, oci.Keychain(true), image)
			if ran() {
				t.Fatal("the program was run")
			}
			var he *oci.HelperError
			if refused := errors.As(err, &he); refused != tt.refused {
				t.Fatalf("got %+v, %v", got, err)
			}
			if !tt.refused {
				if err != nil || got.Username != "u" {
					t.Errorf("got %+v, %v", got, err)
				}
				return
			}
			if he.Registry != "registry.example" || he.Helper != "docker-credential-spy" || he.File != filepath.Join(home, "docker", "config.json") {
				t.Errorf("got %+v", he)
			}
			// The program would be run otherwise.
			if got, err := resolve(t, oci.Keychain(false), image); err != nil || got.Username != "spy" || !ran() {
				t.Errorf("with programs: got %+v, %v", got, err)
			}
		})
	}
	t.Run("podman", func(t *testing.T) {
		_, ran := authHome(t, map[string]string{"auth.json": `{"credHelpers":{"registry.example":"spy"}}`}, map[string]string{"REGISTRY_AUTH_FILE": "~/auth.json"})
		var he *oci.HelperError
		if _, err := resolve(t, oci.Keychain(true), image); !errors.As(err, &he) || ran() {
			t.Errorf("got %v", err)
		}
	})
	t.Run("the variable needs none", func(t *testing.T) {
		_, ran := authHome(t, map[string]string{"docker/config.json": `{"credsStore":"spy"}`},
			map[string]string{"DOCKER_CONFIG": "~/docker", "DOCKER_AUTH_CONFIG": "{" + inline})
		if got, err := resolve(t, oci.Keychain(true), image); err != nil || got.Username != "u" || ran() {
			t.Errorf("got %+v, %v", got, err)
		}
	})
	t.Run("through the client", func(t *testing.T) {
		_, ran := authHome(t, map[string]string{"docker/config.json": `{"credsStore":"spy"}`}, docker)
		var he *oci.HelperError
		var side *oci.Error
		_, err := client(oci.Options{Keychain: oci.Keychain(true)}).Repository(t.Context(), "registry.example", "a/b", true)
		if !errors.As(err, &he) || !errors.As(err, &side) || ran() {
			t.Errorf("got %v", err)
		}
	})
}

// What cannot be read is no reason to go on without credentials, and no error tells them.
func TestKeychainErrors(t *testing.T) {
	for name, content := range map[string]string{
		"no json":     `{"auths": secret`,
		"a list":      `{"auths": ["secret"]}`,
		"a number":    `{"auths": {"a": {"password": 5}}, "x": "secret"}`,
		"two":         `{} {"secret": 1}`,
		"no base64":   `{"auths": {"a": {"auth": "secret!"}}}`,
		"no password": `{"auths": {"a": {"auth": "c2VjcmV0"}}}`,
		"giant":       `{"secret": "` + strings.Repeat("x", 5<<20) + `"}`,
	} {
		authHome(t, map[string]string{"docker/config.json": content}, map[string]string{"DOCKER_CONFIG": "~/docker"})
		var fe *oci.AuthFileError
		if _, err := resolve(t, oci.Keychain(true), "registry.example/a"); !errors.As(err, &fe) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got %v, want *AuthFileError", name, err)
		}
	}
	authHome(t, map[string]string{"docker/config.json": "{}"}, map[string]string{"DOCKER_CONFIG": "~/docker", "DOCKER_AUTH_CONFIG": `{"auths":{"a":{}}}`})
	var fe *oci.AuthFileError
	if _, err := resolve(t, oci.Keychain(true), "registry.example/a"); !errors.As(err, &fe) || fe.File != "DOCKER_AUTH_CONFIG" {
		t.Errorf("got %v", err)
	}
}

func FuzzKeychain(f *testing.F) {
	f.Add([]byte(auths("a", auth("u", "p"))))
	f.Add([]byte(`{"credHelpers":{"a":"b"},"credsStore":"c","auths":{"https://registry.example/":{"identitytoken":"x"}}}`))
	home := f.TempDir()
	path := filepath.Join(home, "config.json")
	f.Setenv("DOCKER_CONFIG", home)
	f.Setenv("DOCKER_AUTH_CONFIG", "")
	f.Setenv("PATH", home)
	repo, err := name.NewRepository("registry.example/a")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		var he *oci.HelperError
		var fe *oci.AuthFileError
		a, err := oci.Keychain(true).Resolve(repo)
		if err != nil && !errors.As(err, &he) && !errors.As(err, &fe) || err == nil && a == nil {
			t.Errorf("got %v, %v", a, err)
		}
	})
}

// only returns a dialer that goes nowhere but to one address, and what it was asked for.
func only(address string) (dial func(context.Context, string, string) (net.Conn, error), asked func() []string) {
	var mu sync.Mutex
	var all []string
	return func(ctx context.Context, network, to string) (net.Conn, error) {
			mu.Lock()
			all = append(all, to)
			mu.Unlock()
			if to != address {
				return nil, &forbiddenError{to}
			}
			return (&net.Dialer{}).DialContext(ctx, network, to)
		}, func() []string {
			mu.Lock()
			defer mu.Unlock()
			return all
		}
}

type forbiddenError struct{ address string }

func (e *forbiddenError) Error() string { return "dialling " + e.address + " is not allowed" }

// With a dialer that knows the registry only, redirects and token servers elsewhere are
// named to it, as they are called, and reached by nobody.
func TestDialerHoldsTheRegistry(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("%s %s arrived elsewhere", r.Method, r.URL)
	}))
	defer elsewhere.Close()
	far := strings.Replace(elsewhere.URL, "127.0.0.1", "far.localhost", 1)
	farHost := strings.TrimPrefix(far, "http://")

	for _, tt := range []struct {
		name string
		hook func(http.ResponseWriter, *http.Request) bool
		do   func(context.Context, *oci.Repository) error
	}{
		{"blob", func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/blobs/") {
				return false
			}
			http.Redirect(w, r, far+"/storage", http.StatusTemporaryRedirect)
			return true
		}, func(ctx context.Context, r *oci.Repository) error {
			_, err := r.ReadBlob(ctx, manifest.Descriptor{Digest: d1, Size: 1}, 10)
			return err
		}},
		{"look-up", func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodHead {
				return false
			}
			http.Redirect(w, r, far+"/storage", http.StatusTemporaryRedirect)
			return true
		}, func(ctx context.Context, r *oci.Repository) error {
			_, err := r.HasBlob(ctx, d1)
			return err
		}},
		{"upload", func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodPost {
				return false
			}
			w.Header().Set("Location", far+"/upload")
			w.WriteHeader(http.StatusAccepted)
			return true
		}, func(ctx context.Context, r *oci.Repository) error {
			_, err := r.PutBlob(ctx, manifest.Descriptor{Digest: d1, Size: 0}, "", nil, func(int64) {})
			return err
		}},
		{"token", func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+far+`/token",service="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			host := server(t, tt.hook)
			dial, asked := only(host)
			// The context ends the tries that follow.
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			c := oci.NewClient(oci.Options{Side: "test registry", Transport: oci.NewTransport(nil, oci.WithDialer(
				func(ctx context.Context, network, address string) (net.Conn, error) {
					if address != host {
						cancel()
					}
					return dial(ctx, network, address)
				}))})
			repo, err := c.Repository(ctx, host, "a/b", true)
			if err == nil && tt.do != nil {
				err = tt.do(ctx, repo)
			}
			if err == nil {
				t.Error("got no error")
			}
			refused := false
			for _, address := range asked() {
				if address == farHost {
					refused = true
				} else if address != host {
					t.Errorf("%s was dialled", address)
				}
			}
			if !refused {
				t.Errorf("got %v; only %q were dialled", err, asked())
			}
		})
	}
}
