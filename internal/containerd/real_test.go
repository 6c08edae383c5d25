package containerd_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sealift/sealift/internal/containerd"
	"github.com/sealift/sealift/internal/containerd/containerdtest"
	"github.com/sealift/sealift/manifest"
)

// start starts a containerd for the test.
func start(t *testing.T, o containerdtest.Options) *containerdtest.Server {
	t.Helper()
	if why := containerdtest.Unavailable(); why != "" {
		t.Skip(why)
	}
	s, err := containerdtest.Start(t.Context(), t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func connect(t *testing.T, s *containerdtest.Server) *containerd.Client {
	t.Helper()
	c, err := containerd.Connect(t.Context(), s.Address, containerd.Kubernetes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func lease(t *testing.T, c *containerd.Client) *containerd.Lease {
	t.Helper()
	l, err := c.Lease(t.Context(), time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// blobOf is a blob with so many random bytes.
func blobOf(seed uint64, n int) (manifest.Descriptor, []byte) {
	raw := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed)}).Read(raw)
	sum := sha256.Sum256(raw)
	return manifest.Descriptor{Digest: "sha256:" + hex.EncodeToString(sum[:]), MediaType: "application/octet-stream", Size: int64(n)}, raw
}

func opened(raw []byte) containerd.Open {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(raw)), nil }
}

// collect lets containerd collect what nothing refers to, and waits for it.
func collect(t *testing.T, s *containerdtest.Server) {
	t.Helper()
	// Removing a lease in this way is the one thing that ends only when all is collected.
	if _, err := s.Ctr("leases", "create", "--id", "collect"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Ctr("leases", "rm", "--sync", "collect"); err != nil {
		t.Fatal(err)
	}
}

// stored is what a containerd has of a blob.
func stored(t *testing.T, s *containerdtest.Server, digest string) (raw []byte, there bool) {
	t.Helper()
	out, err := s.Ctr("content", "get", digest)
	return []byte(out), err == nil
}

func TestConnect(t *testing.T) {
	c := connect(t, start(t, containerdtest.Options{}))
	if c.Version() == "" || strings.HasPrefix(c.Version(), "v") {
		t.Errorf("version %q", c.Version())
	}
	if !strings.HasPrefix(c.Platform(), "linux/") {
		t.Errorf("platform %q", c.Platform())
	}
	if !c.ServesKubernetes() {
		t.Error("it has a side for Kubernetes")
	}
	if connect(t, start(t, containerdtest.Options{NoCRI: true})).ServesKubernetes() {
		t.Error("one without CRI cannot serve a kubelet")
	}
}

func TestConnectFails(t *testing.T) {
	dir := t.TempDir()
	_, err := containerd.Connect(t.Context(), filepath.Join(dir, "nowhere.sock"), "k8s.io")
	var refused *containerd.ConnectError
	if !errors.As(err, &refused) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := containerd.Connect(ctx, filepath.Join(dir, "nowhere.sock"), "k8s.io"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestWrite: what is written is there, once, with labels; what is wrong never is.
func TestWrite(t *testing.T) {
	s := start(t, containerdtest.Options{})
	c := connect(t, s)
	l := lease(t, c)
	for _, n := range []int{0, 1, 1 << 20, 3<<20 + 17} {
		d, raw := blobOf(uint64(n), n)
		var moved int64
		sent, err := l.Write(t.Context(), d, map[string]string{"a": "1"}, opened(raw), func(n int64) { moved += n })
		if err != nil || sent != int64(n) || moved != int64(n) {
			t.Fatalf("%d bytes: sent %d, moved %d: %v", n, sent, moved, err)
		}
		if got, there := stored(t, s, d.Digest); !there || !bytes.Equal(got, raw) {
			t.Errorf("%d bytes: other ones are there", n)
		}
		// Once more, with another label.
		moved = 0
		sent, err = l.Write(t.Context(), d, map[string]string{"a": "2", "b": "2"}, opened(nil), func(n int64) { moved += n })
		if err != nil || sent != 0 || moved != int64(n) {
			t.Errorf("%d bytes again: sent %d, moved %d: %v", n, sent, moved, err)
		}
		labels, there, err := c.Info(t.Context(), d.Digest)
		if err != nil || !there || labels["a"] != "1" || labels["b"] != "2" {
			t.Errorf("labels %v, %v: %v", labels, there, err)
		}
	}
	if _, there, err := c.Info(t.Context(), "sha256:"+strings.Repeat("0", 64)); there || err != nil {
		t.Errorf("what nobody has written: %v, %v", there, err)
	}
}

// TestWriteWrong: other bytes than those of the digest are refused, and nothing is left of them.
func TestWriteWrong(t *testing.T) {
	s := start(t, containerdtest.Options{})
	c := connect(t, s)
	l := lease(t, c)
	d, raw := blobOf(1, 2<<20)
	other := bytes.Clone(raw)
	other[1<<20] ^= 1
	_, err := l.Write(t.Context(), d, nil, opened(other), func(int64) {})
	var wrong *containerd.DigestError
	if !errors.As(err, &wrong) {
		t.Fatalf("a flipped bit: %v", err)
	}
	broken := errors.New("the medium is broken")
	for name, open := range map[string]containerd.Open{
		"too short": opened(raw[:1<<20]),
		"unread": func() (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(bytes.NewReader(raw[:1<<20]), failing{broken})), nil
		},
	} {
		if _, err := l.Write(t.Context(), d, nil, open, func(int64) {}); err == nil || name == "unread" && !errors.Is(err, broken) {
			t.Errorf("%s: %v", name, err)
		}
		if out, err := s.Ctr("content", "active"); err != nil || strings.Contains(out, d.Digest) {
			t.Errorf("%s: what is not proven is kept: %s %v", name, out, err)
		}
	}
	if _, there := stored(t, s, d.Digest); there {
		t.Error("the blob is there")
	}
	// And then the right ones.
	if _, err := l.Write(t.Context(), d, nil, opened(raw), func(int64) {}); err != nil {
		t.Fatal(err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// TestWriteGoesOn: a write that was interrupted goes on where it stopped, for another lease too; and begins
// anew where what was left is not what it ought to be.
func TestWriteGoesOn(t *testing.T) {
	s := start(t, containerdtest.Options{})
	c := connect(t, s)
	for name, damage := range map[string]bool{"good": false, "damaged": true} {
		d, raw := blobOf(uint64(len(name)), 5<<20+3)
		first := bytes.Clone(raw)
		if damage {
			first[10] ^= 1
		}
		ctx, cancel := context.WithCancel(t.Context())
		_, err := lease(t, c).Write(ctx, d, nil, opened(first), func(n int64) {
			if n > 0 {
				cancel()
			}
		})
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("%s: interrupted: %v", name, err)
		}
		sent, err := lease(t, c).Write(t.Context(), d, nil, opened(raw), func(int64) {})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if again := sent >= d.Size; again != damage {
			t.Errorf("%s: %d of %d bytes were sent the second time", name, sent, d.Size)
		}
		if got, there := stored(t, s, d.Digest); !there || !bytes.Equal(got, raw) {
			t.Errorf("%s: other bytes are there", name)
		}
	}
}

// TestWriteTogether: of two who write one blob at once one waits, and nothing is sent twice.
func TestWriteTogether(t *testing.T) {
	s := start(t, containerdtest.Options{})
	c := connect(t, s)
	d, raw := blobOf(7, 4<<20)
	var wg sync.WaitGroup
	sents := make([]int64, 3)
	for i := range sents {
		l := lease(t, c)
		wg.Go(func() {
			var err error
			if sents[i], err = l.Write(t.Context(), d, nil, opened(raw), func(int64) {}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	var total int64
	for _, n := range sents {
		total += n
	}
	if total != d.Size {
		t.Errorf("%d bytes were sent, the blob has %d", total, d.Size)
	}
}

// TestLeaseProtects: without a lease content goes, with one it stays, and with labels of what stays.
func TestLeaseProtects(t *testing.T) {
	s := start(t, containerdtest.Options{})
	c := connect(t, s)
	l := lease(t, c)
	part, rawPart := blobOf(1, 1000)
	whole, rawWhole := blobOf(2, 1000)
	for d, raw := range map[manifest.Descriptor][]byte{part: rawPart, whole: rawWhole} {
		labels := map[string]string{}
		if d == whole {
			labels = containerd.References(nil, []containerd.Part{{Kind: containerd.PartLayer, Digest: part.Digest}})
		}
		if _, err := l.Write(t.Context(), d, labels, opened(raw), func(int64) {}); err != nil {
			t.Fatal(err)
		}
	}
	there := func(want bool, when string) {
		t.Helper()
		collect(t, s)
		for _, d := range []manifest.Descriptor{part, whole} {
			if _, got := stored(t, s, d.Digest); got != want {
				t.Errorf("%s: there %v, want %v", when, got, want)
			}
		}
	}
	there(true, "with the lease")
	if err := c.SetImage(t.Context(), containerd.Image{Name: "example.com/a:1", Target: whole}); err != nil {
		t.Fatal(err)
	}
	if err := l.End(t.Context()); err != nil {
		t.Fatal(err)
	}
	there(true, "with the name")
	next := lease(t, c)
	if err := next.Keep(t.Context(), whole.Digest); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Ctr("images", "rm", "--sync", "example.com/a:1"); err != nil {
		t.Fatal(err)
	}
	there(true, "with another lease")
	if err := next.End(t.Context()); err != nil {
		t.Fatal(err)
	}
	there(false, "with nothing")
}

func TestSetImage(t *testing.T) {
	s := start(t, containerdtest.Options{NoCRI: true})
	c := connect(t, s)
	first, _ := blobOf(1, 10)
	second, _ := blobOf(2, 10)
	const name = "example.com/a:1"
	if err := c.SetImage(t.Context(), containerd.Image{Name: name, Target: first, Labels: map[string]string{"site": "its own"}}); err != nil {
		t.Fatal(err)
	}
	if err := c.SetImage(t.Context(), containerd.Image{Name: name, Target: second, Labels: containerd.Labels(true)}); err != nil {
		t.Fatal(err)
	}
	all, err := c.Images(t.Context())
	if err != nil || len(all) != 1 {
		t.Fatalf("%v: %v", all, err)
	}
	got := all[name]
	if got.Target.Digest != second.Digest || got.Labels["site"] != "its own" || got.Labels["io.cri-containerd.image"] != "managed" || got.Labels["io.cri-containerd.pinned"] != "pinned" {
		t.Errorf("got %+v", got)
	}
}
