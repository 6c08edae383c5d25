package archive

import (
	"errors"
	"fmt"
)

// ErrNotBundle is returned for files that do not begin as a bundle does.
var ErrNotBundle = errors.New("not a bundle: the file does not begin with a sealift.json in a zstd frame")

// DamageError says where a file is not what its manifest determines.
type DamageError struct {
	// Offset in the file, in bytes.
	Offset int64
	// Entry is the name of the entry that the offset lies in, or a part of the framing.
	Entry string
	// What is wrong there.
	What string
}

// Error names the place and what is wrong there.
func (e *DamageError) Error() string {
	return fmt.Sprintf("damaged at byte %d (%s): %s", e.Offset, e.Entry, e.What)
}

// SizeError says that a file has not the size that its manifest determines.
type SizeError struct{ Got, Want int64 }

// Error tells whether bytes are missing or in excess.
func (e *SizeError) Error() string {
	if e.Got < e.Want {
		return fmt.Sprintf("file is cut short: %d bytes, the manifest makes it %d", e.Got, e.Want)
	}
	return fmt.Sprintf("file has %d bytes after its end: %d bytes, the manifest makes it %d", e.Got-e.Want, e.Got, e.Want)
}

// ContentError says that content given to a Writer is not what the manifest announces.
type ContentError struct {
	Entry     string
	Got, Want string
}

// Error names the entry and what was got and wanted.
func (e *ContentError) Error() string {
	return fmt.Sprintf("content of %s: got %s, want %s", e.Entry, e.Got, e.Want)
}
