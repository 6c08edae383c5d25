//go:build !unix

package archive

// noFollow has no counterpart here.
const noFollow = 0

// isInvalid reports that a directory cannot be synced, as on Windows.
func isInvalid(error) bool { return true }
