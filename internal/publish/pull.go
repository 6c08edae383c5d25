package publish

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/progress"
	"github.com/sealift/sealift/manifest"
	"github.com/sealift/sealift/verify"
)

// ThereError says that something else is there in the place of a file that was to be written.
type ThereError struct{ Path string }

// Error names the file.
func (e *ThereError) Error() string {
	return fmt.Sprintf("writing %q: the file is already there", e.Path)
}

// OtherError says that what an interrupted run left under a name is of another bundle.
type OtherError struct{ Path string }

// Error names the file.
func (e *OtherError) Error() string {
	return fmt.Sprintf("what an interrupted run left of %q is of another bundle, or cut otherwise", e.Path)
}

// PartialError says that a pull was stopped and can be gone on with.
type PartialError struct {
	// Path of the bundle that was to be made.
	Path string
	// Done of Total bytes of content are there already.
	Done, Total int64
	Err         error
}

// Error is that of the cause.
func (e *PartialError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *PartialError) Unwrap() error { return e.Err }

// PullOptions say how a bundle is pulled.
type PullOptions struct {
	// Output is a file, if it is one or ends in .zst, else a directory, made if need be, in which
	// the file is called NAME-VERSION.tar.zst.
	Output string
	// Volume is the size of the volumes, 0 for one file. Beside is how much else will be written
	// to the same place, in bytes.
	Volume, Beside int64
	// Overwrite allows to replace a bundle that is there, Restart to throw away what an interrupted
	// run left of another one.
	Overwrite, Restart bool
	// Jobs is how many blobs move at the same time; 0 means DefaultJobs.
	Jobs     int
	Progress progress.Reporter
}

// Pulled is what was pulled.
type Pulled struct {
	// Path of the bundle: that of its file, or that of its volumes without their numbers. Files are
	// its file or volumes and the signatures beside it.
	Path  string   `json:"file"`
	Files []string `json:"files"`
	// Name, Version and Digest (the identity) are those of the bundle, Size that of its file.
	Name    string `json:"bundle"`
	Version string `json:"version"`
	Digest  string `json:"digest"`
	Size    int64  `json:"size"`
	// Signatures in and beside the bundle.
	Signatures int `json:"signatures"`
	// Resumed is how many bytes of content an interrupted run had brought already.
	Resumed int64 `json:"resumed,omitempty"`
	// Present says that the very same bundle was there already.
	Present bool `json:"present"`
}

// pulling is one run of Pull.
type pulling struct {
	*local
	o      PullOptions
	remote *archive.Remote
	path   string
	w      *archive.Writer
	resume bool
	total  int64
	// found is what an earlier run had brought, fetched what this one did, in bytes.
	found, fetched atomic.Int64
}

// Pull writes the file of a bundle in a registry, which Open has found, byte by byte as it was
// when it was pushed, or cut into other volumes, and the signatures beside it. Every byte is
// proven against the bundle's manifest; who made it is for the caller to look at before. Under the
// final name there is nothing, or what was there, until all is written and durable. What an
// interrupted run left is gone on with, and left for the next one with a *PartialError. Other
// errors: *verify.ContentError, *ThereError, *OtherError, archive.ErrBusy,
// *archive.DiskSpaceError, *oci.Error.
func Pull(ctx context.Context, files *archive.Files, o PullOptions) (_ *Pulled, err error) {
	if files.Remote == nil {
		return nil, fmt.Errorf("pulling %q: it is a file already", files.Name)
	}
	l, err := openFiles(files)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.src.Close()) }()
	p := &pulling{local: l, o: o, remote: files.Remote}
	if err := p.check(); err != nil {
		return nil, l.damaged(err)
	}
	if p.path, err = place(o.Output, fileName(l.manifest)); err != nil {
		return nil, err
	}
	return p.run(ctx)
}

// check compares the entries that the registry has with those of the manifest.
func (p *pulling) check() error {
	if err := p.reader.Fit(); err != nil {
		return err
	}
	for i, e := range p.manifest.Entries {
		if have := p.remote.Entries[i]; have != e {
			return fmt.Errorf("entry %d in the registry is %q (sha256:%s), the manifest makes it %q (sha256:%s)", i+1, have.Name, have.SHA256, e.Name, e.SHA256)
		}
		p.total += e.Size
	}
	return nil
}

// place is where the bundle is written.
func place(output, name string) (string, error) {
	if output == "" {
		return name, nil
	}
	info, err := os.Stat(output)
	isDir := err == nil && info.IsDir()
	if err == nil && !isDir || !isDir && strings.HasSuffix(output, filepath.Ext(extension)) {
		return output, nil
	}
	if err := os.MkdirAll(output, 0o755); err != nil {
		return "", fmt.Errorf("making the output directory: %w", err)
	}
	return filepath.Join(output, name), nil
}

