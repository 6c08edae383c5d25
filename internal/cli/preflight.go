package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/install"
	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/internal/registry"
	"github.com/sealift/sealift/internal/release"
)

type preflightFlags struct {
	installFlags
	printRBAC  bool
	subject    string
	probeNodes bool
	// takeOver and adopt say what the install would be told.
	takeOver, adopt bool
}

func (a *app) preflightCommand() *cobra.Command {
	var f preflightFlags
	c := &cobra.Command{
		Use:   "preflight BUNDLE...",
		Short: "Find out what would keep an install from working",
		Long: `Make all checks that an install begins with, and those that it would fail at later: what
the cluster is and serves, what this account may do there, whether the API server would take
each object as it is, whether there is room, and whether the registry can be written to.
Nothing is changed, in the registry or in the cluster. Each check passes, warns or fails, with
what to do about it; all are made, whatever the others find. When one fails, the exit code is
22. docs/preflight.md explains them.

With --probe-nodes a short pod is run on each node, to see that it can pull from the registry;
it runs nothing of the image, and is deleted. For that the images have to be in the registry:
'sealift seed' sends them.

With --print-rbac nothing is checked: the least roles that an install of this bundle needs are
printed as YAML, for 'kubectl apply' by somebody who may grant them.

` + placesHelp,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.printRBAC {
				return a.printRBAC(cmd, args, &f)
			}
			return a.preflight(cmd, args, &f)
		},
	}
	f.seedFlags.add(c)
	f.addChange(c)
	f.valueFlags.add(c)
	f.planFlags.add(c.Flags())
	c.Flags().BoolVar(&f.takeOver, "take-over", false, "only warn of fields that others own, which an install with --take-over takes")
	c.Flags().BoolVar(&f.adopt, "adopt", false, "only warn of releases and objects that others have installed, which an install with --adopt takes")
	onlyFlag(c.Flags(), "take-over")
	onlyFlag(c.Flags(), "adopt")
	c.Flags().BoolVar(&f.probeNodes, "probe-nodes", false, "run a short pod on each node, to see that it can pull from the registry")
	c.Flags().BoolVar(&f.printRBAC, "print-rbac", false, "print the least roles that an install needs, and check nothing")
	c.Flags().StringVar(&f.subject, "rbac-subject", "", "who gets them: ServiceAccount/NAMESPACE/NAME, User/NAME or Group/NAME (default: ServiceAccount/NAMESPACE/sealift, in the namespace of --record-namespace)")
	return c
}

// findings is what a preflight prints.
type findings struct {
	Bundle   string            `json:"bundle"`
	Version  string            `json:"version"`
	Digest   string            `json:"digest"`
	Passed   int               `json:"passed"`
	Warned   int               `json:"warned"`
	Failed   int               `json:"failed"`
	Findings []install.Finding `json:"findings"`
}

// preflightInput is what install.Preflight looks at.
func (a *app) preflightInput(p *installing) install.PreflightInput {
	in := install.PreflightInput{
		Bundle: p.bundle, Releases: p.releases, Plan: p.plan, Cluster: p.cluster, Ledger: p.ledger, State: p.state, Now: a.env.Now,
	}
	if p.target == nil {
		return in // the nodes have the images
	}
	in.Client, in.Target, in.Seed, in.Store = p.target.Client, p.target.Target, p.preview, p.target.store
	if p.target.store != "" {
		if free, _, ok := registry.Space(p.target.store); ok {
			in.Free = &free
		}
	}
	return in
}

