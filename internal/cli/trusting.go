package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/install"
	"github.com/sealift/sealift/internal/sigstore"
	"github.com/sealift/sealift/internal/site"
	"github.com/sealift/sealift/internal/trust"
	"github.com/sealift/sealift/verify"
)

// errNoState is returned where there is no place for the site's record.
var errNoState = errors.New("there is no place for the site's record")

// trustFlags say whom a command trusts.
type trustFlags struct {
	key, policy, state string
	// For commands that use what is in a bundle.
	skipSignature, allowDowngrade, allowExpired bool
	reason                                      string
	uses                                        bool
}

// add defines the flags of a command that looks at bundles.
func (f *trustFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.key, "key", "", "public key of the vendor, or NAME://… for one that a KMS plugin holds; for sites without a policy")
	c.Flags().StringVar(&f.policy, "policy", "", "policy to use instead of the one of the site ('sealift trust init' pins one for good)")
	stateFlag(c, &f.state)
}

func stateFlag(c *cobra.Command, state *string) {
	c.Flags().StringVar(state, "state", "", "directory of the site's record (default: /var/lib/sealift, or sealift in the user's XDG state directory)")
}

// addUse defines the flags of a command that uses what is in a bundle.
func (f *trustFlags) addUse(c *cobra.Command) {
	f.add(c)
	f.uses = true
	c.Flags().BoolVar(&f.allowDowngrade, "allow-downgrade", false, "use a version that is older than what the site has accepted, or another content of the same version")
	c.Flags().BoolVar(&f.allowExpired, "allow-expired", false, "use a bundle that has expired, or is too old for the policy")
	c.Flags().BoolVar(&f.skipSignature, "insecure-skip-signature", false, "use a bundle whoever has made it; its content is proven against its manifest all the same")
	c.Flags().StringVar(&f.reason, "reason", "", "why; goes to the journal, and is demanded by --allow-… and --insecure-…")
	for _, name := range []string{"allow-downgrade", "allow-expired", "insecure-skip-signature", "reason"} {
		onlyFlag(c.Flags(), name)
	}
}

// maxReason bounds a reason, in bytes.
const maxReason = 1024

const reasonTooLong = "--reason is longer than 1024 bytes"

// ForbiddenError says that the site's policy does not allow a flag.
type ForbiddenError struct {
	Flag string
	// Variable is that of the environment from which it was set; empty for the command line.
	Variable string
}

// Error names the flag.
func (e *ForbiddenError) Error() string {
	if e.Variable != "" {
		return fmt.Sprintf("the policy of this site does not allow --%s, which is set by %s", e.Flag, e.Variable)
	}
	return fmt.Sprintf("the policy of this site does not allow --%s", e.Flag)
}

// trusting is whom a command trusts, and what it knows of the site.
type trusting struct {
	policy verify.Policy
	dir    *site.Dir
	record *site.Record
	// named says that somebody, or a policy, is named at all.
	named bool
	// pinned says that the site's policy counts.
	pinned   bool
	reason   string
	weakened []string
}

// stateDir is the directory of the site's record.
func (a *app) stateDir(flag string) string {
	if flag != "" {
		return flag
	}
	return site.DefaultDir(a.env.getenv, os.Geteuid(), func(path string) bool {
		_, err := os.Stat(path)
		return err == nil
	})
}

// otherState says that the policy of this machine does not count, where --state leads elsewhere.
func (a *app) otherState(ctx context.Context, flag string) {
	usual := a.stateDir("")
	if flag == "" || usual == "" || filepath.Clean(flag) == usual {
		return
	}
	// What is wrong there is of no account here.
	if record, err := site.Open(usual).Read(ctx); err != nil || record.Policy == "" {
		return
	}
	fmt.Fprintf(a.env.Stderr, "warning: the policy that is pinned in %s does not count, since --state is %s\n", usual, printable(flag))
}

// siteDir opens the directory of the site's record, which must have a place.
func (a *app) siteDir(flag string) (*site.Dir, error) {
	path := a.stateDir(flag)
	if path == "" {
		return nil, errNoState
	}
	return site.Open(path), nil
}

