// Package cli is the command line: commands, flags, environment, output, progress, hints and
// exit codes. It translates; what is done is done in the packages that it calls.
//
// Rules for all words printed here: results go to standard output, everything else to
// standard error. Errors and hints are lower case without a full stop.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/sealift/sealift/internal/oci"
)

// version is stamped by the build (-ldflags -X).
var version = "devel"

// Env is what a command sees of the process around it.
type Env struct {
	Stdin     io.Reader
	Stdout    io.Writer
	Stderr    io.Writer
	LookupEnv func(string) (string, bool)
	Now       func() time.Time
	// Dial opens the connections of the isolated side; nil for the system's way.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Budget is how much is borne of registries before they are given up; its zero value has the
	// defaults.
	Budget oci.Budget
	// LogSockets are the sockets of "syslog" and "journald"; those of the system where it has none.
	LogSockets map[string][]string
	// Terminal reports whether standard error is a terminal.
	Terminal bool
	// ReadPassword asks at the terminal until its context ends; nil where there is none.
	ReadPassword func(ctx context.Context, prompt string) ([]byte, error)
}

// OS is the environment of this process.
func OS() Env {
	e := Env{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, LookupEnv: os.LookupEnv, Now: time.Now,
		Terminal: term.IsTerminal(int(os.Stderr.Fd())),
	}
	if fd := int(os.Stdin.Fd()); term.IsTerminal(fd) {
		e.ReadPassword = func(ctx context.Context, prompt string) ([]byte, error) { return readPassword(ctx, fd, prompt) }
	}
	return e
}

// readPassword asks at the terminal fd. When ctx ends, the terminal shows again what is typed.
func readPassword(ctx context.Context, fd int, prompt string) ([]byte, error) {
	before, err := term.GetState(fd)
	if err != nil {
		return nil, fmt.Errorf("asking for a password: %w", err)
	}
	fmt.Fprint(os.Stderr, prompt)
	defer fmt.Fprintln(os.Stderr)
	type answer struct {
		password []byte
		err      error
	}
	answers := make(chan answer, 1)
	go func() {
		p, err := term.ReadPassword(fd)
		answers <- answer{p, err}
	}()
	select {
	case a := <-answers:
		return a.password, a.err
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), term.Restore(fd, before))
	}
}

func (e Env) getenv(key string) string {
	v, _ := e.LookupEnv(key)
	return v
}

// app is what all commands share in one run.
type app struct {
	env      Env
	output   string
	progress string
	verbose  bool
	noExec   bool
	logging  logging
	// reading is how bundles in registries are read.
	reading reading
	// secrets are never printed, whoever quotes them.
	secrets secrets
	waits   waits
}

// Run executes one command line and returns the exit code.
func Run(ctx context.Context, args []string, env Env) int {
	a := &app{env: env}
	root := a.root() //nolint:contextcheck // commands get ctx from ExecuteContext
	root.SetArgs(args)
	root.SetIn(env.Stdin)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	// Helm logs through the process-wide logger, and what it says there belongs to --verbose.
	slog.SetDefault(slog.New(slog.DiscardHandler))
	err := root.ExecuteContext(ctx)
	if err == nil {
		a.endLogging(ctx, nil, ExitOK)
		return ExitOK
	}
	code := exitCode(ctx, err)
	a.printError(err, code)
	a.endLogging(ctx, err, code)
	return code
}

// maxErrorText bounds what is shown of an error: answers of registries may be in it.
const maxErrorText = 4096

// printable takes out of a text what would steer a terminal: file names, and what registries
// and clusters answer, come from elsewhere.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && (unicode.IsControl(r) || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069) {
			return unicode.ReplacementChar
		}
		return r
	}, text)
}

// hiding is standard error for those who log, without secrets. What is logged comes in one piece.
type hiding struct{ app *app }

