package cli_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/sealift/sealift/internal/trust"
)

// rootAround is a root file around bytes that are no root, signed by the vendor's root keys.
func rootAround(s *stage, like *trust.Root, raw []byte) []byte {
	file := s.signRoot(like, oldKeys...).File
	var parts struct {
		Root string `json:"root"`
	}
	s.ok(json.Unmarshal(file, &parts))
	return bytes.Replace(file, []byte(parts.Root), []byte(base64.StdEncoding.EncodeToString(raw)), 1)
}

// formAttacks are about documents that say one thing to one reader and another to the next, and about
// documents that are taken for others. Who makes them has the right key: what is signed is not
// believed for that alone.
func formAttacks() map[string]attackBuilder {
	spoiled := func(spoil func(text string) string) attackBuilder {
		return func(s *stage) (attempt, attempt) {
			s.pin(vendorPolicy)
			m := s.shop("1.0.0")
			m.spoil = func(raw []byte) []byte { return []byte(spoil(string(raw))) }
			return s.seed(s.bundle(m)), s.seed(s.bundle(s.shop("1.0.0")))
		}
	}
	replace := func(old, now string) attackBuilder {
		return spoiled(func(text string) string { return strings.Replace(text, old, now, 1) })
	}
	// presented: other signed bytes where the manifest of a bundle should be.
	presented := func(document func(s *stage) []byte) attackBuilder {
		return func(s *stage) (attempt, attempt) {
			s.pin(vendorPolicy)
			m := s.shop("1.0.0")
			content, blobs := s.manifestOf(m)
			return s.seed(s.pack("shop-1.0.0.tar.zst", document(s), content.Entries, blobs, m)), s.seed(s.bundle(m))
		}
	}
	return map[string]attackBuilder{
		"duplicate-key":               replace(`"name":"shop"`, `"name":"games","name":"shop"`),
		"duplicate-key-at-the-end":    spoiled(func(text string) string { return strings.TrimSuffix(text, "}") + `,"version":"9.0.0"}` }),
		"case-folded-key":             replace(`"version":`, `"Version":`),
		"case-folded-duplicate":       replace(`"version":"1.0.0"`, `"version":"1.0.0","VERSION":"9.0.0"`),
		"kelvin-sign-in-a-key":        replace(`"kind":`, "\"\u212aind\":"),
		"long-s-in-a-key":             replace(`"version":`, "\"ver\u017fion\":"),
		"escaped-key":                 replace(`"version":`, `"versio\u006e":`),
		"unknown-field":               replace(`"platforms":`, `"postInstall":"run.sh","platforms":`),
		"null-for-a-list":             replace(`"charts":[]`, `"charts":null`),
		"number-as-float":             replace(`"size":30,`, `"size":30.0,`),
		"trailing-document":           spoiled(func(text string) string { return text + text }),
		"trailing-newline":            spoiled(func(text string) string { return text + "\n" }),
		"white-space":                 replace(`"name":"shop"`, `"name": "shop"`),
		"not-utf-8":                   replace(`"kind":"spec"`, "\"kind\":\"spec\",\"path\":\"a\xffb\""),
		"byte-order-mark":             spoiled(func(text string) string { return "\ufeff" + text }),
		"case-folded-media-type":      replace(`{"mediaType":`, `{"MediaType":`),
		"media-type-not-first":        replace(`"mediaType":"application/vnd.sealift.manifest.v1+json","format":1,`, `"format":1,"mediaType":"application/vnd.sealift.manifest.v1+json",`),
		"version-of-another-spelling": replace(`"version":"1.0.0"`, `"version":"v1.0.0"`),
		"root-as-a-manifest": presented(func(s *stage) []byte {
			raw, err := trust.EncodeRoot(s.firstRoot("acme", "vendor"))
			s.ok(err)
			return raw
		}),
		"journal-entry-as-a-manifest": presented(func(s *stage) []byte {
			journal, err := os.ReadFile(filepath.Join(s.state, "journal.jsonl"))
			s.ok(err)
			line, _, _ := bytes.Cut(journal, []byte("\n"))
			return line
		}),
		"policy-as-a-manifest": presented(func(s *stage) []byte { return []byte("mediaType: " + trust.PolicyMediaType + vendorPolicy) }),
		"image-manifest-as-a-manifest": presented(func(s *stage) []byte {
			_, blobs := s.manifestOf(s.shop("1.0.0"))
			return blobs[0]
		}),
		"giant-manifest": func(s *stage) (forged, honest attempt) {
			s.pin(vendorPolicy)
			path := s.bundle(s.shop("1.0.0"))
			s.edit(path, func(b []byte) []byte {
				const at, size = 13, 512 // of the tar header in the first frame
				header := b[at : at+size]
				copy(header[124:], fmt.Sprintf("%011o\x00", 17<<20))
				copy(header[148:], "        ")
				sum := 0
				for _, c := range header {
					sum += int(c)
				}
				copy(header[148:], fmt.Sprintf("%06o\x00 ", sum))
				binary.LittleEndian.PutUint32(b[at+size:], uint32(xxhash.Sum64(header)))
				return b
			})
			return s.seed(path), s.seed(s.bundle(s.shop("1.0.0")))
		},
	}
}
