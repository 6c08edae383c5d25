package install

import (
	"fmt"

	"github.com/sealift/sealift/internal/nodes"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/manifest"
)

// RenamedError says that an image has another tag at the site, by which mirrors cannot find it.
type RenamedError struct{ Source, Target string }

// Error names both.
func (e *RenamedError) Error() string {
	return fmt.Sprintf("%q is %q at the site: mirrors keep tags, and can lead to other repositories only", e.Source, e.Target)
}

// Mirrors says where the nodes of the site find what m names, in a registry that m was seeded to as t
// and mode say; at is how they reach it. Charts are not for nodes. rederived are the sources that have
// another digest there, where the reference of a pod finds nothing by its old one. Errors:
// *RenamedError, *nodes.FormatError, and those of Locate.
func Mirrors(m *manifest.Manifest, t Target, mode IndexMode, f nodes.Format, at nodes.Endpoint) (mirrors *nodes.Mirrors, rederived []string, err error) {
	located, err := Locate(m, t, mode)
	if err != nil {
		return nil, nil, err
	}
	var places []nodes.Place
	prefixes := map[string]nodes.Prefix{}
	for _, l := range located {
		if l.Chart {
			continue
		}
		ref, err := oci.Normalize(l.Source)
		if err != nil {
			return nil, nil, err
		}
		if ref.Tag != l.Tag {
			return nil, nil, &RenamedError{l.Source, fmt.Sprintf("%s/%s:%s", t.Registry, l.Repository, l.Tag)}
		}
		if l.Digest != l.Original {
			rederived = append(rederived, l.Source)
		}
		if prefix, all, ok := t.PrefixOf(ref.Registry); ok {
			prefixes[ref.Registry] = nodes.Prefix{Path: prefix, All: all}
		}
		places = append(places, nodes.Place{Registry: ref.Registry, Repository: ref.Repository, Path: l.Repository})
	}
	mirrors, err = nodes.New(f, m.Name, m.Version, places, prefixes, at)
	return mirrors, rederived, err
}
