package install

import (
	"context"

	"github.com/sealift/sealift/internal/ledger"
)

// CheckOpen refuses where a transaction of a bundle is open: errors are *InterruptedError, or *release.BusyError where somebody is
// at work on it.
func CheckOpen(ctx context.Context, bundle string, o TransactOptions) error {
	return newEngine(bundle, nil, o).refuseOpen(ctx)
}

// CheckNoReturn refuses what a plan says has no way back, where that was not accepted. Errors are *PreflightError with a *NoReturnError.
func CheckNoReturn(p *Plan, accepted bool) error {
	return noReturn(Change{Plan: p, Options: ledger.Options{AcceptNoReturn: accepted}})
}
