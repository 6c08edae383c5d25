package archive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/sealift/sealift/manifest"
)

// PartialSuffix is added to the final name while a file is being written.
const PartialSuffix = ".partial"

// ErrBusy is returned by Create where another process writes the same file.
var ErrBusy = errors.New("another process is writing this file")

// Writer writes one bundle file under a partial name. Entries may be written in any order and
// at the same time; Commit gives the file its final name.
type Writer struct {
	file   *os.File
	path   string
	layout *Layout
	sums   []uint32
	done   []bool
}

// appendEntry appends the frames of a small entry and hands their checksums to sum.
func appendEntry(dst []byte, name string, content []byte, sum func(uint32)) []byte {
	size := int64(len(content))
	header := tarHeader(name, size, typeRegular)
	sum(checksum(header))
	dst = appendFrame(dst, header)
	padded := append(append(make([]byte, 0, size+padding(size)), content...), make([]byte, padding(size))...)
	for len(padded) > 0 {
		n := min(len(padded), FrameContent)
		sum(checksum(padded[:n]))
		dst = appendFrame(dst, padded[:n])
		padded = padded[n:]
	}
	return dst
}

// Create begins the file that will be called path, for the manifest whose canonical bytes are
// raw and whose layout is layout. All its space is reserved at once, so that a disk that is
// too small is known before the first byte moves (an error that wraps syscall.ENOSPC). What an
// earlier, killed writer left under the partial name is overwritten; ErrBusy if that writer
// still lives.
func Create(path string, raw []byte, layout *Layout) (*Writer, error) {
	if int64(len(raw)) != layout.manifestSize {
		return nil, fmt.Errorf("creating %q: manifest of %d bytes with a layout for %d", path, len(raw), layout.manifestSize)
	}
	f, err := openLocked(path + PartialSuffix)
	if err != nil {
		return nil, fmt.Errorf("creating %q: %w", path+PartialSuffix, err)
	}
	w := &Writer{file: f, path: path, layout: layout, sums: make([]uint32, layout.frames), done: make([]bool, len(layout.entries))}
	if err := w.begin(raw); err != nil {
		return nil, errors.Join(fmt.Errorf("creating %q: %w", path+PartialSuffix, err), w.Abort())
	}
	return w, nil
}

// maxOpens bounds how often openLocked finds that its file was taken away meanwhile.
const maxOpens = 100

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

func (w *Writer) begin(raw []byte) error {
	if err := w.file.Truncate(0); err != nil {
		return err
	}
	if err := reserve(w.file, w.layout.size); err != nil {
		return err
	}
	i := 0
	head := appendEntry(nil, manifest.EntryManifest, raw, func(s uint32) { w.sums[i] = s; i++ })
	head = append(head, skippable(magicGap, w.layout.gap)...)
	head = append(head, make([]byte, w.layout.gap)...)
	head = append(head, slots(blankSlot(), blankSlot())...)
	_, err := w.file.WriteAt(head, 0)
	return err
}

// WriteEntry reads the content of entry i from r and writes it to its place. It fails with
// *ContentError where r gives another size or digest than the manifest says; then, or after
// any other error, the entry may be written again. written is called with the number of bytes
// of content that have been written.
func (w *Writer) WriteEntry(ctx context.Context, i int, r io.Reader, written func(int64)) error {
	e := w.layout.entries[i]
	at, frame := w.layout.offsets[i], w.layout.frameIndex[i]
	put := func(content, buf []byte) error {
		sum := checksum(content)
		w.sums[frame] = sum
		frame++
		buf = appendSummed(buf[:0], content, sum)
		if _, err := w.file.WriteAt(buf, at); err != nil {
			return fmt.Errorf("writing %s: %w", e.Name, err)
		}
		at += int64(len(buf))
		return nil
	}
	largest := min(e.Size+padding(e.Size), FrameContent)
	buf := make([]byte, 0, frameSize(max(largest, tarBlock)))
	if err := put(tarHeader(e.Name, e.Size, typeRegular), buf); err != nil {
		return err
	}
	content := make([]byte, largest)
	h := sha256.New()
	for left := e.Size; left > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(left, FrameContent)
		got, err := io.ReadFull(r, content[:n])
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return &ContentError{e.Name, fmt.Sprintf("%d bytes", e.Size-left+int64(got)), fmt.Sprintf("%d bytes", e.Size)}
		}
		if err != nil {
			return err
		}
		h.Write(content[:n])
		padded := n + padding(n)
		clear(content[n:padded])
		if err := put(content[:padded], buf); err != nil {
			return err
		}
		left -= n
		written(n)
	}
	if err := atEOF(r, e); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != e.SHA256 {
		return &ContentError{e.Name, "sha256:" + got, "sha256:" + e.SHA256}
	}
	w.done[i] = true
	return nil
}

// atEOF reports content beyond the announced size.
func atEOF(r io.Reader, e manifest.Entry) error {
	var one [1]byte
	n, err := io.ReadFull(r, one[:])
	if n > 0 {
		return &ContentError{e.Name, fmt.Sprintf("more than %d bytes", e.Size), fmt.Sprintf("%d bytes", e.Size)}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// Commit writes the end of the file and the signatures (sigstore bundles; none for an
// unsigned file), makes all of it durable and gives it its final name. The signatures come
// last, so that a file that is not complete never holds a valid one. The Writer is used up;
// on an error the partial file is gone.
func (w *Writer) Commit(signatures [][]byte) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("finishing %q: %w", w.path, err), w.Abort())
		}
	}()
	for i, ok := range w.done {
		if !ok {
			return fmt.Errorf("entry %s was not written", w.layout.entries[i].Name)
		}
	}
	end := make([]byte, 2*tarBlock)
	w.sums[w.layout.frames-1] = checksum(end)
	tail := appendFrame(nil, end)
	tail = append(tail, w.layout.checkTable(w.sums)...)
	tail = append(tail, w.layout.seekTable()...)
	if _, err := w.file.WriteAt(tail, w.layout.end); err != nil {
		return err
	}
	slot, err := encodeSlot(signatures)
	if err != nil {
		return err
	}
	if err := w.file.Sync(); err != nil {
		return err
	}
	if _, err := w.file.WriteAt(appendFrame(nil, slot), w.layout.slots+skippableHeader); err != nil {
		return err
	}
	if err := w.file.Sync(); err != nil {
		return err
	}
	if info, err := w.file.Stat(); err != nil {
		return err
	} else if info.Size() != w.layout.size {
		return &SizeError{info.Size(), w.layout.size}
	}
	if err := os.Rename(w.path+PartialSuffix, w.path); err != nil {
		return err
	}
	// Closing gives up the lock, so it comes after the rename; all is on disk already, and
	// nothing that it could report would change that.
	_ = w.file.Close()
	w.file = nil
	return syncDir(filepath.Dir(w.path))
}

// Abort removes the partial file. It does nothing after Commit or Abort.
func (w *Writer) Abort() error {
	if w.file == nil {
		return nil
	}
	f := w.file
	w.file = nil
	err := os.Remove(w.path + PartialSuffix)
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, f.Close())
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
