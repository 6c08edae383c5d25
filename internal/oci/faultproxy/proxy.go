// Package faultproxy is for tests: it stands in front of a registry and lets requests go wrong in
// the ways that registries, and the networks before them, have.
package faultproxy

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"sync"
)

// Stats are what has passed since the last call of Restart.
type Stats struct {
	// Requests counts those that came, Faults those that went wrong, and By the faults of each kind.
	// A fault counts when it happens.
	Requests, Faults int
	By               map[Kind]int
	// Up and Down are bytes of bodies that were read from clients and sent to them.
	Up, Down int64
}

// Proxy is a handler in front of another one. HTTP/1 only.
type Proxy struct {
	next    http.Handler
	closing chan struct{}

	mu    sync.Mutex
	idle  *sync.Cond
	rules []*schedule
	stats Stats
	// under counts the requests under way.
	under int
	// then is called when due says so.
	due   func(Stats) bool
	then  func()
	ended bool
}

// New returns a proxy without faults.
func New(next http.Handler) *Proxy {
	p := &Proxy{next: next, closing: make(chan struct{}), stats: Stats{By: map[Kind]int{}}}
	p.idle = sync.NewCond(&p.mu)
	return p
}

// Upstream passes requests on to the server at a base address. What it cannot reach is a
// connection that is closed without an answer.
func Upstream(base *url.URL) http.Handler {
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64}
	return &httputil.ReverseProxy{
		Transport: transport,
		// The server's Location headers then lead back to the proxy.
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(base); r.Out.Host = r.In.Host },
		FlushInterval: -1,
		ErrorHandler:  func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		ErrorLog:      log.New(io.Discard, "", 0),
	}
}

// Set replaces the rules. Of those that are for a request the first whose turn it is counts.
func (p *Proxy) Set(rules ...Rule) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules = nil
	for _, r := range rules {
		p.rules = append(p.rules, &schedule{Rule: r, tries: map[string]int{}})
	}
}

// When lets f be called, once, as soon as due says so of what has passed; nil ends that. The goroutine
// that serves the request calls it, before the request, or the bytes after those that made it due, go
// on. due must not keep what it is given.
func (p *Proxy) When(due func(Stats) bool, f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.due, p.then = due, f
}

// Stats returns what has passed.
func (p *Proxy) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.By = map[Kind]int{}
	for k, n := range p.stats.By {
		s.By[k] = n
	}
	return s
}

// Restart begins to count anew.
func (p *Proxy) Restart() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats = Stats{By: map[Kind]int{}}
}

// Wait waits until no request is under way.
func (p *Proxy) Wait() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.under > 0 {
		p.idle.Wait()
	}
}

// end lets go of what stalls.
func (p *Proxy) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		p.ended = true
		close(p.closing)
	}
}

// pick takes the fault for a request, at the time when all is known that its kind needs to know:
// that is the request, or the answer.
func (p *Proxy) pick(r *http.Request, answer bool, size int64) *schedule {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.rules {
		ofBody := answer || s.Kind.needsRequestBody() || s.Kind == CutRequest && s.MinBody > 0
		if s.Kind.ofAnswer() != answer || !s.meets(r) || ofBody && size >= 0 && size < max(s.MinBody, 1) {
			continue
		}
		if s.due(r) {
			return s
		}
	}
	return nil
}

func (p *Proxy) happened(k Kind) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats.Faults++
	p.stats.By[k]++
}

// passed counts, and does what is due then.
func (p *Proxy) passed(requests, up, down int) {
	p.mu.Lock()
	p.stats.Requests += requests
	p.stats.Up += int64(up)
	p.stats.Down += int64(down)
	var f func()
	if p.due != nil && p.due(p.stats) {
		f, p.due, p.then = p.then, nil, nil
	}
	p.mu.Unlock()
	if f != nil {
		f()
	}
}

// ServeHTTP passes a request on, or lets it go wrong.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.under++
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.under--; p.under == 0 {
			p.idle.Broadcast()
		}
	}()
	p.passed(1, 0, 0)
	s := p.pick(r, false, r.ContentLength)
	if s != nil && p.refuse(w, r, s) {
		return
	}
	a := &answer{ResponseWriter: w, p: p, r: r}
	out := r.WithContext(r.Context())
	if r.Body != nil && r.Body != http.NoBody {
		out.Body = &requestBody{ReadCloser: r.Body, answer: a, fault: s, at: -1}
		if s != nil {
			out.Body = &requestBody{ReadCloser: r.Body, answer: a, fault: s, at: s.at(r.ContentLength)}
		}
	}
	p.next.ServeHTTP(a, out)
	if a.isBroken() {
		panic(http.ErrAbortHandler) // closes the connection
	}
}

