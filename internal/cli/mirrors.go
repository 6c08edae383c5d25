package cli

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/install"
	"github.com/sealift/sealift/internal/nodes"
	"github.com/sealift/sealift/verify"

	"github.com/sealift/sealift/internal/oci"
)

// mirrorsFlags say which configuration is written, and where.
type mirrorsFlags struct {
	trust       trustFlags
	names       nameFlags
	access      accessFlags
	format, dir string
	overwrite   bool
}

func (a *app) mirrorsCommand() *cobra.Command {
	var f mirrorsFlags
	c := &cobra.Command{
		Use:   "mirrors BUNDLE...",
		Short: "Write the configuration by which nodes find images in the site's registry",
		Long: `Check the signature of a bundle and write the configuration by which the container runtime of
nodes finds the bundle's images in the registry that they were seeded to, under the names that
they had at their sources, so that nothing has to be rewritten. It is written so that what the
registry does not have is asked for nowhere else. docs/nodes.md explains every format.

  containerd   HOST/hosts.toml for /etc/containerd/certs.d
  k3s, rke2    registries.yaml, and the setting that keeps these from asking the source
  crio, podman a drop-in for /etc/containers/registries.conf.d, with buildah and skopeo
  openshift    ImageDigestMirrorSet and ImageTagMirrorSet

Without --dir all files are printed. With it they are written below DIR, and what earlier runs
have written there for other bundles stays in force. Files that were not written by sealift, or
were changed since, are not replaced without --overwrite.

--registry, --mapping, --map and --index are those of 'sealift seed'. With --ca-file, as in the
configuration of the site, nodes are told to trust these certificates for the registry.

` + placesHelp,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.mirrors(cmd, args, f) },
	}
	fs := c.Flags()
	fs.StringVar(&f.format, "format", "", "whose configuration: containerd, k3s, rke2, crio, podman or openshift")
	fs.StringVar(&f.dir, "dir", "", "directory to write the files below, made if need be (default: print them)")
	fs.BoolVar(&f.overwrite, "overwrite", false, "replace files of --dir that were not written by sealift, and what leads elsewhere in them")
	f.names.add(c)
	f.trust.addUse(c)
	fs.StringSliceVar(&f.access.plainHTTP, "plain-http", nil, "registry host[:port] that nodes speak to without TLS (repeatable)")
	fs.StringVar(&f.access.caFile, "ca-file", "", "certificates, in PEM, of the authorities by which nodes are to trust the registry")
	onlyFlag(fs, "format")
	onlyFlag(fs, "overwrite")
	return c
}

func (a *app) mirrors(cmd *cobra.Command, args []string, f mirrorsFlags) (err error) {
	usage := func(err error) error { return &usageError{err, cmd.CommandPath()} }
	if f.format == "" {
		return usage(errors.New("no --format is named: containerd, k3s, rke2, crio, podman or openshift"))
	}
	format, err := nodes.ParseFormat(f.format)
	if err != nil {
		return usage(err)
	}
	if f.overwrite && f.dir == "" {
		return usage(errors.New("--overwrite is for the files of --dir"))
	}
	named, err := f.names.resolve(a, cmd, &f.access, false)
	if err != nil {
		return err
	}
	ca, err := authority(cmd, f.access.caFile, named.target.Registry)
	if err != nil {
		return err
	}
	to := nodes.Endpoint{Host: named.target.Registry, PlainHTTP: slices.Contains(f.access.plainHTTP, named.target.Registry) || onLoopback(named.target.Registry) && ca.PEM == ""}
	to.CA = ca.PEM != "" && !to.PlainHTTP
	t, err := a.trusting(cmd, &f.trust)
	if err != nil {
		return err
	}
	bundles, done, err := a.openAll(cmd, args, t.policy, verify.Open)
	if err != nil {
		return err
	}
	defer done(&err)
	a.warn(bundles)
	all, err := a.mirrorsOf(bundles, named, format, to)
	if err != nil {
		return err
	}
	if err := a.keepReason(cmd.Context(), t, "mirrors", bundles); err != nil {
		return err
	}
	if f.dir != "" {
		return a.installMirrors(cmd.Context(), bundles, f, format, all, ca)
	}
	files, notes, err := nodes.Render(format, all, ca)
	if err != nil {
		return err
	}
	return a.print(struct {
		Format   nodes.Format `json:"format"`
		Registry string       `json:"registry"`
		Files    []nodes.File `json:"files"`
		Notes    []string     `json:"notes"`
	}{format, named.target.String(), append([]nodes.File{}, files...), notes}, func(w io.Writer) {
		for _, file := range files {
			fmt.Fprintf(w, "# file: %s\n%s\n", file.Path, file.Content)
		}
		for _, n := range notes {
			fmt.Fprintf(w, "# note: %s\n", strings.ReplaceAll(n, "\n", "\n# "))
		}
	})
}

