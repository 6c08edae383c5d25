package cli

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// WithSignals returns a context that ends with the first signal that asks the process to end,
// so that its work ends in order. A second such signal ends the process at once.
func WithSignals(parent context.Context) (ctx context.Context, stop context.CancelFunc) {
	// Without this the runtime ends the process when the reader of our output has gone, as in
	// "sealift install … | tee log" on Ctrl-C: in the middle of changing things back.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // it is under nohup
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop = signal.NotifyContext(parent, signals...)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}
