package manifest

import (
	"slices"
	"strings"
)

// Difference is what changes from one bundle to another: what they carry, not why, nor in
// which order. Lists are in the order of the new bundle, removed things in that of the old one.
type Difference struct {
	Old       Title           `json:"old"`
	New       Title           `json:"new"`
	Platforms PlatformChanges `json:"platforms"`
	Images    ImageChanges    `json:"images"`
	Artifacts ImageChanges    `json:"artifacts"`
	Ignored   IgnoredChanges  `json:"ignored"`
	Charts    ChartChanges    `json:"charts"`
	Files     FileChanges     `json:"files"`
	// Notes is nil where the release notes are the same.
	Notes        *NotesChange        `json:"notes,omitempty"`
	Requirements []RequirementChange `json:"requirements"`
	Parameters   ParameterChanges    `json:"parameters"`
	Blobs        BlobChanges         `json:"blobs"`
}

// Title is what a bundle calls itself.
type Title struct {
	Name      string   `json:"name"`
	Version   string   `json:"version"`
	Channel   string   `json:"channel"`
	Created   string   `json:"created"`
	Expires   string   `json:"expires,omitempty"`
	Platforms []string `json:"platforms"`
}

// PlatformChanges are the platforms that only one of the bundles was packed for.
type PlatformChanges struct {
	Added   []string `json:"added"`
	Removed []string `json:"removed"`
}

// ImageChanges says what became of the images.
type ImageChanges struct {
	Added     []Image       `json:"added"`
	Removed   []Image       `json:"removed"`
	Changed   []ImageChange `json:"changed"`
	Unchanged int           `json:"unchanged"`
}

// Words for what differs in an image.
const (
	// ChangedTag is another tag, or one instead of none.
	ChangedTag = "tag"
	// ChangedPin says that the reference has, or lacks, a digest now.
	ChangedPin       = "pin"
	ChangedDigest    = "digest"
	ChangedPlatforms = "platforms"
	// ChangedContent says that other children, or another derived index, travel for the index.
	ChangedContent = "content"
	// ChangedReferrers is about the signatures, attestations and SBOMs that travel with it, and
	// about whose signatures were demanded.
	ChangedReferrers = "referrers"
	// ChangedArtifactType is about what an artifact says that it is.
	ChangedArtifactType = "artifactType"
)

// ImageChange is an image that differs. Changes is made of the words above.
type ImageChange struct {
	Repository string   `json:"repository"`
	Changes    []string `json:"changes"`
	Old        Image    `json:"old"`
	New        Image    `json:"new"`
}

// ChartChanges says what became of the charts and their releases.
type ChartChanges struct {
	Added     []Chart       `json:"added"`
	Removed   []Chart       `json:"removed"`
	Changed   []ChartChange `json:"changed"`
	Unchanged int           `json:"unchanged"`
}

// Words for what differs in a chart.
const (
	ChangedName       = "name"
	ChangedVersion    = "version"
	ChangedAppVersion = "appVersion"
	ChangedArchive    = "archive"
	// ChangedManifest is another manifest around the archive.
	ChangedManifest  = "manifest"
	ChangedRelease   = "release"
	ChangedNamespace = "namespace"
	ChangedValues    = "values"
	// ChangedEnvironments is about the values for kinds of sites.
	ChangedEnvironments = "environments"
	// ChangedSource is about where the chart came from; another tag there does not count.
	ChangedSource = "source"
	// ChangedProvenance is another provenance file, or key that it was proven with. ChangedReferrers
	// is about the signatures and other artifacts that travel with the chart.
	ChangedProvenance     = "provenance"
	ChangedDependsOn      = "dependsOn"
	ChangedRegistryValues = "registryValues"
	ChangedRollback       = "rollback"
	ChangedRollout        = "rollout"
	ChangedChecks         = "checks"
)

