package bundle

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/progress"
	"github.com/sealift/sealift/manifest"
)

// Discovery is every image that a spec leads to, and why, before any registry is asked about one.
// All lists are in the order of the references.
type Discovery struct {
	// Images are those that go in.
	Images []FoundImage `json:"images"`
	// Undecided are probably images: nothing is packed until the spec says what they are.
	Undecided []FoundImage `json:"undecided"`
	// Ignored are left out, because the spec says so.
	Ignored []manifest.IgnoredImage `json:"ignored"`
	// Unused are named by the values of charts, and no object uses them: possibly missing.
	Unused []UnusedImage `json:"possiblyMissing"`
	// Warnings are what else is strange, a line each.
	Warnings []string `json:"warnings"`

	parameters []manifest.Parameter
}

// FoundImage is an image and all places that name it.
type FoundImage struct {
	Reference string            `json:"reference"`
	Reasons   []manifest.Reason `json:"reasons"`
}

// UnusedImage is an image that the values of a chart name, and that no object uses with the values
// for which the chart was rendered.
type UnusedImage struct {
	Reference string `json:"reference"`
	Chart     string `json:"chart"`
	Release   string `json:"release"`
	// Path is where the values name it, Switch what may turn it on.
	Path   string   `json:"path"`
	Switch []string `json:"switch"`
}

// UndecidedError says that there are texts which are probably images, and that the spec does not say
// whether they are.
type UndecidedError struct{ Images []FoundImage }

// maxListed is how many things an error lists.
const maxListed = 8

// Error lists the first of them with the first place of each.
func (e *UndecidedError) Error() string {
	n := len(e.Images)
	s := fmt.Sprintf("%d references are probably images, and the spec does not say whether to pack them:", n)
	if n == 1 {
		s = "one reference is probably an image, and the spec does not say whether to pack it:"
	}
	for i := range e.Images[:min(n, maxListed)] {
		img := &e.Images[i]
		s += fmt.Sprintf("\n  %s (%s)", img.Reference, describeReason(&img.Reasons[0]))
	}
	if n > maxListed {
		s += fmt.Sprintf("\n  and %d more", n-maxListed)
	}
	return s
}

// describeReason says where a place is.
func describeReason(r *manifest.Reason) string {
	s := fmt.Sprintf("%s of %s in chart %s", r.Path, r.Object, r.Chart)
	if r.Variant != "" {
		s += " with " + r.Variant
	}
	return s
}

// PlaceError says that a place of a chart that has to name an image does not.
type PlaceError struct {
	Object, Path string
	Err          error
}

// Error names the place.
func (e *PlaceError) Error() string { return fmt.Sprintf("%s of %s: %v", e.Path, e.Object, e.Err) }

// Unwrap returns the cause.
func (e *PlaceError) Unwrap() error { return e.Err }

// RenderingError says with which values, and for which Kubernetes, a chart cannot be rendered.
type RenderingError struct {
	// Values are the files, in the order in which they count; none means those of the chart alone.
	Values     []string
	Kubernetes string
	// Lines say where the values are that a schema refuses, as "values.yaml:3".
	Lines []string
	Err   error
}

// Error is that of Helm, with the values.
func (e *RenderingError) Error() string {
	with := "its own values"
	if len(e.Values) > 0 {
		with = strings.Join(e.Values, ", ")
	}
	s := fmt.Sprintf("rendering with %s for Kubernetes %s: %v", with, e.Kubernetes, e.Err)
	if len(e.Lines) > 0 {
		s += " (" + strings.Join(e.Lines, ", ") + ")"
	}
	return s
}

// Unwrap returns the cause.
func (e *RenderingError) Unwrap() error { return e.Err }

// Discover fetches and renders the charts of s and finds their images. Errors: *ChartError,
// *ValuesError, *FileSpecError, *DependsOnError, *CycleError and what they wrap.
func Discover(ctx context.Context, s *Spec, o Options) (*Discovery, error) {
	g, err := gather(ctx, s, o)
	if err != nil {
		return nil, err
	}
	return g.discovery(), nil
}

