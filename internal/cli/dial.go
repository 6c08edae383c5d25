package cli

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/sealift/sealift/internal/oci"
)

// ForeignHostError says that the site's registry has sent us to a host that nobody has named. Host has
// a port where only that was not named.
type ForeignHostError struct{ Host, Registry string }

// Error names both.
func (e *ForeignHostError) Error() string {
	return fmt.Sprintf("registry %s sends us to %q, a host that was not named", e.Registry, e.Host)
}

// dialer opens connections to the hosts that were named and to no other: to the registry at its port,
// which without one is that of HTTPS, and of HTTP where plain says that this is spoken with it; to
// others of more at the port that they were named with, or at all. Nothing is resolved that it refuses.
func (a *app) dialer(registry string, more, plain []string) func(ctx context.Context, network, address string) (net.Conn, error) {
	dial := a.env.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	}
	host, port := hostPort(registry)
	ports := []string{port}
	if port == "" {
		ports = []string{"443"}
		if slices.Contains(plain, registry) || oci.IsLoopback(host) {
			ports = append(ports, "80")
		}
	}
	allowed := map[string][]string{host: ports} // "" is for all ports
	for _, h := range more {
		name, port := hostPort(h)
		allowed[name] = append(allowed[name], port)
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		host, port := hostPort(address)
		ports, known := allowed[host]
		if !slices.Contains(ports, port) && !slices.Contains(ports, "") {
			if known {
				host = net.JoinHostPort(host, port)
			}
			// As a dialing error, so that nobody tries again.
			return nil, &net.OpError{Op: "dial", Net: network, Err: &ForeignHostError{host, registry}}
		}
		return dial(ctx, network, address)
	}
}

// hostPort is what a host is called, and its port where it has one.
func hostPort(host string) (name, port string) {
	name = host
	if h, p, err := net.SplitHostPort(host); err == nil {
		name, port = h, p
	}
	return strings.ToLower(strings.Trim(name, "[]")), port
}
