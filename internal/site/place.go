package site

import "path/filepath"

// systemDir is the state directory of a machine.
const systemDir = "/var/lib/sealift"

// DefaultDir returns the state directory of who names none: the machine's for the superuser
// (uid 0) and wherever it exists, else the one that the XDG base directory specification gives
// to the user. It is "" where the environment names neither that nor a home directory.
func DefaultDir(getenv func(string) string, uid int, exists func(string) bool) string {
	if uid == 0 || exists(systemDir) {
		return systemDir
	}
	// The specification has relative paths ignored: they would mean another record in each
	// working directory.
	if dir := getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "sealift")
	}
	if home := getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "state", "sealift")
	}
	return ""
}
