package site

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/sealift/sealift/manifest"
)

// MaxDocument bounds a document, in bytes.
const MaxDocument = 1 << 20

// Names of the files in a state directory.
const (
	recordName  = "record.json"
	pendingName = recordName + ".new"
	journalName = "journal.jsonl"
	lockName    = "lock"
)

// Dir is a state directory. It may be used by several goroutines and processes at once.
type Dir struct {
	path string
	// before is told each step before it is done. Tests set it.
	before func(step) error
}

// Open returns the state directory at path. It touches nothing: the directory need not exist.
func Open(path string) *Dir { return &Dir{path: path} }

// Path returns the path of the directory.
func (d *Dir) Path() string { return d.path }

func (d *Dir) file(name string) string { return filepath.Join(d.path, name) }

// document is the path of a document whose digest is well-formed.
func (d *Dir) document(digest string) string {
	return filepath.Join(d.path, "docs", "sha256", strings.TrimPrefix(digest, "sha256:"))
}

// Read returns what is recorded, an empty record where nothing is yet. It writes nothing, takes
// no lock and waits for nobody. That the record and the end of the journal fit together is
// checked, else it returns a *TamperedError; what the journal says before its end is not, see
// Journal.
func (d *Dir) Read(ctx context.Context) (*Record, error) {
	s, err := d.load(ctx)
	if err != nil {
		return nil, err
	}
	return s.record, nil
}

// Document returns a document by its digest, proven against it. It has at most limit bytes, and
// at most MaxDocument. The error wraps fs.ErrNotExist where there is none; it is a
// *TamperedError where what is there is something else.
func (d *Dir) Document(digest string, limit int64) ([]byte, error) {
	if err := manifest.CheckDigest(digest); err != nil {
		return nil, fmt.Errorf("reading a document of the site: %w", err)
	}
	limit = min(limit, MaxDocument)
	raw, err := read(d.document(digest), limit)
	if err != nil {
		return nil, fmt.Errorf("reading document %s of the site: %w", digest, err)
	}
	if int64(len(raw)) > limit {
		return nil, fmt.Errorf("reading document %s of the site: more than %d bytes", digest, limit)
	}
	if got := digestOf(raw); got != digest {
		return nil, &TamperedError{Path: d.document(digest), What: fmt.Sprintf("its digest is %s", got)}
	}
	return raw, nil
}

// snapshot is what was found in a directory.
type snapshot struct {
	record *Record
	// raw are the bytes of the record, nil where there is no file.
	raw []byte
	// size of the journal in bytes, with what lies beyond the end that the record knows.
	size int64
	// pending are the bytes of a record that was about to be committed; read only where the
	// journal is longer than the record says.
	pending []byte
}

func (s *snapshot) equal(o *snapshot) bool {
	return bytes.Equal(s.raw, o.raw) && s.size == o.size && bytes.Equal(s.pending, o.pending)
}

// maxLooks bounds how often load looks at files that change under its eyes.
const maxLooks = 1000

// load reads the record and checks that the journal fits. Somebody may be updating meanwhile,
// so that one file is read before and the other one after it: only what does not fit twice in
// the same way is wrong.
func (d *Dir) load(ctx context.Context) (*snapshot, error) {
	var last *snapshot
	for range maxLooks {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s, wrong, err := d.look()
		if err != nil {
			return nil, fmt.Errorf("reading the site's record: %w", err)
		}
		if wrong == nil {
			return s, nil
		}
		if last != nil && s.equal(last) {
			return nil, wrong
		}
		last = s
	}
	return nil, &BusyError{d.path}
}

