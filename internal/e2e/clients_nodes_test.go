//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// mirrors makes a command that writes the configuration for a server.
func (c *clients) mirrors(t *testing.T, s *server, format string, args ...string) *exec.Cmd {
	t.Helper()
	args = append([]string{"mirrors", c.bundle, "--key", c.key, "--registry", s.address + s.prefix, "--format", format}, args...)
	if s.ca != "" {
		args = append(args, "--ca-file", s.ca)
	}
	return c.site.command(t.Context(), sealiftBinary(t), args...)
}

// originalNames pulls by the names that the vendor uses, through what `sealift mirrors` writes.
func (c *clients) originalNames(t *testing.T, s *server) {
	t.Run("containerd", func(t *testing.T) {
		dir := t.TempDir()
		output(t, c.mirrors(t, s, "containerd", "--dir", dir))
		access := []string{"--hosts-dir", dir}
		if s.login {
			access = append(access, "--user", user+":"+password)
		}
		for image, want := range map[string]string{
			shopImage: c.shop, "docker.io/library/shop@" + c.shop: c.shop, sparseImage: c.sparse, migrateImage: c.migrate,
			pauseImage: digestOf(c.rawPause(t, s)),
		} {
			c.pulledWithCtr(t, image, want, access...)
		}
		for _, image := range []string{"docker.io/library/redis:7", "quay.io/jobs/migrate:9"} {
			c.refused(t, c.ctr(t, append(append([]string{"images", "pull"}, access...), image)...), "not found")
		}
	})

	// What is printed is a whole file, but where there are certificates, too.
	printed := filepath.Join(t.TempDir(), "registries.conf")
	config := output(t, c.mirrors(t, s, "podman"))
	if s.ca != "" {
		home := filepath.Join(c.site.dir, "home-"+s.address)
		output(t, c.mirrors(t, s, "podman", "--dir", filepath.Join(home, ".config", "containers")))
		t.Cleanup(func() { os.RemoveAll(home) })
	} else if err := os.WriteFile(printed, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	// Passwords on the command line are for the registry that a name has, and not for the one that it leads to.
	auth := filepath.Join(t.TempDir(), "auth.json")
	if err := os.WriteFile(auth, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	logins := "REGISTRY_AUTH_FILE=" + auth
	if s.login {
		login := c.login(t, s, password)
		login.Env = append(login.Env, logins)
		output(t, login)
	}
	t.Run("podman", func(t *testing.T) {
		podman := func(args ...string) *exec.Cmd {
			cmd := c.podman(t, args...)
			cmd.Env = append(cmd.Env, logins)
			if s.ca != "" {
				cmd.Env = append(cmd.Env, "HOME="+filepath.Join(c.site.dir, "home-"+s.address))
			} else {
				cmd.Env = append(cmd.Env, "CONTAINERS_REGISTRIES_CONF="+printed)
			}
			return cmd
		}
		for _, image := range []string{shopImage, "docker.io/library/shop@" + c.shop, migrateImage} {
			output(t, podman("pull", "--quiet", image))
		}
		c.runsWithPodman(t, shopImage)
		output(t, c.podman(t, "rmi", "--all", "--force"))
		for _, image := range []string{"docker.io/library/redis:7", "quay.io/jobs/migrate:9"} {
			_, path, _ := strings.Cut(image, "/")
			path, _, _ = strings.Cut(path, ":")
			c.refused(t, podman("pull", image), s.address+s.prefix+"/"+path, "unknown")
		}
	})
	t.Run("skopeo", func(t *testing.T) {
		skopeo := func(args ...string) *exec.Cmd {
			if s.ca == "" {
				args = append([]string{"--registries-conf", printed}, args...)
			}
			cmd := c.site.command(t.Context(), "skopeo", args...)
			cmd.Env = append(cmd.Env, logins)
			if s.ca != "" {
				cmd.Env = append(cmd.Env, "HOME="+filepath.Join(c.site.dir, "home-"+s.address))
			}
			return cmd
		}
		for image, want := range map[string]string{
			shopImage: c.shop, "docker.io/shop@" + c.shop: c.shop, sparseImage: c.sparse, migrateImage: c.migrate,
		} {
			if got := digestOf(output(t, skopeo("inspect", "--raw", "docker://"+image))); got != want {
				t.Errorf("%s: got %s, want %s", image, got, want)
			}
		}
		c.refused(t, skopeo("inspect", "--raw", "docker://docker.io/library/redis:7"), s.address+s.prefix+"/library/redis", "unknown")
	})
}

// rawPause is the manifest of the node's own image.
func (c *clients) rawPause(t *testing.T, s *server) string {
	t.Helper()
	return c.site.output(t, "skopeo", append(append([]string{"inspect", "--raw"}, s.skopeo("")...), "docker://"+s.address+"/pause:3.10")...)
}

// pods runs pods by the names that the vendor uses, on a node that knows nothing but the mirrors: first of the
// bundle that is served in place, then of the store.
func (c *clients) pods(t *testing.T) {
	for _, s := range c.servers {
		if s.ca == "" || s.login {
			continue // a node asks over the network, and here it has no password
		}
		t.Run(s.name, func(t *testing.T) {
			output(t, c.mirrors(t, s, "containerd", "--dir", c.site.state+"/certs.d", "--overwrite"))
			namespace, image := "first", shopImage
			if s.inStore() {
				namespace, image = "second", sparseImage // which the node does not have yet
			}
			c.site.kubectl(t, "create", "namespace", namespace)
			defer c.site.kubectl(t, "delete", "namespace", namespace, "--wait=false")
			waitFor(t, 10*time.Second, func() string {
				if c.site.kubectl(t, "get", "serviceaccount", "default", "-n", namespace, "--ignore-not-found", "-o", "name") == "" {
					return "the namespace has no account yet"
				}
				return ""
			})
			c.byDigest(t, namespace)
			c.missing(t, namespace)
			t.Run("helm", func(t *testing.T) {
				// Straight from the server, with the names as the vendor wrote them.
				helm := c.helm(t, s, "install", "demo", "oci://"+s.address+"/charts/demo", "--version", chartVersion, "--set", "image="+image,
					"--namespace", namespace, "--wait", "--timeout", "60s")
				helm.Env = append(helm.Env, "KUBECONFIG="+c.site.kubeconfig())
				output(t, helm)
				var d deployment
				c.site.get(t, &d, "deployment", "demo", "-n", namespace)
				if d.Spec.Template.Spec.Containers[0].Image != image || d.Status.ReadyReplicas != 1 {
					t.Errorf("the deployment: %+v, want one ready of %s", d, image)
				}
			})
		})
	}
}

const digestPod = `apiVersion: v1
kind: Pod
metadata: {name: %[1]s}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  containers: [{name: app, image: "%[2]s", imagePullPolicy: Always, args: [job]}]
`

func (c *clients) makePod(t *testing.T, namespace, name, image string) {
	t.Helper()
	cmd := c.site.kubectlCommand(t.Context(), "create", "-n", namespace, "-f", "-")
	cmd.Stdin = strings.NewReader(fmt.Sprintf(digestPod, name, image))
	output(t, cmd)
}

// byDigest runs an image by its digest, without the registry in its name.
func (c *clients) byDigest(t *testing.T, namespace string) {
	t.Helper()
	c.makePod(t, namespace, "digest", "shop@"+c.shop)
	waitFor(t, 60*time.Second, func() string {
		if phase := c.site.kubectl(t, "get", "pod", "digest", "-n", namespace, "-o", "jsonpath={.status.phase}"); phase != "Succeeded" {
			return "the pod by digest is " + phase
		}
		return ""
	})
	if out := c.site.kubectl(t, "logs", "digest", "-n", namespace); out != "job of version 1.0.0: done\n" {
		t.Errorf("the pod by digest says %q", out)
	}
}

// missing shows what the events say of an image that the site does not have.
func (c *clients) missing(t *testing.T, namespace string) {
	t.Helper()
	c.makePod(t, namespace, "missing", "docker.io/library/redis:7")
	var message string
	waitFor(t, 60*time.Second, func() string {
		message = c.site.kubectl(t, "get", "events", "-n", namespace, "--field-selector", "involvedObject.name=missing,reason=Failed",
			"-o", "jsonpath={.items[0].message}", "--ignore-not-found")
		if message == "" {
			return "no event about the missing image"
		}
		return ""
	})
	if !strings.Contains(message, "docker.io/library/redis:7: not found") {
		t.Errorf("an image that is nowhere: %s", message)
	}
}
