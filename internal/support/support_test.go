package support_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sealift/sealift/internal/support"
)

const canary = "kan4ri-Vogel"

// source gives what a test says.
type source struct {
	secrets []string
	texts   [][2]string
	failed  error
	err     error
}

func (*source) Name() string { return "the test" }

func (s *source) Secrets(_ context.Context, to *support.Archive) error {
	return to.Secret(s.secrets...)
}

func (s *source) Collect(_ context.Context, to *support.Archive) error {
	if s.failed != nil {
		to.Failed("something", s.failed)
	}
	for _, t := range s.texts {
		if err := to.Text(t[0], []byte(t[1])); err != nil {
			return err
		}
	}
	return s.err
}

type entry struct {
	header *tar.Header
	text   string
}

func read(t *testing.T, raw []byte) (names []string, files map[string]entry) {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	files = map[string]entry{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names, files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
		files[h.Name] = entry{h, string(text)}
	}
}

var options = support.Options{Now: time.Date(2026, 11, 21, 12, 0, 0, 5, time.UTC), Readme: "read me\n", Exempt: []string{"shop"}}

func TestWrite(t *testing.T) {
	s := []support.Source{
		&source{texts: [][2]string{
			{"a/b.txt", "before " + canary + " " + base64.StdEncoding.EncodeToString([]byte(canary)) + " shop \x1b[31m\u202e\n"},
			{"../../etc/passwd", "x"},
			{"a/b.txt", "the second"},
			{"A/B.txt", "the third"},
			{"..", "y"},
			{"sp ace/ü", "z"},
		}, failed: errors.New("no " + canary + "\nsecond line password=" + "other-secret")},
		// Known after the first gave its texts, and blanked there all the same.
		&source{secrets: []string{canary, "shop", "true", "abc"}, texts: [][2]string{{"c.txt", "true abc"}}},
	}
	var one, two bytes.Buffer
	r, err := support.Write(t.Context(), &one, s, options)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := support.Write(t.Context(), &two, s, options); err != nil || !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Errorf("the second is another: %v", err)
	}
	names, files := read(t, one.Bytes())
	want := []string{"README.txt", "a/b.txt", "etc/passwd", "a/b-2.txt", "A/B-3.txt", "unnamed", "sp_ace/_", "c.txt", "errors.txt"}
	for i := range want {
		want[i] = "sealift-support/" + want[i]
	}
	if !slices.Equal(names, want) || len(r.Files) != len(want) {
		t.Errorf("got %q, want %q", names, want)
	}
	for name, e := range files {
		if e.header.Mode != 0o600 || !e.header.ModTime.Equal(options.Now.Truncate(time.Second)) || e.header.Uname != "" {
			t.Errorf("%s: %+v", name, e.header)
		}
		if strings.Contains(e.text, canary) || strings.Contains(e.text, "other-secret") || strings.ContainsAny(e.text, "\x1b\u202e") {
			t.Errorf("%s: %q", name, e.text)
		}
	}
	if got := files["sealift-support/a/b.txt"].text; got != "before (hidden) (hidden) shop [31m\n" {
		t.Errorf("got %q", got)
	}
	if got := files["sealift-support/c.txt"].text; got != "true abc" {
		t.Errorf("got %q", got)
	}
	if got := files["sealift-support/errors.txt"].text; got != "something: no (hidden) second line password=(hidden)\n" {
		t.Errorf("got %q", got)
	}
}

func TestBounds(t *testing.T) {
	big := strings.Repeat(strings.Repeat("x", 99)+"\n", support.MaxFile/100+10)
	s := &source{texts: [][2]string{{"big", "first line\n" + big + "last line"}}}
	few := options
	few.Limit = 1000
	r, err := support.Write(t.Context(), io.Discard, []support.Source{&source{texts: [][2]string{{"a", big[:600]}, {"b", big[:600]}, {"c", big[:100]}}}}, few)
	if err != nil {
		t.Fatal(err)
	}
	if r.Bytes > 1200 || !r.Full || len(r.Errors) != 1 || !strings.Contains(r.Errors[0], "/b: left out") || len(r.Files) != 4 {
		t.Errorf("got %+v", r)
	}
	var raw bytes.Buffer
	if _, err := support.Write(t.Context(), &raw, []support.Source{&source{texts: s.texts[:1]}}, options); err != nil {
		t.Fatal(err)
	}
	_, files := read(t, raw.Bytes())
	got := files["sealift-support/big"].text
	if len(got) > support.MaxFile+100 || !strings.HasPrefix(got, "[what was before is left out]\nxxx") || !strings.HasSuffix(got, "last line") {
		t.Errorf("got %d bytes", len(got))
	}
	var many *support.TooManySecretsError
	if _, err := support.Write(t.Context(), io.Discard, []support.Source{&source{secrets: slices.Repeat([]string{"secret"}, 30_000)}}, options); !errors.As(err, &many) {
		t.Errorf("got %v", err)
	}
}

