package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sealift/sealift/install"
	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/sigstore"
)

// planFlags say what is done beside installing and upgrading.
type planFlags struct{ removeDropped, test bool }

// add adds the flags.
func (f *planFlags) add(fs *pflag.FlagSet) {
	fs.BoolVar(&f.removeDropped, "remove-dropped", false, "uninstall releases that the version before had and this one has not; what holds data stays")
	fs.BoolVar(&f.test, "test", false, "run the tests of the charts")
	onlyFlag(fs, "remove-dropped")
}

func (a *app) planCommand() *cobra.Command {
	var f installFlags
	var out string
	var objects bool
	c := &cobra.Command{
		Use:   "plan BUNDLE...",
		Short: "Say exactly what an install would do, and its way back",
		Long: `Compute what an install would do, and change nothing, neither in the registry nor in the
cluster: what is sent, which tags move, which releases are installed, upgraded or left, what
changes of the objects that are in the cluster now, which pods are replaced, which images and
custom resource definitions are new, which places still name another registry, which foreign
programs are run, the steps and the way back from each, and from where on there is none.

The cluster itself says what would change, by applies that are not carried out. Secrets are in
no plan, nor anything that is made of them; what charts draw at random is left out, which is
found by rendering them twice.

With -o the plan is kept in a file, to be read by others and then followed exactly, with
'sealift install --plan FILE': for the same cluster, as it was, and with the same objects.
Without a cluster there is a plan to read, but none to keep.

` + placesHelp,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.plan(cmd, args, &f, out, objects) },
	}
	f.seedFlags.add(c)
	f.clusterFlags.add(c)
	f.valueFlags.add(c)
	f.planFlags.add(c.Flags())
	c.Flags().BoolVar(&f.run.takeOver, "take-over", false, "plan to take fields that somebody else has set: a plan made without is not followed with it")
	c.Flags().BoolVar(&f.run.adopt, "adopt", false, "plan to take over releases and objects that somebody else has installed: a plan made without is not followed with it")
	onlyFlag(c.Flags(), "take-over")
	onlyFlag(c.Flags(), "adopt")
	c.Flags().StringVarP(&out, "out", "o", "", "file to keep the plan in")
	c.Flags().BoolVar(&objects, "objects", false, "print the objects, too")
	// It never does more than that.
	c.Flags().Lookup("dry-run").Hidden = true
	return c
}

// errNoClusterPlan says that a plan would be kept that cannot be followed.
var errNoClusterPlan = errors.New("a plan is for one cluster, and none is named")

func (a *app) plan(cmd *cobra.Command, args []string, f *installFlags, out string, objects bool) (err error) {
	f.dryRun = true
	p, done, err := a.prepareInstall(cmd, args, f)
	defer done(&err)
	if err != nil {
		return err
	}
	if out != "" && p.cluster == nil && len(p.plan.Releases) > 0 {
		return errNoClusterPlan
	}
	shown := slices.Clone(p.plan.Releases)
	if !objects {
		for i := range p.plan.Releases {
			p.plan.Releases[i].Objects = ""
		}
	}
	digest, err := p.plan.Digest()
	if err != nil {
		return err
	}
	if out != "" {
		raw, err := p.plan.Encode()
		if err != nil {
			return err
		}
		if err := replaceFile(out, raw); err != nil {
			return err
		}
	}
	result := struct {
		Digest string `json:"digest"`
		File   string `json:"file,omitempty"`
		*install.Plan
	}{digest, out, p.plan}
	return a.print(result, func(w io.Writer) {
		writeWholePlan(w, p.plan, digest)
		if objects {
			writePlannedObjects(w, shown)
		}
		if out != "" {
			fmt.Fprintf(w, "\nkept in %s: 'sealift install --plan %s' follows it\n", out, out)
		}
	})
}

