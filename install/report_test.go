package install

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sealift/sealift/internal/ledger"
	"github.com/sealift/sealift/internal/release"
	"github.com/sealift/sealift/internal/site"
)

var update = flag.Bool("update", false, "write the golden files anew")

// reported is a report about fullReceipt, on a machine whose journal has it.
func reported(t *testing.T, change func(*ledger.State)) *Report {
	t.Helper()
	dir := site.Open(filepath.Join(t.TempDir(), "state"))
	s := installedState()
	failed := *fullReceipt()
	failed.ID, failed.Outcome, failed.Version, failed.Failure, failed.Ended = "20260228-1", ledger.OutcomeBack, "1.5.0", "pod \x1b[31mnot\x1b[0m ready\n# not a heading", "2026-02-28T12:00:00Z"
	s.History = []ledger.Receipt{failed}
	if change != nil {
		change(s)
	}
	head, err := dir.Update(t.Context(), noon, func(tx *site.Tx) error {
		s.Installed.Policy = tx.Put([]byte("mediaType: policy\nrules: []\n```\n# not a heading\n"))
		tx.Log(site.Event{Kind: site.KindExpired, Bundle: "shop", Version: "2.0.0", Digest: hex64("1"), Reason: "because | of", Detail: map[string]string{"what": "expired"}})
		tx.Log(site.Event{Kind: site.KindAccept, Bundle: "other", Version: "1.0.0"})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Installed.JournalSeq, s.Installed.JournalDigest = head.Seq, head.Digest
	if _, err := KeepReceipt(t.Context(), dir, s.Installed, noon); err != nil {
		t.Fatal(err)
	}
	in := &seen{releases: map[string]*release.Examined{"shop/web-green@7": healthy(7, running("registry.example/prod/shop/web:2.0.0", hex64("8")))}}
	r, err := MakeReport(t.Context(), ReportInput{
		State: s, Receipt: s.Installed, Status: statusNow(t, s, in, nil), Dir: dir, Now: noon, By: "root@bastion", Tool: "1.2.3",
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is another one; 'go test ./install -run Report -update' writes it anew. Got:\n%s", path, got)
	}
}

// TestReport compares both forms of a report with what they were.
func TestReport(t *testing.T) {
	r := reported(t, nil)
	golden(t, "report.md", []byte(r.Markdown()))
	raw, err := r.JSON()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "report.json", raw)
	if !bytes.HasPrefix(raw, []byte("{\n  \"mediaType\": \""+ReportMediaType+`"`)) || !json.Valid(raw) {
		t.Errorf("it begins with %s", raw[:60])
	}
}

// TestReportBindsTheReceipt: the journal's entry is found, and a journal that was changed is said not to be proven.
func TestReportBindsTheReceipt(t *testing.T) {
	r := reported(t, nil)
	if j := r.Journal; !j.Holds || j.Receipt != 3 || !j.Recorded || len(j.Entries) != 2 || j.Head.Seq != 3 {
		t.Errorf("the journal is %+v", j)
	}
	if r.Policy.Missing != "" || !strings.Contains(r.Policy.Text, "rules:") {
		t.Errorf("the policy is %+v", r.Policy)
	}
	path := filepath.Join(t.TempDir(), "state")
	dir := site.Open(path)
	s := installedState()
	if _, err := KeepReceipt(t.Context(), dir, s.Installed, noon); err != nil {
		t.Fatal(err)
	}
	journal := filepath.Join(path, "journal.jsonl")
	raw, err := os.ReadFile(journal)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(journal, bytes.Replace(raw, []byte("upgrade"), []byte("install"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	bad, err := MakeReport(t.Context(), ReportInput{State: s, Receipt: s.Installed, Dir: dir, Now: noon})
	if err != nil {
		t.Fatal(err)
	}
	if bad.Journal.Holds || bad.Journal.Problem == "" || !strings.Contains(bad.Markdown(), "not proven") {
		t.Errorf("the journal is %+v", bad.Journal)
	}
	none, err := MakeReport(t.Context(), ReportInput{State: s, Receipt: s.Installed, Now: noon})
	if err != nil || none.Journal.Holds || none.Policy.Missing == "" {
		t.Errorf("without a directory: %+v, %v", none, err)
	}
}

// hostile is what a vendor, a cluster or an operator might write to be read as something else.
var hostile = []string{
	"# heading", "| cell |", "<script>alert(1)</script>", "![x](http://evil.example/x.png)", "[x](javascript:alert(1))", "`code`", "a\n\n# heading\n", "\x1b[2J", "\u202ereversed", "https://evil.example", "<!--", "&lt;", "***", "\\|", "``` \n# heading",
}

// hostileReceipt has a hostile text in each member that others write.
func hostileReceipt(text string) func(*ledger.State) {
	return func(s *ledger.State) {
		r := s.Installed
		for _, p := range []*string{
			&r.Failure, &r.Reason, &r.By, &r.Environment, &r.BackupDone, &r.Registry, &r.Cluster, &r.Kubernetes, &r.Rule, &r.Replaces, &r.Plan, &r.Values, &r.Tool, &r.Version, &r.Channel,
			&r.Signers[0].Who, &r.Signers[0].Times[0], &r.Groups[0].Name, &r.Groups[0].Signers[0], &r.Groups[0].Root, &r.Roots[0].Name, &r.Overrides[0], &r.Parameters[0].Name, &r.Parameters[0].Value,
			&r.NoReturn[0], &r.Kept[0], &r.Releases[0].Chart, &r.Releases[0].Front.Name, &r.Images[0].Source, &r.Images[0].Target, &r.Images[0].Referrers[0].ArtifactType, &r.Checks[0].Name, &r.Checks[0].Result,
			&s.History[0].Failure, &s.History[0].By,
		} {
			*p = text
		}
	}
}

var (
	cellPattern     = regexp.MustCompile(`(?:[^|\\]|\\.)*`)
	escapedPattern  = regexp.MustCompile(`\\.`)
	codeSpanPattern = regexp.MustCompile("`[^`]*`")
)

// TestReportIsSafe: whatever others have written stays a text: the document has the same lines, the same cells, and no more markup than
// with harmless texts.
func TestReportIsSafe(t *testing.T) {
	shape := func(text string) (lines []string) {
		t.Helper()
		for line := range strings.Lines(text) {
			line = strings.TrimSuffix(line, "\n")
			switch {
			case strings.HasPrefix(line, "|"):
				lines = append(lines, strings.Repeat("|", len(cellPattern.FindAllString(line, -1))))
			case strings.HasPrefix(line, "#"):
				lines = append(lines, "#")
			default:
				lines = append(lines, "")
			}
		}
		return lines
	}
	want := shape(reported(t, hostileReceipt("harmless")).Markdown())
	for _, text := range hostile {
		got := reported(t, hostileReceipt(text)).Markdown()
		if s := shape(got); strings.Join(s, "\n") != strings.Join(want, "\n") {
			t.Errorf("%q changes the shape of the document:\n%s", text, got)
		}
		before, rest, _ := strings.Cut(got, "````yaml\n")
		_, after, _ := strings.Cut(rest, "\n````\n")
		// What has a backslash before it is a text.
		outside := codeSpanPattern.ReplaceAllString(escapedPattern.ReplaceAllString(before+after, ""), "")
		for _, bad := range []string{"<script", "![x]", "](", "\x1b", "\u202e", "://", "<!--"} {
			if strings.Contains(outside, bad) {
				t.Errorf("%q gets through as %q", text, bad)
			}
		}
	}
}

// TestReportHoldsNoSecret: a parameter that is secret has no value in any form of a report.
func TestReportHoldsNoSecret(t *testing.T) {
	r := reported(t, func(s *ledger.State) { s.Installed.Parameters[1].Value = "hunter2" })
	if strings.Contains(r.Markdown(), "hunter2") {
		t.Error("the secret is in the Markdown")
	}
	raw, err := r.JSON()
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(raw, []byte("hunter2")) {
		t.Error("the secret is in the JSON")
	}
}
