package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// releaseObjects says what becomes of the objects of a release.
type releaseObjects struct {
	// Release is "NAMESPACE/RELEASE", Old what it was called before, where that is something else.
	Release string               `json:"release"`
	Old     string               `json:"old,omitempty"`
	Changes []chart.ObjectChange `json:"changes"`
	// Problem is why the objects could not be compared.
	Problem string `json:"problem,omitempty"`
}

func (r *releaseObjects) title() string {
	if r.Old != "" {
		return r.Old + " -> " + r.Release
	}
	return r.Release
}

func countObjects(releases []releaseObjects) (added, removed, changed int) {
	for i := range releases {
		for j := range releases[i].Changes {
			switch releases[i].Changes[j].Action {
			case chart.ObjectAdded:
				added++
			case chart.ObjectRemoved:
				removed++
			default:
				changed++
			}
		}
	}
	return added, removed, changed
}

// compareObjects renders the charts that differ, those of both bundles, and compares their objects. What
// cannot be read or rendered is said in the result.
func (a *app) compareObjects(cmd *cobra.Command, oldPath, newPath string, d *difference) (_ []releaseObjects, err error) {
	releases := []releaseObjects{}
	old, now := &renderer{app: a, path: oldPath, digest: d.Old.Digest}, &renderer{app: a, path: newPath, digest: d.New.Digest}
	defer func() { err = errors.Join(err, old.close(), now.close()) }()
	compare := func(was, is *manifest.Chart) error {
		r, err := compareRelease(cmd, old, now, was, is)
		releases = append(releases, r)
		return err
	}
	for i := range d.Charts.Added {
		if err := compare(nil, &d.Charts.Added[i]); err != nil {
			return nil, err
		}
	}
	for i := range d.Charts.Changed {
		if c := &d.Charts.Changed[i]; rendersOtherwise(&c.Old, &c.New) {
			if err := compare(&c.Old, &c.New); err != nil {
				return nil, err
			}
		}
	}
	for i := range d.Charts.Removed {
		if err := compare(&d.Charts.Removed[i], nil); err != nil {
			return nil, err
		}
	}
	return releases, nil
}

// rendersOtherwise reports whether anything that objects are made of differs.
func rendersOtherwise(old, now *manifest.Chart) bool {
	return old.Archive.Digest != now.Archive.Digest || old.Key() != now.Key() ||
		!slices.EqualFunc(old.Values, now.Values, func(a, b manifest.ValuesFile) bool { return a.Digest == b.Digest })
}

// compareRelease compares the objects of a release; old or now is nil where only one bundle has it. Its
// error is the end of the command's context.
func compareRelease(cmd *cobra.Command, from, to *renderer, old, now *manifest.Chart) (releaseObjects, error) {
	r := releaseObjects{Changes: []chart.ObjectChange{}}
	var before, after []byte
	var err error
	if old != nil {
		r.Release = old.Key()
		before, err = from.render(cmd, old)
	}
	if now != nil {
		if r.Release = now.Key(); old != nil && old.Key() != now.Key() {
			r.Old = old.Key()
		}
		if err == nil {
			after, err = to.render(cmd, now)
		}
	}
	if err == nil {
		r.Changes, err = compareRendered(old, now, before, after)
	}
	if ended := cmd.Context().Err(); ended != nil {
		return r, ended
	}
	if err != nil {
		r.Problem = strings.Join(strings.Fields(err.Error()), " ")
		if len(r.Problem) > maxErrorText {
			r.Problem = r.Problem[:maxErrorText] + " …"
		}
		r.Changes = []chart.ObjectChange{}
	}
	return r, nil
}

// compareRendered compares objects in the namespaces of their releases: in another namespace they are
// other objects.
func compareRendered(old, now *manifest.Chart, before, after []byte) ([]chart.ObjectChange, error) {
	if old != nil && now != nil && old.Namespace != now.Namespace {
		added, err := chart.CompareObjects(nil, after, now.Namespace)
		if err != nil {
			return nil, err
		}
		removed, err := chart.CompareObjects(before, nil, old.Namespace)
		return append(added, removed...), err
	}
	in := now
	if in == nil {
		in = old
	}
	return chart.CompareObjects(before, after, in.Namespace)
}

// renderer renders the charts of a bundle.
type renderer struct {
	app *app
	// path is where the bundle is, digest what was said about it.
	path, digest string
	bundle       *verify.Bundle
	failed       error
}

// open opens the bundle when the first chart is wanted. Whoever signed it was looked at before: here
// its bytes only have to be those of the manifest that is shown.
func (r *renderer) open(cmd *cobra.Command) (*verify.Bundle, error) {
	if r.bundle != nil || r.failed != nil {
		return r.bundle, r.failed
	}
	r.bundle, r.failed = r.reopen(cmd)
	return r.bundle, r.failed
}

func (r *renderer) reopen(cmd *cobra.Command) (*verify.Bundle, error) {
	if r.path == standardInput {
		return nil, errors.New("of a stream, only the head is read")
	}
	f, err := r.app.findOne(cmd, []string{r.path})
	if err != nil {
		return nil, err
	}
	b, err := verify.OpenIncomplete(cmd.Context(), f, verify.Policy{Unsigned: true})
	if err != nil {
		return nil, err
	}
	if b.Evidence().Manifest != r.digest {
		return nil, errors.Join(fmt.Errorf("bundle %q was changed while it was read", b.Path()), b.Close())
	}
	return b, nil
}

func (r *renderer) close() error {
	if r.bundle == nil {
		return nil
	}
	return r.bundle.Close()
}

// render renders the chart of a release with the vendor's values.
func (r *renderer) render(cmd *cobra.Command, c *manifest.Chart) ([]byte, error) {
	b, err := r.open(cmd)
	if err != nil {
		return nil, err
	}
	return renderVendor(cmd.Context(), b, c)
}

func renderVendor(ctx context.Context, b *verify.Bundle, c *manifest.Chart) ([]byte, error) {
	raw, err := b.ReadBlob(c.Archive.Digest, manifest.MaxArchiveBytes)
	if err != nil {
		return nil, err
	}
	var files []chart.ValuesFile
	for _, v := range c.Values {
		data, err := b.ReadBlob(v.Digest, manifest.MaxValuesBytes)
		if err != nil {
			return nil, err
		}
		files = append(files, chart.ValuesFile{Name: v.Name, Data: data})
	}
	values, err := chart.MergeValues(files)
	if err != nil {
		return nil, err
	}
	parsed, err := chart.Parse(raw)
	if err != nil {
		return nil, err
	}
	return parsed.Render(ctx, chart.RenderOptions{Release: c.Release, Namespace: c.Namespace, Values: values})
}
