package oci

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

const (
	// defaultPerHost is Options.PerHost where that is 0: enough for 200 images to take as long as
	// some, few enough that no registry takes it for an attack.
	defaultPerHost = 48
	// pause is for how long a host is left alone that has had too much and names no time.
	pause = time.Second
	// maxRefusal bounds the words of a refusal, in bytes.
	maxRefusal = 64 << 10
)

// hosts are those that are spoken to, each with what is under way there.
type hosts struct {
	perHost int
	waiting func(host string, d time.Duration)

	mu sync.Mutex
	m  map[string]*host
}

func newHosts(o Options) *hosts {
	perHost := o.PerHost
	if perHost <= 0 {
		perHost = defaultPerHost
	}
	return &hosts{perHost: perHost, waiting: o.Waiting, m: map[string]*host{}}
}

func (h *hosts) of(name string) *host {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.m[name] == nil {
		h.m[name] = &host{name: name, waiting: h.waiting, slots: make(chan struct{}, h.perHost)}
	}
	return h.m[name]
}

// host is one that is spoken to.
type host struct {
	name    string
	waiting func(host string, d time.Duration)
	slots   chan struct{}

	mu sync.Mutex
	// refusals counts those whose time has not passed, opens is closed with the last of them.
	refusals int
	opens    chan struct{}
	// longest is the longest time that was asked for since the host was last free to be asked,
	// last what it said then.
	longest time.Duration
	last    error
}

// enter waits until there are fewer requests under way than there may be; leave ends this one.
func (h *host) enter(ctx context.Context) (leave func(), err error) {
	select {
	case h.slots <- struct{}{}:
		return func() { <-h.slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// small is retry for requests without a payload, of which only so many are sent to a host at a
// time. Each gets answerTime, of which the time spent in the queue is no part.
func (h *host) small(ctx context.Context, f func(context.Context) error) error {
	return retry(ctx, func() error {
		leave, err := h.enter(ctx)
		if err != nil {
			return err
		}
		defer leave()
		attempt, cancel := context.WithTimeout(ctx, answerTime)
		defer cancel()
		return f(attempt)
	})
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
		return &BusyError{Host: h.name, Wait: d, Err: cause}
	}
	h.mu.Lock()
	if h.refusals == 0 {
		h.opens, h.longest = make(chan struct{}), 0
	}
	h.refusals++
	// The requests that were under way are refused all at once: that is told once.
	news := asked && d > h.longest
	h.longest, h.last = max(h.longest, d), cause
	busy := &BusyError{Host: h.name, Wait: d, Err: cause, opens: h.opens}
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
	if err != nil || resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable {
		return resp, err
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
	cause := transport.CheckError(resp)
	if !asked {
		_ = h.refused(pause, false, cause) // the answer itself is told
		resp.Body = io.NopCloser(bytes.NewReader(words))
		return resp, nil
	}
	return nil, h.refused(max(d, pause), true, cause)
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
