package install

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/progress"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// DefaultJobs is how many blobs are sent at the same time where nobody says otherwise.
const DefaultJobs = 4

// asking is how many small questions are asked of the registry at the same time.
const asking = 16

// SeedOptions say how a registry is seeded.
type SeedOptions struct {
	Client *oci.Client
	Target Target
	Index  IndexMode
	// MoveTags allows tags that are there to be moved to another digest.
	MoveTags bool
	// Jobs is how many blobs move at the same time; 0 means DefaultJobs.
	Jobs int
	// Held are repositories of the registry that hold the blobs of a bundle, by the bundle's path: it
	// may lie in the registry itself.
	Held     map[string]string
	Progress progress.Reporter
}

// TagMove is a tag of the target registry that stands for something else now.
type TagMove struct {
	Reference string `json:"reference"`
	From      string `json:"from"`
	To        string `json:"to"`
}

// TagsMoveError says that seeding would move tags, which was not allowed.
type TagsMoveError struct{ Moves []TagMove }

// Error lists the tags.
func (e *TagsMoveError) Error() string {
	lines := make([]string, 0, len(e.Moves))
	for _, m := range e.Moves {
		lines = append(lines, fmt.Sprintf("%s from %s to %s", m.Reference, m.From, m.To))
	}
	return "tags of the registry would be moved: " + strings.Join(lines, "; ")
}

// Actions of a SeededImage.
const (
	ActionSeeded  = "seeded"
	ActionPresent = "present"
	// ActionSeed is what a plan says of an image that is not there yet.
	ActionSeed = "seed"
)

// SeededImage is an image or chart in the target registry.
type SeededImage struct {
	Source string `json:"source"`
	// Target is what a pod uses: name:tag@digest.
	Target string `json:"target"`
	Digest string `json:"digest"`
	// Index says what stands for an index of which only some children travel; else empty.
	Index  IndexMode `json:"index,omitempty"`
	Action string    `json:"action"`
}

// SeedResult is what was done, or would be, to the target registry.
type SeedResult struct {
	Registry          string        `json:"registry"`
	UploadedBlobs     int           `json:"uploadedBlobs"`
	UploadedBytes     int64         `json:"uploadedBytes"`
	MountedBlobs      int           `json:"mountedBlobs"`
	ExistingBlobs     int           `json:"existingBlobs"`
	UploadedManifests int           `json:"uploadedManifests"`
	Tags              int           `json:"tags"`
	TagMoves          []TagMove     `json:"tagMoves"`
	Images            []SeededImage `json:"images"`
	// Referrers are the signatures, attestations and SBOMs of the images; their manifests count
	// among UploadedManifests.
	Referrers []SeededReferrer `json:"referrers"`
	// Unverifiable are the images at the site of which their signatures do not hold.
	Unverifiable []UnverifiableImage `json:"unverifiable"`
}

// Seeding is one or several bundles compared with a registry: what is to be sent.
type Seeding struct {
	bundles []*verify.Bundle
	o       SeedOptions
	roots   []*rootState
	blobs   map[string]*blobState
	moves   []TagMove
	abouts  []*about
	// holders are paths of repositories that hold blobs, by digest, as the images say that are there.
	holders map[string]string
	// keep are configs of tagged referrers, by digest, as far as they have passed in a stream.
	keep  map[string][]byte
	mu    sync.Mutex
	stats SeedResult
}

// rootState is a root with what the registry said about it.
type rootState struct {
	*root
	repo *oci.Repository
	// missing are the manifests to be stored, children before the top.
	missing []manifest.Descriptor
	// tags to be set to the top.
	tags []pendingTag
	// blobs that the missing manifests name, by digest, and their size.
	blobs map[string]bool
	size  int64
	// sent is set when something was stored for this root.
	sent bool
}

// pendingTag is a tag to be set, with the digest that it had when it was asked for.
type pendingTag struct{ name, at string }

// blobState is a blob that missing manifests name.
type blobState struct {
	manifest.Descriptor
	bundle *verify.Bundle
	need   []*rootState // of the repositories that lack it, one each
	have   string       // path of a repository that holds it
}

// ErrStreams is returned where several bundles are to be seeded of which one is a stream.
var ErrStreams = errors.New("a bundle that comes as a stream is seeded alone")

