package oci_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/registry"
	"github.com/sealift/sealift/manifest"
)

func TestReferences(t *testing.T) {
	const d = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
	for text, want := range map[string]string{
		"nginx":                              "docker.io/library/nginx:latest",
		"nginx:1.27":                         "docker.io/library/nginx:1.27",
		"grafana/grafana":                    "docker.io/grafana/grafana:latest",
		"index.docker.io/library/nginx:1":    "docker.io/library/nginx:1",
		"quay.io/a/b:1":                      "quay.io/a/b:1",
		"localhost/a:1":                      "localhost/a:1",
		"127.0.0.1:5000/a:1":                 "127.0.0.1:5000/a:1",
		"registry.example.com/a/b:1@" + d:    "registry.example.com/a/b:1@" + d,
		"registry.example.com/a/b@" + d:      "registry.example.com/a/b@" + d,
		"registry.example.com:443/A/b:1":     "",
		"registry.example.com/a:b:c":         "",
		"":                                   "",
		"nginx :1":                           "",
		"registry.example.com/a@sha512:00":   "",
		"https://registry.example.com/a/b:1": "",
	} {
		r, err := oci.Normalize(text)
		var refErr *oci.ReferenceError
		switch {
		case want == "" && !errors.As(err, &refErr):
			t.Errorf("Normalize(%q) = %q, %v; want a *ReferenceError", text, r, err)
		case want != "" && (err != nil || r.String() != want):
			t.Errorf("Normalize(%q) = %q, %v; want %q", text, r, err, want)
		}
	}
	_, err := oci.ParseReference("nginx:1.27")
	var refErr *oci.ReferenceError
	if !errors.As(err, &refErr) || refErr.Proposal != "docker.io/library/nginx:1.27" {
		t.Errorf("ParseReference: %v", err)
	}
	if _, err := oci.ParseReference("docker.io/library/nginx:1.27"); err != nil {
		t.Error(err)
	}
}

// FuzzParseMirror: what is accepted can be asked for, and is still accepted when it is written out.
func FuzzParseMirror(f *testing.F) {
	f.Add("docker.io=mirror.example:5000/a/b")
	f.Add("index.docker.io=localhost:1/")
	f.Add("a.b=0.0//0")
	f.Add(".=.")
	f.Fuzz(func(t *testing.T, text string) {
		host, mirror, err := oci.ParseMirror(text)
		if err != nil {
			return
		}
		if h, m, err := oci.ParseMirror(host + "=" + mirror); err != nil || h != host || m != mirror {
			t.Fatalf("%q became %q %q, read again %q %q, %v", text, host, mirror, h, m, err)
		}
		if _, err := oci.ParseReference(mirror + "/x:1"); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
	})
}

// FuzzNormalize: what is accepted keeps its meaning when it is written out and read again.
func FuzzNormalize(f *testing.F) {
	f.Add("nginx")
	f.Add("registry.example.com:5000/a/b:1@sha256:1111111111111111111111111111111111111111111111111111111111111111")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := oci.Normalize(text)
		if err != nil {
			return
		}
		again, err := oci.ParseReference(r.String())
		if err != nil || again != r {
			t.Fatalf("%q became %q, read again %q, %v", text, r, again, err)
		}
	})
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		have, want string
		match      bool
	}{
		{"linux/amd64", "linux/amd64", true},
		{"linux/amd64/v2", "linux/amd64", true},
		{"linux/amd64", "linux/amd64/v2", false},
		{"linux/arm64", "linux/arm64/v8", true},
		{"linux/arm64/v8", "linux/arm64", true},
		{"linux/arm/v7", "linux/arm", true},
		{"linux/arm/v6", "linux/arm/v7", false},
		{"linux/arm64", "linux/arm", false},
		{"windows/amd64", "linux/amd64", false},
	} {
		if oci.Matches(c.have, c.want) != c.match {
			t.Errorf("Matches(%q, %q) = %t", c.have, c.want, !c.match)
		}
	}
}

const (
	d1 = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
	d2 = "sha256:2222222222222222222222222222222222222222222222222222222222222222"
	d3 = "sha256:3333333333333333333333333333333333333333333333333333333333333333"
)

// index has two platforms, each named twice for two variants, and an attestation for one.
var index = []byte(`{
 "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
 "annotations": {"a": "<&>"},
 "manifests": [
  {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "` + d1 + `", "size": 10, "platform": {"os": "linux", "architecture": "amd64"}},
  {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "` + d1 + `", "size": 10, "platform": {"os": "linux", "architecture": "amd64", "variant": "v2"}},
  {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "` + d2 + `", "size": 10, "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}},
  {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "` + d3 + `", "size": 10, "platform": {"os": "unknown", "architecture": "unknown"},
   "annotations": {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": "` + d1 + `"}}
 ], "newmember": {"kept": true}}`)

