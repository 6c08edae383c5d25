package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/sealift/sealift/manifest"
)

// LocalError says what could not be read of images on this machine.
type LocalError struct {
	// Path is the file or directory.
	Path string
	// Doing is what was being done, such as "reading blob sha256:…".
	Doing string
	Err   error
}

// Error names path and deed.
func (e *LocalError) Error() string { return fmt.Sprintf("%s: %s: %v", e.Path, e.Doing, e.Err) }

// Unwrap returns the cause.
func (e *LocalError) Unwrap() error { return e.Err }

// CompressedError says that an archive of images is compressed, so that nothing in it can be read
// without all that is before it.
type CompressedError struct {
	Path string
	// Format is what it is compressed with: gzip, zstd, xz or bzip2.
	Format string
}

// Error says what to do.
func (e *CompressedError) Error() string {
	return fmt.Sprintf("%s is compressed with %s: archives of images are read as plain tar, decompress it first", e.Path, e.Format)
}

// AmbiguousError says that a file or directory has not just one image that can be meant.
type AmbiguousError struct {
	Path string
	// Want is the reference that was looked for.
	Want string
	// Have names what there is, each image by its names or, without any, by its digest; with its
	// digest where another one has the same name.
	Have []string
}

// maxNamed bounds how many images an error names.
const maxNamed = 20

// Error lists what there is.
func (e *AmbiguousError) Error() string {
	if len(e.Have) == 0 {
		return fmt.Sprintf("%s has no image that is %q, nor any other", e.Path, e.Want)
	}
	have, more := e.Have, ""
	if len(have) > maxNamed {
		have, more = have[:maxNamed], fmt.Sprintf(" and %d more", len(have)-maxNamed)
	}
	return fmt.Sprintf("no single image of %s is %q; it has %s%s", e.Path, e.Want, strings.Join(have, ", "), more)
}

// Local is images in a file or directory on this machine. It reads there what it is asked for,
// when it is asked; nothing is unpacked. Its methods may be called by several goroutines.
type Local struct {
	path  string
	files files
	// images are those that are there to be asked for, in their order there.
	images []localImage
	// made are the manifests that had to be written for images that have none, by digest, and
	// blobs the names of the files that have what these name.
	made  map[string]*Content
	blobs map[string]string
	// tags are what is there beside the images, under names that are made from digests: referrers
	// and what cosign stores.
	tags map[string]Listed
	// referrers are listed by subject.
	referrers map[string][]Listed
}

// localImage is an image as the list of a file or directory has it.
type localImage struct {
	Listed
	// full are its names as references, bare are tags of who knows which repository.
	full []Reference
	bare []string
}

var _ Source = (*Local)(nil)

// OpenLocal opens images on this machine: an OCI image layout (OCI image spec 1.1), as a directory
// or as a tar of one, or an archive as "docker save" makes them. Archives are read through once for
// the places of their files. Errors are *LocalError, for a compressed archive *CompressedError.
func OpenLocal(path string) (*Local, error) {
	f, err := openFiles(path)
	var compressed *CompressedError
	if errors.As(err, &compressed) {
		return nil, err
	}
	if err != nil {
		return nil, &LocalError{path, "opening images", err}
	}
	l := &Local{
		path: path, files: f, made: map[string]*Content{}, blobs: map[string]string{},
		tags: map[string]Listed{}, referrers: map[string][]Listed{},
	}
	if err := l.load(); err != nil {
		return nil, &LocalError{path, "opening images", errors.Join(err, f.Close())}
	}
	return l, nil
}

// load finds out what kind of thing it is. What docker has saved since version 25 is of both kinds;
// as a layout it has the manifests that registries know, if it is complete.
func (l *Local) load() error {
	_, layout := l.files.size(indexFile)
	_, saved := l.files.size(savedFile)
	if !layout && !saved {
		return fmt.Errorf("there is neither %s nor %s: it is no OCI image layout and nothing that docker has saved", indexFile, savedFile)
	}
	if layout {
		err := l.loadLayout()
		if !saved || err == nil && l.complete() {
			return err
		}
		l.images, l.tags, l.referrers = nil, map[string]Listed{}, map[string][]Listed{}
	}
	return l.loadSaved()
}

