package bundle_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/sealift/sealift/bundle"
	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/internal/strictyaml"
	"github.com/sealift/sealift/manifest"
)

var updateLock = flag.Bool("update-lock", false, "write testdata/golden.lock anew")

// digest is a digest that tests can tell from others.
func digest(c string) string { return "sha256:" + strings.Repeat(c, 64) }

const (
	indexType    = "application/vnd.oci.image.index.v1+json"
	manifestType = "application/vnd.oci.image.manifest.v1+json"
)

// fullLock has everything that a lock can have; not in its order.
func fullLock() *bundle.Lock {
	return &bundle.Lock{
		Created: "2026-11-20T10:00:00Z",
		Images: []bundle.LockedImage{
			{
				Ref: "registry.example.com:5000/shop/web:1.3", Digest: digest("1"), MediaType: indexType, Size: 1609,
				// The order is the index's.
				Platforms: []bundle.LockedPlatform{{Platform: "linux/arm64", Digest: digest("3")}, {Platform: "linux/amd64", Digest: digest("2")}},
				Referrers: []manifest.Referrer{
					{Digest: digest("5"), MediaType: manifestType, Size: 700, Subject: digest("1"), Tag: manifest.ReferrerTag(digest("1"), ".sig")},
					{Digest: digest("4"), MediaType: manifestType, Size: 701, Subject: digest("2"), ArtifactType: "application/spdx+json"},
					{Digest: digest("6"), MediaType: manifestType, Size: 702, Subject: digest("4"), ArtifactType: "application/vnd.dev.sigstore.bundle.v0.3+json"},
				},
			},
			{Ref: "docker.io/library/redis:7@" + digest("7"), Digest: digest("7"), MediaType: manifestType, Size: 1002, Platform: "linux/amd64", Dropped: true},
			{Ref: "registry.example.com/shop/tool:dev", OCI: "./build/tool image.tar", Digest: digest("8"), MediaType: manifestType, Size: 420, Platform: "linux/arm/v7"},
		},
		Artifacts: []bundle.LockedImage{
			{Ref: "registry.example.com/models/rank:v2", Digest: digest("9"), MediaType: manifestType, Size: 512},
		},
		Charts: []bundle.LockedChart{
			{
				Chart: "https://charts.example.com/stable redis", Release: "shop/redis", Range: ">=18.0.0 <19", Version: "18.4.0", Digest: digest("a"),
			},
			{
				Chart: "./charts/shop", Release: "shop/shop", Version: "1.2.3", Digest: digest("b"),
				Dependencies: []chart.Dependency{{Name: "common", Version: "2.13.3", Repository: "oci://registry.example.com/charts", Digest: digest("c")}},
			},
			{
				Chart: "oci://registry.example.com/charts/agent", Release: "agents/agent", Range: "1.10", Version: "1.10", Digest: digest("d"), Manifest: digest("e"),
				Referrers: []manifest.Referrer{{Digest: digest("f"), MediaType: manifestType, Size: 703, Subject: digest("e"), Tag: manifest.ReferrerTag(digest("e"), ".att")}},
			},
		},
		Files: []bundle.LockedFile{
			{Path: "values.yaml", Digest: digest("0")},
			{Path: "docs/Übersicht.md", Digest: digest("1")},
			{Path: "no", Digest: digest("2")},
			{Path: `a "quoted" name: #1`, Digest: digest("3")},
			{Path: "007", Digest: digest("4")},
			{Path: "values.yaml", Digest: digest("0")}, // used for two things
		},
	}
}

