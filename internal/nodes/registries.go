package nodes

import (
	"fmt"
	"strings"
)

// registriesFile is the drop-in of containers-registries.conf.d(5).
const registriesFile = "registries.conf.d/50-sealift.conf"

// registriesConf writes a drop-in for containers-registries.conf(5). Its mirrors would fall through to
// the source when they miss, so that the location itself is the site's registry. Where only some
// repositories of a registry lead there, the rest of it is blocked.
func registriesConf(m *Mirrors, ca Authority) []File {
	var b strings.Builder
	for _, registry := range m.registries() {
		for _, name := range m.names(registry) {
			if name == hub[1] {
				continue // these runtimes make the first one of it
			}
			whole := false
			for _, r := range m.only(registry).routes {
				whole = whole || r.repository == ""
				fmt.Fprintf(&b, "\n[[registry]]\nprefix = %s\nlocation = %s\n", quoted(join(name, r.repository)), quoted(r.location()))
				if r.to.PlainHTTP {
					b.WriteString("insecure = true\n")
				}
			}
			if !whole {
				fmt.Fprintf(&b, "\n# Nothing else of it is at the site.\n[[registry]]\nprefix = %s\nlocation = %s\nblocked = true\n", quoted(name), quoted(name))
			}
		}
	}
	files := []File{{registriesFile, marked(m, b.String())}}
	for _, e := range m.endpoints() {
		if e.CA && ca.Host == e.Host {
			files = append(files, File{"certs.d/" + e.Host + "/ca.crt", marked(m.unrouted(), ca.PEM)})
		}
	}
	return files
}

func registriesNotes(f Format) []string {
	read := "podman, buildah and skopeo read them each time; for one user they belong below ~/.config/containers"
	short := "podman"
	if f == CRIO {
		read, short = "'systemctl reload crio' makes CRI-O read them", "CRI-O"
	}
	return []string{
		"these files belong below /etc/containers; " + read,
		fmt.Sprintf(`names without a registry, such as "nginx", are looked for where unqualified-search-registries says. If charts have
such names, %s needs, in /etc/containers/registries.conf or a drop-in of the site's own,
    unqualified-search-registries = ["docker.io"]
and no other registry there, since these would be asked too`, short),
	}
}
