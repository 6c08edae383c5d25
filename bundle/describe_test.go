package bundle

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/sealift/sealift/manifest"
)

func TestDescribe(t *testing.T) {
	s, problems := parseSpec([]byte(wholeSpec))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	want := &manifest.Requires{
		Kubernetes: ">=1.30 <1.36", UpgradeFrom: ">=2.2.0", CPU: "4", Memory: "8Gi", Architectures: []string{"amd64", "arm64"},
		StorageClasses: []string{"*", "fast"}, APIGroups: []string{"cert-manager.io/v1/Certificate"},
	}
	if got := s.requirements(); !reflect.DeepEqual(got, want) {
		t.Errorf("requirements %+v", got)
	}
	if got := (&Spec{Requires: &RequiresSpec{}}).requirements(); got != nil {
		t.Errorf("requirements %+v out of nothing", got)
	}
	params, err := s.parameters(func(release string) (string, error) { return "ns/" + release, nil })
	three := "3"
	wantParams := []manifest.Parameter{
		{Name: "host", Description: "where users go", Type: "string", Required: true, Pattern: "[a-z.]+", Values: []manifest.ParameterValue{{Release: "ns/shop", Path: "ingress.host"}}},
		{Name: "replicas", Type: "integer", Default: &three, Enum: []string{"1", "3", "5"}, Values: []manifest.ParameterValue{{Release: "ns/shop", Path: "replicas"}}},
		{Name: "password", Type: "string", Secret: true, Values: []manifest.ParameterValue{{Release: "ns/data/db", Path: "auth.password"}}},
	}
	if err != nil || !reflect.DeepEqual(params, wantParams) {
		t.Errorf("parameters %+v, %v", params, err)
	}
	shop := s.Charts[0]
	if got := rollout(shop.Rollout); got.Strategy != "canary" || got.Front != (manifest.Front{Kind: "HTTPRoute", Name: "shop.front", Service: "*-web"}) || len(got.Steps) != 2 {
		t.Errorf("rollout %+v", got)
	}
	if rollout(nil) != nil {
		t.Error("a rollout out of nothing")
	}
	if got := registryValues(shop.RegistryValues); !reflect.DeepEqual(got, []manifest.RegistryValue{{Path: "global.imageRegistry", Gets: "registry"}, {Path: `image.host\.name`, Gets: "host"}}) {
		t.Errorf("registry values %+v", got)
	}
	var checks []manifest.Check
	for i := range shop.Checks {
		checks = append(checks, shop.Checks[i].check())
	}
	if !reflect.DeepEqual(checks, []manifest.Check{
		{Name: "web", HTTP: &manifest.CheckHTTP{Service: "shop", Port: 8443, Path: "/healthz?all=1", Status: 204, TLS: true}, Seconds: 150},
		{Name: "db", TCP: &manifest.CheckTCP{Service: "db", Port: 5432}},
		{Name: "smoke"},
	}) {
		t.Errorf("checks %+v", checks)
	}
}

func TestParametersThatLeadNowhere(t *testing.T) {
	s, problems := parseSpec([]byte(wholeSpec))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	_, err := s.parameters(func(release string) (string, error) { return "", &ReleaseNameError{Name: release} })
	var bad *ParameterError
	if !errors.As(err, &bad) || bad.Name != "host" || bad.Line != 79 {
		t.Error(err)
	}
	// Two names for one release.
	s.Parameters[2].Values[0] = ParameterValueSpec{Release: "a/shop", Path: "replicas"}
	_, err = s.parameters(func(string) (string, error) { return "a/shop", nil })
	if !errors.As(err, &bad) || !strings.Contains(err.Error(), `value "replicas" of release "a/shop" is set by parameter "replicas" already`) {
		t.Error(err)
	}
}
