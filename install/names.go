package install

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/sealift/sealift/manifest"
)

// Mapping says how the names of images at their sources become names in the site's registry.
type Mapping string

// Mappings. The empty one is MappingKeep.
const (
	// MappingKeep puts the path that the image had below the prefix: docker.io/library/nginx:1
	// becomes HOST/PREFIX/library/nginx:1.
	MappingKeep Mapping = "keep"
	// MappingFlatten makes one name of the path: HOST/PREFIX/library-nginx:1.
	MappingFlatten Mapping = "flatten"
	// MappingSingle puts everything into the one repository HOST/PREFIX, under tags that are made of
	// path and tag: HOST/PREFIX:library-nginx-1.
	MappingSingle Mapping = "single"
)

var mappings = []Mapping{MappingKeep, MappingFlatten, MappingSingle}

// ParseMapping reads a mapping; the empty text is MappingKeep.
func ParseMapping(text string) (Mapping, error) {
	if text == "" {
		return MappingKeep, nil
	}
	if m := Mapping(text); slices.Contains(mappings, m) {
		return m, nil
	}
	return "", fmt.Errorf("mapping %q is none of keep, flatten, single", text)
}

// Limits of names: those of the OCI distribution spec, which registries share.
const (
	maxPath = 255
	maxTag  = 128
)

// Rule is a rule of a site's own: what its left side matches gets the name that its right side makes,
// below the prefix. * stands for a part of a path segment, ** for any number of segments.
type Rule struct {
	// Text is the rule as it was written.
	Text string
	left *regexp.Regexp
	// right are the pieces between the wildcards, which say how much of the source they take.
	right []string
}

// RuleError says why a rule of a site's own cannot be used.
type RuleError struct{ Text, Why string }

// Error quotes the rule.
func (e *RuleError) Error() string { return fmt.Sprintf("mapping rule %q %s", e.Text, e.Why) }

var wildcard = regexp.MustCompile(`\*+`)

// ParseRule reads SOURCE=NAME. SOURCE is compared with REGISTRY/REPOSITORY of an image, or with
// charts/NAME; the wildcards of NAME stand for what those of SOURCE have taken, in their order.
// Errors are *RuleError.
func ParseRule(text string) (Rule, error) {
	fail := func(why string) (Rule, error) { return Rule{}, &RuleError{text, why} }
	left, right, ok := strings.Cut(text, "=")
	left, right = strings.TrimSpace(left), strings.Trim(strings.TrimSpace(right), "/")
	if !ok || left == "" || right == "" {
		return fail("is not written as SOURCE=NAME")
	}
	host, _, slash := strings.Cut(left, "/")
	if !slash || !strings.ContainsAny(host, ".:*") && host != "localhost" && host != "charts" {
		return fail("has no registry before the first / of its source, as in docker.io/library/*")
	}
	marks, used := wildcard.FindAllString(left, -1), wildcard.FindAllString(right, -1)
	for _, w := range append(slices.Clone(marks), used...) {
		if len(w) > 2 {
			return fail("has more than two * in a row")
		}
	}
	if !slices.Equal(marks, used) {
		return fail("has other wildcards in its name than in its source, or in another order")
	}
	pattern := regexp.QuoteMeta(left)
	pattern = strings.ReplaceAll(pattern, `\*\*`, `(.+)`)
	pattern = strings.ReplaceAll(pattern, `\*`, `([^/]+)`)
	re, err := regexp.Compile(`\A` + pattern + `\z`)
	if err != nil {
		return fail(err.Error())
	}
	return Rule{Text: text, left: re, right: wildcard.Split(right, -1)}, nil
}

// apply returns the name that the rule makes of a source.
func (r *Rule) apply(source string) (string, bool) {
	taken := r.left.FindStringSubmatch(source)
	if taken == nil {
		return "", false
	}
	var b strings.Builder
	for i, piece := range r.right {
		if i > 0 {
			b.WriteString(taken[i])
		}
		b.WriteString(piece)
	}
	return escapeHost(b.String()), true
}

