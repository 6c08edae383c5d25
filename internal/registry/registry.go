// Package registry is the embedded registry: CNCF distribution in this process, storing into a
// directory in distribution's own layout, so that the store can be served by any other distribution
// later; what stands before it (TLS, users, access log, metrics); and what cleans it up.
//
// A store is a directory:
//
//	docker/registry/v2/   the content, as distribution lays it out
//	sealift/lock          held with flock(2): together by those who write, alone by one who prunes
//	sealift/secret        signs what clients get to go on with an upload, and tokens
//	sealift/users         who may enter, unless another file is named
//	sealift/closed        says that there were users once
//	sealift/tls/          a certificate authority of the registry's own
//
// Several processes may write to a store at the same time: nothing that is in it is remembered
// elsewhere, and every file gets its name when it is complete. Who stops in the middle of an upload,
// however suddenly, leaves nothing but that upload.
package registry

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
)

// Options of a registry.
type Options struct {
	// Store is the directory that holds the content.
	Store string
	// ReadOnly refuses all writes. The store may then be on a medium that cannot be written to, and
	// may be pruned while it is served.
	ReadOnly bool
	// SparseIndexes accepts indexes that name children which are not there.
	SparseIndexes bool
}

// Server is a registry that can be served.
type Server struct {
	o      Options
	app    *handlers.App
	driver *driver
	lock   *storeLock
	secret []byte
	// parsing bounds how many manifests are parsed at the same time.
	parsing chan struct{}
}

// New opens the store, which is made if it is missing. A *BusyError says that it is being pruned.
func New(ctx context.Context, o Options) (s *Server, err error) {
	if err := checkStore(o.Store); err != nil {
		return nil, err
	}
	if err := makeDirs(o.Store); err != nil {
		return nil, fmt.Errorf("opening store: %w", err)
	}
	s = &Server{o: o, secret: make([]byte, secretSize), parsing: make(chan struct{}, maxParsing)}
	if o.ReadOnly {
		// Nothing is written, so nobody is kept from anything, and what is signed is for this process.
		if _, err := rand.Read(s.secret); err != nil {
			return nil, fmt.Errorf("making a secret: %w", err)
		}
	} else {
		if s.lock, err = lockToWrite(ctx, o.Store); err != nil {
			return nil, err
		}
		if s.secret, err = keptSecret(o.Store); err != nil {
			s.lock.release()
			return nil, fmt.Errorf("opening store: %w", err)
		}
	}
	if s.driver, err = newDriver(o.Store); err != nil {
		s.lock.release()
		return nil, fmt.Errorf("opening store: %w", err)
	}
	toSlog()
	defer func() {
		// NewApp panics where its configuration cannot be used.
		if r := recover(); r != nil {
			s.lock.release()
			s, err = nil, fmt.Errorf("opening store %q: %v", o.Store, r)
		}
	}()
	// The app outlives the call: what ctx carries stays, its end does not matter.
	s.app = handlers.NewApp(context.WithoutCancel(ctx), s.config())
	return s, nil
}

func (s *Server) config() *configuration.Configuration {
	c := &configuration.Configuration{
		Version: "0.1",
		// No cache: another process may be writing to the same store.
		Storage: configuration.Storage{
			driverName: configuration.Parameters{"driver": s.driver},
			"delete":   configuration.Parameters{"enabled": true},
			"redirect": configuration.Parameters{"disable": true},
			"maintenance": configuration.Parameters{
				"uploadpurging": map[any]any{"enabled": false},
				"readonly":      map[any]any{"enabled": s.o.ReadOnly},
			},
		},
	}
	c.HTTP.Secret = hex.EncodeToString(s.secret)
	c.Catalog.MaxEntries = 1000
	if s.o.SparseIndexes {
		c.Validation.Manifests.Indexes.Platforms = "none"
	}
	c.Log.AccessLog.Disabled = true
	return c
}

// Handler answers the requests of the distribution API.
func (s *Server) Handler() http.Handler { return http.HandlerFunc(s.serve) }

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	ctx, faults := withFaults(r.Context())
	defer faults.end()
	w = &faultWriter{ResponseWriter: w, faults: faults}
	r = r.WithContext(ctx)
	if s.serveBlob(w, r) || refuseNames(w, r) {
		return
	}
	if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/") {
		s.putManifest(w, r)
		return
	}
	s.app.ServeHTTP(w, r)
}

// Health says whether the store can be read and, unless it is read-only, written.
func (s *Server) Health(context.Context) error {
	d, err := os.Open(s.o.Store)
	if err != nil {
		return fmt.Errorf("reading the store: %w", err)
	}
	_, err = d.Readdirnames(1)
	_ = d.Close() // it was only read
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("reading the store: %w", err)
	}
	if s.o.ReadOnly {
		return nil
	}
	path := filepath.Join(StateDir(s.o.Store), "health."+rand.Text()+temporary)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("writing to the store: %w", err)
	}
	// On a full disk a file can still be made, but nothing be put into it.
	_, err = f.Write(make([]byte, 4096))
	if err := errors.Join(err, f.Close(), os.Remove(path)); err != nil {
		return fmt.Errorf("writing to the store: %w", err)
	}
	return nil
}

// TokenKey is a key for FrontOptions: the same for all who serve this store.
func (s *Server) TokenKey() []byte { return s.secret }

// Close gives the store back to one who may want to prune it. Requests must have ended.
func (s *Server) Close() error {
	err := s.app.Shutdown()
	s.lock.release()
	return err
}

// secretSize is that of the store's secret, in bytes.
const secretSize = 32

// keptSecret reads the secret of the store at dir, which is made where there is none: an upload goes
// on after a restart, and with whichever process that serves the store.
func keptSecret(dir string) ([]byte, error) {
	path := filepath.Join(StateDir(dir), "secret")
	for {
		raw, err := os.ReadFile(path)
		if err == nil {
			secret, err := hex.DecodeString(string(raw))
			if err != nil || len(secret) != secretSize {
				return nil, fmt.Errorf("%q is not a secret of %d bytes in hexadecimal", path, secretSize)
			}
			return secret, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		fresh := make([]byte, secretSize)
		if _, err := rand.Read(fresh); err != nil {
			return nil, fmt.Errorf("making a secret: %w", err)
		}
		// Whoever comes second reads what the first has written.
		if err := createFile(path, []byte(hex.EncodeToString(fresh)), 0o600); err != nil {
			return nil, err
		}
	}
}

// NotStoreError says that a directory holds other things than a store.
type NotStoreError struct{ Dir string }

// Error names the directory.
func (e *NotStoreError) Error() string {
	return fmt.Sprintf("directory %q is not empty, and no store of a registry", e.Dir)
}

// checkStore refuses a directory with other things in it: who misspells the name of a store does not
// want a new one there.
func checkStore(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening store: %w", err)
	}
	others := 0
	for _, e := range entries {
		switch e.Name() {
		case "docker", stateName:
			return nil
		case "lost+found":
		default:
			others++
		}
	}
	if others > 0 {
		return &NotStoreError{dir}
	}
	return nil
}
