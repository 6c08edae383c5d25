package archive

import (
	"bytes"
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
)

// Sizes of the framing, in bytes. docs/format.md names them; all are frozen by format 1.
const (
	// FrameContent is the most content that one frame holds.
	FrameContent = 1 << 20
	blockContent = 1 << 17
	frameHeader  = 10 // magic, descriptor, window, content size
	blockHeader  = 3
	frameTrailer = 4 // low half of XXH64

	skippableHeader = 8
	tarBlock        = 512
)

// frameStart is what every data frame begins with: the zstd magic (RFC 8878), a descriptor
// that announces a 4-byte content size and a checksum, and a window of 128 KiB.
var frameStart = []byte{0x28, 0xB5, 0x2F, 0xFD, 0x84, 0x38}

// Magic numbers of the skippable frames, little-endian in the file.
const (
	magicGap   = 0x184D2A50
	magicSlot1 = 0x184D2A51
	magicSlot2 = 0x184D2A52
	magicCheck = 0x184D2A5B
	magicSeek  = 0x184D2A5E
	seekFooter = 0x8F92EAB1
)

// frameSize is R(n): the size of the frame that holds n bytes, 1 <= n <= FrameContent.
func frameSize(n int64) int64 {
	return frameHeader + frameTrailer + n + blockHeader*((n+blockContent-1)/blockContent)
}

// checksum is the content checksum of a frame.
func checksum(content []byte) uint32 { return uint32(xxhash.Sum64(content)) }

// appendFrame appends the one frame that holds content, raw blocks only.
func appendFrame(dst, content []byte) []byte {
	return appendSummed(dst, content, checksum(content))
}

// appendSummed is appendFrame where the checksum of content is known already.
func appendSummed(dst, content []byte, sum uint32) []byte {
	dst = append(dst, frameStart...)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(content)))
	for len(content) > 0 {
		n := min(len(content), blockContent)
		dst = appendBlockHeader(dst, n, n == len(content))
		dst = append(dst, content[:n]...)
		content = content[n:]
	}
	return binary.LittleEndian.AppendUint32(dst, sum)
}

func appendBlockHeader(dst []byte, n int, last bool) []byte {
	h := uint32(n) << 3
	if last {
		h |= 1
	}
	return append(dst, byte(h), byte(h>>8), byte(h>>16))
}

// openFrame checks that frame is the one encoding of n bytes of content and returns the
// content, which overwrites frame, and its checksum. bad is the offset in frame of the first
// piece of framing that is not what it must be; where it is negative all is well.
func openFrame(frame []byte, n int) (content []byte, sum uint32, bad int) {
	if !bytes.Equal(frame[:len(frameStart)], frameStart) {
		return nil, 0, 0
	}
	if binary.LittleEndian.Uint32(frame[len(frameStart):]) != uint32(n) {
		return nil, 0, len(frameStart)
	}
	// All is compared before anything is moved: a damaged frame costs little.
	var hash xxhash.Digest
	hash.Reset()
	in := frameHeader
	for left := n; left > 0; {
		c := min(left, blockContent)
		var want [blockHeader]byte
		appendBlockHeader(want[:0], c, c == left)
		if !bytes.Equal(frame[in:in+blockHeader], want[:]) {
			return nil, 0, in
		}
		in += blockHeader
		_, _ = hash.Write(frame[in : in+c]) // never fails
		in += c
		left -= c
	}
	sum = uint32(hash.Sum64())
	if binary.LittleEndian.Uint32(frame[in:]) != sum {
		return nil, 0, in
	}
	out := 0
	for in = frameHeader + blockHeader; out < n; in += blockContent + blockHeader {
		out += copy(frame[out:n], frame[in:min(in+blockContent, len(frame)-frameTrailer)])
	}
	return frame[:n], sum, -1
}

func skippable(magic uint32, size int64) []byte {
	b := binary.LittleEndian.AppendUint32(nil, magic)
	return binary.LittleEndian.AppendUint32(b, uint32(size))
}

// closeFrame completes the frame of n bytes of content, of which the first filled ones are in
// their places already: it clears the rest, writes header, block headers and checksum, and
// returns the checksum.
func closeFrame(frame []byte, n, filled int) uint32 {
	copy(frame, frameStart)
	binary.LittleEndian.PutUint32(frame[len(frameStart):], uint32(n))
	var hash xxhash.Digest
	hash.Reset()
	at := frameHeader
	for begin := 0; begin < n; begin += blockContent {
		c := min(n-begin, blockContent)
		appendBlockHeader(frame[:at], c, begin+c == n)
		at += blockHeader
		clear(frame[at+min(c, max(0, filled-begin)) : at+c])
		_, _ = hash.Write(frame[at : at+c]) // never fails
		at += c
	}
	sum := uint32(hash.Sum64())
	binary.LittleEndian.PutUint32(frame[at:], sum)
	return sum
}