// ChartChange is a chart that differs. Changes is made of the words above.
type ChartChange struct {
	Changes []string `json:"changes"`
	Old     Chart    `json:"old"`
	New     Chart    `json:"new"`
}

// BlobChanges counts blobs. New is what an upgrade really has to carry.
type BlobChanges struct {
	New  Amount `json:"new"`
	Gone Amount `json:"gone"`
	Kept Amount `json:"kept"`
}

// Amount is a number of blobs, the sum of their sizes, and what they take in the bundle file
// before framing, which is less where they are compressed there. For blobs that are kept it
// is the new bundle's file.
type Amount struct {
	Count  int   `json:"count"`
	Bytes  int64 `json:"bytes"`
	Stored int64 `json:"stored"`
}

// Changed reports whether the two bundles carry anything else, ask anything else of the site, or call
// it anything else. Titles do not count.
func (d *Difference) Changed() bool {
	return d.Images.any() || d.Artifacts.any() || d.Charts.any() || d.Files.any() || d.Parameters.any() || d.Notes != nil ||
		len(d.Ignored.Added)+len(d.Ignored.Removed)+len(d.Requirements) > 0 ||
		len(d.Platforms.Added)+len(d.Platforms.Removed)+d.Blobs.New.Count+d.Blobs.Gone.Count > 0
}

func (c *ImageChanges) any() bool { return len(c.Added)+len(c.Removed)+len(c.Changed) > 0 }
func (c *ChartChanges) any() bool { return len(c.Added)+len(c.Removed)+len(c.Changed) > 0 }

// Compare says what changes from one valid manifest to another.
func Compare(old, now *Manifest) *Difference {
	return &Difference{
		Old: title(old), New: title(now),
		Platforms:    PlatformChanges{Added: without(now.Platforms, old.Platforms), Removed: without(old.Platforms, now.Platforms)},
		Images:       compareImages(old.Images, now.Images),
		Artifacts:    compareImages(old.Artifacts, now.Artifacts),
		Ignored:      compareIgnored(old.Ignored, now.Ignored),
		Charts:       compareCharts(old.Charts, now.Charts),
		Files:        compareFiles(old.Files, now.Files),
		Notes:        compareNotes(old.Notes, now.Notes),
		Requirements: compareRequires(old.Requires, now.Requires),
		Parameters:   compareParameters(old.Parameters, now.Parameters),
		Blobs:        compareBlobs(old, now),
	}
}

func title(m *Manifest) Title {
	return Title{m.Name, m.Version, m.Channel, m.Created, m.Expires, m.Platforms}
}

// without returns what is in list and not in other.
func without(list, other []string) []string {
	rest := []string{}
	for _, s := range list {
		if !slices.Contains(other, s) {
			rest = append(rest, s)
		}
	}
	return rest
}

// pair finds for each of now its counterpart in old: its index, or -1. The keys are tried one
// after the other; two belong together where they alone have a key among those that are left.
// Nothing is guessed: of several candidates none is taken.
func pair[T any](old, now []T, keys ...func(*T) string) (partner []int, alone []bool) {
	partner, alone = make([]int, len(now)), make([]bool, len(old))
	for i := range partner {
		partner[i] = -1
	}
	for i := range alone {
		alone[i] = true
	}
	for _, key := range keys {
		candidates := map[string]*[2][]int{}
		add := func(side, i int, k string) {
			if candidates[k] == nil {
				candidates[k] = &[2][]int{}
			}
			candidates[k][side] = append(candidates[k][side], i)
		}
		for i := range old {
			if alone[i] {
				add(0, i, key(&old[i]))
			}
		}
		for i := range now {
			if partner[i] < 0 {
				add(1, i, key(&now[i]))
			}
		}
		for _, c := range candidates {
			if len(c[0]) == 1 && len(c[1]) == 1 {
				partner[c[1][0]], alone[c[0][0]] = c[0][0], false
			}
		}
	}
	return partner, alone
}

