package bundle

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/manifest"
)

// resolving is how many images are resolved at the same time, and childrenAtOnce how many children
// of one index. Requests are small and wait for the network, not for this machine; how many one
// registry gets at the same time is the client's business.
const (
	resolving      = 64
	childrenAtOnce = 8
)

// ImageError says which image could not be resolved, and why it is wanted.
type ImageError struct {
	Reference string
	Reasons   []manifest.Reason
	// Pinned is the digest that the lock demands, or empty.
	Pinned string
	// Artifact says that it need not be an image.
	Artifact bool
	Err      error
}

// Error names the image and the first reason for it.
func (e *ImageError) Error() string {
	why := ""
	for i := range e.Reasons {
		if e.Reasons[i].Kind == manifest.ReasonChart {
			why = " (" + describeReason(&e.Reasons[i]) + ")"
			break
		}
	}
	if e.Pinned != "" {
		why += ", locked to " + e.Pinned
	}
	what := "image"
	if e.Artifact {
		what = "artifact"
	}
	return fmt.Sprintf("resolving %s %q%s: %v", what, e.Reference, why, e.Err)
}

// Unwrap returns the cause.
func (e *ImageError) Unwrap() error { return e.Err }

// ValuesError says that a values file of a spec cannot be used.
type ValuesError struct {
	Path string
	Err  error
}

// Error names the file.
func (e *ValuesError) Error() string { return fmt.Sprintf("values file %q: %v", e.Path, e.Err) }

// Unwrap returns the cause.
func (e *ValuesError) Unwrap() error { return e.Err }

// ChartError says which chart of a spec cannot be packed.
type ChartError struct {
	Path string
	Line int
	Err  error
}

// Error names the chart and its line in the spec.
func (e *ChartError) Error() string {
	return fmt.Sprintf("chart %q (line %d of the spec): %v", e.Path, e.Line, e.Err)
}

// Unwrap returns the cause.
func (e *ChartError) Unwrap() error { return e.Err }

// source is where the bytes of a blob come from: memory, a file, or what holds an image.
type source struct {
	content []byte
	path    string
	repo    oci.Source
}

// Resolved is a spec with everything in it pinned to digests: a manifest without entries, and
// where the blobs come from.
type Resolved struct {
	Manifest *manifest.Manifest
	// Lock pins all of it.
	Lock *Lock
	// Discovery is why the images are in, and what else was found.
	Discovery *Discovery
	// Warnings are what came up while registries were asked, a line each.
	Warnings []string

	sources map[string]source
	locals  map[string]*oci.Local
	users   map[string][]string
}

// LargeBlob is a blob, and what it belongs to.
type LargeBlob struct {
	Digest string `json:"digest"`
	// Size is that of the content, in bytes.
	Size int64    `json:"size"`
	Of   []string `json:"of"`
}

// Largest lists the n largest blobs, by images, artifacts, charts and files that they belong to.
func (r *Resolved) Largest(n int) []LargeBlob {
	list := []LargeBlob{}
	for i := range r.Manifest.Blobs {
		b := &r.Manifest.Blobs[i]
		list = append(list, LargeBlob{b.Digest, b.Size, r.users[b.Digest]})
	}
	slices.SortStableFunc(list, func(a, b LargeBlob) int { return cmp.Compare(b.Size, a.Size) })
	return slices.DeleteFunc(list[:min(n, len(list))], func(l LargeBlob) bool { return len(l.Of) == 0 })
}

// use notes what a blob belongs to.
func (r *Resolved) use(digest, by string) {
	if !slices.Contains(r.users[digest], by) {
		r.users[digest] = append(r.users[digest], by)
	}
}

