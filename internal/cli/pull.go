package cli

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/bundle"
	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/publish"
	"github.com/sealift/sealift/verify"
)

type pullFlags struct {
	trust                      trustFlags
	output, volumeSize, parity string
	overwrite, restart         bool
	jobs                       int
}

func (a *app) pullCommand() *cobra.Command {
	var f pullFlags
	c := &cobra.Command{
		Use:   "pull oci://HOST[:PORT]/REPOSITORY:TAG",
		Short: "Bring a bundle back from a registry, as a file",
		Long: `Write the bundle that 'sealift push' has stored in a registry as the very same file, or cut
into volumes, with the signatures beside it. Every byte is proven against the bundle's manifest
before the file gets its name. A pull that was interrupted goes on when the same command is run
again.

Who signed the manifest is checked first where somebody is named, with --key or --policy, or by
the policy of the site. Else the file is only carried, and standard error says so: 'sealift
verify' and all commands that use what is in it check it later.

` + remoteHelp + `

` + accessHelp,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.pull(cmd, args[0], f) },
	}
	f.trust.add(c)
	c.Flags().StringVarP(&f.output, "out", "o", ".", "directory to write to (made if need be), or a file ending in .zst")
	c.Flags().StringVar(&f.volumeSize, "volume-size", "", "cut the bundle into volumes of what fits on a medium (dvd, dvd-dl, bd25, bd50, fat32), or of this size (700MiB, 4.7GB …)")
	c.Flags().StringVar(&f.parity, "parity", "", "add files that damage can be repaired with: a part of the bundle (10%), or volumes=N for N lost volumes")
	c.Flags().BoolVar(&f.overwrite, "overwrite", false, "replace a bundle that is there")
	c.Flags().BoolVar(&f.restart, "restart", false, "throw away what an interrupted pull of something else left")
	c.Flags().IntVar(&f.jobs, "jobs", publish.DefaultJobs, "blobs to fetch at the same time")
	onlyFlag(c.Flags(), "overwrite")
	onlyFlag(c.Flags(), "restart")
	return c
}

func (a *app) pull(cmd *cobra.Command, from string, f pullFlags) error {
	usage := func(err error) error { return &usageError{err, cmd.CommandPath()} }
	if !publish.IsReference(from) {
		return usage(&publish.ReferenceError{Text: from})
	}
	if f.jobs < 1 || f.jobs > 64 {
		return usage(fmt.Errorf("--jobs %d is not from 1 to 64", f.jobs))
	}
	o := publish.PullOptions{Output: f.output, Overwrite: f.overwrite, Restart: f.restart, Jobs: f.jobs, Progress: a.reporter()}
	parity, err := bundle.ParseParity(f.parity)
	if err != nil {
		return usage(err)
	}
	if f.volumeSize != "" {
		if o.Volume, err = archive.ParseSize(f.volumeSize, 0); err != nil {
			return usage(err)
		}
	}
	if parity.Volumes > 0 && o.Volume == 0 {
		return usage(fmt.Errorf("--parity volumes=%d needs --volume-size", parity.Volumes))
	}
	t, err := a.trusting(cmd, &f.trust)
	if err != nil {
		return err
	}
	files, err := a.remote(cmd, from)
	if err != nil {
		return err
	}
	evidence, err := a.proven(cmd, files, t)
	if err != nil {
		return err
	}
	res, err := publish.Pull(cmd.Context(), files, o)
	if err != nil {
		return err
	}
	if err := a.addParity(cmd, res, parity); err != nil {
		return err
	}
	return a.print(struct {
		Reference string `json:"reference"`
		*publish.Pulled
		Proven   bool             `json:"proven"`
		Evidence *verify.Evidence `json:"evidence,omitempty"`
	}{files.Name, res, evidence != nil, evidence}, func(w io.Writer) {
		verb := "pulled"
		if res.Present {
			verb = "already there:"
		}
		fmt.Fprintf(w, "%s %s %s from %s\n", verb, res.Name, res.Version, files.Name)
		fmt.Fprintf(w, "  digest     %s\n", res.Digest)
		if evidence != nil {
			writeEvidence(w, evidence)
		} else {
			fmt.Fprintf(w, "  signed by  %s\n", carried(res.Signatures))
		}
		fmt.Fprintf(w, "  size       %s\n", archive.FormatBytes(res.Size))
		if res.Resumed > 0 {
			fmt.Fprintf(w, "  resumed    %s were there already\n", archive.FormatBytes(res.Resumed))
		}
		for _, name := range res.Files {
			fmt.Fprintf(w, "  file       %s\n", name)
		}
	})
}

// proven checks who signed a bundle that is only to be carried, nil where nobody is named who could
// have.
func (a *app) proven(cmd *cobra.Command, files *verify.Files, t *trusting) (*verify.Evidence, error) {
	if !t.named {
		a.warnings([]string{files.Name + ": not checked who signed it; give --key, or 'sealift verify' the file"})
		return nil, nil
	}
	b, err := verify.Open(cmd.Context(), files, t.policy)
	if err != nil {
		return nil, err
	}
	a.warn([]*verify.Bundle{b})
	e := b.Evidence()
	return &e, b.Close()
}

// addParity makes the parity of what was pulled, unless it is there.
func (a *app) addParity(cmd *cobra.Command, res *publish.Pulled, parity bundle.Parity) error {
	if parity == (bundle.Parity{}) {
		return nil
	}
	found, err := archive.Find(res.Files[:1])
	if err != nil {
		return err
	}
	if len(found[0].Parity) == 0 {
		made, _, err := bundle.AddParity(cmd.Context(), found[0], parity, a.reporter())
		if err != nil {
			return err
		}
		found[0].Parity = made.Files
	}
	res.Files = append(res.Files, found[0].Parity...)
	return nil
}

func hintPull(err error) string {
	var partial *publish.PartialError
	switch {
	case is[*publish.ThereError](err):
		return "write to another place with -o, or replace it with --overwrite"
	case is[*publish.OtherError](err):
		return "write to another place with -o, or throw it away with --restart"
	case errors.As(err, &partial):
		// What stopped it has a hint of its own.
		going := fmt.Sprintf("%s of %s are kept beside %s: run the same command again to go on", archive.FormatBytes(partial.Done), archive.FormatBytes(partial.Total), partial.Path)
		if advice := firstHint(partial.Err); advice != "" {
			return advice + "\n" + going
		}
		return going
	}
	return ""
}
