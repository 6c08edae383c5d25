//go:build linux

package bench

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/sealift/sealift/manifest"
)

// The big bundle: 50 images of 4 layers, of which no two are the same, 10 GB together.
const (
	bigImages = 50
	bigLayers = 4
	bigLayer  = 50 * mb
)

// writeBig writes a signed bundle whose layers are zeros, which most file systems do not keep, and
// the public key that goes with it. It follows docs/format.md, and shares no code with the
// program. It returns the size of the file.
func writeBig(path, keyPath string) (size int64, err error) {
	m := &manifest.Manifest{
		MediaType: manifest.MediaType, Format: manifest.Format, Name: "big", Version: "1.0.0", Channel: manifest.DefaultChannel,
		Created: "2026-01-02T03:04:05Z", Platforms: []string{"linux/amd64"}, Charts: []manifest.Chart{},
	}
	var contents [][]byte // of the blobs; nil for zeros
	add := func(mediaType, digest string, size int64, content []byte) descriptor {
		m.Blobs = append(m.Blobs, manifest.Blob{Digest: digest, Size: size, MediaType: mediaType, Encoding: manifest.EncodingStored})
		contents = append(contents, content)
		return descriptor{MediaType: mediaType, Digest: digest, Size: size}
	}
	document := func(mediaType string, v any) (descriptor, error) {
		raw, err := json.Marshal(v)
		return add(mediaType, manifest.Digest(raw), int64(len(raw)), raw), err
	}
	hash, length := sha256.New(), int64(bigLayer)
	for range bigLayer / mb {
		hash.Write(zeros[:mb])
	}
	for i := range bigImages {
		var layers []descriptor
		var diffIDs []string
		for range bigLayers {
			hash.Write(zeros[:1000])
			length += 1000
			d := add(plainType, fmt.Sprintf("sha256:%x", hash.Sum(nil)), length, nil)
			layers, diffIDs = append(layers, d), append(diffIDs, d.Digest)
		}
		config, err := document(configType, map[string]any{
			"architecture": "amd64", "os": "linux", "config": map[string]any{}, "rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs},
		})
		if err != nil {
			return 0, err
		}
		d, err := document(manifestType, map[string]any{"schemaVersion": 2, "mediaType": manifestType, "config": config, "layers": layers})
		if err != nil {
			return 0, err
		}
		m.Images = append(m.Images, manifest.Image{
			Source: fmt.Sprintf("registry.example/big/image%d:1.0.0", i), Digest: d.Digest, MediaType: d.MediaType, Size: d.Size,
			Platforms: m.Platforms, Reasons: []manifest.Reason{{Kind: manifest.ReasonSpec}},
		})
	}
	index, err := manifest.OCIIndex(m)
	if err != nil {
		return 0, err
	}
	if err := manifest.Arrange(m, nil); err != nil {
		return 0, err
	}
	raw, err := manifest.Encode(m)
	if err != nil {
		return 0, err
	}
	signature, err := signAnew(raw, keyPath)
	if err != nil {
		return 0, err
	}
	f, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := &bundleWriter{f: f}
	w.head(raw, signature)
	for i, content := range append([][]byte{manifest.OCILayout(), index}, contents...) {
		w.entry(m.Entries[i].Name, m.Entries[i].Size, content)
	}
	w.tail()
	return w.at, w.err
}

// signAnew makes a key pair, writes the public key to a file, and returns a sigstore bundle over
// message.
func signAnew(message []byte, keyPath string) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(keyPath, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o644); err != nil {
		return nil, err
	}
	digest := sha256.Sum256(message)
	signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]any{
		"mediaType":            "application/vnd.dev.sigstore.bundle.v0.3+json",
		"verificationMaterial": map[string]any{"publicKey": map[string]any{"hint": "bench"}},
		"messageSignature": map[string]any{
			"messageDigest": map[string]any{"algorithm": "SHA2_256", "digest": digest[:]}, "signature": signature,
		},
	})
}

// Numbers of docs/format.md.
const (
	frameContent = 1 << 20
	blockContent = 128 << 10
	slotContent  = 64 << 10
	headAlign    = 4096
	slotsSize    = 131_122
)

// zeros are the content of a frame, and never written to.
var zeros = make([]byte, frameContent)

func padding(n int64) int64 { return -n & 511 }

// entrySize is E(s).
func entrySize(s int64) int64 {
	frame := func(n int64) int64 { return 14 + n + 3*((n+blockContent-1)/blockContent) }
	p := s + padding(s)
	size := frame(512) + p/frameContent*frame(frameContent)
	if p%frameContent > 0 {
		size += frame(p % frameContent)
	}
	return size
}

