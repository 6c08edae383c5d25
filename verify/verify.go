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
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/progress"
	"github.com/sealift/sealift/internal/sigstore"
	"github.com/sealift/sealift/manifest"
)

// DetachedSuffix is added to the name of a bundle file to name a sigstore bundle beside it.
const DetachedSuffix = ".sigstore.json"

// ErrNoPolicy is returned where nobody was named who may sign.
var ErrNoPolicy = errors.New("no key was named that a signature could be checked with")

// UnsignedError says that a bundle has no signature at all.
type UnsignedError struct {
	Path string
	// Detached is why a signature beside the bundle could not be read, if there is one.
	Detached error
}

// Error names the bundle.
func (e *UnsignedError) Error() string {
	if e.Detached != nil {
		return fmt.Sprintf("bundle %q is not signed, and the signature beside it cannot be read: %v", e.Path, e.Detached)
	}
	return fmt.Sprintf("bundle %q is not signed", e.Path)
}

// Unwrap returns the error of reading the signature beside the bundle.
func (e *UnsignedError) Unwrap() error { return e.Detached }

// UntrustedError says that none of a bundle's signatures is by a key that the policy names.
type UntrustedError struct {
	Path string
	// Keys are the fingerprints of the keys that were tried.
	Keys []string
	// Reasons has an error for each signature and key.
	Reasons []error
}

// Error names the bundle and counts what was tried.
func (e *UntrustedError) Error() string {
	s := fmt.Sprintf("bundle %q: none of its signatures (%d) holds for the trusted key", e.Path, len(e.Reasons)/max(len(e.Keys), 1))
	for _, k := range e.Keys {
		s += " sha256:" + k
	}
	return s
}

// Unwrap returns the reasons.
func (e *UntrustedError) Unwrap() []error { return e.Reasons }

// ContentError says that a file is not what its signed manifest determines.
type ContentError struct {
	Path string
	Err  error
}

// Error names the file and the place.
func (e *ContentError) Error() string { return fmt.Sprintf("bundle %q: %v", e.Path, e.Err) }

// Unwrap returns an *archive.DamageError, an *archive.SizeError or a reading error.
func (e *ContentError) Unwrap() error { return e.Err }

// Policy says who may sign. The zero value trusts nobody.
type Policy struct {
	// Keys, one of which must have signed.
	Keys []sigstore.PublicKey
}

// Evidence is what was proven about a bundle's origin.
type Evidence struct {
	// Manifest is the digest of the signed bytes: the identity of the bundle.
	Manifest string `json:"manifest"`
	// Key is the fingerprint of the key that signed: hex SHA-256 of its PKIX DER form.
	Key string `json:"key"`
	// Signature is the name of the signature that held, Detached whether it lay beside the file.
	Signature string `json:"signature"`
	Detached  bool   `json:"detached"`
	// Ignored counts the other signatures: by other keys, unreadable, or not looked at any
	// more.
	Ignored int `json:"ignored"`
}

// Bundle is a bundle whose manifest has been proven. Its blobs are proven as they are read.
// It may be used by several goroutines.
type Bundle struct {
	path     string
	file     *os.File
	manifest *manifest.Manifest
	evidence Evidence
	reader   *archive.Reader
}

// Open proves who signed the bundle at path and reads its manifest, and nothing else. The
// caller closes the Bundle. Errors: ErrNoPolicy, *UnsignedError, *UntrustedError,
// *ContentError, archive.ErrNotBundle and manifest.ErrUnknownFormat (wrapped), or that of
// opening the file.
func Open(ctx context.Context, path string, policy Policy) (_ *Bundle, err error) {
	if len(policy.Keys) == 0 {
		return nil, ErrNoPolicy
	}
	o, err := open(path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, o.file.Close())
		}
	}()
	evidence, err := policy.check(ctx, path, o)
	if err != nil {
		return nil, err
	}
	m, err := manifest.Parse(o.head.Manifest)
	if err != nil {
		return nil, &ContentError{path, err}
	}
	layout, err := archive.NewLayout(int64(len(o.head.Manifest)), m.Head, m.Entries)
	if err != nil {
		return nil, &ContentError{path, err}
	}
	reader, err := archive.NewReader(o.file, o.size, o.head, layout)
	if err != nil {
		return nil, &ContentError{path, err}
	}
	return &Bundle{path: path, file: o.file, manifest: m, evidence: evidence, reader: reader}, nil
}

// opened is a file whose head has been read, of which nothing is proven.
type opened struct {
	file       *os.File
	size       int64
	head       *archive.Head
	signatures []signature
	unreadable error
}

type signature struct {
	archive.Signature
	detached bool
}

