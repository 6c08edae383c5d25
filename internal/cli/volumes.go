package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/bundle"
	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/progress"
	"github.com/sealift/sealift/internal/sigstore"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// cutFlags are those of all commands that write bundles for media.
type cutFlags struct {
	volumeSize, parity, media, binaries string
	withBinary                          []string
}

func (f *cutFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.volumeSize, "volume-size", "", "cut the bundle into volumes of what fits on a medium (dvd, dvd-dl, bd25, bd50, fat32), or of this size (700MiB, 4.7GB …, which leaves a DVD no room for a file system)")
	c.Flags().StringVar(&f.parity, "parity", "", "add files that damage can be repaired with: a part of the bundle (10%), or volumes=N for N lost volumes")
	c.Flags().StringVar(&f.media, "media", "", "make this directory a medium: the bundle, SHA256SUMS and a README.txt with the commands for the site")
	c.Flags().StringSliceVar(&f.withBinary, "with-binary", nil, "platforms whose sealift program goes to the medium too, such as linux/amd64; others than this one are looked for in --binaries (repeatable)")
	c.Flags().StringVar(&f.binaries, "binaries", "", "directory with programs called sealift-OS-ARCH (default: that of this program)")
}

// cut is how a bundle is cut, and the medium it goes to.
type cut struct {
	volume int64
	parity bundle.Parity
	medium *bundle.Medium
}

func (f *cutFlags) parse(cmd *cobra.Command) (*cut, error) {
	usage := func(err error) (*cut, error) { return nil, &usageError{err, cmd.CommandPath()} }
	c := &cut{}
	var err error
	if c.parity, err = bundle.ParseParity(f.parity); err != nil {
		return usage(err)
	}
	var beside int64
	switch {
	case f.media != "":
		if err := c.findMedium(f); err != nil {
			return nil, err
		}
		beside = c.medium.Beside()
	case len(f.withBinary) > 0 || f.binaries != "":
		return usage(errors.New("--with-binary and --binaries go with --media"))
	}
	if f.volumeSize != "" {
		if c.volume, err = archive.ParseSize(f.volumeSize, beside); err != nil {
			return usage(err)
		}
	}
	if c.parity.Volumes > 0 && c.volume == 0 {
		return usage(fmt.Errorf("--parity volumes=%d needs --volume-size", c.parity.Volumes))
	}
	return c, nil
}

func (c *cut) findMedium(f *cutFlags) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	if self, err = filepath.EvalSymlinks(self); err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	dir := f.binaries
	if dir == "" {
		dir = filepath.Dir(self)
	}
	found, err := bundle.FindBinaries(f.withBinary, runtime.GOOS+"/"+runtime.GOARCH, self, dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(f.media, 0o755); err != nil {
		return fmt.Errorf("making the medium's directory: %w", err)
	}
	c.medium = &bundle.Medium{Dir: f.media, Binaries: found}
	return nil
}

// prepare takes the key that programs are signed with.
func (c *cut) prepare(s *sigstore.Signer) error {
	switch {
	case c.medium == nil:
	case s != nil:
		c.medium.Sign, c.medium.Key = s.SignReader, s.PublicKey().Fingerprint
	case len(c.medium.Binaries) > 0:
		return errors.New("--with-binary needs --key: the programs are signed like the bundle")
	}
	return nil
}

// finish completes the medium.
func (c *cut) finish(ctx context.Context, res *bundle.Result, m *manifest.Manifest, report progress.Reporter) ([]string, error) {
	if c.medium == nil {
		return nil, nil
	}
	return c.medium.Write(ctx, res, m, report)
}

// writeFiles lists what was written where that is more than one file.
func writeFiles(w io.Writer, res *bundle.Result, extras []string) {
	if res.ParitySize > 0 {
		fmt.Fprintf(w, "  parity  %s\n", archive.FormatBytes(res.ParitySize))
	}
	if len(res.Files)+len(extras) < 2 {
		return
	}
	for _, f := range append(res.Files, extras...) {
		size := ""
		if info, err := os.Stat(f); err == nil {
			size = archive.FormatBytes(info.Size())
		}
		fmt.Fprintf(w, "  file    %s  %s\n", f, size)
	}
}

