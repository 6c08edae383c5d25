// Package verify decides which bundles are to be believed, and gives the only way to content
// that may be used.
//
// The order never changes: read the manifest's bytes and the signatures once, into memory,
// bounded; check the signatures over those raw bytes; only then parse them; compute from them
// what every other byte of the file must be. Blobs are proven while they are read.
//
// The zero Policy refuses every bundle.
package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/progress"
	"github.com/sealift/sealift/internal/sigstore"
	"github.com/sealift/sealift/internal/site"
	"github.com/sealift/sealift/internal/trust"
	"github.com/sealift/sealift/manifest"
)

// DetachedSuffix is added to the name of a bundle file to name a sigstore bundle beside it.
const DetachedSuffix = archive.DetachedSuffix

// ContentError says that a file is not what its signed manifest determines.
type ContentError struct {
	Path string
	Err  error
}

// Error names the file and the place.
func (e *ContentError) Error() string { return fmt.Sprintf("bundle %q: %v", e.Path, e.Err) }

// Unwrap returns an *archive.DamageError, an *archive.SizeError or a reading error.
func (e *ContentError) Unwrap() error { return e.Err }

// Files is where a bundle lies.
type Files = archive.Files

// Find returns the bundles that paths name: files, volumes, or directories with either. Errors as
// those of archive.Find.
func Find(paths []string) ([]*Files, error) { return archive.Find(paths) }

// FindWith is Find for paths of which some name bundles in registries, which elsewhere returns.
func FindWith(paths []string, elsewhere func(path string) (*Files, error)) ([]*Files, error) {
	return archive.FindWith(paths, elsewhere)
}

// Bundle is a bundle whose manifest has been proven. Its blobs are proven as they are read.
// It may be used by several goroutines, unless it is a stream.
type Bundle struct {
	path     string
	source   archive.Source
	size     int64
	manifest *manifest.Manifest
	judged   *judged
	reader   *archive.Reader
	blobs    map[string]manifest.Blob
	stream   *stream
}

// Roots are the root documents that the bundle in files carries, unproven; none where they cannot
// be read, which Open tells.
func Roots(files *Files) [][]byte {
	o, err := open(files)
	if err != nil {
		return nil
	}
	defer func() { _ = o.source.Close() }() // it was only read
	var all [][]byte
	for _, t := range o.head.Trust {
		all = append(all, t.Body)
	}
	return all
}

// Open proves who signed the bundle that lies in files and reads its manifest, and nothing else.
// The caller closes the Bundle. Errors: ErrNoPolicy, *UnsignedError, *UntrustedError,
// *ContentError, archive.ErrNotBundle and manifest.ErrUnknownFormat (wrapped), or that of
// opening the file.
func Open(ctx context.Context, files *Files, policy Policy) (*Bundle, error) {
	b, err := OpenIncomplete(ctx, files, policy)
	if err != nil {
		return nil, err
	}
	if err := b.reader.Fit(); err != nil {
		return nil, errors.Join(&ContentError{b.path, err}, b.Close())
	}
	return b, nil
}

// OpenIncomplete is Open for a bundle of which volumes may be missing, or a part of the file, so
// that Check can tell all that is wrong with it.
func OpenIncomplete(ctx context.Context, files *Files, policy Policy) (*Bundle, error) {
	if policy.none() {
		return nil, ErrNoPolicy
	}
	o, err := open(files)
	if err != nil {
		return nil, err
	}
	b, err := o.prove(ctx, policy)
	if err != nil {
		return nil, errors.Join(err, o.source.Close())
	}
	return b, nil
}

// OpenStream is Open for a bundle that comes through a pipe, which errors call name. Only its
// head is read. What follows is read by Preload and Each, or by Check, once. Errors as those of
// Open.
func OpenStream(ctx context.Context, name string, r io.Reader, policy Policy) (*Bundle, error) {
	if policy.none() {
		return nil, ErrNoPolicy
	}
	o, err := read(name, archive.NewStream(r))
	if err != nil {
		return nil, err
	}
	b, err := o.prove(ctx, policy)
	if err != nil {
		return nil, err
	}
	b.stream = &stream{cache: map[string][]byte{}}
	return b, nil
}

// opened is a bundle whose head has been read, of which nothing is proven.
type opened struct {
	path       string
	source     archive.Source
	head       *archive.Head
	signatures []trust.Material
	unreadable error
}

func read(path string, src archive.Source) (*opened, error) {
	o := &opened{path: path, source: src}
	var err error
	if o.head, err = archive.ReadHead(src); err != nil {
		return nil, &ContentError{path, err}
	}
	for _, s := range o.head.Signatures {
		o.signatures = append(o.signatures, trust.Material{Name: s.Name, Body: s.Body})
	}
	return o, nil
}

func open(files *Files) (*opened, error) {
	src, err := files.Open()
	var missing *archive.VolumesError
	if errors.Is(err, archive.ErrNotBundle) || errors.As(err, &missing) || err != nil && files.Remote != nil {
		return nil, &ContentError{files.Name, err}
	}
	if err != nil {
		return nil, fmt.Errorf("opening bundle: %w", err)
	}
	o, err := openFrom(files, src)
	if err != nil {
		return nil, errors.Join(err, src.Close())
	}
	return o, nil
}

