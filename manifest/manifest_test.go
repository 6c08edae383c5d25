package manifest_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/sealift/sealift/manifest"
)

const (
	imgDigest  = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
	idxDigest  = "sha256:2222222222222222222222222222222222222222222222222222222222222222"
	derDigest  = "sha256:3333333333333333333333333333333333333333333333333333333333333333"
	tgzDigest  = "sha256:4444444444444444444444444444444444444444444444444444444444444444"
	artDigest  = "sha256:5555555555555555555555555555555555555555555555555555555555555555"
	valsDigest = "sha256:6666666666666666666666666666666666666666666666666666666666666666"
	sigDigest  = "sha256:7777777777777777777777777777777777777777777777777777777777777777"
	refDigest  = "sha256:8888888888888888888888888888888888888888888888888888888888888888"
	rootDigest = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
)

// sample is a valid manifest with one of everything.
func sample(t testing.TB) *manifest.Manifest {
	t.Helper()
	blob := func(digest, mediaType string, size int64) manifest.Blob {
		return manifest.Blob{Digest: digest, Size: size, MediaType: mediaType, Encoding: manifest.EncodingStored}
	}
	const img, idx = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"
	m := &manifest.Manifest{
		MediaType: manifest.MediaType, Format: 1, Name: "shop", Version: "1.0.0", Channel: "stable",
		Created: "2026-01-02T03:04:05Z", Expires: "2027-12-31T23:59:59Z", Platforms: []string{"linux/amd64"},
		Images: []manifest.Image{{
			Source: "registry.example.com/shop/app:1", Digest: idxDigest, MediaType: idx, Size: 20,
			Platforms: []string{"linux/amd64"},
			Derived:   &manifest.Descriptor{Digest: derDigest, MediaType: idx, Size: 30},
			Children:  []manifest.Child{{Digest: imgDigest, MediaType: img, Size: 10, Platform: "linux/amd64"}},
			Referrers: []manifest.Referrer{
				{Digest: sigDigest, MediaType: img, Size: 70, Subject: idxDigest, Tag: manifest.ReferrerTag(idxDigest, ".sig")},
				{Digest: refDigest, MediaType: img, Size: 80, Subject: sigDigest, ArtifactType: "application/x"},
			},
			SignedBy: []manifest.ImageSigner{
				{Key: "QUJD"},
				{Issuer: "https://issuer.example", Subject: "ci@shop.example", TrustedRoot: &manifest.Descriptor{Digest: rootDigest, MediaType: manifest.MediaTypeTrustedRoot, Size: 90}},
			},
			Reasons: []manifest.Reason{{Kind: manifest.ReasonChart, Chart: "shop", Object: "Deployment/shop", Path: "spec"}},
		}},
		Charts: []manifest.Chart{{
			Name: "shop", Version: "0.1.0", Release: "shop", Namespace: "shop",
			Manifest: manifest.Descriptor{Digest: artDigest, MediaType: img, Size: 50},
			Archive:  manifest.Descriptor{Digest: tgzDigest, MediaType: "application/gzip", Size: 40},
			Values:   []manifest.ValuesFile{{Name: "values.yaml", Digest: valsDigest, Size: 60}},
		}},
		Blobs: []manifest.Blob{
			blob(idxDigest, idx, 20), blob(derDigest, idx, 30), blob(imgDigest, img, 10),
			blob(sigDigest, img, 70), blob(refDigest, img, 80), blob(rootDigest, manifest.MediaTypeTrustedRoot, 90),
			blob(tgzDigest, "application/gzip", 40), blob(artDigest, img, 50), blob(valsDigest, manifest.MediaTypeValues, 60),
		},
	}
	if err := manifest.Arrange(m, nil); err != nil {
		t.Fatal(err)
	}
	return m
}

