package install

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/progress"
	"github.com/sealift/sealift/internal/release"
	"github.com/sealift/sealift/internal/trust"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// MissingImageError says that an object would use an image that the bundle does not carry.
type MissingImageError struct {
	Reference string
	Chart     string
	Object    string
	Path      string
}

// Error names image, object and chart.
func (e *MissingImageError) Error() string {
	return fmt.Sprintf("image %q (%s of %s in chart %s) is not in the bundle", e.Reference, e.Path, e.Object, e.Chart)
}

// PreflightError says why an install is refused before anything was changed.
type PreflightError struct{ Err error }

// Error is that of the cause.
func (e *PreflightError) Error() string { return "refused before any change: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *PreflightError) Unwrap() error { return e.Err }

// Release is a release of the bundle, ready to be installed.
type Release struct {
	Name      string
	Namespace string
	Chart     *chart.Chart
	Values    map[string]any
	places    *places
	// requires is what the cluster must offer; nil for nothing.
	requires *manifest.Requires
	// rule is the one by which the bundle was accepted.
	rule *trust.Rule
}

// Releases reads the charts and values of b, whose images have been, or will be, seeded as
// images says. Errors of what the site says are *ParameterError.
func Releases(b *verify.Bundle, images []SeededImage, site Site) ([]*Release, error) {
	return releases(b, newPlaces(b.Manifest(), images, site.Target), site)
}

func releases(b *verify.Bundle, places *places, site Site) ([]*Release, error) {
	m := b.Manifest()
	texts, err := site.parameters(m)
	if err != nil {
		return nil, err
	}
	var all []*Release
	for i := range b.Manifest().Charts {
		mc := &b.Manifest().Charts[i]
		raw, err := b.ReadBlob(mc.Archive.Digest, manifest.MaxArchiveBytes)
		if err != nil {
			return nil, err
		}
		c, err := chart.Parse(raw)
		if err != nil {
			return nil, err
		}
		var files []chart.ValuesFile
		for _, v := range mc.Values {
			raw, err := b.ReadBlob(v.Digest, manifest.MaxValuesBytes)
			if err != nil {
				return nil, err
			}
			files = append(files, chart.ValuesFile{Name: v.Name, Data: raw})
		}
		values, err := chart.MergeValues(files)
		if err != nil {
			return nil, err
		}
		if err := site.apply(values, mc, m, texts); err != nil {
			return nil, fmt.Errorf("values of release %s/%s: %w", mc.Namespace, mc.Release, err)
		}
		all = append(all, &Release{
			Name: mc.Release, Namespace: mc.Namespace, Chart: c, Values: values, places: places,
			requires: m.Requires, rule: b.Rule(),
		})
	}
	return all, nil
}

// PostRender is what happens to rendered documents before they reach the cluster: images
// point to the target registry, pinned by digest, and objects that hold data are kept when a
// release goes. Hooks and tests pass here too. What only may be an image is rewritten where the
// bundle carries it, and else left alone; so is what the vendor left out. Where the nodes have the
// images under the vendor's names, all of these stay. Errors wrap *MissingImageError.
func (r *Release) PostRender(docs []byte) ([]byte, error) {
	docs, err := chart.RewriteImages(docs, func(use chart.Find) (string, error) {
		ref, err := oci.Normalize(use.Reference)
		if err != nil && use.Probable {
			return use.Reference, nil
		}
		if err != nil {
			return "", err
		}
		if to, ok := r.places.find(ref); ok {
			if r.places.asWritten {
				return use.Reference, nil
			}
			return to, nil
		}
		if use.Probable {
			return use.Reference, nil
		}
		return "", &MissingImageError{use.Reference, r.Chart.Name, use.Object, use.Path}
	})
	if err != nil {
		return nil, err
	}
	if err := r.checkLimits(docs); err != nil {
		return nil, err
	}
	return chart.KeepData(docs)
}

// checkLimits compares rendered objects with what the site's policy allows. Errors are
// *trust.ViolationError, or about documents that cannot be read.
func (r *Release) checkLimits(docs []byte) error {
	if r.rule == nil || r.rule.Limits.Empty() {
		return nil
	}
	l := r.rule.Limits
	limits := chart.Limits{
		Namespaces: l.Namespaces, Kinds: l.Kinds, ClusterScoped: l.ClusterScoped, NamespacedKinds: l.NamespacedKinds, PodSecurity: l.PodSecurity,
	}
	found, err := limits.Check(docs, r.Namespace, trust.MatchName)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return nil
	}
	e := &trust.ViolationError{Rule: r.rule.Name}
	for _, v := range found {
		text := v.Detail
		if v.Object != "" {
			text = v.Object + ": " + v.Detail
		}
		e.Violations = append(e.Violations, text)
	}
	return e
}