// SplitSource cuts the source of an image into its repository, tag and digest; the last two
// may be empty.
func SplitSource(source string) (repository, tag, digest string) {
	repository, digest, _ = strings.Cut(source, "@")
	// A colon before the last slash is that of a port.
	if at := strings.LastIndexByte(repository, ':'); at > strings.LastIndexByte(repository, '/') {
		repository, tag = repository[:at], repository[at+1:]
	}
	return repository, tag, digest
}

// Changes sorts two lists into what was added, removed, changed and left as it is. Which items belong
// together the keys say, one after the other: two do that alone have a key among those that are left.
// compare tells how such two differ, if they do. What is new is in the order of now, what is gone in that of
// old; no list is nil.
func Changes[T, C any](old, now []T, compare func(old, now *T) (C, bool), keys ...func(*T) string) (added, removed []T, changed []C, unchanged int) {
	partner, alone := pair(old, now, keys...)
	added, removed, changed = []T{}, []T{}, []C{}
	for i := range now {
		if partner[i] < 0 {
			added = append(added, now[i])
			continue
		}
		if c, differs := compare(&old[partner[i]], &now[i]); differs {
			changed = append(changed, c)
		} else {
			unchanged++
		}
	}
	for i := range old {
		if alone[i] {
			removed = append(removed, old[i])
		}
	}
	return added, removed, changed, unchanged
}

func compareImages(old, now []Image) ImageChanges {
	d := ImageChanges{}
	d.Added, d.Removed, d.Changed, d.Unchanged = Changes(old, now, func(old, now *Image) (ImageChange, bool) {
		c := compareImage(old, now)
		return c, len(c.Changes) > 0
	},
		func(i *Image) string { return i.Source },
		func(i *Image) string { name, _, _ := strings.Cut(i.Source, "@"); return name },
		func(i *Image) string { repository, _, _ := SplitSource(i.Source); return repository + "@" + i.Digest },
		func(i *Image) string { repository, _, _ := SplitSource(i.Source); return repository },
	)
	return d
}

// note appends what to changes if it differs.
func note(changes []string, differs bool, what string) []string {
	if differs {
		return append(changes, what)
	}
	return changes
}

func compareImage(old, now *Image) ImageChange {
	repository, newTag, newPin := SplitSource(now.Source)
	_, oldTag, oldPin := SplitSource(old.Source)
	var c []string
	c = note(c, oldTag != newTag, ChangedTag)
	c = note(c, (oldPin == "") != (newPin == ""), ChangedPin)
	c = note(c, old.Digest != now.Digest, ChangedDigest)
	c = note(c, len(without(old.Platforms, now.Platforms))+len(without(now.Platforms, old.Platforms)) > 0, ChangedPlatforms)
	// Other content of the same digest; with another digest all of it is other content.
	c = note(c, old.Digest == now.Digest && (!same(old.Derived, now.Derived) || !slices.Equal(old.Children, now.Children)), ChangedContent)
	c = note(c, !slices.Equal(old.Referrers, now.Referrers) || old.ReferrersDropped != now.ReferrersDropped || !slices.EqualFunc(old.SignedBy, now.SignedBy, sameSigner), ChangedReferrers)
	c = note(c, old.ArtifactType != now.ArtifactType, ChangedArtifactType)
	return ImageChange{Repository: repository, Changes: c, Old: *old, New: *now}
}

func sameSigner(a, b ImageSigner) bool {
	root := same(a.TrustedRoot, b.TrustedRoot)
	a.TrustedRoot, b.TrustedRoot = nil, nil
	return root && a == b
}

func compareCharts(old, now []Chart) ChartChanges {
	d := ChartChanges{}
	d.Added, d.Removed, d.Changed, d.Unchanged = Changes(old, now, func(old, now *Chart) (ChartChange, bool) {
		c := compareChart(old, now)
		return c, len(c.Changes) > 0
	},
		// What an upgrade replaces is a release, whatever chart it was made of.
		func(c *Chart) string { return c.Namespace + "/" + c.Release },
		func(c *Chart) string { return c.Name + ":" + c.Version },
		func(c *Chart) string { return c.Name },
	)
	return d
}