// openFrom reads the head of the bundle that src reads and the signatures that lie beside files.
func openFrom(files *Files, src archive.Source) (*opened, error) {
	o, err := read(files.Name, src)
	if err != nil {
		return nil, err
	}
	if files.Remote != nil {
		for _, s := range files.Remote.Detached {
			o.signatures = append(o.signatures, trust.Material{Name: s.Name, Body: s.Body, Detached: true})
		}
	}
	for _, path := range files.Detached {
		body, err := ReadDetached(path)
		switch {
		case err != nil:
			// A foreign file beside the bundle must not stop a bundle that carries a good one.
			o.unreadable = err
		case body != nil:
			o.signatures = append(o.signatures, trust.Material{Name: path, Body: body, Detached: true})
		}
	}
	return o, nil
}

// prove checks the signatures and only then looks into the manifest.
func (o *opened) prove(ctx context.Context, policy Policy) (*Bundle, error) {
	j, err := o.judge(ctx, policy)
	if err != nil {
		return nil, err
	}
	m := j.manifest
	layout, err := archive.NewLayout(int64(len(o.head.Manifest)), m.Head, m.Entries)
	if err != nil {
		return nil, &ContentError{o.path, err}
	}
	reader, err := archive.NewReader(o.source, o.head, layout)
	if err != nil {
		return nil, &ContentError{o.path, err}
	}
	b := &Bundle{
		path: o.path, source: o.source, size: layout.Size(), manifest: m, judged: j, reader: reader,
		blobs: make(map[string]manifest.Blob, len(m.Blobs)),
	}
	for _, blob := range m.Blobs {
		b.blobs[blob.Digest] = blob
	}
	return b, nil
}

// ReadDetached reads a sigstore bundle beside a bundle, nil where there is none. It waits for no pipe.
func ReadDetached(path string) (_ []byte, err error) {
	f, _, err := archive.OpenRegular(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	body, err := io.ReadAll(io.LimitReader(f, sigstore.MaxSignatureBytes+1))
	if err != nil {
		return nil, err
	}
	if len(body) > sigstore.MaxSignatureBytes {
		return nil, fmt.Errorf("more than %d bytes", sigstore.MaxSignatureBytes)
	}
	return body, nil
}

// Close closes the file.
func (b *Bundle) Close() error { return b.source.Close() }

// Path is what errors call the bundle.
func (b *Bundle) Path() string { return b.path }

// Size is how many bytes the file has, or its volumes together.
func (b *Bundle) Size() int64 { return b.size }

// Volumes is how many volumes the file was cut into, 0 where it was not.
func (b *Bundle) Volumes() int {
	if p := b.source.Place(b.size - 1); p != nil {
		return p.Number
	}
	return 0
}

// Manifest is the proven manifest. It must not be changed.
func (b *Bundle) Manifest() *manifest.Manifest { return b.manifest }

// Evidence is what was proven about the bundle's origin.
func (b *Bundle) Evidence() Evidence { return b.judged.evidence }

// Rule is the rule of the policy by which the bundle is accepted.
func (b *Bundle) Rule() *trust.Rule { return b.judged.decision.Rule }

// Roots are the vendors' roots by which the bundle was judged, by name: those that the site knows,
// and those that came with the bundle, in the order of their versions.
func (b *Bundle) Roots() map[string][]*trust.SignedRoot { return b.judged.chains }

// Judged is the site's record by which the bundle's age was judged; nil where it did not count.
func (b *Bundle) Judged() *site.Record {
	if b.judged.freshness == nil {
		return nil
	}
	return b.judged.freshness.Record
}

// Judge judges the bundle's age once more, by what the site's record has become, and returns the
// reasons for which it would be refused, had it not been allowed. Errors are *trust.StaleError.
func (b *Bundle) Judge(record *site.Record) ([]*trust.StaleError, error) {
	j := b.judged
	if j.freshness == nil {
		return nil, nil
	}
	f := *j.freshness
	f.Record = record
	verdict, err := j.decision.Judge(j.policy, j.chains, j.manifest, j.evidence.Manifest, f)
	if err != nil {
		return nil, err
	}
	return verdict.Overridden, nil
}

// Stale are the reasons for which the bundle would have been refused, had it not been allowed.
func (b *Bundle) Stale() []*trust.StaleError { return b.judged.stale }

// Blob returns the bytes of a blob, whatever its encoding. They are proven: the last piece is
// given out only when the whole has the blob's digest. Reading errors are *ContentError.
func (b *Bundle) Blob(digest string) (io.ReadCloser, error) {
	blob, ok := b.blobs[digest]
	if !ok {
		return nil, fmt.Errorf("reading blob %q: not in the bundle", digest)
	}
	if b.stream != nil {
		raw, ok := b.stream.cache[digest]
		if !ok {
			return nil, &ContentError{b.path, archive.ErrStream}
		}
		return io.NopCloser(bytes.NewReader(raw)), nil
	}
	r, err := b.reader.Open(manifest.BlobEntryName(blob))
	if err != nil {
		return nil, err
	}
	return b.decoded(blob, r)
}

// decoded gives the bytes of a blob out of those of its entry.
func (b *Bundle) decoded(blob manifest.Blob, r io.ReadCloser) (io.ReadCloser, error) {
	if blob.Encoding == manifest.EncodingZstd {
		var err error
		if r, err = archive.NewDecoder(blob, r); err != nil {
			return nil, &ContentError{b.path, err}
		}
	}
	return &blobReader{r, b.path}, nil
}

// blobReader names the bundle in the errors of reading.
type blobReader struct {
	io.ReadCloser
	path string
}

func (r *blobReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = &ContentError{r.path, err}
	}
	return n, err
}

