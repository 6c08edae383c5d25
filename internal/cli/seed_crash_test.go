package cli_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sealift/sealift/internal/cli"
	"github.com/sealift/sealift/internal/oci/faultproxy"
	"github.com/sealift/sealift/manifest"
)

// manifestRoom is for all manifests of the bundle and the like, which may be sent once more.
const manifestRoom = 64 << 10

// program is the command line as a process of its own, which has its files in dir.
func program(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := exec.LookPath("sealift")
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(path, args...)
	c.Dir = dir
	c.Env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH"), "SEALIFT_STATE=" + filepath.Join(dir, "state"), "GODEBUG=" + os.Getenv("GODEBUG")}
	return c
}

// TestKilledSeedGoesOn kills seeding processes at random moments: after so many requests, or after so
// many bytes. The next one ends well, the site has everything, and what it had before was not sent again.
func TestKilledSeedGoesOn(t *testing.T) {
	s := newFaultStage(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 2))
	for round := range max(rounds/4, 2) {
		site := newFaultSite(t)
		proxy := faultproxy.Start(t, site)
		dir := t.TempDir()
		args := []string{"seed", "--key", s.key, "--registry", proxy.Addr, s.bundle, "--progress", "none"}
		for kill := range 1 + random.IntN(2) {
			cmd := program(t, dir, args...)
			var output bytes.Buffer
			cmd.Stdout, cmd.Stderr = &output, &output
			started := make(chan struct{})
			var dead atomic.Bool
			die := func() {
				<-started
				dead.Store(true)
				_ = cmd.Process.Kill()
			}
			proxy.Restart()
			if requests := random.IntN(s.seededRequests); round%2 == 0 {
				proxy.When(func(st faultproxy.Stats) bool { return st.Requests >= requests }, die)
			} else {
				at := random.Int64N(s.seededBytes)
				proxy.When(func(st faultproxy.Stats) bool { return st.Up >= at }, die)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			close(started)
			err := cmd.Wait()
			proxy.When(nil, nil)
			if err != nil && !dead.Load() {
				t.Fatalf("round %d, kill %d: %v: %s", round, kill, err, output.Bytes())
			}
		}
		proxy.Wait()
		missing := s.seeded.missing(site)
		proxy.Restart()
		if out, err := program(t, dir, args...).CombinedOutput(); err != nil {
			t.Fatalf("round %d: %v: %s", round, err, out)
		}
		if up := proxy.Stats().Up; up > missing+manifestRoom {
			t.Errorf("round %d: %d bytes were sent, and %d were missing", round, up, missing)
		} else {
			t.Logf("round %d: %d bytes were sent, %d were missing", round, up, missing)
		}
		if got := contentOf(t, site); !reflect.DeepEqual(got, s.seeded) {
			t.Fatalf("round %d: the site has\n%v\nwant\n%v", round, got, s.seeded)
		}
		proxy.Close()
	}
}

// served is "sealift serve --store" as a process.
type served struct {
	t           *testing.T
	store, addr string

	mu  sync.Mutex
	cmd *exec.Cmd // nil where there is none
}

// serveStore serves a directory at an address, which may leave the port open.
func serveStore(t *testing.T, store, addr string) *served {
	t.Helper()
	s := &served{t: t, store: store, addr: addr}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.kill)
	return s
}

// listens finds the address in what the process says.
var listens = regexp.MustCompile(`127\.0\.0\.1:\d+`)

// start starts the process and waits until it says where it listens.
func (s *served) start() error {
	cmd := program(s.t, s.t.TempDir(), "serve", "--store", s.store, "--listen", s.addr)
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = w, w
	err = cmd.Start()
	if err = errors.Join(err, w.Close()); err != nil {
		return errors.Join(err, r.Close())
	}
	s.mu.Lock()
	s.cmd = cmd
	s.mu.Unlock()
	said := bufio.NewReader(r)
	var all strings.Builder
	for {
		line, err := said.ReadString('\n')
		all.WriteString(line)
		if found := listens.FindString(line); found != "" {
			s.addr = found
			break
		}
		if err != nil {
			s.kill()
			return fmt.Errorf("serve has ended, having said %q: %w", all.String(), errors.Join(err, r.Close()))
		}
	}
	go func() {
		_, _ = io.Copy(io.Discard, said)
		_ = r.Close()
	}()
	return nil
}

// signal sends the process a signal.
func (s *served) signal(sig os.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd != nil {
		_ = s.cmd.Process.Signal(sig)
	}
}

