//go:build !unix

package filelock

import "os"

// Try does nothing.
func Try(*os.File) error { return nil }

// TryShared does nothing.
func TryShared(*os.File) error { return nil }

// Take does nothing.
func Take(*os.File) error { return nil }
