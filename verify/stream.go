package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/progress"
	"github.com/sealift/sealift/manifest"
)

// StreamName is what the bundle is called in errors that comes through standard input.
const StreamName = "standard input"

// stream is how far a bundle has been read that comes through a pipe.
type stream struct {
	walker *archive.Walker
	task   progress.Task
	// cache holds the blobs that have passed in Preload, order their digests.
	cache map[string][]byte
	order []string
	size  int64
	ended bool
}

// maxPreload bounds what of a stream is kept in memory, in bytes: image manifests, and what
// lies between them. Ten thousand images have less.
const maxPreload = 64 << 20

// ErrPreload is wrapped where what has to be known of a stream beforehand is too much to be kept.
var ErrPreload = errors.New("the bundle cannot be used from a stream")

// ErrStreamUsed is returned where a stream is to be read a second time.
var ErrStreamUsed = errors.New("the stream has been read already")

// IsStream reports whether the bundle comes through a pipe, so that its blobs pass once.
func (b *Bundle) IsStream() bool { return b.stream != nil }

// Preload reads a stream as far as the last image manifest or index and keeps what passes in
// memory, so that ReadBlob gives it. It does nothing for bundles that are no streams. Errors as
// those of Check, or ErrPreload.
func (b *Bundle) Preload(ctx context.Context, report progress.Reporter) error {
	return b.preload(ctx, report, b.needed())
}

// preload is Preload as far as the last of the blobs that are needed.
func (b *Bundle) preload(ctx context.Context, report progress.Reporter, needed map[string]bool) error {
	if b.stream == nil {
		return nil
	}
	if err := b.begin(report); err != nil {
		return err
	}
	for digest := range b.stream.cache {
		delete(needed, digest)
	}
	for len(needed) > 0 {
		blob, content, err := b.next(ctx, b.stream.walker)
		if err != nil {
			return b.failed(ctx, err)
		}
		if content == nil {
			continue
		}
		if b.stream.size += blob.Size; b.stream.size > maxPreload {
			return &ContentError{b.path, fmt.Errorf("more than %d bytes lie before its last image manifest: %w", maxPreload, ErrPreload)}
		}
		raw, err := io.ReadAll(content)
		if err = errors.Join(err, content.Close()); err != nil {
			return b.failed(ctx, err)
		}
		b.stream.cache[blob.Digest] = raw
		b.stream.order = append(b.stream.order, blob.Digest)
		delete(needed, blob.Digest)
	}
	return nil
}

// needed are the digests of the manifests and indexes of images, of what is about them, and of
// charts.
func (b *Bundle) needed() map[string]bool {
	n := map[string]bool{}
	for _, img := range b.manifest.AllImages() {
		n[img.Digest] = true
		if img.Derived != nil {
			n[img.Derived.Digest] = true
		}
		for _, c := range img.Children {
			n[c.Digest] = true
		}
		for _, r := range img.Referrers {
			n[r.Digest] = true
		}
	}
	for i := range b.manifest.Charts {
		n[b.manifest.Charts[i].Manifest.Digest] = true
		for _, r := range b.manifest.Charts[i].Referrers {
			n[r.Digest] = true
		}
	}
	return n
}

func (b *Bundle) begin(report progress.Reporter) error {
	if b.stream.ended {
		return ErrStreamUsed
	}
	if b.stream.walker != nil {
		return nil
	}
	b.stream.task = report.Start("reading", b.size, progress.Bytes)
	w, err := b.reader.Walk(b.stream.task.Add)
	if err != nil {
		return &ContentError{b.path, err}
	}
	b.stream.walker = w
	return nil
}

func (b *Bundle) failed(ctx context.Context, err error) error {
	var content *ContentError
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &content):
		return err
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return &ContentError{b.path, err}
}

// next returns the next entry as the blob that it holds, with the blob's bytes; no content for
// what is not a blob.
func (b *Bundle) next(ctx context.Context, w *archive.Walker) (manifest.Blob, io.ReadCloser, error) {
	i, r, err := w.Next(ctx)
	if err != nil {
		return manifest.Blob{}, nil, err
	}
	first := len(b.manifest.Entries) - len(b.manifest.Blobs)
	if i < first {
		return manifest.Blob{}, nil, nil
	}
	blob := b.manifest.Blobs[i-first]
	content, err := b.decoded(blob, io.NopCloser(r))
	return blob, content, err
}

// Visit is called for a blob of a stream. What it does not read of content is passed over.
type Visit func(ctx context.Context, blob manifest.Blob, content io.Reader) error

// Each reads a stream to its end and calls visit for every blob in it, in order. All that visit
// gets is proven as that of Blob is; the whole file is as the manifest determines it when Each
// returns without an error. Errors: that of visit, *ContentError, or that of ctx.
func (b *Bundle) Each(ctx context.Context, report progress.Reporter, visit Visit) error {
	if b.stream == nil {
		return fmt.Errorf("reading %q from front to back: it is no stream", b.path)
	}
	if err := b.begin(report); err != nil {
		return err
	}
	s := b.stream
	s.ended = true
	defer s.task.Done()
	for _, digest := range s.order {
		if err := visit(ctx, b.blobs[digest], bytes.NewReader(s.cache[digest])); err != nil {
			return err
		}
	}
	if err := b.walk(ctx, s.walker, visit); err != nil {
		return err
	}
	if err := s.walker.Finish(ctx); err != nil {
		return b.failed(ctx, err)
	}
	return nil
}

// walk calls visit for all blobs that are still to come.
func (b *Bundle) walk(ctx context.Context, w *archive.Walker, visit Visit) error {
	for {
		blob, content, err := b.next(ctx, w)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return b.failed(ctx, err)
		}
		if content == nil {
			continue
		}
		g := &gate{r: content}
		err = visit(ctx, blob, g)
		if err := errors.Join(err, g.shut()); err != nil {
			return err
		}
	}
}

// errShut is what a reader gives that its owner has taken back.
var errShut = errors.New("this part of the stream has passed")

// gate lets a reader be taken back from somebody who may still be reading in another goroutine,
// as an HTTP transport may after its request has ended.
type gate struct {
	mu sync.Mutex
	r  io.ReadCloser
}

func (g *gate) Read(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.r == nil {
		return 0, errShut
	}
	return g.r.Read(p)
}

func (g *gate) shut() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.r
	g.r = nil
	return r.Close()
}
