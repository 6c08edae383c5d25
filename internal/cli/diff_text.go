package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// writeDifference writes what changes between two bundles, for people. Parts that neither of them has
// are left out, but for images, charts and blobs.
func writeDifference(w io.Writer, r *difference) {
	d := r.Difference
	writeTitles(w, r)
	writeImageChanges(w, "images", &d.Images)
	if c := &d.Artifacts; len(c.Added)+len(c.Removed)+len(c.Changed)+c.Unchanged > 0 {
		writeImageChanges(w, "artifacts", c)
	}
	writeIgnoredChanges(w, &d.Ignored)
	writeChartChanges(w, &d.Charts)
	writeFileChanges(w, &d.Files)
	writeNotesChange(w, d.Notes)
	writeRequirementChanges(w, d.Requirements)
	writeParameterChanges(w, &d.Parameters)
	writeObjects(w, r.Objects)
	writeBlobChanges(w, &d.Blobs)
}

// arrow writes a change, or the one value where there is none.
func arrow(old, now string) string {
	if old == now {
		return now
	}
	return orNone(old) + " -> " + orNone(now)
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func arrowList(old, now []string) string {
	return arrow(strings.Join(old, ", "), strings.Join(now, ", "))
}

func writeTitles(w io.Writer, r *difference) {
	d, old, now := r.Difference, r.Old, r.New
	fmt.Fprintf(w, "%s %s\n", arrow(d.Old.Name, d.New.Name), arrow(d.Old.Version, d.New.Version))
	if remark := r.remark(); remark != "" {
		fmt.Fprintf(w, "  %s\n", remark)
	}
	fmt.Fprintf(w, "  digest     %s\n", arrow(old.Digest, now.Digest))
	fmt.Fprintf(w, "  created    %s\n", arrow(d.Old.Created, d.New.Created))
	if d.Old.Expires != d.New.Expires {
		fmt.Fprintf(w, "  expires    %s\n", arrow(d.Old.Expires, d.New.Expires))
	}
	fmt.Fprintf(w, "  channel    %s\n", arrow(d.Old.Channel, d.New.Channel))
	fmt.Fprintf(w, "  platforms  %s\n", arrowList(d.Old.Platforms, d.New.Platforms))
	fmt.Fprintf(w, "  size       %s\n", arrow(archive.FormatBytes(old.Size), archive.FormatBytes(now.Size)))
	if old.Proven && now.Proven {
		fmt.Fprintf(w, "  signed by  %s\n", arrow(signers(old.Evidence), signers(now.Evidence)))
		return
	}
	fmt.Fprintf(w, "  signed by  %s\n", unproven(now.pinned, arrow(count(old.Signatures, "signature"), count(now.Signatures, "signature")), "shown"))
}

// remark is what has to be said about the two bundles before anything else, or "".
func (r *difference) remark() string {
	d := r.Difference
	switch {
	case r.Old.Digest == r.New.Digest:
		return "both are the same bundle, but for signatures"
	case d.Old.Name != d.New.Name:
		return "these are bundles of different names: the new one does not replace the old one"
	case d.Old.Version == d.New.Version && d.Changed():
		return "the version is the same, the content is not"
	}
	return ""
}

// signers are all who have signed, for people.
func signers(e *verify.Evidence) string {
	var all []string
	for i := range e.Signed {
		all = append(all, e.Signed[i].Signer())
	}
	return strings.Join(all, ", ")
}

// writeCounts writes the headline of a part.
func writeCounts(w io.Writer, part string, added, removed, changed, unchanged int) {
	fmt.Fprintf(w, "\n%s: %d added, %d removed, %d changed, %d unchanged\n", part, added, removed, changed, unchanged)
}

func writeImageChanges(w io.Writer, part string, c *manifest.ImageChanges) {
	writeCounts(w, part, len(c.Added), len(c.Removed), len(c.Changed), c.Unchanged)
	one := func(what string, i *manifest.Image) {
		fmt.Fprintf(w, "  %-7s  %s\n", what, i.Source)
		fmt.Fprintf(w, "           %s  %s\n", i.Digest, strings.Join(i.Platforms, ", ")+i.ArtifactType)
	}
	for i := range c.Added {
		one("added", &c.Added[i])
	}
	for i := range c.Removed {
		one("removed", &c.Removed[i])
	}
	for i := range c.Changed {
		writeImageChange(w, &c.Changed[i])
	}
}

func writeImageChange(w io.Writer, c *manifest.ImageChange) {
	_, oldTag, oldPin := manifest.SplitSource(c.Old.Source)
	_, newTag, newPin := manifest.SplitSource(c.New.Source)
	tags := arrow(oldTag, newTag)
	if tags == "" {
		tags = "by digest"
	}
	fmt.Fprintf(w, "  changed  %s: %s\n", c.Repository, tags)
	if oldPin != newPin && slices.Contains(c.Changes, manifest.ChangedPin) {
		fmt.Fprintf(w, "           asked for as %s -> %s\n", c.Old.Source, c.New.Source)
	}
	if c.Old.Digest == c.New.Digest {
		fmt.Fprintf(w, "           %s as before\n", c.New.Digest)
	} else {
		fmt.Fprintf(w, "           %s -> %s\n", c.Old.Digest, c.New.Digest)
	}
	if slices.Contains(c.Changes, manifest.ChangedPlatforms) {
		fmt.Fprintf(w, "           platforms %s\n", arrowList(c.Old.Platforms, c.New.Platforms))
	} else if slices.Contains(c.Changes, manifest.ChangedContent) {
		fmt.Fprintln(w, "           other images of the same index travel")
	}
	if slices.Contains(c.Changes, manifest.ChangedReferrers) {
		fmt.Fprintf(w, "           signatures and the like: %d -> %d\n", len(c.Old.Referrers), len(c.New.Referrers))
	}
}

func writeChartChanges(w io.Writer, c *manifest.ChartChanges) {
	writeCounts(w, "charts", len(c.Added), len(c.Removed), len(c.Changed), c.Unchanged)
	one := func(what string, ch *manifest.Chart) {
		fmt.Fprintf(w, "  %-7s  %s %s, release %s in namespace %s\n", what, ch.Name, ch.Version, ch.Release, ch.Namespace)
		fmt.Fprintf(w, "           %s\n", ch.Archive.Digest)
	}
	for i := range c.Added {
		one("added", &c.Added[i])
	}
	for i := range c.Removed {
		one("removed", &c.Removed[i])
	}
	for i := range c.Changed {
		writeChartChange(w, &c.Changed[i])
	}
}

func writeChartChange(w io.Writer, c *manifest.ChartChange) {
	old, now := &c.Old, &c.New
	fmt.Fprintf(w, "  changed  %s: %s, release %s in namespace %s\n", arrow(old.Name, now.Name), arrow(old.Version, now.Version),
		arrow(old.Release, now.Release), arrow(old.Namespace, now.Namespace))
	detail := func(what, text string) { fmt.Fprintf(w, "           %-11s  %s\n", what, text) }
	for _, c := range chartChanges(old, now) {
		detail(c.what, arrow(c.old, c.now))
	}
	if old.Archive.Digest != now.Archive.Digest {
		detail("archive", arrow(old.Archive.Digest, now.Archive.Digest))
	} else if old.Manifest.Digest != now.Manifest.Digest {
		detail("manifest", arrow(old.Manifest.Digest, now.Manifest.Digest))
	}
	// By their places: later ones win, so the order means something.
	for i := range max(len(old.Values), len(now.Values)) {
		switch {
		case i >= len(old.Values):
			detail("values", fmt.Sprintf("added %s %s", now.Values[i].Name, now.Values[i].Digest))
		case i >= len(now.Values):
			detail("values", fmt.Sprintf("removed %s %s", old.Values[i].Name, old.Values[i].Digest))
		case old.Values[i] != now.Values[i]:
			detail("values", fmt.Sprintf("%s: %s", arrow(old.Values[i].Name, now.Values[i].Name), arrow(old.Values[i].Digest, now.Values[i].Digest)))
		}
	}
}

// changedText is something that differs, as it is shown.
type changedText struct{ what, old, now string }

// chartChanges are the changes of a chart, and of how it is installed, that a line tells.
func chartChanges(old, now *manifest.Chart) []changedText {
	var list []changedText
	add := func(what, before, after string) {
		if before != after {
			list = append(list, changedText{what, before, after})
		}
	}
	add("app version", old.AppVersion, now.AppVersion)
	add("source", old.Source, now.Source)
	add("made from", madeFrom(old), madeFrom(now))
	add("provenance", describeProvenance(old), describeProvenance(now))
	if !slices.Equal(old.Referrers, now.Referrers) {
		list = append(list, changedText{"referrers", count(len(old.Referrers), "artifact"), count(len(now.Referrers), "artifact")})
	}
	add("depends on", strings.Join(old.DependsOn, ", "), strings.Join(now.DependsOn, ", "))
	for _, name := range environmentNames(old, now) {
		files := func(c *manifest.Chart) string {
			return environmentFiles(c.Environment(name), func(v manifest.ValuesFile) string { return v.Name + " " + short(v.Digest) })
		}
		add("environment "+name, files(old), files(now))
	}
	add("registry", describeRegistryValues(old), describeRegistryValues(now))
	add("rollback", old.Rollback, now.Rollback)
	add("rollout", describeRollout(old.Rollout), describeRollout(now.Rollout))
	add("checks", describeChecks(old.Checks), describeChecks(now.Checks))
	return list
}

func madeFrom(c *manifest.Chart) string {
	if c.Plain {
		return "plain objects"
	}
	return "a chart"
}

func describeProvenance(c *manifest.Chart) string {
	switch {
	case c.Provenance == nil:
		return ""
	case c.SignedBy == "":
		return c.Provenance.Digest + ", not checked"
	}
	return c.Provenance.Digest + ", key " + c.SignedBy
}

// environmentNames are those that either has, in the order of now.
func environmentNames(old, now *manifest.Chart) []string {
	var names []string
	for _, e := range slices.Concat(now.Environments, old.Environments) {
		if !slices.Contains(names, e.Name) {
			names = append(names, e.Name)
		}
	}
	return names
}

func describeRegistryValues(c *manifest.Chart) string {
	var all []string
	for _, v := range c.RegistryValues {
		all = append(all, v.Path+" gets "+v.Gets)
	}
	return strings.Join(all, ", ")
}

func describeRollout(r *manifest.Rollout) string {
	if r == nil {
		return ""
	}
	s := fmt.Sprintf("%s behind %s %s", r.Strategy, r.Front.Kind, r.Front.Name)
	for i, step := range r.Steps {
		s += []string{" at ", ", "}[min(i, 1)] + fmt.Sprintf("%d%%", step)
	}
	return s
}

// checks are the health checks of a release, for people.
func describeChecks(list []manifest.Check) string {
	var all []string
	for i := range list {
		all = append(all, describeCheck(&list[i]))
	}
	return strings.Join(all, ", ")
}

func describeCheck(c *manifest.Check) string {
	s := c.Name + " ("
	switch {
	case c.HTTP != nil:
		scheme := "http"
		if c.HTTP.TLS {
			scheme = "https"
		}
		s += fmt.Sprintf("%s://%s:%d%s", scheme, c.HTTP.Service, c.HTTP.Port, c.HTTP.Path)
		if c.HTTP.Status != 0 {
			s += fmt.Sprintf(" is %d", c.HTTP.Status)
		}
	case c.TCP != nil:
		s += fmt.Sprintf("tcp %s:%d", c.TCP.Service, c.TCP.Port)
	case c.Job != nil:
		s += "job " + c.Job.Digest
	}
	if c.Seconds > 0 {
		s += fmt.Sprintf(" within %d s", c.Seconds)
	}
	return s + ")"
}

func writeIgnoredChanges(w io.Writer, c *manifest.IgnoredChanges) {
	if len(c.Added)+len(c.Removed) == 0 {
		return
	}
	fmt.Fprintf(w, "\nimages left out by the vendor: %d more, %d no longer\n", len(c.Added), len(c.Removed))
	one := func(what string, i *manifest.IgnoredImage) {
		fmt.Fprintf(w, "  %-9s  %s%s\n", what, i.Reference, because(i.Why))
	}
	for i := range c.Added {
		one("more", &c.Added[i])
	}
	for i := range c.Removed {
		one("no longer", &c.Removed[i])
	}
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return " (" + why + ")"
}

func writeFileChanges(w io.Writer, c *manifest.FileChanges) {
	if len(c.Added)+len(c.Removed)+len(c.Changed)+c.Unchanged == 0 {
		return
	}
	writeCounts(w, "files", len(c.Added), len(c.Removed), len(c.Changed), c.Unchanged)
	one := func(what string, f *manifest.File) {
		fmt.Fprintf(w, "  %-7s  %s, %s\n", what, f.Name, archive.FormatBytes(f.Size))
		fmt.Fprintf(w, "           %s\n", f.Digest)
	}
	for i := range c.Added {
		one("added", &c.Added[i])
	}
	for i := range c.Removed {
		one("removed", &c.Removed[i])
	}
	for i := range c.Changed {
		f := &c.Changed[i]
		fmt.Fprintf(w, "  changed  %s, %s%s\n", arrow(f.Old.Name, f.New.Name), arrow(archive.FormatBytes(f.Old.Size), archive.FormatBytes(f.New.Size)), becameProgram(f))
		if f.Old.Digest != f.New.Digest {
			fmt.Fprintf(w, "           %s\n", arrow(f.Old.Digest, f.New.Digest))
		}
	}
}

// program says whether a file became one.
func becameProgram(f *manifest.FileChange) string {
	switch {
	case f.Old.Executable == f.New.Executable:
		return ""
	case f.New.Executable:
		return ", a program now"
	}
	return ", no program any more"
}

func writeNotesChange(w io.Writer, n *manifest.NotesChange) {
	if n == nil {
		return
	}
	size := func(d *manifest.Descriptor) string {
		if d == nil {
			return ""
		}
		return d.Digest + " (" + archive.FormatBytes(d.Size) + ")"
	}
	fmt.Fprintf(w, "\nrelease notes\n  %s\n", arrow(size(n.Old), size(n.New)))
}

func writeRequirementChanges(w io.Writer, list []manifest.RequirementChange) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintln(w, "\nrequirements")
	for _, c := range list {
		fmt.Fprintf(w, "  %-14s  %s\n", c.Name, arrow(c.Old, c.New))
	}
}

