package site

import "fmt"

// BusyError says that another process updates the same state directory.
type BusyError struct{ Path string }

// Error names the directory.
func (e *BusyError) Error() string {
	return fmt.Sprintf("another process is updating the state directory %q", e.Path)
}

// TamperedError says that what is in a state directory is not what was written there.
type TamperedError struct {
	// Path of the file that is wrong.
	Path string
	// Entry is the number (from 1) of the journal entry that is wrong, 0 where it is none.
	Entry int64
	// What is wrong.
	What string
}

// Error names the file, the entry if it is one, and what is wrong.
func (e *TamperedError) Error() string {
	if e.Entry > 0 {
		return fmt.Sprintf("%q was changed by something else than sealift: entry %d: %s", e.Path, e.Entry, e.What)
	}
	return fmt.Sprintf("%q was changed by something else than sealift: %s", e.Path, e.What)
}
