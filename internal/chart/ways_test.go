package chart

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/distribution/reference"
	"go.yaml.in/yaml/v3"
)

const waysDir = "../../testdata/charts/ways"

// expectation is expect.yaml of a chart below testdata/charts/ways.
type expectation struct {
	// Render are the variants; none is one without anything.
	Render []struct {
		Values      []string `yaml:"values"`
		KubeVersion string   `yaml:"kubeVersion"`
		APIVersions []string `yaml:"apiVersions"`
	} `yaml:"render,omitempty"`
	Hosts []string `yaml:"hosts,omitempty"`
	// NotFound are texts of the chart that no find may have.
	NotFound []string         `yaml:"notFound,omitempty"`
	Finds    []expectedFind   `yaml:"finds,omitempty"`
	Unused   []expectedUnused `yaml:"unused,omitempty"`
	// Warnings is what warnings about declared images contain.
	Warnings []string `yaml:"warnings,omitempty"`
}

type expectedFind struct {
	Reference string `yaml:"reference"`
	Way       Way    `yaml:"way"`
	Probable  bool   `yaml:"probable,omitempty"`
	Object    string `yaml:"object"`
	Path      string `yaml:"path"`
}

type expectedUnused struct {
	Reference string   `yaml:"reference"`
	Path      string   `yaml:"path"`
	Switch    []string `yaml:"switch,omitempty"`
}

func readExpectation(t *testing.T, dir string) expectation {
	t.Helper()
	var e expectation
	data, err := os.ReadFile(filepath.Join(dir, "expect.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&e); err != nil {
		t.Fatalf("%s: %v", dir, err)
	}
	return e
}

func ways(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(waysDir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// familiar is the reference as Kubernetes reads it.
func familiar(t *testing.T, text string) string {
	t.Helper()
	named, err := reference.ParseNormalizedNamed(text)
	if err != nil {
		t.Fatalf("%q is no reference: %v", text, err)
	}
	return reference.TagNameOnly(named).String()
}

// see does with a chart what pack does.
func see(t *testing.T, dir string, e expectation) (got expectation, rendered string) {
	t.Helper()
	c := mustLoad(t, dir)
	hosts := map[string]bool{}
	for _, h := range e.Hosts {
		hosts[h] = true
	}
	variants := e.Render
	if len(variants) == 0 {
		variants = append(variants, struct {
			Values      []string `yaml:"values"`
			KubeVersion string   `yaml:"kubeVersion"`
			APIVersions []string `yaml:"apiVersions"`
		}{})
	}
	seen := map[Find]bool{}
	used := map[string]bool{}
	for _, v := range variants {
		var files []ValuesFile
		for _, name := range v.Values {
			data, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, ValuesFile{Name: name, Data: data})
		}
		values, err := MergeValues(files)
		if err != nil {
			t.Fatal(err)
		}
		docs, err := c.Render(t.Context(), RenderOptions{Values: values, KubeVersion: v.KubeVersion, APIVersions: v.APIVersions})
		if err != nil {
			t.Fatal(err)
		}
		rendered += string(docs)
		finds, err := Discover(docs, hosts)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range finds {
			used[familiar(t, f.Reference)] = true
			if !seen[f] {
				seen[f] = true
				got.Finds = append(got.Finds, expectedFind(f))
			}
		}
		same, err := RewriteImages(docs, func(f Find) (string, error) { return f.Reference, nil })
		if err != nil || !bytes.Equal(same, docs) {
			t.Errorf("rewriting to the same: %v\n%s", err, same)
		}
	}
	declared, warnings, err := c.Declared()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range declared {
		got.Finds = append(got.Finds, expectedFind(f))
	}
	got.Warnings = warnings
	unused, err := c.UnusedImages(nil, func(r string) bool { return used[familiar(t, r)] })
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range unused {
		got.Unused = append(got.Unused, expectedUnused(u))
	}
	return got, rendered
}

func TestWays(t *testing.T) {
	for _, name := range ways(t) {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(waysDir, name)
			want := readExpectation(t, dir)
			got, rendered := see(t, dir, want)
			if !reflect.DeepEqual(got.Finds, want.Finds) || !reflect.DeepEqual(got.Unused, want.Unused) {
				text, err := yaml.Marshal(expectation{Finds: got.Finds, Unused: got.Unused})
				t.Errorf("%v, got\n%s", err, text)
			}
			if len(got.Warnings) != len(want.Warnings) {
				t.Errorf("warnings %q, want %q", got.Warnings, want.Warnings)
			} else {
				for i, w := range want.Warnings {
					if !strings.Contains(got.Warnings[i], w) {
						t.Errorf("warning %q does not say %q", got.Warnings[i], w)
					}
				}
			}
			for _, text := range want.NotFound {
				if !strings.Contains(rendered, text) && !inValues(t, dir, text) {
					t.Errorf("%q is nowhere in the chart", text)
				}
				for _, f := range got.Finds {
					if strings.Contains(f.Reference, text) {
						t.Errorf("%q is found, at %s of %s", f.Reference, f.Path, f.Object)
					}
				}
			}
			if len(want.Finds)+len(want.Unused)+len(want.NotFound)+len(want.Warnings) == 0 {
				t.Error("the chart shows nothing")
			}
		})
	}
}