func encode(t testing.TB, m *manifest.Manifest) []byte {
	t.Helper()
	raw, err := manifest.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestRoundTrip(t *testing.T) {
	raw := encode(t, sample(t))
	m, err := manifest.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	if again := encode(t, m); !bytes.Equal(raw, again) {
		t.Fatalf("encoded again:\n%s\nwas:\n%s", again, raw)
	}
	if bytes.Contains(raw, []byte("null")) || bytes.HasSuffix(raw, []byte("\n")) {
		t.Fatalf("not canonical: %s", raw)
	}
}

// TestOnlyTheCanonicalFormIsRead has every way to say the same with other bytes.
func TestOnlyTheCanonicalFormIsRead(t *testing.T) {
	raw := string(encode(t, sample(t)))
	replace := func(old, with string) string {
		if !strings.Contains(raw, old) {
			t.Fatalf("the sample has no %s", old)
		}
		return strings.Replace(raw, old, with, 1)
	}
	for name, c := range map[string]struct {
		raw  string
		want error
	}{
		"empty":                 {"", manifest.ErrUnknownFormat},
		"another media type":    {replace("manifest.v1+json", "receipt.v1+json"), manifest.ErrUnknownFormat},
		"another format":        {replace(`"format":1`, `"format":2`), manifest.ErrUnknownFormat},
		"media type not first":  {replace(`{"mediaType":"`+manifest.MediaType+`",`, `{"name":"x","mediaType":"`+manifest.MediaType+`",`), manifest.ErrUnknownFormat},
		"white space in front":  {" " + raw, manifest.ErrUnknownFormat},
		"byte order mark":       {"\ufeff" + raw, manifest.ErrUnknownFormat},
		"duplicate key":         {replace(`"name":"shop"`, `"name":"evil","name":"shop"`), manifest.ErrNotCanonical},
		"other case":            {replace(`"name":"shop"`, `"Name":"shop"`), manifest.ErrNotCanonical},
		"Kelvin sign for k":     {replace(`"kind":`, "\"\u212aind\":"), manifest.ErrNotCanonical},
		"long s for s":          {replace(`"sha256":`, "\"\u017fha256\":"), manifest.ErrNotCanonical},
		"escaped letter":        {replace(`"name":"shop"`, `"name":"\u0073hop"`), manifest.ErrNotCanonical},
		"white space":           {replace(`"name":`, `"name": `), manifest.ErrNotCanonical},
		"trailing newline":      {raw + "\n", manifest.ErrNotCanonical},
		"trailing document":     {raw + "{}", manifest.ErrNotCanonical},
		"null for a list":       {replace(`"values":[{"name":"values.yaml","digest":"`+valsDigest+`","size":60}]`, `"values":null`), manifest.ErrNotCanonical},
		"empty optional member": {replace(`"channel":`, `"head":0,"channel":`), manifest.ErrNotCanonical},
		"exponent":              {replace(`"size":20`, `"size":2e1`), nil},
		"invalid UTF-8":         {replace(`"object":"Deployment/shop"`, "\"object\":\"Deployment/\xff\""), manifest.ErrNotCanonical},
		"unknown field":         {replace(`"channel":`, `"extra":1,"channel":`), nil},
		"cut":                   {raw[:len(raw)-1], nil},
		"a number for a text":   {replace(`"name":"shop"`, `"name":1`), nil},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := manifest.Parse([]byte(c.raw))
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Fatalf("%v, want %v", err, c.want)
			}
		})
	}
	if _, err := manifest.Parse(bytes.Repeat([]byte(" "), manifest.MaxManifestBytes+1)); err == nil {
		t.Fatal("a giant was read")
	}
}

