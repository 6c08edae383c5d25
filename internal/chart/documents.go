package chart

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

const (
	// maxExpanded bounds the nodes that resolving aliases may add to a stream,
	// so that a few lines cannot become gigabytes.
	maxExpanded = 200_000
	// maxDepth bounds the nesting of a document. Kubernetes objects stay below
	// fifty; the walkers recurse.
	maxDepth = 1_000
)

// stream is a parsed stream of YAML documents together with its text, so that
// a change can be made in the text.
type stream struct {
	src  []byte
	docs []*document
}

// document is one document of a stream. tree is what Kubernetes will see:
// aliases and merge keys are resolved in it. Where there are none, the nodes
// are those of the text and their positions can be used.
type document struct {
	tree     *yaml.Node // the content, not the document node; nil if empty
	resolved bool       // tree differs in structure from the text
	line     int        // of the document's start
	changed  bool
	edits    []edit // what makes the change in the text; used if !reencode
	reencode bool   // the change cannot be made in the text
}

// edit replaces src[start:end] by text.
type edit struct {
	start, end int
	text       string
}

// parseStream reads all documents. Documents that hold nothing (or only
// comments) have no tree; a document that is not a mapping is an error.
func parseStream(src []byte) (*stream, error) {
	if len(src) > MaxManifests {
		return nil, &ManifestError{Err: fmt.Errorf("there are more than %d bytes", MaxManifests)}
	}
	if !utf8.Valid(src) {
		return nil, &ManifestError{Err: errors.New("the text is not UTF-8")}
	}
	s := &stream{src: src}
	budget := maxExpanded
	dec := yaml.NewDecoder(bytes.NewReader(src))
	for {
		var node yaml.Node
		err := protect(func() error { return dec.Decode(&node) })
		if errors.Is(err, io.EOF) {
			return s, nil
		}
		number := len(s.docs) + 1
		if err != nil {
			return nil, &ManifestError{Document: number, Err: err}
		}
		doc := &document{line: node.Line}
		s.docs = append(s.docs, doc)
		if len(node.Content) != 1 || isNull(node.Content[0]) {
			continue
		}
		root := node.Content[0]
		r := resolver{budget: &budget, open: map[*yaml.Node]bool{}}
		if doc.tree, err = r.resolve(root, 0); err != nil {
			return nil, &ManifestError{Document: number, Line: root.Line, Err: err}
		}
		doc.resolved = r.used
		if doc.tree.Kind != yaml.MappingNode {
			return nil, &ManifestError{Document: number, Line: root.Line, Err: errors.New("the document is not an object")}
		}
	}
}

func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

// resolver replaces aliases by copies and merge keys by the keys they bring.
// A tree without either is returned as it is.
type resolver struct {
	budget *int
	open   map[*yaml.Node]bool // anchors whose copy is being made
	used   bool
	copies int // depth of copying: above 0, every node must be a new one
}

func (r *resolver) resolve(n *yaml.Node, depth int) (*yaml.Node, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("the document is nested deeper than %d levels", maxDepth)
	}
	if n.Kind == yaml.AliasNode {
		target := n.Alias
		if target == nil || r.open[target] {
			return nil, fmt.Errorf("the anchor %q contains itself", n.Value)
		}
		r.used = true
		r.open[target] = true
		r.copies++
		out, err := r.resolve(target, depth+1)
		r.copies--
		delete(r.open, target)
		return out, err
	}
	if r.copies > 0 {
		if *r.budget--; *r.budget < 0 {
			return nil, fmt.Errorf("resolving aliases gives more than %d nodes", maxExpanded)
		}
		c := *n
		c.Content = slices.Clone(n.Content)
		n = &c
	}
	if n.Anchor != "" {
		// An anchor that nothing refers to any longer may stay in the text.
		if r.copies > 0 {
			n.Anchor = ""
		}
		r.open[n] = true
		defer delete(r.open, n)
	}
	merges := false
	for i, child := range n.Content {
		c, err := r.resolve(child, depth+1)
		if err != nil {
			return nil, err
		}
		n.Content[i] = c
		merges = merges || (n.Kind == yaml.MappingNode && i%2 == 0 && c.Tag == "!!merge")
	}
	if merges {
		return n, r.merge(n)
	}
	return n, nil
}

// merge replaces the keys "<<" of a mapping whose children are resolved: keys
// of the mapping itself win, then the earlier source.
func (r *resolver) merge(n *yaml.Node) error {
	have := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if key := n.Content[i]; key.Tag != "!!merge" && key.Kind == yaml.ScalarNode {
			have[key.Value] = true
		}
	}
	var content []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Tag != "!!merge" {
			content = append(content, key, value)
			continue
		}
		sources := []*yaml.Node{value}
		if value.Kind == yaml.SequenceNode {
			sources = value.Content
		}
		for _, src := range sources {
			if src.Kind != yaml.MappingNode {
				return errors.New(`the value of a merge key "<<" is not a mapping`)
			}
			for j := 0; j+1 < len(src.Content); j += 2 {
				if k := src.Content[j]; k.Kind != yaml.ScalarNode || !have[k.Value] {
					have[k.Value] = true
					content = append(content, k, src.Content[j+1])
				}
			}
		}
	}
	n.Content = content
	r.used = true
	return nil
}

