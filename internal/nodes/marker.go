package nodes

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Files that are written here begin with lines of comment, in all formats with #: for which bundles
// and routes, and a digest of all other lines, by which files are known that nobody has changed.
const (
	markWritten = "# written by sealift for "
	markRoute   = "# mirror: "
	markDigest  = "# digest of all other lines: sha256:"
	// markCA ends the line of a route whose registry is trusted by a certificate beside.
	markCA = " ca"
)

// Divider is the line after which the lines of a file are the site's own: they may be changed, and stay.
const Divider = "# What is below this line is yours: sealift writes it once and keeps it.\n"

// maxFile bounds a file that is read back, in bytes.
const maxFile = 16 << 20

// ErrForeign says that a file was not written here, or was changed since.
var ErrForeign = errors.New("not written by sealift")

// ErrEdited says that a file was written here and changed since. It is an ErrForeign.
var ErrEdited = fmt.Errorf("%w as it is now: somebody has changed it", ErrForeign)

// marked is body with the lines of comment before it.
func marked(m *Mirrors, body string) string {
	var b strings.Builder
	b.WriteString(markWritten)
	for i, name := range slices.Sorted(maps.Keys(m.bundles)) {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(name + " " + m.bundles[name])
	}
	b.WriteString("\n")
	for _, r := range m.routes {
		b.WriteString(markRoute + r.source() + " " + r.to.url(r.path))
		if r.to.CA {
			b.WriteString(markCA)
		}
		b.WriteString("\n")
	}
	sum := digest(b.String() + body)
	return b.String() + markDigest + sum + "\n" + body
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// own cuts a file where the site's own lines begin.
func own(content string) (head, tail string) {
	if head, tail, ok := strings.Cut(content, Divider); ok {
		return head, tail
	}
	return content, ""
}

// bodyOf is what comes after the lines of comment.
func bodyOf(content string) string {
	_, rest, _ := strings.Cut(content, markDigest)
	_, body, _ := strings.Cut(rest, "\n")
	return body
}

// Parse reads from a file that was written here which mirrors are in it. Errors are ErrForeign and
// ErrEdited.
func Parse(content []byte) (*Mirrors, error) {
	if len(content) > maxFile || !bytes.HasPrefix(content, []byte(markWritten)) {
		return nil, ErrForeign
	}
	head, _ := own(string(content))
	marks, rest, ok := strings.Cut(head, markDigest)
	sum, body, line := strings.Cut(rest, "\n")
	if !ok || !line || digest(marks+body) != sum {
		return nil, ErrEdited
	}
	m := &Mirrors{bundles: map[string]string{}}
	first, routes, _ := strings.Cut(marks, "\n")
	for title := range strings.SplitSeq(strings.TrimPrefix(first, markWritten), ", ") {
		name, version, _ := strings.Cut(title, " ")
		m.bundles[name] = version
	}
	names := slices.Sorted(maps.Keys(m.bundles))
	for line := range strings.Lines(routes) {
		text, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), markRoute)
		r, err := parseRoute(text)
		if !ok || err != nil {
			return nil, ErrEdited
		}
		r.bundles = names
		m.routes = append(m.routes, r)
	}
	if m.check() != nil {
		return nil, ErrEdited
	}
	return m, nil
}

func parseRoute(text string) (route, error) {
	var r route
	rest, ca := strings.CutSuffix(text, markCA)
	source, address, ok := strings.Cut(rest, " ")
	scheme, place, found := strings.Cut(address, "://")
	host, below, slash := strings.Cut(place, "/")
	if slash {
		below, slash = strings.CutPrefix(below, "v2/")
		ok = ok && slash
	}
	if !ok || !found || scheme != "http" && scheme != "https" {
		return r, fmt.Errorf("reading route %q: it is not written as SOURCE URL", text)
	}
	r.registry, r.repository, _ = strings.Cut(source, "/")
	r.to, r.path = Endpoint{host, scheme == "http", ca}, below
	return r, nil
}
