package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/sealift/sealift/internal/progress"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// Names that an extract writes beside those of the bundle's entries.
const (
	// partialSuffix is added to the name of the directory while it is being written.
	partialSuffix = ".partial"
	// marker is the file by which an unfinished directory is known as ours. It is locked as
	// long as somebody writes there.
	marker = ".sealift-extract"
	// chartsDir is where the copies of the chart archives lie.
	chartsDir = "charts"
	// provenanceSuffix is added to the name of a chart's archive for that of its provenance file.
	provenanceSuffix = ".prov"
	// filesDir is where the files of a bundle lie, notesName its release notes.
	filesDir  = "files"
	notesName = "NOTES.md"
	blobsDir  = "blobs/sha256"
)

// markerText is for who finds the file after a kill.
const markerText = "sealift extract writes here. If none is running, this directory can be removed.\n"

// maxFileName is the longest name that common file systems take.
const maxFileName = 255

// ErrExtracting is returned where another process extracts to the same directory.
var ErrExtracting = errors.New("another process is extracting to this directory")

// PlaceError says that there is something in the place that an extract was to write to.
type PlaceError struct{ Path, Is string }

// Error names the place and what is there.
func (e *PlaceError) Error() string { return fmt.Sprintf("extracting to %q: it is %s", e.Path, e.Is) }

// ExtractOptions say where a bundle is extracted to.
type ExtractOptions struct {
	// Dir is made, with its parents; it may be there if it is empty.
	Dir string
	// OnlyFiles leaves out all but the files and the release notes.
	OnlyFiles bool
	// Jobs is how many blobs are copied at the same time; 0 means DefaultJobs.
	Jobs     int
	Progress progress.Reporter
}

// Extracted is what an extract has written.
type Extracted struct {
	Directory string `json:"directory"`
	Blobs     int    `json:"blobs"`
	Bytes     int64  `json:"bytes"`
	// Charts are the copies of chart archives, with their paths in the directory.
	Charts []ExtractedChart `json:"charts"`
	// Skipped are the charts without a copy, since two of them would have the same name, or
	// since theirs is too long. Their archives are among the blobs.
	Skipped []ExtractedChart `json:"skippedCharts"`
	// Files are the files of the bundle, with their paths in the directory.
	Files []ExtractedFile `json:"files"`
	// Notes is the path of the release notes; empty where there are none.
	Notes string `json:"notes,omitempty"`
}

// ExtractedFile is a file of the bundle.
type ExtractedFile struct {
	Path   string `json:"path"`
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
}

// ExtractedChart is a chart archive.
type ExtractedChart struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Digest  string `json:"digest"`
	// Path is empty where no copy was written.
	Path string `json:"path,omitempty"`
	size int64
}

