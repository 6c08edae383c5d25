package cli_test

import (
	"errors"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	"golang.org/x/sys/unix"
)

// isolatedDir names, in a network namespace of its own, the directory with the bundle.
const isolatedDir = "SEALIFT_TEST_ISOLATED"

// TestInNamespaceWithLoopbackOnly runs verify and seed where there is no network at all but the
// loopback interface, on which the site's registry is.
func TestInNamespaceWithLoopbackOnly(t *testing.T) {
	if dir := os.Getenv(isolatedDir); dir != "" {
		inNamespace(t, dir)
		return
	}
	dir := t.TempDir()
	packOne(t, dir)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestInNamespaceWithLoopbackOnly$", "-test.v")
	cmd.Env = append(os.Environ(), isolatedDir+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) {
		t.Skipf("this machine does not allow network namespaces: %v", err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func inNamespace(t *testing.T, dir string) {
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	if len(interfaces) != 1 || interfaces[0].Name != "lo" {
		t.Fatalf("interfaces %v", interfaces)
	}
	if err := upLoopback(); err != nil {
		t.Fatal(err)
	}
	site := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer site.Close()
	d := &dialed{to: site.Listener.Addr().String()}
	bundle, key := filepath.Join(dir, "shop-1.0.0.tar.zst"), filepath.Join(dir, "cosign.pub")
	for _, args := range [][]string{
		{"verify", "--key", key, "--images", bundle},
		{"trust", "init", "--key", key, "--bundles", "shop"},
		{"verify", bundle},
		{"seed", "--registry", d.to, bundle},
		{"journal", "verify"},
	} {
		if code, _, stderr := d.run(t, dir, args...); code != 0 {
			t.Fatalf("%v: exit code %d: %s", args, code, stderr)
		}
	}
}

// upLoopback does what 'ip link set lo up' does.
func upLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
}
