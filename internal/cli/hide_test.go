package cli

import (
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"
	"testing"
)

func TestHide(t *testing.T) {
	pem := "-----BEGIN KEY-----\nMIIBVAIBADANBgkqhkiG9w0BAQ\nEFAASCAT4wggE6AgEAAkEAq7BF\n-----END KEY-----"
	a := &app{}
	a.secrets.add("admin", "admin-Secret99", `pa"ss\wo"rd`, pem, "e", "")
	once, err := json.Marshal(`pa"ss\wo"rd`)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"plain":           "password: admin-Secret99",
		"quoted":          "password: " + strconv.Quote(`pa"ss\wo"rd`),
		"quoted twice":    strconv.Quote(strconv.Quote(`pa"ss\wo"rd`)),
		"JSON, quoted":    strconv.Quote(string(once)),
		"base64":          base64.StdEncoding.EncodeToString([]byte("admin-Secret99")),
		"base64 of more":  "auth: " + base64.StdEncoding.EncodeToString([]byte("user:admin-Secret99@host")),
		"for an address":  base64.RawURLEncoding.EncodeToString([]byte("??admin-Secret99>>")),
		"lines, indented": "    " + strings.ReplaceAll(pem, "\n", "\n    "),
	} {
		got := a.hide(text)
		for _, part := range []string{"Secret99", `wo"rd`, `wo\\"rd`, "U2VjcmV0", "MIIBVAIB", "EFAASCAT", base64.StdEncoding.EncodeToString([]byte("user:admin-Sec"))} {
			if strings.Contains(got, part) {
				t.Errorf("%s: %q is in %q", name, part, got)
			}
		}
		if !strings.Contains(got, hidden) {
			t.Errorf("%s: nothing is hidden in %q", name, got)
		}
	}
	// What is shorter than a secret is left alone, and what was hidden is not looked at again.
	if got := a.hide("here is the plan"); got != "here is the plan" {
		t.Errorf("got %q", got)
	}
	if got := a.hide("admin admin"); got != hidden+" "+hidden {
		t.Errorf("got %q", got)
	}
}