// Extract writes the plain OCI image layout that a bundle holds, its manifest as sealift.json
// its charts as charts/NAME-VERSION.tgz, its files below files/ and its release notes. Every blob is proven while it is copied. The
// directory gets its name when all is written and durable; after an error nothing is left but
// what was there. Errors: *PlaceError, ErrExtracting, *verify.ContentError, that of ctx, or of
// writing.
func Extract(ctx context.Context, b *verify.Bundle, o ExtractOptions) (_ *Extracted, err error) {
	m := b.Manifest()
	raw, err := manifest.Encode(m)
	if err != nil {
		return nil, err
	}
	if got := manifest.Digest(raw); got != b.Evidence().Manifest {
		return nil, &verify.ContentError{Path: b.Path(), Err: fmt.Errorf("manifest: got %s, want %s", got, b.Evidence().Manifest)}
	}
	index, err := manifest.OCIIndex(m)
	if err != nil {
		return nil, err
	}
	s, err := stageFor(filepath.Clean(o.Dir))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	res := &Extracted{Directory: filepath.Clean(o.Dir), Charts: []ExtractedChart{}, Skipped: []ExtractedChart{}, Files: []ExtractedFile{}}
	if !o.OnlyFiles {
		res.Blobs = len(m.Blobs)
		res.Charts, res.Skipped = chartCopies(m.Charts)
		for _, blob := range m.Blobs {
			res.Bytes += blob.Size
		}
	}
	for _, f := range m.Files {
		res.Files = append(res.Files, ExtractedFile{filesDir + "/" + f.Name, f.Digest, f.Size})
		if o.OnlyFiles {
			res.Bytes += f.Size
		}
	}
	if m.Notes != nil {
		res.Notes = notesName
	}
	if err := s.fill(ctx, b, o, res.Charts); err != nil {
		return nil, err
	}
	if !o.OnlyFiles {
		for _, f := range []struct {
			name    string
			content []byte
		}{{manifest.EntryManifest, raw}, {manifest.EntryOCILayout, manifest.OCILayout()}, {manifest.EntryIndex, index}} {
			if err := s.write(ctx, f.name, bytes.NewReader(f.content), int64(len(f.content)), false, func(int64) {}); err != nil {
				return nil, err
			}
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := s.publish(); err != nil {
		return nil, err
	}
	return res, nil
}

// chartCopies says under which names the chart archives are copied: one copy for all releases
// of a chart, none where one name would stand for two archives.
func chartCopies(charts []manifest.Chart) (copies, skipped []ExtractedChart) {
	copies, skipped = []ExtractedChart{}, []ExtractedChart{}
	var all []ExtractedChart
	archives := map[string][]string{}
	for i := range charts {
		c := &charts[i]
		x := ExtractedChart{c.Name, c.Version, c.Archive.Digest, c.Name + "-" + c.Version + ".tgz", c.Archive.Size}
		if slices.Contains(all, x) {
			continue
		}
		all = append(all, x)
		// Some file systems do not tell upper case from lower.
		key := strings.ToLower(x.Path)
		archives[key] = append(archives[key], x.Digest)
	}
	for _, x := range all {
		if len(archives[strings.ToLower(x.Path)]) > 1 || len(x.Path) > maxFileName {
			x.Path = ""
			skipped = append(skipped, x)
			continue
		}
		x.Path = chartsDir + "/" + x.Path
		copies = append(copies, x)
	}
	return copies, skipped
}

// staging is a directory that is being written under another name.
type staging struct {
	// place is the directory in which the staging lies, called name: the parent of the target,
	// called base; or the target itself, where that is there and empty, and base is "". It may
	// be somebody's working directory or a mounted disk, so it is filled and not replaced.
	place      *os.Root
	name, base string
	// path is that of the target, for errors.
	path string
	root *os.Root
	// lock is the marker, held locked until the end.
	lock *os.File
}

// stageFor makes the staging directory for the target dir, or takes over the one that a killed
// extract has left.
func stageFor(dir string) (_ *staging, err error) {
	s := &staging{path: dir}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Lstat(dir); err == nil {
			return nil, &PlaceError{dir, "a symbolic link that leads nowhere"}
		}
		s.base = filepath.Base(dir)
		s.name = s.base + partialSuffix
		if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
			return nil, fmt.Errorf("extracting to %q: %w", dir, err)
		}
		s.place, err = os.OpenRoot(filepath.Dir(dir))
	case err == nil && !info.IsDir():
		return nil, &PlaceError{dir, "there and not a directory"}
	case err == nil:
		s.name = partialSuffix
		s.place, err = os.OpenRoot(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("extracting to %q: %w", dir, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.place.Close())
		}
	}()
	// Before anything is made, and once more when nobody else writes here any longer.
	if err := s.checkFree(); err != nil {
		return nil, err
	}
	for range maxTakes {
		taken, err := s.take()
		if err != nil {
			return nil, err
		}
		if !taken {
			continue
		}
		err = s.checkFree()
		if err == nil {
			err = s.clear()
		}
		if err != nil {
			return nil, errors.Join(err, s.discard(), s.release())
		}
		return s, nil
	}
	return nil, fmt.Errorf("extracting to %q: %w", dir, ErrExtracting)
}

// maxTakes bounds how often take finds that its directory was taken away meanwhile.
const maxTakes = 100

// stagingPath is that of the staging directory, for errors.
func (s *staging) stagingPath() string {
	if s.base == "" {
		return filepath.Join(s.path, s.name)
	}
	return s.path + partialSuffix
}

// checkFree checks that nothing is where the result will be.
func (s *staging) checkFree() error {
	if s.base != "" {
		if _, err := s.place.Lstat(s.base); err == nil {
			return &PlaceError{s.path, "there since a moment ago"}
		} else if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("extracting to %q: %w", s.path, err)
		}
		return nil
	}
	names, err := list(s.place)
	if err != nil {
		return fmt.Errorf("extracting to %q: %w", s.path, err)
	}
	if slices.ContainsFunc(names, func(n string) bool { return n != s.name }) {
		return &PlaceError{s.path, "a directory that is not empty"}
	}
	return nil
}

// list returns the names in a directory.
func list(r *os.Root) ([]string, error) {
	d, err := r.Open(".")
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	return names, errors.Join(err, d.Close())
}

