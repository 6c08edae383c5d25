package oci

import (
	"context"
	"errors"
	"slices"
	"sync"
)

// limiter lets so many requests through at a time. Where a host says that this is too much, half of
// those that were under way are let through from then on, and one more each time that as many have
// succeeded: additive increase, multiplicative decrease.
type limiter struct {
	most int

	mu sync.Mutex
	// allowed is between 1 and most; its fraction is on the way to the next.
	allowed float64
	active  int
	// cuts counts how often it was made smaller.
	cuts  int
	queue []chan struct{}
}

func newLimiter(most int) *limiter { return &limiter{most: most, allowed: float64(most)} }

// slot is the permission to send one request.
type slot struct {
	l *limiter
	// cuts is how often the limiter had been cut when the request was let through: a host refuses all
	// that is under way when it is too much, and that is one refusal.
	cuts int
}

// enter waits for a permission.
func (l *limiter) enter(ctx context.Context) (slot, error) {
	l.mu.Lock()
	if l.active < int(l.allowed) && len(l.queue) == 0 {
		defer l.mu.Unlock()
		l.active++
		return slot{l, l.cuts}, nil
	}
	turn := make(chan struct{})
	l.queue = append(l.queue, turn)
	l.mu.Unlock()
	select {
	case <-turn:
		l.mu.Lock()
		defer l.mu.Unlock()
		return slot{l, l.cuts}, nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.queue, turn); i >= 0 {
		l.queue = slices.Delete(l.queue, i, i+1)
	} else { // its turn came in this moment
		l.active--
		l.admit()
	}
	return slot{}, ctx.Err()
}

// admit lets those through for whom there is room. It is called with the lock held.
func (l *limiter) admit() {
	for len(l.queue) > 0 && l.active < int(l.allowed) {
		close(l.queue[0])
		l.queue = slices.Delete(l.queue, 0, 1)
		l.active++
	}
}

// leave ends a request that ended with err.
func (s slot) leave(err error) {
	l := s.l
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.cuts == l.cuts {
		switch {
		case err == nil:
			l.allowed = min(float64(l.most), l.allowed+1/l.allowed)
		case slowDown(err):
			l.cuts++
			l.allowed = max(1, min(l.allowed, float64(l.active))/2)
		}
	}
	l.active--
	l.admit()
}

// slowDown reports whether a host has asked, with this answer, for fewer requests.
func slowDown(err error) bool {
	var busy *BusyError
	if errors.As(err, &busy) {
		return busy.answer
	}
	return tooMany(err)
}

// putAside reports whether a host did not look at a request, or was not even sent it, for being asked
// too much.
func putAside(err error) bool {
	var busy *BusyError
	return errors.As(err, &busy) || tooMany(err)
}
