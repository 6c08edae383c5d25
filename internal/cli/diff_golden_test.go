package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/manifest"
)

func digestOf(c string) string { return "sha256:" + strings.Repeat(c, 64) }

func ptr[T any](v T) *T { return &v }

// sampleDifference has something of everything that may differ, and in it what would be markup, and
// what would steer a terminal, if it were let.
func sampleDifference() *difference {
	const img = "application/vnd.oci.image.manifest.v1+json"
	descriptor := func(c string, size int64) manifest.Descriptor {
		return manifest.Descriptor{Digest: digestOf(c), MediaType: img, Size: size}
	}
	image := func(source, c string) manifest.Image {
		return manifest.Image{Source: source, Digest: digestOf(c), MediaType: img, Size: 1, Platforms: []string{"linux/amd64"}, Reasons: []manifest.Reason{{Kind: manifest.ReasonSpec}}}
	}
	blobs := func(m *manifest.Manifest, sizes map[string]int64, order string) {
		for _, c := range strings.Split(order, "") {
			b := manifest.Blob{Digest: digestOf(c), Size: sizes[c], Encoding: manifest.EncodingStored}
			m.Blobs = append(m.Blobs, b)
			m.Entries = append(m.Entries, manifest.Entry{Name: manifest.BlobEntryName(b), Size: b.Size})
		}
	}
	sizes := map[string]int64{"1": 1000, "2": 2_000_000, "3": 30_000_000, "4": 400}
	old := &manifest.Manifest{Name: "shop", Version: "1.0.0", Channel: "stable", Created: "2026-01-02T03:04:05Z", Platforms: []string{"linux/amd64"}}
	now := &manifest.Manifest{
		Name: "shop", Version: "1.1.0-rc.1", Channel: "beta", Created: "2026-02-02T03:04:05Z", Expires: "2027-12-31T23:59:59Z",
		Platforms: []string{"linux/amd64", "linux/arm64"},
	}
	blobs(old, sizes, "124")
	blobs(now, sizes, "234")
	old.Images = []manifest.Image{image("r.example/app:1", "1"), image("r.example/old:1", "2"), image("r.example/same:1", "4")}
	now.Images = []manifest.Image{image("r.example/app:2", "3"), image("r.example/new@"+digestOf("2"), "2"), image("r.example/same:1", "4")}
	model := image("r.example/model:1", "2")
	model.ArtifactType, model.Platforms = "application/vnd.example.model", nil
	now.Artifacts = []manifest.Image{model}
	now.Ignored = []manifest.IgnoredImage{{Reference: "r.example/test:1", Pattern: "*/test", Why: "tests | only</details><script>alert(1)</script>"}}
	old.Charts = []manifest.Chart{{
		Name: "shop", Version: "1.0.0", AppVersion: "1", Release: "shop", Namespace: "shop", Manifest: descriptor("1", 1), Archive: descriptor("1", 1),
		Values: []manifest.ValuesFile{{Name: "v.yaml", Digest: digestOf("1")}}, Rollback: manifest.RollbackSafe,
	}, {Name: "gone", Version: "0.1.0", Release: "gone", Namespace: "shop", Manifest: descriptor("1", 1), Archive: descriptor("1", 1)}}
	now.Charts = []manifest.Chart{{
		Name: "shop", Version: "1.1.0", AppVersion: "1`2|<b>\x1b[31m@all #1 [x](http://evil.example)", Source: "oci://r.example/charts/shop:1.1.0",
		Release: "shop", Namespace: "shop", Manifest: descriptor("2", 1), Archive: descriptor("2", 1),
		Values:    []manifest.ValuesFile{{Name: "v.yaml", Digest: digestOf("2")}, {Name: "a`b.yaml", Digest: digestOf("3")}},
		DependsOn: []string{"db/db"}, RegistryValues: []manifest.RegistryValue{{Path: "global.registry", Gets: manifest.RegistryHost}},
		Provenance: ptr(descriptor("4", 1)), SignedBy: strings.Repeat("AB", 20),
		Rollback: manifest.RollbackForbidden, Rollout: &manifest.Rollout{Strategy: manifest.RolloutCanary, Front: manifest.Front{Kind: manifest.FrontHTTPRoute, Name: "shop"}, Steps: []int{10, 50}},
		Checks: []manifest.Check{
			{Name: "web", HTTP: &manifest.CheckHTTP{Service: "web", Port: 80, Path: "/healthz", Status: 204, TLS: true}, Seconds: 90},
			{Name: "db", TCP: &manifest.CheckTCP{Service: "db", Port: 5432}},
			{Name: "smoke", Job: ptr(descriptor("4", 1))},
		},
	}, {Name: "db", Version: "2.0.0", Release: "db", Namespace: "db", Manifest: descriptor("3", 1), Archive: descriptor("3", 1)}}
	old.Files = []manifest.File{{Name: "runbook.pdf", Digest: digestOf("1"), Size: 1000}, {Name: "gone.txt", Digest: digestOf("2"), Size: 1}, {Name: "tool", Digest: digestOf("4"), Size: 400}}
	now.Files = []manifest.File{{Name: "runbook.pdf", Digest: digestOf("3"), Size: 2000}, {Name: "bin/a|b", Digest: digestOf("2"), Size: 5}, {Name: "bin/tool", Digest: digestOf("4"), Size: 400, Executable: true}}
	now.Files[1].Digest = digestOf("5")
	now.Notes = ptr(descriptor("4", 400))
	old.Requires = &manifest.Requires{Kubernetes: ">=1.28", CPU: "4", Architectures: []string{"amd64"}}
	now.Requires = &manifest.Requires{Kubernetes: ">=1.30 || <2", UpgradeFrom: "^1.0.0", Architectures: []string{"amd64"}}
	old.Parameters = []manifest.Parameter{{Name: "host", Type: manifest.ParameterString, Values: []manifest.ParameterValue{{Release: "shop/shop", Path: "host"}}}, {Name: "gone", Type: manifest.ParameterString}}
	now.Parameters = []manifest.Parameter{
		{Name: "host", Description: "Where it is.", Type: manifest.ParameterString, Default: ptr(""), Required: true, Secret: true, Pattern: "[a-z]+|x", Enum: []string{"a", "b"}},
		{Name: "replicas", Description: "How many.\nAt least 1.", Type: manifest.ParameterInteger, Default: ptr("2")},
		{Name: "password", Type: manifest.ParameterString, Required: true, Secret: true},
	}
	d := manifest.Compare(old, now)
	return &difference{
		Old:        side{&looked{File: "old", Digest: digestOf("a"), Signatures: 1}, 33_000_000, d.Old},
		New:        side{&looked{File: "new", Digest: digestOf("b"), Signatures: 2}, 64_000_000, d.New},
		Difference: d,
		Objects: []releaseObjects{
			{Release: "db/db", Changes: []chart.ObjectChange{}, Problem: "rendering chart \"db\": <img src=x onerror=alert(1)> ```"},
			{Release: "shop/shop", Changes: []chart.ObjectChange{
				{Action: chart.ObjectAdded, Object: "ConfigMap/shop/new", APIVersion: "v1"},
				{Action: chart.ObjectChanged, Object: "Secret/shop/s", APIVersion: "v1", Fields: []chart.FieldChange{
					{Path: "data.password", Old: chart.SecretValue, New: chart.SecretValue}, {Path: "data.more", New: chart.SecretValue},
				}},
				{Action: chart.ObjectChanged, Object: "Deployment/shop/web", APIVersion: "apps/v1", Fields: []chart.FieldChange{
					{Path: "metadata.annotations[\"a`b\"]", Old: "`x`", New: "</summary> **bold**"},
				}, More: 2},
				{Action: chart.ObjectRemoved, Object: "Service/shop/old", APIVersion: "v1"},
			}},
			{Release: "b/moved", Old: "a/moved", Changes: []chart.ObjectChange{}},
		},
	}
}

