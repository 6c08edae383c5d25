package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/bundle"
	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/sigstore"
	"github.com/sealift/sealift/internal/trust"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

type signFlags struct {
	key, bundle, roots, out string
	detached                bool
}

func (a *app) signCommand() *cobra.Command {
	var f signFlags
	c := &cobra.Command{
		Use:   "sign BUNDLE...",
		Short: "Add a signature to a bundle",
		Long: `Sign the manifest of a bundle, beside the signatures that it has: with --key, or with what
'cosign sign-blob' made over sealift.json ('sealift inspect --manifest' prints these bytes)
with --sigstore-bundle. Verify the bundle first: a signature says that you stand for it.

Nothing but the signatures is written, into the free one of two slots, and then one switch of
four bytes makes it count: whatever happens, the old signatures hold until the new ones do.
With --detached the bundle stays as it is, and BUNDLE.sigstore.json is written beside it,
which every command finds: for media that cannot be written. With --out it is written to
another directory, which is then named beside the bundle: verify /media/dvd /srv/signatures.

--roots adds the root documents of the vendor (N.root.json), so that sites which have an
older one learn about new keys.

` + filesHelp,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.sign(cmd, args, f) },
	}
	c.Flags().StringVar(&f.key, "key", "", "private key to sign with (password: COSIGN_PASSWORD), or NAME://… for one that a KMS plugin holds")
	c.Flags().StringVar(&f.bundle, "sigstore-bundle", "", "file with a sigstore bundle over the manifest, as 'cosign sign-blob --bundle' writes it")
	c.Flags().BoolVar(&f.detached, "detached", false, "write the signature beside the bundle")
	c.Flags().StringVarP(&f.out, "out", "o", "", "with --detached: directory to write to, if the bundle's own cannot be written; name it beside the bundle then")
	c.Flags().StringVar(&f.roots, "roots", "", "directory with the vendor's root documents, N.root.json")
	return c
}

func (a *app) sign(cmd *cobra.Command, args []string, f signFlags) error {
	usage := func(text string) error { return &usageError{errors.New(text), cmd.CommandPath()} }
	switch {
	case f.key != "" && f.bundle != "":
		return usage("--key and --sigstore-bundle exclude each other")
	case f.key+f.bundle+f.roots == "":
		return usage("neither --key nor --sigstore-bundle is named")
	case f.out != "" && !f.detached:
		return usage("--out goes with --detached")
	case f.detached && f.roots != "":
		return usage("--roots go into the bundle: 'sealift trust update' takes them from files")
	}
	files, err := findOne(cmd, args)
	if err != nil {
		return err
	}
	// What is signed must be a bundle that readers could accept.
	u, _, err := verify.Inspect(cmd.Context(), files, verify.Policy{})
	if err != nil {
		return err
	}
	s := &signing{files: files, unproven: u}
	if f.roots != "" {
		if s.roots, err = readRoots(f.roots); err != nil {
			return err
		}
	}
	if err := a.makeSignature(cmd, f, s); err != nil {
		return err
	}
	if f.detached {
		err = s.writeDetached(cmd.Context(), f.out)
	} else {
		err = archive.Resign(cmd.Context(), files, s.resign(cmd))
	}
	if err != nil {
		return &signingError{err}
	}
	return a.printSigned(s)
}

// signing is a signature on its way to a bundle.
type signing struct {
	files    *verify.Files
	unproven *verify.Unproven
	body     []byte
	// key is set where the signature is made with one, else who the certificate says it is by.
	key   *sigstore.PublicKey
	by    string
	roots []archive.Trust
	// result
	path       string
	signatures int
	there      bool
	warnings   []string
}

func (a *app) makeSignature(cmd *cobra.Command, f signFlags, s *signing) error {
	switch {
	case f.key != "":
		signer, err := a.signer(cmd.Context(), f.key)
		if err != nil {
			return err
		}
		key := signer.PublicKey()
		s.key, s.by = &key, "key sha256:"+key.Fingerprint
		s.body, err = signer.Sign(s.unproven.Raw)
		return err
	case f.bundle != "":
		raw, err := readBounded("sigstore bundle", f.bundle, sigstore.MaxSignatureBytes)
		if err != nil {
			return err
		}
		parsed, err := sigstore.ParseSignature(raw)
		if err != nil {
			return &attachError{f.bundle, err}
		}
		s.body = raw
		if issuer, subject, ok := parsed.Claims(); ok {
			s.by = subject + " by " + issuer + ", as its certificate says"
			// Who that is, each site proves; that it is over another bundle, only we can tell.
			if err := parsed.CheckCertificate(s.unproven.Raw); err != nil {
				return &attachError{f.bundle, err}
			}
		} else if s.by = "a key that is not in it"; parsed.Fingerprint() != "" {
			s.by = "key sha256:" + parsed.Fingerprint() + ", as it says"
		}
		if err := parsed.CheckDigest(s.unproven.Raw); err != nil {
			return &attachError{f.bundle, err}
		}
	}
	return nil
}

