package archive

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
)

const (
	signaturePrefix = "signatures/"
	signatureSuffix = ".sigstore.json"
	trustPrefix     = "trust/"
	trustSuffix     = ".root.json"
	padName         = "pad"
	// s1B is the size that S1 announces when slot B is the active one: slot A and the header
	// of S2 are skipped.
	s1B = 65561
	// maxTrustNumber is the last number that a trust entry can have.
	maxTrustNumber = 1 << 31
)

// MaxTrust is the most bytes that one trust entry may have.
const MaxTrust = 32 << 10

// ErrSlotFull is returned where signatures and trust entries do not fit into a slot.
var ErrSlotFull = errors.New("signatures and trust entries do not fit into the 64 KiB of a signature slot")

// Signature is a sigstore bundle from a signature slot or from beside the file. Its body is
// foreign bytes until a verifier has accepted it.
type Signature struct {
	Name string
	Body []byte
}

// Trust is a root document from a signature slot: the entry trust/NUMBER.root.json. It is foreign
// bytes until the root before it has proven it.
type Trust struct {
	// Number of the root, 1 to 2^31.
	Number int
	// Body has at most MaxTrust bytes.
	Body []byte
}

// SlotContent is what a signature slot holds.
type SlotContent struct {
	// Signatures are sigstore bundles, in any order; one that is there twice counts once.
	Signatures [][]byte
	// Trust entries, each with the number that follows the one before it.
	Trust []Trust
}

// SignatureName is the name of the entry that holds body.
func SignatureName(body []byte) string {
	sum := sha256.Sum256(body)
	return signaturePrefix + hex.EncodeToString(sum[:])[:32] + signatureSuffix
}

func trustName(number int) string { return trustPrefix + strconv.Itoa(number) + trustSuffix }

// trustNumber reads the number in the name of a trust entry.
func trustNumber(name string) (number int, ok bool) {
	digits, found := strings.CutPrefix(strings.TrimSuffix(name, trustSuffix), trustPrefix)
	n, err := strconv.Atoi(digits)
	return n, found && err == nil && n >= 1 && int64(n) <= maxTrustNumber && name == trustName(n)
}

// slotCost is how much of a slot an entry with this body takes.
func slotCost(body []byte) int { return tarBlock + len(body) + int(padding(int64(len(body)))) }

// slotRoom is what a slot has for entries: a pad is always there.
const slotRoom = slotContent - 2*tarBlock

// distinct returns the signatures in the order of their names, each once.
func distinct(bodies [][]byte) []Signature {
	sigs := make([]Signature, 0, len(bodies))
	for _, b := range bodies {
		sigs = append(sigs, Signature{SignatureName(b), b})
	}
	slices.SortFunc(sigs, func(a, b Signature) int { return strings.Compare(a.Name, b.Name) })
	return slices.CompactFunc(sigs, func(a, b Signature) bool { return a.Name == b.Name })
}

// FitTrust returns the longest run of the last (newest) of trust that fits into a slot beside the
// signatures and reserve bytes that are kept free for more of them. An entry takes 512 bytes and
// its body, padded to a multiple of 512.
func FitTrust(signatures [][]byte, reserve int, trust []Trust) []Trust {
	room := slotRoom - reserve
	for _, s := range distinct(signatures) {
		room -= slotCost(s.Body)
	}
	first := len(trust)
	for first > 0 && slotCost(trust[first-1].Body) <= room {
		first--
		room -= slotCost(trust[first].Body)
	}
	return trust[first:]
}

// encodeSlot returns the content of a slot: the signatures in the order of their names, then the
// trust entries. ErrSlotFull where that is too much; ErrLimit is wrapped where a trust entry is.
func encodeSlot(o SlotContent) ([]byte, error) {
	c := make([]byte, 0, slotContent)
	add := func(name string, body []byte) error {
		if len(c)+slotCost(body) > slotRoom {
			return ErrSlotFull
		}
		c = append(c, tarHeader(name, int64(len(body)), typeRegular)...)
		c = append(c, body...)
		c = append(c, make([]byte, padding(int64(len(body))))...)
		return nil
	}
	for _, s := range distinct(o.Signatures) {
		if err := add(s.Name, s.Body); err != nil {
			return nil, err
		}
	}
	for i, t := range o.Trust {
		switch {
		case t.Number < 1 || int64(t.Number) > maxTrustNumber:
			return nil, fmt.Errorf("trust entry %d, 1 to %d are allowed: %w", t.Number, int64(maxTrustNumber), ErrLimit)
		case len(t.Body) > MaxTrust:
			return nil, fmt.Errorf("trust entry %d of %d bytes, at most %d are allowed: %w", t.Number, len(t.Body), MaxTrust, ErrLimit)
		case i > 0 && t.Number != o.Trust[i-1].Number+1:
			return nil, fmt.Errorf("trust entry %d follows %d: %w", t.Number, o.Trust[i-1].Number, errTrustOrder)
		}
		if err := add(trustName(t.Number), t.Body); err != nil {
			return nil, err
		}
	}
	rest := slotContent - len(c) - tarBlock
	c = append(c, tarHeader(padName, int64(rest), typeGlobal)...)
	return append(c, padRecord(rest)...), nil
}

