package cli_test

import (
	"time"

	"github.com/sealift/sealift/internal/sigstore/sigtest"
	"github.com/sealift/sealift/internal/trust"
)

const (
	issuer  = "https://accounts.example"
	release = "https://ci.example/acme/shop/release@main"

	twoGroups = `
signers: {vendor: {key: $vendor}, office: {key: $office}}
rules:
  - name: shop
    bundles: [shop]
    groups:
      - {name: vendor, threshold: 1, signers: [vendor]}
      - {name: office, threshold: 1, signers: [office]}
`
	twoOfTwo = `
signers: {vendor: {key: $vendor}, deputy: {key: $deputy}}
rules: [{name: shop, bundles: [shop], groups: [{threshold: 2, signers: [vendor, deputy]}]}]
`
)

// identityPolicy is one with the only signer ci, which is an identity.
func identityPolicy(identity string, threshold string) string {
	return `
trustedRoot: $sigstore
signers: {ci: {` + identity + `}}
rules: [{name: shop, bundles: [shop], groups: [{threshold: ` + threshold + `, signers: [ci]}]}]
`
}

// rulesFor is a policy with one rule for bundles.
func rulesFor(bundles string) string {
	return `
signers: {vendor: {key: $vendor}}
rules: [{name: shop, bundles: ` + bundles + `, groups: [{threshold: 1, signers: [vendor]}]}]
`
}

// demanding is vendorPolicy with a further demand.
func demanding(demand string) string {
	return `
trustedRoot: $sigstore
signers: {vendor: {key: $vendor}}
rules: [{name: shop, bundles: [shop], ` + demand + `, groups: [{threshold: 1, signers: [vendor]}]}]
`
}

// named is a bundle of another name than shop.
func (s *stage) named(name string) made {
	m := s.shop("1.0.0")
	m.name = name
	return m
}

