package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	// stallBytes is how much payload must move in Budget.Stall, at least.
	stallBytes = 1 << 10
	// stallLooks is how often that time is looked at. Only looks that find the host to be waited for
	// count: what this side does not take, or has not ready, is not the host's fault.
	stallLooks = 8
)

// StallError says that a host took a request and then next to nothing came, or was taken.
type StallError struct {
	// For is for how long that was watched.
	For time.Duration
	// Answer says that the beginning of an answer was waited for; else payload was under way, of
	// which so many bytes Moved.
	Answer bool
	Moved  int64
}

// Error says what was waited for, and how long.
func (e *StallError) Error() string {
	switch {
	case e.Answer:
		return fmt.Sprintf("no answer for %v", e.For)
	case e.Moved == 0:
		return fmt.Sprintf("no byte for %v", e.For)
	}
	return fmt.Sprintf("only %d bytes in %v", e.Moved, e.For)
}

// causeOf is why an attempt failed: where it was ended because nothing moved, that, and not that it
// was ended.
func causeOf(ctx, attempt context.Context, err error) error {
	var stall *StallError
	if err == nil || ctx.Err() != nil || !errors.As(context.Cause(attempt), &stall) {
		return err
	}
	return stall
}

// watch looks after payload that is under way.
type watch struct {
	window time.Duration
	end    context.CancelCauseFunc

	mu sync.Mutex
	// waiting says that it is the host's turn.
	waiting bool
	// moved is how much has moved since the first of the looks that count.
	moved int64
	looks int
	timer *time.Timer
	over  bool
}

// watchOver begins to look; end is called with a *StallError when payload has stalled.
func watchOver(window time.Duration, end context.CancelCauseFunc) *watch {
	w := &watch{window: window, end: end}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(window/stallLooks, w.look)
	return w
}

func (w *watch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return
	}
	if w.moved >= stallBytes {
		w.moved, w.looks = 0, 0
	} else if w.waiting {
		if w.looks++; w.looks == stallLooks {
			w.over = true
			w.end(&StallError{For: w.window, Moved: w.moved})
			return
		}
	}
	w.timer.Reset(w.window / stallLooks)
}

// turn says whose turn it is, the host's or ours, and how much has moved until then.
func (w *watch) turn(hosts bool, moved int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting = hosts
	w.moved += int64(moved)
}

func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	w.timer.Stop()
}

// watchedBody is the body of an answer, which ends with a *StallError when it stalls.
type watchedBody struct {
	io.ReadCloser
	watch        *watch
	ctx, attempt context.Context //nolint:containedctx // a reader has nowhere else to get it from
	cancel       context.CancelCauseFunc
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.watch.turn(true, 0)
	n, err := b.ReadCloser.Read(p)
	b.watch.turn(false, n)
	if err != nil && !errors.Is(err, io.EOF) {
		err = &wireError{err: causeOf(b.ctx, b.attempt, err)}
	}
	return n, err
}

func (b *watchedBody) Close() error {
	b.watch.stop()
	b.cancel(nil)
	return b.ReadCloser.Close()
}
