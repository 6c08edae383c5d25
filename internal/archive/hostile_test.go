package archive_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"sync"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/sealift/sealift/internal/archive"
)

// medium answers the first reads of every byte from one file, later ones from another one.
type medium struct {
	mu          sync.Mutex
	first, then []byte
	// honest is how often a byte is given out from the first file.
	honest int
	reads  map[int64]int
}

func (m *medium) ReadAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.reads == nil {
		m.reads = map[int64]int{}
	}
	n := 0
	for ; n < len(p) && off+int64(n) < int64(len(m.first)); n++ {
		at := off + int64(n)
		if p[n] = m.then[at]; m.reads[at] < m.honest {
			p[n] = m.first[at]
		}
		m.reads[at]++
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// TestMediumThatChangesItsAnswers: what was proven once is not believed when it is read again.
func TestMediumThatChangesItsAnswers(t *testing.T) {
	one, two := packOf(t, random(1, 5000), random(2, 100)), packOf(t, random(3, 5000), random(4, 100))
	one.signatures, two.signatures = [][]byte{[]byte("a signature")}, [][]byte{[]byte("another one")}
	two.raw = bytes.ToUpper(one.raw)
	l := one.layout(t)
	a, b := one.write(t).file(t), two.write(t).file(t)
	body := func(file, of []byte) []byte { // file with the blobs of another one
		at := int(l.Head()) + archive.SlotsSize
		return append(bytes.Clone(file[:at]), of[at:]...)
	}
	t.Run("head", func(t *testing.T) {
		for name, then := range map[string][]byte{"all of it": b, "but the payload": body(b, a)} {
			m := &medium{first: a, then: then, honest: 1}
			src := archive.NewSource(m, int64(len(a)))
			h, err := archive.ReadHead(src)
			if err != nil || !bytes.Equal(h.Manifest, one.raw) {
				t.Fatalf("%q, %v", h.Manifest, err)
			}
			r, err := archive.NewReader(src, h, l)
			if err != nil {
				t.Fatal(err)
			}
			var d *archive.DamageError
			if err := r.Verify(context.Background(), ignore); !errors.As(err, &d) {
				t.Errorf("%s: %v, want *DamageError", name, err)
			}
		}
	})
	t.Run("blob", func(t *testing.T) {
		m := &medium{first: a, then: body(a, b), honest: 1}
		r, err := reader(archive.NewSource(m, int64(len(a))), l)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range one.blobs {
			name := blob(want).Name
			if got, err := content(r, name); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("blob %d: %d bytes, %v", i, len(got), err)
			}
			// Read again, it is another one's bytes, soundly framed.
			if got, err := content(r, name); err == nil || len(got) > 0 {
				t.Errorf("blob %d: %d unproven bytes were given out, %v", i, len(got), err)
			}
		}
	})
	t.Run("after it was verified", func(t *testing.T) {
		m := &medium{first: a, then: body(a, b), honest: 2}
		r, err := reader(archive.NewSource(m, int64(len(a))), l)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := content(r, blob(one.blobs[0]).Name); err != nil {
			t.Fatal(err)
		}
		if err := r.Verify(context.Background(), ignore); err != nil {
			t.Fatal(err)
		}
		if got, err := content(r, blob(one.blobs[0]).Name); err == nil || len(got) > 0 {
			t.Errorf("%d unproven bytes were given out, %v", len(got), err)
		}
	})
}

// TestLastPieceIsWithheld: of an entry whose digest is wrong at the end, the end is not given out,
// by none of the ways to read it.
func TestLastPieceIsWithheld(t *testing.T) {
	one, two := packOf(t, random(1, 2<<20+100)), packOf(t, append(random(1, 2<<20), random(2, 100)...))
	name := blob(one.blobs[0]).Name
	a, b := one.write(t).file(t), two.write(t).file(t)
	// The last frame of the second one, soundly framed, in the first one.
	tail := int(one.layout(t).Size()) - 5000
	at := bytes.Index(a, one.blobs[0][2<<20:])
	if at < tail {
		t.Fatal("the last frame was not found")
	}
	bad := bytes.Clone(a)
	copy(bad[at-13:at+512+4], b[at-13:at+512+4])
	r, err := reader(source(bad), one.layout(t))
	if err != nil {
		t.Fatal(err)
	}
	var d *archive.DamageError
	if got, err := content(r, name); !errors.As(err, &d) || len(got) != 2<<20 {
		t.Errorf("read: %d bytes, %v", len(got), err)
	}
	e, err := r.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, e); !errors.As(err, &d) || n != 2<<20 {
		t.Errorf("copied: %d bytes, %v", n, err)
	}
	// And the error stays.
	if _, err := e.Read(make([]byte, 1)); !errors.As(err, &d) {
		t.Errorf("after the error: %v", err)
	}
}

