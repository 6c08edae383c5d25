package oci_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"unicode"
	"unicode/utf8"

	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/manifest"
)

// TestWordsOfRefusals: they are those of the registry, in one line, and who says them is named.
func TestWordsOfRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		code    int
		body    string
		want    string
		noSpace bool
	}{
		// These are distribution's for a full disk: of PATCH, of the end of an upload, of its beginning.
		"full disk, as text": {
			500, `{"errors":[{"code":"UNKNOWN","message":"unknown error","detail":"write /var/lib/registry/docker/registry/v2/repositories/a/_uploads/1/data: no space left on device"}]}`,
			"500 Internal Server Error: UNKNOWN: unknown error (write /var/lib/registry/docker/registry/v2/repositories/a/_uploads/1/data: no space left on device)", true,
		},
		"full disk, as Go's error": {
			500, `{"errors":[{"code":"UNKNOWN","message":"unknown error","detail":{"Op":"write","Path":"/var/lib/registry/x","Err":28}}]}`,
			"500 Internal Server Error: UNKNOWN: unknown error (write /var/lib/registry/x: no space left on device)", true,
		},
		"full disk, of a driver": {
			500, `{"errors":[{"code":"UNKNOWN","message":"unknown error","detail":{"driver":"filesystem","detail":"mkdir /x: no space left on device"}}]}`,
			"500 Internal Server Error: UNKNOWN: unknown error (detail: mkdir /x: no space left on device, driver: filesystem)", true,
		},
		"quota":         {500, `{"errors":[{"code":"UNKNOWN","message":"unknown error","detail":{"Op":"mkdir","Path":"/x","Err":122}}]}`, "500 Internal Server Error: UNKNOWN: unknown error (mkdir /x: disk quota exceeded)", true},
		"507":           {507, ``, "507 Insufficient Storage", true},
		"read-only":     {500, `{"errors":[{"code":"UNKNOWN","message":"unknown error","detail":{"Op":"mkdir","Path":"/x","Err":30}}]}`, "500 Internal Server Error: UNKNOWN: unknown error (mkdir /x: read-only file system)", false},
		"another error": {500, `{"errors":[{"code":"UNKNOWN","message":"x","detail":{"Op":"mkdir","Path":"/x","Err":777}}]}`, "500 Internal Server Error: UNKNOWN: x (mkdir /x: error 777 of the system)", false},
		"blob unknown":  {404, `{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown to registry","detail":{"digest":"sha256:00"}}]}`, "404 Not Found: MANIFEST_BLOB_UNKNOWN: blob unknown to registry (digest: sha256:00)", false},
		"two":           {404, `{"errors":[{"code":"A","message":"a"},{"code":"B","message":"b","detail":["x",1,true,null,[[[["deep"]]]]]}]}`, "404 Not Found: A: a; B: b (x, 1, true, , …)", false},
		"its own words": {403, `denied: project "a" is not there`, `403 Forbidden: denied: project "a" is not there`, false},
		"a page":        {413, "<html>\r\n<head><title>413 Request\n Entity Too Large</title></head><body>…</body>", "413 Request Entity Too Large: 413 Request Entity Too Large", false},
		"no words":      {401, "", "401 Unauthorized", false},
		"not printable": {403, "a\x1b[31mb\x00\u202ec\xff\xfed\n\n\te", "403 Forbidden: a [31mb c d e", false},
		"same twice":    {403, `{"errors":[{"code":"DENIED","message":"no","detail":"no"}]}`, "403 Forbidden: DENIED: no", false},
		"said by a 400": {400, `no space left on device`, "400 Bad Request: no space left on device", false},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := 0
			repo := repository(t.Context(), t, oci.Options{Transport: trip(func(r *http.Request) (*http.Response, error) {
				if r.URL.Path == "/v2/" {
					return status(200), nil
				}
				n++
				resp := status(c.code)
				resp.Body = io.NopCloser(strings.NewReader(c.body))
				return resp, nil
			})})
			_, err := repo.Manifest(t.Context(), "1")
			if err == nil || !strings.HasSuffix(err.Error(), "GET answered with "+c.want) {
				t.Errorf("%s:\ngot  %v\nwant %s", name, err, c.want)
			}
			if oci.IsNoSpace(err) != c.noSpace || c.noSpace && n > 3 {
				t.Errorf("%s: no space %t, %d requests", name, oci.IsNoSpace(err), n)
			}
		})
	}
}

// TestFullDisk: the registry says so, it is not tried for long, and told to forget what it has.
func TestFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTarget()
		s.fault = func(m string, n int, _ *http.Request) (int64, *http.Response, error) {
			if m != http.MethodPatch {
				return 0, nil, nil
			}
			return max(0, 500000*int64(2-n)), refusing(500, "UNKNOWN", "unknown error", `"write /x: no space left on device"`), nil
		}
		err := put(t.Context(), t, s.open(t, oci.Options{}), large)
		var e *oci.Error
		if !oci.IsNoSpace(err) || !errors.As(err, &e) || e.Registry != "127.0.0.1:5000" || !strings.Contains(err.Error(), "uploading blob "+describeBlob(large).Digest) {
			t.Error(err)
		}
		if n := s.count[http.MethodPatch]; n > 4 || s.count[http.MethodDelete] != 1 || len(s.sessions) != 0 {
			t.Errorf("%d times; left %d sessions: %v", n, len(s.sessions), s.log)
		}
	})
	if oci.IsNoSpace(nil) || oci.IsNoSpace(errors.New("no space left on device")) {
		t.Error("that is no registry's")
	}
}

