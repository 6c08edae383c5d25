package install

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sealift/sealift/internal/containerd"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/progress"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// leaseTime is how long what a load that was interrupted has brought is kept for the next one.
const leaseTime = 24 * time.Hour

// LoadOptions say how images are brought into the containerd of a node.
type LoadOptions struct {
	Client *containerd.Client
	// MoveNames allows names that stand for another digest to be moved.
	MoveNames bool
	// NoPin leaves the images to the kubelet's garbage collection.
	NoPin bool
	// Jobs is how many blobs move at the same time; 0 means DefaultJobs.
	Jobs int
	// Now is the local clock.
	Now      time.Time
	Progress progress.Reporter
}

// Actions of a LoadedImage.
const (
	ActionLoaded = "loaded"
	// ActionLoad is what a plan says of an image that is not there yet.
	ActionLoad = "load"
)

// LoadedImage is an image in the containerd of a node.
type LoadedImage struct {
	Source string `json:"source"`
	Digest string `json:"digest"`
	// Platform is the one of the image that the node runs.
	Platform string `json:"platform"`
	// Names are what it is called there: repository:tag, and repository@digest.
	Names []string `json:"names"`
	// Action is ActionLoaded, ActionPresent or ActionLoad.
	Action string `json:"action"`
}

// UnsuitableImage is an image that was not loaded since the node cannot run it.
type UnsuitableImage struct {
	Source    string   `json:"source"`
	Platforms []string `json:"platforms"`
}

// LoadResult is what was done, or would be, to the containerd of a node.
type LoadResult struct {
	// Address is the path of its socket, Containerd its version, Platform what the node runs.
	Address    string `json:"address"`
	Namespace  string `json:"namespace"`
	Containerd string `json:"containerd"`
	Platform   string `json:"platform"`
	// Blobs are counted with the manifests among them.
	WrittenBlobs  int   `json:"writtenBlobs"`
	WrittenBytes  int64 `json:"writtenBytes"`
	ExistingBlobs int   `json:"existingBlobs"`
	Names         int   `json:"names"`
	// Pinned says that Kubernetes will not remove the images when the disk is full, as far as that is
	// known, which it is after loading.
	Pinned bool          `json:"pinned"`
	Moves  []TagMove     `json:"moves"`
	Images []LoadedImage `json:"images"`
	// Unsuitable are made for other platforms. What follows counts what has no place there.
	Unsuitable []UnsuitableImage `json:"unsuitable"`
	Artifacts  int               `json:"artifactsLeftOut"`
	Referrers  int               `json:"referrersLeftOut"`
}

// Seeded are the images as a receipt has them: where the vendor's names lead.
func (r *LoadResult) Seeded() []SeededImage {
	images := make([]SeededImage, 0, len(r.Images))
	for _, i := range r.Images {
		images = append(images, SeededImage{Source: i.Source, Target: i.Source, Digest: i.Digest, Action: i.Action})
	}
	return images
}

// NamesMoveError says that loading would move names, which was not allowed.
type NamesMoveError struct {
	Address string
	Moves   []TagMove
}

// Error lists the names.
func (e *NamesMoveError) Error() string {
	lines := make([]string, 0, len(e.Moves))
	for _, m := range e.Moves {
		lines = append(lines, fmt.Sprintf("%s from %s to %s", m.Reference, m.From, m.To))
	}
	return fmt.Sprintf("names in the containerd at %q would be moved: %s", e.Address, strings.Join(lines, "; "))
}

// NodePlatformError says that no image at all is made for the node.
type NodePlatformError struct {
	Platform string
	Images   []UnsuitableImage
}

// Error says what the images are made for.
func (e *NodePlatformError) Error() string {
	var have []string
	for _, i := range e.Images {
		for _, p := range i.Platforms {
			if !slices.Contains(have, p) {
				have = append(have, p)
			}
		}
	}
	return fmt.Sprintf("this node runs %s, and the images that travel are for %s", e.Platform, strings.Join(have, ", "))
}

// UnseenError says that images are in containerd, but that Kubernetes' side of it has not taken them in.
type UnseenError struct {
	Address string
	Names   []string
}

