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
	"time"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/internal/sigstore"
	"github.com/sealift/sealift/internal/trust"
	"github.com/sealift/sealift/manifest"
)

func (a *app) rootCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "root",
		Short: "Make and sign a vendor's root documents",
		Long: `A root document says which keys sign a vendor's bundles, and which keys may change that. Sites
pin the first one; each later one (N.root.json) is signed as the one before it demands, and
travels in the bundles. docs/key-ceremony.md goes through it step by step.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(a.rootCreateCommand(), a.rootNextCommand(), a.rootSignCommand(), a.rootShowCommand())
	for _, s := range c.Commands() {
		wrapArgs(s)
	}
	return c
}

type rootFlags struct {
	name, expires, trustedRoot, out string
	rootKeys, releaseKeys           []string
	rootThreshold, releaseThreshold int
	identities                      []string
	reset, digests, versions        []string
}

func (f *rootFlags) add(c *cobra.Command) {
	fs := c.Flags()
	fs.StringVar(&f.expires, "expires", "", "day after which sites do not believe the root any more: 2028-12-31")
	fs.StringArrayVar(&f.rootKeys, "root-key", nil, "public key that signs roots (repeatable)")
	fs.IntVar(&f.rootThreshold, "root-threshold", 0, "how many of the root keys have to sign a root (default: more than half)")
	fs.StringArrayVar(&f.releaseKeys, "release-key", nil, "public key that signs bundles (repeatable)")
	fs.IntVar(&f.releaseThreshold, "release-threshold", 0, "how many have to sign a bundle (default: 1)")
	fs.StringArrayVar(&f.identities, "release-identity", nil, "identity that signs bundles: SUBJECT,ISSUER, each a literal or with * within a segment (repeatable)")
	fs.StringVar(&f.trustedRoot, "trusted-root", "", "sigstore's trusted_root.json, for identities")
	fs.StringVarP(&f.out, "out", "o", "", "file to write (default: N.root.json)")
}

func (a *app) rootCreateCommand() *cobra.Command {
	var f rootFlags
	c := &cobra.Command{
		Use:   "create",
		Short: "Make the first root document of a vendor",
		Long:  "Make 1.root.json. It counts when as many of its root keys have signed it as it demands.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.makeRoot(cmd, &f, func(change trust.RootChange) (*trust.Root, error) {
				change.Name = f.name
				return trust.NewRoot(change, a.env.Now())
			})
		},
	}
	c.Flags().StringVar(&f.name, "name", "", "name of the vendor")
	f.add(c)
	return c
}

func (a *app) rootNextCommand() *cobra.Command {
	var f rootFlags
	c := &cobra.Command{
		Use:   "next ROOT",
		Short: "Make the root document that follows another",
		Long: `Make the next version of a root: what is not named stays as it is. It counts when it is signed
by as many of the old root keys as the old root demands, and of the new ones as it demands
itself. What is revoked stays revoked for ever.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.makeRoot(cmd, &f, func(change trust.RootChange) (*trust.Root, error) {
				prev, err := readRoot(args[0])
				if err != nil {
					return nil, err
				}
				return trust.NextRoot(&prev.Root, change, a.env.Now())
			})
		},
	}
	f.add(c)
	c.Flags().StringArrayVar(&f.reset, "reset", nil, "bundle whose accepted version sites forget, since a stolen key may have signed it; goes with new release keys (repeatable)")
	c.Flags().StringArrayVar(&f.digests, "revoke-digest", nil, "digest of a bundle that no site may use any more (repeatable)")
	c.Flags().StringArrayVar(&f.versions, "revoke-version", nil, "version that no site may use any more: NAME=VERSION or NAME/CHANNEL=VERSION (repeatable)")
	return c
}

