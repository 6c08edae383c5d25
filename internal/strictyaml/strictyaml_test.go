package strictyaml_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/sealift/sealift/internal/strictyaml"
)

// document has a field of each type that documents have.
type document struct {
	Kind  string          `yaml:"kind"`
	Count int             `yaml:"count"`
	Large int64           `yaml:"large"`
	On    bool            `yaml:"on"`
	Maybe *bool           `yaml:"maybe"`
	Texts []string        `yaml:"texts"`
	Part  part            `yaml:"part"`
	Parts []part          `yaml:"parts"`
	Named map[string]part `yaml:"named"`
	Ours  string
}

type part struct {
	Text string `yaml:"text"`
	More *part  `yaml:"more"`
}

func decode(raw string) (document, *strictyaml.Document, string) {
	var d document
	doc, problems := strictyaml.Decode([]byte(raw), 4096, &d)
	return d, doc, strictyaml.Format("f", problems)
}

func TestDecode(t *testing.T) {
	d, doc, problems := decode(`# comment
kind: 0x1F
count: -12
large: 900000000000000000
on: true
maybe: false
texts: [yes, "", 1.10, 2027-12-31]
part:
  text: null
  more: ~
parts:
  - text: |
      a
  - {}
named: {"a.b": {text: x}}
`)
	no := false
	want := document{
		Kind: "0x1F", Count: -12, Large: 900000000000000000, On: true, Maybe: &no, Texts: []string{"yes", "", "1.10", "2027-12-31"},
		Parts: []part{{Text: "a\n"}, {}}, Named: map[string]part{"a.b": {Text: "x"}},
	}
	if problems != "" || !reflect.DeepEqual(d, want) {
		t.Fatalf("got %+v\nwant %+v\n%s", d, want, problems)
	}
	if doc.FirstKey() != "kind" || doc.Line("part") != 9 || doc.Line("nothing") != 2 {
		t.Errorf("first key %q, lines %d and %d", doc.FirstKey(), doc.Line("part"), doc.Line("nothing"))
	}
	var lines []int
	doc.Lines("parts", func(i, line int) { lines = append(lines, i, line) })
	doc.Lines("kind", func(_, line int) { t.Errorf("a text has an item on line %d", line) })
	if !reflect.DeepEqual(lines, []int{0, 12, 1, 14}) {
		t.Errorf("items are on lines %v", lines)
	}
	wantEmpty := []strictyaml.Problem{
		{Line: 7, Text: "texts[1] is empty; leave it out, or say what is meant"},
		{Line: 9, Text: "part.text is empty; leave it out, or say what is meant"},
		{Line: 10, Text: "part.more is empty; leave it out, or say what is meant"},
		{Line: 14, Text: "parts[1] is empty; leave it out, or say what is meant"},
	}
	if got := doc.Empties(); !reflect.DeepEqual(got, wantEmpty) {
		t.Errorf("empty: %v", got)
	}
	if _, doc, _ := decode("{}"); len(doc.Empties()) != 1 || doc.FirstKey() != "" {
		t.Errorf("an empty document: %v, %q", doc.Empties(), doc.FirstKey())
	}
}

