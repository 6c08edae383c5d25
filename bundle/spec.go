package bundle

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

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
	// maxSpecTokens bounds how much there is in it.
	maxSpecTokens = 400_000
)

// Spec is what a user writes: what to pack.
type Spec struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	Name       string `yaml:"name"`
	Version    string `yaml:"version"`
	Channel    string `yaml:"channel"`
	// Platforms of the images, or AllPlatforms alone.
	Platforms []string    `yaml:"platforms"`
	Images    []ImageSpec `yaml:"images"`
	// IgnoreImages are images that charts name and that are left out.
	IgnoreImages []IgnoreSpec   `yaml:"ignoreImages"`
	Artifacts    []ArtifactSpec `yaml:"artifacts"`
	Charts       []ChartSpec    `yaml:"charts"`
	// Manifests are plain Kubernetes objects. Each item becomes a release, installed before the
	// charts unless it depends on one.
	Manifests []ManifestsSpec `yaml:"manifests"`
	Files     []FileSpec      `yaml:"files"`
	// Kubernetes says for which clusters charts are rendered to find their images.
	Kubernetes KubernetesSpec  `yaml:"kubernetes"`
	Requires   *RequiresSpec   `yaml:"requires"`
	Parameters []ParameterSpec `yaml:"parameters"`
	// Notes is a Markdown file with the release notes.
	Notes string `yaml:"notes"`
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

// AllPlatforms stands for every platform that an image is made for.
const AllPlatforms = "all"

// ImageSpec asks for an image beyond those that charts bring, or says more about one, or lets in
// what charts only probably name.
type ImageSpec struct {
	Ref string `yaml:"ref"`
	// Match is a pattern for references that were found and are only probably images: those that
	// match are packed. It stands alone, without Ref. See Pattern.
	Match string `yaml:"match"`
	// OCI is the path of an OCI image layout (a directory or a tar) or of a docker save archive
	// that the image is read from; Ref is the name that it gets.
	OCI string `yaml:"oci"`
	// Why is for those who read the spec.
	Why string `yaml:"why"`
	// Platforms replaces those of the bundle for this image.
	Platforms []string `yaml:"platforms"`
	// Verify says who must have signed the image: all of them.
	Verify SignerSpecs `yaml:"verify"`
	// Referrers replaces that of the bundle for this image.
	Referrers string `yaml:"referrers"`

	line int
}

// IgnoreSpec leaves out the images that match a pattern.
type IgnoreSpec struct {
	Match string `yaml:"match"`
	// Why is for those who read the spec and the bundle's list of contents.
	Why string `yaml:"why"`

	line int
}

// ArtifactSpec asks for something in a registry that is no image.
type ArtifactSpec struct {
	Ref string `yaml:"ref"`
	// OCI is as for images.
	OCI       string      `yaml:"oci"`
	Verify    SignerSpecs `yaml:"verify"`
	Referrers string      `yaml:"referrers"`

	line int
}

// ChartSpec asks for a chart and says how it is to be installed. Exactly one of Path, OCI, and Repo
// with Chart says where it is.
type ChartSpec struct {
	// Path of a chart directory or .tgz, relative to the spec.
	Path string `yaml:"path"`
	// OCI is "oci://REGISTRY/REPOSITORY", to which Version adds the tag, or with ":TAG" or "@DIGEST".
	OCI string `yaml:"oci"`
	// Repo is the address of a chart repository (http or https), Chart the name of the chart there.
	Repo  string `yaml:"repo"`
	Chart string `yaml:"chart"`
	// Version is a version or a range of versions as Helm has them; for a Path it is compared.
	Version string `yaml:"version"`
	// Verify demands the chart's provenance file.
	Verify *ProvenanceSpec `yaml:"verify"`
	// Release defaults to the chart's name, Namespace to the release.
	Release   string `yaml:"release"`
	Namespace string `yaml:"namespace"`
	// Values are files that travel and are used at the site.
	Values []string `yaml:"values"`
	// Environments are values for kinds of sites, which travel too.
	Environments []EnvironmentSpec `yaml:"environments"`
	// RenderWith are more values files, each used by itself, only to find images.
	RenderWith []string `yaml:"renderWith"`
	// APIVersions are added to those of the spec when this chart is rendered.
	APIVersions []string `yaml:"apiVersions"`
	// DependsOn are releases ("RELEASE", or "NAMESPACE/RELEASE" where that is not clear) that are
	// installed before this one.
	DependsOn      []string            `yaml:"dependsOn"`
	RegistryValues []RegistryValueSpec `yaml:"registryValues"`
	Rollback       string              `yaml:"rollback"`
	Rollout        *RolloutSpec        `yaml:"rollout"`
	Checks         []CheckSpec         `yaml:"checks"`

	line int
}

