//go:build !unix

package archive

import "os"

// noFollow has no counterpart here.
const noFollow = 0

// lock does nothing: two writers of one file are not told apart here.
func lock(*os.File) error { return nil }

// isInvalid reports that a directory cannot be synced, as on Windows.
func isInvalid(error) bool { return true }
