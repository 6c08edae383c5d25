package cli_test

import (
	"encoding/base64"
	"encoding/hex"
	"os"
	"regexp"
	"strings"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/sigstore/sigtest"
	"github.com/sealift/sealift/internal/trust"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// signatureAttacks are about what is signed, and with which key.
func signatureAttacks() map[string]attackBuilder {
	return map[string]attackBuilder{
		"unsigned": func(s *stage) (forged, honest attempt) {
			s.pin(vendorPolicy)
			m := s.shop("1.0.0")
			m.signed = nil
			return s.seed(s.bundle(m)), s.seed(s.bundle(s.shop("1.0.0")))
		},
		"wrong-key": func(s *stage) (forged, honest attempt) {
			s.pin(vendorPolicy)
			return s.seed(s.bundle(s.shop("1.0.0", s.by("stranger")))), s.seed(s.bundle(s.shop("1.0.0")))
		},
		"wrong-key-without-policy": func(s *stage) (forged, honest attempt) {
			key := s.file("vendor.pub", s.key("vendor").public)
			return s.seed(s.bundle(s.shop("1.0.0", s.by("stranger"))), "--key", key), s.seed(s.bundle(s.shop("1.0.0")), "--key", key)
		},
		"nobody-is-trusted": func(s *stage) (forged, honest attempt) {
			path := s.bundle(s.shop("1.0.0"))
			honest = s.seed(path)
			honest.before = func() { s.pin(vendorPolicy) }
			return s.seed(path), honest
		},
		"signature-of-another-manifest": func(s *stage) (forged, honest attempt) {
			s.pin(vendorPolicy)
			first := s.head(s.bundle(s.shop("1.0.0")))
			path := s.bundle(s.shop("2.0.0", of(first.Manifest, s.by("vendor"))))
			return s.seed(path), s.seed(s.bundle(s.shop("2.0.0")))
		},
		"signature-stripped": func(s *stage) (forged, honest attempt) {
			s.pin(vendorPolicy)
			path := s.bundle(s.shop("1.0.0"))
			s.slot(path, func(c *archive.SlotContent) { c.Signatures = nil })
			return s.seed(path), s.seed(s.bundle(s.shop("1.0.0")))
		},
		"signature-in-the-inactive-slot": func(s *stage) (forged, honest attempt) {
			s.pin(vendorPolicy)
			path := s.bundle(s.shop("1.0.0"))
			s.edit(path, func(b []byte) []byte {
				copy(b[slotsAt(s, b)+4:], []byte{0x19, 0, 1, 0}) // the switch: slot B, which is blank
				return b
			})
			return s.seed(path), s.seed(s.bundle(s.shop("1.0.0")))
		},
		"second-office-signature-stripped": func(s *stage) (forged, honest attempt) {
			s.pin(twoGroups)
			path := s.bundle(s.shop("1.0.0", s.by("vendor"), s.by("office")))
			office := s.key("office").signer.PublicKey()
			s.slot(path, func(c *archive.SlotContent) {
				c.Signatures = c.Signatures[:0:0]
				for _, sig := range s.head(path).Signatures {
					if office.Verify(s.t.Context(), s.head(path).Manifest, sig.Body) != nil {
						c.Signatures = append(c.Signatures, sig.Body)
					}
				}
			})
			return s.seed(path), s.seed(s.bundle(s.shop("1.0.0", s.by("vendor"), s.by("office"))))
		},
		"detached-of-another-bundle": func(s *stage) (forged, honest attempt) {
			s.pin(vendorPolicy)
			detached := func(sign signature) string {
				m := s.shop("2.0.0")
				m.signed = nil
				path := s.bundle(m)
				s.ok(os.WriteFile(path+verify.DetachedSuffix, sign(s.head(path).Manifest), 0o600))
				return path
			}
			other := s.head(s.bundle(s.shop("1.0.0")))
			return s.seed(detached(of(other.Manifest, s.by("vendor")))), s.seed(detached(s.by("vendor")))
		},
		"hint-names-the-vendor": func(s *stage) (forged, honest attempt) {
			s.pin(vendorPolicy)
			lie := func(by, claims string) signature {
				return func(raw []byte) []byte {
					return hinted(s, s.by(by)(raw), claims)
				}
			}
			// What a signature says about its key proves nothing, and spoils nothing.
			return s.seed(s.bundle(s.shop("1.0.0", lie("stranger", "vendor")))), s.seed(s.bundle(s.shop("1.0.0", lie("vendor", "stranger"))))
		},
		"attestation-as-signature": func(s *stage) (forged, honest attempt) {
			s.pin(vendorPolicy)
			statement := func(raw []byte) []byte {
				return s.sigstore().ImageBundleWithKey(s.t, s.key("vendor").private, manifest.Digest(raw), sigtest.Options{})
			}
			return s.seed(s.bundle(s.shop("1.0.0", statement))), s.seed(s.bundle(s.shop("1.0.0", statement, s.by("vendor"))))
		},
		"junk-fills-the-slot": func(s *stage) (forged, honest attempt) {
			s.pin(vendorPolicy)
			return s.seed(s.bundle(s.shop("1.0.0", s.junk(0)...))), s.seed(s.bundle(s.shop("1.0.0", append(s.junk(1), s.by("vendor"))...)))
		},
		"foreign-trust-entry": func(s *stage) (forged, honest attempt) {
			ours := s.signRoot(s.firstRoot("acme", "vendor"), "acme-root-1", "acme-root-2")
			s.pinRoot(ours)
			// A vendor of the same name whom the site has never heard of, and one of another name.
			next := s.nextRoot(&ours.Root, trust.RootChange{ReleaseKeys: s.publicKeys("stranger")})
			theirs := s.signRoot(next, "evil-root-1", "evil-root-2")
			forgery := s.shop("1.0.0", s.by("stranger"))
			forgery.trust = []*trust.SignedRoot{theirs}
			good := s.shop("1.0.0")
			other := s.signRoot(s.firstRoot("evil", "stranger"), "evil-root-1", "evil-root-2")
			good.trust = []*trust.SignedRoot{other, theirs}
			return s.seed(s.bundle(forgery)), s.seed(s.bundle(good))
		},
		"payload-of-another-version": func(s *stage) (forged, honest attempt) {
			s.pin(vendorPolicy)
			path, first := s.bundle(s.shop("2.0.0")), s.bundle(s.shop("1.0.0"))
			old, err := os.ReadFile(first)
			s.ok(err)
			s.edit(path, func(b []byte) []byte {
				if len(old) != len(b) {
					s.t.Fatalf("bundles of %d and %d bytes", len(old), len(b))
				}
				at := slotsAt(s, b) + archive.SlotsSize
				return append(b[:at:at], old[at:]...)
			})
			return s.verify(path), s.verify(s.bundle(s.shop("2.0.0")))
		},
		"layer-of-another-version": func(s *stage) (forged, honest attempt) {
			s.pin(vendorPolicy)
			s.midway = true
			path := s.bundle(s.shop("2.0.0"))
			s.swapLayer(path, s.bundle(s.shop("1.0.0")), s.shop("2.0.0"), s.shop("1.0.0"))
			return s.seed(path), s.seed(s.bundle(s.shop("2.0.0")))
		},
		"file-changes-while-it-is-used": func(s *stage) (forged, honest attempt) {
			s.pin(vendorPolicy)
			s.midway = true
			path, first := s.bundle(s.shop("2.0.0")), s.bundle(s.shop("1.0.0"))
			forged, honest = s.seed(path), s.seed(s.bundle(s.shop("2.0.0")))
			// The medium answers with what is signed until the registry is spoken to.
			swapped := false
			s.registry.asked = func() {
				s.registry.mu.Lock()
				defer s.registry.mu.Unlock()
				if !swapped {
					swapped = true
					s.swapLayer(path, first, s.shop("2.0.0"), s.shop("1.0.0"))
				}
			}
			return forged, honest
		},
	}
}

// slotsAt is where the signature slots of a bundle begin.
func slotsAt(s *stage, b []byte) int {
	for at := 4096; at < len(b); at += 4096 {
		if string(b[at:at+4]) == "\x51\x2a\x4d\x18" {
			return at
		}
	}
	s.t.Fatal("no signature slots")
	return 0
}

var hintOf = regexp.MustCompile(`"hint":"[^"]*"`)

// hinted is a signature that names the key of somebody.
func hinted(s *stage, sig []byte, name string) []byte {
	fingerprint, err := hex.DecodeString(s.key(name).signer.PublicKey().Fingerprint)
	s.ok(err)
	hint := `"hint":"` + base64.StdEncoding.EncodeToString(fingerprint) + `"`
	out := hintOf.ReplaceAllString(string(sig), hint)
	if out == string(sig) || !strings.Contains(out, hint) {
		s.t.Fatalf("no other hint in %s", sig)
	}
	return []byte(out)
}

// junk fills a signature slot, but for the room of so many more signatures: half with signatures by
// a stranger that name the vendor's key, half with what is no signature at all.
func (s *stage) junk(room int) []signature {
	var all []signature
	const each = 512 + 1024 // with its header, padded
	for i := range 64512/each - room {
		all = append(all, func(raw []byte) []byte {
			if i%2 == 0 {
				return hinted(s, s.by("stranger")(raw), "vendor")
			}
			return bytesOf("junk"+string(rune('a'+i)), 900)
		})
	}
	return all
}