// look looks once. The record is read before the journal, which an update lengthens first.
func (d *Dir) look() (*snapshot, *TamperedError, error) {
	s := &snapshot{record: &Record{MediaType: RecordType}}
	var err error
	if s.raw, err = read(d.file(recordName), MaxRecord); err == nil {
		if s.record, err = parseRecord(s.raw); err != nil {
			return nil, nil, &TamperedError{Path: d.file(recordName), What: err.Error()}
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	var wrong *TamperedError
	err = d.do("look at journal", func() (err error) { wrong, err = d.lookAtJournal(s); return err })
	if err != nil || wrong != nil {
		return s, wrong, err
	}
	if s.size == s.record.JournalSize {
		return s, nil, nil
	}
	if s.pending, err = read(d.file(pendingName), MaxRecord); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	if !s.interrupted() {
		return s, &TamperedError{Path: d.file(journalName), What: fmt.Sprintf(
			"it has %d bytes, the record knows %d and no update was interrupted: the record is not the latest one", s.size, s.record.JournalSize)}, nil
	}
	return s, nil, nil
}

// lookAtJournal sets the size of the journal and checks that it has the end that the record names.
func (d *Dir) lookAtJournal(s *snapshot) (_ *TamperedError, err error) {
	head, size := s.record.Journal, s.record.JournalSize
	f, have, err := open(d.file(journalName), os.O_RDONLY)
	if err == nil {
		defer closing(f, &err)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if s.size = have; s.size < size {
		return &TamperedError{Path: d.file(journalName), What: fmt.Sprintf("it has %d bytes, the record knows %d", s.size, size)}, nil
	}
	if size == 0 && s.raw != nil {
		// Every change of the record has an entry.
		return &TamperedError{Path: d.file(recordName), What: "no journal belongs to it"}, nil
	}
	if size == 0 {
		return nil, nil
	}
	line, err := lastLine(f, size)
	if err != nil {
		return nil, err
	}
	if got := digestOf(line); got != head.Digest {
		return &TamperedError{Path: d.file(journalName), Entry: head.Seq, What: fmt.Sprintf("its digest is %s, the record knows %s", got, head.Digest)}, nil
	}
	// Whoever changes the record has to change the journal with it, and so its end, which may be
	// kept elsewhere.
	last, err := parseEntry(line)
	if err != nil {
		return &TamperedError{Path: d.file(journalName), Entry: head.Seq, What: err.Error()}, nil
	}
	says, err := s.record.says()
	if err != nil {
		return nil, err
	}
	if last.Record != says {
		return &TamperedError{Path: d.file(recordName), What: fmt.Sprintf("it is not what the last entry of the journal, %d, was written with", head.Seq)}, nil
	}
	return nil, nil
}

// lastLine returns the line that ends with byte size-1, without the newline there. What is no
// line has no digest that a record names.
func lastLine(r io.ReaderAt, size int64) ([]byte, error) {
	buf := make([]byte, min(size, MaxLine))
	if _, err := r.ReadAt(buf, size-int64(len(buf))); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	buf, _ = bytes.CutSuffix(buf, []byte("\n"))
	return buf[bytes.LastIndexByte(buf, '\n')+1:], nil
}

// interrupted reports whether an update that was stopped explains what the journal holds beyond
// the end that the record knows.
func (s *snapshot) interrupted() bool {
	p, err := parseRecord(s.pending)
	return err == nil && p.Replaces == s.digest() && p.Journal.Seq > s.record.Journal.Seq && s.size <= p.JournalSize
}

// digest is that of the record's bytes, "" where there is no file.
func (s *snapshot) digest() string {
	if s.raw == nil {
		return ""
	}
	return digestOf(s.raw)
}

// Journal calls visit for every entry in order. Each one is proven to follow the one before when
// visit sees it; that the last one is the one that the record names is proven when Journal
// returns without an error. It returns the end of the journal; a *TamperedError that names the
// first entry that is malformed or does not follow the one before it; or what visit returned. It takes no lock, and its memory does not
// grow with the journal.
func (d *Dir) Journal(ctx context.Context, visit func(Entry) error) (Head, error) {
	return d.walk(ctx, func(e Entry, _ string) error { return visit(e) })
}

// FindHead reports whether a head that was kept elsewhere is on the chain: whether the journal
// of today is that of then, with perhaps more entries. With Seq 0 the digest alone is looked
// for; the zero Head, of a journal without entries, is on every chain. The journal is proven
// as in Journal, and its end is returned.
func (d *Dir) FindHead(ctx context.Context, head Head) (end Head, found bool, err error) {
	found = head == Head{}
	end, err = d.walk(ctx, func(e Entry, digest string) error {
		found = found || digest == head.Digest && (e.Seq == head.Seq || head.Seq == 0)
		return nil
	})
	if err != nil {
		return Head{}, false, err
	}
	return end, found, nil
}

// walk calls visit for every entry with the digest of its line.
func (d *Dir) walk(ctx context.Context, visit func(Entry, string) error) (_ Head, err error) {
	s, err := d.load(ctx)
	if err != nil || s.record.JournalSize == 0 {
		return Head{}, err
	}
	f, _, err := open(d.file(journalName), os.O_RDONLY)
	if err != nil {
		return Head{}, fmt.Errorf("reading the site's journal: %w", err)
	}
	defer closing(f, &err)
	wrong := func(at int64, format string, args ...any) error {
		return &TamperedError{Path: d.file(journalName), Entry: at, What: fmt.Sprintf(format, args...)}
	}
	var head Head
	lines := bufio.NewReaderSize(io.NewSectionReader(f, 0, s.record.JournalSize), MaxLine)
	for {
		if err := ctx.Err(); err != nil {
			return Head{}, err
		}
		line, err := lines.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF) && len(line) == 0:
			if head != s.record.Journal {
				return Head{}, wrong(head.Seq, "it is the last one with digest %s, the record knows entry %d with digest %s", head.Digest, s.record.Journal.Seq, s.record.Journal.Digest)
			}
			return head, nil
		case errors.Is(err, io.EOF):
			return Head{}, wrong(head.Seq+1, "it is cut short")
		case errors.Is(err, bufio.ErrBufferFull):
			return Head{}, wrong(head.Seq+1, "it has more than %d bytes", MaxLine-1)
		case err != nil:
			return Head{}, fmt.Errorf("reading the site's journal: %w", err)
		}
		line = line[:len(line)-1]
		e, err := parseEntry(line)
		if err != nil {
			return Head{}, wrong(head.Seq+1, "%v", err)
		}
		if e.Seq != head.Seq+1 {
			return Head{}, wrong(head.Seq+1, "its number is %d", e.Seq)
		}
		if e.Prev != head.Digest {
			return Head{}, wrong(e.Seq, "it follows %s, the one before it is %q", e.Prev, head.Digest)
		}
		head = Head{e.Seq, digestOf(line)}
		if err := visit(e, head.Digest); err != nil {
			return Head{}, err
		}
	}
}