// Error lists the first of them.
func (e *UnseenError) Error() string {
	names := strings.Join(e.Names[:min(len(e.Names), maxListed)], ", ")
	if n := len(e.Names) - maxListed; n > 0 {
		names += fmt.Sprintf(" and %d more", n)
	}
	return fmt.Sprintf("the containerd at %q has the images, but its side for Kubernetes (CRI) does not see %s", e.Address, names)
}

// Loading is one or several bundles compared with the containerd of a node: what is to be brought there.
type Loading struct {
	bundles []*verify.Bundle
	o       LoadOptions
	images  []*loadImage
	blobs   map[string]*loadBlob
	// list are the blobs in the order of the files.
	list  []*loadBlob
	known map[string]containerd.Image
	mu    sync.Mutex
	stats LoadResult
}

// loadImage is an image on its way to a node.
type loadImage struct {
	bundle *verify.Bundle
	source string
	top    manifest.Descriptor
	// id is the digest of its config, which is what CRI calls it.
	id, platform string
	names        []string
	blobs        []*loadBlob
	// unset are the names that do not stand for it yet.
	unset []string
}

// loadBlob is content that a node needs.
type loadBlob struct {
	manifest.Descriptor
	bundle *verify.Bundle
	// parts are what it keeps from being collected.
	parts []containerd.Part
	// repositories that it is from, by their registries.
	repositories map[string][]string
	there        bool
	// lacks are labels that it needs.
	lacks map[string]string
}

// PrepareLoad compares the bundles with the containerd of a node. It changes nothing. Errors:
// *NodePlatformError, *CollisionError, *containerd.Error, *verify.ContentError, ErrStreams.
func PrepareLoad(ctx context.Context, bundles []*verify.Bundle, o LoadOptions) (*Loading, error) {
	l := &Loading{bundles: bundles, o: o, blobs: map[string]*loadBlob{}, stats: LoadResult{
		Address: o.Client.Address(), Namespace: o.Client.Namespace(), Containerd: o.Client.Version(), Platform: o.Client.Platform(),
		Moves: []TagMove{}, Images: []LoadedImage{}, Unsuitable: []UnsuitableImage{},
	}}
	for _, b := range bundles {
		if b.IsStream() && len(bundles) > 1 {
			return nil, ErrStreams
		}
		if err := b.Preload(ctx, o.Progress); err != nil {
			return nil, err
		}
		if err := l.collect(b); err != nil {
			return nil, err
		}
	}
	if len(l.images) == 0 && len(l.stats.Unsuitable) > 0 {
		return nil, &NodePlatformError{l.stats.Platform, l.stats.Unsuitable}
	}
	if err := l.name(); err != nil {
		return nil, err
	}
	for _, b := range bundles {
		for _, mb := range b.Manifest().Blobs {
			if blob := l.blobs[mb.Digest]; blob != nil && blob.bundle == b {
				l.list = append(l.list, blob)
			}
		}
	}
	return l, l.ask(ctx)
}

// collect lists the images of a bundle that the node can run, and what they are made of.
func (l *Loading) collect(b *verify.Bundle) error {
	m := b.Manifest()
	l.stats.Artifacts += len(m.Artifacts)
	for i := range m.Images {
		img := &m.Images[i]
		l.stats.Referrers += len(img.Referrers)
		top := manifest.Descriptor{Digest: img.Digest, MediaType: img.MediaType, Size: img.Size}
		picked, platform, err := l.pick(b, img)
		if err != nil {
			return fmt.Errorf("image %q: %w", img.Source, err)
		}
		if picked == nil {
			l.stats.Unsuitable = append(l.stats.Unsuitable, UnsuitableImage{img.Source, img.Platforms})
			continue
		}
		li := &loadImage{bundle: b, source: img.Source, top: top, platform: platform}
		if picked.Digest != top.Digest {
			l.add(li, top).parts = []containerd.Part{{Kind: containerd.PartManifest, Digest: picked.Digest}}
		}
		raw, err := b.ReadBlob(picked.Digest, manifest.MaxOCIManifestBytes)
		if err != nil {
			return err
		}
		parsed, err := oci.ParseImage(raw)
		if err != nil {
			return fmt.Errorf("image %q: %w", img.Source, err)
		}
		blob := l.add(li, *picked)
		blob.parts = []containerd.Part{{Kind: containerd.PartConfig, Digest: parsed.Config.Digest}}
		li.id = parsed.Config.Digest
		l.add(li, parsed.Config)
		for n, layer := range parsed.Layers {
			l.add(li, layer)
			blob.parts = append(blob.parts, containerd.Part{Kind: containerd.PartLayer, Number: n, Digest: layer.Digest})
		}
		l.images = append(l.images, li)
	}
	return nil
}

