package chart

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/distribution/reference"
	"go.yaml.in/yaml/v3"
)

// RewriteImages replaces images that rendered documents name by what f returns
// for them, and stops at the first error of f; what f returns as it is stays as
// it is. It goes by the walker of [FindImages] and [Discover]. f is called
//
//   - for every image that [FindImages] finds, complete or not;
//   - for known fields of custom resources with a tag or digest;
//   - for those finds of [Discover] that are a complete reference, with registry
//     and with tag or digest: in environment, arguments, other fields, annotations, and
//     texts, of any registry, since the caller knows which ones travel. Of an
//     argument such as "--sidecar-image=REF" only REF changes;
//   - for images in parts that together are complete. The parts are set: registry
//     and repository, or the registry as part of the repository where there is no
//     registry, tag, and digest where there is one. Where they do not suffice for
//     the result (it has no tag, and there is no digest to set) nothing changes.
//
// It is never called for keys, names, labels, selectors, ConfigMaps and Secrets; see
// [RewriteConfigMaps] for ConfigMaps.
//
// Where nothing changes, the same bytes come back; otherwise the bytes around
// the rewritten references stay as they are (comments, quotes, numbers and
// all), but for documents with aliases, which are written anew with the aliases
// resolved.
//
// Errors are *[ManifestError], and those of f with the place added.
func RewriteImages(docs []byte, f func(use Find) (string, error)) ([]byte, error) {
	return rewriteImages(docs, func(_ *yaml.Node, h *hit) bool { return h.rewritable() }, f)
}

// RewriteConfigMaps is RewriteImages for the data of those ConfigMaps that chosen picks by the namespace and
// name that they have themselves. f is called for whole words, and whole values, that are a complete
// reference with its registry, and a tag or digest: whatever else they may be is not known, so that
// what f does not know has to come back as it is. binaryData stays as it is.
func RewriteConfigMaps(docs []byte, chosen func(namespace, name string) bool, f func(use Find) (string, error)) ([]byte, error) {
	return rewriteImages(docs, func(object *yaml.Node, h *hit) bool {
		// What was decoded has no place in the text.
		if h.Way != WayConfig || h.node == nil || h.node.Line == 0 || text(field(object, "kind")) != "ConfigMap" {
			return false
		}
		ref, ok := parseImage(h.Reference)
		meta := field(object, "metadata")
		return ok && ref.complete() && chosen(text(field(meta, "namespace")), text(field(meta, "name")))
	}, f)
}

