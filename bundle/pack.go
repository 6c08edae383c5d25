package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

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

// PartialError says that a pack was stopped and can be gone on with.
type PartialError struct {
	// Path of the bundle that was to be made.
	Path string
	// Done of Total bytes of content are there already.
	Done, Total int64
	Err         error
}

// Error is that of the cause.
func (e *PartialError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *PartialError) Unwrap() error { return e.Err }

// ChangedError says that what an interrupted pack left is of another content than the one that
// is to be packed now.
type ChangedError struct {
	Path string
	// Changes says what differs, in a few words each.
	Changes []string
}

// Error names the file and the changes.
func (e *ChangedError) Error() string {
	return fmt.Sprintf("an interrupted pack to %q was of something else: %s", e.Path, strings.Join(e.Changes, "; "))
}

// PackOptions say how Pack works.
type PackOptions struct {
	// Output is a file, if it is one or ends in .zst, else a directory, made if need be, in
	// which the file is called NAME-VERSION.tar.zst.
	Output string
	// Overwrite allows to replace a bundle that is there.
	Overwrite bool
	// Restart throws away what an interrupted pack of something else left.
	Restart bool
	// FixedTime says that the manifest's time was asked for. Otherwise a pack that goes on keeps
	// the time at which it was begun.
	FixedTime bool
	// Volume is the size of the volumes that the bundle is cut into, 0 for one file.
	Volume int64
	// Beside is how many bytes will be written to the same place later, by others.
	Beside int64
	// Parity is what is added to repair damage with; the zero value adds nothing.
	Parity Parity
	// ReadBack proves every byte by reading it from the disk again before the bundle gets its
	// name.
	ReadBack bool
	// Sign returns a sigstore bundle over the bytes of the manifest; nil leaves the bundle
	// unsigned, and every reader will refuse it until a signature is found. Signed reports
	// whether a sigstore bundle over raw is one that Sign might have made.
	Sign   func(raw []byte) ([]byte, error)
	Signed func(ctx context.Context, raw, signature []byte) error
	// Roots are the vendor's root documents that travel with the signatures, as many of the newest
	// ones as there is room for.
	Roots []archive.Trust
	// Jobs is how many blobs move at the same time; 0 means DefaultJobs.
	Jobs     int
	Progress progress.Reporter
}

// RoomForSignatures is how many bytes of a signature slot roots leave free for signatures that are
// added later.
const RoomForSignatures = 12 << 10

