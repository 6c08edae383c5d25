package cli

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/registry"
)

func (a *app) pruneCommand() *cobra.Command {
	var store string
	var o registry.PruneOptions
	c := &cobra.Command{
		Use:   "prune --store DIR",
		Short: "Remove from a registry's store what nothing needs",
		Long: `Remove blobs that no manifest names, uploads that were given up, and with --untagged
manifests to which no tag leads. A tag leads to what its manifest names, and to signatures,
attestations and whatever else refers to that: by its "subject", by a tag sha256-DIGEST, or by
cosign's tags sha256-DIGEST.sig and so on. --dry-run shows what would go, and how much it is.

The registry must be stopped, or be read-only: nothing is removed while others write to the
store. When it starts it prunes by itself, sparing what is not older than a day.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if store == "" {
				return &usageError{errors.New("no --store is named"), cmd.CommandPath()}
			}
			if o.UploadsOlder < 0 || o.BlobsOlder < 0 {
				return &usageError{errors.New("an age is not negative"), cmd.CommandPath()}
			}
			o.Now = a.env.Now()
			r, err := registry.Prune(cmd.Context(), store, o)
			if err != nil {
				return err
			}
			a.warnings(unreadManifests(r))
			return a.printPruned(r, o.DryRun)
		},
	}
	c.Flags().StringVar(&store, "store", "", "directory of the registry's content")
	c.Flags().BoolVar(&o.DryRun, "dry-run", false, "remove nothing; print what would be removed")
	c.Flags().BoolVar(&o.Untagged, "untagged", false, "also remove manifests to which no tag leads")
	c.Flags().DurationVar(&o.UploadsOlder, "uploads-older", 24*time.Hour, "leave uploads alone to which something came within this time")
	c.Flags().DurationVar(&o.BlobsOlder, "blobs-older", 0, "leave blobs and manifests alone that came within this time: a transfer that goes on may need them")
	onlyFlag(c.Flags(), "dry-run")
	onlyFlag(c.Flags(), "untagged")
	return c
}

func (a *app) printPruned(r *registry.PruneReport, dry bool) error {
	type blob struct {
		Digest string `json:"digest"`
		Bytes  int64  `json:"bytes"`
	}
	type gone struct {
		Repository string   `json:"repository"`
		Digest     string   `json:"digest"`
		Tags       []string `json:"tags,omitempty"`
	}
	v := struct {
		DryRun    bool   `json:"dryRun"`
		Bytes     int64  `json:"bytes"`
		Manifests []gone `json:"manifests"`
		Blobs     []blob `json:"blobs"`
		Uploads   int    `json:"uploads"`
		Leftovers int    `json:"leftovers"`
		Kept      int    `json:"kept"`
		KeptBytes int64  `json:"keptBytes"`
	}{dry, r.Bytes, []gone{}, []blob{}, r.Uploads, r.Leftovers, r.Kept, r.KeptBytes}
	for _, m := range r.Manifests {
		v.Manifests = append(v.Manifests, gone(m))
	}
	for _, b := range r.Blobs {
		v.Blobs = append(v.Blobs, blob(b))
	}
	return a.print(v, func(w io.Writer) {
		done := "removed"
		if dry {
			done = "would remove"
		}
		for _, m := range v.Manifests {
			fmt.Fprintf(w, "manifest  %s@%s\n", m.Repository, m.Digest)
		}
		for _, b := range v.Blobs {
			fmt.Fprintf(w, "blob      %s  %s\n", b.Digest, archive.FormatBytes(b.Bytes))
		}
		fmt.Fprintf(w, "%s %s: %d manifests, %d blobs, %d uploads, %d other files; %d blobs of %s stay\n",
			done, archive.FormatBytes(v.Bytes), len(v.Manifests), len(v.Blobs), v.Uploads, v.Leftovers, v.Kept, archive.FormatBytes(v.KeptBytes))
	})
}

// unreadManifests are warnings of what stays since nobody knows what it needs.
func unreadManifests(r *registry.PruneReport) []string {
	var lines []string
	for _, u := range r.Unread {
		lines = append(lines, fmt.Sprintf("all of %s stays, since its manifest %s cannot be read: %v", u.Repository, u.Digest, u.Err))
	}
	return lines
}

func hintPrune(err error) string {
	var busy *registry.BusyError
	switch {
	case errors.As(err, &busy) && !busy.Pruning:
		return "stop the registry first, or restart it: it prunes when it starts; --dry-run works all the same"
	case is[*registry.NoRepositoriesError](err):
		return "is the file system with docker/registry/v2/repositories mounted? If there are none, remove the directory docker/registry/v2/blobs"
	case is[*registry.SymlinkError](err):
		return "remove the link; to keep content elsewhere, mount it there, or let all of the store be there"
	case is[*registry.NoLocksError](err):
		return "--dry-run works all the same"
	case is[*registry.NoStoreError](err):
		return "name the directory that 'sealift serve --store' is given"
	}
	return ""
}