// makeRoot writes what the flags make of a root, unsigned.
func (a *app) makeRoot(cmd *cobra.Command, f *rootFlags, build func(trust.RootChange) (*trust.Root, error)) error {
	change, err := a.rootChange(cmd, f)
	if err != nil {
		return err
	}
	if change.Expires.IsZero() && !cmd.Flags().Changed("expires") && cmd.Name() == "create" {
		return &usageError{errors.New("--expires is wanted: a day such as 2028-12-31"), cmd.CommandPath()}
	}
	root, err := build(change)
	if err != nil {
		return &usageError{err, cmd.CommandPath()}
	}
	raw, err := trust.EncodeRoot(root)
	if err != nil {
		return &usageError{err, cmd.CommandPath()}
	}
	file, err := trust.SealRoot(raw, nil)
	if err != nil {
		return err
	}
	signed, err := trust.ParseRootFile(file)
	if err != nil {
		return err
	}
	path := f.out
	if path == "" {
		path = signed.FileName()
	}
	if err := writeNew(path, file, 0o644); err != nil {
		return err
	}
	return a.printRoots(cmd.Context(), []string{path}, []*trust.SignedRoot{signed})
}

func (a *app) rootChange(cmd *cobra.Command, f *rootFlags) (trust.RootChange, error) {
	c := trust.RootChange{RootThreshold: f.rootThreshold, ReleaseThreshold: f.releaseThreshold, Reset: f.reset, RevokeDigests: f.digests}
	usage := func(format string, a ...any) (trust.RootChange, error) {
		return c, &usageError{fmt.Errorf(format, a...), cmd.CommandPath()}
	}
	if f.expires != "" {
		day, err := time.Parse(time.DateOnly, f.expires)
		if err != nil {
			return usage("--expires %q is not a day such as 2028-12-31", f.expires)
		}
		c.Expires = day.AddDate(0, 0, 1)
	}
	var err error
	if c.RootKeys, err = a.publicKeys(cmd.Context(), f.rootKeys); err != nil {
		return c, err
	}
	if c.ReleaseKeys, err = a.publicKeys(cmd.Context(), f.releaseKeys); err != nil {
		return c, err
	}
	for _, text := range f.identities {
		subject, issuer, ok := strings.Cut(text, ",")
		if !ok {
			return usage("--release-identity %q is not SUBJECT,ISSUER", text)
		}
		c.Identities = append(c.Identities, trust.RootIdentity{Issuer: issuer, Subject: subject})
	}
	if f.trustedRoot != "" {
		if c.TrustedRoot, err = readBounded("trusted root", f.trustedRoot, trust.MaxRootBytes); err != nil {
			return c, err
		}
	}
	for _, text := range f.versions {
		name, version, ok := strings.Cut(text, "=")
		name, channel, _ := strings.Cut(name, "/")
		if !ok || manifest.CheckName(name) != nil || manifest.CheckVersion(version) != nil {
			return usage("--revoke-version %q is not NAME=VERSION or NAME/CHANNEL=VERSION", text)
		}
		c.RevokeVersions = append(c.RevokeVersions, trust.RevokedVersions{Name: name, Channel: channel, Versions: []string{version}})
	}
	return c, nil
}

func (a *app) publicKeys(ctx context.Context, paths []string) ([]sigstore.PublicKey, error) {
	var keys []sigstore.PublicKey
	for _, path := range paths {
		k, err := a.publicKey(ctx, path)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}

func (a *app) rootSignCommand() *cobra.Command {
	var key string
	c := &cobra.Command{
		Use:   "sign ROOT",
		Short: "Add a signature to a root document",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if key == "" {
				return errNoKey
			}
			root, err := readRoot(args[0])
			if err != nil {
				return err
			}
			signer, err := a.signer(cmd.Context(), key)
			if err != nil {
				return err
			}
			sig, err := signer.Sign(root.Raw)
			if err != nil {
				return err
			}
			file, err := trust.AddSignature(root.File, sig)
			if err != nil {
				return err
			}
			if err := replaceFile(args[0], file); err != nil {
				return err
			}
			if id := signer.PublicKey().Fingerprint; !slices.Contains(root.Root.Root.Keys, id) {
				fmt.Fprintf(a.env.Stderr, "warning: key sha256:%s is no root key of this version: its signature counts only if it is one of the version before\n", id)
			}
			signed, err := trust.ParseRootFile(file)
			if err != nil {
				return err
			}
			return a.printRoots(cmd.Context(), args, []*trust.SignedRoot{signed})
		},
	}
	c.Flags().StringVar(&key, "key", "", "private root key (password: COSIGN_PASSWORD), or NAME://… for one that a KMS plugin holds")
	return c
}

