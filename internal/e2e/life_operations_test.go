//go:build e2e

package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// planned are the arguments of plan.
func (l *life) planned(file string, more ...string) []string {
	return append([]string{
		"plan", file, "--key", "cosign.pub", "--registry", siteRegistry, "--index", "derived", "--kubeconfig", l.site.kubeconfig(), "--progress", "none",
	}, more...)
}

// plans are kept, and followed exactly, or not at all.
func (l *life) plans(t *testing.T) {
	const name = "planned"
	pack := func(version, values string) string {
		spec := l.spec(t, name, version, chart{release: "web", values: values}) +
			"parameters: [{name: greeting, default: hello, values: [{path: greeting}]}]\n"
		return l.packedSpec(t, name, version, spec)
	}
	one, two := pack("1.0.0", ""), pack("2.0.0", newer+"replicas: 2\n")
	says(t, l.site.sealift(t, exitDone, l.planned(one, "-o", "one.plan")...).stdout, "install  planned/web", "nothing has been changed")
	if out := l.site.kubectl(t, "get", "namespace", name, "--ignore-not-found", "-o", "name"); out != "" {
		t.Errorf("the plan has made %s", out)
	}
	l.install(t, exitDone, one, "--plan", "one.plan")

	says(t, l.site.sealift(t, exitDone, l.planned(two, "-o", "two.plan")...).stdout, "upgrade  planned/web", "Deployment/planned/web", "spec.replicas: 1 -> 2", "demo/app:2.0.0")
	l.install(t, exitDone, one, "--set", "greeting=changed")
	r := l.install(t, exitRefused, two, "--plan", "two.plan")
	says(t, r.stderr, "planned", "web")
	l.equal(t, name, "deployment/web", greeting, "changed")
	if n := l.revisions(t, name, "web"); n != 2 {
		t.Errorf("there are %d revisions, want 2", n)
	}
	l.site.sealift(t, exitDone, l.planned(two, "-o", "three.plan")...)
	l.install(t, exitDone, two, "--plan", "three.plan")
	l.equal(t, name, "deployment/web", ".spec.replicas", "2")
	l.equal(t, name, "deployment/web", greeting, "changed") // as was said for the version before
}

// secret is what must get into no output.
const secret = "c4n4ry-Zx81-never-shown"

