package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

func (a *app) inspectCommand() *cobra.Command {
	var t trustFlags
	var raw bool
	c := &cobra.Command{
		Use:   "inspect BUNDLE...",
		Short: "Show what is inside, without reading the payload",
		Long: `Show what a bundle says about itself. Without --key, and without a policy of the site,
nothing of it is proven, and it is said so; else the signature is checked first. The payload is not read: use
'sealift verify' for that.

` + placesHelp + `
Of a bundle in volumes the first one suffices. ` + streamHelp,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.inspect(cmd, args, &t, raw) },
	}
	t.add(c)
	c.Flags().BoolVar(&raw, "manifest", false, "print the exact bytes of the manifest, which are what is signed")
	return c
}

func (a *app) inspect(cmd *cobra.Command, args []string, f *trustFlags, raw bool) error {
	info := struct {
		File       string             `json:"file"`
		Digest     string             `json:"digest"`
		Size       int64              `json:"size"`
		Signatures int                `json:"signatures"`
		Proven     bool               `json:"proven"`
		Evidence   *verify.Evidence   `json:"evidence,omitempty"`
		Manifest   *manifest.Manifest `json:"manifest"`
	}{}
	u, err := a.look(cmd, args, f)
	if err != nil {
		return err
	}
	info.File, info.Proven, info.Evidence = u.Path, u.evidence != nil, u.evidence
	if raw {
		if _, err := a.env.Stdout.Write(u.Raw); err != nil {
			return fmt.Errorf("printing the manifest: %w", err)
		}
		return nil
	}
	info.Digest, info.Size, info.Signatures, info.Manifest = u.Digest, u.Size, u.Signatures, u.Manifest
	return a.print(info, func(w io.Writer) {
		m := u.Manifest
		fmt.Fprintf(w, "bundle     %s %s (%s), created %s\n", m.Name, m.Version, m.Channel, m.Created)
		if m.Expires != "" {
			fmt.Fprintf(w, "expires    %s\n", m.Expires)
		}
		fmt.Fprintf(w, "digest     %s\n", u.Digest)
		fmt.Fprintf(w, "size       %s in %s\n", archive.FormatBytes(u.Size), count(len(m.Blobs), "blob"))
		fmt.Fprintf(w, "platforms  %s\n", strings.Join(m.Platforms, ", "))
		if info.Proven {
			fmt.Fprintf(w, "signed by  %s\n", signers(info.Evidence))
		} else {
			fmt.Fprintf(w, "signed by  %s\n", unproven(u.pinned, count(u.Signatures, "signature"), "shown"))
		}
		writeRequires(w, m.Requires)
		for i := range m.Parameters {
			writeParameter(w, &m.Parameters[i])
		}
		for i := range m.Charts {
			writeChart(w, &m.Charts[i])
		}
		for i := range m.Images {
			writeImage(w, "image", &m.Images[i])
		}
		for i := range m.Artifacts {
			writeImage(w, "artifact", &m.Artifacts[i])
		}
		for i := range m.Ignored {
			writeIgnored(w, &m.Ignored[i])
		}
		if len(m.Files) > 0 || m.Notes != nil {
			fmt.Fprintln(w, "\nfiles ('sealift extract --only-files' writes them)")
		}
		for _, f := range m.Files {
			fmt.Fprintf(w, "  %s  %s  %s\n", f.Name, archive.FormatBytes(f.Size), f.Digest)
		}
		if m.Notes != nil {
			fmt.Fprintf(w, "  release notes  %s  %s\n", archive.FormatBytes(m.Notes.Size), m.Notes.Digest)
		}
	})
}

