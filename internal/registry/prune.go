package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// PruneOptions say what is no longer needed.
type PruneOptions struct {
	// Now is the time.
	Now time.Time
	// UploadsOlder and BlobsOlder spare what was changed in the time before now: uploads that may
	// still go on, and blobs whose manifests may still come.
	UploadsOlder, BlobsOlder time.Duration
	// Untagged also removes manifests to which no tag leads, unless they are as new as BlobsOlder
	// spares.
	Untagged bool
	// DryRun removes nothing.
	DryRun bool
}

// PruneReport is what was removed, or would be.
type PruneReport struct {
	// Blobs are digests, sorted. The blobs of removed manifests are among them.
	Blobs []PrunedBlob
	// Manifests are those that were removed from their repository, sorted.
	Manifests []PrunedManifest
	// Uploads counts unfinished ones, Leftovers files that were never finished.
	Uploads, Leftovers int
	// Bytes is how much all of that is on the disk.
	Bytes int64
	// Kept counts the blobs that stay, KeptBytes how large they are.
	Kept      int
	KeptBytes int64
	// Unread are manifests that could not be read. What is in their repositories stays.
	Unread []UnreadManifest
}

// PrunedBlob is a blob that nothing names.
type PrunedBlob struct {
	Digest string
	Bytes  int64
}

// PrunedManifest is a manifest to which no tag leads.
type PrunedManifest struct {
	Repository, Digest string
	// Tags were those that only belonged to a manifest that is gone, as of signatures.
	Tags []string
}

// UnreadManifest is a manifest of which nobody knows what it names.
type UnreadManifest struct {
	Repository, Digest string
	Err                error
}

// NoStoreError says that a directory is not a store.
type NoStoreError struct{ Path string }

// Error names it.
func (e *NoStoreError) Error() string {
	return fmt.Sprintf("%q is not the store of a registry: it has no docker/registry/v2", e.Path)
}

// Prune removes from the store at dir what nothing needs: blobs that no manifest names, and uploads
// that were given up. A *BusyError says that others write to it, who do not hinder a dry run. Stopped
// in between, it has removed a part, and nothing that what is left would need.
//
// It does the work of distribution's own MarkAndSweep, which deletes manifests that refer to others
// and have no tag (signatures, by "subject"), blobs that a client has just sent, and nothing at all
// from a store in which one manifest cannot be read.
func Prune(ctx context.Context, dir string, o PruneOptions) (*PruneReport, error) {
	if info, err := os.Stat(filepath.Join(dir, contentDir)); err != nil || !info.IsDir() {
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			err = &NoStoreError{dir}
		}
		return nil, err
	}
	if !o.DryRun {
		lock, err := lockToPrune(dir)
		if err != nil {
			return nil, err
		}
		defer lock.release()
	}
	root, err := os.OpenRoot(filepath.Join(dir, contentDir))
	if err != nil {
		return nil, fmt.Errorf("pruning store %q: %w", dir, err)
	}
	defer func() { _ = root.Close() }() // it was only read
	p := &pruner{ctx: ctx, store: dir, root: root, o: o, report: &PruneReport{}, manifests: map[digest.Digest]*node{}, named: map[digest.Digest]bool{}}
	if err := p.run(); err != nil {
		return nil, fmt.Errorf("pruning store %q: %w", dir, err)
	}
	return p.report, nil
}

// pruner prunes one store.
type pruner struct {
	ctx   context.Context //nolint:containedctx // it prunes once
	store string
	// root is the content of the store.
	root   *os.Root
	o      PruneOptions
	report *PruneReport

	repositories []*stored
	// manifests are all that some repository has.
	manifests map[digest.Digest]*node
	// named are the digests that something kept names.
	named map[digest.Digest]bool
}

// stored is a repository.
type stored struct {
	name string
	// revisions are its manifests, with the time that they came.
	revisions map[digest.Digest]time.Time
	tags      map[string]digest.Digest
	// unread says that the names of one of its manifests are not known.
	unread bool
}

// node is a manifest and what it names.
type node struct {
	names   []digest.Digest
	subject digest.Digest
	err     error
	kept    bool
}

