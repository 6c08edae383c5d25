//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

// hostVolume is a volume in the site's memory that the claim NAMESPACE-RELEASE-CLAIM binds to.
func (l *life) hostVolume(t *testing.T, namespace, release, claim string) {
	t.Helper()
	id := namespace + "-" + release + "-" + claim
	l.apply(t, fmt.Sprintf(`apiVersion: v1
kind: PersistentVolume
metadata: {name: %[1]s}
spec:
  storageClassName: ""
  accessModes: [ReadWriteOnce]
  capacity: {storage: 1Mi}
  hostPath: {path: /var/lib/volumes/%[1]s, type: DirectoryOrCreate}
  claimRef: {namespace: %[2]s, name: %[3]s-%[4]s}
`, id, namespace, release, claim))
}

// file reads, or with content writes, a file in such a volume.
func (l *life) file(t *testing.T, volume, content string) string {
	t.Helper()
	path := "/var/lib/volumes/" + volume + "/data"
	if content != "" {
		output(t, l.site.inside(t.Context(), "sh", "-c", "printf %s '"+content+"' > "+path))
	}
	return output(t, l.site.inside(t.Context(), "cat", path))
}

// failures upgrade three releases, of which the third fails, each time in another way: all three go back, and what is in the
// volume stays.
func (l *life) failures(t *testing.T) {
	const name = "three"
	three := func(version string, web chart) string {
		values := newer
		if version == "1.0.0" {
			values = ""
		}
		return l.packedSpec(t, name, version, "ignoreImages: [{match: '127.0.0.1:5555/demo/app:9.9.9', why: so that it is missing}]\n"+l.spec(t, name, version,
			chart{release: "db", values: values + "claim: data\nmount: db-data\n"},
			chart{release: "api", values: values, more: "dependsOn: [db]"}, web))
	}
	web := func(values string) chart {
		return chart{release: "web", values: values, more: "dependsOn: [api]\nrollback: safe"}
	}
	l.hostVolume(t, name, "db", "data")
	l.site.sealift(t, exitDone, l.with("install", three("1.0.0", web("")))...)
	l.file(t, name+"-db-data", "precious")
	claim := l.field(t, name, "persistentvolumeclaim/db-data", ".metadata.uid")

	for version, failure := range map[string]struct{ values, why string }{
		"2.0.0": {"image: 127.0.0.1:5555/demo/app:9.9.9\n", "ImagePull"},
		"2.1.0": {newer + "neverReady: true\n", "not ready"},
		"2.2.0": {newer + "hook: fail\n", "pre-upgrade"},
	} {
		r := l.site.sealift(t, exitChangedBack, l.with("install", three(version, web(failure.values)), "--timeout", "12s")...)
		for _, want := range []string{"web", failure.why, "changed back:", "three/db to revision ", "three/api to revision "} {
			if !strings.Contains(r.stderr, want) {
				t.Errorf("version %s: the error does not mention %q:\n%s", version, want, r.stderr)
			}
		}
		for _, release := range []string{"db", "api", "web"} {
			if image := l.field(t, name, "deployment/"+release, ".spec.template.spec.containers[0].image"); !strings.Contains(image, "demo/app:1.0.0@") {
				t.Errorf("version %s: release %s has image %s, want that of 1.0.0", version, release, image)
			}
		}
		if got := l.file(t, name+"-db-data", ""); got != "precious" {
			t.Errorf("version %s: the volume holds %q", version, got)
		}
		if got := l.field(t, name, "persistentvolumeclaim/db-data", ".metadata.uid"); got != claim {
			t.Errorf("version %s: the claim is another one", version)
		}
		if status := l.site.sealift(t, exitDone, l.at("status", name)...); !strings.Contains(status.stdout, "three 1.0.0: installed") {
			t.Errorf("version %s: status says\n%s", version, status.stdout)
		}
	}

	// The same, and no way back: it is held, and goes back only by force.
	noReturn := three("2.3.0", chart{release: "web", values: newer + "hook: fail\n", more: "dependsOn: [api]"})
	if r := l.site.sealift(t, exitRefused, l.with("install", noReturn)...); !strings.Contains(r.stderr, "--accept-no-return") {
		t.Errorf("a point of no return is not asked about:\n%s", r.stderr)
	}
	l.site.sealift(t, exitHeld, l.with("install", noReturn, "--accept-no-return", "--backup-done", "nas:/1", "--timeout", "12s")...)
	l.site.sealift(t, exitHeld, l.at("status", name)...)
	l.site.sealift(t, exitRefused, l.at("revert", name, "--lease", "5s")...)
	l.site.sealift(t, exitDone, l.at("revert", name, "--lease", "5s", "--over-no-return")...)
	l.site.sealift(t, exitDone, l.at("status", name)...)
	if got := l.file(t, name+"-db-data", ""); got != "precious" {
		t.Errorf("the volume holds %q", got)
	}

	// What is left after all of it: the data.
	l.site.sealift(t, exitDone, l.at("uninstall", name, "--lease", "5s")...)
	if got := l.field(t, name, "persistentvolumeclaim/db-data", ".metadata.uid"); got != claim {
		t.Error("uninstall has taken the claim")
	}
	if got := l.file(t, name+"-db-data", ""); got != "precious" {
		t.Errorf("the volume holds %q", got)
	}
	if left := l.site.kubectl(t, "get", "deployments,services", "-n", name, "-o", "name"); left != "" {
		t.Errorf("left behind: %s", left)
	}
}

