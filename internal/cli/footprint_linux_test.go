package cli

import (
	"slices"
	"strings"
	"testing"
)

// TestUnchangedMappings: only what is the program's own, cannot be written to and never was is
// given back. The third mapping is what a loader leaves of relocated data.
func TestUnchangedMappings(t *testing.T) {
	const smaps = `00400000-01000000 r-xp 00000000 fd:00 1 /bin/sealift
Rss:               12288 kB
Anonymous:             0 kB
01000000-02000000 r--p 00c00000 fd:00 1 /bin/sealift
Anonymous:             0 kB
02000000-02100000 r--p 01c00000 fd:00 1 /bin/sealift
Anonymous:          1024 kB
02100000-02200000 rw-p 01d00000 fd:00 1 /bin/sealift
Anonymous:             0 kB
7f0000000000-7f0000100000 r-xp 00000000 fd:00 2 /lib/libc.so.6
Anonymous:             0 kB
7f0000200000-7f0000300000 ---p 00000000 fd:00 1 /bin/sealift
Anonymous:             0 kB
7f0000400000-7f0000500000 r--p 00000000 00:00 0
Anonymous:             0 kB
`
	got := unchanged(strings.NewReader(smaps), "/bin/sealift")
	if want := []mapping{{0x400000, 0x1000000}, {0x1000000, 0x2000000}}; !slices.Equal(got, want) {
		t.Fatalf("got %x, want %x", got, want)
	}
}
