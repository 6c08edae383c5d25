package site

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/sealift/sealift/internal/filelock"
	"github.com/sealift/sealift/internal/strictyaml"
)

// maxConfig bounds the configuration file, in bytes.
const maxConfig = 1 << 20

// Config is what a site has chosen to last: the file of --config.
type Config struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	// Registry is what --registry is where it is not given: HOST[:PORT][/PREFIX].
	Registry string `yaml:"registry"`
	// Registries say how some of them are spoken to, and what is called how there.
	Registries []RegistryConfig `yaml:"registries"`
}

// RegistryConfig is about one place that bundles are seeded to.
type RegistryConfig struct {
	// Registry is HOST[:PORT][/PREFIX], as for --registry.
	Registry string `yaml:"registry"`
	// Mapping, Map and Index are decided once: names in running clusters depend on them.
	Mapping string   `yaml:"mapping"`
	Map     []string `yaml:"map"`
	Index   string   `yaml:"index"`
	// The rest is what flags of the same names say where they are not given.
	PlainHTTP  bool     `yaml:"plainHTTP"`
	CAFile     string   `yaml:"caFile"`
	ClientCert string   `yaml:"clientCert"`
	ClientKey  string   `yaml:"clientKey"`
	AllowHosts []string `yaml:"allowHosts"`
}

// Decided reports whether it has been decided what is called how there: the mapping is written down
// then, and rules belong to it.
func (r *RegistryConfig) Decided() bool { return r.Mapping != "" }

// Words of a configuration file.
const (
	configVersion = "sealift/v1"
	configKind    = "SiteConfig"
)

// ConfigError says what is wrong with a configuration file.
type ConfigError struct {
	Path     string
	Problems []strictyaml.Problem
}

// Error has a line for each problem.
func (e *ConfigError) Error() string { return strictyaml.Format(e.Path, e.Problems) }

// ReadConfig reads a configuration file. Where there is none it returns an empty Config. Errors are
// *ConfigError, or that of reading.
func ReadConfig(path string) (*Config, error) {
	raw, err := readConfig(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &Config{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the site's configuration: %w", err)
	}
	return decodeConfig(path, raw)
}

func decodeConfig(path string, raw []byte) (*Config, error) {
	c := &Config{}
	doc, problems := strictyaml.Decode(raw, maxConfig, c)
	if len(problems) > 0 {
		return nil, &ConfigError{path, problems}
	}
	bad := func(line int, format string, a ...any) {
		problems = append(problems, strictyaml.Problem{Line: line, Text: fmt.Sprintf(format, a...)})
	}
	if c.APIVersion != configVersion {
		bad(doc.Line("apiVersion"), "apiVersion is %q, want %q", c.APIVersion, configVersion)
	}
	if c.Kind != configKind {
		bad(doc.Line("kind"), "kind is %q, want %q", c.Kind, configKind)
	}
	if c.Registry != "" && !placePattern.MatchString(c.Registry) {
		bad(doc.Line("registry"), "registry %q %s", c.Registry, notAPlace)
	}
	seen := map[string]bool{}
	for i := range c.Registries {
		r := &c.Registries[i]
		at := func(key string) int { return doc.At("registries", i, key) }
		r.under(filepath.Dir(path))
		if r.Mapping != "" && !slices.Contains([]string{"keep", "flatten", "single"}, r.Mapping) {
			bad(at("mapping"), "registries[%d].mapping %q is none of keep, flatten, single", i, r.Mapping)
		}
		if r.Index != "" && !slices.Contains([]string{"original", "derived", "platform"}, r.Index) {
			bad(at("index"), "registries[%d].index %q is none of original, derived, platform", i, r.Index)
		}
		switch {
		case r.Registry == "":
			bad(at("registry"), "registries[%d].registry is missing", i)
		case !placePattern.MatchString(r.Registry):
			bad(at("registry"), "registries[%d].registry %q %s", i, r.Registry, notAPlace)
		case seen[r.Registry]:
			bad(at("registry"), "registries[%d].registry %q stands twice", i, r.Registry)
		}
		seen[r.Registry] = true
		if (r.ClientCert == "") != (r.ClientKey == "") {
			bad(at("clientCert"), "registries[%d] has only one of clientCert and clientKey", i)
		}
	}
	if len(problems) > 0 {
		return nil, &ConfigError{path, problems}
	}
	return c, nil
}

// placePattern is a place as it is compared: what is spelled otherwise would be passed over.
var placePattern = regexp.MustCompile(`\A(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:]+\])(?::[0-9]{1,5})?(?:/[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)?\z`)

const notAPlace = "is not written as HOST[:PORT][/PREFIX], in lower case and without a / at its end"

// under makes the paths in r those that they are for who reads the file in dir.
func (r *RegistryConfig) under(dir string) {
	for _, path := range []*string{&r.CAFile, &r.ClientCert, &r.ClientKey} {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(dir, *path)
		}
	}
}

// For is what is said about a registry, nil where nothing is.
func (c *Config) For(registry string) *RegistryConfig {
	i := slices.IndexFunc(c.Registries, func(r RegistryConfig) bool { return r.Registry == registry })
	if i < 0 {
		return nil
	}
	return &c.Registries[i]
}

// OtherNamesError says that somebody has decided on other names in the meantime.
type OtherNamesError struct{ Path, Registry string }

// Error names both.
func (e *OtherNamesError) Error() string {
	return fmt.Sprintf("%q says other names for registry %q by now", e.Path, e.Registry)
}

