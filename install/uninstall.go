package install

import (
	"context"
	"slices"

	"github.com/sealift/sealift/internal/ledger"
)

// Uninstall removes all releases of a bundle, the last one first. What holds data stays, and is listed in the receipt; so do
// definitions and namespaces, and Helm's history, by which 'sealift rollback' brings a version back. With dryRun nothing is
// changed, and the receipt is the one that would be written. Errors are a *PreflightError with a *NotInstalledError,
// *InterruptedError, *release.BusyError, and *FailedError once something was changed; then all is brought back.
func Uninstall(ctx context.Context, bundle string, dryRun bool, o TransactOptions) (*ledger.Receipt, error) {
	return newEngine(bundle, nil, o).uninstall(ctx, dryRun)
}

func (e *engine) uninstall(ctx context.Context, dryRun bool) (*ledger.Receipt, error) {
	if err := e.refuseOpen(ctx); err != nil {
		return nil, err
	}
	if !dryRun {
		end, err := e.begin(ctx)
		if err != nil {
			return nil, err
		}
		defer end()
	} else {
		var err error
		if e.state, e.version, err = e.ledger.Read(ctx, e.bundle); err != nil {
			return nil, early(err)
		}
	}
	switch {
	case e.state == nil, e.state.Open == nil && e.state.Installed == nil:
		return nil, &PreflightError{&NotInstalledError{Bundle: e.bundle, Namespace: e.ledger.Namespace()}}
	case e.state.Open != nil:
		return nil, interrupted(e.state, "")
	}
	t, err := e.planUninstall(ctx)
	if err != nil {
		return nil, early(err)
	}
	if dryRun {
		return &t.Receipt, e.foresee(ctx, t)
	}
	if err := e.start(ctx, t, nil, nil); err != nil {
		return nil, early(err)
	}
	return e.run(ctx)
}

// planUninstall makes the transaction that removes what is installed.
func (e *engine) planUninstall(ctx context.Context) (*ledger.Transaction, error) {
	r := *e.state.Installed
	r.Action, r.Replaces = ledger.ActionUninstall, r.Version
	r.By, r.Overrides, r.Reason, r.Plan, r.BackupDone, r.NoReturn = "", []string{}, "", "", "", []string{}
	now := r.Releases
	r.Releases = slices.Clone(now)
	t, err := e.newTransaction(ctx, r)
	if err != nil {
		return nil, err
	}
	t.Action = ledger.ActionUninstall
	var steps []ledger.Step
	for i := range slices.Backward(now) {
		steps = append(steps, frontRemoval(&now[i])...)
		steps = append(steps, removal(&now[i]))
	}
	if err := e.addSteps(ctx, t, steps); err != nil {
		return nil, err
	}
	for i := range now {
		if kept := "Namespace/" + now[i].Namespace; !slices.Contains(t.Receipt.Kept, kept) {
			t.Receipt.Kept = append(t.Receipt.Kept, kept)
		}
	}
	return t, nil
}

// foresee lists what stays of releases that are removed, as far as it is recorded: claims, definitions and all that says so.
func (e *engine) foresee(ctx context.Context, t *ledger.Transaction) error {
	for i := range t.Steps {
		x := &t.Steps[i]
		if x.Kind != ledger.StepRemove {
			continue
		}
		kept, err := e.cluster.Keeps(ctx, x.Helm(), x.Namespace)
		if err != nil {
			return err
		}
		for _, k := range inRelease(x, kept) {
			if !slices.Contains(t.Receipt.Kept, k) {
				t.Receipt.Kept = append(t.Receipt.Kept, k)
			}
		}
	}
	return nil
}
