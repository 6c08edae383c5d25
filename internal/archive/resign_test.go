package archive_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/parity"
)

// files are the files of a pack.
func (p *pack) files(t testing.TB) *archive.Files {
	t.Helper()
	found, err := archive.Find([]string{p.path})
	if err != nil || len(found) != 1 {
		t.Fatalf("%d bundles, %v", len(found), err)
	}
	return found[0]
}

// to makes a change of the slots that sets these signatures and trust entries.
func to(c archive.SlotContent) func(*archive.Head) (*archive.SlotContent, error) {
	return func(*archive.Head) (*archive.SlotContent, error) { return &c, nil }
}

// resign signs a pack again.
func (p *pack) resign(t testing.TB, c archive.SlotContent) {
	t.Helper()
	if err := archive.Resign(context.Background(), p.files(t), to(c)); err != nil {
		t.Fatal(err)
	}
	p.signatures, p.trust = c.Signatures, c.Trust
}

// holds says what a bundle holds in its slots: the signatures, the trust entries and the warnings.
func holds(src archive.Source, l *archive.Layout) (string, error) {
	h, err := archive.ReadHead(src)
	if err != nil {
		return "", err
	}
	warnings, err := look(src, l)
	if err == nil && !slices.Equal(warnings, h.Warnings()) {
		err = fmt.Errorf("warnings: first %q, then %q", h.Warnings(), warnings)
	}
	return describe(*h.Slot()), err
}

func describe(c archive.SlotContent) string {
	var parts []string
	for _, s := range c.Signatures {
		parts = append(parts, archive.SignatureName(s))
	}
	slices.Sort(parts)
	for _, e := range slices.Clone(c.Trust) {
		parts = append(parts, fmt.Sprintf("%d %x", e.Number, sha256.Sum256(e.Body)))
	}
	return strings.Join(parts, " ")
}

// active is the slot whose frame is a part of the tar, as the switch says.
func active(t testing.TB, p *pack) byte {
	t.Helper()
	at := p.layout(t).Head() + 4
	switch s := p.file(t)[at : at+4]; {
	case bytes.Equal(s, []byte{0, 0, 0, 0}):
		return 'A'
	case bytes.Equal(s, []byte{0x19, 0, 1, 0}):
		return 'B'
	default:
		t.Fatalf("the switch is %x", s)
		return 0
	}
}

// TestResign signs a bundle again and again, as a file and in volumes: the slots take turns, the
// other bytes stay what they are.
func TestResign(t *testing.T) {
	for _, volume := range []int64{0, archive.MinVolume} {
		t.Run(fmt.Sprint(volume), func(t *testing.T) {
			p := packOf(t, random(1, 2<<20), random(2, 100))
			p.signatures, p.volume = [][]byte{[]byte("first")}, volume
			l := p.write(t).layout(t)
			before, slots := p.file(t), ""
			for i, c := range []archive.SlotContent{
				{Signatures: [][]byte{[]byte("first"), []byte("second")}},
				{Signatures: [][]byte{[]byte("third")}, Trust: trustOf(8, 3, 700)},
				{Trust: trustOf(8, 3, 700)},
				{},
				{Signatures: [][]byte{random(1, 29000), random(2, 1), random(2, 1)}, Trust: trustOf(2, 1, 32<<10)},
				{Signatures: [][]byte{random(1, 29000), random(2, 1), random(2, 1)}, Trust: trustOf(2, 1, 32<<10)},
			} {
				p.resign(t, c)
				slots += string(active(t, p))
				// What is held twice is one.
				if len(c.Signatures) == 3 {
					c.Signatures = c.Signatures[:2]
				}
				file := p.file(t)
				for name, src := range map[string]archive.Source{"file": source(file), "stream": pipe(file)} {
					if w, err := look(src, l); err != nil || w != nil {
						t.Fatalf("%d, %s: %q, %v", i, name, w, err)
					}
				}
				if got, err := holds(source(file), l); err != nil || got != describe(c) {
					t.Fatalf("%d: holds %s, %v, want %s", i, got, err, describe(c))
				}
				at := int(l.Head())
				if !bytes.Equal(file[:at], before[:at]) || !bytes.Equal(file[at+archive.SlotsSize:], before[at+archive.SlotsSize:]) {
					t.Fatalf("%d: bytes outside the slots have changed", i)
				}
			}
			if slots != "BABABA" {
				t.Errorf("the slots that were active: %s", slots)
			}
			entries := []string{"b.tar.zst"}
			for i := 1; volume > 0 && i <= p.count(t); i++ {
				entries = append(entries[:i-1], archive.VolumeName("b.tar.zst", i))
			}
			if got := names(t, filepath.Dir(p.path)); got != strings.Join(entries, " ")+" " {
				t.Errorf("beside the bundle: %q", got)
			}
		})
	}
}

