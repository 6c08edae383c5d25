package bundle

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/internal/progress"
	"github.com/sealift/sealift/manifest"
)

// fetching is how many charts are fetched at the same time.
const fetching = 8

// Options of Discover and Resolve.
type Options struct {
	// Client reaches the source registries.
	Client *oci.Client
	// Repositories speaks with chart repositories.
	Repositories *http.Client
	// Local are asked for what is pinned to a digest before any registry is.
	Local []*oci.Local
	// Created is what the manifest says about its time, as RFC 3339 in UTC.
	Created string
	// Lock pins what the spec leads to; nil for none. What it does not name is looked for.
	Lock *Lock
	// CheckTags asks the registries whether tags that the lock pins lead elsewhere by now.
	CheckTags bool
	Progress  progress.Reporter
}

// gathered is all that a spec leads to before registries are asked for images: charts, and what
// they, and the spec, name.
type gathered struct {
	spec *Spec
	o    Options

	releases []*packedRelease
	want     map[string]*wanted
	survey   Discovery
	// artifacts are wanted beside images.
	artifacts map[string]*wanted
	files     []manifest.File
	notes     *manifest.Descriptor
	blobs     []manifest.Blob
	sources   map[string]source
	lock      *Lock
}

// packedRelease is a chart, or a set of plain objects, and the release that it becomes.
type packedRelease struct {
	manifest.Chart
	chart   *chart.Chart
	values  []chart.ValuesFile
	merged  map[string]any
	fetched *chart.Fetched
	// from is where it comes from, as the spec has it.
	from        string
	apiVersions []string
	variants    []chart.ValuesFile
	// environments are in the order of the spec.
	environments []packedEnvironment
	dependsOn    []string
	jobs         [][]byte
	jobFiles     []string
	// front is the object of the front, from frontFile.
	front     []byte
	frontFile string
	blobs     []manifest.Blob
	line      int
}

// gather brings the charts, finds what they name, and reads what else lies on this machine.
func gather(ctx context.Context, s *Spec, o Options) (*gathered, error) {
	g := &gathered{
		spec: s, o: o, want: map[string]*wanted{}, artifacts: map[string]*wanted{}, sources: map[string]source{},
		lock: &Lock{Created: o.Created},
	}
	if err := g.addSpecImages(); err != nil {
		return nil, err
	}
	if err := g.fetchReleases(ctx); err != nil {
		return nil, err
	}
	if err := g.sortReleases(); err != nil {
		return nil, err
	}
	if err := g.describeSite(); err != nil {
		return nil, err
	}
	if err := g.checkRollouts(ctx); err != nil {
		return nil, err
	}
	if err := g.discover(ctx); err != nil {
		return nil, err
	}
	if err := g.addFiles(ctx); err != nil {
		return nil, err
	}
	return g, g.lockSigners()
}

// addSpecImages takes in what the spec names itself.
func (g *gathered) addSpecImages() error {
	s := g.spec
	for i := range s.Images {
		img := &s.Images[i]
		if img.Ref == "" {
			continue
		}
		ref, err := oci.ParseReference(img.Ref)
		if err != nil {
			return err
		}
		w := &wanted{ref: ref, platforms: s.Platforms, reasons: []manifest.Reason{{Kind: manifest.ReasonSpec}}, local: img.OCI}
		if len(img.Platforms) > 0 {
			w.platforms = img.Platforms
		}
		g.want[ref.String()] = w
	}
	for i := range s.Artifacts {
		a := &s.Artifacts[i]
		ref, err := oci.ParseReference(a.Ref)
		if err != nil {
			return err
		}
		g.artifacts[ref.String()] = &wanted{ref: ref, artifact: true, reasons: []manifest.Reason{{Kind: manifest.ReasonSpec}}, local: a.OCI}
	}
	return nil
}

// keep takes in a blob that is in memory.
func (g *gathered) keep(content []byte, mediaType string) manifest.Descriptor {
	d := manifest.Descriptor{Digest: manifest.Digest(content), MediaType: mediaType, Size: int64(len(content))}
	g.sources[d.Digest] = source{content: content}
	return d
}

