package cli

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sealift/sealift/install"
	"github.com/sealift/sealift/internal/containerd"
	"github.com/sealift/sealift/internal/release"
	"github.com/sealift/sealift/verify"
)

// Words of --via. The last two are containerd too, and say where its socket is.
const (
	viaContainerd = "containerd"
	viaK3s        = "k3s"
	viaRKE2       = "rke2"
)

// containerdAddress is the variable that containerd's own tools read.
const containerdAddress = "CONTAINERD_ADDRESS"

// viaFlags say which containerd of this machine gets the images.
type viaFlags struct {
	via, address string
	noPin        bool
}

// socketHelp is for commands that have these flags.
const socketHelp = `The containerd is the one at --address, else at CONTAINERD_ADDRESS, else the only one that
is here: of k3s or rke2, its own, of microk8s or k0s. That needs root.`

func (f *viaFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.via, "via", "", "what of this node gets the images: containerd, or k3s or rke2 for the one in these")
	c.Flags().StringVar(&f.address, "address", "", "socket of the containerd (default: CONTAINERD_ADDRESS, then the only one that is here)")
	c.Flags().BoolVar(&f.noPin, "no-pin", false, "let the kubelet remove the images when no pod uses them and the disk is full")
	onlyFlag(c.Flags(), "no-pin")
}

// unused refuses what says something about a containerd that nobody uses.
func (f *viaFlags) unused(cmd *cobra.Command) error {
	switch {
	case f.address != "" && fromVariable(cmd, "address") == "":
		return &usageError{errors.New("--address is about a containerd, which --via names"), cmd.CommandPath()}
	case f.noPin:
		return &usageError{errors.New("--no-pin is about a containerd, which --via names"), cmd.CommandPath()}
	}
	return nil
}

// options are how the node is loaded; done closes the connection.
func (f *viaFlags) options(a *app, cmd *cobra.Command, namespace string, jobs int) (o install.LoadOptions, done func(*error), err error) {
	if jobs < 1 || jobs > 64 {
		return o, nil, &usageError{fmt.Errorf("--jobs %d is not from 1 to 64", jobs), cmd.CommandPath()}
	}
	client, err := f.nodeClient(cmd.Context(), a, cmd, namespace)
	if err != nil {
		return o, nil, err
	}
	done = func(err *error) {
		if e := client.Close(); *err == nil {
			*err = e
		}
	}
	return install.LoadOptions{Client: client, NoPin: f.noPin, Jobs: jobs, Now: a.env.Now(), Progress: a.reporter()}, done, nil
}

// registryOnly are the flags of install that say something about a registry, or are its store.
func registryOnly() []string {
	var (
		names  nameFlags
		access accessFlags
		all    = []string{"store"}
	)
	c := &cobra.Command{}
	names.add(c)
	access.add(c)
	c.Flags().VisitAll(func(f *pflag.Flag) { all = append(all, f.Name) })
	return all
}

// withoutRegistry refuses what the command line says about a registry. What variables of the environment say
// of one is for the installations that have one.
func withoutRegistry(cmd *cobra.Command) error {
	for _, name := range registryOnly() {
		if f := cmd.Flags().Lookup(name); f != nil && f.Changed && fromVariable(cmd, name) == "" {
			return &usageError{fmt.Errorf("--%s is about a registry, and --via installs without one", name), cmd.CommandPath()}
		}
	}
	return nil
}

// nodeKubeconfigs are where the administrator's kubeconfig of a node lies: of k3s, rke2, kubeadm, microk8s and
// k0s.
var nodeKubeconfigs = []string{
	"/etc/rancher/k3s/k3s.yaml", "/etc/rancher/rke2/rke2.yaml", "/etc/kubernetes/admin.conf",
	"/var/snap/microk8s/current/credentials/client.config", "/var/lib/k0s/pki/admin.conf",
}

// maxIdentityBytes bounds the files that say which machine this is.
const maxIdentityBytes = 4096

// thisMachine is what can be known of the machine that this runs on.
func thisMachine() (install.Machine, error) {
	host, err := os.Hostname()
	if err != nil {
		return install.Machine{}, fmt.Errorf("asking for the name of this machine: %w", err)
	}
	m := install.Machine{Hostname: host}
	for path, to := range map[string]*string{"/etc/machine-id": &m.MachineID, "/sys/class/dmi/id/product_uuid": &m.SystemUUID} {
		// What is not there, or not to be read, is not known.
		if raw, err := readBounded("the identity of this machine", path, maxIdentityBytes); err == nil {
			*to = strings.TrimSpace(string(raw))
		}
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return install.Machine{}, fmt.Errorf("asking for the addresses of this machine: %w", err)
	}
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok {
			m.IPs = append(m.IPs, n.IP)
		}
	}
	return m, nil
}

// checkNode checks that the cluster is this node and nothing else.
func checkNode(cmd *cobra.Command, cluster *release.Cluster, client *containerd.Client) error {
	nodes, err := cluster.Nodes(cmd.Context())
	if release.IsForbidden(err) {
		return &install.PreflightError{Err: fmt.Errorf("listing the nodes of the cluster: %w", err)}
	}
	if err != nil {
		return err
	}
	here, err := thisMachine()
	if err != nil {
		return err
	}
	return install.CheckNode(nodes, here, client.Version())
}