// frame is the frame of a content, by docs/format.md.
func frame(p []byte) []byte {
	b := []byte{0x28, 0xB5, 0x2F, 0xFD, 0x84, 0x38}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(p)))
	for rest := p; len(rest) > 0; {
		n := min(len(rest), 1<<17)
		h := uint32(n << 3)
		if n == len(rest) {
			h |= 1
		}
		b = append(b, byte(h), byte(h>>8), byte(h>>16))
		b = append(b, rest[:n]...)
		rest = rest[n:]
	}
	return binary.LittleEndian.AppendUint32(b, uint32(xxhash.Sum64(p)))
}

// TestHostileHeads: heads that a file may begin with to make its reader take too much, or too
// little.
func TestHostileHeads(t *testing.T) {
	p := packOf(t, random(1, 100))
	file := p.write(t).file(t)
	header := func(change func(h []byte)) []byte {
		h := bytes.Clone(file[13 : 13+512])
		change(h)
		copy(h[148:], "        ")
		sum := 0
		for _, b := range h {
			sum += int(b)
		}
		copy(h[148:], []byte{byte('0' + sum>>15&7), byte('0' + sum>>12&7), byte('0' + sum>>9&7), byte('0' + sum>>6&7), byte('0' + sum>>3&7), byte('0' + sum&7), 0, ' '})
		return append(frame(h), file[529:]...)
	}
	if !bytes.Equal(header(func([]byte) {}), file) {
		t.Fatal("the same header makes another file")
	}
	size := func(s string) []byte { return header(func(h []byte) { copy(h[124:136], s) }) }
	at := int(p.layout(t).Head()) // of the slots
	gap := 529 + len(frame(make([]byte, 512)))
	with := func(at int, b ...byte) []byte {
		f := bytes.Clone(file)
		copy(f[at:], b)
		return f
	}
	for name, b := range map[string][]byte{
		"nothing":               nil,
		"zeros":                 make([]byte, 1<<20),
		"another name":          header(func(h []byte) { copy(h, "Sealift.json") }),
		"a directory":           header(func(h []byte) { h[156] = '5' }),
		"a symbolic link":       header(func(h []byte) { h[156] = '2' }),
		"a device":              header(func(h []byte) { h[156] = '3' }),
		"another mode":          header(func(h []byte) { copy(h[100:], "0004755") }),
		"an owner":              header(func(h []byte) { copy(h[108:], "0001750") }),
		"a link name":           header(func(h []byte) { copy(h[157:], "/etc/passwd") }),
		"a prefix":              header(func(h []byte) { copy(h[345:], "../..") }),
		"no manifest":           size("00000000000\x00"),
		"17 MiB of manifest":    size("00104000000\x00"),
		"8 GiB of manifest":     size("77777777777\x00"),
		"base-256 for a little": size("\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x11"),
		"2^63 of manifest":      size("\x80\x00\x00\x00\x80\x00\x00\x00\x00\x00\x00\x00"),
		"-1 of manifest":        size("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
		"a sign":                size("-0000000021\x00"),
		"spaces":                size("         21\x00"),
		"a gap of 4 GiB":        with(gap+4, 0xff, 0xff, 0xff, 0xff),
		"a gap of 33 MiB":       with(gap+4, 0, 0, 0x10, 0x02),
		"another gap":           with(gap+4, 1),
		"another magic":         with(gap, 0x53),
		"a gap that says more":  with(gap+100, 1),
		"a switch of its own":   with(at+4, 1),
		"a switch to 4 GiB":     with(at+4, 0xff, 0xff, 0xff, 0xff),
		"another second slot":   with(at+8+65553, 0x53),
		"no slot":               with(at+8, make([]byte, 65553)...),
		"a slot of something":   with(at+8, frame(random(1, 65536))...),
		"a slot of zeros":       with(at+8, frame(make([]byte, 65536))...),
		"an inserted frame":     append(frame([]byte("x")), file...),
		"an inserted skippable": append([]byte{0x50, 0x2A, 0x4D, 0x18, 0, 0, 0, 0}, file...),
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if _, err := reader(source(b), p.layout(t)); err == nil {
				t.Error("read")
			}
			runtime.ReadMemStats(&after)
			if n := after.TotalAlloc - before.TotalAlloc; n > 40<<20 {
				t.Errorf("%d bytes were allocated", n)
			}
		})
	}
	// What is in the inactive slot is nobody's business but that of a warning.
	for name, b := range map[string][]byte{
		"zeros": make([]byte, 65553), "random bytes": random(1, 65553), "a slot of zeros": frame(make([]byte, 65536)),
	} {
		if w, err := look(source(with(at+slotB, b...)), p.layout(t)); err != nil || len(w) != 1 {
			t.Errorf("%s in the inactive slot: %q, %v", name, w, err)
		}
	}
	// The other switch is a valid one: slot B is as blank as slot A.
	if _, err := reader(source(with(at+4, 0x19, 0, 1, 0)), p.layout(t)); err != nil {
		t.Errorf("slot B: %v", err)
	}
}

