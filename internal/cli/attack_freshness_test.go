package cli_test

import "time"

// freshnessAttacks are about bundles that are signed as they should be, and are not the ones to be
// used now.
func freshnessAttacks() map[string]attackBuilder {
	// after: forged comes to a site that has accepted another bundle, and honest to the same one.
	after := func(accepted, forged, honest func(s *stage) made) attackBuilder {
		return func(s *stage) (attempt, attempt) {
			s.pin(vendorPolicy)
			s.accept(s.bundle(accepted(s)))
			return s.seed(s.bundle(forged(s))), s.seed(s.bundle(honest(s)))
		}
	}
	version := func(v string) func(s *stage) made { return func(s *stage) made { return s.shop(v) } }
	expiring := func(s *stage) made {
		m := s.shop("1.0.0")
		m.expires = "2026-03-01T00:00:00Z"
		return m
	}
	day := func(text string) time.Time {
		t, err := time.Parse(time.DateOnly, text)
		if err != nil {
			panic(err)
		}
		return t
	}
	return map[string]attackBuilder{
		"older-bundle-replayed": func(s *stage) (forged, honest attempt) {
			s.pin(vendorPolicy)
			old := s.bundle(s.shop("1.0.0"))
			s.accept(old)
			s.accept(s.bundle(s.shop("2.0.0")))
			return s.seed(old), s.seed(s.bundle(s.shop("3.0.0")))
		},
		"older-bundle-verifies": func(s *stage) (forged, honest attempt) {
			s.pin(vendorPolicy)
			s.accept(s.bundle(s.shop("2.0.0")))
			return s.verify(s.bundle(s.shop("1.0.0"))), s.verify(s.bundle(s.shop("2.0.0")))
		},
		"downgrade": after(version("2.0.0"), func(s *stage) made {
			m := s.shop("1.9.9")
			m.created = "2026-01-31T00:00:00Z" // made anew, after the one that is accepted
			return m
		}, version("2.0.1")),
		"downgrade-to-a-candidate": after(version("2.0.0"), version("2.0.0-rc.1"), version("2.0.1-rc.1")),
		"versions-are-no-texts":    after(version("10.0.0"), version("9.0.0"), version("10.0.1")),
		"same-version-other-content": after(version("2.0.0"), func(s *stage) made {
			m := s.shop("2.0.0")
			m.layer = "changed"
			return m
		}, version("2.0.1")),
		"build-metadata-twin": after(version("2.0.0+a"), version("2.0.0+b"), version("2.0.1")),
		"expired": func(s *stage) (forged, honest attempt) {
			s.pin(vendorPolicy)
			path := s.bundle(expiring(s))
			forged, honest = s.seed(path), s.seed(path)
			forged.now, honest.now = day("2026-03-01"), day("2026-02-28")
			return forged, honest
		},
		"too-old-for-the-rule": func(s *stage) (forged, honest attempt) {
			s.pin(demanding("maximumAge: 90d"))
			path := s.bundle(s.shop("1.0.0"))
			forged, honest = s.seed(path), s.seed(path)
			forged.now, honest.now = day("2026-04-10"), day("2026-03-31")
			return forged, honest
		},
		"below-the-oldest-version": func(s *stage) (forged, honest attempt) {
			s.pin(demanding("oldestVersion: 1.5.0"))
			return s.seed(s.bundle(s.shop("1.4.9"))), s.seed(s.bundle(s.shop("1.5.0")))
		},
		"oldest-version-is-no-flag": func(s *stage) (forged, honest attempt) {
			s.pin(demanding("oldestVersion: 1.5.0"))
			path := s.bundle(s.shop("1.4.9"))
			return s.seed(path, "--allow-downgrade", "--reason", "courier says so"), s.seed(s.bundle(s.shop("1.5.0")), "--allow-downgrade", "--reason", "courier says so")
		},
		"clock-set-back": func(s *stage) (forged, honest attempt) {
			s.pin(vendorPolicy)
			unaware := s.copyState()
			other := s.shop("0.9.0")
			s.now = day("2026-03-05")
			s.accept(s.bundle(other)) // the site has seen March
			path := s.bundle(expiring(s))
			forged, honest = s.seed(path), s.seed(path)
			forged.now, honest.now = day("2026-02-20"), day("2026-02-20")
			honest.state = unaware
			return forged, honest
		},
		"revoked-by-the-site": func(s *stage) (forged, honest attempt) {
			s.pin(vendorPolicy + "revoked: {versions: [{name: shop, versions: [1.0.0]}]}\n")
			return s.seed(s.bundle(s.shop("1.0.0"))), s.seed(s.bundle(s.shop("1.0.1")))
		},
		"revoked-version-as-another-build": func(s *stage) (forged, honest attempt) {
			s.pin(vendorPolicy + "revoked: {versions: [{name: shop, versions: [1.0.0]}]}\n")
			return s.seed(s.bundle(s.shop("1.0.0+again"))), s.seed(s.bundle(s.shop("1.0.1")))
		},
		"revocation-is-no-flag": func(s *stage) (forged, honest attempt) {
			s.pin(vendorPolicy + "revoked: {versions: [{name: shop, versions: [1.0.0]}]}\n")
			flags := []string{"--allow-downgrade", "--allow-expired", "--reason", "it has to be this one"}
			return s.seed(s.bundle(s.shop("1.0.0")), flags...), s.seed(s.bundle(s.shop("1.0.1")), flags...)
		},
	}
}
