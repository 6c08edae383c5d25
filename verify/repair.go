package verify

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/parity"
	"github.com/sealift/sealift/internal/progress"
)

// RepairOptions say how Repair works.
type RepairOptions struct {
	// Dir is where what was restored is written; with an empty one the damaged files are changed
	// where they are.
	Dir      string
	Progress progress.Reporter
}

// Repaired is what Repair did.
type Repaired struct {
	// Files that were written. There are none where nothing was damaged.
	Files []string `json:"files"`
	// Restored is how many bytes were damaged or missing.
	Restored int64    `json:"restored"`
	Evidence Evidence `json:"evidence"`
	// Unusable says of parity files why they could not be used, or what of them is damaged.
	Unusable []string `json:"unusable,omitempty"`
}

// NoParityError says that there are no usable parity files.
type NoParityError struct {
	Path string
	Err  error
}

// Error names the bundle.
func (e *NoParityError) Error() string {
	return fmt.Sprintf("repairing bundle %q: %v", e.Path, e.Err)
}

// Unwrap returns why the files that are there cannot be used.
func (e *NoParityError) Unwrap() error { return e.Err }

// BeyondRepairError says that more is lost than parity can restore.
type BeyondRepairError struct {
	Path string
	// Damaged and Lost are how many bytes are damaged, and of them beyond repair.
	Damaged, Lost int64
	// At is the first offset that is lost.
	At int64
}

// Error gives both.
func (e *BeyondRepairError) Error() string {
	return fmt.Sprintf("bundle %q is beyond repair: %s are damaged or missing, and %s of them, from byte %d on, cannot be restored from the parity that is there",
		e.Path, archive.FormatBytes(e.Damaged), archive.FormatBytes(e.Lost), e.At)
}

// Repair restores a bundle from the parity files beside it, proves the result as Open and Check
// do, and only then gives it its names. Errors: *NoParityError, *BeyondRepairError, and those of
// Open and Check, which are about the result.
func Repair(ctx context.Context, files *Files, policy Policy, o RepairOptions) (_ *Repaired, err error) {
	if policy.none() {
		return nil, ErrNoPolicy
	}
	r := &repair{files: files, o: o, result: &Repaired{Files: []string{}}}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.open(ctx, policy); err != nil {
		return nil, err
	}
	if err := r.restore(ctx); err != nil {
		return nil, errors.Join(err, r.discard())
	}
	if err := r.prove(ctx, policy); err != nil {
		return nil, errors.Join(err, r.discard())
	}
	if r.mender == nil {
		return r.result, nil
	}
	r.result.Files, err = r.mender.Publish()
	return r.result, err
}

// repair is one repair under way.
type repair struct {
	files  *Files
	o      RepairOptions
	opened []*os.File
	set    *parity.Set
	src    archive.Source
	mender *archive.Mender
	result *Repaired
}

func (r *repair) close() error {
	var err error
	for _, f := range r.opened {
		err = errors.Join(err, f.Close())
	}
	if r.src != nil {
		err = errors.Join(err, r.src.Close())
	}
	return err
}

func (r *repair) discard() error {
	if r.mender == nil {
		return nil
	}
	return r.mender.Discard()
}

// known is what the signed manifest says of the bundle that is there: its identity, its size, and
// where its slots are; nil where it cannot be proven as long as it is damaged.
func (r *repair) known(ctx context.Context, policy Policy) (id *[32]byte, size int64, slots parity.Range) {
	b, err := OpenIncomplete(ctx, r.files, policy)
	if err != nil {
		return nil, 0, slots
	}
	defer func() { _ = b.Close() }() // it was only read
	id = new([32]byte)
	if _, err := hex.Decode(id[:], []byte(strings.TrimPrefix(b.Evidence().Manifest, "sha256:"))); err != nil {
		return nil, 0, slots
	}
	return id, b.size, parity.Range{Offset: b.reader.Layout().Head(), Size: archive.SlotsSize}
}

