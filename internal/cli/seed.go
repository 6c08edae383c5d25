package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/install"
	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/progress"
	"github.com/sealift/sealift/internal/publish"
	"github.com/sealift/sealift/internal/registry"
	"github.com/sealift/sealift/internal/site"
	"github.com/sealift/sealift/verify"
)

// seedFlags are those of all commands that seed.
type seedFlags struct {
	trust    trustFlags
	access   accessFlags
	names    nameFlags
	store    string
	moveTags bool
	jobs     int
	dryRun   bool
}

func (f *seedFlags) add(c *cobra.Command) {
	f.names.add(c)
	f.trust.addUse(c)
	f.access.add(c)
	c.Flags().StringVar(&f.store, "store", "", "directory of the embedded registry to write to, instead of a registry that is running; it may be served meanwhile")
	c.Flags().BoolVar(&f.moveTags, "move-tags", false, "allow tags of the registry to be moved to other digests")
	c.Flags().IntVar(&f.jobs, "jobs", install.DefaultJobs, "blobs to send at the same time")
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "change nothing; print what would be done")
	onlyFlag(c.Flags(), "store")
	onlyFlag(c.Flags(), "move-tags")
	onlyFlag(c.Flags(), "dry-run")
}

// target is a registry that is to be seeded.
type target struct {
	install.SeedOptions
	named *naming
	// store is the directory that is written to, empty for a registry; close lets go of it.
	store string
	close func() error
}

// String says where things go.
func (t *target) String() string {
	if t.store != "" {
		return fmt.Sprintf("store %s, as %s", t.store, t.Target)
	}
	return t.Target.String()
}

// done closes the target at the end of a function that returns *err.
func (t *target) done(err *error) {
	if e := t.close(); *err == nil {
		*err = e
	}
}

// StoreFullError says that there is no room for a store.
type StoreFullError struct {
	Dir string
	Err error
}

// Error names the directory.
func (e *StoreFullError) Error() string {
	return fmt.Sprintf("writing to store %q: no space left on device: %v", e.Dir, e.Err)
}

// Unwrap returns what a file system would have said, and what was being done.
func (e *StoreFullError) Unwrap() []error { return []error{syscall.ENOSPC, e.Err} }

// run sends what is missing.
func (t *target) run(ctx context.Context, s *install.Seeding) (*install.SeedResult, error) {
	r, err := s.Run(ctx)
	if t.store != "" && oci.IsNoSpace(err) {
		err = &StoreFullError{t.store, err}
	}
	return r, err
}

// served is what images are called in a store of which nobody says how it is served: as on the machine
// itself, where 'sealift serve' listens unless it is told otherwise.
const served = "localhost:5000"

// prepare compares bundles with the target.
func (t *target) prepare(ctx context.Context, bundles []*verify.Bundle) (*install.Seeding, error) {
	o := t.SeedOptions
	o.Held = map[string]string{}
	for _, b := range bundles {
		if ref, err := publish.ParseReference(b.Path()); err == nil && ref.Registry == o.Target.Registry {
			o.Held[b.Path()] = ref.Repository
		}
	}
	return install.Prepare(ctx, bundles, o)
}

// target makes ready what is to be seeded, and how. The caller closes it.
func (f *seedFlags) target(a *app, cmd *cobra.Command, report progress.Reporter) (*target, error) {
	if f.jobs < 1 || f.jobs > 64 {
		return nil, &usageError{fmt.Errorf("--jobs %d is not from 1 to 64", f.jobs), cmd.CommandPath()}
	}
	named, err := f.names.resolve(a, cmd, &f.access, f.store != "")
	if err != nil {
		return nil, err
	}
	t := &target{
		SeedOptions: install.SeedOptions{Target: named.target, Index: named.index, MoveTags: f.moveTags, Jobs: f.jobs, Progress: report},
		named:       named, store: f.store, close: func() error { return nil },
	}
	if f.store == "" {
		t.Client, err = f.access.client(a, cmd, "target registry", named.target.Registry)
		return t, err
	}
	for _, name := range []string{"username", "password-stdin", "password-file", "ca-file", "client-cert", "client-key", "plain-http", "allow-host"} {
		if flag := cmd.Flags().Lookup(name); flag.Changed && fromVariable(cmd, name) == "" {
			return nil, &usageError{fmt.Errorf("--store and --%s exclude each other: no connection is made", name), cmd.CommandPath()}
		}
	}
	open := registry.OpenStore
	if f.dryRun {
		// To look at a store is no reason to make one, or to change it.
		if _, err := os.Stat(f.store); err != nil {
			return nil, fmt.Errorf("opening store: %w", err)
		}
		open = registry.ReadStore
	}
	store, err := open(cmd.Context(), f.store)
	if err != nil {
		return nil, err
	}
	t.close = store.Close
	t.Client = oci.NewClient(oci.Options{
		Side: "store " + f.store + " as", Transport: store.Transport(), PlainHTTP: []string{named.target.Registry}, UserAgent: a.userAgent(),
	})
	return t, nil
}

func (a *app) seedCommand() *cobra.Command {
	var f seedFlags
	c := &cobra.Command{
		Use:   "seed BUNDLE...",
		Short: "Send the images and charts of a bundle to a registry",
		Long: `Check the signature of a bundle and send to a registry what is not there yet: blobs
straight out of the file, then manifests, children before parents, and the tags last.
Digests do not change.

` + namesHelp + `

Every byte is proven against the signed manifest before the registry keeps it. Seeding
again sends only what is missing. What several bundles have in common is sent once.

` + accessHelp + `

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
			a.warnings([]string{b.Path() + ": " + text})
		}
	}
}

func (a *app) seed(cmd *cobra.Command, args []string, f seedFlags) (err error) {
	ctx := cmd.Context()
	o, err := f.target(a, cmd, a.reporter())
	if err != nil {
		return err
	}
	defer o.done(&err)
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
	accept, err := a.acceptOptions(t, "seed", o.String())
	if err != nil && !f.dryRun {
		return err
	}
	s, err := o.prepare(ctx, bundles)
	if err != nil {
		return err
	}
	if f.dryRun {
		if err := install.Rehearse(ctx, bundles, accept); err != nil {
			return err
		}
		return a.printSeeded(o, bundles, s.Preview(), nil)
	}
	if err := install.Prepared(ctx, bundles, accept); err != nil {
		return err
	}
	res, err := o.run(ctx, s)
	if err != nil {
		return err
	}
	o.named.keep(ctx, a)
	head, err := install.Accept(ctx, bundles, accept)
	if err != nil {
		return fmt.Errorf("all was done, but could not be recorded: %w", err)
	}
	return a.printSeeded(o, bundles, res, &head)
}

// printSeeded prints what was done, and the end of the journal; without one, what would be done.
func (a *app) printSeeded(t *target, bundles []*verify.Bundle, r *install.SeedResult, head *site.Head) error {
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
		Store   string   `json:"store,omitempty"`
		*install.SeedResult
		Journal *site.Head `json:"journal,omitempty"`
	}{DryRun: dryRun, Store: t.store, SeedResult: r, Journal: head}
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
		fmt.Fprintf(w, "%s %s into %s\n", verb, titles(bundles), t)
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
