package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

func (a *app) inspectCommand() *cobra.Command {
	var key string
	var raw bool
	c := &cobra.Command{
		Use:   "inspect BUNDLE",
		Short: "Show what is inside, without reading the payload",
		Long: `Show what a bundle says about itself. Without --key nothing of it is proven, and it is
said so; with --key the signature is checked first. The payload is not read: use
'sealift verify' for that.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.inspect(cmd, args[0], key, raw) },
	}
	c.Flags().StringVar(&key, "key", "", "public key to check the signature with")
	c.Flags().BoolVar(&raw, "manifest", false, "print the exact bytes of the manifest, which are what is signed")
	return c
}

func (a *app) inspect(cmd *cobra.Command, path, key string, raw bool) error {
	info := struct {
		File       string             `json:"file"`
		Digest     string             `json:"digest"`
		Size       int64              `json:"size"`
		Signatures int                `json:"signatures"`
		Proven     bool               `json:"proven"`
		Evidence   *verify.Evidence   `json:"evidence,omitempty"`
		Manifest   *manifest.Manifest `json:"manifest"`
	}{File: path}
	if key != "" {
		p, err := policy(key)
		if err != nil {
			return err
		}
		b, err := verify.Open(cmd.Context(), path, p)
		if err != nil {
			return err
		}
		e := b.Evidence()
		if err := b.Close(); err != nil {
			return err
		}
		info.Proven, info.Evidence = true, &e
	}
	u, err := verify.Inspect(path)
	if err != nil {
		return err
	}
	if info.Proven && u.Digest != info.Evidence.Manifest {
		return &verify.ContentError{Path: path, Err: fmt.Errorf("the manifest changed while it was looked at: got %s, want %s", u.Digest, info.Evidence.Manifest)}
	}
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
		fmt.Fprintf(w, "digest     %s\n", u.Digest)
		fmt.Fprintf(w, "size       %s in %s\n", formatBytes(u.Size), count(len(m.Blobs), "blob"))
		fmt.Fprintf(w, "platforms  %s\n", strings.Join(m.Platforms, ", "))
		if info.Proven {
			fmt.Fprintf(w, "signed by  key sha256:%s\n", info.Evidence.Key)
		} else {
			fmt.Fprintf(w, "signed by  not checked (%s); give --key to prove what is shown here\n", count(u.Signatures, "signature"))
		}
		for i := range m.Charts {
			ch := &m.Charts[i]
			fmt.Fprintf(w, "\nchart %s %s -> release %s in namespace %s\n", ch.Name, ch.Version, ch.Release, ch.Namespace)
			fmt.Fprintf(w, "  %s  %s\n", ch.Archive.Digest, formatBytes(ch.Archive.Size))
		}
		for i := range m.Images {
			printImage(w, &m.Images[i])
		}
	})
}

func printImage(w io.Writer, img *manifest.Image) {
	fmt.Fprintf(w, "\nimage %s\n", img.Source)
	fmt.Fprintf(w, "  %s  %s\n", img.Digest, strings.Join(img.Platforms, ", "))
	if img.Derived != nil {
		fmt.Fprintf(w, "  only these platforms travel; index of only them: %s\n", img.Derived.Digest)
	}
	for _, r := range img.Reasons {
		if r.Kind == manifest.ReasonSpec {
			fmt.Fprintln(w, "  because the spec names it")
			continue
		}
		fmt.Fprintf(w, "  because of %s %s in chart %s\n", r.Object, r.Path, r.Chart)
	}
}

func (a *app) verifyCommand() *cobra.Command {
	var key string
	c := &cobra.Command{
		Use:   "verify BUNDLE",
		Short: "Prove who signed a bundle, and every byte of it",
		Long: `Check the signature over the manifest, then read the whole file once and compare every
byte with what the manifest determines. A signature in BUNDLE.sigstore.json beside the
bundle counts as well.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.verify(cmd, args[0], key) },
	}
	c.Flags().StringVar(&key, "key", "", "public key of the vendor")
	return c
}

func (a *app) verify(cmd *cobra.Command, path, key string) (err error) {
	b, done, err := a.open(cmd, path, key)
	if err != nil {
		return err
	}
	defer done(&err)
	if err := b.Check(cmd.Context(), a.reporter()); err != nil {
		return err
	}
	m := b.Manifest()
	result := struct {
		File     string          `json:"file"`
		Name     string          `json:"name"`
		Version  string          `json:"version"`
		Channel  string          `json:"channel"`
		Entries  int             `json:"entries"`
		Evidence verify.Evidence `json:"evidence"`
	}{path, m.Name, m.Version, m.Channel, len(m.Entries), b.Evidence()}
	return a.print(result, func(w io.Writer) {
		fmt.Fprintf(w, "%s: every byte is as signed\n", path)
		fmt.Fprintf(w, "  bundle     %s %s (%s)\n", m.Name, m.Version, m.Channel)
		fmt.Fprintf(w, "  digest     %s\n", result.Evidence.Manifest)
		fmt.Fprintf(w, "  signed by  key sha256:%s%s\n", result.Evidence.Key, beside(result.Evidence))
		fmt.Fprintf(w, "  content    %s, %s, %s\n", count(len(m.Images), "image"), count(len(m.Charts), "chart"), count(len(m.Blobs), "blob"))
	})
}

func beside(e verify.Evidence) string {
	if e.Detached {
		return ", in " + e.Signature
	}
	return ""
}

// open proves and opens a bundle; done closes it.
func (a *app) open(cmd *cobra.Command, path, key string) (b *verify.Bundle, done func(*error), err error) {
	p, err := policy(key)
	if err != nil {
		return nil, nil, err
	}
	b, err = verify.Open(cmd.Context(), path, p)
	if err != nil {
		return nil, nil, err
	}
	return b, func(err *error) {
		if e := b.Close(); *err == nil {
			*err = e
		}
	}, nil
}
