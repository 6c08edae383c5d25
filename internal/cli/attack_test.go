package cli_test

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/progress"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// attackRow is a row of testdata/attacks.yaml: who does what, and what becomes of it.
type attackRow struct {
	Name      string `yaml:"name"`
	Attack    string `yaml:"attack"`
	Adversary string `yaml:"adversary"`
	Command   string `yaml:"command"`
	Code      int    `yaml:"code"`
	// Stderr matches what the operator reads.
	Stderr string `yaml:"stderr"`
	// Guarantee is the one of docs/threat-model.md that the row shows.
	Guarantee string `yaml:"guarantee"`
}

// An attackBuilder prepares the site and returns the command that the adversary hopes for, and the
// same one without the forgery: what has to be refused, and what has to be accepted.
type attackBuilder func(s *stage) (forged, honest attempt)

func attackBuilders(t *testing.T) map[string]attackBuilder {
	t.Helper()
	all := map[string]attackBuilder{}
	for _, some := range []map[string]attackBuilder{signatureAttacks(), signerAttacks(), freshnessAttacks(), rootAttacks(), formAttacks(), siteAttacks()} {
		for name, b := range some {
			if all[name] != nil {
				t.Fatalf("two attacks are called %q", name)
			}
			all[name] = b
		}
	}
	return all
}

var adversaries = []string{"vendor-ci", "courier", "insider", "old-media", "hostile-medium"}

func readAttacks(t *testing.T) []attackRow {
	t.Helper()
	raw, err := os.ReadFile("../../testdata/attacks.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var rows []attackRow
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	dec.KnownFields(true)
	if err := dec.Decode(&rows); err != nil {
		t.Fatal(err)
	}
	return rows
}

// TestAttacks lets every attack of testdata/attacks.yaml come to a site: it is refused with the code
// and the words of its row, and nothing of it is accepted, recorded or sent. Then comes the same
// thing without the forgery, which the site uses: so no attack fails for another reason than its own.
func TestAttacks(t *testing.T) {
	rows, builders := readAttacks(t), attackBuilders(t)
	var names []string
	for _, row := range rows {
		names = append(names, row.Name)
		if row.Attack == "" || row.Guarantee == "" || row.Stderr == "" || row.Code == 0 || !slices.Contains(adversaries, row.Adversary) {
			t.Errorf("row %q is not complete: %+v", row.Name, row)
		}
	}
	built := slices.Sorted(maps.Keys(builders))
	if sorted := slices.Sorted(slices.Values(names)); !reflect.DeepEqual(sorted, built) {
		for _, n := range names {
			if builders[n] == nil {
				t.Errorf("nothing builds attack %q", n)
			}
		}
		for _, n := range built {
			if i := slices.Index(names, n); i < 0 || slices.Contains(names[i+1:], n) {
				t.Errorf("attack %q does not stand in the table exactly once", n)
			}
		}
		t.FailNow()
	}
	for _, row := range rows {
		t.Run(row.Name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			forged, honest := builders[row.Name](s)
			for _, a := range []attempt{forged, honest} {
				if !strings.HasPrefix(strings.Join(a.args, " ")+" ", row.Command+" ") {
					t.Fatalf("the command is %q, the table says %q", a.args, row.Command)
				}
			}
			s.refused(forged, row)
			s.used(honest)
		})
	}
}

