// Package kustomize builds kustomizations without a network and without other programs. It is the
// one door to sigs.k8s.io/kustomize.
package kustomize

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"sigs.k8s.io/kustomize/api/konfig"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// Bounds of a build, in bytes.
const (
	// MaxOutput bounds what a kustomization builds to.
	MaxOutput = 16 << 20
	// MaxFile bounds each file that is read, MaxInput all of them together.
	MaxFile  = 16 << 20
	MaxInput = 64 << 20
)

// BuildError says that a kustomization does not build.
type BuildError struct {
	Dir string
	Err error
}

// Error names the directory.
func (e *BuildError) Error() string {
	return fmt.Sprintf("building kustomization %q: %v", e.Dir, e.Err)
}

// Unwrap returns the cause.
func (e *BuildError) Unwrap() error { return e.Err }

// RemoteError says that a kustomization asks for what is not on this machine.
type RemoteError struct {
	// File is the kustomization, or the configuration of a plugin, Key where in it.
	File, Key string
	Address   string
}

// Error quotes the address.
func (e *RemoteError) Error() string {
	return fmt.Sprintf("%s: %s names %q, which is not on this machine: fetch it, and name the directory or file", e.File, e.Key, e.Address)
}

// PluginError says that a kustomization wants other programs to run: functions in containers,
// executables, Helm.
type PluginError struct {
	// File is the kustomization, or the configuration of the plugin, Key where in it.
	File, Key string
	// What is wanted.
	What string
}

// Error says what is wanted.
func (e *PluginError) Error() string {
	return fmt.Sprintf("%s: %s wants %s, which is not run; build it beforehand, and name what comes out", e.File, e.Key, e.What)
}

// IsKustomization tells whether a directory has a kustomization.
func IsKustomization(dir string) bool {
	for _, name := range konfig.RecognizedKustomizationFileNames() {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil && info.Mode().IsRegular() {
			return true
		}
	}
	return false
}

// building is held while a kustomization is built: the library keeps the schemas that it works
// with in variables.
var building sync.Mutex

// Build builds the kustomization in a directory, and returns its objects as a stream of YAML
// documents of at most MaxOutput bytes. Files have to be below the directory of the kustomization
// that names them; other kustomizations may be beside it. Nothing is fetched, run or written.
//
// Errors are *BuildError, and wrap *RemoteError and *PluginError.
func Build(dir string) (docs []byte, err error) {
	building.Lock()
	defer building.Unlock()
	defer func() {
		// The library has panics of its own for input that it does not expect.
		if r := recover(); r != nil {
			docs, err = nil, &BuildError{dir, fmt.Errorf("the input made the library fail: %v", r)}
		}
	}()
	// The library takes names such as github.com/a/b for addresses, unless they are absolute.
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, &BuildError{dir, err}
	}
	files := &readOnly{FileSystem: filesys.MakeFsOnDisk(), read: map[string][]byte{}}
	objects, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(files, abs)
	if files.refused != nil {
		// The library's own words are about what it tried instead.
		return nil, &BuildError{dir, files.refused}
	}
	if err != nil {
		return nil, &BuildError{dir, err}
	}
	docs, err = objects.AsYaml()
	if err != nil {
		return nil, &BuildError{dir, err}
	}
	if len(docs) > MaxOutput {
		return nil, &BuildError{dir, fmt.Errorf("the objects have more than %d bytes", MaxOutput)}
	}
	return docs, nil
}

// errReadOnly is what the library gets when it writes.
var errReadOnly = errors.New("nothing is written while a kustomization is built")
