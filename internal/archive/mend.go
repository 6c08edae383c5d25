package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sort"
)

// OpenDamaged opens what there is of a bundle that is known to have n bytes: volumes may be
// missing, the first one too, and files may have other sizes.
func OpenDamaged(f *Files, n int64) (Source, error) {
	if f.File != "" {
		return OpenFile(f.File)
	}
	src, err := openVolumes(f.Name, f.Volumes)
	if err != nil {
		return nil, err
	}
	var problems *VolumesError
	if err := src.Fit(n); err != nil && !errors.As(err, &problems) {
		return nil, errors.Join(err, src.Close())
	}
	return src, nil
}

// Mender writes what was restored of a damaged bundle, under partial names beside what is there.
// Source gives the bundle as it would be with that, to be proven; only Publish changes anything.
// Files in which nothing is damaged are not touched.
type Mender struct {
	files *Files
	src   Source
	size  int64
	dir   string
	// volume is the size of the volumes, 0 for one file.
	volume int64
	// out is the files that are written, by the number of the volume from 0.
	out map[int]*mended
	buf []byte
}

// mended is a file that is written: a new one in the place of a volume, or a patch of one that is
// there, which holds the restored bytes at their offsets and nothing else.
type mended struct {
	file *os.File
	// path is the final name, at the partial one.
	path, at string
	patch    bool
	// spans that were written to a patch, by their offsets in the file.
	spans []span
}

// span is a run of bytes of a file.
type span struct{ from, to int64 }

// NewMender returns a Mender of the bundle of n bytes that src reads. What is missing, or has not
// its size, is written anew, below dir, and so are the files in which Restore finds a difference;
// with an empty dir they are patched where they are. Errors as those of NewWriter.
func NewMender(ctx context.Context, f *Files, src Source, n int64, dir string) (_ *Mender, err error) {
	m := &Mender{files: f, src: src, size: n, dir: dir, out: map[int]*mended{}, buf: make([]byte, copyPiece)}
	count := 1
	if v, ok := src.(*volumeSource); ok {
		m.volume, count = v.size, v.count()
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Discard())
		}
	}()
	if dir != "" {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("making the output directory: %w", err)
		}
	}
	for i := range count {
		if m.fits(i) {
			continue
		}
		if err := m.open(ctx, i); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// bounds are the bytes of the bundle that file i holds.
func (m *Mender) bounds(i int) (from, to int64) {
	if m.volume == 0 {
		return 0, m.size
	}
	from = int64(i) * m.volume
	return from, min(from+m.volume, m.size)
}

// old is the path of file i as it is, empty where it is missing.
func (m *Mender) old(i int) string {
	if m.volume == 0 {
		return m.files.File
	}
	return m.files.Volumes[i+1]
}

// fits reports whether file i has the size that it must have.
func (m *Mender) fits(i int) bool {
	if m.old(i) == "" {
		return false
	}
	from, to := m.bounds(i)
	info, err := os.Stat(m.old(i))
	return err == nil && info.Size() == to-from
}

// open opens file i for writing: a new file with what can be read of the old one, or a patch.
func (m *Mender) open(ctx context.Context, i int) error {
	name := m.files.Name
	if m.volume > 0 {
		name = VolumeName(m.files.Name, i+1)
	}
	o := &mended{path: name}
	switch {
	case m.dir != "":
		o.path = filepath.Join(m.dir, filepath.Base(name))
	case m.old(i) != "":
		o.path, o.patch = m.old(i), true
	}
	o.at = o.path + ".repair" + PartialSuffix
	from, to := m.bounds(i)
	if !o.patch {
		if free, ok := freeSpace(filepath.Dir(o.path)); ok && free < to-from {
			return &DiskSpaceError{filepath.Dir(o.path), to - from, free}
		}
		if _, err := os.Lstat(o.path); err == nil {
			return fmt.Errorf("restoring to %q: %w", o.path, os.ErrExist)
		}
	}
	// What was left there by a run that was killed is of no use.
	if err := os.Remove(o.at); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("restoring to %q: %w", o.path, err)
	}
	f, err := os.OpenFile(o.at, os.O_RDWR|os.O_CREATE|os.O_EXCL|noFollow, 0o644)
	if err != nil {
		return fmt.Errorf("restoring to %q: %w", o.path, err)
	}
	o.file = f
	m.out[i] = o
	if err := f.Truncate(to - from); err != nil {
		return fmt.Errorf("restoring to %q: %w", o.path, err)
	}
	if o.patch || m.old(i) == "" {
		return nil
	}
	return m.copyGood(ctx, o, from, to)
}

// copyGood copies what can be read of the bytes from from to to.
func (m *Mender) copyGood(ctx context.Context, o *mended, from, to int64) error {
	for at := from; at < to; at += copyPiece {
		if err := ctx.Err(); err != nil {
			return err
		}
		piece := m.buf[:min(copyPiece, to-at)]
		// Bytes before an error are good; all others are restored, or the proof fails.
		n, _ := m.src.ReadAt(piece, at)
		if _, err := o.file.WriteAt(piece[:n], at-from); err != nil {
			return fmt.Errorf("restoring to %q: %w", o.path, err)
		}
	}
	return nil
}