// fetchReleases brings all charts and plain objects, several at a time.
func (g *gathered) fetchReleases(ctx context.Context) error {
	s := g.spec
	// Plain objects come before the charts, which may need them.
	g.releases = make([]*packedRelease, len(s.Manifests)+len(s.Charts))
	for i := range s.Manifests {
		p, err := g.plain(&s.Manifests[i])
		if err != nil {
			var named *ManifestsError
			if !errors.As(err, &named) {
				err = &ManifestsError{s.Manifests[i].Path, err}
			}
			return err
		}
		g.releases[i] = p
	}
	fetcher := &chart.Fetcher{HTTP: g.o.Repositories, OCI: &chartRegistries{client: g.o.Client, local: g.o.Local}}
	task := g.o.Progress.Start("reading charts", int64(len(s.Charts)), progress.Items)
	defer task.Done()
	eg, gctx := errgroup.WithContext(ctx)
	eg.SetLimit(fetching)
	for i := range s.Charts {
		eg.Go(func() error {
			c := &s.Charts[i]
			p, err := g.fetch(gctx, fetcher, c)
			if err != nil {
				return &ChartError{c.identity(), c.line, err}
			}
			g.releases[len(s.Manifests)+i] = p
			task.Add(1)
			task.Note(c.identity() + " " + p.Version)
			return nil
		})
	}
	if err := eg.Wait(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return err
	}
	for i, p := range g.releases {
		if err := g.addChartBlobs(p); err != nil {
			return &ChartError{p.from, p.line, err}
		}
		if at := i - len(s.Manifests); at >= 0 {
			g.lockChart(p, &s.Charts[at])
		}
		for i, job := range p.jobs {
			g.lockFile(p.jobFiles[i], job)
		}
		if p.front != nil {
			g.lockFile(p.frontFile, p.front)
		}
	}
	releases := map[string]*packedRelease{}
	charts := map[string]*packedRelease{}
	for _, p := range g.releases {
		if first := releases[p.Key()]; first != nil {
			return &ChartError{p.from, p.line, fmt.Errorf("release %q is that of the chart on line %d already", p.Key(), first.line)}
		}
		releases[p.Key()] = p
		// Charts lie in the site's registry by name and version.
		name := strings.ToLower(p.Name) + ":" + p.Version
		if first := charts[name]; first != nil && first.Archive.Digest != p.Archive.Digest {
			return &ChartError{p.from, p.line, fmt.Errorf("chart %s %s is on line %d already, with another content", p.Name, p.Version, first.line)}
		}
		charts[name] = p
	}
	return nil
}

// identity is how a spec, and its lock, call a chart.
func (c *ChartSpec) identity() string {
	switch {
	case c.OCI != "":
		return c.OCI
	case c.Repo != "":
		return c.Repo + " " + c.Chart
	}
	return c.Path
}

