package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Decision is what somebody decided about images that may be meant.
type Decision struct {
	// Match is a pattern: see Pattern.
	Match string
	// Why is for those who read the spec; it may be empty.
	Why string
}

// Edit is what EditSpec adds to a spec.
type Edit struct {
	// Include goes to images, Ignore to ignoreImages.
	Include, Ignore []Decision
}

// EditError says that a spec cannot be changed by a program, and what to write into it.
type EditError struct {
	Path string
	Err  error
	// Text is what was to be added.
	Text string
}

// Error has the text to add.
func (e *EditError) Error() string {
	return fmt.Sprintf("spec %q is written in a way that is not changed by a program (%v); add by hand:\n%s", e.Path, e.Err, e.Text)
}

// Unwrap returns the cause.
func (e *EditError) Unwrap() error { return e.Err }

// EditSpec adds patterns to the spec at path, and changes nothing else of it: comments, order and
// spelling stay. What is there already is not added again; where nothing is new, nothing is written.
// The spec is read again before it takes the place of the old one, which happens at once.
//
// Errors are *PatternError, *SpecError, *EditError, and those of the file.
func EditSpec(path string, e Edit) error {
	for _, list := range [][]Decision{e.Include, e.Ignore} {
		for _, d := range list {
			if _, err := ParsePattern(d.Match); err != nil {
				return err
			}
		}
	}
	// A link stays one.
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("changing spec: %w", err)
	}
	raw, mode, err := readSpec(target)
	if err != nil {
		return fmt.Errorf("changing spec %q: %w", path, err)
	}
	edited, err := editSpec(raw, e)
	var bad *SpecError
	var cannot *EditError
	switch {
	case errors.As(err, &bad):
		bad.Path = path
		return bad
	case errors.As(err, &cannot):
		cannot.Path = path
		return cannot
	case err != nil:
		return err
	case bytes.Equal(raw, edited):
		return nil
	}
	if err := writeFile(target, mode, bytes.NewReader(edited)); err != nil {
		return fmt.Errorf("changing spec %q: %w", path, err)
	}
	return nil
}

func readSpec(path string) ([]byte, os.FileMode, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, 0, err
	}
	raw, err := readBounded(path, MaxSpecBytes)
	return raw, info.Mode().Perm(), err
}

// editSpec is EditSpec on the bytes of a spec. Errors are *SpecError and *EditError without a path.
func editSpec(raw []byte, e Edit) ([]byte, error) {
	text := raw
	for _, list := range []struct {
		key       string
		decisions []Decision
	}{{"images", e.Include}, {"ignoreImages", e.Ignore}} {
		var err error
		if text, err = addDecisions(text, list.key, list.decisions); err != nil {
			return nil, err
		}
	}
	if _, problems := parseSpec(text); len(problems) > 0 {
		return nil, &SpecError{Problems: problems}
	}
	return text, nil
}

// addDecisions adds items to the list under a key at the top.
func addDecisions(raw []byte, key string, decisions []Decision) ([]byte, error) {
	root, err := specTree(raw)
	if err != nil {
		return nil, &SpecError{Problems: []Problem{{Text: err.Error()}}}
	}
	have := map[string]bool{}
	name, list := mappingEntry(root, key)
	if list != nil {
		for _, item := range list.Content {
			if _, match := mappingEntry(item, "match"); match != nil {
				have[match.Value] = true
			}
		}
	}
	var items []Decision
	for _, d := range decisions {
		if !have[d.Match] {
			have[d.Match] = true
			items = append(items, d)
		}
	}
	if len(items) == 0 {
		return raw, nil
	}
	ed := &specEditor{raw: raw, key: key, items: items, eol: "\n"}
	if bytes.Contains(raw, []byte("\r\n")) {
		ed.eol = "\r\n"
	}
	ed.index()
	for _, attempt := range ed.attempts(root, name, list) {
		edited, ok := attempt()
		if ok && sameBut(root, edited, key, items) {
			return edited, nil
		}
	}
	return nil, &EditError{Err: fmt.Errorf("at %s", key), Text: key + ":\n" + ed.block("  ")}
}

