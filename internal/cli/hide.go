package cli

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
)

const (
	// hidden stands for a secret.
	hidden = "(hidden)"
	// minSecret is how long a text is at least that is looked for: what is shorter is a part of
	// other words, and no secret for long.
	minSecret = 4
	// minSecretLine is how long a line of a secret of several lines is at least that is looked for
	// by itself.
	minSecretLine = 8
)

// encoded is what may be base64, in either alphabet.
var encoded = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`[A-Za-z0-9+/_-]{8,}={0,2}`) })

// hide takes the secrets out of a text, in the spellings in which charts, clusters and encoders
// repeat them: the longest first, so that none is cut in two by another.
func (a *app) hide(text string) string {
	var spellings []string
	for _, secret := range a.secrets.all() {
		if len(secret) < minSecret {
			continue
		}
		spellings = append(spellings, spelled(secret)...)
		for line := range strings.Lines(secret) {
			if line = strings.TrimSpace(line); len(line) >= minSecretLine && line != secret {
				spellings = append(spellings, spelled(line)...)
			}
		}
	}
	if len(spellings) == 0 {
		return text
	}
	slices.SortFunc(spellings, func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b)) })
	var pairs []string
	for _, s := range slices.Compact(spellings) {
		pairs = append(pairs, s, hidden)
	}
	text = encoded().ReplaceAllStringFunc(text, func(word string) string {
		if a.holdsSecret(word) {
			return hidden
		}
		return word
	})
	return strings.NewReplacer(pairs...).Replace(text)
}

// holdsSecret reports whether a word is the base64 of a text that holds a secret.
func (a *app) holdsSecret(word string) bool {
	word = strings.TrimRight(word, "=")
	for _, alphabet := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		raw, err := alphabet.DecodeString(word)
		if err != nil {
			continue
		}
		if slices.ContainsFunc(a.secrets.all(), func(s string) bool { return len(s) >= minSecret && strings.Contains(string(raw), s) }) {
			return true
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
