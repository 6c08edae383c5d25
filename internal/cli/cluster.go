package cli

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/install"
	"github.com/sealift/sealift/internal/release"
)

// clusterFlags say which cluster, and how it is worked with.
type clusterFlags struct {
	kubeconfig, context string
	// records is the namespace of the states of bundles.
	records string
	timeout time.Duration
	lease   time.Duration
}

// add adds the flags of commands that look at a cluster.
func (f *clusterFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig of the cluster (default: KUBECONFIG, then ~/.kube/config)")
	c.Flags().StringVar(&f.context, "context", "", "context of the kubeconfig (default: its current one)")
	c.Flags().StringVar(&f.records, "record-namespace", release.DefaultRecordNamespace, "namespace in which the cluster keeps what is known about bundles")
	c.Flags().DurationVar(&f.timeout, "timeout", release.DefaultTimeout, "how long to wait for each release to become ready")
}

// addChange adds those of commands that change a cluster.
func (f *clusterFlags) addChange(c *cobra.Command) {
	f.add(c)
	c.Flags().DurationVar(&f.lease, "lease", time.Minute, "how long an install that was killed keeps others out: at least 5s")
}

// check checks the flags.
func (f *clusterFlags) check(cmd *cobra.Command) error {
	switch {
	case f.timeout <= 0:
		return &usageError{errors.New("--timeout is not positive"), cmd.CommandPath()}
	case cmd.Flags().Lookup("lease") != nil && f.lease < 5*time.Second:
		return &usageError{errors.New("--lease is below 5s"), cmd.CommandPath()}
	}
	return nil
}

// connect reads the kubeconfig; nothing is asked of the cluster yet.
func (a *app) connect(f *clusterFlags) (*release.Cluster, error) {
	return release.Connect(release.ClusterOptions{
		Kubeconfig: a.findKubeconfig(f.kubeconfig), Context: f.context, Log: a.logger(), Timeout: f.timeout, Lease: f.lease,
		NoExec: a.noExec, Dial: a.env.Dial,
	})
}

// transact are the options of all that changes a cluster.
func (a *app) transact(f *clusterFlags, cluster *release.Cluster) install.TransactOptions {
	return install.TransactOptions{
		Cluster: cluster, Ledger: cluster.Ledger(f.records), Now: a.env.Now, By: a.by(), Timeout: f.timeout, Lease: f.lease, Progress: a.reporter(), Hide: a.hide,
	}
}

// by is USER@HOST, for people: what the operating system says of this process.
func (a *app) by() string {
	name, host := "unknown", "unknown"
	if u, err := user.Current(); err == nil && u.Username != "" {
		name = u.Username
	}
	if h, err := os.Hostname(); err == nil {
		host = h
	}
	return name + "@" + host
}

// NoBundleError says that a cluster knows nothing of a bundle.
type NoBundleError struct {
	// Name is empty where it knows of none at all.
	Name, Namespace string
	// Known are those that it knows.
	Known []string
}

// Error names the namespace, which may be another one than the records are in.
func (e *NoBundleError) Error() string {
	if e.Name == "" {
		return fmt.Sprintf("namespace %q of the cluster has no record of any bundle", e.Namespace)
	}
	return fmt.Sprintf("namespace %q of the cluster has no record of bundle %q", e.Namespace, e.Name)
}

// severalBundles says that it has to be said which bundle is meant.
type severalBundles struct{ known []string }

func (e *severalBundles) Error() string {
	return "the cluster has several bundles, name one: " + strings.Join(e.known, ", ")
}

// oneBundle is the bundle called name; where that is empty, the only one that the cluster knows. Errors are *NoBundleError
// and about several.
func (a *app) oneBundle(cmd *cobra.Command, l *release.Ledger, name string) (string, error) {
	known, err := l.Bundles(cmd.Context())
	switch {
	case err != nil:
		return "", err
	case name == "" && len(known) == 1:
		return known[0], nil
	case name == "" && len(known) > 1:
		return "", &usageError{&severalBundles{known}, cmd.CommandPath()}
	case name == "" || !slices.Contains(known, name):
		return "", &NoBundleError{name, l.Namespace(), known}
	}
	return name, nil
}

// firstOf is the first argument, "" where there is none.
func firstOf(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}
