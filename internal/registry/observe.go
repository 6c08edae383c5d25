package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// stallTime is how long one side of a transfer may do nothing: what takes longer holds a
	// connection for nobody.
	stallTime = 5 * time.Minute
	// touchTime is how much of that may be lost by setting the deadline only now and then.
	touchTime = 5 * time.Second
	// lingerTime is how long is waited for the rest of a request that has been answered.
	lingerTime = 3 * time.Second
	// maxRefusal bounds what is kept of an answer that refuses, in bytes, for the log.
	maxRefusal = 2 << 10
	// maxAgent bounds what is logged of the name of a client, in bytes.
	maxAgent = 256
	// maxPath bounds what is logged of a path, in bytes.
	maxPath = 512
	// piece is how much is handed on at once where the system copies by itself, in bytes: after each
	// piece the client gets time anew.
	piece = 1 << 20
)

// observed is a response whose course is recorded.
type observed struct {
	http.ResponseWriter
	control *http.ResponseController
	now     func() time.Time
	user    string
	status  int
	sent    int64
	refusal []byte
	until   time.Time
	// body is that of the request; nil for none.
	body *received
}

// touch gives the client time anew to take what is sent.
func (o *observed) touch() {
	if now := o.now(); o.until.Sub(now) < stallTime-touchTime {
		o.until = now.Add(stallTime)
		_ = o.control.SetWriteDeadline(o.until) // where there are none, as in this process, nobody stalls
	}
}

// Unwrap is for http.ResponseController.
func (o *observed) Unwrap() http.ResponseWriter { return o.ResponseWriter }

// Flush sends what is buffered.
func (o *observed) Flush() { _ = o.control.Flush() }

// WriteHeader records the status.
func (o *observed) WriteHeader(status int) {
	if o.status == 0 && status >= http.StatusOK {
		o.status = status
		if status >= http.StatusBadRequest && o.body.open() {
			// What is still to come of the request is not waited for.
			o.Header().Set("Connection", "close")
			o.body.hurry()
		}
	}
	o.touch()
	o.ResponseWriter.WriteHeader(status)
}

// Write counts.
func (o *observed) Write(p []byte) (int, error) {
	if o.status == 0 {
		o.status = http.StatusOK
	}
	if o.status >= http.StatusBadRequest && len(o.refusal) < maxRefusal {
		o.refusal = append(o.refusal, p[:min(len(p), maxRefusal-len(o.refusal))]...)
	}
	o.touch()
	n, err := o.ResponseWriter.Write(p)
	o.sent += int64(n)
	return n, err
}

// ReadFrom lets the system copy from file to connection.
func (o *observed) ReadFrom(src io.Reader) (n int64, err error) {
	if o.status >= http.StatusBadRequest {
		return io.Copy(struct{ io.Writer }{o}, src)
	}
	if o.status == 0 {
		o.status = http.StatusOK
	}
	// The system looks through one limit only.
	limit, limited := src.(*io.LimitedReader)
	for {
		next := &io.LimitedReader{R: src, N: piece}
		if limited {
			next.R, next.N = limit.R, min(limit.N, piece)
		}
		want := next.N
		if want <= 0 {
			return n, nil
		}
		o.touch()
		m, err := io.Copy(o.ResponseWriter, next)
		n, o.sent = n+m, o.sent+m
		if limited {
			limit.N -= m
		}
		if err != nil || m < want {
			return n, err
		}
	}
}

// received is the body of a request that is counted. It gives the client time anew with each read.
type received struct {
	io.ReadCloser
	control *http.ResponseController
	now     func() time.Time
	n       int64
	until   time.Time
	ended   atomic.Bool
}

// open reports whether something is still to come.
func (b *received) open() bool { return b != nil && !b.ended.Load() }

// hurry gives the client no more than a little time for what is still to come, which net/http reads
// when the request has been answered.
func (b *received) hurry() { _ = b.control.SetReadDeadline(b.now().Add(lingerTime)) }