// fetch brings one chart.
func (g *gathered) fetch(ctx context.Context, fetcher *chart.Fetcher, c *ChartSpec) (*packedRelease, error) {
	at := chart.Location{OCI: c.OCI, Repo: c.Repo, Name: c.Chart, Version: c.Version}
	if c.Path != "" {
		at.Path = g.spec.file(c.Path)
	}
	if c.Verify != nil {
		var err error
		if at.Keyring, err = g.spec.readSigner("keyring", c.Verify.Keyring, chart.MaxKeyring); err != nil {
			return nil, err
		}
	}
	locked := g.lockedChart(c)
	if locked != nil {
		at.Dependencies = locked.Dependencies
		if c.Path == "" {
			// A directory is what it is now; that it is not what was locked makes the lock stale.
			at.Pinned, at.Version = locked.Digest, locked.Version
		}
		if c.OCI != "" && locked.Manifest != "" && !strings.Contains(c.OCI, "@") {
			at.OCI = c.OCI + "@" + locked.Manifest
		}
	}
	f, err := fetcher.Fetch(ctx, at)
	if err != nil {
		return nil, err
	}
	if locked != nil && c.Path == "" {
		if err := pinProvenance(f, locked, c.Verify != nil); err != nil {
			return nil, err
		}
	}
	p := &packedRelease{
		fetched: f, chart: f.Chart, from: c.identity(), line: c.line, dependsOn: c.DependsOn,
		apiVersions: slices.Concat(g.spec.Kubernetes.APIVersions, c.APIVersions),
	}
	p.Chart = manifest.Chart{
		Name: f.Name, Version: f.Version, AppVersion: f.AppVersion, Source: f.Source, SignedBy: f.SignedBy,
		Release: cmp.Or(c.Release, f.Name), RegistryValues: registryValues(c.RegistryValues), Rollback: c.Rollback, Rollout: rollout(c.Rollout),
	}
	if repository, _, pinned := strings.Cut(c.OCI, "@"); c.OCI != "" && !pinned {
		// The same words, locked or not.
		if at := strings.LastIndexByte(repository, ':'); at > strings.LastIndexByte(repository, '/') {
			repository = repository[:at]
		}
		p.Source = repository + ":" + strings.ReplaceAll(f.Version, "+", "_")
	}
	p.Namespace = cmp.Or(c.Namespace, p.Release)
	if err := errors.Join(manifest.CheckRelease(p.Release), manifest.CheckNamespace(p.Namespace)); err != nil {
		return nil, err
	}
	for _, path := range c.Values {
		v, err := readValues(g.spec.file(path), path)
		if err != nil {
			return nil, err
		}
		p.values = append(p.values, v)
	}
	for _, path := range c.RenderWith {
		v, err := readValues(g.spec.file(path), path)
		if err != nil {
			return nil, err
		}
		v.Name = path
		p.variants = append(p.variants, v)
	}
	if err := g.addEnvironments(p, c.Environments); err != nil {
		return nil, err
	}
	if p.merged, err = chart.MergeValues(p.values); err != nil {
		return nil, err
	}
	if err := g.addChecks(p, c.Checks); err != nil {
		return nil, err
	}
	if err := g.addFront(p, c.Rollout); err != nil {
		return nil, err
	}
	return p, nil
}

// plain makes a release of plain Kubernetes objects.
func (g *gathered) plain(m *ManifestsSpec) (*packedRelease, error) {
	docs, err := readObjects(g.spec.file(m.Path))
	if err != nil {
		return nil, err
	}
	// Its version is that of its content, so that an unchanged set is the same chart in every bundle.
	c, err := chart.FromObjects(m.Name, "0.0.0-x"+manifest.Digest(docs)[len("sha256:"):][:12], docs)
	if err != nil {
		return nil, err
	}
	p := &packedRelease{
		fetched: &chart.Fetched{Chart: c}, chart: c, from: m.Path, line: m.line, dependsOn: m.DependsOn, merged: map[string]any{},
		Chart: manifest.Chart{
			Name: c.Name, Version: c.Version, AppVersion: c.AppVersion, Plain: true, Release: m.Name,
			Namespace: m.Namespace, Rollback: m.Rollback,
		},
	}
	// What is locked is what comes out of it, under another name than the file itself would have.
	g.lockFile(m.Path+lockedRendered, docs)
	return p, g.addChecks(p, m.Checks)
}

// addChecks takes in the health checks of a release, with the objects that they need.
func (g *gathered) addChecks(p *packedRelease, checks []CheckSpec) error {
	for i := range checks {
		c := &checks[i]
		mc := c.check()
		if c.Job != "" {
			raw, err := readBounded(g.spec.file(c.Job), manifest.MaxJobBytes)
			if err != nil {
				return fmt.Errorf("reading the job of check %q: %w", c.Name, err)
			}
			if err := chart.CheckJob(raw); err != nil {
				return fmt.Errorf("check %q, %q: %w", c.Name, c.Job, err)
			}
			p.jobs, p.jobFiles = append(p.jobs, raw), append(p.jobFiles, c.Job)
			d := manifest.Descriptor{Digest: manifest.Digest(raw), MediaType: manifest.MediaTypeObjects, Size: int64(len(raw))}
			mc.Job = &d
		}
		p.Checks = append(p.Checks, mc)
	}
	return nil
}

