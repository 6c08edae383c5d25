package chart

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestSetValue(t *testing.T) {
	values := func() map[string]any {
		return map[string]any{
			"a": map[string]any{"b": "text", "c.d": 1, "e": map[string]any{}, "n": nil}, "list": []any{1},
		}
	}
	for _, c := range []struct {
		path string
		want map[string]any // what is different at the top
		err  string
	}{
		{"x", map[string]any{"x": true}, ""},
		{"x.y.z", map[string]any{"x": map[string]any{"y": map[string]any{"z": true}}}, ""},
		{"list", map[string]any{"list": true}, ""},
		{"a.b", map[string]any{"a": map[string]any{"b": true, "c.d": 1, "e": map[string]any{}, "n": nil}}, ""},
		{`a.c\.d`, map[string]any{"a": map[string]any{"b": "text", "c.d": true, "e": map[string]any{}, "n": nil}}, ""},
		{"a.e", map[string]any{"a": map[string]any{"b": "text", "c.d": 1, "e": true, "n": nil}}, ""},
		{"a.n.x", map[string]any{"a": map[string]any{"b": "text", "c.d": 1, "e": map[string]any{}, "n": map[string]any{"x": true}}}, ""},
		{"a.b.c", nil, `setting value "a.b.c": "a.b" is a text, not a mapping`},
		{"list.x", nil, `"list" is a list, not a mapping`},
		{`a.c\.d.e`, nil, "is a number, not a mapping"},
		{"a", nil, "there is a mapping with 4 keys"},
		{"", nil, "path"},
		{"a..b", nil, "path"},
		{".a", nil, "path"},
		{"list[0]", nil, "path"},
		{`a\b`, nil, "path"},
	} {
		got, want := values(), values()
		for k, v := range c.want {
			want[k] = v
		}
		err := SetValue(got, c.path, true)
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%q: %v", c.path, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v, want %v", c.path, got, want)
		}
	}
	if err := SetValue(nil, "a", true); err == nil {
		t.Error("a value was set in nothing")
	}
}

func TestCopyValues(t *testing.T) {
	values := map[string]any{"a": map[string]any{"b": []any{map[string]any{"c": 1}}}}
	c := CopyValues(values)
	c["a"].(map[string]any)["b"].([]any)[0].(map[string]any)["c"] = 2
	if values["a"].(map[string]any)["b"].([]any)[0].(map[string]any)["c"] != 1 {
		t.Error("the copy shares what is in it")
	}
}

func TestUnknownValues(t *testing.T) {
	dir := writeChart(t, map[string]string{
		"Chart.yaml":                      "apiVersion: v2\nname: shop\nversion: 1.0.0\ndependencies:\n- {name: db, version: 1.0.0, alias: store, condition: store.enabled}\n- {name: extra, version: 1.0.0, condition: extra.enabled}\n",
		"values.yaml":                     "host: a\nnodeSelector: {}\nempty:\ningress: {host: a}\nstore: {enabled: true}\nextra: {enabled: false}\n",
		"charts/db/Chart.yaml":            "apiVersion: v2\nname: db\nversion: 1.0.0\n",
		"charts/db/values.yaml":           "auth: {password: a}\n",
		"charts/extra/Chart.yaml":         "apiVersion: v2\nname: extra\nversion: 1.0.0\n",
		"charts/extra/values.yaml":        "size: 1\n",
		"templates/configmap.yaml":        "",
		"charts/db/templates/pod.yaml":    "",
		"charts/extra/templates/pod.yaml": "",
	})
	c, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	given := map[string]any{"added": map[string]any{"key": 1}}
	paths := []string{"host", "ingress.host", "nodeSelector.disk", "empty.what", "store.auth.password", "extra.size", "added.key"}
	wrong := []string{"hots", "ingress.hots", "host.name", "store.auth.pasword", "extra.sise", "added.keys"}
	got, err := c.UnknownValues(slices.Concat(paths, wrong), given)
	if err != nil || !slices.Equal(got, wrong) {
		t.Errorf("unknown are %q, %v", got, err)
	}
	if _, err := c.UnknownValues([]string{"a["}, nil); err == nil {
		t.Error("a path that is none")
	}
}
