package archive

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
)

const (
	// MinVolume is the least size of a volume, in bytes.
	MinVolume = 1 << 20
	// MaxVolumes is how many volumes the three digits of their names can number, so that the
	// order of the names is the order of the volumes.
	MaxVolumes = 999
)

// VolumeName is the name of volume number (from 1) of the file called name.
func VolumeName(name string, number int) string { return fmt.Sprintf("%s.%03d", name, number) }

// Kinds of problems with a volume.
const (
	VolumeMissing    = "missing"
	VolumeShort      = "short"
	VolumeLong       = "long"
	VolumeDamaged    = "damaged"
	VolumeUnreadable = "unreadable"
	VolumeForeign    = "foreign"
	VolumeSwapped    = "swapped"
	VolumeExtra      = "extra"
)

// VolumeProblem says what is wrong with one volume.
type VolumeProblem struct {
	Number int    `json:"number"`
	Path   string `json:"path,omitempty"`
	Kind   string `json:"kind"`
	// Offset in the volume of the first damage, in bytes.
	Offset int64 `json:"offset,omitempty"`
	// Size that the volume has, and the one that it must have.
	Got  int64 `json:"got,omitempty"`
	Want int64 `json:"want,omitempty"`
	// Is the number of the volume that a swapped one really is.
	Is int `json:"is,omitempty"`
}

func (p VolumeProblem) text(count int) string {
	s := fmt.Sprintf("volume %d of %d", p.Number, count)
	if p.Path != "" {
		s += fmt.Sprintf(" (%q)", p.Path)
	}
	switch p.Kind {
	case VolumeMissing:
		return s + " is missing"
	case VolumeShort:
		return fmt.Sprintf("%s is cut short: %d bytes, want %d", s, p.Got, p.Want)
	case VolumeLong:
		return fmt.Sprintf("%s is too long: %d bytes, want %d", s, p.Got, p.Want)
	case VolumeForeign:
		return s + " is of another bundle"
	case VolumeSwapped:
		return fmt.Sprintf("%s is really volume %d", s, p.Is)
	case VolumeExtra:
		return fmt.Sprintf("volume %d (%q) is not of this bundle, which has %d", p.Number, p.Path, count)
	case VolumeUnreadable:
		return fmt.Sprintf("%s cannot be read at %s (byte %d)", s, FormatBytes(p.Offset), p.Offset)
	}
	return fmt.Sprintf("%s is damaged at %s (byte %d)", s, FormatBytes(p.Offset), p.Offset)
}

// VolumesError names the volumes that have to be carried again.
type VolumesError struct {
	Count    int
	Problems []VolumeProblem
	// Checked tells that every byte of the others was compared, not only their sizes.
	Checked bool
}

// Error names each of them, and says what is known about the others.
func (e *VolumesError) Error() string {
	parts := make([]string, 0, len(e.Problems)+1)
	for _, p := range e.Problems {
		parts = append(parts, p.text(e.Count))
	}
	others := e.Count
	for _, p := range e.Problems {
		if p.Number <= e.Count {
			others--
		}
	}
	switch {
	case others <= 0:
	case e.Checked && others == 1:
		parts = append(parts, "the other one is good")
	case e.Checked:
		parts = append(parts, "the others are good")
	default:
		parts = append(parts, "the others are there and were not read")
	}
	return strings.Join(parts, "; ")
}

// volume is one file of a set.
type volume struct {
	path string
	file *os.File // nil where it is missing
	size int64
}

// volumeSource reads a file from its volumes, wherever they lie.
type volumeSource struct {
	name string
	// files by number, from 1 at index 0.
	files []volume
	// size of all volumes but the last.
	size int64
	// total size of the file, 0 until Fit.
	total int64
}