// Close ends the use of what was opened. Readers of blobs fail from then on.
func (l *Local) Close() error { return l.files.Close() }

func (l *Local) fail(doing, what string, err error) error {
	return &LocalError{l.path, doing + " " + what, err}
}

// Find returns the image that a reference means here: the one of its digest, else the one of its
// name or, where the images have none, of its tag, else the only one there is. Errors are
// *ReferenceError, *AmbiguousError where that does not name just one, and *LocalError.
func (l *Local) Find(reference string) (manifest.Descriptor, error) {
	ref, err := Normalize(reference)
	if err != nil {
		return manifest.Descriptor{}, err
	}
	digest := ref.Digest
	if digest == "" {
		digest, err = l.find(ref)
	} else if _, ok := l.blobSize(digest); !ok {
		err = l.ambiguous(reference)
	}
	if err != nil {
		return manifest.Descriptor{}, err
	}
	c, err := l.manifest(digest)
	if err != nil {
		return manifest.Descriptor{}, l.fail("reading", "manifest "+digest, err)
	}
	return c.Descriptor, nil
}

func (l *Local) find(ref Reference) (string, error) {
	named := func(img localImage) bool { return slices.Contains(img.full, ref) }
	tagged := func(img localImage) bool { return len(img.full) == 0 && slices.Contains(img.bare, ref.Tag) }
	every := func(localImage) bool { return true }
	for _, match := range []func(localImage) bool{named, tagged, every} {
		switch digests := l.digests(match); len(digests) {
		case 0:
		case 1:
			return digests[0], nil
		default:
			return "", l.ambiguous(ref.String())
		}
	}
	return "", l.ambiguous(ref.String())
}

// digests are those of the images that match, each once.
func (l *Local) digests(match func(localImage) bool) []string {
	var list []string
	for _, img := range l.images {
		if match(img) && !slices.Contains(list, img.Digest) {
			list = append(list, img.Digest)
		}
	}
	return list
}

func (l *Local) ambiguous(want string) error {
	e := &AmbiguousError{Path: l.path, Want: want}
	owner, shared := map[string]string{}, map[string]bool{}
	for _, img := range l.images {
		for _, name := range img.names() {
			shared[name] = shared[name] || owner[name] != "" && owner[name] != img.Digest
			owner[name] = img.Digest
		}
	}
	for _, img := range l.images {
		names := img.names()
		if len(names) == 0 {
			e.Have = append(e.Have, img.Digest)
		}
		for _, name := range names {
			if shared[name] {
				name += "@" + img.Digest
			}
			e.Have = append(e.Have, name)
		}
	}
	slices.Sort(e.Have)
	e.Have = slices.Compact(e.Have)
	return e
}

// names are those of an image: full ones, or else bare tags.
func (img *localImage) names() []string {
	if len(img.full) == 0 {
		return img.bare
	}
	var list []string
	for _, r := range img.full {
		list = append(list, r.String())
	}
	return list
}

// name gives an image a name: a reference, or only a tag, which has no colon and no slash.
func (img *localImage) name(text string) {
	if text == "" {
		return
	}
	if !strings.ContainsAny(text, ":/@") {
		if validTag.MatchString(text) && !slices.Contains(img.bare, text) {
			img.bare = append(img.bare, text)
		}
		return
	}
	ref, err := Normalize(text)
	if err != nil { // it cannot be asked for either
		return
	}
	ref.Digest = ""
	if ref.Tag != "" && !slices.Contains(img.full, ref) {
		img.full = append(img.full, ref)
	}
}

