package install

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/sealift/sealift/internal/ledger"
	"github.com/sealift/sealift/internal/site"
	"github.com/sealift/sealift/internal/trust"
	"github.com/sealift/sealift/verify"
)

// TestReadSecretsAreSecrets: a parameter that comes from a Secret is left out of plans, and of what binds them, also where the vendor
// does not call it a secret.
func TestReadSecretsAreSecrets(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "one"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "one", "Chart.yaml"), []byte("apiVersion: v2\nname: one\nversion: 0.1.0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	spec := "parameters:\n  - {name: host, type: string, values: [{release: one, path: host}]}\n  - {name: user, type: string, values: [{release: one, path: user}]}\ncharts:\n  - {path: one}\n"
	b := mustJudge(t, packSpec(t, dir, spec, nil))
	r := &Release{
		bundle: b, Spec: &b.Manifest().Charts[0], Values: map[string]any{"host": "canary", "user": "jane"},
		reads: Site{Secrets: map[string]SecretKey{"host": {"ns", "name", "k"}}}.secretKeys(),
	}
	values, secrets := r.otherSecrets()
	if len(secrets) != 1 || secrets[0] != "canary" || values["host"] == "canary" || values["user"] != "jane" {
		t.Errorf("secrets are %q, values %v", secrets, values)
	}
	// Another Secret is another plan.
	was, now := aPlan(), aPlan()
	was.Parameters[1] = Said{Name: "password", Secret: true, From: "ns/one:k"}
	now.Parameters[1] = Said{Name: "password", Secret: true, From: "ns/other:k"}
	var changed *PlanChangedError
	if err := was.Matches(now); !errors.As(err, &changed) {
		t.Errorf("got %v", err)
	}
}

// TestOlderThatIsAllowed: what an operator allows with a reason is not refused by the preflight.
func TestOlderThatIsAllowed(t *testing.T) {
	old := smallBundle(t, "1.0.0")
	b := mustJudge(t, old)
	record := &site.Record{Accepted: []site.Accepted{{
		Name: "shop", Channel: b.Manifest().Channel, Version: "2.0.0", Digest: "sha256:" + hexText("a"), Created: stamp(noon), At: stamp(noon),
	}}}
	allowed, err := judged(t, old, trust.Freshness{Record: record, AllowDowngrade: true})
	if err != nil {
		t.Fatal(err)
	}
	for want, bundle := range map[string]*verify.Bundle{LevelFail: b, LevelWarn: allowed} {
		p := &preflight{in: PreflightInput{Bundle: bundle, Plan: &Plan{}, State: &ledger.State{Installed: &ledger.Receipt{Version: "2.0.0"}}}}
		if found := p.version(t.Context()); len(found) != 1 || found[0].Level != want {
			t.Errorf("got %+v, want %s", found, want)
		}
	}
}

// TestBegun: what was judged here and is only begun is known, and raises nothing.
func TestBegun(t *testing.T) {
	b := mustJudge(t, smallBundle(t, "1.0.0"))
	dir := site.Open(filepath.Join(t.TempDir(), "state"))
	if _, err := Begun(t.Context(), []*verify.Bundle{b}, AcceptOptions{Dir: dir, Now: noon}); err != nil {
		t.Fatal(err)
	}
	record, err := dir.Read(t.Context())
	if err != nil || len(record.Accepted) != 0 || record.KnownDigest(b.Evidence().Manifest) == nil {
		t.Errorf("recorded is %+v: %v", record, err)
	}
}

func hexText(digit string) string {
	text := ""
	for range 64 {
		text += digit
	}
	return text
}
