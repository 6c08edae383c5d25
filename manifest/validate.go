package manifest

import (
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// ErrInvalid is wrapped by every error of Validate.
var ErrInvalid = errors.New("invalid manifest")

var (
	namePattern     = lazily(`\A[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\z`)
	platformPattern = lazily(`\A[a-z0-9]+/[a-z0-9_]+(?:/[a-z0-9.]+)?\z`)
	digestPattern   = lazily(`\Asha256:[0-9a-f]{64}\z`)
	mediaPattern    = lazily(`\A[a-zA-Z0-9][a-zA-Z0-9!#$&^_.+-]{0,126}/[a-zA-Z0-9][a-zA-Z0-9!#$&^_.+-]{0,126}\z`)
	// sourcePattern bounds what a reference may be made of; internal/oci parses it in full.
	sourcePattern = lazily(`\A[a-zA-Z0-9.-]+(?::[0-9]{1,5})?/[a-z0-9][a-z0-9._/-]*(?::[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?\z`)
	// versionPattern is the grammar of semver 2.0.0.
	versionPattern = lazily(`\A(?:0|[1-9][0-9]*)\.(?:0|[1-9][0-9]*)\.(?:0|[1-9][0-9]*)` +
		`(?:-(?:0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*))*)?` +
		`(?:\+[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*)?\z`)
	// chartVersionPattern is wider, since Helm takes versions such as "1.2" and "v1.2.3".
	chartVersionPattern = lazily(`\A[0-9a-zA-Z][0-9a-zA-Z.+-]{0,127}\z`)
	chartPattern        = lazily(`\A[a-zA-Z0-9][a-zA-Z0-9._-]{0,252}\z`)
	dnsPattern          = lazily(`\A[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\z`)
)

// lazily compiles a pattern when it is first used: most commands need few of them, and all of
// them would be compiled at each start.
func lazily(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}

// plain reports whether s can be shown at a terminal: at most 1024 bytes, no control
// characters, and none that change the direction or the lines of a text.
func plain(s string) bool {
	return len(s) <= 1024 && strings.IndexFunc(s, func(r rune) bool {
		return r < 0x20 || r >= 0x7f && r < 0xa0 || r == 0x200e || r == 0x200f || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069
	}) < 0
}

// CheckName reports whether s can name a bundle: a DNS label, since it becomes part of file
// names, tags and Kubernetes objects.
func CheckName(s string) error {
	if !namePattern().MatchString(s) {
		return fmt.Errorf("name %q is not made of lower-case letters, digits and dashes (at most 63, no dash at either end)", s)
	}
	return nil
}

// CheckVersion reports whether s is a semantic version (semver 2.0.0, without a leading v).
func CheckVersion(s string) error {
	if !versionPattern().MatchString(s) || len(s) > 128 {
		return fmt.Errorf("version %q is not a semantic version such as 1.2.3 or 1.2.3-rc.1", s)
	}
	return nil
}

// CheckPlatform reports whether s is written as os/arch or os/arch/variant.
func CheckPlatform(s string) error {
	if !platformPattern().MatchString(s) || len(s) > 64 {
		return fmt.Errorf("platform %q is not written as os/arch or os/arch/variant", s)
	}
	return nil
}

// CheckRelease reports whether s can name a Helm release (at most 53 characters).
func CheckRelease(s string) error {
	if !dnsPattern().MatchString(s) || len(s) > 53 {
		return fmt.Errorf("release %q is not made of lower-case letters, digits and dashes (at most 53)", s)
	}
	return nil
}

// CheckNamespace reports whether s can name a Kubernetes namespace (RFC 1123 label).
func CheckNamespace(s string) error {
	if !dnsPattern().MatchString(s) {
		return fmt.Errorf("namespace %q is not made of lower-case letters, digits and dashes (at most 63)", s)
	}
	return nil
}

// CheckTime reports whether s is a time in its one spelling: RFC 3339, in UTC, in whole seconds,
// not before 1970.
func CheckTime(s string) error {
	if t, err := time.Parse(time.RFC3339, s); err != nil || t.UTC().Format(time.RFC3339) != s || t.Year() < 1970 {
		return fmt.Errorf("time %q is not in UTC and written as 2026-01-02T03:04:05Z", s)
	}
	return nil
}

// CheckDigest reports whether s is a sha256 digest in its one spelling.
func CheckDigest(s string) error {
	if !digestPattern().MatchString(s) {
		return fmt.Errorf("digest %q is not sha256: and 64 lower-case hex digits", s)
	}
	return nil
}

// Validate checks every rule that a manifest obeys beyond its syntax. Its errors wrap
// ErrInvalid.
func (m *Manifest) Validate() error {
	if err := m.validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}

func (m *Manifest) validate() error {
	if m.MediaType != MediaType || m.Format != Format {
		return fmt.Errorf("mediaType %q format %d, want %q format %d", m.MediaType, m.Format, MediaType, Format)
	}
	if m.Head < 0 || m.Head > MaxHead || m.Head%4096 != 0 {
		return fmt.Errorf("head %d is not a multiple of 4096 from 0 to %d", m.Head, MaxHead)
	}
	if err := errors.Join(CheckName(m.Name), CheckVersion(m.Version)); err != nil {
		return err
	}
	if !namePattern().MatchString(m.Channel) {
		return fmt.Errorf("channel %q is not made of lower-case letters, digits and dashes", m.Channel)
	}
	if err := CheckTime(m.Created); err != nil {
		return fmt.Errorf("created: %w", err)
	}
	if err := CheckTime(m.Expires); m.Expires != "" && err != nil {
		return fmt.Errorf("expires: %w", err)
	}
	if len(m.Platforms) == 0 {
		return errors.New("no platforms")
	}
	if err := checkPlatforms(m.Platforms); err != nil {
		return err
	}
	if len(m.Images) > MaxImages || len(m.Charts) > MaxCharts || len(m.Blobs) > MaxEntries || len(m.Entries) > MaxEntries {
		return fmt.Errorf("%d images, %d charts, %d blobs, %d entries: at most %d, %d, %d, %d", len(m.Images), len(m.Charts), len(m.Blobs), len(m.Entries), MaxImages, MaxCharts, MaxEntries, MaxEntries)
	}
	blobs, err := m.validateBlobs()
	if err != nil {
		return err
	}
	if err := m.validateImages(blobs); err != nil {
		return err
	}
	if err := m.validateCharts(blobs); err != nil {
		return err
	}
	return m.validateEntries()
}

func checkPlatforms(platforms []string) error {
	seen := map[string]bool{}
	for _, p := range platforms {
		if err := CheckPlatform(p); err != nil {
			return err
		}
		if seen[p] {
			return fmt.Errorf("platform %q twice", p)
		}
		seen[p] = true
	}
	return nil
}

func (m *Manifest) validateBlobs() (map[string]*Blob, error) {
	blobs := make(map[string]*Blob, len(m.Blobs))
	for i := range m.Blobs {
		b := &m.Blobs[i]
		if err := checkDescriptor(Descriptor{Digest: b.Digest, MediaType: b.MediaType, Size: b.Size}, MaxEntryBytes); err != nil {
			return nil, fmt.Errorf("blob %d: %w", i, err)
		}
		if b.Encoding != EncodingStored && b.Encoding != EncodingZstd {
			return nil, fmt.Errorf("blob %s: encoding %q, this version knows %q and %q", b.Digest, b.Encoding, EncodingStored, EncodingZstd)
		}
		if blobs[b.Digest] != nil {
			return nil, fmt.Errorf("blob %s twice", b.Digest)
		}
		blobs[b.Digest] = b
	}
	return blobs, nil
}

func checkDescriptor(d Descriptor, limit int64) error {
	if err := CheckDigest(d.Digest); err != nil {
		return err
	}
	if !mediaPattern().MatchString(d.MediaType) {
		return fmt.Errorf("%s: media type %q is malformed", d.Digest, d.MediaType)
	}
	if d.Size < 0 || d.Size > limit {
		return fmt.Errorf("%s: size %d is not from 0 to %d", d.Digest, d.Size, limit)
	}
	return nil
}

// carried checks that d is among the blobs, with the same size.
func carried(blobs map[string]*Blob, d Descriptor, limit int64) error {
	if err := checkDescriptor(d, limit); err != nil {
		return err
	}
	b := blobs[d.Digest]
	if b == nil {
		return fmt.Errorf("%s is not among the blobs", d.Digest)
	}
	// Values may have the bytes of another blob, which then has its own type.
	if b.MediaType != d.MediaType && d.MediaType != MediaTypeValues {
		return fmt.Errorf("%s is a %q here and a %q among the blobs", d.Digest, d.MediaType, b.MediaType)
	}
	if b.Size != d.Size {
		return fmt.Errorf("%s has size %d here and %d among the blobs", d.Digest, d.Size, b.Size)
	}
	return nil
}

func (m *Manifest) validateImages(blobs map[string]*Blob) error {
	sources := map[string]bool{}
	for i := range m.Images {
		img := &m.Images[i]
		if sources[img.Source] {
			return fmt.Errorf("image %q twice", img.Source)
		}
		sources[img.Source] = true
		if err := img.validate(blobs); err != nil {
			return fmt.Errorf("image %q: %w", img.Source, err)
		}
	}
	return nil
}

func (img *Image) validate(blobs map[string]*Blob) error {
	if len(img.Source) > 512 || !sourcePattern().MatchString(img.Source) {
		return errors.New("is not a fully qualified reference")
	}
	if err := carried(blobs, Descriptor{img.Digest, img.MediaType, img.Size}, MaxOCIManifestBytes); err != nil {
		return err
	}
	if _, pinned, ok := strings.Cut(img.Source, "@"); ok && pinned != img.Digest {
		return fmt.Errorf("pinned to another digest than %s", img.Digest)
	}
	if len(img.Platforms) == 0 {
		return errors.New("no platforms")
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
	if err := img.validateReferrers(blobs); err != nil {
		return err
	}
	if err := img.validateSigners(blobs); err != nil {
		return err
	}
	if len(img.Reasons) == 0 {
		return errors.New("no reason given for it")
	}
	for _, r := range img.Reasons {
		if r.Kind != ReasonSpec && r.Kind != ReasonChart {
			return fmt.Errorf("reason of unknown kind %q", r.Kind)
		}
		for _, s := range []string{r.Chart, r.Object, r.Path} {
			if !plain(s) {
				return fmt.Errorf("reason %q holds characters that cannot be shown, or is too long", s)
			}
		}
	}
	return nil
}

// ReferrerTags are the endings of the tags by which cosign finds what is about an image.
var ReferrerTags = []string{".sig", ".att", ".sbom"}

// ReferrerTag is the tag by which cosign finds what is about the image with a digest.
func ReferrerTag(digest, ending string) string {
	return strings.Replace(digest, ":", "-", 1) + ending
}

func (img *Image) validateReferrers(blobs map[string]*Blob) error {
	if len(img.Referrers) > MaxReferrers {
		return fmt.Errorf("%d referrers, at most %d are allowed", len(img.Referrers), MaxReferrers)
	}
	if img.ReferrersDropped && len(img.Referrers)+len(img.SignedBy) > 0 {
		return errors.New("referrers, or signers, where referrers were dropped")
	}
	subjects := map[string]bool{img.Digest: true}
	for _, c := range img.Children {
		subjects[c.Digest] = true
	}
	seen := map[string]bool{}
	for _, r := range img.Referrers {
		// What a referrer is about stands before it, so that there are no circles.
		if !subjects[r.Subject] {
			return fmt.Errorf("referrer %s is about %q, which is nothing of this image", r.Digest, r.Subject)
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

func (m *Manifest) validateCharts(blobs map[string]*Blob) error {
	releases := map[string]bool{}
	archives := map[string]string{}
	for i := range m.Charts {
		c := &m.Charts[i]
		if err := c.validate(blobs); err != nil {
			return fmt.Errorf("chart %q: %w", c.Name, err)
		}
		key := c.Namespace + "/" + c.Release
		if releases[key] {
			return fmt.Errorf("release %q twice", key)
		}
		releases[key] = true
		name := c.Name + ":" + c.Version
		if other, twice := archives[name]; twice && other != c.Manifest.Digest {
			return fmt.Errorf("two different charts are both called %q", name)
		}
		archives[name] = c.Manifest.Digest
	}
	return nil
}

func (c *Chart) validate(blobs map[string]*Blob) error {
	if !chartPattern().MatchString(c.Name) || !chartVersionPattern().MatchString(c.Version) {
		return fmt.Errorf("malformed name or version %q", c.Version)
	}
	if !plain(c.AppVersion) {
		return fmt.Errorf("appVersion %q holds characters that cannot be shown, or is too long", c.AppVersion)
	}
	if err := errors.Join(CheckRelease(c.Release), CheckNamespace(c.Namespace)); err != nil {
		return err
	}
	if err := carried(blobs, c.Manifest, MaxOCIManifestBytes); err != nil {
		return err
	}
	if err := carried(blobs, c.Archive, MaxArchiveBytes); err != nil {
		return err
	}
	for _, v := range c.Values {
		if v.Name == "" || len(v.Name) > 255 || !plain(v.Name) {
			return fmt.Errorf("values file name %q", v.Name)
		}
		if err := carried(blobs, Descriptor{v.Digest, MediaTypeValues, v.Size}, MaxValuesBytes); err != nil {
			return fmt.Errorf("values %q: %w", v.Name, err)
		}
	}
	return nil
}

// validateEntries checks that the entries are those that Arrange makes: there is no freedom
// in them, but for size and digest of what encoded blobs are encoded to, that could be used to
// say something else.
func (m *Manifest) validateEntries() error {
	const before = 2 // oci-layout and index.json
	encoded := map[string]Entry{}
	for i, b := range m.Blobs {
		if b.Encoding == EncodingStored || before+i >= len(m.Entries) {
			continue
		}
		e := m.Entries[before+i]
		if e.Size < 1 || e.Size > MaxEntryBytes {
			return fmt.Errorf("entry %q: size %d is not from 1 to %d", e.Name, e.Size, int64(MaxEntryBytes))
		}
		if err := CheckDigest("sha256:" + e.SHA256); err != nil {
			return fmt.Errorf("entry %q: %w", e.Name, err)
		}
		encoded[b.Digest] = e
	}
	want := *m
	if err := Arrange(&want, encoded); err != nil {
		return err
	}
	if len(want.Entries) != len(m.Entries) {
		return fmt.Errorf("%d entries, the blobs make it %d", len(m.Entries), len(want.Entries))
	}
	for i, e := range m.Entries {
		if e != want.Entries[i] {
			return fmt.Errorf("entry %d is %q of %d bytes with digest %s, the manifest makes it %q of %d bytes with digest %s",
				i, e.Name, e.Size, e.SHA256, want.Entries[i].Name, want.Entries[i].Size, want.Entries[i].SHA256)
		}
	}
	return nil
}
