package cli

import (
	"io"
	"path/filepath"
	"testing"
	"time"

	"github.com/sealift/sealift/internal/ledger"
	"github.com/sealift/sealift/internal/site"
)

// TestPromoted: a promotion that ends an install is recorded on this machine as an install is.
func TestPromoted(t *testing.T) {
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	a := &app{env: Env{Stderr: io.Discard, Now: func() time.Time { return now }, LookupEnv: func(string) (string, bool) { return "", false }}}
	path := filepath.Join(t.TempDir(), "state")
	s := recorded()
	head, err := a.promoted(t.Context(), path, s.Name, s, s.Installed)
	if err != nil {
		t.Fatal(err)
	}
	dir := site.Open(path)
	record, err := dir.Read(t.Context())
	if err != nil || record.Find("shop", "stable") == nil || *head != record.Journal {
		t.Fatalf("recorded is %+v: %v", record, err)
	}
	kinds := map[string]int{}
	if _, err := dir.Journal(t.Context(), func(e site.Entry) error { kinds[e.Kind]++; return nil }); err != nil {
		t.Fatal(err)
	}
	if kinds[site.KindReceipt] != 1 || kinds[site.KindCatchUp] != 1 {
		t.Errorf("the journal has %v", kinds)
	}
	// One that was changed back raises nothing.
	back := *s.Installed
	back.Outcome = ledger.OutcomeBack
	path = filepath.Join(t.TempDir(), "other")
	if _, err := a.promoted(t.Context(), path, s.Name, s, &back); err != nil {
		t.Fatal(err)
	}
	if record, err = site.Open(path).Read(t.Context()); err != nil || len(record.Accepted) != 0 {
		t.Errorf("recorded is %+v: %v", record, err)
	}
}

// TestLogWholeSecrets: a text that is cut for the log does not keep half of a secret.
func TestLogWholeSecrets(t *testing.T) {
	a := &app{}
	a.secrets.add(logSecret)
	long := make([]byte, maxLogText-5)
	for i := range long {
		long[i] = '.'
	}
	got := logText(string(long)+logSecret+string(long), a.hide)
	if want := string(long) + "(hid"; got[:len(want)] != want {
		t.Errorf("it ends with %q", got[len(got)-40:])
	}
}
