package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// Resign changes what the signature slots of a bundle hold, without moving a byte of its payload:
// it writes the new content into the inactive slot, switches, and blanks the other one
// (docs/format.md, section 9.2). Wherever that is interrupted, the bundle opens with what it held
// or with what it was to hold; the next call clears what was left. change gets the head, in which
// nothing is proven, and returns the new content, or nil to leave the bundle as it is.
//
// If ctx ends before the first write, nothing is changed; from there on Resign goes on to the end.
//
// Errors: ErrBusy where another process writes the bundle; those of opening and writing, so that
// syscall.EROFS and fs.ErrPermission can be told; those of ReadHead; ErrSlotFull, or ErrLimit, for
// a content that no slot can hold; *WrittenError where the file does not give back what was
// written; those of change. All but the first write's and later ones leave the bundle untouched.
func Resign(ctx context.Context, files *Files, change func(h *Head) (*SlotContent, error)) error {
	path, err := files.first()
	if err == nil {
		err = resignFile(ctx, path, change)
	}
	if err != nil {
		return fmt.Errorf("signing %q: %w", files.Name, err)
	}
	return nil
}

func resignFile(ctx context.Context, path string, change func(h *Head) (*SlotContent, error)) (err error) {
	f, size, err := openInPlace(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	// The slots lie in this file alone, and it is read by the same handle that has the lock.
	r := &resigning{file: f, path: path, reopen: func() (Source, error) {
		dropCache(f)
		return OpenFile(path)
	}}
	return r.run(ctx, NewSource(f, size), change)
}

// openInPlace opens the regular file at path, which stays where it is, for reading and writing,
// and takes it for this process.
func openInPlace(path string) (_ *os.File, size int64, err error) {
	for range maxOpens {
		// Looked at before it is opened, as in OpenRegular.
		if info, err := os.Stat(path); err != nil {
			return nil, 0, err
		} else if !info.Mode().IsRegular() {
			return nil, 0, fmt.Errorf("%q: %w: %w", path, ErrNotBundle, errNotRegular)
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return nil, 0, err
		}
		if err := lock(f); err != nil {
			return nil, 0, errors.Join(err, f.Close())
		}
		mine, err := f.Stat()
		if err != nil {
			return nil, 0, errors.Join(err, f.Close())
		}
		// A pack may have put another file in its place before the lock was had.
		if there, err := os.Stat(path); err == nil && mine.Mode().IsRegular() && os.SameFile(mine, there) {
			return f, mine.Size(), nil
		}
		if err := f.Close(); err != nil {
			return nil, 0, err
		}
	}
	return nil, 0, ErrBusy
}

// slotFile is the part of *os.File that changing slots needs.
type slotFile interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// resigning changes the slots of one file.
type resigning struct {
	file slotFile
	path string
	// reopen opens the file anew, to see what is really there.
	reopen func() (Source, error)
	// head as it was read; slots as they must be by now.
	head  *Head
	slots []byte
}

func (r *resigning) run(ctx context.Context, src Source, change func(h *Head) (*SlotContent, error)) (err error) {
	if r.head, err = ReadHead(src); err != nil {
		return err
	}
	c, err := change(r.head)
	if err != nil || c == nil {
		return err
	}
	content, err := encodeSlot(*c)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	r.slots = bytes.Clone(r.head.slots)
	from, to := r.head.active, 1-r.head.active
	if err := r.write(slotOffset(to), appendFrame(nil, content)); err != nil {
		return err
	}
	// The switch must not lead to what cannot be read.
	if err := r.readBack(); err != nil {
		return err
	}
	const size = skippableHeader / 2
	if err := r.write(size, slotSwitch(to)[size:]); err != nil {
		return err
	}
	if err := r.write(slotOffset(from), appendFrame(nil, blankSlot())); err != nil {
		return err
	}
	return r.readBack()
}

// write writes p at an offset in the slots and waits until it is on the disk: no step may
// overtake the one before it.
func (r *resigning) write(off int64, p []byte) error {
	if _, err := r.file.WriteAt(p, r.head.slotsOffset()+off); err != nil {
		return err
	}
	copy(r.slots[off:], p)
	return r.file.Sync()
}

// readBack opens the file anew and compares its head with what it must be.
func (r *resigning) readBack() error {
	src, err := r.reopen()
	if err != nil {
		return &WrittenError{r.path, err}
	}
	h, err := ReadHead(src)
	if err == nil && (!bytes.Equal(h.Manifest, r.head.Manifest) || h.gap != r.head.gap || !bytes.Equal(h.slots, r.slots)) {
		err = errOtherSlots
	}
	if err = errors.Join(err, src.Close()); err != nil {
		return &WrittenError{r.path, err}
	}
	return nil
}