// ProvenanceSpec says which OpenPGP keys may have signed a chart's provenance file.
type ProvenanceSpec struct {
	// Keyring is the path of the public keys, armored or not.
	Keyring string `yaml:"keyring"`
}

// RegistryValueSpec is a value of the chart that receives the site's registry.
type RegistryValueSpec struct {
	// Path of the value, as "global.imageRegistry".
	Path string `yaml:"path"`
	// Gets is "registry" (the default), "host" or "prefix".
	Gets string `yaml:"gets"`
}

// RolloutSpec is how a new version takes over from the old one.
type RolloutSpec struct {
	// Strategy is "blueGreen" or "canary".
	Strategy string    `yaml:"strategy"`
	Front    FrontSpec `yaml:"front"`
	Steps    []int     `yaml:"steps"`
}

// FrontSpec is the Service or HTTPRoute that leads to the release.
type FrontSpec struct {
	Kind string `yaml:"kind"`
	Name string `yaml:"name"`
	// Service is the name of the chart's Service, with * for the name of the release; it defaults to the only one.
	Service string `yaml:"service"`
	// Object is the path of a YAML file with one HTTPRoute.
	Object string `yaml:"object"`
}

// CheckSpec is a health check; exactly one of HTTP, TCP and Job is there.
type CheckSpec struct {
	Name string         `yaml:"name"`
	HTTP *CheckHTTPSpec `yaml:"http"`
	TCP  *CheckTCPSpec  `yaml:"tcp"`
	// Job is the path of a YAML file with one Job.
	Job string `yaml:"job"`
	// Timeout is a duration such as 2m30s, in whole seconds.
	Timeout string `yaml:"timeout"`
}

// CheckHTTPSpec asks a Service of the release's namespace.
type CheckHTTPSpec struct {
	Service string `yaml:"service"`
	Port    int    `yaml:"port"`
	Path    string `yaml:"path"`
	Status  int    `yaml:"status"`
	TLS     bool   `yaml:"tls"`
}

// CheckTCPSpec connects to a Service of the release's namespace.
type CheckTCPSpec struct {
	Service string `yaml:"service"`
	Port    int    `yaml:"port"`
}

// ManifestsSpec is a set of plain Kubernetes objects that is installed as a release of its own.
type ManifestsSpec struct {
	// Path of a YAML file, of a directory of them, or of a directory with a kustomization, which
	// is built when the bundle is packed.
	Path string `yaml:"path"`
	// Name of the set, and of its release: by default the name of the file or directory.
	Name string `yaml:"name"`
	// Namespace for objects that name none; default: the name.
	Namespace string      `yaml:"namespace"`
	DependsOn []string    `yaml:"dependsOn"`
	Rollback  string      `yaml:"rollback"`
	Checks    []CheckSpec `yaml:"checks"`

	line int
}

// FileSpec is a file, or a directory with all that is in it.
type FileSpec struct {
	Path string `yaml:"path"`
	// Name is the path that it gets in the bundle; default: the last element of Path.
	Name string `yaml:"name"`

	line int
}

// KubernetesSpec says for which clusters charts are rendered.
type KubernetesSpec struct {
	// Versions, as "1.34" or "v1.34.2"; charts are rendered for each.
	Versions []string `yaml:"versions"`
	// APIVersions that the cluster has beside those of Kubernetes itself, as
	// "monitoring.coreos.com/v1" or "monitoring.coreos.com/v1/ServiceMonitor".
	APIVersions []string `yaml:"apiVersions"`
}

