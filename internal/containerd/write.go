package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"

	"github.com/sealift/sealift/manifest"
)

// chunk is how many bytes go with one message; containerd takes 16 MiB.
const chunk = 1 << 20

var chunks = sync.Pool{New: func() any { b := make([]byte, chunk); return &b }}

// Between tries to write what somebody else is writing.
const (
	busyTries = 300
	busyPause = 200 * time.Millisecond
)

// Open gives the bytes of a blob, from its beginning.
type Open func() (io.ReadCloser, error)

// ErrOnce is what Open returns that can give a blob only once, when it is asked again.
var ErrOnce = errors.New("its bytes have passed and cannot be sent again")

// Write writes a blob, from where an earlier run has stopped, and calls moved with how many bytes are done
// with. containerd compares it with its digest before it keeps it. Of a blob that is there the labels are
// added. sent is how many bytes were sent. Errors: *Error, *BusyError, *DigestError, or those of open and
// of what it returns.
func (l *Lease) Write(ctx context.Context, d manifest.Descriptor, labels map[string]string, open Open, moved func(int64)) (sent int64, err error) {
	w := &write{Lease: l, d: d, labels: labels, open: open, moved: moved}
	for busy := 0; ; {
		err := w.once(ctx)
		switch {
		case err == nil:
			w.tell(d.Size)
			return w.sent, nil
		case ctx.Err() != nil:
			return w.sent, ctx.Err()
		case errors.Is(err, errThere):
			w.tell(d.Size)
			return w.sent, l.complete(ctx, d, labels)
		case errors.Is(err, errBusy):
			if busy++; busy == busyTries {
				return w.sent, &BusyError{l.c.address, d.Digest}
			}
			if err := pause(ctx, busyPause); err != nil {
				return w.sent, err
			}
		case errors.Is(err, errAgain):
		default:
			return w.sent, err
		}
	}
}

// complete protects content that is there, and adds the labels that it lacks.
func (l *Lease) complete(ctx context.Context, d manifest.Descriptor, labels map[string]string) error {
	if err := l.Keep(ctx, d.Digest); err != nil {
		return err
	}
	have, there, err := l.c.Info(ctx, d.Digest)
	if err != nil {
		return err
	}
	if !there {
		return &Error{l.c.address, "writing blob " + d.Digest, errors.New("it was there, and is gone")}
	}
	lacks := map[string]string{}
	for key, value := range labels {
		if have[key] == "" {
			lacks[key] = value
		}
	}
	return l.c.AddLabels(ctx, d.Digest, lacks)
}

// Ends of one try to write.
var (
	errThere = errors.New("it is there")
	errBusy  = errors.New("somebody else is writing it")
	errAgain = errors.New("it has to be written from its beginning")
)

// write is a blob that is being written.
type write struct {
	*Lease
	d      manifest.Descriptor
	labels map[string]string
	open   Open
	moved  func(int64)
	// sent counts what was sent, told what was told to moved.
	sent, told int64
	// fresh says that nothing of an earlier run is used.
	fresh bool
}

// tell says that n bytes of the blob are done with; it goes back where a try begins anew.
func (w *write) tell(n int64) {
	w.moved(n - w.told)
	w.told = n
}

