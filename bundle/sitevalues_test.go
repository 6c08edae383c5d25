package bundle

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/manifest"
)

func TestSiteValues(t *testing.T) {
	c, err := chart.Load(tree(t, map[string]string{
		"Chart.yaml":          "apiVersion: v2\nname: shop\nversion: 1.0.0\n",
		"values.yaml":         "host: a\nreplicas: 1\nsize: small\ndebug: false\nimage: {registry: \"\"}\n",
		"templates/none.yaml": "",
		"values.schema.json": `{"type": "object", "properties": {"host": {"type": "string", "minLength": 1}, "replicas": {"type": "integer", "maximum": 9}, "debug": {"type": "boolean"},
			"size": {"enum": ["small", "large"]}, "image": {"properties": {"registry": {"type": "string"}, "port": {"type": "integer"}}}}}`,
	}))
	if err != nil {
		t.Fatal(err)
	}
	text := func(s string) *string { return &s }
	to := func(path string) []manifest.ParameterValue {
		return []manifest.ParameterValue{{Release: "x/other", Path: "nowhere"}, {Release: "x/shop", Path: path}}
	}
	host := manifest.Parameter{Name: "host", Type: "string", Default: text("b"), Values: to("host")}
	for name, try := range map[string]struct {
		params   []manifest.Parameter
		rv       []manifest.RegistryValue
		warnings int
		want     string
	}{
		"nothing":          {},
		"fits":             {[]manifest.Parameter{host, {Name: "n", Type: "integer", Default: text("3"), Values: to("replicas")}}, []manifest.RegistryValue{{Path: "image.registry", Gets: "host"}}, 0, ""},
		"any text":         {[]manifest.Parameter{{Name: "host", Type: "string", Values: to("host")}}, nil, 0, ""},
		"unknown":          {[]manifest.Parameter{{Name: "p", Type: "string", Values: to("hots")}}, []manifest.RegistryValue{{Path: "image.registri", Gets: "registry"}}, 2, ""},
		"unknown default":  {[]manifest.Parameter{{Name: "p", Type: "string", Default: text("a"), Values: to("hots")}}, []manifest.RegistryValue{{Path: "image.registri", Gets: "registry"}}, 2, ""},
		"wrong type":       {[]manifest.Parameter{host, {Name: "p", Type: "string", Default: text("3"), Values: to("replicas")}}, nil, 0, `parameter "p": "3" at "replicas" does not suit release "x/shop": at '/replicas': got string, want integer`},
		"too many":         {[]manifest.Parameter{host, {Name: "p", Type: "integer", Enum: []string{"3", "30"}, Values: to("replicas")}}, nil, 0, `parameter "p": "30" at "replicas"`},
		"one of the enum":  {[]manifest.Parameter{{Name: "p", Type: "string", Default: text("small"), Enum: []string{"small", "huge"}, Values: to("size")}}, nil, 0, `parameter "p": "huge" at "size"`},
		"truth":            {[]manifest.Parameter{{Name: "p", Type: "boolean", Values: to("host")}}, nil, 0, `parameter "p": "true" at "host"`},
		"truth that fits":  {[]manifest.Parameter{{Name: "p", Type: "boolean", Values: to("debug")}}, nil, 0, ""},
		"a mapping":        {[]manifest.Parameter{{Name: "p", Type: "string", Default: text("a"), Values: to("image")}}, nil, 0, `parameter "p": "a" at "image"`},
		"within a text":    {[]manifest.Parameter{{Name: "p", Type: "string", Default: text("a"), Values: to("vendor.name")}}, nil, 1, `"vendor" is a text, not a mapping`},
		"registry":         {nil, []manifest.RegistryValue{{Path: "replicas", Gets: "prefix"}}, 0, `registryValues: "prefix" at "replicas"`},
		"the vendor's own": {[]manifest.Parameter{{Name: "p", Type: "integer", Default: text("3"), Values: to("vendor2")}}, nil, 1, ""},
	} {
		vendor := map[string]any{"vendor": "text", "image": map[string]any{"tag": "1"}}
		warnings, err := checkSiteValues(c, vendor, try.params, "x/shop", try.rv)
		if try.want == "" && err != nil || try.want != "" && (err == nil || !strings.Contains(err.Error(), try.want)) {
			t.Errorf("%s: %v, want %s", name, err, try.want)
		}
		var bad *ParameterSchemaError
		if err != nil && !errors.As(err, &bad) {
			t.Errorf("%s: %T", name, err)
		}
		if len(warnings) != try.warnings || slices.ContainsFunc(warnings, func(w string) bool { return !strings.Contains(w, "x/shop") }) {
			t.Errorf("%s: warnings %q", name, warnings)
		}
		if !reflect.DeepEqual(vendor, map[string]any{"vendor": "text", "image": map[string]any{"tag": "1"}}) {
			t.Fatalf("%s: the vendor's values became %v", name, vendor)
		}
	}
	var schema *chart.SchemaError
	if _, err := checkSiteValues(c, map[string]any{"replicas": "many"}, []manifest.Parameter{host}, "x/shop", nil); !errors.As(err, &schema) {
		t.Error(err)
	}
}
