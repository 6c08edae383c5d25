package install

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"
	"unicode"

	"github.com/sealift/sealift/internal/ledger"
	"github.com/sealift/sealift/internal/site"
	"github.com/sealift/sealift/internal/trust"
	"github.com/sealift/sealift/manifest"
)

// ReportMediaType is the first member of every report in JSON.
const ReportMediaType = "application/vnd.sealift.report.v1+json"

const (
	// maxReportEntries bounds the journal entries of a bundle in a report: the newest count.
	maxReportEntries = 500
	// maxPolicyText bounds the text of the policy in a report, in bytes.
	maxPolicyText = 64 << 10
)

// Report is what an auditor asks for about one install: whose bundle it was and how that was proven, who approved it, what was
// overridden and why, what was installed and what runs. It holds no secrets.
type Report struct {
	MediaType string `json:"mediaType"`
	// Made is when the report was made, By whom, with which version of Sealift.
	Made string `json:"made"`
	By   string `json:"by"`
	Tool string `json:"tool,omitempty"`
	// Receipt is the receipt of the install, Digest that of the statement that 'sealift receipt' writes.
	Receipt *ledger.Receipt `json:"receipt"`
	Digest  string          `json:"digest"`
	Policy  *PolicyText     `json:"policy,omitempty"`
	// Status is how the bundle stands now; nil where it was not asked for, as for a receipt of the past.
	Status *Status `json:"status,omitempty"`
	// History are all receipts of the bundle, newest first.
	History []HistoryEntry `json:"history"`
	Journal JournalReport  `json:"journal"`
}

// PolicyText is the policy by which a bundle was accepted.
type PolicyText struct {
	Digest string `json:"digest"`
	Rule   string `json:"rule"`
	// Text is that of the policy; empty where this machine has it not, for which Missing says why.
	Text    string `json:"text,omitempty"`
	Missing string `json:"missing,omitempty"`
}

// HistoryEntry is a receipt in short.
type HistoryEntry struct {
	ID       string `json:"id"`
	Action   string `json:"action"`
	Outcome  string `json:"outcome"`
	Version  string `json:"version"`
	Manifest string `json:"manifest"`
	Replaces string `json:"replaces,omitempty"`
	Begun    string `json:"begun"`
	Ended    string `json:"ended,omitempty"`
	By       string `json:"by"`
	Failure  string `json:"failure,omitempty"`
	// Installed says that this is what is installed now.
	Installed bool `json:"installed,omitempty"`
}

// JournalReport is what the journal of this machine says about a bundle.
type JournalReport struct {
	// Holds says that the chain was proven from its first entry to its end; Problem is why not.
	Holds   bool      `json:"holds"`
	Problem string    `json:"problem,omitempty"`
	Head    site.Head `json:"head"`
	// Receipt is the entry that binds the receipt to the chain, 0 for none; Recorded says that the end of the journal that
	// the receipt names is on the chain. Both may be so on another machine of the site.
	Receipt  int64 `json:"receipt,omitempty"`
	Recorded bool  `json:"recorded"`
	// Entries are those about the bundle, oldest first; Omitted counts older ones.
	Entries []site.Entry `json:"entries"`
	Omitted int          `json:"omitted,omitempty"`
}

// ReportInput is what a report is made from.
type ReportInput struct {
	State *ledger.State
	// Receipt is one of those of the state.
	Receipt *ledger.Receipt
	// Status is that of now; nil for none.
	Status *Status
	// Dir is the state directory of this machine; nil where there is none.
	Dir  *site.Dir
	Now  time.Time
	By   string
	Tool string
}

// MakeReport makes a report. What the machine does not know is said in it. Errors are that of ctx, or about a receipt that cannot be
// written.
func MakeReport(ctx context.Context, in ReportInput) (*Report, error) {
	raw, err := EncodeReceipt(in.Receipt)
	if err != nil {
		return nil, err
	}
	receipt := withoutSecrets(in.Receipt)
	r := &Report{
		MediaType: ReportMediaType, Made: stamp(in.Now), By: in.By, Tool: in.Tool,
		Receipt: &receipt, Digest: manifest.Digest(raw), Status: in.Status, History: History(in.State),
	}
	r.Journal.Entries = []site.Entry{}
	r.policy(in.Dir)
	if in.Dir == nil {
		r.Journal.Problem = "this machine keeps no journal"
		return r, nil
	}
	if err := r.journal(ctx, in.Dir); err != nil {
		return nil, err
	}
	return r, nil
}

