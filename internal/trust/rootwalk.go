package trust

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sealift/sealift/internal/sigstore"
)

const (
	// MaxRootSteps bounds the steps of one walk.
	MaxRootSteps = 256
	// maxRootsAtHand bounds the roots that a walk looks at.
	maxRootsAtHand = 1024
)

// signedBy returns those keys of the root roles of roots that have signed s, by fingerprint. A key is
// in it once, however many signatures it has made; signatures of others, and what is none, do not
// matter.
func (s *SignedRoot) signedBy(ctx context.Context, roots ...*SignedRoot) (map[string]bool, error) {
	keys := map[string]sigstore.PublicKey{}
	for _, r := range roots {
		for _, id := range r.Root.Root.Keys {
			keys[id] = r.keys[id]
		}
	}
	open := make([]string, 0, len(keys))
	for id := range keys {
		open = append(open, id)
	}
	slices.Sort(open)
	signed := map[string]bool{}
	for _, raw := range s.Signatures {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		sig, err := sigstore.ParseSignature(raw)
		if err != nil {
			continue
		}
		// What a signature says about its key only decides which one is tried first.
		if i := slices.Index(open, sig.Fingerprint()); i > 0 {
			open[0], open[i] = open[i], open[0]
		}
		for i, id := range open {
			if _, err := sig.VerifyKey(ctx, s.Raw, keys[id], nil); err == nil {
				signed[id] = true
				open = slices.Delete(open, i, i+1)
				break
			}
		}
	}
	return signed, nil
}

// checkThreshold checks that enough keys of the root role of by are among those that have signed s.
func (s *SignedRoot) checkThreshold(by *SignedRoot, signed map[string]bool) error {
	role, got := &by.Root.Root, 0
	for _, id := range role.Keys {
		if signed[id] {
			got++
		}
	}
	// A root that was not read has no threshold, and is signed by nobody.
	if role.Threshold < 1 || got < role.Threshold {
		return s.fail(fmt.Errorf("signed by %d of the %d keys of root %d, at least %d are wanted: %w", got, len(role.Keys), by.Root.Version, role.Threshold, ErrRootSignatures))
	}
	return nil
}

func (s *SignedRoot) fail(err error) error { return &RootError{s.Root.Name, s.Root.Version, err} }

// CheckSelf checks that enough keys of the root's own root role have signed it. It shows that a first
// root is complete, not whose it is: anybody can sign a root of his own. Errors are *RootError and
// wrap ErrRootSignatures.
func (s *SignedRoot) CheckSelf(ctx context.Context) error {
	signed, err := s.signedBy(ctx, s)
	if err != nil {
		return s.fail(err)
	}
	return s.checkThreshold(s, signed)
}

// Step checks that next follows current, which is believed: of the same name, exactly one version
// ahead, signed by enough root keys of current and by enough of its own, with all that current
// revokes, and with a reset only where somebody who signed bundles does not any more. Neither may
// have expired for it; see CheckExpiry. Errors are *RootError and wrap ErrRootForm, ErrRootBack,
// ErrRootGap or ErrRootSignatures.
func Step(ctx context.Context, current, next *SignedRoot) error {
	if err := checkSuccessor(&current.Root, &next.Root); err != nil {
		return next.fail(err)
	}
	signed, err := next.signedBy(ctx, current, next)
	if err != nil {
		return next.fail(err)
	}
	if err := next.checkThreshold(current, signed); err != nil {
		return err
	}
	return next.checkThreshold(next, signed)
}

// Walk goes from pinned, which is believed, over the roots at hand as far as they lead, and at most
// MaxRootSteps. Roots of other names and versions before pinned do not matter, nor does the order.
//
// The chain begins with pinned and goes on with the roots that were stepped to. Unused says of each
// root of the same name that should have been on the way why it is not: *RootError that wrap
// ErrRootForm, ErrRootSignatures, ErrRootGap or ErrRootSteps (then walk again, from the last of the
// chain). An error is an *EquivocationError, that of ctx, or about too many roots at hand; the chain
// ends before what it is about, and nothing must be used by it.
func Walk(ctx context.Context, pinned *SignedRoot, have []*SignedRoot) (chain []*SignedRoot, unused []error, err error) {
	chain = []*SignedRoot{pinned}
	if len(have) > maxRootsAtHand {
		return chain, nil, fmt.Errorf("walking from root %d of %q: %d roots at hand, at most %d are looked at", pinned.Root.Version, pinned.Root.Name, len(have), maxRootsAtHand)
	}
	ahead := map[int][]*SignedRoot{}
	for _, s := range have {
		if s.Root.Name == pinned.Root.Name && s.Root.Version >= pinned.Root.Version && s.Digest != pinned.Digest {
			ahead[s.Root.Version] = append(ahead[s.Root.Version], s)
		}
	}
	unused, err = rivals(ctx, pinned, ahead[pinned.Root.Version])
	if err != nil {
		return chain, unused, err
	}
	delete(ahead, pinned.Root.Version)
	for len(chain) <= MaxRootSteps {
		current := chain[len(chain)-1]
		next, reasons, err := advance(ctx, current, ahead[current.Root.Version+1])
		unused = append(unused, reasons...)
		if err != nil {
			return chain, unused, err
		}
		delete(ahead, current.Root.Version+1)
		if next == nil {
			break
		}
		chain = append(chain, next)
	}
	return chain, append(unused, leftOver(chain, ahead)...), nil
}

