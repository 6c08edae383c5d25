// Reproducible shows that the same content gives the same bytes:
//
//	go run ./testdata/reproducible BINARY…
//
// 'make reproducible' runs it. The binaries, built in different ways, must be equal. Then it makes images and charts, and packs
// them again and again: from different directories, with other settings of the machine, one blob
// at a time and sixteen, killed on the way and gone on with, in volumes, with parity at once and
// later. Everything must be equal, byte by byte. It prints the digests.
//
// Nothing in the bundle comes from this machine: the digests of the bundle and of its parity are
// the same wherever the same Sealift runs. It needs no network, and removes what it made.
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// host is what the registry is called in the bundle. Requests for it take a proxy, which is the
// registry itself, so that the port that it listens on is in no bundle.
const host = "registry.example"

// volume is the size of volumes, in bytes.
const volume = 4 << 20

const spec = `apiVersion: sealift/v1
kind: Bundle
name: same
version: 1.0.0
platforms: [linux/amd64, linux/arm64]
images:
  - ref: registry.example/demo/plain:1.0.0
    platforms: [linux/amd64]
charts:
  - path: chart
    release: same
    namespace: same
    values: [values.yaml]
`

const values = `image: registry.example/demo/app:1.0.0
migrateImage: registry.example/demo/migrate:1.0.0
`

// bundleName is that of the bundle that the spec makes.
const bundleName = "same-1.0.0.tar.zst"

func main() {
	log.SetFlags(0)
	log.SetPrefix("reproducible: ")
	if len(os.Args) < 2 {
		log.Fatal("usage: reproducible BINARY…")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	if err := run(ctx, os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, binaries []string) (err error) {
	for i := range binaries {
		if binaries[i], err = filepath.Abs(binaries[i]); err != nil {
			return err
		}
	}
	if err := same("the binary", binaries...); err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "sealift-reproducible-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	source := &source{inner: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: source, ReadHeaderTimeout: time.Minute}
	defer server.Close()
	go func() { _ = server.Serve(listener) }() // ends with the program
	stored, plain, err := push(ctx, listener.Addr().String())
	if err != nil {
		return fmt.Errorf("making images: %w", err)
	}
	p := &packer{work: work, binaries: binaries, proxy: "http://" + listener.Addr().String(), source: source}
	return p.all(ctx, stored, plain)
}

// --- what is packed ------------------------------------------------------------------------------

// push makes images with layers that are compressed and layers that are not, and an index. It
// returns a layer of each kind.
func push(ctx context.Context, address string) (stored, plain v1.Hash, err error) {
	layer := func(seed string, size int, compressed bool) (v1.Layer, error) {
		var b bytes.Buffer
		z, err := gzip.NewWriterLevel(&b, gzip.NoCompression)
		if err != nil {
			return nil, err
		}
		var out io.Writer = &b
		mediaType := types.OCIUncompressedLayer
		if compressed {
			out, mediaType = z, types.OCILayer
		}
		content := make([]byte, size)
		if _, err := rand.NewChaCha8(sha256.Sum256([]byte(seed))).Read(content); err != nil {
			return nil, err
		}
		for i := range content {
			if content[i]&1 == 0 { // so that there is something to compress
				content[i] = 0
			}
		}
		t := tar.NewWriter(out)
		if err := t.WriteHeader(&tar.Header{Name: seed, Mode: 0o755, Size: int64(size)}); err != nil {
			return nil, err
		}
		if _, err := t.Write(content); err != nil {
			return nil, err
		}
		if err := t.Close(); err != nil {
			return nil, err
		}
		if compressed {
			if err := z.Close(); err != nil {
				return nil, err
			}
		}
		return static.NewLayer(b.Bytes(), mediaType), nil
	}
	image := func(platform v1.Platform, layers ...v1.Layer) (v1.Image, error) {
		image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
		image, err := mutate.AppendLayers(image, layers...)
		if err != nil {
			return nil, err
		}
		config, err := image.ConfigFile()
		if err != nil {
			return nil, err
		}
		config = config.DeepCopy()
		config.OS, config.Architecture = platform.OS, platform.Architecture
		return mutate.ConfigFile(image, config)
	}
	tag := func(repo string) (name.Tag, error) { return name.NewTag(address+"/demo/"+repo+":1.0.0", name.Insecure) }

	layers := map[string]v1.Layer{}
	for _, l := range []struct {
		seed       string
		size       int
		compressed bool
	}{
		{"base", 5_000_000, true},
		{"app-amd64", 3_000_000, true},
		{"app-arm64", 2_900_000, true},
		{"migrate", 1_000_000, true},
		{"plain", 6_000_000, false},
		{"plain-small", 700_000, false},
	} {
		if layers[l.seed], err = layer(l.seed, l.size, l.compressed); err != nil {
			return stored, plain, err
		}
	}
	amd64 := v1.Platform{OS: "linux", Architecture: "amd64"}
	for _, repo := range []string{"app", "migrate"} {
		index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
		for _, arch := range []string{"amd64", "arm64", "s390x"} { // of the last one nothing travels
			platform := v1.Platform{OS: "linux", Architecture: arch}
			own := layers[repo+"-"+arch]
			if own == nil {
				own = layers["migrate"]
			}
			img, err := image(platform, layers["base"], own)
			if err != nil {
				return stored, plain, err
			}
			index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &platform}})
		}
		t, err := tag(repo)
		if err == nil {
			err = remote.WriteIndex(t, index, remote.WithContext(ctx))
		}
		if err != nil {
			return stored, plain, err
		}
	}
	img, err := image(amd64, layers["base"], layers["plain"], layers["plain-small"])
	if err != nil {
		return stored, plain, err
	}
	t, err := tag("plain")
	if err == nil {
		err = remote.Write(t, img, remote.WithContext(ctx))
	}
	if err != nil {
		return stored, plain, err
	}
	if stored, err = layers["app-arm64"].Digest(); err != nil {
		return stored, plain, err
	}
	plain, err = layers["plain"].Digest()
	return stored, plain, err
}

