package archive_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sealift/sealift/internal/archive"
)

// tree makes empty files, by paths that end in a slash directories, below a directory.
func tree(t testing.TB, paths ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, p := range paths {
		full := filepath.Join(root, p)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(p, "/") {
			if err := os.MkdirAll(full, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		save(t, full, nil)
	}
	return root
}

// found is what Find says of paths below root: for each bundle its name, the paths of its volumes,
// then those of parity and signatures.
func found(root string, paths ...string) string {
	full := make([]string, 0, len(paths))
	for _, p := range paths {
		full = append(full, filepath.Join(root, p))
	}
	bundles, err := archive.Find(full)
	var none *archive.NoBundleError
	switch {
	case errors.As(err, &none):
		return "none in " + short(root, none.Dir)
	case errors.Is(err, os.ErrNotExist):
		return "missing"
	case err != nil:
		return err.Error()
	}
	var all []string
	for _, b := range bundles {
		s := short(root, b.Name)
		if (b.File != "") == (len(b.Volumes) > 0 || len(b.Parity) > 0 && b.File == "") {
			s += " both or neither"
		}
		if len(b.Volumes) > 0 {
			s += " in " + short(root, b.Paths()[:len(b.Volumes)]...)
		}
		if len(b.Parity) > 0 {
			s += " with " + short(root, b.Parity...)
		}
		if len(b.Detached) > 0 {
			s += " by " + short(root, b.Detached...)
		}
		all = append(all, s)
	}
	return strings.Join(all, "; ")
}

func short(root string, paths ...string) string {
	s := make([]string, 0, len(paths))
	for _, p := range paths {
		r, err := filepath.Rel(root, p)
		if err != nil {
			r = p
		}
		s = append(s, r)
	}
	return strings.Join(s, " ")
}

func TestFind(t *testing.T) {
	root := tree(t,
		"one/a.tar.zst", "one/a.tar.zst.sigstore.json", "one/a.tar.zst.par001", "one/notes.txt", "one/.hidden",
		"set/b.tar.zst.001", "set/b.tar.zst.002", "set/b.tar.zst.010", "set/b.tar.zst.par001", "set/b.tar.zst.par002",
		"set/b.tar.zst.sigstore.json", "set/b.tar.zst.003.partial", "set/b.tar.zst.partial.json", "set/b.tar.zst.1", "set/b.tar.zst.0004", "set/b.tar.zst.000",
		"disk1/c.tar.zst.001", "disk1/c.tar.zst.sigstore.json", "disk2/c.tar.zst.002", "disk3/c.tar.zst.003", "disk4/c.tar.zst.par001",
		"copy/b.tar.zst.002",
		"many/d.tar.zst", "many/e.tar.zst.001", "many/f.tar.zst", "many/f.tar.zst.001", "many/f.tar.zst.par001",
		"odd/x.001", "odd/x.002", "odd/.001",
		"empty/", "traps/g.tar.zst/", "traps/g.tar.zst.001/", "traps/h.tar.zst.001", "traps/h.tar.zst.002/",
	)
	const a = "one/a.tar.zst with one/a.tar.zst.par001 by one/a.tar.zst.sigstore.json"
	const b = "set/b.tar.zst in set/b.tar.zst.001 set/b.tar.zst.002 set/b.tar.zst.010 with set/b.tar.zst.par001 set/b.tar.zst.par002 by set/b.tar.zst.sigstore.json"
	const mixed = "set/b.tar.zst in set/b.tar.zst.001 copy/b.tar.zst.002 set/b.tar.zst.010 with set/b.tar.zst.par001 set/b.tar.zst.par002 by set/b.tar.zst.sigstore.json"
	const c = "c.tar.zst in disk1/c.tar.zst.001 disk2/c.tar.zst.002 disk3/c.tar.zst.003 with disk4/c.tar.zst.par001 by disk1/c.tar.zst.sigstore.json"
	for _, c := range []struct {
		paths []string
		want  string
	}{
		{[]string{"one/a.tar.zst"}, a},
		{[]string{"one"}, a},
		{[]string{"one", "one/a.tar.zst", "one/../one"}, a},
		{[]string{"one/notes.txt"}, "one/notes.txt"}, // who names a file means it
		{[]string{"set"}, b},
		{[]string{"set/b.tar.zst"}, b},
		{[]string{"set/b.tar.zst.001"}, b},
		{[]string{"set/b.tar.zst.010"}, b},
		{[]string{"set/b.tar.zst.010", "set", "set/b.tar.zst", "set/../set"}, b},
		{[]string{"set/b.tar.zst.1"}, "set/b.tar.zst.1"},
		{[]string{"disk1", "disk2", "disk3", "disk4"}, "disk1/" + c},
		{[]string{"disk2", "disk4", "disk3", "disk1"}, "disk2/" + c},
		{[]string{"disk4", "disk3", "disk2", "disk1"}, "disk4/" + c},
		{[]string{"disk3/c.tar.zst.003", "disk1/c.tar.zst.001", "disk2/c.tar.zst", "disk4"}, "disk3/" + c},
		{[]string{"disk4"}, "disk4/c.tar.zst with disk4/c.tar.zst.par001"},
		// Of two copies the last one counts, or the one that is named itself.
		{[]string{"set", "copy"}, mixed},
		{[]string{"set", "copy/b.tar.zst.002"}, mixed},
		{[]string{"copy", "set"}, "copy/" + b[len("set/"):]},
		{[]string{"copy/b.tar.zst.002", "set/b.tar.zst.001"}, "copy/" + mixed[len("set/"):]},
		{[]string{"copy/b.tar.zst.002", "set"}, "copy/" + mixed[len("set/"):]},
		{[]string{"copy/b.tar.zst.002", "set/b.tar.zst.002"}, "copy/" + b[len("set/"):]},
		{[]string{"many"}, "many/d.tar.zst; many/e.tar.zst in many/e.tar.zst.001; many/f.tar.zst with many/f.tar.zst.par001"},
		{[]string{"many/f.tar.zst.001"}, "many/f.tar.zst in many/f.tar.zst.001 with many/f.tar.zst.par001"},
		{[]string{"one", "set"}, a + "; " + b},
		{[]string{"odd"}, "none in odd"},
		{[]string{"odd/x"}, "odd/x in odd/x.001 odd/x.002"},
		{[]string{"odd/.001"}, "odd/.001"},
		{[]string{"empty"}, "none in empty"},
		{[]string{"traps"}, "traps/h.tar.zst in traps/h.tar.zst.001"},
		{[]string{"traps/h.tar.zst"}, "traps/h.tar.zst in traps/h.tar.zst.001"},
		{[]string{"nothing"}, "missing"},
		{[]string{"set/b.tar.zst.005"}, "missing"},
		{[]string{"nothing/b.tar.zst"}, "missing"},
		{[]string{"one/a.tar.zst", "nothing"}, "missing"},
		{nil, ""},
	} {
		if got := found(root, c.paths...); got != c.want {
			t.Errorf("Find(%q) finds\n%s\nwant\n%s", c.paths, got, c.want)
		}
	}
}

// TestFindDetached: sigstore bundles beside a bundle, by their numbers in each directory, and where
// the next one goes.
func TestFindDetached(t *testing.T) {
	root := tree(t,
		"one/a.tar.zst", "one/a.tar.zst.10.sigstore.json", "one/a.tar.zst.2.sigstore.json", "one/a.tar.zst.99.sigstore.json", "one/a.tar.zst.sigstore.json",
		"one/a.tar.zst.1.sigstore.json", "one/a.tar.zst.0.sigstore.json", "one/a.tar.zst.03.sigstore.json", "one/a.tar.zst.100.sigstore.json",
		"one/a.tar.zst.-4.sigstore.json", "one/a.tar.zst.+5.sigstore.json", "one/a.tar.zst.6.sigstore.json.bak", "one/b.tar.zst.7.sigstore.json",
		"none/a.tar.zst", "second/a.tar.zst", "second/a.tar.zst.2.sigstore.json",
		"disk1/c.tar.zst.001", "disk1/c.tar.zst.3.sigstore.json", "disk2/c.tar.zst.002", "disk2/c.tar.zst.sigstore.json", "disk2/c.tar.zst.002.sigstore.json",
		"later/d.tar.zst.002",
	)
	const s = ".sigstore.json"
	for _, c := range []struct {
		paths      []string
		want, next string
	}{
		{[]string{"one"}, "one/a.tar.zst by one/a.tar.zst" + s + " one/a.tar.zst.2" + s + " one/a.tar.zst.10" + s + " one/a.tar.zst.99" + s, "one/a.tar.zst.3" + s},
		{[]string{"none"}, "none/a.tar.zst", "none/a.tar.zst" + s},
		{[]string{"second"}, "second/a.tar.zst by second/a.tar.zst.2" + s, "second/a.tar.zst" + s},
		{
			[]string{"disk2", "disk1"},
			"disk2/c.tar.zst in disk1/c.tar.zst.001 disk2/c.tar.zst.002 by disk1/c.tar.zst.3" + s + " disk2/c.tar.zst" + s,
			"disk1/c.tar.zst" + s,
		},
	} {
		if got := found(root, c.paths...); got != c.want {
			t.Errorf("Find(%q) finds\n%s\nwant\n%s", c.paths, got, c.want)
		}
		if got, err := next(t, root, c.paths...); err != nil || short(root, got) != c.next {
			t.Errorf("the next one of %q: %q, %v, want %q", c.paths, got, err, c.next)
		}
	}
	if _, err := next(t, root, "later"); said(err) != "1 missing" {
		t.Errorf("without the first volume: %v", err)
	}
}

func next(t *testing.T, root string, paths ...string) (string, error) {
	t.Helper()
	full := make([]string, 0, len(paths))
	for _, p := range paths {
		full = append(full, filepath.Join(root, p))
	}
	files, err := archive.Find(full)
	if err != nil || len(files) != 1 {
		t.Fatalf("%d bundles, %v", len(files), err)
	}
	return files[0].NextDetached()
}

// TestManyDetached: no more than 64 are read, and so no more are made.
func TestManyDetached(t *testing.T) {
	root := tree(t, "a.tar.zst")
	path := filepath.Join(root, "a.tar.zst")
	for n := 1; n <= 64; n++ {
		got, err := next(t, root, "a.tar.zst")
		if err != nil || got != archive.DetachedName(path, n) {
			t.Fatalf("number %d: %q, %v", n, got, err)
		}
		save(t, got, nil)
	}
	if _, err := next(t, root, "a.tar.zst"); !errors.Is(err, archive.ErrLimit) {
		t.Errorf("one more: %v", err)
	}
	for n := 65; n <= 99; n++ {
		save(t, archive.DetachedName(path, n), nil)
	}
	files, err := archive.Find([]string{path})
	if err != nil || len(files[0].Detached) != 64 || files[0].Detached[63] != archive.DetachedName(path, 64) {
		t.Errorf("%d are found, %v", len(files[0].Detached), err)
	}
}

// TestFindFollowsNames: a link to a volume, as a tool that mounts media makes them, is that
// volume, one that leads nowhere is none, and a parity file that is found by two ways is there
// once.
func TestFindFollowsNames(t *testing.T) {
	root := tree(t, "disk/b.tar.zst.001", "disk/b.tar.zst.002", "disk/b.tar.zst.par001", "links/")
	for _, link := range []struct{ to, at string }{
		{"disk", "mirror"}, {"disk/b.tar.zst.001", "links/b.tar.zst.001"}, {"nowhere", "links/b.tar.zst.003"}, {"disk/b.tar.zst.002", "links/c.tar.zst"},
	} {
		if err := os.Symlink(filepath.Join(root, link.to), filepath.Join(root, link.at)); err != nil {
			t.Skipf("no links here: %v", err)
		}
	}
	for dir, want := range map[string]string{
		"mirror": "disk/b.tar.zst in mirror/b.tar.zst.001 mirror/b.tar.zst.002 with disk/b.tar.zst.par001",
		"links":  "disk/b.tar.zst in links/b.tar.zst.001 disk/b.tar.zst.002 with disk/b.tar.zst.par001; links/c.tar.zst",
	} {
		if got := found(root, "disk", dir); got != want {
			t.Errorf("disk and %s: %s, want %s", dir, got, want)
		}
	}
}

func TestPaths(t *testing.T) {
	f := archive.Files{Volumes: map[int]string{10: "b.010", 2: "b.002", 1: "b.001"}, Parity: []string{"b.par001"}}
	if got := f.Paths(); !slices.Equal(got, []string{"b.001", "b.002", "b.010", "b.par001"}) {
		t.Errorf("%q", got)
	}
	f = archive.Files{File: "b"}
	if got := f.Paths(); !slices.Equal(got, []string{"b"}) {
		t.Errorf("%q", got)
	}
}

// TestOpenFiles: what is no file is not waited for, and what has no first volume says so.
func TestOpenFiles(t *testing.T) {
	root := tree(t, "dir/", "b.tar.zst.002")
	if _, err := archive.OpenFile(filepath.Join(root, "dir")); !errors.Is(err, archive.ErrNotBundle) {
		t.Errorf("a directory: %v", err)
	}
	if _, err := archive.OpenVolumes("b", map[int]string{1: filepath.Join(root, "dir")}); !errors.Is(err, archive.ErrNotBundle) {
		t.Errorf("a directory as volume: %v", err)
	}
	if _, err := archive.OpenFile(filepath.Join(root, "nothing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing: %v", err)
	}
	files, err := archive.Find([]string{root})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := files[0].Open(); said(err) != "1 missing" {
		t.Errorf("without its first volume: %v", err)
	}
}

// FuzzFind: whatever files are called, a name is a volume exactly where it is one that VolumeName
// makes.
func FuzzFind(f *testing.F) {
	for _, name := range []string{"a.tar.zst", "a.tar.zst.001", "a.tar.zst.000", "a.tar.zst.par001", "a.001.002", ".001", "a.tar.zst.+01", "a.tar.zst.٣٣٣", "a.tar.zst.1e1", "a.tar.zst.999", "..001", "...001"} {
		f.Add(name)
	}
	root := f.TempDir()
	f.Fuzz(func(t *testing.T, name string) {
		if name == "" || len(name) > 200 || strings.ContainsAny(name, "/\\\x00") || name == "." || name == ".." {
			return
		}
		path := filepath.Join(root, name)
		if os.WriteFile(path, nil, 0o600) != nil {
			return
		}
		defer func() { _ = os.Remove(path) }()
		files, err := archive.Find([]string{path})
		if err != nil || len(files) != 1 {
			t.Fatalf("%q: %v, %v", name, files, err)
		}
		b := files[0]
		if (b.File == "") == (len(b.Volumes) == 0) {
			t.Fatalf("%q: %+v is neither a file nor volumes, or both", name, b)
		}
		for n, v := range b.Volumes {
			if v != path || archive.VolumeName(b.Name, n) != path || n < 1 || n > archive.MaxVolumes {
				t.Fatalf("%q: volume %d of %+v", name, n, b)
			}
		}
		if len(b.Volumes) == 0 {
			for _, n := range []int{1, 42, 999} {
				if base, ok := strings.CutSuffix(name, fmt.Sprintf(".%03d", n)); ok && base != "" && base != "." && base != ".." {
					t.Fatalf("%q is not taken for a volume", name)
				}
			}
		}
		// A directory with it may hold no bundle, but looking through it does no harm.
		if _, err := archive.Find([]string{root}); err != nil && !errors.As(err, new(*archive.NoBundleError)) {
			t.Fatal(err)
		}
	})
}
