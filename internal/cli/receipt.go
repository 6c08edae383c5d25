package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/install"
	"github.com/sealift/sealift/internal/ledger"
	"github.com/sealift/sealift/internal/site"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// NoReceiptError says that a bundle has no such receipt.
type NoReceiptError struct {
	Bundle, ID string
	Known      []string
}

// Error names the bundle.
func (e *NoReceiptError) Error() string {
	if e.ID == "" {
		return fmt.Sprintf("the cluster keeps no receipt of bundle %q", e.Bundle)
	}
	return fmt.Sprintf("the cluster keeps no receipt %q of bundle %q", e.ID, e.Bundle)
}

// SeveralReceiptsError says that the beginning of an ID is not enough.
type SeveralReceiptsError struct {
	ID    string
	Known []string
}

// Error lists them.
func (e *SeveralReceiptsError) Error() string {
	return fmt.Sprintf("several receipts have IDs that begin with %q: %s", e.ID, strings.Join(e.Known, ", "))
}

// ReceiptSignatureError says that a receipt is not signed by whom it has to be.
type ReceiptSignatureError struct {
	Path string
	// Unsigned says that there is no signature at all.
	Unsigned bool
	Err      error
}

// Error names the file.
func (e *ReceiptSignatureError) Error() string {
	if e.Unsigned {
		return fmt.Sprintf("receipt %q has no signature beside it (%s)", e.Path, e.Path+verify.DetachedSuffix)
	}
	return fmt.Sprintf("receipt %q is not signed with this key: %v", e.Path, e.Err)
}

// Unwrap returns the cause.
func (e *ReceiptSignatureError) Unwrap() error { return e.Err }

// findReceipt is the receipt of a state whose ID begins with id; the newest one for an empty id.
func findReceipt(s *ledger.State, id string) (*ledger.Receipt, error) {
	var known, like []string
	var found *ledger.Receipt
	for _, r := range install.Receipts(s) {
		known = append(known, r.ID)
		switch {
		case r.ID == id, id == "":
			return r, nil
		case strings.HasPrefix(r.ID, id):
			found, like = r, append(like, r.ID)
		}
	}
	switch len(like) {
	case 0:
		return nil, &NoReceiptError{s.Name, id, known}
	case 1:
		return found, nil
	}
	return nil, &SeveralReceiptsError{id, like}
}

type receiptFlags struct {
	recordFlags
	id, out, key string
	sign         bool
}

