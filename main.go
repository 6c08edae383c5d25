// Sealift carries software into air-gapped networks: it packs images and charts into one
// signed file on the connected side, and verifies, seeds and installs it on the isolated one.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/sealift/sealift/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal ends the work in order; from then on a second one ends the process.
	context.AfterFunc(ctx, stop)
	os.Exit(cli.Run(ctx, os.Args[1:], cli.OS()))
}