// Result is what Pack made.
type Result struct {
	// Path of the bundle: that of its file, or that of its volumes without their numbers.
	Path string
	// Files are its files: one, or the volumes, then the parity files.
	Files []string
	// Digest is the bundle's identity: that of its manifest.
	Digest string
	// Size of the file, or of all volumes, and of the parity files, in bytes.
	Size, ParitySize int64
	// Resumed is how many bytes of content an interrupted run had brought already.
	Resumed int64
	// Unchanged says that the very same bundle was there already.
	Unchanged bool
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

// packing is one run of Pack.
type packing struct {
	*Resolved
	PackOptions
	path string
	// plan is the manifest as it is known before anything was fetched: of what will be encoded
	// it holds the most that can come out.
	plan   []byte
	layout *archive.Layout
	parity *parityPlan
	w      *archive.Writer
	total  int64
	// resume says that an earlier run has begun to carry out the plan.
	resume bool
	// found is what an earlier run had brought, fetched what this one did, in bytes.
	found, fetched atomic.Int64
}

// Pack makes the bundle file. Under the final name there is nothing, or what was there, until
// all is written, proven and durable; the signature is written last. What an interrupted pack of
// the same content left is gone on with; when this one is interrupted, after it has fetched
// something, it leaves that for the next one and returns a *PartialError. Other errors:
// *ChangedError, *BlobError, archive.ErrBusy, *archive.DiskSpaceError, ErrExists (wrapped).
func (r *Resolved) Pack(ctx context.Context, o PackOptions) (*Result, error) {
	path, err := r.place(o.Output)
	if err != nil {
		return nil, err
	}
	p := &packing{Resolved: r, PackOptions: o, path: path}
	if p.Jobs <= 0 {
		p.Jobs = DefaultJobs
	}
	if err := p.mayWrite(); err != nil {
		if !errors.Is(err, ErrExists) {
			return nil, err
		}
		// Whoever runs the same pack twice, or did not see that it had ended, has what they want.
		if res := p.existing(ctx); res != nil {
			return res, nil
		}
		return nil, err
	}
	if p.resume, err = p.prepare(); err != nil {
		return nil, err
	}
	if !p.resume {
		// What an interrupted run has named already is ours; it is taken back.
		if err := p.mayReplace(p.Parity); err != nil {
			return nil, err
		}
	}
	// The signature is made before hours of work where the manifest is known by then.
	sign := func(raw []byte) ([][]byte, error) { return p.sign(raw) }
	if !p.encodes() {
		signatures, err := p.sign(p.plan)
		if err != nil {
			return nil, err
		}
		sign = func([]byte) ([][]byte, error) { return signatures, nil }
	}
	p.w, err = archive.NewWriter(archive.Plan{
		Path: p.path, Volume: p.Volume, Entries: p.known(), Head: p.layout.Head(), Size: p.layout.Size(), Beside: p.parity.size() + p.Beside,
		Journal: archive.NewJournal(p.Volume, p.plan), Resume: p.resume,
	})
	if err != nil {
		return nil, err
	}
	res, err := p.write(ctx, p.resume, sign)
	if err != nil {
		return nil, p.stopped(err)
	}
	return res, nil
}

// stopped leaves what was fetched for the next run. What an earlier run left stays in any case:
// this one may not have come to look at it.
func (p *packing) stopped(err error) error {
	if done := p.found.Load() + p.fetched.Load(); done > 0 || p.resume {
		return errors.Join(&PartialError{p.path, min(done, p.total), p.total, err}, p.w.Close())
	}
	return errors.Join(err, p.w.Discard())
}

// encodes reports whether blobs are encoded, so that the manifest is known only in the end.
func (p *packing) encodes() bool { return len(p.known()) < len(p.Manifest.Entries) }

// known are the entries whose bytes are known beforehand. Encoded blobs come last.
func (p *packing) known() []manifest.Entry {
	n := len(p.Manifest.Entries)
	for i := len(p.Manifest.Blobs) - 1; i >= 0 && p.Manifest.Blobs[i].Encoding != manifest.EncodingStored; i-- {
		n--
	}
	return p.Manifest.Entries[:n]
}

// unknownDigest stands for the digest of an entry that is still to be encoded.
var unknownDigest = strings.Repeat("0", 64)

// prepare makes the plan, and reports whether an earlier run has begun to carry it out.
func (p *packing) prepare() (resume bool, err error) {
	journal, err := p.journal()
	if err != nil {
		return false, err
	}
	before := &manifest.Manifest{}
	if journal != nil {
		// What cannot be read is another plan.
		if m, err := manifest.Parse([]byte(journal.Plan)); err == nil {
			before = m
			if !p.FixedTime {
				p.Manifest.Created = before.Created
			}
		}
	}
	if p.plan, p.layout, err = p.arrange(bounds(p.Manifest)); err != nil {
		return false, err
	}
	for _, e := range p.known() {
		p.total += e.Size
	}
	for _, b := range p.Manifest.Blobs {
		if b.Encoding != manifest.EncodingStored {
			p.total += b.Size
		}
	}
	if p.parity, err = p.Parity.plan(p.layout.Size(), p.Volume); err != nil {
		return false, err
	}
	if journal == nil {
		return false, nil
	}
	if journal.Plan == string(p.plan) && journal.Volume == p.Volume {
		return true, nil
	}
	if p.Restart {
		return false, nil
	}
	return false, &ChangedError{p.path, changes(before, p.Manifest, journal.Volume, p.Volume)}
}

// arrange completes the manifest and returns its bytes and the layout that follows from it.
func (p *packing) arrange(encoded map[string]manifest.Entry) ([]byte, *archive.Layout, error) {
	m := p.Manifest
	if err := manifest.Arrange(m, encoded); err != nil {
		return nil, nil, err
	}
	if len(encoded) > 0 && m.Head == 0 {
		// The payload is written before the manifest is known: there must be room for it.
		m.Head = manifest.MaxHead
		raw, err := manifest.Encode(m)
		if err != nil {
			return nil, nil, err
		}
		m.Head = archive.HeadFor(int64(len(raw)))
	}
	raw, err := manifest.Encode(m)
	if err != nil {
		return nil, nil, err
	}
	// What a reader would refuse must not leave the house.
	if _, err := manifest.Parse(raw); err != nil {
		return nil, nil, fmt.Errorf("checking the manifest before it is signed: %w", err)
	}
	layout, err := archive.NewLayout(int64(len(raw)), m.Head, m.Entries)
	if err != nil {
		return nil, nil, fmt.Errorf("laying out the bundle: %w", err)
	}
	return raw, layout, nil
}

// journal is what an interrupted pack left, nil where it left nothing to go on with.
func (p *packing) journal() (*archive.Journal, error) {
	j, err := archive.ReadJournal(p.path)
	if err != nil || j == nil {
		return nil, err
	}
	first := p.path
	if j.Volume > 0 {
		first = archive.VolumeName(p.path, 1)
	}
	if _, err := os.Lstat(first + archive.PartialSuffix); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return j, nil
}

// form says how a bundle is cut.
func form(volume int64) string {
	if volume == 0 {
		return "one file"
	}
	return "in volumes of " + archive.FormatBytes(volume)
}

// maxChanges bounds how many changes are listed.
const maxChanges = 8

// changes says in what two plans differ.
func changes(old, now *manifest.Manifest, oldVolume, volume int64) []string {
	var c []string
	add := func(format string, a ...any) { c = append(c, fmt.Sprintf(format, a...)) }
	if old.Name != now.Name || old.Version != now.Version {
		add("it was %s %s, now it is %s %s", old.Name, old.Version, now.Name, now.Version)
	}
	if old.Created != now.Created {
		add("its time was %s, now it is %s", old.Created, now.Created)
	}
	if oldVolume != volume {
		add("it was %s, now it is %s", form(oldVolume), form(volume))
	}
	d := manifest.Compare(old, now)
	for i := range d.Images.Changed {
		i := &d.Images.Changed[i]
		if i.Old.Digest == i.New.Digest {
			add("what travels with image %s has changed (%s)", i.New.Source, strings.Join(i.Changes, ", "))
			continue
		}
		add("image %s was %s, now it is %s", i.New.Source, i.Old.Digest, i.New.Digest)
	}
	image := func(i *manifest.Image) string { return i.Source }
	chart := func(c *manifest.Chart) string { return c.Name }
	file := func(f *manifest.File) string { return f.Name }
	for _, of := range []struct {
		what                    string
		changed, added, removed []string
	}{
		{"image", nil, names(d.Images.Added, image), names(d.Images.Removed, image)},
		{"chart", names(d.Charts.Changed, func(c *manifest.ChartChange) string { return c.New.Name }), names(d.Charts.Added, chart), names(d.Charts.Removed, chart)},
		{"artifact", names(d.Artifacts.Changed, func(c *manifest.ImageChange) string { return c.New.Source }), names(d.Artifacts.Added, image), names(d.Artifacts.Removed, image)},
		{"file", names(d.Files.Changed, func(c *manifest.FileChange) string { return c.New.Name }), names(d.Files.Added, file), names(d.Files.Removed, file)},
	} {
		for _, name := range of.changed {
			add("%s %s has changed", of.what, name)
		}
		for _, name := range of.added {
			add("%s %s is new", of.what, name)
		}
		for _, name := range of.removed {
			add("%s %s is gone", of.what, name)
		}
	}
	if len(c) == 0 {
		add("details of its manifest differ: parameters, requirements, notes, or the reasons for images")
	}
	if len(c) > maxChanges {
		c = append(c[:maxChanges], fmt.Sprintf("and %d more changes", len(c)-maxChanges))
	}
	return c
}

func names[T any](list []T, name func(*T) string) []string {
	var all []string
	for i := range list {
		all = append(all, name(&list[i]))
	}
	return all
}

// targets are the names by which a bundle could be there already.
func (p *packing) targets() []string { return []string{p.path, archive.VolumeName(p.path, 1)} }

func (p *packing) mayWrite() error {
	for _, path := range p.targets() {
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, os.ErrNotExist):
			continue
		case err != nil:
			return fmt.Errorf("looking at the output: %w", err)
		case !info.Mode().IsRegular():
			return fmt.Errorf("output %q is not a regular file", path)
		case !p.Overwrite:
			return fmt.Errorf("writing %q: %w", path, ErrExists)
		}
	}
	return nil
}