func TestCreate(t *testing.T) {
	dir := t.TempDir()
	to := filepath.Join(dir, "out.tar.gz")
	if _, err := support.Create(t.Context(), to, []support.Source{&source{err: errors.New("stop")}}, options); err == nil {
		t.Error("no error")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("%v is left, %v", left, err)
	}
	if _, err := support.Create(t.Context(), to, nil, options); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(to)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v", info.Mode(), err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("%v is left, %v", left, err)
	}
	if _, err := support.Create(t.Context(), to, nil, options); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v", err)
	}
}

func TestRedact(t *testing.T) {
	object := func(text string) map[string]any {
		var m map[string]any
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	for _, test := range []struct {
		name, text string
		maps       bool
		stays      []string
	}{
		{"secret", `{"kind":"Secret","metadata":{"name":"db"},"data":{"password":"CANARY"},"stringData":{"a":"CANARY"}}`, true, []string{"db", "password", "6 bytes"}},
		{"config map", `{"kind":"ConfigMap","data":{"file.yaml":"CANARY"},"binaryData":{"b":"CANARY"}}`, false, []string{"file.yaml"}},
		{"config map that is shown", `{"kind":"ConfigMap","data":{"port":"8080","dbPassword":"CANARY"}}`, true, []string{"8080"}},
		{"last applied", `{"kind":"Deployment","metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"CANARY","a":"b"}}}`, false, []string{`"a":"b"`}},
		{"large annotation", `{"kind":"X","metadata":{"annotations":{"x":"CANARY` + strings.Repeat("x", 2000) + `"}}}`, false, []string{"2006 bytes"}},
		{"template", `{"kind":"Deployment","spec":{"template":{"metadata":{"annotations":{"old/last-applied":"CANARY"}},"spec":{"containers":[{"env":[` +
			`{"name":"DB_PASSWORD","value":"CANARY"},{"name":"PORT","value":"80"},{"name":"T_KEY","valueFrom":{"secretKeyRef":{"name":"db","key":"pw"}}}]}]}}}}`, false, []string{"80", "db", "pw", "DB_PASSWORD"}},
		{"custom", `{"kind":"Database","spec":{"admin":{"password":"CANARY","secretName":"there"},"tokens":["x"],"apiKey":["CANARY"]}}`, false, []string{"there"}},
	} {
		m := object(test.text)
		support.Redact(m, test.maps)
		raw, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(raw); strings.Contains(got, "CANARY") {
			t.Errorf("%s: %s", test.name, got)
		} else {
			for _, s := range test.stays {
				if !strings.Contains(got, s) {
					t.Errorf("%s: %q is gone from %s", test.name, s, got)
				}
			}
		}
	}
}

func FuzzRedact(f *testing.F) {
	f.Add(`{"kind":"Secret","data":{"a":"b"}}`)
	f.Add(`{"kind":"Secret","data":[1],"metadata":3}`)
	f.Add(`{"metadata":{"annotations":{"a":null}},"env":[{"name":"TOKEN","value":{}}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		var m map[string]any
		if json.Unmarshal([]byte(text), &m) != nil {
			return
		}
		support.Redact(m, false)
		if data, ok := m["data"].(map[string]any); ok && m["kind"] == "Secret" {
			for k, v := range data {
				if s, ok := v.(string); !ok || !strings.HasPrefix(s, "(hidden)") {
					t.Errorf("%s: %v", k, v)
				}
			}
		}
	})
}
