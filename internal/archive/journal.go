package archive

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/sealift/sealift/manifest"
)

// journalSuffix is added to the name of a bundle for what is kept about an unfinished one.
const journalSuffix = PartialSuffix + ".json"

// temporarySuffix is added to the name of a journal while it is being written.
const temporarySuffix = ".new"

// journalType is the first member of every journal.
const journalType = "application/vnd.sealift.partial.v1+json"

// Journal says what an unfinished file is going to be. Which parts of it are there already, the
// file tells itself.
type Journal struct {
	MediaType string `json:"mediaType"`
	// Volume is the size of the volumes, 0 for one file.
	Volume int64 `json:"volume"`
	// Plan is the manifest, as far as it was known in the beginning.
	Plan string `json:"plan"`
}

// NewJournal returns the journal of a pack.
func NewJournal(volume int64, plan []byte) Journal { return Journal{journalType, volume, string(plan)} }

// maxJournal bounds the size of a journal: a manifest whose quotes are escaped.
const maxJournal = 2*manifest.MaxManifestBytes + 1<<10

// write puts the journal in its place, all of it or nothing.
func (j Journal) write(path string) (err error) {
	raw, err := json.Marshal(j)
	if err != nil {
		return fmt.Errorf("writing the journal of %q: %w", path, err)
	}
	// Whoever writes this holds the lock of the unfinished file.
	temporary := path + journalSuffix + temporarySuffix
	if err := os.Remove(temporary); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("writing the journal of %q: %w", path, err)
	}
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("writing the journal of %q: %w", path, err)
	}
	_, err = f.Write(raw)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(temporary, path+journalSuffix)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("writing the journal of %q: %w", path, err), os.Remove(temporary))
	}
	return syncDir(filepath.Dir(path))
}

// ReadJournal returns what an unfinished pack to path left, nil where there is nothing that
// could be gone on with.
func ReadJournal(path string) (_ *Journal, err error) {
	f, _, err := OpenRegular(path + journalSuffix)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the journal of %q: %w", path, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	raw, err := io.ReadAll(io.LimitReader(f, maxJournal+1))
	if err != nil {
		return nil, fmt.Errorf("reading the journal of %q: %w", path, err)
	}
	// A journal is only worth what it saves: one that is not as it was written saves nothing.
	var j Journal
	if json.Unmarshal(raw, &j) != nil || j.MediaType != journalType {
		return nil, nil
	}
	if again, err := json.Marshal(j); err != nil || !bytes.Equal(again, raw) {
		return nil, nil
	}
	return &j, nil
}

// removeJournal removes the journal, and what a writer that was killed has left of one.
func removeJournal(path string) error {
	for _, name := range []string{path + journalSuffix, path + journalSuffix + temporarySuffix} {
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Tidy removes what a writer left behind that was killed after its bundle had got its name. It
// does nothing where there is an unfinished one.
func Tidy(path string) error {
	for _, first := range []string{path, VolumeName(path, 1)} {
		if _, err := os.Lstat(first + PartialSuffix); !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return removeJournal(path)
}