// replaceFile puts content in the place of a file, at once and for good.
func replaceFile(path string, content []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("writing file: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("writing %q: %w", path, err)
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("writing %q: %w", path, err)
	}
	return nil
}

func (a *app) rootShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show ROOT...",
		Short: "Show root documents and who has signed them",
		Long: `Show what root documents say, with the digests by which people compare them, and who has
signed. Of several, each is checked to follow the one before it.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			roots, err := readPins(args)
			if err != nil {
				return err
			}
			return a.printRoots(cmd.Context(), args, roots)
		},
	}
}

type printedRoot struct {
	File       string     `json:"file"`
	Digest     string     `json:"digest"`
	Root       trust.Root `json:"root"`
	Signed     []string   `json:"signed"`
	Complete   bool       `json:"complete"`
	Incomplete string     `json:"incomplete,omitempty"`
}

// printRoots prints roots; what is wrong with them is part of what is printed.
func (a *app) printRoots(ctx context.Context, paths []string, roots []*trust.SignedRoot) error {
	var all []printedRoot
	for i, r := range roots {
		var prev *trust.SignedRoot
		check := r.CheckSelf(ctx)
		if i > 0 {
			prev = roots[i-1]
			check = trust.Step(ctx, prev, r)
		}
		signed, err := r.RootSigners(ctx, prev)
		if err != nil {
			return err
		}
		p := printedRoot{File: paths[i], Digest: r.Digest, Root: r.Root, Signed: append([]string{}, signed...), Complete: check == nil}
		if check != nil {
			p.Incomplete = check.Error()
		}
		all = append(all, p)
	}
	return a.print(all, func(w io.Writer) {
		for i := range all {
			all[i].write(w)
		}
	})
}

func (p *printedRoot) write(w io.Writer) {
	r := &p.Root
	fmt.Fprintf(w, "%s: version %d of the root %s, expires %s\n", p.File, r.Version, r.Name, r.Expires)
	fmt.Fprintf(w, "  digest   %s\n", p.Digest)
	fmt.Fprintf(w, "  roots    are signed by %d of these keys\n", r.Root.Threshold)
	for _, id := range r.Root.Keys {
		mark := ""
		if slices.Contains(p.Signed, id) {
			mark = "  has signed this one"
		}
		fmt.Fprintf(w, "           sha256:%s%s\n", id, mark)
	}
	have := 0
	for _, id := range r.Root.Keys {
		if slices.Contains(p.Signed, id) {
			have++
		}
	}
	fmt.Fprintf(w, "  signed   by %d of the %d that are wanted\n", have, r.Root.Threshold)
	fmt.Fprintf(w, "  bundles  are signed by %d of these\n", r.Release.Threshold)
	for _, id := range r.Release.Keys {
		fmt.Fprintf(w, "           sha256:%s\n", id)
	}
	for _, id := range r.Release.Identities {
		fmt.Fprintf(w, "           %s%s by %s%s\n", id.Subject, id.SubjectRegExp, id.Issuer, id.IssuerRegExp)
	}
	for _, name := range r.Reset {
		fmt.Fprintf(w, "  reset    what sites have accepted of %s\n", name)
	}
	for _, d := range r.Revoked.Digests {
		fmt.Fprintf(w, "  revoked  %s\n", d)
	}
	for _, v := range r.Revoked.Versions {
		fmt.Fprintf(w, "  revoked  %s (%s) %s\n", v.Name, v.Channel, strings.Join(v.Versions, ", "))
	}
	if !p.Complete {
		fmt.Fprintf(w, "  NOT YET  %s\n", p.Incomplete)
	}
}
