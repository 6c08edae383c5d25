package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/sealift/sealift/manifest"
)

// lockHeader is the beginning of every lock.
const lockHeader = `# What the spec beside this file led to when it was locked: every image, chart and file, by digest.
# Written by 'sealift lock'; two packs from it by one version of Sealift are the same, byte by byte.
# It belongs into version control, together with the spec, and is not edited by hand.
# To move forward: 'sealift lock --update [NAME...]'. It prints what has changed.
apiVersion: ` + LockAPIVersion + `
kind: ` + LockKind + `
`

// Encode writes the lock in its one form: sorted, one fact on each line. A lock that a reader would
// refuse is an error; a file that stands there twice with the same digest is written once.
func (l *Lock) Encode() ([]byte, error) {
	l = l.sorted()
	var problems []error
	l.check(func(_ string, _ int, err error) {
		if len(problems) < maxLockProblems {
			problems = append(problems, err)
		}
	})
	if len(problems) > 0 {
		return nil, fmt.Errorf("encoding lock: %w", errors.Join(problems...))
	}
	w := &lockText{}
	w.WriteString(lockHeader)
	w.WriteString("# The time of bundles that are packed from this lock.\n")
	w.fact(0, "created", l.Created)
	if len(l.Images) > 0 {
		w.section("images", "Images: what each reference led to, the platforms that travel, and what is about them.")
		w.images(l.Images)
	}
	if len(l.Artifacts) > 0 {
		w.section("artifacts", "Artifacts in registries that are no images.")
		w.images(l.Artifacts)
	}
	if len(l.Charts) > 0 {
		w.section("charts", "Charts, by the release (NAMESPACE/RELEASE) that is made of each.")
		w.charts(l.Charts)
	}
	if len(l.Files) > 0 {
		w.section("files", "Files on the machine that packs. Of manifests the digest is that of what is rendered.")
		for _, f := range l.Files {
			w.item = true
			w.fact(1, "path", f.Path)
			w.fact(1, "digest", f.Digest)
			if f.Executable {
				w.bare(1, "executable", "true")
			}
		}
	}
	raw := []byte(w.String())
	if problems := beforeLock(raw); len(problems) > 0 {
		return nil, fmt.Errorf("encoding lock: %s", problems[0].Text)
	}
	return raw, nil
}

// lockText writes the YAML of a lock.
type lockText struct {
	strings.Builder
	// item says that the next key begins an item of a list.
	item bool
}

// section begins a list at the top.
func (w *lockText) section(key, comment string) {
	w.WriteString("\n# " + comment + "\n" + key + ":\n")
}

// key writes a key of an item of a list within depth lists.
func (w *lockText) key(depth int, key string) {
	indent := strings.Repeat("    ", depth)
	if w.item {
		indent = indent[:len(indent)-2] + "- "
		w.item = false
	}
	w.WriteString(indent + key + ":")
}

// fact writes a key and its value; nothing where the value is empty.
func (w *lockText) fact(depth int, key, value string) {
	if value == "" {
		return
	}
	w.key(depth, key)
	if !bareText(value) {
		// Every escape that Go knows is one of YAML with the same meaning, of text that is UTF-8.
		value = strconv.Quote(value)
	}
	w.WriteString(" " + value + "\n")
}

// bare writes a key and a number or truth value.
func (w *lockText) bare(depth int, key, value string) {
	w.key(depth, key)
	w.WriteString(" " + value + "\n")
}

// list begins a list within an item.
func (w *lockText) list(depth int, key string) {
	w.key(depth, key)
	w.WriteString("\n")
}

var (
	bareWord = lazily(`\A(?:[A-Za-z]|\.{0,2}/|[0-9]+\.[0-9]+\.[0-9])[A-Za-z0-9._/@:+~-]*\z`)
	// reservedWord is what some version of YAML takes for a truth value or for nothing.
	reservedWord = lazily(`(?i)\A(?:y|yes|n|no|true|false|on|off|null)\z`)
)

// bareText reports whether every reader of YAML takes s for a text without quotes.
func bareText(s string) bool {
	return bareWord().MatchString(s) && !strings.HasSuffix(s, ":") && !reservedWord().MatchString(s)
}

func (w *lockText) images(images []LockedImage) {
	for i := range images {
		img := &images[i]
		w.item = true
		w.fact(1, "ref", img.Ref)
		w.fact(1, "oci", img.OCI)
		w.fact(1, "digest", img.Digest)
		w.fact(1, "mediaType", img.MediaType)
		w.bare(1, "size", strconv.FormatInt(img.Size, 10))
		w.fact(1, "platform", img.Platform)
		if len(img.Platforms) > 0 {
			w.list(1, "platforms")
		}
		for _, p := range img.Platforms {
			w.item = true
			w.fact(2, "platform", p.Platform)
			w.fact(2, "digest", p.Digest)
		}
		w.referrers(img.Referrers)
		if img.Dropped {
			w.bare(1, "referrersDropped", "true")
		}
	}
}

func (w *lockText) charts(charts []LockedChart) {
	for i := range charts {
		c := &charts[i]
		w.item = true
		w.fact(1, "release", c.Release)
		w.fact(1, "chart", c.Chart)
		w.fact(1, "range", c.Range)
		w.fact(1, "version", c.Version)
		w.fact(1, "digest", c.Digest)
		w.fact(1, "manifest", c.Manifest)
		w.fact(1, "provenance", c.Provenance)
		if len(c.Dependencies) > 0 {
			w.list(1, "dependencies")
		}
		for _, d := range c.Dependencies {
			w.item = true
			w.fact(2, "name", d.Name)
			w.fact(2, "version", d.Version)
			w.fact(2, "repository", d.Repository)
			w.fact(2, "digest", d.Digest)
		}
		w.referrers(c.Referrers)
	}
}

func (w *lockText) referrers(list []manifest.Referrer) {
	if len(list) > 0 {
		w.list(1, "referrers")
	}
	for _, r := range list {
		w.item = true
		w.fact(2, "digest", r.Digest)
		w.fact(2, "mediaType", r.MediaType)
		w.bare(2, "size", strconv.FormatInt(r.Size, 10))
		w.fact(2, "subject", r.Subject)
		w.fact(2, "artifactType", r.ArtifactType)
		w.fact(2, "tag", r.Tag)
	}
}

// Write writes the lock to path, all of it or nothing. Where the lock that is there differs in
// nothing but its time, l gets that time, so that locking again without changes gives the very same
// file; where it is the same to the byte, it is not touched.
func (l *Lock) Write(path string) error {
	raw, err := l.Encode()
	if err != nil {
		return err
	}
	old, err := readStart(path, MaxLockBytes+1)
	if err == nil {
		if there, problems := ParseLock(old); len(problems) == 0 {
			again := l.clone()
			again.Created = there.Created
			same, err := again.Encode()
			if err != nil {
				return err
			}
			canonical, err := there.Encode()
			if err != nil {
				return err
			}
			if bytes.Equal(same, canonical) {
				l.Created, raw = there.Created, same
			}
		}
		if bytes.Equal(raw, old) {
			return nil
		}
	}
	// What cannot be read, or is no lock, is replaced if it can be.
	if err := writeFile(path, 0o644, bytes.NewReader(raw)); err != nil {
		return fmt.Errorf("writing lock %q: %w", path, err)
	}
	return nil
}