func encodeLock(t *testing.T, l *bundle.Lock) []byte {
	t.Helper()
	raw, err := l.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func parseLock(t *testing.T, raw []byte) *bundle.Lock {
	t.Helper()
	l, problems := bundle.ParseLock(raw)
	if len(problems) > 0 {
		t.Fatalf("%s\n%s", strictyaml.Format("lock", problems), raw)
	}
	return l
}

// sameLock compares what is in two locks.
func sameLock(a, b *bundle.Lock) bool {
	return a.Created == b.Created && reflect.DeepEqual(a.Images, b.Images) && reflect.DeepEqual(a.Artifacts, b.Artifacts) &&
		reflect.DeepEqual(a.Charts, b.Charts) && reflect.DeepEqual(a.Files, b.Files)
}

func TestLockGolden(t *testing.T) {
	full := fullLock()
	raw := encodeLock(t, full)
	if full.Images[0].Ref != "registry.example.com:5000/shop/web:1.3" {
		t.Error("encoding sorts the lock that it is given")
	}
	golden := filepath.Join("testdata", "golden.lock")
	if *updateLock {
		if err := os.WriteFile(golden, raw, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(raw, want) {
		t.Fatalf("got\n%s\nwant\n%s", raw, want)
	}
	l := parseLock(t, raw)
	if again := encodeLock(t, l); !bytes.Equal(again, raw) {
		t.Errorf("not a fixed point:\n%s", again)
	}
	if d := bundle.CompareLocks(full, l); d.Changed() {
		t.Errorf("something is lost: %q", d.Lines())
	}
	// People whose checkout has other ends of lines, or who put the items in another order.
	if crlf := parseLock(t, bytes.ReplaceAll(raw, []byte("\n"), []byte("\r\n"))); !sameLock(crlf, l) {
		t.Error("with CRLF it is another lock")
	}
}

func TestLockOfNothing(t *testing.T) {
	l := &bundle.Lock{Created: "2026-11-20T10:00:00Z"}
	if got := parseLock(t, encodeLock(t, l)); !sameLock(got, l) {
		t.Errorf("got %+v", got)
	}
}

const lockStart = "apiVersion: sealift/v1\nkind: Lock\ncreated: 2026-11-20T10:00:00Z\n"

func TestLockProblems(t *testing.T) {
	d := digest("a")
	image := func(more string) string {
		return lockStart + "images:\n  - ref: r.example/a:1\n    digest: " + d + "\n    mediaType: " + manifestType + "\n    size: 5\n" + more
	}
	single := "    platform: linux/amd64\n"
	for _, c := range []struct{ raw, want string }{
		{"", "f: is empty"},
		{"[", "f:1: did not find expected node content"},
		{strings.Repeat("#", bundle.MaxLockBytes+1), "f: more than 16777216 bytes"},
		{"apiVersion: sealift/v1\nkind: Bundle\nname: shop\n", `f: kind "Bundle", want "Lock"`},
		{"apiVersion: sealift/v2\nkind: Lock\nnews: 1\n", `f: apiVersion "sealift/v2" is of another version of sealift, this one reads "sealift/v1"`},
		{"apiVersion: v1\nkind: Lock\n", `f: apiVersion "v1", this version reads "sealift/v1"`},
		{"{created: 2026-11-20T10:00:00Z}", "f:1: apiVersion \"\", this version reads \"sealift/v1\"\nf:1: kind \"\", want \"Lock\""},
		{"apiVersion: sealift/v1\nkind: Lock\n", `f:1: created: time "" is not in UTC and written as 2026-01-02T03:04:05Z`},
		{"apiVersion: sealift/v1\nkind: Lock\ncreated: 2026-11-20\n", `f:3: created: time "2026-11-20" is not in UTC and written as 2026-01-02T03:04:05Z`},
		{lockStart + "more: 1\n", `f:4: unknown key "more"; known here: apiVersion, kind, created, images, artifacts, charts, files`},
		{lockStart + "images: []\n", "f:4: images is empty; leave it out, or say what is meant"},
		{lockStart + "files: &a\n  - path: x\n", "f:4: files has the anchor &a; aliases are not read, leave it out"},
		{
			lockStart + "<<<<<<< HEAD\nfiles:\n=======\ncharts:\n>>>>>>> theirs\n",
			"f:4: a merge conflict is left here (<<<<<<<): take one of the sides, then lock again\n" +
				"f:6: a merge conflict is left here (=======): take one of the sides, then lock again\n" +
				"f:8: a merge conflict is left here (>>>>>>>): take one of the sides, then lock again",
		},

		{image(""), `f:5: image "r.example/a:1": neither platform nor platforms`},
		{image("    platform: linux\n"), `f:5: image "r.example/a:1": platform "linux" is not written as os/arch or os/arch/variant`},
		{image(single + "    platforms:\n      - platform: linux/arm64\n        digest: " + digest("b") + "\n"), `f:5: image "r.example/a:1": both platform and platforms`},
		{image("    platforms:\n      - platform: linux/arm64\n        digest: " + d + "\n"), `f:5: image "r.example/a:1": ` + d + " twice"},
		{image(single + "    platform: linux/amd64\n"), `f:10: "images[0].platform" stands here for the second time, first on line 9`},
		{image(single + "    oci: \"\"\n"), "f:10: images[0].oci is empty; leave it out, or say what is meant"},
		{image(single + "    oci: \"a\\eb\"\n"), `f:5: image "r.example/a:1": oci "a\x1bb" holds characters that cannot be shown`},
		{image(single + "    oci: " + strings.Repeat("a", 4097) + "\n"), `f:5: image "r.example/a:1": oci has 4097 bytes, at most 4096 are allowed`},
		{image(single + "    referrersDropped: yes\n"), `f:10: images[0].referrersDropped: "yes" is neither true nor false`},
		{strings.Replace(image(single), "size: 5", "size: 0", 1), `f:5: image "r.example/a:1": ` + d + ": size 0 is not from 1 to 4194304"},
		{strings.Replace(image(single), "size: 5", "size: 5.0", 1), `f:8: images[0].size: "5.0" is not a whole number in plain digits`},
		{strings.Replace(image(single), "sha256", "sha512", 1), `f:5: image "r.example/a:1": digest "sha512` + d[6:] + `" is not sha256: and 64 lower-case hex digits`},
		{strings.Replace(image(single), manifestType, "json", 1), `f:5: image "r.example/a:1": ` + d + `: media type "json" is malformed`},
		{strings.Replace(image(single), "r.example/a:1", "nginx", 1), `f:5: image "nginx": image reference "nginx" names no registry`},
		{strings.Replace(image(single), "r.example/a:1", "r.example/a", 1), `f:5: image "r.example/a": it is written "r.example/a:latest" in full`},
		{strings.Replace(image(single), "r.example/a:1", "r.example/a@"+digest("b"), 1), `f:5: image "r.example/a@` + digest("b") + `": pinned to another digest than ` + d},
		{image(single) + strings.SplitAfterN(image(single), "images:\n", 2)[1], `f:10: image "r.example/a:1" stands here for the second time`},
		{image(single + "    referrersDropped: true\n    referrers:\n      - digest: " + d + "\n"), `f:5: image "r.example/a:1": referrers where referrers were dropped`},
		{image(single + "    referrers:\n      - digest: " + d + "\n        mediaType: a/b\n        size: 1\n        subject: " + digest("b") + "\n"), `f:5: image "r.example/a:1": referrer ` + d + ` is about "` + digest("b") + `", which does not stand before it`},
		{image(single + "    referrers:\n      - digest: " + digest("b") + "\n        mediaType: a/b\n        size: 1\n        subject: " + d + "\n        tag: latest\n"), `f:5: image "r.example/a:1": referrer ` + digest("b") + `: tag "latest" is not made from the digest of its subject`},

		{lockStart + "charts:\n  - release: shop\n    chart: x\n    version: 1.0.0\n    digest: " + d + "\n", `f:5: chart "shop": release "" is not made of lower-case letters, digits and dashes (at most 53)`},
		{lockStart + "charts:\n  - release: a/b\n", "f:5: chart \"a/b\": chart is missing\nversion is missing\ndigest \"\" is not sha256: and 64 lower-case hex digits"},
		{lockStart + "charts:\n  - release: a/b\n    chart: x\n    version: 1.0.0\n    digest: " + d + "\n    manifest: x\n", `f:5: chart "a/b": manifest: digest "x" is not sha256: and 64 lower-case hex digits`},
		{lockStart + "charts:\n  - release: a/b\n    chart: x\n    version: 1.0.0\n    digest: " + d + "\n    dependencies:\n      - name: c\n        digest: " + d + "\n", `f:5: chart "a/b": dependency "c": version is missing`},
		{lockStart + "files:\n  - path: a\n    digest: " + d + "\n  - path: a\n    digest: " + d + "\n", `f:7: file "a" stands here for the second time`},
		{lockStart + "files:\n  - path: \"a\\u202eb\"\n    digest: " + d + "\n", "f:5: file \"a\\u202eb\": path \"a\\u202eb\" holds characters that cannot be shown"},
	} {
		l, problems := bundle.ParseLock([]byte(c.raw))
		if got := strictyaml.Format("f", problems); got != c.want || l != nil {
			t.Errorf("%.300s\ngot  %s\nwant %s", c.raw, got, c.want)
		}
	}
}

func TestLockIsBounded(t *testing.T) {
	for name, raw := range map[string]string{
		"items":     "files: [" + strings.Repeat(",", 3<<20),
		"lists":     strings.Repeat("- ", 3<<20),
		"lines":     strings.Repeat("a\n", 3<<20),
		"conflicts": strings.Repeat("=======\n", 1<<20),
		"files":     lockStart + "files:\n" + strings.Repeat("  - path: a\n", manifest.MaxFiles+1),
		"problems":  lockStart + "files:\n" + strings.Repeat("  - path: a\n", 1000),
	} {
		if l, problems := bundle.ParseLock([]byte(raw)); l != nil || len(problems) == 0 || len(problems) > 33 {
			t.Errorf("%s: %d problems, %+.200v", name, len(problems), problems)
		}
	}
}

func TestEncodeRefuses(t *testing.T) {
	for name, change := range map[string]func(*bundle.Lock){
		"time":          func(l *bundle.Lock) { l.Created = "" },
		"image twice":   func(l *bundle.Lock) { l.Images = append(l.Images, l.Images[0]) },
		"release twice": func(l *bundle.Lock) { l.Charts = append(l.Charts, l.Charts[0]) },
		"two digests": func(l *bundle.Lock) {
			l.Files = append(l.Files, bundle.LockedFile{Path: "values.yaml", Digest: digest("b")})
		},
		"text":              func(l *bundle.Lock) { l.Files[0].Path = "a\nb" },
		"no UTF-8":          func(l *bundle.Lock) { l.Charts[0].Chart = "a\xff" },
		"subject elsewhere": func(l *bundle.Lock) { l.Charts[0].Referrers = l.Charts[2].Referrers },
	} {
		l := fullLock()
		change(l)
		if raw, err := l.Encode(); err == nil || raw != nil {
			t.Errorf("%s: no error", name)
		}
		path := filepath.Join(t.TempDir(), "sealift.lock")
		if err := l.Write(path); err == nil {
			t.Errorf("%s: written", name)
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: left %v", name, err)
		}
	}
}

func TestReadLock(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "sealift.lock")
	_, err := bundle.ReadLock(path)
	var none *bundle.NoLockError
	if !errors.As(err, &none) || none.Path != path || !errors.Is(err, fs.ErrNotExist) || err.Error() != fmt.Sprintf("there is no lock %q", path) {
		t.Errorf("no file: %v", err)
	}
	if _, err := bundle.ReadLock(dir); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory: %v", err)
	}
	write(t, path, lockStart+"more: 1\n")
	_, err = bundle.ReadLock(path)
	var bad *bundle.LockError
	if !errors.As(err, &bad) || bad.Path != path || !strings.HasPrefix(err.Error(), path+`:4: unknown key "more"`) {
		t.Errorf("unknown key: %v", err)
	}
	write(t, path, strings.Repeat("\n", bundle.MaxLockBytes+1))
	if _, err := bundle.ReadLock(path); !errors.As(err, &bad) || bad.Problems[0].Text != "more than 16777216 bytes" {
		t.Errorf("too large: %v", err)
	}
}

func TestIsLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for raw, want := range map[string]bool{
		string(encodeLock(t, fullLock())):                                     true,
		"\ufeffkind: 'Lock' # ours\r\napiVersion: \"sealift/v9\"\r\nx: [":     true,
		"apiVersion: sealift/v1\nkind: Bundle\n":                              false,
		"apiVersion: other/v1\nkind: Lock\n":                                  false,
		"images:\n  kind: Lock\n  apiVersion: sealift/v1\n":                   false,
		strings.Repeat("#\n", 1<<20) + "apiVersion: sealift/v1\nkind: Lock\n": false,
		"": false, "\x28\xb5\x2f\xfd": false,
	} {
		write(t, path, raw)
		if got := bundle.IsLock(path); got != want {
			t.Errorf("%.60q: got %v", raw, got)
		}
	}
	if bundle.IsLock(filepath.Dir(path)) || bundle.IsLock(path+"x") {
		t.Error("a directory, or nothing, is a lock")
	}
}

