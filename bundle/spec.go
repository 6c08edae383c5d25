package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/manifest"
)

// The apiVersion and kind of a spec.
const (
	SpecAPIVersion = "sealift/v1"
	SpecKind       = "Bundle"
	// DefaultPlatform is packed where a spec names no platforms.
	DefaultPlatform = "linux/amd64"
	// MaxSpecBytes bounds a spec file.
	MaxSpecBytes = 4 << 20
)

// Spec is what a user writes: what to pack.
type Spec struct {
	APIVersion string      `yaml:"apiVersion"`
	Kind       string      `yaml:"kind"`
	Name       string      `yaml:"name"`
	Version    string      `yaml:"version"`
	Channel    string      `yaml:"channel"`
	Platforms  []string    `yaml:"platforms"`
	Images     []ImageSpec `yaml:"images"`
	Charts     []ChartSpec `yaml:"charts"`

	// dir is where relative paths start: the directory of the spec.
	dir string
}

// ImageSpec asks for an image beyond those that charts bring, or says more about one.
type ImageSpec struct {
	Ref string `yaml:"ref"`
	// Platforms replaces those of the bundle for this image.
	Platforms []string `yaml:"platforms"`

	line int
}

// ChartSpec asks for a chart and says how it is to be installed.
type ChartSpec struct {
	// Path of a chart directory or .tgz, relative to the spec.
	Path string `yaml:"path"`
	// Release defaults to the chart's name, Namespace to the release.
	Release   string `yaml:"release"`
	Namespace string `yaml:"namespace"`
	// Values are files that travel and are used at the site.
	Values []string `yaml:"values"`
	// RenderWith are more values files, each used by itself, only to find images.
	RenderWith []string `yaml:"renderWith"`

	line int
}

// Problem is one thing that is wrong with a spec.
type Problem struct {
	Line int
	Text string
}

// SpecError lists all that is wrong with a spec.
type SpecError struct {
	Path     string
	Problems []Problem
}

// Error has a line "path:line: text" for each problem.
func (e *SpecError) Error() string {
	lines := make([]string, 0, len(e.Problems))
	for _, p := range e.Problems {
		if p.Line > 0 {
			lines = append(lines, fmt.Sprintf("%s:%d: %s", e.Path, p.Line, p.Text))
		} else {
			lines = append(lines, fmt.Sprintf("%s: %s", e.Path, p.Text))
		}
	}
	return strings.Join(lines, "\n")
}

// LoadSpec reads the spec at path. Errors are *SpecError, or that of opening the file.
func LoadSpec(path string) (_ *Spec, err error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, &SpecError{path, []Problem{{0, "there is no such file"}}}
	}
	if err != nil {
		return nil, fmt.Errorf("reading spec: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	raw, err := io.ReadAll(io.LimitReader(f, MaxSpecBytes+1))
	if err != nil {
		return nil, fmt.Errorf("reading spec %q: %w", path, err)
	}
	s, problems := parseSpec(raw)
	if len(problems) > 0 {
		return nil, &SpecError{path, problems}
	}
	s.dir = filepath.Dir(path)
	return s, nil
}

func parseSpec(raw []byte) (*Spec, []Problem) {
	if len(raw) > MaxSpecBytes {
		return nil, []Problem{{0, fmt.Sprintf("more than %d bytes", MaxSpecBytes)}}
	}
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, []Problem{{0, "is empty"}}
		}
		return nil, []Problem{yamlProblem(strings.TrimPrefix(err.Error(), "yaml: "))}
	}
	root := doc.Content[0]
	var more yaml.Node
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, []Problem{{more.Line, "holds more than one document"}}
	}
	s := &Spec{}
	if problems := unknownKeys(root, reflect.TypeOf(*s), "", 0); len(problems) > 0 {
		return nil, problems
	}
	if err := root.Decode(s); err != nil {
		var t *yaml.TypeError
		if errors.As(err, &t) {
			var problems []Problem
			for _, text := range t.Errors {
				problems = append(problems, yamlProblem(text))
			}
			return nil, problems
		}
		return nil, []Problem{{0, err.Error()}}
	}
	number(root, "images", func(i, line int) { s.Images[i].line = line })
	number(root, "charts", func(i, line int) { s.Charts[i].line = line })
	return s, s.complete(root)
}

// yamlProblem takes the line number out of the library's words.
func yamlProblem(text string) Problem {
	p := Problem{0, text}
	if n, err := fmt.Sscanf(text, "line %d:", &p.Line); n == 1 && err == nil {
		_, p.Text, _ = strings.Cut(text, ": ")
	}
	return p
}

// number tells the lines on which the items of a list begin.
func number(root *yaml.Node, key string, set func(i, line int)) {
	if list := child(root, key); list != nil && list.Kind == yaml.SequenceNode {
		for i, item := range list.Content {
			set(i, item.Line)
		}
	}
}

