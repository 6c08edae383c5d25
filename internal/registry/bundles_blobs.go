package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// serveBlob answers for a blob of any bundle, whatever repository it belongs to: who knows a digest
// can ask for it under the name of another.
func (s *Bundles) serveBlob(ctx context.Context, a *answer, digest string) {
	if !a.checkDigest(digest) {
		return
	}
	blob, ok := s.stat(digest)
	if !ok {
		if made := s.lists.get(digest); made != nil {
			s.serveMade(ctx, a, made)
			return
		}
		a.fail(http.StatusNotFound, codeBlobUnknown, "blob %s is not here", digest)
		return
	}
	h := a.Header()
	if match := a.r.Header.Values("If-Match"); len(match) > 0 && !conditional(match, digest) {
		a.fail(http.StatusPreconditionFailed, codeDigestInvalid, "the blob is %s", digest)
		return
	}
	if a.notModified(digest) {
		return
	}
	status, offset, n := http.StatusOK, int64(0), blob.Size
	if a.r.Method == http.MethodGet && a.ranged(digest) {
		part, found, err := parseRange(a.r.Header.Get("Range"), blob.Size)
		switch {
		case err != nil:
			h.Del("ETag")
			h.Set("Content-Range", fmt.Sprintf("bytes */%d", blob.Size))
			a.fail(http.StatusRequestedRangeNotSatisfiable, codeSizeInvalid, "%v", err)
			return
		case found:
			status, offset, n = http.StatusPartialContent, part.from, part.size
			h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", offset, offset+n-1, blob.Size))
		}
	}
	h.Set("Accept-Ranges", "bytes")
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Length", strconv.FormatInt(n, 10))
	h.Set(headerDigest, digest)
	// What a digest names never changes.
	h.Set("Cache-Control", "max-age=31536000")
	if a.r.Method == http.MethodHead {
		a.WriteHeader(status)
		return
	}
	s.sendBlob(ctx, a, digest, status, offset, n)
}

// sendBlob sends part of a blob. The answer begins with its first piece, so that what cannot be read
// at all can still be told; later the connection ends instead.
func (s *Bundles) sendBlob(ctx context.Context, a *answer, digest string, status int, offset, n int64) {
	w := &begunWriter{a: a, status: status}
	err := s.read(ctx, digest, offset, n, func(r io.Reader) error {
		buf, _ := copyBuffers.Get().(*[copyBuffer]byte)
		defer copyBuffers.Put(buf)
		_, err := io.CopyBuffer(w, r, buf[:])
		if err != nil && w.begun {
			err = fmt.Errorf("%w: %w", errAnswered, err)
		}
		return err
	})
	switch {
	case err == nil:
		w.begin() // an empty blob has no pieces
	case errors.Is(err, errAnswered), ctx.Err() != nil:
		panic(http.ErrAbortHandler)
	default:
		for _, name := range []string{"ETag", "Accept-Ranges", "Content-Range", "Cache-Control", headerDigest} {
			a.Header().Del(name)
		}
		a.unreadable("blob "+digest, err)
	}
}

const copyBuffer = 64 << 10

// copyBuffers are for what has to be decoded; what lies in the file as it is needs none.
var copyBuffers = sync.Pool{New: func() any { return new([copyBuffer]byte) }}

// begunWriter begins an answer with its first piece.
type begunWriter struct {
	a      *answer
	status int
	begun  bool
}

func (w *begunWriter) begin() {
	if !w.begun {
		w.begun = true
		w.a.WriteHeader(w.status)
	}
}

func (w *begunWriter) Write(p []byte) (int, error) {
	w.begin()
	return w.a.Write(p)
}

// ranged reports whether the client wants a part, of this blob and no other (RFC 9110, 13.1.5).
func (a *answer) ranged(digest string) bool {
	if a.r.Header.Get("Range") == "" {
		return false
	}
	only := a.r.Header.Get("If-Range")
	// A weak tag, or a date, cannot tell that the bytes are the same.
	return only == "" || !strings.HasPrefix(only, "W/") && strings.Trim(only, `"`) == digest
}

// part is a part of a blob.
type part struct{ from, size int64 }

// errRange is why a Range cannot be given.
var errRange = errors.New("the range is not one of bytes in this blob")

// parseRange reads the header Range for a blob of size bytes (RFC 9110, 14.1.2). Where nothing is
// found all of the blob is to be given: for several ranges, which a server may ignore, for ranges of an
// empty blob, and for units other than bytes.
func parseRange(header string, size int64) (p part, found bool, err error) {
	unit, set, ok := strings.Cut(header, "=")
	if !ok || !strings.EqualFold(unit, "bytes") {
		return part{}, false, nil
	}
	var ranges []string
	for _, r := range strings.Split(set, ",") {
		if r = strings.Trim(r, " \t"); r != "" {
			ranges = append(ranges, r)
		}
	}
	if len(ranges) != 1 || size == 0 {
		return part{}, false, nil
	}
	first, last, ok := strings.Cut(ranges[0], "-")
	if !ok {
		return part{}, false, errRange
	}
	first, last = strings.Trim(first, " \t"), strings.Trim(last, " \t")
	if first == "" {
		n, err := parsePosition(last)
		if err != nil {
			return part{}, false, err
		}
		n = min(n, size)
		if n == 0 {
			return part{}, false, errRange
		}
		return part{size - n, n}, true, nil
	}
	from, err := parsePosition(first)
	if err != nil {
		return part{}, false, err
	}
	to := int64(math.MaxInt64)
	if last != "" {
		if to, err = parsePosition(last); err != nil {
			return part{}, false, err
		}
	}
	if from > to || from >= size {
		return part{}, false, errRange
	}
	return part{from, min(to, size-1) - from + 1}, true, nil
}

// parsePosition reads digits. What is too large for a number is larger than any blob.
func parsePosition(text string) (int64, error) {
	if text == "" || strings.Trim(text, "0123456789") != "" {
		return 0, errRange
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return math.MaxInt64, nil //nolint:nilerr // digits that do not fit
	}
	return n, nil
}