// mayReplace checks that none of the other files that are going to be written is there: a bundle
// of which the first volume lies elsewhere, or parity without its bundle.
func (p *packing) mayReplace(parity Parity) error {
	if p.Overwrite {
		return nil
	}
	return vacant(p.path, p.Volume, parity)
}

// vacant checks that there are no volumes, and no parity files, of the bundle that is to be
// written to path, as far as it is going to have any. ErrExists (wrapped) else.
func vacant(path string, volume int64, parity Parity) error {
	var names []string
	for n := 1; volume > 0 && n <= archive.MaxVolumes; n++ {
		names = append(names, archive.VolumeName(path, n))
	}
	for n := 1; !parity.none() && n <= maxParityFiles; n++ {
		names = append(names, parityName(path, n))
	}
	for _, name := range names {
		if _, err := os.Lstat(name); err == nil {
			return fmt.Errorf("writing %q: %w", name, ErrExists)
		} else if !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("looking at the output: %w", err)
		}
	}
	return nil
}

func (p *packing) sign(raw []byte) ([][]byte, error) {
	if p.Sign == nil {
		return nil, nil
	}
	s, err := p.Sign(raw)
	if err != nil {
		return nil, err
	}
	return [][]byte{s}, nil
}

// write brings everything into its place and gives the whole its name.
func (p *packing) write(ctx context.Context, resume bool, sign func([]byte) ([][]byte, error)) (*Result, error) {
	task := p.Progress.Start("packing", p.total, progress.Bytes)
	encoded, err := p.writeEntries(ctx, resume, task)
	task.Done()
	if err != nil {
		return nil, err
	}
	raw, layout, err := p.arrange(encoded)
	if err != nil {
		return nil, err
	}
	signatures, err := sign(raw)
	if err != nil {
		return nil, err
	}
	if err := p.seal(ctx, raw, layout, signatures); err != nil {
		return nil, err
	}
	res := &Result{Path: p.path, Digest: manifest.Digest(raw), Size: layout.Size(), Resumed: p.found.Load()}
	parity, err := p.writeParity(ctx, raw, layout)
	if err != nil {
		return nil, err
	}
	res.ParitySize = parity.size()
	// Hours may have passed since this was looked at. An interrupted run may have named its
	// parity files before the bundle.
	others := p.Parity
	if resume {
		others = Parity{}
	}
	if err := errors.Join(p.mayWrite(), p.mayReplace(others)); err != nil {
		return nil, errors.Join(err, parity.discard())
	}
	parityFiles, err := parity.publish()
	if err != nil {
		return nil, err
	}
	res.Files = append(p.w.Paths(), parityFiles...)
	if err := p.w.Publish(); err != nil {
		return nil, err
	}
	return res, p.replaced(res.Files)
}

