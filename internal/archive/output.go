package archive

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/sealift/sealift/internal/filelock"
)

// PartialSuffix is added to the final names while files are being written.
const PartialSuffix = ".partial"

// ErrBusy is returned where another process writes the same file.
var ErrBusy = errors.New("another process is writing this file")

// DiskSpaceError says that there is not enough room for a bundle.
type DiskSpaceError struct {
	Dir string
	// Need is what is still to be written there, Free what is free, in bytes.
	Need, Free int64
}

// Error gives both.
func (e *DiskSpaceError) Error() string {
	return fmt.Sprintf("directory %q has %s free, %s (%d bytes) are needed", e.Dir, FormatBytes(e.Free), FormatBytes(e.Need), e.Need)
}

// Unwrap returns ENOSPC, which a file system would have said later.
func (e *DiskSpaceError) Unwrap() error { return syscall.ENOSPC }

// TooManyVolumesError says that volumes would be too small for a bundle.
type TooManyVolumesError struct{ Size, Volume int64 }

// Error gives both sizes.
func (e *TooManyVolumesError) Error() string {
	return fmt.Sprintf("%s in volumes of %s are %d, at most %d are allowed", FormatBytes(e.Size), FormatBytes(e.Volume), (e.Size+e.Volume-1)/e.Volume, MaxVolumes)
}

// checkVolume checks that a file of size bytes, whose slots are at head, can be cut into volumes
// of volume bytes; 0 is for none.
func checkVolume(volume, head, size int64) error {
	switch {
	case volume == 0:
		return nil
	case volume < max(MinVolume, head+slotsSize):
		return fmt.Errorf("volumes of %s are too small: the head of the bundle, %s, must fit into the first one: %w", FormatBytes(volume), FormatBytes(head+slotsSize), ErrLimit)
	case size > volume*MaxVolumes:
		return &TooManyVolumesError{size, volume}
	}
	return nil
}

// flushEvery is after how many bytes what was written is sent to the disk, so that the end has
// little left to wait for and a crash little to take.
const flushEvery = 256 << 20

// output is what a bundle is written to: one file, or its volumes, under partial names.
type output struct {
	path string
	// volume is the size of the volumes, 0 for one file.
	volume int64
	files  []*os.File
	// renamed is how many files, from the last one on, have their final names.
	renamed int

	written  atomic.Int64
	flushing atomic.Bool
	flushes  sync.WaitGroup
	mu       sync.Mutex
	flushErr error
}

// final is the final name of file i (from 0).
func (o *output) final(i int) string {
	if o.volume == 0 {
		return o.path
	}
	return VolumeName(o.path, i+1)
}

func (o *output) partial(i int) string { return o.final(i) + PartialSuffix }

// openOutput opens the files for size bytes, made if need be, and takes them for this process.
// With keep, volumes that have their final names already are taken back.
func openOutput(path string, volume, size int64, keep bool) (_ *output, err error) {
	o := &output{path: path, volume: volume}
	defer func() {
		if err != nil && !keep {
			err = errors.Join(err, o.remove())
		}
		if err != nil {
			err = errors.Join(err, o.close())
		}
	}()
	n := 1
	if volume > 0 {
		n = int((size + volume - 1) / volume)
	}
	for i := range n {
		if keep {
			o.takeBack(i)
		}
		f, err := openLocked(o.partial(i))
		if err != nil {
			return nil, fmt.Errorf("creating %q: %w", o.partial(i), err)
		}
		o.files = append(o.files, f)
	}
	return o, nil
}

// clear empties the files.
func (o *output) clear() error {
	for i, f := range o.files {
		if err := f.Truncate(0); err != nil {
			return fmt.Errorf("creating %q: %w", o.partial(i), err)
		}
	}
	return nil
}

// takeBack gives a volume its partial name again that got its final one from a writer which was
// killed before it had named all of them. Without the first volume there is no bundle yet.
func (o *output) takeBack(i int) {
	if o.volume == 0 || i == 0 {
		return
	}
	if _, err := os.Lstat(o.final(0)); !errors.Is(err, os.ErrNotExist) {
		return
	}
	if _, err := os.Lstat(o.partial(i)); errors.Is(err, os.ErrNotExist) {
		// What cannot be taken back is written again.
		_ = os.Rename(o.final(i), o.partial(i))
	}
}

// reserve takes the space for size bytes, and checks that beside more would fit.
func (o *output) reserve(size, beside int64) error {
	need := size + beside
	for _, f := range o.files {
		info, err := f.Stat()
		if err != nil {
			return err
		}
		need -= allocated(info)
	}
	dir := filepath.Dir(o.path)
	if free, ok := freeSpace(dir); ok && free < need {
		return &DiskSpaceError{dir, need, free}
	}
	for i, f := range o.files {
		n := size
		if o.volume > 0 {
			n = want(i, o.volume, size)
		}
		if err := reserve(f, n); err != nil {
			return fmt.Errorf("reserving %s for %q: %w", FormatBytes(n), o.partial(i), err)
		}
	}
	return nil
}

