package registry

import (
	"bytes"
	"container/list"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/manifest"
)

// maxCached bounds what is kept of manifests in memory, in bytes.
const maxCached = 8 << 20

// manifestCache keeps what was read and proven and is small; what was used longest ago goes first.
type manifestCache struct {
	mu    sync.Mutex
	items map[string]*list.Element
	order list.List // of *cached, the last used one in front
	size  int
}

type cached struct {
	digest string
	raw    []byte
}

func (c *manifestCache) get(digest string) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.items[digest]
	if e == nil {
		return nil, false
	}
	c.order.MoveToFront(e)
	item, ok := e.Value.(*cached)
	if !ok {
		return nil, false
	}
	return item.raw, true
}

func (c *manifestCache) put(digest string, raw []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.items == nil {
		c.items = map[string]*list.Element{}
	}
	if c.items[digest] != nil {
		return
	}
	c.items[digest] = c.order.PushFront(&cached{digest, raw})
	c.size += len(raw)
	for c.size > maxCached {
		item, ok := c.order.Remove(c.order.Back()).(*cached)
		if !ok {
			return
		}
		c.size -= len(item.raw)
		delete(c.items, item.digest)
	}
}

// content reads a small blob and proves it.
func (s *Bundles) content(ctx context.Context, digest string) ([]byte, error) {
	if raw, ok := s.cache.get(digest); ok {
		return raw, nil
	}
	blob, ok := s.stat(digest)
	if !ok {
		return nil, fmt.Errorf("no bundle has blob %q", digest)
	}
	if blob.Size > manifest.MaxOCIManifestBytes {
		return nil, fmt.Errorf("blob %s has %d bytes, at most %d are read into memory", digest, blob.Size, manifest.MaxOCIManifestBytes)
	}
	var raw bytes.Buffer
	err := s.read(ctx, digest, 0, blob.Size, func(r io.Reader) error {
		raw.Reset()
		_, err := io.Copy(&raw, r)
		return err
	})
	if err != nil {
		return nil, err
	}
	s.cache.put(digest, raw.Bytes())
	return raw.Bytes(), nil
}

// stat says what is known about a blob.
func (s *Bundles) stat(digest string) (manifest.Blob, bool) {
	for _, m := range s.media {
		if b, ok := m.ranges.Load().Stat(digest); ok {
			return b, true
		}
	}
	return manifest.Blob{}, false
}

// listDigests are the digests of documents that are made here, each with what makes it again: those
// who have asked for a tag go on by its digest.
type listDigests struct {
	mu   sync.Mutex
	made map[string]func(context.Context) (*oci.Content, error)
}

func (l *listDigests) get(digest string) func(context.Context) (*oci.Content, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.made[digest]
}

