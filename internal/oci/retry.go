package oci

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// longestWait bounds what hosts ask for with Retry-After. What is asked for beyond it is not waited
// for, since asking earlier is no use.
const longestWait = 5 * time.Minute

// putOff is how many times the patience with a host one request lets itself be put off.
const putOff = 3

// backoff counts failures that came one after the other and waits longer after each. That a host
// says how long to wait, and that it cannot be reached for a while, is no failure of the request.
type backoff struct {
	host            *host
	failures, tries int
	next, waited    time.Duration
	// seen is how much had succeeded at the host when the last failure was counted.
	seen int
	// end ends being put off.
	end *time.Timer
}

func (h *host) backoff() backoff {
	return backoff{host: h, next: h.budget.Wait, seen: h.health.successes()}
}

// progressed forgets the failures.
func (b *backoff) progressed() {
	b.done()
	*b = b.host.backoff()
}

// wait waits after a failure, and returns the error where there is to be no other try.
func (b *backoff) wait(ctx context.Context, err error) error {
	var (
		busy *BusyError
		away *awayError
	)
	if !errors.As(err, &busy) || busy.answer {
		b.tries++
	}
	switch {
	case final(err):
		return err
	case busy != nil:
		return b.waitFor(ctx, busy, err)
	case ctx.Err() != nil:
		return err
	case errors.As(err, &away):
		return b.waitOut(ctx, away.host, err)
	case !temporary(err):
		return err
	}
	limit := b.host.budget.Tries
	switch {
	case IsNoSpace(err), garbled(err):
		limit = min(limit, fewTries)
	case errors.Is(err, ErrNotListed):
		limit = min(limit, listTries)
	}
	// Who is refused while others are served is no worse than they.
	good := b.host.health.successes()
	unlucky := tooMany(err) && good != b.seen
	b.seen = good
	if !unlucky {
		b.failures++
	}
	if b.failures >= limit || unlucky && b.late() {
		if limit == 1 || garbled(err) {
			return err
		}
		return b.gaveUp(&GaveUpError{Err: err})
	}
	lost, failed := b.host.health.ails(true)
	if failed > 0 {
		return b.gaveUp(&GaveUpError{Failed: failed, Err: err})
	}
	return b.sleep(ctx, lost, err)
}

func (b *backoff) gaveUp(e *GaveUpError) error {
	e.Host, e.Tries, e.Waited = b.host.name, b.tries, b.waited
	return e
}

// sleep waits a little longer each time.
func (b *backoff) sleep(ctx context.Context, lost <-chan struct{}, err error) error {
	// Jitter keeps parallel transfers from coming back all at once.
	d := b.next/2 + rand.N(b.next)
	b.next = min(2*b.next, max(b.host.budget.LongestWait, b.host.budget.Wait))
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return fmt.Errorf("%w after %w", ctx.Err(), err)
	case <-lost:
		return b.gaveUp(&GaveUpError{Silent: b.host.budget.Patience, Err: err})
	case <-t.C:
		b.waited += d
		return nil
	}
}

// waitOut waits for a host that has gone away. Its trouble is not that of the request.
func (b *backoff) waitOut(ctx context.Context, away *host, err error) error {
	if b.late() {
		return b.gaveUp(&GaveUpError{Err: err})
	}
	lost, _ := away.health.ails(false)
	return b.sleep(ctx, lost, err)
}

// late reports whether the request has been put off for too long.
func (b *backoff) late() bool {
	if b.end == nil {
		b.end = time.NewTimer(putOff * b.host.budget.Patience)
	}
	select {
	case <-b.end.C:
		b.end.Reset(0) // it stays at its end
		return true
	default:
		return false
	}
}

// waitFor waits until a busy host may be asked again.
func (b *backoff) waitFor(ctx context.Context, busy *BusyError, err error) error {
	if busy.opens == nil || ctx.Err() != nil || b.late() {
		return err
	}
	select {
	case <-busy.opens:
	case <-b.end.C:
		b.end.Reset(0)
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w after %w", ctx.Err(), err)
	}
	// Those who waited with this one are not to come all at once either.
	t := time.NewTimer(rand.N(b.host.budget.Wait))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return fmt.Errorf("%w after %w", ctx.Err(), err)
	case <-t.C:
		return nil
	}
}

// done lets go of what waiting needed.
func (b *backoff) done() {
	if b.end != nil {
		b.end.Stop()
	}
}

// retry calls f until it succeeds, fails for good, or has been tried often enough. Of the calls for
// one limiter only so many are under way at a time.
func (h *host) retry(ctx context.Context, l *limiter, f func() error) error {
	b := h.backoff()
	defer b.done()
	for {
		slot, err := l.enter(ctx)
		if err != nil {
			return err
		}
		err = f()
		slot.leave(err)
		if err == nil {
			h.health.well()
			return nil
		}
		if err := b.wait(ctx, err); err != nil {
			return err
		}
	}
}

