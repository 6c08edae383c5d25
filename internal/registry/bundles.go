package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// BundlesOptions of a registry that is served out of bundles.
type BundlesOptions struct {
	// Failed is told about everything that was asked for and could not be given although the bundle
	// has it: damage, and media that cannot be read. It may be called by several goroutines. It may
	// be nil.
	Failed func(Failure)
	// Reopen opens a bundle anew that cannot be read any more, as after its medium was away. What it
	// returns is used if it has the same manifest. It may be nil.
	Reopen func(*verify.Bundle) (*verify.Bundle, error)
}

// Failure is an answer that could not be given, or not to its end.
type Failure struct {
	// Bundle is the path of the bundle, Digest what was read of it.
	Bundle, Digest string
	// Damaged says that the content is not what its manifest determines. Else it could not be read.
	Damaged bool
	// Cut says that the answer had begun and its connection was ended.
	Cut bool
	Err error
}

// Bundles is a read-only registry (OCI distribution spec 1.1: pull and content discovery) whose
// content is in bundles, and is read straight out of their files or volumes. Nothing is unpacked or
// copied, and nothing but the bundles' heads was read when it begins to answer.
//
// An image that was called docker.io/library/nginx:1 at its source is there under that name, as
// library/nginx:1 and as nginx:1, and as library/nginx:1 with the query ?ns=docker.io that
// containerd adds for mirrors. Where the source has a port, the : in its name may be written as -,
// which clients can. Charts are charts/NAME:VERSION, and what they were called at their registry. A
// name without its registry that stands for different things at different registries is refused
// (409), its full names are not.
//
// Indexes are what they were at their source, whichever of their platforms travel; those that do not
// are not found, in words that say so. The derived ones are there by their digests.
//
// What is given out was compared with its digest, all of it or, after that was so once and as long
// as the file stays the same, by the checksums of the file's frames: see verify.Ranges. The last piece
// of an answer is held back until then. Where the comparison fails the answer ends, with its
// connection, and BundlesOptions.Failed is told. Parts of blobs (Range) are compared with the
// checksums of the frames that they lie in; whether what a client has put together has its digest
// only the client can see, and all clients look.
type Bundles struct {
	o     BundlesOptions
	media []*medium
	names *names
	cache manifestCache
	lists listDigests

	damaged, unreadable atomic.Int64
}

// NewBundles returns the registry of what is in bundles, which it closes when it is closed, or when
// it has opened them anew. Streams are refused: archive.ErrStream is wrapped. Errors: *ConflictError
// where two bundles have different content under one name.
func NewBundles(bundles []*verify.Bundle, o BundlesOptions) (*Bundles, error) {
	if o.Failed == nil {
		o.Failed = func(Failure) {}
	}
	s := &Bundles{o: o}
	for _, b := range bundles {
		r, err := verify.NewRanges(b)
		if err != nil {
			return nil, err
		}
		m := &medium{path: b.Path(), manifest: b.Manifest(), digest: b.Evidence().Manifest}
		m.ranges.Store(r)
		s.media = append(s.media, m)
	}
	var err error
	if s.names, err = newNames(s.media); err != nil {
		return nil, err
	}
	return s, nil
}

// Close closes the bundles.
func (s *Bundles) Close() error {
	var err error
	for _, m := range s.media {
		err = errors.Join(err, m.ranges.Load().Bundle().Close())
	}
	return err
}

// Failures is how many answers could not be given because of damage, and because a medium could
// not be read.
func (s *Bundles) Failures() (damaged, unreadable int64) {
	return s.damaged.Load(), s.unreadable.Load()
}

// Health says whether all bundles can be read. One that could not be read the last time is tried.
func (s *Bundles) Health(ctx context.Context) error {
	for _, m := range s.media {
		if m.away.Load() && !s.back(ctx, m) {
			return fmt.Errorf("the medium of bundle %s %s cannot be read", m.manifest.Name, m.manifest.Version)
		}
	}
	return nil
}

// back reports whether a medium can be read again: a little of it.
func (s *Bundles) back(ctx context.Context, m *medium) bool {
	r := m.ranges.Load()
	for _, b := range m.manifest.Blobs[:min(1, len(m.manifest.Blobs))] {
		content, err := r.Range(ctx, b.Digest, 0, min(1, b.Size))
		if err == nil {
			_, err = io.Copy(io.Discard, content)
			_ = content.Close() // it was only read
		}
		if err != nil && !isDamage(err) && !s.reopen(m, r) {
			return false
		}
	}
	m.away.Store(false)
	return true
}