// resolve returns the digest of an identifier, "" where there is none: what is a digest already, a
// reference, or a tag.
func (l *Local) resolve(identifier string) (string, error) {
	if manifest.CheckDigest(identifier) == nil {
		if _, ok := l.blobSize(identifier); !ok {
			return "", nil
		}
		return identifier, nil
	}
	if t, ok := l.tags[identifier]; ok {
		return t.Digest, nil
	}
	digests := l.digests(func(img localImage) bool {
		return slices.Contains(img.bare, identifier) || slices.ContainsFunc(img.full, func(r Reference) bool {
			return r.Tag == identifier || r.String() == identifier
		})
	})
	switch len(digests) {
	case 0:
		return "", nil
	case 1:
		return digests[0], nil
	}
	return "", l.ambiguous(identifier)
}

// Manifest reads a manifest or index by digest, or by the name or tag that it has here, and proves
// it. Errors are *LocalError; IsNotFound tells what is not there, *AmbiguousError is wrapped for a
// tag of several.
func (l *Local) Manifest(ctx context.Context, identifier string) (*Content, error) {
	digest, err := l.resolve(identifier)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil && digest == "" {
		err = ErrAbsent
	}
	var c *Content
	if err == nil {
		c, err = l.manifest(digest)
	}
	if err != nil {
		return nil, l.fail("reading", "manifest "+identifier, err)
	}
	return c, nil
}

func (l *Local) manifest(digest string) (*Content, error) {
	if c := l.made[digest]; c != nil {
		return c, nil
	}
	raw, err := l.read(digest, manifest.MaxOCIManifestBytes)
	if err != nil {
		return nil, err
	}
	c := &Content{Descriptor: manifest.Descriptor{Digest: digest, Size: int64(len(raw)), MediaType: declaredMediaType(raw)}, Raw: raw}
	if c.MediaType == "" {
		c.MediaType = mediaTypeByShape(raw)
	}
	return c, nil
}

// mediaTypeByShape tells an image manifest from an index, in which the OCI image spec asks for no
// media type; "" for anything else. A registry says it beside the document.
func mediaTypeByShape(raw []byte) string {
	var doc struct {
		Config    *json.RawMessage   `json:"config"`
		Layers    *[]json.RawMessage `json:"layers"`
		Manifests *[]json.RawMessage `json:"manifests"`
	}
	switch err := json.Unmarshal(raw, &doc); {
	case err != nil:
		return ""
	case doc.Config != nil && doc.Layers != nil && doc.Manifests == nil:
		return string(types.OCIManifestSchema1)
	case doc.Manifests != nil && doc.Config == nil && doc.Layers == nil:
		return string(types.OCIImageIndex)
	}
	return ""
}

// ManifestDigest returns the digest of a tag, name or digest: "" where it is not here.
func (l *Local) ManifestDigest(ctx context.Context, identifier string) (string, error) {
	digest, err := l.resolve(identifier)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return "", l.fail("looking for", "manifest "+identifier, err)
	}
	return digest, nil
}

// Referrers lists what refers to a digest, in the order of the digests, each once: the manifests of
// the layout's index that have it as their subject, and those under the tag that stands in for the
// Referrers API.
func (l *Local) Referrers(ctx context.Context, digest string) (list []Listed, viaAPI bool, err error) {
	if err := ctx.Err(); err != nil {
		return nil, false, l.fail("reading", "the referrers of "+digest, err)
	}
	list = slices.Clone(l.referrers[digest])
	if t, ok := l.tags[ReferrersTag(digest)]; ok {
		raw, err := l.read(t.Digest, manifest.MaxOCIManifestBytes)
		var more []Listed
		if err == nil {
			more, err = parseReferrers(raw)
		}
		if err != nil {
			return nil, false, l.fail("reading", "the referrers of "+digest, err)
		}
		list = append(list, more...)
	}
	return sorted(list), false, nil
}

