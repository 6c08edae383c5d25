//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// skopeo are skopeo's options for the server; of says of which side of a copy, as "src-".
func (s *server) skopeo(of string) []string {
	options := []string{"--" + of + "tls-verify=false"}
	if s.ca != "" {
		options = []string{"--" + of + "cert-dir=" + s.certDir}
	}
	if s.login {
		options = append(options, "--"+of+"creds="+user+":"+password)
	}
	return options
}

// copied copies an image into a directory, with all that it consists of, and returns the digest of what is there.
func (c *clients) copied(t *testing.T, s *server, global []string, image string, options ...string) string {
	t.Helper()
	dir := t.TempDir()
	args := append(append(append(global, "copy", "--quiet"), s.skopeo("src-")...), options...)
	c.site.output(t, "skopeo", append(args, "docker://"+s.address+"/"+image, "dir:"+dir)...)
	raw, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	return digestOf(string(raw))
}

// pullWithSkopeo inspects and copies by tag, by digest, by platform and as a whole. Skopeo compares every blob
// with its digest.
func (c *clients) pullWithSkopeo(t *testing.T, s *server) {
	raw := func(image string) string {
		return digestOf(c.site.output(t, "skopeo", append(append([]string{"inspect", "--raw"}, s.skopeo("")...), "docker://"+s.address+"/"+image)...))
	}
	names := []string{"library/shop"}
	if !s.inStore() {
		names = append(names, "docker.io/library/shop", "shop")
	}
	for _, name := range names {
		for image, want := range map[string]string{name + ":1.0.0": c.shop, name + "@" + c.shop: c.shop, name + "@" + c.children[c.other()]: c.children[c.other()]} {
			if got := raw(image); got != want {
				t.Errorf("%s: got %s, want %s", image, got, want)
			}
		}
		tags := c.site.output(t, "skopeo", append(append([]string{"list-tags"}, s.skopeo("")...), "docker://"+s.address+"/"+name)...)
		if !strings.Contains(tags, `"1.0.0"`) {
			t.Errorf("tags of %s: %s", name, tags)
		}
	}
	for arch, want := range c.children {
		for _, image := range []string{"library/shop:1.0.0", "library/shop@" + c.shop, "library/shop@" + want} {
			if got := c.copied(t, s, []string{"--override-arch", arch}, image); got != want {
				t.Errorf("%s for %s: got %s, want %s", image, arch, got, want)
			}
		}
	}
	if got := c.copied(t, s, nil, "library/shop:1.0.0", "--all"); got != c.shop {
		t.Errorf("all of library/shop:1.0.0: got %s, want %s", got, c.shop)
	}
	if got := c.copied(t, s, nil, "jobs/migrate:1.0.0"); got != c.migrate {
		t.Errorf("jobs/migrate:1.0.0: got %s, want %s", got, c.migrate)
	}

	// An index of which only one image is here is the vendor's all the same.
	if got := raw("demo/app:2.0.0"); got != c.sparse {
		t.Errorf("demo/app:2.0.0: got %s, want %s", got, c.sparse)
	}
	c.copied(t, s, nil, "demo/app:2.0.0")
	for args, want := range map[string]string{
		"--override-arch " + c.other() + " docker://" + s.address + "/demo/app:2.0.0": "manifest unknown",
		"docker://" + s.address + "/library/shop:9":                                   "manifest unknown",
		"docker://" + s.address + "/library/redis:7":                                  "unknown",
	} {
		fields := append(strings.Fields(args), "dir:"+t.TempDir())
		c.refused(t, c.site.command(t.Context(), "skopeo", append(append([]string{"copy"}, s.skopeo("src-")...), fields...)...), want)
	}
}

