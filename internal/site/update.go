package site

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/sealift/sealift/internal/filelock"
)

// Tx is a change of the record that is being made.
type Tx struct {
	// Record is to be changed in place.
	Record *Record

	events    []Event
	documents []document
}

// document is a document that is to be kept.
type document struct {
	digest  string
	content []byte
}

// Log adds an entry to the journal when the change commits.
func (t *Tx) Log(e Event) { t.events = append(t.events, e) }

// Put keeps a document when the change commits, and returns its digest. It may have at most
// MaxDocument bytes, else the update fails.
func (t *Tx) Put(content []byte) string {
	digest := digestOf(content)
	t.documents = append(t.documents, document{digest, slices.Clone(content)})
	return digest
}

// Update lets change change what is recorded, and returns the end of the journal after it. All
// of the change happens or nothing of it, whenever the process or the machine stops; documents
// alone may stay without one. Nothing happens if change returns an error, which is returned as
// it is. now is the local clock, for the entries of the journal.
//
// The directory is made if need be. Update does not wait: it returns a *BusyError where another
// update runs, and a *TamperedError where Read would. Where an error comes from the very last
// step, after the change has become visible, it says so.
func (d *Dir) Update(ctx context.Context, now time.Time, change func(*Tx) error) (_ Head, err error) {
	if err := ctx.Err(); err != nil {
		return Head{}, err
	}
	if err := makeDir(d.path); err != nil {
		return Head{}, fmt.Errorf("making the state directory: %w", err)
	}
	held, _, err := open(d.file(lockName), os.O_RDWR|os.O_CREATE)
	if err != nil {
		return Head{}, fmt.Errorf("locking the state directory: %w", err)
	}
	defer closing(held, &err)
	if err := lock(held); errors.Is(err, filelock.ErrHeld) {
		return Head{}, &BusyError{d.path}
	} else if err != nil {
		return Head{}, fmt.Errorf("locking the state directory %q: %w", d.path, err)
	}
	s, err := d.load(ctx)
	if err != nil {
		return Head{}, err
	}
	u := &update{dir: d, old: s.record.Journal, size: s.record.JournalSize, journal: s.size}
	u.unchanged, err = encodeRecord(s.record)
	if err != nil {
		return Head{}, fmt.Errorf("reading the site's record: %w", err)
	}
	mediaType, replaces := s.record.MediaType, s.record.Replaces
	tx := &Tx{Record: s.record}
	if err := change(tx); err != nil {
		return Head{}, err
	}
	if tx.Record == nil {
		return Head{}, errors.New("changing the site's record: there is none any more")
	}
	tx.Record.MediaType, tx.Record.Journal, tx.Record.JournalSize, tx.Record.Replaces = mediaType, u.old, u.size, replaces
	if err := u.prepare(tx, s.digest(), now); err != nil {
		return Head{}, fmt.Errorf("changing the site's record: %w", err)
	}
	// From here on it is a matter of milliseconds, and of not leaving anything behind.
	if err := ctx.Err(); err != nil {
		return Head{}, err
	}
	if err := u.run(tx.documents); err != nil {
		return Head{}, fmt.Errorf("writing the site's record: %w", err)
	}
	return u.head, nil
}

// update is a change on its way to the disk.
type update struct {
	dir *Dir
	// old and size are the end of the journal, and its length in bytes, that the record knows.
	old  Head
	size int64
	// journal is the length that the journal has, longer where an update was interrupted.
	journal int64
	// unchanged are the bytes of the record as it was, record those of the new one, nil where
	// there is nothing to commit.
	unchanged, record []byte
	// lines are what the journal gets, head is its end with them.
	lines []byte
	head  Head
}

