package archive

import (
	"context"
	"io"
)

// For tests of the slots alone, and of signing on media that fail.
var (
	EncodeSlot = encodeSlot
	BlankSlot  = blankSlot
)

// DecodeSlot is decodeSlot with its results as they are encoded.
func DecodeSlot(c []byte) (SlotContent, error) {
	sigs, trust, err := decodeSlot(c)
	o := SlotContent{Trust: trust}
	for _, s := range sigs {
		o.Signatures = append(o.Signatures, s.Body)
	}
	return o, err
}

// SlotFile is what Resign needs of a file.
type SlotFile = slotFile

// ResignOn is Resign on a file of size bytes that reopen opens anew.
func ResignOn(ctx context.Context, f SlotFile, size int64, reopen func() io.ReaderAt, change func(h *Head) (*SlotContent, error)) error {
	r := &resigning{file: f, path: "f", reopen: func() (Source, error) { return NewSource(reopen(), size), nil }}
	return r.run(ctx, NewSource(f, size), change)
}