// wait waits for the end of the process.
func (s *served) wait() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd != nil {
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// kill kills the process, if there is one, and waits for its end.
func (s *served) kill() {
	s.signal(os.Kill)
	s.wait()
}

// handler passes requests on to the process.
func (s *served) handler() http.Handler {
	return faultproxy.Upstream(&url.URL{Scheme: "http", Host: s.addr})
}

// acknowledged notes what a registry says that it has stored.
type acknowledged struct {
	next http.Handler
	mu   sync.Mutex
	all  map[string]string // digests, by the paths to read them under
}

func (a *acknowledged) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.next.ServeHTTP(&acknowledging{w, r, a}, r)
}

type acknowledging struct {
	http.ResponseWriter
	r *http.Request
	a *acknowledged
}

// Unwrap lets the connection be flushed.
func (w *acknowledging) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *acknowledging) WriteHeader(status int) {
	digest := w.Header().Get("Docker-Content-Digest")
	if status == http.StatusCreated && digest != "" {
		path := w.r.URL.Path
		if repo, _, blob := strings.Cut(path, "/blobs/"); blob {
			path = repo + "/blobs/" + digest
		}
		w.a.mu.Lock()
		w.a.all[path] = digest
		w.a.mu.Unlock()
	}
	w.ResponseWriter.WriteHeader(status)
}

// TestKilledRegistryKeepsWhatItHasTaken kills "sealift serve --store" at random moments while it is
// being seeded. When it is started again, all that it had acknowledged is there, all that a tag leads to
// is whole, and seeding goes on.
func TestKilledRegistryKeepsWhatItHasTaken(t *testing.T) {
	s := newFaultStage(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 3))
	for round := range max(rounds/6, 2) {
		server := serveStore(t, t.TempDir(), "127.0.0.1:0")
		attachSBOM(t, server.addr, "of the site")
		notes := &acknowledged{next: server.handler(), all: map[string]string{}}
		proxy := faultproxy.Start(t, notes)
		ctx, cancel := context.WithCancel(t.Context())
		crash := func() { server.signal(os.Kill); cancel() }
		if requests := s.seededRequests/3 + random.IntN(s.seededRequests/2); round%2 == 0 {
			proxy.When(func(st faultproxy.Stats) bool { return st.Requests >= requests }, crash)
		} else {
			at := random.Int64N(s.seededBytes)
			proxy.When(func(st faultproxy.Stats) bool { return st.Up >= at }, crash)
		}
		dir := t.TempDir()
		code, stderr := runFaulty(ctx, t, dir, nil, "seed", "--key", s.key, "--registry", proxy.Addr, s.bundle, "--progress", "none")
		if ctx.Err() == nil {
			t.Fatalf("round %d: it was not killed: exit code %d: %s", round, code, stderr)
		}
		cancel()
		server.kill()
		proxy.Close()
		if err := server.start(); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		site := server.handler()
		for path, digest := range notes.all {
			got := pull(site, http.MethodGet, path)
			if raw := got.Body.Bytes(); got.Code != http.StatusOK || manifest.Digest(raw) != digest {
				t.Errorf("round %d: it has acknowledged %s, and now says %d, %d bytes", round, path, got.Code, len(raw))
			}
		}
		// Tags that were not acknowledged may be listed and lead nowhere yet.
		before, dangling := walkThrough(t, site)
		missing := s.seeded.missing(site)
		through := faultproxy.Start(t, site)
		if code, stderr := s.seed(t, dir, through.Addr, nil); code != 0 {
			t.Fatalf("round %d: exit code %d: %s", round, code, stderr)
		}
		up := through.Stats().Up
		t.Logf("round %d: %d acknowledged, %d tags, %v dangling; then %d bytes were sent, %d were missing", round, len(notes.all), len(before.tags), dangling, up, missing)
		if up > missing+manifestRoom {
			t.Errorf("round %d: %d bytes were sent, and %d were missing", round, up, missing)
		}
		if got := contentOf(t, site); !reflect.DeepEqual(got, s.seeded) {
			t.Fatalf("round %d: the site has\n%v\nwant\n%v", round, got, s.seeded)
		}
		through.Close()
		server.kill()
	}
}

// refusals watches the connections of a seed. It calls broken when so many bytes were written to them,
// and refused with the number of each one that was refused since then.
type refusals struct {
	at      int64
	broken  func()
	refused func(n int)

	written atomic.Int64
	once    sync.Once
	mu      sync.Mutex
	n       int
}

func (r *refusals) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if errors.Is(err, syscall.ECONNREFUSED) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.n++
		r.refused(r.n)
	}
	if err != nil {
		return nil, err
	}
	return &watchedConn{c, r}, nil
}

func (r *refusals) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n
}

type watchedConn struct {
	net.Conn
	r *refusals
}

func (c *watchedConn) Write(p []byte) (int, error) {
	total := 0
	for len(p) > 0 {
		// In pieces, so that any byte can be the last one.
		n, err := c.Conn.Write(p[:min(len(p), 16<<10)])
		total += n
		if c.r.written.Add(int64(n)) >= c.r.at {
			c.r.once.Do(c.r.broken)
		}
		if err != nil {
			return total, err
		}
		p = p[n:]
	}
	return total, nil
}

