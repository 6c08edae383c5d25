// Package support writes one archive with what those need who help from far away: texts from the cluster and
// from this machine, without secrets, in an order and under names that do not depend on chance.
//
// The archive is a tar (POSIX.1-2001, pax) in gzip (RFC 1952), since everybody who is sent one can read it.
// It is for its owner only until somebody has looked at it, and there whole, or not at all.
package support

import (
	"archive/tar"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/sealift/sealift/internal/redact"
)

const (
	// MaxBytes bounds all that is in an archive, in bytes before it is compressed.
	MaxBytes = 200 << 20
	// MaxFile bounds one file in it.
	MaxFile = 32 << 20
	// maxErrors bounds how many errors are listed.
	maxErrors = 10_000
	// maxSecrets bounds how many secrets are looked for, maxSecretBytes how long they are together.
	maxSecrets     = 20_000
	maxSecretBytes = 32 << 20
	// Root is the directory that everything in the archive is in.
	Root = "sealift-support"
)

// Source gives what goes into an archive.
type Source interface {
	// Name says what it is, for errors.
	Name() string
	// Secrets hands out the secrets that are not to get into any of the texts, whoever gives these.
	Secrets(ctx context.Context, to *Archive) error
	// Collect hands out the texts. What cannot be read it says to Failed, and goes on.
	Collect(ctx context.Context, to *Archive) error
}

// Archive takes what sources give.
type Archive struct {
	secrets []string
	size    int
	exempt  map[string]bool
	known   *redact.Known

	tar    *tar.Writer
	now    time.Time
	limit  int64
	bytes  int64
	files  []File
	taken  map[string]bool
	errors []string
	// full is set once something was left out for its size.
	full bool
}

// File is a file of the archive.
type File struct {
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"`
}

// Result is what was written.
type Result struct {
	Files  []File   `json:"files"`
	Bytes  int64    `json:"bytes"`
	Errors []string `json:"errors"`
	// Full says that not all had room.
	Full bool `json:"full,omitempty"`
}

// Options of an archive.
type Options struct {
	// Now is the time of all files in it.
	Now time.Time
	// Exempt are words that are no secrets, even where something secret has the same text: names of
	// namespaces and releases.
	Exempt []string
	// Limit bounds all that is in it, in bytes; 0 for MaxBytes.
	Limit int64
	// Readme is what this archive has, and has not, in words.
	Readme string
}

// Create writes an archive to a path, and makes sure that it is on the disk. A file that is there is not
// overwritten: the error wraps fs.ErrExist. What sources cannot read is no error, but in errors.txt.
func Create(ctx context.Context, to string, sources []Source, o Options) (_ *Result, err error) {
	if _, err := os.Lstat(to); err == nil {
		return nil, fmt.Errorf("writing support archive: %w", &os.PathError{Op: "create", Path: to, Err: os.ErrExist})
	}
	dir := filepath.Dir(to)
	f, err := os.CreateTemp(dir, ".sealift-support-*") // for its owner only
	if err != nil {
		return nil, fmt.Errorf("writing support archive: %w", err)
	}
	defer func() {
		if f != nil {
			// The archive is not whole: what is wrong is known already.
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	r, err := Write(ctx, f, sources, o)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return nil, fmt.Errorf("writing support archive: %w", err)
	}
	// A link refuses to take the place of what has come meanwhile; not all file systems have them.
	if err := os.Link(f.Name(), to); err == nil {
		err = os.Remove(f.Name())
		if err != nil {
			return nil, fmt.Errorf("writing support archive: %w", err)
		}
	} else if errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("writing support archive: %w", err)
	} else if err := os.Rename(f.Name(), to); err != nil {
		return nil, fmt.Errorf("writing support archive: %w", err)
	}
	f = nil
	return r, syncDir(dir)
}

// syncDir makes the name of a file durable, where directories can be synced.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("writing support archive: %w", err)
	}
	// File systems that cannot do it keep the name all the same.
	_ = d.Sync()
	return d.Close()
}

// Write writes an archive to w. Secrets of all sources are known before the first text is taken.
func Write(ctx context.Context, w io.Writer, sources []Source, o Options) (*Result, error) {
	z := gzip.NewWriter(w)
	a := &Archive{tar: tar.NewWriter(z), now: o.Now.UTC().Truncate(time.Second), taken: map[string]bool{}, exempt: map[string]bool{}, limit: cmp.Or(o.Limit, MaxBytes)}
	for _, word := range o.Exempt {
		a.exempt[word] = true
	}
	for _, s := range sources {
		if err := s.Secrets(ctx, a); err != nil {
			return nil, fmt.Errorf("collecting what is secret in %s: %w", s.Name(), err)
		}
	}
	a.known = redact.New(a.secrets)
	if err := a.write("README.txt", []byte(o.Readme)); err != nil {
		return nil, err
	}
	for _, s := range sources {
		if err := s.Collect(ctx, a); err != nil {
			return nil, fmt.Errorf("collecting from %s: %w", s.Name(), err)
		}
	}
	slices.Sort(a.errors)
	if err := a.write("errors.txt", []byte(strings.Join(a.errors, "\n")+"\n")); err != nil {
		return nil, err
	}
	if err := errors.Join(a.tar.Close(), z.Close()); err != nil {
		return nil, fmt.Errorf("writing support archive: %w", err)
	}
	return &Result{Files: a.files, Bytes: a.bytes, Errors: a.errors, Full: a.full}, nil
}