// RequiresSpec is what the site must have.
type RequiresSpec struct {
	Kubernetes     string    `yaml:"kubernetes"`
	UpgradeFrom    string    `yaml:"upgradeFrom"`
	Nodes          NodesSpec `yaml:"nodes"`
	StorageClasses []string  `yaml:"storageClasses"`
	APIGroups      []string  `yaml:"apiGroups"`
}

// NodesSpec is what all nodes together must offer, and of which architectures there must be some.
type NodesSpec struct {
	CPU           string   `yaml:"cpu"`
	Memory        string   `yaml:"memory"`
	Architectures []string `yaml:"architectures"`
}

// ParameterSpec is something that the site says.
type ParameterSpec struct {
	Name        string               `yaml:"name"`
	Description string               `yaml:"description"`
	Type        string               `yaml:"type"`
	Default     *string              `yaml:"default"`
	Required    bool                 `yaml:"required"`
	Secret      bool                 `yaml:"secret"`
	Pattern     string               `yaml:"pattern"`
	Enum        []string             `yaml:"enum"`
	Values      []ParameterValueSpec `yaml:"values"`

	line int
}

// ParameterValueSpec is a value of a chart that receives a parameter.
type ParameterValueSpec struct {
	// Release as in DependsOn; it may be left out where the spec has one chart.
	Release string `yaml:"release"`
	Path    string `yaml:"path"`
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
	if problems := tooMany(raw, maxSpecTokens); len(problems) > 0 {
		return nil, problems
	}
	s := &Spec{}
	doc, problems := strictyaml.Decode(raw, MaxSpecBytes, s)
	if len(problems) > 0 {
		return nil, fewer(problems)
	}
	doc.Lines("images", func(i, line int) { s.Images[i].line = line })
	doc.Lines("ignoreImages", func(i, line int) { s.IgnoreImages[i].line = line })
	doc.Lines("artifacts", func(i, line int) { s.Artifacts[i].line = line })
	doc.Lines("charts", func(i, line int) { s.Charts[i].line = line })
	doc.Lines("manifests", func(i, line int) { s.Manifests[i].line = line })
	doc.Lines("files", func(i, line int) { s.Files[i].line = line })
	doc.Lines("parameters", func(i, line int) { s.Parameters[i].line = line })
	doc.Lines("verify", func(i, line int) { s.Verify[i].line = line })
	return s, s.complete(doc)
}

// completion fills in the defaults of a spec and collects what is wrong with it.
type completion struct {
	*Spec
	doc      *strictyaml.Document
	problems []Problem
}

// at adds a problem, if there is one, with the line of a value: see [strictyaml.Document.At].
func (c *completion) at(err error, path ...any) {
	if err != nil {
		c.problems = append(c.problems, Problem{Line: c.doc.At(path...), Text: err.Error()})
	}
}

// twice remembers where a thing stands, and says so where it stands there already.
func (c *completion) twice(seen map[string]int, key, what string, path ...any) {
	line := c.doc.At(path...)
	if first, twice := seen[key]; twice {
		c.at(fmt.Errorf("%s stands here for the second time, first on line %d", what, first), path...)
		return
	}
	seen[key] = line
}