// programs are the foreign programs that are run, as far as flags and files of the user say so. None is run here.
func (a *app) programs(f *installFlags, registry string) []string {
	var list []string
	if a.noExec {
		return list
	}
	var helper *oci.HelperError
	if f.access.username == "" && registry != "" {
		if _, err := oci.Keychain(true).Resolve(registryHost(registry)); errors.As(err, &helper) {
			list = append(list, fmt.Sprintf("%s, for the credentials of %s, as %s says", helper.Helper, helper.Registry, helper.File))
		}
	}
	if name, _, ok := strings.Cut(f.trust.key, "://"); ok && sigstore.IsKMS(f.trust.key) {
		list = append(list, fmt.Sprintf("sigstore-kms-%s, for the key %s", name, f.trust.key))
	}
	return list
}

// registryHost is a registry whose credentials are looked for.
type registryHost string

// String implements authn.Resource.
func (h registryHost) String() string { return string(h) }

// RegistryStr implements authn.Resource.
func (h registryHost) RegistryStr() string { return string(h) }

// writeWholePlan writes all of a plan but the objects.
func writeWholePlan(w io.Writer, p *install.Plan, digest string) {
	over := ""
	if p.Replaces != "" {
		over = " over " + p.Replaces
	}
	fmt.Fprintf(w, "plan: %s %s%s, nothing has been changed\n  digest %s\n", p.Bundle, p.Version, over, digest)
	if p.Seed != nil {
		fmt.Fprintf(w, "\nregistry %s\n", p.Seed.Registry)
		writeSeeded(w, p.Seed, true)
	}
	switch {
	case p.Cluster != "":
		fmt.Fprintf(w, "\ncluster %s, Kubernetes %s\n", p.Cluster, p.Kubernetes)
	case len(p.Releases) > 0:
		fmt.Fprintln(w, "\ncluster: none was named, so what is installed now is not known")
	}
	if p.Environment != "" {
		fmt.Fprintf(w, "environment %s\n", p.Environment)
	}
	if r := p.Rendering; r != nil && (r.Pin != install.PinDigest || r.NoRewrite || len(r.PullSecrets)+len(r.ConfigMaps) > 0) {
		fmt.Fprintf(w, "references are pinned by %s", r.Pin)
		if r.NoRewrite {
			fmt.Fprint(w, ", and not rewritten")
		}
		if len(r.PullSecrets) > 0 {
			fmt.Fprintf(w, "; pull secrets %s", strings.Join(r.PullSecrets, ", "))
		}
		if len(r.ConfigMaps) > 0 {
			fmt.Fprintf(w, "; rewritten in ConfigMaps %s", strings.Join(r.ConfigMaps, ", "))
		}
		fmt.Fprintln(w)
	}
	if p.TakeOver {
		fmt.Fprintln(w, "fields that others have set are taken over (--take-over)")
	}
	if p.Adopt {
		fmt.Fprintln(w, "releases and objects that others have installed are taken over (--adopt)")
	}
	writeParameters(w, p.Parameters)
	writeList(w, "\nforeign programs that are run", p.Programs)
	if len(p.Releases)+len(p.Dropped) > 0 {
		fmt.Fprintln(w, "\nreleases")
	}
	for i := range p.Releases {
		r := &p.Releases[i]
		from := ""
		if r.From != nil {
			from = fmt.Sprintf(", revision %d is %s %s", r.From.Revision, r.From.Chart, r.From.Version)
		}
		fmt.Fprintf(w, "  %-7s  %s: %s %s%s\n", r.Action, r.Key(), r.Chart, r.Version, from)
	}
	for _, d := range p.Dropped {
		what := "is not in this version any more, and stays (--remove-dropped uninstalls it)"
		if d.Action == install.ActionRemove {
			what = "is not in this version any more, and is uninstalled; what holds data stays"
		}
		fmt.Fprintf(w, "  %-7s  %s/%s: %s\n", d.Action, d.Namespace, d.Release, what)
	}
	for i := range p.Releases {
		writeReleasePlan(w, &p.Releases[i], p.Cluster != "")
	}
	writeMentions(w, p.Mentions)
	writeSteps(w, p)
}

// writeParameters writes what the site says, but for secrets.
func writeParameters(w io.Writer, list []install.Said) {
	for i, p := range list {
		if i == 0 {
			fmt.Fprintln(w, "\nparameters")
		}
		value, by := strconv.Quote(p.Value), ""
		if p.Secret {
			value = hidden
		}
		if p.Default {
			by = " (the vendor's default)"
		}
		fmt.Fprintf(w, "  %s = %s%s\n", p.Name, value, by)
	}
}

