//go:build e2e

package e2e

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// loneChart has pods that name their image by tag and by digest, and a hook.
const loneChart = `apiVersion: apps/v1
kind: Deployment
metadata: {name: tagged}
spec:
  replicas: 1
  selector: {matchLabels: {app: tagged}}
  template:
    metadata: {labels: {app: tagged}}
    spec:
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 5
      containers:
        - name: app
          image: {{ .Values.tagged | quote }}
          {{- with .Values.policy }}
          imagePullPolicy: {{ . }}
          {{- end }}
          readinessProbe: {httpGet: {path: /ready, port: 8080}, periodSeconds: 1}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: digested}
spec:
  replicas: 1
  selector: {matchLabels: {app: digested}}
  template:
    metadata: {labels: {app: digested}}
    spec:
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 5
      containers:
        - name: app
          image: {{ .Values.digested | quote }}
          imagePullPolicy: Never
          readinessProbe: {httpGet: {path: /ready, port: 8080}, periodSeconds: 1}
---
apiVersion: batch/v1
kind: Job
metadata:
  name: migrate
  annotations: {helm.sh/hook: "pre-install,pre-upgrade", helm.sh/hook-delete-policy: before-hook-creation}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      automountServiceAccountToken: false
      containers: [{name: job, image: {{ .Values.job | quote }}}]
`

const loneSpec = `apiVersion: sealift/v1
kind: Bundle
name: lone
version: %[1]s
platforms: [linux/%[2]s]
images:
  - ref: 127.0.0.1:5555/pause:3.10
charts:
  - path: ./lone
    release: lone
    namespace: lone
    rollback: safe
    values: [values-%[1]s.yaml]
parameters:
  - {name: policy, type: string, values: [{path: policy}]}
`

// secondNode is a node that never was.
const secondNode = `apiVersion: v1
kind: Node
metadata: {name: node2}
`

// TestWithoutRegistry is the first ten minutes of a site with one node, a USB disk and no registry.
func TestWithoutRegistry(t *testing.T) {
	sealiftBinary(t)
	dir := t.TempDir()
	vendorDir, siteDir := filepath.Join(dir, "vendor"), filepath.Join(dir, "site")
	for _, d := range []string{vendorDir, siteDir} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := startSite(t, siteDir)
	l := &loneNode{
		journey: journey{vendor: side{netns: s.name + "-vendor", dir: vendorDir}, site: s, images: map[string]string{}},
		disk:    filepath.Join(siteDir, "usb"), binary: filepath.Join(siteDir, "bin", "sealift"),
	}
	stopRegistry := l.startVendorRegistry(t)
	for _, step := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"vendor pushes images", l.pushImages},
		{"vendor packs onto a disk", func(step *testing.T) { mountDisk(t, l.disk, l.packDisk(step)) }},
		{"vendor goes", func(*testing.T) { stopRegistry() }},
		{"the program leaves the disk", l.installProgram},
		{"load", l.load},
		{"refused", l.refused},
		{"install", func(t *testing.T) { l.installed(t, "1.0.0") }},
		{"upgrade", func(t *testing.T) { l.installed(t, "2.0.0") }},
		{"pods come back", l.podsComeBack},
		{"no registry was used", l.noRegistry},
		{"nothing tried to leave", l.nothingTriedToLeave},
	} {
		if !t.Run(step.name, step.run) {
			t.Fatal("the steps that follow need this one")
		}
	}
}

// loneNode is a journey without a registry.
type loneNode struct {
	journey
	// disk is where the USB disk is mounted, binary where the program is copied to.
	disk, binary string
	// indexes are the digests of the app's images, by version.
	indexes map[string]string
}

// packDisk packs two versions. It returns what is on the disk, by its names: these, the key and the program.
func (l *loneNode) packDisk(t *testing.T) map[string]string {
	v := l.vendor
	l.indexes = map[string]string{}
	write := func(name, content string) {
		t.Helper()
		path := filepath.Join(v.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("lone/Chart.yaml", "apiVersion: v2\nname: lone\nversion: 0.1.0\n")
	write("lone/values.yaml", "policy: \"\"\n")
	write("lone/templates/all.yaml", loneChart)
	v.sealift(t, exitDone, "keygen", "--output-prefix", "cosign")
	carry := map[string]string{"cosign.pub": filepath.Join(v.dir, "cosign.pub"), "sealift": sealiftBinary(t)}
	for _, version := range []string{"1.0.0", "2.0.0"} {
		raw := v.fetch(t, "http://"+vendorRegistry+"/v2/demo/app/manifests/"+version)
		l.indexes[version] = fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(raw)))
		write("values-"+version+".yaml", fmt.Sprintf("tagged: 127.0.0.1:5555/demo/app:%s\ndigested: 127.0.0.1:5555/demo/app@%s\njob: 127.0.0.1:5555/demo/migrate:1.0.0\n", version, l.indexes[version]))
		write("lone-"+version+".yaml", fmt.Sprintf(loneSpec, version, runtime.GOARCH))
		v.sealift(t, exitDone, "pack", "-f", "lone-"+version+".yaml", "-o", ".", "--key", "cosign.key")
		carry["lone-"+version+".tar.zst"] = filepath.Join(v.dir, "lone-"+version+".tar.zst")
	}
	return carry
}

