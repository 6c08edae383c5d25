package bundle

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/manifest"
)

// hosts are the registries of everything that is certainly an image.
func (g *gathered) hosts(renderings []*rendering) (map[string]bool, error) {
	hosts := map[string]bool{}
	for _, all := range []map[string]*wanted{g.want, g.artifacts} {
		for _, w := range all {
			hosts[w.ref.Registry] = true
		}
	}
	for _, r := range renderings {
		uses, err := chart.FindImages(r.docs)
		if err != nil {
			return nil, &ChartError{r.release.from, r.release.line, err}
		}
		for _, u := range uses {
			if ref, err := oci.Normalize(u.Reference); err == nil {
				hosts[ref.Registry] = true
			}
		}
	}
	return hosts, nil
}

// place is a find, with what is known about where it is.
type place struct {
	ref    oci.Reference
	reason manifest.Reason
}

// decide sorts all finds: into what goes in, what is ignored, and what is not decided.
func (g *gathered) decide(renderings []*rendering) error {
	places, err := g.places(renderings)
	if err != nil {
		return err
	}
	d := &decisions{spec: g.spec, used: map[*Pattern]bool{}, ignored: map[string]*manifest.IgnoredImage{}}
	if err := d.parse(); err != nil {
		return err
	}
	// First what is certain: where it is named again, less certainly, that is no question any more.
	var later []place
	for _, p := range places {
		if p.reason.Confidence == manifest.Probable {
			later = append(later, p)
			continue
		}
		g.decideOne(d, p)
	}
	undecided, included := map[string]*FoundImage{}, map[string]string{}
	for _, p := range later {
		key := p.ref.String()
		if g.addToArtifact(p) {
			continue
		}
		if g.want[key] == nil || included[key] != "" {
			pattern := d.includes(p.ref)
			switch {
			case d.ignores(p):
				continue
			case pattern != "":
				p.reason.Pattern, included[key] = pattern, pattern
			default:
				if undecided[key] == nil {
					undecided[key] = &FoundImage{Reference: key}
				}
				add(&undecided[key].Reasons, p.reason)
				continue
			}
		}
		g.add(p)
	}
	g.survey.Undecided, g.survey.Ignored = []FoundImage{}, []manifest.IgnoredImage{}
	for _, u := range undecided {
		g.survey.Undecided = append(g.survey.Undecided, *u)
	}
	slices.SortFunc(g.survey.Undecided, byReference)
	for _, i := range d.ignored {
		g.survey.Ignored = append(g.survey.Ignored, *i)
	}
	slices.SortFunc(g.survey.Ignored, func(a, b manifest.IgnoredImage) int { return strings.Compare(a.Reference, b.Reference) })
	g.survey.Warnings = append(g.survey.Warnings, g.leftOut()...)
	if err := g.findUnused(undecided, d); err != nil {
		return err
	}
	g.survey.Warnings = append(g.survey.Warnings, d.unmatched()...)
	return nil
}

// leftOut says, in a line, which images are left out that are images for certain: a pattern may be
// broader than it was meant.
func (g *gathered) leftOut() []string {
	var names []string
	for i := range g.survey.Ignored {
		certain := func(r manifest.Reason) bool { return r.Confidence == "" }
		if slices.ContainsFunc(g.survey.Ignored[i].Reasons, certain) {
			names = append(names, g.survey.Ignored[i].Reference)
		}
	}
	if len(names) == 0 {
		return nil
	}
	line := fmt.Sprintf("ignoreImages leaves out what is certainly used: %s", strings.Join(names[:min(len(names), maxListed)], ", "))
	if n := len(names) - maxListed; n > 0 {
		line += fmt.Sprintf(", and %d more", n)
	}
	return []string{line}
}

// decideOne takes in what is certain, unless the spec ignores it.
func (g *gathered) decideOne(d *decisions, p place) {
	if g.addToArtifact(p) {
		return
	}
	if g.want[p.ref.String()] == nil && d.ignores(p) {
		return
	}
	g.add(p)
}

// addToArtifact notes the place where the spec has an artifact of that name: then it is no image.
func (g *gathered) addToArtifact(p place) bool {
	a := g.artifacts[p.ref.String()]
	if a != nil {
		add(&a.reasons, p.reason)
	}
	return a != nil
}

