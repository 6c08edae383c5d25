//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// plainBundles are made of a definition, a kustomization that uses it, and the demo's chart. The last
// two cannot work.
var plainBundles = []struct{ version, values string }{
	{"1.0.0", "neverReady: false"}, {"1.1.0", "neverReady: false"}, {"1.2.0", "neverReady: true"}, {"1.3.0", "neverReady: false"},
}

const plainSpec = `apiVersion: sealift/v1
kind: Bundle
name: plain
version: %[1]s
platforms: [linux/%[2]s]
charts:
  - path: ./chart
    release: plain
    namespace: plain
    values: [values-plain-%[1]s.yaml]
    rollback: safe
    dependsOn: [settings]
manifests:
  - path: crds-%[1]s
    name: crds
    namespace: plain
  - path: settings-%[1]s
    name: settings
    namespace: plain
    dependsOn: [crds]
parameters:
  - name: replicas
    type: integer
    required: true
    values: [{path: replicas}]
requires: {kubernetes: ">=1.25", apiGroups: [apps/v1/Deployment, %[3]s]}
`

const plainDefinition = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: widgets.example.com
  labels: {version: "%s"}
spec:
  group: example.com
  scope: Namespaced
  names: {kind: Widget, plural: widgets, singular: widget}
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`

const plainSettings = `apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {version: "%s", text: "{{ is kept }}"}
---
apiVersion: example.com/v1
kind: Widget
metadata: {name: one}
spec: {image: "127.0.0.1:5555/demo/app:1.0.0"}
`

// packPlain packs them, from a lock, and returns their names.
func (j *journey) packPlain(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, b := range plainBundles {
		api := "batch"
		if b.version == "1.3.0" {
			api = "nowhere.example.com/v1"
		}
		for name, content := range map[string]string{
			"sealift-plain-" + b.version + ".yaml":          fmt.Sprintf(plainSpec, b.version, runtime.GOARCH, api),
			"values-plain-" + b.version + ".yaml":           b.values + "\n",
			"crds-" + b.version + "/widgets.yaml":           fmt.Sprintf(plainDefinition, b.version),
			"settings-" + b.version + "/settings.yaml":      fmt.Sprintf(plainSettings, b.version),
			"settings-" + b.version + "/kustomization.yaml": "resources: [settings.yaml]\nnameSuffix: -plain\n",
		} {
			path := filepath.Join(j.vendor.dir, filepath.FromSlash(name))
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		spec := "sealift-plain-" + b.version + ".yaml"
		j.vendor.sealift(t, exitDone, "lock", "-f", spec)
		j.vendor.sealift(t, exitDone, "pack", "-f", spec, "--frozen", "-o", "out", "--key", "cosign.key")
		names = append(names, "out/plain-"+b.version+".tar.zst")
	}
	return names
}

// plainObjects installs plain objects as releases: with what the site says, upgraded, and taken back
// when a release that comes after them fails.
func (j *journey) plainObjects(t *testing.T) {
	const exitFailure, exitPreflight, timeout = 1, 22, "60s"
	r := j.site.sealift(t, exitFailure, j.installArgs("plain-1.0.0")...)
	if !strings.Contains(r.stderr, `parameter "replicas": it is required`) {
		t.Errorf("without a parameter: %s", r.stderr)
	}
	install := func(version string, want int, limit string) {
		t.Helper()
		j.site.sealift(t, want, j.installArgs("plain-"+version, "--set", "replicas=1", "--timeout", limit)...)
	}
	check := func(version string) {
		t.Helper()
		for what, want := range map[string][2]string{
			"the settings":   {version, j.site.kubectl(t, "get", "configmap", "settings-plain", "-n", "plain", "-o", "jsonpath={.data.version}")},
			"the text":       {"{{ is kept }}", j.site.kubectl(t, "get", "configmap", "settings-plain", "-n", "plain", "-o", "jsonpath={.data.text}")},
			"the replicas":   {"1", j.site.kubectl(t, "get", "deployment", "plain", "-n", "plain", "-o", "jsonpath={.spec.replicas}")},
			"the definition": {version, j.site.kubectl(t, "get", "crd", "widgets.example.com", "-o", "jsonpath={.metadata.labels.version}")},
		} {
			if want[0] != want[1] {
				t.Errorf("%s: got %q, want %q", what, want[1], want[0])
			}
		}
		image := j.site.kubectl(t, "get", "widget", "one-plain", "-n", "plain", "-o", "jsonpath={.spec.image}")
		if !strings.HasPrefix(image, siteRegistry+"/demo/app:1.0.0@sha256:") {
			t.Errorf("the custom resource has image %q, want it in the site's registry, by digest", image)
		}
		if status := j.releaseStatus(t, "plain"); status != "deployed" {
			t.Errorf("release plain is %q, want deployed", status)
		}
	}
	install("1.0.0", exitDone, timeout)
	check("1.0.0")
	install("1.1.0", exitDone, timeout)
	check("1.1.0")
	install("1.2.0", exitChangedBack, "15s")
	check("1.1.0")
	install("1.3.0", exitPreflight, timeout)
	check("1.1.0")
}
