package chart

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"regexp"

	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/chart/common"
	chartv2 "helm.sh/helm/v4/pkg/chart/v2"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	kubefake "helm.sh/helm/v4/pkg/kube/fake"
	"helm.sh/helm/v4/pkg/release"
	releasecommon "helm.sh/helm/v4/pkg/release/common"
	releasev1 "helm.sh/helm/v4/pkg/release/v1"
	"helm.sh/helm/v4/pkg/storage"
	"helm.sh/helm/v4/pkg/storage/driver"
)

// DefaultKubeVersion is the Kubernetes version that charts see when the caller
// names none. It is a constant, not that of the client library that happens to
// be linked, so that a new build of Sealift does not find other images.
const DefaultKubeVersion = "v1.34.0"

// MaxManifests bounds a stream of rendered documents, in bytes. The largest
// public charts render to about 5 MiB with their CRDs.
const MaxManifests = 16 << 20

// RenderOptions says how to render. The zero value renders as the first
// install of a release named after the chart into the namespace "default".
type RenderOptions struct {
	Release   string // empty: the chart's name
	Namespace string // empty: "default"
	Values    map[string]any
	// KubeVersion is what .Capabilities.KubeVersion says and what kubeVersion
	// of Chart.yaml is compared with. Empty: DefaultKubeVersion.
	KubeVersion string
	// APIVersions are added to what .Capabilities.APIVersions has: all of
	// Kubernetes itself. "monitoring.coreos.com/v1" or
	// "monitoring.coreos.com/v1/ServiceMonitor".
	APIVersions []string
	IsUpgrade   bool
	// Revision is what an upgrade sees as .Release.Revision; 0 for 1.
	Revision int
	// Lookup is a cluster that templates may look objects up in, which they do by reading only; nil for none.
	Lookup action.RESTClientGetter
}

// Render renders the chart and returns one stream of YAML
// documents: the objects of crds/, the templates, and the hooks and tests.
// Nothing is looked up where no cluster is given: the template functions lookup
// and getHostByName return empty results, and a remote reference in a values
// schema is not followed.
//
// Errors are *[RenderError], *[SchemaError], *[KubeVersionError] and, when ctx
// ends, its error. A template that runs on then does so in the background,
// where it can do no more than compute.
func (c *Chart) Render(ctx context.Context, o RenderOptions) ([]byte, error) {
	crds, docs, err := c.RenderParts(ctx, o)
	if err != nil {
		return nil, err
	}
	return JoinDocuments(crds, docs), nil
}

// JoinDocuments makes one stream of YAML documents of several.
func JoinDocuments(streams ...[]byte) []byte {
	var out []byte
	for _, s := range streams {
		if len(bytes.TrimSpace(s)) == 0 {
			continue
		}
		if len(out) > 0 && !bytes.HasPrefix(s, []byte("---")) {
			out = append(out, "---\n"...)
		}
		out = append(out, s...)
		if !bytes.HasSuffix(out, []byte("\n")) {
			out = append(out, '\n')
		}
	}
	return out
}

// RenderParts is Render with the objects of crds/, of the chart and of its sub-charts that are
// enabled, apart from what the templates give.
func (c *Chart) RenderParts(ctx context.Context, o RenderOptions) (crds, docs []byte, err error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	if o.Release == "" {
		o.Release = c.Name
	}
	if o.Namespace == "" {
		o.Namespace = "default"
	}
	if o.KubeVersion == "" {
		o.KubeVersion = DefaultKubeVersion
	}
	type result struct {
		crds, docs []byte
		err        error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		if err := protect(func() (err error) {
			r.crds, r.docs, err = c.render(ctx, o)
			return err
		}); err != nil {
			r = result{err: err}
		}
		done <- r
	}()
	select {
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	case r := <-done:
		return r.crds, r.docs, c.renderError(r.err)
	}
}