// Count adds what Failures says to metrics.
func (s *Bundles) Count(m *Metrics) {
	for kind, n := range map[string]*atomic.Int64{"damaged": &s.damaged, "unreadable": &s.unreadable} {
		m.all.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "sealift_registry_bundle_failures_total", Help: "Answers that a bundle could not give, or not to their end.",
			ConstLabels: prometheus.Labels{"kind": kind},
		}, func() float64 { return float64(n.Load()) }))
	}
}

// medium is where one bundle lies.
type medium struct {
	path     string
	manifest *manifest.Manifest
	digest   string
	ranges   atomic.Pointer[verify.Ranges]
	// away says that it could not be read the last time.
	away atomic.Bool
	// reopening is held by the one who tries.
	reopening sync.Mutex
}

// reopen opens the bundle anew unless somebody else has done so since failed was used. It reports
// whether there is something new to read from.
func (s *Bundles) reopen(m *medium, failed *verify.Ranges) bool {
	if s.o.Reopen == nil {
		return false
	}
	m.reopening.Lock()
	defer m.reopening.Unlock()
	if m.ranges.Load() != failed {
		return true
	}
	b, err := s.o.Reopen(failed.Bundle())
	if err != nil {
		return false
	}
	r, err := verify.NewRanges(b)
	if err != nil || b.Evidence().Manifest != m.digest {
		_ = b.Close() // it was only read
		return false
	}
	m.ranges.Store(r)
	// Who reads from it gets an error, and would have anyway.
	_ = failed.Bundle().Close()
	return true
}

// errAnswered says that an answer, or its beginning, has been sent: nothing can be said any more.
var errAnswered = errors.New("answered")

// read calls use with part of a blob, from the first bundle that has it and can be read. use returns
// errAnswered, and the cause, where it has begun to answer. What went wrong has been reported.
func (s *Bundles) read(ctx context.Context, digest string, offset, n int64, use func(io.Reader) error) error {
	err := fmt.Errorf("no bundle has blob %q", digest)
	for _, m := range s.media {
		for range 2 {
			r := m.ranges.Load()
			if _, ok := r.Stat(digest); !ok {
				break
			}
			if err = s.readFrom(ctx, m, r, digest, offset, n, use); err == nil || errors.Is(err, errAnswered) || ctx.Err() != nil {
				return err
			}
			if isDamage(err) || !s.reopen(m, r) {
				break
			}
		}
	}
	return err
}

func (s *Bundles) readFrom(ctx context.Context, m *medium, r *verify.Ranges, digest string, offset, n int64, use func(io.Reader) error) (err error) {
	content, err := r.Range(ctx, digest, offset, n)
	if err == nil {
		defer content.Close()
		err = use(content)
	}
	var reading *verify.ContentError
	if !errors.As(err, &reading) {
		m.away.Store(false)
		return err
	}
	f := Failure{Bundle: r.Bundle().Path(), Digest: digest, Damaged: isDamage(err), Cut: errors.Is(err, errAnswered), Err: reading}
	if f.Damaged {
		s.damaged.Add(1)
	} else {
		s.unreadable.Add(1)
		m.away.Store(true)
	}
	s.o.Failed(f)
	return err
}

// isDamage tells what is not as it must be from what cannot be read.
func isDamage(err error) bool {
	var content *verify.ContentError
	var read *archive.ReadError
	var looked *fs.PathError
	return errors.As(err, &content) && !errors.As(err, &read) && !errors.As(err, &looked)
}

// Headers of the distribution API.
const (
	headerAPI     = "Docker-Distribution-API-Version"
	headerDigest  = "Docker-Content-Digest"
	headerFilters = "OCI-Filters-Applied"
)

// Error codes of the distribution spec; codeUnavailable is not among them, where nothing fits.
const (
	codeBlobUnknown     = "BLOB_UNKNOWN"
	codeUploadUnknown   = "BLOB_UPLOAD_UNKNOWN"
	codeDigestInvalid   = "DIGEST_INVALID"
	codeManifestUnknown = "MANIFEST_UNKNOWN"
	codeNameInvalid     = "NAME_INVALID"
	codeNameUnknown     = "NAME_UNKNOWN"
	codeSizeInvalid     = "SIZE_INVALID"
	codePageInvalid     = "PAGINATION_NUMBER_INVALID"
	codeUnsupported     = "UNSUPPORTED"
	codeUnavailable     = "UNAVAILABLE"
)

