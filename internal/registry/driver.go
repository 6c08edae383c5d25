package registry

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/factory"

	"github.com/sealift/sealift/internal/filelock"
)

// driverName is what the configuration of a registry calls our driver.
const driverName = "sealift"

const (
	// maxContent bounds what is read into memory as a whole, in bytes: manifests, which are the
	// largest, may have 4 MiB when they are pushed.
	maxContent = 16 << 20
	// writeTries is how often a directory is made anew that somebody deletes at the same time.
	writeTries = 3
)

// driver stores what the distribution registry gives it in the layout that the registry's own driver
// "filesystem" has, so that either can go on with the directory. What is different:
//
// What is acknowledged is on the disk, names included: files and the directories that they are in are
// synced when they get their final names. What can be had again by repeating an upload is not synced.
//
// The states of hash functions with which uploads go on are kept in memory. After a restart the
// registry finds none and computes the digest from what is on the disk, so that what a crash of the
// machine has left there is proven too.
//
// Nothing is buffered, so that every error of the disk is one of a Write. The registry answers for
// those; it does not for errors of Close.
//
// Errors of the disk are noted for the request that they happen in: see faults.
type driver struct {
	root   string
	owner  fs.FileInfo
	states hashStates
	// writing has the names of the uploads that are written to, with who does.
	writing sync.Map
}

func init() { factory.Register(driverName, makers{}) } // the only way to hand it a driver

// makers makes drivers.
type makers struct{}

// Create is called by handlers.NewApp with the parameters of its configuration.
func (makers) Create(_ context.Context, parameters map[string]any) (storagedriver.StorageDriver, error) {
	d, ok := parameters["driver"].(*driver)
	if !ok {
		return nil, errors.New("the configuration has no driver")
	}
	return d, nil
}

func newDriver(root string) (*driver, error) {
	owner, err := os.Stat(root)
	if err != nil {
		return nil, err
	}
	if !owner.IsDir() {
		return nil, &fs.PathError{Op: "open", Path: root, Err: errNotDirectory}
	}
	return &driver{root: root, owner: owner}, nil
}

var errNotDirectory = errors.New("not a directory")

// Name is that of the driver.
func (d *driver) Name() string { return driverName }

// full is the place of a path of the registry. Paths that lead elsewhere cannot be made of the names
// that the registry takes.
func (d *driver) full(p string) (string, error) {
	if p != "/" && !storagedriver.PathRegexp.MatchString(p) || strings.Contains(p, "/../") || strings.HasSuffix(p, "/..") {
		return "", storagedriver.InvalidPathError{Path: p, DriverName: driverName}
	}
	return filepath.Join(d.root, filepath.FromSlash(p)), nil
}

// fail makes an error one of the registry's kinds, and notes it for the request if it is the disk's.
func (d *driver) fail(ctx context.Context, p string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist), isNotDirectory(err):
		return storagedriver.PathNotFoundError{Path: p, DriverName: driverName}
	}
	note(ctx, err)
	return storagedriver.Error{DriverName: driverName, Detail: err}
}

// GetContent reads a small file.
func (d *driver) GetContent(ctx context.Context, p string) ([]byte, error) {
	if state, ok := d.states.get(p); ok {
		return state, nil
	}
	full, err := d.full(p)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(full)
	if err != nil {
		return nil, d.fail(ctx, p, err)
	}
	defer func() { _ = f.Close() }() // it was only read
	raw, err := io.ReadAll(io.LimitReader(f, maxContent+1))
	if err == nil && len(raw) > maxContent {
		err = fmt.Errorf("reading %q: more than %d bytes", full, maxContent)
	}
	if err == nil && len(raw) == 0 && inUpload(p) {
		// A crash has left no more of it.
		err = fs.ErrNotExist
	}
	return raw, d.fail(ctx, p, err)
}

