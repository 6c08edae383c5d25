package manifest

import (
	"errors"
	"strings"
	"testing"
)

// What takes little room in the file and much in memory is refused before it is decoded.
func TestTooManyMembersAreNotDecoded(t *testing.T) {
	const begin = prefix + `1,"name":"shop","version":"1.0.0",`
	for name, members := range map[string]string{
		"empty objects": `"images":[` + strings.Repeat(`{},`, 100000) + `{}]}`,
		"inner objects": `"images":[{"children":[` + strings.Repeat(`{},`, 100000) + `{}]}]}`,
		"empty texts":   `"platforms":[` + strings.Repeat(`"",`, 100000) + `""]}`,
	} {
		if _, err := Parse([]byte(begin + members)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
}
