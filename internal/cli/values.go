package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/install"
	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/manifest"
)

// valueFlags are what a site says about the releases of a bundle, and how their objects are changed.
type valueFlags struct {
	set, setFile, setEnv, setSecret []string
	values, setValue                []string
	environment                     string
	reset                           bool

	pin         string
	noRewrite   bool
	pullSecrets []string
	configMaps  []string
}

func (f *valueFlags) add(c *cobra.Command) {
	fs := c.Flags()
	fs.StringArrayVar(&f.set, "set", nil, "PARAMETER=VALUE: a parameter of the bundle (repeatable)")
	fs.StringArrayVar(&f.setFile, "set-file", nil, "PARAMETER=FILE: a parameter whose value is the content of a file, without the last line's end (repeatable)")
	fs.StringArrayVar(&f.setEnv, "set-env", nil, "PARAMETER=VARIABLE: a parameter whose value is that of an environment variable (repeatable)")
	fs.StringArrayVar(&f.setSecret, "set-secret", nil, "PARAMETER=NAMESPACE/NAME:KEY: a parameter whose value is in a Secret of the cluster (repeatable)")
	fs.StringArrayVar(&f.values, "values", nil, "[RELEASE=]FILE: a values file for the chart of a release, which may be left out where there is only one (repeatable)")
	fs.StringArrayVar(&f.setValue, "set-value", nil, "[RELEASE:]PATH=VALUE: one value of the chart of a release, as YAML has it (repeatable)")
	fs.StringVar(&f.environment, "environment", "", "use the vendor's values for this environment")
	fs.BoolVar(&f.reset, "reset-values", false, "forget what was said for the version that is installed")
	onlyFlag(fs, "reset-values")
	fs.StringVar(&f.pin, "pin", "", "how references are pinned: digest (NAME:TAG@DIGEST, the default), tag, bare-digest (NAME@DIGEST)")
	fs.BoolVar(&f.noRewrite, "no-rewrite", false, "leave all references as the vendor wrote them, for nodes that have mirrors")
	onlyFlag(fs, "no-rewrite")
	fs.StringArrayVar(&f.pullSecrets, "pull-secret", nil, "name of a Secret that pods and service accounts get as imagePullSecrets (repeatable)")
	fs.StringArrayVar(&f.configMaps, "rewrite-configmap", nil, "NAMESPACE/NAME: a ConfigMap in whose texts references are rewritten, too (repeatable)")
}

// spoken is what the flags say of a bundle that is not known yet.
type spoken struct {
	parameters map[string]string
	secrets    map[string]install.SecretKey
	// values and set are for releases as the operator calls them.
	values []spokenFile
	set    []spokenValue
	f      *valueFlags
}

type spokenFile struct {
	release string
	file    chart.ValuesFile
}

type spokenValue struct {
	release string
	value   install.SetValue
}

