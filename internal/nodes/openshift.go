package nodes

import (
	"fmt"
	"strings"
)

// Files for OpenShift, which are objects for its API server.
const (
	openShiftMirrors = "sealift-mirrors.yaml"
	openShiftCA      = "sealift-registry-ca.yaml"
)

// openShift writes an ImageDigestMirrorSet and an ImageTagMirrorSet (config.openshift.io/v1), of which
// the cluster makes registries.conf of its nodes.
func openShift(m *Mirrors, ca Authority) ([]File, error) {
	for _, r := range m.routes {
		if strings.Contains(r.source()+r.location(), "[") {
			return nil, &FormatError{OpenShift, r.source(), r.location(), "its mirror sets take names of hosts, and no IPv6 addresses"}
		}
	}
	var b strings.Builder
	for _, kind := range []struct{ kind, key string }{{"ImageDigestMirrorSet", "imageDigestMirrors"}, {"ImageTagMirrorSet", "imageTagMirrors"}} {
		fmt.Fprintf(&b, "---\napiVersion: config.openshift.io/v1\nkind: %s\nmetadata:\n  name: sealift\nspec:\n  %s:\n", kind.kind, kind.key)
		for _, r := range m.routes {
			fmt.Fprintf(&b, "    - source: %s\n      mirrors:\n        - %s\n      mirrorSourcePolicy: NeverContactSource\n", quoted(r.source()), quoted(r.location()))
		}
	}
	files := []File{{openShiftMirrors, marked(m, b.String())}}
	for _, e := range m.endpoints() {
		if e.CA && ca.Host == e.Host {
			files = append(files, File{openShiftCA, marked(m.unrouted(), configMap(ca))})
		}
	}
	return files, nil
}

// configMap is what additionalTrustedCA of the cluster's image configuration can name: the key is the
// registry, with .. before a port.
func configMap(ca Authority) string {
	var b strings.Builder
	b.WriteString("---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: sealift-registry-ca\n  namespace: openshift-config\ndata:\n")
	fmt.Fprintf(&b, "  %s: |\n", quoted(strings.ReplaceAll(ca.Host, ":", "..")))
	for line := range strings.Lines(ca.PEM) {
		b.WriteString("    " + strings.TrimSuffix(line, "\n") + "\n")
	}
	return b.String()
}

func openShiftNotes(m *Mirrors, ca Authority) []string {
	notes := []string{
		`'oc apply -f' takes these files, on OpenShift 4.13 and later. The cluster writes them to its nodes, one node after the
other. What has other namespaces than those in there is still asked for at its source`,
	}
	for _, e := range m.endpoints() {
		switch {
		case e.PlainHTTP:
			notes = append(notes, fmt.Sprintf("%s speaks no TLS: add it to spec.registrySources.insecureRegistries of image.config.openshift.io/cluster", e.Host))
		case e.CA && ca.Host == e.Host:
			notes = append(notes, `the nodes trust the certificates after
    oc patch image.config.openshift.io/cluster --type merge -p '{"spec":{"additionalTrustedCA":{"name":"sealift-registry-ca"}}}'
or, if that names another ConfigMap already, after the key in ours has been added to it`)
		}
	}
	return notes
}