// parameters come from a Secret and from an environment, and count for the next version too. Then the receipt is signed and
// checked, and all is put into a report and an archive for those who help, without the secret.
func (l *life) parameters(t *testing.T) {
	const name = "said"
	pack := func(version, values string) string {
		for environment, values := range map[string]string{"staging": "replicas: 2\n", "production": "replicas: 3\n"} {
			l.write(t, environment+".yaml", values)
		}
		spec := l.spec(t, name, version, chart{release: "web", values: values, more: "environments: [{name: staging, values: [staging.yaml]}, {name: production, values: [production.yaml]}]"}) +
			"parameters: [{name: password, secret: true, required: true, values: [{path: greeting}]}]\n"
		return l.packedSpec(t, name, version, spec)
	}
	one, two := pack("1.0.0", ""), pack("2.0.0", newer)
	l.apply(t, fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: login, namespace: %s}\nstringData: {word: %s}\n", name, name, secret))
	var printed strings.Builder
	site := func(want int, args ...string) string {
		t.Helper()
		r := l.site.sealift(t, want, args...)
		printed.WriteString(r.stdout + r.stderr)
		return r.stdout
	}
	from := []string{"--set-secret", "password=said/login:word", "--environment", "staging"}
	site(exitDone, l.planned(one, append(from, "--objects", "-o", "said.plan")...)...)
	site(exitDone, l.with("preflight", one, from...)...)
	site(exitDone, l.with("install", one, from...)...)
	check := func() {
		t.Helper()
		l.equal(t, name, "deployment/web", greeting, secret)
		l.equal(t, name, "deployment/web", ".spec.replicas", "2")
	}
	check()
	site(1, l.with("install", two, "--environment", "nowhere")...)
	site(exitDone, append(l.with("install", two), "--output", "json")...)
	check()
	site(exitDone, l.at("status", name)...)
	site(exitDone, l.at("history", name, "--output", "json")...)

	l.site.sealift(t, exitDone, "keygen", "--output-prefix", "site")
	site(exitDone, l.at("receipt", name, "--sign", "--key", "site.key", "-o", "receipt.json")...)
	says(t, site(exitDone, "receipt", "check", "receipt.json", "--key", "site.pub"), "said 2.0.0")
	l.site.sealift(t, 12, "receipt", "check", "receipt.json", "--key", "cosign.pub")
	l.cosign(t, "receipt.json", "site.pub")
	receipt, err := os.ReadFile(filepath.Join(l.site.dir, "receipt.json"))
	if err != nil {
		t.Fatal(err)
	}
	tampered := filepath.Join(l.site.dir, "tampered.json")
	if err := os.WriteFile(tampered, bytes.Replace(receipt, []byte("2.0.0"), []byte("2.0.1"), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	l.site.sealift(t, 12, "receipt", "check", "tampered.json", "--key", "site.pub", "--signature", "receipt.json.sigstore.json")

	says(t, site(exitDone, l.at("report", name)...), "said", "2.0.0", "demo/app:2.0.0")
	site(exitDone, l.at("report", name, "--format", "json", "-o", "report.json")...)
	site(exitDone, l.at("support", name, "--config-maps", "--plan", "said.plan", "-o", "case.tar.gz")...)

	nowhere := func(where string, text []byte) {
		t.Helper()
		for _, form := range []string{secret, base64.StdEncoding.EncodeToString([]byte(secret))} {
			if bytes.Contains(text, []byte(form)) {
				t.Errorf("%s has the secret, as %q", where, form)
			}
		}
	}
	nowhere("what was printed", []byte(printed.String()))
	for _, file := range []string{"said.plan", "receipt.json", "report.json"} {
		content, err := os.ReadFile(filepath.Join(l.site.dir, file))
		if err != nil {
			t.Fatal(err)
		}
		nowhere(file, content)
	}
	files := 0
	for file, content := range readArchive(t, filepath.Join(l.site.dir, "case.tar.gz")) {
		nowhere(file+" of the archive", content)
		files++
	}
	if files < 10 {
		t.Errorf("the archive has %d files", files)
	}
	state := l.site.kubectl(t, "get", "secret", "sealift."+name, "-n", "sealift", "-o", "json")
	nowhere("the state", []byte(state))
	for value := range secretData(t, state) {
		nowhere("the state", value)
	}
}

// secretData are the values of a Secret, unpacked where they are compressed.
func secretData(t *testing.T, object string) func(func([]byte) bool) {
	t.Helper()
	var s struct{ Data map[string][]byte }
	if err := json.Unmarshal([]byte(object), &s); err != nil {
		t.Fatal(err)
	}
	return func(yield func([]byte) bool) {
		for _, value := range s.Data {
			if r, err := gzip.NewReader(bytes.NewReader(value)); err == nil {
				if value, err = io.ReadAll(r); err != nil {
					t.Error(err)
				}
			}
			if !yield(value) {
				return
			}
		}
	}
}

// readArchive are the files of a support archive.
func readArchive(t *testing.T, path string) map[string][]byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	packed, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for r := tar.NewReader(packed); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

// cosign has cosign's own program check the signature of a receipt.
func (l *life) cosign(t *testing.T, file, key string) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(filepath.Dir(clusterBin(t)), "cosign-*", "cosign"))
	if err != nil || len(found) == 0 {
		if os.Getenv("CI") != "" {
			t.Error("no cosign; run internal/e2e/prepare.sh")
		}
		t.Logf("no cosign (%v): the receipt is checked by Sealift only", err)
		return
	}
	root := filepath.Join(l.site.dir, "trusted_root.json")
	if err := os.WriteFile(root, []byte(`{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	l.site.output(t, found[len(found)-1], "verify-blob", "--key", key, "--bundle", file+".sigstore.json", "--trusted-root", root, "--private-infrastructure", file)
}

// schema is what the values of a chart have to suit: a site's values that do not are refused before anything is done.
func (l *life) schema(t *testing.T) {
	const name = "schema"
	if err := os.CopyFS(filepath.Join(l.vendor.dir, name), os.DirFS("testdata/service")); err != nil {
		t.Fatal(err)
	}
	l.write(t, name+"/Chart.yaml", "apiVersion: v2\nname: schema\nversion: 1.0.0\n")
	l.write(t, name+"/values.schema.json", `{"type": "object", "properties": {"replicas": {"type": "integer", "minimum": 1}}}`)
	spec := strings.Replace(l.spec(t, name, "1.0.0", chart{release: "web"}), "path: ./service\n", "path: ./schema\n", 1)
	file := l.packedSpec(t, name, "1.0.0", spec)
	for _, command := range []string{"preflight", "install"} {
		r := l.site.sealift(t, exitRefused, l.with(command, file, "--set-value", "replicas=many")...)
		says(t, r.stdout+r.stderr, "refused before any change", "schema/web", "replicas", "want integer")
	}
	if out := l.site.kubectl(t, "get", "namespace", name, "--ignore-not-found", "-o", "name"); out != "" {
		t.Errorf("a refused install has made %s", out)
	}
}

// expired is a kubeconfig whose certificate counts no more: it is refused, and nothing is touched.
func (l *life) expired(t *testing.T) {
	const name = "expired"
	file := l.packed(t, name, "1.0.0", chart{release: "web"})
	kubeconfig := l.expiredKubeconfig(t)
	for _, args := range [][]string{l.with("preflight", file), l.with("install", file), l.at("status")} {
		r := l.site.sealift(t, exitChangedBack, append(args, "--kubeconfig", kubeconfig)...)
		says(t, r.stderr, "expired")
	}
	if out := l.site.kubectl(t, "get", "namespace", name, "--ignore-not-found", "-o", "name"); out != "" {
		t.Errorf("a refused install has made %s", out)
	}
}

// expiredKubeconfig is an administrator's of yesterday.
func (l *life) expiredKubeconfig(t *testing.T) string {
	t.Helper()
	ca, err := tls.LoadX509KeyPair(l.site.state+"/pki/ca.crt", l.site.state+"/pki/ca.key")
	if err != nil {
		t.Fatal(err)
	}
	parent, err := x509.ParseCertificate(ca.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	certificate, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}},
		NotBefore: now.Add(-48 * time.Hour), NotAfter: now.Add(-24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, parent, key.Public(), ca.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	data := func(kind string, der []byte) string {
		return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return l.kubeconfigFor(t, "yesterday", map[string]any{
		"client-certificate-data": data("CERTIFICATE", certificate), "client-key-data": data("PRIVATE KEY", der),
	})
}

// kubeconfigFor makes one for the site's cluster, for somebody with these credentials.
func (l *life) kubeconfigFor(t *testing.T, who string, credentials map[string]any) string {
	t.Helper()
	var c struct {
		Clusters []any `json:"clusters"`
	}
	if err := json.Unmarshal([]byte(l.site.kubectl(t, "config", "view", "--raw", "-o", "json")), &c); err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "site", "clusters": c.Clusters,
		"contexts": []any{map[string]any{"name": "site", "context": map[string]any{"cluster": "site", "user": who}}},
		"users":    []any{map[string]any{"name": who, "user": credentials}},
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(l.site.dir, who+".kubeconfig")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// another gives the vendor's registry an image that is the same as one for this machine but for its author, so that nobody else runs
// it.
func (l *life) another(t *testing.T, repository, tag, as string) {
	t.Helper()
	at := "http://" + vendorRegistry + "/v2/" + repository
	decoded := func(path string) (m map[string]any) {
		t.Helper()
		if err := json.Unmarshal([]byte(l.vendor.fetch(t, at+path)), &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	put := func(path, mediaType string, content []byte) {
		t.Helper()
		cmd := l.vendor.fetchCommand(t.Context(), at+path)
		cmd.Env = append(cmd.Env, putVariable+"="+mediaType)
		cmd.Stdin = bytes.NewReader(content)
		output(t, cmd)
	}
	encoded := func(m map[string]any) []byte {
		t.Helper()
		raw, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	m := decoded("/manifests/" + l.vendor.imageDigest(t, vendorRegistry, repository, tag))
	descriptor, _ := m["config"].(map[string]any)
	config := decoded(fmt.Sprint("/blobs/", descriptor["digest"]))
	config["author"] = as
	raw := encoded(config)
	descriptor["digest"], descriptor["size"] = fmt.Sprintf("sha256:%x", sha256.Sum256(raw)), len(raw)
	put(fmt.Sprint("/blobs/uploads/?digest=", descriptor["digest"]), "application/octet-stream", raw)
	put("/manifests/"+as, fmt.Sprint(m["mediaType"]), encoded(m))
}

// prunes removes a version that was replaced twice from a registry that deletes no tags: by digest, and not what a pod runs.
func (l *life) prunes(t *testing.T) {
	const name = "pruned"
	const registry = siteRegistry + "/" + name
	l.another(t, "demo/app", "1.0.0", "old")
	for version, values := range map[int]string{1: "image: 127.0.0.1:5555/demo/app:old\n", 2: newer, 3: newer + "greeting: new\n"} {
		file := fmt.Sprintf("%d.0.0", version)
		l.packed(t, name, file, chart{release: "web", values: values})
	}
	for _, version := range []string{"1.0.0", "2.0.0", "3.0.0"} {
		l.install(t, exitDone, name+"-"+version+".tar.zst", "--registry", registry)
		if version != "1.0.0" {
			continue
		}
		// Somebody goes on running the first version.
		l.apply(t, fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: old, namespace: %s}\nspec:\n  terminationGracePeriodSeconds: 1\n  automountServiceAccountToken: false\n  containers: [{name: app, image: %q}]\n",
			name, l.field(t, name, "deployment/web", image)))
		l.site.kubectl(t, "wait", "--for=condition=Ready", "pod/old", "-n", name, "--timeout=60s")
	}
	there := func(tag string) bool {
		ok, _ := l.site.registryHas(t, registry[len(siteRegistry)+1:]+"/demo/app", tag)
		return ok
	}
	prune := func(want int, more ...string) result {
		return l.site.sealift(t, want, append([]string{"prune", name, "--registry", registry, "--keep", "1", "--forget-history", "--kubeconfig", l.site.kubeconfig()}, more...)...)
	}
	says(t, prune(exitDone).stdout, "pruned 1.0.0", "--yes")
	if r := prune(exitDone, "--force", "--yes"); !there("old") || !there("2.0.0") {
		t.Errorf("what a pod runs is gone from the registry:\n%s", r.stdout)
	}
	l.site.kubectl(t, "delete", "pod", "old", "-n", name)
	if r := prune(exitDone, "--force", "--yes"); there("old") {
		t.Errorf("the first version is still in the registry:\n%s", r.stdout)
	}
	if !there("2.0.0") {
		t.Error("what is installed is gone from the registry")
	}
	l.status(t, exitDone, name)
}

// registryHas says whether the site's registry has an image.
func (s site) registryHas(t *testing.T, repository, reference string) (bool, string) {
	t.Helper()
	out, err := s.fetchCommand(t.Context(), "http://"+siteRegistry+"/v2/"+repository+"/manifests/"+reference).CombinedOutput()
	return err == nil, string(out)
}

// away is an API server that answers nobody for a while, in the middle of an upgrade: either all of it is there afterwards, or
// nothing, or status names what is open and one command takes it back.
func (l *life) away(t *testing.T) {
	const name = "away"
	pack := func(version, values string) string {
		return l.packed(t, name, version, chart{release: "db", values: values}, chart{release: "web", values: values, more: "dependsOn: [db]"})
	}
	l.install(t, exitDone, pack("1.0.0", ""))
	two := pack("2.0.0", newer)
	server := l.process(t, "kube-apiserver")
	writes, stop := l.writes(t, name)
	defer stop()
	cmd := l.site.command(t.Context(), sealiftBinary(t), l.with("install", two)...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for range 2 { // the transaction, and the first step
		select {
		case <-writes:
		case err := <-ended:
			t.Fatalf("it ended before the API server went away: %v\n%s", err, &out)
		}
	}
	signal := func(s syscall.Signal) {
		if err := syscall.Kill(server, s); err != nil {
			t.Errorf("signal %v: %v", s, err)
		}
	}
	signal(syscall.SIGSTOP)
	select { // longer than the lease, and than what is written may take
	case <-ended:
		t.Logf("it did not wait for the API server")
		ended <- nil
	case <-time.After(40 * time.Second):
	}
	signal(syscall.SIGCONT)
	select {
	case <-ended:
	case <-time.After(2 * time.Minute):
		_ = cmd.Process.Kill() // it may have ended
		t.Fatalf("it goes on two minutes after the API server answers again\n%s", &out)
	}
	code := cmd.ProcessState.ExitCode()
	t.Logf("exit code %d\n%s", code, &out)
	waitFor(t, 60*time.Second, func() string {
		if out, err := l.site.kubectlCommand(t.Context(), "get", "--raw", "/readyz").CombinedOutput(); err != nil {
			return string(out)
		}
		return ""
	})
	status, err := l.site.run(t, l.at("status", name)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("status: %d\n%s", status.code, status.stdout)
	want := map[int]string{exitDone: "2.0.0", exitChangedBack: "1.0.0"}[code]
	switch {
	case want != "":
	case code != exitHeld:
		t.Errorf("exit code %d\n%s", code, &out)
	default:
		says(t, status.stdout, "sealift revert away")
		waitFor(t, 30*time.Second, func() string { // the lease has to be silent
			r, err := l.site.run(t, l.at("revert", name, "--lease", "5s", "--timeout", "60s")...)
			if err != nil || r.code != exitDone {
				return fmt.Sprintf("%v\n%s", err, r.stderr)
			}
			return ""
		})
		want = "1.0.0"
	}
	says(t, l.status(t, exitDone, name), "away "+want+": installed")
	for _, release := range []string{"db", "web"} {
		if got := l.field(t, name, "deployment/"+release, image); !strings.Contains(got, "/demo/app:"+want+"@") {
			t.Errorf("release %s has image %s, want that of %s", release, got, want)
		}
	}
}

// process is the id of a program of the site.
func (l *life) process(t *testing.T, program string) int {
	t.Helper()
	for _, pid := range strings.Fields(output(t, exec.CommandContext(t.Context(), "ip", "netns", "pids", l.site.netns))) {
		path, err := os.Readlink("/proc/" + pid + "/exe")
		if err != nil || filepath.Base(path) != program {
			continue
		}
		var id int
		if _, err := fmt.Sscan(pid, &id); err != nil {
			t.Fatal(err)
		}
		return id
	}
	t.Fatalf("no %s runs in the site", program)
	return 0
}
