package archive_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/manifest"
)

var update = flag.Bool("update", false, "write golden files anew")

const (
	golden  = "../../testdata/bundles/golden-1.0.0.tar.zst"
	checker = "../../testdata/checker/sealift_check.py"
)

// writeGolden makes the golden bundle: two blobs, one of them empty, a fixed signature. What
// is frozen by format 1 is frozen by this file.
func writeGolden(t *testing.T, path string) {
	t.Helper()
	blobs := [][]byte{{}, random(1, 5000)}
	m := &manifest.Manifest{
		MediaType: manifest.MediaType, Format: 1, Name: "golden", Version: "1.0.0", Channel: "stable",
		Created: "2026-01-02T03:04:05Z", Platforms: []string{"linux/amd64"},
	}
	for _, b := range blobs {
		m.Blobs = append(m.Blobs, manifest.Blob{Digest: manifest.Digest(b), Size: int64(len(b)), MediaType: "application/octet-stream", Encoding: manifest.EncodingStored})
	}
	if err := manifest.Arrange(m, nil); err != nil {
		t.Fatal(err)
	}
	raw, err := manifest.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	idx, err := manifest.OCIIndex(m)
	if err != nil {
		t.Fatal(err)
	}
	p := &pack{path: path, raw: raw, entries: m.Entries, signatures: [][]byte{[]byte(`{"not":"a signature, but bytes in its place"}`)}}
	p.blobs = append([][]byte{manifest.OCILayout(), idx}, blobs...)
	p.write(t)
}

func TestGoldenBundle(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b")
	writeGolden(t, path)
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatal("the same content is written with other bytes than before: format 1 is frozen")
	}
}

// TestIndependentChecker runs a second implementation of docs/format.md, in Python, over what
// this one writes, and over damaged copies.
func TestIndependentChecker(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not installed")
	}
	check := func(path string) error {
		out, err := exec.Command(python, "-B", checker, path).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	if err := check(golden); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "b")
	for _, at := range []int{0, 130, 529, 700, 4000, 4096, 4100, 4200, 60000, 4096 + slotB - 8, 4096 + slotB - 1, 4096 + slotB + slotFrame, len(file) - 5000, len(file) - 300, len(file) - 100, len(file) - 1} {
		bad := bytes.Clone(file)
		bad[at] ^= 4
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if check(path) == nil {
			t.Errorf("the checker did not find a change at byte %d", at)
		}
	}
	for name, bad := range map[string][]byte{"cut": file[:len(file)-1], "longer": append(bytes.Clone(file), 0)} {
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if check(path) == nil {
			t.Errorf("the checker did not find a file that is %s", name)
		}
	}
	// What lies in the inactive slot makes it warn, as it does ours.
	for _, at := range []int{slotB, slotB + 1000, slotB + slotFrame - 1} {
		bad := bytes.Clone(file)
		bad[4096+at] ^= 4
		save(t, path, bad)
		if out, err := exec.Command(python, "-B", checker, path).CombinedOutput(); err != nil || !bytes.Contains(out, []byte("warning: the inactive slot B is not blank")) {
			t.Errorf("a change of byte %d of the slots: %v: %s", at, err, out)
		}
	}
	// What the checker writes by itself, this implementation accepts.
	made := filepath.Join(t.TempDir(), "made")
	if out, err := exec.Command(python, "-B", checker, "--make", made).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, err := os.ReadFile(made)
	if err != nil {
		t.Fatal(err)
	}
	h, err := archive.ReadHead(source(b))
	if err != nil {
		t.Fatal(err)
	}
	m, err := manifest.Parse(h.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	l, err := archive.NewLayout(int64(len(h.Manifest)), m.Head, m.Entries)
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(b, l); err != nil {
		t.Fatal(err)
	}
}

// TestCheckerSigns: what the second implementation writes as a bundle that was signed again, with
// slot B active and trust entries, Resign makes of the unsigned one, byte for byte; and it takes
// what Resign writes later.
func TestCheckerSigns(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not installed")
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(python, append([]string{"-B", checker}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v: %s", args, err, out)
		}
		return string(out)
	}
	dir := t.TempDir()
	ours, theirs := filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")
	run("--make", ours)
	run("--make-signed", theirs)
	files := &archive.Files{Name: ours, File: ours}
	c := archive.SlotContent{
		Signatures: [][]byte{[]byte(`{"signature":"one"}`), []byte(`{"signature":"two"}`)},
		Trust:      []archive.Trust{{Number: 9, Body: []byte(`{"root":9}`)}, {Number: 10, Body: []byte(`{"root":10}`)}},
	}
	if err := archive.Resign(t.Context(), files, to(c)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(read(t, ours), read(t, theirs)) {
		t.Error("two implementations sign with different bytes")
	}
	for i := range 2 {
		c.Trust = append(c.Trust, archive.Trust{Number: 11 + i, Body: random(1, 32<<10)[:15000*i]})
		if err := archive.Resign(t.Context(), files, to(c)); err != nil {
			t.Fatal(err)
		}
		if out := run(ours); !strings.Contains(out, fmt.Sprintf(" 2 signatures, %d trust entries ", len(c.Trust))) || strings.Contains(out, "warning") {
			t.Errorf("signed %d times: %s", i+2, out)
		}
	}
	// What encodeSlot would not write: the checker refuses it as we do.
	b := read(t, ours)
	const content = 4096 + slotB + 13
	for name, entries := range map[string][][]byte{
		"wrong order":    {regular("trust/2.root.json", nil), regular("trust/1.root.json", nil)},
		"a gap":          {regular("trust/1.root.json", nil), regular("trust/3.root.json", nil)},
		"a leading zero": {regular("trust/01.root.json", nil)},
		"too large":      {regular("trust/1.root.json", make([]byte, 32<<10+1))},
		"trust first":    {regular("trust/1.root.json", nil), regular(archive.SignatureName([]byte("s")), []byte("s"))},
		"sound":          {regular(archive.SignatureName([]byte("s")), []byte("s")), regular("trust/1.root.json", nil)},
	} {
		bad := bytes.Clone(b)
		copy(bad[content-13:], frame(padded(entries...)))
		save(t, ours, bad)
		_, err := archive.ReadHead(source(bad))
		if e := exec.Command(python, "-B", checker, ours).Run(); (e == nil) != (name == "sound") || (err == nil) != (e == nil) {
			t.Errorf("%s: the checker says %v, we say %v", name, e, err)
		}
	}
}
