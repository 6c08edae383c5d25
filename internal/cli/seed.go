package cli

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/install"
	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/progress"
	"github.com/sealift/sealift/internal/site"
	"github.com/sealift/sealift/verify"
)

// seedFlags are those of all commands that seed.
type seedFlags struct {
	trust            trustFlags
	registry, index  string
	moveTags         bool
	jobs             int
	plainHTTP, hosts []string
	dryRun           bool
}

func (f *seedFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.registry, "registry", "", "registry to seed: HOST[:PORT][/PREFIX]")
	f.trust.addUse(c)
	c.Flags().StringVar(&f.index, "index", "", "what stands for an index of which only some platforms travel: original, derived or platform (default: the original, and an error where the registry refuses it)")
	c.Flags().BoolVar(&f.moveTags, "move-tags", false, "allow tags of the registry to be moved to other digests")
	c.Flags().IntVar(&f.jobs, "jobs", install.DefaultJobs, "blobs to send at the same time")
	c.Flags().StringSliceVar(&f.plainHTTP, "plain-http", nil, "registry host[:port] to speak to without TLS (repeatable)")
	c.Flags().StringSliceVar(&f.hosts, "allow-host", nil, "host that the registry may send us to, as for tokens or storage; nothing else is ever connected to (repeatable)")
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "change nothing; print what would be done")
	onlyFlag(c.Flags(), "move-tags")
	onlyFlag(c.Flags(), "allow-host")
	onlyFlag(c.Flags(), "dry-run")
}

func (f *seedFlags) options(a *app, cmd *cobra.Command, report progress.Reporter) (install.SeedOptions, error) {
	var o install.SeedOptions
	usage := func(err error) error { return &usageError{err, cmd.CommandPath()} }
	if f.registry == "" {
		return o, usage(errors.New("no --registry is named; 'sealift serve --store DIR' runs one where there is none"))
	}
	if f.jobs < 1 || f.jobs > 64 {
		return o, usage(fmt.Errorf("--jobs %d is not from 1 to 64", f.jobs))
	}
	target, err := install.ParseTarget(f.registry)
	if err != nil {
		return o, usage(err)
	}
	index, err := install.ParseIndexMode(f.index)
	if err != nil {
		return o, usage(err)
	}
	return install.SeedOptions{
		Client: oci.NewClient(oci.Options{
			Side: "target registry", Keychain: oci.Keychain(a.noExec), PlainHTTP: f.plainHTTP,
			// No proxy: nothing here goes beyond the site.
			Transport: oci.NewTransport(nil, oci.WithDialer(a.dialer(target.Registry, f.hosts))), UserAgent: a.userAgent(),
		}),
		Target: target, Index: index, MoveTags: f.moveTags, Jobs: f.jobs, Progress: report,
	}, nil
}

