package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/strictyaml"
	"github.com/sealift/sealift/manifest"
)

// The apiVersion and kind of a lock.
const (
	LockAPIVersion = "sealift/v1"
	LockKind       = "Lock"
	// LockExtension is that of lock files, in place of the one that the spec has.
	LockExtension = ".lock"
	// MaxLockBytes bounds a lock file.
	MaxLockBytes = 16 << 20
)

const (
	// maxLockTokens bounds what a lock may consist of: the parser of YAML needs far more memory for
	// many small things than for few large ones. The densest lock of MaxLockBytes that Sealift
	// itself writes has half as many.
	maxLockTokens = 2 << 20
	// maxLockHead is how far the first keys of a lock are looked for.
	maxLockHead = 64 << 10
	// maxLockText bounds one text of a lock in bytes.
	maxLockText = 4096
	// maxLockProblems bounds how many problems are listed.
	maxLockProblems = 32
)

// Lock pins what a spec leads to: two packs from one lock by one version of Sealift are the same,
// byte by byte, but for their signatures. docs/lock.md describes its file, sealift.lock.
//
// Its lists may be in any order; Encode sorts them. They must not change any more once something
// was looked up with Image, Artifact, Chart or File.
type Lock struct {
	// Created is the time that bundles made from the lock have, as RFC 3339 in UTC.
	Created   string        `json:"created"`
	Images    []LockedImage `json:"images,omitempty"`
	Artifacts []LockedImage `json:"artifacts,omitempty"`
	Charts    []LockedChart `json:"charts,omitempty"`
	Files     []LockedFile  `json:"files,omitempty"`

	once  sync.Once
	index lockIndex
}

// LockedImage is an image reference, or that of an artifact, and what it led to.
type LockedImage struct {
	// Ref is fully qualified, as the Source of a manifest's image.
	Ref string `json:"ref"`
	// OCI is the path of the layout or archive that it is read from, as in the spec; empty for a registry.
	OCI string `json:"oci,omitempty"`
	// Digest, MediaType and Size describe the manifest or index.
	Digest    string `json:"digest"`
	MediaType string `json:"mediaType"`
	Size      int64  `json:"size"`
	// Platforms are the children of an index that travel, in the index's order; none for an image
	// that has but one manifest, of which Platform is the platform. Artifacts may have neither.
	Platforms []LockedPlatform `json:"platforms,omitempty"`
	Platform  string           `json:"platform,omitempty"`
	// Referrers are the signatures and other artifacts about it, in the order of the manifest.
	Referrers []manifest.Referrer `json:"referrers,omitempty"`
	// Dropped says that the spec left them behind.
	Dropped bool `json:"referrersDropped,omitempty"`
}

// LockedPlatform is a child of an index.
type LockedPlatform struct {
	Platform string `json:"platform"`
	Digest   string `json:"digest"`
}

// LockedChart is a chart, and the release that is made of it.
type LockedChart struct {
	// Chart is how the spec names it: its path, "oci://REGISTRY/REPOSITORY", or "REPO NAME".
	Chart string `json:"chart"`
	// Release is "NAMESPACE/RELEASE".
	Release string `json:"release"`
	// Range is the version as the spec has it, Version the one that was chosen.
	Range   string `json:"range,omitempty"`
	Version string `json:"version"`
	// Digest of its archive.
	Digest string `json:"digest"`
	// Manifest is the digest of its OCI manifest, where it came from a registry.
	Manifest string `json:"manifest,omitempty"`
	// Provenance is the digest of its provenance file, where it travels with one.
	Provenance string `json:"provenance,omitempty"`
	// Dependencies are what was fetched for a directory.
	Dependencies []chart.Dependency `json:"dependencies,omitempty"`
	// Referrers are about Manifest.
	Referrers []manifest.Referrer `json:"referrers,omitempty"`
}

// LockedFile is a file that the spec names, or that is in a directory that the spec names.
type LockedFile struct {
	// Path as in the spec, with slashes.
	Path   string `json:"path"`
	Digest string `json:"digest"`
	// Executable says that it is a program; only that of a file that travels counts.
	Executable bool `json:"executable,omitempty"`
}

// LockError lists all that is wrong with a lock.
type LockError struct {
	Path     string
	Problems []Problem
}

// Error has a line "path:line: text" for each problem.
func (e *LockError) Error() string { return strictyaml.Format(e.Path, e.Problems) }