func (p *pruner) run() error {
	if err := p.find(); err != nil {
		return err
	}
	if len(p.repositories) == 0 {
		return p.nothing()
	}
	for _, r := range p.repositories {
		if err := p.read(r); err != nil {
			return err
		}
	}
	orphans := p.keep()
	// What refers to something goes before what it refers to, so that nothing is left that nobody
	// would find any more.
	for _, r := range p.repositories {
		if err := p.sweepManifests(r, orphans); err != nil {
			return err
		}
	}
	for _, r := range p.repositories {
		if err := p.sweepRepository(r); err != nil {
			return err
		}
	}
	return p.sweepBlobs()
}

// nothing is what is to be done in a store without repositories: nothing.
func (p *pruner) nothing() error {
	root := filepath.Join(p.store, contentDir, "blobs")
	algorithms, err := p.entries(root)
	if err != nil {
		return err
	}
	for _, algorithm := range algorithms {
		firsts, err := p.entries(filepath.Join(root, algorithm))
		if err != nil {
			return err
		}
		for _, first := range firsts {
			blobs, err := p.entries(filepath.Join(root, algorithm, first))
			if err != nil {
				return err
			}
			if len(blobs) > 0 {
				return &NoRepositoriesError{p.store}
			}
		}
	}
	return nil
}

// find lists the repositories.
func (p *pruner) find() error {
	root := filepath.Join(p.store, contentDir, "repositories")
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			if errors.Is(err, fs.ErrNotExist) {
				return nil // there are none, or it is being deleted
			}
			return err
		case p.ctx.Err() != nil:
			return p.ctx.Err()
		case e.Type()&fs.ModeSymlink != 0:
			return &SymlinkError{path}
		case !e.IsDir() || path == root:
			return nil
		case strings.HasPrefix(e.Name(), "_"):
			name, err := filepath.Rel(root, filepath.Dir(path))
			if err != nil {
				return err
			}
			name = filepath.ToSlash(name)
			if _, err := reference.WithName(name); err != nil {
				return fs.SkipDir // nothing that the registry has made
			}
			if n := len(p.repositories); n == 0 || p.repositories[n-1].name != name {
				p.repositories = append(p.repositories, &stored{name: name, revisions: map[digest.Digest]time.Time{}, tags: map[string]digest.Digest{}})
			}
			return fs.SkipDir
		}
		return nil
	})
	return err
}

// read reads the tags of a repository, and its manifests.
func (p *pruner) read(r *stored) error {
	dir := filepath.Join(repositoryPath(p.store, r.name), "_manifests")
	tags, err := p.entries(filepath.Join(dir, "tags"))
	if err != nil {
		return err
	}
	for _, tag := range tags {
		d, _, err := readLink(filepath.Join(dir, "tags", tag, "current", "link"))
		if err != nil {
			return err
		}
		if d != "" {
			r.tags[tag] = d
			p.manifest(r, d)
		}
	}
	err = p.links(filepath.Join(dir, "revisions"), func(d digest.Digest, _ string, age time.Time) error {
		r.revisions[d] = age
		p.manifest(r, d)
		return nil
	})
	if err != nil || !r.unread {
		return err
	}
	// Whatever the manifest names that cannot be read, it is among what the repository has.
	return p.links(layersOf(p.store, r.name), func(d digest.Digest, _ string, _ time.Time) error {
		p.named[d] = true
		return nil
	})
}

// layersOf is where a repository has the links to its blobs.
func layersOf(store, name string) string {
	return filepath.Join(repositoryPath(store, name), "_layers")
}

// manifest reads a manifest of a repository, once.
func (p *pruner) manifest(r *stored, d digest.Digest) {
	n, there := p.manifests[d]
	if !there {
		n = &node{}
		n.names, n.subject, n.err = readManifest(blobPath(p.store, d))
		p.manifests[d] = n
	}
	if n.err != nil && !errors.Is(n.err, fs.ErrNotExist) {
		r.unread = true
		unread := UnreadManifest{r.name, d.String(), n.err}
		if !slices.ContainsFunc(p.report.Unread, func(u UnreadManifest) bool { return u.Repository == unread.Repository && u.Digest == unread.Digest }) {
			p.report.Unread = append(p.report.Unread, unread)
		}
	}
}

// links calls f for the links below dir, which are at ALGORITHM/HEX/link, with what they lead to.
func (p *pruner) links(dir string, f func(d digest.Digest, path string, age time.Time) error) error {
	algorithms, err := p.entries(dir)
	if err != nil {
		return err
	}
	for _, algorithm := range algorithms {
		hexes, err := p.entries(filepath.Join(dir, algorithm))
		if err != nil {
			return err
		}
		for _, hex := range hexes {
			if err := p.ctx.Err(); err != nil {
				return err
			}
			path := filepath.Join(dir, algorithm, hex)
			d, age, err := readLink(filepath.Join(path, "link"))
			if err != nil {
				return err
			}
			if d == "" {
				continue
			}
			if err := f(d, path, age); err != nil {
				return err
			}
		}
	}
	return nil
}

