package registry_test

import (
	"errors"
	"io"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/sealift/sealift/internal/registry"
)

// appendLayers makes an OCI image of a layer and of one with content of its own.
func appendLayers(layer v1.Layer, own []byte) (v1.Image, error) {
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	return mutate.AppendLayers(img, layer, static.NewLayer(own, types.OCIUncompressedLayer))
}

// readImage reads all of an image; what is read is proven against the digests.
func readImage(img v1.Image) error {
	if _, err := img.RawConfigFile(); err != nil {
		return err
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for _, l := range layers {
		r, err := l.Compressed()
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, r)
		if err := errors.Join(err, r.Close()); err != nil {
			return err
		}
	}
	return nil
}

func holdToPrune(t *testing.T, store string) (release func()) {
	t.Helper()
	release, err := registry.LockToPrune(store)
	if err != nil {
		t.Fatal(err)
	}
	return release
}
