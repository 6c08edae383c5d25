package bundle

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/strictyaml"
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
	// Expires is a date, to the end of which in UTC sites accept the bundle for the first time, or
	// a time as RFC 3339 has it; empty for never.
	Expires string `yaml:"expires"`
	// Roots is the directory with the vendor's root documents, relative to the spec.
	Roots string `yaml:"roots"`
	// Verify says who must have signed which images.
	Verify []VerifySpec `yaml:"verify"`
	// Referrers is CarryReferrers, or DropReferrers to leave signatures and the like behind.
	Referrers string `yaml:"referrers"`

	// expires is Expires as a manifest has it.
	expires string
	// dir is where relative paths start: the directory of the spec.
	dir string
}

// ImageSpec asks for an image beyond those that charts bring, or says more about one.
type ImageSpec struct {
	Ref string `yaml:"ref"`
	// Platforms replaces those of the bundle for this image.
	Platforms []string `yaml:"platforms"`
	// Verify says who must have signed the image: all of them.
	Verify SignerSpecs `yaml:"verify"`
	// Referrers replaces that of the bundle for this image.
	Referrers string `yaml:"referrers"`

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
type Problem = strictyaml.Problem

// SpecError lists all that is wrong with a spec.
type SpecError struct {
	Path     string
	Problems []Problem
}

// Error has a line "path:line: text" for each problem.
func (e *SpecError) Error() string { return strictyaml.Format(e.Path, e.Problems) }

// LoadSpec reads the spec at path. Errors are *SpecError, or that of opening the file.
func LoadSpec(path string) (_ *Spec, err error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, &SpecError{path, []Problem{{Text: "there is no such file"}}}
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
	s := &Spec{}
	doc, problems := strictyaml.Decode(raw, MaxSpecBytes, s)
	if len(problems) > 0 {
		return nil, problems
	}
	doc.Lines("images", func(i, line int) { s.Images[i].line = line })
	doc.Lines("charts", func(i, line int) { s.Charts[i].line = line })
	doc.Lines("verify", func(i, line int) { s.Verify[i].line = line })
	return s, s.complete(doc)
}

// complete fills in defaults and checks what can be checked without looking elsewhere.
func (s *Spec) complete(doc *strictyaml.Document) []Problem {
	var problems []Problem
	add := func(line int, err error) {
		if err != nil {
			problems = append(problems, Problem{Line: line, Text: err.Error()})
		}
	}
	if s.APIVersion != SpecAPIVersion {
		add(doc.Line("apiVersion"), fmt.Errorf("apiVersion %q, this version reads %q", s.APIVersion, SpecAPIVersion))
	}
	if s.Kind != SpecKind {
		add(doc.Line("kind"), fmt.Errorf("kind %q, want %q", s.Kind, SpecKind))
	}
	add(doc.Line("name"), manifest.CheckName(s.Name))
	add(doc.Line("version"), manifest.CheckVersion(s.Version))
	if s.Channel == "" {
		s.Channel = manifest.DefaultChannel
	}
	if err := manifest.CheckName(s.Channel); err != nil {
		add(doc.Line("channel"), fmt.Errorf("channel: %w", err))
	}
	if len(s.Platforms) == 0 {
		s.Platforms = []string{DefaultPlatform}
	}
	add(doc.Line("platforms"), checkPlatforms(s.Platforms))
	var err error
	s.expires, err = expiry(s.Expires)
	add(doc.Line("expires"), err)
	add(doc.Line("referrers"), checkReferrers(s.Referrers))
	for i := range s.Verify {
		add(s.Verify[i].line, s.Verify[i].check())
	}
	if len(s.Images) == 0 && len(s.Charts) == 0 {
		add(doc.Line(""), errors.New("names neither images nor charts: there is nothing to pack"))
	}
	seen := map[string]int{}
	for i := range s.Images {
		img := &s.Images[i]
		add(img.line, checkPlatforms(img.Platforms))
		add(img.line, checkReferrers(img.Referrers))
		for i := range img.Verify {
			add(img.line, img.Verify[i].check())
		}
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

// RootsDir is where the vendor's root documents are, "" where the spec names no place.
func (s *Spec) RootsDir() string {
	if s.Roots == "" {
		return ""
	}
	return s.file(s.Roots)
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
#    verify: {key: tool.pub}      # besides what is demanded below
#    referrers: drop              # leave its signatures, attestations and SBOMs behind

# Signatures, attestations and SBOMs travel with the images that they are about.
# referrers: carry                # or drop

# Who must have signed which images; a * stands for a part of the name without a slash. Packing
# refuses an image that is not signed so, and the site can check it again.
# verify:
#  - match: registry.example.com/shop/*
#    key: vendor.pub              # in PEM
#  - match: ghcr.io/example/*
#    issuer: https://token.actions.githubusercontent.com
#    subject: https://github.com/example/*/.github/workflows/release.yml@refs/tags/*
#    trustedRoot: trusted_root.json

# After this day no site takes the bundle that has not taken it before.
# expires: 2027-12-31

# The vendor's root documents, N.root.json ('sealift root'): they travel with the signatures.
# roots: ./trust
`