// ReadBlob reads a blob of at most limit bytes into memory.
func (b *Bundle) ReadBlob(digest string, limit int64) (_ []byte, err error) {
	r, err := b.Blob(digest)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	raw, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(raw)) > limit {
		return nil, fmt.Errorf("reading blob %s: more than %d bytes", digest, limit)
	}
	return raw, nil
}

// Check reads the whole file once and compares every byte with what the manifest determines;
// encoded blobs are decoded and proven as well. Where the bundle is in volumes, it goes on after
// the first difference and names every volume that is not good. Errors are *ContentError, or that
// of ctx.
func (b *Bundle) Check(ctx context.Context, report progress.Reporter) error {
	task := report.Start("verifying", b.size, progress.Bytes)
	defer task.Done()
	err := b.check(ctx, task.Add)
	var content *ContentError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &content):
		return err
	}
	return &ContentError{b.path, err}
}

func (b *Bundle) check(ctx context.Context, done func(int64)) error {
	if b.stream == nil {
		if err := b.reader.Fit(); err != nil || b.source.Place(0) != nil {
			// Of several volumes everything that is wrong is wanted.
			if err := b.reader.Examine(ctx, done); err != nil {
				return err
			}
			return b.checkEncoded(ctx)
		}
	}
	w, err := b.reader.Walk(done)
	if err != nil {
		return err
	}
	if err := b.walk(ctx, w, func(_ context.Context, blob manifest.Blob, content io.Reader) error {
		if blob.Encoding == manifest.EncodingStored {
			return nil
		}
		_, err := io.Copy(io.Discard, content)
		return err
	}); err != nil {
		return err
	}
	return w.Finish(ctx)
}

// checkEncoded proves the encoded blobs as what they are encoded from.
func (b *Bundle) checkEncoded(ctx context.Context) error {
	for _, blob := range b.manifest.Blobs {
		if blob.Encoding == manifest.EncodingStored {
			continue
		}
		if err := b.checkBlob(ctx, blob); err != nil {
			return err
		}
	}
	return nil
}

func (b *Bundle) checkBlob(ctx context.Context, blob manifest.Blob) (err error) {
	r, err := b.Blob(blob.Digest)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	buf := make([]byte, 1<<20)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := r.Read(buf); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// Unproven is what a bundle says about itself. Unless evidence comes with it nothing of it is
// proven: then it is for showing to people, not for acting on.
type Unproven struct {
	Path     string
	Manifest *manifest.Manifest
	// Raw is the manifest's bytes as they lie in the file.
	Raw []byte
	// Digest of Raw, Size that it gives the file, number of signatures in and beside the file.
	Digest     string
	Size       int64
	Signatures int
}

// Inspect reads what the bundle in files says about itself, without reading the payload. With a
// policy it is proven first, and the evidence comes with it; with the zero policy nothing is
// believed. Errors as for Open.
func Inspect(ctx context.Context, files *Files, policy Policy) (_ *Unproven, _ *Evidence, err error) {
	o, err := open(files)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, o.source.Close()) }()
	return o.inspect(ctx, policy)
}

// InspectStream is Inspect for a bundle that comes through a pipe.
func InspectStream(ctx context.Context, name string, r io.Reader, policy Policy) (*Unproven, *Evidence, error) {
	o, err := read(name, archive.NewStream(r))
	if err != nil {
		return nil, nil, err
	}
	return o.inspect(ctx, policy)
}

func (o *opened) inspect(ctx context.Context, policy Policy) (*Unproven, *Evidence, error) {
	var evidence *Evidence
	var m *manifest.Manifest
	if !policy.none() {
		j, err := o.judge(ctx, policy)
		if err != nil {
			return nil, nil, err
		}
		evidence, m = &j.evidence, j.manifest
	} else {
		var err error
		if m, err = manifest.Parse(o.head.Manifest); err != nil {
			return nil, nil, &ContentError{o.path, err}
		}
	}
	layout, err := archive.NewLayout(int64(len(o.head.Manifest)), m.Head, m.Entries)
	if err != nil {
		return nil, nil, &ContentError{o.path, err}
	}
	return &Unproven{
		Path: o.path, Manifest: m, Raw: o.head.Manifest, Digest: manifest.Digest(o.head.Manifest),
		Size: layout.Size(), Signatures: len(o.signatures),
	}, evidence, nil
}