func TestDecodeProblems(t *testing.T) {
	for _, c := range []struct{ raw, want string }{
		{"", "f: is empty"},
		{"# nothing\n\n", "f: is empty"},
		{"text", "f:1: the document is not a mapping of keys to values"},
		{"---\n", "f:2: the document is not a mapping of keys to values"},
		{"kind: a\n---\nkind: b\n", "f:2: holds more than one document"},
		{"kind: a\n...\n---\n{", "f: holds more than one document"},
		{"kind: [", "f:1: did not find expected node content"},
		{"\tkind: a", "f: found character that cannot start any token"},
		{"kind: \x00", "f: control characters are not allowed"},
		{"kind: \xff", "f: invalid leading UTF-8 octet"},
		{strings.Repeat("#", 4097), "f: more than 4096 bytes"},
		{"kind: a\nkindd: b", `f:2: unknown key "kindd" (did you mean kind?); known here: kind, count, large, on, maybe, texts, part, parts, named`},
		{"Kind: a", `f:1: unknown key "Kind" (did you mean kind?); known here: kind, count, large, on, maybe, texts, part, parts, named`},
		{"k\u0456nd: a", `f:1: unknown key "k\u0456nd"; known here: kind, count, large, on, maybe, texts, part, parts, named`},
		{"Ours: a", `f:1: unknown key "Ours"; known here: kind, count, large, on, maybe, texts, part, parts, named`},
		{"ours: a", `f:1: unknown key "ours"; known here: kind, count, large, on, maybe, texts, part, parts, named`},
		{"parts: [{text: a}, {txt: b}]", `f:1: unknown key "parts[1].txt" (did you mean text?); known here: text, more`},
		{"kind: a\n\"kind\": b", `f:2: "kind" stands here for the second time, first on line 1`},
		{"named: {a: {}, 'a': {}}", `f:1: "named.a" stands here for the second time, first on line 1`},
		{"named:\n  1: {}\n  \"1\": {}\n", `f:3: "named.1" stands here for the second time, first on line 2`},
		{"part: text", "f:1: part is not a mapping of keys to values"},
		{"part: ~", "f:1: part is not a mapping of keys to values"},
		{"parts: {text: a}", "f:1: parts is not a list"},
		{"named: [a]", "f:1: cannot unmarshal !!seq into map[string]strictyaml_test.part"},
		{"texts: a", "f:1: texts is not a list"},
		{"kind: {a: b}", "f:1: kind is not a text"},
		{"count: [1]", "f:1: count is not a whole number"},

		{"kind: &a b", "f:1: kind has the anchor &a; aliases are not read, leave it out"},
		{"&a kind: b", `f:1: key "kind" has the anchor &a; aliases are not read, leave it out`},
		{"&a {}", "f:1: the document has the anchor &a; aliases are not read, leave it out"},
		{"texts: &a [b]\nparts: *a", "f:1: texts has the anchor &a; aliases are not read, leave it out\nf:2: parts is an alias; write it out"},
		{"kind: &a b\n*a : b", "f:2: a key in the document is no text\nf:1: kind has the anchor &a; aliases are not read, leave it out"},
		{"part: {more: {<<: {text: a}}}", "f:1: part.more merges another mapping (<<); write it out"},
		{"named: {<<: {a: {text: b}}}", "f:1: named merges another mapping (<<); write it out"},
		{"\"<<\": a", `f:1: unknown key "<<"; known here: kind, count, large, on, maybe, texts, part, parts, named`},
		{"? [a]\n: b", "f:1: a key in the document is no text"},
		{"kind: !!binary YQ==", "f:1: kind has the tag !!binary; leave that out"},
		{"kind: !ours a", "f:1: kind has the tag !ours; leave that out"},
		{"!!str kind: a", `f:1: key "kind" has the tag !!str; leave that out`},
		{"texts: !!seq [a]", "f:1: texts has the tag !!seq; leave that out"},
		{"!!map {kind: a}", "f:1: the document has the tag !!map; leave that out"},
	} {
		if _, doc, got := decode(c.raw); got != c.want || doc != nil {
			t.Errorf("%.60q:\ngot  %s\nwant %s", c.raw, got, c.want)
		}
	}
	for _, number := range []string{`"1"`, "'1'", "1.0", "1.5", "1e3", "0x1", "0b1", "0o7", "01", "+1", "1_000", "-0x1", "--1", "one", "true", "9999999999999999999", ".inf", ".nan", "2026-01-01", "\u0661"} {
		if _, _, got := decode("count: " + number); !strings.HasSuffix(got, "is not a whole number in plain digits") {
			t.Errorf("%s: got %q", number, got)
		}
	}
	for _, word := range []string{"yes", "no", "on", "off", "y", "N", "True", "FALSE", `"true"`, "'false'", "0", "1", "t"} {
		for _, key := range []string{"on", "maybe"} {
			if _, _, got := decode(key + ": " + word); !strings.HasSuffix(got, "is neither true nor false") {
				t.Errorf("%s: %s: got %q", key, word, got)
			}
		}
	}
}

func TestDecodeIsBounded(t *testing.T) {
	nested := func(n int) string {
		return "part: {more: " + strings.Repeat("{more: ", n) + "{}" + strings.Repeat("}", n) + "}"
	}
	if _, _, got := decode(nested(13)); got != "" {
		t.Error(got)
	}
	if _, _, got := decode(nested(15)); got != "f:1: is nested too deeply" {
		t.Error(got)
	}
	// Each line is ten times as large as the one before.
	bomb := "texts: &a [x,x,x,x,x,x,x,x,x,x]\nparts: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nnamed: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nkind: [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n"
	if _, _, got := decode(bomb); !strings.HasPrefix(got, "f:1: texts has the anchor &a") {
		t.Error(got)
	}
}

func TestAt(t *testing.T) {
	_, doc, problems := decode("kind: a\nparts:\n- text: b\n-\n  text: c\n  more:\n    text:\n      d\n")
	if problems != "" {
		t.Fatal(problems)
	}
	for _, c := range []struct {
		path []any
		want int
	}{
		{nil, 1},
		{[]any{"kind"}, 1},
		{[]any{"parts"}, 3},
		{[]any{"parts", 0}, 3},
		{[]any{"parts", 1}, 5},
		{[]any{"parts", 1, "more", "text"}, 8},
		// Where there is nothing, it is what is around it.
		{[]any{"parts", 1, "more", "more", "text"}, 7},
		{[]any{"parts", 2}, 3},
		{[]any{"parts", -1, "text"}, 3},
		{[]any{"kind", 0}, 1},
		{[]any{"none", 0, "text"}, 1},
	} {
		if got := doc.At(c.path...); got != c.want {
			t.Errorf("%v is on line %d, want %d", c.path, got, c.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		"kind: a\ncount: 1\nlarge: 2\non: true\nmaybe: ~\ntexts: [a]\npart: {text: a, more: {}}\nparts: [{}]\nnamed: {a: {}}\n",
		"a: &a [*a]\n<<: *a\n", "? {a: b}\n: !!binary x\n---\n...", "- - -", "\xef\xbb\xbfkind: a", "%YAML 1.1\n---\nkind: a", "kind: |\n  a\n# b",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var d document
		doc, problems := strictyaml.Decode(raw, 4096, &d)
		if (doc == nil) != (len(problems) > 0) {
			t.Fatalf("%v and %v", doc, problems)
		}
		for _, p := range problems {
			if p.Text == "" || p.Line < 0 {
				t.Fatalf("%+v", p)
			}
		}
		if doc != nil {
			doc.Empties()
			doc.Lines(doc.FirstKey(), func(_, line int) {
				if line < 1 {
					t.Fatalf("line %d", line)
				}
			})
		}
	})
}
