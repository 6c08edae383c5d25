package install

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/internal/ledger"
	"github.com/sealift/sealift/internal/oci"
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
	// As is the name under which Helm gets it: Name, or for one that is rolled out beside its former version another.
	As string
	// Spec is what the vendor says of it.
	Spec   *manifest.Chart
	Chart  *chart.Chart
	Values map[string]any
	// Warnings say what the site has said and what does not count.
	Warnings []string
	// Rendering is how its objects are changed before they reach the cluster.
	Rendering Rendering
	bundle    *verify.Bundle
	places    *places
	// requires is what the cluster must offer; nil for nothing.
	requires *manifest.Requires
	// rule is the one by which the bundle was accepted.
	rule *trust.Rule
	// reads are the parameters that come from Secrets of the cluster, with these: they are as secret as those that the vendor calls so.
	reads map[string]SecretKey
	// front is how users are led to it, once CheckRollouts has found that they can be.
	front *ledger.Front
	// behind is what is behind a front by which users are shared out by numbers of pods; nil for others.
	behind *chart.Behind
}

// Releases reads the charts and values of b, whose images have been, or will be, seeded as
// images says. Errors of what the site says are *ParameterError.
func Releases(b *verify.Bundle, images []SeededImage, site Site) ([]*Release, error) {
	return releases(b, newPlaces(b.Manifest(), images, site.Target), site)
}

func releases(b *verify.Bundle, places *places, site Site) ([]*Release, error) {
	m := b.Manifest()
	if err := site.checkEnvironment(m); err != nil {
		return nil, err
	}
	if err := site.checkReleases(m); err != nil {
		return nil, err
	}
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
		vendor, err := site.vendorValues(mc, func(v manifest.ValuesFile) ([]byte, error) { return b.ReadBlob(v.Digest, manifest.MaxValuesBytes) })
		if err != nil {
			return nil, err
		}
		values, warnings, err := site.apply(vendor, mc, m, texts)
		if err != nil {
			return nil, fmt.Errorf("values of release %s/%s: %w", mc.Namespace, mc.Release, err)
		}
		unknown, err := site.unknown(c, mc.Key(), vendor)
		if err != nil {
			return nil, err
		}
		warnings = append(warnings, unknown...)
		if err := site.checkValues(c, mc.Key(), values); err != nil {
			return nil, err
		}
		all = append(all, &Release{
			Name: mc.Release, Namespace: mc.Namespace, As: mc.Release, Spec: mc, Chart: c, Values: values, Warnings: warnings, Rendering: site.Rendering,
			bundle: b, places: places, requires: m.Requires, rule: b.Rule(), reads: site.secretKeys(),
		})
	}
	return all, nil
}

// PostRender is what happens to rendered documents before they reach the cluster: images
// point to the target registry, pinned by digest, and objects that hold data are kept when a
// release goes. Hooks and tests pass here too. What only may be an image is rewritten where the
// bundle carries it, and else left alone; so is what the vendor left out. Where the nodes have the
// images under the vendor's names, all of these stay. Jobs that Sealift runs itself are taken out.
// Errors wrap *MissingImageError and *chart.RunError.
func (r *Release) PostRender(docs []byte) ([]byte, error) {
	docs, _, _, err := chart.SplitJobs(docs)
	if err != nil {
		return nil, err
	}
	return r.postRender(docs)
}

// postRender is PostRender of documents without Jobs that Sealift runs itself.
func (r *Release) postRender(docs []byte) ([]byte, error) {
	docs, err := chart.LeaveOutReplicas(docs, r.Namespace, func(kind, namespace, name string) bool {
		return r.Rendering.Autoscaled[namespace+"/"+kind+"/"+name]
	})
	if err != nil {
		return nil, err
	}
	if docs, err = r.rewrite(docs); err != nil {
		return nil, err
	}
	return chart.KeepData(docs)
}

