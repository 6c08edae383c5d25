package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/install"
	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/internal/ledger"
	"github.com/sealift/sealift/internal/release"
	"github.com/sealift/sealift/internal/site"
	"github.com/sealift/sealift/manifest"
)

// rolloutFlags are what installs are asked about new versions that stand beside their former ones.
type rolloutFlags struct {
	promote bool
}

func (f *rolloutFlags) add(c *cobra.Command) {
	c.Flags().BoolVar(&f.promote, "promote", false, "lead users to the new version as soon as all checks have passed, instead of waiting for 'sealift promote'")
}

// rounds are how far an install goes by itself.
func (f *rolloutFlags) rounds() int {
	if f.promote {
		return install.AllRounds
	}
	return 0
}

func (a *app) promoteCommand() *cobra.Command {
	var f clusterFlags
	var all, retire bool
	var state string
	c := &cobra.Command{
		Use:   "promote [NAME]",
		Short: "Lead users to a new version that waits beside the old one",
		Long: `Lead users to a new version that 'sealift install' has put beside the old one, where the vendor
of the bundle has declared a rollout. NAME is that of the bundle; it may be left out where only one waits.

A blue/green rollout is switched at once, all fronts of the bundle one after the other. A canary goes on by one share
each time, and the last time to the new version for good; --all does that at once. When something
fails, users are led back and all is changed back, as with 'sealift abort'.

The old version stays as it is, so that 'sealift rollback' is a switch back, until the next install uses its place.
--retire uninstalls it now; what holds data stays.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.promote(cmd, args, &f, all, retire, state) },
	}
	f.addChange(c)
	stateFlag(c, &state)
	c.Flags().BoolVar(&all, "all", false, "go on to the end, without the shares in between")
	c.Flags().BoolVar(&retire, "retire", false, "uninstall the former version that 'sealift rollback' could switch back to")
	return c
}

func (a *app) abortCommand() *cobra.Command {
	var f clusterFlags
	c := &cobra.Command{
		Use:   "abort [NAME]",
		Short: "Give up a new version that waits beside the old one",
		Long: `Give up a new version that 'sealift install' has put beside the old one: users who were led to it are led to the
old one first, then all that the install has changed is changed back. What holds data stays.
NAME is that of the bundle; it may be left out where only one waits.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.abort(cmd, args, &f) },
	}
	f.addChange(c)
	return c
}

// promoteResult is what 'promote' prints.
type promoteResult struct {
	Bundle string `json:"bundle"`
	// Version that users are led to, at least some of them.
	Version string `json:"version,omitempty"`
	// Fronts are where they lead by now.
	Fronts []promotedFront `json:"fronts"`
	// Waiting is what is left to be promoted.
	Waiting *install.Staging `json:"waiting,omitempty"`
	// Retired are the former versions that were uninstalled, as "NAMESPACE/NAME".
	Retired []string `json:"retired,omitempty"`
	// Receipt is there once all is promoted, Journal the end of this machine's journal then.
	Receipt *ledger.Receipt `json:"receipt,omitempty"`
	Journal *site.Head      `json:"journal,omitempty"`
}

type promotedFront struct {
	Namespace string `json:"namespace"`
	Release   string `json:"release"`
	ledger.Front
}

// oneBundle is the bundle that a command means: the one that is named, or the only one of which is says yes.
func oneBundle(ctx context.Context, door *release.Ledger, args []string, is func(*ledger.State) bool) (string, error) {
	if len(args) > 0 {
		return args[0], nil
	}
	all, err := door.Bundles(ctx)
	if err != nil {
		return "", err
	}
	var found []string
	for _, name := range all {
		state, _, err := door.Read(ctx, name)
		if err != nil {
			return "", err
		}
		if state != nil && is(state) {
			found = append(found, name)
		}
	}
	if len(found) == 1 {
		return found[0], nil
	}
	return "", &whichError{Found: found, Known: all}
}

// whichError says that it is not clear which bundle a command means.
type whichError struct {
	// Found are those that it could mean, Known all.
	Found, Known []string
}

func (e *whichError) Error() string {
	switch {
	case len(e.Known) == 0:
		return "no bundle is recorded in this cluster"
	case len(e.Found) == 0:
		return fmt.Sprintf("nothing waits for this command in any of the bundles of this cluster (%s)", strings.Join(e.Known, ", "))
	}
	return fmt.Sprintf("it could mean several bundles: %s", strings.Join(e.Found, ", "))
}

