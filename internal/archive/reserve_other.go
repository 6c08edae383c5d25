//go:build !linux

package archive

import "os"

// reserve sets the size; a full disk shows while writing.
func reserve(f *os.File, size int64) error { return f.Truncate(size) }