// TestRegistryRestartedHalfWay: a registry that goes away in the middle of a seed, whose port refuses
// connections for a while, and that comes back with what it had, is waited for.
func TestRegistryRestartedHalfWay(t *testing.T) {
	s := newFaultStage(t)
	t.Run("connections refused", func(t *testing.T) {
		site := newFaultSite(t)
		proxy := faultproxy.Start(t, site)
		r := &refusals{at: s.seededBytes / 2, broken: proxy.Down, refused: func(n int) {
			if n == 3 {
				if err := proxy.Up(); err != nil {
					t.Error(err)
				}
			}
		}}
		code, stderr := s.seed(t, t.TempDir(), proxy.Addr, r.dial)
		if code != 0 || r.count() < 3 {
			t.Fatalf("exit code %d after %d refused connections: %s", code, r.count(), stderr)
		}
		if got := contentOf(t, site); !reflect.DeepEqual(got, s.seeded) {
			t.Fatalf("the site has\n%v\nwant\n%v", got, s.seeded)
		}
		if up := proxy.Stats().Up; up > 2*s.seededBytes {
			t.Errorf("%d bytes were sent, %d at once", up, s.seededBytes)
		}
	})
	for name, end := range map[string]os.Signal{"terminated": syscall.SIGTERM, "killed": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			server := serveStore(t, t.TempDir(), "127.0.0.1:0")
			attachSBOM(t, server.addr, "of the site")
			r := &refusals{at: s.seededBytes / 2, broken: func() { server.signal(end) }, refused: func(n int) {
				if n != 2 {
					return
				}
				server.wait()
				if err := server.start(); err != nil {
					t.Error(err)
				}
			}}
			code, stderr := s.seed(t, t.TempDir(), server.addr, r.dial)
			if code != 0 || r.count() < 2 {
				t.Fatalf("exit code %d after %d refused connections: %s", code, r.count(), stderr)
			}
			if got := contentOf(t, server.handler()); !reflect.DeepEqual(got, s.seeded) {
				t.Fatalf("the site has\n%v\nwant\n%v", got, s.seeded)
			}
		})
	}
	t.Run("the vendor's", func(t *testing.T) {
		proxy := faultproxy.Start(t, s.vendor)
		up := make(chan error, 1)
		proxy.When(func(st faultproxy.Stats) bool { return st.Down > s.packedBytes/2 }, func() {
			proxy.Down()
			time.AfterFunc(300*time.Millisecond, func() { up <- proxy.Up() })
		})
		dir := t.TempDir()
		if code, stderr := s.pack(t, dir, proxy.Addr); code != 0 {
			t.Fatalf("exit code %d: %s", code, stderr)
		}
		if err := <-up; err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(dir, "shop-1.0.0.tar.zst")); err != nil || !bytes.Equal(got, s.packed) {
			t.Fatalf("the bundle differs from the one that is packed without faults: %v", err)
		}
	})
}

// TestFullDiskOfRegistry: a registry without room is told from one that fails, in its own words and
// soon; when there is room, seeding goes on where it was.
func TestFullDiskOfRegistry(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a file system that is small enough to be full")
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("no small file system can be mounted here: %v: %s", err, out)
	}
	defer func() { _ = exec.Command("umount", "-l", dir).Run() }()
	s := newFaultStage(t)
	site := newStore(t, filepath.Join(dir, "store"))
	proxy := faultproxy.Start(t, site)
	attachSBOM(t, proxy.Addr, "of the site")
	proxy.Restart()
	record := t.TempDir()
	code, stderr := s.seed(t, record, proxy.Addr, nil)
	stats := proxy.Stats()
	t.Logf("exit code %d, %+v: %s", code, stats, stderr)
	if code != cli.ExitRegistry || !strings.Contains(stderr, "no space left on device") || !strings.Contains(stderr, "target registry "+proxy.Addr) {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	if stats.Up > 3*s.seededBytes {
		t.Errorf("%d bytes were sent to a full disk", stats.Up)
	}
	out, err := exec.Command("mount", "-o", "remount,size=64m", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("mount: %v: %s", err, out)
	}
	missing := s.seeded.missing(site)
	proxy.Restart()
	if code, stderr := s.seed(t, record, proxy.Addr, nil); code != 0 {
		t.Fatalf("with room: exit code %d: %s", code, stderr)
	}
	if up := proxy.Stats().Up; missing >= s.seededBytes || up > missing+manifestRoom {
		t.Errorf("%d bytes were sent, and %d of %d were missing", up, missing, s.seededBytes)
	}
	if got := contentOf(t, site); !reflect.DeepEqual(got, s.seeded) {
		t.Fatalf("the site has\n%v\nwant\n%v", got, s.seeded)
	}
}
