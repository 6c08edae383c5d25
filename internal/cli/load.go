package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/install"
	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/containerd"
	"github.com/sealift/sealift/internal/site"
	"github.com/sealift/sealift/verify"
)

type loadFlags struct {
	via       viaFlags
	trust     trustFlags
	namespace string
	moveTags  bool
	jobs      int
	dryRun    bool
}

func (a *app) loadCommand() *cobra.Command {
	var f loadFlags
	c := &cobra.Command{
		Use:   "load BUNDLE...",
		Short: "Bring the images of a bundle straight into the containerd of this node",
		Long: `Check the signature of a bundle and bring its images into the containerd of this machine,
with no registry: blobs straight out of the file, each proven, and then the names, as
repository:tag and as repository@digest, both as the vendor calls them. Pods start from them
unless their imagePullPolicy is Always. They are pinned, so that the kubelet does not remove
them when the disk is full.

` + socketHelp + `

Only what this node runs is loaded of an image for several platforms. Charts, artifacts that
are no images, signatures and the like have no place in a containerd and stay in the bundle.
Loading again sends only what is missing; what an interrupted run has brought is kept for a
day.

` + placesHelp + `

` + streamHelp,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.load(cmd, args, f) },
	}
	f.via.add(c)
	c.Flags().Lookup("via").DefValue = viaContainerd
	f.via.via = viaContainerd
	f.trust.addUse(c)
	c.Flags().StringVar(&f.namespace, "namespace", containerd.Kubernetes, "namespace of containerd; "+containerd.Kubernetes+" is that of Kubernetes")
	c.Flags().BoolVar(&f.moveTags, "move-tags", false, "allow names that stand for another image there to be moved")
	c.Flags().IntVar(&f.jobs, "jobs", install.DefaultJobs, "blobs to write at the same time")
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "change nothing; print what would be done")
	onlyFlag(c.Flags(), "move-tags")
	onlyFlag(c.Flags(), "dry-run")
	return c
}

func (a *app) load(cmd *cobra.Command, args []string, f loadFlags) (err error) {
	ctx := cmd.Context()
	o, done, err := f.via.options(a, cmd, f.namespace, f.jobs)
	if err != nil {
		return err
	}
	defer done(&err)
	o.MoveNames = f.moveTags
	t, err := a.trusting(cmd, &f.trust)
	if err != nil {
		return err
	}
	bundles, closeAll, err := a.openAll(cmd, args, t.policy, verify.Open)
	if err != nil {
		return err
	}
	defer closeAll(&err)
	a.warn(bundles)
	accept, err := a.acceptOptions(t, "load", nodeTarget(o.Client))
	if err != nil && !f.dryRun {
		return err
	}
	l, err := install.PrepareLoad(ctx, bundles, o)
	if err != nil {
		return err
	}
	if f.dryRun {
		if err := install.Rehearse(ctx, bundles, accept); err != nil {
			return err
		}
		return a.printLoaded(bundles, l.Preview(), nil)
	}
	if err := install.Prepared(ctx, bundles, accept); err != nil {
		return err
	}
	res, err := l.Run(ctx)
	if err != nil {
		return err
	}
	a.warnLoaded(res, o)
	head, err := install.Accept(ctx, bundles, accept)
	if err != nil {
		return fmt.Errorf("all was done, but could not be recorded: %w", err)
	}
	return a.printLoaded(bundles, res, &head)
}

// nodeTarget is what the journal calls a containerd.
func nodeTarget(c *containerd.Client) string {
	return "containerd://" + c.Address() + "#" + c.Namespace()
}

// warnLoaded says what may become of the images later.
func (a *app) warnLoaded(r *install.LoadResult, o install.LoadOptions) {
	switch {
	case o.Client.Namespace() != containerd.Kubernetes:
	case !o.Client.ServesKubernetes():
		a.warnings([]string{fmt.Sprintf("no kubelet can use the containerd at %s: its side for Kubernetes (the CRI plugin) is off", r.Address)})
	case !o.NoPin && !r.Pinned && len(r.Images) > 0:
		a.warnings([]string{fmt.Sprintf("containerd %s does not tell its kubelet that images are pinned: it may remove those that no pod uses when the disk is full; load them again then", r.Containerd)})
	}
}

// printLoaded prints what was done, and the end of the journal; without one, what would be done.
func (a *app) printLoaded(bundles []*verify.Bundle, r *install.LoadResult, head *site.Head) error {
	dryRun := head == nil
	type loaded struct {
		Bundle  string `json:"bundle"`
		Version string `json:"version"`
		Digest  string `json:"digest"`
	}
	result := struct {
		Bundles []loaded `json:"bundles"`
		DryRun  bool     `json:"dryRun"`
		*install.LoadResult
		Charts  int        `json:"chartsLeftOut"`
		Journal *site.Head `json:"journal,omitempty"`
	}{DryRun: dryRun, LoadResult: r, Journal: head}
	for _, b := range bundles {
		result.Bundles = append(result.Bundles, loaded{b.Manifest().Name, b.Manifest().Version, b.Evidence().Manifest})
		result.Charts += len(b.Manifest().Charts)
	}
	return a.print(result, func(w io.Writer) {
		verb := "loaded"
		if dryRun {
			verb = "would load"
		}
		fmt.Fprintf(w, "%s %s into containerd %s at %s, namespace %s\n", verb, titles(bundles), r.Containerd, r.Address, r.Namespace)
		writeLoaded(w, r, dryRun)
		var left []string
		for _, l := range []struct {
			n    int
			what string
		}{{result.Charts, "chart"}, {r.Artifacts, "artifact"}, {r.Referrers, "signature or the like"}} {
			if l.n > 0 {
				left = append(left, count(l.n, l.what))
			}
		}
		if len(left) > 0 {
			fmt.Fprintf(w, "  note: a containerd has no place for the rest: %s\n", strings.Join(left, ", "))
		}
		writeHead(w, head)
	})
}

