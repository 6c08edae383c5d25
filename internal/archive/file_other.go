//go:build !linux

package archive

import "os"

// lock does nothing here: elsewhere than on Linux two writers of one file are not told apart.
func lock(*os.File) error { return nil }

// reserve sets the size; a full disk shows while writing.
func reserve(f *os.File, size int64) error { return f.Truncate(size) }

// isInvalid reports that a directory cannot be synced, as on Windows.
func isInvalid(error) bool { return true }
