package archive_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealift/sealift/internal/archive"
)

const mib = 1 << 20

// cutPack is a bundle in volumes whose frames cross most of their borders: small blobs, and two
// that span several volumes. Those of other seeds have the same layout.
func cutPack(t testing.TB, seed uint64, volume int64) *pack {
	t.Helper()
	p := packOf(t, random(seed, 100), random(seed+1, 7*mib), random(seed+2, 200000), random(seed+3, 5*mib+5), random(seed+4, 300))
	p.raw = fmt.Appendf(nil, `{"seed":%06d}`, seed)
	p.volume = volume
	p.signatures = [][]byte{[]byte("sig")}
	return p.write(t)
}

// set is the volumes of a pack, by number, to be spoilt. What differs from the pack is written
// to a directory of its own when it is opened.
type set struct {
	*pack
	volumes map[int][]byte
	// paths of those that are as they were.
	paths map[int]string
}

// set returns the volumes of a pack in memory; sets of one pack share them, so that nobody may
// change one in its place.
func (p *pack) set(t testing.TB) set {
	t.Helper()
	s := set{p, map[int][]byte{}, volumesOf(t, p)}
	for n, path := range s.paths {
		s.volumes[n] = read(t, path)
	}
	return s
}

// clone is a set to be spoilt in its own way.
func (s set) clone() set { return set{s.pack, maps.Clone(s.volumes), maps.Clone(s.paths)} }

func (s set) put(n int, b []byte) {
	s.volumes[n] = b
	delete(s.paths, n)
}

func (s set) flip(n, at int) {
	b := bytes.Clone(s.volumes[n])
	b[at] ^= 1
	s.put(n, b)
}

// cut takes n bytes off the end of a volume, or adds some.
func (s set) cut(volume, n int) {
	b := s.volumes[volume]
	if n < 0 {
		s.put(volume, append(bytes.Clone(b), make([]byte, -n)...))
	} else {
		s.put(volume, b[:len(b)-n])
	}
}

func (s set) remove(n int) {
	delete(s.volumes, n)
	delete(s.paths, n)
}

func (s set) exchange(a, b int) {
	x, y := s.volumes[a], s.volumes[b]
	s.put(a, y)
	s.put(b, x)
}

func (s set) open(t testing.TB) (*archive.Reader, error) {
	t.Helper()
	dir, paths := t.TempDir(), map[int]string{}
	for n, b := range s.volumes {
		if paths[n] = s.paths[n]; paths[n] == "" {
			paths[n] = archive.VolumeName(filepath.Join(dir, "b"), n)
			save(t, paths[n], b)
		}
	}
	src, err := archive.OpenVolumes("b", paths)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = src.Close() })
	return reader(src, s.layout(t))
}