// NoLockError says that there is no lock where one is needed.
type NoLockError struct{ Path string }

// Error names the file.
func (e *NoLockError) Error() string { return fmt.Sprintf("there is no lock %q", e.Path) }

// Is makes it an fs.ErrNotExist.
func (e *NoLockError) Is(target error) bool { return target == fs.ErrNotExist }

// LockPath is where the lock of a spec is: beside it, sealift.lock for sealift.yaml.
func LockPath(spec string) string {
	return strings.TrimSuffix(spec, filepath.Ext(filepath.Base(spec))) + LockExtension
}

// ReadLock reads the lock at path. Errors are *NoLockError, which is an fs.ErrNotExist, where there
// is none, *LockError for its content, or that of reading the file.
func ReadLock(path string) (*Lock, error) {
	raw, err := readStart(path, MaxLockBytes+1)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &NoLockError{path}
	}
	if err != nil {
		return nil, fmt.Errorf("reading lock: %w", err)
	}
	l, problems := ParseLock(raw)
	if len(problems) > 0 {
		return nil, &LockError{path, problems}
	}
	return l, nil
}

// IsLock reports whether the file at path says that it is a lock, of whatever version. It reads but
// the beginning.
func IsLock(path string) bool {
	raw, err := readStart(path, maxLockHead)
	if err != nil {
		return false
	}
	apiVersion, kind := lockHead(raw)
	return kind == LockKind && strings.HasPrefix(apiVersion, "sealift/")
}

// readStart reads at most limit bytes of a file.
func readStart(path string, limit int64) (_ []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return io.ReadAll(io.LimitReader(f, limit))
}

// lockHead finds apiVersion and kind without parsing the document.
func lockHead(raw []byte) (apiVersion, kind string) {
	raw = raw[:min(len(raw), maxLockHead)]
	for line := range bytes.Lines(raw) {
		key, value, _ := strings.Cut(string(line), ":")
		value, _, _ = strings.Cut(value, " #")
		value = strings.Trim(value, " \t\r\n\"'")
		switch strings.TrimPrefix(key, "\ufeff") {
		case "apiVersion":
			apiVersion = value
		case "kind":
			kind = value
		default:
			continue
		}
		if apiVersion != "" && kind != "" {
			break
		}
	}
	return apiVersion, kind
}

// lockFile is a lock as it is written.
type lockFile struct {
	APIVersion string            `yaml:"apiVersion"`
	Kind       string            `yaml:"kind"`
	Created    string            `yaml:"created"`
	Images     []lockedImageFile `yaml:"images"`
	Artifacts  []lockedImageFile `yaml:"artifacts"`
	Charts     []lockedChartFile `yaml:"charts"`
	Files      []lockedPathFile  `yaml:"files"`
}

type lockedImageFile struct {
	Ref       string               `yaml:"ref"`
	OCI       string               `yaml:"oci"`
	Digest    string               `yaml:"digest"`
	MediaType string               `yaml:"mediaType"`
	Size      int64                `yaml:"size"`
	Platform  string               `yaml:"platform"`
	Platforms []lockedPlatformFile `yaml:"platforms"`
	Referrers []lockedReferrerFile `yaml:"referrers"`
	Dropped   bool                 `yaml:"referrersDropped"`
}

type lockedPlatformFile struct {
	Platform string `yaml:"platform"`
	Digest   string `yaml:"digest"`
}

type lockedReferrerFile struct {
	Digest       string `yaml:"digest"`
	MediaType    string `yaml:"mediaType"`
	Size         int64  `yaml:"size"`
	Subject      string `yaml:"subject"`
	ArtifactType string `yaml:"artifactType"`
	Tag          string `yaml:"tag"`
}

type lockedChartFile struct {
	Release      string                 `yaml:"release"`
	Chart        string                 `yaml:"chart"`
	Range        string                 `yaml:"range"`
	Version      string                 `yaml:"version"`
	Digest       string                 `yaml:"digest"`
	Manifest     string                 `yaml:"manifest"`
	Provenance   string                 `yaml:"provenance"`
	Dependencies []lockedDependencyFile `yaml:"dependencies"`
	Referrers    []lockedReferrerFile   `yaml:"referrers"`
}

type lockedDependencyFile struct {
	Name       string `yaml:"name"`
	Version    string `yaml:"version"`
	Repository string `yaml:"repository"`
	Digest     string `yaml:"digest"`
}

