package cli

import (
	"fmt"
	"html"
	"io"
	"strings"
	"unicode"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/manifest"
)

// What a bundle says stands in code spans only: whatever it is, it neither becomes markup, nor links
// to or calls for anybody. Release notes are read where both would work.

// code is a text in a code span (CommonMark, section 6.1), for use outside of tables.
func code(text string) string {
	if text == "" {
		return "none"
	}
	text = oneLine(text)
	longest, run := 0, 0
	for i := range len(text) {
		if text[i] == '`' {
			run++
			longest = max(longest, run)
		} else {
			run = 0
		}
	}
	fence := strings.Repeat("`", longest+1)
	// A space at both ends is taken off again. Without, a backquote there would become part of the
	// fence, and spaces of the text be lost.
	if strings.HasPrefix(text, "`") || strings.HasSuffix(text, "`") || strings.HasPrefix(text, " ") && strings.HasSuffix(text, " ") {
		text = " " + text + " "
	}
	return fence + text + fence
}

// oneLine is a text without what ends a line, or steers a terminal.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || r == '\r' || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, printable(text))
}

// cell is code for a table. What separates cells does so in code spans, too, and escaped by a backslash
// only where no other one stands before that: so text with it is written by the numbers of characters.
func cell(text string) string {
	if !strings.Contains(text, "|") {
		return code(text)
	}
	var b strings.Builder
	b.WriteString("<code>")
	for _, r := range oneLine(text) {
		if r < 0x80 && !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != ' ' {
			fmt.Fprintf(&b, "&#%d;", r)
			continue
		}
		b.WriteRune(r)
	}
	b.WriteString("</code>")
	return b.String()
}

// cellOr is cell, or a dash for nothing.
func cellOr(text string) string {
	if text == "" {
		return "–"
	}
	return cell(text)
}

// arrowCode is arrow in code spans.
func arrowCode(old, now string) string {
	if old == now {
		return code(now)
	}
	return code(old) + " → " + code(now)
}

// short is a digest as people compare it at a glance.
func short(digest string) string {
	const shown = len("sha256:") + 12
	return digest[:min(len(digest), shown)]
}

