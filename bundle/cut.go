package bundle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/progress"
	"github.com/sealift/sealift/manifest"
)

// CutOptions say how Cut works.
type CutOptions struct {
	// Output is a directory, made if need be, or a file ending in .zst; empty for the directory
	// of the bundle.
	Output string
	// Volume is the size of the volumes, 0 for one file.
	Volume    int64
	Parity    Parity
	Overwrite bool
	Progress  progress.Reporter
}

// ThereError says that a file is there already in the place of one that was to be made.
type ThereError struct{ Path string }

// Error names the file.
func (e *ThereError) Error() string { return fmt.Sprintf("writing %q: %v", e.Path, ErrExists) }

// Is makes it an ErrExists.
func (e *ThereError) Is(target error) bool { return target == ErrExists }

// FileError says that a bundle file cannot be used, as far as that can be told without a key.
type FileError struct {
	Path string
	Err  error
}

// Error names the file.
func (e *FileError) Error() string { return fmt.Sprintf("bundle %q: %v", e.Path, e.Err) }

// Unwrap returns an *archive.DamageError, *archive.VolumesError or the like.
func (e *FileError) Unwrap() error { return e.Err }

// Cut writes a bundle anew, in volumes or as one file, byte by byte, and proves that the result
// is what its own manifest makes of it. Who signed it is not asked. Nothing that is there is
// changed. Errors: *FileError, *ThereError, *archive.DiskSpaceError.
func Cut(ctx context.Context, from *archive.Files, o CutOptions) (*Result, *manifest.Manifest, error) {
	src, reader, raw, m, err := openFiles(from)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = src.Close() }() // it was only read
	layout := reader.Layout()
	path, err := cutPath(from, o.Output)
	if err != nil {
		return nil, nil, err
	}
	target := path
	if o.Volume > 0 {
		target = archive.VolumeName(path, 1)
	}
	if !o.Overwrite {
		if _, err := os.Lstat(target); err == nil {
			return nil, nil, &ThereError{target}
		}
		if err := vacant(path, o.Volume, o.Parity); err != nil {
			return nil, nil, err
		}
	}
	plan, err := o.Parity.plan(layout.Size(), o.Volume)
	if err != nil {
		return nil, nil, err
	}
	c, err := archive.NewCopy(path, o.Volume, layout, plan.size())
	if err != nil {
		return nil, nil, err
	}
	task := o.Progress.Start("copying", layout.Size(), progress.Bytes)
	err = c.Copy(ctx, src, task.Add)
	task.Done()
	if err == nil {
		task = o.Progress.Start("reading back", layout.Size(), progress.Bytes)
		err = c.Prove(ctx, raw, task.Add)
		task.Done()
	}
	if err == nil && plan != nil {
		err = plan.write(ctx, c.Source(), raw, layout, path, o.Progress)
	}
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, nil, errors.Join(cutError(from, err), c.Discard())
	}
	res := &Result{Path: path, Digest: manifest.Digest(raw), Size: layout.Size(), ParitySize: plan.size()}
	parityFiles, err := plan.publish()
	if err != nil {
		return nil, nil, errors.Join(err, c.Discard())
	}
	res.Files = append(c.Paths(), parityFiles...)
	if err := c.Publish(); err != nil {
		return nil, nil, err
	}
	detached, err := copyDetached(from, path)
	res.Files = append(res.Files, detached...)
	return res, m, err
}

func cutError(from *archive.Files, err error) error {
	var read *archive.ReadError
	var damage *archive.DamageError
	if errors.As(err, &read) || errors.As(err, &damage) {
		return &FileError{from.Name, err}
	}
	return err
}

// cutPath is where the new files go.
func cutPath(from *archive.Files, output string) (string, error) {
	if output == "" {
		return from.Name, nil
	}
	info, err := os.Stat(output)
	isDir := err == nil && info.IsDir()
	if !isDir && strings.HasSuffix(output, filepath.Ext(Extension)) {
		return output, nil
	}
	if err := os.MkdirAll(output, 0o755); err != nil {
		return "", fmt.Errorf("making the output directory: %w", err)
	}
	return filepath.Join(output, filepath.Base(from.Name)), nil
}

// openFiles opens a bundle of which nothing is proven.
func openFiles(from *archive.Files) (_ archive.Source, _ *archive.Reader, raw []byte, _ *manifest.Manifest, err error) {
	src, err := from.Open()
	if err != nil {
		return nil, nil, nil, nil, &FileError{from.Name, err}
	}
	defer func() {
		if err != nil {
			err = errors.Join(&FileError{from.Name, err}, src.Close())
		}
	}()
	head, err := archive.ReadHead(src)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	m, err := manifest.Parse(head.Manifest)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	layout, err := archive.NewLayout(int64(len(head.Manifest)), m.Head, m.Entries)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	reader, err := archive.NewReader(src, head, layout)
	if err == nil {
		err = reader.Fit()
	}
	return src, reader, head.Manifest, m, err
}

// copyDetached brings the signatures beside a bundle to the new place, those that are not there
// already.
func copyDetached(from *archive.Files, path string) (made []string, err error) {
	number := 0
	for _, s := range from.Detached {
		if filepath.Dir(s) == filepath.Dir(path) && filepath.Base(from.Name) == filepath.Base(path) {
			continue
		}
		to := ""
		for to == "" || slices.Contains(from.Detached, to) {
			number++
			to = archive.DetachedName(filepath.Clean(path), number)
		}
		if err := copySmall(s, to); err != nil {
			return made, fmt.Errorf("copying the signature beside the bundle: %w", err)
		}
		made = append(made, to)
	}
	return made, nil
}

func copySmall(from, to string) (err error) {
	f, _, err := archive.OpenRegular(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return writeFile(to, 0o644, f)
}

// AddParity makes the parity files of a bundle, beside it. Parity by volumes needs a bundle in
// volumes. Errors as those of Cut.
func AddParity(ctx context.Context, from *archive.Files, parity Parity, report progress.Reporter) (*Result, *manifest.Manifest, error) {
	src, reader, raw, m, err := openFiles(from)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = src.Close() }() // it was only read
	layout := reader.Layout()
	if len(from.Parity) > 0 {
		return nil, nil, &ThereError{from.Parity[0]}
	}
	var volume int64
	if from.File == "" {
		info, err := os.Stat(from.Volumes[1])
		if err != nil {
			return nil, nil, fmt.Errorf("planning parity: %w", err)
		}
		volume = info.Size()
	}
	plan, err := parity.plan(layout.Size(), volume)
	if err != nil {
		return nil, nil, err
	}
	// Parity of damaged bytes would keep the damage.
	task := report.Start("verifying", layout.Size(), progress.Bytes)
	err = reader.Examine(ctx, task.Add)
	task.Done()
	if err != nil {
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		return nil, nil, &FileError{from.Name, err}
	}
	if err := plan.write(ctx, src, raw, layout, from.Name, report); err != nil {
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		return nil, nil, err
	}
	res := &Result{Path: from.Name, Digest: manifest.Digest(raw), Size: layout.Size(), ParitySize: plan.size()}
	res.Files, err = plan.publish()
	return res, m, err
}