// refused runs what has to be refused, and compares the site with what it was before.
func (s *stage) refused(a attempt, row attackRow) {
	s.t.Helper()
	state := a.state
	if state == "" {
		state = s.state
	}
	if s.registry != nil {
		s.registry.take()
	}
	before := s.snapshot(state)
	var accepted map[string]any
	if s.weakened {
		accepted = s.accepted(state)
	}
	code, stdout, stderr := s.run(a)
	if code != row.Code {
		s.t.Errorf("exit code %d, want %d\n%s%s", code, row.Code, stdout, stderr)
	}
	if !regexp.MustCompile(row.Stderr).MatchString(stderr) {
		s.t.Errorf("standard error does not match %q:\n%s", row.Stderr, stderr)
	}
	if stdout != "" {
		s.t.Errorf("it has a result:\n%s", stdout)
	}
	switch after := s.snapshot(state); {
	case !s.weakened:
		if !reflect.DeepEqual(after, before) {
			s.t.Error("what the site has recorded was changed")
		}
	case !reflect.DeepEqual(s.accepted(state), accepted):
		s.t.Errorf("what the site has accepted was changed: %v, before %v", s.accepted(state), accepted)
	default:
		path := filepath.Join(state, "journal.jsonl")
		for line := range strings.Lines(strings.TrimPrefix(after[path], before[path])) {
			if !strings.Contains(line, `"kind":"weakened"`) {
				s.t.Errorf("the journal tells something that was not done: %s", line)
			}
		}
	}
	if s.registry == nil {
		return
	}
	requests, stored, blobs := s.registry.take()
	if s.midway {
		// Sound blobs, which the registry compares with their digests, may have been sent beside the
		// one that is not; nothing may lead to them.
		stored -= blobs
	}
	if stored > 0 || requests > 0 && !s.midway {
		s.t.Errorf("the registry got %d requests and kept something for %d of them", requests, stored)
	}
}

// used runs what has to be accepted. What is used is recorded, and sent: were that not to be seen,
// it could not be seen to be missing either.
func (s *stage) used(a attempt) {
	s.t.Helper()
	if a.before != nil {
		a.before()
	}
	state := a.state
	if state == "" {
		state = s.state
	}
	before := s.snapshot(state)
	code, _, stderr := s.run(a)
	if code != 0 {
		s.t.Errorf("without the forgery: %v: exit code %d\n%s", a.args, code, stderr)
	}
	if a.args[0] != "seed" && a.args[0] != "trust" {
		return
	}
	if reflect.DeepEqual(s.snapshot(state), before) {
		s.t.Error("without the forgery: nothing was recorded")
	}
	if s.registry == nil {
		return
	}
	if _, stored, _ := s.registry.take(); stored == 0 {
		s.t.Error("without the forgery: the registry did not keep anything")
	}
}

// TestMediumThatAnswersTwice: what has been proven is read into memory, and what is read again is
// proven again, so that a medium which then says something else gains nothing.
func TestMediumThatAnswersTwice(t *testing.T) {
	s := newStage(t)
	signed, other := s.shop("2.0.0"), s.shop("1.0.0")
	path, first := s.bundle(signed), s.bundle(other)
	good, err := os.ReadFile(path)
	s.ok(err)
	files, err := verify.Find([]string{path})
	s.ok(err)
	for name, change := range map[string]func(b, other []byte) []byte{
		"nothing": nil,
		"another layer": func([]byte, []byte) []byte {
			s.swapLayer(path, first, signed, other)
			b, err := os.ReadFile(path)
			s.ok(err)
			return b
		},
		"another manifest and its signature": func(b, other []byte) []byte {
			at := slotsAt(s, b) + archive.SlotsSize
			return append(bytes.Clone(other[:at]), b[at:]...)
		},
		"another bundle": func(_, other []byte) []byte { return other },
		"no signature": func(b, _ []byte) []byte {
			copy(b[slotsAt(s, b)+4:], []byte{0x19, 0, 1, 0})
			return b
		},
		"less": func(b, _ []byte) []byte { return b[:len(b)-1] },
		"more": func(b, _ []byte) []byte { return append(b, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			s.ok(os.WriteFile(path, good, 0o600))
			b, err := verify.Open(t.Context(), files[0], verify.Policy{Keys: s.publicKeys("vendor")})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { s.ok(b.Close()) }()
			if change != nil {
				old, err := os.ReadFile(first)
				s.ok(err)
				s.ok(os.WriteFile(path, change(bytes.Clone(good), old), 0o600))
			}
			if got, err := b.ReadBlob(manifest.Digest(layerOf(signed)), 1<<20); err == nil && !bytes.Equal(got, layerOf(signed)) {
				t.Error("bytes that nobody has signed were given out")
			}
			if err := b.Check(t.Context(), progress.Discard); (err == nil) != (change == nil) {
				t.Errorf("checked: %v", err)
			}
			if m := b.Manifest(); m.Version != "2.0.0" {
				t.Errorf("version %s", m.Version)
			}
		})
	}
}
