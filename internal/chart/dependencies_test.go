package chart

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	chartv2 "helm.sh/helm/v4/pkg/chart/v2"

	"github.com/sealift/sealift/internal/oci/ocitest"
)

// filesOf lists the files of an archive, without the name of the chart.
func filesOf(t testing.TB, archive []byte) map[string][]byte {
	t.Helper()
	zr, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for tr := tar.NewReader(zr); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		_, name, _ := strings.Cut(h.Name, "/")
		if files[name], err = io.ReadAll(tr); err != nil {
			t.Fatal(err)
		}
	}
}

// snapshot is what a directory holds.
func snapshot(t testing.TB, dir string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			fmt.Fprintln(&out, path)
			return err
		}
		data, err := os.ReadFile(path)
		fmt.Fprintln(&out, path, digestOf(data))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func dependsOn(deps ...string) string {
	return "dependencies:\n- " + strings.Join(deps, "\n- ") + "\n"
}

const echo = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: \"{{ .Chart.Name }}-{{ .Chart.Version }}\"}\n"

func echoing(t testing.TB, name, version string) []byte {
	t.Helper()
	return archiveOf(t, name, version, map[string]string{"templates/x.yaml": echo})
}

// sources are a chart repository, a registry and a directory with charts.
type sources struct {
	*Fetcher
	repo     *testRepository
	registry *ocitest.Registry
	dir      string
}

func newSources(t testing.TB) *sources {
	t.Helper()
	s := &sources{repo: newTestRepository(t), registry: ocitest.New(t, ocitest.WithAPI), dir: t.TempDir()}
	s.Fetcher = s.repo.fetcher()
	s.OCI = registryOCI{ocitest.Client()}
	return s
}

