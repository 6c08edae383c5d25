package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/install"
	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/ledger"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/registry"
	"github.com/sealift/sealift/internal/release"
	"github.com/sealift/sealift/internal/site"
	"github.com/sealift/sealift/manifest"
)

// pruneFlags are those of prune.
type pruneFlags struct {
	store string
	bytes registry.PruneOptions

	config, registry, state string
	keep                    int
	repositories            []string
	otherTags, force        bool
	yes, forget, alone      bool
	access                  accessFlags
	cluster                 clusterFlags
	others                  []string
}

func (a *app) pruneCommand() *cobra.Command {
	var f pruneFlags
	c := &cobra.Command{
		Use:   "prune [NAME...] --keep N | --store DIR",
		Short: "Remove from a registry what nothing needs",
		Long: `With --keep N, remove from a registry the tags of old versions of bundles, of all or of those
that are named: all but the newest N of each. What is installed stays as well, what a cluster
can go back to, what an install that has not ended is about, and whatever the cluster's pods
run. The cluster of --kubeconfig is asked; --without-cluster says that there is none to ask. Others
that use the same registry are named with --other-kubeconfig: what only they need goes else.
Nobody may seed the registry meanwhile.

Only tags that bundles have set go: those called sealift.NAME.VERSION.*, and the vendor's tags
where a receipt in the cluster names them and they still lead to what the bundle put there;
with --other-tags all tags of an image that only retired versions have. A tag whose image is
needed never goes. Registries free the bytes when they remove what has no tag; with --force
the images are deleted by digest, with their signatures and the like. Some registries, as
docker-registry, do it no other way. Nothing is removed without --yes: what would go is shown.

With --store DIR, remove from the store of the embedded registry blobs that no manifest names,
uploads that were given up, and with --untagged manifests to which no tag leads. A tag leads to
what its manifest names, and to signatures, attestations and whatever else refers to that: by
its "subject", by a tag sha256-DIGEST, or by cosign's tags sha256-DIGEST.sig and so on.
--dry-run shows what would go, and how much it is. The registry must be stopped, or be
read-only: nothing is removed while others write to the store. When it starts it prunes by
itself, sparing what is not older than a day. With --keep too, versions are removed first.

` + accessHelp,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return a.prune(cmd, args, &f) },
	}
	fs := c.Flags()
	fs.StringVar(&f.store, "store", "", "directory of the registry's content")
	fs.BoolVar(&f.bytes.DryRun, "dry-run", false, "remove nothing; print what would be removed")
	fs.BoolVar(&f.bytes.Untagged, "untagged", false, "also remove manifests to which no tag leads")
	fs.DurationVar(&f.bytes.UploadsOlder, "uploads-older", 24*time.Hour, "leave uploads alone to which something came within this time")
	fs.DurationVar(&f.bytes.BlobsOlder, "blobs-older", 0, "leave blobs and manifests alone that came within this time: a transfer that goes on may need them")
	fs.IntVar(&f.keep, "keep", 0, "how many versions of each bundle stay for being the newest: at least 1")
	fs.StringVar(&f.registry, "registry", "", "registry of the site: HOST[:PORT][/PREFIX] (default: registry: of the configuration)")
	fs.StringVar(&f.config, "config", "", "file of what this site has chosen, see 'sealift seed --help'")
	fs.StringSliceVar(&f.repositories, "repository", nil, "path of a repository in the registry to look at, instead of all that the registry lists (repeatable)")
	fs.BoolVar(&f.otherTags, "other-tags", false, "also remove tags of images of retired versions that no receipt names")
	fs.BoolVar(&f.force, "force", false, "delete images by digest")
	fs.BoolVar(&f.yes, "yes", false, "remove what --keep does not keep, instead of showing it")
	fs.BoolVar(&f.forget, "forget-history", false, "do not keep versions only because the cluster could go back to them")
	fs.BoolVar(&f.alone, "without-cluster", false, "ask no cluster what it needs")
	fs.StringVar(&f.cluster.kubeconfig, "kubeconfig", "", "kubeconfig of the cluster (default: KUBECONFIG, then ~/.kube/config)")
	fs.StringVar(&f.cluster.context, "context", "", "context of the kubeconfig (default: its current one)")
	fs.StringArrayVar(&f.others, "other-kubeconfig", nil, "kubeconfig of another cluster that uses the registry, which is asked as well, by its current context (repeatable)")
	fs.StringVar(&f.cluster.records, "record-namespace", release.DefaultRecordNamespace, "namespace in which the cluster keeps what is known about bundles")
	f.access.add(c)
	stateFlag(c, &f.state)
	for _, name := range []string{"dry-run", "untagged", "other-tags", "force", "yes", "forget-history", "without-cluster"} {
		onlyFlag(fs, name)
	}
	return c
}

