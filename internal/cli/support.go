package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/install"
	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/ledger"
	"github.com/sealift/sealift/internal/redact"
	"github.com/sealift/sealift/internal/release"
	"github.com/sealift/sealift/internal/site"
	"github.com/sealift/sealift/internal/support"
	"github.com/sealift/sealift/manifest"
)

const (
	// supportEntries is how many entries of the journal go into an archive: the newest.
	supportEntries = 2000
	// maxSupportFile bounds a file that is named to be put in, in bytes.
	maxSupportFile = 32 << 20
)

// supportFlags are those of support.
type supportFlags struct {
	output, state, config, plan string
	with, namespaces            []string
	since                       time.Duration
	configMaps, skipSecrets     bool
	alone                       bool
	cluster                     clusterFlags
}

func (a *app) supportCommand() *cobra.Command {
	var f supportFlags
	c := &cobra.Command{
		Use:   "support [NAME]",
		Short: "Collect what those need who help",
		Long: `Write one archive (.tar.gz) with what somebody needs who helps from far away: versions, the
states and receipts of the bundles (of all, or of NAME), the end of the journal, this site's
configuration, and from the cluster the objects of the releases, the state of Helm, events,
and pods with the ends of their logs.

Of Secrets only the keys and sizes are in it, of ConfigMaps too unless --config-maps is said.
The Secrets of the namespaces are read for one purpose: what they hold is blanked in all texts,
logs among them. Where they cannot be read, the logs and events of that namespace are left out;
--no-secrets-read reads none, and takes the logs as they are. What looks like a password, a token
or a key is blanked besides. No program can find everything: look at the archive before it leaves.
README.txt in it says what each file is, errors.txt what could not be read.

It works without a cluster, and without a state: then that part is not in it. Nothing is changed.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.support(cmd, args, &f) },
	}
	fs := c.Flags()
	fs.StringVarP(&f.output, "out", "o", "", "file to write (default: sealift-support-TIME.tar.gz); one that is there is not overwritten")
	fs.StringVar(&f.plan, "plan", "", "file of a saved plan to put in")
	fs.StringSliceVar(&f.with, "with", nil, "another text file to put in, such as a log (repeatable)")
	fs.StringSliceVar(&f.namespaces, "namespace", nil, "namespace of which all pods and events are put in, besides those of the releases (repeatable)")
	fs.DurationVar(&f.since, "since", 0, "take only what logs have said within this time (default: all, the last 2,000 lines of each container)")
	fs.BoolVar(&f.configMaps, "config-maps", false, "put in what ConfigMaps hold")
	fs.BoolVar(&f.skipSecrets, "no-secrets-read", false, "read no Secrets: what they hold is not known then, and is not blanked in logs")
	fs.BoolVar(&f.alone, "without-cluster", false, "ask no cluster")
	fs.StringVar(&f.cluster.kubeconfig, "kubeconfig", "", "kubeconfig of the cluster (default: KUBECONFIG, then ~/.kube/config)")
	fs.StringVar(&f.cluster.context, "context", "", "context of the kubeconfig (default: its current one)")
	fs.StringVar(&f.cluster.records, "record-namespace", release.DefaultRecordNamespace, "namespace in which the cluster keeps what is known about bundles")
	fs.StringVar(&f.config, "config", "", "file of what this site has chosen, see 'sealift seed --help'")
	stateFlag(c, &f.state)
	onlyFlag(fs, "config-maps")
	onlyFlag(fs, "no-secrets-read")
	return c
}

func (a *app) support(cmd *cobra.Command, args []string, f *supportFlags) error {
	ctx := cmd.Context()
	if f.since < 0 {
		return &usageError{errors.New("--since is negative"), cmd.CommandPath()}
	}
	name := ""
	if len(args) > 0 {
		name = args[0]
		if err := manifest.CheckName(name); err != nil {
			return &usageError{err, cmd.CommandPath()}
		}
	}
	for _, namespace := range f.namespaces {
		if err := manifest.CheckNamespace(namespace); err != nil {
			return &usageError{err, cmd.CommandPath()}
		}
	}
	to := f.output
	if to == "" {
		to = "sealift-support-" + a.env.Now().UTC().Format("20060102-150405") + ".tar.gz"
	}
	local := &localPart{app: a, flags: f}
	// What is named has to be there: a plan that is missed is missed only when the archive has arrived.
	if err := local.readFiles(); err != nil {
		return err
	}
	sources := []support.Source{local}
	options := support.Options{Now: a.env.Now(), Exempt: slices.Clone(f.namespaces)}
	asked := !f.alone && a.findKubeconfig(f.cluster.kubeconfig) != ""
	if asked {
		cluster, err := a.connect(&f.cluster)
		if err != nil {
			return err
		}
		door := cluster.Ledger(f.cluster.records)
		states := readStates(ctx, door, name)
		if !f.skipSecrets {
			states.readSecrets(ctx, cluster)
		}
		states.exempt(&options)
		sources = append(sources, states, cluster.Support(release.SupportOptions{
			Releases: states.releases(), Namespaces: f.namespaces, Since: f.since, ConfigMaps: f.configMaps, SkipSecrets: f.skipSecrets,
		}))
	} else if !f.alone {
		a.warnings([]string{"no kubeconfig is named: the archive has nothing of a cluster"})
	}
	options.Readme = supportReadme(f, asked)
	r, err := support.Create(ctx, to, sources, options)
	if err != nil {
		return err
	}
	if len(r.Errors) > 0 {
		a.warnings([]string{fmt.Sprintf("%s could not be read: errors.txt in the archive lists it", count(len(r.Errors), "thing"))})
	}
	v := struct {
		Archive string `json:"archive"`
		*support.Result
	}{to, r}
	return a.print(v, func(w io.Writer) {
		fmt.Fprintf(w, "wrote %s: %s, %s before it was compressed\n", to, count(len(r.Files), "file"), archive.FormatBytes(r.Bytes))
		fmt.Fprintln(w, "look at it before it leaves: 'tar -xzf' unpacks it, README.txt says what is in it")
	})
}

// localPart is what is known on this machine.
type localPart struct {
	app   *app
	flags *supportFlags
	files map[string][]byte
	order []string
}

// readFiles reads what the flags name.
func (l *localPart) readFiles() error {
	l.files = map[string][]byte{}
	take := func(what, to, path string) error {
		raw, err := readBounded(what, path, maxSupportFile)
		if err != nil {
			return err
		}
		l.files[to] = raw
		l.order = append(l.order, to)
		return nil
	}
	if l.flags.plan != "" {
		if err := take("--plan", "plan.json", l.flags.plan); err != nil {
			return err
		}
	}
	for i, path := range l.flags.with {
		if err := take("--with", fmt.Sprintf("files/%d-%s", i+1, filepath.Base(path)), path); err != nil {
			return err
		}
	}
	return nil
}

// Name implements support.Source.
func (l *localPart) Name() string { return "this machine" }

// Secrets implements support.Source.
func (l *localPart) Secrets(_ context.Context, to *support.Archive) error {
	all := l.app.secrets.all()
	for _, variable := range []string{registryPassword, "COSIGN_PASSWORD"} {
		all = append(all, l.app.env.getenv(variable))
	}
	return to.Secret(all...)
}

// Collect implements support.Source.
func (l *localPart) Collect(ctx context.Context, to *support.Archive) error {
	a := l.app
	about := map[string]string{
		"sealift": version, "go": runtime.Version(), "system": runtime.GOOS + "/" + runtime.GOARCH, "by": a.by(), "time": a.env.Now().UTC().Format(time.RFC3339),
	}
	if err := putJSON(to, "local/version.json", about); err != nil {
		return err
	}
	if path := a.configPath(l.flags.config); path != "" {
		raw, err := readBounded("configuration", path, maxSupportFile)
		switch {
		case err == nil:
			if err := to.Text("local/config.yaml", raw); err != nil {
				return err
			}
		case !errors.Is(err, os.ErrNotExist):
			to.Failed("configuration", err)
		}
	}
	if err := l.journal(ctx, to); err != nil {
		return err
	}
	for _, name := range l.order {
		if err := to.Text(name, l.files[name]); err != nil {
			return err
		}
	}
	return nil
}

// journal writes what the site has recorded.
func (l *localPart) journal(ctx context.Context, to *support.Archive) error {
	dir, err := l.app.siteDir(l.flags.state)
	if err != nil {
		to.Failed("state directory", err)
		return nil
	}
	record, err := dir.Read(ctx)
	if err != nil {
		to.Failed("record of the site", err)
	} else if err := putJSON(to, "local/record.json", record); err != nil {
		return err
	}
	var newest []site.Entry
	_, err = dir.Journal(ctx, func(e site.Entry) error {
		if len(newest) == 2*supportEntries {
			newest = append(newest[:0], newest[supportEntries:]...)
		}
		newest = append(newest, e)
		return nil
	})
	if err != nil {
		to.Failed("journal", err)
	}
	var b strings.Builder
	for _, e := range newest[max(0, len(newest)-supportEntries):] {
		b.WriteString(entryText(e))
	}
	return to.Text("local/journal.txt", []byte(b.String()))
}

// statesPart is what the cluster knows of bundles.
type statesPart struct {
	states []*ledger.State
	// secret is what was said for secret parameters.
	secret []string
	// said are what the sites said, by the bundle's name.
	said   map[string][]install.Site
	errors map[string]error
}

// readSecrets reads the Secrets that parameters come from, wherever they are: what they hold may have got into objects and logs.
func (p *statesPart) readSecrets(ctx context.Context, cluster *release.Cluster) {
	for name, sites := range p.said {
		for _, one := range sites {
			if _, err := one.ReadSecrets(ctx, cluster, func(_, value string) { p.secret = append(p.secret, value) }); err != nil {
				p.errors["a Secret that was named for "+name+", so that what it holds is blanked only where it looks like a secret"] = err
			}
		}
	}
}

// readStates reads the states of bundles, of one or all.
func readStates(ctx context.Context, door *release.Ledger, name string) *statesPart {
	p := &statesPart{said: map[string][]install.Site{}, errors: map[string]error{}}
	names := []string{name}
	if name == "" {
		var err error
		if names, err = door.Bundles(ctx); err != nil {
			p.errors["states of bundles"] = err
		}
	}
	for _, name := range names {
		s, _, err := door.Read(ctx, name)
		switch {
		case err != nil:
			p.errors["state of "+name] = err
		case s == nil:
			p.errors["state of "+name] = errNoBundleState
		default:
			p.states = append(p.states, s)
			for _, id := range s.Values {
				raw, err := door.ReadValues(ctx, name, id)
				if err != nil {
					p.errors["what was said for "+name] = err
					continue
				}
				p.secret = append(p.secret, saidSecrets(raw, secretParameters(s))...)
				if said, err := install.ReadKept(raw); raw != nil && err == nil {
					p.said[name] = append(p.said[name], said)
				}
			}
		}
	}
	return p
}

// errNoBundleState says that the cluster knows nothing of a bundle.
var errNoBundleState = errors.New("the cluster has none")

// secretParameters are the names of parameters that any receipt calls secret.
func secretParameters(s *ledger.State) map[string]bool {
	names := map[string]bool{}
	note := func(r *ledger.Receipt) {
		for _, p := range r.Parameters {
			if p.Secret {
				names[p.Name] = true
			}
		}
	}
	for i := range s.History {
		note(&s.History[i])
	}
	if s.Installed != nil {
		note(s.Installed)
	}
	if s.Open != nil {
		note(&s.Open.Receipt)
	}
	return names
}

// saidSecrets are what was said for secret parameters, and under names of secrets, in a document as
// install.SaidMediaType has it, or in any other.
func saidSecrets(raw []byte, secret map[string]bool) []string {
	var doc any
	if json.Unmarshal(raw, &doc) != nil {
		return nil
	}
	var all []string
	var walk func(v any, under string, depth int)
	walk = func(v any, under string, depth int) {
		if depth > 100 {
			return
		}
		switch v := v.(type) {
		case map[string]any:
			for key, inner := range v {
				walk(inner, key, depth+1)
			}
		case []any:
			for _, inner := range v {
				walk(inner, under, depth+1)
			}
		case string:
			if secret[under] || redact.IsName(under) {
				all = append(all, v)
			}
		}
	}
	walk(doc, "", 0)
	slices.Sort(all)
	return all
}

// exempt has the names of bundles, releases and namespaces taken for no secrets.
func (p *statesPart) exempt(o *support.Options) {
	for _, s := range p.states {
		o.Exempt = append(o.Exempt, s.Name)
	}
	for _, r := range p.releases() {
		o.Exempt = append(o.Exempt, r.Namespace, r.Name)
	}
}

// releases are those that are installed, or being installed.
func (p *statesPart) releases() []release.HelmRelease {
	seen := map[release.HelmRelease]bool{}
	var all []release.HelmRelease
	add := func(list []ledger.Release) {
		for i := range list {
			for _, name := range append(frontNames(list[i].Front), list[i].Helm()) {
				if r := (release.HelmRelease{Namespace: list[i].Namespace, Name: name}); name != "" && !seen[r] {
					seen[r] = true
					all = append(all, r)
				}
			}
		}
	}
	for _, s := range p.states {
		if s.Installed != nil {
			add(s.Installed.Releases)
		}
		if s.Open != nil {
			add(s.Open.Receipt.Releases)
			for i := range s.Open.Steps {
				step := &s.Open.Steps[i]
				if step.Release != "" {
					add([]ledger.Release{{Namespace: step.Namespace, Name: step.Release, As: step.As}})
				}
			}
		}
	}
	return all
}

func frontNames(f *ledger.Front) []string {
	if f == nil {
		return nil
	}
	return []string{f.To, f.Also, f.Spare}
}

// Name implements support.Source.
func (p *statesPart) Name() string { return "the states of bundles" }

// Secrets implements support.Source.
func (p *statesPart) Secrets(_ context.Context, to *support.Archive) error {
	return to.Secret(p.secret...)
}

// Collect implements support.Source.
func (p *statesPart) Collect(_ context.Context, to *support.Archive) error {
	for what, err := range p.errors {
		to.Failed(what, err)
	}
	for _, s := range p.states {
		if err := putJSON(to, "states/"+s.Name+".json", s); err != nil {
			return err
		}
	}
	return nil
}

func putJSON(to *support.Archive, name string, v any) error {
	raw, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("collecting %s: %w", name, err)
	}
	return to.Text(name, append(raw, '\n'))
}

// supportReadme says what is in an archive.
func supportReadme(f *supportFlags, asked bool) string {
	var b strings.Builder
	b.WriteString(`Support archive of Sealift
==========================

LOOK AT IT BEFORE IT LEAVES. Known secrets are blanked in all files, and what looks like one, as
(hidden); nobody can promise that this finds everything. Remove what must not leave, and pack it
again.

README.txt                    this file
errors.txt                    what could not be read, and why
local/version.json            Sealift, the system it runs on, who has made this, when
local/config.yaml             what this site has chosen (registries, names); it holds no passwords
local/record.json             what this site has accepted and pinned
local/journal.txt             the newest entries of the journal
plan.json                     the plan that was named with --plan
files/                        what was named with --with
states/NAME.json              what the cluster knows of a bundle: what is installed, receipts, the
                              transaction that is open
cluster/version.json          version of Kubernetes
cluster/nodes.json            nodes: kubelet, runtime, what they have room for, their conditions
namespaces/NS/namespace.json  the namespace
namespaces/NS/events.txt      what happened there, the newest last
namespaces/NS/claims/         claims of volumes
namespaces/NS/pods/POD/       the pod, and for each container the end of its log (2,000 lines, 1 MiB),
                              .previous.log being that of its run before
releases/NS/NAME/helm.json    the revisions that Helm knows, without their values
releases/NS/NAME/objects/     the objects of the newest revision as they are in the cluster
`)
	b.WriteString("\nIn this one:\n")
	line := func(format string, args ...any) { fmt.Fprintf(&b, "- "+format+"\n", args...) }
	switch {
	case !asked:
		line("no cluster was asked")
	case f.skipSecrets:
		line("Secrets were not read (--no-secrets-read): what they hold is NOT blanked in logs and events, unless it looks like a secret")
	default:
		line("what the Secrets of these namespaces hold was read, and blanked everywhere; where they could not be read, logs and events are left out")
	}
	if f.configMaps {
		line("ConfigMaps are shown with what they hold (--config-maps)")
	} else {
		line("ConfigMaps are shown without what they hold")
	}
	if f.since > 0 {
		line("logs go back %s", f.since)
	}
	return b.String()
}

// hintSupport is about what this command meets.
func hintSupport(err error) string {
	var many *support.TooManySecretsError
	if errors.As(err, &many) {
		return "name one bundle, or --no-secrets-read, which does not blank in logs what Secrets hold"
	}
	return ""
}
