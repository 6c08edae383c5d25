package trust

import (
	"cmp"
	"encoding/pem"
	"slices"
	"time"

	"github.com/sealift/sealift/internal/sigstore"
	"github.com/sealift/sealift/manifest"
)

// RootChange is what a new root says, and what the next one says differently. In the next one, nil
// lists, zero numbers and the zero time keep what is; lists that are empty and not nil leave nothing.
type RootChange struct {
	// Name is for new roots. In a next one it is empty, or the same.
	Name    string
	Expires time.Time
	// RootKeys sign roots. A new root without RootThreshold demands more than half of them.
	RootKeys      []sigstore.PublicKey
	RootThreshold int
	// ReleaseKeys and Identities sign bundles. A new root without ReleaseThreshold demands one.
	ReleaseKeys      []sigstore.PublicKey
	ReleaseThreshold int
	Identities       []RootIdentity
	// TrustedRoot is sigstore's trusted_root.json. It goes with the last identity.
	TrustedRoot []byte
	// RevokeDigests and RevokeVersions come on top of what is revoked. An empty channel stands for
	// manifest.DefaultChannel.
	RevokeDigests  []string
	RevokeVersions []RevokedVersions
	// Reset is for this version alone, and for next roots only.
	Reset []string
}

// NewRoot makes the first root of a vendor. Errors are *RootError and wrap ErrRootForm.
func NewRoot(c RootChange, created time.Time) (*Root, error) {
	c.RootThreshold = cmp.Or(c.RootThreshold, len(c.RootKeys)/2+1)
	c.ReleaseThreshold = cmp.Or(c.ReleaseThreshold, 1)
	return c.apply(&Root{MediaType: RootMediaType, Name: c.Name, Version: 1}, created)
}

// NextRoot makes the root that follows prev. Errors are *RootError and wrap ErrRootForm.
func NextRoot(prev *Root, c RootChange, created time.Time) (*Root, error) {
	next := *prev
	next.Version++
	next.Reset = nil
	if c.Name != "" {
		next.Name = c.Name
	}
	r, err := c.apply(&next, created)
	if err != nil {
		return nil, err
	}
	if err := checkSuccessor(prev, r); err != nil {
		return nil, &RootError{r.Name, r.Version, err}
	}
	return r, nil
}

// apply makes the changes in r, whose lists may be those of another root.
func (c *RootChange) apply(r *Root, created time.Time) (*Root, error) {
	r.Created = rootTime(created)
	if !c.Expires.IsZero() {
		r.Expires = rootTime(c.Expires)
	}
	r.Root.Threshold = cmp.Or(c.RootThreshold, r.Root.Threshold)
	r.Release.Threshold = cmp.Or(c.ReleaseThreshold, r.Release.Threshold)
	known := slices.Clone(r.Keys)
	if c.RootKeys != nil {
		r.Root.Keys = addKeys(&known, c.RootKeys)
	}
	if c.ReleaseKeys != nil {
		r.Release.Keys = addKeys(&known, c.ReleaseKeys)
	}
	r.Keys = usedKeys(known, r)
	if c.Identities != nil {
		r.Release.Identities = slices.Clone(c.Identities)
		slices.SortFunc(r.Release.Identities, compareIdentities)
	}
	if c.TrustedRoot != nil {
		r.TrustedRoot = c.TrustedRoot
	} else if len(r.Release.Identities) == 0 {
		r.TrustedRoot = nil
	}
	r.Reset = sorted(c.Reset)
	r.Revoked.Digests = sorted(append(slices.Clone(r.Revoked.Digests), c.RevokeDigests...))
	r.Revoked.Versions = addVersions(r.Revoked.Versions, c.RevokeVersions)
	if _, err := EncodeRoot(r); err != nil {
		return nil, err
	}
	return r.normal(), nil
}

func rootTime(t time.Time) string { return t.UTC().Truncate(time.Second).Format(time.RFC3339) }

func sorted(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	return slices.Compact(list)
}

// addKeys adds keys to those that are known, and returns their IDs in order. A key that was named
// twice stays twice, for the check to find: one of them was meant to be another.
func addKeys(known *[]RootKey, keys []sigstore.PublicKey) (ids []string) {
	for _, k := range keys {
		var der []byte
		if block, _ := pem.Decode(k.PEM); block != nil {
			der = block.Bytes
		}
		*known = append(*known, RootKey{k.Fingerprint, der})
		ids = append(ids, k.Fingerprint)
	}
	slices.Sort(ids)
	return ids
}

// usedKeys returns those of known that a role of r has, in order and once.
func usedKeys(known []RootKey, r *Root) []RootKey {
	used := slices.DeleteFunc(known, func(k RootKey) bool {
		return !slices.Contains(r.Root.Keys, k.ID) && !slices.Contains(r.Release.Keys, k.ID)
	})
	slices.SortStableFunc(used, func(a, b RootKey) int { return cmp.Compare(a.ID, b.ID) })
	return slices.CompactFunc(used, func(a, b RootKey) bool { return a.ID == b.ID })
}

func addVersions(old, more []RevokedVersions) []RevokedVersions {
	all := make([]RevokedVersions, 0, len(old)+len(more))
	for _, v := range slices.Concat(old, more) {
		v.Channel = cmp.Or(v.Channel, manifest.DefaultChannel)
		i := slices.IndexFunc(all, func(o RevokedVersions) bool { return compareRevoked(o, v) == 0 })
		if i < 0 {
			v.Versions = sorted(v.Versions)
			all = append(all, v)
			continue
		}
		all[i].Versions = sorted(append(slices.Clone(all[i].Versions), v.Versions...))
	}
	slices.SortFunc(all, compareRevoked)
	return all
}
