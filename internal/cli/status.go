package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/install"
	"github.com/sealift/sealift/internal/ledger"
	"github.com/sealift/sealift/internal/release"
	"github.com/sealift/sealift/internal/site"
)

// recordFlags are those of commands that look at what a cluster and this machine have recorded.
type recordFlags struct {
	clusterFlags
	state string
}

func (f *recordFlags) add(c *cobra.Command) {
	f.clusterFlags.add(c)
	stateFlag(c, &f.state)
}

// ledger connects to the records of the cluster.
func (f *recordFlags) ledger(a *app, cmd *cobra.Command) (*release.Cluster, *release.Ledger, error) {
	if err := f.check(cmd); err != nil {
		return nil, nil, err
	}
	cluster, err := a.connect(&f.clusterFlags)
	if err != nil {
		return nil, nil, err
	}
	return cluster, cluster.Ledger(f.records), nil
}

// record is what the site has accepted, as this machine knows it; nil where it cannot be read, which is no reason to be silent about
// the cluster.
func (f *recordFlags) record(ctx context.Context, a *app) *site.Record {
	dir, err := a.siteDir(f.state)
	if err != nil {
		return nil
	}
	record, err := dir.Read(ctx)
	if err != nil {
		a.warnings([]string{fmt.Sprintf("what this machine has recorded is left out: %v", err)})
		return nil
	}
	return record
}

// stateOf reads the state of one bundle, that of the only one where none is named.
func (f *recordFlags) stateOf(a *app, cmd *cobra.Command, l *release.Ledger, args []string) (*ledger.State, error) {
	name, err := a.oneBundle(cmd, l, firstOf(args))
	if err != nil {
		return nil, err
	}
	s, _, err := l.Read(cmd.Context(), name)
	if err == nil && s == nil {
		err = &NoBundleError{Name: name, Namespace: l.Namespace()}
	}
	return s, err
}

