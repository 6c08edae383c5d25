package parity

import (
	"errors"
	"fmt"
)

// ErrLimit is wrapped where sizes are beyond what parity files allow.
var ErrLimit = errors.New("beyond the limits of parity files")

// ErrNotParity is returned for files that neither begin nor end as a parity file does.
var ErrNotParity = errors.New("not a parity file, or both of its headers are damaged")

// ErrNone is returned by Open where no file is usable.
var ErrNone = errors.New("no usable parity file")

// ErrMixed is wrapped where parity files are of more than one bundle and nobody said of which
// one they should be.
var ErrMixed = errors.New("parity files of more than one bundle")

// RowsError says that a bundle cannot have as many rows of parity as were asked for.
type RowsError struct {
	// Rows is what was asked for.
	Rows int
	// Max is the most that is possible.
	Max int
	// Data is the number of rows of data.
	Data int
}

// Error names the rows that were asked for and the most that are possible.
func (e *RowsError) Error() string {
	return fmt.Sprintf("parity of %d rows for %d rows of data: 1 to %d are possible, %d%% of the bundle", e.Rows, e.Data, e.Max, e.Max*100/e.Data)
}

// VersionError says that a parity file is of a version that this program does not know.
type VersionError struct{ Version uint32 }

// Error names the version.
func (e *VersionError) Error() string {
	return fmt.Sprintf("parity file of version %d, this program knows version %d", e.Version, version)
}

// ForeignError says that a parity file is of another bundle.
type ForeignError struct{ Got, Want [32]byte }

// Error names both bundles.
func (e *ForeignError) Error() string {
	return fmt.Sprintf("parity file of another bundle: got one of sha256:%x, want sha256:%x", e.Got, e.Want)
}
