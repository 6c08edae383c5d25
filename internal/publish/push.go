package publish

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/progress"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// DefaultJobs is how many blobs move at the same time where nobody says otherwise.
const DefaultJobs = 4

// TagMoveError says that a tag leads to something else, which was not allowed to change.
type TagMoveError struct{ Reference, From, To string }

// Error names the tag and both digests.
func (e *TagMoveError) Error() string {
	return fmt.Sprintf("tag %s would be moved from %s to %s", e.Reference, e.From, e.To)
}

// PushOptions say how a bundle is pushed.
type PushOptions struct {
	Client *oci.Client
	// MountFrom are repositories of the same registry whose blobs need not be sent. Those that the
	// bundle's images come from, or were seeded to beside it, are looked at without being named.
	MountFrom []string
	// MoveTags allows the tag to be moved from another digest.
	MoveTags bool
	// Unsigned allows a bundle that has no signature.
	Unsigned bool
	// Jobs is how many blobs move at the same time; 0 means DefaultJobs.
	Jobs     int
	Progress progress.Reporter
	// layers is how many layers a manifest names, 0 for maxLayers.
	layers int
}

// Pushed is what was pushed.
type Pushed struct {
	// Reference is REGISTRY/REPOSITORY:TAG, Artifact the digest that it leads to now.
	Reference string `json:"reference"`
	Artifact  string `json:"artifact"`
	// Name, Version and Digest (the identity) are those of the bundle, Size that of its file.
	Name    string `json:"bundle"`
	Version string `json:"version"`
	Digest  string `json:"digest"`
	Size    int64  `json:"size"`
	// Signatures in and beside the bundle; who made them was not looked at.
	Signatures    int   `json:"signatures"`
	UploadedBlobs int   `json:"uploadedBlobs"`
	UploadedBytes int64 `json:"uploadedBytes"`
	MountedBlobs  int   `json:"mountedBlobs"`
	ExistingBlobs int   `json:"existingBlobs"`
	// Moved is the digest that the tag led to before, if any.
	Moved string `json:"moved,omitempty"`
	// Present says that the very same artifact was there under this tag.
	Present bool `json:"present"`
}

// local is a bundle that is read, of which nothing is proven but that it is in one piece.
type local struct {
	name     string
	src      archive.Source
	head     *archive.Head
	reader   *archive.Reader
	manifest *manifest.Manifest
}

// openFiles opens a bundle. Errors: *verify.ContentError, or that of opening.
func openFiles(files *archive.Files) (_ *local, err error) {
	l := &local{name: files.Name}
	l.src, err = files.Open()
	var missing *archive.VolumesError
	switch {
	case errors.Is(err, archive.ErrNotBundle), errors.As(err, &missing), err != nil && files.Remote != nil:
		return nil, &verify.ContentError{Path: files.Name, Err: err}
	case err != nil:
		return nil, fmt.Errorf("opening bundle: %w", err)
	}
	if err = l.read(); err != nil {
		return nil, errors.Join(&verify.ContentError{Path: files.Name, Err: err}, l.src.Close())
	}
	return l, nil
}

func (l *local) read() (err error) {
	if l.head, err = archive.ReadHead(l.src); err != nil {
		return err
	}
	if l.manifest, err = manifest.Parse(l.head.Manifest); err != nil {
		return err
	}
	layout, err := archive.NewLayout(int64(len(l.head.Manifest)), l.manifest.Head, l.manifest.Entries)
	if err != nil {
		return err
	}
	l.reader, err = archive.NewReader(l.src, l.head, layout)
	return err
}

// damaged names the bundle in errors of reading it.
func (l *local) damaged(err error) error { return &verify.ContentError{Path: l.name, Err: err} }

// fileName is what the file is called where nobody calls it otherwise.
func fileName(m *manifest.Manifest) string { return m.Name + "-" + m.Version + extension }

const extension = ".tar.zst"

// Tag is the tag of a version where none is named. A plus cannot stand in one.
func Tag(version string) string { return strings.ReplaceAll(version, "+", "_") }