func TestSelectAndDerive(t *testing.T) {
	children, err := oci.ParseIndex(index)
	if err != nil {
		t.Fatal(err)
	}
	some, platforms, err := oci.Select("x", children, []string{"linux/amd64"})
	if err != nil {
		t.Fatal(err)
	}
	if len(some) != 2 || some[0].Digest != d1 || some[1].Digest != d3 {
		t.Fatalf("selected %v; the image and the attestation about it are wanted", some)
	}
	if strings.Join(platforms, " ") != "linux/amd64 linux/amd64/v2" {
		t.Fatalf("platforms %v", platforms)
	}
	var missing *oci.MissingPlatformError
	if _, _, err := oci.Select("x", children, []string{"linux/amd64", "linux/s390x"}); !errors.As(err, &missing) || missing.Want != "linux/s390x" || len(missing.Have) != 3 {
		t.Fatalf("%v", err)
	}
	all, platforms, err := oci.Select("x", children, []string{oci.AllPlatforms})
	if err != nil || len(all) != 3 || all[0].Digest != d1 || all[1].Digest != d2 || all[2].Digest != d3 || len(platforms) != 3 {
		t.Fatalf("selected %v for all platforms %v, %v", all, platforms, err)
	}
	if _, _, err := oci.Select("x", children[3:], []string{oci.AllPlatforms}); !errors.As(err, &missing) || len(missing.Have) != 0 {
		t.Fatalf("of an index without platforms: %v", err)
	}
	derived, err := oci.DeriveIndex(index, func(d string) bool { return d == d2 })
	if err != nil {
		t.Fatal(err)
	}
	left, err := oci.ParseIndex(derived.Raw)
	if err != nil || len(left) != 1 || left[0].Digest != d2 {
		t.Fatalf("derived %v, %v", left, err)
	}
	var doc struct {
		Annotations map[string]string
		Newmember   map[string]bool
	}
	if err := json.Unmarshal(derived.Raw, &doc); err != nil || doc.Annotations["a"] != "<&>" || !doc.Newmember["kept"] {
		t.Fatalf("what the index says beside its children was lost: %s", derived.Raw)
	}
	if derived.Digest != manifest.Digest(derived.Raw) || derived.MediaType != "application/vnd.oci.image.index.v1+json" {
		t.Fatalf("descriptor %+v", derived.Descriptor)
	}
}

func TestArtifactType(t *testing.T) {
	for raw, want := range map[string]string{
		`{"artifactType":"a/b","config":{"mediaType":"c/d"}}`: "a/b",
		`{"config":{"mediaType":"c/d"}}`:                      "c/d",
		`{"manifests":[]}`:                                    "",
		`[]`:                                                  "",
	} {
		if got := oci.ArtifactType([]byte(raw)); got != want {
			t.Errorf("%s is a %q, want %q", raw, got, want)
		}
	}
}

// FuzzParse feeds foreign bytes to what reads manifests from registries.
func FuzzParse(f *testing.F) {
	f.Add(index)
	f.Add([]byte(`{"schemaVersion":2,"config":{"digest":"` + d1 + `","size":1},"layers":[{"digest":"` + d2 + `","size":-1}]}`))
	f.Fuzz(func(_ *testing.T, b []byte) {
		if children, err := oci.ParseIndex(b); err == nil {
			_, _, _ = oci.Select("x", children, []string{"linux/amd64"})
			_, _ = oci.DeriveIndex(b, func(string) bool { return true })
		}
		_, _ = oci.ParseImage(b)
		_, _ = oci.ConfigPlatform(b)
	})
}

// server is a real registry behind a hook that may answer instead of it.
func server(t *testing.T, hook func(http.ResponseWriter, *http.Request) bool) string {
	t.Helper()
	s, err := registry.New(context.Background(), registry.Options{Store: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if hook == nil || !hook(w, r) {
			s.Handler().ServeHTTP(w, r)
		}
	}))
	t.Cleanup(h.Close)
	return strings.TrimPrefix(h.URL, "http://")
}

func client(o oci.Options) *oci.Client {
	o.Side, o.Transport = "test registry", oci.NewTransport(nil)
	return oci.NewClient(o)
}

func push(t *testing.T, ref string) manifest.Descriptor {
	t.Helper()
	img, err := random.Image(50000, 1)
	if err != nil {
		t.Fatal(err)
	}
	r, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(r, img); err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	size, err := layers[0].Size()
	if err != nil {
		t.Fatal(err)
	}
	return manifest.Descriptor{Digest: digest.String(), Size: size, MediaType: "application/octet-stream"}
}