func specTree(raw []byte) (*yaml.Node, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		return nil, err
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("the document is not a mapping of keys to values")
	}
	return doc.Content[0], nil
}

func mappingEntry(n *yaml.Node, key string) (name, value *yaml.Node) {
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i], n.Content[i+1]
		}
	}
	return nil, nil
}

// sameBut reads edited and checks that it says what the old document said, and the items in
// addition, in any place of the list.
func sameBut(old *yaml.Node, edited []byte, key string, items []Decision) bool {
	root, err := specTree(edited)
	if err != nil {
		return false
	}
	_, list := mappingEntry(root, key)
	if list == nil || list.Kind != yaml.SequenceNode {
		return false
	}
	added := map[string]string{}
	for _, d := range items {
		added[d.Match] = d.Why
	}
	var rest []*yaml.Node
	for _, item := range list.Content {
		_, match := mappingEntry(item, "match")
		why, mine := "", false
		if match != nil && match.Tag == "!!str" {
			why, mine = added[match.Value]
		}
		if !mine {
			rest = append(rest, item)
			continue
		}
		delete(added, match.Value)
		_, got := mappingEntry(item, "why")
		if wantKeys := map[bool]int{false: 2, true: 4}[why != ""]; len(item.Content) != wantKeys || got != nil && (got.Value != why || got.Tag != "!!str") {
			return false
		}
	}
	if len(added) > 0 {
		return false
	}
	list.Content = rest
	// Where the list was empty or missing it may be so in another way.
	_, before := mappingEntry(old, key)
	if before == nil || len(before.Content) == 0 {
		if len(rest) > 0 {
			return false
		}
		return sameTree(withoutKey(old, key), withoutKey(root, key))
	}
	return sameTree(old, root)
}

func withoutKey(n *yaml.Node, key string) *yaml.Node {
	out := *n
	out.Content = nil
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value != key {
			out.Content = append(out.Content, n.Content[i], n.Content[i+1])
		}
	}
	return &out
}

func sameTree(a, b *yaml.Node) bool {
	if a.Kind != b.Kind || a.Tag != b.Tag || a.Value != b.Value || a.Anchor != b.Anchor || len(a.Content) != len(b.Content) {
		return false
	}
	for i := range a.Content {
		if !sameTree(a.Content[i], b.Content[i]) {
			return false
		}
	}
	return true
}

// specEditor makes the changed text. What it makes is compared with what was meant, so that it may
// try what works for texts as people write them.
type specEditor struct {
	raw    []byte
	key    string
	items  []Decision
	eol    string
	starts []int
}

// index finds the offsets of the lines.
func (ed *specEditor) index() {
	ed.starts = []int{0}
	for i, b := range ed.raw {
		if b == '\n' {
			ed.starts = append(ed.starts, i+1)
		}
	}
}

// line is the text of a line, counted from 1, without its end.
func (ed *specEditor) line(n int) string {
	if n < 1 || n > len(ed.starts) {
		return ""
	}
	end := len(ed.raw)
	if n < len(ed.starts) {
		end = ed.starts[n]
	}
	return strings.TrimRight(string(ed.raw[ed.starts[n-1]:end]), "\r\n")
}

// offset is that of a position as the parser counts it: lines and characters, from 1.
func (ed *specEditor) offset(n *yaml.Node) (int, bool) {
	if n.Line < 1 || n.Line > len(ed.starts) || n.Column < 1 {
		return 0, false
	}
	at := ed.starts[n.Line-1]
	if n.Line == 1 && bytes.HasPrefix(ed.raw, []byte("\ufeff")) {
		at += len("\ufeff")
	}
	for range n.Column - 1 {
		if at >= len(ed.raw) {
			return 0, false
		}
		_, size := utf8.DecodeRune(ed.raw[at:])
		at += size
	}
	return at, true
}

