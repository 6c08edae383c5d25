package bundle

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/sealift/sealift/internal/chart"
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
	// warning is why there are no docs, tooLarge what there is too much of, silence what the vendor should say.
	warning, tooLarge, silence string
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

// renderWarnings are what came up while rendering, each once; that a release is too large once for all
// the ways to render it.
func renderWarnings(list []*rendering) []string {
	var lines []string
	large, silent := map[*packedRelease]bool{}, map[*packedRelease]bool{}
	for _, r := range list {
		if r.warning != "" && !slices.Contains(lines, r.warning) {
			lines = append(lines, r.warning)
		}
		if r.tooLarge != "" && !large[r.release] {
			large[r.release] = true
			lines = append(lines, r.tooLarge)
		}
		if r.silence != "" && !silent[r.release] {
			silent[r.release] = true
			lines = append(lines, r.silence)
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
			plain := &rendering{release: p, files: p.values, kubernetes: v, set: defaults}
			list = append(append(list, plain), p.inEnvironments(plain)...)
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
	trials, err := siteTrials(g.survey.parameters, p.Key(), nil)
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
		r.docs, r.warning = nil, fmt.Sprintf("release %s: what %s uses could not be looked for, since the chart does not render with it alone: %v", p.Key(), r.variant, err)
		return nil
	case r.upgrade && errors.As(err, &failed):
		// Charts look up what is installed, and some refuse to go on without it.
		r.docs, r.warning = nil, fmt.Sprintf("release %s: what only an upgrade uses could not be looked for, since the chart does not render for one here: %v", p.Key(), failed.Err)
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
		r.tooLarge = fmt.Sprintf("release %s: the record that Helm keeps of it takes about %d bytes, and Kubernetes takes %d: it cannot be installed as one release", p.Key(), size, chart.MaxRecord)
	}
	if err := r.adviseRollback(); err != nil {
		return err
	}
	for _, job := range p.jobs {
		r.docs = append(append(append(r.docs, "\n---\n"...), job...), '\n')
	}
	return nil
}

// adviseRollback tells of hooks of an upgrade where the vendor does not say whether there is a way back over them.
func (r *rendering) adviseRollback() error {
	if !r.upgrade || r.release.Rollback != "" {
		return nil
	}
	hooks, err := chart.Hooks(r.docs)
	if err != nil {
		return err
	}
	for i := range hooks {
		if hooks[i].Runs("pre-upgrade", "post-upgrade") {
			r.silence = fmt.Sprintf("release %s: an upgrade runs the hook %s, and the spec does not say whether what it does can be undone: "+
				"rollback: safe, manual or forbidden. Without it sites have to accept each upgrade as one without a way back (--accept-no-return)", r.release.Key(), hooks[i].Object)
			return nil
		}
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