// Read counts.
func (b *received) Read(p []byte) (int, error) {
	if now := b.now(); b.until.Sub(now) < stallTime-touchTime {
		b.until = now.Add(stallTime)
		_ = b.control.SetReadDeadline(b.until)
	}
	n, err := b.ReadCloser.Read(p)
	b.n += int64(n)
	if err != nil {
		b.ended.Store(true)
		// From here on nothing is expected of the client but that it waits for the answer.
		_ = b.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

// observe serves requests by next, and logs and counts them.
func (f *Front) observe(next func(*observed, *http.Request)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := f.o.Now()
		control := http.NewResponseController(w)
		// What the request before this one, on the same connection, has left.
		_ = control.SetWriteDeadline(time.Time{})
		o := &observed{ResponseWriter: w, control: control, now: f.o.Now}
		body := &received{ReadCloser: r.Body, control: control, now: f.o.Now}
		inner := r.WithContext(r.Context())
		if r.Body != nil && r.Body != http.NoBody {
			inner.Body = body
			o.body = body
			// It may never come, and never be asked for.
			_ = control.SetReadDeadline(start.Add(stallTime))
		}
		f.o.Metrics.begin()
		defer func() {
			broken := recover()
			if o.status == 0 && broken == nil {
				o.status = http.StatusOK
			}
			o.touch() // what is buffered is yet to be sent
			if o.body.open() {
				body.hurry()
			}
			took := f.o.Now().Sub(start)
			f.o.Metrics.end(r, o.status, body.n, o.sent, took)
			f.log(r, o, body.n, start, took, broken)
			if broken != nil {
				// net/http ends the connection, which tells the client that the answer is not whole.
				panic(broken)
			}
		}()
		next(o, inner)
	})
}

// accessLine is a line of the access log. Neither queries nor headers are in it, but for the name of
// the client: they hold secrets.
type accessLine struct {
	Time     string `json:"time"`
	Remote   string `json:"remote"`
	User     string `json:"user,omitempty"`
	Method   string `json:"method"`
	Path     string `json:"path"`
	Protocol string `json:"protocol"`
	Status   int    `json:"status"`
	Received int64  `json:"received"`
	Bytes    int64  `json:"bytes"`
	// Duration is in seconds.
	Duration float64 `json:"duration"`
	Agent    string  `json:"agent,omitempty"`
	// Error is what the client was told.
	Error string `json:"error,omitempty"`
}

func (f *Front) log(r *http.Request, o *observed, got int64, start time.Time, took time.Duration, broken any) {
	said := refusalText(o.refusal)
	path := strings.ToValidUTF8(r.URL.Path[:min(len(r.URL.Path), maxPath)], "")
	if broken != nil {
		said = "the answer was broken off"
	}
	if o.status >= http.StatusInternalServerError || broken != nil {
		attrs := []any{slog.String("method", r.Method), slog.String("path", path), slog.Int("status", o.status), slog.String("error", said)}
		// Who breaks off on purpose has said why.
		if err, ok := broken.(error); broken != nil && (!ok || !errors.Is(err, http.ErrAbortHandler)) {
			attrs = append(attrs, slog.String("panic", fmt.Sprint(broken)))
		}
		f.o.Log.WarnContext(r.Context(), "the registry failed to answer a request", attrs...)
	}
	if f.o.AccessLog == nil {
		return
	}
	remote := r.RemoteAddr
	if host, _, err := net.SplitHostPort(remote); err == nil {
		remote = host
	}
	agent := r.UserAgent()
	line, err := json.Marshal(accessLine{
		Time: start.UTC().Format("2006-01-02T15:04:05.000Z"), Remote: remote, User: o.user, Method: r.Method, Path: path, Protocol: r.Proto,
		Status: o.status, Received: got, Bytes: o.sent, Duration: float64(took.Microseconds()) / 1e6, Agent: agent[:min(len(agent), maxAgent)], Error: said,
	})
	if err == nil {
		_, err = f.o.AccessLog.Write(append(line, '\n'))
	}
	if err != nil {
		f.o.Metrics.lostLine()
		f.o.Log.WarnContext(r.Context(), "a line of the access log is lost", slog.Any("error", err))
	}
}

// refusalText is what an answer in the form of the distribution specification says, in short.
func refusalText(raw []byte) string {
	if len(raw) == 0 {
		return ""
	}
	var answer struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
	}
	if json.Unmarshal(raw, &answer) != nil || len(answer.Errors) == 0 {
		return strings.TrimSpace(strings.ToValidUTF8(string(raw), ""))
	}
	var said []string
	for _, e := range answer.Errors {
		said = append(said, strings.TrimSpace(e.Code+" "+e.Message))
	}
	return strings.Join(said, "; ")
}

// refuse answers in the form that the distribution specification gives to errors.
func refuse(w http.ResponseWriter, status int, code, message string) {
	type one struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	raw, err := json.Marshal(map[string][]one{"errors": {{code, message}}})
	if err != nil {
		raw = nil // cannot happen: texts always marshal
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", fmt.Sprint(len(raw)))
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Docker-Distribution-Api-Version", "registry/2.0") // old clients look for it in refusals too
	w.WriteHeader(status)
	_, _ = w.Write(raw)
}
