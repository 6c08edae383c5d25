package chart

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"

	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/chart/common"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	"helm.sh/helm/v4/pkg/release"
	releasev1 "helm.sh/helm/v4/pkg/release/v1"
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
}

// Render renders the chart without a cluster and returns one stream of YAML
// documents: the objects of crds/, the templates, and the hooks and tests.
// Nothing is looked up: the template functions lookup and getHostByName return
// empty results, and a remote reference in a values schema is not followed.
//
// Errors are *[RenderError], *[SchemaError], *[KubeVersionError] and, when ctx
// ends, its error. A template that runs on then does so in the background,
// where it can do no more than compute.
func (c *Chart) Render(ctx context.Context, o RenderOptions) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
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
		docs []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		if err := protect(func() (err error) {
			r.docs, err = c.render(ctx, o)
			return err
		}); err != nil {
			r = result{err: err}
		}
		done <- r
	}()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case r := <-done:
		return r.docs, c.renderError(r.err)
	}
}

func (c *Chart) render(ctx context.Context, o RenderOptions) ([]byte, error) {
	kubeVersion, err := common.ParseKubeVersion(o.KubeVersion)
	if err != nil {
		return nil, fmt.Errorf("reading kubernetes version %q: %w", o.KubeVersion, err)
	}
	ch, err := c.HelmChart()
	if err != nil {
		return nil, err
	}
	if want := ch.Metadata.KubeVersion; want != "" && !chartutil.IsCompatibleRange(want, kubeVersion.String()) {
		return nil, &KubeVersionError{Chart: c.Name, Constraint: want, Version: o.KubeVersion}
	}
	if _, err := c.CheckValues(o.Values); err != nil {
		return nil, err
	}

	install := action.NewInstall(action.NewConfiguration(action.ConfigurationSetLogger(slog.DiscardHandler)))
	install.DryRunStrategy = action.DryRunClient
	install.ReleaseName = o.Release
	install.Namespace = o.Namespace
	install.IncludeCRDs = true
	install.IsUpgrade = o.IsUpgrade
	install.KubeVersion = kubeVersion
	install.APIVersions = common.VersionSet(o.APIVersions)
	install.SkipSchemaValidation = true // done above, without Helm's network access
	var rel release.Releaser
	if rel, err = install.RunWithContext(ctx, ch, o.Values); err != nil {
		return nil, err
	}
	r, ok := rel.(*releasev1.Release)
	if !ok {
		return nil, fmt.Errorf("unexpected release type %T", rel)
	}

	var out bytes.Buffer
	out.WriteString(r.Manifest)
	for _, h := range r.Hooks {
		if out.Len() > 0 && !bytes.HasSuffix(out.Bytes(), []byte("\n")) {
			out.WriteByte('\n')
		}
		fmt.Fprintf(&out, "---\n# Source: %s\n%s\n", h.Path, h.Manifest)
	}
	if out.Len() > MaxManifests {
		return nil, fmt.Errorf("the rendered documents have more than %d bytes", MaxManifests)
	}
	return out.Bytes(), nil
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
