package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/install"
	"github.com/sealift/sealift/internal/ledger"
	"github.com/sealift/sealift/internal/release"
	"github.com/sealift/sealift/verify"
)

// changed is what a command that changes a cluster prints.
type changed struct {
	Bundle string `json:"bundle"`
	// Condition is what the bundle is in now, see package ledger.
	Condition string          `json:"condition"`
	DryRun    bool            `json:"dryRun,omitempty"`
	Receipt   *ledger.Receipt `json:"receipt,omitempty"`
}

// after prints what became of a transaction.
func (a *app) after(cmd *cobra.Command, l *release.Ledger, bundle string, r *ledger.Receipt) error {
	s, _, err := l.Read(cmd.Context(), bundle)
	if err != nil {
		return fmt.Errorf("all was done; reading the state of bundle %q again: %w", bundle, err)
	}
	c := &changed{Bundle: bundle, Condition: ledger.ConditionNothing, Receipt: r}
	if s != nil {
		c.Condition = s.Condition()
	}
	return a.print(c, func(w io.Writer) {
		if r != nil {
			writeOutcome(w, r)
		}
		writeOpen(w, s)
	})
}

// writeOutcome says what became of a transaction that has ended.
func writeOutcome(w io.Writer, r *ledger.Receipt) {
	verb := map[string]string{
		ledger.ActionInstall: "installed", ledger.ActionUpgrade: "upgraded to", ledger.ActionRollback: "rolled back to", ledger.ActionUninstall: "uninstalled",
	}[r.Action]
	switch {
	case r.Outcome == ledger.OutcomeBack && r.Replaces != "":
		fmt.Fprintf(w, "changed back: %s is at %s again\n", r.Bundle, r.Replaces)
	case r.Outcome == ledger.OutcomeBack:
		fmt.Fprintf(w, "changed back: %s is not installed\n", r.Bundle)
	case r.Replaces != "" && r.Replaces != r.Version:
		fmt.Fprintf(w, "%s %s %s (was %s)\n", verb, r.Bundle, r.Version, r.Replaces)
	default:
		fmt.Fprintf(w, "%s %s %s\n", verb, r.Bundle, r.Version)
	}
	if r.Outcome == ledger.OutcomeBack {
		// Which revisions they have now is for status to say.
		writeChecked(w, r)
		return
	}
	writeReleases(w, r)
}

// writeReleases lists the releases of a receipt, and what was kept.
func writeReleases(w io.Writer, r *ledger.Receipt) {
	for i := range r.Releases {
		l := &r.Releases[i]
		as := ""
		if l.As != "" && l.As != l.Name {
			as = " as " + l.As
		}
		fmt.Fprintf(w, "  release %s%s, revision %d (chart %s %s)\n", l.Key(), as, l.Revision, l.Chart, l.Version)
	}
	writeChecked(w, r)
}

// writeChecked lists the health checks and tests of a receipt, and what was kept.
func writeChecked(w io.Writer, r *ledger.Receipt) {
	for _, c := range r.Checks {
		fmt.Fprintf(w, "  %s: %s %s\n", c.Release, c.Name, c.Result)
	}
	for _, k := range r.Kept {
		fmt.Fprintf(w, "  kept: %s\n", k)
	}
}

// writeOpen says how a transaction that has not ended goes on, and back.
func writeOpen(w io.Writer, s *ledger.State) {
	if s == nil || s.Open == nil {
		return
	}
	t := s.Open
	done := 0
	for i := range t.Steps {
		if t.Steps[i].Status == ledger.StepDone {
			done++
		}
	}
	fmt.Fprintf(w, "%s: %s %s of %s, %d of %s done\n", s.Condition(), t.Action, t.Receipt.Version, s.Name, done, count(len(t.Steps), "step"))
	on, back := waysOf(s)
	if on != "" {
		fmt.Fprintf(w, "  on:   %s\n", on)
	}
	if back != "" {
		fmt.Fprintf(w, "  back: %s\n", back)
	}
}