// prune removes tags, and then bytes.
func (a *app) prune(cmd *cobra.Command, names []string, f *pruneFlags) error {
	usage := func(text string) error { return &usageError{errors.New(text), cmd.CommandPath()} }
	byVersion := cmd.Flags().Changed("keep")
	switch {
	case !byVersion && f.store == "":
		return usage("no --store is named, and no --keep")
	case byVersion && f.keep < 1:
		return usage("--keep is less than 1")
	case f.bytes.UploadsOlder < 0 || f.bytes.BlobsOlder < 0:
		return usage("an age is not negative")
	case f.yes && f.bytes.DryRun:
		return usage("--yes and --dry-run exclude each other")
	case !byVersion && len(names) > 0:
		return usage("names of bundles go with --keep")
	}
	if f.alone && len(f.others) > 0 {
		return usage("--without-cluster and --other-kubeconfig exclude each other")
	}
	for _, flag := range []string{"other-kubeconfig", "yes", "force", "other-tags", "forget-history", "without-cluster", "repository"} {
		if !byVersion && cmd.Flags().Changed(flag) {
			return usage("--" + flag + " goes with --keep")
		}
	}
	for _, name := range names {
		if err := manifest.CheckName(name); err != nil {
			return &usageError{err, cmd.CommandPath()}
		}
	}
	var versions *prunedVersions
	if byVersion {
		var err error
		if versions, err = a.pruneVersions(cmd, names, f); err != nil {
			return err
		}
		if f.store == "" {
			return a.print(versions, func(w io.Writer) { versions.write(w) })
		}
		f.bytes.DryRun = f.bytes.DryRun || !f.yes
	}
	f.bytes.Now = a.env.Now()
	r, err := registry.Prune(cmd.Context(), f.store, f.bytes)
	if err != nil {
		return err
	}
	a.warnings(unreadManifests(r))
	return a.printPruned(r, f.bytes.DryRun, versions)
}

// prunedVersions is what became of versions of bundles.
type prunedVersions struct {
	DryRun bool `json:"dryRun"`
	*install.PruneResult
	Journal *site.Head `json:"journal,omitempty"`
}

// NoWordError says that it is not known what the cluster needs.
type NoWordError struct{ Err error }

// Error gives the cause.
func (e *NoWordError) Error() string {
	return "nothing is removed, since it is not known what the cluster needs: " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *NoWordError) Unwrap() error { return e.Err }

// errNoCluster is the cause where no cluster is named.
var errNoCluster = errors.New("no kubeconfig is named")

