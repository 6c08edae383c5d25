package sigstore

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
)

// ErrPattern is wrapped by every error about a pattern.
var ErrPattern = errors.New("not a usable pattern")

// separators end a segment of an identity: those of URLs, of mail addresses, and of the subjects
// that workflow services issue.
const separators = "/:@?#"

// maxPattern bounds a pattern, in bytes.
const maxPattern = 1024

// Pattern matches a text: as a literal, as a glob, or as a regular expression. The zero Pattern
// matches nothing.
type Pattern struct {
	text string
	re   *regexp.Regexp
}

// Glob reads a literal, or a pattern in which each * stands for one or more characters other than
// separators: it stays within its segment. Errors wrap ErrPattern.
func Glob(text, separators string) (Pattern, error) {
	switch {
	case text == "":
		return Pattern{}, fmt.Errorf("empty: %w", ErrPattern)
	case len(text) > maxPattern:
		return Pattern{}, fmt.Errorf("%d bytes, at most %d are allowed: %w", len(text), maxPattern, ErrPattern)
	case strings.Contains(text, "**"):
		return Pattern{}, fmt.Errorf("%q: ** is unknown, a * stays within its segment: %w", text, ErrPattern)
	}
	p := Pattern{text: text}
	if strings.Contains(text, "*") {
		parts := strings.Split(text, "*")
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		// Line ends and other control characters are in no identity that is meant.
		within := `[^` + regexp.QuoteMeta(separators) + `\x00-\x1f\x7f]+`
		var err error
		if p.re, err = regexp.Compile(`\A(?:` + strings.Join(parts, within) + `)\z`); err != nil {
			return Pattern{}, fmt.Errorf("%q: %w: %w", text, ErrPattern, err)
		}
	}
	return p, nil
}

// RegExp reads a regular expression (RE2), which has to match the whole text. Errors wrap
// ErrPattern.
func RegExp(text string) (Pattern, error) {
	if text == "" || len(text) > maxPattern {
		return Pattern{}, fmt.Errorf("regular expression of %d bytes, 1 to %d are allowed: %w", len(text), maxPattern, ErrPattern)
	}
	// By itself first: "a)|(b" would close the group that anchors it.
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return Pattern{}, fmt.Errorf("%q: %w: %w", text, ErrPattern, err)
	}
	if n := weight(parsed); n > maxWeight {
		return Pattern{}, fmt.Errorf("%.40q…: with its repetitions written out it has more than %d parts: %w", text, maxWeight, ErrPattern)
	}
	re, err := regexp.Compile(`\A(?:` + text + `)\z`)
	if err != nil {
		return Pattern{}, fmt.Errorf("%q: %w: %w", text, ErrPattern, err)
	}
	return Pattern{text, re}, nil
}

// maxWeight bounds what a regular expression is compiled to: root documents that nobody has vouched
// for have some.
const maxWeight = 4096

// weight is about how many instructions a regular expression makes, with a limit.
func weight(re *syntax.Regexp) int {
	n := 1 + len(re.Rune)
	for _, sub := range re.Sub {
		n = min(n+weight(sub), maxWeight+1)
	}
	if re.Op == syntax.OpRepeat {
		n *= max(re.Min, re.Max, 1)
	}
	return min(n, maxWeight+1)
}

// Matches reports whether p matches all of s.
func (p Pattern) Matches(s string) bool {
	switch {
	case p.text == "" || s == "":
		return false
	case p.re != nil:
		return p.re.MatchString(s)
	}
	return p.text == s
}

// Literal reports whether p matches only the text that it is written as.
func (p Pattern) Literal() bool { return p.re == nil && p.text != "" }

// String is how p is written.
func (p Pattern) String() string { return p.text }

// Identity says which certificates count: by who issued the proof of identity, and to whom.
type Identity struct{ Issuer, Subject Pattern }

// ParseIdentity reads an identity, of which exactly one form of the issuer and one of the subject
// are given. A * in a literal form stays within a segment, which ends at / : @ ? and #. Errors wrap
// ErrPattern.
func ParseIdentity(issuer, issuerRegExp, subject, subjectRegExp string) (Identity, error) {
	i, err := parsePattern("issuer", issuer, issuerRegExp)
	if err != nil {
		return Identity{}, err
	}
	s, err := parsePattern("subject", subject, subjectRegExp)
	if err != nil {
		return Identity{}, err
	}
	return Identity{i, s}, nil
}

func parsePattern(what, glob, re string) (Pattern, error) {
	if (glob == "") == (re == "") {
		return Pattern{}, fmt.Errorf("%s: exactly one of %s and %sRegExp is wanted: %w", what, what, what, ErrPattern)
	}
	var p Pattern
	var err error
	if re != "" {
		p, err = RegExp(re)
	} else {
		p, err = Glob(glob, separators)
	}
	if err != nil {
		return Pattern{}, fmt.Errorf("%s: %w", what, err)
	}
	return p, nil
}

// Matches reports whether the identity is one for which i stands.
func (i Identity) Matches(issuer, subject string) bool {
	return i.Issuer.Matches(issuer) && i.Subject.Matches(subject)
}

// String names issuer and subject.
func (i Identity) String() string { return i.Subject.String() + " by " + i.Issuer.String() }