// replaced removes what is left of the bundle that was replaced: its file where there are volumes
// now, its volumes where there is a file, its parity.
func (p *packing) replaced(now []string) error {
	if !p.Overwrite {
		return nil
	}
	old := []string{p.path}
	if p.Volume == 0 {
		old = nil
		for n := 1; n <= archive.MaxVolumes; n++ {
			old = append(old, archive.VolumeName(p.path, n))
		}
	}
	return errors.Join(removeFiles(old, nil), removeParity(p.path, now))
}

// removeFiles removes files, but for those to be kept. Some may not be there.
func removeFiles(names, keep []string) error {
	for _, name := range names {
		if slices.Contains(keep, name) {
			continue
		}
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("removing what was replaced: %w", err)
		}
	}
	return nil
}

func (p *packing) seal(ctx context.Context, raw []byte, layout *archive.Layout, signatures [][]byte) error {
	o := archive.SealOptions{Manifest: raw, Layout: layout, Signatures: signatures, Trust: archive.FitTrust(signatures, RoomForSignatures, p.Roots), ReadBack: p.ReadBack, Done: func(int64) {}}
	if p.ReadBack {
		task := p.Progress.Start("reading back", layout.Size(), progress.Bytes)
		defer task.Done()
		o.Done = task.Add
	}
	if err := p.w.Seal(ctx, o); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return err
	}
	return nil
}