func (a *app) splitCommand() *cobra.Command {
	var f cutFlags
	var out, key string
	var overwrite bool
	c := &cobra.Command{
		Use:   "split BUNDLE...",
		Short: "Cut a bundle into volumes",
		Long: `Write a bundle as volumes of --volume-size: BUNDLE.001, BUNDLE.002 and so on, which 'cat'
joins again. Nothing in it changes, so its signatures hold as before. The bundle may be in
volumes already; it is left as it is.

` + filesHelp,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case f.volumeSize == "" && f.media == "":
				return &usageError{errors.New("neither --volume-size nor --media is named"), cmd.CommandPath()}
			case out == "" && f.media == "":
				// Beside the file itself they would be passed over: a directory with both means
				// the file.
				return &usageError{errors.New("neither --out nor --media is named"), cmd.CommandPath()}
			}
			return a.convert(cmd, args, f, conversion{out, key, overwrite, "split"})
		},
	}
	f.add(c)
	c.Flags().StringVarP(&out, "out", "o", "", "directory to write to, made if need be")
	c.Flags().StringVar(&key, "key", "", "private key to sign programs with (--with-binary; password: COSIGN_PASSWORD)")
	c.Flags().BoolVar(&overwrite, "overwrite", false, "replace volumes that are there")
	onlyFlag(c.Flags(), "overwrite")
	return c
}

func (a *app) joinCommand() *cobra.Command {
	var out string
	var overwrite bool
	c := &cobra.Command{
		Use:   "join BUNDLE...",
		Short: "Join the volumes of a bundle to one file",
		Long: `Write the volumes of a bundle as one file, as 'cat' would, and check that it is whole. That
is seldom needed: every command reads volumes where they are. The volumes are left.

` + filesHelp,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.convert(cmd, args, cutFlags{}, conversion{out, "", overwrite, "joined"})
		},
	}
	c.Flags().StringVarP(&out, "out", "o", "", "directory to write to, made if need be, or a file ending in .zst (default: beside the volumes)")
	c.Flags().BoolVar(&overwrite, "overwrite", false, "replace a file that is there")
	onlyFlag(c.Flags(), "overwrite")
	return c
}

type conversion struct {
	out, key  string
	overwrite bool
	verb      string
}

// convert writes a bundle anew, cut otherwise.
func (a *app) convert(cmd *cobra.Command, args []string, f cutFlags, o conversion) error {
	ctx := cmd.Context()
	if f.media != "" && o.out != "" {
		return &usageError{errors.New("--media and --out exclude each other: the bundle goes to the medium"), cmd.CommandPath()}
	}
	cut, err := f.parse(cmd)
	if err != nil {
		return err
	}
	var signer *sigstore.Signer
	if o.key != "" {
		if signer, err = a.signer(ctx, o.key); err != nil {
			return err
		}
	}
	if err := cut.prepare(signer); err != nil {
		return &usageError{err, cmd.CommandPath()}
	}
	files, err := findOne(cmd, args)
	if err != nil {
		return err
	}
	report := a.reporter()
	opts := bundle.CutOptions{Output: o.out, Volume: cut.volume, Parity: cut.parity, Overwrite: o.overwrite, Progress: report}
	if cut.medium != nil {
		opts.Output = cut.medium.Dir
	}
	res, m, err := bundle.Cut(ctx, files, opts)
	if err != nil {
		return err
	}
	extras, err := cut.finish(ctx, res, m, report)
	if err != nil {
		return err
	}
	return a.printCut(o.verb, res, m, extras)
}