// add notes that an image needs a blob.
func (l *Loading) add(li *loadImage, d manifest.Descriptor) *loadBlob {
	blob := l.blobs[d.Digest]
	if blob == nil {
		blob = &loadBlob{Descriptor: d, bundle: li.bundle, repositories: map[string][]string{}}
		l.blobs[d.Digest] = blob
	}
	if !slices.Contains(li.blobs, blob) {
		li.blobs = append(li.blobs, blob)
	}
	if ref, err := oci.Normalize(li.source); err == nil && !slices.Contains(blob.repositories[ref.Registry], ref.Repository) {
		blob.repositories[ref.Registry] = append(blob.repositories[ref.Registry], ref.Repository)
	}
	return blob
}

// pick returns the image manifest that the node runs, nil where none is for it.
func (l *Loading) pick(b *verify.Bundle, img *manifest.Image) (*manifest.Descriptor, string, error) {
	top := manifest.Descriptor{Digest: img.Digest, MediaType: img.MediaType, Size: img.Size}
	runs := containerd.Runs(l.stats.Platform)
	if !oci.IsIndex(img.MediaType) {
		for _, p := range img.Platforms {
			if slices.Contains(runs, containerd.Plain(p)) {
				return &top, p, nil
			}
		}
		return nil, "", nil
	}
	raw, err := b.ReadBlob(img.Digest, manifest.MaxOCIManifestBytes)
	if err != nil {
		return nil, "", err
	}
	children, err := oci.ParseIndex(raw)
	if err != nil {
		return nil, "", err
	}
	for _, p := range runs {
		at := slices.IndexFunc(children, func(c oci.Child) bool { return containerd.Plain(c.Platform) == p })
		if at < 0 {
			continue
		}
		c := children[at]
		// What the node would choose is what has to be there: a worse one is never tried.
		if !slices.ContainsFunc(img.Children, func(t manifest.Child) bool { return t.Digest == c.Digest }) {
			break
		}
		return &c.Descriptor, c.Platform, nil
	}
	return nil, "", nil
}

// name decides what the images are called. A tag beside a digest is what the vendor happened to find
// there: it counts where nobody else asks for that tag.
func (l *Loading) name() error {
	type claim struct {
		image *loadImage
		count int
	}
	plain, beside := map[string]*loadImage{}, map[string]*claim{}
	for _, li := range l.images {
		ref, err := oci.Normalize(li.source)
		if err != nil {
			return err
		}
		digested := oci.Reference{Registry: ref.Registry, Repository: ref.Repository, Digest: li.top.Digest}
		li.names = []string{digested.String()}
		if ref.Tag == "" {
			continue
		}
		tagged := oci.Reference{Registry: ref.Registry, Repository: ref.Repository, Tag: ref.Tag}.String()
		if ref.Digest == "" {
			if first := plain[tagged]; first != nil && first.top.Digest != li.top.Digest {
				return &CollisionError{tagged, first.bundle.Path() + ": " + first.source, li.bundle.Path() + ": " + li.source}
			}
			plain[tagged] = li
			li.names = append([]string{tagged}, li.names...)
			continue
		}
		c := beside[tagged]
		if c == nil {
			c = &claim{image: li}
			beside[tagged] = c
		}
		if c.image.top.Digest != li.top.Digest {
			c.count++
		}
	}
	for tagged, c := range beside {
		if plain[tagged] == nil && c.count == 0 {
			c.image.names = append([]string{tagged}, c.image.names...)
		}
	}
	return nil
}

