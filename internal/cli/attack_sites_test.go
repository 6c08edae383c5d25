package cli_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"

	"github.com/sealift/sealift/manifest"
)

// siteAttacks are about what a site allows, and about what it remembers.
func siteAttacks() map[string]attackBuilder {
	const why = "the courier says that it is all right"
	// flag: what is not allowed with it is allowed without it, or by another policy.
	withFlag := func(policy string, flags func(s *stage) []string) attackBuilder {
		return func(s *stage) (attempt, attempt) {
			s.pin(vendorPolicy)
			m := s.shop("1.0.0", s.by("stranger"))
			path := s.bundle(m)
			other := newStage(s.t)
			other.pin(policy)
			forged, honest := s.seed(path, flags(s)...), s.seed(path, flags(s)...)
			honest.state = other.state
			return forged, honest
		}
	}
	fromEnvironment := func(name, value string) attackBuilder {
		return func(s *stage) (attempt, attempt) {
			s.pin(vendorPolicy)
			s.accept(s.bundle(s.shop("2.0.0")))
			path := s.bundle(s.shop("1.0.0"))
			forged := s.seed(path)
			forged.env = map[string]string{name: value}
			return forged, s.seed(path, "--allow-downgrade", "--reason", why)
		}
	}
	// tampered: what the site remembers is changed, and the same command used on what it was.
	tampered := func(change func(s *stage)) attackBuilder {
		return func(s *stage) (attempt, attempt) {
			s.pin(vendorPolicy)
			s.accept(s.bundle(s.shop("1.0.0")))
			s.accept(s.bundle(s.shop("2.0.0")))
			whole := s.copyState()
			change(s)
			path := s.bundle(s.shop("3.0.0"))
			forged, honest := s.seed(path), s.seed(path)
			honest.state = whole
			return forged, honest
		}
	}
	record := func(s *stage) string { return filepath.Join(s.state, "record.json") }
	journal := func(s *stage) string { return filepath.Join(s.state, "journal.jsonl") }
	lines := func(b []byte) [][]byte { return bytes.SplitAfter(b, []byte("\n")) }
	return map[string]attackBuilder{
		"key-beside-the-policy": withFlag(vendorPolicy+"allow: {key: true}\n", func(s *stage) []string {
			return []string{"--key", s.file("stranger.pub", s.key("stranger").public), "--reason", why}
		}),
		"policy-beside-the-policy": withFlag(vendorPolicy+"allow: {key: true}\n", func(s *stage) []string {
			return []string{"--policy", s.policy(strings.ReplaceAll(vendorPolicy, "$vendor", "$stranger")), "--reason", why}
		}),
		"skip-signature-not-allowed": withFlag(vendorPolicy+"allow: {unsigned: true}\n", func(*stage) []string {
			return []string{"--insecure-skip-signature", "--reason", why}
		}),
		"skip-signature-skips-no-digest": func(s *stage) (forged, honest attempt) {
			s.pin(vendorPolicy + "allow: {unsigned: true}\n")
			s.midway, s.weakened = true, true
			path := s.bundle(s.shop("2.0.0"))
			s.swapLayer(path, s.bundle(s.shop("1.0.0")), s.shop("2.0.0"), s.shop("1.0.0"))
			flags := []string{"--insecure-skip-signature", "--reason", why}
			return s.seed(path, flags...), s.seed(s.bundle(s.shop("2.0.0")), flags...)
		},
		"weakening-without-a-reason": func(s *stage) (forged, honest attempt) {
			s.pin(vendorPolicy)
			s.accept(s.bundle(s.shop("2.0.0")))
			path := s.bundle(s.shop("1.0.0"))
			return s.seed(path, "--allow-downgrade", "--reason", " "), s.seed(path, "--allow-downgrade", "--reason", why)
		},
		"downgrade-by-environment":      fromEnvironment("SEALIFT_ALLOW_DOWNGRADE", "true"),
		"expired-by-environment":        fromEnvironment("SEALIFT_ALLOW_EXPIRED", "true"),
		"skip-signature-by-environment": fromEnvironment("SEALIFT_INSECURE_SKIP_SIGNATURE", "true"),
		"key-by-environment": func(s *stage) (forged, honest attempt) {
			s.pin(vendorPolicy)
			path := s.bundle(s.shop("1.0.0", s.by("stranger")))
			forged = s.seed(path)
			forged.env = map[string]string{"SEALIFT_KEY": s.file("stranger.pub", s.key("stranger").public)}
			return forged, s.seed(s.bundle(s.shop("1.0.0")))
		},
		"allowed-key-by-environment": func(s *stage) (forged, honest attempt) {
			s.pin(vendorPolicy + "allow: {key: true}\n")
			path, key := s.bundle(s.shop("1.0.0", s.by("stranger"))), s.file("stranger.pub", s.key("stranger").public)
			forged = s.seed(path, "--reason", why)
			forged.env = map[string]string{"SEALIFT_KEY": key}
			return forged, s.seed(path, "--reason", why, "--key", key)
		},
		"allowed-key-without-a-reason": func(s *stage) (forged, honest attempt) {
			s.pin(vendorPolicy + "allow: {key: true}\n")
			path, key := s.bundle(s.shop("1.0.0", s.by("stranger"))), s.file("stranger.pub", s.key("stranger").public)
			return s.seed(path, "--key", key), s.seed(path, "--key", key, "--reason", why)
		},
		"policy-replaced-by-init": func(s *stage) (forged, honest attempt) {
			s.pin(vendorPolicy)
			policy := s.policy(strings.ReplaceAll(vendorPolicy, "$vendor", "$stranger"))
			honest = attempt{args: []string{"trust", "init", policy}, state: filepath.Join(s.dir, "new")}
			return attempt{args: []string{"trust", "init", policy}}, honest
		},
		"policy-swapped-before-it-is-pinned": func(s *stage) (forged, honest attempt) {
			ours, theirs := s.policy(vendorPolicy), s.policy(strings.ReplaceAll(vendorPolicy, "$vendor", "$stranger"))
			raw, err := os.ReadFile(ours)
			s.ok(err)
			args := func(path string) []string { return []string{"trust", "init", path, "--expect", manifest.Digest(raw)} }
			return attempt{args: args(theirs)}, attempt{args: args(ours)}
		},
		"registry-not-allowed": func(s *stage) (forged, honest attempt) {
			s.pin(demanding("registries: [registry.example/shop]"))
			m := s.shop("1.0.0")
			m.source = "registry.evil/shop/app:1"
			return s.seed(s.bundle(m)), s.seed(s.bundle(s.shop("1.0.0")))
		},
		"registry-look-alike": func(s *stage) (forged, honest attempt) {
			s.pin(demanding("registries: ['registry.example', '*.registry.example']"))
			m := s.shop("1.0.0")
			m.source = "registry.example.evil.com/shop/app:1"
			good := s.shop("1.0.0")
			good.source = "eu.registry.example/shop/app:1"
			return s.seed(s.bundle(m)), s.seed(s.bundle(good))
		},
		"registry-path-look-alike": func(s *stage) (forged, honest attempt) {
			s.pin(demanding("registries: [registry.example/shop]"))
			m := s.shop("1.0.0")
			m.source = "registry.example/shop-evil/app:1"
			return s.seed(s.bundle(m)), s.seed(s.bundle(s.shop("1.0.0")))
		},
		"namespace-not-allowed": func(s *stage) (forged, honest attempt) {
			s.pin(demanding("limits: {namespaces: [shop]}"))
			m, good := s.shop("1.0.0"), s.shop("1.0.0")
			m.namespace, good.namespace = "kube-system", "shop"
			return s.verify(s.bundle(m)), s.verify(s.bundle(good))
		},
		"namespace-look-alike": func(s *stage) (forged, honest attempt) {
			s.pin(demanding("limits: {namespaces: ['shop*']}"))
			m, good := s.shop("1.0.0"), s.shop("1.0.0")
			m.namespace, good.namespace = "shop-evil", "shop2"
			return s.verify(s.bundle(m)), s.verify(s.bundle(good))
		},
		"record-changed": tampered(func(s *stage) {
			s.edit(record(s), func(b []byte) []byte {
				return bytes.Replace(b, []byte(`"version":"2.0.0"`), []byte(`"version": "1.0.0"`), 1)
			})
		}),
		"record-put-back": func(s *stage) (forged, honest attempt) {
			s.pin(vendorPolicy)
			old := s.bundle(s.shop("1.0.0"))
			s.accept(old)
			before, err := os.ReadFile(record(s))
			s.ok(err)
			earlier := s.copyState()
			s.accept(s.bundle(s.shop("2.0.0")))
			s.ok(os.WriteFile(record(s), before, 0o600)) // so that 1.0.0 is the newest again
			next := s.bundle(s.shop("1.5.0"))
			forged, honest = s.seed(next), s.seed(next)
			honest.state = earlier
			return forged, honest
		},
		"record-deleted":  tampered(func(s *stage) { s.ok(os.Remove(record(s))) }),
		"journal-deleted": tampered(func(s *stage) { s.ok(os.Remove(journal(s))) }),
		"journal-shortened": tampered(func(s *stage) {
			s.edit(journal(s), func(b []byte) []byte { all := lines(b); return bytes.Join(all[:len(all)-2], nil) })
		}),
		"journal-lengthened": tampered(func(s *stage) {
			s.edit(journal(s), func(b []byte) []byte { all := lines(b); return append(b, all[len(all)-2]...) })
		}),
		"last-journal-entry-changed": tampered(func(s *stage) {
			s.edit(journal(s), func(b []byte) []byte {
				at := bytes.LastIndex(b, []byte(`"2.0.0"`))
				return append(append(bytes.Clone(b[:at]), `"1.0.0"`...), b[at+7:]...)
			})
		}),
		"journal-entry-changed": func(s *stage) (forged, honest attempt) {
			s.pin(vendorPolicy)
			s.accept(s.bundle(s.shop("1.0.0")))
			s.accept(s.bundle(s.shop("2.0.0")))
			forged, honest = attempt{args: []string{"journal", "verify"}}, attempt{args: []string{"journal", "verify"}, state: s.copyState()}
			s.edit(journal(s), func(b []byte) []byte {
				return bytes.Replace(b, []byte(`"version":"1.0.0"`), []byte(`"version":"1.0.1"`), 1)
			})
			return forged, honest
		},
		"journal-written-anew": func(s *stage) (forged, honest attempt) {
			s.pin(vendorPolicy)
			empty := s.copyState()
			receipt := s.must(s.seed(s.bundle(s.shop("2.0.0"))).args...)
			_, head, _ := strings.Cut(receipt, "journal  entry 2, ")
			whole := s.copyState()
			// Who can write to the directory lets the site have another past, which is sound in itself.
			s.ok(os.RemoveAll(s.state))
			s.ok(os.Rename(empty, s.state))
			s.accept(s.bundle(s.shop("1.0.0")))
			args := []string{"journal", "verify", "--head", strings.TrimSpace(head)}
			return attempt{args: args}, attempt{args: args, state: whole}
		},
		"policy-document-exchanged": tampered(func(s *stage) {
			evil, err := os.ReadFile(s.policy(strings.ReplaceAll(vendorPolicy, "$vendor", "$stranger")))
			s.ok(err)
			docs, err := filepath.Glob(filepath.Join(s.state, "docs", "sha256", "*"))
			s.ok(err)
			s.edit(docs[0], func([]byte) []byte { return evil })
		}),
		"root-document-exchanged": func(s *stage) (forged, honest attempt) {
			s.pinRoot(s.signRoot(s.firstRoot("acme", "vendor"), oldKeys...))
			whole := s.copyState()
			evil := s.signRoot(s.firstRoot("acme", "stranger"), oldKeys...).File
			docs, err := filepath.Glob(filepath.Join(s.state, "docs", "sha256", "*"))
			s.ok(err)
			for _, d := range docs {
				raw, err := os.ReadFile(d)
				s.ok(err)
				if bytes.HasPrefix(raw, []byte("{")) {
					s.ok(os.WriteFile(d, evil, 0o600))
				}
			}
			forged, honest = s.seed(s.bundle(s.shop("1.0.0", s.by("stranger")))), s.seed(s.bundle(s.shop("1.0.0")))
			honest.state = whole
			return forged, honest
		},
	}
}
