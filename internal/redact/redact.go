// Package redact takes secrets out of texts: those that are known, however they are spelled, and what looks
// like one. What it does is no proof that nothing is left: it is for logs and reports that people read
// before they hand them on.
package redact

import (
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

const (
	// Hidden stands for a secret.
	Hidden = "(hidden)"
	// MinSecret is how long a text is at least, in bytes, that is looked for: what is shorter is a part of
	// other words, and no secret for long.
	MinSecret = 4
	// minLine is how long a line of a secret of several lines is at least that is looked for by itself.
	minLine = 8
)

// minEncoded is how long a word is at least that may be base64.
const minEncoded = 8

// encoded reports whether a byte may be a part of base64, in either alphabet.
func encoded(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '+' || c == '/' || c == '-' || c == '_'
}

// Known is a set of secrets. It may be used by several goroutines.
type Known struct {
	replace *strings.Replacer
	// starts are the secrets by their first four bytes: there may be thousands.
	starts map[uint32][]string
}

// New makes a set of secrets: those of at least MinSecret bytes.
func New(secrets []string) *Known {
	k := &Known{starts: map[uint32][]string{}}
	var spellings []string
	for _, secret := range secrets {
		if len(secret) < MinSecret {
			continue
		}
		start := binary.BigEndian.Uint32([]byte(secret[:MinSecret]))
		k.starts[start] = append(k.starts[start], secret)
		spellings = append(spellings, spelled(secret)...)
		for line := range strings.Lines(secret) {
			if line = strings.TrimSpace(line); len(line) >= minLine && line != secret {
				spellings = append(spellings, spelled(line)...)
			}
		}
	}
	if len(spellings) == 0 {
		return k
	}
	// The longest first, so that none is cut in two by another.
	slices.SortFunc(spellings, func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b)) })
	var pairs []string
	for _, s := range slices.Compact(spellings) {
		pairs = append(pairs, s, Hidden)
	}
	k.replace = strings.NewReplacer(pairs...)
	return k
}

// Hide takes the secrets out of a text, in the spellings in which charts, clusters and encoders repeat
// them.
func (k *Known) Hide(text string) string {
	if k.replace == nil {
		return text
	}
	var b strings.Builder
	done := 0
	for i := 0; i < len(text); i++ {
		begin := i
		for i < len(text) && encoded(text[i]) {
			i++
		}
		if i-begin < minEncoded || !k.inBase64(text[begin:i]) {
			continue
		}
		for end := i + 2; i < min(len(text), end) && text[i] == '='; {
			i++
		}
		b.WriteString(text[done:begin] + Hidden)
		done = i
		i--
	}
	b.WriteString(text[done:])
	return k.replace.Replace(b.String())
}

// inBase64 reports whether a word is the base64 of a text that holds a secret.
func (k *Known) inBase64(word string) bool {
	for _, alphabet := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		if raw, err := alphabet.DecodeString(word); err == nil && k.in(raw) {
			return true
		}
	}
	return false
}

// in reports whether a text holds a secret.
func (k *Known) in(text []byte) bool {
	for i := 0; i+MinSecret <= len(text); i++ {
		for _, secret := range k.starts[binary.BigEndian.Uint32(text[i:])] {
			if strings.HasPrefix(string(text[i:min(len(text), i+len(secret))]), secret) {
				return true
			}
		}
	}
	return false
}

// spelled are the ways to write a text.
func spelled(text string) []string {
	once := quotedText(text)
	return []string{
		text, once, quotedText(once), jsonText(text), jsonText(jsonText(text)), jsonText(once), quotedText(jsonText(text)),
		strings.ReplaceAll(text, "'", "''"), url.QueryEscape(text), url.PathEscape(text),
		base64.StdEncoding.EncodeToString([]byte(text)), base64.URLEncoding.EncodeToString([]byte(text)),
	}
}

func quotedText(s string) string {
	q := strconv.Quote(s)
	return q[1 : len(q)-1]
}

func jsonText(s string) string {
	raw, err := json.Marshal(s)
	if err != nil {
		return s // cannot happen: texts always marshal
	}
	return string(raw[1 : len(raw)-1])
}