// Close closes the files that images are read from.
func (r *Resolved) Close() error {
	var errs []error
	for _, l := range r.locals {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// TargetNameError says that two images would have the same name in every registry of a site.
type TargetNameError struct{ Name, First, Second string }

// Error names all three.
func (e *TargetNameError) Error() string {
	return fmt.Sprintf("%q and %q would both be %q in the registry of a site, with different contents", e.First, e.Second, e.Name)
}

// Resolve renders the charts of s, finds their images and asks the registries for the digests
// of all and of what is about them, and proves the signatures that s demands. What o.Lock pins is
// taken as it is there. The caller closes what comes back. Errors: those of Discover; *UndecidedError,
// *SignerFileError, *UnmatchedError and *DroppedSignaturesError before any registry was asked about an image;
// *ImageError, *ReferrerError, *UnsignedImageError, *TargetNameError.
func Resolve(ctx context.Context, s *Spec, o Options) (_ *Resolved, err error) {
	g, err := gather(ctx, s, o)
	if err != nil {
		return nil, err
	}
	if err := g.undecided(); err != nil {
		return nil, err
	}
	if err := s.demands(g.want, g.artifacts); err != nil {
		return nil, err
	}
	r := &Resolved{
		Manifest: &manifest.Manifest{
			MediaType: manifest.MediaType, Format: manifest.Format, Name: s.Name, Version: s.Version,
			Channel: s.Channel, Created: o.Created, Expires: s.expires,
			Ignored: g.survey.Ignored, Files: g.files, Notes: g.notes, Requires: s.requirements(), Parameters: g.survey.parameters,
		},
		Lock: g.lock, Discovery: g.discovery(), Warnings: g.survey.Warnings, sources: g.sources, locals: map[string]*oci.Local{}, users: map[string][]string{},
	}
	if len(r.Manifest.Ignored) == 0 {
		r.Manifest.Ignored = nil
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	if err := r.openLocals(g); err != nil {
		return nil, err
	}
	images, err := r.resolveImages(ctx, "resolving images", g.want, o)
	if err != nil {
		return nil, err
	}
	artifacts, err := r.resolveImages(ctx, "resolving artifacts", g.artifacts, o)
	if err != nil {
		return nil, err
	}
	charts, err := r.resolveCharts(ctx, g)
	if err != nil {
		return nil, err
	}
	if err := checkNames(slices.Concat(images, artifacts), g.releases); err != nil {
		return nil, err
	}
	r.Manifest.Platforms = platforms(s, images)
	r.addBlobs(g, images, artifacts, charts)
	if err := r.validate(); err != nil {
		return nil, err
	}
	for _, img := range images {
		r.Lock.Images = append(r.Lock.Images, lockedImage(img, g.want[img.Source].local))
	}
	for _, a := range artifacts {
		r.Lock.Artifacts = append(r.Lock.Artifacts, lockedImage(a, g.artifacts[a.Source].local))
	}
	return r, nil
}

// ContentError says that what a spec leads to cannot be said in a manifest.
type ContentError struct{ Err error }

// Error is that of the manifest's rules.
func (e *ContentError) Error() string {
	return fmt.Sprintf("what the spec leads to cannot be a bundle: %v", e.Err)
}

// Unwrap returns the cause.
func (e *ContentError) Unwrap() error { return e.Err }

// bounds are the most that can come out of the blobs that are going to be encoded.
func bounds(m *manifest.Manifest) map[string]manifest.Entry {
	most := map[string]manifest.Entry{}
	for _, b := range m.Blobs {
		if b.Encoding != manifest.EncodingStored {
			most[b.Digest] = manifest.Entry{Size: archive.EncodedBound(b.Size), SHA256: unknownDigest}
		}
	}
	return most
}

// validate finds what a reader would refuse, before anything is fetched or locked.
func (r *Resolved) validate() error {
	m := *r.Manifest
	if err := manifest.Arrange(&m, bounds(&m)); err != nil {
		return &ContentError{err}
	}
	if err := m.Validate(); err != nil {
		return &ContentError{err}
	}
	return nil
}

// platforms are those of the bundle: what the spec says, or all that there are.
func platforms(s *Spec, images []*image) []string {
	if !slices.Contains(s.Platforms, AllPlatforms) {
		return s.Platforms
	}
	var all []string
	for _, img := range images {
		all = append(all, img.Platforms...)
	}
	slices.Sort(all)
	if all = slices.Compact(all); len(all) == 0 {
		all = []string{DefaultPlatform}
	}
	return all
}

// openLocals opens the layouts and archives that the spec names.
func (r *Resolved) openLocals(g *gathered) error {
	for _, all := range []map[string]*wanted{g.want, g.artifacts} {
		for _, w := range all {
			if w.local == "" || r.locals[w.local] != nil {
				continue
			}
			l, err := oci.OpenLocal(g.spec.file(w.local))
			if err != nil {
				return &ImageError{Reference: w.ref.String(), Reasons: w.reasons, Err: err}
			}
			r.locals[w.local] = l
		}
	}
	return nil
}

// checkNames refuses two images that every site would give one name: the registry that an image came
// from is no part of it.
func checkNames(images []*image, releases []*packedRelease) error {
	type named struct{ source, digest string }
	taken := map[string]named{}
	take := func(name, source, digest string) error {
		if first, twice := taken[name]; twice && first.digest != digest {
			return &TargetNameError{name, first.source, source}
		}
		taken[name] = named{source, digest}
		return nil
	}
	for _, img := range images {
		_, name, _ := strings.Cut(img.Source, "/")
		name, _, _ = strings.Cut(name, "@")
		if _, tag, _ := manifest.SplitSource(img.Source); tag == "" {
			continue
		}
		if err := take(name, img.Source, img.Digest); err != nil {
			return err
		}
	}
	for _, p := range releases {
		name := "charts/" + strings.ToLower(p.Name) + ":" + strings.ReplaceAll(p.Version, "+", "_")
		if err := take(name, "chart "+p.Name+" "+p.Version, p.Manifest.Digest); err != nil {
			return err
		}
	}
	return nil
}

// resolveCharts finds what is about the charts that registries have.
func (r *Resolved) resolveCharts(ctx context.Context, g *gathered) ([]*image, error) {
	images := make([]*image, len(g.releases))
	from := &chartRegistries{client: g.o.Client, local: g.o.Local}
	eg, gctx := errgroup.WithContext(ctx)
	eg.SetLimit(resolving)
	for i, p := range g.releases {
		if p.fetched.OCI == nil || g.spec.Referrers == DropReferrers {
			continue
		}
		eg.Go(func() error {
			d := p.Manifest
			img := &image{
				Image: manifest.Image{Source: p.Source, Digest: d.Digest, MediaType: d.MediaType, Size: d.Size},
				raw:   map[string][]byte{}, repo: from.source(p.fetched.OCI.Repository),
			}
			var pinned *[]manifest.Referrer
			if l := g.o.Lock.chartByManifest(p.Key(), d.Digest); l != nil {
				pinned = &l.Referrers
			}
			if err := img.carry(gctx, pinned); err != nil {
				return err
			}
			images[i] = img
			return nil
		})
	}
	if err := eg.Wait(); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, err
	}
	for i, img := range images {
		if img != nil {
			g.releases[i].Referrers = img.Referrers
			r.Lock.lockReferrers(g.releases[i].Key(), img.Referrers)
		}
	}
	return slices.DeleteFunc(images, func(i *image) bool { return i == nil }), nil
}

// addBlobs lists every blob once: small ones first (image manifests and those of what is about
// images, configs, charts, values), then the parts of what is about images, then files and the layers in the order of
// the images, so that the layers of an image lie together, and at last those that are going to be encoded, whose sizes
// are not known yet.
func (r *Resolved) addBlobs(g *gathered, images, artifacts, charts []*image) {
	seen := map[string]bool{}
	add := func(b manifest.Blob, s source) {
		if !seen[b.Digest] {
			seen[b.Digest] = true
			r.Manifest.Blobs = append(r.Manifest.Blobs, b)
			r.sources[b.Digest] = s
		}
	}
	for _, img := range images {
		r.Manifest.Images = append(r.Manifest.Images, img.Image)
	}
	for _, a := range artifacts {
		r.Manifest.Artifacts = append(r.Manifest.Artifacts, a.Image)
	}
	all := slices.Concat(images, artifacts, charts)
	for _, img := range all {
		for _, b := range slices.Concat(img.meta, img.layers, img.attached) {
			r.use(b.Digest, img.Source)
		}
		for _, b := range img.meta {
			add(b, source{content: img.raw[b.Digest], repo: img.repo})
		}
	}
	// Archives of charts come after all manifests: who reads a stream keeps what comes before.
	for _, last := range []bool{false, true} {
		for _, p := range g.releases {
			for _, b := range p.blobs {
				if (b.MediaType == mediaTypeHelmArchive) == last {
					add(b, r.sources[b.Digest])
				}
			}
		}
	}
	for i := range g.files {
		r.use(g.files[i].Digest, g.files[i].Name)
	}
	for _, p := range g.releases {
		r.use(p.Archive.Digest, "chart "+p.Name)
		r.Manifest.Charts = append(r.Manifest.Charts, p.Chart)
	}
	for _, img := range all {
		for _, b := range img.attached {
			add(b, source{content: img.raw[b.Digest], repo: img.repo})
		}
	}
	for _, b := range g.blobs {
		add(b, r.sources[b.Digest])
	}
	for _, encoding := range []string{manifest.EncodingStored, manifest.EncodingZstd} {
		for _, img := range all {
			for _, b := range img.layers {
				if b.Encoding == encoding {
					add(b, source{repo: img.repo})
				}
			}
		}
	}
}

// layer is the blob of a layer. What is compressed already is stored as it is.
func layer(d manifest.Descriptor) manifest.Blob {
	b := stored(d)
	if oci.IsUncompressed(d.MediaType) {
		b.Encoding = manifest.EncodingZstd
	}
	return b
}

func stored(d manifest.Descriptor) manifest.Blob {
	return manifest.Blob{Digest: d.Digest, Size: d.Size, MediaType: d.MediaType, Encoding: manifest.EncodingStored}
}
