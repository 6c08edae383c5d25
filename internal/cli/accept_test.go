package cli_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/sealift/sealift/internal/cli"
)

// TestMeanwhile: between the judging of a bundle and its acceptance others may accept something, or
// change what the site trusts. What counts is what is true in the end.
func TestMeanwhile(t *testing.T) {
	dir := t.TempDir()
	vendor := serveImages(t)
	d := &dialed{}
	must := func(args ...string) string {
		t.Helper()
		code, stdout, stderr := d.run(t, dir, args...)
		if code != 0 {
			t.Fatalf("%v: exit code %d: %s", args, code, stderr)
		}
		return stdout
	}
	key := filepath.Join(dir, "cosign")
	must("keygen", "--output-prefix", key)
	pack := func(version, channel, name string) string {
		spec := writeSpec(t, dir, vendor)
		text, err := os.ReadFile(spec)
		if err != nil {
			t.Fatal(err)
		}
		changed := strings.Replace(string(text), "1.0.0\n", version+"\nchannel: "+channel+"\n", 1)
		write(t, spec, []byte(changed))
		path := filepath.Join(dir, name+".tar.zst")
		must("pack", "-f", spec, "-o", path, "--key", key+".key")
		return path
	}
	old, rebuilt, newer := pack("1.0.0", "stable", "old"), pack("1.0.0+0", "stable", "rebuilt"), pack("2.0.0", "stable", "newer")
	for _, c := range []struct {
		name string
		// first is seeded while then runs in the middle of it; code is that of the first.
		first, then []string
		code        int
		stderr      string
		accepted    string
	}{
		{
			"a newer version",
			[]string{"seed", rebuilt, "--allow-downgrade", "--reason", "x"},
			[]string{"seed", newer},
			0, "", "shop 2.0.0",
		},
		{
			"a newer version, where nothing is allowed",
			[]string{"seed", old},
			[]string{"seed", newer},
			cli.ExitStale, "accepted version 2.0.0", "shop 2.0.0",
		},
		{
			"a policy",
			[]string{"seed", old},
			[]string{"trust", "update", "revoking"},
			cli.ExitStale, "judged by what this site trusted before", "",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			site := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
			defer site.Close()
			home := t.TempDir()
			inner := &dialed{to: site.Listener.Addr().String()}
			policy := func(name, more string) string {
				public, err := os.ReadFile(key + ".pub")
				if err != nil {
					t.Fatal(err)
				}
				path := filepath.Join(home, name)
				write(t, path, fmt.Appendf(nil, "mediaType: application/vnd.sealift.policy.v1+yaml\nsigners: {vendor: {key: %q}}\nrules:\n  - name: shop\n    bundles: [shop]\n    groups: [{threshold: 1, signers: [vendor]}]\n%s", public, more))
				return path
			}
			revoking := policy("revoking", "revoked: {versions: [{name: shop, versions: [1.0.0]}]}\n")
			steps := [][]string{{"trust", "init", policy("trust.yaml", "")}}
			if c.code == 0 {
				steps = append(steps, []string{"seed", old, "--registry", inner.to})
			}
			for _, args := range steps {
				if code, _, stderr := inner.run(t, home, args...); code != 0 {
					t.Fatalf("%v: exit code %d: %s", args, code, stderr)
				}
			}
			var once sync.Once
			outer := &meddled{dialed: inner, meddle: func() {
				once.Do(func() {
					args := c.then
					switch args[0] {
					case "seed":
						args = append(args, "--registry", inner.to)
					case "trust":
						args = []string{"trust", "update", revoking}
					}
					if code, _, stderr := inner.run(t, home, args...); code != 0 {
						t.Errorf("%v: exit code %d: %s", args, code, stderr)
					}
				})
			}}
			code, _, stderr := outer.run(t, home, append(c.first, "--registry", inner.to)...)
			if code != c.code || !strings.Contains(stderr, c.stderr) {
				t.Errorf("exit code %d, want %d: %s", code, c.code, stderr)
			}
			_, shown, _ := inner.run(t, home, "trust", "show")
			if c.accepted == "" && strings.Contains(shown, "accepted") || !strings.Contains(shown, c.accepted) {
				t.Errorf("accepted in the end:\n%s", shown)
			}
		})
	}
}

// meddled is an environment in which something happens at the first connection.
type meddled struct {
	*dialed
	meddle func()
}

func (m *meddled) run(t *testing.T, dir string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return runIn(t, dir, func(ctx context.Context, network, address string) (net.Conn, error) {
		m.meddle()
		return m.dial(ctx, network, address)
	}, args...)
}
