package install

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/sealift/sealift/internal/ledger"
	"github.com/sealift/sealift/manifest"
)

func hex64(c string) string { return "sha256:" + strings.Repeat(c, 64) }

// fullReceipt has something in each member.
func fullReceipt() *ledger.Receipt {
	return &ledger.Receipt{
		ID: "20260301-1", Action: ledger.ActionUpgrade, Outcome: ledger.OutcomeDone,
		Bundle: "shop", Version: "2.0.0", Channel: "stable", Manifest: hex64("1"), Replaces: "1.0.0", Created: "2026-02-01T00:00:00Z", Expires: "2027-01-01T00:00:00Z",
		Signers: []ledger.Signer{{Who: "key sha256:abc", Times: []string{"2026-02-01T00:00:01Z signed-timestamp https://tsa.example"}}, {Who: "ci@vendor.example by https://issuer.example", Times: []string{}}},
		Rule:    "vendor", Policy: hex64("2"),
		Groups:    []ledger.Group{{Name: "vendor", Threshold: 1, Signers: []string{"key sha256:abc"}, Root: "vendor", RootVersion: 3}, {Name: "office", Threshold: 1, Signers: []string{"ci@vendor.example by https://issuer.example"}}},
		Roots:     []ledger.Root{{Name: "vendor", Version: 3, Digest: hex64("3")}},
		Overrides: []string{"expired on 2026-02-15T00:00:00Z"}, Reason: "maintenance <script>alert(1)</script> [link](http://evil.example)",
		Cluster: "6c9a2a6e-0000-4000-8000-000000000000", Kubernetes: "v1.36.3", Registry: "registry.example/prod",
		Begun: "2026-03-01T11:50:00Z", Ended: "2026-03-01T12:00:00Z", By: "root@bastion", Tool: "1.2.3", Environment: "production",
		Parameters: []ledger.Parameter{{Name: "host", Value: "shop.example"}, {Name: "password", Secret: true}, {Name: "replicas", Value: "2", Default: true}},
		Values:     "0123", Plan: hex64("4"), BackupDone: "tape 7 | drawer 3", NoReturn: []string{"shop/web: the Job migrate is not declared safe"},
		Releases: []ledger.Release{{Namespace: "shop", Name: "web", As: "web-green", Chart: "web", Version: "2.0.0", Revision: 7, Objects: hex64("5"), Values: hex64("6"), Front: &ledger.Front{Kind: "Service", Name: "web", Strategy: "blue-green", To: "web-green", Also: "web-blue", Share: 10, Spare: "web-blue"}}},
		Images:   []ledger.Image{{Source: "vendor.example/shop/web:2.0.0", Target: "registry.example/prod/shop/web:2.0.0@" + hex64("7"), Digest: hex64("7"), Manifests: []string{hex64("8")}, Configs: []string{hex64("9")}, Referrers: []ledger.Referrer{{ArtifactType: "application/spdx+json", Digest: hex64("a")}, {ArtifactType: "signature", Digest: hex64("b")}}}},
		Checks:   []ledger.Checked{{Release: "shop/web", Name: "http", Result: "passed"}}, Kept: []string{"PersistentVolumeClaim/shop/data"},
		JournalSeq: 5, JournalDigest: hex64("c"),
	}
}

// TestReceiptIsCanonical: the same receipt always gives the same bytes, the type first, and no other bytes are read.
func TestReceiptIsCanonical(t *testing.T) {
	r := fullReceipt()
	raw, err := EncodeReceipt(r)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(raw, []byte(`{"mediaType":"application/vnd.sealift.receipt.v1+json","id":"20260301-1",`)) || bytes.Count(raw, []byte("\n")) != 1 || raw[len(raw)-1] != '\n' {
		t.Errorf("it is %s", raw)
	}
	got, err := DecodeReceipt(raw)
	if err != nil || !reflect.DeepEqual(got, r) {
		t.Fatalf("got %+v, want %+v: %v", got, r, err)
	}
	again, err := EncodeReceipt(got)
	if err != nil || !bytes.Equal(again, raw) {
		t.Errorf("encoded again it differs: %v", err)
	}
	for name, change := range map[string]func(string) string{
		"empty":           func(string) string { return "" },
		"cut":             func(s string) string { return s[:len(s)/2] },
		"no end":          func(s string) string { return strings.TrimSuffix(s, "\n") },
		"spaces":          func(s string) string { return strings.Replace(s, `":"`, `": "`, 5) },
		"a member more":   func(s string) string { return strings.Replace(s, `"id":`, `"id":"x","id":`, 1) },
		"unknown":         func(s string) string { return strings.Replace(s, `"action":`, `"extra":1,"action":`, 1) },
		"other case":      func(s string) string { return strings.Replace(s, `"bundle":`, `"Bundle":`, 1) },
		"two":             func(s string) string { return s + s },
		"a policy":        func(s string) string { return strings.Replace(s, "receipt.v1", "policy.v1", 1) },
		"a later version": func(s string) string { return strings.Replace(s, "receipt.v1", "receipt.v2", 1) },
		"type in the middle": func(s string) string {
			return `{"id":"20260301-1","mediaType":"application/vnd.sealift.receipt.v1+json",` + s[max(0, strings.Index(s, `"action"`)):]
		},
	} {
		_, err := DecodeReceipt([]byte(change(string(raw))))
		var not *NotReceiptError
		if !errors.As(err, &not) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func FuzzDecodeReceipt(f *testing.F) {
	raw, err := EncodeReceipt(fullReceipt())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(receiptPrefix + `""}`))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := DecodeReceipt(raw)
		if err != nil {
			return
		}
		again, err := EncodeReceipt(r)
		if err != nil || !bytes.Equal(again, raw) {
			t.Fatalf("it was read, and is written otherwise: %q, %q: %v", raw, again, err)
		}
	})
}

