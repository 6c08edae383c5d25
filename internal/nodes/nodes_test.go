package nodes

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "write the golden files anew")

const testPEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"

// kept are places of a bundle under the mapping "keep", flat those of another one under "flatten".
var (
	kept = []Place{
		{"docker.io", "library/nginx", "mirror/library/nginx"},
		{"docker.io", "bitnami/redis", "mirror/bitnami/redis"},
		{"registry.k8s.io", "pause", "mirror/pause"},
		{"quay.io:8443", "team/sub/app.server", "mirror/team/sub/app.server"},
	}
	flat = []Place{
		{"docker.io", "library/nginx", "mirror/library-nginx"},
		{"ghcr.io", "team/app.server", "mirror/team-app.server"},
		{"ghcr.io", "team/app-server", "mirror/team-app-server"},
	}
	site = Endpoint{Host: "registry.site.example:5000"}
)

// prefixesOf are those of names that put the same before all paths of a registry.
func prefixesOf(places []Place) map[string]Prefix {
	prefixes := map[string]Prefix{}
	for _, p := range places {
		if prefix, ok := prefixOf(p); ok {
			prefixes[p.Registry] = Prefix{prefix, true}
		}
	}
	return prefixes
}

func mirrors(t *testing.T, f Format, places []Place, to Endpoint) *Mirrors {
	t.Helper()
	m, err := New(f, "shop", "1.0.0", places, prefixesOf(places), to)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func rendered(t *testing.T, f Format, places []Place, to Endpoint) []File {
	t.Helper()
	files, _, err := Render(f, mirrors(t, f, places, to), Authority{to.Host, testPEM})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestGoldenFiles(t *testing.T) {
	secure := site
	secure.CA = true
	plain := Endpoint{Host: "192.0.2.7:5000", PlainHTTP: true}
	for name, c := range map[string]struct {
		formats []Format
		places  []Place
		to      Endpoint
	}{
		"keep":    {formats, kept, site},
		"ca":      {formats, kept, secure},
		"http":    {formats, kept, plain},
		"flatten": {[]Format{K3s, RKE2, CRIO, Podman, OpenShift}, flat, site},
		"root":    {formats, []Place{{"docker.io", "library/nginx", "library/nginx"}}, site},
	} {
		for _, f := range c.formats {
			t.Run(name+"/"+string(f), func(t *testing.T) {
				m := mirrors(t, f, c.places, c.to)
				files, notes, err := Render(f, m, Authority{c.to.Host, testPEM})
				if err != nil {
					t.Fatal(err)
				}
				var b strings.Builder
				for _, file := range files {
					b.WriteString("==== " + file.Path + "\n" + file.Content)
					checkSyntax(t, file)
				}
				b.WriteString("==== notes\n" + strings.Join(notes, "\n") + "\n")
				golden := filepath.Join("testdata", name+"-"+string(f)+".golden")
				if *update {
					if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(golden, []byte(b.String()), 0o644)); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(golden)
				if err != nil {
					t.Fatal(err)
				}
				if b.String() != string(want) {
					t.Errorf("got\n%s\nwant\n%s", b.String(), want)
				}
			})
		}
	}
}

// checkSyntax reads a file with the parser of its language, and what was written for mirrors back.
func checkSyntax(t *testing.T, file File) {
	t.Helper()
	var v any
	switch filepath.Ext(file.Path) {
	case ".toml", ".conf":
		if _, err := toml.Decode(file.Content, &v); err != nil {
			t.Errorf("%s: %v", file.Path, err)
		}
	case ".yaml":
		d := yaml.NewDecoder(strings.NewReader(file.Content))
		for d.Decode(&v) == nil {
			if _, ok := v.(map[string]any); !ok {
				t.Errorf("%s: a document that is no object: %v", file.Path, v)
			}
		}
	case ".crt":
		if !strings.HasSuffix(file.Content, testPEM) {
			t.Errorf("%s: %s", file.Path, file.Content)
		}
	default:
		t.Errorf("%s is of no known language", file.Path)
	}
	if _, err := Parse([]byte(file.Content)); err != nil {
		t.Errorf("%s: %v", file.Path, err)
	}
}

// TestHostsFiles looks at what containerd makes of the files: hosts in their order, and the server last.
func TestHostsFiles(t *testing.T) {
	type host struct {
		Capabilities []string
		OverridePath bool   `toml:"override_path"`
		CA           string `toml:"ca"`
	}
	var file struct {
		host
		Server string
		Host   map[string]host
	}
	secure := site
	secure.CA = true
	for _, f := range rendered(t, Containerd, kept, secure) {
		if filepath.Base(f.Path) != "hosts.toml" {
			continue
		}
		meta, err := toml.Decode(f.Content, &file)
		if err != nil || len(meta.Undecoded()) > 0 {
			t.Fatal(err, meta.Undecoded())
		}
		const address = "https://registry.site.example:5000/v2/mirror"
		want := host{[]string{"pull", "resolve"}, true, "ca.crt"}
		if file.Server != address || !reflect.DeepEqual(file.host, want) || len(file.Host) != 1 || !reflect.DeepEqual(file.Host[address], want) {
			t.Errorf("%s: %+v", f.Path, file)
		}
	}
}

func TestWhatContainerdCannotExpressIsRefused(t *testing.T) {
	m := mirrors(t, Containerd, flat, site)
	_, _, err := Render(Containerd, m, Authority{})
	var refused *FormatError
	if !errors.As(err, &refused) || refused.Source != "docker.io/library/nginx" || refused.Target != "registry.site.example:5000/mirror/library-nginx" {
		t.Fatal(err)
	}
}

func TestTheSitesOwnRegistryIsNotLedAway(t *testing.T) {
	var refused *FormatError
	if _, err := New(Containerd, "shop", "1.0.0", []Place{{site.Host, "app", "mirror/app"}}, nil, site); !errors.As(err, &refused) {
		t.Fatal(err)
	}
	m := mirrors(t, K3s, []Place{{site.Host, "app", "app"}}, site)
	if files, notes, err := Render(K3s, m, Authority{}); err != nil || len(files) != 0 || len(notes) != 1 {
		t.Fatal(files, notes, err)
	}
}

// TestRewritesOfRancher applies the expressions as k3s does: in any order, the first that changes
// something counts; and writes them as its template does, into a TOML string without any escape.
func TestRewritesOfRancher(t *testing.T) {
	for _, c := range []struct {
		places   []Place
		path, at string
	}{
		{kept, "library/nginx", "mirror/library/nginx"},
		{kept, "anything/else", "mirror/anything/else"},
		{flat, "library/nginx", "mirror/library-nginx"},
		{flat, "library/nginx/more", "library/nginx/more"},
	} {
		pattern, name := "", ""
		for _, r := range mirrors(t, K3s, c.places, site).only("docker.io").routes {
			pattern, name = rewrite(r)
		}
		if got := replaced(t, pattern, name, c.path); got != c.at {
			t.Errorf("%q becomes %q by %q, want %q", c.path, got, pattern, c.at)
		}
	}
	pattern, name := rewrite(route{repository: "team/app.server", path: "mirror/team-app.server"})
	if got := replaced(t, pattern, name, "team/appxserver"); got != "team/appxserver" {
		t.Errorf("%q stands for any letter: %q", pattern, got)
	}
	if strings.ContainsAny(pattern+name, `\"`) {
		t.Errorf("%q or %q would be changed by TOML", pattern, name)
	}
}

func TestRoutesThatRancherCannotKeepApartAreRefused(t *testing.T) {
	var refused *FormatError
	m, err := mirrors(t, K3s, kept, site).Merge(mirrors(t, K3s, flat, site), false)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Render(K3s, m, Authority{}); !errors.As(err, &refused) {
		t.Fatal(err)
	}
	if files, _, err := Render(CRIO, m, Authority{}); err != nil || !strings.Contains(files[0].Content, `prefix = "docker.io/library/nginx"`) {
		t.Fatal(err)
	}
}

func TestMerging(t *testing.T) {
	places := []Place{{"quay.io", "a", "m/a"}, {"docker.io", "library/x", "mirror/library/x"}}
	base, err := New(CRIO, "base", "2.0.0", places, prefixesOf(places), site)
	if err != nil {
		t.Fatal(err)
	}
	shop := mirrors(t, CRIO, kept, site)
	m, err := base.Merge(shop, false)
	if err != nil {
		t.Fatal(err)
	}
	newer, err := New(CRIO, "shop", "1.1.0", kept[:1], prefixesOf(kept), Endpoint{Host: site.Host, CA: true})
	if err != nil {
		t.Fatal(err)
	}
	if m, err = m.Merge(newer, false); err != nil {
		t.Fatal(err)
	}
	files, _, err := Render(CRIO, m, Authority{})
	if err != nil {
		t.Fatal(err)
	}
	if want := "# written by sealift for base 2.0.0, shop 1.1.0\n"; !strings.HasPrefix(files[0].Content, want) {
		t.Errorf("%q, want %q", files[0].Content, want)
	}
	if got := m.registries(); !slices.Equal(got, []string{"docker.io", "quay.io", "quay.io:8443", "registry.k8s.io"}) {
		t.Errorf("registries %q", got)
	}
	again, err := Parse([]byte(files[0].Content))
	if err != nil {
		t.Fatal(err)
	}
	if twice, _, err := Render(CRIO, again, Authority{}); err != nil || twice[0] != files[0] {
		t.Errorf("read back: %v\n%s\nwant\n%s", err, twice[0].Content, files[0].Content)
	}

	elsewhere := mirrors(t, CRIO, []Place{{"docker.io", "library/nginx", "other/library/nginx"}}, site)
	var conflict *ConflictError
	if _, err := m.Merge(elsewhere, false); !errors.As(err, &conflict) || conflict.Source != "docker.io" {
		t.Fatal(err)
	}
	if m, err = m.Merge(elsewhere, true); err != nil || m.only("docker.io").routes[0].path != "other" {
		t.Fatal(m, err)
	}
}

// TestARuleForSomePathsIsNoRouteForAll: bundles that are named by the same rules go together, in any
// order.
func TestARuleForSomePathsIsNoRouteForAll(t *testing.T) {
	prefixes := map[string]Prefix{"docker.io": {"m", false}}
	for _, f := range formats {
		one, err := New(f, "one", "1.0.0", []Place{{"docker.io", "library/debian", "m/hub/library/debian"}}, prefixes, site)
		if err != nil {
			t.Fatal(err)
		}
		two, err := New(f, "two", "1.0.0", []Place{{"docker.io", "bitnami/redis", "m/bitnami/redis"}, {"docker.io", "library/nginx", "m/hub/library/nginx"}}, prefixes, site)
		if err != nil {
			t.Fatal(err)
		}
		plain, err := New(f, "plain", "1.0.0", []Place{{"docker.io", "grafana/loki", "m/grafana/loki"}}, prefixes, site)
		if err != nil {
			t.Fatal(err)
		}
		if f == Containerd {
			var refused *FormatError
			if _, _, err := Render(f, one, Authority{}); !errors.As(err, &refused) || refused.Source != "docker.io/library/debian" {
				t.Errorf("%s: %v", f, err)
			}
			// What has the usual names can be had.
			if _, _, err := Render(f, plain, Authority{}); err != nil || plain.routes[0].path != "m" || plain.routes[0].repository != "" {
				t.Errorf("%s: %v, %+v", f, err, plain.routes)
			}
			continue
		}
		dir := t.TempDir()
		for _, m := range []*Mirrors{one, two, plain} {
			installed(t, dir, f, m, "", false)
		}
		all, err := one.Merge(two, false)
		if err == nil {
			all, err = all.Merge(plain, false)
		}
		if err != nil {
			t.Fatal(f, err)
		}
		var sources []string
		for _, r := range all.routes {
			sources = append(sources, r.source())
		}
		if want := []string{"docker.io/bitnami/redis", "docker.io/grafana/loki", "docker.io/library/debian", "docker.io/library/nginx"}; !slices.Equal(sources, want) {
			t.Errorf("%s: routes of %q, want %q", f, sources, want)
		}
	}
}

func TestParseFormat(t *testing.T) {
	for _, f := range formats {
		if got, err := ParseFormat(string(f)); err != nil || got != f {
			t.Error(f, got, err)
		}
	}
	if _, err := ParseFormat("docker"); err == nil {
		t.Error("docker is taken")
	}
}

// FuzzParse reads whatever lies where a file is to be written. What is taken for one of ours can be
// written again, and says the same.
func FuzzParse(f *testing.F) {
	for _, format := range formats {
		m, err := New(format, "shop", "1.0.0", kept, prefixesOf(kept), Endpoint{Host: "registry.site.example", CA: true})
		if err != nil {
			f.Fatal(err)
		}
		files, _, err := Render(format, m, Authority{"registry.site.example", testPEM})
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			f.Add([]byte(file.Content))
		}
	}
	f.Add([]byte("[[registry]]\n"))
	f.Add([]byte(markWritten + "a 1\n" + markRoute + "docker.io https://a/v3/x\n" + markDigest + "\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		m, err := Parse(content)
		if err != nil {
			if !errors.Is(err, ErrForeign) {
				t.Fatal(err)
			}
			return
		}
		text := marked(m, "")
		again, err := Parse([]byte(text))
		if err != nil || marked(again, "") != text {
			t.Fatalf("%v: %q", err, text)
		}
	})
}

// FuzzParseRoute reads the lines behind the digest, which a fuzzer does not find.
func FuzzParseRoute(f *testing.F) {
	f.Add("docker.io/library/nginx https://registry.site.example:5000/v2/mirror/nginx ca")
	f.Add("[::1]:5000 http://[::2]:5000")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := parseRoute(text)
		if err != nil {
			return
		}
		r.bundles = []string{"a"}
		m := &Mirrors{bundles: map[string]string{"a": "1"}, routes: []route{r}}
		if m.check() != nil {
			return
		}
		again, err := Parse([]byte(marked(m, "x")))
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("%v: %+v, want %+v", err, again, m)
		}
	})
}
