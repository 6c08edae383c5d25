package nodes

import (
	"fmt"
	"strings"
)

// containerd writes a hosts.toml for each registry. What is at its root is asked last; left out, that
// is the registry itself, so that a miss would go to it. So the mirror stands there too. There
// alone it would do for containerd 2, but 1.6 takes no file without a host, and asks the source.
func containerd(m *Mirrors, ca Authority) ([]File, error) {
	var files []File
	for _, registry := range m.registries() {
		r, err := m.whole(Containerd, registry)
		if err != nil {
			return nil, err
		}
		part := m.only(registry)
		for _, name := range m.names(registry) {
			files = append(files, File{name + "/hosts.toml", marked(part, hostsFile(r))})
			if r.to.CA && ca.Host == r.to.Host {
				files = append(files, File{name + "/ca.crt", marked(part.unrouted(), ca.PEM)})
			}
		}
	}
	return files, nil
}

// unrouted are only the bundles, for files that have no routes.
func (m *Mirrors) unrouted() *Mirrors { return &Mirrors{bundles: m.bundles} }

func hostsFile(r route) string {
	address := r.to.url(r.path)
	settings := func(indent string) string {
		lines := indent + "capabilities = [\"pull\", \"resolve\"]\n"
		if r.path != "" {
			// Without it containerd puts another /v2 behind the path.
			lines += indent + "override_path = true\n"
		}
		if r.to.CA {
			lines += indent + "ca = \"ca.crt\"\n"
		}
		return lines
	}
	var b strings.Builder
	b.WriteString("\n# What the mirror does not have is asked for nowhere else: the server is the mirror, too.\n")
	fmt.Fprintf(&b, "server = %s\n", quoted(address))
	b.WriteString(settings(""))
	fmt.Fprintf(&b, "\n[host.%s]\n", quoted(address))
	b.WriteString(settings("  "))
	return b.String()
}

func containerdNotes() []string {
	return []string{
		`these files belong below the directory that config_path in /etc/containerd/config.toml names. It is read when
containerd starts; the files are read at every pull. In a config.toml with "version = 2" (containerd 1.5 to 1.7, and
2.x takes it too):
    [plugins."io.containerd.grpc.v1.cri".registry]
      config_path = "/etc/containerd/certs.d"
with "version = 3" (containerd 2.x):
    [plugins."io.containerd.cri.v1.images".registry]
      config_path = "/etc/containerd/certs.d"
and no "mirrors" or "configs.*.tls" of the older kind beside it, which containerd refuses`,
		`ctr looks there only with --hosts-dir /etc/containerd/certs.d`,
	}
}
