package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/install"
	"github.com/sealift/sealift/internal/ledger"
	"github.com/sealift/sealift/internal/site"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

type installFlags struct {
	seedFlags
	clusterFlags
	valueFlags
	planFlags
	via viaFlags
	// unasked says that a dry run asks the cluster nothing, even where one is named.
	unasked bool
	run     runFlags
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
	f.seedFlags.add(c)
	f.addChange(c)
	f.valueFlags.add(c)
	f.via.add(c)
	f.planFlags.add(c.Flags())
	f.run.add(c)
	return c
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
	Releases   []installed           `json:"releases,omitempty"`
	// Receipt says what became of the transaction; State is there instead where that has stopped before its end.
	Receipt *ledger.Receipt `json:"receipt,omitempty"`
	State   *ledger.State   `json:"state,omitempty"`
	Journal *site.Head      `json:"journal,omitempty"`
}

// installed is what became of one release.
type installed struct {
	Release   string `json:"release"`
	Namespace string `json:"namespace"`
	Action    string `json:"action"`
	Revision  int    `json:"revision"`
	From      int    `json:"from,omitempty"`
}

func (a *app) install(cmd *cobra.Command, args []string, f installFlags) (err error) {
	ctx := cmd.Context()
	if f.via.via != "" {
		return a.installVia(cmd, args, f)
	}
	if err := f.via.unused(cmd); err != nil {
		return err
	}
	p, done, err := a.prepareInstall(cmd, args, &f)
	defer done(&err)
	if err != nil {
		return err
	}
	if err := f.run.check(cmd); err != nil {
		return err
	}
	b := p.bundle
	r := &installResult{Bundle: b.Manifest().Name, Version: b.Manifest().Version, Digest: b.Evidence().Manifest, DryRun: f.dryRun, Parameters: p.parameters}
	if f.dryRun {
		r.Seed, r.Plan = p.preview, p.plan.Releases
		return a.print(r, func(w io.Writer) { writePlan(w, r, p.cluster != nil) })
	}
	plan, err := p.followed(&f)
	if err != nil {
		return err
	}
	if err := p.warned(ctx, a, &f); err != nil {
		return err
	}
	if err := install.Prepared(ctx, []*verify.Bundle{b}, p.accept); err != nil {
		return err
	}
	if r.Seed, err = p.target.run(ctx, p.seeding); err != nil {
		return err
	}
	p.target.named.keep(ctx, a)
	elsewhere, err := install.CheckImages(ctx, p.plan.Releases, r.Seed.Images, p.target.Target, p.target.Client)
	if err != nil {
		return err
	}
	a.warnElsewhere(elsewhere)
	if err := p.carryOut(cmd, a, &f, r.Seed.Images, plan, r); err != nil {
		return err
	}
	return a.print(r, func(w io.Writer) {
		fmt.Fprintf(w, "%s %s %s from %s\n", r.verb(), r.Bundle, r.Version, r.Seed.Registry)
		writeSeeded(w, r.Seed, false)
		writeChanged(w, r)
	})
}

// errOnlyStore says that a store alone does not say what nodes call it.
func errOnlyStore(cmd *cobra.Command) error {
	return &usageError{errors.New("--store says where the images go, --registry how the nodes call the registry that serves them: both are needed"), cmd.CommandPath()}
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
	writeParameters(w, r.Parameters)
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
