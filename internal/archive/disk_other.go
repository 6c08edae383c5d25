//go:build !linux

package archive

import "os"

// reserve sets the size; a full disk shows while writing.
func reserve(f *os.File, size int64) error { return f.Truncate(size) }

func freeSpace(string) (int64, bool) { return 0, false }
func allocated(os.FileInfo) int64    { return 0 }
func syncData(f *os.File) error      { return f.Sync() }
func dropCache(*os.File)             {}