// complete fills in defaults and checks what can be checked without looking elsewhere.
func (s *Spec) complete(doc *strictyaml.Document) []Problem {
	c := &completion{Spec: s, doc: doc}
	if s.APIVersion != SpecAPIVersion {
		c.at(fmt.Errorf("apiVersion %q, this version reads %q", s.APIVersion, SpecAPIVersion), "apiVersion")
	}
	if s.Kind != SpecKind {
		c.at(fmt.Errorf("kind %q, want %q", s.Kind, SpecKind), "kind")
	}
	c.at(manifest.CheckName(s.Name), "name")
	c.at(manifest.CheckVersion(s.Version), "version")
	if s.Channel == "" {
		s.Channel = manifest.DefaultChannel
	}
	if err := manifest.CheckName(s.Channel); err != nil {
		c.at(fmt.Errorf("channel: %w", err), "channel")
	}
	if len(s.Platforms) == 0 {
		s.Platforms = []string{DefaultPlatform}
	}
	c.at(checkPlatforms(s.Platforms), "platforms")
	var err error
	s.expires, err = expiry(s.Expires)
	c.at(err, "expires")
	c.at(checkReferrers(s.Referrers), "referrers")
	for i := range s.Verify {
		c.at(s.Verify[i].check(), "verify", i)
	}
	if !s.hasContent() {
		c.at(errors.New("names no images, artifacts, charts, manifests or files: there is nothing to pack"))
	}
	c.images()
	c.artifacts()
	c.charts()
	c.manifests()
	c.releases()
	c.files()
	c.kubernetes()
	c.requires()
	c.parameters()
	slices.SortStableFunc(c.problems, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
	return c.problems
}

// hasContent tells whether there is something to pack. Patterns alone bring nothing.
func (s *Spec) hasContent() bool {
	images := slices.ContainsFunc(s.Images, func(i ImageSpec) bool { return i.Match == "" })
	return images || len(s.Artifacts)+len(s.Charts)+len(s.Manifests)+len(s.Files) > 0
}

func checkPlatforms(platforms []string) error {
	if slices.Contains(platforms, AllPlatforms) {
		if len(platforms) > 1 {
			return fmt.Errorf("platforms: %q stands alone, it means every platform that an image is made for", AllPlatforms)
		}
		return nil
	}
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
# All keys: docs/spec.md. For editors: docs/sealift.schema.json.
apiVersion: sealift/v1
kind: Bundle

# The bundle will be NAME-VERSION.tar.zst. The version is a semantic one. Once it is published,
# its content never changes: raise it instead.
name: %s
version: 0.1.0

# Platforms of the images, or [all]; an image that lacks one is an error.
platforms: [linux/amd64]

# Charts are rendered to find their images, and installed in this order.
charts: []
#  - path: ./charts/shop          # a chart directory or a .tgz
#    release: shop                # default: the chart's name
#    namespace: shop              # default: the release
#    values: [values.yaml]        # travel, and are used at the site
#    environments:                # values of which a site chooses one set, with --environment
#      - {name: staging, values: [staging.yaml]}
#    renderWith: [all-on.yaml]    # more values, each used only to find images
#    dependsOn: [db]              # installed after that release
#    registryValues:              # values that receive the site's registry
#      - path: global.imageRegistry
#    rollback: safe               # or manual, forbidden
#    checks:
#      - name: answers
#        http: {service: shop, port: 80, path: /healthz}
#  - oci: oci://registry.example.com/charts/db
#    version: ^1.2                # a version or a range; the lock keeps what was chosen
#  - repo: https://charts.example.com/stable
#    chart: cache
#    version: 3.1.4

# Images beyond those that the charts bring.
images: []
#  - ref: registry.example.com/shop/tool:1.3
#    verify: {key: tool.pub}      # besides what is demanded below
#    referrers: drop              # leave its signatures, attestations and SBOMs behind
#  - ref: registry.example.com/shop/api:2.4.0
#    oci: ./out/api.tar           # from an OCI image layout or a docker save archive
#  - match: registry.example.com/shop/**  # let in what charts only probably name

# Images that the content names and that are left out.
# ignoreImages:
#  - match: registry.example.com/shop/demo
#    why: only in the demo, which is off

# What registries hold beside images: models, WASM modules, policies.
# artifacts:
#  - ref: registry.example.com/shop/model:3

# Plain Kubernetes objects: files, directories, kustomizations. Installed before the charts.
# manifests:
#  - path: ./crds

# Whatever else the site needs, and the release notes.
# files:
#  - path: ./runbook.pdf
# notes: CHANGES.md

# The clusters that charts are rendered for.
# kubernetes:
#   versions: ["1.34", "1.35"]
#   apiVersions: [monitoring.coreos.com/v1]

# What the site must have.
# requires:
#   kubernetes: ">=1.30"
#   upgradeFrom: ">=0.1.0"
#   nodes: {cpu: 4, memory: 8Gi}
#   storageClasses: ["*"]         # a default one

# What the site may, or must, say.
# parameters:
#  - name: host
#    description: the name under which users reach the shop
#    required: true
#    values:
#      - {release: shop, path: ingress.host}

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