var errTrustOrder = errors.New("the numbers of trust entries must rise by one")

// blankSlot is the content of a slot without entries.
var blankSlot = sync.OnceValue(func() []byte {
	c, err := encodeSlot(SlotContent{})
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
func decodeSlot(c []byte) ([]Signature, []Trust, error) {
	var sigs []Signature
	var trust []Trust
	at := 0
	for {
		if len(c)-at < 2*tarBlock {
			return nil, nil, errors.New("signature slot without its end")
		}
		name, size, kind, ok := parseTarHeader(c[at : at+tarBlock])
		if !ok {
			return nil, nil, fmt.Errorf("malformed header at byte %d of a signature slot", at)
		}
		at += tarBlock
		if name == padName && kind == typeGlobal {
			break
		}
		if size > int64(len(c)-at) || !allZero(c[at+int(size):min(at+int(size+padding(size)), len(c))]) {
			return nil, nil, fmt.Errorf("entry %q of %d bytes does not fit into a signature slot, or its padding is not zero", name, size)
		}
		body := c[at : at+int(size)]
		number, isTrust := trustNumber(name)
		switch {
		case kind == typeRegular && isTrust:
			if size > MaxTrust {
				return nil, nil, fmt.Errorf("trust entry %d of %d bytes, at most %d are allowed: %w", number, size, MaxTrust, ErrLimit)
			}
			if len(trust) > 0 && number != trust[len(trust)-1].Number+1 {
				return nil, nil, fmt.Errorf("trust entry %d follows %d: %w", number, trust[len(trust)-1].Number, errTrustOrder)
			}
			trust = append(trust, Trust{number, bytes.Clone(body)})
		case kind != typeRegular || name != SignatureName(body):
			return nil, nil, fmt.Errorf("entry %q of a signature slot has another content than its name says", name)
		case len(trust) > 0 || len(sigs) > 0 && sigs[len(sigs)-1].Name >= name:
			return nil, nil, errors.New("entries of a signature slot are not in the order of their names")
		default:
			sigs = append(sigs, Signature{name, bytes.Clone(body)})
		}
		at += int(size + padding(size))
	}
	rest := c[at:]
	start := padStart(len(rest))
	if !bytes.Equal(c[at-tarBlock:at], tarHeader(padName, int64(len(rest)), typeGlobal)) || !bytes.HasPrefix(rest, start) ||
		rest[len(rest)-1] != '\n' || !bytes.Equal(rest[len(start):len(rest)-1], spaces[:len(rest)-len(start)-1]) {
		return nil, nil, errors.New("the end of a signature slot is not in its canonical form")
	}
	return sigs, trust, nil
}

// slots returns S1, slot A, S2 and slot B, for slots with these contents, of which one is active:
// 0 is slot A, 1 slot B.
func slots(active int, contents [2][]byte) []byte {
	out := make([]byte, 0, slotsSize)
	out = append(out, slotSwitch(active)...)
	out = appendFrame(out, contents[0])
	out = append(out, skippable(magicSlot2, frameSize(slotContent))...)
	return appendFrame(out, contents[1])
}

// slotSwitch is S1, whose last four bytes say which slot is the active one.
func slotSwitch(active int) []byte {
	if active == 0 {
		return skippable(magicSlot1, 0)
	}
	return skippable(magicSlot1, s1B)
}

// slotOffset is where the frame of slot 0 or 1 begins, after the beginning of S1.
func slotOffset(i int) int64 {
	return skippableHeader + int64(i)*(skippableHeader+frameSize(slotContent))
}
