package cli

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/bundle"
	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// looked is what the head of a bundle says.
type looked struct {
	File       string           `json:"file"`
	Digest     string           `json:"digest"`
	Signatures int              `json:"signatures"`
	Proven     bool             `json:"proven"`
	Evidence   *verify.Evidence `json:"evidence,omitempty"`
	manifest   *manifest.Manifest
	size       int64
	pinned     bool
}

// lookAt reads what the one bundle that args name says about itself.
func (a *app) lookAt(cmd *cobra.Command, args []string, f *trustFlags) (*looked, error) {
	u, err := a.look(cmd, args, f)
	if err != nil {
		return nil, err
	}
	return &looked{u.Path, u.Digest, u.Signatures, u.evidence != nil, u.evidence, u.Manifest, u.Size, u.pinned}, nil
}

// diffFlags are how a difference is made and printed.
type diffFlags struct {
	trust     trustFlags
	markdown  bool
	noObjects bool
}

func (a *app) diffCommand() *cobra.Command {
	var f diffFlags
	c := &cobra.Command{
		Use:   "diff OLD NEW",
		Short: "Show what changes between two bundles, or two locks",
		Long: `Compare what two bundles say that they carry: for release notes, and for those who decide
what comes in. Images are matched by repository and tag, then by repository alone where
there is only one candidate; charts by their release. Charts that differ are rendered with
the vendor's values, for Kubernetes ` + chart.DefaultKubeVersion[1:] + `, and their objects compared; what templates draw
at random differs each time. Values of Secrets are not shown. The payload is not read.

Without --key, and without a policy of the site, nothing of it is proven, and it is said so;
else the signatures of both are checked first.

OLD and NEW may be two locks (sealift.lock) instead. ` + remoteHelp,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error { return a.diff(cmd, args[0], args[1], &f) },
	}
	f.trust.add(c)
	c.Flags().BoolVar(&f.markdown, "markdown", false, "print Markdown, for release notes")
	c.Flags().BoolVar(&f.noObjects, "no-objects", false, "do not render charts to compare their objects")
	onlyFlag(c.Flags(), "no-objects")
	return c
}

// side is one of the bundles of a difference.
type side struct {
	*looked
	Size int64 `json:"size"`
	manifest.Title
}

// difference is what sealift diff says about two bundles.
type difference struct {
	// Old and New hide the members of the Difference that are called so, which they contain.
	Old side `json:"old"`
	New side `json:"new"`
	*manifest.Difference
	// Objects is nil where charts were not to be rendered.
	Objects []releaseObjects `json:"objects,omitzero"`
}

func (a *app) diff(cmd *cobra.Command, oldPath, newPath string, f *diffFlags) error {
	if f.markdown && a.output == "json" {
		return &usageError{errors.New("--markdown and --output json: only one of them is possible"), cmd.CommandPath()}
	}
	switch oldLock, newLock := bundle.IsLock(oldPath), bundle.IsLock(newPath); {
	case oldLock && newLock:
		return a.diffLocks(oldPath, newPath, f.markdown)
	case oldLock != newLock:
		return &usageError{fmt.Errorf("%q and %q are a lock and something else: both must be bundles, or both locks", oldPath, newPath), cmd.CommandPath()}
	}
	old, err := a.lookAt(cmd, []string{oldPath}, &f.trust)
	if err != nil {
		return err
	}
	now, err := a.lookAt(cmd, []string{newPath}, &f.trust)
	if err != nil {
		return err
	}
	d := manifest.Compare(old.manifest, now.manifest)
	result := &difference{side{old, old.size, d.Old}, side{now, now.size, d.New}, d, nil}
	if !f.noObjects {
		if result.Objects, err = a.compareObjects(cmd, oldPath, newPath, result); err != nil {
			return err
		}
	}
	return a.printDifference(result, f.markdown)
}

func (a *app) printDifference(d *difference, markdown bool) error {
	return a.print(d, func(w io.Writer) {
		if markdown {
			writeMarkdown(w, d)
			return
		}
		writeDifference(w, d)
	})
}
