package containerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// NoSocketError says that no containerd was found.
type NoSocketError struct {
	// Tried are the paths that were looked at.
	Tried []string
}

// Error lists the paths.
func (e *NoSocketError) Error() string {
	return "no containerd runs here: there is no socket at " + strings.Join(e.Tried, ", ")
}

// SeveralError says that more than one containerd was found.
type SeveralError struct{ Found []string }

// Error lists their sockets.
func (e *SeveralError) Error() string {
	return "several containerd run here: " + strings.Join(e.Found, ", ")
}

// ConnectError says that nothing answers at a socket, or that this user may not open it: then
// os.ErrPermission is in its tree.
type ConnectError struct {
	Address string
	Err     error
}

// Error names the socket.
func (e *ConnectError) Error() string {
	err := e.Err
	var path *os.SyscallError
	if errors.As(err, &path) {
		err = path.Err
	}
	return fmt.Sprintf("connecting to containerd at %q: %v", e.Address, err)
}

// Unwrap returns the cause.
func (e *ConnectError) Unwrap() error { return e.Err }

// Error is what a containerd answered, or why it did not.
type Error struct {
	Address string
	// Doing says what was being done, as in "writing blob sha256:…".
	Doing string
	Err   error
}

// Error quotes containerd's own message.
func (e *Error) Error() string {
	text := e.Err.Error()
	if s, ok := status.FromError(e.Err); ok {
		text = s.Message()
	}
	return fmt.Sprintf("containerd at %q: %s: %s", e.Address, e.Doing, text)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// BusyError says that somebody else has been writing a blob for so long that nobody waits any more.
type BusyError struct{ Address, Digest string }

// Error names the blob.
func (e *BusyError) Error() string {
	return fmt.Sprintf("containerd at %q: blob %s is being written by somebody else", e.Address, e.Digest)
}

// DigestError says that what containerd has been sent for a blob is something else.
type DigestError struct {
	Address, Digest string
	Err             error
}

// Error quotes containerd's own message.
func (e *DigestError) Error() string {
	return fmt.Sprintf("containerd at %q refuses blob %s: %s", e.Address, e.Digest, status.Convert(e.Err).Message())
}

// Unwrap returns containerd's answer.
func (e *DigestError) Unwrap() error { return e.Err }

// failed is the end of ctx where that is why a call failed, else an *Error.
func (c *Client) failed(ctx context.Context, err error, doing string, args ...any) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return &Error{c.address, fmt.Sprintf(doing, args...), err}
}

func isCode(err error, code codes.Code) bool { return err != nil && status.Code(err) == code }
