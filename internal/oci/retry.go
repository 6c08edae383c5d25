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

// backoff counts failures that came one after the other and waits longer after each.
type backoff struct {
	failures int
	next     time.Duration
}

func newBackoff() backoff { return backoff{next: firstWait} }

// wait waits after a failure, and returns the error where there is to be no other try.
func (b *backoff) wait(ctx context.Context, err error) error {
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

// retry calls f until it succeeds, fails for good, or has been tried often enough.
func retry(ctx context.Context, f func() error) error {
	b := newBackoff()
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

// retrySmall is retry for requests without a payload, each of which gets answerTime.
func retrySmall(ctx context.Context, f func(context.Context) error) error {
	return retry(ctx, func() error {
		attempt, cancel := context.WithTimeout(ctx, answerTime)
		defer cancel()
		return f(attempt)
	})
}

// permanentError is one that doing the same again does not help against.
type permanentError struct{ error }

// temporary reports whether doing the same again may help.
func temporary(err error) bool {
	var p permanentError
	if errors.As(err, &p) {
		return false
	}
	if errors.Is(err, ErrNotListed) {
		return true
	}
	var t *transport.Error
	if errors.As(err, &t) {
		switch t.StatusCode {
		case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
			http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return true
		}
		return false
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
