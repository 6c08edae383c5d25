package bundle

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/manifest"
)

// StaleLockError says that a lock is not what its spec leads to.
type StaleLockError struct {
	Path string
	// Changes are those of Lock.Stale.
	Changes []string
}

// Error names the file and the first of the changes.
func (e *StaleLockError) Error() string {
	listed, more := e.Changes, ""
	if n := len(listed) - maxListed; n > 0 {
		listed, more = listed[:maxListed], fmt.Sprintf("; and %d more", n)
	}
	return fmt.Sprintf("lock %q is stale: %s%s", e.Path, strings.Join(listed, "; "), more)
}

// Stale says in what the lock differs from what the spec leads to at present, that is with what the
// lock pins: a line for each thing, none where it is fresh, and a bundle can have the time of the
// lock. Their own times do not count, nor does what now leaves open: where it has no digest, only
// the wishes of the spec are compared.
func (l *Lock) Stale(now *Lock) []string {
	old, now := l.sorted(), now.sorted()
	var s stale
	s.images("image", old.Images, now.Images)
	s.images("artifact", old.Artifacts, now.Artifacts)
	staleList(&s, "chart", old.Charts, now.Charts, func(c *LockedChart) string { return c.Release }, s.chart)
	staleList(&s, "file", old.Files, now.Files, func(f *LockedFile) string { return f.Path }, func(name string, old, now *LockedFile) {
		s.differs(name, "digest", old.Digest, now.Digest)
		if old.Executable != now.Executable {
			s.add("%s: it %s executable as it was locked, now it %s", name, is(old.Executable), is(now.Executable))
		}
	})
	return s
}

func is(yes bool) string {
	if yes {
		return "is"
	}
	return "is not"
}

// stale collects lines.
type stale []string

func (s *stale) add(format string, a ...any) { *s = append(*s, fmt.Sprintf(format, a...)) }

// differs compares a fact that has to be known to count.
func (s *stale) differs(name, fact, old, now string) {
	if now != "" && old != now {
		s.add("%s: %s %s is locked, now it is %s", name, fact, orNothing(shortDigest(old)), shortDigest(now))
	}
}

// changes compares a fact of which it counts, too, that there is none.
func (s *stale) changes(name, fact, old, now string) {
	if old != now {
		s.add("%s: %s %s is locked, now it is %s", name, fact, orNothing(shortDigest(old)), orNothing(shortDigest(now)))
	}
}

// staleList compares two sorted lists.
func staleList[T any](s *stale, what string, old, now []T, name func(*T) string, both func(name string, old, now *T)) {
	for len(old) > 0 || len(now) > 0 {
		order := 0
		switch {
		case len(now) == 0:
			order = -1
		case len(old) == 0:
			order = 1
		default:
			order = strings.Compare(name(&old[0]), name(&now[0]))
		}
		switch {
		case order < 0:
			s.add("%s %s is locked, and nothing leads to it any more", what, name(&old[0]))
			old = old[1:]
		case order > 0:
			s.add("%s %s is not locked", what, name(&now[0]))
			now = now[1:]
		default:
			both(what+" "+name(&now[0]), &old[0], &now[0])
			old, now = old[1:], now[1:]
		}
	}
}

func (s *stale) images(what string, old, now []LockedImage) {
	staleList(s, what, old, now, func(i *LockedImage) string { return i.Ref }, func(name string, old, now *LockedImage) {
		if old.OCI != now.OCI {
			s.add("%s: locked from %s, now it is from %s", name, origin(old.OCI), origin(now.OCI))
		}
		s.differs(name, "digest", old.Digest, now.Digest)
		same := old.Digest == now.Digest
		switch a, b := old.platforms(), now.platforms(); {
		case len(b) > 0 && !slices.Equal(a, b):
			s.add("%s: %s locked, now wanted: %s", name, orNothing(strings.Join(a, ", ")), strings.Join(b, ", "))
		case same && !slices.Equal(old.Platforms, now.Platforms):
			s.add("%s: other manifests are locked for its platforms", name)
		}
		switch {
		case old.Dropped != now.Dropped:
			s.add("%s: signatures and the like %s as it was locked, now they %s", name, travel(old.Dropped), travel(now.Dropped))
		case same && !slices.Equal(old.Referrers, now.Referrers):
			s.add("%s: other signatures and the like are locked", name)
		}
	})
}

