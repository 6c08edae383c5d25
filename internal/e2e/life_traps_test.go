//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// install installs a bundle, to the given exit code.
func (l *life) install(t *testing.T, want int, file string, more ...string) result {
	t.Helper()
	return l.site.sealift(t, want, l.with("install", file, more...)...)
}

// change runs a command that changes what is installed and needs no bundle.
func (l *life) change(t *testing.T, want int, command string, more ...string) result {
	t.Helper()
	return l.site.sealift(t, want, l.at(command, append([]string{"--lease", "5s", "--timeout", "60s"}, more...)...)...)
}

// status is what status says of a bundle.
func (l *life) status(t *testing.T, want int, name string) string {
	t.Helper()
	return l.site.sealift(t, want, l.at("status", name)...).stdout
}

// says checks that a text has all of these.
func says(t *testing.T, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("it does not say %q:\n%s", w, text)
		}
	}
}

// equal checks a field of an object, as jsonpath.
func (l *life) equal(t *testing.T, namespace, object, path, want string) {
	t.Helper()
	if got := l.field(t, namespace, object, path); got != want {
		t.Errorf("%s %s: %s is %q, want %q", namespace, object, path, got, want)
	}
}

// Paths of what tests look at.
const (
	greeting = `.spec.template.spec.containers[0].env[?(@.name=="GREETING")].value`
	image    = ".spec.template.spec.containers[0].image"
	uid      = ".metadata.uid"
)

// helm runs Helm's own program in the site.
func (l *life) helm(t *testing.T, args ...string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(filepath.Dir(clusterBin(t)), "helm-*", "helm"))
	if err != nil || len(found) == 0 {
		t.Fatalf("no helm (%v); run internal/e2e/prepare.sh", err)
	}
	return l.site.output(t, found[len(found)-1], append([]string{"--kubeconfig", l.site.kubeconfig()}, args...)...)
}

// revisions is how many revisions of a release Helm has.
func (l *life) revisions(t *testing.T, namespace, release string) int {
	t.Helper()
	return strings.Count(l.site.kubectl(t, "get", "secrets", "-n", namespace, "-l", "owner=helm,name="+release, "-o", "name"), "\n")
}

// claims have a revision add a claim and be taken back, one take it over, and one drop it: the data stays.
func (l *life) claims(t *testing.T) {
	const name = "claims"
	pack := func(version, values string) string {
		return l.packed(t, name, version, chart{release: "db", values: values})
	}
	const claim = "claim: data\nmount: db-data\n"
	l.hostVolume(t, name, "db", "data")
	l.install(t, exitDone, pack("1.0.0", ""))
	added := pack("2.0.0", newer+claim)
	l.install(t, exitChangedBack, pack("1.1.0", newer+claim+"neverReady: true"), "--timeout", "8s")
	id := l.field(t, name, "persistentvolumeclaim/db-data", uid)
	if id == "" {
		t.Error("the way back has taken the claim")
	}
	l.file(t, name+"-db-data", "precious")
	l.install(t, exitDone, added)
	l.change(t, exitDone, "rollback", "1.0.0", "--bundle", name)
	l.equal(t, name, "persistentvolumeclaim/db-data", uid, id)
	l.change(t, exitDone, "rollback", "2.0.0", "--bundle", name)
	l.install(t, exitDone, pack("3.0.0", newer))
	l.equal(t, name, "persistentvolumeclaim/db-data", uid, id)
	l.equal(t, name, "persistentvolumeclaim/db-data", ".metadata.deletionTimestamp", "")
	if got := l.file(t, name+"-db-data", ""); got != "precious" {
		t.Errorf("the volume holds %q", got)
	}
}