func rewriteImages(docs []byte, wanted func(object *yaml.Node, h *hit) bool, f func(use Find) (string, error)) ([]byte, error) {
	s, err := parseStream(docs)
	if err != nil {
		return nil, err
	}
	lines := newLineIndex(docs)
	scan := newScan(func(string) bool { return true })
	for _, doc := range s.docs {
		var changes []change
		err := doc.objectImages(scan, func(object *yaml.Node, h hit) error {
			if !wanted(object, &h) {
				return nil
			}
			to, err := f(h.Find)
			if err != nil {
				return fmt.Errorf("rewriting image %q of %s: %w", h.Reference, h.Object, err)
			}
			if to == h.Reference {
				return nil
			}
			if to == "" || strings.ContainsFunc(to, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
				return fmt.Errorf("rewriting image %q of %s: the result %q is not a reference", h.Reference, h.Object, to)
			}
			if h.parts != nil {
				changes = append(changes, h.parts.changes(to)...)
			} else {
				changes = append(changes, change{h.node, h.start, h.end, to})
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		doc.apply(lines, changes)
	}
	return s.text()
}

// rewritable says whether RewriteImages asks about a hit.
func (h *hit) rewritable() bool {
	switch h.Way {
	case WayContainer, WayVolume:
		return true
	case WayConfig, WayChartAnnotation, WayImagesLock:
		return false
	case WayField:
		// Without a tag the operator may add one of its own.
		ref, ok := parseImage(h.Reference)
		return ok && ref.named && h.node != nil
	default:
		ref, ok := parseImage(h.Reference)
		return ok && ref.complete() && (h.node != nil || h.parts != nil)
	}
}

// change replaces a part of the value of a scalar.
type change struct {
	node       *yaml.Node
	start, end int
	to         string
}

// changes says how the parts become a reference; nil where they cannot.
func (p *parts) changes(to string) []change {
	named, err := reference.ParseNormalizedNamed(to)
	if err != nil {
		return nil
	}
	registry, repository := reference.Domain(named), reference.Path(named)
	var tag, dig string
	if t, ok := named.(reference.Tagged); ok {
		tag = t.Tag()
	}
	if d, ok := named.(reference.Digested); ok {
		dig = d.Digest().String()
	}
	switch {
	case dig != "" && p.digest == nil && (tag == "" || p.tag == nil),
		dig == "" && p.digest != nil,
		tag != "" && p.tag == nil && dig == "",
		tag == "" && p.tag != nil && p.digest == nil:
		return nil
	}
	if p.registry == nil {
		repository = registry + "/" + repository
	}
	var all []change
	set := func(n *yaml.Node, value string) {
		if n != nil && value != "" && strings.TrimSpace(n.Value) != value {
			all = append(all, change{n, 0, len(n.Value), value})
		}
	}
	set(p.registry, registry)
	set(p.repository, repository)
	set(p.tag, tag)
	set(p.digest, p.digestPrefix(dig))
	return all
}

// apply makes changes in the tree and plans those of the text. The changes of
// one scalar follow each other.
func (d *document) apply(lines *lineIndex, changes []change) {
	for len(changes) > 0 {
		n := 1
		for n < len(changes) && changes[n].node == changes[0].node {
			n++
		}
		d.applyTo(lines, changes[:n])
		changes = changes[n:]
	}
}

func (d *document) applyTo(lines *lineIndex, changes []change) {
	node := changes[0].node
	// An alias in a document inside of a text leads to the same place again.
	slices.SortStableFunc(changes, func(a, b change) int { return a.start - b.start })
	changes = slices.CompactFunc(changes, func(a, b change) bool { return a.start == b.start })
	if changes[0].start == 0 && changes[0].end == len(node.Value) {
		d.setScalar(lines, node, changes[0].to)
		return
	}
	var value strings.Builder
	at := 0
	for _, c := range changes {
		value.WriteString(node.Value[at:c.start])
		value.WriteString(c.to)
		at = c.end
	}
	value.WriteString(node.Value[at:])
	edits, ok := lines.partEdits(node, changes)
	if !ok || d.resolved {
		d.setScalar(lines, node, value.String())
		return
	}
	d.changed = true
	d.edits = append(d.edits, edits...)
	node.Value = value.String()
	node.Tag = "!!str"
}

// partEdits finds the parts of a scalar in the text, where they stand as they
// are in the value.
func (x *lineIndex) partEdits(node *yaml.Node, changes []change) ([]edit, bool) {
	start, end, ok := x.scalarSpan(node)
	if !ok || end > len(x.src) {
		return nil, false
	}
	src := string(x.src[start:end])
	var edits []edit
	for _, c := range changes {
		token := node.Value[c.start:c.end]
		if !isPlain(c.to) || strings.Count(src, token) != strings.Count(node.Value, token) {
			return nil, false
		}
		at := 0
		for range strings.Count(node.Value[:c.start], token) {
			at += strings.Index(src[at:], token) + len(token)
		}
		at += strings.Index(src[at:], token)
		edits = append(edits, edit{start: start + at, end: start + at + len(token), text: c.to})
	}
	return edits, true
}

// setScalar changes a string in the tree and plans the change of the text.
func (d *document) setScalar(lines *lineIndex, n *yaml.Node, to string) {
	d.changed = true
	start, end, ok := lines.scalarSpan(n)
	if d.resolved || !ok {
		d.reencode = true
	} else {
		d.edits = append(d.edits, edit{start: start, end: end, text: scalarText(to, n.Style)})
	}
	n.Value = to
	n.Tag = "!!str"
	n.Style &^= yaml.LiteralStyle | yaml.FoldedStyle
}

// scalarText writes a reference as YAML, quoted as before.
func scalarText(s string, style yaml.Style) string {
	switch {
	case style&yaml.SingleQuotedStyle != 0 && isPrintable(s):
		return "'" + strings.ReplaceAll(s, "'", "''") + "'"
	case style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0 && isPlain(s):
		return s
	}
	// A JSON string is a double-quoted scalar.
	quoted, err := json.Marshal(s)
	if err != nil {
		return strconv.Quote(s) // cannot happen: strings always marshal
	}
	return string(quoted)
}

func isPrintable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// isPlain says that s can stand without quotes and is a string to every YAML
// version: it has a slash, and nothing but what references are made of.
func isPlain(s string) bool {
	if !strings.Contains(s, "/") || strings.HasSuffix(s, ":") {
		return false
	}
	for i, r := range s {
		alnum := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !alnum && (i == 0 || !strings.ContainsRune("._-/:@", r)) {
			return false
		}
	}
	return true
}
