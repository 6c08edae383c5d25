// Package strictyaml decodes the documents that people write for Sealift: one YAML document,
// of which every key is known, and none stands twice, and which says all in the place where it
// counts: without aliases, merge keys and tags, with whole numbers in decimal digits, and with no
// other words for true and false. It tells the lines of all that is wrong.
package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"
)

// maxDepth bounds how deeply a document is nested.
const maxDepth = 16

// Problem is one thing that is wrong with a document.
type Problem struct {
	// Line counts from 1; 0 where no line is to blame.
	Line int
	Text string
}

// Format has a line "path:line: text" for each problem.
func Format(path string, problems []Problem) string {
	lines := make([]string, 0, len(problems))
	for _, p := range problems {
		if p.Line > 0 {
			lines = append(lines, fmt.Sprintf("%s:%d: %s", path, p.Line, p.Text))
		} else {
			lines = append(lines, fmt.Sprintf("%s: %s", path, p.Text))
		}
	}
	return strings.Join(lines, "\n")
}

// First is the first key of a document of at most limit bytes and its value, "" where that is no
// text. It is for looking at what a document says it is before anything else.
func First(raw []byte, limit int) (key, value string) {
	var doc yaml.Node
	if len(raw) > limit || yaml.Unmarshal(raw, &doc) != nil || len(doc.Content) == 0 {
		return "", ""
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode || len(root.Content) < 2 || root.Content[0].Kind != yaml.ScalarNode || root.Content[1].Kind != yaml.ScalarNode {
		return "", ""
	}
	return root.Content[0].Value, root.Content[1].Value
}

// Document is a decoded document, of which the lines are known.
type Document struct{ root *yaml.Node }

// Decode reads raw, which has at most limit bytes, into the struct that v points to. Keys are the
// yaml tags of its fields, written out in full.
func Decode(raw []byte, limit int, v any) (*Document, []Problem) {
	if len(raw) > limit {
		return nil, []Problem{{0, fmt.Sprintf("more than %d bytes", limit)}}
	}
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, []Problem{{0, "is empty"}}
		}
		return nil, []Problem{problem(strings.TrimPrefix(err.Error(), "yaml: "))}
	}
	root := doc.Content[0]
	var more yaml.Node
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, []Problem{{more.Line, "holds more than one document"}}
	}
	if problems := indirect(root, ""); len(problems) > 0 {
		return nil, problems
	}
	if problems := unknownKeys(root, reflect.TypeOf(v).Elem(), "", 0); len(problems) > 0 {
		return nil, problems
	}
	if err := root.Decode(v); err != nil {
		var t *yaml.TypeError
		if errors.As(err, &t) {
			var problems []Problem
			for _, text := range t.Errors {
				problems = append(problems, problem(text))
			}
			return nil, problems
		}
		return nil, []Problem{{0, err.Error()}}
	}
	return &Document{root}, nil
}

// problem takes the line number out of the library's words.
func problem(text string) Problem {
	p := Problem{0, text}
	if n, err := fmt.Sscanf(text, "line %d:", &p.Line); n == 1 && err == nil {
		_, p.Text, _ = strings.Cut(text, ": ")
	}
	return p
}

// FirstKey is the first key of the document.
func (d *Document) FirstKey() string {
	if d.root.Kind != yaml.MappingNode || len(d.root.Content) == 0 {
		return ""
	}
	return d.root.Content[0].Value
}

// Line is the line of the value of a key at the top; where there is none, that of the document.
func (d *Document) Line(key string) int {
	if n := child(d.root, key); n != nil {
		return n.Line
	}
	return d.root.Line
}

// At is the line of the value that a path leads to: keys of mappings (string) and positions in lists
// (int). Where it leads nowhere, it is the line of the last value on the way.
func (d *Document) At(path ...any) int {
	n := d.root
	for _, step := range path {
		var next *yaml.Node
		switch step := step.(type) {
		case string:
			next = child(n, step)
		case int:
			if n.Kind == yaml.SequenceNode && step >= 0 && step < len(n.Content) {
				next = n.Content[step]
			}
		}
		if next == nil {
			break
		}
		n = next
	}
	return n.Line
}

