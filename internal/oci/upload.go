package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/sealift/sealift/manifest"
)

const (
	// maxWhole is the size up to which a blob is sent with the request that ends its upload: sending
	// it again costs less than asking what has arrived.
	maxWhole = 1 << 20
	// maxAnew is how often a blob is begun anew because the registry knows nothing of its upload any
	// more, or has got something else than was sent.
	maxAnew = 3
	// maxShort is how often a registry may say of one blob that it took less than it was sent. The first
	// time it is believed, each other time the blob is begun anew.
	maxShort = 1 + maxAnew
	// fruitless is how many requests in a row may break off, without a byte of them being there
	// afterwards, before smaller ones are sent.
	fruitless = 2
)

// chunks are the sizes in which blobs are sent to those that do not take them in one request.
var chunks = []int64{64 << 20, 16 << 20, 4 << 20, 1 << 20}

// PutBlob uploads a blob, or mounts it from the repository from (same registry; empty for none). open
// gives the blob's bytes from an offset on; it is called again for each try, also for offsets that
// lie before what was read (see FromStart, FromBytes and FromStream). The bytes are taken to be
// good: the caller has proven them, or does so while they are read, where a failure to read ends the
// upload with that error. sent is told how many more bytes have gone out, or fewer where a try goes
// back. It reports whether the blob was mounted, so that nothing was sent. Errors of the registry are
// *Error.
//
// A small blob is sent with one PUT, a larger one with one PATCH, streamed, and a PUT without a body
// (OCI distribution spec 1.1, "pushing a blob monolithically", and the streamed upload that all
// clients use). Where that breaks off, the registry is asked for the offset that it has, and the rest
// is sent with Content-Range ("pushing a blob in chunks"). Where it cannot say, or does not go on,
// the blob is begun anew. Who refuses large requests (413) gets chunks.
func (r *Repository) PutBlob(ctx context.Context, d manifest.Descriptor, from string, open func(offset int64) (io.ReadCloser, error), sent func(int64)) (mounted bool, err error) {
	u := &upload{repo: r, d: d, from: from, source: source{open: open, sent: sent, size: d.Size}}
	b := r.host.backoff()
	defer b.done()
	var last error
	for {
		slot, err := r.host.uploads.enter(ctx)
		if err == nil {
			err = u.run(ctx)
			slot.leave(err)
		}
		switch broken := u.source.failure(); {
		case err == nil:
			r.host.health.well()
			return u.mounted, nil
		case broken != nil && last != nil:
			// The source could not be read once more, after the registry had made that necessary.
			return false, errors.Join(r.fail("uploading", "blob "+d.Digest, last), broken)
		case broken != nil:
			return false, broken
		}
		last = err
		if u.progressed() {
			b.progressed()
		}
		if err := b.wait(ctx, err); err != nil {
			u.abandon(ctx, err)
			return false, r.fail("uploading", "blob "+d.Digest, err)
		}
	}
}

// upload is one blob on its way, over all tries.
type upload struct {
	repo   *Repository
	d      manifest.Descriptor
	from   string
	source source

	// place is where the upload goes on, nil where one has to be begun; at is how much the registry
	// has of it, which is to be asked for where it is unsure.
	place  *url.URL
	at     int64
	unsure bool
	// answered says that the request that failed was answered, trusted that what the registry could not
	// say of this upload was taken to be as it was before that request.
	answered, trusted bool
	// lost says that the request that ends the upload got no good answer: it may have done its work.
	lost    bool
	mounted bool
	// far is how much the registry has had, at most, and before what it had when that was last looked at.
	far, before int64
	// anew counts how often the blob was begun anew, broken how many requests in a row brought
	// nothing, refused how often the registry would not go on where it said.
	anew, broken, refused int
	// short counts how often the registry took less than it was sent. No progress makes up for that.
	short int
	// chunk is how much is sent with one request, 0 for all; least is what the registry wants at least.
	chunk, least int64
	// whole says that the blob is sent with the request that ends the upload.
	whole bool
}

// anewError is why a blob has to be begun anew.
type anewError struct{ error }

func (e *anewError) Unwrap() error { return e.error }

// progressed reports whether the registry has got a good deal more since the last call.
func (u *upload) progressed() bool {
	if u.far-u.before < progressed {
		return false
	}
	u.before = u.far
	return true
}