func (a *app) seedCommand() *cobra.Command {
	var f seedFlags
	c := &cobra.Command{
		Use:   "seed BUNDLE...",
		Short: "Send the images and charts of a bundle to a registry",
		Long: `Check the signature of a bundle and send to a registry what is not there yet: blobs
straight out of the file, then manifests, children before parents, and the tags last.
Digests do not change. HOST/PREFIX/repository:tag is the name of an image that was called
registry/repository:tag; charts become HOST/PREFIX/charts/NAME:VERSION.

Every byte is proven against the signed manifest before the registry keeps it. Seeding
again sends only what is missing. What several bundles have in common is sent once.

` + placesHelp + `

` + streamHelp + ` It is read once: manifests and tags are
sent after all of it has been proven.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.seed(cmd, args, f) },
	}
	f.add(c)
	return c
}

// warn says what was found about bundles that are used nevertheless.
func (a *app) warn(bundles []*verify.Bundle) {
	for _, b := range bundles {
		e := b.Evidence()
		for _, text := range append(e.Overridden, e.Warnings...) {
			fmt.Fprintf(a.env.Stderr, "warning: %s: %s\n", printable(b.Path()), printable(text))
		}
	}
}

func (a *app) seed(cmd *cobra.Command, args []string, f seedFlags) (err error) {
	ctx := cmd.Context()
	o, err := f.options(a, cmd, a.reporter())
	if err != nil {
		return err
	}
	t, err := a.trusting(cmd, &f.trust)
	if err != nil {
		return err
	}
	bundles, done, err := a.openAll(cmd, args, t.policy, verify.Open)
	if err != nil {
		return err
	}
	defer done(&err)
	a.warn(bundles)
	accept, err := a.acceptOptions(t, "seed", o.Target.String())
	if err != nil && !f.dryRun {
		return err
	}
	s, err := install.Prepare(ctx, bundles, o)
	if err != nil {
		return err
	}
	if f.dryRun {
		if err := install.Rehearse(ctx, bundles, accept); err != nil {
			return err
		}
		return a.printSeeded(bundles, s.Preview(), nil)
	}
	if err := install.Prepared(ctx, bundles, accept); err != nil {
		return err
	}
	res, err := s.Run(ctx)
	if err != nil {
		return err
	}
	head, err := install.Accept(ctx, bundles, accept)
	if err != nil {
		return fmt.Errorf("all was done, but could not be recorded: %w", err)
	}
	return a.printSeeded(bundles, res, &head)
}

// printSeeded prints what was done, and the end of the journal; without one, what would be done.
func (a *app) printSeeded(bundles []*verify.Bundle, r *install.SeedResult, head *site.Head) error {
	dryRun := head == nil
	type seeded struct {
		Bundle  string `json:"bundle"`
		Version string `json:"version"`
		Digest  string `json:"digest"`
	}
	result := struct {
		*seeded
		Bundles []seeded `json:"bundles,omitempty"`
		DryRun  bool     `json:"dryRun"`
		*install.SeedResult
		Journal *site.Head `json:"journal,omitempty"`
	}{DryRun: dryRun, SeedResult: r, Journal: head}
	for _, b := range bundles {
		result.Bundles = append(result.Bundles, seeded{b.Manifest().Name, b.Manifest().Version, b.Evidence().Manifest})
	}
	if len(bundles) == 1 {
		result.seeded, result.Bundles = &result.Bundles[0], nil
	}
	return a.print(result, func(w io.Writer) {
		verb := "seeded"
		if dryRun {
			verb = "would seed"
		}
		fmt.Fprintf(w, "%s %s into %s\n", verb, titles(bundles), r.Registry)
		writeSeeded(w, r, dryRun)
		writeHead(w, head)
	})
}

func writeSeeded(w io.Writer, r *install.SeedResult, dryRun bool) {
	if r.UploadedBlobs+r.MountedBlobs+r.UploadedManifests+r.Tags == 0 {
		fmt.Fprintln(w, "  everything is there already")
	} else {
		send, store := "sent", "stored"
		if dryRun {
			send, store = "to send", "to store"
		}
		fmt.Fprintf(w, "  %s %s (%s), %d mounted, %d there already; %s and %s %s\n", count(r.UploadedBlobs, "blob"), send,
			archive.FormatBytes(r.UploadedBytes), r.MountedBlobs, r.ExistingBlobs, count(r.UploadedManifests, "manifest"), count(r.Tags, "tag"), store)
	}
	for _, m := range r.TagMoves {
		fmt.Fprintf(w, "  tag moves: %s from %s to %s\n", m.Reference, m.From, m.To)
	}
	for _, i := range r.Images {
		note := ""
		if i.Index != "" {
			note = fmt.Sprintf(" (%s index)", i.Index)
			if i.Index == install.IndexPlatform {
				note = " (only the platform's image)"
			}
		}
		fmt.Fprintf(w, "  %-7s  %s -> %s%s\n", i.Action, i.Source, i.Target, note)
	}
	actions := map[string]int{}
	for _, ref := range r.Referrers {
		actions[ref.Action]++
	}
	if len(r.Referrers) > 0 {
		send, merge := "sent", "merged with what is there"
		if dryRun {
			send, merge = "to send", "to merge with what is there"
		}
		fmt.Fprintf(w, "  signatures, attestations and the like: %d %s, %d %s, %d there already\n", actions[install.ActionSeeded]+actions[install.ActionSeed],
			send, actions[install.ActionMerged]+actions[install.ActionMerge], merge, actions[install.ActionPresent])
		if n := actions[install.ActionKept]; n > 0 {
			fmt.Fprintf(w, "  note: under %s the site has an SBOM of its own, which stays; the vendor's is there by its digest\n", count(n, "tag"))
		}
	}
	for _, u := range r.Unverifiable {
		fmt.Fprintf(w, "  note: signatures of %s are over %s and do not hold for %s (%d)\n", u.Source, u.Signed, u.Digest, u.Referrers)
	}
}