// pruneVersions removes tags of old versions from a registry, or from a store.
func (a *app) pruneVersions(cmd *cobra.Command, names []string, f *pruneFlags) (_ *prunedVersions, err error) {
	ctx := cmd.Context()
	where := nameFlags{config: f.config, registry: f.registry}
	named, err := where.resolve(a, cmd, &f.access, f.store != "")
	if err != nil {
		return nil, err
	}
	o := install.PruneOptions{
		Target: named.target, Names: names, Keep: f.keep, Repositories: f.repositories, OtherTags: f.otherTags, Force: f.force, Progress: a.reporter(),
	}
	if o.Needed, err = a.needed(ctx, f, named.target.Registry); err != nil {
		return nil, err
	}
	if f.store == "" {
		if o.Client, err = f.access.client(a, cmd, "registry", named.target.Registry); err != nil {
			return nil, err
		}
	} else {
		open := registry.OpenStore
		if !f.yes {
			open = registry.ReadStore
		}
		if _, err := os.Stat(f.store); err != nil {
			return nil, fmt.Errorf("opening store: %w", err)
		}
		store, err := open(ctx, f.store)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, store.Close()) }()
		o.Client = oci.NewClient(oci.Options{
			Side: "store " + f.store + " as", Transport: store.Transport(), PlainHTTP: []string{named.target.Registry}, UserAgent: a.userAgent(),
		})
		// Nobody else collects what has no tag there.
		o.Force = true
	}
	p, err := install.PreparePrune(ctx, o)
	if err != nil {
		return nil, err
	}
	r := &prunedVersions{!f.yes, p.Preview(), nil}
	if !f.yes || len(r.Tags) == 0 {
		return r, nil
	}
	dir, err := a.siteDir(f.state)
	if err != nil && !errors.Is(err, errNoState) {
		return nil, err
	}
	preview := r.PruneResult
	done, err := p.Run(ctx)
	r.PruneResult = done
	if dir != nil && len(done.Tags)+len(done.Manifests) > 0 {
		head, recordErr := dir.Update(context.WithoutCancel(ctx), a.env.Now(), func(tx *site.Tx) error {
			tx.Log(pruneEvent(done, a.by()))
			return nil
		})
		if recordErr != nil {
			err = errors.Join(err, fmt.Errorf("what was removed could not be recorded: %w", recordErr))
		}
		r.Journal = &head
	}
	if err != nil {
		a.warnings([]string{fmt.Sprintf("it was not ended: %d of %s were removed", len(done.Tags), count(len(preview.Tags), "tag"))})
		return nil, err
	}
	return r, nil
}

// needed asks the cluster what it needs.
func (a *app) needed(ctx context.Context, f *pruneFlags, registry string) (install.Needed, error) {
	if f.alone {
		return install.NeededBy(nil, registry, false), nil
	}
	if a.findKubeconfig(f.cluster.kubeconfig) == "" {
		return install.Needed{}, &NoWordError{errNoCluster}
	}
	n, err := a.neededBy(ctx, &f.cluster, registry, f.forget)
	for _, path := range f.others {
		other := f.cluster
		other.kubeconfig, other.context = path, ""
		var more install.Needed
		if err == nil {
			more, err = a.neededBy(ctx, &other, registry, f.forget)
		}
		if err == nil {
			n.Add(more)
		}
	}
	return n, err
}

// neededBy asks one cluster.
func (a *app) neededBy(ctx context.Context, f *clusterFlags, registry string, forget bool) (install.Needed, error) {
	cluster, err := a.connect(f)
	if err != nil {
		return install.Needed{}, err
	}
	door := cluster.Ledger(f.records)
	bundles, err := door.Bundles(ctx)
	if err != nil {
		return install.Needed{}, &NoWordError{err}
	}
	var states []*ledger.State
	for _, name := range bundles {
		s, _, err := door.Read(ctx, name)
		if err != nil {
			return install.Needed{}, &NoWordError{err}
		}
		if s != nil {
			states = append(states, s)
		}
	}
	uses, err := cluster.RunningImages(ctx)
	if err != nil {
		return install.Needed{}, &NoWordError{err}
	}
	n := install.NeededBy(states, registry, !forget)
	n.Running(uses)
	return n, nil
}

// kindPruned is the kind of the journal's entries about what was removed from a registry.
const kindPruned = "prune"

// maxPrunedText bounds the lists in an entry of the journal, in bytes: a line there is bounded too.
const maxPrunedText = 8 << 10

