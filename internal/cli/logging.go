package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"sync"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sealift/sealift/internal/progress"
)

// Attributes of what is logged, so that a site can search for them.
const (
	logBundle  = "bundle"
	logRelease = "release"
	logStep    = "step"
)

// maxLogText bounds one text in the log, in bytes: what libraries and clusters say is quoted there.
const maxLogText = 8 << 10

// logging is where is logged, besides standard error.
type logging struct {
	format, file, to string

	sinks []slog.Handler
	close []io.Closer
	// began is set once a command has begun to be logged.
	began string
	// lost is told once that something could not be logged.
	lost sync.Once
}

// add adds the flags, for all commands.
func (l *logging) add(fs *pflag.FlagSet) {
	fs.StringVar(&l.format, "log-format", "text", "how to log: text (logfmt) or json")
	fs.StringVar(&l.file, "log-file", "", "file to append the log to, with all details, whatever standard error shows")
	fs.StringVar(&l.to, "log-to", "", "log to syslog or journald of this machine as well")
}

// LogError says that there is no logging as it was asked for.
type LogError struct {
	To  string
	Err error
}

// Error names the place.
func (e *LogError) Error() string { return fmt.Sprintf("logging to %s: %v", e.To, e.Err) }

// Unwrap returns the cause.
func (e *LogError) Unwrap() error { return e.Err }

// errNotRegular says that a log file is something else, such as a pipe that nobody reads.
var errNotRegular = errors.New("it is not a regular file")

// startLogging opens what the flags name, and logs that a command begins. Errors are *LogError, or about flags.
func (a *app) startLogging(cmd *cobra.Command, args []string) error {
	l := &a.logging
	switch l.format {
	case "text", "json":
	default:
		return &usageError{fmt.Errorf("--log-format %q is neither text nor json", l.format), cmd.CommandPath()}
	}
	if l.file != "" {
		f, err := openLog(l.file)
		if err != nil {
			return &LogError{fmt.Sprintf("%q", l.file), err}
		}
		l.close = append(l.close, f)
		l.sinks = append(l.sinks, l.handler(&cleanWriter{app: a, to: f, name: l.file}, slog.LevelDebug, a.hide))
	}
	level := slog.LevelInfo
	if a.verbose {
		level = slog.LevelDebug
	}
	switch l.to {
	case "":
	case "syslog", "journald":
		s := &socket{paths: a.env.LogSockets[l.to]}
		if len(s.paths) == 0 {
			s.paths = logSockets[l.to]
		}
		if err := s.dial(cmd.Context()); err != nil {
			return &LogError{l.to, err}
		}
		l.close = append(l.close, s)
		if l.to == "journald" {
			l.sinks = append(l.sinks, &journald{app: a, to: s, level: level})
		} else {
			l.sinks = append(l.sinks, newSyslog(a, s, level))
		}
	default:
		return &usageError{fmt.Errorf("--log-to %q is neither syslog nor journald", l.to), cmd.CommandPath()}
	}
	log := a.logger()
	slog.SetDefault(log)
	l.began = cmd.CommandPath()
	var flags []string
	cmd.Flags().Visit(func(f *pflag.Flag) { flags = append(flags, "--"+f.Name) })
	log.InfoContext(cmd.Context(), "command begins", "command", l.began, "arguments", args, "flags", flags, "version", version, "by", a.by())
	return nil
}

// endLogging logs how a command ended, and closes the log.
func (a *app) endLogging(ctx context.Context, err error, code int) {
	l := &a.logging
	ctx = context.WithoutCancel(ctx)
	switch log := a.logger(); {
	case l.began == "":
	case err != nil:
		log.ErrorContext(ctx, "command failed", "command", l.began, "exit", code, "error", err)
	default:
		log.InfoContext(ctx, "command ends", "command", l.began, "exit", code)
	}
	slog.SetDefault(slog.New(slog.DiscardHandler))
	for _, c := range l.close {
		// What was logged has been written; there is nobody left to tell.
		_ = c.Close()
	}
	l.sinks, l.close = nil, nil
}

// openLog opens a file to append to, for its owner only.
func openLog(path string) (*os.File, error) {
	// Opening a pipe would wait for its reader.
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, errNotRegular
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
}

