package install

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/sealift/sealift/internal/ledger"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/progress"
	"github.com/sealift/sealift/manifest"
)

// maxPruned bounds how many repositories are looked at.
const maxPruned = 20_000

// PruneOptions say which versions of bundles stay in a registry.
type PruneOptions struct {
	Client *oci.Client
	// Target is the registry, and the prefix below which all of it is looked at.
	Target Target
	// Names are the bundles; empty for all.
	Names []string
	// Keep is how many versions of each bundle stay for being the newest; at least 1.
	Keep int
	// Repositories are paths to look at besides those that Needed knows. Nil: those that the registry
	// lists.
	Repositories []string
	// Needed is what stays whatever its age.
	Needed Needed
	// OtherTags takes tags that lead to an image of a retired version for the vendor's, also where no
	// receipt says that they are.
	OtherTags bool
	// Force deletes manifests by digest: those of retired versions that nothing else needs, with what
	// is below them and about them.
	Force    bool
	Progress progress.Reporter
}

// Needed is what clusters need of a registry, and what is known of the tags in it.
type Needed struct {
	// Versions are the versions that stay, by the name of the bundle, each with the reason.
	Versions map[string]map[string]string
	// Digests stay with all tags that lead to them: of manifests, or of configs. Each has the reason.
	Digests map[string]string
	// Tags are "PATH:TAG" in the registry that stay, each with the reason.
	Tags map[string]string
	// Vendors are the tags that bundles are known to have set, as "PATH:TAG", with their digests.
	Vendors map[string]map[string]bool
}

// Add adds what another cluster needs.
func (n *Needed) Add(other Needed) {
	for name, versions := range other.Versions {
		for version, why := range versions {
			n.version(name, version, why)
		}
	}
	maps.Copy(n.Digests, other.Digests)
	maps.Copy(n.Tags, other.Tags)
	for key, digests := range other.Vendors {
		if n.Vendors[key] == nil {
			n.Vendors[key] = map[string]bool{}
		}
		maps.Copy(n.Vendors[key], digests)
	}
}

// NeededBy is what the states of bundles need of the registry: what is installed, what a transaction that
// is open is about, and, with history, what can be gone back to.
func NeededBy(states []*ledger.State, registry string, history bool) Needed {
	n := Needed{Versions: map[string]map[string]string{}, Digests: map[string]string{}, Tags: map[string]string{}, Vendors: map[string]map[string]bool{}}
	for _, s := range states {
		for i := range s.History {
			r := &s.History[i]
			n.receipt(r, registry, "", "")
			if history && r.Outcome == ledger.OutcomeDone {
				n.receipt(r, registry, s.Name, "can be gone back to")
			}
		}
		if s.Installed != nil {
			n.receipt(s.Installed, registry, s.Name, "installed")
		}
		if s.Open != nil {
			n.receipt(&s.Open.Receipt, registry, s.Name, "named by an install that has not ended")
			// What it goes back to.
			if was := s.Open.Receipt.Replaces; was != "" {
				n.version(s.Name, was, "named by an install that has not ended")
			}
		}
	}
	return n
}

func (n *Needed) version(name, version, why string) {
	if n.Versions[name] == nil {
		n.Versions[name] = map[string]string{}
	}
	n.Versions[name][version] = why
}

// receipt notes the tags of a receipt and, where there is a reason, that what it names stays.
func (n *Needed) receipt(r *ledger.Receipt, registry, name, why string) {
	if why != "" {
		n.version(name, r.Version, why)
	}
	for _, i := range r.Images {
		if why != "" {
			reason := fmt.Sprintf("%s %s is %s", name, r.Version, why)
			n.Digests[i.Digest] = reason
			for _, d := range i.Manifests {
				n.Digests[d] = reason
			}
		}
		ref, err := oci.Normalize(i.Target)
		if err != nil || ref.Registry != registry || ref.Tag == "" || i.Digest == "" {
			continue
		}
		key := ref.Repository + ":" + ref.Tag
		if n.Vendors[key] == nil {
			n.Vendors[key] = map[string]bool{}
		}
		n.Vendors[key][i.Digest] = true
	}
}

