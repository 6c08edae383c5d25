package bundle

import (
	"context"
	"fmt"

	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/manifest"
)

// addFront reads the object from which a front is made.
func (g *gathered) addFront(p *packedRelease, r *RolloutSpec) error {
	if r == nil || r.Front.Object == "" {
		return nil
	}
	raw, err := readBounded(g.spec.file(r.Front.Object), manifest.MaxFrontBytes)
	if err != nil {
		return fmt.Errorf("reading the object of front %q: %w", r.Front.Name, err)
	}
	if err := chart.CheckRoute(raw); err != nil {
		return fmt.Errorf("front %q, %q: %w", r.Front.Name, r.Front.Object, err)
	}
	p.front, p.frontFile = raw, r.Front.Object
	p.Rollout.Front.Object = &manifest.Descriptor{Digest: manifest.Digest(raw), MediaType: manifest.MediaTypeObjects, Size: int64(len(raw))}
	return nil
}

// checkRollouts refuses releases that cannot stand beside their former version, with the vendor's own values, for each version
// of Kubernetes that the bundle is made for, and finds the Services that fronts lead to. A site that says other values is
// looked at again there.
func (g *gathered) checkRollouts(ctx context.Context) error {
	versions := g.spec.Kubernetes.Versions
	if len(versions) == 0 {
		versions = []string{""}
	}
	for _, p := range g.releases {
		if p.Rollout == nil {
			continue
		}
		for _, version := range versions {
			behind, err := p.checkRollout(ctx, version)
			if err == nil && behind.Common != nil {
				err = g.checkShares(ctx, p, behind, version)
			}
			if err != nil {
				return &ChartError{p.from, p.line, err}
			}
		}
	}
	return nil
}

// checkShares refuses other releases of the bundle whose pods a front would lead to, too, while it leads to two versions.
func (g *gathered) checkShares(ctx context.Context, p *packedRelease, behind *chart.Behind, kubernetes string) error {
	e := &chart.NotEligibleError{Release: p.Key()}
	for _, other := range g.releases {
		if other == p {
			continue
		}
		docs, err := other.chart.Render(ctx, chart.RenderOptions{
			Release: other.Release, Namespace: other.Namespace, Values: other.merged, KubeVersion: kubernetes, APIVersions: other.apiVersions,
		})
		if err != nil {
			return err
		}
		found, err := chart.Workloads(docs, other.Namespace, p.Namespace, behind.Common)
		if err != nil {
			return err
		}
		for _, name := range found {
			e.Obstacles = append(e.Obstacles, chart.Obstacle{
				Object: name, Reason: fmt.Sprintf("it is one of release %s, and its pods have all the labels by which the front would select both versions of release %s", other.Key(), p.Key()),
			})
		}
	}
	if len(e.Obstacles) > 0 {
		return e
	}
	return nil
}

// checkRollout renders a release under both names that it is going to have. Common of what it returns is set for those of which
// users are shared out by numbers of pods.
func (p *packedRelease) checkRollout(ctx context.Context, kubernetes string) (*chart.Behind, error) {
	blue, green := manifest.Colours(p.Release)
	if err := manifest.CheckRelease(green); err != nil {
		return nil, fmt.Errorf("rollout: a release that is rolled out gets the names %q and %q: %w", blue, green, err)
	}
	colours := chart.Colours{
		Release: p.Release, One: blue, Two: green, Namespace: p.Namespace, FrontKind: p.Rollout.Front.Kind, FrontName: p.Rollout.Front.Name,
		Service: p.Rollout.Front.Service, Shares: p.Rollout.Strategy == manifest.RolloutCanary && p.Rollout.Front.Kind == manifest.FrontService,
		MigrationsSafe: p.Rollback == manifest.RollbackSafe,
	}
	var docs [2][]byte
	for i, name := range []string{blue, green} {
		var err error
		docs[i], err = p.chart.Render(ctx, chart.RenderOptions{
			Release: name, Namespace: p.Namespace, Values: p.merged, KubeVersion: kubernetes, APIVersions: p.apiVersions,
		})
		if err != nil {
			return nil, err
		}
	}
	behind, obstacles, err := colours.Eligible(docs[0], docs[1])
	if err != nil {
		return nil, err
	}
	if len(obstacles) > 0 {
		return nil, &chart.NotEligibleError{Release: p.Key(), Obstacles: obstacles}
	}
	p.Rollout.Front.Service = behind.Service
	if !colours.Shares {
		behind.Common = nil
	}
	return behind, nil
}
