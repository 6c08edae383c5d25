package bundle

import (
	"context"
	"io"
	"strings"
	"sync"

	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/manifest"
)

// lazySource reads from content on this machine what is there, by its digest, and asks the registry
// only for the rest: where all is here, nothing is dialled.
type lazySource struct {
	client         *oci.Client
	local          []*oci.Local
	registry, path string

	once sync.Once
	repo *oci.Repository
	err  error
}

var _ oci.Source = (*lazySource)(nil)

func (s *lazySource) repository(ctx context.Context) (*oci.Repository, error) {
	s.once.Do(func() { s.repo, s.err = s.client.Repository(ctx, s.registry, s.path, false) })
	return s.repo, s.err
}

// here returns what on this machine holds a digest, or nil.
func (s *lazySource) here(digest string) *oci.Local {
	if !strings.HasPrefix(digest, "sha256:") {
		return nil
	}
	for _, l := range s.local {
		if l.Has(digest) {
			return l
		}
	}
	return nil
}

// Manifest implements oci.Source.
func (s *lazySource) Manifest(ctx context.Context, identifier string) (*oci.Content, error) {
	if l := s.here(identifier); l != nil {
		return l.Manifest(ctx, identifier)
	}
	repo, err := s.repository(ctx)
	if err != nil {
		return nil, err
	}
	return repo.Manifest(ctx, identifier)
}

// ManifestDigest implements oci.Source. What a tag leads to only the registry knows.
func (s *lazySource) ManifestDigest(ctx context.Context, identifier string) (string, error) {
	if l := s.here(identifier); l != nil {
		return identifier, nil
	}
	repo, err := s.repository(ctx)
	if err != nil {
		return "", err
	}
	return repo.ManifestDigest(ctx, identifier)
}

// Referrers implements oci.Source. Only the registry knows them all.
func (s *lazySource) Referrers(ctx context.Context, digest string) ([]oci.Listed, bool, error) {
	repo, err := s.repository(ctx)
	if err != nil {
		return nil, false, err
	}
	return repo.Referrers(ctx, digest)
}

// ReadBlob implements oci.Source.
func (s *lazySource) ReadBlob(ctx context.Context, d manifest.Descriptor, limit int64) ([]byte, error) {
	if l := s.here(d.Digest); l != nil {
		return l.ReadBlob(ctx, d, limit)
	}
	repo, err := s.repository(ctx)
	if err != nil {
		return nil, err
	}
	return repo.ReadBlob(ctx, d, limit)
}

// Blob implements oci.Source.
func (s *lazySource) Blob(ctx context.Context, d manifest.Descriptor, offset int64) io.ReadCloser {
	if l := s.here(d.Digest); l != nil {
		return l.Blob(ctx, d, offset)
	}
	repo, err := s.repository(ctx)
	if err != nil {
		return failed{err}
	}
	return repo.Blob(ctx, d, offset)
}

// failed is a blob that cannot be read.
type failed struct{ err error }

func (f failed) Read([]byte) (int, error) { return 0, f.err }
func (failed) Close() error               { return nil }
