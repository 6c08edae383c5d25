package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/install"
	"github.com/sealift/sealift/internal/release"
	"github.com/sealift/sealift/internal/site"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

type installFlags struct {
	seedFlags
	via                 viaFlags
	kubeconfig, context string
	timeout             time.Duration
	set, setFile        []string
}

func (a *app) installCommand() *cobra.Command {
	var f installFlags
	c := &cobra.Command{
		Use:   "install BUNDLE...",
		Short: "Seed a registry and install or upgrade the releases of a bundle",
		Long: `Check the signature of a bundle, seed the registry, and install its charts on a cluster
in their order, waiting for each to become ready. A release that is there is upgraded.

Image references are rewritten to the registry and pinned by digest, in hooks and tests
too. When a release fails, or on Ctrl-C, everything that this run changed goes back in
reverse order; claims, volumes, namespaces and CRDs are never deleted.

What the bundle lets a site say ('sealift inspect' lists its parameters) is said with --set,
or with --set-file where it is long or secret. Secret parameters are printed nowhere, nor is
what the objects of kind Secret hold.

With --dry-run nothing is changed, in the registry or in the cluster: the plan and the
rewritten objects are printed. That needs no cluster; where none is named, the plan cannot
say whether a release would be installed or upgraded.

On a cluster of a single node, '--via containerd' on that node needs no registry: the images
go straight into its containerd, as with 'sealift load', and objects keep the vendor's names.
That is refused where it could not work: with several nodes, away from the node, and where an
image is to be pulled each time (imagePullPolicy: Always).
` + socketHelp + `

` + placesHelp + `
Only one bundle is installed at a time, and not from a stream: it is read more than once.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.install(cmd, args, f) },
	}
	f.add(c)
	f.via.add(c)
	c.Flags().StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig of the cluster (default: KUBECONFIG, then ~/.kube/config)")
	c.Flags().StringVar(&f.context, "context", "", "context of the kubeconfig (default: its current one)")
	c.Flags().DurationVar(&f.timeout, "timeout", release.DefaultTimeout, "how long to wait for each release to become ready")
	c.Flags().StringArrayVar(&f.set, "set", nil, "PARAMETER=VALUE: a parameter of the bundle (repeatable)")
	c.Flags().StringArrayVar(&f.setFile, "set-file", nil, "PARAMETER=FILE: a parameter whose value is the content of a file, without the last line's end (repeatable)")
	return c
}

// maxParameterBytes bounds the value of a parameter.
const maxParameterBytes = 1 << 20

// parameters reads what the site says.
func (f *installFlags) parameters(cmd *cobra.Command) (map[string]string, error) {
	said := map[string]string{}
	say := func(flag, text string) (name, value string, err error) {
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return "", "", &usageError{fmt.Errorf("--%s %q is not written as PARAMETER=VALUE", flag, name), cmd.CommandPath()}
		}
		if _, twice := said[name]; twice {
			return "", "", &usageError{fmt.Errorf("parameter %q is set twice", name), cmd.CommandPath()}
		}
		return name, value, nil
	}
	for _, text := range f.set {
		name, value, err := say("set", text)
		if err != nil {
			return nil, err
		}
		said[name] = value
	}
	for _, text := range f.setFile {
		name, path, err := say("set-file", text)
		if err != nil {
			return nil, err
		}
		raw, err := readBounded("parameter "+name, path, maxParameterBytes)
		if err != nil {
			return nil, err
		}
		said[name] = strings.TrimSuffix(strings.TrimSuffix(string(raw), "\n"), "\r")
	}
	return said, nil
}

// findKubeconfig returns the kubeconfig to use, or "" where there is none.
func (a *app) findKubeconfig(flag string) string {
	if flag != "" {
		return flag
	}
	if v := a.env.getenv("KUBECONFIG"); v != "" {
		return v
	}
	home := a.env.getenv("HOME")
	if home == "" {
		return ""
	}
	path := filepath.Join(home, ".kube", "config")
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

func (a *app) connect(f installFlags) (*release.Cluster, error) {
	path := a.findKubeconfig(f.kubeconfig)
	if path == "" && f.dryRun {
		return nil, nil
	}
	return release.Connect(release.ClusterOptions{Kubeconfig: path, Context: f.context, Log: a.logger(), Timeout: f.timeout, NoExec: a.noExec, Dial: a.env.Dial})
}

type installResult struct {
	Bundle  string              `json:"bundle"`
	Version string              `json:"version"`
	Digest  string              `json:"digest"`
	DryRun  bool                `json:"dryRun"`
	Seed    *install.SeedResult `json:"seed,omitempty"`
	// Load stands for Seed where there is no registry.
	Load       *install.LoadResult   `json:"load,omitempty"`
	Parameters []install.Said        `json:"parameters"`
	Plan       []install.ReleasePlan `json:"plan,omitempty"`
	Releases   []install.Installed   `json:"releases,omitempty"`
	Journal    *site.Head            `json:"journal,omitempty"`
}

func (a *app) install(cmd *cobra.Command, args []string, f installFlags) (err error) {
	ctx, report := cmd.Context(), a.reporter()
	if f.timeout <= 0 {
		return &usageError{errors.New("--timeout is not positive"), cmd.CommandPath()}
	}
	if f.via.via != "" {
		return a.installVia(cmd, args, f)
	}
	if err := f.via.unused(cmd); err != nil {
		return err
	}
	o, err := f.target(a, cmd, report)
	if err != nil {
		return err
	}
	defer o.done(&err)
	if o.named.placeholder {
		return &usageError{errors.New("--store says where the images go, --registry how the nodes call the registry that serves them: both are needed"), cmd.CommandPath()}
	}
	said, err := f.parameters(cmd)
	if err != nil {
		return err
	}
	t, err := a.trusting(cmd, &f.trust)
	if err != nil {
		return err
	}
	b, done, err := a.open(cmd, args, t.policy)
	if err != nil {
		return err
	}
	defer done(&err)
	a.hideParameters(b.Manifest(), said)
	a.warn([]*verify.Bundle{b})
	accept, err := a.acceptOptions(t, "install", o.String())
	if err != nil && !f.dryRun {
		return err
	}
	// A bundle without charts needs no cluster.
	var cluster *release.Cluster
	if len(b.Manifest().Charts) > 0 {
		if cluster, err = a.connect(f); err != nil {
			return err
		}
	}
	s, err := o.prepare(ctx, []*verify.Bundle{b})
	if err != nil {
		return err
	}
	// What would fail in the cluster for sure is found before hours of seeding.
	preview := s.Preview()
	place := install.Site{Target: o.Target, Parameters: said}
	releases, err := install.Releases(b, preview.Images, place)
	if err != nil {
		return err
	}
	parameters, err := place.Say(b.Manifest())
	if err != nil {
		return err
	}
	plan, err := install.Plan(ctx, releases, cluster)
	if err != nil {
		return err
	}
	if err := install.CheckNames(plan, b.Manifest(), o.Target); err != nil {
		return err
	}
	for i := range plan {
		plan[i].Objects = a.hide(plan[i].Objects)
	}
	r := &installResult{Bundle: b.Manifest().Name, Version: b.Manifest().Version, Digest: b.Evidence().Manifest, DryRun: f.dryRun, Parameters: parameters}
	if f.dryRun {
		r.Seed, r.Plan = preview, plan
		return a.print(r, func(w io.Writer) { writePlan(w, r, cluster != nil) })
	}
	if err := install.Prepared(ctx, []*verify.Bundle{b}, accept); err != nil {
		return err
	}
	if r.Seed, err = o.run(ctx, s); err != nil {
		return err
	}
	o.named.keep(ctx, a)
	elsewhere, err := install.CheckImages(ctx, plan, r.Seed.Images, o.Target, o.Client)
	if err != nil {
		return err
	}
	a.warnElsewhere(elsewhere)
	if r.Releases, err = install.Apply(ctx, releases, install.ApplyOptions{Cluster: cluster, Timeout: f.timeout, Progress: report}); err != nil {
		return err
	}
	head, err := install.Accept(ctx, []*verify.Bundle{b}, accept)
	if err != nil {
		return fmt.Errorf("all was done, but could not be recorded: %w", err)
	}
	r.Journal = &head
	return a.print(r, func(w io.Writer) {
		fmt.Fprintf(w, "installed %s %s from %s\n", r.Bundle, r.Version, r.Seed.Registry)
		writeSeeded(w, r.Seed, false)
		writeInstalled(w, r)
	})
}

// hideParameters keeps what the site says about secret parameters out of all that is printed.
func (a *app) hideParameters(m *manifest.Manifest, said map[string]string) {
	for i := range m.Parameters {
		// What is no text is one of few values that stand everywhere.
		if p := &m.Parameters[i]; p.Secret && p.Type == manifest.ParameterString {
			a.secrets.add(said[p.Name])
		}
	}
}

// writeInstalled says what became of the releases, and where the journal ends.
func writeInstalled(w io.Writer, r *installResult) {
	for _, i := range r.Releases {
		from := ""
		if i.From > 0 {
			from = fmt.Sprintf(" (was %d)", i.From)
		}
		fmt.Fprintf(w, "  %-7s  release %s/%s, revision %d%s\n", i.Action, i.Namespace, i.Release, i.Revision, from)
	}
	writeHead(w, r.Journal)
}

// warnElsewhere names what nodes would look for outside of the registry.
func (a *app) warnElsewhere(list []install.Reference) {
	var lines []string
	for _, r := range list[:min(len(list), warnedElsewhere)] {
		place := fmt.Sprintf("%s of %s in release %s names %s", r.Path, r.Object, r.Release, r.Reference)
		if r.Carried {
			lines = append(lines, place+", which the registry has, and cannot be rewritten: the nodes need a mirror for it, or the chart a value that gets the registry")
		} else {
			lines = append(lines, place+", which is not in the bundle: it is left as it is")
		}
	}
	if n := len(list) - warnedElsewhere; n > 0 {
		lines = append(lines, fmt.Sprintf("%s like this", count(n, "more place")))
	}
	a.warnings(lines)
}

// warnedElsewhere is how many places are named.
const warnedElsewhere = 10

func writePlan(w io.Writer, r *installResult, asked bool) {
	fmt.Fprintf(w, "plan: %s %s, nothing has been changed\n\n", r.Bundle, r.Version)
	if r.Load != nil {
		fmt.Fprintf(w, "containerd %s at %s\n", r.Load.Containerd, r.Load.Address)
		writeLoaded(w, r.Load, true)
	} else {
		fmt.Fprintf(w, "registry %s\n", r.Seed.Registry)
		writeSeeded(w, r.Seed, true)
	}
	for i, p := range r.Parameters {
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
	if !asked && len(r.Plan) > 0 {
		fmt.Fprintln(w, "\ncluster: none was named, so what is installed now is not known")
	}
	for _, p := range r.Plan {
		fmt.Fprintf(w, "\n%s release %s/%s: chart %s %s\n", p.Action, p.Namespace, p.Release, p.Chart, p.Version)
		switch {
		case p.From != nil:
			fmt.Fprintf(w, "  way back: to revision %d (chart %s %s)\n", p.From.Revision, p.From.Chart, p.From.Version)
		case asked:
			fmt.Fprintln(w, "  way back: uninstall; claims, volumes, namespaces and CRDs are kept")
		default:
			fmt.Fprintln(w, "  way back: to the revision that is installed now, or uninstall; data is kept")
		}
	}
	for _, p := range r.Plan {
		if p.AsFirst {
			fmt.Fprintf(w, "\n# release %s/%s looks at what is installed, which a plan cannot show it: these are the objects of a first installation\n", p.Namespace, p.Release)
		}
		fmt.Fprintf(w, "\n# objects of release %s/%s\n%s\n", p.Namespace, p.Release, strings.TrimRight(p.Objects, "\n"))
	}
}
