package registry_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/oci/ocitest"
	"github.com/sealift/sealift/internal/registry"
	"github.com/sealift/sealift/internal/sigstore"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// shop is a bundle with something of every kind.
type shop struct {
	*maker
	nginx, app, tool *manifest.Image
	layer, plain     []byte
	absent           string
	sboms            []descriptor
	signature        descriptor
	chart            descriptor
}

func newShop(t testing.TB) *shop {
	s := &shop{maker: newMaker(t, "shop")}
	s.layer = noise(3<<20+12345, 1)
	s.plain = bytes.Repeat(noise(5000, 2), 300)
	layer, plain := s.blob(typeLayer, s.layer), s.blob(typePlain, s.plain)
	s.m.Images = make([]manifest.Image, 0, 8) // pointers to them stay good
	s.nginx, s.absent = s.sparse("docker.io/library/nginx:1.27", layer)
	s.app = s.image("registry.example:5000/shop/app-x.y/app:2.0-RC1", layer, plain)
	s.tool = s.image("quay.io/shop/tool@"+s.app.Digest, layer, plain)
	s.sboms = append(s.sboms, s.attach(s.nginx, "application/spdx+json", "an SBOM"), s.attach(s.nginx, "application/vnd.example.scan", "a scan"))
	s.signature = s.cosign(s.nginx, ".sig", "a signature")
	s.chart = s.maker.chart("Shop", "1.2.3+build", "oci://charts.example/stable/shop:1.2.3_build")
	return s
}

func TestPullInPlace(t *testing.T) {
	s := newShop(t)
	for _, volume := range []int64{0, 1 << 20} {
		t.Run(fmt.Sprint("volumes of ", volume), func(t *testing.T) {
			addr, _ := inPlace(t, registry.BundlesOptions{}, s.write(volume))
			for _, text := range []string{
				"docker.io/library/nginx:1.27", "docker.io/nginx:1.27", "library/nginx:1.27", "nginx:1.27", "index.docker.io/library/nginx:1.27",
				"nginx@" + s.nginx.Digest, "quay.io/shop/tool@" + s.nginx.Digest,
			} {
				ref, err := name.ParseReference(addr + "/" + text)
				if err != nil {
					t.Fatal(err)
				}
				d, err := remote.Get(ref)
				if err != nil {
					t.Fatal(err)
				}
				if d.Digest.String() != s.nginx.Digest || string(d.MediaType) != typeIndex {
					t.Fatalf("%s is %s, a %s", text, d.Digest, d.MediaType)
				}
				img, err := d.Image() // linux/amd64
				if err != nil {
					t.Fatal(err)
				}
				if err := validate.Image(img); err != nil && text == "nginx:1.27" {
					// Its layers are no gzip, which is all that is wrong with it.
					layers, _ := img.Layers()
					raw := contentOf(t, layers[0].Compressed)
					if !bytes.Equal(raw, s.layer) {
						t.Fatal("the layer is another")
					}
				}
			}
			for _, text := range []string{"registry.example-5000/shop/app-x.y/app:2.0-RC1", "shop/app-x.y/app:2.0-RC1", "shop/tool@" + s.tool.Digest} {
				ref, err := name.ParseReference(addr + "/" + text)
				if err != nil {
					t.Fatal(err)
				}
				img, err := remote.Image(ref)
				if err != nil {
					t.Fatal(err)
				}
				layers, err := img.Layers()
				if err != nil {
					t.Fatal(err)
				}
				for i, want := range [][]byte{s.layer, s.plain} {
					if raw := contentOf(t, layers[i].Compressed); !bytes.Equal(raw, want) {
						t.Fatalf("layer %d of %s is another", i, text)
					}
				}
			}
			for _, text := range []string{"charts/shop:1.2.3_build", "charts.example/stable/shop:1.2.3_build", "stable/shop:1.2.3_build"} {
				ref, err := name.ParseReference(addr + "/" + text)
				if err != nil {
					t.Fatal(err)
				}
				if d, err := remote.Head(ref); err != nil || d.Digest.String() != s.chart.Digest {
					t.Fatalf("%s: %+v, %v", text, d, err)
				}
			}
		})
	}
}