// run goes on with the upload until it is done or something fails. What is not payload has been
// tried often enough when it fails.
func (u *upload) run(ctx context.Context) error {
	if u.lost {
		there, err := u.repo.hasBlob(ctx, u.d.Digest)
		if err != nil {
			return permanentError{err}
		}
		if u.lost = false; there {
			u.source.all()
			return nil
		}
	}
	for {
		if u.place != nil && u.unsure {
			if err := u.ask(ctx); err != nil {
				return permanentError{err}
			}
		}
		if u.place == nil {
			if err := u.begin(ctx); err != nil {
				return permanentError{err}
			}
		}
		switch {
		case u.mounted:
			return nil
		case u.whole || u.at == u.d.Size:
			return u.finish(ctx)
		}
		if err := u.patch(ctx); err != nil {
			return err
		}
	}
}

// begin opens an upload, unless the blob can be mounted.
func (u *upload) begin(ctx context.Context) error {
	h := u.repo.host
	u.at, u.unsure, u.trusted, u.least = 0, false, false, 0
	u.whole = u.whole || u.d.Size <= maxWhole || h.noPatch.Load()
	if u.chunk == 0 {
		u.chunk = h.chunk.Load()
	}
	from := u.from
	return h.small(ctx, func(ctx context.Context) error {
		header, err := u.post(ctx, from)
		if from != "" && err != nil && !temporary(err) {
			// A mount only saves work: some registries answer it with 403, 404 or 405.
			from, u.from = "", ""
			header, err = u.post(ctx, "")
		}
		if err != nil || u.mounted {
			return err
		}
		if n, err := strconv.ParseInt(header.Get("OCI-Chunk-Min-Length"), 10, 64); err == nil && n > 0 {
			u.least = n
		}
		return nil
	})
}

