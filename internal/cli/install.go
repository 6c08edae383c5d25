package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/install"
	"github.com/sealift/sealift/internal/release"
	"github.com/sealift/sealift/internal/site"
	"github.com/sealift/sealift/verify"
)

type installFlags struct {
	seedFlags
	kubeconfig, context string
	timeout             time.Duration
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

With --dry-run nothing is changed, in the registry or in the cluster: the plan and the
rewritten objects are printed. That needs no cluster; where none is named, the plan cannot
say whether a release would be installed or upgraded.

` + placesHelp + `
Only one bundle is installed at a time, and not from a stream: it is read more than once.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.install(cmd, args, f) },
	}
	f.add(c)
	c.Flags().StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig of the cluster (default: KUBECONFIG, then ~/.kube/config)")
	c.Flags().StringVar(&f.context, "context", "", "context of the kubeconfig (default: its current one)")
	c.Flags().DurationVar(&f.timeout, "timeout", release.DefaultTimeout, "how long to wait for each release to become ready")
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

func (a *app) connect(f installFlags) (*release.Cluster, error) {
	path := a.findKubeconfig(f.kubeconfig)
	if path == "" && f.dryRun {
		return nil, nil
	}
	return release.Connect(release.ClusterOptions{Kubeconfig: path, Context: f.context, Log: a.logger(), Timeout: f.timeout, NoExec: a.noExec, Dial: a.env.Dial})
}

type installResult struct {
	Bundle   string                `json:"bundle"`
	Version  string                `json:"version"`
	Digest   string                `json:"digest"`
	DryRun   bool                  `json:"dryRun"`
	Seed     *install.SeedResult   `json:"seed"`
	Plan     []install.ReleasePlan `json:"plan,omitempty"`
	Releases []install.Installed   `json:"releases,omitempty"`
	Journal  *site.Head            `json:"journal,omitempty"`
}

func (a *app) install(cmd *cobra.Command, args []string, f installFlags) (err error) {
	ctx, report := cmd.Context(), a.reporter()
	if f.timeout <= 0 {
		return &usageError{errors.New("--timeout is not positive"), cmd.CommandPath()}
	}
	o, err := f.options(a, cmd, report)
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
	a.warn([]*verify.Bundle{b})
	accept, err := a.acceptOptions(t, "install", o.Target.String())
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
	s, err := install.Prepare(ctx, []*verify.Bundle{b}, o)
	if err != nil {
		return err
	}
	// What would fail in the cluster for sure is found before hours of seeding.
	preview := s.Preview()
	releases, err := install.Releases(b, preview.Images)
	if err != nil {
		return err
	}
	plan, err := install.Plan(ctx, releases, cluster)
	if err != nil {
		return err
	}
	r := &installResult{Bundle: b.Manifest().Name, Version: b.Manifest().Version, Digest: b.Evidence().Manifest, DryRun: f.dryRun}
	if f.dryRun {
		r.Seed, r.Plan = preview, plan
		return a.print(r, func(w io.Writer) { writePlan(w, r, cluster != nil) })
	}
	if err := install.Prepared(ctx, []*verify.Bundle{b}, accept); err != nil {
		return err
	}
	if r.Seed, err = s.Run(ctx); err != nil {
		return err
	}
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
		for _, i := range r.Releases {
			from := ""
			if i.From > 0 {
				from = fmt.Sprintf(" (was %d)", i.From)
			}
			fmt.Fprintf(w, "  %-7s  release %s/%s, revision %d%s\n", i.Action, i.Namespace, i.Release, i.Revision, from)
		}
		writeHead(w, r.Journal)
	})
}

func writePlan(w io.Writer, r *installResult, asked bool) {
	fmt.Fprintf(w, "plan: %s %s, nothing has been changed\n\nregistry %s\n", r.Bundle, r.Version, r.Seed.Registry)
	writeSeeded(w, r.Seed, true)
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
		fmt.Fprintf(w, "\n# objects of release %s/%s\n%s\n", p.Namespace, p.Release, strings.TrimRight(p.Objects, "\n"))
	}
}
