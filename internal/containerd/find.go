package containerd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// SocketK3s is where the containerd inside of k3s and of rke2 listens.
const SocketK3s = "/run/k3s/containerd/containerd.sock"

// Sockets are the places where a containerd listens that runs pods: of k3s and rke2, of its own, of
// microk8s and of k0s.
func Sockets() []string {
	return []string{
		SocketK3s, "/run/containerd/containerd.sock", "/var/snap/microk8s/common/run/containerd.sock", "/run/k0s/containerd.sock",
	}
}

// connectTime bounds how long an answer is waited for when a connection begins.
const connectTime = 10 * time.Second

// Find returns the one of the paths where a containerd listens. One at which nothing listens any more does
// not count, where another one does. Errors: *NoSocketError, *SeveralError.
func Find(ctx context.Context, paths []string) (string, error) {
	var found, live []string
	var files []os.FileInfo
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil && !errors.Is(err, os.ErrPermission) || err == nil && info.Mode()&os.ModeSocket == 0 {
			continue
		}
		// One may be a link to another.
		if err == nil && slices.ContainsFunc(files, func(other os.FileInfo) bool { return os.SameFile(info, other) }) {
			continue
		}
		if err == nil {
			files = append(files, info)
		}
		found = append(found, path)
	}
	if len(found) > 1 {
		for _, path := range found {
			// Who may not ask cannot say that it is not there.
			if err := listens(ctx, path); err == nil || errors.Is(err, os.ErrPermission) {
				live = append(live, path)
			}
		}
		if len(live) > 0 {
			found = live
		}
	}
	switch len(found) {
	case 0:
		return "", &NoSocketError{paths}
	case 1:
		return found[0], nil
	}
	return "", &SeveralError{found}
}

// ParseAddress reads the address of a containerd: an absolute path, or one behind unix://.
func ParseAddress(text string) (string, error) {
	path := strings.TrimPrefix(text, "unix://")
	if !filepath.IsAbs(path) || strings.ContainsRune(path, 0) {
		return "", fmt.Errorf("address %q is not the path of a socket, as /run/containerd/containerd.sock", text)
	}
	return filepath.Clean(path), nil
}

// listens reports why nobody listens at a path. Unlike a call it says so in errors that have a type.
func listens(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	conn, err := dial(ctx, path)
	if err != nil {
		return err
	}
	return conn.Close()
}

func dial(ctx context.Context, path string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "unix", path)
}