func compareChart(old, now *Chart) ChartChange {
	var c []string
	c = note(c, old.Name != now.Name, ChangedName)
	c = note(c, old.Version != now.Version, ChangedVersion)
	c = note(c, old.AppVersion != now.AppVersion, ChangedAppVersion)
	c = note(c, old.Archive.Digest != now.Archive.Digest, ChangedArchive)
	c = note(c, old.Manifest.Digest != now.Manifest.Digest, ChangedManifest)
	c = note(c, old.Release != now.Release, ChangedRelease)
	c = note(c, old.Namespace != now.Namespace, ChangedNamespace)
	c = note(c, !slices.Equal(old.Values, now.Values), ChangedValues)
	c = note(c, !slices.EqualFunc(old.Environments, now.Environments, sameEnvironment), ChangedEnvironments)
	c = note(c, old.origin() != now.origin() || old.Plain != now.Plain, ChangedSource)
	c = note(c, !same(old.Provenance, now.Provenance) || old.SignedBy != now.SignedBy, ChangedProvenance)
	c = note(c, !slices.Equal(old.Referrers, now.Referrers), ChangedReferrers)
	c = note(c, !slices.Equal(old.DependsOn, now.DependsOn), ChangedDependsOn)
	c = note(c, !slices.Equal(old.RegistryValues, now.RegistryValues), ChangedRegistryValues)
	c = note(c, old.Rollback != now.Rollback, ChangedRollback)
	c = note(c, !sameRollout(old.Rollout, now.Rollout), ChangedRollout)
	c = note(c, !slices.EqualFunc(old.Checks, now.Checks, sameCheck), ChangedChecks)
	return ChartChange{Changes: c, Old: *old, New: *now}
}

// origin is the source without the tag or digest of a registry.
func (c *Chart) origin() string {
	if scheme, rest, ok := strings.Cut(c.Source, "://"); ok && scheme == "oci" {
		repository, _, _ := SplitSource(rest)
		return scheme + "://" + repository
	}
	return c.Source
}

func sameRollout(a, b *Rollout) bool {
	if a == nil || b == nil {
		return a == b
	}
	x, y := a.Front, b.Front
	return a.Strategy == b.Strategy && x.Kind == y.Kind && x.Name == y.Name && x.Service == y.Service && same(x.Object, y.Object) && slices.Equal(a.Steps, b.Steps)
}

func sameCheck(a, b Check) bool {
	return a.Name == b.Name && a.Seconds == b.Seconds && same(a.HTTP, b.HTTP) && same(a.TCP, b.TCP) && same(a.Job, b.Job)
}

// same compares what two pointers lead to.
func same[T comparable](a, b *T) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

func compareBlobs(old, now *Manifest) BlobChanges {
	var d BlobChanges
	had := make(map[string]bool, len(old.Blobs))
	for i := range old.Blobs {
		had[old.Blobs[i].Digest] = true
	}
	has := make(map[string]bool, len(now.Blobs))
	for i := range now.Blobs {
		b := &now.Blobs[i]
		has[b.Digest] = true
		if had[b.Digest] {
			d.Kept.add(now, i)
		} else {
			d.New.add(now, i)
		}
	}
	for i := range old.Blobs {
		if !has[old.Blobs[i].Digest] {
			d.Gone.add(old, i)
		}
	}
	return d
}

func (a *Amount) add(m *Manifest, i int) {
	a.Count++
	a.Bytes += m.Blobs[i].Size
	a.Stored += m.BlobEntries()[i].Size
}

// BlobEntries are the entries that hold the blobs, in the order of Blobs. What is not a blob's
// comes before them.
func (m *Manifest) BlobEntries() []Entry { return m.Entries[len(m.Entries)-len(m.Blobs):] }
