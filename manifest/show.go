package manifest

import "strings"

// Showable is s without the characters that a manifest does not take into what people are shown;
// for those that were in their way there is a "?".
func Showable(s string) string {
	return strings.Map(func(r rune) rune {
		if plain(string(r)) {
			return r
		}
		return '?'
	}, strings.ToValidUTF8(s, "?"))
}