// take makes the staging directory and locks its marker. One that is there is taken only if it
// bears the marker and nobody holds that, or if it is empty: then nothing can be lost. It
// reports false where the directory went away meanwhile.
func (s *staging) take() (taken bool, err error) {
	doing := func(err error) error { return fmt.Errorf("extracting to %q: %w", s.path, err) }
	err = s.place.Mkdir(s.name, 0o755)
	fresh := err == nil
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return false, doing(err)
	}
	there, err := s.place.Lstat(s.name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, doing(err)
	}
	if !there.IsDir() {
		// A link was not made by us and must not lead us elsewhere.
		return false, &PlaceError{s.stagingPath(), "there and not a directory"}
	}
	if !fresh && !ownedByUs(there) {
		// Its owner could change what we write there.
		return false, &PlaceError{s.stagingPath(), "there and belongs to another user"}
	}
	if s.root, err = s.place.OpenRoot(s.name); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, doing(err)
	}
	defer func() {
		if !taken {
			err = errors.Join(err, s.root.Close())
		}
	}()
	names, err := list(s.root)
	if err != nil {
		return false, doing(err)
	}
	if len(names) > 0 {
		if info, err := s.root.Lstat(marker); err != nil || !info.Mode().IsRegular() {
			return false, &PlaceError{s.stagingPath(), "there and was not made by an extract"}
		}
	}
	if s.lock, err = s.root.OpenFile(marker, os.O_RDWR|os.O_CREATE, 0o644); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, doing(err)
	}
	defer func() {
		if !taken {
			err = errors.Join(err, s.lock.Close())
		}
	}()
	held, err := lockFile(s.lock)
	if err != nil {
		return false, doing(err)
	}
	if !held && !fresh {
		// Without locks nobody can say whether the other one still lives.
		return false, &PlaceError{s.stagingPath(), "there, left by another extract or being written by one"}
	}
	// The one that had the lock until now may have renamed or removed the directory.
	return s.mine()
}

// mine reports whether the staging directory and its marker are still those that were opened.
func (s *staging) mine() (bool, error) {
	same, err := s.sameDir()
	if !same || err != nil {
		return false, err
	}
	locked, err := s.lock.Stat()
	if err != nil {
		return false, err
	}
	there, err := s.root.Lstat(marker)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && there.Mode().IsRegular() && os.SameFile(locked, there), err
}

// sameDir reports whether the staging directory still has its name.
func (s *staging) sameDir() (bool, error) {
	opened, err := s.root.Stat(".")
	if err != nil {
		return false, err
	}
	there, err := s.place.Lstat(s.name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(opened, there), err
}

// clear removes what a killed extract has left.
func (s *staging) clear() error {
	names, err := list(s.root)
	for _, n := range names {
		if n != marker {
			err = errors.Join(err, s.root.RemoveAll(n))
		}
	}
	if err == nil {
		_, err = s.lock.WriteAt([]byte(markerText), 0)
	}
	if err != nil {
		return fmt.Errorf("extracting to %q: %w", s.path, err)
	}
	return nil
}

// fill writes the blobs, the copies of chart archives, and the files.
func (s *staging) fill(ctx context.Context, b *verify.Bundle, o ExtractOptions, charts []ExtractedChart) error {
	type job struct {
		digest, name string
		size         int64
		executable   bool
	}
	// In the order of the file, so that media that seek slowly are read from front to back.
	var jobs []job
	m := b.Manifest()
	if !o.OnlyFiles {
		for _, blob := range m.Blobs {
			jobs = append(jobs, job{blob.Digest, manifest.BlobPrefix + strings.TrimPrefix(blob.Digest, "sha256:"), blob.Size, false})
		}
		if err := s.root.MkdirAll(blobsDir, 0o755); err != nil {
			return fmt.Errorf("extracting to %q: %w", s.path, err)
		}
	}
	for _, c := range charts {
		jobs = append(jobs, job{c.Digest, c.Path, c.size, false})
	}
	for i := range m.Charts {
		p := m.Charts[i].Provenance
		at := slices.IndexFunc(charts, func(c ExtractedChart) bool { return c.Digest == m.Charts[i].Archive.Digest })
		if p == nil || at < 0 {
			continue
		}
		// Helm looks for it beside the archive.
		j := job{p.Digest, charts[at].Path + provenanceSuffix, p.Size, false}
		if !slices.Contains(jobs, j) {
			jobs = append(jobs, j)
		}
	}
	for _, f := range m.Files {
		jobs = append(jobs, job{f.Digest, filesDir + "/" + f.Name, f.Size, f.Executable})
	}
	if m.Notes != nil {
		jobs = append(jobs, job{m.Notes.Digest, notesName, m.Notes.Size, false})
	}
	var total int64
	for _, j := range jobs {
		total += j.size
		if err := s.root.MkdirAll(path.Dir(j.name), 0o755); err != nil {
			return fmt.Errorf("extracting to %q: %w", s.path, err)
		}
	}
	atOnce := o.Jobs
	if atOnce <= 0 {
		atOnce = DefaultJobs
	}
	task := o.Progress.Start("extracting", total, progress.Bytes)
	defer task.Done()
	return each(ctx, atOnce, jobs, func(ctx context.Context, _ int, j job) error {
		r, err := b.Blob(j.digest)
		if err != nil {
			return err
		}
		defer r.Close()
		if err := s.write(ctx, j.name, r, j.size, j.executable, task.Add); err != nil {
			return err
		}
		task.Note(j.digest)
		return nil
	})
}

// write copies r, of size bytes, to a new file of the staging directory and makes it durable.
func (s *staging) write(ctx context.Context, name string, r io.Reader, size int64, executable bool, written func(int64)) (err error) {
	mode := fs.FileMode(0o644)
	if executable {
		mode = 0o755
	}
	// O_EXCL follows no link.
	f, err := s.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("extracting to %q: %w", s.path, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := writerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		n, err := f.Write(p)
		written(int64(n))
		if err != nil {
			return n, fmt.Errorf("extracting to %q: %w", s.path, err)
		}
		return n, nil
	})
	// What is longer than it says must not fill the disk.
	n, err := io.Copy(w, io.LimitReader(r, size+1))
	if err != nil {
		return err
	}
	if n != size {
		return fmt.Errorf("extracting to %q: %s: got %d bytes, want %d", s.path, name, n, size)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("extracting to %q: %w", s.path, err)
	}
	return nil
}

