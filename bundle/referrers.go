package bundle

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/manifest"
)

const (
	// maxReferrerDepth is how far from an image an artifact may be: its signature, the signature
	// of its SBOM, and so on.
	maxReferrerDepth = 4
	// listing is how many subjects of one image are asked about at the same time.
	listing = 4
	// maxReferrerBytes bounds the manifests of the artifacts of one image, which are held in
	// memory, as they are where a bundle is read as a stream.
	maxReferrerBytes = 32 << 20
)

// Reasons for a *ReferrerError that callers tell apart; both are wrapped, as may be
// oci.ErrUnsupported.
var (
	// ErrReferrerSubject: it is listed as being about one thing and says that it is about another.
	ErrReferrerSubject = errors.New("it is not about what it is listed for")
	// ErrReferrerLimit: there are too many, or they are too far from the image.
	ErrReferrerLimit = errors.New("more than is carried")
)

// ReferrerError says that something about an image, such as a signature, exists and cannot be
// carried.
type ReferrerError struct {
	// Reference of the image.
	Reference string
	// Subject is the digest that it is about. Referrer is its digest or tag; it is empty where
	// not even the list could be read.
	Subject, Referrer string
	Err               error
}

// Error names the image and what is about it.
func (e *ReferrerError) Error() string {
	if e.Referrer == "" {
		return fmt.Sprintf("image %q: what is about %s cannot be carried: %v", e.Reference, e.Subject, e.Err)
	}
	return fmt.Sprintf("image %q: %s, which is about %s, cannot be carried: %v", e.Reference, e.Referrer, e.Subject, e.Err)
}

// Unwrap returns the cause.
func (e *ReferrerError) Unwrap() error { return e.Err }

// referrer is an artifact as it was fetched.
type referrer struct {
	manifest.Referrer
	content *oci.Content
	parts   *oci.Artifact
}

// addReferrers finds what is about the image, its children that travel, and what is about that, and
// takes it in. Subjects come before what is about them; the rest of the order is that of the
// digests, so that it does not depend on any registry's.
func (img *image) addReferrers(ctx context.Context) error {
	subjects := []string{img.Digest}
	for _, c := range img.Children {
		subjects = append(subjects, c.Digest)
	}
	known := map[string]bool{}
	for _, s := range subjects {
		known[s] = true
	}
	for depth := 1; len(subjects) > 0; depth++ {
		found, err := img.referrersOf(ctx, subjects)
		if err != nil {
			return err
		}
		if depth > maxReferrerDepth && len(found) > 0 {
			return img.refuse(found[0].Subject, found[0].name(), fmt.Errorf("more than %d steps from the image: %w", maxReferrerDepth, ErrReferrerLimit))
		}
		if len(img.Referrers)+len(found) > manifest.MaxReferrers {
			return img.refuse(img.Digest, "", fmt.Errorf("%d artifacts, at most %d: %w", len(img.Referrers)+len(found), manifest.MaxReferrers, ErrReferrerLimit))
		}
		subjects = nil
		for _, r := range found {
			img.addReferrer(r)
			// A tag may lead to anything, even to the image itself: each is asked about once.
			if !known[r.Digest] {
				known[r.Digest] = true
				subjects = append(subjects, r.Digest)
			}
		}
	}
	return nil
}

