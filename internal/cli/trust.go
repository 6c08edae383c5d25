package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/install"
	"github.com/sealift/sealift/internal/release"
	"github.com/sealift/sealift/internal/site"
	"github.com/sealift/sealift/internal/trust"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// Errors that hints tell apart.
var (
	errPinned    = errors.New("this site has a policy already")
	errNotPinned = errors.New("this site has no policy yet")
)

// UnexpectedError says that a document is not the one that was expected.
type UnexpectedError struct{ What, Got, Want string }

// Error gives both digests.
func (e *UnexpectedError) Error() string {
	return fmt.Sprintf("%s: got %s, want %s", e.What, e.Got, e.Want)
}

func (a *app) trustCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "trust",
		Short: "Say whom this site trusts",
		Long: `A site's policy says who has to have signed which bundles, how fresh they have to be, and
what they may hold. It is pinned once, with its fingerprint compared by another way than the
one on which it came, and then counts for every command. docs/trust.md explains it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(a.trustInitCommand(), a.trustShowCommand(), a.trustUpdateCommand(), a.trustCheckCommand(), a.trustClockCommand(), a.trustForgetCommand())
	for _, s := range c.Commands() {
		wrapArgs(s)
	}
	return c
}

type trustInitFlags struct {
	state, key, expect, expectRoot string
	bundles, roots                 []string
}

func (a *app) trustInitCommand() *cobra.Command {
	var f trustInitFlags
	c := &cobra.Command{
		Use:   "init [POLICY]",
		Short: "Pin the policy of this site",
		Long: `Pin a policy, once and for all commands: that in the file POLICY, or one that is made from
--key or --root and --bundles. What is pinned is printed with its fingerprints: compare them
with those that you got by another way, or let --expect do it.

Groups of a policy that name a root need it with --root: the vendor's N.root.json.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.trustInit(cmd, args, f) },
	}
	c.Flags().StringVar(&f.key, "key", "", "public key of the vendor, to make a policy of")
	c.Flags().StringSliceVar(&f.bundles, "bundles", nil, "names of the bundles that the vendor may sign; a * stands for a part between dashes (repeatable)")
	c.Flags().StringSliceVar(&f.roots, "root", nil, "root document of a vendor to pin (repeatable)")
	c.Flags().StringVar(&f.expect, "expect", "", "sha256 digest that POLICY must have")
	c.Flags().StringVar(&f.expectRoot, "expect-root", "", "sha256 digest that the root in --root must have, as 'sealift root show' prints it")
	stateFlag(c, &f.state)
	return c
}

func (a *app) trustInit(cmd *cobra.Command, args []string, f trustInitFlags) error {
	usage := func(text string) error { return &usageError{errors.New(text), cmd.CommandPath()} }
	made := f.key != "" || len(f.bundles) > 0
	switch {
	case len(args) > 0 && made:
		return usage("a policy in a file says itself who signs which bundles: neither --key nor --bundles beside it")
	case len(args) == 0 && len(f.bundles) == 0:
		return usage("neither a policy is named, nor --bundles with --key or --root to make one of")
	case len(args) == 0 && (f.key != "") == (len(f.roots) > 0):
		return usage("one of --key and --root is wanted beside --bundles")
	case f.expect != "" && len(args) == 0:
		return usage("--expect is for a policy in a file")
	case f.expectRoot != "" && len(f.roots) != 1:
		return usage("--expect-root is for exactly one --root")
	}
	dir, err := a.siteDir(f.state)
	if err != nil {
		return err
	}
	roots, err := readPins(f.roots)
	if err != nil {
		return err
	}
	if want := asDigest(f.expectRoot); want != "" && roots[0].Digest != want {
		return &UnexpectedError{fmt.Sprintf("root document %q", f.roots[0]), roots[0].Digest, want}
	}
	raw, path, err := a.policyToPin(cmd, args, f, roots)
	if err != nil {
		return err
	}
	policy, err := trust.ParsePolicy(path, raw)
	if err != nil {
		return err
	}
	if want := asDigest(f.expect); want != "" && policy.Digest != want {
		return &UnexpectedError{fmt.Sprintf("policy %q", path), policy.Digest, want}
	}
	head, err := dir.Update(cmd.Context(), a.env.Now(), func(tx *site.Tx) error {
		if tx.Record.Policy != "" {
			return fmt.Errorf("pinning a policy: %w", errPinned)
		}
		tx.Record.Policy = tx.Put(raw)
		if err := pinNew(cmd.Context(), tx, policy, roots); err != nil {
			return err
		}
		tx.Record.RaiseFloor(a.env.Now())
		tx.Log(site.Event{Kind: site.KindTrustInit, Digest: policy.Digest})
		return nil
	})
	if err != nil {
		return err
	}
	return a.showTrust(cmd.Context(), dir, &head, "pinned: compare these fingerprints with those that you got by another way\n")
}