// trusting reads the site's record and policy and what the flags say.
func (a *app) trusting(cmd *cobra.Command, f *trustFlags) (*trusting, error) {
	usage := func(text string) error { return &usageError{errors.New(text), cmd.CommandPath()} }
	weak := f.skipSignature || f.allowDowngrade || f.allowExpired
	switch {
	case f.key != "" && f.policy != "":
		return nil, usage("--key and --policy exclude each other")
	case f.skipSignature && f.key+f.policy != "":
		return nil, usage("--insecure-skip-signature leaves nothing for --key and --policy to do")
	case weak && strings.TrimSpace(f.reason) == "":
		return nil, usage("--reason is demanded, and goes to the journal")
	case len(f.reason) > maxReason:
		return nil, usage(reasonTooLong)
	}
	t := &trusting{record: &site.Record{}, reason: f.reason}
	if path := a.stateDir(f.state); path != "" {
		t.dir = site.Open(path)
		var err error
		if t.record, err = t.dir.Read(cmd.Context()); err != nil {
			return nil, err
		}
	}
	a.otherState(cmd.Context(), f.state)
	if err := a.readPolicy(cmd, t, f); err != nil {
		return nil, err
	}
	t.named = t.policy.Site != nil || len(t.policy.Keys) > 0
	if f.skipSignature {
		t.policy.Unsigned, t.named = true, true
		t.weakened = append(t.weakened, "--insecure-skip-signature")
	}
	if t.dir != nil {
		var err error
		if t.policy.Pinned, err = install.PinnedRoots(t.dir, t.record); err != nil {
			return nil, err
		}
	}
	if !t.pinned {
		// What the vendors of this site have revoked stays so, whoever else is trusted.
		revoked := &t.policy.Revoked
		if t.policy.Site != nil {
			revoked = &t.policy.Site.Revoked
		}
		for _, chain := range t.policy.Pinned {
			last := &chain[len(chain)-1].Root.Revoked
			revoked.Digests = append(revoked.Digests, last.Digests...)
			revoked.Versions = append(revoked.Versions, last.Versions...)
		}
	}
	if f.uses {
		t.policy.Freshness = &trust.Freshness{Record: t.record, Now: a.env.Now(), AllowDowngrade: f.allowDowngrade, AllowExpired: f.allowExpired}
	}
	return t, nil
}

// pinnedPolicy is the policy that is pinned.
func pinnedPolicy(dir *site.Dir, record *site.Record) (*trust.Policy, error) {
	raw, err := dir.Document(record.Policy, trust.MaxPolicyBytes)
	if err != nil {
		return nil, err
	}
	return trust.ParsePolicy("policy of the site", raw)
}

// readPolicy sets who may sign: by the site's policy, where it has one; else by the flags.
func (a *app) readPolicy(cmd *cobra.Command, t *trusting, f *trustFlags) error {
	ctx := cmd.Context()
	if t.record.Policy != "" {
		pinned, err := pinnedPolicy(t.dir, t.record)
		if err != nil {
			return err
		}
		named := map[string]bool{"key": f.key != "", "policy": f.policy != "", "insecure-skip-signature": f.skipSignature}
		for flag, allowed := range map[string]bool{"key": pinned.AllowKey, "policy": pinned.AllowKey, "insecure-skip-signature": pinned.AllowUnsigned} {
			if !named[flag] {
				continue
			}
			variable := fromVariable(cmd, flag)
			if !allowed || variable != "" {
				// What weakens is said each time, by whoever does it.
				return &ForbiddenError{flag, variable}
			}
			if strings.TrimSpace(f.reason) == "" && f.uses {
				return &usageError{fmt.Errorf("--%s instead of the site's policy demands --reason, which goes to the journal", flag), cmd.CommandPath()}
			}
		}
		if f.key == "" && f.policy == "" {
			t.policy.Site, t.pinned = pinned, true
			return nil
		}
		t.weakened = append(t.weakened, "--key or --policy instead of the site's policy")
		t.policy.Revoked = pinned.Revoked
	}
	switch {
	case f.key != "":
		key, err := a.publicKey(ctx, f.key)
		if err != nil {
			return err
		}
		t.policy.Keys = []sigstore.PublicKey{key}
	case f.policy != "":
		raw, err := readBounded("policy", f.policy, trust.MaxPolicyBytes)
		if err != nil {
			return err
		}
		if t.policy.Site, err = trust.ParsePolicy(f.policy, raw); err != nil {
			return err
		}
		// What this site refuses it refuses by any policy.
		t.policy.Site.Revoked.Digests = append(t.policy.Site.Revoked.Digests, t.policy.Revoked.Digests...)
		t.policy.Site.Revoked.Versions = append(t.policy.Site.Revoked.Versions, t.policy.Revoked.Versions...)
	}
	return nil
}

// readBounded reads a file of at most limit bytes, which errors call what.
func readBounded(what, path string, limit int64) (_ []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", what, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s %q: %w", what, path, err)
	}
	if int64(len(raw)) > limit {
		return nil, fmt.Errorf("reading %s %q: more than %d bytes", what, path, limit)
	}
	return raw, nil
}

