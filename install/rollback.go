package install

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sealift/sealift/internal/ledger"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/manifest"
)

// RollbackOptions say what may be gone back over.
type RollbackOptions struct {
	// Version to go back to; empty for the one before.
	Version string
	// ManualDone says that what vendors demand by hand before a way back was done.
	ManualDone bool
	// Client reaches the registry in which the images have to be; nil where they are on the nodes.
	Client *oci.Client
	// Revoked says why a manifest, by its digest, is refused; "" where it is not.
	Revoked func(manifest string) string
	// DryRun changes nothing.
	DryRun bool
}

// NoVersionError says that a version cannot be gone back to, since it is not among those that were installed before.
type NoVersionError struct {
	Bundle, Version string // Version is empty where the one before was asked for
	// Known are the versions that there are, newest first.
	Known []string
}

// Error lists what there is.
func (e *NoVersionError) Error() string {
	what := "an earlier version"
	if e.Version != "" {
		what = "version " + e.Version
	}
	if len(e.Known) == 0 {
		return fmt.Sprintf("%s of bundle %q is not recorded in this cluster, nor is any other to go back to", what, e.Bundle)
	}
	return fmt.Sprintf("%s of bundle %q is not recorded in this cluster; recorded are %s", what, e.Bundle, strings.Join(e.Known, ", "))
}

// OtherClusterError says that a receipt is that of another cluster: the state was copied.
type OtherClusterError struct{ Want, Got string }

// Error names both.
func (e *OtherClusterError) Error() string {
	return fmt.Sprintf("what is recorded is of the cluster with UID %s, and this one has %s", e.Want, e.Got)
}

// LostRevisionError says that a release cannot go back: its revision is gone, or is not what it was.
type LostRevisionError struct {
	Release  string // "NAMESPACE/NAME" by Helm's name
	Revision int
	// Changed says that there is such a revision, with other objects than those that were recorded.
	Changed bool
}

// Error names it.
func (e *LostRevisionError) Error() string {
	if e.Changed {
		return fmt.Sprintf("revision %d of release %s is not the one that was recorded", e.Revision, e.Release)
	}
	return fmt.Sprintf("revision %d of release %s is not in its history any more", e.Revision, e.Release)
}

// NoRollbackError says that a vendor does not let a release go back, or not without work by hand.
type NoRollbackError struct {
	Release string // "NAMESPACE/NAME"
	// Manual says that something has to be done by hand first; else there is no way back.
	Manual bool
}

// Error says what the vendor says.
func (e *NoRollbackError) Error() string {
	if e.Manual {
		return fmt.Sprintf("the vendor says that before release %s goes back something has to be done by hand, which its notes tell", e.Release)
	}
	return fmt.Sprintf("the vendor says that release %s must not go back from the version that is installed", e.Release)
}

// RevokedError says that a version was revoked.
type RevokedError struct{ Version, Why string }

// Error gives the reason.
func (e *RevokedError) Error() string {
	return fmt.Sprintf("version %s was revoked: %s", e.Version, e.Why)
}

// GoneImagesError says that images are not in the registry any more.
type GoneImagesError struct{ Images []string }

// Error lists them.
func (e *GoneImagesError) Error() string {
	return "the registry does not have these images any more: " + strings.Join(e.Images, ", ")
}

// Rollback goes back to a version that was installed before, by the revisions that were recorded then. All is checked before
// anything is touched: errors are *PreflightError with a *NoVersionError, *OtherClusterError, *LostRevisionError, *NoRollbackError,
// *RevokedError or *GoneImagesError, *InterruptedError, *release.BusyError, and *FailedError once something was changed; then all
// goes back to where it was.
func Rollback(ctx context.Context, bundle string, r RollbackOptions, o TransactOptions) (*ledger.Receipt, error) {
	return newEngine(bundle, nil, o).rollback(ctx, r)
}