func (a *app) preflight(cmd *cobra.Command, args []string, f *preflightFlags) (err error) {
	f.dryRun = true
	if a.findKubeconfig(f.kubeconfig) != "" {
		// Whoever is refused for his credentials is told that, before anything else is asked.
		cluster, err := a.connect(&f.clusterFlags)
		if err != nil {
			return err
		}
		if _, err := cluster.Pulse(cmd.Context()); err != nil {
			return err
		}
	}
	p, done, err := a.prepareInstall(cmd, args, &f.installFlags)
	defer func() { done(&err) }()
	if release.IsForbidden(err) {
		// What this account lacks is the first thing to find out: so the bundle is rendered without asking the cluster.
		done(&err)
		a.warnings([]string{"this account may not read what a plan needs; the objects are those of a first install on any cluster: " + err.Error()})
		f.unasked = true
		if p, done, err = a.prepareInstall(cmd, args, &f.installFlags); err == nil {
			p.cluster, err = a.connect(&f.clusterFlags)
		}
		if err == nil {
			p.ledger = p.cluster.Ledger(f.records)
		}
	}
	if err != nil {
		return foundEarly(err)
	}
	if p.cluster == nil && len(p.bundle.Manifest().Charts) > 0 {
		return release.ErrNoKubeconfig
	}
	in := a.preflightInput(p)
	in.ProbeNodes, in.TakeOver, in.Adopt, in.Test = f.probeNodes, f.takeOver, f.adopt, f.test
	report, err := install.Preflight(cmd.Context(), in)
	if err != nil {
		return err
	}
	m := p.bundle.Manifest()
	r := findings{Bundle: m.Name, Version: m.Version, Digest: p.bundle.Evidence().Manifest, Findings: []install.Finding{}}
	r.Passed, r.Warned, r.Failed = report.Count(install.LevelPass), report.Count(install.LevelWarn), report.Count(install.LevelFail)
	for _, found := range report.Findings {
		found.Object, found.Text = printable(a.hide(found.Object)), printable(a.hide(found.Text))
		r.Findings = append(r.Findings, found)
	}
	if err := a.print(r, func(w io.Writer) { writeFindings(w, &r) }); err != nil {
		return err
	}
	if r.Failed > 0 {
		return &install.PreflightError{Err: &failedChecks{r.Failed}}
	}
	return nil
}

// failedChecks stands for findings that are printed already.
type failedChecks struct{ n int }

func (e *failedChecks) Error() string {
	return count(e.n, "finding") + " would keep the install from working"
}

// foundEarly makes a refusal of what keeps even a plan from being made.
func foundEarly(err error) error {
	if is[*release.PendingError](err) && !is[*install.PreflightError](err) {
		return &install.PreflightError{Err: err}
	}
	return err
}

func writeFindings(w io.Writer, r *findings) {
	fmt.Fprintf(w, "preflight of %s %s: %d passed, %d warned, %d failed\n", r.Bundle, r.Version, r.Passed, r.Warned, r.Failed)
	width := 0
	for i := range r.Findings {
		width = max(width, len(r.Findings[i].Check))
	}
	indent := strings.Repeat(" ", len("  pass  ")+width+2)
	advised := ""
	for i := range r.Findings {
		f := &r.Findings[i]
		text := f.Text
		if f.Object != "" {
			text = f.Object + ": " + text
		}
		fmt.Fprintf(w, "  %s  %-*s  %s\n", f.Level, width, f.Check, text)
		// The same advice is given once for findings that follow each other.
		next := ""
		if i+1 < len(r.Findings) {
			next = r.Findings[i+1].Advice
		}
		if advised = f.Advice; advised != "" && advised != next {
			fmt.Fprintf(w, "%s-> %s\n", indent, advised)
		}
	}
}

// printRBAC prints the least roles.
func (a *app) printRBAC(cmd *cobra.Command, args []string, f *preflightFlags) (err error) {
	f.dryRun = true
	subject := f.subject
	if subject == "" {
		subject = "ServiceAccount/" + f.records + "/sealift"
	}
	account, err := release.ParseAccount(subject)
	if err != nil {
		return &usageError{err, cmd.CommandPath()}
	}
	if a.findKubeconfig(f.kubeconfig) == "" {
		return release.ErrNoKubeconfig
	}
	p, done, err := a.prepareInstall(cmd, args, &f.installFlags)
	defer done(&err)
	if err != nil {
		return err
	}
	in := a.preflightInput(p)
	in.ProbeNodes, in.Test = f.probeNodes, f.test
	text, err := install.PrintRBAC(cmd.Context(), in, account)
	if err != nil {
		return err
	}
	result := struct {
		RBAC string `json:"rbac"`
	}{string(text)}
	return a.print(result, func(w io.Writer) { _, _ = w.Write(text) })
}

// hintPreflight is about what these commands meet.
func hintPreflight(err error) string {
	var findings *install.FindingsError
	switch {
	case is[*failedChecks](err):
		return "each finding says what to do; nothing was changed"
	case errors.As(err, &findings):
		for i := range findings.Report.Findings {
			if f := &findings.Report.Findings[i]; f.Level == install.LevelFail && f.Advice != "" {
				return f.Advice + "; 'sealift preflight' with the same flags shows all that was found"
			}
		}
	case is[*release.CredentialsError](err):
		return "get a new kubeconfig from whoever runs the cluster, or log in again if it comes from a program; nothing was changed"
	case is[*install.PreflightError](err) && is[*chart.SchemaError](err) && !is[*install.SiteValuesError](err): // see hintValues
		return "compare what is said with --set and --values with the chart's values.schema.json; 'sealift inspect' lists the parameters"
	}
	return ""
}