// pruneEvent is the entry of the journal about what was removed.
func pruneEvent(r *install.PruneResult, by string) site.Event {
	list := func(n int, text func(int) string) string {
		var b strings.Builder
		for i := range n {
			if b.Len() > maxPrunedText {
				fmt.Fprintf(&b, " and %d more", n-i)
				break
			}
			if i > 0 {
				b.WriteString(" ")
			}
			b.WriteString(text(i))
		}
		return b.String()
	}
	var versions []string
	for _, t := range r.Tags {
		if v := t.Bundle + "@" + t.Version; t.Bundle != "" && !slices.Contains(versions, v) {
			versions = append(versions, v)
		}
	}
	slices.Sort(versions)
	return site.Event{Kind: kindPruned, Detail: map[string]string{
		"registry": r.Registry, "by": by, "forced": strconv.FormatBool(r.Forced),
		"versions": list(len(versions), func(i int) string { return versions[i] }),
		"tags":     list(len(r.Tags), func(i int) string { return r.Tags[i].Repository + ":" + r.Tags[i].Tag }),
		"digests":  list(len(r.Manifests), func(i int) string { return r.Manifests[i].Repository + "@" + r.Manifests[i].Digest }),
	}}
}

// write says what became of versions.
func (r *prunedVersions) write(w io.Writer) {
	removed, deleted, free := "removed", "deleted", "become free"
	if r.DryRun {
		removed, deleted = "would remove", "would delete"
	}
	if !r.Forced {
		deleted, free = "has no tag any more", "become free when the registry removes what has no tag"
	}
	for _, v := range r.Versions {
		if v.Why != "" {
			fmt.Fprintf(w, "keep     %s %s: %s\n", v.Bundle, v.Version, v.Why)
		} else {
			fmt.Fprintf(w, "retire   %s %s\n", v.Bundle, v.Version)
		}
	}
	for _, t := range r.Tags {
		fmt.Fprintf(w, "tag      %s:%s (%s)\n", t.Repository, t.Tag, t.Digest)
	}
	for _, m := range r.Manifests {
		fmt.Fprintf(w, "image    %s@%s: %s\n", m.Repository, m.Digest, deleted)
	}
	for _, t := range r.Left {
		fmt.Fprintf(w, "left     %s:%s: %s\n", t.Repository, t.Tag, t.Why)
	}
	fmt.Fprintf(w, "%s %s of %s; at most %s (%s, %s) %s\n", removed, count(len(r.Tags), "tag"), r.Registry,
		archive.FormatBytes(r.AtMost), count(len(r.Manifests), "manifest"), count(r.Blobs, "blob"), free)
	if r.DryRun && len(r.Tags) > 0 {
		fmt.Fprintln(w, "nothing has been removed: --yes does it")
	}
	if r.Journal != nil {
		writeHead(w, r.Journal)
	}
}

func (a *app) printPruned(r *registry.PruneReport, dry bool, versions *prunedVersions) error {
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
		// Versions is what --keep has done before.
		Versions *prunedVersions `json:"versions,omitempty"`
	}{dry, r.Bytes, []gone{}, []blob{}, r.Uploads, r.Leftovers, r.Kept, r.KeptBytes, versions}
	for _, m := range r.Manifests {
		v.Manifests = append(v.Manifests, gone(m))
	}
	for _, b := range r.Blobs {
		v.Blobs = append(v.Blobs, blob(b))
	}
	return a.print(v, func(w io.Writer) {
		if versions != nil {
			versions.write(w)
		}
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
	var (
		busy   *registry.BusyError
		noTags *install.NoTagDeletionError
	)
	switch {
	case errors.As(err, &noTags) && noTags.All:
		return "it has to be allowed there: docker-registry and distribution want storage.delete.enabled; docs/registries.md"
	case noTags != nil:
		return "--force deletes the images by digest, and the tags with them; or use the registry's own retention rules"
	case is[*install.TagTakesImageError](err):
		return "this registry deletes an image with any of its tags: leave it to the registry's own retention rules"
	case is[*install.NoRepositoriesError](err):
		return "name them with --repository, or use an account that may list them"
	case errors.Is(err, errNoCluster):
		return "name it with --kubeconfig or KUBECONFIG; only if no cluster uses this registry, say --without-cluster"
	case is[*NoWordError](err):
		return "use an account that may list the pods of all namespaces, and the secrets of the record namespace; or say --without-cluster, which keeps the newest versions only"
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