func TestLockPath(t *testing.T) {
	for spec, want := range map[string]string{
		"sealift.yaml": "sealift.lock", "a.b/shop.yml": "a.b/shop.lock", "a.b/shop": "a.b/shop.lock", "./x.y.yaml": "./x.y.lock",
	} {
		if got := bundle.LockPath(spec); got != want {
			t.Errorf("%s: got %s, want %s", spec, got, want)
		}
	}
}

func TestWriteLock(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "sealift.lock")
	if err := fullLock().Write(path); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(first, encodeLock(t, fullLock())) {
		t.Fatalf("wrote %v:\n%s", err, first)
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	later := fullLock()
	later.Created = "2026-11-21T00:00:00Z"
	if err := later.Write(path); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(path)
	if err != nil || !os.SameFile(before, after) || later.Created != "2026-11-20T10:00:00Z" {
		t.Errorf("nothing but the time differs: %v, same file %v, created %s", err, os.SameFile(before, after), later.Created)
	}
	// Written by hand with the same content: it gets its form, and keeps its time.
	write(t, path, "# ours\n"+string(first))
	later.Created = "2026-11-22T00:00:00Z"
	if err := later.Write(path); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, first) {
		t.Errorf("%v:\n%s", err, got)
	}
	later.Files[0].Digest, later.Files[5].Digest = digest("d"), digest("d")
	later.Created = "2026-11-23T00:00:00Z"
	if err := later.Write(path); err != nil {
		t.Fatal(err)
	}
	if got, err := bundle.ReadLock(path); err != nil || got.Created != "2026-11-23T00:00:00Z" || got.File("values.yaml").Digest != digest("d") {
		t.Errorf("%v: %+v", err, got)
	}
	// What is no lock any more is replaced.
	write(t, path, "<<<<<<< HEAD\n")
	if err := later.Write(path); err != nil {
		t.Fatal(err)
	}
	if _, err := bundle.ReadLock(path); err != nil {
		t.Error(err)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 1 {
		t.Errorf("left beside it: %v, %v", names, err)
	}
}

func TestWriteLockFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "sealift.lock")
	// A directory in its place lets the renaming fail, after all was written.
	if err := os.MkdirAll(filepath.Join(path, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := fullLock().Write(path); err == nil || !strings.Contains(err.Error(), "writing lock") {
		t.Errorf("over a directory: %v", err)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 1 {
		t.Errorf("left beside it: %v, %v", names, err)
	}
	if err := fullLock().Write(filepath.Join(dir, "none", "sealift.lock")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("into a directory that is not there: %v", err)
	}
	if runtime.GOOS == "windows" || os.Geteuid() == 0 {
		return // rights do not bind
	}
	closed := filepath.Join(t.TempDir(), "closed")
	old := filepath.Join(closed, "sealift.lock")
	if err := os.Mkdir(closed, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, old, "before")
	if err := os.Chmod(closed, 0o555); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(closed, 0o755) })
	if err := fullLock().Write(old); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("into a directory that cannot be written to: %v", err)
	}
	if raw, err := os.ReadFile(old); err != nil || string(raw) != "before" {
		t.Errorf("%v: %q", err, raw)
	}
}

func TestLockLookups(t *testing.T) {
	l := fullLock()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if img := l.Image("registry.example.com:5000/shop/web:1.3"); img != &l.Images[0] {
				t.Errorf("image: %+v", img)
			}
		})
	}
	wg.Wait()
	for what, ok := range map[string]bool{
		"image of an artifact":  l.Image("registry.example.com/models/rank:v2") == nil,
		"artifact":              l.Artifact("registry.example.com/models/rank:v2") == &l.Artifacts[0],
		"artifact of an image":  l.Artifact("registry.example.com:5000/shop/web:1.3") == nil,
		"reference in short":    l.Image("redis:7@"+digest("7")) == &l.Images[1],
		"no reference":          l.Image("A B") == nil,
		"chart":                 l.Chart("./charts/shop", "shop/shop") == &l.Charts[1],
		"chart without release": l.Chart("./charts/shop", "") == &l.Charts[1],
		"chart of another":      l.Chart("./charts/shop", "shop/redis") == nil,
		"other chart":           l.Chart("./charts/other", "shop/shop") == nil,
		"file":                  l.File("no") == &l.Files[2],
		"no file":               l.File("yes") == nil,
		"nil lock":              (*bundle.Lock)(nil).Image("a") == nil && (*bundle.Lock)(nil).Artifact("a") == nil && (*bundle.Lock)(nil).Chart("a", "b") == nil && (*bundle.Lock)(nil).File("a") == nil,
	} {
		if !ok {
			t.Error(what)
		}
	}
	two := &bundle.Lock{Charts: []bundle.LockedChart{{Chart: "c", Release: "a/c"}, {Chart: "c", Release: "b/c"}}}
	if two.Chart("c", "") != nil || two.Chart("c", "b/c") != &two.Charts[1] {
		t.Error("one of two releases is taken")
	}
}