// ReadBlob reads a small blob into memory and checks its digest and size.
func (l *Local) ReadBlob(ctx context.Context, d manifest.Descriptor, limit int64) ([]byte, error) {
	err := ctx.Err()
	var raw []byte
	if err == nil {
		raw, err = l.read(d.Digest, limit)
	}
	if err == nil && int64(len(raw)) != d.Size {
		err = fmt.Errorf("it has %d bytes, want %d", len(raw), d.Size)
	}
	if err != nil {
		return nil, l.fail("reading", "blob "+d.Digest, err)
	}
	return raw, nil
}

// blobFile is the name of the file that has a blob.
func (l *Local) blobFile(digest string) string {
	if name := l.blobs[digest]; name != "" {
		return name
	}
	return "blobs/" + strings.Replace(digest, ":", "/", 1)
}

// blobSize is the size of a blob; ok says that it is here.
func (l *Local) blobSize(digest string) (size int64, ok bool) {
	if c := l.made[digest]; c != nil {
		return c.Size, true
	}
	// What is no digest must not become the name of a file.
	if manifest.CheckDigest(digest) != nil {
		return 0, false
	}
	return l.files.size(l.blobFile(digest))
}

// read reads a blob into memory and proves it.
func (l *Local) read(digest string, limit int64) ([]byte, error) {
	// What is no digest must not become the name of a file.
	if err := manifest.CheckDigest(digest); err != nil {
		return nil, err
	}
	if c := l.made[digest]; c != nil {
		return c.Raw, nil
	}
	raw, err := readFile(l.files, l.blobFile(digest), limit)
	if err != nil {
		return nil, err
	}
	if got := manifest.Digest(raw); got != digest {
		return nil, &DigestError{got, digest}
	}
	return raw, nil
}

// Blob returns the bytes of a blob from offset on, not proven. Errors of reading are *LocalError;
// the reader ends where ctx does.
func (l *Local) Blob(ctx context.Context, d manifest.Descriptor, offset int64) io.ReadCloser {
	return &localBlob{l: l, ctx: ctx, d: d, at: offset}
}

// localBlob reads a blob from a file that it opens when it is first read.
type localBlob struct {
	l    *Local
	ctx  context.Context //nolint:containedctx // a reader has nowhere else to get it from
	d    manifest.Descriptor
	body io.ReadCloser
	at   int64
	err  error
}

func (b *localBlob) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.read(p)
	b.at += int64(n)
	if errors.Is(err, io.EOF) {
		if b.at >= b.d.Size {
			b.err = io.EOF
			return n, io.EOF
		}
		err = fmt.Errorf("it ends after %d of %d bytes: %w", b.at, b.d.Size, io.ErrUnexpectedEOF)
	}
	if err != nil {
		b.err = b.l.fail("reading", "blob "+b.d.Digest, err)
	}
	return n, b.err
}

func (b *localBlob) read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	if b.body == nil {
		if err := b.open(); err != nil {
			return 0, err
		}
	}
	return b.body.Read(p)
}

func (b *localBlob) open() (err error) {
	if err := manifest.CheckDigest(b.d.Digest); err != nil {
		return err
	}
	if b.at < 0 {
		return fmt.Errorf("offset %d", b.at)
	}
	if c := b.l.made[b.d.Digest]; c != nil {
		b.body = io.NopCloser(bytes.NewReader(c.Raw[min(b.at, c.Size):]))
		return nil
	}
	b.body, err = b.l.files.open(b.l.blobFile(b.d.Digest), b.at)
	return err
}

func (b *localBlob) Close() error {
	b.err = errors.New("read of a closed blob")
	if b.body == nil {
		return nil
	}
	body := b.body
	b.body = nil
	return body.Close()
}

// Has reports whether the content with a digest is there: a manifest, or a blob.
func (l *Local) Has(digest string) bool {
	_, ok := l.blobSize(digest)
	return ok
}