func contentOf(t *testing.T, open func() (io.ReadCloser, error)) []byte {
	t.Helper()
	r, err := open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	raw, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestOurClient pulls as seeding's other end would: Sealift out of Sealift.
func TestOurClient(t *testing.T) {
	s := newShop(t)
	addr, _ := inPlace(t, registry.BundlesOptions{}, s.write(0))
	repo, err := ocitest.Client().Repository(t.Context(), addr, "docker.io/library/nginx", false)
	if err != nil {
		t.Fatal(err)
	}
	c, err := repo.Manifest(t.Context(), "1.27")
	if err != nil || c.Digest != s.nginx.Digest {
		t.Fatalf("%+v, %v", c, err)
	}
	list, viaAPI, err := repo.Referrers(t.Context(), s.nginx.Digest)
	if err != nil || !viaAPI || len(list) != 2 {
		t.Fatalf("%+v, %v, %v", list, viaAPI, err)
	}
	for _, l := range list {
		i := slices.IndexFunc(s.sboms, func(d descriptor) bool { return d.Digest == l.Digest })
		if i < 0 || l.ArtifactType != s.sboms[i].ArtifactType || l.Annotations["org.example.text"] != s.sboms[i].Annotations["org.example.text"] {
			t.Fatalf("%+v", l)
		}
	}
	raw, err := io.ReadAll(repo.Blob(t.Context(), s.blobOf(s.layer), 1<<20))
	if err != nil || !bytes.Equal(raw, s.layer[1<<20:]) {
		t.Fatalf("%d bytes, %v", len(raw), err)
	}
}

func (s *shop) blobOf(raw []byte) manifest.Descriptor { return describe(typeLayer, raw).plain() }

// TestHeaders looks at what the specification says about answers.
func TestHeaders(t *testing.T) {
	s := newShop(t)
	addr, _ := inPlace(t, registry.BundlesOptions{}, s.write(0))
	base := "http://" + addr + "/v2/"
	layer := manifest.Digest(s.layer)
	index := rawOf(s.maker, s.nginx.Digest)
	for _, c := range []struct {
		method, path string
		headers      []string
		status       int
		want         map[string]string
		body         []byte
	}{
		{"GET", "", nil, 200, map[string]string{"Docker-Distribution-Api-Version": "registry/2.0", "Content-Type": "application/json"}, []byte("{}")},
		{"GET", "nginx/manifests/1.27", nil, 200, map[string]string{"Content-Type": typeIndex, "Docker-Content-Digest": s.nginx.Digest, "ETag": strconv.Quote(s.nginx.Digest), "Content-Length": strconv.Itoa(len(index))}, index},
		{"HEAD", "nginx/manifests/1.27", nil, 200, map[string]string{"Content-Type": typeIndex, "Docker-Content-Digest": s.nginx.Digest, "ETag": strconv.Quote(s.nginx.Digest), "Content-Length": strconv.Itoa(len(index))}, nil},
		{"GET", "nginx/manifests/" + s.nginx.Derived.Digest, nil, 200, map[string]string{"Content-Type": typeIndex, "Docker-Content-Digest": s.nginx.Derived.Digest}, rawOf(s.maker, s.nginx.Derived.Digest)},
		{"GET", "nginx/manifests/1.27", []string{"If-None-Match", strconv.Quote(s.nginx.Digest)}, 304, map[string]string{"ETag": strconv.Quote(s.nginx.Digest)}, nil},
		{"GET", "nginx/manifests/1.27", []string{"If-None-Match", `W/"x", ` + s.nginx.Digest}, 304, nil, nil},
		{"GET", "nginx/manifests/1.27", []string{"If-None-Match", `"x"`}, 200, nil, index},
		{"GET", "nginx/blobs/" + layer, nil, 200, map[string]string{"Docker-Content-Digest": layer, "ETag": strconv.Quote(layer), "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream", "Content-Length": strconv.Itoa(len(s.layer))}, s.layer},
		{"HEAD", "nginx/blobs/" + layer, nil, 200, map[string]string{"Docker-Content-Digest": layer, "Content-Length": strconv.Itoa(len(s.layer))}, nil},
		{"HEAD", "nginx/blobs/" + layer, []string{"Range", "bytes=0-1"}, 200, map[string]string{"Content-Length": strconv.Itoa(len(s.layer))}, nil},
		{"GET", "nginx/blobs/" + layer, []string{"If-None-Match", "*"}, 304, nil, nil},
		{"GET", "nginx/blobs/" + layer, []string{"If-Match", `"other"`}, 412, nil, nil},
		{"GET", "nginx/blobs/" + layer, []string{"If-Match", strconv.Quote(layer), "Range", "bytes=5-9"}, 206, nil, s.layer[5:10]},
		{"GET", "nginx/blobs/" + layer, []string{"If-Range", strconv.Quote(layer), "Range", "bytes=5-9"}, 206, nil, s.layer[5:10]},
		{"GET", "nginx/blobs/" + layer, []string{"If-Range", `"other"`, "Range", "bytes=5-9"}, 200, nil, s.layer},
		{"GET", "nginx/blobs/" + layer, []string{"If-Range", "Sat, 01 Jan 2000 00:00:00 GMT", "Range", "bytes=5-9"}, 200, nil, s.layer},
		// Blobs are addressed by digest, in every repository there is.
		{"GET", "charts/shop/blobs/" + layer, nil, 200, nil, s.layer},
		{"GET", "nginx/blobs/" + s.nginx.Digest, nil, 200, nil, index},
	} {
		resp, body, err := ask(t, c.method, base+c.path, c.headers...)
		if err != nil || resp.StatusCode != c.status {
			t.Errorf("%s %s %q: %s, %v", c.method, c.path, c.headers, resp.Status, err)
			continue
		}
		for k, v := range c.want {
			if got := resp.Header.Get(k); got != v {
				t.Errorf("%s %s: %s is %q, want %q", c.method, c.path, k, got, v)
			}
		}
		if c.status < 400 && !bytes.Equal(body, c.body) {
			t.Errorf("%s %s %q: %d bytes, want %d", c.method, c.path, c.headers, len(body), len(c.body))
		}
		if resp.Header.Get("Docker-Distribution-API-Version") != "registry/2.0" {
			t.Errorf("%s %s: no API version", c.method, c.path)
		}
	}
}

func rawOf(k *maker, digest string) []byte {
	i := slices.IndexFunc(k.m.Blobs, func(b manifest.Blob) bool { return b.Digest == digest })
	return k.blobs[i]
}

// TestErrors looks at what is said about what is not there, and about writing.
func TestErrors(t *testing.T) {
	s := newShop(t)
	addr, _ := inPlace(t, registry.BundlesOptions{}, s.write(0))
	base := "http://" + addr + "/v2/"
	nothing := manifest.Digest([]byte("nothing"))
	for _, c := range []struct {
		method, path string
		status       int
		code, text   string
	}{
		{"GET", "other/manifests/1", 404, "NAME_UNKNOWN", "no image"},
		{"GET", "other/tags/list", 404, "NAME_UNKNOWN", ""},
		{"GET", "other/blobs/" + manifest.Digest(s.layer), 404, "NAME_UNKNOWN", ""},
		{"GET", "nginx/manifests/1.28", 404, "MANIFEST_UNKNOWN", `no tag "1.28"`},
		{"GET", "nginx/manifests/" + nothing, 404, "MANIFEST_UNKNOWN", ""},
		{"GET", "nginx/manifests/" + s.absent, 404, "MANIFEST_UNKNOWN", "docker.io/library/nginx for linux/arm64, which does not travel"},
		{"GET", "nginx/manifests/" + manifest.Digest(s.layer), 404, "MANIFEST_UNKNOWN", ""},
		{"GET", "nginx/manifests/sha256:1234", 400, "DIGEST_INVALID", ""},
		{"GET", "nginx/manifests/sha256-" + strings.TrimPrefix(nothing, "sha256:"), 404, "MANIFEST_UNKNOWN", ""},
		{"GET", "nginx/blobs/" + nothing, 404, "BLOB_UNKNOWN", ""},
		{"GET", "nginx/blobs/sha512:" + strings.Repeat("a", 128), 404, "BLOB_UNKNOWN", ""},
		{"GET", "nginx/blobs/latest", 400, "DIGEST_INVALID", ""},
		{"GET", "nginx/referrers/latest", 400, "DIGEST_INVALID", ""},
		{"GET", "nginx/blobs/uploads/1234", 404, "BLOB_UPLOAD_UNKNOWN", ""},
		{"GET", "nginx/tags/list?n=x", 400, "PAGINATION_NUMBER_INVALID", ""},
		{"GET", "_catalog?n=-1", 400, "PAGINATION_NUMBER_INVALID", ""},
		{"GET", "nginx/manifests/1.27?ns=quay.io", 404, "NAME_UNKNOWN", ""},
		{"GET", "nginx", 404, "UNSUPPORTED", ""},
		{"POST", "nginx/blobs/uploads/", 405, "UNSUPPORTED", "cannot be written to"},
		{"PATCH", "nginx/blobs/uploads/1", 405, "UNSUPPORTED", ""},
		{"PUT", "nginx/manifests/1", 405, "UNSUPPORTED", ""},
		{"PUT", "nginx/manifests/sha256:totallywrong", 400, "DIGEST_INVALID", ""},
		{"DELETE", "nginx/manifests/" + s.nginx.Digest, 405, "UNSUPPORTED", ""},
		{"DELETE", "nginx/blobs/" + nothing, 405, "UNSUPPORTED", ""},
	} {
		resp, body, err := ask(t, c.method, base+c.path)
		var doc struct {
			Errors []struct{ Code, Message string }
		}
		if err := errors.Join(err, json.Unmarshal(body, &doc)); err != nil || len(doc.Errors) != 1 {
			t.Errorf("%s %s: %q, %v", c.method, c.path, body, err)
			continue
		}
		if resp.StatusCode != c.status || doc.Errors[0].Code != c.code || !strings.Contains(doc.Errors[0].Message, c.text) || resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s: %s, %+v", c.method, c.path, resp.Status, doc.Errors[0])
		}
		if c.status == 405 && resp.Header.Get("Allow") == "" {
			t.Errorf("%s %s: not said what is allowed", c.method, c.path)
		}
	}
	// What is not there is as long in the answer to HEAD, and has no body.
	if resp, body, err := ask(t, "HEAD", base+"nginx/manifests/1.28"); err != nil || resp.StatusCode != 404 || len(body) > 0 {
		t.Errorf("%v, %q, %v", resp.Status, body, err)
	}
}

