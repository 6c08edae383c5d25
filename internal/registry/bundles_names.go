package registry

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/manifest"
)

// ConflictError says that two bundles, or one, have different content under one name.
type ConflictError struct {
	// Name is the full reference, Digests are what it stands for in Bundles.
	Name             string
	Bundles, Digests [2]string
}

// Error names all of them.
func (e *ConflictError) Error() string {
	if e.Bundles[0] == e.Bundles[1] {
		return fmt.Sprintf("%q is both %s and %s in %q", e.Name, e.Digests[0], e.Digests[1], e.Bundles[0])
	}
	return fmt.Sprintf("%q is %s in %q and %s in %q", e.Name, e.Digests[0], e.Bundles[0], e.Digests[1], e.Bundles[1])
}

// dockerHub is the host of Docker Hub in references, dockerHubs what else clients call it.
const dockerHub = "docker.io"

var dockerHubs = []string{"index.docker.io", "registry-1.docker.io"}

// chartPath begins the names of charts, as seeding makes them.
const chartPath = "charts/"

// names are what can be asked for.
type names struct {
	// full are repositories by their names with the registry, or what is written instead of it; short
	// are those by their names without. Of charts, there is only the short name.
	full, short map[string][]*repository
	all         []*repository
	// manifests are the media types of all image manifests and indexes by digest.
	manifests map[string]string
	// referrers are what is about a digest and found by it, in the order of the digests.
	referrers map[string][]manifest.Referrer
}

// repository is what one repository had at its source.
type repository struct {
	// host is empty for a chart.
	host, path string
	tags       map[string]*tagged
	// indexes are those that may name images which do not travel.
	indexes []string
}

// tagged is what a tag stands for: one manifest, or several that cosign's tags of several bundles
// have, which are merged when they are asked for.
type tagged struct {
	repository *repository
	bundle     string
	manifests  []manifest.Descriptor
}

// name is the full name, as a client can write it.
func (r *repository) name() string {
	if r.host == "" {
		return r.path
	}
	return escapedHost(r.host) + "/" + r.path
}

// escapedHost makes a part of a path out of a registry with a port, as install.Rule does.
func escapedHost(host string) string {
	return strings.ToLower(strings.NewReplacer(":", "-", "[", "", "]", "").Replace(host))
}

func newNames(media []*medium) (*names, error) {
	n := &names{
		full: map[string][]*repository{}, short: map[string][]*repository{},
		manifests: map[string]string{}, referrers: map[string][]manifest.Referrer{},
	}
	byName := map[string]*repository{}
	for _, m := range media {
		if err := n.add(m, byName); err != nil {
			return nil, err
		}
	}
	for subject, list := range n.referrers {
		slices.SortFunc(list, func(a, b manifest.Referrer) int { return cmp.Compare(a.Digest, b.Digest) })
		n.referrers[subject] = slices.CompactFunc(list, func(a, b manifest.Referrer) bool { return a.Digest == b.Digest })
	}
	slices.SortFunc(n.all, func(a, b *repository) int { return cmp.Compare(a.name(), b.name()) })
	n.index()
	return n, nil
}

// index makes the repositories known by their names.
func (n *names) index() {
	for _, r := range n.all {
		paths := []string{r.path}
		if r.host == "" {
			n.short[r.path] = append(n.short[r.path], r)
			continue
		}
		hosts := []string{r.host}
		if r.host == dockerHub {
			hosts = append(hosts, dockerHubs...)
			paths = oci.Reference{Registry: r.host, Repository: r.path}.Repositories()
		} else if e := escapedHost(r.host); e != r.host {
			hosts = append(hosts, e)
		}
		for _, path := range paths {
			n.short[path] = append(n.short[path], r)
			for _, host := range hosts {
				n.full[host+"/"+path] = append(n.full[host+"/"+path], r)
			}
		}
	}
}

// add takes in what a bundle has.
func (n *names) add(m *medium, byName map[string]*repository) error {
	at := func(host, path string) *repository {
		key := strings.TrimPrefix(host+"/"+path, "/")
		if byName[key] == nil {
			byName[key] = &repository{host: host, path: path, tags: map[string]*tagged{}}
			n.all = append(n.all, byName[key])
		}
		return byName[key]
	}
	for _, b := range m.manifest.Blobs {
		if oci.IsIndex(b.MediaType) || oci.IsImage(b.MediaType) {
			n.manifests[b.Digest] = b.MediaType
		}
	}
	for _, img := range m.manifest.AllImages() {
		ref, err := oci.Normalize(img.Source)
		if err != nil {
			return fmt.Errorf("bundle %q: %w", m.path, err)
		}
		r := at(ref.Registry, ref.Repository)
		top := manifest.Descriptor{Digest: img.Digest, MediaType: img.MediaType, Size: img.Size}
		n.manifests[top.Digest] = top.MediaType
		if oci.IsIndex(top.MediaType) {
			r.indexes = append(r.indexes, top.Digest)
		}
		if d := img.Derived; d != nil {
			n.manifests[d.Digest] = d.MediaType
		}
		for _, c := range img.Children {
			n.manifests[c.Digest] = c.MediaType
		}
		if err := n.tag(m, r, ref.Tag, top, img.Referrers); err != nil {
			return err
		}
	}
	for i := range m.manifest.Charts {
		c := &m.manifest.Charts[i]
		n.manifests[c.Manifest.Digest] = c.Manifest.MediaType
		r := at("", chartPath+strings.ToLower(c.Name))
		if err := n.tag(m, r, strings.ReplaceAll(c.Version, "+", "_"), c.Manifest, c.Referrers); err != nil {
			return err
		}
		source, ok := strings.CutPrefix(c.Source, "oci://")
		ref, err := oci.Normalize(source)
		if !ok || err != nil {
			continue // it had no name in a registry
		}
		if err := n.tag(m, at(ref.Registry, ref.Repository), ref.Tag, c.Manifest, c.Referrers); err != nil {
			return err
		}
	}
	return nil
}

