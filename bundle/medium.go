package bundle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/progress"
	"github.com/sealift/sealift/manifest"
)

// Names of what lies on a medium beside the bundle.
const (
	mediumSums   = "SHA256SUMS"
	mediumReadme = "README.txt"
	// mediumTexts is more than the two of them and the signatures take, in bytes.
	mediumTexts = 1 << 20
)

// Binary is a Sealift program for the site.
type Binary struct {
	// Platform as os/arch, Path of the file.
	Platform, Path string
	size           int64
}

// name is what the program is called on a medium.
func (b Binary) name() string {
	n := "sealift-" + strings.ReplaceAll(b.Platform, "/", "-")
	if strings.HasPrefix(b.Platform, "windows/") {
		n += ".exe"
	}
	return n
}

// BinaryError says that there is no program for a platform.
type BinaryError struct {
	Platform, Path string
	Err            error
}

// Error names the platform and where the program was looked for.
func (e *BinaryError) Error() string {
	return fmt.Sprintf("the program for %s, looked for as %q: %v", e.Platform, e.Path, e.Err)
}

// Unwrap returns the cause.
func (e *BinaryError) Unwrap() error { return e.Err }

// FindBinaries finds the programs for some platforms. That of the running platform is self, all
// others are in dir, called sealift-OS-ARCH. Errors: *BinaryError.
func FindBinaries(platforms []string, running, self, dir string) ([]Binary, error) {
	var all []Binary
	for _, p := range platforms {
		if err := manifest.CheckPlatform(p); err != nil {
			return nil, err
		}
		b := Binary{Platform: p}
		b.Path = filepath.Join(dir, b.name())
		info, err := os.Stat(b.Path)
		if errors.Is(err, os.ErrNotExist) && p == running {
			b.Path = self
			info, err = os.Stat(self)
		}
		if err == nil && !info.Mode().IsRegular() {
			err = errors.New("not a regular file")
		}
		if err != nil {
			return nil, &BinaryError{p, b.Path, err}
		}
		b.size = info.Size()
		all = append(all, b)
	}
	return all, nil
}

// Medium is a directory that is going to be carried to a site.
type Medium struct {
	Dir      string
	Binaries []Binary
	// Sign returns a sigstore bundle over a file; required where there are binaries.
	Sign func(io.Reader) ([]byte, error)
	// Key is the fingerprint of the key that signs, for the site to compare; empty for none.
	Key string
}

// Beside is how many bytes lie on the medium beside the bundle, at most.
func (m *Medium) Beside() int64 {
	n := int64(mediumTexts)
	for _, b := range m.Binaries {
		n += b.size
	}
	return n
}

// mediumTitle is the first line of README.txt, by which the texts of a medium are known as ours.
func mediumTitle(m *manifest.Manifest) string {
	return fmt.Sprintf("%s %s, a Sealift bundle\n", m.Name, m.Version)
}

// Check refuses a directory with texts of something else, which would be replaced: one medium is
// for one bundle. *ThereError.
func (m *Medium) Check(title *manifest.Manifest) error {
	path := filepath.Join(m.Dir, mediumReadme)
	f, _, err := archive.OpenRegular(path)
	if err == nil {
		begin := make([]byte, len(mediumTitle(title)))
		_, err = io.ReadFull(f, begin)
		if err = errors.Join(err, f.Close()); err == nil && string(begin) == mediumTitle(title) {
			return nil
		}
		return &ThereError{path}
	}
	if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("looking at the medium: %w", err)
	}
	path = filepath.Join(m.Dir, mediumSums)
	if _, err := os.Lstat(path); err == nil {
		return &ThereError{path}
	}
	return nil
}