// Prepare compares the bundles with the registry. It sends nothing. What several of them carry
// is sent once. Errors: *CollisionError, *PlatformsError, *MergeError, *oci.Error,
// *verify.ContentError, ErrStreams.
func Prepare(ctx context.Context, bundles []*verify.Bundle, o SeedOptions) (*Seeding, error) {
	all, err := allRoots(bundles, o)
	if err != nil {
		return nil, err
	}
	for _, b := range bundles {
		if b.IsStream() && len(bundles) > 1 {
			return nil, ErrStreams
		}
		if err := b.Preload(ctx, o.Progress); err != nil {
			return nil, err
		}
	}
	s := &Seeding{bundles: bundles, o: o, blobs: map[string]*blobState{}, holders: map[string]string{}, keep: map[string][]byte{}, stats: SeedResult{Registry: o.Target.String(), TagMoves: []TagMove{}, Images: []SeededImage{}}}
	task := o.Progress.Start("asking the registry", int64(len(all)), progress.Items)
	defer task.Done()
	s.roots = make([]*rootState, len(all))
	err = each(ctx, asking, all, func(ctx context.Context, i int, r *root) error {
		st := &rootState{root: r}
		s.roots[i] = st
		defer task.Add(1)
		return s.ask(ctx, st)
	})
	if err != nil {
		return nil, err
	}
	if err := s.askReferrers(ctx); err != nil {
		return nil, err
	}
	for _, r := range s.roots {
		if err := s.collect(r); err != nil {
			return nil, err
		}
	}
	if err := s.collectReferrers(); err != nil {
		return nil, err
	}
	if err := s.findHolders(); err != nil {
		return nil, err
	}
	if err := s.askBlobs(ctx); err != nil {
		return nil, err
	}
	sort.Slice(s.moves, func(i, j int) bool { return s.moves[i].Reference < s.moves[j].Reference })
	return s, nil
}

// each calls f for all items, at most limit at the same time, and returns the first error; an
// end of ctx wins over what it caused.
func each[T any](ctx context.Context, limit int, items []T, f func(context.Context, int, T) error) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(limit)
	for i, item := range items {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error { return f(gctx, i, item) })
	}
	err := g.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// ask finds out which manifests and tags of r are missing. An image manifest that is there
// stands for all it names, since registries do not take one without its content. An index does
// not: it may have been stored while only some of its children travelled.
func (s *Seeding) ask(ctx context.Context, r *rootState) error {
	repo, err := s.o.Client.Repository(ctx, s.o.Target.Registry, r.path, true)
	if err != nil {
		return err
	}
	r.repo = repo
	manifests := append(slices.Clone(r.children), r.top)
	present, err := repo.ManifestDigest(ctx, r.top.Digest)
	if err != nil {
		return err
	}
	for _, m := range manifests {
		found := present
		if m.Digest != r.top.Digest {
			if found, err = repo.ManifestDigest(ctx, m.Digest); err != nil {
				return err
			}
		}
		if found == "" {
			r.missing = append(r.missing, m)
		}
	}
	for _, tag := range []string{r.tag, r.owned} {
		if tag == "" {
			continue
		}
		at, err := repo.ManifestDigest(ctx, tag)
		if err != nil {
			return err
		}
		if at == r.top.Digest {
			continue
		}
		r.tags = append(r.tags, pendingTag{tag, at})
		if at != "" {
			s.mu.Lock()
			s.moves = append(s.moves, s.move(r, tag, at))
			s.mu.Unlock()
		}
	}
	return nil
}

// move describes that a tag of r, which stands for at now, is to stand for r.
func (s *Seeding) move(r *rootState, tag, at string) TagMove {
	return TagMove{Reference: s.o.Target.Registry + "/" + r.path + ":" + tag, From: at, To: r.top.Digest}
}

// collect lists the blobs that the missing manifests of r name.
func (s *Seeding) collect(r *rootState) error {
	r.blobs = map[string]bool{}
	for _, m := range r.missing {
		if oci.IsIndex(m.MediaType) {
			continue
		}
		raw, err := r.bundle.ReadBlob(m.Digest, manifest.MaxOCIManifestBytes)
		if err != nil {
			return err
		}
		img, err := oci.ParseImage(raw)
		if err != nil {
			return fmt.Errorf("image %q: %w", r.source, err)
		}
		s.wants(r, img)
	}
	return nil
}