func writeList(w io.Writer, title string, list []string) {
	for i, line := range list {
		if i == 0 {
			fmt.Fprintln(w, title)
		}
		fmt.Fprintf(w, "%s  %s\n", indentOf(title), line)
	}
}

// indentOf is the white space that a title begins with.
func indentOf(title string) string {
	title = strings.TrimLeft(title, "\n")
	return title[:len(title)-len(strings.TrimLeft(title, " "))]
}

func writeReleasePlan(w io.Writer, r *install.ReleasePlan, asked bool) {
	if !r.Changed() {
		return
	}
	fmt.Fprintf(w, "\nrelease %s\n  objects %s\n", r.Key(), r.Digest)
	if r.AsFirst {
		fmt.Fprintln(w, "  note: it looks at what is installed, which a plan cannot show it: these are the objects of a first installation")
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "  note: %s\n", n)
	}
	for i, img := range r.Images {
		if i == 0 {
			fmt.Fprintln(w, "  images")
		}
		if img.Was == "" {
			fmt.Fprintf(w, "    %s (%s)\n", img.Is, strings.Join(img.Objects, ", "))
		} else {
			fmt.Fprintf(w, "    %s -> %s (%s)\n", img.Was, img.Is, strings.Join(img.Objects, ", "))
		}
	}
	for i, d := range r.Definitions {
		if i == 0 {
			fmt.Fprintln(w, "  custom resource definitions")
		}
		fmt.Fprintf(w, "    %-7s  %s%s\n", d.Action, d.Name, versionChanges(d))
	}
	writeChanges(w, r, asked)
	for i, e := range r.Impact {
		if i == 0 {
			fmt.Fprintln(w, "  pods")
		}
		fmt.Fprintf(w, "    %-7s  %s: %s\n", e.Effect, e.Object, count(e.Pods, "pod"))
	}
	writeList(w, "  hooks that run", r.Hooks)
	writeList(w, "  backup, before it", r.Backup)
	writeList(w, "  restore, on the way back", r.Restore)
	words := map[string]int{}
	for _, l := range r.Left {
		words[l.Why]++
	}
	for _, word := range []string{chart.RandomValue, chart.SecretValue, chart.ChecksumValue} {
		if words[word] > 0 {
			fmt.Fprintf(w, "  left out: %s %s\n", count(words[word], "field"), word)
		}
	}
}

func versionChanges(d install.DefinitionPlan) string {
	var parts []string
	if len(d.Added) > 0 {
		parts = append(parts, "versions "+strings.Join(d.Added, ", ")+" are new")
	}
	if len(d.Removed) > 0 {
		parts = append(parts, "versions "+strings.Join(d.Removed, ", ")+" go")
	}
	if d.Storage != "" {
		parts = append(parts, fmt.Sprintf("kept in %s instead of %s", d.Storage, d.StorageWas))
	}
	if len(parts) == 0 {
		return ""
	}
	return ": " + strings.Join(parts, "; ")
}

// writeChanges writes what becomes of the objects.
func writeChanges(w io.Writer, r *install.ReleasePlan, asked bool) {
	if !asked {
		return
	}
	if len(r.Changes) == 0 {
		fmt.Fprintln(w, "  no object of the cluster changes")
		return
	}
	fmt.Fprintln(w, "  objects of the cluster")
	for i := range r.Changes {
		o := &r.Changes[i]
		note := ""
		if o.Stays {
			note = ", and stays in the cluster"
		}
		if o.Why != "" {
			note += " (" + o.Why
			if o.Against == install.AgainstRecorded {
				note += "; compared with what was rendered before"
			}
			note += ")"
		}
		fmt.Fprintf(w, "    %-7s  %s%s\n", o.Action, o.Object, note)
		for _, f := range o.Fields {
			fmt.Fprintf(w, "             %s: %s\n", f.Path, plannedChange(f))
		}
		if o.More > 0 {
			fmt.Fprintf(w, "             and %s more\n", count(o.More, "field"))
		}
	}
	if r.MoreChanges > 0 {
		fmt.Fprintf(w, "    and %s more\n", count(r.MoreChanges, "object"))
	}
}