// OpenVolumes returns a source over the volumes with these paths, by number. Those that are
// missing are missed by Fit and when they are read; the first one must be there, since it says
// what the others are: *VolumesError else. name is what errors call the bundle.
func OpenVolumes(name string, paths map[int]string) (Source, error) {
	v, err := openVolumes(name, paths)
	if err != nil {
		return nil, err
	}
	if len(v.files) == 0 || v.files[0].file == nil {
		missing := &VolumesError{Count: max(len(v.files), 1), Problems: []VolumeProblem{{Number: 1, Kind: VolumeMissing}}}
		return nil, errors.Join(missing, v.Close())
	}
	v.size = max(v.files[0].size, MinVolume)
	return v, nil
}

func openVolumes(name string, paths map[int]string) (_ *volumeSource, err error) {
	v := &volumeSource{name: name, size: MinVolume}
	defer func() {
		if err != nil {
			err = errors.Join(err, v.Close())
		}
	}()
	last := 0
	for n := range paths {
		last = max(last, n)
	}
	if last > MaxVolumes {
		return nil, fmt.Errorf("volume %d of %q: at most %d are allowed: %w", last, name, MaxVolumes, ErrLimit)
	}
	v.files = make([]volume, last)
	for n, path := range paths {
		f, info, err := OpenRegular(path)
		if errors.Is(err, errNotRegular) {
			return nil, fmt.Errorf("%w: %w", ErrNotBundle, err)
		}
		if err != nil {
			return nil, err
		}
		v.files[n-1] = volume{path, f, info.Size()}
	}
	return v, nil
}

// want is the size that volume i (from 0) must have if all but the last have size bytes.
func want(i int, size, total int64) int64 {
	return max(0, min(size, total-int64(i)*size))
}

// Fit finds out which size the volumes have: the one that fits most of them. One that is short
// or long must not make all the others wrong.
func (v *volumeSource) Fit(n int64) error { return v.fit(n, nil) }

// fitLayout is Fit that asks the content where the sizes do not tell, as with two volumes: what
// layout says begins in a volume is looked for there.
func (v *volumeSource) fitLayout(l *Layout) error { return v.fit(l.size, l) }

func (v *volumeSource) fit(n int64, l *Layout) error {
	if len(v.files) == 0 {
		return &SizeError{0, n}
	}
	v.total = n
	best, fits := []int64{}, 0
	for _, c := range v.candidates() {
		m := 0
		for i, f := range v.files {
			if f.file != nil && f.size > 0 && f.size == want(i, c, n) {
				m++
			}
		}
		if m > fits {
			best, fits = best[:0], m
		}
		if m == fits {
			best = append(best, c)
		}
	}
	if len(best) == 0 {
		v.total = 0
		return &SizeError{v.files[0].size, n}
	}
	v.size = best[0]
	if len(best) > 1 && l != nil {
		most := math.MinInt
		for _, c := range best {
			if m := v.evidence(c, l); m > most {
				v.size, most = c, m
			}
		}
	}
	return v.problems()
}

// candidates are the sizes that volumes may have: that of the first one, then those of the
// others, in falling order, since a short copy is likelier than a long one, and what the last one
// leaves.
func (v *volumeSource) candidates() []int64 {
	var c []int64
	for _, f := range v.files[1:] {
		if f.file != nil {
			c = append(c, f.size)
		}
	}
	last := len(v.files) - 1
	if rest := v.total - v.files[last].size; last > 0 && rest%int64(last) == 0 {
		c = append(c, rest/int64(last))
	}
	slices.Sort(c)
	slices.Reverse(c)
	if v.files[0].file != nil {
		c = slices.Insert(c, 0, v.files[0].size)
	}
	return slices.DeleteFunc(c, func(c int64) bool {
		return c < 1 || c < MinVolume && c < v.total || (v.total+c-1)/c > MaxVolumes
	})
}

