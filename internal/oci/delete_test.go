package oci_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/oci/ocitest"
)

func TestDeleteManifest(t *testing.T) {
	for _, kind := range ocitest.Kinds {
		r := ocitest.New(t, kind)
		repo := r.Open(t, "a/b")
		digest := ocitest.Image(t, repo, "one", "amd64", "x")
		ocitest.Image(t, repo, "two", "amd64", "x")
		if err := repo.DeleteManifest(t.Context(), "one"); err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		for tag, want := range map[string]string{"one": "", "two": digest} {
			if got, err := repo.ManifestDigest(t.Context(), tag); err != nil || got != want {
				t.Errorf("%s: %s is %q, %v, want %q", kind, tag, got, err, want)
			}
		}
		if err := repo.DeleteManifest(t.Context(), digest); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		if got, err := repo.ManifestDigest(t.Context(), digest); err != nil || got != "" {
			t.Errorf("%s: got %q, %v", kind, got, err)
		}
		// What is not there is no error.
		for _, gone := range []string{"one", digest} {
			if err := repo.DeleteManifest(t.Context(), gone); err != nil {
				t.Errorf("%s: %s: %v", kind, gone, err)
			}
		}
	}
}

func TestDeleteRefused(t *testing.T) {
	r := ocitest.New(t, ocitest.WithoutAPI)
	repo, err := client(oci.Options{Budget: oci.Budget{Wait: time.Millisecond, LongestWait: 2 * time.Millisecond}}).Repository(t.Context(), r.Addr, "a/b", true)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		status   int
		body     string
		noDelete bool
	}{
		{405, `{"errors":[{"code":"UNSUPPORTED"}]}`, true},
		{405, "", true},
		{501, "", true},
		{400, `{"errors":[{"code":"UNSUPPORTED"}]}`, true},
		{400, `{"errors":[{"code":"DIGEST_INVALID"}]}`, true},
		{400, "<html>bad</html>", true},
		{400, `{"errors":[{"code":"NAME_INVALID"}]}`, false},
		{401, `{"errors":[{"code":"UNAUTHORIZED"}]}`, false},
		{403, `{"errors":[{"code":"DENIED"}]}`, false},
		{412, `{"errors":[{"code":"PRECONDITION"}]}`, false},
	} {
		r.Intercept(func(w http.ResponseWriter, req *http.Request) bool {
			if req.Method != http.MethodDelete {
				return false
			}
			w.WriteHeader(test.status)
			_, _ = io.WriteString(w, test.body)
			return true
		})
		err := repo.DeleteManifest(t.Context(), "tag")
		var e *oci.Error
		if !errors.As(err, &e) || errors.Is(err, oci.ErrNoDelete) != test.noDelete {
			t.Errorf("%d %s: got %v", test.status, test.body, err)
		}
	}
	// What passes is waited out.
	for _, status := range []int{429, 500, 503} {
		n := 0
		r.Intercept(func(w http.ResponseWriter, req *http.Request) bool {
			if req.Method != http.MethodDelete || n == 2 {
				return false
			}
			n++
			w.WriteHeader(status)
			return true
		})
		ocitest.Image(t, repo, "tag", "amd64", "x")
		if err := repo.DeleteManifest(t.Context(), "tag"); err != nil || n != 2 {
			t.Errorf("%d: got %v after %d", status, err, n)
		}
	}
}

func TestCatalog(t *testing.T) {
	r := ocitest.New(t, ocitest.WithoutAPI)
	var want []string
	for i := range 5 {
		path := fmt.Sprintf("p/r%d", i)
		want = append(want, path)
		ocitest.Image(t, r.Open(t, path), "x", "amd64", "x")
	}
	// In pages of two, whatever is asked for, with what no reference can hold among them.
	r.Intercept(func(w http.ResponseWriter, req *http.Request) bool {
		if req.URL.Path != "/v2/_catalog" {
			return false
		}
		from := 0
		if last := req.URL.Query().Get("last"); last != "" {
			from = slices.Index(want, last) + 1
		}
		list := want[from:min(from+2, len(want))]
		if from+2 < len(want) {
			w.Header().Set("Link", fmt.Sprintf(`</v2/_catalog?last=%s&n=2>; rel="next"`, list[len(list)-1]))
		}
		_ = json.NewEncoder(w).Encode(map[string][]string{"repositories": append([]string{"../etc", "UPPER", ""}, list...)})
		return true
	})
	got, err := ocitest.Client().Catalog(t.Context(), r.Addr)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	r.Intercept(nil)
	if got, err := ocitest.Client().Catalog(t.Context(), r.Addr); err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	for _, status := range []int{401, 403, 404, 405} {
		r.Intercept(func(w http.ResponseWriter, req *http.Request) bool {
			w.WriteHeader(status)
			return true
		})
		if _, err := ocitest.Client().Catalog(t.Context(), r.Addr); status != 401 && !errors.Is(err, oci.ErrNoCatalog) || err == nil {
			t.Errorf("%d: got %v", status, err)
		}
	}
	// A list without an end.
	r.Intercept(func(w http.ResponseWriter, req *http.Request) bool {
		w.Header().Set("Link", `</v2/_catalog?last=a>; rel="next"`)
		_, _ = io.WriteString(w, `{"repositories":["a"]}`)
		return true
	})
	if _, err := ocitest.Client().Catalog(t.Context(), r.Addr); err == nil || !strings.Contains(err.Error(), "does not end") {
		t.Errorf("got %v", err)
	}
}

func TestTagSubject(t *testing.T) {
	hex := strings.Repeat("ab", 32)
	for tag, want := range map[string]string{
		"sha256-" + hex: "sha256:" + hex, "sha256-" + hex + ".sig": "sha256:" + hex, "sha256-" + hex[1:]: "", "v1": "", "sha256-" + hex + "-x": "",
	} {
		if got := oci.TagSubject(tag); got != want {
			t.Errorf("%s: got %q, want %q", tag, got, want)
		}
	}
}

func FuzzParseNamed(f *testing.F) {
	f.Add([]byte(`{"config":{"digest":"sha256:aa","size":1},"layers":[{"digest":"x"}],"subject":{"digest":"y"}}`))
	f.Add([]byte(`{"manifests":[{"digest":"sha256:` + strings.Repeat("ab", 32) + `","size":-1}]}`))
	f.Add([]byte(`{"blobs":[null],"config":null}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		n, err := oci.ParseNamed(raw)
		if err != nil {
			return
		}
		for _, d := range slices.Concat(n.Manifests, n.Blobs) {
			if len(d.Digest) != 71 || d.Size < 0 {
				t.Errorf("got %+v", d)
			}
		}
	})
}
