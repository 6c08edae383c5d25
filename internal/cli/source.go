package cli

import (
	"errors"
	"fmt"
	"net/http"
	"os"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/bundle"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/progress"
)

// sourceFlags say where a spec is, and how its sources are reached.
type sourceFlags struct {
	spec      string
	plainHTTP []string
	mirrors   []string
	caFile    string
	// clientCert and clientKey are what is shown to the sources.
	clientCert, clientKey string
	local                 []string
}

// sourceHelp is for commands that have these flags.
const sourceHelp = `Credentials for registries and chart repositories are those of docker and podman
(~/.docker/config.json and the like). Hosts on loopback addresses are spoken to without
TLS.`

func (f *sourceFlags) add(c *cobra.Command) {
	c.Flags().StringVarP(&f.spec, "file", "f", "sealift.yaml", "the spec")
	c.Flags().StringSliceVar(&f.plainHTTP, "plain-http", nil, "registry or chart repository, host[:port], to speak to without TLS (repeatable)")
	c.Flags().StringSliceVar(&f.mirrors, "mirror", nil, "HOST=MIRROR[/PREFIX]: read from a mirror what the registry HOST has; names stay as they are (repeatable)")
	c.Flags().StringVar(&f.caFile, "ca-file", "", "certificates, in PEM, of authorities that are trusted besides those of the system")
	c.Flags().StringVar(&f.clientCert, "client-cert", "", "certificate, in PEM, to show to registries and chart repositories")
	c.Flags().StringVar(&f.clientKey, "client-key", "", "key of --client-cert, in PEM")
	c.Flags().StringSliceVar(&f.local, "local", nil, "OCI layout or archive to read pinned digests from before a registry is asked (repeatable)")
}

// sourceRegistry is what errors call a registry that is packed from.
const sourceRegistry = "source registry"

// sources are what a spec is resolved with.
type sources struct {
	bundle.Options
	locals []*oci.Local
}

// open makes ready what the flags name. The caller closes it.
func (f *sourceFlags) open(a *app, cmd *cobra.Command, report progress.Reporter) (_ *sources, err error) {
	usage := func(err error) error { return &usageError{err, cmd.CommandPath()} }
	options, err := certificates(cmd, f.caFile, f.clientCert, f.clientKey)
	if err != nil {
		return nil, err
	}
	mirrors := map[string]string{}
	for _, m := range f.mirrors {
		host, mirror, err := oci.ParseMirror(m)
		if err != nil {
			return nil, usage(err)
		}
		mirrors[host] = mirror
	}
	o := oci.Options{
		Side: sourceRegistry, Keychain: a.keychain(), PlainHTTP: f.plainHTTP, Mirrors: mirrors,
		Transport: a.discreet(oci.HostCertificates(oci.NewTransport(http.ProxyFromEnvironment, options...), a.certificateDirs())),
		UserAgent: a.userAgent(), Budget: a.env.Budget, Waiting: a.tellWait, Away: a.tellAway,
	}
	s := &sources{Options: bundle.Options{Client: oci.NewClient(o), Repositories: oci.NewHTTPClient(o), Progress: report}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	for _, path := range f.local {
		l, err := oci.OpenLocal(path)
		if err != nil {
			return nil, err
		}
		s.locals = append(s.locals, l)
	}
	s.Local = s.locals
	return s, nil
}

func (s *sources) close() error {
	var errs []error
	for _, l := range s.locals {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// readLock reads the lock beside a spec: nil, and no error, where there is none.
func readLock(spec string) (*bundle.Lock, error) {
	l, err := bundle.ReadLock(bundle.LockPath(spec))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return l, err
}

func (a *app) warnings(lines []string) {
	a.logWarnings(lines)
	for _, l := range lines {
		fmt.Fprintf(a.env.Stderr, "warning: %s\n", printable(a.hide(l)))
	}
}
