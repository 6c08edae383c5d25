package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/install"
	"github.com/sealift/sealift/internal/ledger"
	"github.com/sealift/sealift/internal/release"
	"github.com/sealift/sealift/internal/site"
	"github.com/sealift/sealift/verify"
)

// runFlags say how an install is carried out.
type runFlags struct {
	rolloutFlags
	plan, until, backupDone string
	takeOver, adopt         bool
	acceptNoReturn          bool
	parallel                int
}

// defaultParallel is how many releases are changed at the same time.
const defaultParallel = 4

func (f *runFlags) add(c *cobra.Command) {
	f.rolloutFlags.add(c)
	fs := c.Flags()
	fs.StringVar(&f.plan, "plan", "", "install exactly what this plan says (a file that 'sealift plan -o' has written), or nothing")
	fs.StringVar(&f.until, "until", "", "stop after this release, RELEASE or NAMESPACE/RELEASE, and go on later with 'sealift resume'")
	fs.BoolVar(&f.takeOver, "take-over", false, "take fields that somebody else has set, which preflight names")
	fs.BoolVar(&f.adopt, "adopt", false, "take over releases and objects that somebody else has installed")
	fs.BoolVar(&f.acceptNoReturn, "accept-no-return", false, "pass points behind which there is no way back, which the plan names")
	fs.StringVar(&f.backupDone, "backup-done", "", "where a backup was put that was made before; goes into the receipt")
	fs.IntVar(&f.parallel, "parallel", defaultParallel, "releases to change at the same time, where none depends on the other")
	for _, name := range []string{"plan", "until", "take-over", "adopt", "accept-no-return", "backup-done"} {
		onlyFlag(fs, name)
	}
}

func (f *runFlags) check(cmd *cobra.Command) error {
	if f.parallel < 1 || f.parallel > 64 {
		return &usageError{fmt.Errorf("--parallel %d is not from 1 to 64", f.parallel), cmd.CommandPath()}
	}
	if len(f.backupDone) > maxReason {
		return &usageError{errors.New("--backup-done is longer than 1024 bytes"), cmd.CommandPath()}
	}
	return nil
}

// followed reads the plan that is to be followed, and compares it with what would be done now; "" where none is.
func (p *installing) followed(f *installFlags) (digest string, err error) {
	if f.run.plan == "" {
		return "", nil
	}
	raw, err := readBounded("plan", f.run.plan, install.MaxPlanBytes)
	if err != nil {
		return "", err
	}
	plan, err := install.ReadPlan(raw)
	if err != nil {
		return "", fmt.Errorf("plan %q: %w", f.run.plan, err)
	}
	if err := plan.Matches(p.plan); err != nil {
		return "", &install.PreflightError{Err: err}
	}
	return plan.Digest()
}

// warned looks whether the cluster could take the releases, before anything is changed. What may go wrong is a warning.
func (p *installing) warned(ctx context.Context, a *app, f *installFlags) error {
	if p.cluster == nil {
		return nil
	}
	in := a.preflightInput(p)
	in.TakeOver, in.Adopt, in.Test = f.run.takeOver, f.run.adopt, f.test
	report, err := install.Preflight(ctx, in)
	if err != nil {
		return err
	}
	var lines []string
	for i := range report.Findings {
		if x := &report.Findings[i]; x.Level == install.LevelWarn {
			lines = append(lines, findingLine(x))
		}
	}
	a.warnings(lines)
	if err := report.Err(); err != nil {
		return err
	}
	return install.CheckNoReturn(p.plan, f.run.acceptNoReturn)
}

// findingLine is a finding in one line.
func findingLine(f *install.Finding) string {
	line := f.Check + ": " + f.Text
	if f.Object != "" {
		line = f.Check + ": " + f.Object + ": " + f.Text
	}
	if f.Advice != "" {
		line += " (" + f.Advice + ")"
	}
	return line
}