// ask finds out what is there.
func (l *Loading) ask(ctx context.Context) error {
	var err error
	if l.known, err = l.o.Client.Images(ctx); err != nil {
		return err
	}
	task := l.o.Progress.Start("asking containerd", int64(len(l.list)), progress.Items)
	defer task.Done()
	err = each(ctx, asking, l.list, func(ctx context.Context, _ int, b *loadBlob) error {
		defer task.Add(1)
		return l.look(ctx, b)
	})
	if err != nil {
		return err
	}
	for _, li := range l.images {
		for _, name := range append([]string{li.id}, li.names...) {
			known, there := l.known[name]
			// An id may lead to another manifest with the same config, which is as good.
			right := there && (known.Target.Digest == li.top.Digest || name == li.id)
			for key, value := range containerd.Labels(!l.o.NoPin) {
				right = right && known.Labels[key] == value
			}
			if right {
				continue
			}
			li.unset = append(li.unset, name)
			if there && known.Target.Digest != li.top.Digest && name != li.id && !strings.Contains(name, "@") {
				l.stats.Moves = append(l.stats.Moves, TagMove{name, known.Target.Digest, li.top.Digest})
			}
		}
	}
	slices.SortFunc(l.stats.Moves, func(a, b TagMove) int { return strings.Compare(a.Reference, b.Reference) })
	return nil
}

// look finds out whether a blob is there, with what keeps its parts.
func (l *Loading) look(ctx context.Context, b *loadBlob) error {
	labels, there, err := l.o.Client.Info(ctx, b.Digest)
	if err != nil {
		return err
	}
	b.there, b.lacks = there, containerd.References(labels, b.parts)
	return nil
}

// missing reports whether anything is to be done for a blob.
func (b *loadBlob) missing() bool { return !b.there || len(b.lacks) > 0 }

// complete reports whether nothing is to be done for an image.
func (li *loadImage) complete() bool {
	return len(li.unset) == 0 && !slices.ContainsFunc(li.blobs, (*loadBlob).missing)
}

// Preview is what Run would do.
func (l *Loading) Preview() *LoadResult {
	p := l.stats
	for _, b := range l.list {
		if b.there {
			p.ExistingBlobs++
		} else {
			p.WrittenBlobs++
			p.WrittenBytes += b.Size
		}
	}
	for _, li := range l.images {
		action := ActionLoad
		if li.complete() {
			action = ActionPresent
		}
		p.Names += len(li.unset)
		p.Images = append(p.Images, li.loaded(action))
	}
	return &p
}

func (li *loadImage) loaded(action string) LoadedImage {
	return LoadedImage{Source: li.source, Digest: li.top.Digest, Platform: li.platform, Names: li.names, Action: action}
}

// Run brings what is missing: blobs, and the names when everything that they lead to is there. What an
// interrupted run has brought is kept for a day, and the next one goes on with it. Errors: *NamesMoveError
// before anything was brought, *UnseenError after everything was, *StreamError, *containerd.Error and the
// others of its package, *verify.ContentError.
func (l *Loading) Run(ctx context.Context) (*LoadResult, error) {
	if len(l.stats.Moves) > 0 && !l.o.MoveNames {
		return nil, &NamesMoveError{l.stats.Address, l.stats.Moves}
	}
	actions := map[*loadImage]string{}
	busy := false
	for _, li := range l.images {
		actions[li] = ActionPresent
		if !li.complete() {
			actions[li], busy = ActionLoaded, true
		}
	}
	if busy {
		lease, err := l.o.Client.Lease(ctx, l.o.Now.Add(leaseTime))
		if err != nil {
			return nil, err
		}
		if err := l.bring(ctx, lease); err != nil {
			return nil, err
		}
		if err := l.set(ctx); err != nil {
			return nil, err
		}
		if err := lease.End(ctx); err != nil {
			return nil, err
		}
	} else if l.bundles[0].IsStream() {
		// It is to be proven to its end, as any other.
		if err := l.bringStream(ctx, nil, progress.Discard.Start("", 0, progress.Bytes)); err != nil {
			return nil, err
		}
	}
	if err := l.waitSeen(ctx); err != nil {
		return nil, err
	}
	l.stats.ExistingBlobs = len(l.list) - l.stats.WrittenBlobs
	for _, li := range l.images {
		l.stats.Images = append(l.stats.Images, li.loaded(actions[li]))
	}
	return &l.stats, nil
}

func (l *Loading) jobs() int {
	if l.o.Jobs <= 0 {
		return DefaultJobs
	}
	return l.o.Jobs
}