// History are the receipts of a state in short, newest first.
func History(s *ledger.State) []HistoryEntry {
	list := []HistoryEntry{}
	for _, r := range Receipts(s) {
		list = append(list, HistoryEntry{
			ID: r.ID, Action: r.Action, Outcome: r.Outcome, Version: r.Version, Manifest: r.Manifest, Replaces: r.Replaces,
			Begun: r.Begun, Ended: r.Ended, By: r.By, Failure: r.Failure, Installed: r == s.Installed,
		})
	}
	return list
}

func (r *Report) policy(dir *site.Dir) {
	if r.Receipt.Policy == "" {
		return
	}
	r.Policy = &PolicyText{Digest: r.Receipt.Policy, Rule: r.Receipt.Rule}
	if dir == nil {
		r.Policy.Missing = "this machine keeps none"
		return
	}
	raw, err := dir.Document(r.Receipt.Policy, trust.MaxPolicyBytes)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.Policy.Missing = "the install was done on a machine that had it"
	case err != nil:
		r.Policy.Missing = err.Error()
	case len(raw) > maxPolicyText:
		r.Policy.Missing = fmt.Sprintf("it has %d bytes: 'sealift trust show --policy' prints it", len(raw))
	default:
		r.Policy.Text = string(raw)
	}
}

