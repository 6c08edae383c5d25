package bundle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/manifest"
)

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
			g.survey.Warnings = append(g.survey.Warnings, fmt.Sprintf("release %s: registryValues lead to the images only where a site has them in its registry without a prefix", p.Key()))
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
		if err := chart.SetValue(values, v.Path, v.Value(sampleHost, prefix)); err != nil {
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
			return &RegistryValuesError{r.release.Key(), f.Reference, f.Object, f.Path}
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
		return below && slices.Contains(source.Repositories(), path) &&
			(source.Tag == ref.Tag && ref.Tag != "" || ref.Digest != "" && (source.Digest == "" || source.Digest == ref.Digest))
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