func TestManifestIsProven(t *testing.T) {
	ctx := context.Background()
	var lie atomic.Bool
	host := server(t, func(w http.ResponseWriter, r *http.Request) bool {
		if !lie.Load() || !strings.Contains(r.URL.Path, "/manifests/") {
			return false
		}
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		w.Header().Set("Docker-Content-Digest", d1)
		_, _ = io.WriteString(w, `{"schemaVersion":2}`)
		return true
	})
	push(t, host+"/a/b:1")
	repo, err := client(oci.Options{}).Repository(ctx, host, "a/b", false)
	if err != nil {
		t.Fatal(err)
	}
	c, err := repo.Manifest(ctx, "1")
	if err != nil || c.Digest != manifest.Digest(c.Raw) {
		t.Fatal(err)
	}
	lie.Store(true)
	var wrong *oci.DigestError
	if _, err := repo.Manifest(ctx, c.Digest); !errors.As(err, &wrong) || wrong.Want != c.Digest {
		t.Fatalf("%v, want *DigestError", err)
	}
}

func TestGiantManifestIsRefused(t *testing.T) {
	ctx := context.Background()
	host := server(t, func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/manifests/") {
			return false
		}
		_, _ = io.Copy(w, io.LimitReader(neverEnding('x'), 1<<30))
		return true
	})
	repo, err := client(oci.Options{}).Repository(ctx, host, "a/b", false)
	if err != nil {
		t.Fatal(err)
	}
	var large *oci.TooLargeError
	if _, err := repo.Manifest(ctx, "1"); !errors.As(err, &large) {
		t.Fatal(err)
	}
}

type neverEnding byte

func (b neverEnding) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(b)
	}
	return len(p), nil
}

func TestUploadIsTriedAgainFromTheStart(t *testing.T) {
	ctx := context.Background()
	var faults atomic.Int32
	host := server(t, func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut && faults.Add(-1) >= 0 {
			_, _ = io.CopyN(io.Discard, r.Body, 1000)
			panic(http.ErrAbortHandler)
		}
		return false
	})
	repo, err := client(oci.Options{}).Repository(ctx, host, "a/b", true)
	if err != nil {
		t.Fatal(err)
	}
	content := bytes.Repeat([]byte("0123456789"), 100000)
	d := manifest.Descriptor{Digest: manifest.Digest(content), Size: int64(len(content))}
	faults.Store(2)
	open := oci.FromBytes(content)
	if _, err := repo.PutBlob(ctx, d, "", open, func(int64) {}); err != nil {
		t.Fatal(err)
	}
	if ok, err := repo.HasBlob(ctx, d.Digest); !ok || err != nil {
		t.Fatalf("%t, %v", ok, err)
	}
	// From there it is mounted, not sent.
	other, err := client(oci.Options{}).Repository(ctx, host, "c/d", true)
	if err != nil {
		t.Fatal(err)
	}
	mounted, err := other.PutBlob(ctx, d, "a/b", func(at int64) (io.ReadCloser, error) { t.Error("sent"); return open(at) }, func(int64) {})
	if err != nil || !mounted {
		t.Fatalf("%t, %v", mounted, err)
	}
	// A source that cannot be read is told at once, as what it is.
	opened := 0
	mine := errors.New("the medium is gone")
	_, err = repo.PutBlob(ctx, manifest.Descriptor{Digest: d1, Size: 10}, "", func(int64) (io.ReadCloser, error) { opened++; return nil, mine }, func(int64) {})
	if !errors.Is(err, mine) || opened != 1 {
		t.Fatalf("opened %d times, %v", opened, err)
	}
}

func TestNoPlainHTTPUnlessAsked(t *testing.T) {
	ctx := context.Background()
	c := oci.NewClient(oci.Options{Side: "test registry", Transport: httpsFails{}})
	if _, err := c.Repository(ctx, "10.1.2.3:5000", "a/b", false); err == nil {
		t.Fatal("a private address was spoken to without TLS")
	}
}

// httpsFails answers plain HTTP like a registry without authentication, and nothing else.
type httpsFails struct{}

func (httpsFails) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme == "https" {
		return nil, errors.New("no TLS here")
	}
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: r, Header: http.Header{}}, nil
}

// TestCredentials: they are sent where they belong, and never appear in errors.
func TestCredentials(t *testing.T) {
	ctx := context.Background()
	host := server(t, func(w http.ResponseWriter, r *http.Request) bool {
		if user, password, ok := r.BasicAuth(); ok && user == "jane" && password == "s3cret-pass" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	login := func(password string) *oci.Client {
		return client(oci.Options{Keychain: keychain{host, password}})
	}
	repo, err := login("s3cret-pass").Repository(ctx, host, "a/b", true)
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := repo.HasBlob(ctx, d1); ok || err != nil {
		t.Fatalf("%t, %v", ok, err)
	}
	repo, err = login("wr0ng-pass").Repository(ctx, host, "a/b", true)
	if err == nil {
		_, err = repo.Manifest(ctx, "1")
	}
	if !oci.IsDenied(err) || strings.Contains(err.Error(), "pass") {
		t.Fatalf("%v", err)
	}
}

type keychain struct{ host, password string }

func (k keychain) Resolve(r authn.Resource) (authn.Authenticator, error) {
	if r.RegistryStr() != k.host {
		return authn.Anonymous, nil
	}
	return &authn.Basic{Username: "jane", Password: k.password}, nil
}
