package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/install"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/registry"
	"github.com/sealift/sealift/internal/site"
)

// nameFlags say where in which registry images are, and what they are called there.
type nameFlags struct {
	config, registry, mapping, index string
	rules                            []string
}

func (f *nameFlags) add(c *cobra.Command) {
	fs := c.Flags()
	fs.StringVar(&f.registry, "registry", "", "registry of the site: HOST[:PORT][/PREFIX] (default: registry: of the configuration)")
	fs.StringVar(&f.config, "config", "", "file of what this site has chosen (default: /etc/sealift/config.yaml, or sealift/config.yaml in the user's XDG configuration directory)")
	fs.StringVar(&f.mapping, "mapping", "", "how images are called there: keep (HOST/PREFIX/path:tag), flatten (HOST/PREFIX/path-in-one-word:tag) or single (HOST/PREFIX:path-tag) (default: keep)")
	fs.StringArrayVar(&f.rules, "map", nil, "SOURCE=NAME: names of the site's own, which come before --mapping, as in 'docker.io/library/*=base/*' (repeatable)")
	fs.StringVar(&f.index, "index", "", "what stands for an index of which only some platforms travel: original, derived or platform (default: the original, and an error where the registry refuses it)")
}

// namesHelp is for commands that have these flags.
const namesHelp = `HOST/PREFIX/repository:tag is the name of an image that was called registry/repository:tag;
charts become HOST/PREFIX/charts/NAME:VERSION. --mapping and --map make other names. How
images are called, and --index, is kept for this registry in the file of --config, and counts
from then on.`

// naming is where in which registry images are, as flags and configuration say.
type naming struct {
	target install.Target
	index  install.IndexMode
	// path is the configuration file, kept what it says about the registry; said is what is to be
	// kept there, nil for nothing.
	path string
	kept *site.RegistryConfig
	said *site.RegistryConfig
	// host is what the file says about the host without a prefix, nil for nothing; loud is set where
	// flags said something about names; placeholder where nobody has named a registry.
	host              *site.RegistryConfig
	loud, placeholder bool
}

// NamesChangedError says that images would get other names than those that were chosen for a registry.
type NamesChangedError struct {
	Registry, Path string
	// Flag is what says so, Got and Kept what is said now, and what was before.
	Flag, Got, Kept string
}

// Error names all of them.
func (e *NamesChangedError) Error() string {
	return fmt.Sprintf("--%s %q: for registry %q it was decided before, as %q, which %q keeps", e.Flag, e.Got, e.Registry, e.Kept, e.Path)
}

// configPath is the file of --config, "" where there is no place for one.
func (a *app) configPath(flag string) string {
	if flag != "" {
		return flag
	}
	return site.DefaultConfig(a.env.getenv, os.Geteuid(), func(path string) bool {
		_, err := os.Stat(path)
		return err == nil
	})
}

// resolve puts together what flags and configuration say, also about access. A store needs no registry
// to be named.
func (f *nameFlags) resolve(a *app, cmd *cobra.Command, access *accessFlags, store bool) (*naming, error) {
	usage := func(err error) error { return &usageError{err, cmd.CommandPath()} }
	config, path := &site.Config{}, a.configPath(f.config)
	if path != "" {
		var err error
		if config, err = site.ReadConfig(path); err != nil {
			return nil, err
		}
	}
	registry := f.registry
	if registry == "" {
		registry = config.Registry
	}
	if registry == "" && store {
		registry = served
	}
	if registry == "" {
		return nil, usage(errors.New("no --registry is named; 'sealift serve --store DIR' runs one where there is none"))
	}
	target, err := install.ParseTarget(registry)
	if err != nil {
		return nil, usage(err)
	}
	n := &naming{path: path, kept: config.For(target.String()), host: config.For(target.Registry), placeholder: registry == served && f.registry == ""}
	if n.kept == nil || n.placeholder {
		n.kept = &site.RegistryConfig{}
	}
	if _, _, err := f.parse(); err != nil {
		return nil, usage(err)
	}
	if err := n.compare(target.String(), f); err != nil {
		return nil, err
	}
	chosen := nameFlags{mapping: cmp.Or(f.mapping, n.kept.Mapping), rules: f.rules, index: cmp.Or(f.index, n.kept.Index)}
	if len(f.rules) == 0 {
		chosen.rules = n.kept.Map
	}
	if target.Names, n.index, err = chosen.parse(); err != nil {
		return nil, fmt.Errorf("configuration %q, registry %q: %w", path, target.String(), err)
	}
	n.loud = f.mapping != "" || len(f.rules) > 0 || f.index != ""
	if !n.placeholder && (!n.kept.Decided() || n.kept.Index == "" && f.index != "") {
		mapping, index := target.Names.Mapping, n.index
		n.said = &site.RegistryConfig{Registry: target.String(), Mapping: string(mapping), Map: target.Names.Texts(), Index: string(index)}
	}
	n.target = target
	n.access(access)
	return n, nil
}

