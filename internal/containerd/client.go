package containerd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	introspectionapi "github.com/containerd/containerd/api/services/introspection/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	versionapi "github.com/containerd/containerd/api/services/version/v1"
	"github.com/containerd/containerd/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/sealift/sealift/manifest"
)

// Kubernetes is the namespace in which Kubernetes has its images.
const Kubernetes = "k8s.io"

// Names of the metadata that calls carry.
const (
	headerNamespace = "containerd-namespace"
	headerLease     = "containerd-lease"
)

// maxAnswer bounds one answer, in bytes: a list of all images is one.
const maxAnswer = 64 << 20

// Client speaks to one containerd about one namespace. It may be used by several goroutines.
type Client struct {
	address, namespace string
	version, platform  string
	cri                bool
	conn               *grpc.ClientConn
	content            contentapi.ContentClient
	images             imagesapi.ImagesClient
	leases             leasesapi.LeasesClient
}

// Connect connects to the containerd that listens at address, the path of a socket, and asks what it is.
// The caller closes the Client. Errors: *ConnectError, *Error.
func Connect(ctx context.Context, address, namespace string) (_ *Client, err error) {
	if err := listens(ctx, address); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, &ConnectError{address, err}
	}
	conn, err := grpc.NewClient("passthrough:///containerd",
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx, address) }),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
	)
	if err != nil {
		return nil, &ConnectError{address, err}
	}
	c := &Client{
		address: address, namespace: namespace, conn: conn,
		content: contentapi.NewContentClient(conn), images: imagesapi.NewImagesClient(conn), leases: leasesapi.NewLeasesClient(conn),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	asking, cancel := context.WithTimeout(c.context(ctx), connectTime)
	defer cancel()
	v, err := versionapi.NewVersionClient(conn).Version(asking, &emptypb.Empty{})
	if err != nil {
		return nil, c.failed(ctx, err, "asking for its version")
	}
	c.version = v.Version
	plugins, err := introspectionapi.NewIntrospectionClient(conn).Plugins(asking, &introspectionapi.PluginsRequest{})
	if err != nil {
		return nil, c.failed(ctx, err, "asking for its plugins")
	}
	c.learn(plugins.Plugins)
	return c, nil
}

// learn finds out what the node is, and whether it serves a kubelet.
func (c *Client) learn(plugins []*introspectionapi.Plugin) {
	c.platform = "linux/" + runtime.GOARCH
	for _, p := range plugins {
		if p.InitErr != nil {
			continue
		}
		cri := p.Type == "io.containerd.grpc.v1" && p.ID == "cri"
		c.cri = c.cri || cri
		// The variant of an ARM processor is known there.
		if (cri || p.Type == "io.containerd.runtime.v2") && len(p.Platforms) > 0 && p.Platforms[0].OS != "" {
			c.platform = platformOf(p.Platforms[0])
		}
	}
}

func platformOf(p *types.Platform) string {
	return strings.TrimSuffix(p.OS+"/"+p.Architecture+"/"+p.Variant, "/")
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Address is the path of the socket, Namespace that of the images.
func (c *Client) Address() string { return c.address }

// Namespace is the namespace of the images.
func (c *Client) Namespace() string { return c.namespace }

// Version is that of the containerd, without a leading v.
func (c *Client) Version() string { return strings.TrimPrefix(c.version, "v") }

// Platform is what the node runs, as "linux/amd64".
func (c *Client) Platform() string { return c.platform }

// ServesKubernetes reports whether a kubelet can use this containerd, and finds the images of the
// namespace.
func (c *Client) ServesKubernetes() bool { return c.cri && c.namespace == Kubernetes }

func (c *Client) context(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, headerNamespace, c.namespace)
}

// Image is a name and the content that it stands for.
type Image struct {
	Name string
	// Target is an index or image manifest.
	Target manifest.Descriptor
	Labels map[string]string
}

// Images returns all images of the namespace, by their names. Errors are *Error.
func (c *Client) Images(ctx context.Context) (map[string]Image, error) {
	list, err := c.images.List(c.context(ctx), &imagesapi.ListImagesRequest{})
	if err != nil {
		return nil, c.failed(ctx, err, "listing its images")
	}
	all := make(map[string]Image, len(list.Images))
	for _, i := range list.Images {
		img := Image{Name: i.Name, Labels: i.Labels}
		if t := i.Target; t != nil {
			img.Target = manifest.Descriptor{Digest: t.Digest, MediaType: t.MediaType, Size: t.Size}
		}
		all[img.Name] = img
	}
	return all, nil
}

// SetImage makes a name stand for a target, whatever it stood for before, and adds labels to those that it
// has. Errors are *Error.
func (c *Client) SetImage(ctx context.Context, i Image) error {
	doing := fmt.Sprintf("naming %s", i.Name)
	msg := &imagesapi.Image{
		Name: i.Name, Labels: i.Labels,
		Target: &types.Descriptor{MediaType: i.Target.MediaType, Digest: i.Target.Digest, Size: i.Target.Size},
	}
	_, err := c.images.Create(c.context(ctx), &imagesapi.CreateImageRequest{Image: msg})
	if err == nil {
		return nil
	}
	if !isCode(err, alreadyExists) {
		return c.failed(ctx, err, "%s", doing)
	}
	paths := []string{"target"}
	for key := range i.Labels {
		paths = append(paths, "labels."+key)
	}
	if _, err := c.images.Update(c.context(ctx), &imagesapi.UpdateImageRequest{Image: msg, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}}); err != nil {
		return c.failed(ctx, err, "%s", doing)
	}
	return nil
}

// Labels of images in the namespace of Kubernetes.
const (
	labelManaged, managed = "io.cri-containerd.image", "managed"
	labelPinned, pinned   = "io.cri-containerd.pinned", "pinned"
)

// Labels are those of images that Kubernetes uses: with pin, its kubelet does not remove them when the disk
// is full.
func Labels(pin bool) map[string]string {
	l := map[string]string{labelManaged: managed}
	if pin {
		l[labelPinned] = pinned
	}
	return l
}
