package install

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/manifest"
)

// Reference is an image that an object will use.
type Reference struct {
	Reference string `json:"reference"`
	Release   string `json:"release"`
	Object    string `json:"object"`
	Path      string `json:"path"`
	// Carried says that the bundle has it, so that only the place could not be rewritten.
	Carried bool `json:"carried,omitempty"`
}

// NotThereError says that objects would use images that the registry does not have.
type NotThereError struct {
	Registry string
	Missing  []Reference
}

// maxListed is how many things an error lists.
const maxListed = 8

// Error lists the first of them.
func (e *NotThereError) Error() string {
	lines := []string{fmt.Sprintf("registry %s does not have what the releases use:", e.Registry)}
	for _, m := range e.Missing[:min(len(e.Missing), maxListed)] {
		lines = append(lines, fmt.Sprintf("%s (%s of %s in release %s)", m.Reference, m.Path, m.Object, m.Release))
	}
	if n := len(e.Missing) - maxListed; n > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", n))
	}
	return strings.Join(lines, "\n  ")
}

// CheckImages asks the registry for every image that the objects of a plan name, before a cluster
// is touched. It returns those that are elsewhere: what the vendor left out, what may be an
// image, and what is in the bundle, in a place that cannot be rewritten. Errors are *PreflightError with a *NotThereError, and *oci.Error.
func CheckImages(ctx context.Context, plans []ReleasePlan, seeded []SeededImage, target Target, client *oci.Client) (elsewhere []Reference, err error) {
	carried := map[string]bool{}
	for _, s := range seeded {
		carried[s.Source] = true
	}
	var here []Reference
	for i := range plans {
		p := &plans[i]
		finds, err := chart.Discover(p.docs, map[string]bool{target.Registry: true})
		if err != nil {
			return nil, err
		}
		for _, f := range finds {
			ref, err := oci.Normalize(f.Reference)
			if err != nil {
				continue // it was judged when the plan was made
			}
			r := Reference{ref.String(), p.Namespace + "/" + p.Release, f.Object, f.Path, carried[ref.String()]}
			switch {
			case ref.Registry != target.Registry && r.Carried && p.parts.asWritten:
				// As was asked for: the nodes have mirrors.
			case ref.Registry != target.Registry:
				elsewhere = append(elsewhere, r)
			// What was rewritten has a digest; other texts may be about anything.
			case !f.Probable || ref.Digest != "":
				here = append(here, r)
			}
		}
	}
	missing, err := absent(ctx, here, client)
	if err != nil {
		return nil, err
	}
	if len(missing) > 0 {
		return nil, &PreflightError{&NotThereError{target.Registry, missing}}
	}
	return elsewhere, nil
}

// absent returns those that the registry does not have. Each is asked for once.
func absent(ctx context.Context, references []Reference, client *oci.Client) ([]Reference, error) {
	var names []string
	for _, r := range references {
		names = append(names, r.Reference)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	there := make([]bool, len(names))
	err := each(ctx, asking, names, func(ctx context.Context, i int, name string) error {
		ref, err := oci.Normalize(name)
		if err != nil {
			return err
		}
		repo, err := client.Repository(ctx, ref.Registry, ref.Repository, false)
		if err != nil {
			return err
		}
		digest, err := repo.ManifestDigest(ctx, ref.Identifier())
		there[i] = digest != ""
		return err
	})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(references), func(r Reference) bool {
		at, _ := slices.BinarySearch(names, r.Reference)
		return there[at]
	}), nil
}

// OtherNamesError says that objects hold names of images in the site's registry under which it has
// nothing: a chart has put them together from the registry, in a place where names are not rewritten,
// and the site calls its images otherwise.
type OtherNamesError struct {
	Release string
	// Name is what stands there, Real what the image is called.
	Name, Real string
}

// Error names all of them.
func (e *OtherNamesError) Error() string {
	return fmt.Sprintf("release %s: its objects hold %q, in a place that is not rewritten; at this site that is %q", e.Release, e.Name, e.Real)
}

// CheckNames finds the names that charts make of the site's registry and that stay as they are, where
// the site calls these images otherwise (its mapping or rules). Errors are *PreflightError with an
// *OtherNamesError.
func CheckNames(plans []ReleasePlan, m *manifest.Manifest, t Target) error {
	there := map[string]bool{}
	made := map[string]string{}
	for _, img := range m.AllImages() {
		ref, err := oci.Normalize(img.Source)
		if err != nil {
			return err
		}
		path, _, err := t.place(ref.Registry, ref.Repository, ref.Tag)
		if err != nil {
			return err
		}
		there[path] = true
		for _, repository := range ref.Repositories() {
			made[t.path(repository)] = path
		}
	}
	for name, is := range made {
		if there[name] {
			continue
		}
		for i := range plans {
			if mentions(string(plans[i].docs), t.Registry+"/"+name) {
				return &PreflightError{&OtherNamesError{plans[i].Namespace + "/" + plans[i].Release, t.Registry + "/" + name, t.Registry + "/" + is}}
			}
		}
	}
	return nil
}

// mentions reports whether name stands in a text, and not only as a part of a longer one.
func mentions(text, name string) bool {
	for {
		i := strings.Index(text, name)
		if i < 0 {
			return false
		}
		before, after := byte(' '), byte(' ')
		if i > 0 {
			before = text[i-1]
		}
		text = text[i+len(name):]
		if len(text) > 0 {
			after = text[0]
		}
		if !isNameByte(before) && (!isNameByte(after) || after == '.' && (len(text) == 1 || !isNameByte(text[1]))) {
			return true
		}
	}
}

// isNameByte reports whether a byte may go on a name of a repository.
func isNameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("._-/", c) >= 0
}