// evidence is in how many volumes the first frame begins where it must if they have size bytes,
// less those in which it does not.
func (v *volumeSource) evidence(size int64, l *Layout) int {
	n := 0
	for i := range v.files {
		from := int64(i) * size
		at, content, ok := l.frameAfter(from)
		if i == 0 || !ok || at-from+frameHeader > size || v.files[i].file == nil {
			continue
		}
		var head [frameHeader]byte
		if _, err := v.files[i].file.ReadAt(head[:], at-from); err != nil {
			continue
		}
		if bytes.Equal(head[:], binary.LittleEndian.AppendUint32(bytes.Clone(frameStart), uint32(content))) {
			n++
		} else {
			n--
		}
	}
	return n
}

// count is how many volumes there must be.
func (v *volumeSource) count() int { return int((v.total + v.size - 1) / v.size) }

func (v *volumeSource) problems() error {
	e := &VolumesError{Count: v.count()}
	for i := range max(e.Count, len(v.files)) {
		p := VolumeProblem{Number: i + 1, Want: want(i, v.size, v.total)}
		if i < len(v.files) && v.files[i].file != nil {
			p.Path, p.Got = v.files[i].path, v.files[i].size
		}
		switch {
		case p.Path == "" && i < e.Count:
			p.Kind = VolumeMissing
		case p.Path == "":
			continue
		case i >= e.Count:
			p.Kind = VolumeExtra
		case p.Got < p.Want:
			p.Kind = VolumeShort
		case p.Got > p.Want:
			p.Kind = VolumeLong
		default:
			continue
		}
		e.Problems = append(e.Problems, p)
	}
	if len(e.Problems) == 0 {
		return nil
	}
	e.exchanged()
	return e
}

// exchanged finds the volume that was exchanged with the last one: each has the other's size.
func (e *VolumesError) exchanged() {
	var wrong []int
	for i, p := range e.Problems {
		if p.Kind == VolumeShort || p.Kind == VolumeLong {
			wrong = append(wrong, i)
		}
	}
	if len(wrong) != 2 {
		return
	}
	a, b := &e.Problems[wrong[0]], &e.Problems[wrong[1]]
	if a.Got == b.Want && a.Want == b.Got {
		a.Kind, a.Is, b.Kind, b.Is = VolumeSwapped, b.Number, VolumeSwapped, a.Number
	}
}

// Place implements Source.
func (v *volumeSource) Place(off int64) *Place {
	i := int(off / v.size)
	p := &Place{Number: i + 1, Offset: off - int64(i)*v.size}
	if v.total > 0 {
		p.Count = v.count()
	}
	if i < len(v.files) {
		p.Path = v.files[i].path
	}
	return p
}

// errMissing is what reading from a volume gives that is not there.
var errMissing = errors.New("this volume is missing")

// ReadAt implements io.ReaderAt over all volumes.
func (v *volumeSource) ReadAt(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		i := int((off + int64(done)) / v.size)
		at := off + int64(done) - int64(i)*v.size
		if v.total > 0 && off+int64(done) >= v.total || v.total == 0 && i >= len(v.files) {
			return done, io.EOF
		}
		if i >= len(v.files) || v.files[i].file == nil {
			return done, errMissing
		}
		piece := p[done:min(int64(len(p)), int64(done)+v.size-at)]
		n, err := v.files[i].file.ReadAt(piece, at)
		done += n
		if n < len(piece) {
			if err == nil {
				err = io.EOF
			}
			return done, err
		}
	}
	return done, nil
}

// Close closes all volumes.
func (v *volumeSource) Close() error {
	var err error
	for _, f := range v.files {
		if f.file != nil {
			err = errors.Join(err, f.file.Close())
		}
	}
	return err
}

// splitVolumeName takes the number off the name of a volume.
func splitVolumeName(name string) (base string, number int, ok bool) {
	base, digits, found := cutLast(name, ".")
	if !found || len(digits) != 3 {
		return "", 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || n == 0 || base == "" || base == "." || base == ".." {
		return "", 0, false
	}
	return base, int(n), true
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