// mirrorsOf merges what the bundles need.
func (a *app) mirrorsOf(bundles []*verify.Bundle, n *naming, f nodes.Format, to nodes.Endpoint) (all *nodes.Mirrors, err error) {
	for _, b := range bundles {
		m, rederived, err := install.Mirrors(b.Manifest(), n.target, n.index, f, to)
		if err != nil {
			return nil, err
		}
		if len(rederived) > 0 {
			a.warnings([]string{fmt.Sprintf("%s, %q first, have other digests at the site than at their sources (--index %s): where a pod names an old one, nothing is found",
				count(len(rederived), "image"), rederived[0], n.index)})
		}
		if all == nil {
			all = m
		} else if all, err = all.Merge(m, false); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (a *app) installMirrors(ctx context.Context, bundles []*verify.Bundle, f mirrorsFlags, format nodes.Format, m *nodes.Mirrors, ca nodes.Authority) error {
	files, notes, err := nodes.Install(ctx, f.dir, format, m, ca, f.overwrite)
	if err != nil {
		return err
	}
	return a.print(struct {
		Format    nodes.Format      `json:"format"`
		Directory string            `json:"directory"`
		Files     []nodes.Installed `json:"files"`
		Notes     []string          `json:"notes"`
	}{format, f.dir, append([]nodes.Installed{}, files...), notes}, func(w io.Writer) {
		fmt.Fprintf(w, "mirrors of %s for %s are in %s\n", titles(bundles), format, f.dir)
		for _, file := range files {
			fmt.Fprintf(w, "  %-7s  %s\n", file.Action, file.Path)
		}
		for _, n := range notes {
			fmt.Fprintf(w, "  note: %s\n", strings.ReplaceAll(n, "\n", "\n    "))
		}
	})
}

// authority reads the certificates by which nodes are to trust the registry at host.
func authority(cmd *cobra.Command, path, host string) (nodes.Authority, error) {
	ca := nodes.Authority{Host: host}
	if path == "" {
		return ca, nil
	}
	if _, err := certificates(cmd, path, "", ""); err != nil {
		return ca, err
	}
	raw, err := readBounded("--ca-file", path, maxCertificateBytes)
	if err != nil {
		return ca, err
	}
	// Only the certificates go to the nodes, and nothing that stands between them.
	var text strings.Builder
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		text.Write(pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes}))
	}
	ca.PEM = text.String()
	return ca, nil
}

// onLoopback reports whether a registry, host[:port], is one that is spoken to without TLS anyway.
func onLoopback(registry string) bool {
	host, _, err := net.SplitHostPort(registry)
	if err != nil {
		host = strings.Trim(registry, "[]")
	}
	return oci.IsLoopback(host)
}

// hintMirrors is about what nodes get: mirrors, and archives of images.
func hintMirrors(err error) string {
	var format *nodes.FormatError
	var foreign *nodes.FileError
	var conflict *nodes.ConflictError
	switch {
	case errors.As(err, &format), is[*install.RenamedError](err):
		return "seed with --mapping keep and to a prefix of its own, or let 'sealift install' rewrite the references, which needs no mirrors"
	case errors.As(err, &foreign):
		return "put what is in there into a file of the site's own, or print the configuration without --dir and merge it by hand; --overwrite replaces the file"
	case is[*nodes.ShadowError](err):
		return "remove the other one, if nobody needs it"
	case errors.As(err, &conflict) && len(conflict.Others) > 0:
		return fmt.Sprintf("seed bundles with images of one registry to one place, and by the same rules; what leads to the first one is for %s, too", strings.Join(conflict.Others, ", "))
	case conflict != nil:
		return "seed bundles with images of one registry to one place; where the old one is gone, --overwrite leads to the new one"
	case is[*nodes.BusyError](err):
		return "wait for the other one to end, then run this again"
	case is[*install.NoImageError](err):
		return "'sealift inspect' lists the images of a bundle"
	case is[*install.NoPlatformError](err):
		return "choose one that travels with --platform, or with --image only images that travel for this one"
	case is[*install.NotRunnableError](err):
		return "it can be in an oci-archive"
	}
	return ""
}
