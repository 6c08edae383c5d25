package release

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestCheckHTTP(t *testing.T) {
	c := newFake(t)
	c.api["/api/v1/namespaces/shop/services/web:80/proxy/ready"] = "fine\x1b"
	c.api["/api/v1/namespaces/shop/services/https:web:443/proxy/"] = "fine"
	for _, check := range []HTTPCheck{
		{Service: "web", Port: 80, Path: "/ready"}, {Service: "web", Port: 80, Path: "ready?x=y", Status: 200}, {Service: "web", Port: 443, TLS: true},
	} {
		if err := c.CheckHTTP(t.Context(), "shop", check, time.Minute); err != nil {
			t.Error(err)
		}
	}
	var ce *CheckError
	err := c.CheckHTTP(t.Context(), "shop", HTTPCheck{Service: "web", Port: 80, Path: "/ready", Status: 204}, 20*time.Millisecond)
	if !errors.As(err, &ce) || !errors.Is(err, context.DeadlineExceeded) || ce.Last != "200 fine" || ce.What != "http://web:80/ready" {
		t.Errorf("got %v", err)
	}
	// What the cluster itself says is no answer of the service, whatever its code.
	err = c.CheckHTTP(t.Context(), "shop", HTTPCheck{Service: "none", Port: 80, Status: 404}, 20*time.Millisecond)
	if !errors.As(err, &ce) || !strings.HasPrefix(ce.Last, "from the cluster: 404") {
		t.Errorf("got %v", err)
	}
}

func TestCheckTCP(t *testing.T) {
	c := newFake(t)
	c.api["/api/v1/namespaces/shop/services/web:80/proxy/"] = "fine"
	if err := c.CheckTCP(t.Context(), "shop", "web", 80, time.Minute); err != nil {
		t.Error(err)
	}
	var ce *CheckError
	if err := c.CheckTCP(t.Context(), "shop", "db", 5432, 20*time.Millisecond); !errors.As(err, &ce) || ce.What != "tcp://db:5432" {
		t.Errorf("got %v", err)
	}
	// As Kubernetes 1.36 says it.
	for message, want := range map[string]bool{
		`error trying to reach service: dial tcp 10.244.0.51:9999: connect: connection refused`:                              false,
		`error trying to reach service: dial tcp 10.244.0.51:9999: i/o timeout`:                                              false,
		`no endpoints available for service "raw"`:                                                                           false,
		`no service port 81 found for service "shop"`:                                                                        false,
		`error trying to reach service: read tcp 10.99.0.1:57710->10.99.0.1:19002: read: connection reset by peer`:           true,
		`error trying to reach service: EOF`:                                                                                 true,
		`error trying to reach service: net/http: HTTP/1.x transport connection broken: malformed HTTP response "SSH-2.0-x"`: true,
	} {
		if got := connected(message); got != want {
			t.Errorf("%s: got %v", message, got)
		}
	}
}
