package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/internal/trust"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// standardInput is what stands for a bundle that comes through a pipe.
const standardInput = "-"

// filesHelp is said by every command that reads bundles in files.
const filesHelp = `BUNDLE is a file, any volume of one, the name that its volumes have in common, or a directory
with bundles. Volumes may lie in several directories: name them all, in any order. Of a
volume that is in two of them the last one counts.`

// remoteHelp is said by every command that reads bundles in registries; it gets the flags for that.
const remoteHelp = `A bundle in a registry, where 'sealift push' has put it, is named
oci://HOST[:PORT]/REPOSITORY:TAG, or …@DIGEST, and read there.`

// placesHelp is said by every command that reads both.
const placesHelp = filesHelp + `
` + remoteHelp

// streamHelp is said by those that read a stream, too.
const streamHelp = `BUNDLE may be - for a stream on standard input.`

// isStream reports whether args name a stream, which must stand alone.
func isStream(cmd *cobra.Command, args []string) (bool, error) {
	for _, arg := range args {
		if arg == standardInput && len(args) > 1 {
			return false, &usageError{errors.New("- is a bundle of its own: nothing can be named beside it"), cmd.CommandPath()}
		}
	}
	return args[0] == standardInput, nil
}

// opening opens one bundle.
type opening func(context.Context, *verify.Files, verify.Policy) (*verify.Bundle, error)

// openAll proves and opens the bundles that args name, or the stream; done closes them.
func (a *app) openAll(cmd *cobra.Command, args []string, p verify.Policy, open opening) (all []*verify.Bundle, done func(*error), err error) {
	shrink()
	done = func(err *error) {
		for _, b := range all {
			if e := b.Close(); *err == nil {
				*err = e
			}
		}
	}
	stream, err := isStream(cmd, args)
	if err != nil {
		return nil, nil, err
	}
	if stream {
		b, err := verify.OpenStream(cmd.Context(), verify.StreamName, newInterruptible(cmd.Context(), a.env.Stdin), p)
		if err != nil {
			return nil, nil, interrupted(cmd.Context(), err)
		}
		all = append(all, b)
		return all, done, nil
	}
	found, err := a.find(cmd, args)
	if err != nil {
		return nil, nil, err
	}
	if len(found) > 1 && p.Site != nil && len(p.Site.Roots()) > 0 {
		for _, f := range found {
			p.More = append(p.More, verify.Roots(f)...)
		}
	}
	for _, f := range found {
		b, err := open(cmd.Context(), f, p)
		if err != nil {
			done(&err)
			return nil, nil, err
		}
		all = append(all, b)
	}
	return all, done, nil
}

// findOne returns the one bundle that args name, in files of this machine. *archive.RemoteError
// where it is in a registry.
func findOne(cmd *cobra.Command, args []string) (*verify.Files, error) {
	if err := onlyFiles(args); err != nil {
		return nil, err
	}
	return theOne(cmd, args, verify.Find)
}

// findOne returns the one bundle that args name, wherever it is.
func (a *app) findOne(cmd *cobra.Command, args []string) (*verify.Files, error) {
	return theOne(cmd, args, func(args []string) ([]*verify.Files, error) { return a.find(cmd, args) })
}

func theOne(cmd *cobra.Command, args []string, find func([]string) ([]*verify.Files, error)) (*verify.Files, error) {
	stream, err := isStream(cmd, args)
	if err == nil && stream {
		err = &usageError{errors.New("this reads a bundle more than once, so it must be a file: save the stream first"), cmd.CommandPath()}
	}
	if err != nil {
		return nil, err
	}
	found, err := find(args)
	if err != nil {
		return nil, err
	}
	if len(found) != 1 {
		return nil, &usageError{fmt.Errorf("one bundle is wanted, %d are named: %q, %q …", len(found), found[0].Name, found[1].Name), cmd.CommandPath()}
	}
	return found[0], nil
}

// open proves and opens the one bundle that args name; done closes it.
func (a *app) open(cmd *cobra.Command, args []string, p verify.Policy) (b *verify.Bundle, done func(*error), err error) {
	f, err := a.findOne(cmd, args)
	if err != nil {
		return nil, nil, err
	}
	b, err = verify.Open(cmd.Context(), f, p)
	if err != nil {
		return nil, nil, err
	}
	return b, func(err *error) {
		if e := b.Close(); *err == nil {
			*err = e
		}
	}, nil
}

// looking is what a bundle says about itself.
type looking struct {
	*verify.Unproven
	// evidence is nil where nothing of it is proven: the policy of the site refuses it, if pinned
	// says that there is one, else nobody was named.
	evidence *verify.Evidence
	pinned   bool
}

// look reads what the one bundle that args name says about itself, and proves it where somebody is
// named who may have signed it. Where only the site's policy names them, looking at a bundle that
// it refuses is no reason to fail; why is said on standard error.
func (a *app) look(cmd *cobra.Command, args []string, f *trustFlags) (*looking, error) {
	t, err := a.trusting(cmd, f)
	if err != nil {
		return nil, err
	}
	if t.named {
		// Looking at what is old or expired is allowed, and said; at what is revoked, too.
		t.policy.Freshness = &trust.Freshness{Record: t.record, Now: a.env.Now(), AllowDowngrade: true, AllowExpired: true}
	}
	u, e, err := a.inspectWith(cmd, args, t.policy)
	if e != nil {
		for _, text := range append(slices.Clone(e.Overridden), e.Warnings...) {
			fmt.Fprintf(a.env.Stderr, "warning: %s\n", printable(text))
		}
	}
	if err != nil && t.pinned && args[0] != standardInput && refused(err) {
		fmt.Fprintf(a.env.Stderr, "the policy of this site refuses it: %s\n", printable(err.Error()))
		u, e, err = a.inspectWith(cmd, args, verify.Policy{})
	}
	if err != nil {
		return nil, err
	}
	return &looking{u, e, t.pinned}, nil
}

// refused reports whether a bundle was not accepted for who signed it, or for what it may hold.
func refused(err error) bool {
	return is[*verify.UnsignedError](err) || is[*verify.UntrustedError](err) || is[*trust.ViolationError](err) || is[*trust.StaleError](err)
}

func (a *app) inspectWith(cmd *cobra.Command, args []string, p verify.Policy) (*verify.Unproven, *verify.Evidence, error) {
	stream, err := isStream(cmd, args)
	if err != nil {
		return nil, nil, err
	}
	if stream {
		u, e, err := verify.InspectStream(cmd.Context(), verify.StreamName, newInterruptible(cmd.Context(), a.env.Stdin), p)
		return u, e, interrupted(cmd.Context(), err)
	}
	f, err := a.findOne(cmd, args)
	if err != nil {
		return nil, nil, err
	}
	return verify.Inspect(cmd.Context(), f, p)
}

// interrupted is the end of ctx where that is why a stream could not be read, else err.
func interrupted(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// printEach prints one result as it is, and several as a list.
func (a *app) printEach(results []verified, text func(io.Writer, verified)) error {
	var v any = results
	if len(results) == 1 {
		v = results[0]
	}
	return a.print(v, func(w io.Writer) {
		for _, r := range results {
			text(w, r)
		}
	})
}

// titles are the names and versions of bundles, for people.
func titles(bundles []*verify.Bundle) string {
	s := ""
	for i, b := range bundles {
		if i > 0 {
			s += ", "
		}
		s += title(b.Manifest())
	}
	return s
}

func title(m *manifest.Manifest) string { return m.Name + " " + m.Version }