// writeEntries brings every entry into its place, in the order of the file: first those whose
// place is known, several at a time, then the encoded ones, one after the other. It returns
// what the encoded blobs became.
func (p *packing) writeEntries(ctx context.Context, resume bool, task progress.Task) (map[string]manifest.Entry, error) {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(p.Jobs)
	for i := range p.known() {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error { return p.writeEntry(gctx, i, resume, task) })
	}
	err := g.Wait()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	encoded := map[string]manifest.Entry{}
	for _, b := range p.Manifest.Blobs {
		if b.Encoding == manifest.EncodingStored {
			continue
		}
		e, err := p.writeEncoded(ctx, b, resume, task)
		// What comes after one that has to be written anew lies elsewhere than before.
		resume = resume && e.recovered
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		encoded[b.Digest] = e.Entry
	}
	return encoded, nil
}

// fixed is the content of entries that are not fetched.
func (p *packing) fixed(i int) (content []byte, blob manifest.Blob, ok bool, err error) {
	switch p.Manifest.Entries[i].Name {
	case manifest.EntryOCILayout:
		return manifest.OCILayout(), blob, true, nil
	case manifest.EntryIndex:
		content, err = manifest.OCIIndex(p.Manifest)
		return content, blob, true, err
	}
	blob = p.Manifest.Blobs[i-(len(p.Manifest.Entries)-len(p.Manifest.Blobs))]
	s := p.sources[blob.Digest]
	return s.content, blob, s.repo == nil && s.path == "" || s.content != nil, nil
}

func (p *packing) writeEntry(ctx context.Context, i int, resume bool, task progress.Task) error {
	content, blob, fixed, err := p.fixed(i)
	if err != nil {
		return err
	}
	e := p.w.Entry(i)
	defer e.Close()
	if fixed {
		return e.Fill(ctx, bytes.NewReader(content), task.Add)
	}
	if resume {
		complete, err := e.Recover(ctx)
		if err != nil {
			return err
		}
		task.Add(e.Taken())
		p.found.Add(e.Taken())
		if complete {
			return nil
		}
	}
	recovered := e.Taken()
	err = p.fetch(ctx, e, blob, task)
	// What an earlier run left looked sound and was not, or what came was spoiled on its way.
	for again := 0; p.spoiled(blob.Digest, recovered > 0, again, err); again++ {
		task.Add(-e.Taken())
		p.found.Add(-recovered)
		recovered = 0
		e.Reset()
		err = p.fetch(ctx, e, blob, task)
	}
	if err != nil {
		return p.failed(blob.Digest, err)
	}
	task.Note(blob.Digest)
	return nil
}