// Restore takes the bytes that the bundle must have at off. Files that have them already are left.
func (m *Mender) Restore(ctx context.Context, p []byte, off int64) error {
	for len(p) > 0 {
		i := 0
		if m.volume > 0 {
			i = int(off / m.volume)
		}
		from, to := m.bounds(i)
		n := min(int64(len(p)), to-off)
		if n <= 0 {
			return fmt.Errorf("restoring byte %d of %d: %w", off, m.size, io.ErrShortWrite)
		}
		if err := m.put(ctx, i, p[:n], off, from); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// put writes p, which lies at off, to file i, which begins at from.
func (m *Mender) put(ctx context.Context, i int, p []byte, off, from int64) error {
	if m.out[i] == nil {
		there := make([]byte, len(p))
		if n, _ := m.src.ReadAt(there, off); n == len(p) && bytes.Equal(there, p) {
			return nil
		}
		if err := m.open(ctx, i); err != nil {
			return err
		}
	}
	o := m.out[i]
	if _, err := o.file.WriteAt(p, off-from); err != nil {
		return fmt.Errorf("restoring to %q: %w", o.path, err)
	}
	if o.patch {
		o.add(span{off - from, off - from + int64(len(p))})
	}
	return nil
}

// add notes a span, in order and joined with those that it touches.
func (o *mended) add(s span) {
	i := sort.Search(len(o.spans), func(i int) bool { return o.spans[i].to >= s.from })
	j := i
	for j < len(o.spans) && o.spans[j].from <= s.to {
		s.from, s.to = min(s.from, o.spans[j].from), max(s.to, o.spans[j].to)
		j++
	}
	o.spans = slices.Replace(o.spans, i, j, s)
}

// next is what the byte at off of the file lies in: a span of the patch, or what lies before the
// next one. Of a file that is written anew all is in it.
func (o *mended) next(off, end int64) (to int64, patched bool) {
	if !o.patch {
		return end, true
	}
	i := sort.Search(len(o.spans), func(i int) bool { return o.spans[i].to > off })
	switch {
	case i == len(o.spans):
		return end, false
	case o.spans[i].from <= off:
		return min(end, o.spans[i].to), true
	}
	return min(end, o.spans[i].from), false
}

// mendedSource is the bundle with what was restored.
type mendedSource struct{ m *Mender }

// Source gives the bundle with what was restored.
func (m *Mender) Source() Source { return mendedSource{m} }

// ReadAt implements io.ReaderAt.
func (s mendedSource) ReadAt(p []byte, off int64) (int, error) {
	m := s.m
	for done := 0; done < len(p); {
		at := off + int64(done)
		if at >= m.size {
			return done, io.EOF
		}
		i := 0
		if m.volume > 0 {
			i = int(at / m.volume)
		}
		from, to := m.bounds(i)
		var r io.ReaderAt = m.src
		start := at
		if o := m.out[i]; o != nil {
			end, patched := o.next(at-from, to-from)
			if to = from + end; patched {
				r, start = o.file, at-from
			}
		}
		n, err := r.ReadAt(p[done:min(int64(len(p)), int64(done)+to-at)], start)
		done += n
		if n == 0 {
			if err == nil {
				err = io.ErrNoProgress
			}
			return done, err
		}
	}
	return len(p), nil
}

// Fit implements Source.
func (s mendedSource) Fit(n int64) error {
	if n != s.m.size {
		return &SizeError{s.m.size, n}
	}
	return nil
}

// Place implements Source.
func (s mendedSource) Place(int64) *Place { return nil }

// Close implements Source. The files are the Mender's.
func (s mendedSource) Close() error { return nil }

// Sync makes durable what was written.
func (m *Mender) Sync() error {
	for _, o := range m.out {
		if err := o.file.Sync(); err != nil {
			return fmt.Errorf("restoring to %q: %w", o.path, err)
		}
		dropCache(o.file)
	}
	return nil
}

// Publish gives new files their names, and patches those that are to be changed. It returns the
// names of all. When it is interrupted, the same repair can be made again.
func (m *Mender) Publish() ([]string, error) {
	var paths []string
	for i := range MaxVolumes {
		o := m.out[i]
		if o == nil {
			continue
		}
		from, to := m.bounds(i)
		if err := o.publish(to-from, m.buf); err != nil {
			return nil, errors.Join(fmt.Errorf("restoring to %q: %w", o.path, err), m.Discard())
		}
		paths = append(paths, o.path)
		delete(m.out, i)
	}
	return paths, nil
}

func (o *mended) publish(size int64, buf []byte) (err error) {
	if !o.patch {
		err := o.file.Close()
		if o.file = nil; err == nil {
			err = os.Rename(o.at, o.path)
		}
		if err == nil {
			err = syncDir(filepath.Dir(o.path))
		}
		return err
	}
	f, err := os.OpenFile(o.path, os.O_RDWR|noFollow, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := lock(f); err != nil {
		return err
	}
	for _, s := range o.spans {
		for at := s.from; at < s.to; {
			piece := buf[:min(int64(len(buf)), s.to-at)]
			if _, err := o.file.ReadAt(piece, at); err != nil {
				return err
			}
			if _, err := f.WriteAt(piece, at); err != nil {
				return err
			}
			at += int64(len(piece))
		}
	}
	if err := f.Truncate(size); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	err = o.file.Close()
	o.file = nil
	return errors.Join(err, os.Remove(o.at))
}

// Discard removes what has no final name.
func (m *Mender) Discard() error {
	var err error
	for _, o := range m.out {
		if o.file != nil {
			err = errors.Join(err, o.file.Close())
		}
		if e := os.Remove(o.at); !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	m.out = nil
	return err
}

// SoundSlots reports whether b, what lies in the place of the signature slots, can be read as
// slots. As in all reading, what is in the inactive one does not matter: who replaced the slots
// because of it would lose the signatures in the active one.
func SoundSlots(b []byte) bool {
	if len(b) != slotsSize {
		return false
	}
	_, _, _, err := readActive(b)
	return err == nil
}