func child(n *yaml.Node, key string) *yaml.Node {
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// unknownKeys compares the keys of n with the fields of t, all the way down.
func unknownKeys(n *yaml.Node, t reflect.Type, where string, depth int) []Problem {
	if depth > 16 {
		return []Problem{{n.Line, "is nested too deeply"}}
	}
	switch t.Kind() {
	case reflect.Slice:
		var problems []Problem
		if n.Kind == yaml.SequenceNode {
			for i, item := range n.Content {
				problems = append(problems, unknownKeys(item, t.Elem(), fmt.Sprintf("%s[%d]", where, i), depth+1)...)
			}
		}
		return problems
	case reflect.Struct:
	default:
		return nil
	}
	if n.Kind == yaml.AliasNode {
		return []Problem{{n.Line, fmt.Sprintf("%s is an alias; write it out", where)}}
	}
	if n.Kind != yaml.MappingNode {
		if where == "" {
			where = "the document"
		}
		return []Problem{{n.Line, where + " is not a mapping of keys to values"}}
	}
	known := map[string]reflect.Type{}
	var names []string
	for i := range t.NumField() {
		if tag := t.Field(i).Tag.Get("yaml"); tag != "" {
			known[tag] = t.Field(i).Type
			names = append(names, tag)
		}
	}
	var problems []Problem
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		path := strings.TrimPrefix(where+"."+k.Value, ".")
		if first, twice := seen[k.Value]; twice {
			problems = append(problems, Problem{k.Line, fmt.Sprintf("%q stands here for the second time, first on line %d", path, first)})
			continue
		}
		seen[k.Value] = k.Line
		ft, ok := known[k.Value]
		if !ok {
			problems = append(problems, Problem{k.Line, fmt.Sprintf("unknown key %q; known here: %s", path, strings.Join(names, ", "))})
			continue
		}
		problems = append(problems, unknownKeys(n.Content[i+1], ft, path, depth+1)...)
	}
	return problems
}

// complete fills in defaults and checks what can be checked without looking elsewhere.
func (s *Spec) complete(root *yaml.Node) []Problem {
	var problems []Problem
	add := func(line int, err error) {
		if err != nil {
			problems = append(problems, Problem{line, err.Error()})
		}
	}
	at := func(key string) int {
		if n := child(root, key); n != nil {
			return n.Line
		}
		return root.Line
	}
	if s.APIVersion != SpecAPIVersion {
		add(at("apiVersion"), fmt.Errorf("apiVersion %q, this version reads %q", s.APIVersion, SpecAPIVersion))
	}
	if s.Kind != SpecKind {
		add(at("kind"), fmt.Errorf("kind %q, want %q", s.Kind, SpecKind))
	}
	add(at("name"), manifest.CheckName(s.Name))
	add(at("version"), manifest.CheckVersion(s.Version))
	if s.Channel == "" {
		s.Channel = manifest.DefaultChannel
	}
	if err := manifest.CheckName(s.Channel); err != nil {
		add(at("channel"), fmt.Errorf("channel: %w", err))
	}
	if len(s.Platforms) == 0 {
		s.Platforms = []string{DefaultPlatform}
	}
	add(at("platforms"), checkPlatforms(s.Platforms))
	if len(s.Images) == 0 && len(s.Charts) == 0 {
		add(root.Line, errors.New("names neither images nor charts: there is nothing to pack"))
	}
	seen := map[string]int{}
	for i := range s.Images {
		img := &s.Images[i]
		add(img.line, checkPlatforms(img.Platforms))
		if img.Ref == "" {
			add(img.line, fmt.Errorf("images[%d] has no ref", i))
			continue
		}
		ref, err := oci.ParseReference(img.Ref)
		var r *oci.ReferenceError
		if errors.As(err, &r) && r.Proposal != "" {
			err = fmt.Errorf("%w; write %q if that is what you mean", err, r.Proposal)
		}
		add(img.line, err)
		if first, twice := seen[ref.String()]; twice && err == nil {
			add(img.line, fmt.Errorf("image %q stands here for the second time, first on line %d", img.Ref, first))
		}
		seen[ref.String()] = img.line
	}
	for i := range s.Charts {
		c := &s.Charts[i]
		if c.Path == "" {
			add(c.line, fmt.Errorf("charts[%d] has no path", i))
		}
		if c.Release != "" {
			add(c.line, manifest.CheckRelease(c.Release))
		}
		if c.Namespace != "" {
			add(c.line, manifest.CheckNamespace(c.Namespace))
		}
	}
	return problems
}

func checkPlatforms(platforms []string) error {
	for i, p := range platforms {
		if err := manifest.CheckPlatform(p); err != nil {
			return err
		}
		if slices.Contains(platforms[:i], p) {
			return fmt.Errorf("platform %q stands twice", p)
		}
	}
	return nil
}

// file returns where a path in the spec leads.
func (s *Spec) file(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(s.dir, filepath.FromSlash(path))
}

// SampleSpec is what sealift init writes.
const SampleSpec = `# sealift.yaml: what to pack. Every path is relative to this file.
apiVersion: sealift/v1
kind: Bundle

# The bundle will be NAME-VERSION.tar.zst. The version is a semantic one. Once it is published,
# its content never changes: raise it instead.
name: %s
version: 0.1.0

# Platforms of the images; an image that lacks one is an error.
platforms: [linux/amd64]

# Charts are rendered to find their images, and installed in this order.
charts: []
#  - path: ./charts/shop          # a chart directory or a .tgz
#    release: shop                # default: the chart's name
#    namespace: shop              # default: the release
#    values: [values.yaml]        # travel, and are used at the site
#    renderWith: [all-on.yaml]    # more values, each used only to find images

# Images beyond those that the charts bring.
images: []
#  - ref: registry.example.com/shop/tool:1.3
`
