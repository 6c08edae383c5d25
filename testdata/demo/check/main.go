// Check pulls one image out of a registry, whole, and says what came:
//
//	go run ./testdata/demo/check [-platform os/arch] REFERENCE
//
// It reads the manifest, the configuration and every layer, and compares each with its digest. It
// prints a line "DIGEST REFERENCE: n blobs, n bytes", where DIGEST is that of the platform's image
// manifest. It shares no code with Sealift: it is the demo's second opinion.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("check: ")
	platform := flag.String("platform", "linux/amd64", "which image of an index to pull")
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal("usage: check [-platform os/arch] REFERENCE")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, flag.Arg(0), *platform); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, reference, platform string) error {
	ref, err := name.ParseReference(reference, name.Insecure)
	if err != nil {
		return err
	}
	p, err := v1.ParsePlatform(platform)
	if err != nil {
		return fmt.Errorf("parsing platform %q: %w", platform, err)
	}
	image, err := remote.Image(ref, remote.WithContext(ctx), remote.WithPlatform(*p))
	if err != nil {
		return fmt.Errorf("pulling %s: %w", ref, err)
	}
	digest, err := image.Digest()
	if err != nil {
		return err
	}
	config, err := image.RawConfigFile()
	if err != nil {
		return fmt.Errorf("pulling the configuration of %s: %w", ref, err)
	}
	layers, err := image.Layers()
	if err != nil {
		return err
	}
	size := int64(len(config))
	for _, l := range layers {
		n, err := pull(l)
		if err != nil {
			return fmt.Errorf("pulling a layer of %s: %w", ref, err)
		}
		size += n
	}
	fmt.Printf("%s %s: %d blobs, %d bytes\n", digest, reference, 1+len(layers), size)
	return nil
}

// pull reads a layer to its end; the library fails it if the bytes do not match the digest.
func pull(layer v1.Layer) (n int64, err error) {
	r, err := layer.Compressed()
	if err != nil {
		return 0, err
	}
	defer func() {
		if e := r.Close(); err == nil {
			err = e
		}
	}()
	return io.Copy(io.Discard, r)
}
