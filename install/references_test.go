package install

import (
	"errors"
	"testing"

	"github.com/sealift/sealift/internal/oci/ocitest"
)

// TestImagesAreThere: what objects use has to be in the registry; what is elsewhere, or only looks like
// an image, is told and no reason to stop.
func TestImagesAreThere(t *testing.T) {
	reg := ocitest.New(t, ocitest.WithoutAPI)
	digest := ocitest.Image(t, reg.Open(t, "shop/app"), "1.0", "amd64", "app")
	target := Target{Registry: reg.Addr}
	objects := func(image string) []ReleasePlan {
		return []ReleasePlan{{Release: "shop", Namespace: "shop", docs: []byte(`apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  containers:
    - name: a
      image: ` + reg.Addr + "/shop/app:1.0@" + digest + `
    - name: b
      image: ` + image + `
---
apiVersion: v1
kind: ConfigMap
metadata: {name: c}
data: {text: "` + reg.Addr + `/not/there:1"}
`)}}
	}
	elsewhere, err := CheckImages(t.Context(), objects("docker.io/library/left:1"), []SeededImage{{Source: "docker.io/library/left:1"}}, target, ocitest.Client())
	if err != nil {
		t.Fatal(err)
	}
	if len(elsewhere) != 1 || elsewhere[0].Reference != "docker.io/library/left:1" || elsewhere[0].Release != "shop/shop" || !elsewhere[0].Carried {
		t.Errorf("got %+v elsewhere", elsewhere)
	}
	_, err = CheckImages(t.Context(), objects(reg.Addr+"/shop/gone:1.0"), nil, target, ocitest.Client())
	var refused *PreflightError
	var missing *NotThereError
	if !errors.As(err, &refused) || !errors.As(err, &missing) || len(missing.Missing) != 1 || missing.Missing[0].Path != "spec.containers[1].image" {
		t.Errorf("got %v, want what is missing", err)
	}
}