// escapeHost makes a part of a path of what a wildcard took of a registry with a port, or with
// capital letters.
func escapeHost(name string) string {
	return strings.ToLower(strings.NewReplacer(":", "-", "[", "", "]", "").Replace(name))
}

// Names say how the images of bundles are called at a site. The zero value keeps their paths.
type Names struct {
	Mapping Mapping
	// Rules come before the mapping; the first one that matches counts.
	Rules []Rule
}

// Equal reports whether both make the same names of everything.
func (n Names) Equal(o Names) bool {
	return n.mapping() == o.mapping() && slices.Equal(n.Texts(), o.Texts())
}

// Texts are the rules as they were written.
func (n Names) Texts() []string {
	var texts []string
	for _, r := range n.Rules {
		texts = append(texts, r.Text)
	}
	return texts
}

func (n Names) mapping() Mapping {
	if n.Mapping == "" {
		return MappingKeep
	}
	return n.Mapping
}

// NameError says that something of a bundle cannot have the name in a registry that it would get.
type NameError struct{ Source, Name, Why string }

// Error names all three.
func (e *NameError) Error() string {
	return fmt.Sprintf("%q would become %q, %s", e.Source, e.Name, e.Why)
}

// place is where the image called registry/repository:tag goes, or with an empty registry the chart
// of that name: the path below the host, and the tag, which is empty where there is none. Errors are
// *NameError.
func (t Target) place(registry, repository, tag string) (path, at string, err error) {
	source := strings.TrimPrefix(registry+"/"+repository, "/")
	path, at = t.path(repository), tag
	if name, ok := t.Names.ruled(source); ok {
		path = t.path(name)
	} else {
		switch t.Names.mapping() {
		case MappingKeep:
		case MappingFlatten:
			path = t.path(flat(repository))
		case MappingSingle:
			path = t.Prefix
			if tag != "" {
				at = cut(flat(repository)+"-"+tag, maxTag)
			}
		}
	}
	fail := func(name, why string) error {
		if tag != "" {
			source += ":" + tag
		}
		return &NameError{source, name, why}
	}
	switch {
	case path == "":
		return "", "", fail(t.Registry, "which has no path: the mapping single needs HOST/PREFIX, the repository that all goes into")
	case !pathPattern.MatchString(path):
		return "", "", fail(path, "which is no path of a registry: lower-case letters, digits, and single separators . _ - / between them")
	case len(t.Registry)+1+len(path) > maxPath:
		// Older clients count the host.
		return "", "", fail(path, fmt.Sprintf("which has %d characters with the registry before it, and %d are the most", len(t.Registry)+1+len(path), maxPath))
	}
	return path, at, nil
}

func (n Names) ruled(source string) (string, bool) {
	for i := range n.Rules {
		if name, ok := n.Rules[i].apply(source); ok {
			return name, true
		}
	}
	return "", false
}

// flat makes one segment of a path.
func flat(path string) string { return strings.ReplaceAll(path, "/", "-") }

// cut shortens a text to limit characters so that what differs in what is cut off stays apart.
func cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	sum := sha256.Sum256([]byte(text))
	tail := "-" + hex.EncodeToString(sum[:8])
	return text[:limit-len(tail)] + tail
}

// Located is where an image or chart of a bundle is in the site's registry.
type Located struct {
	// Source is the normalized reference, of charts "charts/NAME:VERSION".
	Source string
	// Repository is the path below the host, with the prefix; Tag is empty for images that have
	// only a digest at their source.
	Repository, Tag string
	// Digest is what the reference leads to there; Original what it had at its source, which is
	// another one where an index was derived.
	Digest, Original string
	Chart            bool
}

// Locate says where everything in m is, or will be, after it was seeded. Errors: *CollisionError,
// *NameError, *PlatformsError.
func Locate(m *manifest.Manifest, t Target, mode IndexMode) ([]Located, error) {
	all, err := roots(m, t, mode, map[string]*root{})
	if err != nil {
		return nil, err
	}
	charts := len(all) - len(m.Charts)
	located := make([]Located, 0, len(all))
	for i, r := range all {
		located = append(located, Located{r.source, r.path, r.tag, r.top.Digest, r.original, i >= charts})
	}
	return located, nil
}