// rivals looks at other roots of the version of pinned. One that enough keys of pinned have signed is
// an *EquivocationError.
func rivals(ctx context.Context, pinned *SignedRoot, others []*SignedRoot) (unused []error, err error) {
	for _, s := range others {
		signed, err := s.signedBy(ctx, pinned, s)
		if err != nil {
			return unused, s.fail(err)
		}
		err = s.checkThreshold(pinned, signed)
		if err == nil {
			err = s.checkThreshold(s, signed)
		}
		if err == nil {
			return unused, &EquivocationError{s.Root.Name, s.Root.Version, [2]string{pinned.Digest, s.Digest}}
		}
		unused = append(unused, err)
	}
	return unused, nil
}

// advance finds the root that follows current among those of the next version.
func advance(ctx context.Context, current *SignedRoot, candidates []*SignedRoot) (next *SignedRoot, unused []error, err error) {
	reasons := map[string]error{}
	for _, s := range candidates {
		// The same document with fewer signatures is no other one.
		if next != nil && next.Digest == s.Digest {
			continue
		}
		if err := Step(ctx, current, s); err != nil {
			if ctx.Err() != nil {
				return nil, unused, err
			}
			reasons[s.Digest] = err
			continue
		}
		if next != nil {
			return nil, unused, &EquivocationError{s.Root.Name, s.Root.Version, [2]string{next.Digest, s.Digest}}
		}
		next = s
	}
	for _, s := range candidates {
		if err := reasons[s.Digest]; err != nil && (next == nil || next.Digest != s.Digest) {
			unused = append(unused, err)
			delete(reasons, s.Digest)
		}
	}
	return next, unused, nil
}

// leftOver says why the walk that made chain did not come to the roots that are further ahead.
func leftOver(chain []*SignedRoot, ahead map[int][]*SignedRoot) []error {
	versions := make([]int, 0, len(ahead))
	for v := range ahead {
		versions = append(versions, v)
	}
	slices.Sort(versions)
	at := chain[len(chain)-1].Root.Version
	var unused []error
	for _, v := range versions {
		for _, s := range ahead[v] {
			err := fmt.Errorf("version %d is as far as the roots at hand lead: %w", at, ErrRootGap)
			if len(chain) > MaxRootSteps {
				err = fmt.Errorf("%d steps led to version %d: %w", MaxRootSteps, at, ErrRootSteps)
			}
			unused = append(unused, s.fail(err))
		}
	}
	return unused
}

// CheckExpiry checks that the root has not expired by now. It is for the last root of a chain only:
// a site that was away for years walks over roots that have expired since. Errors are
// *RootExpiredError.
func (s *SignedRoot) CheckExpiry(now time.Time) error {
	if expires := s.Root.expires(); !now.Before(expires) {
		return &RootExpiredError{s.Root.Name, s.Root.Version, expires}
	}
	return nil
}

// ResetSince reports whether a root of the chain that is newer than version since resets which
// version of a bundle was accepted.
func ResetSince(chain []*SignedRoot, since int, bundle string) bool {
	return slices.ContainsFunc(chain, func(s *SignedRoot) bool {
		return s.Root.Version > since && slices.Contains(s.Root.Reset, bundle)
	})
}

// AddSignature adds a signature, which is a sigstore bundle by a key, to a root file. The file comes
// back as it is where that very signature, or another one by the same key of the root, is there
// already. Whether a signature by a key that is not in the root counts only the root before can say,
// so that such signatures are added. Errors are *RootError, and wrap sigstore.ErrMalformed for what
// is no signature by a key.
func AddSignature(file []byte, sig []byte) ([]byte, error) {
	s, err := ParseRootFile(file)
	if err != nil {
		return nil, err
	}
	parsed, err := sigstore.ParseSignature(sig)
	if err != nil {
		return nil, s.fail(fmt.Errorf("adding a signature: %w", err))
	}
	if _, _, certified := parsed.Claims(); certified {
		return nil, s.fail(fmt.Errorf("adding a signature: made with a certificate, and only keys sign roots: %w", sigstore.ErrMalformed))
	}
	if slices.ContainsFunc(s.Signatures, func(old []byte) bool { return string(old) == string(sig) }) {
		return file, nil
	}
	before, err := s.signedBy(context.Background(), s)
	if err != nil {
		return nil, s.fail(err)
	}
	alone := *s
	alone.Signatures = [][]byte{sig}
	added, err := alone.signedBy(context.Background(), s)
	if err != nil {
		return nil, s.fail(err)
	}
	for id := range added {
		if before[id] {
			return file, nil
		}
	}
	if len(s.Signatures) == MaxRootSignatures {
		return nil, s.fail(errors.New("adding a signature: there is no room for another one"))
	}
	return SealRoot(s.Raw, append(slices.Clone(s.Signatures), sig))
}