// headSize is the size of HEAD for a manifest of so many bytes that names no place for the slots.
func headSize(manifest int64) int64 {
	return (entrySize(manifest)+8+headAlign-1)/headAlign*headAlign + slotsSize
}

// bundleWriter writes a bundle file, and leaves out zeros where it can.
type bundleWriter struct {
	f    *os.File
	at   int64
	err  error
	sums []byte // the check table
	seek []byte // the seek table
}

func (w *bundleWriter) write(b []byte) {
	if _, err := w.f.WriteAt(b, w.at); err != nil && w.err == nil {
		w.err = err
	}
	w.at += int64(len(b))
}

func (w *bundleWriter) list(size, content int64, sum uint32) {
	w.sums = binary.LittleEndian.AppendUint32(w.sums, sum)
	w.seek = binary.LittleEndian.AppendUint32(w.seek, uint32(size))
	w.seek = binary.LittleEndian.AppendUint32(w.seek, uint32(content))
}

func skip(magic uint32, size int) []byte {
	return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, magic), uint32(size))
}

// fullZeros is the checksum of zeros, which is asked for again and again.
var fullZeros = uint32(xxhash.Sum64(zeros))

// frame writes a frame, of zeros if content begins with the first byte of zeros.
func (w *bundleWriter) frame(content []byte) (sum uint32) {
	hole := &content[0] == &zeros[0]
	if hole && len(content) == len(zeros) {
		sum = fullZeros
	} else {
		sum = uint32(xxhash.Sum64(content))
	}
	w.write(binary.LittleEndian.AppendUint32([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x84, 0x38}, uint32(len(content))))
	for len(content) > 0 {
		n := min(len(content), blockContent)
		header := uint32(n) << 3
		if n == len(content) {
			header |= 1
		}
		w.write([]byte{byte(header), byte(header >> 8), byte(header >> 16)})
		if hole {
			w.at += int64(n)
		} else {
			w.write(content[:n])
		}
		content = content[n:]
	}
	w.write(binary.LittleEndian.AppendUint32(nil, sum))
	return sum
}

// listed is frame for those that are in the tables.
func (w *bundleWriter) listed(content []byte) {
	begin := w.at
	sum := w.frame(content)
	w.list(w.at-begin, int64(len(content)), sum)
}

func tarHeader(name string, size int, kind byte) []byte {
	b := make([]byte, 512)
	copy(b, name)
	copy(b[100:], "0000644\x000000000\x000000000")
	copy(b[124:], fmt.Sprintf("%011o\x0000000000000", size))
	copy(b[148:], "        ")
	b[156] = kind
	copy(b[257:], "ustar\x0000")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

// entry writes a file of the tar; without content, its size in zeros.
func (w *bundleWriter) entry(name string, size int64, content []byte) {
	w.listed(tarHeader(name, int(size), '0'))
	rest := size + padding(size)
	padded := slices.Concat(content, zeros[:padding(size)])
	for rest > 0 {
		n := min(rest, frameContent)
		if content == nil {
			w.listed(zeros[:n])
		} else {
			w.listed(padded[:n])
			padded = padded[n:]
		}
		rest -= n
	}
}

func (w *bundleWriter) head(raw, signature []byte) {
	w.entry(manifest.EntryManifest, int64(len(raw)), raw)
	gap := headSize(int64(len(raw))) - slotsSize - w.at - 8
	w.write(skip(0x184D2A50, int(gap)))
	w.at += gap
	w.list(8+gap, 0, 0)

	slot := func(signatures ...[]byte) []byte {
		var b []byte
		for _, s := range signatures {
			sum := sha256.Sum256(s)
			b = append(b, tarHeader(fmt.Sprintf("signatures/%x.sigstore.json", sum[:16]), len(s), '0')...)
			b = append(append(b, s...), zeros[:padding(int64(len(s)))]...)
		}
		n := slotContent - len(b) - 512
		b = append(b, tarHeader("pad", n, 'g')...)
		return append(b, fmt.Sprintf("%d comment=%*s\n", n, n-len(fmt.Sprint(n))-len(" comment=")-1, "")...)
	}
	w.write(skip(0x184D2A51, 0))
	w.frame(slot(signature))
	w.write(skip(0x184D2A52, 14+3+slotContent))
	w.frame(slot())
	w.list(slotsSize, slotContent, 0)
}

func (w *bundleWriter) tail() {
	w.listed(make([]byte, 1024))
	w.write(skip(0x184D2A5B, len(w.sums)))
	w.write(w.sums)
	count := uint32(len(w.sums) / 4)
	w.seek = binary.LittleEndian.AppendUint32(w.seek, count)
	w.seek = append(w.seek, 0, 0xb1, 0xea, 0x92, 0x8f)
	w.write(skip(0x184D2A5E, len(w.seek)))
	w.write(w.seek)
}