type lockedPathFile struct {
	Path       string `yaml:"path"`
	Digest     string `yaml:"digest"`
	Executable bool   `yaml:"executable"`
}

// ParseLock reads a lock, or says all that is wrong with it. The lists of the lock are sorted.
func ParseLock(raw []byte) (*Lock, []Problem) {
	if problems := beforeLock(raw); len(problems) > 0 {
		return nil, fewer(problems)
	}
	var f lockFile
	doc, problems := strictyaml.Decode(raw, MaxLockBytes, &f)
	if len(problems) == 0 {
		problems = doc.Empties()
	}
	if len(problems) > 0 {
		return nil, fewer(problems)
	}
	add := func(line int, err error) {
		if err != nil {
			problems = append(problems, Problem{Line: line, Text: err.Error()})
		}
	}
	add(doc.Line("apiVersion"), checkLockVersion(f.APIVersion))
	add(doc.Line("kind"), checkLockKind(f.Kind))
	l := f.lock()
	lines := map[string][]int{}
	for _, list := range []string{"images", "artifacts", "charts", "files"} {
		doc.Lines(list, func(_, line int) { lines[list] = append(lines[list], line) })
	}
	l.check(func(list string, i int, err error) {
		if i < 0 {
			add(doc.Line(list), err)
			return
		}
		add(lines[list][i], err)
	})
	if len(problems) > 0 {
		return nil, fewer(problems)
	}
	l.sort()
	return l, nil
}

// fewer bounds the list of problems.
func fewer(problems []Problem) []Problem {
	if n := len(problems) - maxLockProblems; n > 0 {
		problems = append(problems[:maxLockProblems:maxLockProblems], Problem{Text: fmt.Sprintf("and %d more problems", n)})
	}
	return problems
}

// beforeLock finds what makes it useless to parse a lock, or would make the parser say something
// that nobody understands.
func beforeLock(raw []byte) []Problem {
	if len(raw) > MaxLockBytes {
		return []Problem{{Text: fmt.Sprintf("more than %d bytes", MaxLockBytes)}}
	}
	if problems := conflicts(raw); len(problems) > 0 {
		return problems
	}
	apiVersion, kind := lockHead(raw)
	// Unknown keys are no wonder in a document that is another one.
	if err := checkLockKind(kind); kind != "" && err != nil {
		return []Problem{{Text: err.Error()}}
	}
	if err := checkLockVersion(apiVersion); apiVersion != "" && err != nil {
		return []Problem{{Text: err.Error()}}
	}
	return tooMany(raw, maxLockTokens)
}

// tooMany bounds what a parser would make of a document: in memory, each thing takes a hundred times
// as much as the "-," that could stand for it.
func tooMany(raw []byte, limit int) []Problem {
	tokens := 0
	for _, c := range raw {
		switch c {
		case '\n', '\r', ',', '[', '{', ':', '-', '?':
			tokens++
		}
	}
	// Whatever YAML counts as a thing of its own comes after one of these characters.
	if tokens > limit {
		return []Problem{{Text: fmt.Sprintf("more than %d keys, items and lines", limit)}}
	}
	return nil
}

// conflicts finds the marks that version control leaves where it could not merge.
func conflicts(raw []byte) []Problem {
	var problems []Problem
	n := 0
	for line := range bytes.Lines(raw) {
		n++
		if len(problems) > maxLockProblems {
			break
		}
		for _, mark := range []string{"<<<<<<<", "|||||||", "=======", ">>>>>>>"} {
			rest, found := bytes.CutPrefix(line, []byte(mark))
			if found && (len(rest) == 0 || rest[0] == ' ' || rest[0] == '\r' || rest[0] == '\n') {
				problems = append(problems, Problem{Line: n, Text: fmt.Sprintf("a merge conflict is left here (%s): take one of the sides, then lock again", mark)})
			}
		}
	}
	return problems
}

var laterLock = lazily(`\Asealift/v[0-9]+[a-z0-9]*\z`)

func checkLockVersion(v string) error {
	switch {
	case v == LockAPIVersion:
		return nil
	case laterLock().MatchString(v):
		return fmt.Errorf("apiVersion %q is of another version of sealift, this one reads %q", v, LockAPIVersion)
	}
	return fmt.Errorf("apiVersion %q, this version reads %q", v, LockAPIVersion)
}