// refetches is how often a blob is fetched again that was not what its digest says.
const refetches = 2

// spoiled reports whether a blob that was not what it must be is worth another look: what comes from
// elsewhere may have been spoiled on its way, what an earlier run left is not to be trusted.
func (p *packing) spoiled(digest string, recovered bool, again int, err error) bool {
	var wrong *archive.ContentError
	if !errors.As(err, &wrong) {
		return false
	}
	s := p.sources[digest]
	return recovered || again < refetches && s.repo != nil && s.content == nil
}

// ErrFileChanged says that a file is not what it was when the pack began.
var ErrFileChanged = errors.New("it has changed since the pack began")

// failed says what a blob that could not be brought is to the user: a file has a name.
func (p *packing) failed(digest string, err error) error {
	path := p.sources[digest].path
	if path == "" {
		return &BlobError{digest, err}
	}
	var wrong *archive.ContentError
	if errors.As(err, &wrong) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%w: %w", ErrFileChanged, err)
	}
	return &FileSpecError{path, 0, err}
}

func (p *packing) fetch(ctx context.Context, e *archive.EntryWriter, blob manifest.Blob, task progress.Task) error {
	body, err := p.sources[blob.Digest].open(ctx, descriptorOf(blob), e.Taken())
	if err != nil {
		return err
	}
	defer body.Close()
	return e.Fill(ctx, body, p.counting(task))
}

// open reads a blob from offset on.
func (s source) open(ctx context.Context, d manifest.Descriptor, offset int64) (io.ReadCloser, error) {
	switch {
	case s.content == nil && s.repo != nil:
		return s.repo.Blob(ctx, d, offset), nil
	case s.path != "":
		return openFile(s.path, offset)
	}
	return io.NopCloser(bytes.NewReader(s.content[min(offset, int64(len(s.content))):])), nil
}

func (p *packing) counting(task progress.Task) func(int64) {
	return func(n int64) {
		task.Add(n)
		p.fetched.Add(n)
	}
}

type encodedEntry struct {
	manifest.Entry
	recovered bool
}

func (p *packing) writeEncoded(ctx context.Context, b manifest.Blob, resume bool, task progress.Task) (encodedEntry, error) {
	if resume {
		e, ok, err := p.w.RecoverEncoded(ctx, b)
		if err != nil {
			return encodedEntry{}, err
		}
		if ok {
			task.Add(b.Size)
			p.found.Add(b.Size)
			return encodedEntry{e, true}, nil
		}
	}
	e, err := p.encode(ctx, b, task)
	for again := 0; p.spoiled(b.Digest, false, again, err); again++ {
		e, err = p.encode(ctx, b, task)
	}
	if err != nil {
		return encodedEntry{}, &BlobError{b.Digest, err}
	}
	task.Note(b.Digest)
	return encodedEntry{e, false}, nil
}

// encode fetches a blob and writes it. What of it was no use is not counted.
func (p *packing) encode(ctx context.Context, b manifest.Blob, task progress.Task) (manifest.Entry, error) {
	body, err := p.sources[b.Digest].open(ctx, descriptorOf(b), 0)
	if err != nil {
		return manifest.Entry{}, err
	}
	defer body.Close()
	read, count := int64(0), p.counting(task)
	e, err := p.w.Encode(ctx, b, body, func(n int64) {
		read += n
		count(n)
	})
	if err != nil {
		task.Add(-read)
	}
	return e, err
}

func descriptorOf(b manifest.Blob) manifest.Descriptor {
	return manifest.Descriptor{Digest: b.Digest, MediaType: b.MediaType, Size: b.Size}
}
