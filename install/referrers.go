package install

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/progress"
	"github.com/sealift/sealift/manifest"
)

// Actions of a SeededReferrer beyond those of a SeededImage, for a tag under which the site has
// something of its own already.
const (
	// ActionMerged says that what travels was added to it, ActionMerge that it would be.
	ActionMerged = "merged"
	ActionMerge  = "merge"
	// ActionKept says that the tag stays as it is and what travels is found by its digest only:
	// under such a tag there can be one SBOM, else cosign finds none.
	ActionKept = "kept"
)

// sbomTag ends the tags of SBOMs.
const sbomTag = ".sbom"

// mergeTries is how often a tag that others write to as well is merged anew.
const mergeTries = 5

// SeededReferrer is a signature, attestation, SBOM or other artifact about an image.
type SeededReferrer struct {
	// Image is the source of the image that it travels with.
	Image   string `json:"image"`
	Subject string `json:"subject"`
	Digest  string `json:"digest"`
	// ArtifactType is empty where it says none, Tag where it is found by its subject.
	ArtifactType string `json:"artifactType,omitempty"`
	Tag          string `json:"tag,omitempty"`
	Action       string `json:"action"`
	// Stored is the digest that the tag has, where that is not Digest: of what travels and what the
	// site had, in one, or of what the site had.
	Stored string `json:"stored,omitempty"`
	// Unverifiable says that what it is about is not at the site: the original of an index for
	// which a derived one, or the image of one platform, stands.
	Unverifiable bool `json:"unverifiable,omitempty"`
}

// UnverifiableImage is an image at the site of which signatures of the original do not hold.
type UnverifiableImage struct {
	Source string `json:"source"`
	// Signed is the digest that was signed, Digest the one that is at the site.
	Signed string `json:"signed"`
	Digest string `json:"digest"`
	// Referrers is how many artifacts are about the digest that is not there.
	Referrers int `json:"referrers"`
}

// MergeError says that a tag of the registry under which signatures belong stands for something
// that they cannot be added to.
type MergeError struct {
	Reference string
	Err       error
}

// Error names the tag.
func (e *MergeError) Error() string {
	return fmt.Sprintf("adding signatures to %q: %v", e.Reference, e.Err)
}

// Unwrap returns the cause.
func (e *MergeError) Unwrap() error { return e.Err }

// errContended is why signatures could not be added to a tag.
var errContended = errors.New("others keep writing it")

// about is what one repository is to hold about one subject. Its items are sent one after the
// other, since they may share a tag.
type about struct {
	path, subject string
	items         []*attached
}

// attached is one referrer on its way to a repository.
type attached struct {
	manifest.Referrer
	root *rootState
	// action is one of ActionPresent, ActionSeed, ActionMerge and ActionKept until it is sent.
	action, stored string
	// there says of one that is not to have its tag that its digest is there.
	there bool
}

// needed reports whether something is to be sent.
func (a *attached) needed() bool {
	return a.action != ActionPresent && (a.action != ActionKept || !a.there)
}

// gather groups the referrers of all images by repository and subject, each once.
func (s *Seeding) gather() {
	groups := map[string]*about{}
	for _, r := range s.roots {
		for _, ref := range r.referrers {
			key := r.path + " " + ref.Subject
			g := groups[key]
			if g == nil {
				g = &about{path: r.path, subject: ref.Subject}
				groups[key] = g
				s.abouts = append(s.abouts, g)
			}
			same := func(o *attached) bool { return o.Digest == ref.Digest && o.Tag == ref.Tag }
			if !slices.ContainsFunc(g.items, same) {
				g.items = append(g.items, &attached{Referrer: ref, root: r})
			}
		}
	}
}