// put is called for tags and digests of the bundles only, which bounds it.
func (l *listDigests) put(digest string, again func(context.Context) (*oci.Content, error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.made == nil {
		l.made = map[string]func(context.Context) (*oci.Content, error){}
	}
	l.made[digest] = again
}

// serveManifest answers for a tag or a digest.
func (s *Bundles) serveManifest(ctx context.Context, a *answer, p requestPath, found []*repository) {
	digest := p.reference
	if !strings.Contains(digest, ":") {
		t, err := tag(found, p.reference)
		switch {
		case err != nil:
			a.fail(http.StatusConflict, codeNameInvalid, "%s: %v", quoted(p.name), err)
			return
		case t != nil && len(t.manifests) > 1 && !strings.HasSuffix(p.reference, ".sbom"):
			s.serveMade(ctx, a, t.merged(s))
			return
		case t != nil:
			digest = t.manifests[0].Digest
		default:
			subject := subjectOf(p.reference)
			if subject != "" && len(s.names.referrers[subject]) > 0 {
				s.serveMade(ctx, a, s.referrersIndex(subject))
				return
			}
			a.fail(http.StatusNotFound, codeManifestUnknown, "%s has no tag %s here; /v2/%s/tags/list lists all", quoted(p.name), quoted(p.reference), p.name)
			return
		}
	}
	if !a.checkDigest(digest) {
		return
	}
	mediaType, ok := s.names.manifests[digest]
	if !ok {
		if made := s.lists.get(digest); made != nil {
			s.serveMade(ctx, a, made)
			return
		}
		a.fail(http.StatusNotFound, codeManifestUnknown, "%s", s.missing(ctx, digest, found))
		return
	}
	blob, ok := s.stat(digest)
	if !ok {
		a.fail(http.StatusNotFound, codeManifestUnknown, "manifest %s is not here", digest)
		return
	}
	if a.notModified(digest) {
		return
	}
	a.Header().Set(headerDigest, digest)
	if a.r.Method == http.MethodHead {
		a.Header().Set("Content-Type", mediaType)
		a.Header().Set("Content-Length", strconv.FormatInt(blob.Size, 10))
		a.WriteHeader(http.StatusOK)
		return
	}
	raw, err := s.content(ctx, digest)
	if err != nil {
		a.Header().Del(headerDigest)
		a.Header().Del("ETag")
		a.unreadable("manifest "+digest, err)
		return
	}
	a.send(mediaType, raw)
}

// serveMade answers with a manifest that is made here.
func (s *Bundles) serveMade(ctx context.Context, a *answer, made func(context.Context) (*oci.Content, error)) {
	c, err := made(ctx)
	if err != nil {
		a.unreadable("what this manifest is made of", err)
		return
	}
	s.lists.put(c.Digest, made)
	if a.notModified(c.Digest) {
		return
	}
	a.Header().Set(headerDigest, c.Digest)
	a.send(c.MediaType, c.Raw)
}

// missing says why a manifest is not here, if it is one of an index that is.
func (s *Bundles) missing(ctx context.Context, digest string, found []*repository) string {
	for _, r := range found {
		for _, index := range r.indexes {
			raw, err := s.content(ctx, index)
			if err != nil {
				continue // it has been reported
			}
			children, err := oci.ParseIndex(raw)
			if err != nil {
				continue // it names what is no image
			}
			for _, c := range children {
				if c.Digest != digest {
					continue
				}
				if c.Platform == oci.UnknownPlatform {
					return fmt.Sprintf("manifest %s (an attestation of %s) does not travel with the bundle that is served here", digest, r.name())
				}
				return fmt.Sprintf("manifest %s is %s for %s, which does not travel with the bundle that is served here", digest, r.name(), c.Platform)
			}
		}
	}
	return fmt.Sprintf("manifest %s is not here", digest)
}

// merged is what stands under one of cosign's tags where several bundles have one: all that they
// hold, in the order of the bundles.
func (t *tagged) merged(s *Bundles) func(context.Context) (*oci.Content, error) {
	return func(ctx context.Context) (*oci.Content, error) {
		both, err := s.signatures(ctx, t.manifests[0])
		for _, d := range t.manifests[1:] {
			var next *oci.Signatures
			if err == nil {
				next, err = s.signatures(ctx, d)
			}
			if err == nil {
				both, err = oci.MergeSignatures(next, both)
			}
		}
		if err != nil {
			return nil, err
		}
		config := both.Config
		digest := manifest.Digest(config)
		if _, ok := s.stat(digest); !ok && config != nil {
			s.lists.put(digest, func(context.Context) (*oci.Content, error) {
				return &oci.Content{Descriptor: manifest.Descriptor{Digest: digest, MediaType: "application/octet-stream", Size: int64(len(config))}, Raw: config}, nil
			})
		}
		return both.Content, nil
	}
}

// signatures reads a manifest with its config, which may be none that can be merged.
func (s *Bundles) signatures(ctx context.Context, d manifest.Descriptor) (*oci.Signatures, error) {
	raw, err := s.content(ctx, d.Digest)
	if err != nil {
		return nil, err
	}
	img, err := oci.ParseImage(raw)
	if err != nil {
		return nil, err
	}
	set := &oci.Signatures{Content: &oci.Content{Descriptor: d, Raw: raw}}
	if img.Config.Size <= oci.MaxConfigBytes {
		set.Config, err = s.content(ctx, img.Config.Digest)
	}
	return set, err
}

// conditional reports whether one of the entity tags in a header is that of a digest. Those who write
// the digest without quotes are understood.
func conditional(header []string, digest string) bool {
	return slices.ContainsFunc(strings.Split(strings.Join(header, ","), ","), func(tag string) bool {
		tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/")
		return tag == "*" || strings.Trim(tag, `"`) == digest
	})
}

// notModified sets the entity tag and answers if that is what the client has already.
func (a *answer) notModified(digest string) bool {
	a.Header().Set("ETag", strconv.Quote(digest))
	if h := a.r.Header.Values("If-None-Match"); len(h) == 0 || !conditional(h, digest) {
		return false
	}
	a.Header().Set(headerDigest, digest)
	a.WriteHeader(http.StatusNotModified)
	return true
}