// logger is where libraries and operations log: nowhere, unless asked. Secrets never get there.
func (a *app) logger() *slog.Logger {
	all := a.logging.sinks
	if a.verbose {
		all = append([]slog.Handler{a.logging.handler(hiding{a}, slog.LevelDebug, a.hide)}, all...)
	}
	switch len(all) {
	case 0:
		return slog.New(slog.DiscardHandler)
	case 1:
		return slog.New(all[0])
	}
	return slog.New(slog.NewMultiHandler(all...))
}

// logs reports whether anything is logged at all.
func (l *logging) logs() bool { return len(l.sinks) > 0 }

// handler writes lines.
func (l *logging) handler(w io.Writer, level slog.Level, hide func(string) string) slog.Handler {
	o := &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, at slog.Attr) slog.Attr { return bounded(at, hide) }}
	if l.format == "json" {
		return slog.NewJSONHandler(w, o)
	}
	return slog.NewTextHandler(w, o)
}

// inAddress is a user with a password in an address.
var inAddress = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`://[^/@\s]+@`) })

// bounded bounds the texts of an attribute. Secrets are hidden before: half of one would not be found.
func bounded(at slog.Attr, hide func(string) string) slog.Attr {
	at.Value = at.Value.Resolve()
	switch v := at.Value.Any().(type) {
	case string:
		at.Value = slog.StringValue(logText(v, hide))
	case error:
		at.Value = slog.StringValue(logText(v.Error(), hide))
	case []string:
		list := make([]string, 0, min(len(v), 100))
		for _, s := range v[:min(len(v), 100)] {
			list = append(list, logText(s, hide))
		}
		at.Value = slog.AnyValue(list)
	case fmt.Stringer:
		if at.Value.Kind() == slog.KindAny {
			at.Value = slog.StringValue(logText(v.String(), hide))
		}
	}
	return at
}

// logText is a text as it is logged: of bounded length, and without the passwords that addresses may hold.
func logText(s string, hide func(string) string) string {
	if len(s) > maxLogText {
		s = hide(s)
	}
	if len(s) > maxLogText {
		end := maxLogText
		for end > 0 && !utf8.RuneStart(s[end]) {
			end--
		}
		s = s[:end] + "…"
	}
	return inAddress().ReplaceAllString(s, "://"+hidden+"@")
}

// cleanWriter takes secrets and what steers terminals out of what is logged, a record at a time.
type cleanWriter struct {
	app  *app
	to   io.Writer
	name string
}

// Write always says that all was written: a log that is lost is no reason to stop what is being done.
func (w *cleanWriter) Write(p []byte) (int, error) {
	if _, err := io.WriteString(w.to, printable(w.app.hide(string(p)))); err != nil {
		w.app.logLost(w.name, err)
	}
	return len(p), nil
}

// logLost tells once that something could not be logged.
func (a *app) logLost(where string, err error) {
	a.logging.lost.Do(func() {
		fmt.Fprintf(a.env.Stderr, "warning: what is done cannot be logged to %s: %s\n", printable(where), printable(a.hide(err.Error())))
	})
}

// logWarnings logs what people are warned of.
func (a *app) logWarnings(lines []string) {
	if !a.logging.logs() {
		return
	}
	log := a.logger()
	for _, l := range lines {
		log.Warn(l)
	}
}

// loggedReporter logs the tasks that next shows.
func (a *app) loggedReporter(next progress.Reporter) progress.Reporter {
	if !a.logging.logs() {
		return next
	}
	return &logReporter{a.logger(), next}
}

type logReporter struct {
	log  *slog.Logger
	next progress.Reporter
}

// Start implements progress.Reporter.
func (r *logReporter) Start(name string, total int64, unit progress.Unit) progress.Task {
	r.log.Info("begins", logStep, name, "total", total)
	return &logTask{r.next.Start(name, total, unit), r.log.With(logStep, name)}
}

type logTask struct {
	progress.Task
	log *slog.Logger
}

// Note implements progress.Task.
func (t *logTask) Note(what string) {
	t.log.Debug("done", "what", what)
	t.Task.Note(what)
}

// Done implements progress.Task.
func (t *logTask) Done() {
	t.log.Info("ends")
	t.Task.Done()
}

// hintLogging is about the log.
func hintLogging(err error) string {
	var e *LogError
	if !errors.As(err, &e) {
		return ""
	}
	switch {
	case e.To == "syslog" || e.To == "journald":
		return "is it running here? docs/support.md names the sockets; --log-file needs no service"
	case errors.Is(err, errNotRegular):
		return "name a file; what goes to standard error is asked for with --verbose"
	}
	return "name a file in a directory that can be written to"
}