func open(path string) (_ *opened, err error) {
	f, info, err := openRegular(path)
	if errors.Is(err, errNotRegular) {
		return nil, &ContentError{path, archive.ErrNotBundle}
	}
	if err != nil {
		return nil, fmt.Errorf("opening bundle: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	o := &opened{file: f, size: info.Size()}
	if o.head, err = archive.ReadHead(f, o.size); err != nil {
		return nil, &ContentError{path, err}
	}
	for _, s := range o.head.Signatures {
		o.signatures = append(o.signatures, signature{s, false})
	}
	body, err := readDetached(path + DetachedSuffix)
	switch {
	case err != nil:
		// A foreign file beside the bundle must not stop a bundle that carries a good one.
		o.unreadable = err
	case body != nil:
		o.signatures = append(o.signatures, signature{archive.Signature{Name: path + DetachedSuffix, Body: body}, true})
	}
	return o, nil
}

var errNotRegular = errors.New("not a regular file")

// openRegular opens a regular file. It looks before it opens, since opening a pipe waits for
// somebody to write into it, and once more afterwards.
func openRegular(path string) (*os.File, os.FileInfo, error) {
	if info, err := os.Stat(path); err != nil {
		return nil, nil, err
	} else if !info.Mode().IsRegular() {
		return nil, nil, errNotRegular
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errNotRegular
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, info, nil
}

func readDetached(path string) (_ []byte, err error) {
	f, _, err := openRegular(path)
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

// check returns evidence for the first signature that holds for one of the keys.
func (p Policy) check(ctx context.Context, path string, o *opened) (Evidence, error) {
	if len(o.signatures) == 0 {
		return Evidence{}, &UnsignedError{path, o.unreadable}
	}
	refused := &UntrustedError{Path: path}
	for _, k := range p.Keys {
		refused.Keys = append(refused.Keys, k.Fingerprint)
	}
	for _, s := range o.signatures {
		for _, k := range p.Keys {
			err := k.Verify(ctx, o.head.Manifest, s.Body)
			if err == nil {
				e := Evidence{
					Manifest: manifest.Digest(o.head.Manifest), Key: k.Fingerprint, Signature: s.Name,
					Detached: s.detached, Ignored: len(o.signatures) - 1,
				}
				if o.unreadable != nil {
					e.Ignored++
				}
				return e, nil
			}
			refused.Reasons = append(refused.Reasons, fmt.Errorf("%s: %w", s.Name, err))
		}
	}
	return Evidence{}, refused
}

// Close closes the file.
func (b *Bundle) Close() error { return b.file.Close() }

// Path is where the bundle lies.
func (b *Bundle) Path() string { return b.path }

// Manifest is the proven manifest. It must not be changed.
func (b *Bundle) Manifest() *manifest.Manifest { return b.manifest }

// Evidence is what was proven about the bundle's origin.
func (b *Bundle) Evidence() Evidence { return b.evidence }

// Blob returns the bytes of a blob. They are proven: the last piece is given out only when
// the whole has the blob's digest. Reading errors are *ContentError.
func (b *Bundle) Blob(digest string) (io.ReadCloser, error) {
	if err := manifest.CheckDigest(digest); err != nil {
		return nil, err
	}
	r, err := b.reader.Open(manifest.BlobPrefix + digest[len("sha256:"):])
	if err != nil {
		return nil, err
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

// Check reads the whole file once and compares every byte with what the manifest determines.
// Errors are *ContentError, or that of ctx.
func (b *Bundle) Check(ctx context.Context, report progress.Reporter) error {
	info, err := b.file.Stat()
	if err != nil {
		return &ContentError{b.path, err}
	}
	task := report.Start("verifying", info.Size(), progress.Bytes)
	defer task.Done()
	if err := b.reader.Verify(ctx, task.Add); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &ContentError{b.path, err}
	}
	return nil
}

// Unproven is what a bundle says about itself. Nothing of it is proven; it is for showing to
// people, not for acting on.
type Unproven struct {
	Manifest *manifest.Manifest
	// Raw is the manifest's bytes as they lie in the file.
	Raw []byte
	// Digest of Raw, Size of the file, number of signatures in and beside the file.
	Digest     string
	Size       int64
	Signatures int
}

// Inspect reads what the bundle at path says about itself, without believing it and without
// reading the payload. Errors as for Open, but for those about signatures.
func Inspect(path string) (_ *Unproven, err error) {
	o, err := open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, o.file.Close()) }()
	m, err := manifest.Parse(o.head.Manifest)
	if err != nil {
		return nil, &ContentError{path, err}
	}
	return &Unproven{
		Manifest: m, Raw: o.head.Manifest, Digest: manifest.Digest(o.head.Manifest),
		Size: o.size, Signatures: len(o.signatures),
	}, nil
}
