package manifest

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
)

func (m *Manifest) validateImages(blobs map[string]*Blob) error {
	sources := map[string]bool{}
	for i := range m.Images {
		img := &m.Images[i]
		if err := img.validate(blobs, sources); err != nil {
			return fmt.Errorf("image %q: %w", img.Source, err)
		}
		if err := img.validateAsImage(); err != nil {
			return fmt.Errorf("image %q: %w", img.Source, err)
		}
	}
	for i := range m.Artifacts {
		img := &m.Artifacts[i]
		if err := img.validate(blobs, sources); err != nil {
			return fmt.Errorf("artifact %q: %w", img.Source, err)
		}
		if err := img.validateAsArtifact(); err != nil {
			return fmt.Errorf("artifact %q: %w", img.Source, err)
		}
	}
	return nil
}

// validateAsImage checks what holds for images only.
func (img *Image) validateAsImage() error {
	if img.ArtifactType != "" {
		return fmt.Errorf("artifact type %q, where images have none", img.ArtifactType)
	}
	if len(img.Platforms) == 0 {
		return errors.New("no platforms")
	}
	return nil
}

// validateAsArtifact checks what holds for artifacts only. All of an artifact travels, so nothing is
// derived from its index.
func (img *Image) validateAsArtifact() error {
	if !mediaPattern().MatchString(img.ArtifactType) {
		return fmt.Errorf("artifact type %q is malformed", img.ArtifactType)
	}
	if len(img.Platforms) > 0 || img.Derived != nil {
		return errors.New("platforms, or a derived index, where artifacts have none")
	}
	return nil
}

// checkSource reports whether s is a fully qualified reference.
func checkSource(s string) error {
	if len(s) > 512 || !sourcePattern().MatchString(s) {
		return errors.New("is not a fully qualified reference")
	}
	return nil
}

// validate checks what holds for images and artifacts. It adds to sources.
func (img *Image) validate(blobs map[string]*Blob, sources map[string]bool) error {
	if sources[img.Source] {
		return errors.New("stands there twice")
	}
	sources[img.Source] = true
	if err := checkSource(img.Source); err != nil {
		return err
	}
	if err := carried(blobs, Descriptor{img.Digest, img.MediaType, img.Size}, MaxOCIManifestBytes); err != nil {
		return err
	}
	if _, pinned, ok := strings.Cut(img.Source, "@"); ok && pinned != img.Digest {
		return fmt.Errorf("pinned to another digest than %s", img.Digest)
	}
	if err := checkPlatforms(img.Platforms); err != nil {
		return err
	}
	if d := img.Derived; d != nil {
		if len(img.Children) == 0 {
			return errors.New("a derived index without children")
		}
		if d.Digest == img.Digest {
			return errors.New("the derived index is the original one")
		}
		if err := carried(blobs, *d, MaxOCIManifestBytes); err != nil {
			return fmt.Errorf("derived index: %w", err)
		}
	}
	children := map[string]bool{}
	for _, c := range img.Children {
		if children[c.Digest] {
			return fmt.Errorf("child %s twice", c.Digest)
		}
		children[c.Digest] = true
		if err := CheckPlatform(c.Platform); err != nil {
			return fmt.Errorf("child %s: %w", c.Digest, err)
		}
		if err := carried(blobs, Descriptor{c.Digest, c.MediaType, c.Size}, MaxOCIManifestBytes); err != nil {
			return fmt.Errorf("child: %w", err)
		}
	}
	if img.ReferrersDropped && len(img.Referrers)+len(img.SignedBy) > 0 {
		return errors.New("referrers, or signers, where referrers were dropped")
	}
	children[img.Digest] = true
	if err := validateReferrers(img.Referrers, children, blobs); err != nil {
		return err
	}
	if err := img.validateSigners(blobs); err != nil {
		return err
	}
	return validateReasons(img.Reasons)
}

// validateReasons checks why an image travels, or was found and does not.
func validateReasons(reasons []Reason) error {
	if len(reasons) == 0 {
		return errors.New("no reason given for it")
	}
	if len(reasons) > MaxReasons {
		return fmt.Errorf("%d reasons, at most %d are allowed", len(reasons), MaxReasons)
	}
	for _, r := range reasons {
		if r.Kind != ReasonSpec && r.Kind != ReasonChart {
			return fmt.Errorf("reason of unknown kind %q", r.Kind)
		}
		if r.Confidence != "" && r.Confidence != Probable {
			return fmt.Errorf("reason of confidence %q, this version knows %q and none", r.Confidence, Probable)
		}
		for _, s := range []string{r.Chart, r.Object, r.Path, r.Way, r.Variant, r.Pattern} {
			if !plain(s) {
				return fmt.Errorf("reason %q holds characters that cannot be shown, or is too long", s)
			}
		}
	}
	return nil
}

