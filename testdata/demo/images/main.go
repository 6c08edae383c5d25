// Images builds the demo's images from the Go program beside it and pushes them to a registry:
//
//	go run ./testdata/demo/images [-platforms LIST] [-pause] REGISTRY
//
//	REGISTRY/demo/app:1.0.0, :2.0.0   image indexes with one image for each platform
//	REGISTRY/demo/migrate:1.0.0       one image, for the first platform of the list
//	REGISTRY/pause:3.10               with -pause: an index, for the nodes of a cluster
//
// It prints a line "REFERENCE DIGEST" for each. The same Go release makes the same digests on any
// machine: nothing in an image comes from the clock, the machine or the working directory.
package main

import (
	"archive/tar"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// program is the package that every image runs.
const program = "github.com/sealift/sealift/testdata/demo/images/app"

// nobody is the user and group that the containers run as.
const nobody = "65532:65532"

func main() {
	log.SetFlags(0)
	log.SetPrefix("images: ")
	platforms := flag.String("platforms", "linux/amd64,linux/arm64", "what to build for, separated by commas")
	pause := flag.Bool("pause", false, "push pause:3.10 too")
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal("usage: images [-platforms LIST] [-pause] REGISTRY")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, flag.Arg(0), strings.Split(*platforms, ","), *pause); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, registry string, platformNames []string, pause bool) error {
	var platforms []v1.Platform
	for _, s := range platformNames {
		p, err := v1.ParsePlatform(s)
		if err != nil {
			return fmt.Errorf("parsing platform %q: %w", s, err)
		}
		platforms = append(platforms, *p)
	}

	for _, version := range []string{"1.0.0", "2.0.0"} {
		layers, err := build(ctx, version, platforms)
		if err != nil {
			return err
		}
		if err := pushIndex(ctx, registry+"/demo/app:"+version, layers, "serve", version); err != nil {
			return err
		}
		if version != "1.0.0" {
			continue
		}
		if err := pushImage(ctx, registry+"/demo/migrate:"+version, layers[0], "job", version); err != nil {
			return err
		}
		if !pause {
			continue
		}
		if err := pushIndex(ctx, registry+"/pause:3.10", layers, "pause", "3.10"); err != nil {
			return err
		}
	}
	return nil
}

// builtLayer is the program in a layer, for one platform.
type builtLayer struct {
	v1.Layer
	platform v1.Platform
}

// build compiles one version of the program for each platform. The images of that version share
// the layers.
func build(ctx context.Context, version string, platforms []v1.Platform) ([]builtLayer, error) {
	dir, err := os.MkdirTemp("", "sealift-demo-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)

	var layers []builtLayer
	for _, platform := range platforms {
		binary := filepath.Join(dir, platform.OS+"-"+platform.Architecture)
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false",
			"-ldflags", "-s -w -buildid= -X main.version="+version, "-o", binary, program)
		// The Go settings of this machine must not reach the bytes of the image.
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOEXPERIMENT=", "GOAMD64=v1", "GOARM64=v8.0",
			"GOOS="+platform.OS, "GOARCH="+platform.Architecture)
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("building the program for %s: %w", platform, err)
		}
		content, err := os.ReadFile(binary)
		if err != nil {
			return nil, err
		}
		layer, err := layerWith("app", content)
		if err != nil {
			return nil, err
		}
		layers = append(layers, builtLayer{layer, platform})
	}
	return layers, nil
}

// layerWith makes a gzipped layer that holds one executable file.
func layerWith(path string, content []byte) (v1.Layer, error) {
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	if err := tw.WriteHeader(&tar.Header{Name: path, Mode: 0o755, Size: int64(len(content))}); err != nil {
		return nil, err
	}
	if _, err := tw.Write(content); err != nil {
		return nil, err
	}
	if err := tw.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(buf.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer))
}

// imageOf makes the image that runs the program of a layer in the given mode.
func imageOf(layer builtLayer, mode, version string) (v1.Image, error) {
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err := mutate.AppendLayers(image, layer)
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Variant = layer.platform.OS, layer.platform.Architecture, layer.platform.Variant
	config.Config = v1.Config{
		Entrypoint: []string{"/app"},
		Cmd:        []string{mode},
		User:       nobody,
		Labels:     map[string]string{"org.opencontainers.image.version": version},
	}
	return mutate.ConfigFile(image, config)
}

func pushImage(ctx context.Context, ref string, layer builtLayer, mode, version string) error {
	image, err := imageOf(layer, mode, version)
	if err != nil {
		return err
	}
	return push(ref, image, func(tag name.Reference) error {
		return remote.Write(tag, image, remote.WithContext(ctx))
	})
}

func pushIndex(ctx context.Context, ref string, layers []builtLayer, mode, version string) error {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, layer := range layers {
		image, err := imageOf(layer, mode, version)
		if err != nil {
			return err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        image,
			Descriptor: v1.Descriptor{Platform: &layer.platform},
		})
	}
	return push(ref, index, func(tag name.Reference) error {
		return remote.WriteIndex(tag, index, remote.WithContext(ctx))
	})
}

// push writes something to the registry under a tag, and prints what is there now.
func push(ref string, content interface{ Digest() (v1.Hash, error) }, write func(name.Reference) error) error {
	tag, err := name.NewTag(ref, name.Insecure)
	if err != nil {
		return err
	}
	digest, err := content.Digest()
	if err != nil {
		return err
	}
	if err := write(tag); err != nil {
		return fmt.Errorf("pushing %s: %w", tag, err)
	}
	fmt.Println(tag, digest)
	return nil
}
