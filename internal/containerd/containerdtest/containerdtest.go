// Package containerdtest gives tests a real containerd of their own, with its root, state and socket below a
// directory of the test.
package containerdtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Unavailable says why no containerd can be started here, "" where one can.
func Unavailable() string {
	if os.Geteuid() != 0 {
		return "containerd needs root"
	}
	for _, program := range []string{"containerd", "ctr"} {
		if _, err := exec.LookPath(program); err != nil {
			return program + " is not installed"
		}
	}
	return ""
}

// Server is a containerd.
type Server struct {
	// Address is the path of its socket.
	Address string
	ctx     context.Context //nolint:containedctx // it never ends: Stop ends the server
	dir     string
	cmd     *exec.Cmd
	log     *os.File
}

// Options say what a containerd is like. The zero value is one that serves a kubelet.
type Options struct {
	// NoCRI leaves out the side for Kubernetes, as Docker does.
	NoCRI bool
}

const config = `version = 2
root = %[1]q
state = %[2]q
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper"%[5]s]
[grpc]
  address = %[3]q
[plugins."io.containerd.internal.v1.opt"]
  path = %[4]q
[plugins."io.containerd.gc.v1.scheduler"]
  startup_delay = "1ms"
  schedule_delay = "0ms"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    conf_dir = %[4]q
`

// Start starts a containerd whose files are below dir, which has to be short: paths of sockets have at most
// 107 bytes. It outlives ctx: who calls it stops the server.
func Start(ctx context.Context, dir string, o Options) (*Server, error) {
	s := &Server{Address: filepath.Join(dir, "containerd.sock"), ctx: context.WithoutCancel(ctx), dir: dir}
	off := ""
	if o.NoCRI {
		off = `, "io.containerd.grpc.v1.cri"`
	}
	text := fmt.Sprintf(config, filepath.Join(dir, "root"), filepath.Join(dir, "state"), s.Address, filepath.Join(dir, "opt"), off)
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte(text), 0o600); err != nil {
		return nil, err
	}
	return s, s.Restart()
}

// Restart starts it again after Stop, with all that it had.
func (s *Server) Restart() error {
	var err error
	if s.log, err = os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		return err
	}
	s.cmd = exec.CommandContext(s.ctx, "containerd", "--config", filepath.Join(s.dir, "config.toml"))
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	if err := s.cmd.Start(); err != nil {
		return err
	}
	for range 600 {
		if _, err = s.Ctr("version"); err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	log, _ := os.ReadFile(s.log.Name())
	return errors.Join(fmt.Errorf("containerd does not answer: %w\n%s", err, log), s.Stop())
}

// Stop ends it and lets go of what it has mounted.
func (s *Server) Stop() error {
	if s.cmd == nil {
		return nil
	}
	err := s.cmd.Process.Signal(os.Interrupt)
	_ = s.cmd.Wait() // it was told to end
	s.cmd = nil
	return errors.Join(err, s.log.Close())
}

// Ctr runs containerd's own tool on the namespace of Kubernetes.
func (s *Server) Ctr(args ...string) (string, error) {
	cmd := exec.CommandContext(s.ctx, "ctr", append([]string{"--address", s.Address, "--namespace", "k8s.io"}, args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("ctr %s: %w: %s", strings.Join(args, " "), err, out.String())
	}
	return out.String(), nil
}
