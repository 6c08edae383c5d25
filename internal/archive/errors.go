package archive

import (
	"errors"
	"fmt"
)

// ErrNotBundle is returned for files that do not begin as a bundle does.
var ErrNotBundle = errors.New("not a bundle: the file does not begin with a sealift.json in a zstd frame")

// What a DamageError says most often.
const (
	errFraming = "a zstd frame is not the one that its content makes"
	errPadding = "the padding is not zero"
	errEnds    = "the file ends here"
	errDiffers = "differs from what the manifest makes it"
)

// DamageError says where a file is not what its manifest determines.
type DamageError struct {
	// Offset in the file, in bytes.
	Offset int64
	// Entry is the name of the entry that the offset lies in, or a part of the framing.
	Entry string
	// What is wrong there.
	What string
	// Place is the volume that the offset lies in, nil where there are none.
	Place *Place
	// exact tells that the byte at Offset is wrong, not one somewhere in a frame.
	exact bool
}

// damageAt says what is wrong at offset off of src, or in what begins or ends there.
func damageAt(src Source, off int64, entry, what string) *DamageError {
	return &DamageError{Offset: off, Entry: entry, What: what, Place: src.Place(off)}
}

// wrongByte says what is wrong with the byte at offset off of src.
func wrongByte(src Source, off int64, entry, what string) *DamageError {
	d := damageAt(src, off, entry, what)
	d.exact = true
	return d
}

// Error names the place and what is wrong there.
func (e *DamageError) Error() string {
	if p := e.Place; p != nil {
		return fmt.Sprintf("volume %d (%q) is damaged at byte %d (%s): %s", p.Number, p.Path, p.Offset, e.Entry, e.What)
	}
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

// ContentError says that content is not what the manifest announces.
type ContentError struct {
	Entry     string
	Got, Want string
}

// Error names the entry and what was got and wanted.
func (e *ContentError) Error() string {
	return fmt.Sprintf("content of %s: got %s, want %s", e.Entry, e.Got, e.Want)
}

// ReadError says where a file, or a medium, could not be read.
type ReadError struct {
	// Offset in the file, in bytes.
	Offset int64
	// Entry is the name of the entry that the offset lies in, or a part of the framing.
	Entry string
	// Place is the volume that the offset lies in, nil where there are none.
	Place *Place
	Err   error
}

// Error names the place.
func (e *ReadError) Error() string {
	if p := e.Place; p != nil {
		return fmt.Sprintf("reading volume %d (%q) at byte %d (%s): %v", p.Number, p.Path, p.Offset, e.Entry, e.Err)
	}
	return fmt.Sprintf("reading byte %d (%s): %v", e.Offset, e.Entry, e.Err)
}

// Unwrap returns what the reading gave.
func (e *ReadError) Unwrap() error { return e.Err }

// WrittenError says that a file did not give back what was written to it.
type WrittenError struct {
	Path string
	Err  error
}

// Error names the file and the difference.
func (e *WrittenError) Error() string { return fmt.Sprintf("reading back %q: %v", e.Path, e.Err) }

// Unwrap returns the difference.
func (e *WrittenError) Unwrap() error { return e.Err }
