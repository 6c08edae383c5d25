package manifest

import (
	"fmt"
	"strings"
)

// valuePathPattern is of keys between dots. In a key, a dot or a backslash has a backslash before it.
var valuePathPattern = lazily(`\A(?:[^.\[\]\\]|\\[.\\])+(?:\.(?:[^.\[\]\\]|\\[.\\])+)*\z`)

// CheckValuePath reports whether s is the path of a chart value: keys separated by dots, as in
// "ingress.host". A dot or a backslash in a key has a backslash before it, as for helm --set:
// `podAnnotations.example\.com/scrape`. Elements of lists cannot be named.
func CheckValuePath(s string) error {
	if !plain(s) || !valuePathPattern().MatchString(s) {
		return fmt.Errorf("path %q is not made of keys between dots, as ingress.host (a dot in a key is written \\., at most %d bytes)", s, MaxTextBytes)
	}
	if n := len(SplitValuePath(s)); n > MaxPathKeys {
		return fmt.Errorf("path %q has %d keys, at most %d are allowed", s, n, MaxPathKeys)
	}
	return nil
}

// SplitValuePath returns the keys of a path that CheckValuePath accepts.
func SplitValuePath(s string) []string {
	var keys []string
	var key strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '.':
			keys = append(keys, key.String())
			key.Reset()
			continue
		case s[i] == '\\' && i+1 < len(s):
			i++
		}
		key.WriteByte(s[i])
	}
	return append(keys, key.String())
}

// JoinValuePath makes a path of keys: what SplitValuePath takes apart.
func JoinValuePath(keys []string) string {
	escaped := make([]string, len(keys))
	for i, key := range keys {
		escaped[i] = strings.NewReplacer(`\`, `\\`, ".", `\.`).Replace(key)
	}
	return strings.Join(escaped, ".")
}

// CheckFileName reports whether s can name a file of a bundle: a relative path with slashes, without
// empty, "." and ".." parts, without backslashes, colons and what cannot be shown, so that it means
// the same everywhere and leads nowhere else.
func CheckFileName(s string) error {
	if !plain(s) || len(s) > MaxFileNameBytes || strings.ContainsAny(s, `\:`) {
		return fmt.Errorf("file name %q holds a backslash, a colon or characters that cannot be shown, or is too long", s)
	}
	for part := range strings.SplitSeq(s, "/") {
		if part == "" || part == "." || part == ".." || len(part) > MaxFileNamePart {
			return fmt.Errorf("file name %q is not a relative path, or has a part that is . or .. or has more than %d bytes", s, MaxFileNamePart)
		}
	}
	return nil
}

// folded is name with its ASCII letters in lower case. Other letters keep theirs: what they become
// depends on the version of Unicode.
func folded(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, name)
}