// write writes a chart directory below that of the test.
func (s *sources) write(t testing.TB, name, version, more string, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(s.dir, name)
	all := map[string]string{"Chart.yaml": fmt.Sprintf("apiVersion: v2\nname: %s\nversion: %s\n%s", name, version, more)}
	for k, v := range files {
		all[k] = v
	}
	for k, v := range all {
		p := filepath.Join(dir, filepath.FromSlash(k))
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(v), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestDependenciesOfDirectory(t *testing.T) {
	s := newSources(t)
	for _, v := range []string{"1.0.0", "1.4.0", "2.0.0"} {
		s.repo.publish(echoing(t, "web", v), "web", v)
	}
	cache := echoing(t, "cache", "3.1.0")
	push(t, s.registry.Addr, "team", echoing(t, "cache", "3.0.0"), nil)
	push(t, s.registry.Addr, "team", cache, nil)
	s.repo.publish(archiveOf(t, "lib", "1.0.0", map[string]string{"Chart.yaml": "type: library\n", "templates/_x.tpl": `{{ define "lib.name" }}from-the-library{{ end }}`}), "lib", "1.0.0")
	s.write(t, "deep", "0.2.0", "", map[string]string{"templates/x.yaml": echo})
	s.write(t, "local", "0.1.0", dependsOn(
		fmt.Sprintf(`{name: web, version: "^2", repository: %q}`, s.repo.URL+"/charts"),
		`{name: deep, version: ">=0.1", repository: "file://../deep"}`), map[string]string{"templates/x.yaml": echo})
	dir := s.write(t, "app", "1.0.0", dependsOn(
		fmt.Sprintf(`{name: web, version: "^1.0", repository: %q, alias: front}`, s.repo.URL+"/charts"),
		fmt.Sprintf(`{name: web, version: "^1.0", repository: %q, alias: back}`, s.repo.URL+"/charts"),
		fmt.Sprintf(`{name: web, version: "1.0.0", repository: %q, alias: old, condition: old.enabled}`, s.repo.URL+"/charts"),
		fmt.Sprintf(`{name: cache, version: "3.x", repository: %q}`, "oci://"+s.registry.Addr+"/team/"),
		`{name: local, version: "0.1.0", repository: "file://../local"}`,
		fmt.Sprintf(`{name: lib, version: "*", repository: %q}`, s.repo.URL+"/charts"),
		`{name: vendored, version: "1.0.0", repository: "https://chart.invalid"}`,
		`{name: byhand, version: "1.0.0", repository: ""}`,
	), map[string]string{
		"values.yaml":                       "old: {enabled: false}\n",
		"templates/x.yaml":                  "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '{{ include \"lib.name\" . }}'}\n",
		"charts/vendored/Chart.yaml":        "apiVersion: v2\nname: vendored\nversion: 1.0.0\n",
		"charts/vendored/templates/x.yaml":  echo,
		"charts/byhand/Chart.yaml":          "apiVersion: v2\nname: byhand\nversion: 1.0.0\n",
		"charts/byhand/templates/NOTES.txt": "hello",
	})
	before := snapshot(t, s.dir)
	got, err := s.Fetch(t.Context(), Location{Path: dir})
	if err != nil {
		t.Fatal(err)
	}
	if after := snapshot(t, s.dir); after != before {
		t.Errorf("the directory has changed:\n%s", after)
	}
	files := filesOf(t, got.Archive)
	web := filesOf(t, filesOf(t, got.Archive)["charts/local-0.1.0.tgz"])
	if !bytes.Equal(files["charts/cache-3.1.0.tgz"], cache) || !bytes.Equal(files["charts/web-1.4.0.tgz"], echoing(t, "web", "1.4.0")) || files["charts/web-1.0.0.tgz"] == nil ||
		files["charts/lib-1.0.0.tgz"] == nil || !bytes.Equal(web["charts/web-2.0.0.tgz"], echoing(t, "web", "2.0.0")) || web["charts/deep-0.2.0.tgz"] == nil {
		t.Errorf("got %v and %v", files, web)
	}
	repo := s.repo.URL + "/charts"
	want := []Dependency{
		{"web", "1.4.0", repo, digestOf(echoing(t, "web", "1.4.0"))},
		{"web", "1.0.0", repo, digestOf(echoing(t, "web", "1.0.0"))},
		{"cache", "3.1.0", "oci://" + s.registry.Addr + "/team/", digestOf(cache)},
		{"web", "2.0.0", repo, digestOf(echoing(t, "web", "2.0.0"))},
		{"deep", "0.2.0", "file://../deep", digestOf(web["charts/deep-0.2.0.tgz"])},
		{"local", "0.1.0", "file://../local", digestOf(files["charts/local-0.1.0.tgz"])},
		{"lib", "1.0.0", repo, digestOf(files["charts/lib-1.0.0.tgz"])},
	}
	if !slices.Equal(got.Dependencies, want) {
		t.Errorf("got %+v", got.Dependencies)
	}

	render := func(values map[string]any) string {
		docs, err := got.Render(t.Context(), RenderOptions{Values: values})
		if err != nil {
			t.Fatal(err)
		}
		return string(docs)
	}
	docs := render(nil)
	for _, name := range []string{"front-1.4.0", "back-1.4.0", "cache-3.1.0", "local-0.1.0", "web-2.0.0", "deep-0.2.0", "vendored-1.0.0", "from-the-library"} {
		if strings.Count(docs, `"`+name+`"`)+strings.Count(docs, `'`+name+`'`) != 1 {
			t.Errorf("%s is not rendered once in\n%s", name, docs)
		}
	}
	if strings.Contains(docs, "old-1.0.0") || !strings.Contains(render(map[string]any{"old": map[string]any{"enabled": true}}), "old-1.0.0") {
		t.Error("the condition does not count")
	}

	// Newer ones appear: without pins they are taken, with pins they are not.
	s.repo.publish(echoing(t, "web", "1.5.0"), "web", "1.5.0")
	s.repo.publish(echoing(t, "web", "2.1.0"), "web", "2.1.0")
	push(t, s.registry.Addr, "team", echoing(t, "cache", "3.2.0"), nil)
	s.indexes = nil
	pinned, err := s.Fetch(t.Context(), Location{Path: dir, Pinned: digestOf(got.Archive), Dependencies: got.Dependencies})
	if err != nil || !bytes.Equal(pinned.Archive, got.Archive) || !slices.Equal(pinned.Dependencies, want) {
		t.Errorf("got %+v %v", pinned, err)
	}
	var pe *PinError
	if _, err := s.Fetch(t.Context(), Location{Path: dir, Pinned: digestOf(got.Archive)}); !errors.As(err, &pe) || pe.Chart != "app" {
		t.Errorf("got %v", err)
	}
	newer, err := s.Fetch(t.Context(), Location{Path: dir})
	if err != nil || newer.Dependencies[0].Version != "1.5.0" || newer.Dependencies[2].Version != "3.2.0" || newer.Dependencies[3].Version != "2.1.0" {
		t.Errorf("got %+v %v", newer, err)
	}
	changed := slices.Clone(want)
	changed[2].Digest = digestOf(nil)
	var de *DependencyError
	if _, err := s.Fetch(t.Context(), Location{Path: dir, Dependencies: changed}); !errors.As(err, &pe) || pe.Chart != "cache" || !errors.As(err, &de) || de.Chart != "app" || de.Name != "cache" {
		t.Errorf("got %v", err)
	}
	changed = slices.Clone(want)
	changed[0].Version = "2.0.0" // Chart.yaml has changed since
	var ve *VersionError
	if _, err := s.Fetch(t.Context(), Location{Path: dir, Dependencies: changed}); !errors.As(err, &ve) || ve.Want != "^1.0" || ve.Have[0] != "2.0.0" {
		t.Errorf("got %v", err)
	}
}

// lockOf makes Chart.lock as helm dependency update does.
func lockOf(t testing.TB, chartYAML string, locked ...*chartv2.Dependency) string {
	t.Helper()
	ch, err := loadDir(writeChart(t, map[string]string{"Chart.yaml": chartYAML}))
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal([2][]*chartv2.Dependency{ch.Metadata.Dependencies, locked})
	if err != nil {
		t.Fatal(err)
	}
	lock, err := json.Marshal(chartv2.Lock{Digest: digestOf(data), Dependencies: locked})
	if err != nil {
		t.Fatal(err)
	}
	return string(lock)
}

func TestChartLock(t *testing.T) {
	s := newSources(t)
	for _, v := range []string{"1.0.0", "1.4.0"} {
		s.repo.publish(echoing(t, "web", v), "web", v)
	}
	repo := s.repo.URL + "/charts"
	deps := dependsOn(fmt.Sprintf(`{name: web, version: "^1.0", repository: %q}`, repo))
	chartYAML := "apiVersion: v2\nname: app\nversion: 1.0.0\n" + deps
	locked := &chartv2.Dependency{Name: "web", Version: "1.0.0", Repository: repo}
	lock := lockOf(t, chartYAML, locked)
	fetch := func(name, deps, lock string, more map[string]string) (*Fetched, error) {
		files := map[string]string{"Chart.lock": lock}
		for k, v := range more {
			files[k] = v
		}
		return s.Fetch(t.Context(), Location{Path: s.write(t, name, "1.0.0", deps, files)})
	}
	got, err := fetch("locked", deps, lock, nil)
	if err != nil || got.Dependencies[0].Version != "1.0.0" {
		t.Errorf("got %+v %v", got, err)
	}
	for name, c := range map[string][2]string{
		"range":   {strings.ReplaceAll(deps, "^1.0", "^1.1"), lock},
		"digest":  {deps, strings.Replace(lock, "sha256:", "sha256:0", 1)},
		"version": {deps, strings.Replace(lock, `"version":"1.0.0"`, `"version":"1.4.0"`, 1)},
		"empty":   {deps, "{}"},
		"missing": {deps, `{"dependencies":[]}`},
		"nothing": {deps, `{"dependencies":[null]}`},
	} {
		_, err := fetch(name, c[0], c[1], nil)
		var de *DependencyError
		if !errors.As(err, &de) || !errors.Is(err, errLock) || de.Chart != name {
			t.Errorf("%s: got %v", name, err)
		}
	}
	// Nothing is fetched by this lock, so it does not count, as with helm package.
	if got, err := fetch("present", deps, "{}", map[string]string{"charts/web/Chart.yaml": "apiVersion: v2\nname: web\nversion: 1.2.0\n"}); err != nil || len(got.Dependencies) != 0 {
		t.Errorf("got %+v %v", got, err)
	}

	// Charts of Helm 2 have both in files of their own, and a lock made of the one alone.
	reqs := &chartv2.Dependency{Name: "web", Version: "^1.0", Repository: repo}
	data, err := json.Marshal(map[string]any{"dependencies": []*chartv2.Dependency{reqs}})
	if err != nil {
		t.Fatal(err)
	}
	old, err := json.Marshal(chartv2.Lock{Digest: digestOf(data), Dependencies: []*chartv2.Dependency{locked}})
	if err != nil {
		t.Fatal(err)
	}
	dir := writeChart(t, map[string]string{
		"Chart.yaml": "apiVersion: v1\nname: app\nversion: 1.0.0\n", "requirements.yaml": deps, "requirements.lock": string(old),
	})
	if got, err := s.Fetch(t.Context(), Location{Path: dir}); err != nil || got.Dependencies[0].Version != "1.0.0" {
		t.Errorf("got %+v %v", got, err)
	}
}

// The digest is that of TestHashReq in Helm's internal/resolver.
func TestLockDigestIsThatOfHelm(t *testing.T) {
	dep := &chartv2.Dependency{Name: "alpine", Version: "0.1.0", Repository: "http://localhost:8879/charts"}
	ch := &chartv2.Chart{
		Metadata: &chartv2.Metadata{APIVersion: chartv2.APIVersionV2, Name: "app", Version: "1.0.0", Dependencies: []*chartv2.Dependency{dep}},
		Lock:     &chartv2.Lock{Dependencies: []*chartv2.Dependency{dep}, Digest: "sha256:fb239e836325c5fa14b29d1540a13b7d3ba13151b67fe719f820e0ef6d66aaaf"},
	}
	if err := checkLock(ch); err != nil {
		t.Error(err)
	}
}

func TestDependencyErrors(t *testing.T) {
	s := newSources(t)
	s.repo.publish(echoing(t, "web", "1.0.0"), "web", "1.0.0")
	s.repo.publish(echoing(t, "web", "2.0.0-rc.1"), "web", "2.0.0-rc.1")
	// Archives as nobody should publish them.
	incomplete := packFiles(t, "half", map[string]string{"Chart.yaml": "apiVersion: v2\nname: half\nversion: 1.0.0\n" + dependsOn(`{name: web, version: "1", repository: "https://chart.invalid"}`)})
	s.repo.publish(incomplete, "half", "1.0.0")
	s.write(t, "other", "1.0.0", "", nil)
	s.write(t, "left", "1.0.0", dependsOn(`{name: right, version: "1.0.0", repository: "file://../right"}`), nil)
	s.write(t, "right", "1.0.0", dependsOn(`{name: left, version: "1.0.0", repository: "file://../left"}`), nil)
	for i := range maxDirectories + 2 {
		s.write(t, fmt.Sprintf("d%d", i), "1.0.0", dependsOn(fmt.Sprintf(`{name: d%d, version: "1.0.0", repository: "file://../d%[1]d"}`, i+1)), nil)
	}
	repo := s.repo.URL + "/charts"
	as := func(target any) func(error) bool { return func(err error) bool { return errors.As(err, target) } }
	var (
		missing *MissingDependenciesError
		version *VersionError
		load    *LoadError
		failed  *RepositoryError
		ranged  *RangeError
	)
	tests := []struct {
		name, dep string
		is        func(error) bool
		want      string
	}{
		{"at name", `{name: web, version: "1", repository: "@stable"}`, nil, `repository "@stable" is a name that only the Helm of one machine knows; write the address`},
		{"alias", `{name: web, version: "1", repository: "alias:stable"}`, nil, `repository "alias:stable" is a name`},
		{"scheme", `{name: web, version: "1", repository: "s3://bucket"}`, as(&failed), `scheme "s3"`},
		{"version", fmt.Sprintf(`{name: web, version: "^3", repository: %q}`, repo), as(&version), `want version "^3", got 2.0.0-rc.1, 1.0.0`},
		{"no version", fmt.Sprintf(`{name: web, repository: %q}`, repo), nil, "no version is given"},
		{"range", fmt.Sprintf(`{name: web, version: "new", repository: %q}`, repo), as(&ranged), `version range "new"`},
		{"name", fmt.Sprintf(`{name: wob, version: "1", repository: %q}`, repo), as(&version), "none at all"},
		{"half a chart", fmt.Sprintf(`{name: half, version: "1", repository: %q}`, repo), as(&missing), "missing from its charts directory: web"},
		{"no directory", `{name: web, version: "1", repository: "file://../nothing"}`, func(err error) bool { return errors.Is(err, fs.ErrNotExist) }, "nothing"},
		{"no chart", `{name: web, version: "1", repository: "file://.."}`, as(&load), "Chart.yaml"},
		{"a file", `{name: web, version: "1", repository: "file://./Chart.yaml"}`, nil, "not a directory"},
		{"another name", `{name: web, version: "1", repository: "file://../other"}`, nil, `got chart "other"`},
		{"another version", `{name: other, version: "2", repository: "file://../other"}`, as(&version), `want version "2", got 1.0.0`},
		{"itself", `{name: itself, version: "1.0.0", repository: "file://."}`, as(&load), "in a circle"},
		{"circle", `{name: left, version: "1.0.0", repository: "file://../left"}`, as(&load), "in a circle: "},
		{"too deep", `{name: d0, version: "1.0.0", repository: "file://../d0"}`, as(&load), "more than 16 deep"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := s.write(t, "app", "1.0.0", dependsOn(tt.dep), nil)
			_, err := s.Fetch(t.Context(), Location{Path: dir})
			var de *DependencyError
			if !errors.As(err, &de) || de.Chart != "app" || tt.is != nil && !tt.is(err) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("nowhere", func(t *testing.T) {
		dir := s.write(t, "app", "1.0.0", dependsOn(`{name: web, version: "1"}`, `{name: db, version: "1"}`), nil)
		if _, err := s.Fetch(t.Context(), Location{Path: dir}); !errors.As(err, &missing) || !slices.Equal(missing.Missing, []string{"web", "db"}) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("an old one in charts", func(t *testing.T) {
		dir := s.write(t, "stale", "1.0.0", dependsOn(fmt.Sprintf(`{name: web, version: "^1", repository: %q}`, repo)),
			map[string]string{"charts/web/Chart.yaml": "apiVersion: v2\nname: web\nversion: 0.9.0\n"})
		if _, err := s.Fetch(t.Context(), Location{Path: dir}); !errors.As(err, &version) || version.Have[0] != "0.9.0" || !strings.Contains(err.Error(), "helm dependency update") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("an archive", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "half.tgz")
		if err := os.WriteFile(path, incomplete, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Fetch(t.Context(), Location{Path: path}); !errors.As(err, &missing) || missing.Chart != "half" {
			t.Errorf("got %v", err)
		}
	})
}

// packFiles makes an archive that Load would refuse to make.
func packFiles(t testing.TB, name string, files map[string]string) []byte {
	t.Helper()
	ch, err := loadDir(writeChart(t, files))
	if err != nil {
		t.Fatal(err)
	}
	archive, err := pack(ch, nil)
	if err != nil || ch.Name() != name {
		t.Fatal(err)
	}
	return archive
}

func TestFetchPath(t *testing.T) {
	f := &Fetcher{}
	dir, err := f.Fetch(t.Context(), Location{Path: shopDir})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(dir.Archive, mustLoad(t, shopDir).Archive) || dir.Source != "" || dir.OCI != nil || dir.Dependencies != nil {
		t.Errorf("got %+v", dir)
	}
	tgz := filepath.Join(t.TempDir(), "shop.tgz")
	if err := os.WriteFile(tgz, dir.Archive, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{shopDir, tgz} {
		for ask, ok := range map[string]bool{"": true, "1.2.3": true, "^1.2": true, "v1.2.3": true, "1.2.4": false, "<1": false} {
			_, err := f.Fetch(t.Context(), Location{Path: path, Version: ask, Pinned: digestOf(dir.Archive)})
			var ve *VersionError
			if ok && err != nil || !ok && (!errors.As(err, &ve) || ve.Chart != "shop" || ve.Want != ask || !slices.Equal(ve.Have, []string{"1.2.3"})) {
				t.Errorf("%q: got %v", ask, err)
			}
		}
		var pe *PinError
		if _, err := f.Fetch(t.Context(), Location{Path: path, Pinned: digestOf(nil)}); !errors.As(err, &pe) {
			t.Errorf("got %v", err)
		}
	}
	var le *LoadError
	if _, err := f.Fetch(t.Context(), Location{Path: "nothing"}); !errors.As(err, &le) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	var lib *LibraryError
	library := writeChart(t, map[string]string{"Chart.yaml": "apiVersion: v2\nname: lib\nversion: 1.0.0\ntype: library\n"})
	if _, err := f.Fetch(t.Context(), Location{Path: library}); !errors.As(err, &lib) || lib.Chart != "lib" {
		t.Errorf("got %v", err)
	}
	for _, l := range []Location{{}, {Path: "a", OCI: "b"}, {Repo: "a"}, {Name: "a"}, {Path: "a", Repo: "b", Name: "c"}, {OCI: "a", Name: "b"}} {
		var ae *AmbiguousError
		if _, err := f.Fetch(t.Context(), l); !errors.As(err, &ae) || len(ae.Named) == 1 && l.Repo+l.Name == "" {
			t.Errorf("%+v: got %v", l, err)
		}
	}
}
