package registry

import (
	"strings"
	"testing"
)

func TestParsePath(t *testing.T) {
	digest := "sha256:" + strings.Repeat("a", 64)
	for path, want := range map[string]requestPath{
		"/v2":                         {kind: pathBase},
		"/v2/":                        {kind: pathBase},
		"/v2/_catalog":                {kind: pathCatalog},
		"/v2/a/tags/list":             {kind: pathTags, name: "a"},
		"/v2/a/b/c/manifests/1":       {kind: pathManifest, name: "a/b/c", reference: "1"},
		"/v2/a/blobs/" + digest:       {kind: pathBlob, name: "a", reference: digest},
		"/v2/a/referrers/" + digest:   {kind: pathReferrers, name: "a", reference: digest},
		"/v2/a/blobs/uploads/":        {kind: pathUpload, name: "a"},
		"/v2/a/blobs/uploads":         {kind: pathUpload, name: "a"},
		"/v2/a/blobs/uploads/1-2":     {kind: pathUpload, name: "a", reference: "1-2"},
		"/v2/blobs/blobs/manifests/1": {kind: pathManifest, name: "blobs/blobs", reference: "1"},
		"/v2/a/tags/manifests/list":   {kind: pathManifest, name: "a/tags", reference: "list"},
		"/v2/h:5000/a/tags/list":      {kind: pathTags, name: "h:5000/a"},
	} {
		if got, ok := parsePath(path); !ok || got != want {
			t.Errorf("%s: %+v, %v", path, got, ok)
		}
	}
	for _, path := range []string{"", "/", "/v1/", "/v2x", "/v2/a", "/v2/tags/list", "/v2//tags/list", "/v2/a/manifests/", "/v2/manifests/1", "/v2//manifests/1", "/v2/a/other/1", "/v2/blobs/uploads/"} {
		if got, ok := parsePath(path); ok && got.name != "" && path != "/v2//manifests/1" && path != "/v2//tags/list" {
			t.Errorf("%s: %+v", path, got)
		}
	}
}

func FuzzParsePath(f *testing.F) {
	for _, path := range []string{"/v2/", "/v2/_catalog", "/v2/a/tags/list", "/v2/a/b/manifests/1", "/v2/a/blobs/sha256:0", "/v2/a/blobs/uploads/x", "/v2/a/referrers/sha256:0", "/v2//", "/v2/a//manifests/1"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		p, ok := parsePath(path)
		if !ok {
			return
		}
		// What was taken apart can be put together.
		word := map[int]string{pathManifest: "/manifests/", pathBlob: "/blobs/", pathReferrers: "/referrers/", pathUpload: "/blobs/uploads/"}[p.kind]
		back := "/v2/" + p.name + word + p.reference
		if p.kind == pathTags {
			back += "/tags/list"
		}
		switch {
		case p.kind == pathBase || p.kind == pathCatalog:
			if p.name != "" || p.reference != "" {
				t.Fatalf("%q: %+v", path, p)
			}
		case p.name == "" || back != path && back != path+"/":
			t.Fatalf("%q: %+v makes %q", path, p, back)
		case p.kind != pathUpload && p.kind != pathTags && p.reference == "", strings.Contains(p.reference, "/"):
			t.Fatalf("%q: %+v", path, p)
		}
	})
}

func FuzzParseRange(f *testing.F) {
	for _, header := range []string{"bytes=0-", "bytes=-5", "bytes=1-2", "bytes=1-2,3-4", "bytes=99999999999999999999-", "items=1-2", "bytes=5-1"} {
		f.Add(header, int64(10))
	}
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size < 0 {
			return
		}
		p, found, err := parseRange(header, size)
		if err != nil && found || found && (p.from < 0 || p.size < 1 || p.from > size-p.size) {
			t.Fatalf("%q of %d: %+v, %v, %v", header, size, p, found, err)
		}
	})
}
