package archive

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
)

// ParitySuffix is followed by the three digits of a parity file's number.
const ParitySuffix = ".par"

// DetachedSuffix is added to the name of a bundle file to name a sigstore bundle beside it.
const DetachedSuffix = ".sigstore.json"

// Files is where one bundle lies.
type Files struct {
	// Name is how people know it: the path of its file, or that of its volumes without numbers.
	Name string
	// File is the path of its only file; empty where there are volumes.
	File string
	// Volumes are the paths of its volumes by number.
	Volumes map[int]string
	// Parity and Detached are the paths of parity files and of sigstore bundles beside it.
	Parity, Detached []string
	// named are the volumes that were named themselves.
	named map[int]bool
}

// NoBundleError says that there is no bundle where one was looked for.
type NoBundleError struct{ Dir string }

// Error names the directory.
func (e *NoBundleError) Error() string { return fmt.Sprintf("no bundle in directory %q", e.Dir) }

// Open opens the file or the volumes. Errors: ErrNotBundle, *VolumesError where the first volume
// is missing, or that of opening.
func (f *Files) Open() (Source, error) {
	if f.File != "" {
		return OpenFile(f.File)
	}
	return OpenVolumes(f.Name, f.Volumes)
}

// Paths are the paths of the file or of the volumes, in order, and of the parity files.
func (f *Files) Paths() []string {
	var paths []string
	if f.File != "" {
		paths = append(paths, f.File)
	}
	numbers := make([]int, 0, len(f.Volumes))
	for n := range f.Volumes {
		numbers = append(numbers, n)
	}
	sort.Ints(numbers)
	for _, n := range numbers {
		paths = append(paths, f.Volumes[n])
	}
	return append(paths, f.Parity...)
}

// finder groups what it is shown into bundles.
type finder struct {
	all []*Files
	// of the bundles in volumes, by the name that their files have in common.
	sets map[string]*Files
	// dirs that were looked through for volumes of a set.
	seen map[string]bool
}

// Find returns the bundles that paths name, in their order. A path is a bundle file, any volume
// of one, the name that its volumes have in common, or a directory with any of these. Volumes of
// one bundle may lie in several directories: those beside a volume that is named are found, all
// others have to be named, or their directories. Of a volume that is in several places the last
// one counts, or the one that is named itself. Errors: *NoBundleError, or that of looking.
func Find(paths []string) ([]*Files, error) {
	f := &finder{sets: map[string]*Files{}, seen: map[string]bool{}}
	for _, p := range paths {
		if err := f.add(p); err != nil {
			return nil, err
		}
	}
	for _, b := range f.all {
		if err := b.findBeside(); err != nil {
			return nil, err
		}
	}
	return f.all, nil
}

func (f *finder) add(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		// The name that volumes have in common is the name that people know.
		if found, e := f.volumesIn(filepath.Dir(path), filepath.Base(path)); e != nil || found {
			return e
		}
	}
	if err != nil {
		return fmt.Errorf("opening bundle: %w", err)
	}
	if info.IsDir() {
		return f.addDir(path)
	}
	base, number, ok := splitVolumeName(filepath.Base(path))
	if !ok {
		f.addFile(path)
		return nil
	}
	f.addVolume(filepath.Dir(path), base, number, true)
	// In a directory that may be entered but not listed, those have to be named.
	if _, err = f.volumesIn(filepath.Dir(path), base); errors.Is(err, os.ErrPermission) {
		return nil
	}
	return err
}

// addFile adds a bundle in one file, once.
func (f *finder) addFile(path string) {
	for _, b := range f.all {
		if b.File != "" && sameFile(b.File, path) {
			return
		}
	}
	f.all = append(f.all, &Files{Name: path, File: path})
}

