package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/bundle"
	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/sigstore"
	"github.com/sealift/sealift/internal/trust"
	"github.com/sealift/sealift/manifest"
)

func (a *app) userAgent() string { return "sealift/" + version }

func (a *app) initCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "init [DIR]",
		Short: "Write a commented spec to start from",
		Long:  "Write DIR/sealift.yaml, a commented spec to start from. A file that is there is never overwritten.",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			dir := "."
			if len(args) > 0 {
				dir = args[0]
			}
			return a.init(dir)
		},
	}
}

var notName = regexp.MustCompile(`[^a-z0-9]+`)

func (a *app) init(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("making directory: %w", err)
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("finding directory: %w", err)
	}
	// The directory's name is the likeliest name of the product.
	name := strings.Trim(notName.ReplaceAllString(strings.ToLower(filepath.Base(abs)), "-"), "-")
	if manifest.CheckName(name) != nil {
		name = "product"
	}
	path := filepath.Join(dir, "sealift.yaml")
	if err := writeNew(path, []byte(fmt.Sprintf(bundle.SampleSpec, name)), 0o644); err != nil {
		return err
	}
	return a.print(struct {
		Spec string `json:"spec"`
	}{path}, func(w io.Writer) {
		fmt.Fprintf(w, "wrote %s\nnext: name charts or images in it; 'sealift images' shows what they lead to, 'sealift lock' pins it; then 'sealift keygen' and 'sealift pack --key cosign.key'\n", path)
	})
}

type packFlags struct {
	sourceFlags
	output, key, roots           string
	unsigned, overwrite, restart bool
	frozen, strict               bool
	jobs                         int
	readBack                     bool
	cut                          cutFlags
}

func (a *app) packCommand() *cobra.Command {
	var f packFlags
	c := &cobra.Command{
		Use:   "pack",
		Short: "Pack a spec into one signed bundle file",
		Long: `Resolve everything that a spec names to digests, find the images of its charts by
rendering them, and write NAME-VERSION.tar.zst, or its volumes.

A pack that was interrupted, by whatever, goes on when the same command is run again: what
was fetched is proven by its digest and not fetched again. The bytes that come out are the
same.

What the lock beside the spec pins ('sealift lock') is taken as it is there, its time included;
with it, or with SOURCE_DATE_EPOCH set, the same content gives the same bytes, signatures
aside. With --frozen a lock that is missing, or not up to date, is an error.

` + sourceHelp,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.pack(cmd, f) },
	}
	f.add(c)
	c.Flags().BoolVar(&f.frozen, "frozen", false, "refuse to pack anything that the lock does not pin")
	c.Flags().BoolVar(&f.strict, "strict", false, "refuse where there would be a warning about the spec, or about what it leads to")
	c.Flags().StringVarP(&f.output, "out", "o", ".", "directory to write to (made if need be), or a file ending in .zst")
	c.Flags().StringVar(&f.key, "key", "", "private key to sign with (password: COSIGN_PASSWORD), or NAME://… for one that a KMS plugin holds")
	c.Flags().StringVar(&f.roots, "roots", "", "directory with the vendor's root documents, N.root.json, which travel in the bundle (default: roots: of the spec)")
	c.Flags().BoolVar(&f.unsigned, "unsigned", false, "do not sign; no site accepts the bundle until it is signed")
	c.Flags().BoolVar(&f.overwrite, "overwrite", false, "replace a bundle that is there")
	c.Flags().BoolVar(&f.restart, "restart", false, "throw away what an interrupted pack of something else left")
	c.Flags().IntVar(&f.jobs, "jobs", bundle.DefaultJobs, "blobs to fetch at the same time")
	c.Flags().BoolVar(&f.readBack, "verify-after", false, "read everything back from the disk and prove it before the bundle gets its name")
	f.cut.add(c)
	onlyFlag(c.Flags(), "unsigned")
	onlyFlag(c.Flags(), "overwrite")
	onlyFlag(c.Flags(), "restart")
	return c
}