// source is a registry that can stop in the middle of a blob.
type source struct {
	inner http.Handler
	mu    sync.Mutex
	stall *stall
}

type stall struct {
	digest string
	// reached is closed when half of the blob is on its way.
	reached chan struct{}
	once    sync.Once
}

// stallAt makes the source stop in the middle of the blob, forever; at an empty digest it goes on.
func (s *source) stallAt(digest string) *stall {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stall = &stall{digest: digest, reached: make(chan struct{})}
	return s.stall
}

// ServeHTTP serves the registry.
func (s *source) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	stall := s.stall
	s.mu.Unlock()
	if stall != nil && stall.digest != "" && r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/blobs/"+stall.digest) {
		w = &stalling{ResponseWriter: w, stall: stall, gone: r.Context().Done()}
	}
	s.inner.ServeHTTP(w, r)
}

type stalling struct {
	http.ResponseWriter
	stall  *stall
	gone   <-chan struct{}
	passed int64
}

// Write passes on half of the content, and then waits for the client to go.
func (s *stalling) Write(b []byte) (int, error) {
	size, err := strconv.ParseInt(s.Header().Get("Content-Length"), 10, 64)
	if err != nil {
		return 0, err
	}
	first := max(0, min(int64(len(b)), size/2-s.passed))
	n, err := s.ResponseWriter.Write(b[:first])
	s.passed += int64(n)
	if err != nil || n == len(b) {
		return n, err
	}
	if err := http.NewResponseController(s.ResponseWriter).Flush(); err != nil {
		return n, err
	}
	s.stall.once.Do(func() { close(s.stall.reached) })
	<-s.gone
	return n, context.Canceled
}

// --- packing -------------------------------------------------------------------------------------

type packer struct {
	work, proxy string
	binaries    []string
	source      *source
	runs        int
}

