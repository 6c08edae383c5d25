package cli_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/rogpeppe/go-internal/testscript"
	helmregistry "helm.sh/helm/v4/pkg/registry"

	"github.com/sealift/sealift/internal/cli"
	"github.com/sealift/sealift/internal/containerd/containerdtest"
	"github.com/sealift/sealift/internal/registry"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"sealift": func() {
			ctx, _ := cli.WithSignals(context.Background())
			os.Exit(cli.Run(ctx, os.Args[1:], cli.OS()))
		},
	})
}

// TestScripts runs testdata/script/*.txtar: the commands as a user types them, against real
// registries in this process.
func TestScripts(t *testing.T) {
	const dir = "../../testdata/script"
	params := testscript.Params{
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code": cmdCode, "registry": cmdRegistry, "image": cmdImage, "fault": cmdFault, "writes": cmdWrites,
			"flip": cmdFlip, "truncate": cmdTruncate, "append": cmdAppend, "samebutsigned": cmdSame, "absent": cmdAbsent,
			"smalldisk": cmdSmallDisk, "interrupt": cmdInterrupt, "digest": cmdDigest, "envsubst": cmdEnvSubst, "debianregistry": cmdDebianRegistry, "helmpull": cmdHelmPull, "firstword": cmdFirstWord, "digestof": cmdDigestOf, "hasall": cmdHasAll, "inlinekeys": cmdInlineKeys, "kms": cmdKMS, "served": cmdServed, "untagged": cmdUntagged,
			"chartpush": cmdChartPush, "chartrepo": cmdChartRepo, "layout": cmdLayout, "artifact": cmdArtifact,
			"chartpack": cmdChartPack, "chartindex": cmdChartIndex, "webserver": cmdWebServer, "pgpkey": cmdPGPKey, "provenance": cmdProvenance, "helmpullprov": cmdHelmPullProv,
			"tarred": cmdTarred, "dockersave": cmdDockerSave, "shut": cmdShut, "bigfile": cmdBigFile, "attached": cmdAttached,
			"containerd": cmdContainerd, "unpackable": cmdUnpackable, "sees": cmdSees, "runnable": cmdRunnable, "killedload": cmdKilledLoad,
			"serving": cmdServing, "ended": cmdEnded, "hangup": cmdHangup, "http": cmdHTTP, "pulls": cmdPulls,
			"imagekey": cmdImageKey, "secure": cmdSecure, "signimage": cmdSignImage, "attach": cmdAttach, "signed": cmdSigned,
		},
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Geteuid() == 0, nil
			}
			if cond == "containerd" {
				return containerdtest.Unavailable() == "", nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Setup: func(e *testscript.Env) error {
			e.Setenv("COSIGN_PASSWORD", "secret")
			e.Setenv("HOME", e.WorkDir)
			// As root the default is the machine's own.
			e.Setenv("SEALIFT_STATE", filepath.Join(e.WorkDir, ".state"))
			e.Setenv("SEALIFT_CONFIG", filepath.Join(e.WorkDir, ".config.yaml"))
			e.Setenv("SOURCE_DATE_EPOCH", "1767323045")
			// The mode of the cryptography that the tests are run with is that of the program.
			e.Setenv("GODEBUG", os.Getenv("GODEBUG"))
			e.Setenv("CHECKER", mustAbs("../../testdata/checker/sealift_check.py"))
			return nil
		},
	}
	if scriptFiles == nil {
		params.Dir = dir
	}
	for _, name := range scriptFiles {
		params.Files = append(params.Files, filepath.Join(dir, name+".txtar"))
	}
	testscript.Run(t, params)
}

func mustAbs(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		panic(err)
	}
	return abs
}

// cmdCode runs a command and compares its exit code: code 11 sealift verify ...
func cmdCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("%v: exit code %d, want %d", args[1:], got, want)
	}
}