func (g *gathered) add(p place) {
	key := p.ref.String()
	w := g.want[key]
	if w == nil {
		w = &wanted{ref: p.ref, platforms: g.spec.Platforms}
		g.want[key] = w
	}
	add(&w.reasons, p.reason)
}

// add appends a reason that is not there yet, for another variant or version of Kubernetes.
func add(reasons *[]manifest.Reason, r manifest.Reason) {
	same := func(o manifest.Reason) bool {
		o.Variant = r.Variant
		return o == r
	}
	if len(*reasons) < manifest.MaxReasons && !slices.ContainsFunc(*reasons, same) {
		*reasons = append(*reasons, r)
	}
}

// places lists all finds of all releases, in the order of the releases and their documents.
func (g *gathered) places(renderings []*rendering) ([]place, error) {
	var all []place
	for _, r := range renderings {
		for _, f := range r.finds {
			p, ok, err := newPlace(r.release, f)
			if err != nil {
				return nil, err
			}
			if ok {
				p.reason.Variant = r.variant
				all = append(all, p)
			}
		}
	}
	for _, r := range g.releases {
		finds, warnings, err := r.chart.Declared()
		if err != nil {
			return nil, &ChartError{r.from, r.line, err}
		}
		for _, w := range warnings {
			g.survey.Warnings = append(g.survey.Warnings, fmt.Sprintf("chart %s: %s", r.Name, w))
		}
		for _, f := range finds {
			p, ok, err := newPlace(r, f)
			if err != nil {
				return nil, err
			}
			if ok {
				all = append(all, p)
			}
		}
	}
	return all, nil
}

// newPlace reads the reference of a find. What only may be an image, and cannot be one, is none.
func newPlace(r *packedRelease, f chart.Find) (place, bool, error) {
	ref, err := oci.Normalize(f.Reference)
	if err != nil && f.Probable {
		return place{}, false, nil
	}
	if err != nil {
		return place{}, false, &ChartError{r.from, r.line, &PlaceError{f.Object, f.Path, err}}
	}
	reason := manifest.Reason{Kind: manifest.ReasonChart, Chart: r.Name, Object: showable(f.Object), Path: showable(f.Path), Way: string(f.Way)}
	if f.Probable {
		reason.Confidence = manifest.Probable
	}
	return place{ref, reason}, true, nil
}

// maxShown is how long what a manifest shows may be, in bytes.
const maxShown = 1000

// showable is s without what cannot be shown, and not too long for a manifest.
func showable(s string) string {
	s = manifest.Showable(s)
	if len(s) > maxShown {
		s = strings.ToValidUTF8(s[:maxShown], "") + "…"
	}
	return s
}

// decisions are what a spec says about images that are found.
type decisions struct {
	spec            *Spec
	include, ignore []*Pattern
	texts           []string
	whys            []*IgnoreSpec
	used            map[*Pattern]bool
	ignored         map[string]*manifest.IgnoredImage
}

func (d *decisions) parse() error {
	for i := range d.spec.Images {
		if m := d.spec.Images[i].Match; m != "" {
			p, err := ParsePattern(m)
			if err != nil {
				return err
			}
			d.include, d.texts = append(d.include, p), append(d.texts, m)
		}
	}
	for i := range d.spec.IgnoreImages {
		p, err := ParsePattern(d.spec.IgnoreImages[i].Match)
		if err != nil {
			return err
		}
		d.ignore, d.whys = append(d.ignore, p), append(d.whys, &d.spec.IgnoreImages[i])
	}
	return nil
}

// includes returns the pattern that lets a reference in, or "".
func (d *decisions) includes(ref oci.Reference) string {
	for i, p := range d.include {
		if p.Matches(ref) {
			d.used[p] = true
			return d.texts[i]
		}
	}
	return ""
}

