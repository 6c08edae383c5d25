package nodes

import (
	"fmt"
	"strings"
)

// Files of k3s and RKE2.
const (
	rancherMirrors = "registries.yaml"
	// rancherConfig is read beside config.yaml, which is the site's.
	rancherConfig = "config.yaml.d/50-sealift.yaml"
)

// rancher writes registries.yaml, of which k3s and RKE2 make hosts.toml files for their containerd,
// and the setting that keeps these from asking the source after a miss.
func rancher(f Format, m *Mirrors, ca Authority) ([]File, error) {
	body, err := rancherBody(f, m)
	if err != nil {
		return nil, err
	}
	files := []File{
		{rancherMirrors, marked(m, body) + Divider + rancherTail(f, m)},
		{rancherConfig, marked(m.unrouted(), "\n# What the mirrors do not have is asked for nowhere else.\ndisable-default-registry-endpoint: true\n")},
	}
	for _, e := range m.endpoints() {
		if e.CA && ca.Host == e.Host {
			files = append(files, File{rancherCA(e.Host), marked(m.unrouted(), ca.PEM)})
		}
	}
	return files, nil
}

// rancherCA is the name of the file with the certificate authority of a registry.
func rancherCA(host string) string {
	return "sealift-" + strings.NewReplacer(":", "_", "[", "", "]", "").Replace(host) + ".crt"
}

func rancherBody(f Format, m *Mirrors) (string, error) {
	var b strings.Builder
	b.WriteString("\nmirrors:\n")
	for _, registry := range m.registries() {
		list := m.only(registry).routes
		var rewrites strings.Builder
		for _, r := range list {
			if other := list[0]; r.to.Host != other.to.Host || r.repository != "" && other.repository == "" {
				return "", &FormatError{f, r.source(), r.location(), fmt.Sprintf("%q leads to %q, and its rewrites would count for both", other.source(), other.location())}
			}
			if pattern, name := rewrite(r); pattern != "" {
				fmt.Fprintf(&rewrites, "      %s: %s\n", quoted(pattern), quoted(name))
			}
		}
		for _, name := range m.names(registry) {
			fmt.Fprintf(&b, "  %s:\n    endpoint:\n      - %s\n", quoted(name), quoted(list[0].to.url("")))
			if rewrites.Len() > 0 {
				b.WriteString("    rewrite:\n" + rewrites.String())
			}
		}
	}
	return b.String(), nil
}

// rewrite is the regular expression for the paths of a route, and what becomes of them; "" where they
// stay as they are.
func rewrite(r route) (pattern, name string) {
	if r.repository == r.path {
		return "", ""
	}
	if r.repository == "" {
		return "^(.*)$", r.path + "/$1"
	}
	// The expression becomes part of a TOML string as it is: a backslash would be one of TOML's.
	return "^" + strings.ReplaceAll(r.repository, ".", "[.]") + "$", r.path
}

// rancherTail is where the site puts credentials, which these two take from nowhere else.
func rancherTail(f Format, m *Mirrors) string {
	var with, without strings.Builder
	for _, e := range m.endpoints() {
		if e.CA {
			fmt.Fprintf(&with, "  %s:\n    tls:\n      ca_file: %s\n", quoted(e.Host), quoted(f.Directory()+"/"+rancherCA(e.Host)))
		}
		lines := "#   %s:\n"
		if e.CA {
			lines = "# beside tls: of %s\n"
		}
		fmt.Fprintf(&without, lines+"#     auth:\n#       username: \n#       password: \n", quoted(e.Host))
	}
	text := ""
	if with.Len() > 0 {
		text = "configs:\n" + with.String()
	} else {
		text = "# configs:\n"
	}
	return text + without.String()
}

func rancherNotes(f Format, m *Mirrors) []string {
	server := "k3s and k3s-agent"
	versions := "v1.26.13, v1.27.10, v1.28.6 and v1.29.1"
	if f == RKE2 {
		server = "rke2-server and rke2-agent"
	}
	notes := []string{
		fmt.Sprintf("these files belong below %s of every node, servers and agents; restart %s there", f.Directory(), server),
		fmt.Sprintf(`%s sets disable-default-registry-endpoint, which %s has since %s of January 2024. Older ones
skip it with a warning, and ask the source itself for what the mirrors do not have: a name then leaves the site
for its DNS, and the error that is shown is that of the source, not that of the mirror`, rancherConfig, f, versions),
		"images of the node itself (rancher/mirrored-pause and the like) are asked for at the mirror now, as they have docker.io's names: import those of the node's air-gap archive, or seed them",
	}
	for _, r := range m.routes {
		if r.repository != "" {
			return append(notes, "what is in none of the rewrites is asked for at the mirror under its own path")
		}
	}
	return notes
}