// render returns the objects as they would reach a cluster of kubeVersion that has the API
// versions apis besides those of Kubernetes itself.
func (r *Release) render(ctx context.Context, kubeVersion string, apis []string, upgrade bool) ([]byte, error) {
	docs, err := r.Chart.Render(ctx, chart.RenderOptions{
		Release: r.Name, Namespace: r.Namespace, Values: r.Values, KubeVersion: kubeVersion, APIVersions: apis, IsUpgrade: upgrade,
	})
	if err != nil {
		return nil, err
	}
	return r.PostRender(docs)
}

// VersionError says that the cluster's version is none that the bundle is made for.
type VersionError struct{ Got, Want string }

// Error names both.
func (e *VersionError) Error() string {
	return fmt.Sprintf("the cluster is Kubernetes %s, and the bundle requires %s", e.Got, e.Want)
}

// MissingAPIError says which APIs that the bundle requires the cluster does not serve.
type MissingAPIError struct{ Missing []string }

// Error lists them.
func (e *MissingAPIError) Error() string {
	return "the cluster does not serve what the bundle requires: " + strings.Join(e.Missing, ", ")
}

// suits compares a cluster with what is required; version is empty where none was asked.
func (r *Release) suits(version string, apis []string) error {
	if version == "" || r.requires == nil {
		return nil
	}
	if want := r.requires.Kubernetes; want != "" {
		ok, err := chart.InRange(want, version)
		if err != nil {
			return err
		}
		if !ok {
			return &VersionError{version, want}
		}
	}
	var missing []string
	for _, want := range r.requires.APIGroups {
		// "GROUP" is served where any of its versions is.
		served := func(api string) bool { return api == want || strings.HasPrefix(api, want+"/") }
		if !slices.ContainsFunc(apis, served) {
			missing = append(missing, want)
		}
	}
	if len(missing) > 0 {
		return &MissingAPIError{missing}
	}
	return nil
}

// ReleasePlan is what an install would do with one release.
type ReleasePlan struct {
	Release   string `json:"release"`
	Namespace string `json:"namespace"`
	Chart     string `json:"chart"`
	Version   string `json:"version"`
	// Action is "install" or "upgrade", or "install or upgrade" where no cluster was asked.
	Action string `json:"action"`
	// From is the revision that a failure would go back to.
	From *release.State `json:"from,omitempty"`
	// AsFirst says that the chart does not render for an upgrade without looking at the cluster, so
	// that the objects are those of a first installation.
	AsFirst bool `json:"asFirst,omitempty"`
	// Objects are the rewritten objects, as YAML documents, without what Secrets hold.
	Objects string `json:"objects"`
	// docs are the objects as they are.
	docs []byte
}

// Plan says what an install would do with the releases. cluster may be nil: then nothing is
// asked of it. It changes nothing. A release that cannot be rendered, or that would use images
// which the bundle does not carry, is a *PreflightError.
func Plan(ctx context.Context, releases []*Release, cluster *release.Cluster) ([]ReleasePlan, error) {
	version := ""
	var apis []string
	if cluster != nil {
		var err error
		if version, err = cluster.Version(ctx); err != nil {
			return nil, err
		}
		if apis, err = cluster.APIVersions(ctx); err != nil {
			return nil, err
		}
	}
	plans := []ReleasePlan{}
	for _, r := range releases {
		if err := r.suits(version, apis); err != nil {
			return nil, &PreflightError{err}
		}
		p := ReleasePlan{Release: r.Name, Namespace: r.Namespace, Chart: r.Chart.Name, Version: r.Chart.Version, Action: "install or upgrade"}
		if cluster != nil {
			state, err := cluster.Current(ctx, r.Name, r.Namespace)
			if release.IsForbidden(err) {
				return nil, &PreflightError{err}
			}
			if err != nil {
				return nil, err
			}
			p.From, p.Action = state, release.ActionInstall
			if state != nil {
				p.Action = release.ActionUpgrade
			}
		}
		docs, err := r.render(ctx, version, apis, p.From != nil)
		if is := (*chart.RenderError)(nil); p.From != nil && errors.As(err, &is) {
			// Charts look up what is installed, which a plan cannot show them, and some refuse to go
			// on without it. Then it is planned as it would be installed first.
			p.AsFirst = true
			docs, err = r.render(ctx, version, apis, false)
		}
		if err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			var violation *trust.ViolationError
			if errors.As(err, &violation) {
				return nil, fmt.Errorf("release %s/%s: %w", r.Namespace, r.Name, violation)
			}
			return nil, &PreflightError{fmt.Errorf("release %s/%s: %w", r.Namespace, r.Name, err)}
		}
		shown, err := chart.HideSecrets(docs)
		if err != nil {
			return nil, err
		}
		p.Objects, p.docs = string(shown), docs
		plans = append(plans, p)
	}
	return plans, nil
}

// Installed is what became of one release.
type Installed struct {
	Release   string `json:"release"`
	Namespace string `json:"namespace"`
	Action    string `json:"action"`
	Revision  int    `json:"revision"`
	From      int    `json:"from,omitempty"`
}

