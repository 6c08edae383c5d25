package archive

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/sealift/sealift/manifest"
)

// Head is what lies before the payload, read once into memory. Nothing in it is proven.
type Head struct {
	// Manifest is the content of sealift.json, the bytes that are signed.
	Manifest []byte
	// Signatures and Trust are what the active slot holds, each in its order.
	Signatures []Signature
	Trust      []Trust
	gap        int64
	slots      []byte
	// active is 0 where that is slot A, 1 where it is slot B.
	active int
}

// ReadHead reads the manifest's bytes and the signature slots. It believes nothing but their
// framing. Errors: ErrNotBundle, *DamageError, *VolumesError where another volume is the first
// one, or what reading gave.
func ReadHead(src Source) (*Head, error) {
	first := frameSize(tarBlock)
	buf := make([]byte, first)
	if n, err := src.ReadAt(buf, 0); n < len(buf) {
		if err == nil || errors.Is(err, io.EOF) {
			return nil, noHead(src)
		}
		return nil, fmt.Errorf("reading %s: %w", manifest.EntryManifest, err)
	}
	header, _, bad := openFrame(buf, tarBlock)
	if bad >= 0 {
		return nil, noHead(src)
	}
	name, n, kind, ok := parseTarHeader(header)
	if !ok || name != manifest.EntryManifest || kind != typeRegular {
		return nil, noHead(src)
	}
	if n == 0 || n > manifest.MaxManifestBytes {
		return nil, fmt.Errorf("manifest of %d bytes, 1 to %d are allowed: %w", n, int64(manifest.MaxManifestBytes), ErrLimit)
	}
	h := &Head{Manifest: make([]byte, 0, min(n, FrameContent))}
	at, rest := first, n+padding(n)
	for rest > 0 {
		c := min(rest, FrameContent)
		frame := make([]byte, frameSize(c))
		if err := readFull(src, frame, at, manifest.EntryManifest); err != nil {
			return nil, err
		}
		content, _, bad := openFrame(frame, int(c))
		if bad >= 0 {
			return nil, damageAt(src, at+int64(bad), manifest.EntryManifest, errFraming)
		}
		h.Manifest = append(h.Manifest, content...)
		at += frameSize(c)
		rest -= c
	}
	if !allZero(h.Manifest[n:]) {
		return nil, damageAt(src, at, manifest.EntryManifest, "padding is not zero")
	}
	h.Manifest = h.Manifest[:n:n]
	if err := h.readGap(src, at); err != nil {
		return nil, err
	}
	if err := h.readSlots(src, at+skippableHeader+h.gap); err != nil {
		return nil, err
	}
	return h, nil
}

// noHead says that a file does not begin as a bundle does. Where it is in volumes, another one
// may, which then has the first one's place.
func noHead(src Source) error {
	v, ok := src.(*volumeSource)
	if !ok {
		return ErrNotBundle
	}
	first := make([]byte, frameSize(tarBlock))
	for i := range v.files {
		f := &v.files[i]
		if f.file == nil {
			continue
		}
		if _, err := f.file.ReadAt(first, 0); err != nil {
			continue
		}
		header, _, bad := openFrame(first, tarBlock)
		if bad >= 0 {
			continue
		}
		if name, _, _, ok := parseTarHeader(header); ok && name == manifest.EntryManifest && i > 0 {
			return &VolumesError{Count: len(v.files), Problems: []VolumeProblem{
				{Number: 1, Path: v.files[0].path, Kind: VolumeSwapped, Is: i + 1},
				{Number: i + 1, Path: f.path, Kind: VolumeSwapped, Is: 1},
			}}
		}
	}
	return fmt.Errorf("%q: %w", v.files[0].path, ErrNotBundle)
}