// TestResignTakesTheHead: change gets what the bundle holds, adds to it, or leaves it.
func TestResignTakesTheHead(t *testing.T) {
	p := packOf(t, random(1, 100))
	p.signatures, p.trust = [][]byte{[]byte("first")}, trustOf(1, 2, 10)
	before := p.write(t).file(t)
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		change func(*archive.Head) (*archive.SlotContent, error)
		want   error
	}{
		"nothing to change": {func(*archive.Head) (*archive.SlotContent, error) { return nil, nil }, nil},
		"an error":          {func(*archive.Head) (*archive.SlotContent, error) { return nil, broken }, broken},
		"too much":          {to(archive.SlotContent{Signatures: [][]byte{random(1, 64512)}}), archive.ErrSlotFull},
		"a bad number":      {to(archive.SlotContent{Trust: trustOf(0, 1, 1)}), archive.ErrLimit},
	} {
		if err := archive.Resign(context.Background(), p.files(t), c.change); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if !bytes.Equal(p.file(t), before) {
			t.Fatalf("%s: the file has changed", name)
		}
	}
	err := archive.Resign(context.Background(), p.files(t), func(h *archive.Head) (*archive.SlotContent, error) {
		if !bytes.Equal(h.Manifest, p.raw) {
			t.Errorf("the manifest is %q", h.Manifest)
		}
		c := h.Slot()
		c.Signatures = append(c.Signatures, []byte("second"))
		return c, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := describe(archive.SlotContent{Signatures: [][]byte{[]byte("first"), []byte("second")}, Trust: p.trust})
	if got, err := holds(source(p.file(t)), p.layout(t)); err != nil || got != want {
		t.Errorf("holds %s, %v, want %s", got, err, want)
	}
}

// TestResignEndsWithItsContext: before the first write, and not after it.
func TestResignEndsWithItsContext(t *testing.T) {
	p := packOf(t, random(1, 100))
	before := p.write(t).file(t)
	ctx, cancel := context.WithCancel(context.Background())
	err := archive.Resign(ctx, p.files(t), func(*archive.Head) (*archive.SlotContent, error) {
		cancel()
		return &archive.SlotContent{}, nil
	})
	if !errors.Is(err, context.Canceled) || !bytes.Equal(p.file(t), before) {
		t.Errorf("%v; changed: %v", err, !bytes.Equal(p.file(t), before))
	}
	f := newSlotMedium(before)
	ctx, cancel = context.WithCancel(context.Background())
	f.before = func(int) { cancel() }
	c := archive.SlotContent{Signatures: [][]byte{[]byte("s")}}
	if err := f.resign(ctx, c); err != nil {
		t.Fatal(err)
	}
	if got, err := holds(source(f.b), p.layout(t)); err != nil || got != describe(c) || ctx.Err() == nil {
		t.Errorf("holds %s, %v", got, err)
	}
}

// TestResignRefuses: what is no bundle, what somebody else is writing, what is not there.
func TestResignRefuses(t *testing.T) {
	p := packOf(t, random(1, 3<<20))
	p.volume = archive.MinVolume
	p.write(t)
	called := func(*archive.Head) (*archive.SlotContent, error) {
		t.Error("asked for a content")
		return nil, nil
	}
	files := p.files(t)
	var inner error
	err := archive.Resign(context.Background(), files, func(*archive.Head) (*archive.SlotContent, error) {
		inner = archive.Resign(context.Background(), files, called)
		return nil, nil
	})
	if err != nil || !errors.Is(inner, archive.ErrBusy) {
		t.Errorf("two at a time: %v, %v", err, inner)
	}
	later := &archive.Files{Name: p.path, Volumes: map[int]string{2: archive.VolumeName(p.path, 2)}}
	if err := archive.Resign(context.Background(), later, called); said(err) != "1 missing" {
		t.Errorf("without the first volume: %v", err)
	}
	root := tree(t, "dir/", "empty")
	for name, want := range map[string]error{"dir": archive.ErrNotBundle, "empty": archive.ErrNotBundle, "nothing": fs.ErrNotExist} {
		path := filepath.Join(root, name)
		if err := archive.Resign(context.Background(), &archive.Files{Name: path, File: path}, called); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	// A damaged active slot is not written over: repair may bring it back.
	path := archive.VolumeName(p.path, 1)
	b := read(t, path)
	b[int(p.layout(t).Head())+slotA+100] ^= 1
	save(t, path, b)
	var d *archive.DamageError
	if err := archive.Resign(context.Background(), files, called); !errors.As(err, &d) || !bytes.Equal(read(t, path), b) {
		t.Errorf("a damaged slot: %v", err)
	}
}

// slotMedium is a file on a medium that breaks. With its stop-th write, from 0 on, all ends, after
// those sectors of it were written that torn says.
type slotMedium struct {
	b      []byte
	writes int
	stop   int
	torn   func(old, p []byte, off int64)
	// before is told the number of each write, sync is what Sync returns after a number of writes.
	before func(write int)
	sync   func(writes int) error
	// answer is what a fresh look gives in the place of the bytes.
	answer func(b []byte, writes int) []byte
}

var errPowerCut = errors.New("the power is cut")

func newSlotMedium(file []byte) *slotMedium {
	return &slotMedium{
		b: bytes.Clone(file), stop: -1, before: func(int) {}, sync: func(int) error { return nil },
		answer: func(b []byte, _ int) []byte { return b },
	}
}

func (m *slotMedium) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(m.b).ReadAt(p, off)
}

func (m *slotMedium) WriteAt(p []byte, off int64) (int, error) {
	if m.stop >= 0 && m.writes > m.stop {
		return 0, errPowerCut
	}
	m.before(m.writes)
	m.writes++
	if m.stop == m.writes-1 {
		m.torn(m.b[off:off+int64(len(p))], p, off)
		return 0, errPowerCut
	}
	return copy(m.b[off:], p), nil
}

func (m *slotMedium) Sync() error { return m.sync(m.writes) }

func (m *slotMedium) resign(ctx context.Context, c archive.SlotContent) error {
	fresh := func() io.ReaderAt { return bytes.NewReader(m.answer(m.b, m.writes)) }
	return archive.ResignOn(ctx, m, int64(len(m.b)), fresh, to(c))
}

// prefixes calls f with the ends of all sectors of 512 bytes in n bytes at off.
func prefixes(off, n int64) []int64 {
	var ends []int64
	for at := off&^511 + 512; at < off+n; at += 512 {
		ends = append(ends, at-off)
	}
	return ends
}

// decodes returns the names of the entries that a zstd and a tar see before the payload.
func decodes(t *testing.T, z *zstd.Decoder, file []byte, upTo int64) []string {
	t.Helper()
	if err := z.Reset(bytes.NewReader(file[:upTo])); err != nil {
		t.Fatal(err)
	}
	r := tar.NewReader(z)
	var names []string
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeXGlobalHeader {
			names = append(names, h.Name)
		}
	}
}