func (h hiding) Write(p []byte) (int, error) {
	if _, err := io.WriteString(h.app.env.Stderr, h.app.hide(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (a *app) printError(err error, code int) {
	text, advice := strings.TrimSpace(printable(a.hide(err.Error()))), printable(a.hide(hint(err)))
	if len(text) > maxErrorText {
		text = text[:maxErrorText] + " …"
	}
	if code == ExitInterrupted && errors.Is(err, context.Canceled) && text == context.Canceled.Error() {
		text = "interrupted"
	}
	if a.output == "json" {
		line, jsonErr := json.Marshal(struct {
			Error string `json:"error"`
			Code  int    `json:"code"`
			Hint  string `json:"hint,omitempty"`
		}{text, code, strings.ReplaceAll(advice, "\n", "; ")})
		if jsonErr == nil {
			fmt.Fprintln(a.env.Stderr, string(line))
			return
		}
	}
	fmt.Fprintln(a.env.Stderr, "sealift: "+text)
	for line := range strings.Lines(advice) {
		fmt.Fprintln(a.env.Stderr, "hint: "+strings.TrimSuffix(line, "\n"))
	}
}

// usageError is a command line that cannot be meant.
type usageError struct {
	err     error
	command string
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "sealift",
		Short: "Carry software into air-gapped networks",
		Long: `Sealift packs container images and Helm charts into one signed bundle, a file or volumes
that fit your media, on the connected side, and on the isolated side verifies it, seeds a
registry and installs it.

Every flag --some-flag can be set by an environment variable SEALIFT_SOME_FLAG, but for
those that overwrite, move or leave out something: for these, setting it is an error.

Exit status: 0 done; 1 failure or wrong usage; 10 not a bundle; 11 unsigned; 12 signature
not trusted; 13 content does not match, or is not all there; 14 older than what the site has
accepted, expired, or revoked; 20 registry; 21 cluster, changed back; 22 refused before
anything was changed; 23 changing back failed too; 30 disk full, or media error; 130
interrupted. An exit status that is not listed means failure.`,
		// How many letters may differ in a command that was probably meant.
		SuggestionsMinimumDistance: 2,
		SilenceErrors:              true,
		SilenceUsage:               true,
		Args:                       unknownCommand,
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, args []string) error {
			if err := a.fromEnvironment(cmd.Flags()); err != nil {
				return &usageError{err, cmd.CommandPath()}
			}
			if err := a.checkGlobal(cmd); err != nil {
				return err
			}
			return a.startLogging(cmd, args)
		},
	}
	root.PersistentFlags().StringVar(&a.output, "output", "text", "how to print results: text or json")
	root.PersistentFlags().StringVar(&a.progress, "progress", "auto", "how to show progress on standard error: auto, bar, plain, json or none")
	root.PersistentFlags().BoolVarP(&a.verbose, "verbose", "v", false, "log what libraries do to standard error")
	root.PersistentFlags().BoolVar(&a.noExec, "no-exec", false, "run no other program: no credential helper, no exec plugin of a kubeconfig, no KMS plugin")
	a.logging.add(root.PersistentFlags())
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return &usageError{err, cmd.CommandPath()} })
	root.AddCommand(
		a.initCommand(), a.schemaCommand(), a.imagesCommand(), a.lockCommand(), a.keygenCommand(), a.packCommand(), a.inspectCommand(), a.verifyCommand(),
		a.listCommand(), a.diffCommand(), a.extractCommand(), a.splitCommand(), a.joinCommand(), a.parityCommand(), a.repairCommand(),
		a.signCommand(), a.publicKeyCommand(), a.trustCommand(), a.journalCommand(), a.rootCommand(),
		a.seedCommand(), a.preflightCommand(), a.planCommand(), a.installCommand(), a.resumeCommand(), a.revertCommand(), a.promoteCommand(), a.abortCommand(),
		a.statusCommand(), a.historyCommand(), a.receiptCommand(), a.reportCommand(), a.rollbackCommand(), a.uninstallCommand(), a.supportCommand(),
		a.serveCommand(), a.pruneCommand(), a.mirrorsCommand(), a.loadCommand(), a.pushCommand(), a.pullCommand(), a.versionCommand(),
	)
	a.reading = newReading()
	a.addRemoteFlags(root)
	for _, c := range root.Commands() {
		wrapArgs(c)
	}
	return root
}