func (a *app) receiptCommand() *cobra.Command {
	var f receiptFlags
	c := &cobra.Command{
		Use:   "receipt [NAME]",
		Short: "Write the receipt of an install, to carry back",
		Long: `Write what the cluster has recorded of an install, the last one or that with --id ('sealift
history' lists them): bundle, signers and proven times, what was overridden and why, parameters
without secrets, releases, images with their digests, checks. It is one line of JSON, always
the same bytes for the same receipt.

With --sign it is signed with the site's key, into FILE.sigstore.json, as 'cosign sign-blob'
would: 'sealift receipt check' and 'cosign verify-blob' prove it on the other side.

A bundle called "check" is written with 'sealift receipt -- check'.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.receipt(cmd, args, &f) },
	}
	f.add(c)
	c.Flags().StringVar(&f.id, "id", "", "ID of the receipt, or its beginning (default: the newest)")
	c.Flags().StringVarP(&f.out, "out", "o", "", "file to write (default: standard output)")
	c.Flags().BoolVar(&f.sign, "sign", false, "sign it with --key, into FILE.sigstore.json")
	c.Flags().StringVar(&f.key, "key", "", "with --sign: private key of the site (password: COSIGN_PASSWORD), or NAME://… for one that a KMS plugin holds")
	check := a.receiptCheckCommand()
	c.AddCommand(check)
	wrapArgs(check)
	return c
}

func (a *app) receipt(cmd *cobra.Command, args []string, f *receiptFlags) error {
	usage := func(text string) error { return &usageError{errors.New(text), cmd.CommandPath()} }
	switch {
	case f.sign && (f.key == "" || f.out == ""):
		return usage("--sign needs --key and -o: the signature is written beside the file")
	case !f.sign && f.key != "" && fromVariable(cmd, "key") == "":
		return usage("--key goes with --sign")
	}
	_, l, err := f.ledger(a, cmd)
	if err != nil {
		return err
	}
	s, err := f.stateOf(a, cmd, l, args)
	if err != nil {
		return err
	}
	r, err := findReceipt(s, f.id)
	if err != nil {
		return err
	}
	raw, err := install.EncodeReceipt(r)
	if err != nil {
		return err
	}
	if f.out == "" {
		// These bytes may be kept and signed by others: nothing else is printed, whatever --output says.
		if _, err := a.env.Stdout.Write(raw); err != nil {
			return fmt.Errorf("printing the receipt: %w", err)
		}
		return nil
	}
	result := struct {
		File      string `json:"file"`
		Signature string `json:"signature,omitempty"`
		SignedBy  string `json:"signedBy,omitempty"`
		Bundle    string `json:"bundle"`
		Version   string `json:"version"`
		ID        string `json:"id"`
		Digest    string `json:"digest"`
	}{File: f.out, Bundle: r.Bundle, Version: r.Version, ID: r.ID, Digest: manifest.Digest(raw)}
	var signature []byte
	if f.sign {
		signer, err := a.signer(cmd.Context(), f.key)
		if err != nil {
			return err
		}
		if signature, err = signer.Sign(raw); err != nil {
			return err
		}
		result.Signature, result.SignedBy = f.out+verify.DetachedSuffix, "key sha256:"+signer.PublicKey().Fingerprint
	}
	if err := writeNew(f.out, raw, 0o644); err != nil {
		return err
	}
	if f.sign {
		if err := writeNew(result.Signature, signature, 0o644); err != nil {
			return err
		}
	}
	return a.print(result, func(w io.Writer) {
		fmt.Fprintf(w, "wrote %s\n", result.File)
		fmt.Fprintf(w, "  receipt  %s of %s %s\n", result.ID, result.Bundle, result.Version)
		fmt.Fprintf(w, "  digest   %s\n", result.Digest)
		if result.Signature != "" {
			fmt.Fprintf(w, "  signed   by %s, in %s\n", result.SignedBy, result.Signature)
		}
	})
}

func (a *app) receiptCheckCommand() *cobra.Command {
	var key, signature string
	c := &cobra.Command{
		Use:   "check FILE",
		Short: "Prove who signed a receipt, and say what it says",
		Long: `Prove that a receipt was signed with a key, with the signature beside it (FILE.sigstore.json),
and print what it says in short. No cluster is asked. Exit status: 11 no signature, 12 not by
this key, 13 signed by it, but not a receipt.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.receiptCheck(cmd, args[0], key, signature) },
	}
	c.Flags().StringVar(&key, "key", "", "public key of the site, or NAME://… for one that a KMS plugin holds")
	c.Flags().StringVar(&signature, "signature", "", "file with the signature (default: FILE.sigstore.json)")
	return c
}

func (a *app) receiptCheck(cmd *cobra.Command, path, key, signature string) error {
	if key == "" {
		return &usageError{errors.New("no --key is named: nothing can be proven without one"), cmd.CommandPath()}
	}
	if signature == "" {
		signature = path + verify.DetachedSuffix
	}
	public, err := a.publicKey(cmd.Context(), key)
	if err != nil {
		return err
	}
	raw, err := readBounded("receipt", path, install.MaxReceiptBytes)
	if err != nil {
		return err
	}
	proof, err := verify.ReadDetached(signature)
	if err != nil {
		return err
	}
	if proof == nil {
		return &ReceiptSignatureError{Path: path, Unsigned: true}
	}
	// Nothing is parsed before it is known whose it is.
	if err := public.Verify(cmd.Context(), raw, proof); err != nil {
		return &ReceiptSignatureError{Path: path, Err: err}
	}
	r, err := install.DecodeReceipt(raw)
	if err != nil {
		return fmt.Errorf("reading %q: %w", path, err)
	}
	result := struct {
		File     string          `json:"file"`
		SignedBy string          `json:"signedBy"`
		Digest   string          `json:"digest"`
		Receipt  *ledger.Receipt `json:"receipt"`
	}{path, "key sha256:" + public.Fingerprint, manifest.Digest(raw), r}
	return a.print(result, func(w io.Writer) { writeReceipt(w, result.SignedBy, result.Digest, r) })
}

func writeReceipt(w io.Writer, by, digest string, r *ledger.Receipt) {
	line := func(what, format string, v ...any) { fmt.Fprintf(w, "  %-9s  %s\n", what, fmt.Sprintf(format, v...)) }
	fmt.Fprintf(w, "%s of %s %s: %s\n", r.Action, r.Bundle, r.Version, r.Outcome)
	line("signed by", "%s", by)
	line("digest", "%s", digest)
	line("receipt", "%s", r.ID)
	line("manifest", "%s", r.Manifest)
	line("when", "%s to %s, by %s", r.Begun, r.Ended, r.By)
	line("cluster", "%s (Kubernetes %s)", r.Cluster, r.Kubernetes)
	if r.Failure != "" {
		line("failed", "%s", strings.ReplaceAll(r.Failure, "\n", "\n             "))
	}
	for _, s := range r.Signers {
		when := "when is not proven"
		if len(s.Times) > 0 {
			when = strings.Join(s.Times, "; ")
		}
		line("bundle by", "%s (%s)", s.Who, when)
	}
	for _, o := range r.Overrides {
		line("ALLOWED", "%s", o)
	}
	if len(r.Overrides) > 0 {
		line("reason", "%s", r.Reason)
	}
	for i := range r.Releases {
		rel := &r.Releases[i]
		line("release", "%s: %s %s, revision %d", rel.Key(), rel.Chart, rel.Version, rel.Revision)
	}
	line("images", "%d", len(r.Images))
}

