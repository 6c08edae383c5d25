package cli

import (
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/install"
	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

func (a *app) extractCommand() *cobra.Command {
	var t trustFlags
	var o install.ExtractOptions
	var f archiveFlags
	c := &cobra.Command{
		Use:   "extract BUNDLE...",
		Short: "Write what is inside: an OCI image layout, or an archive of images",
		Long: `Check the signature of a bundle and write what it carries to a directory: an OCI image
layout (oci-layout, index.json, blobs) that skopeo and others read, the signed manifest as
sealift.json, the charts as charts/NAME-VERSION.tgz, the files below files, and the release
notes as NOTES.md. Blobs are written as they were before they were packed, whatever their
encoding in the file. With --only-files there are only files and release notes.

Every blob is proven while it is copied. The directory gets its name when all of it is
there; until then it is called DIR.partial. A directory that is there is filled if it is
empty, through a directory .partial in it.

` + archiveHelp + `

` + placesHelp,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.format != formatDirectory {
				return a.extractArchive(cmd, args, &t, o, f)
			}
			if err := f.unused(cmd); err != nil {
				return err
			}
			return a.extract(cmd, args, &t, o)
		},
	}
	c.Flags().StringVarP(&o.Dir, "out", "o", "", "directory to write to, made if need be; one that is there must be empty (default: NAME-VERSION); with an archive the file, or - for standard output (default: NAME-VERSION.FORMAT.tar)")
	f.add(c)
	t.addUse(c)
	c.Flags().BoolVar(&o.OnlyFiles, "only-files", false, "write only the files and the release notes")
	c.Flags().IntVar(&o.Jobs, "jobs", install.DefaultJobs, "blobs to copy at the same time")
	return c
}

func (a *app) extract(cmd *cobra.Command, args []string, f *trustFlags, o install.ExtractOptions) (err error) {
	if o.Jobs < 1 || o.Jobs > 64 {
		return &usageError{fmt.Errorf("--jobs %d is not from 1 to 64", o.Jobs), cmd.CommandPath()}
	}
	t, err := a.trusting(cmd, f)
	if err != nil {
		return err
	}
	b, done, err := a.open(cmd, args, t.policy)
	if err != nil {
		return err
	}
	defer done(&err)
	m := b.Manifest()
	if o.Dir == "" {
		// Both are made of letters, digits, dots, dashes and pluses, and the name begins with a
		// letter or a digit.
		o.Dir = m.Name + "-" + m.Version
	}
	if err := a.keepReason(cmd.Context(), t, "extract", []*verify.Bundle{b}); err != nil {
		return err
	}
	o.Progress = a.reporter()
	res, err := install.Extract(cmd.Context(), b, o)
	if err != nil {
		return err
	}
	result := struct {
		Bundle  string `json:"bundle"`
		Version string `json:"version"`
		*install.Extracted
		Images   int             `json:"images"`
		Evidence verify.Evidence `json:"evidence"`
	}{m.Name, m.Version, res, len(m.Images), b.Evidence()}
	return a.print(result, func(w io.Writer) {
		fmt.Fprintf(w, "extracted %s %s to %s\n", m.Name, m.Version, res.Directory)
		fmt.Fprintf(w, "  digest     %s\n", result.Evidence.Manifest)
		writeEvidence(w, &result.Evidence)
		fmt.Fprintf(w, "  content    %s (%s)\n", extractedContents(m, res), archive.FormatBytes(res.Bytes))
		for _, c := range res.Charts {
			fmt.Fprintf(w, "  chart      %s\n", c.Path)
		}
		for _, c := range res.Skipped {
			fmt.Fprintf(w, "  chart      %s %s only as blobs/%s: its file name would be another's, too, or is too long\n", c.Name, c.Version, strings.Replace(c.Digest, ":", "/", 1))
		}
		for _, f := range res.Files[:min(len(res.Files), filesShown)] {
			fmt.Fprintf(w, "  file       %s\n", f.Path)
		}
		if n := len(res.Files) - filesShown; n > 0 {
			fmt.Fprintf(w, "             and %d more below files\n", n)
		}
		if res.Notes != "" {
			fmt.Fprintf(w, "  notes      %s\n", res.Notes)
		}
		if o.OnlyFiles {
			return
		}
		if example := layoutReference(res.Directory, m.Images); example != "" {
			fmt.Fprintf(w, "it is an OCI image layout: skopeo inspect %s\n", example)
		}
	})
}

// filesShown is how many files are listed.
const filesShown = 20

func extractedContents(m *manifest.Manifest, res *install.Extracted) string {
	if res.Blobs == 0 {
		return count(len(res.Files), "file")
	}
	return contents(m) + ", " + count(res.Blobs, "blob")
}

// inShell are texts that a shell takes as they are.
var inShell = regexp.MustCompile(`^[a-zA-Z0-9@%+=:,./_-]+$`)

// layoutReference is how skopeo and podman name the first image of the layout in dir that they
// find by its name, or "": they look for OCI media types only, and cut at the first colon.
func layoutReference(dir string, images []manifest.Image) string {
	if strings.Contains(dir, ":") {
		return ""
	}
	for i := range images {
		if !strings.HasPrefix(images[i].MediaType, "application/vnd.oci.") {
			continue
		}
		ref := "oci:" + dir + ":" + images[i].Source
		if !inShell.MatchString(ref) {
			ref = "'" + strings.ReplaceAll(ref, "'", `'\''`) + "'"
		}
		return ref
	}
	return ""
}