func TestContainerdNamespaces(t *testing.T) {
	s := newShop(t)
	addr, _ := inPlace(t, registry.BundlesOptions{}, s.write(0))
	for path, want := range map[string]int{
		"library/nginx/manifests/1.27?ns=docker.io":                                 200,
		"docker.io/library/nginx/manifests/1.27?ns=docker.io":                       200,
		"library/nginx/manifests/1.27?ns=registry-1.docker.io":                      200,
		"docker.io/library/nginx/manifests/1.27?ns=registry-1.docker.io":            200,
		"library/nginx/manifests/1.27?ns=registry.example:5000":                     404,
		"docker.io/library/nginx/manifests/1.27?ns=quay.io":                         404,
		"shop/app-x.y/app/manifests/2.0-RC1?ns=registry.example:5000":               200,
		"registry.example:5000/shop/app-x.y/app/manifests/2.0-RC1":                  200,
		"registry.example-5000/shop/app-x.y/app/manifests/2.0-RC1":                  200,
		"shop/app-x.y/app/blobs/" + s.app.Digest + "?ns=registry.example%3A5000":    200,
		"shop/tool/manifests/" + s.tool.Digest + "?ns=quay.io":                      200,
		"shop/tool/referrers/" + s.nginx.Digest + "?ns=quay.io&artifactType=x":      200,
		"shop/tool/tags/list?ns=docker.io":                                          404,
		"stable/shop/manifests/1.2.3_build?ns=charts.example":                       200,
		"charts/shop/manifests/1.2.3_build?ns=charts.example":                       404,
		"quay.io/shop/tool/manifests/latest":                                        404,
		"docker.io/nginx/manifests/1.27":                                            200,
		"nginx/manifests/sha256-" + s.nginx.Digest[7:] + ".sig?ns=docker.io":        200,
		"library/nginx/manifests/" + url.PathEscape(s.nginx.Digest):                 200,
		"library/nginx/manifests/sha256-" + s.nginx.Digest[7:] + "?ns=docker.io":    200,
		"shop/app-x.y/app/manifests/sha256-" + s.nginx.Digest[7:] + "?ns=docker.io": 404,
	} {
		if resp, body, err := ask(t, "GET", "http://"+addr+"/v2/"+path); err != nil || resp.StatusCode != want {
			t.Errorf("%s: %s, want %d: %s", path, resp.Status, want, body)
		}
	}
}

