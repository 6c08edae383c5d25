package site

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 123, time.UTC)

func accepted(n int) Accepted {
	return Accepted{
		Name: "shop", Channel: "stable", Version: fmt.Sprintf("1.%d.0", n), Digest: digestOf(fmt.Appendf(nil, "manifest %d", n)),
		Created: "2026-01-02T03:04:05Z", At: formatTime(noon), Root: &RootRef{"vendor", 2},
	}
}

// accept is a change as an install makes it, with all that a change can have.
func accept(n int) func(*Tx) error {
	return func(tx *Tx) error {
		a := accepted(n)
		tx.Record.Accept(a)
		tx.Record.RaiseFloor(noon.Add(time.Duration(n) * time.Hour))
		tx.Record.Policy = tx.Put(fmt.Appendf(nil, "policy %d", n))
		tx.Record.Roots = []PinnedRoot{{"vendor", []RootVersion{{1, digestOf([]byte("1"))}, {2, digestOf([]byte("2"))}}}}
		tx.Log(Event{Kind: KindTrustUpdate, Digest: tx.Record.Policy, Detail: map[string]string{"b": "<&>\u2028", "a": "\xff"}})
		tx.Log(Event{Kind: KindAccept, Bundle: a.Name, Channel: a.Channel, Version: a.Version, Digest: a.Digest})
		return nil
	}
}

func mustUpdate(t testing.TB, d *Dir, change func(*Tx) error) Head {
	t.Helper()
	head, err := d.Update(t.Context(), noon, change)
	if err != nil {
		t.Fatal(err)
	}
	return head
}

