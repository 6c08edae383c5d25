// Package registry is the embedded registry: CNCF distribution in this process, storing into
// a directory in distribution's own layout, so that the store can be served by any other
// distribution later.
package registry

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem" // the only storage linked
	"github.com/sirupsen/logrus"
)

// shutdown is how long running requests may take to end.
const shutdown = 10 * time.Second

// Options of a registry.
type Options struct {
	// Store is the directory that holds the content.
	Store string
	// ReadOnly refuses all writes.
	ReadOnly bool
	// SparseIndexes accepts indexes that name children which are not there.
	SparseIndexes bool
}

// Server is a registry that can be served.
type Server struct {
	app  *handlers.App
	http *http.Server
}

// New opens the store, which is made if it is missing.
func New(ctx context.Context, o Options) (s *Server, err error) {
	if err := os.MkdirAll(o.Store, 0o755); err != nil {
		return nil, fmt.Errorf("opening store: %w", err)
	}
	c, err := config(o)
	if err != nil {
		return nil, err
	}
	// The library logs to a logger of the whole process, which belongs to the command line.
	logrus.SetOutput(io.Discard)
	defer func() {
		// NewApp panics where its configuration cannot be used.
		if r := recover(); r != nil {
			s, err = nil, fmt.Errorf("opening store %q: %v", o.Store, r)
		}
	}()
	app := handlers.NewApp(ctx, c)
	return &Server{app, &http.Server{Handler: app, ReadHeaderTimeout: 30 * time.Second}}, nil
}

func config(o Options) (*configuration.Configuration, error) {
	var secret [32]byte
	if _, err := rand.Read(secret[:]); err != nil {
		return nil, fmt.Errorf("making a secret for uploads: %w", err)
	}
	c := &configuration.Configuration{
		Version: "0.1",
		Storage: configuration.Storage{
			"filesystem": configuration.Parameters{"rootdirectory": o.Store},
			"delete":     configuration.Parameters{"enabled": true},
			"cache":      configuration.Parameters{"blobdescriptor": "inmemory"},
			"maintenance": configuration.Parameters{
				"uploadpurging": map[any]any{"enabled": false},
				"readonly":      map[any]any{"enabled": o.ReadOnly},
			},
		},
	}
	c.HTTP.Secret = hex.EncodeToString(secret[:])
	c.Catalog.MaxEntries = 1000
	if o.SparseIndexes {
		c.Validation.Manifests.Indexes.Platforms = "none"
	}
	c.Log.AccessLog.Disabled = true
	return c, nil
}

// Handler answers the requests of the distribution API, for tests that bring their own server.
func (s *Server) Handler() http.Handler { return s.app }

// Serve answers requests on l until ctx ends, then lets running ones end within ten seconds.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	done := make(chan error, 1)
	go func() { done <- s.http.Serve(l) }()
	select {
	case err := <-done:
		return fmt.Errorf("serving the registry: %w", err)
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdown)
	defer cancel()
	err := s.http.Shutdown(end)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.http.Close()
	}
	return errors.Join(err, s.app.Shutdown())
}
