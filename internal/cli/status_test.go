package cli

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sealift/sealift/install"
	"github.com/sealift/sealift/internal/ledger"
	"github.com/sealift/sealift/internal/sigstore"
	"github.com/sealift/sealift/internal/site"
	"github.com/sealift/sealift/internal/trust"
	"github.com/sealift/sealift/verify"
)

// recordsOf serves the records of a cluster that has one state, and returns a kubeconfig for it. refuse is the status of its
// answers, 0 for none.
func recordsOf(t *testing.T, s *ledger.State, refuse *int) string {
	t.Helper()
	raw, err := ledger.Encode(s)
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	secret := fmt.Sprintf(`{"kind":"Secret","apiVersion":"v1","metadata":{"name":"sealift.%s","namespace":"sealift","resourceVersion":"1","labels":{"sealift/record":%q}},"data":{"state.json.gz":%q}}`,
		s.Name, s.Name, base64.StdEncoding.EncodeToString(packed.Bytes()))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case *refuse != 0:
			w.WriteHeader(*refuse)
			fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","message":"no","code":403}`)
		case r.Method != http.MethodGet:
			t.Errorf("%s %s", r.Method, r.URL)
		case r.URL.Path == "/api/v1/namespaces/sealift/secrets":
			fmt.Fprintf(w, `{"kind":"SecretList","apiVersion":"v1","items":[%s]}`, secret)
		case r.URL.Path == "/api/v1/namespaces/sealift/secrets/sealift."+s.Name:
			fmt.Fprint(w, secret)
		default:
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`)
		}
	}))
	t.Cleanup(srv.Close)
	path := filepath.Join(t.TempDir(), "kubeconfig")
	config := fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{name: c, cluster: {server: %q}}]\ncontexts: [{name: c, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {token: t}}]\n", srv.URL)
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func recorded() *ledger.State {
	digest := "sha256:" + strings.Repeat("a", 64)
	return &ledger.State{
		Name: "shop",
		Installed: &ledger.Receipt{
			ID: "r-2", Action: ledger.ActionInstall, Outcome: ledger.OutcomeDone, Bundle: "shop", Version: "2.0.0", Channel: "stable", Manifest: digest,
			Created: "2026-01-01T00:00:00Z", Begun: "2026-02-01T00:00:00Z", Ended: "2026-02-01T00:00:00Z", By: "root@a",
			Parameters: []ledger.Parameter{{Name: "password", Secret: true}},
		},
		Accepted: []ledger.Accepted{{Channel: "stable", Version: "2.0.0", Digest: digest, Created: "2026-01-01T00:00:00Z", At: "2026-02-01T00:00:00Z"}},
	}
}

// runRecords runs a command against the records of a cluster.
func runRecords(t *testing.T, kubeconfig string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, problems bytes.Buffer
	vars := map[string]string{"KUBECONFIG": kubeconfig, "SEALIFT_STATE": filepath.Join(t.TempDir(), "state"), "COSIGN_PASSWORD": "x"}
	code = Run(t.Context(), args, Env{
		Stdin: strings.NewReader(""), Stdout: &out, Stderr: &problems,
		LookupEnv: func(k string) (string, bool) { v, ok := vars[k]; return v, ok },
		Now:       func() time.Time { return time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC) },
	})
	return code, out.String(), problems.String()
}

// TestReceiptIsCarriedBack: what the cluster has recorded is written, signed, and proven elsewhere.
func TestReceiptIsCarriedBack(t *testing.T) {
	none := 0
	kubeconfig := recordsOf(t, recorded(), &none)
	dir := t.TempDir()
	keys := map[string]string{}
	for _, name := range []string{"site", "other"} {
		private, public, err := sigstore.GenerateKeyPair([]byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		keys[name] = filepath.Join(dir, name)
		for suffix, content := range map[string][]byte{".key": private, ".pub": public} {
			if err := os.WriteFile(keys[name]+suffix, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	file := filepath.Join(dir, "receipt.json")
	if code, _, stderr := runRecords(t, kubeconfig, "receipt", "--id", "r-", "--sign", "--key", keys["site"]+".key", "-o", file); code != ExitOK {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	if code, stdout, _ := runRecords(t, kubeconfig, "receipt"); code != ExitOK || !strings.HasPrefix(stdout, `{"mediaType":"`+install.ReceiptMediaType+`"`) {
		t.Errorf("exit code %d: %s", code, stdout)
	}
	// A document of another type, signed with the same key.
	signer, err := sigstore.LoadSigner(mustRead(t, keys["site"]+".key"), []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	policy := filepath.Join(dir, "policy.json")
	signature, err := signer.Sign([]byte(`{"mediaType":"application/vnd.sealift.policy.v1+json","id":"x"}`))
	if err != nil {
		t.Fatal(err)
	}
	for path, content := range map[string][]byte{
		policy: []byte(`{"mediaType":"application/vnd.sealift.policy.v1+json","id":"x"}`), policy + verify.DetachedSuffix: signature,
		filepath.Join(dir, "unsigned.json"): mustRead(t, file),
		filepath.Join(dir, "changed.json"):  bytes.Replace(mustRead(t, file), []byte("2.0.0"), []byte("2.0.1"), 1), filepath.Join(dir, "changed.json") + verify.DetachedSuffix: mustRead(t, file+verify.DetachedSuffix),
	} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		file, key string
		want      int
	}{
		{file, keys["site"], ExitOK},
		{file, keys["other"], ExitUntrusted},
		{filepath.Join(dir, "unsigned.json"), keys["site"], ExitUnsigned},
		{filepath.Join(dir, "changed.json"), keys["site"], ExitUntrusted},
		{policy, keys["site"], ExitContent},
		{filepath.Join(dir, "none"), keys["site"], ExitFailure},
	} {
		code, stdout, stderr := runRecords(t, kubeconfig, "receipt", "check", c.file, "--key", c.key+".pub")
		if code != c.want || c.want == ExitOK && !strings.Contains(stdout, "install of shop 2.0.0: done") {
			t.Errorf("%s: exit code %d, want %d: %s%s", c.file, code, c.want, stdout, stderr)
		}
	}
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestExitCodesOfStatus: monitoring goes by them.
func TestExitCodesOfStatus(t *testing.T) {
	well := &install.Status{Bundle: "a", Condition: ledger.ConditionInstalled, Healthy: true}
	ill := &install.Status{Bundle: "b", Condition: ledger.ConditionInstalled}
	open := &install.Status{Bundle: "c", Condition: ledger.ConditionHeld, Open: &install.OpenStatus{}}
	for want, all := range map[int][]*install.Status{ExitCluster: {well, ill}, ExitHeld: {well, ill, open}} {
		if code := exitCode(t.Context(), install.JudgeStatus(all, false, "n")); code != want {
			t.Errorf("exit code %d, want %d", code, want)
		}
	}
	if code := exitCode(t.Context(), install.JudgeStatus(nil, false, "n")); code != ExitCluster {
		t.Errorf("nothing: exit code %d", code)
	}
}

// TestCatchUp: what another machine has accepted in the cluster counts here: on the disk for an install, in memory for a plan; an account
// that may not read it is warned.
func TestCatchUp(t *testing.T) {
	var refuse int
	kubeconfig := recordsOf(t, recorded(), &refuse)
	for _, c := range []struct {
		name     string
		write    bool
		refuse   int
		accepted bool
	}{{"install", true, 0, true}, {"plan", false, 0, true}, {"forbidden", true, http.StatusForbidden, false}} {
		refuse = c.refuse
		var stderr bytes.Buffer
		a := &app{env: Env{Stderr: &stderr, Now: func() time.Time { return time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC) }, LookupEnv: func(string) (string, bool) { return "", false }}}
		cluster, err := a.connect(&clusterFlags{kubeconfig: kubeconfig, timeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		dir := site.Open(filepath.Join(t.TempDir(), "state"))
		tr := &trusting{dir: dir, record: &site.Record{}}
		tr.policy.Freshness = &trust.Freshness{Record: tr.record}
		if err := a.catchUp(t.Context(), tr, cluster.Ledger("sealift"), c.write); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := tr.policy.Freshness.Record.Find("shop", "stable"); (got != nil) != c.accepted {
			t.Errorf("%s: it is judged by %+v", c.name, got)
		}
		kept, err := dir.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if has := kept.Find("shop", "stable") != nil; has != (c.write && c.accepted) {
			t.Errorf("%s: recorded here: %v", c.name, has)
		}
		if warned := strings.Contains(stderr.String(), "may not be read"); warned != (c.refuse != 0) {
			t.Errorf("%s: %s", c.name, stderr.String())
		}
	}
}

// TestHistoryCommand lists what there is, and names what there is not.
func TestHistoryCommand(t *testing.T) {
	none := 0
	kubeconfig := recordsOf(t, recorded(), &none)
	code, stdout, stderr := runRecords(t, kubeconfig, "history", "--output", "json")
	var got struct {
		Bundle   string                 `json:"bundle"`
		Receipts []install.HistoryEntry `json:"receipts"`
	}
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || code != ExitOK || got.Bundle != "shop" || len(got.Receipts) != 1 || !got.Receipts[0].Installed {
		t.Errorf("exit code %d: %s%s (%v)", code, stdout, stderr, err)
	}
	if code, _, stderr := runRecords(t, kubeconfig, "receipt", "--id", "other"); code != ExitFailure || !strings.Contains(stderr, "history") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if code, _, stderr := runRecords(t, kubeconfig, "report", "--format", "html"); code != ExitFailure {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}