// carryOut changes the cluster, now that the images are there, and records what became of it.
func (p *installing) carryOut(cmd *cobra.Command, a *app, f *installFlags, images []install.SeededImage, plan string, r *installResult) error {
	ctx := cmd.Context()
	if p.cluster == nil {
		return p.accepted(ctx, r)
	}
	uid, err := p.cluster.UID(ctx)
	if err != nil {
		return err
	}
	version, err := p.cluster.Version(ctx)
	if err != nil {
		return err
	}
	said, err := p.site.Keep()
	if err != nil {
		return err
	}
	var noReturn []string
	for i := range p.plan.Releases {
		noReturn = append(noReturn, p.plan.Releases[i].NoReturn...)
	}
	head := p.trust.record.Journal
	change := install.Change{
		Receipt: install.NewReceipt(install.ReceiptInput{
			Bundle: p.bundle, Accept: p.accept, Images: images, Registry: p.site.Target.String(), Parameters: p.parameters,
			Environment: p.site.Chosen(), Plan: plan, BackupDone: f.run.backupDone, NoReturn: noReturn,
			Cluster: uid, Kubernetes: version, By: a.by(), Tool: a.tool(), Journal: head,
		}),
		Releases: p.releases, Plan: p.plan, Said: said,
		Options: ledger.Options{
			TimeoutSeconds: int(f.timeout.Seconds()), Test: f.test, TakeOver: f.run.takeOver, Adopt: f.run.adopt,
			AcceptNoReturn: f.run.acceptNoReturn, RemoveDropped: f.removeDropped,
			Target: p.site.Target.Words(), Rendering: p.site.Rendering.Words(),
		},
	}
	o := a.transact(&f.clusterFlags, p.cluster)
	if err := p.unchanged(ctx, o, plan != ""); err != nil {
		return err
	}
	o.Parallel, o.Until, o.Rounds = f.run.parallel, f.run.until, f.run.rounds()
	receipt, err := install.Transact(ctx, change, o)
	if err != nil {
		return err
	}
	if receipt == nil {
		if _, err := install.Begun(ctx, []*verify.Bundle{p.bundle}, p.accept); err != nil {
			return fmt.Errorf("it was begun, but that could not be recorded: %w", err)
		}
		r.State, _, err = p.ledger.Read(ctx, p.bundle.Manifest().Name)
		return err
	}
	r.Receipt = receipt
	r.done(p.plan)
	if err := p.accepted(ctx, r); err != nil {
		return err
	}
	return p.keep(ctx, a, receipt, r)
}

// unchanged sees that nobody has changed the bundle in the cluster since it was planned: seeding may take hours.
func (p *installing) unchanged(ctx context.Context, o install.TransactOptions, followed bool) error {
	name := p.bundle.Manifest().Name
	if err := install.CheckOpen(ctx, name, o); err != nil {
		return err
	}
	s, _, err := p.ledger.Read(ctx, name)
	if err != nil {
		return err
	}
	serial := int64(0)
	if s != nil {
		serial = s.Serial
	}
	if serial == p.plan.Serial {
		return nil
	}
	if !followed {
		return &release.BusyError{Bundle: name, Namespace: p.ledger.Namespace()}
	}
	return &install.PreflightError{Err: &install.PlanChangedError{Differences: []install.PlanDifference{
		{What: "changes of the bundle's state", Was: fmt.Sprint(p.plan.Serial), Is: fmt.Sprint(serial)},
	}}}
}

// accepted records that the bundle is in use at the site.
func (p *installing) accepted(ctx context.Context, r *installResult) error {
	head, err := install.Accept(ctx, []*verify.Bundle{p.bundle}, p.accept)
	if err != nil {
		return fmt.Errorf("all was done, but could not be recorded: %w", err)
	}
	r.Journal = &head
	return nil
}

// keep keeps the receipt in the state directory.
func (p *installing) keep(ctx context.Context, a *app, receipt *ledger.Receipt, r *installResult) error {
	head, err := a.keepReceipt(ctx, p.accept.Dir, receipt)
	if err != nil {
		return err
	}
	r.Journal = &head
	return nil
}

// keepReceipt keeps a receipt in the state directory of this machine, and returns the journal's end.
func (a *app) keepReceipt(ctx context.Context, dir *site.Dir, r *ledger.Receipt) (site.Head, error) {
	head, err := install.KeepReceipt(ctx, dir, r, a.env.Now())
	if err != nil {
		return head, fmt.Errorf("all was done, and is recorded in the cluster, but not on this machine: %w", err)
	}
	return head, nil
}

// tool is the version of this program.
func (a *app) tool() string { return version }

// verb is what was done.
func (r *installResult) verb() string {
	if r.State != nil {
		return "installing"
	}
	return "installed"
}

// done notes what became of each release.
func (r *installResult) done(plan *install.Plan) {
	for i := range r.Receipt.Releases {
		l := &r.Receipt.Releases[i]
		x := installed{Release: l.Helm(), Namespace: l.Namespace, Revision: l.Revision, Action: "keep"}
		for j := range plan.Releases {
			if p := &plan.Releases[j]; p.Key() == l.Key() {
				if x.Action = p.Action; p.From != nil && p.From.Revision != l.Revision {
					x.From = p.From.Revision
				}
			}
		}
		r.Releases = append(r.Releases, x)
	}
}

// writeChanged says what became of the releases, and how an install that has stopped goes on.
func writeChanged(w io.Writer, r *installResult) {
	for _, x := range r.Releases {
		from := ""
		if x.From > 0 {
			from = fmt.Sprintf(" (was %d)", x.From)
		}
		fmt.Fprintf(w, "  %-7s  release %s/%s, revision %d%s\n", x.Action, x.Namespace, x.Release, x.Revision, from)
	}
	if r.Receipt != nil {
		writeChecked(w, r.Receipt)
	}
	if r.State != nil {
		if staging := install.StagingOf(r.State); staging != nil {
			writeStaging(w, staging)
		} else {
			writeOpen(w, r.State)
		}
	}
	writeHead(w, r.Journal)
}
