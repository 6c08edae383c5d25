package bundle

import (
	"context"
	"fmt"
	"strings"

	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/manifest"
)

// Media types of charts in a registry, as Helm has them.
const (
	mediaTypeHelmConfig  = "application/vnd.cncf.helm.config.v1+json"
	mediaTypeHelmArchive = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
	// mediaTypeHelmArchiveOld is how Helm called them before version 3.7.
	mediaTypeHelmArchiveOld = "application/tar+gzip"
	mediaTypeHelmProvenance = "application/vnd.cncf.helm.chart.provenance.v1.prov"
	mediaTypeOCIManifest    = "application/vnd.oci.image.manifest.v1+json"
)

// chartRegistries reads charts from registries, for package chart.
type chartRegistries struct {
	client *oci.Client
	local  []*oci.Local
}

func (c *chartRegistries) source(repository string) *lazySource {
	host, path, _ := strings.Cut(repository, "/")
	return &lazySource{client: c.client, local: c.local, registry: host, path: path}
}

// Tags lists the tags of a repository.
func (c *chartRegistries) Tags(ctx context.Context, repository string) ([]string, error) {
	repo, err := c.source(repository).repository(ctx)
	if err != nil {
		return nil, err
	}
	return repo.Tags(ctx)
}

// Pull reads a chart.
func (c *chartRegistries) Pull(ctx context.Context, repository, identifier string) (*chart.OCIChart, error) {
	from := c.source(repository)
	content, err := from.Manifest(ctx, identifier)
	if err != nil {
		return nil, err
	}
	if !oci.IsImage(content.MediaType) {
		return nil, fmt.Errorf("%s has a %q there, which is no chart: %w", repository, content.MediaType, oci.ErrUnsupported)
	}
	parsed, err := oci.ParseImage(content.Raw)
	if err != nil {
		return nil, err
	}
	if parsed.Config.MediaType != mediaTypeHelmConfig {
		return nil, fmt.Errorf("%s holds a %q, which is no chart: %w", repository, parsed.Config.MediaType, oci.ErrUnsupported)
	}
	out := &chart.OCIChart{Digest: content.Digest, Manifest: content.Raw}
	if out.Config, err = from.ReadBlob(ctx, parsed.Config, oci.MaxConfigBytes); err != nil {
		return nil, err
	}
	for _, l := range parsed.Layers {
		switch l.MediaType {
		case mediaTypeHelmArchive, mediaTypeHelmArchiveOld:
			out.Archive, err = from.ReadBlob(ctx, l, manifest.MaxArchiveBytes)
		case mediaTypeHelmProvenance:
			out.Provenance, err = from.ReadBlob(ctx, l, chart.MaxProvenance)
		default:
			err = fmt.Errorf("the chart has a layer of type %q: %w", l.MediaType, oci.ErrUnsupported)
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}
