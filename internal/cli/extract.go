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
	var dir string
	var jobs int
	c := &cobra.Command{
		Use:   "extract BUNDLE...",
		Short: "Write the plain OCI image layout that is inside",
		Long: `Check the signature of a bundle and write what it carries to a directory: an OCI image
layout (oci-layout, index.json, blobs) that skopeo and others read, the signed manifest as
sealift.json, and the charts as charts/NAME-VERSION.tgz. Blobs are written as they were
before they were packed, whatever their encoding in the file.

Every blob is proven while it is copied. The directory gets its name when all of it is
there; until then it is called DIR.partial. A directory that is there is filled if it is
empty, through a directory .partial in it.

` + placesHelp,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.extract(cmd, args, &t, dir, jobs) },
	}
	c.Flags().StringVarP(&dir, "out", "o", "", "directory to write to, made if need be; one that is there must be empty (default: NAME-VERSION)")
	t.addUse(c)
	c.Flags().IntVar(&jobs, "jobs", install.DefaultJobs, "blobs to copy at the same time")
	return c
}

func (a *app) extract(cmd *cobra.Command, args []string, f *trustFlags, dir string, jobs int) (err error) {
	if jobs < 1 || jobs > 64 {
		return &usageError{fmt.Errorf("--jobs %d is not from 1 to 64", jobs), cmd.CommandPath()}
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
	if dir == "" {
		// Both are made of letters, digits, dots, dashes and pluses, and the name begins with a
		// letter or a digit.
		dir = m.Name + "-" + m.Version
	}
	if err := a.keepReason(cmd.Context(), t, "extract", []*verify.Bundle{b}); err != nil {
		return err
	}
	res, err := install.Extract(cmd.Context(), b, install.ExtractOptions{Dir: dir, Jobs: jobs, Progress: a.reporter()})
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
		fmt.Fprintf(w, "  content    %s, %s, %s (%s)\n", count(len(m.Images), "image"), count(len(m.Charts), "chart"), count(res.Blobs, "blob"), archive.FormatBytes(res.Bytes))
		for _, c := range res.Charts {
			fmt.Fprintf(w, "  chart      %s\n", c.Path)
		}
		for _, c := range res.Skipped {
			fmt.Fprintf(w, "  chart      %s %s only as blobs/%s: its file name would be another's, too, or is too long\n", c.Name, c.Version, strings.Replace(c.Digest, ":", "/", 1))
		}
		if example := layoutReference(res.Directory, m.Images); example != "" {
			fmt.Fprintf(w, "it is an OCI image layout: skopeo inspect %s\n", example)
		}
	})
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
