package containerd

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/emptypb"
)

// imageStatus asks what a kubelet asks before it starts a container.
const imageStatus = "/runtime.v1.ImageService/ImageStatus"

// Seen is what Kubernetes' side of containerd (CRI) says of an image.
type Seen struct {
	// Asked is false where that side does not answer such questions.
	Asked bool
	There bool
	// ID is what it calls the image: the digest of its config.
	ID string
	// Pinned says that a kubelet will not remove it when the disk is full.
	Pinned bool
}

// Fields of the messages, see kubernetes/cri-api, runtime/v1/api.proto.
const (
	fieldRequestImage   = 1 // ImageStatusRequest.image
	fieldSpecImage      = 1 // ImageSpec.image
	fieldResponseImage  = 1 // ImageStatusResponse.image
	fieldImageID        = 1 // Image.id
	fieldImagePinned    = 8 // Image.pinned
	maxFieldsOfAnAnswer = 1 << 16
)

// Sees asks what a kubelet asks before it starts a container. A name that has just been set is seen after a
// moment. Errors are *Error.
func (c *Client) Sees(ctx context.Context, name string) (Seen, error) {
	// Two fields of an API with hundreds, for which no code is linked: unknown fields of an empty message
	// travel as they are.
	spec := protowire.AppendString(protowire.AppendTag(nil, fieldSpecImage, protowire.BytesType), name)
	request, answer := &emptypb.Empty{}, &emptypb.Empty{}
	request.ProtoReflect().SetUnknown(protowire.AppendBytes(protowire.AppendTag(nil, fieldRequestImage, protowire.BytesType), spec))
	err := c.conn.Invoke(c.context(ctx), imageStatus, request, answer)
	if isCode(err, codes.Unimplemented) {
		return Seen{}, nil
	}
	if err != nil {
		return Seen{}, c.failed(ctx, err, "asking Kubernetes' side for image %s", name)
	}
	return readStatus(answer.ProtoReflect().GetUnknown()), nil
}

// readStatus reads an ImageStatusResponse.
func readStatus(answer []byte) Seen {
	s := Seen{Asked: true}
	image, there := lastField(answer, fieldResponseImage, protowire.BytesType)
	if !there {
		return s
	}
	s.There = true
	message, n := protowire.ConsumeBytes(image)
	if n < 0 {
		return s
	}
	if value, ok := lastField(message, fieldImageID, protowire.BytesType); ok {
		if id, n := protowire.ConsumeString(value); n > 0 {
			s.ID = id
		}
	}
	if value, ok := lastField(message, fieldImagePinned, protowire.VarintType); ok {
		v, n := protowire.ConsumeVarint(value)
		s.Pinned = n > 0 && protowire.DecodeBool(v)
	}
	return s
}

// lastField returns what begins with the value of a field of a message, up to where it can be read: the last
// one counts.
func lastField(message []byte, want protowire.Number, wantKind protowire.Type) (value []byte, ok bool) {
	for range maxFieldsOfAnAnswer {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			break
		}
		message = message[n:]
		if n = protowire.ConsumeFieldValue(number, kind, message); n < 0 {
			break
		}
		if number == want && kind == wantKind {
			value, ok = message[:n], true
		}
		message = message[n:]
	}
	return value, ok
}