func (u *upload) post(ctx context.Context, from string) (http.Header, error) {
	target := u.repo.url("blobs/uploads/")
	mounting := from != "" && from != u.repo.Path
	if mounting {
		target += "?" + url.Values{"mount": {u.d.Digest}, "from": {from}}.Encode()
	}
	session := u.repo.http
	if mounting {
		var err error
		if session, err = u.repo.mounting(ctx, from); err != nil {
			return nil, err
		}
	}
	resp, err := doWith(ctx, session, http.MethodPost, target, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if err := check(resp, http.StatusAccepted, http.StatusCreated); err != nil {
		return nil, err
	}
	if mounting && resp.StatusCode == http.StatusCreated {
		u.mounted = true
		u.repo.mounts.Store(u.d.Digest, from)
		return resp.Header, nil
	}
	if u.place = placeOf(resp); u.place == nil {
		return nil, permanentError{errors.New("the registry named no usable place for the upload")}
	}
	return resp.Header, nil
}

// placeOf is where an answer says that the upload goes on, nil where it says nothing of use.
func placeOf(resp *http.Response) *url.URL {
	location := resp.Header.Get("Location")
	if location == "" {
		return nil
	}
	place, err := resp.Request.URL.Parse(location)
	if err != nil {
		return nil
	}
	return place
}

// ask asks how much the registry has of the upload. Where it does not say in a way that can be true,
// the blob is begun anew. But who has answered, and only cannot say how much it has, has most likely
// not looked at what it was sent: that is believed once.
func (u *upload) ask(ctx context.Context) error {
	var at int64
	known := false
	err := u.repo.host.small(ctx, func(ctx context.Context) error {
		resp, err := u.repo.do(ctx, http.MethodGet, u.place.String(), nil)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if err := check(resp, http.StatusNoContent, http.StatusOK, http.StatusAccepted); err != nil {
			return err
		}
		if at, known = parseOffset(resp.Header.Get("Range")); known {
			if place := placeOf(resp); place != nil {
				u.place = place
			}
		}
		return nil
	})
	var refusal *transport.Error
	gone := false
	if errors.As(err, &refusal) {
		gone = slices.ContainsFunc(refusal.Errors, func(d transport.Diagnostic) bool {
			return d.Code == transport.BlobUploadUnknownErrorCode || d.Code == transport.BlobUploadInvalidErrorCode
		})
		err, known = nil, false
	}
	if err != nil {
		return err
	}
	u.unsure = false
	switch {
	case known && at <= u.source.furthest():
		u.has(at)
	case !known && !gone && u.answered && !u.trusted:
		u.trusted = true
	default:
		u.place = nil
	}
	return nil
}

// has notes how much the registry has.
func (u *upload) has(at int64) {
	u.at = at
	if at > u.far {
		u.far, u.anew, u.broken, u.refused = at, 0, 0, 0
		u.repo.host.health.well()
	}
}

// parseOffset reads the header Range of an upload, "0-LAST" (OCI distribution spec 1.1; others write
// "bytes=" before it), and returns how many bytes that are. "0-0" is none: registries say it of an
// upload that has just begun.
func parseOffset(text string) (int64, bool) {
	text = strings.TrimSpace(text)
	text = strings.TrimPrefix(strings.TrimPrefix(text, "bytes="), "bytes ")
	last, ok := strings.CutPrefix(text, "0-")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(last, 10, 62)
	if err != nil {
		return 0, false
	}
	if n == 0 {
		return 0, true
	}
	return int64(n) + 1, true
}

// patch sends what is missing, or as much of it as goes into one request.
func (u *upload) patch(ctx context.Context) error {
	n := u.d.Size - u.at
	if u.chunk > 0 {
		n = min(n, max(u.chunk, u.least))
	}
	header := http.Header{"Content-Type": {"application/octet-stream"}}
	if n < u.d.Size {
		header.Set("Content-Range", fmt.Sprintf("%d-%d", u.at, u.at+n-1))
	}
	place, got, err := u.send(ctx, http.MethodPatch, u.place, header, n, http.StatusAccepted, http.StatusCreated, http.StatusNoContent)
	if err == nil {
		return u.took(place, got, n)
	}
	switch status := statusOf(err); status {
	case http.StatusRequestEntityTooLarge:
		if u.smaller(n) {
			u.repo.host.chunk.Store(u.chunk)
			u.rejected()
			return nil
		}
		return err
	case http.StatusMethodNotAllowed, http.StatusNotImplemented:
		if u.at == 0 {
			u.repo.host.noPatch.Store(true)
			u.place = nil
			return nil
		}
		return u.restart(err)
	case http.StatusUnauthorized, http.StatusForbidden:
		return err
	case http.StatusRequestedRangeNotSatisfiable:
		// Some of what broke off may have arrived after the registry was asked.
		if u.refused++; u.refused > fruitless {
			u.refused = 0
			return u.restart(err)
		}
		u.unsure = true
		return &anewError{err}
	default:
		if status >= 400 && status < 500 && !temporaryStatus(status) {
			return u.restart(err)
		}
	}
	if !temporary(err) {
		return err
	}
	u.unsure, u.answered = true, statusOf(err) != 0
	if !u.answered {
		if u.broken++; u.broken > fruitless && u.smaller(n) {
			u.broken = 0
		}
	}
	return err
}

// took notes that a request was taken: where the upload goes on, where that is known, and how much
// the registry says it has got, 0 where it does not say.
func (u *upload) took(place *url.URL, got, n int64) error {
	at := u.at + n
	if place != nil {
		u.place = place
	}
	// Less than all is rare, and believed once: not every registry counts right in this place. Who went
	// on like that, a byte further each time, would be sent the blob without end.
	if got < at && got > u.at && u.refused == 0 {
		if u.short++; u.short > 1 {
			err := fmt.Errorf("the registry took %d bytes of the %d from %d on", got-u.at, n, u.at)
			if u.short > maxShort {
				return permanentError{err}
			}
			return u.restart(err)
		}
		at = got
		u.refused++
	}
	u.has(at)
	return nil
}

// rejected says that nothing of a request was taken.
func (u *upload) rejected() {
	if u.unsure = u.at > 0; !u.unsure {
		u.place = nil
	}
}

// smaller makes chunks smaller than n bytes, if that is possible.
func (u *upload) smaller(n int64) bool {
	for _, c := range chunks {
		if c < n && c >= u.least {
			u.chunk = c
			return true
		}
	}
	return false
}

// restart begins the blob anew, so many times.
func (u *upload) restart(err error) error {
	u.place = nil
	if u.anew++; u.anew > maxAnew {
		return permanentError{err}
	}
	if u.anew == maxAnew {
		u.whole = true // perhaps it takes nothing but this
	}
	return &anewError{err}
}

// finish ends the upload: with its content, or when all of it is there.
func (u *upload) finish(ctx context.Context) error {
	place := *u.place
	digest := "digest=" + url.QueryEscape(u.d.Digest)
	if place.RawQuery != "" {
		digest = place.RawQuery + "&" + digest
	}
	place.RawQuery = digest
	header := http.Header{"Content-Type": {"application/octet-stream"}}
	n := u.d.Size - u.at
	if n > 0 && u.at > 0 {
		header.Set("Content-Range", fmt.Sprintf("%d-%d", u.at, u.d.Size-1))
	}
	_, _, err := u.send(ctx, http.MethodPut, &place, header, n, http.StatusCreated, http.StatusNoContent, http.StatusOK)
	if err == nil {
		return nil
	}
	switch status := statusOf(err); {
	case status == http.StatusUnauthorized, status == http.StatusForbidden, status == http.StatusMethodNotAllowed, status == http.StatusRequestEntityTooLarge:
		return err
	case status >= 400 && status < 500 && !temporaryStatus(status):
		// Who does not know the upload may have ended it already, with an answer that got lost.
		u.lost = status == http.StatusNotFound || status == http.StatusGone
		return u.restart(err)
	}
	if temporary(err) {
		u.lost, u.unsure = !putAside(err), true
		u.answered = statusOf(err) != 0
	}
	return err
}

// send sends the next n bytes of the blob, or a request without a body. It returns what the answer
// says: where the upload goes on, nil where it does not say, and how much the registry has, 0 where
// it does not say.
func (u *upload) send(ctx context.Context, method string, place *url.URL, header http.Header, n int64, codes ...int) (next *url.URL, got int64, err error) {
	attempt, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	req, err := http.NewRequestWithContext(attempt, method, place.String(), nil)
	if err != nil {
		return nil, 0, permanentError{err}
	}
	req.Header = header
	budget := u.repo.host.budget
	// A registry reads all of the blob once more before it ends the upload.
	wait := budget.answerTo(max(n, u.at))
	late := &deadline{wait: wait, end: func() { cancel(&StallError{For: wait, Answer: true}) }}
	defer late.stop()
	if n > 0 {
		var watch *watch
		unwatch := func() {
			if watch != nil {
				watch.stop()
			}
		}
		req.ContentLength = n
		// It may be called again, where the request has to be repeated with another token.
		req.GetBody = func() (io.ReadCloser, error) {
			late.stop()
			unwatch()
			watch = watchOver(budget.Stall, cancel)
			return u.source.from(u.at, n, watch, late.start, u.repo.host.health.well), nil
		}
		if req.Body, err = req.GetBody(); err != nil {
			return nil, 0, err
		}
		defer func() { u.source.end(); unwatch() }()
	} else {
		late.start()
	}
	resp, err := u.repo.send(req)
	if err != nil {
		return nil, 0, causeOf(ctx, attempt, err)
	}
	defer resp.Body.Close()
	if err := check(resp, codes...); err != nil {
		return nil, 0, err
	}
	if n > 0 {
		complete, err := u.source.settle()
		if err == nil && !complete {
			err = &wireError{strings.ToLower(method), errors.New("it was answered before all was sent")}
		}
		if err != nil {
			return nil, 0, err
		}
	}
	got, _ = parseOffset(resp.Header.Get("Range"))
	return placeOf(resp), got, nil
}

// abandonTime is for how long a registry is asked, at most, to forget an upload.
const abandonTime = 10 * time.Second

// abandon frees what a registry keeps of an upload that has failed by its word; a full disk can use
// that. Where it fails, the registry does it in its own time.
func (u *upload) abandon(ctx context.Context, err error) {
	var answered *transport.Error
	if u.place == nil || u.source.furthest() == 0 || !errors.As(err, &answered) || ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, min(abandonTime, u.repo.host.budget.Answer))
	defer cancel()
	resp, err := u.repo.do(ctx, http.MethodGet, u.place.String(), nil)
	if err != nil {
		return
	}
	resp.Body.Close()
	if place := placeOf(resp); place != nil && resp.StatusCode < 300 {
		if resp, err = u.repo.do(ctx, http.MethodDelete, place.String(), nil); err == nil {
			resp.Body.Close()
		}
	}
}