// unknownCommand is for the root, which takes only the names of its commands.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := fmt.Errorf("unknown command %q", args[0])
	if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
		err = fmt.Errorf("%w; did you mean %s?", err, strings.Join(like, " or "))
	}
	return &usageError{err, cmd.CommandPath()}
}

// wrapArgs makes wrong arguments a usage error.
func wrapArgs(c *cobra.Command) {
	args := c.Args
	c.Args = func(cmd *cobra.Command, given []string) error {
		if err := args(cmd, given); err != nil {
			return &usageError{err, cmd.CommandPath()}
		}
		return nil
	}
}

func (a *app) checkGlobal(cmd *cobra.Command) error {
	switch a.output {
	case "text", "json":
	default:
		bad := a.output
		a.output = "text"
		return &usageError{fmt.Errorf("--output %q is neither text nor json", bad), cmd.CommandPath()}
	}
	switch a.progress {
	case "auto", "bar", "plain", "json", "none":
		return nil
	}
	return &usageError{fmt.Errorf("--progress %q is none of auto, bar, plain, json, none", a.progress), cmd.CommandPath()}
}

// noEnvironment marks flags that must be given on the command line, each time anew.
const noEnvironment = "sealift_no_environment"

// onlyFlag marks the flag called name.
func onlyFlag(fs *pflag.FlagSet, name string) {
	f := fs.Lookup(name)
	if f.Annotations == nil {
		f.Annotations = map[string][]string{}
	}
	f.Annotations[noEnvironment] = []string{"true"}
}

// setByEnvironment marks flags that a variable has set.
const setByEnvironment = "sealift_set_by_environment"

// fromVariable is the variable that has set a flag, "" where the command line has.
func fromVariable(cmd *cobra.Command, flag string) string {
	if f := cmd.Flags().Lookup(flag); f != nil && f.Annotations[setByEnvironment] != nil {
		return environmentName(flag)
	}
	return ""
}

func environmentName(flag string) string {
	return "SEALIFT_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// fromEnvironment sets the flags that were not given from SEALIFT_ variables.
func (a *app) fromEnvironment(fs *pflag.FlagSet) error {
	var first error
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Changed || f.Name == "help" {
			return
		}
		v, ok := a.env.LookupEnv(environmentName(f.Name))
		if !ok || v == "" {
			return
		}
		if f.Annotations[noEnvironment] != nil {
			// Who set it relies on it: going on without, as with SEALIFT_DRY_RUN, could do harm.
			if first == nil {
				first = fmt.Errorf("%s is set, but --%s is taken from the command line only", environmentName(f.Name), f.Name)
			}
			return
		}
		if err := fs.Set(f.Name, v); err != nil && first == nil {
			first = fmt.Errorf("%s: %w", environmentName(f.Name), err)
		}
		if f.Annotations == nil {
			f.Annotations = map[string][]string{}
		}
		f.Annotations[setByEnvironment] = []string{"true"}
	})
	return first
}

// print writes a result: v as JSON, or what text writes.
func (a *app) print(v any, text func(w io.Writer)) error {
	var b strings.Builder
	if a.output == "json" {
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		if err := enc.Encode(v); err != nil {
			return fmt.Errorf("printing the result: %w", err)
		}
	} else {
		var plain strings.Builder
		text(&plain)
		b.WriteString(printable(a.hide(plain.String())))
	}
	if _, err := io.WriteString(a.env.Stdout, b.String()); err != nil {
		return fmt.Errorf("printing the result: %w", err)
	}
	return nil
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			v := struct {
				Version string `json:"version"`
				Commit  string `json:"commit,omitempty"`
				Go      string `json:"go"`
			}{Version: version}
			if info, ok := debug.ReadBuildInfo(); ok {
				v.Go = info.GoVersion
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						v.Commit = s.Value
					}
				}
			}
			return a.print(v, func(w io.Writer) {
				fmt.Fprintf(w, "sealift %s (%s)\n", v.Version, v.Go)
			})
		},
	}
}
