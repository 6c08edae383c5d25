package cli_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sealift/sealift/internal/cli"
)

// year is a year that a page names for when something ends.
var year = regexp.MustCompile(`20\d\d-01-01`)

// TestKeyCeremony rehearses docs/key-ceremony.md: its commands in their order, as vendor and as site
// in one directory, and then what the site believes after all of it.
func TestKeyCeremony(t *testing.T) {
	needTools(t, "bash", "jq")
	dir := t.TempDir()
	spec := filepath.Join(dir, "sealift.yaml")
	write := func(version string) {
		text := fmt.Sprintf("apiVersion: sealift/v1\nkind: Bundle\nname: shop\nversion: %s\nplatforms: [linux/amd64]\nimages: [{ref: %s/shop/plain:1}]\n", version, vendorRegistry(t))
		if err := os.WriteFile(spec, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("1.0.0")
	commands := pageCommands(t, "key-ceremony.md")
	roots := 0
	for i := range commands {
		// The page was written in 2026. What lies in the future there does so here.
		commands[i].text = year.ReplaceAllStringFunc(commands[i].text, func(day string) string {
			y, _ := strconv.Atoi(day[:4])
			return strconv.Itoa(y-2026+time.Now().Year()) + day[4:]
		})
		roots += strings.Count(commands[i].text, "root create ") + strings.Count(commands[i].text, "root next ")
	}
	if err := runPage(t, dir, commands, false); err != nil {
		t.Fatal(err)
	}

	sealift := func(want int, args ...string) string {
		t.Helper()
		cmd := exec.Command("sealift", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "HOME="+dir, "SEALIFT_STATE="+filepath.Join(dir, ".state"), "SEALIFT_CONFIG="+filepath.Join(dir, ".config.yaml"), "COSIGN_PASSWORD=secret")
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		if got := cmd.ProcessState.ExitCode(); got != want {
			t.Errorf("sealift %s: exit code %d, want %d: %s", strings.Join(args, " "), got, want, out)
		}
		return string(out)
	}
	// The site has taken every step.
	if out := sealift(cli.ExitOK, "trust", "show"); !strings.Contains(out, fmt.Sprintf("acme version %d", roots)) {
		t.Errorf("the site has not walked up to root %d:\n%s", roots, out)
	}
	sealift(cli.ExitOK, "journal", "verify")
	sealift(cli.ExitOK, "verify", "out")

	// What the thief signs is not believed, with neither key; what is revoked is refused, whoever has
	// signed it; and what the new key signs is believed.
	for _, c := range []struct {
		version, key string
		want         int
	}{
		{"2.5.0", "r", cli.ExitUntrusted},
		{"2.5.1", "r2", cli.ExitUntrusted},
		{"2.4.1", "r3", cli.ExitStale},
		{"1.1.0", "r3", cli.ExitOK},
	} {
		write(c.version)
		sealift(cli.ExitOK, "pack", "--key", c.key+".key", "--roots", "roots", "-o", c.version)
		sealift(c.want, "verify", c.version)
	}

	// Of the root keys that were left out one cannot count again, and none counts alone.
	sealift(cli.ExitOK, "root", "next", "5.root.json", "-o", "6.root.json")
	sealift(cli.ExitOK, "root", "sign", "--key", "a.key", "6.root.json")
	sealift(cli.ExitOK, "root", "sign", "--key", "c.key", "6.root.json")
	sealift(cli.ExitUntrusted, "trust", "update", "6.root.json")
	sealift(cli.ExitStale, "trust", "update", "4.root.json")
}