// carry takes in what is about the image: what the lock pins or, where nothing does, whatever there is.
func (img *image) carry(ctx context.Context, pinned *[]manifest.Referrer) error {
	if pinned == nil {
		return img.addReferrers(ctx)
	}
	found := make([]*referrer, len(*pinned))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(listing)
	for i, want := range *pinned {
		g.Go(func() error {
			r, err := img.fetchReferrer(gctx, want.Digest, want.MediaType)
			if err != nil {
				return img.refuse(want.Subject, want.Digest, err)
			}
			r.Subject, r.Tag = want.Subject, want.Tag
			found[i] = r
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, r := range found {
		img.addReferrer(r)
	}
	return nil
}

func (r *referrer) name() string { return cmp.Or(r.Tag, r.Digest) }

func (img *image) refuse(subject, referrer string, err error) error {
	return &ReferrerError{img.Source, subject, referrer, err}
}

func (img *image) addReferrer(r *referrer) {
	img.Referrers = append(img.Referrers, r.Referrer)
	img.add(r.content)
	for _, d := range append([]manifest.Descriptor{r.parts.Config}, r.parts.Layers...) {
		img.attached = append(img.attached, stored(d))
		if d.Digest == emptyDigest {
			// Not all tools store what everybody knows (OCI image spec 1.1, "empty descriptor").
			img.raw[d.Digest] = []byte(emptyContent)
		}
	}
}

// The config of artifacts that have none (OCI image spec 1.1).
const (
	emptyContent = "{}"
	emptyDigest  = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
)

// referrersOf fetches what is about any of the subjects, in order.
func (img *image) referrersOf(ctx context.Context, subjects []string) ([]*referrer, error) {
	lists := make([][]*referrer, len(subjects))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(listing)
	for i, s := range subjects {
		g.Go(func() (err error) {
			lists[i], err = img.about(gctx, s)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	all := slices.Concat(lists...)
	slices.SortFunc(all, func(a, b *referrer) int {
		return cmp.Or(cmp.Compare(a.Subject, b.Subject), cmp.Compare(a.Tag, b.Tag), cmp.Compare(a.Digest, b.Digest))
	})
	return all, nil
}

// about fetches the manifests of all that is about one subject.
func (img *image) about(ctx context.Context, subject string) ([]*referrer, error) {
	list, _, err := img.repo.Referrers(ctx, subject)
	if err == nil && len(list) > manifest.MaxReferrers {
		err = fmt.Errorf("%d artifacts, at most %d: %w", len(list), manifest.MaxReferrers, ErrReferrerLimit)
	}
	if err != nil {
		return nil, img.refuse(subject, "", err)
	}
	var all []*referrer
	for _, l := range list {
		r, err := img.fetchReferrer(ctx, l.Digest, l.MediaType)
		if err == nil && r.parts.Subject != subject {
			err = fmt.Errorf("it says that it is about %q: %w", r.parts.Subject, ErrReferrerSubject)
		}
		if err != nil {
			return nil, img.refuse(subject, l.Digest, err)
		}
		r.Subject = subject
		all = append(all, r)
	}
	for _, ending := range manifest.ReferrerTags {
		tag := manifest.ReferrerTag(subject, ending)
		// Most images have none: asking is cheaper than reading.
		at, err := img.repo.ManifestDigest(ctx, tag)
		if err != nil {
			return nil, img.refuse(subject, tag, err)
		}
		if at == "" {
			continue
		}
		r, err := img.fetchReferrer(ctx, at, "")
		if err != nil {
			return nil, img.refuse(subject, tag, err)
		}
		r.Subject, r.Tag = subject, tag
		all = append(all, r)
	}
	return all, nil
}

// fetchReferrer reads the manifest of an artifact. mediaType is what the list says, if it says so.
func (img *image) fetchReferrer(ctx context.Context, digest, mediaType string) (*referrer, error) {
	if mediaType != "" && !oci.IsImage(mediaType) {
		return nil, fmt.Errorf("it is a %q: %w", mediaType, oci.ErrUnsupported)
	}
	content, err := img.repo.Manifest(ctx, digest)
	if err != nil {
		return nil, err
	}
	if img.fetched.Add(content.Size) > maxReferrerBytes {
		return nil, fmt.Errorf("manifests of more than %d bytes: %w", maxReferrerBytes, ErrReferrerLimit)
	}
	if !oci.IsImage(content.MediaType) {
		return nil, fmt.Errorf("it is a %q: %w", content.MediaType, oci.ErrUnsupported)
	}
	parts, err := oci.ParseArtifact(content.Raw)
	if err != nil {
		return nil, err
	}
	return &referrer{manifest.Referrer{
		Digest: content.Digest, MediaType: content.MediaType, Size: content.Size, ArtifactType: parts.Type,
	}, content, parts}, nil
}