func writeParameterChanges(w io.Writer, c *manifest.ParameterChanges) {
	if len(c.Added)+len(c.Removed)+len(c.Changed)+c.Unchanged == 0 {
		return
	}
	writeCounts(w, "parameters", len(c.Added), len(c.Removed), len(c.Changed), c.Unchanged)
	for i := range c.Added {
		p := &c.Added[i]
		fmt.Fprintf(w, "  added    %s, %s%s\n", p.Name, parameterKind(p), described(p.Description))
	}
	for i := range c.Removed {
		fmt.Fprintf(w, "  removed  %s\n", c.Removed[i].Name)
	}
	for i := range c.Changed {
		fmt.Fprintf(w, "  changed  %s\n", c.Changed[i].Name)
		for _, p := range parameterChanges(&c.Changed[i]) {
			fmt.Fprintf(w, "           %-11s  %s\n", p.what, arrow(p.old, p.now))
		}
	}
}

func described(text string) string {
	if text == "" {
		return ""
	}
	return ": " + oneLine(text)
}

// parameterKind is what a site has to know of a parameter, for people.
func parameterKind(p *manifest.Parameter) string {
	s := p.Type
	if p.Required {
		s = "required " + s
	}
	if p.Secret {
		s += ", secret"
	}
	if p.Default != nil {
		s += fmt.Sprintf(", default %q", *p.Default)
	}
	return s
}