// installVia installs on the node that this runs on, without a registry.
func (a *app) installVia(cmd *cobra.Command, args []string, f installFlags) (err error) {
	ctx := cmd.Context()
	if err := withoutRegistry(cmd); err != nil {
		return err
	}
	if err := f.onlyRegistry(cmd); err != nil {
		return err
	}
	words, err := f.speak(a, cmd)
	if err != nil {
		return err
	}
	o, done, err := f.via.options(a, cmd, containerd.Kubernetes, f.jobs)
	if err != nil {
		return err
	}
	defer done(&err)
	o.MoveNames = f.moveTags
	p := &installing{}
	if p.trust, err = a.trusting(cmd, &f.trust); err != nil {
		return err
	}
	if f.kubeconfig = a.findKubeconfig(f.kubeconfig); f.kubeconfig == "" {
		f.kubeconfig = firstFile(nodeKubeconfigs)
	}
	failed := p.connect(ctx, a, &f)
	b, closeBundle, err := a.open(cmd, args, p.trust.policy)
	if err != nil {
		return err
	}
	defer closeBundle(&err)
	p.bundle = b
	bundles := []*verify.Bundle{b}
	if p.site, err = words.site(a, b.Manifest(), install.Target{}); err != nil {
		return err
	}
	a.warn(bundles)
	if p.accept, err = a.acceptOptions(p.trust, "install", nodeTarget(o.Client)); err != nil && !f.dryRun {
		return err
	}
	if err := p.know(ctx, a, &f, failed); err != nil {
		return err
	}
	if p.cluster != nil {
		if err := checkNode(cmd, p.cluster, o.Client); err != nil {
			return err
		}
	}
	if err := words.over(ctx, a, p); err != nil {
		return err
	}
	if err := p.autoscaled(ctx); err != nil {
		return err
	}
	l, err := install.PrepareLoad(ctx, bundles, o)
	if err != nil {
		return err
	}
	if err := l.CheckKubelet(); err != nil {
		return err
	}
	preview := l.Preview()
	if p.releases, err = install.UnrewrittenReleases(ctx, b, preview, p.site); err != nil {
		return err
	}
	for _, r := range p.releases {
		a.warnings(r.Warnings)
	}
	if p.parameters, err = p.site.Say(b.Manifest()); err != nil {
		return err
	}
	if err := p.makePlan(ctx, a, &f); err != nil {
		return err
	}
	if err := install.CheckPulls(p.plan.Releases); err != nil {
		return err
	}
	elsewhere, err := l.CheckLoaded(p.plan.Releases)
	if err != nil {
		return err
	}
	r := &installResult{Bundle: b.Manifest().Name, Version: b.Manifest().Version, Digest: b.Evidence().Manifest, DryRun: f.dryRun, Parameters: p.parameters}
	if f.dryRun {
		r.Load, r.Plan = preview, p.plan.Releases
		return a.print(r, func(w io.Writer) { writePlan(w, r, p.cluster != nil) })
	}
	plan, err := p.followed(&f)
	if err != nil {
		return err
	}
	if err := p.warned(ctx, a, &f); err != nil {
		return err
	}
	if err := install.Prepared(ctx, bundles, p.accept); err != nil {
		return err
	}
	if r.Load, err = l.Run(ctx); err != nil {
		return err
	}
	a.warnLoaded(r.Load, o)
	a.warnElsewhere(elsewhere)
	if err := p.carryOut(cmd, a, &f, r.Load.Seeded(), plan, r); err != nil {
		return err
	}
	return a.print(r, func(w io.Writer) {
		fmt.Fprintf(w, "installed %s %s from containerd %s at %s\n", r.Bundle, r.Version, r.Load.Containerd, r.Load.Address)
		writeLoaded(w, r.Load, false)
		writeChanged(w, r)
	})
}

// firstFile returns the first of the paths that is there, or "".
func firstFile(paths []string) string {
	for _, path := range paths {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

// hintVia is about what an installation without a registry needs.
func hintVia(err error) string {
	var nodes *install.NodesError
	switch {
	case errors.As(err, &nodes) && len(nodes.Nodes) > 0:
		return "a cluster of several nodes needs a registry that all of them reach: 'sealift serve --store DIR' runs one, and --registry HOST installs from it"
	case is[*install.OtherNodeError](err):
		return "run this on the node itself; if it has several containerd, --address names the one that its kubelet uses"
	case is[*install.NoKubeletError](err):
		return "remove \"cri\" from disabled_plugins in /etc/containerd/config.toml, or name the containerd that the kubelet uses with --address"
	case is[*install.AlwaysPullError](err):
		return "set the pull policy to IfNotPresent with a parameter of the bundle, or ask the vendor for one, and for images with a tag other than latest; or install from a registry, with --registry HOST"
	case is[*install.NotLoadedError](err):
		return "the vendor has to pack the image for this platform; or bring it into the containerd by another way"
	case is[*install.RegistryValueError](err):
		return "install from a registry, with --registry HOST: 'sealift serve --store DIR' runs one"
	}
	return ""
}
