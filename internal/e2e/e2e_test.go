//go:build e2e

package e2e

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The exit codes that docs/exit-codes.md promises.
const (
	exitDone        = 0
	exitRegistry    = 20
	exitChangedBack = 21
	exitInterrupted = 130
)

// bundles are what the vendor packs: a name, a version, and the values that the chart gets.
var bundles = []struct{ name, version, values string }{
	{"demo", "1.0.0", ""},
	{"demo", "2.0.0", "image: 127.0.0.1:5555/demo/app:2.0.0"},
	{"demo", "2.1.0", "image: 127.0.0.1:5555/demo/app:1.0.0"}, // back and forth, to see which one runs
	{"demo", "2.2.0", "image: 127.0.0.1:5555/demo/app:2.0.0"},
	{"demo", "3.0.0", "image: 127.0.0.1:5555/demo/app:2.0.0\nneverReady: true\nclaim: true"},
	{"demo", "3.1.0", "image: 127.0.0.1:5555/demo/app:2.0.0\nmigrateFails: true"},
	{"first", "1.0.0", "neverReady: true\nclaim: true"},
	{"first", "1.0.1", "claim: true"},
	{"twins", "1.0.0", ""},
}

// claimTemplate is added to the demo's chart: a claim that binds without a provisioner.
const claimTemplate = `{{- if .Values.claim }}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {{ .Release.Name }}-data
spec:
  storageClassName: ""
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 1Mi}}
{{- end }}
`

// volume is what such a claim binds to, for the namespace %[1]s.
const volume = `apiVersion: v1
kind: PersistentVolume
metadata: {name: %[1]s}
spec:
  storageClassName: ""
  accessModes: [ReadWriteOnce]
  capacity: {storage: 1Mi}
  hostPath: {path: /var/lib/volumes/%[1]s, type: DirectoryOrCreate}
  claimRef: {namespace: %[1]s, name: %[1]s-data}
`

// journey is what the steps of the test share.
type journey struct {
	vendor side
	site   site
	// digests of what the vendor pushed: the image for this machine, by original reference
	images map[string]string
}

func TestAcrossTheGap(t *testing.T) {
	sealiftBinary(t)
	dir := t.TempDir()
	vendorDir, siteDir := filepath.Join(dir, "vendor"), filepath.Join(dir, "site")
	for _, d := range []string{vendorDir, siteDir} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := startSite(t, siteDir)
	j := &journey{vendor: side{netns: s.name + "-vendor", dir: vendorDir}, site: s, images: map[string]string{}}
	stopRegistry := j.startVendorRegistry(t)

	for _, step := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"vendor pushes images", j.pushImages},
		{"vendor packs", j.pack},
		{"no way between the sides", j.noWayOut},
		{"vendor goes", func(*testing.T) { stopRegistry() }},
		{"verify", j.verify},
		{"dry run of the first installation", j.dryRunFirst},
		{"seed", j.seed},
		{"install", j.install},
		{"pull by original name with containerd", j.pullWithContainerd},
		{"pull by original name with podman", j.pullWithPodman},
		{"dry run of an upgrade", j.dryRunUpgrade},
		{"upgrade", j.upgrade},
		{"two upgrades at once", j.upgradeTwice},
		{"two first installations at once", j.installTwice},
		{"upgrade whose pods never get ready", j.upgradeThatNeverGetsReady},
		{"upgrade whose hook fails", func(t *testing.T) { j.failingUpgrade(t, "3.1.0", "demo-migrate") }},
		{"upgrade that is interrupted", j.interruptedUpgrade},
		{"first installation that fails", j.failingFirst},
		{"plain objects and parameters", j.plainObjects},
		{"nothing tried to leave", j.nothingTriedToLeave},
	} {
		if !t.Run(step.name, step.run) {
			t.Fatal("the steps that follow need this one")
		}
	}
}

