package cli

import (
	"context"
	"fmt"
	"net"
	"slices"
	"time"
)

// ForeignHostError says that the site's registry has sent us to a host that nobody has named.
type ForeignHostError struct{ Host, Registry string }

// Error names both.
func (e *ForeignHostError) Error() string {
	return fmt.Sprintf("registry %s sends us to %q, a host that was not named", e.Registry, e.Host)
}

// dialer opens connections to the hosts that were named and to no other. Nothing is resolved that
// it refuses.
func (a *app) dialer(registry string, more []string) func(ctx context.Context, network, address string) (net.Conn, error) {
	dial := a.env.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	}
	allowed := []string{hostname(registry)}
	for _, h := range more {
		allowed = append(allowed, hostname(h))
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if host := hostname(address); !slices.Contains(allowed, host) {
			// As a dialing error, so that nobody tries again.
			return nil, &net.OpError{Op: "dial", Net: network, Err: &ForeignHostError{host, registry}}
		}
		return dial(ctx, network, address)
	}
}

// hostname takes the port off a host.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return host
}
