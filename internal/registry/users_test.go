package registry

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// hashOf is a hash that takes no time.
func hashOf(t testing.TB, password string) string {
	t.Helper()
	h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(h)
}

func TestParseUsers(t *testing.T) {
	hash := hashOf(t, "x")
	// As Apache's htpasswd writes it.
	apache := strings.Replace(hash, "$2a$", "$2y$", 1)
	for _, c := range []struct {
		name, text string
		users      []string
		// line is that of the error, 0 for none.
		line int
	}{
		{"empty", "", nil, 0},
		{"one", "jane:" + hash + "\n", []string{"jane"}, 0},
		{"no newline at the end", "jane:" + hash, []string{"jane"}, 0},
		{"comments and space", "# users\n\n  jane:" + hash + " \r\njoe:" + apache + "\n", []string{"jane", "joe"}, 0},
		{"no hash", "jane\n", nil, 1},
		{"MD5 of Apache", "a:" + hash + "\njane:$apr1$x$y\n", nil, 2},
		{"plain text", "jane:secret\n", nil, 1},
		{"twice", "jane:" + hash + "\njane:" + hash + "\n", nil, 2},
		{"no name", ":" + hash + "\n", nil, 1},
		{"space in a name", "ja ne:" + hash + "\n", nil, 1},
		{"too dear", "jane:" + strings.Replace(hash, "$04$", "$31$", 1) + "\n", nil, 1},
	} {
		users, err := parseUsers("file", []byte(c.text))
		var bad *UsersFileError
		if c.line > 0 {
			if !errors.As(err, &bad) || bad.Line != c.line || strings.Contains(err.Error(), "secret") {
				t.Errorf("%s: %v, want an error of line %d", c.name, err, c.line)
			}
			continue
		}
		var names []string
		for name := range users {
			names = append(names, name)
		}
		slices.Sort(names)
		if err != nil || !slices.Equal(names, c.users) {
			t.Errorf("%s: %v, %v", c.name, names, err)
		}
	}
}