// parameterChanges are the changes of a parameter.
func parameterChanges(c *manifest.ParameterChange) []changedText {
	var list []changedText
	text := func(p *manifest.Parameter, what string) string {
		switch what {
		case manifest.ChangedDescription:
			return oneLine(p.Description)
		case manifest.ChangedType:
			return p.Type
		case manifest.ChangedDefault:
			if p.Default == nil {
				return ""
			}
			return fmt.Sprintf("%q", *p.Default)
		case manifest.ChangedRequired:
			return yesNo(p.Required)
		case manifest.ChangedSecret:
			return yesNo(p.Secret)
		case manifest.ChangedPattern:
			return p.Pattern
		case manifest.ChangedEnum:
			return strings.Join(p.Enum, ", ")
		}
		var values []string
		for _, v := range p.Values {
			values = append(values, v.Release+" "+v.Path)
		}
		return strings.Join(values, ", ")
	}
	for _, what := range c.Changes {
		list = append(list, changedText{what, text(&c.Old, what), text(&c.New, what)})
	}
	return list
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func writeObjects(w io.Writer, releases []releaseObjects) {
	if len(releases) == 0 {
		return
	}
	added, removed, changed := countObjects(releases)
	fmt.Fprintf(w, "\nobjects: %d added, %d removed, %d changed\n", added, removed, changed)
	for i := range releases {
		r := &releases[i]
		fmt.Fprintf(w, "  release %s\n", r.title())
		if r.Problem != "" {
			fmt.Fprintf(w, "    not compared: %s\n", r.Problem)
			continue
		}
		if len(r.Changes) == 0 {
			fmt.Fprintln(w, "    all as before")
		}
		for j := range r.Changes {
			o := &r.Changes[j]
			fmt.Fprintf(w, "    %-7s  %s\n", o.Action, o.Object)
			for _, f := range o.Fields {
				fmt.Fprintf(w, "             %s: %s\n", f.Path, fieldChange(f))
			}
			if o.More > 0 {
				fmt.Fprintf(w, "             and %s more\n", count(o.More, "field"))
			}
		}
	}
}

// fieldChange is what became of a field, for people.
func fieldChange(f chart.FieldChange) string {
	if f.Old == chart.SecretValue && f.New == chart.SecretValue {
		return "differs"
	}
	return orNone(f.Old) + " -> " + orNone(f.New)
}

func writeBlobChanges(w io.Writer, c *manifest.BlobChanges) {
	fmt.Fprintln(w, "\nblobs")
	for _, l := range []struct {
		what string
		n    manifest.Amount
		note string
	}{{"new", c.New, "; what an upgrade has to carry"}, {"kept", c.Kept, ""}, {"gone", c.Gone, ""}} {
		stored := ""
		if l.n.Stored != l.n.Bytes {
			stored = ", " + archive.FormatBytes(l.n.Stored) + " in the file"
		}
		fmt.Fprintf(w, "  %-4s  %s, %s%s%s\n", l.what, count(l.n.Count, "blob"), archive.FormatBytes(l.n.Bytes), stored, l.note)
	}
}