// wants adds the blobs of img, which r's repository is to hold.
func (s *Seeding) wants(r *rootState, img *oci.Image) {
	for _, d := range append([]manifest.Descriptor{img.Config}, img.Layers...) {
		if r.blobs[d.Digest] {
			continue
		}
		r.blobs[d.Digest] = true
		r.size += d.Size
		b := s.blobs[d.Digest]
		if b == nil {
			b = &blobState{Descriptor: d, bundle: r.bundle}
			s.blobs[d.Digest] = b
		}
		// Several images in one repository need a blob once.
		if !slices.ContainsFunc(b.need, func(o *rootState) bool { return o.path == r.path }) {
			b.need = append(b.need, r)
		}
	}
}

// findHolders notes where in the registry blobs are that others want: in the repositories of images
// that are there already.
func (s *Seeding) findHolders() error {
	if len(s.blobs) == 0 {
		return nil
	}
	for _, r := range s.roots {
		for _, m := range append(slices.Clone(r.children), r.top) {
			if oci.IsIndex(m.MediaType) || slices.ContainsFunc(r.missing, func(d manifest.Descriptor) bool { return d.Digest == m.Digest }) {
				continue
			}
			raw, err := r.bundle.ReadBlob(m.Digest, manifest.MaxOCIManifestBytes)
			if err != nil {
				return err
			}
			img, err := oci.ParseImage(raw)
			if err != nil {
				return fmt.Errorf("image %q: %w", r.source, err)
			}
			for _, d := range append([]manifest.Descriptor{img.Config}, img.Layers...) {
				if s.holders[d.Digest] == "" {
					s.holders[d.Digest] = r.path
				}
			}
		}
	}
	return nil
}

// askBlobs finds out which blobs are there.
func (s *Seeding) askBlobs(ctx context.Context) error {
	list := make([]*blobState, 0, len(s.blobs))
	for _, b := range s.blobs {
		list = append(list, b)
	}
	return each(ctx, asking, list, func(ctx context.Context, _ int, b *blobState) error {
		var need []*rootState
		existing := 0
		for _, r := range b.need {
			ok, err := r.repo.HasBlob(ctx, b.Digest)
			if err != nil {
				return err
			}
			if ok {
				b.have = r.path
				existing++
			} else {
				need = append(need, r)
			}
		}
		b.need = need
		if b.have == "" && len(need) > 0 {
			b.have = cmp.Or(s.holders[b.Digest], s.o.Held[b.bundle.Path()])
		}
		s.mu.Lock()
		s.stats.ExistingBlobs += existing
		s.mu.Unlock()
		return nil
	})
}

// bytes is how much is to be uploaded, if every blob goes over the wire once.
func (s *Seeding) bytes() int64 {
	var n int64
	for _, b := range s.blobs {
		if len(b.need) > 0 && b.have == "" {
			n += b.Size
		}
	}
	return n
}

// Preview is what Run would do, as far as that is known beforehand.
func (s *Seeding) Preview() *SeedResult {
	p := s.stats
	p.TagMoves = append([]TagMove{}, s.moves...)
	for _, b := range s.blobs {
		for i := range b.need {
			if b.have != "" || i > 0 {
				p.MountedBlobs++
			} else {
				p.UploadedBlobs++
				p.UploadedBytes += b.Size
			}
		}
	}
	for _, r := range s.roots {
		p.UploadedManifests += len(r.missing)
		p.Tags += len(r.tags)
		action := ActionPresent
		if len(r.missing)+len(r.tags) > 0 {
			action = ActionSeed
		}
		p.Images = append(p.Images, r.seeded(s.o.Target, action))
	}
	for _, g := range s.abouts {
		for _, a := range g.items {
			if a.needed() {
				p.UploadedManifests++
			}
		}
	}
	s.reportReferrers(&p)
	return &p
}

func (r *rootState) seeded(t Target, action string) SeededImage {
	index := r.index
	if index == "" && r.sparse {
		index = IndexOriginal
	}
	return SeededImage{Source: r.source, Target: r.reference(t), Digest: r.top.Digest, Index: index, Action: action}
}

