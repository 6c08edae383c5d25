//go:build !unix

package registry

import (
	"io/fs"
	"os"
)

// tryLock does nothing: who writes and who prunes are not kept apart here.
func tryLock(*os.File, bool) error { return nil }

// plainly is how files are opened where nothing of the kind is known.
const plainly = 0

func lockWaiting(*os.File) error { return nil }

func like(string, fs.FileInfo) error { return nil }

func likeFile(*os.File, fs.FileInfo) error { return nil }

// isInvalid reports that a directory cannot be synced, as on Windows.
func isInvalid(error) bool { return true }