// holds stops at a release, goes on, goes back to the version before, and has two installers at once.
func (l *life) holds(t *testing.T) {
	const name = "holds"
	pack := func(version, values string) string {
		return l.packed(t, name, version, chart{release: "db", values: values}, chart{release: "web", values: values, more: "dependsOn: [db]"})
	}
	one, two := pack("1.0.0", ""), pack("2.0.0", newer)
	image := func(release string) string {
		image := l.field(t, name, "deployment/"+release, ".spec.template.spec.containers[0].image")
		_, version, _ := strings.Cut(image, "/demo/app:")
		version, _, _ = strings.Cut(version, "@")
		return version
	}
	check := func(db, web string) {
		t.Helper()
		if gotDB, gotWeb := image("db"), image("web"); gotDB != db || gotWeb != web {
			t.Errorf("db runs %q and web %q, want %q and %q", gotDB, gotWeb, db, web)
		}
	}
	both := make([]result, 2)
	errs := make([]error, 2)
	var group sync.WaitGroup
	for i := range both {
		group.Go(func() { both[i], errs[i] = l.site.run(t, l.with("install", one)...) })
	}
	group.Wait()
	// The other one meets it when it looks, or when it begins.
	lost := func(code int) bool { return code == exitChangedBack || code == exitRefused }
	if a, b := both[0].code, both[1].code; (a != exitDone || !lost(b)) && (b != exitDone || !lost(a)) {
		t.Errorf("two at once: %v, %+v; want one to win and the other to leave it to that one", errs, both)
	}
	check("1.0.0", "1.0.0")

	l.site.sealift(t, exitDone, l.with("install", two, "--until", "db")...)
	check("2.0.0", "1.0.0")
	l.site.sealift(t, exitHeld, l.at("status", name)...)
	l.site.sealift(t, exitRefused, l.with("install", two)...)
	l.site.sealift(t, exitDone, l.at("revert", name, "--lease", "5s")...)
	check("1.0.0", "1.0.0")
	l.site.sealift(t, exitDone, l.with("install", two, "--until", "holds/db")...)
	l.site.sealift(t, exitDone, "resume", two, "--key", "cosign.pub", "--kubeconfig", l.site.kubeconfig(), "--lease", "5s", "--progress", "none")
	check("2.0.0", "2.0.0")

	l.site.sealift(t, exitDone, l.at("rollback", "--bundle", name, "--lease", "5s", "--dry-run")...)
	check("2.0.0", "2.0.0")
	l.site.sealift(t, exitDone, l.at("rollback", "1.0.0", "--bundle", name, "--lease", "5s")...)
	check("1.0.0", "1.0.0")
	l.site.sealift(t, exitDone, l.at("rollback", "2.0.0", "--bundle", name, "--lease", "5s")...)
	check("2.0.0", "2.0.0")
	l.site.sealift(t, exitRefused, l.at("rollback", "7.0.0", "--bundle", name, "--lease", "5s")...)
	history := l.site.sealift(t, exitDone, l.at("history", name)...).stdout
	if n := strings.Count(history, "rollback"); n != 2 {
		t.Errorf("history has %d rollbacks, want 2:\n%s", n, history)
	}
	l.site.sealift(t, exitDone, l.at("uninstall", name, "--lease", "5s")...)
	if r := l.site.sealift(t, exitChangedBack, l.at("status", name)...); !strings.Contains(r.stdout+r.stderr, "not installed") && !strings.Contains(r.stdout, "nothing installed") {
		t.Errorf("after the uninstall status says\n%s%s", r.stdout, r.stderr)
	}
}