// text returns the stream with the changes made to its trees. It makes them in
// the text, document by document where that is not possible by writing the
// document anew, and as a last resort writes the whole stream. What it returns
// was read again and is equal to the trees.
func (s *stream) text() ([]byte, error) {
	if !slices.ContainsFunc(s.docs, func(d *document) bool { return d.changed }) {
		return s.src, nil
	}
	attempts := []func() ([]byte, error){
		func() ([]byte, error) { return s.edited(func(d *document) bool { return d.reencode }) },
		func() ([]byte, error) { return s.edited(func(*document) bool { return true }) },
		s.encoded,
	}
	var errs []error
	for _, attempt := range attempts {
		out, err := attempt()
		if err == nil {
			err = s.check(out)
		}
		if err == nil {
			return out, nil
		}
		errs = append(errs, err)
	}
	return nil, &ManifestError{Err: fmt.Errorf("writing the changed documents: %w", errors.Join(errs...))}
}

// edited applies the changes to the text.
func (s *stream) edited(reencode func(*document) bool) ([]byte, error) {
	var edits []edit
	lines := newLineIndex(s.src)
	for i, doc := range s.docs {
		switch {
		case !doc.changed:
		case reencode(doc):
			e, err := s.encodeInPlace(i, lines)
			if err != nil {
				return nil, err
			}
			edits = append(edits, e)
		default:
			edits = append(edits, doc.edits...)
		}
	}
	slices.SortStableFunc(edits, func(a, b edit) int { return a.start - b.start })
	var out bytes.Buffer
	at := 0
	for _, e := range edits {
		if e.start < at || e.end < e.start || e.end > len(s.src) {
			return nil, errors.New("changes overlap")
		}
		out.Write(s.src[at:e.start])
		out.WriteString(e.text)
		at = e.end
	}
	out.Write(s.src[at:])
	return out.Bytes(), nil
}

// encodeInPlace is the edit that writes the i-th document anew.
func (s *stream) encodeInPlace(i int, lines *lineIndex) (edit, error) {
	start, end, err := s.documentSpan(i, lines)
	if err != nil {
		return edit{}, err
	}
	text, err := encode(s.docs[i].tree)
	if err != nil {
		return edit{}, err
	}
	return edit{start: start, end: end, text: "---\n" + string(text)}, nil
}

// documentSpan finds the bytes of the i-th document, from its separator on.
func (s *stream) documentSpan(i int, lines *lineIndex) (start, end int, err error) {
	end = len(s.src)
	if i > 0 || s.startsExplicitly(i, lines) {
		if start, err = s.documentStart(i, lines); err != nil {
			return 0, 0, err
		}
	}
	if i+1 < len(s.docs) {
		if end, err = s.documentStart(i+1, lines); err != nil {
			return 0, 0, err
		}
	}
	return start, end, nil
}

func (s *stream) startsExplicitly(i int, lines *lineIndex) bool {
	_, err := s.documentStart(i, lines)
	return err == nil
}

// documentStart is the offset of the "---" of the i-th document.
func (s *stream) documentStart(i int, lines *lineIndex) (int, error) {
	at, ok := lines.offset(s.docs[i].line, 1)
	if !ok || !bytes.HasPrefix(s.src[at:], []byte("---")) {
		return 0, fmt.Errorf("document %d does not start with a separator", i+1)
	}
	return at, nil
}

// encoded writes the whole stream anew.
func (s *stream) encoded() ([]byte, error) {
	var out bytes.Buffer
	for _, doc := range s.docs {
		out.WriteString("---\n")
		if doc.tree == nil {
			continue
		}
		text, err := encode(doc.tree)
		if err != nil {
			return nil, err
		}
		out.Write(text)
	}
	return out.Bytes(), nil
}

