package archive

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// ParitySuffix is followed by the three digits of a parity file's number.
const ParitySuffix = ".par"

// DetachedSuffix is added to the name of a bundle file to name a sigstore bundle beside it. More
// of them have a number before it: see DetachedName.
const DetachedSuffix = ".sigstore.json"

const (
	// maxDetachedNumber is the last number that a sigstore bundle beside a bundle can have.
	maxDetachedNumber = 99
	// maxDetached bounds how many of them are taken, from all directories together.
	maxDetached = 64
)

// DetachedName is the name of sigstore bundle number (1 to 99) beside the bundle file called
// name: NAME.sigstore.json, NAME.2.sigstore.json and so on.
func DetachedName(name string, number int) string {
	if number == 1 {
		return name + DetachedSuffix
	}
	return fmt.Sprintf("%s.%d%s", name, number, DetachedSuffix)
}

// Files is where one bundle lies.
type Files struct {
	// Name is how people know it: the path of its file, or that of its volumes without numbers.
	Name string
	// File is the path of its only file; empty where there are volumes.
	File string
	// Volumes are the paths of its volumes by number.
	Volumes map[int]string
	// Parity and Detached are the paths of parity files and of sigstore bundles beside it, of
	// these at most 64, in each directory by their numbers.
	Parity, Detached []string
	// Remote is where it is if it lies in no files; else nil.
	Remote *Remote
	// named are the volumes that were named themselves.
	named map[int]bool
}

// NoBundleError says that there is no bundle where one was looked for.
type NoBundleError struct{ Dir string }

// Error names the directory.
func (e *NoBundleError) Error() string { return fmt.Sprintf("no bundle in directory %q", e.Dir) }

// Open opens the file or the volumes. Errors: ErrNotBundle, *VolumesError where the first volume
// is missing, those of Remote.Open, or that of opening.
func (f *Files) Open() (Source, error) {
	if f.Remote != nil {
		return f.Remote.Open()
	}
	if f.File != "" {
		return OpenFile(f.File)
	}
	return OpenVolumes(f.Name, f.Volumes)
}

// base is the name of its file, which those of volumes, parity files and signatures begin with.
func (f *Files) base() string {
	if f.Remote != nil {
		return f.Remote.FileName
	}
	return filepath.Base(f.Name)
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
	// detached are sigstore bundles that were named, or lie in directories that were, by the name
	// of the bundle that they are for.
	detached map[string][]string
	// signatures are those of them that were named themselves.
	signatures []string
}

// Find returns the bundles that paths name, in their order. A path is a bundle file, any volume
// of one, the name that its volumes have in common, or a directory with any of these. Volumes of
// one bundle may lie in several directories: those beside a volume that is named are found, all
// others have to be named, or their directories. Of a volume that is in several places the last
// one counts, or the one that is named itself. Signatures may lie in other directories than their
// bundle, whose medium cannot be written: then they, or their directories, are named as well.
// Errors: *NoBundleError, or that of looking.
func Find(paths []string) ([]*Files, error) {
	return FindWith(paths, func(string) (*Files, error) { return nil, nil })
}

// FindWith is Find for paths of which some are no paths of this machine: elsewhere returns the
// bundle that one of those names, nil for all others. Its errors are returned as they are.
func FindWith(paths []string, elsewhere func(path string) (*Files, error)) ([]*Files, error) {
	f := &finder{sets: map[string]*Files{}, seen: map[string]bool{}, detached: map[string][]string{}}
	for _, p := range paths {
		switch remote, err := elsewhere(p); {
		case err != nil:
			return nil, err
		case remote != nil:
			if !slices.ContainsFunc(f.all, func(o *Files) bool { return o.Name == remote.Name }) {
				f.all = append(f.all, remote)
			}
			continue
		}
		if err := f.add(p); err != nil {
			return nil, err
		}
	}
	if len(f.all) == 0 && len(paths) > 0 {
		if _, ok := detachedBase(filepath.Base(paths[0])); ok {
			return nil, fmt.Errorf("%q is a signature, and its bundle is not named: %w", paths[0], ErrNotBundle)
		}
		return nil, &NoBundleError{paths[0]}
	}
	if err := f.allTaken(); err != nil {
		return nil, err
	}
	for _, b := range f.all {
		if err := b.findBeside(); err != nil {
			return nil, err
		}
		for _, path := range f.detached[b.base()] {
			if len(b.Detached) < maxDetached && !slices.ContainsFunc(b.Detached, func(p string) bool { return sameFile(p, path) }) {
				b.Detached = append(b.Detached, path)
			}
		}
	}
	return f.all, nil
}