// TestRules breaks each rule of a valid manifest, one at a time.
func TestRules(t *testing.T) {
	for name, spoil := range map[string]func(*manifest.Manifest){
		"name":                      func(m *manifest.Manifest) { m.Name = "Shop" },
		"name with a path":          func(m *manifest.Manifest) { m.Name = "../shop" },
		"version":                   func(m *manifest.Manifest) { m.Version = "1.0" },
		"version with leading zero": func(m *manifest.Manifest) { m.Version = "01.0.0" },
		"channel":                   func(m *manifest.Manifest) { m.Channel = "" },
		"time with offset":          func(m *manifest.Manifest) { m.Created = "2026-01-02T03:04:05+01:00" },
		"time with fraction":        func(m *manifest.Manifest) { m.Created = "2026-01-02T03:04:05.5Z" },
		"no platforms":              func(m *manifest.Manifest) { m.Platforms = nil },
		"platform twice":            func(m *manifest.Manifest) { m.Platforms = []string{"linux/amd64", "linux/amd64"} },
		"head not aligned":          func(m *manifest.Manifest) { m.Head = 4097 },
		"head too far":              func(m *manifest.Manifest) { m.Head = manifest.MaxHead + 4096 },
		"head negative":             func(m *manifest.Manifest) { m.Head = -4096 },
		"image twice":               func(m *manifest.Manifest) { m.Images = append(m.Images, m.Images[0]) },
		"source without host":       func(m *manifest.Manifest) { m.Images[0].Source = "app:1" },
		"source with a trick":       func(m *manifest.Manifest) { m.Images[0].Source = "registry.example.com/../x:1" },
		"pinned otherwise":          func(m *manifest.Manifest) { m.Images[0].Source = "registry.example.com/a@" + imgDigest },
		"image not among the blobs": func(m *manifest.Manifest) { m.Images[0].Digest = "sha256:" + strings.Repeat("9", 64) },
		"image of another size":     func(m *manifest.Manifest) { m.Images[0].Size++ },
		"image of another type":     func(m *manifest.Manifest) { m.Images[0].MediaType = "text/plain" },
		"no reason":                 func(m *manifest.Manifest) { m.Images[0].Reasons = nil },
		"unknown reason":            func(m *manifest.Manifest) { m.Images[0].Reasons[0].Kind = "guess" },
		"escape sequence":           func(m *manifest.Manifest) { m.Images[0].Reasons[0].Object = "\x1b[31mred" },
		"child twice": func(m *manifest.Manifest) {
			m.Images[0].Children = append(m.Images[0].Children, m.Images[0].Children[0])
		},
		"expires, not a time":          func(m *manifest.Manifest) { m.Expires = "2027-12-31" },
		"referrer not among the blobs": func(m *manifest.Manifest) { m.Images[0].Referrers[0].Digest = "sha256:" + strings.Repeat("9", 64) },
		"referrer of another size":     func(m *manifest.Manifest) { m.Images[0].Referrers[0].Size++ },
		"referrer of another type":     func(m *manifest.Manifest) { m.Images[0].Referrers[0].MediaType = "text/plain" },
		"referrer of something else":   func(m *manifest.Manifest) { m.Images[0].Referrers[0].Subject = tgzDigest },
		"referrer before its subject":  func(m *manifest.Manifest) { r := m.Images[0].Referrers; r[0], r[1] = r[1], r[0] },
		"referrer twice": func(m *manifest.Manifest) {
			m.Images[0].Referrers = append(m.Images[0].Referrers, m.Images[0].Referrers[0])
		},
		"tag of another digest":   func(m *manifest.Manifest) { m.Images[0].Referrers[0].Tag = manifest.ReferrerTag(imgDigest, ".sig") },
		"tag of another kind":     func(m *manifest.Manifest) { m.Images[0].Referrers[0].Tag = manifest.ReferrerTag(idxDigest, ".exe") },
		"artifact type":           func(m *manifest.Manifest) { m.Images[0].Referrers[1].ArtifactType = "x" },
		"too many referrers":      func(m *manifest.Manifest) { m.Images[0].Referrers = make([]manifest.Referrer, manifest.MaxReferrers+1) },
		"dropped and there":       func(m *manifest.Manifest) { m.Images[0].ReferrersDropped = true },
		"dropped and demanded":    func(m *manifest.Manifest) { m.Images[0].ReferrersDropped, m.Images[0].Referrers = true, nil },
		"signer without anything": func(m *manifest.Manifest) { m.Images[0].SignedBy[0].Key = "" },
		"key not in base64":       func(m *manifest.Manifest) { m.Images[0].SignedBy[0].Key = "?" },
		"key and identity":        func(m *manifest.Manifest) { m.Images[0].SignedBy[1].Key = "QUJD" },
		"key and trusted root":    func(m *manifest.Manifest) { m.Images[0].SignedBy[0].TrustedRoot = m.Images[0].SignedBy[1].TrustedRoot },
		"identity without root":   func(m *manifest.Manifest) { m.Images[0].SignedBy[1].TrustedRoot = nil },
		"identity without issuer": func(m *manifest.Manifest) { m.Images[0].SignedBy[1].Issuer = "" },
		"two forms of a subject":  func(m *manifest.Manifest) { m.Images[0].SignedBy[1].SubjectRegExp = "x" },
		"identity with an escape": func(m *manifest.Manifest) { m.Images[0].SignedBy[1].Subject = "\x1b[31m" },
		"root not among the blobs": func(m *manifest.Manifest) {
			m.Images[0].SignedBy[1].TrustedRoot.Digest = "sha256:" + strings.Repeat("9", 64)
		},
		"too many signers":         func(m *manifest.Manifest) { m.Images[0].SignedBy = make([]manifest.ImageSigner, manifest.MaxSigners+1) },
		"derived without children": func(m *manifest.Manifest) { m.Images[0].Children = nil },
		"derived is the original":  func(m *manifest.Manifest) { m.Images[0].Derived.Digest, m.Images[0].Derived.Size = idxDigest, 20 },
		"release":                  func(m *manifest.Manifest) { m.Charts[0].Release = "Shop" },
		"release too long":         func(m *manifest.Manifest) { m.Charts[0].Release = strings.Repeat("a", 54) },
		"namespace":                func(m *manifest.Manifest) { m.Charts[0].Namespace = "a/b" },
		"release twice":            func(m *manifest.Manifest) { m.Charts = append(m.Charts, m.Charts[0]) },
		"one chart, two contents": func(m *manifest.Manifest) {
			c := m.Charts[0]
			c.Release = "other"
			c.Manifest = manifest.Descriptor{Digest: imgDigest, MediaType: m.Blobs[2].MediaType, Size: 10}
			m.Charts = append(m.Charts, c)
		},
		"values without a blob": func(m *manifest.Manifest) { m.Charts[0].Values[0].Digest = "sha256:" + strings.Repeat("9", 64) },
		"blob twice":            func(m *manifest.Manifest) { m.Blobs = append(m.Blobs, m.Blobs[0]) },
		"unknown encoding":      func(m *manifest.Manifest) { m.Blobs[0].Encoding = "gzip" },
		"negative size":         func(m *manifest.Manifest) { m.Blobs[3].Size, m.Charts[0].Archive.Size = -1, -1 },
		"huge size":             func(m *manifest.Manifest) { m.Blobs[3].Size = manifest.MaxEntryBytes + 1 },
		"upper-case digest":     func(m *manifest.Manifest) { m.Blobs[3].Digest = "sha256:" + strings.Repeat("A", 64) },
		"media type":            func(m *manifest.Manifest) { m.Blobs[3].MediaType = "x" },
	} {
		t.Run(name, func(t *testing.T) {
			m := sample(t)
			spoil(m)
			if len(m.Blobs) > 0 && m.Blobs[len(m.Blobs)-1].Digest != "" {
				if err := manifest.Arrange(m, nil); err != nil {
					t.Fatal(err)
				}
			}
			if err := m.Validate(); !errors.Is(err, manifest.ErrInvalid) {
				t.Fatalf("%v, want ErrInvalid", err)
			}
		})
	}
}

