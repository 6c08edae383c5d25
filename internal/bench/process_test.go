//go:build linux

package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// usage is what one process, or several one after the other, took.
type usage struct {
	wall, cpu time.Duration
	// rss is the most memory that was resident at any time.
	rss int64
	// written are the bytes that were given to the disk, before any that were taken back.
	written int64
	// read and sent are the bytes that went through system calls that read and write, from and
	// to files and connections.
	read, sent int64
	// temp is the most disk that was in use at any time beyond what was left in the end.
	temp int64
	// strays are files that were left in the temporary or the home directory.
	strays []string
	// phases is how long each task took, where the process told its progress as JSON.
	phases map[string]time.Duration
}

// then adds a process that ran after those of u.
func (u usage) then(o usage) usage {
	return usage{
		wall: u.wall + o.wall, cpu: u.cpu + o.cpu, rss: max(u.rss, o.rss), written: u.written + o.written,
		read: u.read + o.read, sent: u.sent + o.sent, temp: max(u.temp, o.temp), strays: append(u.strays, o.strays...),
	}
}

// sandbox is where processes run: their working, temporary and home directories, empty at
// first, so that everything that they leave behind is seen.
type sandbox struct {
	work, tmp, home string
}

func newSandbox(root string) (*sandbox, error) {
	s := &sandbox{filepath.Join(root, "work"), filepath.Join(root, "tmp"), filepath.Join(root, "home")}
	for _, dir := range []string{s.work, s.tmp, s.home} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *sandbox) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	cmd.Dir = s.work
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + s.home, "TMPDIR=" + s.tmp, "DOCKER_CONFIG=" + s.home,
		"XDG_RUNTIME_DIR=" + s.home, "COSIGN_PASSWORD=bench", "SEALIFT_PROGRESS=none", "SEALIFT_STATE=" + s.home + "-state", "SEALIFT_CONFIG=" + s.home + "-config",
		// Lets skopeo keep its cache in the home directory also for root.
		"_CONTAINERS_ROOTLESS_UID=1",
	}
	return cmd
}

// run runs a program to its end and measures it.
func (s *sandbox) run(ctx context.Context, name string, args ...string) (usage, error) {
	return s.runOn(ctx, "", name, args...)
}

// runOn is run with a file that comes through a pipe on standard input.
func (s *sandbox) runOn(ctx context.Context, stdin, name string, args ...string) (u usage, err error) {
	// What earlier processes wrote must not be waited for by this one.
	syscall.Sync()
	var out bytes.Buffer
	cmd := s.command(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if stdin != "" {
		pipe, piped, err := pour(stdin)
		if err != nil {
			return usage{}, err
		}
		defer func() { err = errors.Join(err, pipe.Close(), <-piped) }()
		cmd.Stdin = pipe
	}
	floor := peakMemory(os.Getpid())
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		return usage{}, err
	}
	stop, watched := make(chan struct{}), make(chan watch)
	go func() { watched <- s.watch(cmd.Process.Pid, stop) }()
	ended := awaitEnd(cmd.Process.Pid)
	u.wall = time.Since(begun)
	// What is counted for a process is there until somebody has waited for it.
	u.read, u.sent = traffic(cmd.Process.Pid)
	err = errors.Join(ended, cmd.Wait())
	close(stop)
	w := <-watched
	if err != nil {
		return usage{}, fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, out.Bytes())
	}
	u.rss, u.temp, u.phases = w.rss, max(0, w.disk-diskUse(s.work, s.tmp, s.home)), phases(out.Bytes())
	addState(&u, cmd.ProcessState, floor)
	for _, dir := range []string{s.tmp, s.home} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				u.strays = append(u.strays, path)
			}
			return err
		})
		if err != nil {
			return usage{}, err
		}
	}
	return u, nil
}

// pour gives the content of a file through a pipe. When the pipe is closed, the channel says
// what went wrong.
func pour(path string) (*os.File, <-chan error, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	done := make(chan error, 1)
	go func() {
		_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{f}, make([]byte, 1<<20))
		if errors.Is(err, syscall.EPIPE) {
			err = nil // whoever reads has seen enough, and says itself whether all is well
		}
		done <- errors.Join(err, w.Close(), f.Close())
	}()
	return r, done, nil
}

