package chart

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	chartv2 "helm.sh/helm/v4/pkg/chart/v2"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
)

// maxDirectories bounds how deep directories depend on directories.
const maxDirectories = 16

// errLock says that Chart.lock was not made of this Chart.yaml.
var errLock = errors.New("the lock file is out of sync with Chart.yaml; run helm dependency update")

// directories packs a chart directory and those that it depends on. The order in which it comes to
// dependencies is always the same, so pins are used up in the order in which they were recorded.
type directories struct {
	fetcher *Fetcher
	pins    []Dependency
	fetched []Dependency
	packed  map[string]*Chart // by real path
}

// pack packs a directory with its dependencies. Chain are the real paths of the directories that
// led here.
func (b *directories) pack(ctx context.Context, dir string, chain []string) (*Chart, error) {
	fail := func(err error) (*Chart, error) { return nil, &LoadError{Path: dir, Err: err} }
	path, err := filepath.Abs(dir)
	if err != nil {
		return fail(err)
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return fail(err)
	}
	if i := slices.Index(chain, path); i >= 0 {
		return fail(fmt.Errorf("charts depend on each other in a circle: %s", strings.Join(append(chain[i:len(chain):len(chain)], path), " -> ")))
	}
	if len(chain) == maxDirectories {
		return fail(fmt.Errorf("directories depend on each other more than %d deep", maxDirectories))
	}
	if c := b.packed[path]; c != nil {
		return c, nil
	}
	ch, err := loadDir(dir)
	if err != nil {
		return fail(err)
	}
	files, err := b.complete(ctx, ch, dir, append(chain[:len(chain):len(chain)], path))
	if err != nil {
		return nil, err
	}
	archive, err := pack(ch, files)
	if err != nil {
		return fail(err)
	}
	c, err := Parse(archive)
	if err != nil {
		var le *LoadError
		if errors.As(err, &le) {
			le.Path = dir
		}
		return nil, err
	}
	b.packed[path] = c
	return c, nil
}

// complete brings what Chart.yaml lists and charts/ lacks, as files to add.
func (b *directories) complete(ctx context.Context, ch *chartv2.Chart, dir string, chain []string) ([]*common.File, error) {
	have := map[string]bool{}
	for _, f := range ch.Raw {
		have[f.Name] = true
	}
	locked := false
	done := map[[3]string]bool{}
	var files []*common.File
	var missing []string
	for i, d := range ch.Metadata.Dependencies {
		fail := func(err error) ([]*common.File, error) {
			return nil, &DependencyError{Chart: ch.Name(), Name: d.Name, Err: err}
		}
		there, err := isThere(ch, d)
		if err != nil {
			return fail(err)
		}
		// What is listed twice, under two aliases, is brought once.
		key := [3]string{d.Name, d.Version, d.Repository}
		if there || done[key] {
			continue
		}
		done[key] = true
		if d.Repository == "" {
			missing = append(missing, d.Name)
			continue
		}
		if ch.Lock != nil && !locked {
			if err := checkLock(ch); err != nil {
				return nil, &DependencyError{Chart: ch.Name(), Err: err}
			}
			locked = true
		}
		version := d.Version
		if locked {
			version = ch.Lock.Dependencies[i].Version
		}
		c, err := b.bring(ctx, d, version, dir, chain)
		if err != nil {
			return fail(err)
		}
		name := "charts/" + c.Name + "-" + c.Version + ".tgz"
		if !have[name] {
			have[name] = true
			files = append(files, &common.File{Name: name, Data: c.Archive})
		}
	}
	if len(missing) > 0 {
		return nil, &MissingDependenciesError{Chart: ch.Name(), Missing: missing}
	}
	return files, nil
}

// isThere says whether a dependency is below charts/. Another version of it is an error: Helm would
// render that one, without the alias and against what Chart.yaml says, or both.
func isThere(ch *chartv2.Chart, d *chartv2.Dependency) (bool, error) {
	var others []string
	for _, c := range ch.Dependencies() {
		switch {
		case c.Name() != d.Name:
		case d.Version == "" || chartutil.IsCompatibleRange(d.Version, c.Metadata.Version):
			return true, nil
		case !slices.ContainsFunc(ch.Metadata.Dependencies, func(o *chartv2.Dependency) bool {
			return o.Name == d.Name && chartutil.IsCompatibleRange(o.Version, c.Metadata.Version)
		}):
			others = append(others, c.Metadata.Version)
		}
	}
	if len(others) > 0 {
		return false, fmt.Errorf("charts/ has another version; run helm dependency update: %w", &VersionError{Chart: d.Name, Want: d.Version, Have: others})
	}
	return false, nil
}

