package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/sealift/sealift/install"
	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// formatDirectory is the format of an extract that is no archive.
const formatDirectory = "oci-dir"

// archiveHelp is what extract says of its other formats.
const archiveHelp = `With --format oci-archive or docker-archive it is one file with images only: what
'podman load', 'docker load', 'ctr images import' and skopeo take. An oci-archive has all platforms
that travel, or that of --platform. In a docker-archive an image is for one: that of --platform,
else the only one that travels, else this machine's. --image chooses images by their references.
With -o - the archive goes to standard output. It is written in one pass, so that BUNDLE may be -
for a stream on standard input.`

// archiveFlags say what is written to an archive.
type archiveFlags struct {
	format, platform string
	images           []string
}

func (f *archiveFlags) add(c *cobra.Command) {
	fs := c.Flags()
	fs.StringVar(&f.format, "format", formatDirectory, "what to write: oci-dir, oci-archive or docker-archive")
	fs.StringArrayVar(&f.images, "image", nil, "reference of an image to put into the archive (repeatable; default: all images)")
	fs.StringVar(&f.platform, "platform", "", "os/arch[/variant] to put into the archive")
	for _, name := range []string{"format", "image", "platform"} {
		onlyFlag(fs, name)
	}
}

// unused refuses the flags that are for archives, where none is written.
func (f *archiveFlags) unused(cmd *cobra.Command) error {
	for _, name := range []string{"image", "platform"} {
		if cmd.Flags().Changed(name) {
			return &usageError{fmt.Errorf("--%s is for --format %s and %s", name, install.ArchiveOCI, install.ArchiveDocker), cmd.CommandPath()}
		}
	}
	return nil
}

// extractArchive writes images to an archive.
func (a *app) extractArchive(cmd *cobra.Command, args []string, f *trustFlags, o install.ExtractOptions, flags archiveFlags) (err error) {
	usage := func(err error) error { return &usageError{err, cmd.CommandPath()} }
	format := install.ArchiveFormat(flags.format)
	toStdout := o.Dir == standardInput
	switch {
	case format != install.ArchiveOCI && format != install.ArchiveDocker:
		return usage(fmt.Errorf("--format %q is none of %s, %s, %s", flags.format, formatDirectory, install.ArchiveOCI, install.ArchiveDocker))
	case o.OnlyFiles:
		return usage(fmt.Errorf("a %s has images only: --only-files is for --format %s", format, formatDirectory))
	case toStdout && a.output == "json":
		return usage(errors.New("with -o - the archive is what goes to standard output: --output json has no place there"))
	case toStdout && isTerminal(a.env.Stdout):
		return usage(errors.New("standard output is a terminal: name a file with -o, or lead it to one"))
	}
	if flags.platform != "" {
		if err := manifest.CheckPlatform(flags.platform); err != nil {
			return usage(fmt.Errorf("--platform: %w", err))
		}
	}
	t, err := a.trusting(cmd, f)
	if err != nil {
		return err
	}
	bundles, done, err := a.openAll(cmd, args, t.policy, verify.Open)
	if err != nil {
		return err
	}
	defer done(&err)
	if len(bundles) != 1 {
		return usage(fmt.Errorf("one bundle is wanted, %d are named: %s", len(bundles), titles(bundles)))
	}
	b := bundles[0]
	if err := a.keepReason(cmd.Context(), t, "extract", bundles); err != nil {
		return err
	}
	options := install.ArchiveOptions{
		Format: format, Images: flags.images, Platform: flags.platform, Machine: "linux/" + runtime.GOARCH, Progress: a.reporter(),
	}
	var res *install.Archived
	if toStdout {
		res, err = install.Archive(cmd.Context(), b, a.env.Stdout, options)
	} else {
		if o.Dir == "" {
			o.Dir = fmt.Sprintf("%s-%s.%s.tar", b.Manifest().Name, b.Manifest().Version, format)
		}
		res, err = install.ArchiveFile(cmd.Context(), b, o.Dir, options)
	}
	if err != nil {
		return interrupted(cmd.Context(), err)
	}
	a.warnings(archiveWarnings(format, res))
	if toStdout {
		writeArchived(a.env.Stderr, b, "standard output", res)
		return nil
	}
	return a.print(struct {
		Bundle  string                `json:"bundle"`
		Version string                `json:"version"`
		File    string                `json:"file"`
		Format  install.ArchiveFormat `json:"format"`
		*install.Archived
		Evidence verify.Evidence `json:"evidence"`
	}{b.Manifest().Name, b.Manifest().Version, o.Dir, format, res, b.Evidence()}, func(w io.Writer) { writeArchived(w, b, o.Dir, res) })
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func writeArchived(w io.Writer, b *verify.Bundle, to string, res *install.Archived) {
	e := b.Evidence()
	fmt.Fprintf(w, "extracted %s of %s to %s\n", count(len(res.Images), "image"), title(b.Manifest()), to)
	fmt.Fprintf(w, "  digest     %s\n", e.Manifest)
	writeEvidence(w, &e)
	fmt.Fprintf(w, "  content    %s (%s)\n", count(res.Blobs, "blob"), archive.FormatBytes(res.Bytes))
	for _, i := range res.Images {
		platform := ""
		if i.Platform != "" {
			platform = " for " + i.Platform
		}
		fmt.Fprintf(w, "  image      %s%s\n", i.Name, platform)
	}
}

// archiveWarnings say which images the tools that load the archive may not find.
func archiveWarnings(format install.ArchiveFormat, res *install.Archived) []string {
	var lines []string
	for _, i := range res.Images {
		switch {
		case format == install.ArchiveDocker && i.Untagged:
			lines = append(lines, fmt.Sprintf("%s has no tag: docker and podman load it without a name, to be used by its ID", i.Source))
		case format == install.ArchiveOCI && i.Untagged && i.Platform != "" && !sameDigest(i):
			lines = append(lines, fmt.Sprintf("%s has no tag: as the image of one platform it is called %s", i.Source, i.Name))
		}
	}
	if n := len(res.Images); format == install.ArchiveOCI && n > 1 && slices.ContainsFunc(res.Images, func(i install.ArchivedImage) bool { return i.Docker }) {
		lines = append(lines, fmt.Sprintf("among the %d images are some of docker's own media types, which podman and skopeo do not find by name in an %s: for these use --format %s", n, format, install.ArchiveDocker))
	}
	if n := len(res.Images); format == install.ArchiveOCI && n > 1 {
		lines = append(lines, fmt.Sprintf("'podman load' takes an %s of one image only: use --image, --format %s, or 'podman pull %s:FILE:NAME'", format, install.ArchiveDocker, format))
	}
	return lines
}

// sameDigest reports whether an image that has only a digest is still called by it.
func sameDigest(i install.ArchivedImage) bool {
	_, _, digest := manifest.SplitSource(i.Source)
	return digest == i.Digest
}
