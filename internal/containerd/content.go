package containerd

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/sealift/sealift/manifest"
)

const alreadyExists = codes.AlreadyExists

// Labels of content, and of leases.
const (
	labelReference = "containerd.io/gc.ref.content"
	labelSource    = "containerd.io/distribution.source."
	labelExpire    = "containerd.io/gc.expire"
)

// maxLabel bounds a label: name and value together, in bytes. containerd refuses longer ones.
const maxLabel = 4096

// Info returns the labels of content, and whether it is there. Errors are *Error.
func (c *Client) Info(ctx context.Context, digest string) (labels map[string]string, there bool, err error) {
	info, err := c.content.Info(c.context(ctx), &contentapi.InfoRequest{Digest: digest})
	if isCode(err, codes.NotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, c.failed(ctx, err, "asking for blob %s", digest)
	}
	return info.GetInfo().GetLabels(), true, nil
}

// AddLabels adds labels to content that is there. Errors are *Error.
func (c *Client) AddLabels(ctx context.Context, digest string, labels map[string]string) error {
	var paths []string
	for key := range labels {
		paths = append(paths, "labels."+key)
	}
	if len(paths) == 0 {
		return nil
	}
	_, err := c.content.Update(c.context(ctx), &contentapi.UpdateRequest{
		Info: &contentapi.Info{Digest: digest, Labels: labels}, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths},
	})
	if err != nil {
		return c.failed(ctx, err, "labelling blob %s", digest)
	}
	return nil
}

// References returns the labels that content with the labels have lacks to keep what it refers to from
// being collected: parts are called as containerd calls them, "m" for image manifests, "config" and "l" for layers.
func References(have map[string]string, parts []Part) map[string]string {
	kept := map[string]bool{}
	for key, digest := range have {
		if key == labelReference || strings.HasPrefix(key, labelReference+".") || strings.HasPrefix(key, labelReference+"/") {
			kept[digest] = true
		}
	}
	all, lacks := maps.Clone(have), map[string]string{}
	if all == nil {
		all = map[string]string{}
	}
	for _, p := range parts {
		if kept[p.Digest] {
			continue
		}
		kept[p.Digest] = true
		key := labelReference + "." + p.Kind
		if p.Kind != PartConfig {
			key += "." + strconv.Itoa(p.Number)
		}
		// Somebody else has counted otherwise, who pulled other platforms.
		for n := p.Number; all[key] != ""; n++ {
			key = labelReference + "." + p.Kind + "." + strconv.Itoa(n)
		}
		all[key], lacks[key] = p.Digest, p.Digest
	}
	return lacks
}

// Part is something that content refers to.
type Part struct {
	Kind   string
	Number int
	Digest string
}

// Kinds of parts.
const (
	PartManifest = "m"
	PartConfig   = "config"
	PartLayer    = "l"
)

// Sources returns the labels that say from which repositories content is, by their registries.
func Sources(repositories map[string][]string) map[string]string {
	labels := map[string]string{}
	for registry, list := range repositories {
		key, value := labelSource+registry, ""
		for _, repository := range list {
			if next := strings.TrimPrefix(value+","+repository, ","); len(key)+len(next) <= maxLabel {
				value = next
			}
		}
		if value != "" {
			labels[key] = value
		}
	}
	return labels
}

// Lease protects content that no image refers to yet.
type Lease struct {
	c  *Client
	id string
}

// Lease begins a lease, which ends by itself at expires. Errors are *Error.
func (c *Client) Lease(ctx context.Context, expires time.Time) (*Lease, error) {
	l := &Lease{c, "sealift-" + rand.Text()}
	_, err := c.leases.Create(c.context(ctx), &leasesapi.CreateRequest{ID: l.id, Labels: map[string]string{labelExpire: expires.UTC().Format(time.RFC3339)}})
	if err != nil {
		return nil, c.failed(ctx, err, "taking a lease")
	}
	return l, nil
}

// Keep protects content, which may not be there yet. Errors are *Error.
func (l *Lease) Keep(ctx context.Context, digest string) error {
	_, err := l.c.leases.AddResource(l.c.context(ctx), &leasesapi.AddResourceRequest{ID: l.id, Resource: &leasesapi.Resource{ID: digest, Type: "content"}})
	if err != nil {
		return l.c.failed(ctx, err, "protecting blob %s", digest)
	}
	return nil
}

// End ends the lease: what is not referred to will be collected. Errors are *Error.
func (l *Lease) End(ctx context.Context) error {
	if _, err := l.c.leases.Delete(l.c.context(ctx), &leasesapi.DeleteRequest{ID: l.id}); err != nil && !isCode(err, codes.NotFound) {
		return l.c.failed(ctx, err, "giving the lease back")
	}
	return nil
}

func (l *Lease) context(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(l.c.context(ctx), headerLease, l.id)
}

// reference is the name under which a blob is written, the same in every run, so that one goes on where
// another one stopped.
func reference(d manifest.Descriptor) string { return fmt.Sprintf("sealift-%s", d.Digest) }
