package bundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"os"
	"slices"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/parity"
	"github.com/sealift/sealift/internal/progress"
	"github.com/sealift/sealift/manifest"
)

// existing returns a result where the bundle that is to be made is there already, whole and
// signed as it would be, nil where anything is otherwise.
func (p *packing) existing(ctx context.Context) *Result {
	found, err := archive.Find([]string{p.path})
	if err != nil || len(found) != 1 {
		return nil
	}
	src, err := found[0].Open()
	if err != nil {
		return nil
	}
	defer func() { _ = src.Close() }() // it was only read
	head, err := archive.ReadHead(src)
	if err != nil {
		return nil
	}
	there, err := manifest.Parse(head.Manifest)
	if err != nil || !p.same(there, head.Manifest) || !p.signedAlike(ctx, head) {
		return nil
	}
	layout, err := archive.NewLayout(int64(len(head.Manifest)), there.Head, there.Entries)
	if err != nil {
		return nil
	}
	reader, err := archive.NewReader(src, head, layout)
	if err != nil || reader.Fit() != nil || !p.cutAlike(found[0], layout) {
		return nil
	}
	task := p.Progress.Start("checking what is there", layout.Size(), progress.Bytes)
	err = reader.Verify(ctx, task.Add)
	task.Done()
	if err != nil {
		return nil
	}
	paritySize, ok := p.parityAlike(ctx, found[0], src, head.Manifest, layout)
	if !ok || archive.Tidy(p.path) != nil {
		return nil
	}
	return &Result{
		Path: p.path, Files: found[0].Paths(), Digest: manifest.Digest(head.Manifest), Size: layout.Size(), ParitySize: paritySize, Unchanged: true,
	}
}

// same reports whether there is what p would make.
func (p *packing) same(there *manifest.Manifest, raw []byte) bool {
	m := *p.Manifest
	m.Head = there.Head
	if !p.FixedTime {
		m.Created = there.Created
	}
	encoded := map[string]manifest.Entry{}
	first := len(there.Entries) - len(there.Blobs)
	for i, b := range there.Blobs {
		if b.Encoding != manifest.EncodingStored {
			encoded[b.Digest] = there.Entries[first+i]
		}
	}
	if manifest.Arrange(&m, encoded) != nil {
		return false
	}
	now, err := manifest.Encode(&m)
	return err == nil && bytes.Equal(now, raw)
}

func (p *packing) signedAlike(ctx context.Context, head *archive.Head) bool {
	// The newest root stands for those before it.
	if n, have := len(p.Roots), len(head.Trust); n > 0 && (have == 0 || head.Trust[have-1].Number != p.Roots[n-1].Number) {
		return false
	}
	if p.Sign == nil {
		return len(head.Signatures) == 0
	}
	for _, s := range head.Signatures {
		if p.Signed(ctx, head.Manifest, s.Body) == nil {
			return true
		}
	}
	return false
}

// cutAlike reports whether the bundle lies in the volumes that were asked for.
func (p *packing) cutAlike(f *archive.Files, layout *archive.Layout) bool {
	if (p.Volume > 0) != (f.File == "") {
		return false
	}
	if p.Volume == 0 {
		return true
	}
	info, err := os.Stat(f.Volumes[1])
	return err == nil && info.Size() == min(p.Volume, layout.Size())
}

// parityAlike reports whether the parity that was asked for is there, and sound; and its size.
func (p *packing) parityAlike(ctx context.Context, f *archive.Files, src io.ReaderAt, raw []byte, layout *archive.Layout) (int64, bool) {
	plan, err := p.Parity.plan(layout.Size(), p.Volume)
	if err != nil || plan == nil {
		return 0, err == nil && len(f.Parity) == 0
	}
	if len(f.Parity) != len(plan.sizes) {
		return 0, false
	}
	var inputs []parity.Input
	for _, path := range f.Parity {
		file, info, err := archive.OpenRegular(path)
		if err != nil {
			return 0, false
		}
		defer func() { _ = file.Close() }() // it was only read
		inputs = append(inputs, parity.Input{ReaderAt: file, Size: info.Size()})
	}
	identity := sha256.Sum256(raw)
	set, unusable, err := parity.Open(inputs, &identity)
	if err != nil || set.Geometry() != plan.geometry || slices.ContainsFunc(unusable, func(e error) bool { return e != nil }) {
		return 0, false
	}
	task := p.Progress.Start("checking its parity", set.CheckSize(), progress.Bytes)
	defer task.Done()
	report, err := set.Check(ctx, src, task.Add)
	if err != nil || len(report.Damaged) > 0 || slices.ContainsFunc(report.Files, func(r parity.FileReport) bool { return r != parity.FileReport{} }) {
		return 0, false
	}
	return plan.size(), true
}
