package install

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/progress"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// ArchiveFormat is what kind of archive images are written to.
type ArchiveFormat string

// Formats of archives.
const (
	// ArchiveOCI is a tar of an OCI image layout (OCI image spec 1.1).
	ArchiveOCI ArchiveFormat = "oci-archive"
	// ArchiveDocker is that as well, and has the list by which "docker load" finds images, as what
	// "docker save" writes since Docker 25. An image in it is for one platform.
	ArchiveDocker ArchiveFormat = "docker-archive"
)

// savedList is the name of docker's list of images in an archive.
const savedList = "manifest.json"

// ArchiveOptions say what is written to an archive.
type ArchiveOptions struct {
	Format ArchiveFormat
	// Images are references of images in the bundle; none for all of its images. Artifacts that are
	// no images have to be named.
	Images []string
	// Platform, os/arch[/variant], is the one that images are written for. Without it an ArchiveOCI
	// gets all that travel; an ArchiveDocker the only one, or Machine.
	Platform string
	// Machine is the platform of this machine.
	Machine  string
	Progress progress.Reporter
}

// ArchivedImage is an image in an archive.
type ArchivedImage struct {
	Source string `json:"source"`
	// Name is what it is called in the archive: a reference with its tag or, where the source has
	// none, with its digest.
	Name string `json:"name"`
	// Digest is what the name leads to; that of one of an index, where a platform was chosen.
	Digest string `json:"digest"`
	// Platform is the one that was chosen; empty for all that travel.
	Platform string `json:"platform,omitempty"`
	// Untagged says that the source has no tag, so that docker knows the image by its ID only.
	Untagged bool `json:"untagged,omitempty"`
	// Docker says that its manifest is of docker's own media types. In an OCI image layout podman and
	// skopeo find such an image by its name only in docker's list.
	Docker bool `json:"docker,omitempty"`
}

// Archived is what was written to an archive.
type Archived struct {
	Images []ArchivedImage `json:"images"`
	Blobs  int             `json:"blobs"`
	// Bytes is the size of the archive.
	Bytes int64 `json:"bytes"`
}

// NoImageError says that a bundle has no image of a name.
type NoImageError struct {
	Reference string
	// Have are those that there are.
	Have []string
}

// maxNamed bounds how many images an error lists.
const maxNamed = 20

// Error lists what there is.
func (e *NoImageError) Error() string {
	have, more := e.Have, ""
	if len(have) > maxNamed {
		have, more = have[:maxNamed], fmt.Sprintf(" and %d more", len(e.Have)-maxNamed)
	}
	return fmt.Sprintf("no image of the bundle is %q; it has %s%s", e.Reference, strings.Join(have, ", "), more)
}

// NoPlatformError says that an image does not travel for a platform.
type NoPlatformError struct {
	Source string
	// Want is the platform that was asked for or, where it has to be one and none was, this machine's.
	Want string
	Have []string
}

// Error lists the platforms.
func (e *NoPlatformError) Error() string {
	return fmt.Sprintf("%q does not travel for %s, but for %s", e.Source, e.Want, strings.Join(e.Have, ", "))
}

// NotRunnableError says that an artifact cannot be in an archive for docker.
type NotRunnableError struct{ Source, ArtifactType string }

// Error names its type.
func (e *NotRunnableError) Error() string {
	return fmt.Sprintf("%q is no image, but a %s: a %s has images only", e.Source, e.ArtifactType, ArchiveDocker)
}

// Archive writes images of a bundle to w, in one pass: an archive whose bytes follow from what is
// chosen, each blob once and as it travels, compressed or not. Every blob is proven while it is copied;
// after an error what was written is no archive. It takes a bundle that comes as a stream. Errors:
// *NoImageError, *NoPlatformError, *NotRunnableError, *CollisionError, *oci.ReferenceError,
// *verify.ContentError, verify.ErrPreload, that of ctx, or of writing.
func Archive(ctx context.Context, b *verify.Bundle, w io.Writer, o ArchiveOptions) (*Archived, error) {
	if err := b.Preload(ctx, o.Progress); err != nil {
		return nil, err
	}
	a, err := newArchive(b, o)
	if err != nil {
		return nil, err
	}
	out := &countWriter{w: w}
	if err := a.write(ctx, out, o.Progress); err != nil {
		return nil, err
	}
	return &Archived{a.images, len(a.blobs), out.n}, nil
}

