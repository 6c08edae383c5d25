package cli_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// process is one that runs in the background of a script, as a service does.
type process struct {
	cmd         *exec.Cmd
	out, errOut output
	ended       chan struct{}
}

// output is what a process has written so far.
type output struct {
	mu      sync.Mutex
	b       bytes.Buffer
	changed chan struct{}
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.changed <- struct{}{}:
	default:
	}
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

var (
	processesMu sync.Mutex
	processes   = map[string]*process{}
)

// listening is what 'sealift serve' prints when it does.
var listening = regexp.MustCompile(`(?m)^serving .* on (\S+)$`)

// cmdServing starts 'sealift serve' in the background and puts its address into $NAME:
// serving NAME ARGS... . It is stopped at the end, or by "ended".
func cmdServing(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: serving NAME ARGS...")
	}
	p := &process{ended: make(chan struct{})}
	p.out.changed, p.errOut.changed = make(chan struct{}, 1), make(chan struct{}, 1)
	program, err := exec.LookPath("sealift")
	ts.Check(err)
	p.cmd = exec.Command(program, append([]string{"serve"}, args[1:]...)...)
	p.cmd.Dir = ts.MkAbs(".")
	p.cmd.Env = scriptEnv(ts)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.errOut
	ts.Check(p.cmd.Start())
	go func() {
		_ = p.cmd.Wait()
		close(p.ended)
	}()
	ts.Defer(func() {
		_ = p.cmd.Process.Kill()
		<-p.ended
	})
	for {
		if m := listening.FindStringSubmatch(p.out.String()); m != nil {
			processesMu.Lock()
			processes[m[1]] = p
			processesMu.Unlock()
			ts.Setenv(args[0], m[1])
			return
		}
		select {
		case <-p.out.changed:
		case <-p.ended:
			ts.Fatalf("it has ended: %s%s", p.out.String(), p.errOut.String())
		case <-time.After(time.Minute):
			ts.Fatalf("it does not serve: %s%s", p.out.String(), p.errOut.String())
		}
	}
}

// scriptEnv is the environment of the script.
func scriptEnv(ts *testscript.TestScript) []string {
	env := []string{}
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "SEALIFT_STATE", "SEALIFT_CONFIG", "SOURCE_DATE_EPOCH", "GODEBUG", "GOCOVERDIR"} {
		if v := ts.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}

func processOf(ts *testscript.TestScript, addr string) *process {
	processesMu.Lock()
	defer processesMu.Unlock()
	p := processes[addr]
	if p == nil {
		ts.Fatalf("nothing serves at %q", addr)
	}
	return p
}

// cmdEnded sends a process a signal and compares how it ends: ended ADDR SIGNAL CODE, with code -1 for
// one that is killed. What it has written becomes the files served.out and served.err.
func cmdEnded(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: ended ADDR SIGNAL CODE")
	}
	p := processOf(ts, args[0])
	ts.Check(p.cmd.Process.Signal(map[string]os.Signal{"INT": os.Interrupt, "TERM": syscall.SIGTERM, "KILL": os.Kill}[args[1]]))
	select {
	case <-p.ended:
	case <-time.After(time.Minute):
		ts.Fatalf("it does not end")
	}
	ts.Check(os.WriteFile(ts.MkAbs("served.out"), []byte(p.out.String()), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs("served.err"), []byte(p.errOut.String()), 0o600))
	if got := strconv.Itoa(p.cmd.ProcessState.ExitCode()); got != args[2] {
		ts.Fatalf("exit code %s, want %s: %s", got, args[2], p.errOut.String())
	}
}

// cmdHangup sends SIGHUP and waits until a file is there that was not: hangup ADDR FILE.
func cmdHangup(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: hangup ADDR FILE")
	}
	p := processOf(ts, args[0])
	ts.Check(p.cmd.Process.Signal(syscall.SIGHUP))
	for range 6000 {
		if _, err := os.Stat(ts.MkAbs(args[1])); err == nil {
			return
		}
		select {
		case <-p.ended:
			ts.Fatalf("it has ended: %s", p.errOut.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
	ts.Fatalf("%s is not there", args[1])
}

// cmdHTTP asks a server and compares the status, and with a pattern what comes back:
// http METHOD URL STATUS [user=NAME:PASSWORD] [ca=FILE] [type=MEDIA TYPE] [body=TEXT] [PATTERN].
func cmdHTTP(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: http METHOD URL STATUS [user=NAME:PASSWORD] [ca=FILE] [type=MEDIA TYPE] [body=TEXT] [PATTERN]")
	}
	var user, pattern, mediaType, body string
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	for _, option := range args[3:] {
		name, value, _ := strings.Cut(option, "=")
		switch name {
		case "user":
			user = value
		case "ca":
			roots := x509.NewCertPool()
			roots.AppendCertsFromPEM([]byte(ts.ReadFile(value)))
			transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
		case "type":
			mediaType = value
		case "body":
			body = value
		default:
			pattern = option
		}
	}
	req, err := http.NewRequest(args[0], args[1], strings.NewReader(body))
	ts.Check(err)
	if mediaType != "" {
		req.Header.Set("Content-Type", mediaType)
		req.Header.Set("Accept", mediaType)
	}
	if name, password, ok := strings.Cut(user, ":"); ok {
		req.SetBasicAuth(name, password)
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	ts.Check(err)
	if got := fmt.Sprint(resp.StatusCode); got != args[2] {
		ts.Fatalf("%s %s: status %s, want %s: %s", args[0], args[1], got, args[2], raw)
	}
	if pattern == "" {
		return
	}
	re, err := regexp.Compile("(?m)" + pattern)
	ts.Check(err)
	if !re.Match(raw) {
		ts.Fatalf("%s %s: no match for %q in: %s", args[0], args[1], pattern, raw)
	}
}