func (e *engine) rollback(ctx context.Context, r RollbackOptions) (*ledger.Receipt, error) {
	if err := e.refuseOpen(ctx); err != nil {
		return nil, err
	}
	if !r.DryRun {
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
	if e.state == nil {
		return nil, &PreflightError{&NoVersionError{Bundle: e.bundle, Version: r.Version}}
	}
	if e.state.Open != nil {
		return nil, interrupted(e.state, "")
	}
	target, err := chooseTarget(e.state, r.Version)
	if err != nil {
		return nil, &PreflightError{err}
	}
	if err := e.mayGoBack(ctx, target, r); err != nil {
		return nil, err
	}
	t, err := e.planRollback(ctx, target)
	if err != nil {
		return nil, early(err)
	}
	if r.DryRun {
		return &t.Receipt, nil
	}
	if err := e.start(ctx, t, nil, releasesOf(target)); err != nil {
		return nil, early(err)
	}
	return e.run(ctx)
}

// chooseTarget finds the receipt of a version that was installed before, the newest one of it; with no version, of the newest that
// is not the installed one.
func chooseTarget(s *ledger.State, version string) (*ledger.Receipt, error) {
	e := &NoVersionError{Bundle: s.Name, Version: version}
	for i := len(s.History) - 1; i >= 0; i-- {
		r := &s.History[i]
		if r.Outcome != ledger.OutcomeDone || r.Action == ledger.ActionUninstall {
			continue
		}
		if s.Installed != nil && r.Version == s.Installed.Version && r.Manifest == s.Installed.Manifest && version == "" {
			continue
		}
		if version == "" || version == r.Version {
			return r, nil
		}
		if !slices.Contains(e.Known, r.Version) {
			e.Known = append(e.Known, r.Version)
		}
	}
	return nil, e
}

// mayGoBack finds what stands against a way back, changing nothing.
func (e *engine) mayGoBack(ctx context.Context, target *ledger.Receipt, r RollbackOptions) error {
	uid, err := e.cluster.UID(ctx)
	if err != nil && !isForbidden(err) {
		return err
	}
	if uid != "" && target.Cluster != "" && uid != target.Cluster {
		return &PreflightError{&OtherClusterError{Want: target.Cluster, Got: uid}}
	}
	if r.Revoked != nil {
		if why := r.Revoked(target.Manifest); why != "" {
			return &PreflightError{&RevokedError{Version: target.Version, Why: why}}
		}
	}
	if e.state.Installed != nil {
		for i := range e.state.Installed.Releases {
			x := &e.state.Installed.Releases[i]
			back := findRelease(target.Releases, x.Key())
			switch {
			case back != nil && back.Chart == x.Chart && back.Version == x.Version && back.Objects != "" && back.Objects == x.Objects:
				// It stays what it is.
			case x.Rollback == manifest.RollbackForbidden:
				return &PreflightError{&NoRollbackError{Release: x.Key()}}
			case x.Rollback == manifest.RollbackManual && !r.ManualDone:
				return &PreflightError{&NoRollbackError{Release: x.Key(), Manual: true}}
			}
		}
	}
	for i := range target.Releases {
		x := &target.Releases[i]
		lost := &LostRevisionError{Release: x.Namespace + "/" + x.Helm(), Revision: x.Revision}
		rec, err := e.cluster.Recorded(ctx, x.Helm(), x.Namespace, x.Revision)
		if err != nil {
			return err
		}
		if x.Revision == 0 || rec == nil {
			return &PreflightError{lost}
		}
		if x.Objects != "" && rec.Objects != x.Objects {
			lost.Changed = true
			return &PreflightError{lost}
		}
	}
	if err := e.refuseClaimed(ctx, releasesOf(target)); err != nil {
		return err
	}
	return e.imagesThere(ctx, target, r.Client)
}

// releasesOf are the releases of a receipt, as far as their names go.
func releasesOf(r *ledger.Receipt) []*Release {
	var list []*Release
	for i := range r.Releases {
		x := &r.Releases[i]
		list = append(list, &Release{Name: x.Name, Namespace: x.Namespace, As: x.Helm()})
	}
	return list
}

func (e *engine) imagesThere(ctx context.Context, target *ledger.Receipt, client *oci.Client) error {
	if client == nil || target.Registry == "" {
		return nil
	}
	var all []Reference
	for i := range target.Images {
		all = append(all, Reference{Reference: target.Images[i].Target})
	}
	gone, err := absent(ctx, all, client)
	if err != nil {
		return err
	}
	names := map[string]bool{}
	for _, g := range gone {
		names[g.Reference] = true
	}
	if len(names) > 0 {
		return &PreflightError{&GoneImagesError{slices.Sorted(maps.Keys(names))}}
	}
	return nil
}

// planRollback makes the transaction that goes back to what a receipt says. Releases go back in the reverse of the order in which
// they were begun: first those that depend on others.
func (e *engine) planRollback(ctx context.Context, target *ledger.Receipt) (*ledger.Transaction, error) {
	r := *target
	r.Releases = slices.Clone(target.Releases)
	r.Action, r.By, r.Overrides, r.Reason, r.Plan, r.BackupDone, r.NoReturn = ledger.ActionRollback, "", []string{}, "", "", "", []string{}
	r.Replaces = ""
	var now []ledger.Release
	if e.state.Installed != nil {
		r.Replaces, now = e.state.Installed.Version, e.state.Installed.Releases
	}
	t, err := e.newTransaction(ctx, r)
	if err != nil {
		return nil, err
	}
	t.Action = ledger.ActionRollback
	var fronts, removals []ledger.Step
	for i := range slices.Backward(now) {
		x := &now[i]
		if findRelease(target.Releases, x.Key()) == nil {
			removals = append(removals, frontRemoval(x)...)
			removals = append(removals, removal(x))
		}
	}
	var steps []ledger.Step
	for i := range slices.Backward(t.Receipt.Releases) {
		x := &t.Receipt.Releases[i]
		steps = append(steps, ledger.Step{
			Kind: ledger.StepRelease, Status: ledger.StepPlanned, Namespace: x.Namespace, Release: x.Name, As: x.As, To: x.Revision, Objects: x.Objects,
		})
		before := &ledger.Release{Namespace: x.Namespace, Name: x.Name, As: x.As}
		if was := findRelease(now, x.Key()); was != nil {
			before = was
		}
		front, step := frontBack(before, x)
		x.Front = front
		if step != nil {
			fronts = append(fronts, *step)
		}
	}
	if err := e.addSteps(ctx, t, append(append(steps, fronts...), removals...)); err != nil {
		return nil, err
	}
	return t, nil
}
