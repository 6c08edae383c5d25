package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/registry"
)

// serveFlags say how a registry is served, whatever is in it.
type serveFlags struct {
	store, listen, metricsListen      string
	tlsCert, tlsKey, users, accessLog string
	selfSigned, anonymousPull         bool
	readOnly, sparse, prune           bool
	printUnit                         bool
	hosts                             []string
	// trust is for bundles.
	trust trustFlags
}

func (f *serveFlags) add(c *cobra.Command) {
	fs := c.Flags()
	fs.StringVar(&f.store, "store", "", "directory of the registry's content")
	fs.StringVar(&f.listen, "listen", "127.0.0.1:5000", "address to listen on: [HOST]:PORT")
	fs.StringVar(&f.tlsCert, "tls-cert", "", "certificate for HTTPS, in PEM, with those up to its authority")
	fs.StringVar(&f.tlsKey, "tls-key", "", "key of --tls-cert, in PEM")
	fs.BoolVar(&f.selfSigned, "self-signed", false, "make and keep a certificate authority and a certificate for HTTPS, and print what nodes must trust")
	fs.StringSliceVar(&f.hosts, "host", nil, "name or address that clients call this machine by, for --self-signed (repeatable)")
	fs.StringVar(&f.users, "users", "", "htpasswd file (bcrypt) of those who may enter (default: STORE/sealift/users if it is there)")
	fs.BoolVar(&f.anonymousPull, "anonymous-pull", false, "let everyone read, and users write")
	fs.BoolVar(&f.readOnly, "read-only", false, "refuse writes")
	fs.BoolVar(&f.sparse, "sparse-indexes", true, "take indexes of which only some platforms are there")
	fs.BoolVar(&f.prune, "prune", true, "at the start remove what nothing needs: unnamed blobs and uploads, if older than a day")
	fs.StringVar(&f.accessLog, "access-log", "", "file to log each request to, as a line of JSON, or - for standard output; opened again on SIGHUP")
	fs.StringVar(&f.metricsListen, "metrics-listen", "", "serve /metrics and /healthz here too, without users and TLS, and /metrics nowhere else: [HOST]:PORT")
	fs.BoolVar(&f.printUnit, "print-unit", false, "print a systemd unit that runs this command line, and do nothing else")
	onlyFlag(fs, "print-unit")
	onlyFlag(fs, "anonymous-pull")
	f.trust.addUse(c)
}

