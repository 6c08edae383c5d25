package archive

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/sealift/sealift/manifest"
)

const (
	typeRegular = '0'
	typeGlobal  = 'g'
	// maxOctal is the least size that the eleven octal digits of ustar cannot say. From there
	// on GNU's base-256 form is used; busybox takes a PAX size for 0.
	maxOctal = 1 << 33
)

// tarHeader is the one header of an entry: ustar, all that could vary fixed.
func tarHeader(name string, size int64, kind byte) []byte {
	h := make([]byte, tarBlock)
	copy(h, name)
	copy(h[100:], "0000644\x00")
	copy(h[108:], "0000000\x00")
	copy(h[116:], "0000000\x00")
	if size < maxOctal {
		copy(h[124:], fmt.Sprintf("%011o\x00", size))
	} else {
		h[124] = 0x80
		binary.BigEndian.PutUint64(h[128:], uint64(size))
	}
	copy(h[136:], "00000000000\x00")
	copy(h[148:], "        ")
	h[156] = kind
	copy(h[257:], "ustar\x0000")
	sum := 0
	for _, b := range h {
		sum += int(b)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return h
}

// parseTarHeader returns name, size and type of a header, if it is the one that tarHeader
// makes for them.
func parseTarHeader(h []byte) (name string, size int64, kind byte, ok bool) {
	end := bytes.IndexByte(h[:100], 0)
	if end < 0 {
		end = 100
	}
	name = string(h[:end])
	if h[124] == 0x80 {
		u := binary.BigEndian.Uint64(h[128:])
		if u > 1<<62 {
			return "", 0, 0, false
		}
		size = int64(u)
	} else {
		n, err := strconv.ParseUint(string(h[124:135]), 8, 63)
		if err != nil {
			return "", 0, 0, false
		}
		size = int64(n)
	}
	kind = h[156]
	return name, size, kind, bytes.Equal(h, tarHeader(name, size, kind))
}

// padding is how many zeros follow size bytes in a tar.
func padding(size int64) int64 { return -size & (tarBlock - 1) }

// frameManifest returns the frames of the manifest's entry and hands their checksums to sum.
func frameManifest(content []byte, sum func(uint32)) []byte {
	size := int64(len(content))
	header := tarHeader(manifest.EntryManifest, size, typeRegular)
	sum(checksum(header))
	dst := appendFrame(nil, header)
	padded := append(append(make([]byte, 0, size+padding(size)), content...), make([]byte, padding(size))...)
	for len(padded) > 0 {
		n := min(len(padded), FrameContent)
		sum(checksum(padded[:n]))
		dst = appendFrame(dst, padded[:n])
		padded = padded[n:]
	}
	return dst
}