// table writes a table; the cells are Markdown.
func table(w io.Writer, head []string, rows [][]string) {
	line := func(cells []string) { fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | ")) }
	fmt.Fprintln(w)
	line(head)
	fmt.Fprintf(w, "|%s\n", strings.Repeat("---|", len(head)))
	for _, r := range rows {
		line(r)
	}
}

// writeMarkdown writes what changes between two bundles, for release notes (GitHub flavored Markdown).
func writeMarkdown(w io.Writer, r *difference) {
	d := r.Difference
	fmt.Fprintf(w, "# %s: changes from %s to %s\n", code(d.New.Name), code(d.Old.Version), code(d.New.Version))
	if remark := r.remark(); remark != "" {
		fmt.Fprintf(w, "\n**Note:** %s.\n", remark)
	}
	markdownSummary(w, r)
	markdownImages(w, "Images", &d.Images)
	markdownImages(w, "Artifacts", &d.Artifacts)
	markdownIgnored(w, &d.Ignored)
	markdownCharts(w, &d.Charts)
	markdownRequirements(w, d.Requirements)
	markdownParameters(w, &d.Parameters)
	markdownFiles(w, &d.Files)
	markdownObjects(w, r.Objects)
	markdownSizes(w, r)
}

func markdownSummary(w io.Writer, r *difference) {
	d := r.Difference
	rows := [][]string{
		{"version", cellOr(d.Old.Version), cellOr(d.New.Version)},
		{"channel", cellOr(d.Old.Channel), cellOr(d.New.Channel)},
		{"created", cellOr(d.Old.Created), cellOr(d.New.Created)},
	}
	if d.Old.Name != d.New.Name {
		rows = append([][]string{{"name", cellOr(d.Old.Name), cellOr(d.New.Name)}}, rows...)
	}
	if d.Old.Expires+d.New.Expires != "" {
		rows = append(rows, []string{"expires", cellOr(d.Old.Expires), cellOr(d.New.Expires)})
	}
	rows = append(rows,
		[]string{"platforms", cellOr(strings.Join(d.Old.Platforms, ", ")), cellOr(strings.Join(d.New.Platforms, ", "))},
		[]string{"digest", cell(r.Old.Digest), cell(r.New.Digest)},
		[]string{"signatures", signatureCell(r.Old.looked), signatureCell(r.New.looked)},
	)
	table(w, []string{"", "old", "new"}, rows)

	rows = nil
	row := func(what string, added, removed, changed, unchanged int) {
		if added+removed+changed+unchanged > 0 {
			rows = append(rows, []string{what, fmt.Sprint(added), fmt.Sprint(removed), fmt.Sprint(changed), fmt.Sprint(unchanged)})
		}
	}
	row("images", len(d.Images.Added), len(d.Images.Removed), len(d.Images.Changed), d.Images.Unchanged)
	row("artifacts", len(d.Artifacts.Added), len(d.Artifacts.Removed), len(d.Artifacts.Changed), d.Artifacts.Unchanged)
	row("charts", len(d.Charts.Added), len(d.Charts.Removed), len(d.Charts.Changed), d.Charts.Unchanged)
	row("files", len(d.Files.Added), len(d.Files.Removed), len(d.Files.Changed), d.Files.Unchanged)
	row("parameters", len(d.Parameters.Added), len(d.Parameters.Removed), len(d.Parameters.Changed), d.Parameters.Unchanged)
	if len(rows) > 0 {
		table(w, []string{"", "added", "removed", "changed", "unchanged"}, rows)
	}
}

// signatureCell says who is proven to have signed, or that nobody is.
func signatureCell(l *looked) string {
	if l.Proven {
		return cellOr(signers(l.Evidence))
	}
	return count(l.Signatures, "signature") + ", not checked"
}

func markdownImages(w io.Writer, title string, c *manifest.ImageChanges) {
	if len(c.Added)+len(c.Removed)+len(c.Changed) == 0 {
		return
	}
	var rows [][]string
	for i := range c.Added {
		name, tag := named(&c.Added[i])
		rows = append(rows, []string{"added", cell(name), "–", cellOr(tag), "–", cell(short(c.Added[i].Digest)), ""})
	}
	for i := range c.Removed {
		name, tag := named(&c.Removed[i])
		rows = append(rows, []string{"removed", cell(name), cellOr(tag), "–", cell(short(c.Removed[i].Digest)), "–", ""})
	}
	for i := range c.Changed {
		x := &c.Changed[i]
		_, oldTag := named(&x.Old)
		_, newTag := named(&x.New)
		rows = append(rows, []string{
			"changed", cell(x.Repository), cellOr(oldTag), cellOr(newTag), cell(short(x.Old.Digest)), cell(short(x.New.Digest)), strings.Join(x.Changes, ", "),
		})
	}
	fmt.Fprintf(w, "\n## %s\n", title)
	table(w, []string{"", "name", "old tag", "new tag", "old digest", "new digest", "what"}, rows)
}

func named(i *manifest.Image) (repository, tag string) {
	repository, tag, _ = manifest.SplitSource(i.Source)
	return repository, tag
}

func markdownIgnored(w io.Writer, c *manifest.IgnoredChanges) {
	if len(c.Added)+len(c.Removed) == 0 {
		return
	}
	fmt.Fprint(w, "\n## Images left out on purpose\n\n")
	one := func(what string, i *manifest.IgnoredImage) {
		fmt.Fprintf(w, "- %s: %s", what, code(i.Reference))
		if i.Why != "" {
			fmt.Fprintf(w, " – %s", code(i.Why))
		}
		fmt.Fprintln(w)
	}
	for i := range c.Added {
		one("more", &c.Added[i])
	}
	for i := range c.Removed {
		one("no longer", &c.Removed[i])
	}
}

func markdownCharts(w io.Writer, c *manifest.ChartChanges) {
	if len(c.Added)+len(c.Removed)+len(c.Changed) == 0 {
		return
	}
	var rows [][]string
	one := func(what string, ch *manifest.Chart, old, now string) {
		rows = append(rows, []string{what, cell(ch.Name), cell(ch.Key()), cellOr(old), cellOr(now), ""})
	}
	for i := range c.Added {
		one("added", &c.Added[i], "", c.Added[i].Version)
	}
	for i := range c.Removed {
		one("removed", &c.Removed[i], c.Removed[i].Version, "")
	}
	for i := range c.Changed {
		x := &c.Changed[i]
		rows = append(rows, []string{"changed", cell(x.New.Name), cell(x.New.Key()), cellOr(x.Old.Version), cellOr(x.New.Version), strings.Join(x.Changes, ", ")})
	}
	fmt.Fprint(w, "\n## Charts\n")
	table(w, []string{"", "chart", "release", "old version", "new version", "what"}, rows)
	for i := range c.Changed {
		markdownChart(w, &c.Changed[i])
	}
}

// markdownChart tells in lines what the table has no room for.
func markdownChart(w io.Writer, c *manifest.ChartChange) {
	var lines []string
	add := func(what, text string) { lines = append(lines, fmt.Sprintf("- %s: %s", what, text)) }
	for _, x := range []changedText{{"chart", c.Old.Name, c.New.Name}, {"release", c.Old.Key(), c.New.Key()}} {
		if x.old != x.now {
			add(x.what, arrowCode(x.old, x.now))
		}
	}
	for _, x := range chartChanges(&c.Old, &c.New) {
		add(x.what, arrowCode(x.old, x.now))
	}
	for _, x := range valuesChanges(&c.Old, &c.New) {
		add("values", arrowCode(x.old, x.now))
	}
	if len(lines) > 0 {
		fmt.Fprintf(w, "\n%s:\n\n%s\n", code(c.New.Key()), strings.Join(lines, "\n"))
	}
}

// valuesChanges are the changes of the vendor's values files, by their places.
func valuesChanges(old, now *manifest.Chart) []changedText {
	var list []changedText
	text := func(files []manifest.ValuesFile, i int) string {
		if i >= len(files) {
			return ""
		}
		return files[i].Name + " " + short(files[i].Digest)
	}
	for i := range max(len(old.Values), len(now.Values)) {
		if i >= len(old.Values) || i >= len(now.Values) || old.Values[i] != now.Values[i] {
			list = append(list, changedText{"values", text(old.Values, i), text(now.Values, i)})
		}
	}
	return list
}

func markdownRequirements(w io.Writer, list []manifest.RequirementChange) {
	if len(list) == 0 {
		return
	}
	var rows [][]string
	for _, c := range list {
		rows = append(rows, []string{c.Name, cellOr(c.Old), cellOr(c.New)})
	}
	fmt.Fprint(w, "\n## Requirements\n")
	table(w, []string{"", "old", "new"}, rows)
}

func markdownParameters(w io.Writer, c *manifest.ParameterChanges) {
	if len(c.Added)+len(c.Removed)+len(c.Changed) == 0 {
		return
	}
	fmt.Fprint(w, "\n## Parameters\n\n")
	for i := range c.Added {
		p := &c.Added[i]
		fmt.Fprintf(w, "- added: %s, %s", code(p.Name), code(parameterKind(p)))
		if p.Description != "" {
			fmt.Fprintf(w, " – %s", code(p.Description))
		}
		fmt.Fprintln(w)
	}
	for i := range c.Removed {
		fmt.Fprintf(w, "- removed: %s\n", code(c.Removed[i].Name))
	}
	for i := range c.Changed {
		fmt.Fprintf(w, "- changed: %s\n", code(c.Changed[i].Name))
		for _, p := range parameterChanges(&c.Changed[i]) {
			fmt.Fprintf(w, "  - %s: %s\n", p.what, arrowCode(p.old, p.now))
		}
	}
}

func markdownFiles(w io.Writer, c *manifest.FileChanges) {
	if len(c.Added)+len(c.Removed)+len(c.Changed) == 0 {
		return
	}
	var rows [][]string
	for i := range c.Added {
		f := &c.Added[i]
		rows = append(rows, []string{"added", cell(f.Name), "–", archive.FormatBytes(f.Size), ""})
	}
	for i := range c.Removed {
		f := &c.Removed[i]
		rows = append(rows, []string{"removed", cell(f.Name), archive.FormatBytes(f.Size), "–", ""})
	}
	for i := range c.Changed {
		f := &c.Changed[i]
		name := cell(f.New.Name)
		if f.Old.Name != f.New.Name {
			name = cell(f.Old.Name) + " → " + name
		}
		rows = append(rows, []string{"changed", name, archive.FormatBytes(f.Old.Size), archive.FormatBytes(f.New.Size), strings.Join(f.Changes, ", ")})
	}
	fmt.Fprint(w, "\n## Files\n")
	table(w, []string{"", "file", "old size", "new size", "what"}, rows)
}

func markdownObjects(w io.Writer, releases []releaseObjects) {
	if len(releases) == 0 {
		return
	}
	added, removed, changed := countObjects(releases)
	fmt.Fprintf(w, "\n## Objects\n\n%d added, %d removed, %d changed, rendered with the vendor's values.\n", added, removed, changed)
	for i := range releases {
		r := &releases[i]
		// In HTML, code is marked by elements, and text escaped.
		fmt.Fprintf(w, "\n<details>\n<summary>Release <code>%s</code></summary>\n\n", html.EscapeString(oneLine(r.title())))
		switch {
		case r.Problem != "":
			fmt.Fprintf(w, "Not compared: %s\n", code(r.Problem))
		case len(r.Changes) == 0:
			fmt.Fprintln(w, "All as before.")
		}
		for j := range r.Changes {
			markdownObject(w, &r.Changes[j])
		}
		fmt.Fprint(w, "\n</details>\n")
	}
}

func markdownObject(w io.Writer, o *chart.ObjectChange) {
	fmt.Fprintf(w, "- %s: %s\n", o.Action, code(o.Object))
	for _, f := range o.Fields {
		change := code(f.Old) + " → " + code(f.New)
		if f.Old == chart.SecretValue && f.New == chart.SecretValue {
			change = "differs"
		}
		fmt.Fprintf(w, "  - %s: %s\n", code(f.Path), change)
	}
	if o.More > 0 {
		fmt.Fprintf(w, "  - and %s more\n", count(o.More, "field"))
	}
}

func markdownSizes(w io.Writer, r *difference) {
	b := &r.Blobs
	fmt.Fprint(w, "\n## Sizes\n")
	var oldBlobs, newBlobs manifest.Amount
	for _, a := range []manifest.Amount{b.Kept, b.Gone} {
		oldBlobs.Count, oldBlobs.Bytes = oldBlobs.Count+a.Count, oldBlobs.Bytes+a.Bytes
	}
	for _, a := range []manifest.Amount{b.Kept, b.New} {
		newBlobs.Count, newBlobs.Bytes = newBlobs.Count+a.Count, newBlobs.Bytes+a.Bytes
	}
	table(w, []string{"", "old", "new"}, [][]string{
		{"bundle", archive.FormatBytes(r.Old.Size), archive.FormatBytes(r.New.Size)},
		{"content", archive.FormatBytes(oldBlobs.Bytes), archive.FormatBytes(newBlobs.Bytes)},
		{"blobs", fmt.Sprint(oldBlobs.Count), fmt.Sprint(newBlobs.Count)},
	})
	fmt.Fprintf(w, "\nNew against old: %s, %s. Kept: %s, %s.\n",
		count(b.New.Count, "blob"), archive.FormatBytes(b.New.Bytes), count(b.Kept.Count, "blob"), archive.FormatBytes(b.Kept.Bytes))
}