func (s *stale) chart(name string, old, now *LockedChart) {
	if old.Chart != now.Chart {
		s.add("%s: %s is locked, now it is %s", name, old.Chart, now.Chart)
		return
	}
	if old.Range != now.Range {
		s.add("%s: version %s is locked for %s, now the spec wants %s", name, old.Version, anyVersion(old.Range), anyVersion(now.Range))
		return
	}
	s.differs(name, "version", old.Version, now.Version)
	s.differs(name, "digest", old.Digest, now.Digest)
	if now.Digest != "" { // else nothing was asked
		s.changes(name, "manifest", old.Manifest, now.Manifest)
		s.changes(name, "provenance", old.Provenance, now.Provenance)
	}
	if old.Digest != now.Digest {
		return
	}
	if !slices.Equal(old.Dependencies, now.Dependencies) {
		s.add("%s: other dependencies are locked", name)
	}
	if !slices.Equal(old.Referrers, now.Referrers) {
		s.add("%s: other signatures and the like are locked", name)
	}
}

func origin(oci string) string { return cmp.Or(oci, "its registry") }

func anyVersion(r string) string { return cmp.Or(r, "any version") }

func orNothing(s string) string { return cmp.Or(s, "none") }

func travel(dropped bool) string {
	if dropped {
		return "stay behind"
	}
	return "travel"
}

// platforms are those of an image, sorted, each once.
func (img *LockedImage) platforms() []string {
	set := map[string]bool{}
	if img.Platform != "" {
		set[img.Platform] = true
	}
	for _, p := range img.Platforms {
		set[p.Platform] = true
	}
	return slices.Sorted(maps.Keys(set))
}

// shortDigest cuts a digest to what tells it from others in practice; anything else stays.
func shortDigest(s string) string {
	if manifest.CheckDigest(s) != nil {
		return s
	}
	return s[:len("sha256:")+12] + "…"
}

// LockDifference is what changes from one lock to another. Lists are in the order of the file; none
// is nil.
type LockDifference struct {
	Images    LockedImageChanges `json:"images"`
	Artifacts LockedImageChanges `json:"artifacts"`
	Charts    LockedChartChanges `json:"charts"`
	Files     LockedFileChanges  `json:"files"`
}

// LockedImageChanges says what became of images or artifacts.
type LockedImageChanges struct {
	Added     []LockedImage       `json:"added"`
	Removed   []LockedImage       `json:"removed"`
	Changed   []LockedImageChange `json:"changed"`
	Unchanged int                 `json:"unchanged"`
}

// LockedImageChange is an image of which anything differs, its reference included.
type LockedImageChange struct {
	// Repository is that of the new reference, with its registry.
	Repository string      `json:"repository"`
	Old        LockedImage `json:"old"`
	New        LockedImage `json:"new"`
}

// LockedChartChanges says what became of charts.
type LockedChartChanges struct {
	Added     []LockedChart       `json:"added"`
	Removed   []LockedChart       `json:"removed"`
	Changed   []LockedChartChange `json:"changed"`
	Unchanged int                 `json:"unchanged"`
}

// LockedChartChange is a chart that differs.
type LockedChartChange struct {
	Old LockedChart `json:"old"`
	New LockedChart `json:"new"`
}

// LockedFileChanges says what became of files.
type LockedFileChanges struct {
	Added     []LockedFile       `json:"added"`
	Removed   []LockedFile       `json:"removed"`
	Changed   []LockedFileChange `json:"changed"`
	Unchanged int                `json:"unchanged"`
}

