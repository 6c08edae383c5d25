package bundle

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/progress"
	"github.com/sealift/sealift/manifest"
)

// resolving is how many images are resolved at the same time. Requests are small and wait for
// the network, not for this machine.
const resolving = 8

// Media types of charts in a registry, as Helm has them.
const (
	mediaTypeHelmConfig  = "application/vnd.cncf.helm.config.v1+json"
	mediaTypeHelmArchive = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
	mediaTypeOCIManifest = "application/vnd.oci.image.manifest.v1+json"
)

// ImageError says which image could not be resolved, and why it is wanted.
type ImageError struct {
	Reference string
	Reasons   []manifest.Reason
	Err       error
}

// Error names the image and the first reason for it.
func (e *ImageError) Error() string {
	why := ""
	for _, r := range e.Reasons {
		if r.Kind == manifest.ReasonChart {
			why = fmt.Sprintf(" (%s of %s in chart %s)", r.Path, r.Object, r.Chart)
			break
		}
	}
	return fmt.Sprintf("resolving image %q%s: %v", e.Reference, why, e.Err)
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

// source is where the bytes of a blob come from: memory, or a repository.
type source struct {
	content []byte
	repo    *oci.Repository
}

// Resolved is a spec with everything in it pinned to digests: a manifest without entries, and
// where the blobs come from.
type Resolved struct {
	Manifest *manifest.Manifest
	sources  map[string]source
}

// Options of Resolve.
type Options struct {
	// Client reaches the source registries.
	Client *oci.Client
	// Created is what the manifest says about its time, as RFC 3339 in UTC.
	Created  string
	Progress progress.Reporter
}

type wanted struct {
	ref       oci.Reference
	platforms []string
	reasons   []manifest.Reason
	// drop leaves behind what is about the image; signers must have signed it.
	drop    bool
	signers []*imageSigner
}

// image is a resolved image with the metadata blobs that came with it.
type image struct {
	manifest.Image
	meta   []manifest.Blob
	layers []manifest.Blob
	// attached are the configs and layers of what is about the image.
	attached []manifest.Blob
	raw      map[string][]byte
	repo     *oci.Repository
	// fetched is the size of the manifests of what is about the image.
	fetched atomic.Int64
}

// Resolve renders the charts of s, finds their images and asks the registries for the digests
// of all and of what is about them, and proves the signatures that s demands. Errors: *ChartError,
// *ValuesError, *ImageError, *ReferrerError, *UnsignedImageError and what they wrap;
// *SignerFileError, *UnmatchedError and *DroppedSignaturesError before any registry was asked.
func Resolve(ctx context.Context, s *Spec, o Options) (*Resolved, error) {
	r := &Resolved{
		Manifest: &manifest.Manifest{
			MediaType: manifest.MediaType, Format: manifest.Format, Name: s.Name, Version: s.Version,
			Channel: s.Channel, Created: o.Created, Expires: s.expires, Platforms: s.Platforms,
		},
		sources: map[string]source{},
	}
	want := map[string]*wanted{}
	for i := range s.Images {
		img := &s.Images[i]
		ref, err := oci.ParseReference(img.Ref)
		if err != nil {
			return nil, err
		}
		platforms := s.Platforms
		if len(img.Platforms) > 0 {
			platforms = img.Platforms
		}
		want[ref.String()] = &wanted{ref: ref, platforms: platforms, reasons: []manifest.Reason{{Kind: manifest.ReasonSpec}}}
	}
	var chartBlobs []manifest.Blob
	releases := map[string]int{}
	for i := range s.Charts {
		blobs, err := r.addChart(ctx, s, &s.Charts[i], want)
		if err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, &ChartError{s.Charts[i].Path, s.Charts[i].line, err}
		}
		chartBlobs = append(chartBlobs, blobs...)
		mc := r.Manifest.Charts[len(r.Manifest.Charts)-1]
		key := mc.Namespace + "/" + mc.Release
		if first, twice := releases[key]; twice {
			return nil, &ChartError{s.Charts[i].Path, s.Charts[i].line, fmt.Errorf("release %q is that of the chart on line %d already", key, first)}
		}
		releases[key] = s.Charts[i].line
	}
	if err := s.demands(want); err != nil {
		return nil, err
	}
	images, err := resolveImages(ctx, want, o)
	if err != nil {
		return nil, err
	}
	r.addBlobs(images, chartBlobs)
	return r, nil
}