// sortReleases puts the releases in the order in which they are installed.
func (g *gathered) sortReleases() error {
	nodes := make([]releaseNode, len(g.releases))
	for i, p := range g.releases {
		nodes[i] = releaseNode{release: p.Release, namespace: p.Namespace, dependsOn: p.dependsOn, line: p.line}
	}
	order, dependsOn, err := sortReleases(nodes)
	if err != nil {
		return err
	}
	sorted := make([]*packedRelease, 0, len(order))
	for _, i := range order {
		g.releases[i].DependsOn = dependsOn[i]
		sorted = append(sorted, g.releases[i])
	}
	g.releases = sorted
	return nil
}

// release finds the release of a chart that a spec means by "RELEASE" or "NAMESPACE/RELEASE"; by ""
// the only one that there is. Plain objects have no values. Errors are *ReleaseNameError.
func (g *gathered) release(name string) (string, error) {
	var charts []releaseNode
	for _, p := range g.releases {
		if !p.Plain {
			charts = append(charts, releaseNode{release: p.Release, namespace: p.Namespace})
		}
	}
	if name == "" && len(charts) == 1 {
		return charts[0].name(), nil
	}
	i, err := resolveRelease(charts, name)
	if err != nil {
		return "", err
	}
	return charts[i].name(), nil
}

// describeSite checks what the site has to say against the schemas of the charts.
func (g *gathered) describeSite() error {
	params, err := g.spec.parameters(g.release)
	if err != nil {
		return err
	}
	g.survey.parameters = params
	if err := g.oneReceiver(params); err != nil {
		return err
	}
	for _, p := range g.releases {
		if p.Plain {
			continue
		}
		warnings, err := checkSiteValues(p.chart, p.merged, params, p.Key(), p.RegistryValues)
		if err != nil {
			return &ChartError{p.from, p.line, err}
		}
		for _, w := range warnings {
			g.survey.Warnings = append(g.survey.Warnings, fmt.Sprintf("release %s: %s", p.Key(), w))
		}
	}
	return nil
}

// oneReceiver checks that no value gets both a parameter and the site's registry.
func (g *gathered) oneReceiver(params []manifest.Parameter) error {
	registry := map[manifest.ParameterValue]bool{}
	for _, p := range g.releases {
		for _, v := range p.RegistryValues {
			registry[manifest.ParameterValue{Release: p.Key(), Path: v.Path}] = true
		}
	}
	for i := range params {
		for _, v := range params[i].Values {
			if registry[v] {
				return &ParameterError{params[i].Name, g.spec.Parameters[i].line, fmt.Errorf("value %q of release %q gets the site's registry already (registryValues)", v.Path, v.Release)}
			}
		}
	}
	return nil
}

// addFiles takes in files and notes.
func (g *gathered) addFiles(ctx context.Context) error {
	s := g.spec
	for i := range s.Files {
		f := &s.Files[i]
		list, err := listFiles(s.file(f.Path), f.Name)
		if err != nil {
			return &FileSpecError{f.Path, f.line, err}
		}
		for _, l := range list {
			d, err := digestFile(ctx, l.path)
			if err != nil {
				return &FileSpecError{f.Path, f.line, err}
			}
			g.files = append(g.files, manifest.File{Name: l.name, Digest: d.Digest, Size: d.Size, Executable: l.executable})
			g.blobs = append(g.blobs, stored(d))
			if _, known := g.sources[d.Digest]; !known {
				g.sources[d.Digest] = source{path: l.path}
			}
			locked := filepath.ToSlash(f.Path)
			if l.below != "" {
				locked = path.Join(locked, l.below)
			}
			g.lockPath(LockedFile{Path: locked, Digest: d.Digest, Executable: l.executable})
		}
	}
	slices.SortFunc(g.files, func(a, b manifest.File) int { return strings.Compare(a.Name, b.Name) })
	names := map[string]string{}
	for _, f := range g.files {
		// Some file systems do not tell upper case from lower.
		key := strings.ToLower(f.Name)
		if first, twice := names[key]; twice {
			return &FileSpecError{f.Name, 0, fmt.Errorf("it would get the name of %q", first)}
		}
		names[key] = f.Name
	}
	if s.Notes == "" {
		return nil
	}
	raw, err := readBounded(s.file(s.Notes), manifest.MaxNotesBytes)
	if err != nil {
		return &FileSpecError{s.Notes, 0, err}
	}
	d := g.keep(raw, manifest.MediaTypeNotes)
	g.notes = &d
	g.blobs = append(g.blobs, stored(d))
	g.lockFile(s.Notes, raw)
	return nil
}