// Formats of a report.
const (
	formatMarkdown = "markdown"
	formatJSON     = "json"
)

type reportFlags struct {
	recordFlags
	id, out, format string
}

func (a *app) reportCommand() *cobra.Command {
	var f reportFlags
	c := &cobra.Command{
		Use:   "report [NAME]",
		Short: "Write what an auditor asks for about an install",
		Long: `Write a report about an install, the last one or that with --id: the bundle, who signed it and
at which proven times, by which rule of which policy, who had to approve, what was overridden
and why, the plan, parameters without secrets, releases, images with their digests and which of
them run now, signatures, attestations and SBOMs of the images, checks, points of no return,
the history, and the journal of this machine with the proof of its chain.

It is Markdown for people, or JSON. No secret is in it.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.report(cmd, args, &f) },
	}
	f.add(c)
	c.Flags().StringVar(&f.id, "id", "", "ID of the receipt, or its beginning (default: the newest)")
	c.Flags().StringVar(&f.format, "format", formatMarkdown, "markdown or json")
	c.Flags().StringVarP(&f.out, "out", "o", "", "file to write (default: standard output)")
	return c
}

func (a *app) report(cmd *cobra.Command, args []string, f *reportFlags) error {
	ctx := cmd.Context()
	if !slices.Contains([]string{formatMarkdown, formatJSON}, f.format) {
		return &usageError{fmt.Errorf("--format is %q, it can be markdown or json", f.format), cmd.CommandPath()}
	}
	if a.output == formatJSON && !cmd.Flags().Changed("format") {
		f.format = formatJSON
	}
	cluster, l, err := f.ledger(a, cmd)
	if err != nil {
		return err
	}
	s, err := f.stateOf(a, cmd, l, args)
	if err != nil {
		return err
	}
	in := install.ReportInput{State: s, Now: a.env.Now(), By: a.by(), Tool: version}
	if in.Receipt, err = findReceipt(s, f.id); err != nil {
		return err
	}
	if path := a.stateDir(f.state); path != "" {
		in.Dir = site.Open(path)
	}
	// What runs now says nothing about a receipt of the past.
	if s.Installed != nil && in.Receipt.ID == s.Installed.ID {
		if in.Status, err = a.statusOf(ctx, s, cluster, l, f.record(ctx, a)); err != nil {
			return err
		}
	}
	r, err := install.MakeReport(ctx, in)
	if err != nil {
		return err
	}
	var text []byte
	if f.format == formatJSON {
		if text, err = r.JSON(); err != nil {
			return err
		}
	} else {
		text = []byte(r.Markdown())
	}
	text = []byte(a.hide(string(text)))
	if f.out == "" {
		if _, err := a.env.Stdout.Write(text); err != nil {
			return fmt.Errorf("printing the report: %w", err)
		}
		return nil
	}
	if err := writeNew(f.out, text, 0o644); err != nil {
		return err
	}
	return a.print(struct {
		File   string `json:"file"`
		Bundle string `json:"bundle"`
		ID     string `json:"id"`
	}{f.out, s.Name, r.Receipt.ID}, func(w io.Writer) { fmt.Fprintf(w, "wrote %s\n", f.out) })
}

// hintReceipt is about what these commands meet.
func hintReceipt(err error) string {
	var none *NoReceiptError
	var signature *ReceiptSignatureError
	switch {
	case errors.As(err, &none) && len(none.Known) > 0:
		return "'sealift history' lists the receipts that there are"
	case none != nil:
		return "a receipt is written when an install has ended: 'sealift status' says where this one is"
	case is[*SeveralReceiptsError](err):
		return "write more of the ID"
	case errors.As(err, &signature) && signature.Unsigned:
		return "the site signs with 'sealift receipt --sign --key KEY -o FILE', and sends both files"
	case signature != nil:
		return "ask the site for the fingerprint of its key by another way, and for the file once more: one of the two is not what the site has sent"
	case is[*install.NotReceiptError](err):
		return "is it the file that 'sealift receipt' has written, byte by byte?"
	}
	return ""
}
