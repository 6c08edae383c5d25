package bundle

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/parity"
	"github.com/sealift/sealift/internal/progress"
)

// Parity says how much parity is made. The zero value makes none.
type Parity struct {
	// Part of the bundle's size, such as 0.1.
	Part float64
	// Volumes that may be lost altogether.
	Volumes int
}

func (o Parity) none() bool { return o == Parity{} }

// maxPart is as much parity as there is data.
const maxPart = 1

// ParseParity reads "10%" or "volumes=1"; the empty text is none.
func ParseParity(text string) (Parity, error) {
	if text == "" {
		return Parity{}, nil
	}
	if percent, ok := strings.CutSuffix(text, "%"); ok {
		if v, err := strconv.ParseFloat(percent, 64); err == nil && v > 0 && v <= 100*maxPart {
			return Parity{Part: v / 100}, nil
		}
	}
	if number, ok := strings.CutPrefix(text, "volumes="); ok {
		if n, err := strconv.ParseUint(number, 10, 8); err == nil && n > 0 {
			return Parity{Volumes: int(n)}, nil
		}
	}
	return Parity{}, fmt.Errorf("parity %q is written neither as a part of the bundle, such as 10%%, nor as volumes=N", text)
}

// ErrNoVolumes is returned for parity by volumes of a bundle that is one file.
var ErrNoVolumes = errors.New("parity for whole volumes needs volumes")

// parityPlan is the parity of one bundle on its way.
type parityPlan struct {
	geometry parity.Geometry
	most     int64
	sizes    []int64
	path     string
	files    []*os.File
}

// plan lays out the parity of a bundle of size bytes. No file of it is larger than a volume.
func (o Parity) plan(size, volume int64) (*parityPlan, error) {
	if o.none() {
		return nil, nil
	}
	var g parity.Geometry
	var err error
	switch {
	case o.Volumes == 0:
		g, err = parity.Percent(size, o.Part)
	case volume == 0:
		return nil, ErrNoVolumes
	default:
		g, err = parity.Volumes(size, volume, o.Volumes)
	}
	if err != nil {
		return nil, fmt.Errorf("planning parity: %w", err)
	}
	return &parityPlan{geometry: g, most: volume, sizes: g.Files(archive.SlotsSize, volume)}, nil
}

func (p *parityPlan) size() int64 {
	if p == nil {
		return 0
	}
	var n int64
	for _, s := range p.sizes {
		n += s
	}
	return n
}

// maxParityFiles is how many the three digits of their names can number.
const maxParityFiles = 999

// parityName is the name of parity file number (from 1) of the bundle at path.
func parityName(path string, number int) string {
	return fmt.Sprintf("%s%s%03d", path, archive.ParitySuffix, number)
}

// name is the final name of parity file i (from 0).
func (p *parityPlan) name(i int) string { return parityName(p.path, i+1) }

// write makes the parity files of the bundle src, whose manifest is raw, under partial names.
func (p *parityPlan) write(ctx context.Context, src io.ReaderAt, raw []byte, layout *archive.Layout, path string, report progress.Reporter) (err error) {
	p.path = path
	if len(p.sizes) > maxParityFiles {
		return fmt.Errorf("making parity: %d files, at most %d are allowed; use larger volumes", len(p.sizes), maxParityFiles)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.discard())
		}
	}()
	files := make([]parity.File, 0, len(p.sizes))
	for i := range p.sizes {
		name := p.name(i) + archive.PartialSuffix
		// What lies there under this name is ours, or no more than a link that leads elsewhere.
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("making parity: %w", err)
		}
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return fmt.Errorf("making parity: %w", err)
		}
		p.files = append(p.files, f)
		files = append(files, f)
	}
	hole := parity.Range{Offset: layout.Head(), Size: archive.SlotsSize}
	content := make([]byte, hole.Size)
	if _, err := src.ReadAt(content, hole.Offset); err != nil {
		return fmt.Errorf("making parity: %w", err)
	}
	task := report.Start("making parity", layout.Size(), progress.Bytes)
	defer task.Done()
	meta := parity.Meta{Identity: sha256.Sum256(raw), Hole: hole, HoleContent: content}
	if err := parity.Encode(ctx, src, p.geometry, meta, files, p.most, task.Add); err != nil {
		return err
	}
	for _, f := range p.files {
		if err := f.Sync(); err != nil {
			return fmt.Errorf("making parity: %w", err)
		}
	}
	return nil
}

// discard removes what was written.
func (p *parityPlan) discard() error {
	if p == nil {
		return nil
	}
	var err error
	for i, f := range p.files {
		err = errors.Join(err, f.Close(), os.Remove(p.name(i)+archive.PartialSuffix))
	}
	p.files = nil
	return err
}

// publish gives the parity files their final names. It returns these.
func (p *parityPlan) publish() ([]string, error) {
	if p == nil {
		return nil, nil
	}
	var names []string
	for i, f := range p.files {
		if err := errors.Join(f.Close(), os.Rename(p.name(i)+archive.PartialSuffix, p.name(i))); err != nil {
			return nil, fmt.Errorf("finishing parity: %w", err)
		}
		names = append(names, p.name(i))
	}
	p.files = nil
	return names, nil
}

// removeParity removes the parity files beside the bundle at path, but for those to be kept: they
// are those of the bundle that was there before.
func removeParity(path string, keep []string) error {
	found, err := archive.Find([]string{path})
	if err != nil {
		return fmt.Errorf("looking for what was replaced: %w", err)
	}
	for _, f := range found {
		if err := removeFiles(f.Parity, keep); err != nil {
			return err
		}
	}
	return nil
}

// writeParity makes the parity of the sealed bundle. Its true size may be less than planned.
func (p *packing) writeParity(ctx context.Context, raw []byte, layout *archive.Layout) (*parityPlan, error) {
	plan, err := p.Parity.plan(layout.Size(), p.Volume)
	if err != nil || plan == nil {
		return nil, err
	}
	if err := plan.write(ctx, p.w.Source(), raw, layout, p.path, p.Progress); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, err
	}
	return plan, nil
}