// configWait is how long others are waited for that write the configuration.
const configWait = 5 * time.Second

// KeepNames writes into a configuration file what is called how in a registry; the rest of the file
// stays as it is, comments too. The file, and its directory, are made if need be. Errors:
// *OtherNamesError, *BusyError, *ConfigError, or that of reading and writing.
func KeepNames(ctx context.Context, path string, names RegistryConfig) (err error) {
	if err := makeDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("making the directory of the site's configuration: %w", err)
	}
	// The directory is what is locked: the file is another one after each change.
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("locking the site's configuration: %w", err)
	}
	defer closing(dir, &err)
	waiting, cancel := context.WithTimeoutCause(ctx, configWait, &BusyError{filepath.Dir(path)})
	defer cancel()
	if err := filelock.Wait(waiting, dir, lock); err != nil {
		if waiting.Err() == nil {
			err = fmt.Errorf("locking the site's configuration: %w", err)
		}
		return err
	}
	raw, err := readConfig(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the site's configuration: %w", err)
	}
	if raw, err = withNames(path, raw, names); err != nil {
		return err
	}
	if err := replaceConfig(path, raw); err != nil {
		return fmt.Errorf("writing the site's configuration: %w", err)
	}
	return nil
}

// readConfig reads a file, which may be a symbolic link, unlike those of the record.
func readConfig(path string) (_ []byte, err error) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: path, Err: errNotRegular}
	}
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer closing(f, &err)
	return io.ReadAll(io.LimitReader(f, maxConfig+1))
}

// replaceConfig gives a file a new content, all of it or nothing, and keeps its rights.
func replaceConfig(path string, raw []byte) (err error) {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	mode := fs.FileMode(0o644)
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm()
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, remove(f.Name()))
	}
	return syncDir(filepath.Dir(path))
}

// withNames returns the content of a configuration file that says names, too.
func withNames(path string, raw []byte, names RegistryConfig) ([]byte, error) {
	if len(bytes.TrimSpace(raw)) == 0 {
		raw = fmt.Appendf(nil, "# What this site has chosen, for 'sealift seed' and 'sealift install'.\napiVersion: %s\nkind: %s\n", configVersion, configKind)
	}
	before, err := decodeConfig(path, raw)
	if err != nil {
		return nil, err
	}
	if kept := before.For(names.Registry); kept != nil && kept.Decided() &&
		(kept.Mapping != names.Mapping || !slices.Equal(kept.Map, names.Map) || kept.Index != "" && kept.Index != names.Index) {
		return nil, &OtherNamesError{path, names.Registry}
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		return nil, fmt.Errorf("reading the site's configuration: %w", err)
	}
	list := sequence(doc.Content[0], "registries")
	item := entryOf(list, names.Registry)
	set(item, "mapping", names.Mapping)
	set(item, "map", names.Map)
	set(item, "index", names.Index)
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(&doc), enc.Close()); err != nil {
		return nil, fmt.Errorf("writing the site's configuration: %w", err)
	}
	// What is written is read again with the same rules.
	if _, err := decodeConfig(path, b.Bytes()); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// sequence is the list under key, which is made if need be.
func sequence(parent *yaml.Node, key string) *yaml.Node {
	if n := value(parent, key); n != nil {
		if n.Kind != yaml.SequenceNode {
			*n = yaml.Node{Kind: yaml.SequenceNode}
		}
		return n
	}
	list := &yaml.Node{Kind: yaml.SequenceNode}
	parent.Content = append(parent.Content, text(key), list)
	return list
}

// entryOf is the item of list that is about registry; it is made if need be.
func entryOf(list *yaml.Node, registry string) *yaml.Node {
	for _, item := range list.Content {
		if n := value(item, "registry"); n != nil && n.Value == registry {
			return item
		}
	}
	item := &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{text("registry"), text(registry)}}
	list.Content = append(list.Content, item)
	return item
}

// set gives a key a value, unless that is empty.
func set(item *yaml.Node, key string, v any) {
	n := &yaml.Node{}
	switch v := v.(type) {
	case string:
		if v == "" {
			return
		}
		n = text(v)
	case []string:
		if len(v) == 0 {
			return
		}
		n.Kind = yaml.SequenceNode
		for _, s := range v {
			n.Content = append(n.Content, text(s))
		}
	}
	if old := value(item, key); old != nil {
		n.HeadComment, n.LineComment, n.FootComment = old.HeadComment, old.LineComment, old.FootComment
		*old = *n
		return
	}
	item.Content = append(item.Content, text(key), n)
}

func text(s string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(s)
	return n
}

func value(n *yaml.Node, key string) *yaml.Node {
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// DefaultConfig is the configuration file that counts where none is named: /etc/sealift/config.yaml
// for root, and for others where it is there; else sealift/config.yaml in the user's configuration
// directory, "" where there is no such directory.
func DefaultConfig(getenv func(string) string, euid int, exists func(string) bool) string {
	const system = "/etc/sealift/config.yaml"
	if euid == 0 || exists(system) {
		return system
	}
	dir := getenv("XDG_CONFIG_HOME")
	if dir == "" && getenv("HOME") != "" {
		dir = filepath.Join(getenv("HOME"), ".config")
	}
	if !filepath.IsAbs(dir) {
		return ""
	}
	return filepath.Join(dir, "sealift", "config.yaml")
}