// speak reads what the flags say, and the files that they name. A value of --values or --set-value is split where the bundle
// is known.
func (f *valueFlags) speak(a *app, cmd *cobra.Command) (*spoken, error) {
	s := &spoken{parameters: map[string]string{}, secrets: map[string]install.SecretKey{}, f: f}
	usage := func(err error) error { return &usageError{err, cmd.CommandPath()} }
	said := map[string]bool{}
	for _, kind := range []struct {
		flag, form string
		texts      []string
		take       func(name, value string) error
	}{
		{"set", "PARAMETER=VALUE", f.set, func(name, value string) error {
			s.parameters[name] = value
			return nil
		}},
		{"set-file", "PARAMETER=FILE", f.setFile, func(name, path string) error {
			raw, err := readBounded("parameter "+name, path, install.MaxParameterBytes)
			s.parameters[name] = strings.TrimSuffix(strings.TrimSuffix(string(raw), "\n"), "\r")
			return err
		}},
		{"set-env", "PARAMETER=VARIABLE", f.setEnv, func(name, variable string) error {
			value := a.env.getenv(variable)
			if value == "" {
				return usage(fmt.Errorf("parameter %q is to come from the environment variable %q, which is not set or empty", name, variable))
			}
			s.parameters[name] = value
			return nil
		}},
		{"set-secret", "PARAMETER=NAMESPACE/NAME:KEY", f.setSecret, func(name, text string) error {
			key, err := install.ParseSecretKey(text)
			if err != nil {
				return usage(fmt.Errorf("--set-secret %s: %w", name, err))
			}
			s.secrets[name] = key
			return nil
		}},
	} {
		for _, text := range kind.texts {
			name, value, ok := strings.Cut(text, "=")
			if !ok || name == "" {
				return nil, usage(fmt.Errorf("--%s %q is not written as %s", kind.flag, name, kind.form))
			}
			if said[name] {
				return nil, usage(fmt.Errorf("parameter %q is set twice", name))
			}
			said[name] = true
			if err := kind.take(name, value); err != nil {
				return nil, err
			}
		}
	}
	if err := s.readValues(); err != nil {
		return nil, err
	}
	for _, text := range f.setValue {
		release, value, err := parseSetValue(text)
		if err != nil {
			return nil, usage(err)
		}
		s.set = append(s.set, spokenValue{release, value})
	}
	if f.environment != "" {
		if err := manifest.CheckEnvironmentName(f.environment); err != nil {
			return nil, usage(err)
		}
	}
	if err := f.rendering().Check(); err != nil {
		return nil, usage(err)
	}
	return s, nil
}

// readValues reads the files of --values. What stands before the first = is a release where it looks like one and
// the whole is no file.
func (s *spoken) readValues() error {
	for _, text := range s.f.values {
		release, path, ok := strings.Cut(text, "=")
		if _, err := os.Stat(text); !ok || !isReleaseName(release) || err == nil {
			release, path = "", text
		}
		raw, err := readBounded("values", path, chart.MaxValues)
		if err != nil {
			return err
		}
		s.values = append(s.values, spokenFile{release, chart.ValuesFile{Name: filepath.Base(path), Data: raw}})
	}
	return nil
}

// isReleaseName reports whether s is written as RELEASE or NAMESPACE/RELEASE.
func isReleaseName(s string) bool {
	namespace, release, both := strings.Cut(s, "/")
	if !both {
		return manifest.CheckRelease(s) == nil
	}
	return manifest.CheckNamespace(namespace) == nil && manifest.CheckRelease(release) == nil
}

// parseSetValue reads [RELEASE:]PATH=VALUE.
func parseSetValue(text string) (release string, v install.SetValue, err error) {
	where, value, ok := strings.Cut(text, "=")
	path := where
	if before, after, both := strings.Cut(where, ":"); both && isReleaseName(before) {
		release, path = before, after
	}
	if !ok || manifest.CheckValuePath(path) != nil {
		return "", v, fmt.Errorf("--set-value %q is not written as [RELEASE:]PATH=VALUE", where)
	}
	v.Path = path
	if v.Value, err = chart.ParseValue(value); err != nil {
		return "", v, fmt.Errorf("--set-value %q: %w", where, err)
	}
	return release, v, nil
}

func (f *valueFlags) rendering() install.Rendering {
	return install.Rendering{Pin: install.Pin(f.pin), NoRewrite: f.noRewrite, PullSecrets: f.pullSecrets, ConfigMaps: f.configMaps}
}

// site is what the flags say about a bundle, whose secrets are never printed from now on.
func (s *spoken) site(a *app, m *manifest.Manifest, target install.Target) (install.Site, error) {
	a.hideParameters(m, s.parameters)
	site := install.Site{
		Target: target, Parameters: s.parameters, Secrets: s.secrets, Environment: s.f.environment, Rendering: s.f.rendering(),
		Values: map[string][]chart.ValuesFile{}, Set: map[string][]install.SetValue{},
	}
	for _, v := range s.values {
		key, err := install.ReleaseKey(m, v.release)
		if err != nil {
			return install.Site{}, err
		}
		site.Values[key] = append(site.Values[key], v.file)
	}
	for _, v := range s.set {
		key, err := install.ReleaseKey(m, v.release)
		if err != nil {
			return install.Site{}, err
		}
		site.Set[key] = append(site.Set[key], v.value)
	}
	return site, nil
}