func TestLists(t *testing.T) {
	k := newMaker(t, "many")
	k.m.Images = make([]manifest.Image, 0, 16)
	for _, tag := range []string{"b", "A", "a", "10", "9", "C"} {
		k.image("docker.io/x/y:" + tag)
	}
	k.image("quay.io/x/y:z")
	k.cosign(&k.m.Images[0], ".sig", "x")
	k.chart("c", "1.0.0", "")
	addr, s := inPlace(t, registry.BundlesOptions{}, k.write(0))
	sig := "sha256-" + k.m.Images[0].Digest[7:] + ".sig"
	type list struct {
		Name         string
		Tags         []string
		Repositories []string
	}
	get := func(path string) (list, string) {
		t.Helper()
		resp, body, err := ask(t, "GET", "http://"+addr+path)
		var l list
		if err := errors.Join(err, json.Unmarshal(body, &l)); err != nil || resp.StatusCode != 200 {
			t.Fatalf("%s: %s, %v", path, resp.Status, err)
		}
		return l, resp.Header.Get("Link")
	}
	for path, want := range map[string][]string{
		"/v2/docker.io/x/y/tags/list":                   {"10", "9", "A", "a", "b", "C", sig},
		"/v2/x/y/tags/list":                             {"10", "9", "A", "a", "b", "C", sig, "z"},
		"/v2/x/y/tags/list?ns=quay.io":                  {"z"},
		"/v2/docker.io/x/y/tags/list?n=2":               {"10", "9"},
		"/v2/docker.io/x/y/tags/list?n=2&last=9":        {"A", "a"},
		"/v2/docker.io/x/y/tags/list?last=AA":           {"b", "C", sig},
		"/v2/docker.io/x/y/tags/list?n=0":               {},
		"/v2/docker.io/x/y/tags/list?last=zzz":          {},
		"/v2/docker.io/x/y/tags/list?n=100000000000":    {"10", "9", "A", "a", "b", "C", sig},
		"/v2/docker.io/x/y/tags/list?n=3&last=" + "a":   {"b", "C", sig},
		"/v2/charts/c/tags/list":                        {"1.0.0"},
		"/v2/docker.io/x/y/tags/list?n=1&last=A&x=%3Cy": {"a"},
	} {
		l, link := get(path)
		name, _, _ := strings.Cut(strings.TrimPrefix(path, "/v2/"), "/tags")
		if l.Tags == nil || l.Name != name || !slices.Equal(l.Tags, want) {
			t.Errorf("%s: %+v, want %q", path, l, want)
		}
		if strings.Contains(path, "n=0") && link != "" {
			t.Errorf("%s: %s", path, link)
		}
	}
	if l, _ := get("/v2/_catalog"); !slices.Equal(l.Repositories, []string{"charts/c", "docker.io/x/y", "quay.io/x/y"}) {
		t.Errorf("%+v", l)
	}
	if l, _ := get("/v2/_catalog?n=1&last=charts/c"); !slices.Equal(l.Repositories, []string{"docker.io/x/y"}) {
		t.Errorf("%+v", l)
	}
	// Page by page, as clients go.
	for _, start := range []string{"/v2/_catalog?n=2", "/v2/x/y/tags/list?n=3&ns=docker.io"} {
		var all []string
		for path := start; path != ""; {
			l, link := get(path)
			all = append(append(all, l.Tags...), l.Repositories...)
			path, _, _ = strings.Cut(strings.TrimPrefix(link, "<"), ">")
			if link != "" && !strings.HasSuffix(link, `>; rel="next"`) {
				t.Fatal(link)
			}
		}
		want := []string{"charts/c", "docker.io/x/y", "quay.io/x/y"}
		if strings.Contains(start, "tags") {
			want = []string{"10", "9", "A", "a", "b", "C", sig}
		}
		if !slices.Equal(all, want) {
			t.Errorf("%s: %q", start, all)
		}
	}
	registryRef, err := name.NewRegistry(addr)
	if err != nil {
		t.Fatal(err)
	}
	if all, err := remote.Catalog(t.Context(), registryRef); err != nil || len(all) != 3 {
		t.Errorf("%q, %v", all, err)
	}
	names := s.Names()
	if len(names) != 8 || names[0] != (registry.Name{Repository: "charts/c", Tag: "1.0.0", Digest: k.m.Charts[0].Manifest.Digest}) {
		t.Errorf("%+v", names)
	}
}

func TestReferrers(t *testing.T) {
	s := newShop(t)
	addr, _ := inPlace(t, registry.BundlesOptions{}, s.write(0))
	type index struct {
		SchemaVersion int
		MediaType     string
		Manifests     []descriptor
	}
	get := func(path string) (index, response, []byte) {
		t.Helper()
		resp, body, err := ask(t, "GET", "http://"+addr+"/v2/nginx/"+path)
		var i index
		if err := errors.Join(err, json.Unmarshal(body, &i)); err != nil || resp.StatusCode != 200 || resp.Header.Get("Content-Type") != typeIndex || i.SchemaVersion != 2 || i.MediaType != typeIndex || i.Manifests == nil {
			t.Fatalf("%s: %s, %s, %v", path, resp.Status, body, err)
		}
		return i, resp, body
	}
	want := slices.Clone(s.sboms)
	slices.SortFunc(want, func(a, b descriptor) int { return strings.Compare(a.Digest, b.Digest) })
	all, resp, _ := get("referrers/" + s.nginx.Digest)
	if fmt.Sprint(all.Manifests) != fmt.Sprint(want) || resp.Header.Get("OCI-Filters-Applied") != "" {
		t.Errorf("%+v, want %+v", all, want)
	}
	one, resp, _ := get("referrers/" + s.nginx.Digest + "?artifactType=application/spdx%2Bjson")
	if len(one.Manifests) != 1 || one.Manifests[0].Digest != s.sboms[0].Digest || resp.Header.Get("OCI-Filters-Applied") != "artifactType" {
		t.Errorf("%+v", one)
	}
	for _, subject := range []string{s.app.Digest, manifest.Digest([]byte("nothing"))} {
		if none, _, _ := get("referrers/" + subject); len(none.Manifests) > 0 {
			t.Errorf("%+v", none)
		}
	}
	// For clients that know no such API, by the tag, and then by the digest that it has.
	tagged, resp, raw := get("manifests/sha256-" + s.nginx.Digest[7:])
	if fmt.Sprint(tagged.Manifests) != fmt.Sprint(want) || resp.Header.Get("Docker-Content-Digest") != manifest.Digest(raw) {
		t.Errorf("%+v", tagged)
	}
	if _, _, again := get("manifests/" + manifest.Digest(raw)); !bytes.Equal(again, raw) {
		t.Errorf("%s", again)
	}
	if resp, body, err := ask(t, "HEAD", "http://"+addr+"/v2/nginx/manifests/sha256-"+s.nginx.Digest[7:]); err != nil || len(body) > 0 || resp.ContentLength != int64(len(raw)) {
		t.Errorf("%+v, %v", resp, err)
	}
	if resp, body, err := ask(t, "GET", "http://"+addr+"/v2/nginx/manifests/sha256-"+s.nginx.Digest[7:]+".sig"); err != nil || resp.Header.Get("Docker-Content-Digest") != s.signature.Digest || manifest.Digest(body) != s.signature.Digest {
		t.Errorf("%s, %v", resp.Status, err)
	}
	ref, err := name.NewDigest(addr + "/nginx@" + s.nginx.Digest)
	if err != nil {
		t.Fatal(err)
	}
	found, err := remote.Referrers(ref)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := found.IndexManifest(); err != nil || len(m.Manifests) != 2 {
		t.Errorf("%+v, %v", m, err)
	}
}