func checkLockKind(kind string) error {
	if kind != LockKind {
		return fmt.Errorf("kind %q, want %q", kind, LockKind)
	}
	return nil
}

func (f *lockFile) lock() *Lock {
	l := &Lock{Created: f.Created}
	for i := range f.Images {
		l.Images = append(l.Images, f.Images[i].locked())
	}
	for i := range f.Artifacts {
		l.Artifacts = append(l.Artifacts, f.Artifacts[i].locked())
	}
	for i := range f.Charts {
		c := &f.Charts[i]
		locked := LockedChart{Chart: c.Chart, Release: c.Release, Range: c.Range, Version: c.Version, Digest: c.Digest, Manifest: c.Manifest, Provenance: c.Provenance, Referrers: lockedReferrers(c.Referrers)}
		for _, d := range c.Dependencies {
			locked.Dependencies = append(locked.Dependencies, chart.Dependency{Name: d.Name, Version: d.Version, Repository: d.Repository, Digest: d.Digest})
		}
		l.Charts = append(l.Charts, locked)
	}
	for _, p := range f.Files {
		l.Files = append(l.Files, LockedFile(p))
	}
	return l
}

func (f *lockedImageFile) locked() LockedImage {
	img := LockedImage{Ref: f.Ref, OCI: f.OCI, Digest: f.Digest, MediaType: f.MediaType, Size: f.Size, Platform: f.Platform, Dropped: f.Dropped, Referrers: lockedReferrers(f.Referrers)}
	for _, p := range f.Platforms {
		img.Platforms = append(img.Platforms, LockedPlatform(p))
	}
	return img
}

func lockedReferrers(list []lockedReferrerFile) []manifest.Referrer {
	var referrers []manifest.Referrer
	for _, r := range list {
		referrers = append(referrers, manifest.Referrer{Digest: r.Digest, MediaType: r.MediaType, Size: r.Size, Subject: r.Subject, ArtifactType: r.ArtifactType, Tag: r.Tag})
	}
	return referrers
}

// check calls report for all that is wrong, with the list and the index of the item, or with the
// list or key and -1.
func (l *Lock) check(report func(list string, i int, err error)) {
	if err := manifest.CheckTime(l.Created); err != nil {
		report("created", -1, fmt.Errorf("created: %w", err))
	}
	for _, list := range []struct {
		name     string
		n, limit int
	}{{"images", len(l.Images), manifest.MaxImages}, {"artifacts", len(l.Artifacts), manifest.MaxImages}, {"charts", len(l.Charts), manifest.MaxCharts}, {"files", len(l.Files), manifest.MaxFiles}} {
		if list.n > list.limit {
			report(list.name, -1, fmt.Errorf("%d %s, at most %d are allowed", list.n, list.name, list.limit))
			return
		}
	}
	twice := map[string]bool{}
	item := func(list string, i int, what, name string, err error) {
		if err != nil {
			report(list, i, fmt.Errorf("%s %q: %w", what, name, err))
		}
		if key := list + " " + name; twice[key] {
			report(list, i, fmt.Errorf("%s %q stands here for the second time", what, name))
		} else {
			twice[key] = true
		}
	}
	for i := range l.Images {
		img := &l.Images[i]
		err := img.check()
		if err == nil && img.Platform == "" && len(img.Platforms) == 0 {
			err = errors.New("neither platform nor platforms")
		}
		item("images", i, "image", img.Ref, err)
	}
	for i := range l.Artifacts {
		item("artifacts", i, "artifact", l.Artifacts[i].Ref, l.Artifacts[i].check())
	}
	for i := range l.Charts {
		item("charts", i, "chart", l.Charts[i].Release, l.Charts[i].check())
	}
	for i := range l.Files {
		item("files", i, "file", l.Files[i].Path, errors.Join(checkLockText("path", l.Files[i].Path), manifest.CheckDigest(l.Files[i].Digest)))
	}
}