// adopted is a release that somebody has installed with Helm: it is refused, and with --adopt taken, with a way back to what it
// was. A claim that the bundle has not stays.
func (l *life) adopted(t *testing.T) {
	const name = "adopted"
	l.hostVolume(t, name, "db", "data")
	l.helm(t, "install", "db", filepath.Join(l.vendor.dir, "service"), "--namespace", name, "--create-namespace",
		"--set", "claim=data,mount=db-data", "--wait", "--timeout", "60s")
	id := l.field(t, name, "persistentvolumeclaim/db-data", uid)
	l.file(t, name+"-db-data", "precious")

	file := l.packed(t, name, "1.0.0", chart{release: "db", values: newer})
	for _, command := range []string{"preflight", "install"} {
		r := l.site.sealift(t, exitRefused, l.with(command, file)...)
		says(t, r.stdout+r.stderr, "--adopt", "adopted/db")
	}
	if n := l.revisions(t, name, "db"); n != 1 {
		t.Errorf("a refused install left %d revisions, want 1", n)
	}
	l.install(t, exitChangedBack, l.packed(t, name, "0.9.0", chart{release: "db", values: newer + "neverReady: true"}), "--adopt", "--timeout", "8s")
	l.equal(t, name, "deployment/db", image, "127.0.0.1:5555/demo/app:1.0.0")
	l.equal(t, name, "persistentvolumeclaim/db-data", uid, id)

	l.install(t, exitDone, file, "--adopt")
	l.equal(t, name, "persistentvolumeclaim/db-data", uid, id)
	l.status(t, exitDone, name)
	l.change(t, exitDone, "uninstall", name)
	l.equal(t, name, "persistentvolumeclaim/db-data", uid, id)
	if got := l.file(t, name+"-db-data", ""); got != "precious" {
		t.Errorf("the volume holds %q", got)
	}
}

// definitions are among the templates of a chart, and stay with their objects when it goes back, and when it goes.
func (l *life) definitions(t *testing.T) {
	const name = "templated"
	const definition = "customresourcedefinition/widgets.e2e.sealift.example"
	l.install(t, exitDone, l.packed(t, name, "1.0.0", chart{release: "web"}))
	l.install(t, exitDone, l.packed(t, name, "2.0.0", chart{release: "web", values: "definition: widgets"}))
	waitFor(t, 30*time.Second, func() string {
		return map[bool]string{false: "the definition is not served"}[l.field(t, name, definition, `.status.conditions[?(@.type=="Established")].status`) == "True"]
	})
	l.apply(t, "apiVersion: e2e.sealift.example/v1\nkind: Widget\nmetadata: {name: precious, namespace: "+name+"}\nspec: {is: precious}\n")
	stays := func(after string) {
		t.Helper()
		if got := l.field(t, name, "widgets.e2e.sealift.example/precious", ".spec.is"); got != "precious" {
			t.Errorf("after the %s the object has %q", after, got)
		}
	}
	l.change(t, exitDone, "rollback", "1.0.0", "--bundle", name)
	stays("rollback")
	l.change(t, exitDone, "rollback", "2.0.0", "--bundle", name)
	says(t, l.change(t, exitDone, "uninstall", name).stdout, "widgets.e2e.sealift.example")
	stays("uninstall")
}