func (a *app) statusCommand() *cobra.Command {
	var f recordFlags
	c := &cobra.Command{
		Use:   "status [NAME]",
		Short: "Say what is installed, and how it is",
		Long: `Say of all bundles of the cluster, or of one: whether it is installed, or in the middle of a
change, with the commands that go on and back from there; which version, since when, by whom,
how old it is and when it expires; whether its objects are still as they were installed, field
by field and with who changed them; whether they are healthy; and whether what runs is what
the bundle has, by the digests that the nodes report.

Nothing is changed. The rights to read are enough; what may not be read is said. With the
right to patch, the cluster is asked what installing again would change (a dry run), else the
recorded fields are compared.

For monitoring: the exit status is 0 where all that is installed is well, 21 where it is not,
or nothing is installed, and 23 where a change has not been finished.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.status(cmd, args, &f) },
	}
	f.add(c)
	return c
}

// statusTimeout bounds how long one bundle is looked at.
const statusTimeout = 10 * time.Minute

func (a *app) status(cmd *cobra.Command, args []string, f *recordFlags) error {
	ctx := cmd.Context()
	cluster, l, err := f.ledger(a, cmd)
	if err != nil {
		return err
	}
	names := args
	if len(args) == 0 {
		if names, err = l.Bundles(ctx); err != nil {
			return err
		}
	}
	record := f.record(ctx, a)
	all := []*install.Status{}
	for _, name := range names {
		s, _, err := l.Read(ctx, name)
		if err != nil {
			return err
		}
		if s == nil {
			return &NoBundleError{Name: name, Namespace: l.Namespace()}
		}
		st, err := a.statusOf(ctx, s, cluster, l, record)
		if err != nil {
			return err
		}
		all = append(all, st)
	}
	if err := a.print(struct {
		Bundles []*install.Status `json:"bundles"`
	}{all}, func(w io.Writer) {
		for i, st := range all {
			if i > 0 {
				fmt.Fprintln(w)
			}
			writeStatus(w, st)
		}
	}); err != nil {
		return err
	}
	return install.JudgeStatus(all, len(args) > 0, l.Namespace())
}

func (a *app) statusOf(ctx context.Context, s *ledger.State, cluster *release.Cluster, l *release.Ledger, record *site.Record) (*install.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	return install.MakeStatus(ctx, s, install.StatusInput{Cluster: cluster, Ledger: l, Record: record, Now: a.env.Now()})
}

func writeStatus(w io.Writer, st *install.Status) {
	line := func(what, format string, v ...any) { fmt.Fprintf(w, "  %-9s  %s\n", what, fmt.Sprintf(format, v...)) }
	title, condition := st.Bundle, st.Condition
	if st.Installed != nil {
		title += " " + st.Installed.Version
	}
	if st.Condition == ledger.ConditionInstalled {
		condition += ", healthy"
		if !st.Healthy {
			condition = st.Condition + ", and NOT as it should be"
		}
	}
	if st.Open != nil && st.Open.Working {
		condition = "another install is at work"
	}
	fmt.Fprintf(w, "%s: %s\n", title, condition)
	if o := st.Open; o != nil {
		line("open", "%s of %s, begun on %s by %s", o.Action, o.Version, o.Begun, o.By)
		line("", "%d of %s done", o.Done, count(o.Steps, "step"))
		if o.At != "" {
			line("", "last: %s", o.At)
		}
		if o.Failure != "" {
			line("failed", "%s", strings.ReplaceAll(o.Failure, "\n", "\n             "))
		}
		for _, reason := range o.NoReturn {
			line("no return", "%s", reason)
		}
		switch {
		case o.Working:
			line("holder", "%s", o.Holder)
		case o.Holder != "":
			line("holder", "%s, not heard of lately", o.Holder)
		}
	}
	if i := st.Installed; i != nil {
		line("manifest", "%s", i.Manifest)
		line("since", "%s by %s", i.Since, i.By)
		expires := ""
		if i.Expires != "" {
			expires = ", expires on " + i.Expires
		}
		line("made", "%s, %s ago%s", i.Created, count(i.AgeDays, "day"), expires)
		line("receipt", "%s", i.Receipt)
	}
	for i := range st.Releases {
		r := &st.Releases[i]
		as := ""
		if r.As != "" && r.As != r.Release {
			as = " (as " + r.As + ")"
		}
		helm := r.Status
		if helm == "" {
			helm = "not there"
			if len(r.Unread) > 0 {
				helm = "not known"
			}
		}
		line("release", "%s/%s%s: %s %s, revision %d, %s; %s, %s, %s", r.Namespace, r.Release, as, r.Chart, r.Version, r.Revision, helm,
			count(r.Objects, "object"), count(r.Pods, "pod"), count(r.Restarts, "restart"))
		if f := r.Front; f != nil {
			line("front", "%s", install.FrontText(f))
		}
	}
	lines := st.Lines()
	for i, text := range lines[:min(len(lines), maxStatusLines)] {
		what := ""
		if i == 0 {
			what = "look at"
		}
		line(what, "%s", text)
	}
	if more := len(lines) - maxStatusLines; more > 0 {
		line("", "and %d more, see --output json", more)
	}
	if st.On != "" {
		line("on", "%s", st.On)
	}
	if st.Back != "" {
		line("back", "%s", st.Back)
	}
}

// maxStatusLines bounds what is said about one bundle.
const maxStatusLines = 100

func (a *app) historyCommand() *cobra.Command {
	var f recordFlags
	c := &cobra.Command{
		Use:   "history [NAME]",
		Short: "List what was installed",
		Long: `List the receipts that the cluster keeps of a bundle, newest first: installs, upgrades,
rollbacks, and attempts that were changed back, with what failed. 'sealift receipt --id' writes
one of them, and 'sealift rollback VERSION' goes back to one that succeeded.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, l, err := f.ledger(a, cmd)
			if err != nil {
				return err
			}
			s, err := f.stateOf(a, cmd, l, args)
			if err != nil {
				return err
			}
			r := struct {
				Bundle    string                 `json:"bundle"`
				Condition string                 `json:"condition"`
				Receipts  []install.HistoryEntry `json:"receipts"`
			}{s.Name, s.Condition(), install.History(s)}
			return a.print(r, func(w io.Writer) { writeHistory(w, r.Bundle, r.Condition, r.Receipts) })
		},
	}
	f.add(c)
	return c
}

