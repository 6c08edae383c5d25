package chart

import (
	"encoding/json"
	"reflect"
	"testing"
)

func TestParseValue(t *testing.T) {
	for text, want := range map[string]any{
		"": "", " ": " ", "null": nil, "true": true, "yes": "yes", "1": int64(1), "-7": int64(-7), "0x10": int64(16), "1.5": 1.5, `"1"`: "1", "a b": "a b",
		"[1, a]": []any{int64(1), "a"}, "{a: {b: null}}": map[string]any{"a": map[string]any{"b": nil}}, "2026-01-02": "2026-01-02",
		"a: 1\nb: [x]": map[string]any{"a": int64(1), "b": []any{"x"}}, "http://a:1": "http://a:1", "!!str 1": "1",
	} {
		if got, err := ParseValue(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %#v, %v; want %#v", text, got, err, want)
		}
	}
	for _, text := range []string{"[", "a: b: c", ".nan", ".inf", "{a: 1, a: 2}", "{[a]: 1}", "[&x 1, *x]", "a\n---\nb", "{<<: {a: 1}}", "9999999999999999999999", "!!bool maybe"} {
		if got, err := ParseValue(text); err == nil {
			// Large numbers become floats.
			if _, is := got.(float64); !is {
				t.Errorf("%q is %#v", text, got)
			}
		}
	}
}

func FuzzParseValue(f *testing.F) {
	for _, text := range []string{"", "1", "[a, {b: null}]", "!!float 1", "&a [*a]", "!!binary aGk="} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, err := ParseValue(text)
		if err != nil {
			return
		}
		if _, err := json.Marshal(v); err != nil {
			t.Fatalf("%q is %#v, which is no JSON: %v", text, v, err)
		}
	})
}
