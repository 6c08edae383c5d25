package sigstore

import (
	"bytes"
	"crypto/sha256"
	"fmt"
)

// CheckDigest checks no more than that s says it is over message: a check before s is put beside
// the message, not one of trust. Errors wrap ErrSignature.
func (s *Signature) CheckDigest(message []byte) error {
	claimed := s.bundle.GetMessageSignature().GetMessageDigest().GetDigest()
	if want := sha256.Sum256(message); len(claimed) > 0 && !bytes.Equal(claimed, want[:]) {
		return fmt.Errorf("is over a message with the digest sha256:%x, and not over this one, sha256:%x: %w", claimed, want, ErrSignature)
	}
	return nil
}