// TestManyReferrers has more of them than fit into one answer.
func TestManyReferrers(t *testing.T) {
	k := newMaker(t, "many")
	img := k.image("docker.io/x/y:1")
	long := strings.Repeat("x", 900<<10)
	for i := range 5 {
		k.attach(img, "application/vnd.example", fmt.Sprint(i, long))
	}
	addr, _ := inPlace(t, registry.BundlesOptions{}, k.write(0))
	repo, err := ocitest.Client().Repository(t.Context(), addr, "x/y", false)
	if err != nil {
		t.Fatal(err)
	}
	if list, viaAPI, err := repo.Referrers(t.Context(), img.Digest); err != nil || !viaAPI || len(list) != 5 {
		t.Fatalf("%d, %v, %v", len(list), viaAPI, err)
	}
	resp, body, err := ask(t, "GET", "http://"+addr+"/v2/x/y/referrers/"+img.Digest+"?artifactType=application/vnd.example")
	if err != nil || len(body) > 4<<20 || !strings.Contains(resp.Header.Get("Link"), "artifactType=application") {
		t.Fatalf("%d bytes, %q, %v", len(body), resp.Header.Get("Link"), err)
	}
}

// TestSeveralBundles serves what two bundles have, with what is in both.
func TestSeveralBundles(t *testing.T) {
	shared := noise(700_000, 3)
	one, two := newMaker(t, "one"), newMaker(t, "two")
	for _, k := range []*maker{one, two} {
		k.m.Images = make([]manifest.Image, 0, 8)
		img := k.image("docker.io/library/base:1", k.blob(typeLayer, shared))
		k.cosign(img, ".sig", "signed by "+k.m.Name)
		k.cosign(img, ".sbom", "SBOM of "+k.m.Name)
		k.attach(img, "application/vnd.example", "attached by "+k.m.Name)
		k.image("docker.io/"+k.m.Name+"/app:1", k.blob(typeLayer, []byte(k.m.Name)))
	}
	// The same name without the registry, for different things.
	x := one.image("docker.io/a/b:1", one.blob(typeLayer, []byte("x")))
	y := two.image("quay.io/a/b:1", two.blob(typeLayer, []byte("y")))
	two.image("quay.io/a/b:2", two.blob(typeLayer, []byte("y")))
	base := one.m.Images[0].Digest
	addr, _ := inPlace(t, registry.BundlesOptions{}, one.write(0), two.write(1<<20))
	v2 := "http://" + addr + "/v2/"
	for _, path := range []string{"one/app/manifests/1", "two/app/manifests/1", "base/manifests/1", "two/app/blobs/" + manifest.Digest(shared), "one/app/blobs/" + manifest.Digest([]byte("two"))} {
		if resp, _, err := ask(t, "GET", v2+path); err != nil || resp.StatusCode != 200 {
			t.Errorf("%s: %s, %v", path, resp.Status, err)
		}
	}
	resp, body, err := ask(t, "GET", v2+"a/b/manifests/1")
	if err != nil || resp.StatusCode != 409 || !strings.Contains(string(body), "docker.io/a/b/… or quay.io/a/b/…") {
		t.Errorf("%s: %s, %v", resp.Status, body, err)
	}
	for path, digest := range map[string]string{
		"docker.io/a/b/manifests/1": x.Digest, "quay.io/a/b/manifests/1": y.Digest, "a/b/manifests/1?ns=quay.io": y.Digest,
		"a/b/manifests/2": y.Digest, "a/b/manifests/" + x.Digest: x.Digest, "a/b/manifests/" + y.Digest: y.Digest,
	} {
		if resp, _, err := ask(t, "GET", v2+path); err != nil || resp.Header.Get("Docker-Content-Digest") != digest {
			t.Errorf("%s: %s, %v", path, resp.Status, err)
		}
	}
	// Signatures of both, under the one tag.
	tag := v2 + "base/manifests/sha256-" + base[7:]
	resp, body, err = ask(t, "GET", tag+".sig")
	if err != nil || resp.StatusCode != 200 || resp.Header.Get("Docker-Content-Digest") != manifest.Digest(body) {
		t.Fatalf("%s, %v", resp.Status, err)
	}
	both, err := oci.ParseImage(body)
	if err != nil || len(both.Layers) != 2 {
		t.Fatalf("%s, %v", body, err)
	}
	for _, path := range []string{"base/manifests/" + manifest.Digest(body), "base/blobs/" + both.Config.Digest, "base/blobs/" + both.Layers[0].Digest, "base/blobs/" + both.Layers[1].Digest} {
		resp, body, err := ask(t, "GET", v2+path)
		if err != nil || resp.StatusCode != 200 || !strings.HasSuffix(path, manifest.Digest(body)) {
			t.Errorf("%s: %s, %v", path, resp.Status, err)
		}
	}
	// Of SBOMs there can be one.
	if resp, _, err := ask(t, "GET", tag+".sbom"); err != nil || resp.Header.Get("Docker-Content-Digest") != one.m.Images[0].Referrers[1].Digest {
		t.Errorf("%s, %v", resp.Status, err)
	}
	repo, err := ocitest.Client().Repository(t.Context(), addr, "base", false)
	if err != nil {
		t.Fatal(err)
	}
	if list, _, err := repo.Referrers(t.Context(), base); err != nil || len(list) != 2 {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestConflicts(t *testing.T) {
	with := func(name string, add func(k *maker)) *verify.Bundle {
		k := newMaker(t, name)
		k.m.Images = make([]manifest.Image, 0, 4)
		add(k)
		b := openBundle(t, k.write(0))
		t.Cleanup(func() { _ = b.Close() })
		return b
	}
	image := func(source, text string) func(k *maker) {
		return func(k *maker) { k.image(source, k.blob(typeLayer, []byte(text))) }
	}
	chart := func(text string) func(k *maker) {
		return func(k *maker) { k.blob("text/plain", []byte(text)); k.chart("c", "1.0.0", "") }
	}
	a := with("a", image("docker.io/x/y:1", "a"))
	var conflict *registry.ConflictError
	if _, err := registry.NewBundles([]*verify.Bundle{a, with("b", image("docker.io/x/y:1", "b"))}, registry.BundlesOptions{}); !errors.As(err, &conflict) ||
		conflict.Name != "docker.io/x/y:1" || conflict.Bundles[0] != a.Path() || !strings.Contains(err.Error(), "b-1.0.0.tar.zst") {
		t.Fatal(err)
	}
	for _, pair := range [][]*verify.Bundle{
		{a, with("c", image("docker.io/x/y:1", "a"))}, {a, with("d", image("quay.io/x/y:1", "b"))}, {with("e", chart("a")), with("f", chart("b"))}, {a, a},
	} {
		if _, err := registry.NewBundles(pair, registry.BundlesOptions{}); err != nil {
			t.Error(err)
		}
	}
}

// TestRangeMatrix compares the answers with those of the standard library.
func TestRangeMatrix(t *testing.T) {
	k := newMaker(t, "ranges")
	contents := map[string][]byte{}
	var layers []descriptor
	for i, c := range []struct {
		mediaType string
		raw       []byte
	}{{typeLayer, noise(2<<20+999, 1)}, {typePlain, bytes.Repeat(noise(1000, 2), 500)}, {typeLayer, []byte("x")}, {typeLayer, nil}} {
		layers = append(layers, k.blob(c.mediaType, c.raw))
		contents[layers[i].Digest] = c.raw
	}
	k.image("docker.io/x/y:1", layers...)
	addr, _ := inPlace(t, registry.BundlesOptions{}, k.write(0))
	standard := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		digest := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("ETag", strconv.Quote(digest))
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(contents[digest]))
	}))
	defer standard.Close()
	for digest, raw := range contents {
		n := len(raw)
		ranges := []string{
			"", "bytes=0-0", "bytes=0-", "bytes=-1", "bytes=-0", "bytes=-", "bytes=", "bytes=1-0", "bytes=5-1", "bytes=a-b", "bytes=1-2-3", "bytes=--1", "bytes=+1-2",
			"items=0-1", "bytes 0-1", "bytes=0-99999999999999999999", "bytes=99999999999999999999-", "bytes=-99999999999999999999", "bytes= 1 - 3 ", "bytes=1-3,", "bytes=,",
			fmt.Sprintf("bytes=%d-", n), fmt.Sprintf("bytes=%d-", n-1), fmt.Sprintf("bytes=0-%d", n-1), fmt.Sprintf("bytes=0-%d", n), fmt.Sprintf("bytes=-%d", n), fmt.Sprintf("bytes=-%d", n+1),
			fmt.Sprintf("bytes=%d-%d", n/2, n/2+1), fmt.Sprintf("bytes=%d-%d", n/3, n/2), "bytes=1048575-1048576", "bytes=131071-131072", "BYTES=0-1",
		}
		for _, header := range ranges {
			for _, condition := range [][]string{nil, {"If-None-Match", strconv.Quote(digest)}, {"If-Range", strconv.Quote(digest)}, {"If-Range", `"x"`}, {"If-Match", `"x"`}} {
				headers := slices.Clone(condition)
				if header != "" {
					headers = append(headers, "Range", header)
				}
				got, gotBody, err := ask(t, "GET", "http://"+addr+"/v2/x/y/blobs/"+digest, headers...)
				if err != nil {
					t.Fatal(err)
				}
				want, wantBody, err := ask(t, "GET", standard.URL+"/"+digest, headers...)
				if err != nil {
					t.Fatal(err)
				}
				status, part := want.StatusCode, want.Header.Get("Content-Range")
				if differs := beyond[header]; differs != 0 && want.StatusCode != 304 && want.StatusCode != 412 && want.StatusCode != 200 {
					status, part = differs, ""
				}
				if n == 0 && status != 304 && status != 412 {
					status, part = 200, ""
				}
				if got.StatusCode != status || part != "" && got.Header.Get("Content-Range") != part || status < 400 && part != "" && !bytes.Equal(gotBody, wantBody) {
					t.Errorf("%d bytes, %q: %s %q %d bytes, the standard library: %s %q %d bytes", n, headers, got.Status, got.Header.Get("Content-Range"), len(gotBody), want.Status, want.Header.Get("Content-Range"), len(wantBody))
				}
			}
		}
		// Several ranges may be ignored, and are.
		if n > 10 {
			if got, body, err := ask(t, "GET", "http://"+addr+"/v2/x/y/blobs/"+digest, "Range", "bytes=0-1,3-4"); err != nil || got.StatusCode != 200 || !bytes.Equal(body, raw) {
				t.Errorf("%s, %v", got.Status, err)
			}
		}
	}
}