func (a *app) verifyCommand() *cobra.Command {
	var t trustFlags
	var images bool
	c := &cobra.Command{
		Use:   "verify BUNDLE...",
		Short: "Prove who signed a bundle, and every byte of it",
		Long: `Check the signature over the manifest, then read the whole file once and compare every
byte with what the manifest determines. A signature in BUNDLE.sigstore.json beside the
bundle counts as well. Several bundles are verified one after the other.

` + placesHelp + `

Of a bundle in volumes every one that is missing, short, damaged, in another's place or of
another bundle is named, and nothing else has to be carried again.
` + streamHelp + ` It is read once.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.verify(cmd, args, &t, images) },
	}
	t.addUse(c)
	c.Flags().BoolVar(&images, "images", false, "check again the signatures of the images that were demanded when they were packed")
	return c
}

type verified struct {
	File     string          `json:"file"`
	Name     string          `json:"name"`
	Version  string          `json:"version"`
	Channel  string          `json:"channel"`
	Size     int64           `json:"size"`
	Volumes  int             `json:"volumes,omitempty"`
	Entries  int             `json:"entries"`
	Evidence verify.Evidence `json:"evidence"`
	// Images is empty unless it was asked for.
	Images []verify.ImageCheck `json:"images,omitempty"`
	bundle *manifest.Manifest
}

func (a *app) verify(cmd *cobra.Command, args []string, f *trustFlags, images bool) (err error) {
	t, err := a.trusting(cmd, f)
	if err != nil {
		return err
	}
	bundles, done, err := a.openAll(cmd, args, t.policy, verify.OpenIncomplete)
	if err != nil {
		return err
	}
	defer done(&err)
	if err := a.keepReason(cmd.Context(), t, "verify", bundles); err != nil {
		return err
	}
	var results []verified
	for _, b := range bundles {
		checks, err := a.prove(cmd.Context(), b, images)
		if err != nil {
			return err
		}
		m := b.Manifest()
		results = append(results, verified{b.Path(), m.Name, m.Version, m.Channel, b.Size(), b.Volumes(), len(m.Entries), b.Evidence(), checks, m})
	}
	return a.printEach(results, func(w io.Writer, v verified) {
		in := ""
		if v.Volumes > 0 {
			in = ", in " + count(v.Volumes, "volume")
		}
		m := v.bundle
		fmt.Fprintf(w, "%s: every byte is as signed\n", v.File)
		fmt.Fprintf(w, "  bundle     %s %s (%s), %s%s\n", m.Name, m.Version, m.Channel, archive.FormatBytes(v.Size), in)
		fmt.Fprintf(w, "  digest     %s\n", v.Evidence.Manifest)
		writeEvidence(w, &v.Evidence)
		fmt.Fprintf(w, "  content    %s, %s\n", contents(m), count(len(m.Blobs), "blob"))
		for i := range v.Images {
			writeImageCheck(w, &v.Images[i])
		}
	})
}

// prove reads all of a bundle and, if that is wanted, checks the signatures of its images.
func (a *app) prove(ctx context.Context, b *verify.Bundle, images bool) ([]verify.ImageCheck, error) {
	if !images {
		return nil, b.Check(ctx, a.reporter())
	}
	checks, err := b.CheckImages(ctx, a.reporter())
	if err != nil {
		return nil, err
	}
	if b.IsStream() {
		// The part that the signatures lie in has passed.
		return checks, b.Each(ctx, a.reporter(), func(context.Context, manifest.Blob, io.Reader) error { return nil })
	}
	return checks, b.Check(ctx, a.reporter())
}

func writeImageCheck(w io.Writer, c *verify.ImageCheck) {
	fmt.Fprintf(w, "  image      %s\n             %s\n", c.Source, c.Digest)
	for i := range c.Signers {
		s := &c.Signers[i]
		who := "key sha256:" + s.Fingerprint
		if s.Fingerprint == "" {
			who = s.Signer + " by " + s.SignerIssuer
		}
		fmt.Fprintf(w, "             signed by %s\n", who)
	}
	switch {
	case len(c.Signers) > 0:
	case c.Dropped:
		fmt.Fprintln(w, "             its signatures did not travel: the vendor left them behind")
	default:
		fmt.Fprintf(w, "             the vendor demanded no signature; %s\n", about(c.Referrers))
	}
}

// about says how many artifacts about an image travel.
func about(referrers int) string {
	if referrers == 0 {
		return "nothing about it travels"
	}
	return count(referrers, "artifact") + " about it travel"
}
