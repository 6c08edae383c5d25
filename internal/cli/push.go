package cli

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/publish"
)

type pushFlags struct {
	access             accessFlags
	mountFrom          []string
	moveTags, unsigned bool
	jobs               int
}

func (a *app) pushCommand() *cobra.Command {
	var f pushFlags
	c := &cobra.Command{
		Use:   "push BUNDLE... oci://HOST[:PORT]/REPOSITORY[:TAG]",
		Short: "Store a bundle in a registry, from which 'sealift pull' brings it back",
		Long: `Store a bundle in a registry as an OCI artifact: the manifest, the signatures in and beside the
bundle, and its blobs, each of them once, so that it shares them with the images in that
registry. 'sealift pull' brings back the very same file, and every command that reads bundles
reads it there. TAG is the version of the bundle where none is named.

Every byte is proven against the bundle's manifest before the registry keeps it. Who signed it
is not looked at, but that somebody did. What is there already is not sent; what images of the
bundle have in that registry, under the names that they come from or were seeded to beside the
bundle, is mounted, and so is what the repositories of --mount-from have. A push that was
interrupted goes on when the same command is run again. The tag is set last; one that leads to
something else is not moved.

docs/publish.md describes the artifact.

` + accessHelp + `

` + placesHelp,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error { return a.push(cmd, args, f) },
	}
	f.access.add(c)
	c.Flags().StringSliceVar(&f.mountFrom, "mount-from", nil, "repository of the same registry whose blobs need not be sent, as PATH (repeatable)")
	c.Flags().BoolVar(&f.moveTags, "move-tags", false, "allow the tag to be moved from something else")
	c.Flags().BoolVar(&f.unsigned, "unsigned", false, "store it although it has no signature; no site accepts it until it is signed")
	c.Flags().IntVar(&f.jobs, "jobs", publish.DefaultJobs, "blobs to send at the same time")
	onlyFlag(c.Flags(), "move-tags")
	onlyFlag(c.Flags(), "unsigned")
	return c
}

func (a *app) push(cmd *cobra.Command, args []string, f pushFlags) error {
	usage := func(err error) error { return &usageError{err, cmd.CommandPath()} }
	from, to := args[:len(args)-1], args[len(args)-1]
	ref, err := publish.ParseReference(to)
	if err != nil {
		return usage(err)
	}
	if ref.Digest != "" {
		return usage(fmt.Errorf("%q names a digest, which follows from the bundle", to))
	}
	if f.jobs < 1 || f.jobs > 64 {
		return usage(fmt.Errorf("--jobs %d is not from 1 to 64", f.jobs))
	}
	for _, path := range f.mountFrom {
		if r, err := publish.ParseReference(publish.Scheme + ref.Registry + "/" + path); err != nil || r.Repository != path || r.Identifier() != "" {
			return usage(fmt.Errorf("--mount-from %q is not the path of a repository, without registry and tag", path))
		}
	}
	client, err := f.access.client(a, cmd, "target registry", ref.Registry)
	if err != nil {
		return err
	}
	a.reading.clients[ref.Registry] = client
	for _, text := range from {
		if r, err := publish.ParseReference(text); err == nil && r.Registry == ref.Registry {
			f.mountFrom = append(f.mountFrom, r.Repository)
		}
	}
	files, err := a.findOne(cmd, from)
	if err != nil {
		return err
	}
	res, err := publish.Push(cmd.Context(), files, ref, publish.PushOptions{
		Client: client, MountFrom: f.mountFrom, MoveTags: f.moveTags, Unsigned: f.unsigned, Jobs: f.jobs, Progress: a.reporter(),
	})
	if err != nil {
		return err
	}
	return a.print(res, func(w io.Writer) {
		fmt.Fprintf(w, "pushed %s %s to %s%s@%s\n", res.Name, res.Version, publish.Scheme, res.Reference, res.Artifact)
		fmt.Fprintf(w, "  digest     %s\n", res.Digest)
		fmt.Fprintf(w, "  size       %s\n", archive.FormatBytes(res.Size))
		fmt.Fprintf(w, "  signed by  %s\n", carried(res.Signatures))
		if res.Present {
			fmt.Fprintln(w, "  everything is there already")
			return
		}
		fmt.Fprintf(w, "  %s sent (%s), %d mounted, %d there already\n", count(res.UploadedBlobs, "blob"), archive.FormatBytes(res.UploadedBytes), res.MountedBlobs, res.ExistingBlobs)
		if res.Moved != "" {
			fmt.Fprintf(w, "  tag moves: from %s\n", res.Moved)
		}
	})
}

// carried says who signed a bundle that is only carried.
func carried(signatures int) string {
	if signatures == 0 {
		return "nobody: no site accepts it until it is signed"
	}
	return count(signatures, "signature") + ", not checked"
}

func hintPush(err error) string {
	var reference *publish.ReferenceError
	switch {
	case is[*publish.TagMoveError](err):
		return "a published version never changes, but its signatures may: if it is the same bundle, or nothing relies on the other one, add --move-tags"
	case errors.As(err, &reference):
		return "registries are named with a dot or a port, as in oci://registry.example:5000/bundles/shop:1.0.0"
	}
	return hintRemote(err)
}
