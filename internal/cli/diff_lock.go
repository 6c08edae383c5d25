package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/sealift/sealift/bundle"
	"github.com/sealift/sealift/manifest"
)

// lockSide is one of the locks of a difference.
type lockSide struct {
	File    string `json:"file"`
	Created string `json:"created"`
}

// lockDifference is what sealift diff says about two locks.
type lockDifference struct {
	Old lockSide `json:"old"`
	New lockSide `json:"new"`
	*bundle.LockDifference
}

// diffLocks says what changes from one lock to another.
func (a *app) diffLocks(oldPath, newPath string, markdown bool) error {
	old, err := bundle.ReadLock(oldPath)
	if err != nil {
		return err
	}
	now, err := bundle.ReadLock(newPath)
	if err != nil {
		return err
	}
	r := &lockDifference{lockSide{oldPath, old.Created}, lockSide{newPath, now.Created}, bundle.CompareLocks(old, now)}
	return a.print(r, func(w io.Writer) {
		if markdown {
			writeLockMarkdown(w, r)
			return
		}
		writeLockDifference(w, r)
	})
}

// lockPart is a part of a lock, and what became of it.
type lockPart struct {
	name                               string
	added, removed, changed, unchanged int
}

// parts are those that either lock has anything in.
func (r *lockDifference) parts() []lockPart {
	var parts []lockPart
	for _, p := range []lockPart{
		{"images", len(r.Images.Added), len(r.Images.Removed), len(r.Images.Changed), r.Images.Unchanged},
		{"artifacts", len(r.Artifacts.Added), len(r.Artifacts.Removed), len(r.Artifacts.Changed), r.Artifacts.Unchanged},
		{"charts", len(r.Charts.Added), len(r.Charts.Removed), len(r.Charts.Changed), r.Charts.Unchanged},
		{"files", len(r.Files.Added), len(r.Files.Removed), len(r.Files.Changed), r.Files.Unchanged},
	} {
		if p.added+p.removed+p.changed+p.unchanged > 0 {
			parts = append(parts, p)
		}
	}
	return parts
}

func writeLockDifference(w io.Writer, r *lockDifference) {
	fmt.Fprintf(w, "%s\n  created    %s\n", arrow(r.Old.File, r.New.File), arrow(r.Old.Created, r.New.Created))
	for _, p := range r.parts() {
		fmt.Fprintf(w, "  %-9s  %d added, %d removed, %d changed, %d unchanged\n", p.name, p.added, p.removed, p.changed, p.unchanged)
	}
	lines := r.Lines()
	if len(lines) == 0 {
		fmt.Fprintln(w, "\nboth lead to the same content")
		return
	}
	fmt.Fprintln(w)
	for _, line := range lines {
		fmt.Fprintln(w, line)
	}
}

func writeLockMarkdown(w io.Writer, r *lockDifference) {
	fmt.Fprint(w, "# Changes of what is locked\n")
	table(w, []string{"", "old", "new"}, [][]string{
		{"lock", cell(r.Old.File), cell(r.New.File)},
		{"created", cell(r.Old.Created), cell(r.New.Created)},
	})
	var rows [][]string
	for _, p := range r.parts() {
		rows = append(rows, []string{p.name, fmt.Sprint(p.added), fmt.Sprint(p.removed), fmt.Sprint(p.changed), fmt.Sprint(p.unchanged)})
	}
	if len(rows) > 0 {
		table(w, []string{"", "added", "removed", "changed", "unchanged"}, rows)
	}
	if !r.Changed() {
		fmt.Fprint(w, "\nBoth lead to the same content.\n")
	}
	lockedImages(w, "Images", &r.Images)
	lockedImages(w, "Artifacts", &r.Artifacts)
	lockedCharts(w, &r.Charts)
	lockedFiles(w, &r.Files)
}

func lockedImages(w io.Writer, title string, c *bundle.LockedImageChanges) {
	if len(c.Added)+len(c.Removed)+len(c.Changed) == 0 {
		return
	}
	var rows [][]string
	// one is a row; old or now is nil where there is none.
	one := func(what string, old, now *bundle.LockedImage) {
		row := []string{what, "", "–", "–", "–", "–"}
		for i, img := range []*bundle.LockedImage{old, now} {
			if img == nil {
				continue
			}
			repository, tag, _ := manifest.SplitSource(img.Ref)
			row[1], row[2+i], row[4+i] = cell(repository), cellOr(tag), cell(short(img.Digest))
		}
		rows = append(rows, row)
	}
	for i := range c.Added {
		one("added", nil, &c.Added[i])
	}
	for i := range c.Removed {
		one("removed", &c.Removed[i], nil)
	}
	for i := range c.Changed {
		one("changed", &c.Changed[i].Old, &c.Changed[i].New)
	}
	fmt.Fprintf(w, "\n## %s\n", title)
	table(w, []string{"", "name", "old tag", "new tag", "old digest", "new digest"}, rows)
}

func lockedCharts(w io.Writer, c *bundle.LockedChartChanges) {
	if len(c.Added)+len(c.Removed)+len(c.Changed) == 0 {
		return
	}
	var rows [][]string
	one := func(what string, old, now *bundle.LockedChart) {
		row := []string{what, "", "", "–", "–", "–", "–"}
		for i, ch := range []*bundle.LockedChart{old, now} {
			if ch == nil {
				continue
			}
			row[1], row[2], row[3+i], row[5+i] = cell(ch.Release), cell(ch.Chart), cell(ch.Version), cell(short(ch.Digest))
		}
		rows = append(rows, row)
	}
	for i := range c.Added {
		one("added", nil, &c.Added[i])
	}
	for i := range c.Removed {
		one("removed", &c.Removed[i], nil)
	}
	for i := range c.Changed {
		one("changed", &c.Changed[i].Old, &c.Changed[i].New)
	}
	fmt.Fprint(w, "\n## Charts\n")
	table(w, []string{"", "release", "chart", "old version", "new version", "old digest", "new digest"}, rows)
	for i := range c.Changed {
		lockedDependencies(w, &c.Changed[i])
	}
}

// lockedDependencies tells what became of the charts that were fetched for another one.
func lockedDependencies(w io.Writer, c *bundle.LockedChartChange) {
	list := func(ch *bundle.LockedChart) string {
		var all []string
		for _, d := range ch.Dependencies {
			all = append(all, d.Name+" "+d.Version+" ("+short(d.Digest)+")")
		}
		return strings.Join(all, ", ")
	}
	if old, now := list(&c.Old), list(&c.New); old != now {
		fmt.Fprintf(w, "\nDependencies of %s: %s\n", code(c.New.Release), arrowCode(old, now))
	}
}

func lockedFiles(w io.Writer, c *bundle.LockedFileChanges) {
	if len(c.Added)+len(c.Removed)+len(c.Changed) == 0 {
		return
	}
	var rows [][]string
	for _, f := range c.Added {
		rows = append(rows, []string{"added", cell(f.Path), "–", cell(short(f.Digest))})
	}
	for _, f := range c.Removed {
		rows = append(rows, []string{"removed", cell(f.Path), cell(short(f.Digest)), "–"})
	}
	for _, f := range c.Changed {
		rows = append(rows, []string{"changed", cell(f.New.Path), cell(short(f.Old.Digest)), cell(short(f.New.Digest))})
	}
	fmt.Fprint(w, "\n## Files\n")
	table(w, []string{"", "file", "old digest", "new digest"}, rows)
}