// addChartBlobs takes in what a release is made of, and returns its blobs.
func (g *gathered) addChartBlobs(p *packedRelease) error {
	keep := func(content []byte, mediaType string) manifest.Descriptor {
		d := g.keep(content, mediaType)
		p.blobs = append(p.blobs, stored(d))
		return d
	}
	f := p.fetched
	provenance := func() {
		if len(f.Provenance) > 0 {
			d := keep(f.Provenance, mediaTypeHelmProvenance)
			p.Provenance = &d
		}
	}
	if f.OCI != nil {
		// As the registry has it, to the byte, so that signatures over it hold.
		parsed, err := oci.ParseImage(f.OCI.Manifest)
		if err != nil {
			return err
		}
		keep(f.OCI.Config, parsed.Config.MediaType)
		p.Archive = keep(f.Archive, mediaTypeHelmArchive)
		provenance()
		p.Manifest = keep(f.OCI.Manifest, mediaTypeOCIManifest)
	} else {
		config := keep(f.Config, mediaTypeHelmConfig)
		p.Archive = keep(f.Archive, mediaTypeHelmArchive)
		provenance()
		raw, err := chartManifest(config, p.Archive, p.Provenance)
		if err != nil {
			return err
		}
		p.Manifest = keep(raw, mediaTypeOCIManifest)
	}
	keepValues := func(files []chart.ValuesFile) (list []manifest.ValuesFile) {
		for _, v := range files {
			d := keep(v.Data, manifest.MediaTypeValues)
			list = append(list, manifest.ValuesFile{Name: v.Name, Digest: d.Digest, Size: d.Size})
		}
		return list
	}
	p.Values = keepValues(p.values)
	for _, e := range p.environments {
		p.Environments = append(p.Environments, manifest.Environment{Name: e.name, Values: keepValues(e.values)})
	}
	for _, job := range p.jobs {
		keep(job, manifest.MediaTypeObjects)
	}
	if p.front != nil {
		keep(p.front, manifest.MediaTypeObjects)
	}
	return nil
}

// chartManifest is the artifact manifest that Helm writes around a chart, without the time
// that Helm puts into it.
func chartManifest(config, archive manifest.Descriptor, provenance *manifest.Descriptor) ([]byte, error) {
	type descriptor struct {
		MediaType string `json:"mediaType"`
		Digest    string `json:"digest"`
		Size      int64  `json:"size"`
	}
	layers := []descriptor{{archive.MediaType, archive.Digest, archive.Size}}
	if provenance != nil {
		layers = append(layers, descriptor{provenance.MediaType, provenance.Digest, provenance.Size})
	}
	raw, err := json.Marshal(struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Config        descriptor   `json:"config"`
		Layers        []descriptor `json:"layers"`
	}{2, mediaTypeOCIManifest, descriptor{config.MediaType, config.Digest, config.Size}, layers})
	if err != nil {
		return nil, fmt.Errorf("encoding the chart's artifact manifest: %w", err)
	}
	return raw, nil
}

func readValues(path, name string) (chart.ValuesFile, error) {
	raw, err := readBounded(path, manifest.MaxValuesBytes)
	if err != nil {
		return chart.ValuesFile{}, &ValuesError{name, err}
	}
	return chart.ValuesFile{Name: filepath.Base(name), Data: raw}, nil
}
