package cli_test

import (
	"github.com/sealift/sealift/internal/trust"
	"github.com/sealift/sealift/manifest"
)

// oldKeys and newKeys are those of enough root keys, before and after they were replaced.
var (
	oldKeys = []string{"acme-root-1", "acme-root-2"}
	newKeys = []string{"acme-new-1", "acme-new-2"}
)

// rootAttacks are about the documents by which vendors replace keys and take bundles back.
func rootAttacks() map[string]attackBuilder {
	update := func(s *stage, roots ...*trust.SignedRoot) attempt {
		args := []string{"trust", "update"}
		for _, r := range roots {
			args = append(args, s.rootFile(r))
		}
		return attempt{args: args}
	}
	// first pins root 1 of the vendor.
	first := func(s *stage) *trust.Root {
		r := s.firstRoot("acme", "vendor")
		s.pinRoot(s.signRoot(r, oldKeys...))
		return r
	}
	// rotated is the root that follows, with other root keys.
	rotated := func(s *stage, prev *trust.Root) *trust.Root {
		return s.nextRoot(prev, trust.RootChange{RootKeys: s.publicKeys("acme-new-1", "acme-new-2", "acme-new-3"), RootThreshold: 2})
	}
	both := append(append([]string{}, oldKeys...), newKeys...)
	with := func(m made, roots ...*trust.SignedRoot) made {
		m.trust = roots
		return m
	}
	return map[string]attackBuilder{
		"root-rolled-back": func(s *stage) (forged, honest attempt) {
			one := first(s)
			two := s.nextRoot(one, trust.RootChange{})
			three := s.nextRoot(two, trust.RootChange{})
			s.must(update(s, s.signRoot(two, oldKeys...)).args...)
			return update(s, s.signRoot(one, oldKeys...)), update(s, s.signRoot(three, oldKeys...))
		},
		"root-skips-a-version": func(s *stage) (forged, honest attempt) {
			two := s.nextRoot(first(s), trust.RootChange{})
			three := s.signRoot(s.nextRoot(two, trust.RootChange{}), oldKeys...)
			return update(s, three), update(s, s.signRoot(two, oldKeys...), three)
		},
		"root-with-too-few-old-signatures": func(s *stage) (forged, honest attempt) {
			two := rotated(s, first(s))
			return update(s, s.signRoot(two, append([]string{"acme-root-1"}, newKeys...)...)), update(s, s.signRoot(two, both...))
		},
		"root-with-too-few-new-signatures": func(s *stage) (forged, honest attempt) {
			two := rotated(s, first(s))
			return update(s, s.signRoot(two, append([]string{"acme-new-1"}, oldKeys...)...)), update(s, s.signRoot(two, both...))
		},
		"root-signed-twice-by-one-key": func(s *stage) (forged, honest attempt) {
			two := s.nextRoot(first(s), trust.RootChange{})
			return update(s, s.signRoot(two, "acme-root-1", "acme-root-1")), update(s, s.signRoot(two, oldKeys...))
		},
		"root-by-the-release-key": func(s *stage) (forged, honest attempt) {
			two := s.nextRoot(first(s), trust.RootChange{ReleaseKeys: s.publicKeys("stranger")})
			return update(s, s.signRoot(two, "vendor")), update(s, s.signRoot(two, oldKeys...))
		},
		"root-equivocation": func(s *stage) (forged, honest attempt) {
			one := first(s)
			two := s.signRoot(s.nextRoot(one, trust.RootChange{}), oldKeys...)
			other := s.signRoot(s.nextRoot(one, trust.RootChange{ReleaseKeys: s.publicKeys("stranger")}), oldKeys...)
			s.must(update(s, two).args...)
			return s.seed(s.bundle(with(s.shop("1.0.0"), other))), s.seed(s.bundle(with(s.shop("1.0.0"), two)))
		},
		"root-equivocation-in-files": func(s *stage) (forged, honest attempt) {
			one := first(s)
			two := s.signRoot(s.nextRoot(one, trust.RootChange{}), oldKeys...)
			other := s.signRoot(s.nextRoot(one, trust.RootChange{ReleaseKeys: s.publicKeys("stranger")}), oldKeys...)
			return update(s, two, other), update(s, two)
		},
		"root-takes-a-revocation-back": func(s *stage) (forged, honest attempt) {
			two := s.nextRoot(first(s), trust.RootChange{RevokeVersions: []trust.RevokedVersions{{Name: "shop", Versions: []string{"1.0.0"}}}})
			s.must(update(s, s.signRoot(two, oldKeys...)).args...)
			three := s.nextRoot(two, trust.RootChange{})
			again := *three
			again.Revoked = trust.Revoked{}
			return update(s, s.signRoot(&again, oldKeys...)), update(s, s.signRoot(three, oldKeys...))
		},
		"root-resets-without-a-rotation": func(s *stage) (forged, honest attempt) {
			two := s.nextRoot(first(s), trust.RootChange{})
			reset := *two
			reset.Reset = []string{"shop"}
			return update(s, s.signRoot(&reset, oldKeys...)), update(s, s.signRoot(two, oldKeys...))
		},
		"root-expired": func(s *stage) (forged, honest attempt) {
			one := first(s)
			two := s.nextRoot(one, trust.RootChange{Expires: s.now.AddDate(4, 0, 0)})
			forged = s.seed(s.bundle(s.shop("1.0.0")))
			honest = s.seed(s.bundle(with(s.shop("1.0.0"), s.signRoot(two, oldKeys...))))
			forged.now, honest.now = s.now.AddDate(3, 0, 0), s.now.AddDate(3, 0, 0)
			return forged, honest
		},
		"root-in-the-bundle-by-strangers": func(s *stage) (forged, honest attempt) {
			one := first(s)
			theft := s.nextRoot(one, trust.RootChange{ReleaseKeys: s.publicKeys("stranger")})
			next := s.nextRoot(one, trust.RootChange{ReleaseKeys: s.publicKeys("deputy")})
			return s.seed(s.bundle(with(s.shop("1.0.0", s.by("stranger")), s.signRoot(theft, "evil-root-1", "evil-root-2", "stranger")))),
				s.seed(s.bundle(with(s.shop("1.0.0", s.by("deputy")), s.signRoot(next, oldKeys...))))
		},
		"old-release-key-after-rotation": func(s *stage) (forged, honest attempt) {
			one := first(s)
			two := s.signRoot(s.nextRoot(one, trust.RootChange{ReleaseKeys: s.publicKeys("deputy")}), oldKeys...)
			s.must(update(s, two).args...)
			// The thief of the old key leaves the new root out.
			return s.seed(s.bundle(with(s.shop("1.0.0"), s.signRoot(one, oldKeys...)))), s.seed(s.bundle(with(s.shop("1.0.0", s.by("deputy")), two)))
		},
		"root-key-signs-a-bundle": func(s *stage) (forged, honest attempt) {
			first(s)
			return s.seed(s.bundle(s.shop("1.0.0", s.by("acme-root-1"), s.by("acme-root-2")))), s.seed(s.bundle(s.shop("1.0.0")))
		},
		"stolen-key-outruns-recovery": func(s *stage) (forged, honest attempt) {
			one := first(s)
			s.accept(s.bundle(s.shop("99.0.0"))) // by the thief, before anybody knew
			two := s.signRoot(s.nextRoot(one, trust.RootChange{ReleaseKeys: s.publicKeys("deputy"), Reset: []string{"shop"}}), oldKeys...)
			// Without the reset the site would refuse what the vendor has now; with it, the thief's.
			return s.seed(s.bundle(with(s.shop("100.0.0"), two))), s.seed(s.bundle(with(s.shop("1.0.0", s.by("deputy")), two)))
		},
		"revoked-digest": func(s *stage) (forged, honest attempt) {
			one := first(s)
			bad := s.bundle(s.shop("1.0.0"))
			two := s.nextRoot(one, trust.RootChange{RevokeDigests: []string{manifest.Digest(s.head(bad).Manifest)}})
			s.must(update(s, s.signRoot(two, oldKeys...)).args...)
			return s.seed(bad), s.seed(s.bundle(s.shop("1.0.1")))
		},
		"revoked-version": func(s *stage) (forged, honest attempt) {
			one := first(s)
			two := s.nextRoot(one, trust.RootChange{RevokeVersions: []trust.RevokedVersions{{Name: "shop", Versions: []string{"1.0.0"}}}})
			s.must(update(s, s.signRoot(two, oldKeys...)).args...)
			m := s.shop("1.0.0")
			m.layer = "made anew"
			return s.seed(s.bundle(m)), s.seed(s.bundle(s.shop("1.0.1")))
		},
		"revoked-after-it-was-accepted": func(s *stage) (forged, honest attempt) {
			one := first(s)
			bad := s.bundle(s.shop("1.0.0"))
			s.accept(bad)
			two := s.signRoot(s.nextRoot(one, trust.RootChange{RevokeDigests: []string{manifest.Digest(s.head(bad).Manifest)}}), oldKeys...)
			s.must(update(s, two).args...)
			return s.seed(bad), s.seed(s.bundle(with(s.shop("1.0.1"), two)))
		},
		"revocation-under-another-key": func(s *stage) (forged, honest attempt) {
			one := s.firstRoot("acme", "vendor")
			policy := s.policy("rules: [{name: shop, bundles: [shop], groups: [{root: acme}]}]\nallow: {key: true}\n")
			s.must("trust", "init", policy, "--root", s.rootFile(s.signRoot(one, oldKeys...)))
			bad := s.bundle(s.shop("1.0.0"))
			two := s.nextRoot(one, trust.RootChange{RevokeDigests: []string{manifest.Digest(s.head(bad).Manifest)}})
			s.must(update(s, s.signRoot(two, oldKeys...)).args...)
			flags := []string{"--key", s.file("vendor.pub", s.key("vendor").public), "--reason", "the root is in the way"}
			return s.seed(bad, flags...), s.seed(s.bundle(s.shop("1.0.1")), flags...)
		},
		"manifest-signature-on-a-root": func(s *stage) (forged, honest attempt) {
			two := s.nextRoot(first(s), trust.RootChange{ReleaseKeys: s.publicKeys("stranger")})
			raw, err := trust.EncodeRoot(two)
			s.ok(err)
			// The holders of the root keys have signed a bundle once.
			signed := s.head(s.bundle(s.shop("1.0.0", s.by("acme-root-1"), s.by("acme-root-2"))))
			var sigs [][]byte
			for _, sig := range signed.Signatures {
				sigs = append(sigs, sig.Body)
			}
			return update(s, s.sealRoot(raw, sigs)), update(s, s.signRoot(two, oldKeys...))
		},
		"manifest-as-a-root": func(s *stage) (forged, honest attempt) {
			one := first(s)
			h := s.head(s.bundle(s.shop("1.0.0")))
			file := s.file("2.root.json", rootAround(s, one, h.Manifest))
			return attempt{args: []string{"trust", "update", file}}, update(s, s.signRoot(s.nextRoot(one, trust.RootChange{}), oldKeys...))
		},
		"root-swapped-before-it-is-pinned": func(s *stage) (forged, honest attempt) {
			ours, theirs := s.signRoot(s.firstRoot("acme", "vendor"), oldKeys...), s.signRoot(s.firstRoot("acme", "stranger"), oldKeys...)
			args := func(r *trust.SignedRoot) []string {
				return []string{"trust", "init", "--root", s.rootFile(r), "--bundles", "shop", "--expect-root", ours.Digest}
			}
			return attempt{args: args(theirs)}, attempt{args: args(ours)}
		},
	}
}
