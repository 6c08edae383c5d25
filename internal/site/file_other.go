//go:build !unix

package site

// carefully has no counterpart here.
const carefully = 0

// isInvalid reports that a directory cannot be synced, as on Windows.
func isInvalid(error) bool { return true }
