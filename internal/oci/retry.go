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

// retry calls f until it succeeds, fails for good, or has been tried often enough.
func retry(ctx context.Context, f func() error) error {
	wait := firstWait
	for i := 1; ; i++ {
		err := f()
		if err == nil || i == attempts || ctx.Err() != nil || !temporary(err) {
			return err
		}
		// Jitter keeps parallel transfers from coming back all at once.
		t := time.NewTimer(wait/2 + rand.N(wait))
		select {
		case <-ctx.Done():
			t.Stop()
			return errors.Join(ctx.Err(), err)
		case <-t.C:
		}
		wait *= growth
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