// podman makes a command of podman, in all namespaces of the site, so that its mounts go with them.
func (c *clients) podman(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	program(t, "podman")
	cmd := c.site.inside(t.Context(), append([]string{
		"podman", "--root", "/var/lib/podman", "--runroot", "/run/podman", "--runtime", "runc",
		"--network-config-dir", "/var/lib/podman-networks", "--cgroup-manager", "cgroupfs",
	}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+c.site.dir, "TMPDIR=/var/lib/tmp")
	return cmd
}

// runsWithPodman runs an image that was pulled.
func (c *clients) runsWithPodman(t *testing.T, image string) {
	t.Helper()
	out := output(t, c.podman(t, "run", "--rm", "--pull", "never", "--network", "none", "--log-driver", "none", "--cgroup-parent", "/"+c.site.name,
		"--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", image, "job"))
	if out != "job of version 1.0.0: done\n" {
		t.Errorf("%s says %q", image, out)
	}
}

// pullWithPodman pulls by tag and by digest, for this machine and another, and runs what was pulled.
func (c *clients) pullWithPodman(t *testing.T, s *server) {
	access := []string{"--tls-verify=false"}
	if s.ca != "" {
		access = []string{"--cert-dir", s.certDir}
	}
	if s.login {
		access = append(access, "--creds", user+":"+password)
	}
	pull := func(image string, options ...string) {
		t.Helper()
		output(t, c.podman(t, append(append(append([]string{"pull", "--quiet"}, access...), options...), s.address+"/"+image)...))
	}
	for _, image := range []string{"library/shop@" + c.shop, "library/shop:1.0.0"} {
		pull(image)
		digests := output(t, c.podman(t, "image", "inspect", "--format", "{{.RepoDigests}}", s.address+"/"+image))
		if !strings.Contains(digests, c.shop) || !strings.Contains(digests, c.children[runtime.GOARCH]) {
			t.Errorf("%s: got %s, want %s and %s among them", image, digests, c.shop, c.children[runtime.GOARCH])
		}
	}
	c.runsWithPodman(t, s.address+"/library/shop:1.0.0")
	pull("library/shop:1.0.0", "--platform", "linux/"+c.other())
	if arch := output(t, c.podman(t, "image", "inspect", "--format", "{{.Architecture}}", s.address+"/library/shop:1.0.0")); strings.TrimSpace(arch) != c.other() {
		t.Errorf("pulled for %s: got %s", c.other(), arch)
	}
	c.refused(t, c.podman(t, append(append([]string{"pull", "--platform", "linux/" + c.other()}, access...), s.address+"/demo/app:2.0.0")...), "unknown")
	c.refused(t, c.podman(t, append(append([]string{"pull"}, access...), s.address+"/library/redis:7")...), s.address+"/library/redis", "unknown")
}

// ctr runs containerd's own tool in the site.
func (c *clients) ctr(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	program(t, "ctr")
	return c.site.command(t.Context(), "ctr", append([]string{"--address", c.site.state + "/containerd.sock", "--namespace", "clients"}, args...)...)
}

// pulledWithCtr pulls an image into a namespace of its own and checks what its name stands for.
func (c *clients) pulledWithCtr(t *testing.T, image, want string, options ...string) {
	t.Helper()
	output(t, c.ctr(t, append(append([]string{"images", "pull"}, options...), image)...))
	fields := strings.Fields(output(t, c.ctr(t, "images", "ls", "name=="+image)))
	if len(fields) == 0 || !strings.Contains(strings.Join(fields, " "), " "+want+" ") {
		t.Errorf("%s: got %s, want %s", image, fields, want)
	}
	// What is there already is not pulled again.
	output(t, c.ctr(t, "images", "rm", "--sync", image))
}

// pullWithContainerd pulls from the server by its own name.
func (c *clients) pullWithContainerd(t *testing.T, s *server) {
	access := []string{"--plain-http"}
	if s.ca != "" {
		access = []string{"--hosts-dir", filepath.Dir(s.certDir)}
	}
	if s.login {
		access = append(access, "--user", user+":"+password)
	}
	for _, image := range []string{"library/shop:1.0.0", "library/shop@" + c.shop} {
		c.pulledWithCtr(t, s.address+"/"+image, c.shop, access...)
	}
	c.pulledWithCtr(t, s.address+"/library/shop:1.0.0", c.shop, append(access, "--platform", "linux/"+c.other())...)
	c.pulledWithCtr(t, s.address+"/library/shop:1.0.0", c.shop, append(access, "--all-platforms")...)
	c.pulledWithCtr(t, s.address+"/demo/app:2.0.0", c.sparse, access...)
	c.pulledWithCtr(t, s.address+"/jobs/migrate:1.0.0", c.migrate, access...)
	c.refused(t, c.ctr(t, append(append([]string{"images", "pull", "--platform", "linux/" + c.other()}, access...), s.address+"/demo/app:2.0.0")...), "not found")
	c.refused(t, c.ctr(t, append(append([]string{"images", "pull"}, access...), s.address+"/library/redis:7")...), "not found")
}

// helm makes a command of Helm with access to a server.
func (c *clients) helm(t *testing.T, s *server, args ...string) *exec.Cmd {
	t.Helper()
	if s.ca == "" {
		args = append(args, "--plain-http")
	} else {
		args = append(args, "--ca-file", s.ca)
	}
	if s.login {
		args = append(args, "--username", user, "--password", password)
	}
	return c.site.command(t.Context(), program(t, "helm"), args...)
}

// pullWithHelm pulls a chart by its version, by its digest, and the latest.
func (c *clients) pullWithHelm(t *testing.T, s *server) {
	chart := "oci://" + s.address + "/charts/demo"
	tag := strings.ReplaceAll(chartVersion, "+", "_")
	digest := digestOf(c.site.output(t, "skopeo", append(append([]string{"inspect", "--raw"}, s.skopeo("")...), "docker://"+s.address+"/charts/demo:"+tag)...))
	for _, args := range [][]string{{chart, "--version", chartVersion}, {chart}, {chart + "@" + digest}} {
		dir := t.TempDir()
		cmd := c.helm(t, s, append([]string{"pull", "--destination", dir, "--untar"}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", cmd, err, out)
			continue
		}
		if !strings.Contains(string(out), "Digest: "+digest) {
			t.Errorf("%s: no digest %s:\n%s", cmd, digest, out)
		}
		values, err := os.ReadFile(filepath.Join(dir, "demo", "values.yaml"))
		if err != nil || string(values) != clientsValues {
			t.Errorf("the chart's values: %v, %q", err, values)
		}
	}
	c.refused(t, c.helm(t, s, "pull", "--destination", t.TempDir(), chart, "--version", "9.0.0"), "9.0.0")
}

// signatureForms are the ways in which cosign keeps a signature: as a tag, and as what refers to the image. Where it
// finds the second it does not look at the first, so that each is for an image of its own.
var signatureForms = []struct {
	name, repository, tag string
	sign, verify          []string
	// unsigned is what cosign says of an image that nobody has signed.
	unsigned string
}{
	{name: "tag", repository: "library/shop", tag: "1.0.0", unsigned: "no signatures found"},
	{
		name: "referrer", repository: "demo/app", tag: "2.0.0", sign: []string{"--new-bundle-format"},
		verify: []string{"--new-bundle-format", "--trusted-root", "trusted_root.json"}, unsigned: "no valid bundles exist",
	},
}

// cosign makes a command of cosign on one of the sides.
func cosign(t *testing.T, s side, args ...string) *exec.Cmd {
	t.Helper()
	cmd := s.command(t.Context(), program(t, "cosign"), args...)
	// No authority at all, since a key is all there is to check. Cosign looks for one on the internet where it is told
	// about no log, too.
	root := filepath.Join(s.dir, "trusted_root.json")
	if err := os.WriteFile(root, []byte(`{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(cmd.Env, "SIGSTORE_REKOR_PUBLIC_KEY="+root, "TUF_ROOT="+filepath.Join(s.dir, "tuf"))
	return cmd
}

// signUpstream signs images and all that they are made of at the vendor's, and says something about them.
func (c *clients) signUpstream(t *testing.T) {
	for _, name := range []string{"vendor", "other"} {
		output(t, cosign(t, c.vendor, "generate-key-pair", "--output-key-prefix", "images-"+name))
		output(t, exec.CommandContext(t.Context(), "cp", filepath.Join(c.vendor.dir, "images-"+name+".pub"), c.site.dir))
	}
	if err := os.WriteFile(filepath.Join(c.vendor.dir, "predicate.json"), []byte(`{"built": "here"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, f := range signatureForms {
		for _, args := range [][]string{{"sign", "--recursive"}, {"attest", "--type", "custom", "--predicate", "predicate.json"}} {
			args = append(append(args, "--key", "images-vendor.key", "--tlog-upload=false", "--yes"), f.sign...)
			output(t, cosign(t, c.vendor, append(args, vendorRegistry+"/"+f.repository+":"+f.tag)...))
		}
	}
}

// cosignAccess are cosign's options for the server.
func (s *server) cosignAccess() (options []string) {
	if s.ca != "" {
		options = append(options, "--registry-cacert", s.ca)
	}
	if s.login {
		options = append(options, "--registry-username", user, "--registry-password", password)
	}
	return options
}

// verifyWithCosign verifies what the vendor has signed, by tag, by digest and by platform, and has said of it.
func (c *clients) verifyWithCosign(t *testing.T, s *server) {
	program(t, "cosign")
	for _, f := range signatureForms {
		check := func(key, image string, command ...string) *exec.Cmd {
			args := append(append(command, "--key", key, "--insecure-ignore-tlog=true", "--private-infrastructure"), f.verify...)
			return cosign(t, c.site.side, append(append(args, s.cosignAccess()...), s.address+"/"+image)...)
		}
		verify := func(key, image string) *exec.Cmd { return check(key, image, "verify") }
		index, child := c.shop, c.children[c.other()]
		if f.repository == "demo/app" {
			index, child = c.sparse, c.images[vendorRegistry+"/demo/app:2.0.0"]
		}
		for image, digest := range map[string]string{":" + f.tag: index, "@" + index: index, "@" + child: child} {
			out := output(t, verify("images-vendor.pub", f.repository+image))
			if !strings.Contains(out, digest) {
				t.Errorf("%s%s, signed as %s: got %s, want %s", f.repository, image, f.name, out, digest)
			}
		}
		c.refused(t, verify("images-other.pub", f.repository+":"+f.tag), "no matching")
		c.refused(t, verify("images-vendor.pub", "jobs/migrate:1.0.0"), f.unsigned)
		output(t, check("images-vendor.pub", f.repository+":"+f.tag, "verify-attestation", "--type", "custom"))
	}
}