// compare compares what is said about names with what was decided before.
func (n *naming) compare(registry string, f *nameFlags) error {
	kept := n.kept
	changed := func(flag, got, was string) error {
		return &NamesChangedError{registry, n.path, flag, got, cmp.Or(was, "none")}
	}
	switch rules := strings.Join(f.rules, ","); {
	case kept.Decided() && f.mapping != "" && f.mapping != kept.Mapping:
		return changed("mapping", f.mapping, kept.Mapping)
	case kept.Decided() && rules != "" && rules != strings.Join(kept.Map, ","):
		return changed("map", rules, strings.Join(kept.Map, ","))
	case kept.Index != "" && f.index != "" && f.index != kept.Index:
		return changed("index", f.index, kept.Index)
	}
	return nil
}

// parse reads what is said about names.
func (f *nameFlags) parse() (names install.Names, index install.IndexMode, err error) {
	if names.Mapping, err = install.ParseMapping(f.mapping); err != nil {
		return names, "", err
	}
	for _, text := range f.rules {
		rule, err := install.ParseRule(text)
		if err != nil {
			return names, "", err
		}
		names.Rules = append(names.Rules, rule)
	}
	index, err = install.ParseIndexMode(f.index)
	return names, index, err
}

// access adds what the configuration says to what flags say; what it says about a host counts for all
// prefixes there.
func (n *naming) access(f *accessFlags) {
	for _, c := range []*site.RegistryConfig{n.kept, n.host} {
		if c == nil {
			continue
		}
		if c.PlainHTTP && !slices.Contains(f.plainHTTP, n.target.Registry) {
			f.plainHTTP = append(f.plainHTTP, n.target.Registry)
		}
		f.hosts = append(f.hosts, c.AllowHosts...)
		f.caFile = cmp.Or(f.caFile, c.CAFile)
		if f.clientCert == "" && f.clientKey == "" {
			f.clientCert, f.clientKey = c.ClientCert, c.ClientKey
		}
	}
}

// keep writes down what images are called, now that they have these names.
func (n *naming) keep(ctx context.Context, a *app) {
	if n.said == nil {
		return
	}
	if n.path == "" {
		if n.loud {
			a.warnings([]string{"there is no place for the site's configuration: say --mapping, --map and --index each time"})
		}
		return
	}
	err := site.KeepNames(ctx, n.path, *n.said)
	switch {
	case err == nil:
		fmt.Fprintf(a.env.Stderr, "kept in %s: how images are called in %s\n", printable(n.path), n.said.Registry)
	case n.loud || is[*site.OtherNamesError](err):
		a.warnings([]string{fmt.Sprintf("what images are called could not be kept, say it each time: %v", err)})
	}
}

// hintNames is about the names of images in the site's registry, and about where it takes them.
func hintNames(err error) string {
	var (
		changed   *NamesChangedError
		places    *install.PlacesError
		collision *install.CollisionError
		config    *site.ConfigError
		cert      *oci.CertificateError
	)
	switch {
	case errors.As(err, &changed):
		return fmt.Sprintf("names in running clusters depend on it: leave out --%s, or, if nothing uses the old names any more, change it in %s", changed.Flag, changed.Path)
	case errors.As(err, &places):
		return hintPlaces(places)
	case errors.As(err, &collision):
		return "give one of them another name with --map, as in --map 'quay.io/**=quay/**', or seed them from bundles of their own to prefixes of their own"
	case is[*install.OtherNamesError](err):
		return "this chart needs the images under the paths that they had: seed to a prefix with --mapping keep, and no --map for them"
	case is[*StoreFullError](err):
		return "make room there, then run the same again: it goes on with what is missing"
	case is[*registry.NotStoreError](err):
		return "name an empty directory, one that is not there yet, or a store"
	case is[*install.NameError](err):
		return "give it another name with --map SOURCE=NAME, or choose another --mapping or a shorter prefix"
	case errors.As(err, &config):
		return "correct it there; docs/registries.md describes the file"
	case errors.As(err, &cert):
		return "correct what is there, or remove it; with --ca-file, --client-cert and --client-key it is said for one command"
	case oci.RefusalOf(err) == oci.RefusalImmutable:
		return "the registry keeps tags, or anything, from being written twice: have the rule leave out what Sealift writes (tags sealift.*, sha256-*), or seed to another prefix; docs/registries.md"
	}
	return ""
}

func hintPlaces(e *install.PlacesError) string {
	switch e.Places[0].Reason {
	case oci.RefusalImmutable:
		return "the registry takes nothing twice there: have its rule leave out this prefix, or seed to another one; docs/registries.md"
	case oci.RefusalReadOnly:
		return "this place is a mirror, a proxy, or read-only for now: name one that can be written to"
	case oci.RefusalNoPlace:
		return "the registry wants the project, or every repository, to be made beforehand (docs/registries.md): make them, or put everything into one with --mapping single"
	case oci.RefusalRights, oci.RefusalOther:
	}
	return "log in with 'docker login', 'podman login' or --username; if you are, this user may lack the right to push there, or the project does not exist (docs/registries.md)"
}