// SymlinkError says that there is a symbolic link in the content of a store, where the registry makes
// none: what it leads to is not the store's.
type SymlinkError struct{ Path string }

// Error names it.
func (e *SymlinkError) Error() string {
	return fmt.Sprintf("%q is a symbolic link, which does not belong into a store", e.Path)
}

// NoRepositoriesError says that a store has blobs but no repository, as where the file system with the
// repositories is not mounted: all blobs would be removed.
type NoRepositoriesError struct{ Store string }

// Error names the store.
func (e *NoRepositoriesError) Error() string {
	return fmt.Sprintf("store %q has blobs but no repository: nothing is removed", e.Store)
}

// within is a path relative to the content of the store. No directory of it may be a symbolic link.
func (p *pruner) within(path string) (string, error) {
	base := filepath.Join(p.store, contentDir)
	rel, err := filepath.Rel(base, path)
	if err != nil {
		return "", err
	}
	at := base
	for part := range strings.SplitSeq(rel, string(filepath.Separator)) {
		at = filepath.Join(at, part)
		info, err := os.Lstat(at)
		if errors.Is(err, fs.ErrNotExist) || isNotDirectory(err) {
			break
		}
		if err != nil {
			return "", err
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			return "", &SymlinkError{at}
		}
	}
	return rel, nil
}

// entries are the names in a directory, sorted; none where there is no directory.
func (p *pruner) entries(dir string) ([]string, error) {
	if _, err := p.within(dir); err != nil {
		return nil, err
	}
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names := make([]string, len(list))
	for i, e := range list {
		names[i] = e.Name()
	}
	return names, nil
}

// maxLink bounds a link, in bytes: the digest of the longest algorithm.
const maxLink = 256

// readLink returns what a link leads to, "" where there is none, and when it was made.
func readLink(path string) (digest.Digest, time.Time, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) || isNotDirectory(err) {
		return "", time.Time{}, nil
	}
	if err != nil {
		return "", time.Time{}, err
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	if err != nil {
		return "", time.Time{}, err
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxLink))
	if err != nil {
		return "", time.Time{}, err
	}
	d, err := digest.Parse(string(raw))
	if err != nil {
		return "", time.Time{}, nil // a link that leads nowhere is none; distribution cannot follow it either
	}
	return d, info.ModTime(), nil
}

// readManifest returns all digests that a manifest names, whatever its kind, and its subject.
func readManifest(path string) (names []digest.Digest, subject digest.Digest, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = f.Close() }() // it was only read
	raw, err := io.ReadAll(io.LimitReader(f, maxContent+1))
	if err != nil {
		return nil, "", err
	}
	if len(raw) > maxContent {
		return nil, "", fmt.Errorf("a manifest of more than %d bytes", maxContent)
	}
	return parseManifest(raw)
}

// parseManifest is readManifest for bytes: image manifests and indexes of OCI, version 2 of Docker's,
// OCI artifacts, and version 1 of Docker's.
func parseManifest(raw []byte) (names []digest.Digest, subject digest.Digest, err error) {
	type descriptor struct {
		Digest digest.Digest `json:"digest"`
	}
	var m struct {
		Config    *descriptor  `json:"config"`
		Subject   *descriptor  `json:"subject"`
		Layers    []descriptor `json:"layers"`
		Manifests []descriptor `json:"manifests"`
		Blobs     []descriptor `json:"blobs"`
		FSLayers  []struct {
			BlobSum digest.Digest `json:"blobSum"`
		} `json:"fsLayers"`
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, "", fmt.Errorf("not a manifest: %w", err)
	}
	if m.Config != nil {
		names = append(names, m.Config.Digest)
	}
	for _, list := range [][]descriptor{m.Layers, m.Manifests, m.Blobs} {
		for _, d := range list {
			names = append(names, d.Digest)
		}
	}
	for _, l := range m.FSLayers {
		names = append(names, l.BlobSum)
	}
	if m.Subject != nil {
		subject = m.Subject.Digest
	}
	return names, subject, nil
}