// journal proves the journal and finds what is about the bundle in it.
func (r *Report) journal(ctx context.Context, dir *site.Dir) error {
	j := &r.Journal
	head, err := dir.Journal(ctx, func(e site.Entry) error {
		if e.Prev != "" && e.Prev == r.Receipt.JournalDigest {
			j.Recorded = true
		}
		if e.Kind == site.KindReceipt && e.Digest == r.Digest {
			j.Receipt = e.Seq
		}
		if e.Bundle != r.Receipt.Bundle {
			return nil
		}
		if len(j.Entries) == maxReportEntries {
			j.Entries = append(j.Entries[:0], j.Entries[1:]...)
			j.Omitted++
		}
		j.Entries = append(j.Entries, e)
		return nil
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		j.Problem = err.Error()
		return nil //nolint:nilerr // a journal that does not hold is what the report says
	}
	j.Head, j.Holds = head, head.Seq > 0
	j.Recorded = j.Recorded || head.Seq > 0 && head.Digest == r.Receipt.JournalDigest
	if head.Seq == 0 {
		j.Problem = "this machine has no journal"
	}
	return nil
}

// Markdown is the report for people (GitHub-flavoured Markdown). Texts of vendors, clusters and operators are escaped: none of them can
// become a heading, a link, an image or HTML.
func (r *Report) Markdown() string {
	w := &markdown{}
	x := r.Receipt
	w.line("# Report: %s %s", plain(x.Bundle), plain(x.Version))
	w.line("")
	w.table("", "", [][]string{
		{"Made", plain(r.Made) + " by " + code(r.By) + ifAny(" with Sealift ", r.Tool)},
		{"Receipt", code(x.ID) + ", statement " + code(r.Digest)},
		{"Outcome", plain(x.Action) + ": " + plain(x.Outcome)},
		{"Failure", plain(x.Failure)},
		{"Cluster", code(x.Cluster) + ifAny(", Kubernetes ", x.Kubernetes)},
		{"Begun", plain(x.Begun)},
		{"Ended", plain(x.Ended)},
		{"By", code(x.By) + ifAny(" with Sealift ", x.Tool)},
	})
	w.section("Bundle")
	w.table("", "", [][]string{
		{"Name and version", plain(x.Bundle) + " " + plain(x.Version) + " (channel " + plain(x.Channel) + ")"},
		{"Manifest", code(x.Manifest)},
		{"Made by the vendor", plain(x.Created)},
		{"Expires", plain(x.Expires)},
		{"Replaces", plain(x.Replaces)},
		{"Images from", code(orText(x.Registry, "the nodes (containerd)"))},
	})
	r.writeTrust(w)
	r.writeOverrides(w)
	r.writeSettings(w)
	r.writeReleases(w)
	r.writeImages(w)
	r.writeStatus(w)
	w.section("History")
	rows := [][]string{}
	for _, h := range r.History {
		now := ""
		if h.Installed {
			now = "installed now"
		}
		rows = append(rows, []string{plain(orText(h.Ended, h.Begun)), plain(h.Action), plain(h.Version), plain(h.Outcome), code(h.By), plain(strings.TrimSpace(now + " " + h.Failure))})
	}
	w.rows([]string{"when", "action", "version", "outcome", "by", "remark"}, rows)
	r.writeJournal(w)
	return w.b.String()
}

func (r *Report) writeTrust(w *markdown) {
	x := r.Receipt
	w.section("Signatures")
	if x.Unsigned {
		w.line("**Nobody is proven to have made this bundle** (--insecure-skip-signature).")
		w.line("")
	}
	rows := [][]string{}
	for _, s := range x.Signers {
		rows = append(rows, []string{code(s.Who), orText(codes(s.Times), "not proven")})
	}
	w.rows([]string{"signer", "time that is proven"}, rows)
	if len(x.Groups) > 0 {
		w.section("Approvals")
		rows = [][]string{}
		for _, g := range x.Groups {
			by := "the policy"
			if g.Root != "" {
				by = fmt.Sprintf("root %s, version %d", plain(g.Root), g.RootVersion)
			}
			rows = append(rows, []string{plain(g.Name), fmt.Sprintf("%d of %d wanted", len(g.Signers), g.Threshold), codes(g.Signers), by})
		}
		w.rows([]string{"group", "signed", "who", "named by"}, rows)
	}
	if len(x.Roots) > 0 {
		w.section("Roots")
		rows = [][]string{}
		for _, root := range x.Roots {
			rows = append(rows, []string{plain(root.Name), fmt.Sprint(root.Version), code(root.Digest)})
		}
		w.rows([]string{"root", "version", "digest"}, rows)
	}
	if p := r.Policy; p != nil {
		w.section("Policy")
		w.line("Rule %s of the policy %s.", code(p.Rule), code(p.Digest))
		w.line("")
		if p.Text != "" {
			w.fence("yaml", p.Text)
		} else {
			w.line("Its text is missing (%s).", plain(p.Missing))
			w.line("")
		}
	}
}

func (r *Report) writeOverrides(w *markdown) {
	w.section("Overrides")
	x := r.Receipt
	if len(x.Overrides) == 0 {
		w.line("None.")
		w.line("")
		return
	}
	w.line("Reason: %s", orText(plain(x.Reason), "none was given"))
	w.line("")
	for _, o := range x.Overrides {
		w.line("- %s", plain(o))
	}
	w.line("")
}

func (r *Report) writeSettings(w *markdown) {
	x := r.Receipt
	w.section("Plan, values and consent")
	rows := [][]string{
		{"Plan", orText(code(x.Plan), "none was saved")},
		{"Environment", orText(plain(x.Environment), "none")},
		{"Values of the site", orText(code(x.Values), "none")},
		{"Backup", orText(plain(x.BackupDone), "none was named")},
		{"Points of no return", orText(bullets(x.NoReturn), "none")},
		{"Kept", orText(bullets(x.Kept), "nothing")},
	}
	w.table("", "", rows)
	if len(x.Parameters) == 0 {
		return
	}
	rows = [][]string{}
	for _, p := range x.Parameters {
		value, by := code(p.Value), "the site"
		if p.Secret {
			value = "(secret)"
		}
		if p.Default {
			by = "the vendor's default"
		}
		rows = append(rows, []string{plain(p.Name), value, by})
	}
	w.rows([]string{"parameter", "value", "said by"}, rows)
}

func (r *Report) writeReleases(w *markdown) {
	x := r.Receipt
	w.section("Releases")
	rows := [][]string{}
	for i := range x.Releases {
		rel := &x.Releases[i]
		front := ""
		if f := rel.Front; f != nil {
			front = plain(FrontText(f))
		}
		rows = append(rows, []string{plain(rel.Key()), plain(rel.Chart + " " + rel.Version), fmt.Sprint(rel.Revision), code(rel.Objects), code(rel.Values), front})
	}
	w.rows([]string{"release", "chart", "revision", "objects", "values", "front"}, rows)
	if len(x.Checks) == 0 {
		return
	}
	w.section("Checks and tests")
	rows = [][]string{}
	for _, c := range x.Checks {
		rows = append(rows, []string{plain(c.Release), plain(c.Name), plain(c.Result)})
	}
	w.rows([]string{"release", "check", "result"}, rows)
}

// FrontText says where a front leads.
func FrontText(f *ledger.Front) string {
	text := fmt.Sprintf("%s %s (%s) leads to %s", f.Kind, f.Name, f.Strategy, f.To)
	if f.Also != "" {
		text += fmt.Sprintf(", %d %% to %s", f.Share, f.Also)
	}
	if f.Spare != "" {
		text += ", " + f.Spare + " is kept"
	}
	return text
}

func (r *Report) writeImages(w *markdown) {
	w.section("Images")
	runs := map[string]int{}
	if r.Status != nil {
		for i := range r.Status.Releases {
			for _, running := range r.Status.Releases[i].Images {
				runs[running.ID] += running.Containers
			}
		}
	}
	rows := [][]string{}
	artifacts := [][]string{}
	for i := range r.Receipt.Images {
		img := &r.Receipt.Images[i]
		n := runs[img.Digest]
		for _, d := range append(append([]string{}, img.Manifests...), img.Configs...) {
			n += runs[d]
		}
		now := "not asked"
		if r.Status != nil {
			now = fmt.Sprintf("in %d containers", n)
			if n == 1 {
				now = "in 1 container"
			}
		}
		rows = append(rows, []string{code(img.Source), code(img.Digest), code(img.Target), now})
		for _, ref := range img.Referrers {
			artifacts = append(artifacts, []string{code(img.Source), plain(ref.ArtifactType), code(ref.Digest)})
		}
	}
	w.rows([]string{"image", "digest", "at the site", "runs now"}, rows)
	w.section("Signatures, attestations and SBOMs of images")
	w.rows([]string{"image", "kind", "digest"}, artifacts)
}

func (r *Report) writeStatus(w *markdown) {
	st := r.Status
	if st == nil {
		return
	}
	w.section("Now")
	health := "not as it was installed, or not healthy"
	if st.Healthy {
		health = "healthy, and as it was installed"
	}
	w.line("%s: %s.", plain(st.Condition), health)
	w.line("")
	lines := st.Lines()
	for _, text := range lines {
		w.line("- %s", plain(text))
	}
	if len(lines) > 0 {
		w.line("")
	}
}

func (r *Report) writeJournal(w *markdown) {
	j := &r.Journal
	w.section("Journal of this machine")
	if j.Holds {
		w.line("Its chain holds: %d entries, the last one is %s.", j.Head.Seq, code(j.Head.Digest))
	} else {
		w.line("**Its chain is not proven**: %s.", plain(j.Problem))
	}
	w.line("")
	if j.Receipt > 0 {
		w.line("Entry %d binds this receipt to it.", j.Receipt)
	} else {
		w.line("No entry binds this receipt to it.")
	}
	w.line("")
	if j.Omitted > 0 {
		w.line("%d older entries about this bundle are not listed.", j.Omitted)
		w.line("")
	}
	rows := [][]string{}
	for i := range j.Entries {
		e := &j.Entries[i]
		rows = append(rows, []string{fmt.Sprint(e.Seq), plain(e.Time), plain(e.Kind), plain(e.Version), code(e.Digest), plain(strings.TrimSpace(e.Reason + " " + e.Detail["what"]))})
	}
	w.rows([]string{"entry", "time", "kind", "version", "digest", "reason"}, rows)
}

// Lines say what is wrong with a bundle, and what could not be found out, for people.
func (st *Status) Lines() []string {
	var lines []string
	add := func(format string, a ...any) { lines = append(lines, fmt.Sprintf(format, a...)) }
	for i := range st.Releases {
		rel := &st.Releases[i]
		name := rel.Namespace + "/" + rel.Release
		if rel.Newest == 0 && len(rel.Unread) == 0 {
			add("release %s is not there", name)
		}
		if rel.Newest > 0 && rel.Newest != rel.Revision {
			who := ": somebody else has changed it"
			if st.Open != nil {
				who = "" // what is under way has, most likely
			}
			add("release %s is at revision %d, installed was revision %d%s", name, rel.Newest, rel.Revision, who)
		}
		if rel.Status != "" && rel.Status != "deployed" {
			add("Helm says that release %s is %s", name, rel.Status)
		}
		for _, d := range rel.Drift {
			if d.Missing {
				add("%s is missing", d.Object)
				continue
			}
			for _, f := range d.Fields {
				add("%s: %s", d.Object, fieldText(f.Path, f.Recorded, f.Live, f.Managers))
			}
			if d.More > 0 {
				add("%s: %d more fields differ", d.Object, d.More)
			}
		}
		for _, u := range rel.Unhealthy {
			add("%s: %s: %s", u.Object, u.Status, u.Reason)
		}
	}
	for _, img := range st.OtherImages {
		add("%s runs as %s, which is none of the bundle's, in %s", img.Reference, img.ID, strings.Join(img.Pods, ", "))
	}
	for _, img := range st.ForeignImages {
		add("%s is not of this bundle, and runs in %s", img.Reference, strings.Join(img.Pods, ", "))
	}
	for i := range st.Releases {
		for _, text := range st.Releases[i].Unread {
			add("not known of release %s/%s: %s", st.Releases[i].Namespace, st.Releases[i].Release, text)
		}
	}
	return append(lines, st.Warnings...)
}

func fieldText(path, recorded, live string, managers []string) string {
	text := path + " differs"
	if recorded != "" || live != "" {
		text = fmt.Sprintf("%s is %s, installed was %s", path, live, recorded)
	}
	if len(managers) > 0 {
		text += " (set by " + strings.Join(managers, ", ") + ")"
	}
	return text
}

// markdown writes a document.
type markdown struct{ b strings.Builder }

// line writes one line; what it is made of has been escaped.
func (w *markdown) line(format string, a ...any) { fmt.Fprintf(&w.b, format+"\n", a...) }

func (w *markdown) section(title string) { w.line("## %s\n", title) }

// table writes rows of two cells, without those whose second is empty.
func (w *markdown) table(left, right string, rows [][]string) {
	kept := [][]string{}
	for _, r := range rows {
		if r[1] != "" {
			kept = append(kept, r)
		}
	}
	w.rows([]string{left, right}, kept)
}

func (w *markdown) rows(heads []string, rows [][]string) {
	if len(rows) == 0 {
		w.line("None.\n")
		return
	}
	w.line("| %s |", strings.Join(heads, " | "))
	w.line("|%s", strings.Repeat("---|", len(heads)))
	for _, r := range rows {
		w.line("| %s |", strings.Join(r, " | "))
	}
	w.line("")
}

// fence writes a text as it is.
func (w *markdown) fence(language, text string) {
	fence := "```"
	for strings.Contains(text, fence) {
		fence += "`"
	}
	text = strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && !visible(r) {
			return unicode.ReplacementChar
		}
		return r
	}, text)
	w.line("%s%s\n%s\n%s\n", fence, language, strings.TrimRight(text, "\n"), fence)
}