// Push brings a bundle into a registry, to be found under ref, by default under its version: blobs
// that are not there yet, then the documents, the tag last. What is sent is proven against the
// bundle's manifest first; who made it is not looked at. It may be repeated, and goes on then.
// Errors: *verify.UnsignedError, *verify.ContentError, *TagMoveError, *oci.Error.
func Push(ctx context.Context, files *archive.Files, ref oci.Reference, o PushOptions) (_ *Pushed, err error) {
	l, err := openFiles(files)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.src.Close()) }()
	p := &pushing{local: l, o: o, ref: ref, blobs: map[string]*blob{}}
	if err := p.prepare(ctx, files); err != nil {
		return nil, ended(ctx, err)
	}
	if err := p.run(ctx); err != nil {
		return nil, ended(ctx, err)
	}
	return &p.result, nil
}

// ended is the end of ctx where there is one, since that causes other errors.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// pushing is one run of Push.
type pushing struct {
	*local
	o      PushOptions
	ref    oci.Reference
	repo   *oci.Repository
	checks []byte
	top    *oci.Content
	parts  []*oci.Content
	// list is all blobs, each once, in the order of the file.
	list  []*blob
	blobs map[string]*blob

	mu     sync.Mutex
	result Pushed
}

// blob is one that the registry is to have.
type blob struct {
	manifest.Descriptor
	open func(offset int64) (io.ReadCloser, error)
	// from is a repository that has it, or may have; empty for none.
	from  string
	there bool
}

// prepare finds out what the bundle becomes, before the registry is asked for anything.
func (p *pushing) prepare(ctx context.Context, files *archive.Files) error {
	detached, err := readDetached(files)
	if err != nil {
		return err
	}
	m := p.manifest
	if p.ref.Tag == "" {
		p.ref.Tag = Tag(m.Version)
	}
	p.result = Pushed{
		Reference: p.ref.String(), Name: m.Name, Version: m.Version, Digest: manifest.Digest(p.head.Manifest), Size: p.reader.Layout().Size(),
		Signatures: len(p.head.Signatures) + len(detached),
	}
	if p.result.Signatures == 0 && !p.o.Unsigned {
		return &verify.UnsignedError{Path: p.name}
	}
	parts, err := p.reader.Parts()
	if err != nil {
		return p.damaged(err)
	}
	p.checks = parts.Checks
	a := &artifact{
		fileName: fileName(m), version: m.Version, created: m.Created, head: parts.Head, entries: parts.Entries,
		manifest: p.small(manifest.MediaType, parts.Manifest), slots: p.small(mediaTypeSlots, parts.Slots), checks: p.small(mediaTypeChecks, parts.Checks),
	}
	for _, body := range detached {
		a.detached = append(a.detached, p.small(mediaTypeDetached, body))
	}
	p.small(mediaTypeEmpty, []byte(emptyConfig))
	for _, e := range parts.Entries {
		p.add(manifest.Descriptor{Digest: "sha256:" + e.SHA256, MediaType: mediaTypeEntry, Size: e.Size}, func(offset int64) (io.ReadCloser, error) {
			return p.entry(e.Name, offset)
		})
	}
	if p.top, p.parts, err = a.encode(cmp.Or(p.o.layers, maxLayers)); err != nil {
		return err
	}
	p.result.Artifact = p.top.Digest
	p.repo, err = p.o.Client.Repository(ctx, p.ref.Registry, p.ref.Repository, true)
	return err
}

// readDetached reads the signatures beside a bundle.
func readDetached(files *archive.Files) ([][]byte, error) {
	var all [][]byte
	if files.Remote != nil {
		for _, s := range files.Remote.Detached {
			all = append(all, s.Body)
		}
	}
	for _, name := range files.Detached {
		body, err := verify.ReadDetached(name)
		if err != nil {
			return nil, fmt.Errorf("reading the signature beside the bundle, %q: %w", name, err)
		}
		if body != nil {
			all = append(all, body)
		}
	}
	return all[:min(len(all), maxDetached)], nil
}