// open opens the parity files and what there is of the bundle. Parity of another bundle must not
// make this one into that.
func (r *repair) open(ctx context.Context, policy Policy) error {
	inputs := make([]parity.Input, 0, len(r.files.Parity))
	names := make([]string, 0, len(r.files.Parity))
	for _, path := range r.files.Parity {
		f, info, err := archive.OpenRegular(path)
		if err != nil {
			r.result.Unusable = append(r.result.Unusable, err.Error())
			continue
		}
		r.opened = append(r.opened, f)
		inputs, names = append(inputs, parity.Input{ReaderAt: f, Size: info.Size()}), append(names, path)
	}
	id, size, slots := r.known(ctx, policy)
	set, unusable, err := parity.Open(inputs, id)
	for i, e := range unusable {
		if e != nil {
			r.result.Unusable = append(r.result.Unusable, fmt.Sprintf("%q: %v", names[i], e))
		}
	}
	if err == nil && id != nil && (set.Geometry().Size() != size || set.Hole() != slots) {
		err = fmt.Errorf("they are of a bundle of %d bytes, this one has %d", set.Geometry().Size(), size)
	}
	if err != nil {
		if len(r.result.Unusable) > 0 {
			err = fmt.Errorf("%w: %s", err, strings.Join(r.result.Unusable, "; "))
		}
		return &NoParityError{r.files.Name, err}
	}
	r.set = set
	r.src, err = archive.OpenDamaged(r.files, set.Geometry().Size())
	if err != nil {
		return &ContentError{r.files.Name, err}
	}
	return nil
}

// restore writes what is damaged anew.
func (r *repair) restore(ctx context.Context) error {
	task := r.o.Progress.Start("looking for damage", r.set.CheckSize(), progress.Bytes)
	report, err := r.set.Check(ctx, r.src, task.Add)
	task.Done()
	if err != nil {
		return err
	}
	if len(report.Lost) > 0 {
		return r.beyond(report)
	}
	// The slots are not part of the parity, since signing again rewrites them.
	hole := r.set.Hole()
	slots := make([]byte, hole.Size)
	n, _ := r.src.ReadAt(slots, hole.Offset)
	fillSlots := int64(n) < hole.Size || !archive.SoundSlots(slots)
	if content := r.set.HoleContent(); fillSlots && content != nil {
		slots = content
	}
	if r.mender, err = archive.NewMender(ctx, r.files, r.src, r.set.Geometry().Size(), r.o.Dir); err != nil {
		return err
	}
	var total int64
	for _, d := range report.Damaged {
		total += d.Size
	}
	task = r.o.Progress.Start("restoring", total, progress.Bytes)
	err = r.set.Repair(ctx, r.src, report, func(p []byte, off int64) error {
		if off < hole.End() && hole.Offset < off+int64(len(p)) {
			p = slices.Clone(p)
			from := max(off, hole.Offset)
			copy(p[from-off:], slots[from-hole.Offset:])
		}
		return r.mender.Restore(ctx, p, off)
	}, task.Add)
	task.Done()
	if err != nil {
		return err
	}
	if len(report.Lost) > 0 {
		return r.beyond(report)
	}
	r.result.Restored += report.Restored
	if fillSlots {
		r.result.Restored += hole.Size
		if err := r.mender.Restore(ctx, slots, hole.Offset); err != nil {
			return err
		}
	}
	return r.mender.Sync()
}

func (r *repair) beyond(report *parity.Report) error {
	e := &BeyondRepairError{Path: r.files.Name, At: report.Lost[0].Offset}
	for _, d := range report.Damaged {
		e.Damaged += d.Size
	}
	for _, l := range report.Lost {
		e.Lost += l.Size
	}
	return e
}

// prove checks the bundle as it is with what was restored.
func (r *repair) prove(ctx context.Context, policy Policy) error {
	o, err := openFrom(r.files, r.mender.Source())
	if err != nil {
		return err
	}
	b, err := o.prove(ctx, policy)
	if err != nil {
		return err
	}
	r.result.Evidence = b.Evidence()
	if got, want := r.result.Evidence.Manifest, "sha256:"+identity(r.set); got != want {
		err = &ContentError{r.files.Name, fmt.Errorf("the parity is of another bundle: got %s, want %s", got, want)}
	}
	if e := b.reader.Fit(); err == nil && e != nil {
		err = &ContentError{r.files.Name, e}
	}
	if err == nil {
		err = b.Check(ctx, r.o.Progress)
	}
	return errors.Join(err, b.Close())
}

func identity(s *parity.Set) string {
	id := s.Identity()
	return hex.EncodeToString(id[:])
}