// Lines calls set with the lines on which the items of the list under a key at the top begin.
func (d *Document) Lines(key string, set func(i, line int)) {
	if list := child(d.root, key); list != nil && list.Kind == yaml.SequenceNode {
		for i, item := range list.Content {
			set(i, item.Line)
		}
	}
}

func child(n *yaml.Node, key string) *yaml.Node {
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// Empties lists the keys that are there without a value: null, or an empty text, list or mapping.
// It depends on the key whether that means nothing, or everything.
func (d *Document) Empties() []Problem { return empties(d.root, "") }

func empties(n *yaml.Node, where string) []Problem {
	var problems []Problem
	if len(n.Content) == 0 && (n.Kind != yaml.ScalarNode || n.Value == "" || n.Tag == "!!null") {
		problems = append(problems, Problem{n.Line, name(where) + " is empty; leave it out, or say what is meant"})
	}
	each(n, where, func(n *yaml.Node, where string) { problems = append(problems, empties(n, where)...) })
	return problems
}

// each calls f for each value within n, with its path.
func each(n *yaml.Node, where string, f func(n *yaml.Node, where string)) {
	for i := 0; n.Kind == yaml.SequenceNode && i < len(n.Content); i++ {
		f(n.Content[i], fmt.Sprintf("%s[%d]", where, i))
	}
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		f(n.Content[i+1], strings.TrimPrefix(where+"."+n.Content[i].Value, "."))
	}
}

func name(where string) string {
	if where == "" {
		return "the document"
	}
	return where
}

// indirect finds what stands for something that is elsewhere, or for another type than it looks
// like: whoever reads the document must not have to know YAML by heart to see what it says.
func indirect(n *yaml.Node, where string) []Problem {
	if n.Kind == yaml.AliasNode {
		return []Problem{{n.Line, name(where) + " is an alias; write it out"}}
	}
	var problems []Problem
	add := func(n *yaml.Node, format string, a ...any) {
		problems = append(problems, Problem{n.Line, fmt.Sprintf(format, a...)})
	}
	what := func(n *yaml.Node, of string) {
		if n.Anchor != "" {
			add(n, "%s has the anchor &%s; aliases are not read, leave it out", of, n.Anchor)
		}
		if n.Style&yaml.TaggedStyle != 0 {
			add(n, "%s has the tag %s; leave that out", of, n.Tag)
		}
	}
	what(n, name(where))
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		switch {
		case k.Kind != yaml.ScalarNode:
			add(k, "a key in %s is no text", name(where))
		case k.Tag == "!!merge":
			add(k, "%s merges another mapping (<<); write it out", name(where))
		default:
			what(k, fmt.Sprintf("key %q", k.Value))
		}
	}
	each(n, where, func(n *yaml.Node, where string) { problems = append(problems, indirect(n, where)...) })
	return problems
}

// unmarshaler is what types implement that read themselves.
var unmarshaler = reflect.TypeFor[yaml.Unmarshaler]()

// scalars are the kinds of values that are no lists and no mappings, as people call them.
var scalars = map[reflect.Kind]string{
	reflect.String: "a text", reflect.Int: "a whole number", reflect.Int64: "a whole number", reflect.Bool: "true or false",
}

// nearest returns the name that text differs from in at most two letters, a third of it, "" where
// there is none.
func nearest(text string, names []string) string {
	best, least := "", min(2, len(text)/3)+1
	for _, n := range names {
		if d := distance(strings.ToLower(text), strings.ToLower(n)); d < least {
			best, least = n, d
		}
	}
	return best
}

