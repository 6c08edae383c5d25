package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
)

// Copy writes the bytes of a bundle to other files: cut into volumes, or joined.
type Copy struct {
	out    *output
	path   string
	layout *Layout
	// slots as they were copied: nothing else tells what they must be.
	slots []byte
}

// NewCopy opens the files of a copy under partial names and reserves their space. Errors as those
// of NewWriter.
func NewCopy(path string, volume int64, layout *Layout, beside int64) (*Copy, error) {
	if err := checkVolume(volume, layout.slots, layout.size); err != nil {
		return nil, err
	}
	// What an unfinished pack has left under these names is worth more than a copy.
	if j, err := ReadJournal(path); err != nil || j != nil {
		return nil, errors.Join(err, fmt.Errorf("copying to %q: an unfinished pack has left its files there: %w", path, ErrBusy))
	}
	out, err := openOutput(path, volume, layout.size, false)
	if err != nil {
		return nil, err
	}
	if err = out.clear(); err == nil {
		err = out.reserve(layout.size, beside)
	}
	if err != nil {
		return nil, errors.Join(err, out.remove(), out.close())
	}
	return &Copy{out: out, path: path, layout: layout}, nil
}

// copyPiece is how much is copied at a time.
const copyPiece = 1 << 20

// Copy copies everything; done is told how many bytes.
func (c *Copy) Copy(ctx context.Context, src Source, done func(int64)) error {
	buf := make([]byte, copyPiece)
	c.slots = make([]byte, slotsSize)
	for at := int64(0); at < c.layout.size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		piece := buf[:min(copyPiece, c.layout.size-at)]
		if err := readFull(src, piece, at, "copying"); err != nil {
			return err
		}
		if _, err := c.out.WriteAt(piece, at); err != nil {
			return fmt.Errorf("writing %q: %w", c.path, err)
		}
		if from, to := max(at, c.layout.slots), min(at+int64(len(piece)), c.layout.slots+slotsSize); from < to {
			copy(c.slots[from-c.layout.slots:], piece[from-at:to-at])
		}
		at += int64(len(piece))
		done(int64(len(piece)))
	}
	return c.out.durable()
}

// Prove reads the copy back and compares it with what the manifest, raw, makes of it.
func (c *Copy) Prove(ctx context.Context, raw []byte, done func(int64)) error {
	w := &Writer{out: c.out, plan: Plan{Path: c.path, Volume: c.out.volume}}
	r, src, err := w.reopen(SealOptions{Manifest: raw, Layout: c.layout})
	if err != nil {
		return err
	}
	for _, f := range c.out.files {
		dropCache(f)
	}
	err = r.Fit()
	if err == nil && !bytes.Equal(r.head.slots, c.slots) {
		err = damageAt(src, c.layout.slots, "signature slots", "differ from those that were copied")
	}
	if err == nil {
		err = r.Verify(ctx, done)
	}
	return errors.Join(err, src.Close())
}

// Source gives the bytes of the copy.
func (c *Copy) Source() io.ReaderAt { return c.out }

// Paths are the final names of the files.
func (c *Copy) Paths() []string { return c.out.finals() }

// Publish gives the files their final names.
func (c *Copy) Publish() error {
	if err := c.out.publish(); err != nil {
		return errors.Join(fmt.Errorf("finishing %q: %w", c.path, err), c.Discard())
	}
	_ = c.out.close()
	return nil
}

// Discard removes the files.
func (c *Copy) Discard() error { return errors.Join(c.out.remove(), c.out.close()) }