func (img *LockedImage) check() error {
	ref, err := oci.ParseReference(img.Ref)
	if err != nil {
		return err
	}
	if ref.String() != img.Ref {
		return fmt.Errorf("it is written %q in full", ref)
	}
	if ref.Digest != "" && ref.Digest != img.Digest {
		return fmt.Errorf("pinned to another digest than %s", img.Digest)
	}
	if img.OCI != "" {
		if err := checkLockText("oci", img.OCI); err != nil {
			return err
		}
	}
	if err := checkLockedManifest(img.Digest, img.MediaType, img.Size); err != nil {
		return err
	}
	if img.Platform != "" {
		if len(img.Platforms) > 0 {
			return errors.New("both platform and platforms")
		}
		if err := manifest.CheckPlatform(img.Platform); err != nil {
			return err
		}
	}
	subjects := map[string]bool{img.Digest: true}
	for _, p := range img.Platforms {
		if err := errors.Join(manifest.CheckPlatform(p.Platform), manifest.CheckDigest(p.Digest)); err != nil {
			return err
		}
		if subjects[p.Digest] {
			return fmt.Errorf("%s twice", p.Digest)
		}
		subjects[p.Digest] = true
	}
	if img.Dropped && len(img.Referrers) > 0 {
		return errors.New("referrers where referrers were dropped")
	}
	return checkLockedReferrers(img.Referrers, subjects)
}

func (c *LockedChart) check() error {
	namespace, release, _ := strings.Cut(c.Release, "/")
	if err := errors.Join(manifest.CheckNamespace(namespace), manifest.CheckRelease(release)); err != nil {
		return err
	}
	if err := errors.Join(checkLockText("chart", c.Chart), checkLockText("version", c.Version), manifest.CheckDigest(c.Digest)); err != nil {
		return err
	}
	if c.Range != "" {
		if err := checkLockText("range", c.Range); err != nil {
			return err
		}
	}
	subjects := map[string]bool{}
	if c.Manifest != "" {
		if err := manifest.CheckDigest(c.Manifest); err != nil {
			return fmt.Errorf("manifest: %w", err)
		}
		subjects[c.Manifest] = true
	}
	if c.Provenance != "" {
		if err := manifest.CheckDigest(c.Provenance); err != nil {
			return fmt.Errorf("provenance: %w", err)
		}
	}
	for _, d := range c.Dependencies {
		err := errors.Join(checkLockText("name", d.Name), checkLockText("version", d.Version), manifest.CheckDigest(d.Digest))
		if err == nil && d.Repository != "" {
			err = checkLockText("repository", d.Repository)
		}
		if err != nil {
			return fmt.Errorf("dependency %q: %w", d.Name, err)
		}
	}
	return checkLockedReferrers(c.Referrers, subjects)
}

// checkLockedReferrers checks what a manifest would refuse; subjects are what they may be about.
func checkLockedReferrers(list []manifest.Referrer, subjects map[string]bool) error {
	if len(list) > manifest.MaxReferrers {
		return fmt.Errorf("%d referrers, at most %d are allowed", len(list), manifest.MaxReferrers)
	}
	type key struct{ subject, digest, tag string }
	seen := map[key]bool{}
	for _, r := range list {
		if err := checkLockedManifest(r.Digest, r.MediaType, r.Size); err != nil {
			return fmt.Errorf("referrer: %w", err)
		}
		if !subjects[r.Subject] {
			return fmt.Errorf("referrer %s is about %q, which does not stand before it", r.Digest, r.Subject)
		}
		if r.ArtifactType != "" && !lockMedia().MatchString(r.ArtifactType) {
			return fmt.Errorf("referrer %s: artifact type %q is malformed", r.Digest, r.ArtifactType)
		}
		if r.Tag != "" && !slices.ContainsFunc(manifest.ReferrerTags, func(ending string) bool { return r.Tag == manifest.ReferrerTag(r.Subject, ending) }) {
			return fmt.Errorf("referrer %s: tag %q is not made from the digest of its subject", r.Digest, r.Tag)
		}
		k := key{r.Subject, r.Digest, r.Tag}
		if seen[k] {
			return fmt.Errorf("referrer %s twice", r.Digest)
		}
		seen[k], subjects[r.Digest] = true, true
	}
	return nil
}

var lockMedia = lazily(`\A[a-zA-Z0-9][a-zA-Z0-9!#$&^_.+-]{0,126}/[a-zA-Z0-9][a-zA-Z0-9!#$&^_.+-]{0,126}\z`)

func checkLockedManifest(digest, mediaType string, size int64) error {
	if err := manifest.CheckDigest(digest); err != nil {
		return err
	}
	if !lockMedia().MatchString(mediaType) {
		return fmt.Errorf("%s: media type %q is malformed", digest, mediaType)
	}
	if size < 1 || size > manifest.MaxOCIManifestBytes {
		return fmt.Errorf("%s: size %d is not from 1 to %d", digest, size, manifest.MaxOCIManifestBytes)
	}
	return nil
}