func (p *pulling) run(ctx context.Context) (*Pulled, error) {
	res := &Pulled{
		Path: p.path, Name: p.manifest.Name, Version: p.manifest.Version, Digest: manifest.Digest(p.head.Manifest),
		Size: p.reader.Layout().Size(), Signatures: len(p.head.Signatures) + len(p.remote.Detached),
	}
	if err := p.mayWrite(); err != nil {
		var there *ThereError
		if !errors.As(err, &there) {
			return nil, err
		}
		// Whoever runs this twice, or did not see that it had ended, has what they want.
		if paths := p.same(ctx); paths != nil {
			res.Present = true
			return p.beside(res, paths)
		}
		return nil, err
	}
	if err := p.prepare(); err != nil {
		return nil, err
	}
	if err := p.write(ctx); err != nil {
		return nil, p.stopped(ctx, err)
	}
	// Hours may have passed since this was looked at.
	if err := p.mayWrite(); err != nil {
		return nil, p.stopped(ctx, err)
	}
	res.Resumed = p.found.Load()
	paths := p.w.Paths()
	// With its name the bundle has its signatures.
	if _, err := p.beside(res, paths); err != nil {
		return nil, p.stopped(ctx, err)
	}
	if err := p.w.Publish(); err != nil {
		return nil, err
	}
	return res, p.replaced(paths)
}

// mayWrite checks that there is no bundle under the name. *ThereError else.
func (p *pulling) mayWrite() error { return p.vacant(p.path, archive.VolumeName(p.path, 1)) }

// mayName checks that there are none of the volumes that are going to be written, as of a bundle
// whose first one lies elsewhere. What an interrupted run has named already is ours.
func (p *pulling) mayName() error {
	var names []string
	for n := 2; p.o.Volume > 0 && !p.resume && n <= archive.MaxVolumes; n++ {
		names = append(names, archive.VolumeName(p.path, n))
	}
	return p.vacant(names...)
}

func (p *pulling) vacant(names ...string) error {
	if p.o.Overwrite {
		return nil
	}
	for _, name := range names {
		if _, err := os.Lstat(name); err == nil {
			return &ThereError{name}
		} else if !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("looking at the output: %w", err)
		}
	}
	return nil
}

// same returns the files of the bundle that is there already, if it is this one, to the byte, and
// cut as it was asked for; else nil.
func (p *pulling) same(ctx context.Context) []string {
	found, err := archive.Find([]string{p.path})
	if err != nil || len(found) != 1 {
		return nil
	}
	l, err := openFiles(found[0])
	if err != nil {
		return nil
	}
	defer func() { _ = l.src.Close() }() // it was only read
	if l.reader.Fit() != nil || !bytes.Equal(l.head.Manifest, p.head.Manifest) || !l.head.SameSlots(p.head) || (p.o.Volume > 0) != (found[0].File == "") {
		return nil
	}
	if p.o.Volume > 0 {
		if info, err := os.Stat(found[0].Volumes[1]); err != nil || info.Size() != min(p.o.Volume, l.reader.Layout().Size()) {
			return nil
		}
	}
	task := p.o.Progress.Start("checking what is there", l.reader.Layout().Size(), progress.Bytes)
	defer task.Done()
	if l.reader.Verify(ctx, task.Add) != nil {
		return nil
	}
	files := *found[0]
	files.Parity = nil
	return files.Paths()
}

// prepare opens the files under their partial names, those of an interrupted run where that was of
// this bundle.
func (p *pulling) prepare() error {
	j, err := archive.ReadJournal(p.path)
	if err != nil {
		return err
	}
	if j != nil {
		first := p.path
		if j.Volume > 0 {
			first = archive.VolumeName(p.path, 1)
		}
		_, err := os.Lstat(first + archive.PartialSuffix)
		switch there := err == nil; {
		case there && j.Plan == string(p.head.Manifest) && j.Volume == p.o.Volume:
			p.resume = true
		case there && !p.o.Restart:
			return &OtherError{p.path}
		}
	}
	if err := errors.Join(p.mayName(), p.maySign()); err != nil {
		return err
	}
	l := p.reader.Layout()
	p.w, err = archive.NewWriter(archive.Plan{
		Path: p.path, Volume: p.o.Volume, Entries: p.manifest.Entries, Head: l.Head(), Size: l.Size(), Beside: p.o.Beside,
		Journal: archive.NewJournal(p.o.Volume, p.head.Manifest), Resume: p.resume,
	})
	return err
}

// stopped leaves what was fetched for the next run.
func (p *pulling) stopped(ctx context.Context, err error) error {
	err = ended(ctx, err)
	if done := p.found.Load() + p.fetched.Load(); done > 0 || p.resume {
		return errors.Join(&PartialError{p.path, min(done, p.total), p.total, err}, p.w.Close())
	}
	return errors.Join(err, p.w.Discard())
}

