package cli

import (
	"context"
	"io"
)

// interruptible reads from a pipe and lets go of it when ctx ends: its other end may not send
// anything for hours.
type interruptible struct {
	ctx  context.Context //nolint:containedctx // a reader has nowhere else to get it from
	r    io.Reader
	buf  []byte
	done chan received
}

type received struct {
	n   int
	err error
}

// pipeSize is how much a pipe holds, in bytes.
const pipeSize = 64 << 10

func newInterruptible(ctx context.Context, r io.Reader) *interruptible {
	return &interruptible{ctx: ctx, r: r, buf: make([]byte, pipeSize), done: make(chan received, 1)}
}

func (s *interruptible) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	// Not into p: the caller may use that for something else while the read still waits.
	piece := s.buf[:min(len(s.buf), len(p))]
	go func() {
		n, err := s.r.Read(piece)
		s.done <- received{n, err}
	}()
	select {
	case <-s.ctx.Done():
		return 0, s.ctx.Err()
	case got := <-s.done:
		copy(p, piece[:got.n])
		return got.n, got.err
	}
}
