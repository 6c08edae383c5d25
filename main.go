// Sealift carries software into air-gapped networks: it packs images and charts into one
// signed file on the connected side, and verifies, seeds and installs it on the isolated one.
package main

import (
	"context"
	"os"

	"github.com/sealift/sealift/internal/cli"
)

func main() {
	ctx, stop := cli.WithSignals(context.Background())
	code := cli.Run(ctx, os.Args[1:], cli.OS())
	stop()
	os.Exit(code)
}
