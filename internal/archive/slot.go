package archive

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sort"
	"sync"
)

const (
	signaturePrefix = "signatures/"
	signatureSuffix = ".sigstore.json"
	padName         = "pad"
	// s1B is the size that S1 announces when slot B is the active one: slot A and the header
	// of S2 are skipped.
	s1B = 65561
)

// ErrSlotFull is returned where signatures do not fit into a slot.
var ErrSlotFull = errors.New("signatures do not fit into the 64 KiB of a signature slot")

// Signature is a sigstore bundle from a signature slot or from beside the file. Its body is
// foreign bytes until a verifier has accepted it.
type Signature struct {
	Name string
	Body []byte
}

// SignatureName is the name of the entry that holds body.
func SignatureName(body []byte) string {
	sum := sha256.Sum256(body)
	return signaturePrefix + hex.EncodeToString(sum[:])[:32] + signatureSuffix
}

// encodeSlot returns the content of a slot that holds the signatures, in the order of their
// names.
func encodeSlot(bodies [][]byte) ([]byte, error) {
	sigs := make([]Signature, 0, len(bodies))
	for _, b := range bodies {
		sigs = append(sigs, Signature{SignatureName(b), b})
	}
	sort.Slice(sigs, func(i, j int) bool { return sigs[i].Name < sigs[j].Name })
	c := make([]byte, 0, slotContent)
	for i, s := range sigs {
		if i > 0 && sigs[i-1].Name == s.Name {
			continue
		}
		size := int64(len(s.Body))
		if int64(len(c))+tarBlock+size+padding(size)+2*tarBlock > slotContent {
			return nil, ErrSlotFull
		}
		c = append(c, tarHeader(s.Name, size, typeRegular)...)
		c = append(c, s.Body...)
		c = append(c, make([]byte, padding(size))...)
	}
	rest := slotContent - len(c) - tarBlock
	c = append(c, tarHeader(padName, int64(rest), typeGlobal)...)
	return append(c, padRecord(rest)...), nil
}

// blankSlot is the content of a slot without signatures.
var blankSlot = sync.OnceValue(func() []byte {
	c, err := encodeSlot(nil)
	if err != nil {
		panic(err) // nothing always fits
	}
	return c
})

// padRecord is a PAX record of n bytes that says nothing.
func padRecord(n int) []byte {
	r := append(make([]byte, 0, n), padStart(n)...)
	r = append(r, spaces[:n-len(r)-1]...)
	return append(r, '\n')
}

func padStart(n int) []byte { return fmt.Appendf(nil, "%d comment=", n) }

var spaces = bytes.Repeat([]byte(" "), slotContent)

// decodeSlot reads the content of a slot. It accepts only what encodeSlot writes.
func decodeSlot(c []byte) ([]Signature, error) {
	var sigs []Signature
	at := 0
	for {
		if len(c)-at < 2*tarBlock {
			return nil, errors.New("signature slot without its end")
		}
		name, size, kind, ok := parseTarHeader(c[at : at+tarBlock])
		if !ok {
			return nil, fmt.Errorf("malformed header at byte %d of a signature slot", at)
		}
		at += tarBlock
		if name == padName && kind == typeGlobal {
			break
		}
		if size > int64(len(c)-at) || !allZero(c[at+int(size):min(at+int(size+padding(size)), len(c))]) {
			return nil, fmt.Errorf("signature %q of %d bytes does not fit, or its padding is not zero", name, size)
		}
		body := c[at : at+int(size)]
		if kind != typeRegular || name != SignatureName(body) {
			return nil, fmt.Errorf("entry %q of a signature slot has another content than its name says", name)
		}
		if len(sigs) > 0 && sigs[len(sigs)-1].Name >= name {
			return nil, errors.New("entries of a signature slot are not in the order of their names")
		}
		sigs = append(sigs, Signature{name, bytes.Clone(body)})
		at += int(size + padding(size))
	}
	rest := c[at:]
	start := padStart(len(rest))
	if !bytes.Equal(c[at-tarBlock:at], tarHeader(padName, int64(len(rest)), typeGlobal)) || !bytes.HasPrefix(rest, start) ||
		rest[len(rest)-1] != '\n' || !bytes.Equal(rest[len(start):len(rest)-1], spaces[:len(rest)-len(start)-1]) {
		return nil, errors.New("the end of a signature slot is not in its canonical form")
	}
	return sigs, nil
}

// slots returns S1, slot A, S2 and slot B, with A active.
func slots(a, b []byte) []byte {
	out := make([]byte, 0, slotsSize)
	out = append(out, skippable(magicSlot1, 0)...)
	out = appendFrame(out, a)
	out = append(out, skippable(magicSlot2, frameSize(slotContent))...)
	return appendFrame(out, b)
}
