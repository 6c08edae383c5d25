package cli_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sealift/sealift/internal/containerd"
	"github.com/sealift/sealift/internal/containerd/containerdtest"
)

// cmdContainerd starts a containerd and sets NAME to its socket, PLATFORM to what it runs and OTHER to what
// it does not: containerd NAME [nocri].
func cmdContainerd(ts *testscript.TestScript, _ bool, args []string) {
	dir, err := os.MkdirTemp("", "ctd")
	ts.Check(err)
	ts.Defer(func() { ts.Check(os.RemoveAll(dir)) })
	s, err := containerdtest.Start(context.Background(), dir, containerdtest.Options{NoCRI: len(args) > 1})
	ts.Check(err)
	ts.Defer(func() { ts.Check(s.Stop()) })
	other := "linux/arm64"
	if runtime.GOARCH == "arm64" {
		other = "linux/amd64"
	}
	ts.Setenv(args[0], s.Address)
	ts.Setenv("PLATFORM", "linux/"+runtime.GOARCH)
	ts.Setenv("OTHER", other)
}

// cmdSees checks whether a kubelet would find an image: [!] sees $NODE NAME.
func cmdSees(ts *testscript.TestScript, neg bool, args []string) {
	c, err := containerd.Connect(context.Background(), args[0], containerd.Kubernetes)
	ts.Check(err)
	defer c.Close()
	s, err := c.Sees(context.Background(), args[1])
	ts.Check(err)
	if !s.Asked || s.There == neg {
		ts.Fatalf("%s: %+v", args[1], s)
	}
}

// cmdRunnable pushes an image of docker's media types that runs: runnable REFERENCE.
func cmdRunnable(ts *testscript.TestScript, _ bool, args []string) {
	program := filepath.Join(ts.MkAbs("."), "program")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", program, "github.com/sealift/sealift/testdata/demo/images/app")
	cmd.Dir, cmd.Env = mustAbs("../.."), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		ts.Fatalf("%v: %s", err, out)
	}
	content, err := os.ReadFile(program)
	ts.Check(err)
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	ts.Check(tw.WriteHeader(&tar.Header{Name: "app", Mode: 0o755, Size: int64(len(content))}))
	_, err = tw.Write(content)
	ts.Check(err)
	ts.Check(tw.Close())
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil }, tarball.WithMediaType(types.DockerLayer))
	ts.Check(err)
	img, err := mutate.AppendLayers(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.DockerManifestSchema2), types.DockerConfigJSON), layer)
	ts.Check(err)
	c, err := img.ConfigFile()
	ts.Check(err)
	c = c.DeepCopy()
	c.OS, c.Architecture, c.Config = "linux", runtime.GOARCH, v1.Config{Entrypoint: []string{"/app"}, Cmd: []string{"job"}}
	img, err = mutate.ConfigFile(img, c)
	ts.Check(err)
	ref, err := name.ParseReference(args[0])
	ts.Check(err)
	ts.Check(remote.Write(ref, img))
}

// cmdKilledLoad kills a load while it writes a blob of so many bytes, and runs it again, which has to send
// only the rest: killedload $NODE BYTES sealift load ...
func cmdKilledLoad(ts *testscript.TestScript, _ bool, args []string) {
	total, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	path, err := exec.LookPath(args[2])
	ts.Check(err)
	command := func() *exec.Cmd {
		c := exec.Command(path, append(args[3:len(args):len(args)], "--output", "json")...)
		c.Dir = ts.MkAbs(".")
		for _, k := range []string{"HOME", "PATH", "SOURCE_DATE_EPOCH", "SEALIFT_STATE", "SEALIFT_CONFIG"} {
			c.Env = append(c.Env, k+"="+ts.Getenv(k))
		}
		return c
	}
	ingest := filepath.Join(filepath.Dir(args[0]), "root", "io.containerd.content.v1.content", "ingest", "*", "data")
	written := func() int64 {
		var most int64
		files, _ := filepath.Glob(ingest)
		for _, f := range files {
			if info, err := os.Stat(f); err == nil {
				most = max(most, info.Size())
			}
		}
		return most
	}
	first := command()
	ts.Check(first.Start())
	for i := 0; written() < 4<<20; i++ {
		if i == 60000 {
			_ = first.Process.Kill()
			ts.Fatalf("nothing is written")
		}
		time.Sleep(time.Millisecond)
	}
	ts.Check(first.Process.Kill())
	if err := first.Wait(); err == nil {
		ts.Fatalf("it was done before it was killed")
	}
	kept := written()
	out, err := command().Output()
	ts.Check(err)
	var r struct{ WrittenBytes int64 }
	ts.Check(json.Unmarshal(out, &r))
	if kept < 4<<20 || r.WrittenBytes > total-kept+1<<20 {
		ts.Fatalf("%d bytes of %d were kept, and %d were sent again", kept, total, r.WrittenBytes)
	}
}
