package archive_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/sealift/sealift/internal/archive"
)

// tarEntry is an entry of a slot, by docs/format.md.
func tarEntry(name, size string, kind byte, body []byte) []byte {
	h := make([]byte, 512)
	copy(h, name)
	copy(h[100:], "0000644\x000000000\x000000000\x00")
	copy(h[124:], size+"\x0000000000000\x00        ")
	h[156] = kind
	copy(h[257:], "ustar\x0000")
	sum := 0
	for _, b := range h {
		sum += int(b)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	h = append(h, body...)
	return append(h, make([]byte, -len(body)&511)...)
}

func regular(name string, body []byte) []byte {
	return tarEntry(name, fmt.Sprintf("%011o", len(body)), '0', body)
}

// padded is the content of a slot with these entries.
func padded(entries ...[]byte) []byte {
	c := bytes.Join(entries, nil)
	n := 65536 - 512 - len(c)
	record := fmt.Appendf(nil, "%d comment=", n)
	record = append(record, bytes.Repeat([]byte(" "), n-len(record)-1)...)
	return append(c, tarEntry("pad", fmt.Sprintf("%011o", n), 'g', append(record, '\n'))...)
}

func trustOf(first, n, size int) []archive.Trust {
	var trust []archive.Trust
	for i := range n {
		trust = append(trust, archive.Trust{Number: first + i, Body: random(uint64(first+i), size)})
	}
	return trust
}

// TestSlotContent: what a slot holds has one form, and it is that of docs/format.md.
func TestSlotContent(t *testing.T) {
	a, b := []byte("signature a"), []byte("signature b")
	x, y := regular(archive.SignatureName(a), a), regular(archive.SignatureName(b), b)
	if archive.SignatureName(a) > archive.SignatureName(b) {
		x, y = y, x
	}
	root := func(name, body string) []byte { return regular("trust/"+name+".root.json", []byte(body)) }
	for name, c := range map[string]struct {
		content archive.SlotContent
		want    []byte
	}{
		"nothing":               {archive.SlotContent{}, padded()},
		"signatures":            {archive.SlotContent{Signatures: [][]byte{a, b}}, padded(x, y)},
		"in another order":      {archive.SlotContent{Signatures: [][]byte{b, a}}, padded(x, y)},
		"twice the same":        {archive.SlotContent{Signatures: [][]byte{b, a, b, a}}, padded(x, y)},
		"trust":                 {archive.SlotContent{Trust: []archive.Trust{{Number: 1, Body: []byte("one")}}}, padded(root("1", "one"))},
		"signatures and trust":  {archive.SlotContent{Signatures: [][]byte{b, a}, Trust: []archive.Trust{{9, []byte("ix")}, {10, []byte("x")}}}, padded(x, y, root("9", "ix"), root("10", "x"))},
		"the last number":       {archive.SlotContent{Trust: []archive.Trust{{1 << 31, []byte("z")}}}, padded(root("2147483648", "z"))},
		"a root of nothing":     {archive.SlotContent{Trust: []archive.Trust{{7, nil}}}, padded(root("7", ""))},
		"the largest root":      {archive.SlotContent{Trust: trustOf(3, 1, 32<<10)}, padded(root("3", string(random(3, 32<<10))))},
		"as many as fit":        {archive.SlotContent{Trust: trustOf(1, 63, 1)[:63]}, padded(manyRoots(63)...)},
		"a signature that fits": {archive.SlotContent{Signatures: [][]byte{random(1, 64000)}}, padded(regular(archive.SignatureName(random(1, 64000)), random(1, 64000)))},
	} {
		got, err := archive.EncodeSlot(c.content)
		if err != nil || !bytes.Equal(got, c.want) {
			t.Errorf("%s: encoded to other bytes, %v", name, err)
			continue
		}
		back, err := archive.DecodeSlot(got)
		if err != nil || len(back.Trust) != len(c.content.Trust) {
			t.Errorf("%s: decoded: %d trust entries, %v", name, len(back.Trust), err)
			continue
		}
		for i, e := range back.Trust {
			if w := c.content.Trust[i]; e.Number != w.Number || !bytes.Equal(e.Body, w.Body) {
				t.Errorf("%s: trust entry %d is decoded as %d with %d bytes", name, w.Number, e.Number, len(e.Body))
			}
		}
		for _, s := range c.content.Signatures {
			if !slices.ContainsFunc(back.Signatures, func(b []byte) bool { return bytes.Equal(b, s) }) {
				t.Errorf("%s: a signature is lost", name)
			}
		}
	}
}

func manyRoots(n int) [][]byte {
	var roots [][]byte
	for _, e := range trustOf(1, n, 1) {
		roots = append(roots, regular(fmt.Sprintf("trust/%d.root.json", e.Number), e.Body))
	}
	return roots
}

// TestSlotContentRefused: what no slot may hold is neither written nor read.
func TestSlotContentRefused(t *testing.T) {
	for name, c := range map[string]struct {
		content archive.SlotContent
		want    error
	}{
		"number 0":            {archive.SlotContent{Trust: trustOf(0, 1, 1)}, archive.ErrLimit},
		"a negative number":   {archive.SlotContent{Trust: []archive.Trust{{-1, nil}}}, archive.ErrLimit},
		"too great a number":  {archive.SlotContent{Trust: []archive.Trust{{1<<31 + 1, nil}}}, archive.ErrLimit},
		"too large a root":    {archive.SlotContent{Trust: trustOf(1, 1, 32<<10+1)}, archive.ErrLimit},
		"too many roots":      {archive.SlotContent{Trust: trustOf(1, 64, 1)}, archive.ErrSlotFull},
		"too many signatures": {archive.SlotContent{Signatures: [][]byte{random(1, 30000), random(2, 30000), random(3, 5000)}}, archive.ErrSlotFull},
		"too much of both":    {archive.SlotContent{Signatures: [][]byte{random(1, 32000)}, Trust: trustOf(1, 1, 32000)}, archive.ErrSlotFull},
	} {
		if _, err := archive.EncodeSlot(c.content); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	for name, trust := range map[string][]archive.Trust{
		"falling": {{2, nil}, {1, nil}}, "the same twice": {{2, nil}, {2, nil}}, "a gap": {{1, nil}, {3, nil}},
	} {
		if _, err := archive.EncodeSlot(archive.SlotContent{Trust: trust}); err == nil {
			t.Errorf("%s: encoded", name)
		}
	}

	sig := regular(archive.SignatureName([]byte("s")), []byte("s"))
	root := func(name string) []byte { return regular("trust/"+name+".root.json", []byte(name)) }
	at := func(c []byte, i int, b byte) []byte {
		c = bytes.Clone(c)
		c[i] = b
		return c
	}
	for name, c := range map[string][]byte{
		"nothing":                   nil,
		"zeros":                     make([]byte, 65536),
		"trust before a signature":  padded(root("1"), sig),
		"a signature among trust":   padded(root("1"), sig, root("2")),
		"falling numbers":           padded(root("2"), root("1")),
		"in the order of names":     padded(root("10"), root("9")),
		"a number twice":            padded(root("2"), root("2")),
		"a gap in the numbers":      padded(root("1"), root("3")),
		"a gap between entries":     padded(root("1"), make([]byte, 512), root("2")),
		"number 0":                  padded(root("0")),
		"a leading zero":            padded(root("01")),
		"a sign":                    padded(root("+1")),
		"a minus":                   padded(root("-1")),
		"no number":                 padded(root("")),
		"a hexadecimal number":      padded(root("0x1")),
		"an underscore":             padded(root("1_0")),
		"too great a number":        padded(root("2147483649")),
		"a giant number":            padded(root("99999999999999999999999")),
		"another suffix":            padded(regular("trust/1.root.yaml", nil)),
		"another prefix":            padded(regular("trusts/1.root.json", nil)),
		"a path":                    padded(root("../1")),
		"a directory":               padded(tarEntry("trust/1.root.json", "00000000000", '5', nil)),
		"a link":                    padded(tarEntry("trust/1.root.json", "00000000000", '2', nil)),
		"too large a root":          padded(regular("trust/1.root.json", make([]byte, 32<<10+1))),
		"padding that is not zero":  at(padded(root("1")), 1000, 1),
		"a signature in disorder":   padded(slices.SortedFunc(slices.Values([][]byte{sig, regular(archive.SignatureName([]byte("t")), []byte("t"))}), func(a, b []byte) int { return -bytes.Compare(a, b) })...),
		"a signature twice":         padded(sig, sig),
		"a signature of other name": padded(regular(archive.SignatureName([]byte("t")), []byte("s"))),
		"a body that does not fit":  tarEntry("trust/1.root.json", "00000200000", '0', make([]byte, 65024)),
		"no pad":                    regular("trust/1.root.json", make([]byte, 65024)),
		"something in the pad":      at(padded(root("1")), 60000, 'x'),
		"no newline":                at(padded(root("1")), 65535, ' '),
	} {
		if got, err := archive.DecodeSlot(c); err == nil {
			t.Errorf("%s: decoded to %d signatures and %d trust entries", name, len(got.Signatures), len(got.Trust))
		}
	}
	if _, err := archive.DecodeSlot(padded(sig, root("9"), root("10"))); err != nil {
		t.Errorf("a sound one: %v", err)
	}
}

func TestFitTrust(t *testing.T) {
	sig := random(1, 1000) // takes 512 + 1024
	for _, c := range []struct {
		signatures    [][]byte
		reserve       int
		trust         []archive.Trust
		first, number int
	}{
		{nil, 0, nil, 0, 0},
		{nil, 0, trustOf(5, 3, 100), 5, 3},
		{nil, 0, trustOf(5, 63, 1), 5, 63},
		{nil, 0, trustOf(5, 64, 1), 6, 63},
		{[][]byte{sig}, 0, trustOf(1, 63, 1), 3, 61}, // 64512 - 1536 = 61.5 KiB
		{[][]byte{sig, sig}, 0, trustOf(1, 63, 1), 3, 61},
		{[][]byte{sig}, 1536, trustOf(1, 63, 1), 4, 60},
		{[][]byte{sig}, 64512 - 1536, trustOf(1, 2, 1), 0, 0},
		{[][]byte{sig}, 1 << 20, trustOf(1, 2, 1), 0, 0},
		{[][]byte{random(1, 64000)}, 0, trustOf(1, 2, 1), 0, 0},
		// The first one that does not fit ends it: a chain with a gap is none.
		{nil, 0, append(append(trustOf(1, 1, 1), trustOf(2, 1, 32<<10)...), trustOf(3, 1, 32<<10)...), 3, 1},
	} {
		got := archive.FitTrust(c.signatures, c.reserve, c.trust)
		if len(got) != c.number || len(got) > 0 && got[0].Number != c.first {
			t.Errorf("%d signatures, %d bytes kept free, %d trust entries: %d of them, want %d from %d on", len(c.signatures), c.reserve, len(c.trust), len(got), c.number, c.first)
			continue
		}
		if len(c.signatures) == 0 || len(c.signatures[0]) == len(sig) && c.reserve < 1<<16 {
			if _, err := archive.EncodeSlot(archive.SlotContent{Signatures: c.signatures, Trust: got}); err != nil {
				t.Errorf("what fits does not: %v", err)
			}
		}
	}
}

// TestTrustIsPacked: a pack takes trust entries, and one whose slot is too full for them fails.
func TestTrustIsPacked(t *testing.T) {
	p := packOf(t, random(1, 100))
	p.signatures, p.trust = [][]byte{[]byte("sig")}, trustOf(4, 3, 5000)
	h, err := archive.ReadHead(source(p.write(t).file(t)))
	if err != nil || fmt.Sprint(h.Trust) != fmt.Sprint(p.trust) || len(h.Signatures) != 1 || h.Warnings() != nil {
		t.Fatalf("%d trust entries, %d signatures, %q, %v", len(h.Trust), len(h.Signatures), h.Warnings(), err)
	}
	if err := verify(p.file(t), p.layout(t)); err != nil {
		t.Fatal(err)
	}
	p = packOf(t)
	p.trust = trustOf(1, 64, 1)
	w := p.begin(t)
	if err := w.Seal(t.Context(), p.sealing(t)); !errors.Is(err, archive.ErrSlotFull) {
		t.Errorf("too many trust entries: %v", err)
	}
	if err := w.Discard(); err != nil {
		t.Error(err)
	}
}

// FuzzDecodeSlot: whatever is decoded is encoded to the same bytes again. The entries are fuzzed
// without the pad, which is most of a slot, or with bytes in its place.
func FuzzDecodeSlot(f *testing.F) {
	sig := regular(archive.SignatureName([]byte("s")), []byte("s"))
	f.Add([]byte(nil), true)
	f.Add(append(bytes.Clone(sig), regular("trust/9.root.json", []byte("{}"))...), true)
	f.Add(append(regular("trust/9.root.json", nil), regular("trust/10.root.json", []byte("x"))...), true)
	f.Add(append(regular("trust/2.root.json", nil), sig...), true)
	f.Add([]byte("trust/"), false)
	f.Fuzz(func(t *testing.T, c []byte, pad bool) {
		if pad {
			c = padded(c[:min(len(c)&^511, 64512)])
		}
		o, err := archive.DecodeSlot(c)
		if err != nil {
			return
		}
		again, err := archive.EncodeSlot(o)
		if err != nil || !bytes.Equal(again, c) {
			t.Fatalf("%d signatures and %d trust entries are encoded otherwise, %v", len(o.Signatures), len(o.Trust), err)
		}
	})
}
