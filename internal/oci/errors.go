package oci

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Error says which registry failed at what.
type Error struct {
	// Side is the role of the registry, such as "source registry".
	Side string
	// Registry is its host.
	Registry string
	// For is the registry whose mirror that is; empty where it is none.
	For string
	// Doing is what was being done to what, such as "reading manifest of x/y:1".
	Doing string
	Err   error
}

// Error names side, registry and deed.
func (e *Error) Error() string {
	mirror := ""
	if e.For != "" {
		mirror = " (for " + e.For + ")"
	}
	return fmt.Sprintf("%s %s%s: %s: %v", e.Side, e.Registry, mirror, e.Doing, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// PlainHTTPError says that a registry could only be reached without TLS, which was not asked
// for.
type PlainHTTPError struct{ Host string }

// Error names the host.
func (e *PlainHTTPError) Error() string {
	return fmt.Sprintf("refusing to speak plain HTTP with %s", e.Host)
}

// DigestError says that content is not what it was asked for by digest.
type DigestError struct{ Got, Want string }

// Error gives both digests.
func (e *DigestError) Error() string { return fmt.Sprintf("got %s, want %s", e.Got, e.Want) }

// TooLargeError says that a manifest is larger than any real one.
type TooLargeError struct{ Limit int64 }

// Error gives the limit.
func (e *TooLargeError) Error() string { return fmt.Sprintf("is larger than %d bytes", e.Limit) }

// BusyError says that a host wants to be left alone for a while.
type BusyError struct {
	// Host is who, as host[:port].
	Host string
	// Wait is for how long.
	Wait time.Duration
	// Err is its refusal, in its own words.
	Err error
	// opens is closed when the time has passed; nil where that takes too long.
	opens <-chan struct{}
	// answer says that this request was answered so; else it was not sent.
	answer bool
}

// Error names host and time, and quotes the refusal.
func (e *BusyError) Error() string {
	return fmt.Sprintf("%s wants to be left alone for %v: %v", e.Host, e.Wait, e.Err)
}

// Unwrap returns the refusal.
func (e *BusyError) Unwrap() error { return e.Err }

// MountError says that a registry has not got a blob that it said it had mounted.
type MountError struct {
	Digest string
	// From is the path of the repository that the blob is in.
	From string
	// Err is its refusal of the manifest that names the blob.
	Err error
}

// Error names the blob.
func (e *MountError) Error() string {
	return fmt.Sprintf("the registry said that it had mounted blob %s from %s, and has not: %v", e.Digest, e.From, e.Err)
}

// Unwrap returns the refusal.
func (e *MountError) Unwrap() error { return e.Err }

// ErrAbsent is wrapped where a file or directory has not got what was asked for.
var ErrAbsent = errors.New("it is not there")

// IsNotFound reports whether a source has no such thing.
func IsNotFound(err error) bool {
	return statusOf(err) == http.StatusNotFound || errors.Is(err, ErrAbsent)
}

// IsBusy reports whether a registry limits how much its users may ask.
func IsBusy(err error) bool { return statusOf(err) == http.StatusTooManyRequests }

// IsDenied reports whether a registry refused for want of credentials or rights.
func IsDenied(err error) bool {
	s := statusOf(err)
	return s == http.StatusUnauthorized || s == http.StatusForbidden
}

// missingContent are the codes with which registries refuse a manifest for what it names.
var missingContent = []transport.ErrorCode{
	transport.ManifestBlobUnknownErrorCode, transport.ManifestUnknownErrorCode,
	transport.BlobUnknownErrorCode, transport.ManifestInvalidErrorCode,
}

// IsMissingContent reports whether a registry refused a manifest because content that it
// names is not there, as most do with a sparse index.
func IsMissingContent(err error) bool {
	var t *transport.Error
	if !errors.As(err, &t) || t.StatusCode < 400 || t.StatusCode >= 500 {
		return false
	}
	for _, d := range t.Errors {
		if slices.Contains(missingContent, d.Code) {
			return true
		}
	}
	return false
}

func statusOf(err error) int {
	var t *transport.Error
	if errors.As(err, &t) {
		return t.StatusCode
	}
	return 0
}