// Run sends what is missing: blobs, then manifests with children before parents, then what is about
// them, and the tags when everything they lead to is there. Errors: *TagsMoveError and
// *SparseIndexError before anything but the smallest image with a sparse index was sent,
// *MergeError, *oci.Error, *verify.ContentError.
func (s *Seeding) Run(ctx context.Context) (*SeedResult, error) {
	if len(s.moves) > 0 && !s.o.MoveTags {
		return nil, &TagsMoveError{s.moves}
	}
	report := s.o.Progress
	if s.bundles[0].IsStream() {
		report = progress.Discard // how far the stream has been read says it all
	}
	task := report.Start("seeding", s.bytes(), progress.Bytes)
	defer task.Done()
	if err := s.checkPlaces(ctx); err != nil {
		return nil, err
	}
	// Whether the registry takes sparse indexes is found out with the smallest one, not after
	// hours of uploading.
	if probe := s.smallestSparse(); probe != nil && !s.bundles[0].IsStream() {
		if err := s.send(ctx, []*rootState{probe}, task); err != nil {
			return nil, err
		}
	}
	if s.bundles[0].IsStream() {
		if err := s.sendStream(ctx, task); err != nil {
			return nil, err
		}
	}
	if err := s.send(ctx, s.roots, task); err != nil {
		return nil, err
	}
	// An image that is found by its tag is found with its signatures.
	if err := s.attach(ctx, s.jobs(), task); err != nil {
		return nil, err
	}
	if err := s.tag(ctx); err != nil {
		return nil, err
	}
	s.reportReferrers(&s.stats)
	s.stats.TagMoves = append(s.stats.TagMoves, s.moves...)
	for _, r := range s.roots {
		action := ActionPresent
		if r.sent {
			action = ActionSeeded
		}
		s.stats.Images = append(s.stats.Images, r.seeded(s.o.Target, action))
	}
	return &s.stats, nil
}