// said is what an error says of the volumes: the number and the problem of each, in order.
func said(err error) string {
	var v *archive.VolumesError
	if !errors.As(err, &v) {
		return fmt.Sprintf("%T %v", err, err)
	}
	parts := make([]string, 0, len(v.Problems))
	for _, p := range v.Problems {
		s := fmt.Sprintf("%d %s", p.Number, p.Kind)
		switch p.Kind {
		case archive.VolumeSwapped:
			s += fmt.Sprintf(" %d", p.Is)
		case archive.VolumeDamaged, archive.VolumeUnreadable:
			s += fmt.Sprintf(" %d", p.Offset)
		case archive.VolumeShort, archive.VolumeLong:
			s += fmt.Sprintf(" %+d", p.Got-p.Want)
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, ", ")
}

// TestBadVolumesAreNamed: each of them, and no other. fit is what the sizes alone tell, examine
// what reading all of it does.
func TestBadVolumesAreNamed(t *testing.T) {
	const v = 2 * mib
	p, other := cutPack(t, 1000, v), cutPack(t, 2000, v)
	whole, foreign := p.set(t), other.set(t)
	n, short := p.count(t), len(whole.volumes[p.count(t)])
	if n != 7 {
		t.Fatalf("%d volumes; the numbers below are for 7", n)
	}
	const butTheFirst = "2 missing, 3 missing, 4 missing, 5 missing, 6 missing, 7 missing"
	for name, c := range map[string]struct {
		spoil        func(s set)
		fit, examine string
	}{
		"nothing": {func(set) {}, "", ""},

		"missing":           {func(s set) { s.remove(3) }, "3 missing", "3 missing"},
		"the last missing":  {func(s set) { s.remove(n) }, "7 missing", "7 missing"},
		"two missing":       {func(s set) { s.remove(3); s.remove(4) }, "3 missing, 4 missing", "3 missing, 4 missing"},
		"only the first":    {func(s set) { clear(s.volumes); s.volumes[1] = whole.volumes[1] }, butTheFirst, butTheFirst},
		"short":             {func(s set) { s.cut(3, 1000) }, "3 short -1000", "3 short -1000"},
		"short by a byte":   {func(s set) { s.cut(3, 1) }, "3 short -1", "3 short -1"},
		"empty":             {func(s set) { s.cut(3, v) }, "3 short -2097152", "3 short -2097152"},
		"the first short":   {func(s set) { s.cut(1, 1) }, "1 short -1", "1 short -1"},
		"the last short":    {func(s set) { s.cut(n, 1) }, "7 short -1", "7 short -1"},
		"the last empty":    {func(s set) { s.cut(n, short) }, fmt.Sprint("7 short -", short), fmt.Sprint("7 short -", short)},
		"long":              {func(s set) { s.cut(3, -2) }, "3 long +2", "3 long +2"},
		"the first long":    {func(s set) { s.cut(1, -1) }, "1 long +1", "1 long +1"},
		"the last long":     {func(s set) { s.cut(n, -1) }, "7 long +1", "7 long +1"},
		"one more":          {func(s set) { s.put(8, []byte("x")) }, "8 extra", "8 extra"},
		"one much later":    {func(s set) { s.put(99, s.volumes[3]) }, "99 extra", "99 extra"},
		"missing and short": {func(s set) { s.remove(2); s.cut(5, v-7) }, "2 missing, 5 short -2097145", "2 missing, 5 short -2097145"},

		"a bit in a frame":         {func(s set) { s.flip(4, 1000000) }, "", "4 damaged 137033"},
		"a bit in the first":       {func(s set) { s.flip(1, 4096+archive.SlotsSize+8) }, "", "1 damaged 135226"}, // a header
		"in the inactive slot":     {func(s set) { s.flip(1, 4096+slotB+100) }, "", ""},                           // a warning
		"zeros":                    {func(s set) { s.put(4, make([]byte, v)) }, "", "4 damaged 5954"},
		"garbage":                  {func(s set) { s.put(4, random(1, v)) }, "", "4 damaged 5954"},
		"zeros in the last":        {func(s set) { s.put(n, make([]byte, short)) }, "", "7 damaged 76377"},
		"two damaged":              {func(s set) { s.flip(2, 1000000); s.flip(6, 1000000) }, "", "2 damaged 136881, 6 damaged 338455"},
		"missing beside damaged":   {func(s set) { s.remove(3); s.flip(4, 1000000) }, "3 missing", "3 missing, 4 damaged 137033"},
		"a bit in the check table": {func(s set) { s.flip(n, short-300) }, "", fmt.Sprint("7 damaged ", short-300)},
		"the last byte":            {func(s set) { s.flip(n, short-1) }, "", fmt.Sprint("7 damaged ", short-1)},

		"exchanged":              {func(s set) { s.exchange(2, 3) }, "", "2 swapped 3, 3 swapped 2"},
		"turned":                 {func(s set) { s.exchange(2, 3); s.exchange(3, 5) }, "", "2 swapped 3, 3 swapped 5, 5 swapped 2"},
		"one twice":              {func(s set) { s.put(5, s.volumes[3]) }, "", "5 swapped 3"},
		"the last exchanged":     {func(s set) { s.exchange(4, n) }, "4 swapped 7, 7 swapped 4", "4 swapped 7, 7 swapped 4"},
		"exchanged, one missing": {func(s set) { s.exchange(2, 3); s.remove(5) }, "5 missing", "2 swapped 3, 3 swapped 2, 5 missing"},

		"foreign":                 {func(s set) { s.put(3, foreign.volumes[3]) }, "", "3 foreign"},
		"another foreign":         {func(s set) { s.put(6, foreign.volumes[6]) }, "", "6 foreign"},
		"two foreign":             {func(s set) { s.put(3, foreign.volumes[3]); s.put(4, foreign.volumes[4]) }, "", "3 foreign, 4 foreign"},
		"the last foreign":        {func(s set) { s.put(n, foreign.volumes[n]) }, "", "7 foreign"},
		"foreign beside missing":  {func(s set) { s.put(3, foreign.volumes[3]); s.remove(4) }, "4 missing", "3 foreign, 4 missing"},
		"foreign beside damaged":  {func(s set) { s.put(3, foreign.volumes[3]); s.flip(4, 1000000) }, "", "3 foreign, 4 damaged 137033"},
		"foreign, the last gone":  {func(s set) { s.put(3, foreign.volumes[3]); s.remove(n) }, "7 missing", "3 damaged 0, 7 missing"},
		"foreign, another number": {func(s set) { s.put(3, foreign.volumes[5]) }, "", "3 foreign"},
		"all but the first foreign": {func(s set) {
			for i := 2; i <= n; i++ {
				s.put(i, foreign.volumes[i])
			}
		}, "", "2 foreign, 3 foreign, 4 foreign, 5 foreign, 6 foreign, 7 foreign"},
	} {
		t.Run(name, func(t *testing.T) {
			s := whole.clone()
			c.spoil(s)
			r, err := s.open(t)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Fit(); err != nil || c.fit != "" {
				if got := said(err); got != c.fit {
					t.Errorf("the sizes say %s, want %s", got, c.fit)
				}
			}
			var passed int64
			err = r.Examine(context.Background(), func(n int64) { passed += n })
			if got := said(err); (err != nil || c.examine != "") && got != c.examine {
				t.Errorf("the bytes say %s, want %s", got, c.examine)
			}
			if passed != p.layout(t).Size() {
				t.Errorf("told of %d bytes of %d", passed, p.layout(t).Size())
			}
			// What finds only the first difference finds that there is one, too.
			if err := r.Verify(context.Background(), ignore); (err != nil) != (c.examine != "") && c.fit == "" {
				t.Errorf("verifying: %v", err)
			}
		})
	}
}

// TestTwoVolumes have no majority: which of them has the right size, their content tells.
func TestTwoVolumes(t *testing.T) {
	p := packOf(t, random(1, 100), random(2, mib+300000))
	p.volume = mib
	whole := p.write(t).set(t)
	last := len(whole.volumes[2])
	for name, c := range map[string]struct {
		spoil func(s set)
		want  string
	}{
		"first short":         {func(s set) { s.cut(1, 2000) }, "1 short -2000"},
		"first long":          {func(s set) { s.cut(1, -2000) }, "1 long +2000"},
		"last short":          {func(s set) { s.cut(2, 2000) }, "2 short -2000"},
		"last short by one":   {func(s set) { s.cut(2, 1) }, "2 short -1"},
		"last long":           {func(s set) { s.cut(2, -2000) }, "2 long +2000"},
		"last missing":        {func(s set) { s.remove(2) }, "2 missing"},
		"last of another one": {func(s set) { s.put(2, make([]byte, 5)) }, fmt.Sprintf("2 short %d", 5-last)},
	} {
		t.Run(name, func(t *testing.T) {
			s := whole.clone()
			c.spoil(s)
			r, err := s.open(t)
			if err != nil {
				t.Fatal(err)
			}
			if got := said(r.Fit()); got != c.want {
				t.Errorf("the sizes say %s, want %s", got, c.want)
			}
			if got := said(r.Examine(context.Background(), ignore)); got != c.want {
				t.Errorf("the bytes say %s, want %s", got, c.want)
			}
		})
	}
}

// TestOnlyFramesAtBorders: in volumes of the least size every large frame lies in two of them.
// Whatever a volume holds that has nothing of the bundle, it alone is blamed.
func TestOnlyFramesAtBorders(t *testing.T) {
	p, other := cutPack(t, 1000, mib), cutPack(t, 2000, mib)
	whole, foreign := p.set(t), other.set(t)
	for n := 2; n < p.count(t); n++ {
		for name, b := range map[string][]byte{
			"zeros": make([]byte, mib), "garbage": random(1, mib), "foreign": foreign.volumes[n],
			"another": whole.volumes[n%(p.count(t)-1)+1], "half": append(bytes.Clone(whole.volumes[n][:mib/2]), make([]byte, mib/2)...),
		} {
			s := whole.clone()
			s.put(n, b)
			r, err := s.open(t)
			if err != nil {
				t.Fatal(err)
			}
			var v *archive.VolumesError
			if err := r.Examine(context.Background(), ignore); !errors.As(err, &v) || len(v.Problems) != 1 || v.Problems[0].Number != n {
				t.Errorf("volume %d, %s: %v", n, name, err)
			}
		}
		s := whole.clone()
		s.remove(n)
		r, err := s.open(t)
		if err != nil {
			t.Fatal(err)
		}
		if got := said(r.Examine(context.Background(), ignore)); got != fmt.Sprintf("%d missing", n) {
			t.Errorf("volume %d is missing: %s", n, got)
		}
	}
}

// TestDamageAtABorder: a frame that only its checksum shows to be damaged is the fault of either
// of the volumes that it lies in. Then both are named, unless one of them is known to be bad.
func TestDamageAtABorder(t *testing.T) {
	const v = 2 * mib
	whole := cutPack(t, 1000, v).set(t)
	for name, c := range map[string]struct {
		spoil func(s set)
		want  string
	}{
		"before it":             {func(s set) { s.flip(3, v-100) }, "3 damaged 1185571, 4 damaged 0"},
		"behind it":             {func(s set) { s.flip(4, 100) }, "3 damaged 1185571, 4 damaged 0"},
		"beside a short one":    {func(s set) { s.flip(4, 100); s.cut(3, 1) }, "3 short -1"},
		"beside a missing one":  {func(s set) { s.flip(3, v-100); s.remove(4) }, "4 missing"},
		"beside a damaged one":  {func(s set) { s.flip(3, v-100); s.flip(4, 1000000) }, "4 damaged 137033"},
		"in a block's header":   {func(s set) { s.flip(4, 5954) }, "4 damaged 5954"},
		"in the frame's header": {func(s set) { s.flip(3, 1185571) }, "3 damaged 1185571"},
	} {
		t.Run(name, func(t *testing.T) {
			s := whole.clone()
			c.spoil(s)
			r, err := s.open(t)
			if err != nil {
				t.Fatal(err)
			}
			if got := said(r.Examine(context.Background(), ignore)); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

// TestWhatPeopleRead: the words of the errors.
func TestWhatPeopleRead(t *testing.T) {
	for _, c := range []struct {
		err  *archive.VolumesError
		want string
	}{
		{
			&archive.VolumesError{Count: 12, Checked: true, Problems: []archive.VolumeProblem{{Number: 7, Path: "b.007", Kind: archive.VolumeDamaged, Offset: 1_230_000_000}}},
			`volume 7 of 12 ("b.007") is damaged at 1.2 GB (byte 1230000000); the others are good`,
		},
		{
			&archive.VolumesError{Count: 2, Checked: true, Problems: []archive.VolumeProblem{{Number: 1, Kind: archive.VolumeMissing}}},
			`volume 1 of 2 is missing; the other one is good`,
		},
		{
			&archive.VolumesError{Count: 3, Problems: []archive.VolumeProblem{{Number: 2, Path: "b.002", Kind: archive.VolumeShort, Got: 5, Want: 10}}},
			`volume 2 of 3 ("b.002") is cut short: 5 bytes, want 10; the others are there and were not read`,
		},
		{
			&archive.VolumesError{Count: 2, Problems: []archive.VolumeProblem{{Number: 1, Path: "b.001", Kind: archive.VolumeLong, Got: 11, Want: 10}, {Number: 2, Path: "b.002", Kind: archive.VolumeForeign}}},
			`volume 1 of 2 ("b.001") is too long: 11 bytes, want 10; volume 2 of 2 ("b.002") is of another bundle`,
		},
		{
			&archive.VolumesError{Count: 3, Checked: true, Problems: []archive.VolumeProblem{{Number: 2, Path: "b.002", Kind: archive.VolumeSwapped, Is: 3}, {Number: 3, Path: "b.003", Kind: archive.VolumeSwapped, Is: 2}}},
			`volume 2 of 3 ("b.002") is really volume 3; volume 3 of 3 ("b.003") is really volume 2; the other one is good`,
		},
		{
			&archive.VolumesError{Count: 1, Checked: true, Problems: []archive.VolumeProblem{{Number: 2, Path: "b.002", Kind: archive.VolumeExtra}}},
			`volume 2 ("b.002") is not of this bundle, which has 1; the other one is good`,
		},
		{
			&archive.VolumesError{Count: 2, Checked: true, Problems: []archive.VolumeProblem{{Number: 2, Path: "b.002", Kind: archive.VolumeUnreadable, Offset: 2048}}},
			`volume 2 of 2 ("b.002") cannot be read at 2.0 kB (byte 2048); the other one is good`,
		},
	} {
		if got := c.err.Error(); got != c.want {
			t.Errorf("%s\nwant %s", got, c.want)
		}
	}
}

// TestFirstVolume says what all others are. What is there of them is looked at, all the same.
func TestFirstVolume(t *testing.T) {
	p := cutPack(t, 1000, 2*mib)
	whole := p.set(t)
	s := whole.clone()
	s.remove(1)
	if _, err := s.open(t); said(err) != "1 missing" {
		t.Errorf("missing: %v", err)
	}
	s = whole.clone()
	s.exchange(1, 4)
	if _, err := s.open(t); said(err) != "1 swapped 4, 4 swapped 1" {
		t.Errorf("exchanged: %v", err)
	}
	for name, b := range map[string][]byte{"garbage": random(1, mib), "empty": nil, "short": whole.volumes[1][:100]} {
		s = whole.clone()
		s.put(1, b)
		if _, err := s.open(t); !errors.Is(err, archive.ErrNotBundle) {
			t.Errorf("%s: %v, want ErrNotBundle", name, err)
		}
	}
	s = whole.clone()
	s.put(1, s.volumes[1][:600])
	var d *archive.DamageError
	if _, err := s.open(t); !errors.As(err, &d) || d.Place == nil || d.Place.Number != 1 || d.Place.Offset != 600 {
		t.Errorf("cut in the manifest: %v", err)
	}
}

// TestVolumesAreOnlyRead: media are written to by nobody. (What is read-only for all but root,
// is not so for root: what is there is compared as well.)
func TestVolumesAreOnlyRead(t *testing.T) {
	p := cutPack(t, 1000, 2*mib)
	dir := filepath.Dir(p.path)
	before := map[string]os.FileInfo{}
	for _, path := range volumesOf(t, p) {
		if err := os.Chmod(path, 0o400); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		before[path] = info
	}
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(dir, 0o700) })
	found, err := archive.Find([]string{p.path})
	if err != nil {
		t.Fatal(err)
	}
	src, err := found[0].Open()
	if err != nil {
		t.Fatal(err)
	}
	r, err := reader(src, p.layout(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.Fit(), r.Examine(context.Background(), ignore), r.Verify(context.Background(), ignore), src.Close()); err != nil {
		t.Fatal(err)
	}
	if len(volumesOf(t, p)) != len(before) || len(strings.Fields(names(t, dir))) != len(before) {
		t.Errorf("the directory holds %q", names(t, dir))
	}
	for path, was := range before {
		if now, err := os.Stat(path); err != nil || !now.ModTime().Equal(was.ModTime()) || now.Size() != was.Size() {
			t.Errorf("%s has changed", path)
		}
	}
}

// TestTooManyVolumes: three digits number them.
func TestTooManyVolumes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b")
	save(t, path, []byte("x"))
	if _, err := archive.OpenVolumes("b", map[int]string{1: path, 1000: path}); !errors.Is(err, archive.ErrLimit) {
		t.Errorf("volume 1000: %v", err)
	}
	if _, err := archive.OpenVolumes("b", nil); said(err) != "1 missing" {
		t.Errorf("no volumes: %v", err)
	}
	// A size that would make more of them.
	src, err := archive.OpenVolumes("b", map[int]string{1: path})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = src.Close() }()
	var size *archive.SizeError
	if err := src.Fit(1 << 40); !errors.As(err, &size) {
		t.Errorf("a terabyte in volumes of a byte: %v", err)
	}
}

func TestExamineEndsWithItsContext(t *testing.T) {
	r, err := cutPack(t, 1, 2*mib).set(t).open(t)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.Examine(ctx, ignore); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// FuzzVolumes: whatever sizes volumes have, nothing panics, and what is read lies where Place
// says.
func FuzzVolumes(f *testing.F) {
	f.Add(int64(3*mib+1), int32(mib), int32(mib), int32(mib), int32(1), int64(mib-5), uint16(10))
	f.Add(int64(2*mib), int32(-1), int32(0), int32(2*mib), int32(7), int64(0), uint16(65535))
	f.Add(int64(1), int32(0), int32(0), int32(0), int32(0), int64(1), uint16(1))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, total int64, a, b, c, d int32, off int64, n uint16) {
		if total < 0 || total > archive.MaxFile || off < 0 || off > archive.MaxFile {
			return // what no layout gives
		}
		paths := map[int]string{}
		for i, size := range []int32{a, b, c, d} {
			if size < 0 {
				continue
			}
			path := filepath.Join(dir, fmt.Sprint(i))
			save(t, path, nil)
			if err := os.Truncate(path, int64(size)%(4*mib)); err != nil {
				t.Fatal(err)
			}
			paths[i+1] = path
		}
		src, err := archive.OpenVolumes("b", paths)
		if err != nil {
			return
		}
		defer func() { _ = src.Close() }()
		for range 2 { // before and after the sizes are known
			if at := src.Place(off); at.Number >= 1 && at.Number <= 4 && at.Path != "" && at.Offset < 4*mib {
				mark(t, at.Path, at.Offset)
			}
			p := make([]byte, n)
			got, err := src.ReadAt(p, off)
			if got < len(p) && err == nil {
				t.Fatalf("%d of %d bytes and no error", got, len(p))
			}
			if got > 0 && p[0] != 'm' {
				t.Fatalf("byte %d is not the one at %+v", off, src.Place(off))
			}
			if err := src.Fit(total); err != nil && !errors.As(err, new(*archive.VolumesError)) && !errors.As(err, new(*archive.SizeError)) {
				t.Fatal(err)
			}
		}
	})
}

// mark writes an m to a place in a file, if that has it.
func mark(t *testing.T, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := f.Stat(); err == nil && at < info.Size() {
		_, err = f.WriteAt([]byte("m"), at)
		if err != nil {
			t.Error(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