// asDigest takes what sha256sum prints as well.
func asDigest(text string) string {
	if text != "" && !strings.Contains(text, ":") {
		return "sha256:" + text
	}
	return text
}

// readPins reads root documents that are to be pinned.
func readPins(paths []string) ([]*trust.SignedRoot, error) {
	var roots []*trust.SignedRoot
	for _, path := range paths {
		root, err := readRoot(path)
		if err != nil {
			return nil, err
		}
		roots = append(roots, root)
	}
	return roots, nil
}

// policyToPin is the policy in a file, or one that is made from a key or a root.
func (a *app) policyToPin(cmd *cobra.Command, args []string, f trustInitFlags, roots []*trust.SignedRoot) (raw []byte, path string, err error) {
	if len(args) > 0 {
		raw, err = readBounded("policy", args[0], trust.MaxPolicyBytes)
		return raw, args[0], err
	}
	simple := trust.SimplePolicy{Bundles: f.bundles}
	if f.key != "" {
		key, err := a.publicKey(cmd.Context(), f.key)
		if err != nil {
			return nil, "", err
		}
		simple.Key = &key
	}
	for _, r := range roots {
		simple.Roots = append(simple.Roots, r.Root.Name)
	}
	raw, err = simple.Encode()
	return raw, "policy made from the flags", err
}

// pinNew pins roots that the policy refers to and that are not pinned yet, and checks that none is
// missing.
func pinNew(ctx context.Context, tx *site.Tx, policy *trust.Policy, roots []*trust.SignedRoot) error {
	wanted := policy.Roots()
	pinned := func(name string) bool {
		return slices.ContainsFunc(tx.Record.Roots, func(p site.PinnedRoot) bool { return p.Name == name })
	}
	for _, root := range roots {
		name := root.Root.Name
		switch {
		case !slices.Contains(wanted, name):
			return fmt.Errorf("pinning root %q: no group of the policy is that of this root", name)
		case pinned(name):
			return fmt.Errorf("pinning root %q: it is pinned already", name)
		}
		if err := root.CheckSelf(ctx); err != nil {
			return err
		}
		tx.Record.Roots = append(tx.Record.Roots, site.PinnedRoot{
			Name: name, Chain: []site.RootVersion{{Version: root.Root.Version, Digest: tx.Put(root.File)}},
		})
		tx.Log(site.Event{
			Kind: site.KindRootUpdate, Digest: root.Digest,
			Detail: map[string]string{"root": name, "version": strconv.Itoa(root.Root.Version), "what": "pinned"},
		})
	}
	for _, name := range wanted {
		if !pinned(name) {
			return &missingRootError{name}
		}
	}
	return nil
}

// missingRootError says that a policy refers to a root that the site does not have.
type missingRootError struct{ name string }

func (e *missingRootError) Error() string {
	return fmt.Sprintf("the policy refers to root %q, which is not pinned at this site", e.name)
}

func (a *app) trustShowCommand() *cobra.Command {
	var state string
	var raw bool
	c := &cobra.Command{
		Use:   "show",
		Short: "Show the policy, the roots, and what this site has accepted",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := a.siteDir(state)
			if err != nil {
				return err
			}
			if raw {
				return a.printPolicy(cmd.Context(), dir)
			}
			return a.showTrust(cmd.Context(), dir, nil, "")
		},
	}
	c.Flags().BoolVar(&raw, "policy", false, "print the policy as it was pinned")
	stateFlag(c, &state)
	return c
}

func (a *app) printPolicy(ctx context.Context, dir *site.Dir) error {
	record, err := dir.Read(ctx)
	if err != nil {
		return err
	}
	if record.Policy == "" {
		return errNotPinned
	}
	raw, err := dir.Document(record.Policy, trust.MaxPolicyBytes)
	if err != nil {
		return err
	}
	if _, err := a.env.Stdout.Write(raw); err != nil {
		return fmt.Errorf("printing the policy: %w", err)
	}
	return nil
}

