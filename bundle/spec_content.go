package bundle

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/sealift/sealift/internal/oci"
	"github.com/sealift/sealift/manifest"
)

// images checks what is said about images, those that are left out included.
func (c *completion) images() {
	refs, patterns := map[string]int{}, map[string]int{}
	for i := range c.Images {
		img := &c.Images[i]
		switch {
		case img.Ref == "" && img.Match == "":
			c.at(fmt.Errorf("images[%d] has neither ref nor match", i), "images", i)
		case img.Ref != "" && img.Match != "":
			c.at(fmt.Errorf("images[%d] has both ref and match: match lets in what charts probably name, and stands alone", i), "images", i)
		case img.Match != "":
			c.pattern(patterns, img.Match, "images", i)
			if img.OCI != "" || len(img.Platforms) > 0 || len(img.Verify) > 0 || img.Referrers != "" {
				c.at(fmt.Errorf("images[%d]: match stands alone, or with why; say more about an image under its ref", i), "images", i)
			}
			continue
		default:
			c.reference(refs, "image", img.Ref, "images", i)
		}
		c.at(checkPlatforms(img.Platforms), "images", i, "platforms")
		c.about(img.OCI, img.Referrers, img.Verify, "images", i)
	}
	included := len(patterns)
	for i, g := range c.IgnoreImages {
		if g.Match == "" {
			c.at(fmt.Errorf("ignoreImages[%d] has no match", i), "ignoreImages", i)
			continue
		}
		c.pattern(patterns, g.Match, "ignoreImages", i)
		// However it was broken into lines.
		c.IgnoreImages[i].Why = strings.Join(strings.Fields(g.Why), " ")
		c.at(checkShown("why", c.IgnoreImages[i].Why), "ignoreImages", i, "why")
	}
	if included+len(c.IgnoreImages) > manifest.MaxIgnored {
		c.at(fmt.Errorf("%d patterns for images, at most %d are allowed", included+len(c.IgnoreImages), manifest.MaxIgnored), "ignoreImages")
	}
}

// artifacts checks what is in registries and no image. Images and artifacts share their names.
func (c *completion) artifacts() {
	refs := map[string]int{}
	for i := range c.Images {
		r, err := oci.ParseReference(c.Images[i].Ref)
		if _, twice := refs[r.String()]; err == nil && !twice {
			refs[r.String()] = c.doc.At("images", i, "ref")
		}
	}
	for i := range c.Artifacts {
		a := &c.Artifacts[i]
		if a.Ref == "" {
			c.at(fmt.Errorf("artifacts[%d] has no ref", i), "artifacts", i)
		} else {
			c.reference(refs, "artifact", a.Ref, "artifacts", i)
		}
		c.about(a.OCI, a.Referrers, a.Verify, "artifacts", i)
	}
}

// about checks what images and artifacts have in common.
func (c *completion) about(local, referrers string, verify SignerSpecs, list string, i int) {
	if strings.Contains(local, "://") {
		c.at(fmt.Errorf("oci %q is an address; it is the path of an image layout or archive on this machine, addresses go to ref", local), list, i, "oci")
	}
	c.at(checkReferrers(referrers), list, i, "referrers")
	for j := range verify {
		c.at(verify[j].check(), list, i, "verify", j)
	}
}

func (c *completion) reference(seen map[string]int, what, text, list string, i int) {
	ref, err := parseReference(text)
	if err != nil {
		c.at(err, list, i, "ref")
		return
	}
	c.twice(seen, ref.String(), fmt.Sprintf("%s %q", what, text), list, i, "ref")
}

// parseReference is oci.ParseReference with the proposal in its words.
func parseReference(text string) (oci.Reference, error) {
	ref, err := oci.ParseReference(text)
	var r *oci.ReferenceError
	if errors.As(err, &r) && r.Proposal != "" {
		err = fmt.Errorf("%w; write %q if that is what you mean", err, r.Proposal)
	}
	return ref, err
}

func (c *completion) pattern(seen map[string]int, text, list string, i int) {
	if _, err := ParsePattern(text); err != nil {
		c.at(err, list, i, "match")
		return
	}
	c.twice(seen, text, fmt.Sprintf("match %q", text), list, i, "match")
}

// manifests checks the plain objects, and gives them their names.
func (c *completion) manifests() {
	for i := range c.Manifests {
		m := &c.Manifests[i]
		if m.Path == "" {
			c.at(fmt.Errorf("manifests[%d] has no path", i), "manifests", i)
		}
		if m.Name == "" && m.Path != "" {
			m.Name = strings.TrimSuffix(lastElement(m.Path), filepath.Ext(m.Path))
			if err := manifest.CheckRelease(m.Name); err != nil {
				c.at(fmt.Errorf("manifests[%d]: path %q gives no usable name (%w); write one as name", i, m.Path, err), "manifests", i, "path")
				m.Name = ""
			}
		} else if m.Name != "" {
			c.at(manifest.CheckRelease(m.Name), "manifests", i, "name")
		}
		if m.Namespace == "" {
			m.Namespace = m.Name
		} else {
			c.at(manifest.CheckNamespace(m.Namespace), "manifests", i, "namespace")
		}
		c.install(m.DependsOn, m.Rollback, m.Checks, "manifests", i)
	}
}

// lastElement is the last element of a path as a spec has it, with slashes or as this system has it.
func lastElement(p string) string { return filepath.Base(filepath.FromSlash(p)) }

// files checks what else travels, and gives it its names.
func (c *completion) files() {
	seen := map[string]int{}
	for i := range c.Files {
		f := &c.Files[i]
		if f.Path == "" {
			c.at(fmt.Errorf("files[%d] has no path", i), "files", i)
			continue
		}
		if f.Name == "" {
			f.Name = lastElement(f.Path)
		}
		if err := manifest.CheckFileName(f.Name); err != nil {
			c.at(fmt.Errorf("files[%d]: %w; write one as name", i, err), "files", i, "name")
			continue
		}
		c.twice(seen, f.Name, fmt.Sprintf("file %q", f.Name), "files", i, "name")
	}
	if len(c.Files) > manifest.MaxFiles {
		c.at(fmt.Errorf("%d files, at most %d are allowed", len(c.Files), manifest.MaxFiles), "files")
	}
}

// checkShown reports whether a text that people are shown is one line of what can be shown.
func checkShown(what, s string) error {
	if manifest.Showable(s) != s || len(s) > maxShown {
		return fmt.Errorf("%s: %q is not one line of at most %d bytes that can be shown", what, s, maxShown)
	}
	return nil
}