// answer is the other end of one request.
type answer struct {
	http.ResponseWriter
	r *http.Request
}

// fail sends an error as the distribution spec has it.
func (a *answer) fail(status int, code, format string, args ...any) {
	refuse(a.ResponseWriter, status, code, fmt.Sprintf(format, args...))
}

// send sends a small document.
func (a *answer) send(mediaType string, body []byte) {
	a.Header().Set("Content-Type", mediaType)
	a.Header().Set("Content-Length", strconv.Itoa(len(body)))
	a.WriteHeader(http.StatusOK)
	if a.r.Method != http.MethodHead {
		_, _ = a.Write(body) // who is gone needs no answer
	}
}

// sendJSON sends v.
func (a *answer) sendJSON(v any) {
	body, err := json.Marshal(v)
	if err != nil {
		a.fail(http.StatusInternalServerError, codeUnavailable, "encoding the answer: %v", err)
		return
	}
	a.send("application/json", body)
}

// unreadable answers for what the bundle has and cannot be given.
func (a *answer) unreadable(what string, err error) {
	var reading *verify.ContentError
	switch {
	case isDamage(err):
		a.fail(http.StatusInternalServerError, codeUnavailable, "%s is damaged in the bundle that is served here", what)
	case errors.As(err, &reading):
		a.fail(http.StatusServiceUnavailable, codeUnavailable, "%s cannot be read: the medium of the bundle that is served here is away or broken", what)
	default:
		a.fail(http.StatusInternalServerError, codeUnavailable, "%s: %v", what, err)
	}
}

// ServeHTTP answers one request. It panics with http.ErrAbortHandler, which the server understands,
// where an answer that has begun must not end as if it were whole.
func (s *Bundles) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a := &answer{w, r}
	a.Header().Set(headerAPI, "registry/2.0")
	p, ok := parsePath(r.URL.Path)
	switch {
	case !ok:
		a.fail(http.StatusNotFound, codeUnsupported, "nothing is served at this path")
		return
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		// What could not be written anywhere is told first, as the specification's own tests want it.
		if !strings.Contains(p.reference, ":") || a.checkDigest(p.reference) {
			a.Header().Set("Allow", "GET, HEAD")
			a.fail(http.StatusMethodNotAllowed, codeUnsupported, "this registry is a bundle, and cannot be written to")
		}
		return
	}
	switch p.kind {
	case pathBase:
		a.send("application/json", []byte("{}"))
		return
	case pathCatalog:
		s.serveCatalog(a)
		return
	default:
	}
	found := s.names.find(p.name, r.URL.Query().Get("ns"))
	if len(found) == 0 {
		a.fail(http.StatusNotFound, codeNameUnknown, "%s", s.names.unknown(p.name, r.URL.Query().Get("ns")))
		return
	}
	ctx := r.Context()
	switch p.kind {
	case pathTags:
		s.serveTags(a, p.name, found)
	case pathManifest:
		s.serveManifest(ctx, a, p, found)
	case pathBlob:
		s.serveBlob(ctx, a, p.reference)
	case pathReferrers:
		s.serveReferrers(ctx, a, p.reference)
	default:
		a.fail(http.StatusNotFound, codeUploadUnknown, "nothing is uploaded here")
	}
}

// quoted shortens what a client has sent for a message.
func quoted(text string) string {
	const most = 300
	if len(text) > most {
		text = text[:most] + "…"
	}
	return strconv.Quote(text)
}

// checkDigest answers where a text is no digest that could be known here.
func (a *answer) checkDigest(text string) bool {
	algorithm, encoded, _ := strings.Cut(text, ":")
	if algorithm == "sha512" && len(encoded) == 128 && strings.Trim(encoded, "0123456789abcdef") == "" {
		return true // well-formed, and in no bundle
	}
	if err := manifest.CheckDigest(text); err != nil {
		a.fail(http.StatusBadRequest, codeDigestInvalid, "%s is no digest", quoted(text))
		return false
	}
	return true
}