// deadline is a timer that is started and stopped by whoever sends a body.
type deadline struct {
	wait time.Duration
	end  func()

	mu    sync.Mutex
	timer *time.Timer
}

func (d *deadline) start() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer == nil {
		d.timer = time.AfterFunc(d.wait, d.end)
	}
}

func (d *deadline) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}

// source is the content of a blob, over all tries.
type source struct {
	open func(offset int64) (io.ReadCloser, error)
	sent func(int64)
	size int64

	mu   sync.Mutex
	body *uploadBody // the newest one; only its bytes count
	// counted is up to where sent was told, most the highest that it was.
	counted, most int64
	err           error // why it could not be read
}

// failure is why the source could not be read, if so.
func (s *source) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// furthest is how many bytes have gone out, at most.
func (s *source) furthest() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.most
}

// count notes up to where the bytes have gone out. It is called with the lock held.
func (s *source) count(at int64) {
	if at != s.counted {
		s.sent(at - s.counted)
	}
	s.counted = at
	s.most = max(s.most, at)
}

// all notes that nothing more has to be sent.
func (s *source) all() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.body = nil
	s.count(s.size)
}

// from returns a body of n bytes from an offset on. Others that are still in use give nothing more.
func (s *source) from(at, n int64, w *watch, read, moved func()) *uploadBody {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count(at)
	w.turn(true, 0)
	s.body = &uploadBody{s: s, at: at, end: at + n, told: at, watch: w, read: read, moved: moved}
	return s.body
}

