package release

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/kube"
	"helm.sh/helm/v4/pkg/storage"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/klog/v2"
)

const (
	// DefaultTimeout bounds each wait of an operation: for one hook, or for
	// the objects of the release. It is Helm's.
	DefaultTimeout = 5 * time.Minute
	// maxHistory is the number of revisions that are kept of a release. A
	// deployed one is never dropped.
	maxHistory = 10
	// fieldManager owns the fields that server-side apply sets. Helm's default
	// is the name of the program; two names for one release conflict with each
	// other, and "helm" is what a site's own Helm uses.
	fieldManager = "helm"
	userAgent    = "sealift"

	requestsPerSecond = 50
	requestBurst      = 100
	statusWorkers     = 8 // what the Helm command uses
)

// ClusterOptions says which cluster, and how to talk to it.
type ClusterOptions struct {
	// Kubeconfig is a path, or several joined as in $KUBECONFIG. It must not be
	// empty: this package looks nowhere by itself.
	Kubeconfig string
	// Context of the kubeconfig; empty: its current one.
	Context string
	// Log receives what Helm and client-go log; nil: nothing is logged.
	Log *slog.Logger
	// Timeout bounds each wait of a way back, and of an Apply whose Release names
	// none. 0: DefaultTimeout.
	Timeout time.Duration
	// Lease is how long others watch the lease of a killed install before they take it; 0: a minute, and never
	// less than [MinLease].
	Lease time.Duration
	// NoExec refuses a user whose credentials come from a program, before it is run.
	NoExec bool
	// Dial opens the connections: to the cluster, or to the proxy that the kubeconfig
	// names. address is "host:port", before any name is resolved. nil: the network's own.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Cluster is a Kubernetes cluster with Helm releases. Its methods may be called
// at the same time for different releases.
type Cluster struct {
	server  string
	log     *slog.Logger
	timeout time.Duration
	lease   leaseTimes
	// credentials are those of the kubeconfig that say when they expire.
	credentials []Credential
	// program is what is run for these; nil for nothing.
	program *ForeignProgram
	// open starts an operation; tests put fakes here.
	open func(ctx context.Context, namespace string) (*session, error)
}

// session is what one operation works with.
type session struct {
	cfg       *action.Configuration
	kube      *client
	records   *records
	clientset kubernetes.Interface
	// dynamic reaches objects of any kind, of which mapper knows the resources.
	dynamic dynamic.Interface
	mapper  meta.RESTMapper
	// http has the credentials and the connections of the cluster, for what client-go has no call for; it follows no redirects.
	http *http.Client
	// held is what an upgrade holds until it has ended.
	held *heldReplicas
}

// setUpOnce guards the settings that are global to Helm and client-go. Both
// are read by goroutines of earlier operations, so they are written only once.
var setUpOnce sync.Once

// Connect reads the kubeconfig. It does not talk to the cluster; see
// [Cluster.Version]. Errors are [ErrNoKubeconfig] and *[KubeconfigError]; in the
// latter is an *[ExecError] where NoExec forbids what it says.
func Connect(o ClusterOptions) (*Cluster, error) {
	if o.Kubeconfig == "" {
		return nil, ErrNoKubeconfig
	}
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	setUpOnce.Do(func() {
		kube.ManagedFieldsManager = fieldManager
		klog.SetSlogLogger(log)
	})

	config, raw, err := readKubeconfig(o)
	if err != nil {
		return nil, &KubeconfigError{Path: o.Kubeconfig, Context: o.Context, Err: err}
	}
	address, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, &KubeconfigError{Path: o.Kubeconfig, Context: o.Context, Err: err}
	}
	if config.Proxy == nil {
		// client-go would take the proxy of the environment. Only what the
		// kubeconfig names is dialled.
		config.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
	}
	config.UserAgent = userAgent
	config.Dial = o.Dial
	transport, err := rest.TransportFor(config)
	if err != nil {
		return nil, &KubeconfigError{Path: o.Kubeconfig, Context: o.Context, Err: err}
	}

	c := &Cluster{server: address.String(), log: log, timeout: o.Timeout, lease: leaseTimesOf(o.Lease), program: programOf(config, raw), credentials: credentials(config)}
	if c.timeout <= 0 {
		c.timeout = DefaultTimeout
	}
	c.open = func(ctx context.Context, namespace string) (*session, error) {
		return c.openSession(ctx, namespace, transport, raw)
	}
	return c, nil
}

func readKubeconfig(o ClusterOptions) (*rest.Config, *clientcmdapi.Config, error) {
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: o.Kubeconfig}
	if paths := filepath.SplitList(o.Kubeconfig); len(paths) > 1 {
		rules = &clientcmd.ClientConfigLoadingRules{Precedence: paths}
	}
	raw, err := rules.Load()
	if err != nil {
		return nil, nil, err
	}
	if o.Context != "" {
		raw.CurrentContext = o.Context
	}
	if _, ok := raw.Contexts[raw.CurrentContext]; !ok {
		return nil, nil, fmt.Errorf("it has no context %q", raw.CurrentContext)
	}
	// Not the deferred loader: that one falls back to the service account of
	// the pod it may run in.
	config, err := clientcmd.NewNonInteractiveClientConfig(*raw, raw.CurrentContext, &clientcmd.ConfigOverrides{}, nil).ClientConfig()
	if err == nil && o.NoExec {
		err = checkNoExec(config, raw.Contexts[raw.CurrentContext].AuthInfo)
	}
	return config, raw, err
}

