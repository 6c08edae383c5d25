package cli

import (
	"bufio"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// shrink gives back the memory that only starting has needed: garbage, and the pages of the
// program itself. Of this program's 70 MB, a start touches most, while a command needs few; the
// kernel brings back from its cache what is used again. Without this the work comes on top.
func shrink() {
	debug.FreeOSMemory()
	self, err := os.Executable()
	if err != nil {
		return
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }() // it was only read
	for _, m := range unchanged(f, self) {
		// A wish: where it is not granted nothing is lost.
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_DONTNEED)
	}
}

type mapping struct{ from, to uintptr }

// unchanged returns the mappings of the file at path, out of the description of all mappings
// (proc(5), smaps), that cannot be written to and of which no page has been: those come back as
// they were. What a loader has relocated cannot be written to any more and is not the file's.
func unchanged(smaps io.Reader, path string) []mapping {
	var all []mapping
	var current *mapping
	for lines := bufio.NewScanner(smaps); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) >= 5 && strings.Contains(fields[0], "-") {
			current = nil
			if len(fields) == 6 && fields[5] == path && !strings.Contains(fields[1], "w") && strings.HasPrefix(fields[1], "r") {
				current = parseMapping(fields[0])
			}
			continue
		}
		if current != nil && len(fields) == 3 && fields[0] == "Anonymous:" {
			if fields[1] == "0" {
				all = append(all, *current)
			}
			current = nil
		}
	}
	return all
}

func parseMapping(text string) *mapping {
	from, to, _ := strings.Cut(text, "-")
	a, errA := strconv.ParseUint(from, 16, 64)
	b, errB := strconv.ParseUint(to, 16, 64)
	if errA != nil || errB != nil || b <= a {
		return nil
	}
	return &mapping{uintptr(a), uintptr(b)}
}