// settle reports whether the newest body was read to its end. Where that is the end of the blob it
// lets the source have its last word, which an answer may have been quicker than.
func (s *source) settle() (complete bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.body
	if b == nil || b.at != b.end {
		return false, s.err
	}
	if b.end == s.size && b.r != nil && !b.ended {
		var one [1]byte
		_, _ = b.fill(one[:]) // what is wrong stays in s.err
	}
	return true, s.err
}

// end makes sure that nothing more is read.
func (s *source) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.body = nil
}

// uploadBody is the body of one request. The transport may close it while it is still being read,
// and read it after the request has ended.
type uploadBody struct {
	s       *source
	at, end int64
	watch   *watch
	// read is called when all was read, moved each time that signOfLife bytes were.
	read, moved func()
	told        int64
	r           io.ReadCloser
	// ended says that the source had nothing more to say.
	ended, closed bool
}

func (b *uploadBody) Read(p []byte) (n int, err error) {
	s := b.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.closed || s.body != b {
		return 0, http.ErrBodyReadAfterClose
	}
	b.watch.turn(false, 0)
	defer func() { b.watch.turn(true, n) }()
	if b.r == nil && s.err == nil {
		b.r, s.err = s.open(b.at)
	}
	if s.err != nil {
		return 0, s.err
	}
	if b.at == b.end && b.end < s.size {
		return 0, io.EOF
	}
	return b.fill(p)
}

// fill reads from the source. It is called with the lock held.
func (b *uploadBody) fill(p []byte) (int, error) {
	s := b.s
	left := b.end - b.at
	if b.end == s.size {
		// At the end of the blob the source has the last word: it may find there that it is damaged.
		left++
	}
	n, err := b.r.Read(p[:min(int64(len(p)), left)])
	at := b.at + int64(n)
	switch {
	case at > b.end:
		s.err = fmt.Errorf("the content is longer than its %d bytes", s.size)
		return 0, s.err
	case errors.Is(err, io.EOF) && at < b.end:
		s.err = fmt.Errorf("the content ended after %d of %d bytes: %w", at, s.size, io.ErrUnexpectedEOF)
		return 0, s.err
	case err != nil && !errors.Is(err, io.EOF):
		s.err = err
	}
	b.at, b.ended = at, errors.Is(err, io.EOF)
	s.count(at)
	if at-b.told >= signOfLife {
		b.told = at
		b.moved()
	}
	if at == b.end && n > 0 {
		b.watch.stop()
		b.read()
	}
	return n, err
}

// Close closes the source of this request.
func (b *uploadBody) Close() error {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	b.closed = true
	if b.r == nil {
		return nil
	}
	r := b.r
	b.r = nil
	return r.Close()
}