// all packs in every way, and compares.
func (p *packer) all(ctx context.Context, stored, plain v1.Hash) error {
	var bundles []string
	pack := func(in string, args ...string) error {
		out := filepath.Join(p.work, fmt.Sprint("out", len(bundles)))
		if _, err := output(p.pack(ctx, in, out, args...)); err != nil {
			return err
		}
		bundles = append(bundles, filepath.Join(out, bundleName))
		return nil
	}
	one, err := p.directory("one", time.Unix(1_000_000_000, 0), 0o644)
	if err != nil {
		return err
	}
	other, err := p.directory(filepath.Join("another", "one, far away"), time.Unix(1_500_000_000, 0), 0o600)
	if err != nil {
		return err
	}
	if err := pack(one, "--jobs", "1", "--parity", "20%"); err != nil {
		return err
	}
	if err := pack(one, "--jobs", "16"); err != nil {
		return err
	}
	if err := pack(other, "--jobs", "16", "--parity", "20%"); err != nil {
		return err
	}
	if err := pack(other, "--jobs", "1", "--verify-after"); err != nil {
		return err
	}
	// Killed in the middle of a layer, and again in the middle of one that is compressed on the way.
	killed := filepath.Join(p.work, fmt.Sprint("out", len(bundles)))
	for _, digest := range []v1.Hash{stored, plain} {
		if err := p.kill(ctx, digest.String(), one, killed); err != nil {
			return err
		}
	}
	answer, err := output(p.pack(ctx, one, killed, "--jobs", "16", "--output", "json"))
	if err != nil {
		return err
	}
	var result struct{ Resumed int64 }
	if err := json.Unmarshal(answer, &result); err != nil {
		return err
	}
	if result.Resumed == 0 {
		return errors.New("the pack that was killed left nothing to go on with")
	}
	bundles = append(bundles, filepath.Join(killed, bundleName))
	// Parity of a bundle that is there already.
	if _, err := output(p.command(ctx, "parity", "--size", "20%", bundles[1])); err != nil {
		return err
	}

	// In volumes.
	cut, later := filepath.Join(p.work, "cut"), filepath.Join(p.work, "later")
	if _, err := output(p.pack(ctx, one, cut, "--jobs", "1", "--volume-size", fmt.Sprint(volume), "--parity", "volumes=1")); err != nil {
		return err
	}
	if _, err := output(p.command(ctx, "split", "--volume-size", fmt.Sprint(volume), "--parity", "volumes=1", "-o", later, bundles[2])); err != nil {
		return err
	}
	for _, dir := range []string{cut, later} {
		joined := filepath.Join(dir, "joined")
		if err := concatenate(joined, filepath.Join(dir, bundleName)+".[0-9]*"); err != nil {
			return err
		}
		bundles = append(bundles, joined)
	}

	if err := same("the bundle", bundles...); err != nil {
		return err
	}
	if err := sameSets("parity of 20%", ".par[0-9]*", bundles[0], bundles[1], bundles[2]); err != nil {
		return err
	}
	cutName, laterName := filepath.Join(cut, bundleName), filepath.Join(later, bundleName)
	if err := sameSets("volumes", ".[0-9]*", cutName, laterName); err != nil {
		return err
	}
	return sameSets("parity for a volume", ".par[0-9]*", cutName, laterName)
}

// directory makes a directory with a spec, its values and its chart.
func (p *packer) directory(name string, modified time.Time, mode fs.FileMode) (string, error) {
	dir := filepath.Join(p.work, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if err := os.CopyFS(filepath.Join(dir, "chart"), os.DirFS(filepath.Join("testdata", "demo", "chart"))); err != nil {
		return "", err
	}
	for file, content := range map[string]string{"sealift.yaml": spec, "values.yaml": values} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o644); err != nil {
			return "", err
		}
	}
	return dir, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return errors.Join(os.Chmod(path, mode), os.Chtimes(path, modified, modified))
	})
}