func (c *Chart) render(ctx context.Context, o RenderOptions) (crds, docs []byte, err error) {
	kubeVersion, err := common.ParseKubeVersion(o.KubeVersion)
	if err != nil {
		return nil, nil, fmt.Errorf("reading kubernetes version %q: %w", o.KubeVersion, err)
	}
	ch, err := c.HelmChart()
	if err != nil {
		return nil, nil, err
	}
	if want := ch.Metadata.KubeVersion; want != "" && !chartutil.IsCompatibleRange(want, kubeVersion.String()) {
		return nil, nil, &KubeVersionError{Chart: c.Name, Constraint: want, Version: o.KubeVersion}
	}
	if _, err := c.CheckValues(o.Values); err != nil {
		return nil, nil, err
	}

	// Rendering knows what it is told of a cluster, and asks for no more than templates look up.
	capabilities := common.DefaultCapabilities.Copy()
	capabilities.KubeVersion = *kubeVersion
	capabilities.APIVersions = append(capabilities.APIVersions, common.VersionSet(o.APIVersions)...)
	cfg := action.NewConfiguration(action.ConfigurationSetLogger(slog.DiscardHandler))
	cfg.Capabilities, cfg.Releases = capabilities, storage.Init(driver.NewMemory())
	cfg.KubeClient = &kubefake.PrintingKubeClient{Out: io.Discard, LogOutput: io.Discard}
	strategy := action.DryRunClient
	if o.Lookup != nil {
		cfg.RESTClientGetter, strategy = o.Lookup, action.DryRunServer
	}
	var rel release.Releaser
	if o.IsUpgrade && o.Revision > 1 {
		rel, err = upgrade(ctx, cfg, strategy, ch, o)
	} else {
		install := action.NewInstall(cfg)
		install.DryRunStrategy = strategy
		install.ReleaseName = o.Release
		install.Namespace = o.Namespace
		install.IsUpgrade = o.IsUpgrade
		install.KubeVersion = kubeVersion
		install.APIVersions = common.VersionSet(o.APIVersions)
		install.SkipSchemaValidation = true // done above, without Helm's network access
		rel, err = install.RunWithContext(ctx, ch, o.Values)
	}
	if err != nil {
		return nil, nil, err
	}
	r, ok := rel.(*releasev1.Release)
	if !ok {
		return nil, nil, fmt.Errorf("unexpected release type %T", rel)
	}

	// The rendering has left out of the chart what is not enabled.
	var definitions, out bytes.Buffer
	for _, crd := range ch.CRDObjects() {
		fmt.Fprintf(&definitions, "---\n# Source: %s\n%s\n", crd.Filename, crd.File.Data)
	}
	out.WriteString(r.Manifest)
	for _, h := range r.Hooks {
		if out.Len() > 0 && !bytes.HasSuffix(out.Bytes(), []byte("\n")) {
			out.WriteByte('\n')
		}
		fmt.Fprintf(&out, "---\n# Source: %s\n%s\n", h.Path, h.Manifest)
	}
	if definitions.Len()+out.Len() > MaxManifests {
		return nil, nil, fmt.Errorf("the rendered documents have more than %d bytes", MaxManifests)
	}
	return definitions.Bytes(), out.Bytes(), nil
}

// upgrade renders as the upgrade of a release that has one revision less.
func upgrade(ctx context.Context, cfg *action.Configuration, strategy action.DryRunStrategy, ch *chartv2.Chart, o RenderOptions) (release.Releaser, error) {
	memory := driver.NewMemory()
	memory.SetNamespace(o.Namespace)
	cfg.Releases = storage.Init(memory)
	cfg.Releases.SetLogger(slog.DiscardHandler)
	before := &releasev1.Release{
		Name: o.Release, Namespace: o.Namespace, Version: o.Revision - 1, Chart: ch, Info: &releasev1.Info{Status: releasecommon.StatusDeployed},
	}
	if err := cfg.Releases.Create(before); err != nil {
		return nil, err
	}
	a := action.NewUpgrade(cfg)
	a.DryRunStrategy = strategy
	a.Namespace = o.Namespace
	a.ResetValues = true
	a.SkipSchemaValidation = true
	return a.RunWithContext(ctx, o.Release, ch, o.Values)
}

// templateName finds the template in Helm's messages, which carry it in several
// forms: "parse error at (shop/templates/a.yaml:3): …", "shop/templates/a.yaml:3:5\n …",
// "YAML parse error on shop/templates/a.yaml: …".
var templateName = regexp.MustCompile(`[^\s:()"]+/templates/[^\s:()"]+`)

// renderError makes a typed error of whatever stopped a render.
func (c *Chart) renderError(err error) error {
	var (
		schema  *SchemaError
		version *KubeVersionError
		render  *RenderError
		load    *LoadError
	)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &schema), errors.As(err, &version), errors.As(err, &render), errors.As(err, &load):
		return err
	}
	return &RenderError{
		Chart:    c.Name,
		Template: templateName.FindString(err.Error()),
		Err:      err,
	}
}