// distance is in how many letters two short texts differ (Levenshtein), at most 64.
func distance(a, b string) int {
	const most = 64
	if len(a) > most || len(b) > most {
		return most
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := before
			if a[i] != b[j] {
				change++
			}
			before = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// plainInt is a whole number as everybody reads it: 010 is 8 to some, and 10 to others.
var plainInt = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\A-?(?:0|[1-9][0-9]{0,17})\z`) })

// wrongScalar checks that a number or a truth value is written as one.
func wrongScalar(n *yaml.Node, t reflect.Type, where string) []Problem {
	if n.Kind != yaml.ScalarNode && scalars[t.Kind()] != "" && !reflect.PointerTo(t).Implements(unmarshaler) {
		return []Problem{{n.Line, fmt.Sprintf("%s is not %s", name(where), scalars[t.Kind()])}}
	}
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		return nil
	}
	switch t.Kind() {
	case reflect.Int, reflect.Int64:
		if n.Tag != "!!int" || !plainInt().MatchString(n.Value) {
			return []Problem{{n.Line, fmt.Sprintf("%s: %q is not a whole number in plain digits", where, n.Value)}}
		}
	case reflect.Bool:
		if n.Tag != "!!bool" || n.Value != "true" && n.Value != "false" {
			return []Problem{{n.Line, fmt.Sprintf("%s: %q is neither true nor false", where, n.Value)}}
		}
	default:
	}
	return nil
}

// unknownKeys compares the keys of n with the fields of t, all the way down.
func unknownKeys(n *yaml.Node, t reflect.Type, where string, depth int) []Problem {
	if depth > maxDepth {
		return []Problem{{n.Line, "is nested too deeply"}}
	}
	var problems []Problem
	switch t.Kind() {
	case reflect.Pointer:
		if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
			return nil
		}
		return unknownKeys(n, t.Elem(), where, depth)
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode && n.Tag != "!!null" && !reflect.PointerTo(t).Implements(unmarshaler) {
			return []Problem{{n.Line, name(where) + " is not a list"}}
		}
		if n.Kind == yaml.SequenceNode {
			for i, item := range n.Content {
				problems = append(problems, unknownKeys(item, t.Elem(), fmt.Sprintf("%s[%d]", where, i), depth+1)...)
			}
		}
		return problems
	case reflect.Map:
		seen := map[string]int{}
		for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			path := where + "." + k.Value
			if first, twice := seen[k.Value]; twice {
				problems = append(problems, second(k, path, first))
				continue
			}
			seen[k.Value] = k.Line
			problems = append(problems, unknownKeys(n.Content[i+1], t.Elem(), path, depth+1)...)
		}
		return problems
	case reflect.Struct:
	default:
		return wrongScalar(n, t, where)
	}
	if n.Kind != yaml.MappingNode {
		return []Problem{{n.Line, name(where) + " is not a mapping of keys to values"}}
	}
	known := map[string]reflect.Type{}
	var names []string
	for i := range t.NumField() {
		if tag := t.Field(i).Tag.Get("yaml"); tag != "" {
			known[tag] = t.Field(i).Type
			names = append(names, tag)
		}
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		path := strings.TrimPrefix(where+"."+k.Value, ".")
		if first, twice := seen[k.Value]; twice {
			problems = append(problems, second(k, path, first))
			continue
		}
		seen[k.Value] = k.Line
		ft, ok := known[k.Value]
		if !ok {
			meant := ""
			if like := nearest(k.Value, names); like != "" {
				meant = fmt.Sprintf(" (did you mean %s?)", like)
			}
			problems = append(problems, Problem{k.Line, fmt.Sprintf("unknown key %+q%s; known here: %s", path, meant, strings.Join(names, ", "))})
			continue
		}
		problems = append(problems, unknownKeys(n.Content[i+1], ft, path, depth+1)...)
	}
	return problems
}

func second(k *yaml.Node, path string, first int) Problem {
	return Problem{k.Line, fmt.Sprintf("%q stands here for the second time, first on line %d", path, first)}
}