// TestFramesInDisorder: every frame is sound, and yet they are not what the manifest makes them.
func TestFramesInDisorder(t *testing.T) {
	p := packOf(t, random(1, 2<<20), random(2, 2<<20))
	file, l := p.write(t).file(t), p.layout(t)
	const f = 1<<20 + 38
	at := int(l.Head()) + archive.SlotsSize
	entry := 529 + 2*f
	cut := func(from, to int) []byte { return bytes.Clone(file[at+from : at+to]) }
	build := func(parts ...[]byte) []byte {
		b := bytes.Clone(file[:at])
		for _, p := range parts {
			b = append(b, p...)
		}
		return b
	}
	rest := file[at+2*entry:]
	head, f1, f2 := cut(0, 529), cut(529, 529+f), cut(529+f, entry)
	second := cut(entry, 2*entry)
	if !bytes.Equal(build(head, f1, f2, second, rest), file) {
		t.Fatal("the parts do not make the file")
	}
	for name, b := range map[string][]byte{
		"frames exchanged":     build(head, f2, f1, second, rest),
		"a frame twice":        build(head, f1, f1, second, rest),
		"entries exchanged":    build(second, head, f1, f2, rest),
		"an entry twice":       build(head, f1, f2, head, f1, f2, rest),
		"an entry left out":    build(head, f1, f2, rest),
		"an entry more":        build(head, f1, f2, second, second, rest),
		"an inserted frame":    build(head, frame([]byte("x")), f1, f2, second, rest),
		"an inserted gap":      build(head, f1, []byte{0x50, 0x2A, 0x4D, 0x18, 0, 0, 0, 0}, f2, second, rest),
		"frames cut otherwise": build(head, frame(p.blobs[0][:1<<19]), frame(p.blobs[0][1<<19:1<<20]), f2, second, rest),
		"no tables":            build(head, f1, f2, second, rest[:1041]),
		"two ends":             build(head, f1, f2, second, rest[:1041], rest),
	} {
		t.Run(name, func(t *testing.T) {
			if verify(b, l) == nil {
				t.Error("not found in a file")
			}
			if verifySource(pipe(b), l) == nil {
				t.Error("not found in a stream")
			}
			r, err := reader(source(b), l)
			if err != nil {
				return
			}
			for i, want := range p.blobs {
				if got, err := content(r, blob(want).Name); err == nil && !bytes.Equal(got, want) {
					t.Errorf("blob %d: %d unproven bytes were given out as complete", i, len(got))
				}
			}
		})
	}
}