func TestEditUsers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dir", "users")
	var user *UserError
	for name, password := range map[string]string{"": "x", "a:b": "x", "a b": "x", "#a": "x", "a\x00": "x", "jane": "", "joe": strings.Repeat("x", MaxPassword+1), strings.Repeat("n", maxName+1): "x"} {
		if _, err := AddUser(path, name, password); !errors.As(err, &user) {
			t.Errorf("user %q with password %q: %v", name, password, err)
		}
	}
	if err := RemoveUser(path, "jane"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("removing from no file: %v", err)
	}
	for i, want := range []bool{false, true} {
		if was, err := AddUser(path, "jane", "x"); err != nil || was != want {
			t.Errorf("adding jane, time %d: %v, %v", i, was, err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	// What people write there stays.
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append([]byte("# ours\n"), bytes.TrimSpace(raw)...), 0o600); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	names := []string{"a", "b", "c", "d"}
	for _, name := range names {
		all.Go(func() {
			if _, err := AddUser(path, name, name); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got, err := ListUsers(path); err != nil || !slices.Equal(got, append(names, "jane")) {
		t.Errorf("users %v, %v", got, err)
	}
	if err := RemoveUser(path, "jane"); err != nil {
		t.Fatal(err)
	}
	if err := RemoveUser(path, "jane"); !errors.As(err, &user) || !user.Unknown {
		t.Errorf("removing jane again: %v", err)
	}
	if raw, err := os.ReadFile(path); err != nil || !bytes.HasPrefix(raw, []byte("# ours\na:")) && !bytes.HasPrefix(raw, []byte("# ours\n")) {
		t.Errorf("file %q, %v", raw, err)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("files %v, %v", left, err)
	}
}

// TestRightCredentialsAreRemembered: bcrypt is for the first of many requests.
func TestRightCredentialsAreRemembered(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(path, []byte("jane:"+hashOf(t, "x")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	u, err := OpenUsers(path)
	if err != nil {
		t.Fatal(err)
	}
	// Nobody gets a turn to compute any more after the first time.
	verify := func(ctx context.Context, name, password string) (bool, error) { return u.verify(ctx, name, password) }
	if ok, err := verify(t.Context(), "jane", "x"); !ok || err != nil {
		t.Fatal(ok, err)
	}
	for range cap(u.busy) {
		u.busy <- struct{}{}
	}
	if ok, err := verify(t.Context(), "jane", "x"); !ok || err != nil {
		t.Fatal(ok, err)
	}
	ended, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if ok, err := verify(ended, "jane", "y"); ok || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a wrong password: %v, %v", ok, err)
	}
	k := u.known
	for i := range 3 * maxKnown {
		k.setRight(k.digest("jane", strings.Repeat("x", i%70)+string(rune('a'+i/70))))
	}
	if len(k.right) > maxKnown {
		t.Errorf("%d credentials are remembered", len(k.right))
	}
	// A change of the file forgets them.
	if _, err := AddUser(path, "joe", "x"); err != nil {
		t.Fatal(err)
	}
	if now, err := u.current(); err != nil || len(now.right) != 0 || now.key == k.key {
		t.Errorf("%d credentials are remembered, %v", len(now.right), err)
	}
}

func FuzzParseUsers(f *testing.F) {
	f.Add("jane:" + hashOf(f, "x") + "\n# c\n\njoe:x")
	f.Add("a:b:c\r\n:\n\x00:$2a$04$")
	f.Fuzz(func(t *testing.T, text string) {
		users, err := parseUsers("file", []byte(text))
		if err != nil {
			return
		}
		for name, hash := range users {
			if bad := checkName(name); bad != nil {
				t.Errorf("name %q: %v", name, bad)
			}
			if cost, err := bcrypt.Cost([]byte(hash)); err != nil || cost > maxBcryptCost {
				t.Errorf("hash %q: %d, %v", hash, cost, err)
			}
		}
	})
}

func FuzzRedeem(f *testing.F) {
	path := filepath.Join(f.TempDir(), "users")
	if err := os.WriteFile(path, []byte("jane:"+hashOf(f, "x")+"\n"), 0o600); err != nil {
		f.Fatal(err)
	}
	users, err := OpenUsers(path)
	if err != nil {
		f.Fatal(err)
	}
	at := time.Unix(1_800_000_000, 0)
	g, err := newGate(FrontOptions{Users: users, TokenKey: []byte("key"), Now: func() time.Time { return at }})
	if err != nil {
		f.Fatal(err)
	}
	good, err := g.issue("jane", at)
	if err != nil {
		f.Fatal(err)
	}
	if name, ok := g.redeem(good); !ok || name != "jane" {
		f.Fatalf("a good token: %q, %v", name, ok)
	}
	f.Add(good)
	f.Add("e30." + base64.RawURLEncoding.EncodeToString(make([]byte, 32)))
	f.Add("..")
	f.Fuzz(func(t *testing.T, token string) {
		name, ok := g.redeem(token)
		if !ok {
			return
		}
		// Only the same, perhaps in another spelling of base64.
		said, _, _ := strings.Cut(token, ".")
		want, _, _ := strings.Cut(good, ".")
		got, err := base64.RawURLEncoding.DecodeString(said)
		if raw, wantErr := base64.RawURLEncoding.DecodeString(want); err != nil || wantErr != nil || !bytes.Equal(got, raw) || name != "jane" {
			t.Errorf("token %q of %q", token, name)
		}
	})
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(`{"config":{"digest":"sha256:a"},"layers":[{"digest":"b"}],"manifests":[{"digest":"c"}],"blobs":[{}],"fsLayers":[{"blobSum":"d"}],"subject":{"digest":"e"}}`))
	f.Add([]byte(`null`))
	f.Add([]byte(`[1]`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		names, subject, err := parseManifest(raw)
		if err != nil && (names != nil || subject != "") {
			t.Errorf("%v %q with an error", names, subject)
		}
		for _, n := range append(names, subject) {
			// Whatever it is, it is a key and nothing else; as a tag it leads to a digest or nowhere.
			if d := tagSubject(strings.Replace(string(n), ":", "-", 1)); d != "" && d.Validate() != nil {
				t.Errorf("subject %q", d)
			}
		}
	})
}

// TestManyLogins: who comes when too many wait is sent away, and not as one with a wrong password.
func TestManyLogins(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(path, []byte("jane:"+hashOf(t, "x")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	users, err := OpenUsers(path)
	if err != nil {
		t.Fatal(err)
	}
	users.waiting.Store(maxWaiting)
	g, err := newGate(FrontOptions{Users: users, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v2/", nil)
	r.SetBasicAuth("jane", "wrong")
	w := httptest.NewRecorder()
	if _, ok := g.admit(w, r); ok || w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "1" {
		t.Errorf("answered %d, %v", w.Code, w.Header())
	}
	users.waiting.Store(maxWaiting - 1)
	r.SetBasicAuth("jane", "x")
	if _, ok := g.admit(httptest.NewRecorder(), r); !ok || users.waiting.Load() != maxWaiting-1 {
		t.Errorf("the last one who may wait is let in: %t; %d wait", ok, users.waiting.Load())
	}
}