func (a *app) pack(cmd *cobra.Command, f packFlags) (err error) {
	ctx, begun := cmd.Context(), a.env.Now()
	usage := func(err error) error { return &usageError{err, cmd.CommandPath()} }
	if f.key != "" && f.unsigned {
		return usage(errors.New("--key and --unsigned exclude each other"))
	}
	if f.jobs < 1 || f.jobs > 64 {
		return usage(fmt.Errorf("--jobs %d is not from 1 to 64", f.jobs))
	}
	if f.cut.media != "" && cmd.Flags().Changed("out") {
		return usage(errors.New("--media and --out exclude each other: the bundle goes to the medium"))
	}
	cut, err := f.cut.parse(cmd)
	if err != nil {
		return err
	}
	spec, err := bundle.LoadSpec(f.spec)
	if err != nil {
		return err
	}
	if f.key == "" && !f.unsigned {
		return errNoKey
	}
	created, fixed, err := a.created()
	if err != nil {
		return err
	}
	// A wrong password is told before an hour of downloads, not after it.
	opts := bundle.PackOptions{
		Output: f.output, Overwrite: f.overwrite, Restart: f.restart, FixedTime: fixed, Volume: cut.volume, Parity: cut.parity,
		ReadBack: f.readBack, Jobs: f.jobs, Progress: a.reporter(),
	}
	if cut.medium != nil {
		opts.Output, opts.Beside = cut.medium.Dir, cut.medium.Beside()
	}
	if f.roots == "" {
		f.roots = spec.RootsDir()
	}
	if f.roots != "" {
		if opts.Roots, err = readRoots(f.roots); err != nil {
			return err
		}
	}
	var signer *sigstore.Signer
	if f.key != "" {
		if signer, err = a.signer(ctx, f.key); err != nil {
			return err
		}
		opts.Sign, opts.Signed = signer.Sign, signer.PublicKey().Verify
	}
	if err := cut.prepare(signer); err != nil {
		return usage(err)
	}
	if cut.medium != nil {
		if err := cut.medium.Check(&manifest.Manifest{Name: spec.Name, Version: spec.Version}); err != nil {
			return err
		}
	}
	sources, err := f.open(a, cmd, opts.Progress)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sources.close()) }()
	sources.Created = created
	resolved, pinned, err := a.resolve(cmd, spec, &f, sources)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, resolved.Close()) }()
	// The lock's time counts, also where SOURCE_DATE_EPOCH says another: two packs from one lock are
	// the same.
	if pinned != "" {
		resolved.Manifest.Created, opts.FixedTime = pinned, true
	}
	res, err := resolved.Pack(ctx, opts)
	if err != nil {
		return err
	}
	extras, err := cut.finish(ctx, res, resolved.Manifest, opts.Progress)
	if err != nil {
		return err
	}
	return a.printPacked(f, res, resolved, signer, extras, a.env.Now().Sub(begun))
}

// StrictError says that there were warnings where none were to be.
type StrictError struct{ Warnings []string }

// Error has a line for each.
func (e *StrictError) Error() string {
	return "with --strict, nothing is packed that there is a warning about:\n  " + strings.Join(e.Warnings, "\n  ")
}

// resolve resolves a spec with its lock. pinned is the time that the lock says, where it is up to date.
func (a *app) resolve(cmd *cobra.Command, spec *bundle.Spec, f *packFlags, s *sources) (r *bundle.Resolved, pinned string, err error) {
	path := bundle.LockPath(f.spec)
	if s.Lock, err = readLock(f.spec); err != nil {
		return nil, "", err
	}
	if f.frozen && s.Lock == nil {
		return nil, "", &bundle.NoLockError{Path: path}
	}
	if r, err = bundle.Resolve(cmd.Context(), spec, s.Options); err != nil {
		return nil, "", err
	}
	if n := len(r.Discovery.Unused); n > 0 {
		r.Warnings = append(r.Warnings, fmt.Sprintf("the values of charts name %s that nothing uses: possibly missing; 'sealift images' lists where", count(n, "image")))
	}
	if f.strict && len(r.Warnings) > 0 {
		return nil, "", errors.Join(&StrictError{r.Warnings}, r.Close())
	}
	a.warnings(r.Warnings)
	if s.Lock == nil {
		return r, "", nil
	}
	stale := s.Lock.Stale(r.Lock)
	if len(stale) == 0 {
		return r, s.Lock.Created, nil
	}
	e := &bundle.StaleLockError{Path: path, Changes: stale}
	if f.frozen || f.strict {
		return nil, "", errors.Join(e, r.Close())
	}
	a.warnings([]string{e.Error()})
	return r, "", nil
}