// attachError says that a sigstore bundle cannot be attached to a bundle.
type attachError struct {
	path string
	err  error
}

func (e *attachError) Error() string { return fmt.Sprintf("attaching %q: %v", e.path, e.err) }
func (e *attachError) Unwrap() error { return e.err }

// signingError says that a signature could not be written.
type signingError struct{ err error }

func (e *signingError) Error() string { return e.err.Error() }
func (e *signingError) Unwrap() error { return e.err }

// resign puts the signature, and the roots, beside what the slot holds.
func (s *signing) resign(cmd *cobra.Command) func(*archive.Head) (*archive.SlotContent, error) {
	return func(h *archive.Head) (*archive.SlotContent, error) {
		if manifest.Digest(h.Manifest) != s.unproven.Digest {
			return nil, &verify.ContentError{Path: s.files.Name, Err: errors.New("the manifest changed while it was being signed")}
		}
		content := h.Slot()
		roots, err := mergeRoots(h.Trust, s.roots)
		if err != nil {
			return nil, err
		}
		for _, old := range h.Signatures {
			// Signing again with the same key says nothing new.
			if s.key != nil && s.key.Verify(cmd.Context(), h.Manifest, old.Body) == nil {
				s.there = true
			}
		}
		if s.body != nil && !s.there {
			content.Signatures = append(content.Signatures, s.body)
		}
		if s.roots != nil {
			content.Trust = archive.FitTrust(content.Signatures, bundle.RoomForSignatures, roots)
			if left := len(roots) - len(content.Trust); left > 0 {
				s.warnings = append(s.warnings, fmt.Sprintf("the %d oldest of %d root documents do not fit: sites that are that far back need them as files", left, len(roots)))
			}
		}
		s.signatures, s.path = len(content.Signatures), s.files.Name
		return content, nil
	}
}

// mergeRoots puts the roots that a bundle carries and those that are added together: none is lost,
// and none of another vendor gets between them.
func mergeRoots(have, added []archive.Trust) ([]archive.Trust, error) {
	byNumber := map[int]archive.Trust{}
	name := ""
	for _, t := range append(slices.Clone(have), added...) {
		root, err := trust.ParseRootFile(t.Body)
		if err != nil {
			if len(added) == 0 {
				return have, nil // foreign, and nothing is done with it
			}
			return nil, fmt.Errorf("root %d in the bundle: %w", t.Number, err)
		}
		if name != "" && root.Root.Name != name {
			return nil, fmt.Errorf("roots of %q and of %q cannot travel in one bundle: hand one of them out as files", name, root.Root.Name)
		}
		name = root.Root.Name
		byNumber[t.Number] = t
	}
	var merged []archive.Trust
	for _, n := range slices.Sorted(maps.Keys(byNumber)) {
		if len(merged) > 0 && n != merged[len(merged)-1].Number+1 {
			return nil, fmt.Errorf("the bundle carries roots, and version %d between them and these is missing: name a directory with all", n-1)
		}
		merged = append(merged, byNumber[n])
	}
	return merged, nil
}

// theirs reports whether a sigstore bundle in a file is by the key that signs now.
func (s *signing) theirs(ctx context.Context, path string) bool {
	if s.key == nil {
		return false
	}
	raw, err := verify.ReadDetached(path)
	return err == nil && s.key.Verify(ctx, s.unproven.Raw, raw) == nil
}

func (s *signing) writeDetached(ctx context.Context, dir string) (err error) {
	files, there := s.files, s.files.Detached
	if dir != "" {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("making the directory for the signature: %w", err)
		}
		if files, err = s.files.In(dir); err != nil {
			return err
		}
		there = append(slices.Clone(there), files.Detached...)
	}
	for _, path := range there {
		if s.theirs(ctx, path) {
			s.path, s.signatures, s.there = path, 1, true
			return nil
		}
	}
	path, err := files.NextDetached()
	if err != nil {
		return err
	}
	s.path, s.signatures = path, 1
	return writeNew(path, s.body, 0o644)
}

// rootSuffix ends the names of root documents.
const rootSuffix = ".root.json"