// trustState is what a site trusts and has accepted.
type trustState struct {
	State    string             `json:"state"`
	Policy   *trust.Description `json:"policy,omitempty"`
	Roots    []shownRoot        `json:"roots"`
	Accepted []site.Accepted    `json:"accepted"`
	Clock    string             `json:"clockFloor,omitempty"`
	Journal  site.Head          `json:"journal"`
}

type shownRoot struct {
	Name    string `json:"name"`
	Version int    `json:"version"`
	// Digest is that of the signed bytes, which is what people compare.
	Digest  string `json:"digest"`
	Expires string `json:"expires"`
	Expired bool   `json:"expired"`
}

func (a *app) showTrust(ctx context.Context, dir *site.Dir, head *site.Head, first string) error {
	record, err := dir.Read(ctx)
	if err != nil {
		return err
	}
	s := trustState{State: dir.Path(), Roots: []shownRoot{}, Accepted: append([]site.Accepted{}, record.Accepted...), Clock: record.ClockFloor, Journal: record.Journal}
	if head != nil {
		s.Journal = *head
	}
	if record.Policy != "" {
		policy, err := pinnedPolicy(dir, record)
		if err != nil {
			return err
		}
		d := policy.Describe()
		s.Policy = &d
	}
	chains, err := install.PinnedRoots(dir, record)
	if err != nil {
		return err
	}
	for _, p := range record.Roots {
		last := chains[p.Name][len(chains[p.Name])-1]
		s.Roots = append(s.Roots, shownRoot{p.Name, last.Root.Version, last.Digest, last.Root.Expires, last.CheckExpiry(a.env.Now()) != nil})
	}
	return a.print(s, func(w io.Writer) {
		fmt.Fprint(w, first)
		s.write(w)
	})
}

func (s *trustState) write(w io.Writer) {
	fmt.Fprintf(w, "state    %s\n", s.State)
	if s.Policy == nil {
		fmt.Fprintln(w, "policy   none: every command needs --key")
	} else {
		writePolicy(w, s.Policy)
	}
	for _, r := range s.Roots {
		expires := "expires"
		if r.Expired {
			expires = "EXPIRED"
		}
		fmt.Fprintf(w, "root     %s version %d, %s %s\n         %s\n", r.Name, r.Version, expires, r.Expires, r.Digest)
	}
	for _, b := range s.Accepted {
		fmt.Fprintf(w, "accepted %s %s (%s) on %s\n         %s\n", b.Name, b.Version, b.Channel, b.At, b.Digest)
	}
	if s.Clock != "" {
		fmt.Fprintf(w, "clock    it is later than %s\n", s.Clock)
	}
	if s.Journal.Seq > 0 {
		fmt.Fprintf(w, "journal  entry %d, %s\n", s.Journal.Seq, s.Journal.Digest)
	}
}

func writePolicy(w io.Writer, d *trust.Description) {
	fmt.Fprintf(w, "policy   %s\n", d.Digest)
	for _, r := range d.Rules {
		fmt.Fprintf(w, "rule     %s, for the bundles %s\n", r.Name, strings.Join(r.Bundles, ", "))
		for _, g := range r.Groups {
			if g.Root != "" {
				fmt.Fprintf(w, "         group %s: whom the root %s names\n", g.Name, g.Root)
				continue
			}
			fmt.Fprintf(w, "         group %s: %d of\n", g.Name, g.Threshold)
			for _, signer := range g.Signers {
				fmt.Fprintf(w, "           %s\n", signer)
			}
		}
		for _, demand := range r.Demands {
			fmt.Fprintf(w, "         %s\n", demand)
		}
	}
	for _, allowed := range d.Allows {
		fmt.Fprintf(w, "ALLOWS   %s\n", allowed)
	}
}