// PutContent writes a small file in one piece.
func (d *driver) PutContent(ctx context.Context, p string, content []byte) error {
	if d.states.put(p, content) {
		return nil
	}
	full, err := d.full(p)
	if err != nil {
		return err
	}
	return d.fail(ctx, p, d.place(full, func() (string, error) {
		made := full + "." + rand.Text() + temporary
		f, err := os.OpenFile(made, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if err != nil {
			return "", err
		}
		_, err = f.Write(content)
		err = errors.Join(err, likeFile(f, d.owner))
		if !inUpload(p) {
			err = errors.Join(err, f.Sync())
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return "", errors.Join(err, os.Remove(made))
		}
		return made, nil
	}, !inUpload(p)))
}

// place renames what source has made to full, in a directory that is made if need be.
func (d *driver) place(full string, source func() (string, error), durable bool) error {
	dir := filepath.Dir(full)
	for try := 1; ; try++ {
		err := d.makeDir(dir, durable)
		if err == nil {
			var made string
			if made, err = source(); err == nil {
				if err = os.Rename(made, full); err == nil {
					if durable {
						err = syncDir(dir)
					}
					return err
				}
			}
		}
		// Another request may be deleting the directory.
		if !errors.Is(err, fs.ErrNotExist) || try == writeTries {
			return err
		}
	}
}

// makeDir makes a directory and those above it, and if durable sends their names to the disk.
func (d *driver) makeDir(dir string, durable bool) error {
	info, err := os.Stat(dir)
	switch {
	case err == nil && !info.IsDir():
		return &fs.PathError{Op: "mkdir", Path: dir, Err: errNotDirectory}
	case err == nil, !errors.Is(err, fs.ErrNotExist):
		return err
	}
	above := filepath.Dir(dir)
	if above == dir {
		return err
	}
	if err := d.makeDir(above, durable); err != nil {
		return err
	}
	err = os.Mkdir(dir, 0o777)
	if err == nil {
		err = like(dir, d.owner)
	} else if errors.Is(err, fs.ErrExist) {
		err = nil
	}
	if err == nil && durable {
		err = syncDir(above)
	}
	return err
}

// Reader reads a file from an offset.
func (d *driver) Reader(ctx context.Context, p string, offset int64) (io.ReadCloser, error) {
	full, err := d.full(p)
	if err != nil {
		return nil, err
	}
	if offset < 0 {
		return nil, storagedriver.InvalidOffsetError{Path: p, Offset: offset, DriverName: driverName}
	}
	f, err := os.Open(full)
	if err != nil {
		return nil, d.fail(ctx, p, err)
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return nil, d.fail(ctx, p, errors.Join(err, f.Close()))
	}
	return f, nil
}

// Writer writes a file from its beginning, or on from its end.
func (d *driver) Writer(ctx context.Context, p string, onward bool) (storagedriver.FileWriter, error) {
	full, err := d.full(p)
	if err != nil {
		return nil, err
	}
	if err := d.makeDir(filepath.Dir(full), false); err != nil {
		return nil, d.fail(ctx, p, err)
	}
	f, made, err := openPlain(full, os.O_WRONLY, 0o666)
	if err != nil {
		return nil, d.fail(ctx, p, err)
	}
	w := &fileWriter{f: f, d: d, onward: onward, fail: func(err error) error { return d.fail(ctx, p, err) }}
	if made {
		err = likeFile(f, d.owner)
	}
	if err == nil && !onward {
		if err = w.take(); err == nil {
			err = f.Truncate(0)
		}
	}
	if err == nil {
		w.size, err = f.Seek(0, io.SeekEnd)
	}
	if err != nil {
		w.end()
		return nil, d.fail(ctx, p, err)
	}
	w.flushed = w.size
	w.kept = atEnd(ctx, w.end) // the registry does not close all of them
	return w, nil
}

// Stat describes a file.
func (d *driver) Stat(ctx context.Context, p string) (storagedriver.FileInfo, error) {
	full, err := d.full(p)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(full)
	if err != nil {
		return nil, d.fail(ctx, p, err)
	}
	fields := storagedriver.FileInfoFields{Path: p, ModTime: info.ModTime(), IsDir: info.IsDir()}
	if !info.IsDir() {
		fields.Size = info.Size()
	}
	return storagedriver.FileInfoInternal{FileInfoFields: fields}, nil
}

// List returns the paths in a directory. Among the tags of a repository those are left out that
// have no manifest yet, or, after a crash, never got one.
func (d *driver) List(ctx context.Context, p string) ([]string, error) {
	if states := d.states.list(p); len(states) > 0 {
		return states, nil
	}
	full, err := d.full(p)
	if err != nil {
		return nil, err
	}
	dir, err := os.Open(full)
	if err != nil {
		return nil, d.fail(ctx, p, err)
	}
	defer func() { _ = dir.Close() }() // it was only read
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, d.fail(ctx, p, err)
	}
	tags := strings.HasSuffix(p, "/_manifests/tags")
	paths := make([]string, 0, len(names))
	for _, name := range names {
		if tags {
			if _, err := os.Stat(filepath.Join(full, name, "current", "link")); errors.Is(err, fs.ErrNotExist) {
				continue
			}
		}
		paths = append(paths, path.Join(p, name))
	}
	return paths, nil
}

// Move renames a finished file.
func (d *driver) Move(ctx context.Context, from, to string) error {
	source, err := d.full(from)
	if err != nil {
		return err
	}
	target, err := d.full(to)
	if err != nil {
		return err
	}
	if _, err := os.Stat(source); err != nil {
		return d.fail(ctx, from, err)
	}
	// What was proven is moved, and nothing that another has put in its place.
	if w, ok := d.writing.Load(source); ok && !w.(*fileWriter).named() { //nolint:forcetypeassert // nothing else is in it
		return d.fail(ctx, from, errTaken)
	}
	return d.fail(ctx, to, d.place(target, func() (string, error) { return source, nil }, true))
}

// Delete deletes a file, or a directory and all in it.
func (d *driver) Delete(ctx context.Context, p string) error {
	d.states.drop(p)
	full, err := d.full(p)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(full); err != nil {
		return d.fail(ctx, p, err)
	}
	err = os.RemoveAll(full)
	if err == nil && !inUpload(p) {
		if err = syncDir(filepath.Dir(full)); errors.Is(err, fs.ErrNotExist) {
			err = nil // another request has deleted that too
		}
	}
	return d.fail(ctx, p, err)
}