// publicKey reads a public key from a file, or asks the plugin that holds it.
func (a *app) publicKey(ctx context.Context, key string) (sigstore.PublicKey, error) {
	if sigstore.IsKMS(key) {
		if a.noExec {
			return sigstore.PublicKey{}, &execError{key}
		}
		return sigstore.KMSPublicKey(ctx, key)
	}
	raw, err := readBounded("key", key, sigstore.MaxKeyBytes)
	if err != nil {
		return sigstore.PublicKey{}, err
	}
	k, err := sigstore.ParsePublicKey(raw)
	if err != nil {
		return sigstore.PublicKey{}, fmt.Errorf("key %q: %w", key, err)
	}
	return k, nil
}

// execError says that a program would have to be run that --no-exec forbids.
type execError struct{ key string }

func (e *execError) Error() string {
	return fmt.Sprintf("key %q is held by a plugin, which --no-exec forbids to run", e.key)
}

// unproven says why nothing of a bundle is proven that is shown.
func unproven(pinned bool, signatures, what string) string {
	if pinned {
		return fmt.Sprintf("refused by the policy of this site (%s): do not rely on what is %s here", signatures, what)
	}
	return fmt.Sprintf("not checked (%s); give --key to prove what is %s here", signatures, what)
}

// acceptOptions are what is recorded about bundles that were used.
func (a *app) acceptOptions(t *trusting, how, target string) (install.AcceptOptions, error) {
	if t.dir == nil {
		return install.AcceptOptions{}, errNoState
	}
	return install.AcceptOptions{Dir: t.dir, Now: a.env.Now(), How: how, Target: target, Reason: t.reason, Weakened: t.weakened}, nil
}

// keepReason writes to the journal why bundles were used that would have been refused, where they
// were not accepted for good.
func (a *app) keepReason(ctx context.Context, t *trusting, how string, bundles []*verify.Bundle) error {
	if len(t.weakened) == 0 && !slices.ContainsFunc(bundles, func(b *verify.Bundle) bool { return len(b.Stale()) > 0 }) {
		return nil
	}
	o, err := a.acceptOptions(t, how, "")
	if err != nil {
		return err
	}
	return install.Overridden(ctx, bundles, o)
}

// writeEvidence prints what was proven about a bundle's origin.
func writeEvidence(w io.Writer, e *verify.Evidence) {
	if e.Unsigned {
		fmt.Fprintln(w, "  signed by  nobody who was proven (--insecure-skip-signature)")
	}
	for i := range e.Signed {
		s := &e.Signed[i]
		when := ""
		if len(s.Times) == 0 {
			when = "; when is not proven"
		}
		fmt.Fprintf(w, "  signed by  %s%s%s\n", s.Signer(), beside(s), when)
		for _, t := range s.Times {
			by := ""
			if t.Authority != "" {
				by = " of " + t.Authority
			}
			fmt.Fprintf(w, "             at %s, by a %s%s\n", t.At.UTC().Format("2006-01-02T15:04:05Z"), strings.ReplaceAll(t.Kind, "-", " "), by)
		}
		for _, log := range s.Logs {
			fmt.Fprintf(w, "             in the transparency log %s\n", log)
		}
	}
	if e.Rule != "" {
		fmt.Fprintf(w, "  rule       %s of policy %s\n", e.Rule, e.Policy)
	}
	for _, g := range e.Groups {
		from := ""
		if g.Root != "" {
			from = fmt.Sprintf(", by version %d of the root %s", g.RootVersion, g.Root)
		}
		fmt.Fprintf(w, "  group      %s: %d of %d wanted%s\n", g.Group, len(g.Signers), g.Threshold, from)
	}
	for _, r := range e.Roots {
		if r.New {
			fmt.Fprintf(w, "  root       %s version %d came with the bundle\n", r.Name, r.Version)
		}
	}
	for _, o := range e.Overridden {
		fmt.Fprintf(w, "  ALLOWED    %s\n", o)
	}
	for _, text := range e.Warnings {
		fmt.Fprintf(w, "  warning    %s\n", text)
	}
}

func beside(s *trust.Signed) string {
	if s.Detached {
		return ", in " + s.Signature
	}
	return ""
}

// writeHead prints the end of the journal, for who keeps it elsewhere.
func writeHead(w io.Writer, h *site.Head) {
	if h != nil {
		fmt.Fprintf(w, "  journal  entry %d, %s\n", h.Seq, h.Digest)
	}
}
