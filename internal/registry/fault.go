package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"syscall"
)

// faults are the errors of the disk that one request has met. The registry hides what they say in a
// field that most clients do not show, behind "unknown error" and status 500, which looks as if it
// passed by itself.
type faults struct {
	mu    sync.Mutex
	first error
	ends  []func()
}

type faultsKey struct{}

// withFaults returns a context that errors can be noted in.
func withFaults(ctx context.Context) (context.Context, *faults) {
	f := &faults{}
	return context.WithValue(ctx, faultsKey{}, f), f
}

// note keeps the first error of a request.
func note(ctx context.Context, err error) {
	f, ok := ctx.Value(faultsKey{}).(*faults)
	if !ok {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.first == nil {
		f.first = err
	}
}

// atEnd has f called when the request of a context ends; it reports whether there is one.
func atEnd(ctx context.Context, end func()) bool {
	f, ok := ctx.Value(faultsKey{}).(*faults)
	if !ok {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ends = append(f.ends, end)
	return true
}

// end does what was to be done when the request ends.
func (f *faults) end() {
	f.mu.Lock()
	ends := f.ends
	f.ends = nil
	f.mu.Unlock()
	for _, end := range ends {
		end()
	}
}

func (f *faults) err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.first
}

// cause is what an error of the system says, without the paths, which are nobody's business but ours.
func cause(err error) string {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return "the registry's disk: " + errno.Error()
	}
	return err.Error()
}

// isFull reports that there is no room left.
func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// faultWriter answers with the error of the disk where there was one.
type faultWriter struct {
	http.ResponseWriter
	faults   *faults
	begun    bool
	replaced bool
}

// Unwrap is for http.ResponseController.
func (w *faultWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Flush sends what is buffered.
func (w *faultWriter) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }

// WriteHeader replaces an answer that says that something went wrong.
func (w *faultWriter) WriteHeader(status int) {
	if w.begun {
		return
	}
	if w.begun = status >= http.StatusOK; w.begun {
		// The client may send the next request for an upload as soon as it has the answer.
		w.faults.end()
	}
	err := w.faults.err()
	if err == nil || status < http.StatusBadRequest {
		w.ResponseWriter.WriteHeader(status)
		return
	}
	w.replaced = true
	status, code := http.StatusInternalServerError, "UNKNOWN"
	switch {
	case isFull(err):
		status = http.StatusInsufficientStorage
	case errors.Is(err, errTaken):
		status, code = http.StatusConflict, "BLOB_UPLOAD_INVALID"
	}
	for _, name := range []string{"Location", "Range", "Docker-Upload-UUID", "Docker-Content-Digest", "ETag", "Cache-Control"} {
		w.Header().Del(name)
	}
	refuse(w.ResponseWriter, status, code, cause(err))
}

// Write drops what was replaced.
func (w *faultWriter) Write(p []byte) (int, error) {
	if !w.begun {
		w.WriteHeader(http.StatusOK)
	}
	if w.replaced {
		return len(p), nil
	}
	return w.ResponseWriter.Write(p)
}

// ReadFrom lets the system copy from file to connection.
func (w *faultWriter) ReadFrom(src io.Reader) (int64, error) {
	if !w.begun {
		w.WriteHeader(http.StatusOK)
	}
	if w.replaced {
		return io.Copy(io.Discard, src)
	}
	return io.Copy(w.ResponseWriter, src)
}