// allTaken checks that every signature which was named is that of a bundle which was.
func (f *finder) allTaken() error {
	for _, path := range f.signatures {
		base, _ := detachedBase(filepath.Base(path))
		if !slices.ContainsFunc(f.all, func(b *Files) bool { return b.base() == base }) {
			return fmt.Errorf("%q is a signature for %q, which is not named: %w", path, base, ErrNotBundle)
		}
	}
	return nil
}

// detachedBase takes what follows the bundle's name off the name of a sigstore bundle.
func detachedBase(name string) (base string, ok bool) {
	base, ok = strings.CutSuffix(name, DetachedSuffix)
	if ok && strings.HasSuffix(base, anyExtension) {
		return base, true
	}
	base, number, found := cutLast(base, ".")
	n, err := strconv.Atoi(number)
	return base, ok && found && err == nil && n > 1 && n <= maxDetachedNumber && DetachedName(base, n) == name && strings.HasSuffix(base, anyExtension)
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
	if base, ok := detachedBase(filepath.Base(path)); ok {
		f.detached[base] = append(f.detached[base], path)
		f.signatures = append(f.signatures, path)
		return nil
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

// anyExtension ends the names of bundles in files of other names.
const anyExtension = ".zst"

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
		signed, isDetached := detachedBase(name)
		switch {
		case !isFile(path):
			continue
		case isDetached:
			f.detached[signed] = append(f.detached[signed], path)
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
	if f.Remote != nil {
		return nil
	}
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
		f.addDetached(dir, names, err == nil)
	}
	return nil
}

// addDetached adds the sigstore bundles in dir, whose names are these, sorted, if it could be
// listed.
func (f *Files) addDetached(dir string, names []string, listed bool) {
	for n := 1; n <= maxDetachedNumber && len(f.Detached) < maxDetached; n++ {
		name := DetachedName(filepath.Base(f.Name), n)
		// Asking for one name is cheap, for all of them it is not where the medium is far away.
		if _, there := slices.BinarySearch(names, name); n > 1 && listed && !there {
			continue
		}
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil || !errors.Is(err, os.ErrNotExist) {
			f.Detached = append(f.Detached, path)
		}
	}
}

// In is the bundle as if its file lay in dir: what is beside it there is found.
func (f *Files) In(dir string) (*Files, error) {
	path := filepath.Join(dir, filepath.Base(f.Name))
	in := &Files{Name: path, File: path}
	return in, in.findBeside()
}

// NextDetached returns the first free path for a sigstore bundle beside the bundle's file, or its
// first volume. Who makes the file has to see (os.O_EXCL) that nobody was faster. Errors:
// *VolumesError where the first volume is missing; ErrLimit is wrapped where there are so many
// that one more would not be read; or that of looking.
func (f *Files) NextDetached() (string, error) {
	path, err := f.first()
	if err != nil {
		return "", err
	}
	if len(f.Detached) >= maxDetached {
		return "", fmt.Errorf("%d signatures lie beside %q, no more are read: %w", len(f.Detached), f.Name, ErrLimit)
	}
	for n := 1; n <= maxDetachedNumber; n++ {
		free := filepath.Join(filepath.Dir(path), DetachedName(filepath.Base(f.Name), n))
		_, err := os.Lstat(free)
		if errors.Is(err, os.ErrNotExist) {
			return free, nil
		}
		if err != nil {
			return "", fmt.Errorf("looking for a free name beside %q: %w", f.Name, err)
		}
	}
	return "", fmt.Errorf("all %d names for signatures beside %q are taken: %w", maxDetachedNumber, f.Name, ErrLimit)
}

// first is the path of the file that the bundle begins in. Errors: *VolumesError, *RemoteError.
func (f *Files) first() (string, error) {
	if f.Remote != nil {
		return "", &RemoteError{f.Name}
	}
	if f.File != "" {
		return f.File, nil
	}
	if path, ok := f.Volumes[1]; ok {
		return path, nil
	}
	count := 1
	for n := range f.Volumes {
		count = max(count, n)
	}
	return "", &VolumesError{Count: count, Problems: []VolumeProblem{{Number: 1, Kind: VolumeMissing}}}
}