func plannedChange(f chart.FieldChange) string {
	if f.Old == f.New && slices.Contains([]string{chart.RandomValue, chart.SecretValue, chart.ChecksumValue}, f.New) {
		return "differs " + f.New
	}
	return fieldChange(f)
}

// maxMentionLines is how many places are named that name another registry.
const maxMentionLines = 20

func writeMentions(w io.Writer, list []install.MentionPlan) {
	for i, m := range list {
		if i == 0 {
			fmt.Fprintln(w, "\nother registries that objects name")
		}
		if i == maxMentionLines {
			fmt.Fprintf(w, "  and %s more\n", count(len(list)-i, "place"))
			return
		}
		note := ""
		if m.Carried {
			note = ", which the bundle has"
		}
		fmt.Fprintf(w, "  %s: %s of %s in %s%s\n", m.Reference, m.Path, m.Object, m.Release, note)
	}
}

func writeSteps(w io.Writer, p *install.Plan) {
	if len(p.Steps) == 0 {
		return
	}
	fmt.Fprintln(w, "\nsteps")
	for i, s := range p.Steps {
		fmt.Fprintf(w, "  %3d  %-7s  %s: %s\n", i+1, s.Kind, s.Release, s.Do)
		for _, reason := range s.NoReturn {
			fmt.Fprintf(w, "       point of no return: %s\n", reason)
		}
	}
	var holds []string
	for _, s := range p.Steps {
		if s.Hold {
			holds = append(holds, s.Release)
		}
	}
	if len(holds) > 1 {
		fmt.Fprintf(w, "  --until RELEASE stops after one of %s\n", strings.Join(holds, ", "))
	}
	writeWayBack(w, p)
}

func writeWayBack(w io.Writer, p *install.Plan) {
	fmt.Fprintln(w, "\nway back")
	from := p.NoReturnFrom()
	if from == 0 {
		fmt.Fprintln(w, "  there is none from the first step on: it stops and holds, and 'sealift resume' goes on; --accept-no-return is needed")
		return
	}
	if from > 0 {
		fmt.Fprintf(w, "  from step %d on there is none: it stops and holds, and 'sealift resume' goes on; --accept-no-return is needed\n", from+1)
	}
	fmt.Fprintln(w, "  on failure by itself, or with 'sealift revert' while it is not finished:")
	for i := range slices.Backward(p.Steps) {
		if s := &p.Steps[i]; s.Back != "" && (from < 0 || i < from) {
			fmt.Fprintf(w, "  %3d  %-7s  %s: %s\n", i+1, s.Kind, s.Release, s.Back)
		}
	}
	switch {
	case p.Cluster == "":
	case from >= 0:
		fmt.Fprintln(w, "  afterwards: only as far as the vendor and the points of no return allow it")
	case p.Replaces != "":
		fmt.Fprintf(w, "  afterwards: 'sealift rollback %s', by the same revisions\n", p.Replaces)
	default:
		fmt.Fprintf(w, "  afterwards: 'sealift uninstall %s'\n", p.Bundle)
	}
}

// writePlannedObjects writes the objects themselves.
func writePlannedObjects(w io.Writer, releases []install.ReleasePlan) {
	for i := range releases {
		r := &releases[i]
		fmt.Fprintf(w, "\n# objects of release %s\n%s\n", r.Key(), strings.TrimRight(r.Objects, "\n"))
	}
}

// hintPlan is about what these commands meet.
func hintPlan(err error) string {
	switch {
	case errors.Is(err, errNoClusterPlan):
		return "name a kubeconfig with --kubeconfig, or leave -o out to see the plan"
	case is[*install.PlanChangedError](err):
		return "make a new plan with 'sealift plan', have it looked at again, and follow that one"
	case is[*install.PlanError](err):
		return "plans are made by 'sealift plan -o FILE'; if it is one, it was changed on its way: fetch it again"
	}
	return ""
}