// encode writes a document anew.
func encode(tree *yaml.Node) ([]byte, error) {
	spellNulls(tree)
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := protect(func() error { return errors.Join(enc.Encode(tree), enc.Close()) }); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// spellNulls gives empty nulls a text: the encoder makes empty strings of those
// in flow mappings.
func spellNulls(n *yaml.Node) {
	if isNull(n) && n.Value == "" {
		n.Value = "null"
	}
	for _, c := range n.Content {
		spellNulls(c)
	}
}

// check reads text and compares it with the trees.
func (s *stream) check(text []byte) error {
	got, err := parseStream(text)
	if err != nil {
		return err
	}
	want := s.objects()
	have := got.objects()
	if len(want) != len(have) {
		return fmt.Errorf("%d objects became %d", len(want), len(have))
	}
	for i := range want {
		if !equal(want[i], have[i]) {
			return fmt.Errorf("object %d came out changed", i+1)
		}
	}
	return nil
}

// objects are the trees of the documents that are not empty.
func (s *stream) objects() []*yaml.Node {
	var objects []*yaml.Node
	for _, doc := range s.docs {
		if doc.tree != nil {
			objects = append(objects, doc.tree)
		}
	}
	return objects
}

// equal compares what two trees mean: kinds, types and values, in order.
func equal(a, b *yaml.Node) bool {
	if isNull(a) && isNull(b) {
		return true // however it is spelled
	}
	if a.Kind != b.Kind || a.ShortTag() != b.ShortTag() || a.Value != b.Value || len(a.Content) != len(b.Content) {
		return false
	}
	for i := range a.Content {
		if !equal(a.Content[i], b.Content[i]) {
			return false
		}
	}
	return true
}

// lineIndex finds offsets from the lines and columns of the parser, which
// counts characters, and counts as line breaks what YAML 1.1 does.
type lineIndex struct {
	src    []byte
	starts []int
}

func newLineIndex(src []byte) *lineIndex {
	x := &lineIndex{src: src}
	at := 0
	if bytes.HasPrefix(src, []byte("\ufeff")) {
		at = len("\ufeff")
	}
	x.starts = append(x.starts, at)
	for at < len(src) {
		n := lineBreak(src[at:])
		if n == 0 {
			at++
			continue
		}
		at += n
		x.starts = append(x.starts, at)
	}
	return x
}

// lineBreak is the length of the line break that b begins with, or 0.
func lineBreak(b []byte) int {
	for _, br := range []string{"\r\n", "\n", "\r", "\u0085", "\u2028", "\u2029"} {
		if bytes.HasPrefix(b, []byte(br)) {
			return len(br)
		}
	}
	return 0
}

// offset returns the offset of a position, both counted from 1.
func (x *lineIndex) offset(line, column int) (int, bool) {
	if line < 1 || line > len(x.starts) {
		return 0, false
	}
	at := x.starts[line-1]
	for i := 1; i < column; i++ {
		if at >= len(x.src) {
			return 0, false
		}
		_, n := utf8.DecodeRune(x.src[at:])
		at += n
	}
	return at, at <= len(x.src)
}

// start is the offset of the line that holds the given offset.
func (x *lineIndex) start(line int) int { return x.starts[line-1] }

// scalarSpan finds the bytes of a scalar, without its anchor and tag. It may be
// wrong or give up where the text is unusual; the caller's result is checked as
// a whole (see stream.text).
func (x *lineIndex) scalarSpan(n *yaml.Node) (start, end int, ok bool) {
	at, ok := x.offset(n.Line, n.Column)
	if !ok {
		return 0, 0, false
	}
	for at < len(x.src) && (x.src[at] == '&' || x.src[at] == '!') {
		for at < len(x.src) && !strings.ContainsRune(" \t\r\n", rune(x.src[at])) {
			at++
		}
		for at < len(x.src) && (x.src[at] == ' ' || x.src[at] == '\t') {
			at++
		}
	}
	rest := x.src[at:]
	switch {
	case n.Style&yaml.DoubleQuotedStyle != 0:
		end = quotedEnd(rest, '"')
	case n.Style&yaml.SingleQuotedStyle != 0:
		end = quotedEnd(rest, '\'')
	case n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		end = blockEnd(rest)
	case n.Value != "" && bytes.HasPrefix(rest, []byte(n.Value)):
		end = len(n.Value)
	}
	return at, at + end, end > 0
}

// quotedEnd is the length of the quoted scalar that b begins with, or 0.
func quotedEnd(b []byte, quote byte) int {
	if len(b) == 0 || b[0] != quote {
		return 0
	}
	for i := 1; i < len(b); i++ {
		switch {
		case b[i] == '\\' && quote == '"':
			i++
		case b[i] == quote && quote == '\'' && i+1 < len(b) && b[i+1] == quote:
			i++
		case b[i] == quote:
			return i + 1
		}
	}
	return 0
}

// blockEnd is the length of the block scalar that b begins with, without its
// last line break, or 0.
func blockEnd(b []byte) int {
	if len(b) == 0 || (b[0] != '|' && b[0] != '>') {
		return 0
	}
	end, indent := 0, 0
	at := 0
	for line := range bytes.Lines(b) {
		text := bytes.TrimRight(line, "\r\n")
		trimmed := bytes.TrimLeft(text, " ")
		spaces := len(text) - len(trimmed)
		switch {
		case at == 0: // the header
		case len(trimmed) == 0: // blank lines belong to it only if text follows
		case indent == 0 && spaces > 0:
			indent = spaces
			end = at + len(text)
		case indent > 0 && spaces >= indent:
			end = at + len(text)
		default:
			return end
		}
		at += len(line)
	}
	return end
}
