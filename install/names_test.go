package install

import (
	"errors"
	"strings"
	"testing"

	"github.com/sealift/sealift/manifest"
)

func TestNamesThatAreMade(t *testing.T) {
	rule := func(texts ...string) Names {
		var n Names
		for _, text := range texts {
			r, err := ParseRule(text)
			if err != nil {
				t.Fatal(err)
			}
			n.Rules = append(n.Rules, r)
		}
		return n
	}
	long := strings.Repeat("a", 120)
	for _, c := range []struct {
		prefix                string
		names                 Names
		host, repository, tag string
		want                  string
	}{
		{"", Names{}, "docker.io", "library/nginx", "1", "library/nginx:1"},
		{"p/q", Names{Mapping: MappingKeep}, "quay.io", "x/y", "1", "p/q/x/y:1"},
		{"p", Names{Mapping: MappingFlatten}, "docker.io", "library/nginx", "1", "p/library-nginx:1"},
		{"", Names{Mapping: MappingFlatten}, "docker.io", "library/nginx", "", "library-nginx:"},
		{"p/q", Names{Mapping: MappingSingle}, "docker.io", "library/nginx", "1.27", "p/q:library-nginx-1.27"},
		{"p", Names{Mapping: MappingSingle}, "docker.io", "library/nginx", "", "p:"},
		{"p", rule("docker.io/library/*=base/*"), "docker.io", "library/nginx", "1", "p/base/nginx:1"},
		{"p", rule("docker.io/library/*=base/*"), "docker.io", "library/a/b", "1", "p/library/a/b:1"},
		{"p", rule("docker.io/library/*=base/*", "docker.io/**=hub/**"), "docker.io", "x/y/z", "1", "p/hub/x/y/z:1"},
		{"p", rule("*/**=*/**"), "registry.example:5000", "shop/app", "1", "p/registry.example-5000/shop/app:1"},
		{"p", rule("*/**=*/**"), "[::1]:5000", "shop/app", "1", ""},
		{"p", rule("*.example/x/*-api=x/*/*"), "eu.example", "x/shop-api", "1", "p/x/eu/shop:1"},
		{"p", rule("charts/*=helm/*"), "", "charts/shop", "1", "p/helm/shop:1"},
		{"", Names{Mapping: MappingSingle}, "docker.io", "library/nginx", "1", ""},
		{"p", rule("docker.io/**=Upper/**"), "docker.io", "x", "1", "p/upper/x:1"},
		{"p", rule("docker.io/**=a//**"), "docker.io", "x", "1", ""},
		{strings.Repeat("p/", 100) + "p", Names{}, "docker.io", "a/" + long, "1", ""},
	} {
		target := Target{Registry: "site:5000", Prefix: c.prefix, Names: c.names}
		path, tag, err := target.place(c.host, c.repository, c.tag)
		if c.want == "" {
			var bad *NameError
			if !errors.As(err, &bad) {
				t.Errorf("%s/%s with %v: %q, %v, want *NameError", c.host, c.repository, c.names, path, err)
			}
			continue
		}
		if got := path + ":" + tag; err != nil || got != c.want {
			t.Errorf("%s/%s with %v: %q, %v, want %q", c.host, c.repository, c.names, got, err, c.want)
		}
	}
	// Long tags are cut, and stay apart.
	one := Target{Registry: "site:5000", Prefix: "p", Names: Names{Mapping: MappingSingle}}
	_, a, err := one.place("docker.io", long, "1")
	if err != nil || len(a) > maxTag {
		t.Fatalf("%q, %v", a, err)
	}
	_, b, err := one.place("docker.io", long, strings.Repeat("2", 20))
	if err != nil || len(b) != maxTag || a == b {
		t.Fatalf("%q and %q, %v", a, b, err)
	}
}

func TestRules(t *testing.T) {
	for text, why := range map[string]string{
		"":                      "SOURCE=NAME",
		"docker.io/x":           "SOURCE=NAME",
		"=x":                    "SOURCE=NAME",
		"docker.io/x=":          "SOURCE=NAME",
		"docker.io/x=/":         "SOURCE=NAME",
		"library/*=x/*":         "no registry",
		"nginx=x":               "no registry",
		"docker.io/*=x":         "wildcards",
		"docker.io/*=x/**":      "wildcards",
		"docker.io/*/**=x/**/*": "wildcards",
		"docker.io/***=x/***":   "more than two",
	} {
		var bad *RuleError
		if _, err := ParseRule(text); !errors.As(err, &bad) || !strings.Contains(bad.Why, why) {
			t.Errorf("ParseRule(%q): %v, want %q", text, err, why)
		}
	}
}