func (a *app) printPacked(f packFlags, res *bundle.Result, resolved *bundle.Resolved, signer *sigstore.Signer, extras []string, took time.Duration) error {
	m, largest := resolved.Manifest, resolved.Largest(largestShown)
	charts, plain := chartsOf(m)
	result := struct {
		File        string             `json:"file"`
		Files       []string           `json:"files"`
		Name        string             `json:"name"`
		Version     string             `json:"version"`
		Digest      string             `json:"digest"`
		Size        int64              `json:"size"`
		ParitySize  int64              `json:"paritySize,omitempty"`
		Images      int                `json:"images"`
		Artifacts   int                `json:"artifacts"`
		Charts      int                `json:"charts"`
		Manifests   int                `json:"manifests"`
		PackedFiles int                `json:"packedFiles"`
		Blobs       int                `json:"blobs"`
		Largest     []bundle.LargeBlob `json:"largest"`
		Warnings    []string           `json:"warnings"`
		Key         string             `json:"key,omitempty"`
		Resumed     int64              `json:"resumed,omitempty"`
		Unchanged   bool               `json:"unchanged,omitempty"`
		Seconds     float64            `json:"seconds"`
	}{
		res.Path, append(res.Files, extras...), m.Name, m.Version, res.Digest, res.Size, res.ParitySize, len(m.Images), len(m.Artifacts), charts, plain, len(m.Files),
		len(m.Blobs), largest, append([]string{}, resolved.Warnings...), "", res.Resumed, res.Unchanged, took.Seconds(),
	}
	if signer != nil {
		result.Key = signer.PublicKey().Fingerprint
	}
	a.warnPacked(f, m, signer)
	if f.unsigned {
		fmt.Fprintf(a.env.Stderr, "warning: %s is not signed: no site accepts it\n", res.Path)
	}
	return a.print(result, func(w io.Writer) {
		if res.Unchanged {
			fmt.Fprintf(w, "%s is there already, with the very same content\n", res.Path)
		} else {
			fmt.Fprintf(w, "packed %s\n", res.Path)
		}
		fmt.Fprintf(w, "  digest  %s\n", res.Digest)
		fmt.Fprintf(w, "  size    %s: %s, in %.1f s\n", archive.FormatBytes(res.Size), contents(m), took.Seconds())
		if result.Key != "" {
			fmt.Fprintf(w, "  signed  by key sha256:%s\n", result.Key)
		}
		if res.Resumed > 0 {
			fmt.Fprintf(w, "  resumed %s were there from an interrupted run\n", archive.FormatBytes(res.Resumed))
		}
		writeFiles(w, res, extras)
		if len(largest) > 0 {
			fmt.Fprintf(w, "  largest %s\n", describeLarge(largest[0]))
			for _, l := range largest[1:] {
				fmt.Fprintf(w, "          %s\n", describeLarge(l))
			}
		}
	})
}

// largestShown is how many of the largest blobs a pack names.
const largestShown = 3

func describeLarge(l bundle.LargeBlob) string {
	s := fmt.Sprintf("%s of %s", archive.FormatBytes(l.Size), l.Of[0])
	if n := len(l.Of) - 1; n > 0 {
		s += fmt.Sprintf(" and %d more", n)
	}
	return s
}

// contents says what a bundle holds.
func contents(m *manifest.Manifest) string {
	charts, plain := chartsOf(m)
	parts := []string{count(len(m.Images), "image"), count(charts, "chart")}
	for _, more := range []struct {
		n    int
		what string
	}{{plain, "manifest"}, {len(m.Artifacts), "artifact"}, {len(m.Files), "file"}} {
		if more.n > 0 {
			parts = append(parts, count(more.n, more.what))
		}
	}
	if n := len(m.Ignored); n > 0 {
		parts = append(parts, fmt.Sprintf("%d left out", n))
	}
	return strings.Join(parts, ", ")
}

// chartsOf counts the charts, and those that were made of plain objects.
func chartsOf(m *manifest.Manifest) (charts, plain int) {
	for i := range m.Charts {
		if m.Charts[i].Plain {
			plain++
		}
	}
	return len(m.Charts) - plain, plain
}

// warnPacked says what would make sites refuse a bundle that is otherwise as it should be.
func (a *app) warnPacked(f packFlags, m *manifest.Manifest, signer *sigstore.Signer) {
	if ends, err := time.Parse(time.RFC3339, m.Expires); m.Expires != "" && err == nil && !ends.After(a.env.Now()) {
		fmt.Fprintf(a.env.Stderr, "warning: it expired on %s: no site accepts it\n", m.Expires)
	}
	if f.roots == "" || signer == nil {
		return
	}
	roots, err := readRoots(f.roots)
	if err != nil {
		return // it was read before, and what it is now is nobody's business here
	}
	last, err := trust.ParseRootFile(roots[len(roots)-1].Body)
	id := signer.PublicKey().Fingerprint
	if err == nil && !slices.Contains(last.Root.Release.Keys, id) {
		fmt.Fprintf(a.env.Stderr, "warning: version %d of the root %s does not name key sha256:%s: sites that go by it need another signature\n", last.Root.Version, last.Root.Name, id)
	}
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// created is the time that a manifest says: SOURCE_DATE_EPOCH, which is fixed, or now.
func (a *app) created() (created string, fixed bool, err error) {
	t := a.env.Now()
	if v := a.env.getenv("SOURCE_DATE_EPOCH"); v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n < 0 || n > 253402300799 { // the year 9999
			return "", false, fmt.Errorf("SOURCE_DATE_EPOCH %q is not a number of seconds since 1970", v)
		}
		t, fixed = time.Unix(n, 0), true
	}
	return t.UTC().Truncate(time.Second).Format(time.RFC3339), fixed, nil
}
