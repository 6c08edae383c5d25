package cli

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestBundlesInRegistries: every command that takes a bundle takes one in a registry, with all the
// flags for that, but for those that change the file.
func TestBundlesInRegistries(t *testing.T) {
	a := testApp()
	var without []string
	var each func(c *cobra.Command)
	each = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			each(sub)
		}
		f := a.reading.access[c]
		if takes := strings.Contains(c.Use, "BUNDLE"); f == nil && takes {
			without = append(without, c.Name())
		}
		if f == nil {
			return
		}
		for _, flag := range append([]string{"plain-http", "allow-host", "ca-file", "client-cert", "client-key"}, credentialFlags...) {
			if c.Flags().Lookup(flag) == nil {
				t.Errorf("%s has no --%s", c.CommandPath(), flag)
			}
		}
	}
	each(a.root())
	slices.Sort(without)
	if want := []string{"join", "parity", "repair", "sign", "split"}; !slices.Equal(without, want) {
		t.Errorf("commands that take no bundles in registries: %v, want %v", without, want)
	}
}

// TestSharedFlags: what is said to a command about a registry counts for the one that its bundle is in,
// too; credentials do not.
func TestSharedFlags(t *testing.T) {
	a := testApp()
	seed, _, err := a.root().Find([]string{"seed"})
	if err != nil {
		t.Fatal(err)
	}
	if err := seed.ParseFlags([]string{"--plain-http", "a:1,b:2", "--plain-http", "c:3", "--ca-file", "ca.pem", "--username", "jane", "--password-file", "secret"}); err != nil {
		t.Fatal(err)
	}
	f := a.reading.access[seed]
	if err := f.adopt(); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(f.plainHTTP, []string{"a:1", "b:2", "c:3"}) || f.caFile != "ca.pem" || f.username+f.passwordFile != "" || len(f.hosts) > 0 {
		t.Fatalf("%+v", f.accessFlags)
	}
	verify, _, err := a.root().Find([]string{"verify"})
	if err != nil {
		t.Fatal(err)
	}
	if err := verify.ParseFlags([]string{"--plain-http", "a:1", "--username", "jane"}); err != nil {
		t.Fatal(err)
	}
	f = a.reading.access[verify]
	if err := f.adopt(); err != nil || !slices.Equal(f.plainHTTP, []string{"a:1"}) || f.username != "jane" {
		t.Fatalf("%+v, %v", f.accessFlags, err)
	}
}