func (h *Head) readGap(src Source, at int64) error {
	var b [skippableHeader]byte
	if err := readFull(src, b[:], at, "gap"); err != nil {
		return err
	}
	h.gap = int64(binary.LittleEndian.Uint32(b[4:]))
	if binary.LittleEndian.Uint32(b[:]) != magicGap || h.gap > manifest.MaxHead {
		return damageAt(src, at, "gap", "header")
	}
	zeros := make([]byte, h.gap)
	if err := readFull(src, zeros, at+skippableHeader, "gap"); err != nil {
		return err
	}
	if !allZero(zeros) {
		return damageAt(src, at, "gap", "is not zero")
	}
	return nil
}

func (h *Head) readSlots(src Source, at int64) error {
	h.slots = make([]byte, slotsSize)
	if err := readFull(src, h.slots, at, "signature slots"); err != nil {
		return err
	}
	var err error
	if h.active, h.Signatures, h.Trust, err = readActive(h.slots); err != nil {
		return damageAt(src, at, "signature slots", err.Error())
	}
	return nil
}

// readActive reads what the active one of both slots holds. What is in the other one does not
// matter: a signer that was stopped may have left it in any state.
func readActive(s []byte) (active int, sigs []Signature, trust []Trust, err error) {
	if active, err = activeSlot(s); err != nil {
		return 0, nil, nil, err
	}
	content, err := slotAt(s, active)
	if err == nil {
		sigs, trust, err = decodeSlot(content)
	}
	return active, sigs, trust, err
}

// slotsOffset is where the slots begin in the file.
func (h *Head) slotsOffset() int64 {
	return entrySize(int64(len(h.Manifest))) + skippableHeader + h.gap
}

// Slot returns what the active slot holds, as Resign takes it.
func (h *Head) Slot() *SlotContent {
	c := &SlotContent{Trust: slices.Clone(h.Trust)}
	for _, s := range h.Signatures {
		c.Signatures = append(c.Signatures, s.Body)
	}
	return c
}

// Warnings says what is not as it should be in a bundle that is sound nevertheless: an inactive
// slot that is not blank. Nothing in it is used, and Resign clears it.
func (h *Head) Warnings() []string {
	other := 1 - h.active
	content, err := slotAt(h.slots, other)
	if err == nil && bytes.Equal(content, blankSlot()) {
		return nil
	}
	if err == nil {
		_, _, err = decodeSlot(content)
	}
	if err != nil {
		return []string{fmt.Sprintf("the inactive signature slot %c is damaged, or an interrupted signing left it half-written; nothing in it is used", 'A'+other)}
	}
	return []string{fmt.Sprintf("an interrupted signing left signatures in the inactive signature slot %c; they are not used", 'A'+other)}
}

// activeSlot returns 0 for slot A, 1 for slot B.
func activeSlot(s []byte) (int, error) {
	second := skippableHeader + int(frameSize(slotContent))
	if !bytes.Equal(s[second:second+skippableHeader], skippable(magicSlot2, frameSize(slotContent))) {
		return 0, errors.New("second header")
	}
	switch {
	case bytes.Equal(s[:skippableHeader], slotSwitch(0)):
		return 0, nil
	case bytes.Equal(s[:skippableHeader], slotSwitch(1)):
		return 1, nil
	}
	return 0, errors.New("first header")
}

// slotAt returns the content of slot 0 or 1, without changing s.
func slotAt(s []byte, i int) ([]byte, error) {
	start := slotOffset(i)
	frame := s[start : start+frameSize(slotContent)]
	// A slot is one block, so its content lies in one piece and nothing has to be moved.
	content := frame[frameHeader+blockHeader : len(frame)-frameTrailer]
	begin := binary.LittleEndian.AppendUint32(bytes.Clone(frameStart), slotContent)
	begin = appendBlockHeader(begin, slotContent, true)
	if !bytes.HasPrefix(frame, begin) || binary.LittleEndian.Uint32(frame[len(frame)-frameTrailer:]) != checksum(content) {
		return nil, fmt.Errorf("frame of slot %c", 'A'+i)
	}
	return content, nil
}