func (a *app) printCut(verb string, res *bundle.Result, m *manifest.Manifest, extras []string) error {
	result := struct {
		File       string   `json:"file"`
		Files      []string `json:"files"`
		Name       string   `json:"name"`
		Version    string   `json:"version"`
		Digest     string   `json:"digest"`
		Size       int64    `json:"size"`
		ParitySize int64    `json:"paritySize,omitempty"`
	}{res.Path, append(res.Files, extras...), m.Name, m.Version, res.Digest, res.Size, res.ParitySize}
	return a.print(result, func(w io.Writer) {
		fmt.Fprintf(w, "%s %s: %s, not checked who signed it\n", verb, res.Path, title(m))
		fmt.Fprintf(w, "  digest  %s\n", res.Digest)
		fmt.Fprintf(w, "  size    %s\n", archive.FormatBytes(res.Size))
		writeFiles(w, res, extras)
	})
}

func (a *app) parityCommand() *cobra.Command {
	var size string
	c := &cobra.Command{
		Use:   "parity BUNDLE... --size SIZE",
		Short: "Add files to a bundle that damage can be repaired with",
		Long: `Write parity files, BUNDLE.par001 and so on, beside a bundle, or beside its first volume.
'sealift repair' restores with them what is damaged or missing later, up to their size.

` + filesHelp,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := bundle.ParseParity(size)
			if err == nil && p == (bundle.Parity{}) {
				err = errors.New("no --size is named")
			}
			if err != nil {
				return &usageError{err, cmd.CommandPath()}
			}
			files, err := findOne(cmd, args)
			if err != nil {
				return err
			}
			res, m, err := bundle.AddParity(cmd.Context(), files, p, a.reporter())
			if err != nil {
				return err
			}
			return a.printCut("made parity for", res, m, nil)
		},
	}
	c.Flags().StringVar(&size, "size", "", "how much: a part of the bundle (10%), or volumes=N for N lost volumes")
	return c
}

func (a *app) repairCommand() *cobra.Command {
	var t trustFlags
	var out string
	var inPlace bool
	c := &cobra.Command{
		Use:   "repair BUNDLE...",
		Short: "Restore what is damaged or missing, with parity files",
		Long: `Restore a damaged bundle from its parity files, and prove the result: the signature, and
every byte. What is good is not written again: of a bundle in volumes only the broken ones
are written to --out; name that directory after the others from then on, since of two copies
of a volume the last one named counts. Nothing that is there is changed, unless --in-place is given: then only what is damaged is written over.

` + filesHelp + `
Parity files are found in the same directories.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.repair(cmd, args, &t, out, inPlace) },
	}
	t.add(c)
	c.Flags().StringVarP(&out, "out", "o", "", "directory to write to what was restored, made if need be")
	c.Flags().BoolVar(&inPlace, "in-place", false, "write over what is damaged, in the files themselves")
	onlyFlag(c.Flags(), "in-place")
	return c
}

func (a *app) repair(cmd *cobra.Command, args []string, f *trustFlags, out string, inPlace bool) error {
	if out == "" && !inPlace {
		return &usageError{errors.New("neither --out nor --in-place is named"), cmd.CommandPath()}
	}
	if out != "" && inPlace {
		return &usageError{errors.New("--out and --in-place exclude each other"), cmd.CommandPath()}
	}
	t, err := a.trusting(cmd, f)
	if err != nil {
		return err
	}
	files, err := findOne(cmd, args)
	if err != nil {
		return err
	}
	res, err := verify.Repair(cmd.Context(), files, t.policy, verify.RepairOptions{Dir: out, Progress: a.reporter()})
	if err != nil {
		return err
	}
	return a.print(res, func(w io.Writer) {
		if len(res.Files) == 0 {
			fmt.Fprintf(w, "%s: nothing is damaged\n", files.Name)
		} else {
			fmt.Fprintf(w, "%s: restored %s, every byte is as signed\n", files.Name, archive.FormatBytes(res.Restored))
		}
		fmt.Fprintf(w, "  digest     %s\n", res.Evidence.Manifest)
		writeEvidence(w, &res.Evidence)
		for _, f := range res.Files {
			fmt.Fprintf(w, "  wrote      %s\n", f)
		}
		for _, f := range res.Unusable {
			fmt.Fprintf(w, "  parity     %s\n", f)
		}
	})
}