// bring writes the blobs that are missing.
func (l *Loading) bring(ctx context.Context, lease *containerd.Lease) error {
	// What is there may be there only because of a lease that ends meanwhile.
	err := each(ctx, asking, l.list, func(ctx context.Context, _ int, b *loadBlob) error {
		if !b.there {
			return nil
		}
		if err := lease.Keep(ctx, b.Digest); err != nil {
			return err
		}
		if err := l.look(ctx, b); err != nil || !b.there {
			return err
		}
		return l.o.Client.AddLabels(ctx, b.Digest, b.lacks)
	})
	if err != nil {
		return err
	}
	var total int64
	for _, b := range l.list {
		if !b.there {
			total += b.Size
		}
	}
	report := l.o.Progress
	if l.bundles[0].IsStream() {
		report = progress.Discard // how far the stream has been read says it all
	}
	task := report.Start("loading", total, progress.Bytes)
	defer task.Done()
	if l.bundles[0].IsStream() {
		return l.bringStream(ctx, lease, task)
	}
	return each(ctx, l.jobs(), l.list, func(ctx context.Context, _ int, b *loadBlob) error {
		if b.there {
			return nil
		}
		return l.write(ctx, lease, b, func() (io.ReadCloser, error) { return b.bundle.Blob(b.Digest) }, task)
	})
}

// bringStream writes the blobs of a stream, as they come.
func (l *Loading) bringStream(ctx context.Context, lease *containerd.Lease, task progress.Task) error {
	return l.bundles[0].Each(ctx, l.o.Progress, func(ctx context.Context, blob manifest.Blob, content io.Reader) error {
		b := l.blobs[blob.Digest]
		if b == nil || b.there {
			return nil
		}
		opened := false
		return l.write(ctx, lease, b, func() (io.ReadCloser, error) {
			if opened {
				return nil, containerd.ErrOnce
			}
			opened = true
			return io.NopCloser(content), nil
		}, task)
	})
}

func (l *Loading) write(ctx context.Context, lease *containerd.Lease, b *loadBlob, open containerd.Open, task progress.Task) error {
	labels := containerd.Sources(b.repositories)
	for key, value := range b.lacks {
		labels[key] = value
	}
	sent, err := lease.Write(ctx, b.Descriptor, labels, open, task.Add)
	if err != nil {
		return err
	}
	b.there = true
	l.mu.Lock()
	l.stats.WrittenBlobs++
	l.stats.WrittenBytes += sent
	l.mu.Unlock()
	task.Note(b.Digest)
	return nil
}

// set names the images, when everything else is there.
func (l *Loading) set(ctx context.Context) error {
	return each(ctx, asking, l.images, func(ctx context.Context, _ int, li *loadImage) error {
		for _, name := range li.unset {
			img := containerd.Image{Name: name, Target: li.top, Labels: containerd.Labels(!l.o.NoPin)}
			if known, there := l.known[name]; there && name == li.id {
				img.Target = known.Target
			}
			if err := l.o.Client.SetImage(ctx, img); err != nil {
				return err
			}
			l.mu.Lock()
			l.stats.Names++
			l.mu.Unlock()
		}
		return nil
	})
}

// How long Kubernetes' side may see nothing new.
const (
	seenTries = 300
	seenPause = 100 * time.Millisecond
)

// waitSeen waits until a kubelet would find the images.
func (l *Loading) waitSeen(ctx context.Context) error {
	if !l.o.Client.ServesKubernetes() {
		return nil
	}
	l.stats.Pinned = true
	// A name that was moved is seen when it means what it stands for now.
	ids := map[string]string{}
	var left []string
	for _, li := range l.images {
		left = append(left, li.names...)
		for _, m := range l.stats.Moves {
			if slices.Contains(li.names, m.Reference) {
				ids[m.Reference] = li.id
			}
		}
	}
	tick := time.NewTicker(seenPause)
	defer tick.Stop()
	for tries := 0; ; tries++ {
		before := len(left)
		seen := make([]bool, before)
		err := each(ctx, asking, left, func(ctx context.Context, i int, name string) error {
			s, err := l.o.Client.Sees(ctx, name)
			seen[i] = !s.Asked || s.There && (ids[name] == "" || ids[name] == s.ID)
			if seen[i] && !s.Pinned {
				l.mu.Lock()
				l.stats.Pinned = false
				l.mu.Unlock()
			}
			return err
		})
		if err != nil {
			return err
		}
		var unseen []string
		for i, name := range left {
			if !seen[i] {
				unseen = append(unseen, name)
			}
		}
		if left = unseen; len(left) == 0 {
			return nil
		}
		if len(left) < before {
			tries = 0
		}
		if tries == seenTries {
			return &UnseenError{l.stats.Address, left}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
