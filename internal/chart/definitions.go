package chart

import (
	"cmp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Definition is what a custom resource definition says of its versions.
type Definition struct {
	Name string // "widgets.example.com"
	Kind string
	// Versions in their order.
	Versions []DefinitionVersion
}

// DefinitionVersion is one version of a custom resource.
type DefinitionVersion struct {
	Name            string
	Served, Storage bool
}

// Storage is the version in which objects are kept; empty for none.
func (d *Definition) Storage() string {
	for _, v := range d.Versions {
		if v.Storage {
			return v.Name
		}
	}
	return ""
}

// Has reports whether there is a version of this name.
func (d *Definition) Has(version string) bool {
	return slices.ContainsFunc(d.Versions, func(v DefinitionVersion) bool { return v.Name == version })
}

// Definitions are the custom resource definitions among documents, in their order. Errors are *[ManifestError].
func Definitions(docs []byte) ([]Definition, error) {
	var list []Definition
	err := eachOf(docs, func(n *yaml.Node) {
		if text(field(n, "kind")) != "CustomResourceDefinition" || !strings.HasPrefix(text(field(n, "apiVersion")), "apiextensions.k8s.io/") {
			return
		}
		spec := field(n, "spec")
		d := Definition{Name: text(field(field(n, "metadata"), "name")), Kind: text(field(field(spec, "names"), "kind"))}
		if versions := field(spec, "versions"); versions != nil && versions.Kind == yaml.SequenceNode {
			for _, v := range versions.Content {
				d.Versions = append(d.Versions, DefinitionVersion{
					Name: text(field(v, "name")), Served: text(field(v, "served")) == "true", Storage: text(field(v, "storage")) == "true",
				})
			}
		}
		list = append(list, d)
	})
	return list, err
}

// Hook is an object that Helm creates at certain points.
type Hook struct {
	// Object is "KIND/NAME".
	Object string
	Kind   string
	// Events are as the annotation helm.sh/hook has them: "pre-upgrade".
	Events []string
}

// Runs reports whether the hook is something that runs, at one of these events.
func (h *Hook) Runs(events ...string) bool {
	if h.Kind != "Job" && h.Kind != "Pod" {
		return false
	}
	return slices.ContainsFunc(h.Events, func(e string) bool { return slices.Contains(events, e) })
}

// hookKey is the annotation of hooks.
const hookKey = "helm.sh/hook"

// Hooks are those among documents, in their order. Errors are *[ManifestError].
func Hooks(docs []byte) ([]Hook, error) {
	var list []Hook
	err := eachOf(docs, func(n *yaml.Node) {
		events := hookEvents(n)
		if len(events) > 0 {
			list = append(list, Hook{Object: objectName(n), Kind: text(field(n, "kind")), Events: events})
		}
	})
	return list, err
}

func hookEvents(n *yaml.Node) []string {
	var events []string
	for e := range strings.SplitSeq(text(field(field(field(n, "metadata"), "annotations"), hookKey)), ",") {
		if e = strings.TrimSpace(e); e != "" {
			events = append(events, e)
		}
	}
	return events
}

func eachOf(docs []byte, f func(*yaml.Node)) error {
	s, err := parseStream(docs)
	if err != nil {
		return err
	}
	for _, doc := range s.docs {
		if err := doc.objects(func(n *yaml.Node) error { f(n); return nil }); err != nil {
			return err
		}
	}
	return nil
}

// Mention is a text that names a host.
type Mention struct {
	// Object is "KIND/NAME".
	Object string
	Path   string
	Host   string
}

// maxMentions bounds what FindHosts finds.
const maxMentions = 1000

// FindHosts finds the texts of documents that name one of hosts, as HOST or HOST:PORT, keys and comments aside. What Secrets hold is
// not looked at. Each place is listed once for each host. Errors are *[ManifestError].
func FindHosts(docs []byte, hosts []string) ([]Mention, error) {
	var list []Mention
	err := eachOf(docs, func(n *yaml.Node) {
		w := hostWalker{object: objectName(n), hosts: hosts, secret: isSecret(n), list: &list}
		w.walk(n, "")
	})
	slices.SortStableFunc(list, func(a, b Mention) int { return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Path, b.Path)) })
	return list, err
}

type hostWalker struct {
	object string
	hosts  []string
	secret bool
	list   *[]Mention
}

func (w *hostWalker) walk(n *yaml.Node, path string) {
	if w.secret && within(path, "data", "stringData") {
		return
	}
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			w.walk(n.Content[i+1], join(path, keyText(n.Content[i])))
		}
	case yaml.SequenceNode:
		for i, item := range n.Content {
			w.walk(item, joinIndex(path, i))
		}
	case yaml.ScalarNode:
		for _, host := range w.hosts {
			if len(*w.list) < maxMentions && namesHost(n.Value, host) {
				*w.list = append(*w.list, Mention{Object: w.object, Path: cut(path, maxShownPath), Host: host})
			}
		}
	default: // aliases were resolved before
	}
}

// namesHost reports whether a host stands in a text, and not only as a part of a longer name.
func namesHost(s, host string) bool {
	for at := 0; ; {
		i := strings.Index(s[at:], host)
		if i < 0 || host == "" {
			return false
		}
		start, end := at+i, at+i+len(host)
		before, after := start == 0 || !isHostByte(s[start-1]), end == len(s) || !isHostByte(s[end])
		if end < len(s) && s[end] == '.' && (end+1 == len(s) || !isHostByte(s[end+1])) {
			after = true // the end of a sentence
		}
		if before && after {
			return true
		}
		at = end
	}
}

func isHostByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.'
}