// RedirectURL sends nobody elsewhere.
func (d *driver) RedirectURL(*http.Request, string) (string, error) { return "", nil }

// Walk calls f for all files below a path.
func (d *driver) Walk(ctx context.Context, p string, f storagedriver.WalkFn, options ...func(*storagedriver.WalkOptions)) error {
	return storagedriver.WalkFallback(ctx, d, p, f, options...)
}

// errTaken says that another request has the upload, or has finished it.
var errTaken = errors.New("another request writes to this upload, or has finished it")

// fileWriter writes an upload. Of those who have opened one the newest that writes has it: what was
// written after another has finished the upload would be in the finished blob.
type fileWriter struct {
	f *os.File
	d *driver
	// size is how long the file is, flushed how much of it is on its way to the disk.
	size, flushed int64
	// taken says that nobody else writes, committed that nobody may write any more.
	taken, committed, closed bool
	// onward says that what was there stays.
	onward bool
	// kept says that it is closed when its request ends, at the latest.
	kept bool
	fail func(error) error
	once sync.Once

	// mu is held while something is written. lost says that another request has taken the upload over.
	mu   sync.Mutex
	lost bool
}

// yield gives the upload to another request: who goes on with one whose connection broke may be long
// before the end of that is seen here. One that is being finished is not given away.
func (w *fileWriter) yield() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.committed {
		return false
	}
	w.lost = true
	w.end()
	return true
}

// How long a request waits for another one that writes to the same upload, and how often it looks.
const (
	writerWait  = 5 * time.Second
	writerPause = 20 * time.Millisecond
)

// take makes this the only one who writes, in this process and all others.
func (w *fileWriter) take() error {
	if w.closed || w.committed || w.lost {
		return errTaken
	}
	if w.taken {
		return nil
	}
	// Who goes on after a connection that broke may be faster than what is left of that here.
	var err error
	for end := time.NewTimer(writerWait); !w.taken; {
		other, busy := w.d.writing.LoadOrStore(w.f.Name(), w)
		if busy && other.(*fileWriter).yield() { //nolint:forcetypeassert // nothing else is in it
			continue
		}
		if !busy {
			if err = filelock.Try(w.f); !errors.Is(err, filelock.ErrHeld) {
				end.Stop()
				w.taken = true
				break
			}
			w.d.writing.CompareAndDelete(w.f.Name(), w)
		}
		select {
		case <-end.C:
			return errTaken
		case <-time.After(writerPause):
		}
	}
	if err != nil && !errors.Is(err, filelock.ErrUnsupported) { // without locks this process must do
		return err
	}
	info, err := w.f.Stat()
	if err != nil {
		return err
	}
	// Since it was opened, another may have gone on with it or finished it.
	if !w.named() || w.onward && info.Size() != w.size {
		return errTaken
	}
	return nil
}

// named reports whether the file still has the name of the upload.
func (w *fileWriter) named() bool {
	is, err := w.f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(w.f.Name())
	return err == nil && os.SameFile(is, there)
}

// end closes the file, with which its lock ends.
func (w *fileWriter) end() {
	w.once.Do(func() {
		_ = w.f.Close() // every error of the disk was one of Write or Commit
		if w.taken {
			w.d.writing.CompareAndDelete(w.f.Name(), w)
		}
	})
}

// flushSize is how much is written before the disk is told to begin with it, in bytes: the sync at
// the end then has little left to wait for.
const flushSize = 8 << 20

// Write writes at the end.
func (w *fileWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.take(); err != nil {
		return 0, w.fail(err)
	}
	n, err := w.f.Write(p)
	w.size += int64(n)
	if w.size-w.flushed >= flushSize {
		startWriting(w.f, w.flushed, w.size-w.flushed)
		w.flushed = w.size
	}
	if isFull(err) {
		// What cannot be finished must not keep others from what little they need.
		if w.named() && w.f.Truncate(0) == nil {
			_, seekErr := w.f.Seek(0, io.SeekStart)
			err = errors.Join(err, seekErr)
			w.size, w.flushed = 0, 0
		}
	}
	return n, w.fail(err)
}

// Size is how long the file is.
func (w *fileWriter) Size() int64 { return w.size }

// Close keeps what was written for whoever goes on with it.
func (w *fileWriter) Close() error {
	if w.closed {
		return nil
	}
	w.closed = true
	// The registry closes what it then moves: until the request ends nobody else may write to it.
	if !w.committed || !w.kept {
		w.end()
	}
	return nil
}

// Cancel deletes what was written.
func (w *fileWriter) Cancel(context.Context) error {
	w.mu.Lock()
	lost := w.lost
	w.mu.Unlock()
	if lost { // it is another's
		return w.Close()
	}
	err := os.Remove(w.f.Name())
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(w.fail(err), w.Close())
}

// Commit sends what was written to the disk.
func (w *fileWriter) Commit(context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.take(); err != nil {
		return w.fail(err)
	}
	w.committed = true
	return w.fail(syncData(w.f))
}

// inUpload reports whether a path belongs to an upload.
func inUpload(p string) bool { return strings.Contains(p, "/_uploads/") }