func writeHistory(w io.Writer, bundle, condition string, list []install.HistoryEntry) {
	fmt.Fprintf(w, "%s: %s\n", bundle, condition)
	for i := range list {
		h := &list[i]
		when, now := h.Ended, ""
		if when == "" {
			when = h.Begun
		}
		if h.Installed {
			now = "  <- installed"
		}
		from := ""
		if h.Replaces != "" && h.Action != ledger.ActionUninstall {
			from = " (was " + h.Replaces + ")"
		}
		fmt.Fprintf(w, "  %s  %-9s  %s%s: %s, by %s%s\n", when, h.Action, h.Version, from, h.Outcome, h.By, now)
		fmt.Fprintf(w, "    %s\n", h.ID)
		if h.Failure != "" {
			fmt.Fprintf(w, "    %s\n", strings.ReplaceAll(h.Failure, "\n", "\n    "))
		}
	}
}

// hintStatus is about what these commands meet.
func hintStatus(err error) string {
	switch {
	case is[*install.UnfinishedError](err):
		return "the lines 'on' and 'back' say which commands go on from here"
	case is[*install.UnhealthyError](err):
		return "'sealift status --output json' has all that differs; 'sealift install' of the same bundle puts back what somebody has changed"
	case is[*install.NotInstalledError](err), is[*NoBundleError](err):
		return "records in another namespace are named with --record-namespace, another cluster with --context"
	}
	return ""
}

// catchUp takes over what the cluster knows to have been accepted by other machines of the site, so that t judges by it: into the
// record of this machine, or, where write is not set, in memory. It is called before a bundle is judged. An account that may not
// read the states goes by the record of this machine, with a warning. Errors are that the cluster does not answer, and those of the
// record.
func (a *app) catchUp(ctx context.Context, t *trusting, l *release.Ledger, write bool) error {
	names, err := l.Bundles(ctx)
	if release.Forbidden(err) != nil {
		a.warnings([]string{fmt.Sprintf("what was accepted in the cluster may not be read (%v): only the record of this machine counts", err)})
		return nil //nolint:nilerr // the machine's record is what there is then
	}
	if err != nil {
		return err
	}
	var states []*ledger.State
	for _, name := range names {
		s, _, err := l.Read(ctx, name)
		switch {
		case release.Forbidden(err) != nil, is[*ledger.StateError](err):
			a.warnings([]string{fmt.Sprintf("what was accepted of bundle %q in the cluster cannot be read (%v): only the record of this machine counts", name, err)})
			continue
		case err != nil:
			return err
		case s == nil:
			continue // it was forgotten meanwhile
		}
		if floor, err := time.Parse(time.RFC3339, s.ClockFloor); err == nil && floor.Sub(a.env.Now()) > site.MaxAhead {
			a.warnings([]string{fmt.Sprintf("the clock of this machine is behind that of another one, which has installed bundle %q at %s", name, s.ClockFloor)})
		}
		states = append(states, s)
	}
	// What nobody can have accepted must not keep this machine from working.
	unfit := func(err error) error {
		if !is[*install.UnfitStateError](err) {
			return err
		}
		a.warnings([]string{fmt.Sprintf("%v: that is left out", err)})
		return nil
	}
	now := a.env.Now()
	if write && t.dir != nil {
		for _, s := range states {
			if err := unfit(install.CatchUp(ctx, t.dir, s.Name, s, now)); err != nil {
				return err
			}
		}
		record, err := t.dir.Read(ctx)
		if err != nil {
			return err
		}
		t.record = record
	} else {
		record, err := install.Overlaid(t.record, states, now)
		if err := unfit(err); err != nil {
			return err
		}
		t.record = record
	}
	if t.policy.Freshness != nil {
		t.policy.Freshness.Record = t.record
	}
	return nil
}