// waysOf are the commands that go on with an open transaction, and back; empty where there is none.
func waysOf(s *ledger.State) (on, back string) {
	t := s.Open
	on, back = "sealift resume BUNDLE (the file of "+s.Name+" "+t.Receipt.Version+")", "sealift revert "+s.Name
	switch {
	case t.Phase == ledger.PhaseStaged:
		return "sealift promote " + s.Name, "sealift abort " + s.Name
	case t.Phase == ledger.PhaseBack:
		return "", back
	case t.Action == ledger.ActionRollback || t.Action == ledger.ActionUninstall:
		on = "sealift resume " + s.Name
	}
	if p := t.PassedNoReturn(); p != nil {
		back += " --over-no-return"
	}
	return on, back
}

type resumeFlags struct {
	clusterFlags
	trust          trustFlags
	rollout        rolloutFlags
	acceptNoReturn bool
	until          string
}

func (a *app) resumeCommand() *cobra.Command {
	var f resumeFlags
	c := &cobra.Command{
		Use:   "resume BUNDLE",
		Short: "Go on with an install that was interrupted, or that stopped at a hold point",
		Long: `Go on where an install of this very bundle has stopped: at a hold point (--until), after a
failure behind a point of no return, or because it was killed. What was begun and not ended
is looked at in the cluster first: hooks that still run are ended, a release that stands
between two revisions goes back to the recorded one, and is done again.

What the site said then, and how images are called, is known to the cluster. Nothing is
seeded. A rollback or an uninstall that was interrupted is named by the bundle's name:
nothing of the bundle is needed for it.

` + placesHelp,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.resume(cmd, args, &f) },
	}
	f.trust.addUse(c)
	f.addChange(c)
	f.rollout.add(c)
	c.Flags().StringVar(&f.until, "until", "", "stop after this release, RELEASE or NAMESPACE/RELEASE, and go on later")
	c.Flags().BoolVar(&f.acceptNoReturn, "accept-no-return", false, "pass points behind which there is no way back")
	onlyFlag(c.Flags(), "until")
	onlyFlag(c.Flags(), "accept-no-return")
	return c
}

func (a *app) resume(cmd *cobra.Command, args []string, f *resumeFlags) (err error) {
	ctx := cmd.Context()
	if err := f.check(cmd); err != nil {
		return err
	}
	cluster, err := a.connect(&f.clusterFlags)
	if err != nil {
		return err
	}
	o := a.transact(&f.clusterFlags, cluster)
	o.Until, o.AcceptNoReturn, o.Rounds = f.until, f.acceptNoReturn, f.rollout.rounds()
	known, err := o.Ledger.Bundles(ctx)
	if err != nil {
		return err
	}
	if len(args) == 1 && slices.Contains(known, args[0]) {
		s, _, err := o.Ledger.Read(ctx, args[0])
		if err != nil {
			return err
		}
		if s.Open == nil || s.Open.Action == ledger.ActionRollback || s.Open.Action == ledger.ActionUninstall || s.Open.GoingBack() {
			r, err := install.Resume(ctx, args[0], nil, o)
			if err != nil {
				return err
			}
			// As the rollback or uninstall does that it goes on with.
			if r != nil && r.Outcome == ledger.OutcomeDone {
				dir, err := a.siteDir(f.trust.state)
				if err != nil {
					return err
				}
				if _, err := a.keepReceipt(ctx, dir, r); err != nil {
					return err
				}
			}
			return a.after(cmd, o.Ledger, args[0], r)
		}
	}
	t, err := a.trusting(cmd, &f.trust)
	if err != nil {
		return err
	}
	// What others have accepted since it was begun counts, too.
	if err := a.catchUp(ctx, t, o.Ledger, true); err != nil {
		return err
	}
	b, done, err := a.open(cmd, args, t.policy)
	if err != nil {
		return err
	}
	defer done(&err)
	a.warn([]*verify.Bundle{b})
	accept, err := a.acceptOptions(t, "resume", "")
	if err != nil {
		return err
	}
	name := b.Manifest().Name
	releases, err := a.begun(cmd, b, o.Ledger, cluster)
	if err != nil {
		return err
	}
	r, err := install.Resume(ctx, name, releases, o)
	if err != nil {
		return err
	}
	if r == nil {
		if _, err := install.Begun(ctx, []*verify.Bundle{b}, accept); err != nil {
			return fmt.Errorf("it was gone on with, but that could not be recorded: %w", err)
		}
	}
	if r != nil && r.Outcome == ledger.OutcomeDone {
		if _, err := install.Accept(ctx, []*verify.Bundle{b}, accept); err != nil {
			return fmt.Errorf("all was done, but could not be recorded: %w", err)
		}
		if _, err := a.keepReceipt(ctx, accept.Dir, r); err != nil {
			return err
		}
	}
	return a.after(cmd, o.Ledger, name, r)
}