// checkLockText refuses what cannot be shown at a terminal or in a difference of two versions.
func checkLockText(what, s string) error {
	switch {
	case s == "":
		return fmt.Errorf("%s is missing", what)
	case len(s) > maxLockText:
		return fmt.Errorf("%s has %d bytes, at most %d are allowed", what, len(s), maxLockText)
	case !utf8.ValidString(s):
		return fmt.Errorf("%s %q is not UTF-8", what, s)
	}
	if at := strings.IndexFunc(s, func(r rune) bool {
		return r < 0x20 || r >= 0x7f && r < 0xa0 || r == 0x200e || r == 0x200f || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069
	}); at >= 0 {
		return fmt.Errorf("%s %q holds characters that cannot be shown", what, s)
	}
	return nil
}

// sort brings the lists into the order of the file.
func (l *Lock) sort() {
	byRef := func(a, b LockedImage) int { return strings.Compare(a.Ref, b.Ref) }
	slices.SortStableFunc(l.Images, byRef)
	slices.SortStableFunc(l.Artifacts, byRef)
	slices.SortStableFunc(l.Charts, func(a, b LockedChart) int { return strings.Compare(a.Release, b.Release) })
	slices.SortStableFunc(l.Files, func(a, b LockedFile) int {
		if c := strings.Compare(a.Path, b.Path); c != 0 {
			return c
		}
		return strings.Compare(a.Digest, b.Digest)
	})
}

// sorted is a copy with its lists in the order of the file, in which a file that was used for more
// than one thing stands once.
func (l *Lock) sorted() *Lock {
	c := l.clone()
	c.sort()
	c.Files = slices.Compact(c.Files)
	return c
}

// clone copies the lists, not what is within their items.
func (l *Lock) clone() *Lock {
	return &Lock{
		Created: l.Created, Images: slices.Clone(l.Images), Artifacts: slices.Clone(l.Artifacts),
		Charts: slices.Clone(l.Charts), Files: slices.Clone(l.Files),
	}
}

// lockIndex finds the items of a lock.
type lockIndex struct {
	images, artifacts map[string]*LockedImage
	// charts are those of one identity.
	charts map[string][]*LockedChart
	files  map[string]*LockedFile
}

func (l *Lock) find() *lockIndex {
	l.once.Do(func() {
		x := lockIndex{map[string]*LockedImage{}, map[string]*LockedImage{}, map[string][]*LockedChart{}, map[string]*LockedFile{}}
		for i := range l.Images {
			x.images[l.Images[i].Ref] = &l.Images[i]
		}
		for i := range l.Artifacts {
			x.artifacts[l.Artifacts[i].Ref] = &l.Artifacts[i]
		}
		for i := range l.Charts {
			c := &l.Charts[i]
			x.charts[c.Chart] = append(x.charts[c.Chart], c)
		}
		for i := range l.Files {
			x.files[l.Files[i].Path] = &l.Files[i]
		}
		l.index = x
	})
	return &l.index
}

// Image is what is locked for an image reference, or nil; also of a nil lock. It may be called by
// several goroutines, as the following may.
func (l *Lock) Image(ref string) *LockedImage {
	if l == nil {
		return nil
	}
	return lockedFor(l.find().images, ref)
}

// Artifact is what is locked for the reference of an artifact, or nil.
func (l *Lock) Artifact(ref string) *LockedImage {
	if l == nil {
		return nil
	}
	return lockedFor(l.find().artifacts, ref)
}

// lockedFor finds a reference also where it is not written in full.
func lockedFor(images map[string]*LockedImage, ref string) *LockedImage {
	if img := images[ref]; img != nil {
		return img
	}
	if r, err := oci.Normalize(ref); err == nil {
		return images[r.String()]
	}
	return nil
}

// Chart is what is locked for a chart and "NAMESPACE/RELEASE", or nil. Without a release it is the
// chart's only one.
func (l *Lock) Chart(chart, release string) *LockedChart {
	if l == nil {
		return nil
	}
	list := l.find().charts[chart]
	if release == "" && len(list) == 1 {
		return list[0]
	}
	for _, c := range list {
		if c.Release == release {
			return c
		}
	}
	return nil
}

// File is what is locked for a path, or nil.
func (l *Lock) File(path string) *LockedFile {
	if l == nil {
		return nil
	}
	return l.find().files[path]
}
