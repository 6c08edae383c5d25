package archive

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sealift/sealift/manifest"
)

// MaxFile bounds the size of a bundle file, in bytes.
const MaxFile = 1 << 46

const (
	slotContent = 1 << 16
	// slotsSize is S1, slot A, S2 and slot B together.
	slotsSize = 2 * (skippableHeader + 65553)
	alignment = 4096
)

// ErrLimit is wrapped where sizes are beyond what format 1 allows.
var ErrLimit = errors.New("beyond the limits of the format")

// isEntryName reports whether name is of the closed list of names that entries may have.
func isEntryName(name string) bool {
	if name == manifest.EntryOCILayout || name == manifest.EntryIndex {
		return true
	}
	digest, ok := strings.CutPrefix(strings.TrimSuffix(name, manifest.ZstdSuffix), manifest.BlobPrefix)
	return ok && manifest.CheckDigest("sha256:"+digest) == nil
}

// Layout is where everything lies in a bundle file. It follows from the size of the manifest,
// its head and its entries alone.
type Layout struct {
	manifestSize int64
	gap          int64
	slots        int64
	entries      []manifest.Entry
	offsets      []int64 // of each entry's header frame
	frameIndex   []int   // of each entry's header frame, among the listed frames
	end          int64   // of the end frame
	frames       int     // listed frames: all up to and with the end frame
	size         int64
}

// entrySize is E(s): the size in the file of an entry of s bytes, header included.
func entrySize(s int64) int64 {
	p := s + padding(s)
	n := frameSize(tarBlock) + p/FrameContent*frameSize(FrameContent)
	if rest := p % FrameContent; rest > 0 {
		n += frameSize(rest)
	}
	return n
}

// entryFrames is how many frames an entry of s bytes takes.
func entryFrames(s int64) int {
	p := s + padding(s)
	return 1 + int((p+FrameContent-1)/FrameContent)
}

// NewLayout computes the layout of a file whose manifest has manifestSize bytes and asks for
// head and entries. Its errors wrap ErrLimit.
func NewLayout(manifestSize, head int64, entries []manifest.Entry) (*Layout, error) {
	if manifestSize <= 0 || manifestSize > manifest.MaxManifestBytes {
		return nil, fmt.Errorf("manifest of %d bytes, 1 to %d are allowed: %w", manifestSize, int64(manifest.MaxManifestBytes), ErrLimit)
	}
	if len(entries) > manifest.MaxEntries {
		return nil, fmt.Errorf("%d entries, at most %d are allowed: %w", len(entries), manifest.MaxEntries, ErrLimit)
	}
	l := &Layout{manifestSize: manifestSize, entries: entries}
	after := entrySize(manifestSize) + skippableHeader
	if head == 0 {
		l.gap = -after & (alignment - 1)
	} else {
		l.gap = head - after
		if l.gap < 0 || head%alignment != 0 || head > manifest.MaxHead {
			return nil, fmt.Errorf("head %d for a manifest that takes %d bytes: %w", head, after, ErrLimit)
		}
	}
	l.slots = after + l.gap
	at := l.slots + slotsSize
	l.frames = entryFrames(manifestSize) + 2
	for _, e := range entries {
		if e.Size < 0 || e.Size > manifest.MaxEntryBytes || !isEntryName(e.Name) {
			return nil, fmt.Errorf("entry %q of %d bytes: %w", e.Name, e.Size, ErrLimit)
		}
		l.offsets = append(l.offsets, at)
		l.frameIndex = append(l.frameIndex, l.frames)
		at += entrySize(e.Size)
		l.frames += entryFrames(e.Size)
		if at > MaxFile {
			return nil, fmt.Errorf("file of more than %d bytes: %w", int64(MaxFile), ErrLimit)
		}
	}
	l.end = at
	l.frames++
	at += frameSize(2 * tarBlock)
	l.size = at + l.checkSize() + l.seekSize()
	return l, nil
}

// frameAfter finds the first frame after the slots that begins at or after from: where it
// begins and how much content it has.
func (l *Layout) frameAfter(from int64) (at, content int64, ok bool) {
	i, _ := slices.BinarySearch(l.offsets, from)
	if i > 0 {
		// It may be one of the content of the entry that begins before from.
		body, padded := l.offsets[i-1]+frameSize(tarBlock), l.entries[i-1].Size+padding(l.entries[i-1].Size)
		j := max(0, (from-body+frameSize(FrameContent)-1)/frameSize(FrameContent))
		if j*FrameContent < padded {
			return body + j*frameSize(FrameContent), min(FrameContent, padded-j*FrameContent), true
		}
	}
	if i < len(l.offsets) {
		return l.offsets[i], tarBlock, true
	}
	return l.end, 2 * tarBlock, from <= l.end
}

// Size is the size of the whole file in bytes.
func (l *Layout) Size() int64 { return l.size }

// Head is the offset of the signature slots, where the part of fixed size begins.
func (l *Layout) Head() int64 { return l.slots }

// SlotsSize is the size of both signature slots with what is around them, in bytes.
const SlotsSize = slotsSize

// HeadFor is where the slots of a file can lie whose manifest is not known yet, but has at most
// manifestSize bytes.
func HeadFor(manifestSize int64) int64 {
	return (entrySize(manifestSize) + skippableHeader + alignment - 1) &^ (alignment - 1)
}

// Entries are the entries after the slots, in order.
func (l *Layout) Entries() []manifest.Entry { return l.entries }

func (l *Layout) checkSize() int64 { return skippableHeader + 4*int64(l.frames) }
func (l *Layout) seekSize() int64  { return skippableHeader + 8*int64(l.frames) + 9 }
func (l *Layout) checkOffset() int64 {
	return l.end + frameSize(2*tarBlock)
}

// seekTable is the table of the zstd seekable format (flags 0), for other tools. Ours never
// reads it, but compares it.
func (l *Layout) seekTable() []byte {
	b := make([]byte, 0, l.seekSize())
	b = append(b, skippable(magicSeek, l.seekSize()-skippableHeader)...)
	add := func(compressed, content int64) {
		b = binary.LittleEndian.AppendUint32(b, uint32(compressed))
		b = binary.LittleEndian.AppendUint32(b, uint32(content))
	}
	entry := func(size int64) {
		add(frameSize(tarBlock), tarBlock)
		for rest := size + padding(size); rest > 0; {
			n := min(rest, FrameContent)
			add(frameSize(n), n)
			rest -= n
		}
	}
	entry(l.manifestSize)
	add(skippableHeader+l.gap, 0)
	add(slotsSize, slotContent)
	for _, e := range l.entries {
		entry(e.Size)
	}
	add(frameSize(2*tarBlock), 2*tarBlock)
	b = binary.LittleEndian.AppendUint32(b, uint32(l.frames))
	b = append(b, 0)
	return binary.LittleEndian.AppendUint32(b, seekFooter)
}

// checkTable is the table of the content checksums of all listed frames.
func (l *Layout) checkTable(sums []uint32) []byte {
	b := make([]byte, 0, l.checkSize())
	b = append(b, skippable(magicCheck, l.checkSize()-skippableHeader)...)
	for _, s := range sums {
		b = binary.LittleEndian.AppendUint32(b, s)
	}
	return b
}
