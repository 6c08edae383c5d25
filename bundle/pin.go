package bundle

import (
	"cmp"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sealift/sealift/internal/chart"
	"github.com/sealift/sealift/manifest"
)

// pinned is what the lock says about an image or artifact, nil where it says nothing that still holds.
func (l *Lock) pinned(w *wanted) *LockedImage {
	if l == nil {
		return nil
	}
	locked := l.Image(w.ref.String())
	if w.artifact {
		locked = l.Artifact(w.ref.String())
	}
	if locked == nil || locked.OCI != w.local {
		return nil
	}
	return locked
}

// chartByManifest is what the lock says about what is about a chart of a registry.
func (l *Lock) chartByManifest(release, digest string) *LockedChart {
	if l == nil {
		return nil
	}
	for i := range l.Charts {
		if c := &l.Charts[i]; c.Release == release && c.Manifest == digest {
			return c
		}
	}
	return nil
}

// lockReferrers pins what is about the chart of a release.
func (l *Lock) lockReferrers(release string, referrers []manifest.Referrer) {
	for i := range l.Charts {
		if l.Charts[i].Release == release {
			l.Charts[i].Referrers = referrers
		}
	}
}

// lockedImage pins an image.
func lockedImage(img *image, local string) LockedImage {
	l := LockedImage{
		Ref: img.Source, OCI: local, Digest: img.Digest, MediaType: img.MediaType, Size: img.Size,
		Referrers: img.Referrers, Dropped: img.ReferrersDropped,
	}
	for _, c := range img.Children {
		l.Platforms = append(l.Platforms, LockedPlatform{c.Platform, c.Digest})
	}
	if len(img.Children) == 0 && len(img.Platforms) > 0 {
		l.Platform = img.Platforms[0]
	}
	return l
}

// samePlatforms reports whether what is locked and what travels are the same children: what is about
// others was not looked for.
func samePlatforms(l *LockedImage, img *image) bool {
	return slices.EqualFunc(l.Platforms, img.Children, func(p LockedPlatform, c manifest.Child) bool { return p.Digest == c.Digest })
}

// lockedChart is what the lock says about a chart, nil where it says nothing that still holds.
func (g *gathered) lockedChart(c *ChartSpec) *LockedChart {
	if g.o.Lock == nil {
		return nil
	}
	// By default the release is named as the chart, whatever that is: it is none of those that other
	// items of the spec name.
	named := map[string]bool{}
	for i := range g.spec.Charts {
		if o := &g.spec.Charts[i]; o.Release != "" {
			named[cmp.Or(o.Namespace, o.Release)+"/"+o.Release] = true
		}
	}
	var found *LockedChart
	for i := range g.o.Lock.Charts {
		l := &g.o.Lock.Charts[i]
		if l.Chart != c.identity() || l.Range != c.Version {
			continue
		}
		namespace, release, _ := strings.Cut(l.Release, "/")
		switch {
		case c.Release != "":
			if l.Release == cmp.Or(c.Namespace, c.Release)+"/"+c.Release {
				return l
			}
		case !named[l.Release] && namespace == cmp.Or(c.Namespace, release):
			if found != nil {
				return nil // which one is not clear: it is looked for again
			}
			found = l
		}
	}
	return found
}

// pinProvenance takes the provenance file that is locked, and none that came later, unless the spec
// demands one.
func pinProvenance(f *chart.Fetched, locked *LockedChart, demanded bool) error {
	got := ""
	if len(f.Provenance) > 0 {
		got = manifest.Digest(f.Provenance)
	}
	switch {
	case got == locked.Provenance:
		return nil
	case locked.Provenance == "" && demanded:
		return nil // the lock is not up to date
	case locked.Provenance == "":
		f.Provenance = nil
		return nil
	}
	return &chart.PinError{Chart: f.Name + " (provenance file)", Got: got, Want: locked.Provenance}
}

// lockChart pins a chart and the files beside it.
func (g *gathered) lockChart(p *packedRelease, c *ChartSpec) {
	l := LockedChart{
		Chart: c.identity(), Release: p.Key(), Range: c.Version, Version: p.Version, Digest: p.Archive.Digest,
		Dependencies: p.fetched.Dependencies,
	}
	if p.fetched.OCI != nil {
		l.Manifest = p.Manifest.Digest
	}
	if p.Provenance != nil {
		l.Provenance = p.Provenance.Digest
	}
	g.lock.Charts = append(g.lock.Charts, l)
	for i, name := range c.Values {
		g.lockFile(name, p.values[i].Data)
	}
	g.lockEnvironments(p, c.Environments)
	for i, name := range c.RenderWith {
		g.lockFile(name, p.variants[i].Data)
	}
}

// lockSigners pins the keys and trusted roots by which signatures are judged.
func (g *gathered) lockSigners() error {
	s := g.spec
	var demands []SignerSpec
	for i := range s.Verify {
		demands = append(demands, s.Verify[i].signer())
	}
	for i := range s.Images {
		demands = append(demands, s.Images[i].Verify...)
	}
	for i := range s.Artifacts {
		demands = append(demands, s.Artifacts[i].Verify...)
	}
	for i := range s.Charts {
		if v := s.Charts[i].Verify; v != nil {
			demands = append(demands, SignerSpec{Key: v.Keyring})
		}
	}
	for i := range demands {
		for _, name := range []string{demands[i].Key, demands[i].TrustedRoot} {
			if name == "" {
				continue
			}
			raw, err := s.readSigner("key or trusted root", name, chart.MaxKeyring)
			if err != nil {
				return err
			}
			g.lockFile(name, raw)
		}
	}
	return nil
}

// lockedRendered ends the path of what is locked as it was rendered.
const lockedRendered = " (rendered)"

func (g *gathered) lockFile(name string, content []byte) {
	g.lockPath(LockedFile{Path: filepath.ToSlash(name), Digest: manifest.Digest(content)})
}

// lockPath pins a file, once, however often the spec names it.
func (g *gathered) lockPath(f LockedFile) {
	for i := range g.lock.Files {
		if l := &g.lock.Files[i]; l.Path == f.Path && l.Digest == f.Digest {
			l.Executable = l.Executable || f.Executable
			return
		}
	}
	g.lock.Files = append(g.lock.Files, f)
}
