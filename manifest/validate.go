package manifest

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
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
	// subdomainPattern is that of names of most Kubernetes objects (RFC 1123 subdomain).
	subdomainPattern = lazily(`\A[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*\z`)
)

// lazily compiles a pattern when it is first used: most commands need few of them, and all of
// them would be compiled at each start.
func lazily(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}

// plain reports whether s can be shown at a terminal: at most MaxTextBytes of UTF-8, no control
// characters, and none that change the direction or the lines of a text.
func plain(s string) bool {
	return len(s) <= MaxTextBytes && utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool {
		return r < 0x20 || r >= 0x7f && r < 0xa0 || r == 0x200e || r == 0x200f || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069
	}) < 0
}

// plainLines is plain for a text of several lines.
func plainLines(s string) bool { return plain(strings.ReplaceAll(s, "\n", " ")) }

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
	if err := m.validateCounts(); err != nil {
		return err
	}
	blobs, err := m.validateBlobs()
	if err != nil {
		return err
	}
	for _, check := range []func() error{
		func() error { return m.validateImages(blobs) },
		m.validateIgnored,
		func() error { return m.validateCharts(blobs) },
		func() error { return m.validateFiles(blobs) },
		func() error { return m.validateNotes(blobs) },
		m.validateRequires,
		m.validateParameters,
		m.validateEntries,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// validateCounts bounds the lists before anything walks over them.
func (m *Manifest) validateCounts() error {
	for _, l := range []struct {
		what      string
		got, most int
	}{
		{"images and artifacts", len(m.Images) + len(m.Artifacts), MaxImages},
		{"ignored images", len(m.Ignored), MaxIgnored},
		{"charts", len(m.Charts), MaxCharts},
		{"files", len(m.Files), MaxFiles},
		{"parameters", len(m.Parameters), MaxParameters},
		{"blobs", len(m.Blobs), MaxEntries},
		{"entries", len(m.Entries), MaxEntries},
	} {
		if l.got > l.most {
			return fmt.Errorf("%d %s, at most %d are allowed", l.got, l.what, l.most)
		}
	}
	return nil
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

// sharedTypes are the media types of what may have the bytes of a blob of another type.
var sharedTypes = []string{MediaTypeValues, MediaTypeFile, MediaTypeNotes, MediaTypeObjects}

// carriedAs checks that d is among the blobs and says that it is of type mediaType.
func carriedAs(mediaType string, blobs map[string]*Blob, d Descriptor, limit int64) error {
	if d.MediaType != mediaType {
		return fmt.Errorf("%s is a %q, want %q", d.Digest, d.MediaType, mediaType)
	}
	return carried(blobs, d, limit)
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
	// What the vendor brings may have the bytes of another blob, which then has its own type.
	if b.MediaType != d.MediaType && !slices.Contains(sharedTypes, d.MediaType) {
		return fmt.Errorf("%s is a %q here and a %q among the blobs", d.Digest, d.MediaType, b.MediaType)
	}
	if b.Size != d.Size {
		return fmt.Errorf("%s has size %d here and %d among the blobs", d.Digest, d.Size, b.Size)
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