// startVendorRegistry starts the registry of the vendor's side. The function it returns stops it.
func (j *journey) startVendorRegistry(t *testing.T) (stop func()) {
	t.Helper()
	config := filepath.Join(j.vendor.dir, "registry.yaml")
	content := fmt.Sprintf("version: 0.1\nlog: {level: warn}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %q}\n",
		filepath.Join(j.vendor.dir, "registry"), vendorRegistry)
	if err := os.WriteFile(config, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := j.vendor.command(t.Context(), "docker-registry", "serve", config)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = func() {
		_ = cmd.Process.Kill() // may have ended
		_ = cmd.Wait()         // was killed, so this says nothing
	}
	t.Cleanup(stop)
	waitFor(t, 10*time.Second, func() string {
		if ok, why := j.vendor.registryAnswers(t.Context(), vendorRegistry); !ok {
			return "the vendor's registry does not answer: " + why
		}
		return ""
	})
	return stop
}

// pushImages builds the demo's images into the vendor's registry, for this machine's architecture and another.
func (j *journey) pushImages(t *testing.T) {
	program := filepath.Join(j.vendor.dir, "images")
	output(t, exec.CommandContext(t.Context(), "go", "build", "-o", program, "../../testdata/demo/images"))
	other := "arm64"
	if runtime.GOARCH == other {
		other = "amd64"
	}
	push := j.vendor.command(t.Context(), program, "-pause",
		"-platforms", "linux/"+runtime.GOARCH+",linux/"+other, vendorRegistry)
	push.Dir, push.Env = "", os.Environ() // it calls the go command in this module
	for line := range strings.Lines(output(t, push)) {
		reference, _, _ := strings.Cut(line, " ")
		repository, tag := splitReference(t, reference)
		j.images[reference] = j.vendor.imageDigest(t, vendorRegistry, repository, tag)
	}
	want := []string{
		"127.0.0.1:5555/demo/app:1.0.0", "127.0.0.1:5555/demo/app:2.0.0",
		"127.0.0.1:5555/demo/migrate:1.0.0", "127.0.0.1:5555/pause:3.10",
	}
	if got := slices.Sorted(maps.Keys(j.images)); !slices.Equal(got, want) {
		t.Fatalf("pushed %v, want %v", got, want)
	}
}

// pack makes keys and all bundles, and carries the bundles and the public key over to the site.
func (j *journey) pack(t *testing.T) {
	if err := os.CopyFS(filepath.Join(j.vendor.dir, "chart"), os.DirFS("../../testdata/demo/chart")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(j.vendor.dir, "chart", "templates", "claim.yaml"), []byte(claimTemplate), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(j.vendor.dir, "out"), 0o755); err != nil {
		t.Fatal(err)
	}
	j.vendor.sealift(t, exitDone, "keygen", "--output-prefix", "cosign")
	carry := []string{"cosign.pub"}
	for _, b := range bundles {
		id := b.name + "-" + b.version
		spec := fmt.Sprintf(`apiVersion: sealift/v1
kind: Bundle
name: %[1]s
version: %[2]s
platforms: [linux/%[3]s]
images:
  - ref: 127.0.0.1:5555/pause:3.10
charts:
  - path: ./chart
    release: %[1]s
    namespace: %[1]s
    rollback: safe
    values: [values-%[1]s-%[2]s.yaml]
`, b.name, b.version, runtime.GOARCH)
		for name, content := range map[string]string{"sealift-" + id + ".yaml": spec, "values-" + id + ".yaml": b.values} {
			if err := os.WriteFile(filepath.Join(j.vendor.dir, name), []byte(content+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		j.vendor.sealift(t, exitDone, "pack", "-f", "sealift-"+id+".yaml", "-o", "out", "--key", "cosign.key")
		carry = append(carry, "out/"+id+".tar.zst")
	}
	carry = append(carry, j.packPlain(t)...)
	for _, name := range carry {
		content, err := os.ReadFile(filepath.Join(j.vendor.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(j.site.dir, filepath.Base(name)), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// noWayOut shows that nothing in the site could reach the vendor's registry, which runs now.
func (j *journey) noWayOut(t *testing.T) {
	for _, family := range []string{"-4", "-6"} {
		routes := output(t, exec.CommandContext(t.Context(), "ip", "-n", j.site.netns, family, "route", "show", "table", "all"))
		for line := range strings.Lines(routes) {
			if strings.Contains(line, "default") || strings.Contains(line, " via ") {
				t.Errorf("the site has a route out: %s", line)
			}
		}
	}
	var links []struct {
		Name      string `json:"ifname"`
		PeerNetns *int   `json:"link_netnsid"`
	}
	out := output(t, exec.CommandContext(t.Context(), "ip", "-n", j.site.netns, "-json", "link", "show"))
	if err := json.Unmarshal([]byte(out), &links); err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if !slices.Contains([]string{"lo", "node0", "node1"}, link.Name) || link.PeerNetns != nil {
			t.Errorf("the site has an unexpected link: %+v", link)
		}
	}

	if ok, why := j.vendor.registryAnswers(t.Context(), vendorRegistry); !ok {
		t.Errorf("the vendor's registry does not answer the vendor: %s", why)
	}
	if ok, why := j.site.registryAnswers(t.Context(), vendorRegistry); ok || !strings.Contains(why, "connection refused") {
		t.Errorf("the vendor's address as seen from the site: got %q, want a refused connection", why)
	}
	// An address of the documentation range stands for the rest of the world.
	if ok, why := j.site.registryAnswers(t.Context(), "192.0.2.1:80"); ok || !strings.Contains(why, "network is unreachable") {
		t.Errorf("the world as seen from the site: got %q, want an unreachable network", why)
	}
}

// verify pins a policy, which counts for everything that follows.
func (j *journey) verify(t *testing.T) {
	key, err := os.ReadFile(filepath.Join(j.site.dir, "cosign.pub"))
	if err != nil {
		t.Fatal(err)
	}
	policy := fmt.Sprintf(`mediaType: application/vnd.sealift.policy.v1+yaml
signers:
  vendor: {key: %q}
rules:
  - name: demo
    bundles: [demo, first, twins]
    groups: [{name: vendor, threshold: 1, signers: [vendor]}]
    limits: {namespaces: [demo, first, twins], podSecurity: baseline, clusterScoped: false}
  - name: plain
    bundles: [plain]
    groups: [{name: vendor, threshold: 1, signers: [vendor]}]
    limits: {namespaces: [plain], podSecurity: baseline, clusterScoped: true}
`, key)
	if err := os.WriteFile(filepath.Join(j.site.dir, "trust.yaml"), []byte(policy), 0o644); err != nil {
		t.Fatal(err)
	}
	j.site.sealift(t, exitDone, "trust", "init", "trust.yaml")
	for _, b := range bundles {
		j.site.sealift(t, exitDone, "verify", b.name+"-"+b.version+".tar.zst")
	}
}

// seedArgs are the arguments to seed a bundle into the site's registry.
func seedArgs(bundle string, more ...string) []string {
	return append([]string{"seed", bundle + ".tar.zst", "--registry", siteRegistry}, more...)
}

// installArgs are the arguments to install a bundle in the site's cluster.
func (j *journey) installArgs(bundle string, more ...string) []string {
	return append([]string{
		"install", bundle + ".tar.zst", "--registry", siteRegistry,
		"--kubeconfig", j.site.kubeconfig(), "--index", "derived",
	}, more...)
}

// dryRunFirst plans an installation where nothing is yet, and nothing comes to be.
func (j *journey) dryRunFirst(t *testing.T) {
	r := j.site.sealift(t, exitDone, j.installArgs("demo-1.0.0", "--dry-run")...)
	for _, want := range []string{siteRegistry + "/demo/app:1.0.0@sha256:", siteRegistry + "/demo/migrate:1.0.0@sha256:"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("the dry run does not mention %s:\n%s", want, r.stdout)
		}
	}
	if catalog := j.site.fetch(t, "http://"+siteRegistry+"/v2/_catalog"); strings.TrimSpace(catalog) != `{"repositories":[]}` {
		t.Errorf("the registry after a dry run: %s, want it empty", catalog)
	}
	if out := j.site.kubectl(t, "get", "namespace", "demo", "--ignore-not-found", "-o", "name"); out != "" {
		t.Errorf("the dry run made %s", out)
	}
}

// seeded is what `sealift seed --output json` prints.
type seeded struct {
	UploadedBlobs, UploadedBytes, UploadedManifests int64
	Images                                          []struct{ Source, Action string }
}

// seed fills the registry, which refuses the sparse index at first.
func (j *journey) seed(t *testing.T) {
	r := j.site.sealift(t, exitRegistry, seedArgs("demo-1.0.0")...)
	if !strings.Contains(r.stderr, "--index") {
		t.Errorf("the error does not name --index, which would help:\n%s", r.stderr)
	}

	seedDerived := func() (got seeded, out string) {
		out = j.site.sealift(t, exitDone, seedArgs("demo-1.0.0", "--index", "derived", "--output", "json")...).stdout
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatalf("%v in the output of seed:\n%s", err, out)
		}
		return got, out
	}
	if got, out := seedDerived(); len(got.Images) < 3 { // and the chart may be there too
		t.Errorf("seed does not name app, migrate and pause:\n%s", out)
	}
	again, out := seedDerived()
	if again.UploadedBlobs != 0 || again.UploadedBytes != 0 || again.UploadedManifests != 0 {
		t.Errorf("a second seed sends something:\n%s", out)
	}
	for _, image := range again.Images {
		if image.Action != "present" {
			t.Errorf("a second seed: %s is %s, want present", image.Source, image.Action)
		}
	}
	for _, reference := range []string{"demo/app:1.0.0", "demo/migrate:1.0.0", "pause:3.10"} {
		repository, tag, _ := strings.Cut(reference, ":")
		got := j.site.imageDigest(t, siteRegistry, repository, tag)
		if want := j.images[vendorRegistry+"/"+reference]; got != want {
			t.Errorf("%s in the site's registry: got %s, want %s as at the vendor's", reference, got, want)
		}
	}
}

func (j *journey) install(t *testing.T) {
	j.site.sealift(t, exitDone, j.installArgs("demo-1.0.0", "--timeout", "90s")...)
	j.checkRelease(t, "demo", "1.0.0")
	j.checkHookRan(t, "demo")
	j.site.kubectl(t, "get", "service", "demo", "-n", "demo")
}

// pullWithContainerd pulls what the vendor named, as a node would.
func (j *journey) pullWithContainerd(t *testing.T) {
	ctr := func(args ...string) string {
		return j.site.output(t, "ctr", append([]string{"--address", j.site.state + "/containerd.sock", "--namespace", "e2e"}, args...)...)
	}
	for _, reference := range []string{"127.0.0.1:5555/demo/app:1.0.0", "127.0.0.1:5555/demo/migrate:1.0.0"} {
		repository, _, _ := strings.Cut(reference, ":1.0.0")
		byDigest := repository + "@" + j.images[reference]
		for _, name := range []string{reference, byDigest} {
			ctr("images", "pull", "--hosts-dir", j.site.state+"/certs.d", name)
			fields := strings.Fields(strings.Split(ctr("images", "ls", "name=="+name), "\n")[1])
			digest := fields[2] // after the name and the media type
			if child := imageInIndex(t, []byte(ctr("content", "get", digest))); child != "" {
				digest = child
			}
			if want := j.images[reference]; digest != want {
				t.Errorf("%s: got %s, want %s", name, digest, want)
			}
		}
	}
}

// pullWithPodman pulls what the vendor named, as a workstation of the site would.
func (j *journey) pullWithPodman(t *testing.T) {
	if _, err := exec.LookPath("podman"); err != nil && os.Getenv("CI") == "" {
		t.Skip("podman is missing; run internal/e2e/prepare.sh")
	}
	policy := filepath.Join(j.site.dir, "policy.json")
	if err := os.WriteFile(policy, []byte(`{"default": [{"type": "insecureAcceptAnything"}]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	podman := func(args ...string) string {
		// In all namespaces of the site, so that its mounts go with them.
		cmd := j.site.inside(t.Context(), append([]string{
			"podman", "--root", "/var/lib/podman", "--runroot", "/run/podman",
			"--network-config-dir", "/var/lib/podman-networks", "--cgroup-manager", "cgroupfs",
		}, args...)...)
		cmd.Env = append(os.Environ(), "CONTAINERS_REGISTRIES_CONF="+j.site.state+"/registries.conf")
		return output(t, cmd)
	}
	for _, reference := range []string{"127.0.0.1:5555/demo/app:1.0.0", "127.0.0.1:5555/demo/migrate:1.0.0"} {
		podman("pull", "--quiet", "--signature-policy", policy, reference)
		digests := podman("image", "inspect", "--format", "{{.RepoDigests}}", reference)
		if want := j.images[reference]; !strings.Contains(digests, want) {
			t.Errorf("%s: got %s, want %s among them", reference, digests, want)
		}
	}
}

// dryRunUpgrade plans an upgrade, and not a single object changes.
func (j *journey) dryRunUpgrade(t *testing.T) {
	objects := func() string {
		return j.site.kubectl(t, "get", "deployments,replicasets,pods,services,jobs,secrets,configmaps,serviceaccounts",
			"-n", "demo", "-o", `jsonpath={range .items[*]}{.kind} {.metadata.name} {.metadata.resourceVersion}{"\n"}{end}`)
	}
	before := objects()
	r := j.site.sealift(t, exitDone, j.installArgs("demo-2.0.0", "--dry-run")...)
	if after := objects(); after != before {
		t.Errorf("the dry run changed objects:\n%s\nnow:\n%s", before, after)
	}
	if want := siteRegistry + "/demo/app:2.0.0@sha256:"; !strings.Contains(r.stdout, want) {
		t.Errorf("the dry run does not mention %s:\n%s", want, r.stdout)
	}
}

func (j *journey) upgrade(t *testing.T) {
	j.site.sealift(t, exitDone, j.installArgs("demo-2.0.0", "--timeout", "90s")...)
	j.checkRelease(t, "demo", "2.0.0")
	j.checkHookRan(t, "demo")
}

// upgradeTwice has two upgrades to the same version run at once, and then to another.
func (j *journey) upgradeTwice(t *testing.T) {
	for _, to := range []struct{ version, app string }{{"2.1.0", "1.0.0"}, {"2.2.0", "2.0.0"}} {
		j.twoAtOnce(t, "demo", to.version)
		j.checkRelease(t, "demo", to.app)
	}
}

// installTwice has two installations run at once where nothing is yet.
func (j *journey) installTwice(t *testing.T) {
	j.twoAtOnce(t, "twins", "1.0.0")
	j.checkRelease(t, "twins", "1.0.0")
}

// twoAtOnce runs the same installation twice at the same time: one does it, and makes one revision;
// the other changes nothing, and says why.
func (j *journey) twoAtOnce(t *testing.T, name, version string) {
	t.Helper()
	before := len(j.records(t, name))
	args := j.installArgs(name+"-"+version, "--timeout", "90s")
	results := make([]result, 2)
	errs := make([]error, 2)
	var both sync.WaitGroup
	for i := range results {
		both.Go(func() { results[i], errs[i] = j.site.run(t, args...) })
	}
	both.Wait()
	winner, loser := results[0], results[1]
	if winner.code != exitDone {
		winner, loser = loser, winner
	}
	if err := errors.Join(errs...); err != nil || winner.code != exitDone || loser.code != exitChangedBack && loser.code != exitRefused ||
		!strings.Contains(loser.stderr, "another install") || strings.Contains(loser.stderr, "changed back:") {
		t.Errorf("%v; want one to win, and the other to leave it to that one:\n%+v\n%+v", err, winner, loser)
	}
	if got := len(j.records(t, name)); got != before+1 {
		t.Errorf("release %s: %d revisions, want %d", name, got, before+1)
	}
	if out := j.site.kubectl(t, "get", "leases", "-n", name, "-o", "name"); out != "" {
		t.Errorf("not given back: %s", out)
	}
}

// upgradeThatNeverGetsReady adds a claim, which the way back leaves alone.
func (j *journey) upgradeThatNeverGetsReady(t *testing.T) {
	j.makeVolume(t, "demo")
	j.failingUpgrade(t, "3.0.0", "not ready")
	j.boundClaim(t, "demo")
}

// failingUpgrade installs a version that cannot work; the error says why, and the site keeps 2.0.0.
func (j *journey) failingUpgrade(t *testing.T, version, why string) {
	gone := strings.Fields(j.site.kubectl(t, "get", "events", "-n", "demo",
		"-o", `jsonpath={range .items[?(@.involvedObject.kind=="Pod")]}{.involvedObject.name}{"\n"}{end}`))
	running := j.site.kubectl(t, "get", "pods", "-n", "demo", "-o", "name")
	gone = slices.DeleteFunc(gone, func(pod string) bool { return strings.Contains(running, pod) })
	if len(gone) == 0 {
		t.Error("there are no events of earlier pods, which the diagnosis could mistake")
	}
	r := j.site.sealift(t, exitChangedBack, j.installArgs("demo-"+version, "--timeout", "15s")...)
	if !strings.Contains(r.stderr, why) {
		t.Errorf("the error does not mention %q:\n%s", why, r.stderr)
	}
	if slices.ContainsFunc(gone, func(pod string) bool { return strings.Contains(r.stderr, pod) }) {
		t.Errorf("the diagnosis has events of pods that were gone before:\n%s", r.stderr)
	}
	j.checkRelease(t, "demo", "2.0.0")
}

// makeVolume makes the volume that the claim of a release binds to.
func (j *journey) makeVolume(t *testing.T, name string) {
	t.Helper()
	cmd := j.site.kubectlCommand(t.Context(), "create", "-f", "-")
	cmd.Stdin = strings.NewReader(fmt.Sprintf(volume, name))
	output(t, cmd)
}

// boundClaim checks that the claim of a release is there and bound. It returns its unique id.
func (j *journey) boundClaim(t *testing.T, name string) string {
	t.Helper()
	var claim struct {
		Metadata struct{ UID, DeletionTimestamp string }
		Status   struct{ Phase string }
	}
	j.site.get(t, &claim, "persistentvolumeclaim", name+"-data", "-n", name)
	if claim.Status.Phase != "Bound" || claim.Metadata.DeletionTimestamp != "" {
		t.Errorf("the claim of release %s: got %+v, want it bound", name, claim)
	}
	return claim.Metadata.UID
}

// interruptedUpgrade presses Ctrl-C while an upgrade waits for its pods.
func (j *journey) interruptedUpgrade(t *testing.T) {
	var before deployment
	j.site.get(t, &before, "deployment", "demo", "-n", "demo")

	cmd := j.site.command(t.Context(), sealiftBinary(t), j.installArgs("demo-3.0.0", "--timeout", "90s")...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	waitFor(t, 60*time.Second, func() string {
		select {
		case err := <-ended:
			t.Fatalf("it ended before it was interrupted: %v\n%s", err, &out)
		default:
		}
		var now deployment
		j.site.get(t, &now, "deployment", "demo", "-n", "demo")
		if now.Metadata.Generation == before.Metadata.Generation || now.Status.UpdatedReplicas == 0 ||
			now.Status.UpdatedReplicas == now.Status.Replicas {
			return fmt.Sprintf("no upgrade is under way: %+v", now)
		}
		return ""
	})
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(60 * time.Second):
		t.Fatal("it goes on a minute after it was interrupted")
	}
	if got := cmd.ProcessState.ExitCode(); got != exitInterrupted {
		t.Errorf("exit code %d, want %d\n%s", got, exitInterrupted, &out)
	}
	j.checkRelease(t, "demo", "2.0.0")
}

// failingFirst shows that a first installation that fails is not in the way of the next, which finds
// the data that the first one left.
func (j *journey) failingFirst(t *testing.T) {
	j.makeVolume(t, "first")
	j.site.sealift(t, exitChangedBack, j.installArgs("first-1.0.0", "--timeout", "15s")...)
	waitFor(t, 30*time.Second, func() string { // for the pods, which take a moment to end
		// A hook's Job is no part of the release: Helm keeps it, for its logs.
		out := j.site.kubectl(t, "get", "deployments,replicasets,services,pods", "-n", "first", "-o", "name", "-l", "app=first") +
			j.site.kubectl(t, "get", "secrets", "-n", "first", "-o", "name", "-l", "owner=helm")
		if out != "" {
			return "left behind:\n" + out
		}
		return ""
	})
	claim := j.boundClaim(t, "first")
	j.site.sealift(t, exitDone, j.installArgs("first-1.0.1", "--timeout", "90s")...)
	j.checkRelease(t, "first", "1.0.0")
	if now := j.boundClaim(t, "first"); now != claim {
		t.Errorf("the claim is another one: %s, was %s", now, claim)
	}
}

// nothingTriedToLeave shows that in all that time no packet was meant for an address that the site has no
// route to, but for the one that noWayOut tried, and that no name was asked for.
func (j *journey) nothingTriedToLeave(t *testing.T) {
	counters := snmpCounters(t, j.site.output(t, "cat", "/proc/net/snmp"))
	if got := counters["Ip.OutNoRoutes"]; got > 1 {
		t.Errorf("packets without a route: got %d, want at most the 1 of this test", got)
	}
	if got := counters["Udp.OutDatagrams"]; got != 0 {
		t.Errorf("datagrams, as DNS would send: got %d, want 0", got)
	}
}

// snmpCounters reads /proc/net/snmp: a line of names and a line of numbers for each protocol.
func snmpCounters(t *testing.T, content string) map[string]int {
	t.Helper()
	counters := map[string]int{}
	lines := strings.Split(strings.TrimSpace(content), "\n")
	for pair := range slices.Chunk(lines, 2) {
		names, numbers := strings.Fields(pair[0]), strings.Fields(pair[1])
		for i, name := range names[1:] {
			number, err := strconv.Atoi(numbers[i+1])
			if err != nil {
				t.Fatalf("reading /proc/net/snmp: %v", err)
			}
			counters[strings.TrimSuffix(names[0], ":")+"."+name] = number
		}
	}
	if len(counters) == 0 {
		t.Fatal("/proc/net/snmp has no counters")
	}
	return counters
}

type podTemplate struct {
	Spec struct{ Containers []struct{ Image string } }
}

type deployment struct {
	Metadata struct{ Generation int }
	Spec     struct{ Template podTemplate }
	Status   struct{ ObservedGeneration, Replicas, ReadyReplicas, UpdatedReplicas int }
}

// checkRelease checks that a release runs this version of the app: its record, its Deployment, and
// what its pods say.
func (j *journey) checkRelease(t *testing.T, name, version string) {
	t.Helper()
	if status := j.releaseStatus(t, name); status != "deployed" {
		t.Errorf("release %s: its last revision is %s, want deployed", name, status)
	}

	var d deployment
	j.site.get(t, &d, "deployment", name, "-n", name)
	if d.Status.ObservedGeneration != d.Metadata.Generation || d.Status.Replicas != 2 ||
		d.Status.ReadyReplicas != 2 || d.Status.UpdatedReplicas != 2 {
		t.Errorf("Deployment %s: got %+v, want two ready replicas, both up to date", name, d)
	}
	j.checkPinned(t, d.Spec.Template, "demo/app:"+version)

	// The pods of another revision take a moment to end.
	waitFor(t, 30*time.Second, func() string {
		var pods struct {
			Items []struct {
				Metadata struct{ Name string }
				Status   struct{ PodIP string }
			}
		}
		j.site.get(t, &pods, "pods", "-n", name, "-l", "app="+name)
		if len(pods.Items) != 2 {
			return fmt.Sprintf("release %s has %d pods, want 2", name, len(pods.Items))
		}
		for _, pod := range pods.Items {
			out, err := j.site.fetchCommand(t.Context(), "http://"+pod.Status.PodIP+":8080/").CombinedOutput()
			if want := fmt.Sprintf("version %s on %s\n", version, pod.Metadata.Name); err != nil || string(out) != want {
				return fmt.Sprintf("pod %s says %q (%v), want %q", pod.Metadata.Name, out, err, want)
			}
		}
		return ""
	})
}

// checkPinned checks that a pod template names an image in the site's registry, with its tag and a
// digest that leads to the very image that the vendor pushed.
func (j *journey) checkPinned(t *testing.T, template podTemplate, reference string) {
	t.Helper()
	image := template.Spec.Containers[0].Image
	digest, ok := strings.CutPrefix(image, siteRegistry+"/"+reference+"@")
	if !ok {
		t.Errorf("image %s, want %s/%s@DIGEST", image, siteRegistry, reference)
		return
	}
	repository, _, _ := strings.Cut(reference, ":")
	if got, want := j.site.imageDigest(t, siteRegistry, repository, digest), j.images[vendorRegistry+"/"+reference]; got != want {
		t.Errorf("image %s leads to %s, want %s as at the vendor's", image, got, want)
	}
}

// checkHookRan checks that the hook Job of a release ended well, from the site's registry.
func (j *journey) checkHookRan(t *testing.T, name string) {
	t.Helper()
	var job struct {
		Spec   struct{ Template podTemplate }
		Status struct{ Succeeded int }
	}
	j.site.get(t, &job, "job", name+"-migrate", "-n", name)
	if job.Status.Succeeded != 1 {
		t.Errorf("hook Job: got %+v, want one success", job)
	}
	j.checkPinned(t, job.Spec.Template, "demo/migrate:1.0.0")
}

// A record is what Helm keeps of a revision of a release.
type record struct {
	revision int
	status   string
}

// records are the records of a release, oldest first.
func (j *journey) records(t *testing.T, name string) []record {
	t.Helper()
	var secrets struct {
		Items []struct {
			Metadata struct{ Labels map[string]string }
		}
	}
	j.site.get(t, &secrets, "secrets", "-n", name, "-l", "owner=helm,name="+name)
	var records []record
	for _, s := range secrets.Items {
		revision, err := strconv.Atoi(s.Metadata.Labels["version"])
		if err != nil {
			t.Fatalf("release record without a revision: %v", s)
		}
		records = append(records, record{revision, s.Metadata.Labels["status"]})
	}
	slices.SortFunc(records, func(a, b record) int { return cmp.Compare(a.revision, b.revision) })
	return records
}

// releaseStatus is the status of the last revision of a release. Only that one may be deployed, and
// none may be pending.
func (j *journey) releaseStatus(t *testing.T, name string) string {
	t.Helper()
	last := "none"
	records := j.records(t, name)
	for i, r := range records {
		last = r.status
		if i < len(records)-1 && last != "superseded" && last != "failed" {
			t.Errorf("revision %d of release %s is %s, and not the last", r.revision, name, last)
		}
	}
	return last
}

// splitReference splits the vendor's reference to an image into repository and tag.
func splitReference(t *testing.T, reference string) (repository, tag string) {
	t.Helper()
	rest, ok := strings.CutPrefix(reference, vendorRegistry+"/")
	repository, tag, found := strings.Cut(rest, ":")
	if !ok || !found {
		t.Fatalf("%q is no reference with a tag in the vendor's registry", reference)
	}
	return repository, tag
}
