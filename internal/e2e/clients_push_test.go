//go:build e2e

package e2e

import (
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// push pushes to a server with the clients that people have, and pulls it back.
func (c *clients) push(t *testing.T, s *server) {
	from := []string{"--src-tls-verify=false", "docker://" + c.servers[0].address + "/docker.io/library/shop:1.0.0"}
	_, port, _ := strings.Cut(s.address, ":") // for the servers with a store share it
	pushed := s.address + "/pushed/" + port
	to := "docker://" + pushed + "/shop:1"
	skopeo := func(args ...string) *exec.Cmd { return c.site.command(t.Context(), "skopeo", args...) }
	certs := "--dest-tls-verify=false"
	if s.ca != "" {
		certs = "--dest-cert-dir=" + s.certDir
	}
	if !s.inStore() {
		c.refused(t, skopeo(append(append([]string{"copy", "--all", certs}, from...), to)...), "unsupported: ")
		return
	}
	creds := []string{}
	if s.ca != "" {
		for _, wrong := range [][]string{nil, {"--dest-creds", user + ":wrong"}, {"--dest-creds", "nobody:" + password}} {
			c.refused(t, skopeo(append(append(append([]string{"copy", "--all", certs}, wrong...), from...), to)...), "auth")
		}
		c.refused(t, c.login(t, s, "wrong"), "invalid username/password")
		c.refused(t, skopeo("inspect", "--raw", "--cert-dir", s.certDir, "--creds", user+":"+password, to), "unknown")
		creds = []string{"--dest-creds", user + ":" + password}
	}
	output(t, skopeo(append(append(append([]string{"copy", "--quiet", "--all", "--preserve-digests", certs}, creds...), from...), to)...))
	if got := c.copied(t, s, nil, strings.TrimPrefix(pushed, s.address+"/")+"/shop:1", "--all"); got != c.shop {
		t.Errorf("pulled back: got %s, want %s", got, c.shop)
	}
	t.Run("podman", func(t *testing.T) { c.pushWithPodman(t, s, pushed) })
	t.Run("helm", func(t *testing.T) { c.pushWithHelm(t, s, pushed) })
	t.Run("cosign", func(t *testing.T) { c.signWithCosign(t, s, pushed) })
}

// login makes a command that logs in, for podman and skopeo.
func (c *clients) login(t *testing.T, s *server, password string) *exec.Cmd {
	t.Helper()
	cmd := c.site.command(t.Context(), "skopeo", "login", "--cert-dir", s.certDir, "--username", user, "--password-stdin", s.address)
	cmd.Stdin = strings.NewReader(password)
	return cmd
}

// pushWithPodman pushes what was pulled before.
func (c *clients) pushWithPodman(t *testing.T, s *server, pushed string) {
	access, pull := []string{"--tls-verify=false"}, []string{"--tls-verify=false"}
	if s.ca != "" {
		access, pull = []string{"--cert-dir", s.certDir, "--creds", user + ":" + password}, []string{"--cert-dir", s.certDir}
	}
	if s.login {
		pull = access
	}
	source, image := pushed+"/shop:1", pushed+"/podman:1"
	output(t, c.podman(t, append(append([]string{"pull", "--quiet"}, pull...), source)...))
	output(t, c.podman(t, append(append([]string{"push", "--quiet"}, access...), source, image)...))
	output(t, c.podman(t, "rmi", "--all", "--force"))
	output(t, c.podman(t, append(append([]string{"pull", "--quiet"}, pull...), image)...))
	c.runsWithPodman(t, image)
}

// pushWithHelm pushes the vendor's chart under another name, and pulls it back.
func (c *clients) pushWithHelm(t *testing.T, s *server, pushed string) {
	dir, back := t.TempDir(), t.TempDir()
	output(t, c.helm(t, s, "pull", "--destination", dir, "oci://"+s.address+"/charts/demo", "--version", chartVersion))
	push := c.helm(t, s, "push", filepath.Join(dir, "demo-"+chartVersion+".tgz"), "oci://"+pushed+"/charts")
	if s.ca != "" && !s.login {
		push.Args = append(push.Args, "--username", user, "--password", password)
	}
	output(t, push)
	output(t, c.helm(t, s, "pull", "--destination", back, "oci://"+pushed+"/charts/demo", "--version", chartVersion))
	output(t, exec.CommandContext(t.Context(), "cmp", filepath.Join(dir, "demo-"+chartVersion+".tgz"), filepath.Join(back, "demo-"+chartVersion+".tgz")))
}

// signWithCosign has the site sign what it has pushed, in both forms.
func (c *clients) signWithCosign(t *testing.T, s *server, pushed string) {
	program(t, "cosign") // and at the vendor's, too, where the key is from
	access := s.cosignAccess()
	if s.ca != "" && !s.login {
		access = append(access, "--registry-username", user, "--registry-password", password)
	}
	output(t, exec.CommandContext(t.Context(), "cp", filepath.Join(c.vendor.dir, "images-other.key"), c.site.dir))
	image := pushed + "/shop@" + c.children[runtime.GOARCH]
	for _, f := range signatureForms {
		args := append([]string{"sign", "--key", "images-other.key", "--tlog-upload=false", "--yes"}, f.sign...)
		output(t, cosign(t, c.site.side, append(append(args, access...), image)...))
		args = append([]string{"verify", "--key", "images-other.pub", "--insecure-ignore-tlog=true", "--private-infrastructure"}, f.verify...)
		output(t, cosign(t, c.site.side, append(append(args, s.cosignAccess()...), image)...))
	}
}
