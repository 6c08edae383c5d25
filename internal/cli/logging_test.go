package cli

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const logSecret = "s3cret-Kanari"

// listenLog listens as a service for logging does, and returns its socket and the messages it gets.
func listenLog(t *testing.T) (string, func() []string) {
	t.Helper()
	// Paths of sockets are short.
	dir, err := os.MkdirTemp("", "log") //nolint:usetesting // t.TempDir is too long
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "socket")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(); _ = os.RemoveAll(dir) })
	return path, func() []string {
		var all []string
		buffer := make([]byte, 1<<17)
		for {
			if err := c.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			n, err := c.Read(buffer)
			if err != nil {
				return all
			}
			all = append(all, string(buffer[:n]))
		}
	}
}

func logged(t *testing.T, env map[string]string, sockets map[string][]string, args ...string) (code int, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = Run(t.Context(), args, Env{
		Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Now: time.Now, LogSockets: sockets,
		LookupEnv: func(k string) (string, bool) { v, ok := env[k]; return v, ok },
	})
	return code, errs.String()
}

func TestLogFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	env := map[string]string{"SEALIFT_LOG_FORMAT": "json", "SEALIFT_STATE": filepath.Join(t.TempDir(), "state")}
	if code, stderr := logged(t, env, nil, "version", "--log-file", path); code != 0 || stderr != "" {
		t.Fatalf("got %d, %q", code, stderr)
	}
	if code, _ := logged(t, env, nil, "journal", "show", "--log-file", path); code == 0 {
		t.Fatal("there is a journal")
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v", info, err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(raw)) {
		var e struct {
			Time, Level, Msg, Command, Error string
			Exit                             *int
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Time == "" {
			t.Fatalf("%q: %v", line, err)
		}
		got = append(got, e.Level+" "+e.Msg+" "+e.Command)
		if e.Level == "ERROR" && (e.Exit == nil || *e.Exit == 0 || e.Error == "") {
			t.Errorf("got %s", line)
		}
	}
	if want := "INFO command begins sealift version,INFO command ends sealift version,INFO command begins sealift journal show,ERROR command failed sealift journal show"; strings.Join(got, ",") != want {
		t.Errorf("got %q", got)
	}
}

func TestLogErrors(t *testing.T) {
	dir := t.TempDir()
	for _, args := range [][]string{
		{"--log-format", "xml"},
		{"--log-to", "nobody"},
		{"--log-to", "syslog"},
		{"--log-to", "journald"},
		{"--log-file", dir},
		{"--log-file", filepath.Join(dir, "missing", "log")},
		{"--log-file", os.DevNull},
	} {
		sockets := map[string][]string{"syslog": {filepath.Join(dir, "none")}, "journald": {filepath.Join(dir, "none")}}
		if code, stderr := logged(t, nil, sockets, append([]string{"version"}, args...)...); code != ExitFailure || !strings.Contains(stderr, "hint: ") {
			t.Errorf("%q: got %d, %q", args, code, stderr)
		}
	}
}

// logApp is an app that logs to a socket of a kind, and knows a secret.
func logApp(t *testing.T, kind, path string) (*app, *bytes.Buffer) {
	t.Helper()
	var errs bytes.Buffer
	a := &app{env: Env{Stderr: &errs, Now: time.Now, LogSockets: map[string][]string{kind: {path}}, LookupEnv: func(string) (string, bool) { return "", false }}}
	a.logging.format, a.logging.to = "text", kind
	a.secrets.add(logSecret)
	root := (&app{env: a.env}).root()
	root.SetContext(t.Context())
	if err := a.startLogging(root, []string{"https://user:password@host/path"}); err != nil {
		t.Fatal(err)
	}
	return a, &errs
}

func TestSyslog(t *testing.T) {
	path, messages := listenLog(t)
	a, errs := logApp(t, "syslog", path)
	log := a.logger().With(logBundle, "shop")
	log.Info("step begins", logStep, "release", logRelease, "shop/eu", "said", logSecret+"\nline two \x1b[31m")
	log.Debug("not for syslog")
	log.Warn("long " + strings.Repeat("ä", 20_000))
	log.WithGroup("g").Error("it failed", "error", errors.New("with "+logSecret))
	got := messages()
	if len(got) != 4 {
		t.Fatalf("got %d messages: %q", len(got), got)
	}
	for i, want := range []string{"<14>", "<14>", "<12>", "<11>"} {
		if !strings.HasPrefix(got[i], want) || !strings.Contains(got[i], " sealift[") {
			t.Errorf("%d: got %.100q", i, got[i])
		}
		if strings.ContainsAny(got[i], "\n\x1b") || strings.Contains(got[i], logSecret) || strings.Contains(got[i], "user:password") || len(got[i]) > maxSyslog+10 {
			t.Errorf("%d: got %.300q", i, got[i])
		}
	}
	if !strings.Contains(got[1], `msg="step begins" bundle=shop step=release release=shop/eu`) || errs.Len() > 0 {
		t.Errorf("got %q, %q", got[1], errs)
	}
	// A daemon that is gone is told of once.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	_ = a.logging.close[0].Close()
	log.Info("lost")
	log.Info("lost again")
	if n := strings.Count(errs.String(), "warning: what is done cannot be logged to syslog"); n != 1 {
		t.Errorf("got %q", errs)
	}
	a.endLogging(t.Context(), nil, 0)
}

func TestJournald(t *testing.T) {
	path, messages := listenLog(t)
	a, errs := logApp(t, "journald", path)
	log := a.logger().With(logBundle, "shop")
	log.WithGroup("of").Warn("two\nlines of "+logSecret, "Some-Key ü", "x\x1b", slog.Group("inner", "n", 3), "huge", strings.Repeat("y", 1<<17))
	a.endLogging(t.Context(), errors.New("bad"), 21)
	got := messages()
	if len(got) != 3 || errs.Len() > 0 {
		t.Fatalf("got %q, %q", got, errs)
	}
	fields := map[string]string{}
	for rest := got[1]; rest != ""; {
		line, after, ok := strings.Cut(rest, "\n")
		if !ok {
			t.Fatalf("no line: %q", rest)
		}
		name, value, plain := strings.Cut(line, "=")
		if !plain {
			n := int(binary.LittleEndian.Uint64([]byte(after[:8])))
			value, after = after[8:8+n], after[8+n+1:]
		}
		fields[name], rest = value, after
	}
	for name, want := range map[string]string{
		"MESSAGE": "two\nlines of " + hidden, "PRIORITY": "4", "SYSLOG_IDENTIFIER": "sealift", "SEALIFT_BUNDLE": "shop", "SEALIFT_OF_SOME_KEY__": "x\uFFFD", "SEALIFT_OF_INNER_N": "3",
	} {
		if fields[name] != want {
			t.Errorf("%s: got %q, want %q", name, fields[name], want)
		}
	}
	if n := len(fields["SEALIFT_OF_HUGE"]); n < 1000 || n > maxLogText+10 {
		t.Errorf("got %d bytes", n)
	}
	if !strings.Contains(got[2], "PRIORITY=3\n") || !strings.Contains(got[2], "SEALIFT_EXIT=21\n") || !strings.Contains(got[2], "SEALIFT_ERROR=bad\n") {
		t.Errorf("got %q", got[2])
	}
}