// TooManySecretsError says that there are more secrets than can be looked for.
type TooManySecretsError struct{ Limit int }

// Error gives the limit.
func (e *TooManySecretsError) Error() string {
	return fmt.Sprintf("there are more than %d secrets to be kept out", e.Limit)
}

// Secret has texts kept out of all files. Errors are *TooManySecretsError: what is not looked for would get
// out.
func (a *Archive) Secret(texts ...string) error {
	for _, text := range texts {
		if len(strings.TrimSpace(text)) < redact.MinSecret || a.exempt[text] || text == "true" || text == "false" {
			continue
		}
		a.secrets = append(a.secrets, text)
		if trimmed := strings.TrimSpace(text); trimmed != text {
			a.secrets = append(a.secrets, trimmed)
		}
		a.size += len(text)
		if len(a.secrets) > maxSecrets || a.size > maxSecretBytes {
			return &TooManySecretsError{maxSecrets}
		}
	}
	return nil
}

// Text puts a file into the archive, without secrets and control characters. Names are relative, with
// slashes; what they have that file systems would not take is replaced. A file that is too large is
// cut at its beginning: the end is the newest.
func (a *Archive) Text(name string, text []byte) error {
	return a.write(name, text)
}

// Failed notes what could not be read.
func (a *Archive) Failed(what string, err error) {
	if len(a.errors) < maxErrors {
		line := what + ": " + cmp.Or(err.Error(), "no reason was given")
		if a.known != nil {
			line = a.clean(line)
		} else {
			line = redact.Looks(line)
		}
		a.errors = append(a.errors, strings.Join(strings.Fields(line), " "))
	}
}

// Full reports whether there is no room left: then nothing more needs to be read.
func (a *Archive) Full() bool { return a.bytes >= a.limit }

// clean takes out of a text what is secret, and what would steer a terminal.
func (a *Archive) clean(text string) string {
	text = strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r)) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
	return redact.Looks(a.known.Hide(text))
}

func (a *Archive) write(name string, raw []byte) error {
	cut := false
	if len(raw) > MaxFile {
		raw, cut = raw[len(raw)-MaxFile:], true
	}
	text := a.clean(string(raw))
	if cut {
		// What was hidden may have begun before the cut.
		_, text, _ = strings.Cut(text, "\n")
		text = "[what was before is left out]\n" + text
	}
	name = a.name(name)
	// The lists at the end have room always.
	if last := name == path.Join(Root, "errors.txt"); !last && a.bytes+int64(len(text)) > a.limit {
		a.full = true
		a.errors = append(a.errors, fmt.Sprintf("%s: left out: the archive would be larger than %d bytes", name, a.limit))
		return nil
	}
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600, Size: int64(len(text)), ModTime: a.now, Format: tar.FormatPAX}
	if err := a.tar.WriteHeader(h); err != nil {
		return fmt.Errorf("writing support archive: %w", err)
	}
	if _, err := io.WriteString(a.tar, text); err != nil {
		return fmt.Errorf("writing support archive: %w", err)
	}
	a.bytes += int64(len(text))
	a.files = append(a.files, File{name, int64(len(text))})
	return nil
}

// maxName bounds a part of a name, in bytes.
const maxName = 120

// name is the name of a file in the archive, which no other has.
func (a *Archive) name(text string) string {
	var parts []string
	for part := range strings.SplitSeq(text, "/") {
		part = strings.Map(func(r rune) rune {
			switch {
			case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '-', r == '_':
				return r
			}
			return '_'
		}, part)
		if part = part[:min(len(part), maxName)]; strings.Trim(part, ".") != "" {
			parts = append(parts, part)
		}
	}
	name := path.Join(Root, cmp.Or(strings.Join(parts, "/"), "unnamed"))
	unique := name
	for i := 2; a.taken[strings.ToLower(unique)]; i++ {
		ext := path.Ext(name)
		unique = fmt.Sprintf("%s-%d%s", strings.TrimSuffix(name, ext), i, ext)
	}
	a.taken[strings.ToLower(unique)] = true
	return unique
}