// command runs the binaries in turn, and each time on what seems to be another machine.
func (p *packer) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, p.binaries[p.runs%len(p.binaries)], args...)
	home := filepath.Join(p.work, fmt.Sprint("home", p.runs))
	cmd.Env = []string{
		"HOME=" + home, "USERPROFILE=" + home, "TMPDIR=" + p.work, "TMP=" + p.work, "SystemRoot=" + os.Getenv("SystemRoot"),
		"HTTP_PROXY=" + p.proxy, "SOURCE_DATE_EPOCH=1767323045", "SEALIFT_PROGRESS=none",
		"TZ=" + []string{"UTC", "Asia/Kathmandu", "America/St_Johns"}[p.runs%3],
		"LC_ALL=" + []string{"C", "tr_TR.UTF-8"}[p.runs%2],
		"GOMAXPROCS=" + fmt.Sprint(1+p.runs%runtime.NumCPU()),
	}
	p.runs++
	return cmd
}

// output runs a command and returns what it printed.
func output(cmd *exec.Cmd) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s", cmd.Args[0], strings.Join(cmd.Args[1:], " "), err, stderr.Bytes())
	}
	return stdout.Bytes(), nil
}

// pack packs the spec in a directory, from within it.
func (p *packer) pack(ctx context.Context, in, out string, args ...string) *exec.Cmd {
	cmd := p.command(ctx, append([]string{"pack", "--unsigned", "--plain-http", host, "-o", out}, args...)...)
	if err := os.MkdirAll(out, 0o755); err != nil {
		cmd.Err = err
	}
	cmd.Dir = in
	return cmd
}

// kill begins a pack, one blob after the other, and kills it in the middle of one.
func (p *packer) kill(ctx context.Context, digest, in, out string) error {
	stall := p.source.stallAt(digest)
	defer p.source.stallAt("")
	cmd := p.pack(ctx, in, out, "--jobs", "1")
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		return fmt.Errorf("packing ended before it came to blob %s: %w", digest, err)
	case <-stall.reached:
	}
	if err := cmd.Process.Kill(); err != nil {
		return err
	}
	<-ended // with an error: it was killed
	left, err := filepath.Glob(filepath.Join(out, "*.partial"))
	if err == nil && len(left) == 0 {
		err = errors.New("the pack that was killed left nothing")
	}
	return err
}

// --- comparing -----------------------------------------------------------------------------------

// concatenate is 'cat PATTERN > TO'.
func concatenate(to, pattern string) (err error) {
	names, err := glob(pattern)
	if err != nil {
		return err
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// glob lists files in the order of their names; there must be some.
func glob(pattern string) ([]string, error) {
	names, err := filepath.Glob(pattern)
	if err == nil && len(names) == 0 {
		err = fmt.Errorf("there is no %s", pattern)
	}
	slices.Sort(names)
	return names, err
}

// sameSets compares the files whose names begin with each of some names.
func sameSets(what, pattern string, names ...string) error {
	var sets [][]string
	for _, name := range names {
		set, err := glob(name + pattern)
		if err != nil {
			return err
		}
		if len(sets) > 0 && len(sets[0]) != len(set) {
			return fmt.Errorf("%s: %d files and %d", what, len(sets[0]), len(set))
		}
		sets = append(sets, set)
	}
	for i, first := range sets[0] {
		var files []string
		for _, set := range sets {
			files = append(files, set[i])
		}
		if err := same(what+", "+filepath.Ext(first)[1:], files...); err != nil {
			return err
		}
	}
	return nil
}

// same compares files, byte by byte, and prints the digest that they have in common.
func same(what string, names ...string) error {
	first, err := os.ReadFile(names[0])
	if err != nil {
		return err
	}
	for _, name := range names[1:] {
		other, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if !bytes.Equal(first, other) {
			at := 0
			for at < min(len(first), len(other)) && first[at] == other[at] {
				at++
			}
			return fmt.Errorf("%s: %s (%d bytes) and %s (%d bytes) differ from byte %d on", what, names[0], len(first), name, len(other), at)
		}
	}
	fmt.Printf("%x  %s, %d times the same %d bytes\n", sha256.Sum256(first), what, len(names), len(first))
	return nil
}