// refuse is for the kinds that need nothing of the server; it reports whether s is of these.
func (p *Proxy) refuse(w http.ResponseWriter, r *http.Request, s *schedule) bool {
	switch s.Kind {
	case TooManyRequests:
		s.answer(w, http.StatusTooManyRequests, "TOOMANYREQUESTS")
	case Unavailable:
		s.answer(w, http.StatusServiceUnavailable, "UNAVAILABLE")
	case InternalError:
		s.answer(w, http.StatusInternalServerError, "UNKNOWN")
	case CutRequest:
		if r.ContentLength != 0 {
			return false
		}
		fallthrough
	case Drop:
		p.happened(s.Kind)
		panic(http.ErrAbortHandler)
	case Reset:
		p.happened(s.Kind)
		reset(w)
		return true
	default:
		return false
	}
	p.happened(s.Kind)
	return true
}

// answer writes a refusal in the words of a registry.
func (s *schedule) answer(w http.ResponseWriter, status int, code string) {
	words := s.Words
	if words == "" {
		words = Words
	}
	if s.RetryAfter != "" {
		w.Header().Set("Retry-After", s.RetryAfter)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%q}]}`, code, words) // a client may be gone
}

// reset closes the connection so that the client gets an RST.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // the connection may have ended by itself
	}
	_ = conn.Close()
}

// errBroken is what the server sees of a client whose connection has gone wrong.
var errBroken = errors.New("the fault proxy has broken the connection")

// answer counts an answer and lets it go wrong.
type answer struct {
	http.ResponseWriter
	p *Proxy
	r *http.Request

	begun bool
	fault *schedule
	// at is where it goes wrong, sent how much of the body the server has written.
	at, sent int64

	mu     sync.Mutex
	broken bool
}

// Unwrap lets the connection be flushed.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// Flush is for servers that look for it.
func (a *answer) Flush() {
	if !a.isBroken() {
		_ = http.NewResponseController(a.ResponseWriter).Flush() // a client may be gone
	}
}

func (a *answer) breakOff() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.broken = true
}

func (a *answer) isBroken() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.broken
}

func (a *answer) WriteHeader(status int) {
	if a.isBroken() {
		return
	}
	if !a.begun && status >= 200 {
		a.begun = true
		size, err := strconv.ParseInt(a.Header().Get("Content-Length"), 10, 64)
		if err == nil && size > 0 && status < 300 && a.r.Method != http.MethodHead {
			if a.fault = a.p.pick(a.r, true, size); a.fault != nil {
				a.at = a.fault.at(size)
			}
		}
		if a.fault != nil && a.fault.Kind == ShortBody {
			a.p.happened(ShortBody)
			a.Header().Set("Content-Length", strconv.FormatInt(a.at, 10))
		}
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(b []byte) (int, error) {
	if !a.begun {
		a.WriteHeader(http.StatusOK)
	}
	if a.isBroken() {
		return 0, errBroken
	}
	from, to := a.sent, a.sent+int64(len(b))
	if a.fault == nil || to <= a.at {
		return a.pass(b)
	}
	before := b[:max(a.at-from, 0)]
	switch a.fault.Kind {
	case CorruptBody:
		if from <= a.at {
			b = append([]byte{}, b...)
			b[a.at-from] ^= 1
			a.p.happened(CorruptBody)
		}
		return a.pass(b)
	case ShortBody:
		// The server has said all, as far as it knows.
		if _, err := a.pass(before); err != nil {
			return 0, err
		}
		a.sent = to
		return len(b), nil
	case CutBody, StallBody:
		n, err := a.pass(before)
		if err != nil {
			return n, err
		}
		a.Flush()
		a.p.happened(a.fault.Kind)
		if a.fault.Kind == StallBody {
			select {
			case <-a.r.Context().Done():
			case <-a.p.closing:
			}
		}
		a.breakOff()
		return n, errBroken
	default:
		return a.pass(b) // those of requests are none of this
	}
}

// pass sends bytes on.
func (a *answer) pass(b []byte) (int, error) {
	n, err := a.ResponseWriter.Write(b)
	a.sent += int64(n)
	a.p.passed(0, 0, n)
	return n, err
}

// requestBody counts a request's body and lets it go wrong.
type requestBody struct {
	io.ReadCloser
	answer  *answer
	fault   *schedule // nil for none
	at, got int64
}

func (b *requestBody) Read(p []byte) (int, error) {
	if b.answer.isBroken() {
		return 0, io.ErrUnexpectedEOF
	}
	breaks := b.fault != nil && (b.fault.Kind == CutRequest || b.fault.Kind == StallRequest)
	if breaks && b.got == b.at {
		return 0, b.stop()
	}
	if breaks {
		p = p[:min(int64(len(p)), b.at-b.got)]
	}
	n, err := b.ReadCloser.Read(p)
	if b.fault != nil && b.fault.Kind == CorruptRequest && b.at >= b.got && b.at < b.got+int64(n) {
		p[b.at-b.got] ^= 1
		b.answer.p.happened(CorruptRequest)
	}
	b.got += int64(n)
	b.answer.p.passed(0, n, 0)
	return n, err
}

// stop ends, or holds up, what the client sends.
func (b *requestBody) stop() error {
	p := b.answer.p
	p.happened(b.fault.Kind)
	if b.fault.Kind == StallRequest {
		<-p.closing
	}
	b.answer.breakOff()
	return io.ErrUnexpectedEOF
}