func TestLockWithout(t *testing.T) {
	for _, c := range []struct {
		names string
		gone  string
	}{
		{"registry.example.com:5000/shop/web:1.3", "registry.example.com:5000/shop/web:1.3"},
		{"registry.example.com:5000/shop/web", "registry.example.com:5000/shop/web:1.3"},
		{"docker.io/library/redis:7", "docker.io/library/redis:7@" + digest("7")},
		{"registry.example.com/models/rank", "registry.example.com/models/rank:v2"},
		{"registry.example.com/*/*", "registry.example.com/models/rank:v2 registry.example.com/shop/tool:dev"},
		{"registry.example.com**", "registry.example.com/models/rank:v2 registry.example.com/shop/tool:dev"},
		{"docker.io/library/redis:*", "docker.io/library/redis:7@" + digest("7")},
		{"shop/shop", "shop/shop"},
		{"shop/*", "shop/redis shop/shop"},
		{"redis", "shop/redis"},
		{"agent", "agents/agent"},
		{"oci://registry.example.com/charts/agent", "agents/agent"},
		{"charts/shop", "shop/shop"},
		{"https://charts.example.com/stable redis", "shop/redis"},
		{"./values.yaml", "values.yaml values.yaml"},
		{"docs", "docs/Übersicht.md"},
		{"docs/", "docs/Übersicht.md"},
		{"docs/*", "docs/Übersicht.md"},
		{"no|007|redis", "007 no shop/redis"},
	} {
		full := fullLock()
		rest, err := full.Without(strings.Split(c.names, "|"))
		if err != nil {
			t.Errorf("%s: %v", c.names, err)
			continue
		}
		var gone []string
		for _, i := range append(append([]bundle.LockedImage{}, full.Images...), full.Artifacts...) {
			if rest.Image(i.Ref) == nil && rest.Artifact(i.Ref) == nil {
				gone = append(gone, i.Ref)
			}
		}
		for _, i := range full.Charts {
			if rest.Chart(i.Chart, i.Release) == nil {
				gone = append(gone, i.Release)
			}
		}
		for _, f := range full.Files {
			if rest.File(f.Path) == nil {
				gone = append(gone, f.Path)
			}
		}
		want := map[string]bool{}
		for _, w := range strings.Fields(c.gone) {
			want[w] = true
		}
		for _, g := range gone {
			if !want[g] {
				t.Errorf("%s: %s is gone", c.names, g)
			}
		}
		if len(gone) != len(strings.Fields(c.gone)) || rest.Created != "" || !sameLock(full, fullLock()) {
			t.Errorf("%s: gone are %v, created %q", c.names, gone, rest.Created)
		}
	}
	if rest, err := fullLock().Without(nil); err != nil || !sameLock(rest, &bundle.Lock{}) {
		t.Errorf("without everything: %v, %+v", err, rest)
	}
}

