package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/progress"
	"github.com/sealift/sealift/manifest"
)

// DefaultJobs is how many blobs are fetched at the same time where nobody says otherwise:
// enough to hide the latency of small ones, few enough to keep the order on disk.
const DefaultJobs = 4

// Extension of bundle files.
const Extension = ".tar.zst"

// ErrExists is wrapped where a bundle with the final name is already there.
var ErrExists = errors.New("the file is already there")

// BlobError says which blob could not be brought into the bundle.
type BlobError struct {
	Digest string
	Err    error
}

// Error names the blob.
func (e *BlobError) Error() string { return fmt.Sprintf("packing blob %s: %v", e.Digest, e.Err) }

// Unwrap returns the cause.
func (e *BlobError) Unwrap() error { return e.Err }

// PackOptions say how Pack works.
type PackOptions struct {
	// Output is a file, if it is one or ends in .zst, else a directory, made if need be, in
	// which the file is called NAME-VERSION.tar.zst.
	Output string
	// Overwrite allows to replace a file that is there.
	Overwrite bool
	// Sign returns a sigstore bundle over the bytes of the manifest; nil leaves the bundle
	// unsigned, and every reader will refuse it until a signature is found.
	Sign func(raw []byte) ([]byte, error)
	// Jobs is how many blobs move at the same time; 0 means DefaultJobs.
	Jobs     int
	Progress progress.Reporter
}

// Result is what Pack made.
type Result struct {
	// Path of the bundle file.
	Path string
	// Digest is the bundle's identity: that of its manifest.
	Digest string
	// Size of the file, in bytes.
	Size int64
}

// place is where Pack puts the bundle. An output that is no directory yet and does not look
// like a bundle file is a directory that is to be made.
func (r *Resolved) place(output string) (string, error) {
	name := r.Manifest.Name + "-" + r.Manifest.Version + Extension
	if output == "" {
		return name, nil
	}
	info, err := os.Stat(output)
	isDir := err == nil && info.IsDir()
	if err == nil && !isDir || !isDir && strings.HasSuffix(output, filepath.Ext(Extension)) {
		return output, nil
	}
	if err := os.MkdirAll(output, 0o755); err != nil {
		return "", fmt.Errorf("making the output directory: %w", err)
	}
	return filepath.Join(output, name), nil
}

// Pack makes the bundle file. The manifest is encoded and signed first; the signature is
// written last. Under the final name there is nothing, or what was there, until all is written
// and durable; after an error or an end of ctx nothing is left.
func (r *Resolved) Pack(ctx context.Context, o PackOptions) (_ *Result, err error) {
	path, err := r.place(o.Output)
	if err != nil {
		return nil, err
	}
	if err := mayWrite(path, o.Overwrite); err != nil {
		return nil, err
	}
	raw, err := manifest.Encode(r.Manifest)
	if err != nil {
		return nil, err
	}
	// What a reader would refuse must not leave the house.
	if _, err := manifest.Parse(raw); err != nil {
		return nil, fmt.Errorf("checking the manifest before it is signed: %w", err)
	}
	var signatures [][]byte
	if o.Sign != nil {
		sig, err := o.Sign(raw)
		if err != nil {
			return nil, err
		}
		signatures = append(signatures, sig)
	}
	layout, err := archive.NewLayout(int64(len(raw)), r.Manifest.Head, r.Manifest.Entries)
	if err != nil {
		return nil, fmt.Errorf("laying out the bundle: %w", err)
	}
	w, err := archive.Create(path, raw, layout)
	if err != nil {
		return nil, err
	}
	if err := r.write(ctx, w, o); err != nil {
		return nil, errors.Join(err, w.Abort())
	}
	if err := mayWrite(path, o.Overwrite); err != nil {
		return nil, errors.Join(err, w.Abort())
	}
	if err := w.Commit(signatures); err != nil {
		return nil, err
	}
	return &Result{Path: path, Digest: manifest.Digest(raw), Size: layout.Size()}, nil
}

func mayWrite(path string, overwrite bool) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("looking at the output: %w", err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("output %q is not a regular file", path)
	case !overwrite:
		return fmt.Errorf("writing %q: %w", path, ErrExists)
	}
	return nil
}

// write brings every entry into its place, in the order of the file.
func (r *Resolved) write(ctx context.Context, w *archive.Writer, o PackOptions) error {
	var total int64
	for _, e := range r.Manifest.Entries {
		total += e.Size
	}
	task := o.Progress.Start("packing", total, progress.Bytes)
	defer task.Done()
	jobs := o.Jobs
	if jobs <= 0 {
		jobs = DefaultJobs
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(jobs)
	for i, e := range r.Manifest.Entries {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error { return r.writeEntry(gctx, w, i, e, task) })
	}
	err := g.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func (r *Resolved) writeEntry(ctx context.Context, w *archive.Writer, i int, e manifest.Entry, task progress.Task) error {
	content, fixed := []byte(nil), true
	var blob manifest.Blob
	switch e.Name {
	case manifest.EntryOCILayout:
		content = manifest.OCILayout()
	case manifest.EntryIndex:
		var err error
		if content, err = manifest.OCIIndex(r.Manifest); err != nil {
			return err
		}
	default:
		blob = r.Manifest.Blobs[i-(len(r.Manifest.Entries)-len(r.Manifest.Blobs))]
		s := r.sources[blob.Digest]
		content, fixed = s.content, s.repo == nil || s.content != nil
	}
	if fixed {
		return w.WriteEntry(ctx, i, bytes.NewReader(content), task.Add)
	}
	var done int64
	err := r.sources[blob.Digest].repo.CopyBlob(ctx, descriptorOf(blob), func(body io.Reader) error {
		// A second try begins anew, and so does its share of the progress.
		task.Add(-done)
		done = 0
		return w.WriteEntry(ctx, i, body, func(n int64) { done += n; task.Add(n) })
	})
	if err != nil {
		return &BlobError{blob.Digest, err}
	}
	task.Note(blob.Digest)
	return nil
}

func descriptorOf(b manifest.Blob) manifest.Descriptor {
	return manifest.Descriptor{Digest: b.Digest, MediaType: b.MediaType, Size: b.Size}
}