// validateIgnored checks what the vendor left out.
func (m *Manifest) validateIgnored() error {
	seen := map[string]bool{}
	for i := range m.Ignored {
		g := &m.Ignored[i]
		if err := g.validate(); err != nil {
			return fmt.Errorf("ignored image %q: %w", g.Reference, err)
		}
		if seen[g.Reference] {
			return fmt.Errorf("ignored image %q twice", g.Reference)
		}
		seen[g.Reference] = true
	}
	return nil
}

func (g *IgnoredImage) validate() error {
	if err := checkSource(g.Reference); err != nil {
		return err
	}
	if g.Pattern == "" {
		return errors.New("no pattern that leaves it out")
	}
	for _, s := range []string{g.Pattern, g.Why} {
		if !plain(s) {
			return fmt.Errorf("%q holds characters that cannot be shown, or is too long", s)
		}
	}
	return validateReasons(g.Reasons)
}

// ReferrerTags are the endings of the tags by which cosign finds what is about an image.
var ReferrerTags = []string{".sig", ".att", ".sbom"}

// ReferrerTag is the tag by which cosign finds what is about the image with a digest.
func ReferrerTag(digest, ending string) string {
	return strings.Replace(digest, ":", "-", 1) + ending
}

// validateReferrers checks what is about the subjects, to which it adds the referrers themselves.
func validateReferrers(referrers []Referrer, subjects map[string]bool, blobs map[string]*Blob) error {
	if len(referrers) > MaxReferrers {
		return fmt.Errorf("%d referrers, at most %d are allowed", len(referrers), MaxReferrers)
	}
	seen := map[string]bool{}
	for _, r := range referrers {
		// What a referrer is about stands before it, so that there are no circles.
		if !subjects[r.Subject] {
			return fmt.Errorf("referrer %s is about %q, which is nothing that stands before it", r.Digest, r.Subject)
		}
		if err := carried(blobs, Descriptor{r.Digest, r.MediaType, r.Size}, MaxOCIManifestBytes); err != nil {
			return fmt.Errorf("referrer: %w", err)
		}
		if r.ArtifactType != "" && !mediaPattern().MatchString(r.ArtifactType) {
			return fmt.Errorf("referrer %s: artifact type %q is malformed", r.Digest, r.ArtifactType)
		}
		if r.Tag != "" && !slices.ContainsFunc(ReferrerTags, func(ending string) bool { return r.Tag == ReferrerTag(r.Subject, ending) }) {
			return fmt.Errorf("referrer %s: tag %q is not made from the digest of its subject", r.Digest, r.Tag)
		}
		key := r.Subject + " " + r.Digest + " " + r.Tag
		if seen[key] {
			return fmt.Errorf("referrer %s twice", r.Digest)
		}
		seen[key], subjects[r.Digest] = true, true
	}
	return nil
}

func (img *Image) validateSigners(blobs map[string]*Blob) error {
	if len(img.SignedBy) > MaxSigners {
		return fmt.Errorf("%d signers, at most %d are allowed", len(img.SignedBy), MaxSigners)
	}
	for i, s := range img.SignedBy {
		identity := s.Issuer+s.IssuerRegExp+s.Subject+s.SubjectRegExp != ""
		if (s.Key != "") == identity {
			return fmt.Errorf("signer %d is not either a key or an identity", i)
		}
		if s.Key != "" {
			if der, err := base64.StdEncoding.Strict().DecodeString(s.Key); err != nil || base64.StdEncoding.EncodeToString(der) != s.Key || len(der) > 1024 || s.TrustedRoot != nil {
				return fmt.Errorf("signer %d: malformed key", i)
			}
			continue
		}
		if (s.Issuer != "") == (s.IssuerRegExp != "") || (s.Subject != "") == (s.SubjectRegExp != "") || s.TrustedRoot == nil {
			return fmt.Errorf("signer %d does not name one issuer, one subject and a trusted root", i)
		}
		for _, text := range []string{s.Issuer, s.IssuerRegExp, s.Subject, s.SubjectRegExp} {
			if !plain(text) {
				return fmt.Errorf("signer %d: %q holds characters that cannot be shown, or is too long", i, text)
			}
		}
		if err := carried(blobs, *s.TrustedRoot, MaxTrustedRootBytes); err != nil {
			return fmt.Errorf("signer %d: trusted root: %w", i, err)
		}
	}
	return nil
}