// signerAttacks are about who has signed, and whether that is enough.
func signerAttacks() map[string]attackBuilder {
	stamped := sigtest.Options{TSA: true}
	literal := "issuer: '" + issuer + "', subject: '" + release + "'"
	// keyless: bundles by forged and by good identities, for a policy.
	keyless := func(identity, threshold string, forged, honest func(s *stage) []signature) attackBuilder {
		return func(s *stage) (attempt, attempt) {
			s.pin(identityPolicy(identity, threshold))
			return s.seed(s.bundle(s.shop("1.0.0", forged(s)...))), s.seed(s.bundle(s.shop("1.0.0", honest(s)...)))
		}
	}
	as := func(issuer string, subjects ...string) func(s *stage) []signature {
		return func(s *stage) (all []signature) {
			for _, subject := range subjects {
				all = append(all, s.keyless(s.sigstore(), issuer, subject, stamped))
			}
			return all
		}
	}
	with := func(o sigtest.Options) func(s *stage) []signature {
		return func(s *stage) []signature { return []signature{s.keyless(s.sigstore(), issuer, release, o)} }
	}
	// refusedPolicy: a policy that contradicts itself, or is not what it looks like.
	refusedPolicy := func(forged, honest string) attackBuilder {
		return func(s *stage) (attempt, attempt) {
			return attempt{args: []string{"trust", "init", s.policy(forged)}}, attempt{args: []string{"trust", "init", s.policy(honest)}}
		}
	}
	return map[string]attackBuilder{
		"below-threshold": func(s *stage) (forged, honest attempt) {
			s.pin(twoOfTwo)
			return s.seed(s.bundle(s.shop("1.0.0", s.by("vendor")))), s.seed(s.bundle(s.shop("1.0.0", s.by("vendor"), s.by("deputy"))))
		},
		"one-key-signs-twice": func(s *stage) (forged, honest attempt) {
			s.pin(twoOfTwo)
			return s.seed(s.bundle(s.shop("1.0.0", s.by("vendor"), s.by("vendor")))), s.seed(s.bundle(s.shop("1.0.0", s.by("vendor"), s.by("deputy"))))
		},
		"one-key-under-two-names": refusedPolicy(`
signers: {vendor: {key: $vendor}, deputy: {key: $vendor}}
rules: [{name: shop, bundles: [shop], groups: [{threshold: 2, signers: [vendor, deputy]}]}]
`, twoOfTwo),
		"one-identity-signs-twice": keyless("issuer: '"+issuer+"', subject: 'https://ci.example/acme/shop/*@main'", "2",
			as(issuer, release, release), as(issuer, release, "https://ci.example/acme/shop/audit@main")),
		"one-signer-for-two-groups": func(s *stage) (forged, honest attempt) {
			s.pin(`
trustedRoot: $sigstore
signers:
  all: {issuer: '` + issuer + `', subject: 'https://ci.example/acme/shop/*@main'}
  release: {issuer: '` + issuer + `', subject: '` + release + `'}
rules:
  - name: shop
    bundles: [shop]
    groups:
      - {name: anybody, threshold: 1, signers: [all]}
      - {name: release, threshold: 1, signers: [release]}
`)
			return s.seed(s.bundle(s.shop("1.0.0", as(issuer, release)(s)...))),
				s.seed(s.bundle(s.shop("1.0.0", as(issuer, release, "https://ci.example/acme/shop/audit@main")(s)...)))
		},
		"group-missing": func(s *stage) (forged, honest attempt) {
			s.pin(twoGroups)
			return s.seed(s.bundle(s.shop("1.0.0", s.by("vendor")))), s.seed(s.bundle(s.shop("1.0.0", s.by("vendor"), s.by("office"))))
		},
		"signer-of-another-rule": func(s *stage) (forged, honest attempt) {
			s.pin(`
signers: {vendor: {key: $vendor}, other: {key: $stranger}}
rules:
  - {name: shop, bundles: [shop], groups: [{threshold: 1, signers: [vendor]}]}
  - {name: games, bundles: [games], groups: [{threshold: 1, signers: [other]}]}
`)
			return s.seed(s.bundle(s.shop("1.0.0", s.by("stranger")))), s.seed(s.bundle(s.shop("1.0.0")))
		},
		"two-rules-match": func(s *stage) (forged, honest attempt) {
			s.pin(`
signers: {vendor: {key: $vendor}, deputy: {key: $deputy}}
rules:
  - {name: strict, bundles: [shop-*], groups: [{threshold: 2, signers: [vendor, deputy]}]}
  - {name: loose, bundles: ['*-eu'], groups: [{threshold: 1, signers: [vendor]}]}
`)
			return s.seed(s.bundle(s.named("shop-eu"))), s.seed(s.bundle(s.named("games-eu")))
		},
		"no-rule-matches": func(s *stage) (forged, honest attempt) {
			s.pin(vendorPolicy)
			return s.seed(s.bundle(s.named("games"))), s.seed(s.bundle(s.named("shop")))
		},
		"bundle-glob-look-alike": func(s *stage) (forged, honest attempt) {
			s.pin(rulesFor("['shop*']"))
			return s.seed(s.bundle(s.named("shop-evil"))), s.seed(s.bundle(s.named("shop2")))
		},
		"bundle-glob-of-nothing": func(s *stage) (forged, honest attempt) {
			s.pin(rulesFor("['shop-*']"))
			return s.seed(s.bundle(s.named("shop"))), s.seed(s.bundle(s.named("shop-eu")))
		},
		"certificate-without-time":    keyless(literal, "1", with(sigtest.Options{}), with(stamped)),
		"certificate-used-too-late":   keyless(literal, "1", with(sigtest.Options{TSA: true, StampAt: sigtest.Epoch.Add(time.Hour)}), with(stamped)),
		"log-without-promise-as-time": keyless(literal, "1", with(sigtest.Options{Log: true, NoPromise: true}), with(sigtest.Options{Log: true})),
		"identity-mismatch":           keyless(literal, "1", as(issuer, "https://ci.example/acme/shop/test@main"), as(issuer, release)),
		"issuer-mismatch":             keyless(literal, "1", as("https://accounts.example.evil", release), as(issuer, release)),
		"identity-glob-crosses-segments": keyless("issuer: '"+issuer+"', subject: 'https://ci.example/acme/*/release@main'", "1",
			as(issuer, "https://ci.example/acme/evil/x/release@main"), as(issuer, release)),
		"identity-glob-look-alike": keyless("issuer: '"+issuer+"', subject: 'https://ci.example/acme/shop/release@*'", "1",
			as(issuer, "https://ci.example/acme/shop/release@main/x"), as(issuer, release)),
		"issuer-glob-look-alike": keyless("issuer: 'https://*.example', subject: '"+release+"'", "1",
			as("https://accounts.example@evil.example", release), as(issuer, release)),
		"regexp-first-alternative-is-open": keyless("issuer: '"+issuer+"', subjectRegExp: 'release@acme\\.example|ci@acme\\.example'", "1",
			as(issuer, "release@acme.example.evil"), as(issuer, "release@acme.example")),
		"regexp-last-alternative-is-open": keyless("issuer: '"+issuer+"', subjectRegExp: 'release@acme\\.example|ci@acme\\.example'", "1",
			as(issuer, "evil-ci@acme.example"), as(issuer, "ci@acme.example")),
		"regexp-closes-the-anchor": refusedPolicy(
			identityPolicy("issuer: '"+issuer+"', subjectRegExp: 'release)|(.*'", "1"),
			identityPolicy("issuer: '"+issuer+"', subjectRegExp: '(release)|(deploy)'", "1")),
		"regexp-ends-the-quote": refusedPolicy(
			identityPolicy("issuer: '"+issuer+"', subjectRegExp: '\\Qrelease'", "1"),
			identityPolicy("issuer: '"+issuer+"', subjectRegExp: '\\Qrelease\\E'", "1")),
		"wrong-trusted-root": func(s *stage) (forged, honest attempt) {
			s.pin(identityPolicy(literal, "1"))
			return s.seed(s.bundle(s.shop("1.0.0", s.keyless(s.foreign(), issuer, release, stamped)))),
				s.seed(s.bundle(s.shop("1.0.0", s.keyless(s.sigstore(), issuer, release, stamped))))
		},
		"authority-of-another-vendor": func(s *stage) (forged, honest attempt) {
			root := func(vendor string, v *sigtest.Virtual, subject string) *trust.SignedRoot {
				r, err := trust.NewRoot(trust.RootChange{
					Name: vendor, Expires: s.now.AddDate(1, 0, 0), RootKeys: s.publicKeys(vendor + "-root-1"),
					Identities:  []trust.RootIdentity{{Issuer: issuer, Subject: subject}},
					TrustedRoot: v.TrustedRoot(s.t, sigtest.RootOptions{TSA: true}),
				}, s.now.AddDate(0, -1, 0))
				s.ok(err)
				return s.signRoot(r, vendor+"-root-1")
			}
			// Both vendors are known here, and each certifies its own people.
			acme, evil := root("acme", s.sigstore(), release), root("evil", s.foreign(), "https://ci.example/evil/*")
			policy := s.policy(`
rules:
  - {name: shop, bundles: [shop], groups: [{root: acme}]}
  - {name: games, bundles: [games], groups: [{root: evil}]}
`)
			s.must("trust", "init", policy, "--root", s.rootFile(acme), "--root", s.rootFile(evil))
			return s.seed(s.bundle(s.shop("1.0.0", s.keyless(s.foreign(), issuer, release, stamped)))),
				s.seed(s.bundle(s.shop("1.0.0", s.keyless(s.sigstore(), issuer, release, stamped))))
		},
		"log-proof-missing": func(s *stage) (forged, honest attempt) {
			s.pin(demanding("transparencyLog: required"))
			return s.seed(s.bundle(s.shop("1.0.0", s.byIn("vendor", s.sigstore(), sigtest.Options{TSA: true})))),
				s.seed(s.bundle(s.shop("1.0.0", s.byIn("vendor", s.sigstore(), sigtest.Options{Log: true}))))
		},
		"log-of-a-stranger": func(s *stage) (forged, honest attempt) {
			s.pin(demanding("transparencyLog: required"))
			return s.seed(s.bundle(s.shop("1.0.0", s.byIn("vendor", s.foreign(), sigtest.Options{Log: true})))),
				s.seed(s.bundle(s.shop("1.0.0", s.byIn("vendor", s.sigstore(), sigtest.Options{Log: true}))))
		},
		"timestamp-missing": func(s *stage) (forged, honest attempt) {
			s.pin(demanding("signedTimestamp: required"))
			return s.seed(s.bundle(s.shop("1.0.0", s.byIn("vendor", s.sigstore(), sigtest.Options{Log: true})))),
				s.seed(s.bundle(s.shop("1.0.0", s.byIn("vendor", s.sigstore(), stamped))))
		},
		"timestamp-of-a-stranger": func(s *stage) (forged, honest attempt) {
			s.pin(demanding("signedTimestamp: required"))
			return s.seed(s.bundle(s.shop("1.0.0", s.byIn("vendor", s.foreign(), stamped)))),
				s.seed(s.bundle(s.shop("1.0.0", s.byIn("vendor", s.sigstore(), stamped))))
		},
	}
}