func readRecord(t testing.TB, d *Dir) *Record {
	t.Helper()
	r, err := d.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// journal returns the entries, proven.
func journal(t testing.TB, d *Dir) ([]Entry, Head) {
	t.Helper()
	var all []Entry
	head, err := d.Journal(t.Context(), func(e Entry) error { all = append(all, e); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return all, head
}

// files returns what is in a directory, by path.
func files(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		all[name] = string(raw)
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return all
}

// restore makes a directory hold just these files.
func restore(t testing.TB, dir string, all map[string]string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for name, raw := range all {
		save(t, filepath.Join(dir, name), raw)
	}
}

func save(t testing.TB, path, raw string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(raw), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func TestUpdate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "state")
	d := Open(dir)
	if d.Path() != dir {
		t.Errorf("path %q", d.Path())
	}
	if r := readRecord(t, d); r.MediaType != RecordType || r.Journal != (Head{}) || !r.Floor().IsZero() || r.Find("shop", "stable") != nil {
		t.Errorf("where nothing is: %+v", r)
	}
	if all, head := journal(t, d); all != nil || head != (Head{}) {
		t.Errorf("where nothing is: %v %v", all, head)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("reading has made the directory: %v", err)
	}

	first := mustUpdate(t, d, accept(1))
	second := mustUpdate(t, d, accept(2))
	if first.Seq != 2 || second.Seq != 4 || first.Digest == second.Digest {
		t.Errorf("heads %v, %v", first, second)
	}
	before := files(t, dir)
	r := readRecord(t, d)
	if r.Journal != second || int(r.JournalSize) != len(before[journalName]) || r.ClockFloor != "2026-03-04T14:00:00Z" || len(r.Known) != 2 || len(r.Accepted) != 1 {
		t.Errorf("%+v", r)
	}
	if a := r.Find("shop", "stable"); a == nil || a.Version != "1.2.0" || *a.Root != (RootRef{"vendor", 2}) {
		t.Errorf("accepted %+v", a)
	}
	if a := r.KnownDigest(accepted(1).Digest); a == nil || a.Version != "1.1.0" {
		t.Errorf("known %+v", a)
	}
	if raw, err := d.Document(r.Policy, 8); err != nil || string(raw) != "policy 2" {
		t.Errorf("%q, %v", raw, err)
	}
	all, head := journal(t, d)
	if head != second || len(all) != 4 {
		t.Fatalf("%v, %v", all, head)
	}
	if e := all[2]; e.Seq != 3 || e.Prev != first.Digest || e.Time != "2026-03-04T12:00:00Z" || e.Kind != KindTrustUpdate || e.Detail["b"] != "<&>\u2028" || e.Detail["a"] != "\uFFFD" {
		t.Errorf("%+v", e)
	}
	if got := files(t, dir); !maps.Equal(got, before) {
		t.Error("reading has changed the directory")
	}

	// What changes nothing writes nothing, whatever it does to what is not its own.
	if head := mustUpdate(t, d, func(tx *Tx) error {
		tx.Record.Journal, tx.Record.JournalSize, tx.Record.Replaces, tx.Record.MediaType = Head{}, 7, "x", "y"
		return nil
	}); head != second || !maps.Equal(files(t, dir), before) {
		t.Error("an update without a change has changed the directory")
	}
	refusal := errors.New("no")
	if _, err := d.Update(t.Context(), noon, func(tx *Tx) error {
		_ = accept(3)(tx)
		return refusal
	}); err != refusal || !maps.Equal(files(t, dir), before) { //nolint:errorlint // it is returned as it is
		t.Errorf("%v, or the directory has changed", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := d.Update(ctx, noon, func(tx *Tx) error { cancel(); return accept(3)(tx) }); !errors.Is(err, context.Canceled) || !maps.Equal(files(t, dir), before) {
		t.Errorf("%v, or the directory has changed", err)
	}
	if _, err := d.Read(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	// A change without an entry gets one: no record is without the journal that binds it.
	if head := mustUpdate(t, d, func(tx *Tx) error { tx.Record.RaiseFloor(noon.Add(20 * time.Hour)); return nil }); head.Seq != second.Seq+1 {
		t.Error(head)
	}
	if r := readRecord(t, d); r.ClockFloor != "2026-03-05T08:00:00Z" || r.Replaces != digestOf([]byte(before[recordName])) {
		t.Errorf("%+v", r)
	}

	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if want := map[bool]fs.FileMode{true: fs.ModeDir | 0o755, false: 0o644}[e.IsDir()]; err == nil && info.Mode() != want {
			t.Errorf("%s: mode %v, want %v", path, info.Mode(), want)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestVisitorStops(t *testing.T) {
	d := Open(t.TempDir())
	mustUpdate(t, d, accept(1))
	stop, n := errors.New("stop"), 0
	if _, err := d.Journal(t.Context(), func(Entry) error { n++; return stop }); !errors.Is(err, stop) || n != 1 {
		t.Errorf("%v after %d", err, n)
	}
}

func TestFindHead(t *testing.T) {
	d := Open(t.TempDir())
	first := mustUpdate(t, d, accept(1))
	second := mustUpdate(t, d, accept(2))
	for name, c := range map[string]struct {
		head Head
		want bool
	}{
		"the last":         {second, true},
		"an earlier one":   {first, true},
		"by digest":        {Head{0, first.Digest}, true},
		"before the first": {Head{}, true},
		"another number":   {Head{3, first.Digest}, false},
		"another digest":   {Head{4, digestOf(nil)}, false},
		"unknown digest":   {Head{0, digestOf(nil)}, false},
		"later":            {Head{5, digestOf(nil)}, false},
		"no digest":        {Head{2, ""}, false},
	} {
		if _, got, err := d.FindHead(t.Context(), c.head); err != nil || got != c.want {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestBusy(t *testing.T) {
	d := Open(t.TempDir())
	mustUpdate(t, d, func(tx *Tx) error {
		_, err := Open(d.Path()).Update(t.Context(), noon, accept(2))
		var busy *BusyError
		if !errors.As(err, &busy) || busy.Path != d.Path() {
			t.Errorf("%v, want *BusyError", err)
		}
		// Reading goes on meanwhile.
		if r := readRecord(t, d); r.Journal.Seq != 0 {
			t.Errorf("%+v", r)
		}
		return accept(1)(tx)
	})
	if r := readRecord(t, d); r.Find("shop", "stable").Version != "1.1.0" {
		t.Errorf("%+v", r)
	}
}

// TestReadWhileUpdating: a reader never takes an update that is under way for tampering, one that
// fails and is taken back neither.
func TestReadWhileUpdating(t *testing.T) {
	d := Open(t.TempDir())
	mustUpdate(t, d, accept(0))
	var done atomic.Bool
	failed := make(chan error, 1)
	go func() {
		defer done.Store(true)
		w := Open(d.Path())
		for n := range 150 {
			w.before = nil
			if n%3 == 0 {
				w.before = failAt("rename record", errors.New("injected"))
			}
			if _, err := w.Update(context.Background(), noon, accept(n)); (err != nil) != (n%3 == 0) {
				failed <- err
				return
			}
		}
	}()
	reads := 0
	for ; !done.Load(); reads++ {
		if r := readRecord(t, d); r.Journal.Seq%2 != 0 {
			t.Fatalf("half an update: %+v", r)
		}
		if reads%10 == 0 {
			journal(t, d)
		}
	}
	select {
	case err := <-failed:
		t.Fatal(err)
	default:
	}
	if _, head := journal(t, d); head.Seq != 2*101 || reads == 0 {
		t.Errorf("%v after %d reads", head, reads)
	}
}

// TestReadBetween: an update that happens, or is taken back, between the reading of the record and
// that of the journal is seen for what it is.
func TestReadBetween(t *testing.T) {
	for name, c := range map[string]struct {
		// between are what happens between the first readings, the second ones and so on.
		between func(d *Dir, journal string) []func() error
		want    int64
	}{
		"happens": {func(d *Dir, _ string) []func() error {
			again := func() error { _, err := Open(d.Path()).Update(t.Context(), noon, accept(2)); return err }
			return []func() error{again, again}
		}, 6},
		// The record that explains the lines goes after them: the reader was just too late for it.
		"is taken back": {func(d *Dir, journal string) []func() error {
			write := func(raw string) func() error {
				return func() error { return os.WriteFile(d.file(journalName), []byte(raw), 0o600) }
			}
			return []func() error{write(journal + "{"), write(journal)}
		}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			d := Open(t.TempDir())
			mustUpdate(t, d, accept(1))
			between, looks := c.between(d, files(t, d.Path())[journalName]), 0
			d.before = func(step) error {
				if looks++; looks <= len(between) {
					return between[looks-1]()
				}
				return nil
			}
			if r := readRecord(t, d); r.Journal.Seq != c.want || looks < 2 {
				t.Errorf("%v after %d looks", r.Journal, looks)
			}
		})
	}
}

// TestTampered changes files and wants to be told.
func TestTampered(t *testing.T) {
	d := Open(t.TempDir())
	var states []map[string]string
	for n := range 3 {
		mustUpdate(t, d, accept(n+1))
		states = append(states, files(t, d.Path()))
	}
	last := states[2]
	lines := strings.SplitAfter(last[journalName], "\n")
	// stopped is what an update leaves that was stopped before it could commit.
	stopped := maps.Clone(states[1])
	stopped[pendingName], stopped[journalName] = last[recordName], last[journalName]
	type change map[string]string
	for name, c := range map[string]struct {
		from map[string]string
		// change has the new contents of files, "-" for none.
		change change
		path   string
		entry  int64
		// deep is for what only reading the whole journal shows.
		deep bool
	}{
		"record put back":         {last, change{recordName: states[1][recordName]}, journalName, 0, false},
		"record of long ago":      {stopped, change{recordName: states[0][recordName]}, journalName, 0, false},
		"record deleted":          {last, change{recordName: "-"}, journalName, 0, false},
		"pending of another":      {last, change{recordName: "-", pendingName: last[recordName]}, journalName, 0, false},
		"pending torn":            {stopped, change{pendingName: last[recordName][:99]}, journalName, 0, false},
		"more than was pending":   {stopped, change{journalName: last[journalName] + "x"}, journalName, 0, false},
		"journal put back":        {last, change{journalName: states[1][journalName]}, journalName, 0, false},
		"journal deleted":         {last, change{journalName: "-"}, journalName, 0, false},
		"journal empty":           {last, change{journalName: ""}, journalName, 0, false},
		"journal longer":          {last, change{journalName: last[journalName] + "\n"}, journalName, 0, false},
		"last line changed":       {last, change{journalName: strings.Join(lines[:5], "") + strings.Replace(lines[5], "shop", "shoe", 1)}, journalName, 6, false},
		"newline changed":         {last, change{journalName: last[journalName][:len(last[journalName])-1] + " "}, journalName, 6, false},
		"zeros":                   {last, change{journalName: strings.Repeat("\x00", len(last[journalName]))}, journalName, 6, false},
		"first line changed":      {last, change{journalName: strings.Replace(last[journalName], KindTrustUpdate, "trust-upwards"[:len(KindTrustUpdate)], 1)}, journalName, 2, true},
		"line not canonical":      {last, change{journalName: strings.Replace(last[journalName], `"seq":2,`, `"Seq":2,`, 1)}, journalName, 2, true},
		"lines changed places":    {last, change{journalName: lines[1] + lines[0] + strings.Join(lines[2:], "")}, journalName, 1, true},
		"line joined to the next": {last, change{journalName: strings.Replace(last[journalName], "\n", " ", 1)}, journalName, 1, true},
		"record truncated":        {last, change{recordName: last[recordName][:99]}, recordName, 0, false},
		"record empty":            {last, change{recordName: ""}, recordName, 0, false},
		"record with a newline":   {last, change{recordName: last[recordName] + "\n"}, recordName, 0, false},
		"record too large":        {last, change{recordName: last[recordName] + strings.Repeat(" ", MaxRecord)}, recordName, 0, false},
		"record of version 2":     {last, change{recordName: strings.Replace(last[recordName], "record.v1", "record.v2", 1)}, recordName, 0, false},
		"entry for a record":      {last, change{recordName: strings.TrimSuffix(lines[0], "\n")}, recordName, 0, false},
		"duplicate key":           {last, change{recordName: strings.Replace(last[recordName], `"policy":`, `"policy":"","policy":`, 1)}, recordName, 0, false},
		"unknown key":             {last, change{recordName: strings.Replace(last[recordName], `"policy":`, `"more":1,"policy":`, 1)}, recordName, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			d := Open(filepath.Join(t.TempDir(), "s"))
			restore(t, d.Path(), c.from)
			journal(t, d) // in order until now
			for name, raw := range c.change {
				if raw == "-" {
					if err := os.Remove(d.file(name)); err != nil {
						t.Fatal(err)
					}
				} else if c.from[name] == raw {
					t.Fatalf("no change of %q", name)
				} else {
					save(t, d.file(name), raw)
				}
			}
			before := files(t, d.Path())
			check := func(what string, err error) {
				t.Helper()
				var wrong *TamperedError
				if !errors.As(err, &wrong) || wrong.Path != d.file(c.path) || wrong.Entry != c.entry {
					t.Errorf("%s: %v, want *TamperedError of %q entry %d", what, err, c.path, c.entry)
				}
			}
			_, err := d.Journal(t.Context(), func(Entry) error { return nil })
			check("journal", err)
			if _, err := d.Read(t.Context()); c.deep && err != nil {
				t.Error(err)
			} else if !c.deep {
				check("read", err)
				_, err = d.Update(t.Context(), noon, accept(9))
				check("update", err)
				if got := files(t, d.Path()); !maps.Equal(got, before) {
					t.Error("evidence has been changed")
				}
			}
		})
	}
}

func TestLongLine(t *testing.T) {
	d := Open(t.TempDir())
	mustUpdate(t, d, accept(1))
	mustUpdate(t, d, accept(2))
	all := files(t, d.Path())
	// As long as the file was, so that only the lines tell.
	r, long := readRecord(t, d), strings.Repeat("x", 2*MaxLine)
	r.JournalSize += int64(len(long))
	raw, err := encodeRecord(r)
	if err != nil {
		t.Fatal(err)
	}
	save(t, d.file(journalName), long+all[journalName])
	save(t, d.file(recordName), string(raw))
	var wrong *TamperedError
	if _, err := d.Journal(t.Context(), func(Entry) error { return nil }); !errors.As(err, &wrong) || wrong.Entry != 1 {
		t.Errorf("%v, want *TamperedError of entry 1", err)
	}
}

func TestDocument(t *testing.T) {
	d := Open(t.TempDir())
	var digest string
	mustUpdate(t, d, func(tx *Tx) error {
		content := []byte("a policy")
		digest = tx.Put(content)
		content[0] = 'X' // ours from here on
		return nil
	})
	if raw, err := d.Document(digest, MaxDocument); err != nil || string(raw) != "a policy" {
		t.Errorf("%q, %v", raw, err)
	}
	if _, err := d.Document(digest, 7); err == nil {
		t.Error("more than the limit")
	}
	if _, err := d.Document(digestOf(nil), 7); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, want ErrNotExist", err)
	}
	for _, digest := range []string{"", "sha256:../../record.json", "sha512:" + strings.Repeat("0", 64)} {
		if _, err := d.Document(digest, 7); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("digest %q: %v", digest, err)
		}
	}
	var wrong *TamperedError
	save(t, d.document(digest), "another")
	if _, err := d.Document(digest, MaxDocument); !errors.As(err, &wrong) || wrong.Path != d.document(digest) {
		t.Errorf("%v, want *TamperedError", err)
	}
	// Kept once more, it is whole again.
	mustUpdate(t, d, func(tx *Tx) error { tx.Put([]byte("a policy")); return nil })
	if raw, err := d.Document(digest, MaxDocument); err != nil || string(raw) != "a policy" {
		t.Errorf("%q, %v", raw, err)
	}
}

func TestForeignFiles(t *testing.T) {
	victim := filepath.Join(t.TempDir(), "victim")
	save(t, victim, "precious")
	for _, name := range []string{recordName, journalName, lockName} {
		d := Open(t.TempDir())
		if err := os.Symlink(victim, d.file(name)); err != nil {
			t.Skipf("no links here: %v", err)
		}
		if _, err := d.Update(t.Context(), noon, accept(1)); err == nil {
			t.Errorf("%s is a link and was followed", name)
		}
		d = Open(t.TempDir())
		if err := os.Mkdir(d.file(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Update(t.Context(), noon, accept(1)); err == nil {
			t.Errorf("%s is a directory", name)
		}
	}
	// What lies where the new record is written is replaced, not followed.
	d := Open(t.TempDir())
	if err := os.Symlink(victim, d.file(pendingName)); err != nil {
		t.Fatal(err)
	}
	mustUpdate(t, d, accept(1))
	if raw, err := os.ReadFile(victim); err != nil || string(raw) != "precious" {
		t.Errorf("%q, %v", raw, err)
	}
	if _, err := Open(victim).Update(t.Context(), noon, accept(1)); err == nil {
		t.Error("a file is no directory")
	}
}

// TestRefused: what could not be read again is not written.
func TestRefused(t *testing.T) {
	d := Open(t.TempDir())
	mustUpdate(t, d, accept(1))
	before := files(t, d.Path())
	late := time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		now    time.Time
		change func(*Tx)
	}{
		"no kind":              {noon, func(tx *Tx) { tx.Log(Event{}) }},
		"strange kind":         {noon, func(tx *Tx) { tx.Log(Event{Kind: "Accept\n"}) }},
		"long line":            {noon, func(tx *Tx) { tx.Log(Event{Kind: KindClock, Reason: strings.Repeat("x", MaxLine-100)}) }},
		"strange time":         {late, func(tx *Tx) { tx.Log(Event{Kind: KindClock}) }},
		"before 1970":          {time.Time{}, func(tx *Tx) { tx.Log(Event{Kind: KindClock}) }},
		"large document":       {noon, func(tx *Tx) { tx.Put(make([]byte, MaxDocument+1)) }},
		"no record":            {noon, func(tx *Tx) { tx.Record = nil }},
		"policy":               {noon, func(tx *Tx) { tx.Record.Policy = "x" }},
		"floor":                {noon, func(tx *Tx) { tx.Record.ClockFloor = "2026-01-02T03:04:05+01:00" }},
		"root name":            {noon, func(tx *Tx) { tx.Record.Roots[0].Name = "a,b" }},
		"root twice":           {noon, func(tx *Tx) { tx.Record.Roots = append(tx.Record.Roots, tx.Record.Roots[0]) }},
		"root without version": {noon, func(tx *Tx) { tx.Record.Roots[0].Chain = nil }},
		"root skips a version": {noon, func(tx *Tx) { tx.Record.Roots[0].Chain[1].Version = 3 }},
		"root version 0":       {noon, func(tx *Tx) { tx.Record.Roots[0].Chain[0].Version = 0 }},
		"root digest":          {noon, func(tx *Tx) { tx.Record.Roots[0].Chain[0].Digest = "" }},
		"accepted twice":       {noon, func(tx *Tx) { tx.Record.Accepted = append(tx.Record.Accepted, tx.Record.Accepted[0]) }},
		"accepted name":        {noon, func(tx *Tx) { tx.Record.Accepted[0].Name = "Shop" }},
		"accepted channel":     {noon, func(tx *Tx) { tx.Record.Accepted[0].Channel = "" }},
		"accepted version":     {noon, func(tx *Tx) { tx.Record.Accepted[0].Version = "1" }},
		"accepted created":     {noon, func(tx *Tx) { tx.Record.Accepted[0].Created = "" }},
		"accepted at":          {noon, func(tx *Tx) { tx.Record.Accepted[0].At = "now" }},
		"accepted root":        {noon, func(tx *Tx) { tx.Record.Accepted[0].Root = &RootRef{} }},
		"known twice":          {noon, func(tx *Tx) { tx.Record.Known = append(tx.Record.Known, tx.Record.Known[0]) }},
		"known too many":       {noon, func(tx *Tx) { tx.Record.Known = make([]Accepted, MaxKnown+1) }},
		"too large":            {noon, tooLarge},
	} {
		if _, err := d.Update(t.Context(), c.now, func(tx *Tx) error { c.change(tx); return nil }); err == nil || !maps.Equal(files(t, d.Path()), before) {
			t.Errorf("%s: %v, or the directory has changed", name, err)
		}
	}
}

func tooLarge(tx *Tx) {
	digest := digestOf(nil)
	for n := range MaxRecord / 90 {
		tx.Record.Roots[0].Chain = append(tx.Record.Roots[0].Chain, RootVersion{n + 3, digest})
	}
}

// TestLongestLine: what is just short enough is written, and read again.
func TestLongestLine(t *testing.T) {
	d := Open(t.TempDir())
	for n := MaxLine - 500; ; n++ {
		if _, err := d.Update(t.Context(), noon, func(tx *Tx) error {
			tx.Log(Event{Kind: KindClock, Reason: strings.Repeat("x", n)})
			return nil
		}); err != nil {
			break
		}
	}
	all, _ := journal(t, d)
	line, err := marshal(all[len(all)-1])
	if err != nil || len(line) != MaxLine-1 {
		t.Errorf("longest line has %d bytes, want %d: %v", len(line), MaxLine-1, err)
	}
}

func TestAccept(t *testing.T) {
	r := &Record{}
	r.Accept(accepted(2))
	r.Accept(accepted(1)) // a downgrade that somebody has allowed
	other := accepted(3)
	other.Channel = "beta"
	r.Accept(other)
	if len(r.Accepted) != 2 || r.Find("shop", "stable").Version != "1.1.0" || r.Find("shop", "beta").Version != "1.3.0" || r.Find("shop", "none") != nil {
		t.Errorf("%+v", r.Accepted)
	}
	for n := range MaxKnown {
		r.Remember(accepted(n + 10))
		if n == 0 {
			r.Remember(accepted(2)) // known again, and so not the next to be forgotten
		}
	}
	if len(r.Known) != MaxKnown || r.KnownDigest(accepted(2).Digest) == nil || r.KnownDigest(accepted(10).Digest) != nil {
		t.Errorf("%d known, the first ones %v", len(r.Known), r.Known[:2])
	}
	if r.KnownDigest(accepted(1).Digest) == nil {
		t.Error("what is accepted now is always known")
	}
	r.MediaType = RecordType
	raw, err := encodeRecord(r)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := parseRecord(raw); err != nil || len(again.Known) != MaxKnown {
		t.Errorf("a full record of %d bytes: %v", len(raw), err)
	}
}

func TestRaiseFloor(t *testing.T) {
	at := noon.Add
	for name, c := range map[string]struct {
		floor string
		now   time.Time
		times []time.Time
		want  string
	}{
		"now":                {"", noon, nil, "2026-03-04T12:00:00Z"},
		"never falls":        {"2026-03-04T12:00:01Z", noon, nil, "2026-03-04T12:00:01Z"},
		"earlier times":      {"", noon, []time.Time{at(-time.Hour)}, "2026-03-04T12:00:00Z"},
		"a near time":        {"", noon, []time.Time{at(time.Hour)}, "2026-03-04T13:00:00Z"},
		"just near enough":   {"", noon, []time.Time{at(24 * time.Hour)}, "2026-03-05T12:00:00Z"},
		"just too far":       {"", noon, []time.Time{at(24*time.Hour + 1)}, "2026-03-04T12:00:00Z"},
		"the latest near":    {"", noon, []time.Time{at(2 * time.Hour), at(100 * time.Hour), at(time.Hour)}, "2026-03-04T14:00:00Z"},
		"a clock gone back":  {"2026-03-04T12:00:00Z", at(-1000 * time.Hour), []time.Time{noon}, "2026-03-04T12:00:00Z"},
		"a dead clock":       {"", time.Time{}, []time.Time{noon}, ""},
		"a clock gone mad":   {"", time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC), nil, ""},
		"another time zone":  {"", noon.In(time.FixedZone("", 3600)), nil, "2026-03-04T12:00:00Z"},
		"a floor in seconds": {"2026-03-04T12:00:00Z", noon, nil, "2026-03-04T12:00:00Z"},
	} {
		r := &Record{ClockFloor: c.floor}
		r.RaiseFloor(c.now, c.times...)
		if r.ClockFloor != c.want {
			t.Errorf("%s: %q, want %q", name, r.ClockFloor, c.want)
		}
	}
}

func TestDefaultDir(t *testing.T) {
	for name, c := range map[string]struct {
		env    map[string]string
		uid    int
		exists bool
		want   string
	}{
		"superuser":           {map[string]string{"HOME": "/root"}, 0, false, "/var/lib/sealift"},
		"where it exists":     {map[string]string{"HOME": "/h"}, 1000, true, "/var/lib/sealift"},
		"XDG":                 {map[string]string{"HOME": "/h", "XDG_STATE_HOME": "/x/"}, 1000, false, "/x/sealift"},
		"relative XDG":        {map[string]string{"HOME": "/h", "XDG_STATE_HOME": "x"}, 1000, false, "/h/.local/state/sealift"},
		"home":                {map[string]string{"HOME": "/h"}, 1000, false, "/h/.local/state/sealift"},
		"nothing":             {nil, 1000, false, ""},
		"a system without id": {map[string]string{"HOME": "/h"}, -1, false, "/h/.local/state/sealift"},
	} {
		got := DefaultDir(func(k string) string { return c.env[k] }, c.uid, func(path string) bool { return c.exists && path == "/var/lib/sealift" })
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func FuzzRecord(f *testing.F) {
	r := &Record{MediaType: RecordType}
	for n := range 2 {
		raw, err := encodeRecord(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
		_ = accept(n)(&Tx{Record: r})
		r.Journal, r.JournalSize = Head{3, digestOf(nil)}, 1000
	}
	f.Add([]byte(recordPrefix + `{"seq":0,"digest":""},"known":[null,null]}`))
	f.Add([]byte(recordPrefix + strings.Repeat("[", 1000)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := parseRecord(raw)
		if err != nil {
			return
		}
		if again, err := encodeRecord(r); err != nil || !bytes.Equal(again, raw) {
			t.Fatalf("%q becomes %q, %v", raw, again, err)
		}
	})
}

func FuzzEntry(f *testing.F) {
	for _, e := range []Event{{Kind: KindClock, Reason: "dead battery"}, {Kind: KindAccept, Bundle: "shop", Channel: "stable", Version: "1.0.0", Digest: digestOf(nil), Detail: map[string]string{"a": "b", "": "\u2028"}}} {
		for _, head := range []Head{{}, {7, digestOf(nil)}} {
			line, err := e.line(head, noon, "")
			if err != nil {
				f.Fatal(err)
			}
			f.Add(line)
			f.Add(bytes.Replace(line, []byte(`"kind"`), []byte(`"\u212Aind"`), 1))
		}
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := parseEntry(line)
		if err != nil {
			return
		}
		again, err := e.line(Head{e.Seq - 1, e.Prev}, mustTime(t, e.Time), e.Record)
		if err != nil || !bytes.Equal(again, line) {
			t.Fatalf("%q becomes %q, %v", line, again, err)
		}
	})
}

func mustTime(t *testing.T, s string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// failAt lets the steps with this name fail.
func failAt(what step, with error) func(step) error {
	return func(s step) error {
		if s == what {
			return with
		}
		return nil
	}
}

// steps returns every step of a change of a directory that holds these files, in order.
func steps(t *testing.T, from map[string]string, change func(*Tx) error) []step {
	t.Helper()
	d := Open(filepath.Join(t.TempDir(), "s"))
	restore(t, d.Path(), from)
	var all []step
	d.before = func(s step) error { all = append(all, s); return nil }
	mustUpdate(t, d, change)
	t.Logf("%d steps: %q", len(all), all)
	return all
}

// TestRecordIsBound: who changes the record alone, however carefully, is found out.
func TestRecordIsBound(t *testing.T) {
	for name, change := range map[string]func(*Record){
		"accepted": func(r *Record) { r.Accepted[0].Version = "0.0.1" },
		"policy":   func(r *Record) { r.Policy = digestOf([]byte("another")) },
		"clock":    func(r *Record) { r.ClockFloor = "" },
		"known":    func(r *Record) { r.Known = nil },
		"journal":  func(r *Record) { r.Journal, r.JournalSize = Head{}, 0 },
	} {
		t.Run(name, func(t *testing.T) {
			d := Open(t.TempDir())
			mustUpdate(t, d, func(tx *Tx) error {
				tx.Record.Policy = tx.Put([]byte("policy"))
				tx.Record.RaiseFloor(noon)
				tx.Record.Accept(Accepted{Name: "shop", Channel: "stable", Version: "1.0.0", Digest: digestOf(nil), Created: "2026-01-01T00:00:00Z", At: "2026-01-01T00:00:00Z"})
				tx.Log(Event{Kind: KindAccept})
				return nil
			})
			r := readRecord(t, d)
			change(r)
			raw, err := encodeRecord(r)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(d.file(recordName), raw, 0o644); err != nil {
				t.Fatal(err)
			}
			if name == "journal" {
				if err := os.Remove(d.file(journalName)); err != nil {
					t.Fatal(err)
				}
			}
			var tampered *TamperedError
			if _, err := d.Read(t.Context()); !errors.As(err, &tampered) {
				t.Errorf("read: %v", err)
			}
		})
	}
}
