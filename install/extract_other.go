//go:build !unix

package install

import (
	"io/fs"
	"os"
)

// lockFile does nothing: there are no such locks here.
func lockFile(*os.File) (bool, error) { return false, nil }

// cannotSync reports that a directory cannot be synced, as on Windows.
func cannotSync(error) bool { return true }

// ownedByUs cannot be told here.
func ownedByUs(fs.FileInfo) bool { return true }