func (a *app) trustUpdateCommand() *cobra.Command {
	var state, reason string
	c := &cobra.Command{
		Use:   "update FILE...",
		Short: "Replace the policy of this site, or walk up a vendor's roots",
		Long: `Take in files, each of which is a policy that replaces the one that is pinned, or a root
document (N.root.json) of a vendor. A root counts only if it follows the one that the site
has, and is signed as that one demands; one that goes back is refused. Roots also come with
bundles. A policy that refers to a root which is not pinned needs that root beside it.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.trustUpdate(cmd, args, state, reason) },
	}
	c.Flags().StringVar(&reason, "reason", "", "why; goes to the journal")
	onlyFlag(c.Flags(), "reason")
	stateFlag(c, &state)
	return c
}

// isRoot reports whether a file is a root document rather than a policy.
func isRoot(raw []byte) bool {
	return bytes.HasPrefix(bytes.TrimSpace(raw), []byte(`{"mediaType":"application/vnd.sealift.signed-root.`))
}

func (a *app) trustUpdate(cmd *cobra.Command, args []string, state, reason string) error {
	ctx := cmd.Context()
	dir, err := a.siteDir(state)
	if err != nil {
		return err
	}
	var policy *trust.Policy
	var text []byte
	var roots []*trust.SignedRoot
	for _, path := range args {
		raw, err := readBounded("file", path, trust.MaxPolicyBytes)
		if err != nil {
			return err
		}
		if isRoot(raw) {
			root, err := trust.ParseRootFile(raw)
			if err != nil {
				return fmt.Errorf("root document %q: %w", path, err)
			}
			roots = append(roots, root)
			continue
		}
		if policy != nil {
			return &usageError{errors.New("more than one policy is named"), cmd.CommandPath()}
		}
		if policy, err = trust.ParsePolicy(path, raw); err != nil {
			return err
		}
		text = raw
	}
	if len(reason) > maxReason {
		return &usageError{errors.New(reasonTooLong), cmd.CommandPath()}
	}
	recordBefore, err := dir.Read(ctx)
	if err != nil {
		return err
	}
	head, err := dir.Update(ctx, a.env.Now(), func(tx *site.Tx) error {
		if tx.Record.Policy == "" {
			return fmt.Errorf("updating what this site trusts: %w", errNotPinned)
		}
		rest, err := walkPinned(ctx, dir, tx, roots, reason)
		if err != nil {
			return err
		}
		if policy == nil {
			// A vendor's root that was forgotten can be pinned again.
			have, err := pinnedPolicy(dir, tx.Record)
			if err != nil {
				return err
			}
			return pinNew(ctx, tx, have, rest)
		}
		if err := pinNew(ctx, tx, policy, rest); err != nil {
			return err
		}
		if digest := tx.Put(text); digest != tx.Record.Policy {
			tx.Log(site.Event{Kind: site.KindTrustUpdate, Digest: digest, Reason: reason, Detail: map[string]string{"before": tx.Record.Policy}})
			tx.Record.Policy = digest
		}
		return nil
	})
	if err != nil {
		return err
	}
	before, first := recordBefore.Journal, ""
	if head == before {
		first = "nothing has changed\n"
	}
	return a.showTrust(ctx, dir, &head, first)
}

// walkPinned goes up the roots that are pinned, and returns those of vendors that are not.
func walkPinned(ctx context.Context, dir *site.Dir, tx *site.Tx, roots []*trust.SignedRoot, reason string) (rest []*trust.SignedRoot, err error) {
	chains, err := install.PinnedRoots(dir, tx.Record)
	if err != nil {
		return nil, err
	}
	byName := map[string][]*trust.SignedRoot{}
	for _, r := range roots {
		if len(chains[r.Root.Name]) == 0 {
			rest = append(rest, r)
			continue
		}
		byName[r.Root.Name] = append(byName[r.Root.Name], r)
	}
	for name, have := range byName {
		chain := chains[name]
		last := chain[len(chain)-1]
		walked, unused, err := trust.Walk(ctx, last, have)
		if err != nil {
			return nil, err
		}
		// What somebody names by hand must be of use: here nothing is passed over in silence. That
		// the roots which the site has are among them is no mistake.
		upToDate := slices.ContainsFunc(have, func(r *trust.SignedRoot) bool { return r.Digest == last.Digest })
		for _, r := range have {
			if upToDate && slices.ContainsFunc(chain, func(known *trust.SignedRoot) bool { return known.Digest == r.Digest }) {
				continue
			}
			if err := mustFollow(chain, walked, r, unused); err != nil {
				return nil, err
			}
		}
		install.PinRoots(tx, name, walked, reason)
	}
	return rest, nil
}

// mustFollow checks that a root which was named is one that the site has now.
func mustFollow(chain, walked []*trust.SignedRoot, r *trust.SignedRoot, unused []error) error {
	last := chain[len(chain)-1].Root.Version
	for _, known := range append(slices.Clone(chain[:len(chain)-1]), walked...) {
		if known.Digest != r.Digest {
			continue
		}
		if r.Root.Version < last && len(walked) == 1 {
			break // the site has it, and has left it behind
		}
		return nil
	}
	switch {
	case r.Root.Version <= last:
		return &trust.RootError{Name: r.Root.Name, Version: r.Root.Version, Err: fmt.Errorf("this site has version %d: %w", last, trust.ErrRootBack)}
	case len(unused) > 0:
		return errors.Join(unused...)
	}
	return &trust.RootError{Name: r.Root.Name, Version: r.Root.Version, Err: trust.ErrRootGap}
}

func (a *app) trustCheckCommand() *cobra.Command {
	var state string
	var roots []string
	c := &cobra.Command{
		Use:   "check POLICY [BUNDLE...]",
		Short: "Check a policy without pinning it, and what it says of bundles",
		Long: `Read a policy, print what it means, and say of each bundle whether it would be accepted, and
by which rule. Nothing is pinned or recorded. The roots are those of this site, and of --root.

` + placesHelp,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.trustCheck(cmd, args, state, roots) },
	}
	c.Flags().StringSliceVar(&roots, "root", nil, "root document of a vendor to use as if it were pinned (repeatable)")
	stateFlag(c, &state)
	return c
}

func (a *app) trustCheck(cmd *cobra.Command, args []string, state string, rootPaths []string) error {
	roots, err := readPins(rootPaths)
	if err != nil {
		return err
	}
	raw, err := readBounded("policy", args[0], trust.MaxPolicyBytes)
	if err != nil {
		return err
	}
	policy, err := trust.ParsePolicy(args[0], raw)
	if err != nil {
		return err
	}
	result := struct {
		Policy  trust.Description `json:"policy"`
		Bundles []checkedBundle   `json:"bundles"`
	}{policy.Describe(), []checkedBundle{}}
	var first error
	if len(args) > 1 {
		if result.Bundles, first, err = a.checkBundles(cmd, args[1:], policy, state, roots); err != nil {
			return err
		}
	}
	if err := a.print(result, func(w io.Writer) {
		writePolicy(w, &result.Policy)
		for i := range result.Bundles {
			b := &result.Bundles[i]
			if b.Error != "" {
				fmt.Fprintf(w, "\n%s: REFUSED\n  %s\n", b.File, b.Error)
				continue
			}
			fmt.Fprintf(w, "\n%s: would be accepted\n", b.File)
			writeEvidence(w, b.Evidence)
		}
	}); err != nil {
		return err
	}
	return first
}

type checkedBundle struct {
	File     string           `json:"file"`
	Error    string           `json:"error,omitempty"`
	Evidence *verify.Evidence `json:"evidence,omitempty"`
}

// checkBundles opens each bundle with the policy; first is why the first one was refused.
func (a *app) checkBundles(cmd *cobra.Command, args []string, policy *trust.Policy, state string, roots []*trust.SignedRoot) (all []checkedBundle, first, err error) {
	p := verify.Policy{Site: policy, Freshness: &trust.Freshness{Now: a.env.Now()}}
	if path := a.stateDir(state); path != "" {
		dir := site.Open(path)
		record, err := dir.Read(cmd.Context())
		if err != nil {
			return nil, nil, err
		}
		p.Freshness.Record = record
		if p.Pinned, err = install.PinnedRoots(dir, record); err != nil {
			return nil, nil, err
		}
	}
	if p.Pinned == nil {
		p.Pinned = map[string][]*trust.SignedRoot{}
	}
	for _, r := range roots {
		if err := r.CheckSelf(cmd.Context()); err != nil {
			return nil, nil, err
		}
		p.Pinned[r.Root.Name] = []*trust.SignedRoot{r}
	}
	found, err := a.find(cmd, args)
	if err != nil {
		return nil, nil, err
	}
	for _, f := range found {
		c := checkedBundle{File: f.Name}
		b, err := verify.Open(cmd.Context(), f, p)
		if err != nil {
			if first == nil {
				first = err
			}
			c.Error = err.Error()
		} else {
			e := b.Evidence()
			c.Evidence = &e
			if err := b.Close(); err != nil {
				return nil, nil, err
			}
		}
		all = append(all, c)
	}
	return all, first, nil
}

func (a *app) trustClockCommand() *cobra.Command {
	var state, reason, to string
	c := &cobra.Command{
		Use:   "clock",
		Short: "Lower the time that this site takes to have passed",
		Long: `A site remembers the latest time that it has seen, so that a clock which is set back does not
make an expired bundle good again. Where the clock was wrong in the other direction, as with
a dead battery, this sets it back: to the local clock, or to --to.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.trustClock(cmd, state, reason, to) },
	}
	c.Flags().StringVar(&reason, "reason", "", "why; goes to the journal")
	c.Flags().StringVar(&to, "to", "", "time as 2026-01-02T03:04:05Z (default: the local clock)")
	onlyFlag(c.Flags(), "reason")
	onlyFlag(c.Flags(), "to")
	stateFlag(c, &state)
	return c
}

func (a *app) trustClock(cmd *cobra.Command, state, reason, to string) error {
	if err := checkReason(cmd, reason); err != nil {
		return err
	}
	if to == "" {
		to = a.env.Now().UTC().Truncate(time.Second).Format(time.RFC3339)
	}
	if err := manifest.CheckTime(to); err != nil {
		return &usageError{fmt.Errorf("--to: %w", err), cmd.CommandPath()}
	}
	if t, err := time.Parse(time.RFC3339, to); err == nil && t.Sub(a.env.Now()) > site.MaxAhead {
		return &usageError{fmt.Errorf("--to %s is later than the clock of this machine: everything would seem to have expired", to), cmd.CommandPath()}
	}
	dir, err := a.siteDir(state)
	if err != nil {
		return err
	}
	result := struct {
		Before  string    `json:"before"`
		After   string    `json:"after"`
		Journal site.Head `json:"journal"`
	}{After: to}
	result.Journal, err = dir.Update(cmd.Context(), a.env.Now(), func(tx *site.Tx) error {
		result.Before = tx.Record.ClockFloor
		tx.Record.ClockFloor = to
		tx.Log(site.Event{Kind: site.KindClock, Reason: reason, Detail: map[string]string{"before": result.Before, "after": to}})
		return nil
	})
	if err != nil {
		return err
	}
	return a.print(result, func(w io.Writer) {
		fmt.Fprintf(w, "clock    it is later than %s now, before %s\n", to, orNone(result.Before))
		writeHead(w, &result.Journal)
	})
}

// checkReason checks that a reason is given.
func checkReason(cmd *cobra.Command, reason string) error {
	switch {
	case strings.TrimSpace(reason) == "":
		return &usageError{errors.New("--reason is demanded, and goes to the journal"), cmd.CommandPath()}
	case len(reason) > maxReason:
		return &usageError{errors.New(reasonTooLong), cmd.CommandPath()}
	}
	return nil
}

func (a *app) trustForgetCommand() *cobra.Command {
	var state, reason, channel, root string
	var inCluster bool
	var cluster clusterFlags
	c := &cobra.Command{
		Use:   "forget [NAME]",
		Short: "Forget what this site has accepted of a bundle, or a vendor's root",
		Long: `Forget which version of the bundle NAME this site has accepted, so that an older one is accepted
again: where a wrong one was, and no root of the vendor says so (see 'sealift root next --reset').
What a cluster has accepted would come back with the next install: with --cluster it is forgotten
there, too. Other machines of the site that have heard of it forget it for themselves.
With --root forget the pinned root of a vendor that has lost its root keys; 'sealift trust update'
pins a new one then, of which the fingerprint has to be compared anew.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (root == "") == (len(args) == 0) {
				return &usageError{errors.New("one of NAME and --root is wanted"), cmd.CommandPath()}
			}
			name := root
			if root == "" {
				name = args[0]
			}
			if inCluster && root != "" {
				return &usageError{errors.New("no cluster knows of roots: --cluster goes with NAME"), cmd.CommandPath()}
			}
			f := forgetting{name, channel, root != "", reason, state, nil}
			if inCluster {
				f.cluster = &cluster
			}
			return a.trustForget(cmd, f)
		},
	}
	c.Flags().StringVar(&channel, "channel", manifest.DefaultChannel, "channel of the bundle")
	c.Flags().StringVar(&root, "root", "", "vendor whose root is forgotten")
	c.Flags().StringVar(&reason, "reason", "", "why; goes to the journal")
	c.Flags().BoolVar(&inCluster, "cluster", false, "forget it in the cluster, too")
	c.Flags().StringVar(&cluster.kubeconfig, "kubeconfig", "", "kubeconfig of the cluster (default: KUBECONFIG, then ~/.kube/config)")
	c.Flags().StringVar(&cluster.context, "context", "", "context of the kubeconfig (default: its current one)")
	c.Flags().StringVar(&cluster.records, "record-namespace", release.DefaultRecordNamespace, "namespace in which the cluster keeps what is known about bundles")
	for _, name := range []string{"channel", "root", "reason", "cluster"} {
		onlyFlag(c.Flags(), name)
	}
	stateFlag(c, &state)
	return c
}