// FailedError says that an install failed after it had begun to change the cluster, and what
// became of the way back.
type FailedError struct {
	// Release that failed.
	Release, Namespace string
	Err                error
	// Diagnosis has a line for each pod that is not ready, and for warnings.
	Diagnosis []string
	// Back lists the releases that were taken back, last changed first.
	Back []string
	// Revert is set where the way back failed too; then the cluster is in between.
	Revert error
}

// Error says what failed, why, and what the state is now.
func (e *FailedError) Error() string {
	s := fmt.Sprintf("installing release %s/%s: %v", e.Namespace, e.Release, e.Err)
	for _, d := range e.Diagnosis {
		s += "\n  " + d
	}
	if len(e.Back) > 0 {
		s += "\nchanged back: " + strings.Join(e.Back, ", ")
	}
	if e.Revert != nil {
		s += fmt.Sprintf("\nchanging back failed: %v", e.Revert)
	}
	return s
}

// Unwrap returns the cause.
func (e *FailedError) Unwrap() []error {
	if e.Revert != nil {
		return []error{e.Err, e.Revert}
	}
	return []error{e.Err}
}

// ApplyOptions say how releases are installed.
type ApplyOptions struct {
	Cluster *release.Cluster
	// Timeout bounds the waiting for one release and, again, for its way back.
	Timeout  time.Duration
	Progress progress.Reporter
}

// revertGrace is added to the timeout of a way back, for what is not waiting, and for taking
// the lease of a release again where it was lost.
const revertGrace = 2 * time.Minute

// Apply installs or upgrades the releases in order. When one fails, or ctx ends, everything
// that this call changed goes back in reverse order, to the revisions recorded before, and
// the error is a *FailedError; errors of other types mean that nothing was changed, for
// example a *release.BusyError, where another install works on one of the releases. All
// releases are protected from others until the end, see package release.
func Apply(ctx context.Context, releases []*Release, o ApplyOptions) ([]Installed, error) {
	// All that can be known to fail is tried before the first change.
	if _, err := Plan(ctx, releases, o.Cluster); err != nil {
		return nil, err
	}
	task := o.Progress.Start("installing releases", int64(len(releases)), progress.Items)
	defer task.Done()
	changes := make([]change, 0, len(releases))
	defer func() {
		for _, c := range slices.Backward(changes) {
			c.operation.End(ctx)
		}
	}()
	for _, r := range releases {
		op, err := o.Cluster.Begin(ctx, release.Release{
			Name: r.Name, Namespace: r.Namespace, Chart: r.Chart, Values: r.Values, PostRender: r.PostRender, Timeout: o.Timeout,
		})
		if err != nil {
			return nil, err
		}
		changes = append(changes, change{release: r, operation: op})
	}
	var done []Installed
	for i := range changes {
		c := &changes[i]
		var err error
		if c.result, err = c.operation.Apply(ctx); err != nil {
			return nil, back(ctx, changes[:i+1], err, o)
		}
		in := Installed{Release: c.release.Name, Namespace: c.release.Namespace, Action: c.result.Action, Revision: c.result.Revision}
		if c.result.Previous != nil {
			in.From = c.result.Previous.Revision
		}
		done = append(done, in)
		task.Add(1)
		task.Note(fmt.Sprintf("%s/%s", c.release.Namespace, c.release.Name))
	}
	return done, nil
}

// change is what becomes of one release.
type change struct {
	release   *Release
	operation *release.Operation
	result    release.Result
}

// begun says that something was, or may have been, changed.
func (c change) begun() bool { return c.result.Action != "" }

// back takes all changes back, last first, also where ctx has ended. The last one is that which
// failed. It returns cause itself where there is nothing to take back.
func back(ctx context.Context, changes []change, cause error, o ApplyOptions) error {
	if !slices.ContainsFunc(changes, change.begun) {
		return cause
	}
	failed := changes[len(changes)-1]
	e := &FailedError{Release: failed.release.Name, Namespace: failed.release.Namespace, Err: cause}
	ctx = context.WithoutCancel(ctx)
	if failed.begun() {
		diagnose, cancel := context.WithTimeout(ctx, 15*time.Second)
		// What is wrong with the pods is the best that can be had, not what the error depends on.
		e.Diagnosis, _ = o.Cluster.Diagnose(diagnose, e.Namespace, e.Release)
		cancel()
	}
	task := o.Progress.Start("changing back", int64(len(changes)), progress.Items)
	defer task.Done()
	for _, c := range slices.Backward(changes) {
		if !c.begun() {
			task.Add(1)
			continue
		}
		name := c.release.Namespace + "/" + c.release.Name
		rctx, cancel := context.WithTimeout(ctx, o.Timeout+revertGrace)
		err := c.operation.Revert(rctx)
		cancel()
		if err != nil {
			e.Revert = errors.Join(e.Revert, fmt.Errorf("%s: %w", name, err))
			continue
		}
		if c.result.Previous != nil {
			name += fmt.Sprintf(" to revision %d", c.result.Previous.Revision)
		} else {
			name += " (uninstalled; data is kept)"
		}
		e.Back = append(e.Back, name)
		task.Add(1)
		task.Note(name)
	}
	return e
}