// mountDisk mounts a disk with some files, read-only and noexec: FAT, as USB disks have it, where the kernel
// can. It stays until t ends.
func mountDisk(t *testing.T, at string, files map[string]string) {
	t.Helper()
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	source, options := "tmpfs", []string{"-t", "tmpfs", "-o", "size=512m,noexec,nosuid,nodev"}
	if known, err := os.ReadFile("/proc/filesystems"); err == nil && bytes.Contains(known, []byte("vfat")) {
		source, options = at+".img", []string{"-t", "vfat", "-o", "loop,noexec,nosuid,nodev"}
		f, err := os.Create(source)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Truncate(512<<20), f.Close()); err != nil {
			t.Fatal(err)
		}
		output(t, exec.CommandContext(t.Context(), "mkfs.vfat", source))
	} else {
		t.Log("this kernel has no vfat: the disk is a tmpfs")
	}
	output(t, exec.CommandContext(t.Context(), "mount", append(options, source, at)...))
	t.Cleanup(func() {
		if out, err := exec.Command("umount", at).CombinedOutput(); err != nil {
			t.Errorf("unmounting the disk: %v: %s", err, out)
		}
	})
	for name, from := range files {
		output(t, exec.CommandContext(t.Context(), "cp", from, filepath.Join(at, name)))
	}
	output(t, exec.CommandContext(t.Context(), "mount", "-o", "remount,ro,noexec,nosuid,nodev", at))
}

// installProgram copies the program off the disk, where it cannot run.
func (l *loneNode) installProgram(t *testing.T) {
	// Through a shell: what LookPath sees of the mode of a file does not count there.
	out, err := exec.CommandContext(t.Context(), "sh", "-c", filepath.Join(l.disk, "sealift")+" version").CombinedOutput()
	if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != 126 {
		t.Errorf("running the program on the disk: %v: %s; want it not permitted", err, out)
	}
	if err := os.WriteFile(filepath.Join(l.disk, "x"), nil, 0o600); err == nil {
		t.Error("the disk can be written")
	}
	output(t, exec.CommandContext(t.Context(), "install", "-D", "-m", "755", filepath.Join(l.disk, "sealift"), l.binary))
}

// run runs the program that came on the disk; it must end with the given exit code.
func (l *loneNode) run(t *testing.T, want int, args ...string) result {
	t.Helper()
	start := time.Now()
	cmd := l.site.command(t.Context(), l.binary, args...)
	cmd.Env = append(cmd.Env, "CONTAINERD_ADDRESS=unix://"+l.site.state+"/containerd.sock", "KUBECONFIG="+l.site.kubeconfig())
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	r := result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
	t.Logf("sealift %s: exit code %d after %.1fs", strings.Join(args, " "), r.code, time.Since(start).Seconds())
	if r.code != want {
		t.Fatalf("exit code %d, want %d\n--- stdout\n%s\n--- stderr\n%s", r.code, want, r.stdout, r.stderr)
	}
	return r
}

func (l *loneNode) bundle(version string) string {
	return filepath.Join(l.disk, "lone-"+version+".tar.zst")
}

func (l *loneNode) key() string { return filepath.Join(l.disk, "cosign.pub") }

// installArgs are the arguments to install a version without a registry.
func (l *loneNode) installArgs(version string, more ...string) []string {
	return append([]string{"install", l.bundle(version), "--via", "containerd", "--key", l.key(), "--timeout", "60s"}, more...)
}

// ctr runs containerd's own tool in the site.
func (l *loneNode) ctr(t *testing.T, args ...string) string {
	t.Helper()
	return output(t, l.site.inside(t.Context(), append([]string{"ctr", "-a", l.site.state + "/containerd.sock", "-n", "k8s.io"}, args...)...))
}

// load brings the images into the node, and finds nothing to do the second time.
func (l *loneNode) load(t *testing.T) {
	r := l.run(t, exitDone, "load", l.bundle("1.0.0"), "--key", l.key())
	if !strings.Contains(r.stdout, "loaded lone 1.0.0 into containerd") || strings.Contains(r.stdout, "everything is there") {
		t.Errorf("load: %s", r.stdout)
	}
	images := l.ctr(t, "images", "ls")
	for _, name := range []string{"demo/app:1.0.0 ", "demo/app@" + l.indexes["1.0.0"] + " ", "pause:3.10 ", "demo/migrate:1.0.0 "} {
		found := ""
		for line := range strings.Lines(images) {
			if strings.HasPrefix(line, vendorRegistry+"/"+name) {
				found = line
			}
		}
		if !strings.Contains(found, "io.cri-containerd.image=managed") || !strings.Contains(found, "io.cri-containerd.pinned=pinned") {
			t.Errorf("image %s: %q\n%s", name, found, images)
		}
	}
	if r := l.run(t, exitDone, "load", l.bundle("1.0.0"), "--key", l.key()); !strings.Contains(r.stdout, "everything is there already") {
		t.Errorf("load again: %s", r.stdout)
	}
}