// discovery sorts what was found.
func (g *gathered) discovery() *Discovery {
	d := &g.survey
	d.Warnings = append([]string{}, d.Warnings...)
	d.Images = []FoundImage{}
	for ref, w := range g.want {
		d.Images = append(d.Images, FoundImage{ref, w.reasons})
	}
	slices.SortFunc(d.Images, byReference)
	return d
}

func byReference(a, b FoundImage) int { return strings.Compare(a.Reference, b.Reference) }

// rendering is one way to render one release.
type rendering struct {
	release    *packedRelease
	files      []chart.ValuesFile
	variant    string
	kubernetes string
	// upgrade says that an earlier revision is there: charts may have hooks for that.
	upgrade bool
	// set are values that a site may say; choice says that it has to choose them.
	set    []trial
	choice bool
	docs   []byte
	finds  []chart.Find
	// warning is why there are no docs, tooLarge what there is too much of.
	warning, tooLarge string
}

// discover renders every release in every way that the spec asks for, and finds the images.
func (g *gathered) discover(ctx context.Context) error {
	renderings, err := g.renderings()
	if err != nil {
		return err
	}
	task := g.o.Progress.Start("finding images", int64(len(renderings)), progress.Items)
	defer task.Done()
	if err := g.each(ctx, renderings, func(ctx context.Context, r *rendering) error {
		defer task.Add(1)
		return r.render(ctx)
	}); err != nil {
		return err
	}
	g.survey.Warnings = append(g.survey.Warnings, renderWarnings(renderings)...)
	renderings = distinct(renderings)
	// What only may be an image is told by the registries that others are in.
	hosts, err := g.hosts(renderings)
	if err != nil {
		return err
	}
	if err := g.each(ctx, renderings, func(_ context.Context, r *rendering) (err error) {
		r.finds, err = chart.Discover(r.docs, hosts)
		r.docs = nil // it may be large, and there are many
		return err
	}); err != nil {
		return err
	}
	if err := g.decide(renderings); err != nil {
		return err
	}
	return g.tryRegistryValues(ctx, renderings)
}

// RegistryValuesError says that a chart which gets the site's registry makes a reference of it that
// no image has there.
type RegistryValuesError struct {
	Release, Reference, Object, Path string
}

// Error names the place.
func (e *RegistryValuesError) Error() string {
	return fmt.Sprintf("with the registry of a site in the values that registryValues names, release %s uses %q (%s of %s), which is none of the images", e.Release, e.Reference, e.Path, e.Object)
}

// tryRegistryValues renders the charts that get the site's registry with one, in every way that differs,
// and checks that what they make of it is known: the site would refuse it.
func (g *gathered) tryRegistryValues(ctx context.Context, renderings []*rendering) error {
	var mu sync.Mutex
	bare := map[*packedRelease]bool{}
	err := g.each(ctx, slices.DeleteFunc(slices.Clone(renderings), func(r *rendering) bool { return len(r.release.RegistryValues) == 0 }), func(ctx context.Context, r *rendering) error {
		err := g.tryRegistry(ctx, r, samplePrefix)
		var unknown *RegistryValuesError
		if !errors.As(err, &unknown) || g.tryRegistry(ctx, r, "") != nil {
			return err
		}
		mu.Lock()
		bare[r.release] = true
		mu.Unlock()
		return nil
	})
	for _, p := range g.releases {
		if bare[p] {
			g.survey.Warnings = append(g.survey.Warnings, fmt.Sprintf("release %s: registryValues lead to the images only where a site has them in its registry without a prefix", p.id()))
		}
	}
	return err
}

// tryRegistry renders a release with a registry below which the images are at prefix.
func (g *gathered) tryRegistry(ctx context.Context, r *rendering, prefix string) error {
	values, err := r.values()
	if err != nil {
		return err
	}
	for _, v := range r.release.RegistryValues {
		to := map[string]string{manifest.RegistryWhole: strings.TrimSuffix(sampleHost+"/"+prefix, "/"), manifest.RegistryHost: sampleHost, manifest.RegistryPrefix: prefix}[v.Gets]
		if err := chart.SetValue(values, v.Path, to); err != nil {
			return err
		}
	}
	docs, err := r.with(ctx, values)
	if err != nil {
		return &RenderingError{Values: []string{"registryValues"}, Kubernetes: r.kubernetes, Err: err}
	}
	finds, err := chart.Discover(docs, map[string]bool{sampleHost: true})
	if err != nil {
		return err
	}
	for _, f := range finds {
		ref, err := oci.Normalize(f.Reference)
		if !f.Probable && (err != nil || !g.knowsAtSite(ref, prefix)) {
			return &RegistryValuesError{r.release.id(), f.Reference, f.Object, f.Path}
		}
	}
	return nil
}