func (a *app) serveCommand() *cobra.Command {
	var f serveFlags
	c := &cobra.Command{
		Use:   "serve --store DIR | BUNDLE...",
		Short: "Run the embedded registry, or serve bundles as one",
		Long: `With --store, serve a directory as a registry, until a signal ends it. The directory is made
if need be; its layout is that of the CNCF distribution registry, which can serve it too.
'sealift seed --store DIR' writes to it directly, also while it is served.

With bundles, check their signatures and serve what is in them as a read-only registry,
straight out of the files: nothing is unpacked. ` + servedNamesHelp + ` A bundle called user is named ./user.

` + placesHelp + `

By default it speaks plain HTTP on a loopback address and asks for no credentials.
--self-signed or --tls-cert turns on TLS; 'sealift serve user add NAME' makes the first user,
and from then on all need credentials. Other than for --users, --tls-cert and --tls-key,
whose files are read again when they change, restart it for other flags.

/healthz says without credentials whether it works, /metrics counts for Prometheus.
docs/registry.md tells how to run it as a service.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return a.serve(cmd, args, &f) },
	}
	f.add(c)
	c.AddCommand(a.serveUserCommand())
	return c
}

func (a *app) serve(cmd *cobra.Command, args []string, f *serveFlags) error {
	usage := func(text string) error { return &usageError{errors.New(text), cmd.CommandPath()} }
	switch {
	case f.store == "" && len(args) == 0:
		return usage("neither --store nor a bundle is named")
	case f.store != "" && len(args) > 0:
		return usage("--store and bundles exclude each other: a bundle is seeded into a store with 'sealift seed --store DIR BUNDLE'")
	}
	if err := f.check(); err != nil {
		return &usageError{err, cmd.CommandPath()}
	}
	if f.store != "" {
		for _, name := range []string{"key", "policy", "allow-downgrade", "allow-expired", "insecure-skip-signature", "reason"} {
			if cmd.Flags().Changed(name) && fromVariable(cmd, name) == "" {
				return usage("--" + name + " is for bundles: what is in a store was proven when it came")
			}
		}
	}
	if f.printUnit {
		return a.printUnit(cmd, args, f)
	}
	if len(args) > 0 {
		return a.serveBundles(cmd, args, f)
	}
	return a.serveStore(cmd, f)
}

// check looks at what can be wrong with the flags by themselves.
func (f *serveFlags) check() error {
	if (f.tlsCert == "") != (f.tlsKey == "") {
		return errors.New("--tls-cert and --tls-key go together")
	}
	if f.selfSigned && f.tlsCert != "" {
		return errors.New("--self-signed and --tls-cert exclude each other")
	}
	if len(f.hosts) > 0 && !f.selfSigned {
		return errors.New("--host is for --self-signed")
	}
	for _, host := range f.hosts {
		if !isHost(host) {
			return fmt.Errorf("--host %q is neither the name of a host nor an address; without a port", host)
		}
	}
	for _, flag := range []struct{ name, value string }{{"--listen", f.listen}, {"--metrics-listen", f.metricsListen}} {
		if flag.value == "" && flag.name != "--listen" {
			continue
		}
		_, port, err := net.SplitHostPort(flag.value)
		if n, numberErr := strconv.ParseUint(port, 10, 16); err != nil || numberErr != nil || n > 65535 {
			return fmt.Errorf("%s %q is not [HOST]:PORT", flag.name, flag.value)
		}
	}
	return nil
}

// isHost reports whether a text is the name of a host, or an IP address.
func isHost(s string) bool {
	if net.ParseIP(s) != nil {
		return true
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "-") != label || strings.ContainsFunc(label, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
		}) {
			return false
		}
	}
	return len(s) <= 253
}

// keptBlobs is for how long blobs are spared, when a registry starts, whose manifests have not come:
// it may have been restarted in the middle of a transfer.
const keptBlobs = 24 * time.Hour

func (a *app) serveStore(cmd *cobra.Command, f *serveFlags) error {
	if f.prune && !f.readOnly {
		if err := a.pruneAtStart(cmd.Context(), f.store); err != nil {
			return err
		}
	}
	s, err := registry.New(cmd.Context(), registry.Options{Store: f.store, ReadOnly: f.readOnly, SparseIndexes: f.sparse})
	if err != nil {
		return err
	}
	state := registry.StateDir(f.store)
	err = f.run(a, cmd, serving{
		name: f.store, handler: s.Handler(), readOnly: f.readOnly, health: s.Health, tokenKey: s.TokenKey(),
		users: filepath.Join(state, "users"), tls: filepath.Join(state, "tls"),
		space: func() (free, total int64, ok bool) { return registry.Space(f.store) },
	})
	return errors.Join(err, s.Close())
}

// pruneAtStart prunes what nobody can need any more, where nobody else writes.
func (a *app) pruneAtStart(ctx context.Context, store string) error {
	r, err := registry.Prune(ctx, store, registry.PruneOptions{Now: a.env.Now(), UploadsOlder: keptBlobs, BlobsOlder: keptBlobs})
	var none *registry.NoStoreError
	var busy *registry.BusyError
	switch {
	case errors.As(err, &none): // it is to be made
		return nil
	case errors.As(err, &busy):
		fmt.Fprintf(a.env.Stderr, "not pruned, since others write to the store\n")
		return nil
	case errors.Is(err, context.Canceled):
		return err
	case err != nil:
		// It can be served all the same.
		a.warnings([]string{printable(a.hide(err.Error()))})
		return nil
	}
	a.warnings(unreadManifests(r))
	if n := len(r.Blobs) + r.Uploads + r.Leftovers; n > 0 {
		fmt.Fprintf(a.env.Stderr, "pruned %s: %d blobs, %d uploads\n", archive.FormatBytes(r.Bytes), len(r.Blobs), r.Uploads)
	}
	return nil
}

// serving is what is served.
type serving struct {
	// name is what it is called in messages.
	name    string
	handler http.Handler
	// readOnly says that it cannot be written to anyway.
	readOnly bool
	// health and space are those of registry.FrontOptions and registry.NewMetrics; nil for none.
	health func(context.Context) error
	space  func() (free, total int64, ok bool)
	// tokenKey is that of registry.FrontOptions.
	tokenKey []byte
	// users is the file that counts where --users names none and it is there; "" for none.
	users string
	// tls is the directory to keep a certificate authority in.
	tls string
	// bundles are what is served, if it is that; examples are names in them.
	bundles  []servedBundle
	examples []string
	// count adds to the metrics; nil for nothing.
	count func(*registry.Metrics)
}

// run serves until the command's context ends.
func (f *serveFlags) run(a *app, cmd *cobra.Command, s serving) error {
	log, err := a.openAccessLog(f.accessLog)
	if err != nil {
		return err
	}
	err = f.runLogged(a, cmd, s, log)
	if log != nil {
		err = errors.Join(err, log.Close())
	}
	return err
}

func (f *serveFlags) runLogged(a *app, cmd *cobra.Command, s serving, log *registry.AccessLog) error {
	o := registry.FrontOptions{
		// Bundles refuse by themselves, and say more.
		AnonymousPull: f.anonymousPull, TokenKey: s.tokenKey, ReadOnly: s.readOnly && s.bundles == nil, Health: s.health,
		Metrics: registry.NewMetrics(s.space), ShowMetrics: f.metricsListen == "", Now: a.env.Now, Log: a.serviceLog(),
	}
	if s.count != nil {
		s.count(o.Metrics)
	}
	if log != nil {
		o.AccessLog = log
		defer reopenOnHangup(log.Reopen, func(err error) { a.warnings([]string{printable(err.Error())}) })()
	}
	var err error
	if o.Users, err = f.openUsers(cmd, s); err != nil {
		return err
	}
	own, err := f.certificate(a, &o, s)
	if err != nil {
		return err
	}
	front, err := registry.NewFront(s.handler, o)
	if err != nil {
		return err
	}
	listener, err := listen(cmd.Context(), f.listen)
	if err != nil {
		return err
	}
	var metrics net.Listener
	if f.metricsListen != "" {
		if metrics, err = listen(cmd.Context(), f.metricsListen); err != nil {
			return errors.Join(err, listener.Close())
		}
	}
	o.ReadOnly = s.readOnly
	f.warn(a, o, listener.Addr())
	if err := f.announce(a, s, own, listener.Addr(), metrics); err != nil {
		return errors.Join(err, listener.Close())
	}
	if metrics == nil {
		return front.Serve(cmd.Context(), listener)
	}
	side, err := registry.NewFront(http.NotFoundHandler(), registry.FrontOptions{Metrics: o.Metrics, ShowMetrics: true, Health: s.health, Now: o.Now, Log: o.Log})
	if err != nil {
		return errors.Join(err, listener.Close(), metrics.Close())
	}
	return serveBoth(cmd.Context(), func(ctx context.Context) error { return front.Serve(ctx, listener) },
		func(ctx context.Context) error { return side.Serve(ctx, metrics) })
}

// serveBoth runs two servers until ctx ends, or one of them fails.
func serveBoth(ctx context.Context, serve ...func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(serve))
	var all sync.WaitGroup
	for i, s := range serve {
		all.Go(func() {
			defer cancel()
			errs[i] = s(ctx)
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func listen(ctx context.Context, address string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, &listenError{address, err}
	}
	return l, nil
}

// listenError says that an address cannot be listened on.
type listenError struct {
	address string
	err     error
}

func (e *listenError) Error() string { return fmt.Sprintf("listening on %s: %v", e.address, e.err) }
func (e *listenError) Unwrap() error { return e.err }

// serviceLog is where a service says what goes wrong.
func (a *app) serviceLog() *slog.Logger {
	if a.verbose {
		return a.logger()
	}
	shown := a.logging.handler(hiding{a}, slog.LevelWarn, a.hide)
	return slog.New(slog.NewMultiHandler(append([]slog.Handler{shown}, a.logging.sinks...)...))
}

func (a *app) openAccessLog(path string) (*registry.AccessLog, error) {
	switch path {
	case "":
		return nil, nil //nolint:nilnil // no log is asked for
	case "-":
		return registry.NewAccessLog(a.env.Stdout), nil
	}
	return registry.OpenAccessLog(path)
}

// openUsers returns those who may enter, nil for everyone.
func (f *serveFlags) openUsers(cmd *cobra.Command, s serving) (*registry.Users, error) {
	switch {
	case f.users != "":
		return registry.OpenUsers(f.users)
	case s.users == "":
		if f.anonymousPull {
			return nil, &usageError{errors.New("--anonymous-pull is for those who have no user, but there are no --users"), cmd.CommandPath()}
		}
		return nil, nil //nolint:nilnil // everyone may enter
	}
	users, err := registry.WatchUsers(s.users)
	if err == nil && f.anonymousPull && users.Open() {
		return nil, &usageError{errors.New("--anonymous-pull is for those who have no user, but there are no users; 'sealift serve user add' makes one"), cmd.CommandPath()}
	}
	return users, err
}

// certificate sets up TLS; own is nil where the certificate is somebody else's.
func (f *serveFlags) certificate(a *app, o *registry.FrontOptions, s serving) (own *registry.SelfSigned, err error) {
	switch {
	case f.tlsCert != "":
		o.TLS, err = registry.CertificateFiles(f.tlsCert, f.tlsKey, o.Log)
		return nil, err
	case !f.selfSigned:
		return nil, nil //nolint:nilnil // plain HTTP
	case s.tls == "":
		return nil, errNoState
	}
	if own, err = registry.SelfSign(s.tls, f.names(), a.env.Now); err != nil {
		return nil, err
	}
	o.TLS = own.TLS()
	return own, nil
}

// names are what clients may call this machine: what --host says, its own name, its addresses.
func (f *serveFlags) names() []string {
	names := []string{"localhost", "127.0.0.1", "::1"}
	names = append(names, f.hosts...)
	if name, err := os.Hostname(); err == nil && isHost(name) {
		names = append(names, name)
	}
	if addresses, err := net.InterfaceAddrs(); err == nil {
		for _, address := range addresses {
			if n, ok := address.(*net.IPNet); ok && !n.IP.IsLinkLocalUnicast() {
				names = append(names, n.IP.String())
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// warn says what anyone on the network can do.
func (f *serveFlags) warn(a *app, o registry.FrontOptions, address net.Addr) {
	tcp, ok := address.(*net.TCPAddr)
	if ok && tcp.IP.IsLoopback() {
		return
	}
	open := o.Users == nil || o.Users.Open()
	switch {
	case open && !o.ReadOnly && o.TLS == nil:
		a.warnings([]string{"whoever reaches " + address.String() + " can write to this registry, and change what goes over the wire: add users ('sealift serve user add NAME') and TLS (--self-signed)"})
	case open && !o.ReadOnly:
		a.warnings([]string{"whoever reaches " + address.String() + " can write to this registry: add users ('sealift serve user add NAME')"})
	case o.TLS == nil && !open:
		a.warnings([]string{"passwords go over the wire as they are, since there is no TLS: add --self-signed or --tls-cert"})
	}
}

// announce prints where the registry is, and what nodes must trust.
func (f *serveFlags) announce(a *app, s serving, own *registry.SelfSigned, address net.Addr, metrics net.Listener) error {
	type trusted struct {
		File        string   `json:"file"`
		Fingerprint string   `json:"fingerprint"`
		NotAfter    string   `json:"notAfter"`
		Host        string   `json:"host"`
		Places      []string `json:"places"`
	}
	v := struct {
		Serving string   `json:"serving"`
		Address string   `json:"address"`
		Metrics string   `json:"metrics,omitempty"`
		Trust   *trusted `json:"trust,omitempty"`
		// Bundles are what is served, if it is that, Examples are names in them.
		Bundles  []servedBundle `json:"bundles,omitempty"`
		Examples []string       `json:"examples,omitempty"`
	}{Serving: s.name, Address: address.String(), Bundles: s.bundles}
	for _, name := range s.examples {
		v.Examples = append(v.Examples, f.nodeName(address)+"/"+name)
	}
	if metrics != nil {
		v.Metrics = metrics.Addr().String()
	}
	if own != nil {
		path := own.CAPath()
		if abs, err := filepath.Abs(path); err == nil {
			path = abs
		}
		host := f.nodeName(address)
		v.Trust = &trusted{path, "sha256:" + own.Fingerprint(), own.NotAfter().UTC().Format(time.DateOnly), host, []string{
			"/etc/containerd/certs.d/" + host + "/ca.crt", "/etc/docker/certs.d/" + host + "/ca.crt", "/etc/containers/certs.d/" + host + "/ca.crt", "/etc/rancher/k3s/ca.crt",
		}}
	}
	return a.print(v, func(w io.Writer) {
		fmt.Fprintf(w, "serving %s on %s\n", v.Serving, v.Address)
		if v.Metrics != "" {
			fmt.Fprintf(w, "metrics on %s\n", v.Metrics)
		}
		writeExamples(w, v.Examples)
		if t := v.Trust; t != nil {
			fmt.Fprintf(w, `nodes must trust   %s
fingerprint        %s
good until         %s
copy it on nodes that call this registry %s to
  containerd       %s
  docker           %s
  podman, CRI-O    %s
  k3s, rke2        %s, and in /etc/rancher/k3s/registries.yaml (rke2: /etc/rancher/rke2):
                     configs:
                       %q:
                         tls: {ca_file: %s}
`, t.File, t.Fingerprint, t.NotAfter, t.Host, t.Places[0], t.Places[1], t.Places[2], t.Places[3], t.Host, t.Places[3])
		}
	})
}

// nodeName is what nodes call this registry: by --host, the address that is listened on, or the name
// of the machine.
func (f *serveFlags) nodeName(address net.Addr) string {
	host, port, err := net.SplitHostPort(address.String())
	if err != nil {
		return address.String()
	}
	if len(f.hosts) > 0 {
		host = f.hosts[0]
	} else if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		if name, err := os.Hostname(); err == nil && isHost(name) {
			host = name
		}
	}
	return net.JoinHostPort(host, port)
}

func hintServe(err error) string {
	var busy *registry.BusyError
	var user *registry.UserError
	var cannot *listenError
	switch {
	case errors.As(err, &busy) && busy.Pruning:
		return "try again when 'sealift prune' has ended"
	case errors.As(err, &cannot) && errors.Is(err, syscall.EADDRINUSE):
		return "another program listens there, or another 'sealift serve': choose another port with --listen"
	case errors.As(err, &cannot) && errors.Is(err, fs.ErrPermission):
		return "ports below 1024 are the superuser's: choose another with --listen, or run it as a service (--print-unit)"
	case errors.As(err, &user) && user.Unknown:
		return "'sealift serve user list' lists them"
	case is[*registry.UsersGoneError](err):
		return "make a user with 'sealift serve user add NAME', or remove the marker file to let everyone in"
	case is[*registry.UsersFileError](err):
		return "repair the line, or make the user anew with 'sealift serve user add NAME'"
	}
	return ""
}
