package install

import (
	"regexp"
	"strings"

	"github.com/sealift/sealift/internal/oci"
)

// anyPaths are paths that no rule has been written for.
var anyPaths = []string{"sealift-probe", "sealift-probe/any", "sealift-probe/any/path"}

// PrefixOf returns what the site puts before the paths of a registry, a host or host:port, when it
// keeps them: t.Prefix, or what a rule makes of it. all says that every path gets it, else some do not
// that rules are for. ok is false where paths do not stay as they are, or have no prefix in common.
func (t Target) PrefixOf(registry string) (prefix string, all, ok bool) {
	for _, path := range anyPaths {
		if !isPathOf(registry, path) {
			continue
		}
		got, kept := t.prefixOf(registry, path)
		if !kept || ok && got != prefix {
			return "", false, false
		}
		prefix, ok = got, true
	}
	for i := range t.Names.Rules {
		for _, path := range t.Names.Rules[i].samples(registry) {
			if got, kept := t.prefixOf(registry, path); isPathOf(registry, path) && (!kept || got != prefix) {
				return prefix, false, ok
			}
		}
	}
	return prefix, ok, ok
}

// isPathOf reports whether an image can be called so. Docker Hub has none of one segment: it puts
// library before them.
func isPathOf(registry, path string) bool {
	ref, err := oci.Normalize(registry + "/" + path)
	return err == nil && ref.Registry == registry && ref.Repository == path
}

// prefixOf is what comes before one path at the site; kept says that the path itself stays.
func (t Target) prefixOf(registry, path string) (prefix string, kept bool) {
	at, _, err := t.place(registry, path, "")
	if err != nil {
		return "", false
	}
	if at == path {
		return "", true
	}
	return strings.CutSuffix(at, "/"+path)
}

// samples are paths of a registry that the left side of the rule takes: none where it is for others.
func (r *Rule) samples(registry string) []string {
	left, _, _ := strings.Cut(r.Text, "=")
	host, below, _ := strings.Cut(strings.TrimSpace(left), "/")
	pattern := strings.ReplaceAll(regexp.QuoteMeta(host), `\*\*`, `.+`)
	re, err := regexp.Compile(`\A` + strings.ReplaceAll(pattern, `\*`, `[^/]+`) + `\z`)
	if err != nil || !re.MatchString(registry) {
		return nil
	}
	var paths []string
	for _, several := range []string{"any", "any/path"} {
		path := strings.ReplaceAll(strings.ReplaceAll(below, "**", several), "*", "any")
		paths = append(paths, path)
		// What stands for several segments in the host takes some of the path, too.
		if strings.Contains(host, "**") {
			paths = append(paths, "any/"+path)
		}
	}
	return paths
}