// Running adds what running pods use: references and image IDs, as the cluster has them.
func (n *Needed) Running(uses map[string]string) {
	for text, who := range uses {
		// Runtimes report "docker-pullable://NAME@DIGEST", NAME@DIGEST, or the digest of the config alone.
		_, digest, ok := strings.Cut(text, "@")
		if !ok {
			if i := strings.LastIndex(text, "sha256:"); i >= 0 {
				digest, ok = text[i:], true
			}
		}
		if ok && manifest.CheckDigest(digest) == nil {
			n.Digests[digest] = "used by " + who
			continue
		}
		// Nodes may know the registry by another name: what has the same path and tag stays.
		if ref, err := oci.Normalize(text); err == nil && ref.Tag != "" {
			n.Tags[ref.Repository+":"+ref.Tag] = "used by " + who
		}
	}
}

// PrunedTag is a tag and what becomes of it.
type PrunedTag struct {
	Repository string `json:"repository"`
	Tag        string `json:"tag"`
	Digest     string `json:"digest"`
	// Bundle and Version are set for tags that carry them in their name.
	Bundle  string `json:"bundle,omitempty"`
	Version string `json:"version,omitempty"`
	// Why it stays; empty for one that goes.
	Why string `json:"why,omitempty"`
}

func (t *PrunedTag) reference() string { return t.Repository + ":" + t.Tag }

// PrunedDigest is a manifest that nothing needs any more.
type PrunedDigest struct {
	Repository string `json:"repository"`
	Digest     string `json:"digest"`
	Bytes      int64  `json:"bytes"`
}

// VersionKept is a version of a bundle, and why it stays; Why is empty for one that goes.
type VersionKept struct {
	Bundle  string `json:"bundle"`
	Version string `json:"version"`
	Why     string `json:"why,omitempty"`
}

// PruneResult is what was removed from a registry, or would be.
type PruneResult struct {
	Registry string        `json:"registry"`
	Versions []VersionKept `json:"versions"`
	// Tags go; Manifests are those that nothing leads to then: with Force they go too, else they stay
	// until the registry removes what has no tag.
	Tags      []PrunedTag    `json:"tags"`
	Manifests []PrunedDigest `json:"manifests"`
	// Blobs counts those that only these manifests have, AtMost is how large they and the manifests are, in
	// bytes: blobs may be needed by repositories that were not looked at.
	Blobs  int   `json:"blobs"`
	AtMost int64 `json:"atMostBytes"`
	// Left are tags of retired versions that stay, and why.
	Left []PrunedTag `json:"left"`
	// Forced says that manifests were, or would be, deleted by digest.
	Forced bool `json:"forced"`
}

// NoRepositoriesError says that nobody knows which repositories to look at.
type NoRepositoriesError struct {
	Registry string
	Err      error
}

// Error names the registry.
func (e *NoRepositoriesError) Error() string {
	return fmt.Sprintf("registry %s does not list its repositories, and nothing else says which to look at: %v", e.Registry, e.Err)
}

// Unwrap returns the registry's answer.
func (e *NoRepositoriesError) Unwrap() error { return e.Err }

// NoTagDeletionError says that a registry deletes no tags by themselves.
type NoTagDeletionError struct {
	Reference string
	// All says that it deletes nothing at all.
	All bool
	Err error
}

// Error names the tag.
func (e *NoTagDeletionError) Error() string {
	if e.All {
		return fmt.Sprintf("the registry deletes nothing: tried with %s: %v", e.Reference, e.Err)
	}
	return fmt.Sprintf("the registry deletes no tags by themselves: tried with %s: %v", e.Reference, e.Err)
}

