package chart

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// data handles a value of a ConfigMap or Secret.
func (w *imageWalker) data(n *yaml.Node, p place) {
	if p.encoded {
		raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(n.Value), ""))
		if err != nil || !utf8.Valid(raw) || bytes.IndexByte(raw, 0) >= 0 {
			return
		}
		// A node of its own: it is not in the text of the document.
		n = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: string(raw)}
	}
	if p.key == "_example" {
		return // Knative's: it shows what may be set, and nothing reads it
	}
	if saysImage(p.key) && w.whole(n, p, WayConfig, true) {
		return
	}
	w.text(n, p, WayConfig)
}

// text handles a string that may be anything: a document, or words.
func (w *imageWalker) text(n *yaml.Node, p place, way Way) {
	if way == WayAnnotation {
		if p.key == "kubectl.kubernetes.io/last-applied-configuration" || strings.HasSuffix(p.key, "description") {
			return // a copy of the object; prose
		}
		if w.kind == "ClusterServiceVersion" && (p.key == "alm-examples" || p.key == "containerImage") {
			return // for catalogs to show
		}
		if saysImage(p.key) && w.whole(n, p, way, true) {
			return
		}
	}
	if w.depth < maxInnerDepth && mayBeDocument(n.Value) && w.inner(n, p, way) {
		return
	}
	w.words(n, p, way, false)
}

// mayBeDocument says that a text is worth reading as YAML or JSON: it has more than one field, and
// one that is called as those of images are. Others are read word by word.
func mayBeDocument(s string) bool {
	if len(s) > maxInner || !strings.ContainsAny(s, "\n{[") || !strings.Contains(s, ":") {
		return false
	}
	return strings.Contains(s, "mage") || strings.Contains(s, "MAGE") || strings.Contains(s, "repository")
}

// inner reads a text as YAML documents and finds what they name. It says whether it could.
func (w *imageWalker) inner(n *yaml.Node, p place, way Way) bool {
	if w.bytes -= len(n.Value); w.bytes < 0 {
		return false
	}
	roots, err := w.decode(n.Value)
	if err != nil || len(roots) == 0 {
		return false
	}
	lines := newLineIndex([]byte(n.Value))
	for i, root := range roots {
		prefix := p.path + ":"
		if len(roots) > 1 {
			prefix = p.path + ":" + joinIndex("", i)
		}
		report := func(h hit) error {
			if _, ok := parseImage(h.Reference); !ok {
				return nil // an image by its place, if the text is what it looks like
			}
			h.Way, h.Probable, h.Object, h.parts = way, true, w.object, nil
			outer := n
			if h.node == nil || w.depth > 0 || !locate(lines, &h) {
				outer = nil
			}
			h.node = outer
			return w.f(h)
		}
		in := newImageWalker(w.scan, root, report)
		in.custom, in.depth = true, w.depth+1
		if in.err = in.walk(root, place{path: prefix, values: true}); in.err != nil && w.err == nil {
			w.err = in.err
		}
	}
	return true
}

// locate makes offsets in a text of those in a scalar of the document that it holds.
func locate(lines *lineIndex, h *hit) bool {
	start, end, ok := lines.scalarSpan(h.node)
	if !ok || end > len(lines.src) {
		return false
	}
	src := string(lines.src[start:end])
	if strings.Count(src, h.Reference) != 1 {
		return false
	}
	h.start = start + strings.Index(src, h.Reference)
	h.end = h.start + len(h.Reference)
	return true
}

var errNoDocument = errors.New("the text is no document")

// decode reads mappings and lists; anything else is an error.
func (w *imageWalker) decode(s string) (roots []*yaml.Node, err error) {
	dec := yaml.NewDecoder(strings.NewReader(s))
	for {
		var node yaml.Node
		err := protect(func() error { return dec.Decode(&node) })
		if errors.Is(err, io.EOF) {
			return roots, nil
		}
		if err != nil {
			return nil, err
		}
		if len(node.Content) != 1 || isNull(node.Content[0]) {
			continue
		}
		r := resolver{budget: &w.nodes, open: map[*yaml.Node]bool{}}
		root, err := r.resolve(node.Content[0], 0)
		if err != nil {
			return nil, err
		}
		if root.Kind == yaml.ScalarNode {
			return nil, errNoDocument
		}
		roots = append(roots, root)
	}
}

// words handles a string word by word: complete references of known registries are probable, and
// so are references that follow the name of an image ("image: REF", "--image REF"). said says that
// the name of the whole is one of images: then complete ones are certain.
func (w *imageWalker) words(n *yaml.Node, p place, way Way, said bool) {
	s := n.Value
	if !strings.ContainsAny(s, ":@") {
		return
	}
	lines := strings.Contains(strings.TrimSpace(s), "\n")
	line, counted := 1, 0
	eachWord(s, func(at word) {
		reference := s[at.start:at.end]
		near := said || at.near != "" && saysImage(at.near)
		if !near && !strings.Contains(reference, "/") {
			return
		}
		ref, ok := plausible(reference)
		if !ok || !ref.named || !near && (!ref.complete() || !w.known(ref.host)) {
			return
		}
		path := p.path
		if lines {
			line += strings.Count(s[counted:at.start], "\n")
			counted = at.start
			path += ":" + strconv.Itoa(line)
		}
		w.report(hit{Find{reference, way, !said || !ref.complete(), w.object, path}, n, at.start, at.end, nil})
	})
}