// addBlobs lists every blob once: small ones first (image manifests and those of what is about
// images, configs, charts, values), then the parts of what is about images, then the layers in the order of the images, so that the layers of an image lie together, and
// at last those that are going to be encoded, whose sizes are not known yet.
func (r *Resolved) addBlobs(images []*image, charts []manifest.Blob) {
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
		for _, b := range img.meta {
			add(b, source{img.raw[b.Digest], img.repo})
		}
	}
	// Archives of charts come after all manifests: who reads a stream keeps what comes before.
	for _, last := range []bool{false, true} {
		for _, b := range charts {
			if (b.MediaType == mediaTypeHelmArchive) == last {
				add(b, r.sources[b.Digest])
			}
		}
	}
	for _, img := range images {
		for _, b := range img.attached {
			add(b, source{img.raw[b.Digest], img.repo})
		}
	}
	for _, encoding := range []string{manifest.EncodingStored, manifest.EncodingZstd} {
		for _, img := range images {
			for _, b := range img.layers {
				if b.Encoding == encoding {
					add(b, source{nil, img.repo})
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

func resolveImages(ctx context.Context, want map[string]*wanted, o Options) ([]*image, error) {
	task := o.Progress.Start("resolving images", int64(len(want)), progress.Items)
	defer task.Done()
	keys := make([]string, 0, len(want))
	for k := range want {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	images := make([]*image, len(keys))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(resolving)
	for i, k := range keys {
		g.Go(func() error {
			w := want[k]
			img, err := resolveImage(gctx, w, o.Client)
			var referrer *ReferrerError
			var unsigned *UnsignedImageError
			if errors.As(err, &referrer) || errors.As(err, &unsigned) {
				return err
			}
			if err != nil {
				return &ImageError{k, w.reasons, err}
			}
			images[i] = img
			task.Add(1)
			task.Note(k + " " + img.Digest)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, err
	}
	return images, nil
}

// resolveImage finds what an image is made of and what is about it.
func resolveImage(ctx context.Context, w *wanted, client *oci.Client) (*image, error) {
	img, err := resolveContent(ctx, w, client)
	if err != nil {
		return nil, err
	}
	if w.drop {
		img.ReferrersDropped = true
		return img, nil
	}
	if err := img.addReferrers(ctx); err != nil {
		return nil, err
	}
	if len(w.signers) == 0 {
		return img, nil
	}
	return img, img.prove(ctx, w)
}

func resolveContent(ctx context.Context, w *wanted, client *oci.Client) (*image, error) {
	repo, err := client.Repository(ctx, w.ref.Registry, w.ref.Repository, false)
	if err != nil {
		return nil, err
	}
	root, err := repo.Manifest(ctx, w.ref.Identifier())
	if err != nil {
		return nil, err
	}
	img := &image{
		Image: manifest.Image{Source: w.ref.String(), Digest: root.Digest, MediaType: root.MediaType, Size: root.Size, Reasons: w.reasons},
		raw:   map[string][]byte{}, repo: repo,
	}
	switch {
	case oci.IsIndex(root.MediaType):
		return img, img.addIndex(ctx, w, root)
	case oci.IsImage(root.MediaType):
		platform, err := img.addImage(ctx, root)
		if err != nil {
			return nil, err
		}
		for _, p := range w.platforms {
			if !oci.Matches(platform, p) {
				return nil, &oci.MissingPlatformError{Reference: w.ref.String(), Want: p, Have: []string{platform}}
			}
		}
		img.Platforms = []string{platform}
		return img, nil
	}
	return nil, fmt.Errorf("the registry has a %q there: %w", root.MediaType, oci.ErrUnsupported)
}

func (img *image) addIndex(ctx context.Context, w *wanted, root *oci.Content) error {
	children, err := oci.ParseIndex(root.Raw)
	if err != nil {
		return err
	}
	selected, platforms, err := oci.Select(w.ref.String(), children, w.platforms)
	if err != nil {
		return err
	}
	img.Platforms = platforms
	img.add(root)
	travels := map[string]bool{}
	for _, c := range selected {
		travels[c.Digest] = true
		img.Children = append(img.Children, manifest.Child{Digest: c.Digest, MediaType: c.MediaType, Size: c.Size, Platform: c.Platform})
	}
	all := true
	for _, c := range children {
		all = all && travels[c.Digest]
	}
	if !all {
		derived, err := oci.DeriveIndex(root.Raw, func(d string) bool { return travels[d] })
		if err != nil {
			return err
		}
		img.Derived = &derived.Descriptor
		img.add(derived)
	}
	for _, c := range selected {
		content, err := img.repo.Manifest(ctx, c.Digest)
		if err != nil {
			return err
		}
		if content.Size != c.Size {
			return fmt.Errorf("child %s has %d bytes, its index says %d", c.Digest, content.Size, c.Size)
		}
		content.MediaType = c.MediaType
		if c.Platform == oci.UnknownPlatform {
			if err := img.addParts(content, nil); err != nil {
				return err
			}
			continue
		}
		if _, err := img.addImage(ctx, content); err != nil {
			return err
		}
	}
	return nil
}

// addImage takes in an image manifest, its config and its layers, and returns its platform.
func (img *image) addImage(ctx context.Context, content *oci.Content) (platform string, err error) {
	parsed, err := oci.ParseImage(content.Raw)
	if err != nil {
		return "", err
	}
	config, err := img.repo.ReadBlob(ctx, parsed.Config, oci.MaxConfigBytes)
	if err != nil {
		return "", err
	}
	if platform, err = oci.ConfigPlatform(config); err != nil {
		return "", err
	}
	return platform, img.addParts(content, config)
}

// addParts takes in a manifest and what it names. config is nil where it was not read.
func (img *image) addParts(content *oci.Content, config []byte) error {
	parsed, err := oci.ParseImage(content.Raw)
	if err != nil {
		return err
	}
	img.add(content)
	img.meta = append(img.meta, stored(parsed.Config))
	if config != nil {
		img.raw[parsed.Config.Digest] = config
	}
	for _, l := range parsed.Layers {
		img.layers = append(img.layers, layer(l))
	}
	return nil
}

func (img *image) add(c *oci.Content) {
	img.meta = append(img.meta, stored(c.Descriptor))
	img.raw[c.Digest] = c.Raw
}

// addChart loads a chart, adds the images that it renders to want, and returns its blobs.
func (r *Resolved) addChart(ctx context.Context, s *Spec, cs *ChartSpec, want map[string]*wanted) ([]manifest.Blob, error) {
	c, err := chart.Load(s.file(cs.Path))
	if err != nil {
		return nil, err
	}
	mc := manifest.Chart{Name: c.Name, Version: c.Version, AppVersion: c.AppVersion, Release: cmp.Or(cs.Release, c.Name)}
	mc.Namespace = cmp.Or(cs.Namespace, mc.Release)
	if err := errors.Join(manifest.CheckRelease(mc.Release), manifest.CheckNamespace(mc.Namespace)); err != nil {
		return nil, err
	}
	var blobs []manifest.Blob
	keep := func(content []byte, mediaType string) manifest.Descriptor {
		d := manifest.Descriptor{Digest: manifest.Digest(content), MediaType: mediaType, Size: int64(len(content))}
		r.sources[d.Digest] = source{content: content}
		blobs = append(blobs, stored(d))
		return d
	}
	config := keep(c.Config, mediaTypeHelmConfig)
	mc.Archive = keep(c.Archive, mediaTypeHelmArchive)
	raw, err := chartManifest(config, mc.Archive)
	if err != nil {
		return nil, err
	}
	mc.Manifest = keep(raw, mediaTypeOCIManifest)
	var files []chart.ValuesFile
	for _, path := range cs.Values {
		f, err := readValues(s.file(path), path)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
		d := keep(f.Data, manifest.MediaTypeValues)
		mc.Values = append(mc.Values, manifest.ValuesFile{Name: f.Name, Digest: d.Digest, Size: d.Size})
	}
	variants := [][]chart.ValuesFile{files}
	for _, path := range cs.RenderWith {
		f, err := readValues(s.file(path), path)
		if err != nil {
			return nil, err
		}
		variants = append(variants, append(slices.Clone(files), f))
	}
	for _, v := range variants {
		if err := addRendered(ctx, s, c, mc, v, want); err != nil {
			return nil, err
		}
	}
	r.Manifest.Charts = append(r.Manifest.Charts, mc)
	return blobs, nil
}

func addRendered(ctx context.Context, s *Spec, c *chart.Chart, mc manifest.Chart, files []chart.ValuesFile, want map[string]*wanted) error {
	values, err := chart.MergeValues(files)
	if err != nil {
		return err
	}
	docs, err := c.Render(ctx, chart.RenderOptions{Release: mc.Release, Namespace: mc.Namespace, Values: values})
	if err != nil {
		return err
	}
	uses, err := chart.FindImages(docs)
	if err != nil {
		return err
	}
	for _, u := range uses {
		ref, err := oci.Normalize(u.Reference)
		if err != nil {
			return fmt.Errorf("%s of %s: %w", u.Path, u.Object, err)
		}
		reason := manifest.Reason{Kind: manifest.ReasonChart, Chart: mc.Name, Object: u.Object, Path: u.Path}
		w := want[ref.String()]
		if w == nil {
			w = &wanted{ref: ref, platforms: s.Platforms}
			want[ref.String()] = w
		}
		if !slices.Contains(w.reasons, reason) {
			w.reasons = append(w.reasons, reason)
		}
	}
	return nil
}

// chartManifest is the artifact manifest that Helm writes around a chart, without the time
// that Helm puts into it.
func chartManifest(config, archive manifest.Descriptor) ([]byte, error) {
	type descriptor struct {
		MediaType string `json:"mediaType"`
		Digest    string `json:"digest"`
		Size      int64  `json:"size"`
	}
	raw, err := json.Marshal(struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Config        descriptor   `json:"config"`
		Layers        []descriptor `json:"layers"`
	}{
		2, mediaTypeOCIManifest,
		descriptor{config.MediaType, config.Digest, config.Size},
		[]descriptor{{archive.MediaType, archive.Digest, archive.Size}},
	})
	if err != nil {
		return nil, fmt.Errorf("encoding the chart's artifact manifest: %w", err)
	}
	return raw, nil
}

func readValues(path, name string) (_ chart.ValuesFile, err error) {
	f, err := os.Open(path)
	if err != nil {
		return chart.ValuesFile{}, &ValuesError{name, err}
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	raw, err := io.ReadAll(io.LimitReader(f, manifest.MaxValuesBytes+1))
	if err != nil {
		return chart.ValuesFile{}, &ValuesError{name, err}
	}
	if len(raw) > manifest.MaxValuesBytes {
		return chart.ValuesFile{}, &ValuesError{name, fmt.Errorf("more than %d bytes", manifest.MaxValuesBytes)}
	}
	return chart.ValuesFile{Name: filepath.Base(name), Data: raw}, nil
}
