package nodes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/sync/errgroup"
)

func installed(t *testing.T, dir string, f Format, m *Mirrors, ca string, overwrite bool) map[string]string {
	t.Helper()
	files, _, err := Install(t.Context(), dir, f, m, Authority{site.Host, ca}, overwrite)
	if err != nil {
		t.Fatal(err)
	}
	actions := map[string]string{}
	for _, file := range files {
		actions[file.Path] = file.Action
		if got := read(t, dir, file.Path); got != file.Content && file.Action == ActionWritten {
			t.Errorf("%s holds %q, want %q", file.Path, got, file.Content)
		}
	}
	for _, path := range paths(t, dir) {
		if strings.HasSuffix(path, partialSuffix) {
			t.Errorf("%s is left", path)
		}
	}
	return actions
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func put(t *testing.T, dir, name, content string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func paths(t *testing.T, dir string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			path, err = filepath.Rel(dir, path)
			list = append(list, filepath.ToSlash(path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func bundle(t *testing.T, f Format, name, version string, to Endpoint, places ...Place) *Mirrors {
	t.Helper()
	m, err := New(f, name, version, places, prefixesOf(places), to)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestInstallingAgainWritesNothing(t *testing.T) {
	secure := site
	secure.CA = true
	for _, f := range formats {
		dir := filepath.Join(t.TempDir(), "made", "for it")
		m := bundle(t, f, "shop", "1.0.0", secure, kept...)
		for path, action := range installed(t, dir, f, m, testPEM, false) {
			if action != ActionWritten {
				t.Errorf("%s: %s is %s", f, path, action)
			}
		}
		for path, action := range installed(t, dir, f, m, testPEM, false) {
			if action != ActionPresent {
				t.Errorf("%s: %s is %s", f, path, action)
			}
		}
	}
}

func TestWhatEarlierRunsHaveWrittenStays(t *testing.T) {
	for _, f := range formats {
		t.Run(string(f), func(t *testing.T) {
			dir := t.TempDir()
			installed(t, dir, f, bundle(t, f, "shop", "1.0.0", site, kept...), "", false)
			before := paths(t, dir)
			base := bundle(t, f, "base", "2.0.0", site, Place{"ghcr.io", "team/tool", "mirror/team/tool"}, kept[0])
			installed(t, dir, f, base, "", false)
			installed(t, dir, f, bundle(t, f, "shop", "1.1.0", site, kept[1]), "", false)
			all := ""
			for _, path := range paths(t, dir) {
				all += read(t, dir, path)
			}
			for _, want := range []string{"quay.io:8443", "registry.k8s.io", "ghcr.io", "docker.io", "base 2.0.0", "shop 1.1.0"} {
				if !strings.Contains(all, want) {
					t.Errorf("no %q in\n%s", want, all)
				}
			}
			for _, path := range before {
				if !slices.Contains(paths(t, dir), path) {
					t.Errorf("%s is gone", path)
				}
			}
		})
	}
}

func TestForeignFilesAreNotReplaced(t *testing.T) {
	dir := t.TempDir()
	m := bundle(t, Containerd, "shop", "1.0.0", site, kept...)
	put(t, dir, "registry.k8s.io/hosts.toml", "server = \"https://registry.k8s.io\"\n")
	var foreign *FileError
	_, _, err := Install(t.Context(), dir, Containerd, m, Authority{}, false)
	if !errors.As(err, &foreign) || errors.Is(err, ErrEdited) || foreign.Path != filepath.Join(dir, "registry.k8s.io/hosts.toml") {
		t.Fatal(err)
	}
	if got := paths(t, dir); len(got) != 1 {
		t.Fatalf("written in spite of it: %q", got)
	}
	installed(t, dir, Containerd, m, "", true)

	put(t, dir, "docker.io/hosts.toml", read(t, dir, "docker.io/hosts.toml")+"# mine\n")
	if _, _, err := Install(t.Context(), dir, Containerd, m, Authority{}, false); !errors.Is(err, ErrEdited) {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(filepath.Join(dir, "docker.io/hosts.toml")), os.Symlink("nowhere", filepath.Join(dir, "docker.io/hosts.toml"))); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Install(t.Context(), dir, Containerd, m, Authority{}, true); !errors.Is(err, ErrForeign) {
		t.Fatal(err)
	}
}

func TestRoutesToElsewhereNeedOverwrite(t *testing.T) {
	dir := t.TempDir()
	installed(t, dir, Containerd, bundle(t, Containerd, "shop", "1.0.0", site, kept...), "", false)
	moved := bundle(t, Containerd, "shop", "1.0.0", Endpoint{Host: "new.site.example"}, kept[0])
	var conflict *ConflictError
	if _, _, err := Install(t.Context(), dir, Containerd, moved, Authority{}, false); !errors.As(err, &conflict) {
		t.Fatal(err)
	}
	installed(t, dir, Containerd, moved, "", true)
	for _, name := range hub {
		if got := read(t, dir, name+"/hosts.toml"); strings.Contains(got, site.Host) || !strings.Contains(got, "new.site.example") {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// TestOverwrittenRoutesAreClaimedByNobody: the file does not say any more that it is for a bundle whose
// route it has lost.
func TestOverwrittenRoutesAreClaimedByNobody(t *testing.T) {
	elsewhere := Endpoint{Host: "new.site.example"}
	for _, f := range formats {
		dir := t.TempDir()
		installed(t, dir, f, bundle(t, f, "shop", "1.0.0", site, kept...), "", false)
		installed(t, dir, f, bundle(t, f, "base", "2.0.0", site, kept[0]), "", false)
		moved := bundle(t, f, "base", "2.0.0", elsewhere, kept[0])
		var conflict *ConflictError
		if _, _, err := Install(t.Context(), dir, f, moved, Authority{}, false); !errors.As(err, &conflict) || !slices.Equal(conflict.Others, []string{"shop"}) {
			t.Fatalf("%s: %v, %+v", f, err, conflict)
		}
		files, _, err := Install(t.Context(), dir, f, moved, Authority{}, true)
		if err != nil {
			t.Fatal(f, err)
		}
		for _, file := range files {
			if first, _, _ := strings.Cut(read(t, dir, file.Path), "\n"); first != markWritten+"base 2.0.0" {
				t.Errorf("%s: %s is for %q", f, file.Path, first)
			}
		}
		// Both together may go to the new place.
		both, err := bundle(t, f, "shop", "1.0.0", elsewhere, kept...).Merge(moved, false)
		if err != nil {
			t.Fatal(err)
		}
		for path := range installed(t, dir, f, both, "", true) {
			if text := read(t, dir, path); strings.Contains(text, site.Host) || !strings.Contains(text, "shop 1.0.0") {
				t.Errorf("%s: %s", path, text)
			}
		}
	}
}

func TestSeveralAtOnce(t *testing.T) {
	for _, f := range formats {
		dir := t.TempDir()
		var g errgroup.Group
		const n = 8
		for i := range n {
			m := bundle(t, f, fmt.Sprintf("b%d", i), "1.0.0", site, Place{"docker.io", "library/nginx", "mirror/library/nginx"}, Place{fmt.Sprintf("r%d.example", i), "a/b", "mirror/a/b"})
			g.Go(func() error {
				_, _, err := Install(t.Context(), dir, f, m, Authority{}, false)
				return err
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(f, err)
		}
		for i := range n {
			m := bundle(t, f, fmt.Sprintf("b%d", i), "1.0.0", site, Place{fmt.Sprintf("r%d.example", i), "a/b", "mirror/a/b"})
			for path, action := range installed(t, dir, f, m, "", false) {
				if action != ActionPresent {
					t.Errorf("%s: %s was lost", f, path)
				}
			}
		}
	}
}

func TestWaitingForTheDirectoryEnds(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	held, err := lock(t.Context(), root, dir)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		var busy *BusyError
		if _, err := lock(t.Context(), root, dir); !errors.As(err, &busy) || busy.Dir != dir {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := Install(ctx, dir, CRIO, bundle(t, CRIO, "shop", "1.0.0", site, kept...), Authority{}, false); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if left := paths(t, dir); len(left) != 0 {
		t.Errorf("%q is left", left)
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := lock(t.Context(), root, dir)
	if err := errors.Join(err, again.Close(), root.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestTheOtherNameOfARegistryWithAPort: containerd looks at HOST_PORT_ before HOST:PORT.
func TestTheOtherNameOfARegistryWithAPort(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "quay.io_8443_/hosts.toml", "")
	var shadow *ShadowError
	if _, _, err := Install(t.Context(), dir, Containerd, bundle(t, Containerd, "shop", "1.0.0", site, kept...), Authority{}, true); !errors.As(err, &shadow) {
		t.Fatal(err)
	}
}

func TestTheSitesOwnLinesStay(t *testing.T) {
	dir := t.TempDir()
	installed(t, dir, K3s, bundle(t, K3s, "shop", "1.0.0", site, kept...), "", false)
	secure := site
	secure.CA = true
	// Nobody has changed the lines: the certificates come in.
	installed(t, dir, K3s, bundle(t, K3s, "shop", "1.0.0", secure, kept...), testPEM, false)
	text := read(t, dir, rancherMirrors)
	if !strings.Contains(text, "\n      ca_file: ") {
		t.Fatal(text)
	}
	head, _ := own(text)
	const mine = "configs:\n  \"registry.site.example:5000\":\n    auth: {username: u, password: p}\n"
	put(t, dir, rancherMirrors, head+Divider+mine)
	files, notes, err := Install(t.Context(), dir, K3s, bundle(t, K3s, "base", "2.0.0", secure, Place{"ghcr.io", "a", "mirror/a"}), Authority{site.Host, testPEM}, false)
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, dir, rancherMirrors); !strings.HasSuffix(got, Divider+mine) || !strings.Contains(got, "ghcr.io") || !strings.Contains(got, "docker.io") {
		t.Fatal(got)
	}
	if !slices.ContainsFunc(notes, func(n string) bool { return strings.Contains(n, "add ca_file: sealift-") }) {
		t.Errorf("%v says nothing about the certificates: %v", files, notes)
	}
}

func TestCertificatesOfTheSiteAreNotWrittenOver(t *testing.T) {
	secure := site
	secure.CA = true
	dir := t.TempDir()
	put(t, dir, "certs.d/registry.site.example:5000/ca.crt", "\n"+testPEM)
	m := bundle(t, Podman, "shop", "1.0.0", secure, kept...)
	if actions := installed(t, dir, Podman, m, testPEM, false); actions["certs.d/registry.site.example:5000/ca.crt"] != ActionPresent {
		t.Errorf("%v", actions)
	}
	var foreign *FileError
	if _, _, err := Install(t.Context(), dir, Podman, m, Authority{site.Host, testPEM + testPEM}, false); !errors.As(err, &foreign) {
		t.Fatal(err)
	}
}