func (w *write) once(ctx context.Context) (err error) {
	// The stream ends with this, whatever becomes of it.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := w.c.content.Write(w.context(ctx))
	if err != nil {
		return w.failed(ctx, err)
	}
	call := func(r *contentapi.WriteContentRequest) (*contentapi.WriteContentResponse, error) {
		r.Ref, r.Total, r.Expected = reference(w.d), w.d.Size, w.d.Digest
		// Why sending failed is what receiving says.
		if err := stream.Send(r); err != nil && !errors.Is(err, io.EOF) {
			return nil, w.failed(ctx, err)
		}
		answer, err := stream.Recv()
		if err != nil {
			return nil, w.failed(ctx, err)
		}
		return answer, nil
	}
	at, err := call(&contentapi.WriteContentRequest{Action: contentapi.WriteAction_STAT})
	if err != nil {
		return err
	}
	offset := at.Offset
	if w.fresh || offset > w.d.Size {
		offset = 0
	}
	w.tell(offset)
	if offset < w.d.Size {
		if err := w.copy(offset, call); err != nil {
			return w.abandon(ctx, cancel, err)
		}
	}
	_, err = call(&contentapi.WriteContentRequest{Action: contentapi.WriteAction_COMMIT, Offset: w.d.Size, Labels: w.labels})
	var answer *Error
	if !isCode(err, codes.FailedPrecondition) || !errors.As(err, &answer) {
		return err
	}
	refused := w.abandon(ctx, cancel, &DigestError{w.c.address, w.d.Digest, answer.Err})
	if offset == 0 || w.fresh {
		return refused
	}
	// What an earlier run has left may be what is wrong.
	w.fresh = true
	return errAgain
}

// copy sends the blob from offset on.
func (w *write) copy(offset int64, call func(*contentapi.WriteContentRequest) (*contentapi.WriteContentResponse, error)) (err error) {
	r, err := w.open()
	if err != nil {
		return &sourceError{err}
	}
	defer r.Close()
	if _, err := io.CopyN(io.Discard, r, offset); err != nil {
		return &sourceError{err}
	}
	buffer, _ := chunks.Get().(*[]byte)
	defer chunks.Put(buffer)
	for {
		n, err := io.ReadFull(r, *buffer)
		if n > 0 {
			answer, err := call(&contentapi.WriteContentRequest{Action: contentapi.WriteAction_WRITE, Offset: offset, Data: (*buffer)[:n]})
			if err != nil {
				return err
			}
			offset += int64(n)
			w.sent += int64(n)
			if answer.Offset != offset {
				return &Error{w.c.address, "writing blob " + w.d.Digest, fmt.Errorf("it has %d bytes, not the %d that were sent", answer.Offset, offset)}
			}
			w.tell(offset)
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			if offset != w.d.Size {
				return &sourceError{fmt.Errorf("blob %s has %d bytes, not %d", w.d.Digest, offset, w.d.Size)}
			}
			return nil
		case err != nil:
			return &sourceError{err}
		}
	}
}

// sourceError is of the side that the bytes come from. It never leaves this package.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }

// abandon takes back what was written where it may be wrong: bytes that are not proven. What is only
// interrupted stays, so that the next run goes on there.
func (w *write) abandon(ctx context.Context, cancel func(), cause error) error {
	var source *sourceError
	if !errors.As(cause, &source) && !isDigest(cause) {
		return cause
	}
	if source != nil {
		cause = source.err
	}
	if ctx.Err() != nil {
		return cause
	}
	// The writer has to be gone first.
	outer := context.WithoutCancel(ctx)
	cancel()
	for range busyTries {
		_, err := w.c.content.Abort(w.c.context(outer), &contentapi.AbortRequest{Ref: reference(w.d)})
		if err == nil || isCode(err, codes.NotFound) {
			return cause
		}
		if !isCode(err, codes.Unavailable) || w.lost() {
			return errors.Join(cause, w.c.failed(outer, err, "taking back blob %s", w.d.Digest))
		}
		if err := pause(outer, busyPause); err != nil {
			return cause
		}
	}
	return cause
}

func isDigest(err error) bool {
	var digest *DigestError
	return errors.As(err, &digest)
}

// lost reports whether the connection itself is broken.
func (w *write) lost() bool { return w.c.conn.GetState() != connectivity.Ready }

// failed tells answers apart.
func (w *write) failed(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case isCode(err, alreadyExists):
		return errThere
	case isCode(err, codes.Unavailable) && !w.lost():
		return errBusy
	}
	return w.c.failed(ctx, err, "writing blob %s", w.d.Digest)
}

// pause waits.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