func TestPrefixOf(t *testing.T) {
	for _, c := range []struct {
		mapping  Mapping
		rules    []string
		registry string
		prefix   string
		all, ok  bool
	}{
		{"", nil, "docker.io", "m", true, true},
		{MappingFlatten, nil, "quay.io", "", false, false},
		{MappingSingle, nil, "quay.io", "", false, false},
		{"", []string{"docker.io/**=hub/**"}, "docker.io", "m/hub", true, true},
		{MappingFlatten, []string{"docker.io/**=hub/**"}, "docker.io", "m/hub", true, true},
		{"", []string{"docker.io/**=hub/**"}, "quay.io", "m", true, true},
		{"", []string{"docker.io/library/*=hub/library/*"}, "docker.io", "m", false, true},
		{"", []string{"docker.io/library/*=library/*"}, "docker.io", "m", true, true},
		{"", []string{"docker.io/library/*=hub/library/*", "docker.io/**=hub/**"}, "docker.io", "m/hub", true, true},
		{"", []string{"docker.io/library/debian=debian"}, "docker.io", "m", false, true},
		{"", []string{"quay.io/*=own/*"}, "quay.io", "", false, false},
		{"", []string{"*/library/*=*/library/*"}, "localhost:5000", "m", false, true},
		{"", []string{"**/deep=**/deeper"}, "quay.io", "m", false, true},
		{"", []string{"*.example/**=*/**"}, "quay.io", "m", true, true},
		{"", []string{"*.io/**=*/**"}, "quay.io", "m/quay", true, true},
		{"", []string{"charts/**=charts/**"}, "quay.io", "m", true, true},
		{"", []string{"quay.io/TEAM/*=x/*"}, "quay.io", "m", true, true},
	} {
		names := Names{Mapping: c.mapping}
		for _, text := range c.rules {
			r, err := ParseRule(text)
			if err != nil {
				t.Fatal(err)
			}
			names.Rules = append(names.Rules, r)
		}
		prefix, all, ok := Target{Registry: "site:5000", Prefix: "m", Names: names}.PrefixOf(c.registry)
		if prefix != c.prefix || all != c.all || ok != c.ok {
			t.Errorf("%s %q: %s gets %q, %v, %v, want %q, %v, %v", c.mapping, c.rules, c.registry, prefix, all, ok, c.prefix, c.all, c.ok)
		}
	}
}

func TestLocateIsWhatSeedingDoes(t *testing.T) {
	m := &manifest.Manifest{
		Name: "shop", Version: "1.0.0",
		Images: []manifest.Image{image("docker.io/library/nginx:1", "1"), image("quay.io/x/y@"+digest("2"), "2")},
		Charts: []manifest.Chart{{Name: "shop", Version: "1.0.0", Manifest: manifest.Descriptor{Digest: digest("3")}}},
	}
	got, err := Locate(m, Target{Registry: "site:5000", Prefix: "p", Names: Names{Mapping: MappingFlatten}}, "")
	if err != nil {
		t.Fatal(err)
	}
	want := []Located{
		{"docker.io/library/nginx:1", "p/library-nginx", "1", digest("1"), digest("1"), false},
		{"quay.io/x/y@" + digest("2"), "p/x-y", "", digest("2"), digest("2"), false},
		{"charts/shop:1.0.0", "p/charts-shop", "1.0.0", digest("3"), digest("3"), true},
	}
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%+v, want %+v", got[i], want[i])
		}
	}
	// Names that meet are told.
	m.Images[1] = image("quay.io/library/nginx:1", "2")
	var both *CollisionError
	if _, err := Locate(m, Target{Registry: "site:5000"}, ""); !errors.As(err, &both) {
		t.Errorf("two images with one name: %v", err)
	}
}

func FuzzRule(f *testing.F) {
	for _, s := range []string{"docker.io/library/*=base/*", "*/**=*/**", "charts/*=x/*", "a.b/(=[", "x.y/\\*=\\*"} {
		f.Add(s, "docker.io/library/nginx")
	}
	f.Fuzz(func(t *testing.T, text, repository string) {
		r, err := ParseRule(text)
		if err != nil {
			return
		}
		target := Target{Registry: "site:5000", Prefix: "p", Names: Names{Rules: []Rule{r}}}
		host, path, _ := strings.Cut(repository, "/")
		if at, _, err := target.place(host, path, "1"); err == nil && !pathPattern.MatchString(at) {
			t.Errorf("%q makes %q of %q", text, at, repository)
		}
	})
}

func TestNamesThatChartsMake(t *testing.T) {
	m := &manifest.Manifest{Name: "shop", Version: "1.0.0", Images: []manifest.Image{image("docker.io/library/nginx:1", "1"), image("quay.io/x/y:2", "2")}}
	plan := func(docs string) []ReleasePlan {
		return []ReleasePlan{{Release: "shop", Namespace: "apps", docs: []byte(docs)}}
	}
	flat := Target{Registry: "site:5000", Prefix: "p", Names: Names{Mapping: MappingFlatten}}
	for docs, bad := range map[string]bool{
		"image: site:5000/p/library-nginx:1@" + digest("1"):  false,
		"data: {x: site:5000/p/library/nginx:1}":             true,
		"data: {x: site:5000/p/nginx:1}":                     true,
		"data: {x: \"see site:5000/p/x/y.\"}":                true,
		"data: {x: site:5000/p/x/yes:1}":                     false,
		"data: {x: site:5000/p/x/y.z:1}":                     false,
		"data: {x: mysite:5000/p/x/y:1}":                     false,
		"data: {x: other.site:5000/p/x/y:1}":                 false,
		"data: {x: 'docker.io/library/nginx:1 site:5000/p'}": false,
	} {
		err := CheckNames(plan(docs), m, flat)
		var other *OtherNamesError
		var preflight *PreflightError
		if got := errors.As(err, &other) && errors.As(err, &preflight); got != bad {
			t.Errorf("%s: %v, want an error: %t", docs, err, bad)
		}
		if err := CheckNames(plan(docs), m, Target{Registry: "site:5000", Prefix: "p"}); err != nil && !strings.Contains(docs, "p/nginx") {
			t.Errorf("%s with the paths kept: %v", docs, err)
		}
	}
}
