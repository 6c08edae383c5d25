package release

import (
	"context"
	"io"
	"net/http"
	"strings"
	"time"
)

const (
	// requestTimeout bounds every request but watches: Helm passes no context
	// to most of its requests, so that a dead connection would hold it for ever.
	requestTimeout = time.Minute
	// recordTimeout bounds the requests to release records after the operation
	// was cancelled: they say in the cluster that it failed.
	recordTimeout = 5 * time.Second
	// recordPrefix begins the names of Helm's release records.
	recordPrefix = "sh.helm.release.v1."
)

// gate is the transport of one operation. It ties the requests that Helm makes
// without a context to the context of the operation (see the package
// documentation).
type gate struct {
	next http.RoundTripper
	ctx  context.Context //nolint:containedctx // lives as long as the operation, because Helm's requests carry no context
}

// RoundTrip implements http.RoundTripper.
func (g *gate) RoundTrip(req *http.Request) (*http.Response, error) {
	record := isRecord(req)
	timeout := requestTimeout
	if err := g.ctx.Err(); err != nil {
		if !record {
			if req.Body != nil {
				err = firstError(err, req.Body.Close())
			}
			return nil, err
		}
		timeout = recordTimeout
	}
	ctx, cancel := requestContext(req, timeout)
	stop := func() bool { return false }
	if reads(req) && !record {
		stop = context.AfterFunc(g.ctx, cancel)
	}
	resp, err := g.next.RoundTrip(req.WithContext(ctx))
	if err != nil {
		stop()
		cancel()
		return nil, err
	}
	resp.Body = &body{ReadCloser: resp.Body, done: func() { stop(); cancel() }}
	return resp, nil
}

func requestContext(req *http.Request, timeout time.Duration) (context.Context, context.CancelFunc) {
	if isStream(req) {
		return context.WithCancel(req.Context())
	}
	return context.WithTimeout(req.Context(), timeout)
}

// isRecord recognises the requests of Helm's storage: for one record, and for
// the records of a release.
func isRecord(req *http.Request) bool {
	return strings.Contains(req.URL.Path, "/secrets/"+recordPrefix) ||
		(reads(req) && strings.HasSuffix(req.URL.Path, "/secrets") && strings.Contains(req.URL.Query().Get("labelSelector"), "owner=helm"))
}

func reads(req *http.Request) bool {
	return req.Method == http.MethodGet || req.Method == http.MethodHead
}

// isStream recognises requests whose answer has no end.
func isStream(req *http.Request) bool {
	q := req.URL.Query()
	return reads(req) && (isTrue(q.Get("watch")) || isTrue(q.Get("follow")))
}

func isTrue(s string) bool { return s == "true" || s == "1" }

// body releases the context of a request when its answer was read.
type body struct {
	io.ReadCloser
	done func()
}

func (b *body) Close() error {
	err := b.ReadCloser.Close()
	b.done()
	return err
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