// site is a registry whose answers can be made to go wrong.
type site struct {
	mu      sync.Mutex
	next    http.Handler
	faults  []*fault
	writes  int
	served  atomic.Int64 // bytes of blobs that were sent
	hung    string       // file that is made when a request hangs
	closing chan struct{}
	auth    bool
	server  *httptest.Server
}

type fault struct {
	kind, method, path string
	left, skip         int
}

func (s *site) take(r *http.Request) *fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Method == http.MethodPut || r.Method == http.MethodPost || r.Method == http.MethodPatch {
		s.writes++
	}
	for _, f := range s.faults {
		if f.left > 0 && f.method == r.Method && strings.Contains(r.URL.RequestURI(), f.path) {
			if f.skip > 0 {
				f.skip--
				continue
			}
			f.left--
			return f
		}
	}
	return nil
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if user, password, _ := r.BasicAuth(); s.auth && (user != "jane" || password != "s3cret") {
		w.Header().Set("WWW-Authenticate", `Basic realm="site"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/sha256") {
		w = &countWriter{w, &s.served}
	}
	f := s.take(r)
	if f == nil {
		s.next.ServeHTTP(w, r)
		return
	}
	switch f.kind {
	case "hang":
		// With its body read, the server sees when the client goes away.
		_, _ = io.Copy(io.Discard, r.Body)
		_ = os.WriteFile(s.hung, nil, 0o600)
		select {
		case <-r.Context().Done():
		case <-s.closing:
		}
	case "drop":
		panic(http.ErrAbortHandler)
	case "retag":
		s.retag(r.URL.Path)
		s.next.ServeHTTP(w, r)
	case "cut":
		s.next.ServeHTTP(&cutWriter{ResponseWriter: w, left: 1000}, r)
	case "stall":
		// So many bytes, and then nothing.
		s.next.ServeHTTP(&cutWriter{ResponseWriter: w, left: 3 << 20, cut: func() {
			_ = http.NewResponseController(w).Flush()
			_ = os.WriteFile(s.hung, nil, 0o600)
			select {
			case <-r.Context().Done():
			case <-s.closing:
			}
		}}, r)
	case "norange":
		r.Header.Del("Range")
		s.next.ServeHTTP(w, r)
	case "corrupt":
		s.next.ServeHTTP(&corruptWriter{w}, r)
	default:
		// As "429" or, with the seconds of a Retry-After, "429/1".
		status, seconds, busy := strings.Cut(f.kind, "/")
		code, err := strconv.Atoi(status)
		if err != nil {
			panic(err)
		}
		_, _ = io.Copy(io.Discard, r.Body)
		if busy {
			w.Header().Set("Retry-After", seconds)
		}
		w.WriteHeader(code)
		if code == http.StatusTooManyRequests {
			_, _ = io.WriteString(w, `{"errors":[{"code":"TOOMANYREQUESTS","message":"the pull limit of your plan is reached"}]}`)
		}
	}
}

// retag gives the tag 1.0 of a repository to what is tagged "other" there, as somebody else at
// the site might at any time.
func (s *site) retag(path string) {
	repo, _, _ := strings.Cut(path, "/blobs/")
	got := httptest.NewRecorder()
	get := httptest.NewRequest(http.MethodGet, repo+"/manifests/other", nil)
	get.Header.Set("Accept", string(types.OCIManifestSchema1))
	s.next.ServeHTTP(got, get)
	put := httptest.NewRequest(http.MethodPut, repo+"/manifests/1.0", got.Body)
	put.Header.Set("Content-Type", string(types.OCIManifestSchema1))
	done := httptest.NewRecorder()
	s.next.ServeHTTP(done, put)
	if done.Code != http.StatusCreated {
		panic(fmt.Sprintf("retag: %d %s", done.Code, done.Body))
	}
}

// cutWriter ends a response after some bytes, with the announced length kept.
type cutWriter struct {
	http.ResponseWriter
	left int
	cut  func()
}

func (c *cutWriter) Write(p []byte) (int, error) {
	n := min(len(p), c.left)
	if _, err := c.ResponseWriter.Write(p[:n]); err != nil {
		return 0, err
	}
	if c.left -= n; c.left == 0 {
		if c.cut != nil {
			c.cut()
		}
		panic(http.ErrAbortHandler)
	}
	return n, nil
}

// countWriter counts what is sent.
type countWriter struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c *countWriter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.n.Add(int64(n))
	return n, err
}

// Unwrap lets the connection be flushed.
func (c *countWriter) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// cmdServed checks how many bytes of blobs a registry has sent since the last time:
// served ADDR LEAST MOST.
func cmdServed(ts *testscript.TestScript, _ bool, args []string) {
	least, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	most, err := strconv.ParseInt(args[2], 10, 64)
	ts.Check(err)
	if n := siteOf(ts, args[0]).served.Swap(0); n < least || n > most {
		ts.Fatalf("%d bytes of blobs were sent, want %d to %d", n, least, most)
	}
}

// corruptWriter changes the first byte of each piece.
type corruptWriter struct{ http.ResponseWriter }

func (c *corruptWriter) Write(p []byte) (int, error) {
	q := slices.Clone(p)
	if len(q) > 0 {
		q[0] ^= 1
	}
	return c.ResponseWriter.Write(q)
}

var (
	sitesMu sync.Mutex
	sites   = map[string]*site{}
)

func siteOf(ts *testscript.TestScript, addr string) *site {
	sitesMu.Lock()
	defer sitesMu.Unlock()
	s := sites[addr]
	if s == nil {
		ts.Fatalf("no registry %q", addr)
	}
	return s
}

// cmdRegistry starts one: registry NAME [strict] [auth] puts its address into $NAME. With auth
// it lets only jane in, whose password is s3cret.
func cmdRegistry(ts *testscript.TestScript, _ bool, args []string) {
	strict := slices.Contains(args[1:], "strict")
	app, err := registry.New(context.Background(), registry.Options{Store: ts.MkAbs("store-" + args[0]), SparseIndexes: !strict})
	ts.Check(err)
	s := &site{next: app.Handler(), hung: ts.MkAbs("hung"), closing: make(chan struct{}), auth: slices.Contains(args[1:], "auth")}
	s.serve(ts, httptest.NewServer)
	ts.Setenv(args[0], strings.TrimPrefix(s.server.URL, "http://"))
}

// serve starts the server, of which faults and the like know by its address.
func (s *site) serve(ts *testscript.TestScript, start func(http.Handler) *httptest.Server) {
	s.server = start(s)
	ts.Defer(func() { close(s.closing); s.server.CloseClientConnections(); s.server.Close() })
	sitesMu.Lock()
	sites[s.server.Listener.Addr().String()] = s
	sitesMu.Unlock()
}

// cmdFault makes the next N requests, after SKIP good ones, go wrong:
// fault ADDR KIND METHOD PATH N [SKIP].
func cmdFault(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[4])
	ts.Check(err)
	s := siteOf(ts, args[0])
	s.mu.Lock()
	defer s.mu.Unlock()
	f := &fault{kind: args[1], method: args[2], path: args[3], left: n}
	if len(args) > 5 {
		f.skip, err = strconv.Atoi(args[5])
		ts.Check(err)
	}
	s.faults = []*fault{f}
}

// cmdWrites compares how many writing requests a registry got since the last time.
func cmdWrites(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[1])
	ts.Check(err)
	s := siteOf(ts, args[0])
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writes != want {
		ts.Fatalf("%d writing requests, want %d", s.writes, want)
	}
	s.writes = 0
}

// cmdImage pushes a small image, or an index where there are several platforms:
// image REF PLATFORM[,PLATFORM...] SEED [plain] [BYTES]. The same seed gives the same bytes. The
// first layer depends on the first word of the seed up to a dash only, as a shared base does. With
// plain there is a third layer that is not compressed; BYTES is the size of the last layer.
func cmdImage(ts *testscript.TestScript, _ bool, args []string) {
	ref, err := name.ParseReference(args[0])
	ts.Check(err)
	img, index, err := makeImages(args[1], args[2], args[3:]...)
	ts.Check(err)
	if index != nil {
		ts.Check(remote.WriteIndex(ref, index))
		return
	}
	ts.Check(remote.Write(ref, img))
}

// makeImages makes an image, or an index where there are several platforms.
func makeImages(list, seed string, more ...string) (v1.Image, v1.ImageIndex, error) {
	platforms := strings.Split(list, ",")
	var adds []mutate.IndexAddendum
	for _, p := range platforms {
		img, err := makeImage(p, seed, more...)
		if err != nil || len(platforms) == 1 {
			return img, nil, err
		}
		plat, err := v1.ParsePlatform(p)
		if err != nil {
			return nil, nil, err
		}
		adds = append(adds, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: plat}})
	}
	return nil, mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), adds...), nil
}

func makeImage(platform, seed string, more ...string) (v1.Image, error) {
	base, _, _ := strings.Cut(seed, "-")
	layers := []v1.Layer{static.NewLayer(bytesOf(base, 20000), types.OCILayer)}
	size := 30000
	for _, m := range more {
		if m == "plain" {
			layers = append(layers, static.NewLayer(plainLayer(seed+platform), types.OCIUncompressedLayer))
			continue
		}
		var err error
		if size, err = strconv.Atoi(m); err != nil {
			return nil, err
		}
	}
	layers = append(layers, static.NewLayer(bytesOf(seed+platform, size), types.OCILayer))
	img, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), layers...)
	if err != nil {
		return nil, err
	}
	plat, err := v1.ParsePlatform(platform)
	if err != nil {
		return nil, err
	}
	c, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	c.OS, c.Architecture, c.Variant = plat.OS, plat.Architecture, plat.Variant
	return mutate.ConfigFile(mutate.ConfigMediaType(img, types.OCIConfigJSON), c)
}

// plainLayer is bytes that can be compressed, as those of a plain tar.
func plainLayer(seed string) []byte {
	var b bytes.Buffer
	for i := range 40000 {
		fmt.Fprintf(&b, "%s: line %d of a file that is not compressed, %d\n", seed, i, i*i%977)
	}
	return b.Bytes()
}

func bytesOf(seed string, n int) []byte {
	var s [32]byte
	copy(s[:], seed)
	r := rand.NewChaCha8(s)
	b := make([]byte, n)
	_, _ = r.Read(b)
	return b
}

// cmdDigest compares the digests of references: digest REF REF.
func cmdDigest(ts *testscript.TestScript, neg bool, args []string) {
	var all []string
	for _, a := range args {
		ref, err := name.ParseReference(a)
		ts.Check(err)
		d, err := remote.Head(ref)
		ts.Check(err)
		all = append(all, d.Digest.String())
	}
	if (all[0] == all[1]) == neg {
		ts.Fatalf("digests %v", all)
	}
}

// cmdFlip flips the lowest bit of a byte: flip FILE OFFSET; a negative one counts from the end.
func cmdFlip(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	b, err := os.ReadFile(path)
	ts.Check(err)
	at, err := strconv.Atoi(args[1])
	ts.Check(err)
	if at < 0 {
		at += len(b)
	}
	b[at] ^= 1
	ts.Check(os.WriteFile(path, b, 0o600))
}

func cmdTruncate(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	n, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	if n < 0 {
		info, err := os.Stat(path)
		ts.Check(err)
		n += info.Size()
	}
	ts.Check(os.Truncate(path, n))
}

func cmdAppend(ts *testscript.TestScript, _ bool, args []string) {
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_APPEND|os.O_WRONLY, 0)
	ts.Check(err)
	_, err = f.WriteString(args[1])
	ts.Check(errors.Join(err, f.Close()))
}

// cmdSame compares two bundles byte by byte, but for their signature slots, which begin at
// the offset where the gap ends: samebutsigned FILE FILE.
func cmdSame(ts *testscript.TestScript, neg bool, args []string) {
	a, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	b, err := os.ReadFile(ts.MkAbs(args[1]))
	ts.Check(err)
	same := len(a) == len(b)
	for i := 0; same && i < len(a); i++ {
		same = a[i] == b[i] || inSlots(a, i)
	}
	if same == neg {
		ts.Fatalf("%s and %s: same is %t", args[0], args[1], same)
	}
}

// inSlots reports whether byte i lies in the slots: 131,122 bytes at a multiple of 4096 that
// begin with the magic number of S1.
func inSlots(b []byte, i int) bool {
	for at := 4096; at < len(b) && at <= i; at += 4096 {
		if string(b[at:at+4]) == "\x51\x2a\x4d\x18" {
			return i < at+131122
		}
	}
	return false
}

// cmdAbsent checks that no file matches: absent GLOB...
func cmdAbsent(ts *testscript.TestScript, _ bool, args []string) {
	for _, a := range args {
		found, err := filepath.Glob(ts.MkAbs(a))
		ts.Check(err)
		if len(found) > 0 {
			ts.Fatalf("there is %v", found)
		}
	}
}

// cmdSmallDisk mounts a file system of a few bytes: smalldisk DIR SIZE. It needs root.
func cmdSmallDisk(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+args[1], "tmpfs", dir).CombinedOutput()
	if err != nil {
		ts.Fatalf("mount: %v: %s", err, out)
	}
	ts.Defer(func() { _ = exec.Command("umount", dir).Run() })
}

// cmdInterrupt runs a command, sends it a signal when a request of its hangs, and compares its
// exit code: interrupt SIGNAL N COMMAND... . Its standard error becomes the file interrupted.txt.
func cmdInterrupt(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[1])
	ts.Check(err)
	hung := ts.MkAbs("hung")
	_ = os.Remove(hung)
	stderr, err := os.Create(ts.MkAbs("interrupted.txt"))
	ts.Check(err)
	defer stderr.Close()
	path, err := exec.LookPath(args[2])
	ts.Check(err)
	c := exec.Command(path, args[3:]...)
	c.Dir, c.Stderr = ts.MkAbs("."), stderr
	for _, k := range []string{"HOME", "COSIGN_PASSWORD", "PATH", "SOURCE_DATE_EPOCH", "SEALIFT_STATE", "SEALIFT_CONFIG"} {
		c.Env = append(c.Env, k+"="+ts.Getenv(k))
	}
	ts.Check(c.Start())
	for i := 0; ; i++ {
		if _, err := os.Stat(hung); err == nil {
			break
		}
		if i == 3000 {
			_ = c.Process.Kill()
			ts.Fatalf("%v: no request of it hung", args[2:])
		}
		time.Sleep(10 * time.Millisecond)
	}
	waitWritten(ts, c.Process.Pid)
	ts.Check(c.Process.Signal(map[string]os.Signal{"INT": os.Interrupt, "TERM": syscall.SIGTERM, "KILL": os.Kill}[args[0]]))
	_ = c.Wait()
	if got := c.ProcessState.ExitCode(); got != want {
		ts.Fatalf("%v: exit code %d after SIG%s, want %d", args[2:], got, args[0], want)
	}
}

// waitWritten waits until a process has written $WROTE bytes, where that is set: what a registry
// has sent has not been read for that.
func waitWritten(ts *testscript.TestScript, pid int) {
	want, err := strconv.ParseInt(ts.Getenv("WROTE"), 10, 64)
	if err != nil {
		return
	}
	for range 3000 {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
		if errors.Is(err, os.ErrNotExist) {
			ts.Fatalf("what a process has written cannot be known here")
		}
		ts.Check(err)
		_, rest, _ := strings.Cut(string(raw), "wchar: ")
		number, _, _ := strings.Cut(rest, "\n")
		if n, err := strconv.ParseInt(number, 10, 64); err == nil && n >= want {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	ts.Fatalf("the process did not write %d bytes", want)
}

// cmdEnvSubst replaces $NAME in files by the script's variables.
func cmdEnvSubst(ts *testscript.TestScript, _ bool, args []string) {
	for _, a := range args {
		path := ts.MkAbs(a)
		b, err := os.ReadFile(path)
		ts.Check(err)
		ts.Check(os.WriteFile(path, []byte(os.Expand(string(b), ts.Getenv)), 0o600))
	}
}

// cmdDebianRegistry starts docker-registry 2.8 in its default configuration, as Debian has it:
// debianregistry NAME puts its address into $NAME.
func cmdDebianRegistry(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	addr := l.Addr().String()
	ts.Check(l.Close())
	config := ts.MkAbs("docker-registry.yml")
	ts.Check(os.WriteFile(config, fmt.Appendf(nil,
		"version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %s}\n", ts.MkAbs("store-"+args[0]), addr), 0o600))
	c := exec.Command("docker-registry", "serve", config)
	ts.Check(c.Start())
	ts.Defer(func() { _ = c.Process.Kill(); _ = c.Wait() })
	for range 1000 {
		if resp, err := http.Get("http://" + addr + "/v2/"); err == nil {
			_ = resp.Body.Close()
			ts.Setenv(args[0], addr)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	ts.Fatalf("docker-registry did not come up on %s", addr)
}

// cmdHelmPull pulls a chart as "helm pull oci://REF" does, into a file: helmpull REF FILE.
func cmdHelmPull(ts *testscript.TestScript, _ bool, args []string) {
	c, err := helmregistry.NewClient(helmregistry.ClientOptPlainHTTP(),
		helmregistry.ClientOptCredentialsFile(ts.MkAbs("no-credentials")), helmregistry.ClientOptWriter(io.Discard))
	ts.Check(err)
	res, err := c.Pull(args[0], helmregistry.PullOptWithChart(true))
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), res.Chart.Data, 0o600))
}

// cmdFirstWord puts the first word of the last output into a variable: firstword NAME.
func cmdFirstWord(ts *testscript.TestScript, _ bool, args []string) {
	word, _, _ := strings.Cut(ts.ReadFile("stdout"), " ")
	ts.Setenv(args[0], word)
}

// cmdUntagged checks that there is nothing under a reference: untagged REF.
func cmdUntagged(ts *testscript.TestScript, _ bool, args []string) {
	ref, err := name.ParseReference(args[0])
	ts.Check(err)
	if d, err := remote.Head(ref); err == nil {
		ts.Fatalf("%s is %s", args[0], d.Digest)
	}
}

// cmdDigestOf puts the digest of a reference into a variable: digestof NAME REF.
func cmdDigestOf(ts *testscript.TestScript, _ bool, args []string) {
	ref, err := name.ParseReference(args[1])
	ts.Check(err)
	d, err := remote.Head(ref)
	ts.Check(err)
	ts.Setenv(args[0], d.Digest.String())
}

// cmdHasAll checks that everything an index names is in its registry: hasall REF.
func cmdHasAll(ts *testscript.TestScript, _ bool, args []string) {
	ref, err := name.ParseReference(args[0])
	ts.Check(err)
	top, err := remote.Get(ref)
	ts.Check(err)
	if !top.MediaType.IsIndex() {
		img, err := top.Image()
		ts.Check(err)
		ts.Check(validate.Image(img, validate.Fast))
		return
	}
	idx, err := top.ImageIndex()
	ts.Check(err)
	m, err := idx.IndexManifest()
	ts.Check(err)
	for _, d := range m.Manifests {
		img, err := remote.Image(ref.Context().Digest(d.Digest.String()))
		ts.Check(err)
		ts.Check(validate.Image(img, validate.Fast))
	}
}