const gadgets = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.e2e.sealift.example}
spec:
  group: e2e.sealift.example
  names: {plural: gadgets, singular: gadget, kind: Gadget}
  scope: Namespaced
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, description: %q, x-kubernetes-preserve-unknown-fields: true}}
`

// chartDefinitions are in the directory crds of a chart: an upgrade changes them, and its way back as well.
func (l *life) chartDefinitions(t *testing.T) {
	const name = "defined"
	pack := func(version, values string) string {
		dir := "service-" + version
		if err := os.CopyFS(filepath.Join(l.vendor.dir, dir), os.DirFS("testdata/service")); err != nil {
			t.Fatal(err)
		}
		l.write(t, dir+"/Chart.yaml", "apiVersion: v2\nname: defined\nversion: "+version+"\n")
		l.write(t, dir+"/crds/gadgets.yaml", fmt.Sprintf(gadgets, version))
		spec := l.spec(t, name, version, chart{release: "web", values: values})
		return l.packedSpec(t, name, version, strings.Replace(spec, "path: ./service\n", "path: ./"+dir+"\n", 1))
	}
	const definition = "customresourcedefinition/gadgets.e2e.sealift.example"
	const description = ".spec.versions[0].schema.openAPIV3Schema.description"
	l.install(t, exitDone, pack("1.0.0", ""))
	l.apply(t, "apiVersion: e2e.sealift.example/v1\nkind: Gadget\nmetadata: {name: precious, namespace: "+name+"}\nspec: {is: precious}\n")
	l.equal(t, name, definition, description, "1.0.0")
	l.install(t, exitChangedBack, pack("1.1.0", newer+"neverReady: true"), "--timeout", "8s")
	l.equal(t, name, definition, description, "1.0.0")
	l.install(t, exitDone, pack("2.0.0", newer))
	l.equal(t, name, definition, description, "2.0.0")
	l.change(t, exitDone, "rollback", "1.0.0", "--bundle", name)
	l.equal(t, name, definition, description, "2.0.0") // definitions stay as new as they are
	l.change(t, exitDone, "uninstall", name)
	l.equal(t, name, "gadgets.e2e.sealift.example/precious", ".spec.is", "precious")
}

// edits are what somebody else has changed: status shows it, preflight and install name object, field, manager and both values,
// --take-over takes it, and a way back does in any case.
func (l *life) edits(t *testing.T) {
	const name = "edits"
	pack := func(version, values string) string {
		return l.packed(t, name, version, chart{release: "web", values: values}, chart{release: "api", values: values, more: "dependsOn: [web]"})
	}
	one, two := pack("1.0.0", ""), pack("2.0.0", newer+"greeting: new\nreplicas: 2\n")
	l.install(t, exitDone, one)
	l.status(t, exitDone, name)

	l.site.kubectl(t, "set", "env", "deployment/web", "-n", name, "GREETING=edited")
	l.site.kubectl(t, "scale", "deployment/api", "-n", name, "--replicas=3")
	drift := l.status(t, exitChangedBack, name)
	says(t, drift, "Deployment/edits/web", "GREETING", "kubectl-set", "Deployment/edits/api", "replicas")
	for _, command := range []string{"preflight", "install"} {
		r := l.site.sealift(t, exitRefused, l.with(command, two)...)
		says(t, r.stdout+r.stderr, "Deployment/edits/web", "GREETING", `"kubectl-set"`, "edited", "new", "Deployment/edits/api", ".spec.replicas", `"kubectl"`, "to 3", "to 2", "--take-over")
	}
	if n := l.revisions(t, name, "web"); n != 1 {
		t.Errorf("a refused install left %d revisions, want 1", n)
	}
	l.equal(t, name, "deployment/web", greeting, "edited")

	// One that takes over and fails goes back to what was installed.
	l.install(t, exitChangedBack, pack("1.1.0", newer+"greeting: new\nneverReady: true\n"), "--take-over", "--timeout", "8s")
	l.equal(t, name, "deployment/web", greeting, "hello")

	l.site.kubectl(t, "set", "env", "deployment/web", "-n", name, "GREETING=edited")
	l.install(t, exitDone, two, "--take-over", "--until", "web")
	l.equal(t, name, "deployment/web", greeting, "new")
	l.site.kubectl(t, "set", "env", "deployment/web", "-n", name, "GREETING=again")
	l.change(t, exitDone, "revert", name)
	l.equal(t, name, "deployment/web", greeting, "hello")
	l.equal(t, name, "deployment/web", ".spec.replicas", "1")
}

// drift is an edited object, one that is gone, and another image than the bundle's: installing again puts all back.
func (l *life) drift(t *testing.T) {
	const name = "drift"
	one := l.packed(t, name, "1.0.0", chart{release: "web"})
	l.install(t, exitDone, one)
	l.status(t, exitDone, name)
	l.site.kubectl(t, "patch", "configmap/web", "-n", name, "--type", "merge", "-p", `{"data":{"greeting":"drifted"}}`)
	says(t, l.status(t, exitChangedBack, name), "ConfigMap/drift/web", "greeting", "kubectl-patch")
	l.site.kubectl(t, "delete", "service/web", "-n", name)
	says(t, l.status(t, exitChangedBack, name), "Service/drift/web")
	l.site.kubectl(t, "set", "image", "deployment/web", "-n", name, "app="+siteRegistry+"/demo/app:2.0.0")
	l.site.kubectl(t, "rollout", "status", "deployment/web", "-n", name, "--timeout", "60s")
	out := l.status(t, exitChangedBack, name)
	says(t, out, "Deployment/drift/web", "kubectl-set", siteRegistry+"/demo/app:2.0.0")

	var all struct {
		Bundles []struct {
			Healthy     bool
			OtherImages []struct{ Reference string }
			Releases    []struct {
				Drift []struct {
					Object  string
					Missing bool
					Fields  []struct{ Path string }
				}
			}
		}
	}
	r := l.site.sealift(t, exitChangedBack, l.at("status", name, "--output", "json")...)
	if err := json.Unmarshal([]byte(r.stdout), &all); err != nil || len(all.Bundles) != 1 {
		t.Fatalf("%v in\n%s", err, r.stdout)
	}
	if b := all.Bundles[0]; b.Healthy || len(b.OtherImages) != 1 || len(b.Releases) != 1 || len(b.Releases[0].Drift) != 3 {
		t.Errorf("got %+v, want drift of three objects, and one other image", b)
	}

	l.install(t, exitRefused, one)
	l.install(t, exitDone, one, "--take-over")
	waitFor(t, 30*time.Second, func() string { // for the pods of the other image
		r, err := l.site.run(t, l.at("status", name)...)
		if err != nil || r.code != exitDone {
			return fmt.Sprintf("%v\n%s", err, r.stdout)
		}
		return ""
	})
}

// autoscaled are releases whose number of pods is for somebody else to say: no upgrade changes it, not for a moment.
func (l *life) autoscaled(t *testing.T) {
	const name = "scaled"
	pack := func(version, web, api, late string) string {
		return l.packed(t, name, version, chart{release: "web", values: web}, chart{release: "api", values: api, more: "dependsOn: []"}, chart{release: "late", values: late, more: "dependsOn: []"})
	}
	// web has an autoscaler in its chart, api gets one from the site, and late has one in its chart from the second version on.
	l.install(t, exitDone, pack("1.0.0", "autoscaler: true", "", "replicas: 2"))
	l.apply(t, `apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: api, namespace: scaled}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: api}
  minReplicas: 1
  maxReplicas: 4