// refused shows what is not even tried: with a policy that asks a registry, and with two nodes.
func (l *loneNode) refused(t *testing.T) {
	const exitPreflight = 22
	r := l.run(t, exitPreflight, l.installArgs("1.0.0", "--set", "policy=Always")...)
	if !strings.Contains(r.stderr, "imagePullPolicy: Always") || !strings.Contains(r.stderr, "Deployment/tagged") {
		t.Errorf("with the policy Always: %s", r.stderr)
	}
	file := filepath.Join(l.site.dir, "node.yaml")
	if err := os.WriteFile(file, []byte(secondNode), 0o644); err != nil {
		t.Fatal(err)
	}
	l.site.kubectl(t, "create", "-f", file)
	r = l.run(t, exitPreflight, l.installArgs("1.0.0")...)
	if !strings.Contains(r.stderr, "the cluster has 2 nodes (node1, node2)") {
		t.Errorf("with two nodes: %s", r.stderr)
	}
	l.site.kubectl(t, "delete", "node", "node2")
	if out := l.site.kubectl(t, "get", "namespace", "lone", "--ignore-not-found", "-o", "name"); out != "" {
		t.Errorf("what was refused has made %s", out)
	}
}

// installed installs a version, or upgrades to it, and looks at what runs.
func (l *loneNode) installed(t *testing.T, version string) {
	r := l.run(t, exitDone, l.installArgs(version)...)
	if !strings.Contains(r.stdout, "installed lone "+version+" from containerd") {
		t.Errorf("install: %s", r.stdout)
	}
	if status := l.releaseStatus(t, "lone"); status != "deployed" {
		t.Errorf("the release is %s", status)
	}
	l.checkPods(t, version)
}

// checkPods checks that the pods run a version, from the names that the vendor gave.
func (l *loneNode) checkPods(t *testing.T, version string) {
	t.Helper()
	for app, image := range map[string]string{
		"tagged":   vendorRegistry + "/demo/app:" + version,
		"digested": vendorRegistry + "/demo/app@" + l.indexes[version],
	} {
		waitFor(t, 60*time.Second, func() string {
			var pods struct {
				Items []struct {
					Metadata struct{ Name string }
					Spec     struct{ Containers []struct{ Image string } }
					Status   struct{ Phase, PodIP string }
				}
			}
			l.site.get(t, &pods, "pods", "-n", "lone", "-l", "app="+app)
			if len(pods.Items) != 1 {
				return fmt.Sprintf("%s has %d pods, want 1", app, len(pods.Items))
			}
			pod := pods.Items[0]
			if pod.Status.Phase != "Running" || pod.Spec.Containers[0].Image != image {
				return fmt.Sprintf("pod %s is %s, from %s, want it to run from %s", pod.Metadata.Name, pod.Status.Phase, pod.Spec.Containers[0].Image, image)
			}
			out, err := l.site.fetchCommand(t.Context(), "http://"+pod.Status.PodIP+":8080/").CombinedOutput()
			if want := fmt.Sprintf("version %s on %s\n", version, pod.Metadata.Name); err != nil || string(out) != want {
				return fmt.Sprintf("pod %s says %q (%v), want %q", pod.Metadata.Name, out, err, want)
			}
			return ""
		})
	}
}

// podsComeBack lets containerd collect what nothing refers to, and then kills the pods.
func (l *loneNode) podsComeBack(t *testing.T) {
	l.ctr(t, "leases", "create", "--id", "collect")
	l.ctr(t, "leases", "rm", "--sync", "collect")
	l.site.kubectl(t, "delete", "pods", "-n", "lone", "--all", "--wait=true")
	l.checkPods(t, "2.0.0")
	if r := l.run(t, exitDone, "load", l.bundle("2.0.0"), "--key", l.key()); !strings.Contains(r.stdout, "everything is there already") {
		t.Errorf("load after all that: %s", r.stdout)
	}
}

// noRegistry shows that the site's registry, which is not told to anybody, is still empty.
func (l *loneNode) noRegistry(t *testing.T) {
	if catalog := l.site.fetch(t, "http://"+siteRegistry+"/v2/_catalog"); strings.TrimSpace(catalog) != `{"repositories":[]}` {
		t.Errorf("the registry has %s", catalog)
	}
}
