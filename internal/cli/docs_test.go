package cli

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "write generated documents anew")

func testApp() *app {
	return &app{env: Env{
		Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: io.Discard,
		LookupEnv: func(string) (string, bool) { return "", false },
		Now:       func() time.Time { return time.Unix(0, 0) },
	}}
}

// TestCommandReference compares docs/commands.md with the commands. "make docs" writes it.
func TestCommandReference(t *testing.T) {
	var b bytes.Buffer
	b.WriteString("# Commands\n\nWritten from the code by `make docs`; do not edit.\n")
	root := testApp().root()
	root.InitDefaultCompletionCmd()
	describe(&b, root)
	path := filepath.Join("..", "..", "docs", "commands.md")
	if *update {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, b.Bytes()) {
		t.Fatal("docs/commands.md is not what the commands say; run 'make docs'")
	}
}

func describe(w io.Writer, c *cobra.Command) {
	if c.IsAdditionalHelpTopicCommand() || c.Name() == "help" {
		return
	}
	text := c.Long
	if text == "" {
		text = c.Short + "."
	}
	fmt.Fprintf(w, "\n## %s\n\n%s\n\n```\n%s\n```\n", c.CommandPath(), strings.TrimSpace(text), c.UseLine())
	flags := c.NonInheritedFlags()
	if !c.HasParent() {
		flags = c.PersistentFlags()
	}
	var rows []string
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Name == "help" {
			return
		}
		name := "`--" + f.Name + "`"
		if f.Shorthand != "" {
			name += ", `-" + f.Shorthand + "`"
		}
		env := "`" + environmentName(f.Name) + "`"
		if f.Annotations[noEnvironment] != nil {
			env = "none, on purpose"
		}
		def := f.DefValue
		if def != "" && def != "[]" {
			def = "`" + def + "`"
		} else {
			def = ""
		}
		rows = append(rows, fmt.Sprintf("| %s | %s | %s | %s |", name, def, env, f.Usage))
	})
	if len(rows) > 0 {
		fmt.Fprintf(w, "\n| flag | default | environment | meaning |\n|---|---|---|---|\n%s\n", strings.Join(rows, "\n"))
	}
	for _, sub := range c.Commands() {
		if c.Name() != "completion" {
			describe(w, sub)
		}
	}
}

// TestExitCodesAreDocumented: the table of docs/exit-codes.md and the help list the codes that
// there are, and no others.
func TestExitCodesAreDocumented(t *testing.T) {
	want := []int{
		ExitOK, ExitFailure, ExitNotBundle, ExitUnsigned, ExitUntrusted, ExitContent, ExitStale, ExitRegistry,
		ExitCluster, ExitPreflight, ExitHeld, ExitDisk, ExitInterrupted,
	}
	raw, err := os.ReadFile(filepath.Join("..", "..", "docs", "exit-codes.md"))
	if err != nil {
		t.Fatal(err)
	}
	var documented []int
	for _, m := range regexp.MustCompile(`(?m)^\| *(\d+) *\|`).FindAllStringSubmatch(string(raw), -1) {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		documented = append(documented, n)
	}
	if !slices.Equal(documented, want) {
		t.Errorf("docs/exit-codes.md lists %v, there are %v", documented, want)
	}
	help := testApp().root().Long
	for _, code := range want {
		if !regexp.MustCompile(fmt.Sprintf(`\b%d\b`, code)).MatchString(help) {
			t.Errorf("the help does not name exit code %d", code)
		}
	}
}

// TestNothingWeakeningComesFromTheEnvironment: flags that overwrite, move or leave something
// out, or that weaken trust, are given on the command line or not at all.
func TestNothingWeakeningComesFromTheEnvironment(t *testing.T) {
	weakening := regexp.MustCompile(`^(unsigned|overwrite|move-|allow-|insecure|take-over|force|skip|no-|dry-run)`)
	for _, c := range testApp().root().Commands() {
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if weakening.MatchString(f.Name) && f.Annotations[noEnvironment] == nil {
				t.Errorf("%s --%s can be set from the environment", c.Name(), f.Name)
			}
		})
	}
}