// visible reports whether a rune stands for itself: it steers no terminal and no direction of writing.
func visible(r rune) bool { return unicode.IsPrint(r) }

// oneLine is a text without what would steer a terminal, on one line.
func oneLine(text string) string {
	return strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !visible(r):
			return unicode.ReplacementChar
		}
		return r
	}, text)), " ")
}

var markdownEscaper = strings.NewReplacer(
	`\`, `\\`, "`", "\\`", `*`, `\*`, `_`, `\_`, `[`, `\[`, `]`, `\]`, `<`, `&lt;`, `>`, `&gt;`, `&`, `&amp;`, `|`, `\|`, `~`, `\~`, `#`, `\#`, `!`, `\!`, `$`, `\$`,
	// GitHub makes links of these where they stand.
	`://`, `:&#47;/`, `@`, `&#64;`, `www.`, `www&#46;`,
)

// plain is a text that means nothing but itself in Markdown.
func plain(text string) string { return markdownEscaper.Replace(oneLine(text)) }

// code is a text in the type of machines.
func code(text string) string {
	text = oneLine(text)
	if text == "" {
		return ""
	}
	if strings.ContainsAny(text, "`|\\") {
		return plain(text)
	}
	return "`" + text + "`"
}

func codes(list []string) string {
	all := make([]string, 0, len(list))
	for _, text := range list {
		all = append(all, code(text))
	}
	return strings.Join(all, "<br>")
}

func bullets(list []string) string {
	escaped := make([]string, 0, len(list))
	for _, text := range list {
		escaped = append(escaped, plain(text))
	}
	return strings.Join(escaped, "<br>")
}

// ifAny is a text after its beginning, or nothing.
func ifAny(before, text string) string {
	if text == "" {
		return ""
	}
	return before + plain(text)
}

func orText(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// JSON is the report for programs, its type first. An error says that it cannot be written.
func (r *Report) JSON() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(r); err != nil {
		return nil, fmt.Errorf("writing the report about bundle %q: %w", r.Receipt.Bundle, err)
	}
	return b.Bytes(), nil
}