// checkNoExec looks at what would be used, not at the file, so that nothing that the two
// could differ in is missed. Programs run when the transport is made, at the earliest.
func checkNoExec(config *rest.Config, user string) error {
	switch {
	case config.ExecProvider != nil:
		return &ExecError{User: user, Program: config.ExecProvider.Command}
	case config.AuthProvider != nil:
		// The old kind. What it runs depends on the provider, gcp has it in cmd-path.
		program := config.AuthProvider.Config["cmd-path"]
		if program == "" {
			program = config.AuthProvider.Name
		}
		return &ExecError{User: user, Program: program}
	}
	return nil
}

// openSession builds the clients of one operation. They share the connections
// of the cluster; the gate is the operation's own.
func (c *Cluster) openSession(ctx context.Context, namespace string, transport http.RoundTripper, raw *clientcmdapi.Config) (*session, error) {
	// TLS and credentials are in the transport.
	config := &rest.Config{
		Host:                      c.server,
		Transport:                 &gate{next: transport, ctx: ctx},
		UserAgent:                 userAgent,
		QPS:                       requestsPerSecond,
		Burst:                     requestBurst,
		WarningHandlerWithContext: warnings{log: c.log},
	}
	clientset, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	objects, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	g := &getter{config: config, discovery: memory.NewMemCacheClient(clientset.Discovery())}
	g.mapper = restmapper.NewShortcutExpander(restmapper.NewDeferredDiscoveryRESTMapper(g.discovery), g.discovery, nil)
	g.loader = clientcmd.NewNonInteractiveClientConfig(*raw, raw.CurrentContext,
		&clientcmd.ConfigOverrides{Context: clientcmdapi.Context{Namespace: namespace}}, nil)

	cfg := action.NewConfiguration(action.ConfigurationSetLogger(c.log.Handler()))
	if err := cfg.Init(g, namespace, "secret"); err != nil {
		return nil, err
	}
	stored := &records{Driver: cfg.Releases.Driver}
	cfg.Releases = storage.Init(stored)
	cfg.Releases.SetLogger(c.log.Handler())
	wrapped := &client{Interface: cfg.KubeClient, ctx: ctx}
	cfg.KubeClient = wrapped
	return &session{
		cfg: cfg, kube: wrapped, records: stored, clientset: clientset, dynamic: objects, mapper: g.mapper,
		http: httpClient(config.Transport),
	}, nil
}

func httpClient(transport http.RoundTripper) *http.Client {
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Version asks the cluster for its Kubernetes version ("v1.34.1"). It is the
// check that the cluster answers. An error is an *[UnreachableError].
func (c *Cluster) Version(ctx context.Context) (string, error) {
	s, err := c.open(ctx, "default")
	if err != nil {
		return "", err
	}
	v, err := s.clientset.Discovery().ServerVersion()
	if err != nil {
		return "", &UnreachableError{Server: c.server, Err: err}
	}
	return v.GitVersion, nil
}

// APIVersions asks the cluster which API versions it serves, as charts see them in
// .Capabilities.APIVersions ("apps/v1", "apps/v1/Deployment"). An error is an *[UnreachableError].
func (c *Cluster) APIVersions(ctx context.Context) ([]string, error) {
	s, err := c.open(ctx, "default")
	if err != nil {
		return nil, err
	}
	versions, err := action.GetVersionSet(s.clientset.Discovery())
	if err != nil {
		return nil, &UnreachableError{Server: c.server, Err: err}
	}
	return versions, nil
}

// getter hands Helm the clients of a session. Helm's own reads the
// environment, and caches discovery in the home directory.
type getter struct {
	config    *rest.Config
	discovery discovery.CachedDiscoveryInterface
	mapper    meta.RESTMapper
	loader    clientcmd.ClientConfig
}

func (g *getter) ToRESTConfig() (*rest.Config, error) { return rest.CopyConfig(g.config), nil }

func (g *getter) ToDiscoveryClient() (discovery.CachedDiscoveryInterface, error) {
	return g.discovery, nil
}

func (g *getter) ToRESTMapper() (meta.RESTMapper, error) { return g.mapper, nil }

func (g *getter) ToRawKubeConfigLoader() clientcmd.ClientConfig { return g.loader }

// warnings logs the warnings that the API server sends along, for example
// about deprecated versions; client-go would print them.
type warnings struct{ log *slog.Logger }

func (w warnings) HandleWarningHeaderWithContext(ctx context.Context, code int, _, text string) {
	if code == 299 && text != "" { // the only code that Kubernetes uses
		w.log.WarnContext(ctx, "the cluster warns", "text", text)
	}
}
