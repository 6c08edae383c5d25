package publish

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// Scheme begins the names of bundles in registries.
const Scheme = "oci://"

// ReferenceError says that a text names no bundle in a registry.
type ReferenceError struct {
	Text string
	Err  error
}

// Error quotes the text.
func (e *ReferenceError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("%q is not written as %sHOST[:PORT]/REPOSITORY[:TAG]", e.Text, Scheme)
	}
	return fmt.Sprintf("%q is not written as %sHOST[:PORT]/REPOSITORY[:TAG]: %v", e.Text, Scheme, e.Err)
}

// Unwrap returns what is wrong with it.
func (e *ReferenceError) Unwrap() error { return e.Err }

// NoTagError says that a reference names neither tag nor digest, so that it leads to nothing.
type NoTagError struct{ Text string }

// Error quotes the reference.
func (e *NoTagError) Error() string {
	return fmt.Sprintf("%q names neither a tag nor a digest", e.Text)
}

// IsReference reports whether text names a bundle in a registry, well or badly.
func IsReference(text string) bool { return strings.HasPrefix(text, Scheme) }

// ParseReference reads oci://HOST[:PORT]/REPOSITORY[:TAG][@DIGEST]. Unlike that of an image, a
// reference without tag and digest has none. Errors are *ReferenceError.
func ParseReference(text string) (oci.Reference, error) {
	name, ok := strings.CutPrefix(text, Scheme)
	if !ok {
		return oci.Reference{}, &ReferenceError{Text: text}
	}
	ref, err := oci.ParseReference(name)
	if err != nil {
		var wrong *oci.ReferenceError
		if errors.As(err, &wrong) {
			err = wrong.Err
		}
		return oci.Reference{}, &ReferenceError{text, err}
	}
	if ref.Digest == "" && !strings.HasSuffix(name, ":"+ref.Tag) {
		ref.Tag = ""
	}
	return ref, nil
}

// Open finds the bundle that ref leads to. What it leads to now is what is read, whatever becomes
// of the tag. Only what lies before the payload is read, and the check table; ctx bounds this and
// all reading later. Nothing of it is proven but that it is what the registry names by digest.
// Errors: *NoTagError, *NotBundleError, *verify.ContentError, *oci.Error.
func Open(ctx context.Context, c *oci.Client, ref oci.Reference) (*archive.Files, error) {
	if ref.Identifier() == "" {
		return nil, &NoTagError{Scheme + ref.String()}
	}
	repo, err := c.Repository(ctx, ref.Registry, ref.Repository, false)
	if err != nil {
		return nil, err
	}
	o := &opening{repo: repo, name: Scheme + ref.String()}
	top, err := o.read(ctx, ref.Identifier())
	if err != nil {
		return nil, err
	}
	ref.Digest = top.Digest
	o.name = Scheme + ref.String()
	a, err := o.artifact(ctx, top)
	if err != nil {
		return nil, err
	}
	return o.files(ctx, a)
}

// opening is a bundle in a registry that is being opened.
type opening struct {
	repo *oci.Repository
	name string
}

// damaged tells content that is not what its digest says from a registry that gives none.
func (o *opening) damaged(what string, err error) error {
	var wrong *oci.DigestError
	var large *oci.TooLargeError
	switch {
	case errors.As(err, &wrong):
		return &verify.ContentError{Path: o.name, Err: fmt.Errorf("%s: %w", what, wrong)}
	case errors.As(err, &large):
		return &verify.ContentError{Path: o.name, Err: fmt.Errorf("%s: %w", what, large)}
	}
	return err
}

func (o *opening) malformed(err error) error {
	return &verify.ContentError{Path: o.name, Err: &FormError{o.name, err}}
}

func (o *opening) read(ctx context.Context, identifier string) (*oci.Content, error) {
	c, err := o.repo.Manifest(ctx, identifier)
	if err != nil {
		return nil, o.damaged("manifest "+identifier, err)
	}
	return c, nil
}

func (o *opening) artifact(ctx context.Context, top *oci.Content) (*artifact, error) {
	d, err := parseDocument(top.Raw)
	if err != nil {
		return nil, &NotBundleError{o.name, top.MediaType}
	}
	if d.ArtifactType != ArtifactType {
		return nil, &NotBundleError{o.name, d.kind()}
	}
	parts, err := d.partsOf()
	if err != nil {
		return nil, o.malformed(err)
	}
	layers := d.Layers
	for _, p := range parts {
		c, err := o.read(ctx, p.Digest)
		if err != nil {
			return nil, err
		}
		part, err := parseDocument(c.Raw)
		if err == nil && part.ArtifactType != partType {
			err = fmt.Errorf("it is a %q", part.kind())
		}
		if n := len(layers); err == nil && n+len(part.Layers) > mostLayers {
			// Now, and not when all parts are in memory.
			err = fmt.Errorf("%d layers, %d before it, at most %d are allowed", len(part.Layers), n, mostLayers)
		}
		if err != nil {
			return nil, o.malformed(fmt.Errorf("part %s: %w", p.Digest, err))
		}
		layers = append(layers, part.Layers...)
	}
	a, err := parse(d, layers)
	if err != nil {
		return nil, o.malformed(err)
	}
	return a, nil
}

// asking is how many small requests are made at the same time.
const asking = 16

// files reads what is needed to lay out the file.
func (o *opening) files(ctx context.Context, a *artifact) (*archive.Files, error) {
	r := &archive.Remote{
		Parts: archive.Parts{Head: a.head, Entries: a.entries}, FileName: a.fileName, Detached: make([]archive.Signature, len(a.detached)), Context: ctx,
		Fetch: func(ctx context.Context, e manifest.Entry, offset int64) io.ReadCloser {
			return o.repo.Blob(ctx, manifest.Descriptor{Digest: "sha256:" + e.SHA256, MediaType: mediaTypeEntry, Size: e.Size}, offset)
		},
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(asking)
	get := func(to *[]byte, d manifest.Descriptor) {
		g.Go(func() error {
			raw, err := o.repo.ReadBlob(gctx, d, d.Size)
			if err != nil {
				return o.damaged("blob "+d.Digest, err)
			}
			*to = raw
			return nil
		})
	}
	get(&r.Manifest, a.manifest)
	get(&r.Slots, a.slots)
	get(&r.Checks, a.checks)
	for i, d := range a.detached {
		r.Detached[i].Name = fmt.Sprintf("signature %d beside %s", i+1, o.name)
		get(&r.Detached[i].Body, d)
	}
	err := g.Wait()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	return &archive.Files{Name: o.name, Remote: r}, nil
}