// TestMounts: a refused mount is an upload that has begun; one that did not hold is named.
func TestMounts(t *testing.T) {
	for name, c := range map[string]struct {
		fault   fault
		mounted bool
		log     string
	}{
		"mounted": {once("POST", 1, func(int) (int64, *http.Response, error) { return 0, status(201), nil }), true, "POST"},
		"refused": {nil, false, "POST PUT"},
		"not allowed": {once("POST", 1, func(int) (int64, *http.Response, error) {
			return 0, refusing(403, "DENIED", "x", "{}"), nil
		}), false, "POST POST PUT"},
		"overloaded": {once("POST", 2, func(int) (int64, *http.Response, error) { return 0, status(503), nil }), false, "POST POST POST PUT"},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newTarget()
			s.fault = c.fault
			mounted, err := s.open(t, oci.Options{}).PutBlob(t.Context(), describeBlob(small), "c/d", oci.FromBytes(small), func(int64) {})
			if got := strings.Join(s.log, " "); err != nil || mounted != c.mounted || got != c.log {
				t.Errorf("%s: %t, %s, %v", name, mounted, got, err)
			}
		})
	}
	for _, named := range []string{describeBlob(small).Digest, d1} {
		synctest.Test(t, func(t *testing.T) {
			s := newTarget()
			s.fault = func(m string, _ int, _ *http.Request) (int64, *http.Response, error) {
				if m == http.MethodPost {
					return 0, status(201), nil
				}
				return 0, refusing(404, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry", `{"digest":"`+named+`"}`), nil
			}
			repo := s.open(t, oci.Options{})
			if _, err := repo.PutBlob(t.Context(), describeBlob(small), "c/d", nil, nil); err != nil {
				t.Fatal(err)
			}
			err := repo.PutManifest(t.Context(), "1", content())
			var gone *oci.MountError
			is := errors.As(err, &gone) && gone.From == "c/d" && gone.Digest == named
			if is != (named != d1) || !oci.IsMissingContent(err) {
				t.Errorf("%v", err)
			}
		})
	}
}

// FuzzRefusal: whatever a registry says, the error is one printable line of bounded length.
func FuzzRefusal(f *testing.F) {
	f.Add(500, []byte(`{"errors":[{"code":"UNKNOWN","message":"unknown error","detail":{"Op":"write","Path":"/x","Err":28}}]}`))
	f.Add(413, []byte("<html><title>x</title>"))
	f.Add(403, []byte("\x1b[2J<TITLE>"))
	f.Add(404, []byte(`{"errors":[{"code":"A","detail":[[[[[[[1]]]]]]]}]}`))
	f.Fuzz(func(t *testing.T, code int, body []byte) {
		if code < 400 || code > 599 || code == 429 || code == 503 {
			return
		}
		repo, err := oci.NewClient(oci.Options{Side: "test registry", Budget: oci.Budget{Tries: 1}, Transport: trip(func(r *http.Request) (*http.Response, error) {
			resp := status(code)
			if r.URL.Path == "/v2/" {
				return status(200), nil
			}
			resp.Body = io.NopCloser(strings.NewReader(string(body)))
			return resp, nil
		})}).Repository(t.Context(), "127.0.0.1:5000", "a/b", true)
		if err != nil {
			t.Fatal(err)
		}
		_, err = repo.Manifest(t.Context(), "1")
		if err == nil {
			t.Fatal("no error")
		}
		text := err.Error()
		if len(text) > 1500 || !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q", text)
		}
		_ = oci.IsNoSpace(err)
	})
}

// FuzzOffset: whatever a registry says that it has, and where, the upload ends well or with an error.
func FuzzOffset(f *testing.F) {
	f.Add("0-1048575", "/v2/a/b/blobs/uploads/0?state=1048576")
	f.Add("bytes=0-99", "")
	f.Add("0-0", "http://127.0.0.1:5000/x")
	f.Add("0-18446744073709551615", ":")
	f.Add("5-7", "//")
	content := bytesOf(mib + 1)
	d := manifest.Descriptor{Digest: manifest.Digest(content), Size: int64(len(content))}
	f.Fuzz(func(t *testing.T, offset, location string) {
		synctest.Test(t, func(t *testing.T) {
			s := newTarget()
			s.fault = func(m string, n int, _ *http.Request) (int64, *http.Response, error) {
				switch {
				case m == http.MethodPatch && n == 1:
					return 5000, nil, errReset
				case m == http.MethodGet && n == 1:
					resp := status(http.StatusNoContent)
					resp.Header.Set("Range", offset)
					resp.Header.Set("Location", location)
					return 0, resp, nil
				}
				return 0, nil, nil
			}
			_, err := s.open(t, oci.Options{}).PutBlob(t.Context(), d, "", oci.FromBytes(content), func(int64) {})
			if err == nil && s.blobs[d.Digest] == nil {
				t.Error("it is not there")
			}
		})
	})
}