// LockedFileChange is a file with another content.
type LockedFileChange struct {
	Old LockedFile `json:"old"`
	New LockedFile `json:"new"`
}

// CompareLocks says what changes from one lock to another, their times aside. Images belong together
// that have the same reference, or else the same repository and tag, or else the same repository
// where that leaves no choice; charts likewise by their release, then by the chart.
func CompareLocks(old, now *Lock) *LockDifference {
	old, now = old.sorted(), now.sorted()
	d := &LockDifference{Images: compareLockedImages(old.Images, now.Images), Artifacts: compareLockedImages(old.Artifacts, now.Artifacts)}
	d.Charts.Added, d.Charts.Removed, d.Charts.Changed, d.Charts.Unchanged = manifest.Changes(old.Charts, now.Charts,
		func(old, now *LockedChart) (LockedChartChange, bool) {
			return LockedChartChange{*old, *now}, !reflect.DeepEqual(old, now)
		},
		func(c *LockedChart) string { return c.Release },
		func(c *LockedChart) string { return c.Chart },
	)
	d.Files.Added, d.Files.Removed, d.Files.Changed, d.Files.Unchanged = manifest.Changes(old.Files, now.Files,
		func(old, now *LockedFile) (LockedFileChange, bool) { return LockedFileChange{*old, *now}, *old != *now },
		func(f *LockedFile) string { return f.Path },
	)
	return d
}

func compareLockedImages(old, now []LockedImage) (d LockedImageChanges) {
	repository := func(i *LockedImage) string { repository, _, _ := manifest.SplitSource(i.Ref); return repository }
	d.Added, d.Removed, d.Changed, d.Unchanged = manifest.Changes(old, now,
		func(old, now *LockedImage) (LockedImageChange, bool) {
			return LockedImageChange{repository(now), *old, *now}, !reflect.DeepEqual(old, now)
		},
		func(i *LockedImage) string { return i.Ref },
		func(i *LockedImage) string { name, _, _ := strings.Cut(i.Ref, "@"); return name },
		repository,
	)
	return d
}

// Changed reports whether there is any difference.
func (d *LockDifference) Changed() bool {
	return d.Images.changed() || d.Artifacts.changed() ||
		len(d.Charts.Added)+len(d.Charts.Removed)+len(d.Charts.Changed)+len(d.Files.Added)+len(d.Files.Removed)+len(d.Files.Changed) > 0
}

func (c *LockedImageChanges) changed() bool { return len(c.Added)+len(c.Removed)+len(c.Changed) > 0 }

// Lines has a line for people for each change.
func (d *LockDifference) Lines() []string {
	var lines []string
	add := func(format string, a ...any) { lines = append(lines, fmt.Sprintf(format, a...)) }
	for _, list := range []struct {
		what string
		c    *LockedImageChanges
	}{{"image", &d.Images}, {"artifact", &d.Artifacts}} {
		for i := range list.c.Added {
			add("%s %s is new: %s", list.what, list.c.Added[i].Ref, shortDigest(list.c.Added[i].Digest))
		}
		for i := range list.c.Removed {
			add("%s %s is gone", list.what, list.c.Removed[i].Ref)
		}
		for i := range list.c.Changed {
			add("%s %s", list.what, list.c.Changed[i].line())
		}
	}
	for i := range d.Charts.Added {
		c := &d.Charts.Added[i]
		add("chart %s is new: %s %s", c.Release, c.Chart, c.Version)
	}
	for i := range d.Charts.Removed {
		add("chart %s is gone", d.Charts.Removed[i].Release)
	}
	for i := range d.Charts.Changed {
		add("chart %s", d.Charts.Changed[i].line())
	}
	for _, f := range d.Files.Added {
		add("file %s is new", f.Path)
	}
	for _, f := range d.Files.Removed {
		add("file %s is gone", f.Path)
	}
	for _, c := range d.Files.Changed {
		add("file %s changed", c.New.Path)
	}
	return lines
}