// each calls f for the pieces of p, which lies at off, in the files that they belong to.
func (o *output) each(p []byte, off int64, f func(file *os.File, piece []byte, at int64) (int, error)) (int, error) {
	if o.volume == 0 {
		return f(o.files[0], p, off)
	}
	done := 0
	for done < len(p) {
		i := int((off + int64(done)) / o.volume)
		at := off + int64(done) - int64(i)*o.volume
		if i >= len(o.files) {
			return done, io.EOF
		}
		n, err := f(o.files[i], p[done:min(int64(len(p)), int64(done)+o.volume-at)], at)
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// WriteAt implements io.WriterAt.
func (o *output) WriteAt(p []byte, off int64) (int, error) {
	n, err := o.each(p, off, (*os.File).WriteAt)
	if now := o.written.Add(int64(n)); now/flushEvery != (now-int64(n))/flushEvery && o.flushing.CompareAndSwap(false, true) {
		o.flushes.Go(func() {
			defer o.flushing.Store(false)
			if err := o.sync(); err != nil {
				// The kernel reports a failed write-back once; it must not be forgotten.
				o.mu.Lock()
				defer o.mu.Unlock()
				o.flushErr = errors.Join(o.flushErr, err)
			}
		})
	}
	return n, err
}

// ReadAt implements io.ReaderAt.
func (o *output) ReadAt(p []byte, off int64) (int, error) { return o.each(p, off, (*os.File).ReadAt) }

func (o *output) sync() error {
	for _, f := range o.files {
		if err := syncData(f); err != nil {
			return err
		}
	}
	return nil
}

// durable waits until all that was written is on the disk.
func (o *output) durable() error {
	o.flushes.Wait()
	o.mu.Lock()
	err := o.flushErr
	o.mu.Unlock()
	if err != nil {
		return err
	}
	for _, f := range o.files {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	return nil
}

// cut gives the files the sizes that size bytes make, and removes those that are too many.
func (o *output) cut(size int64) error {
	o.flushes.Wait() // they go over the files
	if o.volume == 0 {
		return o.files[0].Truncate(size)
	}
	n := int((size + o.volume - 1) / o.volume)
	for len(o.files) > n {
		i := len(o.files) - 1
		if err := errors.Join(os.Remove(o.partial(i)), o.files[i].Close()); err != nil {
			return err
		}
		o.files = o.files[:i]
	}
	for i, f := range o.files {
		if err := f.Truncate(want(i, o.volume, size)); err != nil {
			return err
		}
	}
	return nil
}

// paths are those of the partial files.
func (o *output) paths() []string {
	paths := make([]string, 0, len(o.files))
	for i := range o.files {
		paths = append(paths, o.partial(i))
	}
	return paths
}

// finals are the names that the files will have.
func (o *output) finals() []string {
	paths := make([]string, 0, len(o.files))
	for i := range o.files {
		paths = append(paths, o.final(i))
	}
	return paths
}

// publish gives the files their final names, the first volume last: without it the others are
// no bundle. A first volume that is there goes first, and with it those that the new bundle does
// not have, so that no volumes of two bundles stand together.
func (o *output) publish() error {
	dir := filepath.Dir(o.path)
	if stale := o.stale(); len(o.files) > 1 || len(stale) > 0 {
		for _, name := range append([]string{o.final(0)}, stale...) {
			if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	for i := len(o.files) - 1; i >= 0; i-- {
		if err := os.Rename(o.partial(i), o.final(i)); err != nil {
			return err
		}
		if i == 1 {
			if err := syncDir(dir); err != nil {
				return err
			}
		}
		o.renamed++
	}
	return syncDir(dir)
}

// stale are the volumes of a bundle that is replaced and had more of them. One that was replaced
// halfway may have gaps.
func (o *output) stale() []string {
	var names []string
	for n := len(o.files) + 1; o.volume > 0 && n <= MaxVolumes; n++ {
		if _, err := os.Lstat(VolumeName(o.path, n)); err == nil {
			names = append(names, VolumeName(o.path, n))
		}
	}
	return names
}

// remove removes what has no final name yet.
func (o *output) remove() error {
	var err error
	for i := range len(o.files) - o.renamed {
		if e := os.Remove(o.partial(i)); e != nil && !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// close gives up the files, and with them the locks.
func (o *output) close() error {
	o.flushes.Wait()
	var err error
	for _, f := range o.files {
		err = errors.Join(err, f.Close())
	}
	o.files = nil
	return err
}

// maxOpens bounds how often openLocked finds that its file was taken away meanwhile.
const maxOpens = 100

// lock takes the file for this process, where the file system has locks. ErrBusy where another has it.
func lock(f *os.File) error {
	err := filelock.Try(f)
	switch {
	case errors.Is(err, filelock.ErrHeld):
		return ErrBusy
	case errors.Is(err, filelock.ErrUnsupported):
		return nil
	}
	return err
}

// openLocked opens the file at path, made if need be, and takes it for this process.
func openLocked(path string) (*os.File, error) {
	for range maxOpens {
		// A link under this name was not made by us and must not lead us elsewhere.
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|noFollow, 0o644)
		if err != nil {
			return nil, err
		}
		if err := lock(f); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		// The one that had the lock until now may have renamed or removed the file since it
		// was opened here: then this is not the partial file any more and must not be touched.
		mine, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if !mine.Mode().IsRegular() {
			return nil, errors.Join(fmt.Errorf("%q is not a regular file", path), f.Close())
		}
		if there, err := os.Lstat(path); err == nil && os.SameFile(mine, there) {
			return f, nil
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
	}
	return nil, ErrBusy
}

func syncDir(dir string) (err error) {
	d, err := os.Open(dir)
	if errors.Is(err, os.ErrPermission) {
		return nil // a directory that may be written to, but not read
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if err := d.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !isInvalid(err) {
		return err
	}
	return nil
}
