package oci

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// defaultPerHost is Options.PerHost where that is 0: enough for 200 images to take as long as
	// some, few enough that no registry takes it for an attack.
	defaultPerHost = 48
	// defaultUploads is Options.Uploads where that is 0.
	defaultUploads = 16
)

// hosts are those that are spoken to, each with what is under way there.
type hosts struct {
	perHost, uploads int
	budget           Budget
	waiting          func(host string, d time.Duration)
	away             func(host string, err error)

	mu sync.Mutex
	m  map[string]*host
}

func newHosts(o Options) *hosts {
	h := &hosts{perHost: o.PerHost, uploads: o.Uploads, budget: o.Budget.withDefaults(), waiting: o.Waiting, away: o.Away, m: map[string]*host{}}
	if h.perHost <= 0 {
		h.perHost = defaultPerHost
	}
	if h.uploads <= 0 {
		h.uploads = defaultUploads
	}
	return h
}

func (h *hosts) of(name string) *host {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.m[name] == nil {
		h.m[name] = &host{
			name: name, budget: h.budget, waiting: h.waiting, away: h.away,
			smalls: newLimiter(h.perHost), uploads: newLimiter(h.uploads), health: newHealth(h.budget),
		}
	}
	return h.m[name]
}

// host is one that is spoken to.
type host struct {
	name    string
	budget  Budget
	waiting func(host string, d time.Duration)
	away    func(host string, err error)
	// smalls are requests without a payload, uploads those with one.
	smalls, uploads *limiter
	health          *health
	// chunk is how much of a blob the host takes in one request, as far as that is known; 0 for all.
	// noPatch is set once it has shown that it takes blobs only whole.
	chunk   atomic.Int64
	noPatch atomic.Bool

	mu sync.Mutex
	// refusals counts those whose time has not passed, opens is closed with the last of them.
	refusals int
	opens    chan struct{}
	// longest is the longest time that was asked for since the host was last free to be asked,
	// last what it said then.
	longest time.Duration
	last    error
}

// busy is why the host is not to be asked now, nil where it may be.
func (h *host) busy() *BusyError {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.refusals == 0 {
		return nil
	}
	return &BusyError{Host: h.name, Wait: h.longest, Err: h.last, opens: h.opens}
}

// refused leaves the host alone for some time, which it has asked for in so many words or not.
func (h *host) refused(d time.Duration, asked bool, cause error) *BusyError {
	if d > longestWait {
		return &BusyError{Host: h.name, Wait: d, Err: cause, answer: true}
	}
	if asked {
		h.health.excused(d)
	}
	h.mu.Lock()
	if h.refusals == 0 {
		h.opens, h.longest = make(chan struct{}), 0
	}
	h.refusals++
	// The requests that were under way are refused all at once: that is told once.
	news := asked && d > h.longest
	h.longest, h.last = max(h.longest, d), cause
	busy := &BusyError{Host: h.name, Wait: d, Err: cause, opens: h.opens, answer: true}
	h.mu.Unlock()
	time.AfterFunc(d, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.refusals--; h.refusals == 0 {
			close(h.opens)
		}
	})
	if news && h.waiting != nil {
		h.waiting(h.name, d)
	}
	return busy
}

// politeTransport sends nothing to a host that wants to be left alone. What such a host answers is
// a *BusyError, where it says for how long (RFC 9110, section 10.2.3); the waiting is for whoever
// tries again.
type politeTransport struct {
	inner http.RoundTripper
	hosts *hosts
}

func (t *politeTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	h := t.hosts.of(r.URL.Host)
	if busy := h.busy(); busy != nil {
		if r.Body != nil {
			_ = r.Body.Close() // the contract of RoundTripper; nothing was read from it
		}
		return nil, busy
	}
	resp, err := t.inner.RoundTrip(r)
	if err != nil {
		return nil, h.unreached(err)
	}
	if resp.StatusCode < http.StatusInternalServerError && resp.StatusCode != http.StatusTooManyRequests {
		h.health.answered()
	} else {
		h.health.connected()
	}
	if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable {
		return resp, nil
	}
	d, asked := retryAfter(resp.Header)
	if !asked && resp.StatusCode == http.StatusServiceUnavailable {
		return resp, nil
	}
	words, err := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		words = nil // the refusal counts, not its words
	}
	resp.Body = io.NopCloser(bytes.NewReader(words))
	if resp.Request == nil {
		resp.Request = r
	}
	cause := check(resp)
	if !asked {
		_ = h.refused(h.budget.pause(), false, cause) // the answer itself is told
		resp.Body = io.NopCloser(bytes.NewReader(words))
		return resp, nil
	}
	return nil, h.refused(max(d, h.budget.pause()), true, cause)
}

// unreached says of an error what it means for the host: one that was there before may come back, and
// one that has turned us away will do so again.
func (h *host) unreached(err error) error {
	if isAlert(err) && !h.health.known() {
		return permanentError{err}
	}
	if !isDial(err) || !isUnreachable(err) {
		return err
	}
	before, news := h.health.gone()
	if !before {
		return err
	}
	if news && h.away != nil {
		h.away(h.name, err)
	}
	return &awayError{h, err}
}

// isUnreachable reports whether a dialing error is the network's, and not a refusal of the dialer's
// own (WithDialer).
func isUnreachable(err error) bool {
	var (
		errno syscall.Errno
		dns   *net.DNSError
		n     net.Error
	)
	return errors.As(err, &errno) || errors.As(err, &dns) || errors.As(err, &n) && n.Timeout()
}

// retryAfter reads the header Retry-After: seconds, or a date, which is compared with the server's
// own clock.
func retryAfter(h http.Header) (d time.Duration, ok bool) {
	text := strings.TrimSpace(h.Get("Retry-After"))
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second, true
	}
	then, err := http.ParseTime(text)
	if err != nil {
		return 0, false
	}
	now, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return 0, false
	}
	return max(then.Sub(now), 0), true
}
