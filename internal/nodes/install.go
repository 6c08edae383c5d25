package nodes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// Actions of an Installed.
const (
	ActionWritten = "written"
	// ActionPresent is for what is there already.
	ActionPresent = "present"
)

// Installed is a file that is in its place.
type Installed struct {
	File
	// Action is ActionWritten or ActionPresent.
	Action string `json:"action"`
}

// FileError says why a file is not replaced. It is an ErrForeign.
type FileError struct {
	Path string
	Err  error
}

// Error names the file.
func (e *FileError) Error() string { return fmt.Sprintf("replacing %q: %v", e.Path, e.Err) }

// Unwrap returns the reason.
func (e *FileError) Unwrap() error { return e.Err }

// ShadowError says that a runtime would not look at a file because of another one.
type ShadowError struct{ Path, By string }

// Error names both.
func (e *ShadowError) Error() string {
	return fmt.Sprintf("writing %q: %q is there, and looked at instead", e.Path, e.By)
}

// Install writes the files of a format below a directory, which is made if need be, each at once in
// place of the one that is there. What earlier runs have written there stays in force: its routes are
// merged. With overwrite, files are replaced that were not written here, and routes that lead
// elsewhere. Nothing is written where anything is in the way. Others who install into the directory
// are waited for. Errors are *FileError, *ShadowError, *ConflictError, *FormatError, *BusyError, the
// end of ctx, or of reading and writing.
func Install(ctx context.Context, dir string, f Format, m *Mirrors, ca Authority, overwrite bool) (_ []Installed, notes []string, err error) {
	if _, _, err := Render(f, m, ca); err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, nil, fmt.Errorf("making the directory of the files: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("opening the directory of the files: %w", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	held, err := lock(ctx, root, dir)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, held.Close()) }()
	p := &place{root: root, dir: dir, overwrite: overwrite, found: map[string][]byte{}, kept: map[string]bool{}}
	files, notes, err := p.merge(f, m, ca)
	if err != nil {
		return nil, nil, err
	}
	var done []Installed
	for _, file := range files {
		action := ActionPresent
		if !p.has(file) {
			action = ActionWritten
			if err := p.write(file); err != nil {
				return nil, nil, err
			}
		}
		done = append(done, Installed{file, action})
	}
	return done, notes, nil
}

// place is a directory that files are written to.
type place struct {
	root      *os.Root
	dir       string
	overwrite bool
	// found is what was there, by path; nil for nothing.
	found map[string][]byte
	// kept says of which files the site has changed its own lines.
	kept map[string]bool
}

// merge renders m with what earlier runs have written into the files that it needs.
func (p *place) merge(f Format, m *Mirrors, ca Authority) (files []File, notes []string, err error) {
	for {
		if files, notes, err = Render(f, m, ca); err != nil {
			return nil, nil, err
		}
		more := false
		for _, file := range files {
			if _, known := p.found[file.Path]; known {
				continue
			}
			more = true
			old, err := p.earlier(f, file)
			if err != nil {
				return nil, nil, err
			}
			if old == nil {
				continue
			}
			if m, err = old.Merge(m, p.overwrite); err != nil {
				return nil, nil, err
			}
		}
		// What was merged may need more files, in which there may be more.
		if !more {
			return p.keepTails(files), append(notes, p.unsaid(m)...), nil
		}
	}
}

// earlier reads what is at the place of a file: the mirrors that earlier runs have written into it,
// nil for none.
func (p *place) earlier(f Format, file File) (*Mirrors, error) {
	raw, err := p.read(file.Path)
	if err != nil {
		return nil, err
	}
	p.found[file.Path] = raw
	if f == Containerd {
		if err := p.shadowed(file.Path); err != nil {
			return nil, err
		}
	}
	if raw == nil || p.has(file) {
		return nil, nil
	}
	old, err := Parse(raw)
	if err != nil && !p.overwrite {
		return nil, &FileError{filepath.Join(p.dir, file.Path), err}
	}
	_, theirs := own(string(raw))
	p.kept[file.Path] = theirs != "" && (old == nil || theirs != tailOf(f, old, file.Path))
	if err != nil {
		return nil, nil //nolint:nilerr // it is to be replaced, whatever it is
	}
	// Files without routes are for the bundles of those that have them, of which some may be lost now.
	if p.overwrite && len(old.routes) == 0 {
		return nil, nil
	}
	return old, nil
}

// tailOf is what is written as the site's own lines of a file, before the site has changed them.
func tailOf(f Format, m *Mirrors, name string) string {
	files, _, err := Render(f, m, Authority{})
	if err != nil {
		return ""
	}
	for _, file := range files {
		if file.Path == name {
			_, tail := own(file.Content)
			return tail
		}
	}
	return ""
}

// shadowed looks for the other name that containerd knows for the directory of a registry with a
// port, at which it looks first.
func (p *place) shadowed(name string) error {
	host, port, ok := strings.Cut(path.Dir(name), ":")
	if !ok || strings.HasPrefix(host, "[") {
		return nil
	}
	other := host + "_" + port + "_"
	if _, err := p.root.Lstat(other); err == nil {
		return &ShadowError{filepath.Join(p.dir, name), filepath.Join(p.dir, other)}
	}
	return nil
}

// has reports whether a file is there as it is to be. Certificates may have come from elsewhere.
func (p *place) has(file File) bool {
	raw := p.found[file.Path]
	if raw == nil {
		return false
	}
	return string(raw) == file.Content || strings.HasSuffix(file.Path, ".crt") && strings.TrimSpace(string(raw)) == strings.TrimSpace(bodyOf(file.Content))
}

// read returns what a file holds, nil where there is none.
func (p *place) read(name string) (_ []byte, err error) {
	full := filepath.Join(p.dir, name)
	info, err := p.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading %q: %w", full, err)
	}
	if !info.Mode().IsRegular() {
		return nil, &FileError{full, fmt.Errorf("%w: it is no regular file", ErrForeign)}
	}
	file, err := p.root.Open(name)
	if err != nil {
		return nil, fmt.Errorf("reading %q: %w", full, err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	raw, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading %q: %w", full, err)
	}
	return raw, nil
}

// keepTails puts the site's own lines into the files in which it has changed them.
func (p *place) keepTails(files []File) []File {
	for i, file := range files {
		if p.kept[file.Path] {
			head, _ := own(file.Content)
			_, theirs := own(string(p.found[file.Path]))
			files[i].Content = head + Divider + theirs
		}
	}
	return files
}

// unsaid are the notes about registries that the site's own lines do not trust.
func (p *place) unsaid(m *Mirrors) []string {
	var notes []string
	_, theirs := own(string(p.found[rancherMirrors]))
	for _, e := range m.endpoints() {
		if p.kept[rancherMirrors] && e.CA && !strings.Contains(theirs, rancherCA(e.Host)) {
			notes = append(notes, fmt.Sprintf("%s has lines of the site's own below configs:, which stay: add ca_file: %s for %s there", rancherMirrors, rancherCA(e.Host), e.Host))
		}
	}
	return notes
}

// partialSuffix ends the name of a file that is being written.
const partialSuffix = ".sealift-partial"

// write gives a file its name when it is durable. What a killed run has left is written over.
func (p *place) write(file File) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("writing %q: %w", filepath.Join(p.dir, file.Path), err)
		}
	}()
	dir := path.Dir(file.Path)
	if err := p.root.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	partial := file.Path + partialSuffix
	if err := p.root.Remove(partial); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	w, err := p.root.OpenFile(partial, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, file.Content)
	if err == nil {
		err = w.Sync()
	}
	if err = errors.Join(err, w.Close()); err == nil {
		err = p.root.Rename(partial, file.Path)
	}
	if err != nil {
		return errors.Join(err, p.root.Remove(partial))
	}
	return p.sync(dir)
}

// sync makes the names in a directory durable, where its file system can do that.
func (p *place) sync(dir string) error {
	d, err := p.root.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EINVAL) || errors.Is(err, fs.ErrPermission) {
		err = nil
	}
	return errors.Join(err, d.Close())
}
