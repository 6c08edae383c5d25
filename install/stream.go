package install

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/progress"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

const (
	// maxBuffered is the most bytes of a blob of a stream that are kept in memory while it is
	// sent, so that sending can be tried again. Larger ones are sent as they come.
	maxBuffered = 8 << 20
	// window is how many bytes of a larger one are kept, so that an upload which broke off can go on:
	// more than what may be lost between two computers' buffers.
	window = 16 << 20
	// maxFailures is how many blobs in a row may fail before the rest is not tried any more.
	maxFailures = 3
)

// StreamError says which blobs of a stream could not be sent. All others were, where the registry
// let them, since a stream may be hard to get a second time.
type StreamError struct {
	Failed int
	Err    error
}

// Error counts the blobs and gives the reasons.
func (e *StreamError) Error() string {
	return fmt.Sprintf("%d of the blobs in the stream could not be sent: %v", e.Failed, e.Err)
}

// Unwrap returns the reasons.
func (e *StreamError) Unwrap() error { return e.Err }

// sendStream sends the blobs of a stream, in one pass and one by one. What refers to them is sent
// after the whole stream has been proven.
func (s *Seeding) sendStream(ctx context.Context, task progress.Task) error {
	var failures []error
	inARow := 0
	err := s.bundles[0].Each(ctx, s.o.Progress, func(ctx context.Context, blob manifest.Blob, content io.Reader) error {
		content, err := s.keeping(blob, content)
		if err != nil {
			return err
		}
		b := s.blobs[blob.Digest]
		if b == nil || len(b.need) == 0 || inARow == maxFailures {
			return nil
		}
		all := map[string]bool{}
		for _, r := range b.need {
			all[r.path] = true
		}
		open, err := opener(blob, content)
		if err != nil {
			return err
		}
		err = s.sendBlob(ctx, b, all, open, task)
		var damaged *verify.ContentError
		switch {
		case err == nil:
			inARow = 0
		case ctx.Err() != nil, errors.As(err, &damaged):
			return err
		default:
			inARow++
			failures = append(failures, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(failures) > 0 {
		return &StreamError{len(failures), errors.Join(failures...)}
	}
	return nil
}

// opener gives a blob as often as its bytes can be kept: always for small ones, else as far back as
// window reaches.
func opener(blob manifest.Blob, content io.Reader) (func(offset int64) (io.ReadCloser, error), error) {
	if blob.Size <= maxBuffered {
		raw, err := io.ReadAll(content)
		if err != nil {
			return nil, err
		}
		return oci.FromBytes(raw), nil
	}
	return oci.FromStream(content, blob.Size, window), nil
}