// attempts are the ways to make the change, the best one first.
func (ed *specEditor) attempts(root, name, list *yaml.Node) []func() ([]byte, bool) {
	switch {
	case root.Style&yaml.FlowStyle != 0:
		return []func() ([]byte, bool){func() ([]byte, bool) { return ed.intoFlowMapping(root, list) }}
	case list == nil:
		return []func() ([]byte, bool){
			func() ([]byte, bool) { return ed.atEnd(root, ed.eol) },
			func() ([]byte, bool) { return ed.atEnd(root, "") },
		}
	case len(list.Content) == 0:
		return []func() ([]byte, bool){func() ([]byte, bool) { return ed.intoEmpty(name, list) }}
	case list.Style&yaml.FlowStyle != 0:
		return []func() ([]byte, bool){func() ([]byte, bool) { return ed.intoFlow(list) }}
	}
	return []func() ([]byte, bool){
		func() ([]byte, bool) { return ed.behindLast(list) },
		func() ([]byte, bool) { return ed.beforeFirst(list) },
	}
}

// block has the items as a block sequence with an indentation.
func (ed *specEditor) block(indent string) string {
	var b strings.Builder
	for _, d := range ed.items {
		b.WriteString(indent + "- match: " + scalar(d.Match) + ed.eol)
		if d.Why != "" {
			b.WriteString(indent + "  why: " + scalar(d.Why) + ed.eol)
		}
	}
	return b.String()
}

// flow has the items as they are within brackets.
func (ed *specEditor) flow() string {
	items := make([]string, 0, len(ed.items))
	for _, d := range ed.items {
		why := ""
		if d.Why != "" {
			why = ", \"why\": " + strconv.Quote(d.Why)
		}
		items = append(items, "{\"match\": "+strconv.Quote(d.Match)+why+"}")
	}
	return strings.Join(items, ", ")
}

// plainScalar is a text that means itself anywhere in YAML.
var plainScalar = lazily(`\A[a-zA-Z0-9][a-zA-Z0-9._/*-]*(?::[a-zA-Z0-9._/*-]+)*(?:@(?:sha256:)?[a-f0-9*]+)?\z`)

func scalar(s string) string {
	if plainScalar().MatchString(s) && strings.Contains(s, "/") {
		return s
	}
	return strconv.Quote(s)
}

// splice puts text at an offset, which is the beginning of a line or the end of the text.
func (ed *specEditor) splice(at int, text string) []byte {
	if at == len(ed.raw) && at > 0 && ed.raw[at-1] != '\n' {
		text = ed.eol + text
	}
	return bytes.Join([][]byte{ed.raw[:at], []byte(text), ed.raw[at:]}, nil)
}

// after is the offset of the line after n.
func (ed *specEditor) after(n int) int {
	if n < len(ed.starts) {
		return ed.starts[n]
	}
	return len(ed.raw)
}

// atEnd adds the key.
func (ed *specEditor) atEnd(root *yaml.Node, gap string) ([]byte, bool) {
	indent := strings.Repeat(" ", root.Column-1)
	end := len(ed.raw)
	// An end marker stays the last line.
	for n := len(ed.starts); n > 0; n-- {
		if line := strings.TrimSpace(ed.line(n)); line == "..." {
			end = ed.starts[n-1]
		} else if line != "" {
			break
		}
	}
	return ed.splice(end, gap+indent+ed.key+":"+ed.eol+ed.block(indent+"  ")), true
}

// behindLast adds to a list with a line for each item.
func (ed *specEditor) behindLast(list *yaml.Node) ([]byte, bool) {
	indent := list.Column - 1
	last := list.Content[len(list.Content)-1].Line
	// What is indented further belongs to the last item, comments included.
	for n := last + 1; n <= len(ed.starts); n++ {
		line := ed.line(n)
		trimmed := strings.TrimLeft(line, " ")
		if trimmed == "" {
			continue
		}
		if len(line)-len(trimmed) <= indent {
			break
		}
		last = n
	}
	return ed.splice(ed.after(last), ed.block(strings.Repeat(" ", indent))), true
}

// beforeFirst is for lists whose end cannot be told by its indentation.
func (ed *specEditor) beforeFirst(list *yaml.Node) ([]byte, bool) {
	indent := strings.Repeat(" ", list.Column-1)
	if !strings.HasPrefix(ed.line(list.Line), indent+"-") {
		return nil, false
	}
	return ed.splice(ed.starts[list.Line-1], ed.block(indent)), true
}