// TestPowerCut stops the signing at each of its writes, after each prefix of it and other parts of
// it that a disk may have written: the bundle opens with the signatures that it had or with those
// that it was to get, in all that reads it, and the next signing leaves nothing of it.
func TestPowerCut(t *testing.T) {
	p := packOf(t, random(1, 700))
	old := archive.SlotContent{Signatures: [][]byte{random(3, 20000)}, Trust: trustOf(1, 2, 100)}
	p.signatures, p.trust = old.Signatures, old.Trust
	l := p.write(t).layout(t)
	other := packOf(t, random(1, 700)).to(filepath.Join(t.TempDir(), "b.tar.zst"), 0)
	other.write(t).resign(t, old)
	c := archive.SlotContent{Signatures: [][]byte{random(3, 20000), random(4, 30000)}, Trust: trustOf(2, 2, 200)}
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	for _, start := range []*pack{p, other} {
		file, from := start.file(t), active(t, start)
		fresh := map[byte]int64{'A': slotB, 'B': slotA}[from] + l.Head()
		former := map[byte]int64{'A': slotA, 'B': slotB}[from] + l.Head()
		type tear struct {
			write int
			name  string
			torn  func(old, p []byte, off int64)
			// want is what the bundle holds then, clean whether nothing is left of it.
			want  archive.SlotContent
			clean bool
		}
		var tears []tear
		for write, at := range map[int]int64{0: fresh, 2: former} {
			want := old
			if write == 2 {
				want = c
			}
			add := func(name string, clean bool, torn func(old, p []byte, off int64)) {
				tears = append(tears, tear{write, name, torn, want, clean})
			}
			add("nothing of it", write == 0, func(_, _ []byte, _ int64) {})
			add("all of it", write == 2, func(old, p []byte, _ int64) { copy(old, p) })
			add("zeros", false, func(old, _ []byte, _ int64) { clear(old) })
			add("garbage", false, func(old, _ []byte, _ int64) { copy(old, random(9, len(old))) })
			add("all but the last byte", false, func(old, p []byte, _ int64) { copy(old, p[:len(p)-1]); old[len(p)-1] ^= 1 })
			for i, n := range prefixes(at, slotFrame) {
				add(fmt.Sprint(n, " bytes"), false, func(old, p []byte, _ int64) { copy(old, p[:n]) })
				// What lies behind a prefix may also be what the device made of it.
				if i%10 == 0 {
					add(fmt.Sprint(n, " bytes and garbage"), false, func(old, p []byte, _ int64) { copy(old, p[:n]); copy(old[n:], random(8, 600)) })
				}
			}
			for seed := range uint64(20) {
				pick := random(seed, 200)
				add(fmt.Sprint("sectors in disorder ", seed), false, func(old, p []byte, off int64) {
					begin := int64(0)
					for i, end := range append(prefixes(off, int64(len(p))), int64(len(p))) {
						if pick[i]&1 == 0 {
							copy(old[begin:end], p[begin:end])
						}
						begin = end
					}
				})
			}
		}
		tears = append(tears,
			tear{1, "before the switch", func(_, _ []byte, _ int64) {}, old, false},
			tear{1, "after the switch", func(old, p []byte, _ int64) { copy(old, p) }, c, false},
			tear{3, "after the last write", nil, c, true})
		for _, cut := range tears {
			name := fmt.Sprintf("slot %c active, write %d: %s", from, cut.write, cut.name)
			m := newSlotMedium(file)
			m.stop, m.torn = cut.write, cut.torn
			err := m.resign(context.Background(), c)
			if cut.write < 3 != errors.Is(err, errPowerCut) {
				t.Fatalf("%s: %v", name, err)
			}
			for kind, src := range map[string]archive.Source{"file": source(m.b), "stream": pipe(m.b)} {
				w, err := look(src, l)
				// A prefix that says the same as what lay there is no tear.
				if whole := bytes.Equal(m.b[fresh:fresh+slotFrame], file[fresh:fresh+slotFrame]); err != nil || (w == nil) != (cut.clean || whole && cut.write == 0) {
					t.Fatalf("%s, %s: %q, %v", name, kind, w, err)
				}
			}
			if got, err := holds(source(m.b), l); err != nil || got != describe(cut.want) {
				t.Fatalf("%s: holds %s, %v, want %s", name, got, err, describe(cut.want))
			}
			want := []string{"sealift.json"}
			for _, s := range cut.want.Signatures {
				want = append(want, archive.SignatureName(s))
			}
			slices.Sort(want[1:])
			for _, e := range cut.want.Trust {
				want = append(want, fmt.Sprintf("trust/%d.root.json", e.Number))
			}
			if got := decodes(t, z, m.b, l.Head()+archive.SlotsSize); !slices.Equal(got, want) {
				t.Fatalf("%s: zstd and tar see %q, want %q", name, got, want)
			}
			m.stop, m.writes = -1, 0
			if err := m.resign(context.Background(), c); err != nil {
				t.Fatalf("%s, signing again: %v", name, err)
			}
			if w, err := look(source(m.b), l); err != nil || w != nil {
				t.Fatalf("%s, signed again: %q, %v", name, w, err)
			}
			if got, err := holds(source(m.b), l); err != nil || got != describe(c) {
				t.Fatalf("%s, signed again: holds %s, %v", name, got, err)
			}
		}
		if len(tears) < 300 {
			t.Fatalf("%d tears", len(tears))
		}
	}
}