// sameFile reports whether two paths lead to one file of one name, as those of a directory that
// is named twice.
func sameFile(a, b string) bool {
	if filepath.Base(a) != filepath.Base(b) {
		return false
	}
	if filepath.Clean(a) == filepath.Clean(b) {
		return true
	}
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// isFile reports whether there is a regular file: what else may be called like a volume is none.
func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// addParity adds a parity file, once.
func (f *Files) addParity(path string) {
	if !slices.ContainsFunc(f.Parity, func(p string) bool { return sameFile(p, path) }) {
		f.Parity = append(f.Parity, path)
	}
}

// set returns the bundle in volumes that are called base.
func (f *finder) set(dir, base string) *Files {
	s := f.sets[base]
	if s == nil {
		s = &Files{Name: filepath.Join(dir, base), Volumes: map[int]string{}, named: map[int]bool{}}
		f.sets[base] = s
		f.all = append(f.all, s)
	}
	return s
}

func (f *finder) addVolume(dir, base string, number int, named bool) {
	set := f.set(dir, base)
	if set.named[number] && !named {
		return
	}
	set.Volumes[number] = filepath.Join(dir, VolumeName(base, number))
	set.named[number] = named
}

// volumesIn adds the volumes in dir that are called base.
func (f *finder) volumesIn(dir, base string) (found bool, err error) {
	key := filepath.Join(dir, base)
	if f.seen[key] {
		return true, nil
	}
	names, err := listDir(dir)
	if err != nil {
		return false, err
	}
	for _, name := range names {
		if b, number, ok := splitVolumeName(name); ok && b == base && isFile(filepath.Join(dir, name)) {
			found = true
			f.addVolume(dir, base, number, false)
		}
	}
	f.seen[key] = f.seen[key] || found
	return found, nil
}

// maxBundles bounds how many bundles are taken from directories: each of them is compared with the
// others and looked for in all of its directory.
const maxBundles = 256

// extension of the files that a directory is searched for.
const extension = ".tar.zst"

// parityBase takes what follows the bundle's name off the name of a parity file.
func parityBase(name string) (base string, ok bool) {
	base, digits, found := cutLast(name, ParitySuffix)
	return base, found && base != "" && len(digits) == 3 && strings.Trim(digits, "0123456789") == ""
}

// addDir adds everything in a directory that is called as bundles are.
func (f *finder) addDir(dir string) error {
	names, err := listDir(dir)
	if err != nil {
		return err
	}
	found := false
	for _, name := range names {
		path := filepath.Join(dir, name)
		base, number, isVolume := splitVolumeName(name)
		parity, isParity := parityBase(name)
		switch {
		case !isFile(path):
			continue
		case strings.HasSuffix(name, extension):
			f.addFile(path)
		case isVolume && strings.HasSuffix(base, extension):
			if _, whole := slices.BinarySearch(names, base); whole {
				continue // the whole file is there too
			}
			f.addVolume(dir, base, number, false)
		case isParity && strings.HasSuffix(parity, extension):
			if _, whole := slices.BinarySearch(names, parity); whole {
				continue // found beside it later
			}
			// A disk may hold nothing but parity of volumes on others.
			f.set(dir, parity).addParity(path)
		default:
			continue
		}
		found = true
		if len(f.all) > maxBundles {
			return fmt.Errorf("more than %d bundles with those in directory %q: %w", maxBundles, dir, ErrLimit)
		}
	}
	if !found {
		return &NoBundleError{dir}
	}
	return nil
}

// listDir returns the names in a directory, sorted.
func listDir(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("looking for bundles: %w", err)
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

// findBeside looks for parity files and signatures in the directories that the bundle lies in.
func (f *Files) findBeside() error {
	base := filepath.Base(f.Name)
	dirs := map[string]bool{filepath.Dir(f.Name): true}
	for _, p := range f.Volumes {
		dirs[filepath.Dir(p)] = true
	}
	for _, p := range f.Parity {
		dirs[filepath.Dir(p)] = true
	}
	sorted := make([]string, 0, len(dirs))
	for d := range dirs {
		sorted = append(sorted, d)
	}
	sort.Strings(sorted)
	for _, dir := range sorted {
		// A directory that may be entered but not listed still gives the files that are named.
		names, err := listDir(dir)
		if err != nil && !errors.Is(err, os.ErrPermission) {
			return err
		}
		for _, name := range names {
			path := filepath.Join(dir, name)
			if of, ok := parityBase(name); ok && of == base && isFile(path) {
				f.addParity(path)
			}
		}
		detached := filepath.Join(dir, base+DetachedSuffix)
		if _, err := os.Stat(detached); err == nil || !errors.Is(err, os.ErrNotExist) {
			f.Detached = append(f.Detached, detached)
		}
	}
	return nil
}
