package install

import (
	"strings"

	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/manifest"
)

// places says where the images of a bundle are at the site, by the names that objects may have for
// them.
type places struct {
	// sources are by the vendor's references. What the vendor left out stands for itself.
	sources map[string]string
	// here are by names in the site's registry, which charts make that get the registry as a value; ""
	// where a name may mean more than one image.
	here map[string]string
	// left are the names of what the vendor left out.
	left map[string]bool
	// asWritten says that objects keep the names that they have: they are known, and lead to the images.
	asWritten bool
}

// newPlaces is for images of m that have been, or will be, seeded to t.
func newPlaces(m *manifest.Manifest, seeded []SeededImage, t Target) *places {
	p := &places{sources: map[string]string{}, here: map[string]string{}, left: map[string]bool{}}
	images := map[string]*manifest.Image{}
	for _, img := range m.AllImages() {
		images[img.Source] = img
	}
	for _, s := range seeded {
		p.sources[s.Source] = s.Target
		original := ""
		if img := images[s.Source]; img != nil {
			original = img.Digest
		}
		if ref, err := oci.Normalize(s.Source); err == nil {
			p.call(ref, t, s.Target, original, s.Digest)
		}
	}
	for i := range m.Ignored {
		source := m.Ignored[i].Reference
		p.sources[source], p.left[source] = source, true
		if ref, err := oci.Normalize(source); err == nil {
			p.call(ref, t, source, ref.Digest)
		}
	}
	return p
}

// call notes the names that a chart may make for an image when it gets the site's registry: with its
// tag, and with any of the digests that may stand for it.
func (p *places) call(ref oci.Reference, t Target, to string, digests ...string) {
	for _, repository := range ref.Repositories() {
		name := oci.Reference{Registry: t.Registry, Repository: t.path(repository), Tag: ref.Tag}
		if name.Tag != "" {
			p.add(name.String(), to)
		}
		for _, digest := range digests {
			if digest != "" {
				p.add(oci.Reference{Registry: name.Registry, Repository: name.Repository, Tag: name.Tag, Digest: digest}.String(), to)
				p.add(oci.Reference{Registry: name.Registry, Repository: name.Repository, Digest: digest}.String(), to)
			}
		}
	}
}

func (p *places) add(name, to string) {
	known, taken := p.here[name]
	if !taken {
		p.here[name] = to
		return
	}
	// By tag and by digest it may be asked for twice, and be the same.
	_, a, pinned := strings.Cut(known, "@")
	if _, b, _ := strings.Cut(to, "@"); known != to && (!pinned || a != b) {
		p.here[name] = ""
	}
}

// find returns what a reference becomes. The vendor's names come first: a bundle may hold images that
// came from this very registry.
func (p *places) find(ref oci.Reference) (string, bool) {
	if to, ok := p.sources[ref.String()]; ok {
		return to, true
	}
	to := p.here[ref.String()]
	return to, to != ""
}
