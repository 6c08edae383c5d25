package cli

import (
	"errors"
	"fmt"
	"io"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/spf13/cobra"

	"github.com/sealift/sealift/install"
	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/progress"
	"github.com/sealift/sealift/verify"
)

// seedFlags are those of all commands that seed.
type seedFlags struct {
	registry, key, index string
	moveTags             bool
	jobs                 int
	plainHTTP            []string
	dryRun               bool
}

func (f *seedFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.registry, "registry", "", "registry to seed: HOST[:PORT][/PREFIX]")
	c.Flags().StringVar(&f.key, "key", "", "public key of the vendor")
	c.Flags().StringVar(&f.index, "index", "", "what stands for an index of which only some platforms travel: original, derived or platform (default: the original, and an error where the registry refuses it)")
	c.Flags().BoolVar(&f.moveTags, "move-tags", false, "allow tags of the registry to be moved to other digests")
	c.Flags().IntVar(&f.jobs, "jobs", install.DefaultJobs, "blobs to send at the same time")
	c.Flags().StringSliceVar(&f.plainHTTP, "plain-http", nil, "registry host[:port] to speak to without TLS (repeatable)")
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "change nothing; print what would be done")
	onlyFlag(c.Flags(), "move-tags")
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
			Side: "target registry", Keychain: authn.DefaultKeychain, PlainHTTP: f.plainHTTP,
			// No proxy: nothing here goes beyond the site.
			Transport: oci.NewTransport(nil), UserAgent: a.userAgent(),
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

func (a *app) seed(cmd *cobra.Command, args []string, f seedFlags) (err error) {
	ctx := cmd.Context()
	o, err := f.options(a, cmd, a.reporter())
	if err != nil {
		return err
	}
	bundles, done, err := a.openAll(cmd, args, f.key, verify.Open)
	if err != nil {
		return err
	}
	defer done(&err)
	s, err := install.Prepare(ctx, bundles, o)
	if err != nil {
		return err
	}
	if f.dryRun {
		return a.printSeeded(bundles, s.Preview(), true)
	}
	res, err := s.Run(ctx)
	if err != nil {
		return err
	}
	return a.printSeeded(bundles, res, false)
}

func (a *app) printSeeded(bundles []*verify.Bundle, r *install.SeedResult, dryRun bool) error {
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
	}{DryRun: dryRun, SeedResult: r}
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
}
