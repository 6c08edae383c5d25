package install

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/progress"
)

// TagTakesImageError says that a registry has deleted an image with one of its tags, although others led to
// it. The image and these tags were put back.
type TagTakesImageError struct {
	Reference, Digest string
	// Back are the tags that were put back.
	Back []string
}

// Error names the tag.
func (e *TagTakesImageError) Error() string {
	if len(e.Back) == 0 {
		return fmt.Sprintf("the registry deleted %s of %s together with its tag, though something else needs it: it was put back", e.Digest, e.Reference)
	}
	return fmt.Sprintf("the registry deleted %s of %s together with its tag, though %d others led to it: these were put back", e.Digest, e.Reference, len(e.Back))
}

// backTime bounds how long it takes to delete one tag and to put back what went with it.
const backTime = 2 * time.Minute

// movedWhy is why a tag stays that was changed since it was looked at.
const movedWhy = "changed since it was looked at"

// Run removes what Preview says, and returns what was removed, also where it fails. Each tag, and before
// a manifest is deleted each tag of its repository, is asked for once more: what was changed meanwhile stays.
// Errors: *oci.Error, *NoTagDeletionError, *TagTakesImageError.
func (p *Pruning) Run(ctx context.Context) (*PruneResult, error) {
	done := p.result
	done.Tags, done.Manifests, done.Left = []PrunedTag{}, []PrunedDigest{}, slices.Clone(p.result.Left)
	task := p.o.Progress.Start("removing", int64(len(p.result.Tags)), progress.Items)
	defer task.Done()
	for _, r := range p.repos {
		if err := p.prune(ctx, r, &done, task); err != nil {
			return &done, err
		}
	}
	return &done, nil
}

// prune removes what goes from a repository.
func (p *Pruning) prune(ctx context.Context, r *prunedRepo, done *PruneResult, task progress.Task) error {
	var later []PrunedTag
	for _, t := range r.remove {
		if p.o.Force && slices.Contains(r.gone, t.Digest) {
			// It is deleted by its digest; a registry that takes the tags along needs nothing else.
			later = append(later, t)
			continue
		}
		gone, err := p.untag(ctx, r, t)
		if err != nil {
			return err
		}
		if !gone.removed {
			t.Why = gone.why
			done.Left = append(done.Left, t)
			continue
		}
		done.Tags = append(done.Tags, t)
		task.Add(1)
		task.Note(t.reference())
	}
	if !p.o.Force {
		return nil
	}
	return p.deleteGone(ctx, r, later, done, task)
}

// outcome is what became of a tag.
type outcome struct {
	removed bool
	why     string
}

// untag removes one tag, if it still leads to what it led to.
func (p *Pruning) untag(ctx context.Context, r *prunedRepo, t PrunedTag) (outcome, error) {
	now, err := r.ManifestDigest(ctx, t.Tag)
	switch {
	case err != nil:
		return outcome{}, err
	case now == "":
		delete(r.tags, t.Tag)
		return outcome{removed: true}, nil
	case now != t.Digest:
		return outcome{why: movedWhy}, nil
	case p.noTags:
		return outcome{why: "the registry deletes no tags by themselves, and others lead to the same image"}, nil
	}
	shared := sharing(r, t)
	var image *oci.Content
	// An image is needed without any tag, too: by an index that stays, or by pods.
	if needed := len(shared) > 0 || !slices.Contains(r.gone, t.Digest); needed && !p.tagsGo {
		if image, err = r.Manifest(ctx, t.Digest); err != nil {
			return outcome{}, err
		}
		// Whoever gives up now must not leave it deleted.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), backTime)
		defer cancel()
	}
	if err := r.DeleteManifest(ctx, t.Tag); errors.Is(err, oci.ErrNoDelete) {
		return p.cannot(t, err)
	} else if err != nil {
		return outcome{}, err
	}
	if now, err = r.ManifestDigest(ctx, t.Tag); err != nil {
		return outcome{}, err
	}
	if now == t.Digest {
		return p.cannot(t, errors.New("it said that it had deleted it, and has not"))
	}
	delete(r.tags, t.Tag)
	if image != nil {
		return outcome{removed: true}, p.putBack(ctx, r, t, image, shared)
	}
	return outcome{removed: true}, nil
}

// cannot is for registries that delete no tags: nothing can be done without Force.
func (p *Pruning) cannot(t PrunedTag, err error) (outcome, error) {
	if !p.o.Force {
		return outcome{}, &NoTagDeletionError{Reference: t.reference(), Err: err}
	}
	p.noTags = true
	return outcome{why: "the registry deletes no tags by themselves, and others lead to the same image"}, nil
}

// sharing are the other tags of the repository that lead to the same digest, and stay.
func sharing(r *prunedRepo, t PrunedTag) []string {
	var list []string
	for tag, digest := range r.tags {
		if digest == t.Digest && !slices.ContainsFunc(r.remove, func(other PrunedTag) bool { return other.Tag == tag }) {
			list = append(list, tag)
		}
	}
	slices.Sort(list)
	return list
}