// beyond are the answers to what the standard library does not understand, or not as RFC 9110 has it:
// units that are unknown are ignored, those that are known may be written in capitals, numbers are
// digits, and may be larger than any blob.
var beyond = map[string]int{
	"items=0-1": 200, "bytes 0-1": 200, "BYTES=0-1": 206, "bytes=+1-2": 416, "bytes=-0": 416,
	"bytes=0-99999999999999999999": 206, "bytes=99999999999999999999-": 416, "bytes=-99999999999999999999": 206,
}

// failures collects what could not be given.
type failures struct {
	mu  sync.Mutex
	all []registry.Failure
}

func (f *failures) add(one registry.Failure) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = append(f.all, one)
}

func (f *failures) take() []registry.Failure {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer func() { f.all = nil }()
	return f.all
}

func flip(t *testing.T, path string, content []byte, in int) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(raw, content[:min(len(content), 1000)])
	if at < 0 {
		t.Fatal("not in the file")
	}
	raw[at+in] ^= 1
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestDamage flips a byte while the bundle is served: no answer ends well that has it.
func TestDamage(t *testing.T) {
	s := newShop(t)
	path := s.write(0)
	var seen failures
	addr, served := inPlace(t, registry.BundlesOptions{Failed: seen.add}, path)
	blob := "http://" + addr + "/v2/nginx/blobs/" + manifest.Digest(s.layer)
	if _, body, err := ask(t, "GET", blob); err != nil || !bytes.Equal(body, s.layer) {
		t.Fatal(err)
	}
	flip(t, path, s.layer[1<<20:], 500) // in the second frame
	_, body, err := ask(t, "GET", blob)
	if err == nil || len(body) >= len(s.layer) {
		t.Fatalf("%d bytes, %v", len(body), err)
	}
	if f := seen.take(); len(f) != 1 || !f[0].Damaged || !f[0].Cut || f[0].Bundle != path || f[0].Digest != manifest.Digest(s.layer) || f[0].Err == nil {
		t.Fatalf("%+v", f)
	}
	// The first frame is whole, the second is not.
	if resp, body, err := ask(t, "GET", blob, "Range", "bytes=0-99"); err != nil || resp.StatusCode != 206 || !bytes.Equal(body, s.layer[:100]) {
		t.Errorf("%s, %v", resp.Status, err)
	}
	resp, _, err := ask(t, "GET", blob, "Range", "bytes=1100000-1100099")
	if err != nil || resp.StatusCode != 500 || resp.Header.Get("Content-Range")+resp.Header.Get("ETag")+resp.Header.Get("Docker-Content-Digest") != "" {
		t.Errorf("%s %v, %v", resp.Status, resp.Header, err)
	}
	if f := seen.take(); len(f) != 1 || !f[0].Damaged || f[0].Cut {
		t.Errorf("%+v", f)
	}
	// A manifest is proven before the answer begins.
	index := rawOf(s.maker, s.nginx.Digest)
	flip(t, path, index, 20)
	if resp, _, err := ask(t, "GET", "http://"+addr+"/v2/nginx/manifests/1.27"); err != nil || resp.StatusCode != 500 {
		t.Errorf("%s, %v", resp.Status, err)
	}
	// What is encoded.
	flip(t, path, rawOf(s.maker, s.app.Digest), 10)
	if resp, _, err := ask(t, "HEAD", "http://"+addr+"/v2/shop/tool/manifests/"+s.app.Digest); err != nil || resp.StatusCode != 200 {
		t.Errorf("%s, %v", resp.Status, err)
	}
	if damaged, unreadable := served.Failures(); damaged != 3 || unreadable != 0 {
		t.Errorf("%d, %d", damaged, unreadable)
	}
}