// knowsAtSite reports whether a reference is that of something in the bundle, or left out of it: by its
// own name, or by that in the sample registry below prefix.
func (g *gathered) knowsAtSite(ref oci.Reference, prefix string) bool {
	path, below := ref.Repository, true
	if prefix != "" {
		path, below = strings.CutPrefix(ref.Repository, prefix+"/")
	}
	means := func(source oci.Reference) bool {
		if ref.Registry != sampleHost {
			return source == ref
		}
		name := below && (source.Repository == path || source.Registry == "docker.io" && source.Repository == "library/"+path)
		return name && (source.Tag == ref.Tag && ref.Tag != "" || ref.Digest != "" && (source.Digest == "" || source.Digest == ref.Digest))
	}
	for _, all := range []map[string]*wanted{g.want, g.artifacts} {
		for _, w := range all {
			if means(w.ref) {
				return true
			}
		}
	}
	return slices.ContainsFunc(g.survey.Ignored, func(i manifest.IgnoredImage) bool {
		source, err := oci.Normalize(i.Reference)
		return err == nil && means(source)
	})
}

// renderWarnings are what came up while rendering, each once; that a release is too large once for all
// the ways to render it.
func renderWarnings(list []*rendering) []string {
	var lines []string
	large := map[*packedRelease]bool{}
	for _, r := range list {
		if r.warning != "" && !slices.Contains(lines, r.warning) {
			lines = append(lines, r.warning)
		}
		if r.tooLarge != "" && !large[r.release] {
			large[r.release] = true
			lines = append(lines, r.tooLarge)
		}
	}
	return lines
}

// distinct leaves out what has been rendered to the same documents before: most versions of Kubernetes
// and most choices make no difference.
func distinct(list []*rendering) []*rendering {
	type key struct {
		release *packedRelease
		digest  string
	}
	seen := map[key]bool{}
	return slices.DeleteFunc(list, func(r *rendering) bool {
		k := key{r.release, manifest.Digest(r.docs)}
		twice := seen[k]
		seen[k] = true
		return twice || r.docs == nil
	})
}

