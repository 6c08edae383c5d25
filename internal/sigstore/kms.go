package sigstore

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/kms"
	sopts "github.com/sigstore/sigstore/pkg/signature/options"
)

// ErrNoPlugin says that the program that speaks to the key management service is not on PATH.
var ErrNoPlugin = errors.New("no such plugin")

// KMSError is what went wrong with a key that a key management service keeps.
type KMSError struct {
	// Ref names the key: NAME://….
	Ref string
	Err error
}

// Error says which key, and what.
func (e *KMSError) Error() string { return fmt.Sprintf("key %q: %v", e.Ref, e.Err) }

// Unwrap is what went wrong.
func (e *KMSError) Unwrap() error { return e.Err }

var kmsRef = regexp.MustCompile(`\A[a-z0-9]+://`)

// IsKMS says whether ref names a key that a key management service or a hardware module keeps:
// NAME://…, with a NAME of lower-case letters and digits. The program sigstore-kms-NAME on PATH
// speaks to it (https://github.com/sigstore/sigstore/tree/main/pkg/signature/kms/cliplugin); no
// cloud's own library is part of this one.
func IsKMS(ref string) bool { return kmsRef.MatchString(ref) }

// LoadKMSSigner asks the plugin for the key that ref names, and leaves the private one where it
// is: each signature is made by running the plugin, for no longer than ctx lasts. Errors are a
// *KMSError, and wrap ErrNoPlugin if there is no plugin, or ErrKey if its key is of a kind that
// LoadSigner would not take either.
//
// What the plugin writes to its standard error goes to that of this process.
func LoadKMSSigner(ctx context.Context, ref string) (*Signer, error) {
	s, err := loadKMSSigner(ctx, ref)
	if err != nil {
		return nil, &KMSError{Ref: ref, Err: err}
	}
	return s, nil
}

// KMSPublicKey asks the plugin for the public half of the key that ref names. Errors are those of
// LoadKMSSigner.
func KMSPublicKey(ctx context.Context, ref string) (PublicKey, error) {
	s, err := LoadKMSSigner(ctx, ref)
	if err != nil {
		return PublicKey{}, err
	}
	return s.key, nil
}

func loadKMSSigner(ctx context.Context, ref string) (*Signer, error) {
	if !IsKMS(ref) {
		return nil, fmt.Errorf("want NAME://KEY with a NAME of lower-case letters and digits: %w", ErrKey)
	}
	sv, err := kms.Get(ctx, ref, crypto.SHA256)
	if errors.Is(err, exec.ErrNotFound) {
		name, _, _ := strings.Cut(ref, "://")
		return nil, fmt.Errorf("running %q: %w: %w", "sigstore-kms-"+name, ErrNoPlugin, err)
	}
	if err != nil {
		return nil, err
	}
	var pub crypto.PublicKey
	// The library takes an answer of the plugin for the one it has asked for.
	if err := guarded(func() (err error) {
		pub, err = sv.PublicKey(sopts.WithContext(ctx))
		return err
	}); err != nil {
		return nil, err
	}
	if err := signable(pub); err != nil {
		return nil, err
	}
	key, err := newPublicKey(pub)
	if err != nil {
		return nil, err
	}
	return &Signer{sv: sv, key: key, opts: []signature.SignOption{sopts.WithContext(ctx)}, foreign: true}, nil
}