// TestDamageOfWhatIsEncoded flips a byte of a layer that has to be decompressed.
func TestDamageOfWhatIsEncoded(t *testing.T) {
	k := newMaker(t, "encoded")
	plain := bytes.Repeat(noise(100_000, 4), 3) // more than a window apart, so it stays large
	k.image("docker.io/x/y:1", k.blob(typePlain, plain))
	path := k.write(0)
	var seen failures
	addr, _ := inPlace(t, registry.BundlesOptions{Failed: seen.add}, path)
	blob := "http://" + addr + "/v2/x/y/blobs/" + manifest.Digest(plain)
	if _, body, err := ask(t, "GET", blob); err != nil || !bytes.Equal(body, plain) {
		t.Fatal(err)
	}
	flip(t, path, plain[50_000:], 700) // noise is stored as it is
	resp, body, err := ask(t, "GET", blob)
	if err == nil && resp.StatusCode < 500 || len(body) >= len(plain) {
		t.Fatalf("%s, %d bytes, %v", resp.Status, len(body), err)
	}
	if f := seen.take(); len(f) != 1 || !f[0].Damaged {
		t.Fatalf("%+v", f)
	}
}

// TestMediumAway takes the bundle away while it is served, and brings it back.
func TestMediumAway(t *testing.T) {
	s := newShop(t)
	path := s.write(0)
	var seen failures
	var current *verify.Bundle
	bundle := openBundle(t, path)
	served, err := registry.NewBundles([]*verify.Bundle{bundle}, registry.BundlesOptions{Failed: seen.add, Reopen: func(old *verify.Bundle) (*verify.Bundle, error) {
		if old.Path() != path {
			t.Errorf("asked for %q", old.Path())
		}
		if _, err := os.Stat(path); err != nil {
			return nil, err
		}
		current = openBundle(t, path)
		return current, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(served)
	defer server.Close()
	blob := server.URL + "/v2/nginx/blobs/" + manifest.Digest(s.layer)
	if _, body, err := ask(t, "GET", blob); err != nil || !bytes.Equal(body, s.layer) {
		t.Fatal(err)
	}
	away := filepath.Join(t.TempDir(), "away")
	if err := os.Rename(path, away); err != nil {
		t.Fatal(err)
	}
	// Nothing can be read through what is closed, as through what is pulled out.
	if err := bundle.Close(); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{blob, server.URL + "/v2/nginx/manifests/1.27"} {
		if resp, _, err := ask(t, "GET", what); err != nil || resp.StatusCode != 503 {
			t.Fatalf("%s: %s, %v", what, resp.Status, err)
		}
	}
	if f := seen.take(); len(f) != 2 || f[0].Damaged {
		t.Fatalf("%+v", f)
	}
	if err := served.Health(t.Context()); err == nil {
		t.Fatal("well without its medium")
	}
	if resp, _, err := ask(t, "HEAD", blob); err != nil || resp.StatusCode != 200 {
		t.Fatalf("%s, %v", resp.Status, err)
	}
	if err := os.Rename(away, path); err != nil {
		t.Fatal(err)
	}
	if _, body, err := ask(t, "GET", blob); err != nil || !bytes.Equal(body, s.layer) {
		t.Fatal(err)
	}
	if err := served.Health(t.Context()); err != nil {
		t.Fatal(err)
	}
	if current == nil {
		t.Fatal("not opened anew")
	}
	// Who is asked for nothing while it is ill gets well by itself.
	if err := errors.Join(os.Rename(path, away), current.Close()); err != nil {
		t.Fatal(err)
	}
	if resp, _, err := ask(t, "GET", blob); err != nil || resp.StatusCode != 503 {
		t.Fatalf("%s, %v", resp.Status, err)
	}
	if err := served.Health(t.Context()); err == nil {
		t.Fatal("well without its medium")
	}
	if err := os.Rename(away, path); err != nil {
		t.Fatal(err)
	}
	if err := served.Health(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := served.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestAnotherBundleInItsPlace has a different bundle where the old one was.
func TestAnotherBundleInItsPlace(t *testing.T) {
	s, o := newShop(t), newMaker(t, "other")
	o.image("docker.io/library/nginx:1.27")
	other := o.write(0)
	bundle := openBundle(t, s.write(0))
	served, err := registry.NewBundles([]*verify.Bundle{bundle}, registry.BundlesOptions{Reopen: func(*verify.Bundle) (*verify.Bundle, error) {
		return openBundle(t, other), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(served)
	defer server.Close()
	if err := bundle.Close(); err != nil {
		t.Fatal(err)
	}
	if resp, _, err := ask(t, "GET", server.URL+"/v2/nginx/manifests/1.27"); err != nil || resp.StatusCode != 503 {
		t.Fatalf("%s, %v", resp.Status, err)
	}
}

// TestSecondCopy reads from the other bundle what the first one cannot give.
func TestSecondCopy(t *testing.T) {
	s := newShop(t)
	one, two := s.write(0), s.write(0)
	flip(t, one, s.layer, 5)
	var seen failures
	addr, _ := inPlace(t, registry.BundlesOptions{Failed: seen.add}, one, two)
	if _, body, err := ask(t, "GET", "http://"+addr+"/v2/nginx/blobs/"+manifest.Digest(s.layer), "Range", "bytes=10-"); err != nil || !bytes.Equal(body, s.layer[10:]) {
		// The first piece of the damaged frame has been sent before its end was seen.
		if err == nil || len(body) >= len(s.layer)-10 {
			t.Fatalf("%d bytes, %v", len(body), err)
		}
	}
	if resp, body, err := ask(t, "GET", "http://"+addr+"/v2/nginx/blobs/"+manifest.Digest(s.layer), "Range", "bytes=10-20"); err != nil || resp.StatusCode != 206 || !bytes.Equal(body, s.layer[10:21]) {
		t.Fatalf("%s, %v", resp.Status, err)
	}
	if f := seen.take(); len(f) != 2 || !f[0].Damaged || f[1].Cut {
		t.Fatalf("%+v", f)
	}
}

func TestClientsThatGoAway(t *testing.T) {
	s := newShop(t)
	var seen failures
	addr, _ := inPlace(t, registry.BundlesOptions{Failed: seen.add}, s.write(0))
	for range 5 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/v2/nginx/blobs/"+manifest.Digest(s.layer), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.CopyN(io.Discard, resp.Body, 1000)
		resp.Body.Close()
	}
	if _, body, err := ask(t, "GET", "http://"+addr+"/v2/nginx/blobs/"+manifest.Digest(s.layer)); err != nil || !bytes.Equal(body, s.layer) {
		t.Fatal(err)
	}
	if f := seen.take(); len(f) > 0 {
		t.Fatalf("%+v", f)
	}
}

// TestManyAtOnce pulls from many sides.
func TestManyAtOnce(t *testing.T) {
	s := newShop(t)
	addr, _ := inPlace(t, registry.BundlesOptions{}, s.write(1<<20))
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			for path, want := range map[string][]byte{
				"nginx/manifests/1.27": rawOf(s.maker, s.nginx.Digest), "nginx/blobs/" + manifest.Digest(s.layer): s.layer, "nginx/blobs/" + manifest.Digest(s.plain): s.plain,
			} {
				if resp, body, err := ask(t, "GET", "http://"+addr+"/v2/"+path); err != nil || !bytes.Equal(body, want) {
					t.Errorf("%d: %s: %s, %v", i, path, resp.Status, err)
				}
			}
		})
	}
	all.Wait()
}

func TestStreamsAreRefused(t *testing.T) {
	s := newShop(t)
	f, err := os.Open(s.write(0))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	signer, err := vendor()
	if err != nil {
		t.Fatal(err)
	}
	b, err := verify.OpenStream(t.Context(), "a pipe", f, verify.Policy{Keys: []sigstore.PublicKey{signer.PublicKey()}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := registry.NewBundles([]*verify.Bundle{b}, registry.BundlesOptions{}); !errors.Is(err, archive.ErrStream) {
		t.Fatal(err)
	}
}

// TestWritingInPlace tries to push to a bundle as clients do.
func TestWritingInPlace(t *testing.T) {
	s := newShop(t)
	addr, _ := inPlace(t, registry.BundlesOptions{}, s.write(0))
	ref, err := name.ParseReference(addr + "/nginx:1.27")
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	to, err := name.NewTag(addr + "/nginx:new")
	if err != nil {
		t.Fatal(err)
	}
	var refused *transport.Error
	if err := remote.Write(to, img); !errors.As(err, &refused) || refused.StatusCode != http.StatusMethodNotAllowed {
		t.Fatalf("%v", err)
	}
}