// askReferrers finds out what of the referrers is there.
func (s *Seeding) askReferrers(ctx context.Context) error {
	s.gather()
	return each(ctx, asking, s.abouts, func(ctx context.Context, _ int, g *about) error {
		repo := g.items[0].root.repo
		listed, proven, err := g.listed(ctx, repo)
		if err != nil {
			return err
		}
		for _, a := range g.items {
			if a.Tag != "" {
				err = s.askTagged(ctx, repo, a)
			} else {
				err = a.ask(ctx, repo, listed[a.Digest], proven)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// listed asks which referrers the registry lists for g's subject, if any of g is found that way;
// proven says that what is listed is there.
func (g *about) listed(ctx context.Context, repo *oci.Repository) (listed map[string]bool, proven bool, err error) {
	if !slices.ContainsFunc(g.items, func(a *attached) bool { return a.Tag == "" }) {
		return nil, false, nil
	}
	list, viaAPI, err := repo.Referrers(ctx, g.subject)
	if err != nil {
		return nil, false, err
	}
	listed = map[string]bool{}
	for _, l := range list {
		listed[l.Digest] = true
	}
	return listed, viaAPI, nil
}

// ask decides about a referrer that is found by its subject. A list under a tag proves nothing: it
// may have outlived what it lists.
func (a *attached) ask(ctx context.Context, repo *oci.Repository, listed, proven bool) error {
	a.action = ActionSeed
	if listed && !proven {
		at, err := repo.ManifestDigest(ctx, a.Digest)
		if err != nil {
			return err
		}
		proven = at != ""
	}
	if listed && proven {
		a.action = ActionPresent
	}
	return nil
}

// askTagged decides about a referrer that is found by its tag.
func (s *Seeding) askTagged(ctx context.Context, repo *oci.Repository, a *attached) error {
	at, err := repo.ManifestDigest(ctx, a.Tag)
	if err != nil {
		return err
	}
	switch at {
	case "":
		a.action = ActionSeed
		return nil
	case a.Digest:
		a.action = ActionPresent
		return nil
	}
	ours, err := a.root.content(manifest.Descriptor{Digest: a.Digest, MediaType: a.MediaType, Size: a.Size})
	if err != nil {
		return err
	}
	theirs, err := repo.Manifest(ctx, at)
	if err != nil {
		return err
	}
	missing, covered, err := oci.MissingSignatures(ours, theirs)
	if err != nil {
		return &MergeError{s.tagReference(a), err}
	}
	switch {
	case missing == 0:
		a.action, a.stored = ActionPresent, at
	case covered || !strings.HasSuffix(a.Tag, sbomTag):
		a.action = ActionMerge
	default:
		found, err := repo.ManifestDigest(ctx, a.Digest)
		if err != nil {
			return err
		}
		a.action, a.stored, a.there = ActionKept, at, found != ""
	}
	return nil
}

func (s *Seeding) tagReference(a *attached) string {
	return s.o.Target.Registry + "/" + a.root.path + ":" + a.Tag
}

// collectReferrers lists the blobs of the referrers that are missing.
func (s *Seeding) collectReferrers() error {
	for _, g := range s.abouts {
		for _, a := range g.items {
			if !a.needed() {
				continue
			}
			raw, err := a.root.bundle.ReadBlob(a.Digest, manifest.MaxOCIManifestBytes)
			if err != nil {
				return err
			}
			img, err := oci.ParseImage(raw)
			if err != nil {
				return fmt.Errorf("referrer %s of %q: %w", a.Digest, a.root.source, err)
			}
			s.wants(a.root, img)
			if a.Tag != "" && img.Config.Size <= oci.MaxConfigBytes {
				s.keep[img.Config.Digest] = nil
			}
		}
	}
	return nil
}

// attach sends the referrers. What they consist of is there.
func (s *Seeding) attach(ctx context.Context, jobs int, task progress.Task) error {
	return each(ctx, jobs, s.abouts, func(ctx context.Context, _ int, g *about) error {
		repo := g.items[0].root.repo
		for _, a := range g.items {
			if !a.needed() {
				continue
			}
			c, err := a.root.content(manifest.Descriptor{Digest: a.Digest, MediaType: a.MediaType, Size: a.Size})
			if err != nil {
				return err
			}
			if a.Tag != "" {
				err = s.attachTagged(ctx, repo, a, c)
			} else if err = repo.PutReferrer(ctx, c); err == nil {
				a.action = ActionSeeded
				s.stored()
			}
			if err != nil {
				return err
			}
			task.Note(cmp.Or(a.Tag, a.Digest))
		}
		return nil
	})
}

// stored counts a manifest.
func (s *Seeding) stored() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.UploadedManifests++
}

// attachTagged brings a referrer under its tag, together with what the site has there: hours may
// have passed since that was asked for, and others may write it now.
func (s *Seeding) attachTagged(ctx context.Context, repo *oci.Repository, a *attached, ours *oci.Content) error {
	for range mergeTries {
		at, err := repo.ManifestDigest(ctx, a.Tag)
		if err != nil {
			return err
		}
		c := ours
		if at != "" && at != a.Digest {
			if c, err = s.merged(ctx, repo, a, ours, at); err != nil {
				return err
			}
		}
		if at == c.Digest {
			if c.Digest != a.Digest {
				a.stored = c.Digest
			}
			if a.action == ActionSeed || a.action == ActionMerge {
				a.action = ActionPresent
			}
			return nil
		}
		if err := repo.PutManifest(ctx, a.Tag, c); err != nil {
			return err
		}
		a.action = ActionSeeded
		if at != "" {
			a.action = ActionMerged
		}
		s.stored()
	}
	return &MergeError{s.tagReference(a), errContended}
}

// merged is what is to stand under a's tag, where the site has something there already; all that it
// names is in the registry.
func (s *Seeding) merged(ctx context.Context, repo *oci.Repository, a *attached, ours *oci.Content, at string) (*oci.Content, error) {
	c, err := repo.Manifest(ctx, at)
	if err != nil {
		return nil, err
	}
	refuse := func(err error) error { return &MergeError{s.tagReference(a), err} }
	missing, covered, err := oci.MissingSignatures(ours, c)
	switch {
	case err != nil:
		return nil, refuse(err)
	case missing == 0:
		return c, nil
	case covered:
		return ours, nil
	case strings.HasSuffix(a.Tag, sbomTag):
		if err := repo.PutManifest(ctx, a.Digest, ours); err != nil {
			return nil, err
		}
		a.action = ActionKept
		s.stored()
		return c, nil
	}
	us, them := &oci.Signatures{Content: ours}, &oci.Signatures{Content: c}
	if us.Config, err = s.ourConfig(a, ours); err != nil {
		return nil, err
	}
	parsed, err := oci.ParseImage(c.Raw)
	if err != nil {
		return nil, refuse(err)
	}
	if them.Config, err = repo.ReadBlob(ctx, parsed.Config, oci.MaxConfigBytes); err != nil {
		return nil, err
	}
	both, err := oci.MergeSignatures(us, them)
	if err != nil {
		return nil, refuse(err)
	}
	if !bytes.Equal(both.Config, them.Config) {
		d := manifest.Descriptor{Digest: manifest.Digest(both.Config), MediaType: parsed.Config.MediaType, Size: int64(len(both.Config))}
		if _, err := repo.PutBlob(ctx, d, "", oci.FromBytes(both.Config), func(int64) {}); err != nil {
			return nil, err
		}
		s.mu.Lock()
		s.stats.UploadedBlobs++
		s.stats.UploadedBytes += d.Size
		s.mu.Unlock()
	}
	return both.Content, nil
}

// ourConfig reads the config of a tagged referrer; of a stream it was kept when it passed. Where it
// is not to be had, that of the site stays as it is.
func (s *Seeding) ourConfig(a *attached, c *oci.Content) ([]byte, error) {
	parsed, err := oci.ParseImage(c.Raw)
	if err != nil {
		return nil, err
	}
	if a.root.bundle.IsStream() || parsed.Config.Size > oci.MaxConfigBytes {
		return s.keep[parsed.Config.Digest], nil
	}
	return a.root.bundle.ReadBlob(parsed.Config.Digest, oci.MaxConfigBytes)
}

// keeping reads a blob of a stream that is needed later, and gives it on.
func (s *Seeding) keeping(blob manifest.Blob, content io.Reader) (io.Reader, error) {
	if _, wanted := s.keep[blob.Digest]; !wanted {
		return content, nil
	}
	raw, err := io.ReadAll(content)
	if err != nil {
		return nil, err
	}
	s.keep[blob.Digest] = raw
	return bytes.NewReader(raw), nil
}

// reportReferrers says what became of the referrers, or would, in the order of the images.
func (s *Seeding) reportReferrers(r *SeedResult) {
	r.Referrers, r.Unverifiable = []SeededReferrer{}, []UnverifiableImage{}
	for _, g := range s.abouts {
		for _, a := range g.items {
			r.Referrers = append(r.Referrers, SeededReferrer{
				Image: a.root.source, Subject: a.Subject, Digest: a.Digest, ArtifactType: a.ArtifactType, Tag: a.Tag,
				Action: a.action, Stored: a.stored, Unverifiable: !a.root.atSite(a.Subject),
			})
		}
	}
	for _, root := range s.roots {
		n := 0
		for _, ref := range root.referrers {
			if ref.Subject == root.original {
				n++
			}
		}
		if n > 0 && root.original != root.top.Digest {
			r.Unverifiable = append(r.Unverifiable, UnverifiableImage{root.source, root.original, root.top.Digest, n})
		}
	}
}

// atSite reports whether what has this digest is among what is seeded for r.
func (r *root) atSite(digest string) bool {
	return digest == r.top.Digest ||
		slices.ContainsFunc(r.children, func(d manifest.Descriptor) bool { return d.Digest == digest }) ||
		slices.ContainsFunc(r.referrers, func(o manifest.Referrer) bool { return o.Digest == digest })
}
