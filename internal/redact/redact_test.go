package redact

import (
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"
)

const canary = "c4nary-S3cret"

func TestHide(t *testing.T) {
	k := New([]string{canary, `q"uo\te'd canary`, "line one of key\nline two of key\n", "abc", ""})
	twice, err := json.Marshal(`{"password":"` + canary + `"}`)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		"at " + canary + " end", strconv.Quote(`q"uo\te'd canary`), "  line two of key", string(twice),
		base64.StdEncoding.EncodeToString([]byte("user:" + canary + "@host")), base64.RawURLEncoding.EncodeToString([]byte(canary)),
	} {
		got := k.Hide(text)
		if strings.Contains(got, "S3cret") || strings.Contains(got, "canary") || strings.Contains(got, "line two") || got == text {
			t.Errorf("%q became %q", text, got)
		}
	}
	for _, text := range []string{"abc is too short", "c4nary-S3cre", ""} {
		if got := k.Hide(text); got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
	if got := New(nil).Hide(canary); got != canary {
		t.Errorf("got %q", got)
	}
}

// Thousands of secrets and a long log take no long time.
func TestHideMany(t *testing.T) {
	secrets := make([]string, 3000)
	for i := range secrets {
		secrets[i] = "secret-number-" + strconv.Itoa(i)
	}
	line := base64.StdEncoding.EncodeToString([]byte("nothing to be seen here, go on")) + " and some more words of a log line\n"
	began := time.Now()
	got := New(secrets).Hide(strings.Repeat(line, 10_000) + "secret-number-2999")
	if d := time.Since(began); d > 20*time.Second {
		t.Errorf("it took %v", d)
	}
	if !strings.HasSuffix(got, "\n"+Hidden) {
		t.Errorf("it ends with %q", got[len(got)-40:])
	}
}

func TestLooks(t *testing.T) {
	for text, want := range map[string]string{
		`password=` + canary:                                  `password=` + Hidden,
		`DB_PASSWORD: ` + canary + ` x`:                       `DB_PASSWORD: ` + Hidden + ` x`,
		`{"token": "` + canary + `", "a": 1}`:                 `{"token": "` + Hidden + `", "a": 1}`,
		`{\"api_key\":\"` + canary + `\"}`:                    `{\"api_key\":\"` + Hidden + `\"}`,
		`postgres://shop:` + canary + `@db:5432/x`:            `postgres://shop:` + Hidden + `@db:5432/x`,
		`Authorization: Bearer ` + canary:                     `Authorization: Bearer ` + Hidden,
		`run --admin-password ` + canary + ` --port 80`:       `run --admin-password ` + Hidden + ` --port 80`,
		"-----BEGIN RSA PRIVATE KEY-----\nMIIabc\n-----END":   "-----BEGIN RSA PRIVATE KEY-----" + Hidden + "-----END",
		`saw eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0 x`: `saw ` + Hidden + ` x`,
		// What says where a secret is, or that there is one, stays.
		`secretName: db-credentials`:           `secretName: db-credentials`,
		`automountServiceAccountToken: true`:   `automountServiceAccountToken: true`,
		`"tokenExpirationSeconds": 3607`:       `"tokenExpirationSeconds": 3607`,
		`the secret was found in shop/db`:      `the secret was found in shop/db`,
		`image: 127.0.0.1:5000/app@sha256:abc`: `image: 127.0.0.1:5000/app@sha256:abc`,
		`https://host:8443/path?q=user@host`:   `https://host:8443/path?q=user@host`,
	} {
		if got := Looks(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
		if got := Looks(Looks(text)); got != Looks(text) {
			t.Errorf("%q is not the same the second time: %q", text, got)
		}
	}
}

func TestIsName(t *testing.T) {
	for name, want := range map[string]bool{
		"DB_PASSWORD": true, "password": true, "apiKey": true, "STRIPE_KEY": true, "DB_PASS": true, "CREDENTIALS": true, "authToken": true,
		"secretName": false, "TOKEN_FILE": false, "key": false, "secretKeyRef": false, "PORT": false, "tokenExpirationSeconds": false, "monkey": false,
	} {
		if got := IsName(name); got != want {
			t.Errorf("%q: got %v, want %v", name, got, want)
		}
	}
}

func FuzzLooks(f *testing.F) {
	for _, s := range []string{`password="a`, `token: 'x'`, "a://b:c@d", "Bearer aaaaaaaaaaaa", "--secret x", "-----BEGIN PRIVATE KEY-----x", `\"pwd\":\"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1<<12 {
			return
		}
		_ = Looks(text)
		if got := Looks("password=" + canary + "\n" + text); strings.Contains(got, canary) && !strings.Contains(text, canary) {
			t.Errorf("%q became %q", text, got)
		}
		_ = New([]string{text}).Hide(text + canary)
	})
}
