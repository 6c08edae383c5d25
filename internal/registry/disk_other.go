//go:build !linux

package registry

import "os"

func startWriting(*os.File, int64, int64) {}

func syncData(f *os.File) error { return f.Sync() }

// Space is how many bytes this user may still write to the file system of dir, and how large it is;
// here it is not known.
func Space(string) (free, total int64, ok bool) { return 0, 0, false }

func isNotDirectory(error) bool { return false }
