package bundle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/progress"
	"github.com/sealift/sealift/manifest"
)

type wanted struct {
	ref       oci.Reference
	platforms []string
	reasons   []manifest.Reason
	// local is the path, in the spec, of the layout or archive that holds it; empty for a registry.
	local string
	// artifact says that it need not be an image.
	artifact bool
	// drop leaves behind what is about the image; signers must have signed it.
	drop    bool
	signers []*imageSigner
}

// image is a resolved image, or artifact, with the metadata blobs that came with it.
type image struct {
	manifest.Image
	meta   []manifest.Blob
	layers []manifest.Blob
	// attached are the configs and layers of what is about the image.
	attached []manifest.Blob
	raw      map[string][]byte
	repo     oci.Source
	// fetched is the size of the manifests of what is about the image.
	fetched atomic.Int64
	// warning is what was strange about it.
	warning string
}

func (r *Resolved) resolveImages(ctx context.Context, doing string, want map[string]*wanted, o Options) ([]*image, error) {
	if len(want) == 0 {
		return nil, nil
	}
	task := o.Progress.Start(doing, int64(len(want)), progress.Items)
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
			locked := o.Lock.pinned(w)
			img, err := r.resolveImage(gctx, w, locked, o)
			var referrer *ReferrerError
			var unsigned *UnsignedImageError
			if errors.As(err, &referrer) || errors.As(err, &unsigned) {
				return err
			}
			if err != nil {
				e := &ImageError{Reference: k, Reasons: w.reasons, Artifact: w.artifact, Err: err}
				if locked != nil {
					e.Pinned = locked.Digest
				}
				return e
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
	for _, img := range images {
		if img.warning != "" {
			r.Warnings = append(r.Warnings, img.warning)
		}
	}
	return images, nil
}

// resolveImage finds what an image is made of and what is about it. locked is what pins it, or nil.
func (r *Resolved) resolveImage(ctx context.Context, w *wanted, locked *LockedImage, o Options) (*image, error) {
	img, err := r.resolveContent(ctx, w, locked, o)
	if err != nil {
		return nil, err
	}
	if w.drop {
		img.ReferrersDropped = true
		return img, nil
	}
	var pinned *[]manifest.Referrer
	if locked != nil && !locked.Dropped && locked.Digest == img.Digest && samePlatforms(locked, img) {
		pinned = &locked.Referrers
	}
	if err := img.carry(ctx, pinned); err != nil {
		return nil, err
	}
	if len(w.signers) == 0 {
		return img, nil
	}
	return img, img.prove(ctx, w)
}

// open returns where an image is read from, and as what.
func (r *Resolved) open(w *wanted, locked *LockedImage, o Options) (oci.Source, string, error) {
	if w.local != "" {
		l := r.locals[w.local]
		d, err := l.Find(w.ref.String())
		return l, d.Digest, err
	}
	from := &lazySource{client: o.Client, local: o.Local, registry: w.ref.Registry, path: w.ref.Repository}
	if locked != nil {
		return from, locked.Digest, nil
	}
	return from, w.ref.Identifier(), nil
}

func (r *Resolved) resolveContent(ctx context.Context, w *wanted, locked *LockedImage, o Options) (*image, error) {
	repo, identifier, err := r.open(w, locked, o)
	if err != nil {
		return nil, err
	}
	root, err := repo.Manifest(ctx, identifier)
	if err != nil {
		return nil, err
	}
	if w.ref.Digest != "" && root.Digest != w.ref.Digest {
		return nil, &oci.DigestError{Got: root.Digest, Want: w.ref.Digest}
	}
	img := &image{
		Image: manifest.Image{Source: w.ref.String(), Digest: root.Digest, MediaType: root.MediaType, Size: root.Size, Reasons: w.reasons},
		raw:   map[string][]byte{}, repo: repo,
	}
	if w.local == "" && w.ref.Tag != "" && (w.ref.Digest != "" && locked == nil || o.CheckTags) {
		if err := img.checkTag(ctx, w.ref); err != nil {
			return nil, err
		}
	}
	switch {
	case w.artifact:
		return img, img.addArtifact(ctx, root)
	case oci.IsIndex(root.MediaType):
		return img, img.addIndex(ctx, w, root)
	case oci.IsImage(root.MediaType):
		platform, err := img.addImage(ctx, root)
		if err != nil {
			return nil, err
		}
		for _, p := range w.platforms {
			if p != AllPlatforms && !oci.Matches(platform, p) {
				return nil, &oci.MissingPlatformError{Reference: w.ref.String(), Want: p, Have: []string{platform}}
			}
		}
		img.Platforms = []string{platform}
		return img, nil
	}
	return nil, fmt.Errorf("the registry has a %q there: %w", root.MediaType, oci.ErrUnsupported)
}

// checkTag notes where a tag leads by now, if that is not where the digest does.
func (img *image) checkTag(ctx context.Context, ref oci.Reference) error {
	at, err := img.repo.ManifestDigest(ctx, ref.Tag)
	if err != nil {
		return err
	}
	switch at {
	case img.Digest:
	case "":
		img.warning = fmt.Sprintf("image %s: the tag %q is gone from the registry; it stays %s", ref, ref.Tag, img.Digest)
	default:
		img.warning = fmt.Sprintf("image %s: the tag %q stands for %s by now; it stays %s", ref, ref.Tag, at, img.Digest)
	}
	return nil
}

// addArtifact takes in what need not be an image, and for an index all that it names.
func (img *image) addArtifact(ctx context.Context, root *oci.Content) error {
	img.ArtifactType = oci.ArtifactType(root.Raw)
	if oci.IsImage(root.MediaType) {
		return img.addOpaque(root)
	}
	if !oci.IsIndex(root.MediaType) {
		return fmt.Errorf("the registry has a %q there: %w", root.MediaType, oci.ErrUnsupported)
	}
	children, err := oci.ParseIndex(root.Raw)
	if err != nil {
		return err
	}
	if img.ArtifactType == "" {
		img.ArtifactType = root.MediaType
	}
	img.add(root)
	contents, err := img.fetchChildren(ctx, children)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for i, c := range children {
		if seen[c.Digest] {
			continue
		}
		seen[c.Digest] = true
		img.Children = append(img.Children, manifest.Child{Digest: c.Digest, MediaType: c.MediaType, Size: c.Size, Platform: oci.UnknownPlatform})
		if err := img.addOpaque(contents[i].content); err != nil {
			return err
		}
	}
	return nil
}

// addOpaque takes in a manifest and what it names, none of which is small for sure: who reads a stream
// keeps what comes before the last manifest.
func (img *image) addOpaque(content *oci.Content) error {
	parsed, err := oci.ParseImage(content.Raw)
	if err != nil {
		return err
	}
	img.add(content)
	for _, d := range append([]manifest.Descriptor{parsed.Config}, parsed.Layers...) {
		img.layers = append(img.layers, layer(d))
	}
	return nil
}

// child is a child of an index as it was fetched.
type child struct {
	content *oci.Content
	config  []byte
}

// fetchChildren reads the manifests of children, and the configs of those that are images, several at a time.
func (img *image) fetchChildren(ctx context.Context, children []oci.Child) ([]child, error) {
	contents := make([]child, len(children))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(childrenAtOnce)
	for i, c := range children {
		g.Go(func() error {
			content, err := img.repo.Manifest(gctx, c.Digest)
			if err != nil {
				return err
			}
			if content.Size != c.Size {
				return fmt.Errorf("child %s has %d bytes, its index says %d", c.Digest, content.Size, c.Size)
			}
			content.MediaType = c.MediaType
			contents[i].content = content
			if c.Platform == oci.UnknownPlatform {
				return nil
			}
			contents[i].config, err = img.readConfig(gctx, content)
			return err
		})
	}
	return contents, g.Wait()
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
	contents, err := img.fetchChildren(ctx, selected)
	if err != nil {
		return err
	}
	for _, c := range contents {
		if err := img.addParts(c.content, c.config); err != nil {
			return err
		}
	}
	return nil
}

// addImage takes in an image manifest, its config and its layers, and returns its platform.
func (img *image) addImage(ctx context.Context, content *oci.Content) (platform string, err error) {
	config, err := img.readConfig(ctx, content)
	if err != nil {
		return "", err
	}
	if platform, err = oci.ConfigPlatform(config); err != nil {
		return "", err
	}
	return platform, img.addParts(content, config)
}

// readConfig reads the config of an image, and checks that it says what a config says.
func (img *image) readConfig(ctx context.Context, content *oci.Content) ([]byte, error) {
	parsed, err := oci.ParseImage(content.Raw)
	if err != nil {
		return nil, err
	}
	config, err := img.repo.ReadBlob(ctx, parsed.Config, oci.MaxConfigBytes)
	if err != nil {
		return nil, err
	}
	platform, err := oci.ConfigPlatform(config)
	if err == nil && strings.HasPrefix(platform, "/") {
		err = &NotImageError{parsed.Config.MediaType}
	}
	return config, err
}

// NotImageError says that what a registry has under the name of an image is something else.
type NotImageError struct{ ConfigType string }

// Error names its type.
func (e *NotImageError) Error() string {
	return fmt.Sprintf("it is no image, which would be made for a platform: its config is a %q", e.ConfigType)
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