// prepare makes every byte that is to be written, and finds everything that is wrong with it.
func (u *update) prepare(tx *Tx, replaces string, now time.Time) error {
	for _, doc := range tx.documents {
		if len(doc.content) > MaxDocument {
			return fmt.Errorf("document %s has %d bytes, at most %d are allowed", doc.digest, len(doc.content), MaxDocument)
		}
	}
	same, err := encodeRecord(tx.Record)
	if err != nil {
		return err
	}
	changed := !bytes.Equal(same, u.unchanged)
	if len(tx.events) == 0 && changed {
		tx.Log(Event{Kind: KindRecord})
	}
	says, err := tx.Record.says()
	if err != nil {
		return err
	}
	u.head = u.old
	for i, e := range tx.events {
		bound := ""
		if i == len(tx.events)-1 {
			bound = says
		}
		line, err := e.line(u.head, now, bound)
		if err != nil {
			return err
		}
		u.head = Head{u.head.Seq + 1, digestOf(line)}
		u.lines = append(append(u.lines, line...), '\n')
	}
	if len(u.lines) == 0 {
		return nil
	}
	next := *tx.Record
	next.Journal, next.JournalSize, next.Replaces = u.head, u.size+int64(len(u.lines)), replaces
	u.record, err = encodeRecord(&next)
	return err
}

// run writes everything.
func (u *update) run(documents []document) error {
	d := u.dir
	if err := u.undo(); err != nil {
		return fmt.Errorf("taking back an update that was interrupted: %w", err)
	}
	if err := u.keep(documents); err != nil {
		return err
	}
	if u.record == nil {
		return nil
	}
	if err := u.commit(); err != nil && !u.committed() {
		// Where this fails too, as on a disk that is gone, the next update does it.
		if e := u.undo(); e != nil {
			return errors.Join(err, fmt.Errorf("taking it back: %w", e))
		}
		return err
	}
	if err := d.do("sync directory after record", func() error { return syncDir(d.path) }); err != nil {
		return fmt.Errorf("the change has been made, but might not outlive a loss of power: %w", err)
	}
	return nil
}

// committed reports whether the new record is in its place. A network file system may say that a
// rename failed when only its answer was lost; lines that the record knows must not be cut off.
func (u *update) committed() bool {
	raw, err := read(u.dir.file(recordName), MaxRecord)
	return err == nil && bytes.Equal(raw, u.record)
}

// undo brings the journal back to the end that the record knows, and only then removes what
// tells that there may be more in it.
func (u *update) undo() error {
	d := u.dir
	if u.journal > u.size {
		if err := d.do("cut journal", u.cut); err != nil {
			return err
		}
		u.journal = u.size
	}
	return d.do("remove pending record", func() error { return remove(d.file(pendingName)) })
}

func (u *update) cut() (err error) {
	f, _, err := open(u.dir.file(journalName), os.O_WRONLY)
	if err != nil {
		return err
	}
	defer closing(f, &err)
	if err := f.Truncate(u.size); err != nil {
		return err
	}
	return f.Sync()
}

// keep writes the documents. Those of an update that fails later are in nobody's way.
func (u *update) keep(documents []document) error {
	d := u.dir
	if len(documents) == 0 {
		return nil
	}
	dir := d.file("docs/sha256")
	if err := d.do("make directory of documents", func() error { return makeDir(dir) }); err != nil {
		return err
	}
	for _, doc := range documents {
		if err := d.store(doc.digest, doc.content); err != nil {
			return err
		}
	}
	return d.do("sync directory of documents", func() error { return syncDir(dir) })
}

// commit writes the new record beside the old one, the lines of the journal, and then puts the
// new record in its place.
func (u *update) commit() error {
	d := u.dir
	if err := d.write(d.file(pendingName), u.record); err != nil {
		return err
	}
	if len(u.lines) > 0 {
		// The pending record must be there for whoever finds lines that the record does not know.
		if err := d.do("sync directory before journal", func() error { return syncDir(d.path) }); err != nil {
			return err
		}
		if err := u.append(); err != nil {
			return err
		}
	}
	return d.do("rename record", func() error { return os.Rename(d.file(pendingName), d.file(recordName)) })
}

func (u *update) append() (err error) {
	d := u.dir
	var f *os.File
	if err := d.do("open journal", func() (err error) {
		f, _, err = open(d.file(journalName), os.O_WRONLY|os.O_CREATE)
		return err
	}); err != nil {
		return err
	}
	defer closing(f, &err)
	// Whatever goes wrong now, this much may be in the journal.
	u.journal = u.size + int64(len(u.lines))
	if err := d.do("write journal", func() error { _, err := f.WriteAt(u.lines, u.size); return err }); err != nil {
		return err
	}
	if err := d.do("sync journal", f.Sync); err != nil {
		return err
	}
	if u.size > 0 {
		return nil
	}
	return d.do("sync directory after journal", func() error { return syncDir(d.path) })
}