// TestDiffGolden: what sealift diff prints, in its three forms. -update writes the files.
func TestDiffGolden(t *testing.T) {
	for name, print := range map[string]func(*app, *difference) error{
		"text.txt": func(a *app, d *difference) error { return a.printDifference(d, false) },
		"notes.md": func(a *app, d *difference) error { return a.printDifference(d, true) },
		"difference.json": func(a *app, d *difference) error {
			a.output = "json"
			return a.printDifference(d, false)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			a := testApp()
			a.env.Stdout = &out
			if err := print(a, sampleDifference()); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("..", "..", "testdata", "diff", name)
			if *update {
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(out.Bytes(), bytes.ReplaceAll(want, []byte("\r\n"), []byte("\n"))) {
				t.Errorf("got\n%s\nwant\n%s", out.Bytes(), want)
			}
			if name != "difference.json" && bytes.ContainsRune(out.Bytes(), '\x1b') {
				t.Error("an escape sequence came through")
			}
		})
	}
}

// spans are the code spans of Markdown, by the rule of CommonMark: a run of backquotes, and the next
// one of the same length.
func withoutSpans(text string) string {
	run := regexp.MustCompile("`+")
	var rest strings.Builder
	for {
		open := run.FindStringIndex(text)
		if open == nil {
			rest.WriteString(text)
			return rest.String()
		}
		fence := text[open[0]:open[1]]
		after := text[open[1]:]
		end := -1
		for _, c := range run.FindAllStringIndex(after, -1) {
			if after[c[0]:c[1]] == fence {
				end = c[1]
				break
			}
		}
		rest.WriteString(text[:open[0]])
		if end < 0 {
			rest.WriteString(fence)
			text = after
			continue
		}
		text = after[end:]
	}
}

// FuzzMarkdown: no text gets out of its code span, its cell, or its line.
func FuzzMarkdown(f *testing.F) {
	for _, s := range []string{"a|b", `a\|b`, "`", "``` x", " `", "\\", "<b>", "a\nb", "\r\n# x", "&#124;", "\u2028"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if text == "" {
			return
		}
		outside := code(text)
		if rest := withoutSpans("x " + outside + " y"); rest != "x  y" || strings.ContainsAny(outside, "\n\r\u2028\u2029") {
			t.Fatalf("%q became %q, outside of code: %q", text, outside, rest)
		}
		inside := cell(text)
		if strings.ContainsAny(inside, "|\n\r\u2028\u2029") {
			t.Fatalf("%q became the cell %q", text, inside)
		}
		if escaped, ok := strings.CutPrefix(inside, "<code>"); ok {
			escaped, _ = strings.CutSuffix(escaped, "</code>")
			if strings.ContainsAny(regexp.MustCompile("&#[0-9]+;").ReplaceAllString(escaped, ""), "`<>&*_[]\\!#@:") {
				t.Fatalf("%q became the cell %q", text, inside)
			}
		} else if rest := withoutSpans("x " + inside + " y"); rest != "x  y" {
			t.Fatalf("%q became the cell %q, outside of code: %q", text, inside, rest)
		}
	})
}
