//go:build !unix

package site

import "os"

// carefully has no counterpart here.
const carefully = 0

// lock does nothing: two writers of one directory are not told apart here.
func lock(*os.File) error { return nil }

// isInvalid reports that a directory cannot be synced, as on Windows.
func isInvalid(error) bool { return true }
