package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// looked is what the head of a bundle says.
type looked struct {
	File       string           `json:"file"`
	Digest     string           `json:"digest"`
	Signatures int              `json:"signatures"`
	Proven     bool             `json:"proven"`
	Evidence   *verify.Evidence `json:"evidence,omitempty"`
	manifest   *manifest.Manifest
	pinned     bool
}

// lookAt reads what the one bundle that args name says about itself.
func (a *app) lookAt(cmd *cobra.Command, args []string, f *trustFlags) (*looked, error) {
	u, err := a.look(cmd, args, f)
	if err != nil {
		return nil, err
	}
	return &looked{u.Path, u.Digest, u.Signatures, u.evidence != nil, u.evidence, u.Manifest, u.pinned}, nil
}

func (a *app) diffCommand() *cobra.Command {
	var t trustFlags
	c := &cobra.Command{
		Use:   "diff OLD NEW",
		Short: "Show what changes between two bundles",
		Long: `Compare what two bundles say that they carry: for release notes, and for those who decide
what comes in. Images are matched by repository and tag, then by repository alone where
there is only one candidate; charts by their release. The payload is not read.

Without --key, and without a policy of the site, nothing of it is proven, and it is said so;
else the signatures of both are checked first.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error { return a.diff(cmd, args[0], args[1], &t) },
	}
	t.add(c)
	return c
}

func (a *app) diff(cmd *cobra.Command, oldPath, newPath string, f *trustFlags) error {
	old, err := a.lookAt(cmd, []string{oldPath}, f)
	if err != nil {
		return err
	}
	now, err := a.lookAt(cmd, []string{newPath}, f)
	if err != nil {
		return err
	}
	d := manifest.Compare(old.manifest, now.manifest)
	// The members "old" and "new" here hide those of the Difference, which they contain.
	type side struct {
		*looked
		manifest.Title
	}
	result := struct {
		Old side `json:"old"`
		New side `json:"new"`
		*manifest.Difference
	}{side{old, d.Old}, side{now, d.New}, d}
	return a.print(result, func(w io.Writer) {
		writeTitles(w, old, now, d)
		writeImageChanges(w, &d.Images)
		writeChartChanges(w, &d.Charts)
		writeBlobChanges(w, &d.Blobs)
	})
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

func writeTitles(w io.Writer, old, now *looked, d *manifest.Difference) {
	fmt.Fprintf(w, "%s %s\n", arrow(d.Old.Name, d.New.Name), arrow(d.Old.Version, d.New.Version))
	switch {
	case old.Digest == now.Digest:
		fmt.Fprintln(w, "  both are the same bundle, but for signatures")
	case d.Old.Name != d.New.Name:
		fmt.Fprintln(w, "  these are bundles of different names: the new one does not replace the old one")
	case d.Old.Version == d.New.Version && d.Changed():
		fmt.Fprintln(w, "  the version is the same, the content is not")
	}
	fmt.Fprintf(w, "  digest     %s\n", arrow(old.Digest, now.Digest))
	fmt.Fprintf(w, "  created    %s\n", arrow(d.Old.Created, d.New.Created))
	if d.Old.Expires != d.New.Expires {
		fmt.Fprintf(w, "  expires    %s\n", arrow(d.Old.Expires, d.New.Expires))
	}
	fmt.Fprintf(w, "  channel    %s\n", arrow(d.Old.Channel, d.New.Channel))
	fmt.Fprintf(w, "  platforms  %s\n", arrowList(d.Old.Platforms, d.New.Platforms))
	if old.Proven && now.Proven {
		fmt.Fprintf(w, "  signed by  %s\n", arrow(signers(old.Evidence), signers(now.Evidence)))
		return
	}
	fmt.Fprintf(w, "  signed by  %s\n", unproven(now.pinned, arrow(count(old.Signatures, "signature"), count(now.Signatures, "signature")), "shown"))
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

func writeImageChanges(w io.Writer, c *manifest.ImageChanges) {
	writeCounts(w, "images", len(c.Added), len(c.Removed), len(c.Changed), c.Unchanged)
	one := func(what string, i *manifest.Image) {
		fmt.Fprintf(w, "  %-7s  %s\n", what, i.Source)
		fmt.Fprintf(w, "           %s  %s\n", i.Digest, strings.Join(i.Platforms, ", "))
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
	if old.AppVersion != now.AppVersion {
		detail("app version", arrow(old.AppVersion, now.AppVersion))
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