// putBack makes sure that an image which other tags lead to has survived one of them. Some registries
// delete it together with any of its tags: then it is put back, and nothing more is deleted.
func (p *Pruning) putBack(ctx context.Context, r *prunedRepo, t PrunedTag, image *oci.Content, shared []string) error {
	var missing []string
	for _, tag := range shared {
		digest, err := r.ManifestDigest(ctx, tag)
		if err != nil {
			return err
		}
		if digest == "" {
			missing = append(missing, tag)
		}
	}
	there, err := r.ManifestDigest(ctx, t.Digest)
	if err != nil {
		return err
	}
	if len(missing) == 0 && there != "" {
		p.tagsGo = true
		return nil
	}
	for _, tag := range missing {
		err = errors.Join(err, r.PutManifest(ctx, tag, image))
	}
	if there == "" && len(missing) == 0 {
		err = r.PutManifest(ctx, t.Digest, image)
	}
	return errors.Join(&TagTakesImageError{t.reference(), t.Digest, missing}, err)
}

// deleteGone deletes the manifests of a repository that nothing needs, by their digests: what is about
// others first, and indexes before what they name, since registries refuse it the other way round.
func (p *Pruning) deleteGone(ctx context.Context, r *prunedRepo, tags []PrunedTag, done *PruneResult, task progress.Task) error {
	if len(r.gone) == 0 {
		return nil
	}
	stay, err := recheck(ctx, r, tags)
	if err != nil {
		return err
	}
	for _, digest := range deletable(r, stay) {
		if err := r.DeleteManifest(ctx, digest); errors.Is(err, oci.ErrNoDelete) {
			return &NoTagDeletionError{Reference: r.Path + "@" + digest, All: true, Err: err}
		} else if err != nil {
			return err
		}
		done.Manifests = append(done.Manifests, PrunedDigest{r.Path, digest, r.sizes[digest]})
		// Most registries delete the tags with it; others leave them behind, leading nowhere.
		for _, t := range slices.Concat(tags, r.about) {
			if t.Digest != digest {
				continue
			}
			if err := tagOf(ctx, r, t, done); err != nil {
				return err
			}
			task.Add(1)
			task.Note(t.reference())
		}
	}
	for _, t := range tags {
		if stay[t.Digest] != "" {
			t.Why = stay[t.Digest]
			done.Left = append(done.Left, t)
		}
	}
	return nil
}

// tagOf sees to a tag of a manifest that has been deleted.
func tagOf(ctx context.Context, r *prunedRepo, t PrunedTag, done *PruneResult) error {
	now, err := r.ManifestDigest(ctx, t.Tag)
	if err != nil {
		return err
	}
	switch now {
	case t.Digest:
		if err := r.DeleteManifest(ctx, t.Tag); err != nil && !errors.Is(err, oci.ErrNoDelete) {
			return err
		}
	case "":
	default:
		t.Why = movedWhy
		done.Left = append(done.Left, t)
		return nil
	}
	done.Tags = append(done.Tags, t)
	return nil
}

// recheck asks once more where all tags of a repository lead, and returns the digests that have to stay
// now, with the reasons: other tags lead to them.
func recheck(ctx context.Context, r *prunedRepo, tags []PrunedTag) (map[string]string, error) {
	names, err := r.Tags(ctx)
	if oci.IsNotFound(err) {
		names, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	now, err := r.digests(ctx, names)
	if err != nil {
		return nil, err
	}
	known := map[string]string{}
	for _, t := range slices.Concat(tags, r.about) {
		known[t.Tag] = t.Digest
	}
	seen := map[string]bool{}
	var order []string
	for _, tag := range slices.Sorted(maps.Keys(now)) {
		if at, ok := known[tag]; ok && at == now[tag] {
			continue
		}
		if at, ok := r.tags[tag]; ok && at == now[tag] && !slices.Contains(r.gone, at) {
			continue // it was looked at, and what it leads to stays anyway
		}
		if about := oci.TagSubject(tag); about != "" && slices.Contains(r.gone, about) {
			continue
		}
		if err := r.closure(ctx, now[tag], seen, &order); err != nil {
			return nil, err
		}
	}
	stay := map[string]string{}
	for _, digest := range order {
		stay[digest] = movedWhy
	}
	return stay, nil
}

// deletable are the manifests that go, in the order in which registries take it: what is about others
// before these, and an index before what it names.
func deletable(r *prunedRepo, stay map[string]string) []string {
	rank := func(digest string) int {
		n := r.named[digest]
		about := n != nil && n.Subject != "" || slices.ContainsFunc(r.about, func(t PrunedTag) bool { return t.Digest == digest })
		index := n != nil && len(n.Manifests) > 0
		switch {
		case about && index:
			return 0
		case about:
			return 1
		case index:
			return 2
		}
		return 3
	}
	list := slices.DeleteFunc(slices.Clone(r.gone), func(digest string) bool { return stay[digest] != "" })
	// gone is in the order of the ways from the tags: an index of indexes comes before these.
	slices.SortStableFunc(list, func(a, b string) int { return cmp.Compare(rank(a), rank(b)) })
	return list
}