type revertFlags struct {
	clusterFlags
	overNoReturn bool
}

func (a *app) revertCommand() *cobra.Command {
	var f revertFlags
	c := &cobra.Command{
		Use:   "revert [NAME]",
		Short: "Take back an install that was interrupted, is held, or stopped at a hold point",
		Long: `Take back all that the open transaction of a bundle has changed, last change first: releases
go back to the revisions that were recorded before, those that were installed first are
uninstalled, custom resource definitions get their former content, and where a backup was made
the restore Jobs run. Claims, volumes, namespaces and custom resource definitions are never
deleted. The bundle is not needed. Without NAME, it is the only one that the cluster knows.

Behind a point of no return there is no way back: with --over-no-return the releases go back
to their revisions all the same, and whether their data fits them is for you to know.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.revert(cmd, args, &f) },
	}
	f.addChange(c)
	c.Flags().BoolVar(&f.overNoReturn, "over-no-return", false, "go back behind a point of no return: data may not fit the former version")
	onlyFlag(c.Flags(), "over-no-return")
	return c
}

func (a *app) revert(cmd *cobra.Command, args []string, f *revertFlags) error {
	if err := f.check(cmd); err != nil {
		return err
	}
	cluster, err := a.connect(&f.clusterFlags)
	if err != nil {
		return err
	}
	o := a.transact(&f.clusterFlags, cluster)
	o.OverNoReturn = f.overNoReturn
	name, err := a.oneBundle(cmd, o.Ledger, firstOf(args))
	if err != nil {
		return err
	}
	r, err := install.Revert(cmd.Context(), name, o)
	if err != nil {
		return err
	}
	return a.after(cmd, o.Ledger, name, r)
}

type rollbackFlags struct {
	clusterFlags
	access             accessFlags
	trust              trustFlags
	bundle             string
	manualDone, dryRun bool
	withoutRegistry    bool
}

func (a *app) rollbackCommand() *cobra.Command {
	var f rollbackFlags
	c := &cobra.Command{
		Use:   "rollback [VERSION]",
		Short: "Go back to a version that was installed before",
		Long: `Go back to a version of a bundle that was installed in this cluster before, the one before the
present without VERSION, by the revisions that were recorded then. All of it is checked before
anything is touched: that the revisions are still there and are what was recorded, that the
registry still has the images, that the version was not revoked, and what the vendor says of
each release that is installed now (rollback: safe, manual or forbidden).

It is a transaction like an install: when a release fails, or on Ctrl-C, all goes back to what
is there now. Data stays as it is; the bundle is not needed.

` + accessHelp,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.rollback(cmd, args, &f) },
	}
	f.addChange(c)
	f.access.add(c)
	stateFlag(c, &f.trust.state)
	c.Flags().StringVar(&f.bundle, "bundle", "", "name of the bundle, where the cluster has several")
	c.Flags().BoolVar(&f.manualDone, "manual-done", false, "what the vendor demands by hand before a way back has been done")
	c.Flags().BoolVar(&f.withoutRegistry, "without-registry", false, "do not look whether the registry still has the images: the nodes have them")
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "change nothing; say what would be done")
	for _, name := range []string{"manual-done", "without-registry", "dry-run"} {
		onlyFlag(c.Flags(), name)
	}
	return c
}

func (a *app) rollback(cmd *cobra.Command, args []string, f *rollbackFlags) error {
	ctx := cmd.Context()
	if err := f.check(cmd); err != nil {
		return err
	}
	cluster, err := a.connect(&f.clusterFlags)
	if err != nil {
		return err
	}
	o := a.transact(&f.clusterFlags, cluster)
	name, err := a.oneBundle(cmd, o.Ledger, f.bundle)
	if err != nil {
		return err
	}
	s, _, err := o.Ledger.Read(ctx, name)
	if err != nil {
		return err
	}
	ro := install.RollbackOptions{Version: firstOf(args), ManualDone: f.manualDone, DryRun: f.dryRun}
	if s != nil && s.Installed != nil && s.Installed.Registry != "" && !f.withoutRegistry {
		t, err := install.ParseTarget(s.Installed.Registry)
		if err != nil {
			return err
		}
		if ro.Client, err = f.access.client(a, cmd, "registry", t.Registry); err != nil {
			return err
		}
	}
	dir, revoked, err := a.revocations(cmd, &f.trust, s)
	if err != nil {
		return err
	}
	ro.Revoked = revoked
	r, err := install.Rollback(ctx, name, ro, o)
	if err != nil {
		return err
	}
	if f.dryRun {
		return a.print(&changed{Bundle: name, Condition: s.Condition(), DryRun: true, Receipt: r}, func(w io.Writer) {
			fmt.Fprintf(w, "would go back from %s %s to %s; nothing has been changed\n", name, r.Replaces, r.Version)
			writeReleases(w, r)
		})
	}
	if _, err := a.keepReceipt(ctx, dir, r); err != nil {
		return err
	}
	return a.after(cmd, o.Ledger, name, r)
}

type uninstallFlags struct {
	clusterFlags
	trust  trustFlags
	dryRun bool
}

func (a *app) uninstallCommand() *cobra.Command {
	var f uninstallFlags
	c := &cobra.Command{
		Use:   "uninstall NAME",
		Short: "Remove the releases of a bundle, and keep its data",
		Long: `Uninstall all releases of a bundle, those that others depend on last. Claims, volumes,
namespaces and custom resource definitions stay, and are listed; so do the images in the
registry ('sealift prune') and what is known about the bundle, its receipts among it.

What the site has accepted is not forgotten: an older version is refused as before.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.uninstall(cmd, args, &f) },
	}
	f.addChange(c)
	stateFlag(c, &f.trust.state)
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "change nothing; say what would be removed and what would stay")
	onlyFlag(c.Flags(), "dry-run")
	return c
}

