package registry_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/sealift/sealift/internal/registry"
)

// childStore is the variable by which this program is told to serve a store, instead of testing.
const childStore = "SEALIFT_TEST_SERVE"

func TestMain(m *testing.M) {
	if store := os.Getenv(childStore); store != "" {
		if err := serveChild(store); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serveChild serves until it is killed. It prints where.
func serveChild(store string) error {
	s, err := registry.New(context.Background(), registry.Options{Store: store})
	if err != nil {
		return err
	}
	f, err := registry.NewFront(s.Handler(), registry.FrontOptions{Now: time.Now})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	return f.Serve(context.Background(), l)
}

// TestKilled kills a registry in the middle of pushes, again and again: what it has acknowledged is
// there, whatever it lists can be read, and nothing in it has a name that it does not deserve.
func TestKilled(t *testing.T) {
	store := t.TempDir()
	acknowledged := map[string]string{}
	var mu sync.Mutex
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	shared, err := random.Layer(200_000, "application/vnd.oci.image.layer.v1.tar")
	if err != nil {
		t.Fatal(err)
	}
	for round := range rounds {
		child := exec.CommandContext(t.Context(), os.Args[0])
		child.Env = append(os.Environ(), childStore+"="+store)
		child.Stderr = os.Stderr
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		host, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		host = strings.TrimSpace(host)
		// Some pushes in, somewhere in the next ones.
		enough := make(chan struct{})
		var all sync.WaitGroup
		for i := range 3 {
			all.Go(func() {
				for n := 0; ; n++ {
					img := imageWith(t, shared, uint64(round*10_000+i*1000+n))
					tag := fmt.Sprintf("r%d:%d-%d", i, round, n)
					if err := remote.Write(reference(t, host, tag), img, remote.WithRetryPredicate(func(error) bool { return false })); err != nil {
						return // it is killed
					}
					d, err := img.Digest()
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					acknowledged[tag] = d.String()
					if len(acknowledged) == (round+1)*(5+round) {
						close(enough)
					}
					mu.Unlock()
				}
			})
		}
		<-enough
		time.Sleep(time.Duration(round) * 3 * time.Millisecond) // another moment each time
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = child.Wait()
		all.Wait()
		checkStore(t, store, acknowledged)
	}
	if _, err := registry.Prune(t.Context(), store, registry.PruneOptions{Now: time.Now(), Untagged: true}); err != nil {
		t.Fatal(err)
	}
	checkStore(t, store, acknowledged)
	for _, path := range contentOfStore(t, store) {
		if strings.Contains(path, ".tmp ") {
			t.Errorf("left: %s", path)
		}
	}
}

// checkStore reads all that a store lists, and all that was acknowledged.
func checkStore(t *testing.T, store string, acknowledged map[string]string) {
	t.Helper()
	s, err := registry.New(t.Context(), registry.Options{Store: store, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(s.Handler())
	defer func() {
		h.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	host := strings.TrimPrefix(h.URL, "http://")
	listed := map[string]bool{}
	for i := range 3 {
		repo := fmt.Sprintf("r%d", i)
		tags, err := remote.List(repository(t, host, repo))
		if err != nil {
			t.Fatal(err)
		}
		for _, tag := range tags {
			name := repo + ":" + tag
			listed[name] = true
			img, err := remote.Image(reference(t, host, name))
			if err == nil {
				err = readImage(img)
			}
			if err != nil {
				t.Errorf("%s is listed: %v", name, err)
				continue
			}
			if d, err := img.Digest(); err != nil || acknowledged[name] != "" && d.String() != acknowledged[name] {
				t.Errorf("%s is %s, acknowledged was %s, %v", name, d, acknowledged[name], err)
			}
		}
	}
	for name := range acknowledged {
		if !listed[name] {
			t.Errorf("%s was acknowledged and is gone", name)
		}
	}
	err = filepath.WalkDir(filepath.Join(store, "docker/registry/v2/blobs"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.Name() != "data" {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		sum := sha256.New()
		if _, err := io.Copy(sum, f); err != nil {
			return err
		}
		if got := fmt.Sprintf("%x", sum.Sum(nil)); got != filepath.Base(filepath.Dir(path)) {
			t.Errorf("%s has digest %s", path, got)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
