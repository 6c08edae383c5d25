package sigstore

import (
	"errors"
	"fmt"

	sgroot "github.com/sigstore/sigstore-go/pkg/root"
)

// MaxTrustedRootBytes bounds a trusted root that is looked at.
const MaxTrustedRootBytes = 1 << 20

// ErrTrustedRoot says that the bytes are no trusted root of sigstore's, or that one is missing.
var ErrTrustedRoot = errors.New("not a usable trusted root")

// TrustedRoot names the authorities of a sigstore: who certifies signers, who keeps the
// transparency log, who stamps times. It is a file of the site's own; nothing of it is fetched.
type TrustedRoot struct {
	root *sgroot.TrustedRoot
}

// ParseTrustedRoot reads trusted_root.json (protobuf-specs TrustedRoot,
// application/vnd.dev.sigstore.trustedroot+json;version=0.1). Errors wrap ErrTrustedRoot.
func ParseTrustedRoot(raw []byte) (*TrustedRoot, error) {
	if len(raw) > MaxTrustedRootBytes {
		return nil, fmt.Errorf("reading trusted root: %d bytes, at most %d are allowed: %w", len(raw), MaxTrustedRootBytes, ErrTrustedRoot)
	}
	r := &TrustedRoot{}
	if err := guarded(func() (err error) {
		r.root, err = sgroot.NewTrustedRootFromJSON(raw)
		return err
	}); err != nil {
		return nil, fmt.Errorf("reading trusted root: %w: %w", ErrTrustedRoot, err)
	}
	return r, nil
}

// Proves says whether r names an authority for times of a kind: TransparencyLog or
// SignedTimestamp. A policy that demands what its trusted root cannot prove contradicts itself.
func (r *TrustedRoot) Proves(kind string) bool {
	switch {
	case r == nil:
		return false
	case kind == TransparencyLog:
		return len(r.root.RekorLogs()) > 0
	case kind == SignedTimestamp:
		return len(r.root.TimestampingAuthorities()) > 0
	}
	return false
}

// Certifies says whether r names an authority that certifies identities at all.
func (r *TrustedRoot) Certifies() bool {
	return r != nil && len(r.root.FulcioCertificateAuthorities()) > 0
}
