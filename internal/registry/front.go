package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	// shutdown is how long running requests may take to end.
	shutdown = 10 * time.Second
	// headerTime bounds how long the head of a request may take.
	headerTime = 15 * time.Second
	// idleTime is how long a connection is kept between two requests: longer than clients keep it, so
	// that a request does not meet its end.
	idleTime = 3 * time.Minute
	// maxHeader bounds the head of a request, in bytes. Tokens are in it.
	maxHeader = 64 << 10
)

// FrontOptions say how a registry is served. The zero value serves it to everyone, without TLS.
type FrontOptions struct {
	// TLS is for HTTPS; nil for plain HTTP. Protocols are set by Serve.
	TLS *tls.Config
	// Users are those who may enter; nil for everyone.
	Users *Users
	// AnonymousPull lets those without credentials read.
	AnonymousPull bool
	// TokenKey signs the tokens that AnonymousPull needs: where several processes, or one after the
	// other, serve the same, it is the same. A random one where it is empty.
	TokenKey []byte
	// ReadOnly refuses whatever is not GET or HEAD.
	ReadOnly bool
	// AccessLog gets a line of JSON for each request, in one Write each; nil for none.
	AccessLog io.Writer
	// Metrics count requests; nil for none.
	Metrics *Metrics
	// ShowMetrics answers GET /metrics, to those who may enter.
	ShowMetrics bool
	// Health says for /healthz whether the registry works; nil if it always does. Since anyone may ask,
	// it is called once in two seconds at most.
	Health func(context.Context) error
	// Now is the clock.
	Now func() time.Time
	// Log gets what goes wrong while serving; nil for slog.Default.
	Log *slog.Logger
}

// Front is what stands before a registry: TLS, users, the access log, metrics and health.
type Front struct {
	o       FrontOptions
	inner   http.Handler
	gate    *gate
	handler http.Handler

	// What was found when health was last looked after.
	healthMu sync.Mutex
	checked  time.Time
	ill      error
}

// NewFront returns what serves inner, which answers below /v2/.
func NewFront(inner http.Handler, o FrontOptions) (*Front, error) {
	if o.Now == nil {
		return nil, errors.New("serving a registry: no clock")
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	f := &Front{o: o, inner: inner}
	if o.Users != nil {
		g, err := newGate(o)
		if err != nil {
			return nil, err
		}
		f.gate = g
	}
	f.handler = f.observe(f.route)
	return f, nil
}

// ServeHTTP answers a request as Serve does.
func (f *Front) ServeHTTP(w http.ResponseWriter, r *http.Request) { f.handler.ServeHTTP(w, r) }

// Serve answers requests on l, which it closes, until ctx ends, then lets running ones end within
// ten seconds.
func (f *Front) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler: f, ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(f.o.Log.Handler(), slog.LevelDebug),
	}
	done := make(chan error, 1)
	go func() {
		if f.o.TLS == nil {
			done <- server.Serve(l)
			return
		}
		server.TLSConfig = f.o.TLS.Clone()
		done <- server.ServeTLS(l, "", "")
	}()
	select {
	case err := <-done:
		return fmt.Errorf("serving the registry: %w", err)
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdown)
	defer cancel()
	err := server.Shutdown(end)
	if errors.Is(err, context.DeadlineExceeded) {
		err = server.Close()
	}
	return err
}

// route answers what is not the registry's, and lets through to it who may.
func (f *Front) route(w *observed, r *http.Request) {
	switch r.URL.Path {
	case "/healthz", "/readyz":
		f.health(w, r)
		return
	case tokenPath:
		if f.gate != nil && f.o.AnonymousPull {
			f.gate.serveToken(w, r)
			return
		}
	}
	if f.gate != nil {
		user, ok := f.gate.admit(w, r)
		if !ok {
			return
		}
		w.user = user
	}
	switch {
	case r.URL.Path == "/metrics" && f.o.Metrics != nil && f.o.ShowMetrics:
		if !slices.Contains(reading, r.Method) {
			w.Header().Set("Allow", "GET, HEAD")
			refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "metrics are only to be asked for")
			return
		}
		f.o.Metrics.Handler().ServeHTTP(w, r)
	case f.o.ReadOnly && !slices.Contains(reading, r.Method):
		w.Header().Set("Allow", "GET, HEAD")
		refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "this registry is read-only")
	default:
		f.inner.ServeHTTP(w, r)
	}
}

// reading are the methods that change nothing.
var reading = []string{http.MethodGet, http.MethodHead}

func (f *Front) health(w http.ResponseWriter, r *http.Request) {
	if !slices.Contains(reading, r.Method) {
		w.Header().Set("Allow", "GET, HEAD")
		refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "health is only to be asked for")
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	status, text := http.StatusOK, "ok\n"
	if err := f.illness(r.Context()); err != nil {
		status, text = http.StatusServiceUnavailable, cause(err)+"\n"
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}

// healthTime is how long an answer about health is good.
const healthTime = 2 * time.Second

func (f *Front) illness(ctx context.Context) error {
	if f.o.Users != nil && !f.o.Users.Open() {
		if _, err := f.o.Users.current(); err != nil {
			return err
		}
	}
	if f.o.Health == nil {
		return nil
	}
	f.healthMu.Lock()
	defer f.healthMu.Unlock()
	if now := f.o.Now(); f.checked.IsZero() || now.Sub(f.checked) >= healthTime || now.Before(f.checked) {
		f.checked, f.ill = now, f.o.Health(context.WithoutCancel(ctx))
	}
	return f.ill
}