func (a *app) uninstall(cmd *cobra.Command, args []string, f *uninstallFlags) error {
	ctx := cmd.Context()
	if err := f.check(cmd); err != nil {
		return err
	}
	cluster, err := a.connect(&f.clusterFlags)
	if err != nil {
		return err
	}
	o := a.transact(&f.clusterFlags, cluster)
	name, err := a.oneBundle(cmd, o.Ledger, args[0])
	if err != nil {
		return err
	}
	r, err := install.Uninstall(ctx, name, f.dryRun, o)
	if err != nil {
		return err
	}
	if f.dryRun {
		return a.print(&changed{Bundle: name, Condition: ledger.ConditionInstalled, DryRun: true, Receipt: r}, func(w io.Writer) {
			fmt.Fprintf(w, "would uninstall %s %s; nothing has been changed\n", name, r.Version)
			writeReleases(w, r)
		})
	}
	dir, err := a.siteDir(f.trust.state)
	if err != nil {
		return err
	}
	if _, err := a.keepReceipt(ctx, dir, r); err != nil {
		return err
	}
	return a.after(cmd, o.Ledger, name, r)
}

// begun makes the releases of a transaction that was begun, as they were then.
func (a *app) begun(cmd *cobra.Command, b *verify.Bundle, l *release.Ledger, cluster *release.Cluster) ([]*install.Release, error) {
	ctx, m := cmd.Context(), b.Manifest()
	s, _, err := l.Read(ctx, m.Name)
	if err != nil {
		return nil, err
	}
	if s == nil || s.Open == nil {
		return nil, &NoBundleError{Name: m.Name, Namespace: l.Namespace()}
	}
	r := &s.Open.Receipt
	place := install.Site{}
	if r.Values != "" {
		raw, err := l.ReadValues(ctx, m.Name, r.Values)
		if err != nil {
			return nil, err
		}
		if place, err = install.ReadKept(raw); err != nil {
			return nil, err
		}
	}
	if place.Target, err = install.ReadTarget(s.Open.Options.Target); err != nil {
		return nil, err
	}
	if place.Rendering, err = install.ReadRendering(s.Open.Options.Rendering); err != nil {
		return nil, err
	}
	// Without a registry the nodes have the vendor's names.
	place.Rendering.NoRewrite = place.Rendering.NoRewrite || place.Target.Registry == ""
	a.hideParameters(m, place.Texts())
	a.secrets.add(place.SecretTexts()...)
	if place.Rendering.Autoscaled, err = autoscaled(ctx, cluster, b); err != nil {
		return nil, err
	}
	if place, err = place.ReadSecrets(ctx, cluster, a.hideRead(m)); err != nil {
		return nil, err
	}
	var images []install.SeededImage
	for _, img := range r.Images {
		images = append(images, install.SeededImage{Source: img.Source, Target: img.Target, Digest: img.Digest})
	}
	return install.Releases(b, images, place)
}

