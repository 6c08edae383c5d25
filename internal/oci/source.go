package oci

import (
	"context"
	"io"

	"github.com/sealift/sealift/manifest"
)

// Source is where images are read from: a repository of a registry, or a file or directory on
// this machine.
type Source interface {
	// Manifest reads a manifest or index by tag or digest, and proves it where it is a digest.
	Manifest(ctx context.Context, identifier string) (*Content, error)
	// ManifestDigest asks which digest a tag, or digest, has: "" where there is none.
	ManifestDigest(ctx context.Context, identifier string) (string, error)
	// Referrers lists what refers to a digest, in the order of the digests, each once.
	Referrers(ctx context.Context, digest string) (list []Listed, viaAPI bool, err error)
	// ReadBlob reads a small blob and proves it.
	ReadBlob(ctx context.Context, d manifest.Descriptor, limit int64) ([]byte, error)
	// Blob returns the bytes of a blob from offset on, not proven.
	Blob(ctx context.Context, d manifest.Descriptor, offset int64) io.ReadCloser
}

var _ Source = (*Repository)(nil)
