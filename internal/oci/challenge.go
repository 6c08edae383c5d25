package oci

import (
	"errors"
	"net/http"
	"sync"
)

// challenges asks each registry only once how it wants to be authenticated. The library asks
// anew for each repository.
type challenges struct {
	inner http.RoundTripper

	mu      sync.Mutex
	answers map[string]*answer
}

// answer is that of one registry to GET /v2/ (OCI distribution spec, "determining support").
type answer struct {
	done chan struct{}
	// From here on it is set before done is closed.
	status int
	header http.Header
	err    error
}

func (c *challenges) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodGet || r.URL.Path != "/v2/" || r.URL.RawQuery != "" || r.Header.Get("Authorization") != "" {
		return c.inner.RoundTrip(r)
	}
	key := r.URL.Scheme + "://" + r.URL.Host
	for {
		c.mu.Lock()
		a := c.answers[key]
		if a == nil {
			a = &answer{done: make(chan struct{})}
			c.answers[key] = a
			c.mu.Unlock()
			return c.ask(r, key, a)
		}
		c.mu.Unlock()
		select {
		case <-a.done:
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
		switch {
		case a.err != nil:
			return nil, a.err
		case a.status != 0:
			return &http.Response{
				Status: http.StatusText(a.status), StatusCode: a.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
				Header: a.header.Clone(), Body: http.NoBody, Request: r,
			}, nil
		}
		// Whoever asked did not wait for the answer, or it is not the last word.
	}
}

func (c *challenges) ask(r *http.Request, key string, a *answer) (*http.Response, error) {
	resp, err := c.inner.RoundTrip(r)
	// A registry without TLS stays one; it depends on the guard whether it is spoken to without.
	keep := errors.Is(err, http.ErrSchemeMismatch)
	switch {
	case err != nil && r.Context().Err() == nil:
		a.err = err
	case err == nil && (resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusUnauthorized):
		a.status, a.header, keep = resp.StatusCode, resp.Header.Clone(), true
	}
	if !keep {
		c.mu.Lock()
		delete(c.answers, key)
		c.mu.Unlock()
	}
	close(a.done)
	return resp, err
}