// lockFacts collects what differs in one thing.
type lockFacts []string

// arrow notes a change from one value to another.
func (f *lockFacts) arrow(what, old, now string) {
	if old != now {
		*f = append(*f, what+orNothing(shortDigest(old))+" -> "+orNothing(shortDigest(now)))
	}
}

// of puts the facts after a name, which may have changed itself.
func (f lockFacts) of(old, now string) string {
	name := now
	if old != now {
		name = old + " -> " + now
	}
	if len(f) == 0 {
		return name
	}
	return name + ": " + strings.Join(f, ", ")
}

func (c *LockedImageChange) line() string {
	var f lockFacts
	f.arrow("", c.Old.Digest, c.New.Digest)
	f.arrow("platforms ", strings.Join(c.Old.platforms(), " "), strings.Join(c.New.platforms(), " "))
	if c.Old.OCI != c.New.OCI {
		f.arrow("from ", origin(c.Old.OCI), origin(c.New.OCI))
	}
	switch {
	case c.Old.Dropped != c.New.Dropped:
		f = append(f, "signatures and the like "+travel(c.New.Dropped))
	case len(c.Old.Referrers) != len(c.New.Referrers):
		f = append(f, fmt.Sprintf("signatures and the like: %d -> %d", len(c.Old.Referrers), len(c.New.Referrers)))
	case c.Old.Digest == c.New.Digest && !slices.Equal(c.Old.Referrers, c.New.Referrers):
		f = append(f, "other signatures and the like")
	}
	if len(f) == 0 && c.Old.Ref == c.New.Ref {
		f = append(f, "details differ")
	}
	return f.of(c.Old.Ref, c.New.Ref)
}

func (c *LockedChartChange) line() string {
	var f lockFacts
	if c.Old.Chart != c.New.Chart {
		f.arrow("", c.Old.Chart+" "+c.Old.Version, c.New.Chart+" "+c.New.Version)
	} else {
		f.arrow("", c.Old.Version, c.New.Version)
		if c.Old.Version == c.New.Version {
			f.arrow("", c.Old.Digest, c.New.Digest)
			if c.Old.Digest == c.New.Digest {
				f.arrow("manifest ", c.Old.Manifest, c.New.Manifest)
				f.arrow("provenance ", c.Old.Provenance, c.New.Provenance)
			}
		}
	}
	f.arrow("range ", c.Old.Range, c.New.Range)
	for _, now := range c.New.Dependencies {
		at := slices.IndexFunc(c.Old.Dependencies, func(old chart.Dependency) bool { return old.Name == now.Name && old.Repository == now.Repository })
		if at < 0 {
			f = append(f, "dependency "+now.Name+" "+now.Version+" is new")
			continue
		}
		old := c.Old.Dependencies[at]
		f.arrow("dependency "+now.Name+" ", old.Version, now.Version)
		if old.Version == now.Version {
			f.arrow("dependency "+now.Name+" "+now.Version+" ", old.Digest, now.Digest)
		}
	}
	for _, old := range c.Old.Dependencies {
		if !slices.ContainsFunc(c.New.Dependencies, func(now chart.Dependency) bool { return old.Name == now.Name && old.Repository == now.Repository }) {
			f = append(f, "dependency "+old.Name+" "+old.Version+" is gone")
		}
	}
	if !slices.Equal(c.Old.Referrers, c.New.Referrers) {
		f = append(f, fmt.Sprintf("signatures and the like: %d -> %d", len(c.Old.Referrers), len(c.New.Referrers)))
	}
	if len(f) == 0 && c.Old.Release == c.New.Release {
		f = append(f, "details differ")
	}
	return f.of(c.Old.Release, c.New.Release)
}