// rewrite changes images and adds pull secrets, and sees that the site's policy allows the objects.
func (r *Release) rewrite(docs []byte) ([]byte, error) {
	docs, err := chart.RewriteImages(docs, r.rewritten)
	if err != nil {
		return nil, err
	}
	if len(r.Rendering.ConfigMaps) > 0 && !r.asWritten() {
		docs, err = chart.RewriteConfigMaps(docs, func(namespace, name string) bool {
			return slices.Contains(r.Rendering.ConfigMaps, cmp.Or(namespace, r.Namespace)+"/"+name)
		}, r.rewritten)
		if err != nil {
			return nil, err
		}
	}
	if docs, err = chart.AddPullSecrets(docs, r.Rendering.PullSecrets); err != nil {
		return nil, err
	}
	return docs, r.checkLimits(docs)
}

// rewritten is what an image becomes.
func (r *Release) rewritten(use chart.Find) (string, error) {
	ref, err := oci.Normalize(use.Reference)
	if err != nil && use.Probable {
		return use.Reference, nil
	}
	if err != nil {
		return "", err
	}
	to, ok := r.places.find(ref)
	switch {
	case ok && r.asWritten(), !ok && use.Probable:
		return use.Reference, nil
	case !ok:
		return "", &MissingImageError{use.Reference, r.Chart.Name, use.Object, use.Path}
	case r.places.left[to]:
		return to, nil
	}
	return r.Rendering.pinned(to, use.Way == chart.WayParts), nil
}

// asWritten says that references stay as the vendor wrote them.
func (r *Release) asWritten() bool { return r.places.asWritten || r.Rendering.NoRewrite }

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

// rendered is what a chart gives, as it would reach a cluster. Each is a stream of YAML documents; nil for none.
type rendered struct {
	// docs are templates, hooks and tests: what Helm gets.
	docs []byte
	// backup and restore are the Jobs with the annotation chart.RunAnnotation.
	backup, restore []byte
	// crds are the definitions in crds/ of the chart and of its sub-charts that are enabled.
	crds []byte
	// asWritten says that references are those of the vendor.
	asWritten bool
}

// all is one stream of all documents.
func (d rendered) all() []byte { return chart.JoinDocuments(d.crds, d.backup, d.docs, d.restore) }

// render returns the objects as they would reach a cluster of kubeVersion that has the API
// versions apis besides those of Kubernetes itself.
func (r *Release) render(ctx context.Context, kubeVersion string, apis []string, upgrade bool) (rendered, error) {
	return r.renderWith(ctx, chart.RenderOptions{Values: r.Values, KubeVersion: kubeVersion, APIVersions: apis, IsUpgrade: upgrade})
}

// renderWith is render with all that can be said of it; the release is named by this.
func (r *Release) renderWith(ctx context.Context, o chart.RenderOptions) (rendered, error) {
	o.Release, o.Namespace = r.As, r.Namespace
	crds, docs, err := r.Chart.RenderParts(ctx, o)
	if err != nil {
		return rendered{}, err
	}
	docs, backup, restore, err := chart.SplitJobs(docs)
	if err != nil {
		return rendered{}, err
	}
	d := rendered{asWritten: r.asWritten()}
	for _, part := range []struct {
		to     *[]byte
		docs   []byte
		change func([]byte) ([]byte, error)
	}{{&d.docs, docs, r.postRender}, {&d.backup, backup, r.rewrite}, {&d.restore, restore, r.rewrite}, {&d.crds, crds, r.rewrite}} {
		if *part.to, err = part.change(part.docs); err != nil {
			return rendered{}, err
		}
	}
	return d, nil
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
	// Held says why nothing went back, or nothing could be recorded: somebody has to decide, see 'sealift status'.
	Held string
	// Doing is what failed, "checking"; empty for an install.
	Doing string
}

// Error says what failed, why, and what the state is now.
func (e *FailedError) Error() string {
	verb, what := "installing", "bundle "+e.Release
	if e.Doing != "" {
		verb = e.Doing
	}
	if e.Namespace != "" {
		what = fmt.Sprintf("release %s/%s", e.Namespace, e.Release)
	}
	s := fmt.Sprintf("%s %s: %v", verb, what, e.Err)
	for _, d := range e.Diagnosis {
		s += "\n  " + d
	}
	if len(e.Back) > 0 {
		s += "\nchanged back: " + strings.Join(e.Back, ", ")
	}
	if e.Revert != nil {
		s += fmt.Sprintf("\nchanging back failed: %v", e.Revert)
	}
	if e.Held != "" {
		s += "\nheld: " + e.Held
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