// TestNewReceipt: what is proven about a bundle is in its receipt, and no secret.
func TestNewReceipt(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "one"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "one", "Chart.yaml"), []byte("apiVersion: v2\nname: one\nversion: 0.1.0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := open(t, packSpec(t, dir, "charts:\n  - {path: one}\n", nil))
	b.Manifest().Images = []manifest.Image{
		{
			Source: "vendor.example/app:1", Digest: hex64("1"), Derived: &manifest.Descriptor{Digest: hex64("2")}, Children: []manifest.Child{{Digest: hex64("3")}, {Digest: hex64("4")}},
			Referrers: []manifest.Referrer{{Digest: hex64("5"), ArtifactType: "application/spdx+json"}, {Digest: hex64("6"), Tag: "sha256-1.att"}, {Digest: hex64("7"), MediaType: "application/x"}},
		},
		{Source: "vendor.example/job:1", Digest: hex64("8")},
	}
	r := NewReceipt(ReceiptInput{
		Bundle: b, Accept: AcceptOptions{Reason: "because", Weakened: []string{"--insecure-skip-signature"}},
		Images:     []SeededImage{{Source: "vendor.example/app:1", Target: "site/app:1@" + hex64("2"), Digest: hex64("2")}},
		Parameters: []Said{{Name: "password", Value: "hunter2", Secret: true}, {Name: "host", Value: "x"}},
		Registry:   "site", By: "me@here",
	})
	wantImages := []ledger.Image{
		{
			Source: "vendor.example/app:1", Target: "site/app:1@" + hex64("2"), Digest: hex64("2"), Manifests: []string{hex64("1"), hex64("3"), hex64("4")},
			Referrers: []ledger.Referrer{{ArtifactType: "application/spdx+json", Digest: hex64("5")}, {ArtifactType: "attestation", Digest: hex64("6")}, {ArtifactType: "application/x", Digest: hex64("7")}},
		},
		{Source: "vendor.example/job:1", Target: "vendor.example/job:1", Digest: hex64("8")},
	}
	if !reflect.DeepEqual(r.Images, wantImages) {
		t.Errorf("images are %+v, want %+v", r.Images, wantImages)
	}
	raw, err := EncodeReceipt(&r)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(raw, []byte("hunter2")) || !bytes.Contains(raw, []byte(`{"name":"password","secret":true}`)) || bytes.Contains(raw, []byte("null")) {
		t.Errorf("it is %s", raw)
	}
	if len(r.Signers) != 1 || !strings.HasPrefix(r.Signers[0].Who, "key sha256:") || r.Manifest != b.Evidence().Manifest || r.Reason != "because" ||
		!reflect.DeepEqual(r.Overrides, []string{"--insecure-skip-signature"}) || r.Version != "1.0.0" || r.Created != "2026-01-02T03:04:05Z" {
		t.Errorf("got %+v", r)
	}
}

// TestConfigsOfImages: nodes into which an image was loaded report its configuration.
func TestConfigsOfImages(t *testing.T) {
	b, _ := imagesBundle(t)
	found := 0
	for _, img := range imagesOf(b, nil) {
		for _, d := range img.Configs {
			found++
			if _, err := b.ReadBlob(d, manifest.MaxOCIManifestBytes); err != nil {
				t.Errorf("configuration %s of %s: %v", d, img.Source, err)
			}
		}
	}
	if found == 0 {
		t.Error("no configuration was found")
	}
}

// TestReceiptsInOrder: newest first, and what failed after the last success before it.
func TestReceiptsInOrder(t *testing.T) {
	at := func(id, ended string) ledger.Receipt { return ledger.Receipt{ID: id, Ended: ended} }
	installed := at("3", "2026-03-03T00:00:00Z")
	s := &ledger.State{Installed: &installed, History: []ledger.Receipt{
		at("1", "2026-03-01T00:00:00Z"), at("2", "2026-03-02T00:00:00Z"), at("4", "2026-03-04T00:00:00Z"), at("5", "2026-03-05T00:00:00Z"),
	}}
	var got []string
	for _, r := range Receipts(s) {
		got = append(got, r.ID)
	}
	if want := []string{"5", "4", "3", "2", "1"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	s.History = nil
	if got := Receipts(s); len(got) != 1 || got[0].ID != "3" {
		t.Errorf("got %v", got)
	}
}