// Unwrap returns the registry's answer.
func (e *NoTagDeletionError) Unwrap() error { return e.Err }

// parseOwned reads a tag that ownedTag has made: sealift.NAME.VERSION.HEX. Of one that was cut the version
// is not known; then whole is false. ok says that it is such a tag.
func parseOwned(tag string) (name, version string, whole, ok bool) {
	rest, found := strings.CutPrefix(tag, "sealift.")
	at := strings.LastIndexByte(rest, '.')
	if !found || at < 0 || len(rest)-at-1 != 16 || strings.Trim(rest[at+1:], "0123456789abcdef") != "" {
		return "", "", false, false
	}
	rest = rest[:at]
	name, version, found = strings.Cut(rest, ".")
	if !found || manifest.CheckName(name) != nil {
		return "", "", false, false
	}
	// A version has no underscore: it was a plus.
	version = strings.ReplaceAll(version, "_", "+")
	if len("sealift.")+len(rest) >= ownedLimit {
		return name, version, false, true
	}
	return name, version, true, manifest.CheckVersion(version) == nil
}

// Pruning is a registry that has been looked at: what would go.
type Pruning struct {
	o     PruneOptions
	repos []*prunedRepo
	// kept has for each bundle and version why it stays, "" for those that go.
	kept   map[string]map[string]string
	result PruneResult
	// noTags is set once the registry has shown that it deletes no tags by themselves, tagsGo once it has
	// shown that it does, and leaves their manifests alone.
	noTags bool
	tagsGo bool
}

// prunedRepo is a repository with what was found in it.
type prunedRepo struct {
	*oci.Repository
	// tags are all of its tags, with their digests.
	tags map[string]string
	// named is what the manifests name that were read, sizes how large they are in bytes, both by digest.
	named map[string]*oci.Named
	sizes map[string]int64
	// lists are the referrers of digests, as far as they were asked.
	lists map[string][]string
	// remove are the tags that go, those of the vendor before those that carry the version: what was
	// interrupted is found by these the next time. about are tags that are about what goes.
	remove []PrunedTag
	about  []PrunedTag
	// gone are the manifests that nothing needs then, in the order in which they can be deleted.
	gone []string
}

// PreparePrune looks at a registry and decides what goes. It changes nothing. Errors: *oci.Error,
// *NoRepositoriesError.
func PreparePrune(ctx context.Context, o PruneOptions) (*Pruning, error) {
	if o.Keep < 1 {
		return nil, fmt.Errorf("pruning: %d versions to keep, at least 1 is kept", o.Keep)
	}
	p := &Pruning{o: o, kept: map[string]map[string]string{}, result: PruneResult{
		Registry: o.Target.String(), Versions: []VersionKept{}, Tags: []PrunedTag{}, Manifests: []PrunedDigest{}, Left: []PrunedTag{}, Forced: o.Force,
	}}
	paths, err := p.paths(ctx)
	if err != nil {
		return nil, err
	}
	task := o.Progress.Start("looking at the registry", int64(len(paths)), progress.Items)
	defer task.Done()
	repos := make([]*prunedRepo, len(paths))
	err = each(ctx, asking/2, paths, func(ctx context.Context, i int, path string) (err error) {
		defer task.Add(1)
		repos[i], err = p.look(ctx, path)
		return err
	})
	if err != nil {
		return nil, err
	}
	p.repos = slices.DeleteFunc(repos, func(r *prunedRepo) bool { return r == nil })
	p.decide()
	for _, r := range p.repos {
		if err := p.choose(ctx, r); err != nil {
			return nil, err
		}
	}
	if err := p.count(ctx); err != nil {
		return nil, err
	}
	return p, nil
}