// checkLock does what helm dependency build does: the lock has a digest of what it was made of. Helm 2 made
// it of Chart.yaml alone.
func checkLock(ch *chartv2.Chart) error {
	deps, lock := ch.Metadata.Dependencies, ch.Lock
	if !slices.EqualFunc(deps, lock.Dependencies, func(d, l *chartv2.Dependency) bool { return l != nil && d.Name == l.Name }) {
		return errLock
	}
	sum := func(v any) (string, error) {
		data, err := json.Marshal(v)
		return digestOf(data), err
	}
	got, err := sum([2][]*chartv2.Dependency{deps, lock.Dependencies})
	if err == nil && got != lock.Digest && ch.Metadata.APIVersion == chartv2.APIVersionV1 {
		got, err = sum(map[string][]*chartv2.Dependency{"dependencies": deps})
	}
	if err == nil && got != lock.Digest {
		err = errLock
	}
	return err
}

// bring fetches one dependency, by a version or a range that Chart.lock or Chart.yaml has.
func (b *directories) bring(ctx context.Context, d *chartv2.Dependency, version, dir string, chain []string) (*Chart, error) {
	if d.Version == "" {
		// Helm would take the sub-chart for one that Chart.yaml does not list, and ignore its alias.
		return nil, errors.New("no version is given in Chart.yaml; for any write \"*\"")
	}
	pin := b.nextPin(d)
	if pin != nil {
		version = pin.Version
	}
	want, err := newSelector(version)
	if err != nil {
		return nil, err
	}
	c, err := b.from(ctx, d, want, dir, chain)
	if err != nil {
		return nil, err
	}
	if c.Name != d.Name {
		return nil, fmt.Errorf("got chart %q", c.Name)
	}
	if !want.matches(c.Version) {
		return nil, want.none(d.Name, []string{c.Version})
	}
	if !chartutil.IsCompatibleRange(d.Version, c.Version) {
		return nil, &VersionError{Chart: d.Name, Want: d.Version, Have: []string{c.Version}}
	}
	digest := digestOf(c.Archive)
	if pin != nil && pin.Digest != digest {
		return nil, &PinError{Chart: d.Name, Got: digest, Want: pin.Digest}
	}
	b.fetched = append(b.fetched, Dependency{Name: d.Name, Version: c.Version, Repository: d.Repository, Digest: digest})
	return c, nil
}

// nextPin takes the first pin of a dependency that is left; nil for none.
func (b *directories) nextPin(d *chartv2.Dependency) *Dependency {
	i := slices.IndexFunc(b.pins, func(p Dependency) bool { return p.Name == d.Name && p.Repository == d.Repository })
	if i < 0 {
		return nil
	}
	pin := b.pins[i]
	b.pins = slices.Concat(b.pins[:i], b.pins[i+1:])
	return &pin
}

func (b *directories) from(ctx context.Context, d *chartv2.Dependency, want selector, dir string, chain []string) (*Chart, error) {
	repository := d.Repository
	switch {
	case strings.HasPrefix(repository, "@"), strings.HasPrefix(repository, "alias:"):
		return nil, fmt.Errorf("repository %q is a name that only the Helm of one machine knows; write the address of the repository (https://… or oci://…)", repository)
	case strings.HasPrefix(repository, "file://"):
		path := filepath.FromSlash(strings.TrimPrefix(repository, "file://"))
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			return nil, fmt.Errorf("repository %q is not a directory", repository)
		}
		return b.pack(ctx, path, chain)
	case strings.HasPrefix(repository, "oci://"):
		got, err := b.fetcher.fromOCI(ctx, strings.TrimSuffix(repository, "/")+"/"+d.Name, want)
		if err != nil {
			return nil, err
		}
		return got.Chart, nil
	default:
		got, err := b.fetcher.fromRepository(ctx, repository, d.Name, want, noProvenance)
		if err != nil {
			return nil, err
		}
		return got.Chart, nil
	}
}