// each calls f for all renderings, several at a time.
func (g *gathered) each(ctx context.Context, list []*rendering, f func(context.Context, *rendering) error) error {
	eg, gctx := errgroup.WithContext(ctx)
	eg.SetLimit(runtime.GOMAXPROCS(0))
	for _, r := range list {
		eg.Go(func() error {
			if err := f(gctx, r); err != nil {
				return &ChartError{r.release.from, r.release.line, err}
			}
			return nil
		})
	}
	err := eg.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// renderings lists in which ways the releases are rendered: for each version of Kubernetes, with the
// vendor's values, and with each variant on top of them.
func (g *gathered) renderings() ([]*rendering, error) {
	versions := g.spec.Kubernetes.Versions
	if len(versions) == 0 {
		versions = []string{chart.DefaultKubeVersion}
	}
	if r := g.spec.Requires; r != nil && r.Kubernetes != "" {
		for _, v := range versions {
			ok, err := chart.InRange(r.Kubernetes, v)
			if err != nil {
				return nil, err
			}
			if !ok {
				return nil, &KubernetesError{v, r.Kubernetes}
			}
		}
	}
	var list []*rendering
	for _, p := range g.releases {
		defaults, choices, err := g.said(p)
		if err != nil {
			return nil, err
		}
		for _, v := range versions {
			list = append(list, &rendering{release: p, files: p.values, kubernetes: v, set: defaults})
			for _, variant := range p.variants {
				list = append(list, &rendering{release: p, files: append(slices.Clone(p.values), variant), variant: variant.Name, kubernetes: v, set: defaults})
			}
			for _, t := range choices {
				name := fmt.Sprintf("parameter %s=%v", t.parameter, t.value)
				list = append(list, &rendering{release: p, files: p.values, variant: name, kubernetes: v, set: t.but(defaults), choice: true})
			}
		}
	}
	// After all first installations: what these name as well is told of them.
	for _, r := range slices.Clone(list) {
		if !r.release.Plain {
			later := *r
			later.upgrade, later.variant = true, strings.TrimPrefix(r.variant+", "+onUpgrade, ", ")
			list = append(list, &later)
		}
	}
	return list, nil
}

// said are the values that a release gets from parameters where the site says nothing, and those among
// which it can choose: of parameters with a list, and of switches.
func (g *gathered) said(p *packedRelease) (defaults, choices []trial, err error) {
	trials, err := siteTrials(g.survey.parameters, p.id(), nil)
	for _, t := range trials {
		if t.always {
			defaults = append(defaults, t)
		} else {
			choices = append(choices, t)
		}
	}
	return defaults, choices, err
}

// onUpgrade is the variant of what only an upgrade uses.
const onUpgrade = "upgrade"

// KubernetesError says that charts were to be rendered for a version that the spec excludes.
type KubernetesError struct{ Version, Range string }

// Error names both.
func (e *KubernetesError) Error() string {
	return fmt.Sprintf("charts are rendered for Kubernetes %s, which requires.kubernetes %q excludes", e.Version, e.Range)
}

// values are those that the release is rendered with.
func (r *rendering) values() (map[string]any, error) {
	values, err := chart.MergeValues(r.files)
	if err != nil {
		return nil, err
	}
	for _, t := range r.set {
		if err := t.set(values); err != nil {
			return nil, err
		}
	}
	return values, nil
}

// with renders the release with values.
func (r *rendering) with(ctx context.Context, values map[string]any) ([]byte, error) {
	p := r.release
	return p.chart.Render(ctx, chart.RenderOptions{
		Release: p.Release, Namespace: p.Namespace, Values: values, KubeVersion: r.kubernetes, APIVersions: p.apiVersions, IsUpgrade: r.upgrade,
	})
}

func (r *rendering) render(ctx context.Context) error {
	values, err := r.values()
	if err != nil {
		return err
	}
	p := r.release
	r.docs, err = r.with(ctx, values)
	var failed *chart.RenderError
	var refused *chart.SchemaError
	switch {
	case r.choice && (errors.As(err, &failed) || errors.As(err, &refused)):
		// Something else is wanted with this choice, which the site may say.
		r.docs, r.warning = nil, fmt.Sprintf("release %s: what %s uses could not be looked for, since the chart does not render with it alone: %v", p.id(), r.variant, err)
		return nil
	case r.upgrade && errors.As(err, &failed):
		// Charts look up what is installed, and some refuse to go on without it.
		r.docs, r.warning = nil, fmt.Sprintf("release %s: what only an upgrade uses could not be looked for, since the chart does not render for one here: %v", p.id(), failed.Err)
		return nil
	}
	if err != nil {
		e := &RenderingError{Kubernetes: r.kubernetes, Lines: r.lines(err), Err: err}
		for _, f := range r.files {
			e.Values = append(e.Values, f.Name)
		}
		return e
	}
	if size, err := p.chart.RecordSize(r.docs); err != nil {
		return err
	} else if size > chart.MaxRecord {
		r.tooLarge = fmt.Sprintf("release %s: the record that Helm keeps of it takes about %d bytes, and Kubernetes takes %d: it cannot be installed as one release", p.id(), size, chart.MaxRecord)
	}
	for _, job := range p.jobs {
		r.docs = append(append(append(r.docs, "\n---\n"...), job...), '\n')
	}
	return nil
}

// lines finds the values that a schema refuses: in the last file that has them, which is the one
// that counts.
func (r *rendering) lines(err error) []string {
	var schema *chart.SchemaError
	if !errors.As(err, &schema) {
		return nil
	}
	var lines []string
	for _, place := range schema.Places {
		for _, f := range slices.Backward(r.files) {
			if n := chart.LineOf(f.Data, place); n > 0 {
				lines = append(lines, fmt.Sprintf("%s:%d", f.Name, n))
				break
			}
		}
	}
	return lines
}

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
				g.survey.Unused = append(g.survey.Unused, UnusedImage{ref.String(), r.Name, r.id(), u.Path, u.Switch})
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