// tag gives r's tag, if it is not empty, to top, and adds what is about it.
func (n *names) tag(m *medium, r *repository, tag string, top manifest.Descriptor, referrers []manifest.Referrer) error {
	if t := r.tags[tag]; tag != "" && t == nil {
		r.tags[tag] = &tagged{repository: r, bundle: m.path, manifests: []manifest.Descriptor{top}}
	} else if tag != "" && t.manifests[0].Digest != top.Digest {
		name := strings.TrimPrefix(r.host+"/"+r.path, "/") + ":" + tag
		return &ConflictError{name, [2]string{t.bundle, m.path}, [2]string{t.manifests[0].Digest, top.Digest}}
	}
	for _, ref := range referrers {
		n.manifests[ref.Digest] = ref.MediaType
		if ref.Tag == "" {
			n.referrers[ref.Subject] = append(n.referrers[ref.Subject], ref)
			continue
		}
		d := manifest.Descriptor{Digest: ref.Digest, MediaType: ref.MediaType, Size: ref.Size}
		t := r.tags[ref.Tag]
		if t == nil {
			t = &tagged{repository: r, bundle: m.path}
			r.tags[ref.Tag] = t
		}
		if !slices.Contains(t.manifests, d) {
			t.manifests = append(t.manifests, d)
		}
	}
	return nil
}

// find returns the repositories that a name in a request means; ns is the registry that containerd
// says it is of. A full name means one repository, one without the registry may mean several.
func (n *names) find(name, ns string) []*repository {
	if ns == "" {
		if found := n.full[name]; found != nil {
			return found
		}
		return n.short[name]
	}
	if found := n.full[ns+"/"+name]; found != nil {
		return found
	}
	// With a prefix in the mirror's configuration the registry is said twice.
	var found []*repository
	for _, r := range n.full[name] {
		if r.host == ns || r.host == dockerHub && slices.Contains(dockerHubs, ns) {
			found = append(found, r)
		}
	}
	return found
}

// unknown says what there is instead of a name.
func (n *names) unknown(name, ns string) string {
	if ns != "" {
		name = ns + "/" + name
	}
	return fmt.Sprintf("no image, artifact or chart that is served here is called %s; /v2/_catalog lists all", quoted(name))
}

// tag returns what a tag stands for in the repositories that a name means. It is an error, in the
// words for the client, if that is not one thing.
func tag(found []*repository, tag string) (*tagged, error) {
	var t *tagged
	for _, r := range found {
		o := r.tags[tag]
		switch {
		case o == nil || t != nil && slices.Equal(t.manifests, o.manifests):
		case t != nil:
			return nil, fmt.Errorf("the tag %s stands for different images: say %s/… or %s/…", quoted(tag), t.repository.name(), o.repository.name())
		default:
			t = o
		}
	}
	return t, nil
}

// tagsOf are the tags of repositories in the order that the distribution spec demands: letters of
// either case together.
func tagsOf(found []*repository) []string {
	var all []string
	for _, r := range found {
		for tag := range r.tags {
			all = append(all, tag)
		}
	}
	slices.SortFunc(all, compareTags)
	return slices.Compact(all)
}

func compareTags(a, b string) int {
	return cmp.Or(cmp.Compare(strings.ToLower(a), strings.ToLower(b)), cmp.Compare(a, b))
}

// Name is what something that is served can be pulled as.
type Name struct {
	// Repository is the path below the host that serves, Tag may be empty.
	Repository, Tag, Digest string
}

// Names lists everything that has a tag, but for what is about other things, by its full name.
func (s *Bundles) Names() []Name {
	var all []Name
	for _, r := range s.names.all {
		for _, t := range tagsOf([]*repository{r}) {
			if !isReferrerTag(t) {
				all = append(all, Name{r.name(), t, r.tags[t].manifests[0].Digest})
			}
		}
	}
	return all
}

// isReferrerTag reports whether a tag is one that cosign makes of a digest.
func isReferrerTag(tag string) bool {
	return slices.ContainsFunc(manifest.ReferrerTags, func(ending string) bool {
		digest, ok := strings.CutSuffix(tag, ending)
		return ok && subjectOf(digest) != ""
	})
}

// subjectOf is the digest that a tag sha256-HEX is made of, "" for other tags.
func subjectOf(tag string) string {
	encoded, ok := strings.CutPrefix(tag, "sha256-")
	if digest := "sha256:" + encoded; ok && manifest.CheckDigest(digest) == nil {
		return digest
	}
	return ""
}