func TestLockWithoutUnknown(t *testing.T) {
	for name, want := range map[string]string{
		"web":                     `nothing in the lock is called "web"; did you mean registry.example.com:5000/shop/web:1.3?`,
		"rediss":                  `nothing in the lock is called "rediss"; did you mean docker.io/library/redis:7@` + digest("7") + ` or shop/redis?`,
		"valeus.yaml":             `nothing in the lock is called "valeus.yaml"; did you mean values.yaml?`,
		"registry.example/*":      `nothing in the lock is called "registry.example/*"`,
		"":                        `nothing in the lock is called ""`,
		strings.Repeat("a", 5000): `nothing in the lock is called "` + strings.Repeat("a", 5000) + `"`,
	} {
		_, err := fullLock().Without([]string{"no", name})
		var unknown *bundle.UnknownLockedError
		if !errors.As(err, &unknown) || unknown.Name != name || err.Error() != want {
			t.Errorf("%.40q: got %v\nwant %s", name, err, want)
		}
	}
	var bad *bundle.PatternError
	if _, err := fullLock().Without([]string{strings.Repeat("*", 1000)}); !errors.As(err, &bad) {
		t.Errorf("a long pattern: %v", err)
	}
}

func TestStaleLock(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(now *bundle.Lock)
		want   string
	}{
		{"nothing", func(*bundle.Lock) {}, ""},
		{"time and order", func(l *bundle.Lock) { l.Created, l.Images[0], l.Images[1] = "", l.Images[1], l.Images[0] }, ""},
		{"not resolved", func(l *bundle.Lock) {
			l.Images[0].Digest, l.Images[0].Platforms, l.Images[0].Referrers = "", nil, nil
			l.Charts[2].Digest, l.Charts[2].Version, l.Charts[2].Manifest, l.Charts[2].Referrers = "", "", "", nil
		}, ""},
		{"wishes only", func(l *bundle.Lock) {
			l.Images[0].Digest, l.Images[0].Referrers = "", nil
			l.Images[0].Platforms = []bundle.LockedPlatform{{Platform: "linux/amd64"}}
		}, "image registry.example.com:5000/shop/web:1.3: linux/amd64, linux/arm64 locked, now wanted: linux/amd64"},
		{"new image", func(l *bundle.Lock) { l.Images[1].Ref = "a.example/b:1" }, "image a.example/b:1 is not locked\nimage docker.io/library/redis:7@" + digest("7") + " is locked, and nothing leads to it any more"},
		{"artifact", func(l *bundle.Lock) { l.Artifacts = nil }, "artifact registry.example.com/models/rank:v2 is locked, and nothing leads to it any more"},
		{"local image", func(l *bundle.Lock) { l.Images[2].Digest = digest("b") }, "image registry.example.com/shop/tool:dev: digest sha256:888888888888… is locked, now it is sha256:bbbbbbbbbbbb…"},
		{"place", func(l *bundle.Lock) { l.Images[2].OCI = "" }, "image registry.example.com/shop/tool:dev: locked from ./build/tool image.tar, now it is from its registry"},
		{"manifests of platforms", func(l *bundle.Lock) {
			p := l.Images[0].Platforms
			p[0].Digest, p[1].Digest = p[1].Digest, p[0].Digest
		}, "image registry.example.com:5000/shop/web:1.3: other manifests are locked for its platforms"},
		{"dropped", func(l *bundle.Lock) { l.Images[1].Dropped = false }, "image docker.io/library/redis:7@" + digest("7") + ": signatures and the like stay behind as it was locked, now they travel"},
		{"referrers", func(l *bundle.Lock) { l.Images[0].Referrers = l.Images[0].Referrers[:2] }, "image registry.example.com:5000/shop/web:1.3: other signatures and the like are locked"},
		{"other chart", func(l *bundle.Lock) { l.Charts[1].Chart = "./other" }, "chart shop/shop: ./charts/shop is locked, now it is ./other"},
		{"range", func(l *bundle.Lock) { l.Charts[0].Range = "" }, "chart shop/redis: version 18.4.0 is locked for >=18.0.0 <19, now the spec wants any version"},
		{"directory", func(l *bundle.Lock) { l.Charts[1].Version, l.Charts[1].Digest = "1.2.4", digest("0") }, "chart shop/shop: version 1.2.3 is locked, now it is 1.2.4\nchart shop/shop: digest sha256:bbbbbbbbbbbb… is locked, now it is sha256:000000000000…"},
		{"dependencies", func(l *bundle.Lock) { l.Charts[1].Dependencies = nil }, "chart shop/shop: other dependencies are locked"},
		{"registry", func(l *bundle.Lock) { l.Charts[2].Manifest, l.Charts[2].Referrers = digest("0"), nil }, "chart agents/agent: manifest sha256:eeeeeeeeeeee… is locked, now it is sha256:000000000000…\nchart agents/agent: other signatures and the like are locked"},
		{"file", func(l *bundle.Lock) { l.Files[2].Digest = digest("b") }, "file no: digest sha256:222222222222… is locked, now it is sha256:bbbbbbbbbbbb…"},
		{"files", func(l *bundle.Lock) { l.Files = append(l.Files[:4], bundle.LockedFile{Path: "x", Digest: digest("0")}) }, "file 007 is locked, and nothing leads to it any more\nfile x is not locked"},
	} {
		now := fullLock()
		c.change(now)
		if got := strings.Join(fullLock().Stale(now), "\n"); got != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.name, got, c.want)
		}
	}
	e := &bundle.StaleLockError{Path: "sealift.lock", Changes: strings.Fields("a b c d e f g h i j")}
	if want := `lock "sealift.lock" is stale: a; b; c; d; e; f; g; h; and 2 more`; e.Error() != want {
		t.Errorf("got %s", e)
	}
}