// TestResignOnABadMedium: one that reports errors, and one that says it has written what it has
// not. The switch is never thrown to a slot that cannot be read.
func TestResignOnABadMedium(t *testing.T) {
	p := packOf(t, random(1, 100))
	old := archive.SlotContent{Signatures: [][]byte{[]byte("old")}}
	p.signatures = old.Signatures
	l := p.write(t).layout(t)
	file := p.file(t)
	c := archive.SlotContent{Signatures: [][]byte{[]byte("new")}}
	broken := errors.New("input/output error")
	for n := 1; n <= 3; n++ {
		m := newSlotMedium(file)
		m.sync = func(writes int) error {
			if writes == n {
				return broken
			}
			return nil
		}
		err := m.resign(context.Background(), c)
		got, e := holds(source(m.b), l)
		want := describe(c)
		if n == 1 {
			want = describe(old)
		}
		if !errors.Is(err, broken) || e != nil || got != want || m.writes != n {
			t.Errorf("sync %d fails: %v; holds %s, %v after %d writes", n, err, got, e, m.writes)
		}
	}
	flipped := func(at int64) func([]byte, int, int) []byte {
		return func(b []byte, writes, when int) []byte {
			if writes != when {
				return b
			}
			b = bytes.Clone(b)
			b[at] ^= 1
			return b
		}
	}
	for name, c := range map[string]struct {
		at     int64
		when   int
		writes int
	}{
		"the new slot, before the switch":     {l.Head() + slotB + 3000, 1, 1},
		"the active slot, before the switch":  {l.Head() + slotA + 3000, 1, 1},
		"the manifest, before the switch":     {600, 1, 1},
		"the new slot, at the end":            {l.Head() + slotB + 3000, 3, 3},
		"the former slot, at the end":         {l.Head() + slotA + 3000, 3, 3},
		"the switch, at the end":              {l.Head() + 4, 3, 3},
		"the header between them, at the end": {l.Head() + slotB - 1, 3, 3},
	} {
		m := newSlotMedium(file)
		m.answer = func(b []byte, writes int) []byte { return flipped(c.at)(b, writes, c.when) }
		err := m.resign(context.Background(), archive.SlotContent{Signatures: [][]byte{[]byte("new")}})
		var written *archive.WrittenError
		if !errors.As(err, &written) || m.writes != c.writes {
			t.Errorf("%s: %v after %d writes", name, err, m.writes)
		}
	}
	// Nothing of the writing arrives.
	m := newSlotMedium(file)
	m.answer = func([]byte, int) []byte { return file }
	var written *archive.WrittenError
	if err := m.resign(context.Background(), c); !errors.As(err, &written) || m.writes != 1 {
		t.Errorf("nothing arrives: %v after %d writes", err, m.writes)
	}
}