// ignores reports whether a place is to be left out, and takes it down.
func (d *decisions) ignores(p place) bool {
	for i, pattern := range d.ignore {
		if !pattern.Matches(p.ref) {
			continue
		}
		d.used[pattern] = true
		key := p.ref.String()
		if d.ignored[key] == nil {
			d.ignored[key] = &manifest.IgnoredImage{Reference: key, Pattern: d.whys[i].Match, Why: d.whys[i].Why}
		}
		add(&d.ignored[key].Reasons, p.reason)
		return true
	}
	return false
}

// MatchesReference reports whether a pattern, as the spec has it, matches a reference. What is no
// pattern, or no reference, matches nothing.
func MatchesReference(pattern, reference string) bool {
	p, err := ParsePattern(pattern)
	if err != nil {
		return false
	}
	ref, err := oci.Normalize(reference)
	return err == nil && p.Matches(ref)
}

// unmatched says which patterns are about nothing: charts move on, and typing errors happen.
func (d *decisions) unmatched() []string {
	var lines []string
	for i, p := range d.include {
		if !d.used[p] {
			lines = append(lines, fmt.Sprintf("images: match %q is about nothing that had to be decided", d.texts[i]))
		}
	}
	for i, p := range d.ignore {
		if !d.used[p] {
			lines = append(lines, fmt.Sprintf("ignoreImages: match %q is about nothing that was found (line %d of the spec)", d.whys[i].Match, d.whys[i].line))
		}
	}
	return lines
}

// findUnused asks the values of each chart for images that nothing uses.
func (g *gathered) findUnused(undecided map[string]*FoundImage, d *decisions) error {
	known := map[string][]oci.Reference{}
	keep := func(text string) {
		if ref, err := oci.Normalize(text); err == nil {
			name := ref.Registry + "/" + ref.Repository
			known[name] = append(known[name], ref)
		}
	}
	for k := range g.want {
		keep(k)
	}
	for k := range g.artifacts {
		keep(k)
	}
	for k := range undecided {
		keep(k)
	}
	for k := range d.ignored {
		keep(k)
	}
	used := func(text string) bool {
		ref, err := oci.Normalize(text)
		if err != nil {
			return true // no image that could be missing
		}
		if slices.ContainsFunc(known[ref.Registry+"/"+ref.Repository], func(k oci.Reference) bool { return sameVersion(k, ref) }) {
			return true
		}
		// What is ignored is not missed either, found or not.
		return slices.ContainsFunc(d.ignore, func(p *Pattern) bool {
			matches := p.Matches(ref)
			d.used[p] = d.used[p] || matches
			return matches
		})
	}
	g.survey.Unused = []UnusedImage{}
	for _, r := range g.releases {
		found, err := r.chart.UnusedImages(r.merged, used)
		if err != nil {
			return &ChartError{r.from, r.line, err}
		}
		for _, u := range found {
			if ref, err := oci.Normalize(u.Reference); err == nil {
				g.survey.Unused = append(g.survey.Unused, UnusedImage{ref.String(), r.Name, r.Key(), u.Path, u.Switch})
			}
		}
	}
	slices.SortStableFunc(g.survey.Unused, func(a, b UnusedImage) int {
		return cmp.Or(strings.Compare(a.Reference, b.Reference), strings.Compare(a.Release, b.Release), strings.Compare(a.Path, b.Path))
	})
	return nil
}

// sameVersion reports whether two references of one repository are about the same: by digest or tag.
// Charts put things before and behind tags ("v", "-alpine").
func sameVersion(a, b oci.Reference) bool {
	if a.Digest != "" && b.Digest != "" {
		return a.Digest == b.Digest
	}
	if a.Tag == "" || b.Tag == "" {
		return true
	}
	x, y := strings.TrimPrefix(a.Tag, "v"), strings.TrimPrefix(b.Tag, "v")
	return x == y || suffixed(x, y) || suffixed(y, x)
}

// suffixed reports whether long is short with something behind it that is no more of the version.
func suffixed(long, short string) bool {
	rest, ok := strings.CutPrefix(long, short)
	return ok && rest != "" && !strings.ContainsAny(rest[:1], "0123456789.")
}

// undecided returns an *UndecidedError where something has to be decided first.
func (g *gathered) undecided() error {
	if len(g.survey.Undecided) == 0 {
		return nil
	}
	return &UndecidedError{g.survey.Undecided}
}
