package oci

import (
	"context"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// mounter is the session for mounting from one other repository.
type mounter struct {
	// done is closed when the rest is set.
	done    chan struct{}
	session *http.Client
	err     error
}

// mounting returns a session that may also read the repository from of the same registry. A token is
// for what was asked for when it was given (distribution's token scopes), and to mount a blob takes
// both pushing here and pulling there. Who says that from may not be read says so once.
func (r *Repository) mounting(ctx context.Context, from string) (*http.Client, error) {
	for {
		r.mu.Lock()
		m := r.mounters[from]
		if m == nil {
			m = &mounter{done: make(chan struct{})}
			r.mounters[from] = m
			r.mu.Unlock()
			m.session, m.err = r.openMounting(ctx, from)
			// What may pass, or was this caller's impatience, is not kept.
			if m.err != nil && (ctx.Err() != nil || temporary(m.err)) {
				r.mu.Lock()
				delete(r.mounters, from)
				r.mu.Unlock()
			}
			close(m.done)
			return m.session, m.err
		}
		r.mu.Unlock()
		select {
		case <-m.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		r.mu.Lock()
		kept := r.mounters[from] == m
		r.mu.Unlock()
		if kept || m.err == nil {
			return m.session, m.err
		}
	}
}

func (r *Repository) openMounting(ctx context.Context, from string) (*http.Client, error) {
	c := r.client
	// It was asked for the repository already, and is not asked again.
	challenge, err := transport.Ping(ctx, r.name.Registry, c.base)
	if err != nil {
		return nil, err
	}
	if !strings.EqualFold(challenge.Scheme, "bearer") {
		return r.http, nil
	}
	scopes := []string{r.name.Scope(transport.PushScope), "repository:" + from + ":" + transport.PullScope}
	rt, err := transport.NewWithContext(ctx, r.name.Registry, r.auth, c.base, scopes)
	if err != nil {
		return nil, ofToken(err)
	}
	return &http.Client{Transport: rt}, nil
}