// over adds to the site what it has said for the version that is installed, and reads Secrets of the cluster. What is
// kept under id is nothing where that is empty.
func (s *spoken) over(ctx context.Context, a *app, p *installing) error {
	m := p.bundle.Manifest()
	if known := m.Environments(); len(known) > 0 {
		defer func() {
			if p.site.Chosen() == "" {
				a.warnings([]string{"the bundle has values for " + strings.Join(known, ", ") + ", and none of them was chosen with --environment: the vendor's plain values count"})
			}
		}()
	}
	if p.state != nil && p.state.Installed != nil && p.state.Installed.Values != "" && !s.f.reset {
		raw, err := p.ledger.ReadValues(ctx, m.Name, p.state.Installed.Values)
		if err != nil {
			return err
		}
		if raw == nil {
			return &install.KeptError{Err: errors.New("the cluster does not have it any more")}
		}
		before, err := install.ReadKept(raw)
		if err != nil {
			return err
		}
		// What was secret then stays so, also where the parameter has another value now, or is gone: the cluster still has it.
		was := secretParameters(p.state)
		for name, text := range before.Texts() {
			if was[name] {
				a.secrets.add(text)
			}
		}
		var gone []string
		p.site, gone = p.site.Over(before).Fit(m)
		a.warnings(gone)
		a.hideParameters(m, p.site.Texts())
	}
	a.secrets.add(p.site.SecretTexts()...)
	if p.cluster == nil {
		return nil
	}
	var err error
	p.site, err = p.site.ReadSecrets(ctx, p.cluster, a.hideRead(m))
	return err
}

// hideRead keeps what comes from Secrets of the cluster out of all that is printed, whether or not the vendor calls the parameter secret.
func (a *app) hideRead(m *manifest.Manifest) func(name, value string) {
	return func(name, value string) {
		for i := range m.Parameters {
			// See hideParameters.
			if p := &m.Parameters[i]; p.Name == name && p.Type == manifest.ParameterString {
				a.secrets.add(value)
			}
		}
	}
}

// hintValues is about what a site says.
func hintValues(err error) string {
	var p *install.ParameterError
	var env *install.EnvironmentError
	switch {
	case errors.As(err, &p) && p.Kept:
		return "say another value with --set NAME=VALUE; or forget all that was said before with --reset-values, and say anew what counts"
	case errors.As(err, &env) && env.Kept:
		return "choose another with --environment, or forget all that was said before with --reset-values"
	case errors.As(err, &env):
		return "'sealift inspect' lists the environments of a bundle; without --environment the vendor's plain values count"
	case is[*install.NoReleaseError](err):
		return "write --values RELEASE=FILE and --set-value RELEASE:PATH=VALUE, with NAMESPACE/RELEASE where a name is there twice"
	case is[*install.SiteValuesError](err):
		return "correct the values; the chart's values.schema.json says what it takes"
	case is[*install.UnreadError](err):
		return "name the cluster with --kubeconfig"
	case is[*install.SecretError](err):
		return "create the Secret with 'kubectl create secret generic NAME --namespace NAMESPACE --from-file KEY=FILE', or say the value otherwise"
	case is[*install.KeptError](err):
		return "with --reset-values nothing of it is used; then say anew what counts"
	}
	return ""
}

// onlyRegistry refuses what changes references where all of them stay.
func (*valueFlags) onlyRegistry(cmd *cobra.Command) error {
	for _, name := range []string{"pin", "no-rewrite", "rewrite-configmap"} {
		if flag := cmd.Flags().Lookup(name); flag != nil && flag.Changed && fromVariable(cmd, name) == "" {
			return &usageError{fmt.Errorf("--%s is about how references are rewritten, and --via rewrites none", name), cmd.CommandPath()}
		}
	}
	return nil
}
