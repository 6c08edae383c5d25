package chart

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	chartv2 "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
)

// MaxArchive bounds the size of a chart archive. The largest public charts are
// below 2 MiB, and a release whose chart does not fit into a Secret of 1 MiB
// cannot be installed by Helm anyway; the rest is room for charts that carry
// files. Helm's own limit on the decompressed size (100 MiB) holds as well.
const MaxArchive = 64 << 20

// Chart is a packaged chart: the exact bytes that travel.
type Chart struct {
	Name       string
	Version    string
	AppVersion string
	// Archive is the .tgz.
	Archive []byte
	// Config is the OCI config blob of the chart as Helm writes it: the
	// metadata of Chart.yaml as JSON. It depends on the archive alone.
	Config []byte
}

// Load reads a chart from a directory or from a .tgz.
//
// The bytes of a .tgz travel unchanged. A directory is packaged: names sorted,
// no times, fixed modes, the files that .helmignore leaves over, at a fixed
// level of a compressor that does not change with the Go version; so the same
// files give the same bytes anywhere. Charts below charts/ travel in either form.
//
// Errors are *[LoadError] and *[MissingDependenciesError].
func Load(path string) (*Chart, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, &LoadError{Path: path, Err: err}
	}
	var archive []byte
	switch {
	case info.IsDir():
		archive, err = packDir(path)
	case info.Mode().IsRegular():
		archive, err = readArchive(path)
	default:
		err = errors.New("neither a directory nor a regular file")
	}
	if err != nil {
		return nil, &LoadError{Path: path, Err: err}
	}
	c, err := Parse(archive)
	var le *LoadError
	if errors.As(err, &le) {
		le.Path = path
	}
	return c, err
}

// Parse reads a chart from the bytes of a .tgz of at most [MaxArchive] bytes.
// The Chart keeps the slice.
//
// Errors are *[LoadError] and *[MissingDependenciesError].
func Parse(archive []byte) (*Chart, error) {
	if len(archive) > MaxArchive {
		return nil, &LoadError{Err: fmt.Errorf("the archive has more than %d bytes", MaxArchive)}
	}
	c := &Chart{Archive: archive}
	ch, err := c.HelmChart()
	if err != nil {
		return nil, err
	}
	if missing := missingDependencies(ch); len(missing) > 0 {
		return nil, &MissingDependenciesError{Chart: ch.Name(), Missing: missing}
	}
	c.Name, c.Version, c.AppVersion = ch.Name(), ch.Metadata.Version, ch.AppVersion()
	if c.Config, err = json.Marshal(ch.Metadata); err != nil {
		return nil, &LoadError{Err: fmt.Errorf("encoding Chart.yaml as JSON: %w", err)}
	}
	return c, nil
}

// HelmChart returns Helm's own form of the chart, for internal/release. It is
// read anew from the archive each time, because rendering and installing
// change it: disabled sub-charts are dropped, values of sub-charts imported.
func (c *Chart) HelmChart() (*chartv2.Chart, error) {
	var ch *chartv2.Chart
	err := protect(func() (err error) {
		ch, err = loader.LoadArchive(bytes.NewReader(c.Archive))
		return err
	})
	if err != nil {
		return nil, &LoadError{Err: err}
	}
	sortDependencies(ch)
	return ch, nil
}

// sortDependencies ends an accident of Helm's loader, which collects sub-charts
// from a Go map: without it, two renders of one chart order the objects of
// crds/ differently. Of several versions of one chart the newest comes first: Helm
// takes the first that the range of a dependency admits.
func sortDependencies(ch *chartv2.Chart) {
	deps := slices.Clone(ch.Dependencies())
	slices.SortStableFunc(deps, func(a, b *chartv2.Chart) int {
		if n := strings.Compare(a.Name(), b.Name()); n != 0 {
			return n
		}
		return compareVersions(b.Metadata.Version, a.Metadata.Version)
	})
	ch.SetDependencies(deps...)
	for _, d := range deps {
		sortDependencies(d)
	}
}

// missingDependencies applies Helm's own rule: by name, of the chart itself.
func missingDependencies(ch *chartv2.Chart) []string {
	var missing []string
	for _, want := range ch.Metadata.Dependencies {
		have := slices.ContainsFunc(ch.Dependencies(), func(d *chartv2.Chart) bool { return d.Name() == want.Name })
		if !have && !slices.Contains(missing, want.Name) {
			missing = append(missing, want.Name)
		}
	}
	return missing
}

func readArchive(path string) (data []byte, err error) {
	f, err := os.Open(filepath.Clean(path))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	data, err = io.ReadAll(io.LimitReader(f, MaxArchive+1))
	if err != nil {
		return nil, err
	}
	if len(data) > MaxArchive {
		return nil, fmt.Errorf("the file has more than %d bytes", MaxArchive)
	}
	if !bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
		return nil, errors.New("not a gzip-compressed archive")
	}
	return data, nil
}

// protect turns a panic in a library that reads foreign input into an error.
func protect(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the input made the parser fail: %v", r)
		}
	}()
	return f()
}