// entry gives the content of an entry from offset on. It is proven as a whole all the same: what
// lies before is read and not given out.
func (p *pushing) entry(name string, offset int64) (io.ReadCloser, error) {
	raw, err := p.reader.OpenSummed(name, p.checks)
	if err != nil {
		return nil, err
	}
	r := &namedReader{raw, p.local}
	if _, err := io.CopyN(io.Discard, r, offset); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// namedReader names the bundle in the errors of reading.
type namedReader struct {
	io.ReadCloser
	of *local
}

func (r *namedReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = r.of.damaged(err)
	}
	return n, err
}

// small adds a blob that is in memory.
func (p *pushing) small(mediaType string, raw []byte) manifest.Descriptor {
	d := manifest.Descriptor{Digest: manifest.Digest(raw), MediaType: mediaType, Size: int64(len(raw))}
	p.add(d, oci.FromBytes(raw))
	return d
}

func (p *pushing) add(d manifest.Descriptor, open func(offset int64) (io.ReadCloser, error)) {
	if p.blobs[d.Digest] == nil {
		b := &blob{Descriptor: d, open: open}
		p.blobs[d.Digest] = b
		p.list = append(p.list, b)
	}
}

// origins finds the blobs of images that are in this very registry: there they need not be sent. It
// looks where the images come from, and where they are once they were seeded beside the bundle: at
// PREFIX/PATH for a bundle at PREFIX/…, with as many parts of its repository as PREFIX may have.
func (p *pushing) origins(ctx context.Context) error {
	prefix, asked := "", false
	for _, img := range p.manifest.AllImages() {
		source, err := oci.ParseReference(img.Source)
		if err != nil {
			continue
		}
		digests := []string{img.Digest}
		for _, c := range img.Children {
			digests = append(digests, c.Digest)
		}
		at := source.Repository
		if source.Registry != p.ref.Registry {
			if !asked {
				// Images are seeded together: one tells of all.
				prefix, asked = p.seeded(ctx, source.Repository, digests[len(digests)-1]), true
			}
			if prefix == "" {
				continue
			}
			at = path.Join(prefix, source.Repository)
		}
		for _, digest := range digests {
			if err := p.origin(digest, at); err != nil {
				return err
			}
		}
	}
	return nil
}

// nowhere stands for the empty prefix, which is one too.
const nowhere = "."

// seeded returns the prefix below which the registry has an image, "" where it has it nowhere. Nothing
// that goes wrong with it is more than a blob that is sent again.
func (p *pushing) seeded(ctx context.Context, repository, digest string) string {
	for dir := path.Dir(p.ref.Repository); ; dir = path.Dir(dir) {
		at := path.Join(dir, repository)
		repo, err := p.o.Client.Repository(ctx, p.ref.Registry, at, false)
		if err == nil && at != p.ref.Repository {
			if there, err := repo.ManifestDigest(ctx, digest); err == nil && there != "" {
				return dir
			}
		}
		if dir == nowhere || ctx.Err() != nil {
			return ""
		}
	}
}

// origin says of the blobs of one image manifest where they come from.
func (p *pushing) origin(digest, repository string) error {
	i := slices.IndexFunc(p.manifest.Blobs, func(b manifest.Blob) bool { return b.Digest == digest })
	if i < 0 || !oci.IsImage(p.manifest.Blobs[i].MediaType) || p.manifest.Blobs[i].Size > manifest.MaxOCIManifestBytes {
		return nil
	}
	r, err := p.entry(manifest.BlobEntryName(p.manifest.Blobs[i]), 0)
	if err != nil {
		return err
	}
	raw, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		return err
	}
	img, err := oci.ParseImage(raw)
	if err != nil {
		return nil //nolint:nilerr // what is no image has no blobs that could be mounted
	}
	for _, d := range append([]manifest.Descriptor{img.Config}, img.Layers...) {
		if b := p.blobs[d.Digest]; b != nil && repository != p.ref.Repository {
			b.from = repository
		}
	}
	return nil
}

