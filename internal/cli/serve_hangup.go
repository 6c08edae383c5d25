package cli

import (
	"os"
	"os/signal"
	"syscall"
)

// reopenOnHangup calls reopen on SIGHUP, which no longer ends the process, until stop is called.
// Programs that rotate logs send it.
func reopenOnHangup(reopen func() error, failed func(error)) (stop func()) {
	hangups := make(chan os.Signal, 1)
	done := make(chan struct{})
	signal.Reset(syscall.SIGHUP)
	signal.Notify(hangups, syscall.SIGHUP)
	go func() {
		for {
			select {
			case <-hangups:
				if err := reopen(); err != nil {
					failed(err)
				}
			case <-done:
				return
			}
		}
	}()
	return func() {
		signal.Stop(hangups)
		close(done)
	}
}
