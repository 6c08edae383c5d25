package containerd

import (
	"errors"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// listen makes a socket at which somebody listens, or has.
func listen(t *testing.T, path string, on bool) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if on {
		t.Cleanup(func() { _ = l.Close() })
		return
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestFind: one containerd is found, wherever it is, and of several none is chosen.
func TestFind(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	listen(t, at("live"), true)
	listen(t, at("other"), true)
	listen(t, at("dead"), false)
	if err := os.Symlink("live", at("link")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at("file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		paths []string
		want  string
	}{
		"the only one":           {[]string{"nothing", "file", "live"}, "live"},
		"one is a link":          {[]string{"link", "live"}, "link"},
		"one is dead":            {[]string{"dead", "live"}, "live"},
		"dead, and the only one": {[]string{"dead", "nothing"}, "dead"},
		"several":                {[]string{"live", "other", "dead"}, ""},
	} {
		var paths []string
		for _, p := range c.paths {
			paths = append(paths, at(p))
		}
		got, err := Find(t.Context(), paths)
		if c.want != "" && (err != nil || got != at(c.want)) {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, c.want)
		}
		if c.want == "" && err == nil {
			t.Errorf("%s: got %q, want an error", name, got)
		}
	}
	var several *SeveralError
	if _, err := Find(t.Context(), []string{at("dead"), at("live"), at("other")}); !errors.As(err, &several) || !slices.Equal(several.Found, []string{at("live"), at("other")}) {
		t.Errorf("several: %v", err)
	}
	var none *NoSocketError
	if _, err := Find(t.Context(), []string{at("nothing")}); !errors.As(err, &none) || !strings.Contains(err.Error(), at("nothing")) {
		t.Errorf("none: %v", err)
	}
}

func TestParseAddress(t *testing.T) {
	for text, want := range map[string]string{
		"/run/c.sock": "/run/c.sock", "unix:///run/c.sock": "/run/c.sock", "/run//c.sock": "/run/c.sock",
		"": "", "run/c.sock": "", "unix://c.sock": "", "tcp://127.0.0.1:1": "", "/a\x00b": "",
	} {
		if got, err := ParseAddress(text); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v, want %q", text, got, err, want)
		}
	}
}

// TestReferences: what content refers to is labelled once, and labels of others stay.
func TestReferences(t *testing.T) {
	parts := []Part{{PartConfig, 0, "sha256:c"}, {PartLayer, 0, "sha256:l0"}, {PartLayer, 1, "sha256:l1"}, {PartLayer, 2, "sha256:l0"}}
	all := References(nil, parts)
	want := map[string]string{
		"containerd.io/gc.ref.content.config": "sha256:c", "containerd.io/gc.ref.content.l.0": "sha256:l0", "containerd.io/gc.ref.content.l.1": "sha256:l1",
	}
	if !maps.Equal(all, want) {
		t.Errorf("got %v, want %v", all, want)
	}
	if again := References(all, parts); len(again) != 0 {
		t.Errorf("again: %v", again)
	}
	// Somebody has pulled another platform of an index, and counted its manifest as the first.
	have := map[string]string{"containerd.io/gc.ref.content.m.0": "sha256:other", "containerd.io/gc.ref.contents": "sha256:mine"}
	if got := References(have, []Part{{PartManifest, 0, "sha256:mine"}}); !maps.Equal(got, map[string]string{"containerd.io/gc.ref.content.m.1": "sha256:mine"}) {
		t.Errorf("beside another one: %v", got)
	}
	if len(have) != 2 {
		t.Error("what was given has changed")
	}
}

func TestSources(t *testing.T) {
	var many []string
	for range 500 {
		many = append(many, "a/long/name/of/a/repository")
	}
	got := Sources(map[string][]string{"docker.io": {"library/a", "library/b"}, "example.com": many, "none.example": nil})
	if got["containerd.io/distribution.source.docker.io"] != "library/a,library/b" || len(got) != 2 {
		t.Errorf("got %v", got)
	}
	for key, value := range got {
		if len(key)+len(value) > 4096 {
			t.Errorf("label %s has %d bytes", key, len(key)+len(value))
		}
	}
}

func TestRuns(t *testing.T) {
	for node, want := range map[string]string{
		"linux/amd64":    "linux/amd64 linux/386",
		"linux/amd64/v3": "linux/amd64/v3 linux/amd64/v2 linux/amd64 linux/386",
		"linux/arm64":    "linux/arm64 linux/arm/v8 linux/arm/v7 linux/arm/v6 linux/arm/v5",
		"linux/arm64/v8": "linux/arm64 linux/arm/v8 linux/arm/v7 linux/arm/v6 linux/arm/v5",
		"linux/arm":      "linux/arm/v7 linux/arm/v6 linux/arm/v5",
		"linux/arm/v6":   "linux/arm/v6 linux/arm/v5",
		"linux/riscv64":  "linux/riscv64",
	} {
		if got := strings.Join(Runs(node), " "); got != want {
			t.Errorf("%s: got %s, want %s", node, got, want)
		}
	}
}

// FuzzReadStatus: whatever answers, it is read to its end.
func FuzzReadStatus(f *testing.F) {
	image := protowire.AppendVarint(protowire.AppendTag(nil, fieldImagePinned, protowire.VarintType), 1)
	image = protowire.AppendString(protowire.AppendTag(image, fieldImageID, protowire.BytesType), "sha256:id")
	answer := protowire.AppendBytes(protowire.AppendTag(nil, fieldResponseImage, protowire.BytesType), image)
	f.Add(answer)
	f.Add([]byte{})
	f.Add([]byte{0x0a, 0xff})
	f.Add([]byte{0x0b, 0x0c})
	if s := readStatus(answer); s != (Seen{Asked: true, There: true, ID: "sha256:id", Pinned: true}) {
		f.Fatalf("got %+v", s)
	}
	if s := readStatus(nil); s != (Seen{Asked: true}) {
		f.Fatalf("an answer without an image: %+v", s)
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		if s := readStatus(answer); (s.Pinned || s.ID != "") && !s.There {
			t.Errorf("%x: %+v", answer, s)
		}
	})
}