// awaitEnd returns when a process has ended, and leaves it to be waited for.
func awaitEnd(pid int) error {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// traffic is what a process has read and written until now, through system calls.
func traffic(pid int) (read, sent int64) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(raw)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		n, _ := strconv.ParseInt(value, 10, 64)
		switch name {
		case "rchar":
			read = n
		case "wchar":
			sent = n
		}
	}
	return read, sent
}

// phases finds in the output of Sealift what '--progress json' says about ended tasks.
func phases(out []byte) map[string]time.Duration {
	var all map[string]time.Duration
	for line := range bytes.Lines(out) {
		var p struct {
			Task, Event string
			Seconds     float64
		}
		if json.Unmarshal(line, &p) == nil && p.Event == "end" {
			if all == nil {
				all = map[string]time.Duration{}
			}
			all[p.Task] += time.Duration(p.Seconds * float64(time.Second))
		}
	}
	return all
}

// addState adds what the kernel counted for a process that ended.
func addState(u *usage, state *os.ProcessState, floor int64) {
	u.cpu = state.UserTime() + state.SystemTime()
	ru := state.SysUsage().(*syscall.Rusage)
	// What the process caused to be sent to the disk, in units of 512 bytes.
	u.written = ru.Oublock * 512
	// The kernel's peak is exact, but that of a process which Go starts begins with the peak
	// of this one. Below it there are only the samples.
	if peak := ru.Maxrss * 1024; peak > floor {
		u.rss = max(u.rss, peak)
	} else if u.wall > 0 && u.wall < 10*samples {
		u.rss = 0 // too few of them: not known
	}
}

type watch struct{ rss, disk int64 }

// samples is the time between looks at a process.
const samples = 10 * time.Millisecond

// watch samples a process until stop is closed.
func (s *sandbox) watch(pid int, stop <-chan struct{}) (w watch) {
	tick := time.NewTicker(samples)
	defer tick.Stop()
	for i := 0; ; i++ {
		w.rss = max(w.rss, peakMemory(pid))
		if i%5 == 0 {
			w.disk = max(w.disk, diskUse(s.work, s.tmp, s.home))
		}
		select {
		case <-stop:
			return w
		case <-tick.C:
		}
	}
}

// peakMemory is the most memory that a process has had resident until now, 0 if it is gone.
func peakMemory(pid int) int64 {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			n, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return n * 1024
		}
	}
	return 0
}

// diskUse is the space that the files below some directories take.
func diskUse(dirs ...string) int64 {
	var n int64
	for _, dir := range dirs {
		// Files come and go while a process runs.
		_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				n += blocks(d)
			}
			return nil
		})
	}
	return n
}

func blocks(d fs.DirEntry) int64 {
	info, err := d.Info()
	if err != nil {
		return 0
	}
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}

// server is a 'sealift serve' process.
type server struct {
	addr  string
	cmd   *exec.Cmd
	floor int64
}

// serve starts a registry on a free port of loopback.
func (s *sandbox) serve(ctx context.Context, bin, store string) (*server, error) {
	cmd := s.command(ctx, bin, "serve", "--store", store, "--listen", "127.0.0.1:0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	floor := peakMemory(os.Getpid())
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(out)
	if lines.Scan() {
		if _, addr, ok := strings.Cut(lines.Text(), " on "); ok {
			return &server{addr, cmd, floor}, nil
		}
	}
	return nil, errors.Join(fmt.Errorf("%s serve did not say where it listens", bin), cmd.Process.Kill(), cmd.Wait())
}

// stop ends the registry and says what it took.
func (s *server) stop() (usage, error) {
	u := usage{rss: peakMemory(s.cmd.Process.Pid)}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return u, err
	}
	if err := s.cmd.Wait(); err != nil {
		return u, fmt.Errorf("ending the registry: %w", err)
	}
	addState(&u, s.cmd.ProcessState, s.floor)
	return u, nil
}