// small is retry for requests without a payload. Each gets Budget.Answer, of which the time spent
// in the queue is no part.
func (h *host) small(ctx context.Context, f func(context.Context) error) error {
	return h.retry(ctx, h.smalls, func() error {
		silent := &StallError{For: h.budget.Answer, Answer: true}
		attempt, cancel := context.WithTimeoutCause(ctx, h.budget.Answer, silent)
		defer cancel()
		return causeOf(ctx, attempt, f(attempt))
	})
}

// permanentError is one that doing the same again does not help against.
type permanentError struct{ error }

func (e permanentError) Unwrap() error { return e.error }

// garbledError is an answer that makes no sense. It may have been spoiled on its way.
type garbledError struct{ error }

func (e garbledError) Unwrap() error { return e.error }

// garbled reports whether what came is not what must have been sent.
func garbled(err error) bool {
	var (
		g garbledError
		d *DigestError
	)
	return errors.As(err, &g) || errors.As(err, &d)
}

// wireError says that a request, or its answer, did not get through.
type wireError struct {
	// doing is what was being done, in one word; it may be empty.
	doing string
	err   error
}

func (e *wireError) Error() string {
	if e.doing == "" {
		return e.err.Error()
	}
	return e.doing + ": " + e.err.Error()
}

func (e *wireError) Unwrap() error { return e.err }

// wire shortens an error of an HTTP client, whose words repeat the whole address: that of an upload
// has the state of the session in it.
func wire(err error) error {
	var u *url.Error
	if !errors.As(err, &u) {
		return err
	}
	cause := ofToken(u.Err)
	if errors.Is(cause, io.EOF) {
		// For who reads a blob the end of a connection is not the end of the blob.
		cause = fmt.Errorf("the connection was closed without an answer: %w", io.ErrUnexpectedEOF)
	}
	return &wireError{strings.ToLower(u.Op), cause}
}

// awayError says that a host cannot be reached which was reached before.
type awayError struct {
	host *host
	err  error
}

func (e *awayError) Error() string { return e.err.Error() }
func (e *awayError) Unwrap() error { return e.err }

// isDial reports whether an error says that there is nobody to talk to.
func isDial(err error) bool {
	var (
		op  *net.OpError
		dns *net.DNSError
	)
	return errors.As(err, &op) && op.Op == "dial" || errors.As(err, &dns)
}

// isAlert reports whether an error is what TLS calls an alert: the other side's word that it does not
// go on, as where it wants a certificate (RFC 8446, section 6.2).
func isAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

// isNet reports whether an error is the network's.
func isNet(err error) bool {
	var n net.Error
	return errors.As(err, &n)
}

// temporaryStatus reports whether an answer may be another in a moment.
func temporaryStatus(code int) bool {
	switch code {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout, http.StatusInsufficientStorage:
		return true
	}
	return false
}

// tooMany reports whether a host said that it is asked too much.
func tooMany(err error) bool {
	var status temporaryError
	return statusOf(err) == http.StatusTooManyRequests || errors.As(err, &status) && status.status == http.StatusTooManyRequests
}

// final reports whether there is nothing to be decided any more.
func final(err error) bool {
	var (
		p      permanentError
		gaveUp *GaveUpError
	)
	return errors.As(err, &p) || errors.As(err, &gaveUp)
}

// temporary reports whether doing the same again may help.
func temporary(err error) bool {
	if final(err) {
		return false
	}
	var (
		answer temporaryError
		stall  *StallError
		anew   *anewError
	)
	if errors.Is(err, ErrNotListed) || errors.As(err, &answer) || errors.As(err, &stall) || errors.As(err, &anew) || garbled(err) {
		return true
	}
	var t *transport.Error
	if errors.As(err, &t) {
		return temporaryStatus(t.StatusCode)
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	// Who cannot be reached at all, or must not be talked to, will not be there in a moment.
	var (
		cert    *tls.CertificateVerificationError
		record  tls.RecordHeaderError
		refused *PlainHTTPError
	)
	if isDial(err) || errors.As(err, &cert) || errors.As(err, &record) || errors.As(err, &refused) {
		return false
	}
	// Anything else that went wrong on the wire: reset, closed, cut short, timed out.
	var (
		op      *net.OpError
		library *url.Error
		wire    *wireError
	)
	return errors.As(err, &wire) || errors.As(err, &library) || errors.As(err, &op) || errors.Is(err, io.ErrUnexpectedEOF)
}
