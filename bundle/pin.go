package bundle

import (
	"slices"

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