// forgetting is what is to be forgotten.
type forgetting struct {
	name, channel string
	root          bool
	reason, state string
	// cluster is nil where none is to forget.
	cluster *clusterFlags
}

// unknownError says that there is nothing to forget.
type unknownError struct{ what string }

func (e *unknownError) Error() string { return "this site has accepted no " + e.what }

func (a *app) trustForget(cmd *cobra.Command, f forgetting) error {
	if err := checkReason(cmd, f.reason); err != nil {
		return err
	}
	dir, err := a.siteDir(f.state)
	if err != nil {
		return err
	}
	// First there: else it would come back.
	there := false
	if f.cluster != nil {
		if there, err = a.forgetInCluster(cmd.Context(), f); err != nil {
			return err
		}
	}
	head, err := dir.Update(cmd.Context(), a.env.Now(), func(tx *site.Tx) error {
		if f.root {
			i := slices.IndexFunc(tx.Record.Roots, func(p site.PinnedRoot) bool { return p.Name == f.name })
			if i < 0 {
				return &unknownError{fmt.Sprintf("root %q", f.name)}
			}
			last := tx.Record.Roots[i].Chain[len(tx.Record.Roots[i].Chain)-1]
			tx.Record.Roots = slices.Delete(tx.Record.Roots, i, i+1)
			tx.Log(site.Event{Kind: site.KindForget, Reason: f.reason, Digest: last.Digest, Detail: map[string]string{"root": f.name, "version": strconv.Itoa(last.Version)}})
			return nil
		}
		i := slices.IndexFunc(tx.Record.Accepted, func(b site.Accepted) bool { return b.Name == f.name && b.Channel == f.channel })
		if i < 0 && there {
			tx.Log(site.Event{Kind: site.KindForget, Bundle: f.name, Channel: f.channel, Reason: f.reason, Detail: map[string]string{"in": "the cluster"}})
			return nil
		}
		if i < 0 {
			return &unknownError{fmt.Sprintf("bundle %q of the channel %q", f.name, f.channel)}
		}
		was := tx.Record.Accepted[i]
		tx.Record.Accepted = slices.Delete(tx.Record.Accepted, i, i+1)
		e := site.Event{Kind: site.KindForget, Bundle: was.Name, Channel: was.Channel, Version: was.Version, Digest: was.Digest, Reason: f.reason}
		if there {
			e.Detail = map[string]string{"in": "the cluster, too"}
		}
		tx.Log(e)
		return nil
	})
	if err != nil {
		return err
	}
	return a.showTrust(cmd.Context(), dir, &head, "")
}

// forgetInCluster has the state of a bundle forget what was accepted, and reports whether there was anything.
func (a *app) forgetInCluster(ctx context.Context, f forgetting) (forgotten bool, err error) {
	if err := manifest.CheckName(f.name); err != nil {
		return false, err
	}
	cluster, err := a.connect(f.cluster)
	if err != nil {
		return false, err
	}
	door := cluster.Ledger(f.cluster.records)
	state, _, err := door.Read(ctx, f.name)
	if err != nil || state == nil {
		return false, err
	}
	hold, err := door.Hold(ctx, f.name, 0)
	if err != nil {
		return false, err
	}
	defer hold.End(ctx)
	bound, cancel := hold.Bind(ctx)
	defer cancel()
	state, version, err := door.Read(bound, f.name)
	if err != nil || state == nil || !install.ForgetAccepted(state, f.channel, a.env.Now()) {
		return false, err
	}
	_, err = door.Write(bound, state, version)
	return err == nil, err
}