`)
	want := map[string]int{"web": 3, "api": 3, "late": 2}
	for _, release := range []string{"web", "api"} {
		l.site.kubectl(t, "scale", "deployment/"+release, "-n", name, "--replicas=3")
		l.site.kubectl(t, "rollout", "status", "deployment/"+release, "-n", name, "--timeout", "60s")
	}
	watch := l.site.kubectlCommand(t.Context(), "get", "deployments", "-n", name, "--watch", "-o", `jsonpath={.metadata.name}{" "}{.spec.replicas}{"\n"}`)
	var seen strings.Builder
	watch.Stdout = &seen
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	l.install(t, exitDone, pack("2.0.0", newer+"autoscaler: true", newer, newer+"replicas: 2\nautoscaler: true"))
	l.change(t, exitDone, "rollback", "1.0.0", "--bundle", name)
	_ = watch.Process.Kill() // it has no other end
	_ = watch.Wait()         // was killed, so this says nothing
	for line := range strings.Lines(seen.String()) {
		var release string
		var n int
		if _, err := fmt.Sscan(line, &release, &n); err != nil || n != want[release] {
			t.Errorf("while it was upgraded and went back, there was %q (%v), want %v", strings.TrimSpace(line), err, want)
		}
	}
	if n := strings.Count(seen.String(), "\n"); n < 6 {
		t.Errorf("%d events in an upgrade of three:\n%s", n, &seen)
	}
}

// renamed is an installer under another name: what it does belongs to the same field manager.
func (l *life) renamed(t *testing.T) {
	const name = "renamed"
	program := filepath.Join(l.site.dir, "installer-of-the-site")
	if err := os.Symlink(sealiftBinary(t), program); err != nil {
		t.Fatal(err)
	}
	output(t, l.site.command(t.Context(), program, l.with("install", l.packed(t, name, "1.0.0", chart{release: "web"}))...))
	for manager := range strings.FieldsSeq(l.field(t, name, "deployment/web", ".metadata.managedFields[*].manager")) {
		if manager != "helm" && manager != "kube-controller-manager" {
			t.Errorf("fields belong to %q", manager)
		}
	}
	l.install(t, exitDone, l.packed(t, name, "2.0.0", chart{release: "web", values: newer + "greeting: new"}))
	l.equal(t, name, "deployment/web", greeting, "new")
}

// hooks still run when their installer is killed: they are ended before anything goes back.
func (l *life) hooks(t *testing.T) {
	const name = "hooks"
	l.install(t, exitDone, l.packed(t, name, "1.0.0", chart{release: "web"}))
	two := l.packed(t, name, "2.0.0", chart{release: "web", values: newer + "hook: pause", more: "rollback: safe"})
	cmd := l.site.command(t.Context(), sealiftBinary(t), l.with("install", two)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, 60*time.Second, func() string {
		if l.field(t, name, "job/web-pre-upgrade", ".status.active") != "1" || l.running(t, name, "web-pre-upgrade") == 0 {
			return "the hook does not run"
		}
		return ""
	})
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // was killed
	waitFor(t, 30*time.Second, func() string {
		if out := l.status(t, exitHeld, name); !strings.Contains(out, "interrupted") || !strings.Contains(out, "sealift revert hooks") {
			return "status says\n" + out
		}
		return ""
	})
	if l.running(t, name, "web-pre-upgrade") != 1 {
		t.Fatal("the hook has ended with its installer")
	}
	l.change(t, exitDone, "revert", name)
	if n := l.running(t, name, "web-pre-upgrade"); n != 0 {
		t.Errorf("%d pods of the hook run after the way back", n)
	}
	if n := l.field(t, name, "job/web-pre-upgrade", ".status.active"); n != "" {
		t.Errorf("the hook's Job has %s active pods after the way back", n)
	}
	l.status(t, exitDone, name)
	if s := l.statusOf(t, name, "web"); s != "deployed" {
		t.Errorf("the release is %s", s)
	}
}

// running is how many pods of a Job run.
func (l *life) running(t *testing.T, namespace, job string) int {
	t.Helper()
	return strings.Count(l.site.kubectl(t, "get", "pods", "-n", namespace, "-l", "batch.kubernetes.io/job-name="+job, "--field-selector", "status.phase=Running", "-o", "name"), "\n")
}

// contested is a release that two bundles have.
func (l *life) contested(t *testing.T) {
	const name, rival = "owner", "rival"
	l.install(t, exitDone, l.packed(t, name, "1.0.0", chart{release: "web"}))
	spec := strings.ReplaceAll(l.spec(t, rival, "1.0.0", chart{release: "web", values: newer}), "namespace: rival", "namespace: owner")
	file := l.packedSpec(t, rival, "1.0.0", spec)
	for _, args := range [][]string{l.with("preflight", file), l.with("install", file), l.with("install", file, "--adopt")} {
		r := l.site.sealift(t, exitRefused, args...)
		says(t, r.stdout+r.stderr, "owner/web", `"owner"`)
	}
	if n := l.revisions(t, name, "web"); n != 1 {
		t.Errorf("a refused install left %d revisions, want 1", n)
	}
	l.status(t, exitDone, name)
}

// rights are those that preflight --print-rbac prints: with them it can be installed, and without one of them nothing is touched.
func (l *life) rights(t *testing.T) {
	const name = "rights"
	pack := func(version, values string) string {
		return l.packed(t, name, version, chart{release: "web", values: values, more: "rollback: safe\nchecks: [{name: answers, http: {service: web, port: 80, path: /}, timeout: 30s}]"})
	}
	one, two := pack("1.0.0", "firstHook: job"), pack("2.0.0", newer+"hook: job\n")
	rbac := l.site.sealift(t, exitDone, l.with("preflight", one, "--print-rbac")...).stdout
	l.apply(t, rbac)
	kubeconfig := l.kubeconfigFor(t, "installer", map[string]any{"token": strings.TrimSpace(l.site.kubectl(t, "create", "token", "sealift", "-n", "sealift"))})
	as := func(args []string) []string { return append(args, "--kubeconfig", kubeconfig) }
	l.site.sealift(t, exitDone, as(l.with("preflight", one))...)
	l.site.sealift(t, exitDone, as(l.with("install", one))...)
	l.site.sealift(t, exitDone, as(l.at("status", name))...)

	// Without the right to change Deployments nothing is begun.
	role := l.site.kubectl(t, "get", "role", "-n", name, "-o", "json")
	var roles struct{ Items []map[string]any }
	if err := json.Unmarshal([]byte(role), &roles); err != nil || len(roles.Items) != 1 {
		t.Fatalf("%v: want one role in\n%s", err, role)
	}
	less, err := json.Marshal(withoutRule(roles.Items[0], "deployments"))
	if err != nil {
		t.Fatal(err)
	}
	put := l.site.kubectlCommand(t.Context(), "replace", "-f", "-")
	put.Stdin = strings.NewReader(string(less))
	output(t, put)
	for _, command := range []string{"preflight", "install"} {
		r := l.site.sealift(t, exitRefused, as(l.with(command, two))...)
		says(t, r.stdout+r.stderr, "may not", "deployments", "--print-rbac")
	}
	if n := l.revisions(t, name, "web"); n != 1 {
		t.Errorf("a refused install left %d revisions, want 1", n)
	}
	l.status(t, exitDone, name)
	l.apply(t, l.site.sealift(t, exitDone, l.with("preflight", two, "--print-rbac")...).stdout)
	l.site.sealift(t, exitDone, as(l.with("install", two))...)
}

// withoutRule is a role that says nothing of a resource.
func withoutRule(role map[string]any, resource string) map[string]any {
	rules, _ := role["rules"].([]any)
	for _, r := range rules {
		rule, _ := r.(map[string]any)
		resources, _ := rule["resources"].([]any)
		for i, name := range resources {
			if name == resource {
				resources[i] = resource + "-not"
			}
		}
	}
	return role
}