// paths are the repositories to look at, below the prefix.
func (p *Pruning) paths(ctx context.Context) ([]string, error) {
	below := func(path string) bool {
		return p.o.Target.Prefix == "" || path == p.o.Target.Prefix || strings.HasPrefix(path, p.o.Target.Prefix+"/")
	}
	all := slices.Clone(p.o.Repositories)
	for key := range p.o.Needed.Vendors {
		path, _, _ := strings.Cut(key, ":")
		all = append(all, path)
	}
	if p.o.Repositories == nil {
		listed, err := p.o.Client.Catalog(ctx, p.o.Target.Registry)
		switch {
		case errors.Is(err, oci.ErrNoCatalog) && len(all) == 0:
			return nil, &NoRepositoriesError{p.o.Target.String(), err}
		case err != nil && !errors.Is(err, oci.ErrNoCatalog):
			return nil, err
		}
		all = append(all, listed...)
	}
	slices.Sort(all)
	all = slices.DeleteFunc(slices.Compact(all), func(path string) bool { return !below(path) })
	if len(all) > maxPruned {
		return nil, fmt.Errorf("pruning registry %q: it has %d repositories there, at most %d can be looked at: name a prefix", p.o.Target.String(), len(all), maxPruned)
	}
	return all, nil
}

// look reads the tags of a repository: nil where bundles have set none there.
func (p *Pruning) look(ctx context.Context, path string) (*prunedRepo, error) {
	repo, err := p.o.Client.Repository(ctx, p.o.Target.Registry, path, true)
	if err != nil {
		return nil, err
	}
	tags, err := repo.Tags(ctx)
	if oci.IsNotFound(err) { // a catalog goes on listing what is empty
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(tags, func(tag string) bool { _, _, _, ok := parseOwned(tag); return ok }) {
		return nil, nil
	}
	r := &prunedRepo{Repository: repo, named: map[string]*oci.Named{}, sizes: map[string]int64{}, lists: map[string][]string{}}
	if r.tags, err = r.digests(ctx, tags); err != nil {
		return nil, err
	}
	return r, nil
}

// digests asks what tags lead to. A tag that is gone meanwhile is left out.
func (r *prunedRepo) digests(ctx context.Context, tags []string) (map[string]string, error) {
	var mu sync.Mutex
	found := map[string]string{}
	err := each(ctx, asking/2, tags, func(ctx context.Context, _ int, tag string) error {
		digest, err := r.ManifestDigest(ctx, tag)
		if err != nil || digest == "" {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		found[tag] = digest
		return nil
	})
	return found, err
}

// read returns what a manifest names; nil where it is not there.
func (r *prunedRepo) read(ctx context.Context, digest string) (*oci.Named, error) {
	if n, ok := r.named[digest]; ok {
		return n, nil
	}
	c, err := r.Manifest(ctx, digest)
	if oci.IsNotFound(err) {
		r.named[digest] = nil
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	n, err := oci.ParseNamed(c.Raw)
	if err != nil {
		return nil, fmt.Errorf("reading manifest %s of %s: %w", digest, r.Path, err)
	}
	r.named[digest], r.sizes[digest] = n, c.Size
	return n, nil
}

// referrers returns the manifests that are about a digest, as the registry lists them.
func (r *prunedRepo) referrers(ctx context.Context, digest string) ([]string, error) {
	if list, ok := r.lists[digest]; ok {
		return list, nil
	}
	found, _, err := r.Referrers(ctx, digest)
	if err != nil && !errors.Is(err, oci.ErrUnsupported) {
		return nil, err
	}
	list := []string{}
	for _, l := range found {
		list = append(list, l.Digest)
	}
	r.lists[digest] = list
	return list, nil
}

// closure adds to seen all manifests that a digest leads to: those that it names, and those about it.
func (r *prunedRepo) closure(ctx context.Context, digest string, seen map[string]bool, order *[]string) error {
	queue := []string{digest}
	for len(queue) > 0 {
		d := queue[0]
		queue = queue[1:]
		if seen[d] {
			continue
		}
		named, err := r.read(ctx, d)
		if err != nil {
			return err
		}
		if named == nil {
			continue // of an index not all children need to be there
		}
		seen[d] = true
		*order = append(*order, d)
		for _, m := range named.Manifests {
			queue = append(queue, m.Digest)
		}
		about, err := r.referrers(ctx, d)
		if err != nil {
			return err
		}
		queue = append(queue, about...)
		for _, tag := range slices.Sorted(maps.Keys(r.tags)) {
			if oci.TagSubject(tag) == d {
				queue = append(queue, r.tags[tag])
			}
		}
	}
	return nil
}

// decide decides which versions stay.
func (p *Pruning) decide() {
	whole := map[string]map[string]bool{}
	for _, r := range p.repos {
		for tag := range r.tags {
			name, version, isWhole, ok := parseOwned(tag)
			if !ok {
				continue
			}
			if whole[name] == nil {
				whole[name] = map[string]bool{}
			}
			whole[name][version] = whole[name][version] || isWhole
		}
	}
	for _, name := range slices.Sorted(maps.Keys(whole)) {
		versions := slices.SortedFunc(maps.Keys(whole[name]), func(a, b string) int {
			if whole[name][a] && whole[name][b] {
				if c := manifest.CompareVersions(b, a); c != 0 {
					return c
				}
			}
			return cmp.Compare(b, a)
		})
		p.kept[name] = map[string]string{}
		newest := 0
		for _, v := range versions {
			why := p.o.Needed.Versions[name][v]
			switch {
			case !whole[name][v]:
				why = "its tag was cut, so that it cannot be told which version it is"
			case newest < p.o.Keep:
				newest++
				why = cmp.Or(why, "one of the newest")
			case len(p.o.Names) > 0 && !slices.Contains(p.o.Names, name):
				why = cmp.Or(why, "another bundle")
			}
			p.kept[name][v] = why
			p.result.Versions = append(p.result.Versions, VersionKept{name, v, why})
		}
	}
}

// needs is why a digest has to stay together with its tags; empty where nothing says so. What pods run, and
// receipts list, are images below an index as well.
func (p *Pruning) needs(ctx context.Context, r *prunedRepo, digest string) (string, error) {
	if why := p.o.Needed.Digests[digest]; why != "" {
		return why, nil
	}
	named, err := r.read(ctx, digest)
	if err != nil || named == nil {
		return "", err
	}
	if why := p.o.Needed.Digests[named.Config]; named.Config != "" && why != "" {
		return why, nil
	}
	for _, m := range named.Manifests {
		why, err := p.needs(ctx, r, m.Digest)
		if why != "" || err != nil {
			return why, err
		}
	}
	return "", nil
}

// choose chooses the tags of a repository that go.
func (p *Pruning) choose(ctx context.Context, r *prunedRepo) error {
	// by digest: why owned tags of kept versions hold it, and whether a retired version had it.
	held, retired := map[string]string{}, map[string]bool{}
	for tag, digest := range r.tags {
		name, version, _, ok := parseOwned(tag)
		if !ok {
			continue
		}
		if p.kept[name][version] != "" {
			held[digest] = max(held[digest], fmt.Sprintf("%s %s has it too", name, version))
		} else {
			retired[digest] = true
		}
	}
	var owned []PrunedTag
	for _, tag := range slices.Sorted(maps.Keys(r.tags)) {
		digest := r.tags[tag]
		if !retired[digest] || oci.TagSubject(tag) != "" {
			continue
		}
		t := PrunedTag{Repository: r.Path, Tag: tag, Digest: digest}
		name, version, _, isOwned := parseOwned(tag)
		if isOwned {
			if p.kept[name][version] != "" {
				continue
			}
			t.Bundle, t.Version = name, version
		}
		why, err := p.needs(ctx, r, digest)
		if err != nil {
			return err
		}
		t.Why = cmp.Or(why, p.o.Needed.Tags[t.reference()])
		if !isOwned && t.Why == "" {
			switch known := p.o.Needed.Vendors[t.reference()][digest]; {
			case held[digest] != "":
				t.Why = held[digest]
			case !known && !p.o.OtherTags:
				t.Why = "no receipt says that a bundle has set it"
			}
		}
		switch {
		case t.Why != "":
			p.result.Left = append(p.result.Left, t)
		case isOwned:
			owned = append(owned, t)
		default:
			r.remove = append(r.remove, t)
		}
	}
	// Last those by which the next run would find what this one has not come to.
	r.remove = append(r.remove, owned...)
	p.result.Tags = append(p.result.Tags, r.remove...)
	return p.orphans(ctx, r)
}

// orphans finds the manifests that nothing leads to without the tags that go.
func (p *Pruning) orphans(ctx context.Context, r *prunedRepo) error {
	if len(r.remove) == 0 {
		return nil
	}
	goes := map[string]bool{}
	for _, t := range r.remove {
		goes[t.Tag] = true
	}
	needed, candidates := map[string]bool{}, map[string]bool{}
	var order, ignored []string
	for _, t := range r.remove {
		if err := r.closure(ctx, t.Digest, candidates, &order); err != nil {
			return err
		}
	}
	roots := slices.Collect(maps.Keys(p.o.Needed.Digests))
	for tag, digest := range r.tags {
		// A tag that is about something stays, and keeps, as long as that does.
		if about := oci.TagSubject(tag); !goes[tag] && !candidates[about] {
			roots = append(roots, digest)
		}
	}
	slices.Sort(roots)
	for _, root := range slices.Compact(roots) {
		// What only has the same digest as a config elsewhere is not there.
		if p.o.Needed.Digests[root] != "" && !candidates[root] {
			continue
		}
		if err := r.closure(ctx, root, needed, &ignored); err != nil {
			return err
		}
	}
	r.gone = slices.DeleteFunc(order, func(d string) bool { return needed[d] })
	for _, tag := range slices.Sorted(maps.Keys(r.tags)) {
		if about := oci.TagSubject(tag); about != "" && slices.Contains(r.gone, about) && !needed[r.tags[tag]] {
			r.about = append(r.about, PrunedTag{Repository: r.Path, Tag: tag, Digest: r.tags[tag]})
		}
	}
	if p.o.Force {
		p.result.Tags = append(p.result.Tags, r.about...)
	}
	return nil
}

// count finds out how much becomes free: what nothing has that stays in the repositories that were looked at.
func (p *Pruning) count(ctx context.Context) error {
	type place struct{ path, digest string }
	gone := map[place]bool{}
	blobs, free := map[string]int64{}, map[string]int64{}
	for _, r := range p.repos {
		for _, d := range r.gone {
			gone[place{r.Path, d}] = true
			p.result.Manifests = append(p.result.Manifests, PrunedDigest{r.Path, d, r.sizes[d]})
			free[d] = r.sizes[d]
			for _, b := range r.named[d].Blobs {
				blobs[b.Digest] = b.Size
			}
		}
	}
	if len(gone) == 0 {
		return nil
	}
	for _, r := range p.repos {
		var all []string
		seen := map[string]bool{}
		for _, tag := range slices.Sorted(maps.Keys(r.tags)) {
			if err := r.closure(ctx, r.tags[tag], seen, &all); err != nil {
				return err
			}
		}
		for _, d := range all {
			if gone[place{r.Path, d}] {
				continue
			}
			delete(free, d)
			for _, b := range r.named[d].Blobs {
				delete(blobs, b.Digest)
			}
		}
	}
	p.result.Blobs = len(blobs)
	maps.Copy(free, blobs)
	for _, n := range free {
		p.result.AtMost += n
	}
	return nil
}

// Preview is what Run would do.
func (p *Pruning) Preview() *PruneResult {
	r := p.result
	return &r
}
