package cli_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/rogpeppe/go-internal/testscript"
)

// cmdUnpackable pushes an image whose layers container runtimes can unpack, or an index where there are
// several platforms: unpackable REF PLATFORM[,PLATFORM...] TEXT [docker]. It has a layer with TEXT in the
// file /text and one that is not compressed; with docker, media types are docker's.
func cmdUnpackable(ts *testscript.TestScript, _ bool, args []string) {
	ref, err := name.ParseReference(args[0])
	ts.Check(err)
	docker := slices.Contains(args[3:], "docker")
	var adds []mutate.IndexAddendum
	for p := range strings.SplitSeq(args[1], ",") {
		platform, err := v1.ParsePlatform(p)
		ts.Check(err)
		adds = append(adds, mutate.IndexAddendum{Add: unpackable(ts, platform, args[2], docker), Descriptor: v1.Descriptor{Platform: platform}})
	}
	if len(adds) == 1 {
		img, ok := adds[0].Add.(v1.Image)
		if !ok {
			ts.Fatalf("no image")
		}
		ts.Check(remote.Write(ref, img))
		return
	}
	kind := types.OCIImageIndex
	if docker {
		kind = types.DockerManifestList
	}
	ts.Check(remote.WriteIndex(ref, mutate.AppendManifests(mutate.IndexMediaType(empty.Index, kind), adds...)))
}

func unpackable(ts *testscript.TestScript, platform *v1.Platform, text string, docker bool) v1.Image {
	kinds := []types.MediaType{types.OCIManifestSchema1, types.OCIConfigJSON, types.OCILayer, types.OCIUncompressedLayer}
	if docker {
		kinds = []types.MediaType{types.DockerManifestSchema2, types.DockerConfigJSON, types.DockerLayer, types.DockerUncompressedLayer}
	}
	layer := func(name, text string, compressed bool) v1.Layer {
		var buf bytes.Buffer
		tw := tar.NewWriter(&buf)
		ts.Check(tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}))
		_, err := io.WriteString(tw, text)
		ts.Check(err)
		ts.Check(tw.Close())
		content, kind := buf.Bytes(), kinds[3]
		if compressed {
			var z bytes.Buffer
			zw := gzip.NewWriter(&z)
			_, err := zw.Write(content)
			ts.Check(err)
			ts.Check(zw.Close())
			content, kind = z.Bytes(), kinds[2]
		}
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }, tarball.WithMediaType(kind))
		ts.Check(err)
		if !compressed {
			l = plain{l, content}
		}
		return l
	}
	img, err := mutate.AppendLayers(mutate.ConfigMediaType(mutate.MediaType(empty.Image, kinds[0]), kinds[1]),
		layer("text", text, true), layer("plain", strings.Repeat(text+platform.String(), 1000), false))
	ts.Check(err)
	c, err := img.ConfigFile()
	ts.Check(err)
	c = c.DeepCopy()
	c.OS, c.Architecture, c.Variant = platform.OS, platform.Architecture, platform.Variant
	img, err = mutate.ConfigFile(img, c)
	ts.Check(err)
	return img
}

// plain is a layer that is stored as it is: the library compresses what is not.
type plain struct {
	v1.Layer
	content []byte
}

func (p plain) Digest() (v1.Hash, error) { return p.DiffID() }
func (p plain) Size() (int64, error)     { return int64(len(p.content)), nil }
func (p plain) Compressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(p.content)), nil
}
