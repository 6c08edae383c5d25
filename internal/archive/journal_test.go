package archive_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/manifest"
)

const journalName = archive.PartialSuffix + ".json"

func TestJournal(t *testing.T) {
	p := packOf(t, random(1, 100))
	p.volume, p.raw = archive.MinVolume, []byte(`{"a":"<&> \" ü `+"\u2028"+`"}`)
	if j, err := archive.ReadJournal(p.path); j != nil || err != nil {
		t.Fatalf("a journal that is not there: %v, %v", j, err)
	}
	w := p.begin(t)
	j, err := archive.ReadJournal(p.path)
	if err != nil || j == nil || j.Volume != p.volume || j.Plan != string(p.raw) {
		t.Fatalf("%+v, %v", j, err)
	}
	stop(t, w)
	// One that is killed leaves it, one that is done does not.
	w = p.resume(t)
	if again, err := archive.ReadJournal(p.path); err != nil || again == nil || *again != *j {
		t.Fatalf("%+v, %v", again, err)
	}
	p.goOn(t, w)
	p.finish(t, w)
	if got := names(t, filepath.Dir(p.path)); got != "b.tar.zst.001 " {
		t.Fatalf("left over: %q", got)
	}
}

// TestBrokenJournals are worth nothing, and do no harm.
func TestBrokenJournals(t *testing.T) {
	good := `{"mediaType":"application/vnd.sealift.partial.v1+json","volume":0,"plan":"x"}`
	for name, c := range map[string]struct {
		raw    string
		usable bool
	}{
		"good":           {good, true},
		"empty":          {"", false},
		"torn":           {good[:len(good)/2], false},
		"zeros":          {string(make([]byte, 100)), false},
		"foreign":        {`{"mediaType":"application/json"}`, false},
		"no journal":     {`{}`, false},
		"a list":         {`[]`, false},
		"unknown member": {strings.Replace(good, `"volume"`, `"extra":1,"volume"`, 1), false},
		"wrong type":     {strings.Replace(good, `"x"`, `1`, 1), false},
		"followed":       {good + good, false},
		"deep":           {strings.Repeat("[", 1<<20), false},
		"oversized":      {good + strings.Repeat(" ", 2*manifest.MaxManifestBytes+1<<11), false},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "b")
			save(t, path+journalName, []byte(c.raw))
			if j, err := archive.ReadJournal(path); err != nil || (j != nil) != c.usable {
				t.Fatalf("%+v, %v", j, err)
			}
		})
	}
}

// TestJournalIsNoLink: a link in its place is replaced, not followed.
func TestJournalIsNoLink(t *testing.T) {
	p := packOf(t, random(1, 100))
	victim := filepath.Join(t.TempDir(), "victim")
	save(t, victim, []byte("precious"))
	if err := os.Symlink(victim, p.path+journalName); err != nil {
		t.Skipf("no links here: %v", err)
	}
	w := p.begin(t)
	p.fill(t, w, 0)
	p.finish(t, w)
	if string(read(t, victim)) != "precious" {
		t.Errorf("the file behind the link holds %q", read(t, victim))
	}
	if got := names(t, filepath.Dir(p.path)); got != "b.tar.zst " {
		t.Errorf("left over: %q", got)
	}
}

// FuzzJournal: a journal that can be read is as it was written.
func FuzzJournal(f *testing.F) {
	f.Add([]byte(`{"mediaType":"application/vnd.sealift.partial.v1+json","volume":0,"plan":"{\"a\":1}"}`))
	f.Add([]byte(`{"mediaType":"application/vnd.sealift.partial.v1+json","volume":-1,"plan":"\ud800"} x`))
	path := filepath.Join(f.TempDir(), "b")
	f.Fuzz(func(t *testing.T, raw []byte) {
		save(t, path+journalName, raw)
		j, err := archive.ReadJournal(path)
		if err != nil {
			t.Fatal(err)
		}
		if j == nil {
			return
		}
		if again, err := json.Marshal(j); err != nil || !bytes.Equal(again, raw) {
			t.Fatalf("%q was taken for %q, %v", raw, again, err)
		}
	})
}
