package redact

import (
	"regexp"
	"slices"
	"strings"
	"sync"
)

// secretWords are parts of the names of secrets.
const secretWords = `(?:passw(?:or)?d|passphrase|pwd|secret|token|credential|api[_-]?key|access[_-]?key|private[_-]?key|signing[_-]?key|encryption[_-]?key|auth[_-]?key|dsn|connection[_-]?string)`

var (
	secretName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(?i)` + secretWords + `|(?:^|[_-])pass$|[_-]key$`) })
	// saysWhere are endings of the names of what only says where a secret is, or how long it lasts.
	saysWhere = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`(?i)(?:name|names|ref|refs|path|file|dir|url|uri|type|seconds|namespace|version|review)$`)
	})
	// looks are what secrets look like in texts; what the first group matches stays.
	looks = sync.OnceValue(func() []*regexp.Regexp {
		return []*regexp.Regexp{
			// Keys in PEM, also where the line breaks are written as \n.
			regexp.MustCompile(`(-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----)[^-]*`),
			// Passwords in addresses.
			regexp.MustCompile(`([a-zA-Z][a-zA-Z0-9+.-]*://[^/@\s:"']*:)[^/@\s"']+(?:@)`),
			// Headers (RFC 9110, section 11), and tokens in them.
			regexp.MustCompile(`((?i:authorization["']?\s*[:=]\s*["']?)(?:[A-Za-z]+ )?)[^\s"',;]+`),
			regexp.MustCompile(`(\b(?:Bearer|Basic) )[A-Za-z0-9._~+/=-]{8,}`),
			// JSON Web Tokens (RFC 7519).
			regexp.MustCompile(`()\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*`),
			// password=…, "token": "…", --api-key …
			regexp.MustCompile(`((?i:[a-z0-9_.-]*` + secretWords + `(?:[_.-]?[a-z0-9]+)?)\\?["']?[ \t]*[:=][ \t]*)(?:\\?"[^"\n]*"|'[^'\n]*'|[^\s"',;&}{\[\]]+)`),
			regexp.MustCompile(`(--?(?i:[a-z0-9-]*` + secretWords + `)[ ])[^\s-][^\s]*`),
		}
	})
)

// IsName reports whether what has this name is likely a secret itself, and not only says where one is.
func IsName(name string) bool {
	return secretName().MatchString(name) && !saysWhere().MatchString(name)
}

// plain are values that are none, whatever their name.
var plain = map[string]bool{"true": true, "false": true, "null": true, "none": true, "nil": true, "<nil>": true, Hidden: true}

// hints are parts of all lines in which there is something to be found, in lower case: to look for these is
// much faster.
var hints = []string{"pass", "pwd", "secret", "token", "credential", "key", "dsn", "connection", "://", "authorization", "bearer", "basic", "eyj"}

// Looks takes out of a text what looks like a secret: what is assigned to such a name, keys, tokens,
// passwords in addresses. It takes out too much rather than too little.
func Looks(text string) string {
	if strings.Contains(text, "PRIVATE KEY-----") {
		text = replace(0, looks()[0], text)
	}
	var b strings.Builder
	for line := range strings.Lines(text) {
		lower := strings.ToLower(line)
		if slices.ContainsFunc(hints, func(hint string) bool { return strings.Contains(lower, hint) }) {
			for i, re := range looks()[1:] {
				line = replace(i+1, re, line)
			}
		}
		b.WriteString(line)
	}
	return b.String()
}

// replace hides what one of looks finds.
func replace(i int, re *regexp.Regexp, text string) string {
	return re.ReplaceAllStringFunc(text, func(found string) string {
		head := re.FindStringSubmatch(found)[1]
		value := strings.Trim(found[len(head):], `"'\`)
		if plain[strings.ToLower(value)] || strings.HasPrefix(value, Hidden) {
			return found
		}
		if i >= len(looks())-2 {
			if name := strings.TrimRight(strings.TrimSpace(head), "\"'\\:= \t"); saysWhere().MatchString(name) {
				return found
			}
		}
		quote := ""
		if rest := found[len(head):]; i == len(looks())-2 {
			quote = rest[:len(rest)-len(strings.TrimLeft(rest, `\"'`))]
		}
		return head + quote + Hidden + quote + ending(found)
	})
}

// ending keeps the @ of an address.
func ending(found string) string {
	if strings.HasSuffix(found, "@") && strings.Contains(found, "://") {
		return "@"
	}
	return ""
}
