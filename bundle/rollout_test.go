package bundle

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/manifest"
)

// rolledOut is a release of the chart for rollouts.
func rolledOut(t *testing.T, name, values string, r manifest.Rollout) *packedRelease {
	t.Helper()
	c, err := chart.Load("../testdata/charts/colours")
	if err != nil {
		t.Fatal(err)
	}
	merged, err := chart.MergeValues([]chart.ValuesFile{{Name: "v.yaml", Data: []byte(values)}})
	if err != nil {
		t.Fatal(err)
	}
	p := &packedRelease{chart: c, merged: merged, Chart: manifest.Chart{Release: name, Namespace: "shop"}}
	if r.Strategy != "" {
		p.Rollout = &r
	}
	return p
}

func TestCheckRollouts(t *testing.T) {
	blueGreen := manifest.Rollout{Strategy: manifest.RolloutBlueGreen, Front: manifest.Front{Kind: manifest.FrontService, Name: "front"}}
	canary := blueGreen
	canary.Strategy, canary.Steps = manifest.RolloutCanary, []int{10}
	check := func(releases ...*packedRelease) error {
		g := &gathered{spec: &Spec{}, releases: releases}
		return g.checkRollouts(context.Background())
	}
	web := rolledOut(t, "web", "services: [NAME-api]", manifest.Rollout{
		Strategy: manifest.RolloutBlueGreen, Front: manifest.Front{Kind: manifest.FrontService, Name: "front", Service: "*-api"},
	})
	one := rolledOut(t, "one", "", blueGreen)
	if err := check(web, one); err != nil || web.Rollout.Front.Service != "*-api" || one.Rollout.Front.Service != "*" {
		t.Errorf("services %q and %q, %v", web.Rollout.Front.Service, one.Rollout.Front.Service, err)
	}
	for name, c := range map[string]struct {
		releases []*packedRelease
		want     string
	}{
		"a shared name":          {[]*packedRelease{rolledOut(t, "web", "name: fixed", blueGreen)}, "Service/fixed"},
		"which service":          {[]*packedRelease{rolledOut(t, "web", "services: [NAME-a]", blueGreen)}, "web-blue, web-blue-a"},
		"another release's pods": {[]*packedRelease{rolledOut(t, "web", "", canary), rolledOut(t, "other", "", manifest.Rollout{})}, "Deployment/other"},
	} {
		var chartError *ChartError
		var eligible *chart.NotEligibleError
		if err := check(c.releases...); !errors.As(err, &eligible) || !errors.As(err, &chartError) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	long := rolledOut(t, strings.Repeat("w", 48), "", blueGreen)
	if err := check(long); err == nil {
		t.Error("a name that leaves no room for a colour")
	}
}