// nothing is how an empty list is written on the line of its key.
var nothing = regexp.MustCompile(`\A(\s*)(?:\[\s*\]|~|null|Null|NULL)?[ \t]*(#.*)?\z`)

// intoEmpty puts items in the place of an empty list, or of nothing.
func (ed *specEditor) intoEmpty(name, list *yaml.Node) ([]byte, bool) {
	at, ok := ed.offset(name)
	if !ok || list.Anchor != "" {
		return nil, false
	}
	line := ed.line(name.Line)
	from := at - ed.starts[name.Line-1]
	colon := strings.IndexByte(line[min(from, len(line)):], ':')
	if colon < 0 {
		return nil, false
	}
	head, tail := line[:from+colon+1], line[from+colon+1:]
	m := nothing.FindStringSubmatch(tail)
	if m == nil {
		return nil, false
	}
	if m[2] != "" {
		head += max(m[1], " ") + m[2]
	}
	indent := strings.Repeat(" ", name.Column-1+2)
	out := append([]byte{}, ed.raw[:ed.starts[name.Line-1]]...)
	out = append(out, head+ed.eol+ed.block(indent)...)
	return append(out, ed.raw[ed.after(name.Line):]...), true
}

// intoFlow adds to a list in brackets.
func (ed *specEditor) intoFlow(list *yaml.Node) ([]byte, bool) {
	at, ok := ed.offset(list)
	if !ok {
		return nil, false
	}
	return ed.beforeClosing(at, ed.flow())
}

// intoFlowMapping adds to a spec that is written as JSON is.
func (ed *specEditor) intoFlowMapping(root, list *yaml.Node) ([]byte, bool) {
	if list != nil && list.Kind == yaml.SequenceNode {
		return ed.intoFlow(list)
	}
	at, ok := ed.offset(root)
	if !ok || list != nil {
		return nil, false
	}
	return ed.beforeClosing(at, strconv.Quote(ed.key)+": ["+ed.flow()+"]")
}

// beforeClosing puts text before the bracket that closes the one at an offset.
func (ed *specEditor) beforeClosing(at int, text string) ([]byte, bool) {
	last, ok := closing(ed.raw, at)
	if !ok {
		return nil, false
	}
	if b := ed.raw[last]; b != ',' && last != at {
		text = ", " + text
	} else if b == ',' {
		text = " " + text
	}
	return bytes.Join([][]byte{ed.raw[:last+1], []byte(text), ed.raw[last+1:]}, nil), true
}

// closing finds the last byte of content before the bracket that closes the one at an offset: that
// one itself where there is none.
func closing(raw []byte, at int) (last int, ok bool) {
	if at >= len(raw) || raw[at] != '[' && raw[at] != '{' {
		return 0, false
	}
	depth := 0
	last = at
	for i := at; i < len(raw); i++ {
		b := raw[i]
		switch {
		case b == '[' || b == '{':
			depth++
		case b == ']' || b == '}':
			if depth--; depth == 0 {
				return last, true
			}
		case b == '#' && (raw[i-1] == ' ' || raw[i-1] == '\t' || raw[i-1] == '\n'):
			for i < len(raw) && raw[i] != '\n' {
				i++
			}
			continue
		case b == '"' || b == '\'':
			// Within a plain scalar a quote is a letter: the result is read again.
			n := quotedLength(raw[i:])
			if n == 0 {
				return 0, false
			}
			i += n - 1
		case b == ' ' || b == '\t' || b == '\r' || b == '\n':
			continue
		}
		last = i
	}
	return 0, false
}

// quotedLength is the length of the quoted scalar that b begins with, 0 where it does not end.
func quotedLength(b []byte) int {
	for i := 1; i < len(b); i++ {
		switch {
		case b[i] == '\\' && b[0] == '"':
			i++
		case b[i] == b[0] && b[0] == '\'' && i+1 < len(b) && b[i+1] == '\'':
			i++
		case b[i] == b[0]:
			return i + 1
		}
	}
	return 0
}