func TestCompareLocks(t *testing.T) {
	old, now := fullLock(), fullLock()
	old.Images = append(old.Images,
		bundle.LockedImage{Ref: "r.example/two:1", Digest: digest("1")}, bundle.LockedImage{Ref: "r.example/two:2", Digest: digest("1")},
		bundle.LockedImage{Ref: "r.example/moved:1", Digest: digest("2"), Platform: "linux/amd64"})
	now.Images = append(now.Images,
		bundle.LockedImage{Ref: "r.example/two:3", Digest: digest("1")},
		bundle.LockedImage{Ref: "r.example/moved:2", Digest: digest("2"), Platform: "linux/amd64"})
	now.Images[0].Digest, now.Images[0].Platforms, now.Images[0].Referrers = digest("b"), now.Images[0].Platforms[:1], nil
	now.Images[1].Ref, now.Images[1].Dropped = "docker.io/library/redis:7", false
	now.Images[2].OCI = ""
	now.Artifacts[0].Size++
	now.Charts[0].Version, now.Charts[0].Digest, now.Charts[0].Range = "19.0.0", digest("0"), ">=18.0.0 <20"
	now.Charts[1].Release = "web/shop"
	now.Charts[1].Dependencies = []chart.Dependency{{Name: "common", Version: "2.14.0", Repository: "oci://registry.example.com/charts", Digest: digest("1")}, {Name: "extra", Version: "1.0.0", Digest: digest("1")}}
	now.Charts[2].Digest = digest("1")
	now.Files[2].Digest = digest("0")
	now.Files[4].Path = "008"
	d := bundle.CompareLocks(old, now)
	want := []string{
		"image r.example/two:3 is new: sha256:111111111111…",
		"image r.example/two:1 is gone",
		"image r.example/two:2 is gone",
		"image docker.io/library/redis:7@" + digest("7") + " -> docker.io/library/redis:7: signatures and the like travel",
		"image r.example/moved:1 -> r.example/moved:2",
		"image registry.example.com/shop/tool:dev: from ./build/tool image.tar -> its registry",
		"image registry.example.com:5000/shop/web:1.3: sha256:111111111111… -> sha256:bbbbbbbbbbbb…, platforms linux/amd64 linux/arm64 -> linux/arm64, signatures and the like: 3 -> 0",
		"artifact registry.example.com/models/rank:v2: details differ",
		"chart agents/agent: sha256:dddddddddddd… -> sha256:111111111111…",
		"chart shop/redis: 18.4.0 -> 19.0.0, range >=18.0.0 <19 -> >=18.0.0 <20",
		"chart shop/shop -> web/shop: dependency common 2.13.3 -> 2.14.0, dependency extra 1.0.0 is new",
		"file 008 is new",
		"file 007 is gone",
		"file no changed",
	}
	if got := d.Lines(); !reflect.DeepEqual(got, want) || !d.Changed() {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if d.Images.Unchanged != 0 || d.Files.Unchanged != 3 || d.Images.Changed[1].Repository != "r.example/moved" {
		t.Errorf("%+v", d)
	}
	same := bundle.CompareLocks(old, old)
	raw, err := json.Marshal(same)
	if err != nil || same.Changed() || same.Lines() != nil ||
		string(raw) != `{"images":{"added":[],"removed":[],"changed":[],"unchanged":6},"artifacts":{"added":[],"removed":[],"changed":[],"unchanged":1},"charts":{"added":[],"removed":[],"changed":[],"unchanged":3},"files":{"added":[],"removed":[],"changed":[],"unchanged":5}}` {
		t.Errorf("%v: %s", err, raw)
	}
}

func FuzzLock(f *testing.F) {
	full, err := fullLock().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(full)
	f.Add([]byte(lockStart))
	f.Add([]byte(lockStart + "files: [{path: \"\\u00e9 \\ufeff\\U0001F600\", digest: " + digest("a") + "}, {path: -, digest: " + digest("a") + "}]\n"))
	f.Add([]byte(lockStart + "charts:\n- {release: a/b, chart: 1.10, version: 0x1, range: '~', digest: " + digest("a") + "}\n"))
	f.Add([]byte("<<<<<<< a\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		l, problems := bundle.ParseLock(raw)
		if (l == nil) != (len(problems) > 0) {
			t.Fatalf("%v and %v", l, problems)
		}
		for _, p := range problems {
			if p.Text == "" || p.Line < 0 {
				t.Fatalf("%+v", p)
			}
		}
		if l == nil {
			return
		}
		canonical, err := l.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again := parseLock(t, canonical)
		if !sameLock(again, l) {
			t.Fatalf("another lock:\n%s", canonical)
		}
		if twice := encodeLock(t, again); !bytes.Equal(twice, canonical) {
			t.Fatalf("no fixed point:\n%s\n%s", canonical, twice)
		}
		if s := l.Stale(again); len(s) > 0 || bundle.CompareLocks(l, again).Changed() {
			t.Fatalf("differs from itself: %q", s)
		}
	})
}
