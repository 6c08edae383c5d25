package oci

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Attempts and waits of one request: about 8 s in all. They ride out what passes by itself,
// while a registry that is not there, and a mistake, are still told at once.
const (
	attempts  = 5
	firstWait = 200 * time.Millisecond
	growth    = 3
)

// Waits that hosts ask for, with Retry-After. What is asked for beyond longestWait is not waited
// for, since asking earlier is no use; patience is for how long one request lets itself be put off.
const (
	longestWait = 5 * time.Minute
	patience    = 15 * time.Minute
)

// backoff counts failures that came one after the other and waits longer after each. A host that
// says how long to wait is no failure, until patience is at its end.
type backoff struct {
	failures int
	next     time.Duration
	end      *time.Timer
}

func newBackoff() backoff { return backoff{next: firstWait} }

// wait waits after a failure, and returns the error where there is to be no other try.
func (b *backoff) wait(ctx context.Context, err error) error {
	var busy *BusyError
	if errors.As(err, &busy) {
		return b.waitFor(ctx, busy, err)
	}
	b.failures++
	if b.failures == attempts || ctx.Err() != nil || !temporary(err) {
		return err
	}
	// Jitter keeps parallel transfers from coming back all at once.
	t := time.NewTimer(b.next/2 + rand.N(b.next))
	b.next *= growth
	select {
	case <-ctx.Done():
		t.Stop()
		return errors.Join(ctx.Err(), err)
	case <-t.C:
		return nil
	}
}

// waitFor waits until a busy host may be asked again.
func (b *backoff) waitFor(ctx context.Context, busy *BusyError, err error) error {
	if busy.opens == nil || ctx.Err() != nil {
		return err
	}
	if b.end == nil {
		b.end = time.NewTimer(patience)
	}
	select {
	case <-busy.opens:
	case <-b.end.C:
		b.end.Reset(0) // it stays at its end
		return err
	case <-ctx.Done():
		return errors.Join(ctx.Err(), err)
	}
	// Those who waited with this one are not to come all at once either.
	t := time.NewTimer(rand.N(firstWait))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return errors.Join(ctx.Err(), err)
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

// retry calls f until it succeeds, fails for good, or has been tried often enough.
func retry(ctx context.Context, f func() error) error {
	b := newBackoff()
	defer b.done()
	for {
		err := f()
		if err == nil {
			return nil
		}
		if err := b.wait(ctx, err); err != nil {
			return err
		}
	}
}

// answerTime bounds a request that carries no payload: a registry that takes connections and
// then says nothing must not hold everything up.
const answerTime = time.Minute

// permanentError is one that doing the same again does not help against.
type permanentError struct{ error }

// temporaryStatus reports whether an answer may be another in a moment.
func temporaryStatus(code int) bool {
	switch code {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// temporary reports whether doing the same again may help.
func temporary(err error) bool {
	var p permanentError
	if errors.As(err, &p) {
		return false
	}
	var answer temporaryError
	if errors.Is(err, ErrNotListed) || errors.As(err, &answer) {
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
		op      *net.OpError
		dns     *net.DNSError
		cert    *tls.CertificateVerificationError
		record  tls.RecordHeaderError
		refused *PlainHTTPError
	)
	if errors.As(err, &op) && op.Op == "dial" || errors.As(err, &dns) || errors.As(err, &cert) ||
		errors.As(err, &record) || errors.As(err, &refused) {
		return false
	}
	// Anything else that went wrong on the wire: reset, closed, cut short, timed out.
	var wire *url.Error
	return errors.As(err, &wire) || op != nil || errors.Is(err, io.ErrUnexpectedEOF)
}