// TestKilledSigning kills a process that signs again and again: the bundle is always one that was
// signed.
func TestKilledSigning(t *testing.T) {
	const variable = "SEALIFT_TEST_SIGN"
	if path := os.Getenv(variable); path != "" {
		for i := 0; ; i++ {
			c := archive.SlotContent{Signatures: [][]byte{[]byte(strconv.Itoa(i))}, Trust: trustOf(i+1, 1, 5000)}
			err := archive.Resign(context.Background(), &archive.Files{Name: path, File: path}, to(c))
			if err != nil {
				t.Fatal(err)
			}
			fmt.Println("signed")
		}
	}
	p := packOf(t, random(1, 100))
	p.signatures = [][]byte{[]byte("0")}
	l := p.write(t).layout(t)
	for round := range 12 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilledSigning$", "-test.count=1")
		cmd.Env = append(os.Environ(), variable+"="+p.path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// The kill comes at another moment each time.
		lines := make([]byte, 7*(round+1)+round)
		_, err = io.ReadFull(out, lines)
		if e := errors.Join(err, cmd.Process.Kill()); e != nil {
			t.Fatal(e)
		}
		_ = cmd.Wait() // it was killed
		h, err := archive.ReadHead(source(p.file(t)))
		if err != nil || len(h.Signatures) != 1 {
			t.Fatalf("round %d: %d signatures, %v", round, len(h.Signatures), err)
		}
		if i, err := strconv.Atoi(string(h.Signatures[0].Body)); err != nil || len(h.Trust) != 1 || h.Trust[0].Number != i+1 {
			t.Fatalf("round %d: signature %q with other trust entries", round, h.Signatures[0].Body)
		}
		if err := verify(p.file(t), l); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	c := archive.SlotContent{Signatures: [][]byte{[]byte("at last")}}
	p.resign(t, c)
	if w, err := look(source(p.file(t)), l); err != nil || w != nil {
		t.Errorf("signed at last: %q, %v", w, err)
	}
}

// TestToolsSeeTheActiveSlot: whichever it is, with the programs that are on this machine.
func TestToolsSeeTheActiveSlot(t *testing.T) {
	p := packOf(t, random(1, 100))
	p.signatures, p.trust = [][]byte{[]byte("of slot A")}, trustOf(9, 2, 600)
	p.write(t)
	for _, tool := range [][]string{{"tar", "-tf", "-"}, {"bsdtar", "-tf", "-"}, {"busybox", "tar", "-tf", "-"}} {
		t.Run(tool[0], func(t *testing.T) {
			for _, program := range []string{"zstd", tool[0]} {
				if _, err := exec.LookPath(program); err != nil {
					t.Skipf("%s is not installed", program)
				}
			}
			for _, c := range []archive.SlotContent{
				{Signatures: [][]byte{[]byte("of slot B")}},
				{Signatures: [][]byte{[]byte("of slot A again")}, Trust: trustOf(99, 2, 1)},
			} {
				p.resign(t, c)
				plain, err := exec.Command("zstd", "-qdc", p.path).Output()
				if err != nil {
					t.Fatal(err)
				}
				cmd := exec.Command(tool[0], tool[1:]...)
				cmd.Stdin = bytes.NewReader(plain)
				out, err := cmd.Output()
				if err != nil {
					t.Fatal(err)
				}
				want := []string{"sealift.json"}
				for _, s := range c.Signatures {
					want = append(want, archive.SignatureName(s))
				}
				for _, e := range c.Trust {
					want = append(want, fmt.Sprintf("trust/%d.root.json", e.Number))
				}
				want = append(want, blob(p.blobs[0]).Name)
				if got := strings.Fields(string(out)); !slices.Equal(got, want) {
					t.Errorf("slot %c: %q, want %q", active(t, p), got, want)
				}
			}
		})
	}
}

// signedAgain is a bundle whose slot B is the active one and holds trust entries, with what an
// interrupted signing left in slot A if that is asked for.
func signedAgain(t *testing.T, interrupted bool) (*pack, archive.SlotContent) {
	t.Helper()
	p := packOf(t, random(1, 3<<20), random(2, 1000))
	p.signatures = [][]byte{[]byte("first")}
	l := p.write(t).layout(t)
	c := archive.SlotContent{Signatures: [][]byte{[]byte("first"), []byte("second")}, Trust: trustOf(3, 4, 1000)}
	p.resign(t, c)
	if active(t, p) != 'B' {
		t.Fatalf("slot %c is active", active(t, p))
	}
	if interrupted {
		b := p.file(t)
		copy(b[l.Head()+slotA+1000:], random(5, 2000))
		save(t, p.path, b)
	}
	return p, c
}

// TestSignedAgainInUse: a bundle that was signed again is cut, joined, streamed and repaired like
// any other, and so is one whose signing was interrupted.
func TestSignedAgainInUse(t *testing.T) {
	for _, interrupted := range []bool{false, true} {
		t.Run(fmt.Sprint(interrupted), func(t *testing.T) {
			p, c := signedAgain(t, interrupted)
			file, l := p.file(t), p.layout(t)
			sound := func(what string, src archive.Source) {
				t.Helper()
				if got, err := holds(src, l); err != nil || got != describe(c) {
					t.Errorf("%s: holds %s, %v", what, got, err)
				}
				if w, err := look(src, l); err != nil || (w != nil) != interrupted {
					t.Errorf("%s: %q, %v", what, w, err)
				}
			}
			cut := p.copyTo(t, source(file), archive.MinVolume)
			if !bytes.Equal(cut.file(t), file) {
				t.Error("the volumes are not the file")
			}
			sound("volumes", openVolumes(t, cut))
			r, err := reader(openVolumes(t, cut), l)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Examine(context.Background(), ignore); err != nil {
				t.Errorf("examining the volumes: %v", err)
			}
			if one := cut.copyTo(t, openVolumes(t, cut), 0); !bytes.Equal(one.file(t), file) {
				t.Error("what was joined is not the file")
			}
			if w, err := look(pipe(file), l); err != nil || (w != nil) != interrupted {
				t.Errorf("a stream: %q, %v", w, err)
			}
			// Volumes are signed as well as files.
			cut.resign(t, archive.SlotContent{Signatures: [][]byte{[]byte("in volumes")}})
			if w, err := look(openVolumes(t, cut), l); err != nil || w != nil {
				t.Errorf("volumes that were signed: %q, %v", w, err)
			}
			for _, damaged := range []struct {
				name     string
				from, to int64
				// slots tells that the ones of the parity come back.
				slots bool
			}{
				{"the payload", l.Head() + archive.SlotsSize + 1<<20, l.Head() + archive.SlotsSize + 1<<20 + 1000, false},
				{"the manifest", 0, 100, false},
				{"slots and payload", l.Head() + slotB + 5000, l.Head() + archive.SlotsSize + 1000, true},
				{"the switch", l.Head() + 4, l.Head() + 8, true},
			} {
				bad := bytes.Clone(file)
				copy(bad[damaged.from:damaged.to], random(7, int(damaged.to-damaged.from)))
				save(t, p.path, bad)
				if verify(bad, l) == nil {
					t.Fatalf("%s: not damaged", damaged.name)
				}
				if got := archive.SoundSlots(bad[l.Head() : l.Head()+archive.SlotsSize]); got == damaged.slots {
					t.Errorf("%s: the slots are sound: %v", damaged.name, got)
				}
				p.repair(t, file)
				sound("repaired: "+damaged.name, source(p.file(t)))
			}
		})
	}
}

// repair repairs a pack by the parity of what it was, as package verify does.
func (p *pack) repair(t *testing.T, was []byte) {
	t.Helper()
	ctx, l := context.Background(), p.layout(t)
	hole := parity.Range{Offset: l.Head(), Size: archive.SlotsSize}
	g, err := parity.Percent(l.Size(), 0.3)
	if err != nil {
		t.Fatal(err)
	}
	var out []parity.File
	var in []parity.Input
	for _, size := range g.Files(hole.Size, l.Size()) {
		f, err := os.Create(filepath.Join(t.TempDir(), "parity"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		out, in = append(out, f), append(in, parity.Input{ReaderAt: f, Size: size})
	}
	meta := parity.Meta{Identity: sha256.Sum256(p.raw), Hole: hole, HoleContent: bytes.Clone(was[hole.Offset:hole.End()])}
	if err := parity.Encode(ctx, bytes.NewReader(was), g, meta, out, l.Size(), ignore); err != nil {
		t.Fatal(err)
	}
	set, unusable, err := parity.Open(in, nil)
	if err := errors.Join(append(unusable, err)...); err != nil {
		t.Fatal(err)
	}
	src, err := archive.OpenDamaged(p.files(t), l.Size())
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	report, err := set.Check(ctx, src, ignore)
	if err != nil {
		t.Fatal(err)
	}
	slots := make([]byte, hole.Size)
	if _, err := src.ReadAt(slots, hole.Offset); err != nil {
		t.Fatal(err)
	}
	if !archive.SoundSlots(slots) {
		slots = set.HoleContent()
	}
	m, err := archive.NewMender(ctx, p.files(t), src, l.Size(), "")
	if err != nil {
		t.Fatal(err)
	}
	err = set.Repair(ctx, src, report, func(b []byte, off int64) error {
		b = bytes.Clone(b)
		if from := max(off, hole.Offset); from < min(hole.End(), off+int64(len(b))) {
			copy(b[from-off:], slots[from-hole.Offset:])
		}
		return m.Restore(ctx, b, off)
	}, ignore)
	if err == nil {
		err = m.Restore(ctx, slots, hole.Offset)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Publish(); err != nil {
		t.Fatal(err)
	}
}