func writeLoaded(w io.Writer, r *install.LoadResult, dryRun bool) {
	if r.WrittenBlobs+r.Names == 0 {
		fmt.Fprintln(w, "  everything is there already")
	} else {
		write, set := "written", "set"
		if dryRun {
			write, set = "to write", "to set"
		}
		fmt.Fprintf(w, "  %s %s (%s), %d there already; %s %s\n", count(r.WrittenBlobs, "blob"), write, archive.FormatBytes(r.WrittenBytes), r.ExistingBlobs, count(r.Names, "name"), set)
	}
	for _, m := range r.Moves {
		fmt.Fprintf(w, "  name moves: %s from %s to %s\n", m.Reference, m.From, m.To)
	}
	for _, i := range r.Images {
		fmt.Fprintf(w, "  %-7s  %s (%s)\n", i.Action, i.Source, i.Platform)
	}
	for _, u := range r.Unsuitable {
		fmt.Fprintf(w, "  note: not for this node, which runs %s: %s (%s)\n", r.Platform, u.Source, strings.Join(u.Platforms, ", "))
	}
}

// ofNode reports whether the containerd of a node could not be reached, or refused.
func ofNode(err error) bool {
	return is[*containerd.NoSocketError](err) || is[*containerd.SeveralError](err) || is[*containerd.ConnectError](err) || is[*containerd.Error](err) ||
		is[*containerd.BusyError](err) || is[*containerd.DigestError](err) ||
		is[*install.NamesMoveError](err) || is[*install.NodePlatformError](err) || is[*install.UnseenError](err)
}

func hintLoad(err error) string {
	var (
		connect *containerd.ConnectError
		several *containerd.SeveralError
	)
	switch {
	case errors.As(err, &connect) && errors.Is(err, os.ErrPermission):
		return "run this as root: the socket of a containerd is its administrator's"
	case connect != nil && is[*muteError](err):
		return "look at the log of what listens there; 'systemctl restart' of containerd, k3s or rke2 may help, or --address names another socket"
	case connect != nil:
		return "is containerd, k3s or rke2 running? 'systemctl status' says so"
	case is[*containerd.NoSocketError](err):
		return "run this on the node itself; if its containerd listens elsewhere, name the socket with --address"
	case errors.As(err, &several):
		return fmt.Sprintf("say which one the kubelet uses: --address %s", several.Found[0])
	case is[*containerd.BusyError](err):
		return "wait for the other load or pull to end, then run this again"
	case is[*install.NamesMoveError](err):
		return "add --move-tags if nothing relies on what these names stand for now"
	case is[*install.NodePlatformError](err):
		return "ask the vendor for a bundle that has this platform in its platforms:"
	case is[*install.UnseenError](err):
		return "look at the log of containerd; after 'systemctl restart' of it, k3s or rke2, run this again"
	}
	return hintVia(err)
}

// The identifiers of containerd (its pkg/identifiers), of which a namespace is one.
const maxNamespace = 76

var namespacePattern = regexp.MustCompile(`\A[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*\z`)

// answerTime bounds how long a containerd may take to say what it is. It is less than what package
// containerd itself waits for one of its answers, whose end would be told as an answer.
const answerTime = 8 * time.Second

// muteError says that something listens and does not answer.
type muteError struct{ wait time.Duration }

// Error says for how long.
func (e *muteError) Error() string {
	return fmt.Sprintf("it takes connections, and has not answered for %s", e.wait)
}

// connectNode connects to the containerd at address, which may take as long as wait to say what it is.
func connectNode(ctx context.Context, address, namespace string, wait time.Duration) (*containerd.Client, error) {
	mute := &muteError{wait}
	asking, cancel := context.WithTimeoutCause(ctx, wait, mute)
	defer cancel()
	c, err := containerd.Connect(asking, address, namespace)
	if err != nil && errors.Is(context.Cause(asking), mute) {
		return nil, &containerd.ConnectError{Address: address, Err: mute}
	}
	return c, err
}

// nodeClient connects to the containerd that flags and environment name, or to the only one that is here.
func (f *viaFlags) nodeClient(ctx context.Context, a *app, cmd *cobra.Command, namespace string) (*containerd.Client, error) {
	usage := func(err error) error { return &usageError{err, cmd.CommandPath()} }
	sockets := containerd.Sockets()
	switch f.via {
	case viaContainerd:
	case viaK3s, viaRKE2:
		sockets = []string{containerd.SocketK3s}
	default:
		return nil, usage(fmt.Errorf("--via %q is none of %s, %s, %s", f.via, viaContainerd, viaK3s, viaRKE2))
	}
	if namespace == "" {
		return nil, usage(errors.New("--namespace is empty"))
	}
	if len(namespace) > maxNamespace || !namespacePattern.MatchString(namespace) {
		return nil, usage(fmt.Errorf("--namespace %q is none of containerd: letters and digits, with single separators . _ - between them, at most %d", namespace, maxNamespace))
	}
	address, from := f.address, "--address"
	if address == "" && f.via == viaContainerd {
		address, from = a.env.getenv(containerdAddress), containerdAddress
	}
	var err error
	if address == "" {
		address, err = containerd.Find(ctx, sockets)
	} else if address, err = containerd.ParseAddress(address); err != nil {
		err = usage(fmt.Errorf("%s: %w", from, err))
	}
	if err != nil {
		return nil, err
	}
	return connectNode(ctx, address, namespace, answerTime)
}
