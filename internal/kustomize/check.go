package kustomize

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"sigs.k8s.io/kustomize/api/konfig"
	"sigs.k8s.io/kustomize/api/types"
)

// check looks for what leads away from this machine in a kustomization: everything that the library
// would fetch with git or HTTP, or run.
func (f *readOnly) check(path string, content []byte) error {
	var k types.Kustomization
	// Both as it is written and with old fields moved to where they are now.
	if err := k.Unmarshal(content); err != nil {
		// The library will say so with its own words: it reads the same bytes in the same way.
		return nil //nolint:nilerr // nothing is built from what it cannot read
	}
	for range 2 {
		if err := f.checkKustomization(path, &k); err != nil {
			return err
		}
		k.FixKustomization()
	}
	return nil
}

func (f *readOnly) checkKustomization(path string, k *types.Kustomization) error {
	if len(k.HelmCharts)+len(k.HelmChartInflationGenerator) > 0 || k.HelmGlobals != nil {
		return &PluginError{path, "helmCharts", "Helm"}
	}
	for _, list := range []struct {
		key   string
		paths []string
	}{
		{"resources", k.Resources},
		{"components", k.Components},
		{"crds", k.Crds},
		{"configurations", k.Configurations},
		{"openapi", []string{k.OpenAPI["path"]}},
	} {
		for _, p := range list.paths {
			if isRemote(p) {
				return &RemoteError{path, list.key, p}
			}
		}
	}
	for _, list := range []struct {
		key     string
		entries []string
	}{{"generators", k.Generators}, {"transformers", k.Transformers}, {"validators", k.Validators}} {
		for _, entry := range list.entries {
			if err := f.checkPlugin(path, list.key, entry); err != nil {
				return err
			}
		}
	}
	for _, p := range slices.Concat(k.Patches, k.PatchesJson6902) { //nolint:staticcheck // what is deprecated is still read
		if isRemote(p.Path) {
			return &RemoteError{path, "patches", p.Path}
		}
	}
	for _, p := range k.PatchesStrategicMerge { //nolint:staticcheck // what is deprecated is still read
		// A path, or the patch itself.
		if isWeb(string(p)) {
			return &RemoteError{path, "patchesStrategicMerge", string(p)}
		}
	}
	for _, r := range k.Replacements {
		if isRemote(r.Path) {
			return &RemoteError{path, "replacements", r.Path}
		}
	}
	for i := range k.ConfigMapGenerator {
		if err := checkSources(path, "configMapGenerator", &k.ConfigMapGenerator[i].KvPairSources); err != nil {
			return err
		}
	}
	for i := range k.SecretGenerator {
		if err := checkSources(path, "secretGenerator", &k.SecretGenerator[i].KvPairSources); err != nil {
			return err
		}
	}
	return nil
}

func checkSources(path, key string, s *types.KvPairSources) error {
	for _, source := range slices.Concat(s.FileSources, s.EnvSources, []string{s.EnvSource}) {
		// As KEY=PATH, or only the path.
		_, file, both := strings.Cut(source, "=")
		if !both {
			file = source
		}
		if isRemote(source) || isRemote(file) {
			return &RemoteError{path, key, source}
		}
	}
	return nil
}

// remoteBegin is how a path begins that the library takes for one of a git repository: more than it
// takes today.
var remoteBegin = regexp.MustCompile(`(?i)\A\s*(?:git::|(?:ssh|git|https?|file|ftp|s3|oci)://|[a-z][a-z0-9-]*@|(?:www\.)?github\.com[/:]|[a-z][a-z0-9+.-]*://)`)

// isRemote tells whether the library would take a path for an address.
func isRemote(path string) bool { return remoteBegin.MatchString(path) || isWeb(path) }

// isWeb is how the library tells files on the web from others.
func isWeb(path string) bool {
	u, err := url.Parse(strings.TrimSpace(path))
	return err == nil && (u.Scheme == "http" || u.Scheme == "https")
}

// checkPlugin looks at what a kustomization has under generators, transformers and validators: the
// configuration of a plugin, or the file that it is in.
func (f *readOnly) checkPlugin(path, key, entry string) error {
	if isRemote(entry) {
		return &RemoteError{path, key, entry}
	}
	file := path
	content := []byte(entry)
	if !isMapping(content) {
		file = filepath.Join(filepath.Dir(path), entry)
		info, err := os.Stat(file)
		if err != nil {
			return nil //nolint:nilerr // the library says it with its own words
		}
		if info.IsDir() {
			// What is built there could become anything before it is used.
			return &PluginError{path, key, fmt.Sprintf("plugins that are built in %q; name their files", entry)}
		}
		// The library follows links, and so the same file has to be meant.
		resolved, err := filepath.EvalSymlinks(file)
		if err != nil {
			return err
		}
		if content, err = f.content(resolved); err != nil {
			return err
		}
	}
	dec := yaml.NewDecoder(bytes.NewReader(content))
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: reading the configuration of a plugin: %w", file, err)
		}
		if err := checkConfig(file, key, &doc); err != nil {
			return err
		}
	}
}

func isMapping(content []byte) bool {
	var doc yaml.Node
	return yaml.Unmarshal(content, &doc) == nil && len(doc.Content) == 1 && doc.Content[0].Kind == yaml.MappingNode
}

// checkConfig refuses plugins that are not a part of the library, and what could be an address.
func checkConfig(file, key string, doc *yaml.Node) error {
	if len(doc.Content) == 0 || doc.Content[0].Tag == "!!null" {
		return nil
	}
	var head struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string `yaml:"kind"`
	}
	if err := doc.Decode(&head); err != nil {
		return fmt.Errorf("%s: reading the configuration of a plugin: %w", file, err)
	}
	if head.APIVersion != konfig.BuiltinPluginApiVersion || strings.HasPrefix(head.Kind, "Helm") {
		return &PluginError{file, key, fmt.Sprintf("the plugin %s %s", head.APIVersion, head.Kind)}
	}
	if address := findAddress(doc, 0); address != "" {
		return &RemoteError{file, key, address}
	}
	return nil
}

// data are the keys below which texts are data, and no paths.
var data = []string{"annotations", "labels", "literals", "metadata", "patch", "sourceValue", "value"}

func findAddress(n *yaml.Node, depth int) string {
	switch {
	case depth > 64 || n.Kind == yaml.AliasNode:
		// Written in a way that nobody needs here: taken for an address.
		return n.Value + " (an alias, or nested too deeply)"
	case n.Kind == yaml.ScalarNode:
		_, after, _ := strings.Cut(n.Value, "=")
		if isWeb(n.Value) || isWeb(after) {
			return n.Value
		}
		return ""
	}
	for i, child := range n.Content {
		if n.Kind == yaml.MappingNode && (i%2 == 0 || slices.Contains(data, n.Content[i-1].Value)) {
			continue
		}
		if address := findAddress(child, depth+1); address != "" {
			return address
		}
	}
	return ""
}