func (a *app) promote(cmd *cobra.Command, args []string, f *clusterFlags, all, retire bool, stateDir string) error {
	ctx := cmd.Context()
	if err := f.check(cmd); err != nil {
		return err
	}
	if retire && all {
		return &usageError{errors.New("--all promotes, and --retire removes what was there before: promote first, look, and then retire"), cmd.CommandPath()}
	}
	cluster, err := a.connect(f)
	if err != nil {
		return err
	}
	o := a.transact(f, cluster)
	name, err := oneBundle(ctx, o.Ledger, args, func(s *ledger.State) bool {
		return retire && hasSpare(s) || !retire && install.StagingOf(s) != nil
	})
	if err != nil {
		return err
	}
	r := &promoteResult{Bundle: name, Fronts: []promotedFront{}}
	if retire {
		if r.Retired, err = install.Retire(ctx, name, o); err != nil {
			return err
		}
	} else if r.Receipt, err = install.Promote(ctx, name, all, o); err != nil {
		return err
	}
	state, _, err := o.Ledger.Read(ctx, name)
	if err != nil {
		return err
	}
	r.fill(state)
	if r.Receipt != nil {
		if r.Journal, err = a.promoted(ctx, stateDir, name, state, r.Receipt); err != nil {
			return err
		}
	}
	return a.print(r, r.write)
}

// promoted records on this machine what a promotion that has ended means, as an install does: the accepted version, which the cluster
// has, and the receipt. It returns the end of the journal.
func (a *app) promoted(ctx context.Context, stateDir, name string, state *ledger.State, receipt *ledger.Receipt) (*site.Head, error) {
	dir, err := a.siteDir(stateDir)
	if err != nil {
		return nil, fmt.Errorf("all was done, and is recorded in the cluster, but not on this machine: %w", err)
	}
	if receipt.Outcome == ledger.OutcomeDone {
		if err := install.CatchUp(ctx, dir, name, state, a.env.Now()); err != nil {
			return nil, fmt.Errorf("all was done, but could not be recorded: %w", err)
		}
	}
	head, err := a.keepReceipt(ctx, dir, receipt)
	return &head, err
}

func hasSpare(s *ledger.State) bool {
	if s.Installed == nil || s.Open != nil {
		return false
	}
	for i := range s.Installed.Releases {
		if f := s.Installed.Releases[i].Front; f != nil && f.Spare != "" {
			return true
		}
	}
	return false
}

// fill says where users are led by now.
func (r *promoteResult) fill(state *ledger.State) {
	if r.Waiting = install.StagingOf(state); r.Waiting != nil {
		r.Version = r.Waiting.Version
		for _, f := range r.Waiting.Fronts {
			if f.Now != nil {
				r.Fronts = append(r.Fronts, promotedFront{f.Namespace, f.Release, *f.Now})
			}
		}
		return
	}
	if state == nil || state.Installed == nil {
		return
	}
	r.Version = state.Installed.Version
	for i := range state.Installed.Releases {
		if x := &state.Installed.Releases[i]; x.Front != nil {
			r.Fronts = append(r.Fronts, promotedFront{x.Namespace, x.Name, *x.Front})
		}
	}
}

func (r *promoteResult) write(w io.Writer) {
	for _, name := range r.Retired {
		fmt.Fprintf(w, "uninstalled %s; what holds data stayed\n", name)
	}
	if len(r.Retired) == 0 {
		fmt.Fprintf(w, "%s %s\n", r.Bundle, r.Version)
	}
	for i := range r.Fronts {
		f := &r.Fronts[i]
		fmt.Fprintf(w, "  %s %s/%s leads to %s\n", f.Kind, f.Namespace, f.Name, describeFront(&f.Front))
	}
	if r.Waiting != nil {
		writeStaging(w, r.Waiting)
	} else if len(r.Retired) == 0 {
		fmt.Fprintln(w, "the former version stays for 'sealift rollback'; 'sealift promote --retire' uninstalls it")
	}
	writeHead(w, r.Journal)
}