// run sends what is missing.
func (p *pushing) run(ctx context.Context) error {
	at, err := p.repo.ManifestDigest(ctx, p.ref.Tag)
	if err != nil {
		return err
	}
	if at == p.top.Digest {
		p.result.Present, p.result.ExistingBlobs = true, len(p.list)
		return nil
	}
	if err := p.mayMove(at); err != nil {
		return err
	}
	if err := p.look(ctx); err != nil {
		return err
	}
	if err := p.send(ctx); err != nil {
		return err
	}
	for _, c := range p.parts {
		if err := p.repo.PutManifest(ctx, c.Digest, c); err != nil {
			return err
		}
	}
	// Hours may have passed since the tag was asked for.
	if at, err = p.repo.ManifestDigest(ctx, p.ref.Tag); err != nil {
		return err
	}
	if err := p.mayMove(at); err != nil {
		return err
	}
	if at != p.top.Digest {
		p.result.Moved = at
	}
	return p.repo.PutManifest(ctx, p.ref.Tag, p.top)
}

func (p *pushing) mayMove(at string) error {
	if at == "" || at == p.top.Digest || p.o.MoveTags {
		return nil
	}
	return &TagMoveError{p.result.Reference, at, p.top.Digest}
}

// each calls f for some blobs, so many at a time.
func each(ctx context.Context, limit int, list []*blob, f func(context.Context, *blob) error) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(limit)
	for _, b := range list {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error { return f(gctx, b) })
	}
	return g.Wait()
}

// look finds out which blobs are there, and where those could come from that are not.
func (p *pushing) look(ctx context.Context) error {
	var repos []*oci.Repository
	for _, from := range p.o.MountFrom {
		if from == p.ref.Repository {
			continue
		}
		repo, err := p.o.Client.Repository(ctx, p.ref.Registry, from, false)
		if err != nil {
			return err
		}
		repos = append(repos, repo)
	}
	task := p.o.Progress.Start("asking the registry", int64(len(p.list)), progress.Items)
	defer task.Done()
	err := each(ctx, asking, p.list, func(ctx context.Context, b *blob) (err error) {
		defer task.Add(1)
		b.there, err = p.repo.HasBlob(ctx, b.Digest)
		return err
	})
	missing := p.missing()
	if err != nil || len(missing) == 0 {
		return err
	}
	if err := p.origins(ctx); err != nil {
		return err
	}
	return each(ctx, asking, missing, func(ctx context.Context, b *blob) error {
		for i := 0; i < len(repos) && b.from == ""; i++ {
			there, err := repos[i].HasBlob(ctx, b.Digest)
			if err != nil {
				return err
			}
			if there {
				b.from = repos[i].Path
			}
		}
		return nil
	})
}

// missing are the blobs that the registry lacks, in the order of the file.
func (p *pushing) missing() []*blob {
	return slices.DeleteFunc(slices.Clone(p.list), func(b *blob) bool { return b.there })
}

// send sends the blobs that are missing.
func (p *pushing) send(ctx context.Context) error {
	missing := p.missing()
	p.result.ExistingBlobs = len(p.list) - len(missing)
	var total int64
	for _, b := range missing {
		total += b.Size
	}
	task := p.o.Progress.Start("pushing", total, progress.Bytes)
	defer task.Done()
	put := func(ctx context.Context, b *blob) error {
		mounted, err := p.repo.PutBlob(ctx, b.Descriptor, b.from, b.open, task.Add)
		if err != nil {
			return err
		}
		if mounted {
			task.Add(b.Size)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if mounted {
			p.result.MountedBlobs++
		} else {
			p.result.UploadedBlobs++
			p.result.UploadedBytes += b.Size
		}
		task.Note(b.Digest)
		return nil
	}
	jobs := cmp.Or(p.o.Jobs, DefaultJobs)
	small := slices.DeleteFunc(slices.Clone(missing), func(b *blob) bool { return !isSmall(b.Size) })
	if err := each(ctx, max(jobs, asking), small, put); err != nil {
		return err
	}
	return each(ctx, jobs, slices.DeleteFunc(missing, func(b *blob) bool { return isSmall(b.Size) }), put)
}

// isSmall reports whether a blob is a matter of asking for it, and not of its bytes: more of these
// are under way at a time.
func isSmall(size int64) bool { return size < 256<<10 }