func inValues(t *testing.T, dir, text string) bool {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "values.yaml"))
	return err == nil && strings.Contains(string(data), text)
}

// verdict is what the table of docs/image-discovery.md says about a chart.
func (e expectation) verdict() string {
	var words []string
	add := func(word string, ok bool) {
		if ok {
			words = append(words, word)
		}
	}
	add("found", slices.ContainsFunc(e.Finds, func(f expectedFind) bool { return !f.Probable }))
	add("probable", slices.ContainsFunc(e.Finds, func(f expectedFind) bool { return f.Probable }))
	add("possibly missing", len(e.Unused) > 0)
	add("warning", len(e.Warnings) > 0)
	add("not found", len(e.NotFound) > 0)
	return strings.Join(words, ", ")
}

var wayRow = regexp.MustCompile("(?m)^\\| ([^|]+) \\| ([^|]+) \\| `([a-z-]+)` \\|$")

// The table of the documentation is about the charts that there are, and says what is so.
func TestWaysAreDocumented(t *testing.T) {
	data, err := os.ReadFile("../../docs/image-discovery.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, row := range wayRow.FindAllStringSubmatch(string(data), -1) {
		name, verdict := row[3], strings.TrimSpace(row[2])
		if documented[name] != "" {
			t.Errorf("%s is in the table twice", name)
		}
		documented[name] = verdict
	}
	all := ways(t)
	if len(all) < 28 {
		t.Errorf("there are only %d charts", len(all))
	}
	covered := map[Way]bool{}
	for _, name := range all {
		e := readExpectation(t, filepath.Join(waysDir, name))
		if documented[name] != e.verdict() {
			t.Errorf("%s is documented as %q, and is %q", name, documented[name], e.verdict())
		}
		delete(documented, name)
		for _, f := range e.Finds {
			covered[f.Way] = true
		}
	}
	if len(documented) > 0 {
		t.Errorf("documented charts that are not there: %q", slices.Sorted(maps.Keys(documented)))
	}
	for _, way := range []Way{
		WayContainer, WayVolume, WayField, WayEnvironment, WayArgument, WayAnnotation,
		WayImageKey, WayParts, WayConfig, WayText, WayChartAnnotation, WayImagesLock,
	} {
		if !covered[way] {
			t.Errorf("no chart shows the way %q", way)
		}
		if !strings.Contains(string(data), "`"+string(way)+"`") {
			t.Errorf("the way %q is not documented", way)
		}
	}
	for i := range knownFields {
		if !strings.Contains(string(data), "`"+knownFields[i].group+"`") {
			t.Errorf("the group %q is not documented", knownFields[i].group)
		}
	}
}
