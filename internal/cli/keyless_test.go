package cli_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealift/sealift/internal/cli"
	"github.com/sealift/sealift/internal/sigstore/sigtest"
)

// TestKeyless: a bundle is packed unsigned, CI signs its manifest without a key of its own, and the
// site proves the identity, and when it signed, with nothing but a trusted root.
func TestKeyless(t *testing.T) {
	const issuer, subject = "https://ci.example", "https://git.example/acme/shop/release.yml@refs/tags/v1.0.0"
	dir := t.TempDir()
	d := &dialed{}
	virtual := sigtest.New(t)
	bundle := packOne(t, dir)
	if err := os.Remove(bundle); err != nil {
		t.Fatal(err)
	}
	vendor := serveImages(t)
	spec := writeSpec(t, dir, vendor)
	must := func(args ...string) string {
		t.Helper()
		code, stdout, stderr := d.run(t, dir, args...)
		if code != 0 {
			t.Fatalf("%v: exit code %d: %s", args, code, stderr)
		}
		return stdout
	}
	must("pack", "-f", spec, "-o", dir, "--unsigned")
	raw := must("inspect", "--manifest", bundle)

	// What is over other bytes is not attached.
	other := filepath.Join(dir, "other.sigstore.json")
	write(t, other, virtual.SignBlob(t, issuer, subject, []byte(raw+" "), sigtest.Options{TSA: true}))
	if code, _, stderr := d.run(t, dir, "sign", bundle, "--sigstore-bundle", other); code != cli.ExitFailure || !strings.Contains(stderr, "hint: make it with 'cosign sign-blob") {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	signed := filepath.Join(dir, "ci.sigstore.json")
	write(t, signed, virtual.SignBlob(t, issuer, subject, []byte(raw), sigtest.Options{TSA: true, Log: true}))
	if out := must("sign", bundle, "--sigstore-bundle", signed); !strings.Contains(out, subject+" by "+issuer) {
		t.Fatal(out)
	}

	policy := filepath.Join(dir, "trust.yaml")
	write(t, policy, fmt.Appendf(nil, `mediaType: application/vnd.sealift.policy.v1+yaml
trustedRoot: %q
signers:
  ci: {issuer: %q, subject: "https://git.example/acme/shop/release.yml@refs/tags/*"}
rules:
  - name: shop
    bundles: [shop]
    transparencyLog: required
    signedTimestamp: required
    groups: [{name: vendor, threshold: 1, signers: [ci]}]
`, virtual.TrustedRoot(t, sigtest.RootOptions{TSA: true, Log: true}), issuer))
	must("trust", "init", policy)
	var result struct {
		Evidence struct {
			Rule   string
			Signed []struct {
				Issuer, Subject string
				Times           []struct{ Kind string }
				Logs            []string
			}
		}
	}
	if err := json.Unmarshal([]byte(must("verify", "--output", "json", bundle)), &result); err != nil {
		t.Fatal(err)
	}
	s := result.Evidence.Signed
	if len(s) != 1 || s[0].Issuer != issuer || s[0].Subject != subject || len(s[0].Times) != 2 || len(s[0].Logs) != 1 || result.Evidence.Rule != "shop" {
		t.Fatalf("%+v", result)
	}
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
}