// Write completes the medium that the bundle of res was written to: programs with their
// signatures, SHA256SUMS of everything, and a README.txt with the commands for the site. There
// are no keys among it. It returns the paths of the files.
func (m *Medium) Write(ctx context.Context, res *Result, title *manifest.Manifest, report progress.Reporter) ([]string, error) {
	if err := m.Check(title); err != nil {
		return nil, err
	}
	names := make([]string, 0, len(res.Files))
	for _, f := range res.Files {
		names = append(names, filepath.Base(f))
	}
	var paths []string
	add := func(name string, mode os.FileMode, content io.Reader) error {
		path := filepath.Join(m.Dir, name)
		if err := writeFile(path, mode, content); err != nil {
			return fmt.Errorf("writing the medium: %w", err)
		}
		names, paths = append(names, name), append(paths, path)
		return nil
	}
	for _, b := range m.Binaries {
		if err := m.addBinary(b, add); err != nil {
			return nil, err
		}
	}
	if err := add(mediumReadme, 0o644, strings.NewReader(m.readme(res, title))); err != nil {
		return nil, err
	}
	slices.Sort(names)
	sums, err := m.sums(ctx, names, report)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	if err := add(mediumSums, 0o644, strings.NewReader(sums)); err != nil {
		return nil, err
	}
	return paths, nil
}

func (m *Medium) addBinary(b Binary, add func(string, os.FileMode, io.Reader) error) (err error) {
	f, err := os.Open(b.Path)
	if err != nil {
		return &BinaryError{b.Platform, b.Path, err}
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := add(b.name(), 0o755, f); err != nil {
		return err
	}
	// What is signed is what lies on the medium.
	written, err := os.Open(filepath.Join(m.Dir, b.name()))
	if err != nil {
		return fmt.Errorf("signing %q: %w", b.name(), err)
	}
	defer func() { err = errors.Join(err, written.Close()) }()
	signature, err := m.Sign(written)
	if err != nil {
		return fmt.Errorf("signing %q: %w", b.name(), err)
	}
	return add(b.name()+archive.DetachedSuffix, 0o644, strings.NewReader(string(signature)))
}

// sums is the content of SHA256SUMS, made by reading everything from the medium.
func (m *Medium) sums(ctx context.Context, names []string, report progress.Reporter) (string, error) {
	var total int64
	for _, n := range names {
		info, err := os.Stat(filepath.Join(m.Dir, n))
		if err != nil {
			return "", fmt.Errorf("reading the medium: %w", err)
		}
		total += info.Size()
	}
	task := report.Start("summing up", total, progress.Bytes)
	defer task.Done()
	var b strings.Builder
	for _, n := range names {
		sum, err := sumFile(ctx, filepath.Join(m.Dir, n), task.Add)
		if err != nil {
			return "", fmt.Errorf("reading the medium: %w", err)
		}
		fmt.Fprintf(&b, "%s  %s\n", sum, n)
	}
	return b.String(), nil
}

func sumFile(ctx context.Context, path string, done func(int64)) (_ string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h, buf := sha256.New(), make([]byte, 1<<20)
	for {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		n, err := f.Read(buf)
		h.Write(buf[:n])
		done(int64(n))
		if errors.Is(err, io.EOF) {
			return hex.EncodeToString(h.Sum(nil)), nil
		}
		if err != nil {
			return "", err
		}
	}
}

// writeFile writes a file, all of it or nothing.
func writeFile(path string, mode os.FileMode, content io.Reader) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".sealift-*"+archive.PartialSuffix)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	if e := f.Chmod(mode); e != nil && !errors.Is(e, errors.ErrUnsupported) && !errors.Is(e, os.ErrPermission) {
		err = errors.Join(err, e) // FAT knows no modes
	}
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// readme is the text that goes with a medium: the commands for this bundle.
func (m *Medium) readme(res *Result, title *manifest.Manifest) string {
	var b strings.Builder
	p := func(format string, a ...any) { fmt.Fprintf(&b, format+"\n", a...) }
	name := filepath.Base(res.Path)
	b.WriteString(mediumTitle(title))
	p("")
	p("digest     %s", res.Digest)
	p("size       %s (%d bytes)", archive.FormatBytes(res.Size), res.Size)
	if m.Key != "" {
		p("signed by  key sha256:%s", m.Key)
	} else {
		p("signed by  nobody: no site accepts it until there is a signature")
	}
	p("")
	p("This medium holds no key. Get the vendor's public key by another way, once, and compare")
	p("its fingerprint there. In the commands below it is cosign.pub, and the medium is mounted")
	p("at /mnt; write what is right for you.")
	p("")
	p("1. Is the medium as it was written? (Who wrote it, step 3 tells.)")
	p("")
	if filepath.Base(res.Files[0]) == name {
		p("   cd /mnt && sha256sum -c %s", mediumSums)
	} else {
		p("   cd /mnt && sha256sum -c --ignore-missing %s", mediumSums)
		p("")
		p("   That checks what is on this disk, if the volumes are on several.")
	}
	m.readmeProgram(p)
	m.readmeBundle(p, res, name)
	return b.String()
}