// hintRecover is about transactions that are open, and ways back that are not there.
func hintRecover(err error) string {
	var (
		none     *NoBundleError
		open     *install.InterruptedError
		noReturn *install.NoReturnError
		failed   *install.FailedError
		claimed  *install.ClaimedError
		vendor   *install.NoRollbackError
		lost     *install.LostRevisionError
		other    *install.OtherBundleError
	)
	switch {
	case errors.As(err, &none) && len(none.Known) > 0:
		return "it knows of " + strings.Join(none.Known, ", ") + "; --record-namespace names another place"
	case errors.As(err, &none):
		return "'sealift install' makes one; --record-namespace and --kubeconfig say where to look"
	case errors.As(err, &failed) && failed.Held != "":
		return "'sealift status' says where it stands; put right what has failed, then 'sealift resume BUNDLE' goes on, and 'sealift revert' goes back where there is a way back"
	case errors.As(err, &open) && open.Condition == ledger.ConditionStaged:
		return fmt.Sprintf("'sealift promote %s' goes on, 'sealift abort %s' goes back", open.Bundle, open.Bundle)
	case errors.As(err, &open):
		return fmt.Sprintf("'sealift resume BUNDLE' goes on, 'sealift revert %s' goes back; 'sealift status %s' says where it stands", open.Bundle, open.Bundle)
	case errors.As(err, &noReturn) && noReturn.Passed:
		return "'sealift resume BUNDLE' goes on; with --over-no-return 'sealift revert' goes back all the same, and whether the data fits the former version is for you to know"
	case errors.As(err, &noReturn):
		return "make a backup, name it with --backup-done, and say --accept-no-return; or ask the vendor whether the chart can say rollback: safe"
	case errors.As(err, &claimed):
		return fmt.Sprintf("install under another release name, or 'sealift uninstall %s' first", claimed.Other)
	case errors.As(err, &vendor) && vendor.Manual:
		return "do what the vendor's notes say ('sealift inspect BUNDLE'), then say --manual-done"
	case errors.As(err, &vendor):
		return "the vendor has to provide a version to go forward to"
	case errors.As(err, &lost):
		return "install the bundle of that version again, with --allow-downgrade --reason TEXT"
	case is[*install.GoneImagesError](err):
		return "seed the bundle of that version again; --without-registry goes on where the nodes have the images"
	case is[*install.NoVersionError](err):
		return "'sealift history' lists what was installed"
	case is[*install.NothingOpenError](err):
		return "there is nothing to go on with, or to take back: 'sealift status' says what is installed, 'sealift rollback' goes back to a version before"
	case errors.As(err, &other):
		return "name the bundle of version " + other.Version
	case is[*install.UntilError](err):
		return "write RELEASE or NAMESPACE/RELEASE"
	case is[*install.OtherClusterError](err):
		return "is --context the one that you mean? The records may have been copied from another cluster"
	}
	return ""
}
