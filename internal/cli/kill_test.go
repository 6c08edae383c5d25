package cli_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/sealift/sealift/internal/registry"
)

// killer is a registry that kills its client once it has sent so many bytes.
type killer struct {
	next http.Handler
	mu   sync.Mutex
	sent int64
	at   int64
	kill func()
}

// arm lets the client be killed after at bytes. It returns how many were sent until now.
func (k *killer) arm(at int64, kill func()) int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	sent := k.sent
	k.sent, k.at, k.kill = 0, at, kill
	return sent
}

func (k *killer) count(n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.sent += int64(n); k.kill != nil && k.sent >= k.at {
		k.kill()
		k.kill = nil
	}
}

func (k *killer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.next.ServeHTTP(&killWriter{w, k}, r)
}

type killWriter struct {
	http.ResponseWriter
	k *killer
}

func (w *killWriter) Write(p []byte) (int, error) {
	total := 0
	for len(p) > 0 {
		// In pieces, so that any byte can be the last one.
		n, err := w.ResponseWriter.Write(p[:min(len(p), 4096)])
		total += n
		w.k.count(n)
		if err != nil {
			return total, err
		}
		p = p[n:]
	}
	return total, nil
}

// TestKilledPackGoesOn kills a pack at random moments, from the first byte that it is sent to
// the renaming of its files, and lets the next one go on. What comes out is always the same, and
// under the final names there is never anything else. Under the race detector, which makes a start
// ten times slower, there are fewer of them.
func TestKilledPackGoesOn(t *testing.T) {
	store, err := registry.New(context.Background(), registry.Options{Store: t.TempDir(), SparseIndexes: true})
	if err != nil {
		t.Fatal(err)
	}
	k := &killer{next: store.Handler()}
	server := httptest.NewServer(k)
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	spec := "apiVersion: sealift/v1\nkind: Bundle\nname: shop\nversion: 1.0.0\nimages:\n"
	for i, more := range [][]string{{"1500000"}, {"plain", "30000"}, {"2200000"}} {
		ref := fmt.Sprintf("%s/shop/app%d:1", host, i)
		img, err := makeImage("linux/amd64", fmt.Sprint("app-", i), more...)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := name.ParseReference(ref)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(parsed, img); err != nil {
			t.Fatal(err)
		}
		spec += "  - ref: " + ref + "\n"
	}
	for how, args := range map[string][]string{
		"file":    nil,
		"volumes": {"--volume-size", "1MiB", "--parity", "30%"},
	} {
		t.Run(how, func(t *testing.T) {
			whole := newKilled(t, spec, args)
			k.arm(0, nil)
			if out, err := whole.pack().CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			total := k.arm(0, nil)
			want := whole.finals(t)
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d, %d bytes", seed, total)
			random := rand.New(rand.NewPCG(seed, 1))
			for i := range rounds / 2 {
				killedRound(t, newKilled(t, spec, args), k, want, total, random, i)
			}
		})
	}
}

// killedRound kills one pack up to three times, and then lets it end.
func killedRound(t *testing.T, p *killedPack, k *killer, want map[string][]byte, total int64, random *rand.Rand, round int) {
	t.Helper()
	for kill := range 1 + random.IntN(3) {
		cmd := p.pack()
		var output bytes.Buffer
		cmd.Stdout, cmd.Stderr = &output, &output
		var dead atomic.Bool
		started := make(chan struct{})
		die := func() {
			<-started
			if !dead.Swap(true) {
				_ = cmd.Process.Kill()
			}
		}
		at := random.Int64N(total + 1)
		if round%4 == 3 {
			// After the last byte it is the clock that decides: whenever it is, it must do.
			at = total
			late := time.Duration(random.Int64N(int64(60 * time.Millisecond)))
			k.arm(at, func() { time.AfterFunc(late, die) })
		} else {
			k.arm(at, die)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		close(started)
		err := cmd.Wait()
		k.arm(0, nil)
		if err != nil && !dead.Load() {
			t.Fatalf("round %d, kill %d: %v: %s", round, kill, err, output.Bytes())
		}
		for name, got := range p.finals(t) {
			// Parity gets its names first: it says nothing as long as the rest is not there.
			if !bytes.Equal(got, want[name]) {
				t.Fatalf("round %d, kill %d after %d bytes: %s is there and is not what it must be", round, kill, at, name)
			}
		}
	}
	if out, err := p.pack().CombinedOutput(); err != nil {
		t.Fatalf("round %d: %v: %s", round, err, out)
	}
	got := p.finals(t)
	if len(got) != len(want) {
		t.Fatalf("round %d: %d files, want %d", round, len(got), len(want))
	}
	for name := range want {
		if !bytes.Equal(got[name], want[name]) {
			t.Fatalf("round %d: %s differs", round, name)
		}
	}
	if left, err := filepath.Glob(filepath.Join(p.dir, "out", "*.partial*")); err != nil || len(left) > 0 {
		t.Fatalf("round %d: left over: %v, %v", round, left, err)
	}
}

// killedPack is a directory with a spec, and how it is packed.
type killedPack struct {
	t    *testing.T
	dir  string
	args []string
}

func newKilled(t *testing.T, spec string, args []string) *killedPack {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "sealift.yaml"), []byte(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	return &killedPack{t, dir, args}
}

func (p *killedPack) pack() *exec.Cmd {
	path, err := exec.LookPath("sealift")
	if err != nil {
		p.t.Fatal(err)
	}
	c := exec.Command(path, append([]string{"pack", "--unsigned", "--progress", "none", "-o", "out"}, p.args...)...)
	c.Dir = p.dir
	c.Env = []string{"HOME=" + p.dir, "PATH=" + os.Getenv("PATH"), "SOURCE_DATE_EPOCH=1767323045"}
	return c
}

// finals are the files with final names.
func (p *killedPack) finals(t *testing.T) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	paths, err := filepath.Glob(filepath.Join(p.dir, "out", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if strings.Contains(path, ".partial") {
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(path)] = b
	}
	return all
}