// archived is what an archive is made of.
type archived struct {
	bundle *verify.Bundle
	format ArchiveFormat
	images []ArchivedImage
	// tops are what the names of images lead to.
	tops []manifest.Descriptor
	// blobs are needed, by digest.
	blobs map[string]bool
	// saved are the images as docker lists them, in the order of the first of their names.
	saved []*savedEntry
}

// savedEntry is an image in docker's list.
type savedEntry struct {
	Config   string   `json:"Config"`
	RepoTags []string `json:"RepoTags"`
	Layers   []string `json:"Layers"`
	digest   string
}

func newArchive(b *verify.Bundle, o ArchiveOptions) (*archived, error) {
	chosen, err := choose(b.Manifest(), o.Images)
	if err != nil {
		return nil, err
	}
	a := &archived{bundle: b, format: o.Format, blobs: map[string]bool{}}
	taken := map[string]ArchivedImage{}
	for _, img := range chosen {
		if img.ArtifactType != "" && o.Format == ArchiveDocker {
			return nil, &NotRunnableError{img.Source, img.ArtifactType}
		}
		top, platform, err := o.pick(img)
		if err != nil {
			return nil, err
		}
		ref, err := oci.Normalize(img.Source)
		if err != nil {
			return nil, err
		}
		name := ref
		if name.Digest = ""; ref.Tag == "" {
			name.Digest = top.Digest
		}
		i := ArchivedImage{
			Source: img.Source, Name: name.String(), Digest: top.Digest, Platform: platform,
			Untagged: ref.Tag == "", Docker: !strings.HasPrefix(top.MediaType, "application/vnd.oci."),
		}
		first, again := taken[i.Name]
		if again && first.Digest != i.Digest {
			return nil, &CollisionError{i.Name, first.Source, i.Source}
		}
		if again {
			continue
		}
		taken[i.Name] = i
		a.images, a.tops = append(a.images, i), append(a.tops, top)
		if err := a.take(img, top, i); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// choose returns the images that references name, all of them for no reference, in the order in which
// the manifest has them.
func choose(m *manifest.Manifest, references []string) ([]*manifest.Image, error) {
	var all []*manifest.Image
	if len(references) == 0 {
		for i := range m.Images {
			all = append(all, &m.Images[i])
		}
		return all, nil
	}
	wanted := map[*manifest.Image]bool{}
	for _, text := range references {
		found, err := find(m, text)
		if err != nil {
			return nil, err
		}
		for _, img := range found {
			wanted[img] = true
		}
	}
	for _, img := range m.AllImages() {
		if wanted[img] {
			all = append(all, img)
		}
	}
	return all, nil
}

// find returns the image whose source is the reference, or else those that it means by their digest.
func find(m *manifest.Manifest, text string) ([]*manifest.Image, error) {
	want, err := oci.Normalize(text)
	if err != nil {
		return nil, err
	}
	var alike []*manifest.Image
	var have []string
	for _, img := range m.AllImages() {
		source, err := oci.Normalize(img.Source)
		if err != nil {
			return nil, err
		}
		if source == want {
			return []*manifest.Image{img}, nil
		}
		if want.Digest == img.Digest && want.Registry == source.Registry && want.Repository == source.Repository && (want.Tag == "" || want.Tag == source.Tag) {
			alike = append(alike, img)
		}
		have = append(have, img.Source)
	}
	if len(alike) == 0 {
		return nil, &NoImageError{text, have}
	}
	return alike, nil
}

// pick returns what stands for an image in the archive, and the platform if only one is in it.
func (o *ArchiveOptions) pick(img *manifest.Image) (top manifest.Descriptor, platform string, err error) {
	top = manifest.Descriptor{Digest: img.Digest, MediaType: img.MediaType, Size: img.Size}
	platform = o.Platform
	switch {
	case img.ArtifactType != "":
		return top, "", nil
	case len(img.Children) == 0:
		if platform != "" && !slices.ContainsFunc(img.Platforms, func(have string) bool { return oci.Matches(have, platform) }) {
			return top, "", &NoPlatformError{img.Source, platform, img.Platforms}
		}
		return top, strings.Join(img.Platforms, ","), nil
	case platform == "" && o.Format == ArchiveOCI:
		return top, "", nil
	case platform == "" && len(img.Platforms) == 1:
		platform = img.Platforms[0]
	case platform == "":
		platform = o.Machine
	}
	for _, c := range img.Children {
		if c.Platform != oci.UnknownPlatform && oci.Matches(c.Platform, platform) {
			return manifest.Descriptor{Digest: c.Digest, MediaType: c.MediaType, Size: c.Size}, c.Platform, nil
		}
	}
	return top, "", &NoPlatformError{img.Source, platform, img.Platforms}
}

// take adds what an image needs.
func (a *archived) take(img *manifest.Image, top manifest.Descriptor, i ArchivedImage) error {
	manifests := []manifest.Descriptor{top}
	if oci.IsIndex(top.MediaType) {
		for _, c := range img.Children {
			manifests = append(manifests, manifest.Descriptor{Digest: c.Digest, MediaType: c.MediaType, Size: c.Size})
		}
	}
	for _, d := range manifests {
		a.blobs[d.Digest] = true
		if oci.IsIndex(d.MediaType) {
			continue
		}
		raw, err := a.bundle.ReadBlob(d.Digest, manifest.MaxOCIManifestBytes)
		if err != nil {
			return err
		}
		parsed, err := oci.ParseImage(raw)
		if err != nil {
			return fmt.Errorf("image %q: %w", img.Source, err)
		}
		for _, blob := range append([]manifest.Descriptor{parsed.Config}, parsed.Layers...) {
			a.blobs[blob.Digest] = true
		}
		if a.format == ArchiveDocker {
			a.save(d.Digest, parsed, i)
		}
	}
	return nil
}

// save lists an image for docker, once for all of its names.
func (a *archived) save(digest string, img *oci.Image, i ArchivedImage) {
	at := slices.IndexFunc(a.saved, func(s *savedEntry) bool { return s.digest == digest })
	if at < 0 {
		s := &savedEntry{Config: blobName(img.Config.Digest), RepoTags: []string{}, Layers: []string{}, digest: digest}
		for _, l := range img.Layers {
			s.Layers = append(s.Layers, blobName(l.Digest))
		}
		at, a.saved = len(a.saved), append(a.saved, s)
	}
	if !i.Untagged {
		a.saved[at].RepoTags = append(a.saved[at].RepoTags, i.Name)
	}
}

// blobName is the name of a blob's file.
func blobName(digest string) string {
	return manifest.BlobPrefix + strings.TrimPrefix(digest, "sha256:")
}

// listed is an image in the index of the layout. Both annotations hold its full name: the first is
// the specification's, the second containerd's.
type listed struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations"`
}

// lists are the files of the archive that are not blobs, in their order.
func (a *archived) lists() ([]tarFile, error) {
	index := struct {
		SchemaVersion int      `json:"schemaVersion"`
		MediaType     string   `json:"mediaType"`
		Manifests     []listed `json:"manifests"`
	}{2, "application/vnd.oci.image.index.v1+json", []listed{}}
	for i, img := range a.images {
		top := a.tops[i]
		index.Manifests = append(index.Manifests, listed{top.MediaType, top.Digest, top.Size, map[string]string{
			"org.opencontainers.image.ref.name": img.Name, "io.containerd.image.name": img.Name,
		}})
	}
	raw, err := json.Marshal(index)
	if err != nil {
		return nil, fmt.Errorf("encoding %s: %w", manifest.EntryIndex, err)
	}
	files := []tarFile{{manifest.EntryOCILayout, manifest.OCILayout()}, {manifest.EntryIndex, raw}}
	if a.format == ArchiveDocker {
		if raw, err = json.Marshal(a.saved); err != nil {
			return nil, fmt.Errorf("encoding %s: %w", savedList, err)
		}
		files = append(files, tarFile{savedList, raw})
	}
	return files, nil
}

// tarFile is a small file of an archive.
type tarFile struct {
	name    string
	content []byte
}

// write writes the lists, then the blobs in the order in which the bundle has them.
func (a *archived) write(ctx context.Context, w io.Writer, report progress.Reporter) error {
	files, err := a.lists()
	if err != nil {
		return err
	}
	t := newArchiveWriter(&contextWriter{ctx, w})
	for _, f := range files {
		if err := t.add(f.name, int64(len(f.content)), bytes.NewReader(f.content)); err != nil {
			return err
		}
	}
	if a.bundle.IsStream() {
		err = a.bundle.Each(ctx, report, func(_ context.Context, blob manifest.Blob, content io.Reader) error {
			if !a.blobs[blob.Digest] {
				return nil
			}
			return t.add(blobName(blob.Digest), blob.Size, content)
		})
	} else {
		err = a.copyBlobs(t, report)
	}
	if err != nil {
		return err
	}
	if err := t.tar.Close(); err != nil {
		return writing(err)
	}
	return nil
}

func (a *archived) copyBlobs(t *archiveWriter, report progress.Reporter) error {
	var total int64
	for _, blob := range a.bundle.Manifest().Blobs {
		if a.blobs[blob.Digest] {
			total += blob.Size
		}
	}
	task := report.Start("writing", total, progress.Bytes)
	defer task.Done()
	for _, blob := range a.bundle.Manifest().Blobs {
		if !a.blobs[blob.Digest] {
			continue
		}
		r, err := a.bundle.Blob(blob.Digest)
		if err != nil {
			return err
		}
		err = t.add(blobName(blob.Digest), blob.Size, io.TeeReader(r, addTo(task.Add)))
		if err = errors.Join(err, r.Close()); err != nil {
			return err
		}
		task.Note(blob.Digest)
	}
	return nil
}

// addTo tells how many bytes are written to it.
type addTo func(int64)

func (f addTo) Write(p []byte) (int, error) {
	f(int64(len(p)))
	return len(p), nil
}

// archiveWriter writes files of which all that could vary is fixed.
type archiveWriter struct {
	tar *tar.Writer
	buf []byte
}

func newArchiveWriter(w io.Writer) *archiveWriter {
	return &archiveWriter{tar.NewWriter(w), make([]byte, 1<<20)}
}

// maxUSTAR is the largest file that a header of ustar can say, in bytes.
const maxUSTAR = 1<<33 - 1

func (t *archiveWriter) add(name string, size int64, content io.Reader) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
	if size > maxUSTAR {
		h.Format = tar.FormatGNU
	}
	if err := t.tar.WriteHeader(h); err != nil {
		return writing(err)
	}
	// Both sides are bare, so that the pieces are as large as the buffer.
	n, err := io.CopyBuffer(onlyWriter{t.tar}, onlyReader{content}, t.buf)
	if err == nil && n != size {
		err = fmt.Errorf("%s: got %d bytes, want %d", name, n, size)
	}
	return err
}

type onlyWriter struct{ io.Writer }

func (w onlyWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	if err != nil {
		return n, writing(err)
	}
	return n, nil
}

type onlyReader struct{ io.Reader }

func writing(err error) error { return fmt.Errorf("writing the archive: %w", err) }

// contextWriter ends where its context does.
type contextWriter struct {
	ctx context.Context //nolint:containedctx // a writer has nowhere else to get it from
	w   io.Writer
}

func (w *contextWriter) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.w.Write(p)
}

// countWriter counts what is written.
type countWriter struct {
	w io.Writer
	n int64
}

func (c *countWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