// readRoots reads the root documents in a directory: N.root.json, of one vendor, without gaps.
func readRoots(dir string) ([]archive.Trust, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("reading root documents: %w", err)
	}
	var roots []archive.Trust
	name := ""
	for _, e := range entries {
		number, ok := strings.CutSuffix(e.Name(), rootSuffix)
		// A pipe among them, as somebody may have put onto a stick, would hold everything up.
		if _, err := strconv.ParseUint(number, 10, 31); !ok || err != nil || !e.Type().IsRegular() {
			continue
		}
		path := filepath.Join(dir, e.Name())
		root, err := readRoot(path)
		if err != nil {
			return nil, err
		}
		if name != "" && root.Root.Name != name || strconv.Itoa(root.Root.Version) != number {
			return nil, fmt.Errorf("root document %q is version %d of the root %q, which is not what its name and its directory say", path, root.Root.Version, root.Root.Name)
		}
		name = root.Root.Name
		roots = append(roots, archive.Trust{Number: root.Root.Version, Body: root.File})
	}
	slices.SortFunc(roots, func(x, y archive.Trust) int { return x.Number - y.Number })
	for i := range roots {
		if i > 0 && roots[i].Number != roots[i-1].Number+1 {
			return nil, fmt.Errorf("root documents in %q: version %d is not there", dir, roots[i-1].Number+1)
		}
	}
	if len(roots) == 0 {
		return nil, fmt.Errorf("reading root documents: none called N%s in %q: %w", rootSuffix, dir, os.ErrNotExist)
	}
	return roots, nil
}

func readRoot(path string) (*trust.SignedRoot, error) {
	raw, err := readBounded("root document", path, trust.MaxRootFileBytes)
	if err != nil {
		return nil, err
	}
	root, err := trust.ParseRootFile(raw)
	if err != nil {
		return nil, fmt.Errorf("root document %q: %w", path, err)
	}
	return root, nil
}

func (a *app) printSigned(s *signing) error {
	m := s.unproven.Manifest
	result := struct {
		File       string `json:"file"`
		Name       string `json:"name"`
		Version    string `json:"version"`
		Digest     string `json:"digest"`
		SignedBy   string `json:"signedBy,omitempty"`
		Signatures int    `json:"signatures"`
		Roots      int    `json:"roots,omitempty"`
		Unchanged  bool   `json:"unchanged,omitempty"`
	}{s.path, m.Name, m.Version, s.unproven.Digest, s.by, s.signatures, len(s.roots), s.there && s.roots == nil}
	if sums := filepath.Join(filepath.Dir(s.files.Name), "SHA256SUMS"); s.path == s.files.Name && !result.Unchanged {
		if _, err := os.Stat(sums); err == nil {
			s.warnings = append(s.warnings, fmt.Sprintf("%s was made before this signature: it does not hold for the bundle any more", sums))
		}
	}
	for _, text := range s.warnings {
		fmt.Fprintf(a.env.Stderr, "warning: %s\n", printable(text))
	}
	return a.print(result, func(w io.Writer) {
		switch {
		case result.Unchanged:
			fmt.Fprintf(w, "%s is signed by this key already\n", s.path)
		case s.body == nil:
			fmt.Fprintf(w, "added root documents to %s\n", s.path)
		default:
			fmt.Fprintf(w, "signed %s: %s\n", title(m), s.path)
		}
		fmt.Fprintf(w, "  digest  %s\n", s.unproven.Digest)
		if s.by != "" {
			fmt.Fprintf(w, "  signed  by %s; it has %s now\n", s.by, count(s.signatures, "signature"))
		}
	})
}

func (a *app) publicKeyCommand() *cobra.Command {
	var key string
	c := &cobra.Command{
		Use:   "public-key",
		Short: "Print the public key that belongs to a private one",
		Long: `Print the public key (PEM) that belongs to a private key: one in a file, or one that a KMS or
HSM holds (NAME://…, asked through the program sigstore-kms-NAME).`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if key == "" {
				return &usageError{errors.New("no --key is named"), cmd.CommandPath()}
			}
			s, err := a.signer(cmd.Context(), key)
			if err != nil {
				return err
			}
			k := s.PublicKey()
			return a.print(struct {
				PEM         string `json:"pem"`
				Fingerprint string `json:"fingerprint"`
			}{string(k.PEM), k.Fingerprint}, func(w io.Writer) {
				fmt.Fprint(w, string(k.PEM))
			})
		},
	}
	c.Flags().StringVar(&key, "key", "", "private key, or NAME://… for one that a KMS plugin holds")
	return c
}