// derivedTag is what a tag is called that belongs to another manifest: that of referrers, and cosign's.
var derivedTag = regexp.MustCompile(`^(sha256|sha512)-([0-9a-f]{64,128})(\.[A-Za-z0-9._-]+)?$`)

// tagSubject is the manifest that a tag belongs to, "" for a tag of its own.
func tagSubject(tag string) digest.Digest {
	m := derivedTag.FindStringSubmatch(tag)
	if m == nil {
		return ""
	}
	d := digest.NewDigestFromEncoded(digest.Algorithm(m[1]), m[2])
	if d.Validate() != nil {
		return ""
	}
	return d
}

// keep marks what is needed, and returns the tags that belong to manifests which are not: those are
// no reason to keep anything.
func (p *pruner) keep() (orphans map[*stored][]string) {
	var queue []digest.Digest
	add := func(d digest.Digest) {
		if n := p.manifests[d]; n != nil && !n.kept {
			n.kept = true
			queue = append(queue, d)
		}
	}
	// By what belongs to it: tags and referrers, in any repository.
	belongs := map[digest.Digest][]digest.Digest{}
	for d, n := range p.manifests {
		if n.subject != "" {
			belongs[n.subject] = append(belongs[n.subject], d)
		}
	}
	type tagged struct {
		in  *stored
		tag string
	}
	byTag := map[digest.Digest][]tagged{}
	for _, r := range p.repositories {
		for d, age := range r.revisions {
			if !p.o.Untagged || r.unread || p.isNew(age, p.o.BlobsOlder) {
				add(d)
			}
		}
		for tag, d := range r.tags {
			subject := tagSubject(tag)
			// A subject that is not in this store may be in another one, whose signatures are kept here.
			if subject == "" || p.manifests[subject] == nil {
				add(d)
				continue
			}
			belongs[subject] = append(belongs[subject], d)
			byTag[subject] = append(byTag[subject], tagged{r, tag})
		}
	}
	for len(queue) > 0 {
		d := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		p.named[d] = true
		n := p.manifests[d]
		for _, name := range n.names {
			p.named[name] = true
			add(name)
		}
		for _, b := range belongs[d] {
			add(b)
		}
	}
	orphans = map[*stored][]string{}
	for subject, tags := range byTag {
		if !p.manifests[subject].kept {
			for _, t := range tags {
				orphans[t.in] = append(orphans[t.in], t.tag)
			}
		}
	}
	return orphans
}

// isNew reports whether something is spared.
func (p *pruner) isNew(age time.Time, spare time.Duration) bool {
	return spare > 0 && age.After(p.o.Now.Add(-spare))
}

// sweepManifests removes from a repository the manifests that are not kept.
func (p *pruner) sweepManifests(r *stored, orphans map[*stored][]string) error {
	dir := filepath.Join(repositoryPath(p.store, r.name), "_manifests")
	gone := map[digest.Digest]*PrunedManifest{}
	for d := range r.revisions {
		if !p.manifests[d].kept {
			gone[d] = &PrunedManifest{Repository: r.name, Digest: d.String()}
		}
	}
	tags := orphans[r]
	slices.Sort(tags)
	for _, tag := range tags {
		// What the tag led to may be kept for another reason; the tag leads nowhere useful all the same,
		// but does no harm.
		if g := gone[r.tags[tag]]; g != nil {
			g.Tags = append(g.Tags, tag)
			if err := p.remove(filepath.Join(dir, "tags", tag)); err != nil {
				return err
			}
		}
	}
	for d, g := range gone {
		// Tags remember what they led to before.
		for tag := range r.tags {
			if err := p.remove(filepath.Join(dir, "tags", tag, "index", d.Algorithm().String(), d.Encoded())); err != nil {
				return err
			}
		}
		if err := p.remove(filepath.Join(dir, "revisions", d.Algorithm().String(), d.Encoded())); err != nil {
			return err
		}
		p.report.Manifests = append(p.report.Manifests, *g)
	}
	slices.SortFunc(p.report.Manifests, func(a, b PrunedManifest) int {
		return strings.Compare(a.Repository+"@"+a.Digest, b.Repository+"@"+b.Digest)
	})
	return nil
}

// remove removes what is at path, if there is anything and this is no rehearsal.
func (p *pruner) remove(path string) error {
	if p.o.DryRun {
		return nil
	}
	rel, err := p.within(path)
	if err != nil {
		return err
	}
	return p.root.RemoveAll(rel) // which leaves alone what is elsewhere, whoever puts links there now
}