// checkPlaces finds out which repositories do not take what they are to get, all of them at once, and
// before hours of uploading: some registries want each to be made beforehand.
func (s *Seeding) checkPlaces(ctx context.Context) error {
	var repos []*rootState
	seen := map[string]bool{}
	for _, r := range s.roots {
		if (len(r.missing) > 0 || len(r.tags) > 0) && !seen[r.path] {
			seen[r.path] = true
			repos = append(repos, r)
		}
	}
	refused := &PlacesError{Registry: s.o.Target.Registry}
	err := each(ctx, asking, repos, func(ctx context.Context, _ int, r *rootState) error {
		err := r.repo.CheckPush(ctx)
		reason := oci.RefusalOf(err)
		if err == nil || reason == oci.RefusalOther {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		refused.Places = append(refused.Places, Place{r.path, reason, err})
		return nil
	})
	if err != nil {
		return err
	}
	if len(refused.Places) > 0 {
		sort.Slice(refused.Places, func(i, j int) bool { return refused.Places[i].Repository < refused.Places[j].Repository })
		return refused
	}
	return nil
}

// Place is a repository that does not take what it is to get.
type Place struct {
	Repository string
	Reason     oci.Refusal
	Err        error
}

// PlacesError says that a registry refuses to take anything into some repositories. Nothing was sent.
type PlacesError struct {
	Registry string
	Places   []Place
}

// Error lists the first of them, and quotes the registry on the very first.
func (e *PlacesError) Error() string {
	names := make([]string, 0, maxListed)
	for _, p := range e.Places[:min(len(e.Places), maxListed)] {
		names = append(names, p.Repository)
	}
	text := fmt.Sprintf("registry %s takes nothing into %s", e.Registry, strings.Join(names, ", "))
	if n := len(e.Places) - len(names); n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	return fmt.Sprintf("%s: %v", text, e.Places[0].Err)
}

// Unwrap returns the answer for the first of them.
func (e *PlacesError) Unwrap() error { return e.Places[0].Err }

func (s *Seeding) jobs() int {
	if s.o.Jobs <= 0 {
		return DefaultJobs
	}
	return s.o.Jobs
}

func (s *Seeding) smallestSparse() *rootState {
	var least *rootState
	for _, r := range s.roots {
		top := slices.ContainsFunc(r.missing, func(m manifest.Descriptor) bool { return m.Digest == r.top.Digest })
		if r.sparse && top && (least == nil || r.size < least.size) {
			least = r
		}
	}
	return least
}

// send brings the blobs and manifests of some roots into the registry.
func (s *Seeding) send(ctx context.Context, some []*rootState, task progress.Task) error {
	jobs := s.jobs()
	// Which repositories want a blob now. A root may share it with another root of its
	// repository, so repositories are compared, not roots.
	wanted := map[string]map[string]bool{}
	for _, r := range some {
		for digest := range r.blobs {
			if wanted[digest] == nil {
				wanted[digest] = map[string]bool{}
			}
			wanted[digest][r.path] = true
		}
	}
	// In the order of the files, so that media that seek slowly are read from front to back.
	var list []*blobState
	for _, from := range s.bundles {
		for _, mb := range from.Manifest().Blobs {
			if b := s.blobs[mb.Digest]; b != nil && b.bundle == from && wanted[mb.Digest] != nil && len(b.need) > 0 {
				list = append(list, b)
			}
		}
	}
	err := each(ctx, jobs, list, func(ctx context.Context, _ int, b *blobState) error {
		open := oci.FromStart(func() (io.ReadCloser, error) { return b.bundle.Blob(b.Digest) })
		return s.sendBlob(ctx, b, wanted[b.Digest], open, task)
	})
	if err != nil {
		return err
	}
	return each(ctx, jobs, some, func(ctx context.Context, _ int, r *rootState) error { return s.sendManifests(ctx, r) })
}

// sendBlob brings one blob to those of its repositories that lack it: over the wire once, then
// mounted from one to the next.
func (s *Seeding) sendBlob(ctx context.Context, b *blobState, paths map[string]bool, open func(offset int64) (io.ReadCloser, error), task progress.Task) error {
	var later []*rootState
	for _, r := range b.need {
		if !paths[r.path] {
			later = append(later, r)
			continue
		}
		mounted, err := r.repo.PutBlob(ctx, b.Descriptor, b.have, open, task.Add)
		if err != nil {
			return err
		}
		b.have = r.path
		s.mu.Lock()
		if mounted {
			s.stats.MountedBlobs++
		} else {
			s.stats.UploadedBlobs++
			s.stats.UploadedBytes += b.Size
		}
		s.mu.Unlock()
		task.Note(b.Digest)
	}
	b.need = later
	return nil
}

// sendManifests stores the missing manifests of r under their digests.
func (s *Seeding) sendManifests(ctx context.Context, r *rootState) error {
	missing := r.missing
	r.missing = nil
	for _, m := range missing {
		c, err := r.content(m)
		if err != nil {
			return err
		}
		if err := r.repo.PutManifest(ctx, m.Digest, c); err != nil {
			if r.sparse && m.Digest == r.top.Digest && oci.IsMissingContent(err) {
				return &SparseIndexError{r.source, err}
			}
			return err
		}
		r.sent = true
		s.mu.Lock()
		s.stats.UploadedManifests++
		s.mu.Unlock()
	}
	return nil
}

// content reads a manifest of r.
func (r *rootState) content(d manifest.Descriptor) (*oci.Content, error) {
	raw, err := r.bundle.ReadBlob(d.Digest, manifest.MaxOCIManifestBytes)
	if err != nil {
		return nil, err
	}
	return &oci.Content{Descriptor: d, Raw: raw}, nil
}

// tag sets the tags, when everything else is there.
func (s *Seeding) tag(ctx context.Context) error {
	return each(ctx, asking, s.roots, func(ctx context.Context, _ int, r *rootState) error {
		if len(r.tags) == 0 {
			return nil
		}
		c, err := r.content(r.top)
		if err != nil {
			return err
		}
		for _, tag := range r.tags {
			// Hours may have passed since the tags were asked for.
			at, err := r.repo.ManifestDigest(ctx, tag.name)
			if err != nil {
				return err
			}
			if at == r.top.Digest {
				continue
			}
			if at != tag.at {
				return &TagsMoveError{[]TagMove{s.move(r, tag.name, at)}}
			}
			if err := r.repo.PutManifest(ctx, tag.name, c); err != nil {
				return err
			}
			r.sent = true
			s.mu.Lock()
			s.stats.Tags++
			s.mu.Unlock()
		}
		return nil
	})
}