// write brings everything into its place.
func (p *pulling) write(ctx context.Context) error {
	task := p.o.Progress.Start("pulling", p.total, progress.Bytes)
	defer task.Done()
	jobs := cmp.Or(p.o.Jobs, DefaultJobs)
	// Small ones are a matter of asking, not of bytes.
	for _, pass := range []struct {
		limit int
		of    func(size int64) bool
	}{{max(jobs, asking), isSmall}, {jobs, func(size int64) bool { return !isSmall(size) }}} {
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(pass.limit)
		for i, e := range p.manifest.Entries {
			if gctx.Err() != nil {
				break
			}
			if pass.of(e.Size) {
				g.Go(func() error { return p.writeEntry(gctx, i, task) })
			}
		}
		if err := g.Wait(); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return p.w.Seal(ctx, archive.SealOptions{Manifest: p.head.Manifest, Layout: p.reader.Layout(), Slots: p.remote.Slots, Done: func(int64) {}})
}

// refetches is how often an entry is fetched again that was not what its digest says.
const refetches = 2

func (p *pulling) writeEntry(ctx context.Context, i int, task progress.Task) error {
	e := p.w.Entry(i)
	defer e.Close()
	if p.resume {
		complete, err := e.Recover(ctx)
		if err != nil {
			return err
		}
		task.Add(e.Taken())
		p.found.Add(e.Taken())
		if complete {
			return nil
		}
	}
	recovered := e.Taken()
	err := p.fetch(ctx, e, i, task)
	var wrong *archive.ContentError
	// What an earlier run left looked sound and was not, or what came was spoiled on its way.
	for again := 0; errors.As(err, &wrong) && (recovered > 0 || again < refetches); again++ {
		task.Add(-e.Taken())
		p.found.Add(-recovered)
		p.fetched.Add(recovered - e.Taken())
		recovered = 0
		e.Reset()
		err = p.fetch(ctx, e, i, task)
	}
	if errors.As(err, &wrong) {
		return p.damaged(err)
	}
	if err == nil {
		task.Note(p.manifest.Entries[i].Name)
	}
	return err
}

func (p *pulling) fetch(ctx context.Context, e *archive.EntryWriter, i int, task progress.Task) error {
	body := p.remote.Fetch(ctx, p.manifest.Entries[i], e.Taken())
	defer body.Close()
	return e.Fill(ctx, body, func(n int64) {
		task.Add(n)
		p.fetched.Add(n)
	})
}

// signature looks at the place of signature i beside the bundle: whether it is there already.
// *ThereError where another one is that must not be replaced.
func (p *pulling) signature(i int) (path string, there bool, err error) {
	path = archive.DetachedName(p.path, i+1)
	body, err := verify.ReadDetached(path)
	switch {
	case p.o.Overwrite && err != nil:
		return path, false, nil //nolint:nilerr // whatever it is, it is replaced
	case err != nil:
		return path, false, fmt.Errorf("looking at the output: %q: %w", path, err)
	case body != nil && !bytes.Equal(body, p.remote.Detached[i].Body) && !p.o.Overwrite:
		return path, false, &ThereError{path}
	}
	return path, body != nil && bytes.Equal(body, p.remote.Detached[i].Body), nil
}

// maySign checks that all signatures can be written beside the bundle.
func (p *pulling) maySign() error {
	for i := range p.remote.Detached {
		if _, _, err := p.signature(i); err != nil {
			return err
		}
	}
	return nil
}

// beside writes the signatures beside the bundle and completes the result.
func (p *pulling) beside(res *Pulled, paths []string) (*Pulled, error) {
	res.Files = append(res.Files, paths...)
	for i, s := range p.remote.Detached {
		path, there, err := p.signature(i)
		if err == nil && !there {
			err = writeSmall(path, s.Body)
		}
		if err != nil {
			return nil, fmt.Errorf("writing the signature beside the bundle: %w", err)
		}
		res.Files = append(res.Files, path)
	}
	return res, nil
}

// writeSmall writes a file, all of it or nothing.
func writeSmall(path string, content []byte) (err error) {
	partial := path + archive.PartialSuffix
	// What lies there under this name is ours, or no more than a link that leads elsewhere.
	if err := os.Remove(partial); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(partial, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, bytes.NewReader(content))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(partial, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(partial))
	}
	return nil
}

// replaced removes what is left of the bundle that was replaced: its file where there are volumes
// now, its volumes where there is a file, its parity.
func (p *pulling) replaced(now []string) error {
	if !p.o.Overwrite {
		return nil
	}
	old := []string{p.path}
	if p.o.Volume == 0 {
		old = nil
		for n := 1; n <= archive.MaxVolumes; n++ {
			old = append(old, archive.VolumeName(p.path, n))
		}
	}
	found, err := archive.Find(now[:1])
	if err != nil {
		return fmt.Errorf("looking for what was replaced: %w", err)
	}
	for _, f := range found {
		old = append(old, f.Parity...)
	}
	for _, name := range old {
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("removing what was replaced: %w", err)
		}
	}
	return nil
}