// TestEntriesHaveNoFreedom: the list of entries follows from the rest.
func TestEntriesHaveNoFreedom(t *testing.T) {
	for name, spoil := range map[string]func(*manifest.Manifest){
		"missing":       func(m *manifest.Manifest) { m.Entries = m.Entries[:len(m.Entries)-1] },
		"more":          func(m *manifest.Manifest) { m.Entries = append(m.Entries, m.Entries[2]) },
		"other order":   func(m *manifest.Manifest) { m.Entries[2], m.Entries[3] = m.Entries[3], m.Entries[2] },
		"other name":    func(m *manifest.Manifest) { m.Entries[2].Name = "../../etc/passwd" },
		"other size":    func(m *manifest.Manifest) { m.Entries[2].Size++ },
		"another index": func(m *manifest.Manifest) { m.Entries[1] = manifest.EntryFor("index.json", []byte("{}")) },
	} {
		t.Run(name, func(t *testing.T) {
			m := sample(t)
			spoil(m)
			if err := m.Validate(); !errors.Is(err, manifest.ErrInvalid) {
				t.Fatalf("%v, want ErrInvalid", err)
			}
		})
	}
}

// encodedSample is the sample with its last blob encoded.
func encodedSample(t testing.TB) *manifest.Manifest {
	t.Helper()
	m := sample(t)
	m.Blobs[len(m.Blobs)-1].Encoding = manifest.EncodingZstd
	content := manifest.EntryFor("", []byte("what it is encoded to"))
	if err := manifest.Arrange(m, map[string]manifest.Entry{valsDigest: content}); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestEncodedBlobs: of what an encoded blob's entry holds, only size and digest are free.
func TestEncodedBlobs(t *testing.T) {
	m := encodedSample(t)
	if again, err := manifest.Parse(encode(t, m)); err != nil || again.Blobs[len(m.Blobs)-1].Encoding != manifest.EncodingZstd {
		t.Fatal(err)
	}
	last := len(m.Entries) - 1
	if want := manifest.BlobPrefix + valsDigest[len("sha256:"):] + ".zst"; m.Entries[last].Name != want || manifest.BlobEntryName(m.Blobs[len(m.Blobs)-1]) != want {
		t.Errorf("its entry is called %q, want %q", m.Entries[last].Name, want)
	}
	for name, free := range map[string]func(*manifest.Entry){
		"another size":   func(e *manifest.Entry) { e.Size = 1 },
		"the largest":    func(e *manifest.Entry) { e.Size = manifest.MaxEntryBytes },
		"another digest": func(e *manifest.Entry) { e.SHA256 = strings.Repeat("9", 64) },
	} {
		m := encodedSample(t)
		free(&m.Entries[last])
		if err := m.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, spoil := range map[string]func(*manifest.Manifest){
		"no bytes":           func(m *manifest.Manifest) { m.Entries[last].Size = 0 },
		"negative size":      func(m *manifest.Manifest) { m.Entries[last].Size = -1 },
		"too large":          func(m *manifest.Manifest) { m.Entries[last].Size = manifest.MaxEntryBytes + 1 },
		"no digest":          func(m *manifest.Manifest) { m.Entries[last].SHA256 = "" },
		"upper-case digest":  func(m *manifest.Manifest) { m.Entries[last].SHA256 = strings.Repeat("A", 64) },
		"the blob's name":    func(m *manifest.Manifest) { m.Entries[last].Name = manifest.BlobPrefix + valsDigest[len("sha256:"):] },
		"a path":             func(m *manifest.Manifest) { m.Entries[last].Name = "../../x.zst" },
		"entry left out":     func(m *manifest.Manifest) { m.Entries = m.Entries[:last] },
		"entries exchanged":  func(m *manifest.Manifest) { m.Entries[last], m.Entries[last-1] = m.Entries[last-1], m.Entries[last] },
		"stored all at once": func(m *manifest.Manifest) { m.Blobs[len(m.Blobs)-1].Encoding = manifest.EncodingStored },
		"encoded otherwise":  func(m *manifest.Manifest) { m.Blobs[len(m.Blobs)-1].Encoding = "gzip" },
		"no encoding":        func(m *manifest.Manifest) { m.Blobs[len(m.Blobs)-1].Encoding = "" },
		"another one too":    func(m *manifest.Manifest) { m.Blobs[0].Encoding = manifest.EncodingZstd },
	} {
		m := encodedSample(t)
		spoil(m)
		if err := m.Validate(); !errors.Is(err, manifest.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
}

// FuzzParse: what is accepted is canonical, valid, and the same when it is encoded again.
func FuzzParse(f *testing.F) {
	raw := encode(f, sample(f))
	f.Add(raw)
	f.Add(encode(f, encodedSample(f)))
	f.Add(encode(f, full(f)))
	f.Add([]byte(`{"mediaType":"` + manifest.MediaType + `","format":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := manifest.Parse(b)
		if err != nil {
			return
		}
		again, err := manifest.Encode(m)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("accepted %q, encoded again %q, %v", b, again, err)
		}
		if err := m.Validate(); err != nil {
			t.Fatal(err)
		}
	})
}