func (m *Medium) readmeProgram(p func(string, ...any)) {
	p("")
	p("2. The program.")
	p("")
	if len(m.Binaries) == 0 {
		p("   There is none on this medium: use the one that is installed.")
		return
	}
	p("   The first time, prove with openssl that it is signed by the same key:")
	p("")
	for _, bin := range m.Binaries {
		p("   sed -n 's/.*\"signature\": *\"\\([^\"]*\\)\".*/\\1/p' /mnt/%s%s |", bin.name(), archive.DetachedSuffix)
		p("     base64 -d > /tmp/sealift.sig")
		p("   openssl dgst -sha256 -verify cosign.pub -signature /tmp/sealift.sig /mnt/%s", bin.name())
	}
	p("")
	p("   Then copy it: media are often mounted so that nothing on them can be run (noexec), and")
	p("   FAT32 keeps no permissions.")
	p("")
	for _, bin := range m.Binaries {
		if strings.HasPrefix(bin.Platform, "windows/") {
			p("   copy %s C:\\sealift.exe        (%s)", bin.name(), bin.Platform)
			continue
		}
		p("   install -m 755 /mnt/%s /usr/local/bin/sealift      (%s)", bin.name(), bin.Platform)
	}
}

func (m *Medium) readmeBundle(p func(string, ...any), res *Result, name string) {
	volumes, parity := 0, 0
	for _, f := range res.Files {
		if strings.Contains(filepath.Base(f), Extension+archive.ParitySuffix) || strings.HasPrefix(filepath.Base(f), name+archive.ParitySuffix) {
			parity++
		} else {
			volumes++
		}
	}
	where := "/mnt/" + name
	p("")
	p("3. Prove the bundle: who signed it, and every byte. At a site that has pinned a policy")
	p("   ('sealift trust show' prints it) leave --key out, here and below.")
	p("")
	if filepath.Base(res.Files[0]) != name {
		p("   It is in %d volumes, %s to .%03d. They are read where they are and never", volumes, archive.VolumeName(name, 1), volumes)
		p("   joined. If they lie on several media, name each directory, in any order:")
		p("")
		p("   sealift verify --key cosign.pub /mnt/disk1 /mnt/disk2")
		p("")
		p("   With one drive, copy them one after the other into one directory, and name that")
		p("   instead of /mnt below.")
		p("")
		where = "/mnt"
	}
	p("   sealift verify --key cosign.pub %s", where)
	p("")
	if filepath.Base(res.Files[0]) != name {
		p("   What is missing or damaged is named; only that has to be carried again.")
	}
	if parity > 0 {
		p("   Damage can be repaired on the spot, into a directory with room for what is broken. Name")
		p("   the directories with the .par files too, and from then on the repaired one, last:")
		p("")
		p("   sealift repair --key cosign.pub %s -o /var/tmp/repaired", where)
	}
	p("")
	p("4. Seed the site's registry, and install:")
	p("")
	p("   sealift seed %s --key cosign.pub --registry registry.site.example:5000", where)
	p("   sealift install %s --key cosign.pub --registry registry.site.example:5000 --dry-run", where)
	p("   sealift install %s --key cosign.pub --registry registry.site.example:5000", where)
	p("")
	p("   Where there is no registry (this one asks nobody for a password and speaks no TLS):")
	p("")
	p("   sealift serve --store /var/lib/sealift/registry --listen 192.0.2.10:5000")
	p("   sealift seed %s --key cosign.pub --registry 192.0.2.10:5000 --plain-http 192.0.2.10:5000", where)
	p("")
	p("'sealift inspect %s' shows what is inside, 'sealift help' everything else.", where)
}
