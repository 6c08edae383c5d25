//go:build !linux

package cli

import "runtime/debug"

// shrink gives back the memory that only starting has needed.
func shrink() { debug.FreeOSMemory() }
