package oci

import (
	"cmp"
	"fmt"
	"sync"
	"time"
)

// Budget says how much is borne of a host before it is given up. Fields that are 0 have the
// defaults.
type Budget struct {
	// Tries is how often one request is sent, and a payload without any progress, before that has
	// failed: 9. Faults that help nobody by coming back, such as a full disk, count for more.
	Tries int
	// Wait is for how long is waited, about, after the first failure: 100 ms. It doubles with each
	// that follows, up to LongestWait: 15 s. Ten times as long nobody asks a host for anything that
	// has had too much.
	Wait, LongestWait time.Duration
	// Patience is for how long a host may fail to give any good answer, or to move any payload,
	// before all that is asked of it fails: 5 min. It is also for how long a host that cannot be
	// reached any more, having been reached before, is waited for. One request lets itself be put
	// off, by a host that asks for that or by failures that are not its own, three times as long.
	Patience time.Duration
	// Answer is for how long a request without a payload may take: 1 min. Of manifests and small blobs
	// it is for how long the answer may take to begin; what follows may not stall. To the answer to a payload
	// it adds what reading that again may take a registry, up to 10 min.
	Answer time.Duration
	// Stall is the time in which a payload must move by 1 KiB at least, as far as that is up to the
	// host: 30 s.
	Stall time.Duration
}

func (b Budget) withDefaults() Budget {
	return Budget{
		Tries:       max(1, cmp.Or(b.Tries, 9)),
		Wait:        cmp.Or(b.Wait, 100*time.Millisecond),
		LongestWait: cmp.Or(b.LongestWait, 15*time.Second),
		Patience:    cmp.Or(b.Patience, 5*time.Minute),
		Answer:      cmp.Or(b.Answer, time.Minute),
		Stall:       cmp.Or(b.Stall, 30*time.Second),
	}
}

const (
	// hashing is how many bytes per second a registry reads again, at least, before it answers.
	hashing = 8 << 20
	// longestAnswer bounds the time for that.
	longestAnswer = 10 * time.Minute
)

// pause is for how long a host is left alone, at least, that has had too much: 1 s.
func (b Budget) pause() time.Duration { return 10 * b.Wait }

// answerTo is for how long the answer to a payload of so many bytes is waited for.
func (b Budget) answerTo(size int64) time.Duration {
	return min(b.Answer+time.Duration(size/hashing)*time.Second, max(b.Answer, longestAnswer))
}

const (
	// fewTries is Budget.Tries at most, for what is not expected to pass.
	fewTries = 3
	// listTries is the same for a list that others write as well.
	listTries = 6
	// A host of which more requests failed than spareFailures and, for each that succeeded,
	// failuresEach is given up: each of them may be borne, but not all.
	spareFailures = 100
	failuresEach  = 4
)

// GaveUpError says that what may pass did not pass for too long.
type GaveUpError struct {
	// Host is the registry, as host[:port].
	Host string
	// Tries is how often the request was tried, and Waited for how long was waited in between.
	Tries  int
	Waited time.Duration
	// Silent is set where the host had given nothing good at all for so long, Failed where so many
	// requests to it had failed that this was out of proportion. Else the tries were used up.
	Silent time.Duration
	Failed int
	// Err is the last failure.
	Err error
}

// Error names the budget that was used up, and the cause.
func (e *GaveUpError) Error() string {
	tries := "1 try"
	if e.Tries != 1 {
		tries = fmt.Sprintf("%d tries", e.Tries)
	}
	why := ""
	switch {
	case e.Silent > 0:
		why = fmt.Sprintf(", %s having given nothing for %v", e.Host, e.Silent)
	case e.Failed > 0:
		why = fmt.Sprintf(", %d requests to %s having failed", e.Failed, e.Host)
	}
	return fmt.Sprintf("gave up after %s and %v of waiting%s: %v", tries, e.Waited.Round(100*time.Millisecond), why, e.Err)
}

// Unwrap returns the last failure.
func (e *GaveUpError) Unwrap() error { return e.Err }

// health is what is known about how well a host does.
type health struct {
	budget Budget

	mu sync.Mutex
	// reached is set once the host has answered anything.
	reached bool
	// good and bad count requests, or pieces of payload, that succeeded and failed.
	good, bad int
	// ailing runs from the first failure after something good on; lost is closed when it has run out.
	ailing *time.Timer
	lost   chan struct{}
	isLost bool
	// away says that nobody has reached the host since it was found to be gone.
	away bool
}

func newHealth(b Budget) *health { return &health{budget: b, lost: make(chan struct{})} }

// answered notes a sign of life: an answer that is no failure of the host's own.
func (h *health) answered() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reached = true
	h.recover()
}

// well notes that something succeeded, or that payload has moved.
func (h *health) well() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.good++
	h.recover()
}

// recover is called with the lock held.
func (h *health) recover() {
	h.away = false
	if h.ailing != nil {
		h.ailing.Stop()
		h.ailing = nil
	}
	if h.isLost {
		h.lost, h.isLost = make(chan struct{}), false
	}
}

// connected notes that there is somebody there, whatever he says.
func (h *health) connected() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reached, h.away = true, false
}

// known reports whether the host has answered anything.
func (h *health) known() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.reached
}

// gone reports whether the host has answered before, and whether this is news.
func (h *health) gone() (before, news bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	news = h.reached && !h.away
	h.away = h.reached
	return h.reached, news
}

// ails notes a failure, of which counted says that the host gave it itself. It returns what is
// closed when patience ends, and how many failures there were where they are too many.
func (h *health) ails(counted bool) (lost <-chan struct{}, failed int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if counted {
		h.bad++
	}
	if h.ailing == nil && !h.isLost {
		var t *time.Timer
		t = time.AfterFunc(h.budget.Patience, func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			if h.ailing == t && !h.isLost {
				h.isLost = true
				close(h.lost)
			}
		})
		h.ailing = t
	}
	if h.bad > spareFailures+failuresEach*h.good {
		failed = h.bad
	}
	return h.lost, failed
}

// excused lets patience begin anew after some time, which the host has asked for.
func (h *health) excused(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ailing != nil && !h.isLost {
		h.ailing.Reset(d + h.budget.Patience)
	}
}

// successes counts what succeeded.
func (h *health) successes() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.good
}
