package faultproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"testing"
)

// Server is a Proxy on a port of its own.
type Server struct {
	*Proxy
	// Addr is host:port, on loopback. It stays the same over Down and Up.
	Addr string

	mu   sync.Mutex
	http *http.Server // nil while nobody listens
}

// Start starts a proxy in front of next, for as long as the test runs.
func Start(t testing.TB, next http.Handler, rules ...Rule) *Server {
	t.Helper()
	s := &Server{Proxy: New(next), Addr: "127.0.0.1:0"}
	s.Set(rules...)
	if err := s.Up(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// Up lets it listen, where it does not.
func (s *Server) Up() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.http != nil {
		return nil
	}
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", s.Addr)
	if err != nil {
		return fmt.Errorf("starting the fault proxy: %w", err)
	}
	s.Addr = l.Addr().String()
	s.http = &http.Server{Handler: s.Proxy, ErrorLog: log.New(io.Discard, "", 0)}
	server := s.http
	go func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			panic(err)
		}
	}()
	return nil
}

// Down closes all connections and lets new ones be refused, until Up.
func (s *Server) Down() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.http != nil {
		_ = s.http.Close() // what it could say is of connections that are to end
		s.http = nil
	}
}

// Close ends it for good, and waits for the requests under way.
func (s *Server) Close() {
	s.end()
	s.Down()
	s.Wait()
}