// describeFront says where a front leads, and which share of users really goes where.
func describeFront(f *ledger.Front) string {
	if f.Also == "" {
		return f.To
	}
	share := fmt.Sprintf("%d %%", f.Share)
	if all := f.OldPods + f.NewPods; f.Kind == manifest.FrontService && all > 0 {
		share = fmt.Sprintf("%.0f %%: %s of %d (%d %% was wanted)", 100*float64(f.NewPods)/float64(all), count(f.NewPods, "pod"), all, f.Share)
	}
	return fmt.Sprintf("%s, and to %s for %s", f.To, f.Also, share)
}

// writeStaging says what waits, and how to go on. Installs that end there print it, too.
func writeStaging(w io.Writer, s *install.Staging) {
	fmt.Fprintf(w, "%s %s waits beside the version that users are led to (step %d of %d is next)\n", s.Bundle, s.Version, s.Round, s.Rounds)
	for i := range s.Fronts {
		f := &s.Fronts[i]
		if f.Next != nil {
			fmt.Fprintf(w, "  next: %s %s/%s leads to %s\n", f.Kind, f.Namespace, f.Name, describeFront(f.Next))
		}
	}
	fmt.Fprintf(w, "'sealift promote %s' leads users on, 'sealift abort %s' gives it up\n", s.Bundle, s.Bundle)
}

type abortResult struct {
	Bundle string `json:"bundle"`
	// Version that was given up, Installed the one that users are led to; empty for none.
	Version   string   `json:"version"`
	Installed string   `json:"installed,omitempty"`
	Kept      []string `json:"kept"`
}

func (a *app) abort(cmd *cobra.Command, args []string, f *clusterFlags) error {
	ctx := cmd.Context()
	if err := f.check(cmd); err != nil {
		return err
	}
	cluster, err := a.connect(f)
	if err != nil {
		return err
	}
	o := a.transact(f, cluster)
	name, err := oneBundle(ctx, o.Ledger, args, func(s *ledger.State) bool { return install.StagingOf(s) != nil })
	if err != nil {
		return err
	}
	receipt, err := install.Abort(ctx, name, o)
	if err != nil {
		return err
	}
	r := &abortResult{Bundle: name, Kept: []string{}}
	if receipt != nil {
		r.Version, r.Installed = receipt.Version, receipt.Replaces
		r.Kept = append(r.Kept, receipt.Kept...)
	}
	return a.print(r, func(w io.Writer) {
		fmt.Fprintf(w, "%s %s was given up", r.Bundle, r.Version)
		if r.Installed != "" {
			fmt.Fprintf(w, "; %s is as it was", r.Installed)
		}
		fmt.Fprintln(w)
		for _, k := range r.Kept {
			fmt.Fprintf(w, "  kept  %s\n", k)
		}
	})
}

// hintRollout is about what these commands meet.
func hintRollout(err error) string {
	var staged *install.NotStagedError
	var missing *release.FrontMissingError
	var which *whichError
	switch {
	case is[*chart.NotEligibleError](err):
		return "the vendor has to change the chart, or leave rollout: out so that it is upgraded in place; docs/rollout.md says what stands in the way of two versions side by side"
	case is[*install.FrontChangedError](err):
		return "the vendor has to keep kind and name of the front from one version to the next; where that cannot be, 'sealift uninstall' first, which interrupts users"
	case is[*release.FrontTakenError](err):
		return "the front is made by Sealift and belongs to no chart: whatever has that name now has to go, or the vendor has to choose another name"
	case errors.As(err, &missing) && missing.There:
		return "one of its rules has to have no backendRefs, or one to a Service of the release: that is the rule that is switched"
	case missing != nil:
		return "this bundle leaves it to the site to make the HTTPRoute, with its gateway and host names; docs/rollout.md has an example"
	case is[*release.ForeignPodsError](err):
		return "other pods have the labels by which both versions are found; nothing was switched"
	case is[*release.NoEndpointsError](err):
		return "not enough pods of the version are ready to be led to: look at their Deployment, and whether the nodes have room for both versions"
	case errors.As(err, &staged):
		return "'sealift status' says how the bundle stands; 'sealift resume' and 'sealift revert' are for an install that was interrupted, 'sealift rollback' for one that is done"
	case errors.As(err, &which) && len(which.Found) > 1:
		return "name the bundle"
	}
	return ""
}