// writerFunc is an io.Writer made of a function.
type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// parts are what an extract makes, in the order in which it gives them their names when it
// fills a directory. Nobody takes for a layout what has no index.json.
var parts = []string{"blobs", chartsDir, filesDir, notesName, manifest.EntryManifest, manifest.EntryOCILayout, manifest.EntryIndex}

// publish makes all durable and gives it its name.
func (s *staging) publish() error {
	doing := func(err error) error { return fmt.Errorf("extracting to %q: %w", s.path, err) }
	if err := s.syncDirs(); err != nil {
		return doing(err)
	}
	if same, err := s.mine(); err != nil {
		return doing(err)
	} else if !same {
		return &PlaceError{s.stagingPath(), "not what it was: somebody has moved it"}
	}
	if err := s.checkFree(); err != nil {
		return err
	}
	if s.base == "" {
		return s.moveParts()
	}
	// Whoever finds the directory without its marker leaves it alone.
	if err := s.root.Remove(marker); err != nil {
		return doing(err)
	}
	switch err := s.place.Rename(s.name, s.base); {
	case errors.Is(err, fs.ErrExist), errors.Is(err, syscall.ENOTDIR): // ENOTEMPTY is ErrExist
		return &PlaceError{s.path, "there since a moment ago"}
	case err != nil:
		return doing(err)
	}
	if err := syncDir(s.place, "."); err != nil {
		return doing(err)
	}
	return nil
}

// syncDirs makes the names in all directories durable, inner ones first.
func (s *staging) syncDirs() error {
	var dirs []string
	err := fs.WalkDir(s.root.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			dirs = append(dirs, name)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, dir := range slices.Backward(dirs) {
		if err := syncDir(s.root, dir); err != nil {
			return err
		}
	}
	return nil
}

// moveParts gives everything its name in a directory that was there.
func (s *staging) moveParts() (err error) {
	var moved []string
	defer func() {
		if err != nil {
			err = fmt.Errorf("extracting to %q: %w", s.path, err)
			for _, p := range moved {
				err = errors.Join(err, s.place.RemoveAll(p))
			}
		}
	}()
	for _, p := range parts {
		err := s.place.Rename(s.name+"/"+p, p)
		if errors.Is(err, fs.ErrNotExist) {
			continue // not every bundle has everything
		}
		if err != nil {
			return err
		}
		moved = append(moved, p)
	}
	return errors.Join(s.discard(), syncDir(s.place, "."))
}

// discard removes the staging directory, if it still is ours.
func (s *staging) discard() error {
	if same, err := s.sameDir(); !same || err != nil {
		return err
	}
	return s.place.RemoveAll(s.name)
}

// release closes the staging directory and gives up its lock.
func (s *staging) release() error { return errors.Join(s.root.Close(), s.lock.Close()) }

// close removes what was not given a name.
func (s *staging) close() error { return errors.Join(s.discard(), s.release(), s.place.Close()) }

// syncDir makes the names in a directory durable.
func syncDir(r *os.Root, name string) error {
	d, err := r.Open(name)
	if err != nil {
		return err
	}
	err = d.Sync()
	if err != nil && cannotSync(err) {
		err = nil
	}
	return errors.Join(err, d.Close())
}
