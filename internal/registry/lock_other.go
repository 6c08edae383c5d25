//go:build !unix

package registry

import (
	"io/fs"
	"os"
)

// plainly is how files are opened where nothing of the kind is known.
const plainly = 0

func like(string, fs.FileInfo) error { return nil }

func likeFile(*os.File, fs.FileInfo) error { return nil }

// isInvalid reports that a directory cannot be synced, as on Windows.
func isInvalid(error) bool { return true }
